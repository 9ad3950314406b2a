/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiering.c - when AUTO becomes the optimizing tier: programs are compiled anew once they were worth it.
 *
 * Whoever runs calls with AUTO tells how long they took (sbpf_program_spent).  After LOOK_NS of work the code cache is looked
 * at; after about as long as compiling takes, compiling starts: so never more than twice the time that the best choice in
 * hindsight would have taken is spent.  It is a process of its own that computes, so there is no thread: calls that go on look now and then
 * whether it is done, and the next call after that takes the new code.  A process that has none left to make
 * compiles in vain, and does not wait for it when it ends.
 *
 * One program at a time is compiled, the others go on as they are until it is their turn.  What fails once stays on
 * the tier it has, with the reason kept.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "sbpf/internal.h"

#define LOOK_NS  4000000u  /* of work: what comes below pays nothing at all */
#define START_NS 40000000u /* compiling: its process and its libraries, */
#define INSN_NS  150000u   /* and each instruction (docs/llvm-tier.md has the measurements) */
#define AGAIN_NS 1000000u  /* of work between two looks at a running compilation */
#define NEVER    UINT64_MAX
#define BETTER   SBPF_TIER_LLVM

struct sbpf_tiering {
	struct sbpf_program *prog;
	struct sbpf_compile *compile; /* while there is something to expect of it */
	uint64_t spent_ns, started_ns;
	const char *_Atomic why;
	char pays[96], end[320]; /* texts that why points to; each written once */
};

/* Guards all of them: it is held for moments, and calls do not wait for it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sbpf_tiering *compiling; /* the one */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t pays_ns(const struct sbpf_program *prog)
{
	return START_NS + (uint64_t)prog->n_insns * INSN_NS;
}

static void look_again(struct sbpf_tiering *t, uint64_t spent_ns)
{
	atomic_store_explicit(&t->prog->heat.look_ns, spent_ns, memory_order_relaxed);
}

static void say(struct sbpf_tiering *t, const char *why)
{
	atomic_store_explicit(&t->why, why, memory_order_release);
}

/* Nothing more will happen, for better or for worse. */
static void settle(struct sbpf_tiering *t, const char *why)
{
	const struct sbpf_engine *engine = sbpf_engine_of(BETTER);

	if (t->compile)
		engine->abandon(t->compile);
	t->compile = NULL;
	if (compiling == t)
		compiling = NULL;
	say(t, why);
	look_again(t, NEVER);
}

static void settle_failed(struct sbpf_tiering *t, const struct sbpf_error *err)
{
	snprintf(t->end, sizeof(t->end), "%.300s", err->text);
	settle(t, t->end);
}

/* ---- steps ---- */

static void first_look(struct sbpf_tiering *t)
{
	const struct sbpf_engine *engine = sbpf_engine_of(BETTER);
	const char *missing = sbpf_tier_missing(BETTER);
	struct sbpf_code *code = sbpf_program_code(t->prog, BETTER);
	uint64_t start = now_ns();
	struct sbpf_error err;

	if (missing || !engine->begin) {
		settle(t, missing ? missing : "there is no better compiler");
		return;
	}
	if (code) {
		sbpf_program_publish(t->prog, code, code->compile_ns);
		settle(t, "it was compiled already");
		return;
	}
	if (engine->begin(t->prog, &t->compile, &code, &err)) {
		t->compile = NULL;
		settle_failed(t, &err);
		return;
	}
	if (!t->compile) {
		sbpf_program_publish(t->prog, code, now_ns() - start);
		settle(t, "its code was kept from an earlier run");
		return;
	}
	snprintf(t->pays, sizeof(t->pays), "compiling it better pays from %llu ms of work on",
		 (unsigned long long)pays_ns(t->prog) / 1000000u);
	say(t, t->pays);
	look_again(t, pays_ns(t->prog));
}

static void check_compiling(struct sbpf_tiering *t)
{
	const struct sbpf_engine *engine = sbpf_engine_of(BETTER);
	struct sbpf_code *code = NULL;
	struct sbpf_error err;
	uint64_t took;
	int r = engine->poll(t->compile, &code, &err);

	if (r == -EAGAIN)
		return;
	if (r) {
		settle_failed(t, &err);
		return;
	}
	took = now_ns() - t->started_ns;
	sbpf_program_publish(t->prog, code, took);
	snprintf(t->end, sizeof(t->end),
		 "compiled beside the calls in %llu ms, after %llu ms of work",
		 (unsigned long long)took / 1000000u, (unsigned long long)t->spent_ns / 1000000u);
	settle(t, t->end);
}

static void start_compiling(struct sbpf_tiering *t, uint64_t spent_ns)
{
	struct sbpf_error err;

	/* Its calls may have ended: then nobody else looks. */
	if (compiling)
		check_compiling(compiling);
	if (compiling)
		return;
	t->started_ns = now_ns();
	t->spent_ns = spent_ns;
	if (sbpf_engine_of(BETTER)->start(t->compile, &err)) {
		settle_failed(t, &err);
		return;
	}
	compiling = t;
	say(t, "there was less to do than compiling it better takes");
}

static void step(struct sbpf_tiering *t, uint64_t spent_ns)
{
	if (!t->compile) {
		first_look(t);
		return;
	}
	look_again(t, spent_ns + AGAIN_NS);
	if (compiling == t)
		check_compiling(t);
	else
		start_compiling(t, spent_ns);
}

/* ---- from outside ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

static void start_once(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}

static struct sbpf_tiering *tiering_of(struct sbpf_program *prog)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct sbpf_tiering *t = atomic_load_explicit(&prog->heat.tiering, memory_order_relaxed);

	if (t)
		return t;
	pthread_once(&once, start_once);
	t = calloc(1, sizeof(*t));
	if (!t) {
		atomic_store_explicit(&prog->heat.look_ns, NEVER, memory_order_relaxed);
		return NULL;
	}
	t->prog = prog;
	atomic_init(&t->why, "");
	atomic_store_explicit(&prog->heat.tiering, t, memory_order_release);
	return t;
}

void sbpf_program_spent(struct sbpf_program *prog, uint64_t run_ns)
{
	struct sbpf_heat *heat = &prog->heat;
	uint64_t look = atomic_load_explicit(&heat->look_ns, memory_order_relaxed), spent;
	struct sbpf_tiering *t;

	if (look == NEVER)
		return;
	spent = run_ns + atomic_fetch_add_explicit(&heat->spent_ns, run_ns, memory_order_relaxed);
	if (spent < (look ? look : LOOK_NS) || pthread_mutex_trylock(&lock))
		return;
	/* Another thread may have been here meanwhile. */
	look = atomic_load_explicit(&heat->look_ns, memory_order_relaxed);
	t = spent >= look ? tiering_of(prog) : NULL;
	if (t)
		step(t, spent);
	pthread_mutex_unlock(&lock);
}

const char *sbpf_program_tiering(const struct sbpf_program *prog)
{
	struct sbpf_tiering *t = atomic_load_explicit(&prog->heat.tiering, memory_order_acquire);
	const char *why = t ? atomic_load_explicit(&t->why, memory_order_acquire) : "";

	return *why ? why : "there was too little to do for a better compiler";
}

void sbpf_tiering_free(struct sbpf_program *prog)
{
	struct sbpf_tiering *t = atomic_load_explicit(&prog->heat.tiering, memory_order_acquire);

	if (!t)
		return;
	pthread_mutex_lock(&lock);
	settle(t, "");
	pthread_mutex_unlock(&lock);
	free(t);
}
