/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample - about one line in so many, chosen by a hash of where the line stands.
 *
 * Reads: lines.
 * Returns: the chosen lines, in order.  The same file, seed and rate give the same lines always; equal
 * lines are chosen independently of each other.
 */
#include <errno.h>
#include <lambdaio/function.h>
#include <string.h>

LAMBDA_DOC("a random sample: one line in one_in, the same ones for the same seed");
LAMBDA_RECORD_DELIM('\n');
LAMBDA_OUTPUT("text");
LAMBDA_ARGS("one_in:u64=100 seed:u64=0");

/* SplitMix64's finalizer. */
static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

LAMBDA_MAP(sample)
{
	const uint8_t *arg = ctx->arg, *p = ctx->in, *end = p + ctx->in_len, *next;
	uint64_t one_in = lambda_arg_u64(&arg), key = mix(lambda_arg_u64(&arg) + 1), len;
	uint8_t *out = ctx->out, *out_end = out + ctx->out_cap;

	if (!one_in)
		return -EINVAL;
	for (; p < end; p = next) {
		const uint8_t *newline = lambda_memchr(p, '\n', (uint64_t)(end - p));

		next = newline ? newline + 1 : end;
		if (mix(key ^ (ctx->offset + (uint64_t)(p - ctx->in))) % one_in)
			continue;
		len = (uint64_t)(next - p);
		if ((uint64_t)(out_end - out) < len + !newline)
			return -ENOSPC;
		memcpy(out, p, len);
		out += len;
		if (!newline)
			*out++ = '\n';
	}
	return out - ctx->out;
}
