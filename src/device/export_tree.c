/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export_tree.c - names below an exported directory, from hosts that may not leave it.
 *
 * Every name is resolved by openat2(2) from the descriptor of the export's root, beneath it: symbolic links are
 * followed as long as they stay inside, magic links never, mount points only where the export says so.  The
 * kernel holds to that also while others rename what is on the way, which no check of ours before or after
 * could.  A file is first looked at without opening it (O_PATH), so that no FIFO or device notices; what is
 * opened is then the very file that was looked at.
 *
 * A name that is made, renamed or removed is a last name in a directory that was resolved like this, and is
 * never followed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "device/export.h"

/* The kernel gives up on ".." in a link while something is renamed; and a file may come and go. */
#define RETRIES 128
#define STATX   (STATX_BASIC_STATS)

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

int export_path_check(const char *path, size_t len, const char **why)
{
	size_t start = 0;

	*why = NULL;
	if (len >= PATH_MAX) {
		*why = "the path is longer than 4095 bytes";
		return -ENAMETOOLONG;
	}
	if (memchr(path, 0, len)) {
		*why = "a zero byte in the path";
		return -EINVAL;
	}
	for (size_t i = 0; len && i <= len; i++) {
		size_t n = i - start;

		if (i < len && path[i] != '/')
			continue;
		if (!n)
			*why = "an empty name in the path: a slash too many";
		else if (n <= 2 && !memcmp(path + start, "..", n))
			*why = "\".\" or \"..\" in the path";
		if (*why)
			return -EINVAL;
		if (n > NAME_MAX) {
			*why = "a name is longer than 255 bytes";
			return -ENAMETOOLONG;
		}
		start = i + 1;
	}
	return 0;
}

static int resolve(const struct ctrl_export *e, const char *path, int flags, uint32_t mode)
{
	const struct open_how how = {
		.flags = (unsigned int)flags | O_CLOEXEC,
		.mode = mode,
		.resolve =
			RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (e->mounts ? 0 : RESOLVE_NO_XDEV),
	};
	long fd = -1;

	for (int i = 0; i < RETRIES && fd < 0; i++) {
		fd = syscall(SYS_openat2, e->root, *path ? path : ".", &how, sizeof(how));
		if (fd < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	return fd < 0 ? -EBUSY : (int)fd;
}

/* ---- stat ---- */

static uint8_t type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return NVME_PATH_FILE;
	case S_IFDIR:
		return NVME_PATH_DIRECTORY;
	case S_IFLNK:
		return NVME_PATH_SYMLINK;
	default:
		return NVME_PATH_OTHER;
	}
}

static void put_stat(const struct ctrl_export *e, const struct statx *st,
		     struct nvme_path_stat *out)
{
	*out = (struct nvme_path_stat){
		.size = htole64(st->stx_size),
		.inode = htole64(st->stx_ino),
		.mtime = (int64_t)htole64((uint64_t)st->stx_mtime.tv_sec),
		.ctime = (int64_t)htole64((uint64_t)st->stx_ctime.tv_sec),
		.mtime_ns = htole32(st->stx_mtime.tv_nsec),
		.ctime_ns = htole32(st->stx_ctime.tv_nsec),
		.mode = htole32(st->stx_mode & 07777),
		.links = htole32(st->stx_nlink),
		.uid = htole32(st->stx_uid),
		.gid = htole32(st->stx_gid),
		.type = type_of(st->stx_mode),
		.writable = e->writable,
	};
}

static int stat_fd(const struct ctrl_export *e, int fd, struct nvme_path_stat *out)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX, &st))
		return -errno;
	put_stat(e, &st, out);
	return 0;
}

int export_stat(const struct ctrl_export *e, const char *path, struct nvme_path_stat *out)
{
	int fd = resolve(e, path, O_PATH | O_NOFOLLOW, 0), rc;

	if (fd < 0)
		return fd;
	rc = stat_fd(e, fd, out);
	close(fd);
	return rc;
}

/* ---- open ---- */

/* A descriptor of the file that @fd stands for, whatever its name has come to mean. */
static int reopen(int fd, int flags)
{
	char path[40];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	do {
		again = open(path, flags | O_CLOEXEC | O_NOCTTY);
	} while (again < 0 && errno == EINTR);
	return again < 0 ? -errno : again;
}

