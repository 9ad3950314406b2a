/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs end inside the kernel as on the interpreter: the same r0 and the same bytes in every window where
 * they return, the same error at the same address where they do not.  What is refused, is refused by name, and is few.
 *
 * A failure prints its seed; SBPF_SEED=N runs that one alone, SBPF_PROGRAMS=N tries so many from there on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernel.h"
#include "random_program.h"

#define PROGRAMS 300u

static struct {
	uint64_t returned, faulted, timed_out, refused;
} seen;
static struct rp_outcome want, got;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static struct sbpf_sandbox *furnish(struct sbpf_program *prog, enum sbpf_tier tier)
{
	struct sbpf_sandbox *sb;

	assert_int_equal(sbpf_sandbox_get_for(prog, tier, &sb), 0);
	for (uint32_t i = 0; i < RP_KEPT; i++)
		if (rp_kept[i] != SBPF_WIN_STACK)
			assert_int_equal(sbpf_sandbox_resize(sb, rp_kept[i], RP_BYTES), 0);
	return sb;
}

/* NULL or how they differ. */
static const char *compare(void)
{
	seen.returned += want.code == 0;
	seen.faulted += want.code == -EFAULT;
	seen.timed_out += want.code == -ETIME;
	if (want.code != got.code)
		return "another end";
	if (want.code == -EFAULT && want.address != got.address)
		return "another address";
	if (want.code)
		return NULL;
	if (want.r0 != got.r0)
		return "another r0";
	for (uint32_t i = 0; i < RP_KEPT; i++)
		if (rp_kept[i] != SBPF_WIN_STACK &&
		    memcmp(want.bytes[i], got.bytes[i], sizeof(want.bytes[i])))
			return "other bytes";
	return NULL;
}

static void tell(struct sbpf_program *prog, uint64_t seed, const char *differs)
{
	sbpf_program_disasm(prog, rp_print, stderr);
	fprintf(stderr, "# interp: code %d r0 0x%" PRIx64 " insn %d address 0x%" PRIx64 "\n",
		want.code, want.r0, want.insn, want.address);
	fprintf(stderr, "# kernel: code %d r0 0x%" PRIx64 " insn %d address 0x%" PRIx64 "\n",
		got.code, got.r0, got.insn, got.address);
	fail_msg("seed %" PRIu64 ": %s", seed, differs);
}

static void one_program(uint64_t seed)
{
	static struct rp_gen g;
	struct rp_stream s = {.state = seed * 0x2545f4914f6cdd1du};
	struct sbpf_sandbox *plain, *arena;
	struct sbpf_program *prog;
	struct sbpf_error err;
	const char *differs;
	int r;

	rp_generate(&g, &s);
	if (sbpf_program_from_insns(g.insns, g.n, NULL, &prog, &err))
		fail_msg("seed %" PRIu64 ": refused: %s", seed, err.text);
	plain = furnish(prog, SBPF_TIER_INTERP);
	arena = furnish(prog, SBPF_TIER_KERNEL);
	r = sbpf_sandbox_prepare(arena, 0, &err);
	if (r) {
		assert_int_equal(r, -EOPNOTSUPP);
		assert_true(strlen(err.text) > 20);
		seen.refused++;
		if (getenv("SBPF_SEED"))
			fprintf(stderr, "# seed %" PRIu64 ": %s\n", seed, err.text);
	} else {
		rp_run(plain, SBPF_TIER_INTERP, &want);
		/* The kernel ends runs by the clock on the wall: on a busy machine it may strike a quick one. */
		for (int i = 0; i < 20; i++) {
			rp_run(arena, SBPF_TIER_KERNEL, &got);
			if (got.code != -ERESTART)
				break;
		}
		differs = compare();
		if (differs)
			tell(prog, seed, differs);
	}
	sbpf_sandbox_put(arena);
	sbpf_sandbox_put(plain);
	sbpf_program_unref(prog);
}

static void programs_end_as_on_the_interpreter(void **state)
{
	uint64_t seed = number("SBPF_SEED", 1);
	uint64_t n = number("SBPF_PROGRAMS", getenv("SBPF_SEED") ? 1 : PROGRAMS);

	for (uint64_t i = 0; i < n; i++)
		one_program(seed + i);
	/* A generator that only makes one kind, or a translator that refuses most, would prove little. */
	if (n >= PROGRAMS) {
		assert_in_range(seen.returned, n / 10, n);
		assert_in_range(seen.faulted, n / 10, n);
		assert_in_range(seen.refused, 0, n / 5);
	}
}

static void nothing_is_left_of_them(void **state)
{
	struct bpf_objects left = bpf_objects();

	assert_int_equal(left.maps, 0);
	assert_int_equal(left.progs, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs_end_as_on_the_interpreter),
		cmocka_unit_test(nothing_is_left_of_them),
	};

	if (kernel_tier_is_missing("random programs in the kernel"))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
