/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call.c - one call of a function: its windows, its context, its budget, what came of it.
 *
 * Every window shows exactly what contract 1 promises and nothing else: input with zero edges,
 * zeroed output and heap, state with a zero tail.  A call without input (merge, finish) sees one
 * zero page there; fold and merge see one zero page of output and an out_cap of 0.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lambda/job.h"
#include "lambdaio/function.h"

/*
 * From this size on input is mapped where the source can and one worker does it all.  Below, a copy
 * costs less than the system calls and page faults; and several workers hinder each other in one
 * address space (docs/io.md has the measurements).
 */
#define MAP_MIN (512u << 10)
/* What an arena's output window has at first: clearing it for each call costs as much as a small function. */
#define OUT_FIRST (64u << 10)
/* Heaps up to this are cleared in place rather than dropped and faulted in again. */
#define HEAP_CLEAR (256u << 10)

int job_check(struct worker *w, uint64_t offset)
{
	const struct lambda_request *req = w->job->req;

	if (req->cancel && __atomic_load_n(req->cancel, __ATOMIC_RELAXED))
		return lambda_fail_at(&w->err, -ECANCELED, offset, "cancelled at offset %llu",
				      (unsigned long long)offset);
	if (req->deadline_ns && now_ns() >= req->deadline_ns)
		return lambda_fail_at(&w->err, -ETIME, offset,
				      "the time limit passed at offset %llu; allow more time",
				      (unsigned long long)offset);
	return 0;
}

/* ---- windows ---- */

static int no_window(struct worker *w, int rc, const char *what, uint64_t bytes)
{
	return lambda_fail(&w->err, rc, "no memory for %s of %llu bytes: %s", what,
			   (unsigned long long)bytes, strerrordesc_np(-rc));
}

static void zero_tail(struct worker *w, enum sbpf_window win, uint64_t used)
{
	memset((uint8_t *)sbpf_sandbox_ptr(w->sb, win) + used, 0, page_up(used) - used);
}

static int no_sandbox(struct worker *w, int rc)
{
	if (rc != -ENOMEM)
		return lambda_fail(&w->err, rc,
				   "the kernel gives no sandbox: %s; use engine user, or see \"lio "
				   "features\"",
				   strerrordesc_np(-rc));
	return lambda_fail(&w->err, rc,
			   "no memory for a sandbox: %s; each reserves 6 GiB of addresses: "
			   "raise \"ulimit -v\", or free some memory",
			   strerrordesc_np(-rc));
}

int worker_open(struct worker *w)
{
	const struct lambda_request *req = w->job->req;
	const struct lambda_function *fn = w->job->fn;
	int rc;

	rc = sbpf_sandbox_get_for(fn->prog, w->tier, &w->sb);
	if (rc)
		return no_sandbox(w, rc);
	rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_CTX, sizeof(struct lambda_ctx));
	if (!rc)
		rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_OTHER, 0);
	if (rc)
		return no_window(w, rc, "a context", sizeof(struct lambda_ctx));
	rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_ARG, req->arg_len);
	if (rc)
		return no_window(w, rc, "arguments", req->arg_len);
	rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_STATE, fn->state_size);
	if (rc)
		return no_window(w, rc, "a state", fn->state_size);
	rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_HEAP, fn->heap_size);
	if (rc)
		return no_window(w, rc, "a heap", fn->heap_size);
	if (req->arg_len) {
		memcpy(sbpf_sandbox_ptr(w->sb, SBPF_WIN_ARG), req->arg, req->arg_len);
		zero_tail(w, SBPF_WIN_ARG, req->arg_len);
	}
	return 0;
}

void worker_close(struct worker *w)
{
	sbpf_sandbox_put(w->sb);
	w->sb = NULL;
}

