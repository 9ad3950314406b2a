/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_fetch.c - output to the host: fetches that wait, and what they bring.
 *
 * A fetch waits without a buffer, but for those of other loops.  They are served first come first served.
 * What was given stays until the next fetch acknowledges it, so that an answer that was lost can be asked for again.
 */
#include <stdlib.h>
#include <string.h>

#include "device/lambda_private.h"

#define MIN_BUFFER  1024u /* header, result and text, and something */
#define EARLY_MS    1000u
#define MAX_WAIT_MS 5000u
#define COLLECT_NS  1000000u /* small output so soon after the last waits a moment for more */
#define COLLECT_MS  4u
#define NEXT        UINT64_MAX

struct lambda_fetch {
	struct ctrl_cmd *cmd;
	struct ctrl_lambda *lam;
	struct lambda_run *run; /* NULL: its submit has not come */
	struct lambda_fetch *next;
	struct ctrl_loop *loop; /* on which it waits */
	struct ctrl_timer timer;
};

static uint32_t wait_ms(const struct ctrl_cmd *cmd)
{
	uint32_t ms = nvme_get32(cmd->sqe.cdw14);

	return ms < MAX_WAIT_MS ? ms : MAX_WAIT_MS;
}

uint16_t fetch_prepare(struct ctrl_cmd *cmd)
{
	uint32_t nsid = nvme_get32(cmd->sqe.nsid), len = nvme_get32(cmd->sqe.cdw11);

	if (nsid && !ctrl_namespace(cmd->q->ctrl, nsid))
		return NVME_SC_INVALID_NS;
	if (nvme_get32(cmd->sqe.cdw2) || nvme_get32(cmd->sqe.cdw3) || nvme_get32(cmd->sqe.cdw15) ||
	    len < MIN_BUFFER || len > ctrl_server_limits(cmd->q->server)->max_transfer)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = CTRL_TO_HOST;
	cmd->data_len = len;
	return NVME_SC_SUCCESS;
}

/* ---- answers ---- */

static void put_result(struct lambda_run *run, uint8_t *at)
{
	const struct nvme_lambda_result *r = &run->result;
	const struct nvme_lambda_result out = {
		.error = (int32_t)htole32((uint32_t)r->error),
		.flags = htole32(r->flags),
		.text_len = htole32(r->text_len),
		.threads = htole16(r->threads),
		.tier = r->tier,
		.io = r->io,
		.error_offset = htole64(r->error_offset),
		.bytes_in = htole64(r->bytes_in),
		.bytes_out = htole64(r->bytes_out),
		.bytes_written = htole64(r->bytes_written),
		.trailing = htole64(r->trailing),
		.io_ns = htole64(r->io_ns),
		.run_ns = htole64(r->run_ns),
		.queue_ns = htole64(r->queue_ns),
		.wall_ns = htole64(r->wall_ns),
		.compile_ns = htole64(r->compile_ns),
		.fuel = htole64(r->fuel),
		.calls = htole64(r->calls),
		.reruns = htole64(r->reruns),
		.queued = htole32(r->queued),
		.running = htole32(r->running),
		.cores = htole32(r->cores),
	};

	memcpy(at, &out, sizeof(out));
	memcpy(at + sizeof(out), run->text, r->text_len);
}

static size_t copy(uint8_t *to, const struct iovec iov[2], size_t skip, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < 2 && done < len; i++) {
		size_t n = iov[i].iov_len > skip ? iov[i].iov_len - skip : 0;

		n = n < len - done ? n : len - done;
		if (n)
			memcpy(to + done, (const uint8_t *)iov[i].iov_base + skip, n);
		done += n;
		skip = skip > iov[i].iov_len ? skip - iov[i].iov_len : 0;
	}
	return done;
}

/* Acknowledge what the fetch says it has.  False: that is not where the output stands. */
static bool acknowledge(struct lambda_run *run, uint64_t offset)
{
	if (offset == run->base && run->given)
		return true; /* the last answer once more */
	if (offset != NEXT && offset != run->base + run->given)
		return false;
	run_consume(run, run->given);
	run->base += run->given;
	run->given = 0;
	return true;
}

