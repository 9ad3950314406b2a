/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initiator_faults.c - the NVMe/TCP host against a target that lies, falls silent or goes away.
 */
#include "initiator_fixture.h"

/* ---- lies ---- */

#define GUARD 4096u

enum lie {
	LIE_CID,
	LIE_CID_HUGE,
	LIE_OFFSET,
	LIE_OFFSET_WRAPS,
	LIE_TOO_LONG,
	LIE_LENGTH,
	LIE_TWICE,
	LIE_DATA_FOR_WRITE,
	LIE_R2T_FOR_READ,
	LIE_R2T_BEYOND,
	LIE_R2T_WRAPS,
	LIE_R2T_EMPTY,
	LIE_R2T_OFFSET,
	LIE_R2T_TWO,
	LIE_R2T_IN_CAPSULE,
	LIE_SUCCESS_NOT_LAST,
	LIE_SHORT,
	LIE_SHORT_FLAG,
	LIE_EARLY_SUCCESS,
	LIE_RESPONSE_CID,
	LIE_TYPE,
	LIE_DIRECTION,
	LIE_ICRESP,
	LIE_PLEN_HUGE,
	LIE_PLEN_ZERO,
	LIE_HLEN,
	LIE_PDO,
	LIE_TERM,
	LIE_HALF,
	LIES,
};

static enum lie lie;

static void bad_header(struct fake_conn *c, uint8_t type, uint8_t hlen, uint8_t pdo, uint32_t plen)
{
	uint8_t bytes[64] = {0};
	struct nvme_tcp_hdr h = {type, 0, hlen, pdo, nvme_put32(plen)};

	memcpy(bytes, &h, sizeof(h));
	fake_send(c, bytes, sizeof(bytes));
}

static void half_data(struct fake_conn *c, uint16_t cid)
{
	struct nvme_tcp_data d = {
		.hdr = {NVME_TCP_C2H_DATA, NVME_TCP_F_LAST, 24, 24, nvme_put32(24 + 4096)},
		.cccid = nvme_put16(cid),
		.datal = nvme_put32(4096),
	};

	fake_send(c, &d, sizeof(d));
	fake_send(c, c->fake->disk, 1000);
}

