/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - an event loop: one thread that sleeps in epoll_wait() until a socket, the ring, a timer or
 * another thread has something for it.
 *
 * One turn: timers, events, then what those finished and the ring's requests, entered once for all of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "device/loop_private.h"

#define RING_ENTRIES     256u
#define RING_COMPLETIONS 4096u
/* Rounds of finishing and submitting in a turn, before sockets are looked at again. */
#define SETTLE_ROUNDS 8

static _Thread_local struct ctrl_loop *current;

uint64_t ctrl_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- what is watched ---- */

static int control(struct ctrl_loop *loop, int op, struct ctrl_watch *w, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	return epoll_ctl(loop->epoll, op, w->fd, &ev) ? -errno : 0;
}

int ctrl_loop_watch(struct ctrl_loop *loop, struct ctrl_watch *w, uint32_t events)
{
	return control(loop, EPOLL_CTL_ADD, w, events);
}

int ctrl_loop_rewatch(struct ctrl_loop *loop, struct ctrl_watch *w, uint32_t events)
{
	return control(loop, EPOLL_CTL_MOD, w, events);
}

void ctrl_loop_unwatch(struct ctrl_loop *loop, struct ctrl_watch *w)
{
	control(loop, EPOLL_CTL_DEL, w, 0);
	for (int i = loop->event_at; i < loop->event_n; i++) {
		if (loop->events[i].data.ptr == w)
			loop->events[i].data.ptr = NULL;
	}
}

void ctrl_timer_arm(struct ctrl_loop *loop, struct ctrl_timer *t, uint64_t in_ms)
{
	timers_arm(&loop->timers, t, in_ms);
}

void ctrl_timer_cancel(struct ctrl_loop *loop, struct ctrl_timer *t)
{
	timers_cancel(&loop->timers, t);
}

/* ---- from other threads ---- */

static void wake_up(struct ctrl_loop *loop)
{
	const uint64_t one = 1;

	if (loop->woken)
		return;
	loop->woken = true;
	/* Cannot fail: the counter is far from its end. */
	if (write(loop->wake, &one, sizeof(one)) < 0)
		abort();
}

int ctrl_loop_post(struct ctrl_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct post *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct post){.fn = fn, .arg = arg};
	pthread_mutex_lock(&loop->lock);
	*loop->posts_end = p;
	loop->posts_end = &p->next;
	wake_up(loop);
	pthread_mutex_unlock(&loop->lock);
	return 0;
}

void ctrl_loop_return(struct ctrl_io *io, int error)
{
	struct ctrl_loop *loop = io->loop;

	io->result = error;
	pthread_mutex_lock(&loop->lock);
	io_list_add(&loop->returned, io);
	wake_up(loop);
	pthread_mutex_unlock(&loop->lock);
}

void ctrl_loop_sent(struct ctrl_loop *loop)
{
	loop->elsewhere++;
}

static void append(struct io_list *to, const struct io_list *from, uint32_t *count)
{
	for (struct ctrl_io *io = from->first, *next; io; io = next) {
		next = io->next;
		io_list_add(to, io);
		(*count)--;
	}
}

static void wake_ready(struct ctrl_watch *w, uint32_t events)
{
	struct ctrl_loop *loop =
		(struct ctrl_loop *)((char *)w - offsetof(struct ctrl_loop, wake_watch));
	struct io_list returned;
	struct post *posts;
	uint64_t n;

	pthread_mutex_lock(&loop->lock);
	if (read(loop->wake, &n, sizeof(n)) < 0 && errno != EAGAIN)
		abort();
	loop->woken = false;
	posts = loop->posts;
	loop->posts = NULL;
	loop->posts_end = &loop->posts;
	returned = loop->returned;
	loop->returned = (struct io_list){0};
	pthread_mutex_unlock(&loop->lock);

	append(&loop->finished, &returned, &loop->elsewhere);
	while (posts) {
		struct post *p = posts;

		posts = p->next;
		p->fn(p->arg);
		free(p);
	}
}

