/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compute.c - Execute Program: a program of a compute namespace over ranges of local memory, in a worker of the host
 * that asks; and having a worker look at what was loaded.
 *
 * Owns: an execution while it lasts.  Does not own: slots and range sets (compute_admin.c), turns and workers.
 *
 * An execution is its command's, and touched on that queue's loop alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/compute.h"
#include "device/lambda_private.h"

#define RETRY_MS 8u /* all workers are busy */

struct piece { /* of memory, for output */
	uint8_t *p;
	uint64_t len;
};

struct execution {
	struct ctrl_job job; /* first */
	struct lambda_turn turn;
	struct ctrl_timer timer;
	struct ctrl_cmd *cmd;
	struct compute *cp;
	struct compute_slot *slot;
	struct compute_set *set; /* or NULL */
	struct ctrl_host *host;
	struct nvme_lambda_request request;
	struct ctrl_segment in[COMPUTE_RANGES];
	struct piece out[COMPUTE_RANGES];
	uint32_t n_in, n_out;
	uint64_t room, stored; /* bytes of output: what the ranges hold, what is there */
	bool started, overflown;
	uint16_t canceled;      /* with that status; 0: not */
	struct execution *next; /* of the namespace, under its lock */
};

/* ---- memory ranges ---- */

static void put_output(struct execution *e, const uint8_t *p, size_t len)
{
	uint64_t at = e->stored;

	if (e->overflown || len > e->room - e->stored) {
		e->overflown = true;
		return;
	}
	e->stored += len;
	for (uint32_t i = 0; i < e->n_out && len; i++) {
		uint64_t n;

		if (at >= e->out[i].len) {
			at -= e->out[i].len;
			continue;
		}
		n = e->out[i].len - at < len ? e->out[i].len - at : len;
		memcpy(e->out[i].p + at, p, n);
		at = 0;
		p += n;
		len -= n;
	}
}

/* The first @n_in ranges are input, @bytes of it (0: all); the others are for output. */
static uint16_t set_ranges(struct execution *e, const struct nvme_memory_range *r, uint32_t n,
			   uint64_t n_in, uint64_t bytes)
{
	struct ctrl_controller *c = e->cmd->q->ctrl;
	uint64_t have = 0;

	if (n_in > n)
		return NVME_SC_INVALID_FIELD;
	if (!n_in)
		n_in = n > 1 ? n - 1 : n;
	e->job.fd = lambda_server(e->cmd->q->server)->nothing;
	for (uint32_t i = 0; i < n; i++) {
		const struct ctrl_namespace *ns = ctrl_namespace(c, nvme_get32(r[i].nsid));
		uint64_t start = nvme_get64(r[i].start), len = nvme_get32(r[i].len);

		if (i >= n_in) {
			e->out[e->n_out++] = (struct piece){slm_base(ns) + start, len};
			e->room += len;
			continue;
		}
		if (nvme_get32(r[i].nsid) != nvme_get32(r[0].nsid))
			return NVME_SC_CP_MEMORY_NS;
		e->job.fd = slm_descriptor(ns);
		if (bytes && len > bytes - have)
			len = bytes - have;
		if (len)
			e->in[e->n_in++] = (struct ctrl_segment){.at = start, .length = len};
		have += len;
	}
	e->job.size = have;
	return bytes > have ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
}

/* ---- an execution's life ---- */

static void audit(const struct execution *e, int64_t value)
{
	const struct ctrl_cmd *cmd = e->cmd;
	char name[sizeof(e->slot->program->name)];

	for (size_t i = 0; i < sizeof(name); i++) {
		char ch = e->slot->program->name[i];

		name[i] = !ch || ((unsigned char)ch > ' ' && ch != '=' && ch != 0x7f) ? ch : '?';
	}
	name[sizeof(name) - 1] = 0;
	ctrl_log(cmd->q->server,
		 "event=execute host=%s name=%s what=namespace-%" PRIu32 " bytes_in=%" PRIu64
		 " bytes_out=%" PRIu64 " wall_ms=%" PRIu64 " outcome=%s%s%s",
		 cmd->q->ctrl->hostnqn, name, cmd->ns->nsid, e->job.result.bytes_in, e->stored,
		 (ctrl_now_ns() - cmd->start_ns) / 1000000,
		 e->canceled ? "canceled"
		 : value < 0 ? "failed"
			     : "done",
		 value < 0 ? " error=" : "",
		 value < 0 && strerrorname_np((int)-value) ? strerrorname_np((int)-value) : "");
}

