/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helpers_crc32c.c - CRC-32C (RFC 3720, polynomial 0x1edc6f41 reflected) with the CPU's instruction.
 *
 * Our own, for the libraries at hand either lack it (zlib has another polynomial) or are a large
 * dependency for these few lines.  The instruction takes three cycles but can start every cycle, so
 * three stretches are summed side by side and joined with one carry-less multiplication each.
 */
#include <string.h>

#include "sbpf/helpers.h"

/* Four bits at a time: for machines without the instruction, and what the tests compare with. */
static uint32_t crc32c_plain(uint32_t crc, const uint8_t *p, size_t n)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	for (; n; n--) {
		crc ^= *p++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define LANE 1024u /* bytes of one of the three stretches */
/* x^(8 * bytes - 33) modulo the polynomial, reflected: multiplying by it moves a sum over @bytes. */
#define OVER_1_LANE  0x170076fau
#define OVER_2_LANES 0xa51b6135u

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* The sum @crc after as many zero bytes as @over stands for. */
static __attribute__((target("sse4.2,pclmul"))) uint32_t move_over(uint32_t crc, uint32_t over)
{
	__m128i product =
		_mm_clmulepi64_si128(_mm_cvtsi32_si128((int)crc), _mm_cvtsi32_si128((int)over), 0);

	return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static __attribute__((target("sse4.2,pclmul"))) uint32_t crc32c_sse42(uint32_t crc,
								      const uint8_t *p, size_t n)
{
	uint64_t a = crc;

	for (; n >= 3 * LANE; n -= 3 * LANE, p += 3 * LANE) {
		uint64_t b = 0, c = 0;

		for (size_t i = 0; i < LANE; i += 8) {
			a = _mm_crc32_u64(a, load64(p + i));
			b = _mm_crc32_u64(b, load64(p + LANE + i));
			c = _mm_crc32_u64(c, load64(p + 2 * LANE + i));
		}
		a = move_over((uint32_t)a, OVER_2_LANES) ^ move_over((uint32_t)b, OVER_1_LANE) ^ c;
	}
	for (; n >= 8; n -= 8, p += 8)
		a = _mm_crc32_u64(a, load64(p));
	for (; n; n--)
		a = _mm_crc32_u8((uint32_t)a, *p++);
	return (uint32_t)a;
}
#endif

uint32_t sbpf_crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		return ~crc32c_sse42(~crc, p, n);
#endif
	return ~crc32c_plain(~crc, p, n);
}
