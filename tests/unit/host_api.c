/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host API does what its header says: files, functions, λ-read, λ-write, options and results.
 */
#include "fault/fixture.h"

/* ---- files ---- */

static void a_path_that_cannot_be_opened_says_why_and_what_to_do(void **state)
{
	struct lio_file *file;

	FAILS(lio_open(in_dir("absent"), O_RDONLY, 0, &file), -ENOENT, "no such file");
	assert_null(file);
	FAILS(lio_open(fixture_dir, O_RDONLY, 0, &file), -EISDIR, "is a directory");
	FAILS(lio_open(fixture_dir, O_RDWR, 0, &file), -EISDIR, "is a directory");
	FAILS(lio_open("lio:///export/x", O_RDONLY, 0, &file), -EINVAL, "names no server");
	FAILS(lio_open("", O_RDONLY, 0, &file), -EINVAL, "empty");
	FAILS(lio_open("-", O_RDWR, 0, &file), -EINVAL, "standard input");
	FAILS(lio_open(in_dir("x"), O_WRONLY | O_CREAT | O_APPEND, 0600, &file), -EINVAL,
	      "O_APPEND");
	put("plain", "x", 1);
	FAILS(lio_open(in_dir("plain/y"), O_RDONLY, 0, &file), -ENOTDIR, "not a directory");
}

static void bytes_written_at_an_offset_are_read_there_and_nothing_is_truncated(void **state)
{
	struct lio_file *file = open_in("rw", O_RDWR | O_CREAT | O_TRUNC);
	char buf[16] = "";

	assert_int_equal(lio_pwrite(file, "hello world", 11, 0), 11);
	assert_int_equal(lio_pwrite(file, "W", 1, 6), 1);
	assert_int_equal(lio_size(file), 11);
	assert_int_equal(lio_pread(file, buf, sizeof(buf), 6), 5);
	assert_memory_equal(buf, "World", 5);
	assert_int_equal(lio_pread(file, buf, sizeof(buf), 11), 0);
	assert_int_equal(lio_pread(file, buf, sizeof(buf), 1u << 30), 0);
	OK(lio_sync(file));
	OK(lio_close(file));
}

static void reading_and_writing_need_a_file_opened_for_it(void **state)
{
	struct lio_file *file;
	char c;

	put("plain", "x", 1);
	file = open_in("plain", O_RDONLY);
	FAILS(lio_pwrite(file, "y", 1, 0), -EBADF, "plain");
	OK(lio_close(file));
	file = open_in("plain", O_WRONLY);
	FAILS(lio_pread(file, &c, 1, 0), -EBADF, "not open for reading");
	OK(lio_close(file));
}

static void unaligned_reads_and_writes_work_on_a_file_opened_with_O_DIRECT(void **state)
{
	size_t len = 3 * MIB + 12345, at[] = {0, 1, 4095, 4096, 1000000, 3 * MIB + 12000}, got;
	uint8_t *bytes = noise(len), *buf = malloc(len);
	struct lio_file *file;
	char *after;

	put("direct", bytes, len);
	if (lio_open(in_dir("direct"), O_RDWR | O_DIRECT, 0, &file) == -EINVAL)
		skip();
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		assert_int_equal(lio_pread(file, buf, len, at[i]), len - at[i]);
		assert_memory_equal(buf, bytes + at[i], len - at[i]);
		assert_int_equal(lio_pread(file, buf + 3, 5, at[i]), 5);
		assert_memory_equal(buf + 3, bytes + at[i], 5);
	}
	memcpy(bytes + 4095, "abc", 3);
	assert_int_equal(lio_pwrite(file, "abc", 3, 4095), 3);
	assert_int_equal(lio_pread(file, buf, len, 0), len);
	assert_memory_equal(buf, bytes, len);
	OK(lio_close(file));
	after = get("direct", &got);
	assert_int_equal(got, len);
	assert_memory_equal(after, bytes, len);
	free(after);
	free(buf);
	free(bytes);
}