static void finish(struct execution *e, uint16_t status, int64_t value)
{
	struct ctrl_lambda_server *ls = lambda_server(e->cmd->q->server);
	struct ctrl_cmd *cmd = e->cmd;
	struct execution **at;

	ctrl_timer_cancel(cmd->q->loop, &e->timer);
	if (!status)
		audit(e, value);
	pthread_mutex_lock(&e->cp->lock);
	for (at = &e->cp->executing; *at != e; at = &(*at)->next)
		;
	*at = e->next;
	e->slot->users--;
	if (e->set)
		e->set->users--;
	pthread_mutex_unlock(&e->cp->lock);
	ctrl_host_put(e->host);
	free(e);
	cmd->cqe.dw0 = nvme_put32((uint32_t)value);
	cmd->cqe.dw1 = nvme_put32((uint32_t)((uint64_t)value >> 32));
	ctrl_complete(cmd, status);
	lambda_live(ls, -1);
}

static void ready(struct ctrl_job *job)
{
	struct execution *e = (struct execution *)job;
	struct iovec out[2];
	int64_t value;
	size_t n;

	while ((n = ctrl_job_output(job, out))) {
		for (int i = 0; i < 2; i++)
			put_output(e, out[i].iov_base, out[i].iov_len);
		ctrl_job_consume(job, n);
	}
	if (e->overflown && !job->ended)
		ctrl_job_cancel(job);
	if (!job->ended)
		return;
	value = e->overflown ? -ENOSPC : job->result.error ? job->result.error : (int64_t)e->stored;
	turn_over(e->host, &e->turn);
	ctrl_job_release(job);
	finish(e, e->canceled, value);
}

static void start(struct execution *e)
{
	struct ctrl_error err = {0};
	int rc;

	e->job.threads = sched_share(&lambda_server(e->cmd->q->server)->sched);
	rc = e->canceled ? -ECANCELED : ctrl_job_start(&e->job, &err);
	if (!rc) {
		e->started = true;
		turn_started(e->host, &e->turn);
	} else if (rc == -EAGAIN) {
		ctrl_timer_arm(e->cmd->q->loop, &e->timer, RETRY_MS);
	} else {
		if (!e->canceled)
			ctrl_log(e->cmd->q->server, "event=execute-failed reason=\"%s\"", err.text);
		turn_over(e->host, &e->turn);
		finish(e, e->canceled ? e->canceled : NVME_SC_CP_RESOURCES, 0);
	}
}

static void start_again(struct ctrl_timer *t)
{
	start((struct execution *)((char *)t - offsetof(struct execution, timer)));
}

static void go(struct lambda_turn *t, int error)
{
	struct execution *e = (struct execution *)((char *)t - offsetof(struct execution, turn));

	if (error)
		finish(e, e->canceled, 0);
	else
		start(e);
}

static void cancel(struct execution *e, uint16_t status)
{
	e->canceled = status;
	if (e->started)
		ctrl_job_cancel(&e->job);
	else
		turn_withdraw(e->host, &e->turn); /* else it asks for a worker, or is told soon */
}

/* ---- the command ---- */

static uint16_t execute_prepare(struct ctrl_cmd *cmd)
{
	uint32_t cdw2 = nvme_get32(cmd->sqe.cdw2), n = nvme_get32(cmd->sqe.cdw3);
	uint32_t dlen = (uint32_t)nvme_get64(cmd->sqe.mptr);

	cmd->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	if (!cmd->ns)
		return NVME_SC_INVALID_NS;
	if (NVME_EXECUTE_PIND(cdw2) >= COMPUTE_PROGRAMS)
		return NVME_SC_CP_PROGRAM_INDEX;
	if (n > COMPUTE_RANGES)
		return NVME_SC_CP_MAX_RANGES;
	if ((n && NVME_EXECUTE_RSID(cdw2)) || (dlen && dlen != cmd->xfer_len) ||
	    cmd->xfer_len > ctrl_server_limits(cmd->q->server)->max_transfer ||
	    cmd->xfer_len < n * sizeof(struct nvme_memory_range))
		return NVME_SC_INVALID_FIELD;
	cmd->dir = cmd->xfer_len ? CTRL_TO_CONTROLLER : CTRL_NO_DATA;
	cmd->data_len = cmd->xfer_len;
	return NVME_SC_SUCCESS;
}

