/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_remote.c - lio ls, stat, rm, mkdir, mv: paths of a server.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lio.h"

static const char *type_name(enum lio_type type)
{
	switch (type) {
	case LIO_TYPE_FILE:
		return "file";
	case LIO_TYPE_DIRECTORY:
		return "directory";
	case LIO_TYPE_SYMLINK:
		return "symlink";
	case LIO_TYPE_OTHER:
		break;
	}
	return "other";
}

/* UTC, to the second: servers and readers of listings live in different places. */
static void time_text(char out[32], int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%d %H:%M:%SZ", &tm))
		snprintf(out, 32, "%" PRId64, seconds);
}

char *cli_url_join(const char *url, const char *name)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
		"!$&'()*+,;=:@";
	size_t len = strlen(url);
	char *out = malloc(len + 1 + 3 * strlen(name) + 1), *to = out;

	if (!out)
		return NULL;
	to = stpcpy(to, url);
	if (!len || url[len - 1] != '/')
		*to++ = '/';
	for (; *name; name++) {
		if (strchr(plain, *name))
			*to++ = *name;
		else
			to += sprintf(to, "%%%02X", (unsigned char)*name);
	}
	*to = 0;
	return out;
}

const char *cli_url_name(const char *url)
{
	const char *path = strstr(url, "://"), *slash;

	path = path ? strchr(path + 3, '/') : NULL;
	slash = path ? strrchr(path, '/') : NULL;
	return slash ? slash + 1 : NULL;
}

bool cli_is_url(const char *path)
{
	return strncmp(path, "lio://", 6) == 0;
}

/* ---- ls ---- */

struct listing {
	struct entry {
		char *name;
		enum lio_type type;
		uint64_t bytes;
		int64_t mtime;
	} *entries;
	size_t n, cap;
};

static int take_entry(void *arg, const struct lio_entry *e)
{
	struct listing *l = arg;
	struct entry *more;

	if (cli_cancelled)
		return -ECANCELED;
	if (l->n == l->cap) {
		more = realloc(l->entries, (l->cap * 2 + 64) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->entries = more;
		l->cap = l->cap * 2 + 64;
	}
	l->entries[l->n++] = (struct entry){cli_strdup(e->name), e->type, e->bytes, e->mtime};
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* A name as it is; on a terminal what might be obeyed there is shown instead. */
static void put_name(const char *name)
{
	bool terminal = isatty(STDOUT_FILENO);

	for (; *name; name++) {
		unsigned char c = (unsigned char)*name;

		if (terminal && (c < 0x20 || c == 0x7f))
			printf("\\x%02x", c);
		else
			putchar(c);
	}
}

static int print_listing(const struct listing *l, bool details)
{
	int width = 1;

	for (size_t i = 0; i < l->n; i++) {
		int n = snprintf(NULL, 0, "%" PRIu64, l->entries[i].bytes);

		width = n > width ? n : width;
	}
	for (size_t i = 0; i < l->n; i++) {
		const struct entry *e = &l->entries[i];
		char when[32];

		time_text(when, e->mtime);
		if (details)
			printf("%-9s  %*" PRIu64 "  %s  ", type_name(e->type), width, e->bytes,
			       when);
		put_name(e->name);
		puts(e->type == LIO_TYPE_DIRECTORY ? "/" : "");
	}
	return cli_flush();
}

static int listing_json(const char *url, const struct listing *l)
{
	json_object *doc = json_object_new_object(), *rows = json_object_new_array();

	json_object_object_add(doc, "schema", json_object_new_string("lio-ls/1"));
	json_object_object_add(doc, "directory", cli_json_text(url, strlen(url)));
	json_object_object_add(doc, "entries", rows);
	for (size_t i = 0; i < l->n; i++) {
		const struct entry *e = &l->entries[i];
		json_object *o = json_object_new_object();

		json_object_object_add(o, "name", cli_json_text(e->name, strlen(e->name)));
		json_object_object_add(o, "type", json_object_new_string(type_name(e->type)));
		json_object_object_add(o, "bytes", json_object_new_uint64(e->bytes));
		json_object_object_add(o, "mtime", json_object_new_int64(e->mtime));
		json_object_array_add(rows, o);
	}
	return cli_print_json(doc);
}

int cmd_ls(int argc, char **argv)
{
	struct listing l = {NULL};
	struct cli cli;
	int err, status;

	if (cli_parse(CLI_LS, argc, argv, &cli) || cli_words(CLI_LS, &cli, 1, 1))
		return CLI_FAILED;
	cli_catch_interrupt();
	err = lio_list(cli.words[0], take_entry, &l);
	if (l.n)
		qsort(l.entries, l.n, sizeof(*l.entries), by_name);
	if (err == -ECANCELED && cli_cancelled)
		status = CLI_INTERRUPTED;
	else if (err)
		status = cli_fail_lib(err);
	else
		status = cli.json ? listing_json(cli.words[0], &l) : print_listing(&l, cli.details);
	if (status == CLI_DONE && !l.n)
		status = CLI_NOTHING;
	for (size_t i = 0; i < l.n; i++)
		free(l.entries[i].name);
	free(l.entries);
	return status;
}

/* ---- stat ---- */

static int stat_json(const char *url, const struct lio_stat *st)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_string("lio-stat/1"));
	json_object_object_add(o, "file", cli_json_text(url, strlen(url)));
	json_object_object_add(o, "type", json_object_new_string(type_name(st->type)));
	json_object_object_add(o, "bytes", json_object_new_uint64(st->bytes));
	json_object_object_add(o, "inode", json_object_new_uint64(st->inode));
	json_object_object_add(o, "mode", json_object_new_int64(st->mode));
	json_object_object_add(o, "links", json_object_new_int64(st->links));
	json_object_object_add(o, "uid", json_object_new_int64(st->uid));
	json_object_object_add(o, "gid", json_object_new_int64(st->gid));
	json_object_object_add(o, "mtime", json_object_new_int64(st->mtime));
	json_object_object_add(o, "mtime_ns", json_object_new_int64(st->mtime_ns));
	json_object_object_add(o, "ctime", json_object_new_int64(st->ctime));
	json_object_object_add(o, "ctime_ns", json_object_new_int64(st->ctime_ns));
	json_object_object_add(o, "writable", json_object_new_boolean(st->writable));
	return cli_print_json(o);
}

