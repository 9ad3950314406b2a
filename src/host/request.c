/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - λ-read and λ-write: options are checked, an engine is chosen and run, its output taken,
 * the result reported.
 */
#include <errno.h>
#include <string.h>

#include "host/host.h"

#define THREADS_MAX 1024u
#define STORE_BYTES (8u << 20) /* stored between two looks at the cancel */

/* ---- options and results ---- */

_Static_assert(LIO_TIER_AUTO == (int)SBPF_TIER_AUTO && LIO_TIER_INTERP == (int)SBPF_TIER_INTERP &&
		       LIO_TIER_TEMPLATE == (int)SBPF_TIER_TEMPLATE &&
		       LIO_TIER_LLVM == (int)SBPF_TIER_LLVM &&
		       LIO_TIER_KERNEL == (int)SBPF_TIER_KERNEL,
	       "tiers are numbered alike");

struct output;

/* One call of the API. */
struct job {
	struct host_run run; /* first: this is what the engine sees */
	struct output *out;
	const struct host_engine *engine;
	const char *why_engine;
	struct lio_result *result; /* the caller's, may be NULL */
	uint64_t started_ns;
};

/* Fields that an older caller does not know are 0; ones that we do not know must be. */
static int opts_copy(struct lio_run_opts *to, const struct lio_run_opts *from)
{
	const uint8_t *bytes = (const uint8_t *)from;

	if (!from) {
		*to = (struct lio_run_opts){.size = sizeof(*to)};
		return 0;
	}
	if (from->size < sizeof(from->size))
		return host_fail(-EINVAL,
				 "options: their size is not set; set .size = sizeof(struct "
				 "lio_run_opts)");
	if (from->size < sizeof(*to))
		memset(to, 0, sizeof(*to));
	memcpy(to, from, from->size < sizeof(*to) ? from->size : sizeof(*to));
	for (size_t i = sizeof(*to); i < from->size; i++)
		if (bytes[i])
			return host_fail(
				-E2BIG,
				"options: byte %zu of %zu is set, this version (" LIO_VERSION
				") knows %zu; use a newer liblambdaio",
				i, from->size, sizeof(*to));
	return 0;
}

static int opts_check(const struct lio_run_opts *o)
{
	if ((unsigned int)o->tier > LIO_TIER_KERNEL)
		return host_fail(-EINVAL,
				 "tier %d: there is none of this number; use enum lio_tier",
				 (int)o->tier);
	if ((unsigned int)o->io > LIO_IO_PREAD)
		return host_fail(-EINVAL, "io %d: there is none of this number; use enum lio_io",
				 (int)o->io);
	if ((unsigned int)o->decompress > LIO_DECOMPRESS_NONE)
		return host_fail(
			-EINVAL,
			"decompress %d: there is none of this number; use enum lio_decompress",
			(int)o->decompress);
	if (o->threads > THREADS_MAX)
		return host_fail(-EINVAL, "threads %u: at most %u; leave it 0 for one a core",
				 o->threads, THREADS_MAX);
	if (o->tier && (o->tier == LIO_TIER_KERNEL) != (o->engine == LIO_ENGINE_KERNEL))
		return host_fail(-EINVAL,
				 "tier %s: engine kernel runs tier kernel and no other does; leave "
				 "the tier to auto",
				 sbpf_tier_name((enum sbpf_tier)o->tier));
	return 0;
}

/* A caller's block must hold the declared fields and nothing else; what is not declared is the caller's. */
static int args_check(const struct lambda_function *fn, const uint8_t *arg, size_t len)
{
	size_t at = 0;

	for (uint32_t i = 0; i < fn->args.n_fields; i++) {
		int64_t n = lambda_field_extent(&fn->args.fields[i], arg + at, len - at);

		if (n < 0)
			return host_fail(-EINVAL,
					 "%s: its %zu bytes of arguments end within '%s'; pack "
					 "them with lio_args()",
					 fn->name, len, fn->args.fields[i].name);
		at += (size_t)n;
	}
	if (at < len && fn->args.n_fields)
		return host_fail(-EINVAL,
				 "%s: %zu of its %zu bytes of arguments are all it declares; pack "
				 "them with lio_args()",
				 fn->name, at, len);
	return 0;
}

