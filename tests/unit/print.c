/* SPDX-License-Identifier: Apache-2.0 */
/*
 * print.c - what lio prints of a function's output: for people, scripts and programs, whatever cut the
 * output arrives in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <math.h>

#include <cmocka.h>

#include "../../tools/lio.h"

static void schema_of(const char *text, struct lambda_schema *schema)
{
	struct lambda_error err = {0};

	assert_int_equal(lambda_schema_parse(text, strlen(text), true, schema, &err), 0);
}

/* Print @len bytes in pieces of @step; the text is the caller's to free, *err is the printer's. */
static char *print(enum print_mode mode, const char *type, const void *p, size_t len, size_t step,
		   int *err)
{
	struct lambda_schema schema;
	json_object *head = NULL;
	struct printer *printer;
	char *text;
	size_t n;
	FILE *to = open_memstream(&text, &n);

	schema_of(type, &schema);
	if (mode == PRINT_JSON) {
		head = json_object_new_object();
		json_object_object_add(head, "schema", json_object_new_string("t/1"));
	}
	assert_int_equal(printer_new(mode, &schema, head, to, &printer), 0);
	for (size_t at = 0; at < len; at += step)
		printer_write(printer, (const uint8_t *)p + at, len - at < step ? len - at : step);
	*err = printer_end(printer, NULL);
	printer_free(printer);
	fclose(to);
	lambda_schema_free(&schema);
	return text;
}

static void expect(enum print_mode mode, const char *type, const void *p, size_t len,
		   const char *want)
{
	for (size_t step = 1; step <= len + 1; step++) {
		int err;
		char *got = print(mode, type, p, len, step, &err);

		assert_int_equal(err, 0);
		assert_string_equal(got, want);
		free(got);
	}
}

struct __attribute__((packed)) numbers {
	int8_t a;
	uint8_t b;
	int16_t c;
	int32_t d;
	int64_t e;
	uint64_t f;
	double g;
};
#define NUMBERS "a:i8 b:u8 c:i16 d:i32 e:i64 f:u64 g:f64"

static void numbers_are_exact_in_any_cut(void **state)
{
	struct numbers n[2] = {{-128, 255, INT16_MIN, INT32_MIN, INT64_MIN, UINT64_MAX, 0.1},
			       {0, 0, 0, 0, 0, 0, 1e300}};

	(void)state;
	expect(PRINT_TSV, NUMBERS, n, sizeof(n),
	       "-128\t255\t-32768\t-2147483648\t-9223372036854775808\t18446744073709551615\t0.1\n"
	       "0\t0\t0\t0\t0\t0\t1e+300\n");
	expect(PRINT_JSON, NUMBERS, n, sizeof(n),
	       "{\"schema\":\"t/1\",\"rows\":[\n"
	       "{\"a\":-128,\"b\":255,\"c\":-32768,\"d\":-2147483648,\"e\":-9223372036854775808,"
	       "\"f\":18446744073709551615,\"g\":0.1},\n"
	       "{\"a\":0,\"b\":0,\"c\":0,\"d\":0,\"e\":0,\"f\":0,\"g\":1e+300}\n]}\n");
}

static void doubles_read_back_as_they_were(void **state)
{
	static const double values[] = {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.0};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		assert_true(strtod(cli_double_text(buf, values[i]), NULL) == values[i]);
	assert_string_equal(cli_double_text(buf, 0.1), "0.1");
}

static void json_has_null_for_nan_and_infinity(void **state)
{
	double values[3] = {NAN, INFINITY, -INFINITY};

	(void)state;
	expect(PRINT_JSON, "x:f64[3]", values, sizeof(values),
	       "{\"schema\":\"t/1\",\"rows\":[\n{\"x\":[null,null,null]}\n]}\n");
}

static void texts_and_arrays_fit_a_line(void **state)
{
	static const uint8_t rows[] = "\3\0\0\0a\tb\1\0\2\0"
				      "\0\0\0\0\3\0\4\0"
				      "\2\0\0\0\\\n\5\0\6";

	(void)state;
	expect(PRINT_TSV, "t:text n:u16[2]", rows, sizeof(rows),
	       "a\\tb\t1,2\n\t3,4\n\\\\\\n\t5,6\n");
	expect(PRINT_JSON, "t:text n:u16[2]", rows, sizeof(rows),
	       "{\"schema\":\"t/1\",\"rows\":[\n{\"t\":\"a\\tb\",\"n\":[1,2]},\n"
	       "{\"t\":\"\",\"n\":[3,4]},\n{\"t\":\"\\\\\\n\",\"n\":[5,6]}\n]}\n");
}

