/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cc_lower.c - makes plain C compilable for BPF, between clang's optimizer and its code generator.
 *
 * Owns: the rewriting of LLVM IR text, one instruction (a line) at a time.  What it does not know it
 * copies, so a newer clang's IR passes through and gives clang's own error at worst.
 *
 * The text it meets (clang 14 prints typed pointers, later ones opaque):
 *   tail call void @llvm.memcpy.p0i8.p0i8.i64(i8* align 1 %0, i8* align 1 %1, i64 %2, i1 false), !dbg !3
 *   call void @llvm.memset.p0.i64(ptr align 8 %0, i8 %v, i64 70, i1 false), !dbg !3, !tbaa !5
 *   %3 = load i64, ptr %2, align 1, !dbg !3
 *   store atomic i64 %3, ptr %2 syncscope("singlethread") release, align 8, !dbg !3
 * New values are named, so that the module's numbered ones stay in order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cc_ir.h"
#include "cc_lower.h"

/* Up to so many bytes are moved by the function's own loads and stores: cheaper than a call. */
#define INLINE_COPY 128u
/* A move has to hold all its bytes in registers before it stores the first. */
#define INLINE_MOVE 64u

#define MOST_ARGUMENTS 5u /* of a BPF function: r1 to r5 */

static const struct {
	const char *intrinsic, *helper,
		*second; /* second: the type of the second argument or NULL: a pointer */
	size_t inline_max;
} ops[OPS] = {
	[OP_COPY] = {"cpy.", "lambda_memcpy", NULL, INLINE_COPY},
	[OP_MOVE] = {"move.", "lambda_memmove", NULL, INLINE_MOVE},
	[OP_SET] = {"set.", "lambda_memset", "i32", INLINE_COPY},
};

/* A pointer argument again, with the alignment that lets it be accessed by whole words. */
static void put_aligned(struct text *t, struct span arg)
{
	struct span type, rest;
	size_t at;

	split_argument(arg, &type, &rest);
	put_span(t, type);
	puts_(t, " align 8 ");
	at = find(rest, "align ");
	if (at < rest.len && (at == 0 || rest.p[at - 1] == ' ')) {
		put(t, rest.p, at);
		rest = skip(rest, at + strlen("align "));
		rest = trim(skip(rest, until(rest, " ")));
	}
	put_span(t, rest);
}

/* An operand as a wider integer: a constant stays one, a value is extended in a line before. */
static void widen(struct lowering *lo, struct span type, struct span value, const char *wide,
		  unsigned int mask, char name[48])
{
	long constant;

	if (number(value, &constant)) {
		snprintf(name, 48, "%ld", mask ? constant & (long)mask : constant);
		return;
	}
	snprintf(name, 48, "%%lio.w%u", lo->serial++);
	puts_(&lo->out, "  ");
	puts_(&lo->out, name);
	puts_(&lo->out, " = zext ");
	put_span(&lo->out, type);
	puts_(&lo->out, " ");
	put_span(&lo->out, value);
	puts_(&lo->out, " to ");
	puts_(&lo->out, wide);
	puts_(&lo->out, "\n");
}

/* The parsed call of an intrinsic. */
struct memcall {
	int op;
	struct span head; /* up to and with the bracket */
	struct span arg[4];
	struct span tail; /* after the closing bracket */
};

static bool parse_memcall(struct span line, struct memcall *call)
{
	struct span s = trim(line);
	size_t open, n = 0;

	if (!eat(&s, "tail "))
		eat(&s, "notail ");
	if (!eat(&s, "call void @llvm.mem"))
		return false;
	for (call->op = 0; call->op < OPS && !eat(&s, ops[call->op].intrinsic); call->op++)
		;
	open = until(s, "(");
	if (call->op == OPS || open == s.len || find(s, "atomic") < open)
		return false;
	s = skip(s, open + 1);
	call->head = (struct span){line.p, (size_t)(s.p - line.p)};
	for (;; n++) {
		size_t end = until(s, ",)");

		if (end == s.len || n == 4)
			return false;
		call->arg[n] = trim((struct span){s.p, end});
		s = skip(s, end + 1);
		if (s.p[-1] == ')')
			break;
	}
	call->tail = s;
	return n == 3;
}

