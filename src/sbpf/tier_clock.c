/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_clock.c - calls of a tier that counts no fuel end in time: a clock ticks on the computing thread and unwinds the call.
 *
 * Each thread that runs such calls has one timer on its own processor time, so that neither sleep nor a busy
 * machine counts.  It ticks only while there are calls: a tick that finds none stops it, so calls in a row pay nothing
 * and a thread that went on to other work meets one tick at most.
 *
 * A tick polls what fuel slices poll on the other tiers (deadline, cancellation) and counts.  Fuel is time here:
 * a call that took as long as its fuel lasts at INSNS_PER_NS, and GRACE_NS, is spent.  If the tick struck
 * generated code, which holds nothing, it leaves it by siglongjmp as a fault does.  Anywhere else (a helper, the
 * embedder's trace function, someone's signal handler) it leaves a note that generated code looks at behind each helper.
 *
 * The signal is a real-time one that nobody uses when the first clock starts.  One that comes from elsewhere meets the
 * default action, as it would without us.  A host may block it or take it for itself at any time: so every few
 * milliseconds a call looks whether it is still ours, and lets it through.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "sbpf/sandbox.h"
#include "sbpf/tier_clock.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define TICK_NS      5000000u
#define INSNS_PER_NS 1u /* page faults count, too: far fewer than any loop reaches */
#define GRACE_NS     (10u * TICK_NS)

static __thread struct clock {
	timer_t timer;
	int sig; /* that it sends; 0: there is no timer */
	volatile bool ticks;
	struct timespec looked; /* when the host was last checked on */
} clock_of __attribute__((tls_model("initial-exec")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;       /* its destructor deletes the thread's timer */
static _Atomic int signal_used; /* 0: none found yet */

static void set_interval(struct clock *c, long ns)
{
	struct itimerspec its = {.it_value.tv_nsec = ns, .it_interval.tv_nsec = ns};

	timer_settime(c->timer, 0, &its, NULL);
	c->ticks = ns != 0;
}

/* ---- the tick ---- */

static bool is_timed(const struct sbpf_exec *x)
{
	return x->code && x->code->engine->contains;
}

static bool is_in_timed_call(const struct sbpf_exec *x)
{
	while (x && !is_timed(x))
		x = x->outer;
	return x;
}

/* 0 or what to end the call with. */
static int strike(struct sbpf_exec *x)
{
	int r = sbpf_call_poll(x->call);

	x->ticks++;
	if (r || x->call->fuel == SBPF_FUEL_UNLIMITED)
		return r;
	return (uint64_t)x->ticks * TICK_NS >= GRACE_NS + x->call->fuel / INSNS_PER_NS ? -ETIME : 0;
}

/* What a person reads depends on whether fuel is left. */
static void spend(struct sbpf_exec *x, int error)
{
	if (error == -ETIME && !sbpf_call_poll(x->call))
		x->fuel = x->reserve = 0;
}

static void tick(struct sbpf_exec *x, const ucontext_t *uc)
{
	uintptr_t pc;
	int r;

	if (!x || !is_timed(x)) {
		if (!is_in_timed_call(x))
			set_interval(&clock_of, 0);
		return;
	}
	r = strike(x);
	if (!r)
		return;
#if defined(__x86_64__)
	pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
#else
	pc = (uintptr_t)uc->uc_mcontext.pc;
#endif
	if (!x->code->engine->contains(x, pc)) {
		x->due = r;
		return;
	}
	spend(x, r);
	x->error = r;
	x->host_pc = pc;
	/* The kernel changed no mask on the way in (SA_NODEFER), so there is none to restore. */
	siglongjmp(x->env, 1);
}

void sbpf_exec_due(struct sbpf_exec *x)
{
	spend(x, x->due);
	sbpf_exec_raise(x, x->due, 0);
}

static void on_tick(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_code == SI_TIMER && info->si_value.sival_ptr == &clock_of) {
		tick(sbpf_current, context);
	} else { /* not ours: as if it had met nobody */
		signal(sig, SIG_DFL);
		syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, info);
	}
	errno = saved;
}

/* ---- the signal ---- */

static bool is_ours(int sig)
{
	struct sigaction now;

	return sig && !sigaction(sig, NULL, &now) && now.sa_flags & SA_SIGINFO &&
	       now.sa_sigaction == on_tick;
}

static bool is_free(int sig)
{
	struct sigaction now;

	return !sigaction(sig, NULL, &now) && !(now.sa_flags & SA_SIGINFO) &&
	       now.sa_handler == SIG_DFL;
}

/* The signal all clocks use; another one if someone took it from us.  0: none is free. */
static int find_signal(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct sigaction act = {.sa_sigaction = on_tick,
				.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART};
	int sig;

	pthread_mutex_lock(&lock);
	sig = atomic_load_explicit(&signal_used, memory_order_relaxed);
	if (!is_ours(sig)) {
		/* From the top: hosts that take some mostly count from SIGRTMIN. */
		for (sig = SIGRTMAX; sig >= SIGRTMIN && !is_free(sig); sig--)
			;
		if (sig < SIGRTMIN || sigaction(sig, &act, NULL))
			sig = 0;
		atomic_store_explicit(&signal_used, sig, memory_order_relaxed);
	}
	pthread_mutex_unlock(&lock);
	return sig;
}

/* ---- the timer ---- */

static void delete_timer(void *arg)
{
	struct clock *c = arg;

	if (c->sig)
		timer_delete(c->timer);
	c->sig = 0;
	c->ticks = false;
}

/* Timers are not inherited: the thread that forked has none in the child. */
static void after_fork(void)
{
	clock_of.sig = 0;
	clock_of.ticks = false;
}

static void start_once(void)
{
	pthread_key_create(&key, delete_timer);
	pthread_atfork(NULL, NULL, after_fork);
}

static int make_timer(struct clock *c, int sig)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = sig};

	delete_timer(c);
	event.sigev_notify_thread_id = gettid();
	event.sigev_value.sival_ptr = c;
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &c->timer))
		return -errno;
	c->sig = sig;
	return -pthread_setspecific(key, c);
}

static int start(struct clock *c)
{
	sigset_t ticks;
	int sig, r = 0;

	pthread_once(&once, start_once);
	sig = find_signal();
	if (!sig)
		return -EAGAIN;
	if (c->sig != sig)
		r = make_timer(c, sig);
	if (r)
		return r;
	if (!c->ticks)
		set_interval(c, TICK_NS);
	sigemptyset(&ticks);
	sigaddset(&ticks, sig);
	return -pthread_sigmask(SIG_UNBLOCK, &ticks, NULL);
}

int sbpf_clock_start(void)
{
	struct clock *c = &clock_of;
	struct timespec now;
	int r;

	/* The kernel's tick, which costs no system call. */
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (c->ticks && now.tv_nsec == c->looked.tv_nsec && now.tv_sec == c->looked.tv_sec)
		return 0;
	r = start(c);
	if (!r)
		c->looked = now;
	return r;
}
