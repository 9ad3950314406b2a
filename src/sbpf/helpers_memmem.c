/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helpers_memmem.c - find a needle at the speed of memory, if it is rare, on x86-64 with AVX2.
 *
 * Two bytes of the needle that text and code seldom have are compared at 64 places at once; where
 * both match, memcmp decides.  libc's memmem reads byte by byte (1 to 3 GB/s where this does tens).
 * Text made to match both bytes everywhere would cost its length times the needle's: when the places
 * that turn out false outweigh the bytes read, libc takes over.
 */
#include <string.h>

#include "sbpf/helpers.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define STEP 64u /* places a turn of the loop looks at */

/* How common each byte is: 0 the rarest.  Counted over licences, C headers, Python sources, package
 * lists and shared objects of a Debian 12 system, each weighing the same. */
static const uint8_t rank[256] = {
	/* clang-format off */
	254, 198, 177, 149, 179, 156, 141, 136, 185, 187, 243,  99, 154, 151, 157, 202,
	168, 124, 175,  77, 116, 109,  52,  51, 144,  46,  47,  58,  85,  28,  36, 163,
	255, 129, 195, 173, 181, 135, 133, 224, 217, 216, 201, 150, 231, 219, 234, 240,
	230, 227, 222, 209, 200, 192, 203, 183, 196, 199, 204, 178, 164, 182, 174, 123,
	191, 225, 193, 212, 207, 226, 188, 189, 229, 223, 114, 142, 218, 190, 214, 208,
	205, 103, 213, 220, 221, 186, 158, 167, 176, 160, 138, 161, 180, 165, 110, 244,
	148, 250, 232, 242, 241, 253, 236, 233, 235, 251, 155, 197, 245, 237, 247, 246,
	239, 153, 249, 248, 252, 238, 211, 206, 210, 228, 171, 143, 147, 145, 130,  45,
	137, 113,  91, 172, 152, 159,  79,  72, 105, 194,  11, 184,  84, 170,  61,  55,
	132,  15,  14,  22,  62,  53,   8,  13,  87,  35,   2,   5,  21,   4,   3,  27,
	131,  38,   0,  56,  33,   6,   1,  12,  88,  57,  73,  42,  20,  16,  40,  59,
	122,  25,  26,  29,  93,  74,  94,  86, 126,  68,  95,  63,  66,  69, 104,  97,
	162, 127, 112, 139, 121,  89, 102, 128,  96,  92,  49,  10,  19,  17,  32,  18,
	169, 119,  98,  41,  23,  24,  31,  78,  90,  44,  37,  60,   9,   7,  30, 108,
	146,  50,  75, 107,  54,  48,  65,  71, 166, 140,  64, 111, 106,  76,  70, 118,
	120,  39, 101, 125,  34,  43, 100,  80, 115,  67,  81,  82,  83, 117, 134, 215,
	/* clang-format on */
};

struct search {
	const uint8_t *needle;
	size_t m;
	size_t i, j;     /* of the two bytes that are compared */
	size_t false_by; /* bytes that false places may still cost */
};

/* The two rarest bytes of the needle's start, at different places. */
static void choose_bytes(struct search *s)
{
	size_t look = s->m < 64 ? s->m : 64;

	s->i = rank[s->needle[1]] < rank[s->needle[0]];
	s->j = !s->i;
	for (size_t k = 2; k < look; k++) {
		if (rank[s->needle[k]] < rank[s->needle[s->i]]) {
			s->j = s->i;
			s->i = k;
		} else if (rank[s->needle[k]] < rank[s->needle[s->j]]) {
			s->j = k;
		}
	}
}

static __attribute__((target("avx2"))) uint32_t match32(const uint8_t *at, const struct search *s,
							__m256i a, __m256i b)
{
	__m256i pa = _mm256_loadu_si256((const __m256i *)(at + s->i));
	__m256i pb = _mm256_loadu_si256((const __m256i *)(at + s->j));

	return (uint32_t)_mm256_movemask_epi8(
		_mm256_and_si256(_mm256_cmpeq_epi8(pa, a), _mm256_cmpeq_epi8(pb, b)));
}

/* The first of the marked places at @at where the needle is. */
static const uint8_t *verify(struct search *s, const uint8_t *at, uint64_t places)
{
	for (; places; places &= places - 1) {
		const uint8_t *p = at + __builtin_ctzll(places);

		if (!memcmp(p, s->needle, s->m))
			return p;
		/* A guess at what the failed comparison cost beside reading a byte in the loop. */
		s->false_by -= s->false_by < 16 + s->m ? s->false_by : 16 + s->m;
	}
	return NULL;
}

/* The last of at least STEP places is @last. */
static __attribute__((target("avx2"))) const void *find_avx2(struct search *s, const uint8_t *hay,
							     const uint8_t *last, size_t n)
{
	__m256i a = _mm256_set1_epi8((char)s->needle[s->i]);
	__m256i b = _mm256_set1_epi8((char)s->needle[s->j]);
	const uint8_t *at = hay;

	for (;;) {
		uint64_t places = match32(at, s, a, b) | (uint64_t)match32(at + 32, s, a, b) << 32;

		if (places) {
			const uint8_t *found = verify(s, at, places);

			if (found)
				return found;
			if (!s->false_by)
				return memmem(at, n - (size_t)(at - hay), s->needle, s->m);
		}
		if (at + STEP > last)
			return NULL;
		/* The last turn looks at some places again rather than beyond the end. */
		at = at + 2 * STEP - 1 <= last ? at + STEP : last - (STEP - 1);
	}
}
#endif

const void *sbpf_memmem(const void *hay, size_t n, const void *needle, size_t m)
{
	if (!m)
		return hay;
	if (m > n)
		return NULL;
	if (m == 1)
		return memchr(hay, *(const uint8_t *)needle, n);
#if defined(__x86_64__)
	if (n - m + 1 >= STEP && __builtin_cpu_supports("avx2")) {
		struct search s = {.needle = needle, .m = m, .false_by = 4096 + n};

		choose_bytes(&s);
		return find_avx2(&s, hay, (const uint8_t *)hay + (n - m), n);
	}
#endif
	return memmem(hay, n, needle, m);
}
