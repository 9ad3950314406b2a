/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm_link.c - LLVM's object becomes an image: laid out and relocated, with nothing left that depends on where it will be.
 *
 * Owns: the ELF object's sections, symbols and relocations (x86-64).
 * Text comes first, constants behind it, then the table of outside addresses (the GOT), so that all distances fit 32 bits.
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/jit_llvm_link.h"

#define MAX_SECTIONS 4096u
#define MAX_ALIGN    4096u
#define MAX_OUTSIDE  128u
#define NOWHERE      UINT64_MAX

struct linker {
	const uint8_t *bytes;
	size_t len;
	const Elf64_Ehdr *eh;
	const Elf64_Shdr *sh;
	uint32_t n_sections;
	const Elf64_Sym *syms;
	uint64_t n_syms;
	const char *strings;
	uint64_t strings_len;
	uint64_t *at;  /* of each section, in the image, or NOWHERE */
	uint64_t *got; /* of each outside symbol that has one: its place in the image */
	uint64_t text_end, image_end, got_at;
	uint32_t n_funcs;
	struct llvm_image *image;
	const char *why;
	const Elf64_Rela *line_relas; /* of .debug_line */
	uint64_t n_line_relas;
};

static int refuse(struct linker *l, const char *why)
{
	l->why = why;
	return -EBADMSG;
}

/* [off, off + n * size) of the object, aligned to 8, or NULL. */
static const void *table(const struct linker *l, uint64_t off, uint64_t n, uint64_t size)
{
	if (off % 8 || n > l->len / size || off > l->len || n * size > l->len - off)
		return NULL;
	return l->bytes + off;
}

static const uint8_t *contents(const struct linker *l, const Elf64_Shdr *sh)
{
	if (sh->sh_type == SHT_NOBITS || sh->sh_offset > l->len ||
	    sh->sh_size > l->len - sh->sh_offset)
		return NULL;
	return l->bytes + sh->sh_offset;
}

/* A string of the symbols' table that ends inside it, or "". */
static const char *string_at(const struct linker *l, uint64_t off)
{
	if (off >= l->strings_len || l->strings[l->strings_len - 1])
		return "";
	return l->strings + off;
}

static int read_symbols(struct linker *l, const Elf64_Shdr *sh)
{
	const Elf64_Shdr *str = sh->sh_link < l->n_sections ? &l->sh[sh->sh_link] : NULL;

	if (l->syms || !str)
		return refuse(l, "symbol tables");
	l->n_syms = sh->sh_size / sizeof(Elf64_Sym);
	l->syms = table(l, sh->sh_offset, l->n_syms, sizeof(Elf64_Sym));
	l->strings = (const char *)contents(l, str);
	l->strings_len = str->sh_size;
	if (!l->syms || !l->strings || !l->strings_len)
		return refuse(l, "symbols");
	return 0;
}

static int read_headers(struct linker *l)
{
	l->eh = table(l, 0, 1, sizeof(Elf64_Ehdr));
	if (!l->eh || memcmp(l->eh->e_ident, ELFMAG, SELFMAG) ||
	    l->eh->e_ident[EI_CLASS] != ELFCLASS64 || l->eh->e_type != ET_REL ||
	    l->eh->e_machine != EM_X86_64)
		return refuse(l, "not an x86-64 object");
	l->n_sections = l->eh->e_shnum;
	l->sh = table(l, l->eh->e_shoff, l->n_sections, sizeof(Elf64_Shdr));
	if (!l->sh || !l->n_sections || l->n_sections > MAX_SECTIONS)
		return refuse(l, "section headers");
	for (uint32_t i = 0; i < l->n_sections; i++) {
		int r = l->sh[i].sh_type == SHT_SYMTAB ? read_symbols(l, &l->sh[i]) : 0;

		if (r)
			return r;
	}
	return l->syms ? 0 : refuse(l, "no symbols");
}

/* ---- layout ---- */

static bool is_wanted(const Elf64_Shdr *sh, bool text)
{
	if (!(sh->sh_flags & SHF_ALLOC) || sh->sh_type == SHT_X86_64_UNWIND || !sh->sh_size)
		return false;
	return text == !!(sh->sh_flags & SHF_EXECINSTR);
}

static int place_sections(struct linker *l, bool text)
{
	for (uint32_t i = 0; i < l->n_sections; i++) {
		const Elf64_Shdr *sh = &l->sh[i];
		uint64_t align = sh->sh_addralign ? sh->sh_addralign : 1;

		if (!is_wanted(sh, text))
			continue;
		/* Nothing that generated code could write. */
		if (!contents(l, sh) || align > MAX_ALIGN || align & (align - 1) ||
		    sh->sh_flags & SHF_TLS)
			return refuse(l, "a section");
		l->image_end = (l->image_end + align - 1) & ~(align - 1);
		l->at[i] = l->image_end;
		l->image_end += sh->sh_size;
		if (l->image_end > SBPF_LLVM_MAX_IMAGE)
			return refuse(l, "its size");
	}
	return 0;
}

