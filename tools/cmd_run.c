/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_run.c - lio run: λ-read over a range of a file, the output printed once the run succeeded.
 */
#include <errno.h>
#include <string.h>

#include "lio.h"

static json_object *head(const struct cli_request *req)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_string("lio-run/1"));
	json_object_object_add(o, "function",
			       cli_json_text(req->info.name, strlen(req->info.name)));
	json_object_object_add(o, "file", cli_json_text(req->path, strlen(req->path)));
	return o;
}

/* A failed print is standard output's error, or the function's: its output is no whole row. */
static int fail_print(const struct cli_request *req, int err)
{
	if (err == -EBADMSG)
		return cli_fail(err, "a row function must return whole rows",
				"%s: its output is not rows of \"%s\"", req->info.name,
				req->info.output);
	if (err == -ENOMEM)
		return cli_fail(err, "use --raw", "%s: no memory for a row or line of the output",
				req->info.name);
	return cli_fail_stdout(err);
}

static int finish(const struct cli *cli, const struct cli_request *req,
		  const struct cli_facts *facts, struct printer *p)
{
	json_object *tail = NULL;
	int err;

	if (cli->json) {
		tail = json_object_new_object();
		json_object_object_add(tail, "result", cli_result_json(&req->result));
		if (cli->explain)
			json_object_object_add(tail, "explain", cli_explain_json(cli, req, facts));
	}
	err = printer_end(p, tail);
	json_object_put(tail);
	if (err)
		return fail_print(req, err);
	if (cli->explain && !cli->json)
		cli_explain(stderr, cli, req, facts);
	return printer_any(p) ? CLI_DONE : CLI_NOTHING;
}

static int run(const struct cli *cli, struct cli_request *req)
{
	struct lio_sink sink = {.size = sizeof(sink), .write = printer_write};
	struct cli_facts facts;
	struct printer *p;
	int err, status;

	if (cli->explain)
		cli_facts(req->path, cli->offset, cli->length, &facts);
	err = printer_new(cli_print_mode(cli, req->output.shape), &req->output,
			  cli->json ? head(req) : NULL, stdout, &p);
	if (err)
		return cli_fail(err, CLI_FIX_MEMORY, "run: no memory");
	sink.arg = p;
	cli_catch_interrupt();
	progress_begin(cli);
	err = lio_lambda_scan(req->file, req->fn, cli->offset, cli->length, &req->opts, &sink,
			      &req->result);
	cli_trace_note(cli, req);
	if (printer_error(p))
		status = fail_print(req, printer_error(p));
	else
		status = err ? cli_fail_run(err) : finish(cli, req, &facts, p);
	printer_free(p);
	return status;
}

int cmd_run(int argc, char **argv)
{
	struct cli_request req;
	struct cli cli;
	int status;

	if (cli_parse(CLI_RUN, argc, argv, &cli) || cli_words(CLI_RUN, &cli, 2, SIZE_MAX))
		return CLI_FAILED;
	if (cli.raw && cli.json)
		return cli_fail(EINVAL, "choose one", "run: --raw and --json exclude each other");
	if (cli_request(&cli, 2, &req))
		return CLI_FAILED;
	status = run(&cli, &req);
	cli_request_free(&req);
	return status;
}
