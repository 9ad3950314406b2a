/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_check.c - that an access lies in a window: the kernel itself reads 0 or drops the store where it does not.
 *
 * A function remembers for its base registers the window that each was last in: a start, and how far behind it
 * eight bytes may begin.  What that does not cover cold code looks up in the map's rows, which also tells the
 * window to remember.
 *
 * One check is for all accesses with the same base that are sure to follow: on every way, before anything else can
 * end the run.  If it fails the cold code asks for each access in turn, so that the first that is
 * wrong is the one that is told.
 */
#include <errno.h>
#include <stdlib.h>

#include "sbpf/kernel_translate.h"
#include "sbpf/sandbox.h"

#define CTL(field) ((int32_t)offsetof(struct kt_ctl, field))
#define ROW(field) ((int32_t)offsetof(struct kt_row, field))

#define SPAN_MAX 32768

static const uint8_t access_bytes[] = {4, 2, 1, 8};

/* ---- what follows an access ---- */

static bool is_access(const struct sbpf_insn *insn)
{
	uint8_t cls = BPF_CLASS(insn->code);

	return cls == BPF_LDX || cls == BPF_ST || cls == BPF_STX;
}

static unsigned int base_of(const struct sbpf_insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_LDX ? insn->src : insn->dst;
}

static bool needs_check(const struct kt *k, uint32_t pc)
{
	const struct sbpf_insn *insn = &k->flow.prog->insns[pc];

	return is_access(insn) && base_of(insn) < 10 &&
	       !(k->flow.marks[pc - k->flow.func->start] & KT_CHECKED);
}

/* Do jumps to @pc come from [@from, @pc) alone? */
static bool entered_from(const struct kt *k, uint32_t from, uint32_t pc)
{
	uint32_t at = pc - k->flow.func->start;

	return !k->flow.first[at] || (k->flow.first[at] > from && k->flow.last[at] <= pc);
}

/*
 * Is what a forward jump at @pc may leave out, up to its target, plain arithmetic?  Then it does not matter; @killed
 * takes what it writes.
 */
static bool skips_little(const struct kt *k, uint32_t from, uint32_t pc, uint16_t *killed)
{
	const struct sbpf_insn *insns = k->flow.prog->insns;
	uint32_t target = (uint32_t)sbpf_jump_target(&insns[pc], pc);

	if (target <= pc)
		return false;
	for (uint32_t at = pc + 1; at < target; at++) {
		uint8_t cls = BPF_CLASS(insns[at].code);
		bool frame = is_access(&insns[at]) && base_of(&insns[at]) == 10;

		if (!entered_from(k, from, at))
			return false;
		if (cls != BPF_ALU && cls != BPF_ALU64 && !frame && !sbpf_is_lddw(&insns[at]))
			return false;
		*killed |= kt_defs(&insns[at]);
		at += sbpf_is_lddw(&insns[at]);
	}
	return true;
}

static void add_access(struct kt *k, uint32_t pc)
{
	const struct sbpf_insn *insn = &k->flow.prog->insns[pc];
	struct kt_access *grown =
		kt_grow(k, k->accesses, k->n_accesses, &k->accesses_room, sizeof(*grown));

	if (!grown)
		return;
	k->accesses = grown;
	grown[k->n_accesses++] = (struct kt_access){
		.pc = pc,
		.base = (uint8_t)base_of(insn),
		.off = insn->off,
		.bytes = access_bytes[BPF_SIZE(insn->code) >> 3],
		.write = BPF_CLASS(insn->code) != BPF_LDX,
	};
}

struct span {
	int32_t from, to;
};

/* All accesses that are sure to follow the one at k->pc, with its own base until that changes. */
static struct span look_ahead(struct kt *k, unsigned int base)
{
	const struct sbpf_insn *insns = k->flow.prog->insns;
	uint32_t pc = k->pc, last = k->n_accesses;
	uint16_t killed = 0;
	struct span span = {INT32_MAX, INT32_MIN};