static int job_args(struct job *job)
{
	const struct lio_function *fn = job->run.fn;
	uint8_t *none;
	size_t len;
	int rc;

	if (job->run.opts.arg) {
		rc = args_check(fn->fn, job->run.opts.arg, job->run.opts.arg_len);
		if (rc)
			return rc;
		job->run.req.arg = job->run.opts.arg;
		job->run.req.arg_len = job->run.opts.arg_len;
		return 0;
	}
	if (fn->needs_args) /* packing nothing says which one is missing */
		return lambda_args_pack(&fn->fn->args, NULL, 0, &none, &len, host_error());
	job->run.req.arg = fn->defaults;
	job->run.req.arg_len = fn->defaults_len;
	return 0;
}

static bool job_restart(struct host_run *run);

/* What is read and written, @file and @target, is filled in before. */
static int job_init(struct job *job, const struct lio_function *fn, uint64_t offset,
		    uint64_t length, const struct lio_run_opts *opts, struct lio_result *result)
{
	const struct lio_run_opts *o = &job->run.opts;
	int rc;

	memset(&job->run.report, 0, sizeof(job->run.report));
	job->run.fn = fn;
	job->run.restart = job_restart;
	job->run.queue_ns = job->run.written = 0;
	job->run.why = NULL;
	job->result = NULL;
	job->engine = &host_engine_user;
	job->why_engine = "";
	if (result && result->size < sizeof(result->size))
		return host_fail(-EINVAL, "result: its size is not set; set .size = sizeof(struct "
					  "lio_result)");
	job->result = result;
	job->started_ns = result ? host_now() : 0;
	rc = opts_copy(&job->run.opts, opts);
	if (rc)
		return rc;
	if (o->timeout_ns && !result)
		job->started_ns = host_now();
	job->run.req = (struct lambda_request){
		.fn = fn->fn,
		.offset = offset,
		.length = length,
		.chunk = o->chunk,
		.threads = o->threads,
		.tier = (enum sbpf_tier)o->tier,
		.fuel = o->fuel,
		.memory = o->memory,
		.max_output = o->max_output,
		.cancel = o->cancel,
		.progress = o->progress,
		.trace = o->trace,
		.hook_arg = o->hook_arg,
	};
	if (o->timeout_ns)
		job->run.req.deadline_ns = o->timeout_ns > UINT64_MAX - job->started_ns
						   ? UINT64_MAX
						   : job->started_ns + o->timeout_ns;
	rc = opts_check(o);
	if (!rc)
		rc = host_dispatch(&job->run, &job->engine, &job->why_engine);
	if (!rc)
		rc = job_args(job);
	return rc;
}

static const char *why_tier(const struct job *job)
{
	if (job->engine->id == LIO_ENGINE_DEVICE && !job->run.opts.tier)
		return "the server's choice";
	if (job->run.report.restarts)
		return "but for runs that took too long for the kernel, which the template tier "
		       "repeated";
	if (job->run.report.tier == SBPF_TIER_KERNEL)
		return "what this engine runs";
	if (job->run.opts.tier)
		return "as asked";
	if (job->run.report.tier != job->run.report.tier_first)
		return "the fastest one here, once it was compiled";
	return job->run.report.tier == SBPF_TIER_INTERP ? "no compiler for this machine"
							: "the fastest one that was ready";
}

static const char *why_io(const struct job *job)
{
	static const struct {
		const char *io, *why;
	} reasons[] = {
		{"mmap", "large pieces of a cached file need no copy"},
		{"pread", "a copy into the cache beats mapping here"},
		{"gzip", "known by its first bytes, so decompressed in order"},
		{"zstd", "known by its first bytes, so decompressed in order"},
		{"stream", "it can only be read in order"},
		{"memory", "the caller's buffer"},
		{"ring", "read ahead of the function"},
	};

	if (job->run.report.tier == SBPF_TIER_KERNEL && !strcmp(job->run.report.source, "pread"))
		return "into the pages that the kernel shares, which no file maps";
	if (job->run.opts.io == LIO_IO_MMAP && !strcmp(job->run.report.source, "pread"))
		return "pieces this small are not worth mapping";
	if (job->run.opts.io == LIO_IO_MMAP && !strcmp(job->run.report.source, "mmap"))
		return "as asked";
	if (job->run.opts.io == LIO_IO_PREAD && !strcmp(job->run.report.source, "pread"))
		return "as asked";
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (!strcmp(job->run.report.source, reasons[i].io))
			return reasons[i].why;
	return "";
}

