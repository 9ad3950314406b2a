/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_bench.c - lio bench: times of a function over a file, for tiers and numbers of threads.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lio.h"

#define REPEAT_DEFAULT 5u
#define LIST_MAX       16u
#define COLUMNS        7u

struct line {
	enum sbpf_tier tier;
	unsigned threads; /* asked for; 0: every core */
	uint64_t median_ns;
	struct lio_result best;
};

struct plan {
	enum sbpf_tier tiers[LIST_MAX];
	unsigned threads[LIST_MAX];
	size_t n_tiers, n_threads, repeat;
};

/* The next item of a comma list into @item; NULL at the list's end. */
static const char *next_item(const char *list, char item[32])
{
	size_t n = strcspn(list, ",");

	snprintf(item, 32, "%.*s", (int)n, list);
	return list[n] ? list + n + 1 : NULL;
}

static int plan_tiers(const char *list, int engine, struct plan *plan)
{
	static const enum sbpf_tier all[] = {SBPF_TIER_INTERP, SBPF_TIER_TEMPLATE, SBPF_TIER_LLVM};
	const char *missing;
	char item[32];

	/* It is an engine of its own, with one tier; its absence is the engine's to explain. */
	if (!list && engine == LIO_ENGINE_KERNEL) {
		plan->tiers[plan->n_tiers++] = SBPF_TIER_KERNEL;
		return 0;
	}
	for (size_t i = 0; !list && i < sizeof(all) / sizeof(all[0]); i++)
		if (!sbpf_tier_missing(all[i]))
			plan->tiers[plan->n_tiers++] = all[i];
	while (list) {
		enum sbpf_tier *tier = &plan->tiers[plan->n_tiers];

		list = next_item(list, item);
		if (sbpf_tier_parse(item, tier))
			return cli_fail(
				EINVAL, "separate tiers by commas",
				"bench: --tier: \"%s\" is not one of auto, interp, template, llvm, "
				"kernel",
				item);
		missing = sbpf_tier_missing(*tier);
		if (missing)
			return cli_fail(EOPNOTSUPP, "\"lio features\" lists what runs here",
					"bench: --tier %s: %s", item, missing);
		if (++plan->n_tiers == LIST_MAX && list)
			return cli_fail(E2BIG, "name fewer", "bench: --tier: more than %u tiers",
					LIST_MAX);
	}
	return 0;
}

static int plan_threads(const char *list, struct plan *plan)
{
	uint64_t n;
	char item[32];

	if (!list)
		plan->n_threads = 1;
	while (list) {
		list = next_item(list, item);
		if (cli_parse_count(item, &n) || !n || n > UINT_MAX)
			return cli_fail(EINVAL, "name whole numbers from 1 up",
					"bench: --threads: \"%s\" is not a number of threads",
					item);
		plan->threads[plan->n_threads++] = (unsigned)n;
		if (plan->n_threads == LIST_MAX && list)
			return cli_fail(E2BIG, "name fewer",
					"bench: --threads: more than %u numbers", LIST_MAX);
	}
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int measure(const struct cli *cli, struct cli_request *req, uint64_t *walls, size_t repeat,
		   struct line *line)
{
	int status;

	req->opts.tier = (enum lio_tier)line->tier;
	if (line->tier == SBPF_TIER_KERNEL)
		req->opts.engine = LIO_ENGINE_KERNEL;
	else
		req->opts.engine = (enum lio_engine)cli->engine;
	req->opts.threads = line->threads;
	status = cli_run_dropped(cli, req);
	for (size_t i = 0; i < repeat && !status; i++) {
		status = cli_run_dropped(cli, req);
		walls[i] = req->result.wall_ns;
		if (!i || req->result.wall_ns < line->best.wall_ns)
			line->best = req->result;
	}
	if (status)
		return status;
	qsort(walls, repeat, sizeof(*walls), by_value);
	line->median_ns =
		repeat % 2 ? walls[repeat / 2] : (walls[repeat / 2 - 1] + walls[repeat / 2]) / 2;
	return 0;
}

static double gb_per_s(const struct lio_result *r)
{
	return r->wall_ns ? (double)r->bytes_in / (double)r->wall_ns : 0;
}

static int print_text(const struct line *lines, size_t n)
{
	static const char *const title[COLUMNS] = {"tier", "threads", "best",    "median",
						   "GB/s", "input",   "function"};
	static const bool right[COLUMNS] = {false, true, true, true, true, true, true};
	char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells)), buf[32];

	if (!cells)
		return cli_fail(ENOMEM, CLI_FIX_MEMORY, "bench: no memory");
	for (size_t c = 0; c < COLUMNS; c++)
		cells[c] = cli_strdup(title[c]);
	for (size_t i = 0; i < n; i++) {
		const struct line *l = &lines[i];
		char **row = cells + (i + 1) * COLUMNS;

		row[0] = cli_strdup(sbpf_tier_name((enum sbpf_tier)l->best.tier));
		snprintf(buf, sizeof(buf), "%u", l->best.threads);
		row[1] = cli_strdup(buf);
		row[2] = cli_strdup(cli_time_text(buf, l->best.wall_ns));
		row[3] = cli_strdup(cli_time_text(buf, l->median_ns));
		snprintf(buf, sizeof(buf), "%.3f", gb_per_s(&l->best));
		row[4] = cli_strdup(buf);
		row[5] = cli_strdup(cli_time_text(buf, l->best.io_ns));
		row[6] = cli_strdup(cli_time_text(buf, l->best.run_ns));
	}
	print_aligned(stdout, cells, right, n + 1, COLUMNS);
	cli_free_names(cells, (n + 1) * COLUMNS);
	return cli_flush();
}

