/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - the option table that parser, help, completion and manual share, and the parser.
 *
 * Options may stand anywhere before "--".  A lone "-" and what begins like a negative number are words.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lio.h"

#define ON(cmd) (1u << CLI_##cmd)
#define RUNS    (ON(RUN) | ON(EXPLAIN))
#define ROW(kind_, field_, zero_) \
	.kind = CLI_##kind_, .field = offsetof(struct cli, field_), .zero = (zero_)

/* clang-format off */
const struct cli_option cli_options[] = {
	{ "json", NULL, ROW(FLAG, json, false),
	  .commands = RUNS | ON(WRITE) | ON(TEST) | ON(INFO) | ON(FUNCTIONS) | ON(FEATURES) | ON(BENCH) |
		      ON(DEVICE) | ON(LS) | ON(STAT),
	  .help = "print one JSON document" },
	{ "raw", NULL, ROW(FLAG, raw, false), .commands = ON(RUN),
	  .help = "print the output's bytes as they are" },
	{ "explain", NULL, ROW(FLAG, explain, false), .commands = ON(RUN) | ON(WRITE),
	  .help = "say on stderr (in --json: in the document) what was decided and why" },
	{ "engine", "auto|user|kernel|device", ROW(CHOICE, engine, false),
	  .commands = RUNS | ON(WRITE) | ON(BENCH), .help = "where the function runs" },
	{ "tier", "auto|interp|template|llvm", ROW(CHOICE, tier, false), .commands = RUNS | ON(WRITE),
	  .help = "what compiles it" },
	{ "tier", "TIER,…", ROW(STRING, tiers, false), .commands = ON(BENCH),
	  .help = "the tiers to measure (default: those of the engine)" },
	{ "io", "auto|mmap|pread", ROW(CHOICE, io, false), .commands = RUNS | ON(WRITE) | ON(BENCH),
	  .help = "how the file's bytes reach the function" },
	{ "decompress", "auto|none", ROW(CHOICE, decompress, false),
	  .commands = RUNS | ON(WRITE) | ON(BENCH),
	  .help = "gzip and zstd input is decompressed (by content) unless none" },
	{ "offset", "BYTES", ROW(SIZE, offset, true), .commands = RUNS | ON(BENCH) | ON(TEST),
	  .help = "start at this offset of FILE" },
	{ "offset", "BYTES", ROW(SIZE, offset, true), .commands = ON(WRITE),
	  .help = "write at this offset of FILE (default 0)" },
	{ "length", "BYTES", ROW(SIZE, length, true), .commands = RUNS | ON(BENCH),
	  .help = "read so much (default: to the end)" },
	{ "length", "BYTES", ROW(SIZE, length, true), .commands = ON(TEST),
	  .help = "try at most so much of FILE (default 1M)" },
	{ "nqn", "NQN", ROW(STRING, nqn, false), .commands = ON(DEVICE),
	  .help = "the subsystem's name (default: ask which there are)" },
	{ "nsid", "N", ROW(COUNT, nsid, false), .commands = ON(DEVICE),
	  .help = "read, write: the namespace (default 1)" },
	{ "offset", "BYTES", ROW(SIZE, offset, true), .commands = ON(DEVICE),
	  .help = "read, write: start at this offset (default 0)" },
	{ "length", "BYTES", ROW(SIZE, length, true), .commands = ON(DEVICE),
	  .help = "read, write: so much (default: to the end)" },
	{ "digest", NULL, ROW(FLAG, digest, false), .commands = ON(DEVICE),
	  .help = "have what crosses the network checked (CRC-32C)" },
	{ "offset", "BYTES", ROW(SIZE, offset, true), .commands = ON(CAT),
	  .help = "start at this offset (default 0)" },
	{ "length", "BYTES", ROW(SIZE, length, true), .commands = ON(CAT),
	  .help = "copy so much (default: to the end)" },
	{ "long", NULL, ROW(FLAG, details, false), .commands = ON(LS),
	  .help = "type, size and time of modification (UTC), too" },
	{ "foreground", NULL, ROW(FLAG, foreground, false), .commands = ON(MOUNT),
	  .help = "do not go to the background" },
	{ "read-only", NULL, ROW(FLAG, read_only, false), .commands = ON(MOUNT),
	  .help = "allow no changes, whatever the export allows" },
	{ "timeout", "TIME", ROW(TIME, timeout_ns, false), .commands = ON(DEVICE),
	  .help = "time that connecting, or one command, may take (default 30s)" },
	{ "chunk", "BYTES", ROW(SIZE, chunk, false), .commands = RUNS | ON(WRITE) | ON(BENCH),
	  .help = "bytes in a piece (default 1M)" },
	{ "threads", "N", ROW(COUNT, threads, false), .commands = RUNS | ON(WRITE),
	  .help = "threads to use (default: every core)" },
	{ "threads", "N,…", ROW(STRING, thread_list, false), .commands = ON(BENCH),
	  .help = "the numbers of threads to measure (default: every core)" },
	{ "fuel", "INSNS", ROW(COUNT, fuel, false), .commands = RUNS | ON(WRITE),
	  .help = "instructions the whole run may take" },
	{ "timeout", "TIME", ROW(TIME, timeout_ns, false), .commands = RUNS | ON(WRITE),
	  .help = "wall time it may take (default: no limit)" },
	{ "memory", "BYTES", ROW(SIZE, memory, false), .commands = RUNS | ON(WRITE),
	  .help = "memory one call may use (default 256M)" },
	{ "max-output", "BYTES", ROW(SIZE, max_output, false), .commands = RUNS | ON(WRITE),
	  .help = "bytes it may return (default 1T)" },
	{ "rounds", "N", ROW(COUNT, rounds, false), .commands = ON(TEST),
	  .help = "random cuts to try on each tier (default 20)" },
	{ "seed", "N", ROW(COUNT, seed, true), .commands = ON(TEST),
	  .help = "the first random number, to try the same cuts again" },
	{ "repeat", "N", ROW(COUNT, repeat, false), .commands = ON(BENCH),
	  .help = "measured runs for each line (default 5)" },
	{ "trace", NULL, ROW(FLAG, trace, false), .commands = RUNS | ON(WRITE),
	  .help = "show on stderr what the function says with lambda_trace()" },
	{ "quiet", NULL, ROW(FLAG, quiet, false),
	  .commands = RUNS | ON(WRITE) | ON(BENCH) | ON(DEVICE) | ON(CAT) | ON(PUT),
	  .help = "no progress on a terminal" },
	/* cc has a parser of its own, for clang's options: these rows are for help and completion. */
	{ "clang", "PATH", .kind = CLI_STRING, .commands = ON(CC),
	  .help = "the clang to use (default: $LIO_CLANG, or the newest of 14 to 19)" },
	{ "mcpu", "v1|v2|v3|v4", .kind = CLI_CHOICE, .commands = ON(CC),
	  .help = "the instruction set (default: the best that clang has)" },
};
/* clang-format on */
const size_t cli_n_options = sizeof(cli_options) / sizeof(cli_options[0]);