/* Standard input is a pipe that holds @bytes and then ends, until restored. */
static int stdin_gives(const void *bytes, size_t len)
{
	int fds[2], saved = dup(STDIN_FILENO);

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], bytes, len), len);
	close(fds[1]);
	dup2(fds[0], STDIN_FILENO);
	close(fds[0]);
	return saved;
}

static void stdin_restore(int saved)
{
	dup2(saved, STDIN_FILENO);
	close(saved);
}

static void standard_input_is_read_in_order_and_once(void **state)
{
	int saved = stdin_gives("abcdef", 6);
	struct lio_function *echo = load("echo");
	struct lio_file *in;
	char buf[8];

	OK(lio_open("-", O_RDONLY, 0, &in));
	FAILS(lio_size(in), -ESPIPE, "stream");
	assert_int_equal(lio_pread(in, buf, 2, 0), 2);
	FAILS(lio_pread(in, buf, 2, 0), -ESPIPE, "now at byte 2");
	assert_int_equal(lio_pread(in, buf, sizeof(buf), 2), 4);
	assert_memory_equal(buf, "cdef", 4);
	FAILS(lio_lambda_read(in, echo, 0, LIO_TO_END, NULL, buf, 8, NULL), -ESPIPE, "before");
	OK(lio_close(in));
	stdin_restore(saved);

	saved = stdin_gives("abcdef", 6);
	OK(lio_open("-", O_RDONLY, 0, &in));
	assert_int_equal(lio_lambda_read(in, echo, 1, 3, NULL, buf, sizeof(buf), NULL), 3);
	assert_memory_equal(buf, "bcd", 3);
	FAILS(lio_pread(in, buf, 1, 0), -ESPIPE, "open it again");
	OK(lio_close(in));
	stdin_restore(saved);
	lio_unload(echo);
}

static void files_of_proc_have_no_size_and_are_read_to_their_end(void **state)
{
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	struct lio_result res = {.size = sizeof(res)};
	char buf[4096];

	OK(lio_open("/proc/self/status", O_RDONLY, 0, &file));
	assert_true(lio_lambda_read(file, echo, 0, LIO_TO_END, NULL, buf, sizeof(buf), &res) > 100);
	assert_memory_equal(buf, "Name:", 5);
	assert_string_equal(res.io, "stream");
	OK(lio_close(file));
	lio_unload(echo);
}

/* ---- functions ---- */

static void an_unknown_name_is_answered_with_close_ones(void **state)
{
	struct lio_function *fn;

	FAILS(lio_load("ehco", &fn), -ENOENT, "did you mean \"echo\"?");
	FAILS(lio_load("tota", &fn), -ENOENT, "\"total\"");
	FAILS(lio_load("zzzzzzzzzz", &fn), -ENOENT, "lio functions");
	assert_null(fn);
}

static void a_name_never_leaves_the_directory_of_functions(void **state)
{
	struct lio_function *fn;

	FAILS(lio_load("", &fn), -EINVAL, "not a name");
	FAILS(lio_load("..", &fn), -EINVAL, "not a name");
	FAILS(lio_load("a..b", &fn), -EINVAL, "not a name");
	FAILS(lio_load("../echo", &fn), -ENOENT, "../echo");
}

static void what_is_not_a_function_is_refused(void **state)
{
	struct lio_function *fn;

	put("text.o", "not an object at all", 20);
	RUN_FAILS(lio_load(in_dir("text.o"), &fn), -ENOEXEC, "");
	put("empty.o", "", 0);
	RUN_FAILS(lio_load(in_dir("empty.o"), &fn), -ENOEXEC, "");
	FAILS(lio_load(fixture_dir, &fn), -EISDIR, "is a directory");
	FAILS(lio_load(in_dir("absent.o"), &fn), -ENOENT, "absent.o");
	assert_int_equal(mkfifo(in_dir("fifo.o"), 0600), 0);
	FAILS(lio_load(in_dir("fifo.o"), &fn), -ENOEXEC, "not a regular file");
	put("huge.o", "", 0);
	assert_int_equal(truncate(in_dir("huge.o"), 65 * (off_t)MIB), 0);
	FAILS(lio_load(in_dir("huge.o"), &fn), -E2BIG, "huge.o");
	assert_null(fn);
}

