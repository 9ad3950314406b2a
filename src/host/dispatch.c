/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch.c - which engine runs a request.
 *
 * Owns the choice and its reason.  Does not own running: each engine is a file of its own with one table.
 */
#include <errno.h>

#include "host/host.h"

static const struct host_engine *const engines[] = {
	[LIO_ENGINE_USER] = &host_engine_user,
	[LIO_ENGINE_KERNEL] = &host_engine_kernel,
	[LIO_ENGINE_DEVICE] = &host_engine_device,
};

static bool remote(const struct lio_file *file)
{
	return file && file->kind == FILE_REMOTE;
}

/* Where the bytes are, unless what was asked for is only to be had here. */
static enum lio_engine choose(const struct host_run *run, const char **why)
{
	const struct lio_run_opts *o = &run->opts;

	if (!remote(run->file) && !remote(run->target)) {
		*why = "the file is here";
		return LIO_ENGINE_USER;
	}
	*why = NULL;
	if (o->tier == LIO_TIER_LLVM)
		*why = "servers have no tier llvm";
	else if (o->io != LIO_IO_AUTO)
		*why = "how a server reads is its own choice";
	else if (o->trace)
		*why = "no trace comes from a server";
	else if (!remote(run->file) && run->req.offset)
		*why = "a server would be sent what lies before the range, too";
	if (*why)
		return LIO_ENGINE_USER;
	*why = remote(run->file) ? "its server is nearer to the file"
				 : "its output is written there";
	return LIO_ENGINE_DEVICE;
}

static int no_server(const struct host_run *run)
{
	const struct lio_file *file = run->target ? run->target : run->file;

	return host_fail(-EOPNOTSUPP,
			 "engine device: %s is no file of a server; name one (lio://…), or use "
			 "engine user or auto",
			 file->name);
}

int host_dispatch(const struct host_run *run, const struct host_engine **out, const char **why)
{
	enum lio_engine id = run->opts.engine;
	const struct host_engine *engine;
	const char *missing;

	if ((unsigned int)id >= sizeof(engines) / sizeof(engines[0]))
		return host_fail(-EINVAL,
				 "engine %d: there is none of this number; use enum lio_engine",
				 (int)id);
	*why = "as asked";
	if (id == LIO_ENGINE_AUTO)
		id = choose(run, why);
	engine = engines[id];
	missing = engine->missing();
	if (missing)
		return host_fail(-EOPNOTSUPP, "engine %s: %s; use engine user or auto",
				 engine->name, missing);
	if (id == LIO_ENGINE_DEVICE && !remote(run->file) && !remote(run->target))
		return no_server(run);
	*out = engine;
	return 0;
}
