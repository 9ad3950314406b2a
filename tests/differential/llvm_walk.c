/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that walk a pointer up to an end do on the LLVM tier what they do on the interpreter, wherever start and end are: also
 * where the pointer jumps over the end, past the largest number.  Each program is compiled once and run with many pairs.
 */
#include "insns.h"

#define FUEL 4000u

/* How a loop asks whether to go on: @code compares p with the end, or the end with p. */
static const struct {
	uint8_t op;
	bool swapped; /* the end comes first */
	bool leaves;  /* the jump leaves the loop */
} forms[] = {
	{BPF_JLT, false, false},  {BPF_JGT, true, false},  {BPF_JGE, false, true},
	{BPF_JLE, true, true},    {BPF_JLE, false, false}, {BPF_JNE, false, false},
	{BPF_JSLT, false, false},
};
static const int32_t steps[] = {1, 2, 8, 4096, 5000};

/* p and end around @n: the pairs that matter are where one jumps over the other. */
static const uint64_t around[] = {0,          0x7fffffff00000000, 1ull << 63,
				  0xffffffff, 0xfffffffffffff000, 0xffffffffffffe000,
				  0ull - 1};

enum {
	P = 6,
	END = 7,
	COUNT = 8,
	SUM = 9
};

/*
 * r0 = turns, then p and the sum at OUT.  The start and the end are the first two words at IN.  With @load the
 * loop sums the words that p points to.
 */
static struct sbpf_program *walk(size_t form, int32_t step, bool load)
{
	struct sbpf_insn insns[40] = {LOAD(BPF_DW, P, 1, 0), LOAD(BPF_DW, END, 1, 8), MOV(COUNT, 0),
				      MOV(SUM, 0)};
	unsigned int n = 4, head = n, dst = forms[form].swapped ? END : P;
	const struct sbpf_insn tail[] = {LDDW(1, 0), STORE(BPF_DW, 1, 0, P),
					 STORE(BPF_DW, 1, 8, SUM), MOVR(0, COUNT), EXIT};

	if (load) {
		insns[n++] = (struct sbpf_insn)LOAD(BPF_DW, 2, P, 0);
		insns[n++] = (struct sbpf_insn)ADDR(SUM, 2);
	}
	insns[n++] = (struct sbpf_insn)ADD(COUNT, 1);
	insns[n++] = (struct sbpf_insn)ADD(P, step);
	insns[n] = (struct sbpf_insn)INSN(BPF_JMP | forms[form].op | BPF_X, dst, dst == P ? END : P,
					  0, 0);
	if (forms[form].leaves) {
		insns[n++].off = 1;
		insns[n] = (struct sbpf_insn)JA((int16_t)((int)head - (int)n - 1));
	} else {
		insns[n].off = (int16_t)((int)head - (int)n - 1);
	}
	n++;
	memcpy(insns + n, tail, sizeof(tail));
	insns[n].imm = (int32_t)OUT;
	insns[n + 1].imm = (int32_t)(OUT >> 32);
	return assemble(insns, n + N_ELEMS(tail));
}

struct end {
	int64_t code;
	uint64_t r0, out[2];
};

static struct end run(struct sbpf_sandbox *sb, enum sbpf_tier tier, uint64_t start, uint64_t end)
{
	struct sbpf_call call = a_call(tier, IN, 0);
	uint64_t *in = sbpf_sandbox_ptr(sb, SBPF_WIN_IN), *out = sbpf_sandbox_ptr(sb, SBPF_WIN_OUT);
	struct end e = {0};

	in[0] = start;
	in[1] = end;
	out[0] = out[1] = 0;
	call.fuel = FUEL;
	e.code = sbpf_run(sb, &call, NULL);
	e.r0 = e.code ? 0 : call.r0;
	memcpy(e.out, out, sizeof(e.out));
	return e;
}

static unsigned int compared, faulted;

static void compare(struct sbpf_sandbox *sb, uint64_t start, uint64_t end)
{
	struct end want = run(sb, SBPF_TIER_INTERP, start, end), got;

	if (want.code == -ETIME) /* it takes this tier its time */
		return;
	got = run(sb, SBPF_TIER_LLVM, start, end);
	compared++;
	faulted += want.code == -EFAULT;
	if (memcmp(&want, &got, sizeof(want)) != 0)
		fail_msg("from %#llx to %#llx: interp %lld %#llx, llvm %lld %#llx",
			 (unsigned long long)start, (unsigned long long)end, (long long)want.code,
			 (unsigned long long)want.r0, (long long)got.code,
			 (unsigned long long)got.r0);
}

static void walk_everywhere(size_t form, int32_t step, bool load)
{
	struct sbpf_program *prog = walk(form, step, load);
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_error err;
	uint64_t *in;

	if (sbpf_program_compile(prog, SBPF_TIER_LLVM, NULL, &err))
		fail_msg("form %zu, step %d: %s", form, step, err.text);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, 16 * SBPF_PAGE), 0);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_OUT, SBPF_PAGE), 0);
	in = sbpf_sandbox_ptr(sb, SBPF_WIN_IN);
	for (unsigned int i = 2; i < 16 * SBPF_PAGE / 8; i++)
		in[i] = i * 0x9e3779b97f4a7c15u;
	for (size_t i = 0; !load && i < N_ELEMS(around); i++)
		for (int a = -3; a <= 3; a++)
			for (int b = -3; b <= 3; b++) {
				uint64_t s = (uint64_t)(int64_t)step;
				uint64_t end = around[i] + (uint64_t)(int64_t)b;

				compare(sb, around[i] + (uint64_t)(int64_t)a, end);
				compare(sb, end - 100 * s + (uint64_t)(int64_t)a, end);
			}
	for (uint64_t bytes = 0; load && bytes < 600; bytes += 24)
		compare(sb, IN + 16, IN + 16 + bytes);
	/* To the window's last bytes, over it, and to an end that cannot be reached. */
	for (uint64_t back = 0; load && back < 3; back++) {
		uint64_t last = IN + 16 * SBPF_PAGE;

		compare(sb, last - 50 * (uint64_t)step, last - 8 * back);
		compare(sb, last - 50 * (uint64_t)step, last + 64 * (uint64_t)step);
		compare(sb, last - 50 * (uint64_t)step, 0ull - 1 - back);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

static void numbers_walk_as_on_the_interpreter(void **state)
{
	for (size_t f = 0; f < N_ELEMS(forms); f++)
		for (size_t s = 0; s < N_ELEMS(steps); s++)
			walk_everywhere(f, steps[s], false);
	assert_true(compared > 5000);
}

static void pointers_walk_as_on_the_interpreter(void **state)
{
	compared = 0;
	for (size_t f = 0; f < N_ELEMS(forms); f++)
		walk_everywhere(f, 8, true);
	walk_everywhere(0, 24, true);
	assert_true(compared > 100 && faulted > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_walk_as_on_the_interpreter),
		cmocka_unit_test(pointers_walk_as_on_the_interpreter),
	};

	if (sbpf_tier_missing(SBPF_TIER_LLVM)) {
		printf("1..0 # SKIP %s\n", sbpf_tier_missing(SBPF_TIER_LLVM));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
