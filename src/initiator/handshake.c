/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handshake.c - from an address to queues that take commands: TCP, ICReq, Fabrics Connect, enabling the
 * controller, learning its limits; and shutting it down.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "initiator/internal.h"

#define SLICE_MS        100 /* how soon a closing host is noticed */
#define SHUTDOWN_MS     1000u
#define READY_UNIT_MS   500u                               /* of CAP.TO */
#define CC_ENABLE       (NVME_CC_EN | 6u << 16 | 4u << 20) /* entries of 64 and 16 bytes */
#define CC_SHN_NORMAL   (1u << 14)
#define CSTS_SHST(csts) ((csts) >> 2 & 3)

static int failed(struct nvme_host *host, int err, const char *what, const char *why)
{
	return initiator_fail(err, "%s: %s: %s", host->address, what, why);
}

/* ---- TCP ---- */

static int wait_for(struct nvme_host *host, int fd, short events, uint64_t deadline)
{
	while (!atomic_load(&host->stopping)) {
		struct pollfd p = {.fd = fd, .events = events};
		int left = ms_until(deadline), n;

		if (!left)
			return -ETIMEDOUT;
		n = poll(&p, 1, left < SLICE_MS ? left : SLICE_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ECANCELED;
}

static int tcp_try(struct nvme_host *host, const struct addrinfo *at, uint64_t deadline)
{
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err = 0, on = 1;
	socklen_t len = sizeof(err);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, at->ai_addr, at->ai_addrlen)) {
		err = errno == EINPROGRESS ? wait_for(host, fd, POLLOUT, deadline) : -errno;
		if (!err && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
			err = errno;
	}
	if (!err)
		return fd;
	close(fd);
	return err < 0 ? err : -err;
}

static int tcp_connect(struct nvme_host *host, uint64_t deadline)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list;
	int err = getaddrinfo(host->node, host->port, &hints, &list), fd = -EHOSTUNREACH;

	if (err == EAI_NONAME || err == EAI_ADDRFAMILY) { /* loopback has no configured address */
		hints.ai_flags = 0;
		err = getaddrinfo(host->node, host->port, &hints, &list);
	}
	if (err)
		return failed(host, -EHOSTUNREACH, "the name was not found", gai_strerror(err));
	for (const struct addrinfo *at = list; at; at = at->ai_next) {
		fd = tcp_try(host, at, deadline);
		if (fd >= 0 || fd == -ECANCELED || fd == -ETIMEDOUT)
			break;
	}
	freeaddrinfo(list);
	return fd >= 0 ? fd : failed(host, fd, "connecting failed", strerror(-fd));
}

/* Exactly @len bytes. */
static int receive_all(struct nvme_host *host, int fd, void *buf, size_t len, uint64_t deadline)
{
	for (uint8_t *p = buf; len;) {
		ssize_t n = recv(fd, p, len, MSG_DONTWAIT);
		int err;

		if (!n)
			return -ECONNRESET;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		err = wait_for(host, fd, POLLIN, deadline);
		if (err)
			return err;
	}
	return 0;
}

/* What the target said, checked; NULL or what is wrong. */
static const char *accept_icresp(struct queue *q, const struct nvme_tcp_icresp *r)
{
	const struct nvme_host_opts *o = &q->host->opts;
	uint32_t data_len, fei;

	if (r->hdr.type != NVME_TCP_ICRESP ||
	    nvme_tcp_check(&r->hdr, false, false, false, 0, &data_len, &fei))
		return "it does not speak NVMe/TCP (no valid ICResp)";
	if (nvme_get16(r->pfv))
		return "it speaks another version of NVMe/TCP";
	if (r->cpda > 31 || nvme_get32(r->maxh2cdata) < 4096)
		return "its ICResp has invalid limits";
	if ((r->digest & 1 && !o->header_digest) || (r->digest & 2 && !o->data_digest))
		return "it wants digests that were not offered";
	q->hdgst = r->digest & 1;
	q->ddgst = r->digest & 2;
	q->align = (r->cpda + 1u) * 4;
	q->max_h2c = nvme_get32(r->maxh2cdata) & ~3u;
	return NULL;
}

