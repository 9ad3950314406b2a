/* SPDX-License-Identifier: Apache-2.0 */
/* What jobs promise when nothing is wrong: every kind of function, every kind of source, output at any pace. */
#include <dirent.h>
#include <zlib.h>
#include <zstd.h>

#include "worker_fixture.h"

/* ---- data ---- */

static char *lines_of(size_t n, size_t *len)
{
	char *p = malloc(n * 64);
	size_t at = 0;

	for (size_t i = 0; i < n; i++)
		at += (size_t)sprintf(p + at, "line %zu %s\n", i, i % 10 ? "plain" : "ERROR here");
	*len = at;
	return p;
}

static uint8_t *bytes_of(size_t len)
{
	uint8_t *p = malloc(len);
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)x;
	}
	return p;
}

static size_t count_lines(const uint8_t *p, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += p[i] == '\n';
	return n;
}

static uint64_t sum_of(const uint8_t *p, size_t len)
{
	uint64_t sum = 0, x;

	for (size_t i = 0; i + 8 <= len; i += 8) {
		memcpy(&x, p + i, 8);
		sum += x;
	}
	return sum;
}

static void assert_total(const struct run *r, const uint8_t *data, size_t len)
{
	uint64_t row[2];

	assert_int_equal(r->len, sizeof(row));
	memcpy(row, r->out, sizeof(row));
	assert_int_equal(row[0], len / 8);
	assert_int_equal(row[1], sum_of(data, len));
}

static void assert_echo(const struct run *r, const void *data, size_t len)
{
	assert_int_equal(r->len, len);
	assert_memory_equal(r->out, data, len);
}

static int setup(void **state)
{
	static struct fixture f;

	fixture_open(&f, NULL);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_close(*state);
	return 0;
}

/* ---- kinds of functions ---- */

static void a_map_gives_its_output_in_file_order(void **state)
{
	struct run r;
	char arg[32];
	size_t len;
	char *data = lines_of(100000, &len);

	run_init(&r, *state, "grep");
	run_over(&r, data, len);
	run_arg_text(&r, arg, "ERROR");
	r.job.threads = 2;
	r.req.chunk = 64 * KIB;
	run_ok(&r);
	assert_int_equal(count_lines(r.out, r.len), 10000);
	assert_memory_equal(r.out, "line 0 ERROR here\nline 10 ERROR", 30);
	assert_memory_equal(r.out + r.len - 22, "line 99990 ERROR here\n", 22);
	assert_int_equal(r.job.result.bytes_in, len);
	assert_int_equal(r.job.result.bytes_out, r.len);
	assert_int_equal(r.job.result.io, NVME_LAMBDA_IO_PREAD);
	assert_int_equal(r.job.done, len);
	assert_int_equal(r.job.total, len);
	assert_true(r.job.result.calls > 10);
	assert_true(r.cpu_ns > 0);
	run_free(&r);
	free(data);
}

static void a_scan_carries_its_state_from_piece_to_piece(void **state)
{
	struct run r;
	char arg[32], last[64];
	size_t len;
	char *data = lines_of(50000, &len);

	run_init(&r, *state, "grep-number");
	run_over(&r, data, len);
	run_arg_text(&r, arg, "line");
	r.req.chunk = 64 * KIB;
	run_ok(&r);
	assert_int_equal(count_lines(r.out, r.len), 50000);
	snprintf(last, sizeof(last), "\n50000:line 49999 plain\n");
	assert_memory_equal(r.out + r.len - strlen(last), last, strlen(last));
	run_free(&r);
	free(data);
}

