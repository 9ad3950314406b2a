/* SPDX-License-Identifier: Apache-2.0 */
/*
 * print.c - a function's output for people (a table), for scripts (tab-separated lines), for programs
 * (JSON) or as it is.
 *
 * Output arrives in any cut; what is not a whole row or line yet waits in @pending.  A table measures its
 * columns on its first rows and is then streamed, so that nothing here grows with the output.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lio.h"

#define TABLE_ROWS 512u /* measured before the first is shown */
#define HEX_LINE   16u

struct bytes {
	uint8_t *p;
	size_t len, cap;
};

struct printer {
	enum print_mode mode;
	const struct lambda_schema *schema;
	FILE *to;
	json_object *head; /* NULL once printed */
	bool any;
	bool first;   /* no element of the JSON array was printed yet */
	bool unended; /* the last line of text had no newline */
	int err;
	uint64_t at; /* bytes shown: hex */
	struct bytes pending;
	size_t searched; /* bytes of pending that hold no newline */
	char **cells;    /* table: rows held back until the columns are measured */
	size_t rows, *width;
	bool *right;
	bool measured;
};

/* ---- small parts ---- */

static int append(struct bytes *b, const void *p, size_t len)
{
	if (len > b->cap - b->len) {
		size_t cap = b->cap ? b->cap : 4096;
		uint8_t *q;

		while (cap - b->len < len) {
			if (cap > SIZE_MAX / 2)
				return -ENOMEM;
			cap *= 2;
		}
		q = realloc(b->p, cap);
		if (!q)
			return -ENOMEM;
		b->p = q;
		b->cap = cap;
	}
	if (len)
		memcpy(b->p + b->len, p, len);
	b->len += len;
	return 0;
}

static void drop(struct bytes *b, size_t len)
{
	memmove(b->p, b->p + len, b->len - len);
	b->len -= len;
}

/* ---- one value ---- */

static uint64_t load(const uint8_t *p, size_t size)
{
	uint64_t v = 0;

	memcpy(&v, p, size); /* rows are little-endian, and so is the machine */
	return v;
}

static int64_t signed_value(const uint8_t *p, size_t size)
{
	unsigned shift = 64 - 8 * (unsigned)size;

	return (int64_t)(load(p, size) << shift) >> shift;
}

static double double_value(const uint8_t *p)
{
	double d;

	memcpy(&d, p, sizeof(d));
	return d;
}

static char *number_text(char buf[32], enum lambda_type type, const uint8_t *p)
{
	size_t size = lambda_type_size(type);

	switch (type) {
	case LAMBDA_I8:
	case LAMBDA_I16:
	case LAMBDA_I32:
	case LAMBDA_I64:
		snprintf(buf, 32, "%" PRId64, signed_value(p, size));
		break;
	case LAMBDA_F64:
		return cli_double_text(buf, double_value(p));
	case LAMBDA_U8:
	case LAMBDA_U16:
	case LAMBDA_U32:
	case LAMBDA_U64:
	case LAMBDA_TEXT:
		snprintf(buf, 32, "%" PRIu64, load(p, size));
		break;
	}
	return buf;
}

static json_object *number_json(enum lambda_type type, const uint8_t *p)
{
	size_t size = lambda_type_size(type);
	char buf[32];

	switch (type) {
	case LAMBDA_I8:
	case LAMBDA_I16:
	case LAMBDA_I32:
	case LAMBDA_I64:
		return json_object_new_int64(signed_value(p, size));
	case LAMBDA_F64:
		if (!isfinite(double_value(p)))
			return NULL; /* JSON has no NaN and no infinity: null */
		return json_object_new_double_s(double_value(p),
						cli_double_text(buf, double_value(p)));
	case LAMBDA_U8:
	case LAMBDA_U16:
	case LAMBDA_U32:
	case LAMBDA_U64:
	case LAMBDA_TEXT:
		break;
	}
	return json_object_new_uint64(load(p, size));
}

