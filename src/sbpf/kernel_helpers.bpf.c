/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_helpers.bpf.c - the helpers as bytecode, for the kernel engine.
 *
 * Compiled for BPF when lambda-io is built, and translated with the program that calls them, by the same
 * translator: a pointer here is an offset into the sandbox, too.  What they have of their own (constants,
 * variables) lies in pages of the arena that belong to no window.  The routines below have no body here:
 * kernel_runtime.c writes them.  Each ends the run where it must, and the translator leaves the caller then.
 */
#include <stddef.h>
#include <string.h>

#define XXH_INLINE_ALL
#define XXH_VECTOR              0 /* scalar: there is no vector unit */
#define XXH_FORCE_MEMORY_ACCESS 2 /* words are read whole */
#include <xxhash.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

/* Not static: the compiler would change what they are given. */
#define ROUTINE __attribute__((noinline))
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

#define KT_TRACE (60u << 10) /* kernel_translate.h */

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
	u64 to = kt_range(dst, n, 1), from = kt_range(src, n, 0);

	charge_bytes(n);
	if (to - from < n)
		copy_down(to, from, n);
	else
		copy_up(to, from, n);
	return dst;
}

HELPER u64 lambda_memset(u64 dst, u64 byte, u64 n)
{
	u64 to = kt_range(dst, n, 1), word = EACH((u8)byte);

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
	u64 p = kt_range(a, n, 0), q = kt_range(b, n, 0);

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
	u64 p = kt_range(at, n, 0), end = p + n, found;

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
	u64 p = kt_range(hay, n, 0), end = p + n, what = kt_range(needle, m, 0), found = end;

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

/* ---- sums ---- */

#define CRC32C 0x82f63b78u /* RFC 3720's polynomial, reflected */

/* [i][b]: the sum of byte b and i zero bytes; of no program's concern, so it stays when it is there. */
static u32 crc_table[8][256];

static __attribute__((noinline)) u64 crc_prepare(u64 unused)
{
	for (u64 b = 0; b < 256; b++) {
		u32 crc = (u32)b;

		for (u64 bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C : 0);
		crc_table[0][b] = crc;
	}
	for (u64 b = 0; b < 256; b++)
		for (u64 i = 1; i < 8; i++)
			crc_table[i][b] =
				crc_table[i - 1][b] >> 8 ^ crc_table[0][crc_table[i - 1][b] & 255];
	return unused;
}

HELPER u64 lambda_crc32c(u64 sum, u64 at, u64 n)
{
	u64 p = kt_range(at, n, 0);
	u32 crc = ~(u32)sum;

	charge_bytes(n);
	if (!crc_table[0][1])
		crc_prepare(n);
	for (; n >= 8; n -= 8, p += 8) {
		u64 x = P8(p) ^ crc;

		crc = crc_table[7][x & 255] ^ crc_table[6][x >> 8 & 255] ^
		      crc_table[5][x >> 16 & 255] ^ crc_table[4][x >> 24 & 255] ^
		      crc_table[3][x >> 32 & 255] ^ crc_table[2][x >> 40 & 255] ^
		      crc_table[1][x >> 48 & 255] ^ crc_table[0][x >> 56];
	}
	for (; n; n--, p++)
		crc = crc >> 8 ^ crc_table[0][(crc ^ P1(p)) & 255];
	return ~crc;
}

static const u32 sha_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};
static u32 sha_w[64];

/* Of a number and itself above it, so that a shift is a rotation: BPF has none. */
static inline u32 ror3(u32 x, u32 a, u32 b, u32 c)
{
	u64 y = (u64)x << 32 | x;

	return (u32)(y >> a ^ y >> b ^ y >> c);
}

static inline u32 ror2(u32 x, u32 a, u32 b, u32 shift)
{
	u64 y = (u64)x << 32 | x;

	return (u32)(y >> a ^ y >> b) ^ x >> shift;
}

