/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_func.c - code and symbols: one array of instructions, its functions, and where it can be entered.
 *
 * Does not own: linking (elf_reloc.c), whether the instructions make sense (verify.c).
 */
#include "sbpf/elf_object.h"

/* Code sections; each is looked up by name for the line table. */
#define MAX_TEXTS 1024u

/* ---- code ---- */

int elf_read_code(struct elf_loader *l)
{
	struct sbpf_program *prog = l->prog;
	uint64_t n = 0;

	for (uint32_t i = 0; i < l->n_sections; i++) {
		const struct elf_section *s = &l->sections[i];

		if (s->role != ROLE_TEXT)
			continue;
		if (s->hdr.sh_size % sizeof(struct sbpf_insn))
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "section %s is not a whole number of instructions",
					 s->name);
		n += s->hdr.sh_size / sizeof(struct sbpf_insn);
		l->n_texts++;
	}
	if (!n)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "the object has no code; is there a function in it that is not "
				 "static?");
	if (n > l->opts->max_insns || l->n_texts > MAX_TEXTS)
		return sbpf_fail(l->err, NULL, -E2BIG, -1,
				 "the object has %llu instructions in %u sections; the limits are "
				 "%u and %u",
				 (unsigned long long)n, l->n_texts, l->opts->max_insns, MAX_TEXTS);

	prog->insns = malloc(n * sizeof(*prog->insns));
	l->texts = calloc(l->n_texts, sizeof(*l->texts));
	l->linked = calloc(n, 1);
	if (!prog->insns || !l->texts || !l->linked)
		return elf_no_memory(l);
	for (uint32_t i = 0, text = 0; i < l->n_sections; i++) {
		struct elf_section *s = &l->sections[i];
		struct elf_text *t = &l->texts[text];

		if (s->role != ROLE_TEXT)
			continue;
		t->section = sbpf_program_string(prog, s->name);
		if (!t->section)
			return elf_no_memory(l);
		t->start = prog->n_insns;
		t->count = (uint32_t)(s->hdr.sh_size / sizeof(struct sbpf_insn));
		memcpy(&prog->insns[t->start], s->bytes, s->hdr.sh_size);
		prog->n_insns += t->count;
		s->text = text++;
	}
	return 0;
}

/* ---- symbols and functions ---- */

int elf_read_symbols(struct elf_loader *l)
{
	for (uint32_t i = 1; i < l->n_sections; i++) {
		struct elf_section *s = &l->sections[i];
		int r;

		if (s->hdr.sh_type != SHT_SYMTAB)
			continue;
		if (l->symtab || s->hdr.sh_entsize != sizeof(Elf64_Sym) ||
		    s->hdr.sh_size % sizeof(Elf64_Sym))
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "the object's symbol table is damaged");
		r = elf_take(l, s);
		if (!r)
			r = elf_take_strings(l, s->hdr.sh_link, &l->names, &l->names_len);
		if (r)
			return r;
		l->symbols = elf_getdata(s->scn, NULL);
		if (!l->symbols || l->symbols->d_size != s->hdr.sh_size)
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "the symbol table cannot be read: %s", elf_errmsg(-1));
		l->n_symbols = (uint32_t)(s->hdr.sh_size / sizeof(Elf64_Sym));
		l->symtab = i;
	}
	if (!l->symtab)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "the object has no symbols, so no functions; do not strip it");
	return 0;
}

int elf_get_symbol(struct elf_loader *l, uint32_t index, GElf_Sym *sym)
{
	if (index >= l->n_symbols || !gelf_getsym(l->symbols, (int)index, sym) ||
	    sym->st_name >= l->names_len)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "symbol %u lies outside the tables; the object is damaged", index);
	return 0;
}

/* What to call a symbol in a message: a section's has no name of its own. */
const char *elf_symbol_name(struct elf_loader *l, const GElf_Sym *sym)
{
	if (GELF_ST_TYPE(sym->st_info) == STT_SECTION && sym->st_shndx < l->n_sections)
		return l->sections[sym->st_shndx].name;
	return l->names + sym->st_name;
}

static bool is_function(struct elf_loader *l, const GElf_Sym *sym)
{
	return GELF_ST_TYPE(sym->st_info) == STT_FUNC && sym->st_shndx < l->n_sections &&
	       l->sections[sym->st_shndx].role == ROLE_TEXT;
}

