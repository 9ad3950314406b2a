/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_path.c - what is done with a path of a server; a server's information pages.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/remote.h"

#define LIST_BYTES (256u << 10) /* the most that a server answers at once */
#define PAGE_MAX   (16u << 20)

_Static_assert(LIO_TYPE_FILE == (int)NVME_PATH_FILE &&
		       LIO_TYPE_DIRECTORY == (int)NVME_PATH_DIRECTORY &&
		       LIO_TYPE_SYMLINK == (int)NVME_PATH_SYMLINK &&
		       LIO_TYPE_OTHER == (int)NVME_PATH_OTHER,
	       "types are numbered alike");

struct path_call {
	struct remote_call c;
	struct remote_url url;
};

static int begin(struct path_call *p, const char *url)
{
	int rc;

	*p = (struct path_call){.c.name = url};
	if (!url || !remote_is_url(url))
		return host_fail(-EINVAL,
				 "%s: is no path of a server; write lio://HOST/EXPORT/PATH",
				 url ? url : "path");
	rc = remote_url_parse(url, &p->url);
	if (!rc)
		rc = remote_get(p->url.where, &p->c.r);
	return rc;
}

static void end(struct path_call *p)
{
	if (p->c.r)
		remote_put(p->c.r);
	remote_url_free(&p->url);
}

/* Bytes of the answer; what may have @changes something is not repeated after a lost connection. */
static int64_t ask(struct path_call *p, enum nvme_lambda_op op, bool changes, uint32_t mode,
		   const char *path2, uint64_t cookie, void *reply, uint32_t cap)
{
	int64_t n;

	do {
		n = remote_begin(&p->c);
		if (!n)
			n = remote_path_request(&p->c, op, 0, mode, p->url.path, path2, cookie,
						reply, cap);
	} while (n < 0 && !(changes && n == -ECONNRESET) && remote_again(&p->c, (int)n));
	return n;
}

/* ---- what is there ---- */

static void stat_fill(struct lio_stat *out, const struct nvme_path_stat *st)
{
	struct lio_stat full = {
		.size = out->size,
		.type = (enum lio_type)st->type,
		.bytes = st->size,
		.inode = st->inode,
		.mtime = st->mtime,
		.ctime = st->ctime,
		.mtime_ns = st->mtime_ns,
		.ctime_ns = st->ctime_ns,
		.mode = st->mode,
		.links = st->links,
		.uid = st->uid,
		.gid = st->gid,
		.writable = st->writable,
	};
	size_t size = out->size;

	memcpy(out, &full, size < sizeof(full) ? size : sizeof(full));
	if (size > sizeof(full))
		memset((uint8_t *)out + sizeof(full), 0, size - sizeof(full));
}

int lio_stat(const char *url, struct lio_stat *out)
{
	struct nvme_path_stat st = {.type = NVME_PATH_DIRECTORY, .mode = 0555};
	struct path_call p;
	int64_t n;
	int rc;

	if (out->size < sizeof(out->size))
		return host_fail(-EINVAL, "lio_stat: size is not set; set it to sizeof(struct "
					  "lio_stat)");
	rc = begin(&p, url);
	if (!rc && *p.url.path) { /* else the server itself: a directory of exports */
		n = ask(&p, NVME_PATH_STAT, false, 0, NULL, 0, &st, sizeof(st));
		rc = n == sizeof(st) ? 0
		     : n < 0         ? (int)n
				     : host_fail(-EPROTO,
						 "%s: its server's answer is too short; upgrade it", url);
	} else if (!rc) {
		rc = remote_begin(&p.c);
	}
	if (!rc)
		stat_fill(out, &st);
	end(&p);
	return rc;
}

static int malformed(const char *url)
{
	return host_fail(-EPROTO,
			 "%s: its server sent a malformed list; upgrade it, or see its log", url);
}

/* The entries of one answer; *cookie becomes the last one's. */
static int take_entries(const char *url, const uint8_t *p, size_t len, uint64_t *cookie,
			int (*entry)(void *arg, const struct lio_entry *e), void *arg)
{
	while (len) {
		struct nvme_path_entry e;
		char name[256];
		size_t whole;
		int rc;

		if (len < sizeof(e))
			return malformed(url);
		memcpy(&e, p, sizeof(e));
		whole = (sizeof(e) + e.name_len + 7u) & ~(size_t)7;
		if (!e.name_len || e.name_len >= sizeof(name) || sizeof(e) + e.name_len > len)
			return malformed(url);
		memcpy(name, p + sizeof(e), e.name_len);
		name[e.name_len] = 0;
		/* It is to become a part of a path: a hostile server gets no way out of a directory by it. */
		if (strlen(name) != e.name_len || strchr(name, '/') || !strcmp(name, ".") ||
		    !strcmp(name, ".."))
			return malformed(url);
		rc = entry(arg, &(struct lio_entry){.size = sizeof(struct lio_entry),
						    .name = name,
						    .type = (enum lio_type)e.type,
						    .bytes = e.size,
						    .mtime = e.mtime});
		if (rc)
			return rc;
		*cookie = e.cookie;
		p += whole < len ? whole : len;
		len -= whole < len ? whole : len;
	}
	return 0;
}

