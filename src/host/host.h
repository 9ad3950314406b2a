/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.h - what the host library's modules share; nothing outside src/host includes it.
 *
 * A request goes one way: request.c checks options and arguments → dispatch.c chooses an engine → input.c makes
 * a source of the file (random access, a stream, or what src/content makes of either) → the engine runs it →
 * its output goes to the caller's buffer, or is staged (stage.c) and then given on or stored.  The device engine
 * leaves the middle of that to the file's server.
 */
#ifndef LIO_HOST_H
#define LIO_HOST_H

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "content/content.h"
#include "lambda/lambda.h"
#include "lambdaio/lambdaio.h"

/* ---- errors (error.c) ---- */

/* This thread's last failure, which lio_error() returns. */
struct lambda_error *host_error(void);
/* Make a failure's text, return its code. */
#define host_fail(code, ...) lambda_fail(host_error(), (code), __VA_ARGS__)

/* CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t host_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- files (file.c) ---- */

enum file_kind {
	FILE_REGULAR,
	FILE_BLOCK,
	FILE_STREAM, /* pipe, socket, terminal, …: in order, once */
	FILE_REMOTE  /* of a server: remote.h */
};

/* What can be done with an open file of some kind, whatever that is. */
struct file_ops {
	bool explains; /* failures have their text in host_error(), else they are codes only */
	/* Up to @len bytes, fewer only at the end. */
	int64_t (*pread)(struct lio_file *file, void *buf, size_t len, uint64_t offset);
	/* All @len bytes; *done grows by what was stored. */
	int (*pwrite)(struct lio_file *file, const void *buf, size_t len, uint64_t offset,
		      uint64_t *done);
	int64_t (*size)(struct lio_file *file);
	int (*sync)(struct lio_file *file);
	int (*truncate)(struct lio_file *file, uint64_t size);
	int (*close)(struct lio_file *file);
};
extern const struct file_ops file_remote_ops; /* remote_file.c */

struct remote_file;

struct lio_file {
	const struct file_ops *ops;
	struct remote_file *remote; /* of FILE_REMOTE, which has no descriptors */
	int fd;
	int buffered; /* of an O_DIRECT file: for stores that are not aligned; -1 until the first */
	int flags;    /* as it was opened */
	enum file_kind kind;
	char *name; /* for messages */

	pthread_mutex_t lock; /* guards what follows, and buffered */
	uint64_t pos;         /* of a stream: bytes taken; FILE_CLAIMED once a function read it */
	/* What was found at the start of a regular file when it had this size and this mtime */
	bool probed;
	enum codec codec;
	bool sizeless; /* size 0 but not empty, as files in /proc are */
	uint64_t probed_size;
	struct timespec probed_mtime;
};
#define FILE_CLAIMED UINT64_MAX

/* O_DIRECT wants buffers, offsets and lengths in multiples of the logical block, 4096 at most in practice. */
#define DIRECT_ALIGN 4096u

static inline bool file_readable(const struct lio_file *file)
{
	return (file->flags & O_ACCMODE) != O_WRONLY;
}

/* The operation, or -errno; without text but where the kind of file explains its failures. */
static inline int64_t file_pread(struct lio_file *file, void *buf, size_t len, uint64_t offset)
{
	return file->ops->pread(file, buf, len, offset);
}
static inline int file_pwrite(struct lio_file *file, const void *buf, size_t len, uint64_t offset,
			      uint64_t *done)
{
	return file->ops->pwrite(file, buf, len, offset, done);
}
static inline int64_t file_size(struct lio_file *file)
{
	return file->ops->size(file);
}

/* write(2) and pwrite(2) kill a process at its file size limit; these two make that an error. */
struct file_limit {
	sigset_t old;
	bool pending;
};
void file_limit_enter(struct file_limit *lim);
void file_limit_leave(struct file_limit *lim);

/* ---- sources (input.c) ---- */

/* A file's bytes in order. */
struct stream {
	struct lio_file *file;
	bool positional; /* pread at pos: other readers of the file do not disturb it */
	uint64_t pos;
	uint8_t peek[4]; /* looked at already, to be given first */
	uint32_t peek_at, peek_len;
	const int *cancel; /* what ends a wait for more */
	uint64_t deadline_ns;
	bool limited; /* by a cancel or a deadline */
};
/* Up to @len bytes, 0 at the end, or -errno without text. */
int64_t stream_read(struct stream *s, void *buf, size_t len);

