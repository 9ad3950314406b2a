/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.c - the 4 GiB that a program can reach: windows, their pages, and the pool.
 *
 * Owns: the reservation, which pages of it are there, what they hold between calls.
 * Does not own: running (run.c) and faults (fault.c).
 *
 * No step may leave a hole in a reservation, for the next mmap of any other thread could land in it
 * and be the program's to read.  So pages are given and taken with mprotect; where a mapping has to
 * be replaced and the kernel fails halfway, the sandbox is lost: never run, never unmapped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sbpf/sandbox.h"

/* Up to here clearing pages is cheaper than dropping them and having them faulted in again. */
#define CLEAR_MAX (64u << 10)
/* An idle sandbox gives the pages of larger windows back. */
#define IDLE_MAX (4ull << 20)
/* An arena is given pages of larger windows by so many: sizes vary by a page from call to call. */
#define ARENA_STEP (64ull << 10)
/* An idle arena has no more than this in all. */
#define ARENA_IDLE_MAX (64ull << 20)
/* Between two windows that are at their maximum, so that no range runs from one into the next. */
#define HOLE (64ull << 10)

static const struct window {
	const char *name;
	uint64_t offset, max;
} windows[SBPF_WINDOWS] = {
	[SBPF_WIN_CTX] = {"context", 0x00010000, 0x10000},
	[SBPF_WIN_RODATA] = {"constants", 0x00100000, 0x0ff00000 - HOLE},
	[SBPF_WIN_OTHER] = {"second input", 0x10000000, 0x10000000 - HOLE},
	[SBPF_WIN_ARG] = {"argument", 0x20000000, 0x20000000 - HOLE},
	[SBPF_WIN_DATA] = {"globals", SBPF_WRITABLE_FROM, 0x10000000 - HOLE},
	[SBPF_WIN_STACK] = {"stack", 0x50000000, 0x10000},
	[SBPF_WIN_STATE] = {"state", 0x51000000, 0x0f000000 - HOLE},
	[SBPF_WIN_HEAP] = {"heap", 0x60000000, 0x20000000 - HOLE},
	[SBPF_WIN_IN] = {"input", 0x80000000, 0x40000000 - HOLE},
	[SBPF_WIN_OUT] = {"output", 0xc0000000, 0x40000000 - HOLE},
};

_Static_assert(SBPF_MAX_DEPTH *SBPF_MAX_FRAME <= 0x10000, "the deepest stack fits its window");

uint64_t sbpf_window_offset(enum sbpf_window win)
{
	return (unsigned int)win < SBPF_WINDOWS ? windows[win].offset : 0;
}

uint64_t sbpf_window_max(enum sbpf_window win)
{
	return (unsigned int)win < SBPF_WINDOWS ? windows[win].max : 0;
}

const char *sbpf_window_name(enum sbpf_window win)
{
	return windows[win].name;
}

enum sbpf_window sbpf_window_of(uint32_t off)
{
	/* By the top four bits the first window that could hold it; the next may start there too. */
	static const uint8_t first[16] = {
		SBPF_WIN_CTX,  SBPF_WIN_OTHER, SBPF_WIN_ARG,  SBPF_WIN_ARG,
		SBPF_WIN_DATA, SBPF_WIN_STACK, SBPF_WIN_HEAP, SBPF_WIN_HEAP,
		SBPF_WIN_IN,   SBPF_WIN_IN,    SBPF_WIN_IN,   SBPF_WIN_IN,
		SBPF_WIN_OUT,  SBPF_WIN_OUT,   SBPF_WIN_OUT,  SBPF_WIN_OUT,
	};
	unsigned int win = first[off >> 28];

	if (win + 1 < SBPF_WINDOWS && off >= windows[win + 1].offset)
		win++;
	return (enum sbpf_window)win;
}

static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + SBPF_PAGE - 1) & ~(uint64_t)(SBPF_PAGE - 1);
}

/* ---- making ---- */

static _Atomic unsigned int forks;

static void count_fork(void)
{
	atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, count_fork);
}