/* Fill the buffer with what there is, and answer. */
static void answer(struct lambda_run *run, struct ctrl_cmd *cmd)
{
	struct nvme_lambda_reply reply = {0};
	uint32_t room = cmd->data_len - (uint32_t)sizeof(reply), len, whole;
	struct iovec iov[2];
	size_t have;
	bool end;

	if (!acknowledge(run, cdw_offset(cmd))) {
		lambda_answer(cmd, NVME_SC_LAMBDA_ORDER);
		return;
	}
	have = run_output(run, iov);
	len = have < room ? (uint32_t)have : room;
	whole = (uint32_t)((len + 7) & ~7u) + (uint32_t)sizeof(run->result) + run->result.text_len;
	end = run->state == RUN_ENDED && len == have && whole <= room;
	copy(cmd->data + sizeof(reply), iov, 0, len);
	run->given = len;
	reply.flags =
		htole32((end ? NVME_LAMBDA_END : 0) | (run->started_ns ? NVME_LAMBDA_STARTED : 0));
	reply.len = htole32(len);
	reply.offset = htole64(run->base);
	reply.done = htole64(run->job.done);
	reply.total = htole64(run->job.total);
	memcpy(cmd->data, &reply, sizeof(reply));
	if (end) {
		memset(cmd->data + sizeof(reply) + len, 0, (8 - len % 8) % 8);
		put_result(run, cmd->data + sizeof(reply) + ((len + 7) & ~7u));
		len = whole;
	}
	cmd->data_len = (uint32_t)sizeof(reply) + len;
	cmd->cqe.dw0 = nvme_put32(cmd->data_len);
	run->answered_ns = ctrl_now_ns();
	lambda_answer(cmd, NVME_SC_SUCCESS);
	if (end)
		run_done(run);
}

/* ---- those that wait ---- */

static void timed_out(struct ctrl_timer *t);

static struct lambda_fetch *fetch_new(struct ctrl_cmd *cmd, struct ctrl_lambda *lam,
				      struct lambda_run *run, uint32_t ms)
{
	const uint32_t max = ctrl_server_lambda(lam->server)->max_waiting;
	struct lambda_fetch *f = calloc(1, sizeof(*f));
	bool many;

	if (!f) {
		lambda_answer(cmd, NVME_SC_INTERNAL);
		return NULL;
	}
	pthread_mutex_lock(&lam->lock);
	many = lam->n_waiting >= max;
	lam->n_waiting += !many;
	pthread_mutex_unlock(&lam->lock);
	if (many) {
		free(f);
		lambda_busy(cmd, lam->ls, COLLECT_MS);
		return NULL;
	}
	f->cmd = cmd;
	f->lam = lam;
	f->run = run;
	f->loop = run ? run->loop : cmd->q->loop;
	f->timer.fire = timed_out;
	/* Abort finds it, and it does not hinder an orderly end of the connection; both are its own loop's to touch. */
	if (f->loop == cmd->q->loop) {
		cmd->q->parked++;
		cmd->step[0] = (uintptr_t)f;
	}
	ctrl_timer_arm(f->loop, &f->timer, ms);
	return f;
}

/* It waits no more; the command is the caller's. */
static struct ctrl_cmd *fetch_free(struct lambda_fetch *f)
{
	struct ctrl_cmd *cmd = f->cmd;

	ctrl_timer_cancel(f->loop, &f->timer);
	if (f->loop == cmd->q->loop) {
		cmd->q->parked--;
		cmd->step[0] = 0;
	}
	pthread_mutex_lock(&f->lam->lock);
	f->lam->n_waiting--;
	pthread_mutex_unlock(&f->lam->lock);
	free(f);
	return cmd;
}

