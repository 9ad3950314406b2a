/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_info.c - lio info: what an object says of itself.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lio.h"

#define DEFAULT_SHOWN 40u /* characters of a default in text */

static void record_text(char buf[64], const struct lambda_function *fn)
{
	switch (fn->record) {
	case LAMBDA_RECORDS_ANY:
		snprintf(buf, 64, "any bytes");
		return;
	case LAMBDA_RECORDS_FIXED:
		snprintf(buf, 64, "%" PRIu32 " bytes each", fn->record_value);
		return;
	case LAMBDA_RECORDS_DELIM:
		break;
	}
	if (fn->record_value == '\n')
		snprintf(buf, 64, "lines");
	else if (isgraph((int)fn->record_value))
		snprintf(buf, 64, "end in '%c'", (char)fn->record_value);
	else
		snprintf(buf, 64, "end in byte 0x%02" PRIx32, fn->record_value);
}

static void type_text(char buf[32], const struct lambda_field *field)
{
	if (field->array)
		snprintf(buf, 32, "%s[%" PRIu32 "]", lambda_type_name(field->type), field->count);
	else
		snprintf(buf, 32, "%s", lambda_type_name(field->type));
}

/* A default as JSON: the one form that has all types; NULL where there is none. */
static json_object *default_json(const struct lambda_field *field)
{
	return field->has_default ? cli_json_value(field, field->value) : NULL;
}

static void print_fields(const char *title, const struct lambda_schema *schema)
{
	char type[32];

	for (uint32_t i = 0; i < schema->n_fields; i++) {
		const struct lambda_field *field = &schema->fields[i];
		json_object *value = default_json(field);
		const char *text = value ? json_object_to_json_string_ext(
						   value, JSON_C_TO_STRING_PLAIN |
								  JSON_C_TO_STRING_NOSLASHESCAPE)
					 : NULL;

		type_text(type, field);
		printf("%-10s %s: %s", i ? "" : title, field->name, type);
		if (text && strlen(text) > DEFAULT_SHOWN)
			printf(", default %.*s…", (int)DEFAULT_SHOWN, text);
		else if (text)
			printf(", default %s", text);
		else if (field->has_default)
			printf(", default null");
		putchar('\n');
		json_object_put(value);
	}
}

static const char *output_text(const struct lambda_function *fn)
{
	switch (fn->output.shape) {
	case LAMBDA_SHAPE_BYTES:
		return "bytes";
	case LAMBDA_SHAPE_TEXT:
		return "text";
	case LAMBDA_SHAPE_ROWS:
		break;
	}
	return "rows";
}

static bool parallel(const struct lambda_function *fn)
{
	return fn->kind == LAMBDA_KIND_MAP ||
	       (fn->kind == LAMBDA_KIND_FOLD && fn->entry[LAMBDA_E_MERGE] >= 0);
}

static void print_text(const struct lambda_function *fn, const struct sbpf_program_info *info)
{
	char record[64], size[32];
	const char *name;
	unsigned shown = 0;

	record_text(record, fn);
	printf("%-10s %s\n", "name", fn->name);
	printf("%-10s %s\n", "does", fn->doc);
	printf("%-10s %s, %s\n", "kind", lambda_kind_name(fn->kind),
	       parallel(fn) ? "pieces run in parallel" : "pieces run one after the other");
	printf("%-10s %s\n", "records", record);
	if (fn->args.n_fields)
		print_fields("arguments", &fn->args);
	else
		printf("%-10s none\n", "arguments");
	if (fn->output.shape == LAMBDA_SHAPE_ROWS)
		print_fields("output", &fn->output);
	else
		printf("%-10s %s\n", "output", output_text(fn));
	printf("%-10s %s\n", "state", cli_size_text(size, fn->state_size));
	printf("%-10s %s\n", "scratch", cli_size_text(size, fn->heap_size));
	printf("%-10s %" PRIu32 " instructions in %" PRIu32 " functions, %" PRIu32
	       " bytes of stack\n",
	       "code", info->insns, info->functions, info->stack_bytes);
	printf("%-10s", "helpers");
	for (unsigned i = 0; i < 64 && (name = sbpf_helper_name(i)) != NULL; i++)
		if (info->helpers >> i & 1)
			printf("%s %s", shown++ ? "," : "", name);
	puts(shown ? "" : " none");
}

