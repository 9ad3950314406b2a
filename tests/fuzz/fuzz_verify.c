/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any instructions given to the verifier are refused with a reason, or hold what the engines rely on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_verify: %s\n", what);
	abort();
}

static bool is_flagged(const struct sbpf_program *prog, int64_t pc, uint8_t flag)
{
	return pc >= 0 && pc < prog->n_insns && prog->insn_flags[pc] & flag;
}

static void check_insn(const struct sbpf_program *prog, const struct sbpf_func *func, uint32_t pc)
{
	const struct sbpf_insn *insn = &prog->insns[pc];
	int64_t target;

	expect(insn->dst <= 10 && insn->src <= 10, "registers exist");
	if (sbpf_is_lddw(insn))
		expect(pc + 1 < func->end && is_flagged(prog, pc + 1, SBPF_INSN_TAIL),
		       "a constant has its second half");
	if (sbpf_is_jump(insn)) {
		target = sbpf_jump_target(insn, pc);
		expect(target >= func->start && target < func->end, "a jump stays inside");
		expect(is_flagged(prog, target, SBPF_INSN_LEADER) &&
			       !is_flagged(prog, target, SBPF_INSN_TAIL),
		       "a jump's target is a leader");
		expect(target > pc || is_flagged(prog, target, SBPF_INSN_LOOP),
		       "a back edge's target is a loop");
	}
	if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == BPF_CALL_LOCAL) {
		const struct sbpf_func *callee =
			&prog->funcs[sbpf_func_at(prog, (uint32_t)((int64_t)pc + 1 + insn->imm))];

		expect(callee->start == (int64_t)pc + 1 + insn->imm, "a call goes to a function");
		expect(!func->reachable || callee->reachable, "a callee is compiled");
	}
}

static void check_program(const struct sbpf_program *prog)
{
	expect(prog->call_depth >= 1 && prog->call_depth <= SBPF_MAX_DEPTH, "depth is limited");
	expect(prog->stack_bytes <= SBPF_MAX_DEPTH * SBPF_MAX_FRAME, "the stack is limited");
	for (uint32_t f = 0; f < prog->n_funcs; f++) {
		const struct sbpf_func *func = &prog->funcs[f];

		expect(func->frame % 16 == 0 && func->frame <= SBPF_MAX_FRAME,
		       "frames are limited");
		expect(func->writes < 16, "writes are r6 to r9");
		expect(is_flagged(prog, func->start, SBPF_INSN_LEADER), "a function is a leader");
		for (uint32_t pc = func->start; pc < func->end; pc++)
			if (!is_flagged(prog, pc, SBPF_INSN_TAIL))
				check_insn(prog, func, pc);
	}
}

/* The interpreter relies on all of it: what goes wrong there is the sanitizers' to see. */
static void run(struct sbpf_program *prog)
{
	struct sbpf_call call = {.size = sizeof(call), .tier = SBPF_TIER_INTERP, .fuel = 4096};
	struct sbpf_error err = {0};
	struct sbpf_sandbox *sb;
	int r;

	if (sbpf_sandbox_get(prog, &sb))
		return;
	r = sbpf_run(sb, &call, &err);
	expect(r == 0 || r == -EFAULT || r == -ETIME || r == -EINVAL,
	       "a run ends in its own error");
	sbpf_sandbox_put(sb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct sbpf_error err = {0};
	struct sbpf_program *prog;
	int r = sbpf_program_from_insns(data, len / 8, NULL, &prog, &err);

	if (r) {
		expect(!prog && err.code == r && err.text[0], "a refusal has a reason");
		return 0;
	}
	check_program(prog);
	run(prog);
	sbpf_program_unref(prog);
	return 0;
}
