/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_user.c - functions run in the application's own process, over what its page cache holds.
 */
#include <errno.h>
#include <string.h>

#include "host/host.h"

static const char *user_missing(void)
{
	return NULL;
}

/*
 * A mapped page that lies behind the new end of a truncated file is a fault, but the page in which that
 * end lies reads zeros from there on, silently.  So what was mapped must still have its size.
 */
static int check_mapped(const struct lambda_request *req, struct input *in)
{
	uint64_t end = in->src.size;
	int64_t size;

	if (req->length < end && req->offset < end - req->length)
		end = req->offset + req->length;
	size = file_size(in->file);
	if (size < 0 || (uint64_t)size >= end)
		return 0;
	return input_fail(in, -EIO, (uint64_t)size,
			  "%s: truncated to %lld bytes while it was read; run it again",
			  in->file->name, (long long)size);
}

static int user_run(struct host_run *run, struct lambda_error *err)
{
	struct input *in = &run->in;
	int rc = lambda_run(&run->req, &in->src, run->sink, &run->report, err);

	if (!rc && run->report.source && !strcmp(run->report.source, "mmap"))
		rc = check_mapped(&run->req, in);
	/* The source knows better why it failed than who asked it. */
	if (rc && rc == in->fail.code)
		*err = in->fail;
	return rc;
}

const struct host_engine host_engine_user = {
	.id = LIO_ENGINE_USER,
	.name = "user",
	.missing = user_missing,
	.open = host_open_here,
	.run = user_run,
};
