/* SPDX-License-Identifier: Apache-2.0 */
/*
 * csv-filter - the lines of a CSV file whose cell in a column meets a condition.
 *
 * Reads: lines of cells (csv.h says what a cell is).
 * Returns: the lines whose cell in `column` (from 1) meets `op value`, as they are, each with a newline at
 * its end; a line without that column meets none.  op is = (or ==) != < <= > >= contains prefix suffix.
 * Where cell and value are both decimal numbers they are compared as numbers, else byte by byte.
 * header=1 returns the file's first line whatever it holds.
 */
#include "csv.h"

LAMBDA_DOC("lines of a CSV file whose cell in a column meets a condition");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");
LAMBDA_ARGS("column:u32=1 op:text value:text delimiter:text=, quotes:u8=1 header:u8=0");

/* Append whole lines; -ENOSPC. */
static int64_t put(struct lambda_ctx *ctx, uint64_t *len, const uint8_t *from, const uint8_t *to)
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

LAMBDA_MAP(csv_filter)
{
	const uint8_t *arg = ctx->arg, *p = ctx->in, *from = p, *next; /* [from, p): not yet put */
	uint32_t column = lambda_arg_u32(&arg);
	struct lambda_text op = lambda_arg_text(&arg), value = lambda_arg_text(&arg), cell;
	struct lambda_text delimiter = lambda_arg_text(&arg);
	uint8_t quotes = lambda_arg_u8(&arg), header = lambda_arg_u8(&arg);
	struct csv_condition condition;
	uint64_t len = 0, before;
	struct csv csv;
	int64_t ret = csv_init(&csv, ctx, column, delimiter, quotes);

	if (!ret)
		ret = csv_condition_init(&condition, op, value);
	if (!ret && !column)
		ret = -EINVAL;
	if (!ret && header && !ctx->offset)
		p = csv_next(&csv, p);
	for (; !ret && p < csv.end; p = next) {
		const uint8_t *end;
		int quoted;

		next = csv_next(&csv, p);
		end = csv_line_end(p, next);
		quoted = csv_quoted(&csv, p, end);
		before = len;
		if (quoted) { /* put it now, for unescaping a cell changes the line */
			ret = put(ctx, &len, from, p);
			before = len;
			if (!ret)
				ret = put(ctx, &len, p, next);
			from = next;
		}
		if (csv_cell(&csv, p, end, quoted, column, &cell) && csv_holds(&condition, cell))
			continue;
		if (quoted)
			len = before;
		else if (!ret)
			ret = put(ctx, &len, from, p);
		from = next;
	}
	if (!ret)
		ret = put(ctx, &len, from, csv.end);
	return ret ? ret : (int64_t)len;
}
