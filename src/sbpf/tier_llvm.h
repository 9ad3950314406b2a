/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm.h - what libsbpf's side of the LLVM tier shares: tier_llvm.c, tier_llvm_link.c, tier_llvm_lines.c.
 */
#ifndef SBPF_TIER_LLVM_H
#define SBPF_TIER_LLVM_H

#include "sbpf/jit_llvm.h"

/* From @at on (an offset into the text) code belongs to line @line - 1; 0: to no instruction. */
struct llvm_place {
	uint32_t at, line;
};

/* An object in memory, ready to run. */
struct llvm_image {
	uint8_t *
		mem; /* text, then constants and the table of outside addresses, each whole pages */
	size_t mem_len, text_len;
	size_t used;               /* bytes of text */
	struct llvm_place *places; /* ascending */
	size_t n_places;
};

/* The address of an outside symbol, or 0. */
typedef uintptr_t (*llvm_resolve)(const char *name);
/* Told of each symbol "e<F>" in the text. */
typedef void (*llvm_define)(void *arg, const char *name, uint32_t at);

/*
 * Map and link an object.  It comes from a compiler that ate a hostile program, so nothing in it is believed:
 * -EBADMSG for what is out of bounds or unknown, with *why saying what.
 */
int sbpf_llvm_link(const uint8_t *bytes, size_t len, llvm_resolve resolve, llvm_define define,
		   void *arg, struct llvm_image *image, const char **why);
void sbpf_llvm_unmap(struct llvm_image *image);

/* A DWARF 4 line program whose sequences start at text offset start_of(arg, position of the address). */
int sbpf_llvm_lines(const uint8_t *bytes, size_t len, uint64_t (*start_of)(void *arg, size_t pos),
		    void *arg, struct llvm_image *image);

#endif /* SBPF_TIER_LLVM_H */
