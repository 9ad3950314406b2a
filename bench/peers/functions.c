/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shipped function compiled natively, over FILE's first 1 MiB, warm: what the tiers are compared with.
 *
 *     cc FLAGS -I include -DSOURCE='"functions/count.c"' -DENTRY=lambda_fold_count bench/peers/functions.c
 *     functions FILE RECORD [ARGUMENTS-HEX]      RECORD: bytes of a record, 0 for lines
 *
 * As in sbpf bench only the call is timed, and state, heap and output are put back in between.
 * Helpers are libc's; functions that live on others have nothing to compare.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include SOURCE

#define LEN   (1u << 20)
#define OUT   (16u << 20)
#define ROOM  (4u << 20) /* of heap and state */
#define TOTAL 300000000ull

void *lambda_memcpy(void *dst, const void *src, uint64_t n)
{
	return memcpy(dst, src, n);
}

void *lambda_memmove(void *dst, const void *src, uint64_t n)
{
	return memmove(dst, src, n);
}

void *lambda_memset(void *dst, int byte, uint64_t n)
{
	return memset(dst, byte, n);
}

int lambda_memcmp(const void *a, const void *b, uint64_t n)
{
	return memcmp(a, b, n);
}

void *lambda_memchr(const void *p, int byte, uint64_t n)
{
	return memchr(p, byte, n);
}

void *lambda_memmem(const void *hay, uint64_t hay_len, const void *needle, uint64_t needle_len)
{
	return memmem(hay, hay_len, needle, needle_len);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t whole_records(const uint8_t *p, uint64_t len, uint64_t record)
{
	if (record)
		return len / record * record;
	while (len && p[len - 1] != '\n')
		len--;
	return len;
}

int main(int argc, char **argv)
{
	int64_t (*volatile entry)() = (int64_t (*)())ENTRY;
	uint8_t *in = malloc(LEN), *out = malloc(OUT), *heap = calloc(1, ROOM),
		*arg = calloc(1, 65536);
	void *state = aligned_alloc(64, ROOM);
	uint64_t best = UINT64_MAX, spent = 0, arg_len = 0, len;
	int64_t r = 0;
	FILE *f;

	if (argc < 3 || !(f = fopen(argv[1], "rb")) || !in || !out || !heap || !arg || !state ||
	    fread(in, 1, LEN, f) != LEN)
		return 2;
	for (const char *hex = argc > 3 ? argv[3] : ""; hex[0] && hex[1]; hex += 2) {
		char byte[3] = {hex[0], hex[1], '\0'};

		arg[arg_len++] = (uint8_t)strtoul(byte, NULL, 16);
	}
	len = whole_records(in, LEN, strtoull(argv[2], NULL, 10));
	while (spent < TOTAL) {
		struct lambda_ctx ctx = {.in = in,
					 .in_len = len,
					 .out = out,
					 .out_cap = OUT,
					 .arg = arg,
					 .arg_len = arg_len,
					 .heap = heap,
					 .heap_len = ROOM,
					 .flags = LAMBDA_FIRST | LAMBDA_LAST};
		uint64_t start;

		memset(state, 0, 65536 * 8);
		memset(heap, 0, 65536);
		start = now_ns();
		r = entry(&ctx, state);
		start = now_ns() - start;
		best = start < best ? start : best;
		spent += start;
	}
	printf("%.4f %lld\n", (double)best / (double)len, (long long)r);
	return 0;
}
