/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - one call: set up, enter the tier's code, come back by return, raise or fault, and say why.
 *
 * Owns: struct sbpf_exec, fuel, deadline and cancellation, the ranges that helpers ask for, and the
 * error a person reads.  Does not own: pages (sandbox.c), signals (fault.c), code (the engines).
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "sbpf/sandbox.h"

/* Where nothing is polled a slice may be as long as the sign of what is left allows. */
#define SLICE_UNPOLLED (1ull << 62)

/* ---- from inside a call ---- */

void sbpf_exec_raise(struct sbpf_exec *x, int error, uint64_t address)
{
	x->error = error;
	x->address = address;
	siglongjmp(x->env, 1);
}

static bool is_past(uint64_t deadline_ns)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec >= deadline_ns;
}

int sbpf_call_poll(const struct sbpf_call *call)
{
	if (call->cancel && __atomic_load_n(call->cancel, __ATOMIC_RELAXED))
		return -ECANCELED;
	if (call->deadline_ns && is_past(call->deadline_ns))
		return -ETIME;
	return 0;
}

static uint64_t slice_of(const struct sbpf_call *call)
{
	return call->cancel || call->deadline_ns ? SBPF_FUEL_SLICE : SLICE_UNPOLLED;
}

uint64_t sbpf_exec_refuel(struct sbpf_exec *x)
{
	uint64_t missing = 0 - x->fuel, grant = missing + slice_of(x->call);
	int r;

	if (missing > x->reserve) {
		x->reserve = x->fuel = 0;
		sbpf_exec_raise(x, -ETIME, 0);
	}
	r = sbpf_call_poll(x->call);
	if (r)
		sbpf_exec_raise(x, r, 0);
	if (grant > x->reserve)
		grant = x->reserve;
	x->reserve -= grant;
	x->fuel += grant;
	return x->fuel;
}

void *sbpf_exec_range(struct sbpf_exec *x, uint64_t off, uint64_t len, bool write)
{
	uint32_t at = (uint32_t)off; /* as loads and stores do */
	enum sbpf_window win = sbpf_window_of(at);
	uint64_t start = sbpf_window_offset(win), size = x->sb->size[win];

	if (!len)
		return x->base + at;
	if (at < start || at - start >= size || (write && !sbpf_window_writable(win)))
		sbpf_exec_raise(x, -EFAULT, at);
	if (len > size - (at - start))
		sbpf_exec_raise(x, -EFAULT, start + size);
	return x->base + at;
}

/* ---- what went wrong ---- */

/* What the instruction does, as the subject of a sentence. */
static void describe_insn(const struct sbpf_program *prog, int64_t pc, char *buf, size_t len)
{
	static const char *const bytes[] = {"4 bytes", "2 bytes", "1 byte", "8 bytes"};
	const struct sbpf_insn *insn = pc >= 0 && pc < prog->n_insns ? &prog->insns[pc] : NULL;
	uint8_t cls = insn ? BPF_CLASS(insn->code) : BPF_ALU;
	const char *size = insn ? bytes[BPF_SIZE(insn->code) >> 3] : "";

	if (cls == BPF_LDX)
		snprintf(buf, len, "load of %s at", size);
	else if (cls == BPF_STX && BPF_MODE(insn->code) == BPF_ATOMIC)
		snprintf(buf, len, "atomic access to %s at", size);
	else if (cls == BPF_ST || cls == BPF_STX)
		snprintf(buf, len, "store of %s at", size);
	else if (cls == BPF_JMP && BPF_OP(insn->code) == BPF_CALL &&
		 (uint32_t)insn->imm < sbpf_n_helpers)
		snprintf(buf, len, "%s() was given", sbpf_helpers[insn->imm].name);
	else
		snprintf(buf, len, "access to");
}

