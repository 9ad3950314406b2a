/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object.c - open files of exported directories, and the commands on them.
 *
 * A controller's objects are known by numbers that only it can use.  What the page cache holds is read by the loop
 * itself; all else that may wait for a disk or a network is done by the export's own threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device/export.h"

/* Objects of a controller: their numbers have 16 bits for the place. */
#define OBJECTS_MAX 65535u

struct ctrl_object {
	atomic_uint refs;
	int read, write; /* descriptors of their own; -1: not opened so */
	bool local;
	atomic_bool no_nowait; /* the file system cannot say whether a read would wait */
	/*
	 * An fsync() that failed has forgotten what it could not write, so the next one would succeed and lie.
	 */
	atomic_int lost;
	struct ctrl_exports *exports;
	struct ctrl_export *export;
	struct ctrl_task closing;
	char name[];
};

struct slot {
	struct ctrl_object *object;
	uint16_t serial; /* of the number that it has, or had last */
	uint32_t next_free;
};

struct ctrl_objects {
	atomic_uint refs;
	pthread_mutex_t lock; /* what follows */
	uint32_t epoch;
	struct slot *slots;
	uint32_t n_slots, max;
	uint32_t free; /* a slot, or n_slots: none */
};

/* ---- an object ---- */

static void object_close(struct ctrl_task *t)
{
	struct ctrl_object *obj =
		(struct ctrl_object *)((char *)t - offsetof(struct ctrl_object, closing));

	if (obj->read >= 0)
		close(obj->read);
	if (obj->write >= 0)
		close(obj->write);
	atomic_fetch_sub(&obj->exports->objects, 1);
	free(obj);
}

void ctrl_object_put(struct ctrl_object *obj)
{
	if (!obj || atomic_fetch_sub(&obj->refs, 1) != 1)
		return;
	/* Closing writes back, over some networks. */
	obj->closing.run = object_close;
	ctrl_pool_task(obj->export->pool, &obj->closing);
}

int ctrl_object_fd(const struct ctrl_object *obj)
{
	return obj->read >= 0 ? obj->read : -EACCES;
}

const char *ctrl_object_name(const struct ctrl_object *obj)
{
	return obj->name;
}

int ctrl_object_allows(const struct ctrl_object *obj, const uint8_t hash[32],
		       struct ctrl_error *err)
{
	const struct ctrl_export *e = obj->export;
	char hex[65];

	if (e->functions == EXPORT_ANY)
		return 0;
	if (e->functions == EXPORT_NONE)
		return ctrl_fail(err, -EACCES,
				 "%s: no function may run on the files of this export; read it, or "
				 "let the server's administrator export it with functions=any",
				 e->name);
	for (uint32_t i = 0; i < e->n_hashes; i++) {
		if (!memcmp(e->hashes[i], hash, 32))
			return 0;
	}
	for (unsigned int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	return ctrl_fail(err, -EACCES,
			 "%s: this function may not run on the files of this export; the server's "
			 "administrator may add %s to its functions=",
			 e->name, hex);
}

int ctrl_object_version(const struct ctrl_object *obj, struct ctrl_object_version *out)
{
	int fd = obj->read >= 0 ? obj->read : obj->write;
	struct statx st;
	int generation;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_CTIME, &st))
		return -errno;
	*out = (struct ctrl_object_version){
		.size = st.stx_size,
		.ctime_s = (uint64_t)st.stx_ctime.tv_sec,
		.ctime_ns = st.stx_ctime.tv_nsec,
	};
	/* Not every file system has them. */
	if (!ioctl(fd, FS_IOC_GETVERSION, &generation))
		out->generation = (unsigned int)generation;
	return 0;
}

