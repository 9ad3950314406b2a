/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commands.c - what everybody needs of a controller: identify, log pages, namespaces, ranges of bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "initiator/internal.h"

#define IN_FLIGHT      16u /* pieces of one range at a time */
#define MAX_NLB        65536u
#define LOG_PIECE      65536u
#define DISCOVER_TRIES 5

static int whole(struct nvme_host *host, const struct nvme_req *req, const char *what)
{
	if (req->moved == req->len)
		return 0;
	return initiator_fail(-EPROTO, "%s: %s: %u of %u bytes came", host->address, what,
			      req->moved, req->len);
}

static int identify(struct nvme_host *host, struct nvme_req *req, uint8_t cns, uint32_t nsid,
		    uint8_t csi, void *page4096)
{
	int err;

	*req = (struct nvme_req){
		.sqe = {.opcode = NVME_ADMIN_IDENTIFY,
			.nsid = nvme_put32(nsid),
			.cdw10 = nvme_put32(cns),
			.cdw11 = nvme_put32((uint32_t)csi << 24)},
		.data = page4096,
		.len = 4096,
	};
	err = nvme_host_execute(host, req);
	return err ? err : whole(host, req, "Identify");
}

int nvme_host_identify(struct nvme_host *host, uint8_t cns, uint32_t nsid, uint8_t csi,
		       void *page4096)
{
	struct nvme_req req;

	return identify(host, &req, cns, nsid, csi, page4096);
}

static int log_piece(struct nvme_host *host, uint8_t lid, uint32_t nsid, uint64_t offset, void *buf,
		     uint32_t len)
{
	uint32_t numd = len / 4 - 1;
	struct nvme_req req = {
		.sqe = {.opcode = NVME_ADMIN_GET_LOG_PAGE,
			.nsid = nvme_put32(nsid),
			.cdw10 = nvme_put32(numd << 16 | lid),
			.cdw11 = nvme_put32(numd >> 16),
			.cdw12 = nvme_put32((uint32_t)offset),
			.cdw13 = nvme_put32((uint32_t)(offset >> 32))},
		.data = buf,
		.len = len,
	};
	int err = nvme_host_execute(host, &req);

	return err ? err : whole(host, &req, "Get Log Page");
}

int nvme_host_log(struct nvme_host *host, uint8_t lid, uint32_t nsid, uint64_t offset, void *buf,
		  uint32_t len)
{
	uint32_t most = host->max_transfer < LOG_PIECE ? host->max_transfer : LOG_PIECE;

	if (!len || len % 4 || offset % 4)
		return initiator_fail(-EINVAL, "%s: log pages are read in units of 4 bytes",
				      host->address);
	for (uint32_t at = 0, n; at < len; at += n) {
		int err;

		n = len - at < most ? len - at : most;
		err = log_piece(host, lid, nsid, offset + at, (uint8_t *)buf + at, n);
		if (err)
			return err;
	}
	return 0;
}

/* -EAGAIN: the log changed meanwhile. */
static int discover_once(struct nvme_host *host, struct nvme_discovery_entry **entries, size_t *n)
{
	struct nvme_discovery_log head, after;
	uint64_t records;
	int err = nvme_host_log(host, NVME_LOG_DISCOVERY, 0, 0, &head, sizeof(head));

	if (err)
		return err;
	records = nvme_get64(head.numrec);
	if (nvme_get16(head.recfmt))
		return initiator_fail(-EPROTO, "%s: the discovery log has an unknown format",
				      host->address);
	if (records > DISCOVERY_ENTRIES)
		return initiator_fail(
			-E2BIG, "%s: the discovery log has %llu entries, %u is the most",
			host->address, (unsigned long long)records, DISCOVERY_ENTRIES);
	*n = (size_t)records;
	*entries = calloc(*n + 1, sizeof(**entries));
	if (!*entries)
		return initiator_fail(-ENOMEM, "no memory for discovery entries");
	if (*n)
		err = nvme_host_log(host, NVME_LOG_DISCOVERY, 0, sizeof(head), *entries,
				    (uint32_t)(*n * sizeof(**entries)));
	if (!err)
		err = nvme_host_log(host, NVME_LOG_DISCOVERY, 0, 0, &after, sizeof(after));
	if (!err && nvme_get64(after.genctr) != nvme_get64(head.genctr))
		err = initiator_fail(-EAGAIN, "%s: the discovery log keeps changing",
				     host->address);
	if (!err)
		return 0;
	free(*entries);
	*entries = NULL;
	*n = 0;
	return err;
}

