/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - one request from plan to report: workers, the three kinds, reruns, finish.
 *
 *   map      spans anywhere, outputs in file order
 *   fold     with a merge: spans folded anywhere from a zero state, states merged in file order
 *   scan, fold without a merge: calls in file order, one at a time, the state carried along; with a
 *            sequential source a second worker reads ahead meanwhile
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/job.h"
#include "lambdaio/function.h"

/* Spans of some pieces pay for a merge each, as long as there are enough for many threads. */
#define SPANS_ENOUGH 64u
#define SPAN_PIECES  32u

static uint64_t flags_of(const struct job *job, const struct span *span, uint64_t a, uint64_t b)
{
	return (a == job->begin ? LAMBDA_FIRST : 0) |
	       (span->last && b == span->end ? LAMBDA_LAST : 0);
}

static int read_near(struct worker *w, int rc, uint64_t off)
{
	return lambda_fail_at(&w->err, rc, off, "reading the input near offset %llu: %s",
			      (unsigned long long)off, strerrordesc_np(-rc));
}

/* ---- map and scan: calls that have output ---- */

static uint64_t most_cap(const struct job *job, uint64_t len)
{
	return min_u64(job->room - len, sbpf_window_max(SBPF_WIN_OUT)) & ~(uint64_t)(SBPF_PAGE - 1);
}

/* Output seldom exceeds input.  A power of two: the window keeps its size from piece to piece. */
static uint64_t first_cap(const struct job *job, uint64_t len)
{
	uint64_t cap = SBPF_PAGE;

	while (cap < len + SBPF_PAGE)
		cap *= 2;
	return min_u64(cap > job->out_hint ? cap : job->out_hint, most_cap(job, len));
}

/* The call's ENOSPC stands: there is neither more room to give nor less to ask for. */
static int no_room(struct worker *w, const struct call *c)
{
	return lambda_fail_at(
		&w->err, -ENOSPC, c->off,
		"memory: the output for one record at offset %llu, %llu long, does not "
		"fit the %llu bytes left for it; allow more memory",
		(unsigned long long)c->off, (unsigned long long)c->len,
		(unsigned long long)c->out_cap);
}

/* About half of the records of [c->off, *end). */
static int halve(struct worker *w, const struct span *span, const struct call *c, uint64_t *end)
{
	struct lambda_cutter cutter;
	uint64_t target = c->off + (c->len + 1) / 2;
	int rc;

	pieces_cutter(w, span, &cutter);
	rc = lambda_record_cut(&cutter, c->off, target, *end - 1, end);
	if (rc == -EMSGSIZE)
		return no_room(w, c);
	return rc ? read_near(w, rc, target) : 0;
}

static void count_input(struct worker *w, uint64_t bytes)
{
	w->bytes_in += bytes;
	if (w->ran == w->job->tier_first)
		w->bytes_first += bytes;
}

static int attempt(struct worker *w, const struct call *c, int64_t *r0)
{
	int rc;

	do {
		rc = call_load(w, c->off, c->len);
		if (!rc && w->job->in_order)
			rc = state_load(w);
		if (!rc)
			rc = call_run(w, c, r0);
	} while (rc == -ERESTART && !(rc = worker_restart(w)));
	return rc;
}

/*
 * Run [c->off, *end) until it fits: with more room, then with fewer records (*end moves).  Each
 * attempt starts from the input and the state as they were.
 */
