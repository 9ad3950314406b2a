/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile programs, instruction by instruction: each ends in its own error, at the same instruction
 * and address on every tier, and touches nothing that is not its own.
 */
#include "insns.h"

#define ROOM  40
#define END   MOV(0, 0), EXIT
#define HEAP  sbpf_window_offset(SBPF_WIN_HEAP)
#define PAGES (4 * SBPF_PAGE)

/* Context (read-only), input, output and heap of four pages each; the program gets ctx and input. */
static struct sbpf_sandbox *furnish_for(struct sbpf_program *prog, enum sbpf_tier tier)
{
	static const enum sbpf_window wins[] = {SBPF_WIN_CTX, SBPF_WIN_HEAP, SBPF_WIN_IN,
						SBPF_WIN_OUT};
	struct sbpf_sandbox *sb;

	assert_int_equal(sbpf_sandbox_get_for(prog, tier, &sb), 0);
	for (size_t i = 0; i < N_ELEMS(wins); i++) {
		assert_int_equal(sbpf_sandbox_resize(sb, wins[i], PAGES), 0);
		assert_int_equal(sbpf_sandbox_zero(sb, wins[i], PAGES), 0);
	}
	return sb;
}

static struct sbpf_sandbox *furnish(struct sbpf_program *prog)
{
	return furnish_for(prog, only_tier());
}

struct row {
	const char *name;
	int code;
	int32_t insn;
	uint64_t address;
	struct sbpf_insn insns[ROOM];
};

static size_t row_length(const struct row *row)
{
	static const struct sbpf_insn none;
	size_t n = ROOM;

	while (n && !memcmp(&row->insns[n - 1], &none, sizeof(none)))
		n--;
	return n;
}

static void ends_in_its_error_on_every_tier(void **state)
{
	const struct row *row = *state;
	struct sbpf_program *prog = assemble(row->insns, row_length(row));
	struct sbpf_sandbox *sb = furnish(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, CTX, IN);
		struct sbpf_error err;

		expect(sb, &call, row->code, &err);
		if (row->code != -ETIME || counts_fuel(tier))
			assert_int_equal(err.insn, row->insn);
		if (row->code == -EFAULT)
			assert_int_equal(err.address, row->address);
		assert_string_equal(err.function, "entry");
		assert_null(strchr(err.text, '\n'));
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

/* clang-format off */
static const struct row rows[] = {
	{"a store to NULL+96 is a fault", -EFAULT, 1, 96,
	 {MOV(1, 0), STOREI(BPF_W, 1, 96, 1), END}},
	{"a store to a constant is a fault", -EFAULT, 2, 0x3ffffff0,
	 {LDDW(1, 0x7fff3ffffff0), STOREI(BPF_DW, 1, 0, 1), END}},
	{"a store to a kernel address is a fault", -EFAULT, 2, 0x0000e000,
	 {LDDW(1, 0xffff88800000e000), STOREI(BPF_DW, 1, 0, 1), END}},
	{"a store below address 0 is a fault at the other end", -EFAULT, 1, 0xffffffff,
	 {MOV(1, 0), STOREI(BPF_B, 1, -1, 1), END}},
	{"a store across the end of the sandbox is a fault", -EFAULT, 1, 0xfffffffc,
	 {MOV32(1, 0xfffffffc), STOREI(BPF_DW, 1, 0, 1), END}},
	{"a load across the end of the sandbox is a fault", -EFAULT, 1, 0xfffffffc,
	 {MOV32(1, 0xfffffffc), LOAD(BPF_DW, 0, 1, 0), EXIT}},
	{"a pointer read from memory is chased into a fault", -EFAULT, 4, 0x41414141,
	 {LDDW(3, 0x4141414141414141), STORE(BPF_DW, 2, 8, 3), LOAD(BPF_DW, 4, 2, 8), STOREI(BPF_DW, 4, 0, 1), END}},
	{"a forged context is a fault at the forgery", -EFAULT, 0, 0x10010,
	 {STOREI(BPF_DW, 1, 16, 0), END}},
	{"constants do not change", -EFAULT, 1, 0x100000,
	 {MOV32(1, 0x100000), STOREI(BPF_B, 1, 0, 0), END}},
	{"writing on past the output is a fault at its end", -EFAULT, 1, 0xc0004000,
	 {MOV32(1, 0xc0000000), STOREI(BPF_B, 1, 0, 7), ADD(1, 1), JA(-3), END}},
	{"reading on past the input is a fault at its end", -EFAULT, 1, 0x80004000,
	 {MOV32(1, 0xc0000000), LOAD(BPF_B, 0, 2, 0), STORE(BPF_B, 1, 0, 0), ADD(2, 1), JA(-4), END}},
	{"a word that begins before the end and ends behind it is a fault", -EFAULT, 1, 0xc0004000,
	 {MOV32(1, 0xc0003ffc), LOAD(BPF_DW, 0, 1, 0), EXIT}},
	{"above the stack is a fault", -EFAULT, 1, 0x50001000,
	 {MOV32(1, 0x50001000), STOREI(BPF_DW, 1, 0, 1), END}},
	{"below the stack is a fault", -EFAULT, 1, 0x4fffffff,
	 {MOV32(1, 0x50000000), STOREI(BPF_B, 1, -1, 1), END}},
	{"an atomic on the context is a fault", -EFAULT, 1, 0x10000,
	 {MOV(3, 1), ATOMIC(BPF_DW, 1, 0, 3, BPF_ADD), END}},
	{"a compare-exchange on the context is a fault even where it would fail", -EFAULT, 2, 0x10000,
	 {MOV(0, 5), MOV(3, 1), ATOMIC(BPF_DW, 1, 0, 3, BPF_CMPXCHG), END}},
	{"a misaligned atomic across the end is a fault", -EFAULT, 2, 0x80004000,
	 {ADD(2, 0x3ffd), MOV(3, 1), ATOMIC(BPF_W, 2, 0, 3, BPF_ADD | BPF_FETCH), END}},
	{"a helper's overflowing length is a fault at its call", -EFAULT, 4, 0x80004000,
	 {MOVR(1, 2), MOV(2, 0), MOV(3, -1), ADD(3, 0), HELPER(H_MEMSET), END}},
	{"a helper does not write for a program what it may not", -EFAULT, 2, 0x10000,
	 {MOV(3, 8), JA(0), HELPER(H_MEMCPY), END}},
	{"a loop without end runs out of fuel", -ETIME, 1, 0,
	 {MOV(0, 0), JA(-1), END}},
	{"a long jump without end runs out of fuel", -ETIME, 1, 0,
	 {MOV(0, 0), INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, -2), END}},
	{"a conditional jump to itself runs out of fuel", -ETIME, 1, 0,
	 {MOV(0, 0), JEQ(0, 0, -1), END}},
	{"a loop that calls helpers of nothing runs out of fuel", -ETIME, 8, 0,
	 {MOVR(6, 2), MOVR(7, 1), MOVR(1, 6), MOVR(2, 7), MOV(3, 0), HELPER(H_MEMCMP), MOV(0, 0), ADD(0, 1), JA(-7), END}},
};
/* clang-format on */

