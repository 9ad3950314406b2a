/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_flow.c - what a function reaches and which registers are read later, for the kernel's translator.
 *
 * The kernel refuses code that no path reaches, so what is not reached is not translated; and where a register
 * is dead the translator may use it.
 */
#include <errno.h>
#include <stdlib.h>

#include "sbpf/kernel_translate.h"

static uint16_t reg(unsigned int r)
{
	return r < 10 ? KT_REG(r) : 0;
}

static bool is_alu(const struct sbpf_insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_ALU || BPF_CLASS(insn->code) == BPF_ALU64;
}

uint16_t kt_uses(const struct sbpf_insn *insn)
{
	uint8_t op = BPF_OP(insn->code);
	uint16_t src = BPF_SRC(insn->code) ? reg(insn->src) : 0;

	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		if (op == BPF_MOV)
			return src;
		return op == BPF_END || op == BPF_NEG ? reg(insn->dst) : src | reg(insn->dst);
	case BPF_JMP:
	case BPF_JMP32:
		if (op == BPF_EXIT)
			return KT_REG(0);
		if (op == BPF_JA)
			return 0;
		if (op == BPF_CALL) /* a local one's are its callee's to tell */
			return insn->src == BPF_CALL_HELPER
				       ? (uint16_t)(((1u << sbpf_helpers[insn->imm].args) - 1) << 1)
				       : 0;
		return src | reg(insn->dst);
	case BPF_LDX:
		return reg(insn->src);
	case BPF_ST:
		return reg(insn->dst);
	case BPF_STX:
		return reg(insn->dst) | reg(insn->src) |
		       (BPF_MODE(insn->code) == BPF_ATOMIC && insn->imm == BPF_CMPXCHG ? KT_REG(0)
										       : 0);
	}
	return 0;
}

uint16_t kt_defs(const struct sbpf_insn *insn)
{
	if (is_alu(insn) || BPF_CLASS(insn->code) == BPF_LDX || sbpf_is_lddw(insn))
		return reg(insn->dst);
	if (insn->code == (BPF_JMP | BPF_CALL))
		return KT_CALLER;
	if (BPF_CLASS(insn->code) == BPF_STX && BPF_MODE(insn->code) == BPF_ATOMIC) {
		if (insn->imm == BPF_CMPXCHG)
			return KT_REG(0);
		return insn->imm & BPF_FETCH ? reg(insn->src) : 0;
	}
	return 0;
}

static bool falls_through(const struct sbpf_insn *insn)
{
	return insn->code != (BPF_JMP | BPF_JA) && insn->code != (BPF_JMP32 | BPF_JA) &&
	       insn->code != (BPF_JMP | BPF_EXIT);
}

static uint32_t next_of(const struct kt_flow *f, uint32_t pc)
{
	return pc + 1 + sbpf_is_lddw(&f->prog->insns[pc]);
}

static uint16_t after(const struct kt_flow *f, const uint16_t *set, uint32_t pc)
{
	const struct sbpf_insn *insn = &f->prog->insns[pc];
	uint16_t regs = 0;

	if (falls_through(insn))
		regs = set[next_of(f, pc) - f->func->start];
	if (sbpf_is_jump(insn))
		regs |= set[(uint32_t)sbpf_jump_target(insn, pc) - f->func->start];
	return regs;
}

uint16_t kt_live_out(const struct kt_flow *f, uint32_t pc)
{
	return after(f, f->live, pc);
}

uint16_t kt_told_out(const struct kt_flow *f, uint32_t pc)
{
	return after(f, f->told, pc);
}

/* Marks what paths reach, with the instructions still to look at in @work. */
static void reach(struct kt_flow *f, uint32_t *work)
{
	uint32_t n = 0;

	f->marks[0] = KT_REACHED;
	work[n++] = f->func->start;
	while (n) {
		uint32_t pc = work[--n], to[2];
		const struct sbpf_insn *insn = &f->prog->insns[pc];
		unsigned int ways = 0;

		if (falls_through(insn))
			to[ways++] = next_of(f, pc);
		if (sbpf_is_jump(insn))
			to[ways++] = (uint32_t)sbpf_jump_target(insn, pc);
		while (ways--) {
			uint8_t *mark = &f->marks[to[ways] - f->func->start];

			if (*mark & KT_REACHED)
				continue;
			*mark |= KT_REACHED;
			work[n++] = to[ways];
		}
	}
}

