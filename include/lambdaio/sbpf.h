/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbpf.h - a sandboxed BPF runtime to embed: load, verify, compile and run untrusted bytecode.
 *
 * Owns: programs (loaded, verified, compiled), sandboxes (the 4 GiB a call can reach), and one call.
 * Does not own: what a program means, files, threads, or the data; nothing here knows of λ-functions.
 *
 * Life of a program: sbpf_program_from_elf() → sbpf_program_compile() → any number of threads each
 * take a sandbox (sbpf_sandbox_get), fill its windows, sbpf_run(), read its windows, put it back.
 *
 * Every pointer a program can hold is an offset into its sandbox; no access, however wrong, leaves
 * it.  An access to a page outside the windows, or a store to a read-only one, ends that call with
 * -EFAULT.  Functions return 0 or -errno unless they say otherwise and never touch errno.
 */
#ifndef LAMBDAIO_SBPF_H
#define LAMBDAIO_SBPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SBPF_API __attribute__((visibility("default")))

struct sbpf_program;
struct sbpf_sandbox;

/*
 * Compilers, in the order of the time they take.  AUTO is the best one this machine has.
 * KERNEL runs the program inside the kernel (docs/kernel-engine.md) and is never AUTO: it needs
 * capabilities, and sandboxes of its own kind (sbpf_sandbox_get_for).
 */
enum sbpf_tier {
	SBPF_TIER_AUTO,
	SBPF_TIER_INTERP,
	SBPF_TIER_TEMPLATE,
	SBPF_TIER_LLVM,
	SBPF_TIER_KERNEL,
};

/*
 * What went wrong, for a person.  @text is one line: what failed, where, why, what to do.
 * @insn is the instruction's index in the linked program or -1; @line is 0 where the object has no
 * line information; @address is the sandbox offset that faulted, where that was the cause.
 */
struct sbpf_error {
	int code; /* the -errno that was returned */
	int32_t insn;
	uint32_t line;
	uint64_t address;
	char file[128];
	char function[64];
	char text[512];
};

/* ---- programs ---- */

struct sbpf_load_opts {
	size_t size; /* sizeof(struct sbpf_load_opts) */
	/* Sections whose names start with this are kept as notes; NULL keeps none. */
	const char *note_prefix;
	/* The program's size limit in instructions; 0 means 1,000,000. */
	uint32_t max_insns;
};

/*
 * Load, link and verify a BPF ELF object of @len bytes (clang -target bpf, v1 to v4).  @image is
 * hostile input and is not kept.  @opts and @err may be NULL.  On success *@out is a program with one
 * reference, to be dropped with sbpf_program_unref(); it is immutable but for its compiled code and
 * safe to share between threads.  -ENOEXEC: not such an object; -EINVAL: the verifier refused it;
 * -ENOMEM; -E2BIG: over a limit.
 */
SBPF_API int sbpf_program_from_elf(const void *image, size_t len, const struct sbpf_load_opts *opts,
				   struct sbpf_program **out, struct sbpf_error *err);

/* The same from @n raw 8-byte instructions; the one entry is named "entry" and starts at 0. */
SBPF_API int sbpf_program_from_insns(const void *insns, size_t n, const struct sbpf_load_opts *opts,
				     struct sbpf_program **out, struct sbpf_error *err);

SBPF_API struct sbpf_program *sbpf_program_ref(struct sbpf_program *prog);
/* Drops a reference; the last frees code, sandboxes and all.  NULL is fine. */
SBPF_API void sbpf_program_unref(struct sbpf_program *prog);

/* Entries: 0 .. count-1.  Names and sections live as long as the program.  find: index or -ENOENT. */
SBPF_API unsigned int sbpf_program_entries(const struct sbpf_program *prog);
SBPF_API const char *sbpf_program_entry_name(const struct sbpf_program *prog, unsigned int entry);
SBPF_API const char *sbpf_program_entry_section(const struct sbpf_program *prog,
						unsigned int entry);
SBPF_API int sbpf_program_entry_find(const struct sbpf_program *prog, const char *name);

/* A kept note section's bytes, or NULL.  They live as long as the program. */
SBPF_API const void *sbpf_program_note(const struct sbpf_program *prog, const char *section,
				       size_t *len);

