/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - what the initiator's files owe each other.
 *
 *   host.c       a host's life: options, connecting, info, delivering completions
 *   keeper.c     the host's own thread: time-outs, keep alive, reconnecting
 *   handshake.c  from an address to a queue that takes commands
 *   queue.c      commands on one connection: identifiers, sending, waiting
 *   receive.c    what the target sends
 *   batch.c      several commands of one thread
 *   commands.c   identify, logs, namespaces, reading and writing ranges
 *   error.c      the calling thread's last failure
 *
 * Locks: a queue's lock, then the host's leaf lock; never two queues' locks.
 */
#ifndef INITIATOR_INTERNAL_H
#define INITIATOR_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "initiator/initiator.h"
#include "nvme/tcp.h"

#define MS                1000000ull
#define ADMIN_COMMANDS    31u   /* in flight; the smallest admin queue has 32 entries */
#define ADMIN_IN_CAPSULE  8192u /* bytes, fixed by the transport specification */
#define MAX_IO_QUEUES     64u
#define MAX_DEPTH         4096u
#define MAX_TRANSFER      (1u << 20) /* bytes of one command, whatever the target offers */
#define RX_BUFFER         65536u
#define KNOWN_NAMESPACES  16u
#define DISCOVERY_ENTRIES 4096u
#define MAX_TRIES         5u /* of a command that may be the reason why connections end */

enum req_state {
	REQ_IDLE,
	REQ_WAITING, /* in a queue's list, not sent */
	REQ_SENT,    /* has a command identifier */
	REQ_DONE,
};

struct slot {                 /* one command identifier */
	struct nvme_req *req; /* NULL: free */
	struct slot *tx_next;
	uint64_t deadline_ns;
	/* the PDU being sent: header, then @data_len bytes at @data_at of the data, then a digest */
	uint32_t head_len, data_at, data_len, tx_at;
	uint32_t r2t_at, r2t_end; /* asked for by R2T and not yet in a PDU */
	nvme_le32 digest;
	uint16_t ttag;
	bool queued;     /* in the list of what is to be sent */
	bool capsule;    /* it is the command capsule */
	bool sent;       /* some of it went out: the target may know of the command */
	bool in_capsule; /* the data went with the command */
	bool answered;   /* the response came while a PDU was half sent */
	bool cancelled, expired, aborting;
	uint8_t head[NVME_TCP_MAX_HEADER];
};

struct receiver {
	uint8_t *buf;
	uint32_t at, end; /* bytes in buf not looked at */
	enum {
		RX_HEADER,
		RX_DATA,
		RX_DIGEST
	} phase;
	struct slot *slot; /* whose data come */
	uint32_t left;     /* bytes of data to come in this PDU */
	uint32_t crc;
	uint8_t flags; /* of the PDU */
	bool large;    /* the last data were worth reading straight into place */
};

struct queue {
	struct nvme_host *host;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* a request is done, the leader left, the queue came or went */
	uint16_t qid, depth; /* commands in flight at most */
	int fd, kick;        /* kick: an eventfd that wakes the leader */
	bool live;           /* takes the callers' commands */
	bool failed;
	bool leader, asleep; /* a thread polls for those that wait for a request; it is in poll() */
	bool receiving;      /* a thread is in recvmsg() without the lock: nobody else may read */
	unsigned int followers; /* threads waiting on cond */
	unsigned int polling,
		pollout; /* threads in poll() on fd; those of them that wait for room, too */
	bool hdgst, ddgst;
	uint32_t align, max_h2c, in_capsule;
	struct slot *slots;
	uint16_t *free, n_free;
	struct nvme_req *wait, **wait_end;
	struct slot *tx, **tx_end;
	struct receiver rx;
};

struct nvme_host {
	struct nvme_host_opts opts;
	char address[300]; /* as given, for messages */
	char node[256], port[32];
	char subnqn[NVME_NQN_MAX + 1], hostnqn[NVME_NQN_MAX + 1];
	bool discovery;
	unsigned int n_queues; /* the admin queue included */
	struct queue *queues;  /* 1 + opts.io_queues allocated */

	pthread_mutex_t leaf; /* what follows */
	struct nvme_req *done, **done_end;
	unsigned int sleepers; /* in nvme_host_wait() */
	bool exported, signalled;
	int why_code;
	char why[256]; /* the connection was lost */
	struct nvme_host_ns known[KNOWN_NAMESPACES];
	unsigned int known_at;
	uint64_t
		generation; /* of known: what was learned before a reconnect is not kept after it */

