/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the controller promises where memory runs out, which no host can bring about: a server in this process, and our
 * own host as its peer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/ctrl.h"
#include "initiator/initiator.h"

#define NQN "nqn.2026-01.io.lambda:controller"

static atomic_bool counting;
static atomic_int posts_left; /* while counting: those that there is memory for */

int __real_ctrl_loop_post(struct ctrl_loop *loop, void (*fn)(void *arg), void *arg);
int __wrap_ctrl_loop_post(struct ctrl_loop *loop, void (*fn)(void *arg), void *arg);

int __wrap_ctrl_loop_post(struct ctrl_loop *loop, void (*fn)(void *arg), void *arg)
{
	if (counting && atomic_fetch_sub(&posts_left, 1) <= 0)
		return -ENOMEM;
	return __real_ctrl_loop_post(loop, fn, arg);
}

struct peers {
	struct ctrl_server *server;
	struct nvme_host *host;
};

static void on_log(void *arg, const char *line)
{
}

static int start(void **state)
{
	struct peers *p = calloc(1, sizeof(*p));
	struct ctrl_server_opts opts = {
		.size = sizeof(opts),
		.limits = ctrl_limits_default,
		.threads = 2,
		.insecure_network = true,
		.log = on_log,
	};
	struct nvme_host_opts host = {.size = sizeof(host), .subnqn = NQN, .io_queues = 2};
	struct ctrl_error err = {0};
	struct ctrl_store *store;

	if (ctrl_server_new(&opts, &p->server, &err) ||
	    ctrl_server_add_subsystem(p->server, NQN, NULL, &err) ||
	    ctrl_store_open("ram:1M", false, &store, &err) ||
	    ctrl_server_add_namespace(p->server, NQN, store, &err) ||
	    ctrl_server_listen(p->server, "127.0.0.1:0", -1, &err) ||
	    ctrl_server_start(p->server, &err)) {
		print_error("%s\n", err.text);
		return -1;
	}
	if (nvme_host_connect(ctrl_server_address(p->server, 0), &host, &p->host)) {
		print_error("%s\n", nvme_host_error());
		return -1;
	}
	*state = p;
	return 0;
}

static int stop(void **state)
{
	struct peers *p = *state;

	if (!p) /* it did not start */
		return 0;
	nvme_host_free(p->host);
	ctrl_server_drain(p->server, 10000);
	ctrl_server_free(p->server);
	free(p);
	return 0;
}

/* Whatever number of messages between threads there is memory for; 0 means that it reached nobody. */
static void an_abort_is_answered_however_little_memory_there_is(void **state)
{
	struct peers *p = *state;

	for (int enough = 0; enough < 4; enough++) {
		for (unsigned int qid = 0; qid <= 2; qid++) {
			struct nvme_req req = {
				.sqe = {.opcode = NVME_ADMIN_ABORT,
					.cdw10 = nvme_put32(0x1234u << 16 | qid)},
				.timeout_ms = 20000,
			};
			int rc;

			posts_left = enough;
			counting = true;
			rc = nvme_host_execute(p->host, &req);
			counting = false;
			if (rc)
				fail_msg("with %d messages: %s", enough, nvme_host_error());
			assert_int_equal(nvme_get32(req.cqe.dw0) & 1,
					 1); /* there was nothing to abort */
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_abort_is_answered_however_little_memory_there_is),
	};

	return cmocka_run_group_tests_name("controller", tests, start, stop);
}
