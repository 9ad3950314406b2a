/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_receive.c - bytes to commands.
 *
 * One call reads what is left of a command's data straight into its buffer and what follows into a scratch
 * area of the thread, so that many small capsules cost one call.  All of the scratch is used up before the next
 * connection's turn; only when a capsule's data must wait for a buffer is the rest kept, and reading stops.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "device/tcp_private.h"

#define SCRATCH    16384u
#define READ_TURNS 4 /* of one connection, before others have theirs */

static _Thread_local uint8_t scratch[SCRATCH];

static void next_pdu(struct tcp_conn *conn)
{
	conn->phase = TCP_HEADER;
	conn->have = conn->need = 0;
	conn->left = 0;
	conn->to = NULL;
	conn->rx = NULL;
	conn->pdus++;
}

/* ---- commands on their way ---- */

static void run(struct tcp_conn *conn, struct tcp_cmd *c)
{
	c->cmd.state = TCP_CMD_RUN;
	conn->running++;
	ctrl_run(&c->cmd);
}

static void fail(struct tcp_conn *conn, struct tcp_cmd *c, uint16_t status)
{
	c->cmd.state = TCP_CMD_RUN;
	conn->running++;
	ctrl_complete(&c->cmd, status);
}

/* The data of a capsule or of H2CData go to c's buffer. */
static void expect_data(struct tcp_conn *conn, struct tcp_cmd *c)
{
	conn->rx = c;
	conn->to = c->cmd.data + c->cmd.received;
	conn->phase = TCP_DATA;
	conn->left = conn->data_len;
}

static bool wants_buffer(const struct tcp_cmd *c)
{
	return (c->cmd.data_len || c->cmd.aux_len) && !c->cmd.row->late;
}

static void have_buffer(struct tcp_conn *conn, struct tcp_cmd *c)
{
	if (c->in_capsule) {
		c->cmd.state = TCP_CMD_RECEIVE;
		expect_data(conn, c);
		conn->paused = false;
	} else if (c->cmd.dir == CTRL_TO_CONTROLLER) {
		tcp_send_r2t(conn, c);
	} else {
		run(conn, c);
	}
}

/* Data, then a page-aligned buffer of the handler's own: both at once, so that nobody holds one and waits. */
static bool get_buffer(struct tcp_conn *conn, struct tcp_cmd *c)
{
	uint32_t data = c->cmd.aux_len ? (c->cmd.data_len + 4095) / 4096 * 4096 : c->cmd.data_len;
	uint32_t len = data + c->cmd.aux_len;
	uint8_t *p = ctrl_loop_buffer_get(conn->q.loop, len);

	/* Not for who is to send data first, or does not read what it got: that may take as long as it likes. */
	if (!p && !conn->blocked && (c->in_capsule || c->cmd.dir != CTRL_TO_CONTROLLER)) {
		p = tcp_reserve_get(len);
		c->reserve = p;
	}
	conn->wait.len = len;
	if (!p)
		return false;
	c->buf_len = len;
	c->cmd.data = c->cmd.data_len ? p : NULL;
	c->cmd.aux = c->cmd.aux_len ? p + data : NULL;
	return true;
}

static void want_buffer(struct tcp_conn *conn, struct tcp_cmd *c)
{
	if (!conn->want && get_buffer(conn, c)) {
		have_buffer(conn, c);
		return;
	}
	c->cmd.state = TCP_CMD_WAIT;
	c->next = NULL;
	if (conn->want)
		conn->want_last->next = c;
	else
		conn->want = c;
	conn->want_last = c;
	conn->paused |= c->in_capsule;
	ctrl_loop_buffer_wait(conn->q.loop, &conn->wait);
}

void tcp_want_data(struct ctrl_cmd *cmd)
{
	struct tcp_conn *conn = tcp_conn_of(cmd->q);

	conn->running--;
	if (conn->state == TCP_READY) {
		want_buffer(conn, tcp_cmd_of(cmd));
		return;
	}
	tcp_slot_put(conn, tcp_cmd_of(cmd));
	ctrl_loop_later(conn->q.loop, &conn->later);
}

/* ---- PDUs ---- */

