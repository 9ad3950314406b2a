/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LLVM tier's calls end in time whatever the program, the thread and the host do, and leave nothing behind.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "insns.h"

#define THREADS 4u
#define CALLS   1000u

static struct sbpf_program *compiled(struct sbpf_program *prog)
{
	struct sbpf_error err;

	if (sbpf_program_compile(prog, SBPF_TIER_LLVM, NULL, &err))
		fail_msg("%s", err.text);
	return prog;
}

/* Loops for ever; the second one in a helper nearly all the time. */
static struct sbpf_program *endless(void)
{
	return compiled(ASSEMBLE(MOV(0, 0), ADD(0, 1), JA(-2), EXIT));
}

static struct sbpf_program *endless_in_helpers(void)
{
	return compiled(ASSEMBLE(MOVR(6, 1), MOVR(1, 6), MOV(2, 7), MOV(3, 1 << 20),
				 HELPER(H_MEMSET), JA(-5), EXIT));
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Runs it and gives the error; nothing of cmocka, so that any thread may. */
static int run(struct sbpf_program *prog, uint64_t fuel, uint64_t deadline_ns, const int *cancel)
{
	struct sbpf_call call = a_call(SBPF_TIER_LLVM, OUT, 0);
	struct sbpf_sandbox *sb;
	int r = sbpf_sandbox_get(prog, &sb);

	if (r)
		return r;
	call.fuel = fuel;
	call.deadline_ns = deadline_ns;
	call.cancel = cancel;
	r = sbpf_sandbox_resize(sb, SBPF_WIN_OUT, 1 << 20);
	if (!r)
		r = sbpf_run(sb, &call, NULL);
	sbpf_sandbox_put(sb);
	return r;
}

static int run_soon_late(struct sbpf_program *prog)
{
	return run(prog, SBPF_FUEL_UNLIMITED, now_ns() + 2000000, NULL);
}

static void a_loop_without_end_is_stopped_when_its_fuel_would_be(void **state)
{
	struct sbpf_program *prog = endless();

	assert_int_equal(run(prog, 0, 0, NULL), -ETIME);
	assert_int_equal(run(prog, 1000000, 0, NULL), -ETIME);
	sbpf_program_unref(prog);
}

static void a_deadline_that_strikes_in_a_helper_ends_the_call_behind_it(void **state)
{
	struct sbpf_program *prog = endless_in_helpers();

	for (int i = 0; i < 5; i++)
		assert_int_equal(run_soon_late(prog), -ETIME);
	sbpf_program_unref(prog);
}

static void *cancel_soon(void *flag)
{
	usleep(20000);
	__atomic_store_n((int *)flag, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void another_thread_can_cancel(void **state)
{
	struct sbpf_program *prog = endless();
	pthread_t thread;
	int flag = 0;

	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &flag), 0);
	assert_int_equal(run(prog, SBPF_FUEL_UNLIMITED, 0, &flag), -ECANCELED);
	pthread_join(thread, NULL);
	sbpf_program_unref(prog);
}

static void *run_blocked(void *prog)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	for (int i = 0; i < 3; i++) {
		int r = run_soon_late(prog);

		if (r != -ETIME)
			return (void *)(intptr_t)r;
		pthread_sigmask(SIG_BLOCK, &all, NULL);
	}
	return (void *)(intptr_t)-ETIME;
}

static void a_thread_that_blocks_all_signals_is_stopped_too(void **state)
{
	struct sbpf_program *prog = endless();
	pthread_t thread;
	void *r;

	assert_int_equal(pthread_create(&thread, NULL, run_blocked, prog), 0);
	pthread_join(thread, &r);
	assert_int_equal((intptr_t)r, -ETIME);
	sbpf_program_unref(prog);
}

static void a_forked_child_has_a_clock_of_its_own(void **state)
{
	struct sbpf_program *prog = endless();
	int status;
	pid_t pid;

	assert_int_equal(run_soon_late(prog), -ETIME);
	pid = fork();
	if (!pid)
		_exit(run_soon_late(prog) != -ETIME);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	sbpf_program_unref(prog);
}

static volatile sig_atomic_t alarms, stolen;

static void count_alarm(int sig)
{
	alarms++;
}

static void steal(int sig)
{
	stolen++;
}

static void the_hosts_own_timer_goes_on(void **state)
{
	struct sigaction act = {.sa_handler = count_alarm}, old;
	struct itimerspec often = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct sbpf_program *prog = endless();
	timer_t timer;

	sigaction(SIGALRM, &act, &old);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	timer_settime(timer, 0, &often, NULL);
	alarms = 0;
	for (int i = 0; i < 10; i++)
		assert_int_equal(run_soon_late(prog), -ETIME);
	assert_true(alarms > 5);
	timer_delete(timer);
	sigaction(SIGALRM, &old, NULL);
	sbpf_program_unref(prog);
}

