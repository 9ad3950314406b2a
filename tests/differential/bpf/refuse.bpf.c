/* SPDX-License-Identifier: Apache-2.0 */
/* A map that fails at marked lines: its own error, a fault, a wrong value, an endless loop. */
#include <lambdaio/function.h>
#include <errno.h>

LAMBDA_DOC("fails at marked lines");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");

LAMBDA_MAP(refuse)
{
	volatile uint64_t *null = (volatile uint64_t *)96;
	volatile uint64_t spin = 0;

	for (uint64_t i = 0; i < ctx->in_len; i++) {
		switch (ctx->in[i]) {
		case '!':
			return -EINVAL;
		case '?':
			*null = 1;
			break;
		case '+':
			return (int64_t)ctx->out_cap + 1;
		case '-':
			return -4096;
		case '*':
			return -ENOSPC;
		case '@':
			for (;;)
				spin++;
		default:
			break;
		}
	}
	ctx->out[0] = '\n';
	return 1;
}
