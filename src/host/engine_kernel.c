/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_kernel.c - functions run inside the kernel, in sandboxes that it shares with this process.
 *
 * The tier is all that differs: what a request is made of, its order, its budgets and its output are lambda_run()'s as
 * on the user engine.  The file is read by this process, with the rights it was opened with, straight into
 * the pages that the kernel sees.
 */
#include "host/host.h"

static const char *kernel_missing(void)
{
	return sbpf_tier_missing(SBPF_TIER_KERNEL);
}

static int kernel_run(struct host_run *run, struct lambda_error *err)
{
	struct lambda_request own = run->req;
	struct input *in = &run->in;
	int rc;

	own.tier = SBPF_TIER_KERNEL;
	rc = lambda_run(&own, &in->src, run->sink, &run->report, err);
	/* The source knows better why it failed than who asked it. */
	if (rc && rc == in->fail.code)
		*err = in->fail;
	return rc;
}

const struct host_engine host_engine_kernel = {
	.id = LIO_ENGINE_KERNEL,
	.name = "kernel",
	.missing = kernel_missing,
	.open = host_open_here,
	.run = kernel_run,
};