static int reserve(struct sbpf_sandbox *sb)
{
	void *p = mmap(NULL, SBPF_SPACE + 2 * SBPF_GUARD, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	sb->base = (uint8_t *)p + SBPF_GUARD;
	return 0;
}

/*
 * Emulators (qemu-user) know neither of the two calls that read-only windows live on: mremap from
 * length 0, and MADV_REMOVE, which they ignore.  There the pages are a memory file's and are cleared
 * by hand.
 */
static bool emulated;

static void look_for_emulator(void)
{
	void *p = mmap(NULL, SBPF_PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	void *twice;

	if (p == MAP_FAILED)
		return;
	twice = mremap(p, 0, SBPF_PAGE, MREMAP_MAYMOVE);
	emulated = twice == MAP_FAILED;
	if (!emulated)
		munmap(twice, SBPF_PAGE);
	munmap(p, SBPF_PAGE);
}

static int map_memory_file(struct sbpf_sandbox *sb)
{
	const int flags = MAP_SHARED | MAP_NORESERVE;
	int fd = memfd_create("sbpf", MFD_CLOEXEC), r = 0;
	void *p = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, SBPF_WRITABLE_FROM))
		p = mmap(NULL, SBPF_WRITABLE_FROM, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (p != MAP_FAILED) {
		sb->alias = p;
		p = mmap(sb->base, SBPF_WRITABLE_FROM, PROT_NONE, flags | MAP_FIXED, fd, 0);
		sb->lost = p == MAP_FAILED;
	}
	if (p == MAP_FAILED)
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

/* The read-only windows' pages: inaccessible to the program until a window grows over them. */
static int map_readonly(struct sbpf_sandbox *sb)
{
	void *p;

	if (emulated)
		return map_memory_file(sb);
	/* Not a memory file: making one long enough is refused, and kills, below the file size limit. */
	p = mmap(NULL, SBPF_WRITABLE_FROM, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	sb->alias = p;
	/* From length 0: the same pages once more, see mremap(2). */
	if (mremap(p, 0, SBPF_WRITABLE_FROM, MREMAP_MAYMOVE | MREMAP_FIXED, sb->base) ==
	    MAP_FAILED) {
		sb->lost = true;
		return -errno;
	}
	return mprotect(sb->base, SBPF_WRITABLE_FROM, PROT_NONE) ? -errno : 0;
}

static int open_arena(struct sbpf_sandbox *sb)
{
	int r = sbpf_arena_open(&sb->arena);

	if (!r)
		sb->base = sb->alias = sb->arena->base;
	return r;
}

/* ---- pages ---- */

static int window_protect(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t from, uint64_t to,
			  int prot)
{
	return mprotect(sb->base + windows[win].offset + from, to - from, prot) ? -errno : 0;
}

/* Pages [from, to) of a window that is not a file read zero when they are touched next. */
static int window_drop(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t from, uint64_t to)
{
	uint64_t at = windows[win].offset + from;
	int r = 0;

	if (sbpf_window_writable(win))
		r = madvise(sb->base + at, to - from, MADV_DONTNEED);
	else if (emulated)
		memset(sb->alias + at, 0, to - from);
	else
		r = madvise(sb->alias + at, to - from, MADV_REMOVE);
	return r ? -errno : 0;
}

/*
 * An arena's pages stay when their window shrinks, for the kernel takes them back one by one and has all cores forget
 * each: some 15 µs, and what may be touched is checked against the window's size there.  They are clear when they are in
 * it again.
 */
static int arena_grow(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t size)
{
	struct sbpf_arena *a = sb->arena;
	uint64_t old = sb->size[win], had = a->has[win], want = size, given;
	int r;

	if (size > had) {
		if (size > ARENA_STEP)
			want = (size + ARENA_STEP - 1) & ~(ARENA_STEP - 1);
		if (want > windows[win].max)
			want = size;
		r = sbpf_arena_give(a, windows[win].offset + had, want - had, &given);
		a->has[win] += given;
		if (r)
			return r;
	}
	memset(sb->base + windows[win].offset + old, 0, (size < had ? size : had) - old);
	sb->size[win] = size;
	return 0;
}

static int window_grow(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t size)
{
	int prot = sbpf_window_writable(win) ? PROT_READ | PROT_WRITE : PROT_READ;
	int r;

	if (sb->arena)
		return arena_grow(sb, win, size);
	r = window_protect(sb, win, sb->size[win], size, prot);
	if (!r)
		sb->size[win] = size;
	return r;
}

static int window_shrink(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t size)
{
	uint64_t old = sb->size[win];
	int r;

	if (sb->arena) {
		sb->size[win] = size;
		return 0;
	}
	r = window_protect(sb, win, size, old, PROT_NONE);
	if (r)
		return r;
	sb->size[win] = size;
	r = window_drop(sb, win, size, old);
	/* Else the pages would come back with what they hold. */
	if (r)
		sb->lost = true;
	return r;
}

/* Pages [from, to) of the mapped file become inaccessible plain ones. */
static int file_drop(struct sbpf_sandbox *sb, uint64_t from, uint64_t to)
{
	void *p = mmap(sb->base + windows[SBPF_WIN_IN].offset + from, to - from, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (p == MAP_FAILED) {
		sb->lost = true;
		return -errno;
	}
	return 0;
}

static int file_unmap(struct sbpf_sandbox *sb)
{
	int r = file_drop(sb, 0, sb->size[SBPF_WIN_IN]);

	if (!r) {
		sb->size[SBPF_WIN_IN] = 0;
		sb->in_file = false;
	}
	return r;
}

static int window_resize(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t bytes)
{
	uint64_t size = whole_pages(bytes);

	if (bytes > windows[win].max)
		return -ENOSPC;
	if (size == sb->size[win])
		return 0;
	return size > sb->size[win] ? window_grow(sb, win, size) : window_shrink(sb, win, size);
}

/* Those that the runtime fills have the size that the program gives them. */
static bool window_foreign(enum sbpf_window win)
{
	return (unsigned int)win < SBPF_WINDOWS && win != SBPF_WIN_RODATA && win != SBPF_WIN_DATA &&
	       win != SBPF_WIN_STACK;
}

int sbpf_sandbox_resize(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t bytes)
{
	if (!window_foreign(win))
		return -EINVAL;
	if (sb->running)
		return -EBUSY;
	if (sb->lost)
		return -ENOMEM;
	if (win == SBPF_WIN_IN && sb->in_file) {
		int r = file_unmap(sb);

		if (r)
			return r;
	}
	return window_resize(sb, win, bytes);
}

void *sbpf_sandbox_ptr(struct sbpf_sandbox *sb, enum sbpf_window win)
{
	if ((unsigned int)win >= SBPF_WINDOWS)
		return NULL;
	return (sbpf_window_writable(win) ? sb->base : sb->alias) + windows[win].offset;
}

uint64_t sbpf_sandbox_size(const struct sbpf_sandbox *sb, enum sbpf_window win)
{
	return (unsigned int)win < SBPF_WINDOWS ? sb->size[win] : 0;
}

static int window_zero(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t dirty)
{
	uint64_t size = sb->size[win];
	uint64_t clear = whole_pages(dirty < size ? dirty : size);

	/* An arena's pages are dearer to replace than to clear. */
	if (size - clear <= CLEAR_MAX || sb->arena)
		clear = size;
	memset(sbpf_sandbox_ptr(sb, win), 0, clear);
	return clear < size ? window_drop(sb, win, clear, size) : 0;
}

int sbpf_sandbox_zero(struct sbpf_sandbox *sb, enum sbpf_window win, uint64_t dirty)
{
	if (!window_foreign(win))
		return -EINVAL;
	if (win == SBPF_WIN_IN && sb->in_file) {
		uint64_t size = sb->size[win];
		int r = file_unmap(sb);

		return r ? r : window_resize(sb, win, size);
	}
	return window_zero(sb, win, dirty);
}

/* Put [offset, offset + size) of the file where the window is. */
static int file_map(struct sbpf_sandbox *sb, int fd, uint64_t offset, uint64_t size)
{
	uint8_t *at = sb->base + windows[SBPF_WIN_IN].offset;
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_NORESERVE;
	void *p;
	int r;

	if (sb->in_file) {
		/* The file's next piece, as a rule; one call is cheaper than the two below. */
		if (mmap(at, size, prot, flags | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED)
			return 0;
		sb->lost = true;
		return -errno;
	}
	/* Elsewhere first: a file that cannot be mapped must not cost the window its pages. */
	p = mmap(NULL, size, prot, flags, fd, (off_t)offset);
	if (p == MAP_FAILED)
		return -errno;
	if (mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
		return 0;
	r = -errno;
	sb->lost = true;
	munmap(p, size);
	return r;
}

int sbpf_sandbox_map(struct sbpf_sandbox *sb, int fd, uint64_t offset, uint64_t bytes)
{
	const enum sbpf_window win = SBPF_WIN_IN;
	uint64_t size = whole_pages(bytes), old = sb->size[win];
	int r;

	if (offset % SBPF_PAGE || !bytes || offset > INT64_MAX - SBPF_SPACE)
		return -EINVAL;
	if (bytes > windows[win].max)
		return -ENOSPC;
	if (sb->arena)
		return -EOPNOTSUPP;
	if (sb->running)
		return -EBUSY;
	if (sb->lost)
		return -ENOMEM;
	r = file_map(sb, fd, offset, size);
	if (r)
		return r;
	if (size < old)
		r = sb->in_file ? file_drop(sb, size, old) : window_shrink(sb, win, size);
	if (r)
		sb->lost = true;
	sb->size[win] = size;
	sb->in_file = true;
	return r;
}

/* ---- freeing ---- */

/* An emulator takes a tenth of a second for a reservation, so there empty ones are kept. */
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sbpf_sandbox *kept;

static void unmap(struct sbpf_sandbox *sb)
{
	if (sb->arena) {
		sbpf_arena_unload(sb->arena);
		sbpf_arena_close(sb->arena);
		free(sb);
		return;
	}
	if (sb->base && !sb->lost)
		munmap(sb->base - SBPF_GUARD, SBPF_SPACE + 2 * SBPF_GUARD);
	if (sb->alias)
		munmap(sb->alias, SBPF_WRITABLE_FROM);
	free(sb);
}

/* One that a fork copied shares its read-only pages with the parent's: not ours to use. */
static bool is_copy(const struct sbpf_sandbox *sb)
{
	return sb->forks != atomic_load_explicit(&forks, memory_order_relaxed);
}

static struct sbpf_sandbox *kept_take(void)
{
	struct sbpf_sandbox *sb;

	pthread_mutex_lock(&kept_lock);
	while ((sb = kept)) {
		kept = sb->next;
		sb->next = NULL;
		if (!is_copy(sb))
			break;
		unmap(sb);
	}
	pthread_mutex_unlock(&kept_lock);
	return sb;
}

static bool kept_put(struct sbpf_sandbox *sb)
{
	if (sb->arena || !sb->base || !sb->alias || is_copy(sb))
		return false;
	if (sb->in_file)
		file_unmap(sb);
	for (unsigned int win = 0; win < SBPF_WINDOWS; win++)
		if (sb->size[win])
			window_shrink(sb, win, 0);
	if (sb->lost)
		return false;
	pthread_mutex_lock(&kept_lock);
	sb->next = kept;
	kept = sb;
	pthread_mutex_unlock(&kept_lock);
	return true;
}

static void sandbox_free(struct sbpf_sandbox *sb)
{
	if (!emulated || !kept_put(sb))
		unmap(sb);
}

void sbpf_sandbox_free(struct sbpf_sandbox *sb)
{
	while (sb) {
		struct sbpf_sandbox *next = sb->next;

		sandbox_free(sb);
		sb = next;
	}
}

/* ---- the runtime's own windows ---- */

static int fill_constants(struct sbpf_sandbox *sb)
{
	const struct sbpf_program *prog = sb->prog;
	uint64_t stack = prog->stack_bytes ? prog->stack_bytes : 1;
	int r = window_resize(sb, SBPF_WIN_RODATA, prog->rodata_len);

	if (!r)
		r = window_resize(sb, SBPF_WIN_DATA, prog->data_total);
	if (!r)
		r = window_resize(sb, SBPF_WIN_STACK, stack);
	if (!r && prog->rodata_len)
		memcpy(sbpf_sandbox_ptr(sb, SBPF_WIN_RODATA), prog->rodata, prog->rodata_len);
	return r;
}

int sbpf_sandbox_reset(struct sbpf_sandbox *sb)
{
	const struct sbpf_program *prog = sb->prog;

	memset(sb->base + windows[SBPF_WIN_STACK].offset, 0, sb->size[SBPF_WIN_STACK]);
	if (sb->size[SBPF_WIN_DATA]) {
		int r = window_zero(sb, SBPF_WIN_DATA, prog->data_len);

		if (r)
			return r;
		if (prog->data_len)
			memcpy(sb->base + windows[SBPF_WIN_DATA].offset, prog->data,
			       prog->data_len);
	}
	return 0;
}

/* ---- the pool ---- */

static unsigned int pool_cap;
/* Loading a program once more takes much longer than making another sandbox. */
#define ARENA_POOL_MIN 8u

static void first_time(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	pool_cap = cores > 0 ? 2 * (unsigned int)cores : 2;
	watch_forks();
	look_for_emulator();
}

static struct sbpf_pool *pool_of(struct sbpf_program *prog, bool arena)
{
	return arena ? &prog->arenas : &prog->pool;
}

static unsigned int cap_of(bool arena)
{
	return arena && pool_cap < ARENA_POOL_MIN ? ARENA_POOL_MIN : pool_cap;
}

static struct sbpf_sandbox *pool_take(struct sbpf_program *prog, bool arena)
{
	struct sbpf_pool *pool = pool_of(prog, arena);
	struct sbpf_sandbox *sb;

	pthread_mutex_lock(&prog->lock);
	sb = pool->idle;
	if (sb) {
		pool->idle = sb->next;
		pool->n--;
		sb->next = NULL;
	}
	pthread_mutex_unlock(&prog->lock);
	return sb;
}

static int make_pages(struct sbpf_sandbox *sb, bool arena)
{
	int r = 0;

	if (arena)
		return open_arena(sb);
	if (!sb->base)
		r = reserve(sb);
	if (!r && !sb->alias)
		r = map_readonly(sb);
	return r;
}

static struct sbpf_sandbox *sandbox_new(struct sbpf_program *prog, bool arena, int *r)
{
	struct sbpf_sandbox *sb = arena ? NULL : kept_take();

	*r = -ENOMEM;
	if (!sb)
		sb = calloc(1, sizeof(*sb));
	if (!sb)
		return NULL;
	sb->prog = prog;
	sb->forks = atomic_load_explicit(&forks, memory_order_relaxed);
	*r = make_pages(sb, arena);
	if (!*r)
		*r = fill_constants(sb);
	if (*r) {
		sandbox_free(sb);
		return NULL;
	}
	return sb;
}

int sbpf_sandbox_get_for(struct sbpf_program *prog, enum sbpf_tier tier, struct sbpf_sandbox **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	bool arena = tier == SBPF_TIER_KERNEL;
	struct sbpf_sandbox *sb;
	int r = 0;

	pthread_once(&once, first_time);
	sbpf_fault_install();
	*out = NULL;
	while ((sb = pool_take(prog, arena)) && is_copy(sb))
		sandbox_free(sb);
	if (!sb)
		sb = sandbox_new(prog, arena, &r);
	if (!sb)
		return r;
	sbpf_program_ref(prog);
	*out = sb;
	return 0;
}

int sbpf_sandbox_get(struct sbpf_program *prog, struct sbpf_sandbox **out)
{
	return sbpf_sandbox_get_for(prog, SBPF_TIER_AUTO, out);
}

/* An arena's pages go one by one and dear: it keeps them, or goes altogether. */
static bool arena_too_large(const struct sbpf_sandbox *sb)
{
	uint64_t sum = 0;

	for (unsigned int win = 0; win < SBPF_WINDOWS; win++)
		sum += sb->arena->has[win];
	return sum > ARENA_IDLE_MAX;
}

/* What an idle sandbox must not hold on to: a file, or much memory. */
static void make_idle(struct sbpf_sandbox *sb)
{
	if (sb->arena) {
		sb->lost |= arena_too_large(sb);
		return;
	}
	if (sb->in_file)
		file_unmap(sb);
	for (unsigned int win = 0; win < SBPF_WINDOWS; win++)
		if (window_foreign(win) && sb->size[win] > IDLE_MAX)
			window_shrink(sb, win, 0);
}

void sbpf_sandbox_put(struct sbpf_sandbox *sb)
{
	struct sbpf_program *prog;
	struct sbpf_pool *pool;

	if (!sb)
		return;
	prog = sb->prog;
	pool = pool_of(prog, sb->arena);
	make_idle(sb);
	pthread_mutex_lock(&prog->lock);
	if (!sb->lost && pool->n < cap_of(sb->arena)) {
		sb->next = pool->idle;
		pool->idle = sb;
		pool->n++;
		sb = NULL;
	}
	pthread_mutex_unlock(&prog->lock);
	if (sb)
		sandbox_free(sb);
	sbpf_program_unref(prog);
}
