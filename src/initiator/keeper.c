/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.c - the host's own thread: commands that take too long, keep alive, reconnecting, and the sockets of
 * a host whose eventfd somebody watches.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "initiator/internal.h"

#define ABORT_GRACE_MS   5000u /* at most: for an aborted command to end */
#define BACKOFF_FIRST_MS 50u
#define BACKOFF_LAST_MS  5000u

/* ---- time-outs and cancelling: Abort first, then the connection ---- */

static void send_admin(struct nvme_host *host, struct nvme_req *req, uint8_t opcode, uint32_t cdw10,
		       uint32_t timeout_ms)
{
	struct queue *q = &host->queues[0];

	*req = (struct nvme_req){
		.sqe = {.opcode = opcode, .cdw10 = nvme_put32(cdw10)},
		.timeout_ms = timeout_ms,
	};
	queue_lock(q);
	if (q->live && q->n_free) {
		queue_append(q, req);
		queue_pump(q);
	}
	queue_unlock(q);
}

static bool busy(struct nvme_host *host, const struct nvme_req *req)
{
	struct queue *q = &host->queues[0];
	bool is;

	queue_lock(q);
	is = req->state == REQ_SENT || req->state == REQ_WAITING;
	queue_unlock(q);
	return is;
}

struct overdue { /* what a look at a queue found */
	uint64_t next_ns;
	bool abort;
	uint16_t qid, cid;
	uint32_t grace_ms;
};

static uint32_t grace_of(const struct nvme_host *host, const struct nvme_req *req)
{
	uint32_t ms = req->timeout_ms ? req->timeout_ms : host->opts.timeout_ms;

	return ms < ABORT_GRACE_MS ? ms : ABORT_GRACE_MS;
}

static void look_at_slot(struct queue *q, struct slot *s, uint64_t now, struct overdue *o)
{
	bool internal = !s->req->done && !s->req->sync;
	uint32_t grace = grace_of(q->host, s->req);

	if (s->deadline_ns <= now) {
		if (s->expired || s->cancelled || internal) { /* it was aborted already */
			s->expired = true;
			queue_fail(q, -ETIMEDOUT, "command %02xh was not answered, nor its Abort",
				   s->req->sqe.opcode);
			return;
		}
		s->expired = true;
		s->deadline_ns = now + grace * MS;
	}
	if ((s->expired || s->cancelled) && !s->aborting && !o->abort) {
		s->aborting = true;
		*o = (struct overdue){o->next_ns, true, q->qid, (uint16_t)(s - q->slots), grace};
	}
	if (s->deadline_ns < o->next_ns)
		o->next_ns = s->deadline_ns;
}

static void look_at_queue(struct queue *q, bool may_abort, struct overdue *o)
{
	uint64_t now;

	queue_lock(q);
	queue_drive(q); /* the answer may be there */
	now = now_ns();
	o->abort = !may_abort;
	for (uint16_t i = 0; i < q->depth && !q->failed; i++)
		if (q->slots[i].req)
			look_at_slot(q, &q->slots[i], now, o);
	o->abort = o->abort && may_abort;
	queue_unlock(q);
}

/* Everything that is due; returns when to look again. */
static uint64_t look(struct nvme_host *host)
{
	struct overdue o = {.next_ns = UINT64_MAX};
	uint64_t next;

	for (unsigned int i = 0; i < host->n_queues && !atomic_load(&host->broken); i++) {
		look_at_queue(&host->queues[i], !busy(host, &host->abort), &o);
		if (o.abort)
			send_admin(host, &host->abort, NVME_ADMIN_ABORT,
				   (uint32_t)o.cid << 16 | o.qid, o.grace_ms);
	}
	next = o.next_ns;
	if (host->keep_alive_at <= now_ns()) {
		if (busy(host, &host->keep_alive)) {
			host_broken(host, -ETIMEDOUT, "a keep alive was not answered");
			return 0;
		}
		send_admin(host, &host->keep_alive, NVME_ADMIN_KEEP_ALIVE, 0, host->kato_ms);
		host->keep_alive_at = now_ns() + host->kato_ms * MS / 2;
	}
	return next < host->keep_alive_at ? next : host->keep_alive_at;
}

