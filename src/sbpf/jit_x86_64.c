/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_x86_64.c - the template tier: one BPF instruction, a few machine instructions, in
 * microseconds.
 *
 * Owns: jumps, calls, fuel, entering and leaving the code.  Registers and encodings are in
 * jit_x86_64_emit.h, straight-line code in jit_x86_64_insn.c, what is the same on every architecture
 * in jit_common.c; docs/jit.md tells how it all fits together and what each trick gained.
 *
 * What the code relies on: verify.c accepted the program; GS's base is the sandbox; r11 is the
 * struct sbpf_exec; r12 the fuel left of this slice; rsp is 8 past a multiple of 16 in the body of
 * every function that calls.
 */
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <asm/prctl.h>
#include <unistd.h>

#include "sbpf/jit_x86_64_emit.h"

#define HWCAP2_FSGSBASE 2u   /* <asm/hwcap2.h>: the kernel lets programs write segment bases */
#define ZERO_UNROLLED   256u /* bytes of frame zeroed without a loop */

bool sbpf_x86_64_plain;

/* ---- leaving a function ---- */

static const uint8_t saved_regs[4] = {RBX, R13, R14, R15}; /* r6 to r9 */

/* A filler where the registers saved leave the stack misaligned; see the top of the file. */
static bool wants_filler(const struct jit *j)
{
	return (j->func_flags[j->func] & JIT_FUNC_CALLS) &&
	       __builtin_popcount(j->prog->funcs[j->func].writes & 15u) % 2 == 0;
}

void jit_arch_leave(struct jit *j)
{
	const struct sbpf_func *func = &j->prog->funcs[j->func];

	if (wants_filler(j))
		jit_pop(j, RCX);
	for (unsigned int i = 4; i-- > 0;)
		if (func->writes >> i & 1)
			jit_pop(j, saved_regs[i]);
	jit_1(j, 0xc3);
}

uint32_t jit_arch_leave_bytes(const struct jit *j)
{
	uint32_t writes = j->prog->funcs[j->func].writes & 15u;

	return (writes & 1) + 2u * (uint32_t)__builtin_popcount(writes >> 1) + wants_filler(j) + 1;
}

/* ---- jumps ---- */

#define ALWAYS 0x10u /* a condition code for jump_to() */

/*
 * Does a short jump, written next, reach the instruction at target?  Pass 0 measured everything at
 * its longest, this jump included, so a distance that fits there fits.
 */
static bool reaches(const struct jit *j, unsigned int cc, uint32_t pc, uint32_t target)
{
	uint32_t start = (uint32_t)(j->p - j->piece);

	if (j->pass == 0)
		return false;
	if (target <= pc)
		return j->wide[pc] - j->wide[target] + start + 2 <= 128;
	return j->wide[target] - j->wide[pc] - start - (cc == ALWAYS ? 5 : 6) <= 127;
}

static void jump_to(struct jit *j, unsigned int cc, uint32_t pc, uint32_t target)
{
	if (jit_is_exit(j, target) && cc == ALWAYS) {
		jit_arch_leave(j);
	} else if (!jit_is_exit(j, target) && reaches(j, cc, pc, target)) {
		jit_1(j, cc == ALWAYS ? 0xeb : 0x70 | cc);
		jit_1(j, (uint8_t)(j->at[target] - (jit_here(j) + 1)));
	} else {
		jit_near(j, cc == ALWAYS ? 0xe9 : 0x180 | cc, jit_place_of(j, target));
	}
}

/* ---- fuel ---- */

static void save_pc(struct jit *j, uint32_t pc)
{
	jit_exec(j, false, 0xc7, 0, offsetof(struct sbpf_exec, pc));
	jit_4(j, pc);
}
const uint32_t jit_arch_stub_bytes = 18;

void jit_arch_stub(struct jit *j, uint32_t pc, uint32_t resume)
{
	save_pc(j, pc);
	jit_near(j, 0xe8, j->refuel_at);
	jit_near(j, 0xe9, resume);
}

/* sub and jcc are one operation to the machine, and its borrow is the check. */
static void charge(struct jit *j, uint32_t cost)
{
	jit_alu_ri(j, true, ALU_SUB, JIT_FUEL, (int32_t)cost);
}

/* The charge and the long jump to the stub. */
uint32_t jit_arch_charged_bytes(const struct jit *j, uint32_t cost)
{
	return (cost <= INT8_MAX ? 4 : 7) + 6;
}

/* A taken jump backwards. */
static void back_edge(struct jit *j, uint32_t pc, uint32_t target)
{
	charge(j, sbpf_back_edge_cost(pc, target));
	jump_to(j, CC_AE, pc, target);
	jit_near(j, 0xe9, jit_next_stub(j));
}