static bool tell_lie(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		     uint32_t in_capsule)
{
	uint16_t cid = nvme_get16(sqe->cid);
	uint8_t *p = c->fake->disk;
	struct nvme_tcp_hdr term = {NVME_TCP_C2H_TERM, 0, 24, 0, nvme_put32(24)};
	uint8_t bytes[24] = {0};

	if (!c->qid || !fake_turn(c->fake))
		return false;
	switch (lie) {
	case LIE_CID:
		return fake_data(c, cid ^ 1, 0, 4096, p, 4096, NVME_TCP_F_LAST);
	case LIE_CID_HUGE:
		return fake_data(c, 0xffff, 0, 4096, p, 4096, NVME_TCP_F_LAST);
	case LIE_OFFSET:
		return fake_data(c, cid, 4096, 4096, p, 4096, NVME_TCP_F_LAST);
	case LIE_OFFSET_WRAPS:
		return fake_data(c, cid, 0xfffff000, 4096, p, 4096, NVME_TCP_F_LAST);
	case LIE_TOO_LONG:
		return fake_data(c, cid, 0, 8192, p, 8192, NVME_TCP_F_LAST);
	case LIE_LENGTH:
		return fake_data(c, cid, 0, 512, p, 4096, NVME_TCP_F_LAST);
	case LIE_TWICE:
		return fake_data(c, cid, 0, 4096, p, 4096, 0) &&
		       fake_data(c, cid, 0, 4096, p, 4096, NVME_TCP_F_LAST);
	case LIE_DATA_FOR_WRITE:
		return fake_data(c, cid, 0, 4096, p, 4096, NVME_TCP_F_LAST);
	case LIE_R2T_FOR_READ:
	case LIE_R2T_IN_CAPSULE:
		return fake_r2t(c, cid, 1, 0, 4096);
	case LIE_R2T_BEYOND:
		return fake_r2t(c, cid, 1, 0, 65536 + 4);
	case LIE_R2T_WRAPS:
		return fake_r2t(c, cid, 1, 0, 0xfffffffc);
	case LIE_R2T_EMPTY:
		return fake_r2t(c, cid, 1, 0, 0);
	case LIE_R2T_OFFSET:
		return fake_r2t(c, cid, 1, 4096, 4096);
	case LIE_R2T_TWO:
		return fake_r2t(c, cid, 1, 0, 65536) && fake_r2t(c, cid, 2, 0, 65536);
	case LIE_SUCCESS_NOT_LAST:
		return fake_data(c, cid, 0, 4096, p, 4096, NVME_TCP_F_SUCCESS);
	case LIE_SHORT:
		return fake_data(c, cid, 0, 512, p, 512, NVME_TCP_F_LAST) && fake_answer(c, sqe, 0);
	case LIE_SHORT_FLAG:
		return fake_data(c, cid, 0, 512, p, 512, NVME_TCP_F_LAST | NVME_TCP_F_SUCCESS);
	case LIE_EARLY_SUCCESS:
		return fake_answer(c, sqe, 0);
	case LIE_RESPONSE_CID: {
		struct nvme_sqe other = *sqe;

		other.cid = nvme_put16(cid ^ 1);
		return fake_answer(c, &other, NVME_SC_INTERNAL);
	}
	case LIE_TYPE:
		bad_header(c, 0x0a, 24, 0, 24);
		return true;
	case LIE_DIRECTION:
		bad_header(c, NVME_TCP_CMD, 72, 0, 72);
		return true;
	case LIE_ICRESP:
		bad_header(c, NVME_TCP_ICRESP, 128, 0, 128);
		fake_send(c, c->fake->disk, 64);
		return true;
	case LIE_PLEN_HUGE:
		bad_header(c, NVME_TCP_RSP, 24, 0, 0xffffffff);
		return true;
	case LIE_PLEN_ZERO:
		bad_header(c, NVME_TCP_C2H_DATA, 24, 24, 0);
		return true;
	case LIE_HLEN:
		bad_header(c, NVME_TCP_RSP, 255, 0, 255);
		return true;
	case LIE_PDO:
		bad_header(c, NVME_TCP_C2H_DATA, 24, 8, 4120);
		return true;
	case LIE_TERM:
		memcpy(bytes, &term, sizeof(term));
		bytes[8] = NVME_TCP_FES_SEQUENCE;
		return fake_send(c, bytes, sizeof(bytes));
	case LIE_HALF:
		half_data(c, cid);
		shutdown(c->fd, SHUT_RDWR);
		return true;
	case LIES:
		break;
	}
	return false;
}

