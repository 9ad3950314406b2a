/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schema.c - the type language and argument packing: what is accepted, to which bytes, and what a
 * person is told about the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lambda/lambda.h"

static struct lambda_error err;

static struct lambda_schema parse(const char *text, bool output)
{
	struct lambda_schema s;

	if (lambda_schema_parse(text, strlen(text), output, &s, &err))
		fail_msg("'%s': %s", text, err.text);
	return s;
}

static void refuses(const char *text, bool output, const char *word)
{
	struct lambda_schema s;

	if (lambda_schema_parse(text, strlen(text), output, &s, &err) != -EINVAL)
		fail_msg("'%s' was not refused", text);
	if (!strstr(err.text, word))
		fail_msg("'%s': \"%s\" lacks \"%s\"", text, err.text, word);
	assert_null(s.fields);
}

/* ---- declarations ---- */

static void a_row_type_has_its_fields_in_order(void **state)
{
	struct lambda_schema s = parse(" max:i64\tq:u8[3]\n name-2_x:text f:f64 ", true);

	(void)state;
	assert_int_equal(s.shape, LAMBDA_SHAPE_ROWS);
	assert_int_equal(s.n_fields, 4);
	assert_string_equal(s.fields[0].name, "max");
	assert_int_equal(s.fields[0].type, LAMBDA_I64);
	assert_int_equal(s.fields[0].count, 1);
	assert_false(s.fields[0].array);
	assert_string_equal(s.fields[1].name, "q");
	assert_int_equal(s.fields[1].type, LAMBDA_U8);
	assert_int_equal(s.fields[1].count, 3);
	assert_true(s.fields[1].array);
	assert_string_equal(s.fields[2].name, "name-2_x");
	assert_int_equal(s.fields[2].type, LAMBDA_TEXT);
	assert_int_equal(s.fields[3].type, LAMBDA_F64);
	assert_false(s.fields[3].has_default);
	lambda_schema_free(&s);
}

static void text_and_bytes_are_output_shapes_but_no_arguments(void **state)
{
	(void)state;
	assert_int_equal(parse("text", true).shape, LAMBDA_SHAPE_TEXT);
	assert_int_equal(parse(" bytes ", true).shape, LAMBDA_SHAPE_BYTES);
	refuses("text", false, "NAME:TYPE");
	refuses("", true, "empty");
}

static void no_arguments_is_an_empty_declaration(void **state)
{
	struct lambda_schema s = parse(" \n", false);

	(void)state;
	assert_int_equal(s.n_fields, 0);
	lambda_schema_free(&s);
}

static void what_is_no_declaration_is_refused_with_the_reason(void **state)
{
	(void)state;
	refuses("max", true, "expected NAME:TYPE");
	refuses(":i64", true, "expected NAME:TYPE");
	refuses("3x:i64", true, "expected NAME:TYPE");
	refuses("a:i65", true, "'i65' is no type");
	refuses("a:", true, "'' is no type");
	refuses("a:i64 a:u8", true, "declared twice");
	refuses("a:i64[0]", true, "expected [N]");
	refuses("a:i64[]", true, "expected [N]");
	refuses("a:i64[-1]", true, "expected [N]");
	refuses("a:i64[4", true, "expected [N]");
	refuses("a:i64[99999999999999999999]", true, "expected [N]");
	refuses("a:text[2]", true, "no arrays of text");
	refuses("a:i64[4]x", true, "unexpected 'x'");
	refuses("a:i64=3", true, "output has no default");
	refuses("a:i64 \x1b[2J", false, "control character 0x1b");
	refuses("a:u8[67108864] b:u8", false, "exceed");
	refuses("a:text=\"open", false, "no closing quote");
}

static void fields_and_names_are_bounded(void **state)
{
	char many[257 * 8 + 1], *p = many;
	char name[100];

	(void)state;
	for (int i = 0; i < 257; i++)
		p += sprintf(p, "f%d:u8 ", i);
	refuses(many, true, "more than 256 fields");
	memset(name, 'n', sizeof(name));
	strcpy(name + 64, ":u8");
	refuses(name, true, "expected NAME:TYPE");
}

