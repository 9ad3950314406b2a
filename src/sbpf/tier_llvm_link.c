/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm_link.c - the compiler's object becomes code: laid out, relocated, then executable and no longer writable.
 *
 * Owns: the ELF object's sections, symbols and relocations (x86-64), and the pages.
 * Text comes first, constants behind it, then the table of outside addresses (the GOT), so that all distances fit 32 bits.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sbpf/tier_llvm.h"

#define MAX_SECTIONS 4096u
#define MAX_ALIGN    4096u
#define MAX_IMAGE    (256u << 20)
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
	uint64_t text_end, image_end, got_at, got_end;
	llvm_resolve resolve;
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
		if (l->image_end > MAX_IMAGE)
			return refuse(l, "its size");
	}
	return 0;
}

static int place_all(struct linker *l)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int r;

	for (uint32_t i = 0; i < l->n_sections; i++)
		l->at[i] = NOWHERE;
	r = place_sections(l, true);
	if (r)
		return r;
	l->image->used = l->image_end;
	l->image_end = (l->image_end + page - 1) / page * page;
	l->text_end = l->image_end;
	r = place_sections(l, false);
	if (r)
		return r;
	l->got_at = l->got_end = (l->image_end + 7) & ~7ull;
	for (uint64_t i = 0; i < l->n_syms; i++)
		l->got[i] = NOWHERE;
	/* Room for all that could ask; an object of ours has some twenty symbols. */
	l->image_end = l->got_at + 8 * l->n_syms;
	if (!l->text_end || l->image_end > MAX_IMAGE)
		return refuse(l, "its size");
	l->image->text_len = l->text_end;
	l->image->mem_len = (l->image_end + page - 1) / page * page;
	return 0;
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

static uint64_t got_entry(struct linker *l, uint64_t index)
{
	const Elf64_Sym *sym = &l->syms[index];
	uint64_t at = symbol_at(l, sym), address;

	if (l->got[index] != NOWHERE)
		return l->got[index];
	if (at != NOWHERE)
		address = (uintptr_t)l->image->mem + at;
	else
		address = l->resolve(string_at(l, sym->st_name));
	if (!address)
		return NOWHERE;
	memcpy(l->image->mem + l->got_end, &address, sizeof(address));
	l->got[index] = l->got_end;
	l->got_end += 8;
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
	case R_X86_64_64:
		to = symbol_at(l, &l->syms[index]);
		v = to + (uint64_t)rela->r_addend + (uintptr_t)l->image->mem;
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
		    sbpf_llvm_lines(p, l->sh[i].sh_size, sequence_start, l, l->image))
			l->image->n_places = 0;
	}
}

static void define_entries(struct linker *l, llvm_define define, void *arg)
{
	for (uint64_t i = 0; i < l->n_syms; i++) {
		uint64_t at = symbol_at(l, &l->syms[i]);
		const char *name = string_at(l, l->syms[i].st_name);

		if (at < l->image->used && name[0] == 'e')
			define(arg, name, (uint32_t)at);
	}
}

static int fill(struct linker *l)
{
	struct llvm_image *image = l->image;
	void *mem = mmap(NULL, image->mem_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	int r;

	if (mem == MAP_FAILED) {
		l->why = "no memory";
		return -errno;
	}
	image->mem = mem;
	memset(image->mem, 0xcc, image->text_len);
	for (uint32_t i = 0; i < l->n_sections; i++)
		if (l->at[i] != NOWHERE)
			memcpy(image->mem + l->at[i], contents(l, &l->sh[i]), l->sh[i].sh_size);
	r = relocate_all(l);
	if (r)
		return r;
	if (mprotect(image->mem, image->text_len, PROT_READ | PROT_EXEC) ||
	    mprotect(image->mem + image->text_len, image->mem_len - image->text_len, PROT_READ)) {
		l->why = "this system does not let the process make code executable";
		return -errno;
	}
	return 0;
}

int sbpf_llvm_link(const uint8_t *bytes, size_t len, llvm_resolve resolve, llvm_define define,
		   void *arg, struct llvm_image *image, const char **why)
{
	struct linker l = {.len = len, .resolve = resolve, .image = image, .why = "no memory"};
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
	if (!r) {
		read_lines(&l);
		define_entries(&l, define, arg);
	}
out:
	if (r)
		sbpf_llvm_unmap(image);
	*why = l.why;
	free(l.got);
	free(l.at);
	free(copy);
	return r;
}

void sbpf_llvm_unmap(struct llvm_image *image)
{
	if (image->mem)
		munmap(image->mem, image->mem_len);
	free(image->places);
	memset(image, 0, sizeof(*image));
}
