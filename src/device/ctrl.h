/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctrl.h - the controller's modules and what they owe each other; only src/device and tools/liod include it.
 *
 * A few event-loop threads serve everything.  A connection is one queue pair and belongs to one loop for life;
 * its socket, its commands and its store requests are touched by that thread alone, so the data path has no
 * lock.  What several queues share (a controller's registers, events, the table of controllers) is behind the
 * subsystem's mutex and is on slow paths only.
 *
 * A command's way: tcp_target.c receives a capsule → ctrl_submit() (execute.c) picks a row of a command table,
 * which says how much data moves which way → tcp_target.c moves data to the controller first where that is
 * the direction → the row's handler (admin.c, fabrics.c, discovery.c, nvm.c) → a store request → ctrl_complete() →
 * tcp_target.c sends data and response.
 */
#ifndef DEVICE_CTRL_H
#define DEVICE_CTRL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "nvme/spec.h"

struct ctrl_server;
struct ctrl_loop;
struct ctrl_subsystem;
struct ctrl_controller;
struct ctrl_queue;
struct ctrl_cmd;
struct ctrl_store;

/* ---- errors while setting up: one line, made where the cause is known ---- */

struct ctrl_error {
	int code;
	char text[512];
};
int ctrl_fail(struct ctrl_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- limits, one place ---- */

struct ctrl_limits {
	uint32_t max_connections;   /* of the server */
	uint32_t max_controllers;   /* of a subsystem */
	uint16_t max_queue_entries; /* I/O queue depth */
	uint16_t max_io_queues;     /* of a controller */
	uint32_t max_transfer;      /* bytes of one command: MDTS */
	uint32_t in_capsule;        /* bytes of data in an I/O capsule */
	uint32_t max_h2c;           /* bytes of data in one H2CData PDU; 0: max_transfer */
	uint64_t buffer_memory;     /* bytes of data buffers in all */
	uint32_t handshake_ms;      /* from accept to a finished Connect */
	uint32_t stall_ms;          /* a PDU or R2T'd data half sent */
};
extern const struct ctrl_limits ctrl_limits_default;

/* ---- stores (store_*.c): a const table each; a new store is one file and one row in store.c ---- */

enum ctrl_io_op {
	CTRL_IO_READ,
	CTRL_IO_WRITE,
	CTRL_IO_FLUSH,
	CTRL_IO_ZERO,
	CTRL_IO_DISCARD
};

struct ctrl_task { /* something for a thread of a pool */
	void (*run)(struct ctrl_task *t);
	struct ctrl_task *next; /* the pool's own */
};

struct ctrl_io { /* one request to a store; embedded in a command */
	enum ctrl_io_op op;
	bool fua;        /* a write or zero is durable when it completes */
	uint64_t offset; /* bytes */
	uint64_t len;
	struct iovec iov;       /* read, write: iov.iov_len == len */
	struct ctrl_loop *loop; /* on whose thread done() runs */
	void (*done)(struct ctrl_io *io,
		     int error); /* 0 or -errno; exactly once, never from within submit() */
	/* the store's own, until done() */
	struct ctrl_io *next;
	uint64_t moved;
	struct ctrl_store *store;
	int result;
	void (*step)(struct ctrl_io *io, int result); /* the ring answered */
	int (*work)(struct ctrl_io *io);              /* on a thread of the pool; may block */
	struct ctrl_task task;
};

struct ctrl_store_geometry {
	uint64_t bytes;     /* refresh() may change it: read it with ctrl_namespace_blocks() */
	uint32_t block;     /* logical block size: 512 or 4096 */
	uint32_t preferred; /* write granularity in bytes */
	bool read_only;
	bool volatile_cache; /* what completes without FUA or FLUSH may be lost in a power cut */
	bool discard;        /* CTRL_IO_DISCARD frees space and reads back zeros */
	uint8_t csi;         /* enum nvme_csi: whose commands a namespace of it takes */
};

struct ctrl_store_ops {
	const char *name; /* the scheme in front of a colon: "file", "ram", "null" */
	const char *help;
	/* @spec is what follows the colon. */
	int (*open)(const char *spec, bool read_only, struct ctrl_store **out,
		    struct ctrl_error *err);
	void (*close)(struct ctrl_store *store);
	/* Called on @io->loop's thread; never blocks. */
	void (*submit)(struct ctrl_store *store, struct ctrl_io *io);
	/*
	 * A descriptor to read the same bytes through the page cache, the store's own, for other processes; what a write
	 * that completed put there is seen.  NULL: all of it reads as zeros.
	 */
	int (*descriptor)(const struct ctrl_store *store);
	/* The size may have grown (a file that was extended): re-read it. */
	void (*refresh)(struct ctrl_store *store);
};

struct ctrl_store { /* embed first */
	const struct ctrl_store_ops *ops;
	struct ctrl_store_geometry geo;
	char *how; /* "io_uring, O_DIRECT" or why not; for logs and metrics */
};

/* "ram:1G", "null:1T", "file:/path", or a bare path; ",ro" at its end means read-only. */
int ctrl_store_open(const char *spec, bool read_only, struct ctrl_store **out,
		    struct ctrl_error *err);
void ctrl_store_close(struct ctrl_store *store);

/* ---- event loops (loop.c) ---- */

/* Something a loop watches; embed it. */
struct ctrl_watch {
	int fd;
	void (*ready)(struct ctrl_watch *w, uint32_t events); /* EPOLLIN | … */
};
struct ctrl_timer {
	uint64_t at_ns; /* CLOCK_MONOTONIC; 0: not armed */
	void (*fire)(struct ctrl_timer *t);
	struct ctrl_timer *prev, *next; /* the loop's own */
	int slot;
};

int ctrl_loop_watch(struct ctrl_loop *loop, struct ctrl_watch *w, uint32_t events);
int ctrl_loop_rewatch(struct ctrl_loop *loop, struct ctrl_watch *w, uint32_t events);
/* @w is not called again, not even for events already fetched from epoll; it may be freed at once. */
void ctrl_loop_unwatch(struct ctrl_loop *loop, struct ctrl_watch *w);
/* Coarse: never early, late by up to 10 ms and an eighth of the time.  Only the loop's own thread. */
void ctrl_timer_arm(struct ctrl_loop *loop, struct ctrl_timer *t, uint64_t in_ms);
void ctrl_timer_cancel(struct ctrl_loop *loop, struct ctrl_timer *t);
/* Run @fn(@arg) on the loop's thread soon.  Any thread. */
int ctrl_loop_post(struct ctrl_loop *loop, void (*fn)(void *arg), void *arg);
/* Run l->run once, at the end of this round of events, before the loop sleeps.  The loop's own thread only; never fails. */
struct ctrl_later {
	void (*run)(struct ctrl_later *l);
	struct ctrl_later *next; /* the loop's own */
	bool queued;             /* until run() is called */
};
void ctrl_loop_later(struct ctrl_loop *loop, struct ctrl_later *l);
/* Registered data buffers of limits.max_transfer bytes, page aligned; NULL when the budget is used up. */
void *ctrl_loop_buffer_get(struct ctrl_loop *loop, uint32_t len);
void ctrl_loop_buffer_put(struct ctrl_loop *loop, void *buf, uint32_t len);
/*
 * Who got NULL asks to be told: ready() is called from the loop, first come first served, as buffers come
 * back to this loop (the budget is divided among the loops), one waiter for each; it is no longer waiting then.
 */
struct ctrl_buffer_wait {
	uint32_t len; /* told when so many bytes are to be had; 0: when any are */
	void (*ready)(struct ctrl_buffer_wait *w);
	struct ctrl_buffer_wait *prev, *next; /* the loop's own */
	bool waiting;
};
void ctrl_loop_buffer_wait(struct ctrl_loop *loop, struct ctrl_buffer_wait *w);
void ctrl_loop_buffer_unwait(struct ctrl_loop *loop, struct ctrl_buffer_wait *w);

struct io_uring *ctrl_loop_ring(struct ctrl_loop *loop); /* NULL where io_uring is refused */
/* Before the first store is opened: do without io_uring in this process. */
void ctrl_ring_off(void);
uint64_t ctrl_now_ns(void);

/* ---- subsystems, namespaces, controllers (subsystem.c) ---- */

/* Of a subsystem: as many as a list of active ones, or the log of changed ones, can name. */
#define CTRL_MAX_NAMESPACES 1024u

struct ctrl_namespace {
	uint32_t nsid;
	struct ctrl_store *store;
	uint8_t shift; /* log2 of the block size */
	uint8_t nguid[16];
	uint8_t uuid[16];
};

struct ctrl_subsystem {
	char nqn[NVME_NQN_MAX + 1];
	char serial[21], model[41];
	bool discovery;
	struct ctrl_namespace *ns; /* CTRL_MAX_NAMESPACES of them; ns[i].nsid == i + 1 */
	atomic_uint n_ns;          /* grows while hosts are served: see ctrl_subsystem_count() */
	struct ctrl_server *server;
	pthread_mutex_t lock; /* controllers, and the fields of each that say so */
	struct ctrl_controller *controllers;
	uint16_t next_cntlid;
	struct ctrl_subsystem *next;
};

#define CTRL_MAX_AER 4u
/* What one Copy may do. */
#define CTRL_COPY_RANGES      128u
#define CTRL_COPY_RANGE_BYTES (4u << 20)
#define CTRL_COPY_BYTES       (16u << 20)
#define CTRL_MAX_ABORTS       4u
#define CTRL_N_FEATURES       16u

struct ctrl_controller {
	struct ctrl_subsystem *sub;
	uint16_t cntlid;
	uint8_t hostid[16];
	char hostnqn[NVME_NQN_MAX + 1];
	/* under sub->lock */
	uint32_t cc, csts;
	uint32_t kato_ms;
	uint32_t async_config;
	uint16_t n_queues;         /* I/O queues granted by Set Features */
	struct ctrl_queue *admin;  /* NULL once it went */
	struct ctrl_queue *queues; /* all, linked; indexed by qid on search */
	uint32_t refs;             /* queues that point here */
	bool dead;                 /* the admin queue went: the others close */
	/* namespaces that changed since the log was read, a bit each */
	uint64_t changed[CTRL_MAX_NAMESPACES / 64];
	bool changed_any, event_pending, event_posted;
	struct ctrl_controller *next;
	/* the admin queue's thread alone */
	struct ctrl_cmd *aer[CTRL_MAX_AER];
	uint32_t n_aer, n_aborts;
	bool event_masked; /* sent, and its log page not read since */
	uint32_t features[CTRL_N_FEATURES];
	struct ctrl_timer keep_alive;
	atomic_uint_fast64_t seen_ns; /* when anything last came, on any queue */
	atomic_bool no_cache; /* the volatile write cache is switched off: writes are durable */
	/* counters for SMART and error log, atomics */
	atomic_uint_fast64_t read_units, write_units, reads, writes, errors;
	struct nvme_log_error log[16];
	uint32_t log_at;
	struct ctrl_lambda *lambda;   /* lambda.c: its runs; NULL before the first λ command */
	struct ctrl_objects *objects; /* object.c: its open files */
};

/*
 * Connect: make a controller for an admin queue, or join an I/O queue to one. Returns an NVMe status; *@where is
 * the field at fault as Connect's response names it.
 */
uint16_t ctrl_connect(struct ctrl_queue *q, const struct nvme_connect_data *data, uint16_t qid,
		      uint16_t sqsize, uint8_t cattr, uint32_t kato_ms, uint32_t *where);
#define CTRL_CONNECT_IN_DATA (1u << 16)
/* A queue's connection is gone, for whatever reason; an admin queue takes the I/O queues with it. */
void ctrl_disconnect(struct ctrl_queue *q);
/* Its last command ended too.  Frees the controller with the last queue. */
void ctrl_leave(struct ctrl_queue *q);
/* Controller reset: the I/O queues close, features are as they were at first. */
void ctrl_reset(struct ctrl_controller *c);
void ctrl_set_keep_alive(struct ctrl_controller *c, uint32_t kato_ms);
/* Answer an event request, if there is an event that the host wants to hear of.  Admin queue's thread. */
void ctrl_events_flush(struct ctrl_controller *c);
void ctrl_events_abort(struct ctrl_controller *c, uint16_t status);
struct ctrl_namespace *ctrl_namespace(struct ctrl_controller *c, uint32_t nsid);
uint64_t ctrl_namespace_blocks(const struct ctrl_namespace *ns);
/* How many namespaces there are; any thread, and all of those are to be read. */
static inline uint32_t ctrl_subsystem_count(const struct ctrl_subsystem *sub)
{
	return atomic_load_explicit(&sub->n_ns, memory_order_acquire);
}

/* @serial NULL: made from the NQN.  The server links and owns what it made. */
int ctrl_subsystem_new(struct ctrl_server *s, const char *nqn, const char *serial,
		       struct ctrl_subsystem **out, struct ctrl_error *err);
/*
 * Also while the server runs, on one thread at a time: hosts are told.  The subsystem owns the store from now on.
 */
int ctrl_subsystem_add(struct ctrl_subsystem *sub, struct ctrl_store *store,
		       struct ctrl_error *err);
/* Let every store re-read its size, and tell the hosts of those that changed.  Any thread. */
void ctrl_subsystem_refresh(struct ctrl_subsystem *sub);
/* No controller left; closes the stores. */
void ctrl_subsystem_free(struct ctrl_subsystem *sub);

/* ---- commands (execute.c) ---- */

enum ctrl_direction {
	CTRL_NO_DATA,
	CTRL_TO_CONTROLLER,
	CTRL_TO_HOST
};

struct ctrl_cmd {
	struct nvme_sqe sqe;
	struct nvme_cqe
		cqe; /* cid, sqid set on arrival; dw0, dw1 by the handler; status by ctrl_complete */
	struct ctrl_queue *q;
	const struct ctrl_command *row;
	enum ctrl_direction dir;
	uint32_t data_len;    /* bytes that move */
	uint32_t xfer_len;    /* of the host's SGL */
	uint32_t capsule_len; /* of the data that came in the capsule */
	uint8_t *data;        /* data_len bytes, from the loop's buffers */
	struct ctrl_io io;
	struct ctrl_namespace *ns;
	bool aborted;
	uint64_t start_ns;
	/* the transport's own */
	struct ctrl_cmd *next;
	uint32_t received, sent;
	uint16_t ttag;
	uint8_t state;
	/* a handler's own, for commands of several steps; aux is a second buffer, if prepare asked for one */
	uint64_t step[4];
	uint8_t *aux;
	uint32_t aux_len;
};

struct ctrl_command { /* one row a command */
	uint8_t opcode;
	const char *name; /* for logs and metrics */
	uint32_t effects; /* NVME_EFFECT_* for the command effects log */
	/*
	 * Check the fields and say how many bytes move: sets cmd->dir and cmd->data_len. Returns a status.
	 * NULL: no data.
	 */
	uint16_t (*prepare)(struct ctrl_cmd *cmd);
	/* Do it; cmd->data holds the host's data or is to be filled. Ends in ctrl_complete(), now or later. */
	void (*run)(struct ctrl_cmd *cmd);
	/*
	 * To the host only: run() is called without cmd->data, for it may wait long and buffers are scarce, and once
	 * more with it after it asked by ctrl_cmd_want_data().
	 */
	bool late;
	/* Abort names the command, which run() was called for: end it soon, or return false. */
	bool (*abort)(struct ctrl_cmd *cmd);
};

struct ctrl_queue { /* one connection; embedded first in the transport's own struct */
	struct ctrl_loop *loop;
	struct ctrl_server *server;
	struct ctrl_controller *ctrl; /* NULL before Connect */
	struct ctrl_queue *next;      /* of the controller */
	uint16_t qid;
	uint16_t size; /* entries */
	uint16_t sqhd;
	uint16_t parked; /* commands that stay until something happens: event requests */
	bool no_sq_flow;
	bool loopback;
	const struct ctrl_transport *transport;
	struct sockaddr_storage peer, local;
	struct ctrl_queue *loop_prev, *loop_next; /* the server's own: all queues of a loop */
	bool carries_io;    /* the server's own: counted as load of its loop */
	uint32_t in_flight; /* the server's own: commands that began and did not end */
};

/* What a transport gives; tcp_target.c is the first. */
struct ctrl_transport {
	const char *name;
	/* The command is finished: send data (if to the host and successful) and the response. */
	void (*complete)(struct ctrl_cmd *cmd);
	/* End the connection from any thread (controller reset, keep alive spent). */
	void (*close)(struct ctrl_queue *q);
	/* Take no more commands, finish those that there are, then close.  Loop thread only. */
	void (*drain)(struct ctrl_queue *q);
	/* Find an outstanding command of this queue, or NULL; for Abort. Loop thread only. */
	struct ctrl_cmd *(*find)(struct ctrl_queue *q, uint16_t cid);
	/* End a command that waits for its turn, with NVME_SC_ABORT_REQUESTED; false if it is under way. */
	bool (*abort)(struct ctrl_cmd *cmd);
	/* Get a buffer for a command whose row is late, then run it again; it may be dropped before. */
	void (*want_data)(struct ctrl_cmd *cmd);
	/* As drain(), and @cmd, which asked for it, ends last and well.  Loop thread only. */
	void (*disconnect)(struct ctrl_cmd *cmd);
};

/* A capsule arrived: look it up and prepare it. On success the transport moves data and then calls ctrl_run(). */
uint16_t ctrl_submit(struct ctrl_cmd *cmd);
void ctrl_run(struct ctrl_cmd *cmd);
/* Of a late row's run(): it is called again with cmd->data, maybe from within, unless the connection ends. */
void ctrl_cmd_want_data(struct ctrl_cmd *cmd);
/* Finish with a status (NVME_SC_*, NVME_DNR allowed); counts, logs errors, hands it to the transport. */
void ctrl_complete(struct ctrl_cmd *cmd, uint16_t status);
/* -errno of a store → NVMe status. */
uint16_t ctrl_status_of(int error, enum ctrl_io_op op);
/* Send cmd->io, filled in but for loop and done, to the command's namespace. */
void ctrl_store_submit(struct ctrl_cmd *cmd, struct ctrl_store *store,
		       void (*done)(struct ctrl_io *io, int error));
struct ctrl_cmd *ctrl_cmd_of(struct ctrl_io *io);

struct ctrl_command_set {
	const struct ctrl_command *rows;
	uint32_t n;
};
extern const struct ctrl_command_set ctrl_admin_set, ctrl_discovery_set, ctrl_nvm_set,
	ctrl_fabrics_set;
/* The tables that I/O queues have beside each other: NVM, λ, objects. */
#define CTRL_IO_SETS 5u
struct ctrl_io_set {
	int csi; /* of the namespaces whose commands these are; -1: of any, and without one */
	const struct ctrl_command_set *set;
};
extern const struct ctrl_io_set ctrl_io_sets[CTRL_IO_SETS];
/* One that this controller has: enum nvme_csi. */
bool ctrl_csi_known(uint8_t csi);

/* ---- data to the host (admin.c, admin_log.c, admin_features.c, discovery.c) ---- */

uint16_t ctrl_log_prepare(struct ctrl_cmd *cmd);
void ctrl_log_run(struct ctrl_cmd *cmd);
uint16_t ctrl_get_features_prepare(struct ctrl_cmd *cmd);
void ctrl_get_features_run(struct ctrl_cmd *cmd);
void ctrl_set_features_run(struct ctrl_cmd *cmd);
void ctrl_features_reset(struct ctrl_controller *c);
bool ctrl_feature_exists(uint8_t fid);
/* The composite temperature, which is not measured: 25 degrees, since hosts take 0 K for one. */
#define CTRL_KELVIN 298u
/* It has reached the threshold that the host set. */
bool ctrl_too_hot(const struct ctrl_controller *c);
uint16_t ctrl_set_features_prepare(struct ctrl_cmd *cmd);
/* malloc'd. */
int ctrl_discovery_log(const struct ctrl_queue *q, uint8_t **log, size_t *len);

/* ---- the server (server.c) ---- */

struct ctrl_server_opts {
	size_t size;
	struct ctrl_limits limits;
	unsigned int threads;       /* 0: up to 4, one per core */
	bool insecure_network;      /* listen elsewhere than on loopback */
	const uint32_t *allow_uids; /* else on loopback: the server's own and root; copied */
	uint32_t n_allow_uids;
	void (*log)(void *arg, const char *line); /* key=value */
	void *log_arg;
	const struct ctrl_lambda_limits *lambda; /* NULL: the default; copied */
	const char *worker; /* the executable that computes; NULL: where it is installed */
};

int ctrl_server_new(const struct ctrl_server_opts *opts, struct ctrl_server **out,
		    struct ctrl_error *err);
int ctrl_server_add_subsystem(struct ctrl_server *s, const char *nqn, const char *serial,
			      struct ctrl_error *err);
int ctrl_server_add_namespace(struct ctrl_server *s, const char *nqn, struct ctrl_store *store,
			      struct ctrl_error *err);
/* ADDR:PORT, [v6]:PORT; port 0 picks one.  @fd >= 0: an already listening socket (socket activation). */
int ctrl_server_listen(struct ctrl_server *s, const char *where, int fd, struct ctrl_error *err);
/*
 * For another service of the server: a listening socket under the same rules, whose address goes to @text;
 * @dry only checks what is written, and returns 0.
 */
int ctrl_listen_socket(const char *where, bool insecure_network, bool dry, char text[64],
		       struct ctrl_error *err);
int ctrl_server_start(struct ctrl_server *s, struct ctrl_error *err);
/*
 * Stop taking connections, finish what is outstanding (at most @ms), close, flush stores.
 * -ETIMEDOUT: a store does not answer, so the server cannot be freed: exit without.  -EIO: a flush failed.
 */
int ctrl_server_drain(struct ctrl_server *s, uint32_t ms);
void ctrl_server_free(struct ctrl_server *s);
/* The n-th listening address as ADDR:PORT. */
const char *ctrl_server_address(const struct ctrl_server *s, unsigned int n);
const struct ctrl_limits *ctrl_server_limits(const struct ctrl_server *s);
/* Linked by ->next; the discovery subsystem is one of them.  Fixed once the server has started. */
struct ctrl_subsystem *ctrl_server_subsystems(struct ctrl_server *s);
/* A queue came to its loop, or left it for good: its socket is closed and no command is left; it is freed next. */
void ctrl_server_joined(struct ctrl_queue *q);
void ctrl_server_left(struct ctrl_queue *q);
/* Prometheus' text format.  Any thread, while the server runs. */
void ctrl_server_metrics(struct ctrl_server *s, FILE *out);
/* A command arrived; and ended (its row may be NULL): metrics. */
void ctrl_server_began(const struct ctrl_cmd *cmd);
void ctrl_server_count(const struct ctrl_cmd *cmd, uint16_t status);
/* A connection was refused or ended for cause: metrics; @why is one of a few constant words. */
void ctrl_server_reject(struct ctrl_server *s, const char *why);
/* tcp_target.c: serve an accepted socket, on @loop's thread; takes @fd, also when it fails. */
int ctrl_tcp_serve(struct ctrl_server *s, struct ctrl_loop *loop, int fd);
void ctrl_log(struct ctrl_server *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif /* DEVICE_CTRL_H */
