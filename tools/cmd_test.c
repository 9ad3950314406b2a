/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_test.c - lio test: does a function give the same answer however its input is cut?
 *
 * The answer is what the interpreter says of the uncut range on one thread.  Every other run's output is
 * compared with it as it comes.  A round's cuts follow from its seed alone, so that a failure names what
 * finds it again; before it is reported, cuts that it does not need are taken away.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lio.h"

#define ROUNDS_DEFAULT 20u
#define LENGTH_DEFAULT (1u << 20)
#define LENGTH_MAX     (64u << 20)
#define ANSWER_MAX     (1u << 30) /* bytes of output kept to compare with */
#define CUTS_MAX       64u
#define CUTS_SHOWN     8u
#define THREADS_MOST   8u

struct trial { /* one law on one range of one file */
	const char *name;
	struct lambda_function *fn;
	bool parallel;
	struct lio_file *file;
	struct lambda_source src;
	uint8_t *arg;
	size_t arg_len;
	uint64_t offset, length;
	uint8_t *answer;
	size_t answer_len, answer_cap;
	uint64_t runs, cuts; /* for the summary */
};

struct cuts {
	uint64_t at[CUTS_MAX];
	size_t n;
};

struct run { /* how one run differs from the answer's */
	enum sbpf_tier tier;
	unsigned threads;
	struct cuts cuts;
};

struct outcome { /* what it gave */
	int err;
	struct lambda_error error;
	uint64_t len;    /* bytes of output */
	uint64_t differ; /* the first byte that differs; UINT64_MAX: none */
	uint8_t byte;    /* what it is there */
};

/* ---- input and output ---- */

static int64_t source_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct trial *t = (struct trial *)((char *)src - offsetof(struct trial, src));

	return lio_pread(t->file, buf, len, off);
}

static const struct lambda_source_ops source_ops = {.name = "pread", .read = source_read};

struct answer_sink {
	struct lambda_sink sink;
	struct trial *trial;
};

static int answer_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct trial *t = ((struct answer_sink *)sink)->trial;
	size_t need = t->answer_len + len;

	if (need > ANSWER_MAX)
		return -ENOSPC;
	if (need > t->answer_cap) {
		uint8_t *more = realloc(t->answer, need * 2);

		if (!more)
			return -ENOMEM;
		t->answer = more;
		t->answer_cap = need * 2;
	}
	memcpy(t->answer + t->answer_len, p, len);
	t->answer_len = need;
	return 0;
}

struct compare_sink {
	struct lambda_sink sink;
	const struct trial *trial;
	struct outcome *outcome;
};

static int compare_write(struct lambda_sink *sink, const void *p, size_t len)
{
	struct compare_sink *cs = (struct compare_sink *)sink;
	const struct trial *t = cs->trial;
	struct outcome *o = cs->outcome;
	const uint8_t *bytes = p;

	for (size_t i = 0; i < len && o->differ == UINT64_MAX; i++) {
		uint64_t at = o->len + i;

		if (at >= t->answer_len || t->answer[at] != bytes[i]) {
			o->differ = at;
			o->byte = bytes[i];
		}
	}
	o->len += len;
	return 0;
}

static struct lambda_request request(const struct trial *t, enum sbpf_tier tier, unsigned threads)
{
	return (struct lambda_request){
		.fn = t->fn,
		.arg = t->arg,
		.arg_len = t->arg_len,
		.offset = t->offset,
		.length = t->length,
		.chunk = LENGTH_MAX,
		.threads = threads,
		.tier = tier,
		.cancel = &cli_cancelled,
	};
}

static int find_answer(struct trial *t)
{
	struct answer_sink sink = {{answer_write}, t};
	struct lambda_request req = request(t, SBPF_TIER_INTERP, 1);
	struct lambda_error err = {0};
	struct lambda_report report = {0};
	int ret = lambda_run(&req, &t->src, &sink.sink, &report, &err);

	if (ret == -ECANCELED)
		return CLI_INTERRUPTED;
	return ret ? cli_fail_text(ret, err.text) : 0;
}

/* Does this run give the answer? */
static bool agrees(struct trial *t, const struct run *run, struct outcome *o)
{
	struct compare_sink sink = {{compare_write}, t, o};
	struct lambda_request req = request(t, run->tier, run->threads);
	struct lambda_report report = {0};

	*o = (struct outcome){.differ = UINT64_MAX};
	req.cuts = run->cuts.n ? run->cuts.at : NULL;
	req.n_cuts = run->cuts.n;
	o->err = lambda_run(&req, &t->src, &sink.sink, &report, &o->error);
	if (!o->err && o->differ == UINT64_MAX && o->len < t->answer_len)
		o->differ = o->len;
	t->runs++;
	t->cuts += run->cuts.n;
	return !o->err && o->differ == UINT64_MAX;
}