static void a_fold_is_merged_or_goes_in_order(void **state)
{
	const size_t len = 3 * MIB;
	uint8_t *data = bytes_of(len);
	struct run r;

	run_init(&r, *state, "total");
	run_over(&r, data, len);
	r.job.threads = 2;
	r.req.chunk = 64 * KIB;
	run_ok(&r);
	assert_total(&r, data, len);
	run_free(&r);

	run_init(&r, *state, "sha256");
	run_over(&r, "abc", 3);
	run_ok(&r);
	assert_echo(&r, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n", 65);
	run_free(&r);
	free(data);
}

static void a_large_piece_is_mapped_and_the_range_holds(void **state)
{
	const size_t len = 8 * MIB;
	uint8_t *data = bytes_of(len);
	struct run r;

	run_init(&r, *state, "echo");
	run_over(&r, data, len);
	r.req.offset = 12345;
	r.req.length = 5 * MIB;
	run_ok(&r);
	assert_echo(&r, data + 12345, 5 * MIB);
	assert_int_equal(r.job.result.io, NVME_LAMBDA_IO_MMAP);
	run_free(&r);
	free(data);
}

static void each_tier_gives_the_same(void **state)
{
	const size_t len = 64 * KIB;
	uint8_t *data = bytes_of(len);

	for (uint8_t tier = 0; tier <= 2; tier++) {
		struct run r;

		run_init(&r, *state, "total");
		run_over(&r, data, len);
		r.req.tier = tier;
		run_ok(&r);
		assert_total(&r, data, len);
		if (tier)
			assert_int_equal(r.job.result.tier, tier);
		run_free(&r);
	}
	free(data);
}

static void an_empty_source_folds_to_the_zero_state(void **state)
{
	static const struct ctrl_segment none[1];
	struct run r;

	run_init(&r, *state, "total");
	run_over(&r, "", 0);
	run_ok(&r);
	assert_total(&r, NULL, 0);
	run_free(&r);

	run_init(&r, *state, "total");
	r.job.segments = none;
	run_ok(&r);
	assert_total(&r, NULL, 0);
	run_free(&r);
}

static void large_arguments_reach_the_function(void **state)
{
	const size_t n = 1000000;
	char *arg = malloc(4 + n), *line = malloc(n + 1);
	uint32_t len = (uint32_t)n;

	memcpy(arg, &len, 4);
	memset(arg + 4, 'x', n);
	memset(line, 'x', n);
	line[n] = '\n';
	/* Twice: what the first left in shared memory was given back. */
	for (int i = 0; i < 2; i++) {
		struct run r;

		run_init(&r, *state, "grep");
		run_over(&r, line, n + 1);
		run_arg(&r, arg, 4 + n);
		run_all(&r);
		if (r.job.result.error !=
		    -EINVAL) { /* a pattern so long may be refused, by the function */
			assert_int_equal(r.job.result.error, 0);
			assert_echo(&r, line, n + 1);
		}
		run_free(&r);
	}
	free(arg);
	free(line);
}

/* ---- segments ---- */

/* The file's bytes lie in another order, with holes between. */
static void segments_and_holes_are_one_source(void **state)
{
	const size_t page = 4096, n = 600;
	struct ctrl_segment *segs = calloc(n, sizeof(*segs));
	uint8_t *file = bytes_of(n * page), *content = calloc(n, page);
	struct run r;
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		size_t len = i % 7 == 3 ? 1000 : page;

		segs[i].length = len;
		segs[i].at = i % 5 ? (n - 1 - i) * page + (i % 3 ? 0 : page - len) : UINT64_MAX;
		if (i % 5)
			memcpy(content + at, file + segs[i].at, len);
		at += len;
	}
	run_init(&r, *state, "echo");
	r.job.fd = memory_file(file, n * page);
	r.job.segments = segs;
	r.job.n_segments = (uint32_t)n;
	r.job.size = at;
	run_ok(&r);
	assert_echo(&r, content, at);
	run_free(&r);

	/* A part of it, which begins in the middle of the content. */
	run_init(&r, *state, "echo");
	r.job.fd = memory_file(file, n * page);
	r.job.segments = segs + 100;
	r.job.n_segments = 100;
	for (size_t i = 0; i < 100; i++)
		r.job.base += segs[i].length;
	r.job.size = r.job.base;
	for (size_t i = 100; i < 200; i++)
		r.job.size += segs[i].length;
	r.req.offset = r.job.base + 17;
	r.req.length = 50000;
	run_ok(&r);
	assert_echo(&r, content + r.job.base + 17, 50000);
	run_free(&r);
	free(segs);
	free(file);
	free(content);
}

static void long_segments_are_mapped_where_pages_fit(void **state)
{
	const size_t half = 4 * MIB;
	const struct ctrl_segment segs[] = {{half, half}, {0, half}};
	uint8_t *data = bytes_of(2 * half), *content = malloc(2 * half);
	struct run r;

	memcpy(content, data + half, half);
	memcpy(content + half, data, half);
	run_init(&r, *state, "echo");
	r.job.fd = memory_file(data, 2 * half);
	r.job.segments = segs;
	r.job.n_segments = 2;
	r.job.size = 2 * half;
	run_ok(&r);
	assert_echo(&r, content, 2 * half);
	assert_int_equal(r.job.result.io, NVME_LAMBDA_IO_MMAP);
	run_free(&r);
	free(data);
	free(content);
}

