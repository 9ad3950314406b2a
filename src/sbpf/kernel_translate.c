/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_translate.c - a verified program as one of the kernel's, for any arena.
 *
 * Every register of the program is a plain number to the kernel's verifier.  An access turns its address into
 * a pointer into the arena (addr_space_cast, one move of 32 bits to the machine), so it cannot leave it; the
 * kernel's registers are the program's, and what the translation needs of its own is a register that is dead
 * at the time or, where there is none, one that waits on the kernel's stack.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/kernel_translate.h"
#include "sbpf/sandbox.h"

#define CTL(field) ((int32_t)offsetof(struct kt_ctl, field))

/*
 * A branch tells the kernel's verifier something of what is compared, and it follows every combination of what it was told by itself.
 * So copies are compared, for an instruction or two: always where a constant is one side, and else in functions
 * that do not loop or have so many branches.
 */
#define MANY_BRANCHES    12u
#define FULL_OF_BRANCHES 32u

/* ---- subprograms ---- */

struct args_of {
	struct kt *k;
	const struct sbpf_program *prog;
};

static uint16_t args_of(void *arg, uint32_t func)
{
	const struct args_of *a = arg;

	return a->k->image->subs[kt_sub_of(a->k, a->prog, func)].args;
}

uint32_t kt_sub_of(struct kt *k, const struct sbpf_program *prog, uint32_t func)
{
	struct kt_image *im = k->image;
	struct args_of arg = {k, prog};
	struct kt_flow flow;
	uint16_t args = 0;
	void *grown;
	bool has_sp = false;

	if (prog && prog == kt_library(NULL)) {
		int routine = kt_routine_find(prog->funcs[func].name);

		if (routine >= 0)
			return kt_sub_of(k, NULL, (uint32_t)routine);
	}
	for (uint32_t i = 0; i < im->n_subs; i++)
		if (im->subs[i].prog == prog && im->subs[i].func == func)
			return i;
	if (prog) {
		if (kt_flow(&flow, prog, func, args_of, &arg)) {
			k->error = -ENOMEM;
			return 0;
		}
		args = flow.live[0];
		has_sp = flow.uses_fp || prog->funcs[func].frame;
		for (uint32_t pc = flow.func->start; pc < flow.func->end && flow.calls; pc++) {
			const struct sbpf_insn *insn = &prog->insns[pc];

			if (kt_reached(&flow, pc) && insn->code == (BPF_JMP | BPF_CALL) &&
			    insn->src == BPF_CALL_LOCAL)
				has_sp |=
					im->subs[kt_sub_of(k, prog,
							   sbpf_func_at(prog,
									(uint32_t)((int64_t)pc + 1 +
										   insn->imm)))]
						.has_sp;
		}
		kt_flow_free(&flow);
	} else {
		args = kt_routine_args((enum kt_routine)func);
	}
	grown = kt_grow(k, im->subs, im->n_subs, &im->subs_room, sizeof(*im->subs));
	if (!grown)
		return 0;
	im->subs = grown;
	im->subs[im->n_subs] = (struct kt_sub){
		.prog = prog, .func = func, .args = (uint8_t)(args & 0x3e), .has_sp = has_sp};
	return im->n_subs++;
}

/* ---- memory ---- */

static const uint8_t access_bytes[] = {4, 2, 1, 8};

static void cast(struct kt *k, unsigned int dst, unsigned int src)
{
	kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, KT_CAST, KT_CAST);
}

/* What is known of registers that @regs says were written is gone. */
static void written(struct kt *k, uint16_t regs)
{
	for (unsigned int r = 0; r < 10; r++) {
		if (regs & KT_REG(r)) {
			k->cast_of[r] = -1;
			k->least[r] = INT64_MIN;
		}
		if (k->cast_of[r] >= 0 && k->cast_of[r] < 10 && regs & KT_REG(k->cast_of[r]))
			k->cast_of[r] = -1;
	}
}

static void know_nothing(struct kt *k)
{
	for (unsigned int r = 0; r < 10; r++) {
		k->cast_of[r] = -1;
		k->least[r] = INT64_MIN;
	}
}

static int find_cast(const struct kt *k, unsigned int base)
{
	for (unsigned int r = 0; r < 10; r++)
		if (k->cast_of[r] == (int)base)
			return (int)r;
	return -1;
}

static uint16_t busy_at(const struct kt *k)
{
	return kt_live_in(&k->flow, k->pc) | kt_live_out(&k->flow, k->pc);
}

static void cast_base(struct kt *k, unsigned int to, unsigned int base)
{
	if (base == 10) {
		kt_fp(k, to);
		base = to;
	}
	cast(k, to, base);
}

/*
 * A pointer into the arena to what @base holds, in a register of its own.  @named are those that the access
 * needs as they are.
 */
static struct kt_scratch pointer(struct kt *k, unsigned int base, uint16_t named, enum kt_slot slot)
{
	int have = find_cast(k, base);
	struct kt_scratch s;

