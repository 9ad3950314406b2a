/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_reloc.c - linking: addresses of data, targets of calls, helpers by name.
 */
#include "sbpf/elf_object.h"

/* Relocations, LLVM docs/BPF: "ELF relocations"; A is the addend found in place, S the symbol. */
enum {
	RELOC_NONE = 0,
	RELOC_LDDW = 1,  /* R_BPF_64_64: S + A in the two immediates of a lddw */
	RELOC_ABS64 = 2, /* R_BPF_64_ABS64: S + A in eight bytes of data */
	RELOC_ABS32 = 3, /* R_BPF_64_ABS32: S + A in four bytes of data */
	RELOC_CALL = 10, /* R_BPF_64_32: S / 8 + A in the immediate of a call */
};

/* Levenshtein's distance between two names; the rows hold one name of at most MAX_NAME bytes. */
#define MAX_NAME 63u
static unsigned int distance(const char *a, const char *b)
{
	unsigned int row[MAX_NAME + 1], n = (unsigned int)strlen(b);

	for (unsigned int j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned int i = 1; *a; a++, i++) {
		unsigned int diagonal = row[0];

		row[0] = i;
		for (unsigned int j = 1; j <= n; j++) {
			unsigned int best = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[n];
}

/* The helper that was probably meant, or NULL. */
static const char *nearest_helper(const char *name)
{
	unsigned int best = 4; /* more typing errors than three are another word */
	const char *nearest = NULL;

	if (strlen(name) > MAX_NAME)
		return NULL;
	for (uint32_t i = 0; i < sbpf_n_helpers; i++) {
		const char *helper = sbpf_helpers[i].name, *bare = strchr(helper, '_');
		unsigned int d = distance(name, helper);
		unsigned int d_bare = bare ? distance(name, bare + 1) : d;

		d = d_bare < d ? d_bare : d;
		if (d < best && d < strlen(name)) {
			best = d;
			nearest = helper;
		}
	}
	return nearest;
}

static int undefined(struct elf_loader *l, const char *name, int64_t pc)
{
	const char *helper = nearest_helper(name);

	if (helper)
		return sbpf_fail(l->err, l->prog, -EINVAL, pc,
				 "%s is not defined; did you mean the helper %s?", name, helper);
	return sbpf_fail(l->err, l->prog, -EINVAL, pc,
			 "%s is not defined in the object and is no helper of this runtime; define "
			 "it in the same source file",
			 name);
}

/* A section's symbol stands for any function in it: @offset says which. */
static const char *function_name(struct elf_loader *l, const struct elf_section *s, uint64_t offset,
				 const char *fallback)
{
	uint64_t pc = offset / sizeof(struct sbpf_insn);

	if (pc >= l->texts[s->text].count)
		return fallback;
	return l->prog->funcs[sbpf_func_at(l->prog, l->texts[s->text].start + (uint32_t)pc)].name;
}

/* S + A: where a symbol of data, and so many bytes more, will be in the sandbox. */
static int resolve_data(struct elf_loader *l, uint32_t index, uint64_t addend, int64_t pc,
			uint64_t *address)
{
	const struct elf_section *s;
	const char *name;
	GElf_Sym sym;
	int r = elf_get_symbol(l, index, &sym);

	if (r)
		return r;
	name = elf_symbol_name(l, &sym);
	if (sym.st_shndx == SHN_UNDEF)
		return undefined(l, name, pc);
	if (sym.st_shndx == SHN_COMMON) {
		*address = l->commons[index] + addend;
		return 0;
	}
	if (sym.st_shndx >= l->n_sections)
		return sbpf_fail(l->err, l->prog, -ENOEXEC, pc, "%s has no section", name);
	s = &l->sections[sym.st_shndx];
	switch (s->role) {
	case ROLE_RODATA:
	case ROLE_DATA:
	case ROLE_BSS:
		break;
	case ROLE_TEXT:
		return sbpf_fail(l->err, l->prog, -EINVAL, pc,
				 "the address of function %s is taken; indirect calls are not "
				 "supported: call functions by name, or choose with a switch",
				 function_name(l, s, sym.st_value + addend, name));
	case ROLE_NONE:
	case ROLE_NOTE:
		return sbpf_fail(
			l->err, l->prog, -EINVAL, pc,
			"%s is in section %s, which a program cannot see; BPF maps are not "
			"supported, use globals, arguments or the context",
			name, s->name);
	}
	if (sym.st_value > s->hdr.sh_size)
		return sbpf_fail(l->err, l->prog, -ENOEXEC, pc, "%s lies outside section %s", name,
				 s->name);
	*address = s->address + sym.st_value + addend;
	return 0;
}

static int link_lddw(struct elf_loader *l, uint32_t symbol, uint32_t pc, uint32_t end)
{
	struct sbpf_insn *insn = &l->prog->insns[pc];
	uint64_t address = 0;
	int r;

	if (!sbpf_is_lddw(insn) || insn->src || pc + 1 == end)
		return sbpf_fail(
			l->err, l->prog, -ENOEXEC, pc,
			"a data relocation is not on an instruction that loads an address");
	r = resolve_data(l, symbol, (uint64_t)(int64_t)insn->imm, pc, &address);
	if (r)
		return r;
	insn[0].imm = (int32_t)(uint32_t)address;
	insn[1].imm = (int32_t)(uint32_t)(address >> 32);
	return 0;
}

static int link_call(struct elf_loader *l, uint32_t symbol, uint32_t pc)
{
	struct sbpf_insn *insn = &l->prog->insns[pc];
	const struct elf_section *s;
	const char *name;
	int64_t target;
	GElf_Sym sym;
	int r = elf_get_symbol(l, symbol, &sym);

	if (r)
		return r;
	name = elf_symbol_name(l, &sym);
	if (insn->code != (BPF_JMP | BPF_CALL))
		return sbpf_fail(l->err, l->prog, -ENOEXEC, pc,
				 "a call relocation (%s) is not on a call", name);
	if (sym.st_shndx == SHN_UNDEF) {
		int helper = sbpf_helper_find(name);

		if (helper < 0)
			return undefined(l, name, pc);
		insn->src = BPF_CALL_HELPER;
		insn->imm = helper;
		return 0;
	}
	s = sym.st_shndx < l->n_sections ? &l->sections[sym.st_shndx] : NULL;
	if (!s || s->role != ROLE_TEXT || sym.st_value > s->hdr.sh_size)
		return sbpf_fail(l->err, l->prog, -ENOEXEC, pc, "%s is called but is not code",
				 name);
	target = (int64_t)(sym.st_value / sizeof(*insn)) + insn->imm + 1;
	if (target < 0 || target >= l->texts[s->text].count)
		return sbpf_fail(l->err, l->prog, -ENOEXEC, pc, "the call goes outside section %s",
				 s->name);
	insn->src = BPF_CALL_LOCAL;
	insn->imm = (int32_t)(l->texts[s->text].start + target - ((int64_t)pc + 1));
	return 0;
}

static int relocate_text(struct elf_loader *l, const struct elf_section *s, const GElf_Rel *rel)
{
	const struct elf_text *text = &l->texts[s->text];
	uint32_t type = (uint32_t)GELF_R_TYPE(rel->r_info);
	uint32_t symbol = (uint32_t)GELF_R_SYM(rel->r_info), pc;

	if (rel->r_offset % sizeof(struct sbpf_insn) || rel->r_offset >= s->hdr.sh_size)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "a relocation of section %s is not at an instruction", s->name);
	pc = text->start + (uint32_t)(rel->r_offset / sizeof(struct sbpf_insn));
	if (l->linked[pc]++)
		return sbpf_fail(l->err, l->prog, -ENOEXEC, pc,
				 "the instruction is relocated twice; the object is damaged");
	if (type == RELOC_LDDW)
		return link_lddw(l, symbol, pc, text->start + text->count);
	if (type == RELOC_CALL)
		return link_call(l, symbol, pc);
	return sbpf_fail(l->err, l->prog, -ENOEXEC, pc,
			 "relocation type %u is not one that clang 14 to 19 makes for code", type);
}

static int relocate_data(struct elf_loader *l, const struct elf_section *s, const GElf_Rel *rel)
{
	uint32_t type = (uint32_t)GELF_R_TYPE(rel->r_info);
	size_t size = type == RELOC_ABS64 ? 8 : 4;
	uint64_t address = 0, addend = 0;
	uint8_t *at;
	int r;

	if (type != RELOC_ABS64 && type != RELOC_ABS32)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "section %s: relocation type %u is not one that clang 14 to 19 "
				 "makes for data",
				 s->name, type);
	if (!s->bytes || rel->r_offset > s->hdr.sh_size || size > s->hdr.sh_size - rel->r_offset)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "a relocation of section %s lies outside it", s->name);
	if (s->role == ROLE_RODATA)
		at = l->prog->rodata + (s->address - sbpf_window_offset(SBPF_WIN_RODATA));
	else
		at = l->prog->data + (s->address - sbpf_window_offset(SBPF_WIN_DATA));
	at += rel->r_offset;
	memcpy(&addend, at, size);
	r = resolve_data(l, (uint32_t)GELF_R_SYM(rel->r_info), addend, -1, &address);
	if (r)
		return r;
	memcpy(at, &address, size);
	return 0;
}

