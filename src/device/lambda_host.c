/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_host.c - hosts by their NQN, the programs that they uploaded, and the server's part in computing.
 *
 * A host is kept for a while after its last controller went, so that it finds its programs again.  What is kept
 * of a program is the bytes as they came; only workers look into them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/lambda_private.h"
#include "device/server_private.h"

#define TICK_MS      8u
#define MIN_SWEEP_MS 100u
/* What a program counts at least, for each is a descriptor too. */
#define MIN_PROGRAM (64u << 10)

const struct ctrl_lambda_limits ctrl_lambda_limits_default = {
	.max_queued = 256,
	.max_handles = 256,
	.max_objects = 1024,
	.max_waiting = 64,
	.max_workers = 64,
	.max_request = 8u << 20,
	.max_program = 4u << 20,
	.program_memory = 64u << 20,
	.max_fuel = 1ull << 50,
	.max_memory = 1ull << 30,
	.max_output = 1ull << 40,
	.max_timeout_ns = 3600ull * 1000000000u,
	.ring = 4u << 20,
	.idle_ms = 60000,
	.grace_ms = 1000,
};

const struct ctrl_lambda_limits *ctrl_server_lambda(const struct ctrl_server *s)
{
	return &s->lambda_limits;
}

struct ctrl_lambda_server *lambda_server(const struct ctrl_server *s)
{
	return s->lambda;
}

struct ctrl_loop *lambda_first_loop(const struct ctrl_server *s)
{
	return s->loops[0].loop;
}

/* ---- programs ---- */

static uint64_t weight(uint64_t size)
{
	return size > MIN_PROGRAM ? size : MIN_PROGRAM;
}

static void program_unref(struct ctrl_program *prog)
{
	if (atomic_fetch_sub(&prog->refs, 1) != 1)
		return;
	close(prog->fd);
	free(prog);
}

/* Under the lock. */
static void program_unlink(struct ctrl_host *host, struct ctrl_program **at)
{
	struct ctrl_program *prog = *at;

	*at = prog->next;
	host->program_bytes -= weight(prog->size);
	program_unref(prog);
}

static bool program_idle(struct ctrl_program *prog)
{
	return atomic_load(&prog->refs) == 1;
}

struct ctrl_program *ctrl_program_find(struct ctrl_host *host, const uint8_t hash[32])
{
	struct ctrl_program *prog;

	pthread_mutex_lock(&host->ls->lock);
	for (prog = host->programs; prog; prog = prog->next) {
		if (!memcmp(prog->hash, hash, sizeof(prog->hash)))
			break;
	}
	if (prog) {
		atomic_fetch_add(&prog->refs, 1);
		prog->used_ns = ctrl_now_ns();
	}
	pthread_mutex_unlock(&host->ls->lock);
	return prog;
}

/* Under the lock: let the one go that was not used for longest. */
static bool unload_one(struct ctrl_host *host)
{
	struct ctrl_program **oldest = NULL;

	for (struct ctrl_program **at = &host->programs; *at; at = &(*at)->next) {
		if (program_idle(*at) && (!oldest || (*at)->used_ns < (*oldest)->used_ns))
			oldest = at;
	}
	if (oldest)
		program_unlink(host, oldest);
	return oldest;
}

int ctrl_program_add(struct ctrl_host *host, const uint8_t hash[32], int fd, uint64_t size,
		     struct ctrl_program **out)
{
	const uint64_t limit = ctrl_server_lambda(host->ls->server)->program_memory;
	struct ctrl_program *prog = ctrl_program_find(host, hash);

	*out = prog;
	if (prog) {
		close(fd);
		return 0;
	}
	prog = calloc(1, sizeof(*prog));
	if (!prog) {
		close(fd);
		return -ENOMEM;
	}
	memcpy(prog->hash, hash, sizeof(prog->hash));
	prog->fd = fd;
	prog->size = size;
	prog->host = host;
	prog->used_ns = ctrl_now_ns();
	atomic_init(&prog->refs, 2);
	pthread_mutex_lock(&host->ls->lock);
	while (host->program_bytes + weight(size) > limit && unload_one(host))
		;
	if (host->program_bytes + weight(size) > limit) {
		pthread_mutex_unlock(&host->ls->lock);
		close(fd);
		free(prog);
		return -ENOSPC;
	}
	prog->next = host->programs;
	host->programs = prog;
	host->program_bytes += weight(size);
	pthread_mutex_unlock(&host->ls->lock);
	*out = prog;
	return 0;
}