	if (have >= 0)
		return (struct kt_scratch){.reg = (uint8_t)have, .slot = -1};
	if (base < 10 && ((busy_at(k) | named | k->reserved) & KT_ALL) == KT_ALL &&
	    !((kt_live_out(&k->flow, k->pc) | named) & KT_REG(base))) {
		cast(k, base, base);
		return (struct kt_scratch){.reg = (uint8_t)base, .slot = -1};
	}
	s = kt_take(k, busy_at(k), named | (base < 10 ? KT_REG(base) : 0), slot);
	cast_base(k, s.reg, base);
	if (s.slot < 0)
		k->cast_of[s.reg] = (int8_t)base;
	return s;
}

/* Read-only windows lie below the writable ones: one compare tells. */
static void check_store(struct kt *k, unsigned int base, int16_t off, uint16_t named)
{
	int reg;
	int64_t least = (int64_t)SBPF_WRITABLE_FROM - off;

	if (k->library || base == 10 || k->least[base] >= least)
		return;
	reg = kt_free_reg(k, busy_at(k) | named | KT_REG(base));
	if (reg >= 0) {
		k->cast_of[reg] = -1;
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, (unsigned int)reg, 10,
			kt_slot(k, KT_SLOT_ZERO), 0);
		kt_emit(k, BPF_ALU | BPF_XOR | BPF_X, (unsigned int)reg, base, 0, 0);
	} else {
		reg = (int)base;
	}
	kt_fault(k, kt_jump(k, BPF_JMP32 | BPF_JLT | BPF_K, (unsigned int)reg, 0, (int32_t)least),
		 base, off);
	k->least[base] = least;
}

static bool raw_stack(const struct kt *k, unsigned int base)
{
	return k->raw_stack && base == 10;
}

static void load(struct kt *k, const struct sbpf_insn *insn)
{
	uint8_t code = BPF_LDX | BPF_MEM | BPF_SIZE(insn->code);
	unsigned int dst = insn->dst, base = insn->src;
	int have;

	if (raw_stack(k, base)) {
		kt_emit(k, code, dst, 10, insn->off, 0);
	} else {
		kt_check(k, base, insn->off, 0);
		have = find_cast(k, base);
		if (have < 0) {
			/* Where a register is free the pointer may serve the next access, too. */
			uint16_t busy = busy_at(k) | k->reserved | KT_REG(dst) |
					(base < 10 ? KT_REG(base) : 0);

			have = (busy & KT_ALL) == KT_ALL || base == dst
				       ? (int)dst
				       : pointer(k, base, KT_REG(dst), KT_SLOT_A).reg;
			if (have == (int)dst)
				cast_base(k, dst, base);
		}
		kt_emit(k, code, dst, (unsigned int)have, insn->off, 0);
	}
	if (BPF_MODE(insn->code) == BPF_MEMSX)
		kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_X, dst, dst,
			8 * access_bytes[BPF_SIZE(insn->code) >> 3], 0);
}

static void store(struct kt *k, const struct sbpf_insn *insn)
{
	unsigned int base = insn->dst, src = insn->src;
	bool x = BPF_CLASS(insn->code) == BPF_STX;
	struct kt_scratch p, value = {.slot = -1};
	uint16_t named = x && src < 10 ? KT_REG(src) : 0;

	if (x && src == 10) {
		value = kt_take(k, busy_at(k), base < 10 ? KT_REG(base) : 0, KT_SLOT_B);
		kt_fp(k, value.reg);
		src = value.reg;
		named = KT_REG(src);
	}
	if (raw_stack(k, base)) {
		kt_emit(k, insn->code, 10, src, insn->off, insn->imm);
	} else {
		check_store(k, base, insn->off, named);
		kt_check(k, base, insn->off, named);
		p = pointer(k, base, named, KT_SLOT_A);
		kt_emit(k, insn->code, p.reg, src, insn->off, insn->imm);
		kt_give(k, p);
	}
	kt_give(k, value);
}

