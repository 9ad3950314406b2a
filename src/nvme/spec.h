/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spec.h - what both ends of the wire agree on: the structures, opcodes, identifiers and status codes of
 * the NVM Express base, NVM command set and fabrics specifications that this project uses.
 *
 * Owns: layouts, as they are in memory and on the wire (little-endian), and their numbers.
 * Does not own: PDUs of the TCP transport (tcp.h), behaviour.
 *
 * Numbers in comments are of NVM Express Base Specification 2.0 unless another is named.
 */
#ifndef NVME_SPEC_H
#define NVME_SPEC_H

#include <endian.h>
#include <stdint.h>

/* Wire integers: a type of their own, so that one cannot be used without being converted. */
typedef struct {
	uint16_t raw;
} __attribute__((packed)) nvme_le16;
typedef struct {
	uint32_t raw;
} __attribute__((packed)) nvme_le32;
typedef struct {
	uint64_t raw;
} __attribute__((packed)) nvme_le64;

static inline uint16_t nvme_get16(nvme_le16 v)
{
	return le16toh(v.raw);
}
static inline uint32_t nvme_get32(nvme_le32 v)
{
	return le32toh(v.raw);
}
static inline uint64_t nvme_get64(nvme_le64 v)
{
	return le64toh(v.raw);
}
static inline nvme_le16 nvme_put16(uint16_t v)
{
	return (nvme_le16){htole16(v)};
}
static inline nvme_le32 nvme_put32(uint32_t v)
{
	return (nvme_le32){htole32(v)};
}
static inline nvme_le64 nvme_put64(uint64_t v)
{
	return (nvme_le64){htole64(v)};
}

/* ---- queues (3.3.3, 4.1, 4.2) ---- */

struct nvme_sgl { /* 4.1.2 */
	nvme_le64 addr;
	nvme_le32 length;
	uint8_t reserved[3];
	uint8_t type; /* descriptor type in bits 7:4, sub type in 3:0 */
};
_Static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");

enum nvme_sgl_type {
	NVME_SGL_DATA_OFFSET = 0x01,    /* data block, offset: in the capsule */
	NVME_SGL_TRANSPORT_DATA = 0x5a, /* transport data block: by R2T or C2HData */
};

struct nvme_sqe { /* 4.1.1 and each command */
	uint8_t opcode;
	uint8_t flags; /* FUSE in 1:0, PSDT in 7:6 */
	nvme_le16 cid;
	nvme_le32 nsid;
	nvme_le32 cdw2, cdw3;
	nvme_le64 mptr;
	struct nvme_sgl sgl;
	nvme_le32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_sqe) == 64, "submission queue entry");

struct nvme_cqe { /* 4.2 */
	nvme_le32 dw0, dw1;
	nvme_le16 sqhd;
	nvme_le16 sqid;
	nvme_le16 cid;
	nvme_le16 status; /* phase in bit 0 (zero on fabrics), then NVME_STATUS() << 1 */
};
_Static_assert(sizeof(struct nvme_cqe) == 16, "completion queue entry");

#define NVME_PSDT_SGL 0x40u

/*
 * Status: type in bits 10:8, code in 7:0, DNR (do not retry) in bit 14, More in 13: the field as it
 * stands in a CQE, shifted right by the phase bit.
 */
#define NVME_STATUS(type, code) ((uint16_t)((type) << 8 | (code)))
#define NVME_DNR                0x4000u

