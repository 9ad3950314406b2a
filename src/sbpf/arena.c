/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.c - BPF arenas: made, mapped, given pages.
 *
 * Owns: the map, where it lies in this process, and the small program that has the kernel give it pages,
 * which no system call does.  Does not own: what is a window (sandbox.c), programs (kernel_load.c).
 *
 * The map has BPF_F_SEGV_ON_FAULT, so that touching a page that was not given is a fault here, too, and
 * never gives one.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sbpf/arena.h"
#include "sbpf/kernel_sys.h"
#include "sbpf/sandbox.h"

/* One request of the program that gives pages.  The kernel makes a list of them: not of all at once. */
struct pages {
	uint64_t address, n;
};
#define PAGES_MAX 65536u

/* ---- making ---- */

/* Its context is a struct pages; it returns whether it did as asked. */
static int load_pages_program(struct sbpf_arena *a)
{
	int give = sbpf_kfunc(SBPF_KFUNC_ARENA_ALLOC);
	/* clang-format off */
	const struct sbpf_insn insns[] = {
		{BPF_LDX | BPF_MEM | BPF_DW, 2, 1, offsetof(struct pages, address), 0},
		{BPF_LDX | BPF_MEM | BPF_DW, 3, 1, offsetof(struct pages, n), 0},
		{BPF_LDDW_CODE, 1, KBPF_PSEUDO_MAP_FD, 0, a->map_fd}, {0},
		/* bpf_arena_alloc_pages(map, address, n, on any node, no flags), which is 0 in failure */
		{BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, -1},
		{BPF_ALU64 | BPF_MOV | BPF_K, 5, 0, 0, 0},
		{BPF_JMP | BPF_CALL, 0, KBPF_PSEUDO_KFUNC_CALL, 0, give},
		{BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1, 0},
		{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1},
		{BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
	};
	/* clang-format on */
	int fd;

	if (give < 0)
		return -EOPNOTSUPP;
	fd = sbpf_bpf_load(insns, sizeof(insns) / sizeof(insns[0]), "lio_pages", NULL, 0);
	if (fd < 0)
		return fd;
	a->pages_fd = fd;
	return 0;
}

static int make_map(struct sbpf_arena *a)
{
	struct kbpf_map_create attr = {
		.map_type = KBPF_MAP_TYPE_ARENA,
		.max_entries = (uint32_t)(SBPF_SPACE / SBPF_PAGE),
		.map_flags = KBPF_F_MMAPABLE | KBPF_F_SEGV_ON_FAULT,
		.name = "lio_arena",
		.map_extra = (uintptr_t)a->base,
	};
	int fd = sbpf_bpf(KBPF_MAP_CREATE, &attr, sizeof(attr));

	if (fd < 0)
		return fd == -EINVAL ? -EOPNOTSUPP : fd;
	a->map_fd = fd;
	return 0;
}

/* 4 GiB of addresses that begin at a multiple of 4 GiB, kept by an inaccessible mapping. */
static int reserve(struct sbpf_arena *a)
{
	uint8_t *p = mmap(NULL, 2 * SBPF_SPACE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before;

	if (p == MAP_FAILED)
		return -errno;
	before = -(uintptr_t)p & (SBPF_SPACE - 1);
	a->base = p + before;
	if (before)
		munmap(p, before);
	munmap(a->base + SBPF_SPACE, SBPF_SPACE - before);
	return 0;
}

static int map_here(struct sbpf_arena *a)
{
	void *p = mmap(a->base, SBPF_SPACE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		       a->map_fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	return 0;
}

int sbpf_arena_open(struct sbpf_arena **out)
{
	struct sbpf_arena *a = calloc(1, sizeof(*a));
	uint64_t done;
	int r;

	*out = NULL;
	if (!a)
		return -ENOMEM;
	a->map_fd = a->pages_fd = -1;
	r = reserve(a);
	if (!r)
		r = make_map(a);
	if (!r)
		r = map_here(a);
	if (!r)
		r = load_pages_program(a);
	if (!r)
		r = sbpf_arena_give(a, SBPF_ARENA_OWN, SBPF_ARENA_OWN_BYTES, &done);
	if (r) {
		sbpf_arena_close(a);
		return r;
	}
	*out = a;
	return 0;
}

void sbpf_arena_close(struct sbpf_arena *a)
{
	if (!a)
		return;
	if (a->base)
		munmap(a->base, SBPF_SPACE);
	if (a->pages_fd >= 0)
		close(a->pages_fd);
	if (a->map_fd >= 0)
		close(a->map_fd);
	free(a);
}

/* ---- pages ---- */

int sbpf_arena_give(struct sbpf_arena *a, uint64_t off, uint64_t len, uint64_t *done)
{
	for (*done = 0; *done < len;) {
		uint64_t left = (len - *done) / SBPF_PAGE;
		struct pages req = {.address = (uintptr_t)a->base + off + *done,
				    .n = left < PAGES_MAX ? left : PAGES_MAX};
		uint32_t did;
		int r = sbpf_bpf_run(a->pages_fd, &req, sizeof(req), &did);

		if (r || !did)
			return r ? r : -ENOMEM;
		*done += req.n * SBPF_PAGE;
	}
	/* All in one go: a fault for each takes thrice as long, but would do. */
	madvise(a->base + off, len, MADV_POPULATE_WRITE);
	return 0;
}
