/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify_flow.c - which registers were written before they are read, on the paths through calls.
 *
 * A read of what no path wrote is refused.  A read of what only some paths wrote is what compilers make of
 * "set if c, used if c": it is accepted, and the program is marked zero_unset, so that on the other
 * paths the register is 0 on every tier and holds nothing of the host's.  Where paths meet, "on
 * every path" is what they have in common and "on some path" what any has: the one only shrinks, the
 * other only grows, so following changes ends.  A callee starts with what its callers have of r1 to
 * r5; its r0 reaches them as its exits have it.
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

/* A path whose registers are @mask arrives at @pc; true if that is news. */
static bool arrive(struct verifier *v, uint32_t pc, uint32_t mask)
{
	uint32_t old = v->state[pc], met = old | (mask & SOME(EVERY));

	if (old & REACHED)
		met &= mask | ~EVERY;
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

static void arrive_later(struct verifier *v, uint32_t pc, uint32_t mask)
{
	if (arrive(v, pc, mask))
		queue(v, pc);
}

/* An exit was reached: if it says something new of the result, that changes what callers have. */
static void leave(struct verifier *v, uint32_t func, uint32_t mask)
{
	uint8_t news = (mask & REG(0) ? 0 : NO_RESULT) | (mask & SOME(REG(0)) ? SOME_RESULT : 0);

	if ((v->result[func] | news) == v->result[func])
		return;
	v->result[func] |= news;
	for (uint32_t i = v->first_caller[func]; i < v->first_caller[func + 1]; i++)
		if (v->state[v->callers[i]] & REACHED)
			queue(v, v->callers[i]);
}

static uint32_t after_local_call(const struct verifier *v, uint32_t func, uint32_t mask)
{
	mask &= ~BOTH(CLOBBERED);
	if (!(v->result[func] & NO_RESULT))
		mask |= REG(0);
	if (v->result[func] & SOME_RESULT)
		mask |= SOME(REG(0));
	return mask;
}

/* What is written after the instruction at @pc; passes on what leaves by jump, call or exit. */
static uint32_t step(struct verifier *v, uint32_t pc, uint32_t mask)
{
	const struct sbpf_insn *insn = &v->prog->insns[pc];

	switch ((enum insn_kind)sbpf_rules[insn->code].kind) {
	case JUMP:
		arrive_later(v, (uint32_t)sbpf_jump_target(insn, pc), mask);
		return mask;
	case EXIT:
		leave(v, v->owner[pc], mask);
		return mask;
	case CALL:
		if (insn->src == BPF_CALL_HELPER)
			return (mask & ~BOTH(CLOBBERED)) | BOTH(REG(0));
		arrive_later(v, v->prog->funcs[callee(v, pc)].start,
			     (mask & BOTH(ARGS)) | BOTH(REG(FP)));
		return after_local_call(v, callee(v, pc), mask);
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
	return mask | BOTH(sbpf_insn_writes(insn));
}

static uint32_t next_insn(const struct verifier *v, uint32_t pc)
{
	return pc + (sbpf_is_lddw(&v->prog->insns[pc]) ? 2 : 1);
}

/* Follow every path until no state changes. */
static void flow(struct verifier *v)
{
	const struct sbpf_program *prog = v->prog;

	for (uint32_t i = 0; i < prog->n_entries; i++) {
		v->result[prog->entries[i].func] |= IS_ENTRY;
		arrive_later(v, prog->funcs[prog->entries[i].func].start, BOTH(ENTRY));
	}
	while (v->n_work) {
		uint32_t pc = v->work[--v->n_work];

		v->state[pc] &= ~QUEUED;
		for (;;) {
			uint32_t mask = step(v, pc, v->state[pc] & BOTH(EVERY));
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

	if (sbpf_rules[insn->code].kind == EXIT)
		return REFUSE(v, pc, "%s returns without a result; set r0 (return a value) first",
			      v->prog->funcs[v->owner[pc]].name);
	if (sbpf_rules[insn->code].kind == CALL)
		return REFUSE(v, pc,
			      "%s takes %u arguments, but r%u is not initialised here; "
			      "declare it as its header does and pass them all",
			      sbpf_helpers[insn->imm].name, sbpf_helpers[insn->imm].args, r);
	if (r == 0)
		return REFUSE(v, pc,
			      "r0 is read before it is written; set it first "
			      "(a call of a function that returns nothing leaves none)");
	if (r <= 5)
		return REFUSE(v, pc,
			      "r%u is read before it is written; an entry starts with r1 and r2 "
			      "only, a called function with what its callers pass, and a call "
			      "destroys r1 to r5: pass it as an argument or initialise it",
			      r);
	return REFUSE(v, pc,
		      "r%u is read before it is written; a called function does not see its "
		      "caller's r6 to r9: initialise it",
		      r);
}

/* The same, and what the caller of an entry reads at its exits. */
static uint16_t reads_at(const struct verifier *v, uint32_t pc)
{
	const struct sbpf_insn *insn = &v->prog->insns[pc];

	if (sbpf_rules[insn->code].kind == EXIT && v->result[v->owner[pc]] & IS_ENTRY)
		return REG(0);
	return reads(insn);
}

static int check_reads(struct verifier *v, uint32_t pc)
{
	uint16_t unsure = reads_at(v, pc) & ~v->state[pc];
	uint16_t missing = unsure & ~SOMES(v->state[pc]);

	if (missing)
		return refuse_register(v, pc, missing);
	if (unsure)
		v->prog->zero_unset = true;
	return 0;
}

/* What flow() found, in the order of the program, so that the first fault is the one reported. */
static int check_flow(struct verifier *v)
{
	struct sbpf_program *prog = v->prog;

	for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];
		const struct sbpf_func *func = &prog->funcs[v->owner[pc]];
		int ret;

		if (!(v->state[pc] & REACHED))
			continue;
		ret = check_reads(v, pc);
		if (ret)
			return ret;
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

int sbpf_verify_flow(struct verifier *v)
{
	flow(v);
	return check_flow(v);
}