static void note(struct kt_flow *f, uint32_t pc)
{
	const struct sbpf_insn *insn = &f->prog->insns[pc];
	static const uint8_t bytes[] = {4, 2, 1, 8};
	bool x = BPF_SRC(insn->code) && (is_alu(insn) || sbpf_is_jump(insn));
	uint8_t cls = BPF_CLASS(insn->code), base = cls == BPF_LDX ? insn->src : insn->dst;

	f->used |= kt_uses(insn) | kt_defs(insn);
	if (insn->code == (BPF_JMP | BPF_CALL))
		f->calls = true;
	if (sbpf_is_jump(insn)) {
		uint32_t at = (uint32_t)sbpf_jump_target(insn, pc) - f->func->start;

		f->loops |= sbpf_jump_target(insn, pc) <= pc;
		f->branches += BPF_OP(insn->code) != BPF_JA;
		if (!f->first[at])
			f->first[at] = pc + 1;
		f->last[at] = pc + 1;
	}
	if (insn->dst == 10 || (insn->src == 10 && (x || !is_alu(insn))))
		f->uses_fp = true;
	if ((insn->src == 10 && (x || cls == BPF_STX)) || (insn->dst == 10 && sbpf_is_jump(insn)))
		f->copies_fp = true;
	if (cls >= BPF_LDX && cls <= BPF_STX && base == 10 &&
	    (insn->off % bytes[BPF_SIZE(insn->code) >> 3] || BPF_MODE(insn->code) == BPF_ATOMIC))
		f->copies_fp = true; /* nor is it the kernel's stack that has these */
}

static bool pass(struct kt_flow *f, uint16_t (*args_of)(void *arg, uint32_t func), void *arg)
{
	bool changed = false;

	for (uint32_t pc = f->func->end; pc-- > f->func->start;) {
		const struct sbpf_insn *insn = &f->prog->insns[pc];
		uint16_t live;

		if (!kt_reached(f, pc))
			continue;
		live = (kt_live_out(f, pc) & ~kt_defs(insn)) | kt_uses(insn);
		if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == BPF_CALL_LOCAL)
			live |= args_of(arg, sbpf_func_at(f->prog,
							  (uint32_t)((int64_t)pc + 1 + insn->imm)));
		changed |= live != f->live[pc - f->func->start];
		f->live[pc - f->func->start] = live;
	}
	return changed;
}

/* What is loaded or returned is known to nobody. */
static uint16_t told_before(const struct sbpf_insn *insn, uint16_t told)
{
	uint16_t dst = reg(insn->dst), defs = kt_defs(insn);

	if (sbpf_is_jump(insn))
		return told | kt_uses(insn);
	/* A store compares its base: are the windows there read-only? */
	if (BPF_CLASS(insn->code) == BPF_ST || BPF_CLASS(insn->code) == BPF_STX)
		return (told & ~defs) | dst;
	if (is_alu(insn))
		return told & dst ? (uint16_t)((told & ~dst) | kt_uses(insn)) : told;
	return told & ~defs;
}

static bool pass_told(struct kt_flow *f)
{
	bool changed = false;

	for (uint32_t pc = f->func->end; pc-- > f->func->start;) {
		uint16_t *told = &f->told[pc - f->func->start], now;

		if (!kt_reached(f, pc))
			continue;
		now = told_before(&f->prog->insns[pc], kt_told_out(f, pc));
		changed |= now != *told;
		*told = now;
	}
	return changed;
}

int kt_flow(struct kt_flow *f, const struct sbpf_program *prog, uint32_t func,
	    uint16_t (*args_of)(void *arg, uint32_t func), void *arg)
{
	uint32_t n = prog->funcs[func].end - prog->funcs[func].start;
	uint32_t *work = calloc(n, sizeof(*work));

	*f = (struct kt_flow){.prog = prog, .func = &prog->funcs[func]};
	f->live = calloc(n + 1u, sizeof(*f->live));
	f->told = calloc(n + 1u, sizeof(*f->told));
	f->first = calloc(n + 1u, sizeof(*f->first));
	f->last = calloc(n + 1u, sizeof(*f->last));
	f->marks = calloc(n + 1u, sizeof(*f->marks));
	if (!work || !f->live || !f->told || !f->first || !f->last || !f->marks) {
		free(work);
		kt_flow_free(f);
		return -ENOMEM;
	}
	reach(f, work);
	free(work);
	for (uint32_t pc = f->func->start; pc < f->func->end; pc++)
		if (kt_reached(f, pc))
			note(f, pc);
	while (pass(f, args_of, arg))
		;
	while (pass_told(f))
		;
	return 0;
}

void kt_flow_free(struct kt_flow *f)
{
	free(f->live);
	free(f->told);
	free(f->first);
	free(f->last);
	free(f->marks);
	f->live = f->told = NULL;
	f->first = f->last = NULL;
	f->marks = NULL;
}
