/* SPDX-License-Identifier: Apache-2.0 */
/* What the verifier refuses, and why; what it accepts; what it computes; and that size does not hang it. */
#include "insns.h"

/* clang-format off */
#define SUB(d, i)       INSN(BPF_ALU64 | BPF_SUB | BPF_K, d, 0, 0, i)
#define GOTOL(o)        INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, o)
#define JLT(d, s, o)    INSN(BPF_JMP | BPF_JLT | BPF_X, d, s, o, 0)
/* clang-format on */

#define MAX_ROW 48

struct row {
	const char *name;
	const char *why; /* part of the message; NULL: accepted */
	struct sbpf_insn insns[MAX_ROW];
};

static struct sbpf_program *load(const struct sbpf_insn *insns, size_t n, const char *why)
{
	struct sbpf_program *prog = NULL;
	struct sbpf_error err = {0};
	int ret = sbpf_program_from_insns(insns, n, NULL, &prog, &err);

	if (!why) {
		if (ret)
			fail_msg("refused: %s", err.text);
		return prog;
	}
	assert_int_equal(ret, -EINVAL);
	assert_null(prog);
	assert_int_equal(err.code, -EINVAL);
	if (!strstr(err.text, why))
		fail_msg("'%s' does not say '%s'", err.text, why);
	return NULL;
}

/* A row ends at its last instruction that is not all zero. */
static size_t row_length(const struct row *row)
{
	static const struct sbpf_insn none;
	size_t n = MAX_ROW;

	while (n && !memcmp(&row->insns[n - 1], &none, sizeof(none)))
		n--;
	return n;
}

static void check_row(void **state)
{
	const struct row *row = *state;

	sbpf_program_unref(load(row->insns, row_length(row), row->why));
}

