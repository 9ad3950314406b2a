/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm.c - the optimizing tier as libsbpf has it: code is asked of the cache or of the compiler's process, run, and timed.
 *
 * Owns: the engine's row, questions, and which instruction a place in the code belongs to.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sbpf/sandbox.h"
#include "sbpf/tier_clock.h"
#include "sbpf/tier_llvm.h"

/* ---- asking ---- */

/* What is asked about a program, and where its answer is kept. */
struct sbpf_compile {
	const struct sbpf_program *prog; /* outlives us */
	void *question;
	size_t len;
	bool cached; /* there is a cache, and the key in it */
	uint8_t key[SBPF_CACHE_KEY];
	struct llvm_process process;
	char why[256];
};

static uint8_t *put(uint8_t *to, const void *from, size_t n)
{
	memcpy(to, from, n);
	return to + n;
}

void *sbpf_llvm_question(const struct sbpf_program *prog, size_t *len)
{
	struct sbpf_llvm_question q = {
		.n_insns = prog->n_insns, .n_funcs = prog->n_funcs, .n_entries = prog->n_entries};
	uint8_t *question, *p;

	strcpy(q.version, SBPF_LLVM_VERSION);
	for (uint32_t i = 0; i < sbpf_n_helpers; i++)
		q.helper_args[i] = sbpf_helpers[i].args;
	*len = sizeof(q) + q.n_insns * 9ull + q.n_funcs * sizeof(struct sbpf_llvm_func) +
	       q.n_entries * 4ull;
	question = p = malloc(*len);
	if (!p)
		return NULL;
	p = put(p, &q, sizeof(q));
	p = put(p, prog->insns, prog->n_insns * sizeof(*prog->insns));
	for (uint32_t i = 0; i < prog->n_funcs; i++) {
		const struct sbpf_func *f = &prog->funcs[i];
		struct sbpf_llvm_func func = {.start = f->start,
					      .end = f->end,
					      .frame = f->frame,
					      .reachable = f->reachable};

		p = put(p, &func, sizeof(func));
	}
	for (uint32_t i = 0; i < prog->n_entries; i++)
		p = put(p, &prog->entries[i].func, 4);
	put(p, prog->insn_flags, prog->n_insns);
	return question;
}

static void forget(struct sbpf_compile *c)
{
	sbpf_llvm_stop(&c->process);
	free(c->question);
	free(c);
}

static int fail(struct sbpf_compile *c, int r, struct sbpf_error *err)
{
	return sbpf_fail(err, c->prog, r, -1, "the LLVM tier cannot compile it: %s", c->why);
}

static int ask(const struct sbpf_program *prog, struct sbpf_compile **out, struct sbpf_error *err)
{
	struct sbpf_compile *c;
	const char *missing, *path = sbpf_llvm_find(&missing);

	if (missing)
		return sbpf_fail(err, prog, -EOPNOTSUPP, -1, "%s", missing);
	if (prog->n_insns > SBPF_LLVM_MAX_INSNS)
		return sbpf_fail(err, prog, -E2BIG, -1,
				 "the program has %u instructions, the LLVM tier's limit is %u",
				 prog->n_insns, SBPF_LLVM_MAX_INSNS);
	c = calloc(1, sizeof(*c));
	if (c) {
		c->prog = prog;
		c->question = sbpf_llvm_question(prog, &c->len);
	}
	if (!c || !c->question) {
		free(c);
		return sbpf_fail(err, prog, -ENOMEM, -1, "out of memory to compile %u instructions",
				 prog->n_insns);
	}
	c->cached = sbpf_cache_key(c->question, c->len, path, c->key);
	*out = c;
	return 0;
}

/* ---- the engine's ways to get code ---- */

static int recall(struct sbpf_compile *c, struct sbpf_code **out)
{
	struct llvm_code *lc;
	size_t len;
	uint8_t *answer = c->cached ? sbpf_cache_get(c->key, &len) : NULL;
	int r;

	if (!answer)
		return -ENOENT;
	r = sbpf_llvm_map(c->prog, answer, len, &lc, c->why, sizeof(c->why));
	free(answer);
	if (!r)
		*out = &lc->code;
	return r;
}

/* -EAGAIN: not within @ms.  Else the process is gone. */
static int collect(struct sbpf_compile *c, int ms, struct sbpf_code **out)
{
	uint8_t *answer = NULL;
	struct llvm_code *lc;
	size_t len;
	int r = sbpf_llvm_wait(&c->process, ms, &answer, &len, c->why, sizeof(c->why));

	if (r)
		return r;
	r = sbpf_llvm_map(c->prog, answer, len, &lc, c->why, sizeof(c->why));
	if (!r) {
		*out = &lc->code;
		if (c->cached)
			sbpf_cache_put(c->key, answer, len);
	}
	free(answer);
	return r;
}

