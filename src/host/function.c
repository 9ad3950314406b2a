/* SPDX-License-Identifier: Apache-2.0 */
/*
 * function.c - functions: finding them by name, loading, describing, packing arguments.
 *
 * Shipped functions are looked for in $LIO_FUNCTIONS, then where this library was installed or built.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#define OPENSSL_SUPPRESS_DEPRECATED /* the EVP interface allocates */
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"

#define OBJECT_MAX (64u << 20) /* bytes of an object file */
#define NAME_LEN   64u         /* longest name of a shipped function */
#define NEAR_MAX   3u          /* names offered when one is unknown */

/* ---- where the shipped ones are ---- */

static char shipped[PATH_MAX];
static pthread_once_t shipped_once = PTHREAD_ONCE_INIT;

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

static bool shipped_try(const char *dir, const char *rel)
{
	struct stat st;
	int n = snprintf(shipped, sizeof(shipped), "%s/%s", dir, rel);

	if (n < (int)sizeof(shipped) && !stat(shipped, &st) && S_ISDIR(st.st_mode))
		return true;
	shipped[0] = 0;
	return false;
}

/* Relative to the library itself, so that a tree can be moved as a whole. */
static void shipped_find(void)
{
	char self[PATH_MAX], *slash;
	Dl_info info;

	if (!dladdr((void *)(uintptr_t)lio_version, &info) || !realpath(info.dli_fname, self))
		return;
	slash = strrchr(self, '/');
	*slash = 0;
	if (shipped_try(self, "lambdaio/functions"))
		return;
	if (ends_in(self, "/src/host")) /* the library in a build tree */
		shipped_try(self, "../../functions");
	else /* a program that holds the library, in a build tree or in a prefix */
		(void)(shipped_try(self, "../functions") ||
		       shipped_try(self, "../lib/lambdaio/functions"));
}

static const char *env_dir(void)
{
	const char *dir = getenv("LIO_FUNCTIONS");

	return dir && *dir ? dir : NULL;
}

static const char *shipped_dir(void)
{
	pthread_once(&shipped_once, shipped_find);
	return shipped;
}

const char *lio_functions_dir(void)
{
	const char *dir = env_dir();

	return dir ? dir : shipped_dir();
}

/* ---- an unknown name: which ones are close ---- */

/* Edits that turn @a into @b (insert, delete, replace, swap neighbours), by rows of the usual matrix. */
static unsigned int distance(const char *a, const char *b)
{
	unsigned int n = (unsigned int)strlen(b), row[3][NAME_LEN + 1];
	unsigned int *two = row[0], *one = row[1], *now = row[2], *next;

	for (unsigned int j = 0; j <= n; j++)
		one[j] = two[j] = j;
	for (unsigned int i = 1; a[i - 1]; i++) {
		now[0] = i;
		for (unsigned int j = 1; j <= n; j++) {
			unsigned int d = one[j - 1] + (a[i - 1] != b[j - 1]);

			d = d < one[j] + 1 ? d : one[j] + 1;
			d = d < now[j - 1] + 1 ? d : now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d = d < two[j - 2] + 1 ? d : two[j - 2] + 1;
			now[j] = d;
		}
		next = two;
		two = one;
		one = now;
		now = next;
	}
	return one[n];
}

struct near {
	struct {
		char name[NAME_LEN + 1];
		unsigned int dist;
	} best[NEAR_MAX]; /* the closest first */
	unsigned int n;
};

static void near_add(struct near *near, const char *name, unsigned int dist)
{
	unsigned int i;

	for (i = 0; i < near->n; i++)
		if (!strcmp(near->best[i].name, name))
			return;
	for (; i && near->best[i - 1].dist > dist; i--)
		if (i < NEAR_MAX)
			near->best[i] = near->best[i - 1];
	if (i == NEAR_MAX)
		return;
	strcpy(near->best[i].name, name);
	near->best[i].dist = dist;
	near->n += near->n < NEAR_MAX;
}

static void near_scan(struct near *near, const char *dir, const char *name)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char have[NAME_LEN + 1];
		size_t n = strlen(e->d_name);
		unsigned int dist;

		if (n < 3 || n - 2 > NAME_LEN || !ends_in(e->d_name, ".o"))
			continue;
		memcpy(have, e->d_name, n - 2);
		have[n - 2] = 0;
		dist = distance(name, have);
		if (dist <= 2 || strstr(have, name) || strstr(name, have))
			near_add(near, have, dist);
	}
	if (d)
		closedir(d);
}

