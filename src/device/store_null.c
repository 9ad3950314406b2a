/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_null.c - "null:SIZE": reads zeros, forgets writes; what everything but the medium costs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/loop.h"

#define BLOCK 4096u

static int null_open(const char *spec, bool read_only, struct ctrl_store **out,
		     struct ctrl_error *err)
{
	struct ctrl_store *store;
	uint64_t bytes;

	if (ctrl_parse_size(spec, &bytes) || bytes < BLOCK || bytes % BLOCK || bytes > INT64_MAX)
		return ctrl_fail(
			err, -EINVAL,
			"null:%s: no size in whole 4 KiB blocks; write null:1T or null:65536",
			spec);
	store = calloc(1, sizeof(*store));
	if (!store)
		return ctrl_fail(err, -ENOMEM, "null:%s: out of memory", spec);
	store->ops = &ctrl_store_null;
	store->how = strdup("nothing is kept");
	store->geo = (struct ctrl_store_geometry){.bytes = bytes,
						  .block = BLOCK,
						  .preferred = BLOCK,
						  .read_only = read_only,
						  .discard = true};
	*out = store;
	return 0;
}

static void null_close(struct ctrl_store *store)
{
	free(store->how);
	free(store);
}

static void null_submit(struct ctrl_store *store, struct ctrl_io *io)
{
	if (io->op == CTRL_IO_READ)
		memset(io->iov.iov_base, 0, io->len);
	ctrl_loop_finish(io, 0);
}

static void null_refresh(struct ctrl_store *store)
{
}

const struct ctrl_store_ops ctrl_store_null = {
	.name = "null",
	.help = "null:SIZE: reads zeros, forgets writes",
	.open = null_open,
	.close = null_close,
	.submit = null_submit,
	.refresh = null_refresh,
};
