/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - what the event loop, its buffers, the stores and the server know of each other beside ctrl.h.
 */
#ifndef DEVICE_LOOP_H
#define DEVICE_LOOP_H

#include "device/ctrl.h"

struct io_uring_sqe;

struct ctrl_loop_opts {
	bool no_ring;          /* as where io_uring is refused */
	uint32_t max_transfer; /* the largest buffer; rounded up to a power of two */
	uint64_t
		buffer_memory; /* bytes of data buffers of this loop; at least one of the largest */
	void *user;
};

/* Starts the loop's thread. */
int ctrl_loop_new(const struct ctrl_loop_opts *opts, struct ctrl_loop **out);
/* Ends the thread once its store requests are done and all that was posted has run.  Not on that thread. */
void ctrl_loop_free(struct ctrl_loop *loop);
void *ctrl_loop_user(const struct ctrl_loop *loop);
/* Bytes of data buffers that have memory now.  Any thread. */
uint64_t ctrl_loop_buffer_bytes(const struct ctrl_loop *loop);
bool ctrl_loop_is_current(const struct ctrl_loop *loop);
/* NULL, or why there is no io_uring in this process: the kernel's error, asked for once, or "off". */
const char *ctrl_ring_refused(void);

/* ---- for stores ---- */

/* @io->done(@io, @error) from the loop, soon.  Loop thread. */
void ctrl_loop_finish(struct ctrl_io *io, int error);
/*
 * A submission entry whose completion calls io->step(io, result).  NULL: the ring is full; io->step(io,
 * -EAGAIN) is called when there is room.  Loop thread; the loop has a ring.
 */
struct io_uring_sqe *ctrl_loop_sqe(struct ctrl_io *io);
/* The ring's index of the registered buffer that holds [@p, @p + @len), or -1. */
int ctrl_loop_buffer_index(struct ctrl_loop *loop, const void *p, uint64_t len);

/* The thread pool (store_pool.c): @work's result goes to io->done on io->loop.  Loop thread. */
void ctrl_pool_submit(struct ctrl_io *io, int (*work)(struct ctrl_io *io));
/* Its threads start as they are needed and end with the last user. */
void ctrl_pool_ref(void);
void ctrl_pool_unref(void);
/*
 * A pool of one's own, of at most @threads.  Tasks may come from any thread; where not one thread is to be had
 * a task runs at once.  Free waits for what the pool has.
 */
struct ctrl_pool;
struct ctrl_pool *ctrl_pool_new(const char *name, uint32_t threads);
void ctrl_pool_free(struct ctrl_pool *p);
void ctrl_pool_task(struct ctrl_pool *p, struct ctrl_task *t);
void ctrl_pool_io(struct ctrl_pool *p, struct ctrl_io *io, int (*fn)(struct ctrl_io *io));
/* What waits for a thread. */
uint32_t ctrl_pool_queued(struct ctrl_pool *p);
/* It has nothing to do. */
bool ctrl_pool_idle(struct ctrl_pool *p);
/* From a thread of the pool: as ctrl_loop_finish(). */
void ctrl_loop_return(struct ctrl_io *io, int error);
/* A request is on its way to another thread: the loop does not end before it returned. */
void ctrl_loop_sent(struct ctrl_loop *loop);

/* ---- the stores' tables ---- */

extern const struct ctrl_store_ops ctrl_store_file, ctrl_store_ram, ctrl_store_null;
/* "512M", "1T", "4096": bytes. */
int ctrl_parse_size(const char *text, uint64_t *bytes);

#endif /* DEVICE_LOOP_H */