enum nvme_status {
	/* generic (figure 99 ff.) */
	NVME_SC_SUCCESS = 0x000,
	NVME_SC_INVALID_OPCODE = 0x001,
	NVME_SC_INVALID_FIELD = 0x002,
	NVME_SC_CID_CONFLICT = 0x003,
	NVME_SC_DATA_TRANSFER = 0x004,
	NVME_SC_INTERNAL = 0x006,
	NVME_SC_ABORT_REQUESTED = 0x007,
	NVME_SC_ABORT_SQ_DELETED = 0x008,
	NVME_SC_INVALID_NS = 0x00b,
	NVME_SC_COMMAND_SEQUENCE = 0x00c,
	NVME_SC_SGL_INVALID_LAST = 0x00d,
	NVME_SC_SGL_INVALID_COUNT = 0x00e,
	NVME_SC_SGL_INVALID_DATA = 0x00f,
	NVME_SC_SGL_INVALID_TYPE = 0x011,
	NVME_SC_SGL_INVALID_OFFSET = 0x016,
	NVME_SC_HOSTID_INCONSISTENT = 0x018,
	NVME_SC_KEEP_ALIVE_EXPIRED = 0x019,
	NVME_SC_KEEP_ALIVE_INVALID = 0x01a,
	NVME_SC_WRITE_PROTECTED = 0x020,
	NVME_SC_TRANSIENT_TRANSPORT = 0x022,
	NVME_SC_INVALID_COMMAND_SET = 0x02c, /* the namespace has another I/O command set */
	NVME_SC_LBA_RANGE = 0x080,
	NVME_SC_CAPACITY = 0x081,
	NVME_SC_NS_NOT_READY = 0x082,
	/* command specific */
	NVME_SC_INVALID_QUEUE_ID = 0x101,
	NVME_SC_INVALID_QUEUE_SIZE = 0x102,
	NVME_SC_ABORT_LIMIT = 0x103,
	NVME_SC_AER_LIMIT = 0x105,
	NVME_SC_INVALID_LOG_PAGE = 0x109,
	NVME_SC_INVALID_FORMAT = 0x10a,
	NVME_SC_FEATURE_NOT_SAVEABLE = 0x10d,
	NVME_SC_FEATURE_NOT_CHANGEABLE = 0x10e,
	NVME_SC_OVERLAPPING_RANGE = 0x114,
	NVME_SC_IOCS_COMBINATION = 0x12b, /* I/O command set combination rejected */
	/* of NVM commands, in the same type */
	NVME_SC_CONFLICTING_ATTRIBUTES = 0x180,
	NVME_SC_READ_ONLY = 0x182,
	NVME_SC_COMMAND_SIZE_LIMIT = 0x183, /* command size limits exceeded (Copy) */
	NVME_SC_OVERLAPPING_IO = 0x187,
	/* of fabrics commands, in the same type */
	NVME_SC_CONNECT_FORMAT = 0x180,
	NVME_SC_CONNECT_BUSY = 0x181,
	NVME_SC_CONNECT_INVALID_PARAM = 0x182,
	NVME_SC_CONNECT_RESTART = 0x183,
	NVME_SC_CONNECT_INVALID_HOST = 0x184,
	NVME_SC_INVALID_QUEUE_TYPE = 0x185,
	NVME_SC_DISCOVERY_RESTART = 0x190,
	NVME_SC_AUTH_REQUIRED = 0x191,
	/* media and data integrity */
	NVME_SC_WRITE_FAULT = 0x280,
	NVME_SC_READ_ERROR = 0x281,
	NVME_SC_COMPARE_FAILED = 0x285,
	NVME_SC_ACCESS_DENIED = 0x286,
	NVME_SC_DEALLOCATED = 0x287,
};

/* ---- opcodes: bits 1:0 are the direction, 01 to the controller, 10 to the host ---- */

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_NS_MANAGEMENT = 0x0d,
	NVME_ADMIN_FIRMWARE_COMMIT = 0x10,
	NVME_ADMIN_FIRMWARE_DOWNLOAD = 0x11,
	NVME_ADMIN_SELF_TEST = 0x14,
	NVME_ADMIN_NS_ATTACHMENT = 0x15,
	NVME_ADMIN_KEEP_ALIVE = 0x18,
	NVME_ADMIN_FORMAT = 0x80,
	NVME_ADMIN_SECURITY_SEND = 0x81,
	NVME_ADMIN_SECURITY_RECEIVE = 0x82,
	NVME_ADMIN_SANITIZE = 0x84,
};

enum nvme_nvm_opcode { /* NVM Command Set Specification, figure 15 */
	NVME_NVM_FLUSH = 0x00,
	NVME_NVM_WRITE = 0x01,
	NVME_NVM_READ = 0x02,
	NVME_NVM_WRITE_UNCORRECTABLE = 0x04,
	NVME_NVM_COMPARE = 0x05,
	NVME_NVM_WRITE_ZEROES = 0x08,
	NVME_NVM_DSM = 0x09,
	NVME_NVM_VERIFY = 0x0c,
	NVME_NVM_COPY = 0x19,
};

#define NVME_FABRICS 0x7f /* opcode of all fabrics commands; the type stands in nsid's first byte */

