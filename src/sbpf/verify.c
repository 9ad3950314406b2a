/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c - what can be known about a program before it runs, and what the engines rely on.
 *
 * Owns: the table of encodings, reserved fields, jump and call targets, and the order of all checks;
 * fills insn_flags and funcs[].writes.  verify_flow.c: registers; fills helpers and zero_unset.  verify_stack.c: frames
 * and call depth; fills funcs[].frame and .reachable, stack_bytes, call_depth.
 * Does not own: where a pointer leads or how long a loop runs; the sandbox and fuel bound those.
 *
 * Linear: every instruction is looked at a constant number of times (the dataflow revisits one only
 * when it lost or gained a register, so at most 23 times), memory is a few bytes an instruction, nothing
 * recurses.  Code that no path reaches must be well-formed but is not asked for more.
 */
#include <stdlib.h>

#include "sbpf/verify.h"

/* clang-format off */
#define ALU_K(kind, op, f)                                  \
	[BPF_ALU | (op) | BPF_K]   = {kind, (f) | IMM},     \
	[BPF_ALU64 | (op) | BPF_K] = {kind, (f) | IMM}
#define ALU_X(kind, op, f)                                  \
	[BPF_ALU | (op) | BPF_X]   = {kind, (f) | SRC_READ}, \
	[BPF_ALU64 | (op) | BPF_X] = {kind, (f) | SRC_READ}
#define BINARY(op) ALU_K(PLAIN, op, ALU_BOTH), ALU_X(PLAIN, op, ALU_BOTH)
#define BRANCH(op)                                                          \
	[BPF_JMP | (op) | BPF_K]   = {JUMP, DST_READ | IMM | OFF},          \
	[BPF_JMP32 | (op) | BPF_K] = {JUMP, DST_READ | IMM | OFF},          \
	[BPF_JMP | (op) | BPF_X]   = {JUMP, DST_READ | SRC_READ | OFF},     \
	[BPF_JMP32 | (op) | BPF_X] = {JUMP, DST_READ | SRC_READ | OFF}
#define MEMORY(size)                                                            \
	[BPF_LDX | BPF_MEM | (size)] = {LOAD, DST_WRITE | SRC_READ | OFF},      \
	[BPF_ST | BPF_MEM | (size)]  = {STORE, DST_READ | OFF | IMM},           \
	[BPF_STX | BPF_MEM | (size)] = {STORE, DST_READ | SRC_READ | OFF}

/* RFC 9669, by opcode; MOVE, DIVIDE, SWAP, LDDW, ATOMIC and CALL have values of their own to check. */
const struct rule sbpf_rules[256] = {
	BINARY(BPF_ADD), BINARY(BPF_SUB), BINARY(BPF_MUL), BINARY(BPF_OR), BINARY(BPF_AND),
	BINARY(BPF_LSH), BINARY(BPF_RSH), BINARY(BPF_ARSH), BINARY(BPF_XOR),
	ALU_K(DIVIDE, BPF_DIV, ALU_BOTH | OFF), ALU_X(DIVIDE, BPF_DIV, ALU_BOTH | OFF),
	ALU_K(DIVIDE, BPF_MOD, ALU_BOTH | OFF), ALU_X(DIVIDE, BPF_MOD, ALU_BOTH | OFF),
	ALU_K(PLAIN, BPF_MOV, DST_WRITE), ALU_X(MOVE, BPF_MOV, DST_WRITE | OFF),
	[BPF_ALU | BPF_NEG]           = {PLAIN, ALU_BOTH},
	[BPF_ALU64 | BPF_NEG]         = {PLAIN, ALU_BOTH},
	[BPF_ALU | BPF_END | BPF_K]   = {SWAP, ALU_BOTH | IMM},
	[BPF_ALU | BPF_END | BPF_X]   = {SWAP, ALU_BOTH | IMM},
	[BPF_ALU64 | BPF_END | BPF_K] = {SWAP, ALU_BOTH | IMM},

	[BPF_LDDW_CODE] = {LDDW, DST_WRITE | IMM},
	MEMORY(BPF_B), MEMORY(BPF_H), MEMORY(BPF_W), MEMORY(BPF_DW),
	[BPF_LDX | BPF_MEMSX | BPF_B]   = {LOAD, DST_WRITE | SRC_READ | OFF},
	[BPF_LDX | BPF_MEMSX | BPF_H]   = {LOAD, DST_WRITE | SRC_READ | OFF},
	[BPF_LDX | BPF_MEMSX | BPF_W]   = {LOAD, DST_WRITE | SRC_READ | OFF},
	[BPF_STX | BPF_ATOMIC | BPF_W]  = {ATOMIC, DST_READ | SRC_READ | OFF | IMM},
	[BPF_STX | BPF_ATOMIC | BPF_DW] = {ATOMIC, DST_READ | SRC_READ | OFF | IMM},

	[BPF_JMP | BPF_JA]   = {JUMP, OFF},
	[BPF_JMP32 | BPF_JA] = {JUMP, IMM},
	BRANCH(BPF_JEQ), BRANCH(BPF_JGT), BRANCH(BPF_JGE), BRANCH(BPF_JSET), BRANCH(BPF_JNE),
	BRANCH(BPF_JSGT), BRANCH(BPF_JSGE), BRANCH(BPF_JLT), BRANCH(BPF_JLE), BRANCH(BPF_JSLT),
	BRANCH(BPF_JSLE),
	[BPF_JMP | BPF_CALL] = {CALL, IMM},
	[BPF_JMP | BPF_EXIT] = {EXIT, 0},
};
/* clang-format on */

