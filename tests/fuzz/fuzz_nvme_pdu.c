/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a host sends: whatever it is, the target answers in well-formed PDUs, gives every buffer
 * back and ends the connection cleanly.  Memory and undefined behaviour are the sanitizers' to watch.
 *
 * The first byte says how far the connection has come when the input begins (after ICReq, after Connect, as an
 * I/O queue), which digests it uses, and how scarce buffers are; the second how many bytes a read or write moves.
 * All runs on one thread: loop, server, store, workers and socket are replaced by what is in this file; the target is
 * compiled with the names of its socket calls changed to those below.  There is an exported directory, of one file,
 * and functions that answer a few bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device/export.h"
#include "device/server_private.h"
#include "nvme/tcp.h"

#define NQN       "nqn.2026-01.io.lambda:fuzz"
#define BUFFER    (2u << 20)
#define DISK      (1u << 20)
#define MAX_CONNS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
ssize_t fuzz_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t fuzz_recv(int fd, void *buf, size_t len, int flags);
ssize_t fuzz_sendmsg(int fd, const struct msghdr *msg, int flags);
int fuzz_getname(int fd, struct sockaddr *sa, socklen_t *len);
int fuzz_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_nvme_pdu: %s\n", what);
	abort();
}

/* ---- the socket: what the host sends is at hand, what the target sends is checked ---- */

static struct wire {
	int fd;
	const uint8_t *in;
	size_t left;
	struct ctrl_watch *watch;
	uint8_t header[256];
	size_t have, skip;
	bool digests_on;
} wires[MAX_CONNS];
static int n_wires;
static uint32_t step; /* bytes that a call moves */
static bool hdgst, ddgst;

static struct wire *wire_of(int fd)
{
	for (int i = 0; i < n_wires; i++) {
		if (wires[i].fd == fd)
			return &wires[i];
	}
	abort();
}

ssize_t fuzz_recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct wire *w = wire_of(fd);
	size_t n = w->left < step ? w->left : step, done = 0;

	if (!n) {
		errno = EAGAIN;
		return -1;
	}
	for (size_t i = 0; i < msg->msg_iovlen && done < n; i++) {
		size_t m = n - done < msg->msg_iov[i].iov_len ? n - done : msg->msg_iov[i].iov_len;

		memcpy(msg->msg_iov[i].iov_base, w->in + done, m);
		done += m;
	}
	w->in += done;
	w->left -= done;
	return (ssize_t)done;
}

ssize_t fuzz_recv(int fd, void *buf, size_t len, int flags)
{
	struct iovec iov = {buf, len};

	return fuzz_recvmsg(fd, &(struct msghdr){.msg_iov = &iov, .msg_iovlen = 1}, flags);
}

static void check_sent(struct wire *w, const uint8_t *p, size_t n)
{
	while (n) {
		size_t m = n < w->skip ? n : w->skip;
		struct nvme_tcp_hdr hdr;
		uint32_t len, fei;
		bool digests;

		p += m;
		n -= m;
		w->skip -= m;
		if (w->skip || !n)
			return;
		w->header[w->have++] = *p++;
		n--;
		if (w->have < sizeof(hdr))
			continue;
		memcpy(&hdr, w->header, sizeof(hdr));
		digests = w->digests_on;
		expect(!nvme_tcp_check(&hdr, false, digests && hdgst, digests && ddgst, BUFFER,
				       &len, &fei),
		       "the target sends well-formed PDUs");
		if (hdr.type == NVME_TCP_ICRESP)
			w->digests_on = true;
		w->skip = nvme_get32(hdr.plen) - sizeof(hdr);
		w->have = 0;
	}
}

ssize_t fuzz_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct wire *w = wire_of(fd);
	size_t left = step, done = 0;

	for (size_t i = 0; i < msg->msg_iovlen && left; i++) {
		size_t m = left < msg->msg_iov[i].iov_len ? left : msg->msg_iov[i].iov_len;

		check_sent(w, msg->msg_iov[i].iov_base, m);
		left -= m;
		done += m;
	}
	return (ssize_t)done;
}

int fuzz_getname(int fd, struct sockaddr *sa, socklen_t *len)
{
	memset(sa, 0, *len);
	sa->sa_family = AF_INET;
	return 0;
}

int fuzz_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	return 0;
}

/* ---- the loop ---- */

