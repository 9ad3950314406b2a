/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When memory runs out, at whatever point, a call fails with -ENOMEM (or does without), frees all it
 * had, and the next call works.
 *
 * This program's malloc and mmap come before the C library's, so those of libelf, zlib and zstd fail
 * as well.  A sanitizer needs that place for itself: with one, there is nothing to see here.
 */
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "fault/fixture.h"
#include "lambda/lambda.h"
#include "lambdaio/sbpf.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED

int main(void)
{
	puts("1..0 # SKIP the sanitizer has the place of the malloc that fails");
	return 0;
}

#else

/* ---- allocations that fail ---- */

static atomic_long live;    /* blocks and mappings that exist */
static atomic_long fail_in; /* the one that fails: counted down to 0; idle below */
static atomic_bool armed, fail_rest, fired;
/* A mapping over another one failed: what was below may be gone and somebody else's by now, so it is given up. */
static atomic_bool given_up;

static bool fails(void)
{
	if (!atomic_load(&armed))
		return false;
	if (atomic_fetch_sub(&fail_in, 1) != 1 && !(atomic_load(&fired) && atomic_load(&fail_rest)))
		return false;
	atomic_store(&fired, true);
	errno = ENOMEM;
	return true;
}

#define INTERPOSE __attribute__((visibility("default"), used))

void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t len);
void *__libc_realloc(void *p, size_t len);
void *__libc_memalign(size_t align, size_t len);
void __libc_free(void *p);

static void *counted(void *p)
{
	if (p)
		atomic_fetch_add(&live, 1);
	return p;
}

INTERPOSE void *malloc(size_t len)
{
	return fails() ? NULL : counted(__libc_malloc(len));
}

INTERPOSE void *calloc(size_t n, size_t len)
{
	return fails() ? NULL : counted(__libc_calloc(n, len));
}

INTERPOSE void *realloc(void *p, size_t len)
{
	void *q = fails() ? NULL : __libc_realloc(p, len);

	return p ? q : counted(q);
}

INTERPOSE void *aligned_alloc(size_t align, size_t len)
{
	return fails() ? NULL : counted(__libc_memalign(align, len));
}

INTERPOSE int posix_memalign(void **out, size_t align, size_t len)
{
	*out = aligned_alloc(align, len);
	return *out ? 0 : ENOMEM;
}

INTERPOSE void free(void *p)
{
	if (p)
		atomic_fetch_sub(&live, 1);
	__libc_free(p);
}

/* A mapping is not counted: it may be unmapped in parts. */
static void *mapping(void *at, size_t len, int prot, int flags, int fd, int64_t off)
{
	if (!fails())
		return (void *)syscall(SYS_mmap, at, len, prot, flags, fd, off);
	if (flags & MAP_FIXED)
		atomic_store(&given_up, true);
	return MAP_FAILED;
}
INTERPOSE void *map32(void *, size_t, int, int, int, int64_t) __asm__("mmap");
INTERPOSE void *map64(void *, size_t, int, int, int, int64_t) __asm__("mmap64");

void *map32(void *at, size_t len, int prot, int flags, int fd, int64_t off)
{
	return mapping(at, len, prot, flags, fd, off);
}

void *map64(void *at, size_t len, int prot, int flags, int fd, int64_t off)
{
	return mapping(at, len, prot, flags, fd, off);
}

/* Splitting a mapping takes memory, too; to forbid access or to undo cannot be refused in practice. */
INTERPOSE int mprotect(void *at, size_t len, int prot)
{
	return prot != PROT_NONE && fails() ? -1 : (int)syscall(SYS_mprotect, at, len, prot);
}

/* ---- what is tried ---- */

struct scene {
	uint8_t *image;
	size_t image_len;
	struct lio_run_opts opts;
	const char *input;
	int flags; /* to open it with */
};

/* 0 or -errno, and all that it made is gone. */
typedef int (*attempt)(struct scene *s);

static long mappings(void)
{
	static char buf[1 << 20];
	int fd = open("/proc/self/maps", O_RDONLY);
	long lines = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	close(fd);
	return lines;
}

