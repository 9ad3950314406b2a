/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_file_pool.c - a file's requests by calls that block, on a thread of the pool.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "device/store_file.h"

static int move(struct file *f, bool write, const struct iovec *data, uint64_t offset, bool durable)
{
	uint64_t moved = 0;
	int rc = 0;

	while (!rc) {
		struct iovec iov = {(uint8_t *)data->iov_base + moved, data->iov_len - moved};
		ssize_t n = write ? pwritev2(f->fd, &iov, 1, (off_t)(offset + moved),
					     durable ? RWF_DSYNC : 0)
				  : preadv(f->fd, &iov, 1, (off_t)(offset + moved));

		if (n >= 0)
			rc = file_moved(f, &moved, data->iov_len, n);
		else if (!file_transient(-errno))
			rc = -errno;
	}
	if (rc == -EIO && durable)
		file_synced(f, rc);
	return rc < 0 ? rc : 0;
}

static int sync_data(struct file *f)
{
	int rc;

	do {
		rc = fdatasync(f->fd) ? -errno : 0;
	} while (file_transient(rc));
	return file_synced(f, rc);
}

static int allocate(struct file *f, int mode, const struct ctrl_io *io)
{
	int rc;

	do {
		rc = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)io->offset, (off_t)io->len)
			     ? -errno
			     : 0;
	} while (file_transient(rc));
	return rc;
}

static int write_zeros(struct file *f, const struct ctrl_io *io)
{
	int rc = 0;

	for (uint64_t at = 0; at < io->len && !rc;) {
		uint64_t n = io->len - at < FILE_ZEROS ? io->len - at : FILE_ZEROS;

		rc = move(f, true, &(struct iovec){file_zeros, n}, io->offset + at, false);
		at += n;
	}
	return rc;
}

static int zero(struct file *f, const struct ctrl_io *io)
{
	int rc = -EOPNOTSUPP;

	if (!atomic_load(&f->no_zero_range))
		rc = allocate(f, FALLOC_FL_ZERO_RANGE, io);
	if (rc == -EOPNOTSUPP) {
		atomic_store(&f->no_zero_range, true);
		rc = write_zeros(f, io);
	}
	return rc || !io->fua ? rc : sync_data(f);
}

int file_pool_work(struct ctrl_io *io)
{
	struct file *f = (struct file *)io->store;

	switch (io->op) {
	case CTRL_IO_READ:
		return move(f, false, &io->iov, io->offset, false);
	case CTRL_IO_WRITE:
		return move(f, true, &io->iov, io->offset, io->fua);
	case CTRL_IO_FLUSH:
		return sync_data(f);
	case CTRL_IO_ZERO:
		return zero(f, io);
	case CTRL_IO_DISCARD:
		return allocate(f, FALLOC_FL_PUNCH_HOLE, io);
	}
	return -EINVAL;
}
