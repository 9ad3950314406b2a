/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvm_steps.c - Compare, Verify and Copy: commands that read the medium piece by piece into a buffer of their own.
 */
#include <string.h>

#include "device/nvm.h"

#define PIECE (128u << 10)

/* The buffer behind the data, for pieces. */
static void want_pieces(struct ctrl_cmd *cmd, uint64_t bytes)
{
	cmd->aux_len = bytes < PIECE ? (uint32_t)bytes : PIECE;
}

/* ---- Compare and Verify: step[0] is what is done, step[1] the whole ---- */

static void read_step(struct ctrl_io *io, int error);

static void read_next(struct ctrl_cmd *cmd)
{
	uint64_t left = cmd->step[1] - cmd->step[0];

	if (cmd->aborted || !left) {
		ctrl_complete(cmd, cmd->aborted ? NVME_SC_ABORT_REQUESTED : NVME_SC_SUCCESS);
		return;
	}
	nvm_io(cmd,
	       &(struct ctrl_io){.op = CTRL_IO_READ,
				 .offset = (nvm_slba(cmd) << cmd->ns->shift) + cmd->step[0],
				 .len = left < cmd->aux_len ? left : cmd->aux_len,
				 .iov.iov_base = cmd->aux},
	       read_step);
}

static void read_step(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	if (error) {
		ctrl_complete(cmd, ctrl_status_of(error, CTRL_IO_READ));
		return;
	}
	if (cmd->dir == CTRL_TO_CONTROLLER &&
	    memcmp(cmd->data + cmd->step[0], cmd->aux, io->len) != 0) {
		ctrl_complete(cmd, NVME_SC_COMPARE_FAILED);
		return;
	}
	cmd->step[0] += io->len;
	read_next(cmd);
}

static void read_all(struct ctrl_cmd *cmd)
{
	cmd->step[0] = 0;
	cmd->step[1] = (uint64_t)nvm_blocks(cmd) << cmd->ns->shift;
	nvm_count(cmd, false, cmd->step[1]);
	read_next(cmd);
}

uint16_t nvm_compare_prepare(struct ctrl_cmd *cmd)
{
	uint16_t status = nvm_prepare(cmd, false, CTRL_TO_CONTROLLER);

	want_pieces(cmd, cmd->data_len);
	return status;
}

void nvm_compare_run(struct ctrl_cmd *cmd)
{
	read_all(cmd);
}

uint16_t nvm_verify_prepare(struct ctrl_cmd *cmd)
{
	uint16_t status = nvm_prepare(cmd, false, CTRL_NO_DATA);

	if (!status)
		want_pieces(cmd, (uint64_t)nvm_blocks(cmd) << cmd->ns->shift);
	return status;
}

void nvm_verify_run(struct ctrl_cmd *cmd)
{
	read_all(cmd);
}

/* ---- Copy: step[0] is the range, step[1] the blocks of it that are done, step[2] the next destination ---- */

static uint32_t copy_ranges(const struct ctrl_cmd *cmd)
{
	return (nvme_get32(cmd->sqe.cdw12) & 0xff) + 1;
}

static const struct nvme_copy_range *copy_range(const struct ctrl_cmd *cmd, uint64_t i)
{
	return (const struct nvme_copy_range *)cmd->data + i;
}

uint16_t nvm_copy_prepare(struct ctrl_cmd *cmd)
{
	uint32_t cdw12 = nvme_get32(cmd->sqe.cdw12);
	uint16_t status = nvm_namespace(cmd, true);

	if (status)
		return status;
	/* Format 0 (bits 11:8), no protection information for reading (15:12) or writing. */
	if ((cdw12 & 0xff00) || (cdw12 & (NVM_PRINFO | NVM_DTYPE)))
		return NVME_SC_INVALID_FIELD;
	if (copy_ranges(cmd) > CTRL_COPY_RANGES)
		return NVME_SC_COMMAND_SIZE_LIMIT;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = copy_ranges(cmd) * sizeof(struct nvme_copy_range);
	want_pieces(cmd, PIECE);
	return NVME_SC_SUCCESS;
}

