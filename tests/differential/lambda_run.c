/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_run.c - a run's bytes and errors do not depend on how the work was cut, shared out or fed.
 *
 * Each function of bpf/ has a reference in plain C here.  Runs are drawn at random over tiers,
 * chunk sizes, cuts, threads, ranges, memory budgets and kinds of source; each must give the
 * reference's bytes.  argv[1] is the directory of the compiled functions.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lambda/lambda.h"

#define ROUNDS   4000 /* LAMBDA_ROUNDS=N: others, where an emulator is slow */
#define DATA_MAX (96u << 10)
#define MIB      (1u << 20)

static const char *dir;

/* ---- data and chance ---- */

static uint64_t seed = 88172645463325252ull;

static uint64_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t below(uint64_t n)
{
	return n ? draw() % n : 0;
}

/* Lines of letters: short ones, empty ones, now and then a long one; the last may lack its end. */
static void fill_lines(uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t line = below(40) ? below(60) : below(9000);

		for (; line && i < len; line--)
			p[i++] = (uint8_t)('a' + below(26));
		if (i < len)
			p[i++] = '\n';
	}
	if (len && below(2))
		p[len - 1] = 'z';
}

struct bytes {
	uint8_t *p;
	size_t len, cap;
};

static void put(struct bytes *b, const void *p, size_t len)
{
	if (b->len + len > b->cap) {
		b->cap = 2 * (b->len + len);
		b->p = realloc(b->p, b->cap);
		assert_non_null(b->p);
	}
	if (len)
		memcpy(b->p + b->len, p, len);
	b->len += len;
}

/* ---- sources and a sink ---- */

struct source {
	struct lambda_source src;
	const uint8_t *p;
	size_t len;
	size_t at; /* of a stream */
	int fd;
	bool is_short; /* reads give less than asked for */
	pthread_mutex_t lock;
	unsigned noise;
};

static size_t shorten(struct source *s, size_t len)
{
	unsigned n = __atomic_add_fetch(&s->noise, 0x9e3779b9u, __ATOMIC_RELAXED) >> 16;

	return s->is_short && len > 1 ? 1 + n % (len < 5000 ? len : 5000) : len;
}

static int64_t memory_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct source *s = (struct source *)src;

	if (off >= s->len)
		return 0;
	len = shorten(s, len);
	if (len > s->len - off)
		len = s->len - off;
	memcpy(buf, s->p + off, len);
	return (int64_t)len;
}

static int64_t stream_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct source *s = (struct source *)src;
	int64_t n;

	assert_int_equal(pthread_mutex_trylock(&s->lock), 0); /* never two at once */
	n = memory_read(src, buf, len, s->at);
	s->at += (size_t)n;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static int file_map(struct lambda_source *src, struct sbpf_sandbox *sb, uint64_t off, uint64_t len)
{
	return sbpf_sandbox_map(sb, ((struct source *)src)->fd, off, len);
}

static const struct lambda_source_ops memory_ops = {.name = "memory", .read = memory_read};
static const struct lambda_source_ops mapped_ops = {
	.name = "mmap", .read = memory_read, .map = file_map};
static const struct lambda_source_ops stream_ops = {
	.name = "stream", .sequential = true, .read = stream_read};
static const struct lambda_source_ops *const all_ops[] = {&memory_ops, &mapped_ops, &stream_ops};

static void source_open(struct source *s, const struct lambda_source_ops *ops, const uint8_t *p,
			size_t len)
{
	*s = (struct source){
		.src = {.ops = ops, .size = ops->sequential ? 0 : len},
		.p = p,
		.len = len,
		.fd = -1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	if (!ops->map)
		return;
	s->fd = memfd_create("data", 0);
	assert_true(s->fd >= 0);
	assert_int_equal(write(s->fd, p, len), len);
}

static void source_close(struct source *s)
{
	if (s->fd >= 0)
		close(s->fd);
}

struct sink {
	struct lambda_sink sink;
	struct bytes out;
	int error; /* what write() says once it has had more than @room bytes */
	size_t room;
};

static int sink_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct sink *s = (struct sink *)sink;

	if (s->error && s->out.len + len > s->room)
		return s->error;
	put(&s->out, p, len);
	return 0;
}

/* ---- functions and their references ---- */

static void ref_lines(const uint8_t *p, size_t len, uint64_t arg, struct bytes *out)
{
	for (size_t a = 0, b; a < len; a = b) {
		const uint8_t *end = memchr(p + a, '\n', len - a);

		b = end ? (size_t)(end - p) + 1 : len;
		if (memchr(p + a, (int)arg, b - a))
			put(out, p + a, b - a);
	}
}

