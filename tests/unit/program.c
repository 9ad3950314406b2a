/* SPDX-License-Identifier: Apache-2.0 */
/* A program's life, what it answers, its tiers, and what an error says. */
#include "insns.h"

static void raw_instructions_are_split_into_functions_where_calls_go(void **state)
{
	/* The second call is inside a lddw's constant: no instruction. */
	struct sbpf_program *prog = ASSEMBLE(CALL(3), LDDW(1, (uint64_t)0x1085 << 32), EXIT,
					     MOV(0, 1), CALL(1), EXIT, MOV(0, 2), EXIT);
	struct sbpf_program_info info = {.size = sizeof(info)};

	assert_int_equal(sbpf_program_info(prog, &info), 0);
	assert_int_equal(info.insns, 9);
	assert_int_equal(info.functions, 3);
	assert_int_equal(info.call_depth, 3);
	assert_string_equal(prog->funcs[0].name, "entry");
	assert_string_equal(prog->funcs[1].name, "function_4");
	assert_int_equal(prog->funcs[2].start, 7);
	for (uint32_t pc = 0; pc < 9; pc++)
		assert_int_equal(sbpf_func_at(prog, pc), pc < 4 ? 0 : pc < 7 ? 1 : 2);
	assert_int_equal(sbpf_program_entries(prog), 1);
	assert_int_equal(sbpf_program_entry_find(prog, "entry"), 0);
	assert_int_equal(sbpf_program_entry_find(prog, "function_4"), -ENOENT);
	assert_string_equal(sbpf_program_entry_section(prog, 0), "");
	sbpf_program_unref(prog);
}

static void empty_and_oversized_programs_are_refused(void **state)
{
	const struct sbpf_insn two[] = {MOV(0, 1), EXIT};
	struct sbpf_load_opts opts = {.size = sizeof(opts), .max_insns = 1};
	struct sbpf_program *prog;
	struct sbpf_error err;

	assert_int_equal(sbpf_program_from_insns(two, 0, NULL, &prog, &err), -ENOEXEC);
	assert_null(prog);
	assert_int_equal(sbpf_program_from_insns(two, 2, &opts, &prog, &err), -E2BIG);
	assert_null(prog);
	assert_non_null(strstr(err.text, "2 instructions; the limit is 1"));
	assert_int_equal(sbpf_program_from_insns(two, SIZE_MAX / 8, NULL, &prog, &err), -E2BIG);
	/* An older caller's options end before max_insns. */
	opts.size = offsetof(struct sbpf_load_opts, max_insns);
	assert_int_equal(sbpf_program_from_insns(two, 2, &opts, &prog, NULL), 0);
	sbpf_program_unref(prog);
}

static void a_caller_of_another_version_gets_the_part_it_knows(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 1), EXIT);
	struct {
		struct sbpf_program_info info;
		uint64_t behind[4];
	} newer;
	struct sbpf_program_info older;

	memset(&newer, 0x55, sizeof(newer));
	newer.info.size = sizeof(newer);
	assert_int_equal(sbpf_program_info(prog, &newer.info), 0);
	assert_int_equal(newer.info.insns, 2);
	assert_int_equal(newer.info.size, sizeof(newer));
	assert_int_equal(newer.behind[0], 0x5555555555555555);

	memset(&older, 0x55, sizeof(older));
	older.size = offsetof(struct sbpf_program_info, functions);
	assert_int_equal(sbpf_program_info(prog, &older), 0);
	assert_int_equal(older.insns, 2);
	assert_int_equal(older.functions, 0x55555555);
	older.size = 0;
	assert_int_equal(sbpf_program_info(prog, &older), -EINVAL);
	sbpf_program_unref(prog);
}

static void a_program_lives_as_long_as_somebody_holds_it(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 42), EXIT);
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_call call = a_call(SBPF_TIER_AUTO, 0, 0);
	struct sbpf_error err;

	assert_ptr_equal(sbpf_program_ref(prog), prog);
	sbpf_program_unref(prog);
	assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_AUTO, NULL, NULL), 0);
	sbpf_program_unref(prog); /* the sandbox holds it still */
	expect(sb, &call, 0, &err);
	assert_int_equal(call.r0, 42);
	sbpf_sandbox_put(sb);
	sbpf_program_unref(NULL);
}

static void tiers_have_names_and_reasons(void **state)
{
	static const char *const names[] = {"auto", "interp", "template", "llvm", "kernel"};
	enum sbpf_tier tier;

	for (int i = 0; i < 5; i++) {
		assert_int_equal(sbpf_tier_parse(names[i], &tier), 0);
		assert_int_equal(tier, i);
		assert_string_equal(sbpf_tier_name(tier), names[i]);
	}
	assert_int_equal(sbpf_tier_parse("jit", &tier), -EINVAL);
	assert_int_equal(sbpf_tier_parse("", &tier), -EINVAL);
	assert_null(sbpf_tier_name((enum sbpf_tier)5));
	assert_null(sbpf_tier_name((enum sbpf_tier) - 1));
	assert_null(sbpf_tier_missing(SBPF_TIER_AUTO));
	assert_null(sbpf_tier_missing(SBPF_TIER_INTERP));
	if (sbpf_tier_missing(SBPF_TIER_LLVM))
		assert_non_null(strstr(sbpf_tier_missing(SBPF_TIER_LLVM), "the LLVM tier"));
	assert_non_null(sbpf_tier_missing((enum sbpf_tier)77));
}

