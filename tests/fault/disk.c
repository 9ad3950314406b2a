/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c - LD_PRELOAD below a server's thread pool: a disk with a volatile cache that loses power, fills up, or breaks.
 *
 * DISK=FILE says which file is the disk; calls on other files pass.
 *
 * DISK_DURABLE=FILE: what a power cut would leave.  It is a copy of the disk as it was at start, made before; here a
 * range is carried over when fdatasync(), fsync() or a write with RWF_DSYNC has returned for it, and never before:
 * the cache that loses everything it may lose.  Ranges that were written but not synced are listed at the time of
 * the cut in DISK_DIRTY (pairs of native 64-bit numbers, offset and length), so that a test may let some survive.
 *
 * DISK_FAIL=FILE: read at each call, "OP:ERRNO[:COUNT] …" with OP one of read write sync zero; the call fails so,
 * COUNT times (default: always).  A sync that fails drops what it should have made durable, as Linux does.
 */
#undef _FILE_OFFSET_BITS /* both names of each call are defined here; on 64 bits they are one */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define RANGES (1u << 20)

struct range {
	uint64_t offset, len;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stat disk;
static int live = -1, durable = -1;
static const char *failures;
/* DISK_DIRTY, mapped shared so that it outlives SIGKILL: a count, then ranges. */
static struct dirty {
	uint64_t n;
	struct range range[RANGES];
} *dirty;
static struct {
	char what[64];
	unsigned int count;
} failed[8];

static void *next(const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn) {
		fprintf(stderr, "disk: no %s\n", name);
		abort();
	}
	return fn;
}
#define NEXT(name) ((__typeof__(&(name)))next(#name))

__attribute__((constructor)) static void disk_init(void)
{
	const char *path = getenv("DISK"), *to = getenv("DISK_DURABLE"),
		   *list = getenv("DISK_DIRTY");
	int fd;

	failures = getenv("DISK_FAIL");
	unsetenv("LD_PRELOAD");
	if (!path || stat(path, &disk)) {
		fprintf(stderr, "disk: DISK is not a file\n");
		abort();
	}
	if (!to)
		return;
	live = open(path, O_RDONLY | O_CLOEXEC);
	durable = open(to, O_RDWR | O_CLOEXEC);
	fd = open(list ? list : "", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (live < 0 || durable < 0 || fd < 0 || ftruncate(fd, sizeof(*dirty))) {
		fprintf(stderr, "disk: DISK_DURABLE or DISK_DIRTY: %s\n", strerror(errno));
		abort();
	}
	dirty = mmap(NULL, sizeof(*dirty), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (dirty == MAP_FAILED)
		abort();
	dirty->n = 0;
	close(fd);
}

static int is_disk(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == disk.st_ino && st.st_dev == disk.st_dev;
}

/* 0, or the errno that this call is to fail with. */
static int fails(const char *op)
{
	char text[512] = "", *save = NULL;
	size_t len = strlen(op);
	int error = 0, fd;

	if (!failures || (fd = open(failures, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	pthread_mutex_lock(&lock);
	for (char *w = strtok_r(text, " \n", &save); w && !error;
	     w = strtok_r(NULL, " \n", &save)) {
		unsigned int count = 0, i;
		int e = 0;

		if (strncmp(w, op, len) || w[len] != ':' ||
		    sscanf(w + len, ":%d:%u", &e, &count) < 1)
			continue;
		for (i = 0; i < 7 && failed[i].what[0] && strcmp(failed[i].what, w); i++)
			;
		snprintf(failed[i].what, sizeof(failed[i].what), "%s", w);
		if (!count || failed[i].count++ < count)
			error = e;
	}
	pthread_mutex_unlock(&lock);
	return error;
}

/* Under the lock.  What @r covers is as it is on the live disk now. */
static void persist(struct range r)
{
	static char buf[1 << 16];

	while (r.len) {
		ssize_t n = pread(live, buf, r.len < sizeof(buf) ? r.len : sizeof(buf),
				  (off_t)r.offset);

		if (n <= 0 || NEXT(pwrite)(durable, buf, (size_t)n, (off_t)r.offset) != n)
			abort();
		r.offset += (uint64_t)n;
		r.len -= (uint64_t)n;
	}
}

static void written(uint64_t offset, uint64_t len, int now)
{
	if (!dirty)
		return;
	pthread_mutex_lock(&lock);
	if (now) {
		persist((struct range){offset, len});
	} else {
		if (dirty->n == RANGES)
			abort();
		dirty->range[dirty->n] = (struct range){offset, len};
		__atomic_store_n(&dirty->n, dirty->n + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lock);
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
	int error = is_disk(fd) ? fails("read") : 0;

	if (error) {
		errno = error;
		return -1;
	}
	return NEXT(preadv)(fd, iov, n, offset);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
	int error = is_disk(fd) ? fails("read") : 0;

	if (error) {
		errno = error;
		return -1;
	}
	return NEXT(preadv2)(fd, iov, n, offset, flags);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
	int error, mine = is_disk(fd);
	ssize_t done;

	if (mine && (error = fails("write"))) {
		errno = error;
		return -1;
	}
	done = NEXT(pwritev2)(fd, iov, n, offset, flags);
	if (mine && done > 0)
		written((uint64_t)offset, (uint64_t)done, flags & (RWF_DSYNC | RWF_SYNC));
	return done;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	int error, rc, mine = is_disk(fd);

	if (mine && (error = fails("zero"))) {
		errno = error;
		return -1;
	}
	rc = NEXT(fallocate)(fd, mode, offset, len);
	if (mine && !rc && offset < disk.st_size)
		written((uint64_t)offset,
			(uint64_t)(len < disk.st_size - offset ? len : disk.st_size - offset), 0);
	return rc;
}

static int sync_with(int fd, int (*fn)(int))
{
	int error, rc = 0;
	uint64_t n;

	if (!is_disk(fd))
		return fn(fd);
	n = dirty ? __atomic_load_n(&dirty->n, __ATOMIC_ACQUIRE)
		  : 0; /* complete before this call */
	error = fails("sync");
	if (!error)
		rc = fn(fd);
	if (dirty) {
		pthread_mutex_lock(&lock);
		n = n < dirty->n ? n : dirty->n;
		for (uint64_t i = 0; i < n && !error && !rc; i++)
			persist(dirty->range[i]);
		memmove(dirty->range, dirty->range + n, (dirty->n - n) * sizeof(*dirty->range));
		dirty->n -= n;
		pthread_mutex_unlock(&lock);
	}
	if (error) {
		errno = error;
		return -1;
	}
	return rc;
}

int fdatasync(int fd)
{
	return sync_with(fd, NEXT(fdatasync));
}

int fsync(int fd)
{
	return sync_with(fd, NEXT(fsync));
}

/* Programs built for large files call these names. */
ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t offset)
	__attribute__((alias("preadv")));
ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t offset, int flags)
	__attribute__((alias("preadv2")));
ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off64_t offset, int flags)
	__attribute__((alias("pwritev2")));
int fallocate64(int fd, int mode, off64_t offset, off64_t len) __attribute__((alias("fallocate")));
