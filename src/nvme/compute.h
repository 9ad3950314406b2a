/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compute.h - the Computational Programs (CSI 4) and Subsystem Local Memory (CSI 3) command sets.
 *
 * Owns: opcodes, fields and structures.  Does not own: the λ commands (lambda.h), which do the same in one round trip.
 *
 * The two specifications were not at hand: what stands here comes from code and extracts that were read.  What
 * sources disagree about, or do not say, is marked [C] and stands in this file alone.
 */
#ifndef NVME_COMPUTE_H
#define NVME_COMPUTE_H

#include "nvme/spec.h"

/* ---- admin commands, on a compute namespace ---- */

enum {
	NVME_ADMIN_LOAD_PROGRAM = 0x85,
	NVME_ADMIN_ACTIVATE_PROGRAM = 0x88,
	NVME_ADMIN_MEMORY_RANGE_SET = 0x89,
};

/* Load Program: CDW10; CDW11 size of the program, CDW12-13 its id, CDW14 bytes of this part, CDW15 their offset. */
#define NVME_LOAD_PIND(cdw10)   ((cdw10) & 0xffff)
#define NVME_LOAD_PTYPE(cdw10)  ((uint8_t)((cdw10) >> 16))
#define NVME_LOAD_UNLOAD(cdw10) ((cdw10) >> 24 & 1)
#define NVME_LOAD_PIT(cdw10)    ((cdw10) >> 25 & 7)
#define NVME_PIT_NONE           0u
#define NVME_PIT_PUID           1u
/* [C] The type of an eBPF program is not established: a λ-function's object file has one of the vendor's. */
#define NVME_PTYPE_LAMBDA 0xc0u

/* Activation: CDW10. */
#define NVME_ACTIVATE_PIND(cdw10) ((cdw10) & 0xffff)
#define NVME_ACTIVATE_SEL(cdw10)  ((cdw10) >> 16 & 0xf)
#define NVME_ACTIVATE_OFF         0u
#define NVME_ACTIVATE_ON          1u

/* Memory Range Set Management: CDW10, CDW11 the number of ranges (a count); create answers the identifier in DW0. */
#define NVME_MRS_SEL(cdw10)  ((cdw10) & 0xf)
#define NVME_MRS_RSID(cdw10) ((cdw10) >> 16)
#define NVME_MRS_CREATE      0u
#define NVME_MRS_DELETE      1u

struct nvme_memory_range {
	nvme_le32 nsid; /* of the memory namespace */
	nvme_le32 len;  /* bytes */
	nvme_le64 start;
	uint8_t reserved16[16];
};
_Static_assert(sizeof(struct nvme_memory_range) == 32, "memory range descriptor");

/* ---- Execute Program, the one I/O command of a compute namespace ---- */

enum {
	NVME_CP_EXECUTE = 0x01,
};
/* CDW2; CDW3 ranges that stand in the data, CDW4 bytes of data (or 0), CDW10-11 and CDW12-13 parameters. */
#define NVME_EXECUTE_PIND(cdw2) ((cdw2) & 0xffff)
#define NVME_EXECUTE_RSID(cdw2) ((cdw2) >> 16)

/* ---- I/O commands of a memory namespace: CDW10-11 first byte, CDW12 bytes, both in dwords ---- */

enum {
	NVME_SLM_COPY = 0x01,
	NVME_SLM_READ = 0x02,
	NVME_SLM_FILL = 0x04, /* [C] elsewhere 00h; CDW13 bits 7:0 are the byte, by our choice */
	NVME_SLM_WRITE = 0x05,
};
/* Copy: CDW2-3 bytes in all, CDW10-11 destination, CDW12. */
#define NVME_SLM_COPY_RANGES(cdw12) (((cdw12) & 0xff) + 1) /* [C] elsewhere a count */
#define NVME_SLM_COPY_FORMAT(cdw12) ((cdw12) >> 8 & 0xf)
enum {
	NVME_SLM_FROM_LBAS = 2, /* 3h: the same with protection information, which is not offered */
	NVME_SLM_FROM_BYTES = 4,
};
struct nvme_slm_source {
	nvme_le32 nsid;
	nvme_le32 reserved4;
	nvme_le64 start; /* block, or byte */
	nvme_le32 len;   /* blocks less one (16 bits), or bytes */
	uint8_t reserved20[12];
};
_Static_assert(sizeof(struct nvme_slm_source) == 32, "copy source entry");

