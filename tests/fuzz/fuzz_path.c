/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a host asks of exported directories: requests on paths and commands on what it opened, one
 * after the other.  Whatever they are, nothing beside the directory is read or changed, every descriptor is closed
 * in the end, answers have their form and failures a reason.
 *
 * All runs on one thread: pools and loops are replaced by what is in this file, and fsync(2) by nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/export.h"
#include "device/server_private.h"

#define SECRET "what nobody exported"
#define BUFFER 65536u
#define STEPS  64
#define KNOWN  16

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int fuzz_fsync(int fd);

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_path: %s (%s)\n", what, strerror(errno));
	abort();
}

/* ---- what is around the modules ---- */

int fuzz_fsync(int fd)
{
	return 0;
}

int ctrl_fail(struct ctrl_error *err, int code, const char *fmt, ...)
{
	err->code = code;
	return code;
}

struct ctrl_pool *ctrl_pool_new(const char *name, uint32_t threads)
{
	return calloc(1, 1);
}

void ctrl_pool_free(struct ctrl_pool *p)
{
	free(p);
}

void ctrl_pool_task(struct ctrl_pool *p, struct ctrl_task *t)
{
	t->run(t);
}

void ctrl_pool_io(struct ctrl_pool *p, struct ctrl_io *io, int (*fn)(struct ctrl_io *io))
{
	io->done(io, fn(io));
}

uint32_t ctrl_pool_queued(struct ctrl_pool *p)
{
	return 0;
}

bool ctrl_pool_idle(struct ctrl_pool *p)
{
	return true;
}

void ctrl_loop_finish(struct ctrl_io *io, int error)
{
	io->done(io, error);
}

const struct ctrl_limits *ctrl_server_limits(const struct ctrl_server *s)
{
	return &s->opts.limits;
}

const struct ctrl_lambda_limits *ctrl_server_lambda(const struct ctrl_server *s)
{
	return &s->lambda_limits;
}

struct ctrl_namespace *ctrl_namespace(struct ctrl_controller *c, uint32_t nsid)
{
	return NULL;
}

struct ctrl_cmd *ctrl_cmd_of(struct ctrl_io *io)
{
	return (struct ctrl_cmd *)((char *)io - offsetof(struct ctrl_cmd, io));
}

static bool completed;
static uint16_t status;

void ctrl_complete(struct ctrl_cmd *cmd, uint16_t s)
{
	expect(!completed, "a command ends once");
	completed = true;
	status = s;
}

/* ---- the directory, and what is beside it ---- */

static char top[] = "/tmp/fuzz_path.XXXXXX";
static struct ctrl_server server = {
	.opts.limits.max_transfer = BUFFER,
	.lambda_limits.max_objects = KNOWN,
};