static void unlink_waiting(struct lambda_fetch *f)
{
	struct lambda_fetch **at;

	if (f->run) {
		for (at = &f->run->fetches; *at != f; at = &(*at)->next)
			;
		*at = f->next;
		if (f->run->fetches_end == &f->next)
			f->run->fetches_end = at;
		if (!f->run->fetches)
			run_watched(f->run, false);
		return;
	}
	pthread_mutex_lock(&f->lam->lock);
	for (at = &f->lam->early; *at != f; at = &(*at)->next)
		;
	*at = f->next;
	pthread_mutex_unlock(&f->lam->lock);
}

/* With its buffer: now, or when it has got one. */
static void serve(struct lambda_run *run, struct ctrl_cmd *cmd)
{
	if (cmd->data)
		answer(run, cmd);
	else
		ctrl_cmd_want_data(cmd);
}

static void timed_out(struct ctrl_timer *t)
{
	struct lambda_fetch *f =
		(struct lambda_fetch *)((char *)t - offsetof(struct lambda_fetch, timer));
	struct lambda_run *run = f->run;
	struct ctrl_cmd *cmd;

	unlink_waiting(f);
	cmd = fetch_free(f);
	if (run)
		serve(run, cmd);
	else
		lambda_answer(cmd, NVME_SC_LAMBDA_NO_HANDLE);
}

/* Is there something to say that is worth an answer? */
static bool worth(struct lambda_run *run, const struct ctrl_cmd *cmd)
{
	struct iovec iov[2];
	size_t have = run_output(run, iov);

	if (run->state == RUN_ENDED)
		return true;
	have -= have < run->given ? have : run->given;
	if (!have)
		return false;
	if (have >= cmd->data_len / 2 || ctrl_now_ns() - run->answered_ns >= COLLECT_NS)
		return true;
	if (!run->timer.at_ns || !run->timer_fetch) {
		ctrl_timer_cancel(run->loop, &run->timer);
		run->timer_fetch = true;
		ctrl_timer_arm(run->loop, &run->timer, COLLECT_MS);
	}
	return false;
}

void fetch_kick(struct lambda_run *run)
{
	struct ctrl_lambda *lam = run->lam;
	const uint32_t handle = run->handle;

	/* The answer with the end forgets the handle, and ends all fetches that still wait. */
	while (lambda_find_here(lam, handle) == run && run->fetches &&
	       worth(run, run->fetches->cmd)) {
		struct lambda_fetch *f = run->fetches;

		unlink_waiting(f);
		serve(run, fetch_free(f));
	}
}

void fetch_end_all(struct lambda_run *run, uint16_t status, uint32_t dw0)
{
	while (run->fetches) {
		struct lambda_fetch *f = run->fetches;
		struct ctrl_cmd *cmd;

		unlink_waiting(f);
		cmd = fetch_free(f);
		cmd->cqe.dw0 = nvme_put32(dw0);
		lambda_answer(cmd, status);
	}
}

static void wait_early(struct ctrl_cmd *cmd, struct ctrl_lambda *lam)
{
	uint32_t ms = wait_ms(cmd);
	struct lambda_fetch *f, **at;

	if (!ms) {
		lambda_answer(cmd, NVME_SC_LAMBDA_NO_HANDLE);
		return;
	}
	f = fetch_new(cmd, lam, NULL, ms < EARLY_MS ? ms : EARLY_MS);
	if (!f)
		return;
	pthread_mutex_lock(&lam->lock);
	for (at = &lam->early; *at; at = &(*at)->next)
		;
	*at = f;
	pthread_mutex_unlock(&lam->lock);
}

void fetch_start(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_run *run)
{
	const uint64_t offset = cdw_offset(cmd);
	struct lambda_fetch *f;

	if (!run) {
		if (cmd->data) /* it was there when the buffer was asked for */
			lambda_answer(cmd, NVME_SC_LAMBDA_NO_HANDLE);
		else
			wait_early(cmd, lam);
		return;
	}
	/* Its second time here: the buffer is for an answer now. */
	if (cmd->data && run->loop == cmd->q->loop) {
		answer(run, cmd);
		return;
	}
	/* It asks for what was given once more, or for what is not next, or does not want to wait. */
	if ((offset != NEXT && offset != run->base + run->given) || !wait_ms(cmd)) {
		serve(run, cmd);
		return;
	}
	f = fetch_new(cmd, lam, run, wait_ms(cmd));
	if (!f)
		return;
	*run->fetches_end = f;
	run->fetches_end = &f->next;
	run_watched(run, true);
	fetch_kick(run);
}

