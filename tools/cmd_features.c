/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_features.c - lio features: what this machine can do, and what is missing for the rest.
 */
#include <string.h>

#include "lio.h"

int cmd_features(int argc, char **argv)
{
	json_object *doc = NULL, *rows = NULL;
	struct lio_feature f;
	struct cli cli;

	if (cli_parse(CLI_FEATURES, argc, argv, &cli) || cli_words(CLI_FEATURES, &cli, 0, 0))
		return CLI_FAILED;
	if (cli.json) {
		doc = json_object_new_object();
		rows = json_object_new_array();
		json_object_object_add(doc, "schema", json_object_new_string("lio-features/1"));
		json_object_object_add(doc, "version", json_object_new_string(lio_version()));
		json_object_object_add(doc, "features", rows);
	}
	for (unsigned i = 0; lio_feature(i, &f) == 0; i++) {
		if (cli.json) {
			json_object *o = json_object_new_object();

			json_object_object_add(o, "name", json_object_new_string(f.name));
			json_object_object_add(o, "available",
					       json_object_new_boolean(f.available));
			json_object_object_add(o, "missing",
					       cli_json_text(f.missing, strlen(f.missing)));
			json_object_array_add(rows, o);
		} else {
			printf(f.missing[0] ? "%-24s %-4s %s\n" : "%-24s %s\n", f.name,
			       f.available ? "yes" : "no", f.missing);
		}
	}
	return cli.json ? cli_print_json(doc) : cli_flush();
}