/* ---- numbers ---- */

static void check_default(const char *text, const void *want, size_t len)
{
	struct lambda_schema s = parse(text, false);

	assert_true(s.fields[0].has_default);
	if (s.fields[0].value_len != len || memcmp(s.fields[0].value, want, len) != 0)
		fail_msg("'%s': another default", text);
	lambda_schema_free(&s);
}

#define DEFAULT(text, type, ...) \
	check_default(text, (const type[]){__VA_ARGS__}, sizeof((const type[]){__VA_ARGS__}))

static void defaults_are_literals_lists_and_ranges(void **state)
{
	(void)state;
	DEFAULT("a:i8=-128", int8_t, -128);
	DEFAULT("a:i8=127", int8_t, 127);
	DEFAULT("a:u8=0xff", uint8_t, 255);
	DEFAULT("a:i64=-9223372036854775808", int64_t, INT64_MIN);
	DEFAULT("a:u64=18446744073709551615", uint64_t, UINT64_MAX);
	DEFAULT("a:i32=+7", int32_t, 7);
	DEFAULT("a:i16=-0x10", int16_t, -16);
	DEFAULT("a:u16[3]=1,0x2,3", uint16_t, 1, 2, 3);
	DEFAULT("a:i16[4]=-2..1", int16_t, -2, -1, 0, 1);
	DEFAULT("a:i16[3]=-5..-3", int16_t, -5, -4, -3);
	DEFAULT("a:u64[2]=18446744073709551614..18446744073709551615", uint64_t, UINT64_MAX - 1,
		UINT64_MAX);
	DEFAULT("a:f64=-1.5e3", double, -1500);
	DEFAULT("a:f64[3]=-1..1", double, -1, 0, 1);
	DEFAULT("a:f64[2]=0.25,4", double, 0.25, 4);
}

static void numbers_that_do_not_fit_or_are_none_are_refused(void **state)
{
	(void)state;
	refuses("a:i8=128", false, "does not fit i8");
	refuses("a:i8=-129", false, "does not fit i8");
	refuses("a:u8=-1", false, "does not fit u8");
	refuses("a:u8=256", false, "does not fit u8");
	refuses("a:u64=18446744073709551616", false, "does not fit u64");
	refuses("a:i64=9223372036854775808", false, "does not fit i64");
	refuses("a:u32=", false, "not a number");
	refuses("a:u32=-", false, "not a number");
	refuses("a:u32=0x", false, "not a number");
	refuses("a:u32=12x", false, "not a number");
	refuses("a:u32=1.5", false, "not a number");
	refuses("a:f64=1e999", false, "does not fit f64");
	refuses("a:f64=one", false, "not a number");
	refuses("a:u8[3]=1,2", false, "fewer values");
	refuses("a:u8[3]=1,2,3,4", false, "more values");
	refuses("a:u8[3]=1,,3", false, "not a number");
	refuses("a:u8[3]=1..4", false, "does not have the 3 values");
	refuses("a:u8[3]=3..1", false, "runs backwards");
	refuses("a:i8[3]=1..-1", false, "runs backwards");
	refuses("a:i8[3]=-1..-3", false, "runs backwards");
	refuses("a:u8[256]=1..256", false, "does not fit u8");
	refuses("a:u64[67108]=0..18446744073709551615", false, "does not have the 67108 values");
	refuses("a:u8[3]=..", false, "not a number");
}

static void text_defaults_end_at_a_blank_or_a_quote(void **state)
{
	(void)state;
	check_default("a:text=DA b:u8=1", "\2\0\0\0DA", 6);
	check_default("a:text= b:u8=1", "\0\0\0\0", 4);
	check_default("a:text=", "\0\0\0\0", 4);
	check_default("a:text=\"two words\" b:u8=1", "\11\0\0\0two words", 13);
	check_default("a:text=\"\\\"\\\\\" b:u8=1", "\2\0\0\0\"\\", 6);
	check_default("a:text=x=y", "\3\0\0\0x=y", 7);
	refuses("a:text=\"x\"y", false, "unexpected 'y'");
}

