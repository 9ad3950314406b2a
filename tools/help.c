/* SPDX-License-Identifier: Apache-2.0 */
/*
 * help.c - "lio --help" and "lio COMMAND --help", made from the tables.
 */
#include <ctype.h>
#include <string.h>

#include "lio.h"

static void indented(FILE *to, const char *lines)
{
	while (*lines) {
		size_t n = strcspn(lines, "\n");

		fprintf(to, "  %.*s\n", (int)n, lines);
		lines += n + (lines[n] == '\n');
	}
}

void cli_help(FILE *to)
{
	fputs("lio runs small C functions over files, safely, where the data is.\n"
	      "\n"
	      "A function is one object file of BPF bytecode. It reads a file's records and "
	      "returns\n"
	      "only its answer: matching lines, a sum, a hash. It cannot touch anything else.\n"
	      "\n"
	      "Examples:\n"
	      "  lio run grep /etc/services tcp          # lines that contain \"tcp\"\n"
	      "  lio run sha256 /bin/sh                  # hash of a whole file\n"
	      "  lio cc mine.c -o mine.o && lio run ./mine.o data   # a function of your own\n"
	      "\n"
	      "Commands:\n",
	      to);
	for (int i = 0; i < CLI_COMMANDS; i++)
		if (!cli_commands[i].hidden)
			fprintf(to, "  %-10s %s\n", cli_commands[i].name, cli_commands[i].summary);
	fputs("\n"
	      "Exit status: 0 done; 1 done and nothing found; 2 failed, and one line on stderr "
	      "says\n"
	      "what, why, and what to do about it; 130 interrupted.\n"
	      "\n"
	      "Read on: \"lio COMMAND --help\", \"lio functions\", lio(1), lambda-function(7) for "
	      "writing\n"
	      "functions, docs/cli.md for the JSON documents.\n",
	      to);
}

/* Columns that a text takes: the tables hold UTF-8. */
static int wide(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

void cli_help_command(enum cli_command command, FILE *to)
{
	const struct cli_command_row *row = &cli_commands[command];
	bool title = false;

	fprintf(to, "Usage: lio %s %s\n\n%c%s.\n\n%s", row->name, row->usage,
		toupper((unsigned char)row->summary[0]), row->summary + 1, row->about);
	for (size_t i = 0; i < cli_n_options; i++) {
		const struct cli_option *opt = &cli_options[i];
		int used = 4 + wide(opt->name);

		if (!(opt->commands & (1u << command)))
			continue;
		if (!title)
			fputs("\nOptions:\n", to);
		title = true;
		fprintf(to, "  --%s", opt->name);
		if (opt->value) {
			fprintf(to, " %s", opt->value);
			used += 1 + wide(opt->value);
		}
		if (used > 36) {
			fputc('\n', to);
			used = 0;
		}
		fprintf(to, "%*s%s\n", 38 - used, "", opt->help);
	}
	if (title)
		fputs("\nBYTES take K, M, G, T (1024 each); TIME takes ms, s, m. Options may stand "
		      "anywhere;\n"
		      "\"--\" ends them.\n",
		      to);
	fputs("\nExamples:\n", to);
	indented(to, row->examples);
}
