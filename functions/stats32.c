/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats32 - the largest, the smallest and the sum of 32-bit integers.
 *
 * Reads: little-endian signed 32-bit integers.
 * Returns: one row, max:i32 min:i32 sum:i32; the sum wraps.  Of no integers there is no row.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("largest, smallest and sum (which wraps) of little-endian 32-bit integers");
LAMBDA_RECORD_FIXED(4);
LAMBDA_OUTPUT("max:i32 min:i32 sum:i32");

struct stats {
	int32_t max, min;
	uint32_t sum;
	uint32_t some; /* integers were seen */
};

LAMBDA_FOLD(stats32, struct stats)
{
	const int32_t *p = (const int32_t *)ctx->in, *end = p + ctx->in_len / 4;
	int32_t max = st->some ? st->max : INT32_MIN, min = st->some ? st->min : INT32_MAX;
	uint32_t sum = st->sum;

	if (p == end)
		return 0;
#pragma clang loop unroll_count(8)
	for (; p < end; p++) {
		int32_t v = *p;

		max = v > max ? v : max;
		min = v < min ? v : min;
		sum += (uint32_t)v;
	}
	*st = (struct stats){max, min, sum, 1};
	return 0;
}

LAMBDA_MERGE(stats32, struct stats)
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

LAMBDA_FINISH(stats32, struct stats)
{
	int32_t *row = (int32_t *)ctx->out;

	if (!st->some)
		return 0;
	if (ctx->out_cap < 12)
		return -ENOSPC;
	row[0] = st->max;
	row[1] = st->min;
	row[2] = (int32_t)st->sum;
	return 12;
}