static struct ctrl_later *laters, **laters_end = &laters;
static struct ctrl_io *ios, **ios_end = &ios;
static struct ctrl_buffer_wait *waits;
static struct post {
	struct post *next;
	void (*fn)(void *arg);
	void *arg;
} *posts;
static uint32_t buffers, buffers_max;

int ctrl_loop_watch(struct ctrl_loop *loop, struct ctrl_watch *w, uint32_t events)
{
	wire_of(w->fd)->watch = w;
	return 0;
}

int ctrl_loop_rewatch(struct ctrl_loop *loop, struct ctrl_watch *w, uint32_t events)
{
	return 0;
}

void ctrl_loop_unwatch(struct ctrl_loop *loop, struct ctrl_watch *w)
{
	wire_of(w->fd)->watch = NULL;
}

void ctrl_timer_arm(struct ctrl_loop *loop, struct ctrl_timer *t, uint64_t in_ms)
{
	t->at_ns = 1;
}

void ctrl_timer_cancel(struct ctrl_loop *loop, struct ctrl_timer *t)
{
	t->at_ns = 0;
}

int ctrl_loop_post(struct ctrl_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct post *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct post){posts, fn, arg};
	posts = p;
	return 0;
}

void ctrl_loop_sent(struct ctrl_loop *loop)
{
}

void ctrl_loop_return(struct ctrl_io *io, int error)
{
	io->result = error;
	io->next = NULL;
	*ios_end = io;
	ios_end = &io->next;
}

void ctrl_loop_finish(struct ctrl_io *io, int error)
{
	ctrl_loop_return(io, error);
}

void server_call(struct ctrl_server *s, struct ctrl_loop *loop, void (*fn)(void *arg), void *arg)
{
	fn(arg);
}

bool ctrl_loop_is_current(const struct ctrl_loop *loop)
{
	return true;
}

void ctrl_loop_later(struct ctrl_loop *loop, struct ctrl_later *l)
{
	if (l->queued)
		return;
	l->queued = true;
	l->next = NULL;
	*laters_end = l;
	laters_end = &l->next;
}

void *ctrl_loop_buffer_get(struct ctrl_loop *loop, uint32_t len)
{
	void *p;

	expect(len && len <= BUFFER, "buffers are asked for within the limit");
	if (buffers == buffers_max)
		return NULL;
	p = malloc(len); /* exactly: so that what goes past it is seen */
	if (p) {
		memset(p, 0xa5, len);
		buffers++;
	}
	return p;
}

void ctrl_loop_buffer_put(struct ctrl_loop *loop, void *buf, uint32_t len)
{
	free(buf);
	buffers--;
}

void ctrl_loop_buffer_wait(struct ctrl_loop *loop, struct ctrl_buffer_wait *w)
{
	if (w->waiting)
		return;
	w->waiting = true;
	w->next = waits;
	waits = w;
}

void ctrl_loop_buffer_unwait(struct ctrl_loop *loop, struct ctrl_buffer_wait *w)
{
	struct ctrl_buffer_wait **at = &waits;

	if (!w->waiting)
		return;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	w->waiting = false;
}

/* Time passes whenever somebody looks: nothing comes so soon after another that it waits for more. */
uint64_t ctrl_now_ns(void)
{
	static uint64_t now;

	return now += 2000000;
}

/* ---- pools: what they do is done at once, and told later ---- */

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
	ctrl_loop_return(io, fn(io));
}

void ctrl_pool_submit(struct ctrl_io *io, int (*fn)(struct ctrl_io *io))
{
	ctrl_loop_return(io, fn(io));
}

uint32_t ctrl_pool_queued(struct ctrl_pool *p)
{
	return 0;
}

bool ctrl_pool_idle(struct ctrl_pool *p)
{
	return true;
}

void ctrl_pool_ref(void)
{
}

void ctrl_pool_unref(void)
{
}

/* ---- workers: a check likes every other program, a function answers what it was given, or a little ---- */

struct ctrl_worker {
	struct ctrl_job *job; /* NULL: released */
	uint8_t out[512];
	size_t have, at;
	bool posted, streams;
};

static void worker_step(void *arg)
{
	struct ctrl_worker *w = arg;

	w->posted = false;
	if (w->job)
		w->job->ready(w->job);
	else
		free(w);
}