static int name_unknown(const char *name)
{
	struct near near = {.n = 0};
	char list[NEAR_MAX * (NAME_LEN + 6) + 1] = "";
	size_t at = 0;

	if (strlen(name) <= NAME_LEN) {
		if (env_dir())
			near_scan(&near, env_dir(), name);
		near_scan(&near, shipped_dir(), name);
	}
	for (unsigned int i = 0; i < near.n; i++)
		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s\"%s\"", at ? " or " : "",
				       near.best[i].name);
	if (at)
		return host_fail(
			-ENOENT,
			"function \"%s\": none of this name; did you mean %s?  \"lio functions\" "
			"lists all",
			name, list);
	if (!*lio_functions_dir())
		return host_fail(
			-ENOENT,
			"function \"%s\": the shipped functions were not found; set LIO_FUNCTIONS "
			"to their directory, or give the path of an object file",
			name);
	return host_fail(
		-ENOENT,
		"function \"%s\": none of this name; \"lio functions\" lists all, an object "
		"file is named with a \"/\" or \".o\"",
		name);
}

/* ---- loading ---- */

static int object_fail(const char *path, int error)
{
	return host_fail(-error, "%s: %s; check the path of the function", path, strerror(error));
}

static int object_read(const char *path, int fd, uint8_t **image, size_t *len)
{
	struct stat st;
	size_t done = 0;

	if (fstat(fd, &st))
		return object_fail(path, errno);
	if (S_ISDIR(st.st_mode))
		return host_fail(-EISDIR, "%s: is a directory; name an object file in it", path);
	if (!S_ISREG(st.st_mode))
		return host_fail(-ENOEXEC,
				 "%s: not a regular file; give an object that lio cc made", path);
	if (st.st_size > OBJECT_MAX)
		return host_fail(
			-E2BIG,
			"%s: %lld bytes, and a function may have %u; it is none, or must shrink",
			path, (long long)st.st_size, OBJECT_MAX);
	*image = malloc((size_t)st.st_size + 1);
	if (!*image)
		return object_fail(path, ENOMEM);
	while (done < (size_t)st.st_size) {
		ssize_t n = read(fd, *image + done, (size_t)st.st_size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int rc = object_fail(path, errno);

			free(*image);
			*image = NULL;
			return rc;
		}
		if (!n)
			break;
		done += (size_t)n;
	}
	*len = done;
	return 0;
}

/* -ENOENT leaves no text: the caller may know of another place. */
static int load_path(const char *path, struct lio_function **out)
{
	uint8_t *image = NULL;
	size_t len = 0;
	int rc, fd;

	do /* O_NONBLOCK: do not wait for the writer of a FIFO */
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : object_fail(path, errno);
	rc = object_read(path, fd, &image, &len);
	close(fd);
	if (!rc) {
		rc = lio_load_mem(image, len, out);
		if (rc) {
			struct lambda_error why = *host_error();

			host_fail(rc, "%s: %s", path, why.text);
		}
	}
	free(image);
	return rc;
}

static int load_name(const char *name, struct lio_function **out)
{
	const char *dirs[] = {env_dir(), shipped_dir()};
	char path[PATH_MAX];
	int rc = -ENOENT;

	if (!*name || *name == '.' || strstr(name, ".."))
		return host_fail(
			-EINVAL,
			"function \"%s\": not a name; use one of \"lio functions\", or a path",
			name);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && rc == -ENOENT; i++) {
		if (!dirs[i] || !*dirs[i] ||
		    snprintf(path, sizeof(path), "%s/%s.o", dirs[i], name) >= (int)sizeof(path))
			continue;
		rc = load_path(path, out);
	}
	return rc == -ENOENT ? name_unknown(name) : rc;
}

int lio_load(const char *name_or_path, struct lio_function **out)
{
	int rc;

	*out = NULL;
	if (!name_or_path)
		return host_fail(-EINVAL, "function: no name given; name one or give a path");
	if (ends_in(name_or_path, ".c"))
		return host_fail(-ENOEXEC,
				 "%s: is source; compile it with lio cc and give the object",
				 name_or_path);
	if (!strchr(name_or_path, '/') && !ends_in(name_or_path, ".o"))
		return load_name(name_or_path, out);
	rc = load_path(name_or_path, out);
	return rc == -ENOENT ? object_fail(name_or_path, ENOENT) : rc;
}

