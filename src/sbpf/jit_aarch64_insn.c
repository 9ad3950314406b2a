/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_aarch64_insn.c - arithmetic, loads, stores, atomics and conditional moves as A64 code, with the
 * fusing of neighbours that pays; docs/jit.md lists it.
 *
 * A sequence is fused only if no jump lands inside it (jit_fusible()).  Code may clobber flags, x6,
 * x7, x16 and x17; the registers that are known to have a zero upper half (jit->zext) are kept up to
 * date here.
 */
#include "sbpf/jit_aarch64_emit.h"

static unsigned int host_src(const struct sbpf_insn *insn)
{
	return jit_host[insn->src];
}

static uint64_t extended(bool w, int32_t imm)
{
	return w ? (uint64_t)(int64_t)imm : (uint32_t)imm;
}

unsigned int a64_kept(const struct jit *j, int32_t value, bool is_base)
{
	for (unsigned int i = 0; i < j->n_consts; i++)
		if (j->consts[i].value == value && j->consts[i].is_base == is_base)
			return A64_CONST + i;
	return 0;
}

unsigned int a64_operand(struct jit *j, bool w, int32_t imm)
{
	unsigned int reg = a64_kept(j, imm, false);

	if (reg)
		return reg;
	a64_const(j, A64_TMP, extended(w, imm));
	return A64_TMP;
}

/* ---- arithmetic: dst = a OP operand, all of them host registers ---- */

/* Of 32 bits always written, since that clears the upper half. */
static void copy(struct jit *j, bool w, unsigned int dst, unsigned int a)
{
	if (!w || dst != a)
		a64_mov(j, w, dst, a);
}

/* |v| below 2^24 */
static void add_small(struct jit *j, bool w, unsigned int dst, unsigned int a, int32_t v)
{
	enum a64_op op = v < 0 ? A64_SUB : A64_ADD;
	uint32_t n = v < 0 ? (uint32_t)-v : (uint32_t)v;

	if (a64_is_imm12(n)) {
		a64_rri(j, w, op, dst, a, n);
	} else {
		a64_rri(j, w, op, dst, a, n & ~0xfffu);
		a64_rri(j, w, op, dst, dst, n & 0xfff);
	}
}

static void add_k(struct jit *j, bool w, enum a64_op op, unsigned int dst, unsigned int a,
		  int32_t imm)
{
	int64_t v = op == A64_ADD ? imm : -(int64_t)imm;

	if (v == 0)
		copy(j, w, dst, a);
	else if (a64_is_imm12((uint64_t)(v < 0 ? -v : v)))
		add_small(j, w, dst, a, (int32_t)v);
	else
		a64_rrr(j, w, op, dst, a, a64_operand(j, w, imm));
}

static void logic_k(struct jit *j, bool w, enum a64_op op, unsigned int dst, unsigned int a,
		    int32_t imm)
{
	int bitmask = a64_bitmask(w, extended(w, imm));

	if (imm == (op == A64_AND ? -1 : 0))
		copy(j, w, dst, a);
	else if (bitmask >= 0)
		a64_logic_imm(j, w, op, dst, a, bitmask);
	else if (imm == 0)
		a64_const(j, dst, 0);
	else
		a64_rrr(j, w, op, dst, a, a64_operand(j, w, imm));
}

static void shift_k(struct jit *j, bool w, unsigned int op, unsigned int dst, unsigned int a,
		    unsigned int n)
{
	unsigned int top = w ? 63 : 31;

	n &= top;
	if (!n)
		copy(j, w, dst, a);
	else if (op == BPF_LSH)
		a64_bitfield(j, w, A64_UBFM, dst, a, -n & top, top - n);
	else
		a64_bitfield(j, w, op == BPF_RSH ? A64_UBFM : A64_SBFM, dst, a, n, top);
}

static void swap(struct jit *j, unsigned int dst, unsigned int a, int32_t bits)
{
	a64_rrr(j, bits == 64,
		bits == 16   ? A64_REV16
		: bits == 32 ? A64_REV32
			     : A64_REV64,
		dst, a, 0);
	if (bits == 16)
		a64_bitfield(j, false, A64_UBFM, dst, dst, 0, 15);
}

/* to little-endian: truncation */
static void little(struct jit *j, unsigned int dst, unsigned int a, int32_t bits)
{
	if (bits == 64)
		copy(j, true, dst, a);
	else
		a64_bitfield(j, false, A64_UBFM, dst, a, 0, (unsigned int)bits - 1);
}

/*
 * The machine's division by zero gives 0 and its overflow wraps, as RFC 9669 wants; what is left of
 * x / 0 = 0 is x, also as it wants.
 */
