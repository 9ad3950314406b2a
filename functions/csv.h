/* SPDX-License-Identifier: Apache-2.0 */
/*
 * csv.h - what csv-filter, csv-sum and distinct share: cells of lines, and decimal numbers.
 *
 * A line's cells are separated by one byte.  With quotes=1 a cell that begins with '"' ends at the next
 * lone '"'; delimiters in between belong to it, '""' is one '"'.  A newline ends a line, quoted or not.
 * A '\r' before it is no part of the last cell.
 */
#include <errno.h>
#include <lambdaio/function.h>
#include <string.h>

#define CSV_EACH(byte) ((byte) * 0x0101010101010101ull)

struct csv {
	const uint8_t *end;   /* of the piece */
	const uint8_t *quote; /* the next '"' from the current line on, or end */
	uint32_t column;      /* from 1 */
	uint8_t delimiter;
};

/* -EINVAL unless the delimiter is one byte that can be one. */
LAMBDA_INLINE_ int64_t csv_init(struct csv *csv, const struct lambda_ctx *ctx, uint32_t column,
				struct lambda_text delimiter, uint8_t quotes)
{
	csv->end = ctx->in + ctx->in_len;
	csv->quote = quotes ? ctx->in - 1 : csv->end;
	csv->column = column;
	if (delimiter.len != 1 || *delimiter.p == '\n' || (quotes && *delimiter.p == '"'))
		return -EINVAL;
	csv->delimiter = *delimiter.p;
	return 0;
}

/* Past the newline that ends the line at @p, or the end of the piece. */
LAMBDA_INLINE_ const uint8_t *csv_next(const struct csv *csv, const uint8_t *p)
{
	const uint8_t *newline = lambda_memchr(p, '\n', (uint64_t)(csv->end - p));

	return newline ? newline + 1 : csv->end;
}

/* The line of [p, next) without what ends it. */
LAMBDA_INLINE_ const uint8_t *csv_line_end(const uint8_t *p, const uint8_t *next)
{
	if (next > p && next[-1] == '\n')
		next--;
	if (next > p && next[-1] == '\r')
		next--;
	return next;
}

/* Is there a '"' in the line?  Lines are asked about in order. */
LAMBDA_INLINE_ int csv_quoted(struct csv *csv, const uint8_t *p, const uint8_t *end)
{
	if (csv->quote < p) {
		const uint8_t *at = lambda_memchr(p, '"', (uint64_t)(csv->end - p));

		csv->quote = at ? at : csv->end;
	}
	return csv->quote < end;
}

/* Bit 7 of each byte of @x that is @byte (one in each byte), of no other. */
LAMBDA_INLINE_ uint64_t csv_equal(uint64_t x, uint64_t byte)
{
	x ^= byte;
	return ~(((x & CSV_EACH(0x7full)) + CSV_EACH(0x7full)) | x) & CSV_EACH(0x80ull);
}

/* How many bytes there are up to the lowest that is marked in @mask, it included; @mask is not 0. */
LAMBDA_INLINE_ uint64_t csv_lowest(uint64_t mask)
{
	return (((mask - 1) & ~mask & CSV_EACH(1)) * CSV_EACH(1)) >> 56;
}

/* Past the @n th delimiter from @p on, or a place behind @end. */
LAMBDA_INLINE_ const uint8_t *csv_skip(const struct csv *csv, const uint8_t *p, const uint8_t *end,
				       uint32_t n)
{
	uint64_t each = CSV_EACH((uint64_t)csv->delimiter);

	if (!n)
		return p;
	while (p < end && csv->end - p >= 8) {
		uint64_t mask = csv_equal(lambda_load64(p), each);
		uint64_t found = ((mask >> 7) * CSV_EACH(1)) >> 56;

		if (found >= n) {
			while (--n)
				mask &= mask - 1;
			return p + csv_lowest(mask);
		}
		n -= (uint32_t)found;
		p += 8;
	}
	for (; p < end; p++)
		if (*p == csv->delimiter && !--n)
			return p + 1;
	return end + 1;
}