static int run_fitting(struct worker *w, const struct span *span, struct call *c, uint64_t *end)
{
	struct job *job = w->job;
	int64_t r0 = -ENOSPC;

	/* A last piece that is shorter has as much room as those before: windows seldom change size. */
	c->out_cap = first_cap(job, span->seq ? max_u64(*end - c->off, job->chunk) : *end - c->off);
	for (;;) {
		uint64_t most = most_cap(job, *end - c->off);
		int rc;

		c->len = *end - c->off;
		c->flags = flags_of(job, span, c->off, *end);
		c->out_cap = min_u64(c->out_cap, most);
		rc = attempt(w, c, &r0);
		if (rc)
			return rc;
		if (r0 != -ENOSPC)
			break;
		w->reruns++;
		if (c->out_cap == most) {
			rc = halve(w, span, c, end);
			if (rc)
				return rc;
		}
		c->out_cap *= 2;
	}
	if (r0 < 0)
		return call_returned(w, c, r0);
	if (job->in_order)
		state_save(w);
	count_input(w, c->len);
	return order_emit(w, span, sbpf_sandbox_ptr(w->sb, SBPF_WIN_OUT), (size_t)r0);
}

static int run_with_output(struct worker *w, const struct span *span)
{
	struct job *job = w->job;
	struct call c = {.entry = job->fn->kind == LAMBDA_KIND_MAP ? LAMBDA_E_MAP : LAMBDA_E_SCAN};
	struct lambda_cutter cutter;
	uint64_t len = span->end - span->begin;
	int rc = 0;

	if (job->in_order)
		rc = order_wait(w, span);
	for (uint64_t a = span->begin, b; a < span->end && !rc; a = b) {
		b = span->end;
		if (b - a > len) { /* what had to be halved is not tried whole again */
			pieces_cutter(w, span, &cutter);
			rc = lambda_record_cut(&cutter, a, a + len, b, &b);
			if (rc)
				return read_near(w, rc, a + len);
		}
		c.off = a;
		rc = run_fitting(w, span, &c, &b);
		len = b - a;
		if (job->in_order)
			job->out_hint = c.out_cap;
		if (!rc && b < span->end)
			rc = job_check(w, b);
	}
	return rc;
}

/* ---- fold ---- */

static int fold_piece(struct worker *w, const struct span *span, uint64_t a, uint64_t b)
{
	struct call c = {.entry = LAMBDA_E_FOLD,
			 .off = a,
			 .len = b - a,
			 .flags = flags_of(w->job, span, a, b)};
	int64_t r0;
	int rc = call_load(w, a, b - a);

	if (!rc)
		rc = call_run(w, &c, &r0);
	if (!rc && r0)
		rc = call_returned(w, &c, r0);
	count_input(w, b - a);
	return rc;
}

static int fold_pieces(struct worker *w, const struct span *span)
{
	struct job *job = w->job;
	struct lambda_cutter cutter;
	int rc = 0;

	pieces_cutter(w, span, &cutter);
	for (uint64_t a = span->begin, b; a < span->end && !rc; a = b) {
		uint64_t target = min_u64(add_sat(a, job->chunk), span->end);

		if (order_moot(job, span->seq))
			return lambda_fail(&w->err, -ECANCELED, "an earlier piece failed");
		rc = lambda_record_cut(&cutter, a, target, add_sat(a, job->record_max), &b);
		if (rc)
			return pieces_cut_error(w, rc, a, target);
		rc = fold_piece(w, span, a, b);
		if (!rc && b < span->end)
			rc = job_check(w, b);
	}
	return rc;
}

/* All of the span from where the state stood before it, once more where the kernel ended a run of it. */
static int fold_span(struct worker *w, const struct span *span, bool load)
{
	const uint64_t bytes_in = w->bytes_in, bytes_first = w->bytes_first;
	int rc;

	for (;;) {
		rc = 0;
		if (w->job->merging)
			rc = state_zero(w);
		else if (load)
			rc = state_load(w);
		if (!rc)
			rc = fold_pieces(w, span);
		if (rc != -ERESTART)
			return rc;
		rc = worker_restart(w);
		if (rc)
			return rc;
		load = true;
		w->bytes_in = bytes_in;
		w->bytes_first = bytes_first;
		w->span_fuel = 0;
	}
}

