/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes that the kernel shares: their pages, what is left in them, the pool, what the kernel keeps. */
#include <fcntl.h>
#include <grp.h>
#include <sys/wait.h>

#include "insns.h"
#include "kernel.h"
#include "sbpf/sandbox.h"

static const enum sbpf_window foreign[] = {SBPF_WIN_CTX,   SBPF_WIN_OTHER, SBPF_WIN_ARG,
					   SBPF_WIN_STATE, SBPF_WIN_HEAP,  SBPF_WIN_IN,
					   SBPF_WIN_OUT};

static struct sbpf_program *any_program(void)
{
	return ASSEMBLE(MOV(0, 0), EXIT);
}

static struct sbpf_sandbox *take_arena(struct sbpf_program *prog)
{
	struct sbpf_sandbox *sb = NULL;

	assert_int_equal(sbpf_sandbox_get_for(prog, SBPF_TIER_KERNEL, &sb), 0);
	return sb;
}

/* Loads the byte at r1. */
static void look_at(struct sbpf_sandbox *sb, uint64_t at, int code)
{
	struct sbpf_call call = a_call(SBPF_TIER_KERNEL, at, 0);
	struct sbpf_error err = {0};
	int r = sbpf_run(sb, &call, &err);

	if (r != code)
		fail_msg("load at 0x%llx: %d instead of %d: %s", (unsigned long long)at, r, code,
			 err.text);
	if (code == -EFAULT)
		assert_int_equal(err.address, at);
}