static void survives(const char *what, attempt try, struct scene *s, int rest)
{
	long blocks, maps, n;
	int fds, rc;

	for (int i = 0; i < 3; i++) { /* what is made once in a process is made now */
		rc = try(s);
		if (rc)
			fail_msg("%s: %s before any failure: %s", what, lio_errname(rc),
				 lio_error());
	}
	blocks = atomic_load(&live);
	maps = mappings();
	fds = descriptors();
	for (n = 1; n < 100000; n++) {
		atomic_store(&fired, false);
		atomic_store(&given_up, false);
		atomic_store(&fail_in, n);
		atomic_store(&fail_rest, rest);
		atomic_store(&armed, true);
		rc = try(s);
		atomic_store(&armed, false);
		if (atomic_load(&live) != blocks)
			fail_msg("%s: %ld blocks leaked after failure %ld", what,
				 atomic_load(&live) - blocks, n);
		if (descriptors() != fds)
			fail_msg("%s: a descriptor leaked after failure %ld", what, n);
		/* The C library may keep a few more of its own. */
		if (atomic_load(&given_up))
			maps = mappings();
		else if (mappings() > maps + 4)
			fail_msg("%s: %ld mappings leaked after failure %ld", what,
				 mappings() - maps, n);
		if (!atomic_load(&fired))
			break;
		if (rc && rc != -ENOMEM)
			fail_msg("%s: failure %ld gives %s: %s", what, n, lio_errname(rc),
				 lio_error());
	}
	assert_int_equal(rc, 0);
	assert_true(n > 1);
	print_message("# %s: %ld places\n", what, n - 1);
}

static void survives_both(const char *what, attempt try, struct scene *s)
{
	survives(what, try, s, false);
	survives(what, try, s, true);
}

/* ---- loading ---- */

static int try_elf(struct scene *s)
{
	struct sbpf_load_opts opts = {.size = sizeof(opts), .note_prefix = ".lambda."};
	struct sbpf_program *prog;
	struct sbpf_error err;
	int rc = sbpf_program_from_elf(s->image, s->image_len, &opts, &prog, &err);

	if (!rc)
		sbpf_program_unref(prog);
	return rc;
}

static int try_compile(struct scene *s)
{
	static const enum sbpf_tier tiers[] = {SBPF_TIER_INTERP, SBPF_TIER_AUTO};
	struct sbpf_load_opts opts = {.size = sizeof(opts), .note_prefix = ".lambda."};
	struct sbpf_program *prog;
	struct sbpf_error err;
	int rc = sbpf_program_from_elf(s->image, s->image_len, &opts, &prog, &err);

	if (rc)
		return rc;
	for (size_t i = 0; !rc && i < 2; i++)
		rc = sbpf_program_compile(prog, tiers[i], NULL, &err);
	sbpf_program_unref(prog);
	return rc;
}

static int try_function(struct scene *s)
{
	struct lambda_function *fn;
	struct lambda_error err;
	int rc = lambda_function_load(s->image, s->image_len, &fn, &err);

	if (!rc)
		lambda_function_free(fn);
	return rc;
}

static int try_load(struct scene *s)
{
	struct lio_function *fn;
	int rc = lio_load("lines", &fn);

	lio_unload(fn);
	return rc;
}

static int try_args(struct scene *s)
{
	struct lio_function *fn;
	size_t len;
	void *arg;
	int rc = lio_load("lines", &fn);

	if (rc)
		return rc;
	rc = lio_args(fn, (const char *const[]){"first=7"}, 1, &arg, &len);
	if (!rc)
		free(arg);
	lio_unload(fn);
	return rc;
}

static void loading_survives_the_lack_of_memory_at_every_point(void **state)
{
	struct scene s = {0};
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/lines.o", getenv("LIO_FUNCTIONS"));
	f = fopen(path, "r");
	assert_non_null(f);
	s.image = malloc(MIB);
	s.image_len = fread(s.image, 1, MIB, f);
	fclose(f);
	survives_both("sbpf_program_from_elf", try_elf, &s);
	survives_both("sbpf_program_compile", try_compile, &s);
	survives_both("lambda_function_load", try_function, &s);
	survives_both("lio_load", try_load, &s);
	survives_both("lio_args", try_args, &s);
	free(s.image);
}

/* ---- files and runs ---- */

#define LEN (700u * KIB)

