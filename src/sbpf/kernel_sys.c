/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_sys.c - bpf(2), and where the kernel's type information has the functions that programs call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sbpf/kernel_sys.h"

/* ---- the call ---- */

int sbpf_bpf(int command, void *attr, size_t size)
{
	long r;

	/* The verifier gives up with EAGAIN when a signal is pending, as a profiler's always is. */
	for (int i = 0; i < 16; i++) {
		r = syscall(SYS_bpf, command, attr, (unsigned int)size);
		if (r >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return r < 0 ? -errno : (int)r;
}

int sbpf_bpf_load(const struct sbpf_insn *insns, uint32_t n, const char *name, char *log,
		  uint32_t log_size)
{
	struct kbpf_prog_load attr = {
		.prog_type = KBPF_PROG_TYPE_SYSCALL,
		.insn_cnt = n,
		.insns = (uintptr_t)insns,
		/* Kernel functions are for programs that may be distributed under its license. */
		.license = (uintptr_t)"Dual MIT/GPL",
		.flags = KBPF_F_SLEEPABLE,
		.log_level = log ? 1 : 0,
		.log_buf = (uintptr_t)log,
		.log_size = log ? log_size : 0,
	};

	snprintf(attr.name, sizeof(attr.name), "%s", name);
	return sbpf_bpf(KBPF_PROG_LOAD, &attr, sizeof(attr));
}

int sbpf_bpf_run(int prog_fd, void *ctx, uint32_t size, uint32_t *r0)
{
	struct kbpf_prog_run attr = {
		.fd = (uint32_t)prog_fd, .ctx_in = (uintptr_t)ctx, .ctx_size_in = size};
	int r = sbpf_bpf(KBPF_PROG_RUN, &attr, sizeof(attr));

	*r0 = attr.retval;
	return r;
}

/* ---- type information: Documentation/bpf/btf.rst ---- */

struct btf_header {
	uint16_t magic;
	uint8_t version, flags;
	uint32_t hdr_len, type_off, type_len, str_off, str_len;
};
struct btf_type {
	uint32_t name, info, size;
};
#define BTF_MAGIC 0xeb9fu
#define BTF_FUNC  12u

static const char *const kfunc_names[SBPF_KFUNCS] = {
	[SBPF_KFUNC_ARENA_ALLOC] = "bpf_arena_alloc_pages",
};
static int kfunc_ids[SBPF_KFUNCS];

/* Bytes behind a type: so many, and so many for each of its members; by kind. */
static const struct {
	uint8_t fixed, member;
} btf_tail[] = {
	[1] = {4, 0},  [3] = {12, 0}, [4] = {0, 12},  [5] = {0, 12}, [6] = {0, 8},
	[13] = {0, 8}, [14] = {4, 0}, [15] = {0, 12}, [17] = {4, 0}, [19] = {0, 12},
};

/* Every string is there once: where it is, or 0, which is the empty one. */
static uint32_t find_string(const uint8_t *strings, uint32_t len, const char *name)
{
	size_t n = strlen(name) + 1;
	const uint8_t *at = strings, *end = strings + len;

	while ((at = memmem(at, (size_t)(end - at), name, n)) && at > strings && at[-1])
		at++;
	return at ? (uint32_t)(at - strings) : 0;
}

static void look_up(const uint8_t *types, uint32_t len, const uint32_t names[SBPF_KFUNCS])
{
	uint32_t at = 0;
	int id = 1;

	for (; at + sizeof(struct btf_type) <= len; id++) {
		struct btf_type t;
		uint32_t kind, n;

		memcpy(&t, types + at, sizeof(t));
		kind = t.info >> 24 & 0x1f;
		n = t.info & 0xffff;
		for (unsigned int i = 0; kind == BTF_FUNC && i < SBPF_KFUNCS; i++)
			if (names[i] && t.name == names[i])
				kfunc_ids[i] = id;
		at += (uint32_t)sizeof(t);
		if (kind < sizeof(btf_tail) / sizeof(btf_tail[0]))
			at += btf_tail[kind].fixed + n * btf_tail[kind].member;
	}
}

static void look_up_in(const uint8_t *p, size_t len)
{
	struct btf_header h;
	uint64_t types, strings;
	uint32_t names[SBPF_KFUNCS];

	if (len < sizeof(h))
		return;
	memcpy(&h, p, sizeof(h));
	types = (uint64_t)h.hdr_len + h.type_off;
	strings = (uint64_t)h.hdr_len + h.str_off;
	if (h.magic != BTF_MAGIC || types + h.type_len > len || strings + h.str_len > len)
		return;
	for (unsigned int i = 0; i < SBPF_KFUNCS; i++)
		names[i] = find_string(p + strings, h.str_len, kfunc_names[i]);
	look_up(p + types, h.type_len, names);
}

static int read_all(int fd, uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = read(fd, p, len);

		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_types_of(int fd)
{
	struct stat st;
	size_t len;
	uint8_t *p;
	int r = 0;

	if (fstat(fd, &st) || st.st_size <= 0 || st.st_size > 1 << 30)
		return -EINVAL;
	len = (size_t)st.st_size;
	/* Since 6.16 it can be mapped, which is a hundred times quicker than reading it. */
	p = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED) {
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return -ENOMEM;
		r = read_all(fd, p, len);
	}
	if (!r)
		look_up_in(p, len);
	munmap(p, len);
	return r;
}

static void read_types(void)
{
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;

	for (unsigned int i = 0; i < SBPF_KFUNCS; i++)
		kfunc_ids[i] = -ENOENT;
	if (!r)
		r = read_types_of(fd);
	for (unsigned int i = 0; r && i < SBPF_KFUNCS; i++)
		kfunc_ids[i] = r;
	if (fd >= 0)
		close(fd);
}

int sbpf_kfunc(enum sbpf_kfunc which)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, read_types);
	return kfunc_ids[which];
}