int worker_restart(struct worker *w)
{
	if (w->short_of_out) {
		w->short_of_out = false;
		w->reruns++;
		return 0;
	}
	worker_close(w);
	w->tier = sbpf_tier_missing(SBPF_TIER_TEMPLATE) ? SBPF_TIER_INTERP : SBPF_TIER_TEMPLATE;
	w->restarts++;
	w->out_dirty = 0;
	return worker_open(w);
}

/* ---- input ---- */

static int read_error(struct worker *w, int rc, uint64_t off)
{
	return lambda_fail_at(&w->err, rc, off, "reading the input at offset %llu: %s",
			      (unsigned long long)off, strerrordesc_np(-rc));
}

static int truncated(struct worker *w, uint64_t off)
{
	return lambda_fail_at(&w->err, -EIO, off,
			      "the input ends at offset %llu, before the size it had when it was "
			      "opened; it was truncated meanwhile",
			      (unsigned long long)off);
}

static int read_input(struct worker *w, uint8_t *p, uint64_t off, uint64_t len)
{
	struct lambda_source *src = w->job->src->ops->sequential ? &w->stage_src : w->job->src;
	uint64_t have = 0;

	while (have < len) {
		int64_t n = src->ops->read(src, p + have, len - have, off + have);

		if (n < 0)
			return read_error(w, (int)n, off + have);
		if (!n)
			return truncated(w, off + have);
		have += (uint64_t)n;
	}
	return 0;
}

struct edges {
	uint8_t *window;
	uint64_t begin, end; /* of the input in it */
};

static int clear_edges(void *arg)
{
	const struct edges *e = arg;

	memset(e->window, 0, e->begin);
	memset(e->window + e->end, 0, page_up(e->end) - e->end);
	return 0;
}

/* -EOPNOTSUPP: it has to be read. */
static int map_input(struct worker *w, uint64_t off, uint64_t len)
{
	struct lambda_source *src = w->job->src;
	uint64_t skew = off % SBPF_PAGE;
	struct edges e = {.begin = skew, .end = skew + len};
	int rc;

	if (!src->ops->map || len < MAP_MIN || w->tier == SBPF_TIER_KERNEL ||
	    (w->job->threaded && !src->map_forced))
		return -EOPNOTSUPP;
	rc = src->ops->map(src, w->sb, off - skew, skew + len);
	if (rc == -EOPNOTSUPP)
		return rc;
	if (rc)
		return read_error(w, rc, off);
	e.window = sbpf_sandbox_ptr(w->sb, SBPF_WIN_IN);
	w->mapped = true;
	if (skew || e.end % SBPF_PAGE)
		rc = sbpf_sandbox_guard(w->sb, clear_edges, &e);
	return rc ? truncated(w, off) : 0;
}

static int copy_input(struct worker *w, uint64_t off, uint64_t len)
{
	uint64_t skew = off % SBPF_PAGE;
	struct edges e = {.begin = skew, .end = skew + len};
	int rc;

	rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_IN, skew + len);
	if (rc)
		return no_window(w, rc, "input", skew + len);
	e.window = sbpf_sandbox_ptr(w->sb, SBPF_WIN_IN);
	clear_edges(&e);
	return read_input(w, e.window + skew, off, len);
}

int call_load(struct worker *w, uint64_t off, uint64_t len)
{
	uint64_t start = now_ns();
	int rc = map_input(w, off, len);

	if (rc == -EOPNOTSUPP)
		rc = copy_input(w, off, len);
	w->io_ns += now_ns() - start;
	return rc;
}

int call_no_input(struct worker *w)
{
	int rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_IN, SBPF_PAGE);

	if (!rc)
		rc = sbpf_sandbox_zero(w->sb, SBPF_WIN_IN, SBPF_PAGE);
	return rc ? no_window(w, rc, "input", SBPF_PAGE) : 0;
}

/* ---- the call ---- */

static uint64_t out_pages(const struct call *c)
{
	return page_up(c->out_cap ? c->out_cap : 1);
}

/*
 * An arena cannot tell which of its pages a call wrote, so all of the window is cleared for each.  It has less than it
 * should, then, until a call touches what is missing: that one is repeated with all of it.
 */
