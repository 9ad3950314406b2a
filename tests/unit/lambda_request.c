/* SPDX-License-Identifier: Apache-2.0 */
/* What a request says: the form of good ones, and that each way to be malformed is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/lambda_private.h"

#define HOLE UINT64_MAX

static uint8_t bytes[1 << 20];
static size_t len;
static struct lambda_parsed parsed;
static uint32_t dw0;

static struct nvme_lambda_request plain(void)
{
	return (struct nvme_lambda_request){
		.version = 1, .op = NVME_LAMBDA_RUN, .length = UINT64_MAX};
}

static void add(const void *p, size_t n)
{
	if (n)
		memcpy(bytes + len, p, n);
	len += n;
}

static void add_extents(uint32_t nsid, uint64_t base, const struct nvme_lambda_extent *e,
			uint32_t n)
{
	const struct nvme_lambda_extents head = {nsid, n, base};

	add(&head, sizeof(head));
	add(e, n * sizeof(*e));
}

/* Exactly the bytes, in memory of their own, so that one read too many is seen. */
static uint16_t parse(void)
{
	uint8_t *copy = malloc(len ? len : 1);
	uint16_t status;

	memcpy(copy, bytes, len);
	lambda_parsed_free(&parsed);
	dw0 = 0;
	status = lambda_request_parse(copy, len, &parsed, &dw0);
	if (!status)
		parsed.arg = bytes + (parsed.arg - copy);
	free(copy);
	return status;
}

static uint16_t with(struct nvme_lambda_request r, const struct nvme_lambda_extent *from,
		     uint32_t n, uint64_t base)
{
	len = 0;
	r.source = NVME_LAMBDA_FROM_EXTENTS;
	r.source_len = (uint32_t)(sizeof(struct nvme_lambda_extents) + n * sizeof(*from));
	add(&r, sizeof(r));
	add_extents(1, base, from, n);
	return parse();
}

static uint16_t sink(const struct nvme_lambda_extent *to, uint32_t n, uint64_t base)
{
	struct nvme_lambda_request r = plain();

	len = 0;
	r.sink = NVME_LAMBDA_TO_EXTENTS;
	r.sink_len = (uint32_t)(sizeof(struct nvme_lambda_extents) + n * sizeof(*to));
	add(&r, sizeof(r));
	add_extents(2, base, to, n);
	return parse();
}

static void a_request_says_what_its_parts_say(void **state)
{
	struct nvme_lambda_request r = plain();
	const struct nvme_lambda_extent from[] = {{4096, 10}, {100, 5}}, to[] = {{7, 9}};
	const struct nvme_lambda_to_object object = {9, 0, 77};

	r.source = NVME_LAMBDA_FROM_EXTENTS;
	r.sink = NVME_LAMBDA_TO_EXTENTS;
	r.source_len = 16 + 32;
	r.sink_len = 16 + 16;
	r.arg_len = 3;
	r.offset = 1003;
	r.length = 12;
	len = 0;
	add(&r, sizeof(r));
	add_extents(5, 1000, from, 2);
	add_extents(6, 0, to, 1);
	add("abc", 3);
	assert_int_equal(parse(), 0);
	assert_int_equal(parsed.from.nsid, 5);
	assert_int_equal(parsed.from.n, 2);
	assert_int_equal(parsed.from.bytes, 15);
	assert_int_equal(parsed.base, 1000);
	assert_int_equal(parsed.to.nsid, 6);
	assert_int_equal(parsed.to.n, 1);
	assert_int_equal(parsed.to.bytes, 9);
	assert_memory_equal(parsed.arg, "abc", 3);

	r.source = NVME_LAMBDA_FROM_OBJECT;
	r.source_len = 8;
	r.sink = NVME_LAMBDA_TO_OBJECT;
	r.sink_len = sizeof(object);
	r.arg_len = 0;
	len = 0;
	add(&r, sizeof(r));
	add((const uint32_t[]){4, 0}, 8);
	add(&object, sizeof(object));
	assert_int_equal(parse(), 0);
	assert_int_equal(parsed.from_object, 4);
	assert_int_equal(parsed.to_object, 9);
	assert_int_equal(parsed.to_at, 77);
}

