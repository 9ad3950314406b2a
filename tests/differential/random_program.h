/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random_program.h - programs drawn from a stream of bytes, and the comparison of two tiers on
 * them.
 *
 * The stream is a seed's (sbpf_random.c) or a fuzzer's (fuzz_diff.c); the same stream makes the
 * same program. Programs pass the verifier: r0 to r9 are initialised throughout, functions call
 * later ones only. They end: loops count, and what loops wildly runs out of fuel.  Accesses go to
 * windows, to their edges, to read-only pages and sometimes anywhere, so a good part of the runs
 * ends in a fault.
 */
#ifndef RANDOM_PROGRAM_H
#define RANDOM_PROGRAM_H

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/internal.h"

#define RP_MAX_INSNS 4096u
#define RP_MAX_FUNCS 4u
#define RP_MAX_ITEMS 40u
#define RP_FUEL      20000u

/* ---- the stream ---- */

struct rp_stream {
	const uint8_t *data; /* NULL: a generator seeded with state */
	size_t len;
	uint64_t state;
};

static inline uint32_t rp_draw(struct rp_stream *s)
{
	uint64_t z;

	if (s->data) {
		uint32_t v = 0;
		size_t n = s->len < 2 ? s->len : 2;

		memcpy(&v, s->data, n);
		s->data += n;
		s->len -= n;
		return v;
	}
	z = (s->state += 0x9e3779b97f4a7c15u); /* splitmix64 */
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)(z >> 32);
}

static inline uint32_t rp_below(struct rp_stream *s, uint32_t n)
{
	return rp_draw(s) % n;
}

static inline uint32_t rp_word(struct rp_stream *s)
{
	return rp_draw(s) << 16 ^ rp_draw(s);
}

static inline int32_t rp_imm(struct rp_stream *s)
{
	static const int32_t edges[] = {
		0,  1,   -1,  2,    3,      7,      8,         16,        31,         32,     63,
		64, 127, 128, -128, -129,   255,    256,       4095,      4096,       0xffff, 65536,
		-2, -3,  10,  100,  0x7fff, -32768, INT32_MAX, INT32_MIN, 0x55555555,
	};

	return rp_below(s, 4) ? edges[rp_below(s, sizeof(edges) / sizeof(edges[0]))]
			      : (int32_t)rp_word(s);
}

/* ---- the program being made ---- */

struct rp_gen {
	struct rp_stream *s;
	struct sbpf_insn insns[RP_MAX_INSNS];
	uint32_t n;

	/* the function being made */
	uint32_t func, n_funcs, calls;
	uint32_t item_at[RP_MAX_ITEMS + 1], item, n_items;
	struct {
		uint32_t pc, item;
	} jumps[2 * RP_MAX_ITEMS]; /* forward, to be aimed when the item is reached */
	uint32_t n_jumps;
	struct {
		uint32_t pc, func;
	} call_sites[RP_MAX_FUNCS * RP_MAX_ITEMS];
};

static inline struct sbpf_insn *rp_emit(struct rp_gen *g, unsigned int code, unsigned int dst,
					unsigned int src, int off, int32_t imm)
{
	struct sbpf_insn *insn = &g->insns[g->n++];

	*insn = (struct sbpf_insn){.code = (uint8_t)code,
				   .dst = (uint8_t)(dst & 15),
				   .src = (uint8_t)(src & 15),
				   .off = (int16_t)off,
				   .imm = imm};
	return insn;
}

static inline unsigned int rp_reg(struct rp_gen *g)
{
	return rp_below(g->s, 10);
}

static inline void rp_lddw(struct rp_gen *g, unsigned int dst, uint64_t v)
{
	rp_emit(g, BPF_LDDW_CODE, dst, 0, 0, (int32_t)v);
	rp_emit(g, 0, 0, 0, 0, (int32_t)(v >> 32));
}

static inline void rp_value(struct rp_gen *g, unsigned int dst)
{
	switch (rp_below(g->s, 4)) {
	case 0:
		rp_lddw(g, dst, (uint64_t)rp_word(g->s) << 32 | rp_word(g->s));
		break;
	case 1:
		rp_lddw(g, dst, (uint64_t)rp_imm(g->s) << rp_below(g->s, 40));
		break;
	default:
		rp_emit(g, (rp_below(g->s, 2) ? BPF_ALU : BPF_ALU64) | BPF_MOV | BPF_K, dst, 0, 0,
			rp_imm(g->s));
		break;
	}
}

