/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initiator.c - the NVMe/TCP host against a target that behaves, and connecting to what is none.
 */
#include "initiator_fixture.h"

#define LONG (1u << 20)

/* ---- the good ways ---- */

static void write_and_read_back(struct fake *f, struct nvme_host_opts *o)
{
	static const uint32_t lens[] = {512, 4096, 8192, 8704, 131072, 131584, LONG};
	struct nvme_host *host = join(f, o);
	uint8_t *back = malloc(LONG);

	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		uint8_t *data = pattern(lens[i], (uint8_t)i);

		if (nvme_host_write(host, FAKE_NSID, 1024, data, lens[i], false))
			fail_msg("%u: %s", lens[i], nvme_host_error());
		assert_memory_equal(f->disk + 1024, data, lens[i]);
		memset(back, 0xee, LONG);
		assert_int_equal(nvme_host_read(host, FAKE_NSID, 1024, back, lens[i]), 0);
		assert_memory_equal(back, data, lens[i]);
		free(data);
	}
	assert_int_equal(nvme_host_flush(host, FAKE_NSID), 0);
	assert_int_equal(f->seen[1][NVME_NVM_FLUSH], 1);
	free(back);
	nvme_host_free(host);
}

static void test_what_is_written_is_read_back(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();

	write_and_read_back(f, &o);
	fake_free(f);
}

static void test_digests_both_ways(void **state)
{
	for (int d = 1; d < 4; d++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();

		o.header_digest = d & 1;
		o.data_digest = d & 2;
		f->data_pdu = 5000;
		write_and_read_back(f, &o);
		fake_free(f);
	}
}

static void test_data_may_come_in_pieces_and_be_success_by_themselves(void **state)
{
	static const uint32_t pieces[] = {0, 4, 1000, 20000, 65536};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();

		f->success_flag = true;
		f->data_pdu = pieces[i];
		write_and_read_back(f, &o);
		fake_free(f);
	}
}

static void test_the_targets_alignment_is_kept(void **state)
{
	static const uint8_t cpda[] = {1, 15, 31};

	for (size_t i = 0; i < sizeof(cpda); i++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();

		f->cpda = cpda[i];
		o.header_digest = o.data_digest = i & 1;
		write_and_read_back(f, &o);
		fake_free(f);
	}
}

static void test_limits_are_the_targets(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host_info info;
	struct nvme_host *host;
	uint8_t *data = calloc(1, LONG);
	struct counted c = io(NVME_NVM_READ, 0, data, 131072 + FAKE_BLOCK);

	o.io_queues = 9;
	o.depth = 1000;
	f->mqes = 20;
	host = join(f, &o);
	nvme_host_info(host, &info);
	assert_int_equal(info.io_queues, FAKE_QUEUES);
	assert_int_equal(info.depth, 20);
	assert_int_equal(info.max_transfer, 131072);
	assert_int_equal(info.in_capsule, FAKE_CAPSULE);
	assert_int_equal(info.cntlid, 5);
	assert_string_equal(info.subnqn, FAKE_NQN);
	assert_int_equal(nvme_host_submit(host, &c.req), -EMSGSIZE);
	c.req.queue = 6;
	assert_int_equal(nvme_host_submit(host, &c.req), -EINVAL);
	nvme_host_free(host);
	free(data);
	fake_free(f);
}

static void test_a_range_that_is_not_the_namespaces_is_refused(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct nvme_host_ns ns;
	uint8_t block[512];

	assert_int_equal(nvme_host_namespace(host, FAKE_NSID, &ns), 0);
	assert_int_equal(ns.block, FAKE_BLOCK);
	assert_int_equal(ns.blocks, FAKE_BYTES / FAKE_BLOCK);
	assert_int_equal(nvme_host_namespace(host, 8, &ns), -ENODEV);
	assert_int_equal(nvme_host_read(host, FAKE_NSID, 1, block, 512), -EINVAL);
	assert_int_equal(nvme_host_read(host, FAKE_NSID, 0, block, 511), -EINVAL);
	assert_int_equal(nvme_host_read(host, FAKE_NSID, FAKE_BYTES, block, 512), -ERANGE);
	assert_int_equal(nvme_host_read(host, FAKE_NSID, UINT64_MAX - 511, block, 512), -ERANGE);
	assert_int_equal(nvme_host_read(host, FAKE_NSID, FAKE_BYTES, block, 0), 0);
	nvme_host_free(host);
	fake_free(f);
}

static void test_a_status_is_an_error_with_its_name(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	uint8_t block[512];
	struct counted c = io(NVME_NVM_READ, FAKE_BYTES / FAKE_BLOCK, block, sizeof(block));

	assert_int_equal(nvme_host_execute(host, &c.req), -EREMOTEIO);
	assert_non_null(strstr(nvme_host_error(), "end of the namespace"));
	assert_int_equal(status_of(&c), NVME_SC_LBA_RANGE);
	submit(host, &c);
	wait_for(host, &c);
	assert_int_equal(c.error, 0);
	assert_int_equal(status_of(&c), NVME_SC_LBA_RANGE);
	nvme_host_free(host);
	fake_free(f);
}

