/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - a host's life: options, connecting, submitting, delivering completions, closing.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xxhash.h>

#include "initiator/internal.h"

#define DEFAULT_DEPTH      128u
#define DEFAULT_QUEUES     4u
#define DEFAULT_TIMEOUT_MS 30000u
#define DEFAULT_KEEP_ALIVE 15000u
#define PORT_IO            "4420"
#define PORT_DISCOVERY     "8009"

/* The host whose completions this thread delivers: what done() submits is sent when all were delivered. */
static _Thread_local struct nvme_host *delivering;
static _Thread_local uint64_t unsent[MAX_IO_QUEUES / 64 + 1]; /* queues with such requests */
/* The host that this thread drives and will deliver from: needs no signal. */
static _Thread_local struct nvme_host *driving;

/* ---- options ---- */

static int parse_where(struct nvme_host *host, const char *where)
{
	const char *colon = strrchr(where, ':'), *end, *port = NULL;
	const char *fallback = host->discovery ? PORT_DISCOVERY : PORT_IO;

	if (where[0] == '[') {
		where++;
		end = strchr(where, ']');
		if (!end || (end[1] && end[1] != ':'))
			end = where;
		else if (end[1])
			port = end + 2;
	} else if (colon && strchr(where, ':') == colon) {
		end = colon;
		port = colon + 1;
	} else {
		end = where + strlen(where);
	}
	if (end == where || (size_t)(end - where) >= sizeof(host->node) || (port && !*port) ||
	    (port && strlen(port) >= sizeof(host->port)))
		return initiator_fail(-EINVAL,
				      "%s: not an address; use HOST, HOST:PORT or [IPV6]:PORT",
				      host->address);
	snprintf(host->node, sizeof(host->node), "%.*s", (int)(end - where), where);
	snprintf(host->port, sizeof(host->port), "%s", port ? port : fallback);
	return 0;
}

/*
 * A stable identity that gives nothing of the machine's away: machine-id(5) asks that it be hashed.
 */
static void machine_identity(uint8_t id[16])
{
	char text[256] = "";
	FILE *f = fopen("/etc/machine-id", "re");
	XXH128_canonical_t hash;

	if (!f || !fgets(text, sizeof(text), f))
		gethostname(text, sizeof(text) - 1);
	if (f)
		fclose(f);
	XXH128_canonicalFromHash(&hash,
				 XXH3_128bits_withSeed(text, strlen(text), 0x6c616d6264612d69));
	memcpy(id, hash.digest, 16);
	id[6] = (id[6] & 0x0f) | 0x80; /* UUID version 8: made by a rule of one's own */
	id[8] = (id[8] & 0x3f) | 0x80;
}

static int take_identity(struct nvme_host *host, const struct nvme_host_opts *o)
{
	static const uint8_t none[16];
	const char *subnqn = o->subnqn ? o->subnqn : NVME_NQN_DISCOVERY;
	uint8_t id[16];

	machine_identity(id);
	if (memcmp(o->hostid, none, sizeof(none)) == 0)
		memcpy(host->opts.hostid, id, sizeof(id));
	if (strlen(subnqn) > NVME_NQN_MAX || (o->hostnqn && strlen(o->hostnqn) > NVME_NQN_MAX))
		return initiator_fail(-EINVAL, "an NQN is longer than %d bytes", NVME_NQN_MAX);
	snprintf(host->subnqn, sizeof(host->subnqn), "%s", subnqn);
	if (o->hostnqn)
		snprintf(host->hostnqn, sizeof(host->hostnqn), "%s", o->hostnqn);
	else
		snprintf(host->hostnqn, sizeof(host->hostnqn),
			 "nqn.2014-08.org.nvmexpress:uuid:%02x%02x%02x%02x-%02x%02x-%02x%02x-"
			 "%02x%02x-%02x%02x%02x%02x%02x%02x",
			 id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9],
			 id[10], id[11], id[12], id[13], id[14], id[15]);
	host->discovery = strcmp(subnqn, NVME_NQN_DISCOVERY) == 0;
	host->opts.subnqn = host->opts.hostnqn = NULL; /* the caller's */
	return 0;
}

static unsigned int default_queues(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	return cores<1 ? 1 : cores>(long) DEFAULT_QUEUES ? DEFAULT_QUEUES : (unsigned int)cores;
}

