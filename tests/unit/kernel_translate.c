/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a program on its way into the kernel: without any right to load it there. */
#include "insns.h"
#include "sbpf/kernel_translate.h"
#include "sbpf/sandbox.h"

/* The last subprogram that @at can be in. */
static uint32_t sub_end(const struct kt_image *im, uint32_t at)
{
	for (uint32_t i = 0; i < im->n_subs; i++)
		if (im->subs[i].at > at)
			return im->subs[i].at;
	return im->n;
}

static uint32_t sub_start(const struct kt_image *im, uint32_t at)
{
	uint32_t start = 0;

	for (uint32_t i = 0; i < im->n_subs && im->subs[i].at <= at; i++)
		start = im->subs[i].at;
	return start;
}

static bool starts_sub(const struct kt_image *im, int64_t at)
{
	for (uint32_t i = 0; i < im->n_subs; i++)
		if (im->subs[i].at == at)
			return true;
	return false;
}

/* What holds of every image, whatever the program. */
static void check_image(const struct kt_image *im)
{
	for (uint32_t at = 0; at < im->n; at++) {
		const struct sbpf_insn *insn = &im->insns[at];
		uint8_t cls = BPF_CLASS(insn->code);
		bool last = at + 1 == sub_end(im, at);

		if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == BPF_CALL_LOCAL) {
			assert_true(starts_sub(im, (int64_t)at + 1 + insn->imm));
		} else if (insn->code == KT_MAY_GOTO || sbpf_is_jump(insn)) {
			int64_t to = sbpf_jump_target(insn, at);

			assert_true(to >= sub_start(im, at) && to < sub_end(im, at));
		}
		if (last)
			assert_true(insn->code == (BPF_JMP | BPF_EXIT) ||
				    insn->code == (BPF_JMP | BPF_JA) ||
				    insn->code == (BPF_JMP32 | BPF_JA));
		/* Nothing that locks the bus, and nothing that old kernels do not know of arenas. */
		assert_false(cls == BPF_STX && BPF_MODE(insn->code) == BPF_ATOMIC);
		assert_false(cls == BPF_LDX && BPF_MODE(insn->code) == BPF_MEMSX);
		at += sbpf_is_lddw(insn);
	}
}

static struct sbpf_translation *translate(struct sbpf_program *prog)
{
	struct sbpf_translation *t = NULL;
	struct sbpf_error err = {0};

	if (sbpf_kernel_translate(prog, &t, &err))
		fail_msg("%s", err.text);
	for (uint32_t i = 0; i < t->n_images; i++)
		check_image(&t->images[i]);
	return t;
}

/* Instructions of @code in the entry itself; @imm is one that must match, or -2. */
static unsigned int count(const struct sbpf_translation *t, uint8_t code, int64_t imm)
{
	const struct kt_image *im = &t->images[0];
	unsigned int n = 0;

	for (uint32_t at = 0; at < sub_end(im, 0); at++) {
		n += im->insns[at].code == code && (imm == -2 || im->insns[at].imm == imm);
		at += sbpf_is_lddw(&im->insns[at]);
	}
	return n;
}

static void done(struct sbpf_translation *t, struct sbpf_program *prog)
{
	sbpf_translation_free(t);
	sbpf_program_unref(prog);
}

static void a_loop_can_be_left_by_the_kernel_and_nothing_else_can(void **state)
{
	struct sbpf_program *loop = ASSEMBLE(MOV(0, 9), ADD(0, -1), JNE(0, 0, -2), EXIT);
	struct sbpf_program *line = ASSEMBLE(MOV(0, 9), JNE(0, 0, 1), ADD(0, -1), EXIT);
	struct sbpf_translation *t = translate(loop);

	assert_int_equal(count(t, KT_MAY_GOTO, -2), 1);
	done(t, loop);
	t = translate(line);
	assert_int_equal(count(t, KT_MAY_GOTO, -2), 0);
	done(t, line);
}

static void each_store_compares_with_where_writable_windows_begin(void **state)
{
	struct sbpf_program *prog =
		ASSEMBLE(STOREI(BPF_DW, 1, 16, 1), STORE(BPF_B, 2, -8, 1), MOV(0, 0), EXIT);
	struct sbpf_translation *t = translate(prog);

	assert_int_equal(count(t, BPF_JMP32 | BPF_JLT | BPF_K, SBPF_WRITABLE_FROM - 16), 1);
	assert_int_equal(count(t, BPF_JMP32 | BPF_JLT | BPF_K, SBPF_WRITABLE_FROM + 8), 1);
	done(t, prog);
}

static void code_that_nothing_reaches_is_left_out(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(MOV(0, 7), EXIT, MOV(0, 12345), EXIT);
	struct sbpf_translation *t = translate(prog);

	assert_int_equal(count(t, BPF_ALU64 | BPF_MOV | BPF_K, 7), 1);
	assert_int_equal(count(t, BPF_ALU64 | BPF_MOV | BPF_K, 12345), 0);
	done(t, prog);
}

