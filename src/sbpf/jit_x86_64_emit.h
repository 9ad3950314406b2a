/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_x86_64_emit.h - machine code, one instruction at a time: where BPF registers live, and x86-64
 * encodings.  What code to write is decided in jit_x86_64_insn.c (straight line) and jit_x86_64.c
 * (control flow).
 */
#ifndef SBPF_JIT_X86_64_EMIT_H
#define SBPF_JIT_X86_64_EMIT_H

#include "sbpf/jit_common.h"

/* clang-format off */
enum jit_reg {
	RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
};
/* Condition codes of jcc, setcc and cmovcc; x ^ 1 is the opposite of x. */
enum jit_cc {
	CC_B = 2, CC_AE = 3, CC_E = 4, CC_NE = 5, CC_BE = 6, CC_A = 7, CC_L = 12, CC_GE = 13, CC_LE = 14, CC_G = 15,
};
/*
 * The operations of opcodes 81 /n and 83 /n; their register form is 8 * n + 1, the load form 8 * n
 * + 3.
 */
enum jit_alu { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };
/* The operations of opcodes c1 /n and d3 /n. */
enum jit_shift { SH_ROL = 0, SH_SHL = 4, SH_SHR = 5, SH_SAR = 7 };

/*
 * r1, r2, r4 and r5 are where helpers want arguments or one place off; r6 to r9 survive calls; rcx
 * stays free for shift counts and division, r10 as a second scratch register.
 */
static const uint8_t jit_host[11] = { RAX, RDI, RSI, RDX, R8, R9, RBX, R13, R14, R15, RBP };
#define JIT_FUEL R12 /* what is left of the slice */
#define JIT_EXEC R11 /* struct sbpf_exec * */
/* clang-format on */

/* Tests: compile as for a machine without BMI2 and FSGSBASE. */
extern bool sbpf_x86_64_plain;

/*
 * jit_x86_64_insn.c: everything but jumps, calls and exits; returns how many instructions it ate.
 */
uint32_t jit_straight(struct jit *j, uint32_t pc);

/* ---- instructions ---- */

/* An opcode of one byte, or of two with 0x0f in front when it is above 0xff. */
static inline void jit_opcode(struct jit *j, unsigned int opcode)
{
	if (opcode > 0xff)
		jit_1(j, 0x0f);
	jit_1(j, opcode);
}

static inline void jit_rex(struct jit *j, bool w, unsigned int reg, unsigned int index,
			   unsigned int rm, bool force)
{
	unsigned int rex =
		0x40u | (unsigned int)w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3;

	if (rex != 0x40 || force)
		jit_1(j, rex);
}

static inline void jit_modrm(struct jit *j, unsigned int mod, unsigned int reg, unsigned int rm)
{
	jit_1(j, mod << 6 | (reg & 7) << 3 | (rm & 7));
}

/* OP rm, reg (or reg, rm: the opcode knows) */
static inline void jit_rr(struct jit *j, bool w, unsigned int opcode, unsigned int reg,
			  unsigned int rm)
{
	jit_rex(j, w, reg, 0, rm, false);
	jit_opcode(j, opcode);
	jit_modrm(j, 3, reg, rm);
}

/* The same on the low byte of rm, which for rsi, rdi and rbp needs a REX prefix. */
static inline void jit_rr8(struct jit *j, bool w, unsigned int opcode, unsigned int reg,
			   unsigned int rm)
{
	jit_rex(j, w, reg, 0, rm, rm >= RSP);
	jit_opcode(j, opcode);
	jit_modrm(j, 3, reg, rm);
}

/* [base + disp], base neither rsp nor r12, which would need a SIB byte */
static inline void jit_disp(struct jit *j, unsigned int reg, unsigned int base, int32_t disp)
{
	if (disp == 0 && (base & 7) != RBP) {
		jit_modrm(j, 0, reg, base);
	} else if (disp == (int8_t)disp) {
		jit_modrm(j, 1, reg, base);
		jit_1(j, (uint8_t)disp);
	} else {
		jit_modrm(j, 2, reg, base);
		jit_4(j, (uint32_t)disp);
	}
}

/*
 * OP reg, gs:[base32 + disp]: the sandbox.  The address-size prefix makes base + disp a 32-bit sum
 * and the segment's base is added after it was cut, so whatever base holds the access stays within
 * 4 GiB (and 7 bytes) of the sandbox's start.  No compare, no branch: nothing to mispredict, so it
 * holds under speculation as well.
 */
static inline void jit_mem(struct jit *j, bool w, unsigned int opcode, unsigned int reg,
			   unsigned int base, int32_t disp)
{
	jit_1(j, 0x65);
	jit_1(j, 0x67);
	jit_rex(j, w, reg, 0, base, false);
	jit_opcode(j, opcode);
	jit_disp(j, reg, base, disp);
}

/* The same for a byte register, which from rsp to rdi needs a REX prefix. */
static inline void jit_mem8(struct jit *j, unsigned int opcode, unsigned int reg, unsigned int base,
			    int32_t disp)
{
	jit_1(j, 0x65);
	jit_1(j, 0x67);
	jit_rex(j, false, reg, 0, base, reg >= RSP);
	jit_opcode(j, opcode);
	jit_disp(j, reg, base, disp);
}

/* OP reg, [x + field] */
static inline void jit_exec(struct jit *j, bool w, unsigned int opcode, unsigned int reg,
			    size_t field)
{
	jit_rex(j, w, reg, 0, JIT_EXEC, false);
	jit_opcode(j, opcode);
	jit_disp(j, reg, JIT_EXEC, (int32_t)field);
}

