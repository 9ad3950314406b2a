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

#endif /* LAMBDAIO_LIBC_STDLIB_H */
