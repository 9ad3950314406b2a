/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared.h - the memory that a worker process and the controller share, and how they wake each other.
 *
 * The layout of the one memory file (sealed against resizing): struct worker_command, struct worker_report, the
 * ring of output, the ring of input, the payload (a job's arguments, then its segments), each on pages of its own.
 * The controller alone sizes the areas; a worker that finds other sizes than the file has does not start.
 *
 * Neither believes what the other wrote: the controller copies each field once and checks it, the worker checks that
 * what it uses lies in the areas.  Positions in the rings count bytes since the worker began and never go
 * back; position p is at byte p % size.
 *
 * A job: the controller fills in the command, sends a message of one uint32_t, the job's number, on the
 * control socket, with the descriptors that the command's flags tell of, in that order.  The worker answers
 * by the number in worker_report.ended.  The controller's side of the socket is the only one that can send.
 */
#ifndef WORKER_SHARED_H
#define WORKER_SHARED_H

#include <stdatomic.h>
#include <stdint.h>

#define WORKER_ABI 1u

/* Descriptors that a worker is started with; it has no others. */
#define WORKER_FD_CONTROL 3 /* the reading end of a socket pair */
#define WORKER_FD_SHARED  4
#define WORKER_FD_EVENT   5 /* an eventfd that wakes the controller */

/* How a worker ends by itself. */
#define WORKER_EXIT_SETUP    90 /* it could not confine itself; why is on stderr */
#define WORKER_EXIT_PROTOCOL 91 /* the controller's command makes no sense */

/* Programs that a worker keeps loaded; the controller says which goes where. */
#define WORKER_PROGRAMS 8u
/* Threads of one job at most. */
#define WORKER_THREADS 64u
#define WORKER_TEXT    640u
#define WORKER_NAME    48u

enum worker_job {
	WORKER_CHECK = 1, /* load the program, say what it is */
	WORKER_RUN = 2,
};

/* worker_command.flags */
#define WORKER_LOAD       0x1u /* a descriptor: the program for @slot */
#define WORKER_SOURCE     0x2u /* a descriptor: the source; without it, and segments, a stream */
#define WORKER_SEGMENTED  0x4u /* the source is the payload's segments of it */
#define WORKER_DECOMPRESS 0x8u

enum worker_io {
	WORKER_IO_NONE,
	WORKER_IO_MMAP,
	WORKER_IO_PREAD,
	WORKER_IO_GZIP,
	WORKER_IO_ZSTD,
	WORKER_IO_STREAM,
};

#define WORKER_HOLE UINT64_MAX

struct worker_segment {
	uint64_t at; /* in the descriptor; WORKER_HOLE: zeros */
	uint64_t length;
};

/* What the controller writes. */
struct worker_command {
	/* once, before the worker starts */
	uint32_t abi;
	uint32_t pid; /* the controller's */
	uint64_t out_bytes, in_bytes, payload_bytes;
	uint64_t data_limit; /* bytes of memory of its own, RLIMIT_DATA */
	uint64_t program_max;
	/* before each job */
	uint32_t kind; /* enum worker_job */
	uint32_t flags;
	uint32_t slot;
	uint32_t threads;
	uint32_t tier; /* as in struct nvme_lambda_request */
	uint32_t arg_len;
	uint32_t n_segments;
	uint32_t reserved;
	uint64_t program_bytes;
	uint64_t base, size; /* of the source */
	uint64_t offset, length, chunk, fuel, memory, max_output;
	uint64_t deadline_ns;   /* CLOCK_MONOTONIC, 0: none */
	uint64_t out_at, in_at; /* where the rings stand */
	/* while it runs */
	_Alignas(64) _Atomic uint64_t out_tail; /* output taken */
	_Atomic uint64_t in_head;               /* input given */
	_Atomic uint32_t in_last;               /* and there is no more */
	int cancel;
	_Atomic uint32_t shut; /* the gate: no new piece */
	_Atomic uint32_t kick; /* futex: changes with each of these */
};

/* What the worker writes. */
struct worker_report {
	_Atomic uint32_t ready; /* it has confined itself */
	_Atomic uint32_t ended; /* number of the last job that ended */
	_Alignas(64) _Atomic uint64_t out_head;
	_Atomic uint64_t in_tail;
	_Atomic uint64_t done, total; /* progress */
	_Atomic uint32_t sleepers;    /* threads that wait for a kick */
	_Atomic uint64_t out_wanted;  /* room for which one of them waits */
	/* The controller sets it when it wants to hear of more output; the worker clears it, and writes its eventfd. */
	_Alignas(64) _Atomic uint32_t armed;
	_Atomic uint32_t in_armed; /* the same for room for input */
	/* of the job that ended */
	_Alignas(64) int32_t error; /* 0 or -errno */
	uint32_t text_len;
	uint64_t error_offset;
	uint64_t bytes_in, trailing, io_ns, run_ns, compile_ns, fuel, calls, reruns;
	uint64_t helpers;
	uint32_t threads;
	uint32_t tier; /* as in struct nvme_lambda_request, never 0 after a run */
	uint32_t io;   /* enum worker_io */
	char text[WORKER_TEXT];
	char name[WORKER_NAME];
};

#define WORKER_PAGE       4096u
#define WORKER_COMMAND_AT 0u
#define WORKER_REPORT_AT  4096u
#define WORKER_OUT_AT     8192u
_Static_assert(sizeof(struct worker_command) <= WORKER_PAGE, "a page of its own");
_Static_assert(sizeof(struct worker_report) <= WORKER_PAGE, "a page of its own");

#endif /* WORKER_SHARED_H */