static void icreq(struct tcp_conn *conn)
{
	const struct nvme_tcp_icreq *req = (const struct nvme_tcp_icreq *)conn->header;

	if (nvme_get16(req->pfv)) {
		tcp_fatal(conn, NVME_TCP_FES_UNSUPPORTED, offsetof(struct nvme_tcp_icreq, pfv),
			  "format-version");
		return;
	}
	if (req->hpda > 31) {
		tcp_fatal(conn, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_icreq, hpda),
			  "alignment");
		return;
	}
	conn->align = (req->hpda + 1u) * 4;
	conn->hdgst = req->digest & 1;
	conn->ddgst = req->digest & 2;
	conn->state = TCP_READY;
	tcp_send_icresp(conn, req->digest & 3);
	next_pdu(conn);
}

static void capsule(struct tcp_conn *conn)
{
	const struct nvme_tcp_cmd *pdu = (const struct nvme_tcp_cmd *)conn->header;
	struct tcp_cmd *c;

	if (conn->used >= (conn->connected ? conn->q.size : 1u)) {
		tcp_fatal(conn, NVME_TCP_FES_SEQUENCE, 0, "queue-overflow");
		return;
	}
	c = tcp_slot_get(conn);
	if (!c) {
		tcp_close(conn, "memory");
		return;
	}
	c->cmd.sqe = pdu->sqe;
	c->cmd.cqe.cid = pdu->sqe.cid;
	c->cmd.cqe.sqid = nvme_put16(conn->q.qid);
	c->cmd.capsule_len = conn->data_len;
	c->cmd.state = TCP_CMD_RECEIVE;
	if (conn->connected)
		conn->q.sqhd = (uint16_t)((conn->q.sqhd + 1u) % conn->q.size);
	ctrl_server_began(&c->cmd);
	c->status = tcp_slot_name(conn, c) ? ctrl_submit(&c->cmd) : NVME_SC_CID_CONFLICT;
	if (c->status) {
		c->cmd.dir = CTRL_NO_DATA;
		c->cmd.data_len = c->cmd.aux_len = 0;
	}
	if (c->status && conn->data_len) {
		/* It ends when its data have been skipped. */
		conn->rx = c;
		conn->to = NULL;
		conn->phase = TCP_DATA;
		conn->left = conn->data_len;
		return;
	}
	c->in_capsule = conn->data_len;
	if (!c->in_capsule)
		next_pdu(conn);
	if (c->status)
		fail(conn, c, c->status);
	else if (wants_buffer(c))
		want_buffer(conn, c);
	else
		run(conn, c);
}

static void h2c_data(struct tcp_conn *conn)
{
	const struct nvme_tcp_data *pdu = (const struct nvme_tcp_data *)conn->header;
	struct tcp_cmd *c = tcp_slot_at(conn, nvme_get16(pdu->ttag));
	bool last = pdu->hdr.flags & NVME_TCP_F_LAST;

	if (!c || c->cmd.state != TCP_CMD_DATA) {
		tcp_fatal(conn, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_data, ttag),
			  "transfer-tag");
	} else if (nvme_get16(pdu->cccid) != nvme_get16(c->cmd.sqe.cid)) {
		tcp_fatal(conn, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_data, cccid),
			  "command-id");
	} else if (nvme_get32(pdu->datal) != conn->data_len) {
		tcp_fatal(conn, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_data, datal),
			  "data-length");
	} else if (nvme_get32(pdu->datao) != c->cmd.received ||
		   conn->data_len > c->cmd.data_len - c->cmd.received) {
		tcp_fatal(conn, NVME_TCP_FES_DATA_OUT_OF_RANGE, 0, "data-range");
	} else if (last != (conn->data_len == c->cmd.data_len - c->cmd.received)) {
		tcp_fatal(conn, NVME_TCP_FES_HEADER_FIELD, offsetof(struct nvme_tcp_hdr, flags),
			  "last-flag");
	} else {
		expect_data(conn, c);
	}
}

