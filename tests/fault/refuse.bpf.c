/* SPDX-License-Identifier: Apache-2.0 */
/* refuse: reads bytes, returns them until it meets `byte`, which it refuses with -EDOM (a map). */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("fails at a byte");
LAMBDA_OUTPUT("bytes");
LAMBDA_ARGS("byte:u8");

LAMBDA_MAP(refuse)
{
	if (ctx->in_len > ctx->out_cap)
		return -ENOSPC;
	if (lambda_memchr(ctx->in, ctx->arg[0], ctx->in_len))
		return -EDOM;
	lambda_memcpy(ctx->out, ctx->in, ctx->in_len);
	return (int64_t)ctx->in_len;
}