static uint64_t out_backed(const struct worker *w, const struct call *c)
{
	uint64_t all = out_pages(c);

	return w->tier == SBPF_TIER_KERNEL ? min_u64(all, max_u64(OUT_FIRST, w->out_backed)) : all;
}

static bool is_short_of_out(struct worker *w, const struct call *c, uint64_t address)
{
	uint64_t at = address - sbpf_window_offset(SBPF_WIN_OUT);

	if (w->tier != SBPF_TIER_KERNEL || at < sbpf_sandbox_size(w->sb, SBPF_WIN_OUT) ||
	    at >= out_pages(c))
		return false;
	w->out_backed = out_pages(c);
	w->short_of_out = true;
	return true;
}

static int clean_windows(struct worker *w, const struct call *c)
{
	const struct lambda_function *fn = w->job->fn;
	uint64_t out = out_backed(w, c);
	int rc;

	rc = sbpf_sandbox_resize(w->sb, SBPF_WIN_OUT, out);
	if (!rc)
		rc = sbpf_sandbox_zero(w->sb, SBPF_WIN_OUT, w->out_dirty);
	if (rc)
		return no_window(w, rc, "output", out);
	w->out_dirty = 0;
	if (fn->heap_size) {
		rc = sbpf_sandbox_zero(w->sb, SBPF_WIN_HEAP,
				       fn->heap_size <= HEAP_CLEAR ? fn->heap_size : 0);
		if (rc)
			return no_window(w, rc, "a heap", fn->heap_size);
	}
	if (fn->state_size)
		zero_tail(w, SBPF_WIN_STATE, fn->state_size);
	return 0;
}

static void fill_context(struct worker *w, const struct call *c)
{
	/* struct lambda_ctx as the function sees it: sandbox offsets instead of pointers */
	const struct {
		uint64_t in, in_len, out, out_cap, arg, arg_len, heap, heap_len, offset, flags;
	} ctx = {
		.in = sbpf_window_offset(SBPF_WIN_IN) + (c->len ? c->off % SBPF_PAGE : 0),
		.in_len = c->len,
		.out = sbpf_window_offset(SBPF_WIN_OUT),
		.out_cap = c->out_cap,
		.arg = sbpf_window_offset(SBPF_WIN_ARG),
		.arg_len = w->job->req->arg_len,
		.heap = sbpf_window_offset(SBPF_WIN_HEAP),
		.heap_len = w->job->fn->heap_size,
		.offset = c->off,
		.flags = c->flags,
	};

	_Static_assert(sizeof(ctx) == sizeof(struct lambda_ctx), "the same fields");
	_Static_assert(offsetof(struct lambda_ctx, flags) == 72, "in the same order");
	memcpy(sbpf_sandbox_ptr(w->sb, SBPF_WIN_CTX), &ctx, sizeof(ctx));
}

/* What the call may spend: a share per byte, or what is left of the request's budget. */
static uint64_t fuel_limit(const struct worker *w, const struct call *c)
{
	const struct job *job = w->job;
	uint64_t spent, bytes = c->len ? c->len : job->fn->state_size;

	if (!job->req->fuel)
		return add_sat(LAMBDA_FUEL_CALL, LAMBDA_FUEL_BYTE * bytes);
	spent = atomic_load_explicit(&job->fuel_done, memory_order_relaxed) + w->span_fuel;
	return spent < job->req->fuel ? job->req->fuel - spent : 0;
}

static const char *call_name(const struct worker *w, char *buf, size_t cap, enum lambda_entry entry)
{
	static const char *const suffix[LAMBDA_ENTRIES] = {
		[LAMBDA_E_MERGE] = " (merge)",
		[LAMBDA_E_FINISH] = " (finish)",
	};

	snprintf(buf, cap, "%s%s", w->job->fn->name, suffix[entry] ? suffix[entry] : "");
	return buf;
}

