/* SPDX-License-Identifier: Apache-2.0 */
/* Exported directories: what is found below one, and that nothing outside is ever reached, changed or disturbed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/export.h"

#define READ   NVME_PATH_READ
#define WRITE  NVME_PATH_WRITE
#define CREATE (NVME_PATH_WRITE | NVME_PATH_CREATE)

static char top[64];           /* holds tree, which is exported, and out, which is not */
static struct ctrl_export *rw; /* tree */

/* ---- making files ---- */

static const char *at(const char *name)
{
	static _Thread_local char paths[4][PATH_MAX];
	static _Thread_local unsigned int turn;
	char *p = paths[turn++ % 4];

	snprintf(p, PATH_MAX, "%s/%s", top, name);
	return p;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void link_to(const char *to, const char *name)
{
	assert_int_equal(symlink(to, at(name)), 0);
}

static void assert_holds(const char *name, const char *text)
{
	char got[64] = "";
	FILE *f = fopen(at(name), "r");

	assert_non_null(f);
	assert_true(fread(got, 1, sizeof(got) - 1, f) == strlen(text));
	assert_string_equal(got, text);
	fclose(f);
}

static bool there(const char *name)
{
	struct stat st;

	return !lstat(at(name), &st);
}

static struct ctrl_export *export(const char *dir, const char *options)
{
	struct ctrl_error err = {0};
	struct ctrl_export *e;
	char *spec;

	assert_true(asprintf(&spec, "x=%s%s", dir, options) > 0);
	if (export_new(spec, &e, &err))
		fail_msg("%s", err.text);
	free(spec);
	return e;
}

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%.40s/exports.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(top));
	assert_int_equal(mkdir(at("tree"), 0755), 0);
	assert_int_equal(mkdir(at("tree/dir"), 0755), 0);
	assert_int_equal(mkdir(at("tree/dir/sub"), 0755), 0);
	assert_int_equal(mkdir(at("out"), 0755), 0);
	put("out/secret", "secret");
	put("tree/file", "inside");
	put("tree/dir/file", "deeper");
	put("tree/dir/sub/file", "deepest");
	link_to("dir/file", "tree/to-file");
	link_to("dir", "tree/to-dir");
	link_to("../file", "tree/dir/up-inside");
	link_to("../out/secret", "tree/to-out");
	link_to("../out", "tree/to-out-dir");
	link_to("../../out/secret", "tree/dir/to-out");
	link_to("..", "tree/dir-up");
	link_to("../tree/file", "tree/out-and-in");
	link_to("to-out", "tree/to-to-out");
	link_to("loop", "tree/loop");
	link_to("missing", "tree/nowhere");
	link_to("../out/made", "tree/nowhere-out");
	link_to("/etc/passwd", "tree/absolute");
	link_to("/proc/self/root", "tree/magic");
	link_to(at("tree/file"), "tree/absolute-inside");
	assert_int_equal(mkfifo(at("tree/fifo"), 0666), 0);
	rw = export(at("tree"), ",rw");
	return 0;
}

static int tear_down(void **state)
{
	char command[100];

	export_free(rw);
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command);
}

/* ---- asking ---- */

static int opens(const struct ctrl_export *e, const char *path, uint32_t flags, char text[64])
{
	struct export_file f;
	int rc = export_open(e, path, flags, 0644, &f);

	if (text && !rc) {
		ssize_t n = read(f.read, text, 63);

		text[n < 0 ? 0 : n] = '\0';
	}
	if (rc)
		assert_true(f.read < 0 && f.write < 0);
	if (f.read >= 0)
		close(f.read);
	if (f.write >= 0)
		close(f.write);
	return rc;
}

static int stats(const struct ctrl_export *e, const char *path)
{
	struct nvme_path_stat st;

	return export_stat(e, path, &st);
}

static int lists(const struct ctrl_export *e, const char *path)
{
	uint8_t page[4096];
	uint32_t len;

	return export_list(e, path, 0, page, sizeof(page), &len);
}

