/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - what the modules of src/lambda share; nothing outside includes it but their tests.
 */
#ifndef LAMBDA_INTERNAL_H
#define LAMBDA_INTERNAL_H

#include "lambda/lambda.h"

/* error.c: lambda_fail() with a place in the input. */
int lambda_fail_at(struct lambda_error *err, int code, uint64_t offset, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* "EINVAL" for -EINVAL or EINVAL; "error" for what has no name. */
const char *lambda_errname(int code);

/* ---- values of the type language (schema.c) ---- */

/*
 * Pack @len bytes of number text for @field (a literal, a comma list or a range) into @out, which
 * has count × size bytes.  @what names the thing in messages ("argument 'k'").
 */
int lambda_numbers_parse(const struct lambda_field *field, const char *text, size_t len,
			 const char *what, uint8_t *out, struct lambda_error *err);
/* The same for numbers in a file, separated by blanks or commas.  -EINVAL without a message. */
int lambda_numbers_scan(const struct lambda_field *field, const char *text, size_t len,
			uint8_t *out);
/* Bytes of a packed field that is not text. */
static inline uint64_t lambda_field_bytes(const struct lambda_field *field)
{
	return (uint64_t)field->count * lambda_type_size(field->type);
}

#define LAMBDA_SCHEMA_TEXT_MAX   65536u        /* bytes of a declaration */
#define LAMBDA_SCHEMA_FIELDS_MAX 256u          /* fields in one */
#define LAMBDA_SCHEMA_NAME_MAX   63u           /* bytes of a field's name */
#define LAMBDA_SCHEMA_VALUES_MAX (64ull << 20) /* bytes of all packed fields that are not text */

/* ---- records: where they start (records.c) ---- */

struct lambda_cutter {
	enum lambda_record kind;
	uint32_t value; /* size or delimiter */
	struct lambda_source *src;
	uint64_t size; /* bytes of the data; UINT64_MAX while unknown */
};

/*
 * The functions below return 0 or -errno; -ENODATA: the source ended before @size, so more bytes
 * are needed (or the file was truncated).  A record start is 0, or follows a record's end; the end
 * of the data counts as one.
 */

/* The first record start at or after @off; -EMSGSIZE if there is none up to @limit. */
int lambda_record_next(const struct lambda_cutter *c, uint64_t off, uint64_t limit,
		       uint64_t *start);
/* The last record start in (@lo, @hi], or @lo if there is none. */
int lambda_record_last(const struct lambda_cutter *c, uint64_t lo, uint64_t hi, uint64_t *start);
/*
 * Where the piece that starts at record start @a ends: at the first start at or after @target; if
 * that is beyond @limit, at the last one before.  -EMSGSIZE: the record at @a alone reaches beyond
 * @limit.
 */
int lambda_record_cut(const struct lambda_cutter *c, uint64_t a, uint64_t target, uint64_t limit,
		      uint64_t *b);

struct lambda_range {
	uint64_t begin;    /* the first record start in the range */
	uint64_t end;      /* no record starts at or after this one is the range's */
	uint64_t trailing; /* bytes of a fixed record cut short by the end of the data */
};
/* The records that start in [@offset, @offset + @length); the size must be known. */
int lambda_record_range(const struct lambda_cutter *c, uint64_t offset, uint64_t length,
			struct lambda_range *out);

#endif /* LAMBDA_INTERNAL_H */