static const char *pointer_type(struct span arg)
{
	static const char *const types[] = {"ptr", "i8*"};

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		size_t n = strlen(types[i]);

		/* not "ptr addrspace(1)", "i8**" */
		if (starts(arg, types[i]) && arg.len > n && arg.p[n] == ' ' &&
		    !starts(skip(arg, n + 1), "addrspace"))
			return types[i];
	}
	return NULL;
}

static bool lower_memcall(struct lowering *lo, struct span line)
{
	struct text *out = &lo->out;
	struct memcall call;
	const char *pointer;
	struct span type, value;
	char length[48], byte[48];
	long constant;

	if (!parse_memcall(line, &call))
		return false;
	pointer = pointer_type(call.arg[0]);
	if (!pointer || (call.op != OP_SET && !pointer_type(call.arg[1])))
		return false;
	split_argument(call.arg[2], &type, &value);
	if (number(value, &constant) && constant >= 0 &&
	    (size_t)constant <= ops[call.op].inline_max) {
		put_span(out, call.head);
		put_aligned(out, call.arg[0]);
		puts_(out, ", ");
		if (call.op == OP_SET)
			put_span(out, call.arg[1]);
		else
			put_aligned(out, call.arg[1]);
		puts_(out, ", ");
		put_span(out, call.arg[2]);
		puts_(out, ", ");
		put_span(out, call.arg[3]);
		puts_(out, ")");
		put_span(out, call.tail);
		puts_(out, "\n");
		return true;
	}
	if (equals(type, "i64"))
		snprintf(length, sizeof(length), "%.*s", (int)value.len, value.p);
	else
		widen(lo, type, value, "i64", 0, length);
	if (equals(type, "i64") && value.len >= sizeof(length))
		return false; /* a constant expression: clang's own error */
	if (call.op == OP_SET) {
		split_argument(call.arg[1], &type, &value);
		widen(lo, type, value, "i32", 0xff, byte);
	}
	char head[64];

	snprintf(head, sizeof(head), "  %%lio.c%u = call %s @%s(", lo->serial++, pointer,
		 ops[call.op].helper);
	puts_(out, head);
	put_span(out, call.arg[0]);
	puts_(out, ", ");
	if (call.op == OP_SET) {
		puts_(out, "i32 ");
		puts_(out, byte);
	} else {
		put_span(out, call.arg[1]);
	}
	puts_(out, ", i64 ");
	puts_(out, length);
	puts_(out, ")");
	puts_(out, debug_of(call.tail, byte, sizeof(byte)));
	puts_(out, "\n");
	lo->pointer[call.op] = pointer;
	return true;
}

static unsigned int type_size(struct span type)
{
	if (equals(type, "i16"))
		return 2;
	if (equals(type, "i32"))
		return 4;
	if (equals(type, "i64") || equals(type, "ptr") || (type.len && type.p[type.len - 1] == '*'))
		return 8;
	return 0;
}

/* "..., align N" of a load or a store, raised to the size of what is accessed. */
static bool lower_access(struct lowering *lo, struct span line)
{
	static const char align[] = ", align ";
	struct span s = trim(line), type, rest;
	size_t digits;
	unsigned int size;
	long old;

	if (!eat(&s, "store ")) {
		if (!starts(s, "%"))
			return false;
		s = skip(s, until(s, " "));
		if (!eat(&s, " = load "))
			return false;
	}
	eat(&s, "volatile ");
	type = (struct span){s.p, until(s, " ,")};
	size = type_size(type);
	rest = skip(s, until(s, ","));
	while (rest.len && !starts(rest, align))
		rest = skip(rest, 1 + until(skip(rest, 1), ","));
	if (!rest.len)
		return false;
	rest = skip(rest, strlen(align));
	digits = until(rest, ", ");
	if (!size || !number((struct span){rest.p, digits}, &old) || old >= (long)size)
		return false;
	char fixed[16];

	snprintf(fixed, sizeof(fixed), "%u", size);
	put(&lo->out, line.p, (size_t)(rest.p - line.p));
	puts_(&lo->out, fixed);
	put_span(&lo->out, skip(rest, digits));
	puts_(&lo->out, "\n");
	return true;
}

/*
 * A sandbox has one thread: an atomic load or store is a plain one, and a fence is nothing.  (Atomic
 * operations that BPF has stay as they are.)
 */