static void nothing_but_holes_needs_no_descriptor(void **state)
{
	const struct ctrl_segment hole = {UINT64_MAX, 3 * MIB};
	uint8_t *zeros = calloc(3, MIB);
	struct run r;

	run_init(&r, *state, "echo");
	r.job.segments = &hole;
	r.job.n_segments = 1;
	r.job.size = 3 * MIB;
	run_ok(&r);
	assert_echo(&r, zeros, 3 * MIB);
	run_free(&r);
	free(zeros);
}

static void a_read_outside_the_segments_is_an_error(void **state)
{
	const struct ctrl_segment one = {0, 4096};
	uint8_t *data = bytes_of(4096);
	struct run r;

	run_init(&r, *state, "echo");
	r.job.fd = memory_file(data, 4096);
	r.job.segments = &one;
	r.job.n_segments = 1;
	r.job.base = 8192;
	r.job.size = 12288;
	r.req.offset = 4096;
	run_all(&r);
	assert_int_equal(r.job.result.error, -EIO);
	assert_non_null(strstr(r.job.text, "extents"));
	run_free(&r);
	free(data);
}

/* ---- compressed content ---- */

static size_t gzip(const void *p, size_t len, uint8_t *out, size_t cap)
{
	z_stream z = {.next_in = (Bytef *)p,
		      .avail_in = (uInt)len,
		      .next_out = out,
		      .avail_out = (uInt)cap};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return cap - z.avail_out;
}

static void compressed_content_is_decoded_where_it_is_asked_for(void **state)
{
	size_t len, n, cap = 8 * MIB;
	char *data = lines_of(50000, &len), arg[32];
	uint8_t *packed = malloc(cap);

	for (int codec = 0; codec < 3; codec++) {
		struct run r;

		n = codec == 1 ? ZSTD_compress(packed, cap, data, len, 3)
			       : gzip(data, len, packed, cap);
		run_init(&r, *state, "grep-count");
		run_over(&r, packed, n);
		run_arg_text(&r, arg, "ERROR");
		r.req.flags = codec < 2 ? NVME_LAMBDA_DECOMPRESS : 0;
		r.job.threads = 2;
		run_ok(&r);
		if (codec < 2) {
			assert_int_equal(r.job.result.io,
					 codec ? NVME_LAMBDA_IO_ZSTD : NVME_LAMBDA_IO_GZIP);
			assert_int_equal(r.job.result.bytes_in, len);
		} else {
			assert_int_equal(r.job.result.bytes_in, n);
		}
		run_free(&r);
	}
	/* Cut short. */
	{
		struct run r;

		run_init(&r, *state, "grep-count");
		run_over(&r, packed, n / 2);
		run_arg_text(&r, arg, "ERROR");
		r.req.flags = NVME_LAMBDA_DECOMPRESS;
		run_all(&r);
		assert_int_equal(r.job.result.error, -EBADMSG);
		assert_non_null(strstr(r.job.text, "gzip"));
		run_free(&r);
	}
	free(data);
	free(packed);
}

/* ---- streams ---- */

static void a_stream_far_longer_than_its_ring_goes_through(void **state)
{
	const size_t len = 5 * MIB + 123;
	uint8_t *data = bytes_of(len);
	struct run r;

	run_init(&r, *state, "echo");
	r.input = data;
	r.input_len = len;
	run_ok(&r);
	assert_echo(&r, data, len);
	assert_int_equal(r.job.result.io, NVME_LAMBDA_IO_STREAM);
	run_free(&r);

	run_init(&r, *state, "total");
	r.input = data;
	r.input_len = len;
	run_ok(&r);
	assert_total(&r, data, len);
	assert_int_equal(r.job.result.trailing, len % 8);
	run_free(&r);
	free(data);
}

static void a_compressed_stream_is_decoded(void **state)
{
	size_t len, n;
	char *data = lines_of(20000, &len), arg[32];
	uint8_t *packed = malloc(MIB);
	struct run r;

	n = gzip(data, len, packed, MIB);
	run_init(&r, *state, "grep");
	r.input = packed;
	r.input_len = n;
	run_arg_text(&r, arg, "line");
	r.req.flags = NVME_LAMBDA_DECOMPRESS;
	run_ok(&r);
	assert_echo(&r, data, len);
	run_free(&r);
	free(data);
	free(packed);
}

static void an_empty_stream_ends(void **state)
{
	struct run r;

	run_init(&r, *state, "total");
	r.input = (const uint8_t *)"";
	run_ok(&r);
	assert_total(&r, NULL, 0);
	run_free(&r);
}

/* ---- a slow reader ---- */

static void take_again(void *arg)
{
	struct run *r = arg;

	r->hold = false;
	run_ready(&r->job);
}

