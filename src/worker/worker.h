/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - liod-worker: the process in which the server runs what hosts sent as programs.
 *
 * main.c: from exec to the loop that takes jobs.  confine.c: what it gives up before the first one.
 * job.c: one job.  source.c, ring.c: where its bytes come from and go.  programs.c: what is loaded.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>

#include "content/content.h"
#include "lambda/lambda.h"
#include "worker/shared.h"

struct worker_areas { /* the shared memory, mapped */
	struct worker_command *command;
	struct worker_report *report;
	uint8_t *out, *in, *payload;
	uint64_t out_bytes, in_bytes, payload_bytes;
};

/* ---- confine.c ---- */

/*
 * Give up everything but the control socket, the eventfd and a few calls.  On failure the reason goes to stderr.
 * The order matters: docs/lambda-workers.md.
 */
int worker_confine(const struct worker_command *command);
/* For tests: make a call that the filter does not allow; returns only if it was let through. */
int worker_try(const char *what);

/* ---- programs.c ---- */

/* Put the program that @fd holds into @slot, in place of what was there. */
int worker_program_load(uint32_t slot, int fd, uint64_t bytes, struct lambda_error *err);
const struct lambda_function *worker_program(uint32_t slot);

/* ---- ring.c ---- */

/* What a job's threads share while it runs. */
struct worker_run {
	const struct worker_areas *areas;
	struct worker_command job; /* a copy: what is fixed for the job */
	uint64_t out_head, in_tail;
	_Atomic bool untold; /* there is output of which the controller may have to hear */
};

/* Wait for a kick since the counter said @seen: 0, -ECANCELED or -ETIME. */
int worker_wait(struct worker_run *run, uint32_t seen);
/* While the gate is shut. */
int worker_gate(struct worker_run *run);
void worker_notify(const struct worker_areas *areas);

struct worker_sink { /* output: the ring */
	struct lambda_sink sink;
	struct worker_run *run;
};
void worker_sink_init(struct worker_sink *sink, struct worker_run *run);
/* Up to @len bytes of a stream's input, 0 at its end, -errno. */
int64_t worker_input(struct worker_run *run, void *buf, size_t len);

/* ---- source.c ---- */

struct worker_source {
	struct lambda_source src; /* first */
	struct worker_run *run;
	int fd; /* -1: a stream, or nothing but holes */
	bool stream;
	const struct worker_segment *segments; /* NULL: all of @fd */
	uint64_t *starts; /* source offset of each segment, and of the end; NULL: none */
	uint32_t n_segments;
	struct content_feed feed; /* of the decoder */
	struct decoder *decoder;  /* owned */
	uint64_t pos;             /* of what a decoder reads, or a stream gave */
	uint8_t peek[4];
	uint32_t peek_at, peek_len;
	atomic_flag failing;
	struct lambda_error fail; /* the first failure, in words */
};
int worker_source_open(struct worker_source *s, struct worker_run *run, int fd);
/* After the run: what was mapped must still be there. */
int worker_source_check(struct worker_source *s, uint64_t offset, uint64_t length);
void worker_source_close(struct worker_source *s);

/* ---- job.c ---- */

/* Do job @number; takes the descriptors @fds (-1: not there). */
void worker_do(const struct worker_areas *areas, uint32_t number, int program, int source);

#endif /* WORKER_WORKER_H */
