/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda.c - the λ commands: their fields, and the way to the run that a handle names.
 *
 * Handles are a controller's; a run is its loop's.  A command of another loop is sent to the run's and back, which is
 * how a host that moves between processors sees it; hosts that keep to one queue pay nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/lambda_private.h"

#define REFUSAL_NS 5000000000u

/* ---- a controller's part ---- */

struct ctrl_lambda *lambda_of(struct ctrl_controller *c)
{
	struct ctrl_lambda *lam;

	pthread_mutex_lock(&c->sub->lock);
	lam = c->lambda;
	if (!lam && (lam = calloc(1, sizeof(*lam)))) {
		lam->server = c->sub->server;
		lam->ls = lambda_server(lam->server);
		lam->refs = 1;
		lam->host = ctrl_host_get(lam->server, c->hostnqn);
		pthread_mutex_init(&lam->lock, NULL);
		if (lam->host) {
			c->lambda = lam;
		} else {
			ctrl_lambda_put(lam);
			lam = NULL;
		}
	}
	pthread_mutex_unlock(&c->sub->lock);
	return lam;
}

struct ctrl_lambda *lambda_get(struct ctrl_lambda *lam)
{
	pthread_mutex_lock(&lam->lock);
	lam->refs++;
	pthread_mutex_unlock(&lam->lock);
	return lam;
}

void ctrl_lambda_put(struct ctrl_lambda *lam)
{
	bool last;

	if (!lam)
		return;
	pthread_mutex_lock(&lam->lock);
	last = !--lam->refs;
	pthread_mutex_unlock(&lam->lock);
	if (!last)
		return;
	uploads_free(lam);
	ctrl_host_put(lam->host);
	pthread_mutex_destroy(&lam->lock);
	free(lam);
}

/* ---- handles ---- */

static struct lambda_run **bucket_of(struct ctrl_lambda *lam, uint32_t handle)
{
	return &lam->runs[handle % LAMBDA_BUCKETS];
}

/* Under the lock. */
static struct lambda_run *find(struct ctrl_lambda *lam, uint32_t handle)
{
	struct lambda_run *run = *bucket_of(lam, handle);

	while (run && run->handle != handle)
		run = run->next;
	return run;
}

struct lambda_run *lambda_find_here(struct ctrl_lambda *lam, uint32_t handle)
{
	struct lambda_run *run;

	pthread_mutex_lock(&lam->lock);
	run = find(lam, handle);
	pthread_mutex_unlock(&lam->lock);
	return run && ctrl_loop_is_current(run->loop) ? run : NULL;
}

void lambda_forget_handle(struct lambda_run *run)
{
	struct ctrl_lambda *lam = run->lam;
	struct lambda_run **at;

	if (!run->in_table)
		return;
	pthread_mutex_lock(&lam->lock);
	for (at = bucket_of(lam, run->handle); *at != run; at = &(*at)->next)
		;
	*at = run->next;
	lam->n_runs--;
	pthread_mutex_unlock(&lam->lock);
	run->in_table = false;
}

void lambda_refuse(struct ctrl_lambda *lam, uint32_t handle, uint16_t status, uint32_t dw0)
{
	pthread_mutex_lock(&lam->lock);
	lam->refusals[lam->next_refusal++ % LAMBDA_REFUSALS] =
		(struct lambda_refusal){handle, status, dw0, ctrl_now_ns()};
	pthread_mutex_unlock(&lam->lock);
}

/* Under the lock. */
static const struct lambda_refusal *refusal_of(struct ctrl_lambda *lam, uint32_t handle)
{
	for (uint32_t i = 0; i < LAMBDA_REFUSALS; i++) {
		const struct lambda_refusal *r = &lam->refusals[i];

		if (r->at_ns && r->handle == handle && ctrl_now_ns() - r->at_ns < REFUSAL_NS)
			return r;
	}
	return NULL;
}

/* ---- answers ---- */

static void answered(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	ctrl_complete(cmd, (uint16_t)cmd->step[3]);
}

