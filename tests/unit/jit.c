/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The template tier, opcode by opcode: on every pair of registers, with values at the edges, it
 * computes what the interpreter does, and leaves all other registers as they were.
 */
#include "jit.h"

static const int32_t imms[] = {
	0,   1,   2,    3,    4,   7,   8,     31,    32,        33,        48, 56, 63, 64,
	127, 128, -128, -129, 255, 256, 65535, 65536, INT32_MAX, INT32_MIN, -1, -2, -7, 10,
};
#define N_IMMS N_ELEMS(imms)

/* ---- arithmetic ---- */

static const uint8_t binary[] = {
	BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR,  BPF_AND,
	BPF_LSH, BPF_RSH, BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH,
};

/* A second opinion, so that the two tiers are not wrong together; unsigned only. */
static uint64_t reference(unsigned int cls, unsigned int op, uint64_t a, uint64_t b)
{
	unsigned int bits = cls == BPF_ALU64 ? 64 : 32;
	uint64_t mask = cls == BPF_ALU64 ? UINT64_MAX : UINT32_MAX, r;

	a &= mask;
	b &= mask;
	switch (op) {
	case BPF_ADD:
		r = a + b;
		break;
	case BPF_SUB:
		r = a - b;
		break;
	case BPF_MUL:
		r = a * b;
		break;
	case BPF_DIV:
		r = b ? a / b : 0;
		break;
	case BPF_MOD:
		r = b ? a % b : a;
		break;
	case BPF_OR:
		r = a | b;
		break;
	case BPF_AND:
		r = a & b;
		break;
	case BPF_XOR:
		r = a ^ b;
		break;
	case BPF_LSH:
		r = a << b % bits;
		break;
	case BPF_RSH:
		r = a >> b % bits;
		break;
	case BPF_ARSH:
		r = a >> b % bits;
		if (a >> (bits - 1) && b % bits)
			r |= mask << (bits - b % bits);
		break;
	default:
		r = b;
		break;
	}
	return r & mask;
}

static void check_reference(unsigned int cls, unsigned int op, bool same)
{
	for (size_t i = 0; i < N_VALUES * N_VALUES; i++) {
		uint64_t a = values[i / N_VALUES], b = same ? a : values[i % N_VALUES], got;

		memcpy(&got, &seen[1].out[16 * i], 8);
		if (got != reference(cls, op, a, b))
			fail_msg("class %u op 0x%x of 0x%llx and 0x%llx is 0x%llx", cls, op,
				 (unsigned long long)a, (unsigned long long)b,
				 (unsigned long long)got);
	}
}

static void binary_on(unsigned int cls, unsigned int op, int off)
{
	struct maker m;

	for (unsigned int dst = 0; dst < 10; dst++)
		for (unsigned int src = 0; src < 10; src++) {
			unsigned int at = other_than(dst, src, 99);
			uint32_t head = begin_loop(&m, dst, src, at);

			PUT(&m, INSN(cls | op | BPF_X, dst, src, off, 0));
			end_loop(&m, head, dst, src, at, N_VALUES * N_VALUES);
			same_on_both(&m, true);
			assert_int_equal(seen[1].code, 0);
			if (!off)
				check_reference(cls, op, dst == src);
		}
}

static void arithmetic_between_any_two_registers(void **state)
{
	for (size_t i = 0; i < N_ELEMS(binary); i++) {
		bool divides = binary[i] == BPF_DIV || binary[i] == BPF_MOD;

		for (int off = 0; off <= divides; off++) {
			binary_on(BPF_ALU, binary[i], off);
			binary_on(BPF_ALU64, binary[i], off);
		}
	}
}