static void test_a_vendors_answer_may_be_shorter(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	uint8_t buf[512];
	struct counted c = io(0xc2, 0, buf, sizeof(buf));

	c.req.may_be_short = true;
	assert_int_equal(nvme_host_execute(host, &c.req), 0);
	assert_int_equal(c.req.moved, 100);
	nvme_host_free(host);
	fake_free(f);
}

static void test_more_commands_than_fit_wait_their_turn(void **state)
{
	enum {
		N = 500
	};
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct counted *c = calloc(N, sizeof(*c));
	uint8_t *buf = calloc(N, 4096), *data = pattern(FAKE_BYTES, 3);
	int ended = 0;

	memcpy(f->disk, data, FAKE_BYTES);
	for (int i = 0; i < N; i++) {
		c[i] = io(NVME_NVM_READ, (uint64_t)i * 8, buf + i * 4096, 4096);
		c[i].req.queue = 1 + i % 2;
		submit(host, &c[i]);
	}
	while (ended < N)
		ended += nvme_host_wait(host, -1);
	for (int i = 0; i < N; i++) {
		assert_int_equal(c[i].ends, 1);
		assert_int_equal(c[i].error, 0);
	}
	assert_memory_equal(buf, data, N * 4096);
	assert_int_equal(nvme_host_poll(host), 0);
	nvme_host_free(host);
	free(data);
	free(buf);
	free(c);
	fake_free(f);
}

/* Submits itself again until it has run often enough. */
struct chain {
	struct nvme_req req;
	struct nvme_host *host;
	int left;
};

static void on_link(struct nvme_req *req, int error)
{
	struct chain *c = req->arg;

	assert_int_equal(error, 0);
	if (--c->left)
		assert_int_equal(nvme_host_submit(c->host, req), 0);
}

static void test_done_may_submit(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	uint8_t buf[4][512];
	struct chain chains[4];
	bool more = true;

	for (int i = 0; i < 4; i++) {
		chains[i] = (struct chain){io(NVME_NVM_READ, 0, buf[i], 512).req, host, 100};
		chains[i].req.done = on_link;
		chains[i].req.arg = &chains[i];
		assert_int_equal(nvme_host_submit(host, &chains[i].req), 0);
	}
	while (more) {
		nvme_host_wait(host, -1);
		more = false;
		for (int i = 0; i < 4; i++)
			more |= chains[i].left > 0;
	}
	assert_int_equal(f->seen[1][NVME_NVM_READ], 400);
	nvme_host_free(host);
	fake_free(f);
}

static void test_the_eventfd_tells_of_completions_nobody_polled_for(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct pollfd p = {.fd = nvme_host_eventfd(host), .events = POLLIN};
	uint8_t *data = pattern(65536, 1);

	nvme_host_poll(host);
	for (int i = 0; i < 20; i++) {
		/* By R2T: the host's own thread must serve it. */
		struct counted c = io(NVME_NVM_WRITE, 0, data, 65536);

		submit(host, &c);
		while (!c.ends) {
			assert_int_equal(poll(&p, 1, 10000), 1);
			nvme_host_poll(host);
		}
		assert_int_equal(c.error, 0);
	}
	assert_int_equal(poll(&p, 1, 0), 0);
	nvme_host_free(host);
	free(data);
	fake_free(f);
}

struct worker {
	struct nvme_host *host;
	pthread_t thread;
	uint8_t seed;
	const char *wrong;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t at = w->seed * 262144ull;
	uint8_t *back = malloc(200 * FAKE_BLOCK);

	for (uint32_t i = 0; i < 40 && !w->wrong; i++) {
		uint32_t len = (1 + i * 5) * FAKE_BLOCK;
		uint8_t *data = pattern(len, (uint8_t)(w->seed + i));

		if (nvme_host_write(w->host, FAKE_NSID, at, data, len, false) ||
		    nvme_host_read(w->host, FAKE_NSID, at, back, len))
			w->wrong = nvme_host_error();
		else if (memcmp(data, back, len) != 0)
			w->wrong = "other bytes";
		free(data);
	}
	free(back);
	return NULL;
}

static void test_threads_share_queues(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host = join(f, &o);
	struct worker w[8];

	for (uint8_t i = 0; i < 8; i++) {
		w[i] = (struct worker){.host = host, .seed = i};
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	}
	for (int i = 0; i < 8; i++) {
		pthread_join(w[i].thread, NULL);
		assert_null(w[i].wrong);
	}
	nvme_host_free(host);
	fake_free(f);
}

