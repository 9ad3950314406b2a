/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm.c - the optimizing compiler: a verified program becomes LLVM's representation, is optimized, becomes an object.
 *
 * Owns: functions, control flow, calls, where instructions went, the pipeline.  Straight-line code is in jit_llvm_insn.c;
 * docs/llvm-tier.md tells why it looks as it does.
 *
 * A function of the program is an internal one, (exec, base, r1 to r5, r10) to r0, or an entry, (exec, base, r1, r2, r10)
 * to r0; an entry that is called as well is the former with the latter around it.  Registers are variables that
 * start as zero, which is what zero_unset asks for and costs nothing where nobody looks.  There is no fuel:
 * loops are stopped from outside (tier_clock.c), which after a helper has to be looked for.
 */
#include <errno.h>
#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <stdio.h>
#include <stdlib.h>

#include "sbpf/jit_llvm_ir.h"

#define PIPELINE "default<O3>"

/* ---- attributes ---- */

static void add_attribute(const struct irgen *g, LLVMValueRef fn, const char *name)
{
	unsigned int kind = LLVMGetEnumAttributeKindForName(name, strlen(name));

	LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
				LLVMCreateEnumAttribute(g->context, kind, 0));
}

static void add_text_attribute(const struct irgen *g, LLVMValueRef fn, const char *name,
			       const char *value)
{
	LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
				LLVMCreateStringAttribute(g->context, name,
							  (unsigned int)strlen(name), value,
							  (unsigned int)strlen(value)));
}

/* ---- declarations ---- */

static void find_types(struct irgen *g)
{
	LLVMTypeRef p[8];

	g->i1 = LLVMInt1TypeInContext(g->context);
	g->i8 = LLVMInt8TypeInContext(g->context);
	g->i16 = LLVMInt16TypeInContext(g->context);
	g->i32 = LLVMInt32TypeInContext(g->context);
	g->i64 = LLVMInt64TypeInContext(g->context);
	g->ptr = LLVMPointerTypeInContext(g->context, 0);
	p[0] = p[1] = g->ptr;
	for (unsigned int i = 2; i < 8; i++)
		p[i] = g->i64;
	g->local_type = LLVMFunctionType(g->i64, p, 8, false);
	g->entry_type = LLVMFunctionType(g->i64, p, 5, false);
	p[1] = g->i64;
	for (unsigned int args = 0; args <= 5; args++)
		g->helper_type[args] = LLVMFunctionType(g->i64, p, args + 1, false);
	g->due_type = LLVMFunctionType(LLVMVoidTypeInContext(g->context), p, 1, false);
}

/* A helper may leave by longjmp, so nothing is said of what it touches or whether it returns. */
static LLVMValueRef declare_extern(const struct irgen *g, const char *name, LLVMTypeRef type)
{
	LLVMValueRef fn = LLVMAddFunction(g->module, name, type);

	add_attribute(g, fn, "nounwind");
	add_attribute(g, fn, "nonlazybind"); /* through the GOT: it may be anywhere */
	return fn;
}

static LLVMValueRef helper_of(struct irgen *g, uint32_t id)
{
	char name[16];

	if (!g->helpers[id]) {
		snprintf(name, sizeof(name), "h%u", id);
		g->helpers[id] = declare_extern(g, name, g->helper_type[g->helper_args[id]]);
	}
	return g->helpers[id];
}

static void declare_due(struct irgen *g)
{
	g->due = declare_extern(g, "due", g->due_type);
	add_attribute(g, g->due, "noreturn");
	add_attribute(g, g->due, "cold");
}

/* Only called by the runtime. */
static bool is_plain_entry(const struct irgen *g, uint32_t f)
{
	return g->enters[f] && !g->called[f];
}

static LLVMValueRef add_function(const struct irgen *g, bool enters, uint32_t f)
{
	LLVMValueRef fn;
	char name[16];

	snprintf(name, sizeof(name), "%c%u", enters ? 'e' : 'f', f);
	fn = LLVMAddFunction(g->module, name, enters ? g->entry_type : g->local_type);
	if (!enters)
		LLVMSetLinkage(fn, LLVMInternalLinkage);
	add_attribute(g, fn, "nounwind");
	/* A loop is not to become a call of memset(), in which it could not be stopped. */
	add_text_attribute(g, fn, "no-builtins", "");
	/* Since Ice Lake and Zen 4 the widest vectors cost no clock rate; LLVM is wary of them still. */
	if (g->wide_vectors)
		add_text_attribute(g, fn, "prefer-vector-width", "512");
	return fn;
}

