/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvme_io.c - plain IO over NVMe/TCP by our own host, and the same bytes over a bare TCP echo.
 *
 *   nvme_io HOST:PORT|echo [--nqn NQN] [--nsid N] [--mode randread|seqread|seqwrite|randwrite]
 *           [--bs BYTES] [--qd N] [--seconds S] [--queues N] [--pid SERVER] [--digest] [--file FILE [--direct]]
 *
 * Prints one line of JSON: operations, bandwidth, latency percentiles, CPU time of both ends.  The echo answers
 * a capsule of 72 bytes with a C2HData's 24 and the block (writes: 24 bytes for capsule and block), one process
 * each, blocking: what the machine's TCP costs without anybody's protocol.  With --file it reads each block from there first,
 * with --direct past the page cache: the least that a server of that file can do.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "initiator/initiator.h"

#define SUB_BUCKETS 64u /* to a power of two: percentiles are within 1.6 % */
#define CAPSULE     72u
#define RESPONSE    24u

struct args {
	const char *where, *nqn, *mode, *file;
	uint32_t nsid, bs, qd, queues;
	double seconds;
	int pid;
	bool digest, direct;
};

struct stats {
	uint64_t ops, sum_ns, max_ns;
	uint64_t buckets[64 * SUB_BUCKETS];
};

struct run {
	const struct args *args;
	struct nvme_host *host;
	struct nvme_host_ns ns;
	bool writes, random;
	uint64_t blocks, next, seed; /* blocks of bs bytes */
	uint64_t end_ns;
	uint32_t flying;
	struct stats stats;
};

struct op {
	struct nvme_req req;
	struct run *run;
	uint64_t start_ns;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "nvme_io: %s\n", what);
	exit(2);
}

/* ---- latencies ---- */

static unsigned int bucket(uint64_t ns)
{
	unsigned int top = ns < SUB_BUCKETS ? 0 : 63 - (unsigned int)__builtin_clzll(ns) - 6;

	return ns < SUB_BUCKETS ? (unsigned int)ns
				: (top + 1) * SUB_BUCKETS + (unsigned int)(ns >> top) - SUB_BUCKETS;
}

static uint64_t bucket_ns(unsigned int b)
{
	unsigned int top = b / SUB_BUCKETS;

	return top ? (uint64_t)(b % SUB_BUCKETS + SUB_BUCKETS) << (top - 1) : b;
}

static void note(struct stats *s, uint64_t ns)
{
	s->ops++;
	s->sum_ns += ns;
	s->max_ns = ns > s->max_ns ? ns : s->max_ns;
	s->buckets[bucket(ns)]++;
}

static double percentile_us(const struct stats *s, double share)
{
	uint64_t want = (uint64_t)((double)s->ops * share), seen = 0;
	unsigned int b = 0;

	while (b < sizeof(s->buckets) / sizeof(*s->buckets) - 1 && (seen += s->buckets[b]) <= want)
		b++;
	return (double)bucket_ns(b) / 1000;
}

static double cpu_of(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* User and system time of another process so far, in seconds. */
static double cpu_of_pid(int pid)
{
	unsigned long user = 0, system = 0;
	char path[64], line[1024], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f) || !(p = strrchr(line, ')')) ||
	    sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) !=
		    2)
		die("--pid: no such process");
	fclose(f);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void report(const struct args *a, const struct stats *s, double seconds, double client_cpu,
		   double server_cpu)
{
	double ops = (double)s->ops;

	printf("{\"target\": \"%s\", \"mode\": \"%s\", \"bs\": %u, \"qd\": %u, \"seconds\": %.3f, "
	       "\"ops\": %llu, \"iops\": %.0f, \"mb_per_s\": %.1f, "
	       "\"latency_us\": {\"mean\": %.2f, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, "
	       "\"p999\": %.2f, \"max\": %.2f}, \"client_cpu_s\": %.3f, \"server_cpu_s\": %.3f, "
	       "\"iops_per_server_cpu_s\": %.0f}\n",
	       strcmp(a->where, "echo") == 0 ? "echo" : "nvme", a->mode, a->bs, a->qd, seconds,
	       (unsigned long long)s->ops, ops / seconds, ops * a->bs / seconds / 1e6,
	       (double)s->sum_ns / (ops > 0 ? ops : 1) / 1000, percentile_us(s, 0.5),
	       percentile_us(s, 0.9), percentile_us(s, 0.99), percentile_us(s, 0.999),
	       (double)s->max_ns / 1000, client_cpu, server_cpu,
	       server_cpu > 0 ? ops / server_cpu : 0);
}

/* ---- NVMe ---- */

static uint64_t pick(struct run *r)
{
	if (!r->random)
		return r->next++ % r->blocks;
	r->seed ^= r->seed << 13;
	r->seed ^= r->seed >> 7;
	r->seed ^= r->seed << 17;
	return r->seed % r->blocks;
}