static void assert_reads(const struct ctrl_export *e, const char *path, const char *text)
{
	char got[64];

	assert_int_equal(opens(e, path, READ, got), 0);
	assert_string_equal(got, text);
}

/* ---- what is there ---- */

static void files_below_are_opened_and_described(void **state)
{
	struct nvme_path_stat st;
	struct stat real;

	assert_reads(rw, "file", "inside");
	assert_reads(rw, "dir/file", "deeper");
	assert_reads(rw, "dir/sub/file", "deepest");
	assert_int_equal(stat(at("tree/dir/file"), &real), 0);
	assert_int_equal(export_stat(rw, "dir/file", &st), 0);
	assert_int_equal(st.type, NVME_PATH_FILE);
	assert_int_equal(le64toh(st.size), 6);
	assert_int_equal(le64toh(st.inode), real.st_ino);
	assert_int_equal(le32toh(st.mode), real.st_mode & 07777);
	assert_int_equal(le64toh((uint64_t)st.mtime), real.st_mtim.tv_sec);
	assert_int_equal(le32toh(st.mtime_ns), real.st_mtim.tv_nsec);
	assert_true(st.writable);
	assert_int_equal(export_stat(rw, "", &st), 0);
	assert_int_equal(st.type, NVME_PATH_DIRECTORY);
	assert_int_equal(export_stat(rw, "to-out", &st), 0);
	assert_int_equal(st.type, NVME_PATH_SYMLINK);
	assert_int_equal(export_stat(rw, "fifo", &st), 0);
	assert_int_equal(st.type, NVME_PATH_OTHER);
	assert_int_equal(opens(rw, "missing", READ, NULL), -ENOENT);
	assert_int_equal(opens(rw, "dir", READ, NULL), -EISDIR);
	assert_int_equal(opens(rw, "", READ, NULL), -EISDIR);
	assert_int_equal(opens(rw, "file/file", READ, NULL), -ENOTDIR);
	assert_int_equal(lists(rw, "file"), -ENOTDIR);
	assert_int_equal(lists(rw, "missing"), -ENOENT);
}

static void links_that_stay_inside_are_followed(void **state)
{
	assert_reads(rw, "to-file", "deeper");
	assert_reads(rw, "to-dir/file", "deeper");
	assert_reads(rw, "dir/up-inside", "inside");
	assert_int_equal(lists(rw, "to-dir"), 0);
}

