/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda.h - the λ commands: functions that run in the controller, and files that it exports.
 *
 * What stock passthrough cannot carry these commands do not need: descriptors travel in the data buffer, an opcode's
 * two low bits give the direction, answers fit the transfer limit or are paged.  They are I/O commands, on any
 * I/O queue.  NSID is 0, or the namespace of the device node that passes it through.
 *
 * A run: *submit* (host → controller, the host chooses the handle) starts it, *fetch* (controller → host)
 * waits for output and ends with the run's result, *cancel* ends it early.  Submit and fetch may be sent
 * back to back: a fetch that comes first waits a moment for its submit.  Both go to one queue.
 *
 * All integers are little-endian, all structures naturally aligned, what is reserved is zero and is
 * checked.  docs/lambda-commands.md is the text.
 */
#ifndef NVME_LAMBDA_H
#define NVME_LAMBDA_H

#include <stdint.h>

#include "nvme/spec.h"

#define NVME_LAMBDA_VERSION 1u

/* ---- commands: vendor-specific I/O opcodes ---- */

enum nvme_lambda_opcode {
	NVME_LAMBDA_CANCEL = 0x80, /* CDW10 handle.  Also of what never ran; forgets the handle */
	NVME_LAMBDA_SUBMIT =
		0x81, /* CDW10 handle, CDW11 bytes of the whole request, CDW12 offset of this part, CDW13 bytes of this part */
	NVME_LAMBDA_FETCH =
		0x82, /* CDW10 handle, CDW11 bytes of the buffer, CDW12-13 output offset, CDW14 ms to wait at most */
	NVME_LAMBDA_INPUT =
		0x85, /* CDW10 handle, CDW11 bytes, CDW12-13 stream offset, CDW14 NVME_LAMBDA_INPUT_* */
	NVME_LAMBDA_INFO =
		0x86, /* CDW10 page, CDW11 bytes of the buffer, CDW12-13 offset in the page */
	NVME_LAMBDA_PROGRAM =
		0x89, /* CDW10 bytes of the whole program, CDW11 offset of this part, CDW13 bytes of this part behind struct nvme_lambda_program */
	NVME_LAMBDA_OBJECT_DO =
		0x90, /* CDW10 object, CDW11 enum nvme_object_do, CDW12-13 its operand */
	NVME_LAMBDA_OBJECT_WRITE =
		0x91, /* CDW10 object, CDW11 bytes, CDW12-13 offset; DW0 bytes written */
	NVME_LAMBDA_OBJECT_READ =
		0x92, /* CDW10 object, CDW11 bytes, CDW12-13 offset; DW0 bytes read, fewer only at the end */
};

/* Data to the host may be shorter than the buffer: DW0 of the completion says how many bytes came. */

#define NVME_LAMBDA_INPUT_LAST 1u /* CDW14: no more follows */
/* CDW14 of a part that came too early is answered with BUSY and DW0 the ms to wait: the ring is full. */

/* Identify Controller (CNS 01h) has this at byte 3072 where the λ commands are served. */
struct nvme_lambda_identify {
	char magic[8]; /* "LAMBDAIO" */
	uint16_t version_min, version_max;
};
_Static_assert(sizeof(struct nvme_lambda_identify) == 12, "docs/lambda-commands.md");

/* Command-specific status, vendor range (type 1). */
enum nvme_lambda_status {
	NVME_SC_LAMBDA_BUSY = 0x1c0,       /* DW0: ms to wait.  Nothing happened; send it again */
	NVME_SC_LAMBDA_NO_PROGRAM = 0x1c1, /* upload it, send it again */
	NVME_SC_LAMBDA_NO_HANDLE = 0x1c2,
	NVME_SC_LAMBDA_HANDLE_USED = 0x1c3,
	NVME_SC_LAMBDA_VERSION = 0x1c4, /* DW0: the versions served, lowest | highest << 16 */
	NVME_SC_LAMBDA_TOO_BIG = 0x1c5, /* over a limit of info page 0 */
	NVME_SC_LAMBDA_REFUSED = 0x1c6, /* program: not verified; info page 3 has the text */
	NVME_SC_LAMBDA_ORDER = 0x1c7, /* parts out of order, or output at an offset that is gone */
	NVME_SC_LAMBDA_NO_OBJECT = 0x1c8,
	NVME_SC_LAMBDA_ERRNO =
		0x1c9, /* object commands: DW0 is a Linux errno (docs/lambda-commands.md lists them) */
};

/* ---- a request: this header, then source, sink, arguments, in that order and without gaps ---- */

enum nvme_lambda_op {
	NVME_LAMBDA_RUN = 1,
	/* On paths: struct nvme_path_request instead */
	NVME_PATH_OPEN = 16,   /* answers struct nvme_path_opened */
	NVME_PATH_STAT = 17,   /* struct nvme_path_stat; does not follow a final symlink */
	NVME_PATH_LIST = 18,   /* struct nvme_path_entry, each with its name */
	NVME_PATH_RENAME = 19, /* to path2, in the same export; replaces a file */
	NVME_PATH_REMOVE = 20, /* a file, or an empty directory */
	NVME_PATH_MKDIR = 21,
};

