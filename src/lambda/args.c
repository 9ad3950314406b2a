/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.c - from what a person typed (NAME=VALUE, VALUE, @FILE) to the packed argument block.
 *
 * Owns which value belongs to which declared argument.  The values' language is schema.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lambda/internal.h"

struct value {            /* of one declared argument */
	const char *text; /* NULL: not given */
	uint8_t *file;    /* malloc'd: the bytes of @FILE, instead */
	size_t len;
};

struct pack {
	const struct lambda_schema *schema;
	struct value *values; /* one per field */
	struct lambda_error *err;
};

/* " (declared: pattern:text k:u32=…)" for the end of a message. */
static const char *declared(const struct lambda_schema *schema, char *buf, size_t cap)
{
	size_t n = (size_t)snprintf(buf, cap, schema->n_fields ? "declared:" : "it takes none");

	for (uint32_t i = 0; i < schema->n_fields && n < cap; i++) {
		const struct lambda_field *f = &schema->fields[i];
		char count[16] = "";

		if (f->array)
			snprintf(count, sizeof(count), "[%u]", f->count);
		n += (size_t)snprintf(buf + n, cap - n, " %s:%s%s%s", f->name,
				      lambda_type_name(f->type), count, f->has_default ? "=…" : "");
	}
	return buf;
}

static int fail_declared(const struct pack *pk, const char *what, const char *name, size_t len)
{
	char list[400];

	return lambda_fail(pk->err, -EINVAL, "%s '%.*s'; %s", what, (int)(len > 80 ? 80 : len),
			   name, declared(pk->schema, list, sizeof(list)));
}

static int find_field(const struct lambda_schema *schema, const char *name, size_t len)
{
	for (uint32_t i = 0; i < schema->n_fields; i++)
		if (strlen(schema->fields[i].name) == len &&
		    !memcmp(schema->fields[i].name, name, len))
			return (int)i;
	return -ENOENT;
}

/* NAME= of something that looks like a name: its length, else 0. */
static size_t name_len(const char *arg)
{
	size_t n = strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789-");

	return arg[n] == '=' ? n : 0;
}

static int read_file(const struct pack *pk, const char *name, const char *path, struct value *out)
{
	const uint64_t most = sbpf_window_max(SBPF_WIN_ARG); /* where all arguments must fit */
	uint8_t *buf = NULL, *grown;
	size_t len = 0, cap = 0;
	ssize_t n = 0;
	int fd, rc = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		rc = -errno;
	while (!rc) {
		if (len > most) {
			rc = -EFBIG;
			break;
		}
		if (len == cap) {
			cap = cap < 4096 ? 4096 : cap < most / 2 ? 2 * cap : most + 1;
			grown = realloc(buf, cap);
			if (!grown) {
				rc = -ENOMEM;
				break;
			}
			buf = grown;
		}
		n = read(fd, buf + len, cap - len);
		if (n < 0 && errno != EINTR)
			rc = -errno;
		if (!n)
			break;
		if (n > 0)
			len += (size_t)n;
	}
	if (fd >= 0)
		close(fd);
	if (rc)
		free(buf);
	if (rc == -EFBIG)
		return lambda_fail(pk->err, rc,
				   "argument '%s': '%.200s' is too large; all arguments together "
				   "may have %llu bytes",
				   name, path, (unsigned long long)most);
	if (rc)
		return lambda_fail(
			pk->err, rc,
			"argument '%s': cannot read '%.200s': %s; @FILE needs a file that can "
			"be read, and @@ begins a value with '@'",
			name, path, strerrordesc_np(-rc));
	out->file = buf;
	out->len = len;
	return 0;
}

static int set_value(const struct pack *pk, uint32_t i, const char *text)
{
	struct value *v = &pk->values[i];
	const char *name = pk->schema->fields[i].name;

	if (v->text || v->file)
		return fail_declared(pk, "argument given twice:", name, strlen(name));
	if (text[0] == '@' && text[1] != '@')
		return read_file(pk, name, text + 1, v);
	v->text = text[0] == '@' ? text + 1 : text;
	v->len = strlen(v->text);
	return 0;
}

/* The next declared argument that has no value yet. */
static int next_field(const struct pack *pk)
{
	for (uint32_t i = 0; i < pk->schema->n_fields; i++)
		if (!pk->values[i].text && !pk->values[i].file)
			return (int)i;
	return -ENOENT;
}

