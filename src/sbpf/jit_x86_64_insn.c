/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_x86_64_insn.c - arithmetic, loads, stores and atomics as x86-64 code, with the fusing of
 * neighbours that pays; docs/jit.md lists what each gains.
 *
 * A sequence is fused only if no jump lands inside it (jit_fusible()).  Code may clobber flags, rcx
 * and r10; the registers that are known to have a zero upper half (jit->zext) are kept up to date
 * here.
 */
#include "sbpf/jit_x86_64_emit.h"

#define OP_MOVZX8   0x1b6u
#define OP_MOVZX16  0x1b7u
#define OP_MOVSX8   0x1beu
#define OP_MOVSX16  0x1bfu
#define OP_MOVSXD   0x63u
#define OP_IMUL     0x1afu
#define OP_IMUL8    0x6bu /* dst = src * imm8 */
#define OP_IMUL32   0x69u
#define OP_UNARY    0xf7u /* /3 neg, /6 div, /7 idiv */
#define OP_TEST     0x85u
#define OP_BSWAP    0x1c8u
#define OP_CMPXCHG  0x1b1u
#define OP_LOAD     0x8bu
#define OP_STORE    0x89u
#define OP_STORE8   0x88u
#define OP_STORE_K8 0xc6u
#define OP_STORE_K  0xc7u

/* ZF now tells whether dst is zero. */
static void flags_of(struct jit *j, unsigned int dst, bool w)
{
	j->flags = (uint8_t)dst;
	j->flags_64 = w;
}

/* dst = (uint32_t)src, free if it is so already */
static void zero_extend(struct jit *j, unsigned int dst, unsigned int src)
{
	if (dst != src || !jit_is_zext(j, dst))
		jit_mov(j, false, jit_host[dst], jit_host[src]);
}

/* ---- moves and what follows them ---- */

static void extend(struct jit *j, bool w, unsigned int bits, bool sign, unsigned int dst,
		   unsigned int src)
{
	if (bits == 8)
		jit_rr8(j, w && sign, sign ? OP_MOVSX8 : OP_MOVZX8, dst, src);
	else if (bits == 16)
		jit_rr(j, w && sign, sign ? OP_MOVSX16 : OP_MOVZX16, dst, src);
	else if (sign && w)
		jit_rr(j, true, OP_MOVSXD, dst, src);
	else
		jit_mov(j, false, dst, src);
}

static unsigned int shift_kind(uint8_t code)
{
	return BPF_OP(code) == BPF_LSH ? SH_SHL : BPF_OP(code) == BPF_RSH ? SH_SHR : SH_SAR;
}

/*
 * x <<= n; x >>= n is how clang spells an extension of the low 64 - n bits.  Is that what
 * stands at pc?  Returns the bits kept, 0 if not.
 */
static unsigned int extension_at(const struct jit *j, uint32_t pc, bool *sign)
{
	const struct sbpf_insn *a = &j->prog->insns[pc], *b = a + 1;

	if (a->code != (BPF_ALU64 | BPF_LSH | BPF_K) || !jit_fusible(j, pc + 1) ||
	    b->dst != a->dst || b->imm != a->imm ||
	    (b->code != (BPF_ALU64 | BPF_RSH | BPF_K) && b->code != (BPF_ALU64 | BPF_ARSH | BPF_K)))
		return 0;
	*sign = BPF_OP(b->code) == BPF_ARSH;
	return a->imm == 32 || a->imm == 48 || a->imm == 56 ? 64 - (unsigned int)a->imm : 0;
}

static void imul_k(struct jit *j, bool w, unsigned int dst, unsigned int src, int32_t imm)
{
	bool small = imm == (int8_t)imm;

	jit_rr(j, w, small ? OP_IMUL8 : OP_IMUL32, dst, src);
	if (small)
		jit_1(j, (uint8_t)imm);
	else
		jit_4(j, (uint32_t)imm);
}

/*
 * dst = src, then an operation on dst at pc + 1, in one machine instruction.  w is the width of
 * that operation.  False if there is no such instruction.
 */
