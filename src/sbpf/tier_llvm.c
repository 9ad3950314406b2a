/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_llvm.c - the optimizing tier as libsbpf has it: its compiler is loaded if it is there, its code is run and timed.
 *
 * Owns: finding libsbpf-llvm.so, the engine's row, code and places.  The compiler itself is jit_llvm.c.
 * The file is looked for beside the running libsbpf, then where both get installed; the environment may name
 * another (SBPF_LLVM), but not that of a process with more rights than its caller.  It is never unloaded.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sbpf/sandbox.h"
#include "sbpf/tier_clock.h"
#include "sbpf/tier_llvm.h"

#define PLUGIN_NAME   "libsbpf-llvm.so"
#define COMPILE_STACK (64ul << 20) /* LLVM recurses over what it is given */

struct llvm_code {
	struct sbpf_code code;
	struct llvm_image image;
	uint32_t n_funcs;
	uint32_t entry_at[]; /* by function, 1 more than the offset of its entry; 0: it is none */
};

/* ---- the compiler ---- */

static const struct sbpf_llvm_plugin *plugin;
static char missing_text[320];

static bool open_plugin(const char *path)
{
	const struct sbpf_llvm_plugin *found;
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!so) {
		snprintf(missing_text, sizeof(missing_text), "the LLVM tier cannot be loaded: %s",
			 dlerror());
		return false;
	}
	found = dlsym(so, SBPF_LLVM_SYMBOL);
	if (!found || found->abi != SBPF_LLVM_ABI || found->layout != SBPF_LLVM_LAYOUT ||
	    strcmp(found->version, LIO_VERSION) != 0) {
		snprintf(missing_text, sizeof(missing_text),
			 "%.200s is of another version than libsbpf " LIO_VERSION
			 "; install both from one build",
			 path);
		return false;
	}
	plugin = found;
	return true;
}

static bool is_file(const char *path)
{
	FILE *f = fopen(path, "re");

	if (f)
		fclose(f);
	return f;
}

static void load(void)
{
	const char *named = secure_getenv("SBPF_LLVM"), *slash;
	char path[4096];
	Dl_info self;

	if (named && *named) {
		if (named[0] == '/')
			open_plugin(named);
		else
			snprintf(missing_text, sizeof(missing_text),
				 "SBPF_LLVM is not an absolute path; name " PLUGIN_NAME
				 " from the root on");
		return;
	}
	/* A program that has us linked in is named as it was called: not to be searched beside. */
	if (dladdr(&plugin, &self) && self.dli_fname && self.dli_fname[0] == '/' &&
	    (slash = strrchr(self.dli_fname, '/')) &&
	    (size_t)(slash - self.dli_fname) < sizeof(path) - sizeof(PLUGIN_NAME) - 1) {
		snprintf(path, sizeof(path), "%.*s/" PLUGIN_NAME, (int)(slash - self.dli_fname),
			 self.dli_fname);
		if (is_file(path)) {
			open_plugin(path);
			return;
		}
	}
	if (is_file(SBPF_LIBDIR "/" PLUGIN_NAME)) {
		open_plugin(SBPF_LIBDIR "/" PLUGIN_NAME);
		return;
	}
	snprintf(missing_text, sizeof(missing_text),
		 "the LLVM tier is not installed: " PLUGIN_NAME " is not beside libsbpf");
}

static const char *llvm_missing(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return plugin ? NULL : missing_text;
}

/* ---- compiling ---- */

struct job {
	const struct sbpf_program *prog;
	struct sbpf_llvm_object object;
	uint8_t helper_args[64];
	char why[256];
	int r;
};

static void *compile_job(void *arg)
{
	struct job *job = arg;

	job->r = plugin->compile(job->prog, job->helper_args, &job->object, job->why,
				 sizeof(job->why));
	return NULL;
}

/* On a stack of its own: the caller's may be a small one, and what LLVM needs grows with the program. */
static int run_job(struct job *job)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int r;

	sigfillset(&all);
	r = pthread_attr_init(&attr);
	if (r)
		return -r;
	r = pthread_attr_setstacksize(&attr, COMPILE_STACK);
	/* The host's signals are not for a thread it does not know. */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (!r)
		r = pthread_create(&thread, &attr, compile_job, job);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r) {
		snprintf(job->why, sizeof(job->why), "no thread to compile on");
		return -r;
	}
	pthread_join(thread, NULL);
	return job->r;
}

static uintptr_t resolve(const char *name)
{
	unsigned int id;
	char tail;

	if (sscanf(name, "h%u%c", &id, &tail) == 1 && id < sbpf_n_helpers)
		return (uintptr_t)sbpf_helpers[id].fn;
	if (!strcmp(name, "due"))
		return (uintptr_t)sbpf_exec_due;
	if (!strcmp(name, "memcpy"))
		return (uintptr_t)memcpy;
	if (!strcmp(name, "memmove"))
		return (uintptr_t)memmove;
	if (!strcmp(name, "memset"))
		return (uintptr_t)memset;
	return 0;
}

