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

static int user_run(const struct lambda_request *req, struct input *in, struct lambda_sink *sink,
		    struct lambda_report *report, struct lambda_error *err)
{
	int rc = lambda_run(req, &in->src, sink, report, err);

	if (!rc && report->source && !strcmp(report->source, "mmap"))
		rc = check_mapped(req, in);
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
