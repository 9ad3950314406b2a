/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_call.c - commands to a server: within a time limit, through a busy server, on one connection; requests that
 * are submitted and fetched; programs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/remote.h"

#define LOOK_MS 50 /* how soon a cancel is noticed */
#define GRACE_MS \
	1000 /* a server that should give a command up gets so long before the connection is closed */
#define BACKOFF_MAX_MS 1000u
#define FETCH_MIN      4096u /* servers refuse small buffers */
/* Behind the output of a fetch: padding, the result and its text. */
#define TAIL_MAX (8u + sizeof(struct nvme_lambda_result) + 640u)

/* ---- waiting ---- */

static bool cancelled(const struct remote_call *c)
{
	return c->cancel && __atomic_load_n(c->cancel, __ATOMIC_RELAXED);
}

/* Milliseconds that a wait may take before the call looks around; 0: it is over; -1: no limit. */
static int slice(const struct remote_call *c)
{
	uint64_t now, ms;

	if (cancelled(c))
		return 0;
	if (!c->deadline_ns)
		return c->cancel ? LOOK_MS : -1;
	now = host_now();
	if (now >= c->deadline_ns)
		return 0;
	ms = (c->deadline_ns - now) / 1000000 + 1;
	if (c->cancel && ms > LOOK_MS)
		return LOOK_MS;
	return ms < INT32_MAX ? (int)ms : INT32_MAX;
}

struct nvme_req *remote_next(struct remote_call *c)
{
	for (;;) {
		int ms = slice(c);
		struct nvme_req *req = ms ? nvme_batch_next(&c->batch, ms) : NULL;

		if (req || !ms)
			return req;
	}
}

int remote_overdue(struct remote_call *c)
{
	if (cancelled(c))
		return host_fail(-ECANCELED,
				 "%s: cancelled while waiting for the server; run it again",
				 c->name);
	return host_fail(-ETIME,
			 "%s: its server did not answer within the time limit; allow more time, or "
			 "see what it does",
			 c->name);
}

void remote_drain(struct remote_call *c, struct nvme_req *reqs, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		nvme_batch_cancel(&c->batch, &reqs[i], GRACE_MS);
	while (nvme_batch_next(&c->batch, -1))
		;
}

int remote_busy(struct remote_call *c, const struct nvme_req *req, unsigned int n)
{
	uint32_t hint = nvme_get32(req->cqe.dw0), ms = 1u << (n < 9 ? n : 9);
	uint64_t until;

	/* What the server asks for, but longer and longer, and not all hosts at once. */
	ms = ms < hint ? hint : ms;
	ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
	ms += (uint32_t)(host_now() / 1000 % (ms / 2 + 1));
	c->busy_ms += ms;
	if (!c->patient && !c->deadline_ns && c->busy_ms > REMOTE_BUSY)
		return host_fail(-EBUSY, "%s: its server has been busy for %u s; try again later",
				 c->name, REMOTE_BUSY / 1000);
	for (until = host_now() + ms * 1000000ull;;) {
		uint64_t now = host_now(), left = now < until ? until - now : 0;
		int most = slice(c);

		if (!left)
			return 0;
		if (!most)
			break;
		if (most > 0 && left > (uint64_t)most * 1000000)
			left = (uint64_t)most * 1000000;
		nanosleep(
			&(struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)},
			NULL);
	}
	if (cancelled(c))
		return remote_overdue(c);
	return host_fail(-ETIME,
			 "%s: its server was busy until the time limit; allow more time, or try "
			 "again later",
			 c->name);
}

/* ---- what went wrong ---- */

