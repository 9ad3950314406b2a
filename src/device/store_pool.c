/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_pool.c - threads for store requests that block: all of a file's where io_uring is refused, and large
 * ones of stores that have no asynchronous way.
 */
#include <pthread.h>
#include <stdlib.h>

#include "device/loop_private.h"

#define POOL_THREADS 16u

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct io_list queue;
	uint32_t waiting; /* threads that wait for work */
	uint32_t queued;
	uint32_t n;
	pthread_t threads[POOL_THREADS];
	uint32_t refs;
	bool stop;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

static void *pool_main(void *arg)
{
	pthread_setname_np(pthread_self(), "store");
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		struct ctrl_io *io = pool.queue.first;

		if (io) {
			pool.queue.first = io->next;
			if (!io->next)
				pool.queue.last = NULL;
			pool.queued--;
			pthread_mutex_unlock(&pool.lock);
			ctrl_loop_return(io, io->work(io));
			pthread_mutex_lock(&pool.lock);
		} else if (pool.stop) {
			break;
		} else {
			pool.waiting++;
			pthread_cond_wait(&pool.work, &pool.lock);
			pool.waiting--;
		}
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

void ctrl_pool_submit(struct ctrl_io *io, int (*work)(struct ctrl_io *io))
{
	bool alone;

	io->work = work;
	ctrl_loop_sent(io->loop);
	pthread_mutex_lock(&pool.lock);
	io_list_add(&pool.queue, io);
	pool.queued++;
	if (pool.queued > pool.waiting && pool.n < POOL_THREADS &&
	    !pthread_create(&pool.threads[pool.n], NULL, pool_main, NULL))
		pool.n++;
	alone = !pool.n;
	if (alone) { /* not one thread to be had: a loop that blocks is better than no answer */
		pool.queue = (struct io_list){0};
		pool.queued = 0;
	}
	pthread_cond_signal(&pool.work);
	pthread_mutex_unlock(&pool.lock);
	if (alone)
		ctrl_loop_return(io, work(io));
}

void ctrl_pool_ref(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.refs++;
	pthread_mutex_unlock(&pool.lock);
}

void ctrl_pool_unref(void)
{
	pthread_mutex_lock(&pool.lock);
	if (--pool.refs) {
		pthread_mutex_unlock(&pool.lock);
		return;
	}
	pool.stop = true;
	pthread_cond_broadcast(&pool.work);
	pthread_mutex_unlock(&pool.lock);
	for (uint32_t i = 0; i < pool.n; i++)
		pthread_join(pool.threads[i], NULL);
	pool.n = 0;
	pool.stop = false;
}