static void divide(struct jit *j, const struct sbpf_insn *insn, unsigned int dst, unsigned int a,
		   unsigned int b)
{
	enum a64_op op = insn->off == 1 ? A64_SDIV : A64_UDIV;
	bool w = jit_is_64(insn);

	if (BPF_OP(insn->code) == BPF_DIV) {
		a64_rrr(j, w, op, dst, a, b);
	} else {
		a64_rrr(j, w, op, A64_TMP2, a, b);
		a64_mul(j, w, A64_MSUB, dst, A64_TMP2, b, a);
	}
}

static void divide_k(struct jit *j, const struct sbpf_insn *insn, unsigned int dst, unsigned int a)
{
	bool w = jit_is_64(insn);
	uint64_t v = extended(w, insn->imm);

	if (insn->off == 1 || v == 0 || (v & (v - 1)) != 0)
		divide(j, insn, dst, a, a64_operand(j, w, insn->imm));
	else if (BPF_OP(insn->code) == BPF_DIV)
		shift_k(j, w, BPF_RSH, dst, a, (unsigned int)__builtin_ctzll(v));
	else if (v == 1)
		a64_const(j, dst, 0);
	else
		a64_logic_imm(j, w, A64_AND, dst, a, a64_bitmask(w, v - 1));
}

static void alu_k(struct jit *j, const struct sbpf_insn *insn, unsigned int dst, unsigned int a)
{
	bool w = jit_is_64(insn);
	int32_t imm = insn->imm;

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
		add_k(j, w, A64_ADD, dst, a, imm);
		break;
	case BPF_SUB:
		add_k(j, w, A64_SUB, dst, a, imm);
		break;
	case BPF_OR:
		logic_k(j, w, A64_ORR, dst, a, imm);
		break;
	case BPF_AND:
		logic_k(j, w, A64_AND, dst, a, imm);
		break;
	case BPF_XOR:
		logic_k(j, w, A64_EOR, dst, a, imm);
		break;
	case BPF_MUL:
		if (imm > 1 && (imm & (imm - 1)) == 0)
			shift_k(j, w, BPF_LSH, dst, a, (unsigned int)__builtin_ctz((unsigned)imm));
		else
			a64_mul(j, w, A64_MADD, dst, a, a64_operand(j, w, imm), A64_ZR);
		break;
	case BPF_LSH:
	case BPF_RSH:
	case BPF_ARSH:
		shift_k(j, w, BPF_OP(insn->code), dst, a, (unsigned int)imm);
		break;
	case BPF_NEG:
		a64_rrr(j, w, A64_SUB, dst, A64_ZR, a);
		break;
	case BPF_MOV:
		a64_const(j, dst, extended(w, imm));
		break;
	case BPF_END: /* of ALU64: swap always; of ALU: to little-endian */
		if (w)
			swap(j, dst, a, imm);
		else
			little(j, dst, a, imm);
		break;
	default: /* div, mod */
		divide_k(j, insn, dst, a);
		break;
	}
}

static void alu_x(struct jit *j, const struct sbpf_insn *insn, unsigned int dst, unsigned int a,
		  unsigned int b)
{
	static const uint32_t ops[16] = {
		[BPF_ADD >> 4] = A64_ADD,  [BPF_SUB >> 4] = A64_SUB,   [BPF_OR >> 4] = A64_ORR,
		[BPF_AND >> 4] = A64_AND,  [BPF_XOR >> 4] = A64_EOR,   [BPF_LSH >> 4] = A64_LSLV,
		[BPF_RSH >> 4] = A64_LSRV, [BPF_ARSH >> 4] = A64_ASRV,
	};
	bool w = jit_is_64(insn);
	uint32_t op = ops[BPF_OP(insn->code) >> 4];

	if (op)
		a64_rrr(j, w, op, dst, a, b);
	else if (BPF_OP(insn->code) == BPF_MUL)
		a64_mul(j, w, A64_MADD, dst, a, b, A64_ZR);
	else if (BPF_OP(insn->code) == BPF_END) /* to big-endian */
		swap(j, dst, a, insn->imm);
	else
		divide(j, insn, dst, a, b);
}

/* The operation at insn with its dst read from host register a. */
static void alu_on(struct jit *j, const struct sbpf_insn *insn, unsigned int a)
{
	unsigned int dst = jit_host[insn->dst];

	if (BPF_SRC(insn->code) == BPF_K)
		alu_k(j, insn, dst, a);
	else
		alu_x(j, insn, dst, a, insn->src == insn->dst ? a : host_src(insn));
}