static const char *at(const char *name)
{
	static char paths[2][PATH_MAX];
	static unsigned int turn;
	char *p = paths[turn++ % 2];

	snprintf(p, PATH_MAX, "%s/%s", top, name);
	return p;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return ftw->level ? remove(path) : 0;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	expect(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
	close(fd);
}

static void make_tree(void)
{
	expect(!nftw(at("tree"), remove_one, 64, FTW_DEPTH | FTW_PHYS), "the tree can be emptied");
	expect(!mkdir(at("tree/d"), 0755) && !mkdir(at("tree/d/e"), 0755), "directories");
	write_file(at("tree/f"), "inside");
	write_file(at("tree/d/g"), "deeper");
	expect(!symlink("d/g", at("tree/in")) && !symlink("../out/secret", at("tree/o")) &&
		       !symlink("../out", at("tree/p")) && !symlink("..", at("tree/u")) &&
		       !symlink("/", at("tree/r")) && !symlink("n", at("tree/n")) &&
		       !symlink("/proc/self/root", at("tree/m")) && !mkfifo(at("tree/q"), 0666),
	       "links");
}

static void check_outside(void)
{
	char text[64] = "";
	int fd = open(at("out/secret"), O_RDONLY | O_CLOEXEC), n = 0;
	DIR *dir = opendir(at("out"));

	expect(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0 && !strcmp(text, SECRET),
	       "what is outside is as it was");
	close(fd);
	expect(dir, "outside is there");
	while (readdir(dir))
		n++;
	closedir(dir);
	expect(n == 3, "nothing came to be outside");
}

static int descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	expect(dir, "/proc");
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void clean_up(void)
{
	nftw(top, remove_one, 64, FTW_DEPTH | FTW_PHYS);
	rmdir(top);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct ctrl_error err;
	char spec[PATH_MAX];

	expect(mkdtemp(top) && !mkdir(at("tree"), 0755) && !mkdir(at("out"), 0755),
	       "a directory to work in");
	atexit(clean_up);
	write_file(at("out/secret"), SECRET);
	expect(!ctrl_exports_new(&server), "exports");
	snprintf(spec, sizeof(spec), "x=%s,rw", at("tree"));
	expect(!ctrl_server_add_export(&server, spec, &err), spec);
	snprintf(spec, sizeof(spec), "y=%s", at("tree"));
	expect(!ctrl_server_add_export(&server, spec, &err), spec);
	return 0;
}

/* ---- the host ---- */

static struct {
	const uint8_t *p;
	size_t left;
} in;

static uint64_t take(unsigned int bytes)
{
	uint64_t v = 0;

	for (; bytes && in.left; bytes--, in.left--)
		v = v << 8 | *in.p++;
	return v;
}

static uint16_t take_path(char *to)
{
	size_t n = take(1);

	if (n == 0xff) /* a long one, of one name again and again */
		for (n = take(2) % 5000; in.left && n < 5000; n = 5000) {
			memset(to, (int)take(1), n);
			return (uint16_t)n;
		}
	n = n < in.left ? n : in.left;
	memcpy(to, in.p, n);
	in.p += n;
	in.left -= n;
	return (uint16_t)n;
}

static uint32_t known[KNOWN], n_known;
static uint64_t cookie;

static void check_list(const struct ctrl_path_op *op)
{
	for (uint32_t at = 0; at < op->reply_len;) {
		struct nvme_path_entry e;

		expect(op->reply_len - at >= sizeof(e), "an entry is whole");
		memcpy(&e, op->reply + at, sizeof(e));
		expect(le16toh(e.name_len) && le16toh(e.name_len) <= NAME_MAX,
		       "an entry has a name");
		at += export_entry_len(le16toh(e.name_len));
		expect(at <= op->reply_len && at <= op->reply_max, "names are whole");
		cookie = le64toh(e.cookie);
	}
}

static void answered(struct ctrl_path_op *op)
{
	uint16_t kind = le16toh(op->request->op);
	struct nvme_path_opened opened;

	expect(!completed, "a request ends once");
	completed = true;
	expect(!op->error == !op->text[0] && op->error <= 0, "a failure has a reason");
	expect(!op->error || strstr(op->text, ": "), "and says of what");
	expect(!op->reply == !op->reply_len && (!op->error || !op->reply), "an answer has bytes");
	if (op->error)
		return;
	if (kind == NVME_PATH_LIST) {
		check_list(op);
	} else if (kind == NVME_PATH_OPEN) {
		expect(op->reply_len == sizeof(opened), "an opened object");
		memcpy(&opened, op->reply, sizeof(opened));
		expect(opened.object && opened.stat.type == NVME_PATH_FILE, "is a file");
		known[n_known++ % KNOWN] = le32toh(opened.object);
	} else {
		expect(op->reply_len == (kind == NVME_PATH_STAT ? sizeof(opened.stat) : 0),
		       "the answer of its kind");
	}
}

static void ask_path(struct ctrl_controller *c)
{
	static uint8_t bytes[sizeof(struct nvme_path_request) + 2 * 5000];
	struct nvme_path_request *r = (struct nvme_path_request *)(void *)bytes;
	struct ctrl_path_op op = {.ctrl = c, .done = answered};
	uint8_t kind = (uint8_t)take(1);
	char *paths = (char *)(r + 1);
	uint16_t n, m;

	*r = (struct nvme_path_request){
		.version = htole16(NVME_LAMBDA_VERSION),
		.op = htole16((uint16_t)(NVME_PATH_OPEN + kind % 6)),
		.flags = htole32((uint32_t)take(1)),
		.mode = htole32(kind & 0x80 ? (uint32_t)take(2) : 0644),
		.cookie = htole64(kind & 0x40   ? take(8)
				  : kind & 0x20 ? cookie
						: 0),
	};
	n = take_path(paths);
	m = kind % 6 == NVME_PATH_RENAME - NVME_PATH_OPEN ? take_path(paths + n) : 0;
	r->path_len = htole16(n);
	r->path2_len = htole16(m);
	/* What is behind the paths belongs to nobody: a copy shows who reads there. */
	op.request = malloc(sizeof(*r) + n + m);
	expect(op.request, "memory");
	memcpy((void *)(uintptr_t)op.request, bytes, sizeof(*r) + n + m);
	op.reply_max = kind & 0x10 ? (uint32_t)take(2) : 4096;
	completed = false;
	ctrl_path_submit(&op, NULL);
	expect(completed, "a request ends");
	free(op.reply);
	free((void *)(uintptr_t)op.request);
}

static void ask_object(struct ctrl_queue *q)
{
	static uint8_t buffer[BUFFER];
	uint8_t kind = (uint8_t)take(1);
	uint32_t which = (uint32_t)take(1), cdw11 = (uint32_t)take(kind & 0x80 ? 4 : 2);
	uint64_t operand = take(kind & 0x40 ? 8 : 2);
	const struct ctrl_command *row = &ctrl_object_set.rows[kind % 3];
	struct ctrl_cmd cmd = {
		.q = q,
		.row = row,
		.data = buffer,
		.sqe = {.opcode = row->opcode,
			.cdw10 = nvme_put32(which < KNOWN ? known[which] : (uint32_t)take(4)),
			.cdw11 = nvme_put32(cdw11),
			.cdw12 = nvme_put32((uint32_t)operand),
			.cdw13 = nvme_put32((uint32_t)(operand >> 32))},
	};

	completed = false;
	if (row->prepare(&cmd))
		return;
	expect(cmd.data_len <= BUFFER, "a command's data fit");
	row->run(&cmd);
	expect(completed, "a command ends");
	expect(status || row->opcode != NVME_LAMBDA_OBJECT_READ ||
		       (nvme_get32(cmd.cqe.dw0) == cmd.data_len &&
			!memmem(buffer, cmd.data_len, SECRET, strlen(SECRET))),
	       "what is read is inside");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ctrl_subsystem sub = {.server = &server};
	struct ctrl_controller c = {.sub = &sub};
	struct ctrl_queue q = {.server = &server, .ctrl = &c};
	int before = descriptors();

	make_tree();
	in.p = data;
	in.left = size;
	n_known = 0;
	memset(known, 0, sizeof(known));
	expect(!ctrl_objects_new(&c), "objects");
	for (int i = 0; i < STEPS && in.left; i++) {
		uint8_t what = (uint8_t)take(1);

		if (what == 0xff)
			ctrl_objects_close(&c);
		else if (what & 1)
			ask_object(&q);
		else
			ask_path(&c);
	}
	ctrl_objects_free(&c);
	check_outside();
	expect(descriptors() == before, "all descriptors are closed");
	expect(!atomic_load(&server.exports->objects), "no object is left");
	return 0;
}
