/* SPDX-License-Identifier: Apache-2.0 */
/* Who takes over the compiler's process can compute, and answer, and nothing else. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "sbpf/compile_jail.h"

#define WENT_ON 42

/* How a process ends that tries @what in the jail: its exit status, or minus the signal. */
static int jailed(int (*what)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		/* The answer's place and the question's, and nothing else of interest. */
		int fd = open("/dev/null", O_RDWR);

		dup2(fd, 3);
		dup2(fd, 4);
		if (compile_jail())
			_exit(1);
		_exit(what() < 0 ? WENT_ON : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int compute(void)
{
	volatile uint8_t *p = malloc(1 << 20);

	if (!p)
		return -1;
	p[0] = p[(1 << 20) - 1] = 1;
	return write(4, "answer", 6) == 6 ? 0 : -1;
}

static int open_a_file(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static int make_a_file(void)
{
	return open("/tmp/made-in-jail", O_WRONLY | O_CREAT, 0600);
}

static int look_at_a_file(void)
{
	struct stat st;

	return stat("/etc/passwd", &st);
}

static int talk(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int spawn(void)
{
	return fork();
}

static int become_a_shell(void)
{
	return execl("/bin/sh", "sh", "-c", "exit 0", (char *)NULL);
}

static int make_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? -1 : 0;
}

static int turn_data_into_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? -1 : mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static int map_a_file(void)
{
	return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0) == MAP_FAILED ? -1 : 0;
}

static int signal_its_parent(void)
{
	return kill(getppid(), 0);
}

static int signal_anyone(void)
{
	return (int)syscall(SYS_tgkill, 1, 1, 0);
}

static int trace_its_parent(void)
{
	return (int)ptrace(PTRACE_ATTACH, 1, NULL, NULL);
}

static int read_its_parent(void)
{
	char c;
	struct iovec here = {&c, 1}, there = {&c, 1};

	return (int)process_vm_readv(1, &here, 1, &there, 1, 0);
}

static int change_the_clock(void)
{
	struct timespec ts = {.tv_sec = 1};

	return clock_settime(CLOCK_REALTIME, &ts);
}

static int write_elsewhere(void)
{
	return write(5, "x", 1) == 1 ? 0 : -1;
}

static void it_can_compute_and_answer(void **state)
{
	assert_int_equal(jailed(compute), 0);
}

static void files_are_out_of_reach(void **state)
{
	assert_int_equal(jailed(open_a_file), WENT_ON);
	assert_int_equal(jailed(make_a_file), WENT_ON);
	assert_int_equal(jailed(look_at_a_file), WENT_ON);
	assert_int_equal(jailed(map_a_file), -SIGSYS);
	assert_int_equal(jailed(write_elsewhere), -SIGSYS);
}

static void other_processes_and_the_network_are_out_of_reach(void **state)
{
	int (*const tries[])(void) = {talk,
				      spawn,
				      become_a_shell,
				      signal_anyone,
				      trace_its_parent,
				      read_its_parent,
				      change_the_clock};

	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
		if (jailed(tries[i]) != -SIGSYS)
			fail_msg("attempt %zu was not the end", i);
	/* Even to ask who that is ends it. */
	assert_int_equal(jailed(signal_its_parent), -SIGSYS);
}

static void no_page_becomes_code(void **state)
{
	assert_int_equal(jailed(make_code), -SIGSYS);
	assert_int_equal(jailed(turn_data_into_code), -SIGSYS);
}

static void time_and_memory_are_bounded(void **state)
{
	char path[64], line[256];
	unsigned int seen = 0;
	int ready[2];
	pid_t pid;
	FILE *f;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		dup2(ready[1], 4);
		if (compile_jail() || write(4, "r", 1) != 1)
			_exit(1);
		for (volatile int i = 0;; i = i + 1)
			;
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long hard;

		if (sscanf(line, "Max cpu time %*s %llu", &hard) == 1)
			seen += hard > 0 && hard <= 20;
		if (sscanf(line, "Max file size %*s %llu", &hard) == 1)
			seen += hard <= SBPF_LLVM_MAX_IMAGE;
		if (sscanf(line, "Max open files %*s %llu", &hard) == 1)
			seen += hard == 0;
		if (sscanf(line, "Max address space %*s %llu", &hard) == 1)
			seen += hard <= 4ull << 30;
	}
	fclose(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ready[0]);
	close(ready[1]);
	assert_int_equal(seen, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_can_compute_and_answer),
		cmocka_unit_test(files_are_out_of_reach),
		cmocka_unit_test(other_processes_and_the_network_are_out_of_reach),
		cmocka_unit_test(no_page_becomes_code),
		cmocka_unit_test(time_and_memory_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
