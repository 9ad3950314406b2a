/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixture.h - what tests of the host API share: a directory that goes away, files in it, functions.
 *
 * Functions are those of tests/fault/NAME.bpf.c, found by name through $LIO_FUNCTIONS.
 */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "lambdaio/lambdaio.h"

#define KIB 1024u
#define MIB (1024u * KIB)

/* A call that must succeed, or show why it did not. */
#define OK(call)                                                                            \
	do {                                                                                \
		int64_t ok_ = (call);                                                       \
		if (ok_ < 0)                                                                \
			fail_msg("%s: %s (%s)", #call, lio_error(), lio_errname((int)ok_)); \
	} while (0)

/* A call that must fail with @code and a line that has @word in it. */
#define RUN_FAILS(call, code, word)                                                         \
	do {                                                                                \
		int64_t rc_ = (call);                                                       \
		if (rc_ != (code))                                                          \
			fail_msg("%s: %s instead of %s: %s", #call, lio_errname((int)rc_),  \
				 lio_errname(code), lio_error());                           \
		if (!strstr(lio_error(), word) || strchr(lio_error(), '\n'))                \
			fail_msg("%s: text \"%s\" lacks \"%s\"", #call, lio_error(), word); \
	} while (0)

/* The same with a text of the whole form "WHAT: WHY; FIX". */
#define FAILS(call, code, word)                                                                \
	do {                                                                                   \
		RUN_FAILS(call, code, word);                                                   \
		if (!strstr(lio_error(), ": ") || !strstr(lio_error(), "; "))                  \
			fail_msg("%s: text \"%s\" is not WHAT: WHY; FIX", #call, lio_error()); \
	} while (0)

static char fixture_dir[64];

/* A name in the test's directory; a few at a time. */
static inline const char *in_dir(const char *name)
{
	static char paths[8][128];
	static unsigned int next;
	char *p = paths[next++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", fixture_dir, name);
	return p;
}

static inline int fixture_up(void **state)
{
	(void)state;
	strcpy(fixture_dir, "/tmp/lambdaio-test.XXXXXX");
	return mkdtemp(fixture_dir) ? 0 : -1;
}

static inline int fixture_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int fixture_down(void **state)
{
	(void)state;
	return nftw(fixture_dir, fixture_remove, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static inline void put(const char *name, const void *bytes, size_t len)
{
	int fd;

	unlink(in_dir(name)); /* truncating would wait for the disk on some file systems */
	fd = open(in_dir(name), O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)bytes + done, len - done);

		assert_true(n > 0);
		done += (size_t)n;
	}
	close(fd);
}

/* A file's bytes with a 0 behind them, to be freed. */
static inline char *get(const char *name, size_t *len)
{
	int fd = open(in_dir(name), O_RDONLY);
	struct stat st;
	char *p;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	p = calloc(1, (size_t)st.st_size + 1);
	assert_non_null(p);
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	close(fd);
	*len = (size_t)st.st_size;
	return p;
}

static inline struct lio_file *open_in(const char *name, int flags)
{
	struct lio_file *file;

	OK(lio_open(in_dir(name), flags, 0600, &file));
	return file;
}

static inline struct lio_function *load(const char *name)
{
	struct lio_function *fn;

	OK(lio_load(name, &fn));
	return fn;
}

/* Bytes that are the same everywhere and do not compress. */
static inline uint8_t *noise(size_t len)
{
	uint8_t *p = malloc(len + 1);
	uint64_t x = 88172645463325252u;

	assert_non_null(p);
	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)(x >> 32);
	}
	return p;
}

/* A sink that keeps all. */
struct kept {
	uint8_t *bytes;
	size_t len;
	size_t calls;
};

static inline int keep(void *arg, const void *p, size_t len)
{
	struct kept *k = arg;

	k->bytes = realloc(k->bytes, k->len + len);
	assert_non_null(k->bytes);
	memcpy(k->bytes + k->len, p, len);
	k->len += len;
	k->calls++;
	return 0;
}

/* Descriptors this process has open. */
static inline int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

#endif /* TESTS_FIXTURE_H */
