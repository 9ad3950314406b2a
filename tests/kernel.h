/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of the kernel tier share: saying why they cannot run, and counting what the kernel keeps for us. */
#ifndef TESTS_KERNEL_H
#define TESTS_KERNEL_H

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sbpf/kernel_sys.h"

/* True, and said in TAP as one test that was skipped, if this machine has no kernel tier. */
static inline bool kernel_tier_is_missing(const char *what)
{
	const char *missing = sbpf_tier_missing(SBPF_TIER_KERNEL);

	if (missing)
		printf("1..1\nok 1 - %s # SKIP %s\n", what, missing);
	return missing;
}

/* Descriptors of this process that are BPF maps, and programs. */
struct bpf_objects {
	unsigned int maps, progs;
};

static inline struct bpf_objects bpf_objects(void)
{
	struct bpf_objects n = {0};
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char path[300], to[64];
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		len = readlink(path, to, sizeof(to) - 1);
		to[len > 0 ? len : 0] = 0;
		n.maps += !strcmp(to, "anon_inode:bpf-map");
		n.progs += !strcmp(to, "anon_inode:bpf-prog");
	}
	if (dir)
		closedir(dir);
	return n;
}

#endif /* TESTS_KERNEL_H */
