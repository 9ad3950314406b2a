/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_sys.h - bpf(2) as the kernel tier needs it: its own declarations, no library.
 *
 * Distributions' <linux/bpf.h> are older than the kernels they run, and libbpf's loader wants objects of
 * its own making; the tier needs five commands.  Layouts and numbers: include/uapi/linux/bpf.h of Linux 6.18.
 */
#ifndef SBPF_KERNEL_SYS_H
#define SBPF_KERNEL_SYS_H

#include "sbpf/internal.h"

/* clang-format off */
enum {	/* bpf(2)'s first argument */
	KBPF_MAP_CREATE = 0,
	KBPF_PROG_LOAD = 5,
	KBPF_PROG_RUN = 10,
	KBPF_PROG_GET_NEXT_ID = 11,
	KBPF_MAP_GET_NEXT_ID = 12,
	KBPF_BTF_LOAD = 18,
	KBPF_PROG_STREAM_READ = 37,
};
enum {
	KBPF_MAP_TYPE_ARRAY = 2,
	KBPF_MAP_TYPE_ARENA = 33,
	KBPF_PROG_TYPE_SYSCALL = 31,
	KBPF_F_SLEEPABLE = 1u << 4,
	KBPF_F_MMAPABLE = 1u << 10,
	KBPF_F_SEGV_ON_FAULT = 1u << 17,
	KBPF_PSEUDO_MAP_FD = 1,    /* lddw's src */
	KBPF_PSEUDO_KFUNC_CALL = 2, /* call's src */
};
/* clang-format on */

/* The union's members by command, as long as the fields that are set; what follows reads as zero. */
struct kbpf_map_create {
	uint32_t map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node;
	char name[16];
	uint32_t ifindex, btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id;
	uint64_t map_extra;
};
struct kbpf_prog_load {
	uint32_t prog_type, insn_cnt;
	uint64_t insns, license;
	uint32_t log_level, log_size;
	uint64_t log_buf;
	uint32_t kern_version, flags;
	char name[16];
	uint32_t ifindex, expected_attach_type, btf_fd, func_info_rec_size;
	uint64_t func_info;
	uint32_t func_info_cnt, line_info_rec_size;
	uint64_t line_info;
	uint32_t line_info_cnt, attach_btf_id, attach_prog_fd, core_relo_cnt;
	uint64_t fd_array, core_relos;
	uint32_t core_relo_rec_size, log_true_size;
};
struct kbpf_prog_run {
	uint32_t fd, retval, data_size_in, data_size_out;
	uint64_t data_in, data_out;
	uint32_t repeat, duration, ctx_size_in, ctx_size_out;
	uint64_t ctx_in, ctx_out;
	uint32_t flags, cpu, batch_size, pad;
};
_Static_assert(offsetof(struct kbpf_map_create, map_extra) == 64, "the kernel's layout");
_Static_assert(offsetof(struct kbpf_prog_load, fd_array) == 120, "the kernel's layout");
_Static_assert(offsetof(struct kbpf_prog_run, ctx_in) == 48, "the kernel's layout");

/* A descriptor or 0, or -errno.  Asked again where a signal interrupts the kernel's verifier. */
int sbpf_bpf(int command, void *attr, size_t size);

/*
 * Load @n instructions as a program that bpf(2) runs.  @log (may be NULL) takes what the kernel's verifier says.  Returns
 * its descriptor or -errno.
 */
int sbpf_bpf_load(const struct sbpf_insn *insns, uint32_t n, const char *name, char *log,
		  uint32_t log_size);

/* Run it once over @ctx, which it may change; *r0 is what it returned. */
int sbpf_bpf_run(int prog_fd, void *ctx, uint32_t size, uint32_t *r0);

/* Kernel functions that programs of ours call. */
enum sbpf_kfunc {
	SBPF_KFUNC_ARENA_ALLOC,
	SBPF_KFUNCS,
};
/* The number by which a call names it, or -ENOENT: this kernel has none.  -errno: its type information cannot be read. */
int sbpf_kfunc(enum sbpf_kfunc which);

#endif /* SBPF_KERNEL_SYS_H */
