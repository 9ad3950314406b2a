/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_explain.c - lio explain: a run whose decisions and costs are printed instead of its output.
 */
#include <string.h>

#include "lio.h"

static int print(const struct cli *cli, const struct cli_request *req,
		 const struct cli_facts *facts)
{
	json_object *doc;

	if (!cli->json) {
		cli_explain(stdout, cli, req, facts);
		return cli_flush();
	}
	doc = json_object_new_object();
	json_object_object_add(doc, "schema", json_object_new_string("lio-explain/1"));
	json_object_object_add(doc, "function",
			       cli_json_text(req->info.name, strlen(req->info.name)));
	json_object_object_add(doc, "file", cli_json_text(req->path, strlen(req->path)));
	json_object_object_add(doc, "explain", cli_explain_json(cli, req, facts));
	json_object_object_add(doc, "result", cli_result_json(&req->result));
	return cli_print_json(doc);
}

int cmd_explain(int argc, char **argv)
{
	struct cli_request req;
	struct cli_facts facts;
	struct cli cli;
	int status;

	if (cli_parse(CLI_EXPLAIN, argc, argv, &cli) || cli_words(CLI_EXPLAIN, &cli, 2, SIZE_MAX) ||
	    cli_request(&cli, 2, &req))
		return CLI_FAILED;
	cli_facts(req.path, cli.offset, cli.length, &facts);
	cli_catch_interrupt();
	status = cli_run_dropped(&cli, &req);
	if (!status)
		status = print(&cli, &req, &facts);
	cli_request_free(&req);
	return status;
}
