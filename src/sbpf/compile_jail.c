/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_jail.c - what the compiler's process may still do once it meets a program: compute.
 *
 * No file can be opened, no socket, process or thread be made, no page become executable, nobody else be signalled;
 * processor time, memory and the size of the answer are bounded.
 */
#include <errno.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sbpf/compile_jail.h"

#define CPU_SECONDS 20u
#define MEMORY      (2ull << 30)
#define STACK       (64ull << 20) /* LLVM recurses over what it is given */

static int limit(int what, uint64_t most)
{
	struct rlimit lim;

	if (getrlimit((__rlimit_resource_t)what, &lim))
		return -errno;
	if (lim.rlim_max < most)
		most = lim.rlim_max;
	lim.rlim_cur = most;
	if (what != RLIMIT_STACK) /* to be asked for, not to be lowered */
		lim.rlim_max = most;
	return setrlimit((__rlimit_resource_t)what, &lim) ? -errno : 0;
}

static int limit_all(void)
{
	int r = limit(RLIMIT_CPU, CPU_SECONDS);

	if (!r)
		r = limit(RLIMIT_AS, MEMORY);
	if (!r)
		r = limit(RLIMIT_STACK, STACK);
	if (!r)
		r = limit(RLIMIT_FSIZE, SBPF_LLVM_MAX_IMAGE);
	if (!r)
		r = limit(RLIMIT_NOFILE, 0);
	return r ? r : limit(RLIMIT_CORE, 0);
}

/* What computing takes.  Files are denied without a word, since libraries look for some; the rest is the end. */
static const int allowed[] = {
	SCMP_SYS(munmap),       SCMP_SYS(mremap),        SCMP_SYS(brk),
	SCMP_SYS(madvise),      SCMP_SYS(futex),         SCMP_SYS(exit_group),
	SCMP_SYS(exit),         SCMP_SYS(rt_sigreturn),  SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(getrandom),    SCMP_SYS(clock_gettime), SCMP_SYS(getrusage),
	SCMP_SYS(sched_yield),  SCMP_SYS(getpid),        SCMP_SYS(gettid),
	SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack),   SCMP_SYS(sysinfo),
	SCMP_SYS(fstat),
};
static const int denied[] = {
	SCMP_SYS(open),      SCMP_SYS(openat), SCMP_SYS(access),     SCMP_SYS(stat),
	SCMP_SYS(lstat),     SCMP_SYS(statx),  SCMP_SYS(newfstatat), SCMP_SYS(readlink),
	SCMP_SYS(getcwd),    SCMP_SYS(ioctl),  SCMP_SYS(faccessat),  SCMP_SYS(readlinkat),
	SCMP_SYS(prlimit64),
};

static int add_rules(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; !r && i < sizeof(allowed) / sizeof(allowed[0]); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; !r && i < sizeof(denied) / sizeof(denied[0]); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), denied[i], 0);
	/* Memory, but none that could become code. */
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				     SCMP_A4_32(SCMP_CMP_EQ, UINT32_MAX, 0));
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* The answer; and what abort() says. */
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
				     SCMP_A0_32(SCMP_CMP_LE, 4, 0));
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				     SCMP_A0_32(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
	return r;
}

int compile_jail(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = ctx ? add_rules(ctx) : -ENOMEM;

	if (!r)
		r = limit_all();
	if (!r)
		r = seccomp_load(ctx); /* sets no_new_privs, too */
	seccomp_release(ctx);
	return r;
}
