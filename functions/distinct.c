/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distinct - about how many different lines, or cells of a CSV column, there are.
 *
 * Reads: lines; with column=N (from 1) the cells in that column (csv.h says what a cell is).
 * Returns: one row, estimate:u64, by HyperLogLog with 2^14 registers: the standard error is 0.81 %, so 95 of
 * 100 estimates are within 1.6 % and practically all within 3 %.  Small numbers are counted more exactly.
 * A line without the column is not counted.
 */
#include "csv.h"

LAMBDA_DOC("about how many different lines, or cells of a CSV column, there are (±0.8 %)");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("estimate:u64");
LAMBDA_ARGS("column:u32=0 delimiter:text=, quotes:u8=1");

#define BITS      14
#define REGISTERS (1u << BITS)
#define RANK_MAX  49 /* ranks above count as this: a sum of REGISTERS × 2^RANK_MAX is 2^63 */

struct sketch {
	uint8_t rank[REGISTERS];
};

/* MurmurHash64A of the cell. */
static inline uint64_t hash(struct lambda_text cell)
{
	const uint64_t m = 0xc6a4a7935bd1e995ull;
	const uint8_t *p = cell.p, *end = p + cell.len;
	uint64_t h = 0x9e3779b97f4a7c15ull ^ (cell.len * m), k = 0;

	for (; end - p >= 8; p += 8) {
		k = lambda_load64(p) * m;
		h = (h ^ (k ^ k >> 47) * m) * m;
	}
	if (p < end) {
		for (k = 0; end > p;)
			k = k << 8 | *--end;
		h = (h ^ k) * m;
	}
	h = (h ^ h >> 47) * m;
	return h ^ h >> 47;
}

LAMBDA_FOLD(distinct, struct sketch)
{
	const uint8_t *arg = ctx->arg, *p = ctx->in, *next;
	uint32_t column = lambda_arg_u32(&arg);
	struct lambda_text delimiter = lambda_arg_text(&arg), cell;
	struct csv csv;
	int64_t ret = csv_init(&csv, ctx, column, delimiter, lambda_arg_u8(&arg));

	if (ret)
		return ret;
	for (; p < csv.end; p = next) {
		const uint8_t *end;
		uint64_t h, rest;
		uint8_t *rank;

		next = csv_next(&csv, p);
		end = csv_line_end(p, next);
		if (!column)
			cell = (struct lambda_text){p, (uint64_t)(end - p)};
		else if (!csv_cell(&csv, p, end, csv_quoted(&csv, p, end), column, &cell))
			continue;
		h = hash(cell);
		rank = &st->rank[h >> (64 - BITS)];
		rest = h << BITS | 1ull << (BITS - 1);
		/* the rank is the place of the first 1; most are no higher than what is there */
		while (!*rank || rest >> (64 - *rank) == 0)
			++*rank;
	}
	return 0;
}

LAMBDA_MERGE(distinct, struct sketch)
{
	for (uint32_t i = 0; i < REGISTERS; i++)
		if (other->rank[i] > st->rank[i])
			st->rank[i] = other->rank[i];
	return 0;
}

/* log2 of n > 0 in units of 2^-24. */
static inline uint64_t log2_24(uint64_t n)
{
	uint64_t result = 0, x = n << 17; /* n < 2^15, so x < 2^32 */
	int whole = 14;

	for (; !(x >> 31); x <<= 1)
		whole--;
	for (int i = 0; i < 24; i++) { /* 1 <= x / 2^31 < 2 */
		x = x * x >> 31;
		result <<= 1;
		if (x >> 32) {
			x >>= 1;
			result |= 1;
		}
	}
	return ((uint64_t)whole << 24) + result;
}

/* alpha × REGISTERS² / sum of 2^-rank, in integers.  alpha = 0.7213 / (1 + 1.079 / REGISTERS) */
static inline uint64_t harmonic(const struct sketch *st)
{
	const uint64_t alpha_63 = 6652380144825911296ull; /* alpha × 2^63 */
	uint64_t sum = 0, quotient;
	int shift = 0;

	for (uint32_t i = 0; i < REGISTERS; i++)
		sum += 1ull << (RANK_MAX - (st->rank[i] < RANK_MAX ? st->rank[i] : RANK_MAX));
	for (; !(sum >> 62); sum <<= 1)
		shift++;
	/* alpha × 2^28 × 2^49 × 2^shift / sum */
	quotient = alpha_63 / (sum >> 32);
	return shift >= 18 ? quotient << (shift - 18) : quotient >> (18 - shift);
}

LAMBDA_FINISH(distinct, struct sketch)
{
	const uint64_t ln2_32 = 2977044472ull; /* ln 2 × 2^32 */
	uint64_t estimate = harmonic(st), empty = 0;

	if (ctx->out_cap < 8)
		return -ENOSPC;
	for (uint32_t i = 0; i < REGISTERS; i++)
		empty += !st->rank[i];
	/* few values: registers × ln(registers / empty ones) is nearer */
	if (empty && estimate <= REGISTERS * 5 / 2)
		estimate =
			((((uint64_t)BITS << 24) - log2_24(empty)) * ln2_32 + (1ull << 41)) >> 42;
	*(uint64_t *)ctx->out = estimate;
	return 8;
}
