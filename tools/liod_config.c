/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liod_config.c - what is to be served, from a file of "key = value" lines and [subsystem NQN] sections.
 *
 * Strict: an unknown key, a value out of bounds or a key said twice is an error with its line, since a typing
 * mistake that is passed over would be found when the disk is missing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/loop.h"
#include "liod.h"

enum kind {
	KIND_COUNT,
	KIND_COUNT16,
	KIND_COUNT64,
	KIND_SIZE, /* with K, M, G, T; 32 bits */
	KIND_SIZE64,
	KIND_TIME,    /* with ms, s, m; in milliseconds */
	KIND_TIME_NS, /* likewise, kept in nanoseconds; its bounds are milliseconds */
	KIND_BOOL,
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct liod_config */
	uint64_t min, max;
	bool power; /* a power of two */
};

#define AT(field) offsetof(struct liod_config, field)
static const struct key keys[] = {
	{"insecure_network", KIND_BOOL, AT(insecure_network), 0, 1, false},
	{"io_uring", KIND_BOOL, AT(io_uring), 0, 1, false},
	{"threads", KIND_COUNT, AT(threads), 1, 64, false},
	{"drain_timeout", KIND_TIME, AT(drain_ms), 0, 3600000, false},
	{"max_connections", KIND_COUNT, AT(limits.max_connections), 1, 1000000, false},
	{"max_controllers", KIND_COUNT, AT(limits.max_controllers), 1, 65000, false},
	{"max_io_queues", KIND_COUNT16, AT(limits.max_io_queues), 1, 1024, false},
	{"max_queue_entries", KIND_COUNT16, AT(limits.max_queue_entries), 2, 4096, false},
	{"max_transfer", KIND_SIZE, AT(limits.max_transfer), 4096, 16 << 20, true},
	{"in_capsule", KIND_SIZE, AT(limits.in_capsule), 4096, 65536, true},
	{"max_h2c_data", KIND_SIZE, AT(limits.max_h2c), 4096, 16 << 20, true},
	{"buffer_memory", KIND_SIZE64, AT(limits.buffer_memory), 1 << 20, 1ull << 40, false},
	{"handshake_timeout", KIND_TIME, AT(limits.handshake_ms), 100, 3600000, false},
	{"stall_timeout", KIND_TIME, AT(limits.stall_ms), 100, 3600000, false},
	{"lambda_max_running", KIND_COUNT, AT(lambda.max_running), 1, 4096, false},
	{"lambda_max_queued", KIND_COUNT, AT(lambda.max_queued), 0, 1000000, false},
	{"lambda_max_handles", KIND_COUNT, AT(lambda.max_handles), 1, 65536, false},
	{"lambda_max_objects", KIND_COUNT, AT(lambda.max_objects), 1, 65535, false},
	{"lambda_max_waiting", KIND_COUNT, AT(lambda.max_waiting), 1, 65536, false},
	{"lambda_max_workers", KIND_COUNT, AT(lambda.max_workers), 1, 4096, false},
	{"lambda_max_request", KIND_SIZE64, AT(lambda.max_request), 4096, 1ull << 30, false},
	{"lambda_max_program", KIND_SIZE64, AT(lambda.max_program), 4096, 1ull << 30, false},
	{"lambda_program_memory", KIND_SIZE64, AT(lambda.program_memory), 4096, 1ull << 40, false},
	{"lambda_max_fuel", KIND_COUNT64, AT(lambda.max_fuel), 1, UINT64_MAX, false},
	{"lambda_max_memory", KIND_SIZE64, AT(lambda.max_memory), 1 << 20, 1ull << 40, false},
	{"lambda_max_output", KIND_SIZE64, AT(lambda.max_output), 1, 1ull << 60, false},
	{"lambda_max_time", KIND_TIME_NS, AT(lambda.max_timeout_ns), 1, 7ull * 86400000, false},
	{"lambda_ring", KIND_SIZE64, AT(lambda.ring), 64 << 10, 1 << 30, true},
	{"lambda_idle", KIND_TIME, AT(lambda.idle_ms), 100, 86400000, false},
	{"lambda_grace", KIND_TIME, AT(lambda.grace_ms), 1, 3600000, false},
};
/* once() keeps a bit of each. */
_Static_assert(sizeof(keys) / sizeof(keys[0]) <= 64, "more keys than bits");

