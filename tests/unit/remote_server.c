/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server of another version, another kind, or of ill will answers costs the caller an error that says so.
 *
 * The server is a fake one: it opens any path, and ends runs with the bytes that a test gives it.
 */
#include "fault/fixture.h"
#include "nvme/lambda.h"
#include "unit/fake_target.h"

static struct {
	bool no_commands; /* it knows none of the λ commands */
	uint16_t version_min, version_max;
	uint16_t submit_status; /* of a run; of the first @refusals ones only if that is not 0 */
	atomic_int refusals;
	uint32_t submit_dw0;
	const void *answer; /* of a run's fetch */
	uint32_t answer_len;
	const void *list; /* what LIST brings */
	uint32_t list_len;
	atomic_uint handle_op; /* op of the last request */
	atomic_int programs;
} says;

static bool answer_bytes(struct fake_conn *c, const struct nvme_sqe *sqe, const void *p, uint32_t n)
{
	return (!n || fake_data(c, nvme_get16(sqe->cid), 0, n, p, n, NVME_TCP_F_LAST)) &&
	       fake_answer64(c, sqe, 0, n);
}

/* A fetch's answer that ends well with @len bytes. */
static bool answer_end(struct fake_conn *c, const struct nvme_sqe *sqe, const void *p, uint32_t len)
{
	struct nvme_lambda_reply head = {.flags = NVME_LAMBDA_END, .len = len};
	struct nvme_lambda_result result = {.error_offset = UINT64_MAX};
	uint32_t at = (uint32_t)(sizeof(head) + len + 7) & ~7u;
	uint8_t *out = calloc(1, at + sizeof(result));
	bool ok;

	memcpy(out, &head, sizeof(head));
	if (len)
		memcpy(out + sizeof(head), p, len);
	memcpy(out + at, &result, sizeof(result));
	ok = answer_bytes(c, sqe, out, (uint32_t)(at + sizeof(result)));
	free(out);
	return ok;
}

static bool tell_subsystem(struct fake_conn *c, const struct nvme_sqe *sqe)
{
	size_t len = ((size_t)(nvme_get32(sqe->cdw10) >> 16) + 1) * 4;
	size_t at = nvme_get32(sqe->cdw12);
	uint8_t *log = calloc(1, 4096 + at + len);
	struct nvme_discovery_log *head = (void *)log;
	struct nvme_discovery_entry *e = (void *)(log + 1024);
	bool ok;

	head->numrec = nvme_put64(1);
	e->trtype = NVME_TRTYPE_TCP;
	e->subtype = NVME_SUBTYPE_NVM;
	strcpy(e->subnqn, FAKE_NQN);
	ok = fake_reply(c, sqe, log + at, (uint32_t)len);
	free(log);
	return ok;
}

static bool on_info(struct fake_conn *c, const struct nvme_sqe *sqe)
{
	struct nvme_lambda_abilities a = {
		.version_min = says.version_min,
		.version_max = says.version_max,
		.tiers = 6,
		.max_fetch_wait_ms = 1000,
		.max_request = 1 << 20,
		.max_program = 1 << 20,
		.server = "fake 1",
	};

	return answer_bytes(c, sqe, &a, sizeof(a));
}

static bool on_submit(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data)
{
	struct nvme_path_request r;

	memcpy(&r, data, sizeof(r));
	atomic_store(&says.handle_op, r.op);
	if (r.op == NVME_LAMBDA_RUN && says.submit_status &&
	    atomic_fetch_sub(&says.refusals, 1) > 0)
		return fake_answer64(c, sqe, says.submit_status, says.submit_dw0);
	return fake_answer(c, sqe, 0);
}