static inline void rp_alu_on(struct rp_gen *g, unsigned int dst)
{
	static const uint8_t ops[] = {
		BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV,  BPF_OR,  BPF_AND, BPF_LSH, BPF_RSH,
		BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH, BPF_ADD, BPF_AND, BPF_NEG, BPF_END,
	};
	unsigned int op = ops[rp_below(g->s, sizeof(ops))];
	unsigned int cls = rp_below(g->s, 2) ? BPF_ALU : BPF_ALU64;
	unsigned int src = rp_below(g->s, 2) ? BPF_K : BPF_X;
	int off = (op == BPF_DIV || op == BPF_MOD) && rp_below(g->s, 2);
	int32_t imm = rp_imm(g->s);

	if (op == BPF_NEG)
		rp_emit(g, cls | op, dst, 0, 0, 0);
	else if (op == BPF_END)
		rp_emit(g, cls | op | (cls == BPF_ALU ? src : 0), dst, 0, 0,
			16 << rp_below(g->s, 3));
	else if (src == BPF_K)
		rp_emit(g, cls | op | BPF_K, dst, 0, off, imm);
	else
		rp_emit(g, cls | op | BPF_X, dst, op == BPF_ADD ? rp_below(g->s, 11) : rp_reg(g),
			off, 0);
}

/* Pairs that a compiler emits and a JIT may fuse. */
static inline void rp_idiom(struct rp_gen *g)
{
	unsigned int dst = rp_reg(g), cls = rp_below(g->s, 2) ? BPF_ALU : BPF_ALU64;
	int32_t shift = 64 - (8 << rp_below(g->s, 3));

	if (rp_below(g->s, 2))
		rp_emit(g, cls | BPF_MOV | BPF_X, dst, rp_reg(g),
			rp_below(g->s, 4) ? 0 : 8 << rp_below(g->s, cls == BPF_ALU ? 2 : 3), 0);
	if (rp_below(g->s, 2)) {
		rp_emit(g, BPF_ALU64 | BPF_LSH | BPF_K, dst, 0, 0, shift);
		rp_emit(g, BPF_ALU64 | (rp_below(g->s, 2) ? BPF_RSH : BPF_ARSH) | BPF_K, dst, 0, 0,
			rp_below(g->s, 8) ? shift : 17);
	} else {
		rp_alu_on(g, dst);
	}
}

/* ---- memory ---- */

static const enum sbpf_window rp_windows[] = {
	SBPF_WIN_IN, SBPF_WIN_IN,  SBPF_WIN_OUT, SBPF_WIN_STATE,
	SBPF_WIN_IN, SBPF_WIN_OUT, SBPF_WIN_ARG, SBPF_WIN_STATE,
};

/* dst = an address: mostly within a window, at times across its end or nowhere */
static inline void rp_address(struct rp_gen *g, unsigned int dst)
{
	uint64_t win = sbpf_window_offset(rp_windows[rp_below(g->s, 8)]);

	switch (rp_below(g->s, 24)) {
	case 0:
		rp_lddw(g, dst, win + 4090 + rp_below(g->s, 16));
		break;
	case 1: /* the upper half must not matter, nor a carry out of the lower one */
		rp_lddw(g, dst, (uint64_t)rp_word(g->s) << 32 | (win + rp_below(g->s, 4000)));
		break;
	case 2:
		rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_X, dst, rp_reg(g), 0, 0);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		rp_emit(g, BPF_ALU64 | BPF_AND | BPF_K, dst, 0, 0, 0xff8 | (int)rp_below(g->s, 8));
		rp_emit(g, BPF_ALU | BPF_ADD | BPF_K, dst, 0, 0, (int32_t)win);
		break;
	default:
		rp_emit(g, BPF_ALU | BPF_MOV | BPF_K, dst, 0, 0,
			(int32_t)(win + 64 + rp_below(g->s, 3900)));
		break;
	}
}

static const uint8_t rp_sizes[] = {BPF_B, BPF_H, BPF_W, BPF_DW};

static inline void rp_atomic(struct rp_gen *g, unsigned int base, int off)
{
	static const int32_t ops[] = {
		BPF_ADD,
		BPF_OR,
		BPF_AND,
		BPF_XOR,
		BPF_ADD | BPF_FETCH,
		BPF_OR | BPF_FETCH,
		BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH,
		BPF_XCHG,
		BPF_CMPXCHG,
	};
	unsigned int size = rp_below(g->s, 2) ? BPF_W : BPF_DW;

	if (rp_below(g->s, 3) == 0) /* so that a compare-exchange may succeed */
		rp_emit(g, BPF_LDX | BPF_MEM | size, 0, base ? base : 1, off, 0);
	rp_emit(g, BPF_STX | BPF_ATOMIC | size, base, rp_reg(g), off,
		ops[rp_below(g->s, sizeof(ops) / sizeof(ops[0]))]);
}

