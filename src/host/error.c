/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - the calling thread's last failure, and names of error codes.
 */
#include <string.h>

#include "host/host.h"

struct lambda_error *host_error(void)
{
	static _Thread_local struct lambda_error last;

	return &last;
}

const char *lio_error(void)
{
	return host_error()->text;
}

const char *lio_errname(int error)
{
	const char *name = error ? strerrorname_np(error < 0 ? -error : error) : NULL;

	return name ? name : "E?";
}

const char *lio_version(void)
{
	return LIO_VERSION;
}
