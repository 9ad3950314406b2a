/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf.c - from a BPF ELF object, as clang 14 to 19 makes it, to one linked program.
 *
 * Owns: which sections count, the images of .rodata and .data, notes, and the order of the steps.
 */
#include "sbpf/elf_object.h"

/* No object is near this; it keeps counts of what is in one below 2^31. */
#define MAX_OBJECT (1u << 30)

int elf_no_memory(struct elf_loader *l)
{
	return sbpf_fail(l->err, NULL, -ENOMEM, -1, "out of memory for an object of %zu bytes",
			 l->len);
}

/* ---- sections ---- */

static int check_header(struct elf_loader *l, const void *image)
{
	Elf64_Ehdr h;

	if (l->len < sizeof(h) || memcmp(image, ELFMAG, SELFMAG))
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "not an ELF object; compile with clang -target bpf -c");
	if (l->len > MAX_OBJECT)
		return sbpf_fail(l->err, NULL, -E2BIG, -1,
				 "the object has %zu bytes; the limit is %u", l->len, MAX_OBJECT);
	memcpy(&h, image, sizeof(h));
	if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB ||
	    h.e_machine != EM_BPF)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "the object is not little-endian BPF (it is for ELF machine %u); "
				 "compile with clang -target bpf",
				 h.e_machine);
	if (h.e_type != ET_REL)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "ELF type %u is not a relocatable object; compile with clang -c",
				 h.e_type);
	/* No. 0 is empty, and an e_shnum of 0 stands for "more than 65,279". */
	if (h.e_shentsize != sizeof(Elf64_Shdr) || !h.e_shnum || h.e_shnum >= SHN_LORESERVE ||
	    h.e_shstrndx >= h.e_shnum || h.e_shoff > l->len ||
	    (l->len - h.e_shoff) / sizeof(Elf64_Shdr) < h.e_shnum)
		return sbpf_fail(
			l->err, NULL, -ENOEXEC, -1,
			"the object's section table lies outside the file; it is cut short "
			"or damaged");
	return 0;
}

int elf_take(struct elf_loader *l, struct elf_section *s)
{
	Elf_Data *data;

	if (s->bytes || !s->hdr.sh_size)
		return 0;
	if (s->hdr.sh_type == SHT_NOBITS || s->hdr.sh_offset > l->len ||
	    s->hdr.sh_size > l->len - s->hdr.sh_offset)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "section %s lies outside the file; it is cut short or damaged",
				 s->name);
	if (s->hdr.sh_size > l->left)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "section %s overlaps others; the object is damaged", s->name);
	data = elf_rawdata(s->scn, NULL);
	if (!data || !data->d_buf || data->d_size != s->hdr.sh_size)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1, "section %s cannot be read: %s",
				 s->name, elf_errmsg(-1));
	l->left -= s->hdr.sh_size;
	s->bytes = data->d_buf;
	return 0;
}

int elf_take_strings(struct elf_loader *l, uint32_t index, const char **strings, size_t *len)
{
	struct elf_section *s = index < l->n_sections ? &l->sections[index] : NULL;
	int r;

	if (s && s->hdr.sh_type != SHT_STRTAB)
		s = NULL;
	r = s ? elf_take(l, s) : 0;
	if (r)
		return r;
	if (!s || !s->bytes || s->bytes[s->hdr.sh_size - 1])
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "string table %u is damaged or not there", index);
	*strings = (const char *)s->bytes;
	*len = s->hdr.sh_size;
	return 0;
}

