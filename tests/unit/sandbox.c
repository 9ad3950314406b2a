/* SPDX-License-Identifier: Apache-2.0 */
/* What a program can reach and what it cannot; what is left in memory; mapped files; the pool. */
#include <sys/wait.h>

#include "insns.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