static int queue_open(struct queue *q, uint64_t deadline)
{
	struct nvme_host *host = q->host;
	struct nvme_tcp_icreq req = {
		.digest = (uint8_t)((host->opts.header_digest ? 1 : 0) |
				    (host->opts.data_digest ? 2 : 0)),
	};
	struct nvme_tcp_icresp resp;
	const char *wrong;
	int fd = tcp_connect(host, deadline), err;

	if (fd < 0)
		return fd;
	nvme_tcp_init(&req.hdr, NVME_TCP_ICREQ, 0, false, false, 4, 0);
	if (send(fd, &req, sizeof(req), MSG_NOSIGNAL) != (ssize_t)sizeof(req))
		err = -ECONNRESET;
	else
		err = receive_all(host, fd, &resp, sizeof(resp), deadline);
	if (err) {
		close(fd);
		return failed(host, err, "no NVMe/TCP there",
			      err == -ECONNRESET  ? "the connection was closed"
			      : err == -ETIMEDOUT ? "no answer to ICReq"
						  : strerror(-err));
	}
	wrong = accept_icresp(q, &resp);
	if (wrong) {
		close(fd);
		return failed(host, -EPROTO, "no NVMe/TCP there", wrong);
	}
	/* From here on who does not want to sleep says so in the call. */
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	queue_lock(q);
	q->fd = fd;
	q->failed = false;
	queue_unlock(q);
	return 0;
}

/* ---- commands of the handshake ---- */

static int call(struct queue *q, struct nvme_req *req, const char *what, uint64_t deadline)
{
	struct nvme_host *host = q->host;
	int err = queue_call(q, req, deadline);

	if (!err)
		return initiator_status(host, what, req);
	pthread_mutex_lock(&host->leaf);
	err = host->why_code ? host->why_code : err;
	initiator_fail(err, "%s: %s: %s", host->address, what, host->why);
	pthread_mutex_unlock(&host->leaf);
	return err;
}

static int fabrics_connect(struct queue *q, uint64_t deadline)
{
	struct nvme_host *host = q->host;
	struct nvme_connect_data data = {
		.cntlid = nvme_put16(q->qid ? (uint16_t)host->cntlid : NVME_CNTLID_DYNAMIC),
	};
	struct nvme_req req = {
		.sqe = {.opcode = NVME_FABRICS,
			.nsid = nvme_put32(NVME_FABRICS_CONNECT),
			.cdw10 = nvme_put32((uint32_t)q->qid << 16),
			.cdw11 = nvme_put32(q->depth | NVME_CATTR_NO_SQ_FLOW << 16),
			.cdw12 = nvme_put32(q->qid ? 0 : host->kato_ms)},
		.data = &data,
		.len = sizeof(data),
		.to_controller = true,
	};
	char what[64];
	int err;

	memcpy(data.hostid, host->opts.hostid, sizeof(data.hostid));
	snprintf(data.subnqn, sizeof(data.subnqn), "%s", host->subnqn);
	snprintf(data.hostnqn, sizeof(data.hostnqn), "%s", host->hostnqn);
	q->in_capsule = ADMIN_IN_CAPSULE;
	snprintf(what, sizeof(what), "Connect of queue %u", q->qid);
	err = call(q, &req, what, deadline);
	q->in_capsule = q->qid ? host->in_capsule : ADMIN_IN_CAPSULE;
	if (!err && !q->qid)
		host->cntlid = (uint16_t)nvme_get32(req.cqe.dw0);
	return err;
}