static const struct {
	uint8_t opcode;
	uint32_t len;
	const char *text;
} lies[LIES] = {
	[LIE_CID] = {NVME_NVM_READ, 4096, "not outstanding"},
	[LIE_CID_HUGE] = {NVME_NVM_READ, 4096, "not outstanding"},
	[LIE_OFFSET] = {NVME_NVM_READ, 8192, "offset 4096 where offset 0"},
	[LIE_OFFSET_WRAPS] = {NVME_NVM_READ, 4096, "where offset 0 is next"},
	[LIE_TOO_LONG] = {NVME_NVM_READ, 4096, "where 4096 were asked for"},
	[LIE_LENGTH] = {NVME_NVM_READ, 4096, "says it has 512"},
	[LIE_TWICE] = {NVME_NVM_READ, 8192, "where offset 4096 is next"},
	[LIE_DATA_FOR_WRITE] = {NVME_NVM_WRITE, 4096, "asks for none"},
	[LIE_R2T_FOR_READ] = {NVME_NVM_READ, 4096, "no data to send"},
	[LIE_R2T_IN_CAPSULE] = {NVME_NVM_WRITE, 4096, "no data to send"},
	[LIE_R2T_BEYOND] = {NVME_NVM_WRITE, 65536, "R2T for 65540 bytes"},
	[LIE_R2T_WRAPS] = {NVME_NVM_WRITE, 65536, "R2T for 4294967292 bytes"},
	[LIE_R2T_EMPTY] = {NVME_NVM_WRITE, 65536, "R2T for 0 bytes"},
	[LIE_R2T_OFFSET] = {NVME_NVM_WRITE, 65536, "at offset 4096"},
	[LIE_R2T_TWO] = {NVME_NVM_WRITE, 65536, "R2T"},
	[LIE_SUCCESS_NOT_LAST] = {NVME_NVM_READ, 4096, "not the last"},
	[LIE_SHORT] = {NVME_NVM_READ, 4096, "success after 512 of 4096"},
	[LIE_SHORT_FLAG] = {NVME_NVM_READ, 4096, "success after 512 of 4096"},
	[LIE_EARLY_SUCCESS] = {NVME_NVM_WRITE, 65536, "success after 0 of 65536"},
	[LIE_RESPONSE_CID] = {NVME_NVM_READ, 4096, "not outstanding"},
	[LIE_TYPE] = {NVME_NVM_READ, 4096, "bad PDU header"},
	[LIE_DIRECTION] = {NVME_NVM_READ, 4096, "bad PDU header"},
	[LIE_ICRESP] = {NVME_NVM_READ, 4096, "ICResp in the midst"},
	[LIE_PLEN_HUGE] = {NVME_NVM_READ, 4096, "bad PDU header"},
	[LIE_PLEN_ZERO] = {NVME_NVM_READ, 4096, "bad PDU header"},
	[LIE_HLEN] = {NVME_NVM_READ, 4096, "bad PDU header"},
	[LIE_PDO] = {NVME_NVM_READ, 4096, "bad PDU header"},
	[LIE_TERM] = {NVME_NVM_READ, 4096, "PDU sequence error"},
	[LIE_HALF] = {NVME_NVM_READ, 4096, "closed"},
};

static void test_a_lie_ends_the_connection_and_touches_no_other_byte(void **state)
{
	for (lie = 0; lie < LIES; lie++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();
		uint32_t len = lies[lie].len;
		uint8_t *buf = malloc(len + 2 * GUARD);
		struct counted c = io(lies[lie].opcode, 0, buf + GUARD, len);
		struct nvme_host *host;

		memset(buf, 0xee, len + 2 * GUARD);
		f->hook = tell_lie;
		host = join(f, &o);
		assert_int_equal(nvme_host_execute(host, &c.req), -ECONNRESET);
		if (!strstr(nvme_host_error(), lies[lie].text))
			fail_msg("%d: %s", lie, nvme_host_error());
		for (uint32_t i = 0; i < GUARD; i++) {
			assert_int_equal(buf[i], 0xee);
			assert_int_equal(buf[GUARD + len + i], 0xee);
		}
		/* It does not reconnect, as it was not asked to. */
		assert_int_equal(nvme_host_execute(host, &c.req), -ENOLINK);
		assert_int_equal(nvme_host_submit(host, &c.req), -ENOLINK);
		nvme_host_free(host);
		fake_free(f);
		free(buf);
	}
}

static bool corrupt(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		    uint32_t n)
{
	struct nvme_tcp_data d = {
		.hdr = {NVME_TCP_C2H_DATA, NVME_TCP_F_LAST, 24, 24, nvme_put32(24 + 512 + 4)},
		.cccid = sqe->cid,
		.datal = nvme_put32(512),
	};
	uint8_t out[24 + 4 + 512 + 4] = {0};
	uint32_t at = 24, crc;

	if (!c->qid || !fake_turn(c->fake))
		return false;
	d.hdr.flags |=
		(uint8_t)((c->hdgst ? NVME_TCP_F_HDGST : 0) | (c->ddgst ? NVME_TCP_F_DDGST : 0));
	if (c->hdgst) {
		at = 28;
		d.hdr.pdo = 28;
		d.hdr.plen = nvme_put32(28 + 512);
	}
	memcpy(out, &d, 24);
	crc = ~nvme_crc32c(0, out, 24);
	if (c->hdgst)
		memcpy(out + 24, &crc, 4);
	return fake_send(c, out, at + 512 + (c->ddgst ? 4 : 0));
}

