/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.c - one line on a terminal's stderr while something takes longer than half a second.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lio.h"

#define SHOW_AFTER_NS 500000000u
#define EVERY_NS      100000000u

static struct {
	bool on;
	bool shown; /* a line stands on the terminal */
	uint64_t start, last;
} progress;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void progress_begin(const struct cli *cli)
{
	progress.on = !cli->quiet && isatty(STDERR_FILENO);
	progress.shown = false;
	progress.start = progress.last = now_ns();
}

void progress_update(void *arg, uint64_t done, uint64_t total)
{
	char size[32], of[32], left[48] = "";
	uint64_t now, spent;
	double speed;

	(void)arg;
	if (!progress.on)
		return;
	now = now_ns();
	spent = now - progress.start;
	if (spent < SHOW_AFTER_NS || (progress.shown && now - progress.last < EVERY_NS))
		return;
	progress.last = now;
	progress.shown = true;
	speed = (double)done / (double)spent; /* bytes per ns are GB per s */
	cli_size_text(size, done);
	if (!total) {
		fprintf(stderr, "\r%s  %.2f GB/s\033[K", size, speed);
		return;
	}
	if (done && done <= total)
		snprintf(left, sizeof(left), "  %.0f s left", (double)(total - done) / speed / 1e9);
	fprintf(stderr, "\r%s of %s  %.0f %%  %.2f GB/s%s\033[K", size, cli_size_text(of, total),
		100.0 * (double)done / (double)total, speed, left);
}

void progress_end(void)
{
	if (progress.shown)
		fputs("\r\033[K", stderr);
	progress.on = progress.shown = false;
}
