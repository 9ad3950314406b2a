/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram - how often each byte value occurs.
 *
 * Reads: any bytes.
 * Returns: a row value:u8 count:u64 for each value that occurs, in order of the values.
 */
#include <errno.h>
#include <lambdaio/function.h>
#include <string.h>

LAMBDA_DOC("how often each byte value occurs");
LAMBDA_RECORD_ANY;
LAMBDA_OUTPUT("value:u8 count:u64");

#define TABLES 4 /* neighbours that are equal must not wait for each other's count */
LAMBDA_HEAP(TABLES * 256 * 8);

struct histogram {
	uint64_t count[256];
};

LAMBDA_FOLD(histogram, struct histogram)
{
	uint64_t(*table)[256] = (uint64_t(*)[256])ctx->heap;
	const uint8_t *p = ctx->in, *end = p + ctx->in_len;

	for (; p + 8 <= end; p += 8) {
		uint64_t x = lambda_load64(p);

#pragma clang loop unroll(full)
		for (int i = 0; i < 8; i++, x >>= 8)
			table[i % TABLES][x & 0xff]++;
	}
	for (; p < end; p++)
		st->count[*p]++;
	for (int i = 0; i < 256; i++)
		st->count[i] += table[0][i] + table[1][i] + table[2][i] + table[3][i];
	return 0;
}

LAMBDA_MERGE(histogram, struct histogram)
{
	for (int i = 0; i < 256; i++)
		st->count[i] += other->count[i];
	return 0;
}

LAMBDA_FINISH(histogram, struct histogram)
{
	uint8_t *out = ctx->out;

	for (int i = 0; i < 256; i++) {
		if (!st->count[i])
			continue;
		if (ctx->out_cap - (uint64_t)(out - ctx->out) < 9)
			return -ENOSPC;
		*out = (uint8_t)i;
		lambda_store64(out + 1, st->count[i]);
		out += 9;
	}
	return out - ctx->out;
}
