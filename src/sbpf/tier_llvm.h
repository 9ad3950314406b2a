/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm.h - what libsbpf's side of the LLVM tier shares: tier_llvm.c, tier_llvm_process.c, tier_llvm_image.c, code_cache.c.
 */
#ifndef SBPF_TIER_LLVM_H
#define SBPF_TIER_LLVM_H

#include <sys/types.h>

#include "sbpf/jit_llvm.h"

/* ---- tier_llvm.c ---- */

/* What the compiler is asked about @prog, malloc'd; NULL: no memory. */
void *sbpf_llvm_question(const struct sbpf_program *prog, size_t *len);

/* ---- tier_llvm_image.c: an answer in memory, ready to run ---- */

struct llvm_code {
	struct sbpf_code code;
	uint8_t *mem; /* text and constants with outside addresses, each whole pages */
	size_t mem_len;
	size_t used;                    /* bytes of text */
	struct sbpf_llvm_place *places; /* ascending */
	size_t n_places;
	uint32_t n_funcs;
	uint32_t entry_at[]; /* by function, 1 more than the offset of its entry; 0: it is none */
};

/*
 * The answer comes from a process that ate a hostile program, or from a file: none of its sizes and numbers is believed.
 * -EBADMSG for what cannot be one, its own code for a refusal; *why says what.
 */
int sbpf_llvm_map(const struct sbpf_program *prog, const uint8_t *answer, size_t len,
		  struct llvm_code **out, char *why, size_t why_len);
void sbpf_llvm_unmap(struct llvm_code *lc);

/* ---- tier_llvm_process.c: the compiler's process ---- */

struct llvm_process {
	pid_t owner; /* who started it, 0: nobody; a forked child of the host has none of its parent's */
	int pidfd, answer;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
};

/* How long a compilation may take by the wall's clock. */
extern uint32_t sbpf_llvm_seconds;

/* The compiler's file, or NULL and one line that says what is missing. */
const char *sbpf_llvm_find(const char **missing);
/* Start one on @question.  -errno and *why. */
int sbpf_llvm_start(struct llvm_process *p, const void *question, size_t len, bool background,
		    char *why, size_t why_len);
/*
 * Wait up to @ms for it to end: -EAGAIN if it did not.  Else it is gone: 0 and its answer (malloc'd, any bytes up to
 * SBPF_LLVM_MAX_IMAGE), or -errno and why there is none.
 */
int sbpf_llvm_wait(struct llvm_process *p, int ms, uint8_t **answer, size_t *len, char *why,
		   size_t why_len);
/* End it and wait for that, which does not take long. */
void sbpf_llvm_stop(struct llvm_process *p);

/* ---- code_cache.c: answers that outlive the process ---- */

#define SBPF_CACHE_KEY 32u

/* @key of what an answer depends on; false: there is no cache. */
bool sbpf_cache_key(const void *question, size_t len, const char *compiler,
		    uint8_t key[SBPF_CACHE_KEY]);
/* Bytes of all files; what was used longest ago goes first. */
extern uint64_t sbpf_cache_bytes;
/* The answer kept under @key, malloc'd, or NULL. */
uint8_t *sbpf_cache_get(const uint8_t key[SBPF_CACHE_KEY], size_t *len);
void sbpf_cache_put(const uint8_t key[SBPF_CACHE_KEY], const void *answer, size_t len);

#endif /* SBPF_TIER_LLVM_H */
