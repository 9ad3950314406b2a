/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schema.c - the little type language: "max:i64 q:i64[4]=0..3 name:text=abc".
 *
 * Fields are separated by blanks.  A field is NAME:TYPE, NAME:TYPE[N] or NAME:TYPE=DEFAULT; a
 * default is a literal, a comma list or a range a..b, for text everything to the next blank or a
 * "quoted" string, in which a backslash takes the next character as it is.
 *
 * Declarations come out of objects, so all of this is hostile input: linear, bounded, no recursion.
 */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/internal.h"

static const struct {
	const char *name;
	size_t size;
} types[] = {
	[LAMBDA_I8] = {"i8", 1},     [LAMBDA_I16] = {"i16", 2}, [LAMBDA_I32] = {"i32", 4},
	[LAMBDA_I64] = {"i64", 8},   [LAMBDA_U8] = {"u8", 1},   [LAMBDA_U16] = {"u16", 2},
	[LAMBDA_U32] = {"u32", 4},   [LAMBDA_U64] = {"u64", 8}, [LAMBDA_F64] = {"f64", 8},
	[LAMBDA_TEXT] = {"text", 0},
};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

size_t lambda_type_size(enum lambda_type type)
{
	return types[type].size;
}

const char *lambda_type_name(enum lambda_type type)
{
	return types[type].name;
}

/* ---- numbers ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

struct integer { /* -2^64 < value < 2^64: sign and magnitude */
	bool negative;
	uint64_t magnitude;
};

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 16;
}

/* All of [p, end) as one integer: -EINVAL if it is none, -ERANGE if it is too large. */
static int parse_integer(const char *p, const char *end, struct integer *out)
{
	int base = 10;

	*out = (struct integer){0};
	if (p < end && (*p == '-' || *p == '+'))
		out->negative = *p++ == '-';
	if (end - p > 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	if (p == end)
		return -EINVAL;
	for (; p < end; p++) {
		if (digit(*p) >= base)
			return -EINVAL;
		if (__builtin_mul_overflow(out->magnitude, (uint64_t)base, &out->magnitude) ||
		    __builtin_add_overflow(out->magnitude, (uint64_t)digit(*p), &out->magnitude))
			return -ERANGE;
	}
	return 0;
}

static bool integer_fits(struct integer v, enum lambda_type type)
{
	unsigned int bits = 8 * (unsigned int)types[type].size;

	if (type < LAMBDA_U8) { /* signed */
		uint64_t limit = 1ull << (bits - 1);

		return v.magnitude < limit || (v.negative && v.magnitude == limit);
	}
	if (v.negative && v.magnitude)
		return false;
	return bits == 64 || v.magnitude < 1ull << bits;
}

static void store_integer(struct integer v, enum lambda_type type, uint8_t *out)
{
	uint64_t bits = v.negative ? 0 - v.magnitude : v.magnitude;

	memcpy(out, &bits, types[type].size); /* little-endian, as the machine is */
}

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void)
{
	c_locale = newlocale(LC_ALL_MASK, "C", NULL);
}

/* The decimal point is a point whatever the application's locale says. */
static int parse_f64(const char *p, const char *end, double *out)
{
	char buf[64], *stop;
	size_t len = (size_t)(end - p);
	int saved = errno;

	pthread_once(&c_locale_once, make_c_locale);
	if (!c_locale)
		return -ENOMEM;
	if (!len || len >= sizeof(buf) || is_blank(*p))
		return -EINVAL;
	memcpy(buf, p, len);
	buf[len] = 0;
	*out = strtod_l(buf, &stop, c_locale);
	errno = saved;
	if (stop != buf + len)
		return -EINVAL;
	return isinf(*out) && !memchr("iI", p[strspn(buf, "+-")], 2) ? -ERANGE : 0;
}