static void arithmetic_with_any_constant(void **state)
{
	struct maker m;

	for (unsigned int k = 0; k < 2 * N_ELEMS(binary) * N_IMMS; k++) {
		unsigned int cls = k % 2 ? BPF_ALU : BPF_ALU64;
		unsigned int op = binary[k / 2 % N_ELEMS(binary)];
		int32_t imm = imms[k / 2 / N_ELEMS(binary)];
		bool divides = op == BPF_DIV || op == BPF_MOD;

		begin(&m);
		for (unsigned int dst = 0; dst < 10; dst++)
			for (int off = 0; off <= divides; off++)
				for (size_t v = 0; v < N_VALUES; v += 3) {
					unsigned int at = other_than(dst, 0, 0);
					uint32_t place = (dst * 2 + (uint32_t)off) * N_VALUES + v;

					PUT(&m, LDDW(dst, values[v]),
					    INSN(cls | op | BPF_K, dst, 0, off, imm),
					    MOV32(at, OUT + 8 * place), STORE(BPF_DW, at, 0, dst));
				}
		end(&m);
		same_on_both(&m, true);
		assert_int_equal(seen[1].code, 0);
	}
}

static void unary_on(unsigned int code, int off, int32_t imm)
{
	struct maker m;
	bool reads_src =
		code == (BPF_ALU | BPF_MOV | BPF_X) || code == (BPF_ALU64 | BPF_MOV | BPF_X);

	for (unsigned int dst = 0; dst < 10; dst++)
		for (unsigned int src = 0; src < (reads_src ? 10 : 1); src++) {
			unsigned int at = other_than(dst, src, 99);
			uint32_t head = begin_loop(&m, dst, src, at);

			PUT(&m, INSN(code, dst, reads_src ? src : 0, off, imm));
			end_loop(&m, head, dst, src, at, N_VALUES * N_VALUES);
			same_on_both(&m, true);
			assert_int_equal(seen[1].code, 0);
		}
}

static void moves_negations_and_swaps(void **state)
{
	for (int bits = 8; bits <= 32; bits *= 2) {
		unary_on(BPF_ALU64 | BPF_MOV | BPF_X, bits, 0);
		if (bits < 32)
			unary_on(BPF_ALU | BPF_MOV | BPF_X, bits, 0);
	}
	unary_on(BPF_ALU | BPF_NEG, 0, 0);
	unary_on(BPF_ALU64 | BPF_NEG, 0, 0);
	for (int bits = 16; bits <= 64; bits *= 2) {
		unary_on(BPF_ALU | BPF_END | BPF_K, 0, bits);
		unary_on(BPF_ALU | BPF_END | BPF_X, 0, bits);
		unary_on(BPF_ALU64 | BPF_END, 0, bits);
	}
}

/*
 * dst = src (32 or 64 bits) or dst <<= n, and one more: what the JIT may make one instruction of.
 */
static void fused_on(struct sbpf_insn first, struct sbpf_insn second, struct sbpf_insn third)
{
	static const unsigned int regs[] = {0, 1, 3, 4, 7, 9};
	struct maker m;

	for (size_t d = 0; d < N_ELEMS(regs); d++)
		for (size_t s = 0; s < N_ELEMS(regs); s++) {
			unsigned int dst = regs[d], src = regs[s], at = other_than(dst, src, 99);
			uint32_t head = begin_loop(&m, dst, src, at);

			first.dst = second.dst = third.dst = dst & 15;
			first.src = BPF_SRC(first.code) ? src & 15 : 0;
			second.src = BPF_SRC(second.code) ? src & 15 : 0;
			PUT(&m, first, second, third);
			end_loop(&m, head, dst, src, at, N_VALUES * N_VALUES);
			same_on_both(&m, true);
		}
}

