/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slm.c - "slm:SIZE": a namespace of local memory (CSI 3), addressed by byte: Read, Write, Fill and Copy.
 *
 * Owns: the memory, and the commands on it.  Does not own: programs that work on it (compute.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/compute.h"
#include "device/loop.h"
#include "device/nvm.h"

#define PAGE 4096u
/* What is moved on the loop's own thread; more goes to the pool. */
#define INLINE_BYTES (64u << 10)
/* Blocks are read in pieces of so much. */
#define PIECE (128u << 10)

struct slm {
	struct ctrl_store store;
	uint8_t *base;
	int fd, read_fd;
};

static struct slm *slm_of(const struct ctrl_namespace *ns)
{
	return (struct slm *)ns->store;
}

uint8_t *slm_base(const struct ctrl_namespace *ns)
{
	return slm_of(ns)->base;
}

int slm_descriptor(const struct ctrl_namespace *ns)
{
	return slm_of(ns)->read_fd;
}

uint64_t slm_bytes(const struct ctrl_namespace *ns)
{
	return ns->store->geo.bytes;
}

void slm_identify(const struct ctrl_namespace *ns, struct nvme_id_ns_slm *id)
{
	id->bytes = nvme_put64(slm_bytes(ns));
	id->granularity = nvme_put32(4);
	id->max_copy = nvme_put32(CTRL_COPY_BYTES);
	id->max_sources = nvme_put16(CTRL_COPY_RANGES);
}

/* ---- the store ---- */

static int slm_map(struct slm *slm, uint64_t bytes)
{
	char path[64];

	slm->fd = memfd_create("slm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (slm->fd < 0 || ftruncate(slm->fd, (off_t)bytes) ||
	    fcntl(slm->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	slm->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, slm->fd, 0);
	if (slm->base == MAP_FAILED)
		return -errno;
	/* Opened once more, so that whoever gets this one cannot write through it. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", slm->fd);
	slm->read_fd = open(path, O_RDONLY | O_CLOEXEC);
	return slm->read_fd < 0 ? -errno : 0;
}

static void slm_close(struct ctrl_store *store)
{
	struct slm *slm = (struct slm *)store;

	if (slm->base != MAP_FAILED)
		munmap(slm->base, slm->store.geo.bytes);
	if (slm->read_fd >= 0)
		close(slm->read_fd);
	if (slm->fd >= 0)
		close(slm->fd);
	ctrl_pool_unref();
	free(slm->store.how);
	free(slm);
}

static int slm_open(const char *spec, bool read_only, struct ctrl_store **out,
		    struct ctrl_error *err)
{
	struct slm *slm;
	uint64_t bytes;
	int rc;

	if (read_only)
		return ctrl_fail(err, -EINVAL, "slm:%s: memory is for writing; leave away ',ro'",
				 spec);
	if (ctrl_parse_size(spec, &bytes) || bytes < PAGE || bytes % PAGE || bytes > INT64_MAX / 2)
		return ctrl_fail(err, -EINVAL,
				 "slm:%s: no size in whole 4 KiB pages; write slm:64M", spec);
	slm = calloc(1, sizeof(*slm));
	if (!slm)
		return ctrl_fail(err, -ENOMEM, "slm:%s: out of memory", spec);
	slm->base = MAP_FAILED;
	slm->fd = slm->read_fd = -1;
	slm->store.ops = &ctrl_store_slm;
	slm->store.how = strdup("local memory");
	slm->store.geo = (struct ctrl_store_geometry){
		.bytes = bytes, .block = PAGE, .preferred = PAGE, .csi = NVME_CSI_SLM};
	ctrl_pool_ref();
	rc = slm_map(slm, bytes);
	if (rc) {
		slm_close(&slm->store);
		return ctrl_fail(err, rc, "slm:%s: no memory of that size: %s; use less", spec,
				 strerrordesc_np(-rc));
	}
	*out = &slm->store;
	return 0;
}

/* Commands that move blocks do not come here: the namespace's CSI sends them to the table below. */
static void slm_submit(struct ctrl_store *store, struct ctrl_io *io)
{
	ctrl_loop_finish(io, io->op == CTRL_IO_FLUSH ? 0 : -EOPNOTSUPP);
}

const struct ctrl_store_ops ctrl_store_slm = {
	.name = "slm",
	.help = "slm:SIZE: local memory for programs, lost when the server ends",
	.open = slm_open,
	.close = slm_close,
	.submit = slm_submit,
};

/* ---- Read, Write, Fill ---- */

static uint64_t first_byte(const struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.cdw10) | (uint64_t)nvme_get32(cmd->sqe.cdw11) << 32;
}

static uint16_t check_bytes(const struct ctrl_namespace *ns, uint64_t at, uint64_t len)
{
	uint64_t have = slm_bytes(ns);

	if (at % 4 || len % 4)
		return NVME_SC_INVALID_FIELD;
	return at > have || len > have - at ? NVME_SC_LBA_RANGE : NVME_SC_SUCCESS;
}

static uint16_t move_prepare(struct ctrl_cmd *cmd, enum ctrl_direction dir)
{
	uint32_t len = nvme_get32(cmd->sqe.cdw12);

	cmd->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	if (!cmd->ns)
		return NVME_SC_INVALID_NS;
	if (dir != CTRL_NO_DATA && len > ctrl_server_limits(cmd->q->server)->max_transfer)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = len ? dir : CTRL_NO_DATA;
	cmd->data_len = dir == CTRL_NO_DATA ? 0 : len;
	return check_bytes(cmd->ns, first_byte(cmd), len);
}

static uint16_t read_prepare(struct ctrl_cmd *cmd)
{
	return move_prepare(cmd, CTRL_TO_HOST);
}

static void read_run(struct ctrl_cmd *cmd)
{
	memcpy(cmd->data, slm_base(cmd->ns) + first_byte(cmd), cmd->data_len);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

static uint16_t write_prepare(struct ctrl_cmd *cmd)
{
	return move_prepare(cmd, CTRL_TO_CONTROLLER);
}

static void write_run(struct ctrl_cmd *cmd)
{
	memcpy(slm_base(cmd->ns) + first_byte(cmd), cmd->data, cmd->data_len);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

static uint16_t fill_prepare(struct ctrl_cmd *cmd)
{
	if (nvme_get32(cmd->sqe.cdw13) > 0xff)
		return NVME_SC_INVALID_FIELD;
	return move_prepare(cmd, CTRL_NO_DATA);
}

static int fill_work(struct ctrl_io *io)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	memset(slm_base(cmd->ns) + io->offset, (int)(nvme_get32(cmd->sqe.cdw13) & 0xff), io->len);
	return 0;
}

static void fill_done(struct ctrl_io *io, int error)
{
	ctrl_complete(ctrl_cmd_of(io), ctrl_status_of(error, CTRL_IO_WRITE));
}

static void fill_run(struct ctrl_cmd *cmd)
{
	cmd->io = (struct ctrl_io){.op = CTRL_IO_ZERO,
				   .offset = first_byte(cmd),
				   .len = nvme_get32(cmd->sqe.cdw12),
				   .loop = cmd->q->loop,
				   .done = fill_done,
				   .store = cmd->ns->store};
	if (cmd->io.len > INLINE_BYTES)
		ctrl_pool_submit(&cmd->io, fill_work);
	else
		fill_done(&cmd->io, fill_work(&cmd->io));
}

/* ---- Copy: step[0] is the entry, step[1] the bytes of it that are done, step[2] the next destination ---- */

static uint32_t copy_entries(const struct ctrl_cmd *cmd)
{
	return NVME_SLM_COPY_RANGES(nvme_get32(cmd->sqe.cdw12));
}

static bool copy_blocks(const struct ctrl_cmd *cmd)
{
	return NVME_SLM_COPY_FORMAT(nvme_get32(cmd->sqe.cdw12)) == NVME_SLM_FROM_LBAS;
}

struct copy_source {
	const struct ctrl_namespace *ns;
	uint64_t at, len; /* bytes */
};

/* @i's source as it stands in the data, bounds not yet checked. */
static uint16_t copy_source(const struct ctrl_cmd *cmd, uint64_t i, struct copy_source *src)
{
	const struct nvme_slm_source *e = (const struct nvme_slm_source *)cmd->data + i;
	uint64_t start = nvme_get64(e->start);
	uint16_t status;

	*src = (struct copy_source){0};
	src->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(e->nsid));
	if (!src->ns || src->ns->store->geo.csi != (copy_blocks(cmd) ? NVME_CSI_NVM : NVME_CSI_SLM))
		return NVME_SC_CP_INCOMPATIBLE_NS;
	if (!copy_blocks(cmd)) {
		src->at = start;
		src->len = nvme_get32(e->len);
		return check_bytes(src->ns, src->at, src->len);
	}
	src->len = (nvme_get32(e->len) & 0xffff) + 1;
	status = nvm_range(src->ns, start, src->len);
	if (status)
		return status;
	src->at = start << src->ns->shift;
	src->len <<= src->ns->shift;
	return NVME_SC_SUCCESS;
}

static uint16_t copy_prepare(struct ctrl_cmd *cmd)
{
	uint32_t cdw12 = nvme_get32(cmd->sqe.cdw12), format = NVME_SLM_COPY_FORMAT(cdw12);

	cmd->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	if (!cmd->ns)
		return NVME_SC_INVALID_NS;
	if (cdw12 >> 12 || (format != NVME_SLM_FROM_LBAS && format != NVME_SLM_FROM_BYTES))
		return NVME_SC_INVALID_FIELD;
	if (copy_entries(cmd) > CTRL_COPY_RANGES)
		return NVME_SC_COMMAND_SIZE_LIMIT;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = copy_entries(cmd) * sizeof(struct nvme_slm_source);
	cmd->aux_len = format == NVME_SLM_FROM_LBAS ? PIECE : 0;
	return NVME_SC_SUCCESS;
}

static uint16_t copy_check(const struct ctrl_cmd *cmd)
{
	uint64_t to = first_byte(cmd), total = 0, want;
	struct copy_source src;
	uint16_t status;

	want = nvme_get32(cmd->sqe.cdw2) | (uint64_t)nvme_get32(cmd->sqe.cdw3) << 32;
	for (uint32_t i = 0; i < copy_entries(cmd); i++) {
		status = copy_source(cmd, i, &src);
		if (status)
			return status;
		total += src.len;
		if (total > CTRL_COPY_BYTES)
			return NVME_SC_COMMAND_SIZE_LIMIT;
	}
	if (total != want)
		return NVME_SC_INVALID_FIELD;
	status = check_bytes(cmd->ns, to, total);
	for (uint32_t i = 0; !status && i < copy_entries(cmd); i++) {
		copy_source(cmd, i, &src);
		if (src.ns == cmd->ns && src.at < to + total && to < src.at + src.len)
			status = NVME_SC_OVERLAPPING_IO;
	}
	return status;
}

static void copy_next(struct ctrl_cmd *cmd);

static void copy_moved(struct ctrl_cmd *cmd, uint64_t len)
{
	struct copy_source src;

	copy_source(cmd, cmd->step[0], &src);
	cmd->step[1] += len;
	cmd->step[2] += len;
	if (cmd->step[1] == src.len) {
		cmd->step[0]++;
		cmd->step[1] = 0;
	}
	copy_next(cmd);
}

static void copy_read(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	if (error) {
		ctrl_complete(cmd, ctrl_status_of(error, CTRL_IO_READ));
		return;
	}
	memcpy(slm_base(cmd->ns) + cmd->step[2], cmd->aux, io->len);
	copy_moved(cmd, io->len);
}

static int copy_work(struct ctrl_io *io)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	struct copy_source src;

	copy_source(cmd, cmd->step[0], &src);
	memcpy(slm_base(cmd->ns) + cmd->step[2], slm_base(src.ns) + src.at, src.len);
	return 0;
}

static void copy_worked(struct ctrl_io *io, int error)
{
	copy_moved(ctrl_cmd_of(io), io->len);
}

static void copy_next(struct ctrl_cmd *cmd)
{
	struct copy_source src = {0};

	/* An empty entry of bytes is no step. */
	while (cmd->step[0] < copy_entries(cmd) && !copy_source(cmd, cmd->step[0], &src) &&
	       !src.len)
		cmd->step[0]++;
	if (cmd->aborted || cmd->step[0] == copy_entries(cmd)) {
		ctrl_complete(cmd, cmd->aborted ? NVME_SC_ABORT_REQUESTED : NVME_SC_SUCCESS);
		return;
	}
	if (copy_blocks(cmd)) {
		uint64_t left = src.len - cmd->step[1];

		cmd->io = (struct ctrl_io){.op = CTRL_IO_READ,
					   .offset = src.at + cmd->step[1],
					   .len = left < cmd->aux_len ? left : cmd->aux_len,
					   .iov.iov_base = cmd->aux};
		cmd->io.iov.iov_len = cmd->io.len;
		ctrl_store_submit(cmd, src.ns->store, copy_read);
		return;
	}
	cmd->io = (struct ctrl_io){.op = CTRL_IO_READ,
				   .len = src.len,
				   .loop = cmd->q->loop,
				   .done = copy_worked,
				   .store = cmd->ns->store};
	ctrl_pool_submit(&cmd->io, copy_work);
}

static void copy_run(struct ctrl_cmd *cmd)
{
	uint16_t status = copy_check(cmd);

	if (status) {
		ctrl_complete(cmd, status);
		return;
	}
	cmd->step[0] = 0;
	cmd->step[1] = 0;
	cmd->step[2] = first_byte(cmd);
	copy_next(cmd);
}

static const struct ctrl_command commands[] = {
	{NVME_SLM_COPY, "slm-copy", NVME_EFFECT_CONTENT, copy_prepare, copy_run},
	{NVME_SLM_READ, "slm-read", 0, read_prepare, read_run},
	{NVME_SLM_FILL, "slm-fill", NVME_EFFECT_CONTENT, fill_prepare, fill_run},
	{NVME_SLM_WRITE, "slm-write", NVME_EFFECT_CONTENT, write_prepare, write_run},
};
const struct ctrl_command_set ctrl_slm_set = {commands, sizeof(commands) / sizeof(*commands)};