	while (pc < k->flow.func->end && (pc == k->pc || entered_from(k, k->pc, pc))) {
		const struct sbpf_insn *insn = &insns[pc];
		unsigned int b = is_access(insn) ? base_of(insn) : 10;

		if (needs_check(k, pc)) {
			int32_t to = insn->off + access_bytes[BPF_SIZE(insn->code) >> 3];
			struct span grown = {insn->off < span.from ? insn->off : span.from,
					     to > span.to ? to : span.to};

			if (killed & KT_REG(b) || (b == base && grown.to - grown.from > SPAN_MAX))
				break;
			add_access(k, pc);
			if (b == base) {
				span = grown;
				k->flow.marks[pc - k->flow.func->start] |= KT_CHECKED;
				last = k->n_accesses;
			}
		}
		if (sbpf_is_jump(insn)) {
			if (BPF_OP(insn->code) == BPF_JA || !skips_little(k, k->pc, pc, &killed))
				break;
			pc = (uint32_t)sbpf_jump_target(insn, pc);
		} else if (BPF_CLASS(insn->code) == BPF_JMP) {
			break; /* a call, or the end */
		} else {
			killed |= kt_defs(insn);
			pc += 1 + sbpf_is_lddw(insn);
		}
		if (killed & KT_REG(base))
			break;
	}
	if (!k->error)
		k->n_accesses = last;
	return span;
}

/* ---- the check ---- */

static enum kt_slot cache_slot(const struct kt *k, unsigned int base)
{
	return (enum kt_slot)(KT_SLOT_WINDOWS + 2 * k->cache_of[base]);
}

void kt_check(struct kt *k, unsigned int base, int16_t off, uint16_t named)
{
	uint16_t busy = kt_live_in(&k->flow, k->pc) | kt_live_out(&k->flow, k->pc);
	uint32_t first = k->n_accesses, jump;
	struct kt_scratch at, most;
	struct kt_stub *stub;
	enum kt_slot slot;
	struct span span;

	if (k->library || base == 10 || !needs_check(k, k->pc))
		return;
	span = look_ahead(k, base);
	slot = cache_slot(k, base);
	named |= KT_REG(base);
	at = kt_take(k, busy, named, KT_SLOT_A);
	most = kt_take(k, busy, named | KT_REG(at.reg), KT_SLOT_B);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, most.reg, 10, kt_slot(k, slot), 0);
	kt_emit(k, BPF_ALU | BPF_MOV | BPF_X, at.reg, base, 0, 0);
	kt_emit(k, BPF_ALU | BPF_SUB | BPF_X, at.reg, most.reg, 0, 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, most.reg, 10, kt_slot(k, (enum kt_slot)(slot + 1)),
		0);
	if (span.from)
		kt_emit(k, BPF_ALU | BPF_ADD | BPF_K, at.reg, 0, 0, span.from);
	if (span.to - span.from > 8)
		kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_K, at.reg, 0, 0, span.to - span.from - 8);
	/* The difference, for what is compared itself the kernel's verifier would learn about the slot. */
	kt_emit(k, BPF_ALU64 | BPF_SUB | BPF_X, most.reg, at.reg, 0, 0);
	jump = kt_jump(k, BPF_JMP | BPF_JSLT | BPF_K, most.reg, 0, 0);
	kt_give(k, most);
	kt_give(k, at);
	stub = kt_stub(k, KT_STUB_CHECK, jump);
	if (!stub)
		return;
	stub->resume = k->image->n;
	stub->used[0] = most;
	stub->used[1] = at;
	stub->base = (uint8_t)base;
	stub->off = span.from;
	stub->bytes = (uint32_t)(span.to - span.from);
	stub->first_access = first;
	stub->n_accesses = k->n_accesses - first;
	stub->busy = busy | named;
	for (unsigned int r = 0; r < 10; r++) /* pointers at hand are not to be lost */
		if (k->cast_of[r] >= 0)
			stub->busy |= KT_REG(r);
}

