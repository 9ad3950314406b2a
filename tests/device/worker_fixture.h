/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_fixture.h - jobs for real worker processes, driven from a real event loop.
 *
 * A server is no more here than what workers need of one.  Functions are objects of $LIO_FUNCTIONS and of
 * $LIO_TEST_FUNCTIONS; $LIOD_WORKER is the executable.
 */
#ifndef TESTS_WORKER_FIXTURE_H
#define TESTS_WORKER_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "device/worker_private.h"

#define KIB 1024u
#define MIB (1024u * KIB)

struct fixture {
	struct ctrl_server server;
	struct ctrl_loop *loop;
};

/* Hosts are pointers that are compared. */
static char host_names[8][8];
#define HOST(n) ((struct ctrl_host *)host_names[n])

static void fixture_log(void *arg, const char *line)
{
	if (getenv("TEST_VERBOSE"))
		fprintf(stderr, "# %s\n", line);
}

static const struct ctrl_lambda_limits fixture_limits = {
	.max_workers = 6,
	.max_request = 8 * MIB,
	.max_program = MIB,
	.max_memory = 512 * MIB,
	.max_timeout_ns = 120ull * 1000000000u,
	.ring = 256 * KIB,
	.idle_ms = 60000,
	.grace_ms = 2000,
};

static void fixture_open_path(struct fixture *f, const struct ctrl_lambda_limits *limits,
			      const char *path)
{
	const struct ctrl_loop_opts opts = {.max_transfer = MIB, .buffer_memory = 4 * MIB};
	struct ctrl_error err;

	memset(f, 0, sizeof(*f));
	f->server.lambda_limits = limits ? *limits : fixture_limits;
	f->server.opts.log = fixture_log;
	assert_int_equal(ctrl_loop_new(&opts, &f->loop), 0);
	if (ctrl_workers_start(&f->server, path, &err))
		fail_msg("%s", err.text);
}

static inline void fixture_open(struct fixture *f, const struct ctrl_lambda_limits *limits)
{
	fixture_open_path(f, limits, getenv("LIOD_WORKER"));
}

static inline void fixture_close(struct fixture *f)
{
	ctrl_workers_stop(&f->server);
	ctrl_loop_free(f->loop);
}

/* ---- calls on the loop's thread ---- */

struct on_loop {
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void on_loop_run(void *arg)
{
	struct on_loop *c = arg;

	c->fn(c->arg);
	sem_post(&c->done);
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem))
		;
}

static inline void on_loop(struct fixture *f, void (*fn)(void *arg), void *arg)
{
	struct on_loop c = {fn, arg, {{0}}};

	sem_init(&c.done, 0, 0);
	assert_int_equal(ctrl_loop_post(f->loop, on_loop_run, &c), 0);
	wait_for(&c.done);
}

struct run;
/* What the loop knows of a run. */
struct look {
	struct run *r;
	bool (*what)(struct run *r);
	bool yes;
};

static inline void on_loop_nothing(void *arg)
{
}

/* ---- programs and data ---- */

static int memory_file(const void *p, size_t len)
{
	int fd = memfd_create("data", MFD_CLOEXEC);

	assert_true(fd >= 0);
	for (size_t at = 0; at < len;) {
		ssize_t n = write(fd, (const char *)p + at, len - at);

		assert_true(n > 0);
		at += (size_t)n;
	}
	return fd;
}

static inline void program_from(struct ctrl_program *prog, const char *name, const void *image,
				size_t len)
{
	*prog = (struct ctrl_program){.fd = memory_file(image, len), .size = len};
	snprintf((char *)prog->hash, sizeof(prog->hash), "%s", name);
}

static inline void program_open(struct ctrl_program *prog, const char *name)
{
	static const char *const dirs[] = {"LIO_FUNCTIONS", "LIO_TEST_FUNCTIONS"};
	static uint8_t image[MIB];
	char path[4096];
	ssize_t n = -1;

	for (size_t i = 0; i < 2 && n < 0; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/%s.o", getenv(dirs[i]), name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, image, sizeof(image));
		close(fd);
	}
	if (n <= 0)
		fail_msg("no function %s", name);
	program_from(prog, name, image, (size_t)n);
}

/* ---- a run: a job, and what came of it ---- */

struct run {
	struct ctrl_job job; /* first */
	struct fixture *f;
	struct ctrl_program prog;
	struct nvme_lambda_request req;
	struct ctrl_error err;
	int rc; /* of ctrl_job_start() */
	/* a stream's input */
	const uint8_t *input;
	size_t input_len, input_at;
	bool input_given;
	/* output */
	uint8_t *out;
	size_t len, cap;
	bool hold;     /* take nothing */
	size_t bite;   /* take so much at a time; 0: all */
	bool unended;  /* keep it when it ended: the test releases it */
	bool released; /* by the loop */
	uint32_t readies;
	pid_t pid; /* of the worker that did it */
	uint64_t cpu_ns;
	sem_t done, told;
};

