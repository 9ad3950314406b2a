/* SPDX-License-Identifier: Apache-2.0 */
/* A fold without a merge or a finish: FNV-1a of rows of 24 bytes; the state is the output. */
#include <lambdaio/function.h>
#include <errno.h>

LAMBDA_DOC("FNV-1a of whole rows");
LAMBDA_RECORD_FIXED(24);
LAMBDA_OUTPUT("hash:u64");

struct fnv {
	uint64_t xor_start; /* the hash xor its start value, so that zero is the start */
};

LAMBDA_FOLD(fnv, struct fnv)
{
	uint64_t h = st->xor_start ^ 14695981039346656037u;

	if (ctx->in_len % 24 || ctx->offset % 24)
		return -EINVAL;
	for (uint64_t i = 0; i < ctx->in_len; i++)
		h = (h ^ ctx->in[i]) * 1099511628211u;
	st->xor_start = h ^ 14695981039346656037u;
	return 0;
}