int nvme_host_discover(struct nvme_host *host, struct nvme_discovery_entry **entries, size_t *n)
{
	int err;

	*entries = NULL;
	*n = 0;
	for (int i = 0; i < DISCOVER_TRIES; i++) {
		err = discover_once(host, entries, n);
		if (err != -EAGAIN)
			break;
	}
	return err;
}

/* ---- namespaces ---- */

static int no_namespace(const struct nvme_host *host, uint32_t nsid)
{
	return initiator_fail(-ENODEV, "%s: there is no namespace %u", host->address, nsid);
}

static int parse_namespace(struct nvme_host *host, const struct nvme_id_ns *id,
			   struct nvme_host_ns *ns)
{
	unsigned int format = (id->flbas & 0xf) | (id->flbas >> 1 & 0x30), shift;

	shift = id->lbaf[format].lbads;
	ns->blocks = nvme_get64(id->nsze);
	ns->read_only = id->nsattr & 1;
	memcpy(ns->nguid, id->nguid, sizeof(ns->nguid));
	if (!ns->blocks)
		return no_namespace(host, ns->nsid);
	if (nvme_get16(id->lbaf[format].ms))
		return initiator_fail(-EOPNOTSUPP, "%s: namespace %u has metadata with its blocks",
				      host->address, ns->nsid);
	if (shift < 9 || shift > 20 || ns->blocks > (uint64_t)INT64_MAX >> shift)
		return initiator_fail(
			-EPROTO, "%s: namespace %u says it has %llu blocks of 2^%u bytes",
			host->address, ns->nsid, (unsigned long long)ns->blocks, shift);
	ns->block = 1u << shift;
	return 0;
}

static void remember(struct nvme_host *host, const struct nvme_host_ns *ns, uint64_t generation)
{
	struct nvme_host_ns *place = NULL;

	pthread_mutex_lock(&host->leaf);
	for (unsigned int i = 0; i < KNOWN_NAMESPACES; i++)
		if (host->known[i].nsid == ns->nsid)
			place = &host->known[i];
	if (!place)
		place = &host->known[host->known_at++ % KNOWN_NAMESPACES];
	if (generation == host->generation)
		*place = *ns;
	pthread_mutex_unlock(&host->leaf);
}

static bool recall(struct nvme_host *host, uint32_t nsid, struct nvme_host_ns *out)
{
	bool found = false;

	pthread_mutex_lock(&host->leaf);
	for (unsigned int i = 0; i < KNOWN_NAMESPACES && !found; i++) {
		found = host->known[i].nsid == nsid;
		if (found)
			*out = host->known[i];
	}
	pthread_mutex_unlock(&host->leaf);
	return found;
}

int nvme_host_namespace(struct nvme_host *host, uint32_t nsid, struct nvme_host_ns *out)
{
	struct nvme_id_ns id;
	struct nvme_req req;
	uint64_t generation;
	int err;

	*out = (struct nvme_host_ns){.nsid = nsid};
	if (!nsid || nsid == UINT32_MAX)
		return initiator_fail(-EINVAL, "%s: %u is not a namespace's number", host->address,
				      nsid);
	pthread_mutex_lock(&host->leaf);
	generation = host->generation;
	pthread_mutex_unlock(&host->leaf);
	err = identify(host, &req, NVME_CNS_NS, nsid, 0, &id);
	if (err == -EREMOTEIO && (nvme_get16(req.cqe.status) >> 1 & 0x7ff) == NVME_SC_INVALID_NS)
		return no_namespace(host, nsid);
	if (!err)
		err = parse_namespace(host, &id, out);
	if (!err)
		remember(host, out, generation);
	return err;
}

/* ---- ranges: pieces in flight on one queue ---- */

struct range {
	struct nvme_host *host;
	struct nvme_host_ns ns;
	uint8_t opcode;
	bool to_controller;
	uint32_t flags;           /* cdw12 */
	uint64_t offset, len, at; /* bytes; @at: asked for so far */
	uint8_t *buf;
	uint32_t piece;
	int err;
};

static int range_check(struct nvme_host *host, uint32_t nsid, uint64_t offset, uint64_t len,
		       struct nvme_host_ns *ns)
{
	int err = recall(host, nsid, ns) ? 0 : nvme_host_namespace(host, nsid, ns);