static int try_open(struct scene *s)
{
	struct lio_file *file;
	int rc = lio_open(in_dir("plain"), O_RDONLY, 0, &file);

	lio_close(file);
	return rc;
}

/* A function and files from nothing to nothing, with what @s says. */
static int with_files(struct scene *s, const char *name,
		      int64_t (*run)(struct scene *s, struct lio_function *fn, struct lio_file *in,
				     struct lio_file *out))
{
	struct lio_function *fn = NULL;
	struct lio_file *in = NULL, *out = NULL;
	int64_t rc = lio_load(name, &fn);

	if (!rc)
		rc = lio_open(in_dir(s->input), O_RDONLY | s->flags, 0, &in);
	if (!rc)
		rc = lio_open(in_dir("out"), O_RDWR | O_CREAT, 0600, &out);
	if (!rc)
		rc = run(s, fn, in, out);
	lio_close(out);
	lio_close(in);
	lio_unload(fn);
	return rc < 0 ? (int)rc : 0;
}

static int64_t read_all(struct scene *s, struct lio_function *fn, struct lio_file *in,
			struct lio_file *out)
{
	static uint8_t buf[2 * LEN];

	return lio_lambda_read(in, fn, 0, LIO_TO_END, &s->opts, buf, sizeof(buf), NULL);
}

static int count_bytes(void *arg, const void *p, size_t len)
{
	*(size_t *)arg += len;
	return 0;
}

static int64_t scan_all(struct scene *s, struct lio_function *fn, struct lio_file *in,
			struct lio_file *out)
{
	size_t n = 0;
	struct lio_sink sink = {.size = sizeof(sink), .write = count_bytes, .arg = &n};
	int rc = lio_lambda_scan(in, fn, 0, LIO_TO_END, &s->opts, &sink, NULL);

	return rc || n ? rc : -EIO;
}

static int64_t write_all(struct scene *s, struct lio_function *fn, struct lio_file *in,
			 struct lio_file *out)
{
	return lio_lambda_write(out, 0, fn, in, 0, LIO_TO_END, &s->opts, NULL);
}

static int try_read(struct scene *s)
{
	return with_files(s, "echo", read_all);
}

static int try_fold(struct scene *s)
{
	return with_files(s, "total", read_all);
}

static int try_scan(struct scene *s)
{
	return with_files(s, "lines", scan_all);
}

static int try_write(struct scene *s)
{
	return with_files(s, "lines", write_all);
}

static void running_survives_the_lack_of_memory_at_every_point(void **state)
{
	struct scene s = {.opts = {.size = sizeof(s.opts), .threads = 1}, .input = "plain"};
	char *text = malloc(LEN);

	for (size_t i = 0; i < LEN; i++)
		text[i] = i % 50 == 49 ? '\n' : 'a';
	put("plain", text, LEN);
	free(text);
	survives_both("lio_open", try_open, &s);
	survives_both("lio_lambda_read", try_read, &s);
	s.opts.chunk = 64 * KIB;
	survives_both("lio_lambda_read, pieces", try_read, &s);
	survives_both("lio_lambda_read, fold", try_fold, &s);
	survives_both("lio_lambda_scan", try_scan, &s);
	survives_both("lio_lambda_write", try_write, &s);
	s.flags = O_DIRECT;
	survives_both("lio_lambda_read, O_DIRECT", try_read, &s);
	s.flags = 0;
	s.opts.threads = 3;
	survives("lio_lambda_read, threads", try_read, &s, true);
}

static void compressed_input_survives_the_lack_of_memory_at_every_point(void **state)
{
	struct scene s = {.opts = {.size = sizeof(s.opts), .threads = 1}};
	char cmd[256];

	put("plain", "plain text, again and again and again", 37);
	snprintf(cmd, sizeof(cmd), "cd '%s' && gzip -k plain && zstd -q plain", fixture_dir);
	if (system(cmd))
		skip();
	s.input = "plain.gz";
	survives_both("gzip", try_read, &s);
	s.input = "plain.zst";
	survives_both("zstd", try_read, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loading_survives_the_lack_of_memory_at_every_point),
		cmocka_unit_test(running_survives_the_lack_of_memory_at_every_point),
		cmocka_unit_test(compressed_input_survives_the_lack_of_memory_at_every_point),
	};

	return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}

#endif
