/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buffers.c - a loop's data buffers: page aligned, of any size up to the largest transfer, bounded in all,
 * registered with the ring where the kernel lets us pin them.
 *
 * What a buffer holds when it is handed out is what its last user left: who takes one fills it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device/loop_private.h"

#define BUFFER_TAKEN 0xffu
#define TRIM_MS      10000u

/* Top blocks that the ring can have a registered buffer for: the kernel's own bound is 16384. */
#define MAX_REGISTERED 16384u

static uint64_t order_bytes(uint32_t order)
{
	return 1ull << (BUFFER_PAGE_BITS + order);
}

static uint32_t order_of(uint32_t len)
{
	uint32_t order = 0;

	while (order_bytes(order) < len)
		order++;
	return order;
}

static void trim_fire(struct ctrl_timer *t);

int buffers_init(struct ctrl_loop *loop, uint32_t max_transfer, uint64_t memory)
{
	struct buffers *b = &loop->buffers;
	uint64_t pages;

	b->top = order_of(max_transfer);
	if (b->top >= BUFFER_ORDERS - 1)
		return -EINVAL;
	memory >>= BUFFER_PAGE_BITS + b->top;
	/* Page numbers are 32 bits. */
	b->n_top = memory < 1                         ? 1
		   : memory >= (UINT32_MAX >> b->top) ? UINT32_MAX >> b->top
						      : (uint32_t)memory;
	pages = (uint64_t)b->n_top << b->top;
	b->base = mmap(NULL, pages << BUFFER_PAGE_BITS, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->base == MAP_FAILED) {
		b->base = NULL;
		return -ENOMEM;
	}
	b->next = calloc(pages, sizeof(*b->next));
	b->prev = calloc(pages, sizeof(*b->prev));
	b->order = malloc(pages);
	b->used = calloc(b->n_top, 1);
	if (!b->next || !b->prev || !b->order || !b->used)
		return -ENOMEM;
	memset(b->order, BUFFER_TAKEN, pages);
	memset(b->free, 0xff, sizeof(b->free)); /* BUFFER_NONE */
	b->trim.fire = trim_fire;
	return 0;
}

void buffers_register(struct ctrl_loop *loop)
{
	struct buffers *b = &loop->buffers;
	uint32_t n = b->n_top < MAX_REGISTERED ? b->n_top : MAX_REGISTERED;

	b->registers = loop->has_ring && !io_uring_register_buffers_sparse(&loop->ring, n);
}

void buffers_free(struct buffers *b)
{
	if (b->base)
		munmap(b->base, (uint64_t)b->n_top << (BUFFER_PAGE_BITS + b->top));
	free(b->next);
	free(b->prev);
	free(b->order);
	free(b->used);
}

static void list_add(struct buffers *b, uint32_t page, uint32_t order)
{
	b->order[page] = (uint8_t)order;
	b->prev[page] = BUFFER_NONE;
	b->next[page] = b->free[order];
	if (b->free[order] != BUFFER_NONE)
		b->prev[b->free[order]] = page;
	b->free[order] = page;
}

static void list_remove(struct buffers *b, uint32_t page)
{
	uint32_t order = b->order[page];

	if (b->next[page] != BUFFER_NONE)
		b->prev[b->next[page]] = b->prev[page];
	if (b->prev[page] != BUFFER_NONE)
		b->next[b->prev[page]] = b->next[page];
	else
		b->free[order] = b->next[page];
	b->order[page] = BUFFER_TAKEN;
}

/* Give memory to a top block that has none. */
static bool add_top(struct ctrl_loop *loop)
{
	struct buffers *b = &loop->buffers;
	uint32_t i = 0;

	if (b->n_used == b->n_top)
		return false;
	while (b->used[i])
		i++;
	b->used[i] = 1;
	b->n_used++;
	if (b->registers && i < MAX_REGISTERED) {
		struct iovec iov = {b->base + ((uint64_t)i << (BUFFER_PAGE_BITS + b->top)),
				    order_bytes(b->top)};

		/* Refused where RLIMIT_MEMLOCK is spent: such a block is served unregistered. */
		if (io_uring_register_buffers_update_tag(&loop->ring, i, &iov, NULL, 1) == 1)
			b->used[i] = 2;
		else
			b->registers = false;
	}
	list_add(b, i << b->top, b->top);
	b->idle++;
	return true;
}

static void drop_top(struct ctrl_loop *loop, uint32_t page)
{
	struct buffers *b = &loop->buffers;
	uint32_t i = page >> b->top;

	list_remove(b, page);
	b->idle--;
	if (b->used[i] == 2) {
		struct iovec none = {0};

		io_uring_register_buffers_update_tag(&loop->ring, i, &none, NULL, 1);
		b->registers = true;
	}
	b->used[i] = 0;
	b->n_used--;
	madvise(b->base + ((uint64_t)page << BUFFER_PAGE_BITS), order_bytes(b->top), MADV_DONTNEED);
}