static inline void jit_mov(struct jit *j, bool w, unsigned int dst, unsigned int src)
{
	jit_rr(j, w, 0x89, src, dst);
}

/* dst = v, in the shortest form; clobbers flags for 0 */
static inline void jit_const(struct jit *j, unsigned int dst, uint64_t v)
{
	if (v == 0) {
		jit_rr(j, false, 0x31, dst, dst);
	} else if (v <= UINT32_MAX) {
		jit_rex(j, false, 0, 0, dst, false);
		jit_1(j, 0xb8 | (dst & 7));
		jit_4(j, (uint32_t)v);
	} else if (v == (uint64_t)(int32_t)v) {
		jit_rr(j, true, 0xc7, 0, dst);
		jit_4(j, (uint32_t)v);
	} else {
		jit_rex(j, true, 0, 0, dst, false);
		jit_1(j, 0xb8 | (dst & 7));
		jit_8(j, v);
	}
}

static inline void jit_alu_rr(struct jit *j, bool w, enum jit_alu op, unsigned int dst,
			      unsigned int src)
{
	jit_rr(j, w, 8u * op + 1, src, dst);
}

static inline void jit_alu_ri(struct jit *j, bool w, enum jit_alu op, unsigned int dst, int32_t imm)
{
	bool small = imm == (int8_t)imm;

	jit_rr(j, w, small ? 0x83 : 0x81, op, dst);
	if (small)
		jit_1(j, (uint8_t)imm);
	else
		jit_4(j, (uint32_t)imm);
}

static inline void jit_shift_ri(struct jit *j, bool w, enum jit_shift op, unsigned int dst,
				unsigned int n)
{
	jit_rr(j, w, n == 1 ? 0xd1 : 0xc1, op, dst);
	if (n != 1)
		jit_1(j, n);
}

/* shlx, shrx, sarx (BMI2): dst = src OP count, flags untouched */
static inline void jit_shift_x(struct jit *j, bool w, enum jit_shift op, unsigned int dst,
			       unsigned int src, unsigned int count)
{
	unsigned int pp = op == SH_SHL ? 1 : op == SH_SAR ? 2 : 3;

	jit_1(j, 0xc4);
	jit_1(j, (dst < R8 ? 0x80u : 0) | 0x40u | (src < R8 ? 0x20u : 0) | 2);
	jit_1(j, (unsigned int)w << 7 | (~count & 15) << 3 | pp);
	jit_1(j, 0xf7);
	jit_modrm(j, 3, dst, src);
}

static inline void jit_lea(struct jit *j, bool w, unsigned int dst, unsigned int base, int32_t disp)
{
	jit_rex(j, w, dst, 0, base, false);
	jit_1(j, 0x8d);
	jit_disp(j, dst, base, disp);
}

/* dst = base + index */
static inline void jit_lea_sum(struct jit *j, bool w, unsigned int dst, unsigned int base,
			       unsigned int index)
{
	unsigned int mod = (base & 7) == RBP ? 1 : 0; /* rbp and r13 want a displacement */

	jit_rex(j, w, dst, index, base, false);
	jit_1(j, 0x8d);
	jit_modrm(j, mod, dst, 4);
	jit_1(j, (index & 7) << 3 | (base & 7));
	if (mod)
		jit_1(j, 0);
}

/* dst = index << scale */
static inline void jit_lea_scaled(struct jit *j, bool w, unsigned int dst, unsigned int index,
				  unsigned int scale)
{
	jit_rex(j, w, dst, index, 0, false);
	jit_1(j, 0x8d);
	jit_modrm(j, 0, dst, 4);
	jit_1(j, scale << 6 | (index & 7) << 3 | 5);
	jit_4(j, 0);
}

/* Indirect branches may land here where the CPU watches them (CET). */
static inline void jit_endbr(struct jit *j)
{
	jit_4(j, 0xfa1e0ff3);
}

static inline void jit_push(struct jit *j, unsigned int r)
{
	jit_rex(j, false, 0, 0, r, false);
	jit_1(j, 0x50 | (r & 7));
}

static inline void jit_pop(struct jit *j, unsigned int r)
{
	jit_rex(j, false, 0, 0, r, false);
	jit_1(j, 0x58 | (r & 7));
}

/* A short jump forward within the piece, to be landed with jit_land(). */
static inline uint8_t *jit_skip(struct jit *j, unsigned int cc)
{
	jit_1(j, 0x70 | cc);
	jit_1(j, 0);
	return j->p;
}

static inline uint8_t *jit_skip_always(struct jit *j)
{
	jit_1(j, 0xeb);
	jit_1(j, 0);
	return j->p;
}

static inline void jit_land(struct jit *j, uint8_t *from)
{
	from[-1] = (uint8_t)(j->p - from);
}

static inline void jit_call_far(struct jit *j, uintptr_t fn)
{
	jit_const(j, RAX, fn);
	jit_1(j, 0xff);
	jit_modrm(j, 3, 2, RAX);
}

/* jmp, jcc or call (opcode e9, 0f 8x or e8) with 32 bits of distance to an offset in the code */
static inline void jit_near(struct jit *j, unsigned int opcode, uint32_t to)
{
	jit_opcode(j, opcode);
	jit_4(j, to - (jit_here(j) + 4));
}

#endif /* SBPF_JIT_X86_64_EMIT_H */