static void prepare(struct op *op)
{
	struct run *r = op->run;
	uint32_t n = r->args->bs / r->ns.block;
	uint64_t lba = pick(r) * n;

	op->req.sqe = (struct nvme_sqe){
		.opcode = r->writes ? NVME_NVM_WRITE : NVME_NVM_READ,
		.nsid = nvme_put32(r->args->nsid),
		.cdw10 = nvme_put32((uint32_t)lba),
		.cdw11 = nvme_put32((uint32_t)(lba >> 32)),
		.cdw12 = nvme_put32(n - 1),
	};
	op->start_ns = now();
}

static void finish(struct op *op, int error)
{
	if (error || nvme_get16(op->req.cqe.status) >> 1)
		die("a command failed");
	note(&op->run->stats, now() - op->start_ns);
}

static void on_done(struct nvme_req *req, int error)
{
	struct op *op = req->arg;

	finish(op, error);
	op->run->flying--;
	if (now() >= op->run->end_ns)
		return;
	prepare(op);
	op->run->flying++;
	if (nvme_host_submit(op->run->host, req))
		die(nvme_host_error());
}

static void run_one(struct run *r, struct op *op)
{
	while (now() < r->end_ns) {
		prepare(op);
		if (nvme_host_execute(r->host, &op->req))
			die(nvme_host_error());
		finish(op, 0);
	}
}

static void run_deep(struct run *r, struct op *ops)
{
	for (uint32_t i = 0; i < r->args->qd; i++) {
		prepare(&ops[i]);
		r->flying++;
		if (nvme_host_submit(r->host, &ops[i].req))
			die(nvme_host_error());
	}
	while (r->flying)
		nvme_host_wait(r->host, -1);
}

static void nvme(const struct args *a)
{
	struct nvme_host_opts opts = {
		.size = sizeof(opts),
		.subnqn = a->nqn,
		.io_queues = a->queues,
		.header_digest = a->digest,
		.data_digest = a->digest,
	};
	static struct run r;
	struct op *ops = calloc(a->qd, sizeof(*ops));
	uint8_t *data = aligned_alloc(4096, (size_t)a->qd * a->bs);
	double server = a->pid ? cpu_of_pid(a->pid) : 0, client;
	uint64_t start;

	if (!ops || !data)
		die("no memory");
	r = (struct run){.args = a, .seed = 0x9e3779b97f4a7c15};
	r.random = strncmp(a->mode, "rand", 4) == 0;
	r.writes = strstr(a->mode, "write") != NULL;
	memset(data, 0x5a, (size_t)a->qd * a->bs);
	if (nvme_host_connect(a->where, &opts, &r.host) ||
	    nvme_host_namespace(r.host, a->nsid, &r.ns))
		die(nvme_host_error());
	r.blocks = r.ns.blocks / (a->bs / r.ns.block);
	for (uint32_t i = 0; i < a->qd; i++) {
		ops[i].run = &r;
		ops[i].req = (struct nvme_req){.data = data + (size_t)i * a->bs,
					       .len = a->bs,
					       .to_controller = r.writes,
					       .queue = -1,
					       .done = on_done,
					       .arg = &ops[i]};
		if (a->queues > 1)
			ops[i].req.queue = (int)(1 + i % a->queues);
	}
	client = cpu_of(RUSAGE_SELF);
	start = now();
	r.end_ns = start + (uint64_t)(a->seconds * 1e9);
	if (a->qd == 1)
		run_one(&r, ops);
	else
		run_deep(&r, ops);
	report(a, &r.stats, (double)(now() - start) / 1e9, cpu_of(RUSAGE_SELF) - client,
	       a->pid ? cpu_of_pid(a->pid) - server : 0);
	nvme_host_free(r.host);
	free(ops);
	free(data);
}

/* ---- echo ---- */