/* clang-format off */
static const struct row rows[] = {
	/* encodings */
	{"an opcode that does not exist is refused", "unknown opcode 0xff", {INSN(0xff, 0, 0, 0, 0), EXIT}},
	{"opcode 0 is refused", "unknown opcode 0x00", {INSN(0, 0, 0, 0, 0), MOV(0, 0), EXIT}},
	{"negation of a register operand does not exist", "unknown opcode 0x8f",
	 {INSN(BPF_ALU64 | BPF_NEG | BPF_X, 1, 1, 0, 0), EXIT}},
	{"a sign-extending 64-bit load does not exist", "unknown opcode 0x99",
	 {INSN(BPF_LDX | BPF_MEMSX | BPF_DW, 0, 1, 0, 0), EXIT}},
	{"atomics on bytes do not exist", "unknown opcode 0xd3", {ATOMIC(BPF_B, 1, 0, 2, BPF_ADD), EXIT}},
	{"legacy packet loads are refused by name", "legacy packet load", {INSN(0x30, 0, 0, 0, 0), EXIT}},
	{"indirect legacy packet loads too", "legacy packet load", {INSN(0x40, 0, 1, 0, 0), EXIT}},
	{"a call through a pointer is refused by name", "calls through a pointer", {INSN(0x8d, 0, 0, 0, 1), EXIT}},
	{"there is no r11 to write", "no register r11", {MOV(11, 0), EXIT}},
	{"there is no r15 to read", "no register r15", {MOVR(0, 15), EXIT}},
	{"an unused src must be 0", "no use for its src", {INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 1, 0, 0), EXIT}},
	{"an unused offset must be 0", "no use for its offset", {INSN(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 4, 0), EXIT}},
	{"a constant move does not sign-extend", "no use for its offset", {INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 8, 0), EXIT}},
	{"an unused imm must be 0", "no use for its imm", {INSN(BPF_ALU64 | BPF_ADD | BPF_X, 1, 2, 0, 7), EXIT}},
	{"a load has no imm", "no use for its imm", {INSN(BPF_LDX | BPF_MEM | BPF_W, 0, 1, 0, 1), EXIT}},
	{"a register store has no imm", "no use for its imm", {INSN(BPF_STX | BPF_MEM | BPF_W, 1, 2, 0, 1), EXIT}},
	{"negation has no imm", "no use for its imm", {INSN(BPF_ALU | BPF_NEG, 1, 0, 0, 1), EXIT}},
	{"an exit has no fields", "no use for its imm", {MOV(0, 0), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 1)}},
	{"an exit has no dst", "no use for its dst", {MOV(0, 0), INSN(BPF_JMP | BPF_EXIT, 1, 0, 0, 0)}},
	{"a jump has no imm", "no use for its imm", {INSN(BPF_JMP | BPF_JA, 0, 0, 0, 1), MOV(0, 0), EXIT}},
	{"a long jump has no offset", "no use for its offset", {INSN(BPF_JMP32 | BPF_JA, 0, 0, 1, 0), MOV(0, 0), EXIT}},
	{"a call has no dst", "no use for its dst", {INSN(BPF_JMP | BPF_CALL, 1, 0, 0, 0), EXIT}},
	{"a call has no offset", "no use for its offset", {INSN(BPF_JMP | BPF_CALL, 0, 0, 1, 0), EXIT}},
	{"a comparison with a register has no imm", "no use for its imm", {INSN(BPF_JMP | BPF_JEQ | BPF_X, 1, 2, 0, 1), EXIT}},
	{"moves sign-extend from 8, 16 or 32 bits only", "sign-extend from 7",
	 {INSN(BPF_ALU64 | BPF_MOV | BPF_X, 0, 1, 7, 0), EXIT}},
	{"a 32-bit move cannot sign-extend from 32 bits", "sign-extend from 32",
	 {INSN(BPF_ALU | BPF_MOV | BPF_X, 0, 1, 32, 0), EXIT}},
	{"a division is signed or not", "offset 2", {INSN(BPF_ALU64 | BPF_DIV | BPF_K, 1, 0, 2, 3), EXIT}},
	{"byte swaps are of 16, 32 or 64 bits", "byte swap of 24", {INSN(BPF_ALU | BPF_END, 1, 0, 0, 24), EXIT}},
	{"so are unconditional ones", "byte swap of 8", {INSN(BPF_ALU64 | BPF_END, 1, 0, 0, 8), EXIT}},
	{"an atomic operation must exist", "atomic operation 0x2", {ATOMIC(BPF_DW, 1, 0, 2, 2), EXIT}},
	{"compare-and-exchange without fetch does not exist", "atomic operation 0xf0", {ATOMIC(BPF_W, 1, 0, 2, 0xf0), EXIT}},
	{"a relocated 64-bit constant must have been linked", "constant of kind 1",
	 {INSN(BPF_LDDW_CODE, 0, 1, 0, 0), INSN(0, 0, 0, 0, 0), EXIT}},
	{"a 64-bit constant needs its second half", "middle of a 64-bit constant", {MOV(0, 0), INSN(BPF_LDDW_CODE, 0, 0, 0, 1)}},
	{"the second half of a constant has no other fields", "second half",
	 {INSN(BPF_LDDW_CODE, 0, 0, 0, 1), INSN(0, 1, 0, 0, 1), EXIT}},
	{"the second half of a constant is no instruction", "second half",
	 {INSN(BPF_LDDW_CODE, 0, 0, 0, 1), EXIT, EXIT}},
	{"r10 cannot be written by a move", "r10 is the frame pointer", {MOV(10, 0), EXIT}},
	{"r10 cannot be written by arithmetic", "r10 is the frame pointer", {ADD(10, -8), EXIT}},
	{"r10 cannot be written by a load", "r10 is the frame pointer", {LOAD(BPF_DW, 10, 1, 0), EXIT}},
	{"r10 cannot be written by a constant", "r10 is the frame pointer", {LDDW(10, 0x200000001), EXIT}},
	{"r10 cannot be written by an atomic fetch", "r10 is the frame pointer",
	 {ATOMIC(BPF_DW, 1, 0, 10, BPF_ADD | BPF_FETCH), EXIT}},

	/* jumps and calls */
	{"a jump before the program is refused", "jump to instruction -1,", {JA(-2), EXIT}},
	{"a jump past the program is refused", "jump to instruction 2,", {JA(1), EXIT}},
	{"a long jump past the program is refused", "jump to instruction 2147483647", {GOTOL(0x7ffffffe), EXIT}},
	{"a branch past the program is refused", "jump to instruction 9,", {JEQ(1, 0, 8), MOV(0, 0), EXIT}},
	{"a jump into a 64-bit constant is refused", "middle of a 64-bit constant", {JA(1), LDDW(0, 0x200000001), EXIT}},
	{"a backward jump into a 64-bit constant is refused", "middle of a 64-bit constant", {LDDW(0, 0x200000001), JEQ(1, 0, -2), EXIT}},
	{"a jump into another function is refused", "outside its function's 0 to 1",
	 {CALL(1), JA(0), MOV(0, 0), EXIT}},
	{"a function cannot start inside a constant", "middle of a 64-bit constant", {CALL(2), EXIT, LDDW(0, 0x200000001), EXIT}},
	{"a bad jump is refused where no path reaches it too", "jump to instruction 99", {MOV(0, 0), EXIT, JA(96), EXIT}},
	{"a call past the program is refused", "outside the program's 0 to 1", {CALL(1), EXIT}},
	{"a call before the program is refused", "call to instruction -1", {CALL(-2), EXIT}},
	{"a helper that does not exist is refused", "no helper 4096", {HELPER(4096), EXIT}},
	{"a negative helper is refused", "no helper -1", {HELPER(-1), EXIT}},
	{"a kernel function call is refused", "call of kind 2", {INSN(BPF_JMP | BPF_CALL, 0, 2, 0, 1), EXIT}},
	{"a program must not run off its end", "end of entry can be reached", {MOV(0, 0)}},
	{"nor fall through a branch at its end", "end of entry can be reached", {MOV(0, 0), JA(1), EXIT, JEQ(0, 0, -2)}},
	{"nor run off after a constant", "end of entry can be reached", {LDDW(0, 0x200000001)}},
	{"a function must not run into the next", "end of entry can be reached", {CALL(0), MOV(0, 0), EXIT}},

	/* registers */
	{"a result must be set", "entry returns without a result", {EXIT}},
	{"r3 is not an argument of an entry", "r3 is read before it is written", {MOVR(0, 3), EXIT}},
	{"r6 does not exist at the start", "r6 is read before it is written", {MOVR(0, 6), EXIT}},
	{"what only later code writes is not written", "r6 is read", {MOVR(0, 6), JEQ(1, 0, 1), EXIT, MOV(6, 1), EXIT}},
	{"x ^= x reads x", "r0 is read", {INSN(BPF_ALU64 | BPF_XOR | BPF_X, 0, 0, 0, 0), EXIT}},
	{"a branch reads its operands", "r4 is read", {JLT(1, 4, 0), MOV(0, 0), EXIT}},
	{"a store reads its value", "r5 is read", {STORE(BPF_DW, 1, 0, 5), MOV(0, 0), EXIT}},
	{"a store reads its address", "r7 is read", {STOREI(BPF_B, 7, 0, 0), MOV(0, 0), EXIT}},
	{"compare-and-exchange reads r0", "r0 is read", {ATOMIC(BPF_DW, 1, 0, 2, BPF_CMPXCHG), EXIT}},
	{"a call destroys r1", "r1 is read", {CALL(2), MOVR(0, 1), EXIT, MOV(0, 0), EXIT}},
	{"a callee does not see the caller's r6", "r6 is read", {MOV(6, 1), CALL(1), EXIT, MOVR(0, 6), EXIT}},
	{"a callee has the arguments that were passed, no more", "r3 is read", {CALL(1), EXIT, MOVR(0, 3), EXIT}},
	{"a function without a result leaves no r0", "r0 is read", {MOV(0, 1), CALL(2), ADD(0, 1), EXIT, STOREI(BPF_B, 1, 0, 0), EXIT}},

	/* the stack */
	{"the byte at r10 is not in the frame", "r10+0", {LOAD(BPF_DW, 0, 10, 0), EXIT}},
	{"a store across r10 is refused", "r10-4", {STORE(BPF_DW, 10, -4, 1), MOV(0, 0), EXIT}},
	{"an access below the frame is refused", "r10-4104", {STORE(BPF_DW, 10, -4104, 1), MOV(0, 0), EXIT}},
	{"an access above, through a copy, is refused", "r10+8",
	 {MOVR(3, 10), ADD(3, -8), LOAD(BPF_DW, 0, 3, 16), EXIT}},
	{"an atomic outside the frame is refused", "r10+0", {ATOMIC(BPF_DW, 10, 0, 1, BPF_ADD), MOV(0, 0), EXIT}},
	{"a frame of more than 4096 bytes is refused", "stack frame of 4097 bytes",
	 {MOVR(3, 10), ADD(3, -4097), MOV(0, 0), EXIT}},
	{"a function that calls itself is refused", "entry -> entry", {CALL(-1), EXIT}},
	{"functions that call each other are refused, with their names", "function_2 -> function_4 -> function_2",
	 {CALL(1), EXIT, CALL(1), EXIT, CALL(-3), EXIT}},
	{"calls of 17 functions in a chain are refused", "calls nest 17 deep: entry -> function_2",
	 {CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT,
	  CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT,
	  CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, MOV(0, 0), EXIT}},

	/* what is accepted */
	{"a loop bounded by data is accepted", NULL,
	 {MOV(0, 0), LOAD(BPF_DW, 3, 1, 0), ADDR(0, 3), ADD(1, 8), JLT(1, 2, -4), EXIT}},
	{"a pointer read from memory can be followed", NULL, {LOAD(BPF_DW, 1, 1, 0), LOAD(BPF_DW, 1, 1, 0), STORE(BPF_DW, 1, 0, 2), LOAD(BPF_DW, 0, 1, 8), EXIT}},
	{"a number can be used as a pointer", NULL, {MOV(3, 0x1234), LOAD(BPF_DW, 0, 3, 0), EXIT}},
	{"an endless loop is accepted", NULL, {JA(-1)}},
	{"so is a long one", NULL, {GOTOL(-1)}},
	{"unreachable code may read what nobody wrote", NULL, {MOV(0, 0), EXIT, MOVR(0, 9), LOAD(BPF_DW, 0, 10, 8), MOV(0, 0)}},
	{"an unreachable function may do so too", NULL, {MOV(0, 0), EXIT, CALL(1), EXIT, MOVR(0, 5), EXIT}},
	{"a callee that never returns needs no result", NULL, {CALL(1), EXIT, JA(-1)}},
	{"a void function is accepted where nobody reads r0", NULL, {CALL(2), MOV(0, 0), EXIT, STOREI(BPF_B, 1, 0, 1), EXIT}},
	{"r6 to r9 survive a call", NULL, {MOVR(6, 1), CALL(2), MOVR(0, 6), EXIT, MOV(6, 0), MOV(0, 0), EXIT}},
	{"a callee has what its callers passed", NULL,
	 {MOV(3, 1), MOV(4, 2), MOV(5, 3), CALL(1), EXIT, MOVR(0, 3), ADDR(0, 4), ADDR(0, 5), EXIT}},
	{"a result that only some paths set is accepted", NULL, {JEQ(1, 0, 1), MOV(0, 0), EXIT}},
	{"a register that only some paths set is accepted", NULL, {JEQ(1, 0, 1), MOV(6, 1), MOVR(0, 6), EXIT}},
	{"an argument that only some callers pass is accepted", NULL,
	 {MOV(3, 1), CALL(4), MOV(1, 0), MOV(2, 0), CALL(1), EXIT, MOVR(0, 3), EXIT}},
	{"what a loop wrote the last time round is written", NULL,
	 {JEQ(1, 0, 1), MOVR(0, 6), ADD(1, 1), MOV(6, 1), JLT(1, 2, -5), MOV(0, 0), EXIT}},
	{"both paths may set a register", NULL, {JEQ(1, 0, 2), MOV(6, 1), JA(1), MOV(6, 2), MOVR(0, 6), EXIT}},
	{"a 64-bit constant fills a register", NULL, {LDDW(9, 0x200000001), MOVR(0, 9), EXIT}},
	{"an atomic fetch fills a register", NULL,
	 {MOV(0, 0), STORE(BPF_DW, 10, -8, 0), MOV(3, 5), ATOMIC(BPF_W, 10, -8, 3, BPF_XCHG), ATOMIC(BPF_DW, 10, -8, 3, BPF_CMPXCHG), EXIT}},
	{"the whole frame can be used", NULL, {STOREI(BPF_B, 10, -4096, 1), STOREI(BPF_B, 10, -1, 1), MOV(0, 0), EXIT}},
	{"the end of a stack array can be formed", NULL,
	 {MOVR(3, 10), ADD(3, -16), ADD(3, 16), MOVR(0, 3), EXIT}},
	{"a computed index into the stack is the sandbox's business", NULL, {MOVR(3, 10), ADDR(3, 1), LOAD(BPF_DW, 0, 3, 0), EXIT}},
	{"all moves, divisions and swaps of v4 are accepted", NULL,
	 {INSN(BPF_ALU64 | BPF_MOV | BPF_X, 0, 1, 8, 0), INSN(BPF_ALU64 | BPF_MOV | BPF_X, 0, 1, 16, 0),
	  INSN(BPF_ALU64 | BPF_MOV | BPF_X, 0, 1, 32, 0), INSN(BPF_ALU | BPF_MOV | BPF_X, 0, 1, 8, 0),
	  INSN(BPF_ALU | BPF_MOV | BPF_X, 0, 1, 16, 0), INSN(BPF_ALU | BPF_DIV | BPF_K, 0, 0, 1, 3),
	  INSN(BPF_ALU64 | BPF_MOD | BPF_X, 0, 1, 1, 0), INSN(BPF_ALU64 | BPF_END, 0, 0, 0, 16),
	  INSN(BPF_ALU | BPF_END | BPF_X, 0, 0, 0, 64), INSN(BPF_LDX | BPF_MEMSX | BPF_W, 0, 1, 0, 0), EXIT}},
	{"calls of 16 functions in a chain are accepted", NULL,
	 {CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT,
	  CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT,
	  CALL(1), EXIT, CALL(1), EXIT, CALL(1), EXIT, MOV(0, 0), EXIT}},
};
/* clang-format on */