static int refuse_opcode(const struct verifier *v, uint32_t pc)
{
	uint8_t code = v->prog->insns[pc].code;

	if (BPF_CLASS(code) == BPF_LD && (BPF_MODE(code) == BPF_ABS || BPF_MODE(code) == BPF_IND))
		return REFUSE(v, pc,
			      "opcode 0x%02x is a legacy packet load, and there is no packet; "
			      "read memory through a pointer",
			      code);
	if (code == (BPF_JMP | BPF_CALL | BPF_X))
		return REFUSE(v, pc,
			      "calls through a pointer are not allowed; "
			      "call functions by name, or choose between them with a switch");
	return REFUSE(v, pc,
		      "unknown opcode 0x%02x; compile with clang -target bpf, -mcpu=v1 to v4",
		      code);
}

static bool is_atomic_op(int32_t imm)
{
	switch (imm & ~BPF_FETCH) {
	case BPF_ADD:
	case BPF_OR:
	case BPF_AND:
	case BPF_XOR:
		return true;
	default:
		return imm == BPF_XCHG || imm == BPF_CMPXCHG;
	}
}

static int check_move(const struct verifier *v, uint32_t pc, const struct sbpf_insn *insn)
{
	int16_t bits = insn->off;

	if (bits == 0 || bits == 8 || bits == 16)
		return 0;
	if (bits == 32 && BPF_CLASS(insn->code) == BPF_ALU64)
		return 0;
	return REFUSE(v, pc,
		      "a move cannot sign-extend from %d bits; only 8, 16 and (64-bit) 32 exist",
		      bits);
}

static int check_lddw(const struct verifier *v, uint32_t pc, const struct sbpf_insn *insn)
{
	if (insn->src != 0)
		return REFUSE(v, pc,
			      "a 64-bit constant of kind %u needs a loader to fill it in; "
			      "only plain constants exist here",
			      insn->src);
	if (pc + 1 >= v->prog->funcs[v->owner[pc]].end)
		return REFUSE(v, pc, "the function ends in the middle of a 64-bit constant");
	if (insn[1].code != 0 || insn[1].dst != 0 || insn[1].src != 0 || insn[1].off != 0)
		return REFUSE(v, pc + 1,
			      "the second half of a 64-bit constant has fields other than imm set");
	v->prog->insn_flags[pc + 1] |= SBPF_INSN_TAIL;
	return 0;
}

