/* SPDX-License-Identifier: Apache-2.0 */
/*
 * order.c - results leave in file order, whatever order they were made in.
 *
 * Spans have turns.  The worker whose turn it is delivers straight from its sandbox; one that is
 * ahead leaves a copy in a bounded ring and goes on, or waits where the ring is full.  Whoever
 * completes a span also delivers the finished ones that follow it.  Quota and fuel are counted
 * here, in file order, so that they strike at the same place for any number of threads.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/job.h"

/* How long a waiting worker may overlook a cancellation or a deadline. */
#define WAIT_NS 5000000

static struct slot *slot_of(struct job *job, uint64_t seq)
{
	return &job->slots[seq % job->ring];
}

bool order_moot(const struct job *job, uint64_t seq)
{
	return seq > atomic_load_explicit(&job->failed_seq, memory_order_relaxed);
}

static void wait_changed(struct job *job)
{
	struct timespec until;
	uint64_t at;

	if (!job->req->cancel && !job->req->deadline_ns) {
		pthread_cond_wait(&job->changed, &job->lock);
		return;
	}
	at = now_ns() + WAIT_NS;
	until.tv_sec = (time_t)(at / 1000000000);
	until.tv_nsec = (long)(at % 1000000000);
	pthread_cond_clockwait(&job->changed, &job->lock, CLOCK_MONOTONIC, &until);
}

/* Under the lock: until at most @ahead spans are before @span. */
static int wait_turn(struct worker *w, const struct span *span, uint64_t ahead)
{
	struct job *job = w->job;
	int rc;

	while (span->seq - job->turn > ahead) {
		if (order_moot(job, span->seq))
			return lambda_fail(&w->err, -ECANCELED, "an earlier piece failed");
		rc = job_check(w, span->begin);
		if (rc)
			return rc;
		wait_changed(job);
	}
	return 0;
}

int order_wait(struct worker *w, const struct span *span)
{
	struct job *job = w->job;
	int rc;

	job_lock(job, &job->lock);
	rc = wait_turn(w, span, 0);
	job_unlock(job, &job->lock);
	return rc;
}

/* ---- delivering: only by the worker that has the turn ---- */

int order_write(struct worker *w, uint64_t offset, const uint8_t *p, size_t len)
{
	struct job *job = w->job;
	uint64_t quota = job->req->max_output ? job->req->max_output : LAMBDA_OUTPUT_DEFAULT;
	int rc;

	if (len > quota - job->out_bytes)
		return lambda_fail_at(&w->err, -ENOSPC, offset,
				      "output quota: more than %llu bytes at offset %llu; allow "
				      "more output",
				      (unsigned long long)quota, (unsigned long long)offset);
	job->out_bytes += len;
	rc = job->sink->write(job->sink, p, len);
	return rc ? lambda_fail_at(&w->err, rc, offset, "the output cannot be written: %s",
				   strerrordesc_np(-rc))
		  : 0;
}

static int deliver(struct worker *w, const struct span *span, const uint8_t *p, size_t len)
{
	return w->job->merging ? state_merge(w, span, p) : order_write(w, span->begin, p, len);
}

static int out_of_fuel(struct worker *w, uint64_t offset)
{
	return lambda_fail_at(&w->err, -ETIME, offset,
			      "fuel: the request's %llu instructions are spent at offset %llu; "
			      "allow more fuel",
			      (unsigned long long)w->job->req->fuel, (unsigned long long)offset);
}

static int count_fuel(struct worker *w, uint64_t offset, uint64_t fuel)
{
	struct job *job = w->job;
	uint64_t total = add_sat(job->fuel_done, fuel);

	atomic_store_explicit(&job->fuel_done, total, memory_order_relaxed);
	return job->req->fuel && total > job->req->fuel ? out_of_fuel(w, offset) : 0;
}

int order_count_fuel(struct worker *w, uint64_t offset)
{
	uint64_t fuel = w->span_fuel;

	w->fuel += fuel;
	w->span_fuel = 0;
	return count_fuel(w, offset, fuel);
}

static void report_progress(struct job *job, uint64_t bytes)
{
	uint64_t total = job->src->ops->sequential ? 0 : job->range_end - job->begin;

	job->progress += bytes;
	if (job->req->progress)
		job->req->progress(job->req->hook_arg,
				   min_u64(job->progress, total ? total : UINT64_MAX), total);
}