int ctrl_object_write(const struct ctrl_object *obj, const void *p, size_t len, uint64_t at,
		      uint64_t *done)
{
	if (obj->write < 0)
		return -EBADF;
	if (at > INT64_MAX || len > (uint64_t)INT64_MAX - at)
		return -EFBIG;
	while (len) {
		ssize_t n = pwrite(obj->write, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p = (const uint8_t *)p + n;
		len -= (size_t)n;
		at += (uint64_t)n;
		*done += (uint64_t)n;
	}
	return 0;
}

void ctrl_object_submit(const struct ctrl_object *obj, struct ctrl_io *io,
			int (*work)(struct ctrl_io *io))
{
	ctrl_pool_io(obj->export->pool, io, work);
}

/* ---- a controller's ---- */

struct ctrl_objects *objects_new(uint32_t max)
{
	struct ctrl_objects *all = calloc(1, sizeof(*all));

	if (!all)
		return NULL;
	atomic_init(&all->refs, 1);
	pthread_mutex_init(&all->lock, NULL);
	all->max = max < OBJECTS_MAX ? max : OBJECTS_MAX;
	return all;
}

struct ctrl_objects *objects_get(struct ctrl_objects *all)
{
	atomic_fetch_add(&all->refs, 1);
	return all;
}

static void close_all(struct ctrl_objects *all)
{
	for (uint32_t i = 0; i < all->n_slots; i++) {
		struct ctrl_object *obj = all->slots[i].object;

		if (!obj)
			continue;
		all->slots[i].object = NULL;
		all->slots[i].next_free = all->free;
		all->free = i;
		ctrl_object_put(obj);
	}
}

void objects_put(struct ctrl_objects *all)
{
	if (!all || atomic_fetch_sub(&all->refs, 1) != 1)
		return;
	close_all(all);
	pthread_mutex_destroy(&all->lock);
	free(all->slots);
	free(all);
}

uint32_t objects_epoch(struct ctrl_objects *all)
{
	uint32_t epoch;

	pthread_mutex_lock(&all->lock);
	epoch = all->epoch;
	pthread_mutex_unlock(&all->lock);
	return epoch;
}

/* Under the lock. */
static int slots_grow(struct ctrl_objects *all)
{
	uint32_t n = all->n_slots ? 2 * all->n_slots : 16;
	struct slot *slots;

	if (n > all->max)
		n = all->max;
	if (n == all->n_slots)
		return -ENFILE;
	slots = realloc(all->slots, n * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = all->n_slots; i < n; i++)
		slots[i] = (struct slot){.next_free = i + 1};
	/* None was free: the list is of the new ones, and ends at what is now the number of slots. */
	all->slots = slots;
	all->free = all->n_slots;
	all->n_slots = n;
	return 0;
}

/* Under the lock. */
static int insert(struct ctrl_objects *all, uint32_t epoch, struct ctrl_object *obj, uint32_t *id)
{
	struct slot *slot;
	uint32_t i;
	int rc;

	if (epoch != all->epoch)
		return -ESTALE;
	if (all->free >= all->n_slots) {
		rc = slots_grow(all);
		if (rc)
			return rc;
	}
	i = all->free;
	slot = &all->slots[i];
	all->free = slot->next_free;
	slot->object = obj;
	slot->serial++;
	*id = (uint32_t)slot->serial << 16 | (i + 1);
	return 0;
}

int objects_add(struct ctrl_objects *all, uint32_t epoch, struct ctrl_exports *exports,
		struct ctrl_export *e, struct export_file *file, const char *name, size_t name_len,
		uint32_t *id)
{
	struct ctrl_object *obj = calloc(1, sizeof(*obj) + name_len + 1);
	int rc = -ENFILE;

	*id = 0;
	if (!obj) {
		if (file->read >= 0)
			close(file->read);
		if (file->write >= 0)
			close(file->write);
		return -ENOMEM;
	}
	atomic_init(&obj->refs, 1);
	obj->read = file->read;
	obj->write = file->write;
	obj->local = file->local;
	obj->exports = exports;
	obj->export = e;
	memcpy(obj->name, name, name_len);
	if (atomic_fetch_add(&exports->objects, 1) < exports->max_objects) {
		pthread_mutex_lock(&all->lock);
		rc = insert(all, epoch, obj, id);
		pthread_mutex_unlock(&all->lock);
	}
	if (rc)
		ctrl_object_put(obj);
	return rc;
}

/* Under the lock: the place of that number. */
static struct slot *slot_find(struct ctrl_objects *all, uint32_t id)
{
	uint32_t i = (id & 0xffff) - 1;
	struct slot *slot;

	if (i >= all->n_slots)
		return NULL;
	slot = &all->slots[i];
	return slot->object && slot->serial == id >> 16 ? slot : NULL;
}

struct ctrl_object *ctrl_object_get(struct ctrl_controller *c, uint32_t id)
{
	struct ctrl_objects *all = c->objects;
	struct ctrl_object *obj = NULL;
	struct slot *slot;

	pthread_mutex_lock(&all->lock);
	slot = slot_find(all, id);
	if (slot) {
		obj = slot->object;
		atomic_fetch_add(&obj->refs, 1);
	}
	pthread_mutex_unlock(&all->lock);
	return obj;
}

/* Its number is nobody's any more. */
static bool forget(struct ctrl_objects *all, uint32_t id)
{
	struct ctrl_object *obj = NULL;
	struct slot *slot;

	pthread_mutex_lock(&all->lock);
	slot = slot_find(all, id);
	if (slot) {
		obj = slot->object;
		slot->object = NULL;
		slot->next_free = all->free;
		all->free = (uint32_t)(slot - all->slots);
	}
	pthread_mutex_unlock(&all->lock);
	ctrl_object_put(obj);
	return obj;
}

int ctrl_objects_new(struct ctrl_controller *c)
{
	c->objects = objects_new(ctrl_server_lambda(c->sub->server)->max_objects);
	return c->objects ? 0 : -ENOMEM;
}

void ctrl_objects_close(struct ctrl_controller *c)
{
	struct ctrl_objects *all = c->objects;

	if (!all) /* a discovery controller's */
		return;
	pthread_mutex_lock(&all->lock);
	all->epoch++;
	close_all(all);
	pthread_mutex_unlock(&all->lock);
}

void ctrl_objects_free(struct ctrl_controller *c)
{
	objects_put(c->objects);
	c->objects = NULL;
}

/* ---- commands: step[0] is the object, step[1] the bytes that moved ---- */

static struct ctrl_object *object_of(const struct ctrl_cmd *cmd)
{
	return (struct ctrl_object *)(uintptr_t)cmd->step[0];
}

static uint64_t operand(const struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.cdw12) | (uint64_t)nvme_get32(cmd->sqe.cdw13) << 32;
}