/* All of the header is here. */
static void header_done(struct tcp_conn *conn)
{
	const struct nvme_tcp_hdr *hdr = (const struct nvme_tcp_hdr *)conn->header;
	uint32_t got;

	if (conn->hdgst) {
		memcpy(&got, conn->header + hdr->hlen, sizeof(got));
		got = le32toh(got);
		if (got != nvme_crc32c(0, conn->header, hdr->hlen)) {
			tcp_fatal(conn, NVME_TCP_FES_HEADER_DIGEST, got, "header-digest");
			return;
		}
	}
	switch (hdr->type) {
	case NVME_TCP_ICREQ:
		icreq(conn);
		break;
	case NVME_TCP_CMD:
		capsule(conn);
		break;
	case NVME_TCP_H2C_DATA:
		h2c_data(conn);
		break;
	default: /* checked: H2CTermReq, the host has found our fault */
		tcp_close(conn, "host-terminated");
	}
}

/* The common part of the header is here: how long is the rest? */
static void header_begun(struct tcp_conn *conn)
{
	const struct nvme_tcp_hdr *hdr = (const struct nvme_tcp_hdr *)conn->header;
	const struct ctrl_limits *limits = ctrl_server_limits(conn->q.server);
	bool first = conn->state == TCP_NEW, digests;
	uint32_t max = tcp_max_h2c(conn), fei;
	int fes;

	/* ICReq first, and once. */
	if (hdr->type != NVME_TCP_H2C_TERM && nvme_tcp_header_len(hdr->type) &&
	    first != (hdr->type == NVME_TCP_ICREQ)) {
		tcp_fatal(conn, NVME_TCP_FES_SEQUENCE, 0, "sequence");
		return;
	}
	if (hdr->type == NVME_TCP_CMD)
		max = conn->q.qid ? limits->in_capsule : TCP_ADMIN_IN_CAPSULE;
	fes = nvme_tcp_check(hdr, true, conn->hdgst, conn->ddgst, max, &conn->data_len, &fei);
	if (fes) {
		tcp_fatal(conn, (enum nvme_tcp_fes)fes, fei, "header");
		return;
	}
	digests = hdr->type == NVME_TCP_CMD || hdr->type == NVME_TCP_H2C_DATA;
	conn->need = hdr->hlen + (digests && conn->hdgst ? NVME_TCP_DIGEST : 0);
	if (digests && conn->data_len)
		conn->need = hdr->pdo;
}

/* ---- data ---- */

static void data_done(struct tcp_conn *conn)
{
	struct tcp_cmd *c = conn->rx;

	next_pdu(conn);
	if (c->status)
		fail(conn, c, c->status);
	else if (c->cmd.received < c->cmd.data_len)
		return;
	else if (c->damaged)
		fail(conn, c, NVME_SC_TRANSIENT_TRANSPORT);
	else
		run(conn, c);
}

static void data_moved(struct tcp_conn *conn, uint32_t n)
{
	conn->left -= n;
	if (conn->to) {
		conn->to += n;
		conn->rx->cmd.received += n;
	}
	if (conn->left)
		return;
	if (conn->rx->cmd.state == TCP_CMD_DATA &&
	    conn->rx->cmd.received == conn->rx->cmd.data_len) {
		conn->waiting_data--;
		conn->rx->cmd.state = TCP_CMD_RECEIVE;
	}
	if (conn->ddgst) {
		conn->phase = TCP_DDGST;
		conn->have = 0;
	} else {
		data_done(conn);
	}
}

static void digest_done(struct tcp_conn *conn)
{
	uint32_t got;

	memcpy(&got, conn->digest, sizeof(got));
	if (conn->to && le32toh(got) != nvme_crc32c(0, conn->to - conn->data_len, conn->data_len))
		conn->rx->damaged = true;
	data_done(conn);
}

/* ---- bytes ---- */

static uint32_t take(struct tcp_conn *conn, uint8_t *to, uint32_t want, const uint8_t *p, size_t n)
{
	uint32_t m = n < want - conn->have ? (uint32_t)n : want - conn->have;

	memcpy(to + conn->have, p, m);
	conn->have += m;
	return m;
}

