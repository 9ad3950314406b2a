/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_spawn.c - one worker process: what it shares with us, how it starts, how it is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "device/worker_private.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Descriptors are moved up here first, so that none is in the way of those that a worker begins with. */
#define ABOVE 16
/* From exec to ready; a machine under load takes its time. */
#define READY_MS 30000
/* A job's arguments up to here stay in memory from job to job. */
#define SMALL_PAYLOAD (64u << 10)
/* Beside what functions may have: programs, sandboxes that wait, stacks, output that waits for its turn. */
#define DATA_FIXED  (1ull << 30)
#define DATA_THREAD (96ull << 20)

/* ---- the executable ---- */

static char *in_directory(const char *dir, size_t len, const char *rest)
{
	char *path;

	if (asprintf(&path, "%.*s%s", (int)len, dir, rest) < 0)
		return NULL;
	if (!access(path, X_OK))
		return path;
	free(path);
	return NULL;
}

/* The tree may have been put anywhere, so from where this program is; its own worker, not another version's. */
char *worker_find(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *end;
	char *path = NULL;

	if (n > 0) {
		self[n] = '\0';
		end = strrchr(self, '/');
		path = in_directory(self, (size_t)(end - self), "/liod-worker");
		if (!path)
			path = in_directory(self, (size_t)(end - self),
					    "/../" LIOD_LIBEXEC "/liod-worker");
	}
	return path ? path : in_directory("", 0, LIOD_LIBEXEC_DIR "/liod-worker");
}

/* ---- what is shared ---- */

static uint64_t pages(uint64_t bytes)
{
	return (bytes + WORKER_PAGE - 1) & ~(uint64_t)(WORKER_PAGE - 1);
}

void worker_sizes(struct ctrl_workers *pool)
{
	const struct ctrl_lambda_limits *lim = pool->limits;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t threads = cores > 0 ? (uint64_t)cores : 1;

	threads = threads < WORKER_THREADS ? threads : WORKER_THREADS;
	pool->out_bytes = pool->in_bytes = pages(lim->ring ? lim->ring : WORKER_PAGE);
	pool->payload_bytes = pages(lim->max_request + SMALL_PAYLOAD +
				    CTRL_MAX_SEGMENTS * sizeof(struct worker_segment));
	pool->shared_bytes = WORKER_OUT_AT + pool->out_bytes + pool->in_bytes + pool->payload_bytes;
	pool->data_limit = DATA_FIXED + threads * (lim->max_memory + DATA_THREAD);
}

int worker_populate(void *p, uint64_t len)
{
	if (!madvise(p, len, MADV_POPULATE_WRITE))
		return 0;
	/* Kernels before 5.14 do without. */
	return errno == EINVAL ? 0 : -ENOMEM;
}