static void ref_number(const uint8_t *p, size_t len, uint64_t arg, struct bytes *out)
{
	unsigned n = 0;
	char hex[9];

	(void)arg;
	for (size_t a = 0, b; a < len; a = b) {
		const uint8_t *end = memchr(p + a, '\n', len - a);

		b = end ? (size_t)(end - p) + 1 : len;
		snprintf(hex, sizeof(hex), "%08x", ++n);
		put(out, hex, 8);
		put(out, p + a, b - a);
	}
	snprintf(hex, sizeof(hex), "%08x", n);
	put(out, hex, len ? 8 : 0);
}

static void ref_concat(const uint8_t *p, size_t len, uint64_t arg, struct bytes *out)
{
	uint64_t result[2] = {0, len};

	(void)arg;
	for (size_t i = 0; i < len; i++)
		result[0] = result[0] * 1099511628211u + p[i] + 1;
	put(out, result, sizeof(result));
}

static void ref_fnv(const uint8_t *p, size_t len, uint64_t arg, struct bytes *out)
{
	uint64_t h = 14695981039346656037u;

	(void)arg;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	h ^= 14695981039346656037u;
	put(out, &h, sizeof(h));
}

static void ref_expand(const uint8_t *p, size_t len, uint64_t arg, struct bytes *out)
{
	uint8_t many[64];

	for (size_t i = 0; i < len; i++) {
		memset(many, p[i], arg);
		put(out, many, arg);
	}
}

static struct function {
	const char *name;
	void (*ref)(const uint8_t *p, size_t len, uint64_t arg, struct bytes *out);
	struct lambda_function *fn;
} functions[] = {
	{.name = "lines", .ref = ref_lines},
	{.name = "number", .ref = ref_number},
	{.name = "concat", .ref = ref_concat},
	{.name = "fnv", .ref = ref_fnv},
	{.name = "expand", .ref = ref_expand},
	{.name = "calls"},
	{.name = "refuse"},
};
#define N_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))
#define N_WITH_REF  5

static struct lambda_function *load(const char *name)
{
	struct lambda_function *fn = NULL;
	struct lambda_error err;
	struct stat st;
	char path[4096];
	uint8_t *image;
	int fd;

	snprintf(path, sizeof(path), "%s/%s.o", dir, name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		fail_msg("%s: %s", path, strerror(errno));
	image = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, image, (size_t)st.st_size), st.st_size);
	close(fd);
	if (lambda_function_load(image, (size_t)st.st_size, &fn, &err))
		fail_msg("%s: %s", path, err.text);
	free(image);
	return fn;
}

static struct function *find(const char *name)
{
	for (size_t i = 0; i < N_FUNCTIONS; i++)
		if (!strcmp(functions[i].name, name))
			return &functions[i];
	fail_msg("no function %s", name);
	return NULL;
}

static int load_all(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_FUNCTIONS; i++)
		functions[i].fn = load(functions[i].name);
	return 0;
}

static int free_all(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_FUNCTIONS; i++)
		lambda_function_free(functions[i].fn);
	return 0;
}

/* LAMBDA_TIER: all runs in this one, which the others are otherwise drawn without. */
static enum sbpf_tier only = SBPF_TIER_AUTO;

static enum sbpf_tier draw_tier(void)
{
	enum sbpf_tier tier = only;

	if (tier != SBPF_TIER_AUTO)
		return tier;
	do
		tier = (enum sbpf_tier)(SBPF_TIER_INTERP + below(SBPF_TIER_LLVM));
	while (sbpf_tier_missing(tier));
	return tier;
}

/* ---- which records a range has, found the slow way ---- */

static bool starts_record(const struct lambda_function *fn, const uint8_t *p, uint64_t at)
{
	switch (fn->record) {
	case LAMBDA_RECORDS_FIXED:
		return at % fn->record_value == 0;
	case LAMBDA_RECORDS_DELIM:
		return !at || p[at - 1] == fn->record_value;
	case LAMBDA_RECORDS_ANY:
	default:
		return true;
	}
}

