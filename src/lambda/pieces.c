/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pieces.c - handing out the input: spans of whole records, one after the other, numbered.
 *
 * A span starts where the one before it ended, so cuts do not depend on the number of threads, each
 * record is looked for once, and one that is longer than many pieces costs no more than its length.
 * Of a random-access source only the bytes around cuts are read here; a sequential one is read here
 * altogether, into the claiming worker's stage, which also serves reruns.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/job.h"

/* How far beyond a piece a sequential source is read at first, to find the next record's start. */
#define SLACK 4096u

static int too_long(struct worker *w, uint64_t off)
{
	return lambda_fail_at(&w->err, -EMSGSIZE, off,
			      "the record at offset %llu is longer than the %llu bytes that the "
			      "memory budget leaves for it; allow more memory",
			      (unsigned long long)off, (unsigned long long)w->job->record_max);
}

int pieces_cut_error(struct worker *w, int rc, uint64_t a, uint64_t target)
{
	if (rc == -EMSGSIZE)
		return too_long(w, a);
	if (rc == -ENODATA)
		return lambda_fail_at(
			&w->err, -EIO, target,
			"the input was truncated before offset %llu while it was read",
			(unsigned long long)target);
	return rc ? lambda_fail_at(&w->err, rc, target, "reading the input near offset %llu: %s",
				   (unsigned long long)target, strerrordesc_np(-rc))
		  : 0;
}

/* Where the next span should end: at the next given cut, or after job->span bytes. */
static uint64_t span_target(struct job *job)
{
	const struct lambda_request *req = job->req;
	uint64_t target = add_sat(job->next, job->span);

	if (req->cuts) {
		while (job->next_cut < req->n_cuts && req->cuts[job->next_cut] <= job->next)
			job->next_cut++;
		target = job->next_cut < req->n_cuts ? req->cuts[job->next_cut] : UINT64_MAX;
		target = min_u64(target, add_sat(job->next, job->chunk));
	}
	return min_u64(target, job->range_end);
}

/* ---- the worker's stage: a sequential source's bytes in memory ---- */

static int64_t stage_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct worker *w = (struct worker *)((char *)src - offsetof(struct worker, stage_src));
	uint64_t at = off - w->stage_off;

	if (at >= w->stage_len)
		return 0;
	len = min_u64(len, w->stage_len - at);
	memcpy(buf, w->stage + at, len);
	return (int64_t)len;
}

static const struct lambda_source_ops stage_ops = {.name = "stage", .read = stage_read};

static int stage_room(struct worker *w, uint64_t bytes)
{
	uint8_t *grown;

	w->stage_src.ops = &stage_ops;
	if (bytes <= w->stage_cap)
		return 0;
	grown = realloc(w->stage, bytes);
	if (!grown)
		return lambda_fail(&w->err, -ENOMEM, "no memory for a piece of %llu bytes",
				   (unsigned long long)bytes);
	w->stage = grown;
	w->stage_cap = bytes;
	return 0;
}

/* Read on until the stage holds @bytes or the source ends. */
static int stage_fill(struct worker *w, uint64_t bytes)
{
	struct job *job = w->job;
	uint64_t start;
	int rc = stage_room(w, bytes);

	if (rc)
		return rc;
	start = now_ns();
	while (!job->eof && w->stage_len < bytes) {
		int64_t n;

		rc = job_check(w, job->read_to);
		if (rc)
			return rc;
		n = job->src->ops->read(job->src, w->stage + w->stage_len, bytes - w->stage_len,
					job->read_to);
		if (n < 0)
			return lambda_fail_at(&w->err, (int)n, job->read_to,
					      "reading the input at offset %llu: %s",
					      (unsigned long long)job->read_to,
					      strerrordesc_np((int)-n));
		job->eof = !n;
		job->read_to += (uint64_t)n;
		w->stage_len += (uint64_t)n;
	}
	w->io_ns += now_ns() - start;
	return 0;
}

