/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_store.c - what a λ-write leaves: output is staged first, and stored when the function succeeded.
 *
 * Staged in memory, and from STAGE_MEMORY bytes on in a file without a name.  Onto extents it goes through the
 * namespace's store in whole blocks: what belongs to others in a block is read and written back, so one λ-write at a
 * time stores onto a namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/lambda_private.h"

#define STAGE_MEMORY (16u << 20)
#define PIECE        (1u << 20)

struct lambda_storing { /* a λ-write onto extents: it stores, or waits until another has */
	const struct ctrl_namespace *ns;
	bool stores;
	struct ctrl_io io; /* tells the one that waits */
	struct lambda_storing *next;
};

struct lambda_stage {
	struct lambda_run *run;
	uint8_t *mem;
	size_t cap;
	uint64_t len;
	int fd;
	bool busy; /* a thread of the pool moves what is in @iov */
	struct ctrl_io io;
	struct iovec iov[2];
	size_t moving;
	/* storing */
	struct lambda_storing storing;
	uint8_t *buf;
	uint64_t done; /* bytes that are stored */
	uint32_t seg;  /* and where: extent, offset in it */
	uint64_t seg_at;
	uint64_t low, high; /* the blocks of this piece */
	uint32_t head, want;
	bool head_read;
};

static struct lambda_stage *stage_of(struct ctrl_io *io)
{
	return (struct lambda_stage *)((char *)io - offsetof(struct lambda_stage, io));
}

static struct lambda_stage *stage_new(struct lambda_run *run)
{
	struct lambda_stage *st = calloc(1, sizeof(*st));

	if (!st)
		return NULL;
	st->fd = -1;
	st->run = run;
	run->stage = st;
	return st;
}

void stage_free(struct lambda_run *run)
{
	struct lambda_stage *st = run->stage;

	if (!st)
		return;
	if (st->fd >= 0)
		close(st->fd);
	free(st->mem);
	free(st->buf);
	free(st);
	run->stage = NULL;
}

/* ---- staging ---- */

