/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c - a program's life, what it is asked, and the table of engines.
 *
 * Owns: making and freeing programs, their strings, the choice of a tier, errors with a place.
 * Does not own: reading objects (elf.c), checking (verify.c), compiling (the engines), the pool of
 * sandboxes (sandbox.c).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sbpf/internal.h"

/* A longer name is cut: an object must not make us keep the same megabyte under 65,536 symbols. */
#define NAME_LIMIT 255u

/* ---- errors ---- */

/* Names come from hostile objects: what reaches a terminal has no control characters. */
static void make_printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

static void copy_text(char *dst, size_t size, const char *src)
{
	snprintf(dst, size, "%s", src);
}

static void fail_place(struct sbpf_error *err, const struct sbpf_program *prog, uint32_t pc,
		       char *place, size_t size)
{
	const struct sbpf_line *line = NULL;
	int n = snprintf(place, size, " (instruction %u", pc);

	if (prog && pc < prog->n_insns) {
		uint32_t func = sbpf_func_at(prog, pc);

		if (func < prog->n_funcs && prog->funcs[func].name)
			copy_text(err->function, sizeof(err->function), prog->funcs[func].name);
		line = sbpf_line_at(prog, pc);
	}
	if (err->function[0])
		n += snprintf(place + n, size - (size_t)n, " of %s", err->function);
	if (line) {
		copy_text(err->file, sizeof(err->file), line->file);
		err->line = line->line;
		n += snprintf(place + n, size - (size_t)n, ", %s:%u", err->file, err->line);
	}
	snprintf(place + n, size - (size_t)n, ")");
}

int sbpf_fail(struct sbpf_error *err, const struct sbpf_program *prog, int code, int64_t pc,
	      const char *fmt, ...)
{
	/* Both names at their longest, and the words around them, fit: see struct sbpf_error. */
	char place[sizeof(err->function) + sizeof(err->file) + 64] = "";
	size_t room, len;
	va_list ap;

	if (!err)
		return code;
	memset(err, 0, sizeof(*err));
	err->code = code;
	err->insn = pc >= 0 && pc <= INT32_MAX ? (int32_t)pc : -1;
	if (err->insn >= 0)
		fail_place(err, prog, (uint32_t)err->insn, place, sizeof(place));

	room = sizeof(err->text) - strlen(place);
	va_start(ap, fmt);
	vsnprintf(err->text, room, fmt, ap);
	va_end(ap);
	len = strlen(err->text);
	copy_text(err->text + len, sizeof(err->text) - len, place);
	make_printable(err->text);
	return code;
}

/* ---- life ---- */

struct sbpf_program *sbpf_program_new(void)
{
	struct sbpf_program *prog = calloc(1, sizeof(*prog));

	if (!prog)
		return NULL;
	if (pthread_mutex_init(&prog->lock, NULL)) {
		free(prog);
		return NULL;
	}
	atomic_init(&prog->refs, 1);
	return prog;
}

static void program_free(struct sbpf_program *prog)
{
	sbpf_tiering_free(prog);
	sbpf_sandbox_free(prog->pool.idle);
	sbpf_sandbox_free(prog->arenas.idle);
	/* AUTO's slot only borrows another tier's code. */
	for (int tier = SBPF_TIER_AUTO + 1; tier <= SBPF_TIER_KERNEL; tier++) {
		struct sbpf_code *code = atomic_load(&prog->code[tier]);

		if (code)
			code->engine->free(code);
	}
	for (uint32_t i = 0; i < prog->n_notes; i++)
		free(prog->notes[i].bytes);
	for (uint32_t i = 0; i < prog->n_strings; i++)
		free(prog->strings[i]);
	free(prog->notes);
	free(prog->strings);
	free(prog->insns);
	free(prog->funcs);
	free(prog->entries);
	free(prog->lines);
	free(prog->rodata);
	free(prog->data);
	free(prog->insn_flags);
	pthread_mutex_destroy(&prog->lock);
	free(prog);
}

struct sbpf_program *sbpf_program_ref(struct sbpf_program *prog)
{
	atomic_fetch_add_explicit(&prog->refs, 1, memory_order_relaxed);
	return prog;
}

void sbpf_program_unref(struct sbpf_program *prog)
{
	if (prog && atomic_fetch_sub_explicit(&prog->refs, 1, memory_order_acq_rel) == 1)
		program_free(prog);
}