static int place_all(struct linker *l)
{
	int r;

	for (uint32_t i = 0; i < l->n_sections; i++)
		l->at[i] = NOWHERE;
	r = place_sections(l, true);
	if (r)
		return r;
	l->image->text = l->image_end;
	l->image_end = l->text_end = sbpf_llvm_up(l->image_end, SBPF_LLVM_PAGE);
	r = place_sections(l, false);
	if (r)
		return r;
	l->image->constants = l->image_end - l->text_end;
	l->got_at = sbpf_llvm_up(l->image_end, 8);
	for (uint64_t i = 0; i < l->n_syms; i++)
		l->got[i] = NOWHERE;
	return l->image->text ? 0 : refuse(l, "its size");
}

/* ---- relocations ---- */

/* Where in the image a symbol of ours is, or NOWHERE. */
static uint64_t symbol_at(const struct linker *l, const Elf64_Sym *sym)
{
	if (sym->st_shndx == SHN_UNDEF || sym->st_shndx >= l->n_sections ||
	    l->at[sym->st_shndx] == NOWHERE || sym->st_value > l->sh[sym->st_shndx].sh_size)
		return NOWHERE;
	return l->at[sym->st_shndx] + sym->st_value;
}

/* The number of an outside symbol, or -1. */
static int outside_symbol(const char *name)
{
	static const char *const names[SBPF_LLVM_OUTSIDE - SBPF_LLVM_DUE] = {
		"due",       "memcpy",    "memmove",  "memset",
		"__udivti3", "__umodti3", "__divti3", "__modti3"};
	unsigned int id;
	char tail;

	if (sscanf(name, "h%u%c", &id, &tail) == 1 && id < SBPF_LLVM_DUE)
		return (int)id;
	for (int i = 0; i < SBPF_LLVM_OUTSIDE - SBPF_LLVM_DUE; i++)
		if (!strcmp(name, names[i]))
			return SBPF_LLVM_DUE + i;
	return -1;
}

static uint64_t got_entry(struct linker *l, uint64_t index)
{
	struct llvm_image *image = l->image;
	int id;

	if (l->got[index] != NOWHERE)
		return l->got[index];
	id = outside_symbol(string_at(l, l->syms[index].st_name));
	if (l->syms[index].st_shndx != SHN_UNDEF || id < 0 || image->n_outside == MAX_OUTSIDE)
		return NOWHERE;
	l->got[index] = l->got_at + 8 * image->n_outside;
	image->outside[image->n_outside++] = (uint32_t)id;
	return l->got[index];
}

static int relocate(struct linker *l, uint32_t section, const Elf64_Rela *rela)
{
	uint64_t size = l->sh[section].sh_size, index = ELF64_R_SYM(rela->r_info), at, to, v;
	unsigned int bytes = 4;

	if (index >= l->n_syms || rela->r_offset > size || size - rela->r_offset < 4)
		return refuse(l, "a relocation's place");
	at = l->at[section] + rela->r_offset;
	switch (ELF64_R_TYPE(rela->r_info)) {
	case R_X86_64_GOTPCREL:
	case R_X86_64_GOTPCRELX:
	case R_X86_64_REX_GOTPCRELX:
		to = got_entry(l, index);
		v = to + (uint64_t)rela->r_addend - at;
		break;
	case R_X86_64_PC32:
	case R_X86_64_PLT32:
		to = symbol_at(l, &l->syms[index]);
		v = to + (uint64_t)rela->r_addend - at;
		break;
	case R_X86_64_PC64:
		to = symbol_at(l, &l->syms[index]);
		v = to + (uint64_t)rela->r_addend - at;
		bytes = 8;
		break;
	default:
		return refuse(l, "a kind of relocation");
	}
	if (to == NOWHERE)
		return refuse(l, "a symbol");
	if (size - rela->r_offset < bytes || (bytes == 4 && (int64_t)v != (int32_t)v))
		return refuse(l, "a relocation's value");
	memcpy(l->image->mem + at, &v, bytes);
	return 0;
}

static bool is_named(const struct linker *l, const Elf64_Shdr *sh, const char *name)
{
	const Elf64_Shdr *names =
		l->eh->e_shstrndx < l->n_sections ? &l->sh[l->eh->e_shstrndx] : NULL;
	const uint8_t *p = names ? contents(l, names) : NULL;
	size_t n = strlen(name) + 1;

	return p && sh->sh_name < names->sh_size && names->sh_size - sh->sh_name >= n &&
	       !memcmp(p + sh->sh_name, name, n);
}

