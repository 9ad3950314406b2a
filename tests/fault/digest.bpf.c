/* SPDX-License-Identifier: Apache-2.0 */
/* digest: reads any bytes, returns their CRC-32C, computed by a helper `rounds` times over (a fold). */
#include <lambdaio/function.h>

LAMBDA_DOC("CRC-32C of all");
LAMBDA_OUTPUT("crc:u64");
LAMBDA_ARGS("rounds:u64=1");

struct digest {
	uint64_t crc;
};

LAMBDA_FOLD(digest, struct digest)
{
	uint64_t rounds = *(const uint64_t *)ctx->arg, crc = 0;

	for (uint64_t i = 0; i < rounds; i++)
		crc = lambda_crc32c((uint32_t)st->crc, ctx->in, ctx->in_len);
	st->crc = crc;
	return 0;
}