static json_object *fields_json(const struct lambda_schema *schema, bool arguments)
{
	json_object *array = json_object_new_array();
	char type[32];

	for (uint32_t i = 0; i < schema->n_fields; i++) {
		const struct lambda_field *field = &schema->fields[i];
		json_object *o = json_object_new_object();

		type_text(type, field);
		json_object_object_add(o, "name", cli_json_text(field->name, strlen(field->name)));
		json_object_object_add(o, "type", json_object_new_string(type));
		if (arguments) {
			json_object_object_add(o, "required",
					       json_object_new_boolean(!field->has_default));
			json_object_object_add(o, "default", default_json(field));
		}
		json_object_array_add(array, o);
	}
	return array;
}

static json_object *records_json(const struct lambda_function *fn)
{
	static const char *const kinds[] = {"any", "fixed", "delimited"};
	json_object *o = json_object_new_object();

	json_object_object_add(o, "kind", json_object_new_string(kinds[fn->record]));
	if (fn->record == LAMBDA_RECORDS_FIXED)
		json_object_object_add(o, "bytes", json_object_new_uint64(fn->record_value));
	if (fn->record == LAMBDA_RECORDS_DELIM)
		json_object_object_add(o, "delimiter", json_object_new_uint64(fn->record_value));
	return o;
}

static int print_json(const struct lambda_function *fn, const struct sbpf_program_info *info)
{
	json_object *o = json_object_new_object(), *output = json_object_new_object();
	json_object *helpers = json_object_new_array();
	const char *name;

	json_object_object_add(o, "schema", json_object_new_string("lio-info/1"));
	json_object_object_add(o, "name", cli_json_text(fn->name, strlen(fn->name)));
	json_object_object_add(o, "doc", cli_json_text(fn->doc, strlen(fn->doc)));
	json_object_object_add(o, "kind", json_object_new_string(lambda_kind_name(fn->kind)));
	json_object_object_add(o, "parallel", json_object_new_boolean(parallel(fn)));
	json_object_object_add(o, "records", records_json(fn));
	json_object_object_add(o, "arguments", fields_json(&fn->args, true));
	json_object_object_add(output, "shape", json_object_new_string(output_text(fn)));
	if (fn->output.shape == LAMBDA_SHAPE_ROWS)
		json_object_object_add(output, "columns", fields_json(&fn->output, false));
	json_object_object_add(o, "output", output);
	json_object_object_add(o, "state_bytes", json_object_new_uint64(fn->state_size));
	json_object_object_add(o, "scratch_bytes", json_object_new_uint64(fn->heap_size));
	json_object_object_add(o, "instructions", json_object_new_uint64(info->insns));
	json_object_object_add(o, "functions", json_object_new_uint64(info->functions));
	json_object_object_add(o, "stack_bytes", json_object_new_uint64(info->stack_bytes));
	for (unsigned i = 0; i < 64 && (name = sbpf_helper_name(i)) != NULL; i++)
		if (info->helpers >> i & 1)
			json_object_array_add(helpers, json_object_new_string(name));
	json_object_object_add(o, "helpers", helpers);
	return cli_print_json(o);
}

int cmd_info(int argc, char **argv)
{
	struct sbpf_program_info info = {.size = sizeof(info)};
	struct lambda_function *fn;
	struct cli cli;
	int status;

	if (cli_parse(CLI_INFO, argc, argv, &cli) || cli_words(CLI_INFO, &cli, 1, 1) ||
	    cli_load_lambda(cli.words[0], &fn))
		return CLI_FAILED;
	sbpf_program_info(fn->prog, &info);
	if (cli.json) {
		status = print_json(fn, &info);
	} else {
		print_text(fn, &info);
		status = cli_flush();
	}
	lambda_function_free(fn);
	return status;
}