static void range_of(const struct lambda_function *fn, const uint8_t *p, size_t len,
		     uint64_t offset, uint64_t length, uint64_t *a, uint64_t *b, uint64_t *trailing)
{
	uint64_t end = length > len || offset > len - length ? len : offset + length;

	*a = offset < len ? offset : len;
	while (*a < len && !starts_record(fn, p, *a))
		++*a;
	*b = end > *a ? end : *a;
	while (*b < len && !starts_record(fn, p, *b))
		++*b;
	if (*a >= end)
		*b = *a;
	*trailing = 0;
	if (fn->record == LAMBDA_RECORDS_FIXED && *b == len && *b > *a) {
		*trailing = len % fn->record_value;
		*b -= *trailing;
	}
}

/* ---- a run ---- */

struct run {
	const struct function *f;
	struct lambda_request req;
	struct source src;
	struct sink sink;
	uint8_t arg[4];
	uint64_t cuts[64];
	struct lambda_report report;
	struct lambda_error err;
	int rc;
};

static void run_init(struct run *r, const struct function *f, const struct lambda_source_ops *ops,
		     const uint8_t *p, size_t len)
{
	memset(r, 0, sizeof(*r));
	r->f = f;
	source_open(&r->src, ops, p, len);
	r->sink.sink.write = sink_write;
	r->req = (struct lambda_request){
		.fn = f->fn,
		.arg = r->arg,
		.length = UINT64_MAX,
		.threads = 1,
		.tier = only == SBPF_TIER_AUTO ? SBPF_TIER_INTERP : only,
	};
}

static void run_go(struct run *r)
{
	r->err.text[0] = 0;
	r->err.offset = UINT64_MAX;
	r->rc = lambda_run(&r->req, &r->src.src, &r->sink.sink, &r->report, &r->err);
}

static void run_free(struct run *r)
{
	source_close(&r->src);
	free(r->sink.out.p);
}

static uint64_t set_arg(struct run *r)
{
	uint32_t factor = 1 + (uint32_t)below(64);

	if (!strcmp(r->f->name, "expand")) {
		memcpy(r->arg, &factor, 4);
		r->req.arg_len = 4;
		return factor;
	}
	r->arg[0] = (uint8_t)('a' + below(26));
	r->req.arg_len = !strcmp(r->f->name, "lines");
	return r->arg[0];
}

