/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_worker.c - a worker that somebody has taken over: it does what the first word of its program says.
 *
 * It confines nothing and believes nothing; the controller must come to no harm by it.
 */
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/shared.h"

static struct worker_command *command;
static struct worker_report *report;
static uint64_t state = 1;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void notify(void)
{
	const uint64_t one = 1;

	(void)!write(WORKER_FD_EVENT, &one, sizeof(one));
}

static void end(uint32_t number)
{
	atomic_store(&report->ended, number);
	notify();
}

/* A value that is now and then plausible. */
static uint64_t some_value(void)
{
	switch (next_random() % 5) {
	case 0:
		return next_random();
	case 1:
		return UINT64_MAX - next_random() % 3;
	case 2:
		return command->out_tail + next_random() % (2 * command->out_bytes);
	case 3:
		return command->in_head - next_random() % 10;
	default:
		return next_random() % 4096;
	}
}

static void scribble(uint32_t number)
{
	for (int i = 0; i < 200; i++) {
		size_t at = next_random() % (sizeof(*report) / 8) * 8;
		uint64_t value = some_value();

		if (next_random() % 2)
			at = offsetof(struct worker_report, out_head) + next_random() % 5 * 8;
		memcpy((uint8_t *)report + at, &value, sizeof(value));
		if (!(next_random() % 8))
			notify();
		if (!(next_random() % 300)) {
			memset(&report->error, 0,
			       sizeof(*report) - offsetof(struct worker_report, error));
			end(number);
		}
	}
	pause();
}

/* Takes the server's wish to be told of output, and tells it of none; then waits for the wish to come back. */
static void tease(void)
{
	for (int i = 0; i < 3; i++) {
		while (!atomic_exchange(&report->armed, 0))
			usleep(1000);
		usleep(20000);
		atomic_store(&report->armed, 0);
		notify();
	}
	while (!atomic_load(&report->armed))
		usleep(1000);
	atomic_store(&report->out_head, command->out_at + 4);
}

static void misbehave(const char *how, uint32_t number)
{
	if (!strcmp(how, "head-far"))
		atomic_store(&report->out_head, command->out_tail + command->out_bytes + 1);
	else if (!strcmp(how, "head-back"))
		atomic_store(&report->out_head, UINT64_MAX);
	else if (!strcmp(how, "tail-ahead"))
		atomic_store(&report->in_tail, command->in_head + 1);
	else if (!strcmp(how, "good-error"))
		report->error = 5;
	else if (!strcmp(how, "far-error"))
		report->error = -5000;
	else if (!strcmp(how, "long-text"))
		report->text_len = 5000;
	else if (!strcmp(how, "bad-io"))
		report->io = 77;
	else if (!strcmp(how, "bad-tier"))
		report->tier = 200;
	else if (!strcmp(how, "tease"))
		tease();
	else if (!strcmp(how, "exit"))
		_exit(3);
	else if (!strcmp(how, "crash"))
		abort();
	else if (!strcmp(how, "silent"))
		pause();
	else if (!strcmp(how, "spam"))
		for (;;)
			notify();
	else if (!strncmp(how, "random", 6)) {
		state = strtoull(how + 6, NULL, 10) * 2654435761u + 1;
		scribble(number);
	} else if (!strcmp(how, "rude")) {
		memcpy(report->text, "two\nlines \033[2J", 15);
		report->text_len = 15;
		report->error = -7;
	}
	end(number);
}

int main(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	uint32_t number;
	struct iovec iov = {&number, sizeof(number)};
	struct stat st;
	uint8_t *p;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* also while it waits for what never comes */
	if (fstat(WORKER_FD_SHARED, &st))
		return 1;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_SHARED, 0);
	if (p == MAP_FAILED)
		return 1;
	command = (struct worker_command *)(p + WORKER_COMMAND_AT);
	report = (struct worker_report *)(p + WORKER_REPORT_AT);
	atomic_store(&report->ready, 1);
	notify();
	for (;;) {
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = &control,
				     .msg_controllen = sizeof(control)};
		char how[32] = "";
		int fd;

		if (recvmsg(WORKER_FD_CONTROL, &msg, 0) != sizeof(number))
			return 0;
		memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
		if (pread(fd, how, sizeof(how) - 1, 0) < 0)
			return 1;
		misbehave(how, number);
	}
}
