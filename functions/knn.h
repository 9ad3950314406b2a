/* SPDX-License-Identifier: Apache-2.0 */
/* knn.h - a row of knn and knn-top, and its distance to the query. */
#include <lambdaio/function.h>

#define FEATURES 255

struct point {
	int64_t id;
	int64_t feature[FEATURES];
};

/* L1: the sum of the absolute differences; differences and sum wrap at 64 bits. */
LAMBDA_INLINE_ int64_t distance(const struct point *p, const int64_t *query)
{
	uint64_t sum = 0;

#pragma clang loop unroll_count(15)
	for (int i = 0; i < FEATURES; i++) {
		int64_t d = (int64_t)((uint64_t)p->feature[i] - (uint64_t)query[i]);

		sum += d < 0 ? 0 - (uint64_t)d : (uint64_t)d;
	}
	return (int64_t)sum;
}