enum nvme_lambda_source {
	NVME_LAMBDA_FROM_STREAM = 0,  /* INPUT commands bring it: a λ-write's input */
	NVME_LAMBDA_FROM_OBJECT = 1,  /* u32 object, u32 0 */
	NVME_LAMBDA_FROM_EXTENTS = 2, /* struct nvme_lambda_extents */
};
enum nvme_lambda_sink {
	NVME_LAMBDA_TO_FETCH = 0,  /* a λ-read */
	NVME_LAMBDA_TO_OBJECT = 1, /* struct nvme_lambda_to_object.  A λ-write */
	NVME_LAMBDA_TO_EXTENTS =
		2, /* struct nvme_lambda_extents: output goes to its start; more than fits is ENOSPC and writes nothing */
};

#define NVME_LAMBDA_DECOMPRESS \
	0x1u                  /* flags: gzip and zstd by their first bytes, as the host does */
#define NVME_LAMBDA_FUEL 0x2u /* fuel is a budget that was asked for, exact; else the default */

struct nvme_lambda_request {
	uint16_t version;
	uint16_t op; /* NVME_LAMBDA_RUN */
	uint32_t flags;
	uint8_t program[32]; /* SHA-256 of the object file */
	uint64_t
		offset; /* the range, of the source's bytes (of the content where it is decompressed) */
	uint64_t length; /* UINT64_MAX: to the end */
	uint64_t chunk;  /* bytes of a piece; 0: the default */
	/* budgets; 0: the default.  Above the server's limits is TOO_BIG */
	uint64_t fuel, memory, max_output, timeout_ns;
	uint32_t threads; /* 0: the server chooses */
	uint8_t tier;     /* 0 auto, 1 interp, 2 template */
	uint8_t source, sink;
	uint8_t reserved;
	uint32_t source_len, sink_len; /* bytes of those parts, multiples of 8 */
	uint32_t arg_len;              /* not padded: it is the last */
	uint32_t reserved2;
	uint64_t reserved3;
};
_Static_assert(sizeof(struct nvme_lambda_request) == 128, "docs/lambda-commands.md");

struct nvme_lambda_extent {
	uint64_t offset; /* bytes in the namespace; UINT64_MAX: a hole, zeros (sources only) */
	uint64_t length; /* bytes, not 0 */
};
struct nvme_lambda_extents { /* then @n extents, in the order of the file's bytes */
	uint32_t nsid;
	uint32_t n;
	uint64_t base; /* source: file offset of the first byte; sink: 0 */
};
_Static_assert(sizeof(struct nvme_lambda_extent) == 16 && sizeof(struct nvme_lambda_extents) == 16,
	       "docs/lambda-commands.md");

struct nvme_lambda_to_object {
	uint32_t object;
	uint32_t reserved;
	uint64_t at;
};
_Static_assert(sizeof(struct nvme_lambda_to_object) == 16, "docs/lambda-commands.md");

/* ---- what a fetch brings: this header, output, and at the end the result and its text ---- */

#define NVME_LAMBDA_END \
	0x1u /* flags: the run ended and this is its last output; the handle is forgotten */
#define NVME_LAMBDA_STARTED 0x2u /* it no longer waits for its turn */

struct nvme_lambda_reply {
	uint32_t flags;
	uint32_t
		len; /* bytes of output that follow; with END then, 8-aligned, struct nvme_lambda_result */
	uint64_t offset;      /* of that output */
	uint64_t done, total; /* progress in bytes of input; total 0: unknown */
};
_Static_assert(sizeof(struct nvme_lambda_reply) == 32, "docs/lambda-commands.md");

#define NVME_LAMBDA_CHANGED \
	0x1u /* size, ctime or generation of the object changed meanwhile: error is EBUSY's */

struct nvme_lambda_result { /* then @text_len bytes: "WHAT: WHY; FIX" */
	int32_t error;      /* 0 or -errno by Linux' numbers (docs/lambda-commands.md) */
	uint32_t flags;     /* NVME_LAMBDA_CHANGED */
	uint32_t text_len;  /* at most 639 */
	uint16_t threads;
	uint8_t tier;          /* as in the request, never auto */
	uint8_t io;            /* enum nvme_lambda_io: how bytes reached the function */
	uint64_t error_offset; /* UINT64_MAX: none */
	uint64_t bytes_in, bytes_out, bytes_written, trailing;
	uint64_t io_ns, run_ns, queue_ns, wall_ns, compile_ns; /* io and run summed over threads */
	uint64_t fuel, calls, reruns;
	uint32_t queued;  /* the load now: runs that wait for their turn, */
	uint32_t running; /* that are under way, */
	uint32_t cores;   /* and what they share */
	uint32_t reserved;
};
_Static_assert(sizeof(struct nvme_lambda_result) == 136, "docs/lambda-commands.md");

