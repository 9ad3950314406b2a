/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_send.c - commands to bytes: PDUs are made in the command itself and written, many at a time, when
 * the loop's round of events ends.
 *
 * Nothing is copied into a queue of bytes, so what waits to be sent is bounded by the queue's size.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "device/tcp_private.h"

#define IOVS 96

static void put_digest(uint8_t *at, uint32_t crc)
{
	crc = htole32(crc);
	memcpy(at, &crc, sizeof(crc));
}

/* The header's digest behind its @len bytes, if there is one; the length of both. */
static uint32_t header_digest(const struct tcp_conn *conn, uint8_t *header, uint32_t len)
{
	if (!conn->hdgst)
		return len;
	put_digest(header + len, nvme_crc32c(0, header, len));
	return len + NVME_TCP_DIGEST;
}

static void enqueue(struct tcp_conn *conn, struct tcp_cmd *c)
{
	c->sent = 0;
	c->next = NULL;
	if (conn->tx)
		conn->tx_last->next = c;
	else
		conn->tx = c;
	conn->tx_last = c;
	ctrl_loop_later(conn->q.loop, &conn->later);
}

void tcp_send_r2t(struct tcp_conn *conn, struct tcp_cmd *c)
{
	struct nvme_tcp_r2t *r2t = (struct nvme_tcp_r2t *)c->head;

	*r2t = (struct nvme_tcp_r2t){
		.cccid = c->cmd.sqe.cid,
		.ttag = nvme_put16(c->cmd.ttag),
		.r2tl = nvme_put32(c->cmd.data_len),
	};
	nvme_tcp_init(&r2t->hdr, NVME_TCP_R2T, 0, conn->hdgst, false, 4, 0);
	c->head_len = (uint8_t)header_digest(conn, c->head, sizeof(*r2t));
	c->body_len = c->tail_len = 0;
	c->cmd.state = TCP_CMD_R2T;
	enqueue(conn, c);
}

static uint32_t put_response(struct tcp_conn *conn, struct tcp_cmd *c, uint8_t *at)
{
	struct nvme_tcp_rsp *rsp = (struct nvme_tcp_rsp *)at;

	rsp->cqe = c->cmd.cqe;
	nvme_tcp_init(&rsp->hdr, NVME_TCP_RSP, 0, conn->hdgst, false, 4, 0);
	return header_digest(conn, at, sizeof(*rsp));
}

static void put_data(struct tcp_conn *conn, struct tcp_cmd *c, bool success)
{
	struct nvme_tcp_data *pdu = (struct nvme_tcp_data *)c->head;
	uint8_t flags = NVME_TCP_F_LAST | (success ? NVME_TCP_F_SUCCESS : 0);
	uint32_t len;

	memset(c->head, 0, sizeof(c->head));
	pdu->cccid = c->cmd.sqe.cid;
	pdu->datal = nvme_put32(c->cmd.data_len);
	nvme_tcp_init(&pdu->hdr, NVME_TCP_C2H_DATA, flags, conn->hdgst, conn->ddgst, conn->align,
		      c->cmd.data_len);
	header_digest(conn, c->head, sizeof(*pdu));
	c->head_len = pdu->hdr.pdo;
	c->body_len = c->cmd.data_len;
	len = 0;
	if (conn->ddgst) {
		put_digest(c->tail, nvme_crc32c(0, c->cmd.data, c->cmd.data_len));
		len = NVME_TCP_DIGEST;
	}
	if (!success)
		len += put_response(conn, c, c->tail + len);
	c->tail_len = (uint8_t)len;
}

void tcp_complete(struct ctrl_cmd *cmd)
{
	struct tcp_conn *conn = tcp_conn_of(cmd->q);
	struct tcp_cmd *c = tcp_cmd_of(cmd);
	bool good = !nvme_get16(cmd->cqe.status), success;

	conn->running--;
	c->cmd.state = TCP_CMD_SEND;
	if (good && conn->q.ctrl && !conn->connected && tcp_connected(conn))
		tcp_close(conn, "memory");
	if (conn->state != TCP_READY) {
		if (c->cmd.state != TCP_CMD_FREE)
			tcp_slot_put(conn, c);
		if (conn->state == TCP_CLOSED)
			ctrl_loop_later(conn->q.loop, &conn->later);
		return;
	}
	cmd->cqe.sqhd = nvme_put16(conn->q.no_sq_flow ? 0xffff : conn->q.sqhd);
	if (good && cmd->dir == CTRL_TO_HOST) {
		/* Data that say themselves that all went well save the host an answer (3.3.2.1 of TCP). */
		success = conn->q.no_sq_flow && !nvme_get32(cmd->cqe.dw0) &&
			  !nvme_get32(cmd->cqe.dw1);
		put_data(conn, c, success);
	} else {
		tcp_buffer_put(conn, c);
		c->head_len = (uint8_t)put_response(conn, c, c->head);
		c->body_len = c->tail_len = 0;
	}
	enqueue(conn, c);
}

