/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_runtime.c - the subprograms that the translator's output calls and that have no C source: what they
 * read and write lies in the map behind the run (struct kt_ctl), not in the arena.
 */
#include <errno.h>
#include <string.h>

#include "sbpf/kernel_translate.h"
#include "sbpf/sandbox.h"

#define CTL(field) ((int32_t)offsetof(struct kt_ctl, field))
#define ROW(field) ((int32_t)offsetof(struct kt_row, field))

#define HELPER_KTIME_GET_NS   5   /* CLOCK_MONOTONIC */
#define HELPER_COPY_FROM_USER 148 /* (to, length, address) */

static const struct {
	const char *name; /* as kernel_helpers.bpf.c calls it */
	uint8_t args;
} routines[KT_ROUTINES] = {
	[KT_RANGE] = {"kt_range", KT_REG(1) | KT_REG(2) | KT_REG(3)},
	[KT_CHARGE] = {"kt_charge", KT_REG(1)},
	[KT_RAISE] = {"kt_raise", KT_REG(1) | KT_REG(2)},
	[KT_TRACE_WORD] = {"kt_trace_word", KT_REG(1) | KT_REG(2)},
	[KT_TRACE_LEN] = {"kt_trace_len", KT_REG(1) | KT_REG(2)},
	[KT_REFUEL] = {"kt_refuel", KT_REG(1)},
};

uint8_t kt_routine_args(enum kt_routine which)
{
	return routines[which].args;
}

int kt_routine_find(const char *name)
{
	for (int i = 0; i < KT_ROUTINES; i++)
		if (!strcmp(name, routines[i].name))
			return i;
	return -1;
}

/* ---- an assembler's words ---- */

static void mov(struct kt *k, unsigned int dst, unsigned int src)
{
	kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

static void mov_imm(struct kt *k, unsigned int dst, int32_t imm)
{
	kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm);
}

static void alu(struct kt *k, uint8_t op, unsigned int dst, unsigned int src)
{
	kt_emit(k, BPF_ALU64 | op | BPF_X, dst, src, 0, 0);
}

static void alu_imm(struct kt *k, uint8_t op, unsigned int dst, int32_t imm)
{
	kt_emit(k, BPF_ALU64 | op | BPF_K, dst, 0, 0, imm);
}

static void get(struct kt *k, unsigned int dst, unsigned int base, int32_t off)
{
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, dst, base, off, 0);
}

static void put(struct kt *k, unsigned int base, int32_t off, unsigned int src)
{
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, base, src, off, 0);
}

static void put_imm(struct kt *k, unsigned int base, int32_t off, int32_t imm)
{
	kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, base, 0, off, imm);
}

/* Jumps to be completed by to_here(). */
static uint32_t if_op(struct kt *k, uint8_t op, unsigned int dst, unsigned int src)
{
	return kt_emit(k, BPF_JMP | op | BPF_X, dst, src, 0, 0);
}

static uint32_t if_imm(struct kt *k, uint8_t op, unsigned int dst, int32_t imm)
{
	return kt_emit(k, BPF_JMP | op | BPF_K, dst, 0, 0, imm);
}