/* ---- the ring ---- */

static int ring_open(struct io_uring *ring, bool *deferred)
{
	/* One thread uses a ring, and completions may wait until it asks: the newest kernels first. */
	static const unsigned int flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
	int rc = -ENOSYS;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct io_uring_params p = {.flags = flags[i] | IORING_SETUP_CQSIZE |
						     IORING_SETUP_CLAMP,
					    .cq_entries = RING_COMPLETIONS};

		rc = io_uring_queue_init_params(RING_ENTRIES, ring, &p);
		*deferred = flags[i] & IORING_SETUP_DEFER_TASKRUN;
		if (rc != -EINVAL)
			break;
	}
	return rc;
}

static const char *ring_refused;
static pthread_once_t ring_asked = PTHREAD_ONCE_INIT;

static void ask_for_ring(void)
{
	struct io_uring ring;
	bool deferred;
	int rc = ring_open(&ring, &deferred);

	if (rc)
		ring_refused = strerrorname_np(-rc);
	else
		io_uring_queue_exit(&ring);
}

static void no_ring(void)
{
	ring_refused = "off";
}

void ctrl_ring_off(void)
{
	pthread_once(&ring_asked, no_ring);
}

const char *ctrl_ring_refused(void)
{
	pthread_once(&ring_asked, ask_for_ring);
	return ring_refused;
}

struct io_uring *ctrl_loop_ring(struct ctrl_loop *loop)
{
	return loop->has_ring ? &loop->ring : NULL;
}

struct io_uring_sqe *ctrl_loop_sqe(struct ctrl_io *io)
{
	struct ctrl_loop *loop = io->loop;
	struct io_uring_sqe *sqe = NULL;

	if (loop->in_ring < RING_COMPLETIONS && !(sqe = io_uring_get_sqe(&loop->ring))) {
		io_uring_submit(&loop->ring);
		sqe = io_uring_get_sqe(&loop->ring);
	}
	if (!sqe) {
		io_list_add(&loop->parked, io);
		return NULL;
	}
	loop->in_ring++;
	return sqe;
}

/* Hand the kernel what waits for it, and take what it is done with. */
static bool ring_turn(struct ctrl_loop *loop)
{
	struct io_uring_cqe *cqe[64];
	struct io_list parked;
	unsigned int n;
	bool did = false;

	if (io_uring_sq_ready(&loop->ring))
		io_uring_submit(&loop->ring);
	while ((n = io_uring_peek_batch_cqe(&loop->ring, cqe, 64)) > 0) {
		for (unsigned int i = 0; i < n; i++) {
			struct ctrl_io *io = io_uring_cqe_get_data(cqe[i]);
			int result = cqe[i]->res;

			loop->in_ring--;
			io->step(io, result);
		}
		io_uring_cq_advance(&loop->ring, n);
		did = true;
	}
	if (did && loop->parked.first) {
		parked = loop->parked;
		loop->parked = (struct io_list){0};
		for (struct ctrl_io *io = parked.first, *next; io; io = next) {
			next = io->next;
			io->step(io, -EAGAIN);
		}
	}
	return did || io_uring_sq_ready(&loop->ring);
}

static void ring_ready(struct ctrl_watch *w, uint32_t events)
{
	/* Every turn looks at the ring; the event only ends the sleep. */
}

/*
 * The ring tells of completions by an eventfd (its own descriptor does not wake a poller for deferred ones),
 * but only while the loop sleeps: those found awake need no event.  That needs the kernel to order its looking
 * whether to tell behind the completion, which deferred work does.
 */
static bool ring_may_sleep(struct ctrl_loop *loop)
{
	struct io_uring_cqe *cqe;

	if (!loop->has_ring)
		return true;
	if (loop->ring_quiet)
		io_uring_cq_eventfd_toggle(&loop->ring, true);
	atomic_thread_fence(memory_order_seq_cst);
	return io_uring_peek_cqe(&loop->ring, &cqe) != 0;
}

