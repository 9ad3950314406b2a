/* SPDX-License-Identifier: Apache-2.0 */
/*
 * records.c - where records start, and so where input may be cut.
 *
 * Fixed records count from offset 0; delimited ones start at 0 and after each delimiter.  A record
 * belongs to the range in which it starts, so cutting at first starts makes adjacent ranges add up.
 * Bytes are looked at through the source's read(), never in a mapping: a file that is truncated
 * meanwhile is an error here, not a fault.
 */
#include <errno.h>
#include <string.h>

#include "lambda/internal.h"

/* Most delimiters are near: look at little first, then at more. */
#define LOOK_FIRST 512u
#define LOOK_MOST  16384u

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The smallest multiple of @n at or after @off. */
static uint64_t round_up(uint64_t off, uint64_t n)
{
	uint64_t rest = off % n;

	return rest ? add_sat(off, n - rest) : off;
}

/* Exactly @len bytes, or -ENODATA. */
static int look(const struct lambda_cutter *c, void *buf, uint64_t len, uint64_t off)
{
	uint64_t have = 0;

	while (have < len) {
		int64_t n = c->src->ops->read(c->src, (char *)buf + have, len - have, off + have);

		if (n < 0)
			return (int)n;
		if (!n)
			return -ENODATA;
		have += (uint64_t)n;
	}
	return 0;
}

static int next_delimited(const struct lambda_cutter *c, uint64_t off, uint64_t limit,
			  uint64_t *start)
{
	uint64_t at = off - 1; /* a delimiter there makes off a start */
	uint64_t step = LOOK_FIRST;
	char buf[LOOK_MOST];

	while (at < limit && at < c->size) {
		uint64_t len = min_u64(step, min_u64(limit, c->size) - at);
		const char *hit;
		int64_t n = c->src->ops->read(c->src, buf, len, at);

		if (n < 0)
			return (int)n;
		if (!n)
			return -ENODATA;
		hit = memchr(buf, (int)c->value, (size_t)n);
		if (hit) {
			*start = at + (uint64_t)(hit - buf) + 1;
			return 0;
		}
		at += (uint64_t)n;
		step = min_u64(step * 4, LOOK_MOST);
	}
	if (at < c->size)
		return -EMSGSIZE;
	*start = c->size;
	return 0;
}

int lambda_record_next(const struct lambda_cutter *c, uint64_t off, uint64_t limit, uint64_t *start)
{
	if (off >= c->size)
		off = c->size;
	*start = off;
	if (off == 0 || off == c->size || c->kind == LAMBDA_RECORDS_ANY)
		return 0;
	if (c->kind == LAMBDA_RECORDS_DELIM)
		return next_delimited(c, off, limit, start);
	*start = min_u64(round_up(off, c->value), c->size);
	return *start <= limit ? 0 : -EMSGSIZE;
}

static int last_delimited(const struct lambda_cutter *c, uint64_t lo, uint64_t hi, uint64_t *start)
{
	char buf[LOOK_MOST];

	for (uint64_t end = hi; end > lo;) { /* a delimiter at end - 1 makes end a start */
		uint64_t len = min_u64(LOOK_MOST, end - lo);
		const char *hit;
		int rc = look(c, buf, len, end - len);

		if (rc)
			return rc;
		hit = memrchr(buf, (int)c->value, len);
		if (hit) {
			*start = end - len + (uint64_t)(hit - buf) + 1;
			return 0;
		}
		end -= len;
	}
	*start = lo;
	return 0;
}

int lambda_record_last(const struct lambda_cutter *c, uint64_t lo, uint64_t hi, uint64_t *start)
{
	if (c->kind == LAMBDA_RECORDS_DELIM)
		return last_delimited(c, lo, hi, start);
	*start = c->kind == LAMBDA_RECORDS_ANY ? hi : hi - hi % c->value;
	if (*start < lo)
		*start = lo;
	return 0;
}

int lambda_record_cut(const struct lambda_cutter *c, uint64_t a, uint64_t target, uint64_t limit,
		      uint64_t *b)
{
	int rc = lambda_record_next(c, target, limit, b);

	if (rc == -EMSGSIZE || (!rc && *b > limit)) {
		rc = lambda_record_last(c, a, min_u64(target, limit), b);
		if (!rc && *b == a)
			rc = -EMSGSIZE;
	}
	return rc;
}

int lambda_record_range(const struct lambda_cutter *c, uint64_t offset, uint64_t length,
			struct lambda_range *out)
{
	uint64_t whole;
	int rc;

	*out = (struct lambda_range){.end = min_u64(c->size, add_sat(offset, length))};
	if (offset >= out->end) {
		out->begin = out->end;
		return 0;
	}
	rc = lambda_record_next(c, offset, out->end, &out->begin);
	if (rc == -EMSGSIZE) /* all of the range lies inside a record that starts before it */
		out->begin = out->end;
	else if (rc)
		return rc;
	if (c->kind == LAMBDA_RECORDS_FIXED) {
		whole = c->size - c->size % c->value;
		if (whole >= offset && whole < out->end)
			out->trailing = c->size - whole;
		out->end = min_u64(out->end, whole);
	}
	if (out->begin > out->end)
		out->begin = out->end;
	return 0;
}
