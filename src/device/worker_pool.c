/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_pool.c - which worker processes there are: for which host, busy or idle, and one spare for the
 * next new host.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/worker_private.h"

#define EVENTS 32
/* After a process could not be made. */
#define AGAIN_MS 200u
/* What is killed is gone at once, unless the kernel holds it. */
#define STOP_MS 5000

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static const char *const end_names[WORKER_ENDS] = {
	[WORKER_END_NONE] = "none",           [WORKER_END_IDLE] = "idle",
	[WORKER_END_EVICTED] = "evicted",     [WORKER_END_ABANDONED] = "abandoned",
	[WORKER_END_LATE] = "late",           [WORKER_END_MISBEHAVED] = "misbehaved",
	[WORKER_END_FORBIDDEN] = "forbidden", [WORKER_END_DIED] = "died",
};

/* ---- under the lock ---- */

void pool_wake(struct ctrl_workers *pool)
{
	const uint64_t one = 1;

	/* Full is as good as written. */
	(void)!write(pool->wake, &one, sizeof(one));
}

void pool_put(struct ctrl_worker *w)
{
	if (!--w->refs)
		worker_free(w);
}

void pool_end(struct ctrl_worker *w, enum worker_end why)
{
	if (w->state == WORKER_ENDING)
		return;
	w->state = WORKER_ENDING;
	w->end = why;
	if (!w->reaped)
		worker_kill(w);
}

void pool_bind(struct ctrl_worker *w, struct ctrl_job *job)
{
	w->state = WORKER_BUSY;
	w->host = job->host;
	w->job = job;
	w->begun = false;
	w->refs++;
	job->bound = w;
}

void pool_attach(struct ctrl_worker *w, struct ctrl_job *job)
{
	job->worker = w;
	atomic_store(&w->command->shut, job->shut);
}

void pool_idle(struct ctrl_worker *w)
{
	w->idle_ns = ctrl_now_ns();
	w->state = WORKER_IDLE;
	/* From now on there is one that may be idle for too long. */
	if (w->pool->resting)
		pool_wake(w->pool);
	w->pool->resting = false;
}

static bool has_program(const struct ctrl_worker *w, const struct ctrl_job *job)
{
	for (uint32_t i = 0; i < WORKER_PROGRAMS; i++) {
		if (w->programs[i].loaded &&
		    !memcmp(w->programs[i].hash, job->program->hash, sizeof(w->programs[i].hash)))
			return true;
	}
	return false;
}

/* One that has the program, else another of this host, else nobody's; the one used last is the warmest. */
static uint64_t worth(const struct ctrl_worker *w, const struct ctrl_job *job)
{
	if (w->state != WORKER_IDLE || (w->host && w->host != job->host))
		return 0;
	if (!w->host)
		return 1;
	return 2 + w->idle_ns + (has_program(w, job) ? UINT64_MAX / 2 : 0);
}

struct ctrl_worker *pool_take(struct ctrl_workers *pool, struct ctrl_job *job)
{
	struct ctrl_worker *best = NULL;
	uint64_t most = 0;

	for (struct ctrl_worker *w = pool->workers; w; w = w->next) {
		uint64_t value = worth(w, job);

		if (value > most) {
			most = value;
			best = w;
		}
	}
	if (!best)
		return NULL;
	if (!best->host)
		pool_wake(pool); /* another spare */
	pool_bind(best, job);
	pool_attach(best, job);
	return best;
}

bool pool_has_room(struct ctrl_workers *pool)
{
	struct ctrl_worker *oldest = NULL;
	uint32_t waiting = 0, ending = 0;

	for (const struct ctrl_job *job = pool->pending; job; job = job->next)
		waiting++;
	for (struct ctrl_worker *w = pool->workers; w; w = w->next) {
		ending += w->state == WORKER_ENDING;
		if (w->state == WORKER_IDLE && w->host && (!oldest || w->idle_ns < oldest->idle_ns))
			oldest = w;
	}
	if (pool->n - ending + waiting < pool->limits->max_workers)
		return true;
	if (!oldest)
		return false;
	pool_end(oldest, WORKER_END_EVICTED);
	return true;
}