/* ---- helpers ---- */

static void test_helper_arguments_are_checked(void **state)
{
	(void)state;
	for (uint32_t id = 0; id < sbpf_n_helpers; id++) {
		struct sbpf_insn insns[] = {MOV(3, 0), MOV(4, 0), MOV(5, 0), HELPER((int)id), EXIT};
		unsigned skip = sbpf_helpers[id].args;
		char why[64];

		sbpf_program_unref(load(insns, 5, NULL));
		if (skip < 3)
			continue;
		/* Leave out the last argument: r3 is set by the first instruction, and so on. */
		insns[skip - 3] = (struct sbpf_insn)MOV(0, 0);
		snprintf(why, sizeof(why), "%s takes %u arguments, but r%u", sbpf_helpers[id].name,
			 skip, skip);
		load(insns, 5, why);
	}
}

static void test_a_helper_call_destroys_r1_to_r5(void **state)
{
	const struct sbpf_insn insns[] = {MOV(3, 0), MOV(4, 0),  MOV(5, 0),  MOV(6, 0),
					  HELPER(0), ADDR(0, 6), MOVR(0, 5), EXIT};

	(void)state;
	load(insns, 8, "r5 is read");
}

static void test_helpers_called_are_listed(void **state)
{
	const struct sbpf_insn insns[] = {MOV(3, 0), MOV(4, 0), MOV(5, 0), HELPER(2),
					  EXIT,      HELPER(1), EXIT};
	struct sbpf_program *prog = load(insns, 7, NULL);

	(void)state;
	assert_int_equal(prog->helpers, 1u << 2);
	sbpf_program_unref(prog);
}