static int relocate_all(struct linker *l)
{
	for (uint32_t i = 0; i < l->n_sections; i++) {
		const Elf64_Shdr *sh = &l->sh[i];
		uint64_t n = sh->sh_size / sizeof(Elf64_Rela);
		const Elf64_Rela *relas;

		if (sh->sh_type != SHT_RELA || sh->sh_info >= l->n_sections)
			continue;
		relas = table(l, sh->sh_offset, n, sizeof(Elf64_Rela));
		if (!relas)
			return refuse(l, "relocations");
		if (is_named(l, &l->sh[sh->sh_info], ".debug_line")) {
			l->line_relas = relas;
			l->n_line_relas = n;
		}
		for (uint64_t k = 0; l->at[sh->sh_info] != NOWHERE && k < n; k++) {
			int r = relocate(l, sh->sh_info, &relas[k]);

			if (r)
				return r;
		}
	}
	return 0;
}

/* ---- all together ---- */

static uint64_t sequence_start(void *arg, size_t pos)
{
	const struct linker *l = arg;

	for (uint64_t i = 0; i < l->n_line_relas; i++) {
		const Elf64_Rela *rela = &l->line_relas[i];
		uint64_t index = ELF64_R_SYM(rela->r_info), at;

		if (rela->r_offset != pos || index >= l->n_syms)
			continue;
		at = symbol_at(l, &l->syms[index]);
		return at == NOWHERE ? NOWHERE : at + (uint64_t)rela->r_addend;
	}
	return NOWHERE;
}

/* Without lines errors name no instruction, which is no reason to refuse. */
static void read_lines(struct linker *l)
{
	for (uint32_t i = 0; i < l->n_sections; i++) {
		const uint8_t *p = contents(l, &l->sh[i]);

		if (p && l->line_relas && is_named(l, &l->sh[i], ".debug_line") &&
		    jit_llvm_lines(p, l->sh[i].sh_size, sequence_start, l, l->image))
			l->image->n_places = 0;
	}
}

static int find_starts(struct linker *l)
{
	struct llvm_image *image = l->image;

	image->starts = calloc(l->n_funcs, sizeof(*image->starts));
	if (!image->starts)
		return -ENOMEM;
	for (uint64_t i = 0; i < l->n_syms && image->n_starts < l->n_funcs; i++) {
		uint64_t at = symbol_at(l, &l->syms[i]);
		unsigned int f;
		char tail;

		if (at < image->text &&
		    sscanf(string_at(l, l->syms[i].st_name), "e%u%c", &f, &tail) == 1 &&
		    f < l->n_funcs)
			image->starts[image->n_starts++] =
				(struct sbpf_llvm_start){.func = f, .at = (uint32_t)at};
	}
	return 0;
}

static int fill(struct linker *l)
{
	struct llvm_image *image = l->image;

	image->mem = malloc(l->got_at + 8);
	image->outside = calloc(MAX_OUTSIDE, sizeof(*image->outside));
	if (!image->mem || !image->outside)
		return -ENOMEM;
	memset(image->mem, 0xcc, l->text_end);
	memset(image->mem + l->text_end, 0, l->got_at + 8 - l->text_end);
	for (uint32_t i = 0; i < l->n_sections; i++)
		if (l->at[i] != NOWHERE)
			memcpy(image->mem + l->at[i], contents(l, &l->sh[i]), l->sh[i].sh_size);
	return relocate_all(l);
}

int jit_llvm_link(const uint8_t *bytes, size_t len, uint32_t n_funcs, struct llvm_image *image,
		  const char **why)
{
	struct linker l = {.len = len, .n_funcs = n_funcs, .image = image, .why = "no memory"};
	/* Tables in it are read in place, so it must be aligned. */
	uint8_t *copy = malloc(len);
	int r = -ENOMEM;

	memset(image, 0, sizeof(*image));
	if (!copy)
		goto out;
	memcpy(copy, bytes, len);
	l.bytes = copy;
	r = read_headers(&l);
	if (r)
		goto out;
	l.at = calloc(l.n_sections, sizeof(*l.at));
	l.got = calloc(l.n_syms + 1, sizeof(*l.got));
	r = l.at && l.got ? place_all(&l) : -ENOMEM;
	if (!r)
		r = fill(&l);
	if (!r)
		r = find_starts(&l);
	if (!r)
		read_lines(&l);
out:
	if (r)
		jit_llvm_unlink(image);
	*why = l.why;
	free(l.got);
	free(l.at);
	free(copy);
	return r;
}

void jit_llvm_unlink(struct llvm_image *image)
{
	free(image->mem);
	free(image->outside);
	free(image->starts);
	free(image->places);
	memset(image, 0, sizeof(*image));
}
