/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_aarch64.c - the template tier for aarch64: jumps, calls, fuel, entering and leaving the code.
 *
 * Registers and encodings are in jit_aarch64_emit.h, straight-line code in jit_aarch64_insn.c, what
 * is the same on every architecture in jit_common.c; docs/jit.md tells how it all fits together.
 *
 * What the code relies on: verify.c accepted the program; x28 is the sandbox, x26 that plus r10, x24
 * the struct sbpf_exec, x23 the fuel left of this slice.
 */
#include <sys/auxv.h>
#include <sys/mman.h>

#include "sbpf/jit_aarch64_emit.h"

#define HWCAP2_HAS_BTI (1u << 17) /* <asm/hwcap.h> */
#define RIGHT_BTI      0x10       /* <asm/mman.h>: PROT_BTI */

#define ZERO_UNROLLED 256u /* bytes of frame zeroed without a loop */
/*
 * Conditional branches reach 1 MiB; no instruction takes more than 128 bytes with its alignment and
 * its stub, so in functions up to this size they reach everything.
 */
#define NEAR_INSNS 8192u

const uint32_t jit_arch_loop_align = 32; /* what cores fetch at once */
const uint8_t jit_arch_filler = 0;       /* udf */
const uint32_t jit_arch_stub_bytes = 20;

static bool is_far(const struct jit *j)
{
	const struct sbpf_func *func = &j->prog->funcs[j->func];

	return func->end - func->start > NEAR_INSNS;
}

/* ---- leaving a function ---- */

/* What the function saves, in pairs of one 16-byte slot each: lr if it calls, and those of r6 to r9
 * that it writes. */
static unsigned int saved(const struct jit *j, uint8_t regs[5])
{
	unsigned int n = 0;

	if (j->func_flags[j->func] & JIT_FUNC_CALLS)
		regs[n++] = A64_LR;
	for (unsigned int i = 0; i < 4; i++)
		if (j->prog->funcs[j->func].writes >> i & 1)
			regs[n++] = jit_host[6 + i];
	return n;
}

/* An odd one is saved together with zr, which costs nothing. */
static unsigned int second(const uint8_t *regs, unsigned int n, unsigned int i)
{
	return i + 1 < n ? regs[i + 1] : A64_ZR;
}

void jit_arch_leave(struct jit *j)
{
	uint8_t regs[5];
	unsigned int n = saved(j, regs);

	for (unsigned int i = (n + 1) & ~1u; i > 2; i -= 2)
		a64_pair(j, A64_LDP, regs[i - 2], second(regs, n, i - 2), A64_SP,
			 8 * (int32_t)(i - 2));
	if (n)
		a64_pair(j, A64_LDP_POST, regs[0], second(regs, n, 0), A64_SP,
			 8 * (int32_t)((n + 1) & ~1u));
	if (j->func_flags[j->func] & JIT_FUNC_CALLS)
		jit_4(j, A64_AUTIASP);
	jit_4(j, A64_RET | A64_LR << 5);
}

uint32_t jit_arch_leave_bytes(const struct jit *j)
{
	uint8_t regs[5];

	return 4 * ((saved(j, regs) + 1) / 2 + !!(j->func_flags[j->func] & JIT_FUNC_CALLS) + 1);
}

/* ---- jumps ---- */

static void jump_if(struct jit *j, unsigned int cc, uint32_t to)
{
	if (is_far(j)) {
		a64_b_short(j, A64_B_CC | (cc ^ 1u), jit_here(j) + 8);
		a64_b(j, false, to);
	} else {
		a64_b_short(j, A64_B_CC | cc, to);
	}
}

/* Jumps that look at a register rather than at flags: the instruction, 0 if it is none of them. */
static uint32_t zero_test(const struct sbpf_insn *insn, bool taken)
{
	unsigned int op = BPF_OP(insn->code);
	bool w = BPF_CLASS(insn->code) == BPF_JMP;

	if ((op != BPF_JEQ && op != BPF_JNE) || BPF_SRC(insn->code) == BPF_X || insn->imm)
		return 0;
	return ((op == BPF_JEQ) == taken ? A64_CBZ : A64_CBNZ) | a64_sf(w) | jit_host[insn->dst];
}

/* ---- fuel ---- */

static void two_halves(struct jit *j, unsigned int dst, uint32_t v)
{
	a64_move_wide(j, false, 2, dst, v, 0);
	a64_move_wide(j, false, 3, dst, v, 1);
}