static bool on_fetch(struct fake_conn *c, const struct nvme_sqe *sqe)
{
	struct nvme_path_opened opened = {.object = 7, .stat = {.type = NVME_PATH_FILE}};

	switch (atomic_load(&says.handle_op)) {
	case NVME_PATH_OPEN:
		return answer_end(c, sqe, &opened, sizeof(opened));
	case NVME_PATH_LIST:
		return answer_end(c, sqe, says.list, says.list_len);
	case NVME_LAMBDA_RUN:
		if (says.submit_status && atomic_load(&says.refusals) >= 0)
			return fake_answer(c, sqe, NVME_SC_LAMBDA_NO_HANDLE);
		return answer_bytes(c, sqe, says.answer, says.answer_len);
	default:
		return answer_end(c, sqe, NULL, 0);
	}
}

static bool serve(struct fake_conn *c, const struct nvme_sqe *sqe, const uint8_t *data, uint32_t n)
{
	if (!c->qid)
		return sqe->opcode == NVME_ADMIN_GET_LOG_PAGE && tell_subsystem(c, sqe);
	if (says.no_commands && sqe->opcode >= 0x80)
		return fake_answer(c, sqe, NVME_SC_INVALID_OPCODE | NVME_DNR);
	switch (sqe->opcode) {
	case NVME_LAMBDA_INFO:
		return on_info(c, sqe);
	case NVME_LAMBDA_SUBMIT:
		return on_submit(c, sqe, data);
	case NVME_LAMBDA_FETCH:
		return on_fetch(c, sqe);
	case NVME_LAMBDA_PROGRAM:
		atomic_fetch_add(&says.programs, 1);
		if (nvme_get32(sqe->cdw13) + 32 > FAKE_CAPSULE) { /* it is asked for */
			static uint8_t program[1 << 20];

			if (!fake_fetch(c, sqe, 0, program, nvme_get32(sqe->cdw13) + 32))
				return false;
		}
		return fake_answer(c, sqe, 0);
	default:
		return sqe->opcode >= 0x80 && fake_answer(c, sqe, 0);
	}
}

static struct fake *server(void)
{
	struct fake *f = fake_new();

	memset(&says, 0, sizeof(says));
	says.version_min = says.version_max = NVME_LAMBDA_VERSION;
	f->hook = serve;
	return f;
}

static const char *url_of(const struct fake *f)
{
	static char url[64];

	snprintf(url, sizeof(url), "lio://%s/x/f", f->where);
	return url;
}

/* ---- other versions, other servers ---- */

static void a_server_of_another_version_is_named_with_both_versions(void **state)
{
	static const struct {
		uint16_t min, max;
	} rows[] = {{2, 9}, {0, 0}};

	for (size_t i = 0; i < 2; i++) {
		struct fake *f = server();
		struct lio_file *file;

		says.version_min = rows[i].min;
		says.version_max = rows[i].max;
		FAILS(lio_open(url_of(f), O_RDONLY, 0, &file), -EPROTONOSUPPORT, "fake 1");
		assert_non_null(strstr(lio_error(), i ? "0 to 0" : "2 to 9"));
		assert_non_null(strstr(lio_error(), "upgrade the older"));
		fake_free(f);
	}
}

static void a_newer_server_that_still_knows_our_version_is_used(void **state)
{
	struct fake *f = server();
	struct lio_file *file;

	says.version_max = 9;
	OK(lio_open(url_of(f), O_RDONLY, 0, &file));
	OK(lio_close(file));
	fake_free(f);
}

static void a_target_without_the_commands_is_named_so(void **state)
{
	struct fake *f = server();
	struct lio_file *file;

	says.no_commands = true;
	FAILS(lio_open(url_of(f), O_RDONLY, 0, &file), -EOPNOTSUPP, "no λ commands");
	fake_free(f);
}

/* ---- answers ---- */

static int64_t run_once(struct fake *f)
{
	struct lio_function *fn = load("echo");
	struct lio_file *file;
	char buf[64];
	int64_t n;

	OK(lio_open(url_of(f), O_RDONLY, 0, &file));
	n = lio_lambda_read(file, fn, 0, LIO_TO_END, NULL, buf, sizeof(buf), NULL);
	OK(lio_close(file));
	lio_unload(fn);
	return n;
}

