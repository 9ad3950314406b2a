/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disasm.c - instructions as text, in the notation of llvm-objdump (offsets and jumps in decimal).
 *
 * Owns: the text.  It takes any instruction, also what the verifier refuses: its messages quote it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sbpf/internal.h"

#define LINE_MAX_BYTES 512 /* two names of at most 255 bytes never meet in one line */

/* By BPF_OP() >> 4; what has no simple form is NULL. */
static const char *const alu_ops[16] = {
	[BPF_ADD >> 4] = "+=",  [BPF_SUB >> 4] = "-=",  [BPF_MUL >> 4] = "*=",
	[BPF_DIV >> 4] = "/=",  [BPF_OR >> 4] = "|=",   [BPF_AND >> 4] = "&=",
	[BPF_LSH >> 4] = "<<=", [BPF_RSH >> 4] = ">>=", [BPF_MOD >> 4] = "%=",
	[BPF_XOR >> 4] = "^=",  [BPF_MOV >> 4] = "=",   [BPF_ARSH >> 4] = "s>>=",
};

static const char *const jump_ops[16] = {
	[BPF_JEQ >> 4] = "==",   [BPF_JGT >> 4] = ">",    [BPF_JGE >> 4] = ">=",
	[BPF_JSET >> 4] = "&",   [BPF_JNE >> 4] = "!=",   [BPF_JSGT >> 4] = "s>",
	[BPF_JSGE >> 4] = "s>=", [BPF_JLT >> 4] = "<",    [BPF_JLE >> 4] = "<=",
	[BPF_JSLT >> 4] = "s<",  [BPF_JSLE >> 4] = "s<=",
};

/* By BPF_SIZE() >> 3. */
static const unsigned int size_bits[4] = {32, 16, 8, 64};

static int unknown(const struct sbpf_insn *insn, char *buf, size_t len)
{
	uint64_t raw;

	memcpy(&raw, insn, sizeof(raw));
	return snprintf(buf, len, ".8byte 0x%016" PRIx64, raw);
}

static int alu(const struct sbpf_insn *insn, char *buf, size_t len)
{
	bool wide = BPF_CLASS(insn->code) == BPF_ALU64;
	bool reg = BPF_SRC(insn->code) == BPF_X;
	uint8_t op = BPF_OP(insn->code);
	char r = wide ? 'r' : 'w';
	const char *sign = insn->off == 1 && (op == BPF_DIV || op == BPF_MOD) ? "s" : "";

	if (op == BPF_NEG)
		return snprintf(buf, len, "%c%u = -%c%u", r, insn->dst, r, insn->dst);
	if (op == BPF_END)
		return snprintf(buf, len, "r%u = %s%d r%u", insn->dst,
				wide  ? "bswap"
				: reg ? "be"
				      : "le",
				insn->imm, insn->dst);
	if (!alu_ops[op >> 4])
		return unknown(insn, buf, len);
	if (op == BPF_MOV && reg && insn->off)
		return snprintf(buf, len, "%c%u = (s%d)%c%u", r, insn->dst, insn->off, r,
				insn->src);
	if (reg)
		return snprintf(buf, len, "%c%u %s%s %c%u", r, insn->dst, sign, alu_ops[op >> 4], r,
				insn->src);
	return snprintf(buf, len, "%c%u %s%s %d", r, insn->dst, sign, alu_ops[op >> 4], insn->imm);
}

static int call(const struct sbpf_program *prog, const struct sbpf_insn *insn, uint32_t pc,
		char *buf, size_t len)
{
	int64_t target = (int64_t)pc + 1 + insn->imm;

	if (BPF_SRC(insn->code) == BPF_X)
		return snprintf(buf, len, "callx r%u", insn->dst);
	if (insn->src == BPF_CALL_HELPER && insn->imm >= 0 && (uint32_t)insn->imm < sbpf_n_helpers)
		return snprintf(buf, len, "call %s", sbpf_helpers[insn->imm].name);
	if (insn->src == BPF_CALL_LOCAL && target >= 0 && target < prog->n_insns) {
		uint32_t func = sbpf_func_at(prog, (uint32_t)target);

		if (func < prog->n_funcs && prog->funcs[func].start == target)
			return snprintf(buf, len, "call %s", prog->funcs[func].name);
	}
	return snprintf(buf, len, insn->src == BPF_CALL_LOCAL ? "call %+d" : "call %d", insn->imm);
}

static int jump(const struct sbpf_program *prog, const struct sbpf_insn *insn, uint32_t pc,
		char *buf, size_t len)
{
	uint8_t op = BPF_OP(insn->code);
	bool wide = BPF_CLASS(insn->code) == BPF_JMP;
	char r = wide ? 'r' : 'w';

	if (op == BPF_JA)
		return wide ? snprintf(buf, len, "goto %+d", insn->off)
			    : snprintf(buf, len, "gotol %+d", insn->imm);
	if (op == BPF_CALL && wide)
		return call(prog, insn, pc, buf, len);
	if (op == BPF_EXIT && wide)
		return snprintf(buf, len, "exit");
	if (!jump_ops[op >> 4])
		return unknown(insn, buf, len);
	if (BPF_SRC(insn->code) == BPF_X)
		return snprintf(buf, len, "if %c%u %s %c%u goto %+d", r, insn->dst,
				jump_ops[op >> 4], r, insn->src, insn->off);
	return snprintf(buf, len, "if %c%u %s %d goto %+d", r, insn->dst, jump_ops[op >> 4],
			insn->imm, insn->off);
}

