/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_load.c - a translated entry in the kernel: its map, its type information, loading, one run.
 *
 * Owns: what lies behind a run (struct kt_ctl, mapped), the reason of a rejection, where a fault was.
 * Does not own: the arena and its pages, and what a window holds.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sbpf/kernel_sys.h"
#include "sbpf/kernel_translate.h"
#include "sbpf/sandbox.h"

#define LOG_BYTES (256u << 10)
/* Where nothing is polled a slice may be as long as the sign of what is left allows. */
#define SLICE_UNPOLLED (1ull << 62)

struct sbpf_kernel_prog {
	const struct sbpf_program *prog;
	int fd, map_fd;
	struct kt_ctl *ctl;
	size_t ctl_len;
	uint64_t size[SBPF_WINDOWS]; /* that ctl->rows stand for */
};

/* ---- type information, Documentation/bpf/btf.rst: a function that is verified once needs it ---- */

struct btf {
	uint8_t types[1024]; /* 6 prototypes and what they are made of */
	uint32_t n_types;    /* bytes */
	uint32_t ids;
	char *strings;
	uint32_t n_strings;
};

enum {
	BTF_INT = 1,
	BTF_PTR = 2,
	BTF_FUNC = 12,
	BTF_FUNC_PROTO = 13,
	BTF_GLOBAL = 1
};

static void btf_word(struct btf *b, uint32_t word)
{
	memcpy(b->types + b->n_types, &word, 4);
	b->n_types += 4;
}

static uint32_t btf_type(struct btf *b, uint32_t name, uint32_t kind, uint32_t n, uint32_t size)
{
	btf_word(b, name);
	btf_word(b, kind << 24 | n);
	btf_word(b, size);
	return ++b->ids;
}

#define BTF_LONG       1u
#define BTF_POINTER    2u
#define BTF_PROTO_0    3u /* of no arguments; then of one … */
#define BTF_PROTO_MAIN (BTF_PROTO_0 + 6)

static void btf_prototypes(struct btf *b)
{
	uint32_t name = 1; /* "a", which is also what all lines are */

	btf_type(b, name, BTF_INT, 0, 8);
	btf_word(b, 1u << 24 | 64); /* signed */
	btf_type(b, 0, BTF_PTR, 0, 0);
	for (uint32_t n = 0; n <= 5; n++) {
		btf_type(b, 0, BTF_FUNC_PROTO, n, BTF_LONG);
		for (uint32_t i = 0; i < n; i++) {
			btf_word(b, name);
			btf_word(b, BTF_LONG);
		}
	}
	btf_type(b, 0, BTF_FUNC_PROTO, 1, BTF_LONG);
	btf_word(b, name);
	btf_word(b, BTF_POINTER);
}

static uint32_t last_arg(const struct kt_sub *sub)
{
	uint32_t n = 0;

	while (sub->args >> (n + 1))
		n++;
	return n;
}

struct blob {
	uint8_t *p;
	size_t len;
};

/*
 * The prototypes, then a function for each subprogram; so the type of subprogram i is BTF_PROTO_MAIN + 1 + i.
 */
static int btf_build(const struct kt_image *im, struct blob *out)
{
	struct {
		uint16_t magic;
		uint8_t version, flags;
		uint32_t hdr_len, type_off, type_len, str_off, str_len;
	} h = {.magic = 0xeb9f, .version = 1, .hdr_len = sizeof(h)};
	struct btf b = {0};
	size_t names = 3 + 12 * (size_t)im->n_subs;
	uint32_t at = 3;
	uint8_t *p;

	btf_prototypes(&b);
	h.type_len = b.n_types + 12 * im->n_subs;
	out->len = sizeof(h) + h.type_len + names;
	out->p = calloc(1, out->len + 12);
	if (!out->p)
		return -ENOMEM;
	p = out->p + sizeof(h);
	memcpy(p, b.types, b.n_types);
	p += b.n_types;
	b.strings = (char *)out->p + sizeof(h) + h.type_len;
	memcpy(b.strings, "\0a", 3);
	for (uint32_t i = 0; i < im->n_subs; i++) {
		uint32_t words[3] = {at, BTF_FUNC << 24 | BTF_GLOBAL,
				     i ? BTF_PROTO_0 + last_arg(&im->subs[i]) : BTF_PROTO_MAIN};

		memcpy(p, words, sizeof(words));
		p += sizeof(words);
		at += (uint32_t)snprintf(b.strings + at, 12, "f%u", i) + 1;
	}
	h.str_off = h.type_len;
	h.str_len = at;
	out->len = sizeof(h) + h.type_len + at;
	memcpy(out->p, &h, sizeof(h));
	return 0;
}

