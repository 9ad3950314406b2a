/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda.h - how the controller computes: hosts and their shares, runs, workers, exported directories.
 *
 * The controller never parses, compiles or executes what a host sent as a program: workers do (worker.c,
 * src/worker), processes of one host each behind a seccomp filter.
 *
 * A run's way: submit (lambda.c) collects and checks a request → lambda_sched.c lets it start when its host's
 * turn comes → worker.c gives it to a worker of that host, with read-only descriptors of its source → output
 * arrives in a ring that the worker shares with us → a fetch (lambda.c) takes it, or lambda_store.c stores it
 * (a λ-write) → the result.
 *
 * Everything of one run happens on the loop of the queue that submitted it.
 */
#ifndef DEVICE_LAMBDA_H
#define DEVICE_LAMBDA_H

#include "device/ctrl.h"
#include "nvme/lambda.h"

/* ---- limits (from the configuration) ---- */

struct ctrl_lambda_limits {
	uint32_t max_running;                           /* runs of one host at once; 0: the cores */
	uint32_t max_queued;                            /* runs of one host that wait */
	uint32_t max_handles, max_objects, max_waiting; /* of a controller */
	uint32_t max_workers;                           /* processes in all */
	uint64_t max_request, max_program;
	uint64_t program_memory; /* bytes of programs kept for one host */
	uint64_t max_fuel, max_memory, max_output, max_timeout_ns;
	uint64_t ring;     /* bytes of a run's output that wait to be fetched */
	uint32_t idle_ms;  /* workers, programs and hosts unused for so long are let go */
	uint32_t grace_ms; /* a worker that should have ended gets so long before it is killed */
};
extern const struct ctrl_lambda_limits ctrl_lambda_limits_default;
const struct ctrl_lambda_limits *ctrl_server_lambda(const struct ctrl_server *s);

/* ---- hosts (lambda_host.c): what all controllers of one host NQN share ---- */

struct ctrl_program { /* the bytes as they came, in a sealed memory file; checked by a worker, never by us */
	uint8_t hash[32];
	int fd; /* read-only for whoever gets it */
	uint64_t size;
	char name[48]; /* as the worker found it; "" before */
	atomic_uint refs;
	atomic_uint_fast64_t runs;
	uint64_t used_ns;
	struct ctrl_host *host;
	struct ctrl_program *next;
};

struct ctrl_host; /* by host NQN; any thread; opaque but for: */
struct ctrl_host *ctrl_host_get(struct ctrl_server *s, const char *hostnqn);
void ctrl_host_put(struct ctrl_host *host);
/* A reference, or NULL. */
struct ctrl_program *ctrl_program_find(struct ctrl_host *host, const uint8_t hash[32]);
/* Takes @fd. -ENOSPC: over program_memory, and nothing idle to let go. */
int ctrl_program_add(struct ctrl_host *host, const uint8_t hash[32], int fd, uint64_t size,
		     struct ctrl_program **out);
void ctrl_program_put(struct ctrl_program *prog);

/* ---- workers (worker.c): one job each at a time ---- */

struct ctrl_segment { /* where a source's bytes are: in the order of the source, without gaps */
	uint64_t at;  /* in @fd; UINT64_MAX: zeros */
	uint64_t length;
};

/* What one job may have of them. */
#define CTRL_MAX_SEGMENTS 65536u

enum ctrl_job_kind {
	CTRL_JOB_CHECK, /* load and verify the program; the result's text says why not */
	CTRL_JOB_RUN,
};