static void fused_neighbours(void **state)
{
	static const int32_t few[] = {1, 3, 32, 48, 255, 65535, -128, INT32_MIN};
	const struct sbpf_insn nothing = INSN(BPF_ALU64 | BPF_ADD | BPF_K, 0, 0, 0, 0);

	for (unsigned int wide = 0; wide < 4; wide++) {
		unsigned int c1 = wide & 1 ? BPF_ALU : BPF_ALU64;
		unsigned int c2 = wide & 2 ? BPF_ALU : BPF_ALU64;
		const struct sbpf_insn copy = INSN(c1 | BPF_MOV | BPF_X, 0, 0, 0, 0);

		for (size_t i = 0; i < N_ELEMS(binary); i++) {
			const struct sbpf_insn x = INSN(c2 | binary[i] | BPF_X, 0, 0, 0, 0);

			fused_on(copy, x, nothing);
			for (size_t k = 0; k < N_ELEMS(few); k++) {
				const struct sbpf_insn y =
					INSN(c2 | binary[i] | BPF_K, 0, 0, 0, few[k]);

				fused_on(copy, y, nothing);
			}
		}
	}
	for (int shift = 8; shift < 64; shift += 8) {
		const struct sbpf_insn up = INSN(BPF_ALU64 | BPF_LSH | BPF_K, 0, 0, 0, shift);
		const struct sbpf_insn down = INSN(BPF_ALU64 | BPF_RSH | BPF_K, 0, 0, 0, shift);
		const struct sbpf_insn sign = INSN(BPF_ALU64 | BPF_ARSH | BPF_K, 0, 0, 0, shift);
		const struct sbpf_insn copy = INSN(BPF_ALU64 | BPF_MOV | BPF_X, 0, 0, 0, 0);
		const struct sbpf_insn copy_32 = INSN(BPF_ALU | BPF_MOV | BPF_X, 0, 0, 0, 0);

		fused_on(up, down, nothing);
		fused_on(up, sign, nothing);
		fused_on(copy, up, down);
		fused_on(copy, up, sign);
		fused_on(copy_32, up, down);
		fused_on(copy_32, up, sign);
	}
}

/*
 * A 32-bit move of a register to itself costs nothing where the upper half is known to be zero: one
 * after each instruction, with either half known or not before it.
 */
static void truncated_after(struct sbpf_insn insn)
{
	struct maker m;

	for (unsigned int known = 0; known < 4; known++) {
		uint32_t head = begin_loop(&m, 3, 4, 9);

		if (known & 1)
			PUT(&m, MOVX(BPF_ALU, 3, 3, 0));
		if (known & 2)
			PUT(&m, MOVX(BPF_ALU, 4, 4, 0));
		/* the stores end any fusing */
		PUT(&m, STOREI(BPF_B, 10, -8, 0), insn, STOREI(BPF_B, 10, -8, 0),
		    MOVX(BPF_ALU, 3, 3, 0), STOREI(BPF_B, 10, -8, 0), MOVX(BPF_ALU, 4, 4, 0));
		end_loop(&m, head, 3, 4, 9, N_VALUES * N_VALUES);
		same_on_both(&m, true);
	}
}

static void what_is_known_of_upper_halves_is_true(void **state)
{
	for (unsigned int cls = BPF_ALU; cls <= BPF_ALU64; cls += BPF_ALU64 - BPF_ALU) {
		for (size_t i = 0; i < N_ELEMS(binary); i++) {
			truncated_after(
				(struct sbpf_insn)INSN(cls | binary[i] | BPF_X, 3, 4, 0, 0));
			for (size_t k = 0; k < N_IMMS; k++)
				truncated_after((struct sbpf_insn)INSN(cls | binary[i] | BPF_K, 3,
								       0, 0, imms[k]));
		}
		for (int bits = 8; bits <= (cls == BPF_ALU ? 16 : 32); bits *= 2)
			truncated_after((struct sbpf_insn)MOVX(cls, 3, 4, bits));
		for (int bits = 16; bits <= 64; bits *= 2)
			truncated_after((struct sbpf_insn)INSN(cls | BPF_END, 3, 0, 0, bits));
		truncated_after((struct sbpf_insn)INSN(cls | BPF_NEG, 3, 0, 0, 0));
	}
	for (int size = 0; size <= BPF_DW; size += BPF_H) {
		truncated_after((struct sbpf_insn)LOAD(size, 3, 9, 0));
		if (size != BPF_DW)
			truncated_after(
				(struct sbpf_insn)INSN(BPF_LDX | BPF_MEMSX | size, 3, 9, 0, 0));
	}
	for (int size = BPF_W; size <= BPF_DW; size += BPF_DW - BPF_W) {
		truncated_after((struct sbpf_insn)ATOMIC(size, 9, 0, 4, BPF_ADD | BPF_FETCH));
		truncated_after((struct sbpf_insn)ATOMIC(size, 9, 0, 4, BPF_XCHG));
		truncated_after((struct sbpf_insn)ATOMIC(size, 9, 0, 4, BPF_ADD));
	}
}

