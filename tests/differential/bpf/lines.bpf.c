/* SPDX-License-Identifier: Apache-2.0 */
/* A map: the lines that hold a byte, each as it is. */
#include <lambdaio/function.h>
#include <errno.h>
#include <string.h>

LAMBDA_DOC("lines that hold a byte");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");
LAMBDA_ARGS("byte:u8=97");

LAMBDA_MAP(lines)
{
	uint64_t n = 0;

	for (uint64_t a = 0, b; a < ctx->in_len; a = b) {
		int hit = 0;

		for (b = a; b < ctx->in_len && (b == a || ctx->in[b - 1] != '\n'); b++)
			hit |= ctx->in[b] == ctx->arg[0];
		if (!hit)
			continue;
		if (b - a > ctx->out_cap - n)
			return -ENOSPC;
		memcpy(ctx->out + n, ctx->in + a, b - a);
		n += b - a;
	}
	return (int64_t)n;
}