static void what_the_kernel_refuses_of_arithmetic_becomes_what_it_means(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(
		MOVR(0, 1), INSN(BPF_ALU64 | BPF_DIV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOD | BPF_K, 1, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_LSH | BPF_K, 2, 0, 0, 65),
		INSN(BPF_ALU | BPF_RSH | BPF_K, 2, 0, 0, 33), ADDR(0, 1), ADDR(0, 2), EXIT);
	struct sbpf_translation *t = translate(prog);

	assert_int_equal(count(t, BPF_ALU64 | BPF_DIV | BPF_K, -2), 0);
	assert_int_equal(count(t, BPF_ALU64 | BPF_MOD | BPF_K, -2), 0);
	assert_int_equal(count(t, BPF_ALU64 | BPF_LSH | BPF_K, 1), 1);
	assert_int_equal(count(t, BPF_ALU | BPF_RSH | BPF_K, 1), 1);
	done(t, prog);
}

static void atomics_are_plain_loads_and_stores(void **state)
{
	static const int32_t ops[] = {BPF_ADD, BPF_ADD | BPF_FETCH, BPF_XOR | BPF_FETCH, BPF_XCHG,
				      BPF_CMPXCHG};

	for (size_t i = 0; i < N_ELEMS(ops); i++) {
		struct sbpf_program *prog =
			ASSEMBLE(MOV(0, 1), MOV(3, 1), ATOMIC(BPF_DW, 2, 8, 3, ops[i]), EXIT);

		done(translate(prog), prog);
	}
}

static void a_load_that_extends_the_sign_is_a_load_and_a_move(void **state)
{
	struct sbpf_program *prog = ASSEMBLE(INSN(BPF_LDX | BPF_MEMSX | BPF_H, 0, 1, 0, 0), EXIT);
	struct sbpf_translation *t = translate(prog);

	assert_true(count(t, BPF_LDX | BPF_MEM | BPF_H, -2) == 1);
	done(t, prog);
}

static void a_chain_of_calls_longer_than_the_kernels_is_refused_by_name(void **state)
{
	struct sbpf_insn insns[64];
	struct sbpf_translation *t;
	struct sbpf_program *prog;
	struct sbpf_error err;
	size_t n;

	for (unsigned int deep = 1; deep <= SBPF_MAX_DEPTH; deep++) {
		n = 0;
		for (unsigned int i = 1; i < deep; i++) {
			insns[n++] = (struct sbpf_insn)CALL(1);
			insns[n++] = (struct sbpf_insn)EXIT;
		}
		insns[n++] = (struct sbpf_insn)MOV(0, 1);
		insns[n++] = (struct sbpf_insn)EXIT;
		prog = assemble(insns, n);
		if (deep < KT_MAX_DEPTH) {
			done(translate(prog), prog);
			continue;
		}
		memset(&err, 0, sizeof(err));
		assert_int_equal(sbpf_kernel_translate(prog, &t, &err), -EOPNOTSUPP);
		assert_non_null(strstr(err.text, "functions deep"));
		assert_null(t);
		sbpf_program_unref(prog);
	}
}

static void a_jump_over_more_than_an_offset_holds_is_made_long(void **state)
{
	const size_t n = 20000;
	struct sbpf_insn *insns = calloc(n + 3, sizeof(*insns));
	struct sbpf_translation *t;
	struct sbpf_program *prog;

	assert_non_null(insns);
	insns[0] = (struct sbpf_insn)MOV(0, 0);
	insns[1] = (struct sbpf_insn)JEQ(1, 0, (int16_t)n);
	for (size_t i = 0; i < n; i++) /* each is a few instructions there */
		insns[2 + i] = (struct sbpf_insn)STOREI(BPF_B, 1, (int16_t)(i % 2 ? i : n - i), 1);
	insns[n + 2] = (struct sbpf_insn)EXIT;
	prog = assemble(insns, n + 3);
	t = translate(prog);
	assert_true(count(t, BPF_JMP32 | BPF_JA, -2) > 0);
	done(t, prog);
	free(insns);
}

static void every_helper_has_its_subprogram(void **state)
{
	for (int32_t id = 0; id < (int32_t)sbpf_n_helpers; id++) {
		struct sbpf_program *prog =
			ASSEMBLE(MOV(1, 0), MOV(2, 0), MOV(3, 0), MOV(4, 0), HELPER(id), EXIT);
		struct sbpf_translation *t = translate(prog);

		assert_true(t->images[0].n_subs > 1);
		done(t, prog);
	}
}

static void what_is_missing_here_is_told_by_name(void **state)
{
	const char *name, *missing, *first = NULL;
	unsigned int rows = 0;

	for (; !sbpf_kernel_need(rows, &name, &missing); rows++) {
		assert_non_null(name);
		assert_true(name[0] != '\0');
		if (missing && !first)
			first = missing;
	}
	assert_true(rows >= 5);
	assert_ptr_equal(sbpf_kernel_missing(), first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_loop_can_be_left_by_the_kernel_and_nothing_else_can),
		cmocka_unit_test(each_store_compares_with_where_writable_windows_begin),
		cmocka_unit_test(code_that_nothing_reaches_is_left_out),
		cmocka_unit_test(what_the_kernel_refuses_of_arithmetic_becomes_what_it_means),
		cmocka_unit_test(atomics_are_plain_loads_and_stores),
		cmocka_unit_test(a_load_that_extends_the_sign_is_a_load_and_a_move),
		cmocka_unit_test(a_chain_of_calls_longer_than_the_kernels_is_refused_by_name),
		cmocka_unit_test(a_jump_over_more_than_an_offset_holds_is_made_long),
		cmocka_unit_test(every_helper_has_its_subprogram),
		cmocka_unit_test(what_is_missing_here_is_told_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