/* ---- jumps ---- */

static const uint8_t conditions[] = {
	BPF_JEQ,  BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE,  BPF_JSGT,
	BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE,
};

/*
 * The condition three ways: a jump forward over two instructions, over one move (64-bit, 32-bit and
 * of a constant, which become conditional moves), and backwards.
 */
static void put_jumps(struct maker *m, struct sbpf_insn jump, unsigned int res, unsigned int other)
{
	struct sbpf_insn over_1 = jump, over_2 = jump, back = jump;

	over_1.off = 1;
	over_2.off = 2;
	back.off = -3;
	PUT(m, MOV(res, 0), over_2, ADD(res, 1), ADD(res, 1)); /* plain */
	PUT(m, over_1, MOV(res, 16));                          /* a constant */
	PUT(m, over_1, MOVR(res, other));                      /* 64 bits */
	PUT(m, INSN(BPF_ALU | BPF_ADD | BPF_K, res, 0, 0, 5), over_1,
	    INSN(BPF_ALU | BPF_MOV | BPF_X, res, other, 0, 0)); /* 32, upper half zero */
	PUT(m, LDDW(res, 0xabcdef0123456789), over_1,
	    INSN(BPF_ALU | BPF_MOV | BPF_X, res, other, 0, 0)); /* 32, it is not */
	PUT(m, JA(2), ADD(res, 3), JA(1), back, ADD(res, 64));  /* backwards */
}

static void jumps_on(struct sbpf_insn jump, unsigned int dst, unsigned int src)
{
	unsigned int at = other_than(dst, src, 99), res = other_than(dst, src, at), keep = res - 1;
	struct maker m;
	uint32_t head = begin_loop(&m, dst, src, at);

	while (keep == dst || keep == src)
		keep--;
	jump.dst = dst & 15;
	jump.src = BPF_SRC(jump.code) ? src & 15 : 0;
	put_jumps(&m, jump, res, keep);
	PUT(&m, ADDR(keep, res), ADDR(keep, keep), MOVR(dst, keep));
	end_loop(&m, head, dst, src, at, N_VALUES * N_VALUES);
	same_on_both(&m, true);
	assert_int_equal(seen[1].code, 0);
}

static void conditions_on_any_two_registers(void **state)
{
	for (size_t i = 0; i < N_ELEMS(conditions); i++)
		for (unsigned int dst = 0; dst < 10; dst++)
			for (unsigned int src = 0; src < 10; src++)
				for (unsigned int cls = BPF_JMP; cls <= BPF_JMP32; cls++)
					jumps_on((struct sbpf_insn)INSN(cls | conditions[i] | BPF_X,
									0, 0, 0, 0),
						 dst, src);
}

static void conditions_on_any_constant(void **state)
{
	for (size_t i = 0; i < N_ELEMS(conditions); i++)
		for (size_t k = 0; k < N_IMMS; k++)
			for (unsigned int cls = BPF_JMP; cls <= BPF_JMP32; cls++)
				for (unsigned int dst = 0; dst < 10; dst += 3)
					jumps_on((struct sbpf_insn)INSN(cls | conditions[i] | BPF_K,
									0, 0, 0, imms[k]),
						 dst, 8);
}