/* Its attributes are in this machine's memory or on its disks. */
static bool is_local(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	switch ((unsigned long)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
		return true;
	default:
		return false;
	}
}

static int check_flags(const struct ctrl_export *e, uint32_t flags, uint32_t mode)
{
	const uint32_t changes =
		NVME_PATH_WRITE | NVME_PATH_CREATE | NVME_PATH_EXCLUSIVE | NVME_PATH_TRUNCATE;

	if (!(flags & (NVME_PATH_READ | NVME_PATH_WRITE)) || mode & ~0777u ||
	    (flags & (NVME_PATH_CREATE | NVME_PATH_TRUNCATE) && !(flags & NVME_PATH_WRITE)) ||
	    (flags & NVME_PATH_EXCLUSIVE && !(flags & NVME_PATH_CREATE)))
		return -EINVAL;
	return flags & changes && !e->writable ? -EROFS : 0;
}

/* A descriptor to look at a regular file, or to write one that was made just now. */
static int find_or_make(const struct ctrl_export *e, const char *path, uint32_t flags,
			uint32_t mode, bool *made)
{
	int fd = -ENOENT;

	*made = false;
	for (int i = 0; i < RETRIES; i++) {
		if (!(flags & NVME_PATH_EXCLUSIVE))
			fd = resolve(e, path, O_PATH, 0);
		if (fd != -ENOENT || !(flags & NVME_PATH_CREATE))
			return fd;
		fd = resolve(e, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY, mode);
		*made = fd >= 0;
		if (fd != -EEXIST || flags & NVME_PATH_EXCLUSIVE)
			return fd;
	}
	return -ELOOP; /* a link to nothing: nothing is made where it points to */
}

static int check_type(const struct nvme_path_stat *st)
{
	if (st->type == NVME_PATH_DIRECTORY)
		return -EISDIR;
	return st->type == NVME_PATH_FILE ? 0 : -EACCES;
}

static void close_file(struct export_file *f)
{
	if (f->read >= 0)
		close(f->read);
	if (f->write >= 0)
		close(f->write);
	f->read = f->write = -1;
}

int export_open(const struct ctrl_export *e, const char *path, uint32_t flags, uint32_t mode,
		struct export_file *out)
{
	int rc = check_flags(e, flags, mode), fd;