static uint64_t draw_chunk(size_t len)
{
	static const uint64_t sizes[] = {64, 100, 1000, 4096, 10000, 65536, 1u << 20};

	if (len < 2000)
		return 1 + below(len + 1);
	return sizes[below(sizeof(sizes) / sizeof(sizes[0]))];
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void draw_cuts(struct run *r, size_t len)
{
	r->req.cuts = r->cuts;
	r->req.n_cuts = below(64);
	for (size_t i = 0; i < r->req.n_cuts; i++)
		r->cuts[i] = below(len + 100);
	qsort(r->cuts, r->req.n_cuts, sizeof(r->cuts[0]), by_value);
}

static const char *describe(const struct run *r, char *buf, size_t cap)
{
	snprintf(buf, cap,
		 "%s over %zu bytes, [%llu, +%llu), chunk %llu, %zu cuts%s, %u threads, tier %s, "
		 "source %s%s, memory %llu",
		 r->f->name, r->src.len, (unsigned long long)r->req.offset,
		 (unsigned long long)r->req.length, (unsigned long long)r->req.chunk, r->req.n_cuts,
		 r->req.cuts ? "" : " (none)", r->req.threads, sbpf_tier_name(r->req.tier),
		 r->src.src.ops->name, r->src.is_short ? " (short reads)" : "",
		 (unsigned long long)r->req.memory);
	return buf;
}

static void expect_reference(struct run *r, uint64_t arg)
{
	struct bytes want = {0};
	uint64_t a, b, trailing;
	char what[400];

	range_of(r->f->fn, r->src.p, r->src.len, r->req.offset, r->req.length, &a, &b, &trailing);
	r->f->ref(r->src.p + a, b - a, arg, &want);
	run_go(r);
	if (r->rc)
		fail_msg("%s: %s", describe(r, what, sizeof(what)), r->err.text);
	if (r->sink.out.len != want.len ||
	    (want.len && memcmp(r->sink.out.p, want.p, want.len) != 0))
		fail_msg("%s: %zu other bytes than the reference's %zu",
			 describe(r, what, sizeof(what)), r->sink.out.len, want.len);
	if (r->report.trailing != trailing || r->report.bytes_in != b - a ||
	    r->report.bytes_out != want.len)
		fail_msg("%s: report of %llu bytes in, %llu trailing, %llu out; expected %llu, "
			 "%llu, %zu",
			 describe(r, what, sizeof(what)), (unsigned long long)r->report.bytes_in,
			 (unsigned long long)r->report.trailing,
			 (unsigned long long)r->report.bytes_out, (unsigned long long)(b - a),
			 (unsigned long long)trailing, want.len);
	free(want.p);
}

static void one_round(const uint8_t *p, size_t len, const struct lambda_source_ops *ops)
{
	struct run r;

	run_init(&r, &functions[below(N_WITH_REF)], ops, p, len);
	r.src.is_short = below(2);
	r.req.chunk = draw_chunk(len);
	r.req.threads = (unsigned)(1u << below(3));
	r.req.tier = draw_tier();
	if (below(2)) {
		r.req.offset = below(len + 10);
		r.req.length = below(2) ? below(len + 10) : UINT64_MAX;
	}
	if (!below(4))
		draw_cuts(&r, len);
	if (!below(4)) /* enough for the longest line here, but not for much more */
		r.req.memory = 100000 + below(100000);
	expect_reference(&r, set_arg(&r));
	run_free(&r);
}

static void gives_the_references_bytes_however_it_is_cut_and_shared_out(void **state)
{
	const char *rounds = getenv("LAMBDA_ROUNDS");
	unsigned long n = rounds ? strtoul(rounds, NULL, 10) : ROUNDS;
	uint8_t *p = malloc(DATA_MAX);

	(void)state;
	for (unsigned long i = 0; i < n; i++) {
		size_t len = below(4) ? below(3000) : below(DATA_MAX);

		fill_lines(p, len);
		one_round(p, len, all_ops[below(3)]);
	}
	free(p);
}

/* Large pieces reach the function as mappings, whose edges are other records' bytes. */
static void gives_the_references_bytes_from_mapped_input(void **state)
{
	size_t len = 5 * MIB + 4321;
	uint8_t *p = malloc(len);

	(void)state;
	fill_lines(p, len);
	for (unsigned i = 0; i < 24; i++) {
		struct run r;

		run_init(&r, &functions[i % N_WITH_REF], &mapped_ops, p, len);
		r.req.threads = 1 + i % 2;
		r.src.src.map_forced = i % 2;
		if (only == SBPF_TIER_AUTO)
			r.req.tier = sbpf_tier_missing(SBPF_TIER_TEMPLATE) ? SBPF_TIER_INTERP
									   : SBPF_TIER_TEMPLATE;
		r.req.offset = below(2) ? below(len / 2) : 0;
		r.req.chunk = below(2) ? 0 : MIB + below(MIB);
		expect_reference(&r, set_arg(&r));
		assert_string_equal(r.report.source, only == SBPF_TIER_KERNEL ? "pread" : "mmap");
		run_free(&r);
	}
	free(p);
}

static void chunks_of_one_byte_to_all_give_the_same(void **state)
{
	static const unsigned threads[] = {1, 2, 4};
	uint8_t p[997];

	(void)state;
	fill_lines(p, sizeof(p));
	for (uint64_t chunk = 1; chunk <= sizeof(p); chunk = chunk < 40 ? chunk + 1 : chunk * 3 / 2)
		for (size_t i = 0; i < N_WITH_REF * 9; i++) {
			struct run r;

			run_init(&r, &functions[i / 9], all_ops[i % 3], p, sizeof(p));
			r.req.chunk = chunk;
			r.req.threads = threads[i / 3 % 3];
			expect_reference(&r, set_arg(&r));
			run_free(&r);
		}
}

static void adjacent_ranges_add_up(void **state)
{
	uint8_t p[3000];
	struct function *f = find("lines");

	(void)state;
	fill_lines(p, sizeof(p));
	for (unsigned i = 0; i < 200; i++) {
		struct bytes whole = {0}, parts = {0};
		uint64_t trailing = 0, in = 0;

		ref_lines(p, sizeof(p), 'a', &whole);
		for (uint64_t at = 0, len; at < sizeof(p); at += len) {
			struct run r;

			len = 1 + below(400);
			run_init(&r, f, all_ops[below(3)], p, sizeof(p));
			r.req.offset = at;
			r.req.length = len;
			r.arg[0] = 'a';
			r.req.arg_len = 1;
			run_go(&r);
			assert_int_equal(r.rc, 0);
			put(&parts, r.sink.out.p, r.sink.out.len);
			trailing += r.report.trailing;
			in += r.report.bytes_in;
			run_free(&r);
		}
		assert_int_equal(in, sizeof(p));
		assert_int_equal(trailing, 0);
		assert_int_equal(parts.len, whole.len);
		assert_memory_equal(parts.p, whole.p, whole.len);
		free(whole.p);
		free(parts.p);
	}
}

static void pieces_are_contiguous_whole_lines_and_the_first_and_last_are_marked(void **state)
{
	uint8_t p[2500];

	(void)state;
	for (unsigned i = 0; i < 600; i++) {
		size_t len = below(sizeof(p));
		uint64_t a, b, trailing;
		struct run r;

		fill_lines(p, len);
		run_init(&r, find("calls"), all_ops[i % 3], p, len);
		r.req.chunk = 1 + below(600);
		r.req.threads = 1 + (unsigned)below(3);
		r.req.offset = below(2) ? below(len) : 0;
		if (below(3) == 0)
			draw_cuts(&r, len);
		range_of(r.f->fn, p, len, r.req.offset, r.req.length, &a, &b, &trailing);
		run_go(&r);
		assert_int_equal(r.rc, 0);
		for (size_t at = 0; at < r.sink.out.len; at += 24) {
			uint64_t row[3];

			memcpy(row, r.sink.out.p + at, 24);
			assert_int_equal(row[0], a);
			assert_true(row[1] > 0);
			assert_true(starts_record(r.f->fn, p, a));
			assert_int_equal(row[2], (at ? 0 : 1) + (a + row[1] == b ? 2 : 0));
			a += row[1];
		}
		assert_int_equal(a, b);
		run_free(&r);
	}
}

static void an_empty_input_runs_no_map_or_scan_and_finishes_a_zero_fold(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * 3 * N_WITH_REF; i++) {
		uint8_t p[] = "one line without an end";
		struct run r;

		run_init(&r, &functions[i % N_WITH_REF], all_ops[i / N_WITH_REF % 3], p,
			 i >= 3 * N_WITH_REF ? sizeof(p) - 1 : 0);
		r.req.offset = sizeof(p) - 1; /* nothing starts there */
		expect_reference(&r, set_arg(&r));
		assert_int_equal(r.report.bytes_in, 0);
		run_free(&r);
	}
}

