/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - from words to something that can run: the function, the file, the arguments, the budgets.
 *
 * Also owns the interrupt: SIGINT asks the run to stop, a second one kills.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lio.h"

int cli_cancelled;

_Static_assert(CLI_UNSET == LIO_TO_END, "a --length that was not given is all");

static void on_interrupt(int sig)
{
	(void)sig;
	__atomic_store_n(&cli_cancelled, 1, __ATOMIC_RELAXED);
}

void cli_catch_interrupt(void)
{
	/* Without SA_RESTART, so that a read that waits for a pipe comes back and sees the flag. */
	struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &act, NULL);
}

/* ---- functions ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void cli_free_names(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

int cli_shipped(char ***out, size_t *n)
{
	const char *path = lio_functions_dir();
	struct dirent *ent;
	char **names = NULL;
	size_t count = 0;
	DIR *dir;

	*out = NULL;
	*n = 0;
	if (!path[0])
		return -ENOENT;
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((ent = readdir(dir)) != NULL) {
		size_t len = strlen(ent->d_name);
		char **more;

		if (ent->d_name[0] == '.' || len < 3 || strcmp(ent->d_name + len - 2, ".o") != 0)
			continue;
		more = realloc(names, (count + 1) * sizeof(*names));
		if (!more)
			goto fail;
		names = more;
		names[count] = strndup(ent->d_name, len - 2);
		if (!names[count])
			goto fail;
		count++;
	}
	closedir(dir);
	if (count)
		qsort(names, count, sizeof(*names), by_name);
	*out = names;
	*n = count;
	return 0;
fail:
	closedir(dir);
	cli_free_names(names, count);
	return -ENOMEM;
}

int cli_load(const char *name, struct lio_function **out)
{
	int err = lio_load(name, out);

	return err ? cli_fail_lib(err) : 0;
}

/* The path that lio_load() found @name at.  malloc'd; NULL if there is none, or no memory. */
static char *object_path(const char *name)
{
	size_t len = strlen(name);
	char *path;

	if (strchr(name, '/') || (len >= 2 && strcmp(name + len - 2, ".o") == 0))
		return strdup(name);
	if (asprintf(&path, "%s/%s.o", lio_functions_dir(), name) < 0)
		return NULL;
	if (access(path, F_OK) == 0 || !getenv("LIO_FUNCTIONS"))
		return path;
	/* Not in that directory: the shipped ones come next. */
	free(path);
	unsetenv("LIO_FUNCTIONS");
	return object_path(name);
}

/* A whole file, malloc'd.  0 or -errno. */
static int read_all(const char *path, uint8_t **out, size_t *len)
{
	struct lio_file *file;
	uint8_t *buf = NULL;
	int64_t size, got;
	int err = lio_open(path, O_RDONLY, 0, &file);

	if (err)
		return err;
	size = lio_size(file);
	err = size < 0 ? (int)size : 0;
	if (!err && !(buf = malloc((size_t)size + 1)))
		err = -ENOMEM;
	if (!err) {
		got = lio_pread(file, buf, (size_t)size, 0);
		err = got < 0 ? (int)got : 0;
		*len = got < 0 ? 0 : (size_t)got;
	}
	lio_close(file);
	if (err)
		free(buf);
	else
		*out = buf;
	return err;
}

int cli_load_lambda(const char *name, struct lambda_function **out)
{
	struct lambda_error lerr = {0};
	struct lio_function *fn;
	uint8_t *image = NULL;
	char *path;
	size_t len;
	int err;

	/* The library says best what is wrong with a name, or with a file that is no function. */
	if (cli_load(name, &fn))
		return CLI_FAILED;
	lio_unload(fn);
	path = object_path(name);
	err = path ? read_all(path, &image, &len) : -ENOMEM;
	free(path);
	if (err)
		return err == -ENOMEM ? cli_fail(err, CLI_FIX_MEMORY, "%s: no memory", name)
				      : cli_fail_lib(err);
	err = lambda_function_load(image, len, out, &lerr);
	free(image);
	return err ? cli_fail_text(err, lerr.text) : 0;
}

