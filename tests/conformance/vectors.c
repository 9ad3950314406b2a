/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every vector of a file gives its expected r0 on every tier that runs here.
 *
 *     test-vectors FILE.tsv
 *
 * A line is name, program, memory, expected r0; names that differ after '@' are one promise.  Vectors that
 * call a suite's own helper are left to plugin.py: the command stands in for those.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sbpf/internal.h"
#if defined(LLVM_HERE)
#include "llvm_here.h"
#endif

struct vector {
	char *name; /* the line, its tabs made ends of strings */
	uint8_t *program;
	size_t insns;
	uint8_t *memory;
	size_t memory_len;
	uint64_t want;
};

struct promise { /* vectors [first, end) on one tier */
	const struct vector *first, *end;
	enum sbpf_tier tier;
	char title[96];
};

static void *need(void *p)
{
	if (!p) {
		perror("vectors");
		exit(1);
	}
	return p;
}

static uint8_t *decode(const char *hex, size_t *len)
{
	uint8_t *bytes = need(malloc(strlen(hex) / 2 + 1));

	for (*len = 0; hex[0] && hex[1]; hex += 2) {
		char digits[3] = {hex[0], hex[1], '\0'};

		bytes[(*len)++] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return bytes;
}

static void parse(char *line, struct vector *v)
{
	char *program, *memory, *want;
	size_t len;

	v->name = strsep(&line, "\t");
	program = strsep(&line, "\t");
	memory = strsep(&line, "\t");
	want = strsep(&line, "\n");
	if (!want) {
		fprintf(stderr, "vectors: %s is not a whole line\n", v->name);
		exit(1);
	}
	v->program = decode(program, &len);
	v->insns = len / 8;
	v->memory = decode(memory, &v->memory_len);
	v->want = strtoull(want, NULL, 16);
}

static bool calls_a_helper(const struct vector *v)
{
	for (size_t i = 0; i < v->insns; i++)
		if (v->program[8 * i] == (BPF_JMP | BPF_CALL) && v->program[8 * i + 1] >> 4 == 0)
			return true;
	return false;
}

static void release(struct vector *v)
{
	free(v->memory);
	free(v->program);
	free(v->name);
}

static size_t read_vectors(const char *path, struct vector **out)
{
	FILE *f = need(fopen(path, "re"));
	struct vector *vectors = NULL;
	char *line = NULL;
	size_t room = 0, n = 0, size = 0;

	while (getline(&line, &size, f) > 0) {
		if (line[0] == '#')
			continue;
		if (n == room) {
			room = room ? 2 * room : 256;
			vectors = need(realloc(vectors, room * sizeof(*vectors)));
		}
		parse(need(strdup(line)), &vectors[n]);
		if (calls_a_helper(&vectors[n]))
			release(&vectors[n]);
		else
			n++;
	}
	free(line);
	fclose(f);
	*out = vectors;
	return n;
}

static void check(const struct vector *v, enum sbpf_tier tier)
{
	struct sbpf_call call = {.size = sizeof(call), .tier = tier, .fuel = 1u << 24};
	struct sbpf_error err = {0};
	struct sbpf_program *prog;
	struct sbpf_sandbox *sb;
	int r;

	if (sbpf_program_from_insns(v->program, v->insns, NULL, &prog, &err))
		fail_msg("%s: %s", v->name, err.text);
	assert_int_equal(sbpf_sandbox_get_for(prog, tier, &sb), 0);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, v->memory_len), 0);
	if (v->memory_len) {
		memcpy(sbpf_sandbox_ptr(sb, SBPF_WIN_IN), v->memory, v->memory_len);
		call.r1 = sbpf_window_offset(SBPF_WIN_IN);
		call.r2 = v->memory_len;
	}
#if defined(LLVM_HERE)
	if (tier == SBPF_TIER_LLVM && compile_llvm_here(prog, err.text, sizeof(err.text)))
		fail_msg("%s: %s", v->name, err.text);
#endif
	r = sbpf_run(sb, &call, &err);
	/* The kernel's own limit of calls, which is less than ours, is refused by name. */
	if (r == -EOPNOTSUPP && tier == SBPF_TIER_KERNEL && strstr(err.text, "functions deep"))
		call.r0 = v->want;
	else if (r)
		fail_msg("%s: %s", v->name, err.text);
	if (call.r0 != v->want)
		fail_msg("%s: r0 is 0x%llx, not 0x%llx", v->name, (unsigned long long)call.r0,
			 (unsigned long long)v->want);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void check_promise(void **state)
{
	const struct promise *p = *state;

	for (const struct vector *v = p->first; v < p->end; v++)
		check(v, p->tier);
}

static bool same_title(const struct vector *a, const struct vector *b)
{
	size_t n = strcspn(a->name, "@");

	return n == strcspn(b->name, "@") && !memcmp(a->name, b->name, n);
}

static size_t make_promises(const struct vector *vectors, size_t n, enum sbpf_tier tier,
			    struct promise *out)
{
	size_t made = 0;

	for (size_t i = 0; i < n; i++) {
		struct promise *p = &out[made];

		if (i && same_title(&vectors[i - 1], &vectors[i])) {
			out[made - 1].end++;
			continue;
		}
		p->first = &vectors[i];
		p->end = &vectors[i + 1];
		p->tier = tier;
		snprintf(p->title, sizeof(p->title), "%.*s on %s",
			 (int)strcspn(vectors[i].name, "@"), vectors[i].name, sbpf_tier_name(tier));
		made++;
	}
	return made;
}

int main(int argc, char **argv)
{
	struct vector *vectors;
	struct promise *promises;
	struct CMUnitTest *tests;
	size_t n, made = 0;
	int failed;

	if (argc != 2) {
		fprintf(stderr, "usage: test-vectors FILE.tsv\n");
		return 2;
	}
	n = read_vectors(argv[1], &vectors);
	promises = need(calloc(n * SBPF_TIER_KERNEL, sizeof(*promises)));
	for (enum sbpf_tier tier = SBPF_TIER_INTERP; tier <= SBPF_TIER_KERNEL; tier++)
		if (!sbpf_tier_missing(tier))
			made += make_promises(vectors, n, tier, promises + made);
	tests = need(calloc(made, sizeof(*tests)));
	for (size_t i = 0; i < made; i++)
		tests[i] = (struct CMUnitTest){.name = promises[i].title,
					       .test_func = check_promise,
					       .initial_state = &promises[i]};
	failed = _cmocka_run_group_tests(argv[1], tests, made, NULL, NULL);
	free(tests);
	free(promises);
	for (size_t i = 0; i < n; i++)
		release(&vectors[i]);
	free(vectors);
	return failed;
}
