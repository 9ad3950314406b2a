/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lio.c - the command table and main(): which command a line means, and how the process ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio_ext.h>
#include <string.h>
#include <unistd.h>

#include "lio.h"

#define STDOUT_BUFFER (1u << 20)

/* clang-format off */
const struct cli_command_row cli_commands[CLI_COMMANDS] = {
	[CLI_RUN] = {
		.name = "run", .usage = "FUNCTION FILE [NAME=VALUE | VALUE]… [OPTIONS]", .run = cmd_run, .function = true,
		.summary = "run a function over a file and print its output",
		.about =
"FUNCTION is the name of a shipped function (\"lio functions\") or an object file\n"
"(a '/' in its name or .o at its end). FILE \"-\" is standard input, and\n"
"lio://HOST[:PORT]/EXPORT/PATH a server's file, which the function then reads there,\n"
"unless --engine user fetches the bytes. Arguments go\n"
"by declared name or in declared order (\"lio info FUNCTION\"); NAME=@FILE takes\n"
"the value from a file, NAME=@@… is a value that begins with '@'.\n"
"\n"
"Rows are printed as an aligned table on a terminal and as tab-separated lines\n"
"without a header elsewhere; text is printed as it is; bytes are printed as they\n"
"are, on a terminal as hex. --json prints one document, --raw the bytes as they\n"
"are. Nothing of the output is shown unless the whole run succeeded.\n",
		.examples =
"lio run grep /var/log/syslog error          # lines that contain \"error\"\n"
"lio run stats64 numbers.bin --json          # largest, smallest, sum\n"
"zstdcat dump.zst | lio run count -          # from a pipe\n"
"lio run grep big.log.zst pattern=-v --tier template --threads 4\n"
"lio run ./mine.o data --offset 1G --length 64M --timeout 10s\n"
"lio run grep lio://nas/logs/app.log error   # there, and only its lines come here\n",
	},
	[CLI_WRITE] = {
		.name = "write", .usage = "FUNCTION INPUT FILE [NAME=VALUE | VALUE]… [OPTIONS]",
		.run = cmd_write, .function = true, .summary = "run a function over input and write its output into a file",
		.about =
"INPUT (\"-\": standard input) goes through a map or a scan; the output is staged\n"
"and, once the function succeeded, written into FILE at --offset. FILE is never\n"
"truncated; one that does not exist is created (mode 0666 less the umask). On\n"
"success nothing is printed, unless --json or --explain asks for the result. Where\n"
"FILE is a server's (lio://…) the function runs there.\n",
		.examples =
"lio write bitmap runs.rle image.bin               # expand runs into a file\n"
"lio write grep all.log errors.log error --offset 4K\n"
"lio write grep lio://nas/logs/app.log lio://nas/logs/errors.log error\n",
	},
	[CLI_CC] = {
		.name = "cc", .usage = "F.c [-o F.o] [-I DIR] [-D NAME=VALUE] [OPTIONS]", .run = cmd_cc,
		.summary = "compile a function from C",
		.about =
"Finds clang (14 to 19) and compiles plain C to a function's object file, which\n"
"is then verified. Copies of variable length, zeroing loops and large struct\n"
"copies, which clang alone refuses, become helper calls. Without -o the object is\n"
"named after the source. -I, -D, -U, -W…, -f…, -O… and -std= go to clang; -v shows\n"
"its command lines.\n",
		.examples =
"lio cc mine.c -o mine.o\n"
"lio cc mine.c -o mine.o && lio test mine.o data && lio run ./mine.o data\n",
	},
	[CLI_TEST] = {
		.name = "test", .usage = "FUNCTION FILE [NAME=VALUE | VALUE]… [OPTIONS]", .run = cmd_test, .function = true,
		.summary = "check that a function gives the same answer however its input is cut",
		.about =
"Runs the function once over FILE uncut, on one thread, interpreted. Then cuts\n"
"FILE at random record boundaries and runs it on every tier and on several\n"
"threads: maps and folds with a merge must give the same bytes wherever pieces\n"
"run, scans and folds without one for any cut in file order. The first difference\n"
"is reported with the fewest cuts that show it, and the seed that finds it again.\n",
		.examples =
"lio test mine.o data\n"
"lio test grep /etc/services tcp --rounds 200 --seed 7\n",
	},
	[CLI_INFO] = {
		.name = "info", .usage = "FUNCTION [--json]", .run = cmd_info, .function = true,
		.summary = "what a function reads, takes and returns",
		.about =
"Prints what the object says of itself: kind, records, arguments with types and\n"
"defaults, output, state and scratch memory, size and helpers.\n",
		.examples = "lio info grep\nlio info mine.o --json\n",
	},
	[CLI_FUNCTIONS] = {
		.name = "functions", .usage = "[--json]", .run = cmd_functions,
		.summary = "list the shipped functions",
		.about =
"Lists the objects in $LIO_FUNCTIONS, or else in the installed directory.\n",
		.examples = "lio functions\nLIO_FUNCTIONS=. lio functions\n",
	},
	[CLI_EXPLAIN] = {
		.name = "explain", .usage = "FUNCTION FILE [NAME=VALUE | VALUE]… [OPTIONS]",
		.run = cmd_explain, .function = true, .summary = "run, and say what was decided and why instead of the output",
		.about =
"Runs the function as \"lio run\" would and drops its output. Prints the engine,\n"
"tier, way of input, threads, chunk and budgets and why, the share of the file in\n"
"the page cache before the run, and the times measured.\n",
		.examples = "lio explain grep big.log error\n",
	},
	[CLI_FEATURES] = {
		.name = "features", .usage = "[--json]", .run = cmd_features,
		.summary = "what this machine can do, and why not",
		.about = "Lists engines, tiers and ways of input, and what is missing for each.\n",
		.examples = "lio features\n",
	},
	[CLI_BENCH] = {
		.name = "bench", .usage = "FUNCTION FILE [NAME=VALUE | VALUE]… [OPTIONS]",
		.run = cmd_bench, .function = true, .summary = "measure a function over a file",
		.about =
"Runs the function once to warm up and then --repeat times for each tier and\n"
"number of threads; the output is dropped. Prints the best and the median time,\n"
"the speed at the best in GB/s (10^9 bytes), and how that run's time divides\n"
"into input and function, summed over threads.\n",
		.examples =
"lio bench stats64 numbers.bin\n"
"lio bench grep big.log error --tier interp,template --threads 1,2,4 --json\n",
	},
	[CLI_LS] = {
		.name = "ls", .usage = "lio://HOST[:PORT]/EXPORT[/PATH] [--long] [--json]", .run = cmd_ls,
		.summary = "list a directory of a server",
		.about =
"Names, sorted by their bytes; directories end in a slash. Of lio://HOST alone,\n"
"the exports. In a path %XX is the byte of that number.\n",
		.examples = "lio ls lio://nas\nlio ls lio://nas:4420/logs/2026 --long\n",
	},
	[CLI_STAT] = {
		.name = "stat", .usage = "lio://HOST[:PORT]/EXPORT/PATH [--json]", .run = cmd_stat,
		.summary = "what a path of a server is",
		.about = "A symbolic link is not followed.\n",
		.examples = "lio stat lio://nas/logs/app.log\n",
	},
	[CLI_CAT] = {
		.name = "cat", .usage = "lio://HOST[:PORT]/EXPORT/PATH [OPTIONS]", .run = cmd_cat,
		.summary = "copy a server's file to standard output",
		.about = "Plain bytes, no function: what compressed files hold stays compressed.\n",
		.examples =
"lio cat lio://nas/logs/app.log > app.log\n"
"lio cat lio://nas/img/disk.raw --offset 1G --length 4K | xxd\n",
	},
	[CLI_PUT] = {
		.name = "put", .usage = "FILE lio://HOST[:PORT]/EXPORT/PATH [OPTIONS]", .run = cmd_put,
		.summary = "copy a local file to a server",
		.about =
"FILE \"-\" is standard input. A PATH that is a directory, or ends in a slash,\n"
"receives it under its own name. It is written under a temporary name, flushed to\n"
"the medium and renamed: others see the old file or all of the new one.\n",
		.examples = "lio put table.bin lio://nas/data/\nzstd -c big | lio put - lio://nas/data/big.zst\n",
	},
	[CLI_RM] = {
		.name = "rm", .usage = "lio://HOST[:PORT]/EXPORT/PATH…", .run = cmd_rm,
		.summary = "remove files or empty directories of a server",
		.about = "Each is tried; the status is 2 if one failed.\n",
		.examples = "lio rm lio://nas/data/table.bin\n",
	},
	[CLI_MKDIR] = {
		.name = "mkdir", .usage = "lio://HOST[:PORT]/EXPORT/PATH…", .run = cmd_mkdir,
		.summary = "make directories of a server",
		.about = "Each is tried; the status is 2 if one failed.\n",
		.examples = "lio mkdir lio://nas/data/2026\n",
	},
	[CLI_MV] = {
		.name = "mv", .usage = "lio://HOST[:PORT]/EXPORT/FROM lio://HOST[:PORT]/EXPORT/TO", .run = cmd_mv,
		.summary = "rename within an export of a server",
		.about =
"A TO that is a directory receives it under its own name; a file is replaced.\n",
		.examples = "lio mv lio://nas/data/new.bin lio://nas/data/table.bin\n",
	},
	[CLI_MOUNT] = {
		.name = "mount", .usage = "lio://HOST[:PORT]/EXPORT[/PATH] DIRECTORY [OPTIONS]", .run = cmd_mount,
		.summary = "mount a directory of a server, for other programs",
		.about =
"By FUSE: any program reads and writes there, as far as the export allows, and\n"
"bytes come here to be read. It goes to the background once it is mounted;\n"
"\"umount DIRECTORY\" (fusermount3 -u) or SIGTERM ends it. The kernel caches what was\n"
"read until a file is opened that has changed. Modes, owners and times cannot be\n"
"set, links of a server are followed there.\n",
		.examples =
"lio mount lio://nas/logs /mnt/logs && less /mnt/logs/app.log\n"
"lio mount lio://nas/data /mnt/data --read-only --foreground\n",
	},
	[CLI_DEVICE] = {
		.name = "device", .usage = "[read|write|programs|load|stats] HOST[:PORT] [OPTIONS]", .run = cmd_device,
		.summary = "what an NVMe/TCP device has, and raw ranges of it",
		.about =
"Alone, finds the subsystems at HOST (or takes that of --nqn) and prints their\n"
"controllers, limits, health and namespaces. The port is 8009 or else 4420. read\n"
"copies a range of a namespace to standard output, write copies standard input\n"
"to one and flushes it; both take whole blocks only. They go around file systems:\n"
"write to a namespace that nobody has mounted.\n"
"\n"
"Of a server that runs functions (liod): programs lists this host's functions\n"
"there, load HOST FUNCTION sends one ahead of its first run, stats prints the\n"
"server's limits and load. Their port is 4420.\n",
		.examples =
"lio device 192.0.2.7                      # what is there\n"
"lio device localhost:4420 --json\n"
"lio device read localhost:4420 --nsid 1 --length 1M > first.bin\n"
"lio device write localhost:4420 --nsid 2 --offset 4K < blocks.bin\n"
"lio device stats nas\n",
	},
	[CLI_COMPLETION] = {
		.name = "completion", .usage = "bash|zsh|fish|man|functions", .run = cmd_completion,
		.summary = "print what shells and the manual know of the commands", .hidden = true,
		.about =
"Prints the completion script of a shell, the manual's COMMANDS section, or the\n"
"names of the shipped functions.\n",
		.examples = "lio completion bash > ~/.local/share/bash-completion/completions/lio\n",
	},
};
/* clang-format on */

