/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_target.c - NVMe over TCP: a connection's life, from accept to its last command, and its time-outs.
 *
 * A connection is closed at once and freed when no handler has a command of it any more, always from
 * the end of a round of events, never under a caller's feet.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "device/compute.h"
#include "device/tcp_private.h"

/* The least that must move in a stall time for a transfer not to count as stalled. */
#define PROGRESS   65536u
#define STRIKES    4u /* looks in a stall time */
#define LINGER_MS  30000u
#define LINGER_MAX (1u << 20) /* bytes skipped before we close first */
#define DRAIN_MS   20u

static void peer_text(const struct tcp_conn *conn, char text[80])
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo((const struct sockaddr *)&conn->q.peer, sizeof(conn->q.peer), host,
			sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, 80, "?");
	else
		snprintf(text, 80, "%.60s:%.10s", host, port);
}

static void log_end(struct tcp_conn *conn, const char *why)
{
	char peer[80];

	peer_text(conn, peer);
	ctrl_log(conn->q.server, "event=connection-ended peer=%s qid=%u cntlid=%u why=%s", peer,
		 conn->q.qid, conn->q.ctrl ? conn->q.ctrl->cntlid : 0, why);
	ctrl_server_reject(conn->q.server, why);
}

/* ---- the end ---- */

static void detach(struct tcp_conn *conn)
{
	if (conn->detached)
		return;
	conn->detached = true;
	ctrl_disconnect(&conn->q);
	ctrl_lambda_leave(&conn->q);
	ctrl_compute_leave(&conn->q);
}

static void destroy(struct tcp_conn *conn)
{
	tcp_slots_free(conn);
	ctrl_leave(&conn->q);
	ctrl_server_left(&conn->q);
	free(conn);
}

/* Disconnect, whose answer waits for all others. */
static void end_last(struct tcp_conn *conn, uint16_t status)
{
	struct ctrl_cmd *last = conn->last;

	conn->last = NULL;
	if (last)
		ctrl_complete(last, status);
}

void tcp_close(struct tcp_conn *conn, const char *why)
{
	if (conn->state == TCP_CLOSED)
		return;
	if (why)
		log_end(conn, why);
	conn->state = TCP_CLOSED;
	ctrl_loop_unwatch(conn->q.loop, &conn->watch);
	ctrl_timer_cancel(conn->q.loop, &conn->timer);
	ctrl_loop_buffer_unwait(conn->q.loop, &conn->wait);
	detach(conn); /* nobody else finds the socket from here on */
	close(conn->watch.fd);
	conn->watch.fd = -1;
	conn->tx = conn->want = NULL;
	tcp_slots_drop(conn, NULL);
	end_last(conn, NVME_SC_ABORT_SQ_DELETED);
	free(conn->spill);
	conn->spill = NULL;
	ctrl_loop_later(conn->q.loop, &conn->later);
}

/* What was said last must arrive: a socket closed with something unread in it takes that back. */
static void linger(struct tcp_conn *conn)
{
	uint64_t ms = ctrl_server_limits(conn->q.server)->stall_ms;

	conn->state = TCP_ENDING;
	conn->in_mark = conn->in;
	ctrl_timer_cancel(conn->q.loop, &conn->timer);
	ctrl_timer_arm(conn->q.loop, &conn->timer, ms < LINGER_MS ? ms : LINGER_MS);
}

void tcp_fatal(struct tcp_conn *conn, enum nvme_tcp_fes fes, uint32_t fei, const char *why)
{
	tcp_flush(conn);
	if (conn->state == TCP_CLOSED)
		return;
	log_end(conn, why);
	linger(conn);
	conn->paused = false;
	ctrl_loop_buffer_unwait(conn->q.loop, &conn->wait);
	detach(conn);
	tcp_send_term(conn, fes, fei);
}

/* Any thread, for as long as the queue is in its controller's list: the loop sees the socket end. */
static void tcp_shutdown(struct ctrl_queue *q)
{
	struct tcp_conn *conn = tcp_conn_of(q);

	if (conn->watch.fd >= 0)
		shutdown(conn->watch.fd, SHUT_RDWR);
}

/* ---- drain ---- */

static bool io_queues_left(const struct tcp_conn *conn)
{
	struct ctrl_controller *c = conn->q.ctrl;
	bool left;

	if (!c || conn->q.qid)
		return false;
	pthread_mutex_lock(&c->sub->lock);
	left = c->queues && (c->queues != &conn->q || c->queues->next);
	pthread_mutex_unlock(&c->sub->lock);
	return left;
}

