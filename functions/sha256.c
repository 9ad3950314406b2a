/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sha256 - the SHA-256 of the input, as sha256sum prints it.
 *
 * Reads: any bytes, in order (a hash has no merge).
 * Returns: a line of 64 hexadecimal digits.
 */
#include <errno.h>
#include <lambdaio/function.h>
#include <string.h>

LAMBDA_DOC("SHA-256 of the input: 64 hexadecimal digits");
LAMBDA_RECORD_ANY;
LAMBDA_OUTPUT("text");

#define BLOCK 64u

struct sha256 {
	uint32_t h[8];
	uint32_t started;
	uint64_t total;
	uint8_t block[2 * BLOCK]; /* the first total % BLOCK bytes are not absorbed yet */
};

static inline void start(struct sha256 *st)
{
	static const uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
				      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

	if (st->started)
		return;
	memcpy(st->h, h, sizeof(h));
	st->started = 1;
}

LAMBDA_FOLD(sha256, struct sha256)
{
	const uint8_t *p = ctx->in;
	uint64_t left = ctx->in_len, held = st->total % BLOCK, take;

	start(st);
	st->total += left;
	if (held) {
		take = left < BLOCK - held ? left : BLOCK - held;
		memcpy(st->block + held, p, take);
		p += take;
		left -= take;
		if (held + take < BLOCK)
			return 0;
		lambda_sha256_blocks(st->h, st->block, 1);
	}
	lambda_sha256_blocks(st->h, p, left / BLOCK);
	memcpy(st->block, p + left / BLOCK * BLOCK, left % BLOCK);
	return 0;
}

LAMBDA_FINISH(sha256, struct sha256)
{
	uint64_t held = st->total % BLOCK, padded = held < BLOCK - 8 ? BLOCK : 2 * BLOCK;

	if (ctx->out_cap < 65)
		return -ENOSPC;
	start(st);
	memset(st->block + held, 0, padded - held);
	st->block[held] = 0x80;
	lambda_store64(st->block + padded - 8, __builtin_bswap64(st->total * 8));
	lambda_sha256_blocks(st->h, st->block, padded / BLOCK);
	for (int i = 0; i < 64; i++)
		ctx->out[i] = "0123456789abcdef"[st->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
	ctx->out[64] = '\n';
	return 65;
}
