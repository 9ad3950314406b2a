/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm_insn.c - straight-line instructions in LLVM's terms.
 *
 * Nothing here may be undefined to LLVM whatever the program does: shifts are masked, divisors made safe, no
 * operation claims not to wrap, and an address is the base plus a zero-extended 32-bit index, of which nothing is
 * claimed either.  The instruction's own offset is added behind that: where the sum leaves 32 bits, the
 * guard pages on both sides fault just as the first and last 64 KiB of the sandbox would, which hold no window;
 * and neighbours stay neighbours to the optimizer.
 */
#include "sbpf/jit_llvm_ir.h"

LLVMValueRef ir_intrinsic(const struct irgen *g, const char *name, LLVMTypeRef type, LLVMValueRef v)
{
	unsigned int id = LLVMLookupIntrinsicID(name, strlen(name));
	LLVMValueRef fn = LLVMGetIntrinsicDeclaration(g->module, id, &type, 1);
	LLVMTypeRef fn_type = LLVMIntrinsicGetType(g->context, id, &type, 1);

	return LLVMBuildCall2(g->b, fn_type, fn, &v, 1, "");
}

/* ---- arithmetic ---- */

static LLVMValueRef divide(const struct irgen *g, const struct sbpf_insn *insn, LLVMValueRef a,
			   LLVMValueRef b, LLVMTypeRef type)
{
	bool is_div = BPF_OP(insn->code) == BPF_DIV, is_signed = insn->off == 1;
	LLVMValueRef zero = LLVMConstNull(type), one = LLVMConstInt(type, 1, false);
	LLVMValueRef by_zero = LLVMBuildICmp(g->b, LLVMIntEQ, b, zero, "");
	LLVMValueRef safe = LLVMBuildSelect(g->b, by_zero, one, b, ""), v;

	if (is_signed) {
		/* The smallest number divided by -1 is itself here, and undefined there. */
		LLVMValueRef minus = LLVMBuildICmp(g->b, LLVMIntEQ, b, LLVMConstAllOnes(type), "");

		safe = LLVMBuildSelect(g->b, minus, one, safe, "");
		if (is_div) {
			v = LLVMBuildSDiv(g->b, a, safe, "");
			v = LLVMBuildSelect(g->b, minus, LLVMBuildNeg(g->b, a, ""), v, "");
		} else {
			v = LLVMBuildSRem(g->b, a, safe, "");
		}
	} else {
		v = is_div ? LLVMBuildUDiv(g->b, a, safe, "") : LLVMBuildURem(g->b, a, safe, "");
	}
	return LLVMBuildSelect(g->b, by_zero, is_div ? zero : a, v, "");
}

static LLVMValueRef binary(const struct irgen *g, const struct sbpf_insn *insn, LLVMValueRef a,
			   LLVMValueRef b, LLVMTypeRef type)
{
	unsigned int bits = LLVMGetIntTypeWidth(type);
	LLVMValueRef count = LLVMBuildAnd(g->b, b, LLVMConstInt(type, bits - 1, false), "");

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
		return LLVMBuildAdd(g->b, a, b, "");
	case BPF_SUB:
		return LLVMBuildSub(g->b, a, b, "");
	case BPF_MUL:
		return LLVMBuildMul(g->b, a, b, "");
	case BPF_OR:
		return LLVMBuildOr(g->b, a, b, "");
	case BPF_AND:
		return LLVMBuildAnd(g->b, a, b, "");
	case BPF_XOR:
		return LLVMBuildXor(g->b, a, b, "");
	case BPF_LSH:
		return LLVMBuildShl(g->b, a, count, "");
	case BPF_RSH:
		return LLVMBuildLShr(g->b, a, count, "");
	case BPF_ARSH:
		return LLVMBuildAShr(g->b, a, count, "");
	case BPF_DIV:
	case BPF_MOD:
		return divide(g, insn, a, b, type);
	default:
		return b; /* a move */
	}
}

static LLVMValueRef byte_swap(const struct irgen *g, const struct sbpf_insn *insn, LLVMValueRef v)
{
	bool swap = BPF_CLASS(insn->code) == BPF_ALU64 || BPF_SRC(insn->code) == BPF_X;
	LLVMTypeRef type = insn->imm == 16 ? g->i16 : insn->imm == 32 ? g->i32 : g->i64;

	if (type != g->i64)
		v = LLVMBuildTrunc(g->b, v, type, "");
	if (swap)
		v = ir_intrinsic(g, "llvm.bswap", type, v);
	return type != g->i64 ? ir_widen(g, v) : v;
}

/* The source as the operation sees it, in @type. */
static LLVMValueRef operand(const struct irgen *g, const struct sbpf_insn *insn, LLVMTypeRef type)
{
	if (BPF_SRC(insn->code) == BPF_K)
		return LLVMConstInt(type, (uint64_t)(int64_t)insn->imm, true);
	return type == g->i32 ? ir_get_low(g, insn->src) : ir_get(g, insn->src);
}

