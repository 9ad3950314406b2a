/* SPDX-License-Identifier: Apache-2.0 */
/* echo: reads any bytes, returns them as they are (a map). */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("the input as it is");
LAMBDA_OUTPUT("bytes");

LAMBDA_MAP(echo)
{
	if (ctx->in_len > ctx->out_cap)
		return -ENOSPC;
	lambda_memcpy(ctx->out, ctx->in, ctx->in_len);
	return (int64_t)ctx->in_len;
}
