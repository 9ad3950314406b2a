/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.c - SIGSEGV and SIGBUS on a sandbox's own pages end the call; all others are passed on.
 *
 * The handler acts only if the kernel reports a fault, the thread is inside a call (or a guard), and
 * the address lies in that call's reservation.  It may strike generated code, the interpreter or a
 * helper inside a library; none of these holds a lock, so leaving them by siglongjmp is safe.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "sbpf/sandbox.h"

__thread struct sbpf_exec *sbpf_current
	__attribute__((tls_model("initial-exec"), visibility("hidden")));

static struct sigaction old_segv, old_bus;

static uintptr_t machine_pc(const void *context)
{
	const ucontext_t *uc = context;

#if defined(__x86_64__)
	return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (uintptr_t)uc->uc_mcontext.pc;
#else
	return 0;
#endif
}

/* Back to the default action, which the signal then meets: at the same instruction if it was a
 * fault (so that a core shows it), sent once more if it came from a process. */
static void give_up(int sig, siginfo_t *info)
{
	signal(sig, SIG_DFL);
	if (info->si_code <= 0)
		syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, info);
}

/* As if the kernel had called the handler that was there before us. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	struct sigaction *slot = sig == SIGSEGV ? &old_segv : &old_bus, old = *slot;
	sigset_t block = old.sa_mask, mask;

	if (old.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
		give_up(sig, info);
		return;
	}
	if (old.sa_flags & SA_RESETHAND)
		slot->sa_handler = SIG_DFL;
	if (!(old.sa_flags & SA_NODEFER))
		sigaddset(&block, sig);
	pthread_sigmask(SIG_BLOCK, &block, &mask);
	if (old.sa_flags & SA_SIGINFO)
		old.sa_sigaction(sig, info, context);
	else
		old.sa_handler(sig);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static bool is_ours(const struct sbpf_exec *x, int sig, const siginfo_t *info)
{
	uintptr_t from;

	if (!x || x->paused || info->si_code <= 0)
		return false;
	if (!x->code && sig != SIGBUS)
		return false;
	from = (uintptr_t)x->base - SBPF_GUARD;
	return (uintptr_t)info->si_addr - from < SBPF_SPACE + 2 * SBPF_GUARD;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	struct sbpf_exec *x = sbpf_current;

	if (!is_ours(x, sig, info)) {
		int saved = errno;

		pass_on(sig, info, context);
		errno = saved;
		return;
	}
	x->error = sig == SIGBUS ? -EIO : -EFAULT;
	x->address = (uintptr_t)info->si_addr - (uintptr_t)x->base;
	x->host_pc = machine_pc(context);
	/* The kernel changed no mask on the way in (SA_NODEFER), so there is none to restore. */
	siglongjmp(x->env, 1);
}

static void install(void)
{
	struct sigaction act = {.sa_sigaction = on_fault};

	/* Which calls a signal interrupts stays what it was. */
	sigaction(SIGSEGV, NULL, &old_segv);
	act.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | (old_segv.sa_flags & SA_RESTART);
	sigaction(SIGSEGV, &act, &old_segv);
	sigaction(SIGBUS, NULL, &old_bus);
	act.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | (old_bus.sa_flags & SA_RESTART);
	sigaction(SIGBUS, &act, &old_bus);
}

void sbpf_fault_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static __thread bool ready;
	sigset_t faults;

	if (ready)
		return;
	pthread_once(&once, install);
	/* The kernel kills a thread that faults with the signal blocked; many servers block all. */
	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	sigaddset(&faults, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
	ready = true;
}
