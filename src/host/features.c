/* SPDX-License-Identifier: Apache-2.0 */
/*
 * features.c - what this machine and build can do: one table, which `lio features` and the man page
 * show.
 */
#include <errno.h>
#include <sys/auxv.h>

#include "host/host.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1) /* asm/hwcap2.h of x86 */
#endif

static const char *no_user(void)
{
	return host_engine_user.missing();
}

static const char *no_kernel(void)
{
	return host_engine_kernel.missing();
}

static const char *no_device(void)
{
	return host_engine_device.missing();
}

static const char *no_interp(void)
{
	return sbpf_tier_missing(SBPF_TIER_INTERP);
}

static const char *no_template(void)
{
	return sbpf_tier_missing(SBPF_TIER_TEMPLATE);
}

static const char *no_llvm(void)
{
	return sbpf_tier_missing(SBPF_TIER_LLVM);
}

static const char *no_fsgsbase(void)
{
#if defined(__x86_64__)
	return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE
		       ? NULL
		       : "the CPU or kernel lacks it: each run costs two system calls more";
#else
	return "only x86-64 has it";
#endif
}

static const char *nothing(void)
{
	return NULL;
}

static const struct {
	const char *name;
	const char *(*missing)(void);
} features[] = {
	{"user engine", no_user},   {"kernel engine", no_kernel},   {"device engine", no_device},
	{"interp tier", no_interp}, {"template tier", no_template}, {"llvm tier", no_llvm},
	{"fsgsbase", no_fsgsbase},  {"io mmap", nothing},           {"io pread", nothing},
	{"gzip input", nothing},    {"zstd input", nothing},
};

int lio_feature(unsigned int i, struct lio_feature *out)
{
	const unsigned int n = sizeof(features) / sizeof(features[0]);
	const char *name, *missing;

	/* Behind the table: what the kernel engine needs, which the kernel tier knows. */
	if (i >= n) {
		if (sbpf_kernel_need(i - n, &name, &missing))
			return -ENOENT;
	} else {
		name = features[i].name;
		missing = features[i].missing();
	}
	*out = (struct lio_feature){
		.name = name,
		.available = !missing,
		.missing = missing ? missing : "",
	};
	return 0;
}
