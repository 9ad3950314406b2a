/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_user.c - functions run in the application's own process, over what its page cache holds.
 */
#include "host/host.h"

static const char *user_missing(void)
{
	return NULL;
}

static int user_run(const struct lambda_request *req, struct input *in, struct lambda_sink *sink,
		    struct lambda_report *report, struct lambda_error *err)
{
	int rc = lambda_run(req, &in->src, sink, report, err);

	/* The source knows better why it failed than who asked it. */
	if (rc && rc == in->fail.code)
		*err = in->fail;
	return rc;
}

const struct host_engine host_engine_user = {
	.id = LIO_ENGINE_USER,
	.name = "user",
	.missing = user_missing,
	.run = user_run,
};
