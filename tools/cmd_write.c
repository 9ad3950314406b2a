/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_write.c - lio write: λ-write of one file's bytes into another.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lio.h"

/* Open FILE to write; *made says that it did not exist before. */
static int open_target(const char *path, struct lio_file **out, bool *made)
{
	struct stat st;
	int err;

	*made = false;
	if (strcmp(path, "-") == 0 ||
	    (!cli_is_url(path) && stat(path, &st) == 0 && S_ISFIFO(st.st_mode)))
		return cli_fail(ESPIPE, "use lio run and a redirection",
				"write: %s: a stream has no offset to write at", path);
	err = lio_open(path, O_WRONLY, 0, out);
	if (err == -ENOENT) {
		err = lio_open(path, O_WRONLY | O_CREAT, 0666, out);
		*made = err == 0;
	}
	return err ? cli_fail_lib(err) : 0;
}

/* A file that this run made and never wrote to is not left behind. */
static void remove_empty(const char *path)
{
	struct lio_stat there = {.size = sizeof(there)};
	struct stat st;

	if (cli_is_url(path)) {
		if (lio_stat(path, &there) == 0 && there.type == LIO_TYPE_FILE && !there.bytes)
			lio_remove(path);
		return;
	}
	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
		unlink(path);
}

static int report(const struct cli *cli, const struct cli_request *req, const char *target,
		  const struct cli_facts *facts)
{
	json_object *doc;

	if (!cli->json) {
		if (cli->explain)
			cli_explain(stderr, cli, req, facts);
		return 0;
	}
	doc = json_object_new_object();
	json_object_object_add(doc, "schema", json_object_new_string("lio-write/1"));
	json_object_object_add(doc, "function",
			       cli_json_text(req->info.name, strlen(req->info.name)));
	json_object_object_add(doc, "input", cli_json_text(req->path, strlen(req->path)));
	json_object_object_add(doc, "file", cli_json_text(target, strlen(target)));
	json_object_object_add(doc, "offset", json_object_new_uint64(cli->offset));
	json_object_object_add(doc, "result", cli_result_json(&req->result));
	if (cli->explain)
		json_object_object_add(doc, "explain", cli_explain_json(cli, req, facts));
	return cli_print_json(doc);
}

static int write_to(const struct cli *cli, struct cli_request *req, const char *target)
{
	struct cli_facts facts;
	struct lio_file *file;
	bool made;
	int err, status;

	if (cli->explain)
		cli_facts(req->path, 0, LIO_TO_END, &facts);
	if (open_target(target, &file, &made))
		return CLI_FAILED;
	cli_catch_interrupt();
	progress_begin(cli);
	err = lio_lambda_write(file, cli->offset, req->fn, req->file, 0, LIO_TO_END, &req->opts,
			       &req->result);
	progress_end();
	cli_trace_note(cli, req);
	status = err ? cli_fail_run(err) : report(cli, req, target, &facts);
	if (err && made)
		remove_empty(target);
	err = lio_close(file);
	if (err && status == CLI_DONE)
		status = cli_fail_lib(err);
	if (status == CLI_DONE && !req->result.bytes_out)
		status = CLI_NOTHING;
	return status;
}

int cmd_write(int argc, char **argv)
{
	struct cli_request req;
	const char *target;
	struct cli cli;
	int status;

	if (cli_parse(CLI_WRITE, argc, argv, &cli) || cli_words(CLI_WRITE, &cli, 3, SIZE_MAX))
		return CLI_FAILED;
	target = cli.words[2];
	if (cli_request(&cli, 3, &req))
		return CLI_FAILED;
	status = write_to(&cli, &req, target);
	cli_request_free(&req);
	return status;
}
