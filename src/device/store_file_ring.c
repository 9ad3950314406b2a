/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_file_ring.c - a file's requests by io_uring.  Each kind is a chain of steps: issue, look at the
 * result, issue the rest or finish.
 */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>

#include "device/store_file.h"

static struct file *file_of(struct ctrl_io *io)
{
	return (struct file *)io->store;
}

/* The next entry of the ring, whose result goes to @step; or NULL, and @step is told -EAGAIN later. */
static struct io_uring_sqe *entry(struct ctrl_io *io, void (*step)(struct ctrl_io *, int))
{
	io->step = step;
	return ctrl_loop_sqe(io);
}

/* ---- reads and writes ---- */

static void data_issue(struct ctrl_io *io);

static void data_step(struct ctrl_io *io, int result)
{
	struct file *f = file_of(io);
	int rc = file_transient(result) ? 0 : result;

	if (result >= 0)
		rc = file_moved(f, &io->moved, io->len, result);
	if (rc == -EIO && io->fua && io->op == CTRL_IO_WRITE)
		file_synced(f, rc);
	if (!rc)
		data_issue(io);
	else
		ctrl_loop_finish(io, rc < 0 ? rc : 0);
}

static void data_issue(struct ctrl_io *io)
{
	struct io_uring_sqe *sqe = entry(io, data_step);
	uint8_t *p = (uint8_t *)io->iov.iov_base + io->moved;
	unsigned int len = (unsigned int)(io->len - io->moved);
	uint64_t at = io->offset + io->moved;
	int fd = file_of(io)->fd, index;

	if (!sqe)
		return;
	index = ctrl_loop_buffer_index(io->loop, p, len);
	if (io->op == CTRL_IO_READ && index >= 0)
		io_uring_prep_read_fixed(sqe, fd, p, len, at, index);
	else if (io->op == CTRL_IO_READ)
		io_uring_prep_read(sqe, fd, p, len, at);
	else if (index >= 0)
		io_uring_prep_write_fixed(sqe, fd, p, len, at, index);
	else
		io_uring_prep_write(sqe, fd, p, len, at);
	if (io->op == CTRL_IO_WRITE && io->fua)
		sqe->rw_flags = RWF_DSYNC;
	io_uring_sqe_set_data(sqe, io);
}

/* ---- flush, also the end of a durable zero ---- */

static void sync_issue(struct ctrl_io *io);

static void sync_step(struct ctrl_io *io, int result)
{
	if (file_transient(result))
		sync_issue(io);
	else
		ctrl_loop_finish(io, file_synced(file_of(io), result));
}

static void sync_issue(struct ctrl_io *io)
{
	struct io_uring_sqe *sqe = entry(io, sync_step);

	if (!sqe)
		return;
	io_uring_prep_fsync(sqe, file_of(io)->fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, io);
}

/* ---- zero and discard ---- */

static void zeros_issue(struct ctrl_io *io);
static void allocate_issue(struct ctrl_io *io);

static void zeroed(struct ctrl_io *io, int error)
{
	if (!error && io->fua)
		sync_issue(io);
	else
		ctrl_loop_finish(io, error);
}

static void zeros_step(struct ctrl_io *io, int result)
{
	int rc = file_transient(result) ? 0 : result;

	if (result >= 0)
		rc = file_moved(file_of(io), &io->moved, io->len, result);
	if (!rc)
		zeros_issue(io);
	else
		zeroed(io, rc < 0 ? rc : 0);
}

static void zeros_issue(struct ctrl_io *io)
{
	struct io_uring_sqe *sqe = entry(io, zeros_step);
	uint64_t left = io->len - io->moved;

	if (!sqe)
		return;
	io_uring_prep_write(sqe, file_of(io)->fd, file_zeros,
			    left < FILE_ZEROS ? (unsigned int)left : FILE_ZEROS,
			    io->offset + io->moved);
	io_uring_sqe_set_data(sqe, io);
}

static void allocate_step(struct ctrl_io *io, int result)
{
	if (file_transient(result)) {
		allocate_issue(io);
	} else if (result == -EOPNOTSUPP && io->op == CTRL_IO_ZERO) {
		atomic_store(&file_of(io)->no_zero_range, true);
		zeros_issue(io);
	} else {
		zeroed(io, result);
	}
}

static void allocate_issue(struct ctrl_io *io)
{
	struct io_uring_sqe *sqe = entry(io, allocate_step);
	int mode = io->op == CTRL_IO_ZERO ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;

	if (!sqe)
		return;
	io_uring_prep_fallocate(sqe, file_of(io)->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)io->offset,
				(off_t)io->len);
	io_uring_sqe_set_data(sqe, io);
}

void file_ring_submit(struct ctrl_io *io)
{
	switch (io->op) {
	case CTRL_IO_READ:
	case CTRL_IO_WRITE:
		data_issue(io);
		break;
	case CTRL_IO_FLUSH:
		sync_issue(io);
		break;
	case CTRL_IO_ZERO:
		if (atomic_load(&file_of(io)->no_zero_range))
			zeros_issue(io);
		else
			allocate_issue(io);
		break;
	case CTRL_IO_DISCARD:
		allocate_issue(io);
		break;
	}
}
