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
 *   %7 = sdiv i64 %3, %6, !dbg !3
 *   %8 = tail call i64 @llvm.cttz.i64(i64 %7, i1 true), !range !9, !dbg !3
 * New values are named, so that the module's numbered ones stay in order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cc_lower.h"

/* Up to so many bytes are moved by the function's own loads and stores: cheaper than a call. */
#define INLINE_COPY 128u
/* A move has to hold all its bytes in registers before it stores the first. */
#define INLINE_MOVE 64u

#define MOST_ARGUMENTS 5u /* of a BPF function: r1 to r5 */

struct text {
	char *p;
	size_t len, cap;
	bool failed;
};

struct span { /* a piece of the module's text */
	const char *p;
	size_t len;
};

enum {
	OP_COPY,
	OP_MOVE,
	OP_SET,
	OPS
};

static const struct {
	const char *intrinsic, *helper,
		*second; /* second: the type of the second argument or NULL: a pointer */
	size_t inline_max;
} ops[OPS] = {
	[OP_COPY] = {"cpy.", "lambda_memcpy", NULL, INLINE_COPY},
	[OP_MOVE] = {"move.", "lambda_memmove", NULL, INLINE_MOVE},
	[OP_SET] = {"set.", "lambda_memset", "i32", INLINE_COPY},
};

struct lowering {
	struct text out;
	unsigned int serial;      /* of names we make */
	const char *pointer[OPS]; /* the pointer type of a helper that must be declared, or NULL */
	bool declared[OPS];       /* by the module itself */
	bool no_sdiv;
	bool popcount[65],
		popcount_declared[65]; /* of this width: used by us, declared by the module */
};

static void put(struct text *t, const char *p, size_t len)
{
	if (t->len + len >= t->cap && !t->failed) {
		size_t cap = (t->len + len) * 2 + 64;
		char *grown = realloc(t->p, cap);

		if (grown) {
			t->p = grown;
			t->cap = cap;
		} else {
			t->failed = true;
		}
	}
	if (t->failed)
		return;
	memcpy(t->p + t->len, p, len);
	t->len += len;
}

static void puts_(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

static void put_span(struct text *t, struct span s)
{
	put(t, s.p, s.len);
}

static bool starts(struct span s, const char *prefix)
{
	size_t n = strlen(prefix);

	return s.len >= n && memcmp(s.p, prefix, n) == 0;
}

static bool equals(struct span s, const char *text)
{
	return s.len == strlen(text) && starts(s, text);
}

static struct span skip(struct span s, size_t n)
{
	return (struct span){s.p + n, s.len - n};
}

static bool eat(struct span *s, const char *prefix)
{
	if (!starts(*s, prefix))
		return false;
	*s = skip(*s, strlen(prefix));
	return true;
}

static struct span trim(struct span s)
{
	while (s.len && *s.p == ' ')
		s = skip(s, 1);
	while (s.len && s.p[s.len - 1] == ' ')
		s.len--;
	return s;
}

static size_t find(struct span s, const char *what)
{
	const char *at = s.p ? memmem(s.p, s.len, what, strlen(what)) : NULL;

	return at ? (size_t)(at - s.p) : s.len;
}

/* Up to the next of @stops outside of brackets and quotes; s.len if there is none. */
static size_t until(struct span s, const char *stops)
{
	int depth = 0;

	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (c == '"') {
			do
				i++;
			while (i < s.len && s.p[i] != '"');
			continue;
		}
		if (!depth && strchr(stops, c))
			return i;
		if (strchr("([{<", c))
			depth++;
		else if (strchr(")]}>", c))
			depth--;
	}
	return s.len;
}

static bool number(struct span s, long *value)
{
	char buf[24], *end;

	if (!s.len || s.len >= sizeof(buf))
		return false;
	memcpy(buf, s.p, s.len);
	buf[s.len] = '\0';
	*value = strtol(buf, &end, 10);
	return *end == '\0';
}

/* "TYPE ATTRIBUTES VALUE" of an argument, without the attributes that only an argument can have. */
static void split_argument(struct span arg, struct span *type, struct span *value)
{
	*type = (struct span){arg.p, until(arg, " ")};
	*value = trim(skip(arg, type->len));
	while (eat(value, "noundef ") || eat(value, "zeroext ") || eat(value, "signext "))
		;
}

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