/* Strings one after another, without a format: this is on the way of every small read. */
static void join(char *to, size_t cap, const char *const *parts)
{
	size_t at = 0;

	for (; *parts; parts++) {
		size_t n = strlen(*parts);

		if (n > cap - 1 - at)
			n = cap - 1 - at;
		memcpy(to + at, *parts, n);
		at += n;
	}
	to[at] = 0;
}

static void result_fill(const struct job *job, int rc, struct lio_result *r)
{
	const struct lambda_report *rep = &job->run.report;

	r->bytes_in = rep->bytes_in;
	r->bytes_out = rep->bytes_out;
	r->bytes_written = job->run.written;
	r->trailing = rep->trailing;
	r->io_ns = rep->io_ns;
	r->run_ns = rep->run_ns;
	r->wall_ns = host_now() - job->started_ns;
	r->compile_ns = rep->compile_ns;
	r->fuel = rep->fuel;
	r->calls = rep->calls;
	r->reruns = rep->reruns;
	r->threads = rep->threads;
	r->engine = job->engine->id;
	r->tier = (enum lio_tier)rep->tier;
	r->io = rep->source ? rep->source : "";
	r->why[0] = 0;
	if (rep->source)
		join(r->why, sizeof(r->why),
		     (const char *const[]){job->engine->name, " engine: ", job->why_engine,
					   job->run.why ? ", " : "",
					   job->run.why ? job->run.why : "", "; ",
					   sbpf_tier_name(rep->tier), " tier: ", why_tier(job),
					   "; ", rep->source, ": ", why_io(job), NULL});
	r->tier_first = (enum lio_tier)rep->tier_first;
	r->switch_bytes = rep->bytes_first;
	join(r->tier_why, sizeof(r->tier_why),
	     (const char *const[]){rep->tier_why ? rep->tier_why : "", NULL});
	r->error_offset = rc ? host_error()->offset : UINT64_MAX;
	r->queue_ns = job->run.queue_ns;
}

static int job_done(const struct job *job, int rc)
{
	struct lio_result full, *r = job->result;
	size_t size;

	if (!r)
		return rc;
	size = r->size;
	if (size >= sizeof(full)) {
		result_fill(job, rc, r);
		memset((uint8_t *)r + sizeof(full), 0, size - sizeof(full));
	} else {
		full.size = size;
		result_fill(job, rc, &full);
		memcpy(r, &full, size);
	}
	return rc;
}

/* ---- where output goes ---- */

struct output {
	struct lambda_sink sink; /* first: this is what the engine sees */
	struct job *job;
	uint8_t *buf; /* λ-read: the caller's */
	size_t cap, len;
	struct stage *stage;         /* staged, if not NULL */
	const struct lio_sink *user; /* streamed, else */
	bool given;                  /* some of it */
	struct lambda_error fail;    /* of the output, which an engine would not know to explain */
};

static int output_fail(struct output *out, int code)
{
	out->fail.code = code;
	return code;
}

static int buffer_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct output *out = (struct output *)sink;

	if (len > out->cap - out->len) {
		lambda_fail(
			&out->fail, -ENOSPC,
			"%s: output quota of %zu bytes, the caller's buffer, is too small; give a "
			"larger one or use lio_lambda_scan",
			out->job->run.fn->fn->name, out->cap);
		return -ENOSPC;
	}
	memcpy(out->buf + out->len, p, len);
	out->len += len;
	return 0;
}

static int stage_sink_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct output *out = (struct output *)sink;
	int rc = stage_write(out->stage, p, len, &out->fail);

	return rc ? output_fail(out, rc) : 0;
}

