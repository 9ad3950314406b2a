/* SPDX-License-Identifier: Apache-2.0 */
/* Programs written as instructions, and what tests of running share. */
#ifndef TESTS_INSNS_H
#define TESTS_INSNS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "sbpf/internal.h"

/* clang-format off */
#define INSN(c, d, s, o, i) {.code = (c), .dst = (d), .src = (s), .off = (o), .imm = (int32_t)(i)}
#define MOV(d, i)       INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define MOV32(d, i)     INSN(BPF_ALU | BPF_MOV | BPF_K, d, 0, 0, i) /* addresses from 2 GiB up */
#define MOVR(d, s)      INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define ADD(d, i)       INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define ADDR(d, s)      INSN(BPF_ALU64 | BPF_ADD | BPF_X, d, s, 0, 0)
#define XOR(d, i)       INSN(BPF_ALU64 | BPF_XOR | BPF_K, d, 0, 0, i)
#define LDDW(d, v)      INSN(BPF_LDDW_CODE, d, 0, 0, (uint64_t)(v)), INSN(0, 0, 0, 0, (uint64_t)(v) >> 32)
#define LOAD(sz, d, s, o)  INSN(BPF_LDX | BPF_MEM | (sz), d, s, o, 0)
#define STORE(sz, d, o, s) INSN(BPF_STX | BPF_MEM | (sz), d, s, o, 0)
#define STOREI(sz, d, o, i) INSN(BPF_ST | BPF_MEM | (sz), d, 0, o, i)
#define ATOMIC(sz, d, o, s, op) INSN(BPF_STX | BPF_ATOMIC | (sz), d, s, o, op)
#define JA(o)           INSN(BPF_JMP | BPF_JA, 0, 0, o, 0)
#define JNE(d, i, o)    INSN(BPF_JMP | BPF_JNE | BPF_K, d, 0, o, i)
#define JEQ(d, i, o)    INSN(BPF_JMP | BPF_JEQ | BPF_K, d, 0, o, i)
#define CALL(o)         INSN(BPF_JMP | BPF_CALL, 0, BPF_CALL_LOCAL, 0, o)
#define HELPER(id)      INSN(BPF_JMP | BPF_CALL, 0, BPF_CALL_HELPER, 0, id)
#define EXIT            INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* clang-format on */

/* The helpers' ids: rows of sbpf_helpers[]. */
enum {
	H_MEMCPY,
	H_MEMMOVE,
	H_MEMSET,
	H_MEMCMP,
	H_MEMCHR,
	H_MEMMEM,
	H_CRC32C,
	H_SHA256_BLOCKS,
	H_TRACE,
	H_XXH3_UPDATE,
	H_XXH3_DIGEST,
};

/* The sandbox's windows, as the runtime places them. */
#define CTX   sbpf_window_offset(SBPF_WIN_CTX)
#define STACK sbpf_window_offset(SBPF_WIN_STACK)
#define IN    sbpf_window_offset(SBPF_WIN_IN)
#define OUT   sbpf_window_offset(SBPF_WIN_OUT)

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define ASSEMBLE(...)                                     \
	assemble((const struct sbpf_insn[]){__VA_ARGS__}, \
		 sizeof((const struct sbpf_insn[]){__VA_ARGS__}) / sizeof(struct sbpf_insn))

static inline struct sbpf_program *assemble(const struct sbpf_insn *insns, size_t n)
{
	struct sbpf_program *prog = NULL;
	struct sbpf_error err = {0};

	if (sbpf_program_from_insns(insns, n, NULL, &prog, &err))
		fail_msg("refused: %s", err.text);
	return prog;
}

/* SBPF_TEST_TIER: one tier alone, as for KERNEL, whose sandboxes are of another kind; AUTO: all others. */
static inline enum sbpf_tier only_tier(void)
{
	const char *name = getenv("SBPF_TEST_TIER");
	enum sbpf_tier tier = SBPF_TIER_AUTO;

	if (name && sbpf_tier_parse(name, &tier))
		abort();
	return tier;
}

