/* SPDX-License-Identifier: Apache-2.0 */
/* What goes to the compiler and comes back is what it is meant to be, and refused or harmless where bytes of it are not. */
#include "insns.h"
#include "sbpf/jit_llvm_ir.h"
#include "sbpf/jit_llvm_link.h"
#include "sbpf/tier_llvm.h"

#define DAMAGES 20000u

static struct sbpf_program *prog;
static void *question;
static size_t question_len;
static const uint8_t *object;
static size_t object_len;
static struct sbpf_llvm_answer *answer;
static size_t answer_len;
static LLVMMemoryBufferRef buffer;

/* A loop, a helper, a local call and a frame: text, constants, the table of outside addresses, lines. */
static struct sbpf_program *sample(void)
{
	return ASSEMBLE(MOVR(6, 1), MOV(7, 100), MOVR(1, 10), ADD(1, -64), MOV(2, 0), MOV(3, 64),
			HELPER(H_MEMSET), MOVR(1, 6), CALL(4), ADD(6, 4), ADD(7, -1), JNE(7, 0, -5),
			EXIT, LOAD(BPF_W, 0, 1, 0), STORE(BPF_W, 1, 4, 0), EXIT);
}

static int set_up(void **state)
{
	uint8_t args[64] = {0};
	char why[256];

	for (uint32_t i = 0; i < sbpf_n_helpers; i++)
		args[i] = sbpf_helpers[i].args;
	prog = sample();
	question = sbpf_llvm_question(prog, &question_len);
	if (!question)
		return -1;
	answer = sbpf_llvm_answer(question, question_len, &answer_len);
	if (!answer || jit_llvm_compile(prog, args, &buffer, why, sizeof(why)))
		return -1;
	object = (const uint8_t *)LLVMGetBufferStart(buffer);
	object_len = LLVMGetBufferSize(buffer);
	return 0;
}

static int tear_down(void **state)
{
	LLVMDisposeMemoryBuffer(buffer);
	free(answer);
	free(question);
	sbpf_program_unref(prog);
	return 0;
}

static uint64_t draw(void)
{
	static uint64_t seed = 1;

	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed >> 20;
}

static void damage(uint8_t *copy, const void *bytes, size_t len, unsigned int n)
{
	memcpy(copy, bytes, len);
	while (n--)
		copy[draw() % len] = (uint8_t)draw();
}

/* ---- LLVM's object ---- */

static void an_object_has_its_entry_and_its_lines(void **state)
{
	struct llvm_image image;
	const char *why;

	assert_int_equal(jit_llvm_link(object, object_len, prog->n_funcs, &image, &why), 0);
	assert_int_equal(image.n_starts, 1);
	assert_true(image.text > 0 && image.n_outside > 0);
	assert_true(image.n_places > 4);
	for (size_t i = 1; i < image.n_places; i++)
		assert_true(image.places[i - 1].at < image.places[i].at);
	jit_llvm_unlink(&image);
}

static void an_object_cut_anywhere_is_refused(void **state)
{
	struct llvm_image image;
	const char *why;

	/* The section headers stand at its end. */
	for (size_t len = 0; len < object_len; len++) {
		why = NULL;
		assert_int_not_equal(jit_llvm_link(object, len, prog->n_funcs, &image, &why), 0);
		assert_non_null(why);
		assert_null(image.mem);
	}
}

static void a_damaged_object_is_refused_or_linked_inside_its_bytes(void **state)
{
	uint8_t *copy = malloc(object_len);

	assert_non_null(copy);
	for (unsigned int i = 0; i < DAMAGES; i++) {
		struct llvm_image image;
		const char *why;

		damage(copy, object, object_len, 1 + i % 3);
		if (!jit_llvm_link(copy, object_len, prog->n_funcs, &image, &why))
			jit_llvm_unlink(&image);
	}
	free(copy);
}

/* ---- the question ---- */

static void a_question_cut_anywhere_is_refused_in_words(void **state)
{
	for (size_t len = 0; len < question_len; len++) {
		size_t n;
		struct sbpf_llvm_answer *a = sbpf_llvm_answer(question, len, &n);

		assert_non_null(a);
		assert_true(a->code < 0 && a->why[0]);
		assert_int_equal(n, sizeof(*a));
		free(a);
	}
}