static void a_function_describes_itself(void **state)
{
	struct lio_function *fn = load("total");
	struct lio_function_info info = {.size = sizeof(info)}, old = {0};

	OK(lio_function_info(fn, &info));
	assert_string_equal(info.name, "total");
	assert_string_equal(info.doc, "count and sum of u64");
	assert_string_equal(info.output, "n:u64 sum:u64");
	assert_string_equal(info.args, "");
	assert_int_equal(info.kind, LIO_KIND_FOLD);
	assert_int_equal(info.record, LIO_RECORD_FIXED);
	assert_int_equal(info.record_value, 8);
	assert_true(info.parallel);
	assert_int_equal(info.state_bytes, 16);
	assert_true(info.insns > 10);
	FAILS(lio_function_info(fn, &old), -EINVAL, "size");
	old.size = offsetof(struct lio_function_info, doc);
	OK(lio_function_info(fn, &old));
	assert_string_equal(old.name, "total");
	assert_null(old.doc);
	lio_unload(fn);

	fn = load("lines");
	OK(lio_function_info(fn, &info));
	assert_int_equal(info.kind, LIO_KIND_SCAN);
	assert_false(info.parallel);
	lio_unload(fn);
	lio_unload(NULL);
}

/* ---- λ-read ---- */

static void a_lambda_read_returns_the_output_of_the_range(void **state)
{
	size_t len = 3 * MIB + 17;
	uint8_t *bytes = noise(len), *buf = malloc(len);
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	struct {
		uint64_t at, len;
	} ranges[] = {{0, LIO_TO_END},   {1, 2 * MIB}, {4095, 4098},          {len - 1, 1},
		      {len, LIO_TO_END}, {len + 5, 1}, {MIB, LIO_TO_END - 1}, {5, 0}};

	put("data", bytes, len);
	file = open_in("data", O_RDONLY);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		struct lio_result res = {.size = sizeof(res)};
		uint64_t at = ranges[i].at < len ? ranges[i].at : len;
		uint64_t want = ranges[i].len < len - at ? ranges[i].len : len - at;
		int64_t n = lio_lambda_read(file, echo, ranges[i].at, ranges[i].len, NULL, buf, len,
					    &res);

		OK(n);
		assert_int_equal(n, want);
		assert_memory_equal(buf, bytes + at, want);
		assert_int_equal(res.bytes_in, want);
		assert_int_equal(res.bytes_out, want);
	}
	OK(lio_close(file));
	lio_unload(echo);
	free(buf);
	free(bytes);
}

static void every_way_in_gives_the_same_bytes(void **state)
{
	static const enum lio_io ways[] = {LIO_IO_AUTO, LIO_IO_MMAP, LIO_IO_PREAD};
	size_t len = 5 * MIB + 4097;
	uint8_t *bytes = noise(len), *buf = malloc(len);
	struct lio_function *echo = load("echo");
	struct lio_file *file;

	put("data", bytes, len);
	for (size_t i = 0; i < 6; i++) {
		struct lio_run_opts opts = {.size = sizeof(opts), .io = ways[i % 3]};
		struct lio_result res = {.size = sizeof(res)};
		int rc = lio_open(in_dir("data"), O_RDONLY | (i < 3 ? 0 : O_DIRECT), 0, &file);

		if (rc == -EINVAL)
			continue;
		OK(rc);
		if (i >= 3 && opts.io == LIO_IO_MMAP) {
			FAILS(lio_lambda_read(file, echo, 0, len, &opts, buf, len, &res),
			      -EOPNOTSUPP, "io mmap");
		} else {
			memset(buf, 0, len);
			OK(lio_lambda_read(file, echo, 1, len, &opts, buf, len, &res));
			assert_int_equal(res.bytes_out, len - 1);
			assert_memory_equal(buf, bytes + 1, len - 1);
			if (opts.io)
				assert_string_equal(res.io, i % 3 == 1 ? "mmap" : "pread");
		}
		OK(lio_close(file));
	}
	lio_unload(echo);
	free(buf);
	free(bytes);
}