static LLVMValueRef sign_extended(const struct irgen *g, const struct sbpf_insn *insn,
				  LLVMTypeRef type)
{
	LLVMTypeRef from = insn->off == 8 ? g->i8 : insn->off == 16 ? g->i16 : g->i32;
	LLVMValueRef v = LLVMBuildTrunc(g->b, ir_get(g, insn->src), from, "");

	return LLVMBuildSExt(g->b, v, type, "");
}

static void arithmetic(const struct irgen *g, const struct sbpf_insn *insn)
{
	bool wide = BPF_CLASS(insn->code) == BPF_ALU64;
	LLVMTypeRef type = wide ? g->i64 : g->i32;
	uint8_t op = BPF_OP(insn->code);
	LLVMValueRef v;

	if (op == BPF_END) {
		ir_set(g, insn->dst, byte_swap(g, insn, ir_get(g, insn->dst)));
		return;
	}
	if (op == BPF_MOV) {
		v = insn->off ? sign_extended(g, insn, type) : operand(g, insn, type);
	} else {
		v = wide ? ir_get(g, insn->dst) : ir_get_low(g, insn->dst);
		v = op == BPF_NEG ? LLVMBuildNeg(g->b, v, "")
				  : binary(g, insn, v, operand(g, insn, type), type);
	}
	if (wide)
		ir_set(g, insn->dst, v);
	else
		ir_set_low(g, insn->dst, v);
}

LLVMValueRef ir_condition(const struct irgen *g, const struct sbpf_insn *insn)
{
	static const uint8_t predicate[16] = {
		[BPF_JEQ >> 4] = LLVMIntEQ,   [BPF_JNE >> 4] = LLVMIntNE,
		[BPF_JGT >> 4] = LLVMIntUGT,  [BPF_JGE >> 4] = LLVMIntUGE,
		[BPF_JLT >> 4] = LLVMIntULT,  [BPF_JLE >> 4] = LLVMIntULE,
		[BPF_JSGT >> 4] = LLVMIntSGT, [BPF_JSGE >> 4] = LLVMIntSGE,
		[BPF_JSLT >> 4] = LLVMIntSLT, [BPF_JSLE >> 4] = LLVMIntSLE,
		[BPF_JSET >> 4] = LLVMIntNE,
	};
	bool wide = BPF_CLASS(insn->code) == BPF_JMP;
	LLVMTypeRef type = wide ? g->i64 : g->i32;
	LLVMValueRef a = wide ? ir_get(g, insn->dst) : ir_get_low(g, insn->dst);
	LLVMValueRef b = operand(g, insn, type);
	uint8_t op = BPF_OP(insn->code);

	if (op == BPF_JSET) {
		a = LLVMBuildAnd(g->b, a, b, "");
		b = LLVMConstNull(type);
	}
	return LLVMBuildICmp(g->b, (LLVMIntPredicate)predicate[op >> 4], a, b, "");
}

/* ---- memory ---- */

static unsigned int access_bytes(const struct sbpf_insn *insn)
{
	static const uint8_t bytes[] = {4, 2, 1, 8}; /* as the size is encoded: W, H, B, DW */

	return bytes[BPF_SIZE(insn->code) >> 3];
}

static LLVMTypeRef access_type(const struct irgen *g, const struct sbpf_insn *insn)
{
	const LLVMTypeRef types[] = {g->i32, g->i16, g->i8, g->i64};

	return types[BPF_SIZE(insn->code) >> 3];
}

static LLVMValueRef behind(const struct irgen *g, LLVMValueRef p, LLVMValueRef bytes)
{
	return LLVMBuildGEP2(g->b, g->i8, p, &bytes, 1, "");
}

LLVMValueRef ir_address(const struct irgen *g, LLVMValueRef v, int64_t off)
{
	LLVMValueRef p = behind(g, g->base, ir_widen(g, ir_low(g, v)));

	return off ? behind(g, p, ir_const(g, (uint64_t)off)) : p;
}

/* Where [register + off] is: in the sandbox, or in the frame that became a variable. */
static LLVMValueRef place(const struct irgen *g, unsigned int r, int16_t off)
{
	if (r == FP && g->frame)
		return behind(g, g->frame, ir_const(g, (uint64_t)((int64_t)g->frame_bytes + off)));
	return ir_address(g, ir_get(g, r), off);
}

static LLVMValueRef load(const struct irgen *g, LLVMTypeRef type, LLVMValueRef p)
{
	LLVMValueRef v = LLVMBuildLoad2(g->b, type, p, "");

	LLVMSetAlignment(v, 1);
	return v;
}

static LLVMValueRef store(const struct irgen *g, LLVMValueRef v, LLVMValueRef p)
{
	LLVMValueRef s = LLVMBuildStore(g->b, v, p);

	LLVMSetAlignment(s, 1);
	return s;
}

/* A value of @type as a register holds it. */
static LLVMValueRef extended(const struct irgen *g, LLVMValueRef v, bool is_signed)
{
	if (LLVMTypeOf(v) == g->i64)
		return v;
	return is_signed ? LLVMBuildSExt(g->b, v, g->i64, "") : ir_widen(g, v);
}

