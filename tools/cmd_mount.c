/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_mount.c - lio mount: a directory of a server as a file system, by FUSE.
 *
 * Plain bytes for stock tools; functions are "lio run"'s.  The kernel keeps what it read in its page cache and drops
 * it when a file that is opened has another size or time of modification than before.
 */
#include "lio.h"

#ifdef LIO_FUSE

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRANSFER (1u << 20) /* bytes that the kernel asks for or sends at once, at most */

static struct {
	const char *url; /* of the root, without a slash behind it */
	size_t url_len;
} mounted;

/* ---- paths ---- */

/* The address of @path, every byte but slashes encoded that might mean something. */
static char *url_of(const char *path)
{
	char *url = malloc(mounted.url_len + 3 * strlen(path) + 1), *to = url;

	if (!url)
		return NULL;
	to = mempcpy(to, mounted.url, mounted.url_len);
	for (; *path; path++) {
		if (*path == '%')
			to = stpcpy(to, "%25");
		else
			*to++ = *path;
	}
	*to = 0;
	return url;
}

/* @call of the address of @path, which it sees as "url". */
#define WITH_URL(path, call)                          \
	__extension__({                               \
		char *url = url_of(path);             \
		int with_rc = url ? (call) : -ENOMEM; \
		free(url);                            \
		with_rc;                              \
	})

/* ---- what is there ---- */

static mode_t mode_of(enum lio_type type)
{
	switch (type) {
	case LIO_TYPE_DIRECTORY:
		return S_IFDIR;
	case LIO_TYPE_SYMLINK: /* what it leads to, where that can be opened, is a file */
	case LIO_TYPE_FILE:
		break;
	case LIO_TYPE_OTHER:
		return S_IFIFO;
	}
	return S_IFREG;
}

/* A link is followed by the server: what it leads to shows when it is opened. */
static int follow(const char *url, struct stat *st)
{
	struct lio_file *file;
	int64_t size;
	int rc = lio_open(url, O_RDONLY, 0, &file);

	if (rc == -EISDIR) {
		st->st_mode = S_IFDIR | 0555;
		return 0;
	}
	if (rc)
		return rc;
	size = lio_size(file);
	lio_close(file);
	st->st_size = size > 0 ? size : 0;
	return size < 0 ? (int)size : 0;
}

static int stat_url(const char *url, struct stat *st)
{
	struct lio_stat s = {.size = sizeof(s)};
	int rc = lio_stat(url, &s);

	if (rc)
		return rc;
	*st = (struct stat){
		.st_mode = mode_of(s.type) | (s.mode & (s.writable ? 0777u : 0555u)),
		.st_nlink = s.links ? s.links : 1,
		.st_uid = getuid(),
		.st_gid = getgid(),
		.st_size = (off_t)s.bytes,
		.st_blocks = (blkcnt_t)((s.bytes + 511) / 512),
		.st_blksize = TRANSFER,
		.st_mtim = {s.mtime, s.mtime_ns},
		.st_ctim = {s.ctime, s.ctime_ns},
		.st_atim = {s.mtime, s.mtime_ns},
	};
	return s.type == LIO_TYPE_SYMLINK ? follow(url, st) : 0;
}

static struct lio_file *file_of(const struct fuse_file_info *fi)
{
	return (struct lio_file *)(uintptr_t)fi->fh;
}

static int on_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	int64_t size;
	int rc = WITH_URL(path, stat_url(url, st));

	if (rc != -ENOENT || !fi)
		return rc;
	size = lio_size(file_of(fi)); /* removed, and still open */
	if (size < 0)
		return (int)size;
	*st = (struct stat){.st_mode = S_IFREG | 0600, .st_size = size, .st_uid = getuid()};
	return 0;
}

struct filling {
	void *buf;
	fuse_fill_dir_t fill;
};

static int fill_entry(void *arg, const struct lio_entry *e)
{
	struct filling *f = arg;
	struct stat st = {.st_mode = mode_of(e->type)};

	return f->fill(f->buf, e->name, &st, 0, 0) ? -ENOMEM : 0;
}

static int on_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
		      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct filling f = {buf, fill};

	(void)offset, (void)fi, (void)flags;
	fill(buf, ".", NULL, 0, 0);
	fill(buf, "..", NULL, 0, 0);
	return WITH_URL(path, lio_list(url, fill_entry, &f));
}

/* ---- open files ---- */

static int open_path(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
	struct lio_file *file;
	int rc = WITH_URL(path, lio_open(url, flags, mode, &file));

	if (!rc)
		fi->fh = (uint64_t)(uintptr_t)file;
	return rc;
}

static int on_open(const char *path, struct fuse_file_info *fi)
{
	return open_path(path, fi->flags & (O_ACCMODE | O_TRUNC), 0, fi);
}

static int on_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	return open_path(path, O_CREAT | (fi->flags & (O_ACCMODE | O_EXCL | O_TRUNC)), mode, fi);
}

static int on_read(const char *path, char *buf, size_t len, off_t offset, struct fuse_file_info *fi)
{
	(void)path;
	return (int)lio_pread(file_of(fi), buf, len, (uint64_t)offset);
}

static int on_write(const char *path, const char *buf, size_t len, off_t offset,
		    struct fuse_file_info *fi)
{
	(void)path;
	return (int)lio_pwrite(file_of(fi), buf, len, (uint64_t)offset);
}

static int on_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
	(void)path, (void)data_only;
	return lio_sync(file_of(fi));
}

static int on_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	return lio_close(file_of(fi));
}