void config_init(struct liod_config *c)
{
	*c = (struct liod_config){.io_uring = true,
				  .drain_ms = 10000,
				  .limits = ctrl_limits_default,
				  .lambda = ctrl_lambda_limits_default};
}

void config_free(struct liod_config *c)
{
	for (uint32_t i = 0; i < c->n_listen; i++)
		free(c->listen[i]);
	free(c->metrics);
	free(c->worker);
	for (uint32_t i = 0; i < c->n_exports; i++)
		free(c->exports[i]);
	free(c->exports);
	free(c->allow_uids);
	for (struct liod_subsystem *sub = c->subsystems, *next; sub; sub = next) {
		next = sub->next;
		for (uint32_t i = 0; i < sub->n; i++)
			free(sub->specs[i]);
		free(sub->specs);
		free(sub->serial);
		free(sub->nqn);
		free(sub);
	}
}

/* ---- values ---- */

static int parse_count(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return errno || *end ? -EINVAL : 0;
}

static int parse_time(const char *text, uint64_t *ms)
{
	uint64_t unit;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*ms = strtoull(text, &end, 10);
	if (!strcmp(end, "ms"))
		unit = 1;
	else if (!strcmp(end, "s"))
		unit = 1000;
	else if (!strcmp(end, "m"))
		unit = 60000;
	else
		return -EINVAL;
	if (errno || *ms > UINT64_MAX / unit)
		return -EINVAL;
	*ms *= unit;
	return 0;
}

static int parse_bool(const char *text, uint64_t *value)
{
	if (!strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "on"))
		*value = 1;
	else if (!strcmp(text, "no") || !strcmp(text, "false") || !strcmp(text, "off"))
		*value = 0;
	else
		return -EINVAL;
	return 0;
}

static int set_value(struct liod_config *c, const char *where, const struct key *k,
		     const char *text, struct ctrl_error *err)
{
	void *field = (char *)c + k->offset;
	const char *want = "a number";
	uint64_t value = 0;
	int rc = -EINVAL;

	switch (k->kind) {
	case KIND_COUNT:
	case KIND_COUNT16:
	case KIND_COUNT64:
		rc = parse_count(text, &value);
		break;
	case KIND_SIZE:
	case KIND_SIZE64:
		want = "a size (65536, 64K, 1G)";
		rc = ctrl_parse_size(text, &value);
		break;
	case KIND_TIME:
	case KIND_TIME_NS:
		want = "a time (500ms, 10s, 2m)";
		rc = parse_time(text, &value);
		break;
	case KIND_BOOL:
		want = "yes or no";
		rc = parse_bool(text, &value);
		break;
	}
	if (rc)
		return ctrl_fail(err, -EINVAL, "%s: %s = %s: not %s", where, k->name, text, want);
	if (value < k->min || value > k->max || (k->power && value & (value - 1)))
		return ctrl_fail(err, -ERANGE,
				 "%s: %s = %s: out of bounds; from %" PRIu64 " to %" PRIu64 "%s%s",
				 where, k->name, text, k->min, k->max,
				 k->kind == KIND_TIME || k->kind == KIND_TIME_NS ? " ms" : "",
				 k->power ? ", a power of two" : "");
	switch (k->kind) {
	case KIND_COUNT:
	case KIND_SIZE:
	case KIND_TIME:
		*(uint32_t *)field = (uint32_t)value;
		break;
	case KIND_COUNT16:
		*(uint16_t *)field = (uint16_t)value;
		break;
	case KIND_COUNT64:
	case KIND_SIZE64:
		*(uint64_t *)field = value;
		break;
	case KIND_TIME_NS:
		*(uint64_t *)field = value * 1000000u;
		break;
	case KIND_BOOL:
		*(bool *)field = value;
		break;
	}
	return 0;
}

