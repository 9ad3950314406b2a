/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_file.c - files of a server, open: read and stored in pieces, several in flight; opened again after the
 * connection was lost.
 *
 * Reads are repeated then, stores are not: what of them was stored is not known.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/remote.h"

#define FLIGHT   8u            /* pieces of one call under way */
#define CLOSE_NS 1000000000ull /* an object is let go at the latest when the connection ends */

/* ---- opening ---- */

static uint32_t path_flags(int flags)
{
	int access = flags & O_ACCMODE;

	return (access != O_WRONLY ? (uint32_t)NVME_PATH_READ : 0) |
	       (access != O_RDONLY ? (uint32_t)NVME_PATH_WRITE : 0) |
	       (flags & O_CREAT ? (uint32_t)NVME_PATH_CREATE : 0) |
	       (flags & O_CREAT && flags & O_EXCL ? (uint32_t)NVME_PATH_EXCLUSIVE : 0) |
	       (flags & O_TRUNC ? (uint32_t)NVME_PATH_TRUNCATE : 0);
}

static int open_object(struct remote_file *rf, struct remote_call *c, uint32_t flags, mode_t mode,
		       uint64_t *inode)
{
	struct nvme_path_opened opened;
	int64_t n = remote_path_request(c, NVME_PATH_OPEN, flags, (uint32_t)mode & 0777u, rf->path,
					NULL, 0, &opened, sizeof(opened));

	if (n < 0)
		return (int)n;
	if (n != sizeof(opened))
		return host_fail(-EPROTO, "%s: its server's answer is too short; upgrade it",
				 c->name);
	rf->object = opened.object;
	rf->connection = c->connection;
	*inode = opened.stat.inode;
	return 0;
}

static int first_open(struct remote_file *rf, struct remote_call *c, mode_t mode)
{
	uint32_t flags = rf->flags;
	bool changes = flags & (NVME_PATH_CREATE | NVME_PATH_TRUNCATE);
	int rc;

	do {
		rc = remote_begin(c);
		if (!rc)
			rc = open_object(rf, c, flags, mode, &rf->inode);
	} while (!(changes && rc == -ECONNRESET) && remote_again(c, rc));
	rf->flags &= NVME_PATH_READ | NVME_PATH_WRITE;
	return rc;
}

int remote_open(const char *url, int flags, mode_t mode, struct lio_file *file)
{
	struct remote_call c = {.name = url};
	struct remote_file *rf;
	struct remote_url u;
	int rc;

	if (flags & (O_SYNC | O_DSYNC | O_PATH | O_DIRECTORY))
		return host_fail(-EINVAL,
				 "%s: files of a server have no O_SYNC, O_DSYNC, O_PATH or "
				 "O_DIRECTORY; leave them out and use lio_sync()",
				 url);
	rc = remote_url_parse(url, &u);
	if (rc)
		return rc;
	if (!*u.path) {
		remote_url_free(&u);
		return host_fail(-EISDIR, "%s: names a server; name a file of an export there",
				 url);
	}
	rf = calloc(1, sizeof(*rf));
	if (!rf) {
		remote_url_free(&u);
		return host_fail(-ENOMEM, "%s: no memory; free some", url);
	}
	rf->path = u.path;
	rf->flags = path_flags(flags);
	rc = remote_get(u.where, &rf->r);
	c.r = rf->r;
	if (!rc)
		rc = first_open(rf, &c, mode);
	if (!rc) {
		file->remote = rf;
		return 0;
	}
	if (rf->r)
		remote_put(rf->r);
	free(rf->path);
	free(rf);
	return rc;
}

/* ---- calls on it ---- */

/* The connection's object was lost with it.  Under the file's lock. */
static int open_again(struct remote_file *rf, struct remote_call *c)
{
	uint64_t inode = 0;
	int rc = open_object(rf, c, rf->flags, 0, &inode);

	if (rc || inode == rf->inode)
		return rc;
	rf->connection = 0;
	return host_fail(-ESTALE,
			 "%s: another file took its place while the connection was lost; open it "
			 "again",
			 c->name);
}

static int reach_again(struct remote_file *rf)
{
	struct remote *fresh;
	int rc = remote_get(rf->r->where, &fresh);

	if (rc)
		return rc;
	remote_put(rf->r);
	rf->r = fresh;
	rf->connection = 0;
	if (rf->wrote_on)
		rf->wrote_on = UINT64_MAX; /* numbers of another server's connections */
	return 0;
}

