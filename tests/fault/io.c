/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads that are short, interrupted or fail in the middle, and stores that do: by calls of this
 * program that come before the C library's.
 */
#include <stdatomic.h>
#include <sys/syscall.h>

#include "fault/fixture.h"

/* ---- the faults ---- */

static atomic_bool short_io; /* at most a few bytes at a time, interrupted every third time */
static _Atomic int64_t broken_from = -1; /* bytes from here on cannot be read or stored */
static atomic_uint turn;

static atomic_int target_fd = -1;

#define INTERPOSE __attribute__((visibility("default"), used))

static bool aimed(int fd)
{
	return fd == atomic_load(&target_fd);
}

/* Adjusts @len, or returns -1 with errno set. */
static int fault(size_t *len, int64_t off)
{
	unsigned int n = atomic_fetch_add(&turn, 1);
	int64_t broken = atomic_load(&broken_from);

	if (broken >= 0 && off + (int64_t)*len > broken) {
		if (off >= broken) {
			errno = EIO;
			return -1;
		}
		*len = (size_t)(broken - off);
	}
	if (atomic_load(&short_io)) {
		if (n % 3 == 2) {
			errno = EINTR;
			return -1;
		}
		if (*len > 1 + n % 5000)
			*len = 1 + n % 5000;
	}
	return 0;
}

static ssize_t faulty_pread(int fd, void *buf, size_t len, int64_t off)
{
	if (aimed(fd) && fault(&len, off))
		return -1;
	return syscall(SYS_pread64, fd, buf, len, off);
}

static ssize_t faulty_pwrite(int fd, const void *buf, size_t len, int64_t off)
{
	if (aimed(fd) && fault(&len, off))
		return -1;
	return syscall(SYS_pwrite64, fd, buf, len, off);
}

INTERPOSE ssize_t pread32(int, void *, size_t, int64_t) __asm__("pread");
INTERPOSE ssize_t pread_64(int, void *, size_t, int64_t) __asm__("pread64");
INTERPOSE ssize_t pwrite32(int, const void *, size_t, int64_t) __asm__("pwrite");
INTERPOSE ssize_t pwrite_64(int, const void *, size_t, int64_t) __asm__("pwrite64");

ssize_t pread32(int fd, void *buf, size_t len, int64_t off)
{
	return faulty_pread(fd, buf, len, off);
}

ssize_t pread_64(int fd, void *buf, size_t len, int64_t off)
{
	return faulty_pread(fd, buf, len, off);
}

ssize_t pwrite32(int fd, const void *buf, size_t len, int64_t off)
{
	return faulty_pwrite(fd, buf, len, off);
}

ssize_t pwrite_64(int fd, const void *buf, size_t len, int64_t off)
{
	return faulty_pwrite(fd, buf, len, off);
}

INTERPOSE ssize_t read(int fd, void *buf, size_t len)
{
	if (aimed(fd) && fault(&len, 0))
		return -1;
	return syscall(SYS_read, fd, buf, len);
}

/* The descriptor that the next lio_open() gets. */
static void aim(void)
{
	int fd = open("/dev/null", O_RDONLY);

	close(fd);
	atomic_store(&target_fd, fd);
}

static void aim_away(void)
{
	atomic_store(&target_fd, -1);
	atomic_store(&broken_from, -1);
	atomic_store(&short_io, false);
}

/* ---- the promises ---- */

#define LEN (MIB + 12345)

static void short_and_interrupted_reads_change_nothing(void **state)
{
	uint8_t *bytes = noise(LEN), *buf = malloc(LEN);
	struct lio_run_opts opts = {.size = sizeof(opts), .io = LIO_IO_PREAD, .chunk = 100000};
	struct lio_function *echo = load("echo");
	struct lio_file *file;

	put("data", bytes, LEN);
	aim();
	file = open_in("data", O_RDONLY);
	atomic_store(&short_io, true);
	assert_int_equal(lio_pread(file, buf, LEN, 0), LEN);
	assert_memory_equal(buf, bytes, LEN);
	memset(buf, 0, LEN);
	assert_int_equal(lio_lambda_read(file, echo, 0, LIO_TO_END, &opts, buf, LEN, NULL), LEN);
	assert_memory_equal(buf, bytes, LEN);
	aim_away();
	OK(lio_close(file));
	lio_unload(echo);
	free(buf);
	free(bytes);
}

