/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_latency.c - how long one small request to a file takes, through the public API: JSON on standard output.
 *
 *   remote_latency URL plain|NAME BYTES SECONDS     plain: lio_pread; else a λ-read of that function
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lambdaio/lambdaio.h"

#define SAMPLES 1000000u

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "remote_latency: %s: %s\n", what, lio_error());
	exit(2);
}

int main(int argc, char **argv)
{
	struct lio_run_opts opts = {.size = sizeof(opts), .engine = LIO_ENGINE_DEVICE};
	struct lio_function *fn = NULL;
	struct lio_file *file;
	uint64_t bytes, end, at, size, n = 0;
	static uint32_t ns[SAMPLES];
	static char buf[1 << 20];
	double sum = 0;

	if (argc != 5)
		return 2;
	bytes = strtoull(argv[3], NULL, 10);
	if (lio_open(argv[1], O_RDONLY, 0, &file))
		fail(argv[1]);
	size = (uint64_t)lio_size(file);
	if (strcmp(argv[2], "plain") != 0 && lio_load(argv[2], &fn))
		fail(argv[2]);
	end = now_ns() + (uint64_t)(strtod(argv[4], NULL) * 1e9);
	at = 88172645463325252ull;
	for (uint64_t warm = 0; n < SAMPLES && (warm < 200 || now_ns() < end); warm++) {
		uint64_t start, off;
		int64_t got;

		at ^= at << 13;
		at ^= at >> 7;
		at ^= at << 17;
		off = at % (size / 4096) * 4096;
		start = now_ns();
		got = fn ? lio_lambda_read(file, fn, off, bytes, &opts, buf, sizeof(buf), NULL)
			 : lio_pread(file, buf, bytes, off);
		if (got < 0)
			fail("request");
		if (warm < 200)
			continue;
		ns[n] = (uint32_t)(now_ns() - start);
		sum += ns[n++];
	}
	if (!n)
		return 2;
	qsort(ns, n, sizeof(*ns), compare);
	printf("{\"n\": %llu, \"mean_us\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f}\n",
	       (unsigned long long)n, sum / (double)n / 1e3, ns[n / 2] / 1e3,
	       ns[n * 99 / 100] / 1e3);
	lio_unload(fn);
	lio_close(file);
	return 0;
}