static void a_question_of_another_build_is_refused(void **state)
{
	uint8_t *copy = malloc(question_len);
	struct sbpf_llvm_answer *a;
	struct llvm_code *lc;
	char why[256];
	size_t n;

	assert_non_null(copy);
	memcpy(copy, question, question_len);
	copy[strlen((char *)copy) - 1] ^= 1;
	a = sbpf_llvm_answer(copy, question_len, &n);
	assert_non_null(a);
	assert_int_equal(sbpf_llvm_map(prog, (uint8_t *)a, n, &lc, why, sizeof(why)), -ENOEXEC);
	assert_non_null(strstr(why, "another version"));
	free(a);
	free(copy);
}

/* ---- the answer ---- */

static void an_answer_becomes_code_that_nobody_can_write(void **state)
{
	struct llvm_code *lc = NULL;
	char why[256], line[512];
	bool seen = false;
	FILE *f;

	assert_int_equal(sbpf_llvm_map(prog, (uint8_t *)answer, answer_len, &lc, why, sizeof(why)),
			 0);
	assert_int_not_equal(lc->entry_at[prog->entries[0].func], 0);
	assert_true(lc->n_places > 4 && lc->used > 0);
	f = fopen("/proc/self/maps", "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;
		char perms[5];

		assert_int_equal(sscanf(line, "%lx-%lx %4s", &from, &to, perms), 3);
		if (from <= (uintptr_t)lc->mem && (uintptr_t)lc->mem < to) {
			assert_string_equal(perms, "r-xp");
			seen = true;
		}
	}
	fclose(f);
	assert_true(seen);
	sbpf_llvm_unmap(lc);
}

static void an_answer_of_any_other_length_is_refused(void **state)
{
	uint8_t *copy = calloc(1, answer_len + 8);
	struct llvm_code *lc;
	char why[256];

	assert_non_null(copy);
	memcpy(copy, answer, answer_len);
	for (size_t len = 0; len <= answer_len + 8; len++)
		if (len != answer_len)
			assert_int_equal(sbpf_llvm_map(prog, copy, len, &lc, why, sizeof(why)),
					 -EBADMSG);
	free(copy);
}

static void a_damaged_answer_is_refused_or_mapped_inside_its_pages(void **state)
{
	uint8_t *copy = malloc(answer_len);

	assert_non_null(copy);
	for (unsigned int i = 0; i < DAMAGES; i++) {
		struct llvm_code *lc;
		char why[256];
		size_t head = i % 2 ? answer_len : sizeof(struct sbpf_llvm_answer);

		memcpy(copy, answer, answer_len);
		damage(copy, answer, head, 1 + i % 3);
		if (!sbpf_llvm_map(prog, copy, answer_len, &lc, why, sizeof(why)))
			sbpf_llvm_unmap(lc);
	}
	free(copy);
}

static void an_answer_for_another_program_is_refused(void **state)
{
	/* Its second function is the entry's callee: there is no code that begins there. */
	struct sbpf_program *other = sample();
	struct llvm_code *lc;
	char why[256];

	other->entries[0].func = 1;
	assert_int_equal(sbpf_llvm_map(other, (uint8_t *)answer, answer_len, &lc, why, sizeof(why)),
			 -EBADMSG);
	sbpf_program_unref(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_object_has_its_entry_and_its_lines),
		cmocka_unit_test(an_object_cut_anywhere_is_refused),
		cmocka_unit_test(a_damaged_object_is_refused_or_linked_inside_its_bytes),
		cmocka_unit_test(a_question_cut_anywhere_is_refused_in_words),
		cmocka_unit_test(a_question_of_another_build_is_refused),
		cmocka_unit_test(an_answer_becomes_code_that_nobody_can_write),
		cmocka_unit_test(an_answer_of_any_other_length_is_refused),
		cmocka_unit_test(a_damaged_answer_is_refused_or_mapped_inside_its_pages),
		cmocka_unit_test(an_answer_for_another_program_is_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