struct input {
	struct lambda_source src; /* first: this is what the engine sees */
	struct lio_file *file;    /* NULL: memory */
	const uint8_t *mem;
	struct stream stream;
	struct content_feed feed; /* of the decoder: the stream */
	struct decoder *decoder;  /* owned */
	bool io_forced;
	/* Sources run on an engine's threads; the first failure's text is kept here. */
	atomic_flag failing;
	struct lambda_error fail;
};

int input_open(struct input *in, struct lio_file *file, const struct lio_run_opts *opts,
	       uint64_t deadline_ns);
void input_open_mem(struct input *in, const void *mem, size_t len);
void input_close(struct input *in);
/* Keep the text of the first failure; returns @code. */
int input_fail(struct input *in, int code, uint64_t offset, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- staging (stage.c) ---- */

#define STAGE_SMALL  4096u         /* kept in the struct itself */
#define STAGE_MEMORY (64ull << 20) /* bytes kept in memory; the rest goes to an unlinked file */

/* Output that nobody may see before the run succeeded. */
struct stage {
	uint8_t *mem; /* small or malloc'd */
	size_t len, cap;
	int fd; /* of the file for what came after the first STAGE_MEMORY bytes; -1 */
	uint64_t spilled;
	uint8_t small[STAGE_SMALL];
};
void stage_init(struct stage *st);
void stage_free(struct stage *st);
static inline uint64_t stage_bytes(const struct stage *st)
{
	return st->len + st->spilled;
}
/* 0, or -errno with text in @err. */
int stage_write(struct stage *st, const void *p, size_t len, struct lambda_error *err);
/* Give all of it, in order, to @take; ends at its first error, or with text in @err at one of the stage's own. */
int stage_replay(struct stage *st, int (*take)(void *arg, const void *p, size_t len), void *arg,
		 struct lambda_error *err);

/* ---- functions (function.c) ---- */

struct lio_function {
	struct lambda_function *fn; /* owned */
	uint8_t *image;             /* the object file, for servers; owned */
	size_t image_len;
	uint8_t hash[32];  /* SHA-256 of that */
	uint8_t *defaults; /* the arguments, all by default */
	size_t defaults_len;
	bool needs_args; /* one has no default */
};

/* ---- engines: one const table each (dispatch.c chooses) ---- */

/* One run, as an engine is asked for it. */
struct host_run {
	const struct lio_function *fn;
	struct lio_run_opts opts; /* complete, whatever size the caller's had */
	struct lambda_request req;
	struct lio_file *file; /* to be read; NULL: memory */
	const void *mem;
	size_t mem_len;
	struct input in; /* made by open(), closed by whoever called it */
	/* λ-write: an engine that stores() puts the output there itself, and nothing into the sink */
	struct lio_file *target;
	uint64_t at;
	struct lambda_sink *sink;
	/* Forget what the sink got: the run begins again.  False: somebody saw it. */
	bool (*restart)(struct host_run *run);
	/* results */
	struct lambda_report report;
	uint64_t queue_ns, written;
	const char *why; /* more of why this engine, or NULL */
};

struct host_engine {
	enum lio_engine id;
	const char *name;
	/* NULL, or one line saying what is missing here. */
	const char *(*missing)(void);
	/* Can it do that?  Makes @run->in of what is to be read; 0, or -errno with text and nothing to close. */
	int (*open)(struct host_run *run);
	/* Does it store a λ-write's output by itself? */
	bool (*stores)(const struct host_run *run);
	int (*run)(struct host_run *run, struct lambda_error *err);
};
extern const struct host_engine host_engine_user;
extern const struct host_engine host_engine_kernel;
extern const struct host_engine host_engine_device;

/* The engine that runs this, and one line of why; or -EOPNOTSUPP with text. */
int host_dispatch(const struct host_run *run, const struct host_engine **out, const char **why);
/* What an engine that runs here opens: a source of the file or of memory, and a tier that this machine has. */
int host_open_here(struct host_run *run);

#endif /* LIO_HOST_H */