static void output_that_does_not_fit_is_an_error_that_names_the_quota(void **state)
{
	struct lio_function *echo = load("echo"), *total = load("total");
	struct lio_run_opts opts = {.size = sizeof(opts), .max_output = 10};
	struct lio_file *file;
	uint64_t row[2];
	char buf[64];

	put("data", "0123456789abcdef", 16);
	file = open_in("data", O_RDONLY);
	FAILS(lio_lambda_read(file, echo, 0, LIO_TO_END, NULL, buf, 15, NULL), -ENOSPC,
	      "output quota");
	FAILS(lio_lambda_read(file, echo, 0, LIO_TO_END, &opts, buf, 64, NULL), -ENOSPC,
	      "output quota");
	FAILS(lio_lambda_read(file, total, 0, LIO_TO_END, NULL, NULL, 0, NULL), -ENOSPC,
	      "output quota");
	assert_int_equal(lio_lambda_read(file, total, 0, LIO_TO_END, NULL, row, 16, NULL), 16);
	assert_int_equal(row[0], 2);
	OK(lio_close(file));
	lio_unload(echo);
	lio_unload(total);
}

static void a_result_says_what_was_done_and_why(void **state)
{
	struct lio_function *total = load("total");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_run_opts opts = {.size = sizeof(opts), .tier = LIO_TIER_INTERP, .threads = 1};
	struct lio_file *file;
	uint64_t row[2];

	put("data", "0123456789abcdefXYZ", 19);
	file = open_in("data", O_RDONLY);
	OK(lio_lambda_read(file, total, 0, LIO_TO_END, &opts, row, 16, &res));
	assert_int_equal(res.bytes_in, 16);
	assert_int_equal(res.trailing, 3);
	assert_int_equal(res.bytes_out, 16);
	assert_int_equal(res.bytes_written, 0);
	assert_true(res.calls >= 1);
	assert_true(res.fuel > 0);
	assert_true(res.wall_ns > 0);
	assert_int_equal(res.threads, 1);
	assert_int_equal(res.engine, LIO_ENGINE_USER);
	assert_int_equal(res.tier, LIO_TIER_INTERP);
	assert_non_null(strstr(res.why, "user engine: "));
	assert_non_null(strstr(res.why, "interp tier: as asked"));
	assert_int_equal(res.error_offset, UINT64_MAX);
	OK(lio_close(file));
	lio_unload(total);
}

static void arguments_default_or_are_asked_for_by_name(void **state)
{
	struct lio_function *refuse = load("refuse"), *lines = load("lines");
	struct lio_run_opts opts = {.size = sizeof(opts)};
	struct lio_file *file;
	char buf[64];
	void *arg;
	size_t len;

	put("data", "a\nb\n", 4);
	file = open_in("data", O_RDONLY);
	FAILS(lio_lambda_read(file, refuse, 0, LIO_TO_END, NULL, buf, 64, NULL), -EINVAL, "byte");
	OK(lio_lambda_read(file, lines, 0, LIO_TO_END, NULL, buf, 64, NULL));
	assert_memory_equal(buf, "1 a\n2 b\n", 8);
	OK(lio_args(lines, (const char *const[]){"first=41"}, 1, &arg, &len));
	opts.arg = arg;
	opts.arg_len = len;
	OK(lio_lambda_read(file, lines, 0, LIO_TO_END, &opts, buf, 64, NULL));
	assert_memory_equal(buf, "41 a\n42 b\n", 10);
	free(arg);
	FAILS(lio_args(lines, (const char *const[]){"last=1"}, 1, &arg, &len), -EINVAL, "last");
	assert_null(arg);
	OK(lio_args(refuse, (const char *const[]){"98"}, 1, &arg, &len));
	opts.arg = arg;
	opts.arg_len = len;
	RUN_FAILS(lio_lambda_read(file, refuse, 0, LIO_TO_END, &opts, buf, 64, NULL), -EDOM,
		  "refuse");
	free(arg);
	OK(lio_close(file));
	lio_unload(refuse);
	lio_unload(lines);
}

