/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_file.c - "PATH[,block=512|4096][,buffered][,ro]": opening a regular file or a block device, and
 * what it can do.
 *
 * Whether buffered or O_DIRECT, what a write put somewhere is durable only after fdatasync() or with
 * RWF_DSYNC, so the volatile cache is always reported.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "device/store_file.h"

#define MIN_BLOCK 512u
#define MAX_BLOCK 4096u
/* What a file in memory moves on the loop's own thread; copying more is better done by several. */
#define INLINE_BYTES (64u << 10)

uint8_t file_zeros[FILE_ZEROS] __attribute__((aligned(4096)));

struct file_spec {
	char path[PATH_MAX];
	uint32_t block; /* 0: as it comes */
	bool buffered;
};

static int parse_spec(const char *spec, struct file_spec *out, struct ctrl_error *err)
{
	char *comma;

	*out = (struct file_spec){0};
	if (!*spec || strlen(spec) >= sizeof(out->path))
		return ctrl_fail(err, -EINVAL, "\"%s\": no path of a file or block device", spec);
	strcpy(out->path, spec);
	/* A comma may be part of a name: only known words are taken off its end. */
	while ((comma = strrchr(out->path, ',')) && comma > out->path) {
		if (!strcmp(comma, ",buffered"))
			out->buffered = true;
		else if (!strcmp(comma, ",block=512"))
			out->block = MIN_BLOCK;
		else if (!strcmp(comma, ",block=4096"))
			out->block = MAX_BLOCK;
		else
			break;
		*comma = '\0';
	}
	return 0;
}

static int file_size(struct file *f, uint64_t *bytes)
{
	struct stat st;

	if (f->device)
		return ioctl(f->fd, BLKGETSIZE64, bytes) ? -errno : 0;
	if (fstat(f->fd, &st))
		return -errno;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

static int open_file(struct file *f, const struct file_spec *spec, bool read_only,
		     struct ctrl_error *err)
{
	const char *path = spec->path;
	struct stat st;
	int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;

	if (stat(path, &st))
		return ctrl_fail(err, -errno, "%s: %s; %s", path, strerror(errno),
				 errno == ENOENT ? "make it with: truncate -s SIZE FILE"
						 : "give a file that can be reached");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return ctrl_fail(err, -EINVAL, "%s: neither a regular file nor a block device",
				 path);
	f->device = S_ISBLK(st.st_mode);
	/* Refused if it is mounted, or another server has it. */
	if (f->device && !read_only)
		flags |= O_EXCL;
	f->fd = open(path, flags);
	if (f->fd < 0) {
		int e = errno;

		return ctrl_fail(err, -e, "%s: cannot open it for %s: %s%s", path,
				 read_only ? "reading" : "reading and writing", strerror(e),
				 e == EBUSY  ? "; it is mounted or in use: unmount it first"
				 : read_only ? "; allow this user to read it"
					     : "; allow this user to write it, or add \",ro\"");
	}
	return 0;
}

/*
 * The same once more, for functions: read only, and through the page cache, which O_DIRECT writes keep coherent.
 * By /proc, for the name may mean another file by now.
 */
static int open_again(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

static int file_descriptor(const struct ctrl_store *store)
{
	return ((const struct file *)store)->read_fd;
}

/* Locks of the open file: two servers, or a server and a virtual machine, must not both write. */
static int lock_file(struct file *f, const char *path, bool read_only, bool *locked,
		     struct ctrl_error *err)
{
	struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	*locked = !fcntl(f->fd, F_OFD_SETLK, &lock);
	if (!*locked && (errno == EAGAIN || errno == EACCES))
		return ctrl_fail(
			err, -EBUSY,
			"%s: it is locked by another server, virtual machine or namespace; "
			"let that one go first",
			path);
	return 0;
}

/* A file that is memory: io_uring would hand each request to a thread of the kernel's. */
static bool in_memory(struct file *f)
{
	struct statfs fs;

	return !f->device && !fstatfs(f->fd, &fs) &&
	       (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* The alignment that O_DIRECT asks of offsets and lengths; 0: there is no O_DIRECT. */
static uint32_t direct_alignment(struct file *f)
{
	static const uint32_t sizes[] = {MIN_BLOCK, MAX_BLOCK};
	uint32_t align = 0;
	void *page;

#ifdef STATX_DIOALIGN
	struct statx sx;

	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
	    (sx.stx_mask & STATX_DIOALIGN)) {
		if (!sx.stx_dio_offset_align || sx.stx_dio_mem_align > MAX_BLOCK ||
		    fcntl(f->fd, F_SETFL, O_DIRECT))
			return 0;
		return sx.stx_dio_offset_align;
	}
#endif
	/* The file system does not say: see what it takes. */
	if (fcntl(f->fd, F_SETFL, O_DIRECT) || posix_memalign(&page, MAX_BLOCK, MAX_BLOCK))
		return 0;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !align; i++) {
		if (pread(f->fd, page, sizes[i], sizes[i]) >= 0)
			align = sizes[i];
	}
	free(page);
	return align;
}

/* A block device's queue attribute, or 0. */
static uint64_t queue_attribute(dev_t dev, const char *name)
{
	char path[128];
	uint64_t value = 0;
	FILE *file;

	/* A partition's queue is its disk's. */
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s", major(dev), minor(dev), name);
	file = fopen(path, "re");
	if (!file) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../queue/%s", major(dev),
			 minor(dev), name);
		file = fopen(path, "re");
	}
	if (!file)
		return 0;
	if (fscanf(file, "%" SCNu64, &value) != 1)
		value = 0;
	fclose(file);
	return value;
}

