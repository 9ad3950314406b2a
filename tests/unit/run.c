/* SPDX-License-Identifier: Apache-2.0 */
/* One call: faults and signals that are not ours, fuel, deadlines, calls inside calls, threads, errors. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "insns.h"

/* ---- signals that are not ours ---- */

static sigjmp_buf handler_env;
static volatile int handled;
static volatile sig_atomic_t blocked_inside;

static void own_handler(int sig, siginfo_t *info, void *context)
{
	sigset_t mask;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	blocked_inside = sigismember(&mask, SIGUSR1) && sigismember(&mask, sig);
	handled = sig;
	siglongjmp(handler_env, 1);
}

/* In a child that has its handlers before the runtime's: 0 if @check found all well there. */
static int in_child(int (*check)(void), void (*before)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (before)
			before();
		_exit(check());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void install_own(void)
{
	struct sigaction act = {.sa_sigaction = own_handler, .sa_flags = SA_SIGINFO};

	sigaddset(&act.sa_mask, SIGUSR1);
	sigaction(SIGSEGV, &act, NULL);
	sigaction(SIGBUS, &act, NULL);
}

static void ignore_both(void)
{
	signal(SIGSEGV, SIG_IGN);
	signal(SIGBUS, SIG_IGN);
}

static void default_both(void)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
}

/* Installs the runtime's handlers, and shows that they work; the sandbox is a pooled one but at first. */
static bool fault_inside(void)
{
	static struct sbpf_program *prog;
	const struct sbpf_insn insns[] = {LOAD(BPF_B, 0, 1, 0), EXIT};
	struct sbpf_call call = a_call(SBPF_TIER_INTERP, 96, 0);
	struct sbpf_sandbox *sb;
	int r;

	if (!prog && sbpf_program_from_insns(insns, 2, NULL, &prog, NULL))
		return false;
	if (sbpf_sandbox_get(prog, &sb))
		return false;
	r = sbpf_run(sb, &call, NULL);
	sbpf_sandbox_put(sb);
	return r == -EFAULT && !handled;
}

static int others_fault_reaches_the_handler_that_was_there(void)
{
	void *hole = mmap(NULL, SBPF_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!fault_inside())
		return 1;
	if (!sigsetjmp(handler_env, 1)) {
		*(volatile char *)hole = 1;
		return 2;
	}
	if (handled != SIGSEGV || !blocked_inside)
		return 3;
	handled = 0;
	return fault_inside() ? 0 : 4;
}

static int a_sent_signal_reaches_it(void)
{
	if (!fault_inside())
		return 1;
	if (!sigsetjmp(handler_env, 1)) {
		raise(SIGBUS);
		return 2;
	}
	return handled == SIGBUS && blocked_inside ? 0 : 3;
}

static int a_sent_signal_is_survived(void)
{
	if (!fault_inside())
		return 1;
	raise(SIGSEGV);
	return 0;
}

static int a_sent_signal_kills(void)
{
	if (!fault_inside())
		return 1;
	raise(SIGSEGV);
	return 2;
}

static int a_fault_kills(void)
{
	void *hole = mmap(NULL, SBPF_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!fault_inside())
		return 1;
	*(volatile char *)hole = 1;
	return 2;
}

static void the_handler_that_was_there_gets_what_is_not_ours(void **state)
{
	assert_int_equal(in_child(others_fault_reaches_the_handler_that_was_there, install_own), 0);
	assert_int_equal(in_child(a_sent_signal_reaches_it, install_own), 0);
}