/* True, and said in TAP as one test that was skipped, if that tier is not here. */
static inline bool only_tier_is_missing(void)
{
	const char *missing = sbpf_tier_missing(only_tier());

	if (missing)
		printf("1..1\nok 1 - %s tier # SKIP %s\n", sbpf_tier_name(only_tier()), missing);
	return missing;
}

static inline struct sbpf_sandbox *take(struct sbpf_program *prog)
{
	struct sbpf_sandbox *sb = NULL;

	assert_int_equal(sbpf_sandbox_get_for(prog, only_tier(), &sb), 0);
	return sb;
}

/* The tiers that can run here, INTERP first. */
static inline enum sbpf_tier first_tier(void)
{
	return only_tier() == SBPF_TIER_AUTO ? SBPF_TIER_INTERP : only_tier();
}

static inline enum sbpf_tier next_tier(enum sbpf_tier tier)
{
	if (only_tier() != SBPF_TIER_AUTO)
		return SBPF_TIER_KERNEL + 1;
	do
		tier++;
	while (tier <= SBPF_TIER_LLVM && sbpf_tier_missing(tier));
	return tier <= SBPF_TIER_LLVM ? tier : SBPF_TIER_KERNEL + 1;
}
#define EACH_TIER(tier) \
	for (enum sbpf_tier tier = first_tier(); tier <= SBPF_TIER_KERNEL; tier = next_tier(tier))

/* Does it count fuel, so that it stops at the very same instruction as the others that do? */
static inline bool counts_fuel(enum sbpf_tier tier)
{
	return tier != SBPF_TIER_LLVM;
}

static inline struct sbpf_call a_call(enum sbpf_tier tier, uint64_t r1, uint64_t r2)
{
	return (struct sbpf_call){
		.size = sizeof(struct sbpf_call),
		.tier = tier,
		.r1 = r1,
		.r2 = r2,
		.fuel = 1000000,
	};
}

/* The kernel ends runs by the clock on the wall: on a busy machine it may strike one that is quick.  Again, then. */
static inline int run_patiently(struct sbpf_sandbox *sb, struct sbpf_call *call,
				struct sbpf_error *err)
{
	int r;

	for (int i = 0; i < 20; i++) {
		r = sbpf_run(sb, call, err);
		if (r != -ERESTART)
			break;
	}
	return r;
}

/* Run it; on an error that is not @want, say which. */
static inline void expect(struct sbpf_sandbox *sb, struct sbpf_call *call, int want,
			  struct sbpf_error *err)
{
	int r;

	memset(err, 0, sizeof(*err));
	r = run_patiently(sb, call, err);
	if (r != want)
		fail_msg("tier %s: %d instead of %d: %s", sbpf_tier_name(call->tier), r, want,
			 r ? err->text : "it returned");
	if (r)
		assert_int_equal(err->code, r);
}

/* Programs that do one access at r1 and return. */
static inline struct sbpf_program *reader(void)
{
	return ASSEMBLE(LOAD(BPF_B, 0, 1, 0), EXIT);
}

static inline struct sbpf_program *writer(void)
{
	return ASSEMBLE(STORE(BPF_B, 1, 0, 2), MOV(0, 0), EXIT);
}

static inline uint64_t load_byte(struct sbpf_sandbox *sb, enum sbpf_tier tier, uint64_t at)
{
	struct sbpf_call call = a_call(tier, at, 0);
	struct sbpf_error err;

	expect(sb, &call, 0, &err);
	return call.r0;
}

static inline void access_byte(struct sbpf_sandbox *sb, enum sbpf_tier tier, uint64_t at, int want)
{
	struct sbpf_call call = a_call(tier, at, 0x5a);
	struct sbpf_error err;

	expect(sb, &call, want, &err);
	if (want) {
		assert_int_equal(err.insn, 0);
		assert_int_equal(err.address, at);
	}
}

/* A file of @len bytes of 0xab that is gone when closed. */
static inline int temp_file(size_t len)
{
	int fd = memfd_create("test", 0);
	uint8_t *bytes = malloc(len);

	assert_true(fd >= 0);
	memset(bytes, 0xab, len);
	assert_int_equal(write(fd, bytes, len), len);
	free(bytes);
	return fd;
}

#endif /* TESTS_INSNS_H */
