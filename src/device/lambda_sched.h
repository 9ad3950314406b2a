/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_sched.h - whose turn it is to compute.
 *
 * Each host has a queue, first come first served; hosts take turns; so many run of a host, and in all.  Among
 * those that run, processor time is shared fairly: hosts that are ahead of one that is kept from computing wait at the
 * next gap between two pieces.
 *
 * Knows nothing of jobs and clocks: they are asked for through a table, which a test replaces.
 */
#ifndef DEVICE_LAMBDA_SCHED_H
#define DEVICE_LAMBDA_SCHED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct sched_turn {
	struct sched_host *host;
	struct sched_turn *next; /* of the host's queue, or of those that run */
	bool queued, running;
	bool started; /* gate() and cpu_ns() may be called */
	bool stalled; /* it waits for its reader, and is not counted */
	uint32_t threads;
	uint64_t cpu_seen, since_ns; /* counted up to here */
};

struct sched_host { /* zeroed */
	struct sched_turn *queue, *queue_last, *active;
	uint32_t queued, running;
	uint64_t used;         /* processor time, made comparable among hosts */
	uint64_t delta, could; /* since the last tick: had, and what its threads could have had */
	struct sched_rate {    /* the same, over a longer time: */
		uint64_t had, could;
	} free, helped;   /* with nobody gated, and with others gated for it */
	uint32_t hold;    /* ticks for which it has no claim */
	uint64_t idle_ns; /* since when it has nothing */
	bool gated, starved, linked;
	struct sched_host *next;
};

struct sched_ops {                           /* called under the lock: they must not call back */
	void (*start)(struct sched_turn *t); /* of one that waited */
	void (*gate)(struct sched_turn *t, bool open);
	uint64_t (*cpu_ns)(struct sched_turn *t);
	uint64_t (*now_ns)(void);
};

struct sched {
	const struct sched_ops *ops;
	uint32_t cores, max_total, max_running, max_queued; /* the last two of a host */
	pthread_mutex_t lock;
	struct sched_host *hosts; /* those that have something, in the order of their turns */
	uint32_t queued, running, stalled;
	uint64_t mean_ns; /* how long a turn took, lately */
};

void sched_init(struct sched *s, const struct sched_ops *ops, uint32_t cores, uint32_t max_running,
		uint32_t max_queued);
void sched_free(struct sched *s);
/* Do as many wait as may? */
bool sched_full(struct sched *s, struct sched_host *host);
/* True: it runs now; else start() will be called. */
bool sched_add(struct sched *s, struct sched_host *host, struct sched_turn *t);
/* False: it does not wait (any more). */
bool sched_withdraw(struct sched *s, struct sched_turn *t);
/* Its job runs with so many threads.  True: hosts compete, sched_tick() is wanted. */
bool sched_started(struct sched *s, struct sched_turn *t, uint32_t threads);
void sched_stall(struct sched *s, struct sched_turn *t, bool stalled);
/* @ns: how long it had its turn. */
void sched_over(struct sched *s, struct sched_turn *t, uint64_t ns);
/* Threads of a run that starts now. */
uint32_t sched_share(struct sched *s);
/* Every 5 to 10 ms while it returns true. */
bool sched_tick(struct sched *s);
/* The host goes: it has no turn. */
void sched_forget(struct sched *s, struct sched_host *host);
void sched_load(struct sched *s, uint32_t *queued, uint32_t *running);
/* When to come again, in ms. */
uint32_t sched_busy_ms(struct sched *s);

#endif /* DEVICE_LAMBDA_SCHED_H */