static int call_failed(struct worker *w, const struct call *c, int rc, const char *why)
{
	char name[96];

	return lambda_fail_at(&w->err, rc, c->off, "call of %s at offset %llu: %s",
			      call_name(w, name, sizeof(name), c->entry),
			      (unsigned long long)c->off, why);
}

int call_returned(struct worker *w, const struct call *c, int64_t r0)
{
	const char *name = strerrorname_np((int)-r0);
	char why[160];

	if (name)
		snprintf(why, sizeof(why), "the function returned %s: %s; %s", name,
			 strerrordesc_np((int)-r0),
			 r0 == -EINVAL ? "check its arguments and its input"
				       : "its documentation says when it does");
	else
		snprintf(why, sizeof(why),
			 "the function returned %lld; its documentation says when it does",
			 (long long)r0);
	return call_failed(w, c, (int)r0, why);
}

/* Whatever the kernel's verifier takes for it is no part of the run. */
static int load_entry(struct worker *w, unsigned int entry)
{
	uint64_t start = now_ns();
	struct sbpf_error why;
	int rc = sbpf_sandbox_prepare(w->sb, entry, &why);

	w->load_ns += now_ns() - start;
	return rc ? lambda_fail(&w->err, rc, "%s: %s", w->job->fn->name, why.text) : 0;
}

int call_run(struct worker *w, const struct call *c, int64_t *r0)
{
	const struct lambda_request *req = w->job->req;
	bool merge = c->entry == LAMBDA_E_MERGE;
	struct sbpf_call call = {
		.size = sizeof(call),
		.tier = w->tier,
		.entry = (unsigned int)w->job->fn->entry[c->entry],
		.r1 = sbpf_window_offset(merge ? SBPF_WIN_STATE : SBPF_WIN_CTX),
		.r2 = sbpf_window_offset(merge ? SBPF_WIN_OTHER : SBPF_WIN_STATE),
		.fuel = fuel_limit(w, c),
		.deadline_ns = req->deadline_ns,
		.cancel = req->cancel,
		.trace = req->trace,
		.trace_arg = req->hook_arg,
	};
	struct sbpf_error why;
	uint64_t start;
	char text[128];
	int rc;

	rc = clean_windows(w, c);
	if (!rc && w->tier == SBPF_TIER_KERNEL)
		rc = load_entry(w, call.entry);
	if (rc)
		return rc;
	fill_context(w, c);
	start = now_ns();
	rc = sbpf_run(w->sb, &call, &why);
	start = now_ns() - start;
	w->run_ns += start;
	w->calls++;
	if (rc == -EFAULT && is_short_of_out(w, c, why.address))
		rc = -ERESTART;
	w->ran = call.ran;
	if (call.tier == SBPF_TIER_AUTO) {
		sbpf_program_spent(w->job->fn->prog, start);
		w->switched |= call.ran != w->job->tier_first;
	}
	w->out_of_fuel =
		rc == -ETIME && req->fuel && !(req->deadline_ns && now_ns() >= req->deadline_ns);
	*r0 = (int64_t)call.r0;
	/* A run that is to be repeated is not counted: that depends on the room, or on the kernel. */
	if (rc ? rc != -ERESTART : *r0 != -ENOSPC || !c->out_cap)
		w->span_fuel += call.fuel_used;
	if (rc)
		return call_failed(w, c, rc, why.text);
	if (*r0 >= -4095 && *r0 <= (int64_t)c->out_cap) {
		w->out_dirty = *r0 > 0 ? (uint64_t)*r0 : 0;
		return 0;
	}
	snprintf(text, sizeof(text),
		 c->out_cap ? "the function returned %lld; it must return the bytes it wrote, at "
			      "most %llu here, or -errno"
			    : "the function returned %lld; a fold and a merge return 0 or -errno",
		 (long long)*r0, (unsigned long long)c->out_cap);
	return call_failed(w, c, -ERANGE, text);
}