/* A sandbox has one thread: a plain load and a plain store, which never lock the bus. */
static void atomic(struct kt *k, const struct sbpf_insn *insn)
{
	uint8_t size = BPF_SIZE(insn->code);
	uint8_t alu = size == BPF_DW ? BPF_ALU64 : BPF_ALU;
	uint8_t jump = size == BPF_DW ? BPF_JMP : BPF_JMP32;
	unsigned int base = insn->dst, src = insn->src;
	uint16_t named = KT_REG(0) | (base < 10 ? KT_REG(base) : 0) | (src < 10 ? KT_REG(src) : 0);
	struct kt_scratch p, old, value = {.slot = -1};

	check_store(k, base, insn->off, named);
	kt_check(k, base, insn->off, named);
	if (src == 10) {
		value = kt_take(k, busy_at(k), named, KT_SLOT_C);
		kt_fp(k, value.reg);
		src = value.reg;
		named |= KT_REG(src);
	}
	p = pointer(k, base, named, KT_SLOT_A);
	old = kt_take(k, busy_at(k), named | KT_REG(p.reg), KT_SLOT_B);
	kt_emit(k, BPF_LDX | BPF_MEM | size, old.reg, p.reg, insn->off, 0);
	if (insn->imm == BPF_CMPXCHG) {
		/* One that fails stores what was there, as everywhere. */
		kt_emit(k, jump | BPF_JNE | BPF_X, old.reg, 0, 2, 0);
		kt_emit(k, BPF_STX | BPF_MEM | size, p.reg, src, insn->off, 0);
		kt_emit(k, BPF_JMP | BPF_JA, 0, 0, 1, 0);
		kt_emit(k, BPF_STX | BPF_MEM | size, p.reg, old.reg, insn->off, 0);
		kt_emit(k, alu | BPF_MOV | BPF_X, 0, old.reg, 0, 0);
	} else if (insn->imm == BPF_XCHG) {
		kt_emit(k, BPF_STX | BPF_MEM | size, p.reg, src, insn->off, 0);
		kt_emit(k, alu | BPF_MOV | BPF_X, src, old.reg, 0, 0);
	} else {
		bool fetch = insn->imm & BPF_FETCH;
		uint8_t op = (uint8_t)(insn->imm & ~BPF_FETCH);

		/* What is fetched changes places with what is stored: x and y by two exclusive ors
		 * would do, but the operand may be the result already. */
		if (fetch) {
			struct kt_scratch sum = kt_take(
				k, busy_at(k), named | KT_REG(p.reg) | KT_REG(old.reg), KT_SLOT_D);

			kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_X, sum.reg, old.reg, 0, 0);
			kt_emit(k, alu | op | BPF_X, sum.reg, src, 0, 0);
			kt_emit(k, BPF_STX | BPF_MEM | size, p.reg, sum.reg, insn->off, 0);
			kt_give(k, sum);
			kt_emit(k, alu | BPF_MOV | BPF_X, src, old.reg, 0, 0);
		} else {
			kt_emit(k, alu | op | BPF_X, old.reg, src, 0, 0);
			kt_emit(k, BPF_STX | BPF_MEM | size, p.reg, old.reg, insn->off, 0);
		}
	}
	kt_give(k, old);
	kt_give(k, p);
	kt_give(k, value);
}

/* ---- arithmetic ---- */

static void divide_by_constant(struct kt *k, const struct sbpf_insn *insn)
{
	uint8_t cls = BPF_CLASS(insn->code);
	bool modulo = BPF_OP(insn->code) == BPF_MOD;

	if (insn->imm == 0 && modulo)
		kt_emit(k, cls | BPF_MOV | BPF_X, insn->dst, insn->dst, 0, 0);
	else if (insn->imm == 0 || (modulo && insn->off && insn->imm == -1))
		kt_emit(k, cls | BPF_MOV | BPF_K, insn->dst, 0, 0, 0);
	else if (insn->off && insn->imm == -1)
		kt_emit(k, cls | BPF_NEG, insn->dst, 0, 0, 0);
	else
		kt_emit(k, insn->code, insn->dst, 0, insn->off, insn->imm);
}

/* Kernels before 6.12 let the processor trap on the least number divided by -1. */
static void divide_signed(struct kt *k, const struct sbpf_insn *insn, unsigned int src)
{
	uint8_t cls = BPF_CLASS(insn->code);
	uint8_t jump = cls == BPF_ALU64 ? BPF_JMP : BPF_JMP32;
	int to = k->library ? -1 : kt_free_reg(k, busy_at(k) | KT_REG(src) | KT_REG(insn->dst));
	unsigned int divisor = src;

	if (to >= 0) {
		/* Of what the kernel's verifier does not know to be the divisor. */
		divisor = (unsigned int)to;
		k->cast_of[to] = -1;
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, divisor, 10, kt_slot(k, KT_SLOT_ZERO), 0);
		kt_emit(k, cls | BPF_XOR | BPF_X, divisor, src, 0, 0);
	}
	kt_emit(k, jump | BPF_JEQ | BPF_K, divisor, 0, 2, -1);
	kt_emit(k, insn->code, insn->dst, src, insn->off, 0);
	kt_emit(k, BPF_JMP | BPF_JA, 0, 0, 1, 0);
	if (BPF_OP(insn->code) == BPF_MOD)
		kt_emit(k, cls | BPF_MOV | BPF_K, insn->dst, 0, 0, 0);
	else
		kt_emit(k, cls | BPF_NEG, insn->dst, 0, 0, 0);
}

/*
 * Is what @pc writes to @reg read after the next place where ways meet?  In a loop the kernel's verifier tells
 * states apart there by what it knows of any register.
 */
