/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host API on files of a real server: shared by threads, after a fork, cancelled, with wrong arguments.
 *
 * The first argument is the path of liod.
 */
#include <stdatomic.h>
#include <sys/wait.h>

#include "fault/fixture.h"

static const char *liod;
static pid_t server;
static char base[64]; /* lio://127.0.0.1:PORT/x */

static const char *url(const char *name)
{
	static _Thread_local char urls[4][160];
	static _Thread_local unsigned int next;
	char *p = urls[next++ % 4];

	snprintf(p, sizeof(urls[0]), "%s/%s", base, name);
	return p;
}

static struct lio_file *open_url(const char *name, int flags)
{
	struct lio_file *file;

	OK(lio_open(url(name), flags, 0600, &file));
	return file;
}

static int start(void **state)
{
	char line[1024], export[96], *at;
	int fds[2];
	FILE *f;

	if (fixture_up(state) || pipe(fds))
		return -1;
	snprintf(export, sizeof(export), "x=%s,rw", fixture_dir);
	server = fork();
	if (!server) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(liod, liod, "--listen", "127.0.0.1:0", "--export", export, NULL);
		_exit(127);
	}
	close(fds[1]);
	f = fdopen(fds[0], "r");
	do
		if (!fgets(line, sizeof(line), f))
			return -1;
	while (!strstr(line, "event=listening"));
	at = strrchr(line, ':');
	snprintf(base, sizeof(base), "lio://127.0.0.1:%d/x", atoi(at + 1));
	return dup(fds[0]) <
	       0; /* stays open, so that the server can write; what it says is short */
}

static int stop(void **state)
{
	kill(server, SIGTERM);
	waitpid(server, NULL, 0);
	return fixture_down(state);
}

/* ---- plain files ---- */

static void bytes_are_stored_read_and_cut(void **state)
{
	size_t len = 5 * MIB + 77, got;
	uint8_t *bytes = noise(len), *back = malloc(len + 10);
	struct lio_file *file = open_url("plain", O_RDWR | O_CREAT | O_EXCL);
	char *there;

	assert_int_equal(lio_pwrite(file, bytes, len, 0), len);
	assert_int_equal(lio_size(file), len);
	assert_int_equal(lio_pread(file, back, len + 10, 0), len);
	assert_memory_equal(back, bytes, len);
	assert_int_equal(lio_pread(file, back, 100, len - 5), 5);
	assert_int_equal(lio_pread(file, back, 100, len), 0);
	assert_int_equal(lio_pread(file, back, 0, 0), 0);
	OK(lio_sync(file));
	OK(lio_truncate(file, 1000));
	assert_int_equal(lio_size(file), 1000);
	OK(lio_close(file));
	there = get("plain", &got);
	assert_int_equal(got, 1000);
	assert_memory_equal(there, bytes, got);
	free(there);
	free(bytes);
	free(back);
}

static void misuse_is_refused_with_a_line(void **state)
{
	struct lio_result res = {.size = sizeof(res)};
	struct lio_function *echo = load("echo"), *total = load("total");
	struct lio_file *file;
	char c = 0;

	put("misuse", "x", 1);
	FAILS(lio_open(url("misuse"), O_RDONLY | O_SYNC, 0, &file), -EINVAL, "O_SYNC");
	FAILS(lio_open(url("misuse"), O_RDWR | O_APPEND, 0, &file), -EINVAL, "O_APPEND");
	FAILS(lio_open(url("misuse"), O_RDWR | O_CREAT | O_EXCL, 0600, &file), -EEXIST, "misuse");
	FAILS(lio_open(url("absent"), O_RDONLY, 0, &file), -ENOENT, "absent");
	assert_null(file);
	file = open_url("misuse", O_RDONLY);
	FAILS(lio_pwrite(file, &c, 1, 0), -EBADF, "misuse");
	FAILS(lio_truncate(file, 0), -EBADF, "misuse");
	FAILS(lio_pread(file, &c, 1, UINT64_MAX), -EOVERFLOW, "misuse");
	FAILS(lio_lambda_write_mem(file, 0, echo, "x", 1, NULL, &res), -EBADF, "O_WRONLY");
	OK(lio_close(file));
	file = open_url("misuse", O_WRONLY);
	FAILS(lio_pread(file, &c, 1, 0), -EBADF, "not open for reading");
	FAILS(lio_lambda_read(file, echo, 0, 1, NULL, &c, 1, NULL), -EBADF, "not open for reading");
	FAILS(lio_lambda_write_mem(file, 0, total, "x", 1, NULL, &res), -EINVAL, "fold");
	OK(lio_close(file));
	FAILS(lio_stat("/etc", &(struct lio_stat){.size = sizeof(struct lio_stat)}), -EINVAL,
	      "no path of a server");
	FAILS(lio_stat(url("misuse"), &(struct lio_stat){.size = 0}), -EINVAL, "size");
	FAILS(lio_rename(url("misuse"), "/tmp/x"), -EINVAL, "no path of a server");
	lio_unload(echo);
	lio_unload(total);
}