static bool lower_atomic(struct lowering *lo, struct span line)
{
	static const char align[] = ", align ";
	struct span s = trim(line), before, rest;
	struct text plain = {0};

	if (starts(s, "fence "))
		return true;
	if (starts(s, "%"))
		s = skip(s, find(s, " = ") + strlen(" = "));
	if (!starts(s, "load atomic ") && !starts(s, "store atomic "))
		return false;
	before = (struct span){line.p, find(line, "atomic ")};
	rest = skip(line, before.len + strlen("atomic "));
	s = (struct span){rest.p, find(rest, align)}; /* ends in "[syncscope(…) ]ORDERING" */
	rest = skip(rest, s.len);
	while (s.len && s.p[s.len - 1] != ' ')
		s.len--;
	s.len = find(s, " syncscope(");
	put_span(&plain, before);
	put_span(&plain, trim(s));
	put_span(&plain, rest);
	line = (struct span){plain.p, plain.len};
	if (!plain.failed && !lower_access(lo, line)) {
		put_span(&lo->out, line);
		puts_(&lo->out, "\n");
	}
	lo->out.failed |= plain.failed;
	free(plain.p);
	return true;
}

static void note_declarations(struct lowering *lo, struct span line)
{
	struct span popcount = skip(line, find(line, "@llvm.ctpop.i"));
	long width;

	if (eat(&popcount, "@llvm.ctpop.i") &&
	    number((struct span){popcount.p, until(popcount, "(")}, &width) && width > 0 &&
	    width <= 64)
		lo->popcount_declared[width] = true;
	for (int op = 0; op < OPS; op++) {
		char name[32];

		snprintf(name, sizeof(name), "@%s(", ops[op].helper);
		if (find(line, name) < line.len)
			lo->declared[op] = true;
	}
}

static void put_declarations(struct lowering *lo)
{
	for (int op = 0; op < OPS; op++) {
		const char *p = lo->pointer[op];
		char buf[128];

		if (!p || lo->declared[op])
			continue;
		snprintf(buf, sizeof(buf), "declare %s @%s(%s, %s, i64)\n", p, ops[op].helper, p,
			 ops[op].second ? ops[op].second : p);
		puts_(&lo->out, buf);
	}
	for (unsigned int width = 8; width <= 64; width++) {
		char buf[64];

		if (!lo->popcount[width] || lo->popcount_declared[width])
			continue;
		snprintf(buf, sizeof(buf), "declare i%u @llvm.ctpop.i%u(i%u)\n", width, width,
			 width);
		puts_(&lo->out, buf);
	}
}

static bool uncallable(struct span define)
{
	size_t args = 0;

	define = skip(define, find(define, "@"));
	define = skip(define, find(define, "("));
	while (define.len && define.p[0] != ')') {
		define = skip(define, 1);
		if (define.len && define.p[0] == ')')
			break;
		args++;
		define = skip(define, until(define, ",)"));
	}
	return args > MOST_ARGUMENTS;
}

bool cc_needs_inlining(const char *ir, size_t len)
{
	for (size_t at = 0; at < len;) {
		const char *end = memchr(ir + at, '\n', len - at);
		struct span line = {ir + at, end ? (size_t)(end - ir - at) : len - at};

		at += line.len + 1;
		if (starts(line, "define internal ") &&
		    (uncallable(line) || find(line, " sret(") < line.len ||
		     find(line, " byval(") < line.len))
			return true;
	}
	return false;
}

char *cc_lower(const char *ir, size_t len, bool no_sdiv, size_t *out_len)
{
	struct lowering lo = {.no_sdiv = no_sdiv};
	bool body = false;

	put(&lo.out, "", 0);
	for (size_t at = 0; at < len;) {
		const char *end = memchr(ir + at, '\n', len - at);
		struct span line = {ir + at, end ? (size_t)(end - ir - at) : len - at};

		at += line.len + 1;
		if (starts(line, "define ") || starts(line, "declare "))
			note_declarations(&lo, line);
		if (starts(line, "define "))
			body = true;
		else if (starts(line, "}"))
			body = false;
		else if (body && starts(line, "  ") &&
			 (lower_memcall(&lo, line) || lower_atomic(&lo, line) ||
			  lower_access(&lo, line) || lower_arithmetic(&lo, line)))
			continue;
		put_span(&lo.out, line);
		puts_(&lo.out, "\n");
	}
	put_declarations(&lo);
	if (lo.out.failed) {
		free(lo.out.p);
		return NULL;
	}
	*out_len = lo.out.len;
	return lo.out.p;
}