int remote_file_begin(struct lio_file *file, struct remote_call *c, uint32_t *object)
{
	struct remote_file *rf = file->remote;
	int rc = 0;

	c->name = file->name;
	pthread_mutex_lock(&file->lock);
	if (remote_gone(rf->r))
		rc = reach_again(rf);
	if (!rc && c->r != rf->r) {
		remote_file_end(c);
		c->r = remote_ref(rf->r);
	}
	if (!rc)
		rc = remote_begin(c);
	if (!rc && rf->connection != c->connection)
		rc = open_again(rf, c);
	*object = rf->object;
	pthread_mutex_unlock(&file->lock);
	return rc;
}

void remote_file_end(struct remote_call *c)
{
	if (c->r)
		remote_put(c->r);
	c->r = NULL;
}

void remote_file_wrote(struct lio_file *file, uint64_t connection)
{
	struct remote_file *rf = file->remote;

	pthread_mutex_lock(&file->lock);
	if (!rf->wrote_on)
		rf->wrote_on = connection;
	pthread_mutex_unlock(&file->lock);
}

/* ---- ranges: pieces in flight ---- */

struct range {
	struct remote_call c;
	uint32_t object;
	uint8_t *buf;
	uint64_t offset, len; /* of the whole range */
	uint64_t at;          /* bytes asked for so far */
	uint64_t end;         /* the range ends here: an error or the file's end */
	bool stores;
	struct nvme_req reqs[FLIGHT];
	int rc;
};

static uint64_t piece_at(const struct range *r, const struct nvme_req *req)
{
	return (uint64_t)((const uint8_t *)req->data - r->buf);
}

static void add_piece(struct range *r, struct nvme_req *req, uint64_t at, uint32_t len)
{
	uint64_t offset = r->offset + at;

	*req = (struct nvme_req){
		.sqe = {.opcode = r->stores ? NVME_LAMBDA_OBJECT_WRITE : NVME_LAMBDA_OBJECT_READ,
			.cdw10 = nvme_put32(r->object),
			.cdw11 = nvme_put32(len),
			.cdw12 = nvme_put32((uint32_t)offset),
			.cdw13 = nvme_put32((uint32_t)(offset >> 32))},
		.data = r->buf + at,
		.len = len,
		.to_controller = r->stores,
		.may_be_short = true,
		.queue = -1,
		.connection = r->c.connection,
	};
	nvme_batch_add(&r->c.batch, req);
}

static bool next_piece(struct range *r, struct nvme_req *req)
{
	uint64_t left = r->end - r->at;
	uint32_t most = r->c.r->max_transfer, n = left < most ? (uint32_t)left : most;

	if (r->rc || r->at >= r->end)
		return false;
	add_piece(r, req, r->at, n);
	r->at += n;
	return true;
}

static void piece_done(struct range *r, struct nvme_req *req)
{
	uint64_t at = piece_at(r, req);
	uint32_t n = nvme_get32(req->cqe.dw0);

	if (req->error || remote_status(req)) {
		if (!r->rc || at < r->end)
			r->rc = remote_failed(&r->c, req, r->stores ? "writing" : "reading");
		r->end = at < r->end ? at : r->end;
		return;
	}
	if (n > req->len || (!r->stores && n > req->moved) || (r->stores && !n)) {
		r->rc = host_fail(-EPROTO,
				  "%s: its server says that %u of %u bytes moved; see its "
				  "log",
				  r->c.name, n, req->len);
		r->end = at < r->end ? at : r->end;
	} else if (n < req->len && r->stores) {
		add_piece(r, req, at + n, req->len - n);
		return;
	} else if (n < req->len) {
		r->end = at + n < r->end ? at + n : r->end;
	}
	next_piece(r, req);
}

/* Everything in [0, r->end) has moved when this returns. */
static int range_run(struct range *r)
{
	struct nvme_req *req;

	r->at = 0;
	r->end = r->len;
	r->rc = 0;
	memset(r->reqs, 0, sizeof(r->reqs));
	for (unsigned int i = 0; i < FLIGHT && next_piece(r, &r->reqs[i]); i++)
		;
	while (r->c.batch.flying && (req = remote_next(&r->c)))
		piece_done(r, req);
	if (r->c.batch.flying) {
		remote_drain(&r->c, r->reqs, FLIGHT);
		r->end = 0;
		return remote_overdue(&r->c);
	}
	return r->rc;
}

/* ---- what file.c asks of a kind of file ---- */

static int64_t remote_pread(struct lio_file *file, void *buf, size_t len, uint64_t offset)
{
	struct range r = {.buf = buf, .offset = offset, .len = len};
	int rc;

	if (offset > INT64_MAX - len)
		return host_fail(-EOVERFLOW,
				 "%s: byte %llu lies behind the end of any file; use a "
				 "smaller offset",
				 file->name, (unsigned long long)offset);
	do {
		rc = remote_file_begin(file, &r.c, &r.object);
		if (!rc)
			rc = range_run(&r);
	} while (remote_again(&r.c, rc));
	remote_file_end(&r.c);
	return rc ? rc : (int64_t)r.end;
}

