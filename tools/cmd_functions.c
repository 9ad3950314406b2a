/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_functions.c - lio functions: the shipped functions, a line each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lio.h"

#define COLUMNS 4u

static const char *kind_name(enum lio_kind kind)
{
	return lambda_kind_name((enum lambda_kind)kind);
}

static int load(const char *name, struct lio_function **fn, struct lio_function_info *info)
{
	*info = (struct lio_function_info){.size = sizeof(*info)};
	if (cli_load(name, fn))
		return CLI_FAILED;
	lio_function_info(*fn, info);
	return 0;
}

static json_object *row_json(const char *name, const struct lio_function_info *info)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "name", cli_json_text(name, strlen(name)));
	json_object_object_add(o, "kind", json_object_new_string(kind_name(info->kind)));
	json_object_object_add(o, "arguments", cli_json_text(info->args, strlen(info->args)));
	json_object_object_add(o, "output", cli_json_text(info->output, strlen(info->output)));
	json_object_object_add(o, "doc", cli_json_text(info->doc, strlen(info->doc)));
	return o;
}

static int list_json(char **names, size_t n)
{
	json_object *doc = json_object_new_object(), *rows = json_object_new_array();
	const char *dir = lio_functions_dir();
	struct lio_function_info info;
	struct lio_function *fn;
	int status = 0;

	json_object_object_add(doc, "schema", json_object_new_string("lio-functions/1"));
	json_object_object_add(doc, "directory", cli_json_text(dir, strlen(dir)));
	for (size_t i = 0; i < n; i++) {
		if (load(names[i], &fn, &info)) {
			status = CLI_FAILED;
			continue;
		}
		json_object_array_add(rows, row_json(names[i], &info));
		lio_unload(fn);
	}
	json_object_object_add(doc, "functions", rows);
	return cli_print_json(doc) ? CLI_FAILED : status;
}

static int list_text(char **names, size_t n)
{
	char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	static const char *const title[COLUMNS] = {"function", "kind", "arguments", "does"};
	struct lio_function_info info;
	struct lio_function *fn;
	size_t rows = 1;
	int status = 0;

	if (!cells)
		return cli_fail(ENOMEM, CLI_FIX_MEMORY, "functions: no memory");
	for (size_t c = 0; c < COLUMNS; c++)
		cells[c] = cli_strdup(title[c]);
	for (size_t i = 0; i < n; i++) {
		char **row = cells + rows * COLUMNS;

		if (load(names[i], &fn, &info)) {
			status = CLI_FAILED;
			continue;
		}
		row[0] = cli_strdup(names[i]);
		row[1] = cli_strdup(kind_name(info.kind));
		row[2] = cli_strdup(info.args[0] ? info.args : "-");
		row[3] = cli_strdup(info.doc);
		rows++;
		lio_unload(fn);
	}
	print_aligned(stdout, cells, NULL, rows, COLUMNS);
	cli_free_names(cells, rows * COLUMNS);
	return cli_flush() ? CLI_FAILED : status;
}

int cmd_functions(int argc, char **argv)
{
	struct cli cli;
	char **names;
	size_t n;
	int err, status;

	if (cli_parse(CLI_FUNCTIONS, argc, argv, &cli) || cli_words(CLI_FUNCTIONS, &cli, 0, 0))
		return CLI_FAILED;
	err = cli_shipped(&names, &n);
	if (err)
		return cli_fail(err, "set LIO_FUNCTIONS to the directory of the functions' objects",
				"functions: %s: %s",
				lio_functions_dir()[0] ? lio_functions_dir() : "directory",
				lio_functions_dir()[0] ? strerror(-err) : "none is installed");
	status = cli.json ? list_json(names, n) : list_text(names, n);
	cli_free_names(names, n);
	return status ? status : n ? CLI_DONE : CLI_NOTHING;
}
