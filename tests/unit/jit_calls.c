/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The template tier around its instructions: calls and frames, what a run does to the thread and to
 * the process, and programs of the largest size.
 */
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jit.h"
#if defined(__x86_64__)
#include <asm/prctl.h>
#include <sys/syscall.h>
#endif

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

/* ---- calls ---- */

/* Down through 16 functions that save different registers and have different frames. */
static void put_chain(struct maker *m, unsigned int depth, int frame)
{
	for (unsigned int f = 0; f < depth; f++) {
		for (unsigned int r = 6; r < 10; r++)
			if (f >> (r - 6) & 1)
				PUT(m, MOV(r, (int32_t)(100 * f + r)));
		/* the frame is zero at first; then dirt for the next to find */
		for (int at = 8; at <= frame; at += 8)
			PUT(m, LOAD(BPF_DW, 3, 10, -at), JEQ(3, 0, 2), MOV(0, -100000), EXIT,
			    STOREI(BPF_DW, 10, -at, -1));
		if (f + 1 < depth)
			PUT(m, CALL(2), ADD(0, (int32_t)f), EXIT);
		else
			PUT(m, MOV(2, 0), MOV(1, 0), HELPER(H_TRACE), MOV(0, 7), EXIT);
	}
}

static void check_alignment(void *arg, const char *text, size_t len)
{
	unsigned int *calls = arg;

	*calls += 1;
	assert_int_equal((uintptr_t)__builtin_frame_address(0) % 16, 0);
}

static void calls_keep_registers_frames_and_the_stack(void **state)
{
	static const int frames[] = {16, 32, 128, 256, 272, 1024};

	for (size_t i = 0; i < N_ELEMS(frames); i++)
		for (unsigned int depth = 2; depth <= 14; depth++) {
			struct sbpf_program *prog;
			struct sbpf_sandbox *sb;
			struct sbpf_error err;
			uint64_t fuel = 0;
			struct maker m = {.n = 0};

			/* twice, so that the second chain finds the frames of the first */
			PUT(&m, MOVR(6, 1), MOV(7, 77), MOV(8, 88), MOV(9, 99), CALL(9), CALL(8),
			    ADDR(0, 7), ADDR(0, 8), ADDR(0, 9), ADDR(0, 6),
			    STOREI(BPF_DW, 10, -frames[i], 5), LOAD(BPF_DW, 1, 10, -frames[i]),
			    ADDR(0, 1), EXIT);
			put_chain(&m, depth, frames[i]);
			prog = assemble(m.insns, m.n);
			sb = take(prog);
			EACH_TIER(tier)
			{
				struct sbpf_call call = a_call(tier, 1000, 0);
				unsigned int traced = 0;

				call.trace = check_alignment;
				call.trace_arg = &traced;
				expect(sb, &call, 0, &err);
				assert_int_equal(traced, 2);
				assert_int_equal(call.r0, 1000 + 77 + 88 + 99 + 5 + 7 +
								  (depth - 1) * (depth - 2) / 2);
				if (tier != SBPF_TIER_INTERP && counts_fuel(tier))
					assert_int_equal(call.fuel_used, fuel);
				fuel = call.fuel_used;
			}
			sbpf_sandbox_put(sb);
			sbpf_program_unref(prog);
		}
}

/* What was known of r0's upper half is forgotten at a call. */
static void results_of_calls_have_64_bits(void **state)
{
	struct maker m;
	uint32_t call;

	begin(&m);
	call = m.n + 1;
	PUT(&m, INSN(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 1), CALL(0),
	    INSN(BPF_ALU | BPF_MOV | BPF_X, 0, 0, 0, 0), STORE(BPF_DW, 10, -16, 0), MOV32(1, IN),
	    MOV32(2, IN + 1), MOV(3, 1), INSN(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 1),
	    HELPER(H_MEMCMP), INSN(BPF_ALU | BPF_MOV | BPF_X, 0, 0, 0, 0));
	for (unsigned int r = 1; r <= 5; r++)
		PUT(&m, MOV(r, 0));
	PUT(&m, LOAD(BPF_DW, 3, 10, -16));
	end(&m);
	m.insns[call].imm = (int32_t)(m.n - call - 1);
	PUT(&m, LDDW(0, -1), EXIT);
	same_on_both(&m, false);
	assert_int_equal(seen[1].code, 0);
	assert_int_equal(seen[1].r0, UINT32_MAX);
}

/* ---- the thread and the process ---- */

#if defined(__x86_64__)

static uint64_t gs_base(void)
{
	uint64_t base = 0;

	syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
	return base;
}

