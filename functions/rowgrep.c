/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rowgrep - where a pattern first occurs in each row.
 *
 * Reads: rows of 4,096 bytes.
 * Returns: a row index:i64 for each: the place of the first occurrence in the row, -1 where there is none.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("index of a pattern's first occurrence in each 4,096-byte row, or -1");
LAMBDA_RECORD_FIXED(4096);
LAMBDA_OUTPUT("index:i64");
LAMBDA_ARGS("pattern:text=DA");

LAMBDA_MAP(rowgrep)
{
	const uint8_t *arg = ctx->arg, *row = ctx->in;
	struct lambda_text pattern = lambda_arg_text(&arg);
	int64_t *index = (int64_t *)ctx->out;
	uint64_t n = ctx->in_len / 4096;

	if (ctx->out_cap < n * 8)
		return -ENOSPC;
	for (uint64_t i = 0; i < n; i++, row += 4096) {
		const uint8_t *at = lambda_memmem(row, 4096, pattern.p, pattern.len);

		index[i] = at ? at - row : -1;
	}
	return (int64_t)(n * 8);
}