enum nvme_fabrics_type {
	NVME_FABRICS_PROPERTY_SET = 0x00,
	NVME_FABRICS_CONNECT = 0x01,
	NVME_FABRICS_PROPERTY_GET = 0x04,
	NVME_FABRICS_AUTH_SEND = 0x05,
	NVME_FABRICS_AUTH_RECEIVE = 0x06,
	NVME_FABRICS_DISCONNECT = 0x08,
};

struct nvme_connect_data { /* 6.3, figure 378 */
	uint8_t hostid[16];
	nvme_le16 cntlid;
	uint8_t reserved18[238];
	char subnqn[256];
	char hostnqn[256];
	uint8_t reserved768[256];
};
_Static_assert(sizeof(struct nvme_connect_data) == 1024, "connect data");

#define NVME_CNTLID_DYNAMIC   0xffffu
#define NVME_CATTR_NO_SQ_FLOW 0x04u
#define NVME_NQN_DISCOVERY    "nqn.2014-08.org.nvmexpress.discovery"
#define NVME_NQN_MAX          223 /* bytes without the NUL */

/* ---- properties (3.1.3) ---- */

enum nvme_property {
	NVME_PROP_CAP = 0x00, /* 8 bytes */
	NVME_PROP_VS = 0x08,
	NVME_PROP_CC = 0x14,
	NVME_PROP_CSTS = 0x1c,
	NVME_PROP_NSSR = 0x20,
};

#define NVME_CAP_MQES(cap)  ((uint16_t)(cap)) /* 0-based */
#define NVME_CAP_CQR        (1ull << 16)
#define NVME_CAP_TO_SHIFT   24
#define NVME_CAP_CSS_NVM    (1ull << 37)
#define NVME_CAP_CSS_IOCS   (1ull << 43)
#define NVME_CC_EN          0x1u
#define NVME_CC_CSS(cc)     ((cc) >> 4 & 0x7)
#define NVME_CC_CSS_ALL     6u
#define NVME_CC_SHN(cc)     ((cc) >> 14 & 0x3)
#define NVME_CSTS_RDY       0x1u
#define NVME_CSTS_CFS       0x2u
#define NVME_CSTS_SHST_DONE (2u << 2)
#define NVME_VS_2_0         0x00020000u

/* ---- identify (5.17) ---- */

enum nvme_cns {
	NVME_CNS_NS = 0x00,
	NVME_CNS_CTRL = 0x01,
	NVME_CNS_ACTIVE_NS = 0x02,
	NVME_CNS_NS_DESCRIPTORS = 0x03,
	NVME_CNS_CSI_NS = 0x05,
	NVME_CNS_CSI_CTRL = 0x06,
	NVME_CNS_CSI_ACTIVE_NS = 0x07,
	NVME_CNS_CSI_INDEPENDENT_NS = 0x08,
	NVME_CNS_ALLOCATED_NS = 0x10,
	NVME_CNS_ALLOCATED_NS_ID = 0x11,
	NVME_CNS_CTRL_LIST = 0x13,
	NVME_CNS_COMMAND_SETS = 0x1c,
};

enum nvme_csi {
	NVME_CSI_NVM = 0,
	NVME_CSI_SLM = 3,
	NVME_CSI_CP = 4,
};

struct nvme_id_power_state {
	nvme_le16 max_power; /* centiwatts */
	uint8_t rest[30];
};

