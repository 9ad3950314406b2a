/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.c - commands on one connection: identifiers, capsules and data going out, waiting.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "initiator/internal.h"

#define TX_IOV             96 /* pieces in one sendmsg(); a PDU has up to three */
#define HANDSHAKE_SLICE_MS 100

int queue_init(struct queue *q, struct nvme_host *host, uint16_t qid, uint16_t depth)
{
	*q = (struct queue){.host = host, .qid = qid, .depth = depth, .fd = -1, .align = 4};
	q->wait_end = &q->wait;
	q->tx_end = &q->tx;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->cond, NULL);
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->slots = calloc(depth, sizeof(*q->slots));
	q->free = calloc(depth, sizeof(*q->free));
	q->rx.buf = malloc(RX_BUFFER);
	if (q->kick < 0)
		return -errno;
	if (!q->slots || !q->free || !q->rx.buf)
		return -ENOMEM;
	for (uint16_t i = 0; i < depth; i++)
		q->free[q->n_free++] = i;
	return 0;
}

void queue_free(struct queue *q)
{
	if (!q->host)
		return;
	if (q->fd >= 0)
		close(q->fd);
	if (q->kick >= 0)
		close(q->kick);
	free(q->slots);
	free(q->free);
	free(q->rx.buf);
	pthread_cond_destroy(&q->cond);
	pthread_mutex_destroy(&q->lock);
}

void queue_lock(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
}

void queue_unlock(struct queue *q)
{
	if (q->tx && q->polling && !q->pollout) { /* someone must poll for room, too */
		if (q->asleep) {
			kick(q->kick);
		} else {
			host_wake(q->host);
			kick(q->host->keeper_kick);
		}
	}
	pthread_mutex_unlock(&q->lock);
}

void queue_fail(struct queue *q, int err, const char *fmt, ...)
{
	char text[192];
	va_list ap;

	if (q->failed)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	q->failed = true;
	q->live = false;
	if (q->fd >= 0)
		shutdown(q->fd, SHUT_RDWR);
	host_broken(q->host, err, text);
}

/* ---- sending ---- */

static bool has_digest(const struct queue *q, const struct slot *s)
{
	return q->ddgst && s->data_len;
}

static void enqueue(struct queue *q, struct slot *s)
{
	s->tx_at = 0;
	s->tx_next = NULL;
	s->queued = true;
	*q->tx_end = s;
	q->tx_end = &s->tx_next;
}

static void dequeue(struct queue *q, struct slot *s)
{
	struct slot **at = &q->tx;

	while (*at != s)
		at = &(*at)->tx_next;
	*at = s->tx_next;
	if (!*at)
		q->tx_end = at;
	s->queued = false;
}

/* The header's struct stands in s->head; fill in what all PDUs have and compute digests. */
static void make_pdu(struct queue *q, struct slot *s, enum nvme_tcp_pdu_type type, uint8_t flags)
{
	struct nvme_tcp_hdr hdr;

	nvme_tcp_init(&hdr, type, flags, q->hdgst, q->ddgst, q->align, s->data_len);
	memcpy(s->head, &hdr, sizeof(hdr));
	s->head_len = s->data_len ? hdr.pdo : nvme_get32(hdr.plen);
	if (q->hdgst) {
		nvme_le32 crc = nvme_put32(nvme_crc32c(0, s->head, hdr.hlen));

		memcpy(s->head + hdr.hlen, &crc, sizeof(crc));
	}
	if (has_digest(q, s))
		s->digest = nvme_put32(
			nvme_crc32c(0, (uint8_t *)s->req->data + s->data_at, s->data_len));
	enqueue(q, s);
}

void queue_send_data(struct queue *q, struct slot *s)
{
	uint32_t left = s->r2t_end - s->r2t_at;
	struct nvme_tcp_data pdu = {
		.cccid = nvme_put16((uint16_t)(s - q->slots)),
		.ttag = nvme_put16(s->ttag),
	};

	s->data_at = s->r2t_at;
	s->data_len = left < q->max_h2c ? left : q->max_h2c;
	pdu.datao = nvme_put32(s->data_at);
	pdu.datal = nvme_put32(s->data_len);
	s->r2t_at += s->data_len;
	s->req->moved = s->r2t_at;
	memset(s->head, 0, sizeof(s->head));
	memcpy(s->head, &pdu, sizeof(pdu));
	make_pdu(q, s, NVME_TCP_H2C_DATA, s->r2t_at == s->r2t_end ? NVME_TCP_F_LAST : 0);
}

