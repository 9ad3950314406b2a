/* SPDX-License-Identifier: Apache-2.0 */
/* What a program can reach and what it cannot; what is left in memory; faults, fuel and threads. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "insns.h"

/* Programs that do one access at r1 and return. */
static struct sbpf_program *reader(void)
{
	return ASSEMBLE(LOAD(BPF_B, 0, 1, 0), EXIT);
}

static struct sbpf_program *writer(void)
{
	return ASSEMBLE(STORE(BPF_B, 1, 0, 2), MOV(0, 0), EXIT);
}

static uint64_t load_byte(struct sbpf_sandbox *sb, enum sbpf_tier tier, uint64_t at)
{
	struct sbpf_call call = a_call(tier, at, 0);
	struct sbpf_error err;

	expect(sb, &call, 0, &err);
	return call.r0;
}

static void access_byte(struct sbpf_sandbox *sb, enum sbpf_tier tier, uint64_t at, int want)
{
	struct sbpf_call call = a_call(tier, at, 0x5a);
	struct sbpf_error err;

	expect(sb, &call, want, &err);
	if (want) {
		assert_int_equal(err.insn, 0);
		assert_int_equal(err.address, at);
	}
}

/* ---- windows ---- */

static bool is_filled_by_runtime(enum sbpf_window win)
{
	return win == SBPF_WIN_RODATA || win == SBPF_WIN_DATA || win == SBPF_WIN_STACK;
}

static void windows_stand_apart_and_away_from_the_ends(void **state)
{
	uint64_t end = 64 << 10;

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++) {
		assert_true(sbpf_window_offset(win) >= end);
		assert_int_equal(sbpf_window_offset(win) % SBPF_PAGE, 0);
		end = sbpf_window_offset(win) + sbpf_window_max(win) + SBPF_PAGE;
	}
	assert_true(end - SBPF_PAGE <= (1ull << 32) - (64 << 10));
}