/* ---- the nearest name: optimal string alignment distance ---- */

#define NAME_MAX_LEN 32

static unsigned distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	unsigned d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];

	if (n > NAME_MAX_LEN || m > NAME_MAX_LEN)
		return NAME_MAX_LEN;
	for (size_t i = 0; i <= n; i++) {
		for (size_t j = 0; j <= m; j++) {
			unsigned best = (unsigned)(i ? j ? NAME_MAX_LEN : i : j);

			if (i && j) {
				unsigned change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
				unsigned drop = d[i - 1][j] + 1, add = d[i][j - 1] + 1;

				best = change < drop ? change : drop;
				best = best < add ? best : add;
				if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
				    a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
					best = d[i - 2][j - 2] + 1;
			}
			d[i][j] = best;
		}
	}
	return d[n][m];
}

const char *cli_nearest(const char *word, const char *const *names, size_t n)
{
	size_t len = strlen(word);
	unsigned limit = len < 4 ? 1 : len < 8 ? 2 : 3, best = limit + 1;
	const char *near = NULL;

	for (size_t i = 0; i < n; i++) {
		unsigned d = distance(word, names[i]);

		/* What was begun right but not finished is near, too. */
		if (len >= 2 && strncmp(word, names[i], len) == 0 && d > limit)
			d = limit;
		if (d < best) {
			best = d;
			near = names[i];
		}
	}
	return near;
}

/* ---- values ---- */

int cli_parse_count(const char *text, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	return errno ? -ERANGE : 0;
}

static int parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	uint64_t v;
	unsigned shift;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	*out = v;
	if (!*end)
		return 0;
	unit = strchr(units, toupper((unsigned char)*end));
	if (!unit || end[1])
		return -EINVAL;
	shift = 10 * (unsigned)(unit - units + 1);
	if (v > UINT64_MAX >> shift)
		return -ERANGE;
	*out = v << shift;
	return 0;
}

static int parse_time(const char *text, uint64_t *out)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} units[] = {{"", 1000000000}, {"s", 1000000000}, {"ms", 1000000}, {"m", 60000000000}};
	char *end;
	uint64_t v;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) != 0)
			continue;
		if (v > UINT64_MAX / units[i].ns)
			return -ERANGE;
		*out = v * units[i].ns;
		return 0;
	}
	return -EINVAL;
}

static int parse_choice(const char *choices, const char *text, int *out)
{
	size_t len = strlen(text);
	int i = 0;

	for (const char *p = choices; *p; i++) {
		size_t n = strcspn(p, "|");

		if (n == len && memcmp(p, text, n) == 0) {
			*out = i;
			return 0;
		}
		p += n + (p[n] == '|');
	}
	return -EINVAL;
}

static const char *value_form(const struct cli_option *opt)
{
	switch (opt->kind) {
	case CLI_SIZE:
		return "a number of bytes such as 4096, 64K, 1M, 2G";
	case CLI_COUNT:
		return "a whole number";
	case CLI_TIME:
		return "a time such as 10s, 500ms or 2m";
	case CLI_CHOICE:
		return opt->value;
	case CLI_FLAG:
	case CLI_STRING:
		break;
	}
	return "";
}

