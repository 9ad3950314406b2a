/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm_ir.h - what the compiler's files share: a function on its way to LLVM's representation.
 */
#ifndef SBPF_JIT_LLVM_IR_H
#define SBPF_JIT_LLVM_IR_H

#include <string.h>

#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <llvm-c/TargetMachine.h>

#include "sbpf/jit_llvm.h"

#define N_REGS 11u
#define FP     10u

struct irgen {
	const struct sbpf_program *prog;
	const uint8_t *helper_args;
	LLVMContextRef context;
	LLVMModuleRef module;
	LLVMBuilderRef b;
	LLVMDIBuilderRef debug;
	LLVMMetadataRef file, function_type;
	bool wide_vectors;
	LLVMTypeRef i1, i8, i16, i32, i64, ptr;
	LLVMTypeRef local_type, entry_type;
	LLVMTypeRef helper_type[6], due_type; /* helpers by number of arguments */
	LLVMValueRef *funcs, *helpers, due;
	uint8_t *called, *enters; /* functions that local calls go to; that the runtime calls */
	uint32_t *func_from;      /* by instruction: the function that starts there */
	LLVMBasicBlockRef
		*copies[2]; /* by instruction, of the function as it is and of its second copy */
	LLVMBasicBlockRef *blocks; /* of the copy being translated */

	/* the function being translated */
	LLVMValueRef fn, exec, base;
	/* Variables.  The lower halves are kept beside: 32-bit arithmetic then stays among itself, which vectorizes better. */
	LLVMValueRef reg[N_REGS], low[N_REGS];
	LLVMValueRef frame; /* the stack frame as a variable, or NULL: it is in the sandbox */
	uint32_t frame_bytes;
	uint16_t
		stepped; /* bit r: something like a pointer walks in r; 0: there is no second copy */
	LLVMMetadataRef scope;
};

static inline LLVMValueRef ir_const(const struct irgen *g, uint64_t v)
{
	return LLVMConstInt(g->i64, v, false);
}

static inline LLVMValueRef ir_get(const struct irgen *g, unsigned int r)
{
	return LLVMBuildLoad2(g->b, g->i64, g->reg[r], "");
}

static inline LLVMValueRef ir_get_low(const struct irgen *g, unsigned int r)
{
	return LLVMBuildLoad2(g->b, g->i32, g->low[r], "");
}

/* The lower half, and 32 bits as a register holds them. */
static inline LLVMValueRef ir_low(const struct irgen *g, LLVMValueRef v)
{
	return LLVMBuildTrunc(g->b, v, g->i32, "");
}

static inline LLVMValueRef ir_widen(const struct irgen *g, LLVMValueRef v)
{
	return LLVMBuildZExt(g->b, v, g->i64, "");
}

static inline void ir_set(const struct irgen *g, unsigned int r, LLVMValueRef v)
{
	LLVMBuildStore(g->b, v, g->reg[r]);
	LLVMBuildStore(g->b, ir_low(g, v), g->low[r]);
}

static inline void ir_set_low(const struct irgen *g, unsigned int r, LLVMValueRef v)
{
	LLVMBuildStore(g->b, ir_widen(g, v), g->reg[r]);
	LLVMBuildStore(g->b, v, g->low[r]);
}

/* An LLVM intrinsic of one overloaded type, applied to one value. */
LLVMValueRef ir_intrinsic(const struct irgen *g, const char *name, LLVMTypeRef type,
			  LLVMValueRef v);

/* jit_llvm_insn.c: whatever is neither jump, call nor exit. */
void ir_straight(struct irgen *g, const struct sbpf_insn *insn);
/* Where @off from the address in @v is, in host memory. */
LLVMValueRef ir_address(const struct irgen *g, LLVMValueRef v, int64_t off);
/* The condition of a jump. */
LLVMValueRef ir_condition(const struct irgen *g, const struct sbpf_insn *insn);
/* Zero @bytes of the stack below r10, as a function finds them. */
void ir_zero_frame(const struct irgen *g, uint32_t bytes);
/* Can the frame be a variable?  Only where r10 is nothing but the base of accesses within it. */
bool ir_frame_is_private(const struct sbpf_program *prog, const struct sbpf_func *func);

/* jit_llvm.c: LLVM's options, once; and a program as an ELF object, or -errno and a reason in @why. */
void jit_llvm_start(void);
int jit_llvm_compile(const struct sbpf_program *prog, const uint8_t *helper_args,
		     LLVMMemoryBufferRef *out, char *why, size_t why_len);

#endif /* SBPF_JIT_LLVM_IR_H */