static bool outlives_block(const struct kt *k, uint32_t pc, unsigned int reg)
{
	const struct sbpf_program *prog = k->flow.prog;

	for (pc += 1 + sbpf_is_lddw(&prog->insns[pc]); pc < k->flow.func->end; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];

		if (!kt_reached(&k->flow, pc) || !(kt_live_in(&k->flow, pc) & KT_REG(reg)))
			return false;
		if (prog->insn_flags[pc] & SBPF_INSN_LEADER || sbpf_is_jump(insn))
			return true;
		if (kt_defs(insn) & KT_REG(reg))
			return false;
		pc += sbpf_is_lddw(insn);
	}
	return false;
}

/* Do both registers still hold, where ways part or meet, what the move at @pc made the same? */
static bool stay_alike(const struct kt *k, uint32_t pc, unsigned int a, unsigned int b)
{
	const struct sbpf_program *prog = k->flow.prog;
	uint16_t both = KT_REG(a) | KT_REG(b);

	for (pc++; pc < k->flow.func->end; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];

		if ((kt_live_in(&k->flow, pc) & both) != both)
			return false;
		if (prog->insn_flags[pc] & SBPF_INSN_LEADER || BPF_CLASS(insn->code) == BPF_JMP ||
		    BPF_CLASS(insn->code) == BPF_JMP32)
			return true;
		/* The verifier remembers a constant's distance, too. */
		if (kt_defs(insn) & both && insn->code != (BPF_ALU64 | BPF_ADD | BPF_K))
			return false;
		pc += sbpf_is_lddw(insn);
	}
	return false;
}

/* A move of a constant, of 32 or 64 bits. */
static void constant(struct kt *k, const struct sbpf_insn *insn, uint64_t value)
{
	if (k->library && sbpf_is_lddw(insn) && kt_library_address(value) != value) {
		kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, insn->dst, 0, 0,
			(int32_t)kt_library_address(value));
		return;
	}
	if (kt_told_out(&k->flow, k->pc) & KT_REG(insn->dst) ||
	    (k->flow.loops && outlives_block(k, k->pc, insn->dst))) {
		kt_constant(k, insn->dst, value);
		return;
	}
	kt_emit(k, insn->code, insn->dst, 0, 0, insn->imm);
	if (sbpf_is_lddw(insn))
		kt_emit(k, 0, 0, 0, 0, insn[1].imm);
}

static void arithmetic(struct kt *k, const struct sbpf_insn *insn)
{
	uint8_t op = BPF_OP(insn->code), cls = BPF_CLASS(insn->code);
	bool x = BPF_SRC(insn->code) == BPF_X && op != BPF_END;
	struct kt_scratch s = {.slot = -1};
	unsigned int src = insn->src;

	if (x && src == 10 && op == BPF_MOV) {
		kt_fp(k, insn->dst);
		if (cls == BPF_ALU64 && !insn->off)
			return;
		src = insn->dst;
	} else if (x && src == 10) {
		s = kt_take(k, busy_at(k), KT_REG(insn->dst), KT_SLOT_A);
		kt_fp(k, s.reg);
		src = s.reg;
	}
	if (op == BPF_MOV && !x)
		constant(k, insn,
			 cls == BPF_ALU ? (uint32_t)insn->imm : (uint64_t)(int64_t)insn->imm);
	else if ((op == BPF_DIV || op == BPF_MOD) && !x)
		divide_by_constant(k, insn);
	else if ((op == BPF_DIV || op == BPF_MOD) && insn->off)
		divide_signed(k, insn, src);
	else if ((op == BPF_LSH || op == BPF_RSH || op == BPF_ARSH) && !x)
		kt_emit(k, insn->code, insn->dst, 0, 0, insn->imm & (cls == BPF_ALU64 ? 63 : 31));
	else
		kt_emit(k, insn->code, insn->dst, src, insn->off, insn->imm);
	if (op == BPF_MOV && x && src < 10 && k->flow.loops && stay_alike(k, k->pc, insn->dst, src))
		kt_emit(k, cls | BPF_OR | BPF_K, insn->dst, 0, 0, 0);
	kt_give(k, s);
}

/* ---- jumps and calls ---- */

static uint8_t inverse(uint8_t op)
{
	switch (op) {
	case BPF_JEQ:
		return BPF_JNE;
	case BPF_JNE:
		return BPF_JEQ;
	case BPF_JGT:
		return BPF_JLE;
	case BPF_JLE:
		return BPF_JGT;
	case BPF_JGE:
		return BPF_JLT;
	case BPF_JLT:
		return BPF_JGE;
	case BPF_JSGT:
		return BPF_JSLE;
	case BPF_JSLE:
		return BPF_JSGT;
	case BPF_JSGE:
		return BPF_JSLT;
	case BPF_JSLT:
		return BPF_JSGE;
	}
	return 0; /* JSET has none */
}

/* What a turn of a loop costs, then on to its start. */
static void latch(struct kt *k, uint32_t target)
{
	uint16_t live = kt_live_in(&k->flow, target);

	know_nothing(k);
	kt_charge(k, sbpf_back_edge_cost(k->pc, target), live);
	kt_may_goto(k);
	kt_fix(k, kt_jump(k, BPF_JMP | BPF_JA, 0, 0, 0), target);
}