static bool send_all(int fd, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* Header and block as they lie, in one call. */
static bool send_block(int fd, uint8_t *head, uint8_t *block, size_t len)
{
	struct iovec iov[] = {{head, RESPONSE}, {block, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)(RESPONSE + len);
}

static bool recv_all(int fd, uint8_t *p, size_t len)
{
	return recv(fd, p, len, MSG_WAITALL) == (ssize_t)len;
}

static void echo_server(int listener, size_t ask, size_t answer, const struct args *a)
{
	int fd = accept(listener, NULL, NULL), on = 1, file = -1;
	struct run r = {.random = true, .seed = 0x9e3779b97f4a7c15};
	uint8_t *in = calloc(a->qd, ask), *out = calloc(a->qd, answer);
	uint8_t *block = aligned_alloc(4096, a->bs);
	size_t have = 0, qd = a->qd;

	if (a->file) {
		file = open(a->file, O_RDONLY | O_CLOEXEC | (a->direct ? O_DIRECT : 0));
		r.blocks = file < 0 ? 0 : (uint64_t)lseek(file, 0, SEEK_END) / a->bs;
		if (!r.blocks || answer < a->bs)
			die("echo: --file: cannot be read, or nothing is read in this mode");
	}

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	for (;;) {
		ssize_t n = recv(fd, in + have, qd * ask - have, 0);
		size_t whole;

		if (n <= 0)
			_exit(0);
		have += (size_t)n;
		whole = have / ask;
		have %= ask;
		for (size_t i = 0; i < whole && file >= 0; i++) {
			if (pread(file, block, a->bs, (off_t)(pick(&r) * a->bs)) != (ssize_t)a->bs)
				die("echo: pread");
		}
		if (!(file >= 0 && whole == 1 ? send_block(fd, out, block, a->bs)
					      : send_all(fd, out, whole * answer)))
			_exit(0);
	}
}

static int echo_connect(int listener)
{
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	getsockname(listener, (struct sockaddr *)&at, &len);
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)))
		die("echo: connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void echo(const struct args *a)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool writes = strstr(a->mode, "write") != NULL;
	size_t ask = CAPSULE + (writes ? a->bs : 0), answer = RESPONSE + (writes ? 0 : a->bs);
	uint8_t *out = calloc(a->qd, ask), *in = calloc(a->qd, answer);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
	uint64_t *starts = calloc(a->qd, sizeof(*starts)), start, end, i;
	static struct stats s;
	double client;

	if (!out || !in || !starts || bind(listener, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(listener, 1))
		die("echo: listen");
	if (fork() == 0)
		echo_server(listener, ask, answer, a);
	fd = echo_connect(listener);
	client = cpu_of(RUSAGE_SELF);
	start = now();
	end = start + (uint64_t)(a->seconds * 1e9);
	for (i = 0; i < a->qd; i++)
		starts[i] = start;
	if (!send_all(fd, out, a->qd * ask))
		die("echo: send");
	/* As answers come, as many are asked for again. */
	for (i = 0; starts[i % a->qd]; i++) {
		if (!recv_all(fd, in, answer))
			die("echo: recv");
		note(&s, now() - starts[i % a->qd]);
		starts[i % a->qd] = now() < end ? now() : 0;
		if (starts[i % a->qd] && !send_all(fd, out, ask))
			die("echo: send");
	}
	client = cpu_of(RUSAGE_SELF) - client;
	start = now() - start;
	close(fd);
	wait(NULL);
	report(a, &s, (double)start / 1e9, client, cpu_of(RUSAGE_CHILDREN));
	free(out);
	free(in);
	free(starts);
}

/* ---- words ---- */

static const char *value(int argc, char **argv, int *i)
{
	if (++*i >= argc)
		die("an option's value is missing");
	return argv[*i];
}

int main(int argc, char **argv)
{
	struct args a = {
		.mode = "randread", .nsid = 1, .bs = 4096, .qd = 1, .queues = 1, .seconds = 2};

	for (int i = 1; i < argc; i++) {
		const char *w = argv[i];

		if (strcmp(w, "--nqn") == 0)
			a.nqn = value(argc, argv, &i);
		else if (strcmp(w, "--mode") == 0)
			a.mode = value(argc, argv, &i);
		else if (strcmp(w, "--nsid") == 0)
			a.nsid = (uint32_t)atoi(value(argc, argv, &i));
		else if (strcmp(w, "--bs") == 0)
			a.bs = (uint32_t)atoi(value(argc, argv, &i));
		else if (strcmp(w, "--qd") == 0)
			a.qd = (uint32_t)atoi(value(argc, argv, &i));
		else if (strcmp(w, "--queues") == 0)
			a.queues = (uint32_t)atoi(value(argc, argv, &i));
		else if (strcmp(w, "--seconds") == 0)
			a.seconds = atof(value(argc, argv, &i));
		else if (strcmp(w, "--pid") == 0)
			a.pid = atoi(value(argc, argv, &i));
		else if (strcmp(w, "--digest") == 0)
			a.digest = true;
		else if (strcmp(w, "--file") == 0)
			a.file = value(argc, argv, &i);
		else if (strcmp(w, "--direct") == 0)
			a.direct = true;
		else if (w[0] == '-' || a.where)
			die("unknown option; see the top of nvme_io.c");
		else
			a.where = w;
	}
	if (!a.where || !a.bs || a.bs % 512 || !a.qd || a.seconds <= 0)
		die("usage: nvme_io HOST:PORT|echo [OPTIONS]; see the "
		    "top of nvme_io.c");
	if (strcmp(a.where, "echo") == 0)
		echo(&a);
	else
		nvme(&a);
	return 0;
}