int lio_list(const char *url, int (*entry)(void *arg, const struct lio_entry *e), void *arg)
{
	uint64_t cookie = 0, before;
	struct path_call p;
	int64_t n = 0;
	uint8_t *buf = NULL;
	int rc = begin(&p, url);

	if (!rc) {
		buf = malloc(LIST_BYTES);
		rc = buf ? 0 : host_fail(-ENOMEM, "%s: no memory; free some", url);
	}
	while (!rc) {
		n = ask(&p, NVME_PATH_LIST, false, 0, NULL, cookie, buf, LIST_BYTES);
		if (n <= 0)
			break;
		before = cookie;
		rc = take_entries(url, buf, (size_t)n, &cookie, entry, arg);
		if (!rc && cookie == before)
			rc = malformed(url); /* it would never end */
	}
	free(buf);
	end(&p);
	return rc ? rc : n < 0 ? (int)n : 0;
}

/* ---- changing it ---- */

static int change(const char *url, enum nvme_lambda_op op, mode_t mode)
{
	struct path_call p;
	int64_t n;
	int rc = begin(&p, url);

	if (!rc && !*p.url.path)
		rc = host_fail(-EINVAL, "%s: names a server; name a path of an export there", url);
	if (!rc) {
		n = ask(&p, op, true, (uint32_t)mode & 0777u, NULL, 0, NULL, 0);
		rc = n < 0 ? (int)n : 0;
	}
	end(&p);
	return rc;
}

int lio_remove(const char *url)
{
	return change(url, NVME_PATH_REMOVE, 0);
}

int lio_mkdir(const char *url, mode_t mode)
{
	return change(url, NVME_PATH_MKDIR, mode);
}

int lio_rename(const char *from, const char *to)
{
	struct remote_url other = {.path = NULL};
	struct path_call p;
	int64_t n;
	int rc = begin(&p, from);

	if (!rc && !remote_is_url(to))
		rc = host_fail(-EINVAL, "%s: is no path of a server; write lio://HOST/EXPORT/PATH",
			       to);
	if (!rc)
		rc = remote_url_parse(to, &other);
	if (!rc && strcmp(other.where, p.url.where))
		rc = host_fail(-EXDEV, "%s: is on another server than %s; copy it there instead",
			       to, from);
	if (!rc && (!*p.url.path || !*other.path))
		rc = host_fail(-EINVAL, "%s: names a server; name a path of an export there",
			       *p.url.path ? to : from);
	if (!rc) {
		n = ask(&p, NVME_PATH_RENAME, true, 0, other.path, 0, NULL, 0);
		rc = n < 0 ? (int)n : 0;
	}
	remote_url_free(&other);
	end(&p);
	return rc;
}

/* ---- the server ---- */

static int reach(const char *where, struct remote_call *c, char name[300])
{
	int rc = remote_where_parse(where, name, 300);

	*c = (struct remote_call){.name = where};
	if (!rc)
		rc = remote_get(name, &c->r);
	return rc;
}

static int page_piece(struct remote_call *c, unsigned page, uint64_t offset, uint8_t *buf,
		      uint32_t *len)
{
	struct nvme_req req = {
		.sqe = {.opcode = NVME_LAMBDA_INFO,
			.cdw10 = nvme_put32(page),
			.cdw11 = nvme_put32(*len),
			.cdw12 = nvme_put32((uint32_t)offset),
			.cdw13 = nvme_put32((uint32_t)(offset >> 32))},
		.data = buf,
		.len = *len,
		.may_be_short = true,
	};
	int rc = remote_do(c, &req, "asking for a page");

	*len = req.moved;
	return rc;
}

static int64_t page_read(struct remote_call *c, unsigned page, uint8_t **out)
{
	uint32_t step = LIST_BYTES < c->r->max_transfer ? LIST_BYTES : c->r->max_transfer, n;
	uint64_t len = 0;

	free(*out);
	for (*out = NULL;; len += n) {
		uint8_t *more = len < PAGE_MAX ? realloc(*out, len + step + 1) : NULL;
		int rc;

		if (!more)
			return host_fail(-ENOMEM, "%s: no memory for the page; free some", c->name);
		*out = more;
		n = step;
		rc = page_piece(c, page, len, more + len, &n);
		if (rc)
			return rc;
		more[len + n] = 0; /* of a text */
		if (n < step)
			return (int64_t)(len + n);
	}
}

int64_t lio_server_page(const char *where, unsigned page, void **out)
{
	struct remote_call c;
	uint8_t *buf = NULL;
	char name[300];
	int64_t n = reach(where, &c, name);

	*out = NULL;
	if (!n)
		do {
			n = remote_begin(&c);
			if (!n)
				n = page_read(&c, page, &buf);
		} while (n < 0 && remote_again(&c, (int)n));
	if (c.r)
		remote_put(c.r);
	if (n < 0)
		free(buf);
	else
		*out = buf;
	return n;
}

int lio_server_load(const char *where, const struct lio_function *fn)
{
	struct remote_call c;
	char name[300];
	int rc = reach(where, &c, name);

	if (!rc)
		do {
			rc = remote_begin(&c);
			if (!rc)
				rc = remote_upload(&c, fn);
		} while (remote_again(&c, rc));
	if (c.r)
		remote_put(c.r);
	return rc;
}
