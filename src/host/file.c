/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.c - open files: plain reads and stores at an offset, whole in spite of short ones.
 *
 * Owns descriptors and what kind of file each is.  Does not own how a function's input is read from
 * one (input.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/remote.h"

/* Of files with a descriptor: random_ops of what has offsets, stream_ops of what comes in order. */
static const struct file_ops random_ops, stream_ops;

/* One bounce buffer of an unaligned read from an O_DIRECT file. */
#define BOUNCE_BYTES (1u << 20)

/* ---- opening ---- */

static const struct {
	int error;
	const char *why_fix;
} open_errors[] = {
	{ENOENT, "no such file; check the path"},
	{EACCES, "permission denied; change its mode or owner, or run as a user who may open it"},
	{EPERM, "not permitted; it may be immutable or sealed"},
	{EISDIR, "is a directory; name a file in it"},
	{ENOTDIR, "a part of the path is not a directory; check the path"},
	{ELOOP, "too many symbolic links; check where they lead"},
	{ENAMETOOLONG, "the path is too long; use a shorter one"},
	{EROFS, "the file system is read-only; remount it, or open the file only for reading"},
	{ETXTBSY, "is a program that is running; write to a copy"},
	{ENXIO, "nobody is at the other end of it; a socket is read as \"-\" (standard input)"},
	{EMFILE, "too many open files in this process; close some or raise \"ulimit -n\""},
	{ENFILE, "too many open files on this machine; close some or raise fs.file-max"},
	{EEXIST, "exists already; leave out O_EXCL or choose another name"},
	{ENOSPC, "disk full; free some space there"},
	{EDQUOT, "disk quota exceeded; free some space there"},
	{EINVAL, "these flags are not possible here; O_DIRECT needs a file system that has it"},
	{ENOMEM, "out of memory; free some"},
};

static int open_fail(const char *path, int error)
{
	for (size_t i = 0; i < sizeof(open_errors) / sizeof(open_errors[0]); i++)
		if (open_errors[i].error == error)
			return host_fail(-error, "%s: %s", path, open_errors[i].why_fix);
	return host_fail(-error, "%s: %s; check that it can be opened by other programs", path,
			 strerror(error));
}

static int open_fd(const char *path, int flags, mode_t mode)
{
	int fd;

	if (!strcmp(path, "-")) {
		if ((flags & O_ACCMODE) != O_RDONLY)
			return host_fail(-EINVAL, "standard input: cannot be written; name a file");
		fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		if (fd < 0)
			return host_fail(-errno, "standard input: %s; it must be open to be read",
					 strerror(errno));
		return fd;
	}
	do
		fd = open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? open_fail(path, errno) : fd;
}

static int open_check(const char *path, int flags)
{
	if (!path || !*path)
		return host_fail(
			-EINVAL,
			"file: its name is empty; give a path or \"-\" for standard input");
	if (flags & O_APPEND)
		return host_fail(
			-EINVAL,
			"%s: O_APPEND would ignore offsets; leave it out and write at lio_size()",
			path);
	return 0;
}

static int open_local(const char *path, int flags, mode_t mode, struct lio_file *file)
{
	bool input = !strcmp(path, "-");
	struct stat st;
	int rc = 0;

	file->fd = open_fd(path, flags, mode);
	if (file->fd < 0)
		return file->fd;
	if (fstat(file->fd, &st))
		rc = open_fail(path, errno);
	else if (S_ISDIR(st.st_mode))
		rc = open_fail(path, EISDIR);
	if (rc) {
		close(file->fd);
		return rc;
	}
	file->kind = input                 ? FILE_STREAM
		     : S_ISREG(st.st_mode) ? FILE_REGULAR
		     : S_ISBLK(st.st_mode) ? FILE_BLOCK
					   : FILE_STREAM;
	file->ops = file->kind == FILE_STREAM ? &stream_ops : &random_ops;
	return 0;
}

int lio_open(const char *path, int flags, mode_t mode, struct lio_file **out)
{
	struct lio_file *file;
	int rc = open_check(path, flags);

	*out = NULL;
	if (rc)
		return rc;
	file = calloc(1, sizeof(*file));
	if (file)
		file->name = strdup(strcmp(path, "-") ? path : "standard input");
	if (!file || !file->name) {
		free(file);
		return open_fail(path, ENOMEM);
	}
	file->fd = file->buffered = -1;
	file->flags = flags;
	if (remote_is_url(path)) {
		file->kind = FILE_REMOTE;
		file->ops = &file_remote_ops;
		rc = remote_open(path, flags, mode, file);
	} else {
		rc = open_local(path, flags, mode, file);
	}
	if (rc) {
		free(file->name);
		free(file);
		return rc;
	}
	pthread_mutex_init(&file->lock, NULL);
	*out = file;
	return 0;
}

static int local_close(struct lio_file *file)
{
	int rc = 0;

	/* A file system may report a failed earlier store only now.  EINTR: the descriptor is gone all the same. */
	if (file->buffered >= 0 && close(file->buffered) && errno != EINTR)
		rc = -errno;
	if (close(file->fd) && errno != EINTR)
		rc = -errno;
	return rc;
}

int lio_close(struct lio_file *file)
{
	int rc;

	if (!file)
		return 0;
	rc = file->ops->close(file);
	if (rc)
		host_fail(rc, "%s: closing: %s; what was written last may be lost", file->name,
			  strerror(-rc));
	pthread_mutex_destroy(&file->lock);
	free(file->name);
	free(file);
	return rc;
}

/* ---- reading ---- */

/* Through an aligned buffer, since O_DIRECT reads nothing else. */
static int64_t pread_bounce(int fd, uint8_t *buf, size_t len, uint64_t offset)
{
	uint64_t start = offset & ~(uint64_t)(DIRECT_ALIGN - 1);
	uint64_t end = (offset + len + DIRECT_ALIGN - 1) & ~(uint64_t)(DIRECT_ALIGN - 1);
	size_t size = end - start < BOUNCE_BYTES ? end - start : BOUNCE_BYTES, done = 0;
	uint8_t *bounce = aligned_alloc(DIRECT_ALIGN, size);
	int64_t rc = 0;

	if (!bounce)
		return -ENOMEM;
	while (done < len) {
		size_t want = end - start < size ? end - start : size, skip = offset + done - start;
		ssize_t n = pread(fd, bounce, want, (off_t)start);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = -errno;
		if (n <= (ssize_t)skip)
			break;
		n -= (ssize_t)skip;
		if ((size_t)n > len - done)
			n = (ssize_t)(len - done);
		memcpy(buf + done, bounce + skip, (size_t)n);
		done += (size_t)n;
		start += skip + (size_t)n;
		if (start % DIRECT_ALIGN)
			break; /* the file's end, or all that was wanted */
	}
	free(bounce);
	return rc ? rc : (int64_t)done;
}

static bool direct_unaligned(const struct lio_file *file, const void *buf, size_t len,
			     uint64_t offset)
{
	return (file->flags & O_DIRECT) && (((uintptr_t)buf | len | offset) % DIRECT_ALIGN);
}

static int64_t random_pread(struct lio_file *file, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	if (offset > INT64_MAX - len)
		return -EOVERFLOW;
	if (direct_unaligned(file, buf, len, offset))
		return pread_bounce(file->fd, buf, len, offset);
	while (done < len) {
		ssize_t n =
			pread(file->fd, (uint8_t *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
		/* Only the end leaves a direct read unaligned, and reading on from there would be refused. */
		if (!n || ((file->flags & O_DIRECT) && done % DIRECT_ALIGN))
			break;
	}
	return (int64_t)done;
}

static int64_t stream_pread(struct lio_file *file, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;
	int64_t rc = 0;

	pthread_mutex_lock(&file->lock);
	if (offset != file->pos) {
		rc = host_fail(-ESPIPE, "%s: a stream, now at byte %llu; read it in order",
			       file->name, (unsigned long long)file->pos);
		if (file->pos == FILE_CLAIMED)
			rc = host_fail(-ESPIPE,
				       "%s: a function has read this stream; open it again",
				       file->name);
		goto out;
	}
	while (done < len) {
		ssize_t n = read(file->fd, (uint8_t *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !done)
			rc = host_fail(-errno, "%s: reading: %s; check what feeds it", file->name,
				       strerror(errno));
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	file->pos += done;
out:
	pthread_mutex_unlock(&file->lock);
	return rc ? rc : (int64_t)done;
}

int64_t lio_pread(struct lio_file *file, void *buf, size_t len, uint64_t offset)
{
	int64_t n;

	if (!file_readable(file))
		return host_fail(-EBADF,
				 "%s: not open for reading; open it with O_RDONLY or O_RDWR",
				 file->name);
	n = file_pread(file, buf, len, offset);
	if (n < 0 && !file->ops->explains)
		return host_fail(
			(int)n, "%s: reading %zu bytes at byte %llu: %s; try another program on it",
			file->name, len, (unsigned long long)offset, strerror((int)-n));
	return n;
}

/* ---- storing ---- */

void file_limit_enter(struct file_limit *lim)
{
	sigset_t set, waiting;

	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &set, &lim->old);
	sigpending(&waiting);
	lim->pending = sigismember(&waiting, SIGXFSZ) == 1;
}

void file_limit_leave(struct file_limit *lim)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	/* Take back ours; one that was waiting before stays. */
	if (!lim->pending)
		while (sigtimedwait(&set, NULL, &(struct timespec){0}) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &lim->old, NULL);
}

/* The same open file without O_DIRECT; the kernel keeps both views coherent. */
static int buffered_fd(struct lio_file *file)
{
	char path[32];
	int fd;

	pthread_mutex_lock(&file->lock);
	if (file->buffered < 0) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
		file->buffered = open(path, (file->flags & O_ACCMODE) | O_CLOEXEC);
	}
	fd = file->buffered < 0 ? -errno : file->buffered;
	pthread_mutex_unlock(&file->lock);
	return fd;
}

static int local_pwrite(struct lio_file *file, const void *buf, size_t len, uint64_t offset,
			uint64_t *done)
{
	int fd = file->fd;

	if (offset > INT64_MAX - len)
		return -EFBIG;
	if (direct_unaligned(file, buf, len, offset)) {
		fd = buffered_fd(file);
		if (fd < 0)
			return fd;
	}
	while (len) {
		ssize_t n = pwrite(fd, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		buf = (const uint8_t *)buf + n;
		len -= (size_t)n;
		offset += (size_t)n;
		*done += (size_t)n;
	}
	return 0;
}

int64_t lio_pwrite(struct lio_file *file, const void *buf, size_t len, uint64_t offset)
{
	struct file_limit lim;
	uint64_t done = 0;
	int rc;

	if ((file->flags & O_ACCMODE) == O_RDONLY)
		return host_fail(-EBADF,
				 "%s: not open for writing; open it with O_WRONLY or O_RDWR",
				 file->name);
	file_limit_enter(&lim);
	rc = file_pwrite(file, buf, len, offset, &done);
	file_limit_leave(&lim);
	pthread_mutex_lock(&file->lock);
	file->probed = false; /* the clock of mtime is too coarse to show every store */
	pthread_mutex_unlock(&file->lock);
	if (rc && !file->ops->explains)
		return host_fail(rc,
				 "%s: writing %zu bytes at byte %llu: %s after %llu of them; "
				 "check space, limits and how it was opened",
				 file->name, len, (unsigned long long)offset, strerror(-rc),
				 (unsigned long long)done);
	return rc ? rc : (int64_t)len;
}

/* ---- the rest ---- */

static int64_t random_size(struct lio_file *file)
{
	struct stat st;
	off_t end;

	if (file->kind == FILE_BLOCK) {
		end = lseek(file->fd, 0, SEEK_END);
		return end < 0 ? -errno : end;
	}
	return fstat(file->fd, &st) ? -errno : st.st_size;
}

/* Devices may take it. */
static int stream_pwrite(struct lio_file *file, const void *buf, size_t len, uint64_t offset,
			 uint64_t *done)
{
	int rc = local_pwrite(file, buf, len, offset, done);

	if (rc)
		host_fail(rc, "%s: writing %zu bytes at byte %llu: %s; name a regular file",
			  file->name, len, (unsigned long long)offset, strerror(-rc));
	return rc;
}

static int64_t stream_size(struct lio_file *file)
{
	return host_fail(-ESPIPE, "%s: a stream has no size; read it to its end", file->name);
}

int64_t lio_size(struct lio_file *file)
{
	int64_t size = file_size(file);

	if (size < 0 && !file->ops->explains)
		return host_fail((int)size, "%s: asking for its size: %s; check the file system",
				 file->name, strerror((int)-size));
	return size;
}

static int local_sync(struct lio_file *file)
{
	int rc;

	do
		rc = fsync(file->fd);
	while (rc && errno == EINTR);
	return !rc || errno == EINVAL ? 0 : -errno; /* EINVAL: a device with nothing to flush */
}

static int sync_fail(const struct lio_file *file, int code)
{
	return host_fail(code, "%s: flushing to the medium: %s; what was written may be lost",
			 file->name, strerror(-code));
}

static int stream_sync(struct lio_file *file)
{
	int rc = local_sync(file);

	return rc ? sync_fail(file, rc) : 0;
}

int lio_sync(struct lio_file *file)
{
	int rc = file->ops->sync(file);

	return rc && !file->ops->explains ? sync_fail(file, rc) : rc;
}

static int local_truncate(struct lio_file *file, uint64_t size)
{
	if (size > INT64_MAX)
		return -EFBIG;
	return ftruncate(file->fd, (off_t)size) ? -errno : 0;
}

static int stream_truncate(struct lio_file *file, uint64_t size)
{
	return host_fail(-EINVAL, "%s: a stream has no size; name a regular file", file->name);
}

int lio_truncate(struct lio_file *file, uint64_t size)
{
	struct file_limit lim;
	int rc;

	if ((file->flags & O_ACCMODE) == O_RDONLY)
		return host_fail(-EBADF,
				 "%s: not open for writing; open it with O_WRONLY or O_RDWR",
				 file->name);
	file_limit_enter(&lim);
	rc = file->ops->truncate(file, size);
	file_limit_leave(&lim);
	if (rc && !file->ops->explains)
		return host_fail(rc,
				 "%s: changing its size to %llu: %s; check what it is and its "
				 "file system",
				 file->name, (unsigned long long)size, strerror(-rc));
	return rc;
}

static const struct file_ops random_ops = {
	.pread = random_pread,
	.pwrite = local_pwrite,
	.size = random_size,
	.sync = local_sync,
	.truncate = local_truncate,
	.close = local_close,
};

static const struct file_ops stream_ops = {
	.explains = true,
	.pread = stream_pread,
	.pwrite = stream_pwrite,
	.size = stream_size,
	.sync = stream_sync,
	.truncate = stream_truncate,
	.close = local_close,
};
