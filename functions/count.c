/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count - lines, words and bytes, as wc counts them in the C locale.
 *
 * Reads: any bytes.
 * Returns: one row, lines:u64 words:u64 bytes:u64: newlines, longest sequences of bytes that are not
 * white space (space, \t, \n, \v, \f, \r), bytes.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("counts lines, words and bytes, as wc does");
LAMBDA_RECORD_ANY;
LAMBDA_OUTPUT("lines:u64 words:u64 bytes:u64");

struct count {
	uint64_t lines, words, bytes;
	uint32_t first_in_word, last_in_word; /* is the first, the last byte part of a word? */
};

/* Eight bytes at once; bit 7 of each byte of a word is that byte's answer. */
#define EACH(byte) ((byte) * 0x0101010101010101ull)
#define LOW        EACH(0x7full)
#define HIGH       EACH(0x80ull)
#define ROUND      255u /* words until a byte-wide counter could overflow */

/* Bytes that are not white space: not 9..13 and not 32. */
static inline uint64_t in_word(uint64_t x)
{
	uint64_t y = x & LOW;
	uint64_t below_9 = EACH(0x88ull) - y;
	uint64_t above_13 = y + EACH(0x72ull);
	uint64_t not_32 = (y ^ EACH(0x20ull)) + LOW;

	return (((below_9 | above_13) & not_32) | x) & HIGH;
}

/* 1 in each byte that is not a newline. */
static inline uint64_t not_newline(uint64_t x)
{
	return (((((x & LOW) ^ EACH('\n')) + LOW) | x) >> 7) & EACH(1);
}

/* The sum of eight byte-wide counters. */
static inline uint64_t add_up(uint64_t counters)
{
	counters = (counters & 0x00ff00ff00ff00ffull) + ((counters >> 8) & 0x00ff00ff00ff00ffull);
	return (counters * 0x0001000100010001ull) >> 48;
}

/* The last bytes as a word, filled up with what changes no count. */
static inline uint64_t last_word(const uint8_t *p, uint64_t n)
{
	uint8_t fill = p[n - 1] == '\n' ? ' ' : p[n - 1];
	uint64_t x = EACH((uint64_t)fill) << (8 * n);

	for (uint64_t i = 0; i < n; i++)
		x |= (uint64_t)p[i] << (8 * i);
	return x;
}

LAMBDA_FOLD(count, struct count)
{
	const uint8_t *p = ctx->in;
	uint64_t words = ctx->in_len / 8, rest = ctx->in_len % 8;
	uint64_t before = st->last_in_word ? 0x80 : 0, edge = before, changes = 0, others = 0;

	if (!ctx->in_len)
		return 0;
	if (!st->bytes)
		st->first_in_word = (in_word(*p) & 0x80) != 0;
	while (words) {
		uint64_t round = words < ROUND ? words : ROUND;
		const uint8_t *end = p + 8 * round;
		uint64_t change = 0, other = 0;

		words -= round;
#pragma clang loop unroll_count(2)
		for (; p < end; p += 8) {
			uint64_t x = lambda_load64(p), w = in_word(x);

			change += (w ^ (w << 8 | before)) >> 7;
			before = w >> 56;
			other += not_newline(x);
		}
		changes += add_up(change);
		others += add_up(other);
	}
	if (rest) {
		uint64_t x = last_word(p, rest), w = in_word(x);

		changes += add_up((w ^ (w << 8 | before)) >> 7);
		before = w >> 56;
		others += add_up(not_newline(x)) - (8 - rest);
	}
	/* a change is a word's start or end; there is one start more if it ends inside a word only */
	st->words += (changes + (before >> 7) - (edge >> 7)) / 2;
	st->lines += ctx->in_len - others;
	st->bytes += ctx->in_len;
	st->last_in_word = before != 0;
	return 0;
}

LAMBDA_MERGE(count, struct count)
{
	if (!other->bytes)
		return 0;
	if (!st->bytes)
		st->first_in_word = other->first_in_word;
	st->lines += other->lines;
	st->words += other->words - (st->last_in_word & other->first_in_word);
	st->bytes += other->bytes;
	st->last_in_word = other->last_in_word;
	return 0;
}

LAMBDA_FINISH(count, struct count)
{
	uint64_t *row = (uint64_t *)ctx->out;

	if (ctx->out_cap < 24)
		return -ENOSPC;
	row[0] = st->lines;
	row[1] = st->words;
	row[2] = st->bytes;
	return 24;
}