static int by_place(const void *a, const void *b)
{
	const struct elf_func *x = a, *y = b;

	if (x->section != y->section)
		return x->section < y->section ? -1 : 1;
	if (x->value != y->value)
		return x->value < y->value ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static int find_functions(struct elf_loader *l)
{
	GElf_Sym sym;
	int r;

	for (uint32_t i = 0; i < l->n_symbols; i++) {
		r = elf_get_symbol(l, i, &sym);
		if (r)
			return r;
		l->n_funcs += is_function(l, &sym);
	}
	if (l->n_funcs > SBPF_MAX_FUNCS)
		return sbpf_fail(l->err, NULL, -E2BIG, -1,
				 "the object has %u functions; the limit is %u", l->n_funcs,
				 SBPF_MAX_FUNCS);
	l->funcs = calloc((size_t)l->n_funcs + 1, sizeof(*l->funcs));
	if (!l->funcs)
		return elf_no_memory(l);
	for (uint32_t i = 0, n = 0; i < l->n_symbols; i++) {
		unsigned char visibility;

		elf_get_symbol(l, i, &sym);
		if (!is_function(l, &sym))
			continue;
		visibility = GELF_ST_VISIBILITY(sym.st_other);
		l->funcs[n++] = (struct elf_func){
			.section = sym.st_shndx,
			.index = i,
			.value = sym.st_value,
			.size = sym.st_size,
			.global = GELF_ST_BIND(sym.st_info) != STB_LOCAL &&
				  (visibility == STV_DEFAULT || visibility == STV_PROTECTED),
		};
	}
	qsort(l->funcs, l->n_funcs, sizeof(*l->funcs), by_place);
	return 0;
}

/* One function of the program for each place that symbols name; all code belongs to one. */
static int add_function(struct elf_loader *l, struct elf_func *f, uint64_t *end)
{
	struct sbpf_program *prog = l->prog;
	const struct elf_section *s = &l->sections[f->section];
	const uint64_t unit = sizeof(struct sbpf_insn);
	uint32_t start = l->texts[s->text].start + (uint32_t)(f->value / unit);
	GElf_Sym sym;
	int r = elf_get_symbol(l, f->index, &sym);

	if (r)
		return r;
	if (!f->size || f->value % unit || f->size % unit || f->value > s->hdr.sh_size ||
	    f->size > s->hdr.sh_size - f->value)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "function %s does not lie in section %s; the object is damaged",
				 elf_symbol_name(l, &sym), s->name);
	if (prog->n_funcs && prog->funcs[prog->n_funcs - 1].start == start &&
	    f->value + f->size == *end) {
		f->func = prog->n_funcs - 1; /* another name for the same code */
		return 0;
	}
	if (f->value != *end)
		return sbpf_fail(
			l->err, NULL, -ENOEXEC, -1,
			"section %s: function %s starts at byte %llu, the one before it ends "
			"at %llu; code must belong to one function each",
			s->name, elf_symbol_name(l, &sym), (unsigned long long)f->value,
			(unsigned long long)*end);
	*end = f->value + f->size;
	f->func = prog->n_funcs;
	prog->funcs[prog->n_funcs] = (struct sbpf_func){
		.start = start,
		.end = start + (uint32_t)(f->size / unit),
		.name = sbpf_program_string(prog, elf_symbol_name(l, &sym)),
	};
	return prog->funcs[prog->n_funcs++].name ? 0 : elf_no_memory(l);
}

int elf_split_functions(struct elf_loader *l)
{
	uint32_t next = 0;
	int r = find_functions(l);

	if (r)
		return r;
	l->prog->funcs = calloc((size_t)l->n_funcs + 1, sizeof(*l->prog->funcs));
	if (!l->prog->funcs)
		return elf_no_memory(l);
	for (uint32_t i = 0; i < l->n_sections; i++) {
		const struct elf_section *s = &l->sections[i];
		uint64_t end = 0;

		if (s->role != ROLE_TEXT)
			continue;
		for (; next < l->n_funcs && l->funcs[next].section == i; next++) {
			r = add_function(l, &l->funcs[next], &end);
			if (r)
				return r;
		}
		if (end != s->hdr.sh_size)
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "section %s: the code from byte %llu on belongs to no "
					 "function symbol; compile it as a C function",
					 s->name, (unsigned long long)end);
	}
	return 0;
}

/* ---- what the program offers ---- */

static bool is_plain_text(const char *section)
{
	return !strcmp(section, ".text") || elf_starts_with(section, ".text.");
}

/* By function: another one calls it. */
static uint8_t *find_called(struct elf_loader *l)
{
	const struct sbpf_program *prog = l->prog;
	uint8_t *called = calloc(prog->n_funcs, 1);

	for (uint32_t f = 0; called && f < prog->n_funcs; f++) {
		for (uint32_t pc = prog->funcs[f].start; pc < prog->funcs[f].end; pc++) {
			const struct sbpf_insn *insn = &prog->insns[pc];
			uint32_t callee;

			if (sbpf_is_lddw(insn))
				pc++;
			if (insn->code != (BPF_JMP | BPF_CALL) || insn->src != BPF_CALL_LOCAL)
				continue;
			callee = sbpf_func_at(prog, (uint32_t)(insn - prog->insns + 1 + insn->imm));
			if (callee != f)
				called[callee] = 1;
		}
	}
	return called;
}

/* Global functions in sections of their own; without any, those of .text that nobody calls. */
int elf_add_entries(struct elf_loader *l)
{
	struct sbpf_program *prog = l->prog;
	uint8_t *called = find_called(l);
	bool special = false;

	prog->entries = calloc((size_t)l->n_funcs + 1, sizeof(*prog->entries));
	if (!called || !prog->entries) {
		free(called);
		return elf_no_memory(l);
	}
	for (uint32_t i = 0; i < l->n_funcs; i++)
		special |=
			l->funcs[i].global && !is_plain_text(l->sections[l->funcs[i].section].name);
	for (uint32_t i = 0; i < l->n_funcs; i++) {
		const struct elf_func *f = &l->funcs[i];
		const struct elf_section *s = &l->sections[f->section];
		struct sbpf_entry *e = &prog->entries[prog->n_entries];
		GElf_Sym sym;

		if (!f->global || is_plain_text(s->name) == special ||
		    (!special && called[f->func]) || elf_get_symbol(l, f->index, &sym))
			continue;
		e->name = sbpf_program_string(prog, elf_symbol_name(l, &sym));
		e->section = l->texts[s->text].section;
		e->func = f->func;
		if (!e->name) {
			free(called);
			return elf_no_memory(l);
		}
		prog->n_entries++;
	}
	free(called);
	if (!prog->n_entries)
		return sbpf_fail(l->err, NULL, -EINVAL, -1,
				 "the object has no function to start at; make one that is not "
				 "static and that no other calls");
	return 0;
}