static int take_opts(struct nvme_host *host, const struct nvme_host_opts *given)
{
	struct nvme_host_opts *o = &host->opts;
	size_t size = given ? given->size : 0;

	if (given && (size < offsetof(struct nvme_host_opts, subnqn) + sizeof(o->subnqn) ||
		      size > sizeof(*o)))
		return initiator_fail(-EINVAL, "the options' size is not one that is known here");
	if (given)
		memcpy(o, given, size);
	if (!o->io_queues)
		o->io_queues = default_queues();
	if (!o->depth)
		o->depth = DEFAULT_DEPTH;
	if (!o->timeout_ms)
		o->timeout_ms = DEFAULT_TIMEOUT_MS;
	if (!o->keep_alive_ms)
		o->keep_alive_ms = DEFAULT_KEEP_ALIVE;
	if (o->io_queues > MAX_IO_QUEUES || o->depth > MAX_DEPTH)
		return initiator_fail(-EINVAL, "more than %u queues, or deeper than %u",
				      MAX_IO_QUEUES, MAX_DEPTH);
	return take_identity(host, o);
}

/* ---- life ---- */

static void discard(struct nvme_host *host)
{
	for (unsigned int i = 0; host->queues && i <= host->opts.io_queues; i++)
		queue_free(&host->queues[i]);
	free(host->queues);
	if (host->eventfd >= 0)
		close(host->eventfd);
	if (host->keeper_kick >= 0)
		close(host->keeper_kick);
	pthread_mutex_destroy(&host->leaf);
	free(host);
}

static int start_keeper(struct nvme_host *host)
{
	int err;

	host->keeper_runs = true;
	err = pthread_create(&host->keeper, NULL, keeper_main, host);
	if (err)
		return initiator_fail(-err, "%s: no thread: %s", host->address, strerror(err));
	return 0;
}

static int set_up(struct nvme_host *host, const char *where, const struct nvme_host_opts *opts)
{
	int err = take_opts(host, opts);

	snprintf(host->address, sizeof(host->address), "%s", where);
	if (!err)
		err = parse_where(host, where);
	if (err)
		return err;
	if (host->discovery)
		host->opts.io_queues = 0;
	host->n_queues = 1 + host->opts.io_queues;
	/* A discovery controller is asked and left. */
	host->kato_ms = host->discovery ? 0 : host->opts.keep_alive_ms;
	host->queues = calloc(host->n_queues, sizeof(*host->queues));
	host->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	host->keeper_kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!host->queues)
		return initiator_fail(-ENOMEM, "no memory for queues");
	if (host->eventfd < 0 || host->keeper_kick < 0)
		return initiator_fail(-errno, "no eventfd: %s", strerror(errno));
	err = queue_init(&host->queues[0], host, 0, ADMIN_COMMANDS);
	if (err)
		return initiator_fail(err, "no queue: %s", strerror(-err));
	err = host_establish(host);
	return err ? err : start_keeper(host);
}

int nvme_host_connect(const char *where, const struct nvme_host_opts *opts, struct nvme_host **out)
{
	struct nvme_host *host = calloc(1, sizeof(*host));
	int err;

	*out = NULL;
	if (!host)
		return initiator_fail(-ENOMEM, "no memory for a host");
	host->done_end = &host->done;
	host->eventfd = host->keeper_kick = -1;
	pthread_mutex_init(&host->leaf, NULL);
	err = set_up(host, where, opts);
	if (err) {
		discard(host);
		return err;
	}
	*out = host;
	return 0;
}

void nvme_host_free(struct nvme_host *host)
{
	if (!host)
		return;
	atomic_store(&host->stopping, true);
	kick(host->keeper_kick);
	pthread_join(host->keeper, NULL);
	atomic_store(&host->stopping, false);
	host_shutdown(host);
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		for (uint16_t s = 0; s < q->depth; s++)
			q->slots[s].cancelled = true;
		queue_close(q, false);
		queue_drop(q, -ECANCELED);
		queue_unlock(q);
	}
	atomic_store(&host->dead, true);
	nvme_host_poll(host);
	discard(host);
}

int nvme_host_info(const struct nvme_host *host, struct nvme_host_info *info)
{
	*info = (struct nvme_host_info){
		.cntlid = (uint16_t)host->cntlid,
		.max_transfer = host->max_transfer,
		.in_capsule = host->in_capsule,
		.io_queues = host->n_queues - 1,
		.depth = (uint16_t)host->depth,
		.reconnects = atomic_load(&host->reconnects),
		.dead = atomic_load(&host->dead),
	};
	info->connection = info->reconnects + 1;
	snprintf(info->subnqn, sizeof(info->subnqn), "%s", host->subnqn);
	return 0;
}

void host_broken(struct nvme_host *host, int err, const char *why)
{
	pthread_mutex_lock(&host->leaf);
	if (!atomic_load(&host->broken)) {
		host->why_code = err;
		snprintf(host->why, sizeof(host->why), "%s", why);
	}
	pthread_mutex_unlock(&host->leaf);
	atomic_store(&host->broken, true);
	kick(host->keeper_kick);
}

