/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_initiator.c - whatever a target sends, no byte beside a caller's buffer is written, and every request
 * ends exactly once.
 *
 * The input: a byte of digest flags, a byte that says how the stream is cut, then what the target sends.
 * Reads and writes of the initiator's sockets are the functions below.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "initiator/internal.h"

#define N_REQS 7u

static struct {
	const uint8_t *p;
	size_t left, cut;
} stream;

ssize_t fuzz_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t fuzz_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t fuzz_send(int fd, const void *p, size_t len, int flags);

ssize_t fuzz_recvmsg(int fd, struct msghdr *msg, int flags)
{
	size_t most = stream.left < stream.cut ? stream.left : stream.cut, got = 0;

	if (!most) {
		errno = EAGAIN;
		return -1;
	}
	for (size_t i = 0; i < msg->msg_iovlen && got < most; i++) {
		size_t n =
			msg->msg_iov[i].iov_len < most - got ? msg->msg_iov[i].iov_len : most - got;

		memcpy(msg->msg_iov[i].iov_base, stream.p + got, n);
		got += n;
	}
	stream.p += got;
	stream.left -= got;
	return (ssize_t)got;
}

/* Takes all but the last byte once in a while, so that PDUs stay half sent. */
ssize_t fuzz_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	static uint8_t sink[1 << 17];
	size_t n = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++) {
		size_t len = msg->msg_iov[i].iov_len;

		memcpy(sink, msg->msg_iov[i].iov_base, len < sizeof(sink) ? len : sizeof(sink));
		n += len;
	}
	return (ssize_t)(stream.left % 3 == 2 && n > 1 ? n - 1 : n);
}

ssize_t fuzz_send(int fd, const void *p, size_t len, int flags)
{
	return (ssize_t)len;
}

static unsigned int ends;

static void on_end(struct nvme_req *req, int error)
{
	if (req->moved > req->len)
		abort();
	ends++;
}

/* One of each way that data can go; each buffer is as long as it must be and no longer. */
static void start_requests(struct queue *q, struct nvme_req reqs[N_REQS])
{
	static const struct {
		uint8_t opcode;
		uint32_t len;
	} kinds[N_REQS] = {
		{NVME_NVM_READ, 512},  {NVME_NVM_READ, 4096},   {NVME_NVM_READ, 20000},
		{NVME_NVM_WRITE, 512}, {NVME_NVM_WRITE, 70000}, {NVME_NVM_FLUSH, 0},
		{0xc2, 4096},
	};

	for (unsigned int i = 0; i < N_REQS; i++) {
		reqs[i] = (struct nvme_req){
			.sqe.opcode = kinds[i].opcode,
			.data = kinds[i].len ? calloc(1, kinds[i].len) : NULL,
			.len = kinds[i].len,
			.to_controller = kinds[i].opcode & 1,
			.may_be_short = kinds[i].opcode == 0xc2,
			.done = on_end,
		};
		queue_append(q, &reqs[i]);
	}
	queue_pump(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nvme_host host = {.opts.timeout_ms = 1000, .eventfd = -1, .keeper_kick = -1};
	struct nvme_req reqs[N_REQS];
	struct queue q;

	if (size < 2)
		return 0;
	host.done_end = &host.done;
	pthread_mutex_init(&host.leaf, NULL);
	if (queue_init(&q, &host, 1, 8))
		return 0;
	host.queues = &q;
	host.n_queues = 1;
	q.hdgst = data[0] & 1;
	q.ddgst = data[0] & 2;
	q.max_h2c = 4096;
	q.in_capsule = 4096;
	q.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	q.live = true;
	stream.p = data + 2;
	stream.left = size - 2;
	stream.cut = data[1] ? data[1] : SIZE_MAX;
	ends = 0;
	queue_lock(&q);
	start_requests(&q, reqs);
	while (stream.left && !q.failed)
		queue_drive(&q);
	queue_close(&q, false);
	queue_drop(&q, -ECANCELED);
	queue_unlock(&q);
	for (struct nvme_req *r = host.done, *next; r; r = next) {
		next = r->next;
		r->done(r, r->error);
	}
	if (ends != N_REQS)
		abort();
	for (unsigned int i = 0; i < N_REQS; i++)
		free(reqs[i].data);
	queue_free(&q);
	pthread_mutex_destroy(&host.leaf);
	return 0;
}
