/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvm.c - commands of the NVM command set that are one request to a store, or the same over a list.
 *
 * Those that move data twice are in nvm_steps.c.  Block numbers are the host's to choose: every range is checked
 * against the namespace before any arithmetic that could wrap.
 */
#include <string.h>

#include "device/nvm.h"

/* ---- ranges ---- */

uint16_t nvm_range(const struct ctrl_namespace *ns, uint64_t slba, uint64_t blocks)
{
	uint64_t have = ctrl_namespace_blocks(ns);

	return slba > have || blocks > have - slba ? NVME_SC_LBA_RANGE : NVME_SC_SUCCESS;
}

uint64_t nvm_slba(const struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.cdw10) | (uint64_t)nvme_get32(cmd->sqe.cdw11) << 32;
}

uint32_t nvm_blocks(const struct ctrl_cmd *cmd)
{
	return (nvme_get32(cmd->sqe.cdw12) & 0xffff) + 1;
}

uint16_t nvm_namespace(struct ctrl_cmd *cmd, bool writes)
{
	cmd->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	if (!cmd->ns)
		return NVME_SC_INVALID_NS;
	if (writes && cmd->ns->store->geo.read_only)
		return NVME_SC_WRITE_PROTECTED;
	return NVME_SC_SUCCESS;
}

/* A range in CDW10-12, and nothing in CDW12 that is not offered: protection information, directives. */
uint16_t nvm_prepare(struct ctrl_cmd *cmd, bool writes, enum ctrl_direction dir)
{
	uint32_t cdw12 = nvme_get32(cmd->sqe.cdw12);
	uint16_t status = nvm_namespace(cmd, writes);
	uint64_t bytes;

	if (status)
		return status;
	bytes = (uint64_t)nvm_blocks(cmd) << cmd->ns->shift;
	if ((cdw12 & (NVM_PRINFO | NVM_DTYPE)) ||
	    (dir != CTRL_NO_DATA && bytes > ctrl_server_limits(cmd->q->server)->max_transfer))
		return NVME_SC_INVALID_FIELD;
	cmd->dir = dir;
	cmd->data_len = dir == CTRL_NO_DATA ? 0 : (uint32_t)bytes;
	return nvm_range(cmd->ns, nvm_slba(cmd), nvm_blocks(cmd));
}

bool nvm_durable(const struct ctrl_cmd *cmd)
{
	return (nvme_get32(cmd->sqe.cdw12) & NVME_RW_FUA) ||
	       atomic_load_explicit(&cmd->q->ctrl->no_cache, memory_order_relaxed);
}

void nvm_io(struct ctrl_cmd *cmd, const struct ctrl_io *io,
	    void (*done)(struct ctrl_io *io, int error))
{
	cmd->io = *io;
	if (cmd->io.iov.iov_base)
		cmd->io.iov.iov_len = cmd->io.len;
	ctrl_store_submit(cmd, cmd->ns->store, done);
}

/* The request was the whole command. */
static void finish(struct ctrl_io *io, int error)
{
	ctrl_complete(ctrl_cmd_of(io), ctrl_status_of(error, io->op));
}

void nvm_count(struct ctrl_cmd *cmd, bool write, uint64_t bytes)
{
	struct ctrl_controller *c = cmd->q->ctrl;

	atomic_fetch_add_explicit(write ? &c->writes : &c->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(write ? &c->write_units : &c->read_units, bytes / 512,
				  memory_order_relaxed);
}

/* ---- Read, Write ---- */

static uint16_t read_prepare(struct ctrl_cmd *cmd)
{
	return nvm_prepare(cmd, false, CTRL_TO_HOST);
}

static void read_run(struct ctrl_cmd *cmd)
{
	nvm_count(cmd, false, cmd->data_len);
	nvm_io(cmd,
	       &(struct ctrl_io){.op = CTRL_IO_READ,
				 .offset = nvm_slba(cmd) << cmd->ns->shift,
				 .len = cmd->data_len,
				 .iov.iov_base = cmd->data},
	       finish);
}

static uint16_t write_prepare(struct ctrl_cmd *cmd)
{
	return nvm_prepare(cmd, true, CTRL_TO_CONTROLLER);
}

static void write_run(struct ctrl_cmd *cmd)
{
	nvm_count(cmd, true, cmd->data_len);
	nvm_io(cmd,
	       &(struct ctrl_io){.op = CTRL_IO_WRITE,
				 .fua = nvm_durable(cmd),
				 .offset = nvm_slba(cmd) << cmd->ns->shift,
				 .len = cmd->data_len,
				 .iov.iov_base = cmd->data},
	       finish);
}

/* ---- Flush ---- */

static uint16_t flush_prepare(struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.nsid) == UINT32_MAX ? NVME_SC_SUCCESS
						       : nvm_namespace(cmd, false);
}

static void flush_step(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	struct ctrl_subsystem *sub = cmd->q->ctrl->sub;

	if (!error && cmd->step[0] < ctrl_subsystem_count(sub)) {
		cmd->ns = &sub->ns[cmd->step[0]++];
		nvm_io(cmd, &(struct ctrl_io){.op = CTRL_IO_FLUSH}, flush_step);
	} else {
		ctrl_complete(cmd, ctrl_status_of(error, CTRL_IO_FLUSH));
	}
}

