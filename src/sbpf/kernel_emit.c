/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_emit.c - writing a kernel program: instructions, scratch registers, fuel, and the cold code behind a function.
 *
 * The kernel's verifier follows every path, and tells states at the same place apart by values that decided a branch.
 * So that none is ever decided while it verifies, a constant that a branch may depend on is loaded from the
 * map, of which it knows nothing: every join prunes, and a loop is gone through twice.
 */
#include <errno.h>
#include <stdlib.h>

#include "sbpf/kernel_translate.h"

#define CTL(field) ((int32_t)offsetof(struct kt_ctl, field))

/* ---- instructions ---- */

void *kt_grow(struct kt *k, void *array, uint32_t n, uint32_t *room, size_t size)
{
	uint32_t wanted = *room ? 2 * *room : 64;
	void *grown;

	if (n < *room)
		return array;
	grown = realloc(array, wanted * size);
	if (!grown) {
		k->error = -ENOMEM;
		return NULL;
	}
	*room = wanted;
	return grown;
}

uint32_t kt_emit(struct kt *k, uint8_t code, unsigned int dst, unsigned int src, int32_t off,
		 int32_t imm)
{
	struct kt_image *im = k->image;
	uint32_t room = im->room;
	void *insns = kt_grow(k, im->insns, im->n, &im->room, sizeof(*im->insns));
	void *pc;

	if (!insns)
		return 0;
	im->insns = insns;
	pc = kt_grow(k, im->pc, im->n, &room, sizeof(*im->pc));
	if (!pc) {
		im->room = im->n;
		return 0;
	}
	im->pc = pc;
	im->pc[im->n] = k->library ? KT_NO_PC : k->pc;
	im->insns[im->n] = (struct sbpf_insn){
		.code = code, .dst = dst & 15, .src = src & 15, .off = (int16_t)off, .imm = imm};
	return im->n++;
}

void kt_ctl(struct kt *k, unsigned int reg)
{
	/* The descriptor is filled in when it is loaded. */
	kt_emit(k, BPF_LDDW_CODE, reg, KT_MAP_VALUE, 0, 0);
	kt_emit(k, 0, 0, 0, 0, 0);
}

void kt_call(struct kt *k, uint32_t sub)
{
	kt_emit(k, BPF_JMP | BPF_CALL, 0, BPF_CALL_LOCAL, 0, (int32_t)sub);
}

static uint32_t pool_place(struct kt *k, uint64_t value)
{
	struct kt_image *im = k->image;
	/* Most are near those that are alike; a constant that is there twice does no harm. */
	uint32_t look = im->n_pool < 64 ? im->n_pool : 64;
	void *grown;

	for (uint32_t i = im->n_pool - look; i < im->n_pool; i++)
		if (im->pool[i] == value)
			return i;
	grown = kt_grow(k, im->pool, im->n_pool, &im->pool_room, sizeof(*im->pool));
	if (!grown)
		return 0;
	im->pool = grown;
	im->pool[im->n_pool] = value;
	return im->n_pool++;
}

void kt_constant(struct kt *k, unsigned int reg, uint64_t value)
{
	uint32_t place = pool_place(k, value);

	kt_emit(k, BPF_LDDW_CODE, reg, KT_MAP_VALUE, 0, 0);
	kt_emit(k, 0, 0, 0, 0, CTL(pool) + 8 * (int32_t)place);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, reg, reg, 0, 0);
}

/* ---- registers and slots ---- */

int32_t kt_slot(struct kt *k, enum kt_slot slot)
{
	if (!k->slots[slot])
		k->slots[slot] = ++k->n_slots;
	/* A library function's frame is the kernel's. */
	return -8 * (int32_t)k->slots[slot] - (k->raw_stack ? (int32_t)k->flow.func->frame : 0);
}