/* ---- errors ---- */

/* Under the lock: remember w->err for @seq unless an earlier span has failed. */
static void record(struct worker *w, uint64_t seq)
{
	struct job *job = w->job;

	if (seq > job->failed_seq)
		return;
	job->failure = w->err;
	atomic_store_explicit(&job->failed_seq, seq, memory_order_relaxed);
}

/* ---- results ---- */

static int keep(struct worker *w, struct slot *s, const uint8_t *p, size_t len)
{
	if (s->cap - s->len < len) {
		size_t cap = s->len + len;
		uint8_t *grown = realloc(s->buf, cap);

		if (!grown)
			return lambda_fail(&w->err, -ENOMEM,
					   "no memory to keep %zu bytes of output", cap);
		s->buf = grown;
		s->cap = cap;
	}
	memcpy(s->buf + s->len, p, len);
	s->len += len;
	return 0;
}

/* What was kept of the span whose turn it is. */
static int deliver_kept(struct worker *w, const struct span *span, struct slot *s)
{
	int rc = s->len ? deliver(w, span, s->buf, s->len) : 0;

	free(s->buf);
	if (s->len) {
		job_lock(w->job, &w->job->lock);
		w->job->buffered -= s->len;
		job_unlock(w->job, &w->job->lock);
	}
	s->buf = NULL;
	s->len = s->cap = 0;
	return rc;
}

int order_emit(struct worker *w, const struct span *span, const uint8_t *p, size_t len)
{
	struct job *job = w->job;
	struct slot *s;
	bool ahead;
	int rc = 0;

	if (!len)
		return 0;
	job_lock(job, &job->lock);
	ahead = span->seq != job->turn && span->seq - job->turn < job->ring &&
		job->buffered + len <= RING_BYTES;
	if (ahead)
		job->buffered += len;
	else
		rc = wait_turn(w, span, 0);
	job_unlock(job, &job->lock);
	if (rc)
		return rc;
	s = slot_of(job, span->seq);
	if (ahead)
		return keep(w, s, p, len);
	rc = deliver_kept(w, span, s);
	return rc ? rc : deliver(w, span, p, len);
}

/*
 * Under the lock: the span whose turn it is is complete: deliver it and those complete behind it.
 * Nobody else is here, for the turn only moves on at the end of each round.
 */
static void drain(struct worker *w)
{
	struct job *job = w->job;

	while (!job->ended && slot_of(job, job->turn)->done) {
		struct slot *s = slot_of(job, job->turn);
		struct span span = {.seq = job->turn, .begin = s->begin};
		uint64_t own_fuel = w->span_fuel;
		int rc;

		job_unlock(job, &job->lock);
		w->span_fuel = 0;
		rc = deliver_kept(w, &span, s);
		if (rc && w->out_of_fuel)
			out_of_fuel(w, span.begin);
		if (!rc)
			rc = count_fuel(w, span.begin, add_sat(s->fuel, w->span_fuel));
		w->fuel += w->span_fuel;
		w->span_fuel = own_fuel;
		if (!rc && !s->failed)
			report_progress(job, s->bytes);
		job_lock(job, &job->lock);
		if (rc)
			record(w, span.seq);
		job->ended = rc || s->failed;
		*s = (struct slot){0};
		job->turn += !job->ended;
	}
}

void order_done(struct worker *w, const struct span *span, int rc)
{
	struct job *job = w->job;
	struct slot *s;

	job_lock(job, &job->lock);
	if (rc && w->out_of_fuel) /* the same words wherever in the span it struck */
		out_of_fuel(w, span->begin);
	if (rc)
		record(w, span->seq);
	w->out_of_fuel = false;
	if (wait_turn(w, span, job->ring - 1)) {
		record(w, span->seq);
	} else {
		s = slot_of(job, span->seq);
		s->begin = span->begin;
		s->bytes = span->end - span->begin;
		s->fuel = w->span_fuel;
		s->done = true;
		s->failed = rc != 0;
		if (span->seq == job->turn)
			drain(w);
	}
	if (job->threaded)
		pthread_cond_broadcast(&job->changed);
	job_unlock(job, &job->lock);
	w->fuel += w->span_fuel;
}

void order_free(struct job *job)
{
	for (unsigned i = 0; i < job->ring; i++)
		free(job->slots[i].buf);
	if (job->slots != &job->slot)
		free(job->slots);
}
