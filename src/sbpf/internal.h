/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - what the runtime's modules share; nothing outside src/sbpf includes it.
 *
 * A program goes one way: elf.c (or program.c for raw instructions) fills it → verify.c checks it and
 * computes what the others rely on → an engine compiles it → run.c calls it inside a sandbox.
 * After verify.c returned 0 nothing but the engines' code slots changes.
 */
#ifndef SBPF_INTERNAL_H
#define SBPF_INTERNAL_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lambdaio/sbpf.h"

#define SBPF_MAX_INSNS 1000000u
#define SBPF_MAX_FRAME 4096u /* bytes of stack in one function */
#define SBPF_MAX_DEPTH 16u   /* calls deep, the entry included */
#define SBPF_MAX_FUNCS 65536u

/* ---- instructions (RFC 9669) ---- */

struct sbpf_insn {
	uint8_t code;
	uint8_t dst : 4; /* the machine is little-endian, as the bytecode is */
	uint8_t src : 4;
	int16_t off;
	int32_t imm;
};
_Static_assert(sizeof(struct sbpf_insn) == 8, "RFC 9669, section 3");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian hosts are not supported");

/* clang-format off */
enum {	/* code & 7: class */
	BPF_LD = 0, BPF_LDX = 1, BPF_ST = 2, BPF_STX = 3, BPF_ALU = 4, BPF_JMP = 5, BPF_JMP32 = 6, BPF_ALU64 = 7,
};
enum {	/* load and store: size (code & 0x18) and mode (code & 0xe0) */
	BPF_W = 0x00, BPF_H = 0x08, BPF_B = 0x10, BPF_DW = 0x18,
	BPF_IMM = 0x00, BPF_ABS = 0x20, BPF_IND = 0x40, BPF_MEM = 0x60, BPF_MEMSX = 0x80, BPF_ATOMIC = 0xc0,
};
enum {	/* arithmetic and jumps: source (code & 8) and operation (code & 0xf0) */
	BPF_K = 0x00, BPF_X = 0x08,
	BPF_ADD = 0x00, BPF_SUB = 0x10, BPF_MUL = 0x20, BPF_DIV = 0x30, BPF_OR = 0x40, BPF_AND = 0x50,
	BPF_LSH = 0x60, BPF_RSH = 0x70, BPF_NEG = 0x80, BPF_MOD = 0x90, BPF_XOR = 0xa0, BPF_MOV = 0xb0,
	BPF_ARSH = 0xc0, BPF_END = 0xd0,
	BPF_JA = 0x00, BPF_JEQ = 0x10, BPF_JGT = 0x20, BPF_JGE = 0x30, BPF_JSET = 0x40, BPF_JNE = 0x50,
	BPF_JSGT = 0x60, BPF_JSGE = 0x70, BPF_CALL = 0x80, BPF_EXIT = 0x90, BPF_JLT = 0xa0, BPF_JLE = 0xb0,
	BPF_JSLT = 0xc0, BPF_JSLE = 0xd0,
};
enum {	/* atomics: imm */
	BPF_FETCH = 0x01, BPF_XCHG = 0xe1, BPF_CMPXCHG = 0xf1,
};
enum {	/* BPF_CALL: src */
	BPF_CALL_HELPER = 0, /* imm: helper id, as in struct sbpf_helper's table */
	BPF_CALL_LOCAL = 1,  /* imm: target relative to the next instruction */
};
/* clang-format on */

#define BPF_CLASS(code) ((code) & 0x07)
#define BPF_SIZE(code)  ((code) & 0x18)
#define BPF_MODE(code)  ((code) & 0xe0)
#define BPF_OP(code)    ((code) & 0xf0)
#define BPF_SRC(code)   ((code) & 0x08)
#define BPF_LDDW_CODE   (BPF_LD | BPF_DW | BPF_IMM)

static inline bool sbpf_is_lddw(const struct sbpf_insn *insn)
{
	return insn->code == BPF_LDDW_CODE;
}

/* A jump within the function (not a call, not an exit). */
static inline bool sbpf_is_jump(const struct sbpf_insn *insn)
{
	uint8_t cls = BPF_CLASS(insn->code), op = BPF_OP(insn->code);

	return (cls == BPF_JMP || cls == BPF_JMP32) && op != BPF_CALL && op != BPF_EXIT;
}