static void arguments_that_are_not_as_declared_are_refused(void **state)
{
	struct lio_function *refuse = load("refuse"); /* one byte */
	struct lio_run_opts opts = {.size = sizeof(opts), .arg = "ab"};
	struct lio_file *file;
	char buf[64];

	put("data", "a\nb\n", 4);
	file = open_in("data", O_RDONLY);
	opts.arg_len = 0;
	FAILS(lio_lambda_read(file, refuse, 0, LIO_TO_END, &opts, buf, 64, NULL), -EINVAL,
	      "'byte'");
	opts.arg_len = 2;
	FAILS(lio_lambda_read(file, refuse, 0, LIO_TO_END, &opts, buf, 64, NULL), -EINVAL,
	      "lio_args");
	OK(lio_close(file));
	lio_unload(refuse);
}

/* ---- options and results of other versions ---- */

static void options_of_an_older_or_newer_caller_are_understood_or_refused(void **state)
{
	struct {
		struct lio_run_opts opts;
		uint64_t more[2];
	} newer = {.opts.size = sizeof(newer)};
	struct {
		struct lio_result res;
		uint64_t more[2];
	} result = {.res.size = sizeof(result), .more = {7, 7}};
	struct lio_run_opts opts = {0};
	struct lio_result res = {0};
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	char buf[8];

	put("data", "abc", 3);
	file = open_in("data", O_RDONLY);
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "size");
	FAILS(lio_lambda_read(file, echo, 0, 3, NULL, buf, 8, &res), -EINVAL, "size");
	opts.size = offsetof(struct lio_run_opts, tier);
	opts.tier = (enum lio_tier)99; /* beyond what an older caller knows */
	OK(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL));
	OK(lio_lambda_read(file, echo, 0, 3, &newer.opts, buf, 8, &result.res));
	assert_int_equal(result.res.bytes_out, 3);
	assert_int_equal(result.res.size, sizeof(result));
	assert_int_equal(result.more[1], 0);
	newer.more[1] = 1;
	FAILS(lio_lambda_read(file, echo, 0, 3, &newer.opts, buf, 8, NULL), -E2BIG, "newer");
	res = (struct lio_result){.size = offsetof(struct lio_result, bytes_out), .bytes_out = 99};
	OK(lio_lambda_read(file, echo, 0, 3, NULL, buf, 8, &res));
	assert_int_equal(res.bytes_in, 3);
	assert_int_equal(res.bytes_out, 99);
	OK(lio_close(file));
	lio_unload(echo);
}

static bool feature(const char *name)
{
	struct lio_feature f;

	for (unsigned int n = 0; lio_feature(n, &f) == 0; n++)
		if (!strcmp(f.name, name))
			return f.available;
	return false;
}

static void what_this_version_has_not_is_refused_by_name(void **state)
{
	struct lio_run_opts opts = {.size = sizeof(opts)};
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	char buf[8];

	put("data", "abc", 3);
	file = open_in("data", O_RDONLY);
	opts.engine = LIO_ENGINE_KERNEL;
	if (!feature("kernel engine"))
		FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EOPNOTSUPP,
		      "engine kernel");
	else
		OK(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL));
	opts.tier = LIO_TIER_INTERP;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "engine kernel");
	opts.engine = LIO_ENGINE_USER;
	opts.tier = LIO_TIER_KERNEL;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "engine kernel");
	opts.tier = LIO_TIER_AUTO;
	opts.engine = LIO_ENGINE_DEVICE;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EOPNOTSUPP, "engine device");
	opts.engine = (enum lio_engine)17;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "engine 17");
	opts.engine = LIO_ENGINE_USER;
	OK(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL));
	opts.tier = (enum lio_tier)17;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "tier 17");
	opts.tier = LIO_TIER_AUTO;
	opts.io = (enum lio_io)17;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "io 17");
	opts.io = LIO_IO_AUTO;
	opts.threads = 1u << 30;
	FAILS(lio_lambda_read(file, echo, 0, 3, &opts, buf, 8, NULL), -EINVAL, "threads");
	OK(lio_close(file));
	lio_unload(echo);
}