static void an_answer_that_is_malformed_is_an_error_and_no_output(void **state)
{
	static const struct {
		struct nvme_lambda_reply head;
		struct nvme_lambda_result result;
		uint32_t cut, code;
	} rows[] = {
		{.cut = 10, .code = EPROTO},
		{.head = {.len = 1}, .cut = 32, .code = EPROTO},
		{.head = {.len = UINT32_MAX}, .cut = 168, .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END}, .cut = 32, .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END, .len = 136}, .cut = 168, .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END, .offset = 5}, .cut = 168, .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.text_len = 1},
		 .cut = 168,
		 .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.text_len = 640},
		 .cut = 2000,
		 .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.text_len = UINT32_MAX},
		 .cut = 168,
		 .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.error = 1},
		 .cut = 168,
		 .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.error = INT32_MIN},
		 .cut = 168,
		 .code = EPROTO},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.error = -EDOM},
		 .cut = 168,
		 .code = EDOM},
		{.head = {.flags = NVME_LAMBDA_END},
		 .result = {.tier = 255, .io = 255},
		 .cut = 168},
	};
	static uint8_t bytes[4096];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fake *f = server();

		memcpy(bytes, &rows[i].head, sizeof(rows[i].head));
		memcpy(bytes + sizeof(rows[i].head), &rows[i].result, sizeof(rows[i].result));
		says.answer = bytes;
		says.answer_len = rows[i].cut;
		assert_int_equal(run_once(f), -(int64_t)rows[i].code);
		if (rows[i].code)
			assert_true(strlen(lio_error()) > 10);
		fake_free(f);
	}
}

/* Seeds 1 to 400: a header that is nearly right, and noise. */
static void noise_for_an_answer_is_output_or_an_error_and_never_more(void **state)
{
	struct fake *f = server();
	static uint8_t bytes[4096];

	for (uint64_t seed = 1; seed <= 400; seed++) {
		struct nvme_lambda_reply head;
		uint64_t x = seed * 0x9e3779b97f4a7c15u;
		int64_t n;

		for (size_t i = 0; i < sizeof(bytes); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bytes[i] = (uint8_t)(x >> 32);
		}
		memcpy(&head, bytes, sizeof(head));
		head.flags = NVME_LAMBDA_END;
		head.offset = seed % 5 ? 0 : head.offset;
		head.len = seed % 3 ? head.len % 300 : head.len;
		memcpy(bytes, &head, sizeof(head));
		if (seed % 2) /* a text that may fit */
			memset(bytes + ((sizeof(head) + head.len % 300 + 7) & ~7ul) + 8, 0, 4);
		says.answer = bytes;
		says.answer_len = (uint32_t)(x % sizeof(bytes));
		n = run_once(f);
		assert_true(n <= 64); /* the caller's buffer */
		if (n < 0)
			assert_true(strlen(lio_error()) > 10 && !strchr(lio_error(), '\n'));
	}
	fake_free(f);
}

static void a_function_that_a_server_has_not_is_sent_and_the_run_repeated(void **state)
{
	static const struct {
		struct nvme_lambda_reply head;
		struct nvme_lambda_result result;
	} done = {.head = {.flags = NVME_LAMBDA_END}};
	struct fake *f = server();

	says.answer = &done;
	says.answer_len = sizeof(done);
	says.submit_status = NVME_SC_LAMBDA_NO_PROGRAM;
	atomic_store(&says.refusals, 1);
	assert_int_equal(run_once(f), 0);
	assert_true(atomic_load(&says.programs) > 0);
	fake_free(f);
}

