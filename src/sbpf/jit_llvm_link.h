/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm_link.h - the compiler's back: LLVM's ELF object becomes an image (jit_llvm_link.c, jit_llvm_lines.c).
 *
 * In the object: "e<F>" is the entry that is function F; "h<N>" is helper N, "due" is sbpf_exec_due(), memcpy, memmove and
 * memset are libc's, __udivti3 and its like the C compiler's, all reached through the GOT alone.
 * .debug_line (DWARF 4) tells where instructions went: line N + 1 is instruction N.
 */
#ifndef SBPF_JIT_LLVM_LINK_H
#define SBPF_JIT_LLVM_LINK_H

#include "sbpf/jit_llvm.h"

struct llvm_image {
	uint8_t *
		mem; /* text, constants, each from a page's start; then room for outside addresses */
	size_t text, constants;
	uint32_t *outside;
	size_t n_outside;
	struct sbpf_llvm_start *starts;
	size_t n_starts;
	struct sbpf_llvm_place *places; /* ascending */
	size_t n_places;
};

/* -EBADMSG for what is out of bounds or unknown, with *why saying what. */
int jit_llvm_link(const uint8_t *bytes, size_t len, uint32_t n_funcs, struct llvm_image *image,
		  const char **why);
void jit_llvm_unlink(struct llvm_image *image);

/* A DWARF 4 line program whose sequences start at text offset start_of(arg, position of the address). */
int jit_llvm_lines(const uint8_t *bytes, size_t len, uint64_t (*start_of)(void *arg, size_t pos),
		   void *arg, struct llvm_image *image);

#endif /* SBPF_JIT_LLVM_LINK_H */