static void a_window_is_exactly_its_whole_pages(void **state)
{
	static const uint64_t sizes[] = {1, SBPF_PAGE - 1, SBPF_PAGE, SBPF_PAGE + 1, 3 * SBPF_PAGE};
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++)
		for (size_t i = 0; i < N_ELEMS(sizes); i++) {
			uint64_t at = sbpf_window_offset(win), size;

			if (is_filled_by_runtime(win))
				continue;
			assert_int_equal(sbpf_sandbox_resize(sb, win, sizes[i]), 0);
			size = sbpf_sandbox_size(sb, win);
			assert_int_equal(size, (sizes[i] + SBPF_PAGE - 1) / SBPF_PAGE * SBPF_PAGE);
			access_byte(sb, tier, at - 1, -EFAULT);
			access_byte(sb, tier, at, 0);
			access_byte(sb, tier, at + size - 1, 0);
			access_byte(sb, tier, at + size, -EFAULT);
			assert_int_equal(sbpf_sandbox_resize(sb, win, 0), 0);
			access_byte(sb, tier, at, -EFAULT);
		}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_window_at_its_maximum_does_not_touch_the_next(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++) {
		uint64_t end = sbpf_window_offset(win) + sbpf_window_max(win);

		if (is_filled_by_runtime(win))
			continue;
		assert_int_equal(sbpf_sandbox_resize(sb, win, sbpf_window_max(win) + 1), -ENOSPC);
		assert_int_equal(sbpf_sandbox_resize(sb, win, sbpf_window_max(win)), 0);
		EACH_TIER(tier)
		{
			access_byte(sb, tier, end - 1, 0);
			access_byte(sb, tier, end, -EFAULT);
		}
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_program_cannot_store_to_a_read_only_window(void **state)
{
	struct sbpf_program *prog = writer();
	struct sbpf_sandbox *sb = take(prog);

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++)
		if (!is_filled_by_runtime(win))
			assert_int_equal(sbpf_sandbox_resize(sb, win, 1), 0);
	EACH_TIER(tier)
	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++)
		if (!is_filled_by_runtime(win))
			access_byte(sb, tier, sbpf_window_offset(win),
				    win <= SBPF_WIN_ARG ? -EFAULT : 0);
	assert_int_equal(*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_CTX), 0);
	assert_int_equal(*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_HEAP), 0x5a);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void the_embedder_cannot_move_the_runtimes_windows(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++)
		if (is_filled_by_runtime(win)) {
			assert_int_equal(sbpf_sandbox_resize(sb, win, 1), -EINVAL);
			assert_int_equal(sbpf_sandbox_zero(sb, win, 0), -EINVAL);
		}
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WINDOWS, 1), -EINVAL);
	assert_null(sbpf_sandbox_ptr(sb, SBPF_WINDOWS));
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void what_the_embedder_writes_is_what_the_program_reads(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++) {
		uint8_t *p = sbpf_sandbox_ptr(sb, win);

		if (is_filled_by_runtime(win))
			continue;
		assert_int_equal(sbpf_sandbox_resize(sb, win, 2 * SBPF_PAGE), 0);
		for (int i = 0; i < 2; i++) {
			p[SBPF_PAGE] = (uint8_t)(win + 7 * i + 1);
			EACH_TIER(tier)
			assert_int_equal(load_byte(sb, tier, sbpf_window_offset(win) + SBPF_PAGE),
					 win + 7 * i + 1);
		}
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

/* ---- what is left in memory ---- */

static bool is_zero(const uint8_t *p, uint64_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static void pages_that_come_back_are_zero(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++) {
		uint64_t max = sbpf_window_max(win) < 1 << 20 ? sbpf_window_max(win) : 1 << 20;
		uint8_t *p = sbpf_sandbox_ptr(sb, win);

		if (is_filled_by_runtime(win))
			continue;
		assert_int_equal(sbpf_sandbox_resize(sb, win, max), 0);
		assert_true(is_zero(p, max));
		memset(p, 0xee, max);
		assert_int_equal(sbpf_sandbox_resize(sb, win, SBPF_PAGE), 0);
		assert_int_equal(sbpf_sandbox_resize(sb, win, max), 0);
		assert_int_equal(p[SBPF_PAGE - 1], 0xee);
		assert_true(is_zero(p + SBPF_PAGE, max - SBPF_PAGE));
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void zeroing_leaves_nothing_whatever_was_said_to_be_dirty(void **state)
{
	static const uint64_t sizes[] = {SBPF_PAGE, 64 << 10, 1 << 20};
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	for (enum sbpf_window win = 0; win < SBPF_WINDOWS; win++)
		for (size_t i = 0; i < N_ELEMS(sizes); i++) {
			uint64_t dirty[] = {0, 1, SBPF_PAGE + 1, sizes[i], UINT64_MAX};
			uint8_t *p = sbpf_sandbox_ptr(sb, win);

			if (is_filled_by_runtime(win) || sizes[i] > sbpf_window_max(win))
				continue;
			assert_int_equal(sbpf_sandbox_resize(sb, win, sizes[i]), 0);
			for (size_t k = 0; k < N_ELEMS(dirty); k++) {
				memset(p, 0xee, sizes[i]);
				assert_int_equal(sbpf_sandbox_zero(sb, win, dirty[k]), 0);
				assert_true(is_zero(p, sizes[i]));
			}
		}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void the_stack_is_zero_at_the_start_of_each_call(void **state)
{
	/* Sums the words of its own frame and of the whole window, then dirties them. */
	struct sbpf_program *prog =
		ASSEMBLE(MOV(0, 0), MOVR(3, 10), ADD(3, -SBPF_PAGE), MOV(4, SBPF_PAGE / 8),
			 LOAD(BPF_DW, 5, 3, 0), ADDR(0, 5), STOREI(BPF_DW, 3, 0, -1), ADD(3, 8),
			 ADD(4, -1), JNE(4, 0, -6), STOREI(BPF_DW, 10, -8, 1), EXIT);
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	for (int i = 0; i < 3; i++) {
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		expect(sb, &call, 0, &err);
		assert_int_equal(call.r0, 0);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_callees_frame_is_zero_each_time_it_is_entered(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(
		CALL(3), MOVR(6, 0), CALL(1), EXIT, /* the second call's result */
		/* callee: */ LOAD(BPF_DW, 0, 10, -256), STOREI(BPF_DW, 10, -256, 77), EXIT);
	struct sbpf_sandbox *sb = take(prog);

	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);
		struct sbpf_error err;

		expect(sb, &call, 0, &err);
		assert_int_equal(call.r0, 0);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_sandbox_from_the_pool_has_its_documented_contents(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog), *again;

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_OUT, 3 * SBPF_PAGE), 0);
	memset(sbpf_sandbox_ptr(sb, SBPF_WIN_OUT), 0xee, 3 * SBPF_PAGE);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_HEAP, 64 << 20), 0);
	sbpf_sandbox_put(sb);
	again = take(prog);
	assert_ptr_equal(again, sb);
	assert_int_equal(sbpf_sandbox_size(again, SBPF_WIN_OUT), 3 * SBPF_PAGE);
	/* Much memory is not kept for an idle sandbox. */
	assert_int_equal(sbpf_sandbox_size(again, SBPF_WIN_HEAP), 0);
	/* As the header tells callers: set or zero every window. */
	assert_int_equal(sbpf_sandbox_resize(again, SBPF_WIN_OUT, SBPF_PAGE), 0);
	assert_int_equal(sbpf_sandbox_zero(again, SBPF_WIN_OUT, 0), 0);
	assert_int_equal(sbpf_sandbox_resize(again, SBPF_WIN_OUT, 3 * SBPF_PAGE), 0);
	EACH_TIER(tier)
	for (int i = 0; i < 3; i++)
		assert_int_equal(load_byte(again, tier, OUT + i * SBPF_PAGE), 0);
	sbpf_sandbox_put(again);
	sbpf_program_unref(prog);
}

static void a_program_outlives_its_last_user_through_its_sandboxes(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);

	sbpf_program_unref(prog);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 1), 0);
	assert_int_equal(load_byte(sb, SBPF_TIER_INTERP, IN), 0);
	sbpf_sandbox_put(sb);
}

