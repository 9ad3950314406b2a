/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where output cannot go: full disks, limits, directories that take nothing.  Each is its own error,
 * names the resource, and kills nobody.
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "fault/fixture.h"

static void a_full_device_is_ENOSPC_that_says_disk(void **state)
{
	struct lio_function *echo = load("echo");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;

	OK(lio_open("/dev/full", O_WRONLY, 0, &file));
	FAILS(lio_lambda_write_mem(file, 0, echo, "abc", 3, NULL, &res), -ENOSPC, "disk full");
	assert_int_equal(res.bytes_written, 0);
	OK(lio_close(file));
	lio_unload(echo);
}

/* A file system of @size that only this test sees, at "small"; false if that takes more rights. */
static bool small_disk(const char *size)
{
	char opts[32];

	snprintf(opts, sizeof(opts), "size=%s", size);
	mkdir(in_dir("small"), 0700);
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("tmpfs", in_dir("small"), "tmpfs", 0, opts);
}

static void a_disk_that_fills_up_keeps_and_reports_what_was_written(void **state)
{
	size_t len = 300 * KIB, got;
	uint8_t *bytes = noise(len);
	struct lio_function *echo = load("echo");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;
	char *after;

	if (!small_disk("64k"))
		skip();
	file = open_in("small/target", O_RDWR | O_CREAT);
	FAILS(lio_lambda_write_mem(file, 0, echo, bytes, len, NULL, &res), -ENOSPC, "disk full");
	assert_true(res.bytes_written > 0 && res.bytes_written <= 64 * KIB);
	OK(lio_close(file));
	after = get("small/target", &got);
	assert_int_equal(got, res.bytes_written);
	assert_memory_equal(after, bytes, got);
	assert_int_equal(umount(in_dir("small")), 0);
	free(after);
	lio_unload(echo);
	free(bytes);
}

static int drop(void *arg, const void *p, size_t len)
{
	*(bool *)arg = true;
	return 0;
}

static void limited_files(rlim_t bytes)
{
	struct rlimit lim;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &lim), 0);
	lim.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
}

/* 1 MiB more output than is staged in memory, with @dir for that and files limited to @limit. */
static int64_t scan_staged_in(const char *dir, rlim_t limit, bool *written)
{
	struct lio_function *echo = load("echo");
	struct lio_sink sink = {.size = sizeof(sink), .write = drop, .arg = written};
	struct lio_run_opts opts = {.size = sizeof(opts), .threads = 1};
	char c;
	struct lio_file *file;
	int64_t rc;

	put("large", "", 0);
	assert_int_equal(truncate(in_dir("large"), 65 * (off_t)MIB), 0);
	file = open_in("large", O_RDONLY);
	setenv("TMPDIR", dir, 1);
	*written = false;
	OK(lio_lambda_read(file, echo, 0, 1, &opts, &c, 1, NULL)); /* what a run needs is there */
	limited_files(limit);
	rc = lio_lambda_scan(file, echo, 0, LIO_TO_END, &opts, &sink, NULL);
	limited_files(RLIM_INFINITY);
	unsetenv("TMPDIR");
	OK(lio_close(file));
	lio_unload(echo);
	return rc;
}

static void a_staging_directory_that_takes_nothing_is_named_with_the_way_out(void **state)
{
	int fds = descriptors();
	bool written;

	FAILS(scan_staged_in("/nonexistent", RLIM_INFINITY, &written), -ENOENT, "set TMPDIR");
	assert_non_null(strstr(lio_error(), "/nonexistent"));
	assert_false(written);
	FAILS(scan_staged_in("/dev/null", RLIM_INFINITY, &written), -ENOTDIR, "TMPDIR");
	assert_false(written);
	OK(scan_staged_in(fixture_dir, RLIM_INFINITY, &written));
	assert_true(written);
	assert_int_equal(descriptors(), fds);
}

static void a_staging_disk_that_fills_up_is_ENOSPC_and_shows_nothing(void **state)
{
	bool written;

	if (!small_disk("256k"))
		skip();
	FAILS(scan_staged_in(in_dir("small"), RLIM_INFINITY, &written), -ENOSPC, "disk full");
	assert_non_null(strstr(lio_error(), "staging"));
	assert_false(written);
	assert_int_equal(umount(in_dir("small")), 0);
}

static void the_file_size_limit_is_EFBIG_and_kills_nobody(void **state)
{
	size_t len = 300 * KIB;
	uint8_t *bytes = noise(len);
	struct lio_function *echo = load("echo");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;
	sigset_t pending;

	file = open_in("limited", O_RDWR | O_CREAT | O_TRUNC);
	OK(lio_lambda_write_mem(file, 0, echo, "abc", 3, NULL, NULL));
	limited_files(100000);
	FAILS(lio_lambda_write_mem(file, 0, echo, bytes, len, NULL, &res), -EFBIG, "ulimit -f");
	FAILS(lio_pwrite(file, bytes, len, 200000), -EFBIG, "limited");
	limited_files(RLIM_INFINITY);
	assert_int_equal(res.bytes_written, 100000);
	assert_int_equal(lio_size(file), 100000);
	sigpending(&pending);
	assert_int_equal(sigismember(&pending, SIGXFSZ), 0);
	OK(lio_close(file));
	lio_unload(echo);
	free(bytes);
}

/* In a child: a runtime that stumbles over the limit is killed by it. */
static void the_file_size_limit_does_not_concern_a_run_that_stores_nothing(void **state)
{
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	int status;
	char buf[8];

	put("data", "abc", 3);
	file = open_in("data", O_RDONLY);
	if (!fork()) {
		limited_files(0);
		_exit(lio_lambda_read(file, echo, 0, 3, NULL, buf, 8, NULL) == 3 ? 0 : 1);
	}
	wait(&status);
	assert_false(WIFSIGNALED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	OK(lio_close(file));
	lio_unload(echo);
}

static void the_file_size_limit_stops_staging_as_well(void **state)
{
	bool written;

	FAILS(scan_staged_in(fixture_dir, 100000, &written), -EFBIG, "staging");
	assert_false(written);
}

static void a_stream_cannot_be_written_at_an_offset(void **state)
{
	struct lio_function *echo = load("echo");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;

	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	file = open_in("fifo", O_RDWR);
	FAILS(lio_lambda_write_mem(file, 0, echo, "abc", 3, NULL, &res), -ESPIPE, "fifo");
	OK(lio_close(file));
	lio_unload(echo);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_device_is_ENOSPC_that_says_disk),
		cmocka_unit_test(a_disk_that_fills_up_keeps_and_reports_what_was_written),
		cmocka_unit_test(a_staging_directory_that_takes_nothing_is_named_with_the_way_out),
		cmocka_unit_test(a_staging_disk_that_fills_up_is_ENOSPC_and_shows_nothing),
		cmocka_unit_test(the_file_size_limit_is_EFBIG_and_kills_nobody),
		cmocka_unit_test(the_file_size_limit_does_not_concern_a_run_that_stores_nothing),
		cmocka_unit_test(the_file_size_limit_stops_staging_as_well),
		cmocka_unit_test(a_stream_cannot_be_written_at_an_offset),
	};

	return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