static void define(void *arg, const char *name, uint32_t at)
{
	struct llvm_code *lc = arg;
	unsigned int f;
	char tail;

	if (sscanf(name, "e%u%c", &f, &tail) == 1 && f < lc->n_funcs)
		lc->entry_at[f] = at + 1;
}

static void llvm_free(struct sbpf_code *code)
{
	struct llvm_code *lc = (struct llvm_code *)code;

	sbpf_llvm_unmap(&lc->image);
	free(lc);
}

static int link_object(struct llvm_code *lc, const struct sbpf_program *prog,
		       const struct sbpf_llvm_object *object, struct sbpf_error *err)
{
	const char *why;
	int r = sbpf_llvm_link(object->bytes, object->len, resolve, define, lc, &lc->image, &why);

	for (uint32_t i = 0; !r && i < prog->n_entries; i++)
		if (!lc->entry_at[prog->entries[i].func]) {
			why = "an entry is missing";
			r = -EBADMSG;
		}
	lc->code.code_bytes = lc->image.used;
	return r ? sbpf_fail(err, prog, r, -1,
			     "the LLVM tier's object cannot be used: %s; use tier template", why)
		 : 0;
}

static int llvm_compile(const struct sbpf_program *prog, struct sbpf_code **out,
			struct sbpf_error *err)
{
	struct llvm_code *lc;
	struct job job = {.prog = prog};
	int r;

	if (prog->n_insns > SBPF_LLVM_MAX_INSNS)
		return sbpf_fail(err, prog, -E2BIG, -1,
				 "the program has %u instructions, the LLVM tier's limit is %u; "
				 "use tier template",
				 prog->n_insns, SBPF_LLVM_MAX_INSNS);
	lc = calloc(1, sizeof(*lc) + prog->n_funcs * sizeof(lc->entry_at[0]));
	if (!lc)
		return sbpf_fail(err, prog, -ENOMEM, -1, "out of memory for %u functions",
				 prog->n_funcs);
	lc->n_funcs = prog->n_funcs;
	for (uint32_t i = 0; i < sbpf_n_helpers; i++)
		job.helper_args[i] = sbpf_helpers[i].args;
	r = run_job(&job);
	if (r) {
		sbpf_fail(err, prog, r, -1,
			  "the LLVM tier cannot compile it: %s; use tier template", job.why);
	} else {
		r = link_object(lc, prog, &job.object, err);
		plugin->release(&job.object);
	}
	if (r) {
		llvm_free(&lc->code);
		return r;
	}
	*out = &lc->code;
	return 0;
}

/* ---- running ---- */

/* Clang's sanitizers and CFI look for a type in front of what a pointer calls; generated code has none. */
#if defined(__clang__)
#define CALLS_GENERATED_CODE __attribute__((no_sanitize("function", "cfi-icall")))
#else
#define CALLS_GENERATED_CODE
#endif

CALLS_GENERATED_CODE
static uint64_t llvm_run(struct sbpf_exec *x, uint32_t func, uint64_t r1, uint64_t r2, uint64_t r10)
{
	const struct llvm_code *lc = (const struct llvm_code *)x->code;
	const struct sbpf_func *f = &x->prog->funcs[func];
	uint8_t *at = lc->image.mem + lc->entry_at[func] - 1;
	int r = sbpf_clock_start();

	x->pc = f->start;
	if (r)
		sbpf_exec_raise(x, r, 0);
	sbpf_exec_charge(x, f->end - f->start);
	return ((sbpf_llvm_entry)(uintptr_t)at)(x, x->base, r1, r2, r10);
}

/*
 * An instruction's offset is added behind the 32 bits here, so an address may lie in the guard pages; the other tiers see
 * it come in again at the other end.  (All see a word that starts before the end go on behind it.)
 */
static void llvm_leave(struct sbpf_exec *x)
{
	if (x->error == -EFAULT && x->address >= SBPF_SPACE + 8)
		x->address = (uint32_t)x->address;
}

static bool llvm_contains(const struct sbpf_exec *x, uintptr_t pc)
{
	const struct llvm_code *lc = (const struct llvm_code *)x->code;

	return pc - (uintptr_t)lc->image.mem < lc->image.used;
}

/* The last row at or before the place; helpers left a note. */
static int64_t llvm_locate(const struct sbpf_exec *x)
{
	const struct llvm_code *lc = (const struct llvm_code *)x->code;
	const struct llvm_place *places = lc->image.places;
	uintptr_t place = x->host_pc - (uintptr_t)lc->image.mem;
	size_t lo = 0, hi = lc->image.n_places;

	if (!x->host_pc || !llvm_contains(x, x->host_pc))
		return x->pc;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (places[mid].at <= place)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || !places[lo - 1].line || places[lo - 1].line > x->prog->n_insns)
		return -1;
	return (int64_t)places[lo - 1].line - 1;
}

const struct sbpf_engine sbpf_engine_llvm = {
	.name = "llvm",
	.tier = SBPF_TIER_LLVM,
	.missing = llvm_missing,
	.compile = llvm_compile,
	.free = llvm_free,
	.run = llvm_run,
	.leave = llvm_leave,
	.contains = llvm_contains,
	.locate = llvm_locate,
};