static void worker_post(struct ctrl_worker *w)
{
	if (!w->posted && !ctrl_loop_post(NULL, worker_step, w))
		w->posted = true;
}

static void worker_end(struct ctrl_worker *w, int error)
{
	w->job->result.error = error;
	w->job->result.text_len =
		error ? (uint32_t)sprintf(w->job->text, "fuzz: it failed; so") : 0;
	w->job->ended = true;
	worker_post(w);
}

int ctrl_job_start(struct ctrl_job *job, struct ctrl_error *err)
{
	struct ctrl_worker *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	job->worker = w;
	w->job = job;
	if (job->kind == CTRL_JOB_CHECK) {
		worker_end(w, job->program->size & 1 ? -EINVAL : 0);
	} else if (job->fd < 0) {
		w->streams = true;
	} else {
		memset(w->out, 'o', sizeof(w->out));
		w->have = job->arg_len % sizeof(w->out);
		worker_end(w, job->arg_len & 1 ? -ERANGE : 0);
	}
	return 0;
}

size_t ctrl_job_output(struct ctrl_job *job, struct iovec out[2])
{
	struct ctrl_worker *w = job->worker;

	out[0] = (struct iovec){w->out + w->at, w->have - w->at};
	out[1] = (struct iovec){NULL, 0};
	return w->have - w->at;
}

void ctrl_job_consume(struct ctrl_job *job, size_t len)
{
	expect(len <= job->worker->have - job->worker->at, "output is taken once");
	job->worker->at += len;
	if (job->worker->at == job->worker->have)
		job->worker->at = job->worker->have = 0;
	worker_post(job->worker);
}

size_t ctrl_job_input(struct ctrl_job *job, const void *p, size_t len, bool last)
{
	struct ctrl_worker *w = job->worker;
	size_t room = sizeof(w->out) - w->have, n = len < room ? len : room;

	expect(w->streams && !job->ended, "input comes to whom it is for");
	if (n)
		memcpy(w->out + w->have, p, n);
	w->have += n;
	if (last && n == len)
		worker_end(w, 0);
	else if (n)
		worker_post(w);
	return n;
}

void ctrl_job_cancel(struct ctrl_job *job)
{
	if (!job->ended)
		worker_end(job->worker, -ECANCELED);
}

void ctrl_job_gate(struct ctrl_job *job, bool open)
{
}

uint64_t ctrl_job_cpu_ns(const struct ctrl_job *job)
{
	return 0;
}

void ctrl_job_release(struct ctrl_job *job)
{
	struct ctrl_worker *w = job->worker;

	job->worker = NULL;
	w->job = NULL;
	if (!w->posted)
		free(w);
}

void ctrl_workers_forget(struct ctrl_server *s, const struct ctrl_host *host)
{
}

/* ---- the server and its one store ---- */

static char export_dir[] = "/tmp/fuzz_nvme_pdu.XXXXXX";
static struct server_loop only_loop;
static struct ctrl_server server = {
	.loops = &only_loop,
	.n_loops = 1,
	.lambda_limits = {.max_running = 2,
			  .max_queued = 2,
			  .max_handles = 8,
			  .max_objects = 4,
			  .max_waiting = 4,
			  .max_request = 65536,
			  .max_program = 4096,
			  .program_memory = 16384,
			  .max_fuel = 1u << 30,
			  .max_memory = 1u << 30,
			  .max_output = 1u << 20,
			  .max_timeout_ns = 1000000000,
			  .ring = 65536,
			  .idle_ms = 1000,
			  .grace_ms = 1000},
};
static struct ctrl_subsystem *subsystems;
static const struct ctrl_limits limits = {
	.max_controllers = 4,
	.max_queue_entries = 16,
	.max_io_queues = 2,
	.max_transfer = BUFFER / 2,
	.in_capsule = 8192,
	.handshake_ms = 1000,
	.stall_ms = 1000,
};

const struct ctrl_limits *ctrl_server_limits(const struct ctrl_server *s)
{
	return &limits;
}

struct ctrl_subsystem *ctrl_server_subsystems(struct ctrl_server *s)
{
	return subsystems;
}

static int joined;

void ctrl_server_joined(struct ctrl_queue *q)
{
	joined++;
}

void ctrl_server_left(struct ctrl_queue *q)
{
	joined--;
}

void ctrl_server_began(const struct ctrl_cmd *cmd)
{
}

