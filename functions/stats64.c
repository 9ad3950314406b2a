/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats64 - the largest, the smallest and the sum of 64-bit integers.
 *
 * Reads: little-endian signed 64-bit integers.
 * Returns: one row, max:i64 min:i64 sum:i64; the sum wraps.  Of no integers there is no row.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("largest, smallest and sum (which wraps) of little-endian 64-bit integers");
LAMBDA_RECORD_FIXED(8);
LAMBDA_OUTPUT("max:i64 min:i64 sum:i64");

struct stats {
	int64_t max, min;
	uint64_t sum;
	uint64_t some; /* integers were seen */
};

LAMBDA_FOLD(stats64, struct stats)
{
	const int64_t *p = (const int64_t *)ctx->in, *end = p + ctx->in_len / 8;
	int64_t max = st->some ? st->max : INT64_MIN, min = st->some ? st->min : INT64_MAX;
	uint64_t sum = st->sum;

	if (p == end)
		return 0;
#pragma clang loop unroll_count(8)
	for (; p < end; p++) {
		int64_t v = *p;

		max = v > max ? v : max;
		min = v < min ? v : min;
		sum += (uint64_t)v;
	}
	*st = (struct stats){max, min, sum, 1};
	return 0;
}

LAMBDA_MERGE(stats64, struct stats)
{
	if (!other->some)
		return 0;
	if (!st->some || other->max > st->max)
		st->max = other->max;
	if (!st->some || other->min < st->min)
		st->min = other->min;
	st->sum += other->sum;
	st->some = 1;
	return 0;
}

LAMBDA_FINISH(stats64, struct stats)
{
	int64_t *row = (int64_t *)ctx->out;

	if (!st->some)
		return 0;
	if (ctx->out_cap < 24)
		return -ENOSPC;
	row[0] = st->max;
	row[1] = st->min;
	row[2] = (int64_t)st->sum;
	return 24;
}
