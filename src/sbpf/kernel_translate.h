/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_translate.h - what the translator's files share: the image of a kernel program while it is written.
 *
 * kernel_flow.c finds what is live where; kernel_emit.c writes instructions and what surrounds them (scratch
 * registers, fuel, stubs); kernel_translate.c translates functions and puts an image together;
 * kernel_runtime.c writes the few subprograms that have no C source; kernel_load.c gives it to the kernel.
 */
#ifndef SBPF_KERNEL_TRANSLATE_H
#define SBPF_KERNEL_TRANSLATE_H

#include "sbpf/arena.h"
#include "sbpf/kernel.h"

/* ---- one program of the kernel ---- */

#define KT_NO_PC     UINT32_MAX
#define KT_MAY_GOTO  0xe5u       /* BPF_JMP | BPF_JCOND, Linux 6.9 */
#define KT_MAP_FD    1u          /* lddw's src: a map; BPF_PSEUDO_MAP_FD */
#define KT_MAP_VALUE 2u          /* lddw's src: an address in a map; BPF_PSEUDO_MAP_VALUE */
#define KT_CAST      1           /* a 64-bit move's off and imm: to a pointer into the arena */
#define KT_TRACE     (60u << 10) /* bytes of trace that one run can leave */
#define KT_CACHES    3u
#define KT_MAX_DEPTH 8u /* functions deep, as the kernel counts (MAX_CALL_FRAMES) */

/*
 * What a run is given, counts and leaves: the value of an array map, which the program cannot reach
 * but by instructions of ours, and which is mapped in our process.
 */
struct kt_ctl {
	uint64_t r0, r1, r2;
	uint64_t fuel;    /* of this slice; negative once the run is ended by an error */
	uint64_t reserve; /* fuel not yet handed out */
	uint64_t slice;
	uint64_t deadline; /* CLOCK_MONOTONIC, 0 for none */
	uint64_t cancel;   /* address of an int in our process, 0 for none */
	uint64_t address;  /* of a fault */
	uint64_t sp;       /* r10 of the function that is called next */
	int64_t status;    /* the error to end with */
	uint64_t pc;       /* the instruction that ended it, plus 1, or of the last helper call */
	uint64_t save[6];  /* r0 to r5 while fuel is asked for */
	uint64_t trace_len;
	uint64_t zero; /* always */
	uint64_t start,
		most; /* of the input's window: most is how far behind its start a word may begin */
	/* By an address's top four bits: the two windows, [start, end), where it can lie. */
	struct kt_row {
		uint64_t start, end, next_start, next_end;
	} rows[16];
	uint8_t trace[KT_TRACE + 8];
	uint64_t pool[]; /* constants that the kernel's verifier is not to know */
};

/* Subprograms written by hand: the C ones call them by these names. */
enum kt_routine {
	KT_RANGE,      /* (offset, length, write): ends the run unless a window holds it */
	KT_CHARGE,     /* (fuel) */
	KT_RAISE,      /* (error, address) */
	KT_TRACE_WORD, /* (place, eight bytes) */
	KT_TRACE_LEN,  /* (): how much there is; (length, 1): now so much */
	KT_REFUEL,     /* (fuel): the new fuel, negative if there is none */
	KT_ROUTINES,
};

struct kt_sub {
	const struct sbpf_program *prog; /* NULL: a routine */
	uint32_t func;                   /* index in prog, or enum kt_routine */
	uint32_t at;                     /* its first instruction */
	uint8_t args;
	bool has_sp; /* asks for its r10 */
};

struct kt_image {
	struct sbpf_insn *insns;
	uint32_t n, room;
	uint32_t *pc; /* of each: the instruction of the program it belongs to, or KT_NO_PC */
	struct kt_sub *subs; /* the first is the entry */
	uint32_t n_subs, subs_room;
	uint64_t *pool; /* of struct kt_ctl */
	uint32_t n_pool, pool_room;
};

struct sbpf_translation {
	const struct sbpf_program *prog;
	uint32_t n_images;
	struct kt_image images[]; /* one an entry */
};

/* ---- a function and its liveness ---- */

/* Registers as masks; r10 has no place in them. */
#define KT_REG(r) ((uint16_t)(1u << (r)))
#define KT_ALL    0x03ffu
#define KT_CALLER 0x003fu /* what a call does not keep */

