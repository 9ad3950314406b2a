/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - output to the controller, a stream's input from it, and waiting for either.
 *
 * Each side announces that it waits, looks once more, and only then sleeps; the other changes the ring, then looks
 * whether somebody waits.  Both orders go through a full fence, so that one of the two always sees the
 * other, and nobody is woken who does not sleep.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/worker.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int over(const struct worker_run *run)
{
	if (__atomic_load_n(&run->areas->command->cancel, __ATOMIC_RELAXED))
		return -ECANCELED;
	if (run->job.deadline_ns && now_ns() >= run->job.deadline_ns)
		return -ETIME;
	return 0;
}

/* A shared futex: the one who wakes us is another process. */
int worker_wait(struct worker_run *run, uint32_t seen)
{
	struct worker_command *command = run->areas->command;
	struct timespec until, *limit = NULL;
	int rc = over(run);

	if (rc)
		return rc;
	if (run->job.deadline_ns) {
		until.tv_sec = (time_t)(run->job.deadline_ns / 1000000000u);
		until.tv_nsec = (long)(run->job.deadline_ns % 1000000000u);
		limit = &until;
	}
	syscall(SYS_futex, &command->kick, FUTEX_WAIT_BITSET, seen, limit, NULL,
		FUTEX_BITSET_MATCH_ANY);
	return over(run);
}

static void sleepers_add(struct worker_report *report, int n)
{
	atomic_fetch_add(&report->sleepers, (uint32_t)n);
	atomic_thread_fence(memory_order_seq_cst);
}

/*
 * The controller hears of output when the function asks for its next piece, not at once: of the last output it is
 * then told together with the end.
 */
static void tell_output(struct worker_run *run)
{
	struct worker_report *report = run->areas->report;

	if (!atomic_load_explicit(&run->untold, memory_order_relaxed) ||
	    !atomic_exchange(&run->untold, false))
		return;
	if (atomic_load(&report->armed) && atomic_exchange(&report->armed, 0))
		worker_notify(run->areas);
}

int worker_gate(struct worker_run *run)
{
	struct worker_command *command = run->areas->command;
	int rc = 0;

	tell_output(run);
	if (!atomic_load_explicit(&command->shut, memory_order_relaxed))
		return 0;
	sleepers_add(run->areas->report, 1);
	for (;;) {
		uint32_t seen = atomic_load(&command->kick);

		if (rc || !atomic_load(&command->shut))
			break;
		rc = worker_wait(run, seen);
	}
	sleepers_add(run->areas->report, -1);
	return rc;
}

void worker_notify(const struct worker_areas *areas)
{
	const uint64_t one = 1;

	/* Cannot be full in practice; if it is, the controller has yet to look anyway. */
	if (write(WORKER_FD_EVENT, &one, sizeof(one)) < 0)
		return;
}

/* ---- output ---- */

static uint64_t room_now(const struct worker_run *run)
{
	uint64_t tail = atomic_load_explicit(&run->areas->command->out_tail, memory_order_acquire);
	uint64_t waits = run->out_head - tail, size = run->areas->out_bytes;

	return waits < size ? size - waits : 0;
}

/* Until there is room for all of @len, or for as much as makes waking worth it. */
static int room_wait(struct worker_run *run, size_t len, uint64_t *room)
{
	struct worker_report *report = run->areas->report;
	uint64_t want = run->areas->out_bytes / 2;
	int rc = 0;

	want = len < want ? len : want;
	*room = room_now(run);
	if (*room >= want)
		return 0;
	tell_output(run);
	atomic_store_explicit(&report->out_wanted, want, memory_order_relaxed);
	sleepers_add(report, 1);
	for (;;) {
		uint32_t seen = atomic_load(&run->areas->command->kick);

		*room = room_now(run);
		if (rc || *room >= want)
			break;
		rc = worker_wait(run, seen);
	}
	sleepers_add(report, -1);
	return rc;
}

static void put(struct worker_run *run, const uint8_t *p, size_t len)
{
	const struct worker_areas *a = run->areas;
	struct worker_report *report = a->report;
	uint64_t at = run->out_head % a->out_bytes;
	size_t first = a->out_bytes - at < len ? a->out_bytes - at : len;

	memcpy(a->out + at, p, first);
	memcpy(a->out, p + first, len - first);
	run->out_head += len;
	atomic_store(&report->out_head, run->out_head);
	atomic_store(&run->untold, true);
}

static int sink_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct worker_run *run = ((struct worker_sink *)sink)->run;
	const uint8_t *from = p;

	tell_output(run);
	while (len) {
		uint64_t room;
		int rc = room_wait(run, len, &room);
		size_t n = room < len ? room : len;

		if (rc)
			return rc;
		put(run, from, n);
		from += n;
		len -= n;
	}
	return 0;
}

void worker_sink_init(struct worker_sink *sink, struct worker_run *run)
{
	sink->sink.write = sink_write;
	sink->run = run;
}

/* ---- input ---- */

static void take(struct worker_run *run, void *buf, size_t len)
{
	const struct worker_areas *a = run->areas;
	struct worker_report *report = a->report;
	uint64_t at = run->in_tail % a->in_bytes;
	size_t first = a->in_bytes - at < len ? a->in_bytes - at : len;

	memcpy(buf, a->in + at, first);
	memcpy((uint8_t *)buf + first, a->in, len - first);
	run->in_tail += len;
	atomic_store_explicit(&report->in_tail, run->in_tail, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&report->in_armed, memory_order_relaxed) &&
	    atomic_load_explicit(&a->command->in_head, memory_order_relaxed) - run->in_tail <=
		    a->in_bytes / 2 &&
	    atomic_exchange(&report->in_armed, 0))
		worker_notify(a);
}

int64_t worker_input(struct worker_run *run, void *buf, size_t len)
{
	struct worker_command *command = run->areas->command;
	uint64_t have = 0;
	bool last = false;
	int rc = 0;

	sleepers_add(run->areas->report, 1);
	for (;;) {
		uint32_t seen = atomic_load(&command->kick);

		last = atomic_load(&command->in_last);
		have = atomic_load_explicit(&command->in_head, memory_order_acquire) - run->in_tail;
		if (rc || have || last)
			break;
		rc = worker_wait(run, seen);
	}
	sleepers_add(run->areas->report, -1);
	if (rc)
		return rc;
	if (have > run->areas->in_bytes)
		return -EPROTO;
	if (have > len)
		have = len;
	if (have)
		take(run, buf, have);
	return (int64_t)have;
}
