/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats64 - the largest, the smallest and the sum of 64-bit integers.
 *
 * Reads: little-endian signed 64-bit integers.
 * Returns: one row, max:i64 min:i64 sum:i64; the sum wraps.  Of no integers there is no row.
 */
#define NAME      stats64
#define INT       int64_t
#define UINT      uint64_t
#define INT_LEAST INT64_MIN
#define INT_MOST  INT64_MAX
#include "stats.h"

LAMBDA_DOC("largest, smallest and sum (which wraps) of little-endian 64-bit integers");
LAMBDA_OUTPUT("max:i64 min:i64 sum:i64");
