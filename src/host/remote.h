/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.h - servers: lio:// addresses, connections that a process shares, calls on them, files there.
 *
 *   remote_url.c   lio://HOST[:PORT]/EXPORT/PATH
 *   remote.c       one connection a server and process: found, made, kept, left after a fork
 *   remote_call.c  commands within a time limit: requests that are submitted and fetched, programs
 *   remote_file.c  an open file of a server, as file.c's kinds are
 *   remote_path.c  what is done with a path there; a server's pages
 *
 * Handles and objects are the connection's: each command says which connection it is for, so that one
 * made for a lost connection is never taken for something else on the next.
 */
#ifndef HOST_REMOTE_H
#define HOST_REMOTE_H

#include "host/host.h"
#include "initiator/initiator.h"
#include "nvme/lambda.h"

/* ---- addresses (remote_url.c) ---- */

#define REMOTE_PORT "4420"

struct remote_url {
	char where[300]; /* HOST:PORT or [IPV6]:PORT */
	char *path;      /* malloc'd: "export/dir/file", decoded; "" is the server itself */
};
bool remote_is_url(const char *path);
/* 0, or -EINVAL with text. */
int remote_url_parse(const char *url, struct remote_url *out);
void remote_url_free(struct remote_url *url);
/* The same of "HOST[:PORT]", with or without lio:// in front and a slash behind it. */
int remote_where_parse(const char *text, char *where, size_t size);

/* ---- connections (remote.c) ---- */

struct remote {
	struct remote *next;
	char where[300];
	pid_t owner; /* the process whose sockets and threads they are */
	atomic_uint refs;
	atomic_bool gone; /* its connection is lost for good, or was the parent's of this process */
	atomic_uint handle;
	pthread_mutex_t lock; /* guards what follows while it is made */
	struct nvme_host *_Atomic host;
	uint32_t max_transfer;
	uint64_t abilities_of; /* the connection that they were read on; 0: none */
	struct nvme_lambda_abilities abilities;
};

/* A reference to the connection with @where, made if there is none; or -errno with text. */
int remote_get(const char *where, struct remote **out);
struct remote *remote_ref(struct remote *r);
void remote_put(struct remote *r);
/* Of no use any more: remote_get() makes another. */
bool remote_gone(struct remote *r);

/* ---- calls (remote_call.c) ---- */

#define REMOTE_TRIES 8u /* times that a call may find its connection lost */
#define REMOTE_BUSY \
	30000u /* ms that a call without a time limit of its own waits for a busy server */

/* One thing that a thread does at a server: how long it may take, and on which connection it happens. */
struct remote_call {
	struct remote *r;
	const char *name;     /* for messages */
	uint64_t deadline_ns; /* 0: none */
	const int *cancel;
	uint64_t connection;
	struct nvme_batch batch;
	unsigned int lost; /* times that the connection was lost meanwhile */
	uint64_t busy_ms;  /* waited because the server was busy */
	bool patient;      /* for a busy server: as long as it may take */
};

/* Begin on the connection that is there now, whose abilities are known then. */
int remote_begin(struct remote_call *c);
/* The status of a request that was answered, without DNR and More. */
static inline uint16_t remote_status(const struct nvme_req *req)
{
	return nvme_get16(req->cqe.status) >> 1 & 0x7ff;
}
/* The next request that ended, waiting no longer than the call may; NULL: time is over or it was cancelled. */
struct nvme_req *remote_next(struct remote_call *c);
/* What ended a remote_next() that gave NULL, with text. */
int remote_overdue(struct remote_call *c);
/* Take back all of @n requests that still fly, and wait for whatever flies. */
void remote_drain(struct remote_call *c, struct nvme_req *reqs, unsigned int n);
/* The code, with text, of a request that did not succeed; @what: "reading" */
int remote_failed(struct remote_call *c, const struct nvme_req *req, const char *what);
/* Did that end because the connection was lost, and may the call begin again? */
bool remote_again(struct remote_call *c, int rc);
/* Sleep because the server was busy for the @n-th time; -ETIME or -ECANCELED with text if that is too long. */
int remote_busy(struct remote_call *c, const struct nvme_req *req, unsigned int n);
/* One command, repeated while the server is busy; the request's status is success then. */
int remote_do(struct remote_call *c, struct nvme_req *req, const char *what);
uint32_t remote_handle(struct remote *r);

/* A request on paths, and its answer: bytes in @reply (at most @cap), or -errno with the server's text. */
int64_t remote_path_request(struct remote_call *c, enum nvme_lambda_op op, uint32_t flags,
			    uint32_t mode, const char *path, const char *path2, uint64_t cookie,
			    void *reply, uint32_t cap);
int remote_upload(struct remote_call *c, const struct lio_function *fn);

/* ---- what a submit and its fetches carry ---- */

/*
 * Send @len bytes as the request of @handle.  All parts but the last are waited for; the last flies then, to go out
 * with the fetch that the caller adds.  A BUSY of an earlier part is in @req's status.
 */
int remote_submit(struct remote_call *c, struct nvme_req *req, uint32_t handle, const void *bytes,
		  uint32_t len);
void remote_fetch_init(struct remote_call *c, struct nvme_req *req, uint32_t handle, void *buf,
		       uint32_t len, uint32_t wait_ms);
/* One that was answered, checked: its parts.  -EPROTO with text for what is malformed. */
struct remote_fetched {
	struct nvme_lambda_reply head;
	const uint8_t *output;
	bool end;
	struct nvme_lambda_result result;
	char text[640];
};
int remote_fetched(struct remote_call *c, const struct nvme_req *req, struct remote_fetched *out);

/* ---- open files (remote_file.c) ---- */

struct remote_file {
	struct remote *r;
	char *path; /* "export/dir/file" */
	uint32_t flags;
	uint64_t connection; /* that @object is open on; 0: not open */
	uint32_t object;
	uint64_t inode;
	uint64_t wrote_on; /* the connection of stores that no sync followed; 0: none */
};
int remote_open(const char *url, int flags, mode_t mode, struct lio_file *file);
/*
 * Begin a call on @file: a reference to its server, reached anew if need be, and its object there.
 * remote_file_end() in any case.
 */
int remote_file_begin(struct lio_file *file, struct remote_call *c, uint32_t *object);
void remote_file_end(struct remote_call *c);
/* A run stored into it. */
void remote_file_wrote(struct lio_file *file, uint64_t connection);

#endif /* HOST_REMOTE_H */
