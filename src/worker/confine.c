/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.c - what a worker gives up before its first job, and the calls that are left.
 *
 * What remains: the memory it has, the control socket's reading end, the eventfd, the read-only descriptors that it is
 * sent.  A call that is not in the table kills the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/worker.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif

/* Whom nobody's files belong to: the kernel's overflow uid and gid. */
#define NOBODY    65534u
#define FILES_MAX 16u
/* Processes and threads of its user in all: far above what workers need, far below what hurts the machine. */
#define THREADS_MAX 4096u
/*
 * Below plain IO, which with this keeps its latency beside functions that saturate its core; but not
 * SCHED_IDLE, which any other busy process would starve (docs/lambda-workers.md has the measurements).
 */
#define NICER 10
/* Under memory pressure a worker goes before anything that serves plain IO. */
#define OOM_SCORE "900"

static int fail(const char *what, int error)
{
	dprintf(STDERR_FILENO, "liod-worker: %s: %s\n", what, strerror(error));
	return WORKER_EXIT_SETUP;
}

/* ---- priority: whoever moves data goes first ---- */

/* Where a service manager or a container forbids one of these, the worker runs at the server's own priority. */
static void lower_priority(void)
{
	const struct sched_param param = {0};
	int fd;

	(void)!sched_setscheduler(0, SCHED_BATCH, &param);
	(void)!nice(NICER);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7));
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, OOM_SCORE, strlen(OOM_SCORE));
		close(fd);
	}
}

/* ---- limits, rights ---- */

static int limit(int what, rlim_t most)
{
	struct rlimit now;

	if (getrlimit((__rlimit_resource_t)what, &now))
		return fail("getrlimit", errno);
	if (now.rlim_max < most)
		most = now.rlim_max;
	now.rlim_cur = now.rlim_max = most;
	return setrlimit((__rlimit_resource_t)what, &now) ? fail("setrlimit", errno) : 0;
}

static int limit_resources(const struct worker_command *command)
{
	int rc = limit(RLIMIT_CORE, 0);

	if (!rc)
		rc = limit(RLIMIT_FSIZE, 0);
	if (!rc)
		rc = limit(RLIMIT_NOFILE, FILES_MAX);
	if (!rc)
		rc = limit(RLIMIT_MEMLOCK, 0);
	if (!rc)
		rc = limit(RLIMIT_NPROC, THREADS_MAX);
#ifndef WITH_ASAN
	if (!rc)
		rc = limit(RLIMIT_DATA, command->data_limit);
#endif
	return rc;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct has[2] = {0};
	const struct __user_cap_data_struct none[2] = {0};

	/* Where there are none, a service manager may well forbid to drop them. */
	if (!syscall(SYS_capget, &header, has) && !memcmp(has, none, sizeof(none)))
		return 0;
	return syscall(SYS_capset, &header, none) ? fail("capset", errno) : 0;
}

static int drop_rights(void)
{
	/* In a container that knows no other user, root stays root, without capabilities. */
	if (!geteuid()) {
		if (setgroups(0, NULL) && errno != EPERM)
			return fail("setgroups", errno);
		if (setresgid(NOBODY, NOBODY, NOBODY) && errno != EINVAL)
			return fail("setresgid", errno);
		if (setresuid(NOBODY, NOBODY, NOBODY) && errno != EINVAL)
			return fail("setresuid", errno);
	}
	if (drop_capabilities())
		return WORKER_EXIT_SETUP;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return fail("prctl", errno);
	/* Changing users forgets this one, so it comes last; the control socket's end says it too. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return fail("prctl", errno);
	return 0;
}

/* ---- what the runtime opens or asks once ---- */

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, 1);
}

/* The first long sort asks the kernel how much memory there is. */
static void warm_sort(void)
{
	static uint8_t long_enough[2048];

	qsort(long_enough, sizeof(long_enough), 1, compare);
}

