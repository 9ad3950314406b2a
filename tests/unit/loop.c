/* SPDX-License-Identifier: Apache-2.0 */
/* What an event loop, its timers and its buffers promise to those who live on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "device/loop.h"

#define MS 1000000ull

static struct ctrl_loop *new_loop(uint64_t memory)
{
	const struct ctrl_loop_opts opts = {.max_transfer = 1u << 20, .buffer_memory = memory};
	struct ctrl_loop *loop;

	assert_int_equal(ctrl_loop_new(&opts, &loop), 0);
	return loop;
}

/* A test's body that runs on the loop's thread; checks are made there and read here. */
struct on_loop {
	struct ctrl_loop *loop;
	void (*fn)(struct on_loop *c);
	void *arg;
	sem_t done;
};

static void on_loop_run(void *arg)
{
	struct on_loop *c = arg;

	c->fn(c);
}

static void begin(struct on_loop *c, struct ctrl_loop *loop, void (*fn)(struct on_loop *),
		  void *arg)
{
	*c = (struct on_loop){.loop = loop, .fn = fn, .arg = arg};
	sem_init(&c->done, 0, 0);
	assert_int_equal(ctrl_loop_post(loop, on_loop_run, c), 0);
}

static void finish(struct on_loop *c)
{
	while (sem_wait(&c->done))
		;
	sem_destroy(&c->done);
}

static void run(struct ctrl_loop *loop, void (*fn)(struct on_loop *), void *arg)
{
	struct on_loop c;

	begin(&c, loop, fn, arg);
	finish(&c);
}

/* ---- posts ---- */

#define POSTERS 4u
#define POSTS   1000u

struct counted {
	struct ctrl_loop *loop;
	uint32_t last[POSTERS];
	uint32_t n;
	bool wrong;
};
struct ticket {
	struct counted *to;
	uint32_t poster, number;
};

static void count_ticket(void *arg)
{
	struct ticket *t = arg;

	t->to->wrong |= !ctrl_loop_is_current(t->to->loop) || t->number != t->to->last[t->poster];
	t->to->last[t->poster]++;
	t->to->n++;
	free(t);
}

struct poster {
	struct counted *to;
	uint32_t id;
};

static void *post_many(void *arg)
{
	struct poster *p = arg;

	for (uint32_t i = 0; i < POSTS; i++) {
		struct ticket *t = malloc(sizeof(*t));

		*t = (struct ticket){p->to, p->id, i};
		if (ctrl_loop_post(p->to->loop, count_ticket, t))
			abort();
	}
	return NULL;
}