/* ---- what engines rely on ---- */

static void test_leaders_loops_and_tails_are_flagged(void **state)
{
	const struct sbpf_insn insns[] = {LDDW(0, 0x200000001),
					  ADD(0, 1),
					  JEQ(0, 5, 1),
					  JA(-3),
					  CALL(1),
					  EXIT,
					  MOV(0, 0),
					  EXIT};
	const uint8_t want[] = {SBPF_INSN_LEADER,
				SBPF_INSN_TAIL,
				SBPF_INSN_LEADER | SBPF_INSN_LOOP,
				0,
				0,
				SBPF_INSN_LEADER,
				0,
				SBPF_INSN_LEADER,
				0};
	struct sbpf_program *prog = load(insns, 9, NULL);

	(void)state;
	assert_memory_equal(prog->insn_flags, want, sizeof(want));
	sbpf_program_unref(prog);
}

static void test_frames_are_the_deepest_offset_rounded_up(void **state)
{
	/* entry -> function_5 (copy of a copy), function_11 (none), both called by the entry */
	const struct sbpf_insn insns[] = {STOREI(BPF_B, 10, -17, 0),
					  CALL(3),
					  CALL(8),
					  EXIT,
					  JA(-1),
					  MOVR(6, 10),
					  SUB(6, 40),
					  MOVR(7, 6),
					  ADD(7, -60),
					  STOREI(BPF_B, 7, 4, 0),
					  EXIT,
					  MOV(0, 0),
					  EXIT};
	struct sbpf_program *prog = load(insns, 13, NULL);

	(void)state;
	assert_int_equal(prog->n_funcs, 3);
	assert_int_equal(prog->funcs[0].frame, 32);
	assert_int_equal(prog->funcs[1].frame, 112);
	assert_int_equal(prog->funcs[2].frame, 0);
	assert_int_equal(prog->stack_bytes, 32 + 112);
	assert_int_equal(prog->call_depth, 2);
	assert_int_equal(prog->funcs[0].writes, 0);
	assert_int_equal(prog->funcs[1].writes, 3);
	sbpf_program_unref(prog);
}

