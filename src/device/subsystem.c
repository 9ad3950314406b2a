/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subsystem.c - subsystems, their namespaces and controllers: who may join, who leaves, what events they hear.
 *
 * A controller lives from its admin queue's Connect until the last of its queues left.  Its list of queues is
 * of queues that have a socket: so whoever finds one there under the lock may ask for it to be closed.
 */
#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "device/lambda.h"
#include "nvme/status.h"

#define CNTLID_MAX 0xffefu /* above are values with meanings */
/* A discovery controller's host may ask for no keep alive, but does not stay for ever (3.1.2.3). */
#define DISCOVERY_IDLE_MS 120000u

/* ---- subsystems and namespaces ---- */

static bool nqn_valid(const char *nqn)
{
	size_t len = strlen(nqn);

	if (len > NVME_NQN_MAX || strncmp(nqn, "nqn.", 4))
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)nqn[i] <= ' ' || nqn[i] == 0x7f)
			return false;
	}
	return true;
}

/* Bytes that stay the same from one start of the server to the next. */
static void stable_bytes(const char *nqn, uint32_t nsid, unsigned char out[32])
{
	unsigned char text[NVME_NQN_MAX + 1 + sizeof(nsid)] = {0};
	uint32_t le = htole32(nsid);
	size_t len = strlen(nqn);

	memcpy(text, nqn, len);
	memcpy(text + len + 1, &le, sizeof(le));
	SHA256(text, len + 1 + sizeof(le), out);
}

int ctrl_subsystem_new(struct ctrl_server *s, const char *nqn, const char *serial,
		       struct ctrl_subsystem **out, struct ctrl_error *err)
{
	unsigned char id[32];
	struct ctrl_subsystem *sub;

	if (!nqn_valid(nqn))
		return ctrl_fail(err, -EINVAL,
				 "NQN '%s': not a valid name; it begins with 'nqn.', has no spaces "
				 "and at most %d bytes",
				 nqn, NVME_NQN_MAX);
	if (serial && (!*serial || strlen(serial) >= sizeof(sub->serial)))
		return ctrl_fail(err, -EINVAL, "serial number '%s': must have 1 to 20 characters",
				 serial);
	sub = calloc(1, sizeof(*sub));
	if (!sub)
		return ctrl_fail(err, -ENOMEM, "subsystem %s: out of memory", nqn);
	sub->ns = calloc(CTRL_MAX_NAMESPACES, sizeof(*sub->ns));
	if (!sub->ns) {
		free(sub);
		return ctrl_fail(err, -ENOMEM, "subsystem %s: out of memory", nqn);
	}
	memcpy(sub->nqn, nqn, strlen(nqn));
	if (serial) {
		memcpy(sub->serial, serial, strlen(serial));
	} else {
		stable_bytes(nqn, 0, id);
		for (unsigned int i = 0; i < 8; i++) {
			sub->serial[2 * i] = "0123456789abcdef"[id[i] >> 4];
			sub->serial[2 * i + 1] = "0123456789abcdef"[id[i] & 15];
		}
	}
	memcpy(sub->model, "lambda-io", sizeof("lambda-io"));
	sub->discovery = !strcmp(nqn, NVME_NQN_DISCOVERY);
	sub->server = s;
	sub->next_cntlid = 1;
	pthread_mutex_init(&sub->lock, NULL);
	*out = sub;
	return 0;
}

void ctrl_subsystem_free(struct ctrl_subsystem *sub)
{
	if (!sub)
		return;
	for (uint32_t i = 0; i < ctrl_subsystem_count(sub); i++)
		ctrl_store_close(sub->ns[i].store);
	pthread_mutex_destroy(&sub->lock);
	free(sub->ns);
	free(sub);
}

struct ctrl_namespace *ctrl_namespace(struct ctrl_controller *c, uint32_t nsid)
{
	return nsid && nsid <= ctrl_subsystem_count(c->sub) ? &c->sub->ns[nsid - 1] : NULL;
}

uint64_t ctrl_namespace_blocks(const struct ctrl_namespace *ns)
{
	/* A refresh on another thread may be changing it. */
	return __atomic_load_n(&ns->store->geo.bytes, __ATOMIC_RELAXED) >> ns->shift;
}

/* ---- events ---- */

static void controller_put(struct ctrl_controller *c)
{
	struct ctrl_subsystem *sub = c->sub;
	struct ctrl_controller **at;
	bool last;

	pthread_mutex_lock(&sub->lock);
	last = !--c->refs;
	if (last) {
		for (at = &sub->controllers; *at != c; at = &(*at)->next)
			;
		*at = c->next;
	}
	pthread_mutex_unlock(&sub->lock);
	if (!last)
		return;
	ctrl_lambda_put(c->lambda);
	ctrl_objects_free(c);
	free(c);
}

