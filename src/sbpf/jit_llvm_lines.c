/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm_lines.c - the line program of an object (DWARF 4, section 6.2), which names instructions as lines.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/jit_llvm_link.h"

enum {
	DW_LNS_copy = 1,
	DW_LNS_advance_pc,
	DW_LNS_advance_line,
	DW_LNS_set_file,
	DW_LNS_set_column,
	DW_LNS_negate_stmt,
	DW_LNS_set_basic_block,
	DW_LNS_const_add_pc,
	DW_LNS_fixed_advance_pc,
	DW_LNS_set_prologue_end,
	DW_LNS_set_epilogue_begin,
	DW_LNS_set_isa,
	DW_LNE_end_sequence = 1,
	DW_LNE_set_address = 2,
};

struct lines {
	const uint8_t *p, *end;
	bool bad;
	int8_t line_base;
	uint8_t line_range, opcode_base;
	uint64_t address, line;
	struct llvm_image *image;
};

static uint64_t take(struct lines *l, unsigned int bytes)
{
	uint64_t v = 0;

	if ((size_t)(l->end - l->p) < bytes) {
		l->bad = true;
		l->p = l->end;
		return 0;
	}
	memcpy(&v, l->p, bytes);
	l->p += bytes;
	return v;
}

/* Signed numbers have the sign in the last byte's bit 6. */
static uint64_t take_leb(struct lines *l, bool is_signed)
{
	unsigned int shift = 0;
	uint64_t v = 0;
	uint8_t byte;

	do {
		byte = (uint8_t)take(l, 1);
		if (shift < 64)
			v |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	if (is_signed && (byte & 0x40) && shift < 64)
		v |= ~0ull << shift;
	return v;
}

static void add_row(struct lines *l, uint64_t line)
{
	struct llvm_image *image = l->image;
	struct sbpf_llvm_place *last = image->n_places ? &image->places[image->n_places - 1] : NULL;

	if (l->address > UINT32_MAX || line > UINT32_MAX) {
		l->bad = true;
		return;
	}
	if (last && last->at == l->address) { /* no code between: the later row counts */
		last->line = (uint32_t)line;
		return;
	}
	/* Grown by doubling: full whenever the count is a power of two (or zero). */
	if (!(image->n_places & (image->n_places - 1))) {
		size_t cap = image->n_places ? 2 * image->n_places : 1;
		void *grown = realloc(image->places, cap * sizeof(*image->places));

		if (!grown) {
			l->bad = true;
			return;
		}
		image->places = grown;
	}
	image->places[image->n_places++] =
		(struct sbpf_llvm_place){.at = (uint32_t)l->address, .line = (uint32_t)line};
}

static void extended(struct lines *l, const uint8_t *start,
		     uint64_t (*start_of)(void *arg, size_t pos), void *arg)
{
	uint64_t len = take_leb(l, false);
	const uint8_t *next = l->p + len;

	if (l->bad || !len || len > (uint64_t)(l->end - l->p)) {
		l->bad = true;
		return;
	}
	switch (take(l, 1)) {
	case DW_LNE_end_sequence:
		add_row(l, 0);
		l->address = 0;
		l->line = 1;
		break;
	case DW_LNE_set_address:
		l->address = start_of(arg, (size_t)(l->p - start));
		break;
	}
	l->p = next;
}

static void step(struct lines *l, const uint8_t *start, uint64_t (*start_of)(void *arg, size_t pos),
		 void *arg)
{
	uint8_t op = (uint8_t)take(l, 1);

	if (op >= l->opcode_base) {
		op -= l->opcode_base;
		l->address += op / l->line_range;
		l->line += (uint64_t)(int64_t)(l->line_base + op % l->line_range);
		add_row(l, l->line);
		return;
	}
	switch (op) {
	case 0:
		extended(l, start, start_of, arg);
		break;
	case DW_LNS_copy:
		add_row(l, l->line);
		break;
	case DW_LNS_advance_pc:
		l->address += take_leb(l, false);
		break;
	case DW_LNS_advance_line:
		l->line += take_leb(l, true);
		break;
	case DW_LNS_set_file:
	case DW_LNS_set_column:
	case DW_LNS_set_isa:
		take_leb(l, false);
		break;
	case DW_LNS_const_add_pc:
		l->address += (255u - l->opcode_base) / l->line_range;
		break;
	case DW_LNS_fixed_advance_pc:
		l->address += take(l, 2);
		break;
	case DW_LNS_negate_stmt:
	case DW_LNS_set_basic_block:
	case DW_LNS_set_prologue_end:
	case DW_LNS_set_epilogue_begin:
		break;
	default:
		l->bad = true;
		break;
	}
}

static int by_place(const void *a, const void *b)
{
	const struct sbpf_llvm_place *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

int jit_llvm_lines(const uint8_t *bytes, size_t len, uint64_t (*start_of)(void *arg, size_t pos),
		   void *arg, struct llvm_image *image)
{
	struct lines l = {.p = bytes, .end = bytes + len, .line = 1, .image = image};
	uint64_t unit = take(&l, 4), header;

	if (l.bad || unit > (uint64_t)(l.end - l.p))
		return -EBADMSG;
	l.end = l.p + unit;
	if (take(&l, 2) != 4)
		return -EBADMSG;
	header = take(&l, 4);
	if (header > (uint64_t)(l.end - l.p) || header < 6)
		return -EBADMSG;
	l.line_base = (int8_t)l.p[3];
	l.line_range = l.p[4];
	l.opcode_base = l.p[5];
	if (!l.line_range || l.opcode_base != DW_LNS_set_isa + 1)
		return -EBADMSG;
	l.p += header;
	while (l.p < l.end && !l.bad)
		step(&l, bytes, start_of, arg);
	if (image->n_places)
		qsort(image->places, image->n_places, sizeof(*image->places), by_place);
	return l.bad ? -EBADMSG : 0;
}