/* FIPS 180-4, 6.2.2 */
static inline void sha_block(u64 state, u64 p)
{
	u32 a = P4(state), b = P4(state + 4), c = P4(state + 8), d = P4(state + 12);
	u32 e = P4(state + 16), f = P4(state + 20), g = P4(state + 24), h = P4(state + 28);

	for (u64 i = 0; i < 16; i++)
		sha_w[i] = __builtin_bswap32(P4(p + 4 * i));
	for (u64 i = 16; i < 64; i++) {
		u32 w15 = sha_w[i - 15], w2 = sha_w[i - 2];

		sha_w[i] =
			sha_w[i - 16] + ror2(w15, 7, 18, 3) + sha_w[i - 7] + ror2(w2, 17, 19, 10);
	}
#pragma clang loop unroll_count(8) /* or the eight variables move on each time */
	for (u64 i = 0; i < 64; i++) {
		u32 t1 = h + ror3(e, 6, 11, 25) + ((e & f) ^ (~e & g)) + sha_k[i] + sha_w[i];
		u32 t2 = ror3(a, 2, 13, 22) + ((a & b) ^ (a & c) ^ (b & c));

		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	P4(state) += a;
	P4(state + 4) += b;
	P4(state + 8) += c;
	P4(state + 12) += d;
	P4(state + 16) += e;
	P4(state + 20) += f;
	P4(state + 24) += g;
	P4(state + 28) += h;
}

HELPER u64 lambda_sha256_blocks(u64 h, u64 blocks, u64 n)
{
	u64 len = n < 1ull << 32 ? n * 64 : ~0ull;
	u64 state = kt_range(h, 32, 1), p = kt_range(blocks, len, 0);

	charge_bytes(len);
	for (; n; n--, p += 64)
		sha_block(state, p);
	return 0;
}

/* ---- XXH3: as helpers.c has it, by the same library ---- */

struct xxh3 { /* struct lambda_xxh3 */
	u64 acc[8];
	u8 buffer[256];
	u64 total;
	u32 buffered, stripes;
};

#define STRIPES_PER_BLOCK ((XXH_SECRET_DEFAULT_SIZE - XXH_STRIPE_LEN) / XXH_SECRET_CONSUME_RATE)

static XXH3_state_t xxh;

__attribute__((noinline)) void *kt_copy(void *to, const void *from, size_t n)
{
	copy_up((u64)to, (u64)from, n);
	return to;
}

__attribute__((noinline)) void *kt_fill(void *to, size_t n)
{
	u64 p = (u64)to;

	for (; n >= 8; n -= 8, p += 8)
		P8(p) = 0;
	for (; n; n--, p++)
		P1(p) = 0;
	return to;
}

static inline u64 xxh3_is_sound(const struct xxh3 *s)
{
	u64 absorbed = s->total - s->buffered;

	if (!s->total)
		return !s->buffered && !s->stripes;
	return s->buffered && s->buffered <= sizeof(s->buffer) && s->buffered <= s->total &&
	       absorbed % XXH_STRIPE_LEN == 0 &&
	       s->stripes == absorbed / XXH_STRIPE_LEN % STRIPES_PER_BLOCK;
}

static inline void xxh3_open(const struct xxh3 *s)
{
	if (!xxh3_is_sound(s))
		kt_raise((u64)-22 /* EINVAL */, (u64)s);
	XXH3_64bits_reset(&xxh);
	if (!s->total)
		return;
	kt_copy(xxh.acc, s->acc, sizeof(xxh.acc));
	kt_copy(xxh.buffer, s->buffer, sizeof(xxh.buffer));
	xxh.totalLen = s->total;
	xxh.bufferedSize = s->buffered;
	xxh.nbStripesSoFar = s->stripes;
}

HELPER u64 lambda_xxh3_update(u64 at, u64 p, u64 n)
{
	struct xxh3 *s = (struct xxh3 *)kt_range(at, sizeof(*s), 1);
	const void *from = (const void *)kt_range(p, n, 0);

	charge_bytes(n);
	xxh3_open(s);
	if (!n)
		return 0;
	if (!xxh.totalLen)
		kt_fill(xxh.buffer, sizeof(xxh.buffer));
	XXH3_64bits_update(&xxh, from, n);
	kt_copy(s->acc, xxh.acc, sizeof(s->acc));
	kt_copy(s->buffer, xxh.buffer, sizeof(s->buffer));
	s->total = xxh.totalLen;
	s->buffered = xxh.bufferedSize;
	s->stripes = (u32)xxh.nbStripesSoFar;
	return 0;
}

HELPER u64 lambda_xxh3_digest(u64 at)
{
	const struct xxh3 *s = (const struct xxh3 *)kt_range(at, sizeof(*s), 0);

	charge_bytes(sizeof(*s));
	xxh3_open(s);
	return XXH3_64bits_digest(&xxh);
}

/* ---- trace ---- */

#define TRACE_MAX 4096u /* as helpers.c cuts it */

/* A length and so many bytes, in whole words; what finds no room is not told. */
HELPER u64 lambda_trace(u64 text, u64 n)
{
	u64 p = kt_range(text, n, 0), at = kt_trace_len(0, 0), word = 0, shift = 0;

	charge_bytes(n);
	if (n > TRACE_MAX)
		n = TRACE_MAX;
	if (at + n + 16 > KT_TRACE)
		return 0;
	kt_trace_word(at, n);
	for (at += 8; n >= 8; n -= 8, p += 8, at += 8)
		kt_trace_word(at, P8(p));
	if (n) {
		for (; n; n--, p++, shift += 8)
			word |= (u64)P1(p) << shift;
		kt_trace_word(at, word);
		at += 8;
	}
	kt_trace_len(at, 1);
	return 0;
}

/* An entry that calls them all: what nothing calls is not checked, and has no arguments. */
u64 library(u64 a, u64 b)
{
	return lambda_memmove(a, b, a) + lambda_memset(a, b, a) + lambda_memcmp(a, b, a) +
	       lambda_memchr(a, b, a) + lambda_memmem(a, b, a, b) + lambda_crc32c(a, b, a) +
	       lambda_sha256_blocks(a, b, a) + lambda_xxh3_update(a, b, a) + lambda_xxh3_digest(a) +
	       lambda_trace(a, b);
}
