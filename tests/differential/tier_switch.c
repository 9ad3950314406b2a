/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_switch.c - a run that takes up better code on the way gives the bytes it would have given without.
 *
 * argv[1] is the directory of the compiled functions.  What decides to compile is told of much work after the first piece, and
 * the run is held up until the code is there: so each run has calls on both tiers, however fast the machine is.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lambda/lambda.h"

#define DATA (96u << 10)
#define HOUR 3600000000000ull

static const char *dir;
static uint8_t data[DATA];

static int64_t data_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	if (off >= DATA)
		return 0;
	if (len > DATA - off)
		len = DATA - off;
	memcpy(buf, data + off, len);
	return (int64_t)len;
}

static const struct lambda_source_ops data_ops = {.name = "memory", .read = data_read};

struct sink {
	struct lambda_sink sink;
	uint8_t *p;
	size_t len;
};

static int sink_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct sink *s = (struct sink *)sink;

	s->p = realloc(s->p, s->len + len + 1);
	if (!s->p)
		return -ENOMEM;
	memcpy(s->p + s->len, p, len);
	s->len += len;
	return 0;
}

static struct lambda_function *load(const char *name)
{
	static uint8_t image[1 << 20];
	struct lambda_function *fn;
	struct lambda_error err;
	char path[512];
	size_t len;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.o", dir, name);
	f = fopen(path, "rb");
	if (!f)
		fail_msg("no %s", path);
	len = fread(image, 1, sizeof(image), f);
	fclose(f);
	if (lambda_function_load(image, len, &fn, &err))
		fail_msg("%s", err.text);
	return fn;
}

/* Between two pieces: until AUTO stands for the better tier. */
static void switch_now(void *arg, uint64_t done, uint64_t total)
{
	const struct lambda_function *fn = arg;
	struct sbpf_code_info info = {.size = sizeof(info)};

	for (int i = 0; i < 60000 && info.tier != SBPF_TIER_LLVM; i++) {
		sbpf_program_spent(fn->prog, HOUR);
		usleep(1000);
		sbpf_program_compile(fn->prog, SBPF_TIER_AUTO, &info, NULL);
	}
}

static void run(const struct lambda_function *fn, enum sbpf_tier tier, unsigned threads,
		bool switches, struct sink *out, struct lambda_report *report)
{
	struct lambda_source src = {.ops = &data_ops, .size = DATA};
	struct lambda_request req = {
		.fn = fn,
		.length = UINT64_MAX,
		.chunk = 4096,
		.threads = threads,
		.tier = tier,
		.progress = switches ? switch_now : NULL,
		.hook_arg = (void *)fn,
	};
	struct lambda_error err;
	uint8_t *arg = NULL;

	*out = (struct sink){.sink.write = sink_write};
	assert_int_equal(lambda_args_pack(&fn->args, NULL, 0, &arg, &req.arg_len, &err), 0);
	req.arg = arg;
	if (lambda_run(&req, &src, &out->sink, report, &err))
		fail_msg("%s: %s", fn->name, err.text);
	free(arg);
}

static void switched(const char *name, unsigned threads)
{
	struct lambda_function *fn = load(name);
	struct lambda_report report;
	struct sink want, got;

	run(fn, SBPF_TIER_INTERP, 1, false, &want, &report);
	assert_int_equal(report.bytes_first, report.bytes_in);
	run(fn, SBPF_TIER_AUTO, threads, true, &got, &report);
	assert_int_equal(got.len, want.len);
	assert_memory_equal(got.p, want.p, want.len);
	assert_int_equal(report.tier_first, SBPF_TIER_TEMPLATE);
	if (threads == 1) { /* of more, the others may be through before */
		assert_int_equal(report.tier, SBPF_TIER_LLVM);
		assert_in_range(report.bytes_first, 1, report.bytes_in - 1);
	}
	assert_non_null(strstr(report.tier_why, "compiled beside the calls"));
	free(got.p);
	/* From then on it starts with what it ended with. */
	run(fn, SBPF_TIER_AUTO, threads, false, &got, &report);
	assert_int_equal(got.len, want.len);
	assert_memory_equal(got.p, want.p, want.len);
	assert_int_equal(report.tier_first, SBPF_TIER_LLVM);
	assert_int_equal(report.tier, SBPF_TIER_LLVM);
	free(got.p);
	free(want.p);
	lambda_function_free(fn);
}

static void maps_give_the_same_bytes(void **state)
{
	switched("lines", 1);
	switched("calls", 1);
	switched("expand", 1);
}

static void scans_carry_their_state_from_tier_to_tier(void **state)
{
	switched("number", 1);
}

static void folds_carry_or_merge_their_states(void **state)
{
	switched("fnv", 1);
	switched("concat", 1);
}

static void threads_switch_each_at_its_next_call(void **state)
{
	switched("lines", 3);
	switched("concat", 3);
}

static void counted_fuel_keeps_its_tier(void **state)
{
	struct lambda_function *fn = load("lines");
	struct lambda_source src = {.ops = &data_ops, .size = DATA};
	struct sink out = {.sink.write = sink_write};
	uint8_t byte = 'a';
	struct lambda_request req = {.fn = fn,
				     .arg = &byte,
				     .arg_len = 1,
				     .length = UINT64_MAX,
				     .chunk = 4096,
				     .threads = 1,
				     .fuel = 1ull << 40};
	struct lambda_report report;
	struct lambda_error err;
	uint64_t fuel;

	assert_int_equal(lambda_run(&req, &src, &out.sink, &report, &err), 0);
	fuel = report.fuel;
	switch_now(fn, 0, 0);
	free(out.p);
	out = (struct sink){.sink.write = sink_write};
	assert_int_equal(lambda_run(&req, &src, &out.sink, &report, &err), 0);
	assert_int_equal(report.tier, SBPF_TIER_TEMPLATE);
	assert_int_equal(report.fuel, fuel);
	assert_non_null(strstr(report.tier_why, "fuel"));
	free(out.p);
	lambda_function_free(fn);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps_give_the_same_bytes),
		cmocka_unit_test(scans_carry_their_state_from_tier_to_tier),
		cmocka_unit_test(folds_carry_or_merge_their_states),
		cmocka_unit_test(threads_switch_each_at_its_next_call),
		cmocka_unit_test(counted_fuel_keeps_its_tier),
	};
	uint64_t seed = 1;

	dir = argc > 1 ? argv[1] : ".";
	for (size_t i = 0; i < DATA; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		data[i] = seed >> 60 ? (uint8_t)('a' + (seed >> 33) % 26) : '\n';
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
