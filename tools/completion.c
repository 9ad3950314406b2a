/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion.c - lio completion: what shells complete and what the manual says of the commands, made from
 * the tables so that neither can fall behind them.
 */
#include <errno.h>
#include <string.h>

#include "lio.h"

static bool takes(int command, const struct cli_option *opt)
{
	return opt->commands & (1u << command);
}

/* "a|b|c" with spaces. */
static void put_choices(const char *choices)
{
	for (; *choices; choices++)
		putchar(*choices == '|' ? ' ' : *choices);
}

/* Text within '…' of a shell. */
static void put_quoted(const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	}
}

/* ---- bash ---- */

static void bash_values(void)
{
	const char *done = "";

	for (size_t i = 0; i < cli_n_options; i++) {
		const struct cli_option *opt = &cli_options[i];

		if (opt->kind != CLI_CHOICE || strcmp(done, opt->name) == 0)
			continue;
		done = opt->name;
		printf("\t--%s) COMPREPLY=($(compgen -W '", opt->name);
		put_choices(opt->value);
		puts("' -- \"$cur\")); return ;;");
	}
}

static void bash(void)
{
	puts("# bash completion of lio, made by \"lio completion bash\"\n"
	     "_lio()\n{\n"
	     "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} options=\n"
	     "\tCOMPREPLY=()");
	fputs("\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tCOMPREPLY=($(compgen -W '", stdout);
	for (int c = 0; c < CLI_COMMANDS; c++)
		if (!cli_commands[c].hidden)
			printf("%s ", cli_commands[c].name);
	puts("--help --version' -- \"$cur\"))\n\t\treturn\n\tfi\n\tcase $prev in");
	bash_values();
	puts("\tesac\n\tcase ${COMP_WORDS[1]} in");
	for (int c = 0; c < CLI_COMMANDS; c++) {
		printf("\t%s) options='", cli_commands[c].name);
		for (size_t i = 0; i < cli_n_options; i++)
			if (takes(c, &cli_options[i]))
				printf("--%s ", cli_options[i].name);
		puts("--help' ;;");
	}
	fputs("\tesac\n"
	      "\tif [[ $cur == -* ]]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
	      "\telif [ \"$COMP_CWORD\" -eq 2 ] && [[ ${COMP_WORDS[1]} == @(",
	      stdout);
	for (int c = 0, n = 0; c < CLI_COMMANDS; c++)
		if (cli_commands[c].function)
			printf("%s%s", n++ ? "|" : "", cli_commands[c].name);
	puts(") ]]; then\n"
	     "\t\tCOMPREPLY=($(compgen -W \"$(lio completion functions 2>/dev/null)\" -- "
	     "\"$cur\")\n"
	     "\t\t\t$(compgen -f -X '!*.o' -- \"$cur\"))\n"
	     "\tfi\n}\n"
	     "complete -o bashdefault -o default -F _lio lio");
}

/* ---- zsh ---- */

static void zsh_option(const struct cli_option *opt)
{
	printf("\t\t'--%s[", opt->name);
	for (const char *p = opt->help; *p; p++) { /* brackets and colons mean something there */
		if (*p == '[' || *p == ']' || *p == ':')
			putchar('\\');
		if (*p == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*p);
	}
	putchar(']');
	if (opt->kind == CLI_CHOICE) {
		printf(":%s:(", opt->name);
		put_choices(opt->value);
		putchar(')');
	} else if (opt->value) {
		printf(":%s:", opt->value);
	}
	puts("' \\");
}

static void zsh(void)
{
	puts("#compdef lio\n"
	     "# zsh completion of lio, made by \"lio completion zsh\"\n"
	     "_lio_functions() {\n"
	     "\tlocal -a names\n"
	     "\tnames=(${(f)\"$(lio completion functions 2>/dev/null)\"})\n"
	     "\t_describe function names\n"
	     "\t_files -g '*.o'\n}\n"
	     "_lio() {\n"
	     "\tlocal -a commands\n"
	     "\tcommands=(");
	for (int c = 0; c < CLI_COMMANDS; c++) {
		if (cli_commands[c].hidden)
			continue;
		printf("\t\t'%s:", cli_commands[c].name);
		put_quoted(cli_commands[c].summary);
		puts("'");
	}
	puts("\t)\n"
	     "\tif (( CURRENT == 2 )); then\n"
	     "\t\t_describe command commands\n"
	     "\t\treturn\n"
	     "\tfi\n"
	     "\tlocal command=$words[2]\n"
	     "\tshift words\n"
	     "\t(( CURRENT-- ))\n"
	     "\tcase $command in");
	for (int c = 0; c < CLI_COMMANDS; c++) {
		if (cli_commands[c].hidden)
			continue;
		printf("\t%s) _arguments \\\n", cli_commands[c].name);
		for (size_t i = 0; i < cli_n_options; i++)
			if (takes(c, &cli_options[i]))
				zsh_option(&cli_options[i]);
		printf("\t\t'--help[how to use it]' \\\n\t\t'1:%s' '*:file:_files' ;;\n",
		       c == CLI_CC                ? "source:_files"
		       : cli_commands[c].function ? "function:_lio_functions"
						  : "file:_files");
	}
	puts("\tesac\n}\n_lio \"$@\"");
}