struct sbpf_program_info {
	size_t size; /* sizeof(struct sbpf_program_info), set by the caller */
	uint32_t insns;
	uint32_t functions;
	uint32_t stack_bytes; /* of the deepest chain of calls */
	uint32_t call_depth;
	uint64_t rodata_bytes;
	uint64_t data_bytes; /* .data and .bss */
	uint64_t helpers;    /* feature bits of the helpers it calls */
};
SBPF_API int sbpf_program_info(const struct sbpf_program *prog, struct sbpf_program_info *info);

/* Print the linked program, an instruction a line with its source line, through @emit. */
SBPF_API int sbpf_program_disasm(const struct sbpf_program *prog,
				 void (*emit)(void *arg, const char *line), void *arg);

/* ---- compiling ---- */

struct sbpf_code_info {
	size_t size;         /* sizeof(struct sbpf_code_info), set by the caller */
	enum sbpf_tier tier; /* the tier asked about, AUTO resolved */
	uint64_t compile_ns;
	uint64_t code_bytes;
};

/*
 * Make @tier's code ready; a second call is free.  Thread-safe.  -EOPNOTSUPP: this machine or build
 * has no such tier, @err says why.  @info may be NULL.
 */
SBPF_API int sbpf_program_compile(struct sbpf_program *prog, enum sbpf_tier tier,
				  struct sbpf_code_info *info, struct sbpf_error *err);

/* "auto", "interp", "template", "llvm", "kernel"; NULL or -EINVAL for what is not one. */
SBPF_API const char *sbpf_tier_name(enum sbpf_tier tier);
SBPF_API int sbpf_tier_parse(const char *name, enum sbpf_tier *tier);
/* NULL if the tier can run here, else one line that says what is missing. */
SBPF_API const char *sbpf_tier_missing(enum sbpf_tier tier);
/*
 * What the kernel tier asks of this machine, row @i from 0 up: its name, and NULL or one line of what is missing.
 * -ENOENT past the last.
 */
SBPF_API int sbpf_kernel_need(unsigned int i, const char **name, const char **missing);

/*
 * Tiering.  AUTO is a tier that compiles in no time.  An embedder that tells how long its calls with AUTO took gets better
 * code for those who take long: it is compiled in a process of its own (one at a time, in a sandbox, bounded in
 * time and memory) or taken from the user's code cache, and the first call with AUTO after that runs it.  From then on
 * fuel is a bound of time rather than a count (docs/llvm-tier.md), so calls whose fuel matters name their tier instead.
 * Costs nothing before there were some milliseconds of work; never waits; any thread.
 */
SBPF_API void sbpf_program_spent(struct sbpf_program *prog, uint64_t run_ns);
/* Why AUTO is what it is now: one line, that lives as long as the program. */
SBPF_API const char *sbpf_program_tiering(const struct sbpf_program *prog);

/* The helpers this runtime has: name by feature bit 0..63, NULL past the last. */
SBPF_API const char *sbpf_helper_name(unsigned int bit);

/* ---- sandboxes ---- */

/*
 * Windows: whole pages at fixed offsets, the same on every engine, the read-only ones below the
 * writable ones.  "read-only" is the program's view; the embedder fills them all.
 */
enum sbpf_window {
	SBPF_WIN_CTX,    /* read-only: the call's context */
	SBPF_WIN_RODATA, /* read-only: the program's constants (the runtime's to fill) */
	SBPF_WIN_OTHER,  /* read-only: a second input */
	SBPF_WIN_ARG,    /* read-only: arguments */
	SBPF_WIN_DATA,   /* .data and .bss (the runtime's to fill) */
	SBPF_WIN_STACK,  /* (the runtime's to fill) */
	SBPF_WIN_STATE,  /* what survives a call */
	SBPF_WIN_HEAP,
	SBPF_WIN_IN,
	SBPF_WIN_OUT,
	SBPF_WINDOWS,
};

#define SBPF_PAGE 4096u

/* Sandbox offset at which the window starts, and the most bytes it can have. */
SBPF_API uint64_t sbpf_window_offset(enum sbpf_window win);
SBPF_API uint64_t sbpf_window_max(enum sbpf_window win);

/*
 * Take a sandbox for @prog from its pool, or make one.  One thread at a time uses it.  A sandbox that
 * was used before keeps window sizes and contents (of this program's earlier calls only): the caller
 * sets or zeroes every window it will show.  -ENOMEM: no memory or address space.
 */
SBPF_API int sbpf_sandbox_get(struct sbpf_program *prog, struct sbpf_sandbox **out);
/*
 * The same, of the kind that @tier runs in: SBPF_TIER_KERNEL alone has its own, all others share the one above.
 * -EPERM, -EOPNOTSUPP: the kernel gives none.
 */
