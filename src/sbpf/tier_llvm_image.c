/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm_image.c - what the compiler answered becomes code: checked, mapped, then executable and no longer writable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sbpf/sandbox.h"
#include "sbpf/tier_clock.h"
#include "sbpf/tier_llvm.h"

/* Where an answer's parts are, once their sizes are known to fit. */
struct parts {
	struct sbpf_llvm_answer a;
	const uint8_t *text, *constants, *outside, *starts, *places;
};

static int refuse(char *why, size_t why_len, const char *what)
{
	snprintf(why, why_len, "the compiler's answer cannot be used: %s", what);
	return -EBADMSG;
}

static bool is_text(const char *s, size_t size)
{
	size_t n = strnlen(s, size);

	for (size_t i = 0; i < n; i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	return n < size;
}

static int split(const uint8_t *answer, size_t len, struct parts *p, char *why, size_t why_len)
{
	struct sbpf_llvm_answer *a = &p->a;
	uint64_t want = sizeof(*a);

	if (len < sizeof(*a))
		return refuse(why, why_len, "it is cut short");
	memcpy(a, answer, sizeof(*a));
	if (!is_text(a->version, sizeof(a->version)) || !is_text(a->why, sizeof(a->why)) ||
	    a->code > 0 || a->code < -4095)
		return refuse(why, why_len, "its head");
	if (a->code) {
		snprintf(why, why_len, "%s", a->why);
		return a->code;
	}
	if (strcmp(a->version, SBPF_LLVM_VERSION) != 0)
		return refuse(why, why_len, "its version");
	p->text = answer + want;
	want += sbpf_llvm_up(a->text, 8);
	p->constants = answer + want;
	want += sbpf_llvm_up(a->constants, 8);
	p->outside = answer + want;
	want += sbpf_llvm_up(4 * (uint64_t)a->n_outside, 8);
	p->starts = answer + want;
	want += (uint64_t)a->n_starts * sizeof(struct sbpf_llvm_start);
	p->places = answer + want;
	want += (uint64_t)a->n_places * sizeof(struct sbpf_llvm_place);
	if (want != len || len > SBPF_LLVM_MAX_IMAGE || !a->text)
		return refuse(why, why_len, "its sizes");
	return 0;
}

/* Of the C compiler's own library, which has no header. */
unsigned __int128 __udivti3(unsigned __int128 a, unsigned __int128 b);
unsigned __int128 __umodti3(unsigned __int128 a, unsigned __int128 b);
__int128 __divti3(__int128 a, __int128 b);
__int128 __modti3(__int128 a, __int128 b);

static uintptr_t address_of(uint32_t outside)
{
	switch (outside) {
	case SBPF_LLVM_DUE:
		return (uintptr_t)sbpf_exec_due;
	case SBPF_LLVM_MEMCPY:
		return (uintptr_t)memcpy;
	case SBPF_LLVM_MEMMOVE:
		return (uintptr_t)memmove;
	case SBPF_LLVM_MEMSET:
		return (uintptr_t)memset;
	case SBPF_LLVM_UDIV:
		return (uintptr_t)__udivti3;
	case SBPF_LLVM_UMOD:
		return (uintptr_t)__umodti3;
	case SBPF_LLVM_SDIV:
		return (uintptr_t)__divti3;
	case SBPF_LLVM_SMOD:
		return (uintptr_t)__modti3;
	}
	return outside < sbpf_n_helpers ? (uintptr_t)sbpf_helpers[outside].fn : 0;
}

static int fill(struct llvm_code *lc, const struct parts *p, char *why, size_t why_len)
{
	uint8_t *table = lc->mem + sbpf_llvm_outside_at(&p->a);

	memset(lc->mem, 0xcc, sbpf_llvm_constants_at(&p->a));
	memcpy(lc->mem, p->text, p->a.text);
	memcpy(lc->mem + sbpf_llvm_constants_at(&p->a), p->constants, p->a.constants);
	for (uint32_t i = 0; i < p->a.n_outside; i++) {
		uint32_t outside;
		uintptr_t address;

		memcpy(&outside, p->outside + 4 * i, 4);
		address = address_of(outside);
		if (!address)
			return refuse(why, why_len, "an outside address");
		memcpy(table + 8 * i, &address, 8);
	}
	return 0;
}

static int map_text(struct llvm_code *lc, const struct parts *p, char *why, size_t why_len)
{
	uint64_t constants = sbpf_llvm_constants_at(&p->a);
	void *mem;
	int r;

	lc->used = p->a.text;
	lc->mem_len = sbpf_llvm_up(sbpf_llvm_outside_at(&p->a) + 8 * (uint64_t)p->a.n_outside + 1,
				   SBPF_LLVM_PAGE);
	mem = mmap(NULL, lc->mem_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED) {
		snprintf(why, why_len, "no memory for %zu bytes of code", lc->mem_len);
		return -errno;
	}
	lc->mem = mem;
	r = fill(lc, p, why, why_len);
	if (r)
		return r;
	if (mprotect(lc->mem, constants, PROT_READ | PROT_EXEC) ||
	    mprotect(lc->mem + constants, lc->mem_len - constants, PROT_READ)) {
		snprintf(why, why_len, "this system does not let the process make code executable");
		return -errno;
	}
	return 0;
}

static int find_entries(struct llvm_code *lc, const struct sbpf_program *prog,
			const struct parts *p, char *why, size_t why_len)
{
	for (uint32_t i = 0; i < p->a.n_starts; i++) {
		struct sbpf_llvm_start start;

		memcpy(&start, p->starts + i * sizeof(start), sizeof(start));
		if (start.func >= lc->n_funcs || start.at >= lc->used)
			return refuse(why, why_len, "an entry");
		lc->entry_at[start.func] = start.at + 1;
	}
	for (uint32_t i = 0; i < prog->n_entries; i++)
		if (!lc->entry_at[prog->entries[i].func])
			return refuse(why, why_len, "an entry is missing");
	return 0;
}

static int copy_places(struct llvm_code *lc, const struct parts *p, char *why, size_t why_len)
{
	lc->places = malloc(p->a.n_places * sizeof(*lc->places) + 1);
	if (!lc->places) {
		snprintf(why, why_len, "no memory for its places");
		return -ENOMEM;
	}
	lc->n_places = p->a.n_places;
	memcpy(lc->places, p->places, p->a.n_places * sizeof(*lc->places));
	return 0;
}

int sbpf_llvm_map(const struct sbpf_program *prog, const uint8_t *answer, size_t len,
		  struct llvm_code **out, char *why, size_t why_len)
{
	struct llvm_code *lc;
	struct parts p;
	int r = split(answer, len, &p, why, why_len);

	if (r)
		return r;
	lc = calloc(1, sizeof(*lc) + prog->n_funcs * sizeof(lc->entry_at[0]));
	if (!lc) {
		snprintf(why, why_len, "no memory for %u functions", prog->n_funcs);
		return -ENOMEM;
	}
	lc->n_funcs = prog->n_funcs;
	lc->code.code_bytes = p.a.text;
	r = map_text(lc, &p, why, why_len);
	if (!r)
		r = find_entries(lc, prog, &p, why, why_len);
	if (!r)
		r = copy_places(lc, &p, why, why_len);
	if (r) {
		sbpf_llvm_unmap(lc);
		return r;
	}
	*out = lc;
	return 0;
}

void sbpf_llvm_unmap(struct llvm_code *lc)
{
	if (lc->mem)
		munmap(lc->mem, lc->mem_len);
	free(lc->places);
	free(lc);
}
