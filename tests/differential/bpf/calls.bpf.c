/* SPDX-License-Identifier: Apache-2.0 */
/* A map that tells how it was called: offset, bytes and flags of each piece. */
#include <lambdaio/function.h>
#include <errno.h>

LAMBDA_DOC("how it was called");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("offset:u64 bytes:u64 flags:u64");

LAMBDA_MAP(calls)
{
	uint64_t *out = (uint64_t *)ctx->out;

	if (ctx->out_cap < 24)
		return -ENOSPC;
	out[0] = ctx->offset;
	out[1] = ctx->in_len;
	out[2] = ctx->flags;
	return 24;
}