static int property_get(struct queue *q, enum nvme_property prop, uint64_t *value,
			uint64_t deadline)
{
	struct nvme_req req = {
		.sqe = {.opcode = NVME_FABRICS,
			.nsid = nvme_put32(NVME_FABRICS_PROPERTY_GET),
			.cdw10 = nvme_put32(prop == NVME_PROP_CAP),
			.cdw11 = nvme_put32(prop)},
	};
	int err = call(q, &req, "Property Get", deadline);

	*value = nvme_get32(req.cqe.dw0);
	if (prop == NVME_PROP_CAP)
		*value |= (uint64_t)nvme_get32(req.cqe.dw1) << 32;
	return err;
}

static int property_set(struct queue *q, enum nvme_property prop, uint32_t value, uint64_t deadline)
{
	struct nvme_req req = {
		.sqe = {.opcode = NVME_FABRICS,
			.nsid = nvme_put32(NVME_FABRICS_PROPERTY_SET),
			.cdw11 = nvme_put32(prop),
			.cdw12 = nvme_put32(value)},
	};

	return call(q, &req, "Property Set", deadline);
}

static int enable(struct queue *q, uint64_t cap, uint64_t deadline)
{
	uint64_t ready = now_ns() + ((cap >> NVME_CAP_TO_SHIFT & 0xff) + 1) * READY_UNIT_MS * MS;
	int err;

	q->host->config = CC_ENABLE | (cap & NVME_CAP_CSS_IOCS ? NVME_CC_CSS_ALL << 4 : 0);
	err = property_set(q, NVME_PROP_CC, q->host->config, deadline);

	for (int wait_ms = 1; !err; wait_ms = wait_ms < 100 ? wait_ms * 2 : wait_ms) {
		uint64_t csts;

		err = property_get(q, NVME_PROP_CSTS, &csts, deadline);
		if (err || csts & NVME_CSTS_RDY)
			return err;
		if (csts & NVME_CSTS_CFS)
			return failed(q->host, -EIO, "enabling the controller",
				      "it reports a fatal error");
		if (!ms_until(ready))
			return failed(q->host, -ETIMEDOUT, "enabling the controller",
				      "it does not become ready");
		poll(NULL, 0, wait_ms);
	}
	return err;
}

/* ---- what the controller can do ---- */

static void learn_limits(struct nvme_host *host, const struct nvme_id_ctrl *id, uint64_t cap)
{
	unsigned int page = 12 + (unsigned int)(cap >> 48 & 0xf), depth = host->opts.depth;
	uint64_t capsule = (uint64_t)nvme_get32(id->ioccsz) * 16;
	uint32_t transfer = MAX_TRANSFER;

	if (id->mdts && id->mdts + page < 32 && 1u << (id->mdts + page) < transfer)
		transfer = 1u << (id->mdts + page);
	host->max_transfer = transfer;
	capsule = capsule > sizeof(struct nvme_sqe) ? capsule - sizeof(struct nvme_sqe) : 0;
	if (nvme_get16(id->icdoff))
		capsule = 0;
	host->in_capsule = capsule < MAX_TRANSFER ? (uint32_t)capsule : MAX_TRANSFER;
	if (!nvme_get16(id->kas))
		host->kato_ms = 0;
	if (depth > NVME_CAP_MQES(cap))
		depth = NVME_CAP_MQES(cap);
	if (nvme_get16(id->maxcmd) && depth > nvme_get16(id->maxcmd))
		depth = nvme_get16(id->maxcmd);
	host->depth = depth;
}

static int learn_controller(struct nvme_host *host, uint64_t cap, uint64_t deadline)
{
	struct nvme_id_ctrl id;
	struct nvme_req req = {
		.sqe = {.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = nvme_put32(NVME_CNS_CTRL)},
		.data = &id,
		.len = sizeof(id),
	};
	int err = call(&host->queues[0], &req, "Identify Controller", deadline);

	if (err)
		return err;
	if (host->met && memcmp(host->serial, id.sn, sizeof(id.sn)) != 0)
		return failed(host, -ESTALE, "reconnecting",
			      "another device answers at this address (its serial number differs)");
	memcpy(host->serial, id.sn, sizeof(id.sn));
	host->met = true;
	learn_limits(host, &id, cap);
	if (!host->depth && !host->discovery)
		return failed(host, -EPROTO, "Identify Controller", "its queues have no entries");
	return 0;
}

