/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbpf_bench.c - sbpf bench: an entry over 1 MiB of warm memory, again and again.
 *
 * Owns: filling the windows for a plain entry (address, length) or a λ-function (its context), and
 * the measuring.  Only the call is timed; what a call used up (state, heap, output, input that it
 * scribbled on) is put back in between.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lambda/lambda.h"
#include "sbpf.h"

#define BENCH_BYTES   (1u << 20)
#define MIN_PASSES    11u
#define MAX_PASSES    20000u
#define MIN_TOTAL_NS  500000000u /* fast entries run until this is spent */
#define FIRST_OUT_CAP (4ull << 20)

/* struct lambda_ctx of include/lambdaio/function.h, its pointers as sandbox offsets. */
struct ctx {
	uint64_t in, in_len;
	uint64_t out, out_cap;
	uint64_t arg, arg_len;
	uint64_t heap, heap_len;
	uint64_t offset, flags;
};
_Static_assert(sizeof(struct ctx) == 80, "struct lambda_ctx");
#define CTX_FIRST_AND_LAST 3u

struct bench {
	const char *path;
	struct sbpf_program *prog;
	struct lambda_function *fn; /* NULL for a plain object; else it owns prog */
	struct sbpf_sandbox *sb;
	struct sbpf_call call;
	uint8_t *input; /* BENCH_BYTES */
	uint64_t bytes; /* of them given to the entry: whole records */
	uint8_t *arg;
	size_t arg_len;
	uint64_t out_cap;
	bool scribbles; /* on its input */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

/* ---- what the entry eats ---- */

/* FILE's first MiB, repeated to fill one. */
static int read_input(struct bench *b, const char *path)
{
	size_t len;
	uint8_t *grown;
	int r = tool_read(path, &b->input, &len);

	if (r)
		return r;
	if (!len)
		return tool_fail(path, ENODATA, "the file is empty; measure with one that is not");
	if (len < BENCH_BYTES) {
		grown = realloc(b->input, BENCH_BYTES);
		if (!grown)
			return tool_fail(path, ENOMEM, "no memory for 1 MiB of input");
		b->input = grown;
		for (size_t at = len; at < BENCH_BYTES; at++)
			b->input[at] = b->input[at - len];
	}
	return 0;
}

/* Whole records only, as a λ-function may expect; all of it where no record ends. */
static uint64_t whole_records(const struct bench *b)
{
	uint64_t size = b->fn->record_value;

	if (b->fn->record == LAMBDA_RECORDS_FIXED && size && size <= BENCH_BYTES)
		return BENCH_BYTES / size * size;
	if (b->fn->record == LAMBDA_RECORDS_DELIM) {
		const uint8_t *last = memrchr(b->input, (int)size, BENCH_BYTES);

		return last ? (uint64_t)(last + 1 - b->input) : BENCH_BYTES;
	}
	return BENCH_BYTES;
}

/* ---- the object ---- */

/* A λ-function's entries say so by their names' beginning and their sections. */
static bool is_lambda(const struct sbpf_program *prog)
{
	for (unsigned int i = 0; i < sbpf_program_entries(prog); i++)
		if (!strncmp(sbpf_program_entry_section(prog, i), "lambda/", 7))
			return true;
	return false;
}

static int load_lambda(struct bench *b, const void *image, size_t len, const struct tool_opts *opts)
{
	static const enum lambda_entry entries[] = {[LAMBDA_KIND_MAP] = LAMBDA_E_MAP,
						    [LAMBDA_KIND_SCAN] = LAMBDA_E_SCAN,
						    [LAMBDA_KIND_FOLD] = LAMBDA_E_FOLD};
	struct lambda_error err = {0};
	int r = lambda_function_load(image, len, &b->fn, &err);
	int index;

	if (!r)
		r = lambda_args_pack(&b->fn->args, (const char *const *)opts->words + 2,
				     (size_t)opts->n_words - 2, &b->arg, &b->arg_len, &err);
	if (r)
		return tool_fail(b->path, r, err.text);
	index = b->fn->entry[entries[b->fn->kind]];
	if (opts->entry &&
	    strcmp(opts->entry, sbpf_program_entry_name(b->fn->prog, (unsigned int)index)))
		return tool_fail(
			opts->entry, EINVAL,
			"a λ-function is measured by its map, scan or fold; leave --entry out");
	b->prog = b->fn->prog;
	b->call.entry = (unsigned int)index;
	return 0;
}

static int load(struct bench *b, const struct tool_opts *opts)
{
	struct sbpf_error err;
	uint8_t *image;
	size_t len;
	int index, r = tool_read(b->path, &image, &len);

	if (r)
		return r;
	r = sbpf_program_from_elf(image, len, NULL, &b->prog, &err);
	if (r) {
		tool_fail(b->path, r, err.text);
	} else if (is_lambda(b->prog)) {
		sbpf_program_unref(b->prog);
		b->prog = NULL;
		r = load_lambda(b, image, len, opts);
	} else if (opts->n_words > 2) {
		r = tool_fail(opts->words[2], EINVAL,
			      "only a λ-function takes arguments; leave them out");
	} else {
		index = tool_entry(b->path, b->prog, opts->entry);
		b->call.entry = (unsigned int)index;
		r = index < 0 ? TOOL_FAILED : 0;
	}
	free(image);
	return r ? TOOL_FAILED : 0;
}

/* ---- windows ---- */

static int fill_windows(struct bench *b)
{
	struct ctx ctx = {.in = sbpf_window_offset(SBPF_WIN_IN),
			  .in_len = b->bytes,
			  .out = sbpf_window_offset(SBPF_WIN_OUT),
			  .out_cap = b->out_cap,
			  .arg = sbpf_window_offset(SBPF_WIN_ARG),
			  .arg_len = b->arg_len,
			  .heap = sbpf_window_offset(SBPF_WIN_HEAP),
			  .heap_len = b->fn->heap_size,
			  .flags = CTX_FIRST_AND_LAST};
	const struct {
		enum sbpf_window win;
		uint64_t bytes;
	} sizes[] = {{SBPF_WIN_CTX, sizeof(ctx)},
		     {SBPF_WIN_ARG, b->arg_len},
		     {SBPF_WIN_STATE, b->fn->state_size},
		     {SBPF_WIN_HEAP, b->fn->heap_size},
		     {SBPF_WIN_OUT, b->out_cap}};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int r = sbpf_sandbox_resize(b->sb, sizes[i].win, sizes[i].bytes);

		if (r)
			return tool_fail(b->path, r, strerror(-r));
	}
	memcpy(sbpf_sandbox_ptr(b->sb, SBPF_WIN_CTX), &ctx, sizeof(ctx));
	if (b->arg_len)
		memcpy(sbpf_sandbox_ptr(b->sb, SBPF_WIN_ARG), b->arg, b->arg_len);
	b->call.r1 = sbpf_window_offset(SBPF_WIN_CTX);
	b->call.r2 = b->fn->state_size ? sbpf_window_offset(SBPF_WIN_STATE) : 0;
	return 0;
}