/* A copy of @reg to compare, of which the kernel's verifier does not know that it is one. */
static unsigned int copy(struct kt *k, const struct sbpf_insn *insn, unsigned int reg,
			 unsigned int other)
{
	uint8_t cls = BPF_CLASS(insn->code) == BPF_JMP ? BPF_ALU64 : BPF_ALU;
	int to;

	to = kt_free_reg(k, busy_at(k) | KT_REG(reg) | KT_REG(other));
	if (to < 0)
		return reg;
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, (unsigned int)to, 10, kt_slot(k, KT_SLOT_ZERO), 0);
	kt_emit(k, cls | BPF_XOR | BPF_X, (unsigned int)to, reg, 0, 0);
	k->cast_of[to] = -1;
	return (unsigned int)to;
}

/* Does it leave out one move: the larger of two, as a rule, and in the middle of a loop? */
static bool is_choice(const struct kt *k, const struct sbpf_insn *insn)
{
	return insn->off == 1 && BPF_OP(insn[1].code) == BPF_MOV &&
	       (BPF_CLASS(insn[1].code) == BPF_ALU || BPF_CLASS(insn[1].code) == BPF_ALU64) &&
	       k->flow.branches < FULL_OF_BRANCHES;
}

/* The jump itself, of @dst with @src or @insn's constant; @s is a register of ours among them. */
static void branch(struct kt *k, const struct sbpf_insn *insn, struct kt_scratch s,
		   unsigned int dst, unsigned int src, uint32_t target)
{
	uint8_t not = inverse(BPF_OP(insn->code));
	bool back = target <= k->pc;
	uint32_t over;

	if (s.slot >= 0) {
		/* The register that gave way comes back on both ways. */
		over = kt_jump(k, insn->code, dst, src, insn->imm);
		kt_give(k, s);
		kt_fix(k, kt_jump(k, BPF_JMP | BPF_JA, 0, 0, 0), k->pc + 1);
		kt_here(k, over);
		kt_give(k, s);
		if (back)
			latch(k, target);
		else
			kt_fix(k, kt_jump(k, BPF_JMP | BPF_JA, 0, 0, 0), target);
		return;
	}
	if (!back) {
		kt_fix(k, kt_jump(k, insn->code, dst, src, insn->imm), target);
		return;
	}
	if (not) {
		over = kt_jump(k, (uint8_t)((insn->code & ~0xf0) | not), dst, src, insn->imm);
	} else {
		kt_emit(k, insn->code, dst, src, 1, insn->imm);
		over = kt_jump(k, BPF_JMP | BPF_JA, 0, 0, 0);
	}
	latch(k, target);
	kt_here(k, over);
}

/* 1: it is taken whatever the register holds, -1: never, 0: else.  The kernel's verifier sees that. */
static int decided(const struct sbpf_insn *insn)
{
	bool wide = BPF_CLASS(insn->code) == BPF_JMP;

	if (BPF_SRC(insn->code) == BPF_X)
		return 0;
	switch (BPF_OP(insn->code)) {
	case BPF_JGE:
		return insn->imm == 0;
	case BPF_JLT:
		return -(insn->imm == 0);
	case BPF_JLE:
		return insn->imm == -1;
	case BPF_JGT:
		return -(insn->imm == -1);
	case BPF_JSET:
		return -(insn->imm == 0);
	case BPF_JSGE:
		return !wide && insn->imm == INT32_MIN;
	case BPF_JSLT:
		return -(!wide && insn->imm == INT32_MIN);
	case BPF_JSLE:
		return !wide && insn->imm == INT32_MAX;
	case BPF_JSGT:
		return -(!wide && insn->imm == INT32_MAX);
	}
	return 0;
}

static void jump(struct kt *k, const struct sbpf_insn *insn)
{
	uint32_t target = (uint32_t)sbpf_jump_target(insn, k->pc);
	uint8_t op = BPF_OP(insn->code);
	bool back = target <= k->pc, x = BPF_SRC(insn->code) == BPF_X, choice = is_choice(k, insn);
	struct kt_scratch s = {.slot = -1};
	unsigned int dst = insn->dst, src = insn->src;

	if (op == BPF_JA) {
		if (back)
			latch(k, target);
		else
			kt_fix(k, kt_jump(k, BPF_JMP | BPF_JA, 0, 0, 0), target);
		return;
	}
	if (decided(insn) && !k->library) {
		/* By the zero that it does not know, for there must be both ways. */
		struct sbpf_insn same = {
			.code = BPF_JMP | (decided(insn) > 0 ? BPF_JEQ : BPF_JNE) | BPF_K,
			.dst = 10,
			.off = insn->off,
		};

		s = kt_take(k, busy_at(k), 0, KT_SLOT_A);
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, s.reg, 10, kt_slot(k, KT_SLOT_ZERO), 0);
		/* Or it would learn of the slot. */
		kt_emit(k, BPF_ALU64 | BPF_OR | BPF_K, s.reg, 0, 0, 0);
		branch(k, &same, s, s.reg, 0, target);
		return;
	}
	if (dst == 10 || (x && src == 10)) {
		s = kt_take(k, busy_at(k),
			    (dst < 10 ? KT_REG(dst) : 0) | (x && src < 10 ? KT_REG(src) : 0),
			    KT_SLOT_A);
		kt_fp(k, s.reg);
		dst = dst == 10 ? s.reg : dst;
		src = x && src == 10 ? s.reg : src;
	}
	if (((k->copies && !choice) || (!k->library && !x)) && dst == insn->dst)
		dst = copy(k, insn, dst, src);
	if (k->copies && !choice && x && src == insn->src)
		src = copy(k, insn, src, dst);
	branch(k, insn, s, dst, src, target);
}