static void a_busy_server_is_asked_again_within_the_time_limit(void **state)
{
	static const struct {
		struct nvme_lambda_reply head;
		struct nvme_lambda_result result;
	} done = {.head = {.flags = NVME_LAMBDA_END}};
	struct lio_run_opts opts = {.size = sizeof(opts), .timeout_ns = 50000000};
	struct fake *f = server();
	struct lio_function *fn = load("echo");
	struct lio_file *file;
	char buf[8];

	says.answer = &done;
	says.answer_len = sizeof(done);
	says.submit_status = NVME_SC_LAMBDA_BUSY;
	says.submit_dw0 = 3;
	atomic_store(&says.refusals, 4);
	assert_int_equal(run_once(f), 0);
	atomic_store(&says.refusals, 1 << 30);
	says.submit_dw0 = UINT32_MAX; /* it may not make us wait as long as it likes */
	OK(lio_open(url_of(f), O_RDONLY, 0, &file));
	FAILS(lio_lambda_read(file, fn, 0, LIO_TO_END, &opts, buf, sizeof(buf), NULL), -ETIME,
	      "busy");
	OK(lio_close(file));
	lio_unload(fn);
	fake_free(f);
}

static void a_status_that_nobody_expects_is_told_as_it_is(void **state)
{
	static const struct {
		uint16_t status;
		int code;
		const char *word;
	} rows[] = {{NVME_SC_INVALID_FIELD, -EREMOTEIO, "invalid"},
		    {NVME_SC_LAMBDA_TOO_BIG, -E2BIG, "limit"},
		    {NVME_SC_LAMBDA_VERSION, -EPROTONOSUPPORT, "version"},
		    {NVME_SC_LAMBDA_NO_OBJECT, -EBADF, "open it again"},
		    {0x1ff, -EREMOTEIO, "unknown"}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fake *f = server();

		says.submit_status = rows[i].status;
		atomic_store(&says.refusals, 1000);
		FAILS(run_once(f), rows[i].code, rows[i].word);
		fake_free(f);
	}
}

/* ---- lists ---- */

static int count_entry(void *arg, const struct lio_entry *e)
{
	++*(int *)arg;
	return 0;
}

static void a_list_that_is_malformed_leads_nowhere(void **state)
{
	static const struct {
		const char *name;
		uint16_t name_len;
		uint32_t cut;
	} rows
		[] =
			{
				{"ok", 2, 20},     {"ok", 2, 33},        {"ok", 200, 40},
				{"", 0, 40},       {"..", 2, 40},        {".", 1, 40},
				{"a/b", 3, 40},    {"../../etc", 9, 48}, {"a\0b", 3, 40},
				{"ok", 65535, 40}, {"ok", 2, 40}, /* fine, but the cookie never moves on */
			};
	static uint8_t bytes[512];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct nvme_path_entry e = {.type = NVME_PATH_FILE, .name_len = rows[i].name_len};
		struct fake *f = server();
		int n = 0;

		memset(bytes, 0, sizeof(bytes));
		memcpy(bytes, &e, sizeof(e));
		memcpy(bytes + sizeof(e), rows[i].name,
		       rows[i].name_len < 16 ? rows[i].name_len : 2);
		says.list = bytes;
		says.list_len = rows[i].cut;
		FAILS(lio_list(url_of(f), count_entry, &n), -EPROTO, "malformed");
		assert_true(n <= 1);
		fake_free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_of_another_version_is_named_with_both_versions),
		cmocka_unit_test(a_newer_server_that_still_knows_our_version_is_used),
		cmocka_unit_test(a_target_without_the_commands_is_named_so),
		cmocka_unit_test(an_answer_that_is_malformed_is_an_error_and_no_output),
		cmocka_unit_test(noise_for_an_answer_is_output_or_an_error_and_never_more),
		cmocka_unit_test(a_function_that_a_server_has_not_is_sent_and_the_run_repeated),
		cmocka_unit_test(a_busy_server_is_asked_again_within_the_time_limit),
		cmocka_unit_test(a_status_that_nobody_expects_is_told_as_it_is),
		cmocka_unit_test(a_list_that_is_malformed_leads_nowhere),
	};

	return cmocka_run_group_tests_name("servers that answer oddly", tests, NULL, NULL);
}