/* Under the namespace's lock: what the command names, and may it be used? */
static uint16_t acquire(struct execution *e)
{
	struct ctrl_cmd *cmd = e->cmd;
	uint32_t cdw2 = nvme_get32(cmd->sqe.cdw2), rsid = NVME_EXECUTE_RSID(cdw2);
	uint32_t n = nvme_get32(cmd->sqe.cdw3);
	const struct nvme_memory_range *ranges = (const struct nvme_memory_range *)cmd->data;
	uint16_t status;

	e->slot = &e->cp->slots[NVME_EXECUTE_PIND(cdw2)];
	if (rsid) {
		if (rsid > COMPUTE_RANGE_SETS || !e->cp->sets[rsid - 1].n)
			return NVME_SC_CP_RANGE_SET_ID;
		e->set = &e->cp->sets[rsid - 1];
		ranges = e->set->ranges;
		n = e->set->n;
	}
	if (e->slot->state != SLOT_LOADED)
		return NVME_SC_CP_NO_PROGRAM;
	if (!e->slot->active)
		return NVME_SC_CP_NOT_ACTIVE;
	status = compute_check_ranges(cmd->q->ctrl, ranges, n);
	if (!status)
		status = set_ranges(
			e, ranges, n,
			nvme_get32(cmd->sqe.cdw10) | (uint64_t)nvme_get32(cmd->sqe.cdw11) << 32,
			nvme_get32(cmd->sqe.cdw12) | (uint64_t)nvme_get32(cmd->sqe.cdw13) << 32);
	if (status)
		return status;
	e->job.program = e->slot->program;
	e->slot->users++;
	if (e->set)
		e->set->users++;
	e->next = e->cp->executing;
	e->cp->executing = e;
	return NVME_SC_SUCCESS;
}

static void describe_job(struct execution *e)
{
	const struct ctrl_cmd *cmd = e->cmd;
	uint32_t ranges = nvme_get32(cmd->sqe.cdw3) * (uint32_t)sizeof(struct nvme_memory_range);

	e->request = (struct nvme_lambda_request){
		.version = NVME_LAMBDA_VERSION, .op = NVME_LAMBDA_RUN, .length = UINT64_MAX};
	/* All budgets are the defaults, which are within the limits. */
	lambda_budgets(&e->request, ctrl_server_lambda(cmd->q->server), NULL);
	e->job.kind = CTRL_JOB_RUN;
	e->job.loop = cmd->q->loop;
	e->job.server = cmd->q->server;
	e->job.host = e->host;
	e->job.segments = e->in;
	e->job.n_segments = e->n_in;
	e->job.request = &e->request;
	e->job.arg = cmd->data ? cmd->data + ranges : NULL;
	e->job.arg_len = cmd->data_len - ranges;
	e->job.ready = ready;
}

static void execute_run(struct ctrl_cmd *cmd)
{
	struct ctrl_lambda_server *ls = lambda_server(cmd->q->server);
	struct execution *e = calloc(1, sizeof(*e));
	uint16_t status;

	if (!e) {
		ctrl_complete(cmd, NVME_SC_CP_RESOURCES);
		return;
	}
	e->cmd = cmd;
	e->cp = compute_of(cmd->ns);
	e->timer.fire = start_again;
	e->turn.job = &e->job;
	e->turn.go = go;
	e->host = ctrl_host_get(cmd->q->server, cmd->q->ctrl->hostnqn);
	if (!e->host) {
		status = NVME_SC_CP_RESOURCES;
	} else if (sched_full(&ls->sched, &e->host->sched)) {
		status = NVME_SC_LAMBDA_BUSY;
		cmd->cqe.dw0 = nvme_put32(COMPUTE_BUSY_MS);
	} else {
		pthread_mutex_lock(&e->cp->lock);
		status = acquire(e);
		pthread_mutex_unlock(&e->cp->lock);
	}
	if (status) {
		if (e->host)
			ctrl_host_put(e->host);
		free(e);
		ctrl_complete(cmd, status);
		return;
	}
	describe_job(e);
	lambda_live(ls, 1);
	if (turn_ask(e->host, cmd->q->loop, &e->turn))
		start(e);
}