/*
 * "a=b" is a name with its value where 'a' is declared; else it is a value that happens to hold a
 * '=' (a pattern), unless it could only be a mistyped name: no argument left, or a number expected.
 */
static int assign(const struct pack *pk, const char *arg)
{
	size_t n = name_len(arg);
	int i = n ? find_field(pk->schema, arg, n) : -ENOENT;

	if (i >= 0)
		return set_value(pk, (uint32_t)i, arg + n + 1);
	i = next_field(pk);
	if (n && (i < 0 || pk->schema->fields[i].type != LAMBDA_TEXT))
		return fail_declared(pk, "unknown argument", arg, n);
	if (i < 0)
		return fail_declared(pk, "one argument too many:", arg, strlen(arg));
	return set_value(pk, (uint32_t)i, arg);
}

static int pack_file(const struct pack *pk, const struct lambda_field *f, const struct value *v,
		     uint8_t *out)
{
	uint64_t size = lambda_field_bytes(f);

	if (!lambda_numbers_scan(f, (const char *)v->file, v->len, out))
		return 0;
	if (v->len == size) {
		memcpy(out, v->file, size);
		return 0;
	}
	return lambda_fail(pk->err, -EINVAL,
			   "argument '%s': the file is neither %u number%s for %s as text nor "
			   "%llu raw bytes; it has %zu bytes",
			   f->name, f->count, f->count == 1 ? "" : "s", lambda_type_name(f->type),
			   (unsigned long long)size, v->len);
}

static int pack_value(const struct pack *pk, uint32_t i, uint8_t *out)
{
	const struct lambda_field *f = &pk->schema->fields[i];
	const struct value *v = &pk->values[i];
	char what[LAMBDA_SCHEMA_NAME_MAX + 32];

	if (!v->text && !v->file) {
		memcpy(out, f->value, f->value_len);
		return 0;
	}
	if (f->type == LAMBDA_TEXT) {
		uint32_t len = (uint32_t)v->len;

		memcpy(out, &len, sizeof(len));
		memcpy(out + sizeof(len), v->text ? (const void *)v->text : v->file, v->len);
		return 0;
	}
	if (v->file)
		return pack_file(pk, f, v, out);
	snprintf(what, sizeof(what), "argument '%s'", f->name);
	return lambda_numbers_parse(f, v->text, v->len, what, out, pk->err);
}

static uint64_t packed_size(const struct pack *pk, uint32_t i)
{
	const struct lambda_field *f = &pk->schema->fields[i];
	const struct value *v = &pk->values[i];

	if (f->type != LAMBDA_TEXT)
		return lambda_field_bytes(f);
	return v->text || v->file ? 4 + (uint64_t)v->len : f->value_len;
}

static int pack_all(const struct pack *pk, uint8_t **out, size_t *out_len)
{
	uint64_t total = 0, at = 0;
	int rc;

	for (uint32_t i = 0; i < pk->schema->n_fields; i++) {
		const struct lambda_field *f = &pk->schema->fields[i];

		if (!f->has_default && !pk->values[i].text && !pk->values[i].file)
			return fail_declared(pk, "missing argument", f->name, strlen(f->name));
		total += packed_size(pk, i);
	}
	if (!total)
		return 0;
	*out = malloc(total);
	if (!*out)
		return lambda_fail(pk->err, -ENOMEM, "arguments: out of memory");
	for (uint32_t i = 0; i < pk->schema->n_fields; i++) {
		rc = pack_value(pk, i, *out + at);
		if (rc) {
			free(*out);
			*out = NULL;
			return rc;
		}
		at += packed_size(pk, i);
	}
	*out_len = total;
	return 0;
}

int lambda_args_pack(const struct lambda_schema *schema, const char *const *args, size_t n,
		     uint8_t **out, size_t *out_len, struct lambda_error *err)
{
	struct pack pk = {.schema = schema, .err = err};
	int rc = 0;

	*out = NULL;
	*out_len = 0;
	pk.values = calloc(schema->n_fields + 1, sizeof(*pk.values));
	if (!pk.values)
		return lambda_fail(err, -ENOMEM, "arguments: out of memory");
	for (size_t i = 0; i < n && !rc; i++)
		rc = assign(&pk, args[i]);
	if (!rc)
		rc = pack_all(&pk, out, out_len);
	for (uint32_t i = 0; i < schema->n_fields; i++)
		free(pk.values[i].file);
	free(pk.values);
	return rc;
}
