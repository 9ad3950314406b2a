/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grep-number - the lines that contain a fixed string, with their numbers.
 *
 * Reads: lines, from the first on; the last may lack its newline.
 * Returns: "N:LINE" for each line that contains the pattern (invert=1: that does not), as grep -n does;
 * the first line is 1.  The arguments are those of grep.
 */
#include "match.h"

LAMBDA_DOC("lines that contain a fixed string, as NUMBER:LINE");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");
LAMBDA_ARGS(MATCH_ARGS);
LAMBDA_HEAP(MATCH_HEAP);

struct state {
	uint64_t lines; /* before this piece */
};

#define DIGITS 20 /* of a u64 at most */

struct output {
	uint8_t *p, *end;
};

/* Append the lines of [from, to), the first of which has the number @number + 1; the last one's, or -ENOSPC. */
static int64_t put(struct output *out, const uint8_t *from, const uint8_t *to, uint64_t number)
{
	while (from < to) {
		const uint8_t *next = line_end(from, to);
		uint64_t n = (uint64_t)(next - from), rest = ++number, digits = 0;
		uint8_t text[DIGITS];

		do
			text[digits++] = (uint8_t)('0' + rest % 10);
		while (rest /= 10);
		if ((uint64_t)(out->end - out->p) < digits + 1 + n + (next[-1] != '\n'))
			return -ENOSPC;
		while (digits)
			*out->p++ = text[--digits];
		*out->p++ = ':';
		memcpy(out->p, from, n);
		out->p += n;
		if (next[-1] != '\n')
			*out->p++ = '\n';
		from = next;
	}
	return (int64_t)number;
}

LAMBDA_SCAN(grep_number, struct state)
{
	struct output out = {ctx->out, ctx->out + ctx->out_cap};
	const uint8_t *p = ctx->in;
	uint64_t number = st->lines;
	struct match m;
	int64_t ret = match_init(&m, ctx);

	if (ret)
		return ret;
	while (p < m.end) {
		struct lines span = match_next(&m, p);

		if (m.invert) {
			ret = put(&out, p, span.from, number);
			number = (uint64_t)ret + count_lines(span.from, span.to);
		} else {
			number += count_lines(p, span.from);
			ret = put(&out, span.from, span.to, number);
			number = (uint64_t)ret;
		}
		if (ret < 0)
			return ret;
		p = span.to;
	}
	st->lines = number;
	return out.p - ctx->out;
}