/* A jump to zero reuses the flags of the operation before it, where they tell the same. */
static void flags_are_of_the_right_width(void **state)
{
	static const uint8_t ops[] = {BPF_ADD, BPF_SUB, BPF_OR,  BPF_AND,
				      BPF_XOR, BPF_LSH, BPF_RSH, BPF_NEG};
	struct maker m;

	for (unsigned int k = 0; k < N_ELEMS(ops) * 4 * N_ELEMS(conditions); k++) {
		unsigned int op = ops[k % N_ELEMS(ops)], rest = k / N_ELEMS(ops);
		unsigned int cls = rest & 1 ? BPF_ALU : BPF_ALU64;
		unsigned int jmp = rest & 2 ? BPF_JMP32 : BPF_JMP;
		uint32_t head = begin_loop(&m, 3, 4, 9);

		if (op == BPF_NEG)
			PUT(&m, INSN(cls | op, 3, 0, 0, 0));
		else
			PUT(&m, INSN(cls | op | BPF_X, 3, 4, 0, 0));
		PUT(&m, INSN(jmp | conditions[rest / 4] | BPF_K, 3, 0, 2, 0), MOV(3, 1), JA(1),
		    MOV(3, 2));
		end_loop(&m, head, 3, 4, 9, N_VALUES * N_VALUES);
		same_on_both(&m, true);

		head = begin_loop(&m, 3, 4, 9);
		PUT(&m, INSN(cls | (op == BPF_NEG ? BPF_ADD : op) | BPF_K, 3, 0, 0, 1),
		    INSN(jmp | conditions[rest / 4] | BPF_K, 3, 0, 2, 0), MOV(3, 1), JA(1),
		    MOV(3, 2));
		end_loop(&m, head, 3, 4, 9, N_VALUES * N_VALUES);
		same_on_both(&m, true);
	}
}

/* 4 * n + {0, 2, 3, 5} bytes of code, each instruction of which shows if it runs or not */
static uint32_t put_filler(struct maker *m, unsigned int n, unsigned int extra)
{
	uint32_t before = m->n;

	for (unsigned int i = 0; i < n; i++)
		PUT(m, ADD(2, (int32_t)i + 1));
	if (extra & 1)
		PUT(m, MOV(1, 0));
	if (extra & 2)
		PUT(m, INSN(BPF_ALU | BPF_ADD | BPF_K, 1, 0, 0, 3));
	return m->n - before;
}

/*
 * Short jumps reach 127 bytes forward and 128 back; a loop in between, which is aligned, must not
 * break one.
 */
static void put_distance(struct maker *m, bool inner_loop, struct sbpf_insn forward, unsigned int k)
{
	uint32_t head, at;

	PUT(m, MOV(6, 3), MOV(7, 0));
	head = m->n;
	put_filler(m, k / 4, k % 4);
	PUT(m, ADD(6, -1), JNE(6, 0, (int16_t)(head - m->n - 2)));
	at = m->n;
	PUT(m, forward);
	if (inner_loop)
		PUT(m, ADD(7, 1), INSN(BPF_JMP | BPF_JSET | BPF_K, 7, 0, -2, 7));
	put_filler(m, k / 4, k % 4);
	m->insns[at].off = (int16_t)(m->n - at - 1);
	PUT(m, ADD(2, 1000));
}

static void jumps_over_any_distance(void **state)
{
	static const struct sbpf_insn forward[] = {JA(0), JEQ(6, 0, 0)};
	struct maker m;

	for (unsigned int kind = 0; kind < 4; kind++)
		for (unsigned int k = 0; k < 4 * 40; k++) {
			begin(&m);
			put_distance(&m, kind >> 1, forward[kind & 1], k);
			end(&m);
			same_on_both(&m, false);
			assert_int_equal(seen[1].code, 0);
		}
}

/* ---- memory ---- */

static const uint8_t sizes[] = {BPF_B, BPF_H, BPF_W, BPF_DW};

