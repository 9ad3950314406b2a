/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.h - the memory of a sandbox that the kernel shares: a BPF arena, and what is loaded for it.
 *
 * All 4 GiB are mapped here, as a program in the kernel sees them.  Pages that were given exist; one that was not is a
 * fault here, and reads 0 there.
 */
#ifndef SBPF_ARENA_H
#define SBPF_ARENA_H

#include <errno.h>

#include "sbpf/internal.h"

struct sbpf_kernel_prog;

/* Pages that every arena has and no window: what the translator's library keeps (kernel_library.c). */
#define SBPF_ARENA_OWN       0x1000ull
#define SBPF_ARENA_OWN_BYTES 0xf000ull

struct sbpf_arena {
	uint8_t *base;              /* its low 32 bits are zero */
	uint64_t has[SBPF_WINDOWS]; /* bytes with pages, from each window's start */
	int map_fd;
	int pages_fd;                    /* the program that gives pages */
	struct sbpf_kernel_prog **progs; /* by entry, NULL until it is loaded; tier_kernel.c */
	uint32_t n_progs;
};

#if defined(SBPF_WITH_KERNEL)
/*
 * An arena without pages, mapped.  -ENOMEM; -EPERM: not ours to have; -EOPNOTSUPP: this kernel has no such thing.
 * Closing gives all of it back, NULL is fine.
 */
int sbpf_arena_open(struct sbpf_arena **out);
void sbpf_arena_close(struct sbpf_arena *arena);
/* tier_kernel.c: unload its programs. */
void sbpf_arena_unload(struct sbpf_arena *arena);

/*
 * Pages of [@off, @off + @len), none of which is there yet, that read zero; they stay until it is closed.  -ENOMEM:
 * only the first *@done bytes of them.
 */
int sbpf_arena_give(struct sbpf_arena *arena, uint64_t off, uint64_t len, uint64_t *done);
#else
static inline int sbpf_arena_open(struct sbpf_arena **out)
{
	return -EOPNOTSUPP;
}
static inline void sbpf_arena_close(struct sbpf_arena *arena)
{
}
static inline void sbpf_arena_unload(struct sbpf_arena *arena)
{
}
static inline int sbpf_arena_give(struct sbpf_arena *arena, uint64_t off, uint64_t len,
				  uint64_t *done)
{
	*done = 0;
	return -EOPNOTSUPP;
}
#endif

#endif /* SBPF_ARENA_H */
