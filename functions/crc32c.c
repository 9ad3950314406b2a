/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c - the CRC-32C (Castagnoli) of the input, as iSCSI, ext4 and Btrfs compute it.
 *
 * Reads: any bytes.
 * Returns: one row, crc32c:u32.
 */
#include <errno.h>
#include <lambdaio/function.h>

LAMBDA_DOC("CRC-32C (Castagnoli) of the input");
LAMBDA_RECORD_ANY;
LAMBDA_OUTPUT("crc32c:u32");

#define POLYNOMIAL 0x82f63b78u /* bit-reversed: bit 31 is x^0 */

struct crc {
	uint64_t len;
	uint32_t crc, unused;
};

/* a × b modulo the polynomial. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a; a <<= 1) {
		if (a >> 31)
			product ^= b;
		b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
	}
	return product;
}

/* x to the power of 8 × n: what n more zero bytes multiply a CRC by. */
static uint32_t shift_by(uint64_t n)
{
	uint32_t power = 1u << 31, square = 1u << 23;

	for (; n; n >>= 1) {
		if (n & 1)
			power = multiply(square, power);
		square = multiply(square, square);
	}
	return power;
}

LAMBDA_FOLD(crc32c, struct crc)
{
	st->crc = lambda_crc32c(st->crc, ctx->in, ctx->in_len);
	st->len += ctx->in_len;
	return 0;
}

LAMBDA_MERGE(crc32c, struct crc)
{
	st->crc = multiply(shift_by(other->len), st->crc) ^ other->crc;
	st->len += other->len;
	return 0;
}

LAMBDA_FINISH(crc32c, struct crc)
{
	if (ctx->out_cap < 4)
		return -ENOSPC;
	*(uint32_t *)ctx->out = st->crc;
	return 4;
}