static int share(const struct ctrl_workers *pool, struct ctrl_worker *w, int *fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	void *p;

	*fd = memfd_create("liod-worker", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (*fd < 0 && errno == EINVAL)
		*fd = memfd_create("liod-worker", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return -errno;
	if (ftruncate(*fd, (off_t)pool->shared_bytes) || fcntl(*fd, F_ADD_SEALS, seals))
		return -errno;
	p = mmap(NULL, pool->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	w->shared = p;
	w->command = p;
	w->report = (struct worker_report *)(w->shared + WORKER_REPORT_AT);
	w->out = w->shared + WORKER_OUT_AT;
	w->in = w->out + pool->out_bytes;
	w->payload = w->in + pool->in_bytes;
	/* The input's ring only with the first stream. */
	if (worker_populate(p, WORKER_OUT_AT + pool->out_bytes) ||
	    worker_populate(w->payload, SMALL_PAYLOAD))
		return -ENOMEM;
	w->command->abi = WORKER_ABI;
	w->command->pid = (uint32_t)getpid();
	w->command->out_bytes = pool->out_bytes;
	w->command->in_bytes = pool->in_bytes;
	w->command->payload_bytes = pool->payload_bytes;
	w->command->data_limit = pool->data_limit;
	w->command->program_max = pool->limits->max_program;
	return 0;
}

/* ---- starting ---- */

/* Its descriptors as they will be there. */
struct ends {
	int control, shared, event;
};

static int lift(int *fd)
{
	int up;

	if (*fd >= ABOVE)
		return 0;
	up = fcntl(*fd, F_DUPFD_CLOEXEC, ABOVE);
	if (up < 0)
		return -errno;
	close(*fd);
	*fd = up;
	return 0;
}

static int make_ends(struct ctrl_worker *w, struct ends *e)
{
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	w->control = pair[0];
	e->control = pair[1];
	w->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event < 0)
		return -errno;
	e->event = fcntl(w->event, F_DUPFD_CLOEXEC, ABOVE);
	if (e->event < 0)
		return -errno;
	/* It can only listen, and nothing that it sends can ever wait for us. */
	if (shutdown(e->control, SHUT_WR))
		return -errno;
	rc = lift(&e->control);
	return rc ? rc : lift(&e->shared);
}

static int file_actions(posix_spawn_file_actions_t *fa, const struct ends *e)
{
	int rc = posix_spawn_file_actions_addopen(fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

	if (!rc)
		rc = posix_spawn_file_actions_addopen(fa, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(fa, e->control, WORKER_FD_CONTROL);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(fa, e->shared, WORKER_FD_SHARED);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(fa, e->event, WORKER_FD_EVENT);
	if (!rc)
		rc = posix_spawn_file_actions_addclosefrom_np(fa, WORKER_FD_EVENT + 1);
	return rc;
}

/*
 * A process group of its own: a terminal's signals are for the server, which then ends its workers.  Not a
 * session: the kernel may share cores out by session, whatever the priorities in them.
 */
static int attributes(posix_spawnattr_t *attr)
{
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	rc = posix_spawnattr_setsigmask(attr, &none);
	if (!rc)
		rc = posix_spawnattr_setsigdefault(attr, &all);
	if (!rc)
		rc = posix_spawnattr_setpgroup(attr, 0);
	if (!rc)
		rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
							    POSIX_SPAWN_SETPGROUP);
	return rc;
}

static int execute(struct ctrl_workers *pool, struct ctrl_worker *w, const struct ends *e)
{
	char *argv[] = {(char *)"liod-worker", NULL}, *env[] = {NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	int rc;

	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	rc = file_actions(&fa, e);
	if (!rc)
		rc = attributes(&attr);
	if (!rc)
		rc = posix_spawn(&w->pid, pool->path, &fa, &attr, argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return -rc;
}

static int start(struct ctrl_workers *pool, struct ctrl_worker *w, struct ends *e)
{
	int rc = share(pool, w, &e->shared);

	if (!rc)
		rc = make_ends(w, e);
	if (!rc)
		rc = execute(pool, w, e);
	if (rc)
		return rc;
	w->pidfd = (int)syscall(SYS_pidfd_open, w->pid, 0);
	return w->pidfd < 0 ? -errno : 0;
}

static void close_end(int fd)
{
	if (fd >= 0)
		close(fd);
}

int worker_spawn(struct ctrl_workers *pool, struct ctrl_worker **out, struct ctrl_error *err)
{
	struct ctrl_worker *w = calloc(1, sizeof(*w));
	struct ends e = {-1, -1, -1};
	int rc;

	if (!w)
		return ctrl_fail(err, -ENOMEM, "worker: out of memory");
	w->pool = pool;
	w->refs = 1;
	w->pidfd = w->control = w->event = -1;
	rc = start(pool, w, &e);
	close_end(e.control);
	close_end(e.shared);
	close_end(e.event);
	if (rc) {
		/* Started, and then no descriptor of it was to be had: it ends with its control socket. */
		worker_free(w);
		return ctrl_fail(err, rc, "worker: %s cannot be started: %s", pool->path,
				 strerror(-rc));
	}
	*out = w;
	return 0;
}

int worker_await(struct ctrl_worker *w, struct ctrl_error *err)
{
	struct pollfd fds[2] = {{w->event, POLLIN, 0}, {w->pidfd, POLLIN, 0}};

	while (poll(fds, 2, READY_MS) < 0 && errno == EINTR)
		;
	if (atomic_load(&w->report->ready))
		return 0;
	return ctrl_fail(err, -EIO, "worker: %s %s; its own message says more", w->pool->path,
			 fds[1].revents ? "ended before it was ready" : "does not get ready");
}

/* ---- ending ---- */

void worker_kill(const struct ctrl_worker *w)
{
	syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}

void worker_free(struct ctrl_worker *w)
{
	close_end(w->pidfd);
	close_end(w->control);
	close_end(w->event);
	if (w->shared)
		munmap(w->shared, w->pool->shared_bytes);
	free(w);
}