static int parse_number(enum lambda_type type, const char *p, const char *end, uint8_t *out)
{
	struct integer v;
	int rc;

	if (type == LAMBDA_F64) {
		double d;

		rc = parse_f64(p, end, &d);
		if (!rc)
			memcpy(out, &d, sizeof(d));
		return rc;
	}
	rc = parse_integer(p, end, &v);
	if (rc)
		return rc;
	if (!integer_fits(v, type))
		return -ERANGE;
	store_integer(v, type, out);
	return 0;
}

static int bad_number(struct lambda_error *err, int rc, const struct lambda_field *field,
		      const char *what, const char *p, const char *end)
{
	int shown = end - p > 40 ? 40 : (int)(end - p);
	const char *more = end - p > 40 ? "…" : "";

	if (rc == -ENOMEM)
		return lambda_fail(err, -ENOMEM, "%s: out of memory", what);
	if (rc == -ERANGE)
		return lambda_fail(err, -EINVAL, "%s: %.*s%s does not fit %s; give one that does",
				   what, shown, p, more, types[field->type].name);
	return lambda_fail(err, -EINVAL, "%s: '%.*s%s' is not a number; give decimal or 0x digits",
			   what, shown, p, more);
}

static int bad_count(struct lambda_error *err, const struct lambda_field *field, const char *what,
		     const char *have)
{
	return lambda_fail(err, -EINVAL, "%s: %s values given; %s[%u] needs exactly %u", what, have,
			   types[field->type].name, field->count, field->count);
}

/* The two dots of a range, or NULL. */
static const char *find_dots(const char *p, const char *end)
{
	return memmem(p, (size_t)(end - p), "..", 2);
}

/* A range a..b counts up by one, both ends included. */
static int parse_range(const struct lambda_field *field, const char *p, const char *dots,
		       const char *end, const char *what, uint8_t *out, struct lambda_error *err)
{
	struct integer a, b;
	uint64_t steps;
	size_t size = types[field->type].size;
	int rc;

	rc = parse_integer(p, dots, &a);
	if (!rc)
		rc = parse_integer(dots + 2, end, &b);
	if (!rc && field->type != LAMBDA_F64 &&
	    (!integer_fits(a, field->type) || !integer_fits(b, field->type)))
		rc = -ERANGE;
	/* so that a difference of two fits 64 bits, and an f64 holds each value exactly */
	if (!rc && field->type == LAMBDA_F64 &&
	    (a.magnitude > 1ull << 53 || b.magnitude > 1ull << 53))
		rc = -ERANGE;
	if (rc)
		return bad_number(err, rc, field, what, p, end);
	if (a.negative == b.negative)
		steps = a.negative ? a.magnitude - b.magnitude : b.magnitude - a.magnitude;
	else
		steps = a.magnitude + b.magnitude;
	if ((a.negative == b.negative &&
	     (a.negative ? a.magnitude < b.magnitude : b.magnitude < a.magnitude)) ||
	    (!a.negative && b.negative && steps))
		return lambda_fail(
			err, -EINVAL,
			"%s: the range '%.*s' runs backwards; write the smaller end first", what,
			(int)(end - p), p);
	if (steps != (uint64_t)field->count - 1)
		return lambda_fail(err, -EINVAL,
				   "%s: the range '%.*s' does not have the %u values of %s[%u]; "
				   "widen or shorten it",
				   what, (int)(end - p), p, field->count, types[field->type].name,
				   field->count);
	for (uint64_t i = 0; i <= steps; i++, out += size) {
		uint64_t bits = (a.negative ? 0 - a.magnitude : a.magnitude) + i;

		if (field->type == LAMBDA_F64) {
			double d = (double)(int64_t)bits;

			memcpy(out, &d, sizeof(d));
		} else {
			memcpy(out, &bits, size);
		}
	}
	return 0;
}