static void add_cost(struct jit *j, enum a64_op op, uint32_t cost)
{
	if (a64_is_imm12(cost)) {
		a64_rri(j, true, op, A64_FUEL, A64_FUEL, cost);
	} else {
		two_halves(j, A64_TMP, cost);
		a64_rrr(j, true, op, A64_FUEL, A64_FUEL, A64_TMP);
	}
}

/* The carry flag then tells that there was enough. */
static void charge(struct jit *j, uint32_t cost)
{
	add_cost(j, A64_SUBS, cost);
}

void jit_arch_stub(struct jit *j, uint32_t pc, uint32_t resume)
{
	two_halves(j, A64_TMP, pc);
	a64_mov(j, true, A64_TMP2, A64_LR);
	a64_b(j, true, j->refuel_at);
	a64_b(j, false, resume);
}

uint32_t jit_arch_charged_bytes(const struct jit *j, uint32_t cost)
{
	return 4 * ((a64_is_imm12(cost) ? 1u : 3u) + 1 + is_far(j));
}

/* A taken jump backwards. */
static void back_edge(struct jit *j, uint32_t pc, uint32_t target)
{
	charge(j, sbpf_back_edge_cost(pc, target));
	jump_if(j, A64_HS, jit_place_of(j, target));
	a64_b(j, false, jit_next_stub(j));
}

static bool is_back_edge(const struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];

	return sbpf_is_jump(insn) && sbpf_jump_target(insn, pc) <= pc;
}

/* ---- conditional back edges ---- */

/*
 * A loop's closing condition takes three instructions rather than four where the comparison itself is
 * made conditional on the fuel: subs, ccmp, b.cc.  Falling through then costs more, so it is not
 * done where the loop goes on that way as well.
 */
static bool is_closing(const struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint32_t end = j->prog->funcs[j->func].end;

	if (!is_back_edge(j, pc) || BPF_OP(insn->code) == BPF_JA ||
	    BPF_OP(insn->code) == BPF_JSET || zero_test(insn, true) || is_far(j))
		return false;
	for (uint32_t next = pc + 1; next < end && next <= pc + 2; next++)
		if (!(j->prog->insn_flags[next] & SBPF_INSN_TAIL) && is_back_edge(j, next) &&
		    BPF_OP(j->prog->insns[next].code) == BPF_JA)
			return false;
	return true;
}

static bool fits_ccmp(const struct sbpf_insn *insn)
{
	return BPF_SRC(insn->code) == BPF_X || (insn->imm > -32 && insn->imm < 32);
}

static void keep(struct jit *j, int32_t value, bool is_base)
{
	if (j->n_consts < JIT_CONSTS && !a64_kept(j, value, is_base))
		j->consts[j->n_consts++] = (struct jit_const){value, is_base};
}

static bool is_access(const struct sbpf_insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_LDX || BPF_CLASS(insn->code) == BPF_ST ||
	       BPF_CLASS(insn->code) == BPF_STX;
}

/*
 * Functions that call nothing have registers to spare for what their loops use: constants of closing
 * conditions, and the base plus the offset of an access.
 */
static void choose_consts(struct jit *j)
{
	const struct sbpf_func *func = &j->prog->funcs[j->func];
	uint32_t pc = func->start, end = func->end;

	j->n_consts = 0;
	if (j->func_flags[j->func] & JIT_FUNC_CALLS)
		return;
	while (pc < end && !(j->prog->insn_flags[pc] & SBPF_INSN_LOOP))
		pc++;
	while (pc < end && !is_back_edge(j, end - 1))
		end--;
	for (; pc < end; pc++) {
		const struct sbpf_insn *insn = &j->prog->insns[pc];
		unsigned int base = BPF_CLASS(insn->code) == BPF_LDX ? insn->src : insn->dst;

		if (j->prog->insn_flags[pc] & SBPF_INSN_TAIL)
			continue;
		if (is_access(insn) && base != 10 && insn->off && insn->off > -4096 &&
		    insn->off < 4096)
			keep(j, insn->off, true);
		else if (is_closing(j, pc) && !fits_ccmp(insn))
			keep(j, insn->imm, false);
	}
}

static void load_consts(struct jit *j)
{
	for (unsigned int i = 0; i < j->n_consts; i++) {
		int32_t v = j->consts[i].value;

		if (!j->consts[i].is_base)
			a64_const(j, A64_CONST + i, (uint64_t)(int64_t)v);
		else
			a64_rri(j, true, v < 0 ? A64_SUB : A64_ADD, A64_CONST + i, A64_BASE,
				(uint32_t)(v < 0 ? -v : v));
	}
}

