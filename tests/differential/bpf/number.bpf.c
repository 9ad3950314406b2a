/* SPDX-License-Identifier: Apache-2.0 */
/* A scan: each line behind its number in 8 hex digits, at the end the number of lines. */
#include <lambdaio/function.h>
#include <errno.h>
#include <string.h>

LAMBDA_DOC("lines with their numbers");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");

struct lines {
	uint64_t n;
};

static void hex(uint8_t *out, uint64_t n)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)"0123456789abcdef"[n >> (28 - 4 * i) & 15];
}

LAMBDA_SCAN(number, struct lines)
{
	uint64_t n = 0;

	for (uint64_t a = 0, b; a < ctx->in_len; a = b) {
		for (b = a; b < ctx->in_len && (b == a || ctx->in[b - 1] != '\n'); b++)
			;
		st->n++; /* also where the output turns out not to fit: a rerun must not see it */
		if (b - a + 8 > ctx->out_cap - n)
			return -ENOSPC;
		hex(ctx->out + n, st->n);
		memcpy(ctx->out + n + 8, ctx->in + a, b - a);
		n += b - a + 8;
	}
	return (int64_t)n;
}

LAMBDA_FINISH(number, struct lines)
{
	hex(ctx->out, st->n);
	return 8;
}