/* ---- early ones ---- */

static struct lambda_fetch *take_early(struct ctrl_lambda *lam, uint32_t handle,
				       const struct ctrl_queue *q)
{
	struct lambda_fetch *f = NULL;

	pthread_mutex_lock(&lam->lock);
	for (struct lambda_fetch **at = &lam->early; *at; at = &(*at)->next) {
		f = *at;
		if (ctrl_loop_is_current(f->loop) &&
		    (q ? f->cmd->q == q : cdw_handle(f->cmd) == handle)) {
			*at = f->next;
			break;
		}
		f = NULL;
	}
	pthread_mutex_unlock(&lam->lock);
	return f;
}

struct early {
	struct ctrl_lambda *lam;
	uint32_t handle;
};

/* Once more from the start: the handle is known now, or refused. */
static void retry_early(struct ctrl_lambda *lam, uint32_t handle)
{
	struct lambda_fetch *f;

	while ((f = take_early(lam, handle, NULL))) {
		struct ctrl_cmd *cmd = fetch_free(f);

		cmd->row->run(cmd);
	}
}

static void retry_there(void *arg)
{
	struct early *e = arg;

	retry_early(e->lam, e->handle);
	ctrl_lambda_put(e->lam);
	free(e);
}

void fetch_submitted(struct ctrl_lambda *lam, uint32_t handle, struct ctrl_loop *loop)
{
	struct ctrl_loop *there = NULL;
	struct early *e;

	retry_early(lam, handle);
	pthread_mutex_lock(&lam->lock);
	for (const struct lambda_fetch *f = lam->early; f; f = f->next) {
		if (cdw_handle(f->cmd) == handle && f->loop != loop)
			there = f->loop;
	}
	pthread_mutex_unlock(&lam->lock);
	if (!there)
		return;
	/* Without memory it waits for its time-out. */
	e = malloc(sizeof(*e));
	if (!e)
		return;
	*e = (struct early){lambda_get(lam), handle};
	if (ctrl_loop_post(there, retry_there, e)) {
		ctrl_lambda_put(lam);
		free(e);
	}
}

/* ---- ends ---- */

bool fetch_abort(struct ctrl_cmd *cmd)
{
	struct lambda_fetch *f = (struct lambda_fetch *)(uintptr_t)cmd->step[0];

	/* What waits on another loop ends by itself soon. */
	if (!f)
		return false;
	unlink_waiting(f);
	lambda_answer(fetch_free(f), NVME_SC_ABORT_REQUESTED);
	return true;
}

static struct lambda_fetch *waiting_of(struct ctrl_lambda *lam, const struct ctrl_queue *q)
{
	struct lambda_fetch *f = NULL;

	pthread_mutex_lock(&lam->lock);
	for (uint32_t i = 0; i < LAMBDA_BUCKETS && !f; i++) {
		for (struct lambda_run *run = lam->runs[i]; run && !f; run = run->next) {
			if (!ctrl_loop_is_current(run->loop))
				continue;
			for (f = run->fetches; f && f->cmd->q != q; f = f->next)
				;
		}
	}
	pthread_mutex_unlock(&lam->lock);
	return f;
}

void fetch_leave(struct ctrl_lambda *lam, struct ctrl_queue *q)
{
	struct lambda_fetch *f;

	while ((f = take_early(lam, 0, q)))
		lambda_answer(fetch_free(f), NVME_SC_ABORT_SQ_DELETED);
	while ((f = waiting_of(lam, q))) {
		unlink_waiting(f);
		lambda_answer(fetch_free(f), NVME_SC_ABORT_SQ_DELETED);
	}
}
