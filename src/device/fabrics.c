/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fabrics.c - fabrics commands: Connect, and the controller's registers as properties.
 */
#include "device/ctrl.h"

#define CAP_TIMEOUT 30u /* to be ready, in units of 500 ms: 15 s, of which we need none */
#define CC_WRITABLE 0x00fffff1u

/* ---- Connect ---- */

static uint16_t connect_prepare(struct ctrl_cmd *cmd)
{
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = sizeof(struct nvme_connect_data);
	return NVME_SC_SUCCESS;
}

static void connect_run(struct ctrl_cmd *cmd)
{
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10), cdw11 = nvme_get32(cmd->sqe.cdw11), where = 0;
	uint16_t status = NVME_SC_CONNECT_FORMAT;

	if (!(cdw10 & 0xffff))
		status = ctrl_connect(cmd->q, (const struct nvme_connect_data *)cmd->data,
				      (uint16_t)(cdw10 >> 16), (uint16_t)cdw11,
				      (uint8_t)(cdw11 >> 16), nvme_get32(cmd->sqe.cdw12), &where);
	cmd->cqe.dw0 = nvme_put32(status ? where : cmd->q->ctrl->cntlid);
	cmd->cqe.sqid = nvme_put16(cmd->q->qid);
	ctrl_complete(cmd, status);
}

/* ---- Disconnect: of an I/O queue, and of it alone ---- */

static uint16_t disconnect_prepare(struct ctrl_cmd *cmd)
{
	if (!cmd->q->qid)
		return NVME_SC_INVALID_QUEUE_TYPE;
	return nvme_get32(cmd->sqe.cdw10) & 0xffff ? NVME_SC_CONNECT_FORMAT : NVME_SC_SUCCESS;
}

static void disconnect_run(struct ctrl_cmd *cmd)
{
	cmd->q->transport->disconnect(cmd);
}

/* ---- properties ---- */

static uint64_t capabilities(const struct ctrl_controller *c)
{
	const struct ctrl_limits *limits = ctrl_server_limits(c->sub->server);

	return (uint64_t)(limits->max_queue_entries - 1) | NVME_CAP_CQR |
	       (uint64_t)CAP_TIMEOUT << NVME_CAP_TO_SHIFT | NVME_CAP_CSS_NVM |
	       (c->sub->discovery ? 0 : NVME_CAP_CSS_IOCS);
}

static uint16_t property_read(const struct ctrl_controller *c, uint32_t offset, bool wide,
			      uint64_t *v)
{
	switch (offset) {
	case NVME_PROP_CAP:
		*v = capabilities(c);
		return wide ? NVME_SC_SUCCESS : NVME_SC_INVALID_FIELD;
	case NVME_PROP_VS:
		*v = NVME_VS_2_0;
		break;
	case NVME_PROP_CC:
		*v = c->cc;
		break;
	case NVME_PROP_CSTS:
		*v = c->csts;
		break;
	default:
		return NVME_SC_INVALID_FIELD;
	}
	return wide ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
}

static void property_get_run(struct ctrl_cmd *cmd)
{
	uint32_t size = nvme_get32(cmd->sqe.cdw10) & 0x7;
	uint16_t status = NVME_SC_INVALID_FIELD;
	uint64_t v = 0;

	if (size <= 1)
		status = property_read(cmd->q->ctrl, nvme_get32(cmd->sqe.cdw11), size, &v);
	if (!status) {
		cmd->cqe.dw0 = nvme_put32((uint32_t)v);
		cmd->cqe.dw1 = nvme_put32((uint32_t)(v >> 32));
	}
	ctrl_complete(cmd, status);
}

static void set_status(struct ctrl_controller *c, uint32_t clear, uint32_t set)
{
	pthread_mutex_lock(&c->sub->lock);
	c->csts = (c->csts & ~clear) | set;
	pthread_mutex_unlock(&c->sub->lock);
}

/* What Enable demands of the rest of CC (3.1.3.5): entry sizes, page size, arbitration, command sets. */
static bool enable_valid(const struct ctrl_controller *c, uint32_t cc)
{
	uint32_t css = NVME_CC_CSS(cc), page = cc >> 7 & 0xf, ams = cc >> 11 & 0x7;

	if (page || ams || (css && (css != NVME_CC_CSS_ALL || c->sub->discovery)))
		return false;
	return c->sub->discovery || ((cc >> 16 & 0xf) == 6 && (cc >> 20 & 0xf) == 4);
}

/* A shutdown writes back every namespace before it says that it is done. */
static void shutdown_step(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	struct ctrl_controller *c = cmd->q->ctrl;

	if (error)
		ctrl_log(cmd->q->server, "event=flush-failed nqn=%s nsid=%u error=%d", c->sub->nqn,
			 (unsigned int)cmd->step[0], -error);
	if (cmd->step[0] < ctrl_subsystem_count(c->sub)) {
		cmd->io = (struct ctrl_io){.op = CTRL_IO_FLUSH};
		ctrl_store_submit(cmd, c->sub->ns[cmd->step[0]++].store, shutdown_step);
		return;
	}
	set_status(c, 3u << 2, NVME_CSTS_SHST_DONE);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

static void configure(struct ctrl_cmd *cmd, uint32_t cc)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	uint32_t was = c->cc;

	pthread_mutex_lock(&c->sub->lock);
	c->cc = cc;
	pthread_mutex_unlock(&c->sub->lock);
	if (was & ~cc & NVME_CC_EN)
		ctrl_reset(c);
	if (~was & cc & NVME_CC_EN)
		set_status(c, NVME_CSTS_CFS, enable_valid(c, cc) ? NVME_CSTS_RDY : NVME_CSTS_CFS);
	if (NVME_CC_SHN(cc) && !NVME_CC_SHN(was)) {
		set_status(c, 3u << 2, 1u << 2);
		cmd->step[0] = 0;
		shutdown_step(&cmd->io, 0);
		return;
	}
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

static void property_set_run(struct ctrl_cmd *cmd)
{
	uint32_t value = nvme_get32(cmd->sqe.cdw12);

	if ((nvme_get32(cmd->sqe.cdw10) & 0x7) || nvme_get32(cmd->sqe.cdw11) != NVME_PROP_CC ||
	    (value & ~CC_WRITABLE))
		ctrl_complete(cmd, NVME_SC_INVALID_FIELD);
	else
		configure(cmd, value);
}

static uint16_t property_prepare(struct ctrl_cmd *cmd)
{
	return cmd->q->qid ? NVME_SC_INVALID_OPCODE : NVME_SC_SUCCESS;
}

static const struct ctrl_command commands[] = {
	{NVME_FABRICS_CONNECT, "connect", 0, connect_prepare, connect_run},
	{NVME_FABRICS_PROPERTY_GET, "property-get", 0, property_prepare, property_get_run},
	{NVME_FABRICS_PROPERTY_SET, "property-set", 0, property_prepare, property_set_run},
	{NVME_FABRICS_DISCONNECT, "disconnect", 0, disconnect_prepare, disconnect_run},
};
const struct ctrl_command_set ctrl_fabrics_set = {commands, sizeof(commands) / sizeof(*commands)};