struct ctrl_job {
	/* by the caller, who keeps it all until release() */
	enum ctrl_job_kind kind;
	struct ctrl_loop *loop; /* on whose thread ready() is called */
	struct ctrl_server *server;
	struct ctrl_host *host; /* only workers that never served another */
	struct ctrl_program *program;
	int fd; /* of the source, opened read-only; -1: a stream, ctrl_job_input() brings it */
	const struct ctrl_segment *segments; /* NULL: all of @fd, whose size is @size */
	uint32_t n_segments;
	uint64_t base; /* source offset of the first segment */
	uint64_t size; /* of the source: offset of its end */
	const struct nvme_lambda_request
		*request; /* range, budgets, flags; checked against the limits */
	const uint8_t *arg;
	uint32_t arg_len;
	uint32_t threads; /* at most; never 0 */
	/* Output, room for input, progress or the end is there.  From the loop, never from within a call of ours. */
	void (*ready)(struct ctrl_job *job);
	/* results */
	bool ended; /* no more output will come than output() gives now */
	struct nvme_lambda_result result;
	char text[640];
	char name[48]; /* CHECK: the function's */
	uint64_t helpers;
	uint64_t done, total;
	/* the worker's own */
	struct ctrl_worker *worker; /* as the loop knows it */
	struct ctrl_worker
		*bound; /* the same, or one that the loop has yet to hear of; under a lock */
	struct ctrl_job *next;
	struct ctrl_timer timer;
	uint64_t deadline_ns;
	uint64_t cpu_from, cpu_ns;
	bool over; /* it has a result; ready() has said so, or soon will */
	bool cancelled, shut;
};

/*
 * Give it to an idle worker of that host, or to a new one.  Never blocks.  -EAGAIN: max_workers are busy, try
 * again soon; -ENOENT: this server has no workers; -E2BIG: too many arguments or segments.
 */
int ctrl_job_start(struct ctrl_job *job, struct ctrl_error *err);
/* Output that waits: up to two pieces; returns the bytes.  Valid until consume(). */
size_t ctrl_job_output(struct ctrl_job *job, struct iovec out[2]);
void ctrl_job_consume(struct ctrl_job *job, size_t len);
/* Bytes of a stream: how many were taken (fewer: ready() is called when there is room). @last with the last ones. */
size_t ctrl_job_input(struct ctrl_job *job, const void *p, size_t len, bool last);
/* End it soon with -ECANCELED (or kill the worker after grace_ms); ready() is still called. */
void ctrl_job_cancel(struct ctrl_job *job);
/* May its function go on?  The worker looks between pieces (fair shares). Any thread. */
void ctrl_job_gate(struct ctrl_job *job, bool open);
/* Processor time of the job so far, in nanoseconds, by the kernel's account.  The loop's thread. */
uint64_t ctrl_job_cpu_ns(const struct ctrl_job *job);
/* After `ended`, or to give up on it at any time: the worker is put back, or killed if it still runs. */
void ctrl_job_release(struct ctrl_job *job);

/* @path of the worker's executable, or NULL: where it is installed, or beside this one. */
int ctrl_workers_start(struct ctrl_server *s, const char *path, struct ctrl_error *err);
void ctrl_workers_stop(struct ctrl_server *s);
/* No job of @host runs or will: its workers end, for the pointer may come to be another host's.  Any thread. */
void ctrl_workers_forget(struct ctrl_server *s, const struct ctrl_host *host);
void ctrl_workers_metrics(struct ctrl_server *s, FILE *out);

/* ---- exported directories (export.c: the tree; object.c: open files and their commands) ---- */

struct ctrl_export;
struct ctrl_object; /* an open file of one controller; refcounted, so that a run outlives CLOSE */

/* "NAME=DIR[,rw][,functions=any|none|HEX+HEX…]": before the server starts. */
int ctrl_server_add_export(struct ctrl_server *s, const char *spec, struct ctrl_error *err);
bool ctrl_server_has_exports(const struct ctrl_server *s);
int ctrl_exports_new(struct ctrl_server *s);
/* No request on a path, and none on an object, is on a thread of theirs. */
bool ctrl_exports_idle(const struct ctrl_server *s);
void ctrl_exports_metrics(struct ctrl_server *s, FILE *out);
/* The loops have ended and nobody has an object. */
void ctrl_exports_free(struct ctrl_server *s);
struct ctrl_exports *ctrl_server_exports(struct ctrl_server *s);

