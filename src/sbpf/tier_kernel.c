/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_kernel.c - the kernel as one more tier: its row, and which programs are loaded for an arena.
 *
 * A program is translated once, and loaded for each arena that runs it, for its code holds the arena's address: an entry
 * at its first run there.  It stays with the sandbox while that is in the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "sbpf/kernel.h"
#include "sbpf/sandbox.h"

struct kernel_code {
	struct sbpf_code code; /* first */
	struct sbpf_translation *translation;
};

static int kernel_compile(const struct sbpf_program *prog, struct sbpf_code **out,
			  struct sbpf_error *err)
{
	struct kernel_code *kc = calloc(1, sizeof(*kc));
	int r;

	if (!kc)
		return sbpf_fail(err, NULL, -ENOMEM, -1, "no memory for a translation");
	r = sbpf_kernel_translate(prog, &kc->translation, err);
	if (r) {
		free(kc);
		return r;
	}
	*out = &kc->code;
	return 0;
}

static void kernel_free(struct sbpf_code *code)
{
	struct kernel_code *kc = (struct kernel_code *)code;

	sbpf_translation_free(kc->translation);
	free(kc);
}

void sbpf_arena_unload(struct sbpf_arena *a)
{
	for (uint32_t i = 0; i < a->n_progs; i++)
		sbpf_kernel_unload(a->progs[i]);
	free(a->progs);
	a->progs = NULL;
	a->n_progs = 0;
}

static int kernel_prepare(struct sbpf_sandbox *sb, const struct sbpf_code *code, unsigned int entry,
			  struct sbpf_error *err)
{
	const struct kernel_code *kc = (const struct kernel_code *)code;
	struct sbpf_arena *a = sb->arena;

	if (!a->progs) {
		a->progs = calloc(sb->prog->n_entries, sizeof(struct sbpf_kernel_prog *));
		if (!a->progs)
			return sbpf_fail(err, NULL, -ENOMEM, -1, "no memory for a list of entries");
		a->n_progs = sb->prog->n_entries;
	}
	if (a->progs[entry])
		return 0;
	return sbpf_kernel_load(kc->translation, a->map_fd, a->base, entry, &a->progs[entry], err);
}

static uint64_t kernel_run(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2,
			   uint64_t r10)
{
	struct sbpf_kernel_call call = {
		.r1 = r1,
		.r2 = r2,
		.r10 = r10,
		.fuel = x->call->fuel,
		.deadline_ns = x->call->deadline_ns,
		.cancel = x->call->cancel,
		.sizes = x->sb->size,
		.trace = x->call->trace,
		.trace_arg = x->call->trace_arg,
		.pc = UINT32_MAX,
	};
	int r;

	/* Nothing here touches the sandbox meanwhile: a fault is the embedder's own, in its trace function. */
	x->paused = true;
	r = sbpf_kernel_run(x->sb->arena->progs[x->call->entry], &call);
	x->paused = false;
	x->fuel = 0;
	x->reserve = call.fuel_left;
	x->pc = call.pc;
	if (r == -ERESTART) {
		/* It may have been told to end meanwhile. */
		int due = sbpf_call_poll(x->call);

		r = due ? due : r;
	}
	if (r)
		sbpf_exec_raise(x, r, call.address);
	return call.r0;
}

static int64_t kernel_locate(const struct sbpf_exec *x)
{
	return x->pc == UINT32_MAX ? -1 : (int64_t)x->pc;
}

const struct sbpf_engine sbpf_engine_kernel = {
	.name = "kernel",
	.tier = SBPF_TIER_KERNEL,
	.missing = sbpf_kernel_missing,
	.compile = kernel_compile,
	.free = kernel_free,
	.prepare = kernel_prepare,
	.run = kernel_run,
	.locate = kernel_locate,
};
