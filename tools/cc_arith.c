/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cc_arith.c - arithmetic that BPF, or clang's code generator for it, has not: signed division below v4,
 * counts of zeros, products of 128 bits and products that tell of overflow.
 *
 *   %7 = sdiv i64 %3, %6, !dbg !3
 *   %6 = mul nuw i128 %5, %4, !dbg !3
 *   %8 = tail call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %3, i64 %6), !dbg !3
 *   %8 = tail call i64 @llvm.cttz.i64(i64 %7, i1 true), !range !9, !dbg !3
 */
#include <stdio.h>
#include <string.h>

#include "cc_ir.h"

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
 * %r = a * b of 128 bits, from products of 32-bit halves (BPF multiplies to 64 bits only):
 * the low words' product in full, and of the crossed ones what remains below 2^128.
 */
static void put_product(struct lowering *lo, struct span r, const char *a, const char *b,
			const char *debug)
{
	static const char *const steps[] = {
		"l = trunc i128 %2$s to i64",
		"m = trunc i128 %3$s to i64",
		"A = lshr i128 %2$s, 64",
		"B = lshr i128 %3$s, 64",
		"C = trunc i128 %%lio.A%1$u to i64",
		"D = trunc i128 %%lio.B%1$u to i64",
		"a = and i64 %%lio.l%1$u, 4294967295",
		"b = lshr i64 %%lio.l%1$u, 32",
		"c = and i64 %%lio.m%1$u, 4294967295",
		"d = lshr i64 %%lio.m%1$u, 32",
		"e = mul i64 %%lio.a%1$u, %%lio.c%1$u",
		"f = mul i64 %%lio.b%1$u, %%lio.c%1$u",
		"g = mul i64 %%lio.a%1$u, %%lio.d%1$u",
		"h = mul i64 %%lio.b%1$u, %%lio.d%1$u",
		"i = lshr i64 %%lio.e%1$u, 32",
		"j = add i64 %%lio.f%1$u, %%lio.i%1$u",
		"k = and i64 %%lio.j%1$u, 4294967295",
		"n = add i64 %%lio.g%1$u, %%lio.k%1$u",
		"o = lshr i64 %%lio.j%1$u, 32",
		"p = lshr i64 %%lio.n%1$u, 32",
		"q = add i64 %%lio.h%1$u, %%lio.o%1$u",
		"s = add i64 %%lio.q%1$u, %%lio.p%1$u",
		"t = mul i64 %%lio.l%1$u, %%lio.D%1$u",
		"u = mul i64 %%lio.C%1$u, %%lio.m%1$u",
		"v = add i64 %%lio.t%1$u, %%lio.u%1$u",
		"w = add i64 %%lio.s%1$u, %%lio.v%1$u",
		"x = mul i64 %%lio.l%1$u, %%lio.m%1$u",
		"y = zext i64 %%lio.w%1$u to i128",
		"z = shl i128 %%lio.y%1$u, 64",
		"E = zext i64 %%lio.x%1$u to i128",
	};
	unsigned int serial = lo->serial++;
	char format[128], buf[256];

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		snprintf(format, sizeof(format), "  %%%%lio.%c%%1$u%s%%4$s\n", steps[i][0],
			 steps[i] + 1);
		snprintf(buf, sizeof(buf), format, serial, a, b, debug);
		puts_(&lo->out, buf);
	}
	puts_(&lo->out, "  ");
	put_span(&lo->out, r);
	snprintf(buf, sizeof(buf), " = or i128 %%lio.z%u, %%lio.E%u%s\n", serial, serial, debug);
	puts_(&lo->out, buf);
}

static bool lower_product(struct lowering *lo, struct span line)
{
	struct span s = trim(line), r, a, b;
	char a_[64], b_[64], debug[64];

	r = (struct span){s.p, until(s, " ")};
	s = skip(s, r.len);
	if (!eat(&s, " = mul "))
		return false;
	while (eat(&s, "nuw ") || eat(&s, "nsw "))
		;
	if (!eat(&s, "i128 "))
		return false;
	a = (struct span){s.p, until(s, ",")};
	s = trim(skip(s, a.len + 1));
	b = (struct span){s.p, until(s, ",")};
	if (a.len >= sizeof(a_) || b.len >= sizeof(b_))
		return false;
	snprintf(a_, sizeof(a_), "%.*s", (int)a.len, a.p);
	snprintf(b_, sizeof(b_), "%.*s", (int)b.len, b.p);
	put_product(lo, r, a_, b_, debug_of(skip(s, b.len), debug, sizeof(debug)));
	return true;
}

/* { product, whether it overflowed } of 64-bit words: from the product of 128 bits. */
static bool lower_overflow(struct lowering *lo, struct span line)
{
	static const char *const steps[] = {
		"  %%lio.f%1$u = trunc i128 %%lio.c%1$u to i64%2$s\n",
		"  %%lio.g%1$u = lshr i128 %%lio.c%1$u, 64%2$s\n",
		"  %%lio.h%1$u = trunc i128 %%lio.g%1$u to i64%2$s\n",
		"  %%lio.i%1$u = ashr i64 %%lio.f%1$u, %3$u%2$s\n", /* what h is without overflow */
		"  %%lio.j%1$u = select i1 %4$s, i64 %%lio.i%1$u, i64 0%2$s\n",
		"  %%lio.k%1$u = icmp ne i64 %%lio.h%1$u, %%lio.j%1$u%2$s\n",
		"  %%lio.n%1$u = insertvalue { i64, i1 } undef, i64 %%lio.f%1$u, 0%2$s\n",
	};
	struct span s = trim(line), r, arg, type, value;
	unsigned int serial = lo->serial;
	char product[32], operand[2][32], debug[64], buf[256];
	bool is_signed;

	r = (struct span){s.p, until(s, " ")};
	s = skip(s, find(s, "@llvm."));
	is_signed = starts(s, "@llvm.smul.with.overflow.i64(");
	if (!starts(line, "  %") || (!is_signed && !starts(s, "@llvm.umul.with.overflow.i64(")))
		return false;
	s = skip(s, strlen("@llvm.umul.with.overflow.i64("));
	debug_of(skip(s, find(s, ")")), debug, sizeof(debug));
	for (int i = 0; i < 2; i++) {
		arg = trim((struct span){s.p, until(s, ",)")});
		s = skip(s, until(s, ",)") + 1);
		split_argument(arg, &type, &value);
		snprintf(operand[i], sizeof(operand[i]), "%%lio.%c%u", 'a' + i, serial);
		snprintf(buf, sizeof(buf), "  %s = %cext i64 %.*s to i128%s\n", operand[i],
			 is_signed ? 's' : 'z', (int)value.len, value.p, debug);
		puts_(&lo->out, buf);
	}
	snprintf(product, sizeof(product), "%%lio.c%u", serial);
	lo->serial++;
	put_product(lo, (struct span){product, strlen(product)}, operand[0], operand[1], debug);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		snprintf(buf, sizeof(buf), steps[i], serial, debug, 63u,
			 is_signed ? "true" : "false");
		puts_(&lo->out, buf);
	}
	puts_(&lo->out, "  ");
	put_span(&lo->out, r);
	snprintf(buf, sizeof(buf), " = insertvalue { i64, i1 } %%lio.n%u, i1 %%lio.k%u, 1%s\n",
		 serial, serial, debug);
	puts_(&lo->out, buf);
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

bool lower_arithmetic(struct lowering *lo, struct span line)
{
	return lower_division(lo, line) || lower_zeros(lo, line) || lower_product(lo, line) ||
	       lower_overflow(lo, line);
}