static void features_are_listed_with_what_is_missing(void **state)
{
	struct lio_feature f;
	unsigned int n = 0;
	bool user = false;

	for (; lio_feature(n, &f) == 0; n++) {
		assert_true(f.available == !*f.missing);
		if (!strcmp(f.name, "user engine"))
			user = f.available;
	}
	assert_int_equal(lio_feature(n, &f), -ENOENT);
	assert_true(user);
	assert_true(n >= 8);
	assert_string_equal(lio_errname(-ENOSPC), "ENOSPC");
	assert_string_equal(lio_errname(ENOSPC), "ENOSPC");
	assert_string_equal(lio_errname(-99999), "E?");
	assert_string_equal(lio_errname(0), "E?");
}

/* ---- scans ---- */

static void a_scan_gives_all_output_in_order_also_beyond_what_memory_stages(void **state)
{
	size_t len = 70 * MIB + 1;
	uint8_t *bytes = noise(len);
	struct lio_function *echo = load("echo");
	struct kept kept = {0};
	struct lio_sink sink = {.size = sizeof(sink), .write = keep, .arg = &kept};
	/* A tier that the library would still be compiling for afterwards has descriptors for that. */
	struct lio_run_opts opts = {.size = sizeof(opts), .tier = LIO_TIER_TEMPLATE};
	int before = descriptors();
	struct lio_file *file;

	put("data", bytes, len);
	file = open_in("data", O_RDONLY);
	OK(lio_lambda_scan(file, echo, 0, LIO_TO_END, &opts, &sink, NULL));
	assert_int_equal(kept.len, len);
	assert_memory_equal(kept.bytes, bytes, len);
	OK(lio_close(file));
	assert_int_equal(descriptors(), before);
	unlink(in_dir("data"));
	lio_unload(echo);
	free(kept.bytes);
	free(bytes);
}

static void a_failing_function_shows_no_output_unless_it_was_streamed(void **state)
{
	struct lio_function *refuse = load("refuse");
	struct lio_run_opts opts = {
		.size = sizeof(opts), .arg = "!", .arg_len = 1, .chunk = 64 * KIB, .threads = 1};
	struct lio_result res = {.size = sizeof(res)};
	struct kept kept = {0};
	struct lio_sink sink = {.size = sizeof(sink), .write = keep, .arg = &kept};
	struct lio_file *file;
	char *text = malloc(MIB);

	memset(text, 'a', MIB);
	text[900 * KIB] = '!';
	put("data", text, MIB);
	file = open_in("data", O_RDONLY);
	RUN_FAILS(lio_lambda_scan(file, refuse, 0, LIO_TO_END, &opts, &sink, &res), -EDOM,
		  "refuse");
	assert_int_equal(kept.calls, 0);
	assert_true(res.error_offset <= 900 * KIB && res.error_offset > 800 * KIB);
	sink.stream = true;
	RUN_FAILS(lio_lambda_scan(file, refuse, 0, LIO_TO_END, &opts, &sink, &res), -EDOM,
		  "refuse");
	assert_true(kept.len > 0 && kept.len < 900 * KIB);
	assert_memory_equal(kept.bytes, text, kept.len);
	OK(lio_close(file));
	lio_unload(refuse);
	free(kept.bytes);
	free(text);
}

static int take_nothing(void *arg, const void *p, size_t len)
{
	return *(int *)arg;
}

