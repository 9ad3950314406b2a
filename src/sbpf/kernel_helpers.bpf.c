/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_helpers.bpf.c - the helpers as bytecode, for the kernel engine.
 *
 * Compiled for BPF when lambda-io is built, and translated with the program that calls them, by the same
 * translator: a pointer here is an offset into the sandbox, too.  Local variables are on the kernel's stack, so
 * there are few, and none is indexed.  The routines below have no body here: kernel_runtime.c writes them.
 * Each ends the run where it must, and the translator leaves the caller then.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#define ROUTINE __attribute__((noinline)) static
#define HELPER  __attribute__((noinline))

/* Arguments that nothing reads would not be passed. */
#define BODY1(a)                                \
	{                                       \
		__asm__ volatile("" : "+r"(a)); \
		return a;                       \
	}
#define BODY2(a, b)                                      \
	{                                                \
		__asm__ volatile("" : "+r"(a) : "r"(b)); \
		return a;                                \
	}
#define BODY3(a, b, c)                                           \
	{                                                        \
		__asm__ volatile("" : "+r"(a) : "r"(b), "r"(c)); \
		return a;                                        \
	}
/* clang-format off */
ROUTINE u64 kt_range(u64 at, u64 len, u64 write) BODY3(at, len, write)
ROUTINE u64 kt_charge(u64 fuel) BODY1(fuel)
ROUTINE u64 kt_raise(u64 error, u64 address) BODY2(error, address)
ROUTINE u64 kt_trace_word(u64 place, u64 word) BODY2(place, word)
ROUTINE u64 kt_trace_len(u64 len, u64 set) BODY2(len, set)
/* clang-format on */

/* A packed type would be read byte by byte; what is not aligned is read whole, too. */
#define P8(p) (*(u64 *)(p))
#define P4(p) (*(u32 *)(p))
#define P1(p) (*(u8 *)(p))

#define EACH(byte) ((u64)(byte) * 0x0101010101010101ull)
#define LOW        EACH(0x7f)
#define HIGH       EACH(0x80)

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

			static inline void charge_bytes(u64 n)
{
	kt_charge(1 + n / 8 + !!(n % 8));
}

/* ---- memory ---- */

static inline void copy_up(u64 to, u64 from, u64 n)
{
	for (; n >= 64; n -= 64, to += 64, from += 64) {
		u64 a = P8(from), b = P8(from + 8), c = P8(from + 16), d = P8(from + 24);
		u64 e, f, g, h;

		/* Where they overlap the copy goes down in memory: what is read later is not written yet. */
		e = P8(from + 32);
		f = P8(from + 40);
		g = P8(from + 48);
		h = P8(from + 56);
		P8(to) = a;
		P8(to + 8) = b;
		P8(to + 16) = c;
		P8(to + 24) = d;
		P8(to + 32) = e;
		P8(to + 40) = f;
		P8(to + 48) = g;
		P8(to + 56) = h;
	}
	for (; n >= 8; n -= 8, to += 8, from += 8)
		P8(to) = P8(from);
	for (; n; n--, to++, from++)
		P1(to) = P1(from);
}

static inline void copy_down(u64 to, u64 from, u64 n)
{
	for (; n >= 8; n -= 8)
		P8(to + n - 8) = P8(from + n - 8);
	for (; n; n--)
		P1(to + n - 1) = P1(from + n - 1);
}

HELPER u64 lambda_memmove(u64 dst, u64 src, u64 n)
{
	u64 to = (u32)dst, from = (u32)src;

	kt_range(dst, n, 1);
	kt_range(src, n, 0);
	charge_bytes(n);
	if (to - from < n)
		copy_down(to, from, n);
	else
		copy_up(to, from, n);
	return dst;
}

HELPER u64 lambda_memset(u64 dst, u64 byte, u64 n)
{
	u64 to = (u32)dst, word = EACH((u8)byte);

	kt_range(dst, n, 1);
	charge_bytes(n);
	for (; n >= 64; n -= 64, to += 64) {
		P8(to) = word;
		P8(to + 8) = word;
		P8(to + 16) = word;
		P8(to + 24) = word;
		P8(to + 32) = word;
		P8(to + 40) = word;
		P8(to + 48) = word;
		P8(to + 56) = word;
	}
	for (; n >= 8; n -= 8, to += 8)
		P8(to) = word;
	for (; n; n--, to++)
		P1(to) = (u8)word;
	return dst;
}

