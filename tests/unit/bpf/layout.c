/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that a linker has to do, in one function: constants, tables of pointers, strings, globals with and
 * without a value, static and global functions in two sections, a helper.  tests/unit/elf.c compiles it for
 * the host as well and compares results.
 */
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;

void *lambda_memcpy(void *dst, const void *src, u64 n);

#define NOINLINE __attribute__((noinline))
#ifdef __bpf__
#define SECTION(name) __attribute__((section(name)))
#else
#define SECTION(name)
#endif

static const char *const names[] = {"zero", "one", "two", "three"};
static const u32 primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31};
static const u32 *const tables[] = {primes + 3, primes, primes + 10};
static const double odd_constant = 0.1;

u64 counter = 7;
static u64 zeroed[16];
u64 *inside = &zeroed[3];
static u8 aligned[3] __attribute__((aligned(64))) = {1, 2, 3};
int tentative;
u64 tentative_wide;

static NOINLINE u64 inner(u64 a, u64 b)
{
	zeroed[a & 15] += b;
	return zeroed[b & 15] + primes[a % 11];
}

NOINLINE u64 same_section(u64 a)
{
	return inner(a, 3) ^ inner(3, a);
}

enum {
	LINE_OF_SECOND = __LINE__ + 1
};
SECTION("other/second") NOINLINE u64 second(u64 x)
{
	counter += x;
	return inner(x, counter) * 3 + same_section(x);
}

SECTION("lambda/map") long layout(u64 a, u64 b)
{
	u8 text[8];
	u64 sum;

	lambda_memcpy(text, names[a % 4], 4);
	*inside = 9 + b;
	tentative += 5;
	tentative_wide += 1ull << 40;
	sum = second(a) * 31 + zeroed[3];
	sum = sum * 31 + tables[a % 3][0];
	sum = sum * 31 + text[b % 4];
	sum = sum * 31 + aligned[b % 3] + ((u64)aligned & 63);
	sum = sum * 31 + (u64)tentative + tentative_wide;
	sum = sum * 31 + ((const u8 *)&odd_constant)[b % 8];
	switch (a % 9) {
	case 0:
		return (long)(sum + 8);
	case 1:
		return (long)inner(sum, 5);
	case 2:
		return (long)second(sum);
	case 3:
		return -3;
	case 5:
		return (long)(sum >> 3);
	case 7:
		return (long)(sum / (b | 1));
	default:
		return (long)sum;
	}
}
