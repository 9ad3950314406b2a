/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_submit.c - submit: a request's parts, and what it names.
 *
 * Refusals that a person should read end as a run whose result says why; those of form are a status.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "device/lambda_private.h"

#define LIST_MAX (256u << 10)
/* Bytes of requests that a host may have here, in units of the largest one. */
#define HOST_REQUESTS 4u

/* ---- what the request names ---- */

static uint16_t namespace_of(struct lambda_run *run, const struct lambda_extents *e, bool writes,
			     struct ctrl_namespace **out)
{
	struct ctrl_namespace *ns = ctrl_namespace(run->ctrl, e->nsid);

	if (!ns)
		return NVME_SC_INVALID_NS;
	if (ns->store->geo.csi != NVME_CSI_NVM)
		return NVME_SC_INVALID_COMMAND_SET;
	if (writes && ns->store->geo.read_only)
		return NVME_SC_WRITE_PROTECTED;
	*out = ns;
	return lambda_extents_check(e, ctrl_namespace_blocks(ns) << ns->shift);
}

static uint16_t find_source(struct lambda_run *run)
{
	struct ctrl_job *job = &run->job;
	struct lambda_parsed *p = &run->parsed;
	uint16_t status;

	job->fd = -1;
	if (p->head.source == NVME_LAMBDA_FROM_OBJECT) {
		run->from = ctrl_object_get(run->ctrl, p->from_object);
		return run->from ? NVME_SC_SUCCESS : NVME_SC_LAMBDA_NO_OBJECT;
	}
	if (p->head.source != NVME_LAMBDA_FROM_EXTENTS)
		return NVME_SC_SUCCESS;
	status = namespace_of(run, &p->from, false, &run->from_ns);
	if (status)
		return status;
	job->fd = run->from_ns->store->ops->descriptor
			  ? run->from_ns->store->ops->descriptor(run->from_ns->store)
			  : run->lam->ls->nothing;
	if (!run->from_ns->store->ops->descriptor) {
		for (uint32_t i = 0; i < p->from.n; i++)
			p->from.seg[i].at = UINT64_MAX;
	}
	job->segments = p->from.seg;
	job->n_segments = p->from.n;
	job->base = p->base;
	job->size = p->base + p->from.bytes;
	return NVME_SC_SUCCESS;
}

static uint16_t find_sink(struct lambda_run *run)
{
	struct lambda_parsed *p = &run->parsed;

	if (p->head.sink == NVME_LAMBDA_TO_OBJECT) {
		run->to = ctrl_object_get(run->ctrl, p->to_object);
		return run->to ? NVME_SC_SUCCESS : NVME_SC_LAMBDA_NO_OBJECT;
	}
	return p->head.sink == NVME_LAMBDA_TO_EXTENTS ? namespace_of(run, &p->to, true, &run->to_ns)
						      : NVME_SC_SUCCESS;
}

/* What is refused with a reason that a person can read. */
static void check_rights(struct lambda_run *run)
{
	struct lambda_parsed *p = &run->parsed;
	struct ctrl_error err = {0};
	int rc = lambda_budgets(&p->head, ctrl_server_lambda(run->lam->server), &err);

	if (!rc && run->from)
		rc = ctrl_object_allows(run->from, p->head.program, &err);
	if (!rc && run->to)
		rc = ctrl_object_allows(run->to, p->head.program, &err);
	if (!rc && run->from) {
		run->job.fd = ctrl_object_fd(run->from);
		if (run->job.fd < 0)
			rc = ctrl_fail(&err, run->job.fd, "%s: not opened for reading; open it so",
				       ctrl_object_name(run->from));
	}
	if (!rc && run->job.fd < 0 && p->head.source == NVME_LAMBDA_FROM_EXTENTS)
		rc = ctrl_fail(&err, -EIO, "namespace %" PRIu32 ": cannot be read by functions",
			       p->from.nsid);
	if (rc)
		run_fail(run, rc, "%s", err.text);
}

/* ---- submit ---- */

static void path_done(struct ctrl_path_op *op)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)op - offsetof(struct lambda_run, path));

	run->pending--;
	if (op->error)
		run_fail(run, op->error, "%s", op->text);
	run->rest = op->reply;
	run->rest_len = op->reply_len;
	op->reply = NULL;
	run->result.bytes_out = run->rest_len;
	run->result.error_offset = UINT64_MAX;
	run_end(run);
}

static uint16_t start_path(struct lambda_run *run)
{
	uint32_t most = ctrl_server_limits(run->lam->server)->max_transfer - 4096, dw0 = 0;
	uint16_t status = lambda_path_check(run->request, run->request_len, &dw0);

	if (status)
		return status;
	run->path = (struct ctrl_path_op){
		.ctrl = run->ctrl,
		.request = (const struct nvme_path_request *)run->request,
		.reply_max = most < LIST_MAX ? most : LIST_MAX,
		.done = path_done,
	};
	run->state = RUN_PREPARING;
	run->started_ns = ctrl_now_ns();
	run->pending++;
	ctrl_path_submit(&run->path, run->loop);
	return NVME_SC_SUCCESS;
}