/* ", !dbg !N" of an instruction's tail: all that a replacement keeps of it. */
static const char *debug_of(struct span tail, char *buf, size_t cap)
{
	size_t at = find(tail, "!dbg ");

	buf[0] = '\0';
	tail = skip(tail, at);
	if (tail.len)
		snprintf(buf, cap, ", %.*s", (int)until(tail, ","), tail.p);
	return buf;
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

struct division {
	const char *type, *a, *b, *debug;
	unsigned int shift, serial;
};

/* |x| = (x ^ s) - s with s = x >> (width - 1): all ones where x is negative. */
static void put_magnitude(struct text *t, const struct division *d, char which, const char *x)
{
	char buf[512];

	snprintf(buf, sizeof(buf),
		 "  %%lio.s%c%u = ashr %s %s, %u%s\n"
		 "  %%lio.x%c%u = xor %s %s, %%lio.s%c%u%s\n"
		 "  %%lio.m%c%u = sub %s %%lio.x%c%u, %%lio.s%c%u%s\n",
		 which, d->serial, d->type, x, d->shift, d->debug, which, d->serial, d->type, x,
		 which, d->serial, d->debug, which, d->serial, d->type, which, d->serial, which,
		 d->serial, d->debug);
	puts_(t, buf);
}

/* Quotient: unsigned, with the sign of a ^ b; remainder: unsigned, with the sign of a. */
static bool lower_division(struct lowering *lo, struct span line)
{
	struct text *t = &lo->out;
	struct span s = trim(line), result, type, a, b, tail;
	char type_[16], a_[64], b_[64], debug[64], sign[32] = "0", buf[512];
	long width;
	bool rem;

	if (!lo->no_sdiv || !starts(s, "%"))
		return false;
	result = (struct span){s.p, until(s, " ")};
	s = skip(s, result.len);
	rem = starts(s, " = srem ");
	if (!rem && !starts(s, " = sdiv "))
		return false;
	s = skip(s, strlen(" = sdiv "));
	eat(&s, "exact ");
	type = (struct span){s.p, until(s, " ")};
	s = trim(skip(s, type.len));
	a = (struct span){s.p, until(s, ",")};
	if (a.len == s.len || !starts(type, "i") || !number(skip(type, 1), &width))
		return false;
	s = trim(skip(s, a.len + 1));
	b = (struct span){s.p, until(s, ",")};
	tail = skip(s, b.len);
	debug_of(tail, debug, sizeof(debug));
	if (type.len >= sizeof(type_) || a.len >= sizeof(a_) || b.len >= sizeof(b_))
		return false;
	snprintf(type_, sizeof(type_), "%.*s", (int)type.len, type.p);
	snprintf(a_, sizeof(a_), "%.*s", (int)a.len, a.p);
	snprintf(b_, sizeof(b_), "%.*s", (int)b.len, b.p);
	struct division d = {type_, a_, b_, debug, (unsigned int)width - 1, lo->serial++};

	put_magnitude(t, &d, 'a', a_);
	put_magnitude(t, &d, 'b', b_);
	if (!rem)
		snprintf(sign, sizeof(sign), "%%lio.sb%u", d.serial);
	snprintf(buf, sizeof(buf),
		 "  %%lio.u%u = %s %s %%lio.ma%u, %%lio.mb%u%s\n"
		 "  %%lio.s%u = xor %s %%lio.sa%u, %s%s\n"
		 "  %%lio.y%u = xor %s %%lio.u%u, %%lio.s%u%s\n  ",
		 d.serial, rem ? "urem" : "udiv", type_, d.serial, d.serial, debug, d.serial, type_,
		 d.serial, sign, debug, d.serial, type_, d.serial, d.serial, debug);
	puts_(t, buf);
	put_span(t, result);
	snprintf(buf, sizeof(buf), " = sub %s %%lio.y%u, %%lio.s%u%s\n", type_, d.serial, d.serial,
		 debug);
	puts_(t, buf);
	return true;
}

/*
 * Counts of leading and trailing zeros, on which clang 14 and 16 crash for BPF, as counts of ones: of
 * ~x & (x - 1), and of ~x with every bit below a one set.  Both are the width where x is 0.
 */
static bool lower_zeros(struct lowering *lo, struct span line)
{
	struct text *t = &lo->out;
	struct span s = trim(line), result, type, value;
	char type_[16], x[64], debug[64], buf[512];
	unsigned int serial = lo->serial;
	bool trailing;
	size_t at;
	long width;

	result = (struct span){s.p, until(s, " ")};
	at = find(s, "call ");
	if (!starts(s, "%") || at == s.len)
		return false;
	s = skip(s, at);
	at = find(s, "@llvm.ct");
	s = skip(s, at);
	trailing = starts(s, "@llvm.cttz.");
	if (!trailing && !starts(s, "@llvm.ctlz."))
		return false;
	s = skip(s, strlen("@llvm.cttz."));
	type = (struct span){s.p, until(s, "(")};
	s = skip(s, type.len);
	if (!eat(&s, "(") || type.len >= sizeof(type_) || !starts(type, "i") ||
	    !number(skip(type, 1), &width) || width < 8 || width > 64)
		return false;
	split_argument((struct span){s.p, until(s, ",")}, &type, &value);
	if (value.len >= sizeof(x))
		return false;
	snprintf(type_, sizeof(type_), "%.*s", (int)type.len, type.p);
	snprintf(x, sizeof(x), "%.*s", (int)value.len, value.p);
	debug_of(s, debug, sizeof(debug));
	if (trailing) {
		snprintf(buf, sizeof(buf), "  %%lio.z%u = add %s %s, -1%s\n", serial, type_, x,
			 debug);
		puts_(t, buf);
	}
	for (long shift = 1; !trailing && shift < width; shift *= 2) {
		snprintf(buf, sizeof(buf),
			 "  %%lio.r%u = lshr %s %s, %ld%s\n"
			 "  %%lio.o%u = or %s %s, %%lio.r%u%s\n",
			 lo->serial, type_, x, shift, debug, lo->serial, type_, x, lo->serial,
			 debug);
		puts_(t, buf);
		snprintf(x, sizeof(x), "%%lio.o%u", lo->serial++);
	}
	snprintf(buf, sizeof(buf), "  %%lio.n%u = xor %s %s, -1%s\n", serial, type_, x, debug);
	puts_(t, buf);
	if (trailing) {
		snprintf(buf, sizeof(buf), "  %%lio.a%u = and %s %%lio.n%u, %%lio.z%u%s\n", serial,
			 type_, serial, serial, debug);
		puts_(t, buf);
	}
	puts_(t, "  ");
	put_span(t, result);
	snprintf(buf, sizeof(buf), " = call %s @llvm.ctpop.%s(%s %%lio.%c%u)%s\n", type_, type_,
		 type_, trailing ? 'a' : 'n', serial, debug);
	puts_(t, buf);
	lo->popcount[width] = true;
	lo->serial++;
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
			  lower_access(&lo, line) || lower_division(&lo, line) ||
			  lower_zeros(&lo, line)))
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
