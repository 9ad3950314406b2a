/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify_stack.c - how much stack a function and a chain of calls need, and that chains end.
 *
 * A function's frame is the deepest constant offset from r10 that it forms or accesses.  Where r10 goes in
 * ways not understood the sandbox still holds the program; only its own frames could then overlap.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/verify.h"

/* ---- stack frames ---- */

/* Registers known to hold r10 plus a constant, along straight-line code. */
struct frame {
	uint16_t known;
	int64_t value[N_REGS];
	int64_t deepest;
};

static int check_access(const struct verifier *v, uint32_t pc, struct frame *f)
{
	static const uint8_t sizes[] = {
		[BPF_W >> 3] = 4, [BPF_H >> 3] = 2, [BPF_B >> 3] = 1, [BPF_DW >> 3] = 8};
	const struct sbpf_insn *insn = &v->prog->insns[pc];
	uint8_t kind = sbpf_rules[insn->code].kind;
	unsigned base = kind == LOAD ? insn->src : insn->dst;
	int64_t at = f->value[base] + insn->off;

	if ((kind != LOAD && kind != STORE && kind != ATOMIC) || !(f->known & REG(base)))
		return 0;
	if (at < -(int64_t)SBPF_MAX_FRAME || at + sizes[BPF_SIZE(insn->code) >> 3] > 0)
		return REFUSE(v, pc,
			      "a stack access at r10%+lld, outside the frame's r10-%u to r10-1; "
			      "check the index, or keep large data in a global",
			      (long long)at, SBPF_MAX_FRAME);
	if (at < f->deepest)
		f->deepest = at;
	return 0;
}

static int track(const struct verifier *v, uint32_t pc, struct frame *f)
{
	const struct sbpf_insn *insn = &v->prog->insns[pc];
	uint16_t dst = REG(insn->dst);

	if (sbpf_rules[insn->code].kind == CALL) {
		f->known &= ~CLOBBERED;
	} else if (insn->code == (BPF_ALU64 | BPF_MOV | BPF_X) && insn->off == 0 &&
		   f->known & REG(insn->src)) {
		f->known |= dst;
		f->value[insn->dst] = f->value[insn->src];
	} else if ((insn->code & ~BPF_OP(0xff)) == (BPF_ALU64 | BPF_K) && f->known & dst &&
		   (BPF_OP(insn->code) == BPF_ADD || BPF_OP(insn->code) == BPF_SUB)) {
		f->value[insn->dst] +=
			BPF_OP(insn->code) == BPF_ADD ? insn->imm : -(int64_t)insn->imm;
		if (f->value[insn->dst] < -(int64_t)SBPF_MAX_FRAME)
			return REFUSE(v, pc,
				      "a stack frame of %lld bytes; the limit is %u a function: "
				      "keep large data in a global",
				      -(long long)f->value[insn->dst], SBPF_MAX_FRAME);
		if (f->value[insn->dst] < f->deepest)
			f->deepest = f->value[insn->dst];
	} else {
		f->known &= ~sbpf_insn_writes(insn);
	}
	return 0;
}

static int measure_frame(const struct verifier *v, struct sbpf_func *func)
{
	struct frame f = {.known = REG(FP)};
	int ret;

	for (uint32_t pc = func->start; pc < func->end; pc++) {
		if (v->prog->insn_flags[pc] & SBPF_INSN_LEADER)
			f.known = REG(FP);
		if (!(v->state[pc] & REACHED))
			continue;
		ret = check_access(v, pc, &f);
		if (!ret)
			ret = track(v, pc, &f);
		if (ret)
			return ret;
	}
	func->frame = (uint32_t)(-f.deepest + 15) & ~15u;
	return 0;
}

/* ---- the call graph ---- */

enum colour {
	NEW,
	OPEN, /* on the path from the entry */
	DONE
};

struct graph {
	uint8_t *colour;
	uint32_t *path;   /* functions from the entry to the one being looked at */
	uint32_t *cursor; /* of a function on the path: the next instruction to look at */
	uint32_t n_path;
	uint32_t *depth; /* functions on the longest chain from here, this one included */
	uint32_t *bytes; /* stack of the deepest chain from here */
	uint32_t *next;  /* callee on the longest chain */
};

/* "a -> b -> c", cut short where it gets long. */
static void append_name(char *buf, size_t size, const char *name)
{
	size_t at = strlen(buf);

	if (at + strlen(name) + sizeof(" -> ... -> ") < size)
		snprintf(buf + at, size - at, "%s%s", at ? " -> " : "", name);
	else if (at < 4 || strcmp(buf + at - 3, "...") != 0)
		snprintf(buf + at, size - at, "%s...", at ? " -> " : "");
}

