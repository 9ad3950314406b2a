/* SPDX-License-Identifier: Apache-2.0 */
/* total: reads little-endian u64, returns one row: how many there are and their sum (a fold). */
#include <lambdaio/function.h>

LAMBDA_DOC("count and sum of u64");
LAMBDA_RECORD_FIXED(8);
LAMBDA_OUTPUT("n:u64 sum:u64");

struct total {
	uint64_t n, sum;
};

LAMBDA_FOLD(total, struct total)
{
	const uint64_t *v = (const uint64_t *)ctx->in;

	for (uint64_t i = 0; i < ctx->in_len / 8; i++)
		st->sum += v[i];
	st->n += ctx->in_len / 8;
	return 0;
}

LAMBDA_MERGE(total, struct total)
{
	st->n += other->n;
	st->sum += other->sum;
	return 0;
}