int cmd_stat(int argc, char **argv)
{
	struct lio_stat st = {.size = sizeof(st)};
	char size[32], mtime[32], ctime[32];
	struct cli cli;
	int err;

	if (cli_parse(CLI_STAT, argc, argv, &cli) || cli_words(CLI_STAT, &cli, 1, 1))
		return CLI_FAILED;
	err = lio_stat(cli.words[0], &st);
	if (err)
		return cli_fail_lib(err);
	if (cli.json)
		return stat_json(cli.words[0], &st);
	time_text(mtime, st.mtime);
	time_text(ctime, st.ctime);
	printf("type      %s\nsize      %" PRIu64
	       " (%s)\nmode      %04o, uid %u, gid %u, links %u\n"
	       "modified  %s\nchanged   %s\ninode     %" PRIu64 "\nexport    %s\n",
	       type_name(st.type), st.bytes, cli_size_text(size, st.bytes), st.mode, st.uid, st.gid,
	       st.links, mtime, ctime, st.inode, st.writable ? "read and write" : "read only");
	return cli_flush();
}

/* ---- rm, mkdir, mv ---- */

int cmd_rm(int argc, char **argv)
{
	struct cli cli;
	int status = CLI_DONE;

	if (cli_parse(CLI_RM, argc, argv, &cli) || cli_words(CLI_RM, &cli, 1, SIZE_MAX))
		return CLI_FAILED;
	for (size_t i = 0; i < cli.n_words; i++) {
		int err = lio_remove(cli.words[i]);

		if (err)
			status = cli_fail_lib(err);
	}
	return status;
}

int cmd_mkdir(int argc, char **argv)
{
	struct cli cli;
	int status = CLI_DONE;

	if (cli_parse(CLI_MKDIR, argc, argv, &cli) || cli_words(CLI_MKDIR, &cli, 1, SIZE_MAX))
		return CLI_FAILED;
	for (size_t i = 0; i < cli.n_words; i++) {
		int err = lio_mkdir(cli.words[i], 0777);

		if (err)
			status = cli_fail_lib(err);
	}
	return status;
}

char *cli_url_target(const char *url, const char *name)
{
	struct lio_stat st = {.size = sizeof(st)};
	size_t len = strlen(url);
	char *to;

	if (!len || (url[len - 1] != '/' && (lio_stat(url, &st) || st.type != LIO_TYPE_DIRECTORY)))
		return cli_strdup(url);
	to = malloc(len + 1 + strlen(name) + 1);
	if (to)
		sprintf(to, "%s%s%s", url, url[len - 1] == '/' ? "" : "/", name);
	return to;
}

int cmd_mv(int argc, char **argv)
{
	const char *name;
	struct cli cli;
	char *to;
	int err;

	if (cli_parse(CLI_MV, argc, argv, &cli) || cli_words(CLI_MV, &cli, 2, 2))
		return CLI_FAILED;
	name = cli_url_name(cli.words[0]);
	to = cli_is_url(cli.words[1]) && name && name[0] ? cli_url_target(cli.words[1], name)
							 : cli_strdup(cli.words[1]);
	if (!to)
		return cli_fail(ENOMEM, CLI_FIX_MEMORY, "mv: no memory");
	err = lio_rename(cli.words[0], to);
	free(to);
	return err ? cli_fail_lib(err) : CLI_DONE;
}
