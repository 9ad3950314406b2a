/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_private.h - the λ commands' inside.
 *
 * lambda.c: commands, and finding a handle's run; lambda_submit.c: requests; lambda_request.c: what they say;
 * lambda_run.c: a run's life; lambda_fetch.c: output to the host; lambda_program.c: programs and information pages; lambda_store.c: what a
 * λ-write leaves; lambda_host.c: hosts, their programs, the server's part; lambda_sched.c: whose turn it is.
 *
 * A run belongs to the loop of the queue that its first part came by: that thread alone touches it, and takes it out
 * of its controller's table of handles.  A command that came by a queue of another loop is sent there and back.
 */
#ifndef DEVICE_LAMBDA_PRIVATE_H
#define DEVICE_LAMBDA_PRIVATE_H

#include "device/lambda.h"
#include "device/lambda_sched.h"
#include "device/loop.h"

/* ---- lambda_request.c ---- */

struct lambda_extents {
	uint32_t nsid;
	uint32_t n; /* neighbours are merged */
	uint64_t bytes;
	struct ctrl_segment *seg; /* malloc'd */
};

struct lambda_parsed {
	struct nvme_lambda_request head;
	struct lambda_extents from, to;
	uint64_t base; /* file offset of the first byte of @from */
	uint32_t from_object, to_object;
	uint64_t to_at;
	const uint8_t *arg; /* in the request */
};
/* Its form alone; a status, and DW0 for it.  Hostile input. */
uint16_t lambda_request_parse(const uint8_t *p, uint64_t len, struct lambda_parsed *out,
			      uint32_t *dw0);
void lambda_parsed_free(struct lambda_parsed *parsed);
/* All of them within a namespace of @bytes? */
uint16_t lambda_extents_check(const struct lambda_extents *e, uint64_t bytes);
/* A request on a path: lengths and what is reserved. */
uint16_t lambda_path_check(const uint8_t *p, uint64_t len, uint32_t *dw0);
/* Its version and op, of which kind it is. */
uint16_t lambda_request_op(const uint8_t *p, uint64_t len, uint32_t *dw0, uint16_t *op);
/* Fill in the defaults; -E2BIG with the budget's name if one is above the limits. */
int lambda_budgets(struct nvme_lambda_request *r, const struct ctrl_lambda_limits *limits,
		   struct ctrl_error *err);

/* ---- lambda_host.c ---- */

enum lambda_outcome {
	LAMBDA_DONE,
	LAMBDA_FAILED, /* the function, its data or its budgets */
	LAMBDA_REFUSED,
	LAMBDA_CHANGED,
	LAMBDA_CANCELED,
	LAMBDA_OUTCOMES
};

struct lambda_counters { /* of the server */
	atomic_uint_fast64_t runs[LAMBDA_OUTCOMES];
	atomic_uint_fast64_t bytes_in, bytes_out, bytes_written, compute_ns, busy;
};

struct ctrl_lambda_server {
	struct ctrl_server *server;
	struct sched sched;
	struct lambda_counters counters;
	uint32_t cores;
	atomic_uint_fast64_t helpers; /* as a worker told them; 0: none did */
	int nothing;                  /* an empty file to read from, where all is zeros */

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	struct ctrl_host *hosts;
	uint32_t live;                  /* runs and checks that exist */
	struct lambda_storing *storing; /* λ-writes onto extents, and those that wait for one */
	struct ctrl_timer sweep, tick;  /* of the first loop */
	bool sweep_armed, tick_armed, stopping;
};
struct ctrl_lambda_server *lambda_server(const struct ctrl_server *s);
struct ctrl_loop *lambda_first_loop(const struct ctrl_server *s);

struct ctrl_host {
	struct ctrl_lambda_server *ls;
	char nqn[NVME_NQN_MAX + 1];
	struct sched_host sched;
	atomic_uint_fast64_t request_bytes; /* of requests that are here */
	atomic_uint_fast64_t ended;
	/* under ls->lock */
	uint32_t refs;
	uint64_t idle_since;
	struct ctrl_program *programs;
	uint64_t program_bytes;
	struct ctrl_host *next;
};

/* A run or a check began to exist, and is no more. */
void lambda_live(struct ctrl_lambda_server *ls, int change);
/* Two hosts compete: look after their shares for as long as that is so. */
void lambda_tick(struct ctrl_lambda_server *ls);

/* ---- turns: a job that waits for its turn, and has it ---- */

