/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbpf.c - the runtime on its own: verify, run, disassemble, measure BPF programs.
 *
 * Owns: the command and option tables, error lines, and every command but bench (sbpf_bench.c).
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf.h"

/* ---- commands ---- */

enum {
	OPT_ENTRY,
	OPT_TIER,
	OPT_FUEL,
	OPT_MEMORY,
	OPT_JSON,
	OPT_HELP,
};
#define MAY(opt) (1u << OPT_##opt)

/* clang-format off */
static const struct {
	struct option option;
	const char *help;
} options[] = {
	[OPT_ENTRY] = {{"entry", required_argument, NULL, OPT_ENTRY},
		"--entry NAME   which function, where the object has several"},
	[OPT_TIER] = {{"tier", required_argument, NULL, OPT_TIER},
		"--tier TIER    auto, interp, template, llvm or kernel (default: auto, the best here)"},
	[OPT_FUEL] = {{"fuel", required_argument, NULL, OPT_FUEL},
		"--fuel N       instructions it may take (default: 34,359,738,368)"},
	[OPT_MEMORY] = {{"memory", required_argument, NULL, OPT_MEMORY},
		"--memory FILE  the memory that r1 and r2 describe (\"-\": standard input)"},
	[OPT_JSON] = {{"json", no_argument, NULL, OPT_JSON},
		"--json         one JSON document, schema sbpf-bench/1"},
	[OPT_HELP] = {{"help", no_argument, NULL, OPT_HELP},
		"--help         this text"},
};
/* clang-format on */
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static int cmd_verify(const struct tool_opts *opts);
static int cmd_run(const struct tool_opts *opts);
static int cmd_disasm(const struct tool_opts *opts);
static int cmd_plugin(const struct tool_opts *opts);

struct command {
	const char *name;
	const char *usage;
	const char *summary;
	const char *about;
	const char *examples;
	unsigned options;
	int min_words, max_words;
	int (*run)(const struct tool_opts *opts);
};

/* clang-format off */
static const struct command commands[] = {
	{
		.name = "verify",
		.usage = "F.o",
		.summary = "check an object; say what it needs, or why it is refused",
		.about =
"Loads, links and verifies a BPF object as every other command does, and prints its\n"
"size, stack, helpers and entries.\n",
		.examples =
"sbpf verify build/functions/grep.o",
		.min_words = 1,
		.max_words = 1,
		.run = cmd_verify,
	},
	{
		.name = "run",
		.usage = "F.o [MEMORY-HEX]",
		.summary = "run an entry over some memory and print r0",
		.about =
"r1 is the address of the memory and r2 its length in bytes, both 0 without any.  r0 is\n"
"printed in hexadecimal.\n",
		.examples =
"sbpf run sum.o 0102030405060708\n"
"sbpf run sum.o --entry sum --tier interp --memory data.bin",
		.options = MAY(ENTRY) | MAY(TIER) | MAY(FUEL) | MAY(MEMORY),
		.min_words = 1,
		.max_words = 2,
		.run = cmd_run,
	},
	{
		.name = "disasm",
		.usage = "F.o",
		.summary = "print the linked program, an instruction a line",
		.about =
"Shows the program as the runtime sees it: addresses and helpers resolved, with the\n"
"source lines that the object knows.\n",
		.examples =
"sbpf disasm build/functions/grep.o",
		.min_words = 1,
		.max_words = 1,
		.run = cmd_disasm,
	},
	{
		.name = "bench",
		.usage = "F.o FILE [NAME=VALUE | VALUE]...",
		.summary = "measure an entry over 1 MiB of warm memory",
		.about =
"Takes the first MiB of FILE (repeated if it is shorter), runs the entry over it again and\n"
"again, and prints the best and the median time in nanoseconds a byte, the time it took to\n"
"compile and the size of the code.  A plain entry gets the address and the length; a\n"
"λ-function its context, with these arguments.  Fuel is counted.\n",
		.examples =
"sbpf bench build/functions/stats64.o /bin/sh\n"
"sbpf bench build/functions/grep.o /etc/services tcp\n"
"sbpf bench sum.o data.bin --tier template --json",
		.options = MAY(ENTRY) | MAY(TIER) | MAY(FUEL) | MAY(JSON),
		.min_words = 2,
		.max_words = INT_MAX,
		.run = tool_bench,
	},
	{
		.name = "plugin",
		.usage = "[MEMORY-HEX]",
		.summary = "run a program given in hex on standard input (for conformance runners)",
		.about =
"The convention of BPF conformance suites: the program's instructions come as hex digits\n"
"(white space is ignored), r1 and r2 are the memory's address and length, and r0 is printed\n"
"in hex without 0x.  Helper 5 is the suites' \"unwind\": it returns its argument.\n",
		.examples =
"echo 'b7 00 00 00 2a 00 00 00  95 00 00 00 00 00 00 00' | sbpf plugin",
		.options = MAY(TIER) | MAY(FUEL),
		.max_words = 1,
		.run = cmd_plugin,
	},
};
/* clang-format on */
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* ---- errors and input ---- */