static void leave(struct kt *k, int32_t result)
{
	mov_imm(k, 0, result);
	kt_emit(k, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* With the map's address in @ctl: the run is over. */
static void end_run(struct kt *k, unsigned int ctl, int status)
{
	put_imm(k, ctl, CTL(status), status);
	put_imm(k, ctl, CTL(fuel), -1);
	leave(k, -1);
}

/* ---- the subprograms ---- */

/* Its result is the address, of which the kernel's verifier then knows nothing. */
static void range(struct kt *k)
{
	uint32_t empty, first, below, above, reads, writable, fits;

	kt_emit(k, BPF_ALU | BPF_MOV | BPF_X, 1, 1, 0, 0); /* as loads and stores do */
	kt_ctl(k, 5);
	put(k, 5, CTL(r0), 1);
	empty = if_imm(k, BPF_JEQ, 2, 0);
	mov(k, 4, 1);
	alu_imm(k, BPF_RSH, 4, 28);
	alu_imm(k, BPF_LSH, 4, 5);
	_Static_assert(sizeof(struct kt_row) == 1 << 5, "the shift's");
	kt_ctl(k, 5);
	alu_imm(k, BPF_ADD, 5, CTL(rows));
	alu(k, BPF_ADD, 5, 4);
	get(k, 0, 5, ROW(next_start));
	first = if_op(k, BPF_JLT, 1, 0);
	alu_imm(k, BPF_ADD, 5, ROW(next_start));
	kt_here(k, first);
	get(k, 0, 5, ROW(start));
	below = if_op(k, BPF_JLT, 1, 0);
	get(k, 0, 5, ROW(end));
	above = if_op(k, BPF_JGE, 1, 0);
	reads = if_imm(k, BPF_JEQ, 3, 0);
	writable = if_imm(k, BPF_JGE, 1, (int32_t)SBPF_WRITABLE_FROM);
	kt_here(k, below);
	kt_here(k, above);
	uint32_t at_start = k->image->n;
	kt_ctl(k, 5);
	put(k, 5, CTL(address), 1);
	end_run(k, 5, -EFAULT);
	kt_here(k, reads);
	kt_here(k, writable);
	mov(k, 3, 0);
	alu(k, BPF_SUB, 3, 1); /* from here to the window's end */
	fits = if_op(k, BPF_JLE, 2, 3);
	mov(k, 1, 0);
	kt_to(k, kt_emit(k, BPF_JMP | BPF_JA, 0, 0, 0, 0), at_start);
	kt_here(k, empty);
	kt_here(k, fits);
	leave(k, 0);
}

static void charge(struct kt *k)
{
	uint32_t enough;

	kt_ctl(k, 5);
	get(k, 0, 5, CTL(fuel));
	alu(k, BPF_SUB, 0, 1);
	put(k, 5, CTL(fuel), 0);
	enough = if_imm(k, BPF_JSGE, 0, 0);
	mov(k, 1, 0);
	kt_call(k, kt_sub_of(k, NULL, KT_REFUEL));
	kt_here(k, enough);
	leave(k, 0);
}

static void raise(struct kt *k)
{
	kt_ctl(k, 5);
	put(k, 5, CTL(address), 2);
	put(k, 5, CTL(status), 1);
	put_imm(k, 5, CTL(fuel), -1);
	leave(k, 0);
}

/* A place beyond the end is one that nobody looks at. */
static void trace_word(struct kt *k)
{
	uint32_t beyond = if_imm(k, BPF_JGT, 1, KT_TRACE);

	kt_ctl(k, 5);
	alu(k, BPF_ADD, 5, 1);
	put(k, 5, CTL(trace), 2);
	kt_here(k, beyond);
	leave(k, 0);
}

static void trace_len(struct kt *k)
{
	uint32_t asked;

	kt_ctl(k, 5);
	get(k, 0, 5, CTL(trace_len));
	put(k, 5, CTL(r0), 0);
	asked = if_imm(k, BPF_JEQ, 2, 0);
	put(k, 5, CTL(trace_len), 1);
	kt_here(k, asked);
	leave(k, 0);
}

/* As sbpf_exec_refuel(): r1 is what a charge left, below zero. */
static void refuel(struct kt *k)
{
	uint32_t has_reserve, no_cancel, not_canceled, no_deadline, in_time, grant;

	kt_ctl(k, 6);
	mov(k, 7, 1);
	mov_imm(k, 2, 0);
	alu(k, BPF_SUB, 2, 1); /* missing */
	get(k, 3, 6, CTL(reserve));
	has_reserve = if_op(k, BPF_JLE, 2, 3);
	put_imm(k, 6, CTL(reserve), 0);
	end_run(k, 6, -ETIME);

	kt_here(k, has_reserve);
	get(k, 3, 6, CTL(cancel));
	no_cancel = if_imm(k, BPF_JEQ, 3, 0);
	put_imm(k, 10, -8, 0);
	mov(k, 1, 10);
	alu_imm(k, BPF_ADD, 1, -8);
	mov_imm(k, 2, 4);
	kt_emit(k, BPF_JMP | BPF_CALL, 0, BPF_CALL_HELPER, 0, HELPER_COPY_FROM_USER);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_W, 1, 10, -8, 0);
	not_canceled = if_imm(k, BPF_JEQ, 1, 0);
	end_run(k, 6, -ECANCELED);

	kt_here(k, no_cancel);
	kt_here(k, not_canceled);
	get(k, 8, 6, CTL(deadline));
	no_deadline = if_imm(k, BPF_JEQ, 8, 0);
	kt_emit(k, BPF_JMP | BPF_CALL, 0, BPF_CALL_HELPER, 0, HELPER_KTIME_GET_NS);
	in_time = if_op(k, BPF_JLT, 0, 8);
	/* Told apart from spent fuel by the reserve. */
	put_imm(k, 6, CTL(reserve), 1);
	end_run(k, 6, -ETIME);

	kt_here(k, no_deadline);
	kt_here(k, in_time);
	get(k, 2, 6, CTL(slice));
	alu(k, BPF_SUB, 2, 7); /* what is missing and a slice */
	get(k, 3, 6, CTL(reserve));
	grant = if_op(k, BPF_JLE, 2, 3);
	mov(k, 2, 3);
	kt_here(k, grant);
	alu(k, BPF_SUB, 3, 2);
	put(k, 6, CTL(reserve), 3);
	mov(k, 0, 7);
	alu(k, BPF_ADD, 0, 2);
	put(k, 6, CTL(fuel), 0);
	kt_emit(k, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

void kt_routine(struct kt *k, enum kt_routine which)
{
	static void (*const write[KT_ROUTINES])(struct kt *) = {
		[KT_RANGE] = range,           [KT_CHARGE] = charge,       [KT_RAISE] = raise,
		[KT_TRACE_WORD] = trace_word, [KT_TRACE_LEN] = trace_len, [KT_REFUEL] = refuel,
	};

	k->pc = KT_NO_PC;
	write[which](k);
}