/* ---- random cuts ---- */

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Few or many, anywhere or close together. */
static void make_cuts(const struct trial *t, uint64_t *random, struct cuts *cuts)
{
	uint64_t most = next_random(random) % 4 ? 8 : CUTS_MAX, n = 1 + next_random(random) % most;
	uint64_t last = 0;

	cuts->n = 0;
	if (t->length < 2)
		return;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = next_random(random) % (t->length - 1) + 1;

		if (last && next_random(random) % 4 == 0)
			at = last + next_random(random) % 16;
		if (at >= t->length)
			at = t->length - 1;
		last = at;
		cuts->at[cuts->n++] = t->offset + at;
	}
	qsort(cuts->at, cuts->n, sizeof(cuts->at[0]), by_value);
	n = 0;
	for (size_t i = 0; i < cuts->n; i++)
		if (!n || cuts->at[i] != cuts->at[n - 1])
			cuts->at[n++] = cuts->at[i];
	cuts->n = n;
}

/* Take away cuts that the failure does not need. */
static void shrink(struct trial *t, struct run *run, struct outcome *o)
{
	struct outcome tried;
	struct run fewer;

	for (size_t i = 0; i < run->cuts.n && !cli_cancelled;) {
		fewer = *run;
		memmove(fewer.cuts.at + i, fewer.cuts.at + i + 1,
			(fewer.cuts.n - i - 1) * sizeof(fewer.cuts.at[0]));
		fewer.cuts.n--;
		if (agrees(t, &fewer, &tried)) {
			i++;
			continue;
		}
		*run = fewer;
		*o = tried;
	}
}

/* ---- reports ---- */

static void cuts_text(char *buf, size_t cap, const struct cuts *cuts)
{
	size_t len = (size_t)snprintf(buf, cap, cuts->n ? "cut at" : "uncut");

	for (size_t i = 0; i < cuts->n && i < CUTS_SHOWN && len < cap; i++)
		len += (size_t)snprintf(buf + len, cap - len, "%s %" PRIu64, i ? "," : "",
					cuts->at[i]);
	if (cuts->n > CUTS_SHOWN && len < cap)
		snprintf(buf + len, cap - len, " and %zu more places", cuts->n - CUTS_SHOWN);
}

static const char *law(const struct trial *t)
{
	if (t->fn->kind == LAMBDA_KIND_MAP)
		return "a map of two pieces must be the pieces' maps joined: carry nothing from "
		       "record to "
		       "record, or make it a scan";
	if (t->parallel)
		return "states folded apart and merged in file order must equal one fold: check "
		       "the merge";
	return "what must survive a piece belongs into the state, and no record may depend on "
	       "where a piece "
	       "ends";
}

static int broken(const struct trial *t, const struct run *run, const struct outcome *o,
		  uint64_t seed)
{
	char where[256], how[800], fix[400];

	cuts_text(where, sizeof(where), &run->cuts);
	if (o->err)
		snprintf(how, sizeof(how), "it failed: %s", o->error.text);
	else if (o->differ >= o->len)
		snprintf(how, sizeof(how), "output ends at byte %" PRIu64 " instead of %zu", o->len,
			 t->answer_len);
	else if (o->differ >= t->answer_len)
		snprintf(how, sizeof(how), "output goes on after byte %zu, up to %" PRIu64,
			 t->answer_len, o->len);
	else
		snprintf(how, sizeof(how),
			 "output differs at byte %" PRIu64 ": 0x%02x instead of 0x%02x", o->differ,
			 o->byte, t->answer[o->differ]);
	if (run->cuts.n)
		snprintf(fix, sizeof(fix), "%s (again: --seed %" PRIu64 " --rounds 1)", law(t),
			 seed);
	else
		snprintf(fix, sizeof(fix),
			 "the uncut interpreted run gave another answer: this is lio's fault, "
			 "report it");
	return cli_fail(o->err ? o->err : EBADMSG, fix, "%s: tier %s, %u thread%s, %s: %s", t->name,
			sbpf_tier_name(run->tier), run->threads, run->threads == 1 ? "" : "s",
			where, how);
}

static int report(const struct cli *cli, const struct trial *t, uint64_t rounds, uint64_t seed,
		  const char *tiers)
{
	json_object *doc;

	if (!cli->json) {
		printf("%s: the same %zu bytes of output from %" PRIu64 " bytes in %" PRIu64
		       " runs with %" PRIu64 " cuts (tiers %s; seed %" PRIu64 ")\n",
		       t->name, t->answer_len, t->length, t->runs, t->cuts, tiers, seed);
		return cli_flush();
	}
	doc = json_object_new_object();
	json_object_object_add(doc, "schema", json_object_new_string("lio-test/1"));
	json_object_object_add(doc, "function", cli_json_text(t->name, strlen(t->name)));
	json_object_object_add(doc, "kind", json_object_new_string(lambda_kind_name(t->fn->kind)));
	json_object_object_add(doc, "bytes_in", json_object_new_uint64(t->length));
	json_object_object_add(doc, "bytes_out", json_object_new_uint64(t->answer_len));
	json_object_object_add(doc, "rounds", json_object_new_uint64(rounds));
	json_object_object_add(doc, "runs", json_object_new_uint64(t->runs));
	json_object_object_add(doc, "cuts", json_object_new_uint64(t->cuts));
	json_object_object_add(doc, "seed", json_object_new_uint64(seed));
	json_object_object_add(doc, "tiers", json_object_new_string(tiers));
	return cli_print_json(doc);
}