/* From a zero state, to be merged. */
static int run_mergeable(struct worker *w, const struct span *span)
{
	int rc = fold_span(w, span, false);

	return rc ? rc
		  : order_emit(w, span, sbpf_sandbox_ptr(w->sb, SBPF_WIN_STATE),
			       w->job->fn->state_size);
}

/*
 * On from where the span before left the state: in this worker's window if it is the only one and nothing
 * can ask for it again.
 */
static int run_sequential(struct worker *w, const struct span *span)
{
	struct job *job = w->job;
	bool kept = job->threaded || w->tier == SBPF_TIER_KERNEL;
	int rc = order_wait(w, span);

	if (!rc)
		rc = fold_span(w, span, kept || !span->seq);
	if (!rc && (kept || span->last))
		state_save(w);
	return rc;
}

static int run_span(struct worker *w, const struct span *span)
{
	if (w->job->fn->kind != LAMBDA_KIND_FOLD)
		return run_with_output(w, span);
	return w->job->merging ? run_mergeable(w, span) : run_sequential(w, span);
}

/* ---- workers ---- */

static void work(struct worker *w);

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	/* Without memory for another sandbox the workers there are do it all. */
	if (!worker_open(w))
		work(w);
	worker_close(w);
	return NULL;
}

static unsigned cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static unsigned workers_wanted(const struct job *job)
{
	unsigned n = job->req->threads ? job->req->threads : cores();
	bool sequential = job->src->ops->sequential;
	uint64_t spans = (job->range_end - job->begin) / job->span + 1;

	if (job->in_order && (!sequential || n > 2))
		n = sequential ? 2 : 1;
	if (n > WORKERS_MAX)
		n = WORKERS_MAX;
	return sequential || job->req->cuts || n < spans ? n : (unsigned)spans;
}