static void short_and_interrupted_reads_of_a_pipe_change_nothing(void **state)
{
	uint8_t *bytes = noise(50000), *buf = malloc(50000);
	struct lio_function *echo = load("echo");
	int fds[2], saved = dup(STDIN_FILENO);
	struct lio_file *in;

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], bytes, 50000), 50000);
	close(fds[1]);
	dup2(fds[0], STDIN_FILENO);
	close(fds[0]);
	aim();
	OK(lio_open("-", O_RDONLY, 0, &in));
	atomic_store(&short_io, true);
	assert_int_equal(lio_lambda_read(in, echo, 0, LIO_TO_END, NULL, buf, 50000, NULL), 50000);
	assert_memory_equal(buf, bytes, 50000);
	aim_away();
	OK(lio_close(in));
	dup2(saved, STDIN_FILENO);
	close(saved);
	lio_unload(echo);
	free(buf);
	free(bytes);
}

static void short_and_interrupted_stores_change_nothing(void **state)
{
	uint8_t *bytes = noise(LEN);
	struct lio_function *echo = load("echo");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;
	size_t len;
	char *after;

	aim();
	file = open_in("target", O_RDWR | O_CREAT | O_TRUNC);
	atomic_store(&short_io, true);
	OK(lio_lambda_write_mem(file, 77, echo, bytes, LEN, NULL, &res));
	assert_int_equal(res.bytes_written, LEN);
	aim_away();
	OK(lio_close(file));
	after = get("target", &len);
	assert_int_equal(len, LEN + 77);
	assert_memory_equal(after + 77, bytes, LEN);
	free(after);
	lio_unload(echo);
	free(bytes);
}

static void a_read_error_in_the_middle_is_EIO_with_its_place(void **state)
{
	uint8_t *bytes = noise(LEN), *buf = malloc(LEN);
	struct lio_run_opts opts = {
		.size = sizeof(opts), .io = LIO_IO_PREAD, .chunk = 64 * KIB, .threads = 2};
	struct lio_result res = {.size = sizeof(res)};
	struct lio_function *echo = load("echo");
	struct kept kept = {0};
	struct lio_sink sink = {.size = sizeof(sink), .write = keep, .arg = &kept};
	struct lio_file *file;

	put("data", bytes, LEN);
	aim();
	file = open_in("data", O_RDONLY);
	atomic_store(&broken_from, 600000);
	FAILS(lio_pread(file, buf, LEN, 0), -EIO, "data");
	assert_int_equal(lio_pread(file, buf, 1000, 599000), 1000);
	FAILS(lio_lambda_read(file, echo, 0, LIO_TO_END, &opts, buf, LEN, &res), -EIO, "data");
	assert_true(res.error_offset > 500000 && res.error_offset <= 600000);
	FAILS(lio_lambda_scan(file, echo, 0, LIO_TO_END, &opts, &sink, &res), -EIO, "kernel's log");
	assert_int_equal(kept.calls, 0);
	OK(lio_lambda_read(file, echo, 0, 600000, &opts, buf, LEN, &res));
	aim_away();
	OK(lio_close(file));
	lio_unload(echo);
	free(buf);
	free(bytes);
}

static void a_store_that_fails_in_the_middle_says_how_far_it_came(void **state)
{
	uint8_t *bytes = noise(LEN);
	struct lio_function *echo = load("echo");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;
	size_t len;
	char *after;

	aim();
	file = open_in("target", O_RDWR | O_CREAT | O_TRUNC);
	atomic_store(&broken_from, 500000);
	FAILS(lio_lambda_write_mem(file, 100, echo, bytes, LEN, NULL, &res), -EIO, "target");
	assert_int_equal(res.bytes_written, 500000 - 100);
	assert_non_null(strstr(lio_error(), "after 499900 of"));
	aim_away();
	OK(lio_close(file));
	after = get("target", &len);
	assert_int_equal(len, 500000);
	assert_memory_equal(after + 100, bytes, len - 100);
	free(after);
	lio_unload(echo);
	free(bytes);
}