static void a_forked_child_does_not_share_an_idle_sandbox(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);
	uint8_t *ctx = sbpf_sandbox_ptr(sb, SBPF_WIN_CTX);
	int status;
	pid_t pid;

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_CTX, 1), 0);
	*ctx = 1;
	sbpf_sandbox_put(sb);
	pid = fork();
	if (!pid) {
		if (sbpf_sandbox_get(prog, &sb) || sbpf_sandbox_resize(sb, SBPF_WIN_CTX, 1))
			_exit(1);
		*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_CTX) = 2;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(*ctx, 1);
	sbpf_program_unref(prog);
}

/* ---- mapped files ---- */

static int temp_file(size_t len)
{
	int fd = memfd_create("test", 0);
	uint8_t *bytes = malloc(len);

	assert_true(fd >= 0);
	memset(bytes, 0xab, len);
	assert_int_equal(write(fd, bytes, len), len);
	free(bytes);
	return fd;
}

static void a_mapped_file_is_read_and_never_written(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(LOAD(BPF_B, 0, 1, 0), STOREI(BPF_B, 1, 0, 0x11), EXIT);
	struct sbpf_sandbox *sb = take(prog);
	int fd = temp_file(4 * SBPF_PAGE);
	uint8_t byte;

	EACH_TIER(tier)
	{
		assert_int_equal(sbpf_sandbox_map(sb, fd, SBPF_PAGE, SBPF_PAGE + 1), 0);
		assert_int_equal(sbpf_sandbox_size(sb, SBPF_WIN_IN), 2 * SBPF_PAGE);
		assert_int_equal(load_byte(sb, tier, IN), 0xab);
		assert_int_equal(load_byte(sb, tier, IN), 0x11);
		access_byte(sb, tier, IN + 2 * SBPF_PAGE, -EFAULT);
		assert_int_equal(pread(fd, &byte, 1, SBPF_PAGE), 1);
		assert_int_equal(byte, 0xab);
		/* Mapped anew, larger and smaller, it is as in the file again. */
		assert_int_equal(sbpf_sandbox_map(sb, fd, SBPF_PAGE, 3 * SBPF_PAGE), 0);
		assert_int_equal(load_byte(sb, tier, IN), 0xab);
		assert_int_equal(sbpf_sandbox_map(sb, fd, SBPF_PAGE, 1), 0);
		assert_int_equal(load_byte(sb, tier, IN), 0xab);
		access_byte(sb, tier, IN + SBPF_PAGE, -EFAULT);
	}
	close(fd);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_mapping_gives_way_to_plain_zero_pages(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);
	int fd = temp_file(4 * SBPF_PAGE);

	/* Over plain pages that are more, and fewer, than the mapping. */
	for (uint64_t before = 0; before <= 8 * SBPF_PAGE; before += 4 * SBPF_PAGE) {
		assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, before), 0);
		assert_int_equal(sbpf_sandbox_map(sb, fd, 0, 4 * SBPF_PAGE), 0);
		assert_int_equal(load_byte(sb, SBPF_TIER_INTERP, IN), 0xab);
		access_byte(sb, SBPF_TIER_INTERP, IN + 4 * SBPF_PAGE, -EFAULT);
		assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 4 * SBPF_PAGE), 0);
		assert_true(is_zero(sbpf_sandbox_ptr(sb, SBPF_WIN_IN), 4 * SBPF_PAGE));
		assert_int_equal(sbpf_sandbox_map(sb, fd, 0, 4 * SBPF_PAGE), 0);
		assert_int_equal(sbpf_sandbox_zero(sb, SBPF_WIN_IN, 0), 0);
		assert_true(is_zero(sbpf_sandbox_ptr(sb, SBPF_WIN_IN), 4 * SBPF_PAGE));
	}
	close(fd);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void an_idle_sandbox_holds_no_file(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);
	int fd = temp_file(SBPF_PAGE);

	assert_int_equal(sbpf_sandbox_map(sb, fd, 0, SBPF_PAGE), 0);
	sbpf_sandbox_put(sb);
	sb = take(prog);
	assert_int_equal(sbpf_sandbox_size(sb, SBPF_WIN_IN), 0);
	access_byte(sb, SBPF_TIER_INTERP, IN, -EFAULT);
	close(fd);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void what_cannot_be_mapped_costs_nothing(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_sandbox *sb = take(prog);
	int pipes[2];

	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 1), 0);
	*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_IN) = 9;
	assert_int_equal(sbpf_sandbox_map(sb, pipes[0], 0, SBPF_PAGE), -ENODEV);
	assert_int_equal(sbpf_sandbox_map(sb, -1, 0, SBPF_PAGE), -EBADF);
	assert_int_equal(sbpf_sandbox_map(sb, pipes[0], 1, SBPF_PAGE), -EINVAL);
	assert_int_equal(sbpf_sandbox_map(sb, pipes[0], 0, 0), -EINVAL);
	assert_int_equal(sbpf_sandbox_map(sb, pipes[0], 0, 1ull << 40), -ENOSPC);
	assert_int_equal(sbpf_sandbox_map(sb, pipes[0], ~0ull << 12, SBPF_PAGE), -EINVAL);
	assert_int_equal(load_byte(sb, SBPF_TIER_INTERP, IN), 9);
	close(pipes[0]);
	close(pipes[1]);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static int touch_input(void *arg)
{
	return *(volatile uint8_t *)sbpf_sandbox_ptr(arg, SBPF_WIN_IN) ? 5 : 6;
}

