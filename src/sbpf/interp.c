/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interp.c - the interpreter: runs everywhere, and is the reference for the other tiers.
 *
 * compile() decodes each instruction once into an operation of 16 bytes that knows the address of
 * its handler; run() jumps from handler to handler.  Operation i is instruction i, so the place of a
 * fault is the distance of the last operation that was noted (x->saved_sp) from the first.
 * All that the verifier promised (registers, jump targets, call depth) is relied on, not checked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/internal.h"

struct op {
	int32_t handler; /* its label, from the first handler's */
	uint8_t dst, src;
	int16_t off;
	int32_t imm;
	int32_t jump; /* of jumps: the distance in operations; of lddw: the upper half */
};
_Static_assert(sizeof(struct op) == 16, "four to a cache line");

struct interp_code {
	struct sbpf_code code;
	struct op ops[];
};

/* A caller's state while its callee runs. */
struct frame {
	const struct op *next;
	uint64_t saved[5]; /* r6..r10 */
	uint32_t func;
};

/*
 * The instruction set as a table: N(name) is one handler.  The back-edge twin of a jump is a handler
 * of its own, so that only back edges know of fuel.
 */
#define ALU_NAMES(N, W, S) \
	N(add##W##S)       \
	N(sub##W##S)       \
	N(mul##W##S)       \
	N(div##W##S)       \
	N(sdiv##W##S)      \
	N(mod##W##S)       \
	N(smod##W##S)      \
	N(or ##W##S)       \
	N(and##W##S)       \
	N(xor##W##S)       \
	N(lsh##W##S)       \
	N(rsh##W##S)       \
	N(arsh##W##S)      \
	N(mov##W##S)
#define COND_NAMES(N, W, S) \
	N(jeq##W##S)        \
	N(jne##W##S)        \
	N(jgt##W##S)        \
	N(jge##W##S)        \
	N(jlt##W##S)        \
	N(jle##W##S)        \
	N(jset##W##S)       \
	N(jsgt##W##S)       \
	N(jsge##W##S)       \
	N(jslt##W##S)       \
	N(jsle##W##S)
#define EVERY_COND(N, B)        \
	COND_NAMES(N, 64, k##B) \
	COND_NAMES(N, 64, x##B) \
	COND_NAMES(N, 32, k##B) \
	COND_NAMES(N, 32, x##B) \
	N(ja##B)
/* clang-format off */
#define EVERY_NAME(N)                                                                              \
	ALU_NAMES(N, 64, k) ALU_NAMES(N, 64, x) ALU_NAMES(N, 32, k) ALU_NAMES(N, 32, x)            \
	N(neg64) N(neg32) N(movs8_64) N(movs16_64) N(movs32_64) N(movs8_32) N(movs16_32)           \
	N(swap16) N(swap32) N(swap64) N(low16) N(low32) N(nop)                                     \
	EVERY_COND(N, ) EVERY_COND(N, _back)                                                       \
	N(ldx8) N(ldx16) N(ldx32) N(ldx64) N(ldxs8) N(ldxs16) N(ldxs32)                            \
	N(st8) N(st16) N(st32) N(st64) N(stx8) N(stx16) N(stx32) N(stx64)                          \
	N(atomic32) N(atomic64) N(lddw) N(helper) N(local) N(leave)
/* clang-format on */

enum op_name {
#define N(name) OP_##name,
	EVERY_NAME(N)
#undef N
};

/* The handlers of a family stand in the order of the names above. */
#define ALU_FAMILY  (OP_add64x - OP_add64k)
#define COND_FAMILY (OP_jeq64x - OP_jeq64k)
#define BACK_EDGE   (OP_jeq64k_back - OP_jeq64k)

/* ---- decoding ---- */

static int decode_alu(const struct sbpf_insn *insn)
{
	static const int16_t by_op[16] = {
		[BPF_ADD >> 4] = OP_add64k,
		[BPF_SUB >> 4] = OP_sub64k,
		[BPF_MUL >> 4] = OP_mul64k,
		[BPF_DIV >> 4] = OP_div64k,
		[BPF_OR >> 4] = OP_or64k,
		[BPF_AND >> 4] = OP_and64k,
		[BPF_LSH >> 4] = OP_lsh64k,
		[BPF_RSH >> 4] = OP_rsh64k,
		[BPF_NEG >> 4] = -1,
		[BPF_MOD >> 4] = OP_mod64k,
		[BPF_XOR >> 4] = OP_xor64k,
		[BPF_MOV >> 4] = OP_mov64k,
		[BPF_ARSH >> 4] = OP_arsh64k,
		[BPF_END >> 4] = -1,
		[14] = -1,
		[15] = -1,
	};
	bool wide = BPF_CLASS(insn->code) == BPF_ALU64, reg = BPF_SRC(insn->code) == BPF_X;
	uint8_t code = BPF_OP(insn->code);
	int op = by_op[code >> 4];

	if (code == BPF_NEG)
		return wide ? OP_neg64 : OP_neg32;
	if (code == BPF_MOV && insn->off) {
		if (insn->off == 8)
			return wide ? OP_movs8_64 : OP_movs8_32;
		if (insn->off == 16)
			return wide ? OP_movs16_64 : OP_movs16_32;
		return wide && insn->off == 32 ? OP_movs32_64 : -1;
	}
	if (op < 0)
		return -1;
	if ((code == BPF_DIV || code == BPF_MOD) && insn->off == 1)
		op++; /* the signed one is its neighbour */
	return op + (wide ? 0 : 2 * ALU_FAMILY) + (reg ? ALU_FAMILY : 0);
}

/* htole and htobe (class ALU; this machine is little-endian) and bswap (class ALU64). */
static int decode_end(const struct sbpf_insn *insn)
{
	bool swap = BPF_CLASS(insn->code) == BPF_ALU64 || BPF_SRC(insn->code) == BPF_X;

	switch (insn->imm) {
	case 16:
		return swap ? OP_swap16 : OP_low16;
	case 32:
		return swap ? OP_swap32 : OP_low32;
	case 64:
		return swap ? OP_swap64 : OP_nop;
	}
	return -1;
}

static int decode_jump(const struct sbpf_insn *insn, bool back)
{
	static const int16_t by_op[16] = {
		[BPF_JA >> 4] = -1,
		[BPF_JEQ >> 4] = OP_jeq64k,
		[BPF_JGT >> 4] = OP_jgt64k,
		[BPF_JGE >> 4] = OP_jge64k,
		[BPF_JSET >> 4] = OP_jset64k,
		[BPF_JNE >> 4] = OP_jne64k,
		[BPF_JSGT >> 4] = OP_jsgt64k,
		[BPF_JSGE >> 4] = OP_jsge64k,
		[BPF_CALL >> 4] = -1,
		[BPF_EXIT >> 4] = -1,
		[BPF_JLT >> 4] = OP_jlt64k,
		[BPF_JLE >> 4] = OP_jle64k,
		[BPF_JSLT >> 4] = OP_jslt64k,
		[BPF_JSLE >> 4] = OP_jsle64k,
		[14] = -1,
		[15] = -1,
	};
	bool wide = BPF_CLASS(insn->code) == BPF_JMP, reg = BPF_SRC(insn->code) == BPF_X;
	int op = by_op[BPF_OP(insn->code) >> 4];

	if (BPF_OP(insn->code) == BPF_JA)
		return back ? OP_ja_back : OP_ja;
	if (op < 0)
		return -1;
	return op + (wide ? 0 : 2 * COND_FAMILY) + (reg ? COND_FAMILY : 0) + (back ? BACK_EDGE : 0);
}

static int decode_memory(const struct sbpf_insn *insn)
{
	/* By size as it is encoded: W, H, B, DW. */
	static const int16_t ldx[] = {OP_ldx32, OP_ldx16, OP_ldx8, OP_ldx64};
	static const int16_t ldxs[] = {OP_ldxs32, OP_ldxs16, OP_ldxs8, -1};
	static const int16_t st[] = {OP_st32, OP_st16, OP_st8, OP_st64};
	static const int16_t stx[] = {OP_stx32, OP_stx16, OP_stx8, OP_stx64};
	static const int16_t atomic[] = {OP_atomic32, -1, -1, OP_atomic64};
	uint8_t size = BPF_SIZE(insn->code) >> 3, mode = BPF_MODE(insn->code);

	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		return sbpf_is_lddw(insn) ? OP_lddw : -1;
	case BPF_LDX:
		return mode == BPF_MEM ? ldx[size] : mode == BPF_MEMSX ? ldxs[size] : -1;
	case BPF_ST:
		return mode == BPF_MEM ? st[size] : -1;
	case BPF_STX:
		return mode == BPF_MEM ? stx[size] : mode == BPF_ATOMIC ? atomic[size] : -1;
	}
	return -1;
}

/* The handler of an instruction, or -1 where there is none. */
static int decode_name(const struct sbpf_insn *insn, uint32_t pc)
{
	uint8_t op = BPF_OP(insn->code);

	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		return op == BPF_END ? decode_end(insn) : decode_alu(insn);
	case BPF_JMP:
	case BPF_JMP32:
		if (op == BPF_EXIT)
			return OP_leave;
		if (op == BPF_CALL)
			return insn->src == BPF_CALL_LOCAL ? OP_local : OP_helper;
		return decode_jump(insn, sbpf_jump_target(insn, pc) <= pc);
	default:
		return decode_memory(insn);
	}
}

static int decode(const struct sbpf_program *prog, uint32_t pc, const int32_t *handlers,
		  struct op *op)
{
	const struct sbpf_insn *insn = &prog->insns[pc];
	int name = decode_name(insn, pc);

	if (name < 0)
		return -EINVAL;
	*op = (struct op){
		.handler = handlers[name],
		.dst = insn->dst,
		.src = insn->src,
		.off = insn->off,
		.imm = insn->imm,
	};
	if (name == OP_lddw) {
		op->jump = insn[1].imm;
	} else if (name == OP_local) {
		op->imm = (int32_t)sbpf_func_at(prog, (uint32_t)((int64_t)pc + 1 + insn->imm));
		op->jump = insn->imm + 1;
	} else if (sbpf_is_jump(insn)) {
		op->jump = (int32_t)(sbpf_jump_target(insn, pc) - pc);
	}
	return 0;
}

/* ---- running ---- */

/* Sandbox memory has no type and no alignment. */
struct any8 {
	uint8_t v;
} __attribute__((packed, may_alias));
struct any16 {
	uint16_t v;
} __attribute__((packed, may_alias));
struct any32 {
	uint32_t v;
} __attribute__((packed, may_alias));
struct any64 {
	uint64_t v;
} __attribute__((packed, may_alias));

/* What an atomic instruction but compare-exchange stores where @old was. */
static uint64_t atomic_result(int32_t op, uint64_t old, uint64_t src)
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
	}
	return src; /* exchange */
}

static int64_t div_signed64(int64_t a, int64_t b)
{
	return b == -1 ? (int64_t)(0 - (uint64_t)a) : b ? a / b : 0;
}

static int64_t mod_signed64(int64_t a, int64_t b)
{
	return b == -1 ? 0 : b ? a % b : a;
}

static int32_t div_signed32(int32_t a, int32_t b)
{
	return b == -1 ? (int32_t)(0 - (uint32_t)a) : b ? a / b : 0;
}

static int32_t mod_signed32(int32_t a, int32_t b)
{
	return b == -1 ? 0 : b ? a % b : a;
}

#define DST    r[op->dst]
#define SRC    r[op->src]
#define IMM64  ((uint64_t)(int64_t)op->imm)
#define IMM32  ((uint32_t)op->imm)
#define SRC32  ((uint32_t)SRC)
#define DST32  ((uint32_t)DST)
#define NEXT() GO(op + 1)
#define GO(to)                                               \
	do {                                                 \
		op = (to);                                   \
		goto *(void *)(first_handler + op->handler); \
	} while (0)
/* Where a fault would be reported, and the host address. */
#define NOTE()  (*(const void *volatile *)&x->saved_sp = op)
#define AT(reg) (base + (uint32_t)((reg) + (uint64_t)(int64_t)op->off))
#define CHARGE(n)                                   \
	do {                                        \
		fuel -= (n);                        \
		if ((int64_t)fuel < 0) {            \
			NOTE();                     \
			x->fuel = fuel;             \
			fuel = sbpf_exec_refuel(x); \
		}                                   \
	} while (0)

/* Handlers of one operation, with an immediate and with a register. */
#define ALU64(name, expr_k, expr_x)          \
	name##64k:                           \
	{                                    \
		uint64_t a = DST, b = IMM64; \
		DST = (uint64_t)(expr_k);    \
		NEXT();                      \
	}                                    \
	name##64x:                           \
	{                                    \
		uint64_t a = DST, b = SRC;   \
		DST = (uint64_t)(expr_x);    \
		NEXT();                      \
	}
#define ALU32(name, expr)                      \
	name##32k:                             \
	{                                      \
		uint32_t a = DST32, b = IMM32; \
		DST = (uint32_t)(expr);        \
		NEXT();                        \
	}                                      \
	name##32x:                             \
	{                                      \
		uint32_t a = DST32, b = SRC32; \
		DST = (uint32_t)(expr);        \
		NEXT();                        \
	}
#define ALU(name, expr64, expr32)   \
	ALU64(name, expr64, expr64) \
	ALU32(name, expr32)

#define JUMP_TO(label, type, cond, value_a, value_b)           \
	label: {                                               \
		type a = (type)(value_a), b = (type)(value_b); \
		GO(op + ((cond) ? op->jump : 1));              \
	}                                                      \
	label##_back:                                          \
	{                                                      \
		type a = (type)(value_a), b = (type)(value_b); \
		if (!(cond))                                   \
			NEXT();                                \
		CHARGE((uint64_t)(1 - (int64_t)op->jump));     \
		GO(op + op->jump);                             \
	}
#define COND(name, sign, cond)                             \
	JUMP_TO(name##64k, sign##64_t, cond, DST, IMM64)   \
	JUMP_TO(name##64x, sign##64_t, cond, DST, SRC)     \
	JUMP_TO(name##32k, sign##32_t, cond, DST32, IMM32) \
	JUMP_TO(name##32x, sign##32_t, cond, DST32, SRC32)

#define ONE(name, result)         \
	name:                     \
	DST = (uint64_t)(result); \
	NEXT();
#define LOAD(name, type, result)                            \
	name:                                               \
	NOTE();                                             \
	DST = (uint64_t)(result)((const type *)AT(SRC))->v; \
	NEXT();
#define STORE(bits, type)                             \
	st##bits : NOTE();                            \
	((type *)AT(DST))->v = (uint##bits##_t)IMM64; \
	NEXT();                                       \
	stx##bits : NOTE();                           \
	((type *)AT(DST))->v = (uint##bits##_t)SRC;   \
	NEXT();
/* A compare-exchange that fails stores what was there: a store that faults where it would succeed. */
#define ATOMIC(bits, type)                                                              \
	atomic##bits:                                                                   \
	{                                                                               \
		type *p = (type *)AT(DST);                                              \
		uint##bits##_t old;                                                     \
		NOTE();                                                                 \
		old = p->v;                                                             \
		if (op->imm == BPF_CMPXCHG) {                                           \
			p->v = old == (uint##bits##_t)r[0] ? (uint##bits##_t)SRC : old; \
			r[0] = old;                                                     \
		} else {                                                                \
			p->v = (uint##bits##_t)atomic_result(op->imm, old, SRC);        \
			if (op->imm & BPF_FETCH)                                        \
				SRC = old;                                              \
		}                                                                       \
		NEXT();                                                                 \
	}

/*
 * With no call to run: where the handlers are, by name.  Never inlined or copied, which would give
 * the labels a second address.
 */
static __attribute__((noinline)) uint64_t execute(struct sbpf_exec *x, uint32_t func, uint64_t r1,
						  uint64_t r2, uint64_t r10, const int32_t **table)
{
	static const int32_t handlers[] = {
#define N(name) (int32_t)((const char *) && name - (const char *) && add64k),
		EVERY_NAME(N)
#undef N
	};
	const char *const first_handler = &&add64k;
	struct frame frames[SBPF_MAX_DEPTH];
	uint64_t r[16] = {[1] = r1, [2] = r2, [10] = r10};
	const struct sbpf_program *prog;
	unsigned int depth = 0;
	const struct op *op;
	uint8_t *base;
	uint64_t fuel;

	if (table) {
		*table = handlers;
		return 0;
	}
	prog = x->prog;
	base = x->base;
	fuel = x->fuel;
	op = ((const struct interp_code *)x->code)->ops + prog->funcs[func].start;
	CHARGE(prog->funcs[func].end - prog->funcs[func].start);
	GO(op);

	/* clang-format off */
	ALU(add, a + b, a + b)
	ALU(sub, a - b, a - b)
	ALU(mul, a * b, a * b)
	ALU(div, b ? a / b : 0, b ? a / b : 0)
	ALU(sdiv, div_signed64((int64_t)a, (int64_t)b), div_signed32((int32_t)a, (int32_t)b))
	ALU(mod, b ? a % b : a, b ? a % b : a)
	ALU(smod, mod_signed64((int64_t)a, (int64_t)b), mod_signed32((int32_t)a, (int32_t)b))
	ALU(or, a | b, a | b)
	ALU(and, a & b, a & b)
	ALU(xor, a ^ b, a ^ b)
	ALU(lsh, a << (b & 63), a << (b & 31))
	ALU(rsh, a >> (b & 63), a >> (b & 31))
	ALU(arsh, (int64_t)a >> (b & 63), (int32_t)a >> (b & 31))
	ALU(mov, ((void)a, b), ((void)a, b))
	ONE(neg64, 0 - DST)
	ONE(neg32, 0u - DST32)
	ONE(movs8_64, (int64_t)(int8_t)SRC)
	ONE(movs16_64, (int64_t)(int16_t)SRC)
	ONE(movs32_64, (int64_t)(int32_t)SRC)
	ONE(movs8_32, (uint32_t)(int8_t)SRC)
	ONE(movs16_32, (uint32_t)(int16_t)SRC)
	ONE(swap16, __builtin_bswap16((uint16_t)DST))
	ONE(swap32, __builtin_bswap32(DST32))
	ONE(swap64, __builtin_bswap64(DST))
	ONE(low16, (uint16_t)DST)
	ONE(low32, DST32)
	ONE(nop, DST)

	COND(jeq, uint, a == b)
	COND(jne, uint, a != b)
	COND(jgt, uint, a > b)
	COND(jge, uint, a >= b)
	COND(jlt, uint, a < b)
	COND(jle, uint, a <= b)
	COND(jset, uint, (a & b) != 0)
	COND(jsgt, int, a > b)
	COND(jsge, int, a >= b)
	COND(jslt, int, a < b)
	COND(jsle, int, a <= b)

	LOAD(ldx8, struct any8, uint8_t)
	LOAD(ldx16, struct any16, uint16_t)
	LOAD(ldx32, struct any32, uint32_t)
	LOAD(ldx64, struct any64, uint64_t)
	LOAD(ldxs8, struct any8, int8_t)
	LOAD(ldxs16, struct any16, int16_t)
	LOAD(ldxs32, struct any32, int32_t)
	STORE(8, struct any8)
	STORE(16, struct any16)
	STORE(32, struct any32)
	STORE(64, struct any64)
	ATOMIC(32, struct any32)
	ATOMIC(64, struct any64)
	/* clang-format on */

ja:
	GO(op + op->jump);
ja_back:
	CHARGE((uint64_t)(1 - (int64_t)op->jump));
	GO(op + op->jump);
lddw:
	DST = IMM32 | (uint64_t)(uint32_t)op->jump << 32;
	GO(op + 2);
helper:
	NOTE();
	x->fuel = fuel;
	r[0] = sbpf_helpers[op->imm].fn(x, r[1], r[2], r[3], r[4], r[5]);
	fuel = x->fuel;
	if (prog->zero_unset)
		memset(&r[1], 0, 5 * sizeof(r[1]));
	NEXT();
local: {
	const struct sbpf_func *callee = &prog->funcs[op->imm];
	struct frame *frame = &frames[depth++];

	CHARGE(callee->end - callee->start);
	frame->next = op + 1;
	frame->func = func;
	memcpy(frame->saved, &r[6], sizeof(frame->saved));
	r[10] -= prog->funcs[func].frame;
	memset(base + (uint32_t)(r[10] - callee->frame), 0, callee->frame);
	if (prog->zero_unset) {
		r[0] = 0;
		memset(&r[6], 0, 4 * sizeof(r[6]));
	}
	func = (uint32_t)op->imm;
	GO(op + op->jump);
}
leave:
	if (depth) {
		const struct frame *frame = &frames[--depth];

		memcpy(&r[6], frame->saved, sizeof(frame->saved));
		if (prog->zero_unset)
			memset(&r[1], 0, 5 * sizeof(r[1]));
		func = frame->func;
		GO(frame->next);
	}
	x->fuel = fuel;
	return r[0];
}

static uint64_t interp_run(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2,
			   uint64_t r10)
{
	return execute(x, func, r1, r2, r10, NULL);
}

static int64_t interp_locate(const struct sbpf_exec *x)
{
	const struct interp_code *ic = (const struct interp_code *)x->code;

	return (const struct op *)x->saved_sp - ic->ops;
}

/* ---- the engine ---- */

static int decode_func(const struct sbpf_program *prog, const struct sbpf_func *func,
		       const int32_t *handlers, struct op *ops, struct sbpf_error *err)
{
	for (uint32_t pc = func->start; pc < func->end; pc++) {
		int r = decode(prog, pc, handlers, &ops[pc]);

		if (r)
			return sbpf_fail(err, prog, r, pc,
					 "the interpreter does not know opcode 0x%02x",
					 prog->insns[pc].code);
		if (sbpf_is_lddw(&prog->insns[pc]))
			pc++;
	}
	return 0;
}

static int interp_compile(const struct sbpf_program *prog, struct sbpf_code **out,
			  struct sbpf_error *err)
{
	size_t size = sizeof(struct interp_code) + prog->n_insns * sizeof(struct op);
	struct interp_code *ic = calloc(1, size);
	const int32_t *handlers;

	if (!ic)
		return sbpf_fail(err, prog, -ENOMEM, -1, "out of memory for %u instructions",
				 prog->n_insns);
	execute(NULL, 0, 0, 0, 0, &handlers);
	for (uint32_t i = 0; i < prog->n_funcs; i++) {
		int r = prog->funcs[i].reachable
				? decode_func(prog, &prog->funcs[i], handlers, ic->ops, err)
				: 0;

		if (r) {
			free(ic);
			return r;
		}
	}
	ic->code.code_bytes = size;
	*out = &ic->code;
	return 0;
}

static void interp_free(struct sbpf_code *code)
{
	free(code);
}

const struct sbpf_engine sbpf_engine_interp = {
	.name = "interp",
	.tier = SBPF_TIER_INTERP,
	.compile = interp_compile,
	.free = interp_free,
	.run = interp_run,
	.locate = interp_locate,
};