void ctrl_server_count(const struct ctrl_cmd *cmd, uint16_t status)
{
}

void ctrl_server_reject(struct ctrl_server *s, const char *why)
{
}

void ctrl_log(struct ctrl_server *s, const char *fmt, ...)
{
}

int ctrl_fail(struct ctrl_error *err, int code, const char *fmt, ...)
{
	return code;
}

void ctrl_store_close(struct ctrl_store *store)
{
}

int ctrl_parse_size(const char *text, uint64_t *bytes)
{
	return -EINVAL;
}

static void store_submit(struct ctrl_store *store, struct ctrl_io *io)
{
	if (io->op != CTRL_IO_FLUSH)
		expect(io->offset <= DISK && io->len <= DISK - io->offset,
		       "the store is asked for what it has");
	if (io->op == CTRL_IO_READ)
		memset(io->iov.iov_base, 0x5a, io->iov.iov_len);
	ctrl_loop_return(io, 0);
}

static const struct ctrl_store_ops store_ops = {.name = "fuzz", .submit = store_submit};
static struct ctrl_store store = {
	.ops = &store_ops,
	.geo = {.bytes = DISK,
		.block = 512,
		.preferred = 4096,
		.volatile_cache = true,
		.discard = true},
};

/* ---- a conversation ---- */

/* The end of a round of events, and those after it, until nothing more happens by itself. */
static void settle(void)
{
	while (laters || ios || posts) {
		struct ctrl_later *l = laters;
		struct ctrl_io *io = ios;
		struct post *p = posts;

		if (p) {
			posts = p->next;
			p->fn(p->arg);
			free(p);
		}
		if (io) {
			ios = io->next;
			if (!ios)
				ios_end = &ios;
			io->done(io, io->result);
		}
		if (waits && buffers < buffers_max) {
			struct ctrl_buffer_wait *w = waits;

			ctrl_loop_buffer_unwait(NULL, w);
			w->ready(w);
		}
		if (l) {
			laters = l->next;
			if (!laters)
				laters_end = &laters;
			l->queued = false;
			l->run(l);
		}
	}
}

static void say(struct wire *w, const uint8_t *p, size_t n)
{
	w->in = p;
	w->left = n;
	while (w->left && w->watch) {
		size_t before = w->left;

		w->watch->ready(w->watch, EPOLLIN);
		settle();
		if (w->left == before)
			return; /* it waits for a buffer that the connection itself holds */
	}
}

static void say_icreq(struct wire *w)
{
	struct nvme_tcp_icreq req = {.digest = (uint8_t)(hdgst | ddgst << 1)};

	nvme_tcp_init(&req.hdr, NVME_TCP_ICREQ, 0, false, false, 4, 0);
	say(w, (const uint8_t *)&req, sizeof(req));
}

static size_t put_capsule(uint8_t *to, const struct nvme_sqe *sqe, const void *data, uint32_t len)
{
	struct nvme_tcp_cmd pdu = {.sqe = *sqe};
	size_t at = sizeof(pdu);
	uint32_t crc;

	nvme_tcp_init(&pdu.hdr, NVME_TCP_CMD, 0, hdgst, ddgst, 4, len);
	memcpy(to, &pdu, sizeof(pdu));
	if (hdgst) {
		crc = htole32(nvme_crc32c(0, to, sizeof(pdu)));
		memcpy(to + at, &crc, sizeof(crc));
		at += sizeof(crc);
	}
	if (!len)
		return at;
	memcpy(to + at, data, len);
	at += len;
	if (ddgst) {
		crc = htole32(nvme_crc32c(0, data, len));
		memcpy(to + at, &crc, sizeof(crc));
		at += sizeof(crc);
	}
	return at;
}