/* One line stays one line, whatever a file's name holds. */
static void put_printable(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		fputc((unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i], stderr);
}

int tool_fail(const char *what, int err, const char *text)
{
	const char *name = strerrorname_np(abs(err)), *fix = NULL;
	size_t why;

	for (const char *p = text; (p = strstr(p, "; ")); p++)
		fix = p;
	why = fix ? (size_t)(fix - text) : strlen(text);
	fputs("sbpf: ", stderr);
	put_printable(what, strlen(what));
	fputs(": ", stderr);
	put_printable(text, why);
	fprintf(stderr, " (%s)", name ? name : "EIO");
	put_printable(text + why, strlen(text + why));
	if (!fix)
		fprintf(stderr, "; %s",
			abs(err) == ENOEXEC  ? "compile it again with clang 14 to 19"
			: abs(err) == ENOMEM ? "free some memory"
					     : "see \"sbpf --help\"");
	fputc('\n', stderr);
	return TOOL_FAILED;
}

static int fail_usage(const struct command *cmd, const char *what, const char *why)
{
	char text[160];

	snprintf(text, sizeof(text), "%s; see \"sbpf %s%s--help\"", why, cmd ? cmd->name : "",
		 cmd ? " " : "");
	return tool_fail(what, EINVAL, text);
}

static int read_stream(FILE *f, uint8_t **out, size_t *len)
{
	size_t room = 0;

	*out = NULL;
	*len = 0;
	do {
		if (*len == room) {
			uint8_t *more;

			room = room ? 2 * room : 65536;
			more = realloc(*out, room);
			if (!more)
				return -ENOMEM;
			*out = more;
		}
		*len += fread(*out + *len, 1, room - *len, f);
	} while (*len == room);
	return ferror(f) ? -errno : 0;
}

int tool_read(const char *path, uint8_t **out, size_t *len)
{
	FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
	char text[128];
	int r;

	*out = NULL;
	r = f ? read_stream(f, out, len) : -errno;
	if (f && f != stdin)
		fclose(f);
	if (!r)
		return 0;
	free(*out);
	*out = NULL;
	snprintf(text, sizeof(text), "%s; check the path", strerror(-r));
	return tool_fail(path, r, text);
}

static int hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = tolower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode @len characters in place; white space may stand anywhere.  The bytes, or -1. */
static int64_t decode_hex(const uint8_t *text, size_t len, uint8_t *out)
{
	size_t digits = 0;

	for (size_t i = 0; i < len; i++) {
		int digit = hex_digit(text[i]);

		if (isspace(text[i]))
			continue;
		if (digit < 0)
			return -1;
		out[digits / 2] = (uint8_t)(digits % 2 ? out[digits / 2] | digit : digit << 4);
		digits++;
	}
	return digits % 2 ? -1 : (int64_t)(digits / 2);
}

