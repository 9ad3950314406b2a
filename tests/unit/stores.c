/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stores promise, whatever they are made of and whichever way requests go: through io_uring, or through
 * the thread pool that serves where it is refused.
 *
 * Calls of the C library go through wrappers here (by their names for 64-bit offsets), so that they can fail or
 * fall short, and what a ring is given is looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/loop.h"

#define SIZE (4u << 20)

/* ---- the C library, as the test wants it ---- */

static atomic_int sync_error; /* of every fdatasync() */
static atomic_size_t at_most; /* bytes that a read or write moves; 0: all */
static atomic_int last_flags; /* of pwritev2() */
static atomic_int sync_calls;
static atomic_int cuts, refusals;
static atomic_bool no_zero_range;
static atomic_int reads;          /* of preadv(), which may wait */
static atomic_int cached_reads;   /* of preadv2() */
static atomic_int cached_error;   /* of every preadv2() */
static atomic_int cached_at_most; /* as at_most, of preadv2() */
static struct io_uring_sqe *last_sqe;
static atomic_int ring_opcode, ring_flags; /* of the last request that the kernel was given */

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
ssize_t __real_preadv64(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __real_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
struct io_uring_sqe *__real_ctrl_loop_sqe(struct ctrl_io *io);
struct io_uring_sqe *__wrap_ctrl_loop_sqe(struct ctrl_io *io);
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_fallocate64(int fd, int mode, off_t at, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t at, off_t len);

int __wrap_fdatasync(int fd)
{
	atomic_fetch_add(&sync_calls, 1);
	if (sync_error) {
		errno = sync_error;
		return -1;
	}
	return __real_fdatasync(fd);
}

static struct iovec cut(const struct iovec *iov)
{
	size_t most = at_most;

	if (most && iov->iov_len > most)
		atomic_fetch_add(&cuts, 1);
	return (struct iovec){iov->iov_base, most && iov->iov_len > most ? most : iov->iov_len};
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t at)
{
	struct iovec part = cut(iov);

	atomic_fetch_add(&reads, 1);
	return __real_preadv64(fd, &part, n, at);
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	size_t most = (size_t)cached_at_most;
	struct iovec part = {iov->iov_base, most && most < iov->iov_len ? most : iov->iov_len};

	assert_int_equal(flags, RWF_NOWAIT);
	atomic_fetch_add(&cached_reads, 1);
	if (cached_error) {
		errno = cached_error;
		return -1;
	}
	return __real_preadv64v2(fd, &part, n, at, flags);
}

struct io_uring_sqe *__wrap_ctrl_loop_sqe(struct ctrl_io *io)
{
	last_sqe = __real_ctrl_loop_sqe(io);
	return last_sqe;
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	if (last_sqe) {
		ring_opcode = last_sqe->opcode;
		ring_flags = (int)last_sqe->rw_flags;
	}
	last_sqe = NULL;
	return __real_io_uring_submit(ring);
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	struct iovec part = cut(iov);

	last_flags = flags;
	return __real_pwritev64v2(fd, &part, n, at, flags);
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t len)
{
	if (no_zero_range && mode & 0x10 /* FALLOC_FL_ZERO_RANGE */) {
		atomic_fetch_add(&refusals, 1);
		errno = EOPNOTSUPP;
		return -1;
	}
	return __real_fallocate64(fd, mode, at, len);
}

/* ---- one store on one loop ---- */

struct bench {
	struct ctrl_loop *loop;
	struct ctrl_store *store;
	uint8_t *buf; /* of the loop, 1 MiB */
	char path[256];
};

static const char *dir(void)
{
	const char *t = getenv("T");

	return t ? t : ".";
}

static struct ctrl_loop *new_loop(bool ring)
{
	const struct ctrl_loop_opts opts = {
		.no_ring = !ring, .max_transfer = 1u << 20, .buffer_memory = 4u << 20};
	struct ctrl_loop *loop;

	assert_int_equal(ctrl_loop_new(&opts, &loop), 0);
	if (ring && !ctrl_loop_ring(loop)) {
		ctrl_loop_free(loop);
		skip(); /* io_uring is refused here: see ctrl_ring_refused() */
	}
	return loop;
}

struct call {
	struct ctrl_io io; /* first */
	struct bench *b;
	int error;
	sem_t done;
};

static void get_buffer(void *arg)
{
	struct call *c = arg;

	c->b->buf = ctrl_loop_buffer_get(c->b->loop, 1 << 20);
	sem_post(&c->done);
}

static void put_buffer(void *arg)
{
	struct call *c = arg;

	ctrl_loop_buffer_put(c->b->loop, c->b->buf, 1 << 20);
	sem_post(&c->done);
}

static void io_done(struct ctrl_io *io, int error)
{
	struct call *c = (struct call *)io;

	c->error = error;
	sem_post(&c->done);
}

static void io_begin(void *arg)
{
	struct call *c = arg;

	c->io.loop = c->b->loop;
	c->io.done = io_done;
	c->b->store->ops->submit(c->b->store, &c->io);
}

static int call(struct call *c, void (*fn)(void *arg))
{
	sem_init(&c->done, 0, 0);
	assert_int_equal(ctrl_loop_post(c->b->loop, fn, c), 0);
	while (sem_wait(&c->done))
		;
	sem_destroy(&c->done);
	return c->error;
}

static int io(struct bench *b, enum ctrl_io_op op, uint64_t offset, uint64_t len, bool fua)
{
	struct call c = {
		.b = b,
		.io = {.op = op, .fua = fua, .offset = offset, .len = len, .iov = {b->buf, len}}};

	return call(&c, io_begin);
}

static void make_file(struct bench *b, off_t size)
{
	int fd;

	snprintf(b->path, sizeof(b->path), "%s/store-XXXXXX", dir());
	fd = mkstemp(b->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static void open_on(struct bench *b, const char *spec, bool ring)
{
	struct ctrl_error err = {0};

	b->loop = new_loop(ring);
	if (ctrl_store_open(spec, false, &b->store, &err))
		fail_msg("%s", err.text);
	call(&(struct call){.b = b}, get_buffer);
	assert_non_null(b->buf);
}

static void open_file(struct bench *b, const char *options, bool ring)
{
	char spec[300];

	make_file(b, SIZE);
	snprintf(spec, sizeof(spec), "%s%s", b->path, options);
	open_on(b, spec, ring);
}

static void close_bench(struct bench *b)
{
	call(&(struct call){.b = b}, put_buffer);
	ctrl_loop_free(b->loop);
	ctrl_store_close(b->store);
	if (*b->path)
		unlink(b->path);
}

/* ---- data ---- */

static uint32_t random_number(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static void try_random(struct bench *b)
{
	uint32_t block = b->store->geo.block, blocks = SIZE / block, seed = 4420;
	uint8_t *model = calloc(1, SIZE);

	for (uint32_t i = 0; i < 600; i++) {
		uint64_t at = random_number(&seed) % blocks, n = 1 + random_number(&seed) % 200;
		uint32_t what = random_number(&seed) % 8;

		n = n < blocks - at ? n : blocks - at;
		at *= block;
		n *= block;
		if (i % 50 == 49) { /* larger than a buffer */
			at = 0;
			n = SIZE - block;
			what = i % 100 == 49 ? 6 : 7;
		}
		if (what < 3) {
			n = n < 1 << 20 ? n : 1 << 20;
			memset(b->buf, 0xee, n);
			assert_int_equal(io(b, CTRL_IO_READ, at, n, false), 0);
			assert_memory_equal(b->buf, model + at, n);
		} else if (what < 6) {
			for (uint64_t j = 0; j < n; j++)
				model[at + j] = b->buf[j] = (uint8_t)(random_number(&seed) | 1);
			assert_int_equal(io(b, CTRL_IO_WRITE, at, n, what == 3), 0);
		} else {
			memset(model + at, 0, n);
			assert_int_equal(io(b,
					    what == 6 || !b->store->geo.discard ? CTRL_IO_ZERO
										: CTRL_IO_DISCARD,
					    at, n, i % 2),
					 0);
		}
		if (i % 100 == 0)
			assert_int_equal(io(b, CTRL_IO_FLUSH, 0, 0, false), 0);
	}
	for (uint64_t at = 0; at < SIZE; at += 1 << 20) {
		assert_int_equal(io(b, CTRL_IO_READ, at, 1 << 20, false), 0);
		assert_memory_equal(b->buf, model + at, 1 << 20);
	}
	if (*b->path) { /* and the file holds what the store said */
		FILE *f = fopen(b->path, "r");
		uint8_t *have = malloc(SIZE);

		assert_int_equal(fread(have, 1, SIZE, f), SIZE);
		assert_int_equal(fgetc(f), EOF);
		assert_memory_equal(have, model, SIZE);
		fclose(f);
		free(have);
	}
	free(model);
}

static void random_requests(const char *options, bool ring)
{
	struct bench b = {0};

	open_file(&b, options, ring);
	try_random(&b);
	close_bench(&b);
}

static void random_requests_keep_a_files_data_right_by_io_uring(void **state)
{
	random_requests("", true);
	random_requests(",block=4096", true);
}

static void random_requests_keep_a_buffered_files_data_right_by_io_uring(void **state)
{
	random_requests(",buffered", true);
}

static void random_requests_keep_a_files_data_right_by_threads(void **state)
{
	random_requests("", false);
	random_requests(",buffered", false);
}

static void random_requests_keep_memorys_data_right(void **state)
{
	struct bench b = {0};

	open_on(&b, "ram:4M", false);
	try_random(&b);
	close_bench(&b);
}

/* A place for files that are memory, or NULL. */
static const char *memory_dir(void)
{
	struct statfs fs;
	bool is = !statfs("/dev/shm", &fs) && fs.f_type == TMPFS_MAGIC &&
		  fs.f_bavail * (uint64_t)fs.f_bsize > 2 * SIZE && !access("/dev/shm", W_OK);

	return is ? "/dev/shm" : NULL;
}

static void try_file_in_memory(bool ring)
{
	struct bench b = {0};
	const char *t = getenv("T");
	char *old = t ? strdup(t) : NULL;

	if (!memory_dir())
		skip();
	setenv("T", memory_dir(), 1);
	open_file(&b, "", ring);
	if (old)
		setenv("T", old, 1);
	else
		unsetenv("T");
	free(old);
	assert_non_null(strstr(b.store->how, "a file in memory"));
	try_random(&b);
	/* What is short is done at once; a ring would be a detour through a thread of the kernel's. */
	ring_opcode = -1;
	assert_int_equal(io(&b, CTRL_IO_WRITE, 4096, 4096, true), 0);
	assert_int_equal(io(&b, CTRL_IO_READ, 4096, 4096, false), 0);
	assert_int_equal(io(&b, CTRL_IO_FLUSH, 0, 0, false), 0);
	assert_int_equal(ring_opcode, -1);
	close_bench(&b);
}

static void a_file_in_memory_is_served_without_io_uring_or_threads(void **state)
{
	try_file_in_memory(true);
	try_file_in_memory(false);
}

static void reads_of_what_the_page_cache_holds_do_not_wait_for_a_thread(void **state)
{
	struct bench b = {0};

	open_file(&b, ",buffered", false);
	if (strstr(b.store->how, "a file in memory")) {
		close_bench(&b);
		skip();
	}
	memset(b.buf, 7, 8192);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 8192, false), 0);
	reads = cached_reads = 0;
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 8192, false), 0);
	assert_int_equal(cached_reads, 1);
	/* What is not all there, or cannot be told, comes from a thread. */
	memset(b.buf, 0, 8192);
	cached_at_most = 4096;
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 8192, false), 0);
	assert_int_equal(b.buf[8191], 7);
	cached_at_most = 0;
	cached_error = EAGAIN;
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 8192, false), 0);
	assert_int_equal(cached_reads, 3);
	assert_true(reads >= 2);
	cached_error = EOPNOTSUPP;
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 8192, false), 0);
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 8192, false), 0);
	assert_int_equal(cached_reads, 4); /* asked once */
	cached_error = 0;
	close_bench(&b);
}