struct lambda_turn {
	struct sched_turn turn; /* first */
	struct ctrl_io io;      /* the way back to the loop */
	struct ctrl_job *job;
	uint64_t began_ns;
	/* Its turn came (0), or it was withdrawn (-ECANCELED); not from within turn_ask(). */
	void (*go)(struct lambda_turn *t, int error);
};
/* True: it is its turn at once; else go() is called later.  sched_full() was asked before. */
bool turn_ask(struct ctrl_host *host, struct ctrl_loop *loop, struct lambda_turn *t);
/* False: it does not wait. */
bool turn_withdraw(struct ctrl_host *host, struct lambda_turn *t);
/* The job runs; and: its turn is over, whether it ran or not. */
void turn_started(struct ctrl_host *host, struct lambda_turn *t);
void turn_over(struct ctrl_host *host, struct lambda_turn *t);

/* ---- controllers (lambda.c) ---- */

struct lambda_run;
struct lambda_fetch;

#define LAMBDA_BUCKETS  64u
#define LAMBDA_REFUSALS 128u
#define LAMBDA_UPLOADS  4u

struct lambda_refusal { /* of a submit, or the end of a run: what a fetch that comes too late is told */
	uint32_t handle;
	uint16_t status;
	uint32_t dw0;
	uint64_t at_ns; /* 0: none */
};

struct ctrl_lambda { /* a controller's */
	struct ctrl_server *server;
	struct ctrl_lambda_server *ls;
	struct ctrl_host *host;
	pthread_mutex_t lock; /* what follows */
	uint32_t refs;
	struct lambda_run *runs[LAMBDA_BUCKETS];
	uint32_t n_runs, n_waiting;
	struct lambda_refusal refusals[LAMBDA_REFUSALS];
	uint32_t next_refusal;
	struct lambda_fetch *early; /* whose submit has not come */
	struct lambda_upload *uploads;
	struct lambda_check *checks;
	char refusal[640]; /* of a program */
};
struct ctrl_lambda *lambda_of(struct ctrl_controller *c);
struct ctrl_lambda *lambda_get(struct ctrl_lambda *lam);

static inline uint32_t cdw_handle(const struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.cdw10);
}
static inline uint64_t cdw_offset(const struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.cdw12) | (uint64_t)nvme_get32(cmd->sqe.cdw13) << 32;
}

/* End a command on whatever loop: it is completed on its own. */
void lambda_answer(struct ctrl_cmd *cmd, uint16_t status);
void lambda_busy(struct ctrl_cmd *cmd, struct ctrl_lambda_server *ls, uint32_t ms);
/* What fetches of this handle are told from now on. */
void lambda_refuse(struct ctrl_lambda *lam, uint32_t handle, uint16_t status, uint32_t dw0);
/* The run of that handle, if it is of this loop. */
struct lambda_run *lambda_find_here(struct ctrl_lambda *lam, uint32_t handle);
void lambda_forget_handle(struct lambda_run *run);

/* ---- a run (lambda_run.c) ---- */

enum run_state {
	RUN_COLLECTING, /* parts of the request are missing */
	RUN_PREPARING,  /* looks at its object */
	RUN_QUEUED,
	RUN_RUNNING,
	RUN_CHECKING, /* has the object changed? */
	RUN_STORING,
	RUN_ENDED,
};

#define RUN_INPUTS 4u /* parts of a stream that wait for room */

struct lambda_run {
	struct ctrl_job job; /* first */
	struct lambda_turn turn;
	struct ctrl_lambda *lam;
	struct ctrl_host *host;
	struct ctrl_loop *loop;
	const struct ctrl_queue *q;   /* only to compare */
	struct ctrl_controller *ctrl; /* while its submit is looked at; else NULL */
	uint32_t handle;
	bool in_table;
	struct lambda_run *next; /* of the bucket; under lam->lock */
	enum run_state state;
	bool forgotten; /* no fetch will come: free it when all is over */
	bool canceled, job_started, stalled;
	bool durable;     /* no volatile cache: what is stored survives a power cut */
	uint32_t pending; /* requests of ours that others have */
	/* the request */
	uint8_t *request;
	uint32_t request_len, request_have;
	struct lambda_parsed parsed;
	struct ctrl_object *from, *to;
	struct ctrl_namespace *from_ns, *to_ns;
	struct ctrl_object_version before, after;
	struct ctrl_path_op path;
	struct ctrl_io io; /* on an object's thread, or a store's */
	/* output */
	struct lambda_fetch *fetches, **fetches_end;
	uint64_t base,
		given; /* stream offset of what is not acknowledged, and how much of it was given */
	uint8_t *rest; /* what the job left when it ended; or a path's reply */
	size_t rest_len, rest_at;
	uint64_t answered_ns, no_fetch_ns;
	struct ctrl_timer timer;
	bool timer_fetch; /* it is for a fetch that waits a moment for more */
	/* input */
	struct ctrl_cmd *inputs[RUN_INPUTS];
	uint32_t n_inputs;
	uint64_t input_at;
	bool input_last;
	struct ctrl_timer input_timer;
	/* storing */
	struct lambda_stage *stage;
	/* the result */
	struct nvme_lambda_result result;
	char text[640];
	enum lambda_outcome outcome;
	uint64_t submitted_ns, started_ns;
};