static inline void rp_access(struct rp_gen *g, unsigned int base, int off)
{
	unsigned int k = rp_below(g->s, 4), size = rp_sizes[k];

	switch (rp_below(g->s, 8)) {
	case 0:
	case 1:
	case 2:
		rp_emit(g, BPF_LDX | BPF_MEM | size, rp_reg(g), base, off, 0);
		break;
	case 3:
		rp_emit(g, BPF_LDX | BPF_MEMSX | rp_sizes[k % 3], rp_reg(g), base, off, 0);
		break;
	case 4:
		rp_emit(g, BPF_ST | BPF_MEM | size, base, 0, off, rp_imm(g->s));
		break;
	case 5:
		rp_atomic(g, base, off);
		break;
	default:
		rp_emit(g, BPF_STX | BPF_MEM | size, base, rp_reg(g), off, 0);
		break;
	}
}

static inline void rp_memory(struct rp_gen *g)
{
	unsigned int base = rp_reg(g);

	if (rp_below(g->s, 4) == 0) {
		rp_access(g, 10, -8 - (int)rp_below(g->s, 300));
	} else if (rp_below(g->s, 6) == 0) { /* a copy of the frame pointer */
		rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_X, base, 10, 0, 0);
		rp_emit(g, BPF_ALU64 | BPF_ADD | BPF_K, base, 0, 0, -40 - (int)rp_below(g->s, 500));
		rp_access(g, base, (int)rp_below(g->s, 32));
		rp_value(g, base);
	} else {
		rp_address(g, base);
		for (uint32_t n = 1 + rp_below(g->s, 3); n--;)
			rp_access(g, base, (int)rp_below(g->s, 128) - 64);
	}
}

/* ---- control ---- */

static inline void rp_cond(struct rp_gen *g, int off)
{
	static const uint8_t ops[] = {BPF_JEQ,  BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT,
				      BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE};
	unsigned int code = ops[rp_below(g->s, sizeof(ops))];

	code |= rp_below(g->s, 2) ? BPF_JMP : BPF_JMP32;
	if (rp_below(g->s, 2))
		rp_emit(g, code | BPF_K, rp_reg(g), 0, off, rp_imm(g->s));
	else
		rp_emit(g, code | BPF_X, rp_reg(g), rp_below(g->s, 11), off, 0);
}

static inline void rp_aim(struct rp_gen *g)
{
	g->jumps[g->n_jumps].pc = g->n - 1;
	g->jumps[g->n_jumps++].item = g->item + 1 + rp_below(g->s, 4);
}

static inline void rp_forward(struct rp_gen *g)
{
	switch (rp_below(g->s, 8)) {
	case 0:
		rp_emit(g, BPF_JMP | BPF_JA, 0, 0, 0, 0);
		break;
	case 1:
		rp_emit(g, BPF_JMP32 | BPF_JA, 0, 0, 0, 0);
		break;
	default:
		rp_cond(g, 0);
		break;
	}
	rp_aim(g);
}

static inline void rp_over_one(struct rp_gen *g)
{
	rp_cond(g, 1);
	if (rp_below(g->s, 3) == 0)
		rp_emit(g, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	else
		rp_emit(g, (rp_below(g->s, 2) ? BPF_ALU : BPF_ALU64) | BPF_MOV | BPF_X, rp_reg(g),
			rp_reg(g), 0, 0);
	if (rp_below(g->s, 3) == 0 && BPF_OP(g->insns[g->n - 1].code) == BPF_MOV) {
		struct sbpf_insn *mov = &g->insns[g->n - 1];

		mov->code &= (uint8_t)~BPF_X;
		mov->src = 0;
		mov->imm = rp_imm(g->s);
	}
}

/* Back to an item before this one, on a condition or some times. */
static inline void rp_back(struct rp_gen *g)
{
	uint32_t item = g->item ? g->item - 1 - rp_below(g->s, g->item < 5 ? g->item : 5) : 0;
	uint32_t target = g->item_at[item];
	unsigned int r = rp_reg(g);
	int slot = -400 - 8 * (int)(g->item % 8);

	if (rp_below(g->s, 4) == 0) {
		rp_cond(g, (int)target - (int)g->n - 1);
		return;
	}
	/*
	 * The frame starts zero, so a slot that nothing else is likely to write counts up from
	 * there.
	 */
	rp_emit(g, BPF_LDX | BPF_MEM | BPF_DW, r, 10, slot, 0);
	rp_emit(g, BPF_ALU64 | BPF_ADD | BPF_K, r, 0, 0, 1);
	rp_emit(g, BPF_STX | BPF_MEM | BPF_DW, 10, r, slot, 0);
	rp_emit(g, BPF_JMP | BPF_JLT | BPF_K, r, 0, (int)target - (int)g->n - 1,
		(int32_t)rp_below(g->s, 6));
}

/* A call leaves r1 to r5 to be written again. */
static inline void rp_restore(struct rp_gen *g)
{
	for (unsigned int r = 1; r <= 5; r++)
		rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_X, r, 6 + rp_below(g->s, 4), 0, 0);
}