/* "(u32 *)(r1 + 8)" */
static const char *place(const struct sbpf_insn *insn, uint8_t reg, char kind, char *buf,
			 size_t len)
{
	unsigned int bits = size_bits[BPF_SIZE(insn->code) >> 3];
	int off = insn->off;

	snprintf(buf, len, "(%c%u *)(r%u %c %d)", kind, bits, reg, off < 0 ? '-' : '+',
		 off < 0 ? -off : off);
	return buf;
}

static int atomic(const struct sbpf_insn *insn, char *buf, size_t len)
{
	static const char *const names[16] = {
		[BPF_ADD >> 4] = "add",
		[BPF_OR >> 4] = "or",
		[BPF_AND >> 4] = "and",
		[BPF_XOR >> 4] = "xor",
	};
	bool wide = BPF_SIZE(insn->code) == BPF_DW;
	const char *width = wide ? "_64" : "32_32";
	unsigned int op = (unsigned int)insn->imm & 0xf0;
	bool fetch = insn->imm & BPF_FETCH;
	char r = wide ? 'r' : 'w', at[40];
	int off = insn->off < 0 ? -insn->off : insn->off;
	char plus = insn->off < 0 ? '-' : '+';

	if (BPF_SIZE(insn->code) != BPF_W && !wide)
		return unknown(insn, buf, len);
	if (insn->imm == BPF_XCHG)
		return snprintf(buf, len, "%c%u = xchg%s(r%u %c %d, %c%u)", r, insn->src, width,
				insn->dst, plus, off, r, insn->src);
	if (insn->imm == BPF_CMPXCHG)
		return snprintf(buf, len, "%c0 = cmpxchg%s(r%u %c %d, %c0, %c%u)", r, width,
				insn->dst, plus, off, r, r, insn->src);
	if ((insn->imm & ~0xf1) || !names[op >> 4])
		return unknown(insn, buf, len);
	place(insn, insn->dst, 'u', at, sizeof(at));
	if (fetch)
		return snprintf(buf, len, "%c%u = atomic_fetch_%s(%s, %c%u)", r, insn->src,
				names[op >> 4], at, r, insn->src);
	return snprintf(buf, len, "lock *%s %s %c%u", at, alu_ops[op >> 4], r, insn->src);
}

static int load(const struct sbpf_program *prog, const struct sbpf_insn *insn, uint32_t pc,
		char *buf, size_t len)
{
	char at[40];

	if (sbpf_is_lddw(insn)) {
		uint64_t imm = (uint32_t)insn->imm;

		if (insn->src || pc + 1 >= prog->n_insns)
			return unknown(insn, buf, len);
		imm |= (uint64_t)(uint32_t)insn[1].imm << 32;
		return snprintf(buf, len, "r%u = 0x%" PRIx64 " ll", insn->dst, imm);
	}
	if (BPF_CLASS(insn->code) == BPF_LD)
		return unknown(insn, buf, len);
	if (BPF_MODE(insn->code) != BPF_MEM && BPF_MODE(insn->code) != BPF_MEMSX)
		return unknown(insn, buf, len);
	place(insn, insn->src, BPF_MODE(insn->code) == BPF_MEMSX ? 's' : 'u', at, sizeof(at));
	return snprintf(buf, len, "r%u = *%s", insn->dst, at);
}

static int store(const struct sbpf_insn *insn, char *buf, size_t len)
{
	bool reg = BPF_CLASS(insn->code) == BPF_STX;
	char at[40];

	if (reg && BPF_MODE(insn->code) == BPF_ATOMIC)
		return atomic(insn, buf, len);
	if (BPF_MODE(insn->code) != BPF_MEM)
		return unknown(insn, buf, len);
	place(insn, insn->dst, 'u', at, sizeof(at));
	return reg ? snprintf(buf, len, "*%s = r%u", at, insn->src)
		   : snprintf(buf, len, "*%s = %d", at, insn->imm);
}

int sbpf_disasm_insn(const struct sbpf_program *prog, uint32_t pc, char *buf, size_t len)
{
	const struct sbpf_insn *insn = &prog->insns[pc];

	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		return alu(insn, buf, len);
	case BPF_JMP:
	case BPF_JMP32:
		return jump(prog, insn, pc, buf, len);
	case BPF_ST:
	case BPF_STX:
		return store(insn, buf, len);
	default:
		return load(prog, insn, pc, buf, len);
	}
}

int sbpf_program_disasm(const struct sbpf_program *prog, void (*emit)(void *arg, const char *line),
			void *arg)
{
	const struct sbpf_line *last = NULL;
	char buf[LINE_MAX_BYTES];

	for (uint32_t i = 0; i < prog->n_funcs; i++) {
		const struct sbpf_func *func = &prog->funcs[i];

		snprintf(buf, sizeof(buf), "%s:", func->name);
		emit(arg, buf);
		for (uint32_t pc = func->start; pc < func->end; pc++) {
			const struct sbpf_line *line = sbpf_line_at(prog, pc);
			int n;

			if (line &&
			    !(last && last->line == line->line && last->file == line->file)) {
				snprintf(buf, sizeof(buf), "; %s:%u", line->file, line->line);
				emit(arg, buf);
			}
			last = line;
			n = snprintf(buf, sizeof(buf), "%8u: ", pc);
			sbpf_disasm_insn(prog, pc, buf + n, sizeof(buf) - (size_t)n);
			emit(arg, buf);
			if (sbpf_is_lddw(&prog->insns[pc]))
				pc++;
		}
	}
	return 0;
}