static void an_object_of_both_ways_has_a_descriptor_that_cannot_write(void **state)
{
	struct export_file f;

	assert_int_equal(export_open(rw, "file", READ | WRITE, 0, &f), 0);
	assert_int_equal(fcntl(f.read, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(f.write, F_GETFL) & O_ACCMODE, O_WRONLY);
	assert_true(fcntl(f.read, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(f.write, F_GETFD) & FD_CLOEXEC);
	close(f.read);
	close(f.write);
}

/* ---- what is not ---- */

static void no_spelling_leads_out_of_the_tree(void **state)
{
	static const char *const files[] = {
		"to-out",          "to-to-out",       "dir/to-out",        "absolute",
		"out-and-in",      "absolute-inside", "to-out-dir/secret", "dir-up/out/secret",
		"magic/etc/passwd"};
	static const char *const dirs[] = {"to-out-dir", "dir-up", "magic", "magic/etc"};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		assert_int_equal(opens(rw, files[i], READ, NULL), -EXDEV);
		assert_int_equal(opens(rw, files[i], WRITE | NVME_PATH_TRUNCATE, NULL), -EXDEV);
		assert_int_equal(opens(rw, files[i], CREATE, NULL), -EXDEV);
	}
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		assert_int_equal(lists(rw, dirs[i]), -EXDEV);
	assert_int_equal(stats(rw, "to-out-dir/secret"), -EXDEV);
	assert_int_equal(opens(rw, "to-out-dir/made", CREATE, NULL), -EXDEV);
	assert_int_equal(opens(rw, "to-out-dir/made", CREATE | NVME_PATH_EXCLUSIVE, NULL), -EXDEV);
	assert_int_equal(export_mkdir(rw, "to-out-dir/made", 0755), -EXDEV);
	assert_int_equal(export_remove(rw, "to-out-dir/secret"), -EXDEV);
	assert_int_equal(export_rename(rw, "to-out-dir/secret", "got"), -EXDEV);
	assert_int_equal(export_rename(rw, "file", "to-out-dir/secret"), -EXDEV);
	assert_int_equal(opens(rw, "loop", READ, NULL), -ELOOP);
	assert_holds("out/secret", "secret");
	assert_holds("tree/file", "inside");
	assert_false(there("out/made"));
}

static void nothing_is_made_where_a_link_points_to(void **state)
{
	assert_int_equal(opens(rw, "nowhere", READ, NULL), -ENOENT);
	assert_int_equal(opens(rw, "nowhere", CREATE, NULL), -ELOOP);
	assert_int_equal(opens(rw, "nowhere", CREATE | NVME_PATH_EXCLUSIVE, NULL), -EEXIST);
	assert_int_equal(opens(rw, "nowhere-out", CREATE, NULL), -EXDEV);
	assert_int_equal(opens(rw, "nowhere-out", CREATE | NVME_PATH_EXCLUSIVE, NULL), -EEXIST);
	assert_false(there("tree/missing"));
	assert_false(there("out/made"));
}

/* /proc itself exported: every process' root and open files are one name away. */
static void magic_links_are_not_followed(void **state)
{
	struct ctrl_export *e = export("/proc/self", ",rw,mounts");
	int fd = open(at("out/secret"), O_RDONLY);
	char name[40];

	assert_true(fd >= 0);
	snprintf(name, sizeof(name), "fd/%d", fd);
	assert_int_equal(stats(e, "fd"), 0);
	assert_int_equal(opens(e, name, READ, NULL), -ELOOP);
	assert_int_equal(opens(e, "exe", READ, NULL), -ELOOP);
	assert_int_equal(lists(e, "root"), -ELOOP);
	assert_int_equal(opens(e, "root/etc/passwd", READ, NULL), -ELOOP);
	assert_int_equal(export_mkdir(e, "cwd/made", 0755), -ELOOP);
	close(fd);
	export_free(e);
}

static void *wait_in_open(void *arg)
{
	int fd = open(at("tree/fifo"), O_WRONLY);

	if (write(*(int *)arg, "x", 1) != 1 || fd < 0)
		abort();
	close(fd);
	return NULL;
}

static void devices_fifos_and_sockets_do_not_notice(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), ends[2], fd;
	struct pollfd p;
	pthread_t thread;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", at("tree/socket"));
	assert_int_equal(bind(s, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(pthread_create(&thread, NULL, wait_in_open, &ends[1]), 0);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(opens(rw, "fifo", READ, NULL), -EACCES);
		assert_int_equal(opens(rw, "fifo", WRITE, NULL), -EACCES);
		assert_int_equal(opens(rw, "fifo", READ | CREATE, NULL), -EACCES);
		assert_int_equal(opens(rw, "socket", READ, NULL), -EACCES);
		usleep(100);
	}
	p = (struct pollfd){.fd = ends[0], .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0); /* whoever waits for a reader still does */
	fd = open(at("tree/fifo"), O_RDONLY);
	assert_int_equal(poll(&p, 1, -1), 1);
	pthread_join(thread, NULL);
	close(fd);
	close(ends[0]);
	close(ends[1]);
	close(s);
	if (!mknod(at("tree/null"), S_IFCHR | 0666, 1 << 8 | 3))
		assert_int_equal(opens(rw, "null", READ, NULL), -EACCES);
}

/* ---- names ---- */

static int checks(const char *path, size_t len)
{
	const char *why;
	int rc = export_path_check(path, len, &why);

	assert_true(!rc == !why);
	return rc;
}

static void paths_are_plain_or_refused(void **state)
{
	static const char *const good[] = {"",    "a",  "a/b",     "...",     "..a",
					   "a..", ".a", "a/.../b", "a b\n\t", "\x80\xff/\xc3",
					   "-",   "~",  "C:\\x",   "*?"};
	static const char *const bad[] = {"/",    "//",   "/a",     "a/",     "a//b",
					  ".",    "..",   "./a",    "a/.",    "a/./b",
					  "../a", "a/..", "a/../b", "a/b/..", "../../etc/passwd",
					  "a/b//"};
	char path[6000];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(checks(good[i], strlen(good[i])), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(checks(bad[i], strlen(bad[i])), -EINVAL);
	assert_int_equal(checks("a\0b", 3), -EINVAL);
	assert_int_equal(checks("a\0", 2), -EINVAL);
	assert_int_equal(checks("\0", 1), -EINVAL);
	memset(path, 'n', sizeof(path));
	assert_int_equal(checks(path, 255), 0);
	assert_int_equal(checks(path, 256), -ENAMETOOLONG);
	for (size_t i = 1; i < sizeof(path); i += 2)
		path[i] = '/';
	assert_int_equal(checks(path, 4095), 0);
	assert_int_equal(checks(path, 4097), -ENAMETOOLONG);
	assert_int_equal(checks(path, 5999), -ENAMETOOLONG);
}

static void names_are_bytes(void **state)
{
	static const char *const names[] = {"new\nline", "\x01\x7f", "\x80\xfe\xff", "\xc3(",
					    " ",         "-rf",      "...",          "a\\b"};
	char name[256];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(opens(rw, names[i], READ | CREATE | NVME_PATH_EXCLUSIVE, NULL), 0);
		snprintf(name, sizeof(name), "tree/%s", names[i]);
		assert_true(there(name));
		assert_int_equal(export_rename(rw, names[i], "dir/renamed"), 0);
		assert_int_equal(export_remove(rw, "dir/renamed"), 0);
		assert_false(there(name));
	}
	memset(name, 'n', 255);
	name[255] = '\0';
	assert_int_equal(opens(rw, name, CREATE, NULL), 0);
	assert_int_equal(export_remove(rw, name), 0);
}

static void a_path_may_be_as_deep_as_it_is_long(void **state)
{
	char path[PATH_MAX] = "";
	size_t depth = 0;

	for (; strlen(path) + 4 < 4000; depth++) {
		strcat(path, depth ? "/dd" : "dd");
		assert_int_equal(export_mkdir(rw, path, 0755), 0);
	}
	strcat(path, "/f");
	assert_int_equal(opens(rw, path, CREATE, NULL), 0);
	assert_int_equal(opens(rw, path, READ, NULL), 0);
	assert_int_equal(export_remove(rw, path), 0);
	for (; depth; depth--) {
		*strrchr(path, '/') = '\0';
		assert_int_equal(export_remove(rw, path), 0);
		if (!strchr(path, '/'))
			break;
	}
	assert_false(there("tree/dd"));
}

/* ---- changes ---- */

static void files_are_made_truncated_and_removed(void **state)
{
	struct export_file f;
	struct stat st;

	umask(022);
	assert_int_equal(export_open(rw, "new", READ | CREATE, 0666, &f), 0);
	assert_true(f.made && f.read >= 0 && f.write >= 0);
	assert_int_equal(write(f.write, "12345", 5), 5);
	close(f.read);
	close(f.write);
	assert_int_equal(stat(at("tree/new"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0644);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(opens(rw, "new", CREATE | NVME_PATH_EXCLUSIVE, NULL), -EEXIST);
	assert_int_equal(opens(rw, "new", CREATE, NULL), 0);
	assert_holds("tree/new", "12345");
	assert_int_equal(export_open(rw, "new", WRITE | NVME_PATH_TRUNCATE, 0, &f), 0);
	assert_int_equal(f.stat.size, 0);
	close(f.write);
	assert_holds("tree/new", "");
	assert_int_equal(export_mkdir(rw, "newdir", 0777), 0);
	assert_int_equal(stat(at("tree/newdir"), &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	assert_int_equal(export_mkdir(rw, "newdir", 0777), -EEXIST);
	assert_int_equal(export_rename(rw, "new", "newdir/new"), 0);
	assert_int_equal(export_remove(rw, "newdir"), -ENOTEMPTY);
	assert_int_equal(export_rename(rw, "newdir", "newdir/new/x"), -ENOTDIR);
	assert_int_equal(export_rename(rw, "newdir", "newdir/x"), -EINVAL);
	assert_int_equal(export_remove(rw, "newdir/new"), 0);
	assert_int_equal(export_remove(rw, "newdir"), 0);
	assert_int_equal(export_remove(rw, "newdir"), -ENOENT);
}

static void a_rename_replaces_a_file_and_links_are_renamed_and_removed_themselves(void **state)
{
	put("tree/a", "a");
	put("tree/b", "b");
	link_to("../out/secret", "tree/l");
	assert_int_equal(export_rename(rw, "a", "b"), 0);
	assert_holds("tree/b", "a");
	assert_int_equal(export_rename(rw, "l", "m"), 0);
	assert_true(there("tree/m"));
	assert_int_equal(export_rename(rw, "b", "m"), 0);
	assert_holds("tree/m", "a");
	assert_holds("out/secret", "secret");
	link_to("../out/secret", "tree/l");
	assert_int_equal(export_remove(rw, "l"), 0);
	assert_int_equal(export_remove(rw, "m"), 0);
	assert_holds("out/secret", "secret");
}

static void modes_and_flags_that_mean_nothing_are_refused(void **state)
{
	static const uint32_t flags[] = {0,
					 NVME_PATH_CREATE,
					 READ | NVME_PATH_CREATE,
					 READ | NVME_PATH_TRUNCATE,
					 WRITE | NVME_PATH_EXCLUSIVE,
					 NVME_PATH_TRUNCATE};
	struct export_file f;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		assert_int_equal(opens(rw, "file", flags[i], NULL), -EINVAL);
	assert_int_equal(export_open(rw, "setuid", CREATE, 04755, &f), -EINVAL);
	assert_int_equal(export_mkdir(rw, "sticky", 01777), -EINVAL);
	assert_false(there("tree/setuid") || there("tree/sticky"));
	assert_holds("tree/file", "inside");
}

static void the_root_stays(void **state)
{
	assert_int_equal(export_remove(rw, ""), -EBUSY);
	assert_int_equal(export_rename(rw, "", "dir/x"), -EBUSY);
	assert_int_equal(export_rename(rw, "file", ""), -EBUSY);
	assert_int_equal(export_mkdir(rw, "", 0755), -EEXIST);
}

static void a_read_only_export_changes_nothing(void **state)
{
	struct ctrl_export *ro = export(at("tree"), "");
	struct nvme_path_stat st;

	assert_reads(ro, "file", "inside");
	assert_int_equal(export_stat(ro, "file", &st), 0);
	assert_false(st.writable);
	assert_int_equal(opens(ro, "file", WRITE, NULL), -EROFS);
	assert_int_equal(opens(ro, "file", READ | WRITE, NULL), -EROFS);
	assert_int_equal(opens(ro, "file", WRITE | NVME_PATH_TRUNCATE, NULL), -EROFS);
	assert_int_equal(opens(ro, "new", CREATE, NULL), -EROFS);
	assert_int_equal(export_mkdir(ro, "new", 0755), -EROFS);
	assert_int_equal(export_mkdir(ro, "", 0755), -EROFS);
	assert_int_equal(export_remove(ro, "file"), -EROFS);
	assert_int_equal(export_rename(ro, "file", "new"), -EROFS);
	assert_holds("tree/file", "inside");
	assert_false(there("tree/new"));
	export_free(ro);
}

/* ---- lists ---- */

#define MANY 500

static void every_name_is_listed_once_whatever_the_page(void **state)
{
	for (uint32_t max = CTRL_PATH_ENTRY_MAX; max <= 16384; max = max * 5 + 13) {
		uint8_t page[16384], seen[MANY] = {0};
		uint64_t cookie = 0;
		uint32_t len, n = 0;
		char name[40];

		if (max == CTRL_PATH_ENTRY_MAX) {
			assert_int_equal(mkdir(at("tree/many"), 0755), 0);
			for (int i = 0; i < MANY; i++) {
				snprintf(name, sizeof(name), "tree/many/%d", i);
				put(name, "12");
			}
		}
		for (;;) {
			assert_int_equal(export_list(rw, "many", cookie, page, max, &len), 0);
			assert_true(len <= max && len % 8 == 0);
			if (!len)
				break;
			for (uint32_t i = 0; i < len;) {
				struct nvme_path_entry e;
				char text[256] = "";
				int k;

				memcpy(&e, page + i, sizeof(e));
				memcpy(text, page + i + sizeof(e), le16toh(e.name_len));
				k = atoi(text);
				assert_true(k >= 0 && k < MANY && !seen[k]++);
				assert_int_equal(le64toh(e.size), 2);
				assert_int_equal(e.type, NVME_PATH_FILE);
				cookie = le64toh(e.cookie);
				i += export_entry_len(le16toh(e.name_len));
				n++;
			}
		}
		assert_int_equal(n, MANY);
	}
}

static void cookies_that_nobody_gave_are_harmless(void **state)
{
	static const uint64_t cookies[] = {1, 2, 77, 0x7fffffff, 0x123456789abcdef, INT64_MAX};
	uint8_t page[4096];
	uint32_t len;

	for (size_t i = 0; i < sizeof(cookies) / sizeof(cookies[0]); i++) {
		export_list(rw, "", cookies[i], page, sizeof(page), &len);
		assert_true(len <= sizeof(page));
	}
	assert_int_equal(export_list(rw, "", UINT64_MAX, page, sizeof(page), &len), -EINVAL);
}

/* ---- races ---- */

static atomic_bool stop;

/* A directory and a link that leads out change places all the time. */
static void *swap(void *arg)
{
	while (!atomic_load(&stop)) {
		if (renameat2(AT_FDCWD, at("tree/swap"), AT_FDCWD, at("tree/swapped"),
			      RENAME_EXCHANGE))
			abort();
	}
	return NULL;
}

static void assert_one_of(int rc, int a, int b, int c)
{
	if (rc && rc != a && rc != b && rc != c)
		fail_msg("%s", strerrorname_np(-rc));
}

static void a_race_leads_nowhere_else(void **state)
{
	const char *env = getenv("EXPORT_ROUNDS");
	uint32_t rounds = env ? (uint32_t)atoi(env) : 4000, inside = 0;
	pthread_t thread;
	char text[64];

	assert_int_equal(mkdir(at("tree/swap"), 0755), 0);
	assert_int_equal(mkdir(at("out/sub"), 0755), 0);
	put("tree/swap/secret", "public");
	link_to("../out", "tree/swapped");
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, swap, NULL), 0);
	for (uint32_t i = 0; i < rounds; i++) {
		int rc = opens(rw, "swap/secret", READ, text);

		assert_one_of(rc, -EXDEV, -EBUSY, -ENOENT);
		if (!rc) {
			assert_string_equal(text, "public");
			inside++;
		}
		assert_one_of(opens(rw, "swap/made", CREATE, NULL), -EXDEV, -EBUSY, -ENOENT);
		assert_one_of(export_mkdir(rw, "swap/dir", 0755), -EXDEV, -EBUSY, -EEXIST);
		assert_one_of(export_rename(rw, "swap/made", "swap/moved"), -EXDEV, -EBUSY,
			      -ENOENT);
		assert_one_of(export_remove(rw, "swap/moved"), -EXDEV, -EBUSY, -ENOENT);
		assert_one_of(export_remove(rw, "swap/sub"), -EXDEV, -EBUSY, -ENOENT);
		assert_one_of(lists(rw, "swap"), -EXDEV, -EBUSY, -ENOENT);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	assert_true(inside > 0);
	assert_holds("out/secret", "secret");
	assert_true(there("out/sub"));
	assert_false(there("out/made") || there("out/moved") || there("out/dir"));
}

/* The last name itself changes between a file and a link that leads out. */
static void *swap_file(void *arg)
{
	while (!atomic_load(&stop)) {
		if (renameat2(AT_FDCWD, at("tree/last"), AT_FDCWD, at("tree/last-link"),
			      RENAME_EXCHANGE))
			abort();
	}
	return NULL;
}

static void a_last_name_that_becomes_a_link_is_not_written_through(void **state)
{
	const char *env = getenv("EXPORT_ROUNDS");
	uint32_t rounds = env ? (uint32_t)atoi(env) : 4000;
	pthread_t thread;

	put("tree/last", "x");
	link_to("../out/secret", "tree/last-link");
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, swap_file, NULL), 0);
	for (uint32_t i = 0; i < rounds; i++) {
		assert_one_of(opens(rw, "last", WRITE | NVME_PATH_TRUNCATE, NULL), -EXDEV, -EBUSY,
			      -EXDEV);
		assert_one_of(opens(rw, "last", CREATE | NVME_PATH_TRUNCATE, NULL), -EXDEV, -EBUSY,
			      -EXDEV);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	assert_holds("out/secret", "secret");
}

/* ---- mounts ---- */

/* In a mount namespace of its own: the exit status says what failed. */
static int in_a_mount_namespace(void)
{
	struct ctrl_export *plain, *with;
	int fails = 0;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mkdir(at("tree/mnt"), 0755) || mount("none", at("tree/mnt"), "tmpfs", 0, NULL))
		return 77;
	put("tree/mnt/file", "mounted");
	plain = export(at("tree"), ",rw");
	with = export(at("tree"), ",rw,mounts");
	fails |= opens(plain, "mnt/file", READ, NULL) == -EXDEV ? 0 : 1;
	fails |= lists(plain, "mnt") == -EXDEV ? 0 : 2;
	fails |= opens(plain, "mnt/new", CREATE, NULL) == -EXDEV ? 0 : 4;
	fails |= opens(with, "mnt/file", READ, NULL) == 0 ? 0 : 8;
	fails |= export_rename(with, "mnt/file", "moved") == -EXDEV ? 0 : 16;
	fails |= export_remove(with, "mnt") == -EBUSY ? 0 : 32;
	export_free(plain);
	export_free(with);
	return fails;
}

static void what_is_mounted_below_is_there_only_if_the_export_says_so(void **state)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(in_a_mount_namespace());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("# needs the right to mount\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- what an administrator writes ---- */

static void refuses(const char *spec, const char *says, int code)
{
	struct ctrl_error err = {0};
	struct ctrl_export *e = NULL;

	assert_int_equal(export_new(spec, &e, &err), code);
	assert_null(e);
	if (!strstr(err.text, says) || !strstr(err.text, "; "))
		fail_msg("%s: %s", spec, err.text);
}

static void an_export_is_written_as_name_and_directory(void **state)
{
	char spec[2 * PATH_MAX], hex[65], name[80];
	struct ctrl_error err = {0};
	struct ctrl_export *e;

	memset(hex, 'a', 64);
	hex[64] = '\0';
	e = export(top, "");
	assert_false(e->writable || e->mounts);
	assert_int_equal(e->functions, EXPORT_ANY);
	export_free(e);
	snprintf(spec, sizeof(spec), ",functions=%s+%s,mounts,rw", hex, hex);
	e = export(top, spec);
	assert_true(e->writable && e->mounts);
	assert_int_equal(e->functions, EXPORT_LISTED);
	assert_int_equal(e->n_hashes, 2);
	assert_int_equal(e->hashes[1][31], 0xaa);
	export_free(e);
	/* A comma may be part of a name. */
	assert_int_equal(mkdir(at("a,b"), 0755), 0);
	e = export(at("a,b"), ",functions=none");
	assert_int_equal(e->functions, EXPORT_NONE);
	export_free(e);

	refuses("logs", "NAME=DIR", -EINVAL);
	refuses("=/tmp", "NAME=DIR", -EINVAL);
	refuses("a/b=/tmp", "NAME=DIR", -EINVAL);
	refuses("..=/tmp", "NAME=DIR", -EINVAL);
	refuses("a b=/tmp", "NAME=DIR", -EINVAL);
	refuses("x=", "no directory", -ENOENT);
	refuses("x=/nowhere", "/nowhere", -ENOENT);
	refuses("x=/dev/null", "/dev/null", -ENOTDIR);
	refuses("x=/tmp,wr", "/tmp,wr", -ENOENT);
	refuses("x=/tmp,functions=", "no list of functions", -EINVAL);
	refuses("x=/tmp,functions=abc", "no list of functions", -EINVAL);
	refuses("x=/tmp,functions=any,functions=none", "said twice", -EINVAL);
	snprintf(spec, sizeof(spec), "x=/tmp,functions=%s+", hex);
	refuses(spec, "no list of functions", -EINVAL);
	hex[9] = 'g';
	snprintf(spec, sizeof(spec), "x=/tmp,functions=%s", hex);
	refuses(spec, "no list of functions", -EINVAL);
	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	snprintf(spec, sizeof(spec), "%s=%s", name, top);
	assert_int_equal(export_new(spec, &e, &err), 0);
	export_free(e);
	name[64] = 'n';
	name[65] = '\0';
	snprintf(spec, sizeof(spec), "%s=%s", name, top);
	refuses(spec, "at most 64", -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_below_are_opened_and_described),
		cmocka_unit_test(links_that_stay_inside_are_followed),
		cmocka_unit_test(an_object_of_both_ways_has_a_descriptor_that_cannot_write),
		cmocka_unit_test(no_spelling_leads_out_of_the_tree),
		cmocka_unit_test(nothing_is_made_where_a_link_points_to),
		cmocka_unit_test(magic_links_are_not_followed),
		cmocka_unit_test(devices_fifos_and_sockets_do_not_notice),
		cmocka_unit_test(paths_are_plain_or_refused),
		cmocka_unit_test(names_are_bytes),
		cmocka_unit_test(a_path_may_be_as_deep_as_it_is_long),
		cmocka_unit_test(files_are_made_truncated_and_removed),
		cmocka_unit_test(
			a_rename_replaces_a_file_and_links_are_renamed_and_removed_themselves),
		cmocka_unit_test(modes_and_flags_that_mean_nothing_are_refused),
		cmocka_unit_test(the_root_stays),
		cmocka_unit_test(a_read_only_export_changes_nothing),
		cmocka_unit_test(every_name_is_listed_once_whatever_the_page),
		cmocka_unit_test(cookies_that_nobody_gave_are_harmless),
		cmocka_unit_test(a_race_leads_nowhere_else),
		cmocka_unit_test(a_last_name_that_becomes_a_link_is_not_written_through),
		cmocka_unit_test(what_is_mounted_below_is_there_only_if_the_export_says_so),
		cmocka_unit_test(an_export_is_written_as_name_and_directory),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