int lambda_numbers_parse(const struct lambda_field *field, const char *text, size_t len,
			 const char *what, uint8_t *out, struct lambda_error *err)
{
	const char *end = text + len, *dots = find_dots(text, end);
	size_t size = types[field->type].size;
	uint32_t n = 0;

	if (dots)
		return parse_range(field, text, dots, end, what, out, err);
	for (const char *p = text;; n++) {
		const char *stop = memchr(p, ',', (size_t)(end - p));
		int rc;

		if (!stop)
			stop = end;
		if (n == field->count)
			return bad_count(err, field, what, "more");
		rc = parse_number(field->type, p, stop, out + n * size);
		if (rc)
			return bad_number(err, rc, field, what, p, stop);
		if (stop == end)
			break;
		p = stop + 1;
	}
	return n + 1 == field->count ? 0 : bad_count(err, field, what, "fewer");
}

int lambda_numbers_scan(const struct lambda_field *field, const char *text, size_t len,
			uint8_t *out)
{
	const char *p = text, *end = text + len;
	size_t size = types[field->type].size;
	uint32_t n = 0;

	for (;;) {
		const char *start;

		while (p < end && (is_blank(*p) || *p == ','))
			p++;
		if (p == end)
			return n == field->count ? 0 : -EINVAL;
		start = p;
		while (p < end && !is_blank(*p) && *p != ',')
			p++;
		if (n == field->count || parse_number(field->type, start, p, out + n++ * size))
			return -EINVAL;
	}
}

/* ---- declarations ---- */

struct parser {
	const char *p, *end;
	const char *what; /* "output" or "arguments": which declaration, for messages */
	uint64_t packed;  /* bytes of all fields that are not text */
	struct lambda_error *err;
};

static bool name_char(char c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
	       (!first && ((c >= '0' && c <= '9') || c == '-'));
}

static int parse_name(struct parser *ps, const struct lambda_schema *schema,
		      struct lambda_field *field)
{
	const char *start = ps->p;
	size_t len;

	while (ps->p < ps->end && name_char(*ps->p, ps->p == start))
		ps->p++;
	len = (size_t)(ps->p - start);
	if (!len || len > LAMBDA_SCHEMA_NAME_MAX || ps->p == ps->end || *ps->p != ':')
		return lambda_fail(ps->err, -EINVAL,
				   "%s: field %u: expected NAME:TYPE, found '%.*s'; a name has at "
				   "most 63 bytes",
				   ps->what, schema->n_fields + 1,
				   (int)(ps->end - start > 40 ? 40 : ps->end - start), start);
	ps->p++;
	for (uint32_t i = 0; i < schema->n_fields; i++)
		if (strlen(schema->fields[i].name) == len &&
		    !memcmp(schema->fields[i].name, start, len))
			return lambda_fail(
				ps->err, -EINVAL,
				"%s: '%.*s' is declared twice; give each field a name of its own",
				ps->what, (int)len, start);
	field->name = strndup(start, len);
	return field->name ? 0 : lambda_fail(ps->err, -ENOMEM, "%s: out of memory", ps->what);
}

static int parse_array(struct parser *ps, struct lambda_field *field)
{
	const char *close = memchr(ps->p, ']', (size_t)(ps->end - ps->p));
	struct integer n = {0};

	if (!close || parse_integer(ps->p + 1, close, &n) || n.negative || !n.magnitude ||
	    n.magnitude > LAMBDA_SCHEMA_VALUES_MAX)
		return lambda_fail(
			ps->err, -EINVAL, "%s: '%s': expected [N], N from 1 to %llu; give a size",
			ps->what, field->name, (unsigned long long)LAMBDA_SCHEMA_VALUES_MAX);
	if (field->type == LAMBDA_TEXT)
		return lambda_fail(
			ps->err, -EINVAL,
			"%s: '%s': there are no arrays of text; declare a field for each", ps->what,
			field->name);
	field->array = true;
	field->count = (uint32_t)n.magnitude;
	ps->p = close + 1;
	return 0;
}

