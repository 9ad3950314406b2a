/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch.c - which engine runs a request.
 *
 * Owns the choice and its reason.  Does not own running: each engine is a file of its own with one table.
 */
#include <errno.h>

#include "host/host.h"

static const char *not_yet(void)
{
	return "not in this version";
}

/* An engine that is missing is never asked to run. */
const struct host_engine host_engine_device = {
	.id = LIO_ENGINE_DEVICE, .name = "device", .missing = not_yet};

static const struct host_engine *const engines[] = {
	[LIO_ENGINE_AUTO] = &host_engine_user,
	[LIO_ENGINE_USER] = &host_engine_user,
	[LIO_ENGINE_KERNEL] = &host_engine_kernel,
	[LIO_ENGINE_DEVICE] = &host_engine_device,
};

int host_dispatch(enum lio_engine id, const struct host_engine **out, const char **why)
{
	const struct host_engine *engine;
	const char *missing;

	if ((unsigned int)id >= sizeof(engines) / sizeof(engines[0]))
		return host_fail(-EINVAL,
				 "engine %d: there is none of this number; use enum lio_engine",
				 (int)id);
	engine = engines[id];
	missing = engine->missing();
	if (missing)
		return host_fail(-EOPNOTSUPP, "engine %s: %s; use engine user or auto",
				 engine->name, missing);
	*out = engine;
	*why = id == LIO_ENGINE_AUTO ? "the only one in this version" : "as asked";
	return 0;
}