	if (err)
		return err;
	if (offset % ns->block || len % ns->block)
		return initiator_fail(-EINVAL,
				      "%s: %llu bytes at %llu: not whole blocks of namespace %u; "
				      "use multiples of %u",
				      host->address, (unsigned long long)len,
				      (unsigned long long)offset, nsid, ns->block);
	if (offset > ns->blocks * ns->block || len > ns->blocks * ns->block - offset)
		err = nvme_host_namespace(host, nsid, ns); /* it may have grown */
	if (err)
		return err;
	if (offset > ns->blocks * ns->block || len > ns->blocks * ns->block - offset)
		return initiator_fail(-ERANGE,
				      "%s: %llu bytes at %llu: beyond the end of namespace %u, "
				      "which has %llu",
				      host->address, (unsigned long long)len,
				      (unsigned long long)offset, nsid,
				      (unsigned long long)(ns->blocks * ns->block));
	return 0;
}

static void next_piece(struct range *r, struct queue *q, struct nvme_req *req,
		       struct nvme_sync *sync)
{
	uint64_t left = r->len - r->at, lba = (r->offset + r->at) / r->ns.block;
	uint32_t n = left < r->piece ? (uint32_t)left : r->piece;

	*req = (struct nvme_req){
		.sqe = {.opcode = r->opcode,
			.nsid = nvme_put32(r->ns.nsid),
			.cdw10 = nvme_put32((uint32_t)lba),
			.cdw11 = nvme_put32((uint32_t)(lba >> 32)),
			.cdw12 = nvme_put32((n / r->ns.block - 1) | r->flags)},
		.data = r->buf + r->at,
		.len = n,
		.to_controller = r->to_controller,
		.sync = sync,
	};
	r->at += n;
	queue_append(q, req);
}

static int piece_result(struct range *r, const struct nvme_req *req)
{
	const char *what = r->to_controller ? "Write" : "Read";

	if (req->error)
		return nvme_host_failed(r->host, req->error);
	return initiator_status(r->host, what, req);
}

static int range_run(struct range *r)
{
	struct nvme_req reqs[IN_FLIGHT], *next;
	struct nvme_req any = {.queue = -1};
	struct queue *q = host_queue(r->host, &any);
	struct nvme_sync sync = {0};
	unsigned int flying = 0;

	if (!q)
		return initiator_fail(-EINVAL, "%s: a discovery controller has no data",
				      r->host->address);
	queue_lock(q);
	if (atomic_load(&r->host->dead))
		r->err = nvme_host_failed(r->host, -ENOLINK);
	for (; !r->err && flying < IN_FLIGHT && r->at < r->len; flying++)
		next_piece(r, q, &reqs[flying], &sync);
	queue_pump(q);
	while (flying) {
		queue_wait(q, &sync);
		for (struct nvme_req *req = sync.ready; req; req = next) {
			int err = piece_result(r, req);

			next = req->next;
			flying--;
			if (err && !r->err)
				r->err = err;
			if (r->err || r->at == r->len)
				continue;
			next_piece(r, q, req, &sync);
			flying++;
		}
		sync.ready = NULL;
		queue_pump(q);
	}
	queue_unlock(q);
	return r->err;
}

static uint32_t piece_size(const struct nvme_host *host, const struct nvme_host_ns *ns)
{
	uint64_t most = (uint64_t)MAX_NLB * ns->block;
	uint32_t piece = host->max_transfer < most ? host->max_transfer : (uint32_t)most;

	return piece / ns->block * ns->block;
}

static int range(struct nvme_host *host, struct range r, uint32_t nsid)
{
	int err = range_check(host, nsid, r.offset, r.len, &r.ns);

	if (err)
		return err;
	r.host = host;
	r.piece = piece_size(host, &r.ns);
	if (!r.piece)
		return initiator_fail(-EPROTO,
				      "%s: a block of namespace %u is larger than a transfer",
				      host->address, nsid);
	return range_run(&r);
}

int nvme_host_read(struct nvme_host *host, uint32_t nsid, uint64_t offset, void *buf, uint64_t len)
{
	struct range r = {.opcode = NVME_NVM_READ, .offset = offset, .len = len, .buf = buf};

	return range(host, r, nsid);
}

int nvme_host_write(struct nvme_host *host, uint32_t nsid, uint64_t offset, const void *buf,
		    uint64_t len, bool fua)
{
	struct range r = {
		.opcode = NVME_NVM_WRITE,
		.to_controller = true,
		.flags = fua ? NVME_RW_FUA : 0,
		.offset = offset,
		.len = len,
		.buf = (uint8_t *)(uintptr_t)buf,
	};

	return range(host, r, nsid);
}

int nvme_host_flush(struct nvme_host *host, uint32_t nsid)
{
	struct nvme_req req = {
		.sqe = {.opcode = NVME_NVM_FLUSH, .nsid = nvme_put32(nsid)},
		.queue = -1,
	};

	return nvme_host_execute(host, &req);
}
