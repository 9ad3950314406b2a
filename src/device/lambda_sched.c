/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_sched.c - turns and fair shares.
 *
 * Fair shares: each host's processor time is counted.  A host is starved if, with nobody gated, its threads got less
 * than they could have used; then hosts that have used more than it wait between two pieces until it has caught up.
 * Who waits for data or for its reader is not starved, and what it did not use is not saved up for later: it
 * starts level with the others.
 */
#include <stddef.h>

#include "device/lambda_sched.h"

#define SLACK_NS      8000000u /* so far ahead may a host be */
#define STARVED_SHARE 85u      /* percent of what its threads could use */
#define IDLE_SHARE    10u      /* and less than this is waiting, not starving */
#define MAX_BUSY_MS   1000u
#define FIRST_MEAN_NS 10000000u

void sched_init(struct sched *s, const struct sched_ops *ops, uint32_t cores, uint32_t max_running,
		uint32_t max_queued)
{
	*s = (struct sched){
		.ops = ops,
		.cores = cores,
		.max_total = cores + 1,
		.max_running = max_running ? max_running : cores,
		.max_queued = max_queued,
		.mean_ns = FIRST_MEAN_NS,
	};
	pthread_mutex_init(&s->lock, NULL);
}

void sched_free(struct sched *s)
{
	pthread_mutex_destroy(&s->lock);
}

/* ---- hosts that have something ---- */

static void host_link(struct sched *s, struct sched_host *host)
{
	struct sched_host **at = &s->hosts;

	if (host->linked)
		return;
	/* Behind all others, and level with the one that used most. */
	for (; *at; at = &(*at)->next) {
		if ((*at)->used > host->used)
			host->used = (*at)->used;
	}
	*at = host;
	host->next = NULL;
	host->linked = true;
	host->gated = host->starved = false;
}

static void host_unlink(struct sched *s, struct sched_host *host)
{
	struct sched_host **at = &s->hosts;

	if (host->queue || host->active)
		return;
	while (*at != host)
		at = &(*at)->next;
	*at = host->next;
	host->linked = false;
}

static void host_to_end(struct sched *s, struct sched_host *host)
{
	struct sched_host **at = &s->hosts;

	while (*at != host)
		at = &(*at)->next;
	*at = host->next;
	while (*at)
		at = &(*at)->next;
	*at = host;
	host->next = NULL;
}

static void run(struct sched *s, struct sched_turn *t)
{
	struct sched_host *host = t->host;

	t->running = true;
	t->next = host->active;
	host->active = t;
	host->running++;
	s->running++;
	host_to_end(s, host);
}

static bool room(const struct sched *s, const struct sched_host *host)
{
	return s->running - s->stalled < s->max_total && host->running < s->max_running;
}

static void start_some(struct sched *s)
{
	struct sched_host *host = s->hosts;

	while (host) {
		struct sched_turn *t = host->queue;

		if (!t || !room(s, host)) {
			host = host->next;
			continue;
		}
		host->queue = t->next;
		t->queued = false;
		host->queued--;
		s->queued--;
		run(s, t);
		s->ops->start(t);
		host = s->hosts;
	}
}

bool sched_full(struct sched *s, struct sched_host *host)
{
	bool full;

	pthread_mutex_lock(&s->lock);
	full = host->queued >= s->max_queued;
	pthread_mutex_unlock(&s->lock);
	return full;
}

bool sched_add(struct sched *s, struct sched_host *host, struct sched_turn *t)
{
	bool now;

	pthread_mutex_lock(&s->lock);
	*t = (struct sched_turn){.host = host};
	host_link(s, host);
	now = !host->queue && room(s, host);
	if (now) {
		run(s, t);
	} else {
		if (host->queue)
			host->queue_last->next = t;
		else
			host->queue = t;
		host->queue_last = t;
		t->queued = true;
		host->queued++;
		s->queued++;
	}
	pthread_mutex_unlock(&s->lock);
	return now;
}

bool sched_withdraw(struct sched *s, struct sched_turn *t)
{
	struct sched_turn **at, *before = NULL;
	bool was;

	pthread_mutex_lock(&s->lock);
	was = t->queued;
	if (was) {
		for (at = &t->host->queue; *at != t; at = &(*at)->next)
			before = *at;
		*at = t->next;
		if (t->host->queue_last == t)
			t->host->queue_last = before;
		t->queued = false;
		t->host->queued--;
		s->queued--;
		host_unlink(s, t->host);
	}
	pthread_mutex_unlock(&s->lock);
	return was;
}