static void calls_that_fall_short_are_continued(void **state)
{
	struct bench b = {0};

	open_file(&b, ",block=512", false);
	at_most = 512 * 7;
	try_random(&b);
	close_bench(&b);
	/* Not whole blocks: O_DIRECT goes back to the last whole one, buffered goes on from there. */
	open_file(&b, ",block=512,buffered", false);
	at_most = 5000;
	try_random(&b);
	close_bench(&b);
	at_most = 0;
	assert_true(cuts > 100);
}

static void zeros_are_written_where_the_file_system_cannot_make_them(void **state)
{
	struct bench b = {0};

	no_zero_range = true;
	open_file(&b, "", false);
	try_random(&b);
	close_bench(&b);
	no_zero_range = false;
	assert_int_equal(refusals, 1); /* asked once */
}

static void a_null_store_reads_zeros_and_never_older_data(void **state)
{
	struct bench b = {0};

	open_on(&b, "null:4M", false);
	memset(b.buf, 0xee, 1 << 20);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 1 << 20, true), 0);
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 1 << 20, false), 0);
	for (uint32_t i = 0; i < 1 << 20; i++)
		assert_int_equal(b.buf[i], 0);
	close_bench(&b);
}

static void discarded_space_goes_back_to_the_file_system(void **state)
{
	struct bench b = {0};
	struct stat before, after;

	open_file(&b, "", true);
	if (!b.store->geo.discard) {
		close_bench(&b);
		skip();
	}
	memset(b.buf, 1, 1 << 20);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 1 << 20, 1 << 20, true), 0);
	assert_int_equal(stat(b.path, &before), 0);
	assert_int_equal(io(&b, CTRL_IO_DISCARD, 1 << 20, 1 << 20, false), 0);
	assert_int_equal(stat(b.path, &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, SIZE);
	close_bench(&b);
}