static void stage_cutter(struct worker *w, struct lambda_cutter *out)
{
	*out = w->job->cutter;
	out->src = &w->stage_src;
	out->size = w->job->eof ? w->stage_off + w->stage_len : UINT64_MAX;
}

void pieces_cutter(struct worker *w, const struct span *span, struct lambda_cutter *out)
{
	*out = w->job->cutter;
	out->size = span->end;
	if (out->src->ops->sequential)
		out->src = &w->stage_src;
}

/* ---- sequential sources ---- */

/* Drop the bytes before @to, as far as the source goes. */
static int stage_discard(struct worker *w, uint64_t to)
{
	uint64_t drop;
	int rc;

	while (!w->job->eof && w->stage_off + w->stage_len < to) {
		w->stage_off += w->stage_len;
		w->stage_len = 0;
		rc = stage_fill(w, min_u64(w->job->chunk, to - w->stage_off));
		if (rc)
			return rc;
	}
	drop = min_u64(to - w->stage_off, w->stage_len);
	w->stage_off += drop;
	w->stage_len -= drop;
	memmove(w->stage, w->stage + drop, w->stage_len);
	return 0;
}

/* The first record start at or after the range's start, or where looking for one ended in vain. */
static int stage_find_start(struct worker *w, uint64_t *start)
{
	struct job *job = w->job;
	int rc = stage_discard(w, job->offset - 1); /* a delimiter there makes offset a start */

	while (!rc) {
		const uint8_t *hit;

		rc = stage_fill(w, SLACK);
		if (rc)
			break;
		hit = memchr(w->stage, (int)job->cutter.value, w->stage_len);
		*start = w->stage_off + (hit ? (uint64_t)(hit - w->stage) + 1 : w->stage_len);
		if (hit || job->eof || *start >= job->range_end)
			break;
		rc = stage_discard(w, *start);
	}
	return rc;
}

static int skip_to_range(struct worker *w)
{
	struct job *job = w->job;
	uint64_t start = job->offset;
	int rc = stage_room(w, job->chunk + SLACK);

	if (!rc && start && job->cutter.kind == LAMBDA_RECORDS_DELIM)
		rc = stage_find_start(w, &start);
	else if (!rc)
		rc = lambda_record_next(&job->cutter, start, UINT64_MAX, &start);
	if (!rc)
		rc = stage_discard(w, start);
	job->begin = job->next = min_u64(start, w->stage_off + w->stage_len);
	return rc;
}

static int take_carry(struct worker *w)
{
	struct job *job = w->job;
	int rc = stage_room(w, job->carry_len + job->chunk + SLACK);

	if (rc)
		return rc;
	memcpy(w->stage, job->carry, job->carry_len);
	w->stage_off = job->next;
	w->stage_len = job->carry_len;
	return 0;
}

/* What was read beyond the span is the next one's. */
static int leave_carry(struct worker *w, uint64_t end)
{
	struct job *job = w->job;
	uint64_t used = end - w->stage_off, len = w->stage_len - used;

	if (len > job->carry_cap) {
		uint8_t *grown = realloc(job->carry, len);

		if (!grown)
			return lambda_fail(&w->err, -ENOMEM, "no memory to carry %llu bytes over",
					   (unsigned long long)len);
		job->carry = grown;
		job->carry_cap = len;
	}
	if (len)
		memcpy(job->carry, w->stage + used, len);
	job->carry_len = len;
	w->stage_len = used;
	return 0;
}

/* The end of the input is known: no record starts at or after the result. */
static uint64_t stream_end(struct worker *w)
{
	struct job *job = w->job;
	uint64_t size = w->stage_off + w->stage_len, end = min_u64(job->range_end, size);
	uint64_t whole = size;

	if (job->cutter.kind == LAMBDA_RECORDS_FIXED)
		whole -= size % job->cutter.value;
	if (whole < end && whole >= job->offset)
		job->trailing = size - whole;
	return min_u64(end, whole);
}

