/* SPDX-License-Identifier: Apache-2.0 */
/*
 * execute.c - a command's life between transport and store: finding its row, checking what all commands
 * share, and ending it with a status.
 *
 * Owns: looking up and the fields common to all commands.  Does not own: what a command means.
 */
#include <errno.h>

#include "device/compute.h"
#include "nvme/status.h"

const struct ctrl_io_set ctrl_io_sets[CTRL_IO_SETS] = {
	{NVME_CSI_NVM, &ctrl_nvm_set}, {-1, &ctrl_lambda_set},      {-1, &ctrl_object_set},
	{NVME_CSI_SLM, &ctrl_slm_set}, {NVME_CSI_CP, &ctrl_cp_set},
};

bool ctrl_csi_known(uint8_t csi)
{
	for (uint32_t i = 0; i < CTRL_IO_SETS; i++) {
		if (ctrl_io_sets[i].csi == csi)
			return true;
	}
	return false;
}

static const struct ctrl_command *row_find(const struct ctrl_command_set *set, uint8_t opcode)
{
	for (uint32_t i = 0; i < set->n; i++) {
		if (set->rows[i].opcode == opcode)
			return &set->rows[i];
	}
	return NULL;
}

/* By what the namespace is; no namespace, or all of them, is for the NVM command set to judge. */
static const struct ctrl_command *io_row_find(const struct ctrl_cmd *cmd)
{
	const struct ctrl_namespace *ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	int csi = ns ? ns->store->geo.csi : NVME_CSI_NVM;
	const struct ctrl_command *row = NULL;

	for (uint32_t i = 0; !row && i < CTRL_IO_SETS; i++) {
		if (ctrl_io_sets[i].csi < 0 || ctrl_io_sets[i].csi == csi)
			row = row_find(ctrl_io_sets[i].set, cmd->sqe.opcode);
	}
	return row;
}

/* Which table, and which number in it. */
static uint16_t find(struct ctrl_cmd *cmd)
{
	const struct ctrl_queue *q = cmd->q;
	const struct ctrl_command_set *set = NULL;
	uint8_t opcode = cmd->sqe.opcode;

	if (opcode == NVME_FABRICS) {
		opcode = nvme_get32(cmd->sqe.nsid) & 0xff;
		if (!q->ctrl != (opcode == NVME_FABRICS_CONNECT))
			return NVME_SC_COMMAND_SEQUENCE;
		set = &ctrl_fabrics_set;
	} else if (!q->ctrl) {
		return NVME_SC_COMMAND_SEQUENCE;
	} else if (!q->qid) {
		set = q->ctrl->sub->discovery ? &ctrl_discovery_set : &ctrl_admin_set;
		/* Only the admin queue's thread changes it. */
		if (!(q->ctrl->csts & NVME_CSTS_RDY))
			return NVME_SC_COMMAND_SEQUENCE;
	}
	cmd->row = set ? row_find(set, opcode) : io_row_find(cmd);
	return cmd->row ? NVME_SC_SUCCESS : NVME_SC_INVALID_OPCODE;
}

/* The one descriptor in the command: how long the host's data is, and where. */
static uint16_t check_sgl(struct ctrl_cmd *cmd)
{
	const struct nvme_sgl *sgl = &cmd->sqe.sgl;

	cmd->xfer_len = nvme_get32(sgl->length);
	switch (sgl->type) {
	case NVME_SGL_TRANSPORT_DATA:
		return cmd->capsule_len ? NVME_SC_SGL_INVALID_TYPE : NVME_SC_SUCCESS;
	case NVME_SGL_DATA_OFFSET:
		if (nvme_get64(sgl->addr))
			return NVME_SC_SGL_INVALID_OFFSET;
		if (cmd->xfer_len != cmd->capsule_len)
			return NVME_SC_SGL_INVALID_DATA;
		return NVME_SC_SUCCESS;
	default:
		return NVME_SC_SGL_INVALID_TYPE;
	}
}

uint16_t ctrl_submit(struct ctrl_cmd *cmd)
{
	uint16_t status = find(cmd);

	if (status)
		return status;
	/* No fused commands; and over a fabric there are SGLs only. */
	if (cmd->sqe.flags != NVME_PSDT_SGL)
		return NVME_SC_INVALID_FIELD;
	status = check_sgl(cmd);
	if (!status && cmd->row->prepare)
		status = cmd->row->prepare(cmd);
	if (status)
		return status;
	if (cmd->xfer_len != cmd->data_len)
		return NVME_SC_SGL_INVALID_DATA;
	if (cmd->capsule_len && cmd->dir != CTRL_TO_CONTROLLER)
		return NVME_SC_SGL_INVALID_TYPE;
	return NVME_SC_SUCCESS;
}

void ctrl_run(struct ctrl_cmd *cmd)
{
	cmd->row->run(cmd);
}

void ctrl_cmd_want_data(struct ctrl_cmd *cmd)
{
	cmd->q->transport->want_data(cmd);
}

static void log_error(struct ctrl_cmd *cmd, uint16_t status)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	struct nvme_log_error *e;

	pthread_mutex_lock(&c->sub->lock);
	e = &c->log[c->log_at++ % (sizeof(c->log) / sizeof(*c->log))];
	*e = (struct nvme_log_error){
		.count = nvme_put64(atomic_fetch_add(&c->errors, 1) + 1),
		.sqid = nvme_put16(cmd->q->qid),
		.cid = cmd->sqe.cid,
		.status = nvme_put16((uint16_t)(status << 1)),
		.parameter = nvme_put16(0xffff),
		.lba = nvme_put64(cmd->ns ? nvme_get32(cmd->sqe.cdw10) |
						    (uint64_t)nvme_get32(cmd->sqe.cdw11) << 32
					  : 0),
		.nsid = cmd->sqe.nsid,
		.trtype = NVME_TRTYPE_TCP,
	};
	pthread_mutex_unlock(&c->sub->lock);
}

void ctrl_complete(struct ctrl_cmd *cmd, uint16_t status)
{
	if (status) {
		const struct nvme_status_info *info =
			nvme_status_find(status, cmd->sqe.opcode == NVME_FABRICS);

		if (!info || !info->retry)
			status |= NVME_DNR;
		if (cmd->q->ctrl)
			log_error(cmd, status);
	}
	cmd->cqe.status = nvme_put16((uint16_t)(status << 1));
	ctrl_server_count(cmd, status);
	cmd->q->transport->complete(cmd);
}

uint16_t ctrl_status_of(int error, enum ctrl_io_op op)
{
	switch (error) {
	case 0:
		return NVME_SC_SUCCESS;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return NVME_SC_CAPACITY;
	case -EROFS:
	case -EPERM:
	case -EACCES:
	case -EBADF:
		return NVME_SC_WRITE_PROTECTED;
	case -ENOMEM:
	case -EAGAIN:
	case -EBUSY:
		return NVME_SC_INTERNAL;
	default:
		return op == CTRL_IO_READ ? NVME_SC_READ_ERROR : NVME_SC_WRITE_FAULT;
	}
}

struct ctrl_cmd *ctrl_cmd_of(struct ctrl_io *io)
{
	return (struct ctrl_cmd *)((char *)io - offsetof(struct ctrl_cmd, io));
}

void ctrl_store_submit(struct ctrl_cmd *cmd, struct ctrl_store *store,
		       void (*done)(struct ctrl_io *io, int error))
{
	cmd->io.loop = cmd->q->loop;
	cmd->io.done = done;
	store->ops->submit(store, &cmd->io);
}
