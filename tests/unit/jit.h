/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the template tier share: programs put together piece by piece, and the
 * comparison of all that can be seen of a run on it and on the interpreter.
 */
#ifndef TESTS_UNIT_JIT_H
#define TESTS_UNIT_JIT_H

#include "insns.h"
#if defined(__x86_64__)
#include "sbpf/jit_x86_64_emit.h"
#endif

#define MOVX(cls, d, s, bits) INSN((cls) | BPF_MOV | BPF_X, d, s, bits, 0)
#define WIN_BYTES             16384u
#define MAX_PROGRAM           16384u

static const uint64_t values[] = {
	0,
	1,
	2,
	7,
	10,
	31,
	32,
	63,
	64,
	0x7f,
	0x80,
	0xff,
	0x8000,
	0x7fffffff,
	0x80000000,
	0xffffffff,
	0x100000000,
	0xfffffffffffffff9,
	0xffffffffffffffff,
	0x7fffffffffffffff,
	0x8000000000000000,
	0xffffffff00000000,
	0x123456789abcdef0,
};
#define N_VALUES N_ELEMS(values)

/* ---- a program put together piece by piece ---- */

struct maker {
	struct sbpf_insn insns[MAX_PROGRAM];
	uint32_t n;
};

#define PUT(m, ...)                                                \
	do {                                                       \
		const struct sbpf_insn put_[] = {__VA_ARGS__};     \
		assert_true((m)->n + N_ELEMS(put_) < MAX_PROGRAM); \
		memcpy(&(m)->insns[(m)->n], put_, sizeof(put_));   \
		(m)->n += N_ELEMS(put_);                           \
	} while (0)

/* A register that is none of a, b and c. */
static inline unsigned int other_than(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int r = 9;

	while (r == a || r == b || r == c)
		r--;
	return r;
}

/* All registers hold something that a careless use of scratch registers would change. */
static inline void begin(struct maker *m)
{
	m->n = 0;
	for (unsigned int r = 0; r < 10; r++)
		PUT(m, LDDW(r, 0x1111111111111111u * r + 0x8000000180000001u));
}

/* Every register goes to the output, so whatever an instruction did to another one shows. */
static inline void end(struct maker *m)
{
	PUT(m, STORE(BPF_DW, 10, -8, 1), MOV32(1, OUT + WIN_BYTES - 128), STORE(BPF_DW, 1, 8, 2),
	    LOAD(BPF_DW, 2, 10, -8), STORE(BPF_DW, 1, 0, 2));
	for (unsigned int r = 3; r < 10; r++)
		PUT(m, STORE(BPF_DW, 1, 8 * r, r));
	PUT(m, EXIT);
}

/*
 * A loop over the inputs: dst and src are loaded from the pairs at IN; what put_body adds works on
 * them; both go to OUT.  Then all registers.
 */
static inline uint32_t begin_loop(struct maker *m, unsigned int dst, unsigned int src,
				  unsigned int at)
{
	uint32_t head;

	begin(m);
	PUT(m, MOV32(at, IN));
	head = m->n;
	if (src != dst)
		PUT(m, LOAD(BPF_DW, src, at, 8));
	PUT(m, LOAD(BPF_DW, dst, at, 0));
	return head;
}

static inline void end_loop(struct maker *m, uint32_t head, unsigned int dst, unsigned int src,
			    unsigned int at, uint32_t pairs)
{
	PUT(m, INSN(BPF_ALU64 | BPF_ADD | BPF_K, at, 0, 0, (int32_t)(OUT - IN)),
	    STORE(BPF_DW, at, 0, dst), STORE(BPF_DW, at, 8, src),
	    INSN(BPF_ALU64 | BPF_SUB | BPF_K, at, 0, 0, (int32_t)(OUT - IN)), ADD(at, 16),
	    /* IN is at 2 GiB: a 32-bit compare */
	    INSN(BPF_JMP32 | BPF_JNE | BPF_K, at, 0, (int16_t)(head - m->n - 6),
		 (int32_t)(IN + 16 * pairs)));
	end(m);
}

/* ---- both tiers ---- */