static const struct {
	uint16_t status;
	int code;
	const char *why_fix;
} statuses[] = {
	{NVME_SC_INVALID_OPCODE, -EOPNOTSUPP,
	 "its server has no λ commands; serve it with liod of this version or later"},
	{NVME_SC_LAMBDA_TOO_BIG, -E2BIG,
	 "above a limit of its server; see \"lio device stats\" for them"},
	{NVME_SC_LAMBDA_BUSY, -EBUSY, "its server is busy; try again later"},
	{NVME_SC_LAMBDA_NO_HANDLE, -EIO, "its server forgot the run; run it again"},
	{NVME_SC_LAMBDA_NO_OBJECT, -EBADF, "its server does not know it any more; open it again"},
	{NVME_SC_LAMBDA_VERSION, -EPROTONOSUPPORT,
	 "its server speaks another version of the λ commands; upgrade the older of the two"},
};

static int status_failed(struct remote_call *c, const struct nvme_req *req, const char *what)
{
	const struct nvme_status_info *info;
	uint16_t status = remote_status(req);
	int code;

	if (status == NVME_SC_LAMBDA_ERRNO) {
		code = (int)nvme_get32(req->cqe.dw0);
		if (code < 1 || code > 4095)
			code = EPROTO;
		return host_fail(-code, "%s: %s: %s", c->name, what, strerror(code));
	}
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].status == status)
			return host_fail(statuses[i].code, "%s: %s: %s", c->name, what,
					 statuses[i].why_fix);
	info = nvme_status_find(status, false);
	return host_fail(-EREMOTEIO, "%s: %s: %s (NVMe status %x/%02xh); see its server's log",
			 c->name, what, info ? info->text : "its server answered something unknown",
			 status >> 8, status & 0xff);
}

int remote_failed(struct remote_call *c, const struct nvme_req *req, const char *what)
{
	if (!req->error)
		return status_failed(c, req, what);
	if (req->error == -ECANCELED || req->error == -ETIMEDOUT)
		return req->error == -ECANCELED && cancelled(c)
			       ? remote_overdue(c)
			       : host_fail(-ETIMEDOUT,
					   "%s: %s: its server did not answer; see that it still "
					   "runs",
					   c->name, what);
	nvme_host_failed(c->r->host, req->error);
	return host_fail(req->error, "%s: %s: %s; see that its server runs, and run it again",
			 c->name, what, nvme_host_error());
}

bool remote_again(struct remote_call *c, int rc)
{
	return (rc == -ECONNRESET || rc == -ENOLINK) && c->lost++ < REMOTE_TRIES && slice(c) &&
	       !remote_gone(c->r);
}

/* ---- one command ---- */

int remote_do(struct remote_call *c, struct nvme_req *req, const char *what)
{
	for (unsigned int n = 0;; n++) {
		int rc;

		req->queue = -1;
		req->connection = c->connection;
		rc = nvme_batch_add(&c->batch, req);
		if (rc)
			return host_fail(rc, "%s: %s: %s; upgrade its server", c->name, what,
					 nvme_host_error());
		if (!remote_next(c)) {
			remote_drain(c, req, 1);
			return remote_overdue(c);
		}
		if (req->error || remote_status(req) != NVME_SC_LAMBDA_BUSY)
			break;
		rc = remote_busy(c, req, n);
		if (rc)
			return rc;
	}
	return req->error || remote_status(req) ? remote_failed(c, req, what) : 0;
}

/* ---- beginning: the connection, and what its server can do ---- */

static int read_abilities(struct remote_call *c, struct nvme_lambda_abilities *a)
{
	struct nvme_req req = {
		.sqe = {.opcode = NVME_LAMBDA_INFO,
			.cdw10 = nvme_put32(NVME_LAMBDA_PAGE_ABILITIES),
			.cdw11 = nvme_put32(sizeof(*a))},
		.data = a,
		.len = sizeof(*a),
		.may_be_short = true,
	};
	int rc;

	memset(a, 0, sizeof(*a));
	rc = remote_do(c, &req, "asking what its server can do");
	if (rc)
		return rc;
	a->server[sizeof(a->server) - 1] = 0;
	if (a->version_min > NVME_LAMBDA_VERSION || a->version_max < NVME_LAMBDA_VERSION)
		return host_fail(
			-EPROTONOSUPPORT,
			"%s: its server (%s) speaks versions %u to %u of the λ commands, "
			"liblambdaio " LIO_VERSION " version %u; upgrade the older of the two",
			c->name, a->server, a->version_min, a->version_max, NVME_LAMBDA_VERSION);
	return 0;
}