/* ---- moves and what follows them ---- */

/*
 * x <<= n; x >>= m is one bit field moved, which is how clang spells extensions and scaled indexes.
 * Is that what stands at pc?
 */
static bool is_bitfield(const struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *a = &j->prog->insns[pc], *b = a + 1;

	return a->code == (BPF_ALU64 | BPF_LSH | BPF_K) && jit_fusible(j, pc + 1) &&
	       b->dst == a->dst && a->imm & 63 && b->imm & 63 &&
	       (b->code == (BPF_ALU64 | BPF_RSH | BPF_K) ||
		b->code == (BPF_ALU64 | BPF_ARSH | BPF_K));
}

static void bitfield(struct jit *j, uint32_t pc, unsigned int src)
{
	const struct sbpf_insn *a = &j->prog->insns[pc], *b = a + 1;
	unsigned int up = a->imm & 63, down = b->imm & 63;
	bool sign = BPF_OP(b->code) == BPF_ARSH;

	a64_bitfield(j, true, sign ? A64_SBFM : A64_UBFM, jit_host[a->dst], src, (down - up) & 63,
		     63 - up);
	jit_set_zext(j, a->dst, !sign && down >= 32);
}

/* dst = (uint32_t)src and a 64-bit operation on it that takes a 32-bit operand as it is. */
static bool widened(struct jit *j, const struct sbpf_insn *op, unsigned int src)
{
	unsigned int dst = jit_host[op->dst], n;

	if (op->code == (BPF_ALU64 | BPF_ADD | BPF_X) && op->src != op->dst) {
		a64_rrr(j, true, A64_ADD | 0x204000, dst, host_src(op), src); /* uxtw */
		return true;
	}
	if (op->code == (BPF_ALU64 | BPF_LSH | BPF_K) && op->imm & 63) {
		n = (unsigned int)op->imm & 63;
		a64_bitfield(j, true, A64_UBFM, dst, src, -n & 63, n > 32 ? 63 - n : 31);
		return true;
	}
	return false;
}

static bool is_conditional(const struct sbpf_insn *insn)
{
	return sbpf_is_jump(insn) && BPF_OP(insn->code) != BPF_JA;
}

/* A value for a select: the move's source, in a register; w is the width in which it is whole. */
static bool select_value(struct jit *j, const struct sbpf_insn *mov, bool dst_zext,
			 unsigned int *reg, bool *w)
{
	*w = jit_is_64(mov);
	if (BPF_SRC(mov->code) == BPF_K) {
		*reg = mov->imm ? A64_TMP2 : A64_ZR;
		if (mov->imm)
			a64_const(j, A64_TMP2, extended(*w, mov->imm));
		*w = true;
		return true;
	}
	*reg = host_src(mov);
	if (!*w && !dst_zext) {
		*w = true;
		return jit_is_zext(j, mov->src);
	}
	return true;
}

static bool is_plain_move(const struct sbpf_insn *insn)
{
	return jit_is_alu(insn) && BPF_OP(insn->code) == BPF_MOV && insn->off == 0;
}

/*
 * dst = src; if (condition) goto over; dst = value: one select.  What is compared may be dst, which
 * then is src.
 */
static bool select(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc], *mov = insn + 2;
	struct sbpf_insn jump = insn[1];
	unsigned int value;
	bool w;

	if (!jit_fusible(j, pc + 1) || !jit_fusible(j, pc + 2) || !is_conditional(&jump) ||
	    sbpf_jump_target(&jump, pc + 1) != pc + 3 || !is_plain_move(mov) ||
	    mov->dst != insn->dst || (BPF_SRC(mov->code) == BPF_X && mov->src == mov->dst) ||
	    !select_value(j, mov, jit_is_zext(j, insn->src), &value, &w))
		return false;
	if (jump.dst == insn->dst)
		jump.dst = insn->src;
	if (BPF_SRC(jump.code) == BPF_X && jump.src == insn->dst)
		jump.src = insn->src;
	a64_select(j, w, A64_CSEL, jit_host[insn->dst], host_src(insn), value,
		   a64_compare(j, &jump));
	return true;
}

/* "count += condition" */
static bool conditional_increment(struct jit *j, const struct sbpf_insn *jump)
{
	const struct sbpf_insn *add = jump + 1;
	unsigned int dst = jit_host[add->dst];
	bool w = jit_is_64(add);

	if (!jit_is_alu(add) || (add->code & ~7u) != (BPF_ADD | BPF_K) || add->imm != 1 ||
	    (!w && !jit_is_zext(j, add->dst)))
		return false;
	a64_select(j, w, A64_CSINC, dst, dst, dst, a64_compare(j, jump));
	return true;
}