static void a_table_has_a_header_and_aligned_columns(void **state)
{
	static const uint8_t rows[] = "\2\0\0\0ab\x0a\0\0\0\0\0\0\0"
				      "\3\0\0\0\xce\xbbz\xff\xff\xff\xff\xff\xff\xff\xff";

	(void)state;
	expect(PRINT_TABLE, "name:text n:i64", rows, sizeof(rows) - 1,
	       "name   n\nab    10\n\xce\xbbz    -1\n");
}

static void bytes_that_are_not_utf8_survive_json(void **state)
{
	static const struct {
		const char *bytes, *json;
	} rows[] = {
		{"caf\xc3\xa9", "\"caf\xc3\xa9\""},
		{"\xff", "{\"bytes_base64\":\"/w==\"}"},
		{"\xc0\x80", "{\"bytes_base64\":\"wIA=\"}"},             /* overlong */
		{"\xed\xa0\x80", "{\"bytes_base64\":\"7aCA\"}"},         /* a surrogate */
		{"\xf4\x90\x80\x80", "{\"bytes_base64\":\"9JCAgA==\"}"}, /* above U+10FFFF */
		{"\xe2\x82", "{\"bytes_base64\":\"4oI=\"}"},             /* cut short */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_object *o = cli_json_text(rows[i].bytes, strlen(rows[i].bytes));

		assert_string_equal(
			json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
								  JSON_C_TO_STRING_NOSLASHESCAPE),
			rows[i].json);
		json_object_put(o);
	}
}

static void text_becomes_lines(void **state)
{
	(void)state;
	expect(PRINT_JSON, "text", "one\n\ntwo\n", 9,
	       "{\"schema\":\"t/"
	       "1\",\"lines\":[\n\"one\",\n\"\",\n\"two\"\n],\"final_newline\":true}\n");
	expect(PRINT_JSON, "text", "one\n\xff", 5,
	       "{\"schema\":\"t/1\",\"lines\":[\n\"one\",\n{\"bytes_base64\":\"/w==\"}\n],"
	       "\"final_newline\":false}\n");
	expect(PRINT_JSON, "text", "", 0,
	       "{\"schema\":\"t/1\",\"lines\":[],\"final_newline\":true}\n");
	expect(PRINT_RAW, "text", "one\n\xff", 5, "one\n\xff");
}

static void bytes_become_base64(void **state)
{
	(void)state;
	expect(PRINT_JSON, "bytes", "", 0, "{\"schema\":\"t/1\",\"bytes_base64\":\"\"}\n");
	expect(PRINT_JSON, "bytes", "f", 1, "{\"schema\":\"t/1\",\"bytes_base64\":\"Zg==\"}\n");
	expect(PRINT_JSON, "bytes", "foobar!", 7,
	       "{\"schema\":\"t/1\",\"bytes_base64\":\"Zm9vYmFyIQ==\"}\n");
}

static void bytes_become_hex_on_a_terminal(void **state)
{
	(void)state;
	expect(PRINT_HEX, "bytes", "0123456789abcdef\1", 17,
	       "00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n"
	       "00000010  01                                                |.|\n");
}

static void output_that_is_not_whole_rows_is_an_error(void **state)
{
	int err;

	(void)state;
	free(print(PRINT_TSV, "a:u32", "123456", 6, 2, &err));
	assert_int_equal(err, -EBADMSG);
	free(print(PRINT_TSV, "t:text", "\xff\xff\xff\xff", 4, 4, &err));
	assert_int_equal(err, -EBADMSG);
}

static void a_full_disk_is_an_error(void **state)
{
	struct lambda_schema schema;
	struct printer *p;
	FILE *full = fopen("/dev/full", "w");

	(void)state;
	assert_non_null(full);
	schema_of("text", &schema);
	assert_int_equal(printer_new(PRINT_RAW, &schema, NULL, full, &p), 0);
	printer_write(p, "x", 1);
	assert_int_equal(printer_end(p, NULL), -ENOSPC);
	printer_free(p);
	lambda_schema_free(&schema);
	fclose(full);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_exact_in_any_cut),
		cmocka_unit_test(doubles_read_back_as_they_were),
		cmocka_unit_test(json_has_null_for_nan_and_infinity),
		cmocka_unit_test(texts_and_arrays_fit_a_line),
		cmocka_unit_test(a_table_has_a_header_and_aligned_columns),
		cmocka_unit_test(bytes_that_are_not_utf8_survive_json),
		cmocka_unit_test(text_becomes_lines),
		cmocka_unit_test(bytes_become_base64),
		cmocka_unit_test(bytes_become_hex_on_a_terminal),
		cmocka_unit_test(output_that_is_not_whole_rows_is_an_error),
		cmocka_unit_test(a_full_disk_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