static void drain_check(struct tcp_conn *conn)
{
	uint32_t stay = conn->q.parked + (conn->last ? 1u : 0u);
	bool idle = conn->running <= stay && !conn->tx && !conn->want;

	if (conn->state != TCP_READY)
		return;
	if (idle && conn->last) {
		/* Who reads the answer may connect a queue of this number. */
		detach(conn);
		end_last(conn, NVME_SC_SUCCESS);
	} else if (idle && conn->drain_end_ns) {
		conn->draining = conn->paused = false;
		linger(conn);
		shutdown(conn->watch.fd, SHUT_WR);
		tcp_settle(conn);
		return;
	} else if (idle && !io_queues_left(conn)) {
		tcp_close(conn, NULL);
		return;
	} else if (conn->drain_end_ns && ctrl_now_ns() > conn->drain_end_ns) {
		tcp_close(conn, "stalled");
		return;
	}
	if (!conn->timer.at_ns)
		ctrl_timer_arm(conn->q.loop, &conn->timer, DRAIN_MS);
}

static void tcp_drain(struct ctrl_queue *q)
{
	struct tcp_conn *conn = tcp_conn_of(q);

	if (conn->state == TCP_CLOSED)
		return;
	if (conn->state != TCP_READY || !conn->connected) {
		tcp_close(conn, NULL);
		return;
	}
	conn->draining = true;
	ctrl_timer_cancel(q->loop, &conn->timer);
	tcp_settle(conn);
	drain_check(conn);
}

static void tcp_disconnect(struct ctrl_cmd *cmd)
{
	struct tcp_conn *conn = tcp_conn_of(cmd->q);

	conn->last = cmd;
	conn->drain_end_ns =
		ctrl_now_ns() + ctrl_server_limits(conn->q.server)->stall_ms * 1000000ull;
	tcp_drain(&conn->q);
}

/* ---- time-outs ---- */

static bool may_stall(const struct tcp_conn *conn)
{
	return conn->have || conn->phase != TCP_HEADER || conn->tx || conn->control.len ||
	       conn->waiting_data;
}

static void mark(struct tcp_conn *conn)
{
	conn->in_mark = conn->in;
	conn->out_mark = conn->out;
	conn->pdus_mark = conn->pdus;
	conn->sent_all = !conn->tx && !conn->control.len;
}

/* The longest awaited data must be coming: others' data do not make up for them. */
static bool oldest_moved(struct tcp_conn *conn)
{
	const struct tcp_cmd *oldest = NULL;
	bool moved;

	for (uint32_t i = 0; i < conn->n_chunks * TCP_SLOT_CHUNK; i++) {
		const struct tcp_cmd *c = tcp_slot_at(conn, (uint16_t)i);

		if (c->cmd.state == TCP_CMD_DATA &&
		    (!oldest || (int32_t)(c->order - oldest->order) < 0))
			oldest = c;
	}
	if (!oldest)
		return true;
	moved = oldest->order != conn->oldest_mark ||
		oldest->cmd.received - conn->oldest_received >= PROGRESS;
	if (moved) {
		conn->oldest_mark = oldest->order;
		conn->oldest_received = oldest->cmd.received;
	}
	return moved;
}

static void strike(uint8_t *strikes, bool moved)
{
	*strikes = moved ? 0 : *strikes + 1;
}

static void look(struct tcp_conn *conn)
{
	bool receiving = !conn->paused && (conn->have || conn->phase != TCP_HEADER);

	strike(&conn->in_strikes,
	       !receiving || conn->pdus != conn->pdus_mark || conn->in - conn->in_mark >= PROGRESS);
	strike(&conn->out_strikes, conn->sent_all || conn->out - conn->out_mark >= PROGRESS);
	strike(&conn->data_strikes, oldest_moved(conn));
	mark(conn);
}

static void look_after(struct tcp_conn *conn)
{
	if (conn->timer.at_ns || !may_stall(conn))
		return;
	conn->in_strikes = conn->out_strikes = conn->data_strikes = 0;
	conn->oldest_mark = conn->order - 1;
	conn->oldest_received = 0;
	mark(conn);
	ctrl_timer_arm(conn->q.loop, &conn->timer,
		       ctrl_server_limits(conn->q.server)->stall_ms / STRIKES + 1);
}

static void on_timer(struct ctrl_timer *t)
{
	struct tcp_conn *conn = (struct tcp_conn *)((char *)t - offsetof(struct tcp_conn, timer));

	if (conn->state == TCP_ENDING) {
		tcp_close(conn, NULL);
	} else if (!conn->connected) {
		tcp_close(conn, "handshake");
	} else if (conn->draining) {
		drain_check(conn);
	} else {
		look(conn);
		if (conn->in_strikes >= STRIKES || conn->out_strikes >= STRIKES ||
		    conn->data_strikes >= STRIKES)
			tcp_close(conn, "stalled");
		else if (may_stall(conn))
			ctrl_timer_arm(conn->q.loop, t,
				       ctrl_server_limits(conn->q.server)->stall_ms / STRIKES + 1);
	}
}