uint32_t a64_conditional(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc], *mov = insn + 1;
	unsigned int value, dst;
	bool w;

	if (sbpf_jump_target(insn, pc) != pc + 2 || !jit_fusible(j, pc + 1))
		return 0;
	if (conditional_increment(j, insn))
		return 2;
	if (!is_plain_move(mov) || !select_value(j, mov, jit_is_zext(j, mov->dst), &value, &w))
		return 0;
	dst = jit_host[mov->dst];
	a64_select(j, w, A64_CSEL, dst, dst, value, a64_compare(j, insn));
	return 2;
}

static uint32_t move(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc], *next = insn + 1;
	unsigned int dst = jit_host[insn->dst], src = host_src(insn);
	bool w = jit_is_64(insn), known = w || jit_is_zext(j, insn->src);
	bool zext = !w || jit_is_zext(j, insn->src);

	if (insn->off) {
		a64_bitfield(j, w, A64_SBFM, dst, src, 0, (unsigned int)insn->off - 1);
		jit_set_zext(j, insn->dst, !w);
		return 1;
	}
	if (known && select(j, pc))
		return 3;
	if (jit_fusible(j, pc + 1) && jit_is_alu(next) && next->dst == insn->dst &&
	    BPF_OP(next->code) != BPF_MOV) {
		if (known && is_bitfield(j, pc + 1)) {
			bitfield(j, pc + 1, src);
			return 3;
		}
		/* A 32-bit operation only looks at the low half, a 64-bit one at what the move made. */
		if (known || !jit_is_64(next)) {
			alu_on(j, next, src);
			jit_set_zext(j, insn->dst, zext);
			jit_set_zext(j, insn->dst, jit_zext_after(j, next));
			return 2;
		}
		if (widened(j, next, src)) {
			jit_set_zext(j, insn->dst, false);
			return 2;
		}
	}
	if (!w && (dst != src || !known))
		a64_mov(j, false, dst, src);
	else if (w && dst != src)
		a64_mov(j, true, dst, src);
	jit_set_zext(j, insn->dst, zext);
	return 1;
}

static uint32_t alu(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	bool zext;

	if (BPF_OP(insn->code) == BPF_MOV && BPF_SRC(insn->code) == BPF_X)
		return move(j, pc);
	if (is_bitfield(j, pc)) {
		bitfield(j, pc, jit_host[insn->dst]);
		return 2;
	}
	zext = jit_zext_after(j, insn);
	alu_on(j, insn, jit_host[insn->dst]);
	jit_set_zext(j, insn->dst, zext);
	return 1;
}

/* ---- comparing ---- */

unsigned int a64_condition(const struct sbpf_insn *insn)
{
	static const uint8_t conditions[16] = {
		[BPF_JEQ >> 4] = A64_EQ,  [BPF_JNE >> 4] = A64_NE,  [BPF_JSET >> 4] = A64_NE,
		[BPF_JGT >> 4] = A64_HI,  [BPF_JGE >> 4] = A64_HS,  [BPF_JLT >> 4] = A64_LO,
		[BPF_JLE >> 4] = A64_LS,  [BPF_JSGT >> 4] = A64_GT, [BPF_JSGE >> 4] = A64_GE,
		[BPF_JSLT >> 4] = A64_LT, [BPF_JSLE >> 4] = A64_LE,
	};

	return conditions[BPF_OP(insn->code) >> 4];
}

unsigned int a64_compare(struct jit *j, const struct sbpf_insn *insn)
{
	bool w = BPF_CLASS(insn->code) == BPF_JMP, set = BPF_OP(insn->code) == BPF_JSET;
	unsigned int a = jit_host[insn->dst];
	int64_t v = insn->imm;
	int bitmask;

	if (BPF_SRC(insn->code) == BPF_X)
		a64_rrr(j, w, set ? A64_ANDS : A64_SUBS, A64_ZR, a, host_src(insn));
	else if (set && (bitmask = a64_bitmask(w, extended(w, insn->imm))) >= 0)
		a64_logic_imm(j, w, A64_ANDS, A64_ZR, a, bitmask);
	else if (set)
		a64_rrr(j, w, A64_ANDS, A64_ZR, a, a64_operand(j, w, insn->imm));
	else if (a64_is_imm12((uint64_t)(v < 0 ? -v : v)))
		a64_rri(j, w, v < 0 ? A64_ADDS : A64_SUBS, A64_ZR, a, (uint32_t)(v < 0 ? -v : v));
	else
		a64_rrr(j, w, A64_SUBS, A64_ZR, a, a64_operand(j, w, insn->imm));
	return a64_condition(insn);
}