static int relocate_section(struct elf_loader *l, struct elf_section *relocs)
{
	const struct elf_section *s = &l->sections[relocs->hdr.sh_info];
	Elf_Data *data;
	int r = elf_take(l, relocs);

	if (r)
		return r;
	if (relocs->hdr.sh_type != SHT_REL || relocs->hdr.sh_link != l->symtab ||
	    relocs->hdr.sh_entsize != sizeof(Elf64_Rel) || relocs->hdr.sh_size % sizeof(Elf64_Rel))
		return sbpf_fail(
			l->err, NULL, -ENOEXEC, -1,
			"relocation table %s is damaged or not of the kind that clang makes",
			relocs->name);
	data = elf_getdata(relocs->scn, NULL);
	if (relocs->hdr.sh_size && (!data || data->d_size != relocs->hdr.sh_size))
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "relocation table %s cannot be read: %s", relocs->name,
				 elf_errmsg(-1));
	for (size_t i = 0; !r && i < relocs->hdr.sh_size / sizeof(Elf64_Rel); i++) {
		GElf_Rel rel;

		if (!gelf_getrel(data, (int)i, &rel))
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "relocation %zu of %s cannot be read", i, relocs->name);
		if (GELF_R_TYPE(rel.r_info) == RELOC_NONE)
			continue;
		r = s->role == ROLE_TEXT ? relocate_text(l, s, &rel) : relocate_data(l, s, &rel);
	}
	return r;
}