	*out = (struct export_file){.read = -1, .write = -1};
	if (rc)
		return rc;
	fd = find_or_make(e, path, flags, mode, &out->made);
	if (fd < 0)
		return fd;
	rc = stat_fd(e, fd, &out->stat);
	if (!rc)
		rc = check_type(&out->stat);
	if (!rc && flags & NVME_PATH_READ)
		rc = (out->read = reopen(fd, O_RDONLY)) < 0 ? out->read : 0;
	if (!rc && out->made) {
		out->write = fd;
		fd = -1;
	} else if (!rc && flags & NVME_PATH_WRITE) {
		rc = (out->write = reopen(fd, O_WRONLY)) < 0 ? out->write : 0;
	}
	if (!rc && flags & NVME_PATH_TRUNCATE && !out->made) {
		rc = ftruncate(out->write, 0) ? -errno : stat_fd(e, out->write, &out->stat);
	}
	if (!rc)
		out->local = is_local(out->read >= 0 ? out->read : out->write);
	else
		close_file(out);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* ---- list ---- */

struct dirent64_raw { /* as getdents64(2) writes it */
	uint64_t ino;
	int64_t off;
	uint16_t len;
	uint8_t type;
	char name[];
};

static void put_entry(int dir, const struct dirent64_raw *d, size_t name_len, uint8_t *to)
{
	struct nvme_path_entry entry = {.cookie = htole64((uint64_t)d->off),
					.name_len = htole16((uint16_t)name_len)};
	struct statx st;

	if (!statx(dir, d->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		   STATX_TYPE | STATX_SIZE | STATX_MTIME, &st)) {
		entry.type = type_of(st.stx_mode);
		entry.size = htole64(st.stx_size);
		entry.mtime = (int64_t)htole64((uint64_t)st.stx_mtime.tv_sec);
	} else {
		/* Gone since, or not ours to look at: the name is all that is known. */
		entry.type = type_of(DTTOIF(d->type));
	}
	memset(to, 0, export_entry_len(name_len));
	memcpy(to, &entry, sizeof(entry));
	memcpy(to + sizeof(entry), d->name, name_len);
}

/* Entries of one buffer; 1: there is no room for more. */
static int put_entries(int dir, const char *buf, long n, uint8_t *to, uint32_t max, uint32_t *len)
{
	for (long at = 0; at < n;) {
		const struct dirent64_raw *d =
			(const struct dirent64_raw *)(const void *)(buf + at);
		size_t name_len = strlen(d->name);

		at += d->len;
		if (!strcmp(d->name, ".") || !strcmp(d->name, ".."))
			continue;
		if (name_len > NAME_MAX)
			return -EIO;
		if (export_entry_len(name_len) > max - *len)
			return 1;
		put_entry(dir, d, name_len, to + *len);
		*len += export_entry_len(name_len);
	}
	return 0;
}

int export_list(const struct ctrl_export *e, const char *path, uint64_t cookie, uint8_t *to,
		uint32_t max, uint32_t *len)
{
	char buf[16384] __attribute__((aligned(8)));
	int dir, rc = 0;
	long n = 1;

	*len = 0;
	if (cookie > INT64_MAX)
		return -EINVAL;
	dir = resolve(e, path, O_RDONLY | O_DIRECTORY, 0);
	if (dir < 0)
		return dir;
	if (cookie && lseek(dir, (off_t)cookie, SEEK_SET) < 0)
		rc = -errno;
	while (!rc && n > 0) {
		n = syscall(SYS_getdents64, dir, buf, sizeof(buf));
		if (n < 0 && errno != EINTR)
			rc = -errno;
		else if (n > 0)
			rc = put_entries(dir, buf, n, to, max, len);
	}
	close(dir);
	return rc < 0 && !*len ? rc : 0;
}

/* ---- changes ---- */

/* The directory that holds @path's last name, which is *@name. */
static int parent(const struct ctrl_export *e, const char *path, const char **name)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;

	if (!e->writable)
		return -EROFS;
	if (!*path)
		return -EBUSY; /* the root stays */
	if (n >= sizeof(dir))
		return -ENAMETOOLONG;
	memcpy(dir, path, n);
	dir[n] = '\0';
	*name = slash ? slash + 1 : path;
	return resolve(e, dir, O_PATH | O_DIRECTORY, 0);
}

/* The names in it are durable. */
static int sync_directory(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	/* One that may be searched but not read. */
	if (fd < 0)
		return errno == EACCES ? 0 : -errno;
	rc = fsync(fd) && errno != EINVAL && errno != ENOTSUP ? -errno : 0;
	close(fd);
	return rc;
}

int export_rename(const struct ctrl_export *e, const char *from, const char *to)
{
	const char *from_name, *to_name;
	int a = parent(e, from, &from_name), b, rc;

	if (a < 0)
		return a;
	b = parent(e, to, &to_name);
	if (b < 0) {
		close(a);
		return b;
	}
	/* Never in neither: the new name is on the disk before the old one goes from it. */
	rc = renameat(a, from_name, b, to_name) ? -errno : sync_directory(b);
	if (!rc && (from_name - from != to_name - to || memcmp(from, to, (size_t)(to_name - to))))
		rc = sync_directory(a);
	close(a);
	close(b);
	return rc;
}

int export_remove(const struct ctrl_export *e, const char *path)
{
	const char *name;
	int dir = parent(e, path, &name), rc;

	if (dir < 0)
		return dir;
	rc = unlinkat(dir, name, 0) ? -errno : 0;
	if (rc == -EISDIR)
		rc = unlinkat(dir, name, AT_REMOVEDIR) ? -errno : 0;
	close(dir);
	return rc;
}

int export_mkdir(const struct ctrl_export *e, const char *path, uint32_t mode)
{
	const char *name;
	int dir, rc;

	if (mode & ~0777u)
		return -EINVAL;
	if (!*path)
		return e->writable ? -EEXIST : -EROFS;
	dir = parent(e, path, &name);
	if (dir < 0)
		return dir;
	rc = mkdirat(dir, name, mode) ? -errno : 0;
	close(dir);
	return rc;
}