/* 1: the span's end is found, all of it is staged, and whether it is the last is known. */
static int stream_cut(struct worker *w, struct span *out)
{
	struct job *job = w->job;
	uint64_t ahead = job->cutter.kind == LAMBDA_RECORDS_FIXED ? job->cutter.value : 1;
	uint64_t target = span_target(job), want = target - job->next + SLACK;

	for (;;) {
		struct lambda_cutter c;
		uint64_t end = job->range_end;
		int rc = stage_fill(w, want);

		if (rc)
			return rc;
		stage_cutter(w, &c);
		if (job->eof)
			end = stream_end(w);
		if (job->next >= end)
			return 0;
		rc = lambda_record_cut(&c, job->next, min_u64(target, end),
				       add_sat(job->next, job->record_max), &out->end);
		if (rc && rc != -ENODATA)
			return pieces_cut_error(w, rc, job->next, target);
		out->last = !rc && out->end >= end;
		if (rc) /* with this much there is a cut, or a record that is too long */
			want = min_u64(2 * want, job->record_max + SLACK);
		else
			want = out->end - job->next + (out->last ? 0 : ahead);
		if (job->eof || (!rc && w->stage_len >= want))
			return 1;
	}
}

static int claim_stream(struct worker *w, struct span *out)
{
	struct job *job = w->job;
	int rc = job->next_seq ? take_carry(w) : skip_to_range(w);

	if (rc)
		return rc;
	out->begin = job->next;
	rc = stream_cut(w, out);
	if (rc == 1 && leave_carry(w, out->end))
		rc = -ENOMEM;
	return rc;
}

/* ---- random access ---- */

int pieces_plan(struct worker *w)
{
	struct job *job = w->job;
	const struct lambda_request *req = job->req;
	struct lambda_range range;
	int rc;

	job->cutter = (struct lambda_cutter){
		.kind = job->fn->record,
		.value = job->fn->record_value,
		.src = job->src,
		.size = job->src->ops->sequential ? UINT64_MAX : job->src->size,
	};
	job->offset = req->offset;
	job->range_end = add_sat(req->offset, req->length);
	if (job->src->ops->sequential)
		return 0;
	rc = lambda_record_range(&job->cutter, req->offset, req->length, &range);
	if (rc)
		return pieces_cut_error(w, rc, req->offset, req->offset);
	job->begin = job->next = range.begin;
	job->range_end = range.end;
	job->trailing = range.trailing;
	return 0;
}

static int claim_random(struct worker *w, struct span *out)
{
	struct job *job = w->job;
	uint64_t target, limit;
	int rc;

	if (job->next >= job->range_end)
		return 0;
	target = span_target(job);
	limit = add_sat(job->merging ? target : job->next, job->record_max);
	out->begin = job->next;
	rc = lambda_record_cut(&job->cutter, job->next, target, limit, &out->end);
	out->last = !rc && out->end >= job->range_end;
	return rc ? pieces_cut_error(w, rc, job->next, target) : 1;
}

int pieces_claim(struct worker *w, struct span *out)
{
	struct job *job = w->job;
	int rc = 0;

	job_lock(job, &job->claim_lock);
	if (!job->claimed_all && !order_moot(job, UINT64_MAX - 1)) {
		*out = (struct span){.seq = job->next_seq, .begin = job->next, .end = job->next};
		rc = job_check(w, job->next);
		if (!rc)
			rc = job->src->ops->sequential ? claim_stream(w, out)
						       : claim_random(w, out);
		job->claimed_all = rc <= 0 || out->last;
		job->next_seq += rc != 0;
		if (rc == 1)
			job->next = out->end;
	}
	job_unlock(job, &job->claim_lock);
	return rc;
}

void pieces_free(struct job *job)
{
	free(job->carry);
}