static void run_take(struct run *r)
{
	struct iovec v[2];
	size_t n, all;

	while (!r->hold && (all = n = ctrl_job_output(&r->job, v))) {
		if (r->bite && n > r->bite)
			n = r->bite;
		if (r->len + n > r->cap) {
			r->cap = 2 * (r->len + n);
			r->out = realloc(r->out, r->cap);
		}
		for (size_t i = 0, left = n; i < 2; i++) {
			size_t part = v[i].iov_len < left ? v[i].iov_len : left;

			memcpy(r->out + r->len, v[i].iov_base, part);
			r->len += part;
			left -= part;
		}
		ctrl_job_consume(&r->job, n);
	}
}

static void run_feed(struct run *r)
{
	size_t left = r->input_len - r->input_at;

	if (!r->input || r->input_given)
		return;
	r->input_at += ctrl_job_input(&r->job, r->input + r->input_at, left, true);
	r->input_given = r->input_at == r->input_len && r->job.worker && r->job.worker->begun;
}

static void run_ready(struct ctrl_job *job)
{
	struct run *r = (struct run *)job;

	r->readies++;
	run_feed(r);
	run_take(r);
	if (job->worker)
		r->pid = job->worker->pid;
	if (job->ended && !r->hold) {
		r->cpu_ns = ctrl_job_cpu_ns(job);
		if (!r->unended) {
			ctrl_job_release(job);
			r->released = true;
		}
		sem_post(&r->done);
	}
	sem_post(&r->told);
}

static void run_begin(void *arg)
{
	struct run *r = arg;

	r->rc = ctrl_job_start(&r->job, &r->err);
	if (r->rc)
		return;
	if (r->job.worker)
		r->pid = r->job.worker->pid;
	run_feed(r);
	run_take(r); /* also asks to be told */
}

static inline void run_init(struct run *r, struct fixture *f, const char *function)
{
	memset(r, 0, sizeof(*r));
	r->f = f;
	if (function)
		program_open(&r->prog, function);
	r->req = (struct nvme_lambda_request){.length = UINT64_MAX};
	r->job = (struct ctrl_job){
		.kind = CTRL_JOB_RUN,
		.loop = f->loop,
		.server = &f->server,
		.host = HOST(0),
		.program = &r->prog,
		.fd = -1,
		.request = &r->req,
		.threads = 1,
		.ready = run_ready,
	};
	sem_init(&r->done, 0, 0);
	sem_init(&r->told, 0, 0);
}

static inline void run_over(struct run *r, const void *data, size_t len)
{
	r->job.fd = memory_file(data, len);
	r->job.size = len;
}

static inline void run_arg(struct run *r, const void *arg, size_t len)
{
	r->job.arg = arg;
	r->job.arg_len = (uint32_t)len;
}

/* Text arguments are packed as length and bytes. */
static inline void run_arg_text(struct run *r, char *buf, const char *text)
{
	uint32_t len = (uint32_t)strlen(text);

	memcpy(buf, &len, sizeof(len));
	memcpy(buf + sizeof(len), text, len);
	run_arg(r, buf, sizeof(len) + len);
}

static inline void run_start(struct run *r)
{
	on_loop(r->f, run_begin, r);
	if (r->rc)
		fail_msg("%s", r->err.text);
}

static inline void run_wait(struct run *r)
{
	wait_for(&r->done);
}

static void run_release_now(void *arg)
{
	struct run *r = arg;

	ctrl_job_release(&r->job);
	r->released = true;
}

static inline void run_free(struct run *r)
{
	if (!r->released && !r->rc)
		on_loop(r->f, run_release_now, r);
	/* The loop is through with the call in which it was released. */
	on_loop(r->f, on_loop_nothing, NULL);
	if (r->job.fd >= 0)
		close(r->job.fd);
	close(r->prog.fd);
	free(r->out);
	sem_destroy(&r->done);
	sem_destroy(&r->told);
}

static inline void run_all(struct run *r)
{
	run_start(r);
	run_wait(r);
}

static inline void run_ok(struct run *r)
{
	run_all(r);
	if (r->job.result.error)
		fail_msg("error %d: %s", r->job.result.error, r->job.text);
}

static void look_now(void *arg)
{
	struct look *l = arg;
	struct ctrl_worker *w = l->r->job.worker;

	if (w && w->begun)
		l->r->pid = w->pid;
	l->yes = l->r->job.ended || (w && w->begun && l->what(l->r));
}

/* It has ended, or has begun and is so. */
static inline bool seen(struct run *r, bool (*what)(struct run *r))
{
	struct look l = {r, what, false};

	on_loop(r->f, look_now, &l);
	return l.yes;
}

/* A thread of its waits for something of ours. */
static inline bool is_waiting(struct run *r)
{
	return atomic_load(&r->job.worker->report->sleepers);
}

/* Wait for what will come to be; on however slow a machine it does within this. */
#define EVENTUALLY_MS 100000
#define EVENTUALLY(condition)                                                 \
	do {                                                                  \
		const struct timespec tick_ = {.tv_nsec = 2000000};           \
		uint64_t until_ = ctrl_now_ns() + EVENTUALLY_MS * 1000000ull; \
		while (!(condition)) {                                        \
			if (ctrl_now_ns() > until_)                           \
				fail_msg("never: %s", #condition);            \
			nanosleep(&tick_, NULL);                              \
		}                                                             \
	} while (0)

#endif /* TESTS_WORKER_FIXTURE_H */
