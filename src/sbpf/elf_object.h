/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_object.h - what the files of the loader share.
 *
 * An object goes one way: elf.c finds its sections and lays out data, elf_func.c makes functions and
 * entries of symbols, elf_btf.c adds source lines, elf_reloc.c links.  The object is hostile: every number
 * in it is checked before use, and section bytes are taken through elf_take(), which never gives out more
 * bytes in total than the object has, so time and memory are proportional to its size even if its
 * sections overlap.
 */
#ifndef SBPF_ELF_OBJECT_H
#define SBPF_ELF_OBJECT_H

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/internal.h"

struct elf_text { /* a section of code */
	const char *section;
	uint32_t start, count; /* its instructions in the linked program */
};

enum elf_role {
	ROLE_NONE, /* not for us */
	ROLE_TEXT,
	ROLE_RODATA,
	ROLE_DATA,
	ROLE_BSS,
	ROLE_NOTE,
};

struct elf_section {
	Elf64_Shdr hdr;
	Elf_Scn *scn;
	const char *name;
	const uint8_t *bytes; /* hdr.sh_size of them; NULL until taken, and in ROLE_BSS */
	enum elf_role role;
	uint32_t text;    /* ROLE_TEXT: index into texts */
	uint64_t address; /* in the sandbox: ROLE_RODATA, ROLE_DATA, ROLE_BSS */
};

struct elf_func {
	uint32_t section;
	uint32_t index; /* in the symbol table */
	uint64_t value, size;
	uint32_t func; /* in prog->funcs */
	bool global;
};

struct elf_loader {
	struct sbpf_program *prog;
	const struct sbpf_load_opts *opts;
	struct sbpf_error *err;
	Elf *elf;
	size_t len;  /* of the object */
	size_t left; /* bytes that take() may still give out */
	struct elf_section *sections;
	uint32_t n_sections;
	struct elf_text *texts;
	uint32_t n_texts;
	Elf_Data *symbols;
	uint32_t n_symbols;
	uint32_t symtab;   /* its section, 0 if none */
	const char *names; /* of symbols; ends in a zero byte */
	size_t names_len;
	struct elf_func *funcs;
	uint32_t n_funcs;
	uint64_t *commons; /* addresses of COMMON symbols by symbol, NULL if there is none */
	uint8_t *linked;   /* by instruction: it has been relocated */
};

static inline bool elf_starts_with(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

/* elf.c: the failure of an allocation; a section's bytes, once checked. */
int elf_no_memory(struct elf_loader *l);
int elf_take(struct elf_loader *l, struct elf_section *s);
/* A string table: its last byte is zero, so that every offset inside it is a string. */
int elf_take_strings(struct elf_loader *l, uint32_t index, const char **strings, size_t *len);

/* elf_func.c: the steps up to functions; those after linking; a symbol, and what to call it. */
int elf_read_code(struct elf_loader *l);
int elf_read_symbols(struct elf_loader *l);
int elf_split_functions(struct elf_loader *l);
int elf_add_entries(struct elf_loader *l);
int elf_get_symbol(struct elf_loader *l, uint32_t index, GElf_Sym *sym);
const char *elf_symbol_name(struct elf_loader *l, const GElf_Sym *sym);

/* elf_btf.c: lines of the code from .BTF and .BTF.ext.  Malformed ones give no lines; -ENOMEM. */
int elf_read_lines(struct sbpf_program *prog, const struct elf_text *texts, uint32_t n_texts,
		   const void *btf, size_t btf_len, const void *ext, size_t ext_len);

/* elf_reloc.c: every relocation, and every call without one. */
int elf_relocate(struct elf_loader *l);

#endif /* SBPF_ELF_OBJECT_H */