static void a_file_truncated_under_code_helper_or_guard_is_an_error(void **state)
{
	struct sbpf_program *prog = reader();
	struct sbpf_program *help = ASSEMBLE(MOV32(1, 0xc0000000), MOV32(2, 0x80000000),
					     MOV(3, SBPF_PAGE), HELPER(H_MEMCPY), MOV(0, 0), EXIT);
	struct sbpf_program *programs[] = {prog, help};

	EACH_TIER(tier)
	for (size_t i = 0; i < N_ELEMS(programs); i++) {
		struct sbpf_sandbox *sb = take(programs[i]);
		struct sbpf_call call = a_call(tier, IN, 0);
		int fd = temp_file(SBPF_PAGE);
		struct sbpf_error err;

		assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_OUT, SBPF_PAGE), 0);
		assert_int_equal(sbpf_sandbox_map(sb, fd, 0, SBPF_PAGE), 0);
		expect(sb, &call, 0, &err);
		assert_int_equal(sbpf_sandbox_guard(sb, touch_input, sb), 5);
		assert_int_equal(ftruncate(fd, 0), 0);
		expect(sb, &call, -EIO, &err);
		assert_int_equal(err.insn, i ? 3 : 0);
		assert_non_null(strstr(err.text, "truncated"));
		assert_int_equal(sbpf_sandbox_guard(sb, touch_input, sb), -EIO);
		/* And the sandbox is as good as before. */
		assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, SBPF_PAGE), 0);
		expect(sb, &call, 0, &err);
		close(fd);
		sbpf_sandbox_put(sb);
	}
	sbpf_program_unref(prog);
	sbpf_program_unref(help);
}

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
		cmocka_unit_test(windows_stand_apart_and_away_from_the_ends),
		cmocka_unit_test(a_window_is_exactly_its_whole_pages),
		cmocka_unit_test(a_window_at_its_maximum_does_not_touch_the_next),
		cmocka_unit_test(a_program_cannot_store_to_a_read_only_window),
		cmocka_unit_test(the_embedder_cannot_move_the_runtimes_windows),
		cmocka_unit_test(what_the_embedder_writes_is_what_the_program_reads),
		cmocka_unit_test(pages_that_come_back_are_zero),
		cmocka_unit_test(zeroing_leaves_nothing_whatever_was_said_to_be_dirty),
		cmocka_unit_test(the_stack_is_zero_at_the_start_of_each_call),
		cmocka_unit_test(a_callees_frame_is_zero_each_time_it_is_entered),
		cmocka_unit_test(a_sandbox_from_the_pool_has_its_documented_contents),
		cmocka_unit_test(a_program_outlives_its_last_user_through_its_sandboxes),
		cmocka_unit_test(a_forked_child_does_not_share_an_idle_sandbox),
		cmocka_unit_test(a_mapped_file_is_read_and_never_written),
		cmocka_unit_test(a_mapping_gives_way_to_plain_zero_pages),
		cmocka_unit_test(an_idle_sandbox_holds_no_file),
		cmocka_unit_test(what_cannot_be_mapped_costs_nothing),
		cmocka_unit_test(a_file_truncated_under_code_helper_or_guard_is_an_error),
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