/* ---- control flow ---- */

static void due_check(const struct irgen *g)
{
	LLVMValueRef at = ir_const(g, offsetof(struct sbpf_exec, due)), exec = g->exec, v;
	LLVMBasicBlockRef late = LLVMAppendBasicBlockInContext(g->context, g->fn, "");
	LLVMBasicBlockRef go_on = LLVMAppendBasicBlockInContext(g->context, g->fn, "");

	v = LLVMBuildLoad2(g->b, g->i32, LLVMBuildGEP2(g->b, g->i8, exec, &at, 1, ""), "");
	LLVMSetVolatile(v, true);
	v = LLVMBuildICmp(g->b, LLVMIntNE, v, LLVMConstNull(g->i32), "");
	LLVMBuildCondBr(g->b, v, late, go_on);
	LLVMPositionBuilderAtEnd(g->b, late);
	LLVMBuildCall2(g->b, g->due_type, g->due, &exec, 1, "");
	LLVMBuildUnreachable(g->b);
	LLVMPositionBuilderAtEnd(g->b, go_on);
}

static void clobber_arguments(const struct irgen *g)
{
	for (unsigned int r = 1; r <= 5; r++)
		ir_set(g, r, ir_const(g, 0));
}

/* The note tells a raise which helper it was; a store to exec, which costs little beside the call. */
static void helper_call(struct irgen *g, const struct sbpf_insn *insn, uint32_t pc)
{
	LLVMValueRef at = ir_const(g, offsetof(struct sbpf_exec, pc)), args[6] = {g->exec};
	unsigned int n = g->helper_args[insn->imm];

	LLVMBuildStore(g->b, LLVMConstInt(g->i32, pc, false),
		       LLVMBuildGEP2(g->b, g->i8, g->exec, &at, 1, ""));
	for (unsigned int i = 1; i <= n; i++)
		args[i] = ir_get(g, i);
	ir_set(g, 0,
	       LLVMBuildCall2(g->b, g->helper_type[n], helper_of(g, (uint32_t)insn->imm), args,
			      n + 1, ""));
	due_check(g);
	clobber_arguments(g);
}

static uint32_t callee(const struct irgen *g, const struct sbpf_insn *insn, uint32_t pc)
{
	return g->func_from[(int64_t)pc + 1 + insn->imm];
}

static void local_call(struct irgen *g, const struct sbpf_insn *insn, uint32_t pc)
{
	uint32_t f = callee(g, insn, pc);
	LLVMValueRef args[8] = {g->exec, g->base};

	for (unsigned int i = 1; i <= 5; i++)
		args[i + 1] = ir_get(g, i);
	args[7] = LLVMBuildSub(g->b, ir_get(g, FP), ir_const(g, g->frame_bytes), "");
	ir_set(g, 0, LLVMBuildCall2(g->b, g->local_type, g->funcs[f], args, 8, ""));
	clobber_arguments(g);
}

/* Where control goes from before @pc; past the end only in code that no path reaches. */
static LLVMBasicBlockRef block_at(const struct irgen *g, const struct sbpf_func *func, int64_t pc)
{
	LLVMBasicBlockRef nowhere, here;

	if (pc < func->end)
		return g->blocks[pc];
	here = LLVMGetInsertBlock(g->b);
	nowhere = LLVMAppendBasicBlockInContext(g->context, g->fn, "");
	LLVMPositionBuilderAtEnd(g->b, nowhere);
	LLVMBuildUnreachable(g->b);
	LLVMPositionBuilderAtEnd(g->b, here);
	return nowhere;
}

static bool is_leave(const struct sbpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_EXIT);
}

/* ---- walking pointers ---- */

/*
 * A loop "do … while ((p += 8) < end)" may go on for ever: where end is one of the last numbers, p jumps over it.  C promises that
 * there is no such thing; here it must behave, and LLVM, which cannot count its turns, does not vectorize it.  So the
 * function is translated twice.  In the first copy such a comparison is with the smaller of end and LAST_END, which p cannot
 * jump over.  Where that fails and the real one does not, control goes to the second copy, which is as the program
 * says, and stays there.
 */
#define STEP_MAX 4096
#define LAST_END (0ull - STEP_MAX)