static inline void rp_call(struct rp_gen *g)
{
	if (g->func + 1 >= g->n_funcs)
		return;
	g->call_sites[g->calls].pc = g->n;
	g->call_sites[g->calls++].func = g->func + 1 + rp_below(g->s, g->n_funcs - g->func - 1);
	rp_emit(g, BPF_JMP | BPF_CALL, 0, BPF_CALL_LOCAL, 0, 0);
	rp_restore(g);
}

/* Every helper takes its lengths in r2, r3 or r4: ids as in tests/insns.h. */
static inline void rp_helper(struct rp_gen *g)
{
	uint32_t id = rp_below(g->s, 7); /* memcpy … crc32c */

	rp_address(g, 1);
	rp_address(g, 2);
	if (id == 2 || id == 4) /* memset, memchr */
		rp_value(g, 2);
	rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, (int32_t)rp_below(g->s, 200));
	if (rp_below(g->s, 20) == 0)
		rp_value(g, 3);
	rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, (int32_t)rp_below(g->s, 20));
	if (id == 5) { /* memmem: lengths in r2 and r4 */
		rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_X, 3, 1, 0, 0);
		rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, (int32_t)rp_below(g->s, 100));
	}
	rp_emit(g, BPF_JMP | BPF_CALL, 0, BPF_CALL_HELPER, 0, (int32_t)id);
	rp_restore(g);
}

static inline void rp_item(struct rp_gen *g)
{
	switch (rp_below(g->s, 16)) {
	case 0:
		rp_value(g, rp_reg(g));
		break;
	case 1:
	case 2:
		rp_idiom(g);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		rp_memory(g);
		break;
	case 7:
		rp_forward(g);
		break;
	case 8:
		rp_over_one(g);
		break;
	case 9:
		rp_back(g);
		break;
	case 10:
		if (rp_below(g->s, 2))
			rp_call(g);
		else
			rp_helper(g);
		break;
	default:
		rp_alu_on(g, rp_reg(g));
		break;
	}
}