static bool is_ignored(const char *name)
{
	static const char *const names[] = {"license", "version",  "maps",
					    ".maps",   ".kconfig", ".ksyms"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return elf_starts_with(name, ".eh_frame");
}

static int classify(struct elf_loader *l, struct elf_section *s)
{
	const char *prefix = l->opts->note_prefix;
	uint64_t flags = s->hdr.sh_flags;
	bool code = flags & SHF_EXECINSTR;

	if (s->hdr.sh_type == SHT_INIT_ARRAY || s->hdr.sh_type == SHT_FINI_ARRAY ||
	    s->hdr.sh_type == SHT_PREINIT_ARRAY)
		return sbpf_fail(l->err, NULL, -EINVAL, -1,
				 "section %s: constructors and destructors are not run; call the "
				 "function from the entry",
				 s->name);
	if (prefix && s->hdr.sh_type == SHT_PROGBITS && !code && elf_starts_with(s->name, prefix))
		s->role = ROLE_NOTE;
	else if (!(flags & SHF_ALLOC) || is_ignored(s->name))
		return 0;
	else if (s->hdr.sh_type == SHT_NOBITS)
		s->role = ROLE_BSS;
	else if (s->hdr.sh_type != SHT_PROGBITS)
		return 0;
	else if (code)
		s->role = s->hdr.sh_size ? ROLE_TEXT : ROLE_NONE;
	else if ((flags & SHF_WRITE) && !elf_starts_with(s->name, ".data.rel.ro"))
		s->role = ROLE_DATA;
	else
		s->role = ROLE_RODATA;
	if (flags & (SHF_TLS | SHF_COMPRESSED))
		return sbpf_fail(l->err, NULL, -EINVAL, -1,
				 "section %s is thread-local or compressed, which is not supported",
				 s->name);
	return s->role == ROLE_NONE || s->role == ROLE_BSS ? 0 : elf_take(l, s);
}

static int read_sections(struct elf_loader *l, const void *image)
{
	const char *names;
	size_t names_len;
	Elf64_Ehdr h;
	int r;

	memcpy(&h, image, sizeof(h));
	l->sections = calloc(h.e_shnum, sizeof(*l->sections));
	if (!l->sections)
		return elf_no_memory(l);
	l->n_sections = h.e_shnum;
	for (uint32_t i = 0; i < l->n_sections; i++) {
		struct elf_section *s = &l->sections[i];
		GElf_Shdr hdr;

		s->scn = elf_getscn(l->elf, i);
		s->name = "";
		if (!s->scn || !gelf_getshdr(s->scn, &hdr))
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "section %u cannot be read: %s", i, elf_errmsg(-1));
		s->hdr = hdr;
	}
	r = elf_take_strings(l, h.e_shstrndx, &names, &names_len);
	for (uint32_t i = 1; !r && i < l->n_sections; i++) {
		struct elf_section *s = &l->sections[i];

		if (s->hdr.sh_name >= names_len)
			return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
					 "the name of section %u lies outside the string table", i);
		s->name = names + s->hdr.sh_name;
		r = classify(l, s);
	}
	return r;
}

/* ---- data ---- */

/* Gives @size bytes the next place in a window that is filled up to *@end. */
static int place(struct elf_loader *l, enum sbpf_window win, const char *name, uint64_t size,
		 uint64_t align, uint64_t *end, uint64_t *address)
{
	uint64_t max = sbpf_window_max(win), pos;

	align = align ? align : 1;
	if ((align & (align - 1)) || align > SBPF_PAGE)
		return sbpf_fail(l->err, NULL, -ENOEXEC, -1,
				 "%s: its alignment of %llu is not a power of two up to %u", name,
				 (unsigned long long)align, SBPF_PAGE);
	pos = (*end + align - 1) & ~(align - 1);
	if (pos > max || size > max - pos)
		return sbpf_fail(
			l->err, NULL, -E2BIG, -1,
			"%s: with its %llu bytes the program's %s exceeds the limit of %llu", name,
			(unsigned long long)size,
			win == SBPF_WIN_RODATA ? "constants" : "global data",
			(unsigned long long)max);
	*address = sbpf_window_offset(win) + pos;
	*end = pos + size;
	return 0;
}

static int place_role(struct elf_loader *l, enum elf_role role, enum sbpf_window win, uint64_t *end)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < l->n_sections; i++) {
		struct elf_section *s = &l->sections[i];

		if (s->role == role)
			r = place(l, win, s->name, s->hdr.sh_size, s->hdr.sh_addralign, end,
				  &s->address);
	}
	return r;
}

static int place_commons(struct elf_loader *l, uint64_t *end)
{
	for (uint32_t i = 0; i < l->n_symbols; i++) {
		GElf_Sym sym;
		int r = elf_get_symbol(l, i, &sym);

		if (r)
			return r;
		if (sym.st_shndx != SHN_COMMON)
			continue;
		if (!l->commons)
			l->commons = calloc(l->n_symbols, sizeof(*l->commons));
		if (!l->commons)
			return elf_no_memory(l);
		/* A common symbol's value is its alignment. */
		r = place(l, SBPF_WIN_DATA, elf_symbol_name(l, &sym), sym.st_size, sym.st_value,
			  end, &l->commons[i]);
		if (r)
			return r;
	}
	return 0;
}

static void copy_role(struct elf_loader *l, enum elf_role role, enum sbpf_window win,
		      uint8_t *image)
{
	for (uint32_t i = 0; i < l->n_sections; i++) {
		const struct elf_section *s = &l->sections[i];

		if (s->role == role && s->bytes)
			memcpy(image + (s->address - sbpf_window_offset(win)), s->bytes,
			       s->hdr.sh_size);
	}
}