static void the_hosts_memory_is_out_of_reach(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(STOREI(BPF_DW, 1, 0, -1), MOV(0, 0), EXIT);
	struct sbpf_sandbox *sb = furnish(prog);
	static uint64_t global = 42;
	uint64_t local = 42, *heap = malloc(sizeof(*heap));
	uint64_t *const victims[] = {&global, &local, heap, sbpf_sandbox_ptr(sb, SBPF_WIN_CTX)};

	*heap = *victims[3] = 42;
	EACH_TIER(tier)
	for (size_t i = 0; i < N_ELEMS(victims); i++) {
		struct sbpf_call call = a_call(tier, (uintptr_t)victims[i], 0);

		/* Its low half may happen to lie in a window of the sandbox; that is fine. */
		sbpf_run(sb, &call, NULL);
		assert_int_equal(*victims[i], 42);
	}
	free(heap);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void wild_accesses_end_alike_on_every_tier(void **state)
{
	/* Eight bytes stored at r1, then loaded from r2. */
	struct sbpf_program *prog = ASSEMBLE(STORE(BPF_DW, 1, 0, 1), LOAD(BPF_DW, 0, 2, 0), EXIT);
	struct sbpf_sandbox *sb = furnish(prog), *plain = furnish_for(prog, SBPF_TIER_INTERP);
	uint64_t seed = 1;

	for (int i = 0; i < 2000; i++) {
		uint64_t at[2];
		struct sbpf_error want, err;
		struct sbpf_call call;
		int code;

		for (int k = 0; k < 2; k++) {
			seed = seed * 6364136223846793005 + 1442695040888963407;
			/* Near a window's start or end, where it matters. */
			at[k] = sbpf_window_offset((seed >> 40) % SBPF_WINDOWS) +
				(seed >> 33 & 1 ? PAGES : 0) + (seed >> 50) % 20 - 10 +
				(seed >> 60 << 32);
		}
		call = a_call(SBPF_TIER_INTERP, at[0], at[1]);
		memset(&want, 0, sizeof(want));
		code = sbpf_run(plain, &call, &want);
		EACH_TIER(tier)
		{
			call = a_call(tier, at[0], at[1]);
			expect(sb, &call, code, &err);
			assert_int_equal(err.insn, want.insn);
			assert_int_equal(err.address, want.address);
		}
	}
	sbpf_sandbox_put(plain);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

/* ---- calls ---- */

#define LEVELS SBPF_MAX_DEPTH

/* Function i calls function i + 1 twice; the last counts in memory.  No loop anywhere. */
static struct sbpf_program *nested_calls(unsigned int levels)
{
	const struct sbpf_insn level[] = {CALL(2), CALL(1), EXIT},
			       last[] = {LDDW(1, HEAP), LOAD(BPF_DW, 0, 1, 0), ADD(0, 1),
					 STORE(BPF_DW, 1, 0, 0), EXIT};
	struct sbpf_insn insns[3 * (LEVELS - 1) + N_ELEMS(last)];

	for (unsigned int i = 0; i < levels - 1; i++)
		memcpy(&insns[3 * i], level, sizeof(level));
	memcpy(&insns[3 * (levels - 1)], last, sizeof(last));
	return assemble(insns, 3 * (levels - 1) + N_ELEMS(last));
}

/* So many frames has the kernel, less one of the translator's. */
#define KERNEL_LEVELS 7

static unsigned int levels_here(void)
{
	return only_tier() == SBPF_TIER_KERNEL ? KERNEL_LEVELS : LEVELS;
}

static void calls_nested_without_a_loop_pay_for_what_they_do(void **state)
{
	struct sbpf_program *prog = nested_calls(levels_here());
	struct sbpf_sandbox *sb = furnish(prog);
	uint64_t *count = sbpf_sandbox_ptr(sb, SBPF_WIN_HEAP);
	const uint64_t calls = 1u << (levels_here() - 1);
	/* The last function has 6 slots, all others 3. */
	const uint64_t cost = 3 * (calls - 1) + 6 * calls;

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		*count = 0;
		expect(sb, &call, 0, &err);
		assert_int_equal(*count, calls);
		if (!counts_fuel(tier))
			continue;
		assert_int_equal(call.fuel_used, cost);
		call.fuel = cost - 1;
		*count = 0;
		expect(sb, &call, -ETIME, &err);
		assert_int_equal(*count, calls - 1);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void refused(const struct sbpf_insn *insns, size_t n, const char *says)
{
	struct sbpf_program *prog = NULL;
	struct sbpf_error err;

	assert_int_equal(sbpf_program_from_insns(insns, n, NULL, &prog, &err), -EINVAL);
	assert_null(prog);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
}

static void calls_too_deep_for_a_tier_are_refused_by_it_by_name(void **state)
{
	struct sbpf_program *prog = nested_calls(LEVELS);

	EACH_TIER(tier)
	{
		struct sbpf_error err = {.text = "deep"};

		assert_int_equal(sbpf_program_compile(prog, tier, NULL, &err),
				 tier == SBPF_TIER_KERNEL ? -EOPNOTSUPP : 0);
		assert_non_null(strstr(err.text, "deep"));
	}
	sbpf_program_unref(prog);
}

static void recursion_is_refused(void **state)
{
	const struct sbpf_insn self[] = {CALL(-1), EXIT};
	const struct sbpf_insn mutual[] = {CALL(1), EXIT, CALL(1), EXIT, CALL(-3), EXIT};

	refused(self, N_ELEMS(self), "recurs");
	refused(mutual, N_ELEMS(mutual), "recurs");
}

static void a_chain_of_calls_that_is_too_deep_is_refused(void **state)
{
	struct sbpf_insn insns[2 * (LEVELS + 1)];
	const struct sbpf_insn level[] = {CALL(1), EXIT}, last[] = {MOV(0, 0), EXIT};

	for (unsigned int i = 0; i < LEVELS; i++)
		memcpy(&insns[2 * i], level, sizeof(level));
	memcpy(&insns[2 * LEVELS], last, sizeof(last));
	refused(insns, N_ELEMS(insns), "deep");
}

static void a_smashed_stack_returns_to_where_it_was_called_from(void **state)
{
	/*
	 * The callee fills the whole stack window with ones; its caller's registers survive.  r10 is
	 * handed on, so that the frame is in memory on every tier (docs/llvm-tier.md).
	 */
	struct sbpf_program *prog = ASSEMBLE(
		MOV(6, 1), MOV(7, 2), MOV(8, 3), MOV(9, 4), STOREI(BPF_DW, 10, -8, 5), MOVR(1, 10),
		CALL(7), LOAD(BPF_DW, 0, 10, -8), ADDR(0, 6), ADDR(0, 7), ADDR(0, 8), ADDR(0, 9),
		JA(0), EXIT,
		/* callee */ MOV32(1, 0x50000000), MOV(2, SBPF_PAGE / 8), STOREI(BPF_DW, 1, 0, -1),
		ADD(1, 8), ADD(2, -1), JNE(2, 0, -4), MOV(6, 0), MOV(7, 0), MOV(8, 0), MOV(9, 0),
		STOREI(BPF_DW, 10, -8, -1), MOV(0, 0), EXIT);
	struct sbpf_sandbox *sb = furnish(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		expect(sb, &call, 0, &err);
		assert_int_equal((int64_t)call.r0, -1 + 1 + 2 + 3 + 4);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

/* ---- atomics ---- */

static uint64_t after(int32_t op, uint64_t old, uint64_t src, uint64_t r0)
{
	switch (op & ~BPF_FETCH) {
	case BPF_ADD:
		return old + src;
	case BPF_OR:
		return old | src;
	case BPF_AND:
		return old & src;
	case BPF_XOR:
		return old ^ src;
	case BPF_CMPXCHG & ~BPF_FETCH:
		return old == r0 ? src : old;
	}
	return src;
}

static void misaligned_atomics_work_wherever_they_lie(void **state)
{
	static const int32_t ops[] = {
		BPF_ADD,
		BPF_OR,
		BPF_AND,
		BPF_XOR,
		BPF_ADD | BPF_FETCH,
		BPF_OR | BPF_FETCH,
		BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH,
		BPF_XCHG,
		BPF_CMPXCHG,
	};
	const uint64_t old = 0x8899aabbccddeeff, src = 0xf0f1f2f384858687;

	for (size_t i = 0; i < N_ELEMS(ops); i++)
		for (int wide = 0; wide < 2; wide++) {
			uint64_t mask = wide ? UINT64_MAX : UINT32_MAX;
			/* r2 is where; returns what came back in the source or, of cmpxchg, in r0. */
			struct sbpf_program *prog =
				ASSEMBLE(LDDW(0, old), LDDW(3, src),
					 ATOMIC(wide ? BPF_DW : BPF_W, 2, 0, 3, ops[i]),
					 JA(ops[i] == BPF_CMPXCHG ? 1 : 0), MOVR(0, 3), EXIT);
			struct sbpf_sandbox *sb = furnish(prog);
			uint8_t *in = sbpf_sandbox_ptr(sb, SBPF_WIN_IN);

			EACH_TIER(tier)
			for (uint64_t at = SBPF_PAGE - 9; at <= SBPF_PAGE + 1; at++) {
				struct sbpf_call call = a_call(tier, CTX, IN + at);
				uint64_t now,
					want = after(ops[i], old & mask, src & mask, old & mask);
				struct sbpf_error err;

				memcpy(in + at, &old, 8);
				expect(sb, &call, 0, &err);
				memcpy(&now, in + at, 8);
				assert_int_equal(now, (want & mask) | (old & ~mask));
				assert_int_equal(call.r0, ops[i] & BPF_FETCH ? old & mask : src);
			}
			sbpf_sandbox_put(sb);
			sbpf_program_unref(prog);
		}
}

/* ---- after an error ---- */

static void an_error_leaves_the_sandbox_fit_for_the_next_call(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(JNE(1, 0, 1), JA(-1), JEQ(1, 1, 2), MOV(0, 7), EXIT,
					     STOREI(BPF_DW, 1, 96, 0), MOV(0, 0), EXIT);
	struct sbpf_sandbox *sb = furnish(prog);

	EACH_TIER(tier)
	for (int i = 0; i < 50; i++) {
		static const int want[] = {-ETIME, -EFAULT, 0};
		struct sbpf_call call = a_call(tier, (uint64_t)(i % 3), 0);
		struct sbpf_error err;

		expect(sb, &call, want[i % 3], &err);
		if (i % 3 == 2)
			assert_int_equal(call.r0, 7);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

int main(void)
{
	const struct CMUnitTest others[] = {
		cmocka_unit_test(the_hosts_memory_is_out_of_reach),
		cmocka_unit_test(wild_accesses_end_alike_on_every_tier),
		cmocka_unit_test(calls_nested_without_a_loop_pay_for_what_they_do),
		cmocka_unit_test(calls_too_deep_for_a_tier_are_refused_by_it_by_name),
		cmocka_unit_test(recursion_is_refused),
		cmocka_unit_test(a_chain_of_calls_that_is_too_deep_is_refused),
		cmocka_unit_test(a_smashed_stack_returns_to_where_it_was_called_from),
		cmocka_unit_test(misaligned_atomics_work_wherever_they_lie),
		cmocka_unit_test(an_error_leaves_the_sandbox_fit_for_the_next_call),
	};
	struct CMUnitTest tests[N_ELEMS(rows) + N_ELEMS(others)];

	for (size_t i = 0; i < N_ELEMS(rows); i++)
		tests[i] = (struct CMUnitTest){
			.name = rows[i].name,
			.test_func = ends_in_its_error_on_every_tier,
			.initial_state = (void *)(uintptr_t)&rows[i],
		};
	memcpy(&tests[N_ELEMS(rows)], others, sizeof(others));
	if (only_tier_is_missing())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