static void what_threads_post_runs_once_each_in_their_order_on_the_loops_thread(void **state)
{
	struct counted c = {.loop = new_loop(1 << 20)};
	struct poster posters[POSTERS];
	pthread_t threads[POSTERS];

	for (uint32_t i = 0; i < POSTERS; i++) {
		posters[i] = (struct poster){&c, i};
		assert_int_equal(pthread_create(&threads[i], NULL, post_many, &posters[i]), 0);
	}
	for (uint32_t i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	ctrl_loop_free(c.loop); /* what was posted has run when this returns */
	assert_int_equal(c.n, POSTERS * POSTS);
	assert_false(c.wrong);
}

/* ---- later ---- */

struct laters {
	struct ctrl_later later;
	struct on_loop *c;
	uint32_t runs;
	bool too_early, again;
};

static struct laters *laters_now;

static void first_later(struct ctrl_later *l)
{
	struct laters *t = laters_now;

	t->runs++;
	if (!t->again) {
		t->again = true;
		ctrl_loop_later(t->c->loop, l); /* from within: runs once more */
	} else {
		sem_post(&t->c->done);
	}
}

static void ask_later(struct on_loop *c)
{
	struct laters *t = c->arg;

	t->c = c;
	t->later.run = first_later;
	ctrl_loop_later(c->loop, &t->later);
	ctrl_loop_later(c->loop, &t->later); /* queued already */
	t->too_early = t->runs;
}

static void what_is_put_off_runs_once_after_the_events_of_the_round(void **state)
{
	struct ctrl_loop *loop = new_loop(1 << 20);
	struct laters t = {0};

	laters_now = &t;
	run(loop, ask_later, &t);
	assert_false(t.too_early);
	assert_int_equal(t.runs, 2);
	ctrl_loop_free(loop);
}

/* ---- timers ---- */

#define TIMERS 200u

struct timed {
	struct ctrl_timer timer;
	uint64_t due;
	bool fired, early, twice, cancelled;
	struct timers_test *test;
};
struct timers_test {
	struct timed t[TIMERS];
	uint32_t left;
	struct on_loop *c;
};

static void timed_fire(struct ctrl_timer *timer)
{
	struct timed *t = (struct timed *)timer;

	t->twice = t->fired;
	t->fired = true;
	t->early = ctrl_now_ns() < t->due;
	if (!--t->test->left)
		sem_post(&t->test->c->done);
}

static void arm_timers(struct on_loop *c)
{
	struct timers_test *test = c->arg;

	test->c = c;
	for (uint32_t i = 0; i < TIMERS; i++) {
		struct timed *t = &test->t[i];
		uint64_t ms = (i * 37) % 600;

		t->test = test;
		t->timer.fire = timed_fire;
		/* Armed again for another time: only the last counts. */
		ctrl_timer_arm(c->loop, &t->timer, 1);
		t->due = ctrl_now_ns() + ms * MS;
		ctrl_timer_arm(c->loop, &t->timer, ms);
		t->cancelled = i % 3 == 0;
	}
	for (uint32_t i = 0; i < TIMERS; i++) {
		if (test->t[i].cancelled)
			ctrl_timer_cancel(c->loop, &test->t[i].timer);
		else
			test->left++;
	}
}

static void timers_fire_once_and_never_early_unless_they_were_cancelled(void **state)
{
	struct ctrl_loop *loop = new_loop(1 << 20);
	static struct timers_test test;

	run(loop, arm_timers, &test);
	for (uint32_t i = 0; i < TIMERS; i++) {
		assert_int_equal(test.t[i].fired, !test.t[i].cancelled);
		assert_false(test.t[i].early);
		assert_false(test.t[i].twice);
		assert_true(test.t[i].timer.at_ns == 0);
	}
	ctrl_loop_free(loop);
}

static uint64_t thread_cpu_ns(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
	assert_int_equal(clock_gettime(clock, &ts), 0);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct idle {
	struct ctrl_timer timer[1000];
	pthread_t thread;
	uint32_t fired;
};

static void idle_fire(struct ctrl_timer *t)
{
}

static void arm_far(struct on_loop *c)
{
	struct idle *idle = c->arg;

	idle->thread = pthread_self();
	for (uint32_t i = 0; i < 1000; i++) {
		idle->timer[i].fire = idle_fire;
		ctrl_timer_arm(c->loop, &idle->timer[i], 60000 + i * 10);
	}
	sem_post(&c->done);
}

static void cancel_far(struct on_loop *c)
{
	struct idle *idle = c->arg;

	for (uint32_t i = 0; i < 1000; i++)
		ctrl_timer_cancel(c->loop, &idle->timer[i]);
	sem_post(&c->done);
}

static void a_loop_with_a_thousand_far_timers_does_not_run_at_all(void **state)
{
	struct ctrl_loop *loop = new_loop(1 << 20);
	static struct idle idle;
	uint64_t before;

	run(loop, arm_far, &idle);
	usleep(20000); /* it goes to sleep */
	before = thread_cpu_ns(idle.thread);
	usleep(300000);
	assert_true(thread_cpu_ns(idle.thread) == before);
	run(loop, cancel_far, &idle);
	ctrl_loop_free(loop);
}

/* ---- what is watched ---- */

struct watched {
	struct ctrl_watch watch[2];
	int fd[2];
	uint32_t calls;
	struct on_loop *c;
};

static struct watched *watched_now;

static void watched_ready(struct ctrl_watch *w, uint32_t events)
{
	struct watched *t = watched_now;

	t->calls++;
	/* Both are ready in this round; the other must not be called any more. */
	ctrl_loop_unwatch(t->c->loop, &t->watch[0]);
	ctrl_loop_unwatch(t->c->loop, &t->watch[1]);
	memset(t->watch, 0x5a, sizeof(t->watch));
	sem_post(&t->c->done);
}

static void watch_both(struct on_loop *c)
{
	struct watched *t = c->arg;

	t->c = c;
	for (int i = 0; i < 2; i++) {
		t->fd[i] = eventfd(1, EFD_CLOEXEC);
		t->watch[i] = (struct ctrl_watch){.fd = t->fd[i], .ready = watched_ready};
		ctrl_loop_watch(c->loop, &t->watch[i], EPOLLIN);
	}
}

static void nobody_is_called_after_unwatch_not_even_in_the_same_round(void **state)
{
	struct ctrl_loop *loop = new_loop(1 << 20);
	struct watched t = {0};

	watched_now = &t;
	run(loop, watch_both, &t);
	ctrl_loop_free(loop);
	assert_int_equal(t.calls, 1);
	close(t.fd[0]);
	close(t.fd[1]);
}

/* ---- buffers ---- */

#define BUFFERS 64u

static void try_buffers(struct on_loop *c)
{
	static const uint32_t sizes[] = {1,      512,    4096,   4097,   16384,
					 100000, 131072, 524288, 1048576};
	bool *ok = c->arg;
	struct {
		uint8_t *p;
		uint32_t len;
	} b[BUFFERS] = {0};
	uint32_t seed = 1;

	*ok = true;
	for (uint32_t round = 0; round < 20000; round++) {
		uint32_t i = (seed = seed * 1664525u + 1013904223u) >> 8 & (BUFFERS - 1);

		if (b[i].p) {
			/* Nobody else wrote into it. */
			*ok &= b[i].p[0] == (uint8_t)i && b[i].p[b[i].len - 1] == (uint8_t)i;
			ctrl_loop_buffer_put(c->loop, b[i].p, b[i].len);
			b[i].p = NULL;
			continue;
		}
		b[i].len = sizes[(seed >> 20) % (sizeof(sizes) / sizeof(sizes[0]))];
		b[i].p = ctrl_loop_buffer_get(c->loop, b[i].len);
		if (!b[i].p)
			continue;
		*ok &= (uintptr_t)b[i].p % 4096 == 0;
		b[i].p[0] = b[i].p[b[i].len - 1] = (uint8_t)i;
	}
	for (uint32_t i = 0; i < BUFFERS; i++) {
		if (b[i].p)
			ctrl_loop_buffer_put(c->loop, b[i].p, b[i].len);
	}
	/* All came back and joined: the whole budget is there again, and no more. */
	for (uint32_t i = 0; i < 8; i++)
		*ok &= (b[i].p = ctrl_loop_buffer_get(c->loop, 1 << 20)) != NULL;
	*ok &= !ctrl_loop_buffer_get(c->loop, 1);
	*ok &= ctrl_loop_buffer_bytes(c->loop) == 8u << 20;
	for (uint32_t i = 0; i < 8; i++)
		ctrl_loop_buffer_put(c->loop, b[i].p, 1 << 20);
	*ok &= !ctrl_loop_buffer_get(c->loop, (1 << 20) + 1);
	sem_post(&c->done);
}

static void buffers_are_aligned_apart_and_never_more_than_the_budget(void **state)
{
	struct ctrl_loop *loop = new_loop(8 << 20);
	bool ok;

	run(loop, try_buffers, &ok);
	assert_true(ok);
	ctrl_loop_free(loop);
}

struct waiter {
	struct ctrl_buffer_wait wait;
	uint32_t order;
	void *got;
};
struct waiting {
	struct waiter w[3];
	void *held[3];
	uint32_t told;
	bool barged;
	struct on_loop *c;
	struct ctrl_timer timer;
};

static struct waiting *waiting_now;

static void waiter_ready(struct ctrl_buffer_wait *wait)
{
	struct waiter *w = (struct waiter *)wait;
	struct waiting *t = waiting_now;

	w->order = ++t->told;
	w->got = ctrl_loop_buffer_get(t->c->loop, wait->len);
	if (t->told == 3)
		sem_post(&t->c->done);
}

static void give_back(struct ctrl_timer *timer)
{
	struct waiting *t = waiting_now;

	/* Half of what the first wants is free now: nobody is told, and nobody passes. */
	if (t->held[0]) {
		ctrl_loop_buffer_put(t->c->loop, t->held[0], 512 << 10);
		t->held[0] = NULL;
		t->barged = ctrl_loop_buffer_get(t->c->loop, 4096);
		ctrl_timer_arm(t->c->loop, timer, 10);
		return;
	}
	t->barged |= t->told;
	ctrl_loop_buffer_put(t->c->loop, t->held[1], 512 << 10);
	ctrl_loop_buffer_put(t->c->loop, t->held[2], 1 << 20);
}

static void wait_for_buffers(struct on_loop *c)
{
	struct waiting *t = c->arg;

	t->c = c;
	t->held[0] = ctrl_loop_buffer_get(c->loop, 512 << 10);
	t->held[1] = ctrl_loop_buffer_get(c->loop, 512 << 10);
	t->held[2] = ctrl_loop_buffer_get(c->loop, 1 << 20);
	for (uint32_t i = 0; i < 3; i++) {
		t->w[i].wait.ready = waiter_ready;
		t->w[i].wait.len = i ? 4096 : 1 << 20;
		ctrl_loop_buffer_wait(c->loop, &t->w[i].wait);
	}
	t->timer.fire = give_back;
	ctrl_timer_arm(c->loop, &t->timer, 10);
}

static void those_who_wait_for_buffers_are_served_in_their_order(void **state)
{
	struct ctrl_loop *loop = new_loop(2 << 20);
	struct waiting t = {0};

	waiting_now = &t;
	run(loop, wait_for_buffers, &t);
	ctrl_loop_free(loop);
	assert_false(t.barged);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(t.w[i].order, i + 1);
		assert_non_null(t.w[i].got);
		assert_false(t.w[i].wait.waiting);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			what_threads_post_runs_once_each_in_their_order_on_the_loops_thread),
		cmocka_unit_test(what_is_put_off_runs_once_after_the_events_of_the_round),
		cmocka_unit_test(timers_fire_once_and_never_early_unless_they_were_cancelled),
		cmocka_unit_test(a_loop_with_a_thousand_far_timers_does_not_run_at_all),
		cmocka_unit_test(nobody_is_called_after_unwatch_not_even_in_the_same_round),
		cmocka_unit_test(buffers_are_aligned_apart_and_never_more_than_the_budget),
		cmocka_unit_test(those_who_wait_for_buffers_are_served_in_their_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