static void run_inner(void *arg, const char *text, size_t len)
{
	struct sbpf_program *prog = ASSEMBLE(MOV32(1, IN), STOREI(BPF_B, 1, 0, 1), MOV(2, 0),
					     LOAD(BPF_B, 0, 2, 0), EXIT);
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_call call = a_call(SBPF_TIER_TEMPLATE, 0, 0);
	struct sbpf_error err;

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 1), 0);
	expect(sb, &call, -EFAULT, &err);
	assert_int_equal(err.insn, 4 - 1);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void the_segment_base_is_put_back_however_a_call_ends(void **state)
{
	static uint64_t mine[2];
	struct sbpf_program *prog =
		ASSEMBLE(MOVR(6, 1), MOVR(7, 2), MOV(1, 0), MOV(2, 0), HELPER(H_TRACE),
			 LOAD(BPF_B, 0, 6, 0), JNE(7, 0, -5), EXIT);
	struct sbpf_sandbox *sb = take(prog);
	uint64_t before = gs_base();
	struct sbpf_error err;

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 1), 0);
	*(uint8_t *)sbpf_sandbox_ptr(sb, SBPF_WIN_IN) = 42;
	for (int end = 0; end < 4; end++) {
		/* by itself, by a fault, out of fuel, a run inside the run */
		static const int codes[] = {0, -EFAULT, -ETIME, 0};
		struct sbpf_call call = a_call(SBPF_TIER_TEMPLATE, end == 1 ? 5 : IN, end == 2);

		call.trace = end == 3 ? run_inner : NULL;
		syscall(SYS_arch_prctl, ARCH_SET_GS, mine);
		expect(sb, &call, codes[end], &err);
		assert_true(gs_base() == (uint64_t)(uintptr_t)mine);
		if (!codes[end])
			assert_int_equal(call.r0, 42);
	}
	syscall(SYS_arch_prctl, ARCH_SET_GS, before);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

#endif /* x86-64 */

/* Lines of /proc/self/maps whose rights contain @right1 and @right2. */
static unsigned int pages_with(char right1, char right2)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], rights[8];
	unsigned int n = 0;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%*s %4s", rights) == 1)
			n += strchr(rights, right1) && strchr(rights, right2);
	fclose(maps);
	return n;
}

static void no_page_is_writable_and_executable(void **state)
{
	unsigned int executable = pages_with('x', 'x');
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 0), EXIT);

	assert_int_equal(pages_with('w', 'x'), 0);
	assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_TEMPLATE, NULL, NULL), 0);
	assert_int_equal(pages_with('w', 'x'), 0);
	assert_int_equal(pages_with('x', 'x'), executable + 1);
	sbpf_program_unref(prog);
	assert_int_equal(pages_with('x', 'x'), executable);
}

/* In a child, and before anything else asks for the tier: the answer is kept. */
static void where_code_cannot_be_made_executable_the_interpreter_runs(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 7), EXIT);
	int status;
	pid_t child;

	child = fork();
	if (child == 0) {
		struct sbpf_code_info info = {.size = sizeof(info)};
		struct sbpf_error err;

		if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
			_exit(77);
		_exit(!sbpf_tier_missing(SBPF_TIER_TEMPLATE) ||
		      sbpf_program_compile(prog, SBPF_TIER_TEMPLATE, NULL, &err) != -EOPNOTSUPP ||
		      sbpf_program_compile(prog, SBPF_TIER_AUTO, &info, &err) ||
		      info.tier != SBPF_TIER_INTERP);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	sbpf_program_unref(prog);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("# not tried: PR_SET_MDWE needs Linux 6.3\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_million_instructions_compile_and_run(void **state)
{
	struct sbpf_insn *insns = calloc(SBPF_MAX_INSNS, sizeof(*insns));
	struct sbpf_program *prog;
	struct sbpf_sandbox *sb;
	struct sbpf_error err;
	const uint32_t last = SBPF_MAX_INSNS - 1;
	uint32_t n = 0;

	assert_non_null(insns);
	insns[n++] = (struct sbpf_insn)MOV(0, -1);
	insns[n++] = (struct sbpf_insn)MOV(3, 2);
	/*
	 * the farthest jumps there are, and divisions, the longest code, between them: once around
	 */
	insns[n++] = (struct sbpf_insn)INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, last - 6);
	while (n < last - 3)
		insns[n++] = (struct sbpf_insn)INSN(BPF_ALU64 | BPF_DIV | BPF_X, 0, 3, 1, 0);
	insns[n++] = (struct sbpf_insn)ADD(0, 1);
	insns[n++] = (struct sbpf_insn)INSN(BPF_JMP | BPF_JSGT | BPF_K, 0, 0, 1, 0);
	insns[n++] = (struct sbpf_insn)INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, 3 - last);
	insns[n] = (struct sbpf_insn)EXIT;
	prog = assemble(insns, SBPF_MAX_INSNS);
	sb = take(prog);
	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, 0, 0);

		if (!counts_fuel(tier))
			continue; /* an optimizing tier has a limit of its own */
		call.fuel = 10 * SBPF_MAX_INSNS;
		expect(sb, &call, 0, &err);
		assert_int_equal(call.r0, 1);
		assert_int_equal(call.fuel_used, SBPF_MAX_INSNS + last - 3);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
	free(insns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_code_cannot_be_made_executable_the_interpreter_runs),
		cmocka_unit_test(calls_keep_registers_frames_and_the_stack),
		cmocka_unit_test(results_of_calls_have_64_bits),
		cmocka_unit_test(no_page_is_writable_and_executable),
		cmocka_unit_test(a_million_instructions_compile_and_run),
#if defined(__x86_64__)
		cmocka_unit_test(the_segment_base_is_put_back_however_a_call_ends),
		ON_AN_OLD_MACHINE(the_segment_base_is_put_back_however_a_call_ends),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
