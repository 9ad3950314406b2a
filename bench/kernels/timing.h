/* SPDX-License-Identifier: Apache-2.0 */
/* timing.h - best and median of many passes over one warm buffer, printed as a line of JSON. */
#ifndef BENCH_TIMING_H
#define BENCH_TIMING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BENCH_PASSES 600

static inline uint64_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int bench_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* @unit: what a pass is divided by (bytes for ns/byte, 1 for ns a call). */
static inline void bench_report(const char *kernel, uint64_t *samples, unsigned int n, double unit,
				uint64_t result)
{
	qsort(samples, n, sizeof(*samples), bench_order);
	printf("{\"kernel\": \"%s\", \"best\": %.4f, \"median\": %.4f, \"result\": \"%llx\"}\n",
	       kernel, (double)samples[0] / unit, (double)samples[n / 2] / unit,
	       (unsigned long long)result);
}

#define BENCH(kernel, bytes, expr)                                                 \
	do {                                                                       \
		static uint64_t samples_[BENCH_PASSES];                            \
		uint64_t r_ = 0;                                                   \
		for (int i_ = 0; i_ < 10; i_++)                                    \
			r_ = (expr);                                               \
		for (int i_ = 0; i_ < BENCH_PASSES; i_++) {                        \
			uint64_t t_ = bench_now();                                 \
			r_ = (expr);                                               \
			samples_[i_] = bench_now() - t_;                           \
		}                                                                  \
		bench_report(kernel, samples_, BENCH_PASSES, (double)(bytes), r_); \
	} while (0)

static inline uint8_t *bench_slurp(const char *path, size_t len)
{
	FILE *f = fopen(path, "rb");
	uint8_t *p = aligned_alloc(4096, (len + 4095) / 4096 * 4096);

	if (!f || !p || fread(p, 1, len, f) != len) {
		perror(path);
		exit(2);
	}
	fclose(f);
	return p;
}

#endif /* BENCH_TIMING_H */