static void the_error_of_a_sink_ends_the_run_and_comes_back(void **state)
{
	struct lio_function *echo = load("echo");
	int code = -EPIPE;
	struct lio_sink sink = {.size = sizeof(sink), .write = take_nothing, .arg = &code};
	struct lio_file *file;

	put("data", "abc", 3);
	file = open_in("data", O_RDONLY);
	FAILS(lio_lambda_scan(file, echo, 0, 3, NULL, &sink, NULL), -EPIPE, "echo");
	sink.stream = true;
	FAILS(lio_lambda_scan(file, echo, 0, 3, NULL, &sink, NULL), -EPIPE, "echo");
	code = 1;
	FAILS(lio_lambda_scan(file, echo, 0, 3, NULL, &sink, NULL), -EIO, "echo");
	sink.size = 0;
	FAILS(lio_lambda_scan(file, echo, 0, 3, NULL, &sink, NULL), -EINVAL, "size");
	OK(lio_close(file));
	lio_unload(echo);
}

/* ---- λ-write ---- */

static void a_lambda_write_stores_the_output_at_the_offset_and_nothing_else(void **state)
{
	struct lio_function *lines = load("lines");
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file, *input;
	char *after;
	size_t len;

	put("target", "..............", 14);
	put("input", "a\nb", 3);
	file = open_in("target", O_WRONLY);
	input = open_in("input", O_RDONLY);
	OK(lio_lambda_write(file, 3, lines, input, 0, LIO_TO_END, NULL, &res));
	assert_int_equal(res.bytes_in, 3);
	assert_int_equal(res.bytes_written, 8);
	OK(lio_lambda_write_mem(file, 12, lines, "c\n", 2, NULL, &res));
	assert_int_equal(res.bytes_written, 4);
	OK(lio_close(file));
	OK(lio_close(input));
	after = get("target", &len);
	assert_string_equal(after, "...1 a\n2 b\n.1 c\n");
	free(after);
	lio_unload(lines);
}

static void a_file_may_be_written_from_itself(void **state)
{
	struct lio_function *lines = load("lines");
	struct lio_file *file;
	char *after;
	size_t len;

	put("self", "a\nb\nc\n", 6);
	file = open_in("self", O_RDWR);
	OK(lio_lambda_write(file, 0, lines, file, 0, LIO_TO_END, NULL, NULL));
	OK(lio_close(file));
	after = get("self", &len);
	assert_string_equal(after, "1 a\n2 b\n3 c\n");
	free(after);
	lio_unload(lines);
}

static void a_function_that_fails_or_cannot_write_leaves_the_file_untouched(void **state)
{
	struct lio_function *refuse = load("refuse"), *total = load("total"), *echo = load("echo");
	struct lio_run_opts opts = {.size = sizeof(opts), .arg = "b", .arg_len = 1};
	struct lio_result res = {.size = sizeof(res)};
	struct lio_file *file;
	char *after;
	size_t len;

	put("self", "abcdefgh", 8);
	file = open_in("self", O_RDWR);
	RUN_FAILS(lio_lambda_write(file, 0, refuse, file, 1, 4, &opts, &res), -EDOM, "refuse");
	assert_int_equal(res.bytes_written, 0);
	FAILS(lio_lambda_write(file, 0, total, file, 0, 8, NULL, &res), -EINVAL, "fold");
	FAILS(lio_lambda_write_mem(file, UINT64_MAX, echo, "x", 1, NULL, &res), -EFBIG, "self");
	OK(lio_close(file));
	file = open_in("self", O_RDONLY);
	FAILS(lio_lambda_write_mem(file, 0, echo, "x", 1, NULL, &res), -EBADF, "O_WRONLY");
	OK(lio_close(file));
	after = get("self", &len);
	assert_string_equal(after, "abcdefgh");
	free(after);
	lio_unload(refuse);
	lio_unload(total);
	lio_unload(echo);
}

/* ---- sharing, leaving nothing behind ---- */

struct reader {
	pthread_t thread;
	struct lio_file *file;
	struct lio_function *fn;
	uint64_t sum;
	int64_t rc;
};

static void *read_often(void *arg)
{
	struct reader *r = arg;
	uint64_t row[2];

	for (int i = 0; i < 200 && r->rc >= 0; i++) {
		r->rc = lio_lambda_read(r->file, r->fn, 0, LIO_TO_END, NULL, row, 16, NULL);
		r->sum += row[1];
	}
	return NULL;
}

