/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage.c - output that waits until its run has succeeded: in memory, then in a file without a name.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/host.h"

#define REPLAY_BYTES (1u << 20)
_Static_assert(REPLAY_BYTES <= STAGE_MEMORY, "read back into the memory that was there before");

void stage_init(struct stage *st)
{
	st->mem = st->small;
	st->len = 0;
	st->cap = sizeof(st->small);
	st->fd = -1;
	st->spilled = 0;
}

void stage_free(struct stage *st)
{
	if (st->mem != st->small)
		free(st->mem);
	if (st->fd >= 0)
		close(st->fd);
}

static const char *stage_dir(void)
{
	const char *dir = secure_getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

static int spill_fail(struct lambda_error *err, int error)
{
	if (error == ENOSPC || error == EDQUOT)
		return lambda_fail(
			err, -error,
			"staging the output in %s: disk full; free space there, or set TMPDIR "
			"to a larger file system",
			stage_dir());
	if (error == EFBIG)
		return lambda_fail(
			err, -error,
			"staging the output in %s: over the file size limit; raise \"ulimit -f\"",
			stage_dir());
	return lambda_fail(
		err, -error,
		"staging the output in %s: %s; set TMPDIR to a directory that can be written",
		stage_dir(), strerror(error));
}

static int spill_open(struct stage *st, struct lambda_error *err)
{
	char path[PATH_MAX];

	st->fd = open(stage_dir(), O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (st->fd >= 0)
		return 0;
	/* Some file systems have no unnamed files. */
	if (snprintf(path, sizeof(path), "%s/lambdaio.XXXXXX", stage_dir()) >= (int)sizeof(path))
		return spill_fail(err, ENAMETOOLONG);
	st->fd = mkostemp(path, O_CLOEXEC);
	if (st->fd < 0)
		return spill_fail(err, errno);
	unlink(path);
	return 0;
}

static int spill(struct stage *st, const uint8_t *p, size_t len, struct lambda_error *err)
{
	struct file_limit lim;
	int rc = 0;

	if (st->fd < 0)
		rc = spill_open(st, err);
	if (rc)
		return rc;
	file_limit_enter(&lim);
	while (len && !rc) {
		ssize_t n = pwrite(st->fd, p, len, (off_t)st->spilled);

		if (n < 0 && errno != EINTR)
			rc = spill_fail(err, errno);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			st->spilled += (size_t)n;
		}
	}
	file_limit_leave(&lim);
	return rc;
}

static int grow(struct stage *st, size_t need, struct lambda_error *err)
{
	size_t cap = st->cap;
	uint8_t *mem;

	while (cap < need)
		cap *= 2;
	mem = realloc(st->mem == st->small ? NULL : st->mem, cap);
	if (!mem)
		return lambda_fail(err, -ENOMEM,
				   "staging the output: no memory for %zu bytes; free some", cap);
	if (st->mem == st->small)
		memcpy(mem, st->small, st->len);
	st->mem = mem;
	st->cap = cap;
	return 0;
}

int stage_write(struct stage *st, const void *p, size_t len, struct lambda_error *err)
{
	size_t room = STAGE_MEMORY - st->len, head = len < room ? len : room;
	int rc = 0;

	if (st->len + head > st->cap)
		rc = grow(st, st->len + head, err);
	if (rc)
		return rc;
	memcpy(st->mem + st->len, p, head);
	st->len += head;
	return head < len ? spill(st, (const uint8_t *)p + head, len - head, err) : 0;
}

int stage_replay(struct stage *st, int (*take)(void *arg, const void *p, size_t len), void *arg,
		 struct lambda_error *err)
{
	int rc = st->len ? take(arg, st->mem, st->len) : 0;

	/* What was in memory has been taken: its place holds the rest, piece by piece. */
	for (uint64_t at = 0; !rc && at < st->spilled;) {
		ssize_t n = pread(st->fd, st->mem, REPLAY_BYTES, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return spill_fail(err, n ? errno : EIO);
		rc = take(arg, st->mem, (size_t)n);
		at += (size_t)n;
	}
	return rc;
}