static bool has_filled_its_ring(struct run *r)
{
	const struct ctrl_worker *w = r->job.worker;

	return atomic_load(&w->report->out_head) - w->out_from == w->pool->out_bytes;
}

/* The function stops where the ring is full, loses nothing, and goes on when somebody reads. */
static void a_slow_reader_slows_the_function_and_nothing_else(void **state)
{
	const size_t len = 4 * MIB;
	uint8_t *data = bytes_of(len);
	struct fixture *f = *state;
	struct run slow, other;

	run_init(&slow, f, "echo");
	run_over(&slow, data, len);
	slow.hold = true;
	slow.bite = 1000;
	run_start(&slow);
	EVENTUALLY(seen(&slow, has_filled_its_ring));
	EVENTUALLY(seen(&slow, is_waiting));
	/* Meanwhile others run. */
	run_init(&other, f, "total");
	run_over(&other, data, len);
	run_ok(&other);
	assert_total(&other, data, len);
	run_free(&other);
	assert_true(seen(&slow, has_filled_its_ring));
	on_loop(f, take_again, &slow);
	run_wait(&slow);
	assert_int_equal(slow.job.result.error, 0);
	assert_echo(&slow, data, len);
	run_free(&slow);
	free(data);
}

/* ---- the gate ---- */

/* Its input comes when the gate is shut, so that it cannot be through before. */
static void begin_shut(void *arg)
{
	struct run *r = arg;

	r->rc = ctrl_job_start(&r->job, &r->err);
	if (r->rc)
		return;
	ctrl_job_gate(&r->job, false);
	run_feed(r);
	run_take(r);
}

/* Nothing but the gate can keep it waiting: there is input. */
static bool stands_before_gate(struct run *r)
{
	const struct ctrl_worker *w = r->job.worker;

	return atomic_load(&w->report->in_tail) != atomic_load(&w->command->in_head) &&
	       is_waiting(r);
}

static void a_shut_gate_stops_a_function_between_pieces(void **state)
{
	const size_t len = 5 * MIB;
	uint8_t *data = bytes_of(len);
	struct fixture *f = *state;
	struct run r;

	run_init(&r, f, "echo");
	r.input = data;
	r.input_len = len;
	on_loop(f, begin_shut, &r);
	assert_int_equal(r.rc, 0);
	EVENTUALLY(seen(&r, stands_before_gate));
	for (int i = 0; i < 5; i++)
		on_loop(f, on_loop_nothing, NULL);
	assert_false(r.job.ended);
	assert_true(r.input_at < len);
	ctrl_job_gate(&r.job, true);
	run_wait(&r);
	assert_int_equal(r.job.result.error, 0);
	assert_echo(&r, data, len);
	run_free(&r);
	free(data);
}

/* ---- checks ---- */

static void a_check_says_what_a_program_is_or_why_it_is_refused(void **state)
{
	static const uint8_t nonsense[100] = "not an object";
	struct run r;

	run_init(&r, *state, "grep-count");
	r.job.kind = CTRL_JOB_CHECK;
	r.job.request = NULL;
	run_ok(&r);
	assert_string_equal(r.job.name, "grep-count");
	run_free(&r);

	run_init(&r, *state, NULL);
	program_from(&r.prog, "nonsense", nonsense, sizeof(nonsense));
	r.job.kind = CTRL_JOB_CHECK;
	r.job.request = NULL;
	run_all(&r);
	assert_int_equal(r.job.result.error, -ENOEXEC);
	assert_true(r.job.result.text_len > 10);
	assert_int_equal(strlen(r.job.text), r.job.result.text_len);
	run_free(&r);

	/* Not remembered as good. */
	run_init(&r, *state, NULL);
	program_from(&r.prog, "nonsense", nonsense, sizeof(nonsense));
	run_over(&r, "x", 1);
	run_all(&r);
	assert_int_equal(r.job.result.error, -ENOEXEC);
	run_free(&r);
}

static void many_programs_take_turns_in_a_workers_slots(void **state)
{
	static const char *const names[] = {"grep", "total", "echo", "sha256", "count", "lines"};
	uint8_t *data = bytes_of(4096);

	for (int round = 0; round < 40; round++) {
		struct run r;

		run_init(&r, *state, "total");
		/* The same function under more names than there are slots. */
		snprintf((char *)r.prog.hash, sizeof(r.prog.hash), "%s %d", names[round % 6],
			 round % 11);
		run_over(&r, data, 4096);
		run_ok(&r);
		assert_total(&r, data, 4096);
		run_free(&r);
	}
	free(data);
}