static int remote_pwrite(struct lio_file *file, const void *buf, size_t len, uint64_t offset,
			 uint64_t *done)
{
	struct range r = {
		.buf = (uint8_t *)(uintptr_t)buf, .offset = offset, .len = len, .stores = true};
	int rc;

	if (offset > INT64_MAX - len)
		return host_fail(-EFBIG, "%s: no file is that long; use a smaller offset",
				 file->name);
	do {
		rc = remote_file_begin(file, &r.c, &r.object);
		if (rc)
			continue;
		rc = range_run(&r);
		remote_file_wrote(file, r.c.connection);
		*done += r.end;
		r.buf += r.end;
		r.offset += r.end;
		r.len -= r.end;
	} while (rc == -ENOLINK && remote_again(&r.c, rc));
	remote_file_end(&r.c);
	return rc;
}

/* A command about the whole object; repeated if the connection is lost unless it @changes something. */
static int object_do(struct lio_file *file, enum nvme_object_do what, uint64_t operand,
		     const char *doing, bool changes, uint64_t *value)
{
	struct remote_call c = {.deadline_ns = 0};
	uint32_t object;
	int rc;

	do {
		struct nvme_req req = {
			.sqe = {.opcode = NVME_LAMBDA_OBJECT_DO,
				.cdw11 = nvme_put32(what),
				.cdw12 = nvme_put32((uint32_t)operand),
				.cdw13 = nvme_put32((uint32_t)(operand >> 32))},
		};

		rc = remote_file_begin(file, &c, &object);
		req.sqe.cdw10 = nvme_put32(object);
		if (!rc)
			rc = remote_do(&c, &req, doing);
		if (value)
			*value = nvme_get32(req.cqe.dw0) | (uint64_t)nvme_get32(req.cqe.dw1) << 32;
	} while (!(changes && rc == -ECONNRESET) && remote_again(&c, rc));
	remote_file_end(&c);
	return rc;
}

static int64_t remote_size(struct lio_file *file)
{
	uint64_t size;
	int rc = object_do(file, NVME_OBJECT_SIZE, 0, "asking for its size", false, &size);

	if (rc)
		return rc;
	return size <= INT64_MAX ? (int64_t)size
				 : host_fail(-EPROTO,
					     "%s: its server gives no size that a file "
					     "has; see its log",
					     file->name);
}

static int remote_truncate(struct lio_file *file, uint64_t size)
{
	int rc = object_do(file, NVME_OBJECT_TRUNCATE, size, "changing its size", true, NULL);

	if (!rc)
		remote_file_wrote(file, file->remote->connection);
	return rc;
}

static int remote_sync(struct lio_file *file)
{
	struct remote_file *rf = file->remote;
	uint64_t wrote_on;
	int rc = object_do(file, NVME_OBJECT_SYNC, 0, "flushing to the medium", true, NULL);

	pthread_mutex_lock(&file->lock);
	wrote_on = rf->wrote_on;
	if (!rc && wrote_on && wrote_on != rf->connection)
		rc = host_fail(
			-EIO,
			"%s: the connection was lost after it was written, and the server may "
			"have lost that; write it again",
			file->name);
	rf->wrote_on = 0;
	pthread_mutex_unlock(&file->lock);
	return rc;
}

static int remote_close(struct lio_file *file)
{
	struct remote_file *rf = file->remote;
	struct remote_call c = {
		.r = rf->r, .name = file->name, .deadline_ns = host_now() + CLOSE_NS};
	struct nvme_req req = {
		.sqe = {.opcode = NVME_LAMBDA_OBJECT_DO,
			.cdw10 = nvme_put32(rf->object),
			.cdw11 = nvme_put32(NVME_OBJECT_CLOSE)},
	};

	if (rf->connection && !remote_gone(rf->r) && !nvme_batch_begin(rf->r->host, &c.batch)) {
		c.connection = rf->connection;
		remote_do(&c, &req, "closing"); /* else it goes with the connection */
	}
	remote_put(rf->r);
	free(rf->path);
	free(rf);
	return 0;
}

const struct file_ops file_remote_ops = {
	.explains = true,
	.pread = remote_pread,
	.pwrite = remote_pwrite,
	.size = remote_size,
	.sync = remote_sync,
	.truncate = remote_truncate,
	.close = remote_close,
};