static void compiling_twice_is_once_and_auto_is_a_real_tier(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 1), EXIT);
	struct sbpf_code_info info = {.size = sizeof(info)}, again = info;
	struct sbpf_error err;

	assert_null(sbpf_program_code(prog, SBPF_TIER_AUTO));
	assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_AUTO, &info, &err), 0);
	assert_int_equal(info.tier, sbpf_tier_missing(SBPF_TIER_TEMPLATE) ? SBPF_TIER_INTERP
									  : SBPF_TIER_TEMPLATE);
	assert_true(info.compile_ns > 0);
	assert_int_equal(sbpf_program_compile(prog, info.tier, &again, &err), 0);
	assert_memory_equal(&info, &again, sizeof(info));
	assert_non_null(sbpf_program_code(prog, SBPF_TIER_AUTO));
	assert_ptr_equal(sbpf_program_code(prog, SBPF_TIER_AUTO),
			 sbpf_program_code(prog, info.tier));

	if (sbpf_tier_missing(SBPF_TIER_LLVM)) {
		assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_LLVM, &info, &err),
				 -EOPNOTSUPP);
		assert_string_equal(err.text, sbpf_tier_missing(SBPF_TIER_LLVM));
	}
	assert_int_equal(sbpf_program_compile(prog, (enum sbpf_tier)99, &info, &err), -EOPNOTSUPP);
	assert_null(sbpf_program_code(prog, (enum sbpf_tier)99));
	sbpf_program_unref(prog);
}

static void *compile(void *arg)
{
	struct sbpf_program *prog = arg;

	for (int tier = SBPF_TIER_LLVM; tier >= SBPF_TIER_AUTO; tier--)
		sbpf_program_compile(prog, (enum sbpf_tier)tier, NULL, NULL);
	return sbpf_program_code(prog, SBPF_TIER_AUTO);
}

static void threads_that_compile_at_once_get_the_same_code(void **state)
{
	for (int round = 0; round < 50; round++) {
		struct sbpf_program *prog = ASSEMBLE(MOV(0, 1), EXIT);
		pthread_t threads[8];

		for (size_t i = 0; i < N_ELEMS(threads); i++)
			assert_int_equal(pthread_create(&threads[i], NULL, compile, prog), 0);
		for (size_t i = 0; i < N_ELEMS(threads); i++) {
			void *code;

			pthread_join(threads[i], &code);
			assert_non_null(code);
			assert_ptr_equal(code, sbpf_program_code(prog, SBPF_TIER_AUTO));
		}
		sbpf_program_unref(prog);
	}
}

/* ---- errors ---- */

static void an_error_says_where(void **state)
{
	struct sbpf_line line = {.insn = 1, .line = 12, .file = "knn.c"};
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 1), MOV(0, 2), CALL(1), EXIT, MOV(0, 3), EXIT);
	struct sbpf_error err;

	prog->lines = &line;
	prog->n_lines = 1;
	assert_int_equal(sbpf_fail(&err, prog, -EINVAL, 2, "no %s", "good"), -EINVAL);
	assert_string_equal(err.text, "no good (instruction 2 of entry, knn.c:12)");
	assert_int_equal(err.code, -EINVAL);
	assert_int_equal(err.insn, 2);
	assert_int_equal(err.line, 12);
	assert_string_equal(err.file, "knn.c");
	assert_string_equal(err.function, "entry");

	/* Before the first line, in a function without lines, outside, nowhere. */
	sbpf_fail(&err, prog, -EINVAL, 0, "x");
	assert_string_equal(err.text, "x (instruction 0 of entry)");
	sbpf_fail(&err, prog, -EINVAL, 5, "x");
	assert_string_equal(err.text, "x (instruction 5 of function_4)");
	sbpf_fail(&err, prog, -EINVAL, 77, "x");
	assert_string_equal(err.text, "x (instruction 77)");
	sbpf_fail(&err, NULL, -EINVAL, 3, "x");
	assert_string_equal(err.text, "x (instruction 3)");
	sbpf_fail(&err, prog, -EINVAL, -1, "x");
	assert_string_equal(err.text, "x");
	assert_int_equal(err.insn, -1);
	assert_int_equal(sbpf_fail(NULL, prog, -EIO, 1, "x"), -EIO);

	prog->lines = NULL;
	prog->n_lines = 0;
	sbpf_program_unref(prog);
}

static void however_long_the_names_an_error_is_one_line_with_its_place(void **state)
{
	struct sbpf_line line = {.insn = 0, .line = UINT32_MAX};
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 1), EXIT);
	struct sbpf_error err;
	char name[3000];

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	memcpy(name, "\33[2J\n", 5); /* clears a terminal that is shown it */
	line.file = prog->funcs[0].name = sbpf_program_string(prog, name);
	assert_int_equal(strlen(line.file), 255);
	prog->lines = &line;
	prog->n_lines = 1;
	sbpf_fail(&err, prog, -EINVAL, 1, "%s", name);
	assert_true(strlen(err.text) < sizeof(err.text));
	assert_string_equal(err.text + strlen(err.text) - 12, ":4294967295)");
	for (const char *c = err.text; *c; c++)
		assert_true((unsigned char)*c >= 0x20);
	prog->lines = NULL;
	prog->n_lines = 0;
	sbpf_program_unref(prog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(raw_instructions_are_split_into_functions_where_calls_go),
		cmocka_unit_test(empty_and_oversized_programs_are_refused),
		cmocka_unit_test(a_caller_of_another_version_gets_the_part_it_knows),
		cmocka_unit_test(a_program_lives_as_long_as_somebody_holds_it),
		cmocka_unit_test(tiers_have_names_and_reasons),
		cmocka_unit_test(compiling_twice_is_once_and_auto_is_a_real_tier),
		cmocka_unit_test(threads_that_compile_at_once_get_the_same_code),
		cmocka_unit_test(an_error_says_where),
		cmocka_unit_test(however_long_the_names_an_error_is_one_line_with_its_place),
	};

	return cmocka_run_group_tests_name("program", tests, NULL, NULL);
}