static void test_discovery_reads_a_log_that_changes_until_it_holds_still(void **state)
{
	struct fake *f = fake_new();
	struct nvme_discovery_entry *entries;
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	size_t n;

	o.subnqn = NULL;
	f->discovery_entries = 300;
	f->discovery_changes = 3;
	host = join(f, &o);
	assert_int_equal(nvme_host_discover(host, &entries, &n), 0);
	assert_int_equal(n, 300);
	assert_string_equal(entries[299].subnqn, FAKE_NQN "299");
	free(entries);
	f->discovery_changes = 1000;
	assert_int_equal(nvme_host_discover(host, &entries, &n), -EAGAIN);
	f->discovery_changes = 0;
	f->discovery_entries = 0;
	assert_int_equal(nvme_host_discover(host, &entries, &n), 0);
	assert_int_equal(n, 0);
	free(entries);
	nvme_host_free(host);
	fake_free(f);
}

/* ---- connecting to what is no good ---- */

static void test_addresses(void **state)
{
	static const char *const bad[] = {"", ":4420", "[::1", "[::1]x", "host:", "[]:1"};
	struct nvme_host_opts o = quick();
	struct nvme_host *host;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(nvme_host_connect(bad[i], &o, &host), -EINVAL);
		assert_null(host);
	}
	o.size = 4;
	assert_int_equal(nvme_host_connect("localhost", &o, &host), -EINVAL);
}

static bool says_http(struct fake_conn *c)
{
	char text[256];

	memset(text, 0, sizeof(text));
	snprintf(text, sizeof(text), "HTTP/1.1 400 Bad Request\r\n\r\n");
	fake_send(c, text, sizeof(text));
	return true;
}

static bool greets(struct fake_conn *c, uint16_t pfv, uint8_t cpda, uint8_t digest, uint32_t h2c)
{
	struct nvme_tcp_icresp r = {
		.hdr = {NVME_TCP_ICRESP, 0, 128, 0, nvme_put32(128)},
		.pfv = nvme_put16(pfv),
		.cpda = cpda,
		.digest = digest,
		.maxh2cdata = nvme_put32(h2c),
	};

	return !fake_send(c, &r, sizeof(r)) || says_nothing(c);
}

static bool other_version(struct fake_conn *c)
{
	return greets(c, 1, 0, 0, 8192);
}

static bool huge_alignment(struct fake_conn *c)
{
	return greets(c, 0, 32, 0, 8192);
}

static bool no_data(struct fake_conn *c)
{
	return greets(c, 0, 0, 0, 0);
}

static bool unasked_digests(struct fake_conn *c)
{
	return greets(c, 0, 0, 3, 8192);
}

static bool mute_after_greeting(struct fake_conn *c)
{
	return greets(c, 0, 0, 0, 8192);
}

static void test_what_is_no_target_is_named_so(void **state)
{
	static const struct {
		bool (*greet)(struct fake_conn *c);
		int err;
		const char *text;
	} rows[] = {
		{says_http, -EPROTO, "does not speak NVMe/TCP"},
		{hangs_up, -ECONNRESET, "closed"},
		{says_nothing, -ETIMEDOUT, "no answer"},
		{other_version, -EPROTO, "version"},
		{huge_alignment, -EPROTO, "limits"},
		{no_data, -EPROTO, "limits"},
		{unasked_digests, -EPROTO, "digests"},
		{mute_after_greeting, -ETIMEDOUT, "no answer in time"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();
		struct nvme_host *host;

		f->greet = rows[i].greet;
		o.timeout_ms = 200;
		assert_int_equal(nvme_host_connect(f->where, &o, &host), rows[i].err);
		if (!strstr(nvme_host_error(), rows[i].text))
			fail_msg("%zu: %s", i, nvme_host_error());
		fake_free(f);
	}
}

static void test_an_unknown_subsystem_is_an_error_of_connect(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;

	o.subnqn = "nqn.2024-01.test:other";
	assert_int_equal(nvme_host_connect(f->where, &o, &host), -EREMOTEIO);
	assert_non_null(strstr(nvme_host_error(), "Connect"));
	fake_deaf(f);
	assert_int_equal(nvme_host_connect(f->where, &o, &host), -ECONNREFUSED);
	fake_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read_back),
		cmocka_unit_test(test_digests_both_ways),
		cmocka_unit_test(test_data_may_come_in_pieces_and_be_success_by_themselves),
		cmocka_unit_test(test_the_targets_alignment_is_kept),
		cmocka_unit_test(test_limits_are_the_targets),
		cmocka_unit_test(test_a_range_that_is_not_the_namespaces_is_refused),
		cmocka_unit_test(test_a_status_is_an_error_with_its_name),
		cmocka_unit_test(test_a_vendors_answer_may_be_shorter),
		cmocka_unit_test(test_more_commands_than_fit_wait_their_turn),
		cmocka_unit_test(test_done_may_submit),
		cmocka_unit_test(test_the_eventfd_tells_of_completions_nobody_polled_for),
		cmocka_unit_test(test_threads_share_queues),
		cmocka_unit_test(test_discovery_reads_a_log_that_changes_until_it_holds_still),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_what_is_no_target_is_named_so),
		cmocka_unit_test(test_an_unknown_subsystem_is_an_error_of_connect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