/* ---- events ---- */

void tcp_settle(struct tcp_conn *conn)
{
	uint32_t events =
		(conn->paused || conn->draining ? 0 : EPOLLIN) | (conn->blocked ? EPOLLOUT : 0);

	if (conn->state == TCP_CLOSED)
		return;
	if (events != conn->events) {
		conn->events = events;
		if (ctrl_loop_rewatch(conn->q.loop, &conn->watch, events)) {
			tcp_close(conn, "memory");
			return;
		}
	}
	if (conn->state == TCP_READY && conn->connected && !conn->draining)
		look_after(conn);
}

static void skip_input(struct tcp_conn *conn)
{
	static _Thread_local uint8_t nowhere[4096];
	ssize_t n = recv(conn->watch.fd, nowhere, sizeof(nowhere), MSG_DONTWAIT);

	if (n > 0)
		conn->in += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ||
	    conn->in - conn->in_mark > LINGER_MAX)
		tcp_close(conn, NULL);
}

static void on_ready(struct ctrl_watch *w, uint32_t events)
{
	struct tcp_conn *conn = (struct tcp_conn *)((char *)w - offsetof(struct tcp_conn, watch));

	if (events & EPOLLERR || (events & EPOLLHUP && !(events & EPOLLIN))) {
		tcp_close(conn, NULL);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP)) {
		conn->now = ctrl_now_ns();
		if (conn->q.ctrl && !conn->detached)
			atomic_store_explicit(&conn->q.ctrl->seen_ns, conn->now,
					      memory_order_relaxed);
		if (conn->state == TCP_ENDING)
			skip_input(conn);
		else
			tcp_receive(conn);
	}
	if (events & EPOLLOUT && conn->state != TCP_CLOSED)
		tcp_flush(conn);
	tcp_settle(conn);
}

/* The end of a round of events: write what it brought; free what ended. */
static void on_later(struct ctrl_later *l)
{
	struct tcp_conn *conn = (struct tcp_conn *)((char *)l - offsetof(struct tcp_conn, later));

	if (conn->state != TCP_CLOSED && !conn->blocked)
		tcp_flush(conn);
	if (conn->state == TCP_ENDING && !conn->tx && !conn->control.len)
		shutdown(conn->watch.fd, SHUT_WR);
	tcp_settle(conn);
	if (conn->draining && conn->state == TCP_READY)
		drain_check(conn);
	if (conn->state == TCP_CLOSED && !conn->running && !l->queued)
		destroy(conn);
}

/* ---- the beginning ---- */

static struct ctrl_cmd *tcp_find(struct ctrl_queue *q, uint16_t cid)
{
	struct tcp_cmd *c = tcp_slot_find(tcp_conn_of(q), cid);

	return c ? &c->cmd : NULL;
}

static const struct ctrl_transport tcp_transport = {
	.name = "tcp",
	.complete = tcp_complete,
	.close = tcp_shutdown,
	.drain = tcp_drain,
	.find = tcp_find,
	.abort = tcp_abort,
	.want_data = tcp_want_data,
	.disconnect = tcp_disconnect,
};

int tcp_connected(struct tcp_conn *conn)
{
	int rc = tcp_slots_grow(conn);

	if (rc)
		return rc;
	conn->connected = true;
	conn->q.sqhd = 1 % conn->q.size;
	ctrl_timer_cancel(conn->q.loop, &conn->timer);
	return 0;
}

int ctrl_tcp_serve(struct ctrl_server *s, struct ctrl_loop *loop, int fd)
{
	struct tcp_conn *conn = calloc(1, sizeof(*conn));
	socklen_t peer = sizeof(conn->q.peer), local = sizeof(conn->q.local);
	const int one = 1;
	int rc = -ENOMEM;

	if (!conn)
		goto fail;
	rc = -ENOTCONN; /* it may be gone already */
	if (getpeername(fd, (struct sockaddr *)&conn->q.peer, &peer) ||
	    getsockname(fd, (struct sockaddr *)&conn->q.local, &local) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)))
		goto fail;
	conn->q.loop = loop;
	conn->q.server = s;
	conn->q.transport = &tcp_transport;
	conn->align = 4;
	conn->watch = (struct ctrl_watch){fd, on_ready};
	conn->timer.fire = on_timer;
	conn->later.run = on_later;
	conn->wait.ready = tcp_buffer_ready;
	conn->buckets = &conn->first_bucket;
	conn->events = EPOLLIN;
	rc = ctrl_loop_watch(loop, &conn->watch, EPOLLIN);
	if (rc)
		goto fail;
	ctrl_timer_arm(loop, &conn->timer, ctrl_server_limits(s)->handshake_ms);
	ctrl_server_joined(&conn->q);
	return 0;
fail:
	free(conn);
	close(fd);
	return rc;
}
