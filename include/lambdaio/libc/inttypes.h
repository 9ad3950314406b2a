/* SPDX-License-Identifier: Apache-2.0 */
/* inttypes.h - its integer types, for λ-functions; there is no printf, so no format macros. */
#ifndef LAMBDAIO_LIBC_INTTYPES_H
#define LAMBDAIO_LIBC_INTTYPES_H

#include <stdint.h>

static inline intmax_t imaxabs(intmax_t x)
{
	return x < 0 ? (intmax_t)(0 - (uintmax_t)x) : x;
}

#endif /* LAMBDAIO_LIBC_INTTYPES_H */