/* Give back what was not needed at any moment since the last look. */
static void trim_fire(struct ctrl_timer *t)
{
	struct buffers *b = (struct buffers *)((char *)t - offsetof(struct buffers, trim));
	struct ctrl_loop *loop =
		(struct ctrl_loop *)((char *)b - offsetof(struct ctrl_loop, buffers));

	for (uint32_t n = b->idle_min; n; n--)
		drop_top(loop, b->free[b->top]);
	b->idle_min = b->idle;
	if (b->idle)
		ctrl_timer_arm(loop, &b->trim, TRIM_MS);
}

/* The smallest free block that holds @order, or one order above the largest. */
static uint32_t find_order(const struct buffers *b, uint32_t order)
{
	while (order <= b->top && b->free[order] == BUFFER_NONE)
		order++;
	return order;
}

static bool available(const struct buffers *b, uint32_t len)
{
	return b->n_used < b->n_top || find_order(b, order_of(len)) <= b->top;
}

void *ctrl_loop_buffer_get(struct ctrl_loop *loop, uint32_t len)
{
	struct buffers *b = &loop->buffers;
	uint32_t order = order_of(len), have, page;

	/* Nobody passes those who wait: a large request would never see its turn. */
	if (order > b->top || (b->first && !b->waking))
		return NULL;
	have = find_order(b, order);
	if (have > b->top) {
		if (!add_top(loop))
			return NULL;
		have = b->top;
	}
	page = b->free[have];
	list_remove(b, page);
	if (have == b->top) {
		b->idle--;
		if (b->idle < b->idle_min)
			b->idle_min = b->idle;
	}
	while (have > order) {
		have--;
		list_add(b, page + (1u << have), have);
	}
	return b->base + ((uint64_t)page << BUFFER_PAGE_BITS);
}

void ctrl_loop_buffer_put(struct ctrl_loop *loop, void *buf, uint32_t len)
{
	struct buffers *b = &loop->buffers;
	uint32_t order = order_of(len);
	uint32_t page = (uint32_t)((uint64_t)((uint8_t *)buf - b->base) >> BUFFER_PAGE_BITS);

	while (order < b->top) {
		uint32_t buddy = page ^ 1u << order;

		if (b->order[buddy] != order)
			break;
		list_remove(b, buddy);
		page &= ~(1u << order);
		order++;
	}
	list_add(b, page, order);
	b->returned = true;
	if (order == b->top) {
		b->idle++;
		if (!b->trim.at_ns) {
			b->idle_min = b->idle;
			ctrl_timer_arm(loop, &b->trim, TRIM_MS);
		}
	}
}

uint64_t ctrl_loop_buffer_bytes(const struct ctrl_loop *loop)
{
	return loop->buffers.n_used * order_bytes(loop->buffers.top);
}

int ctrl_loop_buffer_index(struct ctrl_loop *loop, const void *p, uint64_t len)
{
	const struct buffers *b = &loop->buffers;
	uint64_t at = (uint64_t)((const uint8_t *)p - b->base);
	uint64_t i = at >> (BUFFER_PAGE_BITS + b->top);

	if ((const uint8_t *)p < b->base || i >= b->n_top || b->used[i] != 2)
		return -1;
	return (at + len - 1) >> (BUFFER_PAGE_BITS + b->top) == i ? (int)i : -1;
}

void ctrl_loop_buffer_wait(struct ctrl_loop *loop, struct ctrl_buffer_wait *w)
{
	struct buffers *b = &loop->buffers;

	if (w->waiting)
		return;
	w->waiting = true;
	w->next = NULL;
	w->prev = b->last;
	if (b->last)
		b->last->next = w;
	else
		b->first = w;
	b->last = w;
	b->n_waiting++;
}

void ctrl_loop_buffer_unwait(struct ctrl_loop *loop, struct ctrl_buffer_wait *w)
{
	struct buffers *b = &loop->buffers;

	if (!w->waiting)
		return;
	w->waiting = false;
	b->n_waiting--;
	if (w->next)
		w->next->prev = w->prev;
	else
		b->last = w->prev;
	if (w->prev)
		w->prev->next = w->next;
	else
		b->first = w->next;
	b->returned = true; /* the next one may want less */
}

void buffers_wake(struct ctrl_loop *loop)
{
	struct buffers *b = &loop->buffers;
	uint32_t n = b->n_waiting; /* who waits again within goes to the next round */

	if (!b->returned)
		return;
	b->returned = false;
	while (b->first && n-- && available(b, b->first->len)) {
		struct ctrl_buffer_wait *w = b->first;

		ctrl_loop_buffer_unwait(loop, w);
		b->returned = false;
		b->waking = true;
		w->ready(w);
		b->waking = false;
	}
}