struct seen {
	int code;
	uint64_t r0, fuel, address;
	int32_t insn;
	uint8_t out[WIN_BYTES], in[WIN_BYTES], arg[SBPF_PAGE];
};

static inline void fill(uint8_t *p, size_t n)
{
	for (size_t k = 0; k < n; k++)
		p[k] = (uint8_t)(k * 37 + (k >> 8));
}

static inline void pairs_of_values(uint8_t *p)
{
	for (size_t a = 0; a < N_VALUES; a++)
		for (size_t b = 0; b < N_VALUES; b++, p += 16) {
			memcpy(p, &values[a], 8);
			memcpy(p + 8, &values[b], 8);
		}
}
_Static_assert(N_VALUES *N_VALUES * 16 + 128 <= WIN_BYTES, "all pairs fit");

static inline void run_on(struct sbpf_sandbox *sb, enum sbpf_tier tier, bool pairs,
			  struct seen *seen)
{
	struct sbpf_call call = a_call(tier, IN, 0x123456789abcdef0);
	struct sbpf_error err = {.insn = -1};
	uint8_t *in = sbpf_sandbox_ptr(sb, SBPF_WIN_IN), *out = sbpf_sandbox_ptr(sb, SBPF_WIN_OUT);
	uint8_t *arg = sbpf_sandbox_ptr(sb, SBPF_WIN_ARG);

	fill(in, WIN_BYTES);
	fill(arg, SBPF_PAGE);
	memset(out, 0xee, WIN_BYTES);
	if (pairs)
		pairs_of_values(in);
	call.fuel = 100000000;
	seen->code = sbpf_run(sb, &call, &err);
	seen->r0 = seen->code ? 0 : call.r0;
	seen->fuel = seen->code == -EFAULT ? 0 : call.fuel_used;
	seen->address = err.address;
	seen->insn = err.insn;
	memcpy(seen->in, in, WIN_BYTES);
	memcpy(seen->out, out, WIN_BYTES);
	memcpy(seen->arg, arg, SBPF_PAGE);
}

static inline void explain(void *arg, const char *line)
{
	fprintf(arg, "# %s\n", line);
}

/* Both tiers on the program; they must not differ.  The result is kept for further questions. */
static struct seen seen[2];

static inline void same_on_both(const struct maker *m, bool pairs)
{
	struct sbpf_program *prog = assemble(m->insns, m->n);
	struct sbpf_sandbox *sb = take(prog);

	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_IN, WIN_BYTES), 0);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_OUT, WIN_BYTES), 0);
	assert_int_equal(sbpf_sandbox_resize(sb, SBPF_WIN_ARG, SBPF_PAGE), 0);
	run_on(sb, SBPF_TIER_INTERP, pairs, &seen[0]);
	run_on(sb, SBPF_TIER_TEMPLATE, pairs, &seen[1]);
	if (memcmp(&seen[0], &seen[1], sizeof(seen[0]))) {
		sbpf_program_disasm(prog, explain, stderr);
		for (size_t k = 0; k < WIN_BYTES; k++)
			if (seen[0].out[k] != seen[1].out[k])
				fail_msg("output byte %zu is %02x, the interpreter's %02x", k,
					 seen[1].out[k], seen[0].out[k]);
		fail_msg("code %d instead of %d, address 0x%llx instead of 0x%llx", seen[1].code,
			 seen[0].code, (unsigned long long)seen[1].address,
			 (unsigned long long)seen[0].address);
	}
	sbpf_sandbox_put(sb);
	sbpf_program_unref(prog);
}

#if defined(__x86_64__)

/* ---- a machine without BMI2 and FSGSBASE ---- */

static inline int without_bmi2_and_fsgsbase(void **state)
{
	sbpf_x86_64_plain = true;
	return 0;
}

static inline int with_all_the_machine_has(void **state)
{
	sbpf_x86_64_plain = false;
	return 0;
}

#define ON_AN_OLD_MACHINE(f) \
	{#f "_on_an_old_machine", f, without_bmi2_and_fsgsbase, with_all_the_machine_has, NULL}

#endif /* x86-64 */

#endif /* TESTS_UNIT_JIT_H */