static void start(struct queue *q, struct nvme_req *req)
{
	uint16_t cid = q->free[--q->n_free];
	uint32_t timeout = req->timeout_ms ? req->timeout_ms : q->host->opts.timeout_ms;
	struct slot *s = &q->slots[cid];
	struct nvme_tcp_cmd pdu = {0};

	*s = (struct slot){.req = req, .capsule = true};
	s->deadline_ns = now_ns() + timeout * MS;
	s->in_capsule = req->to_controller && req->len && req->len <= q->in_capsule;
	s->data_len = s->in_capsule ? req->len : 0;
	req->cid = cid;
	req->tries++;
	req->moved = s->data_len;
	req->state = REQ_SENT;
	req->sqe.cid = nvme_put16(cid);
	req->sqe.flags = NVME_PSDT_SGL;
	req->sqe.mptr = nvme_put64(0);
	req->sqe.sgl = (struct nvme_sgl){
		.length = nvme_put32(req->len),
		.type = s->in_capsule ? NVME_SGL_DATA_OFFSET : NVME_SGL_TRANSPORT_DATA,
	};
	pdu.sqe = req->sqe;
	memcpy(s->head, &pdu, sizeof(pdu));
	make_pdu(q, s, NVME_TCP_CMD, 0);
	if (s->deadline_ns < atomic_load(&q->host->keeper_wakes))
		kick(q->host->keeper_kick);
}

/* What of this PDU is still to be sent, in at most three pieces. */
static int gather(struct queue *q, struct slot *s, struct iovec *iov)
{
	struct iovec parts[] = {
		{s->head, s->head_len},
		{s->data_len ? (uint8_t *)s->req->data + s->data_at : NULL, s->data_len},
		{&s->digest, has_digest(q, s) ? sizeof(s->digest) : 0},
	};
	size_t skip = s->tx_at;
	int n = 0;

	for (int i = 0; i < 3; i++) {
		if (skip >= parts[i].iov_len) {
			skip -= parts[i].iov_len;
			continue;
		}
		iov[n].iov_base = (uint8_t *)parts[i].iov_base + skip;
		iov[n++].iov_len = parts[i].iov_len - skip;
		skip = 0;
	}
	return n;
}

static void pdu_sent(struct queue *q, struct slot *s)
{
	dequeue(q, s);
	s->capsule = false;
	if (s->answered)
		queue_answer(q, s);
	else if (s->r2t_at < s->r2t_end)
		queue_send_data(q, s);
}

static void account(struct queue *q, size_t n)
{
	while (n) {
		struct slot *s = q->tx;
		size_t left = s->head_len + (size_t)s->data_len - s->tx_at;

		left += has_digest(q, s) ? sizeof(s->digest) : 0;
		s->sent = true;
		if (n < left) {
			s->tx_at += (uint32_t)n;
			return;
		}
		n -= left;
		pdu_sent(q, s);
	}
}

static void flush(struct queue *q)
{
	struct iovec iov[TX_IOV];

	while (q->tx && q->fd >= 0 && !q->failed) {
		struct msghdr msg = {.msg_iov = iov};
		size_t bytes = 0;
		ssize_t n;

		for (struct slot *s = q->tx; s && msg.msg_iovlen + 3 <= TX_IOV; s = s->tx_next)
			msg.msg_iovlen += (size_t)gather(q, s, iov + msg.msg_iovlen);
		for (size_t i = 0; i < msg.msg_iovlen; i++)
			bytes += iov[i].iov_len;
		n = sendmsg(q->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				queue_fail(q, -errno, "sending failed: %s", strerror(errno));
			return;
		}
		account(q, (size_t)n);
		if ((size_t)n < bytes)
			return;
	}
}