static int warm_up(void)
{
	/* mov r0, 0; exit */
	static const uint8_t program[] = {0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0};
	struct sbpf_call call = {.size = sizeof(call), .fuel = SBPF_FUEL_UNLIMITED};
	struct sbpf_program *prog;
	struct sbpf_sandbox *sb;
	struct sbpf_error err;
	int rc;

	/* One heap: another would read files of /proc about the machine. */
	mallopt(M_ARENA_MAX, 1);
	warm_sort();
	rc = sbpf_program_from_insns(program, sizeof(program) / 8, NULL, &prog, &err);
	if (rc)
		return fail("the runtime", -rc);
	call.tier = sbpf_tier_missing(SBPF_TIER_TEMPLATE) ? SBPF_TIER_INTERP : SBPF_TIER_TEMPLATE;
	rc = sbpf_sandbox_get(prog, &sb);
	if (!rc) {
		rc = sbpf_run(sb, &call, &err);
		sbpf_sandbox_put(sb);
	}
	sbpf_program_unref(prog);
	return rc ? fail("the runtime", -rc) : 0;
}

/* ---- calls ---- */

/* A thread as glibc makes it; nothing else may be cloned. */
#define THREAD_FLAGS                                                                        \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
	 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)
#define ANY           {0}
#define IS(at, value) ((struct scmp_arg_cmp){.arg = (at), .op = SCMP_CMP_EQ, .datum_a = (value)})
#define MASKED(at, mask, value) \
	((struct scmp_arg_cmp){ \
		.arg = (at), .op = SCMP_CMP_MASKED_EQ, .datum_a = (mask), .datum_b = (value)})

#ifdef __aarch64__
#define PROT_CODE (PROT_READ | PROT_EXEC | 0x10 /* PROT_BTI */)
#else
#define PROT_CODE (PROT_READ | PROT_EXEC)
#endif

/* docs/lambda-workers.md says the same, with the reason for each. */
static const struct rule {
	int call;
	uint32_t n;
	struct scmp_arg_cmp arg;
} rules[] = {
	/* data */
	{SCMP_SYS(pread64), 0, ANY},
	{SCMP_SYS(recvmsg), 1, IS(0, WORKER_FD_CONTROL)},
	{SCMP_SYS(write), 1, IS(0, WORKER_FD_EVENT)},
	{SCMP_SYS(close), 0, ANY},
	/* memory: never executable at once, and only what can no longer be written */
	{SCMP_SYS(mmap), 1, MASKED(2, PROT_EXEC, 0)},
	{SCMP_SYS(mprotect), 1, MASKED(2, PROT_EXEC, 0)},
	{SCMP_SYS(mprotect), 1, IS(2, PROT_READ | PROT_EXEC)},
#ifdef __aarch64__
	{SCMP_SYS(mprotect), 1, IS(2, PROT_CODE)},
#endif
	{SCMP_SYS(munmap), 0, ANY},
	{SCMP_SYS(mremap), 0, ANY},
	{SCMP_SYS(madvise), 0, ANY},
	{SCMP_SYS(brk), 0, ANY},
	/* time and waiting */
	{SCMP_SYS(futex), 0, ANY},
	{SCMP_SYS(clock_gettime), 0, ANY},
	{SCMP_SYS(restart_syscall), 0, ANY},
	/* faults of a function */
	{SCMP_SYS(rt_sigaction), 0, ANY},
	{SCMP_SYS(rt_sigprocmask), 0, ANY},
	{SCMP_SYS(rt_sigreturn), 0, ANY},
	/* threads */
	{SCMP_SYS(clone), 1, IS(0, THREAD_FLAGS)},
	{SCMP_SYS(set_robust_list), 0, ANY},
	{SCMP_SYS(rseq), 0, ANY},
	{SCMP_SYS(exit), 0, ANY},
	{SCMP_SYS(exit_group), 0, ANY},
#ifdef WITH_ASAN
	{SCMP_SYS(sigaltstack), 0, ANY},
	{SCMP_SYS(gettid), 0, ANY},
	{SCMP_SYS(getpid), 0, ANY},
	{SCMP_SYS(sched_yield), 0, ANY},
	{SCMP_SYS(sched_getaffinity), 0, ANY},
	{SCMP_SYS(prctl), 0, ANY},
	{SCMP_SYS(getrlimit), 0, ANY},
	{SCMP_SYS(prlimit64), 0, ANY},
	{SCMP_SYS(openat), 0, ANY},
	{SCMP_SYS(newfstatat), 0, ANY},
	{SCMP_SYS(readlink), 0, ANY},
	{SCMP_SYS(read), 0, ANY},
#endif
};