/* Compare if the flags say that there was fuel, else make the condition false. */
static void compare_if_fuel(struct jit *j, const struct sbpf_insn *insn, unsigned int cc)
{
	static const uint8_t false_flags[16] = {
		[A64_NE] = 4, [A64_LO] = 2, [A64_LS] = 2, [A64_GE] = 8, [A64_GT] = 4};
	uint32_t rest = a64_sf(BPF_CLASS(insn->code) == BPF_JMP) | A64_HS << 12 |
			(uint32_t)jit_host[insn->dst] << 5 | false_flags[cc];
	int32_t imm = insn->imm;

	if (BPF_SRC(insn->code) == BPF_X)
		jit_4(j, A64_CCMP | rest | (uint32_t)jit_host[insn->src] << 16);
	else if (!fits_ccmp(insn))
		jit_4(j, A64_CCMP | rest | a64_operand(j, true, imm) << 16);
	else
		jit_4(j, (imm < 0 ? A64_CCMN : A64_CCMP) | rest | 0x800u |
				 (uint32_t)(imm < 0 ? -imm : imm) << 16);
}

static void closing_jump(struct jit *j, uint32_t pc, uint32_t target)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint32_t cost = sbpf_back_edge_cost(pc, target);
	unsigned int cc = a64_condition(insn);
	uint8_t *had_fuel;

	charge(j, cost);
	compare_if_fuel(j, insn, cc);
	jump_if(j, cc, jit_place_of(j, target));
	had_fuel = a64_skip(j, 0xb6000000u | 31u << 19 | A64_FUEL); /* tbz x23, #63 */
	jump_if(j, a64_compare(j, insn), jit_next_stub(j));
	a64_land(j, had_fuel);
	add_cost(j, A64_ADD, cost);
}

/* ---- control flow ---- */

static void conditional_jump(struct jit *j, uint32_t pc, uint32_t target)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint32_t test = zero_test(insn, true);
	uint8_t *skip;

	if (target > pc && test && !is_far(j)) {
		a64_b_short(j, test, jit_place_of(j, target));
	} else if (target > pc) {
		jump_if(j, a64_compare(j, insn), jit_place_of(j, target));
	} else if (is_closing(j, pc) && (fits_ccmp(insn) || a64_kept(j, insn->imm, false))) {
		closing_jump(j, pc, target);
	} else {
		skip = a64_skip(j, test ? zero_test(insn, false)
					: A64_B_CC | (a64_compare(j, insn) ^ 1u));
		back_edge(j, pc, target);
		a64_land(j, skip);
	}
}

/* Returns the instructions eaten. */
static uint32_t jump(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint32_t target = (uint32_t)sbpf_jump_target(insn, pc), n, test;

	if (target == pc + 1)
		return 1;
	if (BPF_OP(insn->code) == BPF_JA) {
		if (target <= pc)
			back_edge(j, pc, target);
		else if (jit_is_exit(j, target))
			jit_arch_leave(j);
		else
			a64_b(j, false, j->at[target]);
		return 1;
	}
	n = a64_conditional(j, pc);
	if (n)
		return n;
	if (target == pc + 2 && jit_is_exit(j, pc + 1)) {
		test = zero_test(insn, false);
		if (test && !is_far(j))
			a64_b_short(j, test, j->cold_at[j->func]);
		else
			jump_if(j, a64_compare(j, insn) ^ 1u, j->cold_at[j->func]);
		return 2;
	}
	conditional_jump(j, pc, target);
	return 1;
}

/* Registers of @mask that nobody wrote, where that may be seen. */
static void zero_unset(struct jit *j, uint32_t mask)
{
	for (unsigned int r = 0; j->prog->zero_unset && r < 10; r++)
		if (mask >> r & 1)
			a64_const(j, jit_host[r], 0);
}

/* Each stub jumps to a C function: refuelling first, then the helpers that the program uses. */
#define HELPER_BYTES 16u

static uint32_t helper_at(const struct jit *j, unsigned int id)
{
	uint64_t before = j->prog->helpers & ((1ull << id) - 1);

	return j->helpers_at + HELPER_BYTES * (1 + (uint32_t)__builtin_popcountll(before));
}

static void helper_call(struct jit *j, const struct sbpf_insn *insn, uint32_t pc)
{
	two_halves(j, A64_TMP, pc);
	a64_field(j, false, false, A64_TMP, A64_EXEC, offsetof(struct sbpf_exec, pc));
	a64_field(j, true, false, A64_FUEL, A64_EXEC, offsetof(struct sbpf_exec, fuel));
	a64_mov(j, true, 0, A64_EXEC);
	a64_b(j, true, helper_at(j, (unsigned int)insn->imm));
	a64_field(j, true, true, A64_FUEL, A64_EXEC, offsetof(struct sbpf_exec, fuel));
	zero_unset(j, 0x3e);
}