static void a_decimal_point_is_a_point_in_every_locale(void **state)
{
	(void)state;
	if (!setlocale(LC_ALL, "de_DE.UTF-8"))
		setlocale(LC_ALL, "C.UTF-8");
	DEFAULT("a:f64=0.5", double, 0.5);
	refuses("a:f64=0;5", false, "not a number");
	setlocale(LC_ALL, "C");
}

static void extents_of_packed_fields_stay_within_their_bytes(void **state)
{
	struct lambda_schema s = parse("a:u16[3] b:text", true);
	const uint8_t p[] = {3, 0, 0, 0, 'a', 'b', 'c', 0};

	(void)state;
	assert_int_equal(lambda_field_extent(&s.fields[0], p, 8), 6);
	assert_int_equal(lambda_field_extent(&s.fields[0], p, 5), -ENODATA);
	assert_int_equal(lambda_field_extent(&s.fields[1], p, 8), 7);
	assert_int_equal(lambda_field_extent(&s.fields[1], p, 6), -ENODATA);
	assert_int_equal(lambda_field_extent(&s.fields[1], p, 3), -ENODATA);
	assert_int_equal(lambda_field_extent(&s.fields[1], (const uint8_t *)"\xff\xff\xff\xff", 4),
			 -ENODATA);
	lambda_schema_free(&s);
}

/* ---- arguments ---- */

#define ARGS(...)                           \
	(const char *const[]){__VA_ARGS__}, \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static void packs(const char *schema, const char *const *args, size_t n, const void *want,
		  size_t len)
{
	struct lambda_schema s = parse(schema, false);
	uint8_t *out = NULL;
	size_t out_len = 0;

	if (lambda_args_pack(&s, args, n, &out, &out_len, &err))
		fail_msg("'%s': %s", schema, err.text);
	if (out_len != len || (len && memcmp(out, want, len) != 0))
		fail_msg("'%s': %zu other bytes than the expected %zu", schema, out_len, len);
	free(out);
	lambda_schema_free(&s);
}

static void pack_refuses(const char *schema, const char *const *args, size_t n, int code,
			 const char *word)
{
	struct lambda_schema s = parse(schema, false);
	uint8_t *out = NULL;
	size_t out_len = 0;

	assert_int_equal(lambda_args_pack(&s, args, n, &out, &out_len, &err), code);
	if (!strstr(err.text, word) || strchr(err.text, '\n'))
		fail_msg("'%s': \"%s\" lacks \"%s\"", schema, err.text, word);
	assert_null(out);
	lambda_schema_free(&s);
}

static void arguments_go_by_name_or_in_declared_order(void **state)
{
	const char *schema = "pattern:text k:u16=7 q:u8[2]=1,2";

	(void)state;
	packs(schema, ARGS("ab"), "\2\0\0\0ab\7\0\1\2", 10);
	packs(schema, ARGS("ab", "8"), "\2\0\0\0ab\10\0\1\2", 10);
	packs(schema, ARGS("q=3,4", "k=9", "pattern=x"), "\1\0\0\0x\11\0\3\4", 9);
	packs(schema, ARGS("k=9", "x", "5,6"), "\1\0\0\0x\11\0\5\6", 9);
	packs(schema, ARGS("pattern="), "\0\0\0\0\7\0\1\2", 8);
	packs(schema, ARGS(""), "\0\0\0\0\7\0\1\2", 8);
	packs("", NULL, 0, NULL, 0);
}

static void a_value_may_hold_an_equals_sign(void **state)
{
	(void)state;
	packs("pattern:text", ARGS("a=b"), "\3\0\0\0a=b", 7);
	packs("pattern:text", ARGS("pattern=a=b"), "\3\0\0\0a=b", 7);
	packs("pattern:text", ARGS("="), "\1\0\0\0=", 5);
	packs("pattern:text", ARGS("@@x"), "\2\0\0\0@x", 6);
	packs("pattern:text", ARGS("pattern=@@"), "\1\0\0\0@", 5);
}

