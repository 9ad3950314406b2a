/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - one request while it runs, shared by the modules that run it.
 *
 * A request goes one way: run.c plans it → pieces.c hands out spans of whole records, each with
 * its number in file order → call.c runs the function over a piece of one → order.c lets results
 * out in file order (state.c: into the merged state) → run.c finishes and reports.
 *
 * A small request has one span and stays on the caller's thread: no thread, no lock, no allocation.
 *
 * Errors: whatever fails while span N is worked on is recorded under N, and the lowest N wins.
 * Since every span before it is completed first, a request fails the same way for any number of
 * threads.
 */
#ifndef LAMBDA_JOB_H
#define LAMBDA_JOB_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "lambda/internal.h"

struct span {
	uint64_t seq;
	uint64_t begin, end; /* whole records */
	bool last;           /* of the request */
};

/* What a span left behind while it waits for its turn. */
struct slot {
	uint8_t *buf;
	size_t len, cap;
	uint64_t begin, bytes, fuel;
	bool done, failed;
};

#define RING        1024u         /* spans that may be finished ahead of their turn */
#define RING_BYTES  (64ull << 20) /* and what they may hold */
#define STATE_SMALL 512u          /* states up to this need no allocation */
#define WORKERS_MAX 256u

struct job {
	/* what is asked and how it is done: fixed once planned */
	const struct lambda_request *req;
	const struct lambda_function *fn;
	struct lambda_source *src;
	struct lambda_sink *sink;
	enum sbpf_tier tier;       /* of calls; AUTO may change what it stands for */
	enum sbpf_tier tier_first; /* what it stood for at the start */
	bool in_order;             /* a state goes from call to call: scan, or fold without merge */
	bool merging;              /* a fold whose spans are merged */
	bool threaded;             /* more than one worker; set before the second starts */
	uint64_t chunk;            /* bytes of a piece */
	uint64_t span;             /* bytes of a span */
	uint64_t room;             /* of one call's memory budget: input and output together */
	uint64_t record_max;       /* bytes of the longest record that fits */
	uint64_t offset;           /* the range as asked, its end clipped to what is known */
	uint64_t range_end;

	/* claiming; pieces.c, under claim_lock */
	pthread_mutex_t claim_lock;
	struct lambda_cutter cutter;
	uint64_t begin; /* of the first record; fixed by the first claim */
	uint64_t next, next_seq;
	uint64_t trailing;
	size_t next_cut;
	bool claimed_all;
	bool eof;       /* sequential sources: all has been read, */
	uint8_t *carry; /* and what was read too far: bytes from next on */
	size_t carry_len, carry_cap;
	uint64_t read_to;

	/* results in order; order.c, under lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t turn;
	bool ended; /* span `turn` failed: no more turns */
	struct slot *slots;
	struct slot slot; /* enough for one worker */
	unsigned ring;
	uint64_t buffered;
	uint64_t progress; /* bytes of completed spans */
	uint64_t out_bytes;
	_Atomic uint64_t fuel_done;  /* of completed spans */
	_Atomic uint64_t failed_seq; /* lowest span with an error; UINT64_MAX: none */
	struct lambda_error failure; /* of that one */

	/* the state between calls; state.c, whoever's turn it is */
	uint8_t *state;
	uint8_t state_small[STATE_SMALL];
	bool state_set;        /* else it is zero */
	uint64_t out_hint;     /* room that the last call in order needed for its output */
	struct worker *merger; /* merges and finishes in a sandbox of its own */

	struct worker *workers; /* beside the caller's thread */
	unsigned n_workers;
};

struct worker {
	struct job *job;
	struct sbpf_sandbox *sb;
	enum sbpf_tier tier; /* the job's until the kernel ended a run of this worker's */
	pthread_t thread;
	struct lambda_error err; /* of what this worker does now */
	uint64_t out_backed;     /* KERNEL: of OUT, that a call turned out to need */
	bool short_of_out;       /* the last call needs more than it had */
	uint64_t out_dirty;      /* first bytes of OUT that the last call surely wrote */
	uint64_t span_fuel;      /* of the current span's calls */
	uint8_t *stage; /* sequential sources: the current span's bytes, as they were read */
	size_t stage_cap;
	struct lambda_source stage_src; /* reads them */
	uint64_t stage_off, stage_len;
	bool mapped;          /* some input was mapped */
	enum sbpf_tier ran;   /* the last call's tier */
	bool switched;        /* AUTO took up a better one */
	uint64_t bytes_first; /* of input that the first tier was given */
	bool out_of_fuel;     /* the last failure was the request's fuel */
	uint64_t calls, reruns, restarts, bytes_in, fuel, io_ns, run_ns, load_ns;
};

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static inline uint64_t page_up(uint64_t bytes)
{
	return (bytes + SBPF_PAGE - 1) & ~(uint64_t)(SBPF_PAGE - 1);
}