static void an_ignored_signal_stays_ignored_but_a_fault_kills(void **state)
{
	int status;

	assert_int_equal(in_child(a_sent_signal_is_survived, ignore_both), 0);
	status = in_child(a_fault_kills, ignore_both);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void without_a_handler_the_default_action_is_taken(void **state)
{
	int status = in_child(a_fault_kills, default_both);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	status = in_child(a_sent_signal_kills, default_both);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* A sandbox's page touched by a thread that does not run it is that thread's own mistake. */
static int a_stranger_in_the_sandbox_is_not_caught(void)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	if (!fault_inside())
		return 1;
	if (!sigsetjmp(handler_env, 1)) {
		*(volatile char *)sbpf_sandbox_ptr(sb, SBPF_WIN_OUT) = 1;
		return 2;
	}
	return handled == SIGSEGV ? 0 : 3;
}

static void a_fault_outside_a_call_is_not_ours_even_in_a_sandbox(void **state)
{
	assert_int_equal(in_child(a_stranger_in_the_sandbox_is_not_caught, install_own), 0);
}

static int touch(void *address)
{
	return *(volatile char *)address;
}

/* Inside a guard, but in a file of the embedder's own. */
static int a_guard_catches_nothing_but_the_sandboxs_pages(void)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);
	int fd = temp_file(SBPF_PAGE);
	void *mine = mmap(NULL, SBPF_PAGE, PROT_READ, MAP_SHARED, fd, 0);

	if (ftruncate(fd, 0))
		return 1;
	if (!sigsetjmp(handler_env, 1)) {
		sbpf_sandbox_guard(sb, touch, mine);
		return 2;
	}
	return handled == SIGBUS ? 0 : 3;
}

static void touch_traced(void *sb, const char *text, size_t len)
{
	touch(sbpf_sandbox_ptr(sb, SBPF_WIN_OUT));
}

/* Inside a call, but by the embedder's trace function. */
static int a_trace_function_is_not_caught(void)
{
	struct sbpf_program *prog =
		ASSEMBLE(MOVR(1, 10), ADD(1, -8), MOV(2, 1), HELPER(H_TRACE), EXIT);
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_call call = a_call(SBPF_TIER_INTERP, 0, 0);

	call.trace = touch_traced;
	call.trace_arg = sb;
	if (!sigsetjmp(handler_env, 1)) {
		sbpf_run(sb, &call, NULL);
		return 2;
	}
	return handled == SIGSEGV ? 0 : 3;
}

static void the_embedders_own_faults_inside_guard_and_trace_are_not_ours(void **state)
{
	assert_int_equal(in_child(a_guard_catches_nothing_but_the_sandboxs_pages, install_own), 0);
	assert_int_equal(in_child(a_trace_function_is_not_caught, install_own), 0);
}

static void *latest_info;

/* One of those that keep what they replaced and pass on to it: here, to us. */
static struct sigaction replaced;
static void polite_handler(int sig, siginfo_t *info, void *context)
{
	latest_info = info;
	replaced.sa_sigaction(sig, info, context);
}