static uint16_t copy_check(const struct ctrl_cmd *cmd)
{
	uint64_t to = nvm_slba(cmd), total = 0;
	uint16_t status;

	for (uint32_t i = 0; i < copy_ranges(cmd); i++) {
		uint32_t blocks = nvme_get16(copy_range(cmd, i)->nlb) + 1u;

		if (blocks > CTRL_COPY_RANGE_BYTES >> cmd->ns->shift)
			return NVME_SC_COMMAND_SIZE_LIMIT;
		total += blocks;
		status = nvm_range(cmd->ns, nvme_get64(copy_range(cmd, i)->slba), blocks);
		if (status)
			return status;
	}
	if (total > CTRL_COPY_BYTES >> cmd->ns->shift)
		return NVME_SC_COMMAND_SIZE_LIMIT;
	status = nvm_range(cmd->ns, to, total);
	for (uint32_t i = 0; !status && i < copy_ranges(cmd); i++) {
		uint64_t from = nvme_get64(copy_range(cmd, i)->slba);

		if (from < to + total && to < from + nvme_get16(copy_range(cmd, i)->nlb) + 1u)
			status = NVME_SC_OVERLAPPING_IO;
	}
	return status;
}

static void copy_wrote(struct ctrl_io *io, int error);
static void copy_have(struct ctrl_io *io, int error);

static void copy_next(struct ctrl_cmd *cmd)
{
	const struct nvme_copy_range *r;
	uint64_t left;

	if (cmd->aborted || cmd->step[0] == copy_ranges(cmd)) {
		/* How many ranges were copied, should it matter. */
		cmd->cqe.dw0 = nvme_put32((uint32_t)cmd->step[0]);
		ctrl_complete(cmd, cmd->aborted ? NVME_SC_ABORT_REQUESTED : NVME_SC_SUCCESS);
		return;
	}
	r = copy_range(cmd, cmd->step[0]);
	left = (nvme_get16(r->nlb) + 1u - cmd->step[1]) << cmd->ns->shift;
	nvm_io(cmd,
	       &(struct ctrl_io){.op = CTRL_IO_READ,
				 .offset = (nvme_get64(r->slba) + cmd->step[1]) << cmd->ns->shift,
				 .len = left < cmd->aux_len ? left : cmd->aux_len,
				 .iov.iov_base = cmd->aux},
	       copy_have);
}

static void copy_fail(struct ctrl_cmd *cmd, int error, enum ctrl_io_op op)
{
	cmd->cqe.dw0 = nvme_put32((uint32_t)cmd->step[0]);
	ctrl_complete(cmd, ctrl_status_of(error, op));
}

static void copy_have(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	if (error) {
		copy_fail(cmd, error, CTRL_IO_READ);
		return;
	}
	nvm_io(cmd,
	       &(struct ctrl_io){.op = CTRL_IO_WRITE,
				 .fua = nvm_durable(cmd),
				 .offset = cmd->step[2] << cmd->ns->shift,
				 .len = io->len,
				 .iov.iov_base = cmd->aux},
	       copy_wrote);
}

static void copy_wrote(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	if (error) {
		copy_fail(cmd, error, CTRL_IO_WRITE);
		return;
	}
	nvm_count(cmd, true, io->len);
	cmd->step[1] += io->len >> cmd->ns->shift;
	cmd->step[2] += io->len >> cmd->ns->shift;
	if (cmd->step[1] == nvme_get16(copy_range(cmd, cmd->step[0])->nlb) + 1u) {
		cmd->step[0]++;
		cmd->step[1] = 0;
	}
	copy_next(cmd);
}

void nvm_copy_run(struct ctrl_cmd *cmd)
{
	uint16_t status = copy_check(cmd);

	if (status) {
		ctrl_complete(cmd, status);
		return;
	}
	cmd->step[0] = 0;
	cmd->step[1] = 0;
	cmd->step[2] = nvm_slba(cmd);
	copy_next(cmd);
}