/* ---- durability ---- */

static void what_asks_for_durability_asks_the_file_for_it(void **state)
{
	struct bench b = {0};

	open_file(&b, "", false);
	assert_true(b.store->geo.volatile_cache);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, false), 0);
	assert_int_equal(last_flags, 0);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, true), 0);
	assert_int_equal(last_flags, RWF_DSYNC);
	sync_calls = 0;
	assert_int_equal(io(&b, CTRL_IO_ZERO, 0, 4096, false), 0);
	assert_int_equal(sync_calls, 0);
	assert_int_equal(io(&b, CTRL_IO_ZERO, 0, 4096, true), 0);
	assert_int_equal(sync_calls, 1);
	assert_int_equal(io(&b, CTRL_IO_FLUSH, 0, 0, false), 0);
	assert_int_equal(sync_calls, 2);
	close_bench(&b);
}

static void what_asks_for_durability_asks_the_ring_for_it(void **state)
{
	struct bench b = {0};

	open_file(&b, "", true);
	if (strstr(b.store->how, "a file in memory")) {
		close_bench(&b);
		skip();
	}
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, false), 0);
	assert_true(ring_opcode == IORING_OP_WRITE || ring_opcode == IORING_OP_WRITE_FIXED);
	assert_int_equal(ring_flags, 0);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, true), 0);
	assert_true(ring_opcode == IORING_OP_WRITE || ring_opcode == IORING_OP_WRITE_FIXED);
	assert_int_equal(ring_flags, RWF_DSYNC);
	assert_int_equal(io(&b, CTRL_IO_ZERO, 0, 4096, false), 0);
	assert_int_not_equal(ring_opcode, IORING_OP_FSYNC);
	assert_int_equal(io(&b, CTRL_IO_ZERO, 0, 4096, true), 0);
	assert_int_equal(ring_opcode, IORING_OP_FSYNC);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, false), 0);
	assert_int_equal(io(&b, CTRL_IO_FLUSH, 0, 0, false), 0);
	assert_int_equal(ring_opcode, IORING_OP_FSYNC);
	assert_int_equal(ring_flags, IORING_FSYNC_DATASYNC);
	close_bench(&b);
}