static int btf_load(const struct kt_image *im)
{
	struct {
		uint64_t btf, log;
		uint32_t size, log_size, log_level, log_true_size, flags;
		int32_t token;
	} attr = {0};
	struct blob blob;
	int r = btf_build(im, &blob);

	if (r)
		return r;
	attr.btf = (uintptr_t)blob.p;
	attr.size = (uint32_t)blob.len;
	r = sbpf_bpf(KBPF_BTF_LOAD, &attr, 28);
	free(blob.p);
	return r;
}

/* ---- loading ---- */

struct func_info {
	uint32_t insn, type;
};

struct line_info {
	uint32_t insn, file, line, column;
};

static struct func_info *func_infos(const struct kt_image *im)
{
	struct func_info *infos = calloc(im->n_subs, sizeof(*infos));

	for (uint32_t i = 0; infos && i < im->n_subs; i++)
		infos[i] = (struct func_info){im->subs[i].at, BTF_PROTO_MAIN + 1 + i};
	return infos;
}

static bool is_access(const struct sbpf_insn *insn)
{
	uint8_t cls = BPF_CLASS(insn->code);

	return cls == BPF_LDX || cls == BPF_ST || cls == BPF_STX;
}

/*
 * A line for each instruction that can fault, so that the kernel's report of a fault names it: the line's
 * number is the program's instruction plus 1.  And one where each subprogram starts, as the kernel asks.
 */
static struct line_info *line_infos(const struct kt_image *im, uint32_t *n)
{
	struct line_info *infos = calloc((size_t)im->n, sizeof(*infos));
	uint32_t sub = 0;

	*n = 0;
	for (uint32_t at = 0; infos && at < im->n; at++) {
		bool starts = sub < im->n_subs && im->subs[sub].at == at;

		sub += starts;
		if (starts || is_access(&im->insns[at]))
			infos[(*n)++] = (struct line_info){
				at, 1, 1, im->pc[at] < (1u << 22) - 1 ? (im->pc[at] + 1) << 10 : 0};
		at += sbpf_is_lddw(&im->insns[at]);
	}
	return infos;
}

static struct sbpf_insn *with_maps(const struct kt_image *im, int arena_fd, int map_fd)
{
	struct sbpf_insn *insns = malloc(im->n * sizeof(*insns));

	if (!insns)
		return NULL;
	memcpy(insns, im->insns, im->n * sizeof(*insns));
	for (uint32_t at = 0; at < im->n; at++) {
		if (!sbpf_is_lddw(&insns[at]))
			continue;
		if (insns[at].src == KT_MAP_FD)
			insns[at].imm = arena_fd;
		else if (insns[at].src == KT_MAP_VALUE)
			insns[at].imm = map_fd;
		at++;
	}
	return insns;
}

static const char *line_start(const char *log, const char *at)
{
	while (at > log && at[-1] != '\n')
		at--;
	return at;
}

/*
 * The log ends with the reason, which stands behind the instruction it is about ("12: (85) call …"), and
 * with what verifying took.
 */