/* The end of the cell at @p, which has no quotes. */
LAMBDA_INLINE_ const uint8_t *csv_cell_end(const struct csv *csv, const uint8_t *p,
					   const uint8_t *end)
{
	while (p < end && *p != csv->delimiter)
		p++;
	return p;
}

/* The end of the cell at @p, quoted or not. */
static const uint8_t *csv_quoted_end(const struct csv *csv, const uint8_t *p, const uint8_t *end)
{
	if (p < end && *p == '"')
		for (p++; p < end; p++)
			if (*p == '"') {
				if (p + 1 == end || p[1] != '"')
					break;
				p++;
			}
	return csv_cell_end(csv, p, end);
}

/* The same as csv_cell() of a line with quotes; an escaped quote is unescaped in place. */
static int csv_quoted_cell(const struct csv *csv, const uint8_t *p, const uint8_t *end,
			   uint32_t column, struct lambda_text *cell)
{
	const uint8_t *stop = csv_quoted_end(csv, p, end);
	uint8_t *out;

	while (--column) {
		if (stop == end)
			return 0;
		p = stop + 1;
		stop = csv_quoted_end(csv, p, end);
	}
	cell->p = p;
	cell->len = (uint64_t)(stop - p);
	if (!cell->len || *p != '"')
		return 1;
	cell->p = out = (uint8_t *)++p;
	for (; p < stop; p++) {
		if (*p == '"' && (p + 1 == stop || *++p != '"')) {
			while (p < stop && *p == '"')
				p++;
			break;
		}
		*out++ = *p;
	}
	cell->len = (uint64_t)(out - cell->p);
	return 1;
}

/* The cell in @column (from 1) of the line [p, end); 0 if the line has none. */
LAMBDA_INLINE_ int csv_cell(const struct csv *csv, const uint8_t *p, const uint8_t *end, int quoted,
			    uint32_t column, struct lambda_text *cell)
{
	if (quoted)
		return csv_quoted_cell(csv, p, end, column, cell);
	p = csv_skip(csv, p, end, column - 1);
	if (p > end)
		return 0;
	cell->p = p;
	cell->len = (uint64_t)(csv_cell_end(csv, p, end) - p);
	return 1;
}

/* ---- decimal numbers: [spaces] [+-] digits [. digits] [spaces] ---- */

#define CSV_UNIT   1000000000000000000ull /* of the fraction: 18 decimals */
#define CSV_DIGITS 18u                    /* at most, before the point and after it */

/* whole + fraction / CSV_UNIT, the fraction not negative: -1.25 is -2 + 0.75 */
struct csv_number {
	int64_t whole;
	uint64_t fraction;
	uint32_t decimals; /* as written */
};

/* 0 unless the cell is a number, of at most CSV_DIGITS digits on either side of the point. */
LAMBDA_INLINE_ int csv_number(struct lambda_text cell, struct csv_number *out)
{
	static const uint64_t power[CSV_DIGITS + 1] = {1ull,
						       10ull,
						       100ull,
						       1000ull,
						       10000ull,
						       100000ull,
						       1000000ull,
						       10000000ull,
						       100000000ull,
						       1000000000ull,
						       10000000000ull,
						       100000000000ull,
						       1000000000000ull,
						       10000000000000ull,
						       100000000000000ull,
						       1000000000000000ull,
						       10000000000000000ull,
						       100000000000000000ull,
						       CSV_UNIT};
	const uint8_t *p = cell.p, *end = p + cell.len, *start;
	uint64_t whole = 0, fraction = 0, digits, decimals = 0;
	int negative = 0;

	while (p < end && *p == ' ')
		p++;
	if (p < end && (*p == '-' || *p == '+'))
		negative = *p++ == '-';
	for (start = p; p < end && (uint8_t)(*p - '0') < 10; p++)
		whole = whole * 10 + (uint8_t)(*p - '0');
	digits = (uint64_t)(p - start);
	if (digits > CSV_DIGITS) {
		while (start < p - CSV_DIGITS && *start == '0')
			start++;
		if (p - start > (int64_t)CSV_DIGITS)
			return 0;
	}
	if (p < end && *p == '.') {
		for (start = ++p; p < end && (uint8_t)(*p - '0') < 10; p++)
			fraction = fraction * 10 + (uint8_t)(*p - '0');
		decimals = (uint64_t)(p - start);
		if (decimals > CSV_DIGITS)
			return 0;
		fraction *= power[CSV_DIGITS - decimals];
	}
	while (p < end && *p == ' ')
		p++;
	if (p < end || !(digits + decimals))
		return 0;
	out->whole = (int64_t)whole;
	out->fraction = fraction;
	out->decimals = (uint32_t)decimals;
	if (negative) {
		out->whole = -out->whole - (fraction != 0);
		out->fraction = fraction ? CSV_UNIT - fraction : 0;
	}
	return 1;
}

