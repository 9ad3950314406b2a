/* SPDX-License-Identifier: Apache-2.0 */
/*
 * code_cache.c - the optimizing compiler's answers, kept in files of the user's own.
 *
 * What is read here is run, so it must be what we wrote.  The directory and every file belong to the effective user
 * and nobody else may even read them; every file carries an HMAC-SHA256 over its key and contents with a random secret that
 * lies in the directory as well.  Whatever is off (owner, mode, a link, a length, a version, the HMAC) is as if it were
 * not there: it is compiled again and the file replaced.  A file's key is a hash of all that its contents depend on.
 *
 * $LIO_CODE_CACHE names the directory, or is "off"; else it is lambda-io in $XDG_CACHE_HOME or ~/.cache.  A process with
 * more rights than its caller has no cache.
 *
 * Files are written under another name and renamed, so a reader sees all of one or nothing, whoever else writes.
 */
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sbpf/tier_llvm.h"

#define SECRET_FILE "secret"
#define SECRET      32u
#define HMAC_BYTES  32u
#define NAME        (2 * SBPF_CACHE_KEY + 1)
#define CACHE_BYTES (64ull << 20) /* of all files; the ones used longest ago go first */
#define CACHE_FILES 4096u
#define TMP_SECONDS 3600 /* after which what a writer left behind is nobody's */

struct header {
	char magic[8];
	uint64_t len; /* of the answer behind it */
	uint8_t key[SBPF_CACHE_KEY];
	uint8_t hmac[HMAC_BYTES]; /* over all in front of it and the answer */
};

static const char magic[8] = "lioCode1";

/* ---- the key ---- */

struct cpu {
	uint32_t regs[6][4];
	uint64_t xcr0; /* which registers the system keeps */
};

/* What LLVM asks of the CPU, but for what differs from core to core (leaf 1, EBX). */
static void describe_cpu(struct cpu *cpu)
{
	static const uint32_t leaves[6][2] = {{0, 0}, {1, 0},          {7, 0},
					      {7, 1}, {0x80000001, 0}, {0x80000008, 0}};

	memset(cpu, 0, sizeof(*cpu));
	for (unsigned int i = 0; i < 6; i++) {
		uint32_t *r = cpu->regs[i];

		__get_cpuid_count(leaves[i][0], leaves[i][1], &r[0], &r[1], &r[2], &r[3]);
	}
	cpu->regs[1][1] = 0;
	cpu->regs[5][0] = cpu->regs[5][2] = cpu->regs[5][3] = 0;
	if (cpu->regs[1][2] & bit_OSXSAVE) {
		uint32_t lo, hi;

		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		cpu->xcr0 = (uint64_t)hi << 32 | lo;
	}
}

static const char *named_dir(void)
{
	const char *named = secure_getenv("LIO_CODE_CACHE");

	return named && *named ? named : NULL;
}

static bool find_dir(char *path, size_t size, bool *own)
{
	const char *named = named_dir(), *base = secure_getenv("XDG_CACHE_HOME"), *tail = "";
	int n;

	*own = named;
	if (named && named[0] != '/') /* "off", and what cannot be one */
		return false;
	if (!named && (!base || base[0] != '/')) {
		base = secure_getenv("HOME");
		tail = "/.cache";
	}
	if (!named && (!base || base[0] != '/'))
		return false;
	n = named ? snprintf(path, size, "%s", named)
		  : snprintf(path, size, "%s%s/lambda-io", base, tail);
	return n > 0 && (size_t)n < size;
}

bool sbpf_cache_key(const void *question, size_t len, const char *compiler,
		    uint8_t key[SBPF_CACHE_KEY])
{
	EVP_MD_CTX *md;
	char path[4096];
	struct stat st;
	struct cpu cpu;
	bool own, ok;

	if (!find_dir(path, sizeof(path), &own) || stat(compiler, &st))
		return false;
	describe_cpu(&cpu);
	md = EVP_MD_CTX_new();
	/* The question names our version and build; the compiler's file tells one that was replaced. */
	ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
	     EVP_DigestUpdate(md, SBPF_LLVM_RELEASE, sizeof(SBPF_LLVM_RELEASE)) &&
	     EVP_DigestUpdate(md, &cpu, sizeof(cpu)) &&
	     EVP_DigestUpdate(md, &st.st_size, sizeof(st.st_size)) &&
	     EVP_DigestUpdate(md, &st.st_mtim, sizeof(st.st_mtim)) &&
	     EVP_DigestUpdate(md, question, len) && EVP_DigestFinal_ex(md, key, NULL);
	EVP_MD_CTX_free(md);
	return ok;
}