static int ask_queues(struct nvme_host *host, uint64_t deadline)
{
	uint32_t n = host->n_queues - 1, want = n - 1, got;
	struct nvme_req req = {
		.sqe = {.opcode = NVME_ADMIN_SET_FEATURES,
			.cdw10 = nvme_put32(NVME_FEAT_QUEUES),
			.cdw11 = nvme_put32(want << 16 | want)},
	};
	int err = call(&host->queues[0], &req, "Set Features (number of queues)", deadline);

	if (err)
		return err;
	got = nvme_get32(req.cqe.dw0);
	got = ((got & 0xffff) < got >> 16 ? got & 0xffff : got >> 16) + 1;
	if (got >= n)
		return 0;
	if (host->keeper_runs) /* requests wait on those queues */
		return failed(host, -EBUSY, "reconnecting",
			      "the target grants fewer queues than before");
	host->n_queues = got + 1;
	return 0;
}

static int open_admin(struct nvme_host *host, uint64_t deadline)
{
	struct queue *q = &host->queues[0];
	uint64_t cap;
	int err = queue_open(q, deadline);

	if (!err)
		err = fabrics_connect(q, deadline);
	if (!err)
		err = property_get(q, NVME_PROP_CAP, &cap, deadline);
	if (!err)
		err = enable(q, cap, deadline);
	if (!err)
		err = learn_controller(host, cap, deadline);
	return err;
}

static int open_io(struct nvme_host *host, uint64_t deadline)
{
	int err = host->n_queues > 1 ? ask_queues(host, deadline) : 0;

	for (unsigned int i = 1; !err && i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		/* Identifiers beyond a smaller depth than before must not be handed out. */
		if (q->slots && q->depth > host->depth)
			err = failed(host, -EBUSY, "reconnecting",
				     "the target's queues are shorter than before");
		else if (!q->slots)
			err = queue_init(q, host, (uint16_t)i, (uint16_t)host->depth);
		if (!err)
			err = queue_open(q, deadline);
		if (!err)
			err = fabrics_connect(q, deadline);
	}
	return err;
}

int host_establish(struct nvme_host *host)
{
	uint64_t deadline = now_ns() + host->opts.timeout_ms * MS;
	int err;

	pthread_mutex_lock(&host->leaf);
	atomic_store(&host->broken, false);
	host->why_code = 0;
	host->why[0] = 0;
	host->generation++;
	memset(host->known, 0, sizeof(host->known));
	pthread_mutex_unlock(&host->leaf);
	err = open_admin(host, deadline);
	if (!err)
		err = open_io(host, deadline);
	if (err)
		return err;
	atomic_fetch_add(&host->reconnects,
			 host->keeper_runs); /* before a request's end can show it */
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		q->live = !q->failed;
		queue_pump(q);
		pthread_cond_broadcast(&q->cond);
		queue_unlock(q);
	}
	host->keep_alive_at = host->kato_ms ? now_ns() + host->kato_ms * MS / 2 : UINT64_MAX;
	host_wake(host);
	return 0;
}

void host_shutdown(struct nvme_host *host)
{
	struct queue *q = &host->queues[0];
	uint64_t deadline = now_ns() + SHUTDOWN_MS * MS, csts = 0;
	bool usable;

	queue_lock(q);
	usable = q->live && q->n_free;
	q->live = false;
	queue_unlock(q);
	if (!usable || property_set(q, NVME_PROP_CC, host->config | CC_SHN_NORMAL, deadline))
		return;
	while (ms_until(deadline) && !property_get(q, NVME_PROP_CSTS, &csts, deadline) &&
	       CSTS_SHST(csts) != 2)
		poll(NULL, 0, 1);
}
