/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - one failure, told once: code, place and a line for a person.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lambda/internal.h"

/* Names in a message come from hostile files: it stays one line and no terminal obeys it. */
static void one_line(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

/* What to do about it where the message does not say so itself: every error ends in "; FIX". */
static const char *fix_of(int code)
{
	static const struct {
		int code;
		const char *fix;
	} fixes[] = {
		{ENOMEM, "free some, or use fewer threads or a smaller memory budget"},
		{ENOEXEC, "compile it again with lio cc"},
		{EIO, "see the kernel's log, and run it again"},
		{ECANCELED, "run it again to have its result"},
		{ETIME, "allow more time or fuel, or give it less to do"},
		{EFAULT, "fix the function"},
	};

	for (size_t i = 0; i < sizeof(fixes) / sizeof(fixes[0]); i++)
		if (fixes[i].code == -code)
			return fixes[i].fix;
	return "check what it was given";
}

static int fail(struct lambda_error *err, int code, uint64_t offset, const char *fmt, va_list ap)
{
	if (!err)
		return code;
	err->code = code;
	err->offset = offset;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	if (!strstr(err->text, "; ")) {
		size_t len = strlen(err->text);

		snprintf(err->text + len, sizeof(err->text) - len, "; %s", fix_of(code));
	}
	one_line(err->text);
	return code;
}

int lambda_fail(struct lambda_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(err, code, UINT64_MAX, fmt, ap);
	va_end(ap);
	return code;
}

int lambda_fail_at(struct lambda_error *err, int code, uint64_t offset, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(err, code, offset, fmt, ap);
	va_end(ap);
	return code;
}

const char *lambda_errname(int code)
{
	const char *name = strerrorname_np(code < 0 ? -code : code);

	return name ? name : "error";
}