enum nvme_lambda_io {
	NVME_LAMBDA_IO_MMAP = 1,
	NVME_LAMBDA_IO_PREAD,
	NVME_LAMBDA_IO_GZIP,
	NVME_LAMBDA_IO_ZSTD,
	NVME_LAMBDA_IO_STREAM,
	NVME_LAMBDA_IO_RING,
};

/* ---- programs ---- */

struct nvme_lambda_program { /* then the part's bytes */
	uint8_t hash[32];    /* SHA-256 of the whole object file */
};

/* ---- exported directories ---- */

enum nvme_path_flags { /* OPEN */
	NVME_PATH_READ = 0x1,
	NVME_PATH_WRITE = 0x2,
	NVME_PATH_CREATE = 0x4,
	NVME_PATH_EXCLUSIVE = 0x8,
	NVME_PATH_TRUNCATE = 0x10,
};

struct nvme_path_request { /* then path, then path2: "export/dir/file", no NUL, no leading slash */
	uint16_t version;
	uint16_t op; /* NVME_PATH_* */
	uint32_t flags;
	uint32_t mode; /* of what is made: permission bits */
	uint16_t path_len, path2_len;
	uint64_t cookie; /* LIST: the last entry's that is known; 0: from the start */
	uint64_t reserved;
};
_Static_assert(sizeof(struct nvme_path_request) == 32, "docs/lambda-commands.md");

enum nvme_path_type {
	NVME_PATH_FILE = 1,
	NVME_PATH_DIRECTORY = 2,
	NVME_PATH_SYMLINK = 3,
	NVME_PATH_OTHER = 4, /* device, FIFO, socket: never opened */
};

struct nvme_path_stat {
	uint64_t size, inode;
	int64_t mtime, ctime; /* seconds since 1970 */
	uint32_t mtime_ns, ctime_ns;
	uint32_t mode, links; /* permission bits */
	uint32_t uid, gid;
	uint8_t type;     /* enum nvme_path_type */
	uint8_t writable; /* the export allows it */
	uint8_t reserved[6];
};
_Static_assert(sizeof(struct nvme_path_stat) == 64, "docs/lambda-commands.md");

struct nvme_path_opened {
	uint32_t object; /* lives until CLOSE or the controller's end */
	uint32_t reserved;
	struct nvme_path_stat stat;
};
_Static_assert(sizeof(struct nvme_path_opened) == 72, "docs/lambda-commands.md");

struct nvme_path_entry { /* then @name_len bytes, padded to 8; the empty path lists the exports */
	uint64_t cookie;
	uint64_t size;
	int64_t mtime;
	uint8_t type;
	uint8_t reserved[5];
	uint16_t name_len;
};
_Static_assert(sizeof(struct nvme_path_entry) == 32, "docs/lambda-commands.md");

enum nvme_object_do {
	NVME_OBJECT_CLOSE = 1,
	NVME_OBJECT_SYNC = 2,
	NVME_OBJECT_TRUNCATE = 3, /* operand: size */
	/* its size now, in DW0-1, without a data transfer */
	NVME_OBJECT_SIZE = 4,
};

/* ---- information pages ---- */

enum nvme_lambda_page {
	NVME_LAMBDA_PAGE_ABILITIES = 0, /* struct nvme_lambda_abilities */
	NVME_LAMBDA_PAGE_PROGRAMS = 1,  /* struct nvme_lambda_loaded each: this host's */
	NVME_LAMBDA_PAGE_STATS =
		2, /* text, key=value lines: this host's share and the server's load */
	NVME_LAMBDA_PAGE_REFUSAL =
		3, /* text: why the last program of this controller was refused */
};

struct nvme_lambda_abilities {
	uint16_t version_min, version_max;
	uint32_t flags;   /* NVME_LAMBDA_CAN_* */
	uint64_t helpers; /* feature bits of the runtime's helpers */
	uint32_t tiers;   /* bit per tier of the request */
	uint32_t cores;
	uint32_t max_handles; /* of a controller */
	uint32_t max_objects; /* open at once, of a controller */
	uint32_t max_fetch_wait_ms;
	uint32_t max_waiting; /* fetches that may wait at once, of a controller */
	uint32_t max_running; /* runs of a host at once */
	uint32_t max_queued;  /* that may wait for their turn */
	uint64_t max_request; /* bytes of a whole request */
	uint64_t max_program; /* bytes of an object file */
	uint64_t max_fuel, max_memory, max_output,
		max_timeout_ns; /* budgets that may be asked for */
	char server[64];        /* name and version, NUL padded */
	uint8_t reserved[96];
};
_Static_assert(sizeof(struct nvme_lambda_abilities) == 256, "docs/lambda-commands.md");
#define NVME_LAMBDA_CAN_EXPORTS 0x1u /* there are exported directories */

struct nvme_lambda_loaded {
	uint8_t hash[32];
	uint64_t size;
	uint64_t runs;
	char name[48]; /* NUL padded */
};
_Static_assert(sizeof(struct nvme_lambda_loaded) == 96, "docs/lambda-commands.md");

#endif /* NVME_LAMBDA_H */