/* The caller's own sink: its code is passed on. */
static int user_take(void *arg, const void *p, size_t len)
{
	struct output *out = arg;
	int rc = len ? out->user->write(out->user->arg, p, len) : 0;

	out->given = true;
	if (!rc)
		return 0;
	if (rc > 0)
		rc = -EIO;
	lambda_fail(&out->fail, rc, "%s: whoever takes its output refused it: %s; see there",
		    out->job->run.fn->fn->name, strerror(-rc));
	return rc;
}

static int user_sink_write(struct lambda_sink *sink, const void *p, size_t len)
{
	return user_take(sink, p, len);
}

/* The run begins again: forget its output, unless somebody saw some of it. */
static bool job_restart(struct host_run *run)
{
	struct output *out = ((struct job *)run)->out;

	out->len = 0;
	if (out->stage) {
		stage_free(out->stage);
		stage_init(out->stage);
	}
	return !out->given;
}

static int job_run(struct job *job, struct output *out)
{
	int rc;

	job->out = out;
	job->run.sink = &out->sink;
	out->job = job;
	out->fail.code = 0;
	rc = job->engine->run(&job->run, host_error());
	if (rc && rc == out->fail.code)
		*host_error() = out->fail;
	return rc;
}

/* ---- λ-read ---- */

int64_t lio_lambda_read(struct lio_file *file, const struct lio_function *fn, uint64_t offset,
			uint64_t length, const struct lio_run_opts *opts, void *buf, size_t cap,
			struct lio_result *result)
{
	struct output out = {.sink.write = buffer_write, .buf = buf, .cap = cap};
	struct job job;
	int rc;

	job.run.file = file;
	job.run.target = NULL;
	rc = job_init(&job, fn, offset, length, opts, result);
	if (!rc)
		rc = job.engine->open(&job.run);
	if (rc)
		return job_done(&job, rc);
	rc = job_run(&job, &out);
	input_close(&job.run.in);
	job_done(&job, rc);
	return rc ? rc : (int64_t)out.len;
}

static int scan_run(struct job *job, struct output *out)
{
	struct stage stage;
	int rc;

	if (out->user->stream) {
		out->sink.write = user_sink_write;
		return job_run(job, out);
	}
	stage_init(&stage);
	out->sink.write = stage_sink_write;
	out->stage = &stage;
	rc = job_run(job, out);
	if (!rc) {
		rc = stage_replay(&stage, user_take, out, &out->fail);
		if (rc)
			*host_error() = out->fail;
	}
	stage_free(&stage);
	return rc;
}

int lio_lambda_scan(struct lio_file *file, const struct lio_function *fn, uint64_t offset,
		    uint64_t length, const struct lio_run_opts *opts, const struct lio_sink *sink,
		    struct lio_result *result)
{
	struct output out = {.user = sink};
	struct job job;
	int rc;

	job.run.file = file;
	job.run.target = NULL;
	rc = job_init(&job, fn, offset, length, opts, result);
	if (!rc && sink->size < sizeof(*sink))
		rc = host_fail(-EINVAL,
			       "sink: its size is not set; set .size = sizeof(struct lio_sink)");
	if (!rc)
		rc = job.engine->open(&job.run);
	if (rc)
		return job_done(&job, rc);
	rc = scan_run(&job, &out);
	input_close(&job.run.in);
	return job_done(&job, rc);
}

/* ---- λ-write ---- */

struct store {
	struct job *job;
	struct lio_file *file;
	uint64_t at;
};

static int store_take(void *arg, const void *p, size_t len)
{
	struct store *st = arg;
	const int *cancel = st->job->run.opts.cancel;
	const uint8_t *from = p;
	int rc = 0;

	for (size_t done = 0; !rc && done < len; done += STORE_BYTES) {
		size_t n = len - done < STORE_BYTES ? len - done : STORE_BYTES;

		if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED))
			return -ECANCELED;
		rc = file_pwrite(st->file, from + done, n, st->at + st->job->run.written,
				 &st->job->run.written);
	}
	return rc;
}