static bool move_and(struct jit *j, const struct sbpf_insn *op, bool w, unsigned int dst,
		     unsigned int src)
{
	unsigned int other = op->src == op->dst ? src : jit_host[op->src];

	switch (op->code & ~7u) { /* all but the class */
	case BPF_ADD | BPF_K:
		jit_lea(j, w, dst, src, op->imm);
		return true;
	case BPF_SUB | BPF_K:
		if (op->imm == INT32_MIN)
			return false;
		jit_lea(j, w, dst, src, -op->imm);
		return true;
	case BPF_ADD | BPF_X:
		jit_lea_sum(j, w, dst, src, other);
		return true;
	case BPF_AND | BPF_K:
		if (op->imm != 0xff && op->imm != 0xffff)
			return false;
		extend(j, w, op->imm == 0xff ? 8 : 16, false, dst, src);
		return true;
	case BPF_LSH | BPF_K:
		if (op->imm < 1 || op->imm > 3)
			return false;
		if (op->imm == 1)
			jit_lea_sum(j, w, dst, src, src);
		else
			jit_lea_scaled(j, w, dst, src, (unsigned int)op->imm);
		return true;
	case BPF_MUL | BPF_K:
		imul_k(j, w, dst, src, op->imm);
		return true;
	case BPF_LSH | BPF_X:
	case BPF_RSH | BPF_X:
	case BPF_ARSH | BPF_X:
		if (!j->bmi2)
			return false;
		jit_shift_x(j, w, shift_kind(op->code), dst, src, other);
		return true;
	default:
		return false;
	}
}

static uint32_t move(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc], *next = insn + 1;
	unsigned int dst = jit_host[insn->dst], src = jit_host[insn->src];
	bool w = jit_is_64(insn), sign, known = w || jit_is_zext(j, insn->src);
	unsigned int bits;

	if (insn->off) {
		extend(j, w, (unsigned int)insn->off, true, dst, src);
		jit_set_zext(j, insn->dst, !w);
		return 1;
	}
	/* A 32-bit operation only looks at the low half, a 64-bit one needs a true copy first. */
	if (jit_fusible(j, pc + 1) && jit_is_alu(next) && next->dst == insn->dst) {
		if (known && jit_fusible(j, pc + 2) && (bits = extension_at(j, pc + 1, &sign))) {
			extend(j, true, bits, sign, dst, src);
			jit_set_zext(j, insn->dst, !sign);
			return 3;
		}
		if ((known || !jit_is_64(next)) && move_and(j, next, jit_is_64(next), dst, src)) {
			jit_set_zext(j, insn->dst,
				     !jit_is_64(next) || BPF_OP(next->code) == BPF_AND);
			return 2;
		}
	}
	if (!w)
		zero_extend(j, insn->dst, insn->src);
	else if (dst != src)
		jit_mov(j, true, dst, src);
	jit_set_zext(j, insn->dst, !w || jit_is_zext(j, insn->src));
	return 1;
}

/* ---- arithmetic ---- */

static void add_k(struct jit *j, bool w, unsigned int reg, enum jit_alu op, int32_t imm)
{
	unsigned int dst = jit_host[reg];

	if (imm == 0) {
		if (!w)
			zero_extend(j, reg, reg);
		return;
	}
	if (imm == 128) /* -128 fits a byte */
		jit_alu_ri(j, w, op == ALU_ADD ? ALU_SUB : ALU_ADD, dst, -128);
	else
		jit_alu_ri(j, w, op, dst, imm);
	flags_of(j, dst, w);
}

static void logic_k(struct jit *j, bool w, unsigned int reg, enum jit_alu op, int32_t imm)
{
	unsigned int dst = jit_host[reg];

	if (imm == (op == ALU_AND ? -1 : 0)) {
		if (!w)
			zero_extend(j, reg, reg);
	} else if (op == ALU_AND && (imm == 0xff || imm == 0xffff)) {
		extend(j, w, imm == 0xff ? 8 : 16, false, dst, dst);
	} else {
		/* and with a mask below 2^31 clears the upper half anyway */
		jit_alu_ri(j, w && !(op == ALU_AND && imm >= 0), op, dst, imm);
		flags_of(j, dst, w);
	}
}

static void multiply_k(struct jit *j, bool w, unsigned int dst, int32_t imm)
{
	if (imm > 1 && (imm & (imm - 1)) == 0)
		jit_shift_ri(j, w, SH_SHL, dst, (unsigned int)__builtin_ctz((unsigned int)imm));
	else
		imul_k(j, w, dst, dst, imm);
}

static void shift_k(struct jit *j, bool w, unsigned int reg, enum jit_shift op, int32_t imm)
{
	unsigned int n = (unsigned int)imm & (w ? 63 : 31);

	if (n) {
		jit_shift_ri(j, w, op, jit_host[reg], n);
		flags_of(j, jit_host[reg], w);
	} else if (!w) {
		zero_extend(j, reg, reg);
	}
}