void ctrl_events_flush(struct ctrl_controller *c)
{
	const uint32_t namespace_notice = 1u << 8;
	struct ctrl_cmd *cmd = NULL;

	pthread_mutex_lock(&c->sub->lock);
	if (c->event_pending && !c->event_masked && c->n_aer &&
	    (c->async_config & namespace_notice)) {
		c->event_pending = false;
		c->event_masked = true;
		cmd = c->aer[--c->n_aer];
	}
	pthread_mutex_unlock(&c->sub->lock);
	if (!cmd)
		return;
	cmd->q->parked--;
	/* type 2h (notice), 00h (namespace attribute changed), the log page to read */
	cmd->cqe.dw0 = nvme_put32(2 | NVME_LOG_CHANGED_NS << 16);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

void ctrl_events_abort(struct ctrl_controller *c, uint16_t status)
{
	while (c->n_aer) {
		struct ctrl_cmd *cmd = c->aer[--c->n_aer];

		cmd->q->parked--;
		ctrl_complete(cmd, status);
	}
}

static void event_posted(void *arg)
{
	struct ctrl_controller *c = arg;
	bool alive;

	pthread_mutex_lock(&c->sub->lock);
	c->event_posted = false;
	/* This is the admin queue's thread: the queue does not go while we are here. */
	alive = c->admin;
	pthread_mutex_unlock(&c->sub->lock);
	if (alive)
		ctrl_events_flush(c);
	controller_put(c);
}

/* Namespace @i changed, or came. */
static void announce(struct ctrl_subsystem *sub, uint32_t i)
{
	pthread_mutex_lock(&sub->lock);
	for (struct ctrl_controller *c = sub->controllers; c; c = c->next) {
		c->changed[i / 64] |= 1ull << i % 64;
		c->changed_any = true;
		c->event_pending = true;
		if (!c->admin || c->event_posted)
			continue;
		/* Where that fails, the next event request or keep alive brings it. */
		if (!ctrl_loop_post(c->admin->loop, event_posted, c)) {
			c->event_posted = true;
			c->refs++;
		}
	}
	pthread_mutex_unlock(&sub->lock);
}

int ctrl_subsystem_add(struct ctrl_subsystem *sub, struct ctrl_store *store, struct ctrl_error *err)
{
	uint32_t n = ctrl_subsystem_count(sub);
	struct ctrl_namespace *ns = &sub->ns[n];
	unsigned char id[32];

	if (sub->discovery)
		return ctrl_fail(err, -EINVAL, "the discovery subsystem has no namespaces");
	if (n == CTRL_MAX_NAMESPACES)
		return ctrl_fail(err, -ENOSPC,
				 "namespace %u of %s: a subsystem has at most %u; make another",
				 n + 1, sub->nqn, CTRL_MAX_NAMESPACES);
	if ((store->geo.block != 512 && store->geo.block != 4096) ||
	    store->geo.bytes < store->geo.block)
		return ctrl_fail(
			err, -EINVAL,
			"namespace %u of %s: %llu bytes in blocks of %u; blocks are 512 or 4096 "
			"bytes and there must be one",
			n + 1, sub->nqn, (unsigned long long)store->geo.bytes, store->geo.block);
	*ns = (struct ctrl_namespace){
		.nsid = n + 1, .store = store, .shift = store->geo.block == 512 ? 9 : 12};
	stable_bytes(sub->nqn, ns->nsid, id);
	memcpy(ns->nguid, id, sizeof(ns->nguid));
	memcpy(ns->uuid, id + 16, sizeof(ns->uuid));
	ns->uuid[6] = (ns->uuid[6] & 0x0f) | 0x80; /* version 8, variant 1 of RFC 9562 */
	ns->uuid[8] = (ns->uuid[8] & 0x3f) | 0x80;
	/* Whoever sees the count sees what was written above. */
	atomic_store_explicit(&sub->n_ns, n + 1, memory_order_release);
	announce(sub, n);
	return 0;
}

void ctrl_subsystem_refresh(struct ctrl_subsystem *sub)
{
	for (uint32_t i = 0; i < ctrl_subsystem_count(sub); i++) {
		struct ctrl_namespace *ns = &sub->ns[i];
		uint64_t before = ctrl_namespace_blocks(ns);

		if (ns->store->ops->refresh)
			ns->store->ops->refresh(ns->store);
		if (ctrl_namespace_blocks(ns) == before)
			continue;
		ctrl_log(sub->server, "event=namespace-changed nqn=%s nsid=%u blocks=%llu",
			 sub->nqn, ns->nsid, (unsigned long long)ctrl_namespace_blocks(ns));
		announce(sub, i);
	}
}

/* ---- keep alive ---- */

static void keep_alive_fire(struct ctrl_timer *t)
{
	struct ctrl_controller *c =
		(struct ctrl_controller *)((char *)t -
					   offsetof(struct ctrl_controller, keep_alive));
	uint64_t idle_ms = (ctrl_now_ns() - atomic_load(&c->seen_ns)) / 1000000u;

	if (idle_ms < c->kato_ms) {
		ctrl_timer_arm(c->admin->loop, t, c->kato_ms - idle_ms);
		return;
	}
	ctrl_log(c->sub->server, "event=keep-alive-expired cntlid=%u host=%s", c->cntlid,
		 c->hostnqn);
	ctrl_server_reject(c->sub->server, "keep-alive");
	c->admin->transport->close(c->admin);
}

void ctrl_set_keep_alive(struct ctrl_controller *c, uint32_t kato_ms)
{
	/* In units of 100 ms, as Identify says (KAS). */
	c->kato_ms = kato_ms > UINT32_MAX - 99 ? kato_ms : (kato_ms + 99) / 100 * 100;
	if (!c->kato_ms && c->sub->discovery)
		c->kato_ms = DISCOVERY_IDLE_MS;
	ctrl_timer_cancel(c->admin->loop, &c->keep_alive);
	if (c->kato_ms)
		ctrl_timer_arm(c->admin->loop, &c->keep_alive, c->kato_ms);
}

/* ---- connecting and leaving ---- */

static struct ctrl_controller *controller_find(struct ctrl_subsystem *sub, uint16_t cntlid)
{
	struct ctrl_controller *c = sub->controllers;

	while (c && c->cntlid != cntlid)
		c = c->next;
	return c;
}

/* Under the lock. */
static uint16_t controller_new(struct ctrl_subsystem *sub, const struct nvme_connect_data *data,
			       struct ctrl_controller **out)
{
	const struct ctrl_limits *limits = ctrl_server_limits(sub->server);
	struct ctrl_controller *c;
	uint32_t n = 0;

	for (c = sub->controllers; c; c = c->next)
		n++;
	if (n >= limits->max_controllers || n >= CNTLID_MAX)
		return NVME_SC_CONNECT_BUSY;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NVME_SC_INTERNAL;
	do {
		c->cntlid = sub->next_cntlid;
		sub->next_cntlid = sub->next_cntlid == CNTLID_MAX ? 1 : sub->next_cntlid + 1;
	} while (controller_find(sub, c->cntlid));
	c->sub = sub;
	if (!sub->discovery && ctrl_objects_new(c)) {
		free(c);
		return NVME_SC_INTERNAL;
	}
	c->n_queues = sub->discovery ? 0 : limits->max_io_queues;
	memcpy(c->hostid, data->hostid, sizeof(c->hostid));
	memcpy(c->hostnqn, data->hostnqn, strlen(data->hostnqn));
	c->keep_alive.fire = keep_alive_fire;
	c->next = sub->controllers;
	sub->controllers = c;
	*out = c;
	return NVME_SC_SUCCESS;
}

/* Under the lock. */
static uint16_t controller_join(struct ctrl_subsystem *sub, const struct nvme_connect_data *data,
				uint16_t qid, struct ctrl_controller **out, uint32_t *where)
{
	struct ctrl_controller *c = controller_find(sub, nvme_get16(data->cntlid));

	*where = CTRL_CONNECT_IN_DATA | offsetof(struct nvme_connect_data, cntlid);
	if (!c || c->dead || !c->admin)
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = CTRL_CONNECT_IN_DATA | offsetof(struct nvme_connect_data, hostnqn);
	if (strcmp(c->hostnqn, data->hostnqn))
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = CTRL_CONNECT_IN_DATA | offsetof(struct nvme_connect_data, hostid);
	if (memcmp(c->hostid, data->hostid, sizeof(c->hostid)))
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = offsetof(struct nvme_sqe, cdw10) + 2; /* QID */
	if (qid > c->n_queues)
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = 0;
	if (!(c->csts & NVME_CSTS_RDY))
		return NVME_SC_COMMAND_SEQUENCE;
	for (struct ctrl_queue *q = c->queues; q; q = q->next) {
		if (q->qid == qid)
			return NVME_SC_COMMAND_SEQUENCE;
	}
	*out = c;
	return NVME_SC_SUCCESS;
}

static struct ctrl_subsystem *subsystem_find(struct ctrl_server *s, const char *nqn)
{
	struct ctrl_subsystem *sub = ctrl_server_subsystems(s);

	while (sub && strcmp(sub->nqn, nqn))
		sub = sub->next;
	return sub;
}

static bool ends_within(const char *text, size_t cap)
{
	return memchr(text, 0, cap);
}

uint16_t ctrl_connect(struct ctrl_queue *q, const struct nvme_connect_data *data, uint16_t qid,
		      uint16_t sqsize, uint8_t cattr, uint32_t kato_ms, uint32_t *where)
{
	struct ctrl_controller *c = NULL;
	struct ctrl_subsystem *sub;
	uint16_t status;

	*where = CTRL_CONNECT_IN_DATA | offsetof(struct nvme_connect_data, hostnqn);
	if (!ends_within(data->hostnqn, sizeof(data->hostnqn)) || !nqn_valid(data->hostnqn))
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = CTRL_CONNECT_IN_DATA | offsetof(struct nvme_connect_data, subnqn);
	if (!ends_within(data->subnqn, sizeof(data->subnqn)))
		return NVME_SC_CONNECT_INVALID_PARAM;
	sub = subsystem_find(q->server, data->subnqn);
	if (!sub)
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = offsetof(struct nvme_sqe, cdw11); /* SQSIZE, 0-based */
	if (!sqsize || sqsize >= ctrl_server_limits(q->server)->max_queue_entries)
		return NVME_SC_CONNECT_INVALID_PARAM;
	*where = CTRL_CONNECT_IN_DATA | offsetof(struct nvme_connect_data, cntlid);
	if (!qid && nvme_get16(data->cntlid) != NVME_CNTLID_DYNAMIC)
		return NVME_SC_CONNECT_INVALID_PARAM;

	*where = 0;
	pthread_mutex_lock(&sub->lock);
	status = qid ? controller_join(sub, data, qid, &c, where) : controller_new(sub, data, &c);
	if (!status) {
		q->qid = qid;
		q->size = sqsize + 1;
		q->no_sq_flow = cattr & NVME_CATTR_NO_SQ_FLOW;
		q->ctrl = c;
		q->next = c->queues;
		c->queues = q;
		c->refs++;
		if (!qid)
			c->admin = q;
	}
	pthread_mutex_unlock(&sub->lock);
	if (status)
		return status;
	atomic_store(&c->seen_ns, ctrl_now_ns());
	if (!qid) {
		ctrl_features_reset(c);
		ctrl_set_keep_alive(c, kato_ms);
		ctrl_log(q->server, "event=controller cntlid=%u nqn=%s host=%s kato_ms=%u",
			 c->cntlid, sub->nqn, c->hostnqn, c->kato_ms);
	}
	return NVME_SC_SUCCESS;
}

/* Under the lock.  They leave the list at once, so that the host may connect new ones by the same numbers. */
static void close_io_queues(struct ctrl_controller *c)
{
	struct ctrl_queue **at = &c->queues, *q;

	while ((q = *at)) {
		if (q->qid) {
			*at = q->next;
			q->transport->close(q);
		} else {
			at = &q->next;
		}
	}
}

void ctrl_disconnect(struct ctrl_queue *q)
{
	struct ctrl_controller *c = q->ctrl;
	struct ctrl_queue **at;

	if (!c)
		return;
	pthread_mutex_lock(&c->sub->lock);
	for (at = &c->queues; *at && *at != q; at = &(*at)->next)
		;
	if (*at)
		*at = q->next;
	if (!q->qid) {
		c->admin = NULL;
		c->dead = true;
		close_io_queues(c);
	}
	pthread_mutex_unlock(&c->sub->lock);
	if (!q->qid) {
		ctrl_timer_cancel(q->loop, &c->keep_alive);
		ctrl_events_abort(c, NVME_SC_ABORT_SQ_DELETED);
		ctrl_objects_close(c);
		ctrl_log(q->server, "event=controller-gone cntlid=%u host=%s", c->cntlid,
			 c->hostnqn);
	}
}

void ctrl_leave(struct ctrl_queue *q)
{
	if (q->ctrl)
		controller_put(q->ctrl);
	q->ctrl = NULL;
}

void ctrl_reset(struct ctrl_controller *c)
{
	pthread_mutex_lock(&c->sub->lock);
	c->csts = 0;
	c->n_queues = c->sub->discovery ? 0 : ctrl_server_limits(c->sub->server)->max_io_queues;
	close_io_queues(c);
	pthread_mutex_unlock(&c->sub->lock);
	ctrl_events_abort(c, NVME_SC_ABORT_SQ_DELETED);
	ctrl_objects_close(c);
	ctrl_features_reset(c);
}
