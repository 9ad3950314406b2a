/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of instruction has its text; what is no instruction has one too. */
#include "insns.h"

/* clang-format off */
#define OP(c, d, s, o, i) INSN(c, d, s, o, i)
static const struct {
	struct sbpf_insn insn;
	const char *text;
} rows[] = {
	{OP(BPF_ALU64 | BPF_ADD | BPF_X, 1, 2, 0, 0), "r1 += r2"},
	{OP(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, -7), "r1 += -7"},
	{OP(BPF_ALU | BPF_SUB | BPF_X, 1, 2, 0, 0), "w1 -= w2"},
	{OP(BPF_ALU | BPF_MUL | BPF_K, 9, 0, 0, 3), "w9 *= 3"},
	{OP(BPF_ALU64 | BPF_DIV | BPF_X, 1, 2, 0, 0), "r1 /= r2"},
	{OP(BPF_ALU64 | BPF_DIV | BPF_X, 1, 2, 1, 0), "r1 s/= r2"},
	{OP(BPF_ALU | BPF_MOD | BPF_K, 1, 0, 1, 5), "w1 s%= 5"},
	{OP(BPF_ALU | BPF_MOD | BPF_K, 1, 0, 0, 5), "w1 %= 5"},
	{OP(BPF_ALU64 | BPF_OR | BPF_K, 1, 0, 0, 5), "r1 |= 5"},
	{OP(BPF_ALU64 | BPF_AND | BPF_X, 1, 3, 0, 0), "r1 &= r3"},
	{OP(BPF_ALU64 | BPF_LSH | BPF_K, 1, 0, 0, 32), "r1 <<= 32"},
	{OP(BPF_ALU64 | BPF_RSH | BPF_K, 1, 0, 0, 32), "r1 >>= 32"},
	{OP(BPF_ALU | BPF_ARSH | BPF_X, 1, 4, 0, 0), "w1 s>>= w4"},
	{OP(BPF_ALU64 | BPF_XOR | BPF_X, 1, 1, 0, 0), "r1 ^= r1"},
	{OP(BPF_ALU64 | BPF_NEG, 3, 0, 0, 0), "r3 = -r3"},
	{OP(BPF_ALU | BPF_NEG, 3, 0, 0, 0), "w3 = -w3"},
	{OP(BPF_ALU64 | BPF_MOV | BPF_X, 1, 2, 0, 0), "r1 = r2"},
	{OP(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, INT32_MIN), "r1 = -2147483648"},
	{OP(BPF_ALU64 | BPF_MOV | BPF_X, 1, 2, 8, 0), "r1 = (s8)r2"},
	{OP(BPF_ALU64 | BPF_MOV | BPF_X, 1, 2, 32, 0), "r1 = (s32)r2"},
	{OP(BPF_ALU | BPF_MOV | BPF_X, 1, 2, 16, 0), "w1 = (s16)w2"},
	{OP(BPF_ALU | BPF_END | BPF_K, 1, 0, 0, 16), "r1 = le16 r1"},
	{OP(BPF_ALU | BPF_END | BPF_X, 1, 0, 0, 64), "r1 = be64 r1"},
	{OP(BPF_ALU64 | BPF_END | BPF_K, 1, 0, 0, 32), "r1 = bswap32 r1"},

	{OP(BPF_JMP | BPF_JA, 0, 0, 5, 0), "goto +5"},
	{OP(BPF_JMP | BPF_JA, 0, 0, -5, 0), "goto -5"},
	{OP(BPF_JMP32 | BPF_JA, 0, 0, 0, 70000), "gotol +70000"},
	{OP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 2, 3), "if r1 == 3 goto +2"},
	{OP(BPF_JMP | BPF_JSET | BPF_X, 1, 2, 2, 0), "if r1 & r2 goto +2"},
	{OP(BPF_JMP | BPF_JNE | BPF_K, 1, 0, 2, 3), "if r1 != 3 goto +2"},
	{OP(BPF_JMP | BPF_JGT | BPF_X, 1, 2, 2, 0), "if r1 > r2 goto +2"},
	{OP(BPF_JMP | BPF_JGE | BPF_X, 1, 2, 2, 0), "if r1 >= r2 goto +2"},
	{OP(BPF_JMP32 | BPF_JLT | BPF_X, 1, 2, 2, 0), "if w1 < w2 goto +2"},
	{OP(BPF_JMP32 | BPF_JLE | BPF_K, 1, 0, -2, -3), "if w1 <= -3 goto -2"},
	{OP(BPF_JMP | BPF_JSGT | BPF_X, 1, 2, 5, 0), "if r1 s> r2 goto +5"},
	{OP(BPF_JMP | BPF_JSGE | BPF_X, 1, 2, 5, 0), "if r1 s>= r2 goto +5"},
	{OP(BPF_JMP | BPF_JSLT | BPF_X, 1, 2, 5, 0), "if r1 s< r2 goto +5"},
	{OP(BPF_JMP | BPF_JSLE | BPF_X, 1, 2, 5, 0), "if r1 s<= r2 goto +5"},
	{HELPER(H_MEMCPY), "call lambda_memcpy"},
	{HELPER(9999), "call 9999"},
	{CALL(-1), "call sub"},
	{CALL(100), "call +100"},
	{OP(BPF_JMP | BPF_CALL | BPF_X, 3, 0, 0, 0), "callx r3"},
	{EXIT, "exit"},

	{LOAD(BPF_W, 1, 2, 8), "r1 = *(u32 *)(r2 + 8)"},
	{LOAD(BPF_B, 1, 10, -8), "r1 = *(u8 *)(r10 - 8)"},
	{OP(BPF_LDX | BPF_MEMSX | BPF_H, 1, 2, 0, 0), "r1 = *(s16 *)(r2 + 0)"},
	{STORE(BPF_DW, 1, 16, 2), "*(u64 *)(r1 + 16) = r2"},
	{STOREI(BPF_H, 1, INT16_MIN, -1), "*(u16 *)(r1 - 32768) = -1"},
	{ATOMIC(BPF_DW, 1, 8, 2, BPF_ADD), "lock *(u64 *)(r1 + 8) += r2"},
	{ATOMIC(BPF_W, 1, 8, 2, BPF_XOR), "lock *(u32 *)(r1 + 8) ^= w2"},
	{ATOMIC(BPF_DW, 1, 8, 2, BPF_OR | BPF_FETCH), "r2 = atomic_fetch_or((u64 *)(r1 + 8), r2)"},
	{ATOMIC(BPF_W, 1, 8, 2, BPF_AND | BPF_FETCH), "w2 = atomic_fetch_and((u32 *)(r1 + 8), w2)"},
	{ATOMIC(BPF_DW, 1, 8, 2, BPF_XCHG), "r2 = xchg_64(r1 + 8, r2)"},
	{ATOMIC(BPF_W, 1, -8, 2, BPF_XCHG), "w2 = xchg32_32(r1 - 8, w2)"},
	{ATOMIC(BPF_DW, 1, 8, 2, BPF_CMPXCHG), "r0 = cmpxchg_64(r1 + 8, r0, r2)"},
	{ATOMIC(BPF_W, 1, 8, 2, BPF_CMPXCHG), "w0 = cmpxchg32_32(r1 + 8, w0, w2)"},

	{ATOMIC(BPF_B, 1, 8, 2, BPF_ADD), ".8byte 0x00000000000821d3"},
	{ATOMIC(BPF_W, 1, 8, 2, 0x20), ".8byte 0x00000020000821c3"},
	{OP(BPF_LD | BPF_ABS | BPF_W, 0, 0, 0, 4), ".8byte 0x0000000400000020"},
	{OP(BPF_LDX | BPF_IND, 0, 0, 0, 0), ".8byte 0x0000000000000041"},
	{OP(0xff, 15, 15, -1, -1), ".8byte 0xffffffffffffffff"},
	{OP(BPF_LDDW_CODE, 1, 1, 0, 4), ".8byte 0x0000000400001118"},
};
/* clang-format on */