/* With a zero that the kernel's verifier does not know, so that it learns nothing of @base. */
static void address(struct kt *k, unsigned int at, unsigned int base, int32_t off)
{
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, at, 10, kt_slot(k, KT_SLOT_ZERO), 0);
	kt_emit(k, BPF_ALU | BPF_XOR | BPF_X, at, base, 0, 0);
	kt_emit(k, BPF_ALU | BPF_ADD | BPF_K, at, 0, 0, off);
}

/*
 * Jumps where [base + off, + bytes) is not in one window: to the first two with the address in @at,
 * which no window has, to the last with how far it is to the end of its window in @temp.
 */
static void look_up(struct kt *k, unsigned int base, int32_t off, uint32_t bytes, unsigned int at,
		    unsigned int temp, unsigned int row, uint32_t jumps[3])
{
	address(k, at, base, off);
	/* Through memory: the kernel's verifier would have to know the program's register precisely. */
	kt_ctl(k, row);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, row, at, CTL(address), 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, row, CTL(address), 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, at, row, CTL(address), 0);
	kt_emit(k, BPF_ALU | BPF_RSH | BPF_K, temp, 0, 0, 28);
	kt_emit(k, BPF_ALU64 | BPF_LSH | BPF_K, temp, 0, 0, 5);
	kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_K, row, 0, 0, CTL(rows));
	kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_X, row, temp, 0, 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, row, ROW(next_start), 0);
	kt_emit(k, BPF_JMP | BPF_JLT | BPF_X, at, temp, 1, 0);
	kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_K, row, 0, 0, ROW(next_start));
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, row, ROW(start), 0);
	jumps[0] = kt_jump(k, BPF_JMP | BPF_JLT | BPF_X, at, temp, 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, row, ROW(end), 0);
	jumps[1] = kt_jump(k, BPF_JMP | BPF_JGE | BPF_X, at, temp, 0);
	kt_emit(k, BPF_ALU64 | BPF_SUB | BPF_X, temp, at, 0, 0);
	jumps[2] = kt_jump(k, BPF_JMP | BPF_JLT | BPF_K, temp, 0, (int32_t)bytes);
}

/* The access and the first byte of it that no window has. */
static void tell(struct kt *k, const struct kt_access *access, unsigned int at, unsigned int temp,
		 unsigned int row, const uint32_t jumps[3], uint32_t readonly)
{
	kt_here(k, jumps[2]);
	kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_X, at, temp, 0, 0);
	kt_here(k, jumps[0]);
	kt_here(k, jumps[1]);
	if (readonly != UINT32_MAX)
		kt_here(k, readonly);
	kt_ctl(k, row);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, row, at, CTL(address), 0);
	kt_emit(k, BPF_ST | BPF_MEM | BPF_DW, row, 0, CTL(pc), (int32_t)(access->pc + 1));
	kt_exit_with(k, row, -EFAULT);
}

