/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambdaio.h - the host API: files, and functions that run over them.
 *
 * Owns: files, functions, λ-read, λ-write, results.  Does not own: the runtime (sbpf.h), what a
 * function includes (function.h).
 *
 * Functions return 0 (or a byte count where they say so) or -errno and never touch errno.  What a failure was about, in
 * one line, is lio_error() of the thread that saw it.  Handles may be shared between threads unless a
 * declaration says otherwise; a handle must not be closed while another thread uses it.
 * Structures that a caller fills start with their size: set `.size = sizeof(...)`, zero means default.
 */
#ifndef LAMBDAIO_LAMBDAIO_H
#define LAMBDAIO_LAMBDAIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIO_API __attribute__((visibility("default")))

struct lio_file;
struct lio_function;

#define LIO_TO_END UINT64_MAX

enum lio_engine {
	LIO_ENGINE_AUTO,
	LIO_ENGINE_USER,
	LIO_ENGINE_KERNEL,
	LIO_ENGINE_DEVICE
};
enum lio_tier {
	LIO_TIER_AUTO,
	LIO_TIER_INTERP,
	LIO_TIER_TEMPLATE,
	LIO_TIER_LLVM,
	LIO_TIER_KERNEL /* of LIO_ENGINE_KERNEL, which has no other */
};
enum lio_decompress {
	LIO_DECOMPRESS_AUTO,
	LIO_DECOMPRESS_NONE
};
/* How input reaches the sandbox; AUTO chooses by evidence (docs/io.md). */
enum lio_io {
	LIO_IO_AUTO,
	LIO_IO_MMAP,
	LIO_IO_PREAD
};

/* "WHAT: WHY; FIX" of this thread's last failure; "" if none.  Valid until the thread's next call. */
LIO_API const char *lio_error(void);
/* "ENOSPC" for -ENOSPC or ENOSPC; "E?" for what has no name. */
LIO_API const char *lio_errname(int error);
LIO_API const char *lio_version(void);

/* ---- files ---- */

/*
 * Open @path ("-" is standard input, read only, sequential).  @flags as open(2): O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_TRUNC,
 * O_DIRECT…; @mode for O_CREAT.  A directory is -EISDIR.  "lio://HOST[:PORT]/EXPORT/PATH" is a file of a
 * server (docs/remote.md); the calls below work on it as on a local one.
 */
LIO_API int lio_open(const char *path, int flags, mode_t mode, struct lio_file **out);
LIO_API int lio_close(struct lio_file *file);
/* Plain IO: up to (read) or exactly (write) @len bytes at @offset; bytes or -errno. */
LIO_API int64_t lio_pread(struct lio_file *file, void *buf, size_t len, uint64_t offset);
LIO_API int64_t lio_pwrite(struct lio_file *file, const void *buf, size_t len, uint64_t offset);
LIO_API int64_t lio_size(struct lio_file *file); /* bytes, or -ESPIPE */
LIO_API int lio_sync(struct lio_file *file);
LIO_API int lio_truncate(struct lio_file *file, uint64_t size);

/* ---- paths of a server: "lio://HOST[:PORT]/EXPORT/PATH"; the C library has the same for local ones ---- */

enum lio_type {
	LIO_TYPE_FILE = 1,
	LIO_TYPE_DIRECTORY,
	LIO_TYPE_SYMLINK,
	LIO_TYPE_OTHER /* device, FIFO, socket: cannot be opened */
};
struct lio_stat {
	size_t size; /* sizeof(struct lio_stat), set by the caller */
	enum lio_type type;
	uint64_t bytes, inode;
	int64_t mtime, ctime; /* seconds since 1970 */
	uint32_t mtime_ns, ctime_ns;
	uint32_t mode, links; /* permission bits */
	uint32_t uid, gid;    /* as the server numbers them */
	bool writable;        /* the export allows it */
};
struct lio_entry {
	size_t size; /* of this struct */
	const char *name;
	enum lio_type type;
	uint64_t bytes;
	int64_t mtime;
};
/* Does not follow a final symlink. */
LIO_API int lio_stat(const char *url, struct lio_stat *out);
/* What is in a directory, in no order; of "lio://HOST" its exports.  An @entry() that returns not 0 ends it with that. */
LIO_API int lio_list(const char *url, int (*entry)(void *arg, const struct lio_entry *e),
		     void *arg);
LIO_API int lio_remove(const char *url); /* a file, or an empty directory */
/* Within one export; replaces a file. */
LIO_API int lio_rename(const char *from, const char *to);
LIO_API int lio_mkdir(const char *url, mode_t mode);

/* Whole information page @page of the server "HOST[:PORT]" (docs/lambda-commands.md); *out is malloc'd; its bytes. */
LIO_API int64_t lio_server_page(const char *where, unsigned page, void **out);
struct lio_function;
/* Send a function ahead of its first run. */
LIO_API int lio_server_load(const char *where, const struct lio_function *fn);

/* ---- functions ---- */

/*
 * Load a function: an object file's path (has a '/' or ends in ".o"), or the name of one that is shipped.
 * Verified at once.  -ENOENT; -ENOEXEC: not a λ-function; -EINVAL: refused by the verifier.
 */
LIO_API int lio_load(const char *name_or_path, struct lio_function **out);
LIO_API int lio_load_mem(const void *image, size_t len, struct lio_function **out);
LIO_API void lio_unload(struct lio_function *fn);

enum lio_kind {
	LIO_KIND_MAP,
	LIO_KIND_SCAN,
	LIO_KIND_FOLD
};
enum lio_record {
	LIO_RECORD_ANY,
	LIO_RECORD_FIXED,
	LIO_RECORD_DELIM
};