int nvme_host_failed(struct nvme_host *host, int err)
{
	char why[sizeof(host->why)];

	pthread_mutex_lock(&host->leaf);
	memcpy(why, host->why, sizeof(why));
	pthread_mutex_unlock(&host->leaf);
	switch (err) {
	case -ETIMEDOUT:
		return initiator_fail(err, "%s: the command was not answered in time",
				      host->address);
	case -ECANCELED:
		return initiator_fail(err, "%s: the command was cancelled", host->address);
	default:
		return initiator_fail(err, "%s: connection lost: %s", host->address,
				      why[0] ? why : strerror(-err));
	}
}

/* ---- submitting ---- */

/* A thread keeps to one queue, so that its requests share a send and a receive. */
static unsigned int thread_number(void)
{
	static atomic_uint next;
	static _Thread_local unsigned int mine;

	if (!mine)
		mine = 1 + atomic_fetch_add(&next, 1);
	return mine - 1;
}

struct queue *host_queue(struct nvme_host *host, const struct nvme_req *req)
{
	unsigned int n = host->n_queues - 1;

	if (req->queue >= 0)
		return (unsigned int)req->queue <= n ? &host->queues[req->queue] : NULL;
	return n ? &host->queues[1 + thread_number() % n] : NULL;
}

static int check(struct nvme_host *host, const struct nvme_req *req, struct queue **q)
{
	*q = host_queue(host, req);
	if (!*q)
		return initiator_fail(-EINVAL, "%s: there is no queue %d", host->address,
				      req->queue);
	if (req->len > host->max_transfer)
		return initiator_fail(-EMSGSIZE, "%s: %u bytes in one command where %u is the most",
				      host->address, req->len, (unsigned int)host->max_transfer);
	if (req->len && !req->data)
		return initiator_fail(-EINVAL, "%s: a length without data", host->address);
	return 0;
}

int nvme_host_submit(struct nvme_host *host, struct nvme_req *req)
{
	struct queue *q;
	int err = check(host, req, &q);

	if (!err && !req->done)
		err = initiator_fail(-EINVAL, "%s: a request without done()", host->address);
	if (err)
		return err;
	req->sync = NULL;
	req->tries = 0;
	queue_lock(q);
	if (atomic_load(&host->dead)) {
		queue_unlock(q);
		return nvme_host_failed(host, -ENOLINK);
	}
	queue_append(q, req);
	if (delivering == host)
		unsent[q->qid / 64] |= 1ull << q->qid % 64;
	else
		queue_pump(q);
	queue_unlock(q);
	return 0;
}

