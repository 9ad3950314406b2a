/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_url.c - lio://HOST[:PORT]/EXPORT/PATH: HOST is a name, an address, or an IPv6 address in brackets;
 * in EXPORT and PATH %XX is a byte, and every other byte but '/' stands for itself.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/remote.h"

#define SCHEME "lio://"

bool remote_is_url(const char *path)
{
	return !strncmp(path, SCHEME, sizeof(SCHEME) - 1);
}

static int bad(const char *url, const char *why_fix)
{
	return host_fail(-EINVAL, "%s: %s", url, why_fix);
}

static int take_port(const char *url, const char *port, size_t len, char out[8])
{
	unsigned long n = 0;

	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)port[i]) || n > 65535)
			return bad(url, "its port is no number from 1 to 65535; write "
					"lio://HOST:PORT/EXPORT/PATH");
		n = n * 10 + (unsigned long)(port[i] - '0');
	}
	if (!n || n > 65535)
		return bad(url, "its port is no number from 1 to 65535; write "
				"lio://HOST:PORT/EXPORT/PATH");
	snprintf(out, 8, "%lu", n);
	return 0;
}

/* @len bytes of HOST[:PORT]. */
static int take_where(const char *url, const char *s, size_t len, char *where, size_t size)
{
	const char *end = s + len, *host = s, *host_end, *port = NULL;
	char number[8] = REMOTE_PORT;
	bool brackets = len && *s == '[';
	int rc;

	if (brackets) {
		host = s + 1;
		host_end = memchr(host, ']', len - 1);
		if (!host_end)
			return bad(url, "its IPv6 address has no closing bracket; write "
					"lio://[ADDRESS]:PORT/EXPORT/PATH");
		if (host_end + 1 < end && host_end[1] != ':')
			return bad(url, "something other than :PORT follows its IPv6 address; "
					"write lio://[ADDRESS]:PORT/EXPORT/PATH");
		port = host_end + 1 < end ? host_end + 2 : NULL;
	} else {
		host_end = memchr(s, ':', len);
		port = host_end ? host_end + 1 : NULL;
		host_end = host_end ? host_end : end;
		if (port && memchr(port, ':', (size_t)(end - port)))
			return bad(url, "an IPv6 address stands in brackets; write "
					"lio://[ADDRESS]:PORT/EXPORT/PATH");
	}
	if (host == host_end)
		return bad(url, "it names no server; write lio://HOST/EXPORT/PATH");
	for (const char *p = host; p < host_end; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || (brackets && *p == '['))
			return bad(url, "its server's name has a byte that none may have; write "
					"lio://HOST/EXPORT/PATH");
	if (port) {
		rc = take_port(url, port, (size_t)(end - port), number);
		if (rc)
			return rc;
	}
	/* Long enough for any name that can be resolved (255 bytes). */
	if (snprintf(where, size, brackets ? "[%.*s]:%s" : "%.*s:%s", (int)(host_end - host), host,
		     number) >= 280)
		return bad(url, "its server's name is too long; write lio://HOST/EXPORT/PATH");
	return 0;
}

static int hex(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decoded, without empty and "." components; whether ".." leads anywhere is the server's to say. */
static int take_path(const char *url, const char *s, char *out)
{
	char *to = out, *start = out; /* of the component that is being written */

	for (;; s++) {
		int c = (unsigned char)*s;

		if (c == '%') {
			int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);

			if (low < 0)
				return bad(url, "two hexadecimal digits follow a '%' in it; write "
						"%25 for the sign itself");
			c = high << 4 | low;
			if (!c || c == '/')
				return bad(url, "no file's name has a slash or a zero byte in it; "
						"take out its %2F or %00");
			s += 2;
			*to++ = (char)c;
			continue;
		}
		if (c && c != '/') {
			*to++ = (char)c;
			continue;
		}
		if (to == start + 1 && *start == '.')
			to = start;
		if (!c)
			break;
		if (to != start) {
			*to++ = '/';
			start = to;
		}
	}
	if (to == start && to > out)
		to--;
	*to = 0;
	return 0;
}

int remote_url_parse(const char *url, struct remote_url *out)
{
	const char *where = url + sizeof(SCHEME) - 1, *slash = strchr(where, '/');
	size_t len = slash ? (size_t)(slash - where) : strlen(where);
	int rc = take_where(url, where, len, out->where, sizeof(out->where));

	out->path = NULL;
	if (rc)
		return rc;
	out->path = malloc(strlen(where) + 1);
	if (!out->path)
		return host_fail(-ENOMEM, "%s: no memory; free some", url);
	rc = take_path(url, where + len, out->path);
	if (rc)
		remote_url_free(out);
	return rc;
}

void remote_url_free(struct remote_url *url)
{
	free(url->path);
	url->path = NULL;
}

int remote_where_parse(const char *text, char *where, size_t size)
{
	const char *s = remote_is_url(text) ? text + sizeof(SCHEME) - 1 : text;
	size_t len = strcspn(s, "/");

	if (s[len] && s[len + 1])
		return bad(text, "it names more than a server; write HOST or HOST:PORT");
	return take_where(text, s, len, where, size);
}