static uint16_t find_stepped(const struct sbpf_program *prog, const struct sbpf_func *func)
{
	uint16_t stepped = 0;

	for (uint32_t pc = func->start; pc < func->end; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];

		/* A step of one jumps over nothing. */
		if (insn->code == (BPF_ALU64 | BPF_ADD | BPF_K) && insn->imm > 1 &&
		    insn->imm <= STEP_MAX && !(prog->insn_flags[pc] & SBPF_INSN_TAIL))
			stepped |= (uint16_t)(1u << insn->dst);
	}
	return stepped;
}

/* An unsigned comparison of two registers, "p < end" one way or the other: in which of them p would be. */
static bool is_walk(const struct irgen *g, const struct sbpf_insn *insn)
{
	switch (insn->code) {
	case BPF_JMP | BPF_JLT | BPF_X:
	case BPF_JMP | BPF_JGE | BPF_X:
		return g->stepped >> insn->dst & 1;
	case BPF_JMP | BPF_JGT | BPF_X:
	case BPF_JMP | BPF_JLE | BPF_X:
		return g->stepped >> insn->src & 1;
	}
	return false;
}

/* In the first copy: @pc is a comparison that is_walk(). */
static void walk(const struct irgen *g, const struct sbpf_func *func, uint32_t pc)
{
	const struct sbpf_insn *insn = &g->prog->insns[pc];
	uint8_t op = BPF_OP(insn->code);
	bool swapped = op == BPF_JGT || op == BPF_JLE, goes_on = op == BPF_JLT || op == BPF_JGT;
	LLVMValueRef p = ir_get(g, swapped ? insn->src : insn->dst);
	LLVMValueRef end = ir_get(g, swapped ? insn->dst : insn->src);
	LLVMBasicBlockRef check = LLVMAppendBasicBlockInContext(g->context, g->fn, "");
	uint32_t target = (uint32_t)sbpf_jump_target(insn, pc);
	uint32_t less = goes_on ? target : pc + 1, other = goes_on ? pc + 1 : target;
	LLVMValueRef last = ir_const(g, LAST_END), near_end;

	near_end = LLVMBuildICmp(g->b, LLVMIntULT, end, last, "");
	near_end = LLVMBuildSelect(g->b, near_end, end, last, "");
	LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntULT, p, near_end, ""),
			block_at(g, func, less), check);
	LLVMPositionBuilderAtEnd(g->b, check);
	if (less < func->end && other < func->end)
		LLVMBuildCondBr(g->b, LLVMBuildICmp(g->b, LLVMIntULT, p, end, ""),
				g->copies[1][less], g->copies[0][other]);
	else
		LLVMBuildUnreachable(g->b); /* it falls off the end: no path leads here */
}

/* One instruction; true if it ends its block. */
static bool translate(struct irgen *g, const struct sbpf_func *func, uint32_t pc)
{
	const struct sbpf_insn *insn = &g->prog->insns[pc];
	uint8_t cls = BPF_CLASS(insn->code);

	LLVMSetCurrentDebugLocation2(
		g->b, LLVMDIBuilderCreateDebugLocation(g->context, pc + 1, 0, g->scope, NULL));
	if (cls != BPF_JMP && cls != BPF_JMP32) {
		ir_straight(g, insn);
		return false;
	}
	if (is_leave(insn)) {
		LLVMBuildRet(g->b, ir_get(g, 0));
		return true;
	}
	if (g->blocks == g->copies[0] && is_walk(g, insn)) {
		walk(g, func, pc);
		return true;
	}
	if (sbpf_is_jump(insn)) {
		LLVMBasicBlockRef to = g->blocks[sbpf_jump_target(insn, pc)];

		if (BPF_OP(insn->code) == BPF_JA)
			LLVMBuildBr(g->b, to);
		else
			LLVMBuildCondBr(g->b, ir_condition(g, insn), to,
					block_at(g, func, (int64_t)pc + 1));
		return true;
	}
	if (insn->src == BPF_CALL_LOCAL)
		local_call(g, insn, pc);
	else
		helper_call(g, insn, pc);
	return false;
}

/* Blocks start at leaders and behind jumps and exits. */
static void make_blocks(struct irgen *g, const struct sbpf_func *func)
{
	bool starts = true;

	for (uint32_t pc = func->start; pc < func->end; pc++) {
		const struct sbpf_insn *insn = &g->prog->insns[pc];

		if (g->prog->insn_flags[pc] & SBPF_INSN_TAIL)
			continue;
		if (starts || g->prog->insn_flags[pc] & SBPF_INSN_LEADER)
			g->blocks[pc] = LLVMAppendBasicBlockInContext(g->context, g->fn, "");
		starts = sbpf_is_jump(insn) || is_leave(insn);
	}
}