/* ---- files that are the user's alone ---- */

static bool is_private(const struct stat *st, mode_t type)
{
	return (st->st_mode & S_IFMT) == type && st->st_uid == geteuid() && !(st->st_mode & 077);
}

static int open_dir(bool make)
{
	char path[4096];
	struct stat st;
	bool own;
	int fd;

	if (!find_dir(path, sizeof(path), &own))
		return -1;
	if (make && mkdir(path, 0700) && errno == ENOENT && !own) {
		char *slash = strrchr(path, '/'); /* ~/.cache, as the specification wants it */

		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
		mkdir(path, 0700);
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) || !is_private(&st, S_IFDIR))) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool read_all(int fd, void *p, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (uint8_t *)p + done, len - done);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool write_all(int fd, const void *p, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const uint8_t *)p + done, len - done);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

/* One of our files; its length in *len. */
static int open_file(int dir, const char *name, size_t *len)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || !is_private(&st, S_IFREG) || st.st_nlink != 1 || st.st_size <= 0 ||
	    st.st_size > SBPF_LLVM_MAX_IMAGE) {
		close(fd);
		return -1;
	}
	*len = (size_t)st.st_size;
	return fd;
}

/* A new file of a name nobody knows, with @parts in it; its name in @tmp. */
static bool write_tmp(int dir, char tmp[32], const void *a, size_t a_len, const void *b,
		      size_t b_len)
{
	uint64_t random;
	bool ok;
	int fd;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return false;
	snprintf(tmp, 32, "tmp.%016llx", (unsigned long long)random);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	ok = write_all(fd, a, a_len) && write_all(fd, b, b_len);
	ok = !close(fd) && ok;
	if (!ok)
		unlinkat(dir, tmp, 0);
	return ok;
}

/* ---- the secret ---- */

static bool read_secret(int dir, uint8_t secret[SECRET])
{
	size_t len;
	int fd = open_file(dir, SECRET_FILE, &len);
	bool ok = fd >= 0 && len == SECRET && read_all(fd, secret, SECRET);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* The first one to link it wins; one that cannot be used is replaced, and all that was signed with it is void. */
static bool make_secret(int dir, uint8_t secret[SECRET])
{
	char tmp[32];

	if (getrandom(secret, SECRET, 0) != SECRET || !write_tmp(dir, tmp, secret, SECRET, NULL, 0))
		return false;
	if (linkat(dir, tmp, dir, SECRET_FILE, 0)) {
		if (read_secret(dir, secret)) {
			unlinkat(dir, tmp, 0);
			return true;
		}
		return !renameat(dir, tmp, dir, SECRET_FILE);
	}
	unlinkat(dir, tmp, 0);
	return true;
}

static bool sign(const uint8_t secret[SECRET], const struct header *h, const void *answer,
		 uint8_t mac[HMAC_BYTES])
{
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, secret, SECRET);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	size_t n = HMAC_BYTES;
	bool ok = key && md && EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
		  EVP_DigestSignUpdate(md, h, offsetof(struct header, hmac)) == 1 &&
		  EVP_DigestSignUpdate(md, answer, h->len) == 1 &&
		  EVP_DigestSignFinal(md, mac, &n) == 1 && n == HMAC_BYTES;

	EVP_MD_CTX_free(md);
	EVP_PKEY_free(key);
	return ok;
}

/* ---- get ---- */

static void name_of(const uint8_t key[SBPF_CACHE_KEY], char name[NAME])
{
	for (unsigned int i = 0; i < SBPF_CACHE_KEY; i++)
		snprintf(name + 2 * i, 3, "%02x", key[i]);
}