void ctrl_program_put(struct ctrl_program *prog)
{
	if (prog)
		program_unref(prog);
}

/* ---- hosts ---- */

static void sweep(struct ctrl_timer *t);

static void arm_sweep(struct ctrl_lambda_server *ls)
{
	uint64_t ms = ctrl_server_lambda(ls->server)->idle_ms / 4;

	ctrl_timer_arm(lambda_first_loop(ls->server), &ls->sweep,
		       ms < MIN_SWEEP_MS ? MIN_SWEEP_MS : ms);
}

static void sweep_posted(void *arg)
{
	struct ctrl_lambda_server *ls = arg;

	if (!ls->stopping && !ls->sweep.at_ns)
		arm_sweep(ls);
}

static void host_free(struct ctrl_host *host)
{
	sched_forget(&host->ls->sched, &host->sched);
	ctrl_workers_forget(host->ls->server, host);
	while (host->programs)
		program_unlink(host, &host->programs);
	free(host);
}

static void sweep(struct ctrl_timer *t)
{
	struct ctrl_lambda_server *ls =
		(struct ctrl_lambda_server *)((char *)t -
					      offsetof(struct ctrl_lambda_server, sweep));
	uint64_t idle_ns = ctrl_server_lambda(ls->server)->idle_ms * 1000000ull;
	uint64_t now = ctrl_now_ns();
	struct ctrl_host *gone = NULL;
	bool again;

	pthread_mutex_lock(&ls->lock);
	for (struct ctrl_host **at = &ls->hosts, *host; (host = *at);) {
		for (struct ctrl_program **p = &host->programs; *p;) {
			if (program_idle(*p) && now - (*p)->used_ns >= idle_ns)
				program_unlink(host, p);
			else
				p = &(*p)->next;
		}
		if (!host->refs && now - host->idle_since >= idle_ns) {
			*at = host->next;
			host->next = gone;
			gone = host;
		} else {
			at = &host->next;
		}
	}
	again = ls->sweep_armed = ls->hosts;
	pthread_mutex_unlock(&ls->lock);
	while (gone) {
		struct ctrl_host *host = gone;

		gone = host->next;
		host_free(host);
	}
	if (again)
		arm_sweep(ls);
}

struct ctrl_host *ctrl_host_get(struct ctrl_server *s, const char *hostnqn)
{
	struct ctrl_lambda_server *ls = s->lambda;
	struct ctrl_host *host;
	bool arm;

	pthread_mutex_lock(&ls->lock);
	for (host = ls->hosts; host && strcmp(host->nqn, hostnqn); host = host->next)
		;
	if (!host && (host = calloc(1, sizeof(*host)))) {
		memcpy(host->nqn, hostnqn, strnlen(hostnqn, NVME_NQN_MAX));
		host->ls = ls;
		host->next = ls->hosts;
		ls->hosts = host;
	}
	if (host)
		host->refs++;
	arm = host && !ls->sweep_armed;
	ls->sweep_armed |= arm;
	pthread_mutex_unlock(&ls->lock);
	/* Where that fails, what is idle stays. */
	if (arm)
		(void)ctrl_loop_post(lambda_first_loop(s), sweep_posted, ls);
	return host;
}

void ctrl_host_put(struct ctrl_host *host)
{
	if (!host)
		return;
	pthread_mutex_lock(&host->ls->lock);
	if (!--host->refs)
		host->idle_since = ctrl_now_ns();
	pthread_mutex_unlock(&host->ls->lock);
}

/* ---- turns ---- */

static struct lambda_turn *turn_of(struct sched_turn *t)
{
	return (struct lambda_turn *)t;
}

static void turn_start(struct sched_turn *t)
{
	ctrl_loop_return(&turn_of(t)->io, 0);
}