/* ---- functions ---- */

static void describe(struct irgen *g, const struct sbpf_func *func)
{
	size_t len;
	const char *name = LLVMGetValueName2(g->fn, &len);

	g->scope = LLVMDIBuilderCreateFunction(g->debug, g->file, name, len, name, len, g->file,
					       func->start + 1, g->function_type, true, true,
					       func->start + 1, LLVMDIFlagZero, true);
	LLVMSetSubprogram(g->fn, g->scope);
	LLVMSetCurrentDebugLocation2(g->b, LLVMDIBuilderCreateDebugLocation(
						   g->context, func->start + 1, 0, g->scope, NULL));
}

/* What a function finds: its arguments, zero in all other registers, and a frame of zeros. */
static void prologue(struct irgen *g, uint32_t f, const struct sbpf_func *func)
{
	for (unsigned int r = 0; r < N_REGS; r++) {
		g->reg[r] = LLVMBuildAlloca(g->b, g->i64, "");
		g->low[r] = LLVMBuildAlloca(g->b, g->i32, "");
	}
	g->frame_bytes = func->frame;
	g->frame = NULL;
	if (func->frame && ir_frame_is_private(g->prog, func)) {
		g->frame = LLVMBuildAlloca(g->b, LLVMArrayType(g->i8, func->frame), "");
		LLVMSetAlignment(g->frame, 16);
	}
	for (unsigned int r = 0; r < N_REGS; r++) {
		unsigned int args = is_plain_entry(g, f) ? 2 : 5;
		bool given = (r >= 1 && r <= args) || r == FP;

		ir_set(g, r,
		       given ? LLVMGetParam(g->fn, r == FP ? args + 2 : r + 1) : ir_const(g, 0));
	}
	/* An entry's lies in a stack that was zeroed before. */
	if (func->frame && (g->frame || g->called[f]))
		ir_zero_frame(g, func->frame);
}

static void copy(struct irgen *g, const struct sbpf_func *func, bool ended)
{
	for (uint32_t pc = func->start; pc < func->end; pc++) {
		if (g->prog->insn_flags[pc] & SBPF_INSN_TAIL)
			continue;
		if (g->blocks[pc]) {
			if (!ended)
				LLVMBuildBr(g->b, g->blocks[pc]);
			LLVMPositionBuilderAtEnd(g->b, g->blocks[pc]);
		}
		ended = translate(g, func, pc);
	}
	if (!ended)
		LLVMBuildUnreachable(g->b);
}

static bool has_walk(const struct irgen *g, const struct sbpf_func *func)
{
	for (uint32_t pc = func->start; pc < func->end; pc++)
		if (!(g->prog->insn_flags[pc] & SBPF_INSN_TAIL) && is_walk(g, &g->prog->insns[pc]))
			return true;
	return false;
}

static void function(struct irgen *g, uint32_t f)
{
	const struct sbpf_func *func = &g->prog->funcs[f];

	g->fn = g->funcs[f];
	g->exec = LLVMGetParam(g->fn, 0);
	g->base = LLVMGetParam(g->fn, 1);
	LLVMPositionBuilderAtEnd(g->b, LLVMAppendBasicBlockInContext(g->context, g->fn, ""));
	describe(g, func);
	prologue(g, f, func);
	g->stepped = find_stepped(g->prog, func);
	if (!has_walk(g, func))
		g->stepped = 0;
	for (unsigned int i = g->stepped ? 2 : 1; i--;) {
		g->blocks = g->copies[i];
		make_blocks(g, func);
	}
	copy(g, func, false);
	if (g->stepped) {
		g->blocks = g->copies[1];
		copy(g, func, true);
	}
	LLVMSetCurrentDebugLocation2(g->b, NULL);
}

/* Around an entry that is called locally, too. */
static void wrap(struct irgen *g, uint32_t f)
{
	LLVMValueRef args[8];

	g->fn = add_function(g, true, f);
	LLVMPositionBuilderAtEnd(g->b, LLVMAppendBasicBlockInContext(g->context, g->fn, ""));
	describe(g, &g->prog->funcs[f]);
	for (unsigned int i = 0; i < 4; i++)
		args[i] = LLVMGetParam(g->fn, i);
	args[4] = args[5] = args[6] = ir_const(g, 0);
	args[7] = LLVMGetParam(g->fn, 4);
	LLVMBuildRet(g->b, LLVMBuildCall2(g->b, g->local_type, g->funcs[f], args, 8, ""));
	LLVMSetCurrentDebugLocation2(g->b, NULL);
}