/* A request on a path, on a thread of the pool: embed it. */
struct ctrl_path_op {
	struct ctrl_io io; /* the pool's way */
	struct ctrl_controller *ctrl;
	const struct nvme_path_request
		*request;   /* checked for lengths, then paths; the caller's until done() */
	uint32_t reply_max; /* bytes a LIST may answer */
	void (*done)(struct ctrl_path_op *op);
	/* results */
	int error;
	char text[640];
	uint8_t *reply; /* malloc'd, the caller's to free */
	uint32_t reply_len;
	/* path.c's own */
	struct ctrl_exports *exports;
	struct ctrl_export *export;
	struct ctrl_objects *objects;
	uint32_t epoch;
};
/*
 * On @loop's thread; done() comes later, from that loop.  The controller may go meanwhile, @op and its request
 * may not.
 */
void ctrl_path_submit(struct ctrl_path_op *op, struct ctrl_loop *loop);
/* A LIST that may answer fewer bytes is refused: no entry is longer. */
#define CTRL_PATH_ENTRY_MAX 288u

/* A reference, or NULL. */
struct ctrl_object *ctrl_object_get(struct ctrl_controller *c, uint32_t id);
void ctrl_object_put(struct ctrl_object *obj);
/* For a run: the read-only descriptor (the object's own), -EACCES if not opened so. */
int ctrl_object_fd(const struct ctrl_object *obj);
const char *
ctrl_object_name(const struct ctrl_object *obj); /* export/path as it was opened, for audit */
/* -EACCES with text if the export does not allow that function. */
int ctrl_object_allows(const struct ctrl_object *obj, const uint8_t hash[32],
		       struct ctrl_error *err);
/* Remember size, ctime and generation; and: have they changed since? */
struct ctrl_object_version {
	uint64_t size, ctime_s, ctime_ns, generation;
};
int ctrl_object_version(const struct ctrl_object *obj, struct ctrl_object_version *out);
/* Write @len bytes at @at (blocking: call it on the pool); 0 or -errno, *done grows. */
int ctrl_object_write(const struct ctrl_object *obj, const void *p, size_t len, uint64_t at,
		      uint64_t *done);
/*
 * What may block belongs on the threads that the object's export has of its own: @work runs there, io->done() on
 * io->loop.  Loop thread.  The caller has a reference until then.
 */
void ctrl_object_submit(const struct ctrl_object *obj, struct ctrl_io *io,
			int (*work)(struct ctrl_io *io));
/* A controller begins; is reset: all its objects are closed; ends.  Any thread. */
int ctrl_objects_new(struct ctrl_controller *c);
void ctrl_objects_close(struct ctrl_controller *c);
void ctrl_objects_free(struct ctrl_controller *c);

/* ---- commands ---- */

/* Rows that the I/O table has beside the NVM command set's: lambda.c, object.c. */
extern const struct ctrl_command_set ctrl_lambda_set, ctrl_object_set;
/* The queue goes: its runs are cancelled, its handles forgotten.  On its loop. */
void ctrl_lambda_leave(struct ctrl_queue *q);
void ctrl_lambda_put(struct ctrl_lambda *lam); /* the controller's own reference */

/* The server's life: before the loops; no connection is left, wait for what runs (-ETIMEDOUT); before the loops go; after. */
int ctrl_lambda_start(struct ctrl_server *s, struct ctrl_error *err);
int ctrl_lambda_drain(struct ctrl_server *s, uint32_t ms);
void ctrl_lambda_stop(struct ctrl_server *s);
void ctrl_lambda_free(struct ctrl_server *s);
void ctrl_lambda_metrics(struct ctrl_server *s, FILE *out);

/*
 * peer.c: may this connection be served?  On loopback the peer's uid (sock_diag) must be the server's own, root, or
 * allowed by allow_uid.
 */
int ctrl_peer_allowed(struct ctrl_server *s, int fd, struct ctrl_error *err);

#endif /* DEVICE_LAMBDA_H */