static int parse_type(struct parser *ps, struct lambda_field *field)
{
	const char *start = ps->p;
	size_t len, i;
	int rc;

	while (ps->p < ps->end && name_char(*ps->p, ps->p == start))
		ps->p++;
	len = (size_t)(ps->p - start);
	for (i = 0; i < N_TYPES; i++)
		if (strlen(types[i].name) == len && !memcmp(types[i].name, start, len))
			break;
	if (i == N_TYPES)
		return lambda_fail(ps->err, -EINVAL,
				   "%s: '%s': '%.*s' is no type; there are i8 i16 i32 i64 u8 u16 "
				   "u32 u64 f64 and text",
				   ps->what, field->name, (int)(len > 40 ? 40 : len), start);
	field->type = (enum lambda_type)i;
	field->count = 1;
	if (ps->p < ps->end && *ps->p == '[') {
		rc = parse_array(ps, field);
		if (rc)
			return rc;
	}
	ps->packed += lambda_field_bytes(field);
	if (ps->packed > LAMBDA_SCHEMA_VALUES_MAX)
		return lambda_fail(ps->err, -EINVAL,
				   "%s: '%s': the fields exceed %llu bytes; declare smaller ones, "
				   "or take text",
				   ps->what, field->name,
				   (unsigned long long)LAMBDA_SCHEMA_VALUES_MAX);
	return 0;
}

/* Text of a default into @out, which has room for all that is left; its length or -EINVAL. */
static int64_t parse_text(struct parser *ps, const struct lambda_field *field, uint8_t *out)
{
	int64_t n = 0;

	if (ps->p == ps->end || *ps->p != '"') {
		while (ps->p < ps->end && !is_blank(*ps->p))
			out[n++] = (uint8_t)*ps->p++;
		return n;
	}
	for (ps->p++; ps->p < ps->end && *ps->p != '"'; ps->p++) {
		if (*ps->p == '\\' && ps->p + 1 < ps->end)
			ps->p++;
		out[n++] = (uint8_t)*ps->p;
	}
	if (ps->p == ps->end)
		return lambda_fail(ps->err, -EINVAL,
				   "%s: '%s': the default has no closing quote; add it", ps->what,
				   field->name);
	ps->p++;
	return n;
}

static int parse_default(struct parser *ps, struct lambda_field *field)
{
	char what[LAMBDA_SCHEMA_NAME_MAX + 64];
	const char *start = ps->p;
	int64_t n = (int64_t)lambda_field_bytes(field);

	field->has_default = true;
	field->value =
		malloc(field->type == LAMBDA_TEXT ? 4 + (size_t)(ps->end - start) : (size_t)n);
	if (!field->value)
		return lambda_fail(ps->err, -ENOMEM, "%s: out of memory", ps->what);
	if (field->type == LAMBDA_TEXT) {
		uint32_t len;

		n = parse_text(ps, field, field->value + 4);
		if (n < 0)
			return (int)n;
		len = (uint32_t)n;
		memcpy(field->value, &len, sizeof(len));
		field->value_len = 4 + len;
		return 0;
	}
	while (ps->p < ps->end && !is_blank(*ps->p))
		ps->p++;
	field->value_len = (size_t)n;
	snprintf(what, sizeof(what), "%s: default of '%s'", ps->what, field->name);
	return lambda_numbers_parse(field, start, (size_t)(ps->p - start), what, field->value,
				    ps->err);
}

static int parse_field(struct parser *ps, struct lambda_schema *schema, bool defaults)
{
	struct lambda_field *field = &schema->fields[schema->n_fields];
	int rc;

	rc = parse_name(ps, schema, field);
	if (rc)
		return rc;
	schema->n_fields++; /* from here on lambda_schema_free() knows it */
	rc = parse_type(ps, field);
	if (rc)
		return rc;
	if (ps->p < ps->end && *ps->p == '=') {
		if (!defaults)
			return lambda_fail(ps->err, -EINVAL,
					   "%s: '%s': an output has no default; leave it out",
					   ps->what, field->name);
		ps->p++;
		rc = parse_default(ps, field);
		if (rc)
			return rc;
	}
	if (ps->p < ps->end && !is_blank(*ps->p))
		return lambda_fail(
			ps->err, -EINVAL,
			"%s: '%s': unexpected '%c' after its type; separate fields by blanks",
			ps->what, field->name, *ps->p);
	return 0;
}

