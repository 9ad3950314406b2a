/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - what the running side (sandbox.c, fault.c, run.c, helpers.c) shares of a sandbox.
 *
 * The program's view is 4 GiB from @base, 64 KiB of guard on each side, everything inaccessible but
 * the windows.  Read-only windows are pages of a shared memory object that @alias maps a second
 * time, writable: the embedder fills a context without a system call, the program cannot.
 *
 * The other kind is an arena (arena.h): windows where they always are, but every page that is there is
 * writable on this side, so only the kernel tier, which checks what it cannot protect, runs in it.
 */
#ifndef SBPF_SANDBOX_H
#define SBPF_SANDBOX_H

#include "sbpf/arena.h"

#define SBPF_SPACE         (1ull << 32)
#define SBPF_GUARD         (64ull << 10)
#define SBPF_WRITABLE_FROM 0x40000000ull /* offset of the first writable window */

struct sbpf_sandbox {
	uint8_t *base;
	uint8_t *alias; /* of [0, SBPF_WRITABLE_FROM) */
	struct sbpf_arena
		*arena; /* SBPF_TIER_KERNEL's kind: @base and @alias are in it; else NULL */
	uint64_t size[SBPF_WINDOWS]; /* bytes with pages, whole pages from the window's start */
	bool in_file;                /* SBPF_WIN_IN maps a file */
	bool running;
	/* A system call failed halfway: part of the reservation may belong to others by now. */
	bool lost;
	unsigned int forks; /* as they were counted when it was made */
	struct sbpf_program *prog;
	struct sbpf_sandbox *next; /* in the pool */
};

static inline bool sbpf_window_writable(enum sbpf_window win)
{
	return win >= SBPF_WIN_DATA;
}

/* The only window in which sandbox offset @off can lie, whether or not it has pages there. */
enum sbpf_window sbpf_window_of(uint32_t off);
const char *sbpf_window_name(enum sbpf_window win);
/* Deadline and cancellation: 0, -ECANCELED or -ETIME.  Safe in a signal handler. */
int sbpf_call_poll(const struct sbpf_call *call);
/* .data and .bss as loaded, the stack zero. */
int sbpf_sandbox_reset(struct sbpf_sandbox *sb);

/*
 * fault.c: what the thread's handler acts for.  @code is NULL in a guard, which catches
 * truncated files alone.
 */
extern __thread struct sbpf_exec *sbpf_current
	__attribute__((tls_model("initial-exec"), visibility("hidden")));
/* Put our handlers on top where they are not: at first, and where others replaced them. */
void sbpf_fault_install(void);
/* The kernel kills a thread that faults with the signal blocked, and many servers block all. */
void sbpf_fault_unblock(void);

#endif /* SBPF_SANDBOX_H */