struct nvme_id_ctrl { /* figure 275; names are the specification's */
	nvme_le16 vid, ssvid;
	char sn[20], mn[40], fr[8];
	uint8_t rab;
	uint8_t ieee[3];
	uint8_t cmic, mdts;
	nvme_le16 cntlid;
	nvme_le32 ver, rtd3r, rtd3e, oaes, ctratt;
	nvme_le16 rrls;
	uint8_t reserved102[9];
	uint8_t cntrltype;
	uint8_t fguid[16];
	nvme_le16 crdt1, crdt2, crdt3;
	uint8_t reserved134[122];
	nvme_le16 oacs;
	uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
	nvme_le16 wctemp, cctemp, mtfa;
	nvme_le32 hmpre, hmmin;
	uint8_t tnvmcap[16], unvmcap[16];
	nvme_le32 rpmbs;
	nvme_le16 edstt;
	uint8_t dsto, fwug;
	nvme_le16 kas, hctma, mntmt, mxtmt;
	nvme_le32 sanicap, hmminds;
	nvme_le16 hmmaxd, nsetidmax, endgidmax;
	uint8_t anatt, anacap;
	nvme_le32 anagrpmax, nanagrpid, pels;
	nvme_le16 domainid;
	uint8_t reserved358[10];
	uint8_t megcap[16];
	uint8_t reserved384[128];
	uint8_t sqes, cqes;
	nvme_le16 maxcmd;
	nvme_le32 nn;
	nvme_le16 oncs, fuses;
	uint8_t fna, vwc;
	nvme_le16 awun, awupf;
	uint8_t icsvscc, nwpc;
	nvme_le16 acwu, ocfs; /* ocfs: copy descriptor formats supported */
	nvme_le32 sgls, mnan;
	uint8_t maxdna[16];
	nvme_le32 maxcna;
	uint8_t reserved564[204];
	char subnqn[256];
	uint8_t reserved1024[768];
	/* fabrics (figure 275, bytes 1792 ff.) */
	nvme_le32 ioccsz, iorcsz; /* in 16 bytes */
	nvme_le16 icdoff;         /* in 16 bytes */
	uint8_t fcatt, msdbd;
	nvme_le16 ofcs;
	uint8_t dctype;
	uint8_t reserved1807[241];
	struct nvme_id_power_state psd[32];
	uint8_t vendor[1024];
};
_Static_assert(sizeof(struct nvme_id_ctrl) == 4096, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, oacs) == 256, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, kas) == 320, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, sqes) == 512, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, sgls) == 536, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, subnqn) == 768, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, ioccsz) == 1792, "identify controller");
_Static_assert(__builtin_offsetof(struct nvme_id_ctrl, psd) == 2048, "identify controller");

struct nvme_lbaf {
	nvme_le16 ms;
	uint8_t lbads; /* log2 of the block size */
	uint8_t rp;
};

struct nvme_id_ns { /* NVM Command Set Specification, figure 97 */
	nvme_le64 nsze, ncap, nuse;
	uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
	nvme_le16 nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
	uint8_t nvmcap[16];
	nvme_le16 npwg, npwa, npdg, npda, nows, mssrl;
	nvme_le32 mcl;
	uint8_t msrc;
	uint8_t reserved81[11];
	nvme_le32 anagrpid;
	uint8_t reserved96[3];
	uint8_t nsattr;
	nvme_le16 nvmsetid, endgid;
	uint8_t nguid[16];
	uint8_t eui64[8];
	struct nvme_lbaf lbaf[64];
	uint8_t vendor[3712];
};
_Static_assert(sizeof(struct nvme_id_ns) == 4096, "identify namespace");
_Static_assert(__builtin_offsetof(struct nvme_id_ns, nguid) == 104, "identify namespace");

struct nvme_id_ctrl_nvm { /* CNS 06h, CSI 0 */
	uint8_t vsl, wzsl, wusl, dmrl;
	nvme_le32 dmrsl;
	nvme_le64 dmsl;
	uint8_t reserved16[4080];
};
_Static_assert(sizeof(struct nvme_id_ctrl_nvm) == 4096, "identify controller, NVM command set");

struct nvme_ns_descriptor { /* CNS 03h: a header, then nidl bytes */
	uint8_t nidt, nidl;
	uint8_t reserved2[2];
};
enum nvme_nidt {
	NVME_NIDT_EUI64 = 1,
	NVME_NIDT_NGUID = 2,
	NVME_NIDT_UUID = 3,
	NVME_NIDT_CSI = 4,
};

/* ---- log pages (5.16) ---- */

enum nvme_log {
	NVME_LOG_SUPPORTED = 0x00,
	NVME_LOG_ERROR = 0x01,
	NVME_LOG_SMART = 0x02,
	NVME_LOG_FIRMWARE = 0x03,
	NVME_LOG_CHANGED_NS = 0x04,
	NVME_LOG_EFFECTS = 0x05,
	NVME_LOG_ANA = 0x0c,
	NVME_LOG_FEATURE_EFFECTS = 0x12,
	NVME_LOG_MI_EFFECTS = 0x13,
	NVME_LOG_DISCOVERY = 0x70,
};

struct nvme_log_error { /* figure 206 */
	nvme_le64 count;
	nvme_le16 sqid, cid, status, parameter;
	nvme_le64 lba;
	nvme_le32 nsid;
	uint8_t vendor, trtype;
	uint8_t reserved30[2];
	nvme_le64 specific;
	nvme_le16 transport;
	uint8_t reserved42[22];
};
_Static_assert(sizeof(struct nvme_log_error) == 64, "error log entry");