/* ---- sleeping ---- */

static void sleep_until(struct nvme_host *host, uint64_t at_ns)
{
	struct pollfd fds[MAX_IO_QUEUES + 2];
	unsigned int n = 0;
	bool exported;

	pthread_mutex_lock(&host->leaf);
	exported = host->exported;
	pthread_mutex_unlock(&host->leaf);
	/*
	 * The admin connection is always watched: its end is how a dead target is noticed at once.  One that
	 * has no room for what is to be sent may have no other thread to wait for it.
	 */
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		fds[n] = (struct pollfd){.fd = -1};
		if (q->live && (!i || exported || q->tx))
			fds[n] = (struct pollfd){.fd = q->fd, .events = queue_poll_begin(q)};
		n++;
		queue_unlock(q);
	}
	fds[n] = (struct pollfd){.fd = host->keeper_kick, .events = POLLIN};
	atomic_store(&host->keeper_wakes, at_ns);
	poll(fds, n + 1, atomic_load(&host->broken) ? 0 : ms_until(at_ns));
	atomic_store(&host->keeper_wakes, UINT64_MAX);
	if (fds[n].revents)
		unkick(host->keeper_kick);
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		if (fds[i].fd < 0)
			continue;
		queue_lock(q);
		queue_poll_end(q, fds[i].events);
		if (fds[i].revents)
			queue_drive(q);
		queue_unlock(q);
	}
}

/* ---- reconnecting ---- */

static void take_down(struct nvme_host *host, bool again)
{
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		queue_close(q, again);
		queue_unlock(q);
	}
	host->keep_alive.state = REQ_IDLE;
	host->abort.state = REQ_IDLE;
}

static void give_up(struct nvme_host *host)
{
	atomic_store(&host->dead, true);
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		queue_drop(q, -ENOLINK);
		queue_unlock(q);
	}
	host_wake(host);
}

/* The wait before the n-th try: doubling, and by a quarter at random so that many hosts do not come at once. */
static int backoff_ms(unsigned int attempt)
{
	uint32_t ms = attempt < 7 ? BACKOFF_FIRST_MS << attempt : BACKOFF_LAST_MS, random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)now_ns();
	return (int)(ms - ms / 4 + random % (ms / 2));
}

static void recover(struct nvme_host *host)
{
	uint64_t until = now_ns() + host->opts.reconnect_ms * MS;
	bool again = host->opts.reconnect_ms != 0;

	take_down(host, again);
	for (unsigned int i = 0; again && !atomic_load(&host->stopping); i++) {
		struct pollfd p = {.fd = host->keeper_kick, .events = POLLIN};
		int left = ms_until(until), wait = backoff_ms(i), err;
		uint64_t at = now_ns() + (uint64_t)wait * MS;

		if (!left)
			break;
		while (!atomic_load(&host->stopping) && (left = ms_until(at)) > 0)
			if (poll(&p, 1, left) > 0)
				unkick(host->keeper_kick);
		if (atomic_load(&host->stopping))
			break;
		err = host_establish(host);
		if (!err)
			return;
		pthread_mutex_lock(&host->leaf);
		strncpy(host->why, nvme_host_error(), sizeof(host->why) - 1);
		host->why_code = err;
		pthread_mutex_unlock(&host->leaf);
		take_down(host, again);
	}
	if (!atomic_load(&host->stopping)) /* else closing says what becomes of requests */
		give_up(host);
}

void *keeper_main(void *arg)
{
	struct nvme_host *host = arg;

	while (!atomic_load(&host->stopping)) {
		if (atomic_load(&host->dead)) {
			struct pollfd p = {.fd = host->keeper_kick, .events = POLLIN};

			poll(&p, 1, -1);
			unkick(host->keeper_kick);
		} else if (atomic_load(&host->broken)) {
			recover(host);
		} else {
			atomic_store(&host->keeper_wakes, UINT64_MAX);
			sleep_until(host, look(host));
		}
	}
	return NULL;
}