int kt_free_reg(const struct kt *k, uint16_t busy)
{
	/* Those that a call destroys first: using one of the others costs saving it. */
	static const uint8_t order[] = {0, 5, 4, 3, 2, 1, 9, 8, 7, 6};
	int found = -1;

	busy |= k->reserved;
	for (unsigned int i = 0; i < 10; i++) {
		unsigned int r = order[i];

		if (busy & KT_REG(r))
			continue;
		/* One that holds nothing of use, if there is. */
		if (found < 0 || (k->cast_of[found] >= 0 && k->cast_of[r] < 0))
			found = (int)r;
	}
	return found;
}

struct kt_scratch kt_take(struct kt *k, uint16_t busy, uint16_t named, enum kt_slot slot)
{
	int found = kt_free_reg(k, busy | named);

	if (found >= 0) {
		k->cast_of[found] = -1;
		return (struct kt_scratch){.reg = (uint8_t)found, .slot = -1};
	}
	for (unsigned int r = 9;; r--) {
		if ((named | k->reserved) & KT_REG(r))
			continue;
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, r, kt_slot(k, slot), 0);
		return (struct kt_scratch){.reg = (uint8_t)r, .slot = (int8_t)slot};
	}
}

void kt_give(struct kt *k, struct kt_scratch s)
{
	if (s.slot < 0)
		return;
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, s.reg, 10, kt_slot(k, (enum kt_slot)s.slot), 0);
	k->cast_of[s.reg] = -1;
}

void kt_fp(struct kt *k, unsigned int reg)
{
	if (k->is_entry || k->library)
		kt_emit(k, BPF_ALU | BPF_MOV | BPF_K, reg, 0, 0, k->fp_value);
	else
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, reg, 10, kt_slot(k, KT_SLOT_FP), 0);
}

/* ---- jumps that are filled in later ---- */

/* A jump somewhere: the instruction that kt_here() or kt_to() completes. */
uint32_t kt_jump(struct kt *k, uint8_t code, unsigned int dst, unsigned int src, int32_t imm)
{
	if (!k->wide)
		return kt_emit(k, code, dst, src, 0, imm);
	if (code != (BPF_JMP | BPF_JA)) {
		kt_emit(k, code, dst, src, 1, imm);
		kt_emit(k, BPF_JMP | BPF_JA, 0, 0, 1, 0);
	}
	return kt_emit(k, BPF_JMP32 | BPF_JA, 0, 0, 0, 0);
}

void kt_to(struct kt *k, uint32_t at, uint32_t target)
{
	int64_t distance = (int64_t)target - at - 1;
	struct sbpf_insn *insn = &k->image->insns[at];

	if (k->error)
		return;
	if (insn->code == (BPF_JMP32 | BPF_JA))
		insn->imm = (int32_t)distance;
	else if (distance == (int16_t)distance)
		insn->off = (int16_t)distance;
	else
		k->error = -E2BIG; /* translated once more, with wide jumps */
}

void kt_here(struct kt *k, uint32_t at)
{
	kt_to(k, at, k->image->n);
}

/* Without an answer yet: the jump @at goes to the instruction @target of the program. */
void kt_fix(struct kt *k, uint32_t at, uint32_t target)
{
	struct kt_fix *grown = kt_grow(k, k->fixes, k->n_fixes, &k->fixes_room, sizeof(*grown));

	if (!grown)
		return;
	k->fixes = grown;
	grown[k->n_fixes++] = (struct kt_fix){at, target};
}

struct kt_stub *kt_stub(struct kt *k, enum kt_stub_kind kind, uint32_t jump)
{
	struct kt_stub *grown = kt_grow(k, k->stubs, k->n_stubs, &k->stubs_room, sizeof(*grown));

	if (!grown)
		return NULL;
	k->stubs = grown;
	grown[k->n_stubs] = (struct kt_stub){.kind = kind, .jump = jump, .pc = k->pc};
	return &grown[k->n_stubs++];
}