void queue_append(struct queue *q, struct nvme_req *req)
{
	req->state = REQ_WAITING;
	req->qid = q->qid;
	req->next = NULL;
	*q->wait_end = req;
	q->wait_end = &req->next;
}

static struct nvme_req *next_waiting(struct queue *q)
{
	struct nvme_req *req = q->wait;

	if (req) {
		q->wait = req->next;
		if (!q->wait)
			q->wait_end = &q->wait;
	}
	return req;
}

bool queue_unlink(struct queue *q, struct nvme_req *req)
{
	struct nvme_req **at = &q->wait;

	while (*at && *at != req)
		at = &(*at)->next;
	if (!*at)
		return false;
	*at = req->next;
	if (!*at)
		q->wait_end = at;
	return true;
}

/* The number of connections is raised while no queue is live. */
static bool stale(const struct queue *q, const struct nvme_req *req)
{
	return req->connection && req->connection != atomic_load(&q->host->reconnects) + 1;
}

void queue_pump(struct queue *q)
{
	while (q->live && q->wait && q->n_free) {
		struct nvme_req *req = next_waiting(q);

		if (stale(q, req))
			queue_complete(q, req, -ENOLINK);
		else
			start(q, req);
	}
	flush(q);
}

void queue_drive(struct queue *q)
{
	if (q->fd < 0 || q->failed)
		return;
	queue_receive(q);
	queue_pump(q);
}

/* ---- ending ---- */

void queue_complete(struct queue *q, struct nvme_req *req, int err)
{
	req->state = REQ_DONE;
	req->error = err;
	if (req->sync) {
		req->next = req->sync->ready;
		req->sync->ready = req;
		if (q->asleep)
			kick(q->kick);
		if (q->followers)
			pthread_cond_broadcast(&q->cond);
	} else if (req->done) {
		host_deliver(q->host, req);
	}
}

static void release(struct queue *q, struct slot *s)
{
	s->req = NULL;
	q->free[q->n_free++] = (uint16_t)(s - q->slots);
}

void queue_answer(struct queue *q, struct slot *s)
{
	struct nvme_req *req = s->req;
	uint16_t status = nvme_get16(req->cqe.status) >> 1 & 0x7ff;
	int err = 0;

	if (s->queued && s->tx_at) { /* the PDU must end before the stream can go on */
		s->answered = true;
		s->r2t_end = s->r2t_at;
		return;
	}
	if (s->queued)
		dequeue(q, s);
	if (status == NVME_SC_ABORT_REQUESTED && s->expired)
		err = -ETIMEDOUT;
	else if (status == NVME_SC_ABORT_REQUESTED && s->cancelled)
		err = -ECANCELED;
	release(q, s);
	queue_complete(q, req, err);
}

/* Sent twice it does what it does once, and nothing that it could find out was changed by a lost connection. */
static bool repeatable(const struct queue *q, const struct nvme_req *req)
{
	static const uint8_t admin[] = {NVME_ADMIN_IDENTIFY, NVME_ADMIN_GET_LOG_PAGE,
					NVME_ADMIN_GET_FEATURES};
	static const uint8_t io[] = {NVME_NVM_READ, NVME_NVM_COMPARE, NVME_NVM_VERIFY};

	return q->qid ? memchr(io, req->sqe.opcode, sizeof(io)) != NULL
		      : memchr(admin, req->sqe.opcode, sizeof(admin)) != NULL;
}

static int fate(const struct queue *q, const struct slot *s, bool again)
{
	if (s->expired)
		return -ETIMEDOUT;
	if (s->cancelled)
		return -ECANCELED;
	if (again && !s->req->connection && (s->req->done || s->req->sync) &&
	    (!s->sent || (repeatable(q, s->req) && s->req->tries < MAX_TRIES)))
		return 0;
	return s->sent ? -ECONNRESET : -ENOLINK;
}