/* A text value on a line of its own: tab, newline, backslash, other control bytes and @also are escaped. */
static int escape(struct bytes *b, const uint8_t *p, size_t len, char also)
{
	char buf[8];
	int err = 0;

	for (size_t i = 0; i < len && !err; i++) {
		if (p[i] == '\t' || p[i] == '\n' || p[i] == '\r')
			snprintf(buf, sizeof(buf), "\\%c",
				 p[i] == '\t'   ? 't'
				 : p[i] == '\n' ? 'n'
						: 'r');
		else if (p[i] == '\\' || (also && p[i] == (uint8_t)also))
			snprintf(buf, sizeof(buf), "\\%c", p[i]);
		else if (p[i] < 0x20 || p[i] == 0x7f)
			snprintf(buf, sizeof(buf), "\\x%02x", p[i]);
		else {
			err = append(b, p + i, 1);
			continue;
		}
		err = append(b, buf, strlen(buf));
	}
	return err;
}

/* ---- fields: walk the elements of one, in text and in JSON ---- */

struct element {
	const uint8_t *p;
	size_t len; /* of a text without its length; of a number */
};

/* The element at @p and how far the next one is; the caller checked the field's extent. */
static size_t next_element(const struct lambda_field *field, const uint8_t *p, struct element *out)
{
	if (field->type == LAMBDA_TEXT) {
		*out = (struct element){p + 4, (size_t)load(p, 4)};
		return 4 + out->len;
	}
	*out = (struct element){p, lambda_type_size(field->type)};
	return out->len;
}

static int field_text(struct bytes *b, const struct lambda_field *field, const uint8_t *p)
{
	struct element e;
	char buf[32];
	int err = 0;

	for (uint32_t i = 0; i < field->count && !err; i++) {
		p += next_element(field, p, &e);
		if (i)
			err = append(b, ",", 1);
		if (err)
			break;
		if (field->type == LAMBDA_TEXT)
			err = escape(b, e.p, e.len, field->array ? ',' : 0);
		else
			err = append(b, buf, strlen(number_text(buf, field->type, e.p)));
	}
	return err;
}

json_object *cli_json_value(const struct lambda_field *field, const uint8_t *p)
{
	json_object *array = field->array ? json_object_new_array() : NULL, *value = NULL;
	struct element e;

	for (uint32_t i = 0; i < field->count; i++) {
		p += next_element(field, p, &e);
		value = field->type == LAMBDA_TEXT ? cli_json_text(e.p, e.len)
						   : number_json(field->type, e.p);
		if (array)
			json_object_array_add(array, value);
	}
	return array ? array : value;
}

/* ---- tables ---- */