static void shift_x(struct jit *j, bool w, enum jit_shift op, unsigned int dst, unsigned int src)
{
	if (j->bmi2) {
		jit_shift_x(j, w, op, dst, dst, src);
	} else {
		jit_mov(j, false, RCX, src);
		jit_rr(j, w, 0xd3, op, dst);
	}
}

static void swap(struct jit *j, unsigned int dst, int32_t bits)
{
	jit_rex(j, bits == 64, 0, 0, dst, false);
	jit_opcode(j, OP_BSWAP | (dst & 7));
	if (bits == 16)
		jit_shift_ri(j, false, SH_SHR, dst, 16);
}

/* to little-endian: truncation */
static void little(struct jit *j, unsigned int reg, int32_t bits)
{
	if (bits == 16)
		extend(j, false, 16, false, jit_host[reg], jit_host[reg]);
	else if (bits == 32)
		zero_extend(j, reg, reg);
}

/* ---- division ---- */

struct division {
	unsigned int reg; /* BPF's number of dst */
	bool w, mod, sign;
};

/* The result of a division by zero: 0, or the dividend for a remainder (RFC 9669, section 4.1). */
static void divide_by_zero(struct jit *j, const struct division *d)
{
	if (!d->mod)
		jit_const(j, jit_host[d->reg], 0);
	else if (!d->w)
		zero_extend(j, d->reg, d->reg);
}

/* The one quotient that overflows is of -1, and the machine traps on it. */
static void divide_by_minus_1(struct jit *j, const struct division *d)
{
	if (d->mod)
		jit_const(j, jit_host[d->reg], 0);
	else
		jit_rr(j, d->w, OP_UNARY, 3, jit_host[d->reg]);
}

/* dst by a divisor that is neither rax nor rdx; the machine wants the dividend in rdx:rax. */
static void divide_machine(struct jit *j, const struct division *d, unsigned int divisor)
{
	unsigned int dst = jit_host[d->reg], result = d->mod ? RDX : RAX;

	if (dst != RAX)
		jit_mov(j, true, R10, RAX);
	if (dst != RDX) {
		if (divisor == RCX)
			jit_push(j, RDX);
		else
			jit_mov(j, true, RCX, RDX);
	}
	if (dst != RAX)
		jit_mov(j, d->w, RAX, dst);
	if (d->sign) {
		jit_rex(j, d->w, 0, 0, 0, false);
		jit_1(j, 0x99); /* cdq, cqo */
		jit_rr(j, d->w, OP_UNARY, 7, divisor);
	} else {
		jit_const(j, RDX, 0);
		jit_rr(j, d->w, OP_UNARY, 6, divisor);
	}
	if (dst != result)
		jit_mov(j, d->w, dst, result);
	if (dst != RDX) {
		if (divisor == RCX)
			jit_pop(j, RDX);
		else
			jit_mov(j, true, RDX, RCX);
	}
	if (dst != RAX)
		jit_mov(j, true, RAX, R10);
}

static void divide_k(struct jit *j, const struct division *d, int32_t imm)
{
	uint64_t v = d->w ? (uint64_t)(int64_t)imm : (uint32_t)imm;
	unsigned int dst = jit_host[d->reg];

	if (v == 0) {
		divide_by_zero(j, d);
	} else if (d->sign && imm == -1) {
		divide_by_minus_1(j, d);
	} else if (!d->sign && (v & (v - 1)) == 0) {
		if (d->mod)
			jit_alu_ri(j, false, ALU_AND, dst, (int32_t)(v - 1));
		else
			shift_k(j, d->w, d->reg, SH_SHR, __builtin_ctzll(v));
	} else {
		jit_const(j, RCX, v);
		divide_machine(j, d, RCX);
	}
}

