/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The optimizing compiler's process may do what it likes: its program runs on as before, and says why.  And AUTO takes up
 * better code when, and only when, there was enough to do.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "insns.h"
#include "sbpf/tier_llvm.h"

static const char *real_compiler;
static char dir[] = "/tmp/compile-XXXXXX", compiler[64], notes[64];

/* What stands in for the compiler: a shell's script, or the compiler itself. */
static void the_compiler_is(const char *script)
{
	FILE *f;

	unlink(compiler);
	unlink(notes);
	if (!script) {
		assert_int_equal(symlink(real_compiler, compiler), 0);
		return;
	}
	f = fopen(compiler, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\necho $$ >>%s\n%s\n", notes, script);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(compiler, 0700), 0);
}

/* Processes that ran as the compiler; the last one's id. */
static unsigned int started(pid_t *last)
{
	FILE *f = fopen(notes, "r");
	unsigned int n = 0;
	int pid;

	while (f && fscanf(f, "%d", &pid) == 1) {
		*last = pid;
		n++;
	}
	if (f)
		fclose(f);
	return n;
}

static pid_t wait_started(void)
{
	pid_t pid = 0;

	while (!started(&pid))
		usleep(1000);
	return pid;
}

/* Returns 21 in a few steps. */
static struct sbpf_program *sample(void)
{
	return ASSEMBLE(MOV(0, 0), MOV(1, 6), ADDR(0, 1), ADD(1, -1), JNE(1, 0, -3), EXIT);
}

static void runs_on(struct sbpf_program *prog, enum sbpf_tier asked, enum sbpf_tier want)
{
	struct sbpf_sandbox *sb = take(prog);
	struct sbpf_call call = a_call(asked, 0, 0);

	assert_int_equal(sbpf_run(sb, &call, NULL), 0);
	assert_int_equal(call.r0, 21);
	assert_int_equal(call.ran, want);
	sbpf_sandbox_put(sb);
}

#define HOT 3600000000000ull

static bool is_better(struct sbpf_program *prog)
{
	struct sbpf_code_info info = {.size = sizeof(info)};

	assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_AUTO, &info, NULL), 0);
	return info.tier == SBPF_TIER_LLVM;
}

/* Until nothing is to be expected any more. */
static void heat(struct sbpf_program *prog)
{
	for (int i = 0; i < 60000 && prog->heat.look_ns != UINT64_MAX; i++) {
		sbpf_program_spent(prog, HOT);
		usleep(1000);
	}
	assert_int_equal(prog->heat.look_ns, UINT64_MAX);
}

static unsigned int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ---- a compiler that fails ---- */

static const struct {
	const char *script, *why;
} failures[] = {
	{"kill -9 $$", "ended without an answer"},
	{"exit 7", "ended without an answer"},
	{"exit 0", "ended without an answer"},
	{"echo garbage >&4", "it is cut short"},
	{"i=0; while [ $i -lt 500 ]; do echo garbage garbage; i=$((i+1)); done >&4", "its head"},
	{"while :; do :; done", "longer than 1 seconds"},
};

static void asked_for_it_fails_and_says_why(void **state)
{
	for (size_t i = 0; i < N_ELEMS(failures); i++) {
		struct sbpf_program *prog = sample();
		struct sbpf_error err = {0};

		the_compiler_is(failures[i].script);
		/* Only the endless one is to be late, also on a busy machine. */
		sbpf_llvm_seconds = strstr(failures[i].why, "longer") ? 1 : 60;
		assert_true(sbpf_program_compile(prog, SBPF_TIER_LLVM, NULL, &err) < 0);
		if (!strstr(err.text, failures[i].why))
			fail_msg("%s: %s", failures[i].script, err.text);
		runs_on(prog, SBPF_TIER_TEMPLATE, SBPF_TIER_TEMPLATE);
		sbpf_program_unref(prog);
	}
	sbpf_llvm_seconds = 60;
}

static void in_the_background_the_program_stays_where_it_was_and_says_why(void **state)
{
	unsigned int files = open_files();

	for (size_t i = 0; i < N_ELEMS(failures); i++) {
		struct sbpf_program *prog = sample();

		the_compiler_is(failures[i].script);
		/* Only the endless one is to be late, also on a busy machine. */
		sbpf_llvm_seconds = strstr(failures[i].why, "longer") ? 1 : 60;
		runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_TEMPLATE);
		heat(prog);
		runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_TEMPLATE);
		if (!strstr(sbpf_program_tiering(prog), failures[i].why))
			fail_msg("%s: %s", failures[i].script, sbpf_program_tiering(prog));
		sbpf_program_unref(prog);
	}
	sbpf_llvm_seconds = 60;
	assert_int_equal(open_files(), files);
}

