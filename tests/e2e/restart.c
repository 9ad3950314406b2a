/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restart.c - the host library over the real server, which is killed and started again meanwhile.
 *
 * The first argument is the path of liod.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "initiator/initiator.h"

#define BYTES   (8u << 20)
#define BLOCK   4096u
#define NQN     "nqn.2024-01.test:restart"
#define READERS 3
#define KILLS   4

static const char *liod;

struct server {
	pid_t pid;
	unsigned int port;
	char disk[64];
	int log;
};

static void start(struct server *s)
{
	char listen[32], line[1024], *at;
	int fds[2];
	FILE *f;

	snprintf(listen, sizeof(listen), "127.0.0.1:%u", s->port);
	assert_int_equal(pipe(fds), 0);
	s->pid = fork();
	if (!s->pid) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(liod, liod, "--listen", listen, "--nqn", NQN, "--namespace", s->disk, NULL);
		_exit(127);
	}
	close(fds[1]);
	f = fdopen(fds[0], "r");
	do
		assert_non_null(fgets(line, sizeof(line), f));
	while (!strstr(line, "event=listening"));
	at = strrchr(line, ':');
	s->port = (unsigned int)atoi(at + 1);
	s->log = dup(fds[0]); /* stays open, so that the server can write; what it says is short */
	fclose(f);
}

static void kill9(struct server *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	close(s->log);
}

static void fill(uint8_t *p, uint64_t block, uint8_t version)
{
	for (uint32_t i = 0; i < BLOCK; i++)
		p[i] = (uint8_t)(block * 31 + i * 7 + version);
}

static void set_up(struct server *s)
{
	uint8_t block[BLOCK];
	int fd;

	*s = (struct server){0};
	snprintf(s->disk, sizeof(s->disk), "/tmp/lio-restart-XXXXXX");
	fd = mkstemp(s->disk);
	assert_true(fd >= 0);
	for (uint64_t b = 0; b < BYTES / BLOCK; b++) {
		fill(block, b, 0);
		assert_int_equal(write(fd, block, BLOCK), BLOCK);
	}
	close(fd);
	start(s);
}

static struct nvme_host *join(const struct server *s)
{
	struct nvme_host_opts o = {.size = sizeof(o),
				   .subnqn = NQN,
				   .io_queues = 2,
				   .timeout_ms = 20000,
				   .reconnect_ms = 60000};
	struct nvme_host *host;
	char where[32];

	snprintf(where, sizeof(where), "127.0.0.1:%u", s->port);
	if (nvme_host_connect(where, &o, &host))
		fail_msg("%s", nvme_host_error());
	return host;
}

static void nap(long ms)
{
	struct timespec t = {0, ms * 1000000};

	nanosleep(&t, NULL);
}

struct reader {
	struct nvme_host *host;
	pthread_t thread;
	unsigned int seed;
	atomic_bool *stop;
	char wrong[256];
};

static void *read_and_check(void *arg)
{
	struct reader *r = arg;
	uint8_t *got = malloc(64 * BLOCK), want[BLOCK];

	while (!atomic_load(r->stop) && !r->wrong[0]) {
		uint64_t n = 1 + (r->seed = r->seed * 1103515245 + 12345) / 65536 % 64;
		uint64_t at = r->seed / 7 % (BYTES / BLOCK - n);

		if (nvme_host_read(r->host, 1, at * BLOCK, got, n * BLOCK))
			snprintf(r->wrong, sizeof(r->wrong), "%s", nvme_host_error());
		for (uint64_t i = 0; i < n && !r->wrong[0]; i++) {
			fill(want, at + i, 0);
			if (memcmp(want, got + i * BLOCK, BLOCK) != 0)
				snprintf(r->wrong, sizeof(r->wrong), "block %llu has other bytes",
					 (unsigned long long)(at + i));
		}
	}
	free(got);
	return NULL;
}

static void test_readers_do_not_notice_that_the_server_was_killed(void **state)
{
	struct reader readers[READERS];
	struct nvme_host_info info;
	struct server s;
	struct nvme_host *host;
	atomic_bool stop = false;

	set_up(&s);
	host = join(&s);
	for (unsigned int i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.host = host, .seed = i + 1, .stop = &stop};
		pthread_create(&readers[i].thread, NULL, read_and_check, &readers[i]);
	}
	for (int i = 0; i < KILLS; i++) {
		uint64_t before;

		nvme_host_info(host, &info);
		before = info.reconnects;
		kill9(&s);
		nap(20);
		start(&s);
		while (info.reconnects == before) {
			nap(5);
			nvme_host_info(host, &info);
		}
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_string_equal(readers[i].wrong, "");
	}
	nvme_host_free(host);
	kill9(&s);
	unlink(s.disk);
}

struct killer {
	struct server *server;
	atomic_bool done;
};

static void *kill_and_start(void *arg)
{
	struct killer *k = arg;

	for (int i = 0; i < KILLS; i++) {
		nap(100);
		kill9(k->server);
		nap(20);
		start(k->server);
	}
	atomic_store(&k->done, true);
	return NULL;
}

/* Each block is written once a round; of a write that ended with the connection it is not known what it did. */
static void test_a_write_that_succeeded_is_there_after_the_kill(void **state)
{
	uint8_t *got = malloc(BYTES), *version = calloc(1, BYTES / BLOCK), want[BLOCK];
	bool *unsure = calloc(BYTES / BLOCK, sizeof(*unsure));
	struct nvme_host_info info;
	struct nvme_host *host;
	struct server s;
	struct killer killer = {.server = &s};
	pthread_t thread;

	set_up(&s);
	host = join(&s);
	pthread_create(&thread, NULL, kill_and_start, &killer);
	for (uint64_t n = 0; !atomic_load(&killer.done); n++) {
		uint64_t b = n % (BYTES / BLOCK);
		int err;

		version[b]++;
		fill(want, b, version[b]);
		err = nvme_host_write(host, 1, b * BLOCK, want, BLOCK, true);
		if (err && err != -ECONNRESET)
			fail_msg("%d: %s", err, nvme_host_error());
		unsure[b] = err != 0;
	}
	pthread_join(thread, NULL);
	assert_int_equal(nvme_host_read(host, 1, 0, got, BYTES), 0);
	nvme_host_info(host, &info);
	assert_true(info.reconnects >= 1);
	for (uint64_t b = 0; b < BYTES / BLOCK; b++) {
		fill(want, b, version[b]);
		if (!unsure[b] && memcmp(want, got + b * BLOCK, BLOCK) != 0)
			fail_msg("block %llu is not what was written", (unsigned long long)b);
	}
	nvme_host_free(host);
	kill9(&s);
	unlink(s.disk);
	free(got);
	free(version);
	free(unsure);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_do_not_notice_that_the_server_was_killed),
		cmocka_unit_test(test_a_write_that_succeeded_is_there_after_the_kill),
	};

	if (argc < 2)
		return 2;
	liod = argv[1];
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
