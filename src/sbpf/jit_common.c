/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_common.c - the template tier around its machine code: passes, layout, memory for code, which
 * instruction a place in the code belongs to.
 *
 * Code pages are writable until they are complete and executable after that, never both, and have
 * one mapping.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sbpf/jit_common.h"

#define FUNC_ALIGN 16u

/* ---- the program ---- */

uint32_t jit_callee(const struct sbpf_program *prog, uint32_t pc)
{
	return sbpf_func_at(prog, (uint32_t)((int64_t)pc + 1 + prog->insns[pc].imm));
}

uint32_t jit_callee_cost(const struct sbpf_program *prog, uint32_t pc)
{
	const struct sbpf_func *func = &prog->funcs[jit_callee(prog, pc)];

	return func->end - func->start;
}

bool jit_is_exit(const struct jit *j, uint32_t pc)
{
	return j->prog->insns[pc].code == (BPF_JMP | BPF_EXIT) &&
	       !(j->prog->insn_flags[pc] & SBPF_INSN_TAIL);
}

uint32_t jit_place_of(const struct jit *j, uint32_t target)
{
	return jit_is_exit(j, target) ? j->cold_at[j->func] : j->at[target];
}

static bool zext_after_64(const struct jit *j, const struct sbpf_insn *insn)
{
	switch (insn->code) {
	case BPF_ALU64 | BPF_MOV | BPF_K:
		return insn->imm >= 0;
	case BPF_ALU64 | BPF_AND | BPF_K:
		return insn->imm >= 0 || jit_is_zext(j, insn->dst);
	case BPF_ALU64 | BPF_RSH | BPF_K:
		return (insn->imm & 63) >= 32 || jit_is_zext(j, insn->dst);
	case BPF_ALU64 | BPF_RSH | BPF_X:
		return jit_is_zext(j, insn->dst);
	case BPF_ALU64 | BPF_AND | BPF_X:
		return jit_is_zext(j, insn->dst) || jit_is_zext(j, insn->src);
	case BPF_ALU64 | BPF_OR | BPF_X:
	case BPF_ALU64 | BPF_XOR | BPF_X:
		return jit_is_zext(j, insn->dst) && jit_is_zext(j, insn->src);
	default:
		return false;
	}
}

bool jit_zext_after(const struct jit *j, const struct sbpf_insn *insn)
{
	if (BPF_OP(insn->code) == BPF_END)
		return insn->imm != 64;
	return !jit_is_64(insn) || zext_after_64(j, insn);
}

/* What each function needs around it. */
static void survey(const struct sbpf_program *prog, uint8_t *func_flags)
{
	for (uint32_t i = 0; i < prog->n_entries; i++)
		func_flags[prog->entries[i].func] |= JIT_FUNC_ENTRY;
	for (uint32_t f = 0; f < prog->n_funcs; f++) {
		const struct sbpf_func *func = &prog->funcs[f];

		for (uint32_t pc = func->start; func->reachable && pc < func->end; pc++) {
			const struct sbpf_insn *insn = &prog->insns[pc];

			if (insn->code != (BPF_JMP | BPF_CALL) ||
			    (prog->insn_flags[pc] & SBPF_INSN_TAIL))
				continue;
			func_flags[f] |= JIT_FUNC_CALLS;
			if (insn->src == BPF_CALL_LOCAL)
				func_flags[jit_callee(prog, pc)] |= JIT_FUNC_CALLED;
		}
	}
}

/* ---- layout ---- */

static void align(struct jit *j, uint32_t to)
{
	if (j->pass == 0) {
		j->off += to - 1;
		return;
	}
	jit_arch_pad(j, -j->off % to);
	jit_flush(j);
}

/*
 * Cold code stands behind the function: one way out for conditional exits, then a stub for each
 * charge, in the order in which the function's code used them.
 */
static void cold_code(struct jit *j)
{
	const struct sbpf_program *prog = j->prog;
	const struct sbpf_func *func = &prog->funcs[j->func];

	j->cold_at[j->func] = j->off;
	jit_arch_leave(j);
	jit_flush(j);
	for (uint32_t pc = func->start; pc < func->end; pc++) {
		const struct sbpf_insn *insn = &prog->insns[pc];
		int64_t target = sbpf_jump_target(insn, pc);

		if (prog->insn_flags[pc] & SBPF_INSN_TAIL)
			continue;
		if (sbpf_is_jump(insn) && target <= pc)
			jit_arch_stub(j, pc, jit_place_of(j, (uint32_t)target));
		else if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == BPF_CALL_LOCAL)
			jit_arch_stub(j, pc,
				      j->at[pc] +
					      jit_arch_charged_bytes(j, jit_callee_cost(prog, pc)));
		jit_flush(j);
	}
}

static void function(struct jit *j, uint32_t f)
{
	const struct sbpf_program *prog = j->prog;
	const struct sbpf_func *func = &prog->funcs[f];
	uint32_t *where = j->pass ? j->at : j->wide;

	j->func = f;
	j->colds = 0;
	align(j, FUNC_ALIGN);
	j->func_at[f] = j->off;
	jit_arch_prologue(j);
	jit_flush(j);
	for (uint32_t pc = func->start; pc < func->end;) {
		uint32_t n;

		if (prog->insn_flags[pc] & SBPF_INSN_LEADER) {
			j->zext = 1u << 10;
			j->flags = JIT_NO_FLAGS;
		}
		if (prog->insn_flags[pc] & SBPF_INSN_LOOP)
			align(j, jit_arch_loop_align);
		if (j->mem && where[pc] != j->off)
			j->broken = true;
		where[pc] = j->off;
		n = jit_arch_translate(j, pc);
		jit_flush(j);
		while (--n)
			where[++pc] = j->off;
		pc++;
	}
	cold_code(j);
}

