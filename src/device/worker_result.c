/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_result.c - what a worker says of a job, copied once and checked; it may be anything.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "device/worker_private.h"

#define MAX_ERRNO 4095

/* It goes to hosts and into logs: one line, nothing that moves a cursor. */
static void copy_text(char *to, size_t cap, const char *from, size_t len)
{
	len = len < cap - 1 ? len : cap - 1;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)from[i];

		to[i] = (char)(c < ' ' || c == 0x7f ? '?' : c);
	}
	memset(to + len, 0, cap - len);
}

int worker_result(const struct worker_report *report, struct ctrl_job *job)
{
	struct nvme_lambda_result *to = &job->result;
	struct worker_report from;

	_Static_assert(WORKER_IO_STREAM == (int)NVME_LAMBDA_IO_STREAM &&
			       WORKER_IO_MMAP == (int)NVME_LAMBDA_IO_MMAP,
		       "the same numbers");
	memcpy(&from, report, sizeof(from));
	if (from.error > 0 || from.error < -MAX_ERRNO || from.text_len >= sizeof(from.text) ||
	    from.io > WORKER_IO_STREAM || from.tier > 2 || from.threads > WORKER_THREADS)
		return -EPROTO;
	to->error = from.error;
	to->error_offset = from.error_offset;
	to->threads = (uint16_t)from.threads;
	to->tier = (uint8_t)from.tier;
	to->io = (uint8_t)from.io;
	to->bytes_in = from.bytes_in;
	to->trailing = from.trailing;
	to->io_ns = from.io_ns;
	to->run_ns = from.run_ns;
	to->compile_ns = from.compile_ns;
	to->fuel = from.fuel;
	to->calls = from.calls;
	to->reruns = from.reruns;
	copy_text(job->text, sizeof(job->text), from.text, from.text_len);
	to->text_len = (uint32_t)strlen(job->text);
	if (job->kind == CTRL_JOB_CHECK) {
		copy_text(job->name, sizeof(job->name), from.name,
			  strnlen(from.name, sizeof(from.name)));
		job->helpers = from.helpers;
	}
	return 0;
}

void worker_failed(struct ctrl_job *job, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(job->text, sizeof(job->text), fmt, ap);
	va_end(ap);
	job->result.error = code;
	job->result.error_offset = UINT64_MAX;
	job->result.text_len = (uint32_t)strlen(job->text);
}