static void a_window_is_exactly_its_whole_pages(void **state)
{
	static const uint64_t sizes[] = {1, SBPF_PAGE, SBPF_PAGE + 1, 15 * SBPF_PAGE, SBPF_PAGE, 0};
	struct sbpf_program *prog = ASSEMBLE(LOAD(BPF_B, 0, 1, 0), EXIT);
	struct sbpf_sandbox *sb = take_arena(prog);

	for (size_t w = 0; w < N_ELEMS(foreign); w++)
		for (size_t i = 0; i < N_ELEMS(sizes); i++) {
			uint64_t at = sbpf_window_offset(foreign[w]), size;

			assert_int_equal(sbpf_sandbox_resize(sb, foreign[w], sizes[i]), 0);
			size = sbpf_sandbox_size(sb, foreign[w]);
			assert_int_equal(size, (sizes[i] + SBPF_PAGE - 1) / SBPF_PAGE * SBPF_PAGE);
			look_at(sb, at - 1, -EFAULT);
			for (uint64_t p = 0; p < size; p += SBPF_PAGE)
				look_at(sb, at + p, 0);
			if (size)
				look_at(sb, at + size - 1, 0);
			look_at(sb, at + size, -EFAULT);
		}
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, sbpf_window_max(SBPF_WIN_IN) + 1),
			 -ENOSPC);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void pages_that_come_back_are_zero(void **state)
{
	const uint64_t size = 9 * SBPF_PAGE;
	struct sbpf_program *prog = any_program();
	struct sbpf_sandbox *sb = take_arena(prog);

	for (size_t w = 0; w < N_ELEMS(foreign); w++) {
		uint8_t *p = sbpf_sandbox_ptr(sb, foreign[w]);

		assert_int_equal(sbpf_sandbox_resize(sb, foreign[w], size), 0);
		memset(p, 0xaa, size);
		assert_int_equal(sbpf_sandbox_resize(sb, foreign[w], SBPF_PAGE), 0);
		assert_int_equal(sbpf_sandbox_resize(sb, foreign[w], size), 0);
		for (uint64_t i = 0; i < size; i++)
			assert_int_equal(p[i], i < SBPF_PAGE ? 0xaa : 0);
		memset(p, 0xaa, size);
		assert_int_equal(sbpf_sandbox_zero(sb, foreign[w], 1), 0);
		for (uint64_t i = 0; i < size; i++)
			assert_int_equal(p[i], 0);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

/* Loads 8 bytes of the arena, and stores them plus one behind. */
static int load_and_store(const struct sbpf_sandbox *sb, uint32_t off, uint64_t *seen)
{
	struct {
		uint64_t off, seen;
	} ctx = {.off = off};
	const struct sbpf_insn insns[] = {
		{BPF_LDX | BPF_MEM | BPF_DW, 2, 1, 0, 0},
		{BPF_LDDW_CODE, 3, KBPF_PSEUDO_MAP_FD, 0, sb->arena->map_fd},
		{0},
		{BPF_ALU64 | BPF_MOV | BPF_X, 2, 2, 1,
		 1}, /* r2 = address of the arena, by its offset */
		{BPF_LDX | BPF_MEM | BPF_DW, 4, 2, 0, 0},
		{BPF_STX | BPF_MEM | BPF_DW, 1, 4, 8, 0},
		{BPF_ALU64 | BPF_ADD | BPF_K, 4, 0, 0, 1},
		{BPF_STX | BPF_MEM | BPF_DW, 2, 4, 8, 0},
		MOV(0, 0),
		EXIT,
	};
	uint32_t r0;
	int fd = sbpf_bpf_load(insns, N_ELEMS(insns), "test", NULL, 0), r;

	assert_true(fd >= 0);
	r = sbpf_bpf_run(fd, &ctx, sizeof(ctx), &r0);
	close(fd);
	*seen = ctx.seen;
	return r;
}

static void the_kernel_sees_what_is_written_here_and_the_other_way_round(void **state)
{
	struct sbpf_program *prog = any_program();
	struct sbpf_sandbox *sb = take_arena(prog);
	uint64_t seen;

	for (size_t w = 0; w < N_ELEMS(foreign); w++) {
		uint32_t at = (uint32_t)sbpf_window_offset(foreign[w]);
		uint64_t words[2] = {0x1234567890abcdefu + w, 0};

		assert_int_equal(sbpf_sandbox_resize(sb, foreign[w], 16), 0);
		memcpy(sbpf_sandbox_ptr(sb, foreign[w]), words, sizeof(words));
		assert_int_equal(load_and_store(sb, at, &seen), 0);
		assert_int_equal(seen, words[0]);
		memcpy(words, sbpf_sandbox_ptr(sb, foreign[w]), sizeof(words));
		assert_int_equal(words[1], words[0] + 1);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void a_file_is_read_into_the_window_with_and_without_the_page_cache(void **state)
{
	static const int flags[] = {O_RDONLY, O_RDONLY | O_DIRECT};
	char path[] = "arena-test-XXXXXX";
	uint8_t bytes[2 * SBPF_PAGE];
	struct sbpf_program *prog = any_program();
	struct sbpf_sandbox *sb = take_arena(prog);
	int fd = mkstemp(path);

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, sizeof(bytes)), 0);
	for (size_t i = 0; i < N_ELEMS(flags); i++) {
		fd = open(path, flags[i]);
		if (fd < 0) /* a file system without O_DIRECT */
			continue;
		memset(sbpf_sandbox_ptr(sb, SBPF_WIN_IN), 0, sizeof(bytes));
		assert_int_equal(pread(fd, sbpf_sandbox_ptr(sb, SBPF_WIN_IN), sizeof(bytes), 0),
				 sizeof(bytes));
		assert_memory_equal(sbpf_sandbox_ptr(sb, SBPF_WIN_IN), bytes, sizeof(bytes));
		assert_int_equal(sbpf_sandbox_map(sb, fd, 0, SBPF_PAGE), -EOPNOTSUPP);
		close(fd);
	}
	unlink(path);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void each_kind_of_sandbox_runs_its_own_tiers(void **state)
{
	struct sbpf_program *prog = any_program();
	struct sbpf_sandbox *arena = take_arena(prog), *plain = take(prog);
	struct sbpf_call call = a_call(SBPF_TIER_INTERP, 0, 0);

	assert_int_equal(sbpf_run(arena, &call, NULL), -EINVAL);
	assert_int_equal(sbpf_run(plain, &call, NULL), 0);
	call.tier = SBPF_TIER_KERNEL;
	assert_int_equal(sbpf_run(plain, &call, NULL), -EINVAL);
	sbpf_sandbox_put(arena);
	sbpf_sandbox_put(plain);
	assert_ptr_equal(take_arena(prog), arena);
	assert_ptr_equal(take(prog), plain);
	sbpf_sandbox_put(arena);
	sbpf_sandbox_put(plain);
	sbpf_program_unref(prog);
}

static void programs_that_are_dropped_leave_nothing(void **state)
{
	struct bpf_objects before = bpf_objects();

	for (int i = 0; i < 100; i++) {
		struct sbpf_program *prog = any_program();
		struct sbpf_sandbox *one = take_arena(prog), *two = take_arena(prog);
		struct sbpf_call call = a_call(SBPF_TIER_KERNEL, 0, 0);

		assert_int_equal(sbpf_run(one, &call, NULL), 0);
		assert_int_equal(sbpf_run(two, &call, NULL), 0);
		sbpf_sandbox_put(one);
		sbpf_program_unref(prog);
		sbpf_sandbox_put(two);
	}
	assert_int_equal(bpf_objects().maps, before.maps);
	assert_int_equal(bpf_objects().progs, before.progs);
}

static void ten_thousand_calls_keep_nothing(void **state)
{
	struct bpf_objects before = bpf_objects(), first = before, now;
	struct sbpf_program *prog = any_program();

	for (int i = 0; i < 10000; i++) {
		struct sbpf_sandbox *sb = take_arena(prog);
		struct sbpf_call call = a_call(SBPF_TIER_KERNEL, 0, 0);

		assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, i % 40 * SBPF_PAGE), 0);
		assert_int_equal(sbpf_run(sb, &call, NULL), 0);
		sbpf_sandbox_put(sb);
		if (!i)
			first = bpf_objects();
	}
	now = bpf_objects();
	assert_true(first.maps > before.maps && first.progs > before.progs);
	assert_int_equal(now.maps, first.maps);
	assert_int_equal(now.progs, first.progs);
	sbpf_program_unref(prog);
	now = bpf_objects();
	assert_int_equal(now.maps, before.maps);
	assert_int_equal(now.progs, before.progs);
}

static void an_arena_of_much_memory_is_given_back_rather_than_pooled(void **state)
{
	struct bpf_objects before = bpf_objects();
	struct sbpf_program *prog = any_program();
	struct sbpf_sandbox *sb = take_arena(prog);

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_HEAP, 65u << 20), 0);
	assert_int_equal(bpf_objects().maps, before.maps + 1);
	sbpf_sandbox_put(sb);
	assert_int_equal(bpf_objects().maps, before.maps);
	sbpf_program_unref(prog);
}

