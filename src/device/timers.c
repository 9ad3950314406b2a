/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timers.c - a loop's timers: arming, cancelling and finding the next one take constant time, however many
 * thousand connections have one, and nothing ticks while none is due.
 */
#include <string.h>

#include "device/loop_private.h"

static uint64_t now_tick(void)
{
	return ctrl_now_ns() / (TIMER_TICK_MS * 1000000ull);
}

static uint32_t level_shift(uint32_t level)
{
	return level * TIMER_LEVEL_BITS;
}

void timers_init(struct timers *t)
{
	memset(t, 0, sizeof(*t));
	t->tick = now_tick();
}

void timers_cancel(struct timers *t, struct ctrl_timer *timer)
{
	if (!timer->at_ns)
		return;
	timer->at_ns = 0;
	if (timer->next)
		timer->next->prev = timer->prev;
	if (timer->prev) {
		timer->prev->next = timer->next;
	} else {
		t->slot[timer->slot] = timer->next;
		if (!timer->next)
			t->used[timer->slot / TIMER_SLOTS] &= ~(1ull << timer->slot % TIMER_SLOTS);
	}
}

void timers_arm(struct timers *t, struct ctrl_timer *timer, uint64_t in_ms)
{
	const uint64_t reach = (uint64_t)(TIMER_SLOTS - 1) << level_shift(TIMER_LEVELS - 1);
	uint64_t now = ctrl_now_ns(), at, ticks, slot;
	uint32_t level = 0;

	timers_cancel(t, timer);
	if (in_ms > reach * TIMER_TICK_MS / 2)
		in_ms = reach * TIMER_TICK_MS / 2;
	at = now + in_ms * 1000000;
	ticks = at / (TIMER_TICK_MS * 1000000ull) + 1; /* the first tick that is not before */
	if (ticks <= t->tick)
		ticks = t->tick + 1;
	/* A slot must not be met again, or be the current one, before the timer is due. */
	while (level < TIMER_LEVELS - 1 &&
	       ((ticks - t->tick) >> level_shift(level)) >= TIMER_SLOTS - 2)
		level++;
	slot = ((ticks - 1) >> level_shift(level)) + 1; /* rounded up */
	slot = level * TIMER_SLOTS + slot % TIMER_SLOTS;
	timer->at_ns = at ? at : 1;
	timer->slot = (int)slot;
	timer->prev = NULL;
	timer->next = t->slot[slot];
	if (timer->next)
		timer->next->prev = timer;
	t->slot[slot] = timer;
	t->used[level] |= 1ull << slot % TIMER_SLOTS;
}

/* The first tick at which a slot of @level is due, or UINT64_MAX. */
static uint64_t level_next(const struct timers *t, uint32_t level)
{
	uint64_t at = (t->tick >> level_shift(level)) + 1; /* the first slot that has not fired */
	uint64_t used = t->used[level];
	uint32_t turn = at % TIMER_SLOTS;

	if (!used)
		return UINT64_MAX;
	if (turn)
		used = used >> turn | used << (TIMER_SLOTS - turn);
	return (at + (uint64_t)__builtin_ctzll(used)) << level_shift(level);
}

uint64_t timers_next(const struct timers *t)
{
	uint64_t best = UINT64_MAX;

	for (uint32_t i = 0; i < TIMER_LEVELS; i++) {
		uint64_t at = level_next(t, i);

		if (at < best)
			best = at;
	}
	return best;
}

void timers_run(struct timers *t)
{
	uint64_t now = now_tick(), next;

	while ((next = timers_next(t)) <= now) {
		t->tick = next;
		for (uint32_t i = 0; i < TIMER_LEVELS; i++) {
			uint32_t slot = (next >> level_shift(i)) % TIMER_SLOTS;

			if (next & ((1ull << level_shift(i)) - 1))
				break; /* no boundary of this level, nor of a coarser one */
			while (t->slot[i * TIMER_SLOTS + slot]) {
				struct ctrl_timer *timer = t->slot[i * TIMER_SLOTS + slot];

				timers_cancel(t, timer);
				timer->fire(timer);
			}
		}
	}
	t->tick = now;
}