int remote_begin(struct remote_call *c)
{
	struct remote *r = c->r;
	struct nvme_lambda_abilities a;
	struct nvme_host_info info;
	int rc;

	do {
		nvme_host_info(r->host, &info);
		c->connection = info.connection;
		rc = nvme_batch_begin(r->host, &c->batch);
		if (rc)
			return host_fail(rc, "lio://%s; see its server's log", nvme_host_error());
		pthread_mutex_lock(&r->lock);
		rc = r->abilities_of == c->connection ? 0 : -EAGAIN;
		pthread_mutex_unlock(&r->lock);
		if (!rc)
			return 0;
		rc = read_abilities(c, &a);
	} while (remote_again(c, rc));
	if (rc)
		return rc;
	pthread_mutex_lock(&r->lock);
	r->abilities = a;
	r->abilities_of = c->connection;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

uint32_t remote_handle(struct remote *r)
{
	uint32_t handle;

	do
		handle = atomic_fetch_add(&r->handle, 1) + 1;
	while (!handle);
	return handle;
}

/* ---- requests: submitted, then fetched ---- */

int remote_submit(struct remote_call *c, struct nvme_req *req, uint32_t handle, const void *bytes,
		  uint32_t len)
{
	uint32_t most = c->r->max_transfer;

	for (uint32_t at = 0, n; at < len || !at; at += n) {
		int rc;

		n = len - at < most ? len - at : most;
		*req = (struct nvme_req){
			.sqe = {.opcode = NVME_LAMBDA_SUBMIT,
				.cdw10 = nvme_put32(handle),
				.cdw11 = nvme_put32(len),
				.cdw12 = nvme_put32(at),
				.cdw13 = nvme_put32(n)},
			.data = (uint8_t *)(uintptr_t)bytes + at,
			.len = n,
			.to_controller = true,
			.queue = -1,
			.connection = c->connection,
		};
		rc = nvme_batch_add(&c->batch, req);
		if (rc)
			return host_fail(rc, "%s: %s; upgrade its server", c->name,
					 nvme_host_error());
		if (at + n == len)
			return 0;
		if (!remote_next(c)) {
			remote_drain(c, req, 1);
			return remote_overdue(c);
		}
		if (req->error || remote_status(req))
			return remote_failed(c, req, "sending the request");
	}
	return 0;
}

void remote_fetch_init(struct remote_call *c, struct nvme_req *req, uint32_t handle, void *buf,
		       uint32_t len, uint32_t wait_ms)
{
	*req = (struct nvme_req){
		.sqe = {.opcode = NVME_LAMBDA_FETCH,
			.cdw10 = nvme_put32(handle),
			.cdw11 = nvme_put32(len),
			/* the next bytes, in the order in which fetches arrive */
			.cdw12 = nvme_put32(UINT32_MAX),
			.cdw13 = nvme_put32(UINT32_MAX),
			.cdw14 = nvme_put32(wait_ms)},
		.data = buf,
		.len = len,
		.may_be_short = true,
		.queue = -1,
		.connection = c->connection,
	};
	if (wait_ms > c->r->abilities.max_fetch_wait_ms)
		req->sqe.cdw14 = nvme_put32(c->r->abilities.max_fetch_wait_ms);
}

static int malformed(struct remote_call *c, const char *what)
{
	return host_fail(-EPROTO, "%s: its server sent %s; upgrade it, or see its log", c->name,
			 what);
}

int remote_fetched(struct remote_call *c, const struct nvme_req *req, struct remote_fetched *out)
{
	const uint8_t *p = req->data;
	uint32_t len = req->moved, at;

	if (len < sizeof(out->head))
		return malformed(c, "an answer that is too short");
	memcpy(&out->head, p, sizeof(out->head));
	out->output = p + sizeof(out->head);
	out->end = out->head.flags & NVME_LAMBDA_END;
	if (out->head.len > len - sizeof(out->head))
		return malformed(c, "less output than it says");
	if (!out->end)
		return 0;
	at = (uint32_t)(sizeof(out->head) + out->head.len + 7) & ~7u;
	if (at > len || len - at < sizeof(out->result))
		return malformed(c, "an end without a result");
	memcpy(&out->result, p + at, sizeof(out->result));
	at += (uint32_t)sizeof(out->result);
	if (out->result.text_len >= sizeof(out->text) || out->result.text_len > len - at)
		return malformed(c, "a result without its text");
	if (out->result.error > 0 || out->result.error < -4095)
		return malformed(c, "an error that is none");
	memcpy(out->text, p + at, out->result.text_len);
	out->text[out->result.text_len] = 0;
	return 0;
}

/* ---- paths ---- */

struct path_answer {
	const char *path;
	uint8_t *buf; /* of a fetch */
	uint32_t size;
	void *reply;
	uint32_t cap, len;
};

/* One fetch's part of the answer; 1: the end. */
static int path_take(struct remote_call *c, const struct nvme_req *req, struct path_answer *a)
{
	struct remote_fetched f;
	int rc = remote_fetched(c, req, &f);

	if (rc)
		return rc;
	if (f.head.len > a->cap - a->len)
		return malformed(c, "a longer answer than it was asked for");
	if (f.head.len)
		memcpy((uint8_t *)a->reply + a->len, f.output, f.head.len);
	a->len += f.head.len;
	if (!f.end)
		return 0;
	if (!f.result.error)
		return 1;
	/* It names the path; which server's, only this end knows. */
	if (!strncmp(f.text, a->path, strlen(a->path)))
		return host_fail(f.result.error, "lio://%s/%s", c->r->where, f.text);
	return f.text[0] ? host_fail(f.result.error, "%s: %s", c->name, f.text)
			 : host_fail(f.result.error, "%s: %s", c->name, strerror(-f.result.error));
}

/* 0, -errno; -EBUSY with @reqs[0]'s status if the server is. */
static int path_try(struct remote_call *c, const void *bytes, uint32_t len, struct path_answer *a)
{
	uint32_t handle = remote_handle(c->r);
	struct nvme_req reqs[2] = {{.state = 0}}, *req;
	int rc = 0, end = 0;

	for (unsigned int n = 0;; n++) {
		rc = remote_submit(c, &reqs[0], handle, bytes, len);
		if (rc)
			return rc;
		remote_fetch_init(c, &reqs[1], handle, a->buf, a->size, 30000);
		nvme_batch_add(&c->batch, &reqs[1]);
		while (c->batch.flying && (req = remote_next(c))) {
			if (end < 0 || (req == &reqs[1] && (req->error || remote_status(req))))
				continue;
			if (req->error || remote_status(req)) {
				end = -1;
				continue;
			}
			if (req != &reqs[1])
				continue;
			end = path_take(c, req, a);
			if (end)
				continue;
			remote_fetch_init(c, &reqs[1], handle, a->buf, a->size, 30000);
			nvme_batch_add(&c->batch, &reqs[1]);
		}
		if (c->batch.flying) {
			remote_drain(c, reqs, 2);
			return remote_overdue(c);
		}
		if (end > 0)
			return 0;
		if (end < 0 && !(reqs[0].error || remote_status(&reqs[0])))
			return end; /* with the text of path_take() */
		req = reqs[0].error || remote_status(&reqs[0]) ? &reqs[0] : &reqs[1];
		if (req->error || remote_status(req) != NVME_SC_LAMBDA_BUSY)
			return remote_failed(c, req, "asking for it");
		rc = remote_busy(c, req, n);
		if (rc)
			return rc;
		handle = remote_handle(c->r);
		end = 0;
		a->len = 0;
	}
}

int64_t remote_path_request(struct remote_call *c, enum nvme_lambda_op op, uint32_t flags,
			    uint32_t mode, const char *path, const char *path2, uint64_t cookie,
			    void *reply, uint32_t cap)
{
	size_t n1 = strlen(path), n2 = path2 ? strlen(path2) : 0;
	struct nvme_path_request head = {
		.version = NVME_LAMBDA_VERSION,
		.op = (uint16_t)op,
		.flags = flags,
		.mode = mode,
		.path_len = (uint16_t)n1,
		.path2_len = (uint16_t)n2,
		.cookie = cookie,
	};
	struct path_answer a = {.path = path, .reply = reply, .cap = cap};
	uint8_t *bytes;
	int rc;

	if (n1 > 4095 || n2 > 4095)
		return host_fail(-ENAMETOOLONG, "%s: the path is too long; use a shorter one",
				 c->name);
	a.size = (uint32_t)(sizeof(struct nvme_lambda_reply) + TAIL_MAX) + cap;
	if (a.size < FETCH_MIN)
		a.size = FETCH_MIN;
	if (a.size > c->r->max_transfer)
		a.size = c->r->max_transfer;
	bytes = malloc(sizeof(head) + n1 + n2);
	a.buf = malloc(a.size);
	if (!bytes || !a.buf) {
		rc = host_fail(-ENOMEM, "%s: no memory; free some", c->name);
	} else {
		memcpy(bytes, &head, sizeof(head));
		memcpy(bytes + sizeof(head), path, n1);
		if (n2)
			memcpy(bytes + sizeof(head) + n1, path2, n2);
		rc = path_try(c, bytes, (uint32_t)(sizeof(head) + n1 + n2), &a);
	}
	free(bytes);
	free(a.buf);
	return rc ? rc : (int64_t)a.len;
}

/* ---- programs ---- */

static int refused(struct remote_call *c)
{
	char text[640] = "";
	struct nvme_req req = {
		.sqe = {.opcode = NVME_LAMBDA_INFO,
			.cdw10 = nvme_put32(NVME_LAMBDA_PAGE_REFUSAL),
			.cdw11 = nvme_put32(sizeof(text) - 1)},
		.data = text,
		.len = sizeof(text) - 1,
		.may_be_short = true,
	};
	int rc = remote_do(c, &req, "asking why its server refused the function");

	if (rc)
		return rc;
	return host_fail(-EINVAL, "%s",
			 text[0] ? text : "the server refused the function; see its log");
}

int remote_upload(struct remote_call *c, const struct lio_function *fn)
{
	uint32_t head = sizeof(struct nvme_lambda_program), most = c->r->max_transfer - head;
	uint32_t size = (uint32_t)fn->image_len, room = size < most ? size : most;
	uint8_t *buf;
	int rc = 0;

	if (fn->image_len > c->r->abilities.max_program)
		return host_fail(-E2BIG,
				 "%s: %zu bytes, and its server takes objects of %llu at most; it "
				 "must shrink",
				 fn->fn->name, fn->image_len,
				 (unsigned long long)c->r->abilities.max_program);
	buf = malloc(head + room);
	if (!buf)
		return host_fail(-ENOMEM, "%s: no memory to send it; free some", fn->fn->name);
	memcpy(buf, fn->hash, head);
	for (uint32_t at = 0, n; !rc && at < size; at += n) {
		struct nvme_req req;

		n = size - at < most ? size - at : most;
		memcpy(buf + head, fn->image + at, n);
		req = (struct nvme_req){
			.sqe = {.opcode = NVME_LAMBDA_PROGRAM,
				.cdw10 = nvme_put32(size),
				.cdw11 = nvme_put32(at),
				.cdw13 = nvme_put32(n)},
			.data = buf,
			.len = head + n,
			.to_controller = true,
		};
		rc = remote_do(c, &req, "sending the function");
		if (rc && !req.error && remote_status(&req) == NVME_SC_LAMBDA_REFUSED)
			rc = refused(c);
	}
	free(buf);
	return rc;
}
