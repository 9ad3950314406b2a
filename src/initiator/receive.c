/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive.c - what the target sends: headers are checked, data goes to where it was asked for and nowhere else.
 *
 * Everything here is the peer's word against ours.  What does not fit a command that waits for exactly that
 * ends the connection, so that a buffer is never written out of bounds, twice, or after its command ended.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "initiator/internal.h"

#define ROUNDS     64     /* reads before others get a turn */
#define LARGE      16384u /* data of this size is read into place */
#define SMALL_READ 256u   /* before large data: little more than a header */

/* The peer broke the rules: tell it which (best effort), and why here. */
#define violation(q, fes, fei, ...)                  \
	do {                                         \
		terminate(q, fes, fei);              \
		queue_fail(q, -EPROTO, __VA_ARGS__); \
	} while (0)

static void terminate(struct queue *q, enum nvme_tcp_fes fes, uint32_t fei)
{
	struct nvme_tcp_term pdu = {.fes = nvme_put16(fes), .fei = nvme_put32(fei)};

	if (q->failed || (q->tx && q->tx->tx_at)) /* amid another PDU it would be taken for data */
		return;
	nvme_tcp_init(&pdu.hdr, NVME_TCP_H2C_TERM, 0, false, false, 4, 0);
	if (send(q->fd, &pdu, sizeof(pdu), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

/* The command that a PDU is about, if it waits for an answer and all of its capsule was sent. */
static struct slot *find(struct queue *q, nvme_le16 cid, const char *what)
{
	uint16_t i = nvme_get16(cid);
	struct slot *s = i < q->depth ? &q->slots[i] : NULL;

	if (s && s->req && !s->answered && !(s->queued && s->capsule))
		return s;
	violation(q, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_data, cccid),
		  "%s for command %u, which is not outstanding", what, i);
	return NULL;
}

/* Success means that all data moved, or else the caller would take stale bytes for the answer. */
static void answer(struct queue *q, struct slot *s)
{
	const struct nvme_req *req = s->req;
	bool success = !(nvme_get16(req->cqe.status) >> 1 & 0x7ff);
	bool whole = req->moved == req->len && s->r2t_at == s->r2t_end;

	if (success && !whole && (req->to_controller || !req->may_be_short)) {
		queue_fail(q, -EPROTO, "success after %u of %u bytes of data", req->moved,
			   req->len);
		return;
	}
	queue_answer(q, s);
}

static void on_response(struct queue *q, const uint8_t *p)
{
	struct nvme_tcp_rsp pdu;
	struct slot *s;

	memcpy(&pdu, p, sizeof(pdu));
	s = find(q, pdu.cqe.cid, "response");
	if (!s)
		return;
	s->req->cqe = pdu.cqe;
	answer(q, s);
}

static void on_data(struct queue *q, const uint8_t *p, uint32_t data_len)
{
	struct nvme_tcp_data pdu;
	struct slot *s;
	uint32_t at, len;

	memcpy(&pdu, p, sizeof(pdu));
	s = find(q, pdu.cccid, "data");
	if (!s)
		return;
	at = nvme_get32(pdu.datao);
	len = nvme_get32(pdu.datal);
	if (s->req->to_controller)
		violation(q, NVME_TCP_FES_SEQUENCE, 0, "data for a command that asks for none");
	else if (len != data_len)
		violation(q, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_data, datal),
			  "a data PDU of %u bytes says it has %u", data_len, len);
	else if (at != s->req->moved)
		violation(q, NVME_TCP_FES_DATA_OUT_OF_RANGE, 0,
			  "data for offset %u where offset %u is next", at, s->req->moved);
	else if (len > s->req->len - at)
		violation(q, NVME_TCP_FES_DATA_OUT_OF_RANGE, 0,
			  "%u bytes of data at offset %u where %u were asked for", len, at,
			  s->req->len);
	else if ((pdu.hdr.flags & NVME_TCP_F_SUCCESS) && !(pdu.hdr.flags & NVME_TCP_F_LAST))
		violation(q, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_hdr, flags),
			  "data with the success flag that are not the last");
	if (q->failed)
		return;
	q->rx.phase = RX_DATA;
	q->rx.slot = s;
	q->rx.left = len;
	q->rx.crc = 0;
	q->rx.flags = pdu.hdr.flags;
	q->rx.large = len >= LARGE;
}

