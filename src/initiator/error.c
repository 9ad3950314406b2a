/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - the calling thread's last failure, and the small things that every file needs.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "initiator/internal.h"

static _Thread_local char last[512];

const char *nvme_host_error(void)
{
	return last;
}

int initiator_fail(int err, const char *fmt, ...)
{
	char text[sizeof(last)]; /* an argument may be the line before this one */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(last, text, sizeof(last));
	return err;
}

int initiator_status(const struct nvme_host *host, const char *what, const struct nvme_req *req)
{
	uint16_t status = nvme_get16(req->cqe.status) >> 1;
	const struct nvme_status_info *info;

	if (!(status & 0x7ff))
		return 0;
	info = nvme_status_find(status, req->sqe.opcode == NVME_FABRICS);
	return initiator_fail(-EREMOTEIO, "%s: %s: %s (status %x/%02xh)", host->address, what,
			      info ? info->text : "it failed with a status unknown here",
			      status >> 8 & 7, status & 0xff);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int ms_until(uint64_t at_ns)
{
	uint64_t now = now_ns(), ms;

	if (at_ns == UINT64_MAX)
		return -1;
	if (at_ns <= now)
		return 0;
	ms = (at_ns - now + MS - 1) / MS;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

void kick(int fd)
{
	eventfd_write(fd, 1);
}

void unkick(int fd)
{
	eventfd_t value;

	eventfd_read(fd, &value);
}
