/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - liod-worker's life: map what is shared, give up everything else, take jobs until the controller goes.
 *
 * It is started by liod alone, with three descriptors (shared.h) and an empty environment.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/worker.h"

static int setup_fail(const char *what, int error)
{
	dprintf(STDERR_FILENO, "liod-worker: %s: %s\n", what, strerror(error));
	return WORKER_EXIT_SETUP;
}

static bool areas_fit(const struct worker_command *command, uint64_t size)
{
	const uint64_t most = 1ull << 40;

	return command->abi == WORKER_ABI && command->out_bytes && command->in_bytes &&
	       command->out_bytes < most && command->in_bytes < most &&
	       command->payload_bytes < most &&
	       WORKER_OUT_AT + command->out_bytes + command->in_bytes + command->payload_bytes ==
		       size;
}

static int map_areas(struct worker_areas *areas)
{
	struct stat st;
	uint8_t *p;

	if (fstat(WORKER_FD_SHARED, &st) || st.st_size < (off_t)WORKER_OUT_AT)
		return setup_fail("this program is started by liod alone", EINVAL);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_SHARED, 0);
	if (p == MAP_FAILED)
		return setup_fail("mapping the shared memory", errno);
	areas->command = (struct worker_command *)(p + WORKER_COMMAND_AT);
	areas->report = (struct worker_report *)(p + WORKER_REPORT_AT);
	areas->out_bytes = areas->command->out_bytes;
	areas->in_bytes = areas->command->in_bytes;
	areas->payload_bytes = areas->command->payload_bytes;
	areas->out = p + WORKER_OUT_AT;
	areas->in = areas->out + areas->out_bytes;
	areas->payload = areas->in + areas->in_bytes;
	if (!areas_fit(areas->command, (uint64_t)st.st_size))
		return setup_fail("liod is of another version; install both anew", EPROTO);
	return 0;
}

/* The next job's number and descriptors; false: the controller is gone. */
static bool next_job(uint32_t *number, int fds[2], uint32_t *n)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {number, sizeof(*number)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	const struct cmsghdr *c;
	ssize_t got;

	do {
		got = recvmsg(WORKER_FD_CONTROL, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got != sizeof(*number))
		return false;
	*n = 0;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		*n = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *n * sizeof(int));
	}
	return true;
}

static void work(const struct worker_areas *areas)
{
	uint32_t number, n;
	int fds[2];

	while (next_job(&number, fds, &n)) {
		uint32_t flags = areas->command->flags, at = 0;
		int program = flags & WORKER_LOAD && at < n ? fds[at++] : -1;
		int source = flags & WORKER_SOURCE && at < n ? fds[at++] : -1;

		worker_do(areas, number, program, source);
	}
}

int main(int argc, char **argv)
{
	struct worker_areas areas;
	int rc;

	rc = map_areas(&areas);
	if (!rc)
		rc = worker_confine(areas.command);
	if (rc)
		return rc;
	if (argc == 3 && !strcmp(argv[1], "--try"))
		_exit(worker_try(argv[2]));
	atomic_store(&areas.report->ready, 1);
	worker_notify(&areas);
	work(&areas);
	/* No destructors: they are nobody's business here, and some make calls that are not allowed. */
	_exit(0);
}