/* Which window the address missed, and how. */
static void describe_address(const struct sbpf_sandbox *sb, uint64_t address, char *buf, size_t len)
{
	enum sbpf_window win = sbpf_window_of((uint32_t)address);
	uint64_t start = sbpf_window_offset(win), size = sb->size[win];
	const char *name = sbpf_window_name(win);

	if (address < SBPF_GUARD)
		snprintf(buf, len, "which is in no window: a null pointer; check it before use");
	else if (address >= SBPF_SPACE || address < start ||
		 address - start >= sbpf_window_max(win))
		snprintf(buf, len, "which is in no window; check how the pointer was made");
	else if (address - start < size)
		snprintf(buf, len, "in the %s window, which is read-only; write elsewhere", name);
	else if (!size)
		snprintf(buf, len, "in the %s window, which is empty; check its length before use",
			 name);
	else
		snprintf(buf, len,
			 "%llu byte%s behind the last of the %s window's %llu (whole pages); "
			 "compare with its length before the access",
			 (unsigned long long)(address - start - size + 1),
			 address - start == size ? "" : "s", name, (unsigned long long)size);
}

static int report_fault(const struct sbpf_exec *x, int64_t pc, struct sbpf_error *err)
{
	char what[96], where[192];

	describe_insn(x->prog, pc, what, sizeof(what));
	describe_address(x->sb, x->address, where, sizeof(where));
	return sbpf_fail(err, x->prog, -EFAULT, pc, "%s address 0x%llx, %s", what,
			 (unsigned long long)x->address, where);
}

static int report_time(const struct sbpf_exec *x, int64_t pc, struct sbpf_error *err)
{
	if (x->fuel || x->reserve)
		return sbpf_fail(err, x->prog, -ETIME, pc,
				 "the deadline passed; allow more time or give it less to do");
	return sbpf_fail(err, x->prog, -ETIME, pc,
			 "%llu instructions of fuel are spent; allow more if its loops do end",
			 (unsigned long long)x->call->fuel);
}

static int report(const struct sbpf_exec *x, struct sbpf_error *err)
{
	int64_t pc;

	if (!err)
		return x->error;
	pc = x->code->engine->locate(x);
	switch (x->error) {
	case -EFAULT:
		report_fault(x, pc, err);
		break;
	case -EIO:
		sbpf_fail(err, x->prog, -EIO, pc, "the file was truncated while it was being read");
		break;
	case -ETIME:
		report_time(x, pc, err);
		break;
	case -EAGAIN:
		sbpf_fail(err, x->prog, -EAGAIN, -1,
			  "no timer or signal is left to bound the call's time with; use tier "
			  "template");
		break;
	case -ECANCELED:
		sbpf_fail(err, x->prog, -ECANCELED, pc, "canceled");
		break;
	case -ERESTART:
		sbpf_fail(err, x->prog, -ERESTART, pc,
			  "the kernel ended a run that took too long for it; use another tier, or "
			  "give it less to do at once");
		break;
	default:
		sbpf_fail(err, x->prog, x->error, pc, "a helper refused its arguments");
		break;
	}
	if (x->error == -EFAULT || x->error == -EIO)
		err->address = x->address;
	return x->error;
}

/* ---- a call ---- */

/* On its own so that no variable of the caller is live across the second return of sigsetjmp. */
static __attribute__((noinline)) int enter(struct sbpf_exec *x, uint32_t func)
{
	const struct sbpf_call *call = x->call;
	uint64_t r10 = sbpf_window_offset(SBPF_WIN_STACK) + x->sb->size[SBPF_WIN_STACK];

	if (sigsetjmp(x->env, 0)) {
		if (x->code->engine->leave)
			x->code->engine->leave(x);
		return x->error;
	}
	x->call->r0 = x->code->engine->run(x, func, call->r1, call->r2, r10);
	return 0;
}

/* The code that runs the call, compiled now if it is the first. */
static int find_code(struct sbpf_program *prog, const struct sbpf_call *call,
		     const struct sbpf_code **code, struct sbpf_error *err)
{
	*code = sbpf_program_code(prog, call->tier);
	if (!*code) {
		int r = sbpf_program_compile(prog, call->tier, NULL, err);

		if (r)
			return r;
		*code = sbpf_program_code(prog, call->tier);
	}
	/* Better code whose time nothing can bound just now: what AUTO started with is there still. */
	if (call->tier == SBPF_TIER_AUTO && (*code)->engine->ready && (*code)->engine->ready()) {
		const struct sbpf_call plain = {.tier = sbpf_tier_missing(SBPF_TIER_TEMPLATE)
								? SBPF_TIER_INTERP
								: SBPF_TIER_TEMPLATE};

		return find_code(prog, &plain, code, err);
	}
	return 0;
}

