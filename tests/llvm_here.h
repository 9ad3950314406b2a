/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of small programs: the LLVM tier's compiler in the test's own process, since starting one takes longer than they do. */
#ifndef TESTS_LLVM_HERE_H
#define TESTS_LLVM_HERE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "sbpf/tier_llvm.h"

/* As sbpf_program_compile() for the LLVM tier; what AUTO stands for changes as well. */
static inline int compile_llvm_here(struct sbpf_program *prog, char *why, size_t why_len)
{
	size_t len, answer_len = 0;
	void *question = sbpf_llvm_question(prog, &len);
	struct sbpf_llvm_answer *answer =
		question ? sbpf_llvm_answer(question, len, &answer_len) : NULL;
	struct llvm_code *lc;
	int r = -ENOMEM;

	snprintf(why, why_len, "no memory");
	if (answer)
		r = sbpf_llvm_map(prog, (const uint8_t *)answer, answer_len, &lc, why, why_len);
	if (!r)
		sbpf_program_publish(prog, &lc->code, 0);
	free(answer);
	free(question);
	return r;
}

#endif /* TESTS_LLVM_HERE_H */
