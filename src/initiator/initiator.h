/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initiator.h - a user-space NVMe/TCP host: discover, connect, many commands in flight, reconnect.
 *
 * Owns: sockets to a target, queue pairs, PDUs in both directions, time-outs, reconnecting.
 * Does not own: what a command means beyond its data direction, files, λ.
 *
 * One struct nvme_host is a controller: an admin queue and some I/O queues, each a connection.  Commands are
 * submitted from any thread; completions are delivered by nvme_host_poll() or nvme_host_wait() on the thread that calls it, and
 * the eventfd becomes readable when there is something to deliver.  Data goes straight between the socket and
 * the caller's buffers.  Functions return 0 or -errno; nvme_host_error() has the line.
 *
 * Who waits drives the sockets, so that an answer wakes the thread that wants it and no other.  Commands move on
 * while some thread is in wait(), execute() or poll(); once nvme_host_eventfd() was called they move by
 * themselves, on the host's own thread, which otherwise sees to time-outs, keep alive and reconnecting only.
 * What done() submits goes out in one piece when the poll() or wait() that called it is through.
 *
 * After a lost connection commands that only read are sent again, a few times, unseen by the caller; what may
 * have changed something, and a flush (the cache it was for may be gone), ends with -ECONNRESET.
 */
#ifndef INITIATOR_INITIATOR_H
#define INITIATOR_INITIATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme/spec.h"
#include "nvme/status.h"

struct nvme_host;
struct queue;
struct nvme_sync;

struct nvme_host_opts {
	size_t size;         /* sizeof(struct nvme_host_opts) */
	const char *subnqn;  /* NULL: the discovery subsystem */
	const char *hostnqn; /* NULL: one made from the machine's id */
	uint8_t hostid[16];  /* zero: from the machine's id */
	unsigned int
		io_queues; /* 0: as many as cores, at most 4; a discovery controller has none */
	uint16_t depth;    /* of an I/O queue; 0: 128 */
	bool header_digest, data_digest;
	uint32_t timeout_ms;    /* of a command and of connecting; 0: 30,000 */
	uint32_t keep_alive_ms; /* 0: 15,000 */
	uint32_t reconnect_ms;  /* give up reconnecting after this; 0: never reconnect */
};

/* @where: HOST[:PORT], [v6]:PORT; the port defaults to 4420 (8009 for discovery). */
int nvme_host_connect(const char *where, const struct nvme_host_opts *opts, struct nvme_host **out);
void nvme_host_free(struct nvme_host *host);
/* Of this thread's last failing call. */
const char *nvme_host_error(void);

struct nvme_host_info {
	char subnqn[224];
	uint16_t cntlid;
	uint32_t max_transfer; /* bytes */
	uint32_t in_capsule;   /* bytes */
	unsigned int io_queues;
	uint16_t depth;
	uint64_t reconnects;
	uint64_t connection; /* 1, and one more with each reconnect: see struct nvme_req */
	bool dead;           /* it gave up reconnecting: every command ends with -ENOLINK */
};
int nvme_host_info(const struct nvme_host *host, struct nvme_host_info *info);

/* ---- commands ---- */

struct nvme_req {
	struct nvme_sqe
		sqe; /* opcode, nsid, cdw2, 3, 10..15 by the caller; the rest is filled in */
	void *data;  /* the caller's, until done */
	uint32_t len;
	bool to_controller;
	bool may_be_short; /* to the host: fewer bytes than @len are an answer; @moved says how many */
	int queue;         /* 0 admin, 1.. I/O, -1 any I/O queue */
	uint32_t timeout_ms; /* from sending on; 0: the host's */
	/*
	 * Not 0: to be sent on this connection (struct nvme_host_info) and no other, since what it names went with
	 * that one; else -ENOLINK.  What was sent then is never sent again.
	 */
	uint64_t connection;
	/*
	 * From nvme_host_poll(): @error 0 and @req->cqe valid (its status may still be an NVMe error), or
	 * -ETIMEDOUT, -ECANCELED, -ECONNRESET (what the target did with it is not known), -ENOLINK (never sent).
	 */
	void (*done)(struct nvme_req *req, int error);
	void *arg;
	struct nvme_cqe cqe;
	/* the initiator's own */
	struct nvme_req *next;
	struct nvme_sync *sync;
	uint32_t moved;
	int error;
	uint16_t cid, qid;
	uint8_t state, tries;
};