static inline bool run_is_path(const struct lambda_run *run)
{
	return run->path.request;
}

/* lambda_submit.c: the first part came, or another; answers the command. */
void run_submit(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_run *run);
void run_input(struct ctrl_cmd *cmd, struct lambda_run *run);
/* No fetch is to come: end it, and free it when that is over. */
void run_drop(struct lambda_run *run);
/* As run_drop(), once the host was told the result. */
void run_done(struct lambda_run *run);
/* Bytes of output that were not given yet; looks at the job. */
size_t run_output(struct lambda_run *run, struct iovec out[2]);
void run_consume(struct lambda_run *run, size_t len);
/* The run ends with that error, if it has none yet. */
__attribute__((format(printf, 3, 4))) void run_fail(struct lambda_run *run, int error,
						    const char *fmt, ...);
/* Its request makes sense: it waits for its turn. */
void run_begin(struct lambda_run *run);
/* Its request does not: the handle is free again, and whoever waits for it is told. */
void run_refuse(struct lambda_run *run, uint16_t status, uint32_t dw0);
/* run->result says all: let the host have it. */
void run_end(struct lambda_run *run);
void run_on_job(struct ctrl_job *job);
void run_on_timer(struct ctrl_timer *t);
/* Its job has something to say, or its stage is free again. */
void run_ready(struct lambda_run *run);
/* The stage is stored, or not: run->result says. */
void run_stored(struct lambda_run *run);
/* Fetches come again, or no more. */
void run_watched(struct lambda_run *run, bool watched);

/* ---- lambda_fetch.c ---- */

uint16_t fetch_prepare(struct ctrl_cmd *cmd);
/* @run may be NULL: it may come yet. */
void fetch_start(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_run *run);
bool fetch_abort(struct ctrl_cmd *cmd);
/* Output or the end is there: answer those that wait. */
void fetch_kick(struct lambda_run *run);
/* The run is no more: end its fetches. */
void fetch_end_all(struct lambda_run *run, uint16_t status, uint32_t dw0);
/* Early ones of this handle: its submit came, or was refused (@status). */
void fetch_submitted(struct ctrl_lambda *lam, uint32_t handle, struct ctrl_loop *loop);
/* The queue goes: its fetches end.  On its loop. */
void fetch_leave(struct ctrl_lambda *lam, struct ctrl_queue *q);

/* ---- lambda_program.c ---- */

/* May a program come in?  A worker looks at it when its host's turn comes. */
struct program_check {
	struct ctrl_job job; /* first; its text says why not */
	struct ctrl_loop *loop;
	struct ctrl_host *host; /* the caller has a reference until done() */
	/* The program's reference is the callee's; or NULL and -errno.  Maybe from within program_check(). */
	void (*done)(struct program_check *k, int error, struct ctrl_program *prog);
	/* its own */
	struct lambda_turn turn;
	struct ctrl_timer timer;
	struct ctrl_program program; /* not in the host's table */
	bool started, canceled;
};
/* Takes @fd, a sealed memory file whose hash was checked.  On the loop. */
void program_check(struct program_check *k, struct ctrl_server *s, const uint8_t hash[32], int fd,
		   uint64_t size);
/* done() comes soon. */
void program_check_cancel(struct program_check *k);

uint16_t program_prepare(struct ctrl_cmd *cmd);
void program_run(struct ctrl_cmd *cmd);
uint16_t info_prepare(struct ctrl_cmd *cmd);
void info_run(struct ctrl_cmd *cmd);
void uploads_free(struct ctrl_lambda *lam);
/* The queue goes: its checks are cancelled.  On its loop. */
void checks_leave(struct ctrl_lambda *lam, const struct ctrl_queue *q);

/* ---- lambda_store.c ---- */

/* Take what output there is; more of it comes by itself.  True: all that there was is in. */
bool stage_take(struct lambda_run *run);
/* Put it where it belongs; ends in run_stored(). */
void stage_store(struct lambda_run *run);
void stage_free(struct lambda_run *run);

#endif /* DEVICE_LAMBDA_PRIVATE_H */