static inline void job_lock(struct job *job, pthread_mutex_t *lock)
{
	if (job->threaded)
		pthread_mutex_lock(lock);
}

static inline void job_unlock(struct job *job, pthread_mutex_t *lock)
{
	if (job->threaded)
		pthread_mutex_unlock(lock);
}

/* -ECANCELED or -ETIME (w->err filled) once the request is cancelled or late; 0 before. */
int job_check(struct worker *w, uint64_t offset);

/* ---- pieces.c ---- */

/* For cutting the worker's span @span further. */
void pieces_cutter(struct worker *w, const struct span *span, struct lambda_cutter *out);
/* The range of a random-access source, before the first claim. */
int pieces_plan(struct worker *w);
/* 1: *out is the worker's; 0: there are no more; -errno: *out's seq failed, w->err filled. */
int pieces_claim(struct worker *w, struct span *out);
/* Fill w->err for what lambda_record_cut() said of the piece at @a. */
int pieces_cut_error(struct worker *w, int rc, uint64_t a, uint64_t target);
void pieces_free(struct job *job);

/* ---- call.c ---- */

/* A sandbox with everything in place that stays the same for the request; w->job is set. */
int worker_open(struct worker *w);
void worker_close(struct worker *w);
/*
 * A call ended with -ERESTART: this worker goes on with more room, or in another tier, in a sandbox without input and
 * state, and what the call was to do starts again from where state and input are still as they were.
 */
int worker_restart(struct worker *w);

struct call {
	enum lambda_entry entry;
	uint64_t off, len; /* input; len 0: none */
	uint64_t out_cap;
	uint64_t flags;
};
/*
 * Run one entry over input that call_load() or call_no_input() put in place; the state is in its
 * window.  0: it returned *r0, from -4095 to out_cap.  Else -errno with w->err filled.
 */
int call_run(struct worker *w, const struct call *c, int64_t *r0);
/* Fill w->err for what a call returned. */
int call_returned(struct worker *w, const struct call *c, int64_t r0);
/* [off, off+len) into the input window: pristine, edges zero. */
int call_load(struct worker *w, uint64_t off, uint64_t len);
int call_no_input(struct worker *w);

/* ---- state.c ---- */

int state_init(struct worker *w);
void state_free(struct job *job);
/* Into the worker's state window (zero if nothing was saved), and back. */
int state_load(struct worker *w);
int state_zero(struct worker *w);
void state_save(struct worker *w);
/* The span's state @p comes after all merged so far. */
int state_merge(struct worker *w, const struct span *span, const uint8_t *p);
/* The merger's call ended with -ERESTART: worker_restart() and no input. */
int state_restart(struct worker *m);
/* All spans are through: the result is saved, and the merger has a sandbox if it is to @finish. */
int state_merged(struct worker *w, bool finish);

/* ---- order.c ---- */

/* Wait until it is @seq's turn.  -errno: the run ends before that. */
int order_wait(struct worker *w, const struct span *span);
/* @len bytes of @seq's result, after those it gave before: delivered now or kept until its turn. */
int order_emit(struct worker *w, const struct span *span, const uint8_t *p, size_t len);
/* @span is worked off; @rc its error, described in w->err. */
void order_done(struct worker *w, const struct span *span, int rc);
/* Whether @seq need not be worked on, since an earlier span failed. */
bool order_moot(const struct job *job, uint64_t seq);
/* Count what w->span_fuel says against the request's budget; in order only. */
int order_count_fuel(struct worker *w, uint64_t offset);
/* Output to the sink within the quota; in order only. */
int order_write(struct worker *w, uint64_t offset, const uint8_t *p, size_t len);
void order_free(struct job *job);

#endif /* LAMBDA_JOB_H */