static int open_file(void)
{
	const char *dirs[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
	int fd = -1;

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && fd < 0; i++) {
		if (dirs[i] && *dirs[i])
			fd = open(dirs[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	}
	return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const uint8_t *p, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

/* On the pool: memory first, if the file is new, then what came. */
static int spill(struct ctrl_io *io)
{
	struct lambda_stage *st = stage_of(io);
	uint64_t at = st->len;
	int rc = 0;

	if (st->fd < 0) {
		st->fd = open_file();
		if (st->fd < 0)
			return st->fd;
		rc = write_all(st->fd, st->mem, st->len, 0);
	}
	for (int i = 0; i < 2 && !rc; i++) {
		rc = write_all(st->fd, st->iov[i].iov_base, st->iov[i].iov_len, at);
		at += st->iov[i].iov_len;
	}
	return rc;
}

static void spilled(struct ctrl_io *io, int error)
{
	struct lambda_stage *st = stage_of(io);
	struct lambda_run *run = st->run;

	st->busy = false;
	run->pending--;
	free(st->mem);
	st->mem = NULL;
	st->cap = 0;
	if (error) {
		run_fail(run, error,
			 "output: cannot be kept until it is stored: %s; nothing was written; make "
			 "room where the server keeps temporary files",
			 strerror(-error));
		ctrl_job_cancel(&run->job);
	}
	st->len += st->moving;
	ctrl_job_consume(&run->job, st->moving);
	run_ready(run);
}

static bool in_memory(struct lambda_stage *st, size_t n)
{
	size_t cap = st->cap ? st->cap : 4096;
	uint8_t *mem;

	if (st->fd >= 0 || st->len + n > STAGE_MEMORY)
		return false;
	while (cap < st->len + n)
		cap *= 2;
	if (cap == st->cap)
		return true;
	mem = realloc(st->mem, cap);
	if (!mem)
		return false;
	st->mem = mem;
	st->cap = cap;
	return true;
}

static bool too_much(struct lambda_run *run, uint64_t bytes)
{
	if (run->parsed.head.sink != NVME_LAMBDA_TO_EXTENTS || bytes <= run->parsed.to.bytes)
		return false;
	run_fail(run, -ENOSPC,
		 "output: more than the %" PRIu64
		 " bytes that the extents hold; nothing was written; give it more room",
		 run->parsed.to.bytes);
	ctrl_job_cancel(&run->job);
	return true;
}

bool stage_take(struct lambda_run *run)
{
	struct lambda_stage *st = run->stage ? run->stage : stage_new(run);

	if (!st) {
		run_fail(run, -ENOMEM,
			 "output: no memory to keep it; nothing was written; try again");
		ctrl_job_cancel(&run->job);
		return true;
	}
	if (st->busy)
		return false;
	for (;;) {
		size_t n = run->forgotten ? 0 : ctrl_job_output(&run->job, st->iov);

		if (!n)
			return true;
		if (run->result.error || too_much(run, st->len + n)) {
			ctrl_job_consume(&run->job, n); /* it ends anyway */
		} else if (in_memory(st, n)) {
			memcpy(st->mem + st->len, st->iov[0].iov_base, st->iov[0].iov_len);
			if (st->iov[1].iov_len)
				memcpy(st->mem + st->len + st->iov[0].iov_len, st->iov[1].iov_base,
				       st->iov[1].iov_len);
			st->len += n;
			ctrl_job_consume(&run->job, n);
		} else {
			st->busy = true;
			st->moving = n;
			run->pending++;
			st->io = (struct ctrl_io){.loop = run->loop, .done = spilled};
			ctrl_pool_submit(&st->io, spill);
			return false;
		}
	}
}

/* ---- storing: pieces, one after the other ---- */

static int read_stage(struct lambda_stage *st, uint8_t *to, uint32_t len)
{
	uint64_t at = st->done;

	if (st->fd < 0) {
		memcpy(to, st->mem + at, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(st->fd, to, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		to += n;
		at += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}

static void next_piece(struct lambda_stage *st);

static void storing_over(struct lambda_stage *st)
{
	struct ctrl_lambda_server *ls = st->run->lam->ls;
	struct lambda_storing **at, *other;

	if (st->storing.ns) {
		pthread_mutex_lock(&ls->lock);
		for (at = &ls->storing; *at != &st->storing; at = &(*at)->next)
			;
		*at = st->storing.next;
		for (other = *at; other && other->ns != st->storing.ns; other = other->next)
			;
		if (other && !other->stores) {
			other->stores = true;
			ctrl_loop_return(&other->io, 0);
		}
		pthread_mutex_unlock(&ls->lock);
		st->storing.ns = NULL;
	}
	st->run->result.bytes_written = st->done;
	run_stored(st->run);
}

static void store_failed(struct lambda_stage *st, int error)
{
	struct lambda_run *run = st->run;

	if (run->to_ns)
		run_fail(run, error,
			 "namespace %" PRIu32 ": cannot write byte %" PRIu64
			 " of the output: %s; what was in front of it is written",
			 run->to_ns->nsid, st->done, strerror(-error));
	else
		run_fail(run, error,
			 "%s: cannot write byte %" PRIu64
			 " of the output: %s; what was in front of it is written",
			 ctrl_object_name(run->to), st->done, strerror(-error));
	storing_over(st);
}

static bool stop_storing(struct lambda_stage *st)
{
	if (st->run->canceled)
		run_fail(st->run, -ECANCELED, "run: canceled by the host");
	return st->run->canceled || st->done == st->len;
}

/* ---- onto an object ---- */

static int object_piece(struct ctrl_io *io)
{
	struct lambda_stage *st = stage_of(io);
	struct lambda_run *run = st->run;
	int rc = read_stage(st, st->buf, st->want);
	uint64_t done = 0;

	if (!rc)
		rc = ctrl_object_write(run->to, st->buf, st->want, run->parsed.to_at + st->done,
				       &done);
	st->done += done;
	return rc;
}

static void object_next(struct lambda_stage *st);

static void object_done(struct ctrl_io *io, int error)
{
	struct lambda_stage *st = stage_of(io);

	if (error)
		store_failed(st, error);
	else
		object_next(st);
}

static void object_next(struct lambda_stage *st)
{
	if (stop_storing(st)) {
		storing_over(st);
		return;
	}
	st->want = st->len - st->done < PIECE ? (uint32_t)(st->len - st->done) : PIECE;
	st->io = (struct ctrl_io){.loop = st->run->loop, .done = object_done};
	ctrl_object_submit(st->run->to, &st->io, object_piece);
}

/* ---- onto extents ---- */

static void submit(struct lambda_stage *st, enum ctrl_io_op op, uint64_t at, uint8_t *p,
		   uint64_t len, void (*done)(struct ctrl_io *io, int error))
{
	struct ctrl_store *store = st->run->to_ns->store;

	st->io = (struct ctrl_io){
		.op = op,
		.fua = op == CTRL_IO_WRITE && st->run->durable,
		.offset = at,
		.len = len,
		.iov = {p, len},
		.loop = st->run->loop,
		.done = done,
	};
	store->ops->submit(store, &st->io);
}

static void piece_written(struct ctrl_io *io, int error)
{
	struct lambda_stage *st = stage_of(io);
	const struct ctrl_segment *seg = &st->run->parsed.to.seg[st->seg];

	if (error) {
		store_failed(st, error);
		return;
	}
	st->done += st->want;
	st->seg_at += st->want;
	if (st->seg_at == seg->length) {
		st->seg++;
		st->seg_at = 0;
	}
	next_piece(st);
}

static void piece_filled(struct ctrl_io *io, int error)
{
	struct lambda_stage *st = stage_of(io);

	if (error)
		store_failed(st, error);
	else
		submit(st, CTRL_IO_WRITE, st->low, st->buf, st->high - st->low, piece_written);
}

static int fill(struct ctrl_io *io)
{
	struct lambda_stage *st = stage_of(io);

	return read_stage(st, st->buf + st->head, st->want);
}

static void edges_read(struct ctrl_io *io, int error)
{
	struct lambda_stage *st = stage_of(io);
	const uint32_t block = st->run->to_ns->store->geo.block;
	const uint64_t end = st->low + st->head + st->want;

	if (error) {
		store_failed(st, error);
		return;
	}
	/* The last block, if others have a part of it and it is not the first one again. */
	if (st->head_read && end % block && st->high - st->low > block) {
		st->head_read = false;
		submit(st, CTRL_IO_READ, st->high - block, st->buf + (st->high - st->low - block),
		       block, edges_read);
		return;
	}
	if (st->fd < 0) {
		read_stage(st, st->buf + st->head, st->want);
		submit(st, CTRL_IO_WRITE, st->low, st->buf, st->high - st->low, piece_written);
		return;
	}
	st->io = (struct ctrl_io){.loop = st->run->loop, .done = piece_filled};
	ctrl_pool_submit(&st->io, fill);
}

static void next_piece(struct lambda_stage *st)
{
	const struct lambda_run *run = st->run;
	const uint32_t block = run->to_ns->store->geo.block;
	const struct ctrl_segment *seg = &run->parsed.to.seg[st->seg];
	uint64_t at, left;

	if (stop_storing(st)) {
		storing_over(st);
		return;
	}
	at = seg->at + st->seg_at;
	left = seg->length - st->seg_at;
	if (left > st->len - st->done)
		left = st->len - st->done;
	st->head = (uint32_t)(at % block);
	st->want = left < PIECE - st->head ? (uint32_t)left : PIECE - st->head;
	st->low = at - st->head;
	st->high = (at + st->want + block - 1) / block * block;
	st->head_read = true;
	if (st->head || (st->want % block && st->high - st->low == block))
		submit(st, CTRL_IO_READ, st->low, st->buf, block, edges_read);
	else
		edges_read(&st->io, 0);
}

static void turn_to_store(struct ctrl_io *io, int error)
{
	struct lambda_storing *w =
		(struct lambda_storing *)((char *)io - offsetof(struct lambda_storing, io));

	next_piece((struct lambda_stage *)((char *)w - offsetof(struct lambda_stage, storing)));
}

/* One at a time on a namespace, in the order of their coming. */
static void extents_start(struct lambda_stage *st)
{
	struct ctrl_lambda_server *ls = st->run->lam->ls;
	struct lambda_storing *w = &st->storing, **at;
	bool now = true;

	w->ns = st->run->to_ns;
	w->io = (struct ctrl_io){.loop = st->run->loop, .done = turn_to_store};
	pthread_mutex_lock(&ls->lock);
	for (at = &ls->storing; *at; at = &(*at)->next)
		now &= (*at)->ns != w->ns;
	w->next = NULL;
	w->stores = now;
	*at = w;
	if (!now)
		ctrl_loop_sent(st->run->loop);
	pthread_mutex_unlock(&ls->lock);
	if (now)
		next_piece(st);
}

void stage_store(struct lambda_run *run)
{
	struct lambda_stage *st = run->stage ? run->stage : stage_new(run);

	if (st && st->len)
		st->buf = aligned_alloc(4096, PIECE + 4096);
	if (!st || (st->len && !st->buf)) {
		run_fail(run, -ENOMEM,
			 "output: no memory to store it; nothing was written; try again");
		run_stored(run);
	} else if (!st->len) {
		run_stored(run);
	} else if (run->to) {
		object_next(st);
	} else {
		extents_start(st);
	}
}