static void test_an_offset_is_not_followed_across_a_join(void **state)
{
	/* r3 is r10-8 on one path only: its later offset says nothing about the frame. */
	const struct sbpf_insn insns[] = {MOV(3, 0),  MOVR(3, 10),   ADD(3, -8), JEQ(1, 0, 1),
					  MOVR(3, 1), ADD(3, -4096), MOV(0, 0),  EXIT};
	struct sbpf_program *prog = load(insns, 8, NULL);

	(void)state;
	assert_int_equal(prog->funcs[0].frame, 16);
	sbpf_program_unref(prog);
}

static void test_functions_that_no_entry_reaches_are_known(void **state)
{
	const struct sbpf_insn insns[] = {CALL(3),   EXIT, CALL(3),   EXIT,
					  MOV(0, 0), EXIT, MOV(0, 0), EXIT};
	struct sbpf_program *prog = load(insns, 8, NULL);

	(void)state;
	assert_int_equal(prog->n_funcs, 3);
	assert_true(prog->funcs[0].reachable);
	assert_true(prog->funcs[1].reachable);
	assert_true(prog->funcs[2].reachable); /* called from code that is compiled, if never run */
	sbpf_program_unref(prog);
}

/* ---- what only some paths wrote is 0 on the others, on every tier ---- */

static void expect_zero_unset(const struct sbpf_insn *insns, size_t n, bool zero_unset)
{
	struct sbpf_program *prog = assemble(insns, n);
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_error err;

	assert_int_equal(prog->zero_unset, zero_unset);
	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0x1234);

		expect(sb, &call, 0, &err);
		assert_int_equal(call.r0, 0);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

#define EXPECT_ZERO_UNSET(...)                                     \
	expect_zero_unset((const struct sbpf_insn[]){__VA_ARGS__}, \
			  N_ELEMS(((const struct sbpf_insn[]){__VA_ARGS__})), true)