static void hash_image(struct lio_function *fn)
{
	SHA256_CTX sha;

	SHA256_Init(&sha);
	SHA256_Update(&sha, fn->image, fn->image_len);
	SHA256_Final(fn->hash, &sha);
}

int lio_load_mem(const void *image, size_t len, struct lio_function **out)
{
	struct lambda_error *err = host_error();
	struct lio_function *fn;
	int rc;

	*out = NULL;
	if (len > OBJECT_MAX)
		return host_fail(-E2BIG, "function: %zu bytes, and it may have %u; it must shrink",
				 len, OBJECT_MAX);
	fn = calloc(1, sizeof(*fn));
	if (!fn)
		return host_fail(-ENOMEM, "function: no memory to load it; free some");
	fn->image = malloc(len ? len : 1);
	if (!fn->image) {
		rc = host_fail(-ENOMEM, "function: no memory to load it; free some");
		goto err_fn;
	}
	memcpy(fn->image, image, len);
	fn->image_len = len;
	hash_image(fn);
	rc = lambda_function_load(image, len, &fn->fn, err);
	if (rc)
		goto err_fn;
	for (uint32_t i = 0; i < fn->fn->args.n_fields; i++)
		fn->needs_args |= !fn->fn->args.fields[i].has_default;
	if (!fn->needs_args)
		rc = lambda_args_pack(&fn->fn->args, NULL, 0, &fn->defaults, &fn->defaults_len,
				      err);
	if (rc)
		goto err_loaded;
	*out = fn;
	return 0;
err_loaded:
	lambda_function_free(fn->fn);
err_fn:
	free(fn->image);
	free(fn);
	return rc;
}

void lio_unload(struct lio_function *fn)
{
	if (!fn)
		return;
	free(fn->defaults);
	free(fn->image);
	lambda_function_free(fn->fn);
	free(fn);
}

/* ---- describing ---- */

_Static_assert(LIO_KIND_MAP == (int)LAMBDA_KIND_MAP && LIO_KIND_SCAN == (int)LAMBDA_KIND_SCAN &&
		       LIO_KIND_FOLD == (int)LAMBDA_KIND_FOLD,
	       "kinds are numbered alike");
_Static_assert(LIO_RECORD_ANY == (int)LAMBDA_RECORDS_ANY &&
		       LIO_RECORD_FIXED == (int)LAMBDA_RECORDS_FIXED &&
		       LIO_RECORD_DELIM == (int)LAMBDA_RECORDS_DELIM,
	       "records are numbered alike");

int lio_function_info(const struct lio_function *fn, struct lio_function_info *info)
{
	const struct lambda_function *f = fn->fn;
	struct sbpf_program_info prog = {.size = sizeof(prog)};
	struct lio_function_info full = {
		.size = info->size,
		.name = f->name,
		.doc = f->doc,
		.output = f->output_text,
		.args = f->args_text,
		.kind = (enum lio_kind)f->kind,
		.record = (enum lio_record)f->record,
		.record_value = f->record_value,
		.parallel = f->kind == LAMBDA_KIND_MAP || f->entry[LAMBDA_E_MERGE] >= 0,
		.state_bytes = f->state_size,
		.heap_bytes = f->heap_size,
	};
	int rc;

	if (info->size < sizeof(info->size))
		return host_fail(-EINVAL, "lio_function_info: size is not set; set it to "
					  "sizeof(struct lio_function_info)");
	rc = sbpf_program_info(f->prog, &prog);
	if (rc)
		return host_fail(rc, "%s: asking for its size: %s; rebuild with matching libraries",
				 f->name, strerror(-rc));
	full.insns = prog.insns;
	full.stack_bytes = prog.stack_bytes;
	memcpy(info, &full, full.size < sizeof(full) ? full.size : sizeof(full));
	if (full.size > sizeof(full))
		memset((uint8_t *)info + sizeof(full), 0, full.size - sizeof(full));
	return 0;
}

int lio_args(const struct lio_function *fn, const char *const *args, size_t n, void **out,
	     size_t *len)
{
	uint8_t *packed = NULL;
	int rc;

	*out = NULL;
	*len = 0;
	rc = lambda_args_pack(&fn->fn->args, args, n, &packed, len, host_error());
	if (!rc)
		*out = packed;
	return rc;
}
