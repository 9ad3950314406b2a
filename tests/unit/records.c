/* SPDX-License-Identifier: Apache-2.0 */
/*
 * records.c - where records start and pieces may be cut, against a search byte by byte.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lambda/internal.h"

#define LONG 60000u /* beyond what one look at the source covers */

struct memory {
	struct lambda_source src;
	const uint8_t *p;
	uint64_t len;
	size_t most; /* bytes a read gives at most */
	uint64_t looked;
};

static int64_t memory_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct memory *m = (struct memory *)src;

	if (off >= m->len)
		return 0;
	if (len > m->most)
		len = m->most;
	if (len > m->len - off)
		len = m->len - off;
	memcpy(buf, m->p + off, len);
	m->looked += len;
	return (int64_t)len;
}

static const struct lambda_source_ops memory_ops = {.name = "memory", .read = memory_read};

static struct memory memory_of(const void *p, uint64_t len)
{
	return (struct memory){
		.src = {.ops = &memory_ops, .size = len}, .p = p, .len = len, .most = SIZE_MAX};
}

static struct lambda_cutter cutter(struct memory *m, enum lambda_record kind, uint32_t value)
{
	return (struct lambda_cutter){.kind = kind, .value = value, .src = &m->src, .size = m->len};
}

static bool is_start(const struct lambda_cutter *c, const uint8_t *p, uint64_t at)
{
	if (at == 0 || at == c->size || c->kind == LAMBDA_RECORDS_ANY)
		return true;
	return c->kind == LAMBDA_RECORDS_FIXED ? at % c->value == 0 : p[at - 1] == c->value;
}

static const struct {
	enum lambda_record kind;
	uint32_t value;
} kinds[] = {
	{LAMBDA_RECORDS_ANY, 0},
	{LAMBDA_RECORDS_FIXED, 1},
	{LAMBDA_RECORDS_FIXED, 7},
	{LAMBDA_RECORDS_DELIM, '\n'},
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const char text[] = "one\n\ntwo words\nthree\nno end";
#define TEXT_LEN (sizeof(text) - 1)

static void the_next_start_is_the_first_at_or_after_an_offset(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_KINDS; k++)
		for (uint64_t off = 0; off <= TEXT_LEN + 2; off++) {
			struct memory m = memory_of(text, TEXT_LEN);
			struct lambda_cutter c = cutter(&m, kinds[k].kind, kinds[k].value);
			uint64_t want = off < TEXT_LEN ? off : TEXT_LEN, got;

			while (!is_start(&c, m.p, want))
				want++;
			m.most = 1 + off % 3;
			assert_int_equal(lambda_record_next(&c, off, UINT64_MAX, &got), 0);
			assert_int_equal(got, want);
		}
}

static void the_last_start_is_the_last_up_to_an_offset(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_KINDS; k++)
		for (uint64_t lo = 0; lo < TEXT_LEN; lo++)
			for (uint64_t hi = lo; hi < TEXT_LEN; hi++) {
				struct memory m = memory_of(text, TEXT_LEN);
				struct lambda_cutter c = cutter(&m, kinds[k].kind, kinds[k].value);
				uint64_t want = hi, got;

				while (want > lo && !is_start(&c, m.p, want))
					want--;
				assert_int_equal(lambda_record_last(&c, lo, hi, &got), 0);
				assert_int_equal(got, want);
			}
}

static void a_cut_is_at_the_first_start_after_the_target_or_the_last_within_the_limit(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_KINDS; k++)
		for (uint64_t target = 1; target < TEXT_LEN; target++)
			for (uint64_t limit = target; limit <= TEXT_LEN; limit++) {
				struct memory m = memory_of(text, TEXT_LEN);
				struct lambda_cutter c = cutter(&m, kinds[k].kind, kinds[k].value);
				uint64_t want = target, got;
				int rc = lambda_record_cut(&c, 0, target, limit, &got);

				while (!is_start(&c, m.p, want))
					want++;
				if (want > limit)
					for (want = target; !is_start(&c, m.p, want);)
						want--;
				assert_int_equal(rc, want ? 0 : -EMSGSIZE);
				if (!rc)
					assert_int_equal(got, want);
			}
}

