/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs end on the LLVM tier as on the interpreter: the same r0 and the same bytes in every window where
 * they return, the same error where they do not.  What an optimizer may do is allowed for: a load whose value
 * nobody uses may vanish, its fault with it; frames that nobody else can name are no memory; fuel is not counted.
 *
 * A failure prints its seed; SBPF_SEED=N runs that one alone, SBPF_PROGRAMS=N tries so many from there on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "llvm_here.h"
#include "random_program.h"

#define PROGRAMS 400u
#define FUEL     (4u << 20)
#define LATE     50u /* one in so many that do not end is run on this tier, too: each takes its time */

static struct {
	uint64_t returned, faulted, timed_out, vanished;
} seen;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static int run(struct sbpf_sandbox *sb, enum sbpf_tier tier, struct rp_outcome *o)
{
	struct sbpf_call call = {.size = sizeof(call),
				 .tier = tier,
				 .r1 = sbpf_window_offset(SBPF_WIN_IN),
				 .r2 = 0x123456789abcdef0,
				 .fuel = FUEL};
	struct sbpf_error err = {.insn = -1};

	for (uint32_t i = 0; i < RP_KEPT; i++) {
		uint8_t *p = sbpf_sandbox_ptr(sb, rp_kept[i]);

		for (uint32_t k = 0; rp_kept[i] != SBPF_WIN_STACK && k < RP_BYTES; k++)
			p[k] = (uint8_t)((k * 167 >> 3) ^ i);
	}
	o->code = sbpf_run(sb, &call, &err);
	o->r0 = o->code ? 0 : call.r0;
	o->insn = err.insn;
	o->address = err.address;
	for (uint32_t i = 0; i < RP_KEPT; i++)
		if (rp_kept[i] != SBPF_WIN_STACK)
			memcpy(o->bytes[i], sbpf_sandbox_ptr(sb, rp_kept[i]), RP_BYTES);
	return o->code;
}

static bool is_load(const struct sbpf_program *prog, int32_t pc)
{
	return pc >= 0 && BPF_CLASS(prog->insns[pc].code) == BPF_LDX;
}

static struct rp_outcome want, got;

/* NULL or how they differ. */
static const char *compare(struct sbpf_program *prog, struct sbpf_sandbox *sb, uint64_t seed)
{
	run(sb, SBPF_TIER_INTERP, &want);
	if (want.code == -ETIME && seed % LATE)
		return NULL;
	run(sb, SBPF_TIER_LLVM, &got);
	seen.returned += want.code == 0;
	seen.faulted += want.code == -EFAULT;
	seen.timed_out += want.code == -ETIME;
	if (want.code == -EFAULT && got.code != -EFAULT && is_load(prog, want.insn)) {
		seen.vanished++;
		return NULL;
	}
	if (want.code != got.code)
		return "another end";
	if (want.code)
		return NULL;
	if (want.r0 != got.r0)
		return "another r0";
	return memcmp(want.bytes, got.bytes, sizeof(want.bytes)) ? "other bytes" : NULL;
}

static void one_program(uint64_t seed)
{
	static struct rp_gen g;
	struct rp_stream s = {.state = seed * 0x2545f4914f6cdd1du};
	struct sbpf_program *prog;
	struct sbpf_sandbox *sb;
	struct sbpf_error err;
	const char *differs;

	rp_generate(&g, &s);
	if (sbpf_program_from_insns(g.insns, g.n, NULL, &prog, &err))
		fail_msg("seed %" PRIu64 ": refused: %s", seed, err.text);
	if (compile_llvm_here(prog, err.text, sizeof(err.text)))
		fail_msg("seed %" PRIu64 ": not compiled: %s", seed, err.text);
	assert_int_equal(sbpf_sandbox_get(prog, &sb), 0);
	for (uint32_t i = 0; i < RP_KEPT; i++)
		if (rp_kept[i] != SBPF_WIN_STACK)
			assert_int_equal(sbpf_sandbox_resize(sb, rp_kept[i], RP_BYTES), 0);
	differs = compare(prog, sb, seed);
	if (differs) {
		sbpf_program_disasm(prog, rp_print, stderr);
		fprintf(stderr,
			"# interp: code %d r0 0x%" PRIx64 " insn %d address 0x%" PRIx64 "\n",
			want.code, want.r0, want.insn, want.address);
		fprintf(stderr, "# llvm: code %d r0 0x%" PRIx64 " insn %d address 0x%" PRIx64 "\n",
			got.code, got.r0, got.insn, got.address);
		fail_msg("seed %" PRIu64 ": %s", seed, differs);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void programs_end_as_on_the_interpreter(void **state)
{
	uint64_t seed = number("SBPF_SEED", 1);
	uint64_t n = number("SBPF_PROGRAMS", getenv("SBPF_SEED") ? 1 : PROGRAMS);

	if (sbpf_tier_missing(SBPF_TIER_LLVM))
		skip();
	for (uint64_t i = 0; i < n; i++)
		one_program(seed + i);
	/* A generator that only makes one kind, or faults that mostly vanish, would prove little. */
	if (n >= PROGRAMS) {
		assert_in_range(seen.returned, n / 10, n);
		assert_in_range(seen.faulted, n / 10, n);
		assert_in_range(seen.vanished, 0, seen.faulted / 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs_end_as_on_the_interpreter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