static void turn_gate(struct sched_turn *t, bool open)
{
	ctrl_job_gate(turn_of(t)->job, open);
}

static uint64_t turn_cpu(struct sched_turn *t)
{
	return ctrl_job_cpu_ns(turn_of(t)->job);
}

static const struct sched_ops sched_ops = {turn_start, turn_gate, turn_cpu, ctrl_now_ns};

static void turn_go(struct ctrl_io *io, int error)
{
	struct lambda_turn *t =
		(struct lambda_turn *)((char *)io - offsetof(struct lambda_turn, io));

	t->go(t, error);
}

bool turn_ask(struct ctrl_host *host, struct ctrl_loop *loop, struct lambda_turn *t)
{
	t->io = (struct ctrl_io){.loop = loop, .done = turn_go};
	if (sched_add(&host->ls->sched, &host->sched, &t->turn))
		return true;
	/* The way back needs no memory; its coming is noticed on this thread only. */
	ctrl_loop_sent(loop);
	return false;
}

bool turn_withdraw(struct ctrl_host *host, struct lambda_turn *t)
{
	if (!sched_withdraw(&host->ls->sched, &t->turn))
		return false;
	ctrl_loop_return(&t->io, -ECANCELED);
	return true;
}

static void tick(struct ctrl_timer *timer)
{
	struct ctrl_lambda_server *ls =
		(struct ctrl_lambda_server *)((char *)timer -
					      offsetof(struct ctrl_lambda_server, tick));
	bool again = sched_tick(&ls->sched);

	pthread_mutex_lock(&ls->lock);
	ls->tick_armed = again;
	pthread_mutex_unlock(&ls->lock);
	if (again)
		ctrl_timer_arm(lambda_first_loop(ls->server), timer, TICK_MS);
}

static void tick_posted(void *arg)
{
	struct ctrl_lambda_server *ls = arg;

	if (!ls->stopping && !ls->tick.at_ns)
		tick(&ls->tick);
}

void lambda_tick(struct ctrl_lambda_server *ls)
{
	bool arm;

	pthread_mutex_lock(&ls->lock);
	arm = !ls->tick_armed;
	ls->tick_armed = true;
	pthread_mutex_unlock(&ls->lock);
	if (arm && ctrl_loop_post(lambda_first_loop(ls->server), tick_posted, ls)) {
		pthread_mutex_lock(&ls->lock);
		ls->tick_armed = false;
		pthread_mutex_unlock(&ls->lock);
	}
}

void turn_started(struct ctrl_host *host, struct lambda_turn *t)
{
	t->began_ns = ctrl_now_ns();
	if (sched_started(&host->ls->sched, &t->turn, t->job->threads))
		lambda_tick(host->ls);
}

void turn_over(struct ctrl_host *host, struct lambda_turn *t)
{
	sched_over(&host->ls->sched, &t->turn, t->began_ns ? ctrl_now_ns() - t->began_ns : 0);
}

/* ---- the server's life ---- */

void lambda_live(struct ctrl_lambda_server *ls, int change)
{
	pthread_mutex_lock(&ls->lock);
	ls->live += (uint32_t)change;
	if (!ls->live)
		pthread_cond_broadcast(&ls->changed);
	pthread_mutex_unlock(&ls->lock);
}

int ctrl_lambda_start(struct ctrl_server *s, struct ctrl_error *err)
{
	struct ctrl_lambda_server *ls = calloc(1, sizeof(*ls));
	pthread_condattr_t attr;
	cpu_set_t set;

	if (!ls)
		return ctrl_fail(err, -ENOMEM, "server: out of memory");
	ls->server = s;
	ls->nothing = memfd_create("nothing", MFD_CLOEXEC);
	if (ls->nothing < 0) {
		free(ls);
		return ctrl_fail(err, -errno, "server: no memory file to be had: %s",
				 strerror(errno));
	}
	ls->cores = sched_getaffinity(0, sizeof(set), &set) ? 1 : (uint32_t)CPU_COUNT(&set);
	pthread_mutex_init(&ls->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ls->changed, &attr);
	pthread_condattr_destroy(&attr);
	ls->sweep.fire = sweep;
	ls->tick.fire = tick;
	sched_init(&ls->sched, &sched_ops, ls->cores, s->lambda_limits.max_running,
		   s->lambda_limits.max_queued);
	s->lambda = ls;
	return 0;
}

