/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PDU headers: what is made is accepted, what is wrong is refused with the field at fault; digests; names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "nvme/status.h"
#include "nvme/tcp.h"

#define MAX_DATA 8192u

static const struct kind {
	enum nvme_tcp_pdu_type type;
	bool from_host;
	uint32_t data; /* to try it with */
} kinds[] = {
	{NVME_TCP_ICREQ, true, 0},       {NVME_TCP_ICRESP, false, 0},
	{NVME_TCP_CMD, true, 0},         {NVME_TCP_CMD, true, 4096},
	{NVME_TCP_RSP, false, 0},        {NVME_TCP_H2C_DATA, true, 512},
	{NVME_TCP_C2H_DATA, false, 512}, {NVME_TCP_R2T, false, 0},
	{NVME_TCP_H2C_TERM, true, 24},   {NVME_TCP_C2H_TERM, false, 128},
};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static int check(const struct nvme_tcp_hdr *hdr, bool from_host, int digests, uint32_t *data,
		 uint32_t *fei)
{
	return nvme_tcp_check(hdr, from_host, digests & 1, digests & 2, MAX_DATA, data, fei);
}

static struct nvme_tcp_hdr made(const struct kind *k, int digests, uint32_t align)
{
	struct nvme_tcp_hdr hdr;

	nvme_tcp_init(&hdr, k->type, 0, digests & 1, digests & 2, align, k->data);
	return hdr;
}

static void headers_that_are_made_are_accepted(void **state)
{
	static const uint32_t aligns[] = {4, 8, 64, 128};
	uint32_t data, fei;

	for (size_t i = 0; i < N_KINDS; i++) {
		for (int digests = 0; digests < 4; digests++) {
			for (size_t a = 0; a < 4; a++) {
				struct nvme_tcp_hdr hdr = made(&kinds[i], digests, aligns[a]);

				assert_int_equal(
					check(&hdr, kinds[i].from_host, digests, &data, &fei), 0);
				assert_int_equal(data, kinds[i].data);
				assert_int_equal(hdr.hlen, nvme_tcp_header_len(kinds[i].type));
				assert_int_equal(hdr.pdo % aligns[a], 0);
			}
		}
	}
}

static void a_type_of_the_other_direction_or_none_is_refused(void **state)
{
	uint32_t data, fei;

	for (size_t i = 0; i < N_KINDS; i++) {
		struct nvme_tcp_hdr hdr = made(&kinds[i], 0, 4);

		fei = 99;
		assert_int_equal(check(&hdr, !kinds[i].from_host, 0, &data, &fei),
				 NVME_TCP_FES_HEADER_FIELD);
		assert_int_equal(fei, 0);
	}
	for (unsigned int type = 0; type < 256; type++) {
		struct nvme_tcp_hdr hdr = {.type = (uint8_t)type, .hlen = 24};

		if (nvme_tcp_header_len((uint8_t)type))
			continue;
		hdr.plen = nvme_put32(24);
		assert_int_equal(check(&hdr, true, 0, &data, &fei), NVME_TCP_FES_HEADER_FIELD);
		assert_int_equal(check(&hdr, false, 0, &data, &fei), NVME_TCP_FES_HEADER_FIELD);
		assert_int_equal(fei, 0);
	}
}

static void a_wrong_header_length_names_its_field(void **state)
{
	uint32_t data, fei;

	for (size_t i = 0; i < N_KINDS; i++) {
		for (unsigned int hlen = 0; hlen < 256; hlen++) {
			struct nvme_tcp_hdr hdr = made(&kinds[i], 0, 4);

			if (hlen == hdr.hlen)
				continue;
			hdr.hlen = (uint8_t)hlen;
			assert_int_equal(check(&hdr, kinds[i].from_host, 0, &data, &fei),
					 NVME_TCP_FES_HEADER_FIELD);
			assert_int_equal(fei, 2);
		}
	}
}

static void digest_flags_must_be_as_negotiated(void **state)
{
	uint32_t data, fei;

	for (size_t i = 0; i < N_KINDS; i++) {
		if (kinds[i].type == NVME_TCP_ICREQ || kinds[i].type == NVME_TCP_ICRESP ||
		    kinds[i].type == NVME_TCP_H2C_TERM || kinds[i].type == NVME_TCP_C2H_TERM)
			continue;
		for (int digests = 0; digests < 4; digests++) {
			struct nvme_tcp_hdr hdr = made(&kinds[i], digests, 4);

			hdr.flags ^= NVME_TCP_F_HDGST;
			assert_int_equal(check(&hdr, kinds[i].from_host, digests, &data, &fei),
					 NVME_TCP_FES_HEADER_FIELD);
			assert_int_equal(fei, 1);
			if (!kinds[i].data)
				continue;
			hdr.flags ^= NVME_TCP_F_HDGST | NVME_TCP_F_DDGST;
			assert_int_equal(check(&hdr, kinds[i].from_host, digests, &data, &fei),
					 NVME_TCP_FES_HEADER_FIELD);
			assert_int_equal(fei, 1);
		}
	}
}