static json_object *line_json(const struct line *l)
{
	json_object *o = json_object_new_object();
	char buf[32];

	json_object_object_add(
		o, "tier", json_object_new_string(sbpf_tier_name((enum sbpf_tier)l->best.tier)));
	json_object_object_add(o, "threads", json_object_new_uint64(l->best.threads));
	json_object_object_add(o, "best_ns", json_object_new_uint64(l->best.wall_ns));
	json_object_object_add(o, "median_ns", json_object_new_uint64(l->median_ns));
	json_object_object_add(o, "gb_per_s",
			       json_object_new_double_s(gb_per_s(&l->best),
							cli_double_text(buf, gb_per_s(&l->best))));
	json_object_object_add(o, "best", cli_result_json(&l->best));
	return o;
}

static int print_json(const struct cli_request *req, const struct plan *plan,
		      const struct line *lines, size_t n)
{
	json_object *doc = json_object_new_object(), *rows = json_object_new_array();

	json_object_object_add(doc, "schema", json_object_new_string("lio-bench/1"));
	json_object_object_add(doc, "function",
			       cli_json_text(req->info.name, strlen(req->info.name)));
	json_object_object_add(doc, "file", cli_json_text(req->path, strlen(req->path)));
	json_object_object_add(doc, "repeat", json_object_new_uint64(plan->repeat));
	for (size_t i = 0; i < n; i++)
		json_object_array_add(rows, line_json(&lines[i]));
	json_object_object_add(doc, "runs", rows);
	return cli_print_json(doc);
}

static int bench(const struct cli *cli, const struct plan *plan, struct cli_request *req)
{
	size_t n = plan->n_tiers * plan->n_threads;
	uint64_t *walls = calloc(plan->repeat, sizeof(*walls));
	struct line *lines = calloc(n, sizeof(*lines));
	int status = 0;

	if (!walls || !lines)
		status = cli_fail(ENOMEM, "use a smaller --repeat", "bench: no memory");
	for (size_t i = 0; i < n && !status; i++) {
		lines[i].tier = plan->tiers[i / plan->n_threads];
		lines[i].threads = plan->threads[i % plan->n_threads];
		status = measure(cli, req, walls, plan->repeat, &lines[i]);
	}
	if (!status)
		status = cli->json ? print_json(req, plan, lines, n) : print_text(lines, n);
	free(lines);
	free(walls);
	return status;
}

int cmd_bench(int argc, char **argv)
{
	struct cli_request req;
	struct plan plan = {0};
	struct cli cli;
	int status;

	if (cli_parse(CLI_BENCH, argc, argv, &cli) || cli_words(CLI_BENCH, &cli, 2, SIZE_MAX) ||
	    plan_tiers(cli.tiers, cli.engine, &plan) || plan_threads(cli.thread_list, &plan))
		return CLI_FAILED;
	plan.repeat = cli.repeat ? cli.repeat : REPEAT_DEFAULT;
	if (cli_request(&cli, 2, &req))
		return CLI_FAILED;
	cli_catch_interrupt();
	if (lio_size(req.file) == -ESPIPE)
		status = cli_fail(ESPIPE, "give a file",
				  "bench: %s: it cannot be read more than once", req.path);
	else
		status = bench(&cli, &plan, &req);
	cli_request_free(&req);
	return status;
}
