/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm_process.c - starting the compiler's process from within any host, waiting for it or not, ending it.
 *
 * The host may be anything: it may have many threads, handle SIGCHLD, or reap every child there is.  So the process is nobody's
 * child: it is started by one that ends at once, which the host's waits and signals do not see since it never runs a program of its
 * own.  Both share our memory until they end or run one (no copy of the host's tables).  The process is known by a descriptor;
 * how it ended nobody tells, but for its answer.  Question and answer are files in memory: whatever the process
 * does, reading the answer of a dead one cannot hang and its length is a fact.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sbpf/tier_llvm.h"

#define COMPILER    "sbpf-compile"
#define CHILD_STACK (64u << 10)
#define FD_ABOVE    10 /* what the child moves its descriptors out of the way to */

uint32_t sbpf_llvm_seconds = 60;

/* ---- the file ---- */

static char compiler_path[4096];
static char missing_text[320];

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

static bool is_beside_us(void)
{
	static const char *const where[] = {COMPILER, SBPF_LIBEXEC_FROM_LIB "/" COMPILER};
	const char *slash;
	Dl_info self;

	/* A program that has us linked in is named as it was called: not to be searched beside. */
	if (!dladdr(missing_text, &self) || !self.dli_fname || self.dli_fname[0] != '/')
		return false;
	slash = strrchr(self.dli_fname, '/');
	for (unsigned int i = 0; i < 2; i++) {
		int n = snprintf(compiler_path, sizeof(compiler_path), "%.*s/%s",
				 (int)(slash - self.dli_fname), self.dli_fname, where[i]);

		if (n < (int)sizeof(compiler_path) && is_program(compiler_path))
			return true;
	}
	return false;
}

static void find(void)
{
	const char *named = secure_getenv("SBPF_COMPILER");

	if (named && *named) {
		if (named[0] != '/')
			snprintf(missing_text, sizeof(missing_text),
				 "SBPF_COMPILER is not an absolute path; name " COMPILER
				 " from the root on");
		else if (strlen(named) >= sizeof(compiler_path) || !is_program(named))
			snprintf(missing_text, sizeof(missing_text),
				 "%.200s, which SBPF_COMPILER names, is no program", named);
		else
			strcpy(compiler_path, named);
		return;
	}
	if (is_beside_us())
		return;
	strcpy(compiler_path, SBPF_LIBEXEC "/" COMPILER);
	if (!is_program(compiler_path))
		snprintf(missing_text, sizeof(missing_text),
			 "the LLVM tier is not installed: there is no " SBPF_LIBEXEC "/" COMPILER);
}

const char *sbpf_llvm_find(const char **missing)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find);
	*missing = missing_text[0] ? missing_text : NULL;
	return *missing ? NULL : compiler_path;
}

/* ---- who is to be ended with us ---- */

#define RUNNING_MAX 8u
static _Atomic int
	running[RUNNING_MAX]; /* descriptors, and 1; what does not fit ends by its own limits */

static void send_kill(int pidfd)
{
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0u);
}

static void end_running(void)
{
	for (unsigned int i = 0; i < RUNNING_MAX; i++) {
		int pidfd = atomic_load(&running[i]) - 1;

		if (pidfd >= 0)
			send_kill(pidfd);
	}
}

/* A forked child has none of them. */
static void forget_running(void)
{
	for (unsigned int i = 0; i < RUNNING_MAX; i++)
		atomic_store(&running[i], 0);
}

static void end_with_us(void)
{
	atexit(end_running);
	pthread_atfork(NULL, NULL, forget_running);
}

static void note_running(int from, int to)
{
	for (unsigned int i = 0; i < RUNNING_MAX; i++) {
		int was = from + 1;

		if (atomic_compare_exchange_strong(&running[i], &was, to + 1))
			return;
	}
}

/* ---- starting ---- */

struct child {
	const char *path;
	int question, answer, pidfd;
	bool background;
	int error; /* shared memory tells why nothing runs */
	uint8_t *stack;
};

/*
 * In the new process, but in our memory while our thread waits: nothing but system calls.  All signals stay blocked: none is
 * for the compiler, and the kernel's own reasons to kill do not ask.  What a sanitizer notes about a stack would
 * stay behind for whatever is mapped there next.
 */
__attribute__((no_sanitize_address)) static int compiler_main(void *arg)
{
	struct child *c = arg;
	char name[] = COMPILER;
	char *const argv[] = {name, NULL}, *const envp[] = {NULL};
	int q = fcntl(c->question, F_DUPFD, FD_ABOVE), a = fcntl(c->answer, F_DUPFD, FD_ABOVE);
	int null = open("/dev/null", O_RDWR);

	if (q >= 0 && a >= 0 && null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 &&
	    dup2(null, 2) >= 0 && dup2(q, 3) >= 0 && dup2(a, 4) >= 0) {
		if (c->background)
			setpriority(PRIO_PROCESS, 0, 10);
		execve(c->path, argv, envp);
	}
	c->error = -errno;
	return 1;
}