static void one_that_cannot_be_run_is_a_reason_too(void **state)
{
	struct sbpf_program *prog = sample();

	the_compiler_is("");
	unlink(compiler);
	heat(prog);
	runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_TEMPLATE);
	assert_non_null(strstr(sbpf_program_tiering(prog), "cannot be started"));
	sbpf_program_unref(prog);
}

/* ---- one that works ---- */

static void auto_takes_up_better_code_once_it_is_there(void **state)
{
	struct sbpf_program *prog = sample();
	unsigned int files = open_files();

	the_compiler_is(NULL);
	runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_TEMPLATE);
	heat(prog);
	assert_true(is_better(prog));
	runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_LLVM);
	runs_on(prog, SBPF_TIER_TEMPLATE, SBPF_TIER_TEMPLATE);
	runs_on(prog, SBPF_TIER_INTERP, SBPF_TIER_INTERP);
	assert_non_null(strstr(sbpf_program_tiering(prog), "compiled beside the calls"));
	sbpf_program_unref(prog);
	assert_int_equal(open_files(), files);
}

static void what_was_asked_for_already_is_taken_up_at_once(void **state)
{
	struct sbpf_program *prog = sample();

	the_compiler_is(NULL);
	assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_LLVM, NULL, NULL), 0);
	runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_TEMPLATE);
	sbpf_program_spent(prog, HOT);
	runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_LLVM);
	sbpf_program_unref(prog);
}

static void little_work_starts_nothing(void **state)
{
	struct sbpf_program *prog = sample();
	pid_t pid;

	the_compiler_is("exit 1");
	for (int i = 0; i < 30; i++) {
		runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_TEMPLATE);
		sbpf_program_spent(prog, 1000000);
	}
	assert_int_equal(started(&pid), 0);
	assert_true(prog->heat.look_ns > 30000000 && prog->heat.look_ns < UINT64_MAX);
	sbpf_program_unref(prog);
}

static void programs_are_compiled_one_at_a_time(void **state)
{
	struct sbpf_program *one = sample(), *two = sample();
	pid_t pid;

	the_compiler_is("while :; do :; done");
	sbpf_program_spent(one, HOT);
	sbpf_program_spent(one, HOT);
	pid = wait_started();
	for (int i = 0; i < 50; i++) {
		sbpf_program_spent(two, HOT);
		usleep(1000);
	}
	assert_int_equal(started(&pid), 1);
	/* The first one's calls have ended; the second notices that its compiler did. */
	kill(pid, SIGKILL);
	while (started(&pid) < 2) {
		sbpf_program_spent(two, HOT);
		usleep(1000);
	}
	assert_non_null(strstr(sbpf_program_tiering(one), "ended without an answer"));
	sbpf_program_unref(one);
	sbpf_program_unref(two);
}

/* ---- kept code ---- */

/* Changes one byte of everything that is kept. */
static void spoil(const char *cache)
{
	DIR *d = opendir(cache);
	struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d))) {
		char path[400];
		FILE *f;

		if (strlen(e->d_name) != 64)
			continue;
		snprintf(path, sizeof(path), "%s/%s", cache, e->d_name);
		f = fopen(path, "r+");
		assert_non_null(f);
		assert_int_equal(fseek(f, -100, SEEK_END), 0);
		assert_int_equal(fputc(0xcc, f), 0xcc);
		assert_int_equal(fclose(f), 0);
	}
	closedir(d);
}

static void clear(const char *cache)
{
	DIR *d = opendir(cache);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(cache);
}

static void code_is_compiled_once_and_again_when_someone_touched_it(void **state)
{
	static const unsigned int want[] = {1, 1, 2, 2};
	char script[512], cache[64];
	pid_t pid;

	snprintf(cache, sizeof(cache), "%s/cache", dir);
	snprintf(script, sizeof(script), "exec %s", real_compiler);
	setenv("LIO_CODE_CACHE", cache, 1);
	the_compiler_is(script);
	for (size_t i = 0; i < N_ELEMS(want); i++) {
		struct sbpf_program *prog = sample();

		if (i == 2)
			spoil(cache);
		/* Asked for or in the background: the same code. */
		if (i % 2)
			assert_int_equal(sbpf_program_compile(prog, SBPF_TIER_LLVM, NULL, NULL), 0);
		heat(prog);
		runs_on(prog, SBPF_TIER_AUTO, SBPF_TIER_LLVM);
		assert_int_equal(started(&pid), want[i]);
		sbpf_program_unref(prog);
	}
	setenv("LIO_CODE_CACHE", "off", 1);
	clear(cache);
}

/* ---- what it leaves behind ---- */

static bool is_running(pid_t pid)
{
	char path[64], state;
	FILE *f;
	bool runs;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	runs = f && fscanf(f, "%*d %*s %c", &state) == 1 && state != 'Z';
	if (f)
		fclose(f);
	return runs;
}