struct kt_flow {
	const struct sbpf_program *prog;
	const struct sbpf_func *func;
	uint16_t *live; /* [end - start] read later, before each instruction */
	uint16_t *told; /* [end - start] what branches may depend on, before each instruction */
	uint32_t *first, *last; /* [end - start] the jumps there, plus 1; 0 if there is none */
	uint8_t *marks;         /* [end - start] KT_REACHED, KT_CHECKED */
	bool loops;             /* has a back edge */
	bool calls;
	uint32_t branches;
	bool uses_fp, copies_fp; /* its r10; other than as a base */
	uint16_t used;           /* registers that are named */
};
#define KT_REACHED 0x01u
#define KT_CHECKED 0x02u /* a check before it is about this access, too */

/* @args_of tells the registers that a local call reads. */
int kt_flow(struct kt_flow *f, const struct sbpf_program *prog, uint32_t func,
	    uint16_t (*args_of)(void *arg, uint32_t func), void *arg);
void kt_flow_free(struct kt_flow *f);

static inline uint16_t kt_live_in(const struct kt_flow *f, uint32_t pc)
{
	return f->live[pc - f->func->start];
}

static inline bool kt_reached(const struct kt_flow *f, uint32_t pc)
{
	return f->marks[pc - f->func->start] & KT_REACHED;
}

uint16_t kt_uses(const struct sbpf_insn *insn);
uint16_t kt_defs(const struct sbpf_insn *insn);
/* Read after it, on any path; what branches after it may depend on. */
uint16_t kt_live_out(const struct kt_flow *f, uint32_t pc);
uint16_t kt_told_out(const struct kt_flow *f, uint32_t pc);

/* ---- writing ---- */

enum kt_fuel {
	KT_FUEL_CTL,  /* in the map */
	KT_FUEL_REG,  /* in a register that the function does not use */
	KT_FUEL_SLOT, /* on the kernel's stack */
};

/* Slots of the kernel's stack, from r10. */
/* Slots of the kernel's stack, which get their places as they are first used. */
enum kt_slot {
	KT_SLOT_FUEL,
	KT_SLOT_FP, /* the function's own r10 */
	KT_SLOT_A,  /* registers that had to give way */
	KT_SLOT_B,
	KT_SLOT_C,
	KT_SLOT_D,
	KT_SLOT_E,
	KT_SLOT_ZERO,    /* of which the kernel's verifier does not know that it is */
	KT_SLOT_WINDOWS, /* kernel_check.c: a window's start and how far behind it a word may begin */
	KT_SLOTS = KT_SLOT_WINDOWS + 2 * KT_CACHES,
};

struct kt_fix { /* a jump to an instruction of the program */
	uint32_t at, target;
};

struct kt_scratch {
	uint8_t reg;
	int8_t slot; /* enum kt_slot: holds what the register held; -1 if it held nothing */
};

struct kt_access { /* of @bytes at what @base holds plus @off */
	uint32_t pc;
	int32_t off;
	uint32_t bytes;
	uint8_t base;
	bool write;
};

enum kt_stub_kind {
	KT_STUB_REFUEL,
	KT_STUB_CHECK,
	KT_STUB_FAULT,
	KT_STUB_ABORT,   /* a callee ended the run */
	KT_STUB_GAVE_UP, /* the kernel did */
};

struct kt_stub { /* cold code */
	enum kt_stub_kind kind;
	uint32_t jump;   /* the jump to it */
	uint32_t resume; /* where it goes on */
	uint32_t pc;
	uint16_t live;                     /* refuel: what it keeps */
	bool spilled;                      /* refuel: @base is to be loaded from its slot */
	uint8_t base;                      /* fault: the address is this register … */
	int32_t off;                       /* … plus this */
	struct kt_scratch used[2];         /* check: what came back on the main path */
	uint32_t bytes;                    /* check: of all from @off on */
	uint32_t first_access, n_accesses; /* check: in their order */
	uint16_t busy;
};

struct kt {
	struct kt_image *image;
	struct sbpf_error *err;
	int error; /* the first that happened */