static void flush_run(struct ctrl_cmd *cmd)
{
	cmd->step[0] = 0;
	if (cmd->ns)
		nvm_io(cmd, &(struct ctrl_io){.op = CTRL_IO_FLUSH}, finish);
	else
		flush_step(&cmd->io, 0);
}

/* ---- Write Zeroes ---- */

static uint16_t write_zeroes_prepare(struct ctrl_cmd *cmd)
{
	return nvm_prepare(cmd, true, CTRL_NO_DATA);
}

static void write_zeroes_run(struct ctrl_cmd *cmd)
{
	bool deallocate = nvme_get32(cmd->sqe.cdw12) & NVME_WZ_DEAC;
	bool durable = nvm_durable(cmd);

	nvm_count(cmd, true, 0);
	/* A deallocated range reads as zeros, where the store says so; but it cannot be made durable at once. */
	nvm_io(cmd,
	       &(struct ctrl_io){.op = deallocate && !durable && cmd->ns->store->geo.discard
					       ? CTRL_IO_DISCARD
					       : CTRL_IO_ZERO,
				 .fua = durable,
				 .offset = nvm_slba(cmd) << cmd->ns->shift,
				 .len = (uint64_t)nvm_blocks(cmd) << cmd->ns->shift},
	       finish);
}

/* ---- Dataset Management ---- */

#define DSM_DATA 4096u

static uint32_t dsm_ranges(const struct ctrl_cmd *cmd)
{
	return (nvme_get32(cmd->sqe.cdw10) & 0xff) + 1;
}

static uint16_t dsm_prepare(struct ctrl_cmd *cmd)
{
	uint16_t status = nvm_namespace(cmd, nvme_get32(cmd->sqe.cdw11) & NVME_DSM_AD);

	if (status)
		return status;
	/* Linux sends a whole page whatever the number of ranges. */
	if (cmd->xfer_len < dsm_ranges(cmd) * sizeof(struct nvme_dsm_range) ||
	    cmd->xfer_len > DSM_DATA)
		return NVME_SC_SGL_INVALID_DATA;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = cmd->xfer_len;
	return NVME_SC_SUCCESS;
}

static void dsm_step(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	const struct nvme_dsm_range *r = (const struct nvme_dsm_range *)cmd->data;

	while (!error && !cmd->aborted && cmd->step[0] < dsm_ranges(cmd)) {
		uint64_t i = cmd->step[0]++;

		if (!nvme_get32(r[i].nlb))
			continue;
		nvm_io(cmd,
		       &(struct ctrl_io){.op = CTRL_IO_DISCARD,
					 .offset = nvme_get64(r[i].slba) << cmd->ns->shift,
					 .len = (uint64_t)nvme_get32(r[i].nlb) << cmd->ns->shift},
		       dsm_step);
		return;
	}
	ctrl_complete(cmd, cmd->aborted ? NVME_SC_ABORT_REQUESTED
					: ctrl_status_of(error, CTRL_IO_DISCARD));
}

static void dsm_run(struct ctrl_cmd *cmd)
{
	const struct nvme_dsm_range *r = (const struct nvme_dsm_range *)cmd->data;
	uint16_t status = NVME_SC_SUCCESS;

	for (uint32_t i = 0; !status && i < dsm_ranges(cmd); i++)
		status = nvm_range(cmd->ns, nvme_get64(r[i].slba), nvme_get32(r[i].nlb));
	cmd->step[0] = 0;
	/* The other attributes are hints, and so is deallocating where the store cannot. */
	if (!status && (nvme_get32(cmd->sqe.cdw11) & NVME_DSM_AD) && cmd->ns->store->geo.discard)
		dsm_step(&cmd->io, 0);
	else
		ctrl_complete(cmd, status);
}

static const struct ctrl_command commands[] = {
	{NVME_NVM_FLUSH, "flush", 0, flush_prepare, flush_run},
	{NVME_NVM_WRITE, "write", NVME_EFFECT_CONTENT, write_prepare, write_run},
	{NVME_NVM_READ, "read", 0, read_prepare, read_run},
	{NVME_NVM_COMPARE, "compare", 0, nvm_compare_prepare, nvm_compare_run},
	{NVME_NVM_WRITE_ZEROES, "write-zeroes", NVME_EFFECT_CONTENT, write_zeroes_prepare,
	 write_zeroes_run},
	{NVME_NVM_DSM, "dataset-management", NVME_EFFECT_CONTENT, dsm_prepare, dsm_run},
	{NVME_NVM_VERIFY, "verify", 0, nvm_verify_prepare, nvm_verify_run},
	{NVME_NVM_COPY, "copy", NVME_EFFECT_CONTENT, nvm_copy_prepare, nvm_copy_run},
};
const struct ctrl_command_set ctrl_nvm_set = {commands, sizeof(commands) / sizeof(*commands)};
