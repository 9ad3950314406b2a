/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - jobs: a program, a source and a budget go to a worker, output and a result come back.
 *
 * All of a job happens on its loop; the pool's lock is taken where a worker is found, given back or ends.
 * Waking each other is as in src/worker/ring.c: announce, look once more, then sleep.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device/worker_private.h"

/* A new process for a job is there long before, or there is none to be had. */
#define NEW_MS 20000u
/* Wake-ups for nothing that a worker may cause, beside those that our own looks invite. */
#define SPURIOUS_MAX  1000u
#define SMALL_PAYLOAD (64u << 10)

static struct ctrl_job *job_of(struct ctrl_timer *t)
{
	return (struct ctrl_job *)((char *)t - offsetof(struct ctrl_job, timer));
}

/* ---- the end of a job ---- */

static void tell_end(struct ctrl_job *job)
{
	job->ended = true;
	ctrl_timer_cancel(job->loop, &job->timer);
	job->ready(job);
}

static void count_output(struct ctrl_job *job)
{
	const struct ctrl_worker *w = job->worker;

	job->result.bytes_out = w ? w->out_head - w->out_from : 0;
}

/* The whole process, by the scheduler's account: the clock is as clock_getcpuclockid() makes it. */
static uint64_t cpu_clock(const struct ctrl_worker *w)
{
	const clockid_t id = (clockid_t)((~(unsigned int)w->pid << 3) | 2u);
	struct timespec ts;

	if (w->reaped || clock_gettime(id, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The lock is held. */
static uint64_t cpu_now(const struct ctrl_job *job)
{
	const struct ctrl_worker *w = job->worker;
	uint64_t now;

	if (job->over || !w || !w->begun)
		return job->cpu_ns;
	now = cpu_clock(w);
	return now > job->cpu_from ? now - job->cpu_from : 0;
}

/* It has a result. */
static void close_job(struct ctrl_job *job)
{
	struct ctrl_workers *pool = job->server->workers;

	pthread_mutex_lock(&pool->lock);
	job->cpu_ns = cpu_now(job);
	job->over = true;
	if (job->worker)
		job->worker->cpu_ns = job->cpu_from + job->cpu_ns;
	pthread_mutex_unlock(&pool->lock);
	count_output(job);
}

/* The worker goes; what it put out before stays to be taken.  ready() comes from the timer. */
static void give_up_worker(struct ctrl_job *job, enum worker_end why)
{
	struct ctrl_worker *w = job->worker;

	close_job(job);
	pthread_mutex_lock(&w->pool->lock);
	pool_end(w, why);
	pthread_mutex_unlock(&w->pool->lock);
	ctrl_timer_arm(job->loop, &job->timer, 0);
}

static void misbehaved(struct ctrl_job *job)
{
	if (job->over)
		return;
	worker_failed(job, -EIO,
		      "the worker process of this function wrote nonsense and was ended; "
		      "tell whoever runs the server");
	give_up_worker(job, WORKER_END_MISBEHAVED);
}

/* ---- what the worker wrote ---- */

static bool next_position(uint64_t now, uint64_t before, uint64_t from, uint64_t size)
{
	return now >= before && now - from <= size;
}

/* Take over its positions, if they can be true. */
static int refresh(struct ctrl_job *job)
{
	struct ctrl_worker *w = job->worker;
	const struct ctrl_workers *pool = w->pool;
	const struct worker_report *report = w->report;
	uint64_t head = atomic_load_explicit(&report->out_head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&report->in_tail, memory_order_acquire);

	/* Before it has begun, the tail may still be where the last stream's reader left it. */
	if (tail < w->in_tail)
		tail = w->in_tail;
	if (!next_position(head, w->out_head, w->out_tail, pool->out_bytes) || tail > w->in_head)
		return -EPROTO;
	w->out_head = head;
	w->in_tail = tail;
	job->done = atomic_load_explicit(&report->done, memory_order_relaxed);
	job->total = atomic_load_explicit(&report->total, memory_order_relaxed);
	return 0;
}

static void finish(struct ctrl_job *job)
{
	struct ctrl_worker *w = job->worker;

	if (worker_result(w->report, job)) {
		misbehaved(job);
		return;
	}
	/* What could not be loaded is not there the next time either; nor may it be believed that it was. */
	if (w->loads)
		w->programs[w->slot].loaded = !job->result.error || job->result.calls;
	close_job(job);
	tell_end(job);
}

/* What the caller waits for has come: room for input, or output of which it has not been told. */
static bool is_news(struct ctrl_worker *w)
{
	bool room = w->in_waits && w->in_head - w->in_tail <= w->pool->in_bytes / 2;
	bool news = room || w->out_head != w->out_told;

	w->in_waits &= !room;
	w->out_told = w->out_head;
	return news;
}

/*
 * A wake-up that says nothing new: we saw what it was for before it came, or it crossed our last input.  The worker
 * believes that it has told us, so it must be asked again; then we look once more.
 */
static int ask_again(struct ctrl_job *job)
{
	struct ctrl_worker *w = job->worker;

	atomic_store(&w->report->armed, 1);
	if (w->in_waits)
		atomic_store(&w->report->in_armed, 1);
	return refresh(job);
}

static void on_event(struct ctrl_watch *watch, uint32_t events)
{
	struct ctrl_worker *w =
		(struct ctrl_worker *)((char *)watch - offsetof(struct ctrl_worker, watch));
	struct ctrl_job *job = w->job;
	uint64_t count;
	bool ended, news;
	int rc;

	(void)!read(w->event, &count, sizeof(count));
	if (!job || job->over)
		return;
	/* The end before the positions: they are final then. */
	ended = atomic_load_explicit(&w->report->ended, memory_order_acquire) == w->number;
	rc = refresh(job);
	news = !rc && is_news(w);
	if (!rc && !news && !ended) {
		rc = ask_again(job);
		news = !rc && is_news(w);
		w->spurious += !news;
	}
	if (rc || w->spurious > SPURIOUS_MAX + 2 * w->looks)
		misbehaved(job);
	else if (ended)
		finish(job);
	else if (news)
		job->ready(job);
}

/* ---- waking it ---- */

static void kick(struct ctrl_worker *w)
{
	atomic_fetch_add(&w->command->kick, 1);
	if (atomic_load(&w->report->sleepers))
		syscall(SYS_futex, &w->command->kick, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ---- beginning ---- */

/* Its slot in the worker; the one that was used longest ago makes room. */
static void choose_slot(struct ctrl_worker *w, const struct ctrl_job *job)
{
	struct worker_program *best = &w->programs[0];

	for (struct worker_program *p = w->programs; p < w->programs + WORKER_PROGRAMS; p++) {
		if (p->loaded && !memcmp(p->hash, job->program->hash, sizeof(p->hash))) {
			best = p;
			break;
		}
		if (!p->loaded ? best->loaded : best->loaded && p->used_ns < best->used_ns)
			best = p;
	}
	w->loads = !best->loaded || memcmp(best->hash, job->program->hash, sizeof(best->hash)) != 0;
	w->slot = (uint32_t)(best - w->programs);
	best->loaded = false;
	if (!w->loads)
		best->loaded = true;
	memcpy(best->hash, job->program->hash, sizeof(best->hash));
	best->used_ns = ctrl_now_ns();
}

static int fill_payload(struct ctrl_worker *w, const struct ctrl_job *job)
{
	uint64_t at = ((uint64_t)job->arg_len + 15) & ~15ull;
	uint64_t len = at + job->n_segments * sizeof(struct worker_segment);

	_Static_assert(sizeof(struct worker_segment) == sizeof(struct ctrl_segment), "as it is");
	if (len > SMALL_PAYLOAD) {
		w->large = len;
		if (worker_populate(w->payload, (len + WORKER_PAGE - 1) & ~(WORKER_PAGE - 1ull)))
			return -ENOMEM;
	}
	if (job->arg_len)
		memcpy(w->payload, job->arg, job->arg_len);
	if (job->n_segments)
		memcpy(w->payload + at, job->segments, len - at);
	return 0;
}

static void fill_command(struct ctrl_worker *w, const struct ctrl_job *job)
{
	struct worker_command *c = w->command;
	const struct nvme_lambda_request *req = job->request;

	c->kind = job->kind == CTRL_JOB_CHECK ? WORKER_CHECK : WORKER_RUN;
	c->flags = w->loads ? WORKER_LOAD : 0;
	c->slot = w->slot;
	c->program_bytes = job->program->size;
	c->out_at = w->out_head;
	c->in_at = w->in_head;
	c->threads = 1;
	c->deadline_ns = job->deadline_ns;
	c->arg_len = c->n_segments = 0;
	if (job->kind == CTRL_JOB_RUN) {
		c->flags |= job->fd >= 0 ? WORKER_SOURCE : 0;
		c->flags |= job->segments ? WORKER_SEGMENTED : 0;
		c->flags |= req->flags & NVME_LAMBDA_DECOMPRESS ? WORKER_DECOMPRESS : 0;
		c->threads = job->threads < WORKER_THREADS ? job->threads : WORKER_THREADS;
		c->tier = req->tier;
		c->arg_len = job->arg_len;
		c->n_segments = job->n_segments;
		c->base = job->base;
		c->size = job->size;
		c->offset = req->offset;
		c->length = req->length;
		c->chunk = req->chunk;
		c->fuel = req->flags & NVME_LAMBDA_FUEL ? req->fuel : 0;
		c->memory = req->memory;
		c->max_output = req->max_output;
	}
	__atomic_store_n(&c->cancel, 0, __ATOMIC_RELAXED);
	atomic_store(&c->in_last, 0);
	atomic_store(&c->out_tail, w->out_head);
	atomic_store(&w->report->armed, 1);
	atomic_store(&w->report->in_armed, 0);
	atomic_store(&w->report->done, 0);
	atomic_store(&w->report->total, 0);
}

static int send_job(struct ctrl_worker *w, const struct ctrl_job *job)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct iovec iov = {&w->number, sizeof(w->number)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[2];
	size_t n = 0;

	if (w->command->flags & WORKER_LOAD)
		fds[n++] = job->program->fd;
	if (w->command->flags & WORKER_SOURCE)
		fds[n++] = job->fd;
	if (n) {
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	return sendmsg(w->control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static bool is_stream(const struct ctrl_job *job)
{
	return job->kind == CTRL_JOB_RUN && job->fd < 0 && !job->segments;
}

static int begin(struct ctrl_worker *w, struct ctrl_job *job)
{
	int rc;

	w->in_waits = false;
	w->looks = w->spurious = 0;
	w->out_from = w->out_tail = w->out_told = w->out_head;
	w->in_tail = w->in_head;
	w->number++;
	choose_slot(w, job);
	rc = fill_payload(w, job);
	if (!rc && is_stream(job) && !w->in_ready) {
		rc = worker_populate(w->in, w->pool->in_bytes);
		w->in_ready = !rc;
	}
	if (rc)
		return rc;
	fill_command(w, job);
	pthread_mutex_lock(&w->pool->lock);
	/* Between jobs it takes next to none. */
	job->cpu_from = w->cpu_ns ? w->cpu_ns : cpu_clock(w);
	w->begun = true;
	pthread_mutex_unlock(&w->pool->lock);
	w->watch = (struct ctrl_watch){.fd = w->event, .ready = on_event};
	rc = ctrl_loop_watch(job->loop, &w->watch, EPOLLIN);
	w->watching = !rc;
	return rc ? rc : send_job(w, job);
}

static uint64_t ms_until(uint64_t ns)
{
	uint64_t now = ctrl_now_ns();

	return ns > now ? (ns - now) / 1000000 + 1 : 0;
}

static int place(struct ctrl_job *job);

/* The job has this worker no more.  The lock is held. */
static void part(struct ctrl_job *job)
{
	struct ctrl_worker *w = job->bound;

	if (!w)
		return;
	if (w->watching)
		ctrl_loop_unwatch(job->loop, &w->watch);
	w->watching = false;
	w->job = NULL;
	job->worker = job->bound = NULL;
	pool_put(w);
}

/* Of a worker that died before it was given anything nobody has seen anything. */
static void place_again(struct ctrl_job *job)
{
	struct ctrl_workers *pool = job->server->workers;

	pthread_mutex_lock(&pool->lock);
	pool_end(job->worker, WORKER_END_DIED);
	part(job);
	pthread_mutex_unlock(&pool->lock);
	if (!place(job))
		return;
	worker_failed(job, -EIO,
		      "the worker process died before it was given the job; send it again");
	close_job(job);
	ctrl_timer_arm(job->loop, &job->timer, 0);
}

static void begin_or_fail(struct ctrl_worker *w, struct ctrl_job *job)
{
	uint32_t grace = w->pool->limits->grace_ms;
	int rc = begin(w, job);

	if (rc == -EPIPE) {
		place_again(job);
	} else if (rc) {
		worker_failed(job, rc == -ENOMEM ? rc : -EIO,
			      "the worker process cannot be given the job: %s; send it again",
			      strerror(-rc));
		give_up_worker(job, WORKER_END_DIED);
	} else if (job->cancelled) {
		ctrl_job_cancel(job);
	} else if (job->deadline_ns) {
		ctrl_timer_arm(job->loop, &job->timer, ms_until(job->deadline_ns) + grace);
	} else {
		ctrl_timer_cancel(job->loop, &job->timer);
	}
}

/* On an idle worker, or with those that wait for a process to be made. */
static int place(struct ctrl_job *job)
{
	struct ctrl_workers *pool = job->server->workers;
	struct ctrl_worker *w;
	int rc = 0;

	pthread_mutex_lock(&pool->lock);
	w = pool_take(pool, job);
	if (!w && pool_has_room(pool)) {
		*pool->pending_end = job;
		pool->pending_end = &job->next;
		pool_wake(pool);
	} else if (!w) {
		rc = -EAGAIN;
	}
	pthread_mutex_unlock(&pool->lock);
	if (w)
		begin_or_fail(w, job);
	else if (!rc)
		ctrl_timer_arm(job->loop, &job->timer, NEW_MS);
	return rc;
}

/* ---- too late ---- */

static bool unpend(struct ctrl_workers *pool, const struct ctrl_job *job)
{
	struct ctrl_job **at = &pool->pending;

	while (*at && *at != job)
		at = &(*at)->next;
	if (!*at)
		return false;
	*at = job->next;
	if (pool->pending_end == &job->next)
		pool->pending_end = at;
	return true;
}

static void never_began(struct ctrl_job *job)
{
	struct ctrl_workers *pool = job->server->workers;
	bool pending;

	pthread_mutex_lock(&pool->lock);
	pending = unpend(pool, job);
	pthread_mutex_unlock(&pool->lock);
	if (!pending) {
		/* A process has just been made; what it is for is on its way to this loop. */
		ctrl_timer_arm(job->loop, &job->timer, NEW_MS);
		return;
	}
	if (job->cancelled)
		worker_failed(job, -ECANCELED, "cancelled before it began");
	else
		worker_failed(job, -EIO,
			      "no worker process came to be in time; the server's log says why");
	close_job(job);
	tell_end(job);
}

static void on_timer(struct ctrl_timer *t)
{
	struct ctrl_job *job = job_of(t);

	if (job->over) {
		tell_end(job);
		return;
	}
	if (!job->worker || !job->worker->begun) {
		never_began(job);
		return;
	}
	if (job->cancelled)
		worker_failed(job, -ECANCELED,
			      "cancelled; its worker process did not end by itself");
	else
		worker_failed(
			job, -ETIME,
			"the time limit passed, and its worker process did not end by itself; "
			"allow more time");
	if (refresh(job)) /* what it put out last may be anything */
		job->result.error = -EIO;
	give_up_worker(job, WORKER_END_LATE);
}

/* ---- from the pool's thread ---- */

static void drop(struct ctrl_worker *w)
{
	struct ctrl_workers *pool = w->pool;

	pthread_mutex_lock(&pool->lock);
	pool_put(w);
	pthread_mutex_unlock(&pool->lock);
}

void worker_begin(void *arg)
{
	struct ctrl_worker *w = arg;
	struct ctrl_job *job;

	pthread_mutex_lock(&w->pool->lock);
	job = w->job;
	if (job)
		pool_attach(w, job);
	pthread_mutex_unlock(&w->pool->lock);
	if (job && !job->over)
		begin_or_fail(w, job);
	drop(w);
}

static const char *how_it_ended(const struct ctrl_worker *w)
{
	int sig = w->status && WIFSIGNALED(w->status) ? WTERMSIG(w->status) : 0;

	if (sig == SIGSYS)
		return "made a call that it may not make and was killed; tell whoever runs the "
		       "server";
	if (sig == SIGKILL)
		return "was killed, perhaps for lack of memory; send it again";
	return sig ? "crashed; tell whoever runs the server"
		   : "ended by itself; the server's log says more";
}

void worker_lost(void *arg)
{
	struct ctrl_worker *w = arg;
	struct ctrl_job *job = w->job;

	if (job && !job->over) {
		/* It may have finished just before. */
		if (w->begun && !refresh(job) &&
		    atomic_load_explicit(&w->report->ended, memory_order_acquire) == w->number) {
			finish(job);
		} else {
			worker_failed(job, -EIO, "the worker process of this function %s",
				      how_it_ended(w));
			close_job(job);
			tell_end(job);
		}
	}
	drop(w);
}

/* ---- the interface ---- */

static int check_job(const struct ctrl_job *job, struct ctrl_error *err)
{
	const struct ctrl_workers *pool = job->server->workers;

	if (!pool)
		return ctrl_fail(err, -ENOENT,
				 "this server runs no functions: its program liod-worker is not "
				 "installed; install it beside liod");
	if (pool->broken)
		return ctrl_fail(err, -ENOENT, "this server runs no functions: %s", pool->why);
	if (job->n_segments > CTRL_MAX_SEGMENTS ||
	    job->arg_len + 16 + 16ull * job->n_segments > pool->payload_bytes)
		return ctrl_fail(err, -E2BIG,
				 "%u bytes of arguments and %u extents are more than a job may "
				 "have; send fewer",
				 job->arg_len, job->n_segments);
	return 0;
}

static uint64_t deadline_of(const struct ctrl_job *job, uint64_t now)
{
	uint64_t limit = job->server->workers->limits->max_timeout_ns;
	uint64_t asked = job->kind == CTRL_JOB_RUN ? job->request->timeout_ns : 0;

	if (!asked)
		asked = limit;
	return asked && asked < UINT64_MAX - now ? now + asked : 0;
}

int ctrl_job_start(struct ctrl_job *job, struct ctrl_error *err)
{
	int rc = check_job(job, err);

	if (rc)
		return rc;
	job->worker = job->bound = NULL;
	job->next = NULL;
	job->ended = job->over = job->cancelled = job->shut = false;
	job->timer = (struct ctrl_timer){.fire = on_timer};
	job->deadline_ns = deadline_of(job, ctrl_now_ns());
	job->cpu_from = job->cpu_ns = 0;
	rc = place(job);
	return rc ? ctrl_fail(err, rc, "all %u worker processes are busy; try again soon",
			      job->server->workers->limits->max_workers)
		  : 0;
}

size_t ctrl_job_output(struct ctrl_job *job, struct iovec out[2])
{
	struct ctrl_worker *w = job->worker;
	uint64_t len, at, size;

	if (!w || !w->begun)
		return 0;
	if (!job->over) {
		w->looks++;
		atomic_store(&w->report->armed, 1);
		if (refresh(job))
			misbehaved(job);
		w->out_told = w->out_head;
	}
	size = w->pool->out_bytes;
	len = w->out_head - w->out_tail;
	at = w->out_tail % size;
	out[0] = (struct iovec){w->out + at, size - at < len ? size - at : len};
	out[1] = (struct iovec){w->out, len - out[0].iov_len};
	return len;
}

void ctrl_job_consume(struct ctrl_job *job, size_t len)
{
	struct ctrl_worker *w = job->worker;
	uint64_t room;

	if (!w || !len)
		return;
	w->out_tail += len;
	atomic_store_explicit(&w->command->out_tail, w->out_tail, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	room = w->pool->out_bytes - (w->out_head - w->out_tail);
	if (atomic_load_explicit(&w->report->sleepers, memory_order_relaxed) &&
	    room >= atomic_load_explicit(&w->report->out_wanted, memory_order_relaxed))
		kick(w);
}

static size_t put_input(struct ctrl_worker *w, const uint8_t *p, size_t len)
{
	uint64_t size = w->pool->in_bytes, room = size - (w->in_head - w->in_tail);
	uint64_t at = w->in_head % size;
	size_t n = len < room ? len : room, first = size - at < n ? size - at : n;

	if (!n) /* a stream's end may come alone, without a place */
		return 0;
	memcpy(w->in + at, p, first);
	memcpy(w->in, p + first, n - first);
	w->in_head += n;
	return n;
}

size_t ctrl_job_input(struct ctrl_job *job, const void *p, size_t len, bool last)
{
	struct ctrl_worker *w = job->worker;
	size_t n = 0;

	if (!w || !w->begun) /* there will be room, and ready() then */
		return 0;
	if (job->over)
		return len;
	w->looks++;
	for (;;) {
		if (refresh(job)) {
			misbehaved(job);
			return len;
		}
		n += put_input(w, (const uint8_t *)p + n, len - n);
		if (n == len || w->in_waits)
			break;
		w->in_waits = true;
		atomic_store(&w->report->in_armed, 1);
	}
	if (n == len)
		w->in_waits = false;
	atomic_store_explicit(&w->command->in_head, w->in_head, memory_order_release);
	if (last && n == len)
		atomic_store(&w->command->in_last, 1);
	kick(w);
	return n;
}

void ctrl_job_cancel(struct ctrl_job *job)
{
	struct ctrl_worker *w = job->worker;

	if (job->ended || job->over)
		return;
	job->cancelled = true;
	if (!w || !w->begun) {
		ctrl_timer_arm(job->loop, &job->timer, 0);
		return;
	}
	__atomic_store_n(&w->command->cancel, 1, __ATOMIC_SEQ_CST);
	kick(w);
	ctrl_timer_arm(job->loop, &job->timer, w->pool->limits->grace_ms);
}

void ctrl_job_gate(struct ctrl_job *job, bool open)
{
	struct ctrl_workers *pool = job->server->workers;

	pthread_mutex_lock(&pool->lock);
	job->shut = !open;
	if (job->worker) {
		atomic_store(&job->worker->command->shut, job->shut);
		kick(job->worker);
	}
	pthread_mutex_unlock(&pool->lock);
}

uint64_t ctrl_job_cpu_ns(const struct ctrl_job *job)
{
	struct ctrl_workers *pool = job->server->workers;
	uint64_t ns;

	pthread_mutex_lock(&pool->lock);
	ns = cpu_now(job);
	pthread_mutex_unlock(&pool->lock);
	return ns;
}

/* The worker waits for its next job: nothing of this one stays in what is shared. */
static void clean(struct ctrl_worker *w)
{
	if (w->large > SMALL_PAYLOAD)
		madvise(w->payload + SMALL_PAYLOAD,
			((w->large + WORKER_PAGE - 1) & ~(WORKER_PAGE - 1ull)) - SMALL_PAYLOAD,
			MADV_REMOVE);
	w->large = 0;
}

void ctrl_job_release(struct ctrl_job *job)
{
	struct ctrl_workers *pool = job->server->workers;
	struct ctrl_worker *w;

	ctrl_timer_cancel(job->loop, &job->timer);
	pthread_mutex_lock(&pool->lock);
	w = job->bound;
	if (!w) {
		unpend(pool, job);
	} else if (w->state == WORKER_BUSY && job->over) {
		clean(w);
		pool_idle(w);
	} else {
		pool_end(w, WORKER_END_ABANDONED);
	}
	part(job);
	pthread_mutex_unlock(&pool->lock);
}