/* What is left of @reg is its sign, which tells the kernel's verifier nothing of where its value came from. */
void kt_abort_if_negative(struct kt *k, unsigned int reg)
{
	kt_emit(k, BPF_ALU64 | BPF_RSH | BPF_K, reg, 0, 0, 63);
	kt_stub(k, KT_STUB_ABORT, kt_jump(k, BPF_JMP | BPF_JNE | BPF_K, reg, 0, 0));
}

void kt_fault(struct kt *k, uint32_t jump, unsigned int base, int16_t off)
{
	struct kt_stub *stub = kt_stub(k, KT_STUB_FAULT, jump);

	if (stub) {
		stub->base = (uint8_t)base;
		stub->off = off;
	}
}

void kt_may_goto(struct kt *k)
{
	kt_stub(k, KT_STUB_GAVE_UP, kt_jump(k, KT_MAY_GOTO, 0, 0, 0));
}

/* ---- fuel ---- */

/* Into @reg; @ctl holds the map's address where the fuel is there. */
static void load_fuel(struct kt *k, unsigned int reg, unsigned int ctl)
{
	if (k->fuel == KT_FUEL_REG)
		kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_X, reg, k->fuel_reg, 0, 0);
	else if (k->fuel == KT_FUEL_SLOT)
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, reg, 10, kt_slot(k, KT_SLOT_FUEL), 0);
	else
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, reg, ctl, CTL(fuel), 0);
}

static void store_fuel(struct kt *k, unsigned int reg, unsigned int ctl)
{
	if (k->fuel == KT_FUEL_REG)
		kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_X, k->fuel_reg, reg, 0, 0);
	else if (k->fuel == KT_FUEL_SLOT)
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, reg, kt_slot(k, KT_SLOT_FUEL), 0);
	else
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, ctl, reg, CTL(fuel), 0);
}

void kt_fuel_to_ctl(struct kt *k, unsigned int ctl, unsigned int temp)
{
	if (k->fuel == KT_FUEL_CTL)
		return;
	if (k->fuel == KT_FUEL_SLOT)
		load_fuel(k, temp, ctl);
	else
		temp = k->fuel_reg;
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, ctl, temp, CTL(fuel), 0);
}

void kt_fuel_from_ctl(struct kt *k, unsigned int ctl, unsigned int temp)
{
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, ctl, CTL(fuel), 0);
	if (k->fuel != KT_FUEL_CTL)
		store_fuel(k, temp, ctl);
}

/* r0 to r5 are free; leaves if the callee ended the run. */
void kt_fuel_after_call(struct kt *k)
{
	kt_ctl(k, 5);
	kt_fuel_from_ctl(k, 5, 1);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, 0, 5, CTL(r0), 0);
	kt_abort_if_negative(k, 1);
}

void kt_charge(struct kt *k, uint32_t cost, uint16_t live)
{
	struct kt_scratch value = {.reg = k->fuel_reg, .slot = -1}, ctl = {.slot = -1};
	struct kt_stub *stub;
	uint32_t jump;

	if (k->library)
		return;
	if (k->fuel != KT_FUEL_REG)
		value = kt_take(k, live, 0, KT_SLOT_A);
	if (k->fuel == KT_FUEL_CTL) {
		ctl = kt_take(k, live, KT_REG(value.reg), KT_SLOT_B);
		kt_ctl(k, ctl.reg);
	}
	if (k->fuel != KT_FUEL_REG)
		load_fuel(k, value.reg, ctl.reg);
	kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_K, value.reg, 0, 0, -(int32_t)cost);
	if (k->fuel != KT_FUEL_REG)
		store_fuel(k, value.reg, ctl.reg);
	kt_give(k, ctl);
	if (k->fuel == KT_FUEL_REG) {
		jump = kt_jump(k, BPF_JMP | BPF_JSLT | BPF_K, value.reg, 0, 0);
	} else {
		/* Its sign, for by its value the kernel's verifier would learn about the slot. */
		kt_emit(k, BPF_ALU64 | BPF_RSH | BPF_K, value.reg, 0, 0, 63);
		jump = kt_jump(k, BPF_JMP | BPF_JNE | BPF_K, value.reg, 0, 0);
	}
	stub = kt_stub(k, KT_STUB_REFUEL, jump);
	kt_give(k, value);
	if (!stub)
		return;
	stub->resume = k->image->n;
	stub->live = live;
	stub->base = value.reg;
	stub->spilled = value.slot >= 0;
}

