/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_ram.c - "ram:SIZE": memory, zero at first, gone when the server ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/loop.h"

#define PAGE 4096u
/* What is zeroed on the loop's own thread; more goes to the pool. */
#define INLINE_BYTES (1u << 20)

struct ram {
	struct ctrl_store store;
	uint8_t *base;
	int fd, read_fd; /* of that memory; the second is for other processes */
};

static void ram_free(struct ram *ram)
{
	if (ram->base)
		munmap(ram->base, ram->store.geo.bytes);
	if (ram->read_fd >= 0)
		close(ram->read_fd);
	if (ram->fd >= 0)
		close(ram->fd);
	free(ram->store.how);
	free(ram);
}

/* A memory file, so that functions can read it elsewhere; its memory comes as it is written. */
static int ram_map(struct ram *ram, uint64_t bytes)
{
	char path[64];

	ram->fd = memfd_create("ram", MFD_CLOEXEC);
	if (ram->fd < 0 || bytes > INT64_MAX || ftruncate(ram->fd, (off_t)bytes))
		return -ENOMEM;
	ram->base =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, 0);
	if (ram->base == MAP_FAILED) {
		ram->base = NULL;
		return -ENOMEM;
	}
	ram->store.geo.bytes = bytes;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ram->fd);
	ram->read_fd = open(path, O_RDONLY | O_CLOEXEC);
	return 0;
}

static int ram_descriptor(const struct ctrl_store *store)
{
	return ((const struct ram *)store)->read_fd;
}

static int ram_open(const char *spec, bool read_only, struct ctrl_store **out,
		    struct ctrl_error *err)
{
	struct ram *ram;
	uint64_t bytes;

	if (ctrl_parse_size(spec, &bytes) || bytes < PAGE || bytes % PAGE)
		return ctrl_fail(err, -EINVAL,
				 "ram:%s: no size in whole 4 KiB blocks; write ram:1G or ram:65536",
				 spec);
	ram = calloc(1, sizeof(*ram));
	if (!ram)
		return ctrl_fail(err, -ENOMEM, "ram:%s: out of memory", spec);
	ram->fd = ram->read_fd = -1;
	if (ram_map(ram, bytes)) {
		ram_free(ram);
		return ctrl_fail(err, -ENOMEM, "ram:%s: no address space of that size; use less",
				 spec);
	}
	ram->store.how = strdup("memory");
	ram->store.ops = &ctrl_store_ram;
	/* Nothing survives a power cut, flushed or not: a cache to flush would promise what is not there. */
	ram->store.geo = (struct ctrl_store_geometry){.bytes = bytes,
						      .block = PAGE,
						      .preferred = PAGE,
						      .read_only = read_only,
						      .discard = true};
	ctrl_pool_ref();
	*out = &ram->store;
	return 0;
}

static void ram_close(struct ctrl_store *store)
{
	struct ram *ram = (struct ram *)store;

	ctrl_pool_unref();
	ram_free(ram);
}

static int ram_zero(struct ctrl_io *io)
{
	struct ram *ram = (struct ram *)io->store;

	/* Gives the memory back too; blocks are pages. */
	return fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->offset,
			 (off_t)io->len)
		       ? -errno
		       : 0;
}

static void ram_submit(struct ctrl_store *store, struct ctrl_io *io)
{
	struct ram *ram = (struct ram *)store;
	int rc = 0;

	switch (io->op) {
	case CTRL_IO_READ:
		memcpy(io->iov.iov_base, ram->base + io->offset, io->len);
		break;
	case CTRL_IO_WRITE:
		memcpy(ram->base + io->offset, io->iov.iov_base, io->len);
		break;
	case CTRL_IO_FLUSH:
		break;
	case CTRL_IO_ZERO:
	case CTRL_IO_DISCARD:
		io->store = store;
		if (io->len > INLINE_BYTES) {
			ctrl_pool_submit(io, ram_zero);
			return;
		}
		rc = ram_zero(io);
		break;
	}
	ctrl_loop_finish(io, rc);
}

static void ram_refresh(struct ctrl_store *store)
{
}

const struct ctrl_store_ops ctrl_store_ram = {
	.name = "ram",
	.help = "ram:SIZE: memory, lost when the server ends",
	.open = ram_open,
	.close = ram_close,
	.submit = ram_submit,
	.descriptor = ram_descriptor,
	.refresh = ram_refresh,
};
