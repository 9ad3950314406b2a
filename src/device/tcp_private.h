/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_private.h - the NVMe/TCP transport's inside: tcp_target.c (a connection's life and time-outs),
 * tcp_receive.c (bytes to commands), tcp_send.c (commands to bytes), tcp_slots.c (a queue's commands).
 *
 * All of a connection is touched by its loop's thread alone, but for tcp_shutdown().
 */
#ifndef DEVICE_TCP_PRIVATE_H
#define DEVICE_TCP_PRIVATE_H

#include "device/ctrl.h"
#include "nvme/tcp.h"

/* What a capsule of the admin queue, Connect's included, may carry. */
#define TCP_ADMIN_IN_CAPSULE 8192u
/* The longest header with its digest and padding (PDO is 8 bits). */
#define TCP_HEADER_MAX 256u

enum tcp_cmd_state {
	TCP_CMD_FREE,
	TCP_CMD_RECEIVE, /* its capsule's data are arriving */
	TCP_CMD_WAIT,    /* for a buffer */
	TCP_CMD_R2T,     /* R2T is being sent */
	TCP_CMD_DATA,    /* H2CData are awaited */
	TCP_CMD_RUN,     /* a handler has it: ends in tcp_complete() */
	TCP_CMD_SEND,    /* the answer is being sent */
};

struct tcp_cmd {
	struct ctrl_cmd cmd;  /* first */
	struct tcp_cmd *next; /* of the list that its state says: free, wanting, sending */
	struct tcp_cmd *hash_next;
	bool hashed;
	bool in_capsule;
	bool reserve;    /* its buffer is of the reserve */
	bool damaged;    /* a data digest was wrong */
	uint16_t status; /* to end with, once the capsule's data are skipped; 0: it goes on */
	uint32_t buf_len;
	uint32_t order; /* of its R2T among the connection's */
	/* what is sent: head, then body bytes of cmd.data, then tail */
	uint8_t head_len, tail_len;
	uint32_t body_len, sent;
	uint8_t head[TCP_HEADER_MAX / 2 + 4];
	uint8_t tail[NVME_TCP_DIGEST + sizeof(struct nvme_tcp_rsp) + NVME_TCP_DIGEST];
};

enum tcp_state {
	TCP_NEW, /* ICReq is awaited */
	TCP_READY,
	TCP_ENDING, /* C2HTermReq was sent: what comes is skipped until the host closes */
	TCP_CLOSED, /* no socket; commands are still running */
};

enum tcp_phase {
	TCP_HEADER,
	TCP_DATA,
	TCP_DDGST
};

#define TCP_SLOT_CHUNK 8u

struct tcp_conn {
	struct ctrl_queue q; /* first */
	struct ctrl_watch watch;
	struct ctrl_timer timer;
	struct ctrl_later later;
	struct ctrl_buffer_wait wait;
	uint32_t events; /* watched for */
	enum tcp_state state;
	bool hdgst, ddgst;
	bool connected; /* Connect succeeded */
	bool detached;  /* the controller was told that the queue went */
	bool draining;
	struct ctrl_cmd *last; /* Disconnect: to be answered when all others are */
	uint64_t drain_end_ns; /* 0: whenever */
	bool paused;           /* a capsule's data wait for a buffer: nothing is read */
	bool blocked;          /* the socket takes no more for now */
	uint32_t align;        /* of data that we send (HPDA) */
	uint64_t now;          /* when the bytes at hand came */

	/* receiving */
	enum tcp_phase phase;
	uint32_t have, need;     /* of the header */
	uint32_t data_len, left; /* of the PDU's data */
	uint8_t *to;             /* where they go; NULL: nowhere */
	struct tcp_cmd *rx;      /* whose they are */
	uint8_t header[TCP_HEADER_MAX];
	uint8_t digest[NVME_TCP_DIGEST];
	uint8_t *spill; /* read, and not looked at yet, since we paused */
	uint32_t spill_len, spill_at;

	/* commands */
	struct tcp_cmd **chunks; /* of TCP_SLOT_CHUNK each */
	uint32_t n_chunks;
	struct tcp_cmd *free;
	uint32_t used, running;
	struct tcp_cmd *first_bucket, **buckets; /* by command identifier */
	uint32_t bucket_mask;
	struct tcp_cmd *want, *want_last;

	/* sending */
	struct tcp_cmd *tx, *tx_last;
	struct { /* ICResp or C2HTermReq, after what is in the list */
		uint8_t bytes[sizeof(struct nvme_tcp_term) + NVME_TCP_TERM_DATA_MAX];
		uint32_t len, sent;
	} control;

	/* time-outs: what moved between two looks */
	uint64_t in, out, in_mark, out_mark;
	uint32_t pdus, pdus_mark;
	uint32_t waiting_data, order, oldest_mark, oldest_received;
	uint8_t in_strikes, out_strikes, data_strikes;
	bool sent_all; /* the list was empty once since the last look */
};

static inline struct tcp_conn *tcp_conn_of(struct ctrl_queue *q)
{
	return (struct tcp_conn *)q;
}

static inline struct tcp_cmd *tcp_cmd_of(struct ctrl_cmd *cmd)
{
	return (struct tcp_cmd *)cmd;
}

/* ---- tcp_slots.c ---- */

/* NULL: no memory; conn->used < size is the caller's to see to. */
struct tcp_cmd *tcp_slot_get(struct tcp_conn *conn);
/* Puts its buffer back too. */
void tcp_slot_put(struct tcp_conn *conn, struct tcp_cmd *c);
/* NULL: too long, or all in use. */
void *tcp_reserve_get(uint32_t len);
void tcp_buffer_put(struct tcp_conn *conn, struct tcp_cmd *c);
struct tcp_cmd *tcp_slot_at(struct tcp_conn *conn, uint16_t tag);
/* False: one of that identifier is there. */
bool tcp_slot_name(struct tcp_conn *conn, struct tcp_cmd *c);
struct tcp_cmd *tcp_slot_find(struct tcp_conn *conn, uint16_t cid);
/* The queue's size is known. */
int tcp_slots_grow(struct tcp_conn *conn);
/* Those that no handler has and, if @keep is given, all but that one. */
void tcp_slots_drop(struct tcp_conn *conn, const struct tcp_cmd *keep);
void tcp_slots_free(struct tcp_conn *conn);

/* Of data that a host sends when asked. */
static inline uint32_t tcp_max_h2c(const struct tcp_conn *conn)
{
	const struct ctrl_limits *limits = ctrl_server_limits(conn->q.server);

	return limits->max_h2c && limits->max_h2c < limits->max_transfer ? limits->max_h2c
									 : limits->max_transfer;
}

/* ---- tcp_receive.c ---- */

void tcp_receive(struct tcp_conn *conn);
/* A buffer may be had: serve those who want one. */
void tcp_buffer_ready(struct ctrl_buffer_wait *w);
bool tcp_abort(struct ctrl_cmd *cmd);
void tcp_want_data(struct ctrl_cmd *cmd);

/* ---- tcp_send.c ---- */

void tcp_send_r2t(struct tcp_conn *conn, struct tcp_cmd *c);
void tcp_send_icresp(struct tcp_conn *conn, uint8_t digests);
void tcp_send_term(struct tcp_conn *conn, enum nvme_tcp_fes fes, uint32_t fei);
void tcp_complete(struct ctrl_cmd *cmd);
/* Write what there is to write. */
void tcp_flush(struct tcp_conn *conn);

/* ---- tcp_target.c ---- */

/* The host broke the protocol: say which way, and end. */
void tcp_fatal(struct tcp_conn *conn, enum nvme_tcp_fes fes, uint32_t fei, const char *why);
/* End at once; the connection stays until what called us has returned. */
void tcp_close(struct tcp_conn *conn, const char *why);
/* Whatever happened: watch for what is wanted now, look after what may stall. */
void tcp_settle(struct tcp_conn *conn);
int tcp_connected(struct tcp_conn *conn);

#endif /* DEVICE_TCP_PRIVATE_H */