static const char *command_name(const struct queue *q, uint8_t opcode)
{
	static const struct {
		uint8_t opcode;
		bool admin;
		const char *name;
	} names[] = {
		{NVME_ADMIN_IDENTIFY, true, "Identify"},
		{NVME_ADMIN_GET_LOG_PAGE, true, "Get Log Page"},
		{NVME_ADMIN_GET_FEATURES, true, "Get Features"},
		{NVME_ADMIN_SET_FEATURES, true, "Set Features"},
		{NVME_NVM_FLUSH, false, "Flush"},
		{NVME_NVM_READ, false, "Read"},
		{NVME_NVM_WRITE, false, "Write"},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (names[i].opcode == opcode && names[i].admin == !q->qid)
			return names[i].name;
	return "a command";
}

int nvme_host_execute(struct nvme_host *host, struct nvme_req *req)
{
	struct nvme_sync sync = {0};
	struct queue *q;
	int err = check(host, req, &q);

	if (err)
		return err;
	req->sync = &sync;
	req->tries = 0;
	queue_lock(q);
	if (atomic_load(&host->dead)) {
		queue_unlock(q);
		return nvme_host_failed(host, -ENOLINK);
	}
	queue_append(q, req);
	queue_pump(q);
	queue_wait(q, &sync);
	queue_unlock(q);
	if (req->error)
		return nvme_host_failed(host, req->error);
	return initiator_status(host, command_name(q, req->sqe.opcode), req);
}

int nvme_host_cancel(struct nvme_host *host, struct nvme_req *req)
{
	struct queue *q = &host->queues[req->qid];
	int err = 0;

	queue_lock(q);
	if (req->sync) {
		err = -EINVAL; /* the thread that waits for it would not notice */
	} else if (req->state == REQ_SENT) {
		q->slots[req->cid].cancelled = true;
		kick(host->keeper_kick);
	} else if (req->state == REQ_WAITING && queue_unlink(q, req)) {
		queue_complete(q, req, -ECANCELED);
	} else {
		err = -EALREADY;
	}
	queue_unlock(q);
	if (err == -EINVAL)
		return initiator_fail(err, "%s: only what was submitted is cancelled",
				      host->address);
	return err ? initiator_fail(err, "%s: the command has ended", host->address) : 0;
}

/* ---- delivering ---- */

void host_deliver(struct nvme_host *host, struct nvme_req *req)
{
	bool signal;

	req->next = NULL;
	pthread_mutex_lock(&host->leaf);
	*host->done_end = req;
	host->done_end = &req->next;
	signal = !host->signalled && driving != host && (host->exported || host->sleepers);
	host->signalled |= signal;
	pthread_mutex_unlock(&host->leaf);
	if (signal)
		kick(host->eventfd);
}

void host_wake(struct nvme_host *host)
{
	pthread_mutex_lock(&host->leaf);
	host->signalled = true;
	pthread_mutex_unlock(&host->leaf);
	kick(host->eventfd);
}

static void send_unsent(struct nvme_host *host)
{
	for (unsigned int i = 0; i < host->n_queues; i++) {
		struct queue *q = &host->queues[i];

		if (!(unsent[i / 64] >> i % 64 & 1))
			continue;
		queue_lock(q);
		queue_pump(q);
		queue_unlock(q);
	}
	memset(unsent, 0, sizeof(unsent));
}

static int deliver(struct nvme_host *host)
{
	struct nvme_host *outer = delivering;
	struct nvme_req *req, *next;
	int n = 0;

	pthread_mutex_lock(&host->leaf);
	req = host->done;
	host->done = NULL;
	host->done_end = &host->done;
	if (host->signalled)
		unkick(host->eventfd);
	host->signalled = false;
	pthread_mutex_unlock(&host->leaf);
	if (!req)
		return 0;
	delivering =
		outer ? outer : host; /* within done(), polling another host: no put-off there */
	for (; req; req = next, n++) {
		next = req->next;
		req->done(req, req->error);
	}
	delivering = outer;
	if (!outer)
		send_unsent(host);
	return n;
}

static void drive_all(struct nvme_host *host)
{
	driving = host;
	for (unsigned int i = 0; i < host->n_queues; i++) {
		queue_lock(&host->queues[i]);
		queue_drive(&host->queues[i]);
		queue_unlock(&host->queues[i]);
	}
	driving = NULL;
}

int nvme_host_poll(struct nvme_host *host)
{
	drive_all(host);
	return deliver(host);
}

static bool asleep(struct nvme_host *host)
{
	bool empty;

	pthread_mutex_lock(&host->leaf);
	empty = !host->done;
	host->sleepers += empty;
	pthread_mutex_unlock(&host->leaf);
	return empty;
}

/* Sleep until a socket or another thread has something; then drive what has. */
static void wait_once(struct nvme_host *host, int timeout_ms)
{
	struct pollfd fds[MAX_IO_QUEUES + 2];
	unsigned int n = 0, n_queues = host->n_queues;

	for (unsigned int i = 0; i < n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		fds[n] = (struct pollfd){.fd = -1};
		if (q->live)
			fds[n] = (struct pollfd){.fd = q->fd, .events = queue_poll_begin(q)};
		n++;
		queue_unlock(q);
	}
	fds[n] = (struct pollfd){.fd = host->eventfd, .events = POLLIN};
	if (asleep(host)) {
		poll(fds, n + 1, timeout_ms);
		pthread_mutex_lock(&host->leaf);
		host->sleepers--;
		pthread_mutex_unlock(&host->leaf);
	} else {
		poll(fds, n + 1, 0);
	}
	driving = host;
	for (unsigned int i = 0; i < n_queues; i++) {
		struct queue *q = &host->queues[i];

		queue_lock(q);
		if (fds[i].fd >= 0)
			queue_poll_end(q, fds[i].events);
		if (fds[i].revents)
			queue_drive(q);
		queue_unlock(q);
	}
	driving = NULL;
}

int nvme_host_wait(struct nvme_host *host, int timeout_ms)
{
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : now_ns() + (uint64_t)timeout_ms * MS;

	for (;;) {
		int n = deliver(host), left = ms_until(deadline);

		if (n || !left)
			return n;
		wait_once(host, left);
	}
}

int nvme_host_eventfd(struct nvme_host *host)
{
	pthread_mutex_lock(&host->leaf);
	host->exported = true;
	if (host->done && !host->signalled) {
		host->signalled = true;
		kick(host->eventfd);
	}
	pthread_mutex_unlock(&host->leaf);
	kick(host->keeper_kick);
	return host->eventfd;
}
