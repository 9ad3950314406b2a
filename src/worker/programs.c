/* SPDX-License-Identifier: Apache-2.0 */
/*
 * programs.c - the programs that this worker has loaded and compiled, in slots that the controller names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker.h"

static struct lambda_function *loaded[WORKER_PROGRAMS];

static int read_all(int fd, uint8_t *p, uint64_t len)
{
	for (uint64_t at = 0; at < len;) {
		ssize_t n = pread(fd, p + at, len - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		at += (uint64_t)n;
	}
	return 0;
}

int worker_program_load(uint32_t slot, int fd, uint64_t bytes, struct lambda_error *err)
{
	uint8_t *image = malloc(bytes ? bytes : 1);
	int rc = image ? read_all(fd, image, bytes) : -ENOMEM;

	lambda_function_free(loaded[slot]);
	loaded[slot] = NULL;
	if (rc)
		lambda_fail(err, rc, "program: its %llu bytes cannot be read: %s; send it again",
			    (unsigned long long)bytes, strerrordesc_np(-rc));
	else
		rc = lambda_function_load(image, bytes, &loaded[slot], err);
	free(image);
	return rc;
}

const struct lambda_function *worker_program(uint32_t slot)
{
	return loaded[slot];
}
