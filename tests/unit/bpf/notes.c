/* SPDX-License-Identifier: Apache-2.0 */
/* A λ-function that says all about itself. */
#include <lambdaio/function.h>

LAMBDA_DOC("count of bytes");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("bytes:u64");
LAMBDA_ARGS("unit:u32=1");
LAMBDA_HEAP(4096);

struct state {
	uint64_t bytes;
};

LAMBDA_FOLD(notes, struct state)
{
	st->bytes += ctx->in_len;
	return 0;
}

LAMBDA_MERGE(notes, struct state)
{
	st->bytes += other->bytes;
	return 0;
}

LAMBDA_FINISH(notes, struct state)
{
	lambda_memcpy(ctx->out, st, sizeof(*st));
	return sizeof(*st);
}
