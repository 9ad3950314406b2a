/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object.c - what a function says of itself is read as declared, and contradictions are refused
 * with the way out.  argv[1] is the directory of the objects of lambda/object.bpf.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lambda/lambda.h"

static const char *dir;
static struct lambda_error err;

static int load(const char *name, struct lambda_function **fn)
{
	struct stat st;
	char path[4096];
	uint8_t *image;
	int fd, rc;

	snprintf(path, sizeof(path), "%s/%s.o", dir, name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		fail_msg("%s: %s", path, strerror(errno));
	image = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, image, (size_t)st.st_size), st.st_size);
	close(fd);
	rc = lambda_function_load(image, (size_t)st.st_size, fn, &err);
	free(image); /* it is not kept */
	return rc;
}

static struct lambda_function *loaded(const char *name)
{
	struct lambda_function *fn;

	if (load(name, &fn))
		fail_msg("%s: %s", name, err.text);
	return fn;
}

static void everything_declared_is_read(void **state)
{
	struct lambda_function *fn = loaded("full");

	(void)state;
	assert_string_equal(fn->name, "full");
	assert_string_equal(fn->doc, "a fold with everything");
	assert_int_equal(fn->kind, LAMBDA_KIND_FOLD);
	assert_int_equal(fn->record, LAMBDA_RECORDS_FIXED);
	assert_int_equal(fn->record_value, 16);
	assert_int_equal(fn->state_size, 24);
	assert_int_equal(fn->heap_size, 1 << 20);
	assert_string_equal(fn->output_text, "n:u64 name:text");
	assert_int_equal(fn->output.n_fields, 2);
	assert_string_equal(fn->args_text, "k:u32=10 name:text=\"a b\"");
	assert_int_equal(fn->args.n_fields, 2);
	assert_true(fn->entry[LAMBDA_E_FOLD] >= 0 && fn->entry[LAMBDA_E_MERGE] >= 0);
	assert_true(fn->entry[LAMBDA_E_FINISH] >= 0);
	assert_int_equal(fn->entry[LAMBDA_E_MAP], -1);
	assert_int_equal(fn->entry[LAMBDA_E_SCAN], -1);
	lambda_function_free(fn);
}

static void what_is_not_declared_has_its_default(void **state)
{
	struct lambda_function *fn = loaded("plain");

	(void)state;
	assert_string_equal(fn->name, "plain");
	assert_string_equal(fn->doc, "");
	assert_int_equal(fn->kind, LAMBDA_KIND_MAP);
	assert_int_equal(fn->record, LAMBDA_RECORDS_ANY);
	assert_int_equal(fn->output.shape, LAMBDA_SHAPE_BYTES);
	assert_string_equal(fn->output_text, "bytes");
	assert_string_equal(fn->args_text, "");
	assert_int_equal(fn->args.n_fields, 0);
	assert_int_equal(fn->state_size, 0);
	assert_int_equal(fn->heap_size, 0);
	lambda_function_free(fn);
}

static void a_delimiter_may_be_any_byte(void **state)
{
	struct lambda_function *fn = loaded("lines");

	(void)state;
	assert_int_equal(fn->kind, LAMBDA_KIND_SCAN);
	assert_int_equal(fn->record, LAMBDA_RECORDS_DELIM);
	assert_int_equal(fn->record_value, 0xff);
	assert_int_equal(fn->output.shape, LAMBDA_SHAPE_TEXT);
	lambda_function_free(fn);
}

static void contradictions_are_refused_with_the_way_out(void **state)
{
	static const struct {
		const char *name;
		int code;
		const char *word;
	} rows[] = {
		{"no_kind", -ENOEXEC, "none of LAMBDA_MAP, LAMBDA_SCAN and LAMBDA_FOLD"},
		{"two_kinds", -ENOEXEC, "more than one of LAMBDA_MAP"},
		{"two_maps", -ENOEXEC, "section lambda/map has two entries"},
		{"two_names", -ENOEXEC, "two functions"},
		{"map_with_finish", -ENOEXEC, "LAMBDA_FINISH with LAMBDA_MAP"},
		{"scan_with_merge", -ENOEXEC, "LAMBDA_MERGE without LAMBDA_FOLD"},
		{"foreign_section", -ENOEXEC, "entry 'other' in section 'tc'"},
		{"wrong_name", -ENOEXEC, "its name must be lambda_map_NAME"},
		{"no_state", -ENOEXEC, "a fold without a state"},
		{"record_zero", -ENOEXEC, "a size is from 1 to"},
		{"record_huge", -ENOEXEC, "a size is from 1 to"},
		{"record_kind", -ENOEXEC, "kind 7"},
		{"record_cut", -ENOEXEC, "4 bytes instead of 8"},
		{"heap_huge", -ENOEXEC, "at most"},
		{"heap_cut", -ENOEXEC, "not a 64-bit size"},
		{"output_wrong", -EINVAL, "'u65' is no type"},
		{"args_wrong", -EINVAL, "256 does not fit u8"},
		{"text_unended", -ENOEXEC, "ends in a zero byte"},
		{"doc_control", -ENOEXEC, "control character 0x1b"},
		{"states_differ", -ENOEXEC, "two sizes that differ"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct lambda_function *fn;
		int rc = load(rows[i].name, &fn);

		assert_null(fn);
		if (rc != rows[i].code || err.code != rc || !strstr(err.text, rows[i].word) ||
		    strchr(err.text, '\n'))
			fail_msg("%s: %d, \"%s\"; expected %d, \"…%s…\"", rows[i].name, rc,
				 err.text, rows[i].code, rows[i].word);
	}
}

static void what_is_no_object_is_refused(void **state)
{
	struct lambda_function *fn;

	(void)state;
	assert_int_equal(lambda_function_load("#!/bin/sh\n", 10, &fn, &err), -ENOEXEC);
	assert_null(fn);
	assert_int_equal(lambda_function_load("", 0, &fn, &err), -ENOEXEC);
	lambda_function_free(NULL);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_declared_is_read),
		cmocka_unit_test(what_is_not_declared_has_its_default),
		cmocka_unit_test(a_delimiter_may_be_any_byte),
		cmocka_unit_test(contradictions_are_refused_with_the_way_out),
		cmocka_unit_test(what_is_no_object_is_refused),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY-OF-OBJECTS\n", argv[0]);
		return 2;
	}
	dir = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