void queue_close(struct queue *q, bool again)
{
	struct nvme_req *old = q->wait, **old_end = q->wait_end;
	bool any = old != NULL;

	q->live = false;
	q->failed = true;
	if (q->fd >= 0)
		shutdown(q->fd, SHUT_RDWR);
	while (q->polling)
		pthread_cond_wait(&q->cond, &q->lock);
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	q->tx = NULL;
	q->tx_end = &q->tx;
	q->rx = (struct receiver){.buf = q->rx.buf};
	/* What was sent stands before what was not. */
	q->wait = NULL;
	q->wait_end = &q->wait;
	for (uint16_t i = 0; i < q->depth; i++) {
		struct slot *s = &q->slots[i];
		struct nvme_req *req = s->req;
		int err;

		if (!req)
			continue;
		err = fate(q, s, again);
		release(q, s);
		if (err)
			queue_complete(q, req, err);
		else
			queue_append(q, req);
	}
	if (any) {
		*q->wait_end = old;
		q->wait_end = old_end;
	}
}

void queue_drop(struct queue *q, int err)
{
	struct nvme_req *req;

	while ((req = next_waiting(q)))
		queue_complete(q, req, err);
	pthread_cond_broadcast(&q->cond);
}

/* ---- waiting ---- */

short queue_poll_begin(struct queue *q)
{
	short events = POLLIN;

	q->polling++;
	if (q->tx) {
		q->pollout++;
		events |= POLLOUT;
	}
	return events;
}

void queue_poll_end(struct queue *q, short events)
{
	q->polling--;
	if (events & POLLOUT)
		q->pollout--;
	if (!q->polling && !q->live)
		pthread_cond_broadcast(&q->cond);
}

static void lead(struct queue *q, int timeout_ms)
{
	struct pollfd fds[2] = {{.fd = q->fd}, {.fd = q->kick, .events = POLLIN}};

	fds[0].events = queue_poll_begin(q);
	q->asleep = true;
	queue_unlock(q);
	poll(fds, 2, timeout_ms);
	queue_lock(q);
	q->asleep = false;
	queue_poll_end(q, fds[0].events);
	if (fds[1].revents)
		unkick(q->kick);
	queue_drive(q);
}

/* As a follower: somebody else polls, or there is nothing to poll. */
static void follow(struct queue *q, uint64_t deadline_ns)
{
	struct timespec at = {
		.tv_sec = (time_t)(deadline_ns / 1000000000u),
		.tv_nsec = (long)(deadline_ns % 1000000000u),
	};

	q->followers++;
	if (deadline_ns == UINT64_MAX)
		pthread_cond_wait(&q->cond, &q->lock);
	else
		pthread_cond_clockwait(&q->cond, &q->lock, CLOCK_MONOTONIC, &at);
	q->followers--;
}

void queue_wait_until(struct queue *q, const struct nvme_sync *sync, uint64_t deadline_ns)
{
	bool limited = deadline_ns != UINT64_MAX;

	while (!sync->ready && !(limited && now_ns() >= deadline_ns)) {
		if (!q->live || q->leader) {
			follow(q, deadline_ns);
			continue;
		}
		q->leader = true;
		if (q->tx || q->receiving || limited)
			lead(q, ms_until(deadline_ns));
		else
			queue_receive_waiting(q);
		q->leader = false;
		queue_pump(q);
		if (q->followers)
			pthread_cond_broadcast(&q->cond);
	}
}

void queue_wait(struct queue *q, const struct nvme_sync *sync)
{
	queue_wait_until(q, sync, UINT64_MAX);
}

int queue_call(struct queue *q, struct nvme_req *req, uint64_t deadline_ns)
{
	int err = 0;

	queue_lock(q);
	req->qid = q->qid;
	start(q, req);
	flush(q);
	while (req->state != REQ_DONE) {
		int left = ms_until(deadline_ns);

		if (!q->failed && !left)
			queue_fail(q, -ETIMEDOUT, "no answer in time while connecting");
		if (!q->failed && atomic_load(&q->host->stopping))
			queue_fail(q, -ECANCELED, "closing");
		if (q->failed)
			break;
		lead(q, left < HANDSHAKE_SLICE_MS ? left : HANDSHAKE_SLICE_MS);
	}
	if (req->state == REQ_DONE) {
		err = req->error;
	} else {
		q->tx = NULL;
		q->tx_end = &q->tx;
		release(q, &q->slots[req->cid]);
		err = -ENOLINK;
	}
	queue_unlock(q);
	return err;
}
