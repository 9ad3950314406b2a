/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_slots.c - a queue's commands: where they are kept, and found by identifier and by tag.
 *
 * Memory grows by chunks with the number of commands that were in flight at once, up to the queue's size: a
 * connection that only keeps alive costs one chunk.
 */
#include <errno.h>
#include <stdlib.h>

#include "device/tcp_private.h"

/* Small buffers of a thread for when large transfers hold all others: hosts can still connect, ask and do small IO. */
#define RESERVE_LEN     16384u
#define RESERVE_BUFFERS 64u

static _Thread_local uint32_t reserve_used;

static struct tcp_cmd **bucket_of(struct tcp_conn *conn, uint16_t cid)
{
	return &conn->buckets[cid & conn->bucket_mask];
}

static bool add_chunk(struct tcp_conn *conn)
{
	struct tcp_cmd **chunks =
		realloc(conn->chunks, (conn->n_chunks + 1) * sizeof(*conn->chunks));
	struct tcp_cmd *chunk;

	if (!chunks)
		return false;
	conn->chunks = chunks;
	chunk = calloc(TCP_SLOT_CHUNK, sizeof(*chunk));
	if (!chunk)
		return false;
	for (uint32_t i = TCP_SLOT_CHUNK; i-- > 0;) {
		chunk[i].cmd.ttag = (uint16_t)(conn->n_chunks * TCP_SLOT_CHUNK + i);
		chunk[i].next = conn->free;
		conn->free = &chunk[i];
	}
	conn->chunks[conn->n_chunks++] = chunk;
	return true;
}

struct tcp_cmd *tcp_slot_get(struct tcp_conn *conn)
{
	struct tcp_cmd *c;

	if (!conn->free && !add_chunk(conn))
		return NULL;
	c = conn->free;
	conn->free = c->next;
	conn->used++;
	c->next = NULL;
	c->hashed = c->in_capsule = c->damaged = false;
	c->status = 0;
	c->buf_len = 0;
	c->head_len = c->tail_len = 0;
	c->body_len = c->sent = 0;
	c->cmd = (struct ctrl_cmd){.q = &conn->q, .ttag = c->cmd.ttag, .start_ns = conn->now};
	return c;
}

void *tcp_reserve_get(uint32_t len)
{
	void *p = len <= RESERVE_LEN && reserve_used < RESERVE_BUFFERS
			  ? aligned_alloc(4096, RESERVE_LEN)
			  : NULL;

	reserve_used += p != NULL;
	return p;
}

void tcp_buffer_put(struct tcp_conn *conn, struct tcp_cmd *c)
{
	void *p = c->cmd.data ? c->cmd.data : c->cmd.aux;

	if (!c->buf_len)
		return;
	if (c->reserve) {
		free(p);
		reserve_used--;
	} else {
		ctrl_loop_buffer_put(conn->q.loop, p, c->buf_len);
	}
	c->buf_len = 0;
	c->reserve = false;
	c->cmd.data = c->cmd.aux = NULL;
}

void tcp_slot_put(struct tcp_conn *conn, struct tcp_cmd *c)
{
	struct tcp_cmd **at;

	tcp_buffer_put(conn, c);
	if (c->hashed) {
		for (at = bucket_of(conn, nvme_get16(c->cmd.sqe.cid)); *at != c;
		     at = &(*at)->hash_next)
			;
		*at = c->hash_next;
	}
	if (c->cmd.state == TCP_CMD_DATA)
		conn->waiting_data--;
	c->cmd.state = TCP_CMD_FREE;
	c->next = conn->free;
	conn->free = c;
	conn->used--;
}

struct tcp_cmd *tcp_slot_at(struct tcp_conn *conn, uint16_t tag)
{
	if (tag / TCP_SLOT_CHUNK >= conn->n_chunks)
		return NULL;
	return &conn->chunks[tag / TCP_SLOT_CHUNK][tag % TCP_SLOT_CHUNK];
}

struct tcp_cmd *tcp_slot_find(struct tcp_conn *conn, uint16_t cid)
{
	struct tcp_cmd *c = *bucket_of(conn, cid);

	while (c && nvme_get16(c->cmd.sqe.cid) != cid)
		c = c->hash_next;
	return c;
}

static void hash_add(struct tcp_conn *conn, struct tcp_cmd *c)
{
	struct tcp_cmd **bucket = bucket_of(conn, nvme_get16(c->cmd.sqe.cid));

	c->hash_next = *bucket;
	*bucket = c;
	c->hashed = true;
}

bool tcp_slot_name(struct tcp_conn *conn, struct tcp_cmd *c)
{
	if (tcp_slot_find(conn, nvme_get16(c->cmd.sqe.cid)))
		return false;
	hash_add(conn, c);
	return true;
}

int tcp_slots_grow(struct tcp_conn *conn)
{
	struct tcp_cmd **buckets;
	uint32_t n = 1;

	while (n < conn->q.size)
		n *= 2;
	buckets = calloc(n, sizeof(struct tcp_cmd *));
	if (!buckets)
		return -ENOMEM;
	conn->buckets = buckets;
	conn->bucket_mask = n - 1;
	for (uint32_t i = 0; i < conn->n_chunks * TCP_SLOT_CHUNK; i++) {
		struct tcp_cmd *c = tcp_slot_at(conn, (uint16_t)i);

		if (c->cmd.state != TCP_CMD_FREE && c->hashed)
			hash_add(conn, c);
	}
	return 0;
}

void tcp_slots_drop(struct tcp_conn *conn, const struct tcp_cmd *keep)
{
	for (uint32_t i = 0; i < conn->n_chunks * TCP_SLOT_CHUNK; i++) {
		struct tcp_cmd *c = tcp_slot_at(conn, (uint16_t)i);

		if (c != keep && c->cmd.state != TCP_CMD_FREE && c->cmd.state != TCP_CMD_RUN)
			tcp_slot_put(conn, c);
	}
}

void tcp_slots_free(struct tcp_conn *conn)
{
	for (uint32_t i = 0; i < conn->n_chunks; i++)
		free(conn->chunks[i]);
	free(conn->chunks);
	if (conn->buckets != &conn->first_bucket)
		free(conn->buckets);
}