/* Hex from the command line; *out is to be freed. */
static int hex_argument(const char *text, uint8_t **out, size_t *len)
{
	int64_t n;

	*out = malloc(strlen(text) + 1);
	if (!*out)
		return tool_fail("memory", ENOMEM, "no memory for it");
	n = decode_hex((const uint8_t *)text, strlen(text), *out);
	if (n < 0) {
		free(*out);
		return tool_fail(
			text, EINVAL,
			"this is not hexadecimal; give two digits a byte, or --memory FILE");
	}
	*len = (size_t)n;
	return 0;
}

/* ---- programs ---- */

static int load(const char *path, struct sbpf_program **prog)
{
	struct sbpf_error err;
	uint8_t *image;
	size_t len;
	int r = tool_read(path, &image, &len);

	if (r)
		return r;
	r = sbpf_program_from_elf(image, len, NULL, prog, &err);
	free(image);
	return r ? tool_fail(path, r, err.text) : 0;
}

int tool_entry(const char *path, const struct sbpf_program *prog, const char *name)
{
	unsigned int n = sbpf_program_entries(prog);
	int i = name ? sbpf_program_entry_find(prog, name) : n == 1 ? 0 : -1;
	char text[512];
	size_t at;

	if (i >= 0)
		return i;
	if (name)
		at = (size_t)snprintf(text, sizeof(text), "it has no entry %.64s", name);
	else
		at = (size_t)snprintf(text, sizeof(text), "it has %u entries", n);
	at += (size_t)snprintf(text + at, sizeof(text) - at, "; choose with --entry from");
	for (unsigned int e = 0; e < n && at < sizeof(text) - 80; e++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s %.64s", e ? "," : "",
				       sbpf_program_entry_name(prog, e));
	tool_fail(path, EINVAL, text);
	return -1;
}

