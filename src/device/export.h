/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.h - exported directories from the inside: export.c (which there are, and who may run what on them),
 * export_tree.c (names below one), path.c (requests on paths), object.c (open files).
 *
 * What export_tree.c does may block for as long as a file system likes: it belongs on the export's own threads.
 */
#ifndef DEVICE_EXPORT_H
#define DEVICE_EXPORT_H

#include <sys/stat.h>

#include "device/lambda.h"
#include "device/loop.h"

#define EXPORT_NAME_MAX 64u
#define EXPORTS_MAX     256u

enum export_functions {
	EXPORT_ANY,
	EXPORT_NONE,
	EXPORT_LISTED,
};

struct ctrl_export {
	char name[EXPORT_NAME_MAX + 1];
	char *spec; /* as it was given */
	int root;   /* O_PATH: what the name led to when the server started */
	bool writable;
	bool mounts; /* what is mounted below belongs to it */
	enum export_functions functions;
	uint8_t (*hashes)[32];
	uint32_t n_hashes;
	struct ctrl_pool *pool;
};

struct ctrl_exports {
	struct ctrl_export *all[EXPORTS_MAX];
	atomic_uint n; /* grows while hosts are served */
	/* Open objects of all controllers: what is left of the descriptors is for connections. */
	atomic_uint objects;
	uint32_t max_objects;
};

/* Parse, and open the directory. */
int export_new(const char *spec, struct ctrl_export **out, struct ctrl_error *err);
void export_free(struct ctrl_export *e);
/* So much waits for its threads that its file system must be hanging: more is refused, with EBUSY. */
bool export_hangs(const struct ctrl_export *e);
struct ctrl_export *export_find(struct ctrl_exports *all, const char *name, size_t len);

/* ---- export_tree.c: @path is below the export, plain (export_path_check()), "" its root; 0 or -errno ---- */

/*
 * A path from a host: names of 1 to 255 bytes with one slash between them, none of them "." or "..".  On failure *@why
 * says what is wrong.
 */
int export_path_check(const char *path, size_t len, const char **why);

struct export_file {
	int read, write; /* descriptors of their own, -1: not asked for */
	bool made;       /* it was not there before */
	bool local;      /* asking for its size does not wait for a network */
	struct nvme_path_stat stat;
};
/* @flags: NVME_PATH_*. */
int export_open(const struct ctrl_export *e, const char *path, uint32_t flags, uint32_t mode,
		struct export_file *out);
int export_stat(const struct ctrl_export *e, const char *path, struct nvme_path_stat *out);
/* Entries behind @cookie as they go over the wire, as many as @max bytes hold; none: the end. */
int export_list(const struct ctrl_export *e, const char *path, uint64_t cookie, uint8_t *to,
		uint32_t max, uint32_t *len);
int export_rename(const struct ctrl_export *e, const char *from, const char *to);
int export_remove(const struct ctrl_export *e, const char *path);
int export_mkdir(const struct ctrl_export *e, const char *path, uint32_t mode);

/* The bytes that an entry takes. */
static inline uint32_t export_entry_len(size_t name_len)
{
	return (uint32_t)(sizeof(struct nvme_path_entry) + ((name_len + 7) & ~(size_t)7));
}
_Static_assert(CTRL_PATH_ENTRY_MAX == sizeof(struct nvme_path_entry) + 256, "the longest name");

/* ---- object.c ---- */

/* The open files of a controller; outlives it while a request on a path is under way. */
struct ctrl_objects;
struct ctrl_objects *objects_new(uint32_t max);
struct ctrl_objects *objects_get(struct ctrl_objects *all);
void objects_put(struct ctrl_objects *all);
/* What was closed meanwhile takes no object that was being opened before. */
uint32_t objects_epoch(struct ctrl_objects *all);
/* Takes @file's descriptors, also when it fails. @name: export/path. */
int objects_add(struct ctrl_objects *all, uint32_t epoch, struct ctrl_exports *exports,
		struct ctrl_export *e, struct export_file *file, const char *name, size_t name_len,
		uint32_t *id);

#endif /* DEVICE_EXPORT_H */
