/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats32 - the largest, the smallest and the sum of 32-bit integers.
 *
 * Reads: little-endian signed 32-bit integers.
 * Returns: one row, max:i32 min:i32 sum:i32; the sum wraps.  Of no integers there is no row.
 */
#define NAME      stats32
#define INT       int32_t
#define UINT      uint32_t
#define INT_LEAST INT32_MIN
#define INT_MOST  INT32_MAX
#include "stats.h"

LAMBDA_DOC("largest, smallest and sum (which wraps) of little-endian 32-bit integers");
LAMBDA_OUTPUT("max:i32 min:i32 sum:i32");