static void finish(struct ctrl_cmd *cmd, int error)
{
	ctrl_object_put(object_of(cmd));
	if (error)
		cmd->cqe.dw0 = nvme_put32((uint32_t)-error);
	ctrl_complete(cmd, error ? (uint16_t)NVME_SC_LAMBDA_ERRNO : NVME_SC_SUCCESS);
}

/* Find its object, which it holds until it is finished; false: it is finished. */
static bool begin(struct ctrl_cmd *cmd)
{
	struct ctrl_object *obj = ctrl_object_get(cmd->q->ctrl, nvme_get32(cmd->sqe.cdw10));

	cmd->step[0] = (uintptr_t)obj;
	cmd->step[1] = 0;
	if (!obj)
		ctrl_complete(cmd, (uint16_t)NVME_SC_LAMBDA_NO_OBJECT);
	return obj;
}

static void submit(struct ctrl_cmd *cmd, int (*work)(struct ctrl_io *io),
		   void (*done)(struct ctrl_io *io, int error))
{
	if (export_hangs(object_of(cmd)->export)) {
		finish(cmd, -EBUSY);
		return;
	}
	cmd->io = (struct ctrl_io){.loop = cmd->q->loop, .done = done};
	ctrl_object_submit(object_of(cmd), &cmd->io, work);
}