static void test_damage_on_the_way_is_seen_and_the_read_repeated(void **state)
{
	for (int d = 1; d < 3; d++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();
		struct nvme_host_info info;
		struct nvme_host *host;
		uint8_t buf[512];
		struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

		memset(f->disk, 0x77, 512);
		f->hook = corrupt;
		f->hook_left = 1;
		o.header_digest = d & 1;
		o.data_digest = d & 2;
		o.reconnect_ms = 10000;
		host = join(f, &o);
		assert_int_equal(nvme_host_execute(host, &c.req), 0);
		assert_memory_equal(buf, f->disk, 512);
		nvme_host_info(host, &info);
		assert_int_equal(info.reconnects, 1);
		nvme_host_free(host);
		fake_free(f);
	}
}

/* ---- silence, time-outs, cancelling ---- */

/* Keeps one I/O command; an Abort of it ends it. */
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

		assert_int_equal(nvme_get32(sqe->cdw10) >> 16, f->held_cid);
		fake_answer(&f->conns[atomic_load(&f->held) - 1], &held, NVME_SC_ABORT_REQUESTED);
		return fake_answer64(c, sqe, 0, 0);
	}
	return false;
}

static void test_a_command_that_takes_too_long_is_aborted_and_the_rest_goes_on(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	struct nvme_host_info info;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	f->hook = hold_until_abort;
	f->hook_left = 1;
	o.reconnect_ms = 10000;
	host = join(f, &o);
	c.req.timeout_ms = 100;
	assert_int_equal(nvme_host_execute(host, &c.req), -ETIMEDOUT);
	assert_int_equal(f->seen[0][NVME_ADMIN_ABORT], 1);
	assert_int_equal(nvme_host_execute(host, &c.req), 0);
	nvme_host_info(host, &info);
	assert_int_equal(info.reconnects, 0);
	nvme_host_free(host);
	fake_free(f);
}

static bool ignore_io(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		      uint32_t n)
{
	return c->qid && fake_turn(c->fake);
}

static void test_a_command_that_cannot_be_aborted_ends_with_its_connection(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	struct nvme_host_info info;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	f->hook = ignore_io;
	f->hook_left = 1;
	o.reconnect_ms = 10000;
	host = join(f, &o);
	c.req.timeout_ms = 100;
	assert_int_equal(nvme_host_execute(host, &c.req), -ETIMEDOUT);
	assert_int_equal(f->seen[0][NVME_ADMIN_ABORT], 1);
	assert_int_equal(nvme_host_execute(host, &c.req), 0);
	nvme_host_info(host, &info);
	assert_int_equal(info.reconnects, 1);
	nvme_host_free(host);
	fake_free(f);
}

static void test_a_cancelled_command_ends(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	f->hook = hold_until_abort;
	f->hook_left = 1;
	host = join(f, &o);
	submit(host, &c);
	assert_int_equal(nvme_host_wait(host, 50), 0);
	assert_int_equal(nvme_host_cancel(host, &c.req), 0);
	wait_for(host, &c);
	assert_int_equal(c.error, -ECANCELED);
	assert_int_equal(nvme_host_cancel(host, &c.req), -EALREADY);
	nvme_host_free(host);
	fake_free(f);
}

static void test_a_command_in_line_is_cancelled_unsent(void **state)
{
	enum {
		N = 20
	};
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[N][512];
	struct counted c[N];

	f->hook = ignore_io;
	host = join(f, &o);
	for (int i = 0; i < N; i++) {
		c[i] = io(NVME_NVM_READ, 0, buf[i], 512);
		c[i].req.queue = 1;
		submit(host, &c[i]);
	}
	assert_int_equal(nvme_host_cancel(host, &c[N - 1].req), 0);
	wait_for(host, &c[N - 1]);
	assert_int_equal(c[N - 1].error, -ECANCELED);
	/* Closing ends the rest. */
	nvme_host_free(host);
	for (int i = 0; i < N - 1; i++) {
		assert_int_equal(c[i].ends, 1);
		assert_int_equal(c[i].error, -ECANCELED);
	}
	fake_free(f);
}