/* ---- memory ---- */

/*
 * Base plus a 32-bit index that the access itself extends: whatever the register holds, the access
 * stays within 4 GiB (and 7 bytes) of the sandbox's start.  No compare, no branch: nothing to
 * mispredict, so it holds under speculation as well.  An offset is added to the index before that is
 * cut, or, where a register is to spare, to the base: what then is not cut lies in a guard instead of
 * a hole, and faults either way.  r10 is not the program's to change, so its host address is kept
 * ready and takes offsets.
 */
static void address(struct jit *j, unsigned int reg, int16_t off, struct a64_place *at)
{
	*at = (struct a64_place){.base = A64_BASE, .index = jit_host[reg]};
	if (reg == 10) {
		*at = (struct a64_place){.base = A64_STACK, .index = A64_ZR, .off = off};
		if (off < -256 || off > 255) {
			add_small(j, true, A64_TMP, A64_STACK, off);
			at->base = A64_TMP;
			at->off = 0;
		}
	} else if (off && a64_kept(j, off, true)) {
		at->base = a64_kept(j, off, true);
	} else if (off) {
		add_small(j, false, A64_TMP, at->index, off);
		at->index = A64_TMP;
	}
}

/* log2 of the bytes */
static unsigned int size_of(const struct sbpf_insn *insn)
{
	static const uint8_t sizes[4] = {
		[BPF_W >> 3] = 2, [BPF_H >> 3] = 1, [BPF_B >> 3] = 0, [BPF_DW >> 3] = 3};

	return sizes[BPF_SIZE(insn->code) >> 3];
}

static void load(struct jit *j, const struct sbpf_insn *insn)
{
	bool sign = BPF_MODE(insn->code) == BPF_MEMSX;
	struct a64_place at;

	address(j, insn->src, insn->off, &at);
	a64_access(j, size_of(insn), sign ? 2 : 1, jit_host[insn->dst], &at);
	jit_set_zext(j, insn->dst, !sign && size_of(insn) < 3);
}

static void store(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int src = host_src(insn);
	struct a64_place at;

	if (BPF_CLASS(insn->code) == BPF_ST) {
		src = insn->imm ? A64_TMP2 : A64_ZR;
		if (insn->imm)
			a64_const(j, src, extended(size_of(insn) == 3, insn->imm));
	}
	address(j, insn->dst, insn->off, &at);
	a64_access(j, size_of(insn), 0, src, &at);
}

static enum a64_op atomic_op(int32_t imm)
{
	switch (imm & ~BPF_FETCH) {
	case BPF_ADD:
		return A64_ADD;
	case BPF_OR:
		return A64_ORR;
	case BPF_AND:
		return A64_AND;
	default:
		return A64_EOR;
	}
}

/*
 * A sandbox has one thread, so a plain read, change and write is atomic enough, needs neither LSE nor
 * exclusive pairs, and works misaligned.
 */
static void atomic(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int src = host_src(insn), size = size_of(insn), old = A64_TMP2, new = A64_TMP3;
	bool w = size == 3;
	struct a64_place at;

	address(j, insn->dst, insn->off, &at);
	a64_access(j, size, 1, old, &at);
	if (insn->imm == BPF_CMPXCHG) { /* stores in either case, as the interpreter does */
		a64_rrr(j, w, A64_SUBS, A64_ZR, old, jit_host[0]);
		a64_select(j, w, A64_CSEL, new, src, old, A64_EQ);
		src = jit_host[0];
	} else if (insn->imm == BPF_XCHG) {
		new = src;
	} else {
		a64_rrr(j, w, atomic_op(insn->imm), new, old, src);
	}
	a64_access(j, size, 0, new, &at);
	if (insn->imm & BPF_FETCH) {
		a64_mov(j, true, src, old);
		jit_set_zext(j, insn->imm == BPF_CMPXCHG ? 0 : insn->src, !w);
	}
}

uint32_t jit_straight(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint64_t v;

	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		v = (uint32_t)insn->imm | (uint64_t)(uint32_t)insn[1].imm << 32;
		a64_const(j, jit_host[insn->dst], v);
		jit_set_zext(j, insn->dst, v <= UINT32_MAX);
		return 2;
	case BPF_LDX:
		load(j, insn);
		return 1;
	case BPF_ST:
		store(j, insn);
		return 1;
	case BPF_STX:
		if (BPF_MODE(insn->code) == BPF_ATOMIC)
			atomic(j, insn);
		else
			store(j, insn);
		return 1;
	default:
		return alu(j, pc);
	}
}