/*
 * A call without a relocation stays in its section; and clang declares every function it calls, so one
 * by number was written for the kernel, whose numbers mean other things here.
 */
static int check_calls(struct elf_loader *l, const struct elf_text *text)
{
	for (uint32_t pc = text->start; pc < text->start + text->count; pc++) {
		const struct sbpf_insn *insn = &l->prog->insns[pc];
		int64_t target = (int64_t)pc + 1 + insn->imm;

		if (insn->code == (BPF_JMP | BPF_CALL) && !l->linked[pc]) {
			if (insn->src == BPF_CALL_HELPER)
				return sbpf_fail(l->err, l->prog, -EINVAL, pc,
						 "helper %d is called by number, as in the kernel; "
						 "declare a helper of this runtime and call it by "
						 "its name",
						 insn->imm);
			if (target < text->start || target >= text->start + text->count)
				return sbpf_fail(l->err, l->prog, -ENOEXEC, pc,
						 "the call goes outside section %s", text->section);
		}
		if (sbpf_is_lddw(insn))
			pc++;
	}
	return 0;
}

int elf_relocate(struct elf_loader *l)
{
	int r = 0;

	for (uint32_t i = 1; !r && i < l->n_sections; i++) {
		struct elf_section *s = &l->sections[i];
		enum elf_role role;

		if (s->hdr.sh_type != SHT_REL && s->hdr.sh_type != SHT_RELA)
			continue;
		if (s->hdr.sh_info >= l->n_sections)
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "relocation table %s is for no section", s->name);
		role = l->sections[s->hdr.sh_info].role;
		if (role != ROLE_NONE && role != ROLE_NOTE)
			r = relocate_section(l, s);
	}
	for (uint32_t i = 0; !r && i < l->n_texts; i++)
		r = check_calls(l, &l->texts[i]);
	return r;
}