static void threads_share_a_file_and_a_function(void **state)
{
	struct lio_function *total = load("total");
	struct reader readers[4];
	uint64_t *v = calloc(1, 64 * KIB);
	struct lio_file *file;

	for (uint64_t i = 0; i < 8 * KIB; i++)
		v[i] = i;
	put("data", v, 64 * KIB);
	file = open_in("data", O_RDONLY);
	for (int i = 0; i < 4; i++) {
		readers[i] = (struct reader){.file = file, .fn = total};
		pthread_create(&readers[i].thread, NULL, read_often, &readers[i]);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].rc, 16);
		assert_int_equal(readers[i].sum, 200ull * (8 * KIB) * (8 * KIB - 1) / 2);
	}
	OK(lio_close(file));
	lio_unload(total);
	free(v);
}

static void descriptors_are_not_inherited_and_none_is_left_open(void **state)
{
	int before = descriptors(), inherited = 0;
	struct lio_function *echo = load("echo");
	struct lio_file *file, *in;

	for (int fd = 0; fd < 256; fd++)
		inherited += fcntl(fd, F_GETFD) == 0;
	put("data", "abc", 3);
	file = open_in("data", O_RDWR);
	OK(lio_open("-", O_RDONLY, 0, &in));
	assert_int_equal(descriptors(), before + 2);
	for (int fd = 0; fd < 256; fd++)
		inherited -= fcntl(fd, F_GETFD) == 0;
	assert_int_equal(inherited, 0);
	OK(lio_close(in));
	OK(lio_close(file));
	OK(lio_close(NULL));
	lio_unload(echo);
	assert_int_equal(descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_that_cannot_be_opened_says_why_and_what_to_do),
		cmocka_unit_test(
			bytes_written_at_an_offset_are_read_there_and_nothing_is_truncated),
		cmocka_unit_test(reading_and_writing_need_a_file_opened_for_it),
		cmocka_unit_test(unaligned_reads_and_writes_work_on_a_file_opened_with_O_DIRECT),
		cmocka_unit_test(standard_input_is_read_in_order_and_once),
		cmocka_unit_test(files_of_proc_have_no_size_and_are_read_to_their_end),
		cmocka_unit_test(an_unknown_name_is_answered_with_close_ones),
		cmocka_unit_test(a_name_never_leaves_the_directory_of_functions),
		cmocka_unit_test(what_is_not_a_function_is_refused),
		cmocka_unit_test(a_function_describes_itself),
		cmocka_unit_test(a_lambda_read_returns_the_output_of_the_range),
		cmocka_unit_test(every_way_in_gives_the_same_bytes),
		cmocka_unit_test(output_that_does_not_fit_is_an_error_that_names_the_quota),
		cmocka_unit_test(a_result_says_what_was_done_and_why),
		cmocka_unit_test(arguments_default_or_are_asked_for_by_name),
		cmocka_unit_test(arguments_that_are_not_as_declared_are_refused),
		cmocka_unit_test(options_of_an_older_or_newer_caller_are_understood_or_refused),
		cmocka_unit_test(what_this_version_has_not_is_refused_by_name),
		cmocka_unit_test(features_are_listed_with_what_is_missing),
		cmocka_unit_test(a_scan_gives_all_output_in_order_also_beyond_what_memory_stages),
		cmocka_unit_test(a_failing_function_shows_no_output_unless_it_was_streamed),
		cmocka_unit_test(the_error_of_a_sink_ends_the_run_and_comes_back),
		cmocka_unit_test(a_lambda_write_stores_the_output_at_the_offset_and_nothing_else),
		cmocka_unit_test(a_file_may_be_written_from_itself),
		cmocka_unit_test(a_function_that_fails_or_cannot_write_leaves_the_file_untouched),
		cmocka_unit_test(threads_share_a_file_and_a_function),
		cmocka_unit_test(descriptors_are_not_inherited_and_none_is_left_open),
	};

	return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