static void after_a_failed_flush_nothing_is_called_durable_any_more(void **state)
{
	struct bench b = {0};

	open_file(&b, "", false);
	sync_error = EIO;
	assert_int_equal(io(&b, CTRL_IO_FLUSH, 0, 0, false), -EIO);
	sync_error = 0; /* the kernel has forgotten it by now */
	assert_int_equal(io(&b, CTRL_IO_FLUSH, 0, 0, false), -EIO);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, true), -EIO);
	assert_int_equal(io(&b, CTRL_IO_ZERO, 0, 4096, true), -EIO);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, false), 0);
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 4096, false), 0);
	close_bench(&b);
}

/* ---- what goes wrong ---- */

static void try_truncated(bool ring)
{
	struct bench b = {0};

	open_file(&b, "", ring);
	assert_int_equal(truncate(b.path, SIZE / 2 + 100), 0);
	assert_int_equal(io(&b, CTRL_IO_READ, 0, 4096, false), 0);
	assert_int_equal(io(&b, CTRL_IO_READ, SIZE / 2, 8192, false), -EIO);
	assert_int_equal(io(&b, CTRL_IO_READ, SIZE - 4096, 4096, false), -EIO);
	/* Who re-reads the size sees whole blocks only. */
	b.store->ops->refresh(b.store);
	assert_int_equal(b.store->geo.bytes, SIZE / 2);
	assert_int_equal(truncate(b.path, SIZE * 2), 0);
	b.store->ops->refresh(b.store);
	assert_int_equal(b.store->geo.bytes, SIZE * 2);
	assert_int_equal(io(&b, CTRL_IO_READ, SIZE * 2 - 4096, 4096, false), 0);
	close_bench(&b);
}