/* ---- what is no command's ---- */

void tcp_send_icresp(struct tcp_conn *conn, uint8_t digests)
{
	struct nvme_tcp_icresp *resp = (struct nvme_tcp_icresp *)conn->control.bytes;

	*resp = (struct nvme_tcp_icresp){
		.digest = digests,
		.maxh2cdata = nvme_put32(tcp_max_h2c(conn) & ~3u),
	};
	nvme_tcp_init(&resp->hdr, NVME_TCP_ICRESP, 0, false, false, 4, 0);
	conn->control.len = sizeof(*resp);
	ctrl_loop_later(conn->q.loop, &conn->later);
}

/* What was not begun is not sent any more; what was, is: else the host could not read the request. */
void tcp_send_term(struct tcp_conn *conn, enum nvme_tcp_fes fes, uint32_t fei)
{
	struct nvme_tcp_term *term = (struct nvme_tcp_term *)conn->control.bytes;
	struct tcp_cmd *begun = conn->tx && conn->tx->sent ? conn->tx : NULL;
	uint32_t len = conn->have < NVME_TCP_TERM_DATA_MAX ? conn->have : NVME_TCP_TERM_DATA_MAX;

	conn->tx = conn->tx_last = begun;
	if (begun)
		begun->next = NULL;
	conn->want = conn->want_last = NULL;
	tcp_slots_drop(conn, begun);
	/* An answer to ICReq that is still here comes first. */
	if (conn->control.sent < conn->control.len)
		return;
	*term = (struct nvme_tcp_term){.fes = nvme_put16((uint16_t)fes), .fei = nvme_put32(fei)};
	memcpy(term + 1, conn->header, len);
	nvme_tcp_init(&term->hdr, NVME_TCP_C2H_TERM, 0, false, false, 4, len);
	conn->control.len = (uint32_t)sizeof(*term) + len;
	conn->control.sent = 0;
	ctrl_loop_later(conn->q.loop, &conn->later);
}

/* ---- writing ---- */

static uint32_t length(const struct tcp_cmd *c)
{
	return c->head_len + c->body_len + c->tail_len;
}

static int add(struct iovec *iov, int n, uint8_t *part, uint32_t len, uint32_t *skip)
{
	if (*skip >= len) {
		*skip -= len;
		return n;
	}
	iov[n] = (struct iovec){part + *skip, len - *skip};
	*skip = 0;
	return n + 1;
}

static int gather(struct tcp_conn *conn, struct iovec iov[IOVS])
{
	uint32_t skip;
	int n = 0;

	for (struct tcp_cmd *c = conn->tx; c; c = c->next) {
		if (n > IOVS - 4)
			return n;
		skip = c->sent;
		n = add(iov, n, c->head, c->head_len, &skip);
		n = add(iov, n, c->cmd.data, c->body_len, &skip);
		n = add(iov, n, c->tail, c->tail_len, &skip);
	}
	skip = conn->control.sent;
	return add(iov, n, conn->control.bytes, conn->control.len, &skip);
}

static void sent(struct tcp_conn *conn, size_t n)
{
	conn->out += n;
	while (conn->tx && n >= length(conn->tx) - conn->tx->sent) {
		struct tcp_cmd *c = conn->tx;

		n -= length(c) - c->sent;
		conn->tx = c->next;
		if (c->cmd.state == TCP_CMD_R2T) {
			c->cmd.state = TCP_CMD_DATA;
			c->order = conn->order++;
			conn->waiting_data++;
		} else {
			tcp_slot_put(conn, c);
		}
	}
	if (conn->tx) {
		conn->tx->sent += (uint32_t)n;
		return;
	}
	conn->control.sent += (uint32_t)n;
	if (conn->control.sent == conn->control.len) {
		conn->control.sent = conn->control.len = 0;
		conn->sent_all = true;
	}
}

void tcp_flush(struct tcp_conn *conn)
{
	struct iovec iov[IOVS];
	struct msghdr msg = {.msg_iov = iov};
	ssize_t n;

	conn->blocked = false;
	while ((msg.msg_iovlen = (size_t)gather(conn, iov)) > 0) {
		n = sendmsg(conn->watch.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				conn->blocked = true;
			else
				tcp_close(conn, "peer");
			return;
		}
		sent(conn, (size_t)n);
	}
}