int ctrl_lambda_drain(struct ctrl_server *s, uint32_t ms)
{
	struct ctrl_lambda_server *ls = s->lambda;
	uint64_t end = ctrl_now_ns() + ms * 1000000ull;
	struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
	int rc = 0;

	pthread_mutex_lock(&ls->lock);
	while (ls->live && !rc)
		rc = pthread_cond_timedwait(&ls->changed, &ls->lock, &until);
	rc = ls->live ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&ls->lock);
	return rc;
}

static void stop(void *arg)
{
	struct ctrl_lambda_server *ls = arg;

	ls->stopping = true;
	ctrl_timer_cancel(lambda_first_loop(ls->server), &ls->sweep);
	ctrl_timer_cancel(lambda_first_loop(ls->server), &ls->tick);
}

void ctrl_lambda_stop(struct ctrl_server *s)
{
	if (s->lambda && s->n_loops)
		server_call(s, lambda_first_loop(s), stop, s->lambda);
}

void ctrl_lambda_free(struct ctrl_server *s)
{
	struct ctrl_lambda_server *ls = s->lambda;

	if (!ls)
		return;
	while (ls->hosts) {
		struct ctrl_host *host = ls->hosts;

		ls->hosts = host->next;
		while (host->programs)
			program_unlink(host, &host->programs);
		free(host);
	}
	close(ls->nothing);
	sched_free(&ls->sched);
	pthread_cond_destroy(&ls->changed);
	pthread_mutex_destroy(&ls->lock);
	free(ls);
	s->lambda = NULL;
}

/* ---- metrics ---- */

static void metric(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void ctrl_lambda_metrics(struct ctrl_server *s, FILE *out)
{
	static const char *const outcomes[LAMBDA_OUTCOMES] = {
		[LAMBDA_DONE] = "done",         [LAMBDA_FAILED] = "failed",
		[LAMBDA_REFUSED] = "refused",   [LAMBDA_CHANGED] = "changed",
		[LAMBDA_CANCELED] = "canceled",
	};
	struct lambda_counters *c = &s->lambda->counters;
	uint32_t queued, running;

	sched_load(&s->lambda->sched, &queued, &running);
	metric(out, "liod_lambda_runs_total", "counter", "Functions that ended, by outcome.");
	for (uint32_t i = 0; i < LAMBDA_OUTCOMES; i++)
		fprintf(out, "liod_lambda_runs_total{outcome=\"%s\"} %" PRIuFAST64 "\n",
			outcomes[i], atomic_load(&c->runs[i]));
	metric(out, "liod_lambda_queued", "gauge", "Functions that wait for their turn.");
	fprintf(out, "liod_lambda_queued %" PRIu32 "\n", queued);
	metric(out, "liod_lambda_running", "gauge", "Functions that have their turn.");
	fprintf(out, "liod_lambda_running %" PRIu32 "\n", running);
	metric(out, "liod_lambda_bytes_total", "counter",
	       "Bytes given to functions, returned by them, and written of that.");
	fprintf(out,
		"liod_lambda_bytes_total{way=\"in\"} %" PRIuFAST64
		"\nliod_lambda_bytes_total{way=\"out\"} %" PRIuFAST64
		"\nliod_lambda_bytes_total{way=\"written\"} %" PRIuFAST64 "\n",
		atomic_load(&c->bytes_in), atomic_load(&c->bytes_out),
		atomic_load(&c->bytes_written));
	metric(out, "liod_lambda_compute_seconds_total", "counter",
	       "Time that functions ran, summed over threads.");
	fprintf(out, "liod_lambda_compute_seconds_total %.6f\n",
		(double)atomic_load(&c->compute_ns) / 1e9);
	metric(out, "liod_lambda_busy_total", "counter", "Requests told to come again.");
	fprintf(out, "liod_lambda_busy_total %" PRIuFAST64 "\n", atomic_load(&c->busy));
}
