/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm.h - what libsbpf and its optimizing compiler, libsbpf-llvm.so, agree on.
 *
 * The compiler is a function from a verified program to an ELF object; it touches no sandbox, signal or thread, so it could
 * as well run in another process.  libsbpf (tier_llvm.c) loads it, links the object, runs it and bounds its time.
 *
 * In the object: "e<F>" is the entry that is function F (type sbpf_llvm_entry); "h<N>" is helper N, "due" is
 * sbpf_exec_due(), memcpy, memmove and memset are libc's, all six reached through the GOT alone.
 * .debug_line (DWARF 4) tells where instructions went: line N + 1 is instruction N.
 */
#ifndef SBPF_JIT_LLVM_H
#define SBPF_JIT_LLVM_H

#include "sbpf/internal.h"

/* Both sides are of one build as a rule; what is not is refused. */
#define SBPF_LLVM_ABI    1u
#define SBPF_LLVM_LAYOUT (sizeof(struct sbpf_program) << 16 | sizeof(struct sbpf_exec))

/* O3 is not linear: a longer program could keep a core for minutes. */
#define SBPF_LLVM_MAX_INSNS 50000u

typedef uint64_t (*sbpf_llvm_entry)(struct sbpf_exec *x, uint8_t *base, uint64_t r1, uint64_t r2,
				    uint64_t r10);

struct sbpf_llvm_object {
	const uint8_t *bytes;
	size_t len;
	void *owner; /* the compiler's */
};

struct sbpf_llvm_plugin {
	uint32_t abi;
	uint32_t pad;
	uint64_t layout;
	const char *version; /* LIO_VERSION */
	/* 0, or -errno and a reason in @why. */
	int (*compile)(const struct sbpf_program *prog, const uint8_t *helper_args,
		       struct sbpf_llvm_object *out, char *why, size_t why_len);
	void (*release)(struct sbpf_llvm_object *object);
};

/* The name of the plugin's one symbol, a const struct sbpf_llvm_plugin. */
#define SBPF_LLVM_SYMBOL "sbpf_llvm_plugin"

#endif /* SBPF_JIT_LLVM_H */