static int rejected(const struct kt_image *im, const struct sbpf_program *prog, const char *log,
		    int r, struct sbpf_error *err)
{
	const char *end = log + strlen(log), *reason = NULL, *at;
	size_t len = 0;
	int64_t pc = -1;

	while (end > log) {
		unsigned int insn;
		int used = 0;

		while (end > log && end[-1] == '\n')
			end--;
		at = line_start(log, end);
		if (sscanf(at, "%u: (%*2[0-9a-f])%n", &insn, &used) == 1 && used) {
			if (insn < im->n && im->pc[insn] != KT_NO_PC)
				pc = im->pc[insn];
			break;
		}
		if (!reason && at < end && strncmp(at, "processed ", 10) &&
		    strncmp(at, "verification time", 17) && strncmp(at, "stack depth", 11) &&
		    *at != ';' && !isdigit((unsigned char)*at)) {
			reason = at;
			len = (size_t)(end - at);
		}
		end = at;
	}
	if (!reason) {
		reason = strerror(-r);
		len = strlen(reason);
	}
	return sbpf_fail(err, prog, -EOPNOTSUPP, pc,
			 "the kernel's verifier refuses it: %.*s; run it on the user engine",
			 (int)len, reason);
}

static int load(const struct sbpf_translation *t, const struct kt_image *im, int arena_fd,
		int map_fd, struct sbpf_error *err)
{
	struct kbpf_prog_load attr = {
		.prog_type = KBPF_PROG_TYPE_SYSCALL,
		.insn_cnt = im->n,
		.license = (uintptr_t)"Apache-2.0",
		.flags = KBPF_F_SLEEPABLE,
		.name = "lambda",
		.func_info_rec_size = sizeof(struct func_info),
		.func_info_cnt = im->n_subs,
		.line_info_rec_size = sizeof(struct line_info),
	};
	struct sbpf_insn *insns = with_maps(im, arena_fd, map_fd);
	struct func_info *funcs = func_infos(im);
	struct line_info *lines = line_infos(im, &attr.line_info_cnt);
	int btf = btf_load(im), r = btf;
	char *log = NULL;

	if (insns && funcs && lines && btf >= 0) {
		attr.insns = (uintptr_t)insns;
		attr.func_info = (uintptr_t)funcs;
		attr.line_info = (uintptr_t)lines;
		attr.btf_fd = (uint32_t)btf;
		r = sbpf_bpf(KBPF_PROG_LOAD, &attr, sizeof(attr));
		if (r < 0 && r != -EPERM)
			log = calloc(1, LOG_BYTES);
		if (log) {
			attr.log_level = 1;
			attr.log_buf = (uintptr_t)log;
			attr.log_size = LOG_BYTES;
			r = sbpf_bpf(KBPF_PROG_LOAD, &attr, sizeof(attr));
			log[LOG_BYTES - 1] = '\0';
		}
	} else if (btf >= 0) {
		r = -ENOMEM;
	}
	if (r < 0 && log)
		r = rejected(im, t->prog, log, r, err);
	else if (r < 0)
		r = sbpf_fail(err, t->prog, r, -1, "the kernel does not load the program: %s",
			      strerror(-r));
	if (btf >= 0)
		close(btf);
	free(insns);
	free(funcs);
	free(lines);
	free(log);
	return r;
}

/* ---- the map ---- */

