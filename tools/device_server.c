/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_server.c - lio device programs, load and stats: the functions that a server has, and its load.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "nvme/lambda.h"

/* ---- programs ---- */

static void hash_text(char out[65], const uint8_t hash[32])
{
	for (int i = 0; i < 32; i++)
		sprintf(out + 2 * i, "%02x", hash[i]);
}

static json_object *program_json(const struct nvme_lambda_loaded *p)
{
	json_object *o = json_object_new_object();
	char hash[65];

	hash_text(hash, p->hash);
	json_object_object_add(o, "name",
			       cli_json_text(p->name, strnlen(p->name, sizeof(p->name))));
	json_object_object_add(o, "bytes", json_object_new_uint64(p->size));
	json_object_object_add(o, "runs", json_object_new_uint64(p->runs));
	json_object_object_add(o, "sha256", json_object_new_string(hash));
	return o;
}

/* Names come from objects that hosts sent. */
static void put_name(const char *name, size_t max)
{
	size_t n = strnlen(name, max);

	for (size_t i = 0; i < n; i++)
		putchar((unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i]);
	printf("%*s", n < 20 ? (int)(20 - n) : 1, "");
}

static int programs(const struct cli *cli, const char *where)
{
	json_object *doc = NULL, *rows = NULL;
	struct nvme_lambda_loaded p;
	void *page;
	int64_t len = lio_server_page(where, NVME_LAMBDA_PAGE_PROGRAMS, &page);
	int status;

	if (len < 0)
		return cli_fail_lib((int)len);
	if (cli->json) {
		doc = json_object_new_object();
		rows = json_object_new_array();
		json_object_object_add(doc, "schema", json_object_new_string("lio-programs/1"));
		json_object_object_add(doc, "server", cli_json_text(where, strlen(where)));
		json_object_object_add(doc, "programs", rows);
	}
	for (int64_t at = 0; at + (int64_t)sizeof(p) <= len; at += (int64_t)sizeof(p)) {
		char hash[65];

		memcpy(&p, (uint8_t *)page + at, sizeof(p));
		if (cli->json) {
			json_object_array_add(rows, program_json(&p));
			continue;
		}
		hash_text(hash, p.hash);
		put_name(p.name, sizeof(p.name));
		printf("%8" PRIu64 " bytes  %8" PRIu64 " runs  %s\n", p.size, p.runs, hash);
	}
	free(page);
	status = cli->json ? cli_print_json(doc) : cli_flush();
	return status == CLI_DONE && len < (int64_t)sizeof(p) ? CLI_NOTHING : status;
}

static int load(const struct cli *cli, const char *where, const char *name)
{
	struct lio_function *fn;
	int err, status = cli_load(name, &fn);

	(void)cli;
	if (status)
		return status;
	err = lio_server_load(where, fn);
	lio_unload(fn);
	return err ? cli_fail_lib(err) : CLI_DONE;
}

/* ---- stats ---- */

static const struct limit {
	const char *name;
	size_t at;
	bool wide;
} limits[] = {
#define LIMIT(field)                                            \
	{#field, offsetof(struct nvme_lambda_abilities, field), \
	 sizeof(((struct nvme_lambda_abilities *)0)->field) == 8}
	LIMIT(cores),       LIMIT(max_running), LIMIT(max_queued),  LIMIT(max_handles),
	LIMIT(max_objects), LIMIT(max_waiting), LIMIT(max_request), LIMIT(max_program),
	LIMIT(max_fuel),    LIMIT(max_memory),  LIMIT(max_output),  LIMIT(max_timeout_ns),
#undef LIMIT
};

static uint64_t limit_value(const struct nvme_lambda_abilities *a, const struct limit *l)
{
	uint64_t wide;
	uint32_t narrow;

	if (l->wide) {
		memcpy(&wide, (const uint8_t *)a + l->at, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, (const uint8_t *)a + l->at, sizeof(narrow));
	return narrow;
}

static void add_tiers(json_object *doc, const struct nvme_lambda_abilities *a)
{
	json_object *tiers = json_object_new_array();

	for (int t = SBPF_TIER_INTERP; t <= SBPF_TIER_TEMPLATE; t++)
		if (a->tiers >> t & 1)
			json_object_array_add(
				tiers, json_object_new_string(sbpf_tier_name((enum sbpf_tier)t)));
	json_object_object_add(doc, "tiers", tiers);
}

/* key=value lines; what is a number is one. */
static void add_values(json_object *doc, char *text)
{
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *value = strchr(line, '=');
		uint64_t number;

		if (!value)
			continue;
		*value++ = 0;
		json_object_object_add(doc, line,
				       cli_parse_count(value, &number) == 0
					       ? json_object_new_uint64(number)
					       : cli_json_text(value, strlen(value)));
	}
}

static int stats_json(const char *where, const struct nvme_lambda_abilities *a, char *text)
{
	json_object *doc = json_object_new_object(), *o = json_object_new_object();

	json_object_object_add(doc, "schema", json_object_new_string("lio-server/1"));
	json_object_object_add(doc, "server", cli_json_text(where, strlen(where)));
	json_object_object_add(doc, "version",
			       cli_json_text(a->server, strnlen(a->server, sizeof(a->server))));
	json_object_object_add(doc, "commands_min", json_object_new_int(a->version_min));
	json_object_object_add(doc, "commands_max", json_object_new_int(a->version_max));
	json_object_object_add(doc, "exports",
			       json_object_new_boolean(a->flags & NVME_LAMBDA_CAN_EXPORTS));
	add_tiers(doc, a);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		json_object_object_add(o, limits[i].name,
				       json_object_new_uint64(limit_value(a, &limits[i])));
	json_object_object_add(doc, "limits", o);
	o = json_object_new_object();
	add_values(o, text);
	json_object_object_add(doc, "stats", o);
	return cli_print_json(doc);
}

static int stats(const struct cli *cli, const char *where)
{
	struct nvme_lambda_abilities a = {0};
	void *page, *text;
	int64_t len = lio_server_page(where, NVME_LAMBDA_PAGE_ABILITIES, &page);
	int status;

	if (len < 0)
		return cli_fail_lib((int)len);
	memcpy(&a, page, (size_t)len < sizeof(a) ? (size_t)len : sizeof(a));
	free(page);
	len = lio_server_page(where, NVME_LAMBDA_PAGE_STATS, &text);
	if (len < 0)
		return cli_fail_lib((int)len);
	if (cli->json) {
		status = stats_json(where, &a, text);
	} else {
		printf("server=%.*s\n", (int)sizeof(a.server), a.server);
		for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
			printf("%s=%" PRIu64 "\n", limits[i].name, limit_value(&a, &limits[i]));
		fputs(text, stdout);
		status = cli_flush();
	}
	free(text);
	return status;
}

bool device_server_command(const char *word)
{
	return strcmp(word, "programs") == 0 || strcmp(word, "load") == 0 ||
	       strcmp(word, "stats") == 0;
}

int device_server(const struct cli *cli)
{
	bool loads = strcmp(cli->words[0], "load") == 0;

	if (cli->n_words != (loads ? 3 : 2))
		return cli_fail(EINVAL,
				"usage: lio device programs|stats HOST, lio device load HOST "
				"FUNCTION",
				"device %s: %s", cli->words[0],
				cli->n_words > 2 ? "a word too many" : "something is missing");
	if (loads)
		return load(cli, cli->words[1], cli->words[2]);
	return strcmp(cli->words[0], "stats") == 0 ? stats(cli, cli->words[1])
						   : programs(cli, cli->words[1]);
}