/* ---- functions ---- */

static void output_goes_to_a_buffer_that_is_large_enough_or_fails(void **state)
{
	struct lio_result res = {.size = sizeof(res)},
			  old = {.size = offsetof(struct lio_result, why)};
	struct lio_function *fn = load("echo");
	struct lio_file *file;
	char buf[16] = "";

	put("small", "0123456789", 10);
	file = open_url("small", O_RDONLY);
	assert_int_equal(lio_lambda_read(file, fn, 2, 5, NULL, buf, sizeof(buf), &res), 5);
	assert_memory_equal(buf, "23456", 5);
	assert_int_equal(res.engine, LIO_ENGINE_DEVICE);
	assert_int_equal(res.bytes_in, 5);
	assert_int_equal(res.error_offset, UINT64_MAX);
	assert_non_null(strstr(res.why, "device engine"));
	assert_int_equal(lio_lambda_read(file, fn, 0, LIO_TO_END, NULL, buf, 10, &old), 10);
	FAILS(lio_lambda_read(file, fn, 0, LIO_TO_END, NULL, buf, 9, &res), -ENOSPC,
	      "output quota of 9");
	OK(lio_close(file));
	lio_unload(fn);
}

static int refuse_after_some(void *arg, const void *p, size_t len)
{
	size_t *left = arg;

	if (len > *left)
		return -EPIPE;
	*left -= len;
	return 0;
}

static void a_sink_that_refuses_ends_the_run_there(void **state)
{
	size_t len = 8 * MIB, left = 3 * MIB;
	struct lio_sink sink = {
		.size = sizeof(sink), .write = refuse_after_some, .arg = &left, .stream = true};
	uint8_t *bytes = noise(len);
	struct lio_function *fn = load("echo");
	struct lio_file *file;

	put("refused", bytes, len);
	file = open_url("refused", O_RDONLY);
	FAILS(lio_lambda_scan(file, fn, 0, LIO_TO_END, NULL, &sink, NULL), -EPIPE, "refused");
	assert_int_equal(lio_lambda_read(file, fn, 0, 4, NULL, bytes, 4, NULL),
			 4); /* and the next works */
	OK(lio_close(file));
	lio_unload(fn);
	free(bytes);
}

static void memory_is_written_through_a_function(void **state)
{
	struct lio_function *fn = load("echo");
	struct lio_file *file = open_url("memory", O_WRONLY | O_CREAT);
	struct lio_result res = {.size = sizeof(res)};
	size_t len = 3 * MIB + 5, got;
	uint8_t *bytes = noise(len);
	char *there;

	OK(lio_lambda_write_mem(file, 7, fn, bytes, len, NULL, &res));
	assert_int_equal(res.engine, LIO_ENGINE_DEVICE);
	assert_int_equal(res.bytes_written, len);
	OK(lio_sync(file));
	OK(lio_close(file));
	there = get("memory", &got);
	assert_int_equal(got, len + 7);
	assert_memory_equal(there + 7, bytes, len);
	free(there);
	free(bytes);
	lio_unload(fn);
}

static void count_progress(void *arg, uint64_t done, uint64_t total)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

struct canceller {
	int flag;
	atomic_uint progress;
};

