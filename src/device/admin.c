/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.c - admin commands: Identify, event requests, Abort, Keep Alive, and the tables of all of them.
 *
 * Logs are in admin_log.c, features in admin_features.c.
 */
#include <string.h>

#include "device/compute.h"
#include "device/loop.h"
#include "nvme/lambda.h"

/* ---- Identify ---- */

static void put_text(char *to, size_t len, const char *text)
{
	size_t n = strlen(text);

	memset(to, ' ', len);
	memcpy(to, text, n < len ? n : len);
}

/* Largest transfer as a power of two of the smallest page (4 KiB, CAP.MPSMIN). */
static uint8_t mdts(const struct ctrl_limits *limits)
{
	uint8_t n = 0;

	while ((8192u << n) <= limits->max_transfer && n < 18)
		n++;
	return n;
}

static void identify_common(const struct ctrl_controller *c, struct nvme_id_ctrl *id)
{
	const struct ctrl_limits *limits = ctrl_server_limits(c->sub->server);

	put_text(id->sn, sizeof(id->sn), c->sub->serial);
	put_text(id->mn, sizeof(id->mn), c->sub->model);
	put_text(id->fr, sizeof(id->fr), LIO_VERSION);
	id->cmic = 0x02; /* there may be several controllers */
	id->mdts = mdts(limits);
	id->cntlid = nvme_put16(c->cntlid);
	id->ver = nvme_put32(NVME_VS_2_0);
	id->ctratt = nvme_put32(1u << 0 | 1u << 6); /* 128-bit host id; any command keeps alive */
	id->aerl = CTRL_MAX_AER - 1;
	id->elpe = sizeof(c->log) / sizeof(*c->log) - 1;
	id->lpa = 0x04; /* offsets and lengths of 32 bits */
	id->kas = nvme_put16(1);
	id->maxcmd = nvme_put16(limits->max_queue_entries);
	id->sgls = nvme_put32(1u << 0 | 1u << 20 | 1u << 21); /* offset and transport data blocks */
	memcpy(id->subnqn, c->sub->nqn, strlen(c->sub->nqn));
	id->ioccsz = nvme_put32((uint32_t)(sizeof(struct nvme_sqe) + limits->in_capsule) / 16);
	id->iorcsz = nvme_put32(sizeof(struct nvme_cqe) / 16);
	id->msdbd = 1;
}

static uint16_t identify_ctrl(struct ctrl_cmd *cmd, void *page)
{
	const struct ctrl_controller *c = cmd->q->ctrl;
	const struct nvme_lambda_identify lambda = {
		.magic = {'L', 'A', 'M', 'B', 'D', 'A', 'I', 'O'},
		.version_min = htole16(NVME_LAMBDA_VERSION),
		.version_max = htole16(NVME_LAMBDA_VERSION),
	};
	struct nvme_id_ctrl *id = page;

	identify_common(c, id);
	if (c->sub->discovery) {
		id->cntrltype = 2;
		return NVME_SC_SUCCESS;
	}
	id->cntrltype = 1;
	id->oaes = nvme_put32(1u << 8); /* namespace attribute notices */
	id->acl = CTRL_MAX_ABORTS - 1;
	id->frmw = 0x03; /* one slot, read only */
	id->lpa |= 0x02; /* command effects */
	id->sqes = 0x66;
	id->cqes = 0x44;
	id->nn = nvme_put32(CTRL_MAX_NAMESPACES); /* more may come at any time */
	id->mnan = id->nn;
	/* Compare, Dataset Management, Write Zeroes, Select in Get Features, Verify, Copy */
	id->oncs = nvme_put16(1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 7 | 1u << 8);
	id->ocfs = nvme_put16(1u << 0);
	id->ofcs = nvme_put16(1u << 0); /* Disconnect */
	/*
	 * Flush takes the NSID that means all.  A cache is there even if no namespace has one yet: hosts ask once,
	 * and would never flush one that comes later.
	 */
	id->vwc = 0x06 | 0x01;
	memcpy(id->vendor, &lambda, sizeof(lambda));
	return NVME_SC_SUCCESS;
}

/* No such namespace: zeros, as the page is, for a number that may come to have one. */
static uint16_t identify_inactive(const struct ctrl_cmd *cmd)
{
	uint32_t nsid = nvme_get32(cmd->sqe.nsid);

	return nsid && nsid <= CTRL_MAX_NAMESPACES ? NVME_SC_SUCCESS : NVME_SC_INVALID_NS;
}

