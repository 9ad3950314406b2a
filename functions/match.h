/* SPDX-License-Identifier: Apache-2.0 */
/*
 * match.h - what grep, grep-number and grep-count share: finding the lines that hold a fixed string.
 *
 * The search runs over the whole piece, not line by line, so that a rare string is looked for at the
 * speed of memory.  Letters of either case are found by searching a lowered copy, a block at a time.
 * The includer says LAMBDA_HEAP(MATCH_HEAP) and begins its arguments with MATCH_ARGS.
 */
#include <errno.h>
#include <lambdaio/function.h>
#include <string.h>

#define MATCH_ARGS  "pattern:text invert:u8=0 ignore_case:u8=0"
#define MATCH_BLOCK 16384u /* with the piece's own bytes, in the first cache level */
#define MATCH_LONG  4096u  /* the longest pattern where case is ignored */
#define MATCH_HEAP  (MATCH_LONG + MATCH_BLOCK)

struct match {
	const uint8_t *end;         /* of the piece */
	struct lambda_text pattern; /* the lowered one where case is ignored */
	uint8_t invert, ignore_case;
	uint8_t *block; /* lowered copy of [from, to) */
	const uint8_t *from, *to;
};

#define MATCH_EACH(byte) ((byte) * 0x0101010101010101ull)

/* Copy n bytes, ASCII letters lowered. */
static void match_lower(uint8_t *dst, const uint8_t *src, uint64_t n)
{
	const uint8_t *end = src + n;

	for (; src + 8 <= end; src += 8, dst += 8) {
		uint64_t x = lambda_load64(src), y = x & MATCH_EACH(0x7full);
		uint64_t from_a = y + MATCH_EACH(0x80ull - 'A');
		uint64_t above_z = y + MATCH_EACH(0x7full - 'Z');

		/* bit 7 says "A to Z", which is where bit 5 has to be set */
		lambda_store64(dst, x | ((from_a ^ above_z) & ~x & MATCH_EACH(0x80ull)) >> 2);
	}
	for (; src < end; src++, dst++)
		*dst = *src - 'A' < 26u ? *src | 0x20 : *src;
}

LAMBDA_INLINE_ int64_t match_init(struct match *m, const struct lambda_ctx *ctx)
{
	const uint8_t *arg = ctx->arg;

	m->pattern = lambda_arg_text(&arg);
	m->invert = lambda_arg_u8(&arg);
	m->ignore_case = lambda_arg_u8(&arg);
	m->end = ctx->in + ctx->in_len;
	m->block = ctx->heap + MATCH_LONG;
	m->from = m->to = ctx->in;
	if (memchr(m->pattern.p, '\n', m->pattern.len))
		return -EINVAL;
	if (m->ignore_case) {
		if (m->pattern.len > MATCH_LONG)
			return -E2BIG;
		match_lower(ctx->heap, m->pattern.p, m->pattern.len);
		m->pattern.p = ctx->heap;
	}
	return 0;
}

/* The first place of the pattern from @p on, whatever the case; NULL if there is none. */
static const uint8_t *match_either_case(struct match *m, const uint8_t *p)
{
	uint64_t len = m->pattern.len;

	while ((uint64_t)(m->end - p) >= len) {
		uint64_t n = (uint64_t)(m->end - p);

		if (p >= m->from && (uint64_t)(m->to - m->from) >= (uint64_t)(p - m->from) + len) {
			uint8_t *hay = m->block + (p - m->from);
			const uint8_t *at =
				lambda_memmem(hay, (uint64_t)(m->to - p), m->pattern.p, len);

			if (at)
				return p + (at - hay);
			p = m->to - len +
			    1; /* a match may begin in this block and end in the next */
			if (m->to == m->end)
				return NULL;
			n = (uint64_t)(m->end - p);
		}
		if (n > MATCH_BLOCK)
			n = MATCH_BLOCK;
		match_lower(m->block, p, n);
		m->from = p;
		m->to = p + n;
	}
	return NULL;
}

LAMBDA_INLINE_ const uint8_t *match_find(struct match *m, const uint8_t *p)
{
	if (m->ignore_case)
		return match_either_case(m, p);
	return lambda_memmem(p, (uint64_t)(m->end - p), m->pattern.p, m->pattern.len);
}

/* The start of the line that holds @at, which is not before @floor, a line's start. */
LAMBDA_INLINE_ const uint8_t *line_start(const uint8_t *at, const uint8_t *floor)
{
	while (at - floor >= 8) {
		uint64_t x = lambda_load64(at - 8) ^ MATCH_EACH('\n');
		uint64_t none = ((x & MATCH_EACH(0x7full)) + MATCH_EACH(0x7full)) | x;

		if ((none & MATCH_EACH(0x80ull)) != MATCH_EACH(0x80ull))
			break;
		at -= 8;
	}
	while (at > floor && at[-1] != '\n')
		at--;
	return at;
}

/* Past the newline that ends the line of @p, or the end of the piece. */
LAMBDA_INLINE_ const uint8_t *line_end(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *newline = lambda_memchr(p, '\n', (uint64_t)(end - p));

	return newline ? newline + 1 : end;
}

struct lines { /* [from, to): whole lines, all selected or all not */
	const uint8_t *from, *to;
};

/*
 * The next lines from @p, a line's start, that hold the pattern: one, or more where they follow each
 * other.  An empty span at the end of the piece if there is none.
 */
LAMBDA_INLINE_ struct lines match_next(struct match *m, const uint8_t *p)
{
	struct lines span = {m->end, m->end};
	const uint8_t *at = p < m->end ? match_find(m, p) : NULL;

	if (!at)
		return span;
	span.from = line_start(at, p);
	span.to = line_end(at + m->pattern.len, m->end);
	return span;
}

/* Lines in [p, end): newlines, and one more if bytes follow the last. */
static inline uint64_t count_lines(const uint8_t *p, const uint8_t *end)
{
	uint64_t lines = p < end && end[-1] != '\n', words = (uint64_t)(end - p) / 8;

	while (words) {
		uint64_t round = words < 255 ? words : 255, others = 0; /* a counter in each byte */
		const uint8_t *stop = p + 8 * round;

		words -= round;
		lines += 8 * round;
#pragma clang loop unroll_count(4)
		for (; p < stop; p += 8) {
			uint64_t x = lambda_load64(p) ^ MATCH_EACH('\n');

			others += ((((x & MATCH_EACH(0x7full)) + MATCH_EACH(0x7full)) | x) >> 7) &
				  MATCH_EACH(1);
		}
		others = (others & 0x00ff00ff00ff00ffull) + ((others >> 8) & 0x00ff00ff00ff00ffull);
		lines -= (others * 0x0001000100010001ull) >> 48;
	}
	for (; p < end; p++)
		lines += *p == '\n';
	return lines;
}