/* gotol (JMP32|JA) holds its distance in imm, every other jump in off. */
static inline int64_t sbpf_jump_target(const struct sbpf_insn *insn, uint32_t pc)
{
	return (int64_t)pc + 1 + (insn->code == (BPF_JMP32 | BPF_JA) ? insn->imm : insn->off);
}

/*
 * Fuel, the same on every tier: a taken jump to a target at or before itself (a back edge) costs the
 * instructions from its target through itself; a local call, and an entry, cost the callee's
 * instruction count; a helper costs one per 8 bytes, rounded up, plus one.  A charge that
 * does not fit what is left is -ETIME.
 */
static inline uint32_t sbpf_back_edge_cost(uint32_t pc, uint32_t target)
{
	return pc - target + 1;
}

/* ---- a program ---- */

struct sbpf_func {
	uint32_t start, end; /* instructions [start, end) of the linked program */
	uint32_t frame;      /* bytes of stack, a multiple of 16; filled by verify.c */
	uint8_t writes;      /* bit 0..3: writes r6..r9; filled by verify.c */
	bool reachable; /* from an entry; filled by verify.c.  Unreachable ones are not compiled */
	const char *name; /* owned by the program's strings */
};

struct sbpf_entry {
	const char *name;
	const char *section;
	uint32_t func; /* index into funcs */
};

struct sbpf_line { /* applies from insn to the next record's; sorted by insn */
	uint32_t insn;
	uint32_t line;
	const char *file;
};

struct sbpf_note {
	const char *section;
	void *bytes;
	size_t len;
};

struct sbpf_engine;

struct sbpf_code { /* one tier's compiled form; engines embed it first in a struct of theirs */
	const struct sbpf_engine *engine;
	uint64_t compile_ns;
	uint64_t code_bytes;
};

struct sbpf_pool { /* idle sandboxes, linked */
	struct sbpf_sandbox *idle;
	uint32_t n;
};

struct sbpf_tiering;

struct sbpf_heat {                 /* tiering.c */
	_Atomic uint64_t spent_ns; /* by calls with AUTO, as far as it was told */
	_Atomic uint64_t look_ns;  /* spent_ns at which there is something to do; 0: never looked */
	struct sbpf_tiering *_Atomic tiering; /* NULL until then */
};

struct sbpf_program {
	atomic_uint refs;

	struct sbpf_insn
		*insns; /* linked: every data address final, helpers as ids, calls relative */
	uint32_t n_insns;
	struct sbpf_func *funcs; /* sorted by start, covering all instructions without a gap */
	uint32_t n_funcs;
	struct sbpf_entry *entries;
	uint32_t n_entries;
	struct sbpf_line *lines;
	uint32_t n_lines;
	struct sbpf_note *notes;
	uint32_t n_notes;
	char **strings; /* what the names above point to, owned */
	uint32_t n_strings;

	uint8_t *rodata; /* image of SBPF_WIN_RODATA */
	uint64_t rodata_len;
	uint8_t *
		data; /* image of SBPF_WIN_DATA's first data_len bytes; the rest, to data_total, is zero */
	uint64_t data_len;
	uint64_t data_total;

	/* filled by verify.c */
	uint8_t *insn_flags; /* SBPF_INSN_* */
	uint32_t stack_bytes;
	uint32_t call_depth;
	uint64_t helpers; /* bit per helper id */
	/*
	 * A register may be read that was written on some paths only ("set if c, used if c").  Then engines
	 * make what nobody wrote 0: r0 and r3 to r9 at an entry, r0 and r6 to r9 where a local call
	 * enters its callee, r1 to r5 after each call.
	 */
	bool zero_unset;

	/* filled by program.c */
	pthread_mutex_t lock; /* guards compiling and the pool, not running */
	struct sbpf_code *_Atomic code[SBPF_TIER_KERNEL + 1];
	struct sbpf_pool pool, arenas;
	struct sbpf_heat heat;
};

#define SBPF_INSN_LEADER 0x01u /* a jump's target or a function's first */
#define SBPF_INSN_TAIL   0x02u /* the second half of lddw */
#define SBPF_INSN_LOOP   0x04u /* the target of a back edge */

/* program.c: an empty program with one reference; a string kept for its life (NULL: no memory);
 * the function that holds an instruction; source line of an instruction or NULL */