static void neighbours_are_merged_in_order(void **state)
{
	const struct nvme_lambda_extent e[] = {{0, 10}, {10, 5}, {15, 1},   {20, 4},
					       {16, 4}, {20, 2}, {HOLE, 3}, {HOLE, 4},
					       {22, 8}, {0, 30}, {0, 30}};

	assert_int_equal(with(plain(), e, 11, 0), 0);
	assert_int_equal(parsed.from.n, 7);
	assert_int_equal(parsed.from.seg[0].length, 16);
	assert_int_equal(parsed.from.seg[1].at, 20);
	assert_int_equal(parsed.from.seg[2].at, 16);
	assert_int_equal(parsed.from.seg[2].length, 6);
	assert_true(parsed.from.seg[3].at == HOLE);
	assert_int_equal(parsed.from.seg[3].length, 7);
	assert_int_equal(parsed.from.bytes, 16 + 4 + 6 + 7 + 8 + 60);
	assert_int_equal(sink((const struct nvme_lambda_extent[]){{8, 8}, {0, 8}, {16, 4}}, 3, 0),
			 0);
	assert_int_equal(parsed.to.n, 3);
	assert_int_equal(with(plain(), NULL, 0, 0), 0);
	assert_int_equal(parsed.from.bytes, 0);
}

static void numbers_do_not_wrap(void **state)
{
	const uint64_t big = INT64_MAX;
	struct nvme_lambda_request r = plain();

	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{0, 0}}, 1, 0), 2);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{HOLE, 0}}, 1, 0), 2);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{0, big}}, 1, 0), 0);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{1, big}}, 1, 0),
			 NVME_SC_LBA_RANGE);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{big, 1}}, 1, 0),
			 NVME_SC_LBA_RANGE);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{HOLE - 1, 1}}, 1, 0),
			 NVME_SC_LBA_RANGE);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{0, big + 1}}, 1, 0), 2);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{HOLE, UINT64_MAX}}, 1, 0), 2);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{HOLE, big}, {HOLE, 1}}, 2, 0),
			 2);
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{HOLE, big}, {0, 1}}, 2, 0),
			 2);
	r.offset = big;
	assert_int_equal(with(r, (const struct nvme_lambda_extent[]){{0, 1}}, 1, big), 2);
	assert_int_equal(with(r, NULL, 0, big), 0);
	assert_int_equal(with(r, NULL, 0, big + 1), 2);
	r.offset = big + 1;
	assert_int_equal(with(r, NULL, 0, 0), 2);
	r.offset = 10;
	r.length = big;
	assert_int_equal(with(r, NULL, 0, 0), 2);
	r.length = big - 10;
	assert_int_equal(with(r, NULL, 0, 0), 0);
	r.length = UINT64_MAX - 1;
	assert_int_equal(with(r, NULL, 0, 0), 2);
}

static void a_namespace_holds_all_of_an_extent_or_the_request_is_refused(void **state)
{
	static const struct {
		uint64_t at, length;
		bool good;
	} cases[] = {{0, 4096, true},       {4095, 1, true},  {0, 4097, false},
		     {4096, 1, false},      {4095, 2, false}, {INT64_MAX - 1, 1, false},
		     {HOLE, 1u << 30, true}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct nvme_lambda_extent e = {cases[i].at, cases[i].length};

		assert_int_equal(with(plain(), &e, 1, 0), 0);
		assert_int_equal(lambda_extents_check(&parsed.from, 4096),
				 cases[i].good ? 0 : NVME_SC_LBA_RANGE);
	}
}

static void what_is_written_is_written_once(void **state)
{
	const struct nvme_lambda_extent bad[][3] = {
		{{0, 10}, {9, 1}, {50, 1}}, {{9, 1}, {0, 10}, {50, 1}},
		{{50, 1}, {0, 10}, {0, 1}}, {{0, 100}, {20, 5}, {200, 1}},
		{{5, 5}, {100, 1}, {5, 5}},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sink(bad[i], 3, 0), NVME_SC_OVERLAPPING_RANGE);
	assert_int_equal(with(plain(), bad[0], 3, 0), 0);
	assert_int_equal(sink((const struct nvme_lambda_extent[]){{10, 10}, {0, 10}}, 2, 0), 0);
	assert_int_equal(sink((const struct nvme_lambda_extent[]){{HOLE, 10}}, 1, 0), 2);
	assert_int_equal(sink((const struct nvme_lambda_extent[]){{0, 10}}, 1, 1), 2);
}