/* ---- records longer than a piece, or than the memory ---- */

static void a_record_longer_than_many_pieces_is_one_call(void **state)
{
	size_t len = 300000;
	uint8_t *p = malloc(len);

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		struct run r;

		memset(p, 'x', len);
		p[1000] = p[299000] = '\n';
		run_init(&r, find("number"), all_ops[i % 3], p, len);
		r.req.chunk = 64;
		r.req.threads = 1 + i % 4;
		expect_reference(&r, 0);
		assert_int_equal(r.report.calls - r.report.reruns,
				 4); /* three lines and the finish */
		run_free(&r);
	}
	free(p);
}

static void a_record_beyond_the_memory_budget_is_refused_with_its_offset(void **state)
{
	size_t len = 300000;
	uint8_t *p = malloc(len);

	(void)state;
	memset(p, 'x', len);
	p[1000] = p[299000] = '\n';
	for (unsigned i = 0; i < 24; i++) {
		struct run r;

		run_init(&r, find(i & 1 ? "number" : "lines"), all_ops[i % 3], p, len);
		r.req.arg_len = i & 1 ? 0 : 1;
		r.req.chunk = i < 12 ? 64 : 0;
		r.req.threads = 1 + i % 4;
		r.req.memory = 200000;
		run_go(&r);
		assert_int_equal(r.rc, -EMSGSIZE);
		assert_int_equal(r.err.offset, 1001);
		assert_non_null(strstr(r.err.text, "record at offset 1001"));
		run_free(&r);
	}
	free(p);
}

static void output_that_cannot_fit_for_a_single_record_is_refused(void **state)
{
	uint8_t p[5000];

	(void)state;
	memset(p, 'x', sizeof(p));
	p[2499] = '\n';
	for (unsigned i = 0; i < 6; i++) {
		struct run r;

		run_init(&r, find("refuse"), all_ops[i % 3], p, sizeof(p));
		p[3000] = '*';
		r.req.memory = 65536;
		r.req.threads = 1 + i % 2;
		run_go(&r);
		assert_int_equal(r.rc, -ENOSPC);
		assert_int_equal(r.err.offset, 2500);
		assert_non_null(strstr(r.err.text, "memory"));
		assert_true(r.report.reruns > 0);
		run_free(&r);
	}
}

/* ---- errors ---- */

