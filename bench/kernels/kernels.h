/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.h - the two loops that compilers are compared on: sum, min and max of u32, and counting
 * "lambda".  The same text is compiled natively, to BPF and to WebAssembly.
 */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;

static inline __attribute__((always_inline)) u64 kernel_sum(const u8 *p, u64 len)
{
	u64 n = len / 4, sum = 0;
	u32 min = 0xffffffffu, max = 0;

	for (u64 i = 0; i < n; i++) {
		u32 v = ((const u32 *)p)[i];

		sum += v;
		if (v < min)
			min = v;
		if (v > max)
			max = v;
	}
	return sum ^ ((u64)min << 32) ^ max;
}

/* Overlapping occurrences. */
static inline __attribute__((always_inline)) u64 kernel_grep(const u8 *p, u64 len)
{
	u64 count = 0;

	for (u64 i = 0; i + 6 <= len; i++) {
		if (p[i] == 'l' && p[i + 1] == 'a' && p[i + 2] == 'm' && p[i + 3] == 'b' &&
		    p[i + 4] == 'd' && p[i + 5] == 'a')
			count++;
	}
	return count;
}

#endif /* BENCH_KERNELS_H */