static void on_r2t(struct queue *q, const uint8_t *p)
{
	struct nvme_tcp_r2t pdu;
	struct slot *s;
	uint32_t at, len;

	memcpy(&pdu, p, sizeof(pdu));
	s = find(q, pdu.cccid, "R2T");
	if (!s)
		return;
	at = nvme_get32(pdu.r2to);
	len = nvme_get32(pdu.r2tl);
	if (!s->req->to_controller || s->in_capsule)
		violation(q, NVME_TCP_FES_SEQUENCE, 0, "R2T for a command with no data to send");
	else if (s->queued || s->r2t_at != s->r2t_end)
		violation(q, NVME_TCP_FES_R2T_LIMIT, 0, "a second R2T before the first was served");
	else if (at != s->req->moved || !len || len > s->req->len - at)
		violation(q, NVME_TCP_FES_DATA_OUT_OF_RANGE, 0,
			  "R2T for %u bytes at offset %u of %u, of which %u were sent", len, at,
			  s->req->len, s->req->moved);
	if (q->failed)
		return;
	s->ttag = nvme_get16(pdu.ttag);
	s->r2t_at = at;
	s->r2t_end = at + len;
	queue_send_data(q, s);
}

static void on_term(struct queue *q, const uint8_t *p)
{
	static const char *const reasons[] = {
		[NVME_TCP_FES_HEADER_FIELD] = "invalid PDU header field",
		[NVME_TCP_FES_SEQUENCE] = "PDU sequence error",
		[NVME_TCP_FES_HEADER_DIGEST] = "header digest error",
		[NVME_TCP_FES_DATA_OUT_OF_RANGE] = "data transfer out of range",
		[NVME_TCP_FES_R2T_LIMIT] = "data transfer or R2T limit exceeded",
		[NVME_TCP_FES_UNSUPPORTED] = "unsupported parameter",
	};
	struct nvme_tcp_term pdu;
	uint16_t fes;

	memcpy(&pdu, p, sizeof(pdu));
	fes = nvme_get16(pdu.fes);
	queue_fail(q, -ECONNRESET, "the target ended the connection: %s (%u, %u)",
		   fes < sizeof(reasons) / sizeof(*reasons) && reasons[fes] ? reasons[fes]
									    : "unknown reason",
		   fes, nvme_get32(pdu.fei));
}

/* One header, if all of it is there. */
static bool take_header(struct queue *q)
{
	struct receiver *rx = &q->rx;
	const uint8_t *p = rx->buf + rx->at;
	uint32_t avail = rx->end - rx->at, data_len, fei, need;
	struct nvme_tcp_hdr hdr;
	int fes;

	if (avail < sizeof(hdr))
		return false;
	memcpy(&hdr, p, sizeof(hdr));
	fes = nvme_tcp_check(&hdr, false, q->hdgst, q->ddgst, UINT32_MAX, &data_len, &fei);
	if (fes) {
		violation(q, (enum nvme_tcp_fes)fes, fei,
			  "a bad PDU header: type %02xh (%s), byte %u", hdr.type,
			  nvme_tcp_type_name(hdr.type), fei);
		return false;
	}
	need = hdr.hlen + (hdr.flags & NVME_TCP_F_HDGST && q->hdgst ? NVME_TCP_DIGEST : 0);
	if (data_len && hdr.type == NVME_TCP_C2H_DATA)
		need = hdr.pdo;
	if (avail < need)
		return false;
	if (q->hdgst && hdr.type != NVME_TCP_C2H_TERM && hdr.type != NVME_TCP_ICRESP) {
		nvme_le32 crc;

		memcpy(&crc, p + hdr.hlen, sizeof(crc));
		if (nvme_get32(crc) != nvme_crc32c(0, p, hdr.hlen)) {
			terminate(q, NVME_TCP_FES_HEADER_DIGEST, nvme_get32(crc));
			queue_fail(q, -EBADMSG, "the digest of a PDU header is wrong");
			return false;
		}
	}
	rx->at += need;
	switch (hdr.type) {
	case NVME_TCP_RSP:
		on_response(q, p);
		break;
	case NVME_TCP_C2H_DATA:
		on_data(q, p, data_len);
		break;
	case NVME_TCP_R2T:
		on_r2t(q, p);
		break;
	case NVME_TCP_C2H_TERM:
		on_term(q, p);
		break;
	default:
		violation(q, NVME_TCP_FES_SEQUENCE, 0, "%s in the midst of a connection",
			  nvme_tcp_type_name(hdr.type));
	}
	return !q->failed;
}