static void the_first_error_in_the_file_is_the_one_told(void **state)
{
	static const struct {
		char mark;
		int code;
		const char *word;
	} marks[] = {
		{'!', -EINVAL, "the function returned EINVAL"},
		{'?', -EFAULT, "address 0x60"},
		{'+', -ERANGE, "at most"},
		{'-', -ERANGE, "-4096"},
	};
	size_t len = 60000;
	uint8_t *p = malloc(len);

	(void)state;
	for (unsigned i = 0; i < 400; i++) {
		unsigned m = (unsigned)below(4);
		uint64_t first = len / 3 + below(len / 3);
		struct run r;
		char where[64];

		fill_lines(p, len);
		p[first] = (uint8_t)marks[m].mark;
		for (unsigned n = 0; n < 20; n++) {
			uint64_t at = first + 1000 + below(len - first - 1000);

			p[at] = (uint8_t)marks[below(4)].mark;
		}
		run_init(&r, find("refuse"), all_ops[i % 3], p, len);
		r.req.chunk = 200;
		r.req.threads = 1 + (unsigned)below(4);
		r.req.tier = draw_tier();
		run_go(&r);
		assert_int_equal(r.rc, marks[m].code);
		assert_int_equal(r.err.code, marks[m].code);
		if (!strstr(r.err.text, marks[m].word))
			fail_msg("\"%s\" lacks \"%s\"", r.err.text, marks[m].word);
		snprintf(where, sizeof(where),
			 "call of refuse at offset %llu: ", (unsigned long long)r.err.offset);
		assert_memory_equal(r.err.text, where, strlen(where));
		assert_true(r.err.offset <= first);
		run_free(&r);
	}
	free(p);
}

static void an_error_reads_the_same_for_any_number_of_threads(void **state)
{
	size_t len = 60000;
	uint8_t *p = malloc(len);

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		char first[sizeof(((struct lambda_error *)0)->text)] = "";

		fill_lines(p, len);
		for (unsigned n = 0; n < 4; n++)
			p[below(len)] = (uint8_t)"!?+-"[below(4)];
		for (unsigned threads = 1; threads <= 4; threads++) {
			struct run r;

			run_init(&r, find("refuse"), all_ops[i % 3], p, len);
			r.req.chunk = 500;
			r.req.threads = threads;
			r.req.max_output = i % 2 ? 20 : 0;
			run_go(&r);
			assert_true(r.rc < 0);
			if (threads == 1)
				strcpy(first, r.err.text);
			assert_string_equal(r.err.text, first);
			run_free(&r);
		}
	}
	free(p);
}

static void an_output_quota_holds_for_the_whole_request(void **state)
{
	uint8_t p[6000];

	(void)state;
	fill_lines(p, sizeof(p));
	for (unsigned i = 0; i < 24; i++) {
		struct run r;
		uint64_t factor, quota;

		run_init(&r, find("expand"), all_ops[i % 3], p, sizeof(p));
		r.req.chunk = 100;
		r.req.threads = 1 + i % 4;
		factor = set_arg(&r);
		quota = factor * sizeof(p);
		r.req.max_output = i % 2 ? quota : quota - 1;
		if (i % 2) {
			expect_reference(&r, factor);
		} else {
			run_go(&r);
			assert_int_equal(r.rc, -ENOSPC);
			assert_non_null(strstr(r.err.text, "output quota"));
		}
		run_free(&r);
	}
}

static void a_sink_that_fails_ends_the_run_with_its_error(void **state)
{
	uint8_t p[6000];

	(void)state;
	fill_lines(p, sizeof(p));
	for (unsigned i = 0; i < 12; i++) {
		struct run r;

		run_init(&r, &functions[i % N_WITH_REF], all_ops[i % 3], p, sizeof(p));
		set_arg(&r);
		r.req.chunk = 100;
		r.req.threads = 1 + i % 4;
		r.sink.error = -EPIPE;
		r.sink.room = 3;
		run_go(&r);
		assert_int_equal(r.rc, -EPIPE);
		assert_true(r.sink.out.len <= 3);
		run_free(&r);
	}
}

/* ---- budgets ---- */