SBPF_API int sbpf_sandbox_get_for(struct sbpf_program *prog, enum sbpf_tier tier,
				  struct sbpf_sandbox **out);
/*
 * What the first call of @entry in this sandbox would otherwise wait for: SBPF_TIER_KERNEL loads it once for
 * each sandbox.  -EOPNOTSUPP: the kernel refuses it, and why.  Free where there is nothing to do.
 */
SBPF_API int sbpf_sandbox_prepare(struct sbpf_sandbox *sb, unsigned int entry,
				  struct sbpf_error *err);
SBPF_API void sbpf_sandbox_put(struct sbpf_sandbox *sb);

/*
 * Give @win exactly the pages that hold its first @bytes (0: none) and return 0.  Pages that were there stay
 * as they are, new ones are zero.  -ENOSPC: over the window's maximum.  Free where the page count
 * does not change.
 */
SBPF_API int sbpf_sandbox_resize(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t bytes);
/* The embedder's view of a window, writable; valid until the sandbox is put back. */
SBPF_API void *sbpf_sandbox_ptr(struct sbpf_sandbox *sb, enum sbpf_window win);
/* Bytes (whole pages) the window has now. */
SBPF_API uint64_t sbpf_sandbox_size(const struct sbpf_sandbox *sb, enum sbpf_window win);
/* Zero the window; @dirty says how many of its first bytes are known to be written (the rest is dropped cheaply). */
SBPF_API int sbpf_sandbox_zero(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t dirty);
/*
 * Replace the pages of SBPF_WIN_IN with a private mapping of @fd at page-aligned @offset that covers
 * @bytes.  Writes stay private.  The next resize that follows gives plain pages again.
 * A file truncated underneath is an -EIO of the call or guard that meets it.
 */
SBPF_API int sbpf_sandbox_map(struct sbpf_sandbox *sb, int fd, uint64_t offset, uint64_t bytes);
/*
 * Run the embedder's own @fn(@arg) such that a fault on the sandbox's pages (a mapped file that was
 * truncated) makes this return -EIO instead of killing the process.  @fn must hold no lock.
 */
SBPF_API int sbpf_sandbox_guard(struct sbpf_sandbox *sb, int (*fn)(void *arg), void *arg);

/* ---- running ---- */

#define SBPF_FUEL_UNLIMITED UINT64_MAX

struct sbpf_call {
	size_t size; /* sizeof(struct sbpf_call) */
	enum sbpf_tier tier;
	unsigned int entry;
	uint64_t r1, r2;      /* the entry's two arguments */
	uint64_t fuel;        /* instructions; SBPF_FUEL_UNLIMITED for no limit */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC, 0 for none */
	const int *cancel;    /* polled; nonzero ends the call with -ECANCELED.  May be NULL */
	void (*trace)(void *arg, const char *text,
		      size_t len); /* may be NULL; text is not a string */
	void *trace_arg;
	/* results */
	uint64_t r0;
	uint64_t fuel_used;
	enum sbpf_tier ran; /* the tier that ran it, AUTO resolved */
};

/*
 * Run one call.  .data and .bss are as loaded and the stack is zero at its start.  0: the program
 * returned and @call->r0 holds its r0.  -EFAULT: it touched a page outside its windows or stored to
 * a read-only one; -EIO: a mapped file was truncated under it; -ETIME: fuel or deadline spent;
 * -ECANCELED; -EOPNOTSUPP: tier; -EBUSY: the sandbox is in a call already; -EINVAL: a sandbox that is not of
 * the tier's kind; -ERESTART (SBPF_TIER_KERNEL alone): the kernel ended a run that took too long for it, the writable
 * windows hold nothing of use: run it again in another tier.  @err (may be NULL) tells where.
 * @call->fuel_used is exact where 0 is returned.
 *
 * Faults are seen by the process's SIGSEGV and SIGBUS handlers, which sbpf_sandbox_get() installs, on top
 * of any that were installed since it last did.  They act only on faults inside the calling thread's own
 * sandbox and pass on all others to the handlers they found.
 */
SBPF_API int sbpf_run(struct sbpf_sandbox *sb, struct sbpf_call *call, struct sbpf_error *err);

SBPF_API const char *sbpf_version(void);

#ifdef __cplusplus
}
#endif

#endif /* LAMBDAIO_SBPF_H */