static int refuse_recursion(const struct verifier *v, const struct graph *g, uint32_t pc)
{
	uint32_t target = callee(v, pc), i = g->n_path;
	char cycle[256] = "";

	while (g->path[i - 1] != target)
		i--;
	for (i--; i < g->n_path; i++)
		append_name(cycle, sizeof(cycle), v->prog->funcs[g->path[i]].name);
	append_name(cycle, sizeof(cycle), v->prog->funcs[target].name);
	return REFUSE(v, pc, "recursion, which the stack has no room for: %s; use a loop", cycle);
}

static int refuse_depth(const struct verifier *v, const struct graph *g, uint32_t func)
{
	char chain[256] = "";
	uint32_t depth = g->depth[func];

	for (uint32_t f = func, i = 0; i < depth; f = g->next[f], i++)
		append_name(chain, sizeof(chain), v->prog->funcs[f].name);
	return REFUSE(v, v->prog->funcs[func].start,
		      "calls nest %u deep: %s; the limit is %u: inline some of them", depth, chain,
		      SBPF_MAX_DEPTH);
}

static void open_func(const struct verifier *v, struct graph *g, uint32_t func)
{
	g->colour[func] = OPEN;
	g->path[g->n_path++] = func;
	g->cursor[func] = v->prog->funcs[func].start;
	g->depth[func] = 1;
	v->prog->funcs[func].reachable = true;
}

static void close_func(const struct verifier *v, struct graph *g, uint32_t func)
{
	g->colour[func] = DONE;
	g->n_path--;
	g->bytes[func] += v->prog->funcs[func].frame;
}

/* A finished callee's depth and stack count towards its caller's. */
static void account(struct graph *g, uint32_t func, uint32_t target)
{
	if (g->depth[target] + 1 > g->depth[func]) {
		g->depth[func] = g->depth[target] + 1;
		g->next[func] = target;
	}
	if (g->bytes[target] > g->bytes[func])
		g->bytes[func] = g->bytes[target];
}

/*
 * Depth first from one entry.  A call is accounted for when its callee is DONE, so the cursor stays on it
 * until then.  Calls in code that no path reaches count too: engines compile them.
 */
static int walk_calls(const struct verifier *v, struct graph *g, uint32_t entry)
{
	const struct sbpf_program *prog = v->prog;

	if (g->colour[entry] == NEW)
		open_func(v, g, entry);
	while (g->n_path) {
		uint32_t func = g->path[g->n_path - 1], pc = g->cursor[func];
		uint32_t end = prog->funcs[func].end;

		while (pc < end && !is_local_call(&prog->insns[pc]))
			pc++;
		g->cursor[func] = pc;
		if (pc == end) {
			close_func(v, g, func);
			continue;
		}
		switch ((enum colour)g->colour[callee(v, pc)]) {
		case NEW:
			open_func(v, g, callee(v, pc));
			break;
		case OPEN:
			return refuse_recursion(v, g, pc);
		case DONE:
			account(g, func, callee(v, pc));
			g->cursor[func]++;
			break;
		}
	}
	return 0;
}

static int measure_calls(const struct verifier *v, struct graph *g)
{
	struct sbpf_program *prog = v->prog;

	for (uint32_t i = 0; i < prog->n_entries; i++) {
		uint32_t func = prog->entries[i].func;
		int ret = walk_calls(v, g, func);

		if (ret)
			return ret;
		if (g->depth[func] > SBPF_MAX_DEPTH)
			return refuse_depth(v, g, func);
		if (g->depth[func] > prog->call_depth)
			prog->call_depth = g->depth[func];
		if (g->bytes[func] > prog->stack_bytes)
			prog->stack_bytes = g->bytes[func];
	}
	return 0;
}

static int check_calls(const struct verifier *v)
{
	uint32_t n = v->prog->n_funcs;
	uint32_t *words = calloc(5 * (size_t)n, sizeof(*words));
	uint8_t *colour = calloc(n, 1);
	int ret;

	if (words && colour) {
		struct graph g = {
			.colour = colour,
			.path = words,
			.cursor = words + n,
			.depth = words + 2 * (size_t)n,
			.bytes = words + 3 * (size_t)n,
			.next = words + 4 * (size_t)n,
		};
		ret = measure_calls(v, &g);
	} else {
		ret = sbpf_fail(v->err, NULL, -ENOMEM, -1,
				"no memory to check the program's calls");
	}
	free(colour);
	free(words);
	return ret;
}

int sbpf_verify_stack(struct verifier *v)
{
	for (uint32_t f = 0; f < v->prog->n_funcs; f++) {
		int ret = measure_frame(v, &v->prog->funcs[f]);

		if (ret)
			return ret;
	}
	return check_calls(v);
}