static int ring_setup(struct ctrl_loop *loop)
{
	int rc = ring_open(&loop->ring, &loop->ring_quiet);

	if (rc)
		return rc;
	loop->ring_watch = (struct ctrl_watch){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
					       .ready = ring_ready};
	rc = loop->ring_watch.fd < 0 ? -errno : 0;
	if (!rc)
		rc = io_uring_register_eventfd(&loop->ring, loop->ring_watch.fd);
	/* Edge triggered: the counter need not be read. */
	if (!rc)
		rc = ctrl_loop_watch(loop, &loop->ring_watch, EPOLLIN | EPOLLET);
	if (rc) {
		io_uring_queue_exit(&loop->ring);
		return rc;
	}
	/* Saves looking the descriptor up in each call; where it is refused all works without. */
	(void)io_uring_register_ring_fd(&loop->ring);
	return 0;
}

/* ---- turns ---- */

void ctrl_loop_finish(struct ctrl_io *io, int error)
{
	io->result = error;
	io_list_add(&io->loop->finished, io);
}

static bool finish(struct ctrl_loop *loop)
{
	struct io_list list = loop->finished;

	loop->finished = (struct io_list){0};
	for (struct ctrl_io *io = list.first, *next; io; io = next) {
		next = io->next;
		io->done(io, io->result);
	}
	return list.first;
}

void ctrl_loop_later(struct ctrl_loop *loop, struct ctrl_later *l)
{
	if (l->queued)
		return;
	l->queued = true;
	l->next = NULL;
	*loop->later_end = l;
	loop->later_end = &l->next;
}

static void run_later(struct ctrl_loop *loop)
{
	struct ctrl_later *list = loop->later;

	loop->later = NULL;
	loop->later_end = &loop->later;
	while (list) {
		struct ctrl_later *l = list;

		list = l->next;
		l->queued = false;
		l->run(l);
	}
}

/* False: there is more to do at once. */
static bool settle(struct ctrl_loop *loop)
{
	for (int i = 0; i < SETTLE_ROUNDS; i++) {
		bool more = loop->has_ring && ring_turn(loop);

		more |= finish(loop);
		run_later(loop);
		buffers_wake(loop);
		if (!more && !loop->finished.first && !loop->later)
			return true;
	}
	return false;
}

static bool may_end(struct ctrl_loop *loop)
{
	bool none;

	if (!loop->stop || loop->in_ring || loop->elsewhere || loop->parked.first)
		return false;
	pthread_mutex_lock(&loop->lock);
	none = !loop->posts && !loop->returned.first;
	pthread_mutex_unlock(&loop->lock);
	return none;
}

static void loop_setup(struct ctrl_loop *loop)
{
	if (loop->has_ring)
		loop->has_ring = !ring_setup(loop);
	if (loop->has_ring)
		buffers_register(loop);
	pthread_mutex_lock(&loop->lock);
	loop->ready = true;
	pthread_cond_signal(&loop->is_ready);
	pthread_mutex_unlock(&loop->lock);
}

/* ---- the alarm: a timer that stays set, since a time-out of epoll_wait() would be set and cleared each turn ---- */

static void alarm_ready(struct ctrl_watch *w, uint32_t events)
{
	struct ctrl_loop *loop =
		(struct ctrl_loop *)((char *)w - offsetof(struct ctrl_loop, alarm_watch));

	loop->alarm = UINT64_MAX;
}

/* Never later than the next timer; earlier where that was cancelled: then it ends a sleep for nothing, once. */
static void alarm_set(struct ctrl_loop *loop)
{
	uint64_t next = timers_next(&loop->timers), ms = next * TIMER_TICK_MS;
	struct itimerspec at = {.it_value = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000}};

	if (next >= loop->alarm)
		return;
	loop->alarm = next;
	/* Cannot fail: the descriptor and the time are good. */
	if (timerfd_settime(loop->alarm_watch.fd, TFD_TIMER_ABSTIME, &at, NULL))
		abort();
}