static void survey(struct irgen *g)
{
	for (uint32_t f = 0; f < g->prog->n_funcs; f++)
		g->func_from[g->prog->funcs[f].start] = f;
	for (uint32_t i = 0; i < g->prog->n_entries; i++)
		g->enters[g->prog->entries[i].func] = 1;
	for (uint32_t f = 0; f < g->prog->n_funcs; f++) {
		const struct sbpf_func *func = &g->prog->funcs[f];

		for (uint32_t pc = func->start; func->reachable && pc < func->end; pc++) {
			const struct sbpf_insn *insn = &g->prog->insns[pc];

			if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == BPF_CALL_LOCAL &&
			    !(g->prog->insn_flags[pc] & SBPF_INSN_TAIL))
				g->called[callee(g, insn, pc)] = 1;
		}
	}
}

static void add_flag(const struct irgen *g, LLVMModuleFlagBehavior how, const char *name,
		     uint32_t v)
{
	LLVMAddModuleFlag(g->module, how, name, strlen(name),
			  LLVMValueAsMetadata(LLVMConstInt(g->i32, v, false)));
}

static void start_debug(struct irgen *g)
{
	static const char producer[] = "sbpf";

	add_flag(g, LLVMModuleFlagBehaviorWarning, "Dwarf Version", 4);
	add_flag(g, LLVMModuleFlagBehaviorWarning, "Debug Info Version",
		 LLVMDebugMetadataVersion());
	g->debug = LLVMCreateDIBuilder(g->module);
	g->file = LLVMDIBuilderCreateFile(g->debug, "p", 1, ".", 1);
	LLVMDIBuilderCreateCompileUnit(
		g->debug, LLVMDWARFSourceLanguageC99, g->file, producer, sizeof(producer) - 1, true,
		"", 0, 0, "", 0, LLVMDWARFEmissionLineTablesOnly, 0, false, false, "", 0, "", 0);
	g->function_type =
		LLVMDIBuilderCreateSubroutineType(g->debug, g->file, NULL, 0, LLVMDIFlagZero);
}

static void build_module(struct irgen *g)
{
	const struct sbpf_program *prog = g->prog;

	find_types(g);
	add_flag(g, LLVMModuleFlagBehaviorWarning, "RtLibUseGOT", 1);
	add_flag(g, LLVMModuleFlagBehaviorError, "PIC Level", 2);
	start_debug(g);
	declare_due(g);
	survey(g);
	for (uint32_t f = 0; f < prog->n_funcs; f++)
		if (prog->funcs[f].reachable)
			g->funcs[f] = add_function(g, is_plain_entry(g, f), f);
	for (uint32_t f = 0; f < prog->n_funcs; f++) {
		if (prog->funcs[f].reachable)
			function(g, f);
		if (g->enters[f] && g->called[f])
			wrap(g, f);
	}
	LLVMDIBuilderFinalize(g->debug);
}

/* ---- the pipeline ---- */

/*
 * What LLVM has no other switch for.  -vectorizer-maximize-bandwidth: vectors as wide as the bytes that are read allow, not
 * as the 64-bit counter beside them does (a byte search: 0.11 instead of 1.4 ns/byte).  -disable-licm-promotion:
 * a store stays in its loop, as its fault is to be met even if the loop never ends.
 */
void jit_llvm_start(void)
{
	static const char *const options[] = {"sbpf", "-vectorizer-maximize-bandwidth",
					      "-disable-licm-promotion"};

	LLVMParseCommandLineOptions(3, options, "");
	LLVMInitializeNativeTarget();
	LLVMInitializeNativeAsmPrinter();
}

static int refuse(char *why, size_t why_len, char *message)
{
	snprintf(why, why_len, "%s", message ? message : "no reason given");
	LLVMDisposeMessage(message);
	return -EFAULT;
}

static bool host_has(const char *feature)
{
	char *features = LLVMGetHostCPUFeatures();
	bool has = strstr(features, feature);

	LLVMDisposeMessage(features);
	return has;
}

