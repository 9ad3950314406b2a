/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.c - the one line that a failure gets: "lio: WHAT: WHY (ERRNO-NAME); FIX".
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lio.h"

/* One line stays one line whatever a file name or an object's string holds. */
static void put(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7f)
			fprintf(stderr, "\\x%02x", c);
		else
			fputc(c, stderr);
	}
}

static int fail_line(int err, const char *what, size_t what_len, const char *fix)
{
	progress_end();
	fputs("lio: ", stderr);
	put(what, what_len);
	fprintf(stderr, " (%s)", lio_errname(err));
	if (fix && fix[0]) {
		fputs("; ", stderr);
		put(fix, strlen(fix));
	}
	fputc('\n', stderr);
	return CLI_FAILED;
}

int cli_fail(int err, const char *fix, const char *fmt, ...)
{
	char *what;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&what, fmt, ap);
	va_end(ap);
	if (n < 0)
		return fail_line(err, fmt, strlen(fmt), fix);
	fail_line(err, what, (size_t)n, fix);
	free(what);
	return CLI_FAILED;
}

int cli_fail_text(int err, const char *text)
{
	const char *fix = NULL;

	if (!text[0])
		return cli_fail(err, NULL, "%s", strerror(err < 0 ? -err : err));
	for (const char *p = text; (p = strstr(p, "; ")); p++)
		fix = p;
	return fix ? fail_line(err, text, (size_t)(fix - text), fix + 2)
		   : fail_line(err, text, strlen(text), NULL);
}

int cli_fail_lib(int err)
{
	return cli_fail_text(err, lio_error());
}