/* ---- fish ---- */

static void fish_option(int command, const struct cli_option *opt)
{
	printf("complete -c lio -n '__fish_seen_subcommand_from %s' -l %s -d '",
	       cli_commands[command].name, opt->name);
	put_quoted(opt->help);
	putchar('\'');
	if (opt->kind == CLI_CHOICE) {
		fputs(" -x -a '", stdout);
		put_choices(opt->value);
		putchar('\'');
	} else if (opt->value) {
		fputs(" -r", stdout);
	}
	putchar('\n');
}

static void fish(void)
{
	puts("# fish completion of lio, made by \"lio completion fish\"\n"
	     "function __lio_word; test (count (commandline -opc)) -eq $argv[1]; end");
	for (int c = 0; c < CLI_COMMANDS; c++) {
		if (cli_commands[c].hidden)
			continue;
		printf("complete -c lio -n '__lio_word 1' -f -a %s -d '", cli_commands[c].name);
		put_quoted(cli_commands[c].summary);
		puts("'");
		if (cli_commands[c].function)
			printf("complete -c lio -n '__lio_word 2; and __fish_seen_subcommand_from "
			       "%s' "
			       "-a '(lio completion functions 2>/dev/null)'\n",
			       cli_commands[c].name);
		for (size_t i = 0; i < cli_n_options; i++)
			if (takes(c, &cli_options[i]))
				fish_option(c, &cli_options[i]);
	}
}

/* ---- the manual's COMMANDS section, in scdoc's notation ---- */

/* What scdoc would take for markup is escaped; @begins: a line does. */
static void put_scdoc(const char *text, bool begins)
{
	for (size_t i = 0; text[i]; i++) {
		if (strchr("\\*_", text[i]) || (begins && strchr("-#[|]`", text[i])))
			putchar('\\');
		putchar(text[i]);
		begins = text[i] == '\n';
	}
}

static void scdoc_option(const struct cli_option *opt)
{
	printf("*--%s*", opt->name);
	if (opt->value) {
		fputs(" _", stdout);
		put_scdoc(opt->value, false);
		putchar('_');
	}
	fputs("\n\t", stdout);
	put_scdoc(opt->help, true);
	puts(".\n");
}

static void scdoc_examples(const char *lines)
{
	puts("```");
	while (*lines) {
		size_t n = strcspn(lines, "\n");

		printf("%.*s\n", (int)n, lines);
		lines += n + (lines[n] == '\n');
	}
	puts("```\n");
}

static void manual(void)
{
	puts("# COMMANDS\n");
	for (int c = 0; c < CLI_COMMANDS; c++) {
		const struct cli_command_row *row = &cli_commands[c];

		if (row->hidden)
			continue;
		printf("## lio %s ", row->name);
		put_scdoc(row->usage, false);
		puts("\n");
		put_scdoc(row->about, true);
		puts("");
		for (size_t i = 0; i < cli_n_options; i++)
			if (takes(c, &cli_options[i]))
				scdoc_option(&cli_options[i]);
		scdoc_examples(row->examples);
	}
}

static void functions(void)
{
	char **names;
	size_t n;

	cli_shipped(&names, &n);
	for (size_t i = 0; i < n; i++)
		puts(names[i]);
	cli_free_names(names, n);
}

int cmd_completion(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} kinds[] = {{"bash", bash},
		     {"zsh", zsh},
		     {"fish", fish},
		     {"man", manual},
		     {"functions", functions}};
	struct cli cli;

	if (cli_parse(CLI_COMPLETION, argc, argv, &cli) || cli_words(CLI_COMPLETION, &cli, 1, 1))
		return CLI_FAILED;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].name, cli.words[0]) == 0) {
			kinds[i].print();
			return cli_flush();
		}
	}
	return cli_fail(EINVAL, "usage: lio completion bash|zsh|fish|man|functions",
			"completion: \"%s\" is not known", cli.words[0]);
}