/* ---- cold code ---- */

void kt_exit_with(struct kt *k, unsigned int ctl, int status)
{
	kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, ctl, 0, CTL(status), status);
	kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, ctl, 0, CTL(fuel), -1);
	kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
	kt_emit(k, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* What the program's registers hold waits in the map: the kernel's stack is short. */
static void refuel(struct kt *k, const struct kt_stub *stub)
{
	uint16_t keep = stub->live & KT_CALLER;

	if (stub->spilled) /* it is in the slot, and the main path has loaded it where we resume */
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, stub->base, 10, kt_slot(k, KT_SLOT_A), 0);
	if (keep & KT_REG(0))
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, 0, kt_slot(k, KT_SLOT_C), 0);
	kt_ctl(k, 0);
	for (unsigned int r = 1; r < 6; r++)
		if (keep & KT_REG(r))
			kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 0, r, CTL(save) + 8 * (int32_t)r, 0);
	kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, 0, 0, CTL(pc), (int32_t)(stub->pc + 1));
	load_fuel(k, 1, 0);
	kt_call(k, kt_sub_of(k, NULL, KT_REFUEL));
	if (k->fuel != KT_FUEL_CTL)
		store_fuel(k, 0, 0);
	kt_emit(k, BPF_JMP | BPF_JSGE | BPF_K, 0, 0, 2, 0);
	kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
	kt_emit(k, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	kt_ctl(k, 0);
	for (unsigned int r = 1; r < 6; r++)
		if (keep & KT_REG(r))
			kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, r, 0, CTL(save) + 8 * (int32_t)r, 0);
	if (keep & KT_REG(0))
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, 0, 10, kt_slot(k, KT_SLOT_C), 0);
	kt_to(k, kt_emit(k, BPF_JMP32 | BPF_JA, 0, 0, 0, 0), stub->resume);
}

/* The address that the access formed; the run ends. */
static void fault(struct kt *k, const struct kt_stub *stub)
{
	unsigned int ctl = stub->base == 1 ? 2 : 1;

	kt_ctl(k, ctl);
	kt_emit(k, BPF_ALU | BPF_ADD | BPF_K, stub->base, 0, 0, stub->off);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, ctl, stub->base, CTL(address), 0);
	kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, ctl, 0, CTL(pc), (int32_t)(stub->pc + 1));
	kt_exit_with(k, ctl, -EFAULT);
}

/* Those of a kind that are alike share what the first one writes. */
void kt_stubs(struct kt *k)
{
	uint32_t aborted = 0, gave_up = 0;

	for (uint32_t i = 0; i < k->n_stubs && !k->error; i++) {
		const struct kt_stub *stub = &k->stubs[i];

		if (stub->kind == KT_STUB_ABORT && aborted) {
			kt_to(k, stub->jump, aborted);
			continue;
		}
		if (stub->kind == KT_STUB_GAVE_UP && gave_up) {
			kt_to(k, stub->jump, gave_up);
			continue;
		}
		kt_here(k, stub->jump);
		k->pc = stub->pc;
		switch (stub->kind) {
		case KT_STUB_REFUEL:
			refuel(k, stub);
			break;
		case KT_STUB_CHECK:
			kt_check_stub(k, stub);
			break;
		case KT_STUB_FAULT:
			fault(k, stub);
			break;
		case KT_STUB_ABORT:
			aborted = k->image->n;
			kt_emit(k, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
			kt_emit(k, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
			break;
		case KT_STUB_GAVE_UP:
			gave_up = k->image->n;
			kt_ctl(k, 1);
			kt_exit_with(k, 1, -ERESTART);
			break;
		}
	}
}