static int lay_out(struct elf_loader *l)
{
	struct sbpf_program *prog = l->prog;
	int r = place_role(l, ROLE_RODATA, SBPF_WIN_RODATA, &prog->rodata_len);

	if (!r)
		r = place_role(l, ROLE_DATA, SBPF_WIN_DATA, &prog->data_len);
	prog->data_total = prog->data_len;
	if (!r)
		r = place_role(l, ROLE_BSS, SBPF_WIN_DATA, &prog->data_total);
	if (!r)
		r = place_commons(l, &prog->data_total);
	if (r)
		return r;
	if (prog->rodata_len) {
		prog->rodata = calloc(1, prog->rodata_len);
		if (!prog->rodata)
			return elf_no_memory(l);
		copy_role(l, ROLE_RODATA, SBPF_WIN_RODATA, prog->rodata);
	}
	if (prog->data_len) {
		prog->data = calloc(1, prog->data_len);
		if (!prog->data)
			return elf_no_memory(l);
		copy_role(l, ROLE_DATA, SBPF_WIN_DATA, prog->data);
	}
	return 0;
}

static int read_lines(struct elf_loader *l)
{
	struct elf_section *btf = NULL, *ext = NULL;
	struct sbpf_error *err = l->err;
	bool bad;
	int r;

	for (uint32_t i = 1; i < l->n_sections; i++) {
		if (!strcmp(l->sections[i].name, ".BTF"))
			btf = &l->sections[i];
		else if (!strcmp(l->sections[i].name, ".BTF.ext"))
			ext = &l->sections[i];
	}
	if (!btf || !ext)
		return 0;
	/* Lines only serve messages: what is wrong with them must not stop the program. */
	l->err = NULL;
	bad = elf_take(l, btf) || elf_take(l, ext) || !btf->bytes || !ext->bytes;
	l->err = err;
	if (bad)
		return 0;
	r = elf_read_lines(l->prog, l->texts, l->n_texts, btf->bytes, btf->hdr.sh_size, ext->bytes,
			   ext->hdr.sh_size);
	return r ? elf_no_memory(l) : 0;
}

static int keep_notes(struct elf_loader *l)
{
	struct sbpf_program *prog = l->prog;
	uint32_t n = 0;

	for (uint32_t i = 0; i < l->n_sections; i++)
		n += l->sections[i].role == ROLE_NOTE;
	if (!n)
		return 0;
	prog->notes = calloc(n, sizeof(*prog->notes));
	if (!prog->notes)
		return elf_no_memory(l);
	for (uint32_t i = 0; i < l->n_sections; i++) {
		const struct elf_section *s = &l->sections[i];
		struct sbpf_note *note = &prog->notes[prog->n_notes];

		if (s->role != ROLE_NOTE)
			continue;
		note->section = sbpf_program_string(prog, s->name);
		note->bytes = malloc(s->hdr.sh_size + 1);
		prog->n_notes++;
		if (!note->section || !note->bytes)
			return elf_no_memory(l);
		if (s->bytes)
			memcpy(note->bytes, s->bytes, s->hdr.sh_size);
		note->len = s->hdr.sh_size;
	}
	return 0;
}

/* ---- the steps ---- */

static int load(struct elf_loader *l, const void *image)
{
	int (*const steps[])(struct elf_loader *l) = {
		elf_read_code, elf_read_symbols, elf_split_functions, read_lines,
		lay_out,       elf_relocate,     elf_add_entries,     keep_notes,
	};
	int r = read_sections(l, image);

	for (size_t i = 0; !r && i < sizeof(steps) / sizeof(steps[0]); i++)
		r = steps[i](l);
	return r;
}

int sbpf_elf_load(struct sbpf_program *prog, const void *image, size_t len,
		  const struct sbpf_load_opts *opts, struct sbpf_error *err)
{
	struct elf_loader l = {.prog = prog, .opts = opts, .err = err, .len = len, .left = len};
	int r = check_header(&l, image), saved = errno;

	if (r)
		return r;
	errno = 0;
	elf_version(EV_CURRENT);
	/* libelf takes a writable pointer for its other modes and only reads through this one. */
	l.elf = elf_memory((char *)image, len);
	if (!l.elf || elf_kind(l.elf) != ELF_K_ELF)
		r = sbpf_fail(err, NULL, -ENOEXEC, -1, "not an ELF object: %s", elf_errmsg(-1));
	else
		r = load(&l, image);
	/* libelf's own errors do not tell a damaged object from a lack of memory in a stable way. */
	if (r == -ENOEXEC && errno == ENOMEM)
		r = elf_no_memory(&l);
	errno = saved;
	elf_end(l.elf);
	free(l.sections);
	free(l.texts);
	free(l.linked);
	free(l.funcs);
	free(l.commons);
	return r;
}