static void done(struct ctrl_io *io, int error)
{
	finish(ctrl_cmd_of(io), error);
}

/* NSID 0, or that of the device node by which the command came; what is reserved is zero. */
static uint16_t check_common(const struct ctrl_cmd *cmd)
{
	uint32_t nsid = nvme_get32(cmd->sqe.nsid);

	if (nsid && !ctrl_namespace(cmd->q->ctrl, nsid))
		return NVME_SC_INVALID_NS;
	return nvme_get32(cmd->sqe.cdw2) || nvme_get32(cmd->sqe.cdw3) ||
			       nvme_get32(cmd->sqe.cdw14) || nvme_get32(cmd->sqe.cdw15)
		       ? NVME_SC_INVALID_FIELD
		       : NVME_SC_SUCCESS;
}

static uint16_t prepare(struct ctrl_cmd *cmd, enum ctrl_direction dir)
{
	uint32_t len = nvme_get32(cmd->sqe.cdw11);

	if (len > ctrl_server_limits(cmd->q->server)->max_transfer)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = len ? dir : CTRL_NO_DATA;
	cmd->data_len = len;
	return check_common(cmd);
}

/* ---- OBJECT_READ ---- */

static uint16_t read_prepare(struct ctrl_cmd *cmd)
{
	return prepare(cmd, CTRL_TO_HOST);
}

static void read_finish(struct ctrl_cmd *cmd, int error)
{
	if (!error) {
		cmd->data_len = (uint32_t)cmd->step[1];
		cmd->cqe.dw0 = nvme_put32(cmd->data_len);
		if (!cmd->data_len)
			cmd->dir = CTRL_NO_DATA;
	}
	finish(cmd, error);
}

static void read_done(struct ctrl_io *io, int error)
{
	read_finish(ctrl_cmd_of(io), error);
}

/* 1: all are there, or the end; 0: there is more to read; or -errno. */
static int read_some(struct ctrl_cmd *cmd, int flags)
{
	struct iovec iov = {cmd->data + cmd->step[1], cmd->data_len - cmd->step[1]};
	ssize_t n =
		preadv2(object_of(cmd)->read, &iov, 1, (off_t)(operand(cmd) + cmd->step[1]), flags);

	if (n < 0)
		return -errno;
	cmd->step[1] += (uint64_t)n;
	return !n || cmd->step[1] == cmd->data_len;
}

static int read_work(struct ctrl_io *io)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	int rc;

	do {
		rc = read_some(cmd, 0);
	} while (!rc || rc == -EINTR);
	/* What came before the error is the answer; who goes on gets the error. */
	return rc < 0 && !cmd->step[1] ? rc : 0;
}

static void read_run(struct ctrl_cmd *cmd)
{
	struct ctrl_object *obj;
	int rc = 0;

	if (!begin(cmd))
		return;
	obj = object_of(cmd);
	if (obj->read < 0)
		rc = -EBADF;
	else if (operand(cmd) > (uint64_t)INT64_MAX - cmd->data_len)
		rc = -EINVAL;
	if (rc || !cmd->data_len) {
		read_finish(cmd, rc);
		return;
	}
	if (!atomic_load_explicit(&obj->no_nowait, memory_order_relaxed)) {
		rc = read_some(cmd, RWF_NOWAIT);
		if (rc == -EOPNOTSUPP)
			atomic_store(&obj->no_nowait, true);
	}
	if (rc == 1)
		read_finish(cmd, 0);
	else
		submit(cmd, read_work, read_done);
}

/* ---- OBJECT_WRITE ---- */

static uint16_t write_prepare(struct ctrl_cmd *cmd)
{
	return prepare(cmd, CTRL_TO_CONTROLLER);
}

