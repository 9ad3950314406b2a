/* SPDX-License-Identifier: Apache-2.0 */
/*
 * csv-sum - sum, count, smallest and largest of the decimal numbers in a column of a CSV file.
 *
 * Reads: lines of cells (csv.h says what a cell is).
 * Returns: one row sum:text count:u64 min:text max:text skipped:u64.  All are exact: numbers have at most 18
 * digits before and 18 after the point, and sums are kept in 128 bits and 18 decimals; they are written with
 * as many decimals as the number that has the most.  skipped counts lines whose cell is missing or
 * not such a number; without any number min and max are empty and sum is 0.
 * With where=COLUMN only lines whose cell there meets `op value` count (as in csv-filter).
 */
#include "csv.h"

LAMBDA_DOC("exact sum, count, min and max of the decimal numbers in a CSV column");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("sum:text count:u64 min:text max:text skipped:u64");
LAMBDA_ARGS("column:u32=1 delimiter:text=, where:u32=0 op:text== value:text= quotes:u8=1");

struct wide { /* low + high × 2^64, two's complement */
	uint64_t low, high;
};

struct sum {
	struct wide whole;
	uint64_t fraction; /* in units of 1 / CSV_UNIT, less than one */
	uint64_t count, skipped;
	struct csv_number min, max;
	uint64_t decimals;
};

LAMBDA_INLINE_ void add(struct wide *sum, uint64_t low, uint64_t high)
{
	sum->low += low;
	sum->high += high + (sum->low < low);
}

LAMBDA_INLINE_ void add_fraction(struct sum *st, uint64_t fraction)
{
	st->fraction += fraction;
	if (st->fraction >= CSV_UNIT) {
		st->fraction -= CSV_UNIT;
		add(&st->whole, 1, 0);
	}
}

LAMBDA_INLINE_ void limits(struct sum *st, const struct csv_number *min,
			   const struct csv_number *max)
{
	if (!st->count || csv_compare_numbers(min, &st->min) < 0)
		st->min = *min;
	if (!st->count || csv_compare_numbers(max, &st->max) > 0)
		st->max = *max;
}

LAMBDA_FOLD(csv_sum, struct sum)
{
	const uint8_t *arg = ctx->arg, *p = ctx->in, *next;
	uint32_t column = lambda_arg_u32(&arg);
	struct lambda_text delimiter = lambda_arg_text(&arg);
	uint32_t where = lambda_arg_u32(&arg);
	struct lambda_text op = lambda_arg_text(&arg), value = lambda_arg_text(&arg), cell;
	uint8_t quotes = lambda_arg_u8(&arg);
	struct csv_condition condition;
	struct csv csv;
	int64_t ret = csv_init(&csv, ctx, column, delimiter, quotes);

	if (!ret)
		ret = csv_condition_init(&condition, op, value);
	if (!ret && !column)
		ret = -EINVAL;
	if (ret)
		return ret;
	for (; p < csv.end; p = next) {
		struct csv_number number;
		const uint8_t *end;
		int quoted;

		next = csv_next(&csv, p);
		end = csv_line_end(p, next);
		quoted = csv_quoted(&csv, p, end);
		if (where &&
		    !(csv_cell(&csv, p, end, quoted, where, &cell) && csv_holds(&condition, cell)))
			continue;
		if (!csv_cell(&csv, p, end, quoted, column, &cell) || !csv_number(cell, &number)) {
			st->skipped++;
			continue;
		}
		limits(st, &number, &number);
		st->count++;
		if (number.decimals > st->decimals)
			st->decimals = number.decimals;
		add(&st->whole, (uint64_t)number.whole, (uint64_t)(number.whole >> 63));
		add_fraction(st, number.fraction);
	}
	return 0;
}

LAMBDA_MERGE(csv_sum, struct sum)
{
	st->skipped += other->skipped;
	if (!other->count)
		return 0;
	limits(st, &other->min, &other->max);
	st->count += other->count;
	if (other->decimals > st->decimals)
		st->decimals = other->decimals;
	add(&st->whole, other->whole.low, other->whole.high);
	add_fraction(st, other->fraction);
	return 0;
}

/* Digits of w from the right to @p; the first. */
static uint8_t *put_wide(uint8_t *p, const struct wide *w)
{
	uint32_t limb[4] = {(uint32_t)(w->high >> 32), (uint32_t)w->high, (uint32_t)(w->low >> 32),
			    (uint32_t)w->low};
	uint32_t any;

	do {
		uint64_t rest = 0;

		any = 0;
		for (int i = 0; i < 4; i++) {
			rest = rest << 32 | limb[i];
			limb[i] = (uint32_t)(rest / 10);
			rest %= 10;
			any |= limb[i];
		}
		*--p = (uint8_t)('0' + rest);
	} while (any);
	return p;
}

#define TEXT_MAX 64u /* sign, 39 digits, point, 18 decimals */

/* A text field: length and bytes.  The rest of the place it needs; NULL: no room. */
static uint8_t *put_number(uint8_t *out, const uint8_t *out_end, const struct wide *number,
			   uint64_t fraction, uint64_t decimals)
{
	uint8_t text[TEXT_MAX], *end = text + TEXT_MAX, *p = end;
	struct wide whole = *number;
	int negative = (int64_t)whole.high < 0;
	uint32_t len;

	if (negative) { /* -2 + 0.75 is -(1 + 0.25) */
		uint64_t borrow = fraction != 0;

		fraction = borrow ? CSV_UNIT - fraction : 0;
		whole.low = ~whole.low;
		whole.high = ~whole.high;
		add(&whole, !borrow, 0);
	}
	for (uint64_t i = CSV_DIGITS; i; i--) {
		if (i <= decimals)
			*--p = (uint8_t)('0' + fraction % 10);
		fraction /= 10;
	}
	if (decimals)
		*--p = '.';
	p = put_wide(p, &whole);
	if (negative)
		*--p = '-';
	len = (uint32_t)(end - p);
	if ((uint64_t)(out_end - out) < 4 + len)
		return NULL;
	memcpy(out, &len, 4);
	memcpy(out + 4, p, len);
	return out + 4 + len;
}

static uint8_t *put_limit(uint8_t *out, const uint8_t *out_end, const struct csv_number *n,
			  uint64_t count, uint64_t decimals)
{
	struct wide whole = {(uint64_t)n->whole, (uint64_t)(n->whole >> 63)};

	if (count)
		return put_number(out, out_end, &whole, n->fraction, decimals);
	if (out_end - out < 4)
		return NULL;
	memset(out, 0, 4);
	return out + 4;
}

LAMBDA_FINISH(csv_sum, struct sum)
{
	uint8_t *out = ctx->out, *end = out + ctx->out_cap;

	out = put_number(out, end, &st->whole, st->fraction, st->decimals);
	if (!out || end - out < 8)
		return -ENOSPC;
	lambda_store64(out, st->count);
	out = put_limit(out + 8, end, &st->min, st->count, st->decimals);
	if (!out)
		return -ENOSPC;
	out = put_limit(out, end, &st->max, st->count, st->decimals);
	if (!out || end - out < 8)
		return -ENOSPC;
	lambda_store64(out, st->skipped);
	return out + 8 - ctx->out;
}