static uint16_t identify_ns(struct ctrl_cmd *cmd, void *page)
{
	const struct ctrl_store_geometry *geo;
	const struct ctrl_namespace *ns = cmd->ns;
	struct nvme_id_ns *id = page;
	uint16_t preferred;
	uint64_t bytes;

	if (!ns)
		return identify_inactive(cmd);
	geo = &ns->store->geo;
	if (geo->csi != NVME_CSI_NVM)
		return NVME_SC_INVALID_COMMAND_SET;
	id->nsze = nvme_put64(ctrl_namespace_blocks(ns));
	id->ncap = id->nsze;
	id->nuse = id->nsze;
	id->nmic = 0x01; /* shared among controllers */
	id->dlfeat =
		geo->discard ? 0x9 : 0; /* deallocated blocks read as zeros; Write Zeroes too */
	bytes = htole64(ctrl_namespace_blocks(ns) << ns->shift);
	memcpy(id->nvmcap, &bytes, sizeof(bytes));
	if (geo->preferred > geo->block) {
		preferred = (uint16_t)((geo->preferred >> ns->shift) - 1);
		id->nsfeat |= 0x10; /* the five fields below hold */
		id->npwg = nvme_put16(preferred);
		id->npwa = nvme_put16(preferred);
		id->npdg = nvme_put16(preferred);
		id->npda = nvme_put16(preferred);
	}
	id->mssrl = nvme_put16((uint16_t)(CTRL_COPY_RANGE_BYTES >> ns->shift));
	id->mcl = nvme_put32(CTRL_COPY_BYTES >> ns->shift);
	id->msrc = CTRL_COPY_RANGES - 1;
	id->nsattr = geo->read_only ? 0x01 : 0; /* write protected */
	memcpy(id->nguid, ns->nguid, sizeof(id->nguid));
	id->lbaf[0].lbads = ns->shift;
	return NVME_SC_SUCCESS;
}

static uint16_t identify_ns_independent(struct ctrl_cmd *cmd, void *page)
{
	uint8_t *id = page;

	if (!cmd->ns)
		return identify_inactive(cmd);
	id[1] = 0x01;                                        /* NMIC: shared */
	id[8] = cmd->ns->store->geo.read_only ? 0x01 : 0x00; /* NSATTR */
	id[14] = 0x01;                                       /* NSTAT: ready */
	return NVME_SC_SUCCESS;
}

static uint16_t identify_active(struct ctrl_cmd *cmd, void *page)
{
	const struct ctrl_subsystem *sub = cmd->q->ctrl->sub;
	uint32_t after = nvme_get32(cmd->sqe.nsid), count = ctrl_subsystem_count(sub);
	nvme_le32 *list = page;

	if (after >= UINT32_MAX - 1)
		return NVME_SC_INVALID_NS;
	for (uint32_t n = 0; n < 1024 && after < count; n++)
		list[n] = nvme_put32(++after);
	return NVME_SC_SUCCESS;
}

static uint8_t *put_descriptor(uint8_t *at, enum nvme_nidt type, const void *id, uint8_t len)
{
	*(struct nvme_ns_descriptor *)at = (struct nvme_ns_descriptor){.nidt = type, .nidl = len};
	at += sizeof(struct nvme_ns_descriptor);
	memcpy(at, id, len);
	return at + len;
}

static uint16_t identify_descriptors(struct ctrl_cmd *cmd, void *page)
{
	uint8_t *at = page;

	if (!cmd->ns)
		return NVME_SC_INVALID_NS;
	at = put_descriptor(at, NVME_NIDT_NGUID, cmd->ns->nguid, sizeof(cmd->ns->nguid));
	at = put_descriptor(at, NVME_NIDT_UUID, cmd->ns->uuid, sizeof(cmd->ns->uuid));
	put_descriptor(at, NVME_NIDT_CSI, &cmd->ns->store->geo.csi, 1);
	return NVME_SC_SUCCESS;
}

static uint8_t asked_csi(const struct ctrl_cmd *cmd)
{
	return (uint8_t)(nvme_get32(cmd->sqe.cdw11) >> 24);
}

static uint16_t identify_csi_active(struct ctrl_cmd *cmd, void *page)
{
	const struct ctrl_subsystem *sub = cmd->q->ctrl->sub;
	uint32_t after = nvme_get32(cmd->sqe.nsid), count = ctrl_subsystem_count(sub), n = 0;
	nvme_le32 *list = page;

	if (after >= UINT32_MAX - 1)
		return NVME_SC_INVALID_NS;
	for (; n < 1024 && after < count; after++) {
		if (sub->ns[after].store->geo.csi == asked_csi(cmd))
			list[n++] = nvme_put32(after + 1);
	}
	return NVME_SC_SUCCESS;
}