/* ---- hosts, and what stays ---- */

static void hosts_never_share_a_process(void **state)
{
	pid_t pids[3][4];

	for (int i = 0; i < 12; i++) {
		struct run r;

		run_init(&r, *state, "total");
		r.job.host = HOST(1 + i % 3);
		run_over(&r, "12345678", 8);
		run_ok(&r);
		pids[i % 3][i / 3] = r.pid;
		assert_true(r.pid > 0);
		run_free(&r);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_not_equal(pids[0][i], pids[1][i]);
		assert_int_not_equal(pids[1][i], pids[2][i]);
		assert_int_not_equal(pids[0][i], pids[2][i]);
		assert_int_equal(pids[0][0], pids[0][i]); /* and a host's is used again */
	}
}

static void who_is_forgotten_gets_a_new_process(void **state)
{
	struct fixture *f = *state;
	pid_t pids[2];

	for (int i = 0; i < 2; i++) {
		struct run r;

		run_init(&r, f, "total");
		r.job.host = HOST(5);
		run_over(&r, "12345678", 8);
		run_ok(&r);
		pids[i] = r.pid;
		run_free(&r);
		ctrl_workers_forget(&f->server, HOST(5));
	}
	assert_int_not_equal(pids[0], pids[1]);
}

static size_t count_entries(const char *path)
{
	DIR *d = opendir(path);
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static size_t entries_of(pid_t pid, const char *what)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	return count_entries(path);
}

static unsigned long resident(pid_t pid)
{
	char path[64];
	unsigned long size, pages = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	in = fopen(path, "re");
	assert_non_null(in);
	assert_int_equal(fscanf(in, "%lu %lu", &size, &pages), 2);
	fclose(in);
	return pages;
}

static void a_thousand_jobs_leave_nothing_behind(void **state)
{
	uint8_t *data = bytes_of(64 * KIB);
	size_t fds = 0, threads = 0;
	unsigned long pages = 0;
	uint64_t until;
	pid_t first = 0;

	/* On a machine that gives us next to nothing fewer are enough. */
	until = ctrl_now_ns() + 30ull * 1000000000u;
	for (int i = 0; i < 1000 && (i < 200 || ctrl_now_ns() < until); i++) {
		struct run r;

		run_init(&r, *state, i % 3 ? "total" : "echo");
		r.job.host = HOST(6); /* one worker, which nobody had before */
		run_over(&r, data, i % 2 ? 64 * KIB : 512);
		run_ok(&r);
		if (i == 100) {
			first = r.pid;
			fds = count_entries("/proc/self/fd");
			threads = entries_of(first, "task");
			pages = resident(first);
		}
		if (i > 100)
			assert_int_equal(r.pid, first);
		run_free(&r);
	}
	assert_in_range(count_entries("/proc/self/fd"), 0, fds);
	assert_int_equal(entries_of(first, "task"), threads);
	assert_in_range(resident(first), 0, pages + 256);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_map_gives_its_output_in_file_order),
		cmocka_unit_test(a_scan_carries_its_state_from_piece_to_piece),
		cmocka_unit_test(a_fold_is_merged_or_goes_in_order),
		cmocka_unit_test(a_large_piece_is_mapped_and_the_range_holds),
		cmocka_unit_test(each_tier_gives_the_same),
		cmocka_unit_test(an_empty_source_folds_to_the_zero_state),
		cmocka_unit_test(large_arguments_reach_the_function),
		cmocka_unit_test(segments_and_holes_are_one_source),
		cmocka_unit_test(long_segments_are_mapped_where_pages_fit),
		cmocka_unit_test(nothing_but_holes_needs_no_descriptor),
		cmocka_unit_test(a_read_outside_the_segments_is_an_error),
		cmocka_unit_test(compressed_content_is_decoded_where_it_is_asked_for),
		cmocka_unit_test(a_stream_far_longer_than_its_ring_goes_through),
		cmocka_unit_test(a_compressed_stream_is_decoded),
		cmocka_unit_test(an_empty_stream_ends),
		cmocka_unit_test(a_slow_reader_slows_the_function_and_nothing_else),
		cmocka_unit_test(a_shut_gate_stops_a_function_between_pieces),
		cmocka_unit_test(a_check_says_what_a_program_is_or_why_it_is_refused),
		cmocka_unit_test(many_programs_take_turns_in_a_workers_slots),
		cmocka_unit_test(hosts_never_share_a_process),
		cmocka_unit_test(who_is_forgotten_gets_a_new_process),
		cmocka_unit_test(a_thousand_jobs_leave_nothing_behind),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