/* r1 is 0 in these: the jump is taken, and what it jumps over not written. */
#define UNLESS_RUN JEQ(1, 0, 1)

static void test_a_register_unset_since_the_entry_is_zero(void **state)
{
	(void)state;
	EXPECT_ZERO_UNSET(UNLESS_RUN, MOV(9, 7), MOVR(0, 9), EXIT);
	EXPECT_ZERO_UNSET(UNLESS_RUN, MOV(3, 7), MOVR(0, 3), EXIT);
	EXPECT_ZERO_UNSET(UNLESS_RUN, MOV(0, 7), EXIT);
}

static void test_a_register_unset_since_a_call_is_zero(void **state)
{
	(void)state;
	for (int r = 1; r <= 5; r++) {
		EXPECT_ZERO_UNSET(MOVR(6, 1), MOV(3, 0), MOV(4, -1), MOV(5, -1), HELPER(H_MEMCPY),
				  JEQ(6, 0, 1), MOV(r, 7), MOVR(0, r), EXIT);
		EXPECT_ZERO_UNSET(MOVR(6, 1), CALL(4), JEQ(6, 0, 1), MOV(r, 7), MOVR(0, r), EXIT,
				  MOV(1, -1), MOV(2, -1), MOV(3, -1), MOV(4, -1), MOV(5, -1),
				  MOV(0, -1), EXIT);
	}
}

static void test_a_callee_does_not_see_what_its_caller_left(void **state)
{
	(void)state;
	for (int r = 6; r <= 9; r++)
		EXPECT_ZERO_UNSET(MOV(r, -1), CALL(1), EXIT, UNLESS_RUN, MOV(r, 7), MOVR(0, r),
				  EXIT);
	EXPECT_ZERO_UNSET(MOV(0, -1), CALL(1), EXIT, UNLESS_RUN, MOV(0, 7), EXIT);
}

static void test_programs_that_set_all_they_read_are_not_slowed(void **state)
{
	const struct sbpf_insn insns[] = {MOV(6, 0), UNLESS_RUN, MOV(6, 1), MOVR(0, 6), EXIT};

	(void)state;
	expect_zero_unset(insns, N_ELEMS(insns), false);
}

/* ---- hand-built programs: several entries, names, lines ---- */

static struct sbpf_func two_funcs[2];
static struct sbpf_entry two_entries[2];

static int verify_two(struct sbpf_insn *insns, uint32_t n, uint32_t split, uint32_t n_entries,
		      struct sbpf_error *err)
{
	static struct sbpf_line lines[] = {{0, 7, "f.c"}, {3, 9, "f.c"}};
	struct sbpf_program prog = {.insns = insns,
				    .n_insns = n,
				    .funcs = two_funcs,
				    .n_funcs = 2,
				    .entries = two_entries,
				    .n_entries = n_entries,
				    .lines = lines,
				    .n_lines = 2};
	int ret;

	two_funcs[0] = (struct sbpf_func){.start = 0, .end = split, .name = "first"};
	two_funcs[1] = (struct sbpf_func){.start = split, .end = n, .name = "second"};
	two_entries[0] = (struct sbpf_entry){"first", "", 0};
	two_entries[1] = (struct sbpf_entry){"second", "", 1};
	ret = sbpf_verify(&prog, err);
	free(prog.insn_flags);
	return ret;
}

static void test_a_refusal_names_function_and_line(void **state)
{
	struct sbpf_insn insns[] = {MOV(0, 0), EXIT, MOV(0, 0), MOVR(0, 8), EXIT};
	struct sbpf_error err;

	(void)state;
	assert_int_equal(verify_two(insns, 5, 2, 2, &err), -EINVAL);
	assert_int_equal(err.insn, 3);
	assert_int_equal(err.line, 9);
	assert_string_equal(err.file, "f.c");
	assert_string_equal(err.function, "second");
	assert_non_null(strstr(err.text, "(instruction 3 of second, f.c:9)"));
}

static void test_a_call_into_the_middle_of_a_function_is_refused(void **state)
{
	struct sbpf_insn insns[] = {CALL(2), EXIT, MOV(0, 0), MOV(0, 0), EXIT};
	struct sbpf_error err;

	(void)state;
	assert_int_equal(verify_two(insns, 5, 2, 1, &err), -EINVAL);
	assert_non_null(strstr(err.text, "in the middle of function second"));
}

static void test_only_functions_reached_are_marked(void **state)
{
	struct sbpf_insn insns[] = {MOV(0, 0), EXIT, MOVR(0, 9), EXIT};
	struct sbpf_error err;

	(void)state;
	assert_int_equal(verify_two(insns, 4, 2, 1, &err), 0);
	assert_true(two_funcs[0].reachable);
	assert_false(two_funcs[1].reachable);
}

