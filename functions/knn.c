/* SPDX-License-Identifier: Apache-2.0 */
/*
 * knn - how far each vector is from a query vector.
 *
 * Reads: rows of 2,048 bytes: an i64 id and 255 i64 features, little-endian.
 * Returns: a row for each, id:i64 distance:i64; the distance is L1 (the sum of absolute differences).
 */
#include <errno.h>

#include "knn.h"

LAMBDA_DOC("L1 distance of each 2,048-byte row (i64 id, 255 i64 features) to a query vector");
LAMBDA_RECORD_FIXED(sizeof(struct point));
LAMBDA_OUTPUT("id:i64 distance:i64");
LAMBDA_ARGS("query:i64[255]=0..254");

LAMBDA_MAP(knn)
{
	const struct point *p = (const struct point *)ctx->in;
	const int64_t *query = (const int64_t *)ctx->arg;
	uint64_t n = ctx->in_len / sizeof(*p);
	int64_t *row = (int64_t *)ctx->out;

	if (ctx->out_cap < n * 16)
		return -ENOSPC;
	for (uint64_t i = 0; i < n; i++, p++, row += 2) {
		row[0] = p->id;
		row[1] = distance(p, query);
	}
	return (int64_t)(n * 16);
}
