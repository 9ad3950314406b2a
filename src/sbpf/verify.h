/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.h - what the verifier's three files share; nothing else includes it.
 *
 * verify.c checks each instruction by itself and its targets, verify_flow.c what paths leave in
 * registers, verify_stack.c frames and calls, in this order: each relies on what the one before found.
 */
#ifndef SBPF_VERIFY_H
#define SBPF_VERIFY_H

#include <errno.h>

#include "sbpf/internal.h"

#define N_REGS 11u
#define FP     10u
#define REG(r) ((uint16_t)(1u << (r)))

/* Register masks of the calling convention. */
#define ARGS      (REG(1) | REG(2) | REG(3) | REG(4) | REG(5))
#define CLOBBERED (REG(0) | ARGS)
#define ENTRY     (REG(1) | REG(2) | REG(FP))

/*
 * A state at an instruction: the registers written on every path to it, those written on some path
 * (SOME(mask)), and two marks.
 */
#define EVERY    0x07ffu
#define SOME(r)  ((uint32_t)(r) << 11)
#define BOTH(r)  ((uint32_t)(r) | SOME(r))
#define SOMES(s) ((uint16_t)((s) >> 11 & EVERY))
#define REACHED  0x400000u
#define QUEUED   0x800000u

/* Of a function: what its exits that can be reached say about r0. */
#define NO_RESULT   1u /* one may lack it */
#define SOME_RESULT 2u /* one may have it */
#define IS_ENTRY    4u /* whoever runs the program reads r0 */

struct verifier {
	struct sbpf_program *prog;
	struct sbpf_error *err;
	uint32_t *owner; /* function of each instruction */
	uint32_t *state; /* of each instruction */
	uint32_t *work;  /* instructions whose state changed, QUEUED */
	uint32_t n_work;
	/* Call instructions by the function they call: f's are [first_caller[f], first_caller[f+1]) */
	uint32_t *callers;
	uint32_t *first_caller;
	uint8_t *result; /* of each function: NO_RESULT, SOME_RESULT, IS_ENTRY */
};

/* ---- the instruction set as a table: verify.c ---- */

/* What the fields of an instruction mean; a field that means nothing must be zero. */
enum {
	DST_READ = 0x01,
	DST_WRITE = 0x02,
	SRC_READ = 0x04,
	OFF = 0x08,
	IMM = 0x10,
	ALU_BOTH = DST_READ | DST_WRITE,
};

enum insn_kind {
	UNKNOWN,
	PLAIN,
	MOVE,   /* off: bits to sign-extend from */
	DIVIDE, /* off: 1 is signed */
	SWAP,   /* imm: bits */
	LDDW,
	LOAD, /* loads and stores: off and src or dst are an address */
	STORE,
	ATOMIC,
	JUMP,
	CALL,
	EXIT,
};

struct rule {
	uint8_t kind;
	uint8_t fields;
};

extern const struct rule sbpf_rules[256];

/* Registers that an instruction writes, calls aside. */
static inline uint16_t sbpf_insn_writes(const struct sbpf_insn *insn)
{
	const struct rule *rule = &sbpf_rules[insn->code];

	if (rule->kind == ATOMIC) {
		if (insn->imm == BPF_CMPXCHG)
			return REG(0);
		return insn->imm & BPF_FETCH ? REG(insn->src) : 0;
	}
	return rule->fields & DST_WRITE ? REG(insn->dst) : 0;
}

static inline bool is_local_call(const struct sbpf_insn *insn)
{
	return sbpf_rules[insn->code].kind == CALL && insn->src == BPF_CALL_LOCAL;
}

static inline uint32_t callee(const struct verifier *v, uint32_t pc)
{
	return v->owner[(int64_t)pc + 1 + v->prog->insns[pc].imm];
}

/* That what is read was written, in every function an entry reaches; needs valid encodings and targets. */
int sbpf_verify_flow(struct verifier *v);
/* Frames, recursion and depth; needs to know what is REACHED. */
int sbpf_verify_stack(struct verifier *v);

#define REFUSE(v, pc, ...) sbpf_fail((v)->err, (v)->prog, -EINVAL, pc, __VA_ARGS__)

#endif /* SBPF_VERIFY_H */
