/* SPDX-License-Identifier: Apache-2.0 */
/*
 * string.h - what λ-functions have of it.  The mem* functions are helpers: each checks its ranges
 * against the sandbox, and they run at the machine's vector speed.
 */
#ifndef LAMBDAIO_LIBC_STRING_H
#define LAMBDAIO_LIBC_STRING_H

#include <stddef.h>
#include <stdint.h>

void *memcpy(void *dst, const void *src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *p, int byte, size_t n);

void *lambda_memmem(const void *hay, uint64_t hay_len, const void *needle, uint64_t needle_len);

static inline void *memmem(const void *hay, size_t hay_len, const void *needle, size_t needle_len)
{
	return lambda_memmem(hay, hay_len, needle, needle_len);
}

static inline size_t strnlen(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && s[n])
		n++;
	return n;
}

static inline size_t strlen(const char *s)
{
	return strnlen(s, SIZE_MAX);
}

static inline int strncmp(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char x = (unsigned char)a[i], y = (unsigned char)b[i];

		if (x != y)
			return x < y ? -1 : 1;
		if (!x)
			break;
	}
	return 0;
}

static inline int strcmp(const char *a, const char *b)
{
	return strncmp(a, b, SIZE_MAX);
}

static inline char *strchr(const char *s, int c)
{
	for (; *s != (char)c; s++)
		if (!*s)
			return NULL;
	return (char *)s;
}

static inline char *strrchr(const char *s, int c)
{
	const char *last = NULL;

	do
		if (*s == (char)c)
			last = s;
	while (*s++);
	return (char *)last;
}

static inline char *strstr(const char *hay, const char *needle)
{
	return (char *)lambda_memmem(hay, strlen(hay), needle, strlen(needle));
}

static inline size_t strspn(const char *s, const char *accept)
{
	size_t n = 0;

	while (s[n] && strchr(accept, s[n]))
		n++;
	return n;
}

static inline size_t strcspn(const char *s, const char *reject)
{
	size_t n = 0;

	while (s[n] && !strchr(reject, s[n]))
		n++;
	return n;
}

static inline char *strcpy(char *dst, const char *src)
{
	return (char *)memcpy(dst, src, strlen(src) + 1);
}

static inline char *strncpy(char *dst, const char *src, size_t n)
{
	size_t len = strnlen(src, n);

	memcpy(dst, src, len);
	memset(dst + len, 0, n - len);
	return dst;
}

static inline char *strcat(char *dst, const char *src)
{
	strcpy(dst + strlen(dst), src);
	return dst;
}

#endif /* LAMBDAIO_LIBC_STRING_H */
