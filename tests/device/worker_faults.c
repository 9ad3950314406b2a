/* SPDX-License-Identifier: Apache-2.0 */
/* What jobs promise when something is wrong: each ends, with an error that says why, and harms nobody else. */
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "worker_fixture.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif

static const char some[64] = "1234567\n";

static void assert_serves(struct fixture *f, struct ctrl_host *host)
{
	struct run r;

	run_init(&r, f, "total");
	r.job.host = host;
	run_over(&r, some, 8);
	run_ok(&r);
	assert_int_equal(r.len, 16);
	run_free(&r);
}

static void assert_ends(struct run *r, int code, const char *word)
{
	run_wait(r);
	if (r->job.result.error != code)
		fail_msg("error %d instead of %d: %s", r->job.result.error, code, r->job.text);
	if (!strstr(r->job.text, word))
		fail_msg("\"%s\" lacks \"%s\"", r->job.text, word);
	assert_int_equal(r->job.result.text_len, strlen(r->job.text));
}

/* Dead, if not buried: an orphan waits for whoever is process 1. */
static bool is_gone(pid_t pid)
{
	char path[64], state = 'Z';
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	in = fopen(path, "re");
	if (!in)
		return true;
	if (fscanf(in, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	fclose(in);
	return state == 'Z' || state == 'X';
}

static void cancel_now(void *arg)
{
	ctrl_job_cancel(&((struct run *)arg)->job);
}

static int setup(void **state)
{
	static struct fixture f;

	fixture_open(&f, NULL);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_close(*state);
	return 0;
}

/* As good as endless: by default the fuel of a call ends it within a second. */
static void init_spinning(struct run *r, struct fixture *f)
{
	run_init(r, f, "spin");
	run_over(r, some, 8);
	r->req.flags = NVME_LAMBDA_FUEL;
	r->req.fuel = UINT64_MAX;
}

static void start_spinning(struct run *r, struct fixture *f)
{
	init_spinning(r, f);
	run_start(r);
}

/* It is in the function: that takes processor time. */
static bool is_spinning(struct run *r)
{
	return ctrl_job_cpu_ns(&r->job) > 20000000;
}

static void await_spin(struct run *r)
{
	EVENTUALLY(seen(r, is_spinning));
}

/* ---- time ---- */

static void an_endless_loop_ends_with_its_deadline(void **state)
{
	struct run r;

	init_spinning(&r, *state);
	r.req.timeout_ns = 50000000;
	run_start(&r);
	assert_ends(&r, -ETIME, "");
	run_free(&r);
	assert_serves(*state, HOST(0));
}

static void an_endless_loop_ends_with_its_fuel(void **state)
{
	struct run r;

	init_spinning(&r, *state);
	r.req.fuel = 1000000;
	run_start(&r);
	assert_ends(&r, -ETIME, "fuel");
	assert_int_equal(r.job.result.tier, 2);
	run_free(&r);
}

/* ---- cancel in each state ---- */

static void a_running_function_is_cancelled(void **state)
{
	struct run r;

	start_spinning(&r, *state);
	await_spin(&r);
	on_loop(*state, cancel_now, &r);
	assert_ends(&r, -ECANCELED, "cancel");
	run_free(&r);
	assert_serves(*state, HOST(0));
}

/* What is there is taken afterwards. */
static void cancel_held(void *arg)
{
	cancel_now(arg);
	((struct run *)arg)->hold = false;
}

static void a_function_that_waits_for_its_reader_is_cancelled(void **state)
{
	static const struct ctrl_segment zeros = {UINT64_MAX, 16 * MIB};
	struct run r;

	run_init(&r, *state, "echo");
	r.job.segments = &zeros;
	r.job.n_segments = 1;
	r.job.size = zeros.length;
	r.hold = true;
	run_start(&r);
	EVENTUALLY(seen(&r, is_waiting));
	on_loop(*state, cancel_held, &r);
	assert_ends(&r, -ECANCELED, "");
	run_free(&r);
	assert_serves(*state, HOST(0));
}

static void a_function_that_waits_for_input_is_cancelled(void **state)
{
	struct run r;

	run_init(&r, *state, "total");
	run_start(&r);
	EVENTUALLY(seen(&r, is_waiting));
	on_loop(*state, cancel_now, &r);
	assert_ends(&r, -ECANCELED, "waiting for data");
	run_free(&r);
	assert_serves(*state, HOST(0));
}

static void begin_shut(void *arg)
{
	struct run *r = arg;

	run_begin(r);
	ctrl_job_gate(&r->job, false);
}

static void a_function_before_a_shut_gate_is_cancelled(void **state)
{
	struct run r;

	run_init(&r, *state, "sha256");
	run_over(&r, some, sizeof(some));
	/* A long source, most of it not there: the gate is met again before it ends. */
	on_loop(*state, begin_shut, &r);
	EVENTUALLY(seen(&r, is_waiting));
	on_loop(*state, cancel_now, &r);
	run_wait(&r);
	/* It may have passed before the gate was shut. */
	assert_true(r.job.result.error == -ECANCELED || !r.job.result.error);
	run_free(&r);
	assert_serves(*state, HOST(0));
}

static void start_and_cancel(void *arg)
{
	run_begin(arg);
	cancel_now(arg);
}

static void what_has_hardly_begun_is_cancelled(void **state)
{
	struct run r;

	init_spinning(&r, *state);
	on_loop(*state, start_and_cancel, &r);
	assert_ends(&r, -ECANCELED, "cancel");
	run_free(&r);
}

/* With more jobs of new hosts than processes there are, some wait for one to be made. */
static void what_waits_for_a_process_is_cancelled(void **state)
{
	struct run r[4];

	for (int i = 0; i < 4; i++) {
		init_spinning(&r[i], *state);
		r[i].job.host = HOST(1);
		on_loop(*state, start_and_cancel, &r[i]);
		assert_int_equal(r[i].rc, 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_ends(&r[i], -ECANCELED, "cancel");
		run_free(&r[i]);
	}
	assert_serves(*state, HOST(1));
}

/* ---- giving up ---- */

static void start_and_release(void *arg)
{
	struct run *r = arg;

	run_begin(r);
	ctrl_job_release(&r->job);
	r->released = true;
}

static void release_now(void *arg)
{
	struct run *r = arg;

	ctrl_job_release(&r->job);
	r->released = true;
}

static void a_job_can_be_given_up_at_any_time(void **state)
{
	struct run r[5];
	pid_t pid;

	for (int i = 0; i < 5; i++) {
		init_spinning(&r[i], *state);
		r[i].job.host = HOST(2);
		on_loop(*state, start_and_release, &r[i]);
	}
	for (int i = 0; i < 5; i++)
		run_free(&r[i]);
	start_spinning(&r[0], *state);
	await_spin(&r[0]);
	pid = r[0].pid;
	on_loop(*state, release_now, &r[0]);
	run_free(&r[0]);
	EVENTUALLY(is_gone(pid));
	assert_serves(*state, HOST(0));
	assert_serves(*state, HOST(2));
}

/* ---- processes that die or hang ---- */

static void a_worker_that_is_killed_ends_its_job_alone(void **state)
{
	struct run victim, other;

	start_spinning(&victim, *state);
	init_spinning(&other, *state);
	other.job.host = HOST(1);
	run_start(&other);
	await_spin(&victim);
	await_spin(&other);
	kill(victim.pid, SIGKILL);
	assert_ends(&victim, -EIO, "was killed");
	run_free(&victim);
	assert_serves(*state, HOST(0));
	assert_false(other.job.ended);
	on_loop(*state, cancel_now, &other);
	assert_ends(&other, -ECANCELED, "cancel");
	run_free(&other);
}

static void a_stopped_worker_is_killed_after_a_cancel(void **state)
{
	struct fixture f;
	struct ctrl_lambda_limits limits = fixture_limits;
	struct run r;
	pid_t pid;

	limits.grace_ms = 100;
	fixture_open(&f, &limits);
	start_spinning(&r, &f);
	await_spin(&r);
	pid = r.pid;
	kill(pid, SIGSTOP);
	on_loop(&f, cancel_now, &r);
	assert_ends(&r, -ECANCELED, "did not end by itself");
	run_free(&r);
	EVENTUALLY(is_gone(pid));
	assert_serves(&f, HOST(0));
	fixture_close(&f);
}

/* Stopped before it has even begun. */
static void a_stopped_worker_is_killed_after_its_deadline(void **state)
{
	struct fixture f;
	struct ctrl_lambda_limits limits = fixture_limits;
	struct run r;
	pid_t pid;

	limits.grace_ms = 100;
	fixture_open(&f, &limits);
	run_init(&r, &f, "total");
	run_over(&r, some, 8);
	run_ok(&r);
	pid = r.pid;
	run_free(&r);
	kill(pid, SIGSTOP);
	init_spinning(&r, &f);
	r.req.timeout_ns = 50000000;
	run_start(&r);
	assert_ends(&r, -ETIME, "did not end");
	assert_int_equal(r.pid, pid);
	run_free(&r);
	EVENTUALLY(is_gone(pid));
	assert_serves(&f, HOST(0));
	fixture_close(&f);
}

static void an_idle_worker_that_dies_is_replaced(void **state)
{
	struct run r;
	pid_t pid;

	assert_serves(*state, HOST(3));
	run_init(&r, *state, "total");
	r.job.host = HOST(3);
	run_over(&r, some, 8);
	run_ok(&r);
	pid = r.pid;
	run_free(&r);
	kill(pid, SIGKILL);
	EVENTUALLY(is_gone(pid));
	assert_serves(*state, HOST(3));
}

/* ---- what a source may do ---- */

static void a_truncated_file_is_an_error_and_no_crash(void **state)
{
	struct run r;
	pid_t pid = 0;

	for (int i = 0; i < 2; i++) {
		run_init(&r, *state, i ? "sha256" : "echo");
		r.job.fd = memory_file(some, sizeof(some));
		assert_int_equal(ftruncate(r.job.fd, 5 * MIB + 100), 0);
		r.job.size = 8 * MIB;
		r.job.host = HOST(4);
		run_start(&r);
		assert_ends(&r, -EIO, "truncated");
		assert_true(!pid || pid == r.pid);
		pid = r.pid;
		run_free(&r);
	}
}

static void a_descriptor_that_cannot_be_read_is_an_error(void **state)
{
	struct run r;

	run_init(&r, *state, "echo");
	r.job.fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	r.job.size = 100;
	run_start(&r);
	assert_ends(&r, -EBADF, "reading");
	run_free(&r);
}

#ifndef WITH_ASAN
/* A gibibyte of input and as much for output: more than the process may have. */
static void a_process_has_a_bound_on_memory(void **state)
{
	struct fixture f;
	struct ctrl_lambda_limits limits = fixture_limits;
	struct run r;

	limits.max_memory = MIB;
	fixture_open(&f, &limits);
	run_init(&r, &f, "echo");
	r.job.fd = memory_file(some, 8);
	assert_int_equal(ftruncate(r.job.fd, 1 << 30), 0);
	r.job.size = 1 << 30;
	r.req.memory = 4ull << 30;
	r.req.chunk = (1 << 30) - 16 * MIB;
	run_start(&r);
	assert_ends(&r, -ENOMEM, "memory");
	run_free(&r);
	assert_serves(&f, HOST(0));
	fixture_close(&f);
}
#endif

/* ---- how many ---- */

static void no_more_processes_than_allowed(void **state)
{
	struct fixture f;
	struct ctrl_lambda_limits limits = fixture_limits;
	struct run r[3];
	pid_t idle;

	limits.max_workers = 2;
	fixture_open(&f, &limits);
	/* An idle one of another host makes room. */
	run_init(&r[0], &f, "total");
	r[0].job.host = HOST(1);
	run_over(&r[0], some, 8);
	run_ok(&r[0]);
	idle = r[0].pid;
	run_free(&r[0]);
	for (int i = 0; i < 2; i++) {
		start_spinning(&r[i], &f);
		await_spin(&r[i]);
	}
	EVENTUALLY(is_gone(idle));
	run_init(&r[2], &f, "spin");
	r[2].job.host = HOST(2);
	on_loop(&f, run_begin, &r[2]);
	assert_int_equal(r[2].rc, -EAGAIN);
	assert_non_null(strstr(r[2].err.text, "busy"));
	run_free(&r[2]);
	for (int i = 0; i < 2; i++) {
		on_loop(&f, cancel_now, &r[i]);
		assert_ends(&r[i], -ECANCELED, "cancel");
		run_free(&r[i]);
	}
	fixture_close(&f);
}

static void an_idle_worker_is_let_go(void **state)
{
	struct fixture f;
	struct ctrl_lambda_limits limits = fixture_limits;
	struct run r;

	limits.idle_ms = 30;
	fixture_open(&f, &limits);
	run_init(&r, &f, "total");
	run_over(&r, some, 8);
	run_ok(&r);
	run_free(&r);
	EVENTUALLY(is_gone(r.pid));
	assert_serves(&f, HOST(0));
	fixture_close(&f);
}

static void a_server_without_workers_says_so(void **state)
{
	struct fixture f = {.server.lambda_limits = fixture_limits, .server.opts.log = fixture_log};
	struct ctrl_error err;
	struct run r;

	assert_int_equal(ctrl_workers_start(&f.server, "/bin/false", &err), -EIO);
	assert_non_null(strstr(err.text, "/bin/false"));
	assert_int_not_equal(ctrl_workers_start(&f.server, "/nowhere/liod-worker", &err), 0);
	assert_non_null(strstr(err.text, "No such file"));
	run_init(&r, &f, "total");
	assert_int_equal(ctrl_job_start(&r.job, &err), -ENOENT);
	assert_non_null(strstr(err.text, "liod-worker"));
	close(r.prog.fd);
}

/* ---- a worker in a stranger's hand ---- */

static void run_how(struct run *r, struct fixture *f, const char *how)
{
	run_init(r, f, NULL);
	program_from(&r->prog, how, how, strlen(how) + 1);
	run_over(r, some, 8);
	run_start(r);
}

static void nonsense_from_a_worker_costs_it_its_life(void **state)
{
	static const struct {
		const char *how, *word;
	} cases[] = {
		{"head-far", "nonsense"},    {"head-back", "nonsense"}, {"tail-ahead", "nonsense"},
		{"good-error", "nonsense"},  {"far-error", "nonsense"}, {"long-text", "nonsense"},
		{"bad-io", "nonsense"},      {"bad-tier", "nonsense"},  {"spam", "nonsense"},
		{"exit", "ended by itself"}, {"crash", "crashed"},
	};
	struct fixture f;

	fixture_open_path(&f, NULL, getenv("FAKE_WORKER"));
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct run r;
		pid_t pid;

		run_how(&r, &f, cases[i].how);
		assert_ends(&r, -EIO, cases[i].word);
		pid = r.pid;
		run_free(&r);
		EVENTUALLY(is_gone(pid));
	}
	fixture_close(&f);
}

static void what_a_worker_says_is_one_clean_line(void **state)
{
	struct fixture f;
	struct run r;

	fixture_open_path(&f, NULL, getenv("FAKE_WORKER"));
	run_how(&r, &f, "rude");
	assert_ends(&r, -7, "two?lines ?[2J");
	run_free(&r);
	fixture_close(&f);
}

/* A wake-up may cross our own look at what it is about; whoever slept on would sleep for ever. */
static void a_wake_up_for_nothing_is_not_the_last(void **state)
{
	struct fixture f;
	struct run r;

	fixture_open_path(&f, NULL, getenv("FAKE_WORKER"));
	run_how(&r, &f, "tease");
	assert_ends(&r, 0, "");
	assert_int_equal(r.len, 4);
	run_free(&r);
	fixture_close(&f);
}

static void a_silent_worker_is_ended(void **state)
{
	struct ctrl_lambda_limits limits = fixture_limits;
	struct fixture f;
	struct run r;

	limits.grace_ms = 20;
	limits.max_timeout_ns = 20000000;
	fixture_open_path(&f, &limits, getenv("FAKE_WORKER"));
	run_how(&r, &f, "silent");
	assert_ends(&r, -ETIME, "did not end");
	run_free(&r);
	fixture_close(&f);
}

/* Random values in all that a worker can write, and wake-ups at random: every job ends, we live. */
static void random_reports_do_no_harm(void **state)
{
	const char *rounds = getenv("TEST_ROUNDS");
	struct ctrl_lambda_limits limits = fixture_limits;
	struct fixture f;

	limits.grace_ms = 10;
	limits.max_timeout_ns = 30000000;
	fixture_open_path(&f, &limits, getenv("FAKE_WORKER"));
	for (int i = 0; i < (rounds ? atoi(rounds) : 60); i++) {
		char how[32];
		struct run r;

		snprintf(how, sizeof(how), "random%d", i);
		run_how(&r, &f, how);
		run_wait(&r);
		assert_in_range(-r.job.result.error, 0, 4095);
		assert_true(r.len <= 30 * limits.ring);
		run_free(&r);
	}
	fixture_close(&f);
}

/* ---- what a worker may do ---- */

/* A worker of its own that makes one call and should not live to see its result. */
static int status_of_try(const char *what)
{
	struct ctrl_workers sizes = {.limits = &fixture_limits};
	struct worker_command *command;
	int shared = memfd_create("shared", 0), pair[2], status;
	pid_t pid;

	worker_sizes(&sizes);
	assert_int_equal(ftruncate(shared, (off_t)sizes.shared_bytes), 0);
	command = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	assert_true(command != MAP_FAILED);
	command->abi = WORKER_ABI;
	command->out_bytes = sizes.out_bytes;
	command->in_bytes = sizes.in_bytes;
	command->payload_bytes = sizes.payload_bytes;
	command->data_limit = sizes.data_limit;
	munmap(command, 4096);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = fork();
	if (!pid) {
		char *argv[] = {(char *)"liod-worker", (char *)"--try", (char *)what, NULL};
		char *env[] = {NULL};
		int event = dup(pair[0]);

		dup2(pair[1], 100);
		dup2(shared, 101);
		dup2(event, 102);
		dup2(100, WORKER_FD_CONTROL);
		dup2(101, WORKER_FD_SHARED);
		dup2(102, WORKER_FD_EVENT);
		execve(getenv("LIOD_WORKER"), argv, env);
		_exit(127);
	}
	close(shared);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void calls_that_a_worker_may_not_make_kill_it(void **state)
{
	static const char *const calls[] = {
		"open",
		"stat",
		"socket",
		"execve",
		"ptrace",
		"kill",
		"mmap-exec",
		"mprotect-write-exec",
		"fork",
		"send",
		"recvmsg-elsewhere",
		"write-elsewhere",
		"memfd",
		"prctl",
		"io_uring",
		"bpf",
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		int status;

#ifdef WITH_ASAN
		/* The sanitizer needs these itself. */
		if (!strcmp(calls[i], "open") || !strcmp(calls[i], "stat") ||
		    !strcmp(calls[i], "prctl"))
			continue;
#endif
		status = status_of_try(calls[i]);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("%s: status %x", calls[i], (unsigned int)status);
	}
	/* It does live when it tries nothing. */
	assert_true(WIFEXITED(status_of_try("nothing")));
}

static void field_of(pid_t pid, const char *name, char *value, size_t cap)
{
	char path[64], line[256];
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	in = fopen(path, "re");
	assert_non_null(in);
	value[0] = '\0';
	while (fgets(line, sizeof(line), in)) {
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			snprintf(value, cap, "%s", line + strlen(name) + 1);
	}
	fclose(in);
}

static void a_worker_has_given_up_its_rights(void **state)
{
	struct rlimit limit;
	char value[256];
	struct run r;

	run_init(&r, *state, "total");
	run_over(&r, some, 8);
	run_ok(&r);
	field_of(r.pid, "NoNewPrivs", value, sizeof(value));
	assert_int_equal(atoi(value), 1);
	field_of(r.pid, "Seccomp", value, sizeof(value));
	assert_int_equal(atoi(value), 2);
	field_of(r.pid, "CapEff", value, sizeof(value));
	assert_int_equal(strtoull(value, NULL, 16), 0);
	field_of(r.pid, "CapPrm", value, sizeof(value));
	assert_int_equal(strtoull(value, NULL, 16), 0);
	if (!geteuid() && !prlimit(r.pid, RLIMIT_FSIZE, NULL, &limit))
		assert_int_equal(limit.rlim_max, 0);
	run_free(&r);
}

/* A server that is killed takes its workers along. */
static void no_worker_outlives_its_server(void **state)
{
	pid_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child = fork();
	int status;

	assert_true(shared != MAP_FAILED);
	if (!child) {
		static struct fixture f;
		static struct run r;

		fixture_open(&f, NULL);
		start_spinning(&r, &f);
		await_spin(&r);
		shared[0] = r.pid;
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EVENTUALLY(is_gone(shared[0]));
	munmap(shared, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_worker_outlives_its_server), /* first: it forks */
		cmocka_unit_test(calls_that_a_worker_may_not_make_kill_it),
		cmocka_unit_test_setup_teardown(an_endless_loop_ends_with_its_deadline, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_endless_loop_ends_with_its_fuel, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_running_function_is_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(a_function_that_waits_for_its_reader_is_cancelled,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_function_that_waits_for_input_is_cancelled, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_function_before_a_shut_gate_is_cancelled, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_has_hardly_begun_is_cancelled, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_waits_for_a_process_is_cancelled, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_job_can_be_given_up_at_any_time, setup, teardown),
		cmocka_unit_test_setup_teardown(a_worker_that_is_killed_ends_its_job_alone, setup,
						teardown),
		cmocka_unit_test(a_stopped_worker_is_killed_after_a_cancel),
		cmocka_unit_test(a_stopped_worker_is_killed_after_its_deadline),
		cmocka_unit_test_setup_teardown(an_idle_worker_that_dies_is_replaced, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_truncated_file_is_an_error_and_no_crash, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_descriptor_that_cannot_be_read_is_an_error, setup,
						teardown),
#ifndef WITH_ASAN
		cmocka_unit_test(a_process_has_a_bound_on_memory),
#endif
		cmocka_unit_test(no_more_processes_than_allowed),
		cmocka_unit_test(an_idle_worker_is_let_go),
		cmocka_unit_test(a_server_without_workers_says_so),
		cmocka_unit_test(nonsense_from_a_worker_costs_it_its_life),
		cmocka_unit_test(what_a_worker_says_is_one_clean_line),
		cmocka_unit_test(a_wake_up_for_nothing_is_not_the_last),
		cmocka_unit_test(a_silent_worker_is_ended),
		cmocka_unit_test(random_reports_do_no_harm),
		cmocka_unit_test_setup_teardown(a_worker_has_given_up_its_rights, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