/* A register cut to @type. */
static LLVMValueRef cut(const struct irgen *g, unsigned int r, LLVMTypeRef type)
{
	if (type == g->i64)
		return ir_get(g, r);
	return type == g->i32 ? ir_get_low(g, r) : LLVMBuildTrunc(g->b, ir_get_low(g, r), type, "");
}

static void load_register(const struct irgen *g, unsigned int r, LLVMValueRef v, bool is_signed)
{
	if (LLVMTypeOf(v) == g->i32 && !is_signed)
		ir_set_low(g, r, v);
	else
		ir_set(g, r, extended(g, v, is_signed));
}

static LLVMValueRef atomic_result(const struct irgen *g, int32_t op, LLVMValueRef old,
				  LLVMValueRef src)
{
	switch (op & ~BPF_FETCH) {
	case BPF_ADD:
		return LLVMBuildAdd(g->b, old, src, "");
	case BPF_OR:
		return LLVMBuildOr(g->b, old, src, "");
	case BPF_AND:
		return LLVMBuildAnd(g->b, old, src, "");
	case BPF_XOR:
		return LLVMBuildXor(g->b, old, src, "");
	}
	return src; /* exchange */
}

/*
 * Plain operations: a sandbox has one thread.  A compare-exchange that fails stores what was there, and such a store stays
 * (volatile), so that it faults where it would succeed.
 */
static void atomic(const struct irgen *g, const struct sbpf_insn *insn)
{
	LLVMTypeRef type = access_type(g, insn);
	LLVMValueRef p = place(g, insn->dst, insn->off), old = load(g, type, p);
	LLVMValueRef src = cut(g, insn->src, type);

	if (insn->imm == BPF_CMPXCHG) {
		LLVMValueRef want = cut(g, 0, type);
		LLVMValueRef same = LLVMBuildICmp(g->b, LLVMIntEQ, old, want, "");

		LLVMSetVolatile(store(g, LLVMBuildSelect(g->b, same, src, old, ""), p),
				!g->frame || insn->dst != FP);
		load_register(g, 0, old, false);
		return;
	}
	LLVMSetVolatile(store(g, atomic_result(g, insn->imm, old, src), p),
			!g->frame || insn->dst != FP);
	if (insn->imm & BPF_FETCH)
		load_register(g, insn->src, old, false);
}

void ir_straight(struct irgen *g, const struct sbpf_insn *insn)
{
	LLVMTypeRef type = access_type(g, insn);

	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		ir_set(g, insn->dst,
		       ir_const(g, (uint32_t)insn->imm | (uint64_t)(uint32_t)insn[1].imm << 32));
		break;
	case BPF_LDX:
		load_register(g, insn->dst, load(g, type, place(g, insn->src, insn->off)),
			      BPF_MODE(insn->code) == BPF_MEMSX);
		break;
	case BPF_ST:
		store(g, LLVMConstInt(type, (uint64_t)(int64_t)insn->imm, true),
		      place(g, insn->dst, insn->off));
		break;
	case BPF_STX:
		if (BPF_MODE(insn->code) == BPF_ATOMIC)
			atomic(g, insn);
		else
			store(g, cut(g, insn->src, type), place(g, insn->dst, insn->off));
		break;
	default:
		arithmetic(g, insn);
		break;
	}
}

/* ---- the stack ---- */

void ir_zero_frame(const struct irgen *g, uint32_t bytes)
{
	LLVMValueRef size = ir_const(g, bytes), zero = LLVMConstNull(g->i8);

	if (g->frame)
		LLVMBuildMemSet(g->b, g->frame, zero, size, 16);
	else
		LLVMBuildMemSet(g->b, ir_address(g, ir_get(g, FP), -(int64_t)bytes), zero, size, 1);
}

static bool is_memory(const struct sbpf_insn *insn)
{
	uint8_t cls = BPF_CLASS(insn->code);

	return cls == BPF_LDX || cls == BPF_ST || cls == BPF_STX;
}

/* r10 named in any way but as the base of an access. */
static bool leaks_frame(const struct sbpf_insn *insn)
{
	uint8_t cls = BPF_CLASS(insn->code);

	if (cls == BPF_STX)
		return insn->src == FP;
	if (is_memory(insn) || cls == BPF_LD)
		return false;
	if (insn->dst == FP)
		return true;
	return BPF_SRC(insn->code) == BPF_X && insn->src == FP;
}

bool ir_frame_is_private(const struct sbpf_program *prog, const struct sbpf_func *func)
{
	for (uint32_t pc = func->start; pc < func->end; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];
		unsigned int base = BPF_CLASS(insn->code) == BPF_LDX ? insn->src : insn->dst;

		if (prog->insn_flags[pc] & SBPF_INSN_TAIL)
			continue;
		if (leaks_frame(insn))
			return false;
		/* In code that no path reaches it may even lie outside the frame. */
		if (is_memory(insn) && base == FP &&
		    (insn->off < -(int32_t)func->frame || insn->off + (int)access_bytes(insn) > 0))
			return false;
	}
	return true;
}