static bool can_discard(struct file *f, const struct stat *st, uint64_t size)
{
	const off_t behind = (off_t)((size + MAX_BLOCK - 1) / MAX_BLOCK * MAX_BLOCK);

	if (f->store.geo.read_only)
		return false;
	if (f->device) /* punching a hole is a write of zeros that may unmap */
		return queue_attribute(st->st_rdev, "write_zeroes_max_bytes") &&
		       queue_attribute(st->st_rdev, "discard_max_bytes");
	/* A hole behind the end changes nothing. */
	return !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, MAX_BLOCK);
}

static int measure(struct file *f, const struct file_spec *spec, const char **direct_why,
		   struct ctrl_error *err)
{
	struct ctrl_store_geometry *geo = &f->store.geo;
	const char *path = spec->path;
	uint32_t need = MIN_BLOCK, align;
	uint64_t size;
	struct stat st;
	int rc, sector;

	if (fstat(f->fd, &st) || (rc = file_size(f, &size)))
		return ctrl_fail(err, -EIO, "%s: cannot tell its size", path);
	if (f->device && !ioctl(f->fd, BLKSSZGET, &sector) && sector > 0)
		need = (uint32_t)sector;
	if (need > MAX_BLOCK || (spec->block && spec->block < need))
		return ctrl_fail(err, -EINVAL,
				 "%s: its blocks have %" PRIu32 " bytes; leave block= away", path,
				 need);
	geo->block = spec->block > need ? spec->block : need;
	f->memory = in_memory(f);
	*direct_why = f->memory ? ", a file in memory" : ", buffered as asked";
	if (!spec->buffered && !f->memory) {
		align = direct_alignment(f);
		f->direct = align && align <= (spec->block ? spec->block : MAX_BLOCK);
		if (f->direct && align > geo->block)
			geo->block = align;
		*direct_why = f->direct ? ", O_DIRECT"
			      : !align  ? ", buffered (the file system has no O_DIRECT)"
					: ", buffered (O_DIRECT needs larger blocks)";
	}
	if (!f->direct)
		fcntl(f->fd, F_SETFL, 0);
	geo->bytes = size / geo->block * geo->block;
	geo->preferred =
		st.st_blksize > (blksize_t)geo->block ? (uint32_t)st.st_blksize : geo->block;
	geo->volatile_cache = !geo->read_only;
	geo->discard = can_discard(f, &st, size);
	if (!geo->bytes)
		return ctrl_fail(err, -EINVAL,
				 "%s: holds no block of %" PRIu32
				 " bytes; give it a size with: truncate -s SIZE FILE",
				 path, geo->block);
	return 0;
}

