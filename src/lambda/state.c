/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.c - what survives a call: the state of a scan or fold between calls, and merging.
 *
 * job->state holds it whenever no call is running on it, so that any worker can go on and a scan
 * can be run again from what it started with.  Touched only by the worker whose turn it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/job.h"

int state_init(struct worker *w)
{
	struct job *job = w->job;
	uint64_t size = job->fn->state_size;

	job->state = size <= STATE_SMALL ? job->state_small : calloc(1, size);
	return job->state ? 0
			  : lambda_fail(&w->err, -ENOMEM, "no memory for a state of %llu bytes",
					(unsigned long long)size);
}

void state_free(struct job *job)
{
	if (job->state != job->state_small)
		free(job->state);
}

int state_zero(struct worker *w)
{
	uint64_t size = w->job->fn->state_size;
	int rc = sbpf_sandbox_zero(w->sb, SBPF_WIN_STATE, size);

	return rc ? lambda_fail(&w->err, rc, "no memory for a state of %llu bytes: %s",
				(unsigned long long)size, strerrordesc_np(-rc))
		  : 0;
}

int state_load(struct worker *w)
{
	struct job *job = w->job;
	uint64_t size = job->fn->state_size;

	if (!size)
		return 0;
	if (job->state_set) {
		memcpy(sbpf_sandbox_ptr(w->sb, SBPF_WIN_STATE), job->state, size);
		return 0;
	}
	return state_zero(w);
}

void state_save(struct worker *w)
{
	struct job *job = w->job;

	memcpy(job->state, sbpf_sandbox_ptr(w->sb, SBPF_WIN_STATE), job->fn->state_size);
	job->state_set = true;
}

static int show_other(struct worker *w, const uint8_t *p, uint64_t size)
{
	int rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_OTHER, size);
	uint8_t *other = sbpf_sandbox_ptr(w->sb, SBPF_WIN_OTHER);

	if (rc)
		return lambda_fail(&w->err, rc, "no memory for a state of %llu bytes: %s",
				   (unsigned long long)size, lambda_errname(rc));
	memcpy(other, p, size);
	memset(other + size, 0, page_up(size) - size);
	return 0;
}

/*
 * Merging has a sandbox of its own from the second span on: the result so far stays in its state
 * window, and the sandboxes that fold keep their input's pages.
 */
static int open_merger(struct worker *m)
{
	int rc;

	if (m->sb)
		return 0;
	rc = worker_open(m);
	if (!rc)
		rc = call_no_input(m);
	if (!rc)
		rc = state_load(m);
	return rc;
}

int state_restart(struct worker *m)
{
	int rc = worker_restart(m);

	return rc ? rc : call_no_input(m);
}

/* Merge @p into the merger's window; with what stood there kept, where the kernel may spoil it. */
static int merge_into(struct worker *m, const struct call *c, const uint8_t *p, int64_t *r0)
{
	int rc;

	if (m->tier == SBPF_TIER_KERNEL)
		state_save(m);
	for (;;) {
		rc = show_other(m, p, m->job->fn->state_size);
		if (!rc)
			rc = call_run(m, c, r0);
		if (rc != -ERESTART)
			return rc;
		rc = state_restart(m);
		if (!rc)
			rc = state_load(m);
		if (rc)
			return rc;
	}
}

int state_merge(struct worker *w, const struct span *span, const uint8_t *p)
{
	struct job *job = w->job;
	struct worker *m = job->merger;
	struct call c = {.entry = LAMBDA_E_MERGE, .off = span->begin};
	int64_t r0;
	int rc;

	if (!job->state_set) {
		memcpy(job->state, p, job->fn->state_size);
		job->state_set = true;
		return 0;
	}
	m->span_fuel = w->span_fuel;
	rc = open_merger(m);
	if (!rc)
		rc = merge_into(m, &c, p, &r0);
	if (!rc && r0)
		rc = call_returned(m, &c, r0);
	w->span_fuel = m->span_fuel;
	w->out_of_fuel = m->out_of_fuel;
	if (rc)
		w->err = m->err;
	return rc;
}

int state_merged(struct worker *w, bool finish)
{
	struct worker *m = w->job->merger;
	int rc = 0;

	if (m->sb)
		state_save(m);
	else if (finish)
		rc = open_merger(m);
	if (rc)
		w->err = m->err;
	return rc;
}
