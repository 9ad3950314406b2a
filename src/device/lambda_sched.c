/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_sched.c - turns and fair shares.
 *
 * Fair shares: each host's processor time is counted.  A host whose threads get less than they could use is starved;
 * hosts that have used more than it then wait between two pieces until it has caught up.  What looks like starving may
 * be waiting for data: if it gets on no better while others wait, they wait for it no longer for a while.
 *
 * What a host did not use is not saved up for later, but for a little, so that one that asks for one thing after
 * another is not taken for a new one each time.
 */
#include <stddef.h>

#include "device/lambda_sched.h"

#define SLACK_NS      8000000u   /* so far ahead may a host be */
#define CREDIT_NS     40000000u  /* and so far behind */
#define LINGER_NS     20000000u  /* it is still there, though it has nothing */
#define STARVED       850u       /* permille of what its threads could use */
#define WAITING       50u        /* and less than this is waiting for data */
#define FREE_NS       100000000u /* over so long it is seen how a host gets on, */
#define HELPED_NS     64000000u  /* and whether it helps that others wait */
#define HOLD_TICKS    100u
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

static void catch_up(struct sched_host *host, uint64_t most)
{
	if (most > CREDIT_NS && host->used < most - CREDIT_NS)
		host->used = most - CREDIT_NS;
}

static void host_link(struct sched *s, struct sched_host *host)
{
	struct sched_host **at = &s->hosts;
	uint64_t most = 0;

	if (host->linked)
		return;
	for (; *at; at = &(*at)->next)
		most = (*at)->used > most ? (*at)->used : most;
	catch_up(host, most);
	*at = host;
	host->next = NULL;
	host->linked = true;
	host->gated = host->starved = false;
	host->delta = host->could = 0;
}

static void unlink_at(struct sched_host **at)
{
	(*at)->linked = false;
	*at = (*at)->next;
}

static bool idle(const struct sched_host *host)
{
	return !host->queue && !host->active;
}

/* It may come again soon; but who is alone, or was the last, competes with nobody. */
static void host_idle(struct sched *s, struct sched_host *host)
{
	if (!idle(host))
		return;
	host->idle_ns = s->ops->now_ns();
	while (s->hosts && !s->hosts->next && idle(s->hosts))
		unlink_at(&s->hosts);
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

/* What the run had of the processors since the last look, and what it could have had. */
static void measure(struct sched *s, struct sched_turn *t, uint64_t now)
{
	uint64_t cpu;

	if (!t->started)
		return;
	cpu = s->ops->cpu_ns(t);
	t->host->used += cpu - t->cpu_seen;
	t->host->delta += cpu - t->cpu_seen;
	if (!t->stalled)
		t->host->could +=
			(now - t->since_ns) * (t->threads < s->cores ? t->threads : s->cores);
	t->cpu_seen = cpu;
	t->since_ns = now;
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
		host_idle(s, t->host);
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
	t->since_ns = s->ops->now_ns();
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
		measure(s, t, s->ops->now_ns());
		for (at = &host->active; *at != t; at = &(*at)->next)
			;
		*at = t->next;
		host->running--;
		s->running--;
		s->stalled -= t->stalled;
		t->running = t->started = t->stalled = false;
		s->mean_ns += ns / 8 - s->mean_ns / 8;
		start_some(s);
		host_idle(s, host);
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

/* What is long ago counts less and less. */
static void add_rate(struct sched_rate *r, const struct sched_host *host, uint64_t window)
{
	r->had += host->delta;
	r->could += host->could;
	if (r->could > window) {
		r->had /= 2;
		r->could /= 2;
	}
}

static uint64_t permille(const struct sched_rate *r)
{
	return r->could ? r->had * 1000 / r->could : 0;
}

/* Is it kept from computing?  @gated: others wait. */
static void judge(struct sched *s, struct sched_host *host, bool gated, uint64_t now)
{
	for (struct sched_turn *t = host->active; t; t = t->next)
		measure(s, t, now);
	if (host->could && !gated) {
		add_rate(&host->free, host, FREE_NS);
		host->starved = permille(&host->free) < STARVED && permille(&host->free) >= WAITING;
	} else if (host->could && host->starved && !host->gated) {
		add_rate(&host->helped, host, UINT64_MAX);
	}
	if (host->helped.could >= HELPED_NS) {
		if (permille(&host->helped) * 10 < permille(&host->free) * 11)
			host->hold = HOLD_TICKS;
		host->helped = (struct sched_rate){0};
	}
	if (host->hold) {
		host->hold--;
		host->starved = false;
	}
	host->delta = host->could = 0;
}

bool sched_tick(struct sched *s)
{
	uint64_t now = s->ops->now_ns(), least = UINT64_MAX, most = 0;
	bool gated = false, compete;

	pthread_mutex_lock(&s->lock);
	for (struct sched_host **at = &s->hosts; *at;) {
		if (idle(*at) && now - (*at)->idle_ns >= LINGER_NS)
			unlink_at(at);
		else
			at = &(*at)->next;
	}
	compete = s->hosts && s->hosts->next;
	for (struct sched_host *h = s->hosts; h; h = h->next)
		gated |= h->gated;
	for (struct sched_host *h = s->hosts; h; h = h->next) {
		judge(s, h, gated, now);
		if (h->used > most)
			most = h->used;
		if (h->starved && h->used < least)
			least = h->used;
	}
	for (struct sched_host *h = s->hosts; h; h = h->next) {
		catch_up(h, most);
		gate(s, h,
		     compete && least != UINT64_MAX && h->used > least &&
			     h->used - least > (h->gated ? SLACK_NS / 2 : SLACK_NS));
	}
	if (!compete && s->hosts && idle(s->hosts))
		unlink_at(&s->hosts);
	pthread_mutex_unlock(&s->lock);
	return compete;
}

void sched_forget(struct sched *s, struct sched_host *host)
{
	struct sched_host **at = &s->hosts;

	pthread_mutex_lock(&s->lock);
	if (host->linked) {
		while (*at != host)
			at = &(*at)->next;
		unlink_at(at);
	}
	pthread_mutex_unlock(&s->lock);
}