static void data_end(struct queue *q)
{
	struct slot *s = q->rx.slot;

	q->rx.phase = RX_HEADER;
	q->rx.slot = NULL;
	if (!(q->rx.flags & NVME_TCP_F_SUCCESS))
		return;
	s->req->cqe = (struct nvme_cqe){.cid = nvme_put16(s->req->cid), .sqid = nvme_put16(q->qid)};
	answer(q, s);
}

static uint8_t *data_place(struct queue *q)
{
	return (uint8_t *)q->rx.slot->req->data + q->rx.slot->req->moved;
}

/* @n bytes of data are in place. */
static void data_came(struct queue *q, uint32_t n)
{
	struct receiver *rx = &q->rx;

	if (q->ddgst)
		rx->crc = nvme_crc32c(rx->crc, data_place(q), n);
	rx->slot->req->moved += n;
	rx->left -= n;
	if (rx->left)
		return;
	if (q->ddgst)
		rx->phase = RX_DIGEST;
	else
		data_end(q);
}

static bool take_data(struct queue *q)
{
	struct receiver *rx = &q->rx;
	uint32_t n = rx->end - rx->at;

	n = n < rx->left ? n : rx->left;
	if (!n)
		return false;
	memcpy(data_place(q), rx->buf + rx->at, n);
	rx->at += n;
	data_came(q, n);
	return !q->failed;
}

static bool take_digest(struct queue *q)
{
	struct receiver *rx = &q->rx;
	nvme_le32 crc;

	if (rx->end - rx->at < sizeof(crc))
		return false;
	memcpy(&crc, rx->buf + rx->at, sizeof(crc));
	rx->at += sizeof(crc);
	if (nvme_get32(crc) != rx->crc) {
		queue_fail(q, -EBADMSG, "the digest of data is wrong");
		return false;
	}
	data_end(q);
	return !q->failed;
}

static bool take(struct queue *q)
{
	switch (q->rx.phase) {
	case RX_HEADER:
		return take_header(q);
	case RX_DATA:
		return take_data(q);
	case RX_DIGEST:
		return take_digest(q);
	}
	return false;
}

/* One read: data into place as far as it is known, the rest into the buffer. */
struct fill {
	struct iovec iov[2];
	struct msghdr msg;
	uint32_t direct, room;
};

static void fill_begin(struct queue *q, struct fill *f)
{
	struct receiver *rx = &q->rx;

	rx->end -= rx->at; /* a part of a header or digest at most */
	memmove(rx->buf, rx->buf + rx->at, rx->end);
	rx->at = 0;
	f->msg = (struct msghdr){.msg_iov = f->iov};
	f->direct = rx->phase == RX_DATA ? rx->left : 0;
	f->room = rx->large && rx->end < SMALL_READ ? SMALL_READ : RX_BUFFER - rx->end;
	if (f->direct)
		f->iov[f->msg.msg_iovlen++] = (struct iovec){data_place(q), f->direct};
	f->iov[f->msg.msg_iovlen++] = (struct iovec){rx->buf + rx->end, f->room};
}

/* True if there may be more: what was asked for came in full. */
static bool fill_end(struct queue *q, const struct fill *f, ssize_t n, int err)
{
	uint32_t placed = n < (ssize_t)f->direct ? (uint32_t)n : f->direct;

	if (n < 0) {
		if (err != EAGAIN && err != EINTR)
			queue_fail(q, -err, "receiving failed: %s", strerror(err));
		return false;
	}
	if (!n) {
		queue_fail(q, -ECONNRESET, "the target closed the connection");
		return false;
	}
	q->rx.end += (uint32_t)n - placed;
	if (placed)
		data_came(q, placed);
	while (!q->failed && take(q))
		;
	return !q->failed && (size_t)n == (size_t)f->direct + f->room;
}

void queue_receive(struct queue *q)
{
	struct fill f;
	bool more = !q->receiving;

	for (int i = 0; i < ROUNDS && more; i++) {
		ssize_t n;

		fill_begin(q, &f);
		do
			n = recvmsg(q->fd, &f.msg, MSG_DONTWAIT);
		while (n < 0 && errno == EINTR);
		more = fill_end(q, &f, n, errno);
	}
}

void queue_receive_waiting(struct queue *q)
{
	struct fill f;
	ssize_t n;
	int err;

	fill_begin(q, &f);
	q->receiving = true;
	q->polling++;
	queue_unlock(q);
	n = recvmsg(q->fd, &f.msg, 0);
	err = errno;
	queue_lock(q);
	q->receiving = false;
	queue_poll_end(q, 0);
	if (fill_end(q, &f, n, err))
		queue_receive(q);
}