/* ---- identify and logs ---- */

struct nvme_id_ns_cp { /* CNS 05h, CSI 4 [C] */
	nvme_le16 max_active;
	nvme_le16 max_sets;
	nvme_le16 sets_granularity;
	uint8_t max_ranges; /* of a set */
	uint8_t reserved7;
	nvme_le64 max_program_mib;
	uint8_t program_log_granularity;
	uint8_t reserved17[4079];
};
_Static_assert(sizeof(struct nvme_id_ns_cp) == 4096, "identify namespace, computational programs");

struct nvme_id_ns_slm { /* CNS 05h, CSI 3 [C] */
	nvme_le64 bytes;
	nvme_le32 granularity; /* of starts and lengths, bytes */
	nvme_le32 max_copy;    /* bytes of one Copy */
	nvme_le16 max_sources; /* of one Copy */
	uint8_t reserved18[4078];
};
_Static_assert(sizeof(struct nvme_id_ns_slm) == 4096, "identify namespace, local memory");

enum {
	NVME_LOG_PROGRAMS = 0x82,
	NVME_LOG_PROGRAM_TYPES = 0x83,
	NVME_LOG_MEMORY_RANGE_SETS = 0x84,
};
struct nvme_log_list { /* [C] heads the three logs */
	nvme_le32 count;
	uint8_t reserved4[12];
};
struct nvme_program_descriptor {
	uint8_t state; /* NVME_PROGRAM_* */
	uint8_t type;
	uint8_t reserved2[6];
	nvme_le64 id;
	uint8_t reserved16[48];
};
_Static_assert(sizeof(struct nvme_program_descriptor) == 64, "program descriptor");
#define NVME_PROGRAM_LOADED   0x01u /* bits 1:0: the entry is occupied by a loaded program */
#define NVME_PROGRAM_ACTIVE   0x04u
#define NVME_PROGRAM_HAS_PUID 0x08u

struct nvme_program_type { /* [C] */
	uint8_t type;
	uint8_t reserved1[7];
};
struct nvme_memory_range_set { /* [C] then its ranges */
	nvme_le16 id;
	nvme_le16 ranges;
	uint8_t reserved4[12];
};

/* ---- status, type 1 ---- */

enum {
	NVME_SC_CP_INCOMPATIBLE_NS = 0x185,
	NVME_SC_CP_RESOURCES = 0x189,
	NVME_SC_CP_PROGRAM_RESOURCES = 0x18a,
	NVME_SC_CP_MEMORY_NS = 0x18b,
	NVME_SC_CP_RANGE_SET = 0x18c,
	NVME_SC_CP_RANGE_SET_ID = 0x18d,
	NVME_SC_CP_PROGRAM_DATA = 0x18e,
	NVME_SC_CP_PROGRAM_INDEX = 0x18f,
	NVME_SC_CP_PROGRAM_TYPE = 0x190,
	NVME_SC_CP_MAX_RANGES = 0x191,
	NVME_SC_CP_MAX_RANGE_SETS = 0x192,
	NVME_SC_CP_MAX_ACTIVE = 0x193,
	NVME_SC_CP_MAX_PROGRAM_BYTES = 0x194,
	NVME_SC_CP_RANGE_SET_IN_USE = 0x195,
	NVME_SC_CP_NO_PROGRAM = 0x196,
	NVME_SC_CP_OVERLAPPING_RANGES = 0x197,
	NVME_SC_CP_NOT_ACTIVE = 0x198,
	NVME_SC_CP_IN_USE = 0x199,
	NVME_SC_CP_NOT_DOWNLOADABLE = 0x19a,
	NVME_SC_CP_TOO_BIG = 0x19b,
};

#endif /* NVME_COMPUTE_H */