struct nvme_log_smart { /* figure 207; 16-byte counters little-endian */
	uint8_t critical;
	nvme_le16 temperature;
	uint8_t spare, spare_threshold, used, endurance;
	uint8_t reserved7[25];
	nvme_le64 units_read[2], units_written[2]; /* thousands of 512 bytes */
	nvme_le64 reads[2], writes[2], busy_minutes[2], power_cycles[2], hours[2], unsafe[2],
		media_errors[2], error_entries[2];
	nvme_le32 warning_minutes, critical_minutes;
	uint8_t rest[312];
};
#define NVME_SMART_TEMPERATURE 0x2u /* critical: beyond a threshold */
_Static_assert(sizeof(struct nvme_log_smart) == 512, "SMART log");

struct nvme_log_effects { /* figure 211 */
	nvme_le32 admin[256], io[256];
	uint8_t reserved[2048];
};
_Static_assert(sizeof(struct nvme_log_effects) == 4096, "command effects log");
#define NVME_EFFECT_SUPPORTED 0x1u
#define NVME_EFFECT_CONTENT   0x2u

struct nvme_discovery_entry { /* figure 264 of 5.16.1.23 */
	uint8_t trtype, adrfam, subtype, treq;
	nvme_le16 portid, cntlid, asqsz, eflags;
	uint8_t reserved12[20];
	char trsvcid[32];
	uint8_t reserved64[192];
	char subnqn[256];
	char traddr[256];
	uint8_t tsas[256]; /* TCP: the first byte is the security type */
};
_Static_assert(sizeof(struct nvme_discovery_entry) == 1024, "discovery log entry");

struct nvme_discovery_log {
	nvme_le64 genctr, numrec;
	nvme_le16 recfmt;
	uint8_t reserved18[1006];
	/* then the entries */
};
_Static_assert(sizeof(struct nvme_discovery_log) == 1024, "discovery log header");

#define NVME_TRTYPE_TCP        3
#define NVME_ADRFAM_IPV4       1
#define NVME_ADRFAM_IPV6       2
#define NVME_SUBTYPE_DISCOVERY 1
#define NVME_SUBTYPE_NVM       2
#define NVME_SUBTYPE_CURRENT   3

/* ---- features (5.27) ---- */

enum nvme_feature {
	NVME_FEAT_ARBITRATION = 0x01,
	NVME_FEAT_POWER = 0x02,
	NVME_FEAT_TEMPERATURE = 0x04,
	NVME_FEAT_ERROR_RECOVERY = 0x05,
	NVME_FEAT_VWC = 0x06,
	NVME_FEAT_QUEUES = 0x07,
	NVME_FEAT_ATOMICITY = 0x0a,
	NVME_FEAT_ASYNC_EVENTS = 0x0b,
	NVME_FEAT_KATO = 0x0f,
	NVME_FEAT_HOST_BEHAVIOR = 0x16,
	NVME_FEAT_IOCS_PROFILE = 0x19,
	NVME_FEAT_HOST_ID = 0x81,
};

struct nvme_host_behavior { /* 5.27.1.18 */
	uint8_t acre;       /* advanced command retry: the host heeds CRD in a status */
	uint8_t etdas, lbafee, hdisns;
	nvme_le16 cdfe; /* copy descriptor formats */
	uint8_t reserved6[506];
};
_Static_assert(sizeof(struct nvme_host_behavior) == 512, "host behavior support");

/* ---- NVM commands ---- */

#define NVME_RW_FUA  0x40000000u /* cdw12 */
#define NVME_RW_LR   0x80000000u /* cdw12 */
#define NVME_WZ_DEAC 0x02000000u /* cdw12: deallocate */
#define NVME_DSM_AD  0x4u        /* cdw11: deallocate */

struct nvme_dsm_range {
	nvme_le32 attributes, nlb;
	nvme_le64 slba;
};
_Static_assert(sizeof(struct nvme_dsm_range) == 16, "dataset management range");

struct nvme_copy_range { /* source range entry, format 0h */
	uint8_t reserved0[8];
	nvme_le64 slba;
	nvme_le16 nlb; /* 0-based */
	uint8_t reserved18[6];
	nvme_le32 eilbrt;
	nvme_le16 elbat, elbatm;
};
_Static_assert(sizeof(struct nvme_copy_range) == 32, "copy source range, format 0h");

#endif /* NVME_SPEC_H */