static int store_fail(const struct store *st, int code, uint64_t total)
{
	static const struct {
		int error;
		const char *why, *fix;
	} known[] = {
		{ENOSPC, "disk full", "free some space there and write again"},
		{EDQUOT, "disk quota exceeded", "free some space there and write again"},
		{EFBIG, "over the largest size of a file here", "raise \"ulimit -f\" or split it"},
		{EIO, "the medium failed", "see the kernel's log"},
		{ESPIPE, "a stream has no offsets", "write to a regular file"},
		{ECANCELED, "cancelled while storing", "run it again to store all of it"},
	};
	const char *why = strerror(-code), *fix = "check what it is and how it was opened";

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].error == -code) {
			why = known[i].why;
			fix = known[i].fix;
		}
	return host_fail(code, "%s: %s after %llu of %llu bytes; %s", st->file->name, why,
			 (unsigned long long)st->job->run.written, (unsigned long long)total, fix);
}

static int store_all(struct job *job, struct lio_file *file, uint64_t at, struct stage *stage)
{
	struct store st = {.job = job, .file = file, .at = at};
	uint64_t total = stage_bytes(stage), t0 = host_now();
	struct lambda_error own = {.code = 0};
	struct file_limit lim;
	int rc;

	if (at > INT64_MAX || total > INT64_MAX - at)
		return store_fail(&st, -EFBIG, total);
	file_limit_enter(&lim);
	rc = stage_replay(stage, store_take, &st, &own);
	file_limit_leave(&lim);
	pthread_mutex_lock(&file->lock);
	file->probed = false; /* the clock of mtime is too coarse to show every store */
	pthread_mutex_unlock(&file->lock);
	job->run.report.io_ns += host_now() - t0;
	if (own.code)
		*host_error() = own;
	else if (rc && file->kind != FILE_REMOTE)
		store_fail(&st, rc, total);
	return rc;
}

static int write_check(const struct lio_file *file, const struct lio_function *fn)
{
	if (fn->fn->kind == LAMBDA_KIND_FOLD)
		return host_fail(
			-EINVAL,
			"%s: a fold has one result and nothing to write for each record; use a "
			"map or a scan",
			fn->fn->name);
	if ((file->flags & O_ACCMODE) == O_RDONLY)
		return host_fail(-EBADF,
				 "%s: not open for writing; open it with O_WRONLY or O_RDWR",
				 file->name);
	return 0;
}

static int write_here(struct job *job, struct lio_file *file, uint64_t at)
{
	struct stage stage;
	struct output out = {.sink.write = stage_sink_write, .stage = &stage};
	int rc;

	stage_init(&stage);
	rc = job_run(job, &out);
	input_close(&job->run.in);
	if (!rc)
		rc = store_all(job, file, at, &stage);
	stage_free(&stage);
	return rc;
}

static int write_there(struct job *job)
{
	struct output out = {.job = job};
	int rc = job_run(job, &out);

	input_close(&job->run.in);
	return rc;
}

/* The rest of a λ-write whose job_init() came to @rc. */
static int write_run(struct job *job, int rc)
{
	struct host_run *run = &job->run;

	if (!rc)
		rc = write_check(run->target, run->fn);
	if (!rc)
		rc = job->engine->open(run);
	if (!rc && job->engine->stores && job->engine->stores(run))
		rc = write_there(job);
	else if (!rc)
		rc = write_here(job, run->target, run->at);
	return job_done(job, rc);
}

int lio_lambda_write(struct lio_file *file, uint64_t at, const struct lio_function *fn,
		     struct lio_file *input, uint64_t offset, uint64_t length,
		     const struct lio_run_opts *opts, struct lio_result *result)
{
	struct job job;

	job.run.file = input;
	job.run.target = file;
	job.run.at = at;
	return write_run(&job, job_init(&job, fn, offset, length, opts, result));
}

int lio_lambda_write_mem(struct lio_file *file, uint64_t at, const struct lio_function *fn,
			 const void *input, size_t len, const struct lio_run_opts *opts,
			 struct lio_result *result)
{
	struct job job;

	job.run.file = NULL;
	job.run.mem = input;
	job.run.mem_len = len;
	job.run.target = file;
	job.run.at = at;
	return write_run(&job, job_init(&job, fn, 0, len, opts, result));
}