/* r10 and its host address go down or up by the frame. */
static void move_frame(struct jit *j, enum a64_op op, uint32_t frame)
{
	if (!frame)
		return;
	a64_rri(j, true, op, jit_host[10], jit_host[10], frame);
	a64_rri(j, true, op, A64_STACK, A64_STACK, frame);
}

static void local_call(struct jit *j, uint32_t pc)
{
	const struct sbpf_program *prog = j->prog;
	uint32_t frame = prog->funcs[j->func].frame;

	charge(j, jit_callee_cost(prog, pc));
	jump_if(j, A64_LO, jit_next_stub(j));
	move_frame(j, A64_SUB, frame);
	a64_b(j, true, j->func_at[jit_callee(prog, pc)]);
	move_frame(j, A64_ADD, frame);
	zero_unset(j, 0x3e);
}

/* ---- functions ---- */

/* What an earlier call left in the frame is not for this one to see. */
static void zero_frame(struct jit *j, uint32_t bytes)
{
	const int32_t loop = -2;

	if (bytes <= ZERO_UNROLLED) {
		for (int32_t at = -(int32_t)bytes; at < 0; at += 16)
			a64_pair(j, A64_STP, A64_ZR, A64_ZR, A64_STACK, at);
		return;
	}
	a64_rri(j, true, A64_SUB, A64_TMP, A64_STACK, bytes);
	a64_pair(j, A64_STP_POST, A64_ZR, A64_ZR, A64_TMP, 16);
	a64_rrr(j, true, A64_SUBS, A64_ZR, A64_TMP, A64_STACK);
	a64_b_short(j, A64_B_CC | A64_NE, jit_here(j) + (uint32_t)(4 * loop));
}

void jit_arch_prologue(struct jit *j)
{
	const struct sbpf_func *func = &j->prog->funcs[j->func];
	uint8_t flags = j->func_flags[j->func], regs[5];
	unsigned int n = saved(j, regs);

	if (flags & JIT_FUNC_CALLS) /* a landing pad as well */
		jit_4(j, A64_PACIASP);
	else if (flags & JIT_FUNC_ENTRY)
		jit_4(j, A64_BTI_C);
	if (n)
		a64_pair(j, A64_STP_PRE, regs[0], second(regs, n, 0), A64_SP,
			 -8 * (int32_t)((n + 1) & ~1u));
	for (unsigned int i = 2; i < n; i += 2)
		a64_pair(j, A64_STP, regs[i], second(regs, n, i), A64_SP, 8 * (int32_t)i);
	choose_consts(j);
	load_consts(j);
	if (flags & JIT_FUNC_CALLED) {
		zero_frame(j, func->frame);
		zero_unset(j, 1 | (uint32_t)func->writes << 6);
	}
}

uint32_t jit_arch_translate(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint32_t n = 1;

	if (BPF_CLASS(insn->code) != BPF_JMP && BPF_CLASS(insn->code) != BPF_JMP32)
		return jit_straight(j, pc);
	if (sbpf_is_jump(insn)) {
		n = jump(j, pc);
	} else if (BPF_OP(insn->code) == BPF_EXIT) {
		jit_arch_leave(j);
	} else {
		if (insn->src == BPF_CALL_LOCAL)
			local_call(j, pc);
		else
			helper_call(j, insn, pc);
		j->zext &= 0x7c0; /* r6 to r10 */
	}
	return n;
}

void jit_arch_pad(struct jit *j, uint32_t bytes)
{
	while (bytes) {
		jit_4(j, A64_NOP);
		bytes -= 4;
	}
}

/* ---- the code around the functions ---- */

