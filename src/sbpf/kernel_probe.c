/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_probe.c - what the kernel tier needs of this machine, and what of it is missing, each by name.
 *
 * Asked once a process, by trying: what a kernel's version promises a distribution may have left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sbpf/kernel_sys.h"
#include "sbpf/kernel_translate.h"

enum need {
	NEED_BPF,
	NEED_PERFMON,
	NEED_SYSCALL,
	NEED_JIT,
	NEED_ARENA,
	NEED_MAY_GOTO,
	NEED_TYPES,
	NEEDS,
};

static struct {
	const char *name;
	const char *missing;
} needs[NEEDS] = {
	[NEED_BPF] = {.name = "CAP_BPF"},
	[NEED_PERFMON] = {.name = "CAP_PERFMON"},
	[NEED_SYSCALL] = {.name = "bpf(2)"},
	[NEED_JIT] = {.name = "BPF JIT"},
	[NEED_ARENA] = {.name = "BPF arena"},
	[NEED_MAY_GOTO] = {.name = "BPF may_goto"},
	[NEED_TYPES] = {.name = "kernel type information"},
};

/* ---- one at a time ---- */

#define CAP_SYS_ADMIN_BIT 21u
#define CAP_PERFMON_BIT   38u
#define CAP_BPF_BIT       39u

static bool has_capability(unsigned int bit)
{
	struct {
		uint32_t version;
		int32_t pid;
	} header = {.version = 0x20080522}; /* _LINUX_CAPABILITY_VERSION_3, 0: this thread */
	struct {
		uint32_t effective, permitted, inheritable;
	} sets[2] = {{0}};

	if (syscall(SYS_capget, &header, sets))
		return false;
	return sets[bit / 32].effective >> bit % 32 & 1 ||
	       sets[0].effective >> CAP_SYS_ADMIN_BIT & 1;
}

static bool jit_is_off(void)
{
	char c = '1';
	int fd = open("/proc/sys/net/core/bpf_jit_enable", O_RDONLY | O_CLOEXEC);

	/* Where it cannot be asked, loading tells. */
	if (fd < 0)
		return false;
	if (read(fd, &c, 1) != 1)
		c = '1';
	close(fd);
	return c == '0';
}

static int new_map(uint32_t type)
{
	struct kbpf_map_create attr = {.map_type = type, .max_entries = 1};

	if (type == KBPF_MAP_TYPE_ARENA) {
		attr.map_flags = KBPF_F_MMAPABLE;
	} else {
		attr.key_size = 4;
		attr.value_size = 8;
	}
	return sbpf_bpf(KBPF_MAP_CREATE, &attr, sizeof(attr));
}

/* An endless loop, but for may_goto. */
static int load_loop(void)
{
	const struct sbpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K},
		{.code = KT_MAY_GOTO, .off = 1},
		{.code = BPF_JMP | BPF_JA, .off = -2},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return sbpf_bpf_load(insns, sizeof(insns) / sizeof(insns[0]), "probe", NULL, 0);
}

/* ---- all ---- */

static void probe_programs(void)
{
	int fd = load_loop();

	if (fd < 0) {
		needs[NEED_MAY_GOTO].missing =
			fd == -EPERM ? "the kernel refuses to load programs: a security policy "
				       "forbids it (lockdown, an LSM, or a user namespace)"
				     : "the kernel has no may_goto; Linux 6.9 or newer has";
		return;
	}
	close(fd);
}

static void probe(void)
{
	int fd;

	if (!has_capability(CAP_BPF_BIT))
		needs[NEED_BPF].missing = "the process lacks CAP_BPF; run it as root, or give it "
					  "CAP_BPF and CAP_PERFMON";
	if (!has_capability(CAP_PERFMON_BIT))
		needs[NEED_PERFMON].missing =
			"the process lacks CAP_PERFMON; run it as root, or give "
			"it CAP_BPF and CAP_PERFMON";
	if (jit_is_off())
		needs[NEED_JIT].missing =
			"the kernel's BPF JIT is off; set sysctl net.core.bpf_jit_enable=1";
	fd = new_map(KBPF_MAP_TYPE_ARRAY);
	if (fd < 0)
		needs[NEED_SYSCALL].missing =
			fd == -ENOSYS ? "the kernel has no bpf(2)"
			: needs[NEED_BPF].missing
				? needs[NEED_BPF].missing
				: "bpf(2) is refused though the capabilities are there: a security "
				  "policy "
				  "forbids it (seccomp, lockdown, an LSM, or a user namespace)";
	else
		close(fd);
	if (needs[NEED_SYSCALL].missing) {
		for (unsigned int i = NEED_ARENA; i < NEEDS; i++)
			needs[i].missing = "cannot be asked without bpf(2)";
		return;
	}
	fd = new_map(KBPF_MAP_TYPE_ARENA);
	if (fd < 0)
		needs[NEED_ARENA].missing =
			fd == -EPERM ? "the kernel refuses an arena; it takes CAP_BPF"
				     : "the kernel has no BPF arenas; Linux 6.9 or newer has";
	else
		close(fd);
	probe_programs();
	if (sbpf_kfunc(SBPF_KFUNC_ARENA_ALLOC) < 0)
		needs[NEED_TYPES].missing = "the kernel does not tell its functions' types: "
					    "/sys/kernel/btf/vmlinux is missing or lacks "
					    "bpf_arena_alloc_pages";
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

int sbpf_kernel_need(unsigned int i, const char **name, const char **missing)
{
	pthread_once(&once, probe);
	if (i >= NEEDS)
		return -ENOENT;
	*name = needs[i].name;
	*missing = needs[i].missing;
	return 0;
}

const char *sbpf_kernel_missing(void)
{
	pthread_once(&once, probe);
	for (unsigned int i = 0; i < NEEDS; i++)
		if (needs[i].missing)
			return needs[i].missing;
	return NULL;
}