/* Each kind of access at bytes of its own; what is loaded goes to slot @slot of OUT. */
static void access_on(struct maker *m, unsigned int base, unsigned int reg, int off, unsigned int k,
		      unsigned int slot)
{
	uint64_t address = IN + 64 + 16 * k;
	unsigned int at = other_than(base, reg, 99);

	PUT(m, LDDW(base, (address - (uint64_t)(int64_t)off) | 0xabcd1234ull << 32));
	if (base != reg)
		PUT(m, LDDW(reg, 0x8877665544332211 + k));
	switch (k / 4) {
	case 0:
		PUT(m, STORE(sizes[k], base, off, reg));
		break;
	case 1:
		PUT(m, STOREI(sizes[k % 4], base, off, -2 - (int32_t)reg));
		break;
	case 2:
		PUT(m, LOAD(sizes[k % 4], reg, base, off));
		break;
	default:
		PUT(m, INSN(BPF_LDX | BPF_MEMSX | sizes[k % 3], reg, base, off, 0));
		break;
	}
	PUT(m, MOV32(at, OUT + 8 * slot), STORE(BPF_DW, at, 0, reg));
}

static void loads_and_stores_of_any_size_register_and_offset(void **state)
{
	static const int offs[] = {0, 1, -1, 127, 128, -128, -129, 32767, -32768};
	struct maker m;

	for (unsigned int base = 0; base < 10; base++)
		for (unsigned int reg = 0; reg < 10; reg++) {
			begin(&m);
			for (unsigned int k = 0; k < 16; k++)
				for (size_t o = 0; o < N_ELEMS(offs); o++)
					access_on(&m, base, reg, offs[o], k, k * N_ELEMS(offs) + o);
			end(&m);
			same_on_both(&m, false);
			assert_int_equal(seen[1].code, 0);
		}
}

/* Where an address is cut to 32 bits, at the space's two ends, and what a fault there reports. */
static void addresses_wrap_at_4_gib(void **state)
{
	static const struct {
		uint64_t reg;
		int off;
		uint64_t fault;
	} rows[] = {
		{0, 0, 0},
		{0, 96, 96},
		{0, -8, 0xfffffff8},
		{0, -4, 0xfffffffc},
		{0xfffffffc, 0, 0xfffffffc},
		{0xffffffff, 1, 0},
		{0xffffffffffffffff, 9, 8},
		{0x7fffffffffffffff, 32767, 32766},
		{0xdeadbeef00000000, 24, 24},
		{0xfffffff0, 32767, 32751},
	};

	for (size_t i = 0; i < N_ELEMS(rows); i++)
		for (unsigned int k = 0; k < 8; k++) {
			bool byte = k >> 1 & 1, in_loop = k >> 2;
			struct maker m;

			begin(&m);
			PUT(&m, LDDW(3, rows[i].reg));
			if (k % 2)
				PUT(&m, STORE(byte ? BPF_B : BPF_DW, 3, rows[i].off, 4));
			else
				PUT(&m, LOAD(byte ? BPF_B : BPF_DW, 4, 3, rows[i].off));
			if (in_loop) /* offsets in loops may be kept ready */
				PUT(&m, JNE(3, 0, -2));
			end(&m);
			same_on_both(&m, false);
			assert_int_equal(seen[1].code, -EFAULT);
			assert_int_equal(seen[1].insn, 22);
			assert_int_equal(seen[1].address, rows[i].fault);
		}
}

