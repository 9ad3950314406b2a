/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - one failure, told once: code, place and a line for a person.
 */
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

static int fail(struct lambda_error *err, int code, uint64_t offset, const char *fmt, va_list ap)
{
	if (!err)
		return code;
	err->code = code;
	err->offset = offset;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
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
