/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode.c - values as text and JSON: UTF-8 or base64, shortest doubles, sizes and times for people;
 * and getting them out of the door.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lio.h"

#define TEXT_MAX (1u << 30) /* json-c counts a string in an int, base64 is 4/3 of it */

/* Length of the UTF-8 sequence at @p (RFC 3629: no overlong forms, no surrogates), 0 if it is none. */
static size_t utf8(const uint8_t *p, size_t len)
{
	uint8_t lo = 0x80, hi = 0xbf;
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (len < n)
		return 0;
	if (p[0] == 0xe0)
		lo = 0xa0;
	else if (p[0] == 0xed)
		hi = 0x9f;
	else if (p[0] == 0xf0)
		lo = 0x90;
	else if (p[0] == 0xf4)
		hi = 0x8f;
	if (p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

static bool is_utf8(const uint8_t *p, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8(p + i, len - i);
		if (!n)
			return false;
	}
	return true;
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void cli_base64_group(const uint8_t *p, size_t n, char out[4])
{
	uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0u);

	out[0] = base64_digits[v >> 18];
	out[1] = base64_digits[v >> 12 & 63];
	out[2] = n > 1 ? base64_digits[v >> 6 & 63] : '=';
	out[3] = n > 2 ? base64_digits[v & 63] : '=';
}

json_object *cli_json_text(const void *p, size_t len)
{
	json_object *o, *s;
	char *text;

	if (len > TEXT_MAX)
		return NULL;
	if (is_utf8(p, len))
		return json_object_new_string_len(p, (int)len);
	text = malloc(len / 3 * 4 + 5);
	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i += 3)
		cli_base64_group((const uint8_t *)p + i, len - i < 3 ? len - i : 3,
				 text + i / 3 * 4);
	s = json_object_new_string_len(text, (int)((len + 2) / 3 * 4));
	free(text);
	o = json_object_new_object();
	json_object_object_add(o, "bytes_base64", s);
	return o;
}

char *cli_double_text(char buf[32], double value)
{
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(buf, 32, "%.*g", digits, value);
		if (strtod(buf, NULL) == value)
			break;
	}
	return buf;
}

char *cli_strdup(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		exit(cli_fail(ENOMEM, CLI_FIX_MEMORY, "lio: no memory"));
	return copy;
}

char *cli_size_text(char buf[32], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	for (; value >= 1024 && unit < 6; unit++)
		value /= 1024;
	if (value == (double)(uint64_t)value)
		snprintf(buf, 32, "%" PRIu64 " %s", (uint64_t)value, units[unit]);
	else
		snprintf(buf, 32, "%.1f %s", value, units[unit]);
	return buf;
}

char *cli_time_text(char buf[32], uint64_t ns)
{
	if (ns < 10000)
		snprintf(buf, 32, "%" PRIu64 " ns", ns);
	else if (ns < 10000000)
		snprintf(buf, 32, "%.1f us", (double)ns / 1e3);
	else if (ns < 10000000000)
		snprintf(buf, 32, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(buf, 32, "%.1f s", (double)ns / 1e9);
	return buf;
}

enum print_mode cli_print_mode(const struct cli *cli, enum lambda_shape shape)
{
	bool terminal = isatty(STDOUT_FILENO);

	if (cli->json)
		return PRINT_JSON;
	if (cli->raw || shape == LAMBDA_SHAPE_TEXT)
		return PRINT_RAW;
	if (shape == LAMBDA_SHAPE_ROWS)
		return terminal ? PRINT_TABLE : PRINT_TSV;
	return terminal ? PRINT_HEX : PRINT_RAW;
}

int cli_fail_stdout(int err)
{
	if (err == -EPIPE || err == EPIPE) {
		/* The reader left: end as others do, also where SIGPIPE came ignored. */
		signal(SIGPIPE, SIG_DFL);
		raise(SIGPIPE);
	}
	return cli_fail(err, "see where it leads: a full disk, a closed descriptor",
			"standard output: %s", strerror(err < 0 ? -err : err));
}

int cli_flush(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return cli_fail_stdout(errno ? errno : EIO);
}

int cli_print_json(json_object *doc)
{
	size_t len;
	const char *text = json_object_to_json_string_length(
		doc,
		JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE,
		&len);

	fwrite(text, 1, len, stdout);
	fputc('\n', stdout);
	json_object_put(doc);
	return cli_flush();
}