/* uint64_t enter(x, function, r1, r2, r10) */
static void enter_stub(struct jit *j)
{
	jit_4(j, A64_PACIASP);
	a64_pair(j, A64_STP_PRE, 29, A64_LR, A64_SP, -96);
	for (unsigned int r = 19; r < 29; r += 2)
		a64_pair(j, A64_STP, r, r + 1, A64_SP, 16 + 8 * (int32_t)(r - 19));
	a64_mov(j, true, A64_EXEC, 0);
	a64_mov(j, true, A64_TMP, 1);
	a64_mov(j, true, jit_host[1], 2);
	a64_mov(j, true, jit_host[2], 3);
	a64_mov(j, true, jit_host[10], 4);
	a64_field(j, true, true, A64_BASE, A64_EXEC, offsetof(struct sbpf_exec, base));
	a64_rrr(j, true, A64_ADD, A64_STACK, A64_BASE, jit_host[10]);
	a64_field(j, true, true, A64_FUEL, A64_EXEC, offsetof(struct sbpf_exec, fuel));
	/* Nothing of the host's is left for the program, whatever the verifier missed. */
	a64_const(j, jit_host[0], 0);
	for (unsigned int r = 3; r <= 9; r++)
		a64_const(j, jit_host[r], 0);
	jit_4(j, A64_BLR | A64_TMP << 5);
	a64_field(j, true, false, A64_FUEL, A64_EXEC, offsetof(struct sbpf_exec, fuel));
	for (unsigned int r = 19; r < 29; r += 2)
		a64_pair(j, A64_LDP, r, r + 1, A64_SP, 16 + 8 * (int32_t)(r - 19));
	a64_pair(j, A64_LDP_POST, 29, A64_LR, A64_SP, 96);
	jit_4(j, A64_AUTIASP);
	jit_4(j, A64_RET | A64_LR << 5);
	jit_flush(j);
}

/*
 * Called by stubs with pc in x16 and the function's own return address in x17: a C call that costs
 * the program no register.  Both return addresses are signed while they lie on the stack.
 */
static void refuel_routine(struct jit *j)
{
	static const uint8_t first[7] = {0, 2, 4, 8, 10, 12, 14}; /* r0 to r5, constants */

	j->refuel_at = j->off;
	a64_field(j, false, false, A64_TMP, A64_EXEC, offsetof(struct sbpf_exec, pc));
	jit_4(j, A64_PACIASP);
	a64_rri(j, true, A64_ADD, A64_TMP, A64_SP, 0);
	jit_4(j, A64_PACIA1716);
	a64_pair(j, A64_STP_PRE, A64_LR, A64_TMP2, A64_SP, -128);
	for (int32_t i = 0; i < 7; i++)
		a64_pair(j, A64_STP, first[i], first[i] + 1u, A64_SP, 16 + 16 * i);
	a64_field(j, true, false, A64_FUEL, A64_EXEC, offsetof(struct sbpf_exec, fuel));
	a64_mov(j, true, 0, A64_EXEC);
	a64_b(j, true, j->helpers_at);
	a64_mov(j, true, A64_FUEL, 0);
	for (int32_t i = 0; i < 7; i++)
		a64_pair(j, A64_LDP, first[i], first[i] + 1u, A64_SP, 16 + 16 * i);
	a64_pair(j, A64_LDP_POST, A64_LR, A64_TMP2, A64_SP, 128);
	jit_4(j, A64_AUTIASP);
	a64_rri(j, true, A64_ADD, A64_TMP, A64_SP, 0);
	jit_4(j, A64_AUTIA1716);
	a64_mov(j, true, A64_TMP, A64_LR);
	a64_mov(j, true, A64_LR, A64_TMP2);
	jit_4(j, A64_RET | A64_TMP << 5);
	jit_flush(j);
}

/* By way of x16, from where "bti c" lets a jump land. */
static void call_stub(struct jit *j, uintptr_t fn)
{
	jit_4(j, A64_LDR_NEXT_8 | A64_TMP);
	jit_4(j, A64_BR | A64_TMP << 5);
	jit_8(j, fn);
	jit_flush(j);
}

void jit_arch_around(struct jit *j)
{
	enter_stub(j);
	refuel_routine(j);
	j->helpers_at = j->off;
	call_stub(j, (uintptr_t)sbpf_exec_refuel);
	for (uint32_t id = 0; id < sbpf_n_helpers; id++)
		if (j->prog->helpers >> id & 1)
			call_stub(j, (uintptr_t)sbpf_helpers[id].fn);
}

/* ---- the engine ---- */

int jit_arch_rights(void)
{
	return PROT_READ | PROT_EXEC | (getauxval(AT_HWCAP2) & HWCAP2_HAS_BTI ? RIGHT_BTI : 0);
}

static int aarch64_compile(const struct sbpf_program *prog, struct sbpf_code **out,
			   struct sbpf_error *err)
{
	struct jit j = {.n_consts = 0};
	struct jit_code *jc;
	int r = jit_compile(&j, prog, &jc, err);

	if (!r)
		*out = &jc->code;
	return r;
}

const struct sbpf_engine sbpf_engine_aarch64 = {
	.name = "template",
	.tier = SBPF_TIER_TEMPLATE,
	.missing = jit_missing,
	.compile = aarch64_compile,
	.free = jit_free,
	.run = jit_enter,
	.locate = jit_locate,
};
