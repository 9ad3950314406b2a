/* SPDX-License-Identifier: Apache-2.0 */
/* A fold with a merge that minds the order: the polynomial hash of all bytes. */
#include <lambdaio/function.h>

LAMBDA_DOC("polynomial hash");
LAMBDA_RECORD_ANY;
LAMBDA_OUTPUT("hash:u64 bytes:u64");

struct hash {
	uint64_t sum, power_less_one, bytes; /* zero is the start */
};

LAMBDA_FOLD(concat, struct hash)
{
	uint64_t sum = st->sum, power = st->power_less_one + 1;

	for (uint64_t i = 0; i < ctx->in_len; i++) {
		sum = sum * 1099511628211u + ctx->in[i] + 1;
		power *= 1099511628211u;
	}
	st->sum = sum;
	st->power_less_one = power - 1;
	st->bytes += ctx->in_len;
	return 0;
}

LAMBDA_MERGE(concat, struct hash)
{
	st->sum = st->sum * (other->power_less_one + 1) + other->sum;
	st->power_less_one = (st->power_less_one + 1) * (other->power_less_one + 1) - 1;
	st->bytes += other->bytes;
	return 0;
}

LAMBDA_FINISH(concat, struct hash)
{
	uint64_t *out = (uint64_t *)ctx->out;

	out[0] = st->sum;
	out[1] = st->bytes;
	return 16;
}
