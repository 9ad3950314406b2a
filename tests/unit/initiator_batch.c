/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches: several commands of one thread in flight, waited for by it alone, each bound to a connection if it says so.
 */
#include "initiator_fixture.h"

#define N 8u

static struct nvme_req read_of(uint64_t block, void *data, uint32_t len)
{
	struct counted c = io(NVME_NVM_READ, block, data, len);

	c.req.done = NULL;
	return c.req;
}

static void fill(struct fake *f)
{
	for (size_t i = 0; i < FAKE_BYTES; i++)
		f->disk[i] = (uint8_t)(i / FAKE_BLOCK * 13 + i);
}

static void test_all_that_was_added_ends_with_its_own_bytes(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct nvme_req reqs[N], *req;
	static uint8_t buf[N][4096];
	struct nvme_batch b;
	unsigned int n = 0;

	fill(f);
	assert_int_equal(nvme_batch_begin(host, &b), 0);
	assert_null(nvme_batch_next(&b, -1)); /* nothing flies */
	for (unsigned int i = 0; i < N; i++) {
		reqs[i] = read_of(i * 8ull, buf[i], 4096);
		assert_int_equal(nvme_batch_add(&b, &reqs[i]), 0);
	}
	while ((req = nvme_batch_next(&b, -1))) {
		n++;
		assert_int_equal(req->error, 0);
		assert_int_equal(nvme_get16(req->cqe.status) >> 1, 0);
	}
	assert_int_equal(n, N);
	assert_memory_equal(buf, f->disk, sizeof(buf));
	reqs[0] = read_of(0, buf, 2u << 20);
	assert_int_equal(nvme_batch_add(&b, &reqs[0]), -EMSGSIZE);
	nvme_host_free(host);
	fake_free(f);
}

struct reader {
	struct nvme_host *host;
	const struct fake *fake;
	unsigned int number;
	bool wrong;
};

static void *read_much(void *arg)
{
	struct reader *r = arg;
	uint8_t buf[N][512];
	struct nvme_req reqs[N], *req;
	struct nvme_batch b;

	r->wrong |= nvme_batch_begin(r->host, &b) != 0;
	for (unsigned int round = 0; round < 200; round++) {
		uint64_t at = (r->number * 1000 + round) % 4096;

		for (unsigned int i = 0; i < N; i++) {
			reqs[i] = read_of(at + i, buf[i], 512);
			r->wrong |= nvme_batch_add(&b, &reqs[i]) != 0;
		}
		while ((req = nvme_batch_next(&b, round % 2 ? -1 : 30000)))
			r->wrong |= req->error || nvme_get16(req->cqe.status) >> 1;
		r->wrong |= b.flying || memcmp(buf, r->fake->disk + at * 512, sizeof(buf)) != 0;
	}
	return NULL;
}