static const char *fix_help(const char *command, char fix[64])
{
	snprintf(fix, 64, "\"lio %s --help\" lists the options", command);
	return fix;
}

static int set_value(const char *command, const struct cli_option *opt, const char *text,
		     struct cli *cli)
{
	void *field = (char *)cli + opt->field;
	uint64_t number = 0;
	char fix[64];
	int err = 0;

	switch (opt->kind) {
	case CLI_FLAG:
		*(bool *)field = true;
		return 0;
	case CLI_STRING:
		*(const char **)field = text;
		return 0;
	case CLI_CHOICE:
		err = parse_choice(opt->value, text, field);
		break;
	case CLI_SIZE:
		err = parse_size(text, &number);
		break;
	case CLI_COUNT:
		err = cli_parse_count(text, &number);
		break;
	case CLI_TIME:
		err = parse_time(text, &number);
		break;
	}
	if (err == -ERANGE)
		return cli_fail(err, "use a smaller number", "%s: --%s: \"%s\" is too large",
				command, opt->name, text);
	if (err)
		return cli_fail(err, fix_help(command, fix), "%s: --%s: \"%s\" is not %s%s",
				command, opt->name, text, opt->kind == CLI_CHOICE ? "one of " : "",
				value_form(opt));
	if (opt->kind == CLI_CHOICE)
		return 0;
	if (!number && !opt->zero)
		return cli_fail(EINVAL, "leave it out for the default", "%s: --%s: 0 is too small",
				command, opt->name);
	*(uint64_t *)field = number;
	return 0;
}

/* ---- the parser ---- */

static const struct cli_option *find_option(enum cli_command command, const char *name, size_t len)
{
	for (size_t i = 0; i < cli_n_options; i++) {
		const struct cli_option *opt = &cli_options[i];

		if ((opt->commands & (1u << command)) && strncmp(opt->name, name, len) == 0 &&
		    !opt->name[len])
			return opt;
	}
	return NULL;
}

static int unknown_option(enum cli_command command, const char *word, size_t len)
{
	const char *names[64], *near, *name = cli_commands[command].name;
	size_t n = 0, dashes = strspn(word, "-");
	char typed[64], fix[192];

	for (size_t i = 0; i < cli_n_options && n < 63; i++)
		if (cli_options[i].commands & (1u << command))
			names[n++] = cli_options[i].name;
	names[n++] = "help";
	snprintf(typed, sizeof(typed), "%.*s", (int)(len - dashes), word + dashes);
	near = cli_nearest(typed, names, n);
	if (near)
		snprintf(fix, sizeof(fix), "did you mean --%s? \"lio %s --help\" lists all", near,
			 name);
	else
		snprintf(fix, sizeof(fix), "\"lio %s --help\" lists the options, \"--\" ends them",
			 name);
	return cli_fail(EINVAL, fix, "%s: there is no option %.*s", name, (int)len, word);
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] && !isdigit((unsigned char)word[1]) && word[1] != '.';
}

bool cli_wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

int cli_parse(enum cli_command command, int argc, char **argv, struct cli *cli)
{
	const char *name = cli_commands[command].name;

	*cli = (struct cli){.words = argv, .length = CLI_UNSET, .seed = CLI_UNSET};
	for (int i = 1; i < argc; i++) {
		const struct cli_option *opt;
		const char *value;
		size_t len;

		if (!is_option(argv[i])) {
			argv[cli->n_words++] = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0) {
			while (++i < argc)
				argv[cli->n_words++] = argv[i];
			break;
		}
		len = strcspn(argv[i], "=");
		value = argv[i][len] ? argv[i] + len + 1 : NULL;
		opt = argv[i][1] == '-' ? find_option(command, argv[i] + 2, len - 2) : NULL;
		if (!opt)
			return unknown_option(command, argv[i], len);
		if (!opt->value && value)
			return cli_fail(EINVAL, "leave the value out",
					"%s: --%s: it takes no value", name, opt->name);
		if (opt->value && !value) {
			if (i + 1 == argc)
				return cli_fail(EINVAL, "give it",
						"%s: --%s: its value %s is missing", name,
						opt->name, opt->value);
			value = argv[++i];
		}
		if (set_value(name, opt, value, cli))
			return CLI_FAILED;
	}
	return 0;
}

int cli_words(enum cli_command command, const struct cli *cli, size_t min, size_t max)
{
	const struct cli_command_row *row = &cli_commands[command];
	char fix[160];

	snprintf(fix, sizeof(fix), "usage: lio %s %s", row->name, row->usage);
	if (cli->n_words < min)
		return cli_fail(EINVAL, fix, "%s: %s", row->name,
				cli->n_words ? "something is missing" : "nothing was given");
	if (cli->n_words > max)
		return cli_fail(EINVAL, fix, "%s: %s: one word too many", row->name,
				cli->words[max]);
	return 0;
}