static void divide_x(struct jit *j, const struct division *d, unsigned int src)
{
	unsigned int divisor = src == RAX || src == RDX ? RCX : src;
	uint8_t *normal, *zero, *end, *end_2 = NULL;

	if (divisor != src)
		jit_mov(j, d->w, divisor, src);
	if (d->sign) { /* divisor + 1 is 0 or 1 for the two special ones */
		jit_lea(j, d->w, R10, divisor, 1);
		jit_alu_ri(j, d->w, ALU_CMP, R10, 1);
		normal = jit_skip(j, CC_A);
		jit_rr(j, d->w, OP_TEST, divisor, divisor);
		zero = jit_skip(j, CC_E);
		divide_by_minus_1(j, d);
		end_2 = jit_skip_always(j);
		jit_land(j, zero);
	} else {
		jit_rr(j, d->w, OP_TEST, divisor, divisor);
		normal = jit_skip(j, CC_NE);
	}
	divide_by_zero(j, d);
	end = jit_skip_always(j);
	jit_land(j, normal);
	divide_machine(j, d, divisor);
	jit_land(j, end);
	if (end_2)
		jit_land(j, end_2);
}

static void divide(struct jit *j, const struct sbpf_insn *insn)
{
	struct division d = {.reg = insn->dst,
			     .w = jit_is_64(insn),
			     .mod = BPF_OP(insn->code) == BPF_MOD,
			     .sign = insn->off == 1};

	if (BPF_SRC(insn->code) == BPF_K)
		divide_k(j, &d, insn->imm);
	else
		divide_x(j, &d, jit_host[insn->src]);
}

static void alu_k(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int reg = insn->dst, dst = jit_host[reg];
	bool w = jit_is_64(insn);

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
		add_k(j, w, reg, ALU_ADD, insn->imm);
		break;
	case BPF_SUB:
		add_k(j, w, reg, ALU_SUB, insn->imm);
		break;
	case BPF_OR:
		logic_k(j, w, reg, ALU_OR, insn->imm);
		break;
	case BPF_AND:
		logic_k(j, w, reg, ALU_AND, insn->imm);
		break;
	case BPF_XOR:
		logic_k(j, w, reg, ALU_XOR, insn->imm);
		break;
	case BPF_MUL:
		multiply_k(j, w, dst, insn->imm);
		break;
	case BPF_LSH:
	case BPF_RSH:
	case BPF_ARSH:
		shift_k(j, w, reg, shift_kind(insn->code), insn->imm);
		break;
	case BPF_NEG:
		jit_rr(j, w, OP_UNARY, 3, dst);
		flags_of(j, dst, w);
		break;
	case BPF_MOV:
		jit_const(j, dst, w ? (uint64_t)(int64_t)insn->imm : (uint32_t)insn->imm);
		break;
	case BPF_END: /* of ALU64: swap always; of ALU: to little-endian */
		if (w)
			swap(j, dst, insn->imm);
		else
			little(j, reg, insn->imm);
		break;
	default: /* div, mod */
		divide(j, insn);
		break;
	}
}

static void alu_x(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int dst = jit_host[insn->dst], src = jit_host[insn->src];
	bool w = jit_is_64(insn);
	enum jit_alu op = ALU_ADD;

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
		break;
	case BPF_SUB:
		op = ALU_SUB;
		break;
	case BPF_OR:
		op = ALU_OR;
		break;
	case BPF_AND:
		op = ALU_AND;
		break;
	case BPF_XOR:
		op = ALU_XOR;
		break;
	case BPF_MUL:
		jit_rr(j, w, OP_IMUL, dst, src);
		return;
	case BPF_LSH:
	case BPF_RSH:
	case BPF_ARSH:
		shift_x(j, w, shift_kind(insn->code), dst, src);
		return;
	case BPF_END: /* of ALU: to big-endian */
		swap(j, dst, insn->imm);
		return;
	default:
		divide(j, insn);
		return;
	}
	jit_alu_rr(j, w, op, dst, src);
	flags_of(j, dst, w);
}

static uint32_t alu(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	bool sign, zext;
	unsigned int bits;

	if (BPF_OP(insn->code) == BPF_MOV && BPF_SRC(insn->code) == BPF_X)
		return move(j, pc);
	bits = extension_at(j, pc, &sign);
	if (bits) {
		extend(j, true, bits, sign, jit_host[insn->dst], jit_host[insn->dst]);
		jit_set_zext(j, insn->dst, !sign);
		return 2;
	}
	zext = jit_zext_after(j, insn);
	if (BPF_SRC(insn->code) == BPF_K)
		alu_k(j, insn);
	else
		alu_x(j, insn);
	jit_set_zext(j, insn->dst, zext);
	return 1;
}

/* ---- memory ---- */