static void a_range_has_the_records_that_start_in_it(void **state)
{
	(void)state;
	for (size_t k = 0; k < N_KINDS; k++)
		for (uint64_t off = 0; off <= TEXT_LEN + 1; off++)
			for (uint64_t len = 0; len <= TEXT_LEN + 1; len++) {
				struct memory m = memory_of(text, TEXT_LEN);
				struct lambda_cutter c = cutter(&m, kinds[k].kind, kinds[k].value);
				uint64_t end = off + len < TEXT_LEN ? off + len : TEXT_LEN;
				uint64_t first = off < end ? off : end;
				struct lambda_range r;

				assert_int_equal(lambda_record_range(&c, off, len, &r), 0);
				while (first < end && !is_start(&c, m.p, first))
					first++;
				if (c.kind == LAMBDA_RECORDS_FIXED && c.value == 7 &&
				    end > TEXT_LEN - TEXT_LEN % 7 &&
				    off <= TEXT_LEN - TEXT_LEN % 7) {
					assert_int_equal(r.trailing, TEXT_LEN % 7);
					end = TEXT_LEN - TEXT_LEN % 7;
				} else {
					assert_int_equal(r.trailing, 0);
				}
				if (first >= end) {
					assert_int_equal(r.begin, r.end);
				} else {
					assert_int_equal(r.begin, first);
					assert_int_equal(r.end, end);
				}
			}
}

static void huge_offsets_do_not_wrap(void **state)
{
	struct memory m = memory_of(text, TEXT_LEN);
	struct lambda_range r;

	(void)state;
	for (size_t k = 0; k < N_KINDS; k++) {
		struct lambda_cutter c = cutter(&m, kinds[k].kind, kinds[k].value);

		assert_int_equal(lambda_record_range(&c, UINT64_MAX - 1, UINT64_MAX, &r), 0);
		assert_int_equal(r.begin, r.end);
		assert_int_equal(lambda_record_range(&c, 0, UINT64_MAX, &r), 0);
		assert_int_equal(r.begin, 0);
	}
}

static void delimiters_are_found_across_looks_at_the_source(void **state)
{
	uint8_t *p = malloc(LONG);

	(void)state;
	for (uint64_t at = 1; at < LONG; at = at * 3 / 2 + 1) {
		struct memory m = memory_of(p, LONG);
		struct lambda_cutter c = cutter(&m, LAMBDA_RECORDS_DELIM, 'x');
		uint64_t got;

		memset(p, '.', LONG);
		p[at] = 'x';
		assert_int_equal(lambda_record_next(&c, 1, UINT64_MAX, &got), 0);
		assert_int_equal(got, at + 1);
		assert_int_equal(lambda_record_last(&c, 0, LONG - 1, &got), 0);
		assert_int_equal(got, at + 1 < LONG ? at + 1 : 0);
	}
	free(p);
}

static void a_search_stops_at_its_limit(void **state)
{
	uint8_t *p = calloc(1, LONG);
	struct memory m = memory_of(p, LONG);
	struct lambda_cutter c = cutter(&m, LAMBDA_RECORDS_DELIM, '\n');
	uint64_t got;

	(void)state;
	assert_int_equal(lambda_record_next(&c, 10, 1000, &got), -EMSGSIZE);
	assert_true(m.looked <= 1000);
	p[999] = '\n';
	assert_int_equal(lambda_record_next(&c, 10, 1000, &got), 0);
	assert_int_equal(got, 1000);
	free(p);
}

static void a_source_that_ends_early_is_told_from_the_end(void **state)
{
	struct memory m = memory_of(text, TEXT_LEN);
	struct lambda_cutter c = cutter(&m, LAMBDA_RECORDS_DELIM, '\n');
	uint64_t got;

	(void)state;
	c.size = TEXT_LEN + 100;
	assert_int_equal(lambda_record_next(&c, TEXT_LEN - 2, UINT64_MAX, &got), -ENODATA);
	assert_int_equal(lambda_record_last(&c, 0, TEXT_LEN + 50, &got), -ENODATA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_next_start_is_the_first_at_or_after_an_offset),
		cmocka_unit_test(the_last_start_is_the_last_up_to_an_offset),
		cmocka_unit_test(
			a_cut_is_at_the_first_start_after_the_target_or_the_last_within_the_limit),
		cmocka_unit_test(a_range_has_the_records_that_start_in_it),
		cmocka_unit_test(huge_offsets_do_not_wrap),
		cmocka_unit_test(delimiters_are_found_across_looks_at_the_source),
		cmocka_unit_test(a_search_stops_at_its_limit),
		cmocka_unit_test(a_source_that_ends_early_is_told_from_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
