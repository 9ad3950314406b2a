/* SPDX-License-Identifier: Apache-2.0 */
/* stdlib.h - its integer arithmetic, for λ-functions; memory comes from LAMBDA_HEAP(bytes). */
#ifndef LAMBDAIO_LIBC_STDLIB_H
#define LAMBDAIO_LIBC_STDLIB_H

#include <stddef.h>

static inline int abs(int x)
{
	return x < 0 ? (int)(0 - (unsigned int)x) : x;
}

static inline long labs(long x)
{
	return x < 0 ? (long)(0 - (unsigned long)x) : x;
}

static inline long long llabs(long long x)
{
	return labs(x);
}

static inline unsigned int lambda_digit_(char c)
{
	unsigned int letter = ((unsigned char)c | 0x20u) - 'a';

	return (unsigned char)c - '0' < 10u ? (unsigned char)c - (unsigned int)'0'
	       : letter < 26                ? letter + 10
					    : 36;
}

/* The magnitude, at most @most, as strtoul(3) finds it after the sign; NULL in *end: no digits. */
static inline unsigned long lambda_magnitude_(const char *s, const char **end, unsigned int base,
					      unsigned long most)
{
	unsigned long value = 0;
	unsigned int digit;

	if ((base == 0 || base == 16) && s[0] == '0' && (s[1] | 0x20) == 'x' &&
	    lambda_digit_(s[2]) < 16) {
		s += 2;
		base = 16;
	} else if (base == 0) {
		base = s[0] == '0' ? 8 : 10;
	}
	for (*end = NULL; (digit = lambda_digit_(*s)) < base; *end = ++s)
		value = value > (most - digit) / base ? most : value * base + digit;
	return value;
}

/* As in C, but that a value beyond the type's leaves no errno: it is the largest or smallest. */
static inline unsigned long strtoul(const char *s, char **end, int base)
{
	const char *p = s, *stop;
	unsigned long value;
	int negative;

	while (*p == ' ' || (unsigned char)*p - '\t' < 5u)
		p++;
	negative = *p == '-';
	p += negative || *p == '+';
	value = lambda_magnitude_(p, &stop, (unsigned int)base, ~0ul);
	if (end)
		*end = (char *)(stop ? stop : s);
	return negative && value != ~0ul ? 0 - value : value;
}

static inline long strtol(const char *s, char **end, int base)
{
	const char *p = s, *stop;
	unsigned long value;
	int negative;

	while (*p == ' ' || (unsigned char)*p - '\t' < 5u)
		p++;
	negative = *p == '-';
	p += negative || *p == '+';
	value = lambda_magnitude_(p, &stop, (unsigned int)base,
				  (~0ul >> 1) + (unsigned long)negative);
	if (end)
		*end = (char *)(stop ? stop : s);
	return (long)(negative ? 0 - value : value);
}

static inline unsigned long long strtoull(const char *s, char **end, int base)
{
	return strtoul(s, end, base);
}

static inline long long strtoll(const char *s, char **end, int base)
{
	return strtol(s, end, base);
}

static inline long atol(const char *s)
{
	return strtol(s, NULL, 10);
}

static inline int atoi(const char *s)
{
	return (int)strtol(s, NULL, 10);
}

#endif /* LAMBDAIO_LIBC_STDLIB_H */
