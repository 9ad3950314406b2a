/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch.c - several commands of one thread, in flight on one queue, that nobody else waits for.
 */
#include <errno.h>
#include <unistd.h>

#include "initiator/internal.h"

int nvme_batch_begin(struct nvme_host *host, struct nvme_batch *batch)
{
	struct nvme_req any = {.queue = -1};

	*batch = (struct nvme_batch){.host = host, .queue = host_queue(host, &any)};
	if (!batch->queue)
		return initiator_fail(-EINVAL, "%s: a discovery controller has no I/O queues",
				      host->address);
	return 0;
}

int nvme_batch_add(struct nvme_batch *batch, struct nvme_req *req)
{
	struct queue *q = batch->queue;

	if (req->len > batch->host->max_transfer)
		return initiator_fail(-EMSGSIZE, "%s: %u bytes in one command where %u is the most",
				      batch->host->address, req->len,
				      (unsigned int)batch->host->max_transfer);
	req->sync = &batch->sync;
	req->done = NULL;
	req->tries = 0;
	req->moved = 0;
	batch->flying++;
	queue_lock(q);
	queue_append(q, req);
	queue_unlock(q);
	return 0;
}

struct nvme_req *nvme_batch_next(struct nvme_batch *batch, int timeout_ms)
{
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : now_ns() + (uint64_t)timeout_ms * MS;
	struct nvme_sync *sync = &batch->sync;
	struct queue *q = batch->queue;
	struct nvme_req *req;

	if (!batch->flying)
		return NULL;
	queue_lock(q);
	if (!sync->ready) {
		queue_pump(q);
		if (atomic_load(&batch->host->dead))
			queue_drop(q, -ENOLINK);
		queue_wait_until(q, sync, deadline);
	}
	req = sync->ready;
	if (req) {
		sync->ready = req->next;
		batch->flying--;
	}
	queue_unlock(q);
	return req;
}

void nvme_batch_cancel(struct nvme_batch *batch, struct nvme_req *req, uint32_t grace_ms)
{
	struct queue *q = batch->queue;
	uint64_t deadline = now_ns() + grace_ms * MS;

	queue_lock(q);
	if (req->state == REQ_SENT) {
		struct slot *s = &q->slots[req->cid];

		s->cancelled = true;
		if (s->deadline_ns > deadline)
			s->deadline_ns = deadline;
		kick(batch->host->keeper_kick);
	} else if (req->state == REQ_WAITING && queue_unlink(q, req)) {
		queue_complete(q, req, -ECANCELED);
	}
	queue_unlock(q);
}

void nvme_host_forked(struct nvme_host *host)
{
	/* No lock: whoever held one is not in this process. */
	for (unsigned int i = 0; i < host->n_queues; i++) {
		if (host->queues[i].fd >= 0)
			close(host->queues[i].fd);
		if (host->queues[i].kick >= 0)
			close(host->queues[i].kick);
	}
	close(host->eventfd);
	close(host->keeper_kick);
}