const char *sbpf_program_string(struct sbpf_program *prog, const char *s)
{
	char *copy;

	/* Grown by doubling: full whenever the count is a power of two (or zero). */
	if (!(prog->n_strings & (prog->n_strings - 1))) {
		size_t cap = prog->n_strings ? 2 * (size_t)prog->n_strings : 1;
		char **grown = realloc(prog->strings, cap * sizeof(*grown));

		if (!grown)
			return NULL;
		prog->strings = grown;
	}
	copy = strndup(s, NAME_LIMIT);
	if (!copy)
		return NULL;
	make_printable(copy);
	prog->strings[prog->n_strings++] = copy;
	return copy;
}

/* The caller's options in our size, with the defaults filled in. */
static struct sbpf_load_opts load_opts(const struct sbpf_load_opts *opts)
{
	struct sbpf_load_opts o = {0};

	if (opts)
		memcpy(&o, opts, opts->size < sizeof(o) ? opts->size : sizeof(o));
	o.size = sizeof(o);
	if (!o.max_insns || o.max_insns > SBPF_MAX_INSNS)
		o.max_insns = SBPF_MAX_INSNS;
	return o;
}

/* The last step of loading: @r is what the steps before it came to. */
static int loaded(struct sbpf_program *prog, int r, struct sbpf_program **out,
		  struct sbpf_error *err)
{
	if (!r)
		r = sbpf_verify(prog, err);
	if (r) {
		sbpf_program_unref(prog);
		return r;
	}
	*out = prog;
	return 0;
}

int sbpf_program_from_elf(const void *image, size_t len, const struct sbpf_load_opts *opts,
			  struct sbpf_program **out, struct sbpf_error *err)
{
	struct sbpf_load_opts o = load_opts(opts);
	struct sbpf_program *prog = sbpf_program_new();

	*out = NULL;
	if (!prog)
		return sbpf_fail(err, NULL, -ENOMEM, -1, "out of memory for the program");
	return loaded(prog, sbpf_elf_load(prog, image, len, &o, err), out, err);
}

/* The instruction a local call at @pc goes to, or -1 where it is none or leaves the program. */
static int64_t local_call_target(const struct sbpf_program *prog, uint32_t pc)
{
	const struct sbpf_insn *insn = &prog->insns[pc];
	int64_t target = (int64_t)pc + 1 + insn->imm;

	if (insn->code != (BPF_JMP | BPF_CALL) || insn->src != BPF_CALL_LOCAL)
		return -1;
	return target >= 0 && target < prog->n_insns ? target : -1;
}

/* Raw instructions have no symbols: a function starts at 0 and wherever a local call goes. */
static int split_functions(struct sbpf_program *prog, struct sbpf_error *err)
{
	uint8_t *starts = calloc(prog->n_insns, 1);
	uint32_t n = 0;
	int r = -ENOMEM;

	if (!starts)
		goto out;
	starts[0] = 1;
	for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
		int64_t target = local_call_target(prog, pc);

		if (target >= 0)
			starts[target] = 1;
		if (sbpf_is_lddw(&prog->insns[pc]))
			pc++; /* what follows is not an instruction */
	}
	for (uint32_t pc = 0; pc < prog->n_insns; pc++)
		n += starts[pc];
	if (n > SBPF_MAX_FUNCS) {
		r = sbpf_fail(err, NULL, -E2BIG, -1, "more than %u functions", SBPF_MAX_FUNCS);
		goto out;
	}
	prog->funcs = calloc(n, sizeof(*prog->funcs));
	if (!prog->funcs)
		goto out;
	for (uint32_t pc = 0; pc < prog->n_insns; pc++) {
		struct sbpf_func *func = &prog->funcs[prog->n_funcs];
		char name[24] = "entry";

		if (!starts[pc])
			continue;
		if (pc) {
			snprintf(name, sizeof(name), "function_%u", pc);
			func[-1].end = pc;
		}
		*func = (struct sbpf_func){.start = pc, .end = prog->n_insns};
		func->name = sbpf_program_string(prog, name);
		if (!func->name)
			goto out;
		prog->n_funcs++;
	}
	r = 0;
out:
	free(starts);
	return r == -ENOMEM ? sbpf_fail(err, NULL, r, -1, "out of memory for the functions") : r;
}

static int insns_load(struct sbpf_program *prog, const void *insns, size_t n,
		      const struct sbpf_load_opts *opts, struct sbpf_error *err)
{
	int r;

	if (!n)
		return sbpf_fail(err, NULL, -ENOEXEC, -1, "the program is empty");
	if (n > opts->max_insns)
		return sbpf_fail(err, NULL, -E2BIG, -1,
				 "the program has %zu instructions; the limit is %u", n,
				 opts->max_insns);
	prog->insns = malloc(n * sizeof(*prog->insns));
	prog->entries = calloc(1, sizeof(*prog->entries));
	if (!prog->insns || !prog->entries)
		return sbpf_fail(err, NULL, -ENOMEM, -1, "out of memory for %zu instructions", n);
	memcpy(prog->insns, insns, n * sizeof(*prog->insns));
	prog->n_insns = (uint32_t)n;
	r = split_functions(prog, err);
	if (r)
		return r;
	prog->entries[0] = (struct sbpf_entry){.name = prog->funcs[0].name, .section = ""};
	prog->n_entries = 1;
	return 0;
}

