/* SPDX-License-Identifier: Apache-2.0 */
/* What jobs promise when nothing is wrong: every kind of function, every kind of source, output at any pace. */
#include "worker_fixture.h"

/* ---- data ---- */

static char *lines_of(size_t n, size_t *len)
{
	char *p = malloc(n * 64);
	size_t at = 0;

	for (size_t i = 0; i < n; i++)
		at += (size_t)sprintf(p + at, "line %zu %s\n", i, i % 10 ? "plain" : "ERROR here");
	*len = at;
	return p;
}

static size_t count_lines(const uint8_t *p, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += p[i] == '\n';
	return n;
}

static void grep_on_a_descriptor_gives_the_lines_in_order(void **state)
{
	struct fixture f;
	struct run r;
	char arg[32];
	size_t len;
	char *data = lines_of(100000, &len);

	fixture_open(&f, NULL);
	run_init(&r, &f, "grep");
	run_over(&r, data, len);
	run_arg_text(&r, arg, "ERROR");
	run_ok(&r);
	assert_int_equal(count_lines(r.out, r.len), 10000);
	assert_memory_equal(r.out, "line 0 ERROR here\nline 10 ERROR", 30);
	assert_int_equal(r.job.result.bytes_in, len);
	assert_int_equal(r.job.result.bytes_out, r.len);
	assert_int_equal(r.job.done, len);
	run_free(&r);
	free(data);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grep_on_a_descriptor_gives_the_lines_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