int sbpf_sandbox_prepare(struct sbpf_sandbox *sb, unsigned int entry, struct sbpf_error *err)
{
	const struct sbpf_call call = {.tier = SBPF_TIER_KERNEL};
	const struct sbpf_code *code;
	int r;

	if (entry >= sb->prog->n_entries)
		return sbpf_fail(err, NULL, -EINVAL, -1, "the program has no entry %u", entry);
	if (!sb->arena)
		return 0;
	r = find_code(sb->prog, &call, &code, err);
	return r ? r : code->engine->prepare(sb, code, entry, err);
}

static int check_call(const struct sbpf_sandbox *sb, const struct sbpf_call *call,
		      struct sbpf_error *err)
{
	if (call->size < sizeof(*call))
		return sbpf_fail(
			err, NULL, -EINVAL, -1,
			"struct sbpf_call has size %zu; set it to sizeof(struct sbpf_call)",
			call->size);
	if (call->entry >= sb->prog->n_entries)
		return sbpf_fail(err, NULL, -EINVAL, -1, "the program has no entry %u",
				 call->entry);
	if (call->tier <= SBPF_TIER_KERNEL && !sb->arena != (call->tier != SBPF_TIER_KERNEL))
		return sbpf_fail(err, NULL, -EINVAL, -1,
				 "the sandbox is not of the tier's kind; take one with "
				 "sbpf_sandbox_get_for()");
	if (sb->running)
		return sbpf_fail(err, NULL, -EBUSY, -1,
				 "the sandbox is running a call; take another");
	if (sb->lost)
		return sbpf_fail(err, NULL, -ENOMEM, -1,
				 "the sandbox lost its memory; put it back and take another");
	return 0;
}

int sbpf_run(struct sbpf_sandbox *sb, struct sbpf_call *call, struct sbpf_error *err)
{
	struct sbpf_exec x;
	int r = check_call(sb, call, err);

	if (!r)
		r = find_code(sb->prog, call, &x.code, err);
	if (!r && x.code->engine->prepare)
		r = x.code->engine->prepare(sb, x.code, call->entry, err);
	if (r)
		return r;
	sbpf_fault_unblock();
	r = sbpf_sandbox_reset(sb);
	if (r)
		return sbpf_fail(err, sb->prog, r, -1, "no memory for the globals");

	x.base = sb->base;
	x.fuel = slice_of(call);
	if (x.fuel > call->fuel)
		x.fuel = call->fuel;
	x.reserve = call->fuel - x.fuel;
	x.pc = 0;
	x.due = 0;
	x.ticks = 0;
	x.sb = sb;
	x.prog = sb->prog;
	x.call = call;
	x.outer = sbpf_current;
	x.paused = false;
	x.error = sbpf_call_poll(call);
	x.address = 0;
	x.host_pc = 0;
	if (x.error)
		return sbpf_fail(err, sb->prog, x.error, -1,
				 x.error == -ETIME ? "the deadline passed before the call"
						   : "canceled before the call");
	call->ran = x.code->engine->tier;
	sb->running = true;
	sbpf_current = &x;
	r = enter(&x, sb->prog->entries[call->entry].func);
	sbpf_current = x.outer;
	sb->running = false;
	call->fuel_used = call->fuel - x.reserve - ((int64_t)x.fuel > 0 ? x.fuel : 0);
	return r ? report(&x, err) : 0;
}

int sbpf_sandbox_guard(struct sbpf_sandbox *sb, int (*fn)(void *arg), void *arg)
{
	struct sbpf_exec x;
	int r;

	sbpf_fault_unblock();
	x.base = sb->base;
	x.sb = sb;
	x.code = NULL;
	x.paused = false;
	x.outer = sbpf_current;
	if (sigsetjmp(x.env, 0)) {
		r = x.error;
	} else {
		sbpf_current = &x;
		r = fn(arg);
	}
	sbpf_current = x.outer;
	return r;
}