/* Put the memory in the input window and run; r0 goes to *r0. */
static int run(const char *what, struct sbpf_program *prog, const struct tool_opts *opts, int entry,
	       const uint8_t *memory, size_t len, uint64_t *r0)
{
	struct sbpf_call call = {.size = sizeof(call),
				 .tier = opts->tier,
				 .entry = (unsigned int)entry,
				 .r1 = len ? sbpf_window_offset(SBPF_WIN_IN) : 0,
				 .r2 = len,
				 .fuel = opts->fuel};
	struct sbpf_error err = {.text = "no memory for a sandbox"};
	struct sbpf_sandbox *sb;
	int r = sbpf_sandbox_get_for(prog, opts->tier, &sb);

	if (r)
		return tool_fail(what, r, err.text);
	r = sbpf_sandbox_resize(sb, SBPF_WIN_IN, len);
	if (r) {
		snprintf(err.text, sizeof(err.text), "the memory has %zu bytes; the limit is %llu",
			 len, (unsigned long long)sbpf_window_max(SBPF_WIN_IN));
	} else {
		if (len)
			memcpy(sbpf_sandbox_ptr(sb, SBPF_WIN_IN), memory, len);
		r = sbpf_run(sb, &call, &err);
	}
	sbpf_sandbox_put(sb);
	*r0 = call.r0;
	return r ? tool_fail(what, r, err.text) : 0;
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static int cmd_verify(const struct tool_opts *opts)
{
	struct sbpf_program_info info = {.size = sizeof(info)};
	struct sbpf_program *prog;
	const char *name;
	int r = load(opts->words[0], &prog);

	if (r)
		return r;
	sbpf_program_info(prog, &info);
	printf("%s: ok\n  %u instruction%s, %u function%s\n", opts->words[0], info.insns,
	       plural(info.insns), info.functions, plural(info.functions));
	printf("  %u byte%s of stack, calls %u deep\n", info.stack_bytes, plural(info.stack_bytes),
	       info.call_depth);
	printf("  %llu byte%s of constants, %llu of globals\n",
	       (unsigned long long)info.rodata_bytes, plural(info.rodata_bytes),
	       (unsigned long long)info.data_bytes);
	for (unsigned int i = 0; i < sbpf_program_entries(prog); i++)
		printf("  entry %s (%s)\n", sbpf_program_entry_name(prog, i),
		       sbpf_program_entry_section(prog, i));
	for (unsigned int bit = 0; (name = sbpf_helper_name(bit)); bit++)
		if (info.helpers >> bit & 1)
			printf("  helper %s\n", name);
	sbpf_program_unref(prog);
	return TOOL_DONE;
}

static int cmd_run(const struct tool_opts *opts)
{
	struct sbpf_program *prog;
	uint8_t *memory = NULL;
	size_t len = 0;
	uint64_t r0;
	int entry, r;

	if (opts->memory && opts->n_words > 1)
		return tool_fail(opts->memory, EINVAL,
				 "there is memory in hex too; give one of them");
	r = load(opts->words[0], &prog);
	if (r)
		return r;
	entry = tool_entry(opts->words[0], prog, opts->entry);
	if (entry < 0)
		r = TOOL_FAILED;
	else if (opts->memory)
		r = tool_read(opts->memory, &memory, &len);
	else if (opts->n_words > 1)
		r = hex_argument(opts->words[1], &memory, &len);
	if (!r) {
		r = run(opts->words[0], prog, opts, entry, memory, len, &r0);
		free(memory);
	}
	if (!r)
		printf("0x%llx\n", (unsigned long long)r0);
	sbpf_program_unref(prog);
	return r;
}

static void print_line(void *arg, const char *line)
{
	(void)arg;
	puts(line);
}

static int cmd_disasm(const struct tool_opts *opts)
{
	struct sbpf_program *prog;
	int r = load(opts->words[0], &prog);

	if (r)
		return r;
	r = sbpf_program_disasm(prog, print_line, NULL);
	sbpf_program_unref(prog);
	return r ? tool_fail(opts->words[0], r, strerror(-r)) : TOOL_DONE;
}

/* The suites' helper 5 returns its argument (and would end the program if that were 0): r0 = r1. */
static void replace_unwind(uint8_t *insns, size_t n)
{
	static const uint8_t unwind[8] = {0x85, 0, 0, 0, 5}, move[8] = {0xbf, 0x10};

	for (size_t i = 0; i < n; i++)
		if (!memcmp(insns + 8 * i, unwind, 8))
			memcpy(insns + 8 * i, move, 8);
}

static int load_hex(struct sbpf_program **prog)
{
	struct sbpf_error err;
	uint8_t *text;
	size_t len;
	int64_t n;
	int r = tool_read("-", &text, &len);

	if (r)
		return r;
	n = decode_hex(text, len, text);
	if (n < 0) {
		r = tool_fail("program", EINVAL,
			      "standard input is not hexadecimal; give two digits a byte");
	} else if (n == 0 || n % 8) {
		r = tool_fail("program", EINVAL,
			      "standard input is not whole instructions; give 8 bytes for each");
	} else {
		replace_unwind(text, (size_t)n / 8);
		r = sbpf_program_from_insns(text, (size_t)n / 8, NULL, prog, &err);
		if (r)
			r = tool_fail("program", r, err.text);
	}
	free(text);
	return r;
}

static int cmd_plugin(const struct tool_opts *opts)
{
	struct sbpf_program *prog;
	uint8_t *memory = NULL;
	size_t len = 0;
	uint64_t r0;
	int r = opts->n_words ? hex_argument(opts->words[0], &memory, &len) : 0;

	if (r)
		return r;
	r = load_hex(&prog);
	if (!r) {
		r = run("program", prog, opts, 0, memory, len, &r0);
		sbpf_program_unref(prog);
	}
	free(memory);
	if (!r)
		printf("%llx\n", (unsigned long long)r0);
	return r;
}

/* ---- the command line ---- */

static int help(void)
{
	puts("sbpf runs BPF programs in a sandbox: any access outside it ends the call with an "
	     "error.\n"
	     "\n"
	     "Examples:\n"
	     "  sbpf verify F.o                 # what an object holds, or why it is refused\n"
	     "  sbpf run F.o 01020304           # r0 of its entry over four bytes\n"
	     "  sbpf bench F.o /bin/sh --json   # speed over 1 MiB\n"
	     "\n"
	     "Commands:");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].summary);
	puts("\n"
	     "Tiers that run here:");
	for (int tier = SBPF_TIER_INTERP; tier <= SBPF_TIER_KERNEL; tier++) {
		const char *missing = sbpf_tier_missing((enum sbpf_tier)tier);

		printf("  %-8s %s\n", sbpf_tier_name((enum sbpf_tier)tier),
		       missing ? missing : "yes");
	}
	puts("\n"
	     "Exit status: 0 done; 2 failed, and one line on stderr says why.\n"
	     "Read on: \"sbpf COMMAND --help\", sbpf(1).");
	return TOOL_DONE;
}