static void test_no_error_structure_is_needed(void **state)
{
	const struct sbpf_insn insns[] = {EXIT};
	struct sbpf_program *prog = NULL;

	(void)state;
	assert_int_equal(sbpf_program_from_insns(insns, 1, NULL, &prog, NULL), -EINVAL);
}

/* ---- size: none of these may take more than a moment, or the suite's time limit ends them ---- */

#define MILLION SBPF_MAX_INSNS

static struct sbpf_insn *million(void)
{
	struct sbpf_insn *insns = calloc(MILLION, sizeof(*insns));

	assert_non_null(insns);
	return insns;
}

static void test_a_million_branches_in_all_directions(void **state)
{
	struct sbpf_insn *insns = million();
	uint32_t seed = 1;

	(void)state;
	insns[0] = (struct sbpf_insn)MOV(0, 0);
	for (uint32_t pc = 1; pc < MILLION - 1; pc++) {
		int64_t off = (int16_t)((seed = seed * 1664525 + 1013904223) >> 16);

		if (pc + 1 + off < 0 || pc + 1 + off >= MILLION)
			off = 0;
		insns[pc] = (struct sbpf_insn)JEQ(1, 0, (int16_t)off);
	}
	insns[MILLION - 1] = (struct sbpf_insn)EXIT;
	sbpf_program_unref(load(insns, MILLION, NULL));
	free(insns);
}

/* Registers get lost one at a time, and each loss travels the whole program again. */
static void test_a_million_branches_that_lose_registers_one_by_one(void **state)
{
	enum {
		TABLE = 1 + 2 * 7 + 1,
		TOP = TABLE + 7
	};
	struct sbpf_insn *insns = million();
	uint32_t pc = 0;

	(void)state;
	insns[pc++] = (struct sbpf_insn)MOV(0, 0);
	for (unsigned r = 3; r < 10; r++, pc += 2) {
		/* A path to the loop's top that lacks this register and those after it. */
		insns[pc] = (struct sbpf_insn)JEQ(1, 0, (int16_t)(TABLE + r - 3 - pc - 1));
		insns[pc + 1] = (struct sbpf_insn)MOV(r, 0);
	}
	for (; pc < TOP; pc++)
		insns[pc] = (struct sbpf_insn)JA((int16_t)(TOP - pc - 1));
	for (; pc < MILLION - 2; pc++)
		insns[pc] =
			(struct sbpf_insn)JEQ(1, 0, pc % 2 ? 0 : (int16_t)(TOP - pc - 1) % 1000);
	insns[pc++] = (struct sbpf_insn)MOV(0, 0);
	insns[pc] = (struct sbpf_insn)EXIT;
	sbpf_program_unref(load(insns, MILLION, NULL));
	insns[0] = (struct sbpf_insn)JA(0);
	insns[MILLION - 2] = (struct sbpf_insn)MOVR(0, 0);
	load(insns, MILLION, "r0 is read");
	free(insns);
}

static void test_a_million_calls_of_one_function_that_loses_its_result(void **state)
{
	struct sbpf_insn *insns = million();
	uint32_t body = MILLION - 8;

	(void)state;
	for (uint32_t pc = 0; pc < body - 2; pc++)
		insns[pc] = (struct sbpf_insn)CALL((int32_t)(body - pc - 1));
	insns[body - 2] = (struct sbpf_insn)MOV(0, 0);
	insns[body - 1] = (struct sbpf_insn)EXIT;
	for (uint32_t pc = body; pc < MILLION; pc++)
		insns[pc] = (struct sbpf_insn)EXIT;
	sbpf_program_unref(load(insns, MILLION, NULL));
	insns[body - 2] = (struct sbpf_insn)ADD(0, 1);
	load(insns, MILLION, "r0 is read");
	free(insns);
}

static void test_sixty_thousand_functions_side_by_side(void **state)
{
	struct sbpf_insn *insns = million();
	const uint32_t n = 60000;
	uint32_t pc;

	(void)state;
	for (pc = 0; pc < n; pc++)
		insns[pc] = (struct sbpf_insn)CALL((int32_t)(n + 2 * pc - pc + 1));
	insns[pc++] = (struct sbpf_insn)MOV(0, 0);
	insns[pc++] = (struct sbpf_insn)EXIT;
	for (uint32_t f = 0; f < n; f++) {
		insns[pc++] = (struct sbpf_insn)STOREI(BPF_B, 10, -8, 1);
		insns[pc++] = (struct sbpf_insn)EXIT;
	}
	sbpf_program_unref(load(insns, pc, NULL));
	free(insns);
}