bool sched_started(struct sched *s, struct sched_turn *t, uint32_t threads)
{
	bool compete;

	pthread_mutex_lock(&s->lock);
	t->started = true;
	t->threads = threads;
	t->cpu_seen = s->ops->cpu_ns(t);
	if (t->host->gated)
		s->ops->gate(t, false);
	compete = s->hosts && s->hosts->next;
	pthread_mutex_unlock(&s->lock);
	return compete;
}

void sched_stall(struct sched *s, struct sched_turn *t, bool stalled)
{
	pthread_mutex_lock(&s->lock);
	if (t->running && t->stalled != stalled) {
		t->stalled = stalled;
		s->stalled += stalled ? 1 : UINT32_MAX;
		start_some(s);
	}
	pthread_mutex_unlock(&s->lock);
}

void sched_over(struct sched *s, struct sched_turn *t, uint64_t ns)
{
	struct sched_host *host = t->host;
	struct sched_turn **at;

	pthread_mutex_lock(&s->lock);
	if (t->running) {
		if (t->started)
			host->used += s->ops->cpu_ns(t) - t->cpu_seen;
		for (at = &host->active; *at != t; at = &(*at)->next)
			;
		*at = t->next;
		host->running--;
		s->running--;
		s->stalled -= t->stalled;
		t->running = t->started = t->stalled = false;
		s->mean_ns += ns / 8 - s->mean_ns / 8;
		host_unlink(s, host);
		start_some(s);
	}
	pthread_mutex_unlock(&s->lock);
}

uint32_t sched_share(struct sched *s)
{
	uint32_t hosts = 0, share;

	pthread_mutex_lock(&s->lock);
	for (struct sched_host *h = s->hosts; h; h = h->next)
		hosts++;
	pthread_mutex_unlock(&s->lock);
	share = s->cores / (hosts ? hosts : 1);
	return share ? share : 1;
}

void sched_load(struct sched *s, uint32_t *queued, uint32_t *running)
{
	pthread_mutex_lock(&s->lock);
	*queued = s->queued;
	*running = s->running;
	pthread_mutex_unlock(&s->lock);
}

uint32_t sched_busy_ms(struct sched *s)
{
	uint64_t ms;

	pthread_mutex_lock(&s->lock);
	ms = s->mean_ns / 1000000 * (s->queued + 1) / (s->max_total);
	pthread_mutex_unlock(&s->lock);
	return ms < 1 ? 1 : ms > MAX_BUSY_MS ? MAX_BUSY_MS : (uint32_t)ms;
}

/* ---- shares ---- */

/* What the host used since the last look; the threads that it could have used. */
static uint32_t measure(struct sched *s, struct sched_host *host)
{
	uint32_t threads = 0;

	host->delta = 0;
	for (struct sched_turn *t = host->active; t; t = t->next) {
		uint64_t cpu;

		if (!t->started)
			continue;
		cpu = s->ops->cpu_ns(t);
		host->delta += cpu - t->cpu_seen;
		t->cpu_seen = cpu;
		if (!t->stalled)
			threads += t->threads;
	}
	host->used += host->delta;
	return threads < s->cores ? threads : s->cores;
}

static void gate(struct sched *s, struct sched_host *host, bool gated)
{
	if (host->gated == gated)
		return;
	host->gated = gated;
	for (struct sched_turn *t = host->active; t; t = t->next) {
		if (t->started)
			s->ops->gate(t, !gated);
	}
}

bool sched_tick(struct sched *s, uint64_t now_ns)
{
	uint64_t elapsed, least = UINT64_MAX, most = 0;
	bool gated = false, compete;

	pthread_mutex_lock(&s->lock);
	compete = s->hosts && s->hosts->next;
	elapsed = s->tick_ns && compete ? now_ns - s->tick_ns : 0;
	s->tick_ns = compete ? now_ns : 0;
	for (struct sched_host *h = s->hosts; h; h = h->next)
		gated |= h->gated;
	for (struct sched_host *h = s->hosts; h; h = h->next) {
		uint64_t could = measure(s, h) * elapsed;

		/* While others are held back for it, that it is not starved says nothing. */
		if (!could)
			h->starved = false;
		else if (!gated)
			h->starved = h->delta * 100 < could * STARVED_SHARE &&
				     h->delta * 100 >= elapsed * IDLE_SHARE;
		else if (h->starved && h->delta * 100 < elapsed * IDLE_SHARE)
			h->starved = false;
		if (h->used > most)
			most = h->used;
		if (h->starved && h->used < least)
			least = h->used;
	}
	for (struct sched_host *h = s->hosts; h; h = h->next) {
		if (!h->starved && !h->gated)
			h->used = most; /* nothing is saved up */
		gate(s, h,
		     compete && least != UINT64_MAX && h->used > least &&
			     h->used - least > (h->gated ? SLACK_NS / 2 : SLACK_NS));
	}
	pthread_mutex_unlock(&s->lock);
	return compete;
}
