/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_schema.c - declarations and argument packing never misbehave, and what they pack reads back.
 *
 * The input is a declaration, a newline, and arguments, one a line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/internal.h"

#define ARGS_MAX 16u

static void check(bool holds)
{
	if (!holds)
		abort();
}

/* The fields in turn cover the packed bytes exactly. */
static void read_back(const struct lambda_schema *schema, const uint8_t *p, size_t len)
{
	size_t at = 0;

	for (uint32_t i = 0; i < schema->n_fields; i++) {
		int64_t n = lambda_field_extent(&schema->fields[i], p + at, len - at);

		check(n >= 0);
		at += (size_t)n;
	}
	check(at == len);
}

static void pack(const struct lambda_schema *schema, char *lines)
{
	const char *args[ARGS_MAX];
	struct lambda_error err;
	uint8_t *out;
	size_t n = 0, len;

	for (char *line = strtok(lines, "\n"); line && n < ARGS_MAX; line = strtok(NULL, "\n")) {
		const char *value = strchr(line, '=');

		/* files of the machine that fuzzes are not part of the input */
		if (line[0] != '@' && !(value && value[1] == '@'))
			args[n++] = line;
	}
	if (!lambda_args_pack(schema, args, n, &out, &len, &err))
		read_back(schema, out, len);
	else
		check(err.code < 0 && err.text[0] && !out);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	size_t len;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	len = strcspn(text, "\n");
	for (int output = 0; output < 2; output++) {
		struct lambda_schema schema;
		struct lambda_error err;
		int rc = lambda_schema_parse(text, len, output, &schema, &err);

		check(!rc || (err.code == rc && err.text[0]));
		for (uint32_t i = 0; i < schema.n_fields; i++)
			if (schema.fields[i].has_default)
				check(lambda_field_extent(&schema.fields[i], schema.fields[i].value,
							  schema.fields[i].value_len) ==
				      (int64_t)schema.fields[i].value_len);
		if (!rc && !output && len < size)
			pack(&schema, text + len + 1);
		lambda_schema_free(&schema);
	}
	free(text);
	return 0;
}
