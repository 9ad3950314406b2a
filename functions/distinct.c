/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distinct - about how many different lines, or cells of a CSV column, there are.
 *
 * Reads: lines; with column=N (from 1) the cells in that column (csv.h says what a cell is).
 * Returns: one row, estimate:u64, by HyperLogLog with 2^14 registers: the standard error is 0.81 %, so 95 of
 * 100 estimates are within 1.6 % and practically all within 3 %; small numbers are nearly exact.
 * A line without the column is not counted.
 */
#include "csv.h"

LAMBDA_DOC("about how many different lines, or cells of a CSV column, there are (±0.8 %)");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("estimate:u64");
LAMBDA_ARGS("column:u32=0 delimiter:text=, quotes:u8=1");

#define BITS      14
#define REGISTERS (1u << BITS)
#define RANK_MAX  (64 - BITS + 1)

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

#define POINT 32 /* binary places of the fractions below: REGISTERS² × 2^32 fits */

/* The upper half of a × b. */
static inline uint64_t multiply_high(uint64_t a, uint64_t b)
{
	uint64_t a1 = a >> 32, a0 = (uint32_t)a, b1 = b >> 32, b0 = (uint32_t)b;
	uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (uint32_t)middle;

	return a1 * b1 + (middle >> 32) + (other >> 32);
}

/*
 * REGISTERS × sigma(empty / REGISTERS), sigma(x) = x + sum of x^(2^k) × 2^(k - 1) for k >= 1; empty < REGISTERS.
 */
static inline uint64_t sigma(uint64_t empty)
{
	uint64_t x = empty << (64 - BITS), sum = empty << POINT;

	for (uint64_t k = 0; x; k++) {
		x = multiply_high(x, x);
		sum += (x >> (64 - POINT)) << k << BITS;
	}
	return sum;
}

/*
 * O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6: without bias for
 * few values and for many.  What it does for registers at their limit is left out: 2^60 values are needed.
 */
LAMBDA_FINISH(distinct, struct sketch)
{
	const uint64_t alpha_63 = 6653256548922161152ull; /* 2^63 / (2 × ln 2) */
	uint64_t count[RANK_MAX + 1] = {0}, sum = 0, estimate = 0;
	uint64_t shift = 0;

	if (ctx->out_cap < 8)
		return -ENOSPC;
	for (uint32_t i = 0; i < REGISTERS; i++)
		count[st->rank[i] <= RANK_MAX ? st->rank[i] : RANK_MAX]++;
	if (count[0] < REGISTERS) {
		for (int rank = RANK_MAX; rank; rank--)
			sum = (sum + (count[rank] << POINT)) / 2;
		sum = (sum + sigma(count[0])) | 1;
		for (; !(sum >> 63); sum <<= 1)
			shift++;
		/* alpha × REGISTERS² × 2^POINT × 2^shift / sum, rounded */
		estimate = alpha_63 / (sum >> 32);
		shift += 2 * BITS + POINT - 95;
		estimate = (int64_t)shift >= 0 ? estimate << shift
					       : ((estimate >> (-shift - 1)) + 1) / 2;
	}
	*(uint64_t *)ctx->out = estimate;
	return 8;
}