void lambda_answer(struct ctrl_cmd *cmd, uint16_t status)
{
	if (ctrl_loop_is_current(cmd->q->loop)) {
		ctrl_complete(cmd, status);
		return;
	}
	cmd->step[3] = status;
	ctrl_loop_return(&cmd->io, 0);
}

void lambda_busy(struct ctrl_cmd *cmd, struct ctrl_lambda_server *ls, uint32_t ms)
{
	atomic_fetch_add(&ls->counters.busy, 1);
	cmd->cqe.dw0 = nvme_put32(ms);
	lambda_answer(cmd, NVME_SC_LAMBDA_BUSY);
}

/* ---- what all have in common ---- */

static uint16_t common(struct ctrl_cmd *cmd)
{
	uint32_t nsid = nvme_get32(cmd->sqe.nsid);

	if (nsid && !ctrl_namespace(cmd->q->ctrl, nsid))
		return NVME_SC_INVALID_NS;
	if (nvme_get32(cmd->sqe.cdw2) || nvme_get32(cmd->sqe.cdw3) || nvme_get32(cmd->sqe.cdw15))
		return NVME_SC_INVALID_FIELD;
	return NVME_SC_SUCCESS;
}

static uint32_t max_transfer(const struct ctrl_cmd *cmd)
{
	return ctrl_server_limits(cmd->q->server)->max_transfer;
}

/* What does the command do, once it is on the run's loop (@run), or there is none? */
static void act(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_run *run)
{
	switch ((enum nvme_lambda_opcode)cmd->sqe.opcode) {
	case NVME_LAMBDA_SUBMIT:
		run_submit(cmd, lam, run);
		return;
	case NVME_LAMBDA_FETCH:
		fetch_start(cmd, lam, run);
		return;
	case NVME_LAMBDA_INPUT:
		if (run)
			run_input(cmd, run);
		break;
	case NVME_LAMBDA_CANCEL:
		if (!run)
			break;
		run_drop(run);
		lambda_answer(cmd, NVME_SC_SUCCESS);
		break;
	case NVME_LAMBDA_INFO:
	case NVME_LAMBDA_PROGRAM:
	case NVME_LAMBDA_OBJECT_DO:
	case NVME_LAMBDA_OBJECT_WRITE:
	case NVME_LAMBDA_OBJECT_READ:
		break; /* not by handle */
	}
	if (!run)
		lambda_answer(cmd, NVME_SC_LAMBDA_NO_HANDLE);
}

static void act_there(void *arg)
{
	struct ctrl_cmd *cmd = arg;
	struct ctrl_lambda *lam = cmd->q->ctrl->lambda;
	struct lambda_run *run = lambda_find_here(lam, cdw_handle(cmd));

	if (run)
		act(cmd, lam, run);
	else
		lambda_answer(cmd, NVME_SC_LAMBDA_NO_HANDLE);
}

static void route(struct ctrl_cmd *cmd)
{
	struct ctrl_lambda *lam = lambda_of(cmd->q->ctrl);
	struct ctrl_loop *there = NULL;
	const struct lambda_refusal *refusal = NULL;
	struct lambda_run *run;
	uint16_t status = 0;

	if (!lam) {
		ctrl_complete(cmd, NVME_SC_INTERNAL);
		return;
	}
	pthread_mutex_lock(&lam->lock);
	run = find(lam, cdw_handle(cmd));
	if (run)
		there = run->loop;
	else if (cmd->sqe.opcode != NVME_LAMBDA_SUBMIT)
		refusal = refusal_of(lam, cdw_handle(cmd));
	if (refusal) {
		status = refusal->status;
		cmd->cqe.dw0 = nvme_put32(refusal->dw0);
	}
	pthread_mutex_unlock(&lam->lock);
	if (status) {
		ctrl_complete(cmd, status);
		return;
	}
	if (!run || there == cmd->q->loop) {
		act(cmd, lam, run);
		return;
	}
	/* Its buffer comes along. */
	if (cmd->row->late && !cmd->data) {
		ctrl_cmd_want_data(cmd);
		return;
	}
	/* The way back needs no memory, so that whatever is sent there is answered. */
	cmd->io = (struct ctrl_io){.loop = cmd->q->loop, .done = answered};
	ctrl_loop_sent(cmd->q->loop);
	if (ctrl_loop_post(there, act_there, cmd)) {
		cmd->step[3] = NVME_SC_INTERNAL;
		ctrl_loop_return(&cmd->io, 0);
	}
}