/* ---- the pool's thread: beginnings ---- */

static int watch(struct ctrl_workers *pool, int fd, void *of)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = of};

	return epoll_ctl(pool->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* Tell the job's loop; a job may not be left in the dark, so this waits for memory. */
static void tell(struct ctrl_worker *w, struct ctrl_loop *loop, void (*what)(void *arg))
{
	w->refs++;
	while (ctrl_loop_post(loop, what, w)) {
		pthread_mutex_unlock(&w->pool->lock);
		usleep(1000);
		pthread_mutex_lock(&w->pool->lock);
	}
}

/* The first job that waits gets it. */
static void hand_out(struct ctrl_workers *pool, struct ctrl_worker *w)
{
	struct ctrl_job *job = pool->pending;

	if (!job)
		return;
	pool->pending = job->next;
	if (!pool->pending)
		pool->pending_end = &pool->pending;
	pool_bind(w, job);
	tell(w, job->loop, worker_begin);
}

static bool wants_one(const struct ctrl_workers *pool)
{
	if (pool->stop || pool->n >= pool->limits->max_workers || ctrl_now_ns() < pool->again_ns)
		return false;
	if (pool->pending)
		return true;
	for (const struct ctrl_worker *w = pool->workers; w; w = w->next) {
		if (w->state == WORKER_IDLE && !w->host)
			return false;
	}
	return true;
}

static void add(struct ctrl_workers *pool, struct ctrl_worker *w)
{
	w->next = pool->workers;
	pool->workers = w;
	pool->n++;
	pool->starts++;
	hand_out(pool, w);
}

/* The lock is given up while it is made. */
static void make_one(struct ctrl_workers *pool)
{
	struct ctrl_error err;
	struct ctrl_worker *w = NULL;
	int rc;

	pthread_mutex_unlock(&pool->lock);
	rc = worker_spawn(pool, &w, &err);
	if (!rc)
		rc = watch(pool, w->pidfd, w);
	if (rc && w) {
		worker_kill(w);
		worker_free(w);
		ctrl_fail(&err, rc, "worker: cannot be watched: %s", strerror(-rc));
	}
	pthread_mutex_lock(&pool->lock);
	if (!rc) {
		add(pool, w);
		return;
	}
	pool->again_ns = ctrl_now_ns() + AGAIN_MS * 1000000ull;
	ctrl_log(pool->server, "event=worker-failed error=%s why=\"%s\"",
		 strerrorname_np(-err.code), err.text);
}

/* ---- endings ---- */

static void log_end(const struct ctrl_worker *w)
{
	bool by_signal = w->status && WIFSIGNALED(w->status);

	if (w->end == WORKER_END_IDLE || w->end == WORKER_END_EVICTED)
		return;
	ctrl_log(w->pool->server, "event=worker-ended pid=%d why=%s %s=%d", (int)w->pid,
		 end_names[w->end], by_signal ? "signal" : "status",
		 by_signal ? WTERMSIG(w->status) : WEXITSTATUS(w->status));
}

static void reap(struct ctrl_worker *w)
{
	struct ctrl_workers *pool = w->pool;
	struct ctrl_worker **at = &pool->workers;
	siginfo_t info = {0};

	/* Whatever else waits for children here may have been faster: dead it is all the same. */
	if (!waitid(P_PIDFD, (id_t)w->pidfd, &info, WEXITED | WNOHANG) && info.si_pid)
		w->status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
	if (w->state != WORKER_ENDING)
		w->end = w->status && WIFSIGNALED(w->status) && WTERMSIG(w->status) == SIGSYS
				 ? WORKER_END_FORBIDDEN
				 : WORKER_END_DIED;
	w->state = WORKER_ENDING;
	w->reaped = true;
	pool->ends[w->end]++;
	log_end(w);
	epoll_ctl(pool->epoll, EPOLL_CTL_DEL, w->pidfd, NULL);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pool->n--;
	if (w->job)
		tell(w, w->job->loop, worker_lost);
	/* A process that cannot even confine itself would be started over and over. */
	if (!atomic_load(&w->report->ready))
		pool->again_ns = ctrl_now_ns() + AGAIN_MS * 1000000ull;
	pool_put(w);
}

static void end_idle(struct ctrl_workers *pool)
{
	uint64_t now = ctrl_now_ns(), most = pool->limits->idle_ms * 1000000ull;

	for (struct ctrl_worker *w = pool->workers; w; w = w->next) {
		if (w->state == WORKER_IDLE && w->host && now - w->idle_ns >= most)
			pool_end(w, WORKER_END_IDLE);
	}
}

/* Until the next one has been idle for too long. */
static int wait_ms(const struct ctrl_workers *pool)
{
	if (pool->again_ns > ctrl_now_ns())
		return AGAIN_MS;
	for (const struct ctrl_worker *w = pool->workers; w; w = w->next) {
		if (w->state == WORKER_IDLE && w->host)
			return (int)(pool->limits->idle_ms / 4 + 10);
	}
	return -1;
}

static void handle(struct ctrl_workers *pool, const struct epoll_event *ev, int n)
{
	uint64_t count;

	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr)
			reap(ev[i].data.ptr);
		else
			(void)!read(pool->wake, &count, sizeof(count));
	}
}