static int prepare(struct bench *b, struct sbpf_code_info *code)
{
	int r = sbpf_sandbox_get_for(b->prog, b->call.tier, &b->sb);
	uint64_t start = now_ns();
	struct sbpf_error err;

	if (!r)
		r = sbpf_sandbox_resize(b->sb, SBPF_WIN_IN, b->bytes);
	if (r)
		return tool_fail(b->path, r, "no memory for a sandbox");
	/* The kernel compiles what it loads. */
	r = sbpf_sandbox_prepare(b->sb, b->call.entry, &err);
	if (r)
		return tool_fail(b->path, r, err.text);
	code->compile_ns += now_ns() - start;
	memcpy(sbpf_sandbox_ptr(b->sb, SBPF_WIN_IN), b->input, b->bytes);
	if (b->fn)
		return fill_windows(b);
	b->call.r1 = sbpf_window_offset(SBPF_WIN_IN);
	b->call.r2 = b->bytes;
	return 0;
}

/* ---- measuring ---- */

static int restore(struct bench *b)
{
	static const enum sbpf_window used[] = {SBPF_WIN_STATE, SBPF_WIN_HEAP, SBPF_WIN_OUT};
	int r = 0;

	if (b->scribbles)
		memcpy(sbpf_sandbox_ptr(b->sb, SBPF_WIN_IN), b->input, b->bytes);
	if (!b->fn)
		return 0;
	for (size_t i = 0; i < sizeof(used) / sizeof(used[0]) && !r; i++)
		r = sbpf_sandbox_zero(b->sb, used[i], sbpf_sandbox_size(b->sb, used[i]));
	return r ? tool_fail(b->path, r, strerror(-r)) : 0;
}

/* One call; its time, or TOOL_FAILED after an error line. */
static int pass(struct bench *b, uint64_t *ns)
{
	struct sbpf_error err;
	uint64_t start;
	int r = restore(b);

	if (r)
		return r;
	start = now_ns();
	r = sbpf_run(b->sb, &b->call, &err);
	*ns = now_ns() - start;
	return r ? tool_fail(b->path, r, err.text) : 0;
}

/* The first call: gives a λ-function the room it asks for, and sees whether it scribbles. */
static int warm_up(struct bench *b)
{
	uint64_t ns;
	int r;

	for (;;) {
		r = pass(b, &ns);
		b->scribbles =
			memcmp(sbpf_sandbox_ptr(b->sb, SBPF_WIN_IN), b->input, b->bytes) != 0;
		if (r || !b->fn || (int64_t)b->call.r0 != -ENOSPC)
			return r;
		b->out_cap *= 2;
		if (b->out_cap > sbpf_window_max(SBPF_WIN_OUT))
			return tool_fail(b->path, ENOSPC, "its output is larger than its window");
		r = fill_windows(b);
		if (r)
			return r;
	}
}