static int write_work(struct ctrl_io *io)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	int rc = ctrl_object_write(object_of(cmd), cmd->data, cmd->data_len, operand(cmd),
				   &cmd->step[1]);

	return cmd->step[1] ? 0 : rc;
}

static void write_done(struct ctrl_io *io, int error)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);

	cmd->cqe.dw0 = nvme_put32((uint32_t)cmd->step[1]);
	finish(cmd, error);
}

static void write_run(struct ctrl_cmd *cmd)
{
	if (begin(cmd))
		submit(cmd, write_work, write_done);
}

/* ---- OBJECT_DO ---- */

static uint16_t do_prepare(struct ctrl_cmd *cmd)
{
	uint32_t what = nvme_get32(cmd->sqe.cdw11);

	if (what < NVME_OBJECT_CLOSE || what > NVME_OBJECT_SIZE ||
	    (what != NVME_OBJECT_TRUNCATE && operand(cmd)))
		return NVME_SC_INVALID_FIELD;
	return check_common(cmd);
}

static int sync_work(struct ctrl_io *io)
{
	struct ctrl_object *obj = object_of(ctrl_cmd_of(io));
	int rc = atomic_load(&obj->lost);

	while (!rc && fsync(obj->write >= 0 ? obj->write : obj->read)) {
		if (errno != EINTR)
			rc = -errno;
	}
	if (rc)
		atomic_store(&obj->lost, rc);
	return rc;
}

static int truncate_work(struct ctrl_io *io)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	const struct ctrl_object *obj = object_of(cmd);

	if (obj->write < 0)
		return -EBADF;
	if (operand(cmd) > INT64_MAX)
		return -EFBIG;
	while (ftruncate(obj->write, (off_t)operand(cmd))) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int size_work(struct ctrl_io *io)
{
	struct ctrl_cmd *cmd = ctrl_cmd_of(io);
	const struct ctrl_object *obj = object_of(cmd);
	struct stat st;

	if (fstat(obj->read >= 0 ? obj->read : obj->write, &st))
		return -errno;
	cmd->cqe.dw0 = nvme_put32((uint32_t)st.st_size);
	cmd->cqe.dw1 = nvme_put32((uint32_t)((uint64_t)st.st_size >> 32));
	return 0;
}

static void do_close(struct ctrl_cmd *cmd)
{
	bool was = forget(cmd->q->ctrl->objects, nvme_get32(cmd->sqe.cdw10));

	ctrl_complete(cmd, was ? NVME_SC_SUCCESS : (uint16_t)NVME_SC_LAMBDA_NO_OBJECT);
}

static void do_size(struct ctrl_cmd *cmd)
{
	if (!object_of(cmd)->local)
		submit(cmd, size_work, done);
	else
		finish(cmd, size_work(&cmd->io));
}

static void do_run(struct ctrl_cmd *cmd)
{
	enum nvme_object_do what = (enum nvme_object_do)nvme_get32(cmd->sqe.cdw11);

	if (what == NVME_OBJECT_CLOSE) {
		do_close(cmd);
		return;
	}
	if (!begin(cmd))
		return;
	switch (what) {
	case NVME_OBJECT_SYNC:
		submit(cmd, sync_work, done);
		break;
	case NVME_OBJECT_TRUNCATE:
		submit(cmd, truncate_work, done);
		break;
	case NVME_OBJECT_SIZE:
		do_size(cmd);
		break;
	case NVME_OBJECT_CLOSE:
		break;
	}
}

static const struct ctrl_command commands[] = {
	{NVME_LAMBDA_OBJECT_DO, "object-do", NVME_EFFECT_CONTENT, do_prepare, do_run},
	{NVME_LAMBDA_OBJECT_WRITE, "object-write", NVME_EFFECT_CONTENT, write_prepare, write_run},
	{NVME_LAMBDA_OBJECT_READ, "object-read", 0, read_prepare, read_run},
};
const struct ctrl_command_set ctrl_object_set = {commands, sizeof(commands) / sizeof(*commands)};