static void a_file_that_was_truncated_is_an_error_never_made_up_data(void **state)
{
	try_truncated(false);
	try_truncated(true);
}

static void try_file_limit(bool ring)
{
	struct bench b = {0};
	struct rlimit old, low = {1 << 20, RLIM_INFINITY};

	open_file(&b, "", ring);
	getrlimit(RLIMIT_FSIZE, &old);
	low.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &low);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 0, 4096, false), 0);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 2 << 20, 4096, false), -EFBIG);
	/* Across the limit: part is written, and the rest cannot be. */
	assert_int_equal(io(&b, CTRL_IO_WRITE, (1 << 20) - 4096, 8192, false), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(io(&b, CTRL_IO_WRITE, 2 << 20, 4096, false), 0);
	close_bench(&b);
}

static void a_write_beyond_the_file_size_limit_is_an_error(void **state)
{
	try_file_limit(false);
	try_file_limit(true);
}

#define SKIPPED 77

/* In a process of its own, which may mount. */
static int fill_small_disk(bool ring)
{
	struct bench b = {0};
	char where[200], spec[300];
	int rc = 1, fd;

	snprintf(where, sizeof(where), "%s/small-XXXXXX", dir());
	if (!mkdtemp(where) || unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", where, "tmpfs", 0, "size=1m")) {
		rmdir(where);
		return SKIPPED;
	}
	snprintf(spec, sizeof(spec), "%s/disk", where);
	fd = open(spec, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, SIZE))
		return 2;
	close(fd);
	b.loop = new_loop(ring);
	if (ctrl_store_open(spec, false, &b.store, NULL))
		return 3;
	call(&(struct call){.b = &b}, get_buffer);
	memset(b.buf, 7, 1 << 20);
	if (io(&b, CTRL_IO_WRITE, 0, 512 << 10, false))
		rc = 4;
	else if (io(&b, CTRL_IO_WRITE, 1 << 20, 1 << 20, false) != -ENOSPC)
		rc = 5;
	else if (io(&b, CTRL_IO_READ, 0, 512 << 10, false) || b.buf[0] != 7)
		rc = 6;
	/* Giving space back makes room. */
	else if (b.store->geo.discard && (io(&b, CTRL_IO_DISCARD, 0, 2 << 20, false) ||
					  io(&b, CTRL_IO_WRITE, 3 << 20, 512 << 10, true)))
		rc = 7;
	else
		rc = 0;
	close_bench(&b);
	umount(where);
	rmdir(where);
	return rc;
}

