/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.c - requests on paths: which export is meant, what is asked of it, and the answer or the reason why not.
 *
 * An answer is made on a thread of the export; only what needs no file system is answered by the loop itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/export.h"

/* Entries of a page take a while to look at: others get their turn between pages. */
#define LIST_MAX (256u << 10)
/* What a message shows of a path; of a longer one, its end. */
#define SHOWN 400

struct paths { /* of a request, without the export's name */
	char first[4096], second[4096];
};

/* ---- what went wrong, and what can be done ---- */

static const struct {
	int error;
	const char *why;
} reasons[] = {
	{EROFS, "the export is read-only; write to another, or let the server's administrator "
		"export it with ,rw"},
	{EXDEV, "it leads out of the exported directory, over a mount point, or into another "
		"export; name what is in that directory itself"},
	{ELOOP, "a symbolic link that leads to nothing, in circles or through /proc; name the "
		"file itself"},
	{EISDIR, "it is a directory; name a file"},
	{ENOTDIR, "a part of it is no directory; list it to see what is there"},
	{ENOENT, "no such file or directory; list its directory to see what is there"},
	{EACCES, "the server may not open it, or it is a device, FIFO or socket, which never are; "
		 "see the rights of the user that it runs as"},
	{EBUSY, "it is the exported directory itself, a mount point, or changes all the time; "
		"name something below, or try again"},
	{EEXIST, "it is there already; choose another name"},
	{ENOTEMPTY, "the directory is not empty; remove what is in it first"},
	{ENFILE, "as many files are open as the server or this host may have; close some"},
	{EMFILE, "as many files are open as the server may have; close some"},
	{ESTALE, "the controller was reset meanwhile; open it again"},
};

static int fail(struct ctrl_path_op *op, const char *path, size_t len, int error, const char *why)
{
	const char *dots = len > SHOWN ? "..." : "";
	char shown[SHOWN + 1];

	for (size_t i = 0; !why && i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (reasons[i].error == -error)
			why = reasons[i].why;
	}
	if (len > SHOWN) {
		path += len - SHOWN;
		len = SHOWN;
	}
	/* It may end up on a terminal. */
	for (size_t i = 0; i < len; i++)
		shown[i] = (unsigned char)path[i] < ' ' || path[i] == 0x7f ? '?' : path[i];
	shown[len] = '\0';
	snprintf(op->text, sizeof(op->text), "%s%s: %s", dots, shown, why ? why : strerror(-error));
	op->error = error;
	return error;
}

/* ---- on a thread of the export ---- */

static const char *request_path(const struct nvme_path_request *r)
{
	return (const char *)(r + 1);
}

/* What follows the export's name. */
static void below(const char *path, size_t len, char to[4096])
{
	const char *slash = memchr(path, '/', len);
	size_t n = slash ? len - (size_t)(slash + 1 - path) : 0;

	if (slash)
		memcpy(to, slash + 1, n);
	to[n] = '\0';
}

static int answer(struct ctrl_path_op *op, const void *p, uint32_t len)
{
	op->reply = malloc(len);
	if (!op->reply)
		return -ENOMEM;
	memcpy(op->reply, p, len);
	op->reply_len = len;
	return 0;
}

static int do_open(struct ctrl_path_op *op, const char *path)
{
	const struct nvme_path_request *r = op->request;
	struct nvme_path_opened opened = {0};
	struct export_file file;
	uint32_t id;
	int rc = export_open(op->export, path, le32toh(r->flags), le32toh(r->mode), &file);

	if (rc)
		return rc;
	opened.stat = file.stat;
	rc = objects_add(op->objects, op->epoch, op->exports, op->export, &file, request_path(r),
			 le16toh(r->path_len), &id);
	opened.object = htole32(id);
	return rc ? rc : answer(op, &opened, sizeof(opened));
}

static int do_stat(struct ctrl_path_op *op, const char *path)
{
	struct nvme_path_stat st;
	int rc = export_stat(op->export, path, &st);

	return rc ? rc : answer(op, &st, sizeof(st));
}

static int do_list(struct ctrl_path_op *op, const char *path)
{
	uint32_t max = op->reply_max < LIST_MAX ? op->reply_max : LIST_MAX;
	uint8_t *smaller;
	int rc;

	op->reply = malloc(max);
	if (!op->reply)
		return -ENOMEM;
	rc = export_list(op->export, path, le64toh(op->request->cookie), op->reply, max,
			 &op->reply_len);
	if (rc || !op->reply_len) {
		free(op->reply);
		op->reply = NULL;
	} else if ((smaller = realloc(op->reply, op->reply_len))) {
		op->reply = smaller;
	}
	return rc;
}

static int work(struct ctrl_io *io)
{
	struct ctrl_path_op *op = (struct ctrl_path_op *)io;
	const struct nvme_path_request *r = op->request;
	uint16_t len = le16toh(r->path_len), len2 = le16toh(r->path2_len);
	struct paths paths;
	int rc = -EINVAL;

	below(request_path(r), len, paths.first);
	below(request_path(r) + len, len2, paths.second);
	switch ((enum nvme_lambda_op)le16toh(r->op)) {
	case NVME_PATH_OPEN:
		rc = do_open(op, paths.first);
		break;
	case NVME_PATH_STAT:
		rc = do_stat(op, paths.first);
		break;
	case NVME_PATH_LIST:
		rc = do_list(op, paths.first);
		break;
	case NVME_PATH_RENAME:
		rc = export_rename(op->export, paths.first, paths.second);
		break;
	case NVME_PATH_REMOVE:
		rc = export_remove(op->export, paths.first);
		break;
	case NVME_PATH_MKDIR:
		rc = export_mkdir(op->export, paths.first, le32toh(r->mode));
		break;
	case NVME_LAMBDA_RUN:
		break;
	}
	return rc ? fail(op, request_path(r), len, rc, NULL) : 0;
}

