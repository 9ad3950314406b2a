/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_aarch64_emit.h - machine code, one instruction at a time: where BPF registers live, and A64
 * encodings.  What code to write is decided in jit_aarch64_insn.c (straight line) and jit_aarch64.c
 * (control flow).
 */
#ifndef SBPF_JIT_AARCH64_EMIT_H
#define SBPF_JIT_AARCH64_EMIT_H

#include "sbpf/jit_common.h"

/*
 * r0 to r5 are where helpers return and want arguments, r6 to r9 survive C calls.  x6, x7, x16 and
 * x17 are scratch; x8 to x15 hold constants of a function that calls nothing; x18 is the system's.
 */
static const uint8_t jit_host[11] = {0, 1, 2, 3, 4, 5, 19, 20, 21, 22, 25};

#define A64_CONST 8u  /* the first of JIT_CONSTS */
#define A64_TMP   16u /* addresses and constants */
#define A64_TMP2  17u /* values */
#define A64_TMP3  7u
#define A64_FUEL  23u /* what is left of the slice */
#define A64_EXEC  24u /* struct sbpf_exec * */
#define A64_STACK 26u /* base + r10 */
#define A64_BASE  28u /* the sandbox */
#define A64_LR    30u
#define A64_ZR    31u /* where the instruction does not mean SP */
#define A64_SP    31u

/* Condition codes; x ^ 1 is the opposite of x. */
enum a64_cc {
	A64_EQ,
	A64_NE,
	A64_HS,
	A64_LO,
	A64_MI,
	A64_PL,
	A64_VS,
	A64_VC,
	A64_HI,
	A64_LS,
	A64_GE,
	A64_LT,
	A64_GT,
	A64_LE,
};

/* Encodings of the 32-bit form; bit 31 makes it 64 bits wide. */
enum a64_op {
	A64_ADD = 0x0b000000, /* also with a shifted or extended second register */
	A64_ADDS = 0x2b000000,
	A64_SUB = 0x4b000000,
	A64_SUBS = 0x6b000000,
	A64_AND = 0x0a000000,
	A64_ORR = 0x2a000000,
	A64_EOR = 0x4a000000,
	A64_ANDS = 0x6a000000,
	A64_UDIV = 0x1ac00800,
	A64_SDIV = 0x1ac00c00,
	A64_LSLV = 0x1ac02000,
	A64_LSRV = 0x1ac02400,
	A64_ASRV = 0x1ac02800,
	A64_CSEL = 0x1a800000,
	A64_CSINC = 0x1a800400,
	A64_CSINV = 0x5a800000,
	A64_CCMN = 0x3a400000,
	A64_CCMP = 0x7a400000,
	A64_REV16 = 0x5ac00400,
	A64_REV32 = 0x5ac00800, /* of all 4 bytes; the 64-bit form is A64_REV64 */
	A64_REV64 = 0x5ac00c00,
	A64_MADD = 0x1b000000,
	A64_MSUB = 0x1b008000,
	A64_UBFM = 0x53000000,
	A64_SBFM = 0x13000000,
	A64_CBZ = 0x34000000,
	A64_CBNZ = 0x35000000,
};

/* The immediate forms of ADD to SUBS and of AND to ANDS are so much further. */
#define A64_ADD_IMM   0x06000000u
#define A64_LOGIC_IMM 0x08000000u

#define A64_BTI_C      0xd503245fu /* hints: nothing to cores that do not know them */
#define A64_PACIASP    0xd503233fu
#define A64_AUTIASP    0xd50323bfu
#define A64_PACIA1716  0xd503211fu
#define A64_AUTIA1716  0xd503219fu
#define A64_NOP        0xd503201fu
#define A64_RET        0xd65f0000u /* | rn << 5 */
#define A64_BR         0xd61f0000u
#define A64_BLR        0xd63f0000u
#define A64_LDR_NEXT_8 0x58000040u /* rt = the 8 bytes two instructions on */

/* Pairs of 64-bit registers, base and offset / 8. */
#define A64_STP      0xa9000000u
#define A64_LDP      0xa9400000u
#define A64_STP_PRE  0xa9800000u
#define A64_LDP_POST 0xa8c00000u
#define A64_STP_POST 0xa8800000u

