/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify_flow.c - which registers are initialised, on every path, through calls.
 *
 * A state is the set of registers that all paths to an instruction have written; where paths meet it
 * is what they have in common.  A callee starts with those of r1 to r5 that all its callers have; its
 * r0 reaches them if each of its exits has it.  Sets only shrink, so following changes ends.
 */
#include "sbpf/verify.h"

/* Registers that an instruction reads; a local call's arguments are what its callee reads. */
static uint16_t reads(const struct sbpf_insn *insn)
{
	const struct rule *rule = &sbpf_rules[insn->code];
	uint16_t mask = 0;

	if (rule->kind == CALL && insn->src == BPF_CALL_HELPER)
		return ((1u << sbpf_helpers[insn->imm].args) - 1) << 1;
	if (rule->fields & DST_READ)
		mask |= REG(insn->dst);
	if (rule->fields & SRC_READ)
		mask |= REG(insn->src);
	if (rule->kind == ATOMIC && insn->imm == BPF_CMPXCHG)
		mask |= REG(0);
	return mask;
}

static bool ends_flow(const struct sbpf_insn *insn)
{
	return sbpf_rules[insn->code].kind == EXIT ||
	       (sbpf_rules[insn->code].kind == JUMP && BPF_OP(insn->code) == BPF_JA);
}

/* A path with the registers of @mask arrives at @pc; true if that is news. */
static bool arrive(struct verifier *v, uint32_t pc, uint16_t mask)
{
	uint16_t old = v->state[pc], met = old;

	if (old & REACHED)
		met &= mask | ~REGS;
	else
		met |= mask | REACHED;
	v->state[pc] = met;
	return met != old;
}

static void queue(struct verifier *v, uint32_t pc)
{
	if (v->state[pc] & QUEUED)
		return;
	v->state[pc] |= QUEUED;
	v->work[v->n_work++] = pc;
}

static void arrive_later(struct verifier *v, uint32_t pc, uint16_t mask)
{
	if (arrive(v, pc, mask))
		queue(v, pc);
}

/* An exit without r0: whoever calls this function has none after the call. */
static void lose_result(struct verifier *v, uint32_t func)
{
	if (v->no_result[func])
		return;
	v->no_result[func] = true;
	for (uint32_t i = v->first_caller[func]; i < v->first_caller[func + 1]; i++)
		if (v->state[v->callers[i]] & REACHED)
			queue(v, v->callers[i]);
}

/* What is initialised after the instruction at @pc; passes on what leaves by jump, call or exit. */
static uint16_t step(struct verifier *v, uint32_t pc, uint16_t mask)
{
	const struct sbpf_insn *insn = &v->prog->insns[pc];

	switch ((enum insn_kind)sbpf_rules[insn->code].kind) {
	case JUMP:
		arrive_later(v, (uint32_t)sbpf_jump_target(insn, pc), mask);
		return mask;
	case EXIT:
		if (!(mask & REG(0)))
			lose_result(v, v->owner[pc]);
		return mask;
	case CALL:
		if (insn->src == BPF_CALL_HELPER)
			return (mask & ~CLOBBERED) | REG(0);
		arrive_later(v, v->prog->funcs[callee(v, pc)].start, (mask & ARGS) | REG(FP));
		return (mask & ~CLOBBERED) | (v->no_result[callee(v, pc)] ? 0 : REG(0));
	case UNKNOWN:
	case PLAIN:
	case MOVE:
	case DIVIDE:
	case SWAP:
	case LDDW:
	case LOAD:
	case STORE:
	case ATOMIC:
		break;
	}
	return mask | sbpf_insn_writes(insn);
}

static uint32_t next_insn(const struct verifier *v, uint32_t pc)
{
	return pc + (sbpf_is_lddw(&v->prog->insns[pc]) ? 2 : 1);
}

/* Follow every path until no state changes: registers only ever get lost, so this ends. */
static void flow(struct verifier *v)
{
	const struct sbpf_program *prog = v->prog;

	for (uint32_t i = 0; i < prog->n_entries; i++)
		arrive_later(v, prog->funcs[prog->entries[i].func].start, ENTRY);
	while (v->n_work) {
		uint32_t pc = v->work[--v->n_work];

		v->state[pc] &= ~QUEUED;
		for (;;) {
			uint16_t mask = step(v, pc, v->state[pc] & REGS);
			uint32_t end = prog->funcs[v->owner[pc]].end;

			if (ends_flow(&prog->insns[pc]))
				break;
			pc = next_insn(v, pc);
			if (pc >= end || !arrive(v, pc, mask))
				break;
		}
	}
}

static int refuse_register(const struct verifier *v, uint32_t pc, uint16_t missing)
{
	const struct sbpf_insn *insn = &v->prog->insns[pc];
	unsigned r = (unsigned)__builtin_ctz(missing);

	if (sbpf_rules[insn->code].kind == CALL)
		return REFUSE(v, pc,
			      "%s takes %u arguments, but r%u is not initialised here; "
			      "declare it as its header does and pass them all",
			      sbpf_helpers[insn->imm].name, sbpf_helpers[insn->imm].args, r);
	if (r == 0)
		return REFUSE(v, pc,
			      "r0 is read before it is written; set it on every path "
			      "(a call of a function that returns nothing leaves none)");
	if (r <= 5)
		return REFUSE(v, pc,
			      "r%u is read before it is written; an entry starts with r1 and r2 "
			      "only, a called function with what every caller passes, and a call "
			      "destroys r1 to r5: pass it as an argument or initialise it",
			      r);
	return REFUSE(v, pc,
		      "r%u is read before it is written; a called function does not see its "
		      "caller's r6 to r9: initialise it on every path",
		      r);
}

/* What flow() found, in the order of the program, so that the first fault is the one reported. */
static int check_flow(struct verifier *v)
{
	struct sbpf_program *prog = v->prog;

	for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];
		const struct sbpf_func *func = &prog->funcs[v->owner[pc]];
		uint16_t missing = reads(insn) & ~v->state[pc];

		if (!(v->state[pc] & REACHED))
			continue;
		if (missing)
			return refuse_register(v, pc, missing);
		if (!ends_flow(insn) && next_insn(v, pc) >= func->end)
			return REFUSE(v, pc,
				      "the end of %s can be reached without an exit; "
				      "return on every path",
				      func->name);
		if (sbpf_rules[insn->code].kind == CALL && insn->src == BPF_CALL_HELPER)
			prog->helpers |= 1ull << insn->imm;
	}
	return 0;
}

/* An entry's result is the caller's to read, so each of its exits must have one. */
static int check_results(struct verifier *v)
{
	const struct sbpf_program *prog = v->prog;

	for (uint32_t i = 0; i < prog->n_entries; i++) {
		const struct sbpf_func *func = &prog->funcs[prog->entries[i].func];

		if (!v->no_result[prog->entries[i].func])
			continue;
		for (uint32_t pc = func->start; pc < func->end; pc++)
			if (sbpf_rules[prog->insns[pc].code].kind == EXIT &&
			    v->state[pc] & REACHED && !(v->state[pc] & REG(0)))
				return REFUSE(v, pc,
					      "%s returns without a result; set r0 (return a "
					      "value) on every path",
					      func->name);
	}
	return 0;
}

int sbpf_verify_flow(struct verifier *v)
{
	int ret;

	flow(v);
	ret = check_flow(v);
	return ret ? ret : check_results(v);
}