/* ---- control flow ---- */

static const uint8_t cc_of[16] = {
	[BPF_JEQ >> 4] = CC_E,  [BPF_JNE >> 4] = CC_NE,  [BPF_JSET >> 4] = CC_NE,
	[BPF_JGT >> 4] = CC_A,  [BPF_JGE >> 4] = CC_AE,  [BPF_JLT >> 4] = CC_B,
	[BPF_JLE >> 4] = CC_BE, [BPF_JSGT >> 4] = CC_G,  [BPF_JSGE >> 4] = CC_GE,
	[BPF_JSLT >> 4] = CC_L, [BPF_JSLE >> 4] = CC_LE,
};

/* Set the flags for a conditional jump, or find them set. */
static void compare(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int dst = jit_host[insn->dst], op = BPF_OP(insn->code);
	bool w = BPF_CLASS(insn->code) == BPF_JMP;

	if (BPF_SRC(insn->code) == BPF_X) {
		if (op == BPF_JSET)
			jit_rr(j, w, 0x85, jit_host[insn->src], dst);
		else
			jit_alu_rr(j, w, ALU_CMP, dst, jit_host[insn->src]);
	} else if (op == BPF_JSET) {
		jit_rr(j, w && insn->imm < 0, 0xf7, 0, dst);
		jit_4(j, (uint32_t)insn->imm);
	} else if (insn->imm) {
		jit_alu_ri(j, w, ALU_CMP, dst, insn->imm);
	} else if (j->flags != dst || (j->flags_64 && !w) || (op != BPF_JEQ && op != BPF_JNE)) {
		jit_rr(j, w, 0x85, dst, dst);
	}
}

/*
 * Set the flags; returns the opposite of the condition.  cmova and cmovbe look at two flags and
 * take twice as long as the others, so a > b is asked as b < a.
 */
static unsigned int compare_for_move(struct jit *j, const struct sbpf_insn *insn)
{
	unsigned int cc = cc_of[BPF_OP(insn->code) >> 4] ^ 1u;
	struct sbpf_insn swapped = *insn;

	if ((cc != CC_A && cc != CC_BE) || BPF_SRC(insn->code) != BPF_X) {
		compare(j, insn);
		return cc;
	}
	swapped.dst = insn->src;
	swapped.src = insn->dst;
	compare(j, &swapped);
	return cc == CC_A ? CC_B : CC_AE;
}

/*
 * "if (!condition) dst = value", which clang spells as a jump over one move: a conditional move
 * cannot be mispredicted. A 32-bit one clears the upper half of dst in either case, so that must be
 * zero before.
 */
static bool conditional_move(struct jit *j, const struct sbpf_insn *insn, uint32_t pc)
{
	const struct sbpf_insn *mov = insn + 1;
	unsigned int src = RCX, cc;
	bool w;

	if (sbpf_jump_target(insn, pc) != pc + 2 || !jit_fusible(j, pc + 1))
		return false;
	w = BPF_CLASS(mov->code) == BPF_ALU64;
	if ((BPF_CLASS(mov->code) != BPF_ALU && !w) || BPF_OP(mov->code) != BPF_MOV || mov->off)
		return false;
	if (BPF_SRC(mov->code) == BPF_K) {
		jit_const(j, RCX, w ? (uint64_t)(int64_t)mov->imm : (uint32_t)mov->imm);
		j->flags = JIT_NO_FLAGS;
		w = true;
	} else {
		src = jit_host[mov->src];
		if (!w && !jit_is_zext(j, mov->dst)) {
			if (!jit_is_zext(j, mov->src))
				return false;
			w = true;
		}
	}
	cc = compare_for_move(j, insn);
	jit_rr(j, w, 0x140 | cc, jit_host[mov->dst], src);
	return true;
}

/* Returns the instructions eaten. */
static uint32_t jump(struct jit *j, uint32_t pc)
{
	const struct sbpf_insn *insn = &j->prog->insns[pc];
	uint32_t target = (uint32_t)sbpf_jump_target(insn, pc);
	uint8_t *skip;
	unsigned int cc;

	if (target == pc + 1)
		return 1;
	if (BPF_OP(insn->code) == BPF_JA) {
		if (target <= pc)
			back_edge(j, pc, target);
		else
			jump_to(j, ALWAYS, pc, target);
		return 1;
	}
	if (conditional_move(j, insn, pc))
		return 2;
	compare(j, insn);
	cc = cc_of[BPF_OP(insn->code) >> 4];
	if (target == pc + 2 && jit_is_exit(j, pc + 1)) {
		jump_to(j, cc ^ 1u, pc, pc + 1);
		return 2;
	}
	if (target > pc) {
		jump_to(j, cc, pc, target);
	} else {
		skip = jit_skip(j, cc ^ 1u);
		back_edge(j, pc, target);
		jit_land(j, skip);
	}
	return 1;
}