static json_object *hex_json(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	return json_object_new_string(text);
}

static int print_json(const struct bench *b, const struct sbpf_code_info *code, double best,
		      double median, uint32_t passes)
{
	json_object *doc = json_object_new_object(), *ns = json_object_new_object();
	const char *text;

	json_object_object_add(doc, "schema", json_object_new_string("sbpf-bench/1"));
	json_object_object_add(doc, "object", json_object_new_string(b->path));
	json_object_object_add(
		doc, "entry",
		json_object_new_string(sbpf_program_entry_name(b->prog, b->call.entry)));
	json_object_object_add(doc, "tier", json_object_new_string(sbpf_tier_name(code->tier)));
	json_object_object_add(doc, "fuel", json_object_new_boolean(true));
	json_object_object_add(doc, "fuel_used", json_object_new_uint64(b->call.fuel_used));
	json_object_object_add(doc, "bytes", json_object_new_uint64(b->bytes));
	json_object_object_add(doc, "passes", json_object_new_uint64(passes));
	json_object_object_add(ns, "best", json_object_new_double(best));
	json_object_object_add(ns, "median", json_object_new_double(median));
	json_object_object_add(doc, "ns_per_byte", ns);
	json_object_object_add(doc, "compile_ns", json_object_new_uint64(code->compile_ns));
	json_object_object_add(doc, "compile_us",
			       json_object_new_double((double)code->compile_ns / 1e3));
	json_object_object_add(doc, "code_bytes", json_object_new_uint64(code->code_bytes));
	json_object_object_add(doc, "r0", hex_json(b->call.r0));
	text = json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PRETTY |
							   JSON_C_TO_STRING_NOSLASHESCAPE);
	if (text)
		puts(text);
	json_object_put(doc);
	return text ? TOOL_DONE : tool_fail(b->path, ENOMEM, "no memory for the report");
}

static int report(const struct bench *b, const struct sbpf_code_info *code, uint64_t *times,
		  uint32_t passes, bool json)
{
	double best, median;

	qsort(times, passes, sizeof(times[0]), compare_u64);
	best = (double)times[0] / (double)b->bytes;
	median = (double)times[passes / 2] / (double)b->bytes;
	if (json)
		return print_json(b, code, best, median, passes);
	printf("%s: %s over %llu bytes, %u passes, %s tier, fuel counted\n", b->path,
	       sbpf_program_entry_name(b->prog, b->call.entry), (unsigned long long)b->bytes,
	       passes, sbpf_tier_name(code->tier));
	printf("  %.4f ns/byte best, %.4f median (%.2f GB/s)\n", best, median, 1 / best);
	printf("  compiled in %.1f us to %llu bytes of code; r0 = 0x%llx\n",
	       (double)code->compile_ns / 1e3, (unsigned long long)code->code_bytes,
	       (unsigned long long)b->call.r0);
	return TOOL_DONE;
}

static int measure(struct bench *b, const struct sbpf_code_info *code, bool json)
{
	uint64_t *times = calloc(MAX_PASSES, sizeof(times[0]));
	uint64_t total = 0;
	uint32_t passes = 0;
	int r = times ? warm_up(b) : tool_fail(b->path, ENOMEM, "no memory for the times");

	while (!r && passes < MAX_PASSES && (passes < MIN_PASSES || total < MIN_TOTAL_NS)) {
		r = pass(b, &times[passes]);
		if (!r)
			total += times[passes++];
	}
	if (!r)
		r = report(b, code, times, passes, json);
	free(times);
	return r;
}

static int compile(struct bench *b, struct sbpf_code_info *code)
{
	struct sbpf_error err;
	int r = sbpf_program_compile(b->prog, b->call.tier, code, &err);

	return r ? tool_fail(b->path, r, err.text) : 0;
}

static void bench_free(struct bench *b)
{
	if (b->sb)
		sbpf_sandbox_put(b->sb);
	if (b->fn)
		lambda_function_free(b->fn);
	else
		sbpf_program_unref(b->prog);
	free(b->arg);
	free(b->input);
}

int tool_bench(const struct tool_opts *opts)
{
	struct bench b = {.path = opts->words[0],
			  .call = {.size = sizeof(b.call), .tier = opts->tier, .fuel = opts->fuel},
			  .bytes = BENCH_BYTES,
			  .out_cap = FIRST_OUT_CAP};
	struct sbpf_code_info code = {.size = sizeof(code)};
	int r = load(&b, opts);

	if (!r)
		r = read_input(&b, opts->words[1]);
	if (!r && b.fn)
		b.bytes = whole_records(&b);
	if (!r)
		r = compile(&b, &code);
	if (!r)
		r = prepare(&b, &code);
	if (!r)
		r = measure(&b, &code, opts->json);
	bench_free(&b);
	return r;
}