static int alarm_open(struct ctrl_loop *loop)
{
	loop->alarm = UINT64_MAX;
	loop->alarm_watch = (struct ctrl_watch){
		.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
		.ready = alarm_ready};
	if (loop->alarm_watch.fd < 0)
		return -errno;
	/* Edge triggered: it need not be read. */
	return ctrl_loop_watch(loop, &loop->alarm_watch, EPOLLIN | EPOLLET);
}

static int sleep_ms(struct ctrl_loop *loop, bool settled)
{
	if (!settled || !ring_may_sleep(loop))
		return 0;
	alarm_set(loop);
	return -1;
}

static void *loop_main(void *arg)
{
	struct ctrl_loop *loop = arg;
	bool settled = true;

	current = loop;
	pthread_setname_np(pthread_self(), "loop");
	loop_setup(loop);
	while (!(settled && may_end(loop))) {
		int n = epoll_wait(loop->epoll, loop->events, LOOP_EVENTS, sleep_ms(loop, settled));

		if (loop->has_ring && loop->ring_quiet)
			io_uring_cq_eventfd_toggle(&loop->ring, false);
		timers_run(&loop->timers);
		loop->event_n = n > 0 ? n : 0;
		for (loop->event_at = 0; loop->event_at < loop->event_n;) {
			struct epoll_event ev = loop->events[loop->event_at++];
			struct ctrl_watch *w = ev.data.ptr;

			if (w)
				w->ready(w, ev.events);
		}
		settled = settle(loop);
	}
	if (loop->has_ring)
		io_uring_queue_exit(&loop->ring);
	return NULL;
}

/* ---- life ---- */

void *ctrl_loop_user(const struct ctrl_loop *loop)
{
	return loop->user;
}

bool ctrl_loop_is_current(const struct ctrl_loop *loop)
{
	return loop == current;
}

static void loop_release(struct ctrl_loop *loop)
{
	if (loop->epoll >= 0)
		close(loop->epoll);
	if (loop->wake >= 0)
		close(loop->wake);
	if (loop->ring_watch.fd >= 0)
		close(loop->ring_watch.fd);
	if (loop->alarm_watch.fd >= 0)
		close(loop->alarm_watch.fd);
	buffers_free(&loop->buffers);
	pthread_cond_destroy(&loop->is_ready);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

int ctrl_loop_new(const struct ctrl_loop_opts *opts, struct ctrl_loop **out)
{
	struct ctrl_loop *loop = calloc(1, sizeof(*loop));
	int rc;

	if (!loop)
		return -ENOMEM;
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->is_ready, NULL);
	loop->posts_end = &loop->posts;
	loop->later_end = &loop->later;
	loop->user = opts->user;
	loop->has_ring = !opts->no_ring && !ctrl_ring_refused();
	loop->ring_watch.fd = loop->alarm_watch.fd = -1;
	timers_init(&loop->timers);
	loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_watch = (struct ctrl_watch){.fd = loop->wake, .ready = wake_ready};
	if (loop->wake < 0 || loop->epoll < 0)
		rc = -errno;
	else
		rc = buffers_init(loop, opts->max_transfer, opts->buffer_memory);
	if (!rc)
		rc = ctrl_loop_watch(loop, &loop->wake_watch, EPOLLIN);
	if (!rc)
		rc = alarm_open(loop);
	if (!rc)
		rc = -pthread_create(&loop->thread, NULL, loop_main, loop);
	if (rc) {
		loop_release(loop);
		return rc;
	}
	pthread_mutex_lock(&loop->lock);
	while (!loop->ready)
		pthread_cond_wait(&loop->is_ready, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
	*out = loop;
	return 0;
}

static void loop_stop(void *arg)
{
	struct ctrl_loop *loop = arg;

	loop->stop = true;
}

void ctrl_loop_free(struct ctrl_loop *loop)
{
	if (!loop)
		return;
	while (ctrl_loop_post(loop, loop_stop, loop))
		usleep(1000); /* out of memory: the thread must end all the same */
	pthread_join(loop->thread, NULL);
	loop_release(loop);
}