/*
 * A closed standard output would let the next file opened take its number, and output would go into that
 * file.  Hold the place with a descriptor of the wrong direction, so that writing is still an error.
 */
static void hold_streams(void)
{
	bool input = fcntl(STDIN_FILENO, F_GETFD) >= 0;
	int fd;

	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	if (!input)
		close(STDIN_FILENO); /* its number does no harm, and a closed one says more */
}

static int find_command(const char *name)
{
	for (int i = 0; i < CLI_COMMANDS; i++)
		if (strcmp(cli_commands[i].name, name) == 0)
			return i;
	return -1;
}

static int unknown_command(const char *name)
{
	const char *names[CLI_COMMANDS], *near;
	char fix[128];

	for (int i = 0; i < CLI_COMMANDS; i++)
		names[i] = cli_commands[i].name;
	near = cli_nearest(name, names, CLI_COMMANDS);
	if (near)
		snprintf(fix, sizeof(fix), "did you mean \"lio %s\"? \"lio --help\" lists all",
			 near);
	else
		snprintf(fix, sizeof(fix), "\"lio --help\" lists them");
	return cli_fail(EINVAL, fix, "%s: there is no such %s", name,
			name[0] == '-' ? "option before a command" : "command");
}

static int dispatch(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;
	bool help = word && (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 ||
			     strcmp(word, "-h") == 0);
	int command;

	if (!word) {
		cli_help(stderr);
		return CLI_FAILED;
	}
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		printf("lio %s\n", lio_version());
		return CLI_DONE;
	}
	if (help && argc == 2) {
		cli_help(stdout);
		return CLI_DONE;
	}
	command = find_command(argv[help ? 2 : 1]);
	if (command < 0)
		return unknown_command(argv[help ? 2 : 1]);
	if (help || cli_wants_help(argc - 1, argv + 1)) {
		cli_help_command((enum cli_command)command, stdout);
		return CLI_DONE;
	}
	return cli_commands[command].run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int status;

	hold_streams();
	setvbuf(stdout, NULL, _IOFBF, STDOUT_BUFFER);
	status = dispatch(argc, argv);
	if (status > CLI_NOTHING)
		__fpurge(stdout); /* no part of what failed is shown */
	errno = 0;
	if (fclose(stdout) != 0 && status <= CLI_NOTHING)
		status = cli_fail_stdout(errno ? errno : EIO);
	return status;
}