static void test_threads_wait_for_their_own_commands_only(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct reader readers[4];
	pthread_t threads[4];

	fill(f);
	for (unsigned int i = 0; i < 4; i++) {
		readers[i] = (struct reader){host, f, i, false};
		assert_int_equal(pthread_create(&threads[i], NULL, read_much, &readers[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_false(readers[i].wrong);
	}
	nvme_host_free(host);
	fake_free(f);
}

/* Keeps the first I/O command; an Abort of it ends it. */
static bool hold_until_abort(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
			     uint32_t n)
{
	struct fake *f = c->fake;

	if (c->qid && fake_turn(f)) {
		f->held_cid = nvme_get16(sqe->cid);
		atomic_store(&f->held, (int)(c - f->conns) + 1);
		return true;
	}
	if (!c->qid && sqe->opcode == NVME_ADMIN_ABORT && atomic_load(&f->held)) {
		struct nvme_sqe held = {.cid = nvme_put16(f->held_cid)};

		fake_answer(&f->conns[atomic_load(&f->held) - 1], &held, NVME_SC_ABORT_REQUESTED);
		return fake_answer64(c, sqe, 0, 0);
	}
	return false;
}

static void test_a_wait_ends_in_time_and_what_flies_can_be_cancelled(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct nvme_req held, other, *req;
	uint8_t a[512], b[512];
	struct nvme_batch batch;

	f->hook = hold_until_abort;
	f->hook_left = 1;
	assert_int_equal(nvme_batch_begin(host, &batch), 0);
	held = read_of(0, a, sizeof(a));
	other = read_of(1, b, sizeof(b));
	nvme_batch_add(&batch, &held);
	nvme_batch_add(&batch, &other);
	assert_ptr_equal(nvme_batch_next(&batch, -1), &other);
	assert_null(nvme_batch_next(&batch, 20));
	assert_int_equal(batch.flying, 1);
	nvme_batch_cancel(&batch, &held, 5000);
	req = nvme_batch_next(&batch, -1);
	assert_ptr_equal(req, &held);
	assert_int_equal(req->error, -ECANCELED);
	nvme_host_free(host);
	fake_free(f);
}

static bool ignore_all(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		       uint32_t n)
{
	return c->qid || sqe->opcode == NVME_ADMIN_ABORT;
}

static void test_a_target_that_does_not_answer_a_cancel_loses_the_connection(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	struct nvme_req held, *req;
	struct nvme_batch batch;
	uint8_t buf[512];

	o.timeout_ms = 100; /* of connecting, and so of the wait after the abort */
	host = join(f, &o);
	f->hook = ignore_all;
	f->hook_left = -1;
	assert_int_equal(nvme_batch_begin(host, &batch), 0);
	held = read_of(0, buf, sizeof(buf));
	held.timeout_ms = 60000;
	nvme_batch_add(&batch, &held);
	assert_null(nvme_batch_next(&batch, 20));
	nvme_batch_cancel(&batch, &held, 50);
	req = nvme_batch_next(&batch, -1);
	assert_ptr_equal(req, &held);
	assert_true(req->error == -ECANCELED || req->error == -ETIMEDOUT);
	nvme_host_free(host);
	fake_free(f);
}

static bool cut_at_io(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		      uint32_t n)
{
	if (!c->qid || !fake_turn(c->fake))
		return false;
	fake_cut(c->fake);
	return true;
}

static void test_a_command_of_one_connection_is_sent_on_no_other(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host_info info;
	struct nvme_host *host;
	struct nvme_req bound, late, *req;
	struct nvme_batch batch;
	uint8_t a[512], b[512];

	fill(f);
	f->hook = cut_at_io;
	f->hook_left = 1;
	o.reconnect_ms = 10000;
	host = join(f, &o);
	nvme_host_info(host, &info);
	assert_int_equal(info.connection, 1);
	assert_int_equal(nvme_batch_begin(host, &batch), 0);
	bound = read_of(0, a, sizeof(a));
	bound.connection = 1;
	nvme_batch_add(&batch, &bound);
	req = nvme_batch_next(&batch, -1);
	assert_ptr_equal(req, &bound);
	assert_int_equal(req->error, -ECONNRESET); /* though it is a read */
	late = read_of(0, b, sizeof(b));
	late.connection = 1;
	nvme_batch_add(&batch, &late);
	req = nvme_batch_next(&batch, -1);
	assert_ptr_equal(req, &late);
	assert_int_equal(req->error, -ENOLINK);
	nvme_host_info(host, &info);
	assert_int_equal(info.connection, 2);
	late.connection = 2;
	nvme_batch_add(&batch, &late);
	req = nvme_batch_next(&batch, -1);
	assert_ptr_equal(req, &late);
	assert_int_equal(req->error, 0);
	assert_memory_equal(b, f->disk, sizeof(b));
	nvme_host_free(host);
	fake_free(f);
}

static void test_a_host_that_gave_up_ends_every_command(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host_info info;
	struct nvme_host *host;
	struct nvme_req r, *req;
	struct nvme_batch batch;
	uint8_t buf[512];

	host = join(f, &o);
	fake_deaf(f);
	fake_cut(f);
	assert_int_equal(nvme_batch_begin(host, &batch), 0);
	for (int i = 0; i < 3; i++) {
		r = read_of(0, buf, sizeof(buf));
		nvme_batch_add(&batch, &r);
		req = nvme_batch_next(&batch, -1);
		assert_ptr_equal(req, &r);
		assert_true(req->error == -ENOLINK || req->error == -ECONNRESET);
	}
	nvme_host_info(host, &info);
	assert_true(info.dead);
	assert_int_equal(nvme_host_failed(host, -ENOLINK), -ENOLINK);
	assert_non_null(strstr(nvme_host_error(), "connection lost"));
	nvme_host_free(host);
	fake_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_that_was_added_ends_with_its_own_bytes),
		cmocka_unit_test(test_threads_wait_for_their_own_commands_only),
		cmocka_unit_test(test_a_wait_ends_in_time_and_what_flies_can_be_cancelled),
		cmocka_unit_test(test_a_target_that_does_not_answer_a_cancel_loses_the_connection),
		cmocka_unit_test(test_a_command_of_one_connection_is_sent_on_no_other),
		cmocka_unit_test(test_a_host_that_gave_up_ends_every_command),
	};

	return cmocka_run_group_tests_name("initiator batch", tests, NULL, NULL);
}