/* How many of @n bytes were used: less than all if we paused or ended. */
static size_t consume(struct tcp_conn *conn, const uint8_t *p, size_t n)
{
	size_t at = 0;
	uint32_t m;

	while (at < n && !conn->paused && !conn->draining &&
	       (conn->state == TCP_NEW || conn->state == TCP_READY)) {
		switch (conn->phase) {
		case TCP_HEADER:
			m = take(conn, conn->header,
				 conn->need ? conn->need : sizeof(struct nvme_tcp_hdr), p + at,
				 n - at);
			at += m;
			if (!conn->need && conn->have == sizeof(struct nvme_tcp_hdr))
				header_begun(conn);
			else if (conn->need && conn->have == conn->need)
				header_done(conn);
			break;
		case TCP_DATA:
			m = n - at < conn->left ? (uint32_t)(n - at) : conn->left;
			if (conn->to)
				memcpy(conn->to, p + at, m);
			at += m;
			data_moved(conn, m);
			break;
		case TCP_DDGST:
			at += take(conn, conn->digest, sizeof(conn->digest), p + at, n - at);
			if (conn->have == sizeof(conn->digest))
				digest_done(conn);
			break;
		}
	}
	return at;
}

static void keep_rest(struct tcp_conn *conn, const uint8_t *p, size_t n)
{
	conn->spill = malloc(n);
	if (!conn->spill) {
		tcp_close(conn, "memory");
		return;
	}
	memcpy(conn->spill, p, n);
	conn->spill_len = (uint32_t)n;
	conn->spill_at = 0;
}

/* Bytes that were read before we paused. */
static void consume_spill(struct tcp_conn *conn)
{
	if (!conn->spill)
		return;
	conn->spill_at += (uint32_t)consume(conn, conn->spill + conn->spill_at,
					    conn->spill_len - conn->spill_at);
	if (conn->spill_at < conn->spill_len && conn->paused)
		return;
	free(conn->spill);
	conn->spill = NULL;
}

void tcp_receive(struct tcp_conn *conn)
{
	for (int turn = 0; turn < READ_TURNS && !conn->paused && !conn->draining; turn++) {
		struct iovec iov[2] = {{NULL, 0}, {scratch, SCRATCH}};
		bool straight = conn->state == TCP_READY && conn->phase == TCP_DATA && conn->to;
		struct msghdr msg = {.msg_iov = iov + !straight, .msg_iovlen = 1 + straight};
		size_t rest, used, whole = SCRATCH;
		ssize_t n;

		if (straight) {
			iov[0] = (struct iovec){conn->to, conn->left};
			whole += conn->left;
		}
		n = recvmsg(conn->watch.fd, &msg, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			tcp_close(conn, n ? "peer" : NULL);
			return;
		}
		conn->in += (size_t)n;
		rest = (size_t)n;
		if (straight) {
			uint32_t m = rest < conn->left ? (uint32_t)rest : conn->left;

			rest -= m;
			data_moved(conn, m);
		}
		used = consume(conn, scratch, rest);
		if (conn->state == TCP_CLOSED)
			return;
		if (used < rest && conn->paused)
			keep_rest(conn, scratch + used, rest - used);
		if ((size_t)n < whole)
			return;
	}
}

void tcp_buffer_ready(struct ctrl_buffer_wait *w)
{
	struct tcp_conn *conn = (struct tcp_conn *)((char *)w - offsetof(struct tcp_conn, wait));
	struct tcp_cmd *c;

	while ((c = conn->want)) {
		if (!get_buffer(conn, c)) {
			ctrl_loop_buffer_wait(conn->q.loop, w);
			break;
		}
		conn->want = c->next;
		have_buffer(conn, c);
		if (!conn->paused)
			consume_spill(conn);
		if (conn->state != TCP_READY)
			break;
	}
	tcp_settle(conn);
}

bool tcp_abort(struct ctrl_cmd *cmd)
{
	struct tcp_conn *conn = tcp_conn_of(cmd->q);
	struct tcp_cmd *c = tcp_cmd_of(cmd), **at = &conn->want, *before = NULL;

	if (cmd->state != TCP_CMD_WAIT || c->in_capsule)
		return false;
	while (*at != c) {
		before = *at;
		at = &before->next;
	}
	*at = c->next;
	if (conn->want_last == c)
		conn->want_last = before;
	if (!conn->want)
		ctrl_loop_buffer_unwait(conn->q.loop, &conn->wait);
	fail(conn, c, NVME_SC_ABORT_REQUESTED);
	return true;
}
