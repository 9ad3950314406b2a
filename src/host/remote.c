/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.c - connections with servers: one a server and process, shared by whoever asks for it.
 *
 * A connection that nobody uses is kept for the next open, a few of them, until the process ends: making one takes
 * a dozen round trips.  In the child of a fork none is of use: the sockets are the parent's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/remote.h"

#define IO_QUEUES    2u     /* each costs three round trips to make, and one keeps a core busy */
#define RECONNECT_MS 30000u /* given up after this */
#define TIMEOUT_MS   30000u
#define IDLE_MAX     8u /* connections that are kept unused */

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct remote *registry; /* newest first; those that are gone are not in it */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* ---- fork ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&registry_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&registry_lock);
}

static void in_child(void)
{
	for (struct remote *r = registry; r; r = r->next) {
		atomic_store(&r->gone, true);
		if (r->host)
			nvme_host_forked(r->host); /* what is left of it stays allocated */
	}
	registry = NULL;
	pthread_mutex_init(&registry_lock, NULL);
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

/* ---- connecting ---- */

static const char *fix_of(int err)
{
	switch (err) {
	case -ECONNREFUSED:
		return "start liod there, or give its port: lio://HOST:PORT/…";
	case -ETIMEDOUT:
		return "see that the server is up and reached from here";
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		return "check its name and the network";
	case -ECONNRESET:
	case -EPIPE:
		return "is it liod? On loopback it serves its own user and root only, "
		       "unless --allow-uid says more";
	case -EREMOTEIO:
	case -EPROTO:
		return "see that liod listens there, and its log";
	default:
		return "see the server's log";
	}
}

/* The initiator's text begins with the address. */
static int connect_fail(int err)
{
	return host_fail(err, "lio://%s; %s", nvme_host_error(), fix_of(err));
}

/* The first subsystem that it tells of: exports belong to all of a server's. */
static int find_subsystem(const char *where, char nqn[NVME_NQN_MAX + 1])
{
	struct nvme_host_opts opts = {.size = sizeof(opts), .timeout_ms = TIMEOUT_MS};
	struct nvme_discovery_entry *entries;
	struct nvme_host *host;
	size_t n;
	int err = nvme_host_connect(where, &opts, &host);

	if (err)
		return connect_fail(err);
	err = nvme_host_discover(host, &entries, &n);
	nvme_host_free(host);
	if (err)
		return connect_fail(err);
	nqn[0] = 0;
	for (size_t i = 0; i < n && !nqn[0]; i++)
		if (entries[i].subtype == NVME_SUBTYPE_NVM && entries[i].trtype == NVME_TRTYPE_TCP)
			snprintf(nqn, NVME_NQN_MAX + 1, "%.*s", NVME_NQN_MAX, entries[i].subnqn);
	free(entries);
	return nqn[0] ? 0
		      : host_fail(-ENODEV,
				  "lio://%s: it tells of no subsystem; start liod there with "
				  "--export NAME=DIR",
				  where);
}

static int make(struct remote *r)
{
	char nqn[NVME_NQN_MAX + 1];
	struct nvme_host_opts opts = {
		.size = sizeof(opts),
		.subnqn = nqn,
		.io_queues = IO_QUEUES,
		.timeout_ms = TIMEOUT_MS,
		.reconnect_ms = RECONNECT_MS,
	};
	struct nvme_host_info info;
	struct nvme_host *host;
	int err = find_subsystem(r->where, nqn);

	if (err)
		return err;
	err = nvme_host_connect(r->where, &opts, &host);
	if (err)
		return connect_fail(err);
	nvme_host_info(host, &info);
	r->max_transfer = info.max_transfer;
	r->host = host;
	return 0;
}

/* ---- the registry ---- */

static void discard(struct remote *r)
{
	if (r->owner == getpid())
		nvme_host_free(r->host);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void unlist(struct remote *r)
{
	struct remote **at = &registry;

	while (*at && *at != r)
		at = &(*at)->next;
	if (*at)
		*at = r->next;
}

bool remote_gone(struct remote *r)
{
	struct nvme_host_info info;

	if (!atomic_load(&r->gone) && r->host) {
		nvme_host_info(r->host, &info);
		if (info.dead)
			atomic_store(&r->gone, true);
	}
	return atomic_load(&r->gone);
}

/* A reference to the one in the registry, or to a new one that is not connected yet. */
static struct remote *find(const char *where)
{
	struct remote *r, *next;

	pthread_mutex_lock(&registry_lock);
	for (r = registry; r; r = next) {
		next = r->next;
		if (strcmp(r->where, where))
			continue;
		if (!remote_gone(r))
			break;
		unlist(r);
		if (!atomic_load(&r->refs))
			discard(r);
	}
	if (!r)
		r = calloc(1, sizeof(*r));
	if (r && !r->where[0]) {
		snprintf(r->where, sizeof(r->where), "%s", where);
		r->owner = getpid();
		pthread_mutex_init(&r->lock, NULL);
		r->next = registry;
		registry = r;
	}
	if (r)
		atomic_fetch_add(&r->refs, 1);
	pthread_mutex_unlock(&registry_lock);
	return r;
}

int remote_get(const char *where, struct remote **out)
{
	struct remote *r;
	int rc = 0;

	*out = NULL;
	pthread_once(&fork_once, watch_forks);
	r = find(where);
	if (!r)
		return host_fail(-ENOMEM, "lio://%s: no memory; free some", where);
	pthread_mutex_lock(&r->lock);
	if (!r->host)
		rc = make(r);
	pthread_mutex_unlock(&r->lock);
	if (rc)
		remote_put(r);
	else
		*out = r;
	return rc;
}

struct remote *remote_ref(struct remote *r)
{
	atomic_fetch_add(&r->refs, 1);
	return r;
}

/* What is kept beyond a few unused ones, the oldest, in a list. */
static struct remote *surplus(void)
{
	struct remote *out = NULL, *next;
	unsigned int idle = 0;

	for (struct remote *r = registry; r; r = next) {
		next = r->next;
		if (atomic_load(&r->refs) || (r->host && ++idle <= IDLE_MAX))
			continue;
		unlist(r);
		r->next = out;
		out = r;
	}
	return out;
}

void remote_put(struct remote *r)
{
	struct remote *list, *next;
	bool listed = false;

	pthread_mutex_lock(&registry_lock);
	if (atomic_fetch_sub(&r->refs, 1) != 1) {
		pthread_mutex_unlock(&registry_lock);
		return;
	}
	for (struct remote *at = registry; at && !listed; at = at->next)
		listed = at == r;
	list = surplus();
	pthread_mutex_unlock(&registry_lock);
	if (!listed)
		discard(r);
	for (; list; list = next) {
		next = list->next;
		discard(list);
	}
}