/* ---- truncated while it is read ---- */

#define WHOLE (8u * MIB)
#define HALF  (4u * MIB + 1234u) /* not at a page's end: what follows in that page reads as zeros */

static atomic_int go;

static void *truncate_soon(void *arg)
{
	struct timespec nap = {0, (long)(uintptr_t)arg};

	while (!atomic_load(&go))
		;
	nanosleep(&nap, NULL);
	assert_int_equal(truncate(in_dir("shrinks"), HALF), 0);
	return NULL;
}

static void a_file_truncated_while_it_is_read_gives_EIO_or_a_right_answer(void **state)
{
	static const enum lio_io ways[] = {LIO_IO_MMAP, LIO_IO_PREAD};
	uint8_t *bytes = noise(WHOLE);
	struct lio_function *digest = load("digest");
	uint64_t whole, half, rounds = 20, got;
	struct lio_run_opts opts = {.size = sizeof(opts), .arg = &rounds, .arg_len = 8};
	int errors = 0;

	for (int i = -1; i < 40; i++) {
		struct lio_file *file;
		pthread_t thread;
		int64_t rc;

		put("shrinks", bytes, WHOLE);
		file = open_in("shrinks", O_RDONLY);
		opts.io = ways[i & 1];
		if (i < 0) {
			OK(lio_lambda_read(file, digest, 0, WHOLE, &opts, &whole, 8, NULL));
			OK(lio_lambda_read(file, digest, 0, HALF, &opts, &half, 8, NULL));
			OK(lio_close(file));
			continue;
		}
		atomic_store(&go, 0);
		pthread_create(&thread, NULL, truncate_soon, (void *)(uintptr_t)(i * 250000));
		atomic_store(&go, 1);
		rc = lio_lambda_read(file, digest, 0, LIO_TO_END, &opts, &got, 8, NULL);
		pthread_join(thread, NULL);
		if (rc < 0) {
			RUN_FAILS(rc, -EIO, "truncated");
			errors++;
		} else if (got != whole && got != half) {
			fail_msg("an answer that is neither of the file before nor after");
		}
		OK(lio_close(file));
	}
	print_message("# truncated under it %d times of 40\n", errors);
	lio_unload(digest);
	free(bytes);
}

static void lose_last_bytes(void *arg, uint64_t done, uint64_t total)
{
	assert_int_equal(truncate(in_dir("shrinks"), 3 * MIB - 10), 0);
}

static void a_file_that_loses_its_last_bytes_while_it_is_read_gives_EIO(void **state)
{
	static const enum lio_io ways[] = {LIO_IO_MMAP, LIO_IO_PREAD};
	uint8_t *bytes = noise(3 * MIB);
	struct lio_function *digest = load("digest");
	uint64_t got;

	for (int i = 0; i < 2; i++) {
		struct lio_run_opts opts = {.size = sizeof(opts),
					    .io = ways[i],
					    .threads = 1,
					    .chunk = MIB,
					    .progress = lose_last_bytes};
		struct lio_file *file;

		put("shrinks", bytes, 3 * MIB);
		file = open_in("shrinks", O_RDONLY);
		RUN_FAILS(lio_lambda_read(file, digest, 0, LIO_TO_END, &opts, &got, 8, NULL), -EIO,
			  "truncated");
		OK(lio_close(file));
	}
	lio_unload(digest);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_and_interrupted_reads_change_nothing),
		cmocka_unit_test(short_and_interrupted_reads_of_a_pipe_change_nothing),
		cmocka_unit_test(short_and_interrupted_stores_change_nothing),
		cmocka_unit_test(a_read_error_in_the_middle_is_EIO_with_its_place),
		cmocka_unit_test(a_store_that_fails_in_the_middle_says_how_far_it_came),
		cmocka_unit_test(a_file_that_loses_its_last_bytes_while_it_is_read_gives_EIO),
		cmocka_unit_test(a_file_truncated_while_it_is_read_gives_EIO_or_a_right_answer),
	};

	return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
