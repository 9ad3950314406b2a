/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap - expands a run-length encoded bitmap; made for λ-write.
 *
 * Reads: pairs of bytes, a count and a value.
 * Returns: each value, count times; a count of 0 ends it, whatever follows.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("expands (count, byte) pairs; stops at a count of 0");
LAMBDA_RECORD_FIXED(2);
LAMBDA_OUTPUT("bytes");

struct state {
	uint64_t ended;
};

#define SHORT 32u /* runs up to so many bytes are stored here: cheaper than a call */

LAMBDA_SCAN(bitmap, struct state)
{
	const uint8_t *p = ctx->in, *end = p + ctx->in_len;
	uint8_t *out = ctx->out, *out_end = out + ctx->out_cap;

	if (st->ended)
		return 0;
	for (; p < end; p += 2) {
		uint64_t count = p[0], room = (uint64_t)(out_end - out);

		if (!count) {
			st->ended = 1;
			break;
		}
		if (count > room)
			return -ENOSPC;
		if (count <= SHORT && room >= SHORT) {
			uint64_t word = p[1] * 0x0101010101010101ull;

			/* what is too much is the next run's to overwrite, or behind the end */
			for (uint64_t i = 0; i < SHORT; i += 8)
				lambda_store64(out + i, word);
		} else {
			lambda_memset(out, p[1], count);
		}
		out += count;
	}
	return out - ctx->out;
}
