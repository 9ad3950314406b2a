/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm.h - what libsbpf and its optimizing compiler agree on: a program goes out in one block of bytes, an image of
 * code comes back in another.
 *
 * The compiler (libsbpf-llvm.so) eats hostile programs, so it runs in a process of its own (compile_main.c) that can do nothing but
 * compute.  Neither side believes the other's sizes.  libsbpf starts that process (tier_llvm_process.c) and maps
 * what comes back (tier_llvm_image.c).
 *
 * An image is position-independent: code, then constants, then a table of outside addresses that libsbpf fills
 * in.  Its entries are of type sbpf_llvm_entry.
 */
#ifndef SBPF_JIT_LLVM_H
#define SBPF_JIT_LLVM_H

#include "sbpf/internal.h"
#include "sbpf/llvm_build.h" /* SBPF_LLVM_BUILD: what both sides were built from */

/* Both sides are of one build; what is not is refused. */
#define SBPF_LLVM_TEXT_(name) #name
#define SBPF_LLVM_TEXT(name)  SBPF_LLVM_TEXT_(name)
#define SBPF_LLVM_VERSION     LIO_VERSION "-" SBPF_LLVM_TEXT(SBPF_LLVM_BUILD)

/* O3 is not linear: a longer program could keep a core for minutes. */
#define SBPF_LLVM_MAX_INSNS 50000u

#define SBPF_LLVM_PAGE 4096u
#define SBPF_LLVM_MAX_IMAGE \
	(64u << 20) /* bytes of an answer, and of its text and constants together */

typedef uint64_t (*sbpf_llvm_entry)(struct sbpf_exec *x, uint8_t *base, uint64_t r1, uint64_t r2,
				    uint64_t r10);

/* ---- the question ---- */

struct sbpf_llvm_func {
	uint32_t start, end, frame, reachable;
};

/* Behind it: instructions, functions, the functions of entries (uint32_t each), flags of instructions (a byte each). */
struct sbpf_llvm_question {
	char version[48]; /* SBPF_LLVM_VERSION */
	uint32_t n_insns, n_funcs, n_entries;
	uint8_t helper_args[64]; /* how many each helper takes */
};

/* ---- the answer ---- */

/* Outside addresses: helper N, or one of these. */
enum {
	SBPF_LLVM_DUE = 64, /* sbpf_exec_due() */
	SBPF_LLVM_MEMCPY,
	SBPF_LLVM_MEMMOVE,
	SBPF_LLVM_MEMSET,
	SBPF_LLVM_UDIV, /* of 128 bits: LLVM counts turns with them */
	SBPF_LLVM_UMOD,
	SBPF_LLVM_SDIV,
	SBPF_LLVM_SMOD,
	SBPF_LLVM_OUTSIDE,
};

struct sbpf_llvm_start { /* of an entry's function */
	uint32_t func, at;
};

struct sbpf_llvm_place { /* from text offset @at on code belongs to instruction @line - 1; 0: to none */
	uint32_t at, line;
};

/*
 * Behind it, each padded to 8 bytes: text, constants, outside addresses (uint32_t each), starts, places.
 * In memory text starts a page, constants the next page behind it, and addresses (8 bytes each) the next multiple of 8.
 */
struct sbpf_llvm_answer {
	char version[48];
	int32_t code; /* 0, or -errno with @why */
	uint32_t pad;
	char llvm[16]; /* LLVM's version */
	char why[128];
	uint32_t text, constants; /* bytes */
	uint32_t n_outside, n_starts, n_places;
	uint32_t pad2;
};
_Static_assert(sizeof(struct sbpf_llvm_answer) % 8 == 0, "what follows is aligned");

static inline uint64_t sbpf_llvm_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* Where the constants are in memory, and the outside addresses. */
static inline uint64_t sbpf_llvm_constants_at(const struct sbpf_llvm_answer *a)
{
	return sbpf_llvm_up(a->text, SBPF_LLVM_PAGE);
}

static inline uint64_t sbpf_llvm_outside_at(const struct sbpf_llvm_answer *a)
{
	return sbpf_llvm_up(sbpf_llvm_constants_at(a) + a->constants, 8);
}

/* ---- the compiler, as compile_main.c and tests have it ---- */

/* What needs files, or makes anything of them: before the door is shut.  The version of LLVM. */
SBPF_API const char *sbpf_llvm_prepare(void);
/*
 * The answer to a question of @len bytes, malloc'd; also where it is a refusal.  NULL: no memory even for that.
 */
SBPF_API struct sbpf_llvm_answer *sbpf_llvm_answer(const void *question, size_t len,
						   size_t *out_len);

#endif /* SBPF_JIT_LLVM_H */