static int make_machine(LLVMTargetMachineRef *out, char *why, size_t why_len)
{
	char *triple = LLVMGetDefaultTargetTriple(), *message = NULL;
	char *cpu = LLVMGetHostCPUName(), *features = LLVMGetHostCPUFeatures();
	LLVMTargetRef target;
	int r = 0;

	if (LLVMGetTargetFromTriple(triple, &target, &message))
		r = refuse(why, why_len, message);
	else
		*out = LLVMCreateTargetMachine(target, triple, cpu, features,
					       LLVMCodeGenLevelAggressive, LLVMRelocPIC,
					       LLVMCodeModelSmall);
	LLVMDisposeMessage(triple);
	LLVMDisposeMessage(cpu);
	LLVMDisposeMessage(features);
	return r;
}

static int optimize(struct irgen *g, LLVMTargetMachineRef machine, char *why, size_t why_len)
{
	LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
	LLVMErrorRef error;
	char *message;

	LLVMPassBuilderOptionsSetLoopInterleaving(options, true);
	LLVMPassBuilderOptionsSetLoopVectorization(options, true);
	LLVMPassBuilderOptionsSetSLPVectorization(options, true);
	LLVMPassBuilderOptionsSetLoopUnrolling(options, true);
	error = LLVMRunPasses(g->module, PIPELINE, machine, options);
	LLVMDisposePassBuilderOptions(options);
	if (!error)
		return 0;
	message = LLVMGetErrorMessage(error);
	snprintf(why, why_len, "%s", message);
	LLVMDisposeErrorMessage(message);
	return -EFAULT;
}

static int emit(struct irgen *g, LLVMMemoryBufferRef *out, char *why, size_t why_len)
{
	LLVMTargetMachineRef machine = NULL;
	LLVMTargetDataRef layout;
	char *message = NULL;
	int r = make_machine(&machine, why, why_len);

	if (r)
		return r;
	layout = LLVMCreateTargetDataLayout(machine);
	LLVMSetModuleDataLayout(g->module, layout);
	LLVMDisposeTargetData(layout);
	if (LLVMVerifyModule(g->module, LLVMReturnStatusAction, &message))
		r = refuse(why, why_len, message);
	else
		LLVMDisposeMessage(message);
	if (!r)
		r = optimize(g, machine, why, why_len);
	if (!r &&
	    LLVMTargetMachineEmitToMemoryBuffer(machine, g->module, LLVMObjectFile, &message, out))
		r = refuse(why, why_len, message);
	LLVMDisposeTargetMachine(machine);
	return r;
}

static int generate(struct irgen *g, LLVMMemoryBufferRef *out, char *why, size_t why_len)
{
	char *triple;
	int r;

	g->context = LLVMContextCreate();
	g->module = LLVMModuleCreateWithNameInContext("p", g->context);
	g->b = LLVMCreateBuilderInContext(g->context);
	g->wide_vectors = host_has("+avx512vbmi2");
	triple = LLVMGetDefaultTargetTriple();
	LLVMSetTarget(g->module, triple);
	LLVMDisposeMessage(triple);
	build_module(g);
	r = emit(g, out, why, why_len);
	LLVMDisposeDIBuilder(g->debug);
	LLVMDisposeBuilder(g->b);
	LLVMDisposeModule(g->module);
	LLVMContextDispose(g->context);
	return r;
}

int jit_llvm_compile(const struct sbpf_program *prog, const uint8_t *helper_args,
		     LLVMMemoryBufferRef *out, char *why, size_t why_len)
{
	struct irgen g = {.prog = prog, .helper_args = helper_args};
	int r = -ENOMEM;

	g.funcs = calloc(prog->n_funcs, sizeof(LLVMValueRef));
	g.helpers = calloc(64, sizeof(LLVMValueRef));
	g.called = calloc(prog->n_funcs, 1);
	g.enters = calloc(prog->n_funcs, 1);
	g.func_from = calloc(prog->n_insns, sizeof(*g.func_from));
	for (unsigned int i = 0; i < 2; i++)
		g.copies[i] = calloc(prog->n_insns, sizeof(LLVMBasicBlockRef));
	if (g.funcs && g.helpers && g.called && g.enters && g.func_from && g.copies[0] &&
	    g.copies[1])
		r = generate(&g, out, why, why_len);
	else
		snprintf(why, why_len, "out of memory");
	free(g.funcs);
	free(g.helpers);
	free(g.called);
	free(g.enters);
	free(g.func_from);
	free(g.copies[0]);
	free(g.copies[1]);
	return r;
}