static int check_call(const struct verifier *v, uint32_t pc, const struct sbpf_insn *insn)
{
	const struct sbpf_program *prog = v->prog;
	int64_t target = (int64_t)pc + 1 + insn->imm;

	switch (insn->src) {
	case BPF_CALL_HELPER:
		if ((uint32_t)insn->imm >= sbpf_n_helpers)
			return REFUSE(v, pc, "there is no helper %d; this runtime has 0 to %u",
				      insn->imm, sbpf_n_helpers - 1);
		return 0;
	case BPF_CALL_LOCAL:
		if (target < 0 || target >= prog->n_insns)
			return REFUSE(v, pc,
				      "a call to instruction %lld, outside the program's 0 to %u",
				      (long long)target, prog->n_insns - 1);
		if (prog->funcs[v->owner[target]].start != target)
			return REFUSE(v, pc,
				      "a call to instruction %lld, in the middle of function %s",
				      (long long)target, prog->funcs[v->owner[target]].name);
		return 0;
	default:
		return REFUSE(v, pc,
			      "a call of kind %u; only helpers (0) and local calls (1) exist",
			      insn->src);
	}
}

/* The values of the fields that some kinds restrict. */
static int check_values(const struct verifier *v, uint32_t pc, const struct sbpf_insn *insn)
{
	switch ((enum insn_kind)sbpf_rules[insn->code].kind) {
	case MOVE:
		return check_move(v, pc, insn);
	case DIVIDE:
		if (insn->off != 0 && insn->off != 1)
			return REFUSE(v, pc, "a division with offset %d; 0 is unsigned, 1 signed",
				      insn->off);
		return 0;
	case SWAP:
		if (insn->imm != 16 && insn->imm != 32 && insn->imm != 64)
			return REFUSE(v, pc, "a byte swap of %d bits; only 16, 32 and 64 exist",
				      insn->imm);
		return 0;
	case LDDW:
		return check_lddw(v, pc, insn);
	case ATOMIC:
		if (!is_atomic_op(insn->imm))
			return REFUSE(v, pc, "unknown atomic operation 0x%x", (unsigned)insn->imm);
		return 0;
	case CALL:
		return check_call(v, pc, insn);
	case UNKNOWN:
		return refuse_opcode(v, pc);
	case PLAIN:
	case LOAD:
	case STORE:
	case JUMP:
	case EXIT:
		return 0;
	}
	return 0;
}

static int check_fields(const struct verifier *v, uint32_t pc, const struct sbpf_insn *insn)
{
	const struct rule *rule = &sbpf_rules[insn->code];
	/* src tells the kind of a call and of a 64-bit constant, which check_values() looks at. */
	bool src_used = rule->fields & SRC_READ || rule->kind == CALL || rule->kind == LDDW;
	const char *reserved = NULL;

	if (insn->dst >= N_REGS || insn->src >= N_REGS)
		return REFUSE(v, pc, "there is no register r%u; the last is r10",
			      insn->dst >= N_REGS ? insn->dst : insn->src);
	if (!(rule->fields & ALU_BOTH) && insn->dst != 0)
		reserved = "dst";
	else if (!src_used && insn->src != 0)
		reserved = "src";
	else if (!(rule->fields & OFF) && insn->off != 0)
		reserved = "offset";
	else if (!(rule->fields & IMM) && insn->imm != 0)
		reserved = "imm";
	if (reserved)
		return REFUSE(v, pc, "opcode 0x%02x has no use for its %s field, which must be 0",
			      insn->code, reserved);
	if (sbpf_insn_writes(insn) & REG(FP))
		return REFUSE(v, pc,
			      "r10 is the frame pointer and cannot be written; "
			      "copy it to another register first");
	return 0;
}