static void zero(struct kt *k, uint16_t regs)
{
	for (unsigned int r = 0; r < 10; r++)
		if (regs & KT_REG(r))
			kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, r, 0, 0, 0);
}

/* What a call changes in the map: r0 is free, and a register that holds no argument gives way if it must. */
static void pass_state(struct kt *k, uint16_t args, bool sp, bool helper)
{
	bool slot = k->fuel == KT_FUEL_SLOT;
	struct kt_scratch temp = {.slot = -1};

	if (!sp && !helper && k->fuel == KT_FUEL_CTL)
		return;
	if (sp || slot)
		temp = kt_take(k, busy_at(k), KT_REG(0) | args, KT_SLOT_A);
	kt_ctl(k, 0);
	if (sp) {
		kt_fp(k, temp.reg);
		kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_K, temp.reg, 0, 0,
			-(int32_t)k->flow.func->frame);
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 0, temp.reg, CTL(sp), 0);
	}
	kt_fuel_to_ctl(k, 0, temp.reg);
	if (helper)
		kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, 0, 0, CTL(pc), (int32_t)(k->pc + 1));
	kt_give(k, temp);
}

/* Zeros that a branch may depend on. */
static void unset(struct kt *k, uint16_t regs)
{
	for (unsigned int r = 0; r < 10; r++)
		if (regs & KT_REG(r))
			kt_constant(k, r, 0);
}

static uint32_t helper_of(struct kt *k, const struct sbpf_insn *insn)
{
	const struct sbpf_program *library = kt_library(k->err);
	const char *name = sbpf_helpers[insn->imm].name;

	if (!library) {
		k->error = -ENOMEM;
		return 0;
	}
	if (!strcmp(name, "lambda_memcpy"))
		name = "lambda_memmove";
	for (uint32_t f = 0; f < library->n_funcs; f++)
		if (!strcmp(library->funcs[f].name, name))
			return kt_sub_of(k, library, f);
	k->error = sbpf_fail(k->err, k->flow.prog, -EOPNOTSUPP, k->pc,
			     "the kernel engine has no %s()", name);
	return 0;
}

static void call(struct kt *k, const struct sbpf_insn *insn)
{
	bool local = insn->src == BPF_CALL_LOCAL;
	uint32_t sub;

	if (local)
		sub = kt_sub_of(
			k, k->flow.prog,
			sbpf_func_at(k->flow.prog, (uint32_t)((int64_t)k->pc + 1 + insn->imm)));
	else
		sub = helper_of(k, insn);
	if (k->error)
		return;
	/* The kernel wants all up to the last one; the gaps are read by nobody. */
	for (unsigned int r = 1; k->image->subs[sub].args >> (r + 1); r++)
		if (!(k->image->subs[sub].args & KT_REG(r)))
			zero(k, KT_REG(r));
	if (!k->library)
		pass_state(k, k->image->subs[sub].args, k->image->subs[sub].has_sp && local,
			   !local);
	kt_call(k, sub);
	kt_fuel_after_call(k);
	if (k->flow.prog->zero_unset)
		unset(k, KT_CALLER & ~KT_REG(0));
}

/*
 * The result goes through the map: the kernel's verifier wants to know precisely what a function returns, and with it all
 * that it was computed from.
 */
static void leave(struct kt *k)
{
	kt_ctl(k, 1);
	kt_fuel_to_ctl(k, 1, 2);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 1, 0, CTL(r0), 0);
	kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
	kt_emit(k, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* ---- a function ---- */

static void translate(struct kt *k, const struct sbpf_insn *insn)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		arithmetic(k, insn);
		break;
	case BPF_JMP:
	case BPF_JMP32:
		if (insn->code == (BPF_JMP | BPF_EXIT))
			leave(k);
		else if (insn->code == (BPF_JMP | BPF_CALL))
			call(k, insn);
		else
			jump(k, insn);
		break;
	case BPF_LDX:
		load(k, insn);
		break;
	case BPF_ST:
		store(k, insn);
		break;
	case BPF_STX:
		if (BPF_MODE(insn->code) == BPF_ATOMIC)
			atomic(k, insn);
		else
			store(k, insn);
		break;
	default:
		constant(k, insn, (uint32_t)insn->imm | (uint64_t)(uint32_t)insn[1].imm << 32);
		break;
	}
}