	/* the function being written */
	bool copies; /* branches compare copies */
	bool wide;   /* every jump is to reach anywhere */
	struct kt_flow flow;
	bool raw_stack; /* the function's frame is on the kernel's stack */
	bool library;   /* one of ours: no fuel is charged, its stores need no check */
	bool is_entry;
	uint32_t pc;
	uint32_t *at; /* [end - start + 1] where each instruction's code is */
	struct kt_fix *fixes;
	uint32_t n_fixes, fixes_room;
	struct kt_stub *stubs;
	uint32_t n_stubs, stubs_room;
	struct kt_access *accesses;
	uint32_t n_accesses, accesses_room;
	uint8_t slots[KT_SLOTS]; /* places, from 1 */
	uint8_t n_slots;
	uint8_t cache_of[10]; /* base register → the window it was last in */
	uint8_t n_caches;
	enum kt_fuel fuel;
	uint8_t fuel_reg;
	uint16_t reserved; /* registers that are not the program's */
	int32_t fp_value;  /* the entry's r10 */

	/* known since the last place that is jumped to */
	int8_t cast_of[10]; /* register → whose arena pointer it holds (10: r10's), or -1 */
	int64_t least[10];  /* register → its low half is at least this */
};

/* kernel_emit.c */
void *kt_grow(struct kt *k, void *array, uint32_t n, uint32_t *room, size_t size);
uint32_t kt_emit(struct kt *k, uint8_t code, unsigned int dst, unsigned int src, int32_t off,
		 int32_t imm);
void kt_ctl(struct kt *k, unsigned int reg); /* reg = address of struct kt_ctl */
void kt_call(struct kt *k, uint32_t sub);
/* @reg = @value, which the kernel's verifier does not get to know. */
void kt_constant(struct kt *k, unsigned int reg, uint64_t value);
int32_t kt_slot(struct kt *k, enum kt_slot slot);
void kt_fp(struct kt *k, unsigned int reg);         /* reg = the program's r10 */
int kt_free_reg(const struct kt *k, uint16_t busy); /* or -1 */
/* A register that is neither @busy nor @named: if there is none, one that is not @named gives way. */
struct kt_scratch kt_take(struct kt *k, uint16_t busy, uint16_t named, enum kt_slot slot);
void kt_give(struct kt *k, struct kt_scratch s);
uint32_t kt_jump(struct kt *k, uint8_t code, unsigned int dst, unsigned int src, int32_t imm);
void kt_to(struct kt *k, uint32_t at, uint32_t target);
void kt_here(struct kt *k, uint32_t at);
void kt_fix(struct kt *k, uint32_t at, uint32_t target);
void kt_abort_if_negative(struct kt *k, unsigned int reg);
void kt_fault(struct kt *k, uint32_t jump, unsigned int base, int16_t off);
void kt_may_goto(struct kt *k);
void kt_charge(struct kt *k, uint32_t cost, uint16_t live);
void kt_fuel_to_ctl(struct kt *k, unsigned int ctl, unsigned int temp);
void kt_fuel_from_ctl(struct kt *k, unsigned int ctl, unsigned int temp);
void kt_fuel_after_call(struct kt *k);
void kt_stubs(struct kt *k);
void kt_exit_with(struct kt *k, unsigned int ctl, int status);

struct kt_stub *kt_stub(struct kt *k, enum kt_stub_kind kind, uint32_t jump);

/* kernel_check.c: before the access at k->pc; the function's caches; a check's cold code */
void kt_check(struct kt *k, unsigned int base, int16_t off, uint16_t named);
void kt_caches(struct kt *k, unsigned int temp);
void kt_check_stub(struct kt *k, const struct kt_stub *stub);

/* kernel_runtime.c */
void kt_routine(struct kt *k, enum kt_routine which);
uint8_t kt_routine_args(enum kt_routine which);
int kt_routine_find(const char *name);

/* kernel_translate.c: the number of a subprogram, added if it is new */
uint32_t kt_sub_of(struct kt *k, const struct sbpf_program *prog, uint32_t func);

/*
 * Where the library's constants and variables are in an arena, and the end of its functions' frames, which lie
 * one behind the other: none calls itself, and none runs twice at a time.
 */
#define KT_LIBRARY_RODATA SBPF_ARENA_OWN
#define KT_LIBRARY_DATA   (SBPF_ARENA_OWN + 0x1000)
#define KT_LIBRARY_STACK  (SBPF_ARENA_OWN + SBPF_ARENA_OWN_BYTES)
void kt_library_fill(uint8_t *arena_base);
/* What an address of the library's is in an arena; any other value is itself. */
uint64_t kt_library_address(uint64_t value);

/* The program of helpers, compiled from kernel_helpers.bpf.c, or NULL. */
const struct sbpf_program *kt_library(struct sbpf_error *err);

#endif /* SBPF_KERNEL_TRANSLATE_H */
