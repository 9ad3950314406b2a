/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.c - a server's life: limits, loops, subsystems, and an orderly end.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "device/server_private.h"

#define DEFAULT_THREADS 4u
#define MAX_THREADS     64u
/* What a store gets for the requests that it has, once connections were closed under them. */
#define CLOSE_MS 30000u
/* What flushing gets where one of them does not answer: the others' data are worth that much. */
#define STUCK_FLUSH_MS 10000u

const struct ctrl_limits ctrl_limits_default = {
	.max_connections = 16384,
	.max_controllers = 1024,
	.max_queue_entries = 128,
	.max_io_queues = 16,
	.max_transfer = 1u << 20,
	.in_capsule = 8192,
	.buffer_memory = 256ull << 20,
	.handshake_ms = 10000,
	.stall_ms = 30000,
};

/* ---- log ---- */

void ctrl_log(struct ctrl_server *s, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (!s->opts.log)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* Hosts name themselves: nothing of theirs may end a line or move a terminal's cursor. */
	for (char *p = line; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	}
	s->opts.log(s->opts.log_arg, line);
}

/* ---- setting up ---- */

static uint32_t *copy_uids(const struct ctrl_server_opts *opts)
{
	uint32_t *to = calloc(opts->n_allow_uids + 1, sizeof(*to));

	for (uint32_t i = 0; to && i < opts->n_allow_uids; i++)
		to[i] = opts->allow_uids[i];
	return to;
}

int ctrl_server_new(const struct ctrl_server_opts *opts, struct ctrl_server **out,
		    struct ctrl_error *err)
{
	struct ctrl_server *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;
	int rc;