static int copy(char **field, const char *value, struct ctrl_error *err)
{
	free(*field);
	*field = strdup(value);
	return *field ? 0 : ctrl_fail(err, -ENOMEM, "out of memory");
}

int config_listen(struct liod_config *c, const char *where, struct ctrl_error *err)
{
	if (c->n_listen == LIOD_LISTENS)
		return ctrl_fail(err, -E2BIG, "listen %s: more than %u addresses", where,
				 LIOD_LISTENS);
	c->listen[c->n_listen] = NULL;
	return copy(&c->listen[c->n_listen++], where, err);
}

/* One more at the end of @list. */
static int append(char ***list, uint32_t *n, const char *text)
{
	char **longer = reallocarray(*list, *n + 1, sizeof(*longer));

	if (!longer)
		return -ENOMEM;
	*list = longer;
	longer[*n] = strdup(text);
	if (!longer[*n])
		return -ENOMEM;
	(*n)++;
	return 0;
}

int config_export(struct liod_config *c, const char *spec, struct ctrl_error *err)
{
	return append(&c->exports, &c->n_exports, spec)
		       ? ctrl_fail(err, -ENOMEM, "export %s: out of memory", spec)
		       : 0;
}

static int allow_uid(struct liod_config *c, const char *where, const char *text,
		     struct ctrl_error *err)
{
	uint32_t *uids;
	uint64_t uid;

	if (parse_count(text, &uid) || uid >= UINT32_MAX)
		return ctrl_fail(err, -EINVAL,
				 "%s: allow_uid = %s: not the number of a user; see id -u NAME",
				 where, text);
	uids = reallocarray(c->allow_uids, c->n_allow_uids + 1, sizeof(*uids));
	if (!uids)
		return ctrl_fail(err, -ENOMEM, "%s: out of memory", where);
	c->allow_uids = uids;
	uids[c->n_allow_uids++] = (uint32_t)uid;
	return 0;
}

int config_set(struct liod_config *c, const char *where, const char *key, const char *value,
	       struct ctrl_error *err)
{
	if (!strcmp(key, "listen"))
		return config_listen(c, value, err);
	if (!strcmp(key, "metrics"))
		return copy(&c->metrics, value, err);
	if (!strcmp(key, "worker"))
		return copy(&c->worker, value, err);
	if (!strcmp(key, "export"))
		return config_export(c, value, err);
	if (!strcmp(key, "allow_uid"))
		return allow_uid(c, where, value, err);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (!strcmp(key, keys[i].name))
			return set_value(c, where, &keys[i], value, err);
	}
	return ctrl_fail(err, -EINVAL, "%s: %s: no such key%s; see liod.conf(5)", where, key,
			 !strcmp(key, "namespace") || !strcmp(key, "serial")
				 ? " outside a [subsystem NQN] section"
				 : "");
}

/* ---- subsystems ---- */

static struct liod_subsystem *subsystem(struct liod_config *c, const char *nqn, bool *made)
{
	struct liod_subsystem **at = &c->subsystems;

	*made = false;
	for (; *at; at = &(*at)->next) {
		if (!strcmp((*at)->nqn, nqn))
			return *at;
	}
	*made = true;
	*at = calloc(1, sizeof(**at));
	if (*at && !((*at)->nqn = strdup(nqn))) {
		free(*at);
		*at = NULL;
	}
	return *at;
}

int config_namespace(struct liod_config *c, const char *nqn, const char *spec,
		     struct ctrl_error *err)
{
	bool made;
	struct liod_subsystem *sub = subsystem(c, nqn, &made);

	return sub && !append(&sub->specs, &sub->n, spec)
		       ? 0
		       : ctrl_fail(err, -ENOMEM, "%s: out of memory", spec);
}

int config_subsystem(struct liod_config *c, const char *nqn, struct ctrl_error *err)
{
	bool made;

	return subsystem(c, nqn, &made) ? 0 : ctrl_fail(err, -ENOMEM, "%s: out of memory", nqn);
}

