/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_file.h - a file or block device as a store: store_file.c opens it, store_file_ring.c and
 * store_file_pool.c serve it.
 */
#ifndef DEVICE_STORE_FILE_H
#define DEVICE_STORE_FILE_H

#include <errno.h>

#include "device/loop.h"

struct file {
	struct ctrl_store store;
	int fd;
	int read_fd; /* read only and through the page cache: for other processes; -1: not to be had */
	bool device; /* a block device */
	bool direct; /* O_DIRECT: lengths and offsets in whole blocks */
	bool memory; /* tmpfs: nothing waits for a disk, but for what was swapped out */
	/*
	 * An fdatasync() that failed has forgotten what it could not write, so the next one would succeed and
	 * lie: from then on, what promises durability fails.
	 */
	atomic_int lost;
	atomic_bool no_zero_range; /* the file system cannot: zeros are written */
	atomic_bool no_nowait;     /* it cannot say whether a read would wait */
};

#define FILE_ZEROS (256u << 10)
extern uint8_t file_zeros[FILE_ZEROS];

void file_ring_submit(struct ctrl_io *io);
int file_pool_work(struct ctrl_io *io);

/*
 * @n bytes of a read or write moved. 0: there is more to do, *@moved says from where; 1: all @len are
 * done; or -errno.
 */
static inline int file_moved(const struct file *f, uint64_t *moved, uint64_t len, int64_t n)
{
	*moved += (uint64_t)n;
	if (*moved == len)
		return 1;
	if (f->direct) {
		uint64_t whole = *moved / f->store.geo.block * f->store.geo.block;

		n -= (int64_t)(*moved - whole);
		*moved = whole;
	}
	/* No block more: behind the end of a file that was truncated under us. */
	return n > 0 ? 0 : -EIO;
}

static inline int file_synced(struct file *f, int error)
{
	if (error)
		atomic_store(&f->lost, error);
	return error;
}

static inline bool file_transient(int error)
{
	return error == -EAGAIN || error == -EINTR;
}

#endif /* DEVICE_STORE_FILE_H */