static int llvm_begin(const struct sbpf_program *prog, struct sbpf_compile **out,
		      struct sbpf_code **code, struct sbpf_error *err)
{
	struct sbpf_compile *c = NULL;
	int r = ask(prog, &c, err);

	if (r)
		return r;
	if (!recall(c, code)) {
		forget(c);
		c = NULL;
	}
	*out = c;
	return 0;
}

static int llvm_start(struct sbpf_compile *c, struct sbpf_error *err)
{
	int r = sbpf_llvm_start(&c->process, c->question, c->len, true, c->why, sizeof(c->why));

	return r ? fail(c, r, err) : 0;
}

static int llvm_poll(struct sbpf_compile *c, struct sbpf_code **out, struct sbpf_error *err)
{
	int r = collect(c, 0, out);

	return r && r != -EAGAIN ? fail(c, r, err) : r;
}

static int llvm_compile(const struct sbpf_program *prog, struct sbpf_code **out,
			struct sbpf_error *err)
{
	struct sbpf_compile *c;
	int r = llvm_begin(prog, &c, out, err);

	if (r || !c)
		return r;
	r = sbpf_llvm_start(&c->process, c->question, c->len, false, c->why, sizeof(c->why));
	if (!r)
		do
			r = collect(c, 1000, out);
		while (r == -EAGAIN);
	if (r)
		fail(c, r, err);
	forget(c);
	return r;
}

static void llvm_free(struct sbpf_code *code)
{
	sbpf_llvm_unmap((struct llvm_code *)code);
}

static const char *llvm_missing(void)
{
	const char *missing;

	sbpf_llvm_find(&missing);
	return missing;
}

/* ---- running ---- */

/* Clang's sanitizers and CFI look for a type in front of what a pointer calls; generated code has none. */
#if defined(__clang__)
#define CALLS_GENERATED_CODE __attribute__((no_sanitize("function", "cfi-icall")))
#else
#define CALLS_GENERATED_CODE
#endif

CALLS_GENERATED_CODE
static uint64_t llvm_run(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2, uint64_t r10)
{
	const struct llvm_code *lc = (const struct llvm_code *)x->code;
	const struct sbpf_func *f = &x->prog->funcs[func];
	uint8_t *at = lc->mem + lc->entry_at[func] - 1;
	int r = sbpf_clock_start();

	x->pc = f->start;
	if (r)
		sbpf_exec_raise(x, r, 0);
	sbpf_exec_charge(x, f->end - f->start);
	return ((sbpf_llvm_entry)(uintptr_t)at)(x, x->base, r1, r2, r10);
}

/*
 * An instruction's offset is added behind the 32 bits here, so an address may lie in the guard pages; the other tiers see
 * it come in again at the other end.  (All see a word that starts before the end go on behind it.)
 */
static void llvm_leave(struct sbpf_exec *x)
{
	if (x->error == -EFAULT && x->address >= SBPF_SPACE + 8)
		x->address = (uint32_t)x->address;
}

static bool llvm_contains(const struct sbpf_exec *x, uintptr_t pc)
{
	const struct llvm_code *lc = (const struct llvm_code *)x->code;

	return pc - (uintptr_t)lc->mem < lc->used;
}

/* The last row at or before the place; helpers left a note. */
static int64_t llvm_locate(const struct sbpf_exec *x)
{
	const struct llvm_code *lc = (const struct llvm_code *)x->code;
	const struct sbpf_llvm_place *places = lc->places;
	uintptr_t place = x->host_pc - (uintptr_t)lc->mem;
	size_t lo = 0, hi = lc->n_places;

	if (!x->host_pc || !llvm_contains(x, x->host_pc))
		return x->pc;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (places[mid].at <= place)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || !places[lo - 1].line || places[lo - 1].line > x->prog->n_insns)
		return -1;
	return (int64_t)places[lo - 1].line - 1;
}

const struct sbpf_engine sbpf_engine_llvm = {
	.name = "llvm",
	.tier = SBPF_TIER_LLVM,
	.missing = llvm_missing,
	.compile = llvm_compile,
	.begin = llvm_begin,
	.start = llvm_start,
	.poll = llvm_poll,
	.abandon = forget,
	.ready = sbpf_clock_start,
	.free = llvm_free,
	.run = llvm_run,
	.leave = llvm_leave,
	.contains = llvm_contains,
	.locate = llvm_locate,
};