static int new_map(struct sbpf_kernel_prog *kp, const struct kt_image *im)
{
	struct kbpf_map_create attr = {
		.map_type = KBPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = (uint32_t)(sizeof(struct kt_ctl) + im->n_pool * sizeof(uint64_t)),
		.max_entries = 1,
		.map_flags = KBPF_F_MMAPABLE,
		.name = "lambda",
	};
	void *p;

	kp->map_fd = sbpf_bpf(KBPF_MAP_CREATE, &attr, sizeof(attr));
	if (kp->map_fd < 0)
		return kp->map_fd;
	kp->ctl_len = attr.value_size;
	p = mmap(NULL, kp->ctl_len, PROT_READ | PROT_WRITE, MAP_SHARED, kp->map_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	kp->ctl = p;
	if (im->n_pool)
		memcpy(kp->ctl->pool, im->pool, im->n_pool * sizeof(uint64_t));
	return 0;
}

int sbpf_kernel_load(const struct sbpf_translation *t, int arena_fd, uint8_t *arena_base,
		     unsigned int entry, struct sbpf_kernel_prog **out, struct sbpf_error *err)
{
	struct sbpf_kernel_prog *kp = calloc(1, sizeof(*kp));
	int r;

	*out = NULL;
	if (!kp)
		return sbpf_fail(err, t->prog, -ENOMEM, -1,
				 "out of memory for the kernel's program");
	kp->prog = t->prog;
	kp->fd = kp->map_fd = -1;
	r = new_map(kp, &t->images[entry]);
	if (r) {
		sbpf_fail(err, t->prog, r, -1, "the kernel gives no map: %s", strerror(-r));
	} else {
		r = kp->fd = load(t, &t->images[entry], arena_fd, kp->map_fd, err);
	}
	if (r < 0) {
		sbpf_kernel_unload(kp);
		return r;
	}
	kt_library_fill(arena_base);
	*out = kp;
	return 0;
}

void sbpf_kernel_unload(struct sbpf_kernel_prog *kp)
{
	if (!kp)
		return;
	if (kp->ctl)
		munmap(kp->ctl, kp->ctl_len);
	if (kp->map_fd >= 0)
		close(kp->map_fd);
	if (kp->fd >= 0)
		close(kp->fd);
	free(kp);
}

/* ---- running ---- */

static void set_row(struct kt_row *row, uint32_t nibble, const uint64_t *sizes)
{
	enum sbpf_window win = sbpf_window_of(nibble << 28);

	*row = (struct kt_row){.next_start = UINT64_MAX};
	row->start = sbpf_window_offset(win);
	row->end = row->start + sizes[win];
	if (win + 1 < SBPF_WINDOWS && sbpf_window_offset(win + 1) >> 28 == nibble) {
		row->next_start = sbpf_window_offset(win + 1);
		row->next_end = row->next_start + sizes[win + 1];
	}
}

static void set_rows(struct sbpf_kernel_prog *kp, const uint64_t *sizes)
{
	if (kp->ctl->rows[15].start && !memcmp(kp->size, sizes, sizeof(kp->size)))
		return;
	memcpy(kp->size, sizes, sizeof(kp->size));
	for (uint32_t i = 0; i < 16; i++)
		set_row(&kp->ctl->rows[i], i, sizes);
	kp->ctl->start = sbpf_window_offset(SBPF_WIN_IN);
	kp->ctl->most = sizes[SBPF_WIN_IN] - 8;
}

/* Lengths and bytes, in whole words: what lambda_trace() left (kernel_helpers.bpf.c). */
static void tell_trace(const struct kt_ctl *ctl, const struct sbpf_kernel_call *call)
{
	uint64_t end = ctl->trace_len < KT_TRACE ? ctl->trace_len : KT_TRACE, len;

	for (uint64_t at = 0; call->trace && at + sizeof(len) <= end; at += (len + 7) & ~7ull) {
		memcpy(&len, ctl->trace + at, sizeof(len));
		at += sizeof(len);
		if (len > end - at)
			return;
		call->trace(call->trace_arg, (const char *)ctl->trace + at, len);
	}
}

int sbpf_kernel_run(struct sbpf_kernel_prog *kp, struct sbpf_kernel_call *call)
{
	struct kbpf_prog_run attr = {.fd = (uint32_t)kp->fd};
	struct kt_ctl *ctl = kp->ctl;
	uint64_t slice = call->cancel || call->deadline_ns ? SBPF_FUEL_SLICE : SLICE_UNPOLLED;
	int r;

	set_rows(kp, call->sizes);
	ctl->r1 = call->r1;
	ctl->r2 = call->r2;
	ctl->slice = slice;
	ctl->fuel = call->fuel < slice ? call->fuel : slice;
	ctl->reserve = call->fuel - ctl->fuel;
	ctl->deadline = call->deadline_ns;
	ctl->cancel = (uintptr_t)call->cancel;
	ctl->status = 0;
	ctl->pc = 0;
	ctl->trace_len = 0;
	r = sbpf_bpf(KBPF_PROG_RUN, &attr, sizeof(attr));
	if (r < 0)
		return r;
	call->pc = (uint32_t)ctl->pc - 1;
	call->address = ctl->address;
	call->r0 = ctl->r0;
	call->fuel_left = ctl->reserve + (ctl->status ? 0 : ctl->fuel);
	tell_trace(ctl, call);
	return (int)ctl->status;
}