/* Ours is known by its handler: the one real-time signal that is not the default. */
static int signal_in_use(void)
{
	for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++) {
		struct sigaction now;

		if (!sigaction(sig, NULL, &now) && now.sa_flags & SA_SIGINFO)
			return sig;
	}
	return 0;
}

static void a_host_that_takes_the_signal_gets_it(void **state)
{
	struct sigaction act = {.sa_handler = steal}, old;
	struct sbpf_program *prog = endless();
	int sig;

	assert_int_equal(run_soon_late(prog), -ETIME);
	usleep(20000); /* a host that does so between two calls is noticed at the next that is not close behind */
	sig = signal_in_use();
	assert_int_not_equal(sig, 0);
	sigaction(sig, &act, &old);
	assert_int_equal(run_soon_late(prog), -ETIME);
	assert_int_not_equal(signal_in_use(), sig);
	assert_int_equal(stolen, 0);
	raise(sig);
	assert_int_equal(stolen, 1);
	sigaction(sig, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	sbpf_program_unref(prog);
}

struct work {
	struct sbpf_program *progs[2];
	unsigned int calls;
};

static void *interrupted(void *arg)
{
	struct work *work = arg;
	intptr_t bad = 0;

	for (unsigned int i = 0; i < work->calls; i++)
		bad += run_soon_late(work->progs[i % 8 == 0]) != -ETIME;
	return (void *)bad;
}

static unsigned int lines_of(const char *path)
{
	FILE *f = fopen(path, "r");
	unsigned int n = 0;
	int c;

	assert_non_null(f);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static void interrupted_calls_in_threads_leave_nothing(void **state)
{
	struct work work = {.progs = {endless(), endless_in_helpers()}, .calls = 4};
	unsigned int maps = 0, timers = 0;

	/* The first round makes what stays: pooled sandboxes, this thread's timer, stacks. */
	for (int round = 0; round < 2; round++) {
		pthread_t threads[THREADS];

		if (round) {
			work.calls = CALLS / THREADS;
			maps = lines_of("/proc/self/maps");
			timers = access("/proc/self/timers", R_OK) ? 0
								   : lines_of("/proc/self/timers");
		}
		for (unsigned int t = 0; t < THREADS; t++)
			assert_int_equal(pthread_create(&threads[t], NULL, interrupted, &work), 0);
		for (unsigned int t = 0; t < THREADS; t++) {
			void *bad;

			pthread_join(threads[t], &bad);
			assert_int_equal((intptr_t)bad, 0);
		}
	}
	/* The pool may have grown by a sandbox a thread, of some twenty mappings; a leak is one a call. */
	assert_in_range(lines_of("/proc/self/maps"), 0, maps + 25 * THREADS);
	if (timers)
		assert_int_equal(lines_of("/proc/self/timers"), timers);
	sbpf_program_unref(work.progs[0]);
	sbpf_program_unref(work.progs[1]);
}

static void no_page_is_writable_and_executable(void **state)
{
	struct sbpf_program *prog = endless();
	char line[512];
	FILE *f;

	assert_int_equal(run_soon_late(prog), -ETIME);
	f = fopen("/proc/self/maps", "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		char perms[5];

		assert_int_equal(sscanf(line, "%*s %4s", perms), 1);
		if (perms[1] == 'w' && perms[2] == 'x')
			fail_msg("%s", line);
	}
	fclose(f);
	sbpf_program_unref(prog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_loop_without_end_is_stopped_when_its_fuel_would_be),
		cmocka_unit_test(a_deadline_that_strikes_in_a_helper_ends_the_call_behind_it),
		cmocka_unit_test(another_thread_can_cancel),
		cmocka_unit_test(a_thread_that_blocks_all_signals_is_stopped_too),
		cmocka_unit_test(a_forked_child_has_a_clock_of_its_own),
		cmocka_unit_test(the_hosts_own_timer_goes_on),
		cmocka_unit_test(a_host_that_takes_the_signal_gets_it),
		cmocka_unit_test(interrupted_calls_in_threads_leave_nothing),
		cmocka_unit_test(no_page_is_writable_and_executable),
	};

	if (sbpf_tier_missing(SBPF_TIER_LLVM)) {
		printf("1..0 # SKIP %s\n", sbpf_tier_missing(SBPF_TIER_LLVM));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