/* The one between, with our descriptors: the other's is to be ours. */
__attribute__((no_sanitize_address)) static int between_main(void *arg)
{
	struct child *c = arg;

	if (clone(compiler_main, c->stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, c,
		  &c->pidfd) < 0)
		c->error = -errno;
	return 0;
}

static int memory_file(const void *bytes, size_t len)
{
	int fd = (int)syscall(SYS_memfd_create, COMPILER, 1u /* MFD_CLOEXEC */);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const uint8_t *)bytes + done, len - done, (off_t)done);

		if (n <= 0) {
			int r = n < 0 ? -errno : -EIO;

			close(fd);
			return r;
		}
		done += (size_t)n;
	}
	return fd;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int run_child(struct child *c)
{
	sigset_t all, old;
	pid_t pid;

	c->stack = mmap(NULL, 2 * CHILD_STACK, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (c->stack == MAP_FAILED)
		return -errno;
	/* A handler of the host must not run in the child, where it would write to the host's memory. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = clone(between_main, c->stack + 2 * CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES,
		    c);
	if (pid < 0)
		c->error = -errno;
	else
		waitpid(pid, NULL, __WCLONE);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	munmap(c->stack, 2 * CHILD_STACK);
	if (c->error && c->pidfd >= 0)
		close(c->pidfd);
	return c->error;
}

int sbpf_llvm_start(struct llvm_process *p, const void *question, size_t len, bool background,
		    char *why, size_t why_len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const char *missing;
	struct child c = {.path = sbpf_llvm_find(&missing), .background = background, .pidfd = -1};
	int r = 0;

	if (missing) {
		snprintf(why, why_len, "%s", missing);
		return -EOPNOTSUPP;
	}
	pthread_once(&once, end_with_us);
	*p = (struct llvm_process){.pidfd = -1, .answer = -1, .owner = getpid()};
	p->deadline_ns = now_ns() + sbpf_llvm_seconds * 1000000000ull;
	c.question = memory_file(question, len);
	c.answer = p->answer = memory_file(NULL, 0);
	if (c.question < 0 || c.answer < 0)
		r = c.question < 0 ? c.question : c.answer;
	else
		r = run_child(&c);
	if (c.question >= 0)
		close(c.question);
	if (!r) {
		p->pidfd = c.pidfd;
		note_running(-1, p->pidfd);
		return 0;
	}
	if (p->answer >= 0)
		close(p->answer);
	p->owner = 0;
	snprintf(why, why_len, "its process cannot be started: %s", strerrordesc_np(-r));
	return r;
}

/* ---- the end ---- */

static void close_all(struct llvm_process *p)
{
	siginfo_t info;

	note_running(p->pidfd, -1);
	/* Where we inherit orphans it has become ours after all. */
	waitid((idtype_t)P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOHANG | __WALL);
	close(p->pidfd);
	close(p->answer);
	p->owner = 0;
}

static int read_answer(struct llvm_process *p, uint8_t **answer, size_t *len, char *why,
		       size_t why_len)
{
	struct stat st;
	ssize_t n;

	if (fstat(p->answer, &st) || !st.st_size) {
		snprintf(why, why_len,
			 "the compiler ended without an answer: it crashed, or ran out of its time "
			 "or memory");
		return -EFAULT;
	}
	if (st.st_size > SBPF_LLVM_MAX_IMAGE) {
		snprintf(why, why_len, "the compiler's answer cannot be used: its length");
		return -EBADMSG;
	}
	*len = (size_t)st.st_size;
	*answer = malloc(*len);
	if (!*answer) {
		snprintf(why, why_len, "no memory for the compiler's answer");
		return -ENOMEM;
	}
	n = pread(p->answer, *answer, *len, 0);
	if (n == (ssize_t)*len)
		return 0;
	free(*answer);
	snprintf(why, why_len, "the compiler's answer cannot be read");
	return -EIO;
}

static bool has_ended(const struct llvm_process *p, int ms)
{
	struct pollfd fd = {.fd = p->pidfd, .events = POLLIN};
	uint64_t until = now_ns() + (uint64_t)ms * 1000000u, now;
	int n = poll(&fd, 1, ms);

	while (n < 0 && errno == EINTR && (now = now_ns()) < until)
		n = poll(&fd, 1, (int)((until - now) / 1000000u) + 1);
	return n > 0;
}

void sbpf_llvm_stop(struct llvm_process *p)
{
	if (!p->owner)
		return;
	if (p->owner == getpid()) {
		send_kill(p->pidfd);
		has_ended(p, 10000);
	}
	close_all(p);
}

int sbpf_llvm_wait(struct llvm_process *p, int ms, uint8_t **answer, size_t *len, char *why,
		   size_t why_len)
{
	int r;

	if (p->owner != getpid()) {
		close_all(p);
		snprintf(why, why_len, "the process forked while the compiler ran");
		return -ECHILD;
	}
	if (!has_ended(p, ms)) {
		if (now_ns() < p->deadline_ns)
			return -EAGAIN;
		sbpf_llvm_stop(p);
		snprintf(why, why_len, "the compiler took longer than %u seconds",
			 sbpf_llvm_seconds);
		return -ETIME;
	}
	r = read_answer(p, answer, len, why, why_len);
	close_all(p);
	return r;
}