/* ---- submit ---- */

static uint16_t submit_prepare(struct ctrl_cmd *cmd)
{
	uint32_t total = nvme_get32(cmd->sqe.cdw11), at = nvme_get32(cmd->sqe.cdw12);
	uint32_t len = nvme_get32(cmd->sqe.cdw13);
	uint16_t status = common(cmd);

	if (!status && (nvme_get32(cmd->sqe.cdw14) || !len || len > max_transfer(cmd) ||
			at > total || len > total - at))
		status = NVME_SC_INVALID_FIELD;
	if (!status && total > ctrl_server_lambda(cmd->q->server)->max_request)
		status = NVME_SC_LAMBDA_TOO_BIG;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = len;
	if (status) {
		struct ctrl_lambda *lam = lambda_of(cmd->q->ctrl);

		if (lam) {
			lambda_refuse(lam, cdw_handle(cmd), status, 0);
			fetch_submitted(lam, cdw_handle(cmd), cmd->q->loop);
		}
	}
	return status;
}

/* ---- cancel, input ---- */

static uint16_t cancel_prepare(struct ctrl_cmd *cmd)
{
	uint16_t status = common(cmd);

	if (!status &&
	    (nvme_get32(cmd->sqe.cdw11) || cdw_offset(cmd) || nvme_get32(cmd->sqe.cdw14)))
		status = NVME_SC_INVALID_FIELD;
	return status;
}

static uint16_t input_prepare(struct ctrl_cmd *cmd)
{
	uint32_t len = nvme_get32(cmd->sqe.cdw11), flags = nvme_get32(cmd->sqe.cdw14);
	uint16_t status = common(cmd);

	if (status)
		return status;
	if (len > max_transfer(cmd) || (flags & ~NVME_LAMBDA_INPUT_LAST) || (!len && !flags) ||
	    cdw_offset(cmd) > INT64_MAX)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = len ? CTRL_TO_CONTROLLER : CTRL_NO_DATA;
	cmd->data_len = len;
	return NVME_SC_SUCCESS;
}

/* ---- the queue goes ---- */

void ctrl_lambda_leave(struct ctrl_queue *q)
{
	struct ctrl_lambda *lam = NULL;
	struct lambda_run *run;

	if (!q->ctrl)
		return;
	pthread_mutex_lock(&q->ctrl->sub->lock);
	lam = q->ctrl->lambda;
	pthread_mutex_unlock(&q->ctrl->sub->lock);
	if (!lam)
		return;
	fetch_leave(lam, q);
	checks_leave(lam, q);
	do {
		pthread_mutex_lock(&lam->lock);
		run = NULL;
		for (uint32_t i = 0; i < LAMBDA_BUCKETS && !run; i++) {
			for (run = lam->runs[i]; run && run->q != q; run = run->next)
				;
		}
		pthread_mutex_unlock(&lam->lock);
		if (run)
			run_drop(run);
	} while (run);
}

static const struct ctrl_command commands[] = {
	{NVME_LAMBDA_CANCEL, "lambda-cancel", 0, cancel_prepare, route},
	{NVME_LAMBDA_SUBMIT, "lambda-submit", NVME_EFFECT_CONTENT, submit_prepare, route},
	{NVME_LAMBDA_FETCH, "lambda-fetch", 0, fetch_prepare, route, true, fetch_abort},
	{NVME_LAMBDA_INPUT, "lambda-input", 0, input_prepare, route},
	{NVME_LAMBDA_INFO, "lambda-info", 0, info_prepare, info_run},
	{NVME_LAMBDA_PROGRAM, "lambda-program", 0, program_prepare, program_run},
};
const struct ctrl_command_set ctrl_lambda_set = {commands, sizeof(commands) / sizeof(*commands)};
