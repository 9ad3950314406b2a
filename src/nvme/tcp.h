/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp.h - the PDUs of NVMe over TCP (NVM Express TCP Transport Specification 1.0): layouts, digests, and
 * checking a header that came from the other end.
 *
 * Owns: bytes of PDUs.  Does not own: sockets, connections, what a command means.
 */
#ifndef NVME_TCP_H
#define NVME_TCP_H

#include <stdbool.h>
#include <stddef.h>

#include "nvme/spec.h"

enum nvme_tcp_pdu_type {
	NVME_TCP_ICREQ = 0x00,
	NVME_TCP_ICRESP = 0x01,
	NVME_TCP_H2C_TERM = 0x02,
	NVME_TCP_C2H_TERM = 0x03,
	NVME_TCP_CMD = 0x04,
	NVME_TCP_RSP = 0x05,
	NVME_TCP_H2C_DATA = 0x06,
	NVME_TCP_C2H_DATA = 0x07,
	NVME_TCP_R2T = 0x09,
};

enum nvme_tcp_flags {
	NVME_TCP_F_HDGST = 0x01,
	NVME_TCP_F_DDGST = 0x02,
	NVME_TCP_F_LAST = 0x04,
	NVME_TCP_F_SUCCESS = 0x08,
};

struct nvme_tcp_hdr {
	uint8_t type, flags, hlen, pdo;
	nvme_le32 plen; /* the whole PDU, digests included */
};
_Static_assert(sizeof(struct nvme_tcp_hdr) == 8, "PDU common header");

struct nvme_tcp_icreq {
	struct nvme_tcp_hdr hdr;
	nvme_le16 pfv;
	uint8_t hpda;     /* 0-based, dwords */
	uint8_t digest;   /* bit 0 header, bit 1 data */
	nvme_le32 maxr2t; /* 0-based */
	uint8_t reserved[112];
};
_Static_assert(sizeof(struct nvme_tcp_icreq) == 128, "ICReq");

struct nvme_tcp_icresp {
	struct nvme_tcp_hdr hdr;
	nvme_le16 pfv;
	uint8_t cpda;
	uint8_t digest;
	nvme_le32 maxh2cdata; /* bytes, at least 4096, a multiple of 4 */
	uint8_t reserved[112];
};
_Static_assert(sizeof(struct nvme_tcp_icresp) == 128, "ICResp");

struct nvme_tcp_term { /* either direction; then up to 128 bytes of the offending header */
	struct nvme_tcp_hdr hdr;
	nvme_le16 fes;
	nvme_le32 fei;
	uint8_t reserved[10];
} __attribute__((packed));
_Static_assert(sizeof(struct nvme_tcp_term) == 24, "H2CTermReq, C2HTermReq");

enum nvme_tcp_fes {
	NVME_TCP_FES_HEADER_FIELD = 0x01, /* fei: offset of the field */
	NVME_TCP_FES_SEQUENCE = 0x02,
	NVME_TCP_FES_HEADER_DIGEST = 0x03, /* fei: the digest received */
	NVME_TCP_FES_DATA_OUT_OF_RANGE = 0x04,
	NVME_TCP_FES_R2T_LIMIT = 0x05, /* also: data transfer limit */
	NVME_TCP_FES_UNSUPPORTED = 0x06,
};

struct nvme_tcp_cmd {
	struct nvme_tcp_hdr hdr;
	struct nvme_sqe sqe;
};
_Static_assert(sizeof(struct nvme_tcp_cmd) == 72, "CapsuleCmd");

struct nvme_tcp_rsp {
	struct nvme_tcp_hdr hdr;
	struct nvme_cqe cqe;
};
_Static_assert(sizeof(struct nvme_tcp_rsp) == 24, "CapsuleResp");

struct nvme_tcp_data { /* H2CData (with ttag) and C2HData */
	struct nvme_tcp_hdr hdr;
	nvme_le16 cccid, ttag;
	nvme_le32 datao, datal;
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct nvme_tcp_data) == 24, "H2CData, C2HData");

struct nvme_tcp_r2t {
	struct nvme_tcp_hdr hdr;
	nvme_le16 cccid, ttag;
	nvme_le32 r2to, r2tl;
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct nvme_tcp_r2t) == 24, "R2T");

#define NVME_TCP_MAX_HEADER    128u /* the longest PDU header */
#define NVME_TCP_DIGEST        4u
#define NVME_TCP_TERM_DATA_MAX 128u

/* Header length a PDU type must have, 0 for a type that does not exist. */
unsigned int nvme_tcp_header_len(uint8_t type);

/*
 * Check the 8 common bytes of a PDU that the peer sent.  @from_host: which way it travels (a type of
 * the other direction is refused); @hdgst, @ddgst: as negotiated; @max_data: the most data bytes one PDU
 * may carry.  Returns 0, or a nvme_tcp_fes with *@fei set.  On success the data starts at hdr->pdo and
 * *@data_len bytes of it follow (a data digest, if there is one, not counted).
 */
int nvme_tcp_check(const struct nvme_tcp_hdr *hdr, bool from_host, bool hdgst, bool ddgst,
		   uint32_t max_data, uint32_t *data_len, uint32_t *fei);

/* Fill a header: @hlen by type, @pdo and @plen from @data_len and the digests; @align as CPDA/HPDA in bytes (4 or more). */
void nvme_tcp_init(struct nvme_tcp_hdr *hdr, enum nvme_tcp_pdu_type type, uint8_t flags, bool hdgst,
		   bool ddgst, uint32_t align, uint32_t data_len);

/* CRC-32C as the digests want it: continued over pieces, starting with and ending in the finished value of nothing, 0. */
uint32_t nvme_crc32c(uint32_t crc, const void *p, size_t len);

/* For messages and metrics. */
const char *nvme_tcp_type_name(uint8_t type);

#endif /* NVME_TCP_H */