void kt_check_stub(struct kt *k, const struct kt_stub *stub)
{
	struct kt_scratch at, temp, row;
	uint32_t jumps[3], next[3];
	enum kt_slot slot = cache_slot(k, stub->base);

	kt_give(k, stub->used[0]);
	kt_give(k, stub->used[1]);
	at = kt_take(k, stub->busy, KT_REG(stub->base), KT_SLOT_C);
	temp = kt_take(k, stub->busy, KT_REG(stub->base) | KT_REG(at.reg), KT_SLOT_D);
	row = kt_take(k, stub->busy, KT_REG(stub->base) | KT_REG(at.reg) | KT_REG(temp.reg),
		      KT_SLOT_E);
	look_up(k, stub->base, stub->off, stub->bytes, at.reg, temp.reg, row.reg, jumps);
	/* The window to remember. */
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, at.reg, row.reg, ROW(start), 0);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, at.reg, kt_slot(k, slot), 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp.reg, row.reg, ROW(end), 0);
	kt_emit(k, BPF_ALU64 | BPF_SUB | BPF_X, temp.reg, at.reg, 0, 0);
	kt_emit(k, BPF_ALU64 | BPF_ADD | BPF_K, temp.reg, 0, 0, -8);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, temp.reg, kt_slot(k, (enum kt_slot)(slot + 1)),
		0);
	kt_give(k, row);
	kt_give(k, temp);
	kt_give(k, at);
	kt_to(k, kt_emit(k, BPF_JMP32 | BPF_JA, 0, 0, 0, 0), stub->resume);

	if (stub->n_accesses == 1) {
		tell(k, &k->accesses[stub->first_access], at.reg, temp.reg, row.reg, jumps,
		     UINT32_MAX);
		return;
	}
	for (unsigned int i = 0; i < 3; i++)
		kt_here(k, jumps[i]);
	for (uint32_t i = 0; i < stub->n_accesses && !k->error; i++) {
		const struct kt_access *access = &k->accesses[stub->first_access + i];
		uint32_t fine, readonly = UINT32_MAX;

		/* Registers that gave way hold what they held where an access needs one as its base. */
		kt_give(k, row);
		kt_give(k, temp);
		kt_give(k, at);
		at = kt_take(k, stub->busy, KT_REG(access->base), KT_SLOT_C);
		temp = kt_take(k, stub->busy, KT_REG(access->base) | KT_REG(at.reg), KT_SLOT_D);
		row = kt_take(k, stub->busy,
			      KT_REG(access->base) | KT_REG(at.reg) | KT_REG(temp.reg), KT_SLOT_E);
		if (access->write) {
			address(k, at.reg, access->base, access->off);
			readonly = kt_jump(k, BPF_JMP | BPF_JLT | BPF_K, at.reg, 0,
					   (int32_t)SBPF_WRITABLE_FROM);
		}
		look_up(k, access->base, access->off, access->bytes, at.reg, temp.reg, row.reg,
			next);
		fine = kt_jump(k, BPF_JMP | BPF_JA, 0, 0, 0);
		tell(k, access, at.reg, temp.reg, row.reg, next, readonly);
		kt_here(k, fine);
	}
	/* One of them was wrong: this is never reached. */
	kt_ctl(k, row.reg);
	kt_exit_with(k, row.reg, -EFAULT);
}

/* ---- what is remembered ---- */

/* Those that are used most have a window of their own; the others share the last. */
static void assign(struct kt *k)
{
	const struct kt_flow *f = &k->flow;
	uint32_t uses[10] = {0};
	/* The kernel's stack is 512 bytes for the whole chain of calls. */
	uint8_t most = f->prog->call_depth > 4 ? 1 : f->prog->call_depth > 2 ? 2 : KT_CACHES;

	for (uint32_t pc = f->func->start; pc < f->func->end; pc++)
		if (kt_reached(f, pc) && needs_check(k, pc))
			uses[base_of(&f->prog->insns[pc])]++;
	k->n_caches = 0;
	for (;;) {
		unsigned int best = 0;

		for (unsigned int r = 1; r < 10; r++)
			if (uses[r] > uses[best])
				best = r;
		if (!uses[best])
			return;
		uses[best] = 0;
		k->cache_of[best] = k->n_caches < most ? k->n_caches++ : (uint8_t)(most - 1);
	}
}

/* With r0 and the register @temp free: each begins with the input. */
void kt_caches(struct kt *k, unsigned int temp)
{
	if (k->library)
		return;
	assign(k);
	kt_ctl(k, 0);
	kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, 0, CTL(zero), 0);
	kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, temp, kt_slot(k, KT_SLOT_ZERO), 0);
	for (unsigned int i = 0; i < 2 * k->n_caches; i++) {
		/* Each by itself: the kernel's verifier remembers which slots hold the same. */
		kt_emit(k, BPF_LDX | BPF_MEM | BPF_DW, temp, 0, i % 2 ? CTL(most) : CTL(start), 0);
		kt_emit(k, BPF_STX | BPF_MEM | BPF_DW, 10, temp,
			kt_slot(k, (enum kt_slot)(KT_SLOT_WINDOWS + i)), 0);
	}
}
