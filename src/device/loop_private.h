/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_private.h - an event loop's inside: loop.c, timers.c and buffers.c.
 */
#ifndef DEVICE_LOOP_PRIVATE_H
#define DEVICE_LOOP_PRIVATE_H

#include <liburing.h>
#include <sys/epoll.h>

#include "device/loop.h"

/*
 * Timers: a wheel of levels, each 8 times coarser than the one before.  A timer is put once, rounded up to
 * its level's grain, and never moved: late by an eighth at most.
 */
#define TIMER_TICK_MS    8u
#define TIMER_LEVEL_BITS 3u /* a level's grain to the next one's */
#define TIMER_SLOTS      64u
#define TIMER_LEVELS     7u /* the last one reaches 37 hours */

struct timers {
	struct ctrl_timer *slot[TIMER_LEVELS * TIMER_SLOTS];
	uint64_t used[TIMER_LEVELS]; /* a bit for each slot that is not empty */
	uint64_t tick;               /* every slot before this tick has fired */
};

void timers_init(struct timers *t);
void timers_arm(struct timers *t, struct ctrl_timer *timer, uint64_t in_ms);
void timers_cancel(struct timers *t, struct ctrl_timer *timer);
/* Fire what is due. */
void timers_run(struct timers *t);
/* The tick at which something may be due; UINT64_MAX: nothing is armed. */
uint64_t timers_next(const struct timers *t);

/*
 * Buffers: a buddy allocator over address space that is reserved once.  A top block (one largest buffer)
 * gets memory when it is first used and gives it back when it was long idle.
 */
#define BUFFER_PAGE_BITS 12u
#define BUFFER_ORDERS    20u
#define BUFFER_NONE      UINT32_MAX

struct buffers {
	uint8_t *base;
	uint32_t top;            /* order of a top block: its size is 4096 << top */
	uint32_t n_top;          /* top blocks that the budget allows */
	_Atomic uint32_t n_used; /* top blocks that have memory */
	uint32_t *next, *prev;   /* of a free block, by its first page; links of free lists */
	uint8_t *order;          /* of a free block, by its first page; else BUFFER_TAKEN */
	uint8_t *used;           /* a top block has memory; 2: and is registered with the ring */
	uint32_t free[BUFFER_ORDERS];
	uint32_t idle,
		idle_min; /* free top blocks with memory now, and the fewest since the last look */
	struct ctrl_timer trim;
	bool registers; /* the ring takes registered buffers */
	bool waking;
	bool returned; /* since the last wake */
	struct ctrl_buffer_wait *first, *last;
	uint32_t n_waiting;
};

int buffers_init(struct ctrl_loop *loop, uint32_t max_transfer, uint64_t memory);
/* On the loop's thread, once the ring is there. */
void buffers_register(struct ctrl_loop *loop);
void buffers_free(struct buffers *b);
/* Tell those who wait, if buffers came back. */
void buffers_wake(struct ctrl_loop *loop);

struct post {
	void (*fn)(void *arg);
	void *arg;
	struct post *next;
};

struct io_list {
	struct ctrl_io *first, *last;
};

#define LOOP_EVENTS 64

struct ctrl_loop {
	pthread_t thread;
	int epoll, wake; /* wake: an eventfd for what other threads leave */
	struct ctrl_watch wake_watch, ring_watch, alarm_watch;
	struct epoll_event events[LOOP_EVENTS];
	int event_at, event_n; /* those being dispatched */
	struct timers timers;
	uint64_t alarm; /* the tick for which alarm_watch's timerfd is set; UINT64_MAX: it is not */
	struct buffers buffers;
	struct io_uring ring;
	bool has_ring;
	bool ring_quiet;         /* it tells of completions only while the loop sleeps */
	uint32_t in_ring;        /* requests that the ring has */
	uint32_t elsewhere;      /* requests that other threads have */
	struct io_list finished; /* done() is to be called */
	struct io_list parked;   /* wait for room in the ring */
	struct ctrl_later *later, **later_end;
	bool stop;
	void *user;

	pthread_mutex_t lock; /* what follows */
	bool woken;
	struct post *posts, **posts_end;
	struct io_list returned;
	bool ready; /* the thread has set itself up */
	pthread_cond_t is_ready;
};

static inline void io_list_add(struct io_list *l, struct ctrl_io *io)
{
	io->next = NULL;
	if (l->last)
		l->last->next = io;
	else
		l->first = io;
	l->last = io;
}

#endif /* DEVICE_LOOP_PRIVATE_H */