static void fuel_is_spent_at_the_same_place_for_any_number_of_threads(void **state)
{
	size_t len = 40000;
	uint8_t *p = malloc(len);
	uint64_t need = 0;

	(void)state;
	fill_lines(p, len);
	for (unsigned i = 0; i < 60; i++) {
		const struct function *f = &functions[i / 12];
		char first[sizeof(((struct lambda_error *)0)->text)] = "";

		for (unsigned threads = 1; threads <= 4; threads++) {
			char what[400];
			struct run r;

			run_init(&r, f, all_ops[i % 2], p, len);
			r.arg[0] = 3;
			r.req.arg_len = !strcmp(f->name, "expand") ? 4 : !strcmp(f->name, "lines");
			r.req.chunk = 300;
			r.req.threads = threads;
			r.req.tier = i % 3 ? draw_tier() : SBPF_TIER_AUTO;
			if (r.req.tier == SBPF_TIER_LLVM)
				r.req.tier = SBPF_TIER_AUTO;
			r.req.fuel = i % 12 == 0   ? UINT64_MAX / 2
				     : i % 12 == 1 ? need
				     : i % 12 == 2 ? need - 1
						   : 1 + need * (i % 12) / 13;
			run_go(&r);
			assert_int_equal(r.rc, i % 12 < 2 ? 0 : -ETIME);
			if (i % 12 == 0 && threads == 1)
				need = r.report.fuel;
			if (i % 12 < 2 && r.report.fuel != need)
				fail_msg("%s: %llu instructions instead of %llu",
					 describe(&r, what, sizeof(what)),
					 (unsigned long long)r.report.fuel,
					 (unsigned long long)need);
			if (threads == 1)
				strcpy(first, r.err.text);
			assert_string_equal(r.err.text, first);
			run_free(&r);
		}
	}
	free(p);
}

static void an_endless_loop_ends_with_the_time_limit_or_the_fuel(void **state)
{
	uint8_t p[] = "a\nb\n@\nc\n";

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		struct run r;
		struct timespec now;

		run_init(&r, find("refuse"), all_ops[i % 3], p, sizeof(p) - 1);
		r.req.chunk = 1;
		r.req.threads = 1 + i % 3;
		if (i < 4) {
			clock_gettime(CLOCK_MONOTONIC, &now);
			r.req.deadline_ns = (uint64_t)now.tv_sec * 1000000000u +
					    (uint64_t)now.tv_nsec + 30000000;
		} else {
			r.req.fuel = 100000;
		}
		run_go(&r);
		assert_int_equal(r.rc, -ETIME);
		assert_int_equal(r.err.offset, 4);
		run_free(&r);
	}
}

static void a_budget_without_room_for_data_is_refused_by_name(void **state)
{
	uint8_t p[] = "x";
	struct run r;

	(void)state;
	run_init(&r, find("expand"), &memory_ops, p, 1);
	r.req.memory = 8000;
	run_go(&r);
	assert_int_equal(r.rc, -ENOSPC);
	assert_non_null(strstr(r.err.text, "memory: heap"));
	run_free(&r);
}

static int cancel_flag;

