/* SPDX-License-Identifier: Apache-2.0 */
/* No section of its own: entries are the global functions that no other calls. */
#define NOINLINE __attribute__((noinline))

static NOINLINE int hidden_away(int x)
{
	return x * 3 + 1;
}

NOINLINE int called(int x)
{
	return hidden_away(x) - 7;
}

__attribute__((visibility("hidden"))) NOINLINE int not_exported(int x)
{
	return called(x) * called(x + 1);
}

int first(int x)
{
	return called(x) + 1;
}

int last(int x)
{
	return not_exported(x) + 2;
}

extern int other_name(int x) __attribute__((alias("last")));