/* What the NVM command set adds: no protection information, no limits of its own; all zeros. */
static uint16_t identify_csi_ns(struct ctrl_cmd *cmd, void *page)
{
	if (!cmd->ns)
		return identify_inactive(cmd);
	if (cmd->ns->store->geo.csi != asked_csi(cmd))
		return NVME_SC_INVALID_COMMAND_SET;
	if (asked_csi(cmd) == NVME_CSI_SLM)
		slm_identify(cmd->ns, page);
	else if (asked_csi(cmd) == NVME_CSI_CP)
		compute_identify(page);
	return NVME_SC_SUCCESS;
}

static uint16_t identify_csi_ctrl(struct ctrl_cmd *cmd, void *page)
{
	return NVME_SC_SUCCESS;
}

static uint16_t identify_command_sets(struct ctrl_cmd *cmd, void *page)
{
	uint16_t cntlid = (uint16_t)(nvme_get32(cmd->sqe.cdw10) >> 16);
	nvme_le64 *vectors = page;

	if (cntlid != 0xffff && cntlid != cmd->q->ctrl->cntlid)
		return NVME_SC_INVALID_FIELD;
	vectors[0] = nvme_put64(1u << NVME_CSI_NVM | 1u << NVME_CSI_SLM | 1u << NVME_CSI_CP);
	return NVME_SC_SUCCESS;
}

static const struct {
	uint8_t cns;
	bool per_set;   /* CSI counts */
	bool discovery; /* also of a discovery controller */
	uint16_t (*fill)(struct ctrl_cmd *cmd, void *page);
} identifies[] = {
	{NVME_CNS_NS, false, false, identify_ns},
	{NVME_CNS_CTRL, false, true, identify_ctrl},
	{NVME_CNS_ACTIVE_NS, false, false, identify_active},
	{NVME_CNS_NS_DESCRIPTORS, false, false, identify_descriptors},
	{NVME_CNS_CSI_NS, true, false, identify_csi_ns},
	{NVME_CNS_CSI_CTRL, true, false, identify_csi_ctrl},
	{NVME_CNS_CSI_ACTIVE_NS, true, false, identify_csi_active},
	{NVME_CNS_CSI_INDEPENDENT_NS, false, false, identify_ns_independent},
	{NVME_CNS_COMMAND_SETS, false, false, identify_command_sets},
};

static uint16_t identify_prepare(struct ctrl_cmd *cmd)
{
	cmd->dir = CTRL_TO_HOST;
	cmd->data_len = sizeof(struct nvme_id_ctrl);
	return NVME_SC_SUCCESS;
}

static void identify_run(struct ctrl_cmd *cmd)
{
	uint8_t cns = nvme_get32(cmd->sqe.cdw10) & 0xff;
	uint16_t status = NVME_SC_INVALID_FIELD;

	cmd->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	memset(cmd->data, 0, cmd->data_len);
	for (size_t i = 0; i < sizeof(identifies) / sizeof(*identifies); i++) {
		if (identifies[i].cns != cns ||
		    (cmd->q->ctrl->sub->discovery && !identifies[i].discovery) ||
		    (identifies[i].per_set && !ctrl_csi_known(asked_csi(cmd))))
			continue;
		status = identifies[i].fill(cmd, cmd->data);
		break;
	}
	ctrl_complete(cmd, status);
}

/* ---- events, Keep Alive ---- */

static void async_event_run(struct ctrl_cmd *cmd)
{
	struct ctrl_controller *c = cmd->q->ctrl;

	if (c->n_aer == CTRL_MAX_AER) {
		ctrl_complete(cmd, NVME_SC_AER_LIMIT);
		return;
	}
	cmd->q->parked++;
	c->aer[c->n_aer++] = cmd;
	ctrl_events_flush(c);
}

