/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes given to the loader are a program that hangs together, or an error of one line.
 * Memory and undefined behaviour are the sanitizers' to watch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_elf: %s\n", what);
	abort();
}

static void check_line(void *arg, const char *line)
{
	for (; *line; line++)
		expect((unsigned char)*line >= 0x20 && *line != 0x7f, "a line is printable");
}

static void check_program(const struct sbpf_program *prog)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < prog->n_funcs; i++) {
		expect(prog->funcs[i].start == at && prog->funcs[i].end > at,
		       "functions cover the program");
		at = prog->funcs[i].end;
		check_line(NULL, prog->funcs[i].name);
	}
	expect(at == prog->n_insns, "functions cover the program");
	expect(prog->n_entries > 0, "there is an entry");
	for (uint32_t i = 0; i < prog->n_entries; i++)
		expect(prog->entries[i].func < prog->n_funcs && prog->entries[i].section,
		       "an entry is a function");
	for (uint32_t i = 0; i < prog->n_lines; i++)
		expect(prog->lines[i].insn < prog->n_insns && prog->lines[i].line &&
			       (!i || prog->lines[i - 1].insn <= prog->lines[i].insn),
		       "lines are sorted");
	expect(prog->rodata_len <= sbpf_window_max(SBPF_WIN_RODATA) &&
		       prog->data_len <= prog->data_total &&
		       prog->data_total <= sbpf_window_max(SBPF_WIN_DATA),
	       "data fits its windows");
	sbpf_program_disasm(prog, check_line, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct sbpf_load_opts opts = {.size = sizeof(opts), .note_prefix = ".lambda."};
	struct sbpf_error err = {0};
	struct sbpf_program *prog;
	int r = sbpf_program_from_elf(data, len, &opts, &prog, &err);

	if (r) {
		expect(r < 0 && !prog && err.code == r && err.text[0], "an error has a reason");
		check_line(NULL, err.text);
		return 0;
	}
	check_program(prog);
	sbpf_program_unref(prog);
	return 0;
}