/* jit_aarch64_insn.c: everything but jumps, calls and exits; returns how many instructions it ate. */
uint32_t jit_straight(struct jit *j, uint32_t pc);
/* The register that holds a constant, or the sandbox's base plus it; 0 if none does. */
unsigned int a64_kept(const struct jit *j, int32_t value, bool is_base);
/* A register that holds imm, sign-extended: one of the function's constants, else x16, set here. */
unsigned int a64_operand(struct jit *j, bool w, int32_t imm);
/* Set the flags for a conditional jump; returns the condition on which it is taken. */
unsigned int a64_compare(struct jit *j, const struct sbpf_insn *insn);
unsigned int a64_condition(const struct sbpf_insn *insn);
/* "if (!condition) dst = value" at pc, without a jump: returns the instructions eaten, or 0. */
uint32_t a64_conditional(struct jit *j, uint32_t pc);

static inline uint32_t a64_sf(bool w)
{
	return (uint32_t)w << 31;
}

/* ---- instructions ---- */

static inline void a64_rrr(struct jit *j, bool w, enum a64_op op, unsigned int dst, unsigned int a,
			   unsigned int b)
{
	jit_4(j, op | a64_sf(w) | b << 16 | a << 5 | dst);
}

static inline void a64_mov(struct jit *j, bool w, unsigned int dst, unsigned int src)
{
	a64_rrr(j, w, A64_ORR, dst, A64_ZR, src);
}

/* dst = z + a * b or z - a * b */
static inline void a64_mul(struct jit *j, bool w, enum a64_op op, unsigned int dst, unsigned int a,
			   unsigned int b, unsigned int z)
{
	jit_4(j, op | a64_sf(w) | b << 16 | z << 10 | a << 5 | dst);
}

/* dst = cc ? a : b (or b + 1, or ~b) */
static inline void a64_select(struct jit *j, bool w, enum a64_op op, unsigned int dst,
			      unsigned int a, unsigned int b, unsigned int cc)
{
	jit_4(j, op | a64_sf(w) | b << 16 | cc << 12 | a << 5 | dst);
}

static inline void a64_bitfield(struct jit *j, bool w, enum a64_op op, unsigned int dst,
				unsigned int src, unsigned int immr, unsigned int imms)
{
	jit_4(j, op | a64_sf(w) | (uint32_t)w << 22 | immr << 16 | imms << 10 | src << 5 | dst);
}

/* Does v fit ADD and SUB: 12 bits, or 12 bits and as many zeroes? */
static inline bool a64_is_imm12(uint64_t v)
{
	return v < 1u << 12 || (v < 1u << 24 && !(v & 0xfff));
}

/* op is ADD, ADDS, SUB or SUBS; v fits */
static inline void a64_rri(struct jit *j, bool w, enum a64_op op, unsigned int dst, unsigned int a,
			   uint32_t v)
{
	uint32_t imm = v < 1u << 12 ? v << 10 : 1u << 22 | v >> 12 << 10;

	jit_4(j, (op + A64_ADD_IMM) | a64_sf(w) | imm | a << 5 | dst);
}

/*
 * AND, ORR and EOR take what is a run of ones, rotated, in an element of 2 to 64 bits, repeated.
 * Returns the 13 bits N:immr:imms, or -1.
 */
static inline int a64_bitmask(bool w, uint64_t v)
{
	unsigned int size = 64, ones, rot;
	uint64_t mask;

	if (!w)
		v = (uint32_t)v | v << 32;
	if (v == 0 || v == UINT64_MAX)
		return -1;
	while (size > 2 && (v ^ v >> size / 2) << (64 - size / 2) == 0)
		size /= 2;
	mask = size == 64 ? UINT64_MAX : (1ull << size) - 1;
	v &= mask;
	ones = (unsigned int)__builtin_popcountll(v);
	/* Rotated left by rot until the run starts at bit 0 */
	for (rot = 0; v != (1ull << ones) - 1; rot++) {
		if (rot == size)
			return -1;
		v = (v << 1 | v >> (size - 1)) & mask;
	}
	return (int)((uint32_t)(size == 64) << 12 | rot << 6 | ((-(2 * size) & 63) | (ones - 1)));
}

static inline void a64_logic_imm(struct jit *j, bool w, enum a64_op op, unsigned int dst,
				 unsigned int a, int bitmask)
{
	jit_4(j, (op + A64_LOGIC_IMM) | a64_sf(w) | (uint32_t)bitmask << 10 | a << 5 | dst);
}