static void wrong_arguments_are_named_beside_the_declared_ones(void **state)
{
	const char *schema = "pattern:text k:u16=7";

	(void)state;
	pack_refuses(schema, NULL, 0, -EINVAL,
		     "missing argument 'pattern'; declared: pattern:text k:u16=");
	pack_refuses(schema, ARGS("a", "pattern=b"), -EINVAL, "given twice: 'pattern'; declared:");
	pack_refuses(schema, ARGS("a", "1", "c"), -EINVAL, "too many: 'c'; declared:");
	pack_refuses(schema, ARGS("a", "kk=1"), -EINVAL, "unknown argument 'kk'; declared:");
	pack_refuses(schema, ARGS("a", "1", "kk=1"), -EINVAL, "unknown argument 'kk'; declared:");
	pack_refuses(schema, ARGS("a", "65536"), -EINVAL, "argument 'k': 65536 does not fit u16");
	pack_refuses(schema, ARGS("a", "k="), -EINVAL, "argument 'k': '' is not a number");
	pack_refuses("", ARGS("x"), -EINVAL, "it takes none");
	pack_refuses("k:u8", ARGS("\x1b[31m"), -EINVAL, "'?[31m' is not a number");
}

static const char *file_with(const void *p, size_t len)
{
	static char arg[4096];
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(arg, sizeof(arg), "@%s/schema-test.XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(arg + 1);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, len), len);
	close(fd);
	return arg;
}

static void at_file_reads_text_verbatim_and_numbers_as_text_or_raw(void **state)
{
	const char *arg = file_with("a\0b\n", 4);

	(void)state;
	packs("pattern:text", ARGS(arg), "\4\0\0\0a\0b\n", 8);
	unlink(arg + 1);
	arg = file_with("1, 2\n0x3\t4\n", 11);
	packs("q:u16[4]", ARGS(arg), "\1\0\2\0\3\0\4\0", 8);
	pack_refuses("q:u16[3]", ARGS(arg), -EINVAL, "argument 'q': the file is neither 3 numbers");
	unlink(arg + 1);
	arg = file_with("\1\2\3\4\5\6\7\10", 8);
	packs("q:u16[4]", ARGS(arg), "\1\2\3\4\5\6\7\10", 8);
	packs("q:f64", ARGS(arg), "\1\2\3\4\5\6\7\10", 8);
	unlink(arg + 1);
	arg = file_with("12345678", 8); /* text comes first: one number, not eight bytes */
	packs("q:u64", ARGS(arg), "\x4e\x61\xbc\0\0\0\0\0", 8);
	unlink(arg + 1);
	arg = file_with("", 0);
	packs("pattern:text", ARGS(arg), "\0\0\0\0", 4);
	pack_refuses("k:u8", ARGS(arg), -EINVAL, "neither 1 number for u8");
	unlink(arg + 1);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
	(void)state;
	pack_refuses("pattern:text", ARGS("@/nonexistent/x"), -ENOENT,
		     "argument 'pattern': cannot read '/nonexistent/x': No such file");
	pack_refuses("pattern:text", ARGS("@."), -EISDIR, "Is a directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_row_type_has_its_fields_in_order),
		cmocka_unit_test(text_and_bytes_are_output_shapes_but_no_arguments),
		cmocka_unit_test(no_arguments_is_an_empty_declaration),
		cmocka_unit_test(what_is_no_declaration_is_refused_with_the_reason),
		cmocka_unit_test(fields_and_names_are_bounded),
		cmocka_unit_test(defaults_are_literals_lists_and_ranges),
		cmocka_unit_test(numbers_that_do_not_fit_or_are_none_are_refused),
		cmocka_unit_test(text_defaults_end_at_a_blank_or_a_quote),
		cmocka_unit_test(a_decimal_point_is_a_point_in_every_locale),
		cmocka_unit_test(extents_of_packed_fields_stay_within_their_bytes),
		cmocka_unit_test(arguments_go_by_name_or_in_declared_order),
		cmocka_unit_test(a_value_may_hold_an_equals_sign),
		cmocka_unit_test(wrong_arguments_are_named_beside_the_declared_ones),
		cmocka_unit_test(at_file_reads_text_verbatim_and_numbers_as_text_or_raw),
		cmocka_unit_test(a_file_that_cannot_be_read_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
