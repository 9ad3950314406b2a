/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.c - the table of stores, and which of them a specification names.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/compute.h"
#include "device/loop.h"

static const struct ctrl_store_ops *const stores[] = {
	&ctrl_store_file, /* also what a bare path means */
	&ctrl_store_ram,  &ctrl_store_null, &ctrl_store_slm, &ctrl_store_compute,
};

int ctrl_fail(struct ctrl_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return code;
}

int ctrl_parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGTP";
	const char *unit;
	char *end;

	/* strtoull takes signs and blanks. */
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end && (unit = strchr(units, *end))) {
		uint32_t shift = 10 * (uint32_t)(unit - units + 1);

		if (*bytes > UINT64_MAX >> shift)
			return -ERANGE;
		*bytes <<= shift;
		end++;
		if (end[0] == 'i' && end[1] == 'B')
			end += 2;
	}
	return *end ? -EINVAL : 0;
}

static int open_spec(const char *spec, bool read_only, struct ctrl_store **out,
		     struct ctrl_error *err)
{
	for (size_t i = 0; i < sizeof(stores) / sizeof(stores[0]); i++) {
		size_t n = strlen(stores[i]->name);

		if (!strncmp(spec, stores[i]->name, n) && spec[n] == ':')
			return stores[i]->open(spec + n + 1, read_only, out, err);
	}
	return stores[0]->open(spec, read_only, out, err);
}

int ctrl_store_open(const char *spec, bool read_only, struct ctrl_store **out,
		    struct ctrl_error *err)
{
	static const char ro[] = ",ro";
	size_t n = strlen(spec);
	char *plain;
	int rc;

	*out = NULL;
	if (n < sizeof(ro) || strcmp(spec + n - 3, ro) != 0)
		return open_spec(spec, read_only, out, err);
	plain = strndup(spec, n - 3);
	if (!plain)
		return ctrl_fail(err, -ENOMEM, "%s: out of memory", spec);
	rc = open_spec(plain, true, out, err);
	free(plain);
	return rc;
}

void ctrl_store_close(struct ctrl_store *store)
{
	if (store)
		store->ops->close(store);
}