int sbpf_program_from_insns(const void *insns, size_t n, const struct sbpf_load_opts *opts,
			    struct sbpf_program **out, struct sbpf_error *err)
{
	struct sbpf_load_opts o = load_opts(opts);
	struct sbpf_program *prog = sbpf_program_new();

	*out = NULL;
	if (!prog)
		return sbpf_fail(err, NULL, -ENOMEM, -1, "out of memory for the program");
	return loaded(prog, insns_load(prog, insns, n, &o, err), out, err);
}

/* ---- questions ---- */

uint32_t sbpf_func_at(const struct sbpf_program *prog, uint32_t pc)
{
	uint32_t lo = 0, hi = prog->n_funcs;

	/* Invariant: functions below lo start at or before pc, those from hi on after it. */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (prog->funcs[mid].start <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? lo - 1 : 0;
}

const struct sbpf_line *sbpf_line_at(const struct sbpf_program *prog, uint32_t pc)
{
	uint32_t lo = 0, hi = prog->n_lines, func;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (prog->lines[mid].insn <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	/* A function without lines of its own must not borrow the previous one's. */
	func = sbpf_func_at(prog, pc);
	if (func >= prog->n_funcs || prog->lines[lo - 1].insn < prog->funcs[func].start)
		return NULL;
	return &prog->lines[lo - 1];
}

unsigned int sbpf_program_entries(const struct sbpf_program *prog)
{
	return prog->n_entries;
}

const char *sbpf_program_entry_name(const struct sbpf_program *prog, unsigned int entry)
{
	return entry < prog->n_entries ? prog->entries[entry].name : NULL;
}

const char *sbpf_program_entry_section(const struct sbpf_program *prog, unsigned int entry)
{
	return entry < prog->n_entries ? prog->entries[entry].section : NULL;
}

int sbpf_program_entry_find(const struct sbpf_program *prog, const char *name)
{
	for (uint32_t i = 0; i < prog->n_entries; i++)
		if (!strcmp(prog->entries[i].name, name))
			return (int)i;
	return -ENOENT;
}

const void *sbpf_program_note(const struct sbpf_program *prog, const char *section, size_t *len)
{
	for (uint32_t i = 0; i < prog->n_notes; i++) {
		if (!strcmp(prog->notes[i].section, section)) {
			*len = prog->notes[i].len;
			return prog->notes[i].bytes;
		}
	}
	*len = 0;
	return NULL;
}

/* Fill a caller's versioned structure: as much of ours as it knows. */
static int fill_info(void *dst, size_t dst_size, void *src, size_t src_size)
{
	size_t size = dst_size < src_size ? dst_size : src_size;

	if (dst_size < sizeof(size_t))
		return -EINVAL;
	memcpy(src, &dst_size, sizeof(dst_size)); /* .size stays the caller's */
	memcpy(dst, src, size);
	return 0;
}

int sbpf_program_info(const struct sbpf_program *prog, struct sbpf_program_info *info)
{
	struct sbpf_program_info full = {
		.insns = prog->n_insns,
		.functions = prog->n_funcs,
		.stack_bytes = prog->stack_bytes,
		.call_depth = prog->call_depth,
		.rodata_bytes = prog->rodata_len,
		.data_bytes = prog->data_total,
		.helpers = prog->helpers,
	};

	return fill_info(info, info->size, &full, sizeof(full));
}

/* ---- tiers ---- */

static const char *const tier_names[] = {
	[SBPF_TIER_AUTO] = "auto", [SBPF_TIER_INTERP] = "interp", [SBPF_TIER_TEMPLATE] = "template",
	[SBPF_TIER_LLVM] = "llvm", [SBPF_TIER_KERNEL] = "kernel",
};
#define N_TIERS (sizeof(tier_names) / sizeof(tier_names[0]))

static const struct sbpf_engine *const engines[N_TIERS] = {
	[SBPF_TIER_INTERP] = &sbpf_engine_interp,
#if defined(__x86_64__)
	[SBPF_TIER_TEMPLATE] = &sbpf_engine_x86_64,
#elif defined(__aarch64__)
	[SBPF_TIER_TEMPLATE] = &sbpf_engine_aarch64,
#endif
#if defined(SBPF_WITH_LLVM)
	[SBPF_TIER_LLVM] = &sbpf_engine_llvm,
#endif
#if defined(SBPF_WITH_KERNEL)
	[SBPF_TIER_KERNEL] = &sbpf_engine_kernel,
#endif
};

const char *sbpf_tier_name(enum sbpf_tier tier)
{
	return (unsigned int)tier < N_TIERS ? tier_names[tier] : NULL;
}

int sbpf_tier_parse(const char *name, enum sbpf_tier *tier)
{
	for (unsigned int i = 0; i < N_TIERS; i++) {
		if (!strcmp(name, tier_names[i])) {
			*tier = (enum sbpf_tier)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *sbpf_tier_missing(enum sbpf_tier tier)
{
	static const char *const absent[N_TIERS] = {
		[SBPF_TIER_TEMPLATE] = "the template tier knows x86-64 and aarch64 only",
		[SBPF_TIER_LLVM] = "the LLVM tier is not part of this build",
		[SBPF_TIER_KERNEL] = "the kernel tier is not part of this build",
	};

	if ((unsigned int)tier >= N_TIERS)
		return "there is no such tier";
	if (!engines[tier])
		return absent[tier]; /* NULL for AUTO */
	return engines[tier]->missing ? engines[tier]->missing() : NULL;
}

#if !defined(SBPF_WITH_KERNEL)
int sbpf_kernel_need(unsigned int i, const char **name, const char **missing)
{
	return -ENOENT;
}
#endif

/* AUTO is the template tier where this machine has it, else the interpreter, which runs everywhere. */
static enum sbpf_tier resolve(enum sbpf_tier tier)
{
	if (tier != SBPF_TIER_AUTO)
		return tier;
	return sbpf_tier_missing(SBPF_TIER_TEMPLATE) ? SBPF_TIER_INTERP : SBPF_TIER_TEMPLATE;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* With prog->lock held: @tier (not AUTO) has code on success. */
static int compile_locked(struct sbpf_program *prog, enum sbpf_tier tier, struct sbpf_error *err)
{
	struct sbpf_code *code = NULL;
	uint64_t start = now_ns();
	int r;

	if (atomic_load_explicit(&prog->code[tier], memory_order_relaxed))
		return 0;
	r = engines[tier]->compile(prog, &code, err);
	if (r)
		return r;
	code->engine = engines[tier];
	code->compile_ns = now_ns() - start;
	atomic_store_explicit(&prog->code[tier], code, memory_order_release);
	return 0;
}

int sbpf_program_compile(struct sbpf_program *prog, enum sbpf_tier tier,
			 struct sbpf_code_info *info, struct sbpf_error *err)
{
	struct sbpf_code *code = sbpf_program_code(prog, tier);
	struct sbpf_code_info full;

	if (!code) {
		enum sbpf_tier real = resolve(tier);
		const char *missing = sbpf_tier_missing(real);
		int r;

		if (missing)
			return sbpf_fail(err, NULL, -EOPNOTSUPP, -1, "%s", missing);
		pthread_mutex_lock(&prog->lock);
		r = compile_locked(prog, real, err);
		code = atomic_load_explicit(&prog->code[real], memory_order_relaxed);
		/* It may stand for a better one by now. */
		if (!r && tier == SBPF_TIER_AUTO && !sbpf_program_code(prog, tier))
			atomic_store_explicit(&prog->code[tier], code, memory_order_release);
		pthread_mutex_unlock(&prog->lock);
		if (r)
			return r;
	}
	full = (struct sbpf_code_info){
		.tier = code->engine->tier,
		.compile_ns = code->compile_ns,
		.code_bytes = code->code_bytes,
	};
	return info ? fill_info(info, info->size, &full, sizeof(full)) : 0;
}

const struct sbpf_engine *sbpf_engine_of(enum sbpf_tier tier)
{
	return (unsigned int)tier < N_TIERS ? engines[tier] : NULL;
}

void sbpf_program_publish(struct sbpf_program *prog, struct sbpf_code *code, uint64_t compile_ns)
{
	const struct sbpf_engine *engine = sbpf_engine_of(SBPF_TIER_LLVM);
	struct sbpf_code *was;

	pthread_mutex_lock(&prog->lock);
	was = sbpf_program_code(prog, engine->tier);
	if (!was) {
		code->engine = engine;
		code->compile_ns = compile_ns;
		atomic_store_explicit(&prog->code[engine->tier], code, memory_order_release);
	} else if (was != code) { /* someone asked for the tier itself meanwhile */
		engine->free(code);
		code = was;
	}
	atomic_store_explicit(&prog->code[SBPF_TIER_AUTO], code, memory_order_release);
	pthread_mutex_unlock(&prog->lock);
}

const char *sbpf_version(void)
{
	return LIO_VERSION;
}