#if defined(__x86_64__)
#define HWCAP2_FSGSBASE 2u
/* Machines that cannot set the segment of a sandbox without the kernel. */
static int allow_segment(scmp_filter_ctx filter)
{
	int rc = 0;

	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
		return 0;
	for (uint64_t op = 0x1001; op <= 0x1004 && !rc; op += 3) /* ARCH_SET_GS, ARCH_GET_GS */
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(arch_prctl), 1, IS(0, op));
	return rc;
}
#else
static int allow_segment(scmp_filter_ctx filter)
{
	return 0;
}
#endif

static int fill(scmp_filter_ctx filter)
{
	int rc = 0;

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules) && !rc; i++)
		rc = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call, rules[i].n,
					    &rules[i].arg);
	/* Its flags are in memory, where no filter sees them; the library then takes clone(). */
	if (!rc)
		rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return rc ? rc : allow_segment(filter);
}

static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc;

	if (!filter)
		return fail("seccomp", ENOMEM);
	rc = fill(filter);
	if (!rc)
		rc = seccomp_load(filter);
	seccomp_release(filter);
	return rc ? fail("seccomp: the kernel must be built with CONFIG_SECCOMP_FILTER", -rc) : 0;
}

static int close_others(void)
{
	/* What is below the three is the standard ones; stderr stays until nothing can fail any more. */
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	close(WORKER_FD_SHARED);
	return close_range(WORKER_FD_EVENT + 1, ~0u, 0) && errno != ENOSYS
		       ? fail("close_range", errno)
		       : 0;
}

int worker_confine(const struct worker_command *command)
{
	int rc = warm_up();

	/* Not before: what is slow to start keeps jobs waiting. */
	lower_priority();
	if (!rc)
		rc = limit_resources(command);
	if (!rc)
		rc = drop_rights();
	if (!rc)
		rc = close_others();
	if (!rc)
		rc = filter_calls();
	if (!rc)
		close(STDERR_FILENO);
	return rc;
}

/* ---- proof ---- */

static int try_kill(void)
{
	return kill(1, 0);
}

static int try_exec(void)
{
	char *argv[] = {(char *)"true", NULL};

	return execve("/bin/true", argv, NULL);
}

static int try_mmap(void)
{
	return mmap(NULL, WORKER_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

static int try_writable_code(void)
{
	void *p =
		mmap(NULL, WORKER_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, WORKER_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static int try_fork(void)
{
	return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static int try_send(void)
{
	return (int)send(WORKER_FD_CONTROL, "x", 1, MSG_NOSIGNAL);
}

static int try_receive_elsewhere(void)
{
	struct msghdr msg = {0};

	return (int)recvmsg(WORKER_FD_EVENT, &msg, 0);
}

static int try_open(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static int try_stat(void)
{
	struct stat st;

	return stat("/etc/passwd", &st);
}

static int try_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int try_ptrace(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int try_write(void)
{
	return (int)write(STDERR_FILENO, "x", 1);
}

static int try_memfd(void)
{
	return memfd_create("x", 0);
}

static int try_prctl(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static int try_ring(void)
{
	return (int)syscall(SYS_io_uring_setup, 1, NULL);
}

static int try_bpf(void)
{
	return (int)syscall(SYS_bpf, 0, NULL, 0);
}

int worker_try(const char *what)
{
	static const struct {
		const char *name;
		int (*call)(void);
	} calls[] = {
		{"open", try_open},
		{"stat", try_stat},
		{"socket", try_socket},
		{"execve", try_exec},
		{"ptrace", try_ptrace},
		{"kill", try_kill},
		{"mmap-exec", try_mmap},
		{"mprotect-write-exec", try_writable_code},
		{"fork", try_fork},
		{"send", try_send},
		{"recvmsg-elsewhere", try_receive_elsewhere},
		{"write-elsewhere", try_write},
		{"memfd", try_memfd},
		{"prctl", try_prctl},
		{"io_uring", try_ring},
		{"bpf", try_bpf},
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		if (!strcmp(calls[i].name, what)) {
			calls[i].call();
			return 1;
		}
	}
	return 2;
}
