/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grep - the lines that contain a fixed string.
 *
 * Reads: lines; the last may lack its newline.
 * Returns: the lines that contain the pattern (invert=1: that do not), each with a newline at its end.
 * ignore_case=1 treats ASCII letters of either case alike.  An empty pattern is in every line; one with a
 * newline in it is -EINVAL, one longer than 4,096 bytes with ignore_case is -E2BIG.
 */
#include "match.h"

LAMBDA_DOC("lines that contain a fixed string");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");
LAMBDA_ARGS(MATCH_ARGS);
LAMBDA_HEAP(MATCH_HEAP);

/* Append whole lines; -ENOSPC. */
LAMBDA_INLINE_ int64_t put(struct lambda_ctx *ctx, uint64_t *len, const uint8_t *from,
			   const uint8_t *to)
{
	uint64_t n = (uint64_t)(to - from);

	if (!n)
		return 0;
	if (ctx->out_cap - *len < n + (to[-1] != '\n'))
		return -ENOSPC;
	memcpy(ctx->out + *len, from, n);
	*len += n;
	if (to[-1] != '\n')
		ctx->out[(*len)++] = '\n';
	return 0;
}

LAMBDA_MAP(grep)
{
	const uint8_t *p = ctx->in, *from = p, *to = p; /* [from, to): selected, not yet put */
	struct match m;
	uint64_t len = 0;
	int64_t ret = match_init(&m, ctx);

	while (!ret && p < m.end) {
		struct lines span = match_next(&m, p);

		p = span.to;
		if (m.invert) {
			ret = put(ctx, &len, to, span.from);
			to = span.to;
		} else if (span.from == to) {
			to = span.to;
		} else {
			ret = put(ctx, &len, from, to);
			from = span.from;
			to = span.to;
		}
	}
	if (!ret && !m.invert)
		ret = put(ctx, &len, from, to);
	return ret ? ret : (int64_t)len;
}