/* The others, once it is known that there is more than one span; whatever fails leaves fewer. */
static void start_workers(struct job *job)
{
	unsigned n = workers_wanted(job);
	struct slot *slots;
	sigset_t all, before;

	if (n < 2)
		return;
	slots = calloc(RING, sizeof(*slots));
	job->workers = slots ? calloc(n - 1, sizeof(*job->workers)) : NULL;
	if (!job->workers) {
		free(slots);
		return;
	}
	job->slots = slots;
	job->ring = RING;
	job->threaded = true;
	/* The application's signals are its own threads' business; faults are not blocked. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (; job->n_workers < n - 1; job->n_workers++) {
		struct worker *w = &job->workers[job->n_workers];

		w->job = job;
		w->tier = job->tier;
		if (pthread_create(&w->thread, NULL, worker_main, w))
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void work(struct worker *w)
{
	struct job *job = w->job;
	struct span span;
	int rc;

	while ((rc = pieces_claim(w, &span))) {
		if (!span.seq && rc == 1 && !span.last)
			start_workers(job);
		w->span_fuel = 0;
		if (rc == 1)
			rc = run_span(w, &span);
		order_done(w, &span, rc);
	}
}

static void add_counts(struct worker *sum, const struct worker *w)
{
	sum->calls += w->calls;
	sum->reruns += w->reruns;
	sum->restarts += w->restarts;
	sum->bytes_in += w->bytes_in;
	sum->fuel += w->fuel;
	sum->io_ns += w->io_ns;
	sum->run_ns += w->run_ns;
	sum->load_ns += w->load_ns;
	sum->mapped |= w->mapped;
	sum->switched |= w->switched;
	sum->bytes_first += w->bytes_first;
}

static void join_workers(struct job *job, struct worker *w)
{
	for (unsigned i = 0; i < job->n_workers; i++) {
		pthread_join(job->workers[i].thread, NULL);
		add_counts(w, &job->workers[i]);
		free(job->workers[i].stage);
	}
	free(job->workers);
}

/* ---- finish ---- */

static int no_room_to_finish(struct worker *w, const struct call *c)
{
	return lambda_fail_at(&w->err, -ENOSPC, c->off,
			      "memory: the result does not fit the %llu bytes left for it; allow "
			      "more memory",
			      (unsigned long long)c->out_cap);
}

/* The result of a fold, or what a scan has to add. */
static int run_finish(struct worker *w)
{
	struct job *job = w->job;
	struct worker *m = job->merger;
	struct call c = {.entry = LAMBDA_E_FINISH, .off = job->next, .flags = LAMBDA_LAST};
	uint64_t most = most_cap(job, 0);
	int64_t r0 = -ENOSPC;
	int rc = state_merged(w, true);

	m->span_fuel = 0;
	for (c.out_cap = min_u64(SBPF_PAGE, most); !rc; c.out_cap = min_u64(2 * c.out_cap, most)) {
		do {
			rc = state_load(m);
			if (!rc)
				rc = call_run(m, &c, &r0);
		} while (rc == -ERESTART && !(rc = state_restart(m)));
		if (rc || r0 != -ENOSPC || c.out_cap == most)
			break;
		m->reruns++;
	}
	if (!rc && r0 < 0)
		rc = r0 == -ENOSPC ? no_room_to_finish(m, &c) : call_returned(m, &c, r0);
	if (!rc)
		rc = order_count_fuel(m, job->next);
	if (!rc)
		rc = order_write(m, job->next, sbpf_sandbox_ptr(m->sb, SBPF_WIN_OUT), (size_t)r0);
	if (rc)
		w->err = m->err;
	return rc;
}

static int finish(struct worker *w)
{
	struct job *job = w->job;
	bool fold = job->fn->kind == LAMBDA_KIND_FOLD;

	/* On an empty input a scan is not run, so it has nothing to add. */
	if (job->fn->entry[LAMBDA_E_FINISH] >= 0)
		return fold || job->turn ? run_finish(w) : 0;
	if (!fold)
		return 0;
	state_merged(w, false);
	return order_write(w, job->next, job->state, job->fn->state_size);
}

/* ---- plan and report ---- */

static int plan_memory(struct job *job, struct lambda_error *err)
{
	const struct lambda_request *req = job->req;
	const struct lambda_function *fn = job->fn;
	uint64_t memory = req->memory ? req->memory : LAMBDA_MEMORY_DEFAULT;
	uint64_t fixed = add_sat(fn->heap_size + fn->state_size, req->arg_len);

	if (memory < 2 * SBPF_PAGE || fixed > memory - 2 * SBPF_PAGE)
		return lambda_fail(
			err, -ENOSPC,
			"memory: heap, state and arguments of %s take %llu of %llu bytes "
			"and leave no room for data; allow more memory",
			fn->name, (unsigned long long)fixed, (unsigned long long)memory);
	job->room = memory - fixed;
	job->record_max = min_u64(job->room - SBPF_PAGE, sbpf_window_max(SBPF_WIN_IN) - SBPF_PAGE);
	job->chunk = min_u64(req->chunk ? req->chunk : LAMBDA_CHUNK_DEFAULT, job->room / 2);
	job->chunk = min_u64(job->chunk, job->record_max);
	return 0;
}

/*
 * Spans of a merged fold are as long as leaves enough of them, whatever the number of threads: fuel
 * must not depend on that.
 */
static void plan_spans(struct job *job)
{
	uint64_t pieces = 1;

	if (job->merging && !job->src->ops->sequential && !job->req->cuts)
		pieces = (job->range_end - job->begin) / job->chunk / SPANS_ENOUGH;
	pieces = pieces < 1 ? 1 : min_u64(pieces, SPAN_PIECES);
	job->span = job->chunk * pieces;
}

/*
 * Fuel that is counted exactly needs a tier that counts.  AUTO stays AUTO: what it stands for may be better later, and the
 * next call has it.
 */
static int plan_tier(struct job *job, struct lambda_report *report, struct lambda_error *err)
{
	struct sbpf_code_info info = {.size = sizeof(info)};
	enum sbpf_tier tier = job->req->tier;
	struct sbpf_error why;
	int rc;

	if (job->req->fuel && tier == SBPF_TIER_LLVM)
		return lambda_fail(err, -EINVAL,
				   "tier llvm does not count fuel; use tier template or no fuel "
				   "limit");
	if (job->req->fuel && tier == SBPF_TIER_AUTO)
		tier = sbpf_tier_missing(SBPF_TIER_TEMPLATE) ? SBPF_TIER_INTERP
							     : SBPF_TIER_TEMPLATE;
	rc = sbpf_program_compile(job->fn->prog, tier, &info, &why);
	if (rc)
		return lambda_fail(err, rc, "%s", why.text);
	job->tier = tier;
	job->tier_first = report->tier = report->tier_first = info.tier;
	report->compile_ns = info.compile_ns;
	return 0;
}

static const char *way_in(const struct job *job, const struct worker *w)
{
	return job->src->ops->map && !w->mapped ? "pread" : job->src->ops->name;
}

static void fill_report(struct job *job, struct worker *w, struct lambda_report *report)
{
	add_counts(w, job->merger);
	if (w->switched)
		report->tier = SBPF_TIER_LLVM; /* what AUTO comes to, if to anything */
	report->bytes_first = w->bytes_first;
	if (job->tier == SBPF_TIER_AUTO)
		report->tier_why = sbpf_program_tiering(job->fn->prog);
	else if (job->req->fuel && job->req->tier == SBPF_TIER_AUTO)
		report->tier_why = "fuel was limited, and this tier counts it";
	report->bytes_in = w->bytes_in;
	report->bytes_out = job->out_bytes;
	report->trailing = job->trailing;
	report->io_ns = w->io_ns;
	report->run_ns = w->run_ns;
	report->fuel = w->fuel;
	report->calls = w->calls;
	report->reruns = w->reruns;
	report->restarts = w->restarts;
	report->compile_ns += w->load_ns;
	report->threads = job->n_workers + 1;
	report->source = way_in(job, w);
}

static int run(struct job *job, struct worker *w)
{
	int rc = pieces_plan(w);

	if (rc)
		return rc;
	plan_spans(job);
	work(w);
	join_workers(job, w);
	if (job->failed_seq != UINT64_MAX) {
		w->err = job->failure;
		return w->err.code;
	}
	return finish(w);
}

int lambda_run(const struct lambda_request *req, struct lambda_source *src,
	       struct lambda_sink *sink, struct lambda_report *report, struct lambda_error *err)
{
	const struct lambda_function *fn = req->fn;
	struct worker w = {0}, merger = {0};
	uint64_t start = now_ns();
	struct job job = {
		.req = req,
		.fn = fn,
		.src = src,
		.sink = sink,
		.merging = fn->entry[LAMBDA_E_MERGE] >= 0,
		.in_order = fn->kind == LAMBDA_KIND_SCAN ||
			    (fn->kind == LAMBDA_KIND_FOLD && fn->entry[LAMBDA_E_MERGE] < 0),
		.claim_lock = PTHREAD_MUTEX_INITIALIZER,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
		.slots = &job.slot,
		.ring = 1,
		.failed_seq = UINT64_MAX,
		.merger = &merger,
	};
	int rc;

	*report = (struct lambda_report){.tier_why = ""};
	rc = plan_memory(&job, err);
	if (!rc)
		rc = plan_tier(&job, report, err);
	if (rc)
		return rc;
	w.job = merger.job = &job;
	w.tier = merger.tier = job.tier;
	rc = state_init(&w);
	if (!rc)
		rc = worker_open(&w);
	if (!rc)
		rc = run(&job, &w);
	if (rc && err)
		*err = w.err;
	fill_report(&job, &w, report);
	worker_close(&merger); /* the pool gives the last one back first: the same role again */
	worker_close(&w);
	state_free(&job);
	order_free(&job);
	pieces_free(&job);
	free(w.stage);
	report->wall_ns = now_ns() - start;
	return rc;
}