int nvme_host_submit(struct nvme_host *host, struct nvme_req *req);
/* Ask the target to abort it; done() is called all the same. */
int nvme_host_cancel(struct nvme_host *host, struct nvme_req *req);
/* Deliver what is complete; the number delivered. */
int nvme_host_poll(struct nvme_host *host);
/* The same, waiting up to @timeout_ms (-1: for ever) for at least one. */
int nvme_host_wait(struct nvme_host *host, int timeout_ms);
/* Readable while there is something to deliver; owned by the host. */
int nvme_host_eventfd(struct nvme_host *host);

/* Submit and wait: 0 and *cqe, or -errno; an NVMe error status is -EREMOTEIO with its name in nvme_host_error(). */
int nvme_host_execute(struct nvme_host *host, struct nvme_req *req);

/*
 * Several commands of one thread on one queue, waited for by it alone: no done(), no delivery by others.
 * What is added goes out in one piece with the next nvme_batch_next().
 */
struct nvme_sync { /* what ended, newest first */
	struct nvme_req *ready;
};
struct nvme_batch { /* the initiator's own */
	struct nvme_host *host;
	struct queue *queue;
	struct nvme_sync sync;
	unsigned int flying; /* added and not yet returned */
};
/* -EINVAL: a discovery controller has no I/O queues. */
int nvme_batch_begin(struct nvme_host *host, struct nvme_batch *batch);
/* 0, or -EMSGSIZE for more data than one command may move. */
int nvme_batch_add(struct nvme_batch *batch, struct nvme_req *req);
/* The next that ended, @req->error as for done(); NULL: none within @timeout_ms (-1: for ever), or none flies. */
struct nvme_req *nvme_batch_next(struct nvme_batch *batch, int timeout_ms);
/*
 * Ask the target to abort it; it still ends, with -ECANCELED or what it came to.  A target that does not answer
 * within @grace_ms loses the connection.
 */
void nvme_batch_cancel(struct nvme_batch *batch, struct nvme_req *req, uint32_t grace_ms);

/* The line, for nvme_host_error(), of a request that ended with @error; returns it. */
int nvme_host_failed(struct nvme_host *host, int error);

/*
 * In the child of a fork, whose parent has the connections: let go of the sockets without a word to the target.
 * Nothing else may be done with @host there, and its memory stays.
 */
void nvme_host_forked(struct nvme_host *host);

/* ---- what everybody needs, built on the above ---- */

int nvme_host_identify(struct nvme_host *host, uint8_t cns, uint32_t nsid, uint8_t csi,
		       void *page4096);
int nvme_host_log(struct nvme_host *host, uint8_t lid, uint32_t nsid, uint64_t offset, void *buf,
		  uint32_t len);
/* malloc'd entries. */
int nvme_host_discover(struct nvme_host *host, struct nvme_discovery_entry **entries, size_t *n);

struct nvme_host_ns {
	uint32_t nsid;
	uint64_t blocks;
	uint32_t block; /* bytes */
	uint8_t nguid[16];
	bool read_only;
};
int nvme_host_namespace(struct nvme_host *host, uint32_t nsid, struct nvme_host_ns *out);
/* Any byte count a multiple of the block; split at the target's limits and kept in flight. */
int nvme_host_read(struct nvme_host *host, uint32_t nsid, uint64_t offset, void *buf, uint64_t len);
int nvme_host_write(struct nvme_host *host, uint32_t nsid, uint64_t offset, const void *buf,
		    uint64_t len, bool fua);
int nvme_host_flush(struct nvme_host *host, uint32_t nsid);

#endif /* INITIATOR_INITIATOR_H */
