/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xxh3 - the XXH3 hash (64 bits, seed 0) of the input.
 *
 * Reads: any bytes, in order (a hash has no merge).
 * Returns: a line of 16 hexadecimal digits, those of xxhsum -H3.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("XXH3-64 of the input: 16 hexadecimal digits");
LAMBDA_RECORD_ANY;
LAMBDA_OUTPUT("text");

LAMBDA_FOLD(xxh3, struct lambda_xxh3)
{
	return lambda_xxh3_update(st, ctx->in, ctx->in_len);
}

LAMBDA_FINISH(xxh3, struct lambda_xxh3)
{
	uint64_t hash = lambda_xxh3_digest(st);

	if (ctx->out_cap < 17)
		return -ENOSPC;
	for (int i = 0; i < 16; i++)
		ctx->out[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
	ctx->out[16] = '\n';
	return 17;
}
