/* SPDX-License-Identifier: Apache-2.0 */
#include <isa-l/crc.h>

#include "nvme/tcp.h"

enum pdu_traits {
	FROM_HOST = 0x01,
	FROM_CTRL = 0x02,
	DIGESTS = 0x04,   /* carries the digests that were negotiated */
	MAY_DATA = 0x08,  /* data may follow the header */
	MUST_DATA = 0x10, /* data must follow */
};

static const struct {
	const char *name;
	uint8_t hlen;
	uint8_t traits;
} pdu_types[] = {
	[NVME_TCP_ICREQ] = {"ICReq", sizeof(struct nvme_tcp_icreq), FROM_HOST},
	[NVME_TCP_ICRESP] = {"ICResp", sizeof(struct nvme_tcp_icresp), FROM_CTRL},
	[NVME_TCP_H2C_TERM] = {"H2CTermReq", sizeof(struct nvme_tcp_term), FROM_HOST},
	[NVME_TCP_C2H_TERM] = {"C2HTermReq", sizeof(struct nvme_tcp_term), FROM_CTRL},
	[NVME_TCP_CMD] = {"CapsuleCmd", sizeof(struct nvme_tcp_cmd),
			  FROM_HOST | DIGESTS | MAY_DATA},
	[NVME_TCP_RSP] = {"CapsuleResp", sizeof(struct nvme_tcp_rsp), FROM_CTRL | DIGESTS},
	[NVME_TCP_H2C_DATA] = {"H2CData", sizeof(struct nvme_tcp_data),
			       FROM_HOST | DIGESTS | MAY_DATA | MUST_DATA},
	[NVME_TCP_C2H_DATA] = {"C2HData", sizeof(struct nvme_tcp_data),
			       FROM_CTRL | DIGESTS | MAY_DATA | MUST_DATA},
	[NVME_TCP_R2T] = {"R2T", sizeof(struct nvme_tcp_r2t), FROM_CTRL | DIGESTS},
};
#define N_TYPES (sizeof(pdu_types) / sizeof(*pdu_types))

unsigned int nvme_tcp_header_len(uint8_t type)
{
	return type < N_TYPES ? pdu_types[type].hlen : 0;
}

const char *nvme_tcp_type_name(uint8_t type)
{
	return type < N_TYPES && pdu_types[type].name ? pdu_types[type].name : "unknown";
}

static int bad_field(uint32_t offset, uint32_t *fei)
{
	*fei = offset;
	return NVME_TCP_FES_HEADER_FIELD;
}
#define BAD_FIELD(field) bad_field(offsetof(struct nvme_tcp_hdr, field), fei)

int nvme_tcp_check(const struct nvme_tcp_hdr *hdr, bool from_host, bool hdgst, bool ddgst,
		   uint32_t max_data, uint32_t *data_len, uint32_t *fei)
{
	uint32_t plen = nvme_get32(hdr->plen), start = hdr->hlen, end;
	uint8_t traits;

	*data_len = 0;
	*fei = 0;
	if (hdr->type >= N_TYPES || !pdu_types[hdr->type].hlen)
		return BAD_FIELD(type);
	traits = pdu_types[hdr->type].traits;
	if (!(traits & (from_host ? FROM_HOST : FROM_CTRL)))
		return BAD_FIELD(type);
	if (hdr->hlen != pdu_types[hdr->type].hlen)
		return BAD_FIELD(hlen);
	if (!(traits & DIGESTS)) {
		bool term = hdr->type == NVME_TCP_H2C_TERM || hdr->type == NVME_TCP_C2H_TERM;

		if (plen < start || plen - start > (term ? NVME_TCP_TERM_DATA_MAX : 0))
			return BAD_FIELD(plen);
		*data_len = plen - start;
		return 0;
	}
	if (!!(hdr->flags & NVME_TCP_F_HDGST) != hdgst)
		return BAD_FIELD(flags);
	start += hdgst ? NVME_TCP_DIGEST : 0;
	if (plen < start || (plen > start && !(traits & MAY_DATA)))
		return BAD_FIELD(plen);
	if (plen == start)
		return traits & MUST_DATA ? BAD_FIELD(plen) : 0;
	if (!!(hdr->flags & NVME_TCP_F_DDGST) != ddgst)
		return BAD_FIELD(flags);
	if (hdr->pdo < start || hdr->pdo % 4)
		return BAD_FIELD(pdo);
	end = plen - (ddgst ? NVME_TCP_DIGEST : 0);
	if (end <= hdr->pdo || end > plen)
		return BAD_FIELD(plen);
	if (end - hdr->pdo > max_data)
		return NVME_TCP_FES_R2T_LIMIT;
	*data_len = end - hdr->pdo;
	return 0;
}

void nvme_tcp_init(struct nvme_tcp_hdr *hdr, enum nvme_tcp_pdu_type type, uint8_t flags, bool hdgst,
		   bool ddgst, uint32_t align, uint32_t data_len)
{
	bool digests = pdu_types[type].traits & DIGESTS;
	uint32_t len = pdu_types[type].hlen;

	hdr->type = (uint8_t)type;
	hdr->hlen = (uint8_t)len;
	hdr->pdo = 0;
	if (digests && hdgst) {
		flags |= NVME_TCP_F_HDGST;
		len += NVME_TCP_DIGEST;
	}
	if (digests && data_len) {
		len = (len + align - 1) / align * align;
		hdr->pdo = (uint8_t)len;
	}
	len += data_len;
	if (digests && data_len && ddgst) {
		flags |= NVME_TCP_F_DDGST;
		len += NVME_TCP_DIGEST;
	}
	hdr->flags = flags;
	hdr->plen = nvme_put32(len);
}

/* The library's function neither inverts its first value nor its last, and counts in int. */
uint32_t nvme_crc32c(uint32_t crc, const void *p, size_t len)
{
	unsigned char *at = (unsigned char *)(uintptr_t)p;

	crc = ~crc;
	while (len) {
		size_t n = len < 1u << 30 ? len : 1u << 30;

		crc = crc32_iscsi(at, (int)n, crc);
		at += n;
		len -= n;
	}
	return ~crc;
}