	if (!s)
		return ctrl_fail(err, -ENOMEM, "server: out of memory");
	memcpy(&s->opts, opts, opts->size < sizeof(s->opts) ? opts->size : sizeof(s->opts));
	s->lambda_limits = s->opts.lambda ? *s->opts.lambda : ctrl_lambda_limits_default;
	s->opts.lambda = NULL; /* the caller's */
	s->diag = -1;
	s->opts.allow_uids = copy_uids(opts);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	s->subsystems_end = &s->subsystems;
	rc = !s->opts.allow_uids || ctrl_exports_new(s)
		     ? ctrl_fail(err, -ENOMEM, "server: out of memory")
		     : ctrl_lambda_start(s, err);
	if (!rc)
		rc = ctrl_server_add_subsystem(s, NVME_NQN_DISCOVERY, NULL, err);
	if (rc) {
		ctrl_server_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

static struct ctrl_subsystem *find_subsystem(struct ctrl_server *s, const char *nqn)
{
	struct ctrl_subsystem *sub = s->subsystems;

	while (sub && strcmp(sub->nqn, nqn) != 0)
		sub = sub->next;
	return sub;
}

int ctrl_server_add_subsystem(struct ctrl_server *s, const char *nqn, const char *serial,
			      struct ctrl_error *err)
{
	struct ctrl_subsystem *sub;
	int rc;

	if (find_subsystem(s, nqn))
		return ctrl_fail(err, -EEXIST,
				 "subsystem %s: there is one of this name; choose another", nqn);
	rc = ctrl_subsystem_new(s, nqn, serial, &sub, err);
	if (rc)
		return rc;
	sub->next = NULL;
	*s->subsystems_end = sub;
	s->subsystems_end = &sub->next;
	return 0;
}

int ctrl_server_add_namespace(struct ctrl_server *s, const char *nqn, struct ctrl_store *store,
			      struct ctrl_error *err)
{
	struct ctrl_subsystem *sub = find_subsystem(s, nqn);

	if (!sub)
		return ctrl_fail(err, -ENOENT, "subsystem %s: there is none of this name", nqn);
	return ctrl_subsystem_add(sub, store, err);
}

const struct ctrl_limits *ctrl_server_limits(const struct ctrl_server *s)
{
	return &s->opts.limits;
}

struct ctrl_subsystem *ctrl_server_subsystems(struct ctrl_server *s)
{
	return s->subsystems;
}

static uint32_t thread_count(const struct ctrl_server *s)
{
	cpu_set_t set;
	uint32_t n = s->opts.threads;

	if (!n)
		n = sched_getaffinity(0, sizeof(set), &set) ? 1 : (uint32_t)CPU_COUNT(&set);
	if (!s->opts.threads && n > DEFAULT_THREADS)
		n = DEFAULT_THREADS;
	return n < MAX_THREADS ? n : MAX_THREADS;
}

static int start_loop(struct ctrl_server *s, struct server_loop *l, uint64_t memory)
{
	const struct ctrl_loop_opts opts = {
		.max_transfer =
			2 * s->opts.limits.max_transfer, /* Compare and Copy: data and pieces */
		.buffer_memory = memory,
		.user = l,
	};

	l->server = s;
	if (metrics_init(l))
		return -ENOMEM;
	return ctrl_loop_new(&opts, &l->loop);
}

int ctrl_server_start(struct ctrl_server *s, struct ctrl_error *err)
{
	const struct ctrl_limits *lim = &s->opts.limits;
	uint32_t n = thread_count(s);
	int rc = 0;

	if (lim->buffer_memory / n < 2ull * lim->max_transfer)
		return ctrl_fail(err, -EINVAL,
				 "buffer memory: %" PRIu64
				 " bytes are less than two transfers of %" PRIu32
				 " bytes for each of %" PRIu32 " threads; allow more",
				 lim->buffer_memory, lim->max_transfer, n);
	s->loops = calloc(n, sizeof(*s->loops));
	if (!s->loops)
		return ctrl_fail(err, -ENOMEM, "server: out of memory");
	for (uint32_t i = 0; i < n && !rc; i++) {
		rc = start_loop(s, &s->loops[i], lim->buffer_memory / n);
		s->n_loops += !rc;
		if (rc)
			free(s->loops[i].commands);
	}
	if (!rc && ctrl_workers_start(s, s->opts.worker, err))
		return err->code;
	if (!rc && listeners_start(s, err))
		return err->code;
	if (rc)
		return ctrl_fail(err, rc, "server: cannot start its threads: %s", strerror(-rc));
	return 0;
}

/* ---- queues ---- */

static struct server_loop *loop_of(const struct ctrl_queue *q)
{
	return ctrl_loop_user(q->loop);
}

void ctrl_server_joined(struct ctrl_queue *q)
{
	struct server_loop *l = loop_of(q);

	q->loop_prev = NULL;
	q->loop_next = l->queues;
	if (l->queues)
		l->queues->loop_prev = q;
	l->queues = q;
}

void ctrl_server_left(struct ctrl_queue *q)
{
	struct server_loop *l = loop_of(q);

	if (q->loop_next)
		q->loop_next->loop_prev = q->loop_prev;
	if (q->loop_prev)
		q->loop_prev->loop_next = q->loop_next;
	else
		l->queues = q->loop_next;
	if (q->carries_io)
		atomic_fetch_sub(&l->io_queues, 1);
	atomic_fetch_sub(&l->in_flight, q->in_flight);
	server_gone(l);
}

void server_gone(struct server_loop *l)
{
	struct ctrl_server *s = l->server;

	atomic_fetch_sub(&l->connections, 1);
	if (atomic_fetch_sub(&s->connections, 1) == 1) {
		pthread_mutex_lock(&s->lock);
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
	}
}

/* ---- calls onto loops ---- */

struct call {
	struct ctrl_server *server;
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void call_run(void *arg)
{
	struct call *c = arg;
	struct ctrl_server *s = c->server;

	c->fn(c->arg);
	pthread_mutex_lock(&s->lock);
	c->done = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void server_call(struct ctrl_server *s, struct ctrl_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct call c = {.server = s, .fn = fn, .arg = arg};

	while (ctrl_loop_post(loop, call_run, &c))
		usleep(1000); /* out of memory: starting and ending wait for some */
	pthread_mutex_lock(&s->lock);
	while (!c.done)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the end ---- */

static void drain_queues(void *arg)
{
	struct server_loop *l = arg;

	for (struct ctrl_queue *q = l->queues, *next; q; q = next) {
		next = q->loop_next;
		q->transport->drain(q);
	}
}

static void close_queues(void *arg)
{
	struct server_loop *l = arg;

	for (struct ctrl_queue *q = l->queues, *next; q; q = next) {
		next = q->loop_next;
		q->transport->close(q);
	}
}

static struct timespec in_ms(uint32_t ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	return until;
}

static int wait_for_none(struct ctrl_server *s, uint32_t ms)
{
	const struct timespec until = in_ms(ms);
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	while (atomic_load(&s->connections) && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	pthread_mutex_unlock(&s->lock);
	return atomic_load(&s->connections) ? -ETIMEDOUT : 0;
}

/* Files are being closed: over a network that may hang. */
static int wait_for_exports(const struct ctrl_server *s, uint32_t ms)
{
	uint64_t until = ctrl_now_ns() + ms * 1000000ull;

	while (!ctrl_exports_idle(s)) {
		if (ctrl_now_ns() > until)
			return -ETIMEDOUT;
		usleep(1000);
	}
	return 0;
}

struct flush {
	struct ctrl_io io; /* first */
	struct ctrl_server *server;
	struct ctrl_namespace *ns;
	const char *nqn;
};

static void flush_done(struct ctrl_io *io, int error)
{
	struct flush *f = (struct flush *)io;
	struct ctrl_server *s = f->server;

	if (error)
		ctrl_log(s, "event=flush-failed nqn=%s nsid=%" PRIu32 " error=%s", f->nqn,
			 f->ns->nsid, strerrorname_np(-error));
	pthread_mutex_lock(&s->lock);
	if (error)
		s->flush_error = -EIO;
	s->flushes--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	free(f);
}

static void flush_namespace(struct ctrl_server *s, struct ctrl_subsystem *sub, uint32_t i)
{
	struct ctrl_store *store = sub->ns[i].store;
	struct flush *f;

	if (store->geo.read_only)
		return;
	pthread_mutex_lock(&s->lock);
	s->flushes++;
	pthread_mutex_unlock(&s->lock);
	f = calloc(1, sizeof(*f));
	if (!f) {
		pthread_mutex_lock(&s->lock);
		s->flush_error = -ENOMEM;
		s->flushes--;
		pthread_mutex_unlock(&s->lock);
		return;
	}
	*f = (struct flush){
		.io = {.op = CTRL_IO_FLUSH, .loop = s->loops[0].loop, .done = flush_done},
		.server = s,
		.ns = &sub->ns[i],
		.nqn = sub->nqn,
	};
	store->ops->submit(store, &f->io);
}

static void flush_all(void *arg)
{
	struct ctrl_server *s = arg;

	for (struct ctrl_subsystem *sub = s->subsystems; sub; sub = sub->next) {
		for (uint32_t i = 0; i < ctrl_subsystem_count(sub); i++)
			flush_namespace(s, sub, i);
	}
}

/* Connections, then what they left behind. */
static int wait_for_all(struct ctrl_server *s, uint32_t ms)
{
	int rc = wait_for_none(s, ms);

	if (rc) {
		for (uint32_t i = 0; i < s->n_loops; i++)
			server_call(s, s->loops[i].loop, close_queues, &s->loops[i]);
		rc = wait_for_none(s, CLOSE_MS);
	}
	if (!rc)
		rc = ctrl_lambda_drain(s, CLOSE_MS);
	return rc ? rc : wait_for_exports(s, CLOSE_MS);
}

/* @stuck: something does not answer, maybe one of the stores. */
static int flush_stores(struct ctrl_server *s, bool stuck)
{
	const struct timespec until = in_ms(STUCK_FLUSH_MS);
	int rc = 0;

	server_call(s, s->loops[0].loop, flush_all, s);
	pthread_mutex_lock(&s->lock);
	while (s->flushes && rc != ETIMEDOUT)
		rc = stuck ? pthread_cond_timedwait(&s->changed, &s->lock, &until)
			   : pthread_cond_wait(&s->changed, &s->lock);
	rc = s->flush_error;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int ctrl_server_drain(struct ctrl_server *s, uint32_t ms)
{
	int stuck, rc;

	if (!s->n_loops)
		return 0;
	listeners_stop(s);
	for (uint32_t i = 0; i < s->n_loops; i++)
		server_call(s, s->loops[i].loop, drain_queues, &s->loops[i]);
	stuck = wait_for_all(s, ms);
	rc = flush_stores(s, stuck);
	return stuck ? stuck : rc;
}

void ctrl_server_free(struct ctrl_server *s)
{
	if (!s)
		return;
	listeners_stop(s);
	ctrl_lambda_stop(s);
	ctrl_workers_stop(s);
	for (uint32_t i = 0; i < s->n_loops; i++)
		ctrl_loop_free(s->loops[i].loop);
	for (uint32_t i = 0; i < s->n_loops; i++)
		free(s->loops[i].commands);
	free(s->loops);
	for (struct ctrl_subsystem *sub = s->subsystems, *next; sub; sub = next) {
		next = sub->next;
		ctrl_subsystem_free(sub);
	}
	ctrl_lambda_free(s);
	ctrl_exports_free(s);
	if (s->diag >= 0)
		close(s->diag);
	free((void *)(uintptr_t)s->opts.allow_uids);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
