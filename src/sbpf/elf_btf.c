/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_btf.c - which source line an instruction came from, read from .BTF and .BTF.ext.
 *
 * Owns: filling prog->lines.  Lines serve messages only, so hostile or damaged tables mean fewer lines,
 * never a program that does not load.  Layout: Linux Documentation/bpf/btf.rst, sections 2 and 4.
 */
#include "sbpf/elf_object.h"

#define BTF_MAGIC       0xeb9fu
#define BTF_HEADER      24u /* bytes up to and including str_len */
#define BTF_EXT_HEADER  24u /* up to and including line_info_len */
#define BTF_LINE_RECORD 16u /* insn_off, file_name_off, line_off, line << 10 | column */
/* Each distinct file name is copied once; no compiler names so many. */
#define MAX_FILES 4096u
#define MAX_PATH  4096u

struct bytes {
	const uint8_t *p;
	size_t len;
};

struct record {
	uint32_t insn;
	uint32_t line;
	uint32_t file; /* offset of its name in the strings */
};

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* [@off, @off + @len) of @all, or nothing if it is not inside. */
static struct bytes part(struct bytes all, uint64_t off, uint64_t len)
{
	if (off > all.len || len > all.len - off)
		return (struct bytes){NULL, 0};
	return (struct bytes){all.p + off, (size_t)len};
}

/* The part of a .BTF or .BTF.ext whose offset and length stand at @field of the header. */
static struct bytes header_part(struct bytes all, size_t header, size_t field)
{
	uint16_t magic;

	if (all.len < header)
		return (struct bytes){NULL, 0};
	memcpy(&magic, all.p, sizeof(magic));
	if (magic != BTF_MAGIC || get32(all.p + 4) < header)
		return (struct bytes){NULL, 0};
	return part(all, (uint64_t)get32(all.p + 4) + get32(all.p + field),
		    get32(all.p + field + 4));
}

/* Strings end in a zero byte, the last one too, so that any offset inside gives a string. */
static struct bytes btf_strings(struct bytes btf)
{
	struct bytes strings = header_part(btf, BTF_HEADER, 16);

	if (strings.len && strings.p[strings.len - 1])
		strings.len = 0;
	return strings;
}

static const char *string_at(struct bytes strings, uint32_t off)
{
	return off < strings.len ? (const char *)strings.p + off : NULL;
}

static const struct elf_text *find_text(const struct elf_text *texts, uint32_t n,
					const char *section)
{
	for (uint32_t i = 0; section && i < n; i++)
		if (!strcmp(texts[i].section, section))
			return &texts[i];
	return NULL;
}

/*
 * Walk the line table: a record size, then for each section its name, a count and so many records.
 * Returns how many records are about code we have, up to the first malformed one; @out (may be NULL)
 * receives them.  Each section of code stands there once, so there are no more than @n_texts.
 */
static size_t walk(struct bytes info, struct bytes strings, const struct elf_text *texts,
		   uint32_t n_texts, struct record *out)
{
	size_t pos = 4, n = 0, size;

	if (info.len < 4)
		return 0;
	size = get32(info.p);
	if (size < BTF_LINE_RECORD)
		return 0;
	for (uint32_t i = 0; i < n_texts && info.len - pos >= 8; i++) {
		const struct elf_text *text =
			find_text(texts, n_texts, string_at(strings, get32(info.p + pos)));
		uint32_t count = get32(info.p + pos + 4);

		pos += 8;
		for (; count && info.len - pos >= size; count--, pos += size) {
			const uint8_t *r = info.p + pos;
			uint32_t insn = get32(r) / sizeof(struct sbpf_insn);
			uint32_t line = get32(r + 12) >> 10;

			if (!text || insn >= text->count || !line || get32(r + 4) >= strings.len)
				continue;
			if (out)
				out[n] = (struct record){text->start + insn, line, get32(r + 4)};
			n++;
		}
		if (count)
			break;
	}
	return n;
}

static int by_file(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	return (x->file > y->file) - (x->file < y->file);
}

static int by_insn(const void *a, const void *b)
{
	const struct sbpf_line *x = a, *y = b;

	return (x->insn > y->insn) - (x->insn < y->insn);
}

/* Keeps the name without its folders, which are the compiling machine's and tell a reader nothing. */
static const char *keep_file(struct sbpf_program *prog, const char *path)
{
	const char *slash = strrchr(path, '/');

	return sbpf_program_string(prog, slash ? slash + 1 : path);
}

static int fill_lines(struct sbpf_program *prog, struct record *records, size_t n,
		      struct bytes strings)
{
	const char *file = NULL, *path;
	uint32_t files = 0;
	bool fits = false;

	qsort(records, n, sizeof(*records), by_file);
	for (size_t i = 0; i < n; i++) {
		if (!i || records[i].file != records[i - 1].file) {
			if (files++ == MAX_FILES)
				break;
			path = string_at(strings, records[i].file);
			fits = strnlen(path, MAX_PATH) < MAX_PATH;
			file = fits ? keep_file(prog, path) : NULL;
			if (fits && !file)
				return -ENOMEM;
		}
		if (!fits)
			continue;
		prog->lines[prog->n_lines++] = (struct sbpf_line){
			.insn = records[i].insn, .line = records[i].line, .file = file};
	}
	qsort(prog->lines, prog->n_lines, sizeof(*prog->lines), by_insn);
	return 0;
}

int elf_read_lines(struct sbpf_program *prog, const struct elf_text *texts, uint32_t n_texts,
		   const void *btf, size_t btf_len, const void *ext, size_t ext_len)
{
	struct bytes strings = btf_strings((struct bytes){btf, btf_len});
	struct bytes info = header_part((struct bytes){ext, ext_len}, BTF_EXT_HEADER, 16);
	size_t n = walk(info, strings, texts, n_texts, NULL);
	struct record *records;
	int r = -ENOMEM;

	if (!n)
		return 0;
	records = malloc(n * sizeof(*records));
	prog->lines = malloc(n * sizeof(*prog->lines));
	if (records && prog->lines) {
		walk(info, strings, texts, n_texts, records);
		r = fill_lines(prog, records, n, strings);
	}
	free(records);
	return r;
}