/* Before the server says that it serves: can there be workers at all? */
static void first_one(struct ctrl_workers *pool)
{
	struct ctrl_error err;
	struct ctrl_worker *w;
	int rc = worker_spawn(pool, &w, &err);

	if (!rc) {
		rc = worker_await(w, &err);
		if (!rc)
			rc = watch(pool, w->pidfd, w);
		if (rc) {
			worker_kill(w);
			waitid(P_PIDFD, (id_t)w->pidfd, &(siginfo_t){0}, WEXITED);
			worker_free(w);
		}
	}
	pthread_mutex_lock(&pool->lock);
	if (rc) {
		pool->broken = true;
		snprintf(pool->why, sizeof(pool->why), "%s", err.text);
	} else {
		add(pool, w);
	}
	pool->started = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

static void *pool_main(void *arg)
{
	struct ctrl_workers *pool = arg;
	struct epoll_event ev[EVENTS];

	pthread_setname_np(pthread_self(), "workers");
	first_one(pool);
	pthread_mutex_lock(&pool->lock);
	while (!pool->stop && !pool->broken) {
		int ms, n;

		while (wants_one(pool))
			make_one(pool);
		end_idle(pool);
		ms = wait_ms(pool);
		pool->resting = ms < 0;
		pthread_mutex_unlock(&pool->lock);
		n = epoll_wait(pool->epoll, ev, EVENTS, ms);
		pthread_mutex_lock(&pool->lock);
		pool->resting = false;
		handle(pool, ev, n);
	}
	for (struct ctrl_worker *w = pool->workers; w; w = w->next)
		pool_end(w, WORKER_END_IDLE);
	while (pool->n) {
		int n;

		pthread_mutex_unlock(&pool->lock);
		n = epoll_wait(pool->epoll, ev, EVENTS, STOP_MS);
		pthread_mutex_lock(&pool->lock);
		if (!n || (n < 0 && errno != EINTR))
			break;
		handle(pool, ev, n);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* ---- life ---- */

static int pool_new(struct ctrl_server *s, char *path, struct ctrl_workers **out)
{
	struct ctrl_workers *pool = calloc(1, sizeof(*pool));
	int rc = 0;

	if (!pool)
		return -ENOMEM;
	pool->server = s;
	pool->limits = ctrl_server_lambda(s);
	pool->path = path;
	pool->pending_end = &pool->pending;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->changed, NULL);
	worker_sizes(pool);
	pool->epoll = epoll_create1(EPOLL_CLOEXEC);
	pool->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->epoll < 0 || pool->wake < 0)
		rc = -errno;
	if (!rc)
		rc = watch(pool, pool->wake, NULL);
	*out = pool;
	return rc;
}

static void pool_free(struct ctrl_workers *pool)
{
	if (pool->epoll >= 0)
		close(pool->epoll);
	if (pool->wake >= 0)
		close(pool->wake);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->changed);
	free(pool->path);
	free(pool);
}