static void keep_alive_run(struct ctrl_cmd *cmd)
{
	ctrl_events_flush(cmd->q->ctrl);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

/* ---- Abort ---- */

static void abort_finish(struct ctrl_cmd *cmd, bool aborted)
{
	cmd->q->ctrl->n_aborts--;
	cmd->cqe.dw0 = nvme_put32(aborted ? 0 : 1);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

static void abort_answer(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	abort_finish(cmd, cmd->step[0]);
}

/* On the loop of the queue whose command is meant: so the queue, if it is found, stays meanwhile. */
static void abort_there(void *arg)
{
	struct ctrl_cmd *cmd = arg, *target = NULL;
	struct ctrl_controller *c = cmd->q->ctrl;
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10);
	struct ctrl_queue *q;

	pthread_mutex_lock(&c->sub->lock);
	for (q = c->queues; q && q->qid != (cdw10 & 0xffff); q = q->next)
		;
	pthread_mutex_unlock(&c->sub->lock);
	if (q && ctrl_loop_is_current(q->loop))
		target = q->transport->find(q, (uint16_t)(cdw10 >> 16));
	if (target) {
		target->aborted = true;
		cmd->step[0] = q->transport->abort(target) ||
			       (target->row && target->row->abort && target->row->abort(target));
	}
	ctrl_loop_return(&cmd->io, 0);
}

static bool abort_event_request(struct ctrl_controller *c, uint16_t cid)
{
	for (uint32_t i = 0; i < c->n_aer; i++) {
		struct ctrl_cmd *cmd = c->aer[i];

		if (nvme_get16(cmd->sqe.cid) != cid)
			continue;
		c->aer[i] = c->aer[--c->n_aer];
		cmd->q->parked--;
		ctrl_complete(cmd, NVME_SC_ABORT_REQUESTED);
		return true;
	}
	return false;
}

static void abort_run(struct ctrl_cmd *cmd)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10);
	struct ctrl_loop *there = NULL;

	if (c->n_aborts == CTRL_MAX_ABORTS) {
		ctrl_complete(cmd, NVME_SC_ABORT_LIMIT);
		return;
	}
	c->n_aborts++;
	if (!(cdw10 & 0xffff) && abort_event_request(c, (uint16_t)(cdw10 >> 16))) {
		abort_finish(cmd, true);
		return;
	}
	pthread_mutex_lock(&c->sub->lock);
	for (struct ctrl_queue *q = c->queues; q; q = q->next) {
		if (q->qid == (cdw10 & 0xffff))
			there = q->loop;
	}
	pthread_mutex_unlock(&c->sub->lock);
	cmd->step[0] = 0;
	/* The way back is a store request's, which needs no memory: an Abort is always answered. */
	cmd->io = (struct ctrl_io){.loop = cmd->q->loop, .done = abort_answer};
	if (!there || ctrl_loop_post(there, abort_there, cmd))
		abort_finish(cmd, false);
	else
		ctrl_loop_sent(cmd->q->loop);
}

/* ---- tables ---- */

#define GET_LOG  {NVME_ADMIN_GET_LOG_PAGE, "get-log-page", 0, ctrl_log_prepare, ctrl_log_run}
#define IDENTIFY {NVME_ADMIN_IDENTIFY, "identify", 0, identify_prepare, identify_run}
#define SET_FEATURES                                                            \
	{NVME_ADMIN_SET_FEATURES, "set-features", 0, ctrl_set_features_prepare, \
	 ctrl_set_features_run}
#define GET_FEATURES                                                            \
	{NVME_ADMIN_GET_FEATURES, "get-features", 0, ctrl_get_features_prepare, \
	 ctrl_get_features_run}
#define ASYNC_EVENT {NVME_ADMIN_ASYNC_EVENT, "async-event", 0, NULL, async_event_run}
#define KEEP_ALIVE  {NVME_ADMIN_KEEP_ALIVE, "keep-alive", 0, NULL, keep_alive_run}

static const struct ctrl_command admin_commands[] = {
	GET_LOG,
	IDENTIFY,
	{NVME_ADMIN_ABORT, "abort", 0, NULL, abort_run},
	SET_FEATURES,
	GET_FEATURES,
	ASYNC_EVENT,
	KEEP_ALIVE,
	{NVME_ADMIN_LOAD_PROGRAM, "load-program", 0, compute_load_prepare, compute_load_run},
	{NVME_ADMIN_ACTIVATE_PROGRAM, "activate-program", 0, compute_activate_prepare,
	 compute_activate_run},
	{NVME_ADMIN_MEMORY_RANGE_SET, "memory-range-set", 0, compute_sets_prepare,
	 compute_sets_run},
};
const struct ctrl_command_set ctrl_admin_set = {admin_commands,
						sizeof(admin_commands) / sizeof(*admin_commands)};

static const struct ctrl_command discovery_commands[] = {
	GET_LOG, IDENTIFY, SET_FEATURES, GET_FEATURES, ASYNC_EVENT, KEEP_ALIVE,
};
const struct ctrl_command_set ctrl_discovery_set = {
	discovery_commands, sizeof(discovery_commands) / sizeof(*discovery_commands)};
