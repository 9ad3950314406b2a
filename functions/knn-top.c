/* SPDX-License-Identifier: Apache-2.0 */
/*
 * knn-top - the k vectors that are nearest to a query vector.
 *
 * Reads: rows of 2,048 bytes: an i64 id and 255 i64 features, little-endian.
 * Returns: at most k (1 to 1,024) rows id:i64 distance:i64, nearest first, of equal ones the smaller id
 * first; the distance is L1 as in knn.
 */
#include <errno.h>
#include <string.h>

#include "knn.h"

LAMBDA_DOC("the k rows (i64 id, 255 i64 features) nearest to a query vector by L1 distance");
LAMBDA_RECORD_FIXED(sizeof(struct point));
LAMBDA_OUTPUT("id:i64 distance:i64");
LAMBDA_ARGS("k:u32=10 query:i64[255]=0..254");

#define K_MAX 1024

struct found {
	int64_t id, distance;
};

/* A heap with the farthest at the top: the k nearest so far, whatever order they came in. */
struct nearest {
	uint32_t k; /* 0: no call has said it yet */
	uint32_t n;
	struct found heap[K_MAX];
};

static inline int before(const struct found *a, const struct found *b)
{
	return a->distance != b->distance ? a->distance < b->distance : a->id < b->id;
}

/* Put @f into the hole at @at of the first @n and move it down to its place. */
static inline void sift_down(struct found *heap, uint32_t n, uint32_t at, struct found f)
{
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= n)
			break;
		if (child + 1 < n && before(&heap[child], &heap[child + 1]))
			child++;
		if (!before(&f, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = f;
}

static inline void offer(struct nearest *st, const struct found *f)
{
	uint32_t at;

	if (st->n == st->k) {
		if (before(f, &st->heap[0]))
			sift_down(st->heap, st->n, 0, *f);
		return;
	}
	for (at = st->n++; at && before(&st->heap[(at - 1) / 2], f); at = (at - 1) / 2)
		st->heap[at] = st->heap[(at - 1) / 2];
	st->heap[at] = *f;
}

LAMBDA_FOLD(knn_top, struct nearest)
{
	const struct point *p = (const struct point *)ctx->in;
	const uint8_t *arg = ctx->arg;

	st->k = lambda_arg_u32(&arg);
	if (!st->k || st->k > K_MAX)
		return -EINVAL;
	for (uint64_t n = ctx->in_len / sizeof(*p); n; n--, p++) {
		struct found f = {p->id, distance(p, (const int64_t *)arg)};

		offer(st, &f);
	}
	return 0;
}

LAMBDA_MERGE(knn_top, struct nearest)
{
	if (!st->k)
		st->k = other->k;
	for (uint32_t i = 0; i < other->n && i < K_MAX; i++)
		offer(st, &other->heap[i]);
	return 0;
}

LAMBDA_FINISH(knn_top, struct nearest)
{
	uint64_t len = st->n * sizeof(struct found);

	if (ctx->out_cap < len)
		return -ENOSPC;
	for (uint32_t n = st->n; n > 1; n--) { /* the farthest goes to the end */
		struct found last = st->heap[n - 1];

		st->heap[n - 1] = st->heap[0];
		sift_down(st->heap, n - 1, 0, last);
	}
	memcpy(ctx->out, st->heap, len);
	return (int64_t)len;
}
