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

/*
 * The actions that were there when we put ours on top, the first one first; more than one where
 * others replaced ours later.  Such a one may pass on to us what we pass on to it: the same signal
 * then comes back deeper in the stack and goes to the one before.
 */
#define FOUND_MAX 8u
struct chain {
	struct sigaction found[FOUND_MAX];
	_Atomic unsigned int n;
};
static struct chain segv_chain, bus_chain;

/* The signal that this thread is passing on, where it is in the stack, and how often it came back. */
static __thread struct passing {
	const siginfo_t *info;
	const void *frame;
	unsigned int again;
} passing __attribute__((tls_model("initial-exec")));

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
static void call_found(struct sigaction *slot, int sig, siginfo_t *info, void *context)
{
	struct sigaction old = *slot;
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

static void pass_on(int sig, siginfo_t *info, void *context)
{
	struct chain *chain = sig == SIGSEGV ? &segv_chain : &bus_chain;
	unsigned int n = atomic_load_explicit(&chain->n, memory_order_acquire);
	const struct passing outer = passing;

	/* A handler that left by longjmp leaves the record behind, but then we are not below it. */
	passing.again = outer.info == info && __builtin_frame_address(0) < outer.frame
				? outer.again + 1
				: 0;
	passing.info = info;
	passing.frame = __builtin_frame_address(0);
	if (passing.again < n)
		call_found(&chain->found[n - 1 - passing.again], sig, info, context);
	else
		give_up(sig, info);
	passing = outer;
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
	/* An offset may have taken it into a guard; what it means is the address cut to 32 bits. */
	x->address = (uint32_t)((uintptr_t)info->si_addr - (uintptr_t)x->base);
	x->host_pc = machine_pc(context);
	/* The kernel changed no mask on the way in (SA_NODEFER), so there is none to restore. */
	siglongjmp(x->env, 1);
}

static bool same_action(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_handler == b->sa_handler && a->sa_flags == b->sa_flags;
}

static bool is_on_top(int sig)
{
	struct sigaction now;

	sigaction(sig, NULL, &now);
	return now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_fault;
}

static void put_on_top(int sig, struct chain *chain)
{
	struct sigaction act = {.sa_sigaction = on_fault}, now;
	unsigned int n = atomic_load_explicit(&chain->n, memory_order_relaxed);

	if (is_on_top(sig))
		return;
	sigaction(sig, NULL, &now);
	if (!n || !same_action(&chain->found[n - 1], &now)) {
		n += n < FOUND_MAX;
		chain->found[n - 1] = now;
		atomic_store_explicit(&chain->n, n, memory_order_release);
	}
	/* Which calls a signal interrupts stays what it was. */
	act.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | (now.sa_flags & SA_RESTART);
	sigaction(sig, &act, NULL);
}

void sbpf_fault_install(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	if (is_on_top(SIGSEGV) && is_on_top(SIGBUS))
		return;
	pthread_mutex_lock(&lock);
	put_on_top(SIGSEGV, &segv_chain);
	put_on_top(SIGBUS, &bus_chain);
	pthread_mutex_unlock(&lock);
}

void sbpf_fault_unblock(void)
{
	static __thread bool done;
	sigset_t faults;

	if (done)
		return;
	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	sigaddset(&faults, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
	done = true;
}