static void test_an_idle_host_keeps_itself_alive(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;

	o.keep_alive_ms = 100;
	host = join(f, &o);
	while (f->seen[0][NVME_ADMIN_KEEP_ALIVE] < 3)
		nap(10);
	nvme_host_free(host);
	fake_free(f);
}

static bool ignore_keep_alive(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
			      uint32_t n)
{
	return !c->qid && sqe->opcode == NVME_ADMIN_KEEP_ALIVE && fake_turn(c->fake);
}

static void test_a_target_that_answers_no_keep_alive_is_left(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host_info info = {0};
	struct nvme_host *host;

	f->hook = ignore_keep_alive;
	f->hook_left = 1;
	o.keep_alive_ms = 100;
	o.reconnect_ms = 10000;
	host = join(f, &o);
	while (!info.reconnects) {
		nap(10);
		nvme_host_info(host, &info);
	}
	nvme_host_free(host);
	fake_free(f);
}

/* ---- connections that are lost ---- */

static bool cut_at_io(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data,
		      uint32_t n)
{
	if (!c->qid || !fake_turn(c->fake))
		return false;
	fake_cut(c->fake);
	return true;
}

static void test_reads_survive_a_lost_connection_and_writes_say_so(void **state)
{
	static const struct {
		uint8_t opcode;
		uint32_t len;
		int err;
	} rows[] = {
		{NVME_NVM_READ, 4096, 0},
		{NVME_NVM_WRITE, 4096, -ECONNRESET},
		{NVME_NVM_WRITE, 65536, -ECONNRESET},
		{NVME_NVM_FLUSH, 0, -ECONNRESET},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct fake *f = fake_new();
		struct nvme_host_opts o = quick();
		struct nvme_host_info info;
		uint8_t *buf = calloc(1, 65536), *data = pattern(65536, 9);
		struct counted c = io(rows[i].opcode, 0, buf, rows[i].len);
		struct nvme_host *host;

		memcpy(f->disk, data, 65536);
		f->hook = cut_at_io;
		f->hook_left = 1;
		o.reconnect_ms = 10000;
		host = join(f, &o);
		assert_int_equal(nvme_host_execute(host, &c.req), rows[i].err);
		if (rows[i].opcode == NVME_NVM_READ)
			assert_memory_equal(buf, data, rows[i].len);
		/* What comes next finds a connection. */
		assert_int_equal(nvme_host_read(host, FAKE_NSID, 0, buf, 65536), 0);
		assert_memory_equal(buf, data, 65536);
		nvme_host_info(host, &info);
		assert_int_equal(info.reconnects, 1);
		nvme_host_free(host);
		fake_free(f);
		free(buf);
		free(data);
	}
}

static void test_a_long_range_is_read_through_lost_connections(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	uint8_t *buf = malloc(FAKE_BYTES), *data = pattern(FAKE_BYTES, 5);
	struct nvme_host *host;

	memcpy(f->disk, data, FAKE_BYTES);
	f->data_pdu = 10000;
	f->hook = cut_at_io;
	f->hook_left = 2;
	o.reconnect_ms = 10000;
	host = join(f, &o);
	assert_int_equal(nvme_host_read(host, FAKE_NSID, 0, buf, FAKE_BYTES), 0);
	assert_memory_equal(buf, data, FAKE_BYTES);
	nvme_host_free(host);
	free(buf);
	free(data);
	fake_free(f);
}