static int pool_start(struct ctrl_workers *pool)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&pool->thread, NULL, pool_main, pool);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return -rc;
	pthread_mutex_lock(&pool->lock);
	while (!pool->started)
		pthread_cond_wait(&pool->changed, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	return 0;
}

int ctrl_workers_start(struct ctrl_server *s, const char *path, struct ctrl_error *err)
{
	char *found = path ? strdup(path) : worker_find();
	struct ctrl_workers *pool = NULL;
	int rc;

	if (!found && !path)
		return 0;
	rc = found ? pool_new(s, found, &pool) : -ENOMEM;
	if (!rc)
		rc = pool_start(pool);
	if (rc) {
		if (pool)
			pool_free(pool);
		else
			free(found);
		return ctrl_fail(err, rc, "workers: cannot be started: %s", strerror(-rc));
	}
	s->workers = pool;
	if (!pool->broken)
		return 0;
	/* What was asked for by name must work; else the server does all but compute. */
	if (path) {
		ctrl_fail(err, -EIO, "%s", pool->why);
		ctrl_workers_stop(s);
		return -EIO;
	}
	ctrl_log(s, "event=no-workers why=\"%s\"", pool->why);
	return 0;
}

void ctrl_workers_stop(struct ctrl_server *s)
{
	struct ctrl_workers *pool = s->workers;

	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pool_wake(pool);
	pthread_mutex_unlock(&pool->lock);
	pthread_join(pool->thread, NULL);
	s->workers = NULL;
	/* What the kernel still holds keeps its memory: it may write to it. */
	if (!pool->n)
		pool_free(pool);
}

void ctrl_workers_forget(struct ctrl_server *s, const struct ctrl_host *host)
{
	struct ctrl_workers *pool = s->workers;

	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	for (struct ctrl_worker *w = pool->workers; w; w = w->next) {
		if (w->host == host)
			pool_end(w, WORKER_END_IDLE);
	}
	pthread_mutex_unlock(&pool->lock);
}

void ctrl_workers_metrics(struct ctrl_server *s, FILE *out)
{
	struct ctrl_workers *pool = s->workers;
	uint32_t states[3] = {0};
	uint64_t starts, ends[WORKER_ENDS];

	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	for (const struct ctrl_worker *w = pool->workers; w; w = w->next)
		states[w->state]++;
	starts = pool->starts;
	memcpy(ends, pool->ends, sizeof(ends));
	pthread_mutex_unlock(&pool->lock);
	fprintf(out, "# TYPE liod_workers gauge\n"
		     "# HELP liod_workers Processes in which functions run.\n");
	fprintf(out, "liod_workers{state=\"idle\"} %" PRIu32 "\n", states[WORKER_IDLE]);
	fprintf(out, "liod_workers{state=\"busy\"} %" PRIu32 "\n", states[WORKER_BUSY]);
	fprintf(out,
		"# TYPE liod_worker_starts_total counter\n"
		"# HELP liod_worker_starts_total Worker processes started.\n"
		"liod_worker_starts_total %" PRIu64 "\n"
		"# TYPE liod_worker_ends_total counter\n"
		"# HELP liod_worker_ends_total Worker processes that ended, by cause.\n",
		starts);
	for (uint32_t i = WORKER_END_IDLE; i < WORKER_ENDS; i++)
		fprintf(out, "liod_worker_ends_total{why=\"%s\"} %" PRIu64 "\n", end_names[i],
			ends[i]);
}