static void test_sixty_thousand_functions_in_a_chain_are_too_deep(void **state)
{
	struct sbpf_insn *insns = million();
	const uint32_t n = 60000;

	(void)state;
	for (uint32_t f = 0; f < n; f++) {
		insns[2 * f] = (struct sbpf_insn)CALL(1);
		insns[2 * f + 1] = (struct sbpf_insn)EXIT;
	}
	insns[2 * n] = (struct sbpf_insn)MOV(0, 0);
	insns[2 * n + 1] = (struct sbpf_insn)EXIT;
	load(insns, 2 * n + 2, "calls nest 60001 deep");
	/* The last one calls the first: a cycle of all of them. */
	insns[2 * n] = (struct sbpf_insn)CALL(-(int32_t)(2 * n) - 1);
	load(insns, 2 * n + 2, "recursion");
	free(insns);
}

/* 2^16 paths through 16 functions that each call the next 10,000 times. */
static void test_paths_through_calls_are_not_enumerated(void **state)
{
	struct sbpf_insn *insns = million();
	const uint32_t each = 10000;
	uint32_t pc = 0;

	(void)state;
	for (uint32_t f = 0; f < SBPF_MAX_DEPTH; f++) {
		insns[pc++] = (struct sbpf_insn)STOREI(BPF_B, 10, -4096, 1);
		for (uint32_t i = 2; i < each; i++, pc++)
			insns[pc] =
				f + 1 < SBPF_MAX_DEPTH
					? (struct sbpf_insn)CALL((int32_t)((f + 1) * each - pc - 1))
					: (struct sbpf_insn)MOV(0, 0);
		insns[pc++] = (struct sbpf_insn)EXIT;
	}
	{
		struct sbpf_program *prog = load(insns, pc, NULL);

		assert_int_equal(prog->call_depth, SBPF_MAX_DEPTH);
		assert_int_equal(prog->stack_bytes, SBPF_MAX_DEPTH * SBPF_MAX_FRAME);
		sbpf_program_unref(prog);
	}
	free(insns);
}

/* ---- any bytes at all ---- */

static void test_random_instructions_are_refused_or_accepted(void **state)
{
	uint64_t seed = 88172645463325252ull;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct sbpf_insn insns[12];
		struct sbpf_program *prog;
		struct sbpf_error err;

		for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			memcpy(&insns[i], &seed, sizeof(insns[i]));
			if (round % 2) { /* half of them plausible: small fields */
				insns[i].dst %= 11, insns[i].src %= 11;
				insns[i].off = (int16_t)(insns[i].off % 6);
				insns[i].imm %= 8;
			}
		}
		if (sbpf_program_from_insns(insns, sizeof(insns) / sizeof(insns[0]), NULL, &prog,
					    &err) == 0)
			sbpf_program_unref(prog);
		else
			assert_true(err.text[0] != '\0');
	}
}

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(test_helper_arguments_are_checked),
		cmocka_unit_test(test_a_helper_call_destroys_r1_to_r5),
		cmocka_unit_test(test_helpers_called_are_listed),
		cmocka_unit_test(test_leaders_loops_and_tails_are_flagged),
		cmocka_unit_test(test_frames_are_the_deepest_offset_rounded_up),
		cmocka_unit_test(test_an_offset_is_not_followed_across_a_join),
		cmocka_unit_test(test_functions_that_no_entry_reaches_are_known),
		cmocka_unit_test(test_a_register_unset_since_the_entry_is_zero),
		cmocka_unit_test(test_a_register_unset_since_a_call_is_zero),
		cmocka_unit_test(test_a_callee_does_not_see_what_its_caller_left),
		cmocka_unit_test(test_programs_that_set_all_they_read_are_not_slowed),
		cmocka_unit_test(test_a_refusal_names_function_and_line),
		cmocka_unit_test(test_a_call_into_the_middle_of_a_function_is_refused),
		cmocka_unit_test(test_only_functions_reached_are_marked),
		cmocka_unit_test(test_no_error_structure_is_needed),
		cmocka_unit_test(test_a_million_branches_in_all_directions),
		cmocka_unit_test(test_a_million_branches_that_lose_registers_one_by_one),
		cmocka_unit_test(test_a_million_calls_of_one_function_that_loses_its_result),
		cmocka_unit_test(test_sixty_thousand_functions_side_by_side),
		cmocka_unit_test(test_sixty_thousand_functions_in_a_chain_are_too_deep),
		cmocka_unit_test(test_paths_through_calls_are_not_enumerated),
		cmocka_unit_test(test_random_instructions_are_refused_or_accepted),
	};
	enum {
		ROWS = sizeof(rows) / sizeof(rows[0]),
		OTHERS = sizeof(others) / sizeof(others[0])
	};
	static struct CMUnitTest tests[ROWS + OTHERS];

	for (size_t i = 0; i < ROWS; i++)
		tests[i] = (struct CMUnitTest){.name = rows[i].name,
					       .test_func = check_row,
					       .initial_state = (void *)&rows[i]};
	memcpy(tests + ROWS, others, sizeof(others));
	return _cmocka_run_group_tests("verify", tests, ROWS + OTHERS, NULL, NULL);
}