struct sbpf_program *sbpf_program_new(void);
const char *sbpf_program_string(struct sbpf_program *prog, const char *s);
uint32_t sbpf_func_at(const struct sbpf_program *prog, uint32_t pc);
const struct sbpf_line *sbpf_line_at(const struct sbpf_program *prog, uint32_t pc);

/* @tier's code (AUTO: of the tier it stands for) without a lock, or NULL if it is not compiled yet. */
static inline struct sbpf_code *sbpf_program_code(const struct sbpf_program *prog,
						  enum sbpf_tier tier)
{
	if ((unsigned int)tier > SBPF_TIER_KERNEL)
		return NULL;
	return atomic_load_explicit(&prog->code[tier], memory_order_acquire);
}

/*
 * Fill *err (if not NULL) and return code: err->text is "TEXT" with the place appended as
 * " (instruction N of FUNCTION, FILE:LINE)" where pc >= 0 and the program knows it.
 */
int sbpf_fail(struct sbpf_error *err, const struct sbpf_program *prog, int code, int64_t pc,
	      const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* elf.c: fill an empty program from an object; verify.c: check and annotate; disasm.c: one
 * instruction as text, without line information; returns the length. */
int sbpf_elf_load(struct sbpf_program *prog, const void *image, size_t len,
		  const struct sbpf_load_opts *opts, struct sbpf_error *err);
int sbpf_verify(struct sbpf_program *prog, struct sbpf_error *err);
int sbpf_disasm_insn(const struct sbpf_program *prog, uint32_t pc, char *buf, size_t len);

/* ---- running (run.c, sandbox.c) ---- */

/* sandbox.c: free an idle sandbox and all that are linked behind it in the pool.  NULL is fine. */
void sbpf_sandbox_free(struct sbpf_sandbox *sb);

/* Fuel is handed to the code in slices, so that deadlines and cancellation are seen in between. */
#define SBPF_FUEL_SLICE (1u << 20)

/*
 * One running call.  Generated code knows the offsets of the first fields (see the asserts).
 * Lives on the stack of sbpf_run().
 */
struct sbpf_exec {
	uint8_t *base;  /*  0: host address of sandbox offset 0 */
	uint64_t fuel;  /*  8: of this slice; valid outside generated code */
	void *saved_sp; /* 16: the JIT's, to leave from any depth */
	uint32_t pc;    /* 24: last instruction that could fault or fail, where the tier keeps it */
	volatile int32_t
		due; /* 28: the error to end with, where the tier asks (tier_clock.c sets it) */
	uint64_t reserve; /* fuel not yet handed out */
	struct sbpf_sandbox *sb;
	const struct sbpf_program *prog;
	const struct sbpf_code *code;
	struct sbpf_call *call;
	struct sbpf_exec *outer; /* the call this thread was in before, if the embedder nests */
	bool paused;             /* the embedder's trace function runs: faults are its own */
	sigjmp_buf env;
	volatile int error; /* set before env is taken */
	volatile uint64_t address;
	volatile uintptr_t host_pc; /* of the faulting machine instruction, 0 if not a fault */
	volatile uint32_t ticks;    /* of the thread's clock, while this call was the innermost */
};
_Static_assert(offsetof(struct sbpf_exec, fuel) == 8, "known to the JITs");
_Static_assert(offsetof(struct sbpf_exec, saved_sp) == 16, "known to the JITs");
_Static_assert(offsetof(struct sbpf_exec, pc) == 24, "known to the JITs");
_Static_assert(offsetof(struct sbpf_exec, due) == 28, "known to the JITs");

/* Leave the running call with an error: from an interpreter or a helper, never from a signal handler. */
_Noreturn void sbpf_exec_raise(struct sbpf_exec *x, int error, uint64_t address);
/*
 * The slice is spent: x->fuel holds the (wrapped, negative) remainder after a charge.  Adds a slice or raises
 * -ETIME or -ECANCELED.  Returns the new x->fuel.
 */
uint64_t sbpf_exec_refuel(struct sbpf_exec *x);
/* Charge from a helper; raises -ETIME. */
static inline void sbpf_exec_charge(struct sbpf_exec *x, uint64_t fuel)
{
	uint64_t left = x->fuel - fuel;

	x->fuel = left;
	if ((int64_t)left < 0)
		sbpf_exec_refuel(x);
}
/* Host address of [off, off+len) if it lies inside one window (writable if @write), else raises -EFAULT. */
void *sbpf_exec_range(struct sbpf_exec *x, uint64_t off, uint64_t len, bool write);

/* ---- tiering (tiering.c) ---- */

void sbpf_tiering_free(struct sbpf_program *prog);
/* program.c: the tier's engine, or NULL; and code that was compiled elsewhere becomes the tier's, and what AUTO stands for. */
const struct sbpf_engine *sbpf_engine_of(enum sbpf_tier tier);
void sbpf_program_publish(struct sbpf_program *prog, struct sbpf_code *code, uint64_t compile_ns);

/* ---- engines: one const table each; a new tier is one file and one row in program.c ---- */

struct sbpf_compile; /* one compilation in the background, as its tier sees it */

struct sbpf_engine {
	const char *name;
	enum sbpf_tier tier;
	/* NULL, or one line saying what this machine or build lacks. */
	const char *(*missing)(void);
	int (*compile)(const struct sbpf_program *prog, struct sbpf_code **out,
		       struct sbpf_error *err);
	/*
	 * Only a tier that takes long to compile has the next four: compiling beside the calls (tiering.c).  begin: *code, if it
	 * is to be had at once, else *out, to be started.  poll: -EAGAIN or the end.  abandon: frees it, in any state.
	 */
	int (*begin)(const struct sbpf_program *prog, struct sbpf_compile **out,
		     struct sbpf_code **code, struct sbpf_error *err);
	int (*start)(struct sbpf_compile *c, struct sbpf_error *err);
	int (*poll)(struct sbpf_compile *c, struct sbpf_code **code, struct sbpf_error *err);
	void (*abandon)(struct sbpf_compile *c);
	/* May be NULL.  Can calls of this thread have the tier now?  AUTO takes another where it is not 0. */
	int (*ready)(void);
	void (*free)(struct sbpf_code *code);
	/* May be NULL.  Makes ready what a sandbox needs of its own before it runs an entry for the first time. */
	int (*prepare)(struct sbpf_sandbox *sb, const struct sbpf_code *code, unsigned int entry,
		       struct sbpf_error *err);
	/*
	 * Runs an entry and charges its cost as a local call does; returns r0 or leaves by
	 * sbpf_exec_raise or a fault.  x->fuel is current on return.
	 */
	uint64_t (*run)(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2, uint64_t r10);
	/*
	 * May be NULL.  Called on the way out of a run that was left by a raise or a fault: undo what
	 * run() did to the thread (a segment base), which matters where another run is outside of it.
	 */
	void (*leave)(struct sbpf_exec *x);
	/*
	 * Only a tier that counts no fuel has it, and tier_clock.c bounds its time then: is @pc in the
	 * call's generated code, which may be left anywhere?
	 */
	bool (*contains)(const struct sbpf_exec *x, uintptr_t pc);
	/* The BPF instruction a fault or raise belongs to, or -1. */
	int64_t (*locate)(const struct sbpf_exec *x);
};

extern const struct sbpf_engine sbpf_engine_interp;
#if defined(__x86_64__)
extern const struct sbpf_engine sbpf_engine_x86_64;
#elif defined(__aarch64__)
extern const struct sbpf_engine sbpf_engine_aarch64;
#endif
#if defined(SBPF_WITH_LLVM)
extern const struct sbpf_engine sbpf_engine_llvm; /* tier_llvm.c */
#endif
#if defined(SBPF_WITH_KERNEL)
extern const struct sbpf_engine sbpf_engine_kernel; /* tier_kernel.c */
#endif

/* ---- helpers (helpers.c): one row each, the id is the row and the feature bit ---- */

struct sbpf_helper {
	const char *name; /* "lambda_memcpy": the symbol an object calls */
	uint8_t args;     /* registers that must be initialised */
	uint64_t (*fn)(struct sbpf_exec *x, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
		       uint64_t a5);
};
extern const struct sbpf_helper sbpf_helpers[];
extern const uint32_t sbpf_n_helpers;
/* By symbol, libc's names for the same thing ("memcpy") included; -1 if unknown. */
int sbpf_helper_find(const char *symbol);

#endif /* SBPF_INTERNAL_H */
