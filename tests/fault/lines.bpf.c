/* SPDX-License-Identifier: Apache-2.0 */
/* lines: reads lines, returns each with its number and a blank in front (a scan). */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("lines with their numbers");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");
LAMBDA_ARGS("first:u64=1");

struct lines {
	uint64_t n;
};

LAMBDA_SCAN(lines, struct lines)
{
	const uint64_t *first = (const uint64_t *)ctx->arg;
	uint64_t at = 0, out = 0;

	while (at < ctx->in_len) {
		uint64_t number = *first + st->n++, digits = 1, end = at;

		for (uint64_t v = number; v >= 10; v /= 10)
			digits++;
		while (end < ctx->in_len && ctx->in[end] != '\n')
			end++;
		if (out + digits + 1 + end - at + 1 > ctx->out_cap)
			return -ENOSPC;
		for (uint64_t i = digits; i--; number /= 10)
			ctx->out[out + i] = (uint8_t)('0' + number % 10);
		out += digits;
		ctx->out[out++] = ' ';
		lambda_memcpy(ctx->out + out, ctx->in + at, end - at);
		out += end - at;
		ctx->out[out++] = '\n';
		at = end + 1;
	}
	return (int64_t)out;
}