/* ---- the rounds ---- */

static int attempt(struct trial *t, struct run *run, uint64_t seed)
{
	struct outcome o;

	if (agrees(t, run, &o))
		return 0;
	if (cli_cancelled)
		return CLI_INTERRUPTED;
	shrink(t, run, &o);
	return cli_cancelled ? CLI_INTERRUPTED : broken(t, run, &o, seed);
}

/* The cuts of one seed on every tier, on one thread and on several. */
static int one_round(struct trial *t, uint64_t seed, const enum sbpf_tier *tiers, size_t n)
{
	uint64_t random = seed;
	struct cuts cuts;
	unsigned several;
	int status = 0;

	make_cuts(t, &random, &cuts);
	several = 2 + (unsigned)(next_random(&random) % (THREADS_MOST - 1));
	for (size_t i = 0; i < n && !status; i++) {
		struct run run = {.tier = tiers[i], .threads = 1, .cuts = cuts};

		status = attempt(t, &run, seed);
		run = (struct run){.tier = tiers[i], .threads = several, .cuts = cuts};
		if (!status)
			status = attempt(t, &run, seed);
	}
	return status;
}

static int all_rounds(const struct cli *cli, struct trial *t)
{
	static const enum sbpf_tier known[] = {SBPF_TIER_INTERP, SBPF_TIER_TEMPLATE,
					       SBPF_TIER_LLVM};
	enum sbpf_tier tiers[sizeof(known) / sizeof(known[0])];
	uint64_t seed = cli->seed, rounds = cli->rounds ? cli->rounds : ROUNDS_DEFAULT;
	char names[64] = "";
	size_t n = 0;
	int status;

	if (seed == CLI_UNSET) {
		seed = 0;
		(void)!getrandom(&seed, 4, 0); /* short, to be typed again */
	}
	status = find_answer(t);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && !status; i++) {
		struct run run = {.tier = known[i], .threads = 1};

		if (sbpf_tier_missing(known[i]))
			continue;
		tiers[n++] = known[i];
		if (names[0])
			strcat(names, " ");
		strcat(names, sbpf_tier_name(known[i]));
		status = attempt(t, &run, seed);
	}
	for (uint64_t i = 0; i < rounds && !status; i++)
		status = one_round(t, seed + i, tiers, n);
	return status ? status : report(cli, t, rounds, seed, names);
}

static int prepare(const struct cli *cli, struct trial *t)
{
	struct lambda_error err = {0};
	int64_t size = lio_size(t->file);
	int ret;

	if (size == -ESPIPE)
		return cli_fail(ESPIPE, "give a file", "test: %s: it cannot be read more than once",
				cli->words[1]);
	if (size < 0)
		return cli_fail_lib((int)size);
	ret = lambda_args_pack(&t->fn->args, (const char *const *)cli->words + 2, cli->n_words - 2,
			       &t->arg, &t->arg_len, &err);
	if (ret)
		return cli_fail_text(ret, err.text);
	t->src = (struct lambda_source){&source_ops, (uint64_t)size};
	t->offset = cli->offset < (uint64_t)size ? cli->offset : (uint64_t)size;
	t->length = cli->length == CLI_UNSET ? LENGTH_DEFAULT : cli->length;
	if (t->length > (uint64_t)size - t->offset)
		t->length = (uint64_t)size - t->offset;
	if (t->length > LENGTH_MAX)
		return cli_fail(E2BIG, "use a smaller --length", "test: --length: more than 64M");
	return 0;
}

int cmd_test(int argc, char **argv)
{
	struct trial t = {0};
	struct cli cli;
	int status;

	if (cli_parse(CLI_TEST, argc, argv, &cli) || cli_words(CLI_TEST, &cli, 2, SIZE_MAX) ||
	    cli_load_lambda(cli.words[0], &t.fn))
		return CLI_FAILED;
	t.name = t.fn->name;
	t.parallel = t.fn->kind == LAMBDA_KIND_MAP || t.fn->entry[LAMBDA_E_MERGE] >= 0;
	cli_catch_interrupt();
	status = cli_open(cli.words[1], &t.file);
	if (!status)
		status = prepare(&cli, &t);
	if (!status)
		status = all_rounds(&cli, &t);
	if (t.file)
		lio_close(t.file);
	lambda_function_free(t.fn);
	free(t.arg);
	free(t.answer);
	return status;
}
