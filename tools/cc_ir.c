/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cc_ir.c - LLVM's textual IR: pieces of a line, and text that grows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cc_ir.h"

void put(struct text *t, const char *p, size_t len)
{
	if (t->len + len >= t->cap && !t->failed) {
		size_t cap = (t->len + len) * 2 + 64;
		char *grown = realloc(t->p, cap);

		if (grown) {
			t->p = grown;
			t->cap = cap;
		} else {
			t->failed = true;
		}
	}
	if (t->failed)
		return;
	memcpy(t->p + t->len, p, len);
	t->len += len;
}

void puts_(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

void put_span(struct text *t, struct span s)
{
	put(t, s.p, s.len);
}

bool starts(struct span s, const char *prefix)
{
	size_t n = strlen(prefix);

	return s.len >= n && memcmp(s.p, prefix, n) == 0;
}

bool equals(struct span s, const char *text)
{
	return s.len == strlen(text) && starts(s, text);
}

struct span skip(struct span s, size_t n)
{
	return (struct span){s.p + n, s.len - n};
}

bool eat(struct span *s, const char *prefix)
{
	if (!starts(*s, prefix))
		return false;
	*s = skip(*s, strlen(prefix));
	return true;
}

struct span trim(struct span s)
{
	while (s.len && *s.p == ' ')
		s = skip(s, 1);
	while (s.len && s.p[s.len - 1] == ' ')
		s.len--;
	return s;
}

size_t find(struct span s, const char *what)
{
	const char *at = s.p ? memmem(s.p, s.len, what, strlen(what)) : NULL;

	return at ? (size_t)(at - s.p) : s.len;
}

size_t until(struct span s, const char *stops)
{
	int depth = 0;

	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (c == '"') {
			do
				i++;
			while (i < s.len && s.p[i] != '"');
			continue;
		}
		if (!depth && strchr(stops, c))
			return i;
		if (strchr("([{<", c))
			depth++;
		else if (strchr(")]}>", c))
			depth--;
	}
	return s.len;
}

bool number(struct span s, long *value)
{
	char buf[24], *end;

	if (!s.len || s.len >= sizeof(buf))
		return false;
	memcpy(buf, s.p, s.len);
	buf[s.len] = '\0';
	*value = strtol(buf, &end, 10);
	return *end == '\0';
}

void split_argument(struct span arg, struct span *type, struct span *value)
{
	*type = (struct span){arg.p, until(arg, " ")};
	*value = trim(skip(arg, type->len));
	while (eat(value, "noundef ") || eat(value, "zeroext ") || eat(value, "signext "))
		;
}

const char *debug_of(struct span tail, char *buf, size_t cap)
{
	size_t at = find(tail, "!dbg ");

	buf[0] = '\0';
	tail = skip(tail, at);
	if (tail.len)
		snprintf(buf, cap, ", %.*s", (int)until(tail, ","), tail.p);
	return buf;
}