static void generate(struct jit *j, unsigned int pass, uint8_t *mem, uint32_t len)
{
	const struct sbpf_program *prog = j->prog;

	j->pass = pass;
	j->mem = mem;
	j->mem_len = len;
	j->p = j->piece;
	j->off = 0;
	jit_arch_around(j);
	jit_flush(j);
	for (uint32_t f = 0; f < prog->n_funcs; f++)
		if (prog->funcs[f].reachable)
			function(j, f);
		else /* keeps the places ascending */
			for (uint32_t pc = prog->funcs[f].start; pc < prog->funcs[f].end; pc++)
				(pass ? j->at : j->wide)[pc] = j->off;
	(pass ? j->at : j->wide)[prog->n_insns] = j->off;
}

/* ---- memory for code ---- */

/* Generate into fresh pages, then take away the right to write and give that to execute. */
static int write_code(struct jit *j, struct jit_code *jc, struct sbpf_error *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *mem;

	jc->used = j->off;
	jc->code.code_bytes = jc->used;
	jc->mem_len = (jc->used + page - 1) / page * page;
	mem = mmap(NULL, jc->mem_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return sbpf_fail(err, j->prog, -errno, -1, "no memory for %zu bytes of code",
				 jc->mem_len);
	jc->mem = mem;
	memset(jc->mem + jc->used, jit_arch_filler, jc->mem_len - jc->used);
	generate(j, 2, jc->mem, jc->used);
	if (j->broken || j->off != jc->used)
		return sbpf_fail(
			err, j->prog, -EFAULT, -1,
			"the template tier lost count of its code: a bug; use another tier");
	/* Nothing where the machine keeps what it fetches and what it stores in step (x86-64). */
	__builtin___clear_cache((char *)jc->mem, (char *)jc->mem + jc->mem_len);
	if (mprotect(jc->mem, jc->mem_len, jit_arch_rights()))
		return sbpf_fail(err, j->prog, -errno, -1,
				 "this system does not let the process make code executable; "
				 "use the interpreter");
	return 0;
}

void jit_free(struct sbpf_code *code)
{
	struct jit_code *jc = (struct jit_code *)code;

	if (jc->mem)
		munmap(jc->mem, jc->mem_len);
	free(jc->func_at);
	free(jc->at);
	free(jc);
}

int jit_compile(struct jit *j, const struct sbpf_program *prog, struct jit_code **out,
		struct sbpf_error *err)
{
	struct jit_code *jc = calloc(1, sizeof(*jc));
	int r = -ENOMEM;

	j->prog = prog;
	j->wide = malloc((prog->n_insns + 1) * sizeof(*j->wide));
	j->cold_at = calloc(prog->n_funcs, sizeof(*j->cold_at));
	j->func_flags = calloc(prog->n_funcs, 1);
	if (jc) {
		jc->n_insns = prog->n_insns;
		jc->at = j->at = calloc(prog->n_insns + 1, sizeof(*jc->at));
		jc->func_at = j->func_at = calloc(prog->n_funcs, sizeof(*jc->func_at));
	}
	if (!jc || !j->wide || !j->cold_at || !j->func_flags || !jc->at || !jc->func_at) {
		sbpf_fail(err, prog, r, -1, "out of memory to compile %u instructions",
			  prog->n_insns);
	} else {
		survey(prog, j->func_flags);
		generate(j, 0, NULL, 0);
		generate(j, 1, NULL, 0);
		r = write_code(j, jc, err);
	}
	free(j->wide);
	free(j->cold_at);
	free(j->func_flags);
	if (r && jc)
		jit_free(&jc->code);
	else
		*out = jc;
	return r;
}

/*
 * Some systems forbid what this tier lives on (SELinux, systemd's MemoryDenyWriteExecute): try it
 * once.
 */
static bool code_allowed;

static void try_code(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *mem = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		return;
	code_allowed = mprotect(mem, page, jit_arch_rights()) == 0;
	munmap(mem, page);
}

const char *jit_missing(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, try_code);
	return code_allowed ? NULL : "this system does not let a process make code executable";
}

/* ---- running ---- */

typedef uint64_t (*enter_fn)(struct sbpf_exec *x, const void *func, uint64_t r1, uint64_t r2,
			     uint64_t r10);

/*
 * Clang's sanitizers and CFI look for a type in front of what a pointer calls; generated code has
 * none.
 */
#if defined(__clang__)
#define CALLS_GENERATED_CODE __attribute__((no_sanitize("function", "cfi-icall")))
#else
#define CALLS_GENERATED_CODE
#endif

CALLS_GENERATED_CODE
uint64_t jit_enter(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2, uint64_t r10)
{
	const struct jit_code *jc = (const struct jit_code *)x->code;
	const struct sbpf_func *f = &x->prog->funcs[func];
	enter_fn enter = (enter_fn)(uintptr_t)jc->mem;

	x->pc = f->start;
	sbpf_exec_charge(x, f->end - f->start);
	return enter(x, jc->mem + jc->func_at[func], r1, r2, r10);
}

/* The last instruction whose code starts at or before the place; helpers and fuel left a note. */
int64_t jit_locate(const struct sbpf_exec *x)
{
	const struct jit_code *jc = (const struct jit_code *)x->code;
	uintptr_t place = x->host_pc - (uintptr_t)jc->mem;
	uint32_t lo = 0, hi = jc->n_insns;

	if (!x->host_pc || place >= jc->used)
		return x->pc;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (jc->at[mid] <= place)
			lo = mid + 1;
		else
			hi = mid;
	}
	return (int64_t)lo - 1;
}
