/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_common.h - what the template tier is on every architecture: the state of a compilation, the
 * passes, the layout of a function and its cold code, and pages that are never writable and
 * executable.
 *
 * An architecture is a set of functions, jit_arch_*() below, that write machine code; jit_common.c
 * calls them in order.  Exactly one is built.
 *
 * Code is written in pieces, each the translation of one BPF instruction (or of a few that were
 * fused) and far smaller than the piece buffer; jit_flush() appends a piece to the code with a
 * bounds check.
 */
#ifndef SBPF_JIT_COMMON_H
#define SBPF_JIT_COMMON_H

#include <string.h>

#include "sbpf/internal.h"

/* The longest piece is a prologue that zeroes 256 bytes of stack, about 190 bytes. */
#define JIT_PIECE 512u

#define JIT_NO_FLAGS 0xffu
#define JIT_CONSTS   8u

struct jit {
	const struct sbpf_program *prog;
	uint8_t *func_flags; /* JIT_FUNC_* of each function */

	/* the piece being written */
	uint8_t *p;
	uint32_t off; /* of its first byte in the code */
	uint8_t piece[JIT_PIECE];

	/*
	 * The code is generated three times: with every jump long and every alignment at its
	 * worst (pass 0, fills wide), with jumps short where pass 0 proves that they reach
	 * (pass 1, fills at), and once more into memory (pass 2).
	 */
	unsigned int pass;
	uint32_t *wide;    /* [n_insns + 1] upper bounds of distances between instructions */
	uint32_t *at;      /* [n_insns + 1] where each instruction's code is */
	uint32_t *func_at; /* [n_funcs] prologues */
	uint32_t *cold_at; /* [n_funcs] a function's cold exit and refuelling stubs */
	uint8_t *mem;      /* the code in pass 2, else NULL */
	uint32_t mem_len;
	uint32_t refuel_at; /* the routine that stubs call */
	bool broken;        /* a piece that does not fit: a bug, reported instead of written */

	/* the function and the block being translated */
	uint32_t func;
	uint32_t colds; /* stubs used so far */
	uint16_t zext;  /* bit r: the upper half of r is known to be zero */

	/* x86-64 */
	uint8_t flags; /* ZF is that of this register's value … */
	bool flags_64; /* … in this width; JIT_NO_FLAGS if of none */
	bool bmi2;

	/* aarch64 */
	uint32_t helpers_at; /* the stubs that call helpers */
	struct jit_const {
		int32_t value;
		bool is_base; /* the sandbox's plus value, else value */
	} consts[JIT_CONSTS]; /* what the function keeps in registers */
	unsigned int n_consts;
};

#define JIT_FUNC_CALLED 0x01u /* by another function: its frame is zeroed */
#define JIT_FUNC_CALLS  0x02u /* it calls */
#define JIT_FUNC_ENTRY  0x04u

/* The tier's compiled form. */
struct jit_code {
	struct sbpf_code code;
	uint8_t *mem; /* starts with the entry stub, uint64_t (*)(x, function, r1, r2, r10) */
	size_t mem_len;
	uint32_t used;
	uint32_t n_insns;
	uint32_t *func_at;
	uint32_t *at;  /* [n_insns + 1], ascending: where the code of each instruction starts */
	bool fsgsbase; /* x86-64: the kernel lets programs write segment bases */
};

/* ---- jit_common.c ---- */

/* @j comes with what the architecture wants in it; the rest is filled here. */
int jit_compile(struct jit *j, const struct sbpf_program *prog, struct jit_code **out,
		struct sbpf_error *err);
void jit_free(struct sbpf_code *code);
int64_t jit_locate(const struct sbpf_exec *x);
const char *jit_missing(void);
/* The call itself, once x is set up. */
uint64_t jit_enter(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2, uint64_t r10);

uint32_t jit_callee(const struct sbpf_program *prog, uint32_t pc);
uint32_t jit_callee_cost(const struct sbpf_program *prog, uint32_t pc);
/*
 * Jumps to an exit all go to the function's cold one, so that it may be fused with what precedes
 * it.
 */
bool jit_is_exit(const struct jit *j, uint32_t pc);
uint32_t jit_place_of(const struct jit *j, uint32_t target);
/* Is the upper half of dst zero after this arithmetic? */
bool jit_zext_after(const struct jit *j, const struct sbpf_insn *insn);

/* ---- an architecture ---- */

extern const uint32_t jit_arch_loop_align; /* where loops start; bytes */
extern const uint8_t jit_arch_filler;      /* traps, repeated */
extern const uint32_t jit_arch_stub_bytes; /* all stubs are of one size */
/* The entry stub, the routine that stubs call, and what else is needed once. */
void jit_arch_around(struct jit *j);
/* @bytes, a multiple of the smallest instruction, that do nothing. */
void jit_arch_pad(struct jit *j, uint32_t bytes);
void jit_arch_prologue(struct jit *j);
/* Back to the caller, and how many bytes that takes. */
void jit_arch_leave(struct jit *j);
uint32_t jit_arch_leave_bytes(const struct jit *j);
/* One instruction, or some fused; returns how many it ate. */
uint32_t jit_arch_translate(struct jit *j, uint32_t pc);
/* Notes pc, calls the refuelling routine, goes on at @resume. */
void jit_arch_stub(struct jit *j, uint32_t pc, uint32_t resume);
/* Bytes of the charge that stands before a local call. */
uint32_t jit_arch_charged_bytes(const struct jit *j, uint32_t cost);
/* The rights of code, for mprotect(2). */
int jit_arch_rights(void);

/* ---- pieces ---- */

static inline void jit_1(struct jit *j, unsigned int byte)
{
	*j->p++ = (uint8_t)byte;
}

static inline void jit_4(struct jit *j, uint32_t v)
{
	memcpy(j->p, &v, 4);
	j->p += 4;
}

static inline void jit_8(struct jit *j, uint64_t v)
{
	memcpy(j->p, &v, 8);
	j->p += 8;
}

static inline uint32_t jit_here(const struct jit *j)
{
	return j->off + (uint32_t)(j->p - j->piece);
}

static inline void jit_flush(struct jit *j)
{
	uint32_t len = (uint32_t)(j->p - j->piece);

	if (j->mem) {
		if (len > j->mem_len - j->off)
			j->broken = true;
		else
			memcpy(j->mem + j->off, j->piece, len);
	}
	j->off += len;
	j->p = j->piece;
}

/* ---- what is known while translating ---- */

/* Can the instruction at pc be translated together with the one before it? */
static inline bool jit_fusible(const struct jit *j, uint32_t pc)
{
	return pc < j->prog->funcs[j->func].end &&
	       !(j->prog->insn_flags[pc] & (SBPF_INSN_LEADER | SBPF_INSN_TAIL));
}

static inline bool jit_is_zext(const struct jit *j, unsigned int r)
{
	return j->zext >> r & 1;
}

static inline void jit_set_zext(struct jit *j, unsigned int r, bool zext)
{
	j->zext = (uint16_t)((j->zext & ~(1u << r)) | (unsigned int)zext << r);
}

static inline bool jit_is_64(const struct sbpf_insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_ALU64;
}

static inline bool jit_is_alu(const struct sbpf_insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_ALU64 || BPF_CLASS(insn->code) == BPF_ALU;
}

/* The stub for the next charge: they come in the order in which the function's code uses them. */
static inline uint32_t jit_next_stub(struct jit *j)
{
	return j->cold_at[j->func] + jit_arch_leave_bytes(j) + jit_arch_stub_bytes * j->colds++;
}

#endif /* SBPF_JIT_COMMON_H */