static int check_encodings(struct verifier *v)
{
	struct sbpf_program *prog = v->prog;

	for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];
		struct sbpf_func *func = &prog->funcs[v->owner[pc]];
		int ret;

		if (pc == func->start)
			prog->insn_flags[pc] |= SBPF_INSN_LEADER;
		if (prog->insn_flags[pc] & SBPF_INSN_TAIL)
			continue;
		ret = sbpf_rules[insn->code].kind == UNKNOWN ? 0 : check_fields(v, pc, insn);
		if (!ret)
			ret = check_values(v, pc, insn);
		if (ret)
			return ret;
		func->writes |= (sbpf_insn_writes(insn) >> 6) & 0x0f;
	}
	return 0;
}

/* After check_encodings(), which found the second halves that no jump may enter. */
static int check_jumps(struct verifier *v)
{
	struct sbpf_program *prog = v->prog;

	for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];
		const struct sbpf_func *func = &prog->funcs[v->owner[pc]];
		int64_t target;

		if (!sbpf_is_jump(insn))
			continue;
		target = sbpf_jump_target(insn, pc);
		if (target < func->start || target >= func->end)
			return REFUSE(v, pc,
				      "a jump to instruction %lld, outside its function's %u to %u",
				      (long long)target, func->start, func->end - 1);
		if (prog->insn_flags[target] & SBPF_INSN_TAIL)
			return REFUSE(v, pc,
				      "a jump to instruction %lld, the middle of a 64-bit constant",
				      (long long)target);
		prog->insn_flags[target] |= SBPF_INSN_LEADER;
		if (target <= pc)
			prog->insn_flags[target] |= SBPF_INSN_LOOP;
	}
	return 0;
}

/* ---- all together ---- */

static void find_owners(struct verifier *v)
{
	for (uint32_t f = 0; f < v->prog->n_funcs; f++)
		for (uint32_t pc = v->prog->funcs[f].start; pc < v->prog->funcs[f].end; pc++)
			v->owner[pc] = f;
}

/* Bucket the call instructions by callee: count, prefix sums, fill from the back. */
static void find_callers(struct verifier *v)
{
	const struct sbpf_program *prog = v->prog;

	for (uint32_t pc = 0; pc < prog->n_insns; pc++)
		if (is_local_call(&prog->insns[pc]))
			v->first_caller[callee(v, pc)]++;
	for (uint32_t f = 0; f < prog->n_funcs; f++)
		v->first_caller[f + 1] += v->first_caller[f];
	for (uint32_t pc = 0; pc < prog->n_insns; pc++)
		if (is_local_call(&prog->insns[pc]))
			v->callers[--v->first_caller[callee(v, pc)]] = pc;
}

static int allocate(struct verifier *v)
{
	size_t n = v->prog->n_insns, funcs = v->prog->n_funcs;

	v->prog->insn_flags = calloc(n, sizeof(*v->prog->insn_flags));
	v->owner = calloc(n, sizeof(*v->owner));
	v->state = calloc(n, sizeof(*v->state));
	v->work = calloc(n, sizeof(*v->work));
	v->callers = calloc(n, sizeof(*v->callers));
	v->first_caller = calloc(funcs + 1, sizeof(*v->first_caller));
	v->result = calloc(funcs, sizeof(*v->result));
	if (v->prog->insn_flags && v->owner && v->state && v->work && v->callers &&
	    v->first_caller && v->result)
		return 0;
	return sbpf_fail(v->err, NULL, -ENOMEM, -1, "no memory to verify %u instructions",
			 v->prog->n_insns);
}

static int verify(struct verifier *v)
{
	int ret = allocate(v);

	if (ret)
		return ret;
	find_owners(v);
	if ((ret = check_encodings(v)) || (ret = check_jumps(v)))
		return ret;
	find_callers(v);
	ret = sbpf_verify_flow(v);
	return ret ? ret : sbpf_verify_stack(v);
}

int sbpf_verify(struct sbpf_program *prog, struct sbpf_error *err)
{
	struct verifier v = {.prog = prog, .err = err};
	int ret;

	if (prog->n_insns == 0)
		return sbpf_fail(err, prog, -EINVAL, -1, "the program has no instructions");
	ret = verify(&v);
	free(v.result);
	free(v.first_caller);
	free(v.callers);
	free(v.work);
	free(v.state);
	free(v.owner);
	return ret;
}
