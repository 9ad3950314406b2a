/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts by their NQN and the programs that they keep in the server. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/lambda_private.h"

#define HOST  "nqn.2026-01.io.lambda:one"
#define UNIT  (64ull << 10) /* what a program counts at least */
#define OTHER "nqn.2026-01.io.lambda:two"

static struct ctrl_server *server_new(uint64_t program_memory, uint32_t idle_ms)
{
	struct ctrl_lambda_limits limits = ctrl_lambda_limits_default;
	struct ctrl_server_opts opts = {.size = sizeof(opts),
					.limits = ctrl_limits_default,
					.threads = 1,
					.lambda = &limits};
	struct ctrl_error err = {0};
	struct ctrl_server *s;

	limits.program_memory = program_memory;
	limits.idle_ms = idle_ms;
	if (ctrl_server_new(&opts, &s, &err) || ctrl_server_start(s, &err))
		fail_msg("%s", err.text);
	return s;
}

static void server_end(struct ctrl_server *s)
{
	assert_int_equal(ctrl_server_drain(s, 10000), 0);
	ctrl_server_free(s);
}

static int file_of(uint64_t size)
{
	int fd = memfd_create("program", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static const uint8_t *hash_of(uint8_t n)
{
	static uint8_t hash[32];

	memset(hash, n, sizeof(hash));
	return hash;
}

static int add(struct ctrl_host *host, uint8_t n, uint64_t size, struct ctrl_program **out)
{
	return ctrl_program_add(host, hash_of(n), file_of(size), size, out);
}

static bool has(struct ctrl_host *host, uint8_t n)
{
	struct ctrl_program *prog = ctrl_program_find(host, hash_of(n));

	ctrl_program_put(prog);
	return prog;
}

static void a_program_is_found_by_its_hash_by_its_host_alone(void **state)
{
	struct ctrl_server *s = server_new(10 * UNIT, 60000);
	struct ctrl_host *host = ctrl_host_get(s, HOST), *other = ctrl_host_get(s, OTHER);
	struct ctrl_program *prog, *same;

	assert_ptr_equal(ctrl_host_get(s, HOST), host);
	ctrl_host_put(host);
	assert_ptr_not_equal(host, other);
	assert_false(has(host, 1));
	assert_int_equal(add(host, 1, 100, &prog), 0);
	assert_int_equal(prog->size, 100);
	assert_true(has(host, 1));
	assert_false(has(host, 2));
	assert_false(has(other, 1));
	/* it is there already */
	assert_int_equal(add(host, 1, 100, &same), 0);
	assert_ptr_equal(prog, same);
	ctrl_program_put(same);
	ctrl_program_put(prog);
	assert_true(has(host, 1));
	ctrl_host_put(host);
	ctrl_host_put(other);
	/* and for whoever connects again */
	host = ctrl_host_get(s, HOST);
	assert_true(has(host, 1));
	ctrl_host_put(host);
	server_end(s);
}

static void what_was_not_used_for_longest_makes_room(void **state)
{
	struct ctrl_server *s = server_new(3 * UNIT, 60000);
	struct ctrl_host *host = ctrl_host_get(s, HOST);
	struct ctrl_program *prog[5];

	for (uint8_t i = 0; i < 3; i++) {
		assert_int_equal(add(host, i, i ? 100 : UNIT, &prog[i]), 0);
		if (i != 1)
			ctrl_program_put(prog[i]);
	}
	assert_true(has(host, 0)); /* used last */
	assert_int_equal(add(host, 3, 100, &prog[3]), 0);
	assert_false(has(host, 2));
	assert_true(has(host, 0) && has(host, 1) && has(host, 3));
	/* those in use stay, and the bytes of what went can still be read by who has it */
	assert_int_equal(add(host, 4, 2 * UNIT, &prog[4]), -ENOSPC);
	assert_true(has(host, 1) && has(host, 3));
	ctrl_program_put(prog[3]);
	assert_int_equal(add(host, 4, 2 * UNIT, &prog[4]), 0);
	assert_true(has(host, 1) && has(host, 4));
	assert_int_equal(add(host, 5, 3 * UNIT + 1, &prog[0]), -ENOSPC);
	assert_int_equal(host->program_bytes, 3 * UNIT);
	ctrl_program_put(prog[1]);
	ctrl_program_put(prog[4]);
	ctrl_host_put(host);
	server_end(s);
}

static uint32_t hosts(struct ctrl_server *s)
{
	struct ctrl_lambda_server *ls = lambda_server(s);
	uint32_t n = 0;

	pthread_mutex_lock(&ls->lock);
	for (const struct ctrl_host *h = ls->hosts; h; h = h->next)
		n++;
	pthread_mutex_unlock(&ls->lock);
	return n;
}

static void what_is_idle_is_let_go_and_what_is_used_is_not(void **state)
{
	struct ctrl_server *s = server_new(10 * UNIT, 1);
	struct ctrl_host *host = ctrl_host_get(s, HOST);
	struct ctrl_program *used, *idle;

	ctrl_host_put(ctrl_host_get(s, OTHER));
	assert_int_equal(add(host, 1, 10, &used), 0);
	assert_int_equal(add(host, 2, 10, &idle), 0);
	ctrl_program_put(idle);
	while (hosts(s) != 1) /* the test's own time-out ends a wait that is in vain */
		usleep(10000);
	for (;;) {
		uint64_t bytes;

		pthread_mutex_lock(&lambda_server(s)->lock);
		bytes = host->program_bytes;
		pthread_mutex_unlock(&lambda_server(s)->lock);
		if (bytes == UNIT)
			break;
		usleep(10000);
	}
	assert_true(has(host, 1));
	ctrl_program_put(used);
	ctrl_host_put(host);
	while (hosts(s))
		usleep(10000);
	host = ctrl_host_get(s, HOST);
	assert_false(has(host, 1));
	ctrl_host_put(host);
	while (hosts(s))
		usleep(10000);
	server_end(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_is_found_by_its_hash_by_its_host_alone),
		cmocka_unit_test(what_was_not_used_for_longest_makes_room),
		cmocka_unit_test(what_is_idle_is_let_go_and_what_is_used_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
