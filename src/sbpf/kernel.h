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
 * Load @entry of @t for the arena @arena_fd, mapped at @arena_base.  A rejection is -EOPNOTSUPP with the kernel's reason
 * mapped to the source line.
 */
int sbpf_kernel_load(const struct sbpf_translation *t, int arena_fd, uint8_t *arena_base,
		     unsigned int entry, int *prog_fd, struct sbpf_error *err);

#endif /* SBPF_KERNEL_H */