/* Each byte of the header in turn, with each bit changed: what is accepted is within its rules. */
static void every_bit_of_the_header_counts(void **state)
{
	const struct nvme_lambda_extent e = {4096, 4096};
	struct nvme_lambda_request r = plain();
	unsigned int accepted = 0;

	assert_int_equal(with(r, &e, 1, 0), 0);
	for (size_t bit = 0; bit < 8 * (128 + 16); bit++) {
		uint8_t *at = &bytes[bit / 8], keep = *at;
		uint16_t status;

		*at ^= (uint8_t)(1u << bit % 8);
		status = parse();
		*at = keep;
		if (bit / 8 < 2) {
			assert_int_equal(status, NVME_SC_LAMBDA_VERSION);
			assert_int_equal(dw0, 1 | 1 << 16);
		}
		if (status)
			continue;
		accepted++;
		assert_int_equal(parsed.head.version, 1);
		assert_int_equal(parsed.head.op, NVME_LAMBDA_RUN);
		assert_int_equal(parsed.head.flags & ~NVME_LAMBDA_DECOMPRESS, 0);
		assert_true(parsed.head.tier <= 2);
		assert_true(!parsed.head.reserved && !parsed.head.reserved2 &&
			    !parsed.head.reserved3);
		assert_true(parsed.head.offset <= INT64_MAX && parsed.base <= INT64_MAX);
		assert_int_equal(parsed.from.n, 1);
	}
	/* the hash, offset, length's 63rd bit, chunk, three budgets, threads, two tiers, decompress, nsid */
	assert_in_range(accepted, 256 + 63 + 64 * 4 + 32 + 2 + 1 + 32,
			256 + 64 * 6 + 32 + 2 + 1 + 32 + 64);
}

static void no_length_but_its_own_is_accepted(void **state)
{
	const struct nvme_lambda_extent e[2] = {{0, 10}, {20, 10}};
	size_t whole;

	assert_int_equal(with(plain(), e, 2, 0), 0);
	whole = len;
	for (len = 0; len < whole + 40; len++)
		assert_true(!parse() == (len == whole));
}

static void fuel_and_its_flag_come_together(void **state)
{
	struct nvme_lambda_request r = plain();

	r.fuel = 1;
	assert_int_equal(with(r, NULL, 0, 0), 2);
	r.flags = NVME_LAMBDA_FUEL;
	assert_int_equal(with(r, NULL, 0, 0), 0);
	r.fuel = 0;
	assert_int_equal(with(r, NULL, 0, 0), 2);
}

static void more_extents_than_a_job_may_have_are_too_big(void **state)
{
	const uint32_t n = CTRL_MAX_SEGMENTS + 1;
	struct nvme_lambda_request r = plain();
	uint8_t *p = calloc(1, sizeof(r) + 16 + 16ull * n);
	struct nvme_lambda_extents *head = (struct nvme_lambda_extents *)(p + sizeof(r));
	struct nvme_lambda_extent *e = (struct nvme_lambda_extent *)(head + 1);

	r.source = NVME_LAMBDA_FROM_EXTENTS;
	r.source_len = 16 + 16 * n;
	memcpy(p, &r, sizeof(r));
	head->n = n;
	for (uint32_t i = 0; i < n; i++)
		e[i] = (struct nvme_lambda_extent){2ull * i, 1};
	lambda_parsed_free(&parsed);
	assert_int_equal(lambda_request_parse(p, sizeof(r) + 16 + 16ull * n, &parsed, &dw0),
			 NVME_SC_LAMBDA_TOO_BIG);
	/* neighbours are one */
	for (uint32_t i = 0; i < n; i++)
		e[i] = (struct nvme_lambda_extent){i, 1};
	assert_int_equal(lambda_request_parse(p, sizeof(r) + 16 + 16ull * n, &parsed, &dw0), 0);
	assert_int_equal(parsed.from.n, 1);
	free(p);
}

