/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.c - one job: check a program, or run a function over a source, and report.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker.h"

static void report_error(struct worker_report *report, int code, const struct lambda_error *err)
{
	size_t len = strnlen(err->text, sizeof(err->text) - 1);

	memcpy(report->text, err->text, len);
	report->text_len = (uint32_t)len;
	report->error_offset = err->offset;
	report->error = code;
}

static void report_none(struct worker_report *report)
{
	const size_t from = offsetof(struct worker_report, error);

	memset((uint8_t *)report + from, 0, offsetof(struct worker_report, text) - from);
	memset(report->name, 0, sizeof(report->name));
	report->error_offset = UINT64_MAX;
}

static void check(struct worker_report *report, uint32_t slot)
{
	const struct lambda_function *fn = worker_program(slot);
	struct sbpf_program_info info = {.size = sizeof(info)};

	strncpy(report->name, fn->name, sizeof(report->name) - 1);
	if (!sbpf_program_info(fn->prog, &info))
		report->helpers = info.helpers;
}

static uint32_t io_of(const char *name)
{
	static const char *const names[] = {
		[WORKER_IO_NONE] = "",     [WORKER_IO_MMAP] = "mmap", [WORKER_IO_PREAD] = "pread",
		[WORKER_IO_GZIP] = "gzip", [WORKER_IO_ZSTD] = "zstd", [WORKER_IO_STREAM] = "stream",
	};

	for (uint32_t i = 1; name && i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(name, names[i]))
			return i;
	}
	return WORKER_IO_NONE;
}

static void report_run(struct worker_report *to, const struct lambda_report *from)
{
	static const uint32_t tiers[] = {[SBPF_TIER_INTERP] = 1, [SBPF_TIER_TEMPLATE] = 2};

	to->bytes_in = from->bytes_in;
	to->trailing = from->trailing;
	to->io_ns = from->io_ns;
	to->run_ns = from->run_ns;
	to->compile_ns = from->compile_ns;
	to->fuel = from->fuel;
	to->calls = from->calls;
	to->reruns = from->reruns;
	to->threads = from->threads;
	to->tier = from->tier == SBPF_TIER_INTERP || from->tier == SBPF_TIER_TEMPLATE
			   ? tiers[from->tier]
			   : 0;
	to->io = io_of(from->source);
}

/* The optimizing tier wants a compiler's library and processes of its own: none of that is here. */
static enum sbpf_tier tier_of(uint32_t tier)
{
	if (tier == 1 || (!tier && sbpf_tier_missing(SBPF_TIER_TEMPLATE)))
		return SBPF_TIER_INTERP;
	return SBPF_TIER_TEMPLATE;
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
	struct worker_report *report = arg;

	atomic_store_explicit(&report->done, done, memory_order_relaxed);
	atomic_store_explicit(&report->total, total, memory_order_relaxed);
}

static int run_over(struct worker_run *run, struct worker_source *source, struct lambda_error *err)
{
	const struct worker_command *job = &run->job;
	struct worker_report *report = run->areas->report;
	struct lambda_report done = {0};
	struct worker_sink sink;
	const struct lambda_request req = {
		.fn = worker_program(job->slot),
		.arg = run->areas->payload,
		.arg_len = job->arg_len,
		.offset = job->offset,
		.length = job->length,
		.chunk = job->chunk,
		.threads = job->threads,
		.tier = tier_of(job->tier),
		.fuel = job->fuel,
		.memory = job->memory,
		.max_output = job->max_output,
		.deadline_ns = job->deadline_ns,
		.cancel = &run->areas->command->cancel,
		.progress = progress,
		.hook_arg = report,
	};
	int rc;

	worker_sink_init(&sink, run);
	rc = lambda_run(&req, &source->src, &sink.sink, &done, err);
	report_run(report, &done);
	if (!rc && report->io == WORKER_IO_MMAP)
		rc = worker_source_check(source, job->offset, job->length);
	/* The source knows better why it failed than who asked it. */
	if (rc && rc == source->fail.code)
		*err = source->fail;
	return rc;
}

static int run(struct worker_run *run, int fd, struct lambda_error *err)
{
	struct worker_source source;
	int rc = worker_source_open(&source, run, fd);

	if (rc)
		*err = source.fail;
	else
		rc = run_over(run, &source, err);
	worker_source_close(&source);
	return rc;
}

/* What the controller promises; a breach is no request's fault. */
static bool sane(const struct worker_areas *areas, const struct worker_command *job)
{
	return job->slot < WORKER_PROGRAMS && job->arg_len <= areas->payload_bytes &&
	       job->threads >= 1 && job->threads <= WORKER_THREADS &&
	       job->program_bytes <= job->program_max;
}

static int load(const struct worker_command *job, int program, struct lambda_error *err)
{
	if (job->flags & WORKER_LOAD)
		return worker_program_load(job->slot, program, job->program_bytes, err);
	return worker_program(job->slot)
		       ? 0
		       : lambda_fail(err, -EPROTO, "program: its slot is empty; send it again");
}

void worker_do(const struct worker_areas *areas, uint32_t number, int program, int source)
{
	struct worker_report *report = areas->report;
	struct lambda_error err = {.offset = UINT64_MAX};
	struct worker_run state = {.areas = areas, .job = *areas->command};
	int rc;

	state.out_head = state.job.out_at;
	state.in_tail = state.job.in_at;
	report_none(report);
	if (!sane(areas, &state.job))
		_exit(WORKER_EXIT_PROTOCOL);
	rc = load(&state.job, program, &err);
	if (program >= 0)
		close(program);
	if (!rc && state.job.kind == WORKER_CHECK)
		check(report, state.job.slot);
	else if (!rc)
		rc = run(&state, source, &err);
	if (rc)
		report_error(report, rc, &err);
	atomic_store_explicit(&report->ended, number, memory_order_release);
	worker_notify(areas);
	/* Nobody has to wait for this. */
	if (source >= 0)
		close(source);
}
