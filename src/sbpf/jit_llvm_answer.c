/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jit_llvm_answer.c - the compiler's front door: a question is read, compiled, linked, and answered.
 *
 * What a question says of a program, libsbpf has verified; its sizes are checked all the same.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "sbpf/jit_llvm_ir.h"
#include "sbpf/jit_llvm_link.h"

/* ---- the question ---- */

/* The program as the compiler knows it; nothing else of it is filled. */
struct asked {
	struct sbpf_program prog;
	const struct sbpf_llvm_question *q;
};

static void forget(struct asked *asked)
{
	free(asked->prog.insns);
	free(asked->prog.funcs);
	free(asked->prog.entries);
	free(asked->prog.insn_flags);
}

static int read_funcs(struct asked *asked, const uint8_t *p)
{
	struct sbpf_program *prog = &asked->prog;
	uint32_t next = 0;

	for (uint32_t i = 0; i < prog->n_funcs; i++) {
		struct sbpf_llvm_func f;

		memcpy(&f, p + i * sizeof(f), sizeof(f));
		if (f.start != next || f.end <= f.start || f.end > prog->n_insns ||
		    f.frame > SBPF_MAX_FRAME)
			return -EINVAL;
		next = f.end;
		prog->funcs[i] = (struct sbpf_func){
			.start = f.start, .end = f.end, .frame = f.frame, .reachable = f.reachable};
	}
	return next == prog->n_insns ? 0 : -EINVAL;
}

static int read_question(struct asked *asked, const void *question, size_t len)
{
	const struct sbpf_llvm_question *q = question;
	struct sbpf_program *prog = &asked->prog;
	const uint8_t *p = (const uint8_t *)question + sizeof(*q);
	uint64_t want;

	if (len < sizeof(*q) || strncmp(q->version, SBPF_LLVM_VERSION, sizeof(q->version)) != 0)
		return -ENOEXEC;
	want = sizeof(*q) + q->n_insns * 9ull + q->n_funcs * sizeof(struct sbpf_llvm_func) +
	       q->n_entries * 4ull;
	if (!q->n_insns || q->n_insns > SBPF_LLVM_MAX_INSNS || !q->n_funcs ||
	    q->n_funcs > SBPF_MAX_FUNCS || !q->n_entries || len != want)
		return -EINVAL;
	asked->q = q;
	prog->n_insns = q->n_insns;
	prog->n_funcs = q->n_funcs;
	prog->n_entries = q->n_entries;
	prog->insns = malloc(q->n_insns * sizeof(*prog->insns));
	prog->funcs = calloc(q->n_funcs, sizeof(*prog->funcs));
	prog->entries = calloc(q->n_entries, sizeof(*prog->entries));
	prog->insn_flags = malloc(q->n_insns);
	if (!prog->insns || !prog->funcs || !prog->entries || !prog->insn_flags)
		return -ENOMEM;
	memcpy(prog->insns, p, q->n_insns * sizeof(*prog->insns));
	p += q->n_insns * sizeof(*prog->insns);
	if (read_funcs(asked, p))
		return -EINVAL;
	p += q->n_funcs * sizeof(struct sbpf_llvm_func);
	for (uint32_t i = 0; i < q->n_entries; i++, p += 4) {
		memcpy(&prog->entries[i].func, p, 4);
		if (prog->entries[i].func >= q->n_funcs)
			return -EINVAL;
	}
	memcpy(prog->insn_flags, p, q->n_insns);
	return 0;
}

/* ---- the answer ---- */

const char *sbpf_llvm_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static char version[16];
	unsigned int major, minor, patch;

	pthread_once(&once, jit_llvm_start);
	LLVMGetVersion(&major, &minor, &patch);
	snprintf(version, sizeof(version), "%u.%u.%u", major, minor, patch);
	return version;
}

static uint8_t *put(uint8_t *to, const void *from, size_t n)
{
	if (n)
		memcpy(to, from, n);
	return to + sbpf_llvm_up(n, 8);
}

/* Of all that an image holds; @image is empty where the answer is a refusal. */
static struct sbpf_llvm_answer *answer(const struct llvm_image *image, int code, const char *why,
				       size_t *out_len)
{
	struct sbpf_llvm_answer *a;
	uint8_t *p;

	*out_len = sizeof(*a) + sbpf_llvm_up(image->text, 8) + sbpf_llvm_up(image->constants, 8) +
		   sbpf_llvm_up(4 * image->n_outside, 8) +
		   image->n_starts * sizeof(*image->starts) +
		   image->n_places * sizeof(*image->places);
	a = calloc(1, *out_len);
	if (!a)
		return NULL;
	snprintf(a->version, sizeof(a->version), "%s", SBPF_LLVM_VERSION);
	snprintf(a->llvm, sizeof(a->llvm), "%s", sbpf_llvm_prepare());
	snprintf(a->why, sizeof(a->why), "%s", why);
	a->code = code;
	a->text = (uint32_t)image->text;
	a->constants = (uint32_t)image->constants;
	a->n_outside = (uint32_t)image->n_outside;
	a->n_starts = (uint32_t)image->n_starts;
	a->n_places = (uint32_t)image->n_places;
	if (code)
		return a;
	p = put((uint8_t *)(a + 1), image->mem, image->text);
	p = put(p, image->mem + sbpf_llvm_constants_at(a), image->constants);
	p = put(p, image->outside, 4 * image->n_outside);
	p = put(p, image->starts, image->n_starts * sizeof(*image->starts));
	put(p, image->places, image->n_places * sizeof(*image->places));
	return a;
}

struct sbpf_llvm_answer *sbpf_llvm_answer(const void *question, size_t len, size_t *out_len)
{
	struct llvm_image image = {0};
	struct asked asked = {.q = NULL};
	LLVMMemoryBufferRef object = NULL;
	struct sbpf_llvm_answer *a;
	char why[128] = "the question is broken";
	const char *reason;
	int r;

	sbpf_llvm_prepare();
	r = read_question(&asked, question, len);
	if (r == -ENOEXEC)
		snprintf(why, sizeof(why),
			 "the compiler is of another version than libsbpf; install both from one "
			 "build");
	if (!r)
		r = jit_llvm_compile(&asked.prog, asked.q->helper_args, &object, why, sizeof(why));
	if (!r) {
		r = jit_llvm_link((const uint8_t *)LLVMGetBufferStart(object),
				  LLVMGetBufferSize(object), asked.prog.n_funcs, &image, &reason);
		if (r)
			snprintf(why, sizeof(why), "its object cannot be linked: %s", reason);
	}
	a = answer(&image, r, r ? why : "", out_len);
	if (object)
		LLVMDisposeMemoryBuffer(object);
	jit_llvm_unlink(&image);
	forget(&asked);
	return a;
}