static int describe(struct file *f, const char *direct_why, bool locked)
{
	const char *name = ctrl_ring_refused();

	if (asprintf(&f->store.how, "%s%s%s%s%s", name ? "thread pool (io_uring: " : "io_uring",
		     name ? name : "", name ? ")" : "", direct_why,
		     locked ? "" : ", not locked (the file system has no locks)") < 0) {
		f->store.how = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int file_open(const char *spec, bool read_only, struct ctrl_store **out,
		     struct ctrl_error *err)
{
	struct file *f = calloc(1, sizeof(*f));
	const char *direct_why = "";
	struct file_spec parsed;
	bool locked = false;
	int rc;

	if (!f)
		return ctrl_fail(err, -ENOMEM, "%s: out of memory", spec);
	f->fd = f->read_fd = -1;
	f->store.ops = &ctrl_store_file;
	f->store.geo.read_only = read_only;
	rc = parse_spec(spec, &parsed, err);
	if (!rc)
		rc = open_file(f, &parsed, read_only, err);
	if (!rc)
		rc = lock_file(f, parsed.path, read_only, &locked, err);
	if (!rc)
		rc = measure(f, &parsed, &direct_why, err);
	if (!rc && describe(f, direct_why, locked))
		rc = ctrl_fail(err, -ENOMEM, "%s: out of memory", spec);
	if (rc) {
		if (f->fd >= 0)
			close(f->fd);
		free(f);
		return rc;
	}
	f->read_fd = open_again(f->fd);
	ctrl_pool_ref();
	*out = &f->store;
	return 0;
}

static void file_close(struct ctrl_store *store)
{
	struct file *f = (struct file *)store;

	ctrl_pool_unref();
	if (f->read_fd >= 0)
		close(f->read_fd);
	close(f->fd);
	free(store->how);
	free(f);
}

/* What the page cache holds: for a ring or a thread it would be a detour. */
static bool read_cached(struct file *f, const struct ctrl_io *io)
{
	ssize_t n;

	if (f->direct || io->op != CTRL_IO_READ || atomic_load(&f->no_nowait))
		return false;
	n = preadv2(f->fd, &io->iov, 1, (off_t)io->offset, RWF_NOWAIT);
	if (n < 0 && errno == EOPNOTSUPP)
		atomic_store(&f->no_nowait, true);
	return n >= 0 && (uint64_t)n == io->len;
}

static void file_submit(struct ctrl_store *store, struct ctrl_io *io)
{
	struct file *f = (struct file *)store;
	bool durable = io->op == CTRL_IO_FLUSH || (io->fua && io->op != CTRL_IO_READ);
	int lost = atomic_load(&f->lost);

	io->store = store;
	io->moved = 0;
	if (durable && lost)
		ctrl_loop_finish(io, lost);
	else if (io->op == CTRL_IO_FLUSH && store->geo.read_only)
		ctrl_loop_finish(io, 0);
	else if (f->memory && io->len <= INLINE_BYTES)
		ctrl_loop_finish(io, file_pool_work(io));
	else if (read_cached(f, io))
		ctrl_loop_finish(io, 0);
	else if (ctrl_loop_ring(io->loop))
		file_ring_submit(io);
	else
		ctrl_pool_submit(io, file_pool_work);
}

static void file_refresh(struct ctrl_store *store)
{
	struct file *f = (struct file *)store;
	uint64_t size;

	if (!file_size(f, &size))
		__atomic_store_n(&store->geo.bytes, size / store->geo.block * store->geo.block,
				 __ATOMIC_RELAXED);
}

const struct ctrl_store_ops ctrl_store_file = {
	.name = "file",
	.help = "PATH[,block=512|4096][,buffered]: a file or block device",
	.open = file_open,
	.close = file_close,
	.submit = file_submit,
	.descriptor = file_descriptor,
	.refresh = file_refresh,
};