static void try_small_disk(bool ring)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(fill_small_disk(ring));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == SKIPPED)
		skip(); /* no mount of one's own here */
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_full_disk_is_an_error_and_goes_away_with_space(void **state)
{
	try_small_disk(false);
	try_small_disk(true);
}

/* ---- many at once ---- */

#define MANY 6000u /* more than the ring has room for */

struct many {
	struct call calls[MANY];
	atomic_uint left;
	sem_t done;
	struct bench *b;
	uint8_t *data;
};

static struct many *many_now;

static void many_done(struct ctrl_io *io, int error)
{
	((struct call *)io)->error = error;
	if (atomic_fetch_sub(&many_now->left, 1) == 1)
		sem_post(&many_now->done);
}

static void many_begin(void *arg)
{
	struct many *m = arg;

	for (uint32_t i = 0; i < MANY; i++) {
		struct ctrl_io *one = &m->calls[i].io;

		*one = (struct ctrl_io){.op = i % 16 ? CTRL_IO_READ : CTRL_IO_FLUSH,
					.offset = i % 1024 * 4096,
					.len = 4096,
					.iov = {m->data + i * 4096, 4096},
					.loop = m->b->loop,
					.done = many_done};
		m->b->store->ops->submit(m->b->store, one);
	}
}

static void try_many(bool ring)
{
	struct many *m = calloc(1, sizeof(*m));
	struct bench b = {0};

	open_file(&b, "", ring);
	*m = (struct many){.left = MANY, .b = &b, .data = aligned_alloc(4096, MANY * 4096)};
	sem_init(&m->done, 0, 0);
	many_now = m;
	assert_int_equal(ctrl_loop_post(b.loop, many_begin, m), 0);
	while (sem_wait(&m->done))
		;
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(m->calls[i].error, 0);
	sem_destroy(&m->done);
	close_bench(&b);
	free(m->data);
	free(m);
}

static void more_requests_than_the_ring_holds_are_all_served(void **state)
{
	try_many(false);
	try_many(true);
}

/* ---- opening ---- */

static int try_open(const char *spec, bool read_only, struct ctrl_store **store, char *text)
{
	struct ctrl_error err = {0};
	int rc = ctrl_store_open(spec, read_only, store, &err);

	strcpy(text, err.text);
	assert_int_equal(rc, err.code);
	return rc;
}

static void what_cannot_be_a_store_is_refused_with_the_way_out(void **state)
{
	static const struct {
		const char *spec;
		int code;
		const char *says;
	} bad[] = {
		{"ram:", -EINVAL, "ram:1G"},
		{"ram:-1", -EINVAL, "ram:1G"},
		{"ram:5000", -EINVAL, "4 KiB"},
		{"ram:99999999999999999999", -EINVAL, "ram:1G"},
		{"ram:8000000T", -ENOMEM, "use less"},
		{"null:0", -EINVAL, "null:1T"},
		{"null:1Q", -EINVAL, "null:1T"},
		{"", -EINVAL, "no path"},
		{"file:", -EINVAL, "no path"},
		{"/nowhere/at/all", -ENOENT, "truncate -s"},
		{"/dev/null", -EINVAL, "neither a regular file nor a block device"},
		{"/", -EINVAL, "neither a regular file nor a block device"},
	};
	struct ctrl_store *store;
	struct bench b = {0};
	char text[512], spec[300];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(try_open(bad[i].spec, false, &store, text), bad[i].code);
		assert_null(store);
		assert_non_null(strstr(text, bad[i].says));
	}
	make_file(&b, 100);
	assert_int_equal(try_open(b.path, false, &store, text), -EINVAL);
	assert_non_null(strstr(text, "truncate -s"));
	snprintf(spec, sizeof(spec), "%s,rw",
		 b.path); /* not a word that is known: part of the name */
	assert_int_equal(try_open(spec, false, &store, text), -ENOENT);
	unlink(b.path);
}