	int eventfd;
	atomic_bool broken; /* some queue failed; the keeper takes all down */
	atomic_bool dead;   /* and will not bring them back */
	atomic_bool stopping;
	atomic_ullong keeper_wakes; /* ns; UINT64_MAX while it is awake */
	int keeper_kick;
	pthread_t keeper;
	bool keeper_runs;
	struct nvme_req keep_alive, abort;
	uint64_t keep_alive_at;
	uint32_t kato_ms;

	/* from the handshake */
	atomic_uint cntlid, depth, max_transfer, in_capsule;
	uint32_t config; /* CC */
	char serial[20];
	bool met; /* serial is known: another device may not take its place */
	atomic_ullong reconnects;
};

/* ---- error.c ---- */

/* Keep the line for nvme_host_error(); returns @err. */
int initiator_fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* -EREMOTEIO and the status' text if @cqe has an error. */
int initiator_status(const struct nvme_host *host, const char *what, const struct nvme_req *req);
uint64_t now_ns(void);
/* For poll(): rounded up, -1 for UINT64_MAX. */
int ms_until(uint64_t at_ns);
void kick(int eventfd);
void unkick(int eventfd);

/* ---- host.c ---- */

/* Hand a finished request to whoever polls. */
void host_deliver(struct nvme_host *host, struct nvme_req *req);
/* Let threads in nvme_host_wait() look again. */
void host_wake(struct nvme_host *host);
/* A connection is lost: remember why, get the keeper to work. */
void host_broken(struct nvme_host *host, int err, const char *why);
/* Which queue a request goes to, NULL if there is none such. */
struct queue *host_queue(struct nvme_host *host, const struct nvme_req *req);

/* ---- queue.c: all with the queue's lock held, but init, free and call ---- */

int queue_init(struct queue *q, struct nvme_host *host, uint16_t qid, uint16_t depth);
void queue_free(struct queue *q);
void queue_lock(struct queue *q);
/* Lets go, after seeing to it that what could not be sent is waited for. */
void queue_unlock(struct queue *q);
/* Put a request in line; the caller sends with queue_pump(). */
void queue_append(struct queue *q, struct nvme_req *req);
/* Start what waits and send. */
void queue_pump(struct queue *q);
/* Send, receive, start: everything that can be done without waiting. */
void queue_drive(struct queue *q);
/* Sleep until one of the @sync's requests is ready (the queue's lock is let go meanwhile). */
void queue_wait(struct queue *q, const struct nvme_sync *sync);
/* The same, but not beyond @deadline_ns; UINT64_MAX: for ever. */
void queue_wait_until(struct queue *q, const struct nvme_sync *sync, uint64_t deadline_ns);
/* Take a request out of the line; false if it is not in it. */
bool queue_unlink(struct queue *q, struct nvme_req *req);
/* Around a poll() of q->fd without the lock: which events to wait for. */
short queue_poll_begin(struct queue *q);
void queue_poll_end(struct queue *q, short events);
/* The connection is of no use any more. */
void queue_fail(struct queue *q, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Run one command of the handshake on a queue that is not live yet. */
int queue_call(struct queue *q, struct nvme_req *req, uint64_t deadline_ns);
/* A response, or success without one, for this slot. */
void queue_answer(struct queue *q, struct slot *s);
/* Take up what an R2T asked for: s->r2t_at and s->r2t_end are set. */
void queue_send_data(struct queue *q, struct slot *s);
/* End a request, whatever its state. */
void queue_complete(struct queue *q, struct nvme_req *req, int err);
/* Close the socket once nobody polls it.  What was sent and may be sent again waits if @again, the rest ends. */
void queue_close(struct queue *q, bool again);
/* End all that wait. */
void queue_drop(struct queue *q, int err);

/* ---- receive.c ---- */

void queue_receive(struct queue *q);
/* The same, asleep in the read itself until something comes: one system call less than to poll() first. */
void queue_receive_waiting(struct queue *q);

/* ---- handshake.c ---- */

/* Connect, enable and size everything; the queues are live on success. */
int host_establish(struct nvme_host *host);
/* Tell the controller to shut down, waiting a little. */
void host_shutdown(struct nvme_host *host);

/* ---- keeper.c ---- */

void *keeper_main(void *host);

#endif /* INITIATOR_INTERNAL_H */