static void a_fault_names_its_instruction(void **state)
{
	struct maker m;

	/* wherever it stands, among code that is fused, dropped, aligned or long */
	for (unsigned int n = 0; n < 30; n++) {
		begin(&m);
		PUT(&m, MOV(3, 0), MOV32(9, IN));
		for (unsigned int i = 0; i < 30; i++) {
			if (i == n)
				PUT(&m, LOAD(BPF_B, 4, 3, 77));
			PUT(&m, MOVR(5, 6), ADD(5, 1), ADD(7, 0), LOAD(BPF_DW, 6, 9, 0),
			    INSN(BPF_ALU64 | BPF_DIV | BPF_X, 5, 6, 1, 0),
			    INSN(BPF_JMP | BPF_JEQ | BPF_K, 5, 0, 1, 5), MOV(5, 6));
		}
		end(&m);
		same_on_both(&m, false);
		assert_int_equal(seen[1].code, -EFAULT);
		assert_int_equal(seen[1].insn, 22 + 7 * n);
		assert_int_equal(seen[1].address, 77);
	}
}

static void atomics_on_any_registers(void **state)
{
	static const int32_t ops[] = {
		BPF_ADD,
		BPF_OR,
		BPF_AND,
		BPF_XOR,
		BPF_ADD | BPF_FETCH,
		BPF_OR | BPF_FETCH,
		BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH,
		BPF_XCHG,
		BPF_CMPXCHG,
	};
	struct maker m;

	for (unsigned int base = 0; base < 10; base++)
		for (unsigned int reg = 0; reg < 10; reg++) {
			begin(&m);
			for (unsigned int k = 0; k < N_ELEMS(ops) * 2; k++) {
				unsigned int size = k % 2 ? BPF_W : BPF_DW;

				/*
				 * misaligned, across a cache line, at times where r0 (or its half)
				 * matches
				 */
				PUT(&m, LDDW(reg, 0x8877665544332211 + k));
				if (k % 3 && base != 0)
					PUT(&m, MOV32(base, IN + 61), LOAD(BPF_DW, 0, base, 0));
				PUT(&m, MOV32(base, IN + 61),
				    ATOMIC(size, base, 0, reg, ops[k / 2]));
				if (base && base != reg) /* else it may be the old value by now */
					PUT(&m, STORE(BPF_DW, base, 64 + 16 * (int)k, 0),
					    ATOMIC(size, base, 4096, reg, ops[k / 2]));
			}
			end(&m);
			same_on_both(&m, false);
			assert_int_equal(seen[1].code, 0);
		}
}

static void atomics_need_a_page_they_may_write(void **state)
{
	static const int32_t ops[] = {BPF_ADD, BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG};
	struct maker m;

	for (size_t i = 0; i < N_ELEMS(ops); i++)
		for (int at = -16; at < 8; at++) {
			begin(&m);
			PUT(&m, MOV32(3, sbpf_window_offset(SBPF_WIN_ARG) + SBPF_PAGE),
			    ATOMIC(BPF_DW, 3, at, 4, ops[i]));
			end(&m);
			same_on_both(&m, false);
			assert_int_equal(seen[1].code, -EFAULT);
			assert_int_equal(
				seen[1].address & ~7ull,
				sbpf_window_offset(SBPF_WIN_ARG) + SBPF_PAGE +
					(uint64_t)(int64_t)(at < -7 ? at & ~7
								    : at & ~7 & (at < 0 ? 0 : ~0)));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arithmetic_between_any_two_registers),
		cmocka_unit_test(arithmetic_with_any_constant),
		cmocka_unit_test(moves_negations_and_swaps),
		cmocka_unit_test(fused_neighbours),
		cmocka_unit_test(what_is_known_of_upper_halves_is_true),
		cmocka_unit_test(conditions_on_any_two_registers),
		cmocka_unit_test(conditions_on_any_constant),
		cmocka_unit_test(flags_are_of_the_right_width),
		cmocka_unit_test(jumps_over_any_distance),
		cmocka_unit_test(loads_and_stores_of_any_size_register_and_offset),
		cmocka_unit_test(addresses_wrap_at_4_gib),
		cmocka_unit_test(a_fault_names_its_instruction),
		cmocka_unit_test(atomics_on_any_registers),
		cmocka_unit_test(atomics_need_a_page_they_may_write),
#if defined(__x86_64__)
		ON_AN_OLD_MACHINE(arithmetic_between_any_two_registers),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
