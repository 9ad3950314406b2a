/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.c - which directories are exported, and which functions may run on what is in them.
 *
 * An export stays for as long as the server does; others may come while it runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "device/export.h"
#include "device/server_private.h"

/* What one export has of calls that block. */
#define EXPORT_THREADS 8u
/* Requests that may wait for those: each keeps a connection, and of those there is an end. */
#define EXPORT_QUEUE 4096u
/* Open objects of all hosts: this part of the descriptors that the process may have. */
#define OBJECTS_SHARE 4u

/* ---- "NAME=DIR[,rw][,mounts][,functions=…]" ---- */

static bool name_valid(const char *name, size_t len)
{
	if (!len || len > EXPORT_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];

		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		      c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int add_hash(struct ctrl_export *e, const char *hex, size_t len)
{
	uint8_t(*all)[32];

	if (len != 64)
		return -EINVAL;
	all = reallocarray(e->hashes, e->n_hashes + 1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	e->hashes = all;
	for (size_t i = 0; i < 32; i++) {
		int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		all[e->n_hashes][i] = (uint8_t)(high << 4 | low);
	}
	e->n_hashes++;
	return 0;
}

static int parse_functions(struct ctrl_export *e, const char *text)
{
	int rc = 0;

	e->functions = EXPORT_LISTED;
	if (!strcmp(text, "any"))
		e->functions = EXPORT_ANY;
	else if (!strcmp(text, "none"))
		e->functions = EXPORT_NONE;
	else
		for (const char *end; !rc; text = end + 1) {
			end = strchrnul(text, '+');
			rc = add_hash(e, text, (size_t)(end - text));
			if (!*end)
				break;
		}
	return rc;
}

/* The options at the end of @dir, which they are cut from: a comma may be part of a name. */
static int parse_options(struct ctrl_export *e, char *dir, struct ctrl_error *err)
{
	static const char functions[] = ",functions=";
	bool said = false;
	char *comma;

	while ((comma = strrchr(dir, ',')) && comma > dir) {
		if (!strcmp(comma, ",rw")) {
			e->writable = true;
		} else if (!strcmp(comma, ",mounts")) {
			e->mounts = true;
		} else if (!strncmp(comma, functions, sizeof(functions) - 1)) {
			int rc = said ? -EEXIST : parse_functions(e, comma + sizeof(functions) - 1);

			if (rc)
				return ctrl_fail(
					err, rc == -EEXIST ? -EINVAL : rc,
					"export %s: %s: %s; write functions=any, "
					"functions=none or functions=HASH+HASH with the 64 "
					"hex digits of SHA-256 that lio info prints",
					e->name, comma + 1,
					rc == -EEXIST ? "said twice" : "no list of functions");
			said = true;
		} else {
			break;
		}
		*comma = '\0';
	}
	return 0;
}

/* The kernel knows openat2(2), and a file can be opened through /proc: else no object could ever be. */
static int try_out(const struct ctrl_export *e, struct ctrl_error *err)
{
	const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
	int fd = (int)syscall(SYS_openat2, e->root, ".", &how, sizeof(how));

	if (fd < 0)
		return ctrl_fail(err, -errno,
				 "export %s: openat2: %s; exports need Linux 5.6, and a sandbox "
				 "around the server must allow that call",
				 e->name, strerror(errno));
	close(fd);
	return access("/proc/self/fd", X_OK)
		       ? ctrl_fail(err, -errno,
				   "export %s: /proc/self/fd: %s; mount /proc, through which files "
				   "are opened",
				   e->name, strerror(errno))
		       : 0;
}

static int parse(struct ctrl_export *e, const char *spec, char *dir, struct ctrl_error *err)
{
	const char *equals = strchr(spec, '=');
	int rc;

	if (!equals || !name_valid(spec, (size_t)(equals - spec)))
		return ctrl_fail(err, -EINVAL,
				 "export %s: no name; write NAME=DIR, with a name of at most %u "
				 "letters, digits, '-', '_' and '.' that hosts will use",
				 spec, EXPORT_NAME_MAX);
	memcpy(e->name, spec, (size_t)(equals - spec));
	if (strlen(equals + 1) >= PATH_MAX + 4096)
		return ctrl_fail(err, -ENAMETOOLONG, "export %s: too long", e->name);
	strcpy(dir, equals + 1);
	rc = parse_options(e, dir, err);
	if (rc)
		return rc;
	e->root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (e->root < 0)
		return ctrl_fail(err, -errno,
				 "export %s: %s: %s; give a directory, and behind it only the "
				 "options rw, mounts and functions=",
				 e->name, *dir ? dir : "no directory", strerror(errno));
	return try_out(e, err);
}

int export_new(const char *spec, struct ctrl_export **out, struct ctrl_error *err)
{
	struct ctrl_export *e = calloc(1, sizeof(*e));
	char *dir = malloc(PATH_MAX + 4096);
	int rc = -ENOMEM;

	if (e)
		e->root = -1;
	if (e && dir && (e->spec = strdup(spec)) &&
	    (e->pool = ctrl_pool_new("export", EXPORT_THREADS)))
		rc = parse(e, spec, dir, err);
	else
		ctrl_fail(err, rc, "export %s: out of memory", spec);
	free(dir);
	if (rc) {
		export_free(e);
		return rc;
	}
	*out = e;
	return 0;
}

void export_free(struct ctrl_export *e)
{
	if (!e)
		return;
	ctrl_pool_free(e->pool);
	if (e->root >= 0)
		close(e->root);
	free(e->hashes);
	free(e->spec);
	free(e);
}

bool export_hangs(const struct ctrl_export *e)
{
	return ctrl_pool_queued(e->pool) >= EXPORT_QUEUE;
}

/* ---- the server's ---- */

struct ctrl_export *export_find(struct ctrl_exports *all, const char *name, size_t len)
{
	uint32_t n = all ? atomic_load_explicit(&all->n, memory_order_acquire) : 0;

	for (uint32_t i = 0; i < n; i++) {
		if (!strncmp(all->all[i]->name, name, len) && !all->all[i]->name[len])
			return all->all[i];
	}
	return NULL;
}

int ctrl_exports_new(struct ctrl_server *s)
{
	struct rlimit lim;

	s->exports = calloc(1, sizeof(*s->exports));
	if (!s->exports)
		return -ENOMEM;
	/* An object may have two. */
	s->exports->max_objects = getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur / 2 > UINT32_MAX
					  ? UINT32_MAX
					  : (uint32_t)(lim.rlim_cur / 2 / OBJECTS_SHARE);
	return 0;
}

int ctrl_server_add_export(struct ctrl_server *s, const char *spec, struct ctrl_error *err)
{
	struct ctrl_exports *all = s->exports;
	struct ctrl_export *e = NULL;
	uint32_t n = atomic_load(&all->n);
	int rc;

	if (n == EXPORTS_MAX)
		return ctrl_fail(err, -E2BIG, "export %s: more than %u; export a directory above",
				 spec, EXPORTS_MAX);
	rc = export_new(spec, &e, err);
	if (!rc && export_find(all, e->name, strlen(e->name)))
		rc = ctrl_fail(err, -EEXIST, "export %s: there is one of this name; choose another",
			       e->name);
	if (rc) {
		export_free(e);
		return rc;
	}
	all->all[n] = e;
	/* Whoever sees the number sees the export. */
	atomic_store_explicit(&all->n, n + 1, memory_order_release);
	return 0;
}

struct ctrl_exports *ctrl_server_exports(struct ctrl_server *s)
{
	return s->exports;
}

bool ctrl_server_has_exports(const struct ctrl_server *s)
{
	return s->exports && atomic_load(&s->exports->n);
}

bool ctrl_exports_idle(const struct ctrl_server *s)
{
	uint32_t n = s->exports ? atomic_load(&s->exports->n) : 0;

	for (uint32_t i = 0; i < n; i++) {
		if (!ctrl_pool_idle(s->exports->all[i]->pool))
			return false;
	}
	return true;
}

void ctrl_exports_metrics(struct ctrl_server *s, FILE *out)
{
	uint32_t n = atomic_load(&s->exports->n);

	fprintf(out,
		"# HELP liod_objects Open files of exported directories.\n"
		"# TYPE liod_objects gauge\n"
		"liod_objects %u\n"
		"# HELP liod_export_queue Requests that wait for a thread of their export.\n"
		"# TYPE liod_export_queue gauge\n",
		atomic_load(&s->exports->objects));
	for (uint32_t i = 0; i < n; i++)
		fprintf(out, "liod_export_queue{export=\"%s\"} %u\n", s->exports->all[i]->name,
			ctrl_pool_queued(s->exports->all[i]->pool));
}

void ctrl_exports_free(struct ctrl_server *s)
{
	uint32_t n = s->exports ? atomic_load(&s->exports->n) : 0;

	for (uint32_t i = 0; i < n; i++)
		export_free(s->exports->all[i]);
	free(s->exports);
	s->exports = NULL;
}
