/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_private.h - worker processes as the controller sees them: worker_pool.c (which there are, for whom),
 * worker_spawn.c (one process and what is shared with it), worker.c (its jobs), worker_result.c (what it says of one).
 *
 * A thread of the pool's own starts, watches and buries processes, so that no event loop waits for that; and a
 * worker dies with that thread, should the server die.  Nothing here is ever blocked by what a worker does
 * or leaves undone, and nothing that it wrote is used before it was copied and checked.
 */
#ifndef DEVICE_WORKER_PRIVATE_H
#define DEVICE_WORKER_PRIVATE_H

#include <sys/types.h>

#include "device/server_private.h"
#include "worker/shared.h"

enum worker_state {
	WORKER_IDLE, /* a host's, or nobody's yet */
	WORKER_BUSY,
	WORKER_ENDING, /* killed, or dead: never used again */
};

/* Why one ended; metrics. */
enum worker_end {
	WORKER_END_NONE,
	WORKER_END_IDLE,       /* nobody needed it, or its host went */
	WORKER_END_EVICTED,    /* another host needed its place */
	WORKER_END_ABANDONED,  /* its job was given up */
	WORKER_END_LATE,       /* it went on after its deadline or a cancel */
	WORKER_END_MISBEHAVED, /* what it wrote made no sense */
	WORKER_END_FORBIDDEN,  /* it tried a call that it may not make */
	WORKER_END_DIED,       /* by itself, or somebody killed it */
	WORKER_ENDS,
};

struct worker_program {
	uint8_t hash[32];
	uint64_t used_ns;
	bool loaded;
};

struct ctrl_worker {
	struct ctrl_workers *pool;
	/* fixed */
	pid_t pid;
	int pidfd, control, event;
	struct worker_command *command;
	struct worker_report *report;
	uint8_t *out, *in, *payload;
	uint8_t *shared;
	/* under the pool's lock */
	struct ctrl_worker *next;
	enum worker_state state;
	enum worker_end end;
	const struct ctrl_host *host; /* NULL: nobody's yet */
	struct ctrl_job *job;
	uint32_t refs; /* the pool's until it is reaped, a job's, a message's to a loop */
	bool reaped;
	int status; /* of wait */
	uint64_t idle_ns;
	uint64_t cpu_ns; /* processor time when its last job ended; 0: not known */
	/* whoever has the job: its loop's thread alone */
	struct ctrl_watch watch;
	bool watching;
	bool begun;
	uint32_t number; /* of the job */
	uint32_t slot;
	bool loads; /* the job loads its program */
	bool in_ready, in_waits;
	uint64_t large; /* bytes of the payload that are given back after the job */
	uint64_t out_from, out_tail, out_head,
		out_told; /* of the job: its start, taken, seen, told of */
	uint64_t in_head, in_tail;
	uint64_t looks, spurious;
	struct worker_program programs[WORKER_PROGRAMS];
};

struct ctrl_workers {
	struct ctrl_server *server;
	const struct ctrl_lambda_limits *limits;
	char *path;
	uint64_t out_bytes, in_bytes, payload_bytes, shared_bytes, data_limit;
	pthread_t thread;
	int epoll, wake;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	struct ctrl_worker *workers; /* those not yet reaped */
	uint32_t n;
	struct ctrl_job *pending, **pending_end; /* wait for a new process */
	bool started;                            /* the first one is ready, or failed: */
	bool broken;                             /* no process can be had, */
	char why[512];                           /* and this is the reason */
	bool stop;
	bool resting;      /* the thread sleeps until it is woken: nobody is idle */
	uint64_t again_ns; /* after a failure: not before */
	uint64_t starts, ends[WORKER_ENDS];
};

/* ---- worker_spawn.c ---- */

/* The executable, malloc'd; NULL: there is none. */
char *worker_find(void);
/* Sizes of what is shared, by the limits. */
void worker_sizes(struct ctrl_workers *pool);
/* A process that confines itself and then waits for jobs.  The pool's thread only. */
int worker_spawn(struct ctrl_workers *pool, struct ctrl_worker **out, struct ctrl_error *err);
/* It is ready: 0, or what is known of why not.  The pool's thread only. */
int worker_await(struct ctrl_worker *w, struct ctrl_error *err);
void worker_kill(const struct ctrl_worker *w);
void worker_free(struct ctrl_worker *w);
/* Have memory for [@p, @p + @len) now rather than a signal later. */
int worker_populate(void *p, uint64_t len);

/* ---- worker_pool.c; the lock is held ---- */

void pool_wake(struct ctrl_workers *pool);
void pool_put(struct ctrl_worker *w);
/* Kill it, once. */
void pool_end(struct ctrl_worker *w, enum worker_end why);
/* A worker of the job's host, or nobody's: it is busy with that job now.  NULL: none. */
struct ctrl_worker *pool_take(struct ctrl_workers *pool, struct ctrl_job *job);
/* Make it the job's; the job's loop, and no other thread, makes it known to the job. */
void pool_bind(struct ctrl_worker *w, struct ctrl_job *job);
void pool_attach(struct ctrl_worker *w, struct ctrl_job *job);
/* Its job is over. */
void pool_idle(struct ctrl_worker *w);
/* There is room for one more process, or soon will be. */
bool pool_has_room(struct ctrl_workers *pool);

/* ---- worker.c ---- */

/* On the job's loop: @arg is a worker, with a reference.  It was made for the job; it is dead. */
void worker_begin(void *arg);
void worker_lost(void *arg);

/* ---- worker_result.c ---- */

/* What the report says of the job that ended; -EPROTO: it makes no sense. */
int worker_result(const struct worker_report *report, struct ctrl_job *job);
/* An end that the controller itself states. */
void worker_failed(struct ctrl_job *job, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* DEVICE_WORKER_PRIVATE_H */