static void a_forked_child_does_not_use_its_parents_arena(void **state)
{
	struct sbpf_program *prog = any_program();
	struct sbpf_sandbox *sb = take_arena(prog);
	uint8_t *p = sbpf_sandbox_ptr(sb, SBPF_WIN_STATE);
	int status;
	pid_t pid;

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_STATE, 1), 0);
	p[0] = 7;
	sbpf_sandbox_put(sb);
	pid = fork();
	if (!pid) {
		sb = NULL;
		if (sbpf_sandbox_get_for(prog, SBPF_TIER_KERNEL, &sb) ||
		    sbpf_sandbox_resize(sb, SBPF_WIN_STATE, 1))
			_exit(1);
		p = sbpf_sandbox_ptr(sb, SBPF_WIN_STATE);
		if (p[0])
			_exit(2);
		p[0] = 8;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	sb = take_arena(prog);
	p = sbpf_sandbox_ptr(sb, SBPF_WIN_STATE);
	assert_int_equal(p[0], 7);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static bool give_up_rights(void)
{
	return !setgroups(0, NULL) && !setgid(65534) && !setuid(65534);
}

static void without_the_right_there_is_none_and_nothing_breaks(void **state)
{
	struct sbpf_program *prog = any_program();
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct sbpf_sandbox *sb;
		struct sbpf_call call = a_call(SBPF_TIER_INTERP, 0, 0);

		if (!give_up_rights())
			_exit(1);
		for (int i = 0; i < 100; i++)
			if (sbpf_sandbox_get_for(prog, SBPF_TIER_KERNEL, &sb) != -EPERM || sb)
				_exit(2);
		if (bpf_objects().maps || bpf_objects().progs)
			_exit(3);
		if (sbpf_sandbox_get(prog, &sb) || sbpf_run(sb, &call, NULL))
			_exit(4);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	sbpf_program_unref(prog);
}

static void what_was_loaded_runs_on_when_the_right_is_given_up(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 42), EXIT);
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct sbpf_sandbox *sb = NULL;
		struct sbpf_call call = a_call(SBPF_TIER_KERNEL, 0, 0);

		if (sbpf_sandbox_get_for(prog, SBPF_TIER_KERNEL, &sb) ||
		    sbpf_sandbox_prepare(sb, 0, NULL) || !give_up_rights())
			_exit(1);
		if (sbpf_run(sb, &call, NULL) || call.r0 != 42)
			_exit(2);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	sbpf_program_unref(prog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_the_right_there_is_none_and_nothing_breaks),
		cmocka_unit_test(what_was_loaded_runs_on_when_the_right_is_given_up),
		cmocka_unit_test(a_window_is_exactly_its_whole_pages),
		cmocka_unit_test(pages_that_come_back_are_zero),
		cmocka_unit_test(the_kernel_sees_what_is_written_here_and_the_other_way_round),
		cmocka_unit_test(a_file_is_read_into_the_window_with_and_without_the_page_cache),
		cmocka_unit_test(each_kind_of_sandbox_runs_its_own_tiers),
		cmocka_unit_test(programs_that_are_dropped_leave_nothing),
		cmocka_unit_test(ten_thousand_calls_keep_nothing),
		cmocka_unit_test(an_arena_of_much_memory_is_given_back_rather_than_pooled),
		cmocka_unit_test(a_forked_child_does_not_use_its_parents_arena),
	};

	if (kernel_tier_is_missing("arena"))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
