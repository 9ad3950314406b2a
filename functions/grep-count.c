/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grep-count - how many lines contain a fixed string.
 *
 * Reads: lines; the last may lack its newline.
 * Returns: one row, lines:u64.  The arguments are those of grep.
 */
#include "match.h"

LAMBDA_DOC("how many lines contain a fixed string");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("lines:u64");
LAMBDA_ARGS(MATCH_ARGS);
LAMBDA_HEAP(MATCH_HEAP);

struct state {
	uint64_t lines;
};

LAMBDA_FOLD(grep_count, struct state)
{
	const uint8_t *p = ctx->in;
	struct match m;
	uint64_t found = 0;
	int64_t ret = match_init(&m, ctx);

	if (ret)
		return ret;
	for (; p < m.end; found++) {
		const uint8_t *at = match_find(&m, p);

		if (!at)
			break;
		p = line_end(at + m.pattern.len, m.end);
	}
	if (m.invert)
		found = count_lines(ctx->in, m.end) - found;
	st->lines += found;
	return 0;
}

LAMBDA_MERGE(grep_count, struct state)
{
	st->lines += other->lines;
	return 0;
}

LAMBDA_FINISH(grep_count, struct state)
{
	if (ctx->out_cap < 8)
		return -ENOSPC;
	*(uint64_t *)ctx->out = st->lines;
	return 8;
}