static int handlers_that_pass_on_to_each_other_end(void)
{
	struct sigaction act = {.sa_sigaction = polite_handler, .sa_flags = SA_SIGINFO};
	void *hole = mmap(NULL, SBPF_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* own_handler below ours below the polite one below ours. */
	if (!fault_inside())
		return 1;
	sigaction(SIGSEGV, &act, &replaced);
	if (!fault_inside() || latest_info)
		return 2;
	for (int i = 0; i < 3; i++) {
		handled = 0;
		latest_info = NULL;
		if (!sigsetjmp(handler_env, 1)) {
			touch(hole);
			return 3;
		}
		if (handled != SIGSEGV || !latest_info)
			return 4;
	}
	return 0;
}

static void handlers_put_over_ours_later_are_passed_on_to_as_well(void **state)
{
	assert_int_equal(in_child(handlers_that_pass_on_to_each_other_end, install_own), 0);
}

static int faults_work_with_all_signals_blocked(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	return fault_inside() ? 0 : 1;
}

static void a_thread_that_blocks_all_signals_survives_a_fault(void **state)
{
	assert_int_equal(in_child(faults_work_with_all_signals_blocked, NULL), 0);
}

/* ---- fuel, deadline, cancellation ---- */

static struct sbpf_program *endless(void)
{
	return ASSEMBLE(MOV(0, 0), ADD(0, 1), JA(-2), EXIT);
}

static void fuel_is_counted_to_the_instruction(void **state)
{
	/* Entry: 7 instructions; each of the 9 back edges taken: 3; the callee: 2, once. */
	struct sbpf_program *prog = ASSEMBLE(MOV(6, 10), CALL(4), ADD(6, -1), MOV(0, 0),
					     JNE(6, 0, -3), EXIT, MOV(0, 0), EXIT);
	const uint64_t cost = 6 + 2 + 9 * 3;
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		expect(sb, &call, 0, &err);
		if (!counts_fuel(tier))
			continue;
		assert_int_equal(call.fuel_used, cost);
		call.fuel = cost;
		expect(sb, &call, 0, &err);
		assert_int_equal(call.fuel_used, cost);
		call.fuel = cost - 1;
		expect(sb, &call, -ETIME, &err);
		assert_int_equal(err.insn, 4);
		assert_int_equal(call.fuel_used, cost - 1);
		call.fuel = 0;
		expect(sb, &call, -ETIME, &err);
		call.fuel = SBPF_FUEL_UNLIMITED;
		expect(sb, &call, 0, &err);
		assert_int_equal(call.fuel_used, cost);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void fuel_is_the_same_when_it_comes_in_slices(void **state)
{
	/* Two million turns of two instructions: several slices where a deadline is watched. */
	struct sbpf_program *prog =
		ASSEMBLE(MOV(1, 2000000), MOV(0, 0), ADD(1, -1), JNE(1, 0, -2), EXIT);
	const uint64_t cost = 5 + 1999999 * 2;
	const int never = 0;
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		call.cancel = &never;
		call.fuel = cost;
		expect(sb, &call, 0, &err);
		if (!counts_fuel(tier))
			continue;
		assert_int_equal(call.fuel_used, cost);
		call.fuel = cost - 1;
		expect(sb, &call, -ETIME, &err);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void a_deadline_ends_an_endless_loop(void **state)
{
	struct sbpf_program *prog = endless();
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		call.fuel = SBPF_FUEL_UNLIMITED;
		call.deadline_ns = now_ns() + 2000000;
		expect(sb, &call, -ETIME, &err);
		assert_true(now_ns() >= call.deadline_ns);
		assert_non_null(strstr(err.text, "deadline"));
		/* One that has passed ends the call before it begins. */
		expect(sb, &call, -ETIME, &err);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static int canceled;

static void *cancel_soon(void *arg)
{
	usleep(2000);
	__atomic_store_n(&canceled, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void another_thread_can_cancel_a_call(void **state)
{
	struct sbpf_program *prog = endless();
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;
		pthread_t thread;

		canceled = 0;
		call.fuel = SBPF_FUEL_UNLIMITED;
		call.cancel = &canceled;
		assert_int_equal(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
		expect(sb, &call, -ECANCELED, &err);
		pthread_join(thread, NULL);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

/* ---- calls inside calls, and threads ---- */

struct nested {
	enum sbpf_tier tier;
	struct sbpf_sandbox *outer;
	int result, busy;
};

/* From inside a call: another one that faults, and an attempt to run the same sandbox. */
static void run_inside(void *arg, const char *text, size_t len)
{
	struct nested *n = arg;
	struct sbpf_program *prog = writer();
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_call call = a_call(n->tier, 96, 1);

	n->result = sbpf_run(sb, &call, NULL);
	n->busy = sbpf_run(n->outer, &call, NULL);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_call_may_run_inside_another(void **state)
{
	/* After the inner call's fault the outer one still finds its own memory. */
	struct sbpf_program *prog =
		ASSEMBLE(MOVR(6, 1), MOV(2, 1), HELPER(H_TRACE), LOAD(BPF_B, 0, 6, 0), EXIT);
	struct sbpf_sandbox *sb = take(prog);

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 1), 0);
	*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_IN) = 42;
	EACH_TIER(tier)
	EACH_TIER(inner)
	{
		struct nested n = {.tier = inner, .outer = sb};
		struct sbpf_call call = a_call(tier, IN, 0);
		struct sbpf_error err;

		call.trace = run_inside;
		call.trace_arg = &n;
		expect(sb, &call, 0, &err);
		assert_int_equal(call.r0, 42);
		assert_int_equal(n.result, -EFAULT);
		assert_int_equal(n.busy, -EBUSY);
		/* And faults of its own are still its own. */
		call.r1 = IN - 1;
		call.trace = NULL;
		expect(sb, &call, -EFAULT, &err);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void *run_many(void *arg)
{
	struct sbpf_program *prog = arg;
	uintptr_t wrong = 0;

	for (int i = 0; i < 300; i++) {
		EACH_TIER(tier)
		{
			struct sbpf_call call = a_call(tier, i % 3 ? IN : 96, 0);
			uint8_t mark = (uint8_t)((uintptr_t)&call >> 12 ^ (unsigned int)i);
			struct sbpf_sandbox *sb;
			int r;

			if (sbpf_sandbox_get(prog, &sb))
				return (void *)1;
			sbpf_sandbox_resize(sb, SBPF_WIN_IN, 1);
			*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_IN) = mark;
			r = sbpf_run(sb, &call, NULL);
			wrong |= i % 3 ? r || call.r0 != mark : r != -EFAULT;
			sbpf_sandbox_put(sb);
		}
	}
	return (void *)wrong;
}

static void threads_run_side_by_side_each_in_its_own_sandbox(void **state)
{
	struct sbpf_program *prog = reader();
	pthread_t threads[8];

	for (size_t i = 0; i < N_ELEMS(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_many, prog), 0);
	for (size_t i = 0; i < N_ELEMS(threads); i++) {
		void *wrong;

		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	sbpf_program_unref(prog);
}

static void a_call_that_makes_no_sense_is_refused(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_call call = a_call(SBPF_TIER_INTERP, 0, 0);
	struct sbpf_error err;

	call.entry = 1;
	expect(sb, &call, -EINVAL, &err);
	call.entry = 0;
	call.size = 8;
	expect(sb, &call, -EINVAL, &err);
	call.size = sizeof(call);
	call.tier = (enum sbpf_tier)77;
	expect(sb, &call, -EOPNOTSUPP, &err);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void an_error_tells_which_window_was_missed(void **state)
{
	static const struct {
		uint64_t at;
		const char *says;
	} rows[] = {
		{96, "store of 1 byte at address 0x60, which is in no window: a null pointer"},
		{0x10000, "in the context window, which is read-only"},
		{0xc0001003, "4 bytes behind the last of the output window's 4096 (whole pages)"},
		{0x60000000, "in the heap window, which is empty"},
		{0xffff0000, "at address 0xffff0000, which is in no window; check how"},
	};
	struct sbpf_program *prog = writer();
	struct sbpf_sandbox *sb = take(prog);

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_CTX, 1), 0);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_OUT, 1), 0);
	EACH_TIER(tier)
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct sbpf_call call = a_call(tier, rows[i].at, 0);
		struct sbpf_error err;

		expect(sb, &call, -EFAULT, &err);
		if (!strstr(err.text, rows[i].says))
			fail_msg("'%s' does not say '%s'", err.text, rows[i].says);
		assert_non_null(strstr(err.text, "(instruction 0 of entry)"));
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First, while this process has not run a call: what children install is then found. */
		cmocka_unit_test(the_handler_that_was_there_gets_what_is_not_ours),
		cmocka_unit_test(an_ignored_signal_stays_ignored_but_a_fault_kills),
		cmocka_unit_test(without_a_handler_the_default_action_is_taken),
		cmocka_unit_test(a_fault_outside_a_call_is_not_ours_even_in_a_sandbox),
		cmocka_unit_test(the_embedders_own_faults_inside_guard_and_trace_are_not_ours),
		cmocka_unit_test(handlers_put_over_ours_later_are_passed_on_to_as_well),
		cmocka_unit_test(a_thread_that_blocks_all_signals_survives_a_fault),
		cmocka_unit_test(fuel_is_counted_to_the_instruction),
		cmocka_unit_test(fuel_is_the_same_when_it_comes_in_slices),
		cmocka_unit_test(a_deadline_ends_an_endless_loop),
		cmocka_unit_test(another_thread_can_cancel_a_call),
		cmocka_unit_test(a_call_may_run_inside_another),
		cmocka_unit_test(threads_run_side_by_side_each_in_its_own_sandbox),
		cmocka_unit_test(a_call_that_makes_no_sense_is_refused),
		cmocka_unit_test(an_error_tells_which_window_was_missed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