/* The execution of @cmd, or any of @q's that is not cancelled yet. */
static struct execution *find(struct compute *cp, const struct ctrl_cmd *cmd,
			      const struct ctrl_queue *q)
{
	struct execution *e;

	pthread_mutex_lock(&cp->lock);
	for (e = cp->executing; e && (e->canceled || (cmd ? e->cmd != cmd : e->cmd->q != q));
	     e = e->next)
		;
	pthread_mutex_unlock(&cp->lock);
	return e;
}

static bool execute_abort(struct ctrl_cmd *cmd)
{
	struct execution *e = find(compute_of(cmd->ns), cmd, NULL);

	if (e)
		cancel(e, NVME_SC_ABORT_REQUESTED);
	return e;
}

void ctrl_compute_leave(struct ctrl_queue *q)
{
	struct execution *e;

	if (!q->ctrl)
		return;
	for (uint32_t i = 0; i < ctrl_subsystem_count(q->ctrl->sub); i++) {
		struct ctrl_namespace *ns = &q->ctrl->sub->ns[i];

		if (ns->store->geo.csi != NVME_CSI_CP)
			continue;
		if (!q->qid)
			compute_leave(compute_of(ns), q->ctrl);
		while ((e = find(compute_of(ns), NULL, q)))
			cancel(e, NVME_SC_ABORT_SQ_DELETED);
	}
}

static const struct ctrl_command commands[] = {
	{NVME_CP_EXECUTE, "execute-program", NVME_EFFECT_CONTENT, execute_prepare, execute_run,
	 .abort = execute_abort},
};
const struct ctrl_command_set ctrl_cp_set = {commands, sizeof(commands) / sizeof(*commands)};

/* ---- looking at what was loaded ---- */

struct look {
	struct program_check check; /* first */
	struct ctrl_cmd *cmd;
	struct compute *cp;
	struct compute_slot *slot;
	struct ctrl_host *host;
};

static void look_done(struct program_check *k, int error, struct ctrl_program *prog)
{
	struct look *l = (struct look *)k;
	struct ctrl_cmd *cmd = l->cmd;

	if (error)
		ctrl_log(cmd->q->server, "event=program-refused host=%s reason=\"%s\"",
			 cmd->q->ctrl->hostnqn, k->job.text);
	compute_checked(l->cp, l->slot, error ? NULL : prog);
	ctrl_host_put(l->host);
	free(l);
	ctrl_complete(cmd, error ? NVME_SC_CP_PROGRAM_DATA : NVME_SC_SUCCESS);
}

static int hash_of(int fd, size_t len, uint8_t hash[32])
{
	void *p;

	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	p = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	SHA256(p, len, hash);
	munmap(p, len);
	return 0;
}

void compute_check(struct ctrl_cmd *cmd, struct compute_slot *slot)
{
	struct compute *cp = compute_of(cmd->ns);
	struct look *l = calloc(1, sizeof(*l));
	struct ctrl_program *known;
	uint8_t hash[32];
	int fd;

	if (l)
		l->host = ctrl_host_get(cmd->q->server, cmd->q->ctrl->hostnqn);
	if (!l || !l->host || hash_of(slot->fd, slot->size, hash)) {
		if (l && l->host)
			ctrl_host_put(l->host);
		free(l);
		compute_checked(cp, slot, NULL);
		ctrl_complete(cmd, NVME_SC_CP_PROGRAM_RESOURCES);
		return;
	}
	l->cmd = cmd;
	l->cp = cp;
	l->slot = slot;
	known = ctrl_program_find(l->host, hash);
	if (known) {
		look_done(&l->check, 0, known);
		return;
	}
	fd = slot->fd;
	slot->fd = -1;
	l->check.loop = cmd->q->loop;
	l->check.host = l->host;
	l->check.done = look_done;
	program_check(&l->check, cmd->q->server, hash, fd, slot->size);
}