static void say_connect(struct wire *w, uint16_t qid)
{
	struct nvme_connect_data data = {.cntlid = nvme_put16(qid ? 1 : NVME_CNTLID_DYNAMIC),
					 .subnqn = NQN,
					 .hostnqn = "nqn.2014-08.org.nvmexpress:host"};
	struct nvme_sqe connect = {
		.opcode = NVME_FABRICS,
		.flags = NVME_PSDT_SGL,
		.nsid = nvme_put32(NVME_FABRICS_CONNECT),
		.sgl = {.length = nvme_put32(sizeof(data)), .type = NVME_SGL_DATA_OFFSET},
		.cdw10 = nvme_put32((uint32_t)qid << 16),
		.cdw11 = nvme_put32(15)};
	struct nvme_sqe enable = {.opcode = NVME_FABRICS,
				  .flags = NVME_PSDT_SGL,
				  .nsid = nvme_put32(NVME_FABRICS_PROPERTY_SET),
				  .sgl = {.type = NVME_SGL_TRANSPORT_DATA},
				  .cdw11 = nvme_put32(NVME_PROP_CC),
				  .cdw12 = nvme_put32(0x460001)};
	uint8_t bytes[2048];

	say(w, bytes, put_capsule(bytes, &connect, &data, sizeof(data)));
	if (!qid)
		say(w, bytes, put_capsule(bytes, &enable, NULL, 0));
}

static struct wire *open_wire(void)
{
	struct wire *w = &wires[n_wires++];

	*w = (struct wire){.fd = eventfd(0, EFD_CLOEXEC)};
	expect(w->fd >= 0, "a descriptor");
	expect(!ctrl_tcp_serve(&server, NULL, w->fd), "a connection is served");
	return w;
}

static void check_headers(const uint8_t *data, size_t size)
{
	struct nvme_tcp_hdr hdr;
	uint32_t len, fei;

	if (size < sizeof(hdr))
		return;
	memcpy(&hdr, data, sizeof(hdr));
	for (int i = 0; i < 8; i++) {
		if (nvme_tcp_check(&hdr, i & 1, i & 2, i & 4, 8192, &len, &fei))
			continue;
		expect(hdr.hlen + (uint64_t)len <= nvme_get32(hdr.plen) && len <= 8192,
		       "data are within the PDU and its limit");
	}
}

static void clean_up(void)
{
	char path[sizeof(export_dir) + 8];

	ctrl_exports_free(&server);
	snprintf(path, sizeof(path), "%s/file", export_dir);
	unlink(path);
	rmdir(export_dir);
}

static void set_up(void)
{
	struct ctrl_error err;
	char text[sizeof(export_dir) + 16];
	FILE *file;

	expect(mkdtemp(export_dir), "a directory");
	atexit(clean_up);
	snprintf(text, sizeof(text), "%s/file", export_dir);
	file = fopen(text, "w");
	expect(file && fputs("exported", file) >= 0 && !fclose(file), "a file");
	snprintf(text, sizeof(text), "x=%s", export_dir);
	expect(!ctrl_exports_new(&server) && !ctrl_server_add_export(&server, text, &err),
	       "an export");
	expect(!ctrl_subsystem_new(&server, NQN, NULL, &subsystems, NULL), "a subsystem");
	expect(!ctrl_subsystem_add(subsystems, &store, NULL), "a namespace");
	expect(!ctrl_subsystem_new(&server, NVME_NQN_DISCOVERY, NULL, &subsystems->next, NULL),
	       "the discovery subsystem");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t steps[] = {1u << 30, 16384, 4096, 73, 7, 1, 100, 1500};
	struct wire *w;
	int stage;

	if (size < 2)
		return 0;
	stage = data[0] & 3;
	hdgst = data[0] & 4;
	ddgst = data[0] & 8;
	buffers_max = data[0] & 16 ? 1 : 64;
	step = 1u << 30;
	if (!subsystems)
		set_up();
	expect(!ctrl_lambda_start(&server, NULL), "hosts");
	check_headers(data + 2, size - 2);
	subsystems->next_cntlid = 1;
	n_wires = 0;
	w = open_wire();
	if (stage)
		say_icreq(w);
	if (stage > 1)
		say_connect(w, 0);
	if (stage > 2) {
		w = open_wire();
		say_icreq(w);
		say_connect(w, 1);
	}
	step = steps[data[1] & 7];
	say(w, data + 2, size - 2);
	for (int i = n_wires; i-- > 0;) {
		if (wires[i].watch)
			wires[i].watch->ready(wires[i].watch, EPOLLERR);
		settle();
	}
	expect(!joined && !buffers && !waits && !subsystems->controllers,
	       "a connection leaves nothing behind");
	expect(!ctrl_lambda_drain(&server, 0), "no run is left");
	expect(!atomic_load(&server.exports->objects), "no object is left");
	ctrl_lambda_free(&server);
	return 0;
}