LAMBDA_INLINE_ int csv_compare_numbers(const struct csv_number *a, const struct csv_number *b)
{
	if (a->whole != b->whole)
		return a->whole < b->whole ? -1 : 1;
	if (a->fraction != b->fraction)
		return a->fraction < b->fraction ? -1 : 1;
	return 0;
}

/* ---- conditions: = == != < <= > >= contains prefix suffix ---- */

enum {
	CSV_LESS = 1,
	CSV_EQUAL = 2,
	CSV_MORE = 4,
	CSV_CONTAINS = 8,
	CSV_PREFIX = 16,
	CSV_SUFFIX = 32
};

struct csv_condition {
	uint32_t accepts; /* CSV_* */
	int numeric;      /* the value is a number */
	struct lambda_text value;
	struct csv_number number;
};

LAMBDA_INLINE_ int csv_is(struct lambda_text text, const char *word, uint64_t len)
{
	return text.len == len && memcmp(text.p, word, len) == 0;
}

/* -EINVAL: no such operator. */
LAMBDA_INLINE_ int64_t csv_condition_init(struct csv_condition *c, struct lambda_text op,
					  struct lambda_text value)
{
	c->value = value;
	c->numeric = csv_number(value, &c->number);
	c->accepts = 0;
	if (csv_is(op, "contains", 8))
		c->accepts = CSV_CONTAINS;
	else if (csv_is(op, "prefix", 6))
		c->accepts = CSV_PREFIX;
	else if (csv_is(op, "suffix", 6))
		c->accepts = CSV_SUFFIX;
	else if (csv_is(op, "=", 1) || csv_is(op, "==", 2))
		c->accepts = CSV_EQUAL;
	else if (csv_is(op, "!=", 2))
		c->accepts = CSV_LESS | CSV_MORE;
	else if (csv_is(op, "<", 1))
		c->accepts = CSV_LESS;
	else if (csv_is(op, "<=", 2))
		c->accepts = CSV_LESS | CSV_EQUAL;
	else if (csv_is(op, ">", 1))
		c->accepts = CSV_MORE;
	else if (csv_is(op, ">=", 2))
		c->accepts = CSV_MORE | CSV_EQUAL;
	return c->accepts ? 0 : -EINVAL;
}

/* Numbers are compared as numbers where both sides are one, all else byte by byte. */
LAMBDA_INLINE_ int csv_holds(const struct csv_condition *c, struct lambda_text cell)
{
	struct lambda_text value = c->value;
	struct csv_number number;
	uint64_t common = cell.len < value.len ? cell.len : value.len;
	int order;

	if (c->accepts >= CSV_CONTAINS) {
		if (c->accepts == CSV_CONTAINS)
			return lambda_memmem(cell.p, cell.len, value.p, value.len) != NULL;
		if (cell.len < value.len)
			return 0;
		if (c->accepts == CSV_SUFFIX)
			cell.p += cell.len - value.len;
		return memcmp(cell.p, value.p, value.len) == 0;
	}
	if (c->numeric && csv_number(cell, &number)) {
		order = csv_compare_numbers(&number, &c->number);
	} else {
		order = 0;
		if (common) { /* most cells differ in their first byte: no call for those */
			order = (int)*cell.p - *value.p;
			if (!order)
				order = memcmp(cell.p, value.p, common);
		}
		if (!order && cell.len != value.len)
			order = cell.len < value.len ? -1 : 1;
	}
	return (c->accepts & (order < 0 ? CSV_LESS : order > 0 ? CSV_MORE : CSV_EQUAL)) != 0;
}