static void test_a_command_that_always_ends_the_connection_is_not_sent_for_ever(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	f->hook = cut_at_io;
	o.reconnect_ms = 10000;
	host = join(f, &o);
	assert_int_equal(nvme_host_execute(host, &c.req), -ECONNRESET);
	assert_int_equal(f->seen[1][NVME_NVM_READ], 5);
	f->hook_left = 0;
	assert_int_equal(nvme_host_execute(host, &c.req), 0);
	nvme_host_free(host);
	fake_free(f);
}

static void test_what_was_not_sent_waits_for_the_connection(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[512];
	struct nvme_host_info info = {0};
	struct counted c = io(NVME_NVM_WRITE, 0, buf, sizeof(buf));

	memset(buf, 0x3c, sizeof(buf));
	o.reconnect_ms = 10000;
	host = join(f, &o);
	f->greet = hangs_up; /* reconnecting does not succeed at first */
	fake_cut(f);
	nap(100);
	submit(host, &c);
	assert_int_equal(nvme_host_wait(host, 200), 0);
	f->greet = NULL;
	wait_for(host, &c);
	assert_int_equal(c.error, 0);
	assert_memory_equal(f->disk, buf, sizeof(buf));
	nvme_host_info(host, &info);
	assert_int_equal(info.reconnects, 1);
	nvme_host_free(host);
	fake_free(f);
}

static void test_another_device_does_not_take_the_place(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	f->hook = cut_at_io;
	f->hook_left = 1;
	o.reconnect_ms = 300;
	host = join(f, &o);
	f->serial = "FAKE-2";
	assert_int_equal(nvme_host_execute(host, &c.req), -ENOLINK);
	assert_non_null(strstr(nvme_host_error(), "another device"));
	nvme_host_free(host);
	fake_free(f);
}

static void test_a_target_that_stays_away_is_given_up(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	o.reconnect_ms = 300;
	host = join(f, &o);
	fake_deaf(f);
	fake_cut(f);
	assert_int_equal(nvme_host_execute(host, &c.req), -ENOLINK);
	assert_int_equal(nvme_host_execute(host, &c.req), -ENOLINK);
	nvme_host_free(host);
	fake_free(f);
}

static void test_closing_does_not_wait_for_a_target_that_is_away(void **state)
{
	struct fake *f = fake_new();
	struct nvme_host_opts o = quick();
	struct nvme_host *host;
	uint8_t buf[512];
	struct counted c = io(NVME_NVM_READ, 0, buf, sizeof(buf));

	o.reconnect_ms = 3600000;
	o.timeout_ms = 3600000;
	host = join(f, &o);
	f->greet = says_nothing;
	fake_cut(f);
	submit(host, &c);
	nap(200);
	nvme_host_free(host);
	assert_int_equal(c.ends, 1);
	assert_int_equal(c.error, -ECANCELED);
	fake_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_lie_ends_the_connection_and_touches_no_other_byte),
		cmocka_unit_test(test_damage_on_the_way_is_seen_and_the_read_repeated),
		cmocka_unit_test(
			test_a_command_that_takes_too_long_is_aborted_and_the_rest_goes_on),
		cmocka_unit_test(test_a_command_that_cannot_be_aborted_ends_with_its_connection),
		cmocka_unit_test(test_a_cancelled_command_ends),
		cmocka_unit_test(test_a_command_in_line_is_cancelled_unsent),
		cmocka_unit_test(test_an_idle_host_keeps_itself_alive),
		cmocka_unit_test(test_a_target_that_answers_no_keep_alive_is_left),
		cmocka_unit_test(test_reads_survive_a_lost_connection_and_writes_say_so),
		cmocka_unit_test(test_a_long_range_is_read_through_lost_connections),
		cmocka_unit_test(
			test_a_command_that_always_ends_the_connection_is_not_sent_for_ever),
		cmocka_unit_test(test_what_was_not_sent_waits_for_the_connection),
		cmocka_unit_test(test_another_device_does_not_take_the_place),
		cmocka_unit_test(test_a_target_that_stays_away_is_given_up),
		cmocka_unit_test(test_closing_does_not_wait_for_a_target_that_is_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