static int help_command(const struct command *cmd)
{
	printf("Usage: sbpf %s %s%s\n\n%s\nOptions:\n", cmd->name, cmd->usage,
	       cmd->options ? " [OPTIONS]" : "", cmd->about);
	for (unsigned i = 0; i < N_OPTIONS; i++)
		if ((cmd->options | MAY(HELP)) >> i & 1)
			printf("  %s\n", options[i].help);
	puts("\nExamples:");
	for (const char *p = cmd->examples; *p;) {
		size_t n = strcspn(p, "\n");

		printf("  %.*s\n", (int)n, p);
		p += n + (p[n] == '\n');
	}
	return TOOL_DONE;
}

static int parse_fuel(const struct command *cmd, const char *text, uint64_t *fuel)
{
	char *end;

	errno = 0;
	*fuel = strtoull(text, &end, 10);
	if (errno || *end || !isdigit((unsigned char)text[0]))
		return fail_usage(cmd, text, "--fuel takes a number of instructions");
	return 0;
}

/* One option; 0, or TOOL_FAILED after an error line. */
static int parse_option(const struct command *cmd, int opt, const char *given,
			struct tool_opts *opts)
{
	if (opt == '?' || opt == ':')
		return fail_usage(cmd, given,
				  opt == ':' ? "the option needs a value"
					     : "there is no such option");
	if (!((cmd->options | MAY(HELP)) >> opt & 1))
		return fail_usage(cmd, given, "this command has no such option");
	switch (opt) {
	case OPT_ENTRY:
		opts->entry = optarg;
		return 0;
	case OPT_TIER:
		if (sbpf_tier_parse(optarg, &opts->tier))
			return tool_fail(
				optarg, EINVAL,
				"there is no such tier; give auto, interp, template, llvm or "
				"kernel");
		return 0;
	case OPT_FUEL:
		return parse_fuel(cmd, optarg, &opts->fuel);
	case OPT_MEMORY:
		opts->memory = optarg;
		return 0;
	default:
		opts->json = true;
		return 0;
	}
}

static int run_command(const struct command *cmd, int argc, char **argv)
{
	struct tool_opts opts = {.fuel = TOOL_FUEL};
	struct option table[N_OPTIONS + 1] = {0};
	int opt, r;

	for (size_t i = 0; i < N_OPTIONS; i++)
		table[i] = options[i].option;
	while ((opt = getopt_long(argc, argv, ":", table, NULL)) != -1) {
		if (opt == OPT_HELP)
			return help_command(cmd);
		r = parse_option(cmd, opt, argv[optind - 1], &opts);
		if (r)
			return r;
	}
	opts.words = argv + optind;
	opts.n_words = argc - optind;
	if (opts.n_words < cmd->min_words)
		return fail_usage(cmd, cmd->name, "something is missing");
	if (opts.n_words > cmd->max_words)
		return fail_usage(cmd, opts.words[cmd->max_words], "one word too many");
	r = cmd->run(&opts);
	if (fflush(stdout) || ferror(stdout))
		return tool_fail("standard output", errno ? errno : EIO,
				 "could not write all of it");
	return r;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return help();
	if (!strcmp(name, "--version")) {
		printf("sbpf %s\n", sbpf_version());
		return TOOL_DONE;
	}
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return run_command(&commands[i], argc - 1, argv + 1);
	return fail_usage(NULL, name[0] ? name : "command",
			  name[0] ? "there is no such command" : "it is missing");
}