static void *cancel_once_it_runs(void *arg)
{
	struct canceller *c = arg;

	while (!atomic_load(&c->progress))
		nanosleep(&(struct timespec){0, 5000000}, NULL);
	__atomic_store_n(&c->flag, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void a_run_tells_its_progress_and_can_be_cancelled(void **state)
{
	struct canceller c = {.flag = 0};
	struct lio_run_opts opts = {.size = sizeof(opts),
				    .fuel = 1ull << 49,
				    .cancel = &c.flag,
				    .progress = count_progress,
				    .hook_arg = &c.progress};
	struct lio_function *fn = load("spin");
	struct lio_file *file;
	pthread_t thread;
	char buf[16];

	put("spun", "x", 1);
	file = open_url("spun", O_RDONLY);
	pthread_create(&thread, NULL, cancel_once_it_runs, &c);
	FAILS(lio_lambda_read(file, fn, 0, LIO_TO_END, &opts, buf, sizeof(buf), NULL), -ECANCELED,
	      "cancelled");
	pthread_join(thread, NULL);
	OK(lio_close(file));
	lio_unload(fn);
}

/* ---- threads and processes ---- */

struct worker {
	struct lio_file *file;
	const struct lio_function *fn;
	const uint8_t *bytes;
	unsigned int number;
	bool wrong;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t buf[3000];

	for (unsigned int i = 0; i < 60; i++) {
		uint64_t at = (w->number * 7919 + i * 104729) % (MIB - sizeof(buf));
		int64_t n = i % 2 ? lio_pread(w->file, buf, sizeof(buf), at)
				  : lio_lambda_read(w->file, w->fn, at, sizeof(buf), NULL, buf,
						    sizeof(buf), NULL);

		w->wrong |= n != sizeof(buf) || memcmp(buf, w->bytes + at, sizeof(buf)) != 0;
	}
	return NULL;
}

static void threads_share_a_file_and_its_connection(void **state)
{
	uint8_t *bytes = noise(MIB);
	struct lio_function *fn = load("echo");
	struct worker workers[8];
	pthread_t threads[8];
	struct lio_file *file;

	put("shared", bytes, MIB);
	file = open_url("shared", O_RDONLY);
	for (unsigned int i = 0; i < 8; i++) {
		workers[i] = (struct worker){file, fn, bytes, i, false};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned int i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		assert_false(workers[i].wrong);
	}
	OK(lio_close(file));
	lio_unload(fn);
	free(bytes);
}

static void a_file_works_in_a_child_and_still_in_its_parent(void **state)
{
	struct lio_file *file;
	char buf[8] = "";
	int status;
	pid_t child;

	put("forked", "abcdef", 6);
	file = open_url("forked", O_RDONLY);
	assert_int_equal(lio_pread(file, buf, 3, 0), 3);
	child = fork();
	if (!child) {
		bool ok = lio_pread(file, buf, 3, 3) == 3 && !memcmp(buf, "def", 3) &&
			  !lio_close(file) && !lio_open(url("forked"), O_RDONLY, 0, &file) &&
			  lio_pread(file, buf, 6, 0) == 6;

		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	assert_int_equal(lio_pread(file, buf, 3, 3), 3);
	assert_memory_equal(buf, "def", 3);
	OK(lio_close(file));
}

static void files_that_are_closed_leave_nothing_open(void **state)
{
	int before;

	put("often", "x", 1);
	OK(lio_close(open_url("often", O_RDONLY)));
	before = descriptors();
	for (int i = 0; i < 2000; i++) /* more than a server lets one host have open at once */
		OK(lio_close(open_url("often", O_RDONLY)));
	assert_int_equal(descriptors(), before);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_stored_read_and_cut),
		cmocka_unit_test(misuse_is_refused_with_a_line),
		cmocka_unit_test(output_goes_to_a_buffer_that_is_large_enough_or_fails),
		cmocka_unit_test(a_sink_that_refuses_ends_the_run_there),
		cmocka_unit_test(memory_is_written_through_a_function),
		cmocka_unit_test(a_run_tells_its_progress_and_can_be_cancelled),
		cmocka_unit_test(threads_share_a_file_and_its_connection),
		cmocka_unit_test(a_file_works_in_a_child_and_still_in_its_parent),
		cmocka_unit_test(files_that_are_closed_leave_nothing_open),
	};

	if (argc < 2)
		return 2;
	liod = argv[1];
	return cmocka_run_group_tests_name("files of a server", tests, start, stop);
}