/* ---- on the loop ---- */

static void done(struct ctrl_io *io, int error)
{
	struct ctrl_path_op *op = (struct ctrl_path_op *)io;

	if (op->objects)
		objects_put(op->objects);
	op->error = error;
	op->done(op);
}

static int list_exports(struct ctrl_path_op *op)
{
	uint64_t cookie = le64toh(op->request->cookie);
	uint32_t n = op->exports ? atomic_load_explicit(&op->exports->n, memory_order_acquire) : 0;

	if (cookie >= n)
		return 0;
	op->reply = malloc((n - cookie) * export_entry_len(EXPORT_NAME_MAX));
	if (!op->reply)
		return -ENOMEM;
	for (uint64_t i = cookie; i < n; i++) {
		const char *name = op->exports->all[i]->name;
		struct nvme_path_entry entry = {.cookie = htole64(i + 1),
						.type = NVME_PATH_DIRECTORY,
						.name_len = htole16((uint16_t)strlen(name))};
		uint32_t len = export_entry_len(strlen(name));

		if (len > op->reply_max - op->reply_len)
			break;
		memset(op->reply + op->reply_len, 0, len);
		memcpy(op->reply + op->reply_len, &entry, sizeof(entry));
		memcpy(op->reply + op->reply_len + sizeof(entry), name, strlen(name));
		op->reply_len += len;
	}
	return 0;
}

static int no_export(struct ctrl_path_op *op, const char *path, size_t len)
{
	uint32_t n = op->exports ? atomic_load_explicit(&op->exports->n, memory_order_acquire) : 0;
	char why[200];
	size_t at;

	if (!n)
		return fail(op, path, len, -ENOENT,
			    "this server exports no directory; it is started with --export "
			    "NAME=DIR");
	at = (size_t)snprintf(why, sizeof(why), "no such export; this server has");
	for (uint32_t i = 0; i < n && at + 4 < sizeof(why); i++) {
		const char *name = op->exports->all[i]->name;
		const char *form = i ? ", %s" : " %s";

		if (at + strlen(name) + 8 > sizeof(why)) {
			snprintf(why + at, sizeof(why) - at, ", ...");
			break;
		}
		at += (size_t)snprintf(why + at, sizeof(why) - at, form, name);
	}
	return fail(op, path, len, -ENOENT, why);
}

static size_t name_len(const char *path, size_t len)
{
	const char *slash = memchr(path, '/', len);

	return slash ? (size_t)(slash - path) : len;
}

/* Which export, if any; 1: it is all that is asked. */
static int find(struct ctrl_path_op *op)
{
	const struct nvme_path_request *r = op->request;
	const char *path = request_path(r), *path2, *why;
	uint16_t kind = le16toh(r->op);
	size_t len = le16toh(r->path_len), len2 = le16toh(r->path2_len);
	int rc = export_path_check(path, len, &why);

	path2 = path + len;
	if (rc)
		return fail(op, path, len, rc, why);
	if (len2 && kind != NVME_PATH_RENAME)
		return fail(op, path, len, -EINVAL, "a second path, which only a rename has");
	rc = export_path_check(path2, len2, &why);
	if (rc)
		return fail(op, path2, len2, rc, why);
	if (kind == NVME_PATH_LIST && op->reply_max < CTRL_PATH_ENTRY_MAX)
		return fail(op, path, len, -EINVAL, "no room for one entry in the answer");
	if (!len && kind == NVME_PATH_LIST)
		return (rc = list_exports(op)) ? fail(op, path, len, rc, NULL) : 1;
	op->export = export_find(op->exports, path, name_len(path, len));
	if (!len || !op->export)
		return no_export(op, path, len);
	if (export_hangs(op->export))
		return fail(op, path, len, -EBUSY,
			    "the export's file system does not answer; try again later");
	if (kind == NVME_PATH_RENAME &&
	    export_find(op->exports, path2, name_len(path2, len2)) != op->export)
		return fail(op, path2, len2, -EXDEV, NULL);
	return 0;
}

void ctrl_path_submit(struct ctrl_path_op *op, struct ctrl_loop *loop)
{
	int rc;

	op->io = (struct ctrl_io){.loop = loop, .done = done};
	op->error = 0;
	op->text[0] = '\0';
	op->reply = NULL;
	op->reply_len = 0;
	op->exports = ctrl_server_exports(op->ctrl->sub->server);
	op->export = NULL;
	op->objects = NULL;
	rc = find(op);
	if (rc) {
		ctrl_loop_finish(&op->io, rc < 0 ? rc : 0);
		return;
	}
	op->objects = objects_get(op->ctrl->objects);
	op->epoch = objects_epoch(op->objects);
	ctrl_pool_io(op->export->pool, &op->io, work);
}
