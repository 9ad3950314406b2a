/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbpf.h - what the commands of sbpf share: their options, error lines, loading a program.
 *
 * A new command is one row in sbpf.c's table and one function.
 */
#ifndef TOOLS_SBPF_H
#define TOOLS_SBPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lambdaio/sbpf.h"

/* Exit statuses; commands return one. */
enum {
	TOOL_DONE = 0,
	TOOL_FAILED = 2, /* one line on stderr says why */
};

/* More than anything that ends takes: a program that does not gets -ETIME within a minute. */
#define TOOL_FUEL (1ull << 35)

struct tool_opts { /* what a command line says; zero where it says nothing */
	const char *entry;
	const char *memory; /* file */
	enum sbpf_tier tier;
	uint64_t fuel; /* TOOL_FUEL where it says nothing */
	bool json;
	char **words; /* what is not an option */
	int n_words;
};

/*
 * Print "sbpf: WHAT: WHY (ERRNO-NAME); FIX" and return TOOL_FAILED.  @text is "WHY" or "WHY; FIX";
 * @err is an errno of either sign.
 */
int tool_fail(const char *what, int err, const char *text);

/* A file's bytes ("-": standard input); *out is to be freed.  0, or TOOL_FAILED after an error line. */
int tool_read(const char *path, uint8_t **out, size_t *len);

/* The entry that @name says; NULL: the only one.  Its index, or -1 after an error line. */
int tool_entry(const char *path, const struct sbpf_program *prog, const char *name);

int tool_bench(const struct tool_opts *opts); /* sbpf_bench.c */

#endif /* TOOLS_SBPF_H */
