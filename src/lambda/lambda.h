/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda.h - what a λ-function is, and how one is run over data, wherever that is.
 *
 * Owns: the object's self-description (object.c), the little type language and argument packing
 * (schema.c), cutting records (records.c), and running map, scan and fold over pieces with ordered
 * output, merges and reruns (run.c).  Shared by host and device.
 * Does not own: where bytes come from (struct lambda_source) or go (struct lambda_sink), files, or
 * where a function should run.
 */
#ifndef LAMBDA_LAMBDA_H
#define LAMBDA_LAMBDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lambdaio/sbpf.h"

/* ---- errors: the text is made where the cause is known, once ---- */

struct lambda_error {
	int code;        /* -errno */
	uint64_t offset; /* in the input, where one applies; else UINT64_MAX */
	char text[640];  /* "WHAT: WHY; FIX" without prefix or newline */
};
int lambda_fail(struct lambda_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- the type language: "max:i64 q:i64[4]=0..3 name:text=abc" ---- */

enum lambda_type {
	LAMBDA_I8,
	LAMBDA_I16,
	LAMBDA_I32,
	LAMBDA_I64,
	LAMBDA_U8,
	LAMBDA_U16,
	LAMBDA_U32,
	LAMBDA_U64,
	LAMBDA_F64,
	LAMBDA_TEXT,
};

struct lambda_field {
	char *name;
	enum lambda_type type;
	uint32_t count; /* elements; 1 and !array for a scalar */
	bool array;
	bool has_default;
	uint8_t *value; /* the default, packed */
	size_t value_len;
};

enum lambda_shape {
	LAMBDA_SHAPE_BYTES,
	LAMBDA_SHAPE_TEXT,
	LAMBDA_SHAPE_ROWS
};

struct lambda_schema {
	enum lambda_shape shape;
	struct lambda_field *fields;
	uint32_t n_fields;
};

size_t lambda_type_size(enum lambda_type type); /* 0 for text */
const char *lambda_type_name(enum lambda_type type);
/* Parse @len bytes of text; @output allows "text" and "bytes". Hostile input. */
int lambda_schema_parse(const char *text, size_t len, bool output, struct lambda_schema *out,
			struct lambda_error *err);
void lambda_schema_free(struct lambda_schema *schema);
/*
 * Bytes of the packed field at @p (at most @len): its size, or -ENODATA if cut short.
 */
int64_t lambda_field_extent(const struct lambda_field *field, const uint8_t *p, size_t len);
/*
 * Pack arguments.  Each of @args is NAME=VALUE or VALUE (then the next in declared order that is not yet set);
 * a VALUE @FILE is read.  A literal '@' or a VALUE that has a '=' in front of it is written NAME=@@… or NAME=….
 * *out is malloc'd (NULL if empty).
 */
int lambda_args_pack(const struct lambda_schema *schema, const char *const *args, size_t n,
		     uint8_t **out, size_t *out_len, struct lambda_error *err);

/* ---- a function ---- */

enum lambda_kind {
	LAMBDA_KIND_MAP,
	LAMBDA_KIND_SCAN,
	LAMBDA_KIND_FOLD
};
enum lambda_record {
	LAMBDA_RECORDS_ANY,
	LAMBDA_RECORDS_FIXED,
	LAMBDA_RECORDS_DELIM
};
enum lambda_entry {
	LAMBDA_E_MAP,
	LAMBDA_E_SCAN,
	LAMBDA_E_FOLD,
	LAMBDA_E_MERGE,
	LAMBDA_E_FINISH,
	LAMBDA_ENTRIES
};

struct lambda_function {
	struct sbpf_program *prog; /* owned */
	char *name;
	char *doc; /* "" if none */
	enum lambda_kind kind;
	enum lambda_record record;
	uint32_t record_value; /* size or delimiter */
	struct lambda_schema output;
	struct lambda_schema args;
	char *output_text, *args_text; /* as declared */
	uint64_t state_size;
	uint64_t heap_size;
	int entry[LAMBDA_ENTRIES]; /* entry index in prog, or -1 */
};

/* Load and check an object; *out is to be freed with lambda_function_free().  Hostile input. */
int lambda_function_load(const void *image, size_t len, struct lambda_function **out,
			 struct lambda_error *err);
void lambda_function_free(struct lambda_function *fn);
const char *lambda_kind_name(enum lambda_kind kind);

/* ---- where bytes come from ---- */

struct lambda_source;
struct lambda_source_ops {
	const char *name; /* for reports: "mmap", "pread", "gzip", … */
	/*
	 * Only in order, once, and the size is not known: read() gives the next bytes whatever @off says and is
	 * never called by two threads at once.  Else read() is positional and thread-safe.
	 */
	bool sequential;
	/* Up to @len bytes into @buf; 0 at the end, -errno. */
	int64_t (*read)(struct lambda_source *src, void *buf, size_t len, uint64_t off);
	/* Optional (random access only): [page-aligned @off, +@len) as SBPF_WIN_IN without a copy; -EOPNOTSUPP: read() instead. */
	int (*map)(struct lambda_source *src, struct sbpf_sandbox *sb, uint64_t off, uint64_t len);
};
struct lambda_source { /* embed first */
	const struct lambda_source_ops *ops;
	uint64_t size;   /* of a random-access source, bytes */
	bool map_forced; /* map() every large piece, not only where that measured faster */
};

struct lambda_sink {
	/* All @len bytes or -errno; called from one thread at a time, in order. */
	int (*write)(struct lambda_sink *sink, const void *p, size_t len);
};

/* ---- running ---- */

struct lambda_request {
	const struct lambda_function *fn;
	const uint8_t *arg;
	size_t arg_len;
	uint64_t offset;
	uint64_t length;  /* UINT64_MAX: to the end */
	uint64_t chunk;   /* bytes of a piece; 0: the default */
	unsigned threads; /* 0: one per core this process may use */
	enum sbpf_tier tier;
	/* budgets; 0: the default */
	uint64_t
		fuel; /* of the whole request; default per call LAMBDA_FUEL_CALL + LAMBDA_FUEL_BYTE × input bytes */
	uint64_t memory;      /* of one call: input, output, heap, state and arguments together */
	uint64_t max_output;  /* bytes the whole request may return */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
	const int *cancel;    /* may be NULL */
	void (*progress)(void *arg, uint64_t done,
			 uint64_t total); /* may be NULL; total 0: unknown; one thread at a time */
	void (*trace)(void *arg, const char *text, size_t len); /* may be NULL; any thread */
	void *hook_arg;
	/* For `lio test`: cuts at exactly these offsets (moved to record boundaries) instead of every @chunk bytes; NULL else */
	const uint64_t *cuts;
	size_t n_cuts;
};

#define LAMBDA_CHUNK_DEFAULT  (1u << 20)
#define LAMBDA_FUEL_CALL      (1ull << 27)
#define LAMBDA_FUEL_BYTE      1024ull
#define LAMBDA_MEMORY_DEFAULT (256ull << 20)
#define LAMBDA_OUTPUT_DEFAULT (1ull << 40)

struct lambda_report {
	uint64_t bytes_in; /* given to the function */
	uint64_t bytes_out;
	uint64_t trailing; /* bytes of a cut-short fixed record, not passed in */
	uint64_t io_ns;    /* summed over threads */
	uint64_t run_ns;
	uint64_t wall_ns;
	uint64_t fuel;
	uint64_t calls;
	uint64_t reruns;
	uint64_t restarts; /* workers that went on in another tier, for the kernel ended a run */
	unsigned threads;
	/* AUTO may take up a better tier on the way: what ran last, what ran first, and on how much input that was */
	enum sbpf_tier tier, tier_first;
	uint64_t bytes_first;
	const char
		*tier_why;   /* AUTO's reasons, as long as the function lives; "" for other tiers */
	uint64_t compile_ns; /* summed over threads where each loads for itself */
	const char *source;  /* how bytes reached the function: "mmap", "pread", … */
};

/*
 * Run over [offset, offset+length) of @src into @sink, as DESIGN's contract 1 and 2 say.  On an error
 * some output may have reached the sink already: a caller that must not show partial output stages it.
 * Thread-safe for different sources and sinks.
 */
int lambda_run(const struct lambda_request *req, struct lambda_source *src,
	       struct lambda_sink *sink, struct lambda_report *report, struct lambda_error *err);

#endif /* LAMBDA_LAMBDA_H */