/* ---- a request ---- */

int cli_open(const char *path, struct lio_file **out)
{
	int err = lio_open(path, O_RDONLY, 0, out);

	return err ? cli_fail_lib(err) : 0;
}

static void show_trace(void *arg, const char *text, size_t len)
{
	char line[512];
	size_t n = 0;

	(void)arg;
	for (size_t i = 0; i < len && n < sizeof(line) - 1; i++)
		line[n++] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
	fprintf(stderr, "trace: %.*s\n", (int)n, line);
}

static void fill_opts(const struct cli *cli, struct cli_request *req)
{
	req->opts = (struct lio_run_opts){
		.size = sizeof(req->opts),
		.engine = (enum lio_engine)cli->engine,
		.tier = (enum lio_tier)cli->tier,
		.io = (enum lio_io)cli->io,
		.decompress = (enum lio_decompress)cli->decompress,
		.chunk = cli->chunk,
		.threads = cli->threads < UINT_MAX ? (unsigned)cli->threads : UINT_MAX,
		.fuel = cli->fuel,
		.memory = cli->memory,
		.max_output = cli->max_output,
		.timeout_ns = cli->timeout_ns,
		.cancel = &cli_cancelled,
		.progress = progress_update,
		.trace = cli->trace ? show_trace : NULL,
	};
	req->result.size = sizeof(req->result);
}

int cli_request(const struct cli *cli, size_t args, struct cli_request *req)
{
	struct lambda_error lerr = {0};
	int err;

	*req = (struct cli_request){.path = cli->words[1]};
	err = cli_load(cli->words[0], &req->fn);
	if (err)
		return err;
	req->info.size = sizeof(req->info);
	err = lio_function_info(req->fn, &req->info);
	if (err) {
		cli_fail_lib(err);
		goto fail;
	}
	err = lambda_schema_parse(req->info.output, strlen(req->info.output), true, &req->output,
				  &lerr);
	if (err) {
		cli_fail_text(err, lerr.text);
		goto fail;
	}
	fill_opts(cli, req);
	err = lio_args(req->fn, (const char *const *)cli->words + args, cli->n_words - args,
		       &req->arg, &req->opts.arg_len);
	if (err) {
		cli_fail_lib(err);
		goto fail;
	}
	req->opts.arg = req->arg;
	if (cli_open(req->path, &req->file))
		goto fail;
	return 0;
fail:
	cli_request_free(req);
	return CLI_FAILED;
}

void cli_request_free(struct cli_request *req)
{
	if (req->file)
		lio_close(req->file);
	lambda_schema_free(&req->output);
	if (req->fn)
		lio_unload(req->fn);
	free(req->arg);
	*req = (struct cli_request){0};
}

void cli_trace_note(const struct cli *cli, const struct cli_request *req)
{
	if (cli->trace && req->result.engine == LIO_ENGINE_DEVICE)
		fputs("trace: none comes from a server; --engine user shows it\n", stderr);
}

int cli_fail_run(int err)
{
	progress_end();
	if (err == -ECANCELED && cli_cancelled)
		return CLI_INTERRUPTED;
	return cli_fail_lib(err);
}

static int drop(void *arg, const void *p, size_t len)
{
	(void)arg;
	(void)p;
	(void)len;
	return 0;
}

int cli_run_dropped(const struct cli *cli, struct cli_request *req)
{
	struct lio_sink sink = {.size = sizeof(sink), .write = drop, .stream = true};
	int err;

	req->result = (struct lio_result){.size = sizeof(req->result)};
	progress_begin(cli);
	err = lio_lambda_scan(req->file, req->fn, cli->offset, cli->length, &req->opts, &sink,
			      &req->result);
	progress_end();
	cli_trace_note(cli, req);
	return err ? cli_fail_run(err) : 0;
}
