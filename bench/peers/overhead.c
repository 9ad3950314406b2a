/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overhead FILE FUNCTION: what a λ-read of 4 KiB costs beside a pread of the same bytes, ns a call.
 * Both walk the file's first 4 MiB, so the bytes are warm and no two calls in a row are the same.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <lambdaio/lambdaio.h>

#include "../kernels/timing.h"

#define CALLS 20000
#define BLOCK 4096

static uint64_t samples[CALLS];

int main(int argc, char **argv)
{
	struct lio_file *file;
	struct lio_function *fn;
	char buf[BLOCK];
	int64_t got = 0;
	int fd;

	if (argc != 3 || (fd = open(argv[1], O_RDONLY)) < 0)
		return 2;
	if (lio_open(argv[1], O_RDONLY, 0, &file) || lio_load(argv[2], &fn)) {
		fprintf(stderr, "%s\n", lio_error());
		return 2;
	}
	for (int i = 0; i < CALLS; i++) {
		uint64_t t = bench_now();

		got = pread(fd, buf, BLOCK, (off_t)(i % 1024) * BLOCK);
		samples[i] = bench_now() - t;
	}
	bench_report("pread", samples, CALLS, 1, (uint64_t)got);
	for (int i = 0; i < CALLS; i++) {
		uint64_t t = bench_now();

		got = lio_lambda_read(file, fn, (uint64_t)(i % 1024) * BLOCK, BLOCK, NULL, buf,
				      sizeof(buf), NULL);
		samples[i] = bench_now() - t;
		if (got < 0) {
			fprintf(stderr, "%s\n", lio_error());
			return 2;
		}
	}
	bench_report("lambda-read", samples, CALLS, 1, (uint64_t)got);
	lio_unload(fn);
	lio_close(file);
	close(fd);
	return 0;
}
