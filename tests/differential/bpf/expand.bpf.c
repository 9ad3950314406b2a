/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile map: each byte `factor` times.  It ruins its input, heap, globals and output before it
 * finds that there is no room, and refuses to work where anything is left of that.
 */
#include <lambdaio/function.h>
#include <errno.h>
#include <string.h>

LAMBDA_DOC("each byte several times");
LAMBDA_OUTPUT("bytes");
LAMBDA_ARGS("factor:u32=4");
LAMBDA_HEAP(5000);

static volatile uint64_t runs;
static volatile uint64_t magic = 42;

static int is_clean(const struct lambda_ctx *ctx)
{
	uint8_t *start = ctx->in - (ctx->offset & 4095), *end = ctx->in + ctx->in_len;
	uint64_t dirty = 0;

	for (uint8_t *p = start; p < ctx->in; p++)
		dirty |= *p;
	for (; (uint64_t)end & 4095; end++)
		dirty |= *end;
	for (uint64_t i = 0; i < 8192; i++)
		dirty |= ctx->heap[i];
	for (uint64_t i = 0; i < ctx->out_cap; i += 509)
		dirty |= ctx->out[i];
	return !dirty && !runs++ && magic++ == 42;
}

LAMBDA_MAP(expand)
{
	uint32_t factor = *(const uint32_t *)ctx->arg;
	uint64_t n = 0;

	if (!is_clean(ctx))
		return -EBADMSG;
	memset(ctx->heap, 0xee, 8192);
	memset(ctx->out + ctx->out_cap / 2, 0xdd, ctx->out_cap - ctx->out_cap / 2);
	for (uint64_t i = 0; i < ctx->in_len; i++) {
		uint8_t byte = ctx->in[i];

		ctx->in[i] = 0xcc;
		if (factor > ctx->out_cap - n)
			return -ENOSPC;
		memset(ctx->out + n, byte, factor);
		n += factor;
	}
	memset(ctx->in - (ctx->offset & 4095), 0xbb, ctx->offset & 4095);
	return (int64_t)n;
}