static int truncate_url(const char *url, uint64_t size)
{
	struct lio_file *file;
	int rc = lio_open(url, O_WRONLY, 0, &file);

	if (rc)
		return rc;
	rc = lio_truncate(file, size);
	lio_close(file);
	return rc;
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	return fi ? lio_truncate(file_of(fi), (uint64_t)size)
		  : WITH_URL(path, truncate_url(url, (uint64_t)size));
}

/* ---- names ---- */

static int on_remove(const char *path)
{
	return WITH_URL(path, lio_remove(url));
}

static int on_mkdir(const char *path, mode_t mode)
{
	return WITH_URL(path, lio_mkdir(url, mode));
}

static int on_rename(const char *from, const char *to, unsigned int flags)
{
	char *target;
	int rc;

	if (flags)
		return -EINVAL;
	target = url_of(to);
	rc = target ? WITH_URL(from, lio_rename(url, target)) : -ENOMEM;
	free(target);
	return rc;
}

/* The server's files are its user's, with the times of what was done to them: nothing else can be asked for. */
static int on_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	(void)path, (void)mode, (void)fi;
	return -EOPNOTSUPP;
}

static int on_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	(void)path, (void)uid, (void)gid, (void)fi;
	return -EOPNOTSUPP;
}

static int on_utimens(const char *path, const struct timespec tv[2], struct fuse_file_info *fi)
{
	(void)path, (void)tv, (void)fi;
	return -EOPNOTSUPP;
}

/* ---- mounting ---- */

static void *on_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	conn->max_write = TRANSFER;
	conn->max_readahead = TRANSFER;
	cfg->auto_cache = 1;      /* what is opened unchanged is still cached */
	cfg->entry_timeout = 1.0; /* others work on the server, too */
	cfg->attr_timeout = 1.0;
	cfg->negative_timeout = 0;
	cfg->hard_remove = 1; /* the server keeps what is open */
	return NULL;
}

static const struct fuse_operations operations = {
	.init = on_init,
	.getattr = on_getattr,
	.readdir = on_readdir,
	.open = on_open,
	.create = on_create,
	.read = on_read,
	.write = on_write,
	.fsync = on_fsync,
	.release = on_release,
	.truncate = on_truncate,
	.unlink = on_remove,
	.rmdir = on_remove,
	.mkdir = on_mkdir,
	.rename = on_rename,
	.chmod = on_chmod,
	.chown = on_chown,
	.utimens = on_utimens,
};

/* What would otherwise show only at the first access. */
static int check(const char *url, const char *dir)
{
	struct lio_stat s = {.size = sizeof(s)};
	struct stat st;
	int err;

	if (!cli_is_url(url))
		return cli_fail(EINVAL, "write lio://HOST/EXPORT",
				"mount: %s: is no path of a server", url);
	err = lio_stat(url, &s);
	if (err)
		return cli_fail_lib(err);
	if (s.type != LIO_TYPE_DIRECTORY)
		return cli_fail(ENOTDIR, "name a directory of an export",
				"mount: %s: is no directory", url);
	if (stat(dir, &st))
		return cli_fail(errno, "make it first", "mount: %s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return cli_fail(ENOTDIR, "name an empty directory", "mount: %s: is no directory",
				dir);
	return 0;
}

static int serve(const struct cli *cli, struct fuse *fuse)
{
	struct fuse_session *session = fuse_get_session(fuse);
	struct fuse_loop_config loop = {.clone_fd = 0, .max_idle_threads = 10};
	int rc = fuse_daemonize(cli->foreground);

	if (rc)
		return cli_fail(EIO, "try --foreground", "mount: cannot go to the background");
	if (fuse_set_signal_handlers(session))
		return cli_fail(EIO, NULL, "mount: cannot handle signals");
	rc = fuse_loop_mt(fuse, &loop);
	fuse_remove_signal_handlers(session);
	return rc < 0 ? cli_fail(rc, NULL, "mount: %s", strerror(-rc)) : CLI_DONE;
}

static int mount_it(const struct cli *cli, const char *dir)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse *fuse = NULL;
	int status = CLI_FAILED;

	/* The address stands in /proc/mounts, where a comma would begin the next option. */
	if (!fuse_opt_add_arg(&args, "lio") &&
	    !fuse_opt_add_arg(&args, cli->read_only ? "-osubtype=lio,fsname=lio,ro"
						    : "-osubtype=lio,fsname=lio"))
		fuse = fuse_new(&args, &operations, sizeof(operations), NULL);
	fuse_opt_free_args(&args);
	if (!fuse)
		return cli_fail(ENOMEM, CLI_FIX_MEMORY, "mount: FUSE cannot be set up");
	if (fuse_mount(fuse, dir)) {
		cli_fail(EPERM, "see the line before this; /dev/fuse and fusermount3 are needed",
			 "mount: %s: cannot mount there", dir);
	} else {
		status = serve(cli, fuse);
		fuse_unmount(fuse);
	}
	fuse_destroy(fuse);
	return status;
}

int cmd_mount(int argc, char **argv)
{
	struct cli cli;
	size_t len;
	char *url;
	int status;

	if (cli_parse(CLI_MOUNT, argc, argv, &cli) || cli_words(CLI_MOUNT, &cli, 2, 2) ||
	    check(cli.words[0], cli.words[1]))
		return CLI_FAILED;
	url = cli_strdup(cli.words[0]);
	for (len = strlen(url); len && url[len - 1] == '/'; len--)
		;
	url[len] = 0;
	mounted.url = url;
	mounted.url_len = len;
	status = mount_it(&cli, cli.words[1]);
	free(url);
	return status;
}

#else /* LIO_FUSE */

#include <errno.h>

int cmd_mount(int argc, char **argv)
{
	(void)argc, (void)argv;
	return cli_fail(EOPNOTSUPP, "install libfuse3-dev and build again",
			"mount: this lio was built without libfuse3");
}

#endif