static uint16_t start_run(struct lambda_run *run, uint32_t *dw0)
{
	struct ctrl_lambda_server *ls = run->lam->ls;
	uint16_t status = lambda_request_parse(run->request, run->request_len, &run->parsed, dw0);

	if (!status)
		status = find_source(run);
	if (!status)
		status = find_sink(run);
	if (status)
		return status;
	run->job.program = ctrl_program_find(run->host, run->parsed.head.program);
	if (!run->job.program)
		return NVME_SC_LAMBDA_NO_PROGRAM;
	if (sched_full(&ls->sched, &run->host->sched)) {
		atomic_fetch_add(&ls->counters.busy, 1);
		*dw0 = sched_busy_ms(&ls->sched);
		return NVME_SC_LAMBDA_BUSY;
	}
	run->durable = atomic_load_explicit(&run->ctrl->no_cache, memory_order_relaxed);
	run->job.kind = CTRL_JOB_RUN;
	run->job.loop = run->loop;
	run->job.server = run->lam->server;
	run->job.host = run->host;
	run->job.request = &run->parsed.head;
	run->job.arg = run->parsed.arg;
	run->job.arg_len = run->parsed.head.arg_len;
	run->job.ready = run_on_job;
	run->result.error_offset = UINT64_MAX;
	check_rights(run);
	return NVME_SC_SUCCESS;
}

/* All parts are here. */
static void complete_request(struct ctrl_cmd *cmd, struct lambda_run *run)
{
	uint32_t dw0 = 0;
	uint16_t op, status = lambda_request_op(run->request, run->request_len, &dw0, &op);

	run->ctrl = cmd->q->ctrl;
	if (!status)
		status = op >= NVME_PATH_OPEN ? start_path(run) : start_run(run, &dw0);
	run->ctrl = NULL;
	cmd->cqe.dw0 = nvme_put32(dw0);
	lambda_answer(cmd, status);
	if (status)
		run_refuse(run, status, dw0);
	else if (run_is_path(run))
		return;
	else if (run->result.error)
		run_end(run);
	else
		run_begin(run);
}

static void add_part(struct ctrl_cmd *cmd, struct lambda_run *run)
{
	uint32_t total = nvme_get32(cmd->sqe.cdw11), at = nvme_get32(cmd->sqe.cdw12);

	if (run->state != RUN_COLLECTING) {
		lambda_answer(cmd, NVME_SC_LAMBDA_HANDLE_USED);
		return;
	}
	if (total != run->request_len || at != run->request_have) {
		lambda_answer(cmd, NVME_SC_LAMBDA_ORDER);
		run_refuse(run, NVME_SC_LAMBDA_ORDER, 0);
		return;
	}
	memcpy(run->request + at, cmd->data, cmd->data_len);
	run->request_have += cmd->data_len;
	if (run->request_have == run->request_len)
		complete_request(cmd, run);
	else
		lambda_answer(cmd, NVME_SC_SUCCESS);
}

/* Memory for the whole request, within what a host may have. */
static uint16_t reserve(struct ctrl_lambda *lam, struct lambda_run *run, uint32_t total)
{
	uint64_t most = ctrl_server_lambda(lam->server)->max_request * HOST_REQUESTS;

	if (atomic_fetch_add(&lam->host->request_bytes, total) + total > most) {
		atomic_fetch_sub(&lam->host->request_bytes, total);
		return NVME_SC_LAMBDA_BUSY;
	}
	run->request = malloc(total);
	if (run->request)
		return NVME_SC_SUCCESS;
	atomic_fetch_sub(&lam->host->request_bytes, total);
	return NVME_SC_INTERNAL;
}

static uint16_t new_run(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_run **out)
{
	uint32_t total = nvme_get32(cmd->sqe.cdw11);
	struct lambda_run *run = calloc(1, sizeof(*run)), **bucket;
	uint16_t status = run ? reserve(lam, run, total) : NVME_SC_INTERNAL;

	if (status) {
		free(run);
		return status;
	}
	run->request_len = total;
	run->handle = cdw_handle(cmd);
	run->loop = cmd->q->loop;
	run->q = cmd->q;
	run->host = lam->host;
	run->fetches_end = &run->fetches;
	run->timer.fire = run_on_timer;
	run->submitted_ns = cmd->start_ns;
	pthread_mutex_lock(&lam->lock);
	if (lam->n_runs >= ctrl_server_lambda(lam->server)->max_handles) {
		status = NVME_SC_LAMBDA_BUSY;
	} else {
		bucket = &lam->runs[run->handle % LAMBDA_BUCKETS];
		run->next = *bucket;
		*bucket = run;
		lam->n_runs++;
		lam->refs++;
		run->lam = lam;
		run->in_table = true;
		for (uint32_t i = 0; i < LAMBDA_REFUSALS; i++) {
			if (lam->refusals[i].handle == run->handle)
				lam->refusals[i].at_ns = 0;
		}
	}
	pthread_mutex_unlock(&lam->lock);
	if (status) {
		atomic_fetch_sub(&lam->host->request_bytes, total);
		free(run->request);
		free(run);
		return status;
	}
	lambda_live(lam->ls, 1);
	*out = run;
	return NVME_SC_SUCCESS;
}

void run_submit(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_run *run)
{
	struct ctrl_loop *loop = cmd->q->loop;
	uint16_t status = NVME_SC_SUCCESS;
	uint32_t handle = cdw_handle(cmd), dw0 = 0;

	if (run) {
		add_part(cmd, run);
		return;
	}
	if (nvme_get32(cmd->sqe.cdw12))
		status = NVME_SC_LAMBDA_ORDER;
	if (!status)
		status = new_run(cmd, lam, &run);
	if (status) {
		if (status == NVME_SC_LAMBDA_BUSY) {
			atomic_fetch_add(&lam->ls->counters.busy, 1);
			dw0 = sched_busy_ms(&lam->ls->sched);
		}
		lambda_refuse(lam, handle, status, dw0);
		cmd->cqe.dw0 = nvme_put32(dw0);
		lambda_answer(cmd, status);
	} else {
		add_part(cmd, run);
	}
	fetch_submitted(lam, handle, loop);
}