/* Whatever the length says: accepted only if it is that of header, data and digests, and the data fit. */
static void every_length_and_data_offset_is_judged_without_wrapping(void **state)
{
	static const uint32_t lengths[] = {
		0,    1,    8,     71,         72,         73,         75,
		76,   77,   80,    584,        4096,       8264,       8268,
		8272, 8276, 65536, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff};

	for (int digests = 0; digests < 4; digests++) {
		uint32_t head = 72 + (digests & 1 ? 4 : 0), tail = digests & 2 ? 4 : 0;

		for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
			for (unsigned int pdo = 0; pdo < 256; pdo++) {
				struct nvme_tcp_hdr hdr = {.type = NVME_TCP_CMD, .hlen = 72};
				uint32_t plen = lengths[l], data = 1, fei = 1;
				bool has = plen > head;
				bool good = plen == head;
				int fes;

				hdr.pdo = (uint8_t)pdo;
				hdr.plen = nvme_put32(plen);
				hdr.flags = (digests & 1 ? NVME_TCP_F_HDGST : 0) |
					    (digests & 2 && has ? NVME_TCP_F_DDGST : 0);
				if (has)
					good = pdo >= head && pdo % 4 == 0 &&
					       (uint64_t)pdo + tail < plen &&
					       plen - pdo - tail <= MAX_DATA;
				fes = check(&hdr, true, digests, &data, &fei);
				assert_int_equal(!fes, good);
				assert_int_equal(data, good && has ? plen - pdo - tail : 0);
			}
		}
	}
}

static void data_beyond_the_limit_is_a_transfer_limit_error(void **state)
{
	const struct kind most = {NVME_TCP_CMD, true, MAX_DATA},
			  more = {NVME_TCP_CMD, true, MAX_DATA + 4};
	struct nvme_tcp_hdr hdr = made(&most, 0, 4);
	uint32_t data, fei;

	assert_int_equal(check(&hdr, true, 0, &data, &fei), 0);
	hdr = made(&more, 0, 4);
	assert_int_equal(check(&hdr, true, 0, &data, &fei), NVME_TCP_FES_R2T_LIMIT);
	assert_int_equal(data, 0);
}

static void data_pdus_without_data_and_others_with_are_refused(void **state)
{
	uint32_t data, fei;

	for (size_t i = 0; i < N_KINDS; i++) {
		struct kind k = kinds[i];
		struct nvme_tcp_hdr hdr;

		if (k.type == NVME_TCP_CMD || k.type == NVME_TCP_H2C_TERM ||
		    k.type == NVME_TCP_C2H_TERM)
			continue;
		k.data = 0;
		hdr = made(&k, 0, 4);
		if (k.type != NVME_TCP_H2C_DATA && k.type != NVME_TCP_C2H_DATA) {
			hdr.plen = nvme_put32(nvme_get32(hdr.plen) + 4);
			hdr.pdo = hdr.hlen;
		}
		assert_int_equal(check(&hdr, k.from_host, 0, &data, &fei),
				 NVME_TCP_FES_HEADER_FIELD);
		assert_int_equal(fei, 4);
	}
}

static void digests_are_crc32c_and_continue_over_pieces(void **state)
{
	uint8_t bytes[32];

	assert_int_equal(nvme_crc32c(0, "", 0), 0);
	assert_int_equal(nvme_crc32c(0, "123456789", 9), 0xe3069283);
	memset(bytes, 0, sizeof(bytes)); /* RFC 3720, B.4 */
	assert_int_equal(nvme_crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(nvme_crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
	for (size_t cut = 0; cut <= 9; cut++)
		assert_int_equal(
			nvme_crc32c(nvme_crc32c(0, "123456789", cut), &"123456789"[cut], 9 - cut),
			0xe3069283);
}

static void a_status_has_one_name_and_that_of_its_command_set(void **state)
{
	const struct nvme_status_info *s;

	assert_string_equal(nvme_status_name(NVME_SC_SUCCESS), "success");
	assert_string_equal(nvme_status_name(NVME_SC_LBA_RANGE | NVME_DNR), "lba-range");
	assert_string_equal(nvme_status_name(0x7ff), "unknown");
	/* 1/82h means one thing for a write and another for Connect. */
	s = nvme_status_find(0x182, false);
	assert_string_equal(s->name, "read-only-range");
	s = nvme_status_find(0x182, true);
	assert_string_equal(s->name, "connect-param");
	/* 1/91h too; and 1/84h means nothing but for Connect. */
	assert_string_equal(nvme_status_find(NVME_SC_AUTH_REQUIRED, false)->name, "max-ranges");
	assert_string_equal(nvme_status_find(NVME_SC_AUTH_REQUIRED, true)->name, "auth-required");
	assert_null(nvme_status_find(NVME_SC_CONNECT_INVALID_HOST, false));
	assert_false(nvme_status_find(NVME_SC_LBA_RANGE, false)->retry);
	assert_true(nvme_status_find(NVME_SC_CONNECT_BUSY, true)->retry);
	for (unsigned int code = 0; code < 0x800; code++) {
		for (int fabrics = 0; fabrics < 2; fabrics++) {
			s = nvme_status_find((uint16_t)code, fabrics);
			if (s)
				assert_int_equal(s->code, code);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_that_are_made_are_accepted),
		cmocka_unit_test(a_type_of_the_other_direction_or_none_is_refused),
		cmocka_unit_test(a_wrong_header_length_names_its_field),
		cmocka_unit_test(digest_flags_must_be_as_negotiated),
		cmocka_unit_test(every_length_and_data_offset_is_judged_without_wrapping),
		cmocka_unit_test(data_beyond_the_limit_is_a_transfer_limit_error),
		cmocka_unit_test(data_pdus_without_data_and_others_with_are_refused),
		cmocka_unit_test(digests_are_crc32c_and_continue_over_pieces),
		cmocka_unit_test(a_status_has_one_name_and_that_of_its_command_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