/* A register that is nobody's keeps the fuel of a function that loops. */
static void choose_fuel(struct kt *k)
{
	k->fuel = KT_FUEL_CTL;
	k->reserved = 0;
	if (k->library || !k->flow.loops)
		return;
	k->fuel = KT_FUEL_SLOT;
	for (unsigned int r = 6; r < 10; r++) {
		if (k->flow.used & KT_REG(r))
			continue;
		k->fuel = KT_FUEL_REG;
		k->fuel_reg = (uint8_t)r;
		k->reserved = KT_REG(r);
		return;
	}
}

/*
 * A small frame whose address nobody has is the kernel's stack: what the function keeps there is one instruction away.
 * Library functions' others lie one behind the other in pages of their own.
 */
static void choose_stack(struct kt *k, uint32_t func)
{
	const struct sbpf_program *prog = k->flow.prog;
	/* All that run at a time have 512 bytes together, slots and helpers included. */
	uint32_t most = k->library                                ? 96
			: prog->call_depth == 1                   ? 160
			: prog->call_depth == 2 && !prog->helpers ? 64
								  : 0;
	uint64_t fp = KT_LIBRARY_STACK;

	/* The verifier knows what a slot there holds, too, which is much to tell states apart by. */
	k->raw_stack = !k->flow.copies_fp && k->flow.func->frame <= most &&
		       (k->library || k->flow.branches < FULL_OF_BRANCHES);
	if (!k->library)
		return;
	for (uint32_t f = 0; f < func; f++)
		fp -= k->flow.prog->funcs[f].frame;
	k->fp_value = (int32_t)fp;
}

static void zero_frame(struct kt *k)
{
	const struct sbpf_func *func = k->flow.func;

	if (!func->frame)
		return;
	if (k->raw_stack) {
		for (int32_t at = -(int32_t)func->frame; at < 0; at += 8)
			kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, 10, 0, at, 0);
		return;
	}
	kt_fp(k, 0);
	cast(k, 0, 0);
	for (int32_t at = -(int32_t)func->frame; at < 0; at += 8)
		kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, 0, 0, at, 0);
}

static void enter_entry(struct kt *k, const struct kt_sub *sub)
{
	/* Naming the arena makes it the program's. */
	kt_emit(k, BPF_LDDW_CODE, 0, KT_MAP_FD, 0, 0);
	kt_emit(k, 0, 0, 0, 0, 0);
	kt_ctl(k, 3);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, 1, 3, CTL(r1), 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, 2, 3, CTL(r2), 0);
	if (k->fuel != KT_FUEL_CTL)
		kt_fuel_from_ctl(k, 3, 0);
	kt_caches(k, 3);
	if (k->raw_stack)
		zero_frame(k);
	if (sub->prog->zero_unset)
		unset(k, KT_ALL & ~(KT_REG(1) | KT_REG(2) | k->reserved));
}

static void enter_callee(struct kt *k, const struct kt_sub *sub)
{
	struct kt_scratch temp = kt_take(k, sub->args, KT_REG(0), KT_SLOT_A);

	if (sub->has_sp || k->fuel != KT_FUEL_CTL)
		kt_ctl(k, 0);
	if (sub->has_sp) {
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp.reg, 0, CTL(sp), 0);
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, temp.reg, kt_slot(k, KT_SLOT_FP), 0);
	}
	if (k->fuel != KT_FUEL_CTL)
		kt_fuel_from_ctl(k, 0, temp.reg);
	kt_caches(k, temp.reg);
	zero_frame(k);
	/* Its result may be nobody's, but the kernel asks for one. */
	zero(k, KT_REG(0));
	if (sub->prog->zero_unset)
		unset(k, KT_ALL & ~(KT_CALLER | k->reserved));
}

static void enter(struct kt *k, const struct kt_sub *sub)
{
	const struct sbpf_func *func = k->flow.func;
	uint16_t keep = kt_live_in(&k->flow, func->start);

	if (k->is_entry)
		enter_entry(k, sub);
	else if (!k->library)
		enter_callee(k, sub);
	else
		zero(k, KT_REG(0));
	kt_charge(k, func->end - func->start, keep | (k->is_entry ? 0 : KT_REG(0)));
}

