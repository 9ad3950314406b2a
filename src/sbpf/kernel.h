/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h - a program inside an unmodified kernel: a tier whose sandbox is a BPF arena.
 *
 * Owns: translating a verified program to what the kernel's verifier accepts (kernel_translate*.c), loading
 * and running it (kernel_load.c, kernel_run.c), the arena that is its sandbox (arena.c), and saying what is missing here (kernel_probe.c).
 * Does not own: the program, what a window holds, files.
 *
 * Sandbox offsets are arena offsets: the arena is 4 GiB, mapped at an address whose low 32 bits are zero, and
 * windows are where sandbox.c puts them.  A kernel program belongs to one arena, so each kernel sandbox
 * carries its own loaded code; the pool of a program keeps both.
 */
#ifndef SBPF_KERNEL_H
#define SBPF_KERNEL_H

#include "sbpf/internal.h"

struct sbpf_kernel; /* a program loaded for one arena: one kernel program an entry, loaded when first run */

/* NULL, or one line that names what is missing: a capability, the JIT, arenas, may_goto, lockdown, an old kernel. */
const char *sbpf_kernel_missing(void);

/*
 * Translate @prog once for any arena; kept by the caller (a program's code slot).  -EOPNOTSUPP names
 * what cannot be translated, with instruction and source line, before the kernel sees anything.
 */
struct sbpf_translation;
int sbpf_kernel_translate(const struct sbpf_program *prog, struct sbpf_translation **out,
			  struct sbpf_error *err);
void sbpf_translation_free(struct sbpf_translation *t);

/*
 * Load @entry of @t for an arena that is mapped at @arena_base.  A rejection is -EOPNOTSUPP with the kernel's reason
 * mapped to the source line.
 */
struct sbpf_kernel_prog;
int sbpf_kernel_load(const struct sbpf_translation *t, int arena_fd, uint8_t *arena_base,
		     unsigned int entry, struct sbpf_kernel_prog **out, struct sbpf_error *err);
void sbpf_kernel_unload(struct sbpf_kernel_prog *kp);

/* One run.  What it counts and notes lives where the program cannot reach it: outside of the arena. */
struct sbpf_kernel_call {
	uint64_t r1, r2, r10;  /* sandbox offsets; r10 is the end of the stack window */
	uint64_t fuel;         /* or SBPF_FUEL_UNLIMITED */
	uint64_t deadline_ns;  /* CLOCK_MONOTONIC, 0 for none */
	const int *cancel;     /* may be NULL */
	const uint64_t *sizes; /* of the SBPF_WINDOWS windows, bytes */
	/* What the program said, in order, after the run; may be NULL. */
	void (*trace)(void *arg, const char *text, size_t len);
	void *trace_arg;
	/* results */
	uint64_t r0;
	uint64_t fuel_left;
	uint64_t address; /* of a fault */
	uint32_t pc;      /* the instruction of an error, or UINT32_MAX */
};
/*
 * 0; -EFAULT; -ETIME; -ECANCELED; -ERESTART: the kernel ended the run (may_goto gave up), windows hold
 * nothing of use and it is to be repeated elsewhere.
 */
int sbpf_kernel_run(struct sbpf_kernel_prog *kp, struct sbpf_kernel_call *call);

#endif /* SBPF_KERNEL_H */
