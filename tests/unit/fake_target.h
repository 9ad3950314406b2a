/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_target.h - an NVMe/TCP target inside a test: it behaves, unless the test says how not to.
 *
 * It speaks bytes by itself and shares with the initiator only the layouts, so that both cannot be wrong alike.
 */
#ifndef TESTS_FAKE_TARGET_H
#define TESTS_FAKE_TARGET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nvme/tcp.h"

#define FAKE_NSID    7u
#define FAKE_BLOCK   512u
#define FAKE_BYTES   (4u << 20)
#define FAKE_NQN     "nqn.2024-01.test:fake"
#define FAKE_MDTS    5 /* 128 KiB */
#define FAKE_CAPSULE 8192u
#define FAKE_MAX_H2C 32768u
#define FAKE_QUEUES  4u
#define FAKE_CONNS   64

struct fake;

struct fake_stash { /* a command that came while another's data were awaited */
	struct fake_stash *next;
	uint8_t head[128];
	uint32_t len;
	uint8_t data[];
};

struct fake_conn {
	struct fake *fake;
	int fd;
	uint16_t qid;
	bool hdgst, ddgst;
	pthread_t thread;
	uint32_t cc;
	struct fake_stash *stash;
};

struct fake {
	int listener;
	char where[32];
	pthread_t thread;
	atomic_bool stopping;
	atomic_int n_conns;
	struct fake_conn conns[FAKE_CONNS];
	pthread_mutex_t lock;
	uint8_t *disk;
	/* what the test says */
	uint8_t cpda;        /* as in ICResp */
	uint32_t data_pdu;   /* bytes in a C2HData; 0: all */
	bool success_flag;   /* success without a response */
	uint16_t max_queues; /* 0: FAKE_QUEUES */
	uint16_t mqes;       /* 0: 127 */
	const char *serial;
	uint32_t discovery_entries;
	atomic_uint discovery_changes; /* how often the log changes while it is read */
	/* Answers a command itself and returns true, or leaves it to the target. */
	bool (*hook)(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		     uint32_t len);
	/* The same of a connection before its ICReq was read. */
	bool (*_Atomic greet)(struct fake_conn *c);
	atomic_int seen[2][256]; /* commands by admin or I/O, opcode */
	atomic_int hook_left;    /* how often the hook is asked; negative: always */
	uint16_t held_cid;       /* a hook's own */
	atomic_int held;
};

/* ---- bytes ---- */

