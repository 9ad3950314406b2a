/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lio://HOST[:PORT]/EXPORT/PATH is taken apart as docs/remote.md says, and what is no such address is refused with
 * what to write instead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host/remote.h"

static void addresses_have_a_port_and_brackets_where_they_need_them(void **state)
{
	static const struct {
		const char *url, *where, *path;
	} rows[] = {
		{"lio://nas/logs/app.log", "nas:4420", "logs/app.log"},
		{"lio://nas:9/logs", "nas:9", "logs"},
		{"lio://127.0.0.1:65535/x/y/z", "127.0.0.1:65535", "x/y/z"},
		{"lio://[::1]/x/y", "[::1]:4420", "x/y"},
		{"lio://[fe80::1%eth0]:77/x", "[fe80::1%eth0]:77", "x"},
		{"lio://nas", "nas:4420", ""},
		{"lio://nas/", "nas:4420", ""},
		{"lio://nas///", "nas:4420", ""},
		{"lio://nas:004420/x", "nas:4420", "x"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_url u;

		assert_true(remote_is_url(rows[i].url));
		assert_int_equal(remote_url_parse(rows[i].url, &u), 0);
		assert_string_equal(u.where, rows[i].where);
		assert_string_equal(u.path, rows[i].path);
		remote_url_free(&u);
	}
	assert_false(remote_is_url("nas/x"));
	assert_false(remote_is_url("lio:/nas/x"));
}

static void paths_are_decoded_and_lose_what_means_nothing(void **state)
{
	static const struct {
		const char *path, *decoded;
	} rows[] = {
		{"/x/a%20b", "x/a b"},
		{"/x/%25", "x/%"},
		{"/x/%ff%FE%0a", "x/\xff\xfe\n"},
		{"/x/a b", "x/a b"},
		{"/x/q?v#f", "x/q?v#f"},
		{"//x///y//", "x/y"},
		{"/./x/./y/.", "x/y"},
		{"/x/%2e/y", "x/y"},
		{"/x/../y", "x/../y"},
		{"/x/.../.y/..z", "x/.../.y/..z"},
		{"/%41%42%43/d%65f", "ABC/def"},
		{"/λ/ß", "λ/ß"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_url u;
		char url[128];

		snprintf(url, sizeof(url), "lio://h%s", rows[i].path);
		assert_int_equal(remote_url_parse(url, &u), 0);
		assert_string_equal(u.path, rows[i].decoded);
		remote_url_free(&u);
	}
}

static void what_is_no_address_is_refused_with_the_fix(void **state)
{
	static const struct {
		const char *url, *word;
	} rows[] = {
		{"lio://", "names no server"},
		{"lio:///x", "names no server"},
		{"lio://:4420/x", "names no server"},
		{"lio://[]/x", "names no server"},
		{"lio://h:/x", "port"},
		{"lio://h:0/x", "port"},
		{"lio://h:65536/x", "port"},
		{"lio://h:4294971716/x", "port"},
		{"lio://h:99999999999999999999/x", "port"},
		{"lio://h:-1/x", "port"},
		{"lio://h:44x/x", "port"},
		{"lio://[::1]:/x", "port"},
		{"lio://::1/x", "brackets"},
		{"lio://[::1/x", "closing bracket"},
		{"lio://[::1]4420/x", "follows its IPv6 address"},
		{"lio://a b/x", "byte"},
		{"lio://a\x01/x", "byte"},
		{"lio://h/x/%", "hexadecimal"},
		{"lio://h/x/%4", "hexadecimal"},
		{"lio://h/x/%g0", "hexadecimal"},
		{"lio://h/x/%0", "hexadecimal"},
		{"lio://h/x/%00", "zero byte"},
		{"lio://h/x/a%2Fb", "slash"},
		{"lio://h/x/a%2fb", "slash"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct remote_url u;

		assert_int_equal(remote_url_parse(rows[i].url, &u), -EINVAL);
		assert_null(u.path);
		if (!strstr(lio_error(), rows[i].word) || !strstr(lio_error(), "; "))
			fail_msg("%s: \"%s\" lacks \"%s\"", rows[i].url, lio_error(), rows[i].word);
	}
}

static void a_name_of_any_length_fits_or_is_refused(void **state)
{
	char url[600];

	for (size_t n = 250; n < 500; n++) {
		struct remote_url u;
		int rc;

		memcpy(url, "lio://", 6);
		memset(url + 6, 'h', n);
		strcpy(url + 6 + n, "/x");
		rc = remote_url_parse(url, &u);
		assert_true(n <= 255 ? rc == 0 : rc == 0 || rc == -EINVAL);
		if (!rc)
			assert_int_equal(strlen(u.where), n + 5);
		remote_url_free(&u);
	}
}

static void a_server_alone_is_named_with_or_without_the_scheme(void **state)
{
	char where[300];

	assert_int_equal(remote_where_parse("nas", where, sizeof(where)), 0);
	assert_string_equal(where, "nas:4420");
	assert_int_equal(remote_where_parse("lio://[::1]:5/", where, sizeof(where)), 0);
	assert_string_equal(where, "[::1]:5");
	assert_int_equal(remote_where_parse("lio://nas/x", where, sizeof(where)), -EINVAL);
	assert_int_equal(remote_where_parse("", where, sizeof(where)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_have_a_port_and_brackets_where_they_need_them),
		cmocka_unit_test(paths_are_decoded_and_lose_what_means_nothing),
		cmocka_unit_test(what_is_no_address_is_refused_with_the_fix),
		cmocka_unit_test(a_name_of_any_length_fits_or_is_refused),
		cmocka_unit_test(a_server_alone_is_named_with_or_without_the_scheme),
	};

	return cmocka_run_group_tests_name("lio:// addresses", tests, NULL, NULL);
}
