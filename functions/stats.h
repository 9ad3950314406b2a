/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - what stats32 and stats64 share: a fold of signed integers into largest, smallest and sum.
 * The file that includes it says which by NAME, INT, UINT, INT_LEAST and INT_MOST.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_RECORD_FIXED(sizeof(INT));

struct stats {
	INT max, min;
	UINT sum;
	UINT some; /* integers were seen */
};

LAMBDA_FOLD(NAME, struct stats)
{
	const INT *p = (const INT *)ctx->in, *end = p + ctx->in_len / sizeof(INT);
	INT max = st->some ? st->max : INT_LEAST, min = st->some ? st->min : INT_MOST;
	UINT sum = st->sum;

	if (p == end)
		return 0;
#pragma clang loop unroll_count(8)
	for (; p < end; p++) {
		INT v = *p;

		max = v > max ? v : max;
		min = v < min ? v : min;
		sum += (UINT)v;
	}
	*st = (struct stats){max, min, sum, 1};
	return 0;
}

LAMBDA_MERGE(NAME, struct stats)
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

LAMBDA_FINISH(NAME, struct stats)
{
	INT *row = (INT *)ctx->out;

	if (!st->some)
		return 0;
	if (ctx->out_cap < 3 * sizeof(INT))
		return -ENOSPC;
	row[0] = st->max;
	row[1] = st->min;
	row[2] = (INT)st->sum;
	return 3 * sizeof(INT);
}
