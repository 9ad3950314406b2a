/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats64 FILE THREADS: what one would write by hand instead of the λ-function of that name: threads
 * that pread 1 MiB pieces into a buffer and take max, min and sum of its i64.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE (1u << 20)

struct worker {
	pthread_t thread;
	int64_t max, min;
	uint64_t sum;
};

static atomic_uint_fast64_t next;
static int fd;

static void absorb(struct worker *w, const int64_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		w->sum += (uint64_t)v[i];
		if (v[i] > w->max)
			w->max = v[i];
		if (v[i] < w->min)
			w->min = v[i];
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	int64_t *buf = aligned_alloc(4096, PIECE);
	ssize_t got;

	if (!buf)
		exit(2);
	for (;;) {
		got = pread(fd, buf, PIECE, (off_t)(atomic_fetch_add(&next, 1) * PIECE));
		if (got <= 0)
			break;
		absorb(w, buf, (size_t)got / 8);
	}
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	int n = argc == 3 ? atoi(argv[2]) : 0;
	struct worker w[64];
	int64_t max = INT64_MIN, min = INT64_MAX;
	uint64_t sum = 0;

	if (n < 1 || n > 64 || (fd = open(argv[1], O_RDONLY)) < 0)
		return 2;
	for (int i = 0; i < n; i++) {
		w[i] = (struct worker){.max = INT64_MIN, .min = INT64_MAX};
		if (pthread_create(&w[i].thread, NULL, work, &w[i]))
			return 2;
	}
	for (int i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		max = w[i].max > max ? w[i].max : max;
		min = w[i].min < min ? w[i].min : min;
		sum += w[i].sum;
	}
	printf("%" PRId64 "\t%" PRId64 "\t%" PRId64 "\n", max, min, (int64_t)sum);
	return 0;
}