static void load(struct jit *j, const struct sbpf_insn *insn)
{
	bool sign = BPF_MODE(insn->code) == BPF_MEMSX, w = sign;
	unsigned int opcode = OP_LOAD;

	switch (BPF_SIZE(insn->code)) {
	case BPF_B:
		opcode = sign ? OP_MOVSX8 : OP_MOVZX8;
		break;
	case BPF_H:
		opcode = sign ? OP_MOVSX16 : OP_MOVZX16;
		break;
	case BPF_W:
		opcode = sign ? OP_MOVSXD : OP_LOAD;
		break;
	default:
		w = true;
		break;
	}
	jit_mem(j, w, opcode, jit_host[insn->dst], jit_host[insn->src], insn->off);
	jit_set_zext(j, insn->dst, !w);
}

static void store_k(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int base = jit_host[insn->dst];

	switch (BPF_SIZE(insn->code)) {
	case BPF_B:
		jit_mem(j, false, OP_STORE_K8, 0, base, insn->off);
		jit_1(j, (uint8_t)insn->imm);
		break;
	case BPF_H: /* a 16-bit immediate stalls the decoder */
		jit_const(j, RCX, (uint16_t)insn->imm);
		jit_1(j, 0x66);
		jit_mem(j, false, OP_STORE, RCX, base, insn->off);
		break;
	default:
		jit_mem(j, BPF_SIZE(insn->code) == BPF_DW, OP_STORE_K, 0, base, insn->off);
		jit_4(j, (uint32_t)insn->imm);
		break;
	}
}

static void store_x(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int base = jit_host[insn->dst], src = jit_host[insn->src];

	switch (BPF_SIZE(insn->code)) {
	case BPF_B:
		jit_mem8(j, OP_STORE8, src, base, insn->off);
		break;
	case BPF_H:
		jit_1(j, 0x66);
		jit_mem(j, false, OP_STORE, src, base, insn->off);
		break;
	default:
		jit_mem(j, BPF_SIZE(insn->code) == BPF_DW, OP_STORE, src, base, insn->off);
		break;
	}
}

static enum jit_alu atomic_op(int32_t imm)
{
	switch (imm & ~BPF_FETCH) {
	case BPF_ADD:
		return ALU_ADD;
	case BPF_OR:
		return ALU_OR;
	case BPF_AND:
		return ALU_AND;
	default:
		return ALU_XOR;
	}
}

/*
 * A sandbox has one thread, so a plain read, change and write is atomic enough, needs no lock, and
 * works misaligned.  (xchg with memory locks by itself and is avoided.)  The read comes first and on
 * its own: where the bytes are partly read-only, partly nowhere, all tiers then report the same
 * address.
 */
static void atomic(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int base = jit_host[insn->dst], src = jit_host[insn->src];
	bool w = BPF_SIZE(insn->code) == BPF_DW;

	jit_mem(j, w, OP_LOAD, R10, base, insn->off);
	if (insn->imm == BPF_CMPXCHG) { /* stores in either case, as the interpreter does */
		jit_mem(j, w, OP_CMPXCHG, src, base, insn->off);
		if (!w) /* where it succeeds eax is not written, so the upper half remains */
			zero_extend(j, 0, 0);
		jit_set_zext(j, 0, !w);
		return;
	}
	if (!(insn->imm & BPF_FETCH)) {
		jit_alu_rr(j, w, atomic_op(insn->imm), R10, src);
		jit_mem(j, w, OP_STORE, R10, base, insn->off);
		return;
	}
	if (insn->imm == BPF_XCHG)
		jit_mem(j, w, OP_STORE, src, base, insn->off);
	else
		jit_mem(j, w, 8u * atomic_op(insn->imm) + 1, src, base, insn->off);
	jit_mov(j, w, src, R10);
	jit_set_zext(j, insn->src, !w);
}

uint32_t jit_straight(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint64_t v;

	j->flags = JIT_NO_FLAGS;
	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		v = (uint32_t)insn->imm | (uint64_t)(uint32_t)insn[1].imm << 32;
		jit_const(j, jit_host[insn->dst], v);
		jit_set_zext(j, insn->dst, v <= UINT32_MAX);
		return 2;
	case BPF_LDX:
		load(j, insn);
		return 1;
	case BPF_ST:
		store_k(j, insn);
		return 1;
	case BPF_STX:
		if (BPF_MODE(insn->code) == BPF_ATOMIC)
			atomic(j, insn);
		else
			store_x(j, insn);
		return 1;
	default:
		return alu(j, pc);
	}
}
