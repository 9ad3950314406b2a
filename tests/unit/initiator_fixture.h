/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initiator_fixture.h - what the tests of the NVMe/TCP host share.
 */
#ifndef TESTS_INITIATOR_FIXTURE_H
#define TESTS_INITIATOR_FIXTURE_H

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
/* cmocka wants those first */
#include <cmocka.h>

#include "fake_target.h"
#include "initiator/initiator.h"

static inline struct nvme_host_opts quick(void)
{
	return (struct nvme_host_opts){.size = sizeof(struct nvme_host_opts),
				       .subnqn = FAKE_NQN,
				       .io_queues = 2,
				       .depth = 16,
				       .timeout_ms = 5000};
}

static inline struct nvme_host *join(struct fake *f, const struct nvme_host_opts *o)
{
	struct nvme_host *host;
	int err = nvme_host_connect(f->where, o, &host);

	if (err)
		fail_msg("%d: %s", err, nvme_host_error());
	return host;
}

static inline uint8_t *pattern(size_t len, uint8_t seed)
{
	uint8_t *p = malloc(len);

	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + i / 4096 + seed);
	return p;
}

static inline void nap(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* One request whose end is counted. */
struct counted {
	struct nvme_req req;
	atomic_int ends;
	int error;
};

static inline void on_end(struct nvme_req *req, int error)
{
	struct counted *c = req->arg;

	c->error = error;
	atomic_fetch_add(&c->ends, 1);
}

static inline struct counted io(uint8_t opcode, uint64_t lba, void *data, uint32_t len)
{
	return (struct counted){.req = {
					.sqe = {.opcode = opcode,
						.nsid = nvme_put32(FAKE_NSID),
						.cdw10 = nvme_put32((uint32_t)lba),
						.cdw12 = nvme_put32(len / FAKE_BLOCK - 1)},
					.data = data,
					.len = len,
					.to_controller = opcode & 1,
					.queue = -1,
					.done = on_end,
				}};
}

static inline void submit(struct nvme_host *host, struct counted *c)
{
	c->req.arg = c;
	assert_int_equal(nvme_host_submit(host, &c->req), 0);
}

static inline void wait_for(struct nvme_host *host, struct counted *c)
{
	while (!atomic_load(&c->ends))
		nvme_host_wait(host, -1);
}

static inline uint16_t status_of(const struct counted *c)
{
	return nvme_get16(c->req.cqe.status) >> 1 & 0x7ff;
}

/* ---- greetings ---- */

static inline bool hangs_up(struct fake_conn *c)
{
	return true;
}

static inline bool says_nothing(struct fake_conn *c)
{
	uint8_t byte;

	while (fake_recv(c, &byte, 1))
		;
	return true;
}

#endif /* TESTS_INITIATOR_FIXTURE_H */
