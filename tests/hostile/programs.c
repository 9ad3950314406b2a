/* SPDX-License-Identifier: Apache-2.0 */
/* programs.bpf.c, through the public header alone: each program's end, the same on every tier. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lambdaio/sbpf.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* function.h is for functions; its context is ABI. */
struct ctx {
	uint64_t in, in_len, out, out_cap, arg, arg_len, heap, heap_len, offset, flags;
};

static struct sbpf_program *prog;
static const char *source; /* programs.bpf.c */

static void *slurp(const char *path, size_t *len)
{
	static const size_t max = 1 << 20;
	char *bytes = malloc(max + 1);
	FILE *f = fopen(path, "rb");

	if (!f || !bytes)
		return NULL;
	*len = fread(bytes, 1, max, f);
	bytes[*len] = '\0';
	fclose(f);
	return bytes;
}

/* The source line that ends in the comment. */
static uint32_t marked_line(const char *name)
{
	char mark[64];
	const char *at;
	uint32_t line = 1;

	snprintf(mark, sizeof(mark), "/* %s */", name);
	at = strstr(source, mark);
	assert_non_null(at);
	for (const char *p = source; p < at; p++)
		line += *p == '\n';
	return line;
}

struct row {
	const char *name;
	int code;
	uint64_t address; /* of -EFAULT */
	int64_t r0;       /* of 0 */
};
static const struct row rows[] = {
	{"null_store", -EFAULT, 80 + 40, 0},   {"constant_store", -EFAULT, 0xdeadbeec, 0},
	{"chase", -EFAULT, 0x41414140, 0},     {"spin", -ETIME, 0, 0},
	{"spin_in_helpers", -ETIME, 0, 0},     {"past_output", -EFAULT, 0xc0001000, 0},
	{"forged_ctx", -EFAULT, 0x10010, 0},   {"changed_constant", -EFAULT, 0x100008, 0},
	{"huge_copy", -EFAULT, 0xc0001000, 0}, {"negative_length", -EFAULT, 0xc0001000, 0},
	{"globals_do_not_survive", 0, 0, 7},   {"dangling_frame", 0, 0, 9},
	{"any_result", 0, 0, INT64_MIN + 5},
};

static void furnish(struct sbpf_sandbox *sb)
{
	static const enum sbpf_window wins[] = {SBPF_WIN_CTX, SBPF_WIN_HEAP, SBPF_WIN_IN,
						SBPF_WIN_OUT};
	struct ctx *ctx = sbpf_sandbox_ptr(sb, SBPF_WIN_CTX);

	for (size_t i = 0; i < N_ELEMS(wins); i++) {
		assert_int_equal(sbpf_sandbox_resize(sb, wins[i], SBPF_PAGE), 0);
		assert_int_equal(sbpf_sandbox_zero(sb, wins[i], SBPF_PAGE), 0);
	}
	*ctx = (struct ctx){
		.in = sbpf_window_offset(SBPF_WIN_IN),
		.in_len = SBPF_PAGE,
		.out = sbpf_window_offset(SBPF_WIN_OUT),
		.out_cap = SBPF_PAGE,
		.heap = sbpf_window_offset(SBPF_WIN_HEAP),
		.heap_len = SBPF_PAGE,
	};
}

static void check_run(const struct row *row, struct sbpf_sandbox *sb, enum sbpf_tier tier)
{
	struct sbpf_call call = {
		.size = sizeof(call),
		.tier = tier,
		.entry = (unsigned int)sbpf_program_entry_find(prog, row->name),
		.r1 = sbpf_window_offset(SBPF_WIN_CTX),
		.fuel = 5000000,
	};
	struct sbpf_error err = {0};
	int r;

	/* The kernel ends runs by the clock on the wall: on a busy machine it may strike one that is quick. */
	for (int i = 0; i < 20; i++) {
		furnish(sb);
		r = sbpf_run(sb, &call, &err);
		if (r != -ERESTART)
			break;
	}
	if (r != row->code)
		fail_msg("%s on %s: %d: %s", row->name, sbpf_tier_name(tier), r, err.text);
	if (!r) {
		assert_int_equal((int64_t)call.r0, row->r0);
		return;
	}
	assert_string_equal(err.function, row->name);
	if (err.line != marked_line(row->name))
		fail_msg("%s on %s: line %u instead of %u: %s", row->name, sbpf_tier_name(tier),
			 err.line, marked_line(row->name), err.text);
	assert_non_null(strstr(err.file, "programs.bpf.c"));
	if (r == -EFAULT)
		assert_int_equal(err.address, row->address);
}

static void ends_alike_on_every_tier_and_each_time(void **state)
{
	const struct row *row = *state;
	struct sbpf_sandbox *sb;

	for (enum sbpf_tier tier = SBPF_TIER_INTERP; tier <= SBPF_TIER_KERNEL; tier++) {
		if (sbpf_tier_missing(tier))
			continue;
		assert_int_equal(sbpf_sandbox_get_for(prog, tier, &sb), 0);
		for (int i = 0; i < 3; i++)
			check_run(row, sb, tier);
		sbpf_sandbox_put(sb);
	}
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[N_ELEMS(rows)];
	struct sbpf_error err = {0};
	size_t len;
	void *image;
	int failed;

	if (argc != 3 || !(image = slurp(argv[1], &len)) ||
	    !(source = slurp(argv[2], &(size_t){0}))) {
		fprintf(stderr, "usage: test-hostile-programs programs.o programs.bpf.c\n");
		return 2;
	}
	if (sbpf_program_from_elf(image, len, NULL, &prog, &err)) {
		fprintf(stderr, "%s: %s\n", argv[1], err.text);
		return 2;
	}
	free(image);
	for (size_t i = 0; i < N_ELEMS(rows); i++)
		tests[i] = (struct CMUnitTest){
			.name = rows[i].name,
			.test_func = ends_alike_on_every_tier_and_each_time,
			.initial_state = (void *)(uintptr_t)&rows[i],
		};
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	sbpf_program_unref(prog);
	free((void *)(uintptr_t)source);
	return failed;
}