static void every_instruction_has_its_text(void **state)
{
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct sbpf_insn insns[] = {rows[i].insn, EXIT};
		struct sbpf_func func = {.start = 0, .end = 2, .name = "sub"};
		struct sbpf_program prog = {
			.insns = insns, .n_insns = 2, .funcs = &func, .n_funcs = 1};
		char buf[128];
		int len = sbpf_disasm_insn(&prog, 0, buf, sizeof(buf));

		assert_string_equal(buf, rows[i].text);
		assert_int_equal(len, strlen(buf));
	}
}

static void any_eight_bytes_have_a_text(void **state)
{
	struct sbpf_program prog = {.n_insns = 1};

	for (uint64_t code = 0; code < 256; code++) {
		for (uint64_t imm = 0; imm < 256; imm++) {
			struct sbpf_insn insn = OP((uint8_t)code, 15, 15, INT16_MIN, imm);
			char buf[128] = "";

			prog.insns = &insn;
			assert_in_range(sbpf_disasm_insn(&prog, 0, buf, sizeof(buf)), 4, 127);
		}
	}
}

struct listing {
	char text[512];
};

static void add_line(void *arg, const char *line)
{
	struct listing *l = arg;

	strcat(strcat(l->text, line), "\n");
}

static void a_listing_has_functions_lines_and_instructions(void **state)
{
	struct sbpf_line lines[] = {
		{.insn = 0, .line = 3, .file = "a.c"},
		{.insn = 2, .line = 3, .file = "a.c"},
		{.insn = 3, .line = 9, .file = "a.c"},
	};
	struct sbpf_program *prog = ASSEMBLE(LDDW(1, 0x123456789), CALL(1), EXIT, MOV(0, 1), EXIT);
	struct listing l = {""};

	prog->lines = lines;
	prog->n_lines = N_ELEMS(lines);
	assert_int_equal(sbpf_program_disasm(prog, add_line, &l), 0);
	prog->lines = NULL;
	prog->n_lines = 0;
	assert_string_equal(l.text, "entry:\n"
				    "; a.c:3\n"
				    "       0: r1 = 0x123456789 ll\n"
				    "       2: call function_4\n"
				    "; a.c:9\n"
				    "       3: exit\n"
				    "function_4:\n"
				    "       4: r0 = 1\n"
				    "       5: exit\n");
	sbpf_program_unref(prog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_instruction_has_its_text),
		cmocka_unit_test(any_eight_bytes_have_a_text),
		cmocka_unit_test(a_listing_has_functions_lines_and_instructions),
	};

	return cmocka_run_group_tests_name("disasm", tests, NULL, NULL);
}
