/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liod_log.c - the log on standard error: lines wait in memory for a thread that writes them.
 *
 * Whoever reads the log may be slow or stop (a full pipe, a terminal that was paused): no event loop may
 * wait for that.  What does not fit any more is counted, and the count is logged once there is room.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "liod.h"

#define WAITING_MAX (1u << 20) /* bytes */
#define LINE_MAX_   1200u
#define GATHER_NS   2000000L /* lines that come close together are written in one go */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more, written;
	char *waiting, *writing; /* WAITING_MAX each, swapped */
	size_t len;
	uint64_t dropped;
	bool busy; /* the thread writes */
	bool started, journal;
} out = {.lock = PTHREAD_MUTEX_INITIALIZER,
	 .more = PTHREAD_COND_INITIALIZER,
	 .written = PTHREAD_COND_INITIALIZER};

static void write_all(const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(STDERR_FILENO, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody reads: nothing to be done */
		p += n;
		len -= (size_t)n;
	}
}

static size_t stamp(char *to, size_t size)
{
	struct timespec ts;
	struct tm tm;
	size_t n;

	/* The journal has its own time. */
	if (out.journal)
		return 0;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(to, size, "time=%FT%T", &tm);
	return n + (size_t)snprintf(to + n, size - n, ".%03ldZ ", ts.tv_nsec / 1000000);
}

/* With the lock held; false: no room. */
static bool add(const char *line)
{
	char text[LINE_MAX_];
	size_t n = stamp(text, 40);

	n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", line);
	if (n > sizeof(text) - 2)
		n = sizeof(text) - 2;
	text[n++] = '\n';
	if (!out.started) {
		write_all(text, n);
		return true;
	}
	if (n > WAITING_MAX - out.len)
		return false;
	memcpy(out.waiting + out.len, text, n);
	if (!out.len)
		pthread_cond_signal(&out.more);
	out.len += n;
	return true;
}

static void add_dropped(void)
{
	char line[64];

	snprintf(line, sizeof(line), "event=log-full lines_lost=%llu",
		 (unsigned long long)out.dropped);
	if (add(line))
		out.dropped = 0;
}

static void *log_main(void *arg)
{
	const struct timespec gather = {.tv_nsec = GATHER_NS};

	pthread_setname_np(pthread_self(), "log");
	pthread_mutex_lock(&out.lock);
	for (;;) {
		char *p = out.waiting;
		size_t len = out.len;

		if (!len) {
			out.busy = false;
			pthread_cond_broadcast(&out.written);
			pthread_cond_wait(&out.more, &out.lock);
			out.busy = true;
			pthread_mutex_unlock(&out.lock);
			nanosleep(&gather, NULL);
			pthread_mutex_lock(&out.lock);
			continue;
		}
		out.waiting = out.writing;
		out.writing = p;
		out.len = 0;
		if (out.dropped)
			add_dropped();
		pthread_mutex_unlock(&out.lock);
		write_all(p, len);
		pthread_mutex_lock(&out.lock);
	}
	return arg;
}

void log_start(void)
{
	pthread_t thread;

	out.journal = getenv("JOURNAL_STREAM");
	out.waiting = malloc(WAITING_MAX);
	out.writing = malloc(WAITING_MAX);
	/* Else each line is written where it is said, as before the start. */
	if (out.waiting && out.writing && !pthread_create(&thread, NULL, log_main, NULL)) {
		pthread_detach(thread);
		out.started = true;
	}
}

void log_line(void *arg, const char *line)
{
	pthread_mutex_lock(&out.lock);
	if (out.dropped || !add(line))
		out.dropped++;
	pthread_mutex_unlock(&out.lock);
}

void log_flush(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2;
	pthread_mutex_lock(&out.lock);
	while (out.started && (out.len || out.busy) &&
	       !pthread_cond_timedwait(&out.written, &out.lock, &until))
		;
	pthread_mutex_unlock(&out.lock);
}