static size_t columns_wide(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void print_row(FILE *to, char *const *cells, const bool *right, const size_t *width,
		      size_t columns)
{
	for (size_t c = 0; c < columns; c++) {
		size_t wide = columns_wide(cells[c]);
		int pad = wide < width[c] ? (int)(width[c] - wide) : 0;

		if (right && right[c])
			fprintf(to, "%*s%s", pad, "", cells[c]);
		else
			fprintf(to, "%s%*s", cells[c], c + 1 < columns ? pad : 0, "");
		fputs(c + 1 < columns ? "  " : "\n", to);
	}
}

static void measure(size_t *width, char *const *cells, size_t rows, size_t columns)
{
	for (size_t i = 0; i < rows * columns; i++) {
		size_t wide = columns_wide(cells[i]);

		if (wide > width[i % columns])
			width[i % columns] = wide;
	}
}

void print_aligned(FILE *to, char *const *cells, const bool *right, size_t rows, size_t columns)
{
	size_t *width = calloc(columns, sizeof(*width));

	if (!width)
		return;
	measure(width, cells, rows, columns);
	for (size_t r = 0; r < rows; r++)
		print_row(to, cells + r * columns, right, width, columns);
	free(width);
}

static void free_cells(struct printer *p)
{
	for (size_t i = 0; i < p->rows * p->schema->n_fields; i++)
		free(p->cells[i]);
	p->rows = 0;
}

/* Show the header (row 0) and the rows that were held back. */
static void table_begin(struct printer *p)
{
	size_t columns = p->schema->n_fields;

	if (p->measured || !p->rows)
		return;
	measure(p->width, p->cells, p->rows, columns);
	for (size_t r = 0; r < p->rows; r++)
		print_row(p->to, p->cells + r * columns, p->right, p->width, columns);
	free_cells(p);
	p->measured = true;
}

static int table_row(struct printer *p, char **cells)
{
	size_t columns = p->schema->n_fields;

	if (p->measured) {
		print_row(p->to, cells, p->right, p->width, columns);
		for (size_t c = 0; c < columns; c++)
			free(cells[c]);
		return 0;
	}
	memcpy(p->cells + p->rows * columns, cells, columns * sizeof(*cells));
	if (++p->rows == TABLE_ROWS)
		table_begin(p);
	return 0;
}

static int table_new(struct printer *p)
{
	size_t columns = p->schema->n_fields;

	p->cells = calloc(columns * TABLE_ROWS, sizeof(*p->cells));
	p->width = calloc(columns, sizeof(*p->width));
	p->right = calloc(columns, sizeof(*p->right));
	if (!p->cells || !p->width || !p->right)
		return -ENOMEM;
	p->rows = 1;
	for (size_t c = 0; c < columns; c++) {
		p->right[c] =
			p->schema->fields[c].type != LAMBDA_TEXT && !p->schema->fields[c].array;
		p->cells[c] = strdup(p->schema->fields[c].name);
		if (!p->cells[c])
			return -ENOMEM;
	}
	return 0;
}

/* ---- rows ---- */

static int row_table(struct printer *p, const uint8_t *row, size_t len)
{
	size_t columns = p->schema->n_fields, at = 0;
	char **cells = calloc(columns, sizeof(*cells));
	int err = cells ? 0 : -ENOMEM;

	for (size_t c = 0; c < columns && !err; c++) {
		const struct lambda_field *field = &p->schema->fields[c];
		struct bytes b = {0};

		err = field_text(&b, field, row + at);
		at += (size_t)lambda_field_extent(field, row + at, len - at);
		if (!err)
			err = append(&b, "", 1);
		cells[c] = (char *)b.p;
	}
	if (!err)
		err = table_row(p, cells);
	else
		for (size_t c = 0; cells && c < columns; c++)
			free(cells[c]);
	free(cells);
	return err;
}

static int row_tsv(struct printer *p, const uint8_t *row, size_t len)
{
	struct bytes line = {0};
	size_t at = 0;
	int err = 0;

	for (size_t c = 0; c < p->schema->n_fields && !err; c++) {
		const struct lambda_field *field = &p->schema->fields[c];

		if (c)
			err = append(&line, "\t", 1);
		if (!err)
			err = field_text(&line, field, row + at);
		at += (size_t)lambda_field_extent(field, row + at, len - at);
	}
	if (!err)
		err = append(&line, "\n", 1);
	if (!err)
		fwrite(line.p, 1, line.len, p->to);
	free(line.p);
	return err;
}

static void put_json(FILE *to, json_object *o)
{
	size_t len;
	const char *text = json_object_to_json_string_length(
		o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);

	fwrite(text, 1, len, to);
}

static void put_element(struct printer *p, json_object *o)
{
	fputs(p->first ? "\n" : ",\n", p->to);
	p->first = false;
	put_json(p->to, o);
	json_object_put(o);
}

static int row_json(struct printer *p, const uint8_t *row, size_t len)
{
	json_object *o = json_object_new_object();
	size_t at = 0;

	if (!o)
		return -ENOMEM;
	for (size_t c = 0; c < p->schema->n_fields; c++) {
		const struct lambda_field *field = &p->schema->fields[c];
		json_object *value = cli_json_value(field, row + at);

		json_object_object_add(o, field->name, value);
		if (!value && field->type != LAMBDA_F64) { /* only a number can be null */
			json_object_put(o);
			return -ENOMEM;
		}
		at += (size_t)lambda_field_extent(field, row + at, len - at);
	}
	put_element(p, o);
	return 0;
}

/* Bytes of the row at @p, or -ENODATA if more must come. */
static int64_t row_extent(const struct lambda_schema *schema, const uint8_t *p, size_t len)
{
	size_t at = 0;

	for (size_t c = 0; c < schema->n_fields; c++) {
		int64_t n = lambda_field_extent(&schema->fields[c], p + at, len - at);

		if (n < 0)
			return n;
		at += (size_t)n;
	}
	return (int64_t)at;
}

/* The whole rows of [@p, @p + @len); *used says how far they go. */
static int rows(struct printer *p, const uint8_t *at, size_t len, size_t *used)
{
	int err = 0;

	*used = 0;
	while (*used < len && !err) {
		int64_t n = row_extent(p->schema, at + *used, len - *used);

		if (n == -ENODATA)
			break;
		if (n <= 0)
			return n < 0 ? (int)n : -EBADMSG;
		if (p->mode == PRINT_TABLE)
			err = row_table(p, at + *used, (size_t)n);
		else if (p->mode == PRINT_TSV)
			err = row_tsv(p, at + *used, (size_t)n);
		else
			err = row_json(p, at + *used, (size_t)n);
		*used += (size_t)n;
	}
	return err;
}

/* ---- lines and bytes ---- */

/* @len a multiple of 3, or the end of the bytes. */
static void base64(FILE *to, const uint8_t *p, size_t len)
{
	char group[4];

	for (size_t i = 0; i < len; i += 3) {
		cli_base64_group(p + i, len - i < 3 ? len - i : 3, group);
		fwrite(group, 1, 4, to);
	}
}

static int lines_json(struct printer *p, const uint8_t *at, size_t len, size_t *used)
{
	size_t from = p->searched;
	const uint8_t *nl;

	*used = 0;
	while ((nl = memchr(at + from, '\n', len - from)) != NULL) {
		json_object *o = cli_json_text(at + *used, (size_t)(nl - (at + *used)));

		if (!o)
			return -ENOMEM;
		put_element(p, o);
		*used = from = (size_t)(nl - at) + 1;
	}
	p->searched = len - *used;
	return 0;
}

static int bytes_json(struct printer *p, const uint8_t *at, size_t len, size_t *used)
{
	*used = len - len % 3;
	base64(p->to, at, *used);
	return 0;
}

static void hex_line(struct printer *p, const uint8_t *at, size_t len)
{
	fprintf(p->to, "%08" PRIx64 " ", p->at);
	for (size_t i = 0; i < HEX_LINE; i++) {
		if (i < len)
			fprintf(p->to, "%s%02x", i == HEX_LINE / 2 ? "  " : " ", at[i]);
		else
			fputs(i == HEX_LINE / 2 ? "    " : "   ", p->to);
	}
	fputs("  |", p->to);
	for (size_t i = 0; i < len; i++)
		fputc(at[i] >= 0x20 && at[i] < 0x7f ? at[i] : '.', p->to);
	fputs("|\n", p->to);
	p->at += len;
}

static int bytes_hex(struct printer *p, const uint8_t *at, size_t len, size_t *used)
{
	for (*used = 0; len - *used >= HEX_LINE; *used += HEX_LINE)
		hex_line(p, at + *used, HEX_LINE);
	return 0;
}

/* ---- the document around them ---- */

static const char *array_name(enum lambda_shape shape)
{
	switch (shape) {
	case LAMBDA_SHAPE_ROWS:
		return "rows";
	case LAMBDA_SHAPE_TEXT:
		return "lines";
	case LAMBDA_SHAPE_BYTES:
		break;
	}
	return "bytes_base64";
}

/* {"a":1, without the closing brace, so that more members can follow. */
static void put_members(FILE *to, json_object *o, bool first)
{
	json_object_object_foreach(o, key, value)
	{
		json_object *name = json_object_new_string(key);

		fputs(first ? "" : ",", to);
		first = false;
		put_json(to, name);
		fputc(':', to);
		put_json(to, value);
		json_object_put(name);
	}
}

static void begin(struct printer *p)
{
	if (p->mode != PRINT_JSON || !p->head)
		return;
	fputc('{', p->to);
	put_members(p->to, p->head, true);
	fprintf(p->to, ",\"%s\":%c", array_name(p->schema->shape),
		p->schema->shape == LAMBDA_SHAPE_BYTES ? '"' : '[');
	json_object_put(p->head);
	p->head = NULL;
}

static int take(struct printer *p, const uint8_t *at, size_t len, size_t *used)
{
	if (p->mode == PRINT_HEX)
		return bytes_hex(p, at, len, used);
	if (p->schema->shape == LAMBDA_SHAPE_ROWS)
		return rows(p, at, len, used);
	if (p->schema->shape == LAMBDA_SHAPE_TEXT)
		return lines_json(p, at, len, used);
	return bytes_json(p, at, len, used);
}

static int check_stream(struct printer *p)
{
	if (!p->err && ferror(p->to))
		p->err = errno ? -errno : -EIO;
	return p->err;
}

static int feed(struct printer *p, const uint8_t *at, size_t len)
{
	size_t used;
	int err;

	if (p->pending.len) {
		err = append(&p->pending, at, len);
		if (!err)
			err = take(p, p->pending.p, p->pending.len, &used);
		if (!err)
			drop(&p->pending, used);
		return err;
	}
	err = take(p, at, len, &used);
	return err ? err : append(&p->pending, at + used, len - used);
}

int printer_write(void *printer, const void *data, size_t len)
{
	struct printer *p = printer;

	progress_end();
	if (p->err || !len)
		return p->err;
	p->any = true;
	errno = 0;
	if (p->mode == PRINT_RAW) {
		fwrite(data, 1, len, p->to);
	} else {
		begin(p);
		p->err = feed(p, data, len);
	}
	return check_stream(p);
}

static int end_json(struct printer *p, json_object *tail)
{
	if (p->pending.len && p->schema->shape == LAMBDA_SHAPE_TEXT) {
		json_object *o = cli_json_text(p->pending.p, p->pending.len);

		if (!o)
			return -ENOMEM;
		put_element(p, o);
		p->unended = true;
		p->pending.len = 0;
	} else if (p->schema->shape == LAMBDA_SHAPE_BYTES) {
		base64(p->to, p->pending.p, p->pending.len);
		p->pending.len = 0;
	}
	fputs(p->schema->shape == LAMBDA_SHAPE_BYTES ? "\"" : p->first ? "]" : "\n]", p->to);
	if (p->schema->shape == LAMBDA_SHAPE_TEXT)
		fprintf(p->to, ",\"final_newline\":%s", p->unended ? "false" : "true");
	if (tail)
		put_members(p->to, tail, false);
	fputs("}\n", p->to);
	return 0;
}

int printer_end(struct printer *p, json_object *tail)
{
	progress_end();
	errno = 0;
	if (!p->err && p->pending.len && p->schema->shape == LAMBDA_SHAPE_ROWS &&
	    p->mode != PRINT_HEX)
		p->err = -EBADMSG;
	if (p->err)
		return p->err;
	begin(p);
	if (p->mode == PRINT_JSON)
		p->err = end_json(p, tail);
	if (p->mode == PRINT_HEX && p->pending.len)
		hex_line(p, p->pending.p, p->pending.len);
	if (p->mode == PRINT_TABLE && p->any)
		table_begin(p);
	p->pending.len = 0;
	if (fflush(p->to) != 0 && !p->err)
		p->err = errno ? -errno : -EIO;
	return check_stream(p);
}

bool printer_any(const struct printer *p)
{
	return p->any;
}

int printer_error(const struct printer *p)
{
	return p->err;
}

int printer_new(enum print_mode mode, const struct lambda_schema *schema, json_object *head,
		FILE *to, struct printer **out)
{
	struct printer *p = calloc(1, sizeof(*p));

	if (!p) {
		json_object_put(head);
		return -ENOMEM;
	}
	*p = (struct printer){
		.mode = mode, .schema = schema, .head = head, .to = to, .first = true};
	if (mode == PRINT_TABLE && table_new(p)) {
		printer_free(p);
		return -ENOMEM;
	}
	*out = p;
	return 0;
}

void printer_free(struct printer *p)
{
	if (!p)
		return;
	if (p->cells)
		free_cells(p);
	free(p->cells);
	free(p->width);
	free(p->right);
	free(p->pending.p);
	json_object_put(p->head);
	free(p);
}