static void *cancel_soon(void *arg)
{
	(void)arg;
	usleep(20000);
	__atomic_store_n(&cancel_flag, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void another_thread_can_cancel_a_run(void **state)
{
	uint8_t p[] = "a\nb\n@\nc\n@\nd\n";

	(void)state;
	for (unsigned i = 0; i < 9; i++) {
		pthread_t thread;
		struct run r;

		cancel_flag = 0;
		run_init(&r, find("refuse"), all_ops[i % 3], p, sizeof(p) - 1);
		r.req.chunk = 1;
		r.req.threads = 1 + i % 4;
		r.req.cancel = &cancel_flag;
		r.req.fuel = 1ull << 50; /* not what ends it */
		assert_int_equal(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
		run_go(&r);
		pthread_join(thread, NULL);
		assert_int_equal(r.rc, -ECANCELED);
		run_free(&r);
	}
}

static uint64_t last_done;
static unsigned in_progress;

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	assert_int_equal(__atomic_add_fetch(&in_progress, 1, __ATOMIC_SEQ_CST), 1);
	assert_true(done >= last_done);
	assert_int_equal(total, *(uint64_t *)arg);
	last_done = done;
	__atomic_sub_fetch(&in_progress, 1, __ATOMIC_SEQ_CST);
}

static void progress_grows_to_the_total_on_one_thread_at_a_time(void **state)
{
	uint8_t p[24 * 300];

	(void)state;
	fill_lines(p, sizeof(p));
	for (unsigned i = 0; i < 3 * N_WITH_REF; i++) {
		uint64_t total = all_ops[i % 3]->sequential ? 0 : sizeof(p);
		struct run r;

		last_done = 0;
		run_init(&r, &functions[i / 3], all_ops[i % 3], p, sizeof(p));
		r.req.chunk = 100;
		r.req.threads = 3;
		r.req.progress = on_progress;
		r.req.hook_arg = &total;
		expect_reference(&r, set_arg(&r));
		assert_int_equal(last_done, sizeof(p));
		run_free(&r);
	}
}

/* ---- input that goes wrong ---- */

static int64_t failing_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct source *s = (struct source *)src;

	return (off ? off : s->at) + len > 3000 ? -EIO : memory_read(src, buf, len, off);
}

static void a_read_error_is_told_with_its_offset(void **state)
{
	static const struct lambda_source_ops ops = {.name = "memory", .read = failing_read};
	uint8_t p[6000];

	(void)state;
	fill_lines(p, sizeof(p));
	for (unsigned i = 0; i < 2 * N_WITH_REF; i++) {
		struct run r;

		run_init(&r, &functions[i / 2], &ops, p, sizeof(p));
		set_arg(&r);
		r.req.chunk = 500;
		r.req.threads = 1 + i % 2;
		run_go(&r);
		assert_int_equal(r.rc, -EIO);
		assert_non_null(strstr(r.err.text, "reading the input"));
		assert_true(r.err.offset <= 3600);
		run_free(&r);
	}
}

static void a_file_truncated_while_it_is_read_is_an_error(void **state)
{
	size_t len = 4 * MIB + 100;
	uint8_t *p = malloc(len);

	(void)state;
	fill_lines(p, len);
	for (unsigned i = 0; i < 4 * N_WITH_REF; i++) {
		struct run r;

		run_init(&r, &functions[i / 4], i & 1 ? &mapped_ops : &memory_ops, p, len);
		set_arg(&r);
		r.req.tier = draw_tier();
		r.req.threads = 1 + (i & 2) / 2;
		r.src.src.map_forced = true;
		if (i & 1 && only == SBPF_TIER_KERNEL) { /* it maps nothing */
			run_free(&r);
			continue;
		}
		if (i & 1) /* mapped: the size is stale, the boundaries can still be read */
			assert_int_equal(ftruncate(r.src.fd, 2 * MIB + 50), 0);
		else
			r.src.len = 2 * MIB + 50;
		run_go(&r);
		assert_int_equal(r.rc, -EIO);
		run_free(&r);
	}
	free(p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_the_references_bytes_however_it_is_cut_and_shared_out),
		cmocka_unit_test(gives_the_references_bytes_from_mapped_input),
		cmocka_unit_test(chunks_of_one_byte_to_all_give_the_same),
		cmocka_unit_test(adjacent_ranges_add_up),
		cmocka_unit_test(
			pieces_are_contiguous_whole_lines_and_the_first_and_last_are_marked),
		cmocka_unit_test(an_empty_input_runs_no_map_or_scan_and_finishes_a_zero_fold),
		cmocka_unit_test(a_record_longer_than_many_pieces_is_one_call),
		cmocka_unit_test(a_record_beyond_the_memory_budget_is_refused_with_its_offset),
		cmocka_unit_test(output_that_cannot_fit_for_a_single_record_is_refused),
		cmocka_unit_test(the_first_error_in_the_file_is_the_one_told),
		cmocka_unit_test(an_error_reads_the_same_for_any_number_of_threads),
		cmocka_unit_test(an_output_quota_holds_for_the_whole_request),
		cmocka_unit_test(a_sink_that_fails_ends_the_run_with_its_error),
		cmocka_unit_test(fuel_is_spent_at_the_same_place_for_any_number_of_threads),
		cmocka_unit_test(an_endless_loop_ends_with_the_time_limit_or_the_fuel),
		cmocka_unit_test(a_budget_without_room_for_data_is_refused_by_name),
		cmocka_unit_test(another_thread_can_cancel_a_run),
		cmocka_unit_test(progress_grows_to_the_total_on_one_thread_at_a_time),
		cmocka_unit_test(a_read_error_is_told_with_its_offset),
		cmocka_unit_test(a_file_truncated_while_it_is_read_is_an_error),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY-OF-FUNCTIONS\n", argv[0]);
		return 2;
	}
	dir = argv[1];
	if (getenv("LAMBDA_TIER") && sbpf_tier_parse(getenv("LAMBDA_TIER"), &only)) {
		fprintf(stderr, "LAMBDA_TIER=%s: there is no such tier\n", getenv("LAMBDA_TIER"));
		return 2;
	}
	if (sbpf_tier_missing(only)) {
		printf("1..1\nok 1 - lambda_run # SKIP %s\n", sbpf_tier_missing(only));
		return 0;
	}
	return cmocka_run_group_tests(tests, load_all, free_all);
}