/* movn, movz or movk: op 0, 2 or 3 */
static inline void a64_move_wide(struct jit *j, bool w, unsigned int op, unsigned int dst,
				 uint64_t v, unsigned int part)
{
	jit_4(j, 0x12800000u | a64_sf(w) | op << 29 | part << 21 |
			 (uint32_t)(v >> 16 * part & 0xffff) << 5 | dst);
}

/* dst = v in the fewest instructions of movz or movn and movk, or one orr */
static inline void a64_const(struct jit *j, unsigned int dst, uint64_t v)
{
	unsigned int zeroes = 0, ones = 0, parts = v > UINT32_MAX ? 4 : 2;
	uint16_t skip;
	bool first = true, w = parts == 4;
	int bitmask;

	for (unsigned int i = 0; i < parts; i++) {
		zeroes += (v >> 16 * i & 0xffff) == 0;
		ones += (v >> 16 * i & 0xffff) == 0xffff;
	}
	if (zeroes + 1 < parts && ones + 1 < parts && (bitmask = a64_bitmask(w, v)) >= 0) {
		a64_logic_imm(j, w, A64_ORR, dst, A64_ZR, bitmask);
		return;
	}
	skip = ones > zeroes ? 0xffff : 0;
	for (unsigned int i = 0; i < parts; i++) {
		if ((v >> 16 * i & 0xffff) == skip)
			continue;
		if (first)
			a64_move_wide(j, w, skip ? 0 : 2, dst, skip ? ~v : v, i);
		else
			a64_move_wide(j, w, 3, dst, v, i);
		first = false;
	}
	if (first)
		a64_move_wide(j, w, skip ? 0 : 2, dst, 0, 0);
}

/* ---- memory ---- */

/* Where an access goes: base + w index, or base + offset where index is A64_ZR. */
struct a64_place {
	unsigned int base, index;
	int32_t off; /* -256 to 255 */
};

/* opc: 0 store, 1 load, 2 load with the sign extended to 64 bits; size: log2 of bytes */
static inline void a64_access(struct jit *j, unsigned int size, unsigned int opc, unsigned int rt,
			      const struct a64_place *at)
{
	uint32_t insn = 0x38000000u | size << 30 | opc << 22 | at->base << 5 | rt;

	if (at->index != A64_ZR)
		jit_4(j, insn | 0x204800u | at->index << 16); /* [base, w, uxtw] */
	else
		jit_4(j, insn | ((uint32_t)at->off & 0x1ff) << 12);
}

/* ldr or str of a whole register at [base + field], field a multiple of its size */
static inline void a64_field(struct jit *j, bool w, bool load, unsigned int rt, unsigned int base,
			     size_t field)
{
	jit_4(j, 0xb9000000u | (uint32_t)w << 30 | (uint32_t)load << 22 |
			 (uint32_t)(field >> (w ? 3 : 2)) << 10 | base << 5 | rt);
}

static inline void a64_pair(struct jit *j, uint32_t op, unsigned int a, unsigned int b,
			    unsigned int base, int32_t off)
{
	jit_4(j, op | ((uint32_t)(off / 8) & 0x7f) << 15 | b << 10 | base << 5 | a);
}

/* ---- branches; to is an offset in the code ---- */

static inline void a64_b(struct jit *j, bool link, uint32_t to)
{
	uint32_t words = (to - jit_here(j)) >> 2 & 0x3ffffff;

	jit_4(j, (link ? 0x94000000u : 0x14000000u) | words);
}

/* b.cc (op 0x54000000 | cc), cbz or cbnz: 1 MiB either way */
static inline void a64_b_short(struct jit *j, uint32_t op, uint32_t to)
{
	jit_4(j, op | ((to - jit_here(j)) >> 2 & 0x7ffff) << 5);
}

#define A64_B_CC 0x54000000u

/* A branch forward within the piece, to be landed with a64_land(). */
static inline uint8_t *a64_skip(struct jit *j, uint32_t op)
{
	uint8_t *from = j->p;

	jit_4(j, op);
	return from;
}

/* The 19-bit field, or the 14 bits of tbz, at the same place. */
static inline void a64_land(struct jit *j, uint8_t *from)
{
	uint32_t insn;

	memcpy(&insn, from, 4);
	insn |= (uint32_t)(j->p - from) >> 2 << 5;
	memcpy(from, &insn, 4);
}

#endif /* SBPF_JIT_AARCH64_EMIT_H */