static bool is_word(const char *p, const char *end, const char *word)
{
	while (p < end && is_blank(*p))
		p++;
	while (end > p && is_blank(end[-1]))
		end--;
	return strlen(word) == (size_t)(end - p) && !memcmp(p, word, (size_t)(end - p));
}

static int check_text(const struct parser *ps)
{
	if (ps->end - ps->p > (ptrdiff_t)LAMBDA_SCHEMA_TEXT_MAX)
		return lambda_fail(ps->err, -EINVAL, "%s: longer than %u bytes; shorten it",
				   ps->what, LAMBDA_SCHEMA_TEXT_MAX);
	for (const char *p = ps->p; p < ps->end; p++)
		if (((unsigned char)*p < 0x20 && !is_blank(*p)) || *p == 0x7f)
			return lambda_fail(ps->err, -EINVAL,
					   "%s: control character 0x%02x at byte %zu; write text",
					   ps->what, (unsigned char)*p, (size_t)(p - ps->p));
	return 0;
}

/* Room for as many fields as there are words; a quoted default only makes that too many. */
static uint32_t count_words(const char *p, const char *end)
{
	uint32_t n = 0;

	for (bool in = false; p < end; p++) {
		n += !in && !is_blank(*p);
		in = !is_blank(*p);
	}
	return n < LAMBDA_SCHEMA_FIELDS_MAX ? n : LAMBDA_SCHEMA_FIELDS_MAX;
}

int lambda_schema_parse(const char *text, size_t len, bool output, struct lambda_schema *out,
			struct lambda_error *err)
{
	struct parser ps = {
		.p = text, .end = text + len, .what = output ? "output" : "arguments", .err = err};
	uint32_t room;
	int rc;

	*out = (struct lambda_schema){.shape = LAMBDA_SHAPE_ROWS};
	rc = check_text(&ps);
	if (rc)
		return rc;
	if (output && (is_word(text, ps.end, "bytes") || is_word(text, ps.end, "text"))) {
		out->shape = is_word(text, ps.end, "text") ? LAMBDA_SHAPE_TEXT : LAMBDA_SHAPE_BYTES;
		return 0;
	}
	room = count_words(text, ps.end);
	if (!room) /* no output type is plain bytes, no arguments is no fields */
		return output ? lambda_fail(err, -EINVAL,
					    "output: empty; declare a row type, text or bytes")
			      : 0;
	out->fields = calloc(room, sizeof(*out->fields));
	if (!out->fields)
		return lambda_fail(err, -ENOMEM, "%s: out of memory", ps.what);
	for (;;) {
		while (ps.p < ps.end && is_blank(*ps.p))
			ps.p++;
		if (ps.p == ps.end)
			return 0;
		rc = out->n_fields < room
			     ? parse_field(&ps, out, !output)
			     : lambda_fail(err, -EINVAL, "%s: more than %u fields; use arrays",
					   ps.what, LAMBDA_SCHEMA_FIELDS_MAX);
		if (rc) {
			lambda_schema_free(out);
			return rc;
		}
	}
}

void lambda_schema_free(struct lambda_schema *schema)
{
	for (uint32_t i = 0; i < schema->n_fields; i++) {
		free(schema->fields[i].name);
		free(schema->fields[i].value);
	}
	free(schema->fields);
	*schema = (struct lambda_schema){.shape = schema->shape};
}

int64_t lambda_field_extent(const struct lambda_field *field, const uint8_t *p, size_t len)
{
	uint64_t size = lambda_field_bytes(field);

	if (field->type == LAMBDA_TEXT) {
		uint32_t n;

		if (len < sizeof(n))
			return -ENODATA;
		memcpy(&n, p, sizeof(n));
		size = sizeof(n) + (uint64_t)n;
	}
	return size <= len ? (int64_t)size : -ENODATA;
}
