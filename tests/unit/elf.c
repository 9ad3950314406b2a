/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loader makes of clang's objects, of objects it must refuse, and of damaged ones.
 * argv[1]: the folder with the objects that meson.build compiled from bpf/.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sbpf/internal.h"

/* The same source for the host: what the sandboxed one must compute. */
#include "bpf/layout.c"

void *lambda_memcpy(void *dst, const void *src, u64 n)
{
	return memcpy(dst, src, n);
}

static const char *folder;

struct image {
	uint8_t *bytes;
	size_t len;
};

static struct image read_object(const char *name)
{
	struct image img = {0};
	char path[1024];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "rb");
	if (!f)
		fail_msg("%s is not there", path);
	img.bytes = malloc(1 << 20);
	assert_non_null(img.bytes);
	img.len = fread(img.bytes, 1, 1 << 20, f);
	assert_true(img.len > 0 && img.len < 1 << 20);
	fclose(f);
	return img;
}

/* Calls @check with every object whose name starts with @prefix; there are at least @least. */
static void each_object(const char *prefix, int least, void (*check)(const char *name))
{
	DIR *d = opendir(folder);
	struct dirent *e;
	int n = 0;

	assert_non_null(d);
	while ((e = readdir(d))) {
		if (strncmp(e->d_name, prefix, strlen(prefix)))
			continue;
		check(e->d_name);
		n++;
	}
	closedir(d);
	assert_true(n >= least);
}

/*
 * Loads a copy of exactly @len bytes, so that a read behind it is seen.  Whatever the bytes are: a program
 * whose functions cover it, or an error of one line.
 */