static void a_program_that_goes_takes_its_compiler_along(void **state)
{
	struct sbpf_program *prog = sample();
	unsigned int files = open_files();
	pid_t pid;

	the_compiler_is("while :; do :; done");
	sbpf_program_spent(prog, HOT);
	sbpf_program_spent(prog, HOT);
	pid = wait_started();
	assert_true(is_running(pid));
	sbpf_program_unref(prog);
	assert_false(is_running(pid));
	assert_int_equal(open_files(), files);
}

static void a_process_that_ends_waits_for_no_compiler_and_leaves_none(void **state)
{
	int status;
	pid_t pid = 0, host;

	the_compiler_is("while :; do :; done");
	host = fork();
	if (!host) {
		struct sbpf_program *prog = sample();

		sbpf_program_spent(prog, HOT);
		sbpf_program_spent(prog, HOT);
		wait_started();
		exit(0);
	}
	assert_int_equal(waitpid(host, &status, 0), host);
	assert_int_equal(status, 0);
	assert_int_equal(started(&pid), 1);
	for (int i = 0; i < 20000 && is_running(pid); i++)
		usleep(1000);
	assert_false(is_running(pid));
}

static volatile sig_atomic_t signals;

static void count_signal(int sig)
{
	signals++;
}

static void the_hosts_children_and_signals_are_its_own(void **state)
{
	struct sigaction act = {.sa_handler = count_signal}, old;
	struct sbpf_program *prog = sample();

	the_compiler_is(NULL);
	sigaction(SIGCHLD, &act, &old);
	signals = 0;
	for (int i = 0; i < 60000 && prog->heat.look_ns != UINT64_MAX; i++) {
		sbpf_program_spent(prog, HOT);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
		assert_int_equal(errno, ECHILD);
		usleep(1000);
	}
	assert_true(is_better(prog));
	assert_int_equal(signals, 0);
	sigaction(SIGCHLD, &old, NULL);
	sbpf_program_unref(prog);
}

static void a_host_that_ignores_its_children_gets_its_code(void **state)
{
	struct sbpf_program *prog = sample();

	the_compiler_is(NULL);
	signal(SIGCHLD, SIG_IGN);
	heat(prog);
	assert_true(is_better(prog));
	signal(SIGCHLD, SIG_DFL);
	sbpf_program_unref(prog);
}

static void a_child_forked_meanwhile_goes_on_without_it(void **state)
{
	struct sbpf_program *prog = sample();
	int status;
	pid_t pid, child;

	the_compiler_is("while :; do :; done");
	sbpf_program_spent(prog, HOT);
	sbpf_program_spent(prog, HOT);
	pid = wait_started();
	child = fork();
	if (!child) {
		struct sbpf_program *other = sample();

		sbpf_program_spent(prog, HOT);
		_exit(is_better(prog) || prog->heat.look_ns != UINT64_MAX || !is_running(pid) ||
		      is_better(other));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(is_running(pid));
	sbpf_program_unref(prog);
	assert_false(is_running(pid));
}

static int set_up(void **state)
{
	real_compiler = getenv("SBPF_COMPILER");
	if (!real_compiler || !mkdtemp(dir))
		return -1;
	real_compiler = strdup(real_compiler);
	snprintf(compiler, sizeof(compiler), "%s/compiler", dir);
	snprintf(notes, sizeof(notes), "%s/notes", dir);
	the_compiler_is("exit 0"); /* it is looked for once, and must be there then */
	setenv("SBPF_COMPILER", compiler, 1);
	return sbpf_tier_missing(SBPF_TIER_LLVM) ? -1 : 0;
}

static int tear_down(void **state)
{
	unlink(compiler);
	unlink(notes);
	rmdir(dir);
	free((char *)real_compiler);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(asked_for_it_fails_and_says_why),
		cmocka_unit_test(in_the_background_the_program_stays_where_it_was_and_says_why),
		cmocka_unit_test(one_that_cannot_be_run_is_a_reason_too),
		cmocka_unit_test(auto_takes_up_better_code_once_it_is_there),
		cmocka_unit_test(what_was_asked_for_already_is_taken_up_at_once),
		cmocka_unit_test(little_work_starts_nothing),
		cmocka_unit_test(programs_are_compiled_one_at_a_time),
		cmocka_unit_test(code_is_compiled_once_and_again_when_someone_touched_it),
		cmocka_unit_test(a_program_that_goes_takes_its_compiler_along),
		cmocka_unit_test(a_process_that_ends_waits_for_no_compiler_and_leaves_none),
		cmocka_unit_test(the_hosts_children_and_signals_are_its_own),
		cmocka_unit_test(a_host_that_ignores_its_children_gets_its_code),
		cmocka_unit_test(a_child_forked_meanwhile_goes_on_without_it),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