static void translate_function(struct kt *k, uint32_t index)
{
	struct kt_sub sub = k->image->subs[index];
	const struct sbpf_func *func = &sub.prog->funcs[sub.func];
	uint32_t n = func->end - func->start;
	struct args_of arg = {k, sub.prog};

	k->library = sub.prog == kt_library(NULL);
	k->is_entry = index == 0;
	k->raw_stack = false;
	k->n_fixes = k->n_stubs = k->n_accesses = k->n_slots = 0;
	memset(k->slots, 0, sizeof(k->slots));
	k->at = calloc(n + 1u, sizeof(*k->at));
	if (!k->at || kt_flow(&k->flow, sub.prog, sub.func, args_of, &arg)) {
		k->error = -ENOMEM;
		free(k->at);
		return;
	}
	choose_stack(k, sub.func);
	choose_fuel(k);
	k->copies = !k->library &&
		    (!k->flow.loops || k->flow.calls || k->flow.branches >= MANY_BRANCHES);
	know_nothing(k);
	k->pc = func->start;
	enter(k, &sub);
	for (uint32_t pc = func->start; pc < func->end && !k->error; pc++) {
		const struct sbpf_insn *insn = &sub.prog->insns[pc];

		if (!kt_reached(&k->flow, pc))
			continue;
		k->pc = pc;
		k->at[pc - func->start] = k->image->n;
		if (sub.prog->insn_flags[pc] & SBPF_INSN_LEADER)
			know_nothing(k);
		translate(k, insn);
		written(k, kt_defs(insn));
	}
	for (uint32_t i = 0; i < k->n_fixes && !k->error; i++)
		kt_to(k, k->fixes[i].at, k->at[k->fixes[i].target - func->start]);
	kt_stubs(k);
	kt_flow_free(&k->flow);
	free(k->at);
	k->at = NULL;
}

/* ---- a program ---- */

static void link_calls(struct kt_image *im)
{
	for (uint32_t at = 0; at < im->n; at++) {
		struct sbpf_insn *insn = &im->insns[at];

		if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == BPF_CALL_LOCAL)
			insn->imm = (int32_t)(im->subs[insn->imm].at - at - 1);
		else if (sbpf_is_lddw(insn))
			at++;
	}
}

static void image_clear(struct kt_image *im)
{
	free(im->insns);
	free(im->pc);
	free(im->subs);
	free(im->pool);
	*im = (struct kt_image){0};
}

static int write_image(struct kt_image *im, const struct sbpf_program *prog, uint32_t entry,
		       bool wide, struct sbpf_error *err)
{
	uint64_t stack = prog->stack_bytes ? prog->stack_bytes : 1;
	struct kt k = {.image = im, .err = err, .wide = wide, .pc = KT_NO_PC};

	stack = (stack + SBPF_PAGE - 1) & ~(uint64_t)(SBPF_PAGE - 1);
	k.fp_value = (int32_t)(sbpf_window_offset(SBPF_WIN_STACK) + stack);
	/* The entry comes first, though what it calls was found before it. */
	im->subs = kt_grow(&k, NULL, 0, &im->subs_room, sizeof(*im->subs));
	if (!k.error) {
		im->subs[0] = (struct kt_sub){.prog = prog, .func = prog->entries[entry].func};
		im->n_subs = 1;
	}
	for (uint32_t i = 0; i < im->n_subs && !k.error; i++) {
		im->subs[i].at = im->n;
		if (im->subs[i].prog)
			translate_function(&k, i);
		else
			kt_routine(&k, (enum kt_routine)im->subs[i].func);
	}
	free(k.fixes);
	free(k.stubs);
	free(k.accesses);
	if (!k.error)
		link_calls(im);
	return k.error;
}

static int translate_entry(struct kt_image *im, const struct sbpf_program *prog, uint32_t entry,
			   struct sbpf_error *err)
{
	int r = write_image(im, prog, entry, false, err);

	if (r == -E2BIG) {
		image_clear(im);
		r = write_image(im, prog, entry, true, err);
	}
	if (r == -ENOMEM)
		sbpf_fail(err, prog, r, -1, "out of memory for the kernel's program");
	return r;
}

static int check_depth(const struct sbpf_program *prog, struct sbpf_error *err)
{
	/* A helper is one more, and what it calls another two. */
	uint32_t own = KT_MAX_DEPTH - (prog->helpers ? 3 : 1);

	if (prog->call_depth <= own)
		return 0;
	return sbpf_fail(err, prog, -EOPNOTSUPP, -1,
			 "calls go %u functions deep, and the kernel allows %u, helpers aside; "
			 "let some be inlined, or run it on the user engine",
			 prog->call_depth, own);
}

int sbpf_kernel_translate(const struct sbpf_program *prog, struct sbpf_translation **out,
			  struct sbpf_error *err)
{
	struct sbpf_translation *t = calloc(1, sizeof(*t) + prog->n_entries * sizeof(t->images[0]));
	int r;

	*out = NULL;
	if (!t)
		return sbpf_fail(err, prog, -ENOMEM, -1, "out of memory for the kernel's program");
	t->prog = prog;
	t->n_images = prog->n_entries;
	r = prog->helpers && !kt_library(err) ? -ENOMEM : check_depth(prog, err);
	for (uint32_t i = 0; i < prog->n_entries && !r; i++)
		r = translate_entry(&t->images[i], prog, i, err);
	if (r)
		sbpf_translation_free(t);
	else
		*out = t;
	return r;
}

void sbpf_translation_free(struct sbpf_translation *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; i < t->n_images; i++)
		image_clear(&t->images[i]);
	free(t);
}