struct lio_function_info {
	size_t size; /* sizeof(struct lio_function_info), set by the caller */
	const char *name, *doc, *output, *args; /* as declared; live as long as the function */
	enum lio_kind kind;
	enum lio_record record;
	uint32_t record_value; /* bytes, or the delimiter */
	bool parallel;         /* pieces may run anywhere: a map, or a fold with a merge */
	uint64_t state_bytes, heap_bytes;
	uint32_t insns;
	uint32_t stack_bytes;
};
LIO_API int lio_function_info(const struct lio_function *fn, struct lio_function_info *info);

/* Directory of the shipped functions' objects ("" if there is none); $LIO_FUNCTIONS comes first. */
LIO_API const char *lio_functions_dir(void);

/*
 * Pack arguments for @fn: each NAME=VALUE, or VALUE (the next declared one); @FILE reads a file.
 * *out is malloc'd, the caller frees it; NULL with *len 0 where there is none.  -EINVAL names the argument.
 */
LIO_API int lio_args(const struct lio_function *fn, const char *const *args, size_t n, void **out,
		     size_t *len);

/* ---- running ---- */

struct lio_run_opts {
	size_t size; /* sizeof(struct lio_run_opts) */
	enum lio_engine engine;
	enum lio_tier tier;
	enum lio_io io;
	enum lio_decompress decompress;
	uint64_t chunk;   /* bytes a piece */
	unsigned threads; /* 0: all cores this process may use */
	/* arguments as lio_args() packs them; NULL: all defaults, an error if one has none */
	const void *arg;
	size_t arg_len;
	/* budgets, 0: defaults (docs/budgets.md) */
	uint64_t fuel;
	uint64_t memory;
	uint64_t max_output;
	uint64_t timeout_ns;
	/* Nonzero, set by any thread: the run ends soon with -ECANCELED */
	const int *cancel;
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* total 0: unknown */
	void (*trace)(void *arg, const char *text, size_t len);     /* lambda_trace(); any thread */
	void *hook_arg;
};

struct lio_result {
	size_t size;            /* sizeof(struct lio_result), set by the caller */
	uint64_t bytes_in;      /* given to the function */
	uint64_t bytes_out;     /* returned by it */
	uint64_t bytes_written; /* λ-write: reached the file, also when it failed */
	uint64_t trailing;      /* bytes of an incomplete last record that were not passed in */
	uint64_t io_ns, run_ns, wall_ns, compile_ns; /* io and run are summed over threads */
	uint64_t fuel;
	uint64_t calls, reruns;
	unsigned threads;
	enum lio_engine engine;
	enum lio_tier tier;
	const char *io;        /* "mmap", "pread", "gzip", "zstd", "stream" */
	char why[256];         /* why this engine, tier and way in */
	uint64_t error_offset; /* in the file, of what failed; UINT64_MAX if it has none */
	uint64_t queue_ns;     /* device engine: waited for its turn at the server */
	/*
	 * AUTO may take up a better tier while it runs (docs/llvm-tier.md): @tier ran last, @tier_first first, namely on
	 * @switch_bytes of input (all of it where they are the same), and @tier_why is why, "" for other tiers.
	 */
	enum lio_tier tier_first;
	uint64_t switch_bytes;
	char tier_why[256];
};

/*
 * λ-read: run @fn over [@offset, @offset + @length) of @file (LIO_TO_END: all the rest); its output, at most
 * @cap bytes, goes to @buf.  @opts and @result may be NULL.  Returns bytes, or -errno: -ENOSPC if @cap is too small (nothing of @buf is then meaningful),
 * and all of contract 2 (docs/errors.md).
 */
LIO_API int64_t lio_lambda_read(struct lio_file *file, const struct lio_function *fn,
				uint64_t offset, uint64_t length, const struct lio_run_opts *opts,
				void *buf, size_t cap, struct lio_result *result);

/*
 * The same with output of any length: it is staged (memory, then an unlinked file in $TMPDIR) and given
 * to @write in order, all of it after the run succeeded.  A sink with @stream set gets pieces as they come,
 * and a later error may follow partial output.
 */
struct lio_sink {
	size_t size;                                        /* sizeof(struct lio_sink) */
	int (*write)(void *arg, const void *p, size_t len); /* 0 or -errno, which ends the run */
	void *arg;
	bool stream; /* do not stage: output may be partial on an error */
};
LIO_API int lio_lambda_scan(struct lio_file *file, const struct lio_function *fn, uint64_t offset,
			    uint64_t length, const struct lio_run_opts *opts,
			    const struct lio_sink *sink, struct lio_result *result);

/*
 * λ-write: run @fn (a map or a scan) over [@offset, @offset + @length) of @input and write its output to @file at
 * @at, staged first, so that a function that fails leaves the file untouched.  Never truncates.  A failing
 * store reports how far it came in @result->bytes_written.
 */
LIO_API int lio_lambda_write(struct lio_file *file, uint64_t at, const struct lio_function *fn,
			     struct lio_file *input, uint64_t offset, uint64_t length,
			     const struct lio_run_opts *opts, struct lio_result *result);
/* The same with input from memory. */
LIO_API int lio_lambda_write_mem(struct lio_file *file, uint64_t at, const struct lio_function *fn,
				 const void *input, size_t len, const struct lio_run_opts *opts,
				 struct lio_result *result);

/* ---- what this machine can do ---- */

struct lio_feature {
	const char *name; /* "user engine", "template tier", … */
	bool available;
	const char *missing; /* what is missing, or "" */
};
/* Row @i, 0 up; -ENOENT past the last. */
LIO_API int lio_feature(unsigned int i, struct lio_feature *out);

#ifdef __cplusplus
}
#endif

#endif /* LAMBDAIO_LAMBDAIO_H */