/* ---- the file ---- */

struct reader {
	struct liod_config *config;
	struct liod_subsystem *section; /* NULL: before the first */
	char where[300];                /* file:line */
	uint64_t said;                  /* keys of the part before the first section, a bit each */
};

static char *trim(char *s)
{
	char *end;

	s += strspn(s, " \t");
	end = s + strlen(s);
	while (end > s && strchr(" \t\r\n", end[-1]))
		*--end = '\0';
	return s;
}

static int read_section(struct reader *r, char *line, struct ctrl_error *err)
{
	static const char word[] = "[subsystem";
	char *end = line + strlen(line) - 1;
	bool made;
	char *nqn;

	if (*end != ']' || strncmp(line, word, sizeof(word) - 1) != 0 ||
	    !strchr(" \t", line[sizeof(word) - 1]))
		return ctrl_fail(err, -EINVAL, "%s: %s: no section; write [subsystem NQN]",
				 r->where, line);
	*end = '\0';
	nqn = trim(line + sizeof(word) - 1);
	r->section = subsystem(r->config, nqn, &made);
	if (!r->section)
		return ctrl_fail(err, -ENOMEM, "%s: out of memory", r->where);
	if (!made)
		return ctrl_fail(err, -EEXIST, "%s: subsystem %s: said twice; join the sections",
				 r->where, nqn);
	return 0;
}

static int once(struct reader *r, const char *key, struct ctrl_error *err)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(key, keys[i].name) != 0)
			continue;
		if (r->said & 1ull << i)
			return ctrl_fail(err, -EINVAL, "%s: %s: said twice; keep one", r->where,
					 key);
		r->said |= 1ull << i;
	}
	return 0;
}

static int read_line(struct reader *r, char *line, struct ctrl_error *err)
{
	struct liod_subsystem *sub = r->section;
	char *equals, *key, *value;

	line = trim(line);
	if (!*line || *line == '#' || *line == ';')
		return 0;
	if (*line == '[')
		return read_section(r, line, err);
	equals = strchr(line, '=');
	if (!equals)
		return ctrl_fail(err, -EINVAL, "%s: %s: no value; write KEY = VALUE", r->where,
				 line);
	*equals = '\0';
	key = trim(line);
	value = trim(equals + 1);
	if (!*value)
		return ctrl_fail(err, -EINVAL, "%s: %s: no value; write KEY = VALUE", r->where,
				 key);
	if (!sub) {
		int rc = once(r, key, err);

		return rc ? rc : config_set(r->config, r->where, key, value, err);
	}
	if (!strcmp(key, "namespace"))
		return append(&sub->specs, &sub->n, value)
			       ? ctrl_fail(err, -ENOMEM, "%s: out of memory", r->where)
			       : 0;
	if (strcmp(key, "serial") != 0)
		return ctrl_fail(err, -EINVAL,
				 "%s: %s: no such key in a subsystem; namespace or serial, and "
				 "general keys stand before the first section",
				 r->where, key);
	if (sub->serial)
		return ctrl_fail(err, -EINVAL, "%s: serial: said twice; keep one", r->where);
	return copy(&sub->serial, value, err);
}

int config_read(struct liod_config *c, const char *path, struct ctrl_error *err)
{
	struct reader r = {.config = c};
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	unsigned int n = 0;
	ssize_t len;
	int rc = 0;

	if (!file)
		return ctrl_fail(err, -errno, "%s: cannot read it: %s; give a readable file", path,
				 strerror(errno));
	while (!rc && (len = getline(&line, &size, file)) >= 0) {
		snprintf(r.where, sizeof(r.where), "%s:%u", path, ++n);
		if (strlen(line) != (size_t)len)
			rc = ctrl_fail(err, -EINVAL, "%s: a zero byte: this is no text", r.where);
		else
			rc = read_line(&r, line, err);
	}
	if (!rc && ferror(file))
		rc = ctrl_fail(err, -EIO, "%s: cannot read it to its end", path);
	free(line);
	fclose(file);
	return rc;
}