static void paths_have_the_lengths_that_they_say(void **state)
{
	struct nvme_path_request r = {.version = 1, .op = NVME_PATH_OPEN, .path_len = 5};
	uint8_t p[64] = {0};

	memcpy(p, &r, sizeof(r));
	for (uint64_t n = 0; n < sizeof(p); n++)
		assert_true(!lambda_path_check(p, n, &dw0) == (n == 37));
	r.op = NVME_PATH_RENAME;
	r.path2_len = 3;
	memcpy(p, &r, sizeof(r));
	assert_int_equal(lambda_path_check(p, 40, &dw0), 0);
	for (uint16_t op = 0; op < 40; op++) {
		r.op = op;
		memcpy(p, &r, sizeof(r));
		assert_true(!lambda_path_check(p, 40, &dw0) == (op == NVME_PATH_RENAME));
	}
	r = (struct nvme_path_request){.version = 1, .op = NVME_PATH_STAT, .flags = 1};
	memcpy(p, &r, sizeof(r));
	assert_int_equal(lambda_path_check(p, 32, &dw0), 2);
	r.flags = 0;
	r.cookie = 1;
	memcpy(p, &r, sizeof(r));
	assert_int_equal(lambda_path_check(p, 32, &dw0), 2);
	r.cookie = 0;
	r.reserved = 1;
	memcpy(p, &r, sizeof(r));
	assert_int_equal(lambda_path_check(p, 32, &dw0), 2);
}

static void budgets_above_the_limits_are_refused_by_name(void **state)
{
	const struct ctrl_lambda_limits limits = {
		.max_fuel = 100, .max_memory = 1000, .max_output = 10000, .max_timeout_ns = 5};
	struct nvme_lambda_request r = plain();
	struct ctrl_error err;

	assert_int_equal(lambda_budgets(&r, &limits, &err), 0);
	assert_int_equal(r.memory, 1000);
	assert_int_equal(r.max_output, 10000);
	assert_int_equal(r.timeout_ns, 5);
	assert_int_equal(r.fuel, 0);
	r.memory = 1001;
	assert_int_equal(lambda_budgets(&r, &limits, &err), -E2BIG);
	assert_string_equal(err.text,
			    "memory: 1001 bytes is above this server's limit of 1000 bytes; "
			    "ask for less, or run it on the host");
	r.memory = 5;
	r.max_output = 10001;
	assert_int_equal(lambda_budgets(&r, &limits, &err), -E2BIG);
	assert_non_null(strstr(err.text, "max-output: "));
	r.max_output = 1;
	r.timeout_ns = 6;
	assert_int_equal(lambda_budgets(&r, &limits, &err), -E2BIG);
	assert_non_null(strstr(err.text, "timeout: "));
	r.timeout_ns = 1;
	r.flags = NVME_LAMBDA_FUEL;
	r.fuel = 101;
	assert_int_equal(lambda_budgets(&r, &limits, &err), -E2BIG);
	assert_non_null(strstr(err.text, "fuel: "));
	r.fuel = 100;
	assert_int_equal(lambda_budgets(&r, &limits, &err), 0);
}

static int forget(void **state)
{
	lambda_parsed_free(&parsed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_says_what_its_parts_say),
		cmocka_unit_test(neighbours_are_merged_in_order),
		cmocka_unit_test(numbers_do_not_wrap),
		cmocka_unit_test(a_namespace_holds_all_of_an_extent_or_the_request_is_refused),
		cmocka_unit_test(what_is_written_is_written_once),
		cmocka_unit_test(every_bit_of_the_header_counts),
		cmocka_unit_test(no_length_but_its_own_is_accepted),
		cmocka_unit_test(fuel_and_its_flag_come_together),
		cmocka_unit_test(more_extents_than_a_job_may_have_are_too_big),
		cmocka_unit_test(paths_have_the_lengths_that_they_say),
		cmocka_unit_test(budgets_above_the_limits_are_refused_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, forget);
}