/* Registers of @mask that nobody wrote, where that may be seen. */
static void zero_unset(struct jit *j, uint32_t mask)
{
	for (unsigned int r = 0; j->prog->zero_unset && r < 10; r++)
		if (mask >> r & 1)
			jit_const(j, jit_host[r], 0);
}

/* r11 is the caller's to save, and its push aligns the stack. */
static void helper_call(struct jit *j, const struct sbpf_insn *insn, uint32_t pc)
{
	static const uint8_t argument[5][2] = {
		{RSI, RDI}, {RDX, RSI}, {RCX, RDX}, {R8, R8}, {R9, R9},
	};
	const struct sbpf_helper *helper = &sbpf_helpers[insn->imm];

	save_pc(j, pc);
	jit_exec(j, true, 0x89, JIT_FUEL, offsetof(struct sbpf_exec, fuel));
	for (unsigned int i = helper->args;
	     i-- > 0;) /* each frees the register that the next wants */
		if (argument[i][0] != argument[i][1])
			jit_mov(j, true, argument[i][0], argument[i][1]);
	jit_mov(j, true, RDI, JIT_EXEC);
	jit_push(j, JIT_EXEC);
	jit_call_far(j, (uintptr_t)helper->fn);
	jit_pop(j, JIT_EXEC);
	jit_exec(j, true, 0x8b, JIT_FUEL, offsetof(struct sbpf_exec, fuel));
	zero_unset(j, 0x3e);
}

static void local_call(struct jit *j, uint32_t pc)
{
	const struct sbpf_program *prog = j->prog;
	uint32_t frame = prog->funcs[j->func].frame;

	charge(j, jit_callee_cost(prog, pc));
	jit_near(j, 0x180 | CC_B, jit_next_stub(j));
	if (frame)
		jit_alu_ri(j, false, ALU_SUB, RBP, (int32_t)frame);
	jit_near(j, 0xe8, j->func_at[jit_callee(prog, pc)]);
	if (frame)
		jit_alu_ri(j, false, ALU_ADD, RBP, (int32_t)frame);
	zero_unset(j, 0x3e);
}

/* ---- functions ---- */

/* movaps gs:[ebp + disp] or gs:[ebp + ecx + disp], xmm0 */
static void zero_16(struct jit *j, bool indexed, int32_t disp)
{
	jit_1(j, 0x65);
	jit_1(j, 0x67);
	jit_opcode(j, 0x129);
	if (indexed) {
		jit_modrm(j, 1, 0, 4);
		jit_1(j, RCX << 3 | RBP);
		jit_1(j, (uint8_t)disp);
	} else {
		jit_disp(j, 0, RBP, disp);
	}
}

/* What an earlier call left in the frame is not for this one to see. */
static void zero_frame(struct jit *j, int32_t bytes)
{
	const uint8_t *loop;

	if (!bytes)
		return;
	jit_opcode(j, 0x157); /* xorps xmm0, xmm0 */
	jit_modrm(j, 3, 0, 0);
	if (bytes <= (int32_t)ZERO_UNROLLED) {
		for (int32_t at = -bytes; at < 0; at += 16)
			zero_16(j, false, at);
		return;
	}
	jit_const(j, RCX, (uint32_t)-bytes);
	loop = j->p;
	zero_16(j, true, 0);
	jit_alu_ri(j, false, ALU_ADD, RCX, 16);
	jit_1(j, 0x70 | CC_NE);
	j->p++;
	j->p[-1] = (uint8_t)(loop - j->p);
}

