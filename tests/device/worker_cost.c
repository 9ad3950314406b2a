/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_cost.c - what the process boundary costs: short jobs, and long ones beside the same run in this process.
 *
 *   ninja tests/device/worker-cost, then as the tests are run (their environment); docs/lambda-workers.md has results.
 */
#include "lambda/lambda.h"
#include "worker_fixture.h"

#define SHORT_JOBS 20000u
#define LONG_BYTES (256u * MIB)
#define ROUNDS     9

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* ---- short jobs, one after another ---- */

struct series {
	struct run run; /* first */
	uint64_t began, ns[SHORT_JOBS];
	uint32_t n;
};

static void series_next(void *arg)
{
	struct series *s = arg;

	s->began = ctrl_now_ns();
	if (ctrl_job_start(&s->run.job, &s->run.err))
		abort();
}

static void series_ready(struct ctrl_job *job)
{
	struct series *s = (struct series *)job;
	struct iovec v[2];

	ctrl_job_consume(job, ctrl_job_output(job, v));
	if (!job->ended)
		return;
	ctrl_job_release(job);
	s->ns[s->n++] = ctrl_now_ns() - s->began;
	if (s->n == SHORT_JOBS)
		sem_post(&s->run.done);
	else if (ctrl_loop_post(job->loop, series_next, s))
		abort();
}

static void measure_short(struct fixture *f, const char *function, size_t len)
{
	static struct series s;
	uint8_t *data = calloc(1, len);

	s.n = 0;
	run_init(&s.run, f, function);
	run_over(&s.run, data, len);
	s.run.job.ready = series_ready;
	on_loop(f, series_next, &s);
	run_wait(&s.run);
	s.run.released = true;
	run_free(&s.run);
	free(data);
	qsort(s.ns, SHORT_JOBS, sizeof(*s.ns), compare);
	printf("%-8s %7zu bytes: least %.1f, p50 %.1f, p99 %.1f us\n", function, len, s.ns[0] / 1e3,
	       s.ns[SHORT_JOBS / 2] / 1e3, s.ns[SHORT_JOBS * 99ull / 100] / 1e3);
}

/* ---- long ones, by processor time ---- */

struct here {
	struct lambda_source src; /* first */
	int fd;
};

static int64_t here_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	ssize_t n = pread(((struct here *)src)->fd, buf, len, (off_t)off);

	return n < 0 ? -errno : n;
}

static int here_map(struct lambda_source *src, struct sbpf_sandbox *sb, uint64_t off, uint64_t len)
{
	return sbpf_sandbox_map(sb, ((struct here *)src)->fd, off, len);
}

static uint8_t taken[4 * MIB];

static int here_write(struct lambda_sink *sink, const void *p, size_t len)
{
	for (size_t at = 0; at < len; at += MIB)
		memcpy(taken, (const uint8_t *)p + at, len - at < MIB ? len - at : MIB);
	return 0;
}

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t run_here(const struct run *r)
{
	static const struct lambda_source_ops ops = {
		.name = "mmap", .read = here_read, .map = here_map};
	struct here src = {{.ops = &ops, .size = r->job.size}, r->job.fd};
	struct lambda_sink sink = {here_write};
	uint8_t *image = malloc(r->prog.size);
	struct lambda_function *fn;
	struct lambda_report report;
	struct lambda_error err;
	uint64_t ns = 0;

	assert_int_equal(pread(r->prog.fd, image, r->prog.size, 0), r->prog.size);
	assert_int_equal(lambda_function_load(image, r->prog.size, &fn, &err), 0);
	for (int i = 0; i < 2; i++) { /* compiled and warm the second time, as a worker is */
		const struct lambda_request req = {.fn = fn,
						   .arg = r->job.arg,
						   .arg_len = r->job.arg_len,
						   .length = UINT64_MAX,
						   .threads = 1,
						   .tier = SBPF_TIER_TEMPLATE,
						   .chunk = r->req.chunk};

		ns = thread_ns();
		assert_int_equal(lambda_run(&req, &src.src, &sink, &report, &err), 0);
		ns = thread_ns() - ns;
	}
	lambda_function_free(fn);
	free(image);
	return ns;
}

static void taking(struct ctrl_job *job)
{
	struct run *r = (struct run *)job;
	struct iovec v[2];
	size_t n;

	while ((n = ctrl_job_output(job, v))) {
		memcpy(taken, v[0].iov_base, v[0].iov_len);
		memcpy(taken + v[0].iov_len, v[1].iov_base, v[1].iov_len);
		r->len += n;
		ctrl_job_consume(job, n);
	}
	if (!job->ended)
		return;
	r->cpu_ns = ctrl_job_cpu_ns(job);
	ctrl_job_release(job);
	r->released = true;
	sem_post(&r->done);
}

static void measure_long(struct fixture *f, const char *function, const char *data, size_t len,
			 uint64_t chunk, const char *text)
{
	uint64_t here = UINT64_MAX, there = UINT64_MAX;
	char arg[32];

	for (int i = 0; i < ROUNDS; i++) {
		struct run r;
		uint64_t ns;

		run_init(&r, f, function);
		run_over(&r, data, len);
		r.req.chunk = chunk;
		r.job.ready = taking;
		if (text)
			run_arg_text(&r, arg, text);
		ns = run_here(&r);
		here = ns < here ? ns : here;
		run_ok(&r);
		there = r.cpu_ns < there ? r.cpu_ns : there;
		run_free(&r);
	}
	printf("%-8s pieces of %7llu: %.2f GB/s here, %+.1f %% processor time in a worker\n",
	       function, (unsigned long long)(chunk ? chunk : MIB), (double)len / (double)here,
	       ((double)there / (double)here - 1) * 100);
}

int main(void)
{
	struct ctrl_lambda_limits limits = fixture_limits;
	char *data = malloc(LONG_BYTES + 64);
	struct fixture f;
	size_t len = 0;

	limits.ring = MIB;
	for (size_t i = 0; len < LONG_BYTES; i++)
		len += (size_t)sprintf(data + len, "line %zu %s\n", i,
				       i % 10 ? "plain text of a log line" : "ERROR here");
	fixture_open(&f, &limits);
	measure_short(&f, "total", 4 * KIB);
	measure_short(&f, "echo", 4 * KIB);
	measure_short(&f, "total", 64 * KIB);
	measure_long(&f, "sha256", data, LONG_BYTES / 4, 0, NULL);
	measure_long(&f, "total", data, LONG_BYTES, 0, NULL);
	measure_long(&f, "total", data, LONG_BYTES, 64 * KIB, NULL);
	measure_long(&f, "grep", data, LONG_BYTES, 0, "ERROR");
	measure_long(&f, "echo", data, LONG_BYTES, 0, NULL);
	fixture_close(&f);
	free(data);
	return 0;
}
