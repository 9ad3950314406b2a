/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_main.c - sbpf-compile, the process in which programs of strangers meet LLVM: one question, one answer, the end.
 *
 * libsbpf starts it (tier_llvm_process.c) with the question on descriptor 3 and the answer on 4, both files in memory, and no
 * environment.  Before it looks at the question it gives up everything but computing (compile_jail.c).  Whoever breaks LLVM by a program holds a process that can burn a bounded time and answer
 * with code: which libsbpf runs (see SECURITY.md for what that means).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sbpf/compile_jail.h"

static void *read_question(size_t *len)
{
	struct stat st;
	uint8_t *p;

	if (fstat(3, &st) || st.st_size <= 0 || st.st_size > SBPF_LLVM_MAX_IMAGE)
		return NULL;
	*len = (size_t)st.st_size;
	p = malloc(*len);
	return p && pread(3, p, *len, 0) == (ssize_t)*len ? p : NULL;
}

static int write_answer(const void *answer, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(4, (const uint8_t *)answer + done, len - done);

		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

int main(void)
{
	struct sbpf_llvm_answer *answer;
	size_t len = 0, answer_len;
	void *question;

	/* Whatever its parent left open. */
	syscall(SYS_close_range, 5u, ~0u, 0u);
	prctl(PR_SET_DUMPABLE, 0);
	question = read_question(&len);
	sbpf_llvm_prepare();
	if (!question || compile_jail())
		_exit(2);
	answer = sbpf_llvm_answer(question, len, &answer_len);
	_exit(!answer || write_answer(answer, answer_len) ? 2 : 0);
}