HELPER u64 lambda_memcmp(u64 a, u64 b, u64 n)
{
	u64 p = (u32)a, q = (u32)b;

	kt_range(a, n, 0);
	kt_range(b, n, 0);
	charge_bytes(n);
	for (; n >= 8; n -= 8, p += 8, q += 8) {
		u64 x = P8(p), y = P8(q);

		if (UNLIKELY(x != y)) {
			x = __builtin_bswap64(x);
			y = __builtin_bswap64(y);
			return x < y ? (u64)-1 : 1;
		}
	}
	for (; n; n--, p++, q++)
		if (P1(p) != P1(q))
			return P1(p) < P1(q) ? (u64)-1 : 1;
	return 0;
}

/* Bit 7 of the lowest byte that is zero; of none above it that is not, but for bytes of 1 after a zero. */
static inline u64 zeros(u64 x)
{
	return (x - EACH(1)) & ~x & HIGH;
}

/* The number of the lowest byte of which bit 7 is set. */
static inline u64 first_byte(u64 marks)
{
	u64 below = (marks - 1) & ~marks; /* ones below the lowest mark */

	return (((below >> 7) & EACH(1)) * EACH(1)) >> 56;
}

/* The place of @byte in [p, end), or end. */
static inline u64 find_byte(u64 p, u64 end, u64 byte)
{
	u64 each = EACH((u8)byte);

	for (; end - p >= 32; p += 32) {
		u64 a = zeros(P8(p) ^ each), b = zeros(P8(p + 8) ^ each);
		u64 c = zeros(P8(p + 16) ^ each), d = zeros(P8(p + 24) ^ each);

		if (UNLIKELY(a | b | c | d))
			break;
	}
	for (; end - p >= 8; p += 8) {
		u64 a = zeros(P8(p) ^ each);

		if (a)
			return p + first_byte(a);
	}
	for (; p < end; p++)
		if (P1(p) == (u8)byte)
			return p;
	return end;
}

HELPER u64 lambda_memchr(u64 at, u64 byte, u64 n)
{
	u64 p = (u32)at, end = p + n, found;

	kt_range(at, n, 0);
	found = find_byte(p, end, byte);
	charge_bytes(found < end ? found - p + 1 : n);
	return found < end ? at + (found - p) : 0;
}

/* Are the @m bytes at @p those at @q? */
static inline u64 same(u64 p, u64 q, u64 m)
{
	for (; m >= 8; m -= 8, p += 8, q += 8)
		if (P8(p) != P8(q))
			return 0;
	for (; m; m--, p++, q++)
		if (P1(p) != P1(q))
			return 0;
	return 1;
}

/* The place of the @m > 1 bytes at @what in [p, end), or end: their first two bytes at eight places at once. */
static inline u64 find_bytes(u64 p, u64 end, u64 what, u64 m)
{
	u64 first = EACH(P1(what)), second = EACH(P1(what + 1));
	u64 last = end - m; /* the last place where it can start */

	/* A word at @p + 1 ends at or before @end while there are nine bytes. */
	for (; p <= last && end - p >= 9; p += 8) {
		u64 marks = zeros((P8(p) ^ first) | (P8(p + 1) ^ second));

		while (UNLIKELY(marks)) {
			u64 at = p + first_byte(marks);

			/* A mark above the lowest may be false. */
			if (at <= last && same(at, what, m))
				return at;
			marks &= marks - 1;
		}
	}
	for (; p <= last; p++)
		if (same(p, what, m))
			return p;
	return end;
}

HELPER u64 lambda_memmem(u64 hay, u64 n, u64 needle, u64 m)
{
	u64 p = (u32)hay, end = p + n, what = (u32)needle, found = end;

	kt_range(hay, n, 0);
	kt_range(needle, m, 0);
	charge_bytes(m);
	if (!m) {
		found = p;
	} else if (m == 1) {
		found = find_byte(p, end, P1(what));
	} else if (m <= n) {
		found = find_bytes(p, end, what, m);
	}
	/* Nothing is found at the start of nothing. */
	if (found < end || !m) {
		charge_bytes(found - p + m);
		return hay + (found - p);
	}
	charge_bytes(n);
	return 0;
}

/* An entry that calls them all: what nothing calls is not checked, and has no arguments. */
u64 library(u64 a, u64 b)
{
	return lambda_memmove(a, b, a) + lambda_memset(a, b, a) + lambda_memcmp(a, b, a) +
	       lambda_memchr(a, b, a) + lambda_memmem(a, b, a, b) + kt_raise(a, b) +
	       kt_trace_word(a, b) + kt_trace_len(a, b);
}