static void the_rest_of_a_file_that_is_no_whole_block_is_not_exposed(void **state)
{
	struct ctrl_store *store;
	struct bench b = {0};
	char text[512], spec[300];

	make_file(&b, 8192 + 700);
	snprintf(spec, sizeof(spec), "file:%s,buffered,block=512", b.path);
	assert_int_equal(try_open(spec, false, &store, text), 0);
	assert_int_equal(store->geo.block, 512);
	assert_int_equal(store->geo.bytes, 8192 + 512);
	assert_true(strstr(store->how, "buffered as asked") ||
		    strstr(store->how, "a file in memory"));
	ctrl_store_close(store);
	snprintf(spec, sizeof(spec), "%s,block=4096", b.path);
	assert_int_equal(try_open(spec, false, &store, text), 0);
	assert_int_equal(store->geo.bytes, 8192);
	ctrl_store_close(store);
	unlink(b.path);
}

static void a_file_has_one_writer_or_any_number_of_readers(void **state)
{
	struct ctrl_store *one, *two;
	struct bench b = {0};
	char text[512], ro[300];

	make_file(&b, SIZE);
	snprintf(ro, sizeof(ro), "%s,ro", b.path);
	assert_int_equal(try_open(b.path, false, &one, text), 0);
	assert_int_equal(try_open(b.path, false, &two, text), -EBUSY);
	assert_non_null(strstr(text, "locked"));
	assert_int_equal(try_open(ro, false, &two, text), -EBUSY);
	ctrl_store_close(one);
	assert_int_equal(try_open(ro, false, &one, text), 0);
	assert_int_equal(try_open(b.path, true, &two, text), 0);
	assert_true(one->geo.read_only && two->geo.read_only);
	assert_false(one->geo.volatile_cache || one->geo.discard);
	ctrl_store_close(one);
	assert_int_equal(try_open(b.path, false, &one, text), -EBUSY);
	ctrl_store_close(two);
	unlink(b.path);
}

static void a_store_says_which_way_it_is_served(void **state)
{
	struct ctrl_store *store;
	struct bench b = {0};
	char text[512];

	make_file(&b, SIZE);
	assert_int_equal(try_open(b.path, false, &store, text), 0);
	assert_non_null(
		strstr(store->how, ctrl_ring_refused() ? "thread pool (io_uring: " : "io_uring, "));
	assert_true(strstr(store->how, "O_DIRECT") || strstr(store->how, "buffered") ||
		    strstr(store->how, "a file in memory"));
	ctrl_store_close(store);
	unlink(b.path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* Before any other thread was made: it forks. */
		cmocka_unit_test(a_full_disk_is_an_error_and_goes_away_with_space),
		cmocka_unit_test(random_requests_keep_a_files_data_right_by_io_uring),
		cmocka_unit_test(random_requests_keep_a_buffered_files_data_right_by_io_uring),
		cmocka_unit_test(random_requests_keep_a_files_data_right_by_threads),
		cmocka_unit_test(random_requests_keep_memorys_data_right),
		cmocka_unit_test(a_file_in_memory_is_served_without_io_uring_or_threads),
		cmocka_unit_test(reads_of_what_the_page_cache_holds_do_not_wait_for_a_thread),
		cmocka_unit_test(calls_that_fall_short_are_continued),
		cmocka_unit_test(zeros_are_written_where_the_file_system_cannot_make_them),
		cmocka_unit_test(a_null_store_reads_zeros_and_never_older_data),
		cmocka_unit_test(discarded_space_goes_back_to_the_file_system),
		cmocka_unit_test(what_asks_for_durability_asks_the_file_for_it),
		cmocka_unit_test(what_asks_for_durability_asks_the_ring_for_it),
		cmocka_unit_test(after_a_failed_flush_nothing_is_called_durable_any_more),
		cmocka_unit_test(a_file_that_was_truncated_is_an_error_never_made_up_data),
		cmocka_unit_test(a_write_beyond_the_file_size_limit_is_an_error),
		cmocka_unit_test(more_requests_than_the_ring_holds_are_all_served),
		cmocka_unit_test(what_cannot_be_a_store_is_refused_with_the_way_out),
		cmocka_unit_test(the_rest_of_a_file_that_is_no_whole_block_is_not_exposed),
		cmocka_unit_test(a_file_has_one_writer_or_any_number_of_readers),
		cmocka_unit_test(a_store_says_which_way_it_is_served),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