static inline bool fake_send(struct fake_conn *c, const void *p, size_t len)
{
	for (const uint8_t *at = p; len;) {
		ssize_t n = send(c->fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool fake_recv(struct fake_conn *c, void *p, size_t len)
{
	return !len || recv(c->fd, p, len, MSG_WAITALL) == (ssize_t)len;
}

/* A PDU with the header's type, flags and fields as given; lengths and digests are made here. */
static inline bool fake_pdu(struct fake_conn *c, void *head, const void *data, uint32_t len)
{
	uint8_t out[256] = {0};
	struct nvme_tcp_hdr *h = head;
	uint32_t hlen = nvme_tcp_header_len(h->type), at = hlen;
	uint32_t crc;

	h->hlen = (uint8_t)hlen;
	h->flags |= (uint8_t)((c->hdgst ? NVME_TCP_F_HDGST : 0) |
			      (c->ddgst && len ? NVME_TCP_F_DDGST : 0));
	at += c->hdgst ? 4 : 0;
	if (len)
		h->pdo = (uint8_t)at;
	h->plen = nvme_put32(at + len + (c->ddgst && len ? 4 : 0));
	memcpy(out, head, hlen);
	crc = htole32(nvme_crc32c(0, out, hlen));
	memcpy(out + hlen, &crc, 4);
	if (!fake_send(c, out, at) || !fake_send(c, data, len))
		return false;
	crc = htole32(nvme_crc32c(0, data, len));
	return !(c->ddgst && len) || fake_send(c, &crc, 4);
}

static inline bool fake_answer64(struct fake_conn *c, const struct nvme_sqe *sqe, uint16_t status,
				 uint64_t value)
{
	struct nvme_tcp_rsp r = {
		.hdr.type = NVME_TCP_RSP,
		.cqe = {.dw0 = nvme_put32((uint32_t)value),
			.dw1 = nvme_put32((uint32_t)(value >> 32)),
			.sqhd = nvme_put16(0xffff),
			.sqid = nvme_put16(c->qid),
			.cid = sqe->cid,
			.status = nvme_put16((uint16_t)(status << 1))},
	};

	return fake_pdu(c, &r, NULL, 0);
}

static inline bool fake_answer(struct fake_conn *c, const struct nvme_sqe *sqe, uint16_t status)
{
	return fake_answer64(c, sqe, status, 0);
}

static inline bool fake_data(struct fake_conn *c, uint16_t cid, uint32_t offset, uint32_t says,
			     const void *p, uint32_t len, uint8_t flags)
{
	struct nvme_tcp_data d = {
		.hdr = {.type = NVME_TCP_C2H_DATA, .flags = flags},
		.cccid = nvme_put16(cid),
		.datao = nvme_put32(offset),
		.datal = nvme_put32(says),
	};

	return fake_pdu(c, &d, p, len);
}

static inline bool fake_r2t(struct fake_conn *c, uint16_t cid, uint16_t ttag, uint32_t offset,
			    uint32_t len)
{
	struct nvme_tcp_r2t r = {
		.hdr.type = NVME_TCP_R2T,
		.cccid = nvme_put16(cid),
		.ttag = nvme_put16(ttag),
		.r2to = nvme_put32(offset),
		.r2tl = nvme_put32(len),
	};

	return fake_pdu(c, &r, NULL, 0);
}

/* Data to the host, and the end of the command. */
static inline bool fake_reply(struct fake_conn *c, const struct nvme_sqe *sqe, const void *p,
			      uint32_t len)
{
	uint32_t piece = c->fake->data_pdu ? c->fake->data_pdu : len;

	for (uint32_t at = 0, n; at < len; at += n) {
		uint8_t flags = 0;

		n = len - at < piece ? len - at : piece;
		if (at + n == len)
			flags = NVME_TCP_F_LAST | (c->fake->success_flag ? NVME_TCP_F_SUCCESS : 0);
		if (!fake_data(c, nvme_get16(sqe->cid), at, n, (const uint8_t *)p + at, n, flags))
			return false;
	}
	return c->fake->success_flag || fake_answer(c, sqe, 0);
}

/* One PDU from the host; *@len bytes of its data in @data.  False at the end, or when it is malformed. */
static inline bool fake_receive(struct fake_conn *c, uint8_t head[128], uint8_t *data,
				uint32_t *len)
{
	struct nvme_tcp_hdr h;
	uint32_t fei, crc, at;

	if (!fake_recv(c, head, sizeof(h)))
		return false;
	memcpy(&h, head, sizeof(h));
	if (nvme_tcp_check(&h, true, c->hdgst, c->ddgst, 1 << 20, len, &fei))
		return false;
	if (!fake_recv(c, head + sizeof(h), h.hlen - sizeof(h)))
		return false;
	at = h.hlen;
	if (c->hdgst) {
		if (!fake_recv(c, &crc, 4) || le32toh(crc) != nvme_crc32c(0, head, h.hlen))
			return false;
		at += 4;
	}
	if (!*len)
		return true;
	if (h.pdo % ((c->fake->cpda + 1u) * 4))
		return false;
	for (; at < h.pdo; at++)
		if (!fake_recv(c, &crc, 1))
			return false;
	if (!fake_recv(c, data, *len))
		return false;
	return !c->ddgst || (fake_recv(c, &crc, 4) && le32toh(crc) == nvme_crc32c(0, data, *len));
}

static inline void fake_put_by(struct fake_conn *c, const uint8_t head[128], const uint8_t *data,
			       uint32_t len)
{
	struct fake_stash *s = malloc(sizeof(*s) + len), **at = &c->stash;

	s->next = NULL;
	s->len = len;
	memcpy(s->head, head, sizeof(s->head));
	memcpy(s->data, data, len);
	while (*at)
		at = &(*at)->next;
	*at = s;
}

static inline bool fake_next(struct fake_conn *c, uint8_t head[128], uint8_t *data, uint32_t *len)
{
	struct fake_stash *s = c->stash;

	if (!s)
		return fake_receive(c, head, data, len);
	memcpy(head, s->head, sizeof(s->head));
	memcpy(data, s->data, s->len);
	*len = s->len;
	c->stash = s->next;
	free(s);
	return true;
}

/* Ask for @len bytes at @offset of a write's data and receive them. */
static inline bool fake_fetch(struct fake_conn *c, const struct nvme_sqe *sqe, uint32_t offset,
			      uint8_t *to, uint32_t len)
{
	static uint8_t scratch_of[FAKE_CONNS][1 << 20];
	uint8_t *scratch = scratch_of[c - c->fake->conns], head[128];
	struct nvme_tcp_data d;
	uint32_t got = 0, n;

	if (!fake_r2t(c, nvme_get16(sqe->cid), 0x1234, offset, len))
		return false;
	while (got < len) {
		if (!fake_receive(c, head, scratch, &n))
			return false;
		if (head[0] == NVME_TCP_CMD) {
			fake_put_by(c, head, scratch, n);
			continue;
		}
		memcpy(&d, head, sizeof(d));
		if (d.hdr.type != NVME_TCP_H2C_DATA || nvme_get16(d.ttag) != 0x1234 ||
		    nvme_get16(d.cccid) != nvme_get16(sqe->cid) || n > FAKE_MAX_H2C ||
		    nvme_get32(d.datao) != offset + got || nvme_get32(d.datal) != n ||
		    n > len - got || !(d.hdr.flags & NVME_TCP_F_LAST) != (got + n < len))
			return false;
		memcpy(to + got, scratch, n);
		got += n;
	}
	return true;
}

/* ---- a controller that behaves ---- */

static inline bool fake_identify(struct fake_conn *c, const struct nvme_sqe *sqe)
{
	union {
		struct nvme_id_ctrl ctrl;
		struct nvme_id_ns ns;
		nvme_le32 list[1024];
	} page;

	memset(&page, 0, sizeof(page));
	switch ((uint8_t)nvme_get32(sqe->cdw10)) {
	case NVME_CNS_CTRL:
		memset(page.ctrl.sn, ' ', sizeof(page.ctrl.sn));
		memcpy(page.ctrl.sn, c->fake->serial, strlen(c->fake->serial));
		memcpy(page.ctrl.mn, "fake target", 11);
		page.ctrl.mdts = FAKE_MDTS;
		page.ctrl.kas = nvme_put16(1);
		page.ctrl.maxcmd = nvme_put16(128);
		page.ctrl.ioccsz = nvme_put32((64 + FAKE_CAPSULE) / 16);
		page.ctrl.iorcsz = nvme_put32(1);
		break;
	case NVME_CNS_NS:
		if (nvme_get32(sqe->nsid) != FAKE_NSID)
			break;
		page.ns.nsze = page.ns.ncap = nvme_put64(FAKE_BYTES / FAKE_BLOCK);
		page.ns.lbaf[0].lbads = 9;
		memset(page.ns.nguid, 0xab, sizeof(page.ns.nguid));
		break;
	case NVME_CNS_ACTIVE_NS:
		page.list[0] = nvme_put32(FAKE_NSID);
		break;
	default:
		return fake_answer(c, sqe, NVME_SC_INVALID_FIELD | NVME_DNR);
	}
	return fake_reply(c, sqe, &page, sizeof(page));
}

static inline bool fake_log(struct fake_conn *c, const struct nvme_sqe *sqe)
{
	size_t len = ((size_t)(nvme_get32(sqe->cdw10) >> 16) + 1) * 4;
	size_t at = nvme_get32(sqe->cdw12), size = 1024 * ((size_t)c->fake->discovery_entries + 1);
	uint8_t *log = calloc(1, size + at + len);
	struct nvme_discovery_log *head = (void *)log;
	bool ok;

	head->numrec = nvme_put64(c->fake->discovery_entries);
	if (at == 0 && atomic_load(&c->fake->discovery_changes))
		head->genctr = nvme_put64(atomic_fetch_sub(&c->fake->discovery_changes, 1));
	for (uint32_t i = 0; i < c->fake->discovery_entries; i++) {
		struct nvme_discovery_entry *e = (void *)(log + 1024 * ((size_t)i + 1));

		e->trtype = NVME_TRTYPE_TCP;
		e->subtype = NVME_SUBTYPE_NVM;
		snprintf(e->subnqn, sizeof(e->subnqn), "%s%u", FAKE_NQN, i);
	}
	ok = fake_reply(c, sqe, log + at, (uint32_t)len);
	free(log);
	return ok;
}

static inline bool fake_fabrics(struct fake_conn *c, const struct nvme_sqe *sqe,
				const uint8_t *data)
{
	uint64_t cap = (c->fake->mqes ? c->fake->mqes : 127) | NVME_CAP_CQR |
		       1ull << NVME_CAP_TO_SHIFT | NVME_CAP_CSS_NVM | NVME_CAP_CSS_IOCS;
	const struct nvme_connect_data *connect = (const void *)data;

	switch ((uint8_t)nvme_get32(sqe->nsid)) {
	case NVME_FABRICS_CONNECT:
		c->qid = (uint16_t)(nvme_get32(sqe->cdw10) >> 16);
		if (strcmp(connect->subnqn, FAKE_NQN) != 0 &&
		    strcmp(connect->subnqn, NVME_NQN_DISCOVERY) != 0)
			return fake_answer(c, sqe, NVME_SC_CONNECT_INVALID_PARAM | NVME_DNR);
		if (nvme_get16(connect->cntlid) != (c->qid ? 5 : NVME_CNTLID_DYNAMIC))
			return fake_answer(c, sqe, NVME_SC_CONNECT_INVALID_PARAM | NVME_DNR);
		return fake_answer64(c, sqe, 0, 5);
	case NVME_FABRICS_PROPERTY_SET:
		c->cc = nvme_get32(sqe->cdw12);
		return fake_answer(c, sqe, 0);
	case NVME_FABRICS_PROPERTY_GET:
		return fake_answer64(c, sqe, 0,
				     nvme_get32(sqe->cdw11) == NVME_PROP_CAP
					     ? cap
					     : (c->cc & 1) | (NVME_CC_SHN(c->cc) ? 8 : 0));
	default:
		return fake_answer(c, sqe, NVME_SC_INVALID_FIELD | NVME_DNR);
	}
}

static inline bool fake_admin(struct fake_conn *c, const struct nvme_sqe *sqe)
{
	uint16_t queues = c->fake->max_queues ? c->fake->max_queues : FAKE_QUEUES;

	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		return fake_identify(c, sqe);
	case NVME_ADMIN_GET_LOG_PAGE:
		return fake_log(c, sqe);
	case NVME_ADMIN_SET_FEATURES:
		return fake_answer64(c, sqe, 0, (uint64_t)(queues - 1) << 16 | (queues - 1));
	case NVME_ADMIN_ABORT:
		return fake_answer64(c, sqe, 0, 1); /* not aborted */
	case NVME_ADMIN_KEEP_ALIVE:
		return fake_answer(c, sqe, 0);
	default:
		return fake_answer(c, sqe, NVME_SC_INVALID_OPCODE | NVME_DNR);
	}
}

static inline bool fake_io(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
			   uint32_t in_capsule)
{
	uint64_t at = nvme_get32(sqe->cdw10) * (uint64_t)FAKE_BLOCK;
	uint32_t len = ((nvme_get32(sqe->cdw12) & 0xffff) + 1) * FAKE_BLOCK, half = len / 2;
	uint8_t *disk = c->fake->disk + at;

	if (sqe->opcode == NVME_NVM_FLUSH)
		return fake_answer(c, sqe, 0);
	if (sqe->opcode >= 0x80) /* a vendor's: half of what there was room for */
		return fake_data(c, nvme_get16(sqe->cid), 0, 100, c->fake->disk, 100,
				 NVME_TCP_F_LAST) &&
		       fake_answer(c, sqe, 0);
	if (nvme_get32(sqe->nsid) != FAKE_NSID || at + len > FAKE_BYTES)
		return fake_answer(c, sqe, NVME_SC_LBA_RANGE | NVME_DNR);
	if (sqe->opcode == NVME_NVM_READ)
		return fake_reply(c, sqe, disk, len);
	if (sqe->opcode != NVME_NVM_WRITE)
		return fake_answer(c, sqe, NVME_SC_INVALID_OPCODE | NVME_DNR);
	if (in_capsule)
		memcpy(disk, data, in_capsule);
	else if (!fake_fetch(c, sqe, 0, disk, half) ||
		 !fake_fetch(c, sqe, half, disk + half, len - half))
		return false;
	return fake_answer(c, sqe, 0);
}

static inline bool fake_command(struct fake_conn *c, uint8_t *data)
{
	struct nvme_tcp_cmd cmd;
	uint8_t head[128];
	uint32_t len;
	struct fake *f = c->fake;

	if (!fake_next(c, head, data, &len) || head[0] != NVME_TCP_CMD)
		return false;
	memcpy(&cmd, head, sizeof(cmd));
	if (cmd.sqe.opcode == NVME_FABRICS)
		return fake_fabrics(c, &cmd.sqe, data);
	atomic_fetch_add(&f->seen[c->qid != 0][cmd.sqe.opcode], 1);
	if (f->hook && f->hook(c, &cmd.sqe, data, len))
		return true;
	return c->qid ? fake_io(c, &cmd.sqe, data, len) : fake_admin(c, &cmd.sqe);
}

static inline void *fake_serve(void *arg)
{
	struct fake_conn *c = arg;
	struct nvme_tcp_icreq req;
	struct nvme_tcp_icresp resp = {
		.hdr = {NVME_TCP_ICRESP, 0, 128, 0, nvme_put32(128)},
		.cpda = c->fake->cpda,
		.maxh2cdata = nvme_put32(FAKE_MAX_H2C),
	};
	uint8_t *data = malloc(1 << 20);
	bool (*greet)(struct fake_conn *) = atomic_load(&c->fake->greet);

	if ((greet && greet(c)) || !fake_recv(c, &req, sizeof(req)))
		goto out;
	resp.digest = req.digest;
	c->hdgst = req.digest & 1;
	c->ddgst = req.digest & 2;
	if (fake_send(c, &resp, sizeof(resp)))
		while (fake_command(c, data))
			;
out:
	for (struct fake_stash *s; (s = c->stash); free(s))
		c->stash = s->next;
	free(data);
	shutdown(c->fd, SHUT_RDWR);
	return NULL;
}

static inline void *fake_accept(void *arg)
{
	struct fake *f = arg;
	int on = 1;

	for (;;) {
		int fd = accept(f->listener, NULL, NULL), i = atomic_load(&f->n_conns);

		if (fd < 0 || i == FAKE_CONNS)
			return NULL;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		f->conns[i] = (struct fake_conn){.fake = f, .fd = fd};
		pthread_create(&f->conns[i].thread, NULL, fake_serve, &f->conns[i]);
		atomic_fetch_add(&f->n_conns, 1);
	}
}

/* ---- its life ---- */

static inline struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);

	f->disk = calloc(1, FAKE_BYTES);
	f->serial = "FAKE-1";
	f->hook_left = -1;
	f->listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(f->listener, (struct sockaddr *)&at, sizeof(at)) || listen(f->listener, 64))
		abort();
	getsockname(f->listener, (struct sockaddr *)&at, &len);
	snprintf(f->where, sizeof(f->where), "127.0.0.1:%u", ntohs(at.sin_port));
	pthread_create(&f->thread, NULL, fake_accept, f);
	return f;
}

/* Cut all connections, as a server that dies does; the next ones are welcome. */
static inline void fake_cut(struct fake *f)
{
	for (int i = 0; i < atomic_load(&f->n_conns); i++)
		shutdown(f->conns[i].fd, SHUT_RDWR);
}

static inline void fake_deaf(struct fake *f)
{
	shutdown(f->listener, SHUT_RDWR);
	pthread_join(f->thread, NULL);
	close(f->listener);
	f->listener = -1;
}

static inline void fake_free(struct fake *f)
{
	if (f->listener >= 0)
		fake_deaf(f);
	fake_cut(f);
	for (int i = 0; i < f->n_conns; i++) {
		pthread_join(f->conns[i].thread, NULL);
		close(f->conns[i].fd);
	}
	free(f->disk);
	free(f);
}

/* May the hook have its turn? */
static inline bool fake_turn(struct fake *f)
{
	int left = atomic_load(&f->hook_left);

	while (left > 0 && !atomic_compare_exchange_weak(&f->hook_left, &left, left - 1))
		;
	return left != 0;
}

#endif /* TESTS_FAKE_TARGET_H */