void jit_arch_prologue(struct jit *j)
{
	const struct sbpf_func *func = &j->prog->funcs[j->func];
	uint8_t flags = j->func_flags[j->func];

	if (flags & JIT_FUNC_ENTRY)
		jit_endbr(j);
	for (unsigned int i = 0; i < 4; i++)
		if (func->writes >> i & 1)
			jit_push(j, saved_regs[i]);
	if (wants_filler(j))
		jit_push(j, RAX);
	if (flags & JIT_FUNC_CALLED) {
		zero_frame(j, (int32_t)func->frame);
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
	j->flags = JIT_NO_FLAGS;
	return n;
}

void jit_arch_pad(struct jit *j, uint32_t bytes)
{
	static const uint8_t nops[9][9] = {
		/* the forms that Intel and AMD recommend */
		{0x90},
		{0x66, 0x90},
		{0x0f, 0x1f, 0x00},
		{0x0f, 0x1f, 0x40, 0x00},
		{0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
		{0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
		{0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
	};

	while (bytes) {
		uint32_t n = bytes < 9 ? bytes : 9;

		memcpy(j->p, nops[n - 1], n);
		j->p += n;
		bytes -= n;
	}
}

/* ---- the code around the functions ---- */

/* uint64_t enter(x, function, r1, r2, r10) */
static void enter_stub(struct jit *j)
{
	static const uint8_t callee_saved[6] = {RBX, RBP, R12, R13, R14, R15};

	jit_endbr(j);
	for (unsigned int i = 0; i < 6; i++)
		jit_push(j, callee_saved[i]);
	jit_mov(j, true, JIT_EXEC, RDI);
	jit_mov(j, true, R10, RSI);
	jit_mov(j, true, RDI, RDX); /* r1 */
	jit_mov(j, true, RSI, RCX); /* r2 */
	jit_mov(j, true, RBP, R8);  /* r10 */
	jit_exec(j, true, 0x8b, JIT_FUEL, offsetof(struct sbpf_exec, fuel));
	/* Nothing of the host's is left for the program, whatever the verifier missed. */
	jit_const(j, jit_host[0], 0);
	for (unsigned int r = 3; r <= 9; r++)
		jit_const(j, jit_host[r], 0);
	jit_rr(j, false, 0xff, 2, R10); /* call r10 */
	jit_exec(j, true, 0x89, JIT_FUEL, offsetof(struct sbpf_exec, fuel));
	for (unsigned int i = 6; i-- > 0;)
		jit_pop(j, callee_saved[i]);
	jit_1(j, 0xc3);
	jit_flush(j);
}

/* Called by stubs, with the stack aligned anyhow: a C call that costs the program no register. */
static void refuel_routine(struct jit *j)
{
	static const uint8_t caller_saved[7] = {RAX, RDX, RSI, RDI, R8, R9, R11};

	j->refuel_at = j->off;
	jit_mov(j, true, R10, RSP);
	jit_alu_ri(j, true, ALU_AND, RSP, -16);
	jit_push(j, R10);
	for (unsigned int i = 0; i < 7; i++)
		jit_push(j, caller_saved[i]);
	jit_exec(j, true, 0x89, JIT_FUEL, offsetof(struct sbpf_exec, fuel));
	jit_mov(j, true, RDI, JIT_EXEC);
	jit_call_far(j, (uintptr_t)sbpf_exec_refuel);
	jit_mov(j, true, JIT_FUEL, RAX);
	for (unsigned int i = 7; i-- > 0;)
		jit_pop(j, caller_saved[i]);
	jit_pop(j, RSP);
	jit_1(j, 0xc3);
	jit_flush(j);
}

void jit_arch_around(struct jit *j)
{
	enter_stub(j);
	refuel_routine(j);
}

/* ---- the engine ---- */

const uint32_t jit_arch_loop_align = 64; /* the unit in which CPUs keep decoded instructions */
const uint8_t jit_arch_filler = 0xcc;

int jit_arch_rights(void)
{
	return PROT_READ | PROT_EXEC;
}

static int x86_compile(const struct sbpf_program *prog, struct sbpf_code **out,
		       struct sbpf_error *err)
{
	struct jit j = {.bmi2 = !sbpf_x86_64_plain && __builtin_cpu_supports("bmi2")};
	struct jit_code *jc;
	int r = jit_compile(&j, prog, &jc, err);

	if (r)
		return r;
	jc->fsgsbase = !sbpf_x86_64_plain && (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE);
	*out = &jc->code;
	return 0;
}

/* The thread's GS base may be someone's (another such runtime's, an emulator's): it is put back. */
static void *gs_exchange(const struct jit_code *jc, void *base)
{
	unsigned long old;

	if (jc->fsgsbase) {
		__asm__ volatile("rdgsbase %0" : "=r"(old));
		__asm__ volatile("wrgsbase %0" ::"r"(base));
	} else {
		syscall(SYS_arch_prctl, ARCH_GET_GS, &old);
		syscall(SYS_arch_prctl, ARCH_SET_GS, base);
	}
	return (void *)old;
}

static void x86_leave(struct sbpf_exec *x)
{
	gs_exchange((const struct jit_code *)x->code, x->saved_sp);
}

static uint64_t x86_run(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2, uint64_t r10)
{
	uint64_t r0;

	x->saved_sp = gs_exchange((const struct jit_code *)x->code, x->base);
	r0 = jit_enter(x, func, r1, r2, r10);
	x86_leave(x);
	return r0;
}

const struct sbpf_engine sbpf_engine_x86_64 = {
	.name = "template",
	.tier = SBPF_TIER_TEMPLATE,
	.missing = jit_missing,
	.compile = x86_compile,
	.free = jit_free,
	.run = x86_run,
	.leave = x86_leave,
	.locate = jit_locate,
};