static uint8_t *read_entry(int fd, size_t size, const uint8_t key[SBPF_CACHE_KEY],
			   const uint8_t secret[SECRET], size_t *len)
{
	uint8_t mac[HMAC_BYTES], *answer;
	struct header h;

	if (size <= sizeof(h) || !read_all(fd, &h, sizeof(h)) ||
	    memcmp(h.magic, magic, sizeof(magic)) != 0 || h.len != size - sizeof(h) ||
	    memcmp(h.key, key, SBPF_CACHE_KEY) != 0)
		return NULL;
	answer = malloc(h.len);
	if (!answer)
		return NULL;
	if (!read_all(fd, answer, h.len) || !sign(secret, &h, answer, mac) ||
	    CRYPTO_memcmp(mac, h.hmac, HMAC_BYTES) != 0) {
		free(answer);
		return NULL;
	}
	*len = h.len;
	return answer;
}

uint8_t *sbpf_cache_get(const uint8_t key[SBPF_CACHE_KEY], size_t *len)
{
	uint8_t secret[SECRET], *answer = NULL;
	int dir = open_dir(false), fd;
	char name[NAME];
	size_t size;

	if (dir < 0)
		return NULL;
	name_of(key, name);
	fd = open_file(dir, name, &size);
	if (fd >= 0 && read_secret(dir, secret))
		answer = read_entry(fd, size, key, secret, len);
	if (answer)
		futimens(fd, NULL); /* what is used stays */
	if (fd >= 0)
		close(fd);
	close(dir);
	return answer;
}

/* ---- put ---- */

struct kept {
	char name[NAME];
	struct timespec used;
	uint64_t bytes;
};

static int by_use(const void *a, const void *b)
{
	const struct timespec *x = &((const struct kept *)a)->used;
	const struct timespec *y = &((const struct kept *)b)->used;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* Files by their use, what writers left behind removed on the way. */
static size_t list(int dir, struct kept *kept, uint64_t *bytes)
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	time_t now = time(NULL);
	struct dirent *e;
	size_t n = 0;

	*bytes = 0;
	while (d && n < CACHE_FILES && (e = readdir(d))) {
		struct stat st;

		if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		if (!strncmp(e->d_name, "tmp.", 4) && now - st.st_mtim.tv_sec > TMP_SECONDS)
			unlinkat(dir, e->d_name, 0);
		if (strlen(e->d_name) != NAME - 1)
			continue;
		strcpy(kept[n].name, e->d_name);
		kept[n].used = st.st_mtim;
		kept[n++].bytes = (uint64_t)st.st_size;
		*bytes += (uint64_t)st.st_size;
	}
	if (d)
		closedir(d);
	else if (copy >= 0)
		close(copy);
	qsort(kept, n, sizeof(*kept), by_use);
	return n;
}

uint64_t sbpf_cache_bytes = CACHE_BYTES;

static void evict(int dir, uint64_t room)
{
	struct kept *kept = malloc(CACHE_FILES * sizeof(*kept));
	uint64_t bytes;
	size_t n;

	if (!kept)
		return;
	n = list(dir, kept, &bytes);
	for (size_t i = 0; i < n && (bytes + room > sbpf_cache_bytes || n - i >= CACHE_FILES); i++)
		if (!unlinkat(dir, kept[i].name, 0))
			bytes -= kept[i].bytes;
	free(kept);
}

void sbpf_cache_put(const uint8_t key[SBPF_CACHE_KEY], const void *answer, size_t len)
{
	struct header h = {.len = len};
	char name[NAME], tmp[32];
	uint8_t secret[SECRET];
	int dir = open_dir(true);

	if (dir < 0)
		return;
	memcpy(h.magic, magic, sizeof(magic));
	memcpy(h.key, key, SBPF_CACHE_KEY);
	name_of(key, name);
	if (len + sizeof(h) <= sbpf_cache_bytes / 4 &&
	    (read_secret(dir, secret) || make_secret(dir, secret)) &&
	    sign(secret, &h, answer, h.hmac)) {
		evict(dir, len + sizeof(h));
		if (write_tmp(dir, tmp, &h, sizeof(h), answer, len) &&
		    renameat(dir, tmp, dir, name))
			unlinkat(dir, tmp, 0);
	}
	close(dir);
}