static int load(const uint8_t *bytes, size_t len, struct sbpf_program **out, struct sbpf_error *err)
{
	struct sbpf_load_opts opts = {.size = sizeof(opts), .note_prefix = ".lambda."};
	uint8_t *copy = malloc(len ? len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	memset(err, 0, sizeof(*err));
	*out = (void *)err;
	r = sbpf_program_from_elf(copy, len, &opts, out, err);
	free(copy);
	if (r) {
		assert_true(r < 0);
		assert_null(*out);
		assert_int_equal(err->code, r);
		assert_true(strlen(err->text) > 10);
		for (const char *c = err->text; *c; c++)
			assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
		return r;
	}
	assert_int_equal(err->code, 0);
	assert_int_equal((*out)->funcs[0].start, 0);
	for (uint32_t i = 1; i < (*out)->n_funcs; i++)
		assert_int_equal((*out)->funcs[i].start, (*out)->funcs[i - 1].end);
	assert_int_equal((*out)->funcs[(*out)->n_funcs - 1].end, (*out)->n_insns);
	return 0;
}

static struct sbpf_program *load_object(const char *name)
{
	struct image img = read_object(name);
	struct sbpf_program *prog;
	struct sbpf_error err;

	if (load(img.bytes, img.len, &prog, &err))
		fail_msg("%s: %s", name, err.text);
	free(img.bytes);
	return prog;
}

/* ---- what clang makes ---- */

static void reset_globals(void)
{
	counter = 7;
	tentative = 0;
	tentative_wide = 0;
	memset(zeroed, 0, sizeof(zeroed));
}

static void compare_with_host(const char *name)
{
	struct sbpf_program *prog = load_object(name);
	struct sbpf_call call = {.size = sizeof(call), .fuel = SBPF_FUEL_UNLIMITED};
	struct sbpf_sandbox *sb;
	struct sbpf_error err;

	call.tier = SBPF_TIER_INTERP;
	call.entry = (unsigned int)sbpf_program_entry_find(prog, "layout");
	assert_int_equal(sbpf_program_compile(prog, call.tier, NULL, &err), 0);
	assert_int_equal(sbpf_sandbox_get(prog, &sb), 0);
	for (u64 a = 0; a < 37; a++) {
		for (u64 b = 0; b < 11; b++) {
			call.r1 = a;
			call.r2 = b << (a & 31);
			if (sbpf_run(sb, &call, &err))
				fail_msg("%s(%llu, %llu): %s", name, a, b, err.text);
			reset_globals();
			assert_int_equal(call.r0, layout(call.r1, call.r2));
		}
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void objects_of_every_clang_compute_what_their_source_says(void **state)
{
	each_object("layout-", 4, compare_with_host);
}

static void check_layout(const char *name)
{
	struct sbpf_program *prog = load_object(name);
	uint64_t data = sbpf_window_offset(SBPF_WIN_DATA);
	uint64_t value, sevens = 0, pointers = 0;

	assert_true(prog->data_len >= 16 && prog->data_len <= prog->data_total);
	assert_true(prog->data_total >= prog->data_len + sizeof(zeroed) + 12);
	for (uint64_t i = 0; i + 8 <= prog->data_len; i += 8) {
		memcpy(&value, prog->data + i, 8);
		sevens += value == 7;
		/* "inside" points at the fourth of the words of .bss */
		pointers += value >= data + prog->data_len + 24 && value < data + prog->data_total;
	}
	assert_int_equal(sevens, 1);
	assert_int_equal(pointers, 1);
	assert_non_null(memmem(prog->rodata, prog->rodata_len, "three", 6));
	sbpf_program_unref(prog);
}

static void globals_lie_in_their_windows_and_pointers_between_them_are_final(void **state)
{
	each_object("layout-", 4, check_layout);
}

static void a_function_in_a_section_of_its_own_is_an_entry(void **state)
{
	struct sbpf_program *prog = load_object("layout-clang-19-v3.o");
	int layout_entry = sbpf_program_entry_find(prog, "layout");
	int second_entry = sbpf_program_entry_find(prog, "second");

	assert_int_equal(sbpf_program_entries(prog), 2);
	assert_true(layout_entry >= 0 && second_entry >= 0);
	assert_string_equal(sbpf_program_entry_section(prog, (unsigned int)layout_entry),
			    "lambda/map");
	assert_string_equal(sbpf_program_entry_section(prog, (unsigned int)second_entry),
			    "other/second");
	assert_int_equal(sbpf_program_entry_find(prog, "inner"), -ENOENT);
	assert_null(sbpf_program_entry_name(prog, 2));
	sbpf_program_unref(prog);
}

static void without_one_the_entries_are_the_global_functions_that_no_other_calls(void **state)
{
	struct sbpf_program *prog = load_object("plain-clang-19-v3.o");

	assert_int_equal(sbpf_program_entries(prog), 3);
	assert_true(sbpf_program_entry_find(prog, "first") >= 0);
	assert_true(sbpf_program_entry_find(prog, "last") >= 0);
	assert_true(sbpf_program_entry_find(prog, "other_name") >= 0);
	sbpf_program_unref(prog);
}

static void notes_are_kept_by_prefix(void **state)
{
	struct sbpf_program *prog = load_object("notes-clang-19-v3.o");
	struct sbpf_load_opts opts = {.size = sizeof(opts)};
	struct image img = read_object("notes-clang-19-v3.o");
	size_t len;

	assert_string_equal(sbpf_program_note(prog, ".lambda.doc", &len), "count of bytes");
	assert_int_equal(len, 15);
	assert_memory_equal(sbpf_program_note(prog, ".lambda.state", &len), "\10\0\0\0\0\0\0\0", 8);
	assert_int_equal(len, 8);
	assert_null(sbpf_program_note(prog, ".lambda.nothing", &len));
	assert_int_equal(len, 0);
	sbpf_program_unref(prog);

	assert_int_equal(sbpf_program_from_elf(img.bytes, img.len, &opts, &prog, NULL), 0);
	assert_null(sbpf_program_note(prog, ".lambda.doc", &len));
	sbpf_program_unref(prog);
	free(img.bytes);
}

static void check_lines(const char *name)
{
	struct sbpf_program *prog = load_object(name);
	bool found = false;

	for (uint32_t i = 0; i < prog->n_funcs; i++) {
		if (strcmp(prog->funcs[i].name, "second"))
			continue;
		for (uint32_t pc = prog->funcs[i].start; pc < prog->funcs[i].end; pc++) {
			const struct sbpf_line *line = sbpf_line_at(prog, pc);

			assert_non_null(line);
			assert_string_equal(line->file, "layout.c");
			assert_true(line->line >= LINE_OF_SECOND &&
				    line->line <= LINE_OF_SECOND + 4);
			found = true;
		}
	}
	assert_true(found);
	sbpf_program_unref(prog);
}

static void instructions_know_their_source_lines(void **state)
{
	each_object("layout-", 4, check_lines);
}

static void an_object_without_debug_information_loads(void **state)
{
	struct sbpf_program *prog = load_object("bare-clang-19-v3.o");

	assert_int_equal(prog->n_lines, 0);
	assert_null(sbpf_line_at(prog, 0));
	sbpf_program_unref(prog);
}

static void an_object_may_lie_at_any_address(void **state)
{
	struct image img = read_object("layout-clang-19-v3.o");
	uint8_t *moved = malloc(img.len + 8);

	assert_non_null(moved);
	for (size_t shift = 1; shift < 8; shift++) {
		struct sbpf_program *prog;

		memcpy(moved + shift, img.bytes, img.len);
		assert_int_equal(sbpf_program_from_elf(moved + shift, img.len, NULL, &prog, NULL),
				 0);
		sbpf_program_unref(prog);
	}
	free(moved);
	free(img.bytes);
}

static void a_limit_on_instructions_holds_and_is_named(void **state)
{
	struct sbpf_load_opts opts = {.size = sizeof(opts), .max_insns = 20};
	struct image img = read_object("layout-clang-19-v3.o");
	struct sbpf_program *prog;
	struct sbpf_error err;

	assert_int_equal(sbpf_program_from_elf(img.bytes, img.len, &opts, &prog, &err), -E2BIG);
	assert_non_null(strstr(err.text, "the limits are 20 "));
	opts.max_insns = 1000;
	assert_int_equal(sbpf_program_from_elf(img.bytes, img.len, &opts, &prog, &err), 0);
	sbpf_program_unref(prog);
	free(img.bytes);
}

/* ---- what is refused, and what is said ---- */

static void what_cannot_run_is_refused_with_a_reason(void **state)
{
	static const struct {
		const char *name;
		int code;
		const char *says[3];
	} rows[] = {
		{"misspelt",
		 -EINVAL,
		 {"lambda_memcopy", "did you mean the helper lambda_memcpy?",
		  "of entry, refused.c:"}},
		{"undefined", -EINVAL, {"somewhere_else_entirely is not defined", "same source"}},
		{"undefined_data", -EINVAL, {"elsewhere is not defined", "refused.c:"}},
		{"function_address", -EINVAL, {"function one", "indirect calls are not supported"}},
		{"function_table", -EINVAL, {"function one", "indirect calls are not supported"}},
		{"by_number", -EINVAL, {"helper 5 is called by number", "refused.c:"}},
		{"map", -EINVAL, {"things", ".maps", "BPF maps are not supported"}},
		{"constructor", -EINVAL, {"constructors", ".init_array"}},
		{"too_much_data", -E2BIG, {".bss", "3221225472", "limit"}},
		{"no_entry", -EINVAL, {"no function to start at"}},
		{"no_code", -ENOEXEC, {"no code"}},
		{"assembly", -ENOEXEC, {"lambda/map", "belongs to no function"}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sbpf_program *prog;
		struct sbpf_error err;
		struct image img;
		char name[64];

		snprintf(name, sizeof(name), "refused-%s.o", rows[i].name);
		img = read_object(name);
		if (load(img.bytes, img.len, &prog, &err) != rows[i].code)
			fail_msg("%s: %d %s", name, err.code, err.text);
		for (int k = 0; k < 3 && rows[i].says[k]; k++)
			if (!strstr(err.text, rows[i].says[k]))
				fail_msg("%s: '%s' does not say '%s'", name, err.text,
					 rows[i].says[k]);
		free(img.bytes);
	}
}

/* Sections of an undamaged object. */
static Elf64_Shdr *section(struct image img, const char *name)
{
	Elf64_Ehdr *h = (Elf64_Ehdr *)img.bytes;
	Elf64_Shdr *s = (Elf64_Shdr *)(img.bytes + h->e_shoff);

	for (unsigned int i = 0; i < h->e_shnum; i++)
		if (!strcmp((char *)img.bytes + s[h->e_shstrndx].sh_offset + s[i].sh_name, name))
			return &s[i];
	fail_msg("no section %s", name);
	return NULL;
}

static void *inside_section(struct image img, const char *name)
{
	return img.bytes + section(img, name)->sh_offset;
}

/* The symbol of a name. */
static Elf64_Sym *symbol(struct image img, const char *name)
{
	Elf64_Shdr *table = section(img, ".symtab");
	Elf64_Sym *sym = inside_section(img, ".symtab");
	const char *strings = inside_section(img, ".strtab");

	for (size_t i = 0; i < table->sh_size / sizeof(*sym); i++)
		if (!strcmp(strings + sym[i].st_name, name))
			return &sym[i];
	fail_msg("no symbol %s", name);
	return NULL;
}

static void shnum_lies(struct image img)
{
	((Elf64_Ehdr *)img.bytes)->e_shnum = 0xfe00;
}

static void shnum_elsewhere(struct image img)
{
	section(img, "")->sh_size = UINT64_MAX;
	((Elf64_Ehdr *)img.bytes)->e_shnum = 0;
}

static void table_outside(struct image img)
{
	((Elf64_Ehdr *)img.bytes)->e_shoff = UINT64_MAX - 63;
}

static void other_machine(struct image img)
{
	((Elf64_Ehdr *)img.bytes)->e_machine = EM_X86_64;
}

static void executable(struct image img)
{
	((Elf64_Ehdr *)img.bytes)->e_type = ET_EXEC;
}

static void big_endian(struct image img)
{
	img.bytes[EI_DATA] = ELFDATA2MSB;
}

static void huge_section(struct image img)
{
	section(img, ".text")->sh_size = 1ull << 63;
}

static void wrapping_section(struct image img)
{
	section(img, ".rodata")->sh_offset = UINT64_MAX - 8;
}

static void half_instruction(struct image img)
{
	section(img, ".text")->sh_size -= 4;
}

static void sections_overlap(struct image img)
{
	section(img, ".rodata")->sh_offset = section(img, ".data")->sh_offset = 0;
	section(img, ".rodata")->sh_size = section(img, ".data")->sh_size = img.len;
}

static void odd_alignment(struct image img)
{
	section(img, ".rodata")->sh_addralign = 24;
}

static void vast_alignment(struct image img)
{
	section(img, ".bss")->sh_addralign = 1ull << 40;
}

static void vast_bss(struct image img)
{
	section(img, ".bss")->sh_size = UINT64_MAX - 100;
}

static void names_do_not_end(struct image img)
{
	Elf64_Shdr *s = section(img, ".strtab");

	img.bytes[s->sh_offset + s->sh_size - 1] = 'x';
}

static void symbols_without_names(struct image img)
{
	section(img, ".symtab")->sh_link = 0xffffff;
}

static void name_outside(struct image img)
{
	symbol(img, "second")->st_name = UINT32_MAX;
}

static void function_too_long(struct image img)
{
	bool inner_first = symbol(img, "inner")->st_value == 0;

	symbol(img, inner_first ? "inner" : "same_section")->st_size += 8;
}

static void function_outside(struct image img)
{
	symbol(img, "second")->st_value = UINT64_MAX - 7;
}

static void relocation_outside(struct image img)
{
	((Elf64_Rel *)inside_section(img, ".rel.text"))->r_offset = 1 << 20;
}

static void relocation_between(struct image img)
{
	((Elf64_Rel *)inside_section(img, ".rel.text"))->r_offset += 4;
}

static void data_relocation_outside(struct image img)
{
	((Elf64_Rel *)inside_section(img, ".rel.rodata"))->r_offset =
		section(img, ".rodata")->sh_size - 4;
}

static void unknown_relocation(struct image img)
{
	((Elf64_Rel *)inside_section(img, ".rel.text"))->r_info |= 0x77;
}

static void relocation_of_no_symbol(struct image img)
{
	((Elf64_Rel *)inside_section(img, ".rel.text"))->r_info |= 0xfffffffull << 32;
}

static void relocated_twice(struct image img)
{
	Elf64_Rel *rel = inside_section(img, ".rel.text");

	rel[1] = rel[0];
}

static void call_outside(struct image img)
{
	struct sbpf_insn *insn = inside_section(img, "other/second");

	while (insn->code != (BPF_JMP | BPF_CALL))
		insn++;
	insn->imm = 1 << 30;
}

static void damage_is_named(void **state)
{
	static const struct {
		void (*damage)(struct image img);
		int code;
		const char *says;
	} rows[] = {
		{shnum_lies, -ENOEXEC, "section table"},
		{shnum_elsewhere, -ENOEXEC, "section table"},
		{table_outside, -ENOEXEC, "section table"},
		{other_machine, -ENOEXEC, "machine 62"},
		{executable, -ENOEXEC, "clang -c"},
		{big_endian, -ENOEXEC, "little-endian"},
		{huge_section, -ENOEXEC, ".text lies outside the file"},
		{wrapping_section, -ENOEXEC, ".rodata lies outside the file"},
		{half_instruction, -ENOEXEC, "whole number of instructions"},
		{sections_overlap, -ENOEXEC, "overlaps"},
		{odd_alignment, -ENOEXEC, "alignment of 24"},
		{vast_alignment, -ENOEXEC, "alignment"},
		{vast_bss, -E2BIG, ".bss"},
		{names_do_not_end, -ENOEXEC, "string table"},
		{symbols_without_names, -ENOEXEC, "string table 16777215"},
		{name_outside, -ENOEXEC, "outside the tables"},
		{function_too_long, -ENOEXEC, "must belong to one function"},
		{function_outside, -ENOEXEC, "second does not lie in section other/second"},
		{relocation_outside, -ENOEXEC, "not at an instruction"},
		{relocation_between, -ENOEXEC, "not at an instruction"},
		{data_relocation_outside, -ENOEXEC, "section .rodata lies outside it"},
		{unknown_relocation, -ENOEXEC, "relocation type 119"},
		{relocation_of_no_symbol, -ENOEXEC, "symbol"},
		{relocated_twice, -ENOEXEC, "relocated twice"},
		{call_outside, -ENOEXEC, "goes outside section"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct image img = read_object("layout-clang-19-v3.o");
		struct sbpf_program *prog;
		struct sbpf_error err;
		int r;

		rows[i].damage(img);
		r = load(img.bytes, img.len, &prog, &err);
		if (r != rows[i].code || !strstr(err.text, rows[i].says))
			fail_msg("row %zu (%s): %d %s", i, rows[i].says, r, err.text);
		free(img.bytes);
	}
}

/* ---- any bytes at all ---- */

static uint64_t random_state;

static uint64_t random64(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void every_prefix_of_an_object_is_loaded_or_refused(void **state)
{
	struct image img = read_object("layout-clang-19-v4.o");

	for (size_t len = 0; len <= img.len; len++) {
		struct sbpf_program *prog;
		struct sbpf_error err;
		int r = load(img.bytes, len, &prog, &err);

		/* The section table comes last. */
		assert_int_equal(r, len == img.len ? 0 : -ENOEXEC);
		sbpf_program_unref(prog);
	}
	free(img.bytes);
}

static void swallow(void *arg, const char *line)
{
	*(size_t *)arg += strlen(line);
}

/* Offsets that matter: headers and targets are hit as often as all the rest. */
static size_t random_offset(struct image img)
{
	static const char *const targets[] = {".symtab", ".rel.text", ".rellambda/map",
					      ".rel.rodata", ".BTF.ext"};
	uint64_t r = random64();
	Elf64_Ehdr h;
	Elf64_Shdr *s;

	memcpy(&h, img.bytes, sizeof(h));
	switch (r % 8) {
	case 0:
		return (r >> 8) % sizeof(h);
	case 1:
	case 2:
		return h.e_shoff + (r >> 8) % (h.e_shnum * sizeof(*s));
	case 3:
	case 4:
		s = section(img, targets[(r >> 3) % 5]);
		return s->sh_offset + (r >> 8) % s->sh_size;
	default:
		return (r >> 8) % img.len;
	}
}

static void damaged_objects_are_loaded_or_refused(void **state)
{
	struct image good = read_object("layout-clang-19-v3.o");
	struct image bad = {malloc(good.len), good.len};
	size_t text = 0, loaded = 0, refused = 0;

	assert_non_null(bad.bytes);
	for (uint64_t seed = 0; seed < 8000; seed++) {
		struct sbpf_program *prog;
		struct sbpf_error err;

		random_state = seed << 32;
		memcpy(bad.bytes, good.bytes, good.len);
		for (uint64_t n = 1 + random64() % 4; n; n--)
			bad.bytes[random_offset(good)] = (uint8_t)random64();
		if (load(bad.bytes, bad.len, &prog, &err)) {
			refused++;
			continue;
		}
		loaded++;
		sbpf_program_disasm(prog, swallow, &text);
		sbpf_program_unref(prog);
	}
	/* The damage was neither harmless nor all fatal. */
	assert_true(loaded > 100 && refused > 100 && text > 1000);
	free(bad.bytes);
	free(good.bytes);
}

static void damaged_line_tables_never_stop_a_program(void **state)
{
	struct image good = read_object("layout-clang-19-v3.o");
	struct image bad = {malloc(good.len), good.len};
	static const char *const targets[] = {".BTF", ".BTF.ext"};

	assert_non_null(bad.bytes);
	for (uint64_t seed = 0; seed < 4000; seed++) {
		const Elf64_Shdr *s = section(good, targets[seed % 2]);
		struct sbpf_program *prog;
		struct sbpf_error err;

		random_state = seed << 32;
		memcpy(bad.bytes, good.bytes, good.len);
		for (uint64_t n = 1 + random64() % 8; n; n--) {
			/* Half of the damage goes to the header. */
			size_t span = random64() % 2 ? 32 : s->sh_size;

			bad.bytes[s->sh_offset + random64() % span] = (uint8_t)random64();
		}
		if (load(bad.bytes, bad.len, &prog, &err))
			fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
		for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
			const struct sbpf_line *line = sbpf_line_at(prog, pc);

			assert_true(!line || (line->line && strlen(line->file) < 256));
		}
		sbpf_program_unref(prog);
	}
	free(bad.bytes);
	free(good.bytes);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_of_every_clang_compute_what_their_source_says),
		cmocka_unit_test(globals_lie_in_their_windows_and_pointers_between_them_are_final),
		cmocka_unit_test(a_function_in_a_section_of_its_own_is_an_entry),
		cmocka_unit_test(
			without_one_the_entries_are_the_global_functions_that_no_other_calls),
		cmocka_unit_test(notes_are_kept_by_prefix),
		cmocka_unit_test(instructions_know_their_source_lines),
		cmocka_unit_test(an_object_without_debug_information_loads),
		cmocka_unit_test(an_object_may_lie_at_any_address),
		cmocka_unit_test(a_limit_on_instructions_holds_and_is_named),
		cmocka_unit_test(what_cannot_run_is_refused_with_a_reason),
		cmocka_unit_test(damage_is_named),
		cmocka_unit_test(every_prefix_of_an_object_is_loaded_or_refused),
		cmocka_unit_test(damaged_objects_are_loaded_or_refused),
		cmocka_unit_test(damaged_line_tables_never_stop_a_program),
	};

	if (argc != 2)
		return 2;
	folder = argv[1];
	return cmocka_run_group_tests_name("elf", tests, NULL, NULL);
}
