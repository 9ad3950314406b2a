/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_private.h - the server's inside: server.c (life), server_listen.c (sockets), server_metrics.c (numbers).
 */
#ifndef DEVICE_SERVER_PRIVATE_H
#define DEVICE_SERVER_PRIVATE_H

#include "device/lambda.h"
#include "device/loop.h"

#define SERVER_LISTENERS 16u
#define SERVER_REASONS   32u

enum outcome {
	OUTCOME_SUCCESS,
	OUTCOME_REFUSED, /* invalid, unsupported, out of range, not now */
	OUTCOME_MEDIA,   /* media and data integrity errors */
	OUTCOME_INTERNAL,
	OUTCOME_ABORTED,
	OUTCOMES
};

/* Latency in buckets of powers of two from 16 us; the last is for what is longer than 8 s. */
#define LATENCY_BUCKETS  21u
#define LATENCY_FIRST_NS 16000u

struct command_counters { /* of one row of a command table, on one loop; written by that loop only */
	atomic_uint_fast64_t outcome[OUTCOMES];
	atomic_uint_fast64_t bytes;
	atomic_uint_fast64_t ns;
	atomic_uint_fast64_t latency[LATENCY_BUCKETS];
};

struct server_loop {
	struct ctrl_server *server;
	struct ctrl_loop *loop;
	struct ctrl_queue *queues;         /* that loop's own */
	atomic_uint_fast32_t connections;  /* from accept on */
	atomic_uint_fast32_t io_queues;    /* of them, those that carry I/O: the load */
	atomic_uint_fast64_t in_flight;    /* commands */
	struct command_counters *commands; /* by row */
};

struct listener {
	struct ctrl_watch watch;
	struct ctrl_server *server;
	char address[64];
};

struct ctrl_server {
	struct ctrl_server_opts opts;
	struct server_loop *loops;
	uint32_t n_loops;
	uint32_t next_loop; /* where the search for the least loaded begins */
	struct listener listeners[SERVER_LISTENERS];
	uint32_t n_listeners;
	struct ctrl_timer accept_again; /* descriptors ran out: wait a moment */
	struct ctrl_subsystem *subsystems, **subsystems_end;
	struct ctrl_lambda_limits lambda_limits;
	struct ctrl_lambda_server *lambda; /* lambda_host.c: hosts and their shares */
	struct ctrl_workers *workers;      /* worker.c */
	struct ctrl_exports *exports;      /* export.c */
	int diag;                          /* peer.c: a netlink socket; the first loop's thread */
	uint32_t diag_seq;
	atomic_uint_fast32_t connections;
	atomic_uint_fast64_t accepted;

	pthread_mutex_t lock;   /* what follows */
	pthread_cond_t changed; /* connections went, a call on a loop or a flush ended */
	uint32_t flushes;
	int flush_error;
	struct {
		const char *why;
		uint64_t n;
	} reasons[SERVER_REASONS];
};

/* Run @fn on @loop's thread and wait for its end. */
void server_call(struct ctrl_server *s, struct ctrl_loop *loop, void (*fn)(void *arg), void *arg);
/* A connection ended, or never came to be. */
void server_gone(struct server_loop *l);
int listeners_start(struct ctrl_server *s, struct ctrl_error *err);
void listeners_stop(struct ctrl_server *s);
/* The owners of connections to the listening socket @fd can be learned. */
int peer_check(struct ctrl_server *s, int fd, struct ctrl_error *err);
int metrics_init(struct server_loop *l);

#endif /* DEVICE_SERVER_PRIVATE_H */