static inline void rp_function(struct rp_gen *g)
{
	uint32_t kept = 0;

	g->n_jumps = 0;
	g->n_items = 1 + rp_below(g->s, RP_MAX_ITEMS);
	for (unsigned int r = g->func ? 6 : 3; r <= 9; r++)
		rp_value(g, r);
	rp_emit(g, BPF_ALU64 | BPF_MOV | BPF_X, 0, 1, 0, 0);
	for (g->item = 0; g->item < g->n_items; g->item++) {
		g->item_at[g->item] = g->n;
		rp_item(g);
	}
	g->item_at[g->n_items] = g->n;
	rp_emit(g, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	for (; kept < g->n_jumps; kept++) {
		uint32_t pc = g->jumps[kept].pc, item = g->jumps[kept].item;
		int32_t off = (int32_t)(g->item_at[item < g->n_items ? item : g->n_items] - pc) - 1;

		if (g->insns[pc].code == (BPF_JMP32 | BPF_JA))
			g->insns[pc].imm = off;
		else
			g->insns[pc].off = (int16_t)off;
	}
}

static inline void rp_generate(struct rp_gen *g, struct rp_stream *s)
{
	uint32_t start[RP_MAX_FUNCS];

	memset(g, 0, sizeof(*g));
	g->s = s;
	g->n_funcs = 1 + rp_below(s, RP_MAX_FUNCS);
	for (g->func = 0; g->func < g->n_funcs; g->func++) {
		start[g->func] = g->n;
		rp_function(g);
	}
	for (uint32_t i = 0; i < g->calls; i++)
		g->insns[g->call_sites[i].pc].imm =
			(int32_t)(start[g->call_sites[i].func] - g->call_sites[i].pc) - 1;
}

/* ---- running both ---- */

#define RP_BYTES 4096u /* of each window */

static const enum sbpf_window rp_kept[] = {SBPF_WIN_ARG, SBPF_WIN_STATE, SBPF_WIN_IN, SBPF_WIN_OUT,
					   SBPF_WIN_STACK};
#define RP_KEPT (sizeof(rp_kept) / sizeof(rp_kept[0]))

struct rp_outcome {
	int code;
	uint64_t r0, fuel, address;
	int32_t insn;
	uint8_t bytes[RP_KEPT][RP_BYTES];
};

static inline void rp_run(struct sbpf_sandbox *sb, enum sbpf_tier tier, struct rp_outcome *o)
{
	struct sbpf_call call = {.size = sizeof(call),
				 .tier = tier,
				 .r1 = sbpf_window_offset(SBPF_WIN_IN),
				 .r2 = 0x123456789abcdef0,
				 .fuel = RP_FUEL};
	struct sbpf_error err = {.insn = -1};

	for (uint32_t i = 0; i < RP_KEPT; i++) {
		uint8_t *p = sbpf_sandbox_ptr(sb, rp_kept[i]);

		for (uint32_t k = 0; rp_kept[i] != SBPF_WIN_STACK && k < RP_BYTES; k++)
			p[k] = (uint8_t)((k * 167 >> 3) ^ i);
	}
	o->code = sbpf_run(sb, &call, &err);
	o->r0 = o->code ? 0 : call.r0;
	/* After a fault fuel is known to the last helper or refill only, which differs by tier. */
	o->fuel = o->code == -EFAULT ? 0 : call.fuel_used;
	o->address = err.address;
	o->insn = err.insn;
	for (uint32_t i = 0; i < RP_KEPT; i++)
		memcpy(o->bytes[i], sbpf_sandbox_ptr(sb, rp_kept[i]), RP_BYTES);
}

static inline void rp_print(void *arg, const char *line)
{
	fprintf(arg, "# %s\n", line);
}

static inline void rp_report(struct sbpf_program *prog, const struct rp_outcome o[2])
{
	sbpf_program_disasm(prog, rp_print, stderr);
	for (int i = 0; i < 2; i++)
		fprintf(stderr,
			"# %s: code %d r0 0x%" PRIx64 " fuel %" PRIu64 " insn %d address 0x%" PRIx64
			"\n",
			i ? "template" : "interp", o[i].code, o[i].r0, o[i].fuel, o[i].insn,
			o[i].address);
	for (uint32_t w = 0; w < RP_KEPT; w++)
		for (uint32_t k = 0; k < RP_BYTES; k++)
			if (o[0].bytes[w][k] != o[1].bytes[w][k]) {
				fprintf(stderr, "# window %d differs from byte %u on\n", rp_kept[w],
					k);
				break;
			}
}

enum rp_verdict {
	RP_SAME,
	RP_DIFFERS,
	RP_REFUSED,
	RP_NO_MEMORY
};

/*
 * Make a program, run it on both tiers and compare all that can be seen; *code is what it ended
 * with.
 */
static inline enum rp_verdict rp_compare(struct rp_stream *s, int *code)
{
	static struct rp_gen g;
	static struct rp_outcome o[2];
	enum rp_verdict verdict = RP_NO_MEMORY;
	struct sbpf_program *prog;
	struct sbpf_sandbox *sb;
	struct sbpf_error err;

	rp_generate(&g, s);
	if (sbpf_program_from_insns(g.insns, g.n, NULL, &prog, &err)) {
		fprintf(stderr, "# refused: %s\n", err.text);
		return RP_REFUSED;
	}
	if (sbpf_sandbox_get(prog, &sb))
		goto out;
	for (uint32_t i = 0; i < RP_KEPT; i++)
		if (rp_kept[i] != SBPF_WIN_STACK && sbpf_sandbox_resize(sb, rp_kept[i], RP_BYTES))
			goto out_put;
	rp_run(sb, SBPF_TIER_INTERP, &o[0]);
	rp_run(sb, SBPF_TIER_TEMPLATE, &o[1]);
	*code = o[0].code;
	verdict = memcmp(&o[0], &o[1], sizeof(o[0])) ? RP_DIFFERS : RP_SAME;
	if (verdict == RP_DIFFERS)
		rp_report(prog, o);
out_put:
	sbpf_sandbox_put(sb);
out:
	sbpf_program_unref(prog);
	return verdict;
}

#endif /* RANDOM_PROGRAM_H */
