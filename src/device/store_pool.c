/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_pool.c - pools of threads for calls that block.
 *
 * One is for store requests: all of a file's where io_uring is refused, and large ones of stores that have no
 * asynchronous way.  Each exported directory has its own, so that a file system that hangs hangs nobody else.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device/loop_private.h"

#define POOL_THREADS 16u

struct ctrl_pool {
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work;
	struct ctrl_task *first, *last;
	uint32_t waiting; /* threads that wait for work */
	uint32_t queued;
	uint32_t n, max; /* threads */
	bool stop;
	char name[16];
	uint32_t refs; /* of the one that is shared */
	pthread_t threads[POOL_THREADS];
};

static void *pool_main(void *arg)
{
	struct ctrl_pool *p = arg;

	pthread_setname_np(pthread_self(), p->name);
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct ctrl_task *t = p->first;

		if (t) {
			p->first = t->next;
			p->queued--;
			pthread_mutex_unlock(&p->lock);
			t->run(t);
			pthread_mutex_lock(&p->lock);
		} else if (p->stop) {
			break;
		} else {
			p->waiting++;
			pthread_cond_wait(&p->work, &p->lock);
			p->waiting--;
		}
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void ctrl_pool_task(struct ctrl_pool *p, struct ctrl_task *t)
{
	bool alone;

	pthread_mutex_lock(&p->lock);
	if (p->queued + 1 > p->waiting && p->n < p->max &&
	    !pthread_create(&p->threads[p->n], NULL, pool_main, p))
		p->n++;
	alone = !p->n;
	if (!alone) {
		t->next = NULL;
		if (p->first)
			p->last->next = t;
		else
			p->first = t;
		p->last = t;
		p->queued++;
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	/* Not one thread to be had: a caller that blocks is better than no answer. */
	if (alone)
		t->run(t);
}

static void work(struct ctrl_task *t)
{
	struct ctrl_io *io = (struct ctrl_io *)((char *)t - offsetof(struct ctrl_io, task));

	ctrl_loop_return(io, io->work(io));
}

void ctrl_pool_io(struct ctrl_pool *p, struct ctrl_io *io, int (*fn)(struct ctrl_io *io))
{
	io->work = fn;
	io->task.run = work;
	ctrl_loop_sent(io->loop);
	ctrl_pool_task(p, &io->task);
}

uint32_t ctrl_pool_queued(struct ctrl_pool *p)
{
	uint32_t n;

	pthread_mutex_lock(&p->lock);
	n = p->queued;
	pthread_mutex_unlock(&p->lock);
	return n;
}

bool ctrl_pool_idle(struct ctrl_pool *p)
{
	bool idle;

	pthread_mutex_lock(&p->lock);
	idle = !p->queued && p->waiting == p->n;
	pthread_mutex_unlock(&p->lock);
	return idle;
}

static void end(struct ctrl_pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < p->n; i++)
		pthread_join(p->threads[i], NULL);
	p->n = 0;
	p->stop = false;
}

struct ctrl_pool *ctrl_pool_new(const char *name, uint32_t threads)
{
	struct ctrl_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	p->max = threads < POOL_THREADS ? threads : POOL_THREADS;
	memcpy(p->name, name, strnlen(name, sizeof(p->name) - 1));
	return p;
}

void ctrl_pool_free(struct ctrl_pool *p)
{
	if (!p)
		return;
	end(p);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* ---- the stores' ---- */

static struct ctrl_pool shared = {.lock = PTHREAD_MUTEX_INITIALIZER,
				  .work = PTHREAD_COND_INITIALIZER,
				  .max = POOL_THREADS,
				  .name = "store"};

void ctrl_pool_submit(struct ctrl_io *io, int (*fn)(struct ctrl_io *io))
{
	ctrl_pool_io(&shared, io, fn);
}

void ctrl_pool_ref(void)
{
	pthread_mutex_lock(&shared.lock);
	shared.refs++;
	pthread_mutex_unlock(&shared.lock);
}

void ctrl_pool_unref(void)
{
	bool last;

	pthread_mutex_lock(&shared.lock);
	last = !--shared.refs;
	pthread_mutex_unlock(&shared.lock);
	if (last)
		end(&shared);
}
