/* SPDX-License-Identifier: Apache-2.0 */
/*
 * input.c - what a function reads: sources over a file's pages, a stream, memory, or the content of
 * either decompressed.
 *
 * Which one it is follows from the file's kind and first bytes, never from its name.  Sources are called on
 * an engine's threads, so their failures go to the input, not to the calling thread's error.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"

/* How long a wait for a stream goes on before a cancel is looked for. */
#define CANCEL_POLL_MS 20

int input_fail(struct input *in, int code, uint64_t offset, const char *fmt, ...)
{
	char text[sizeof(in->fail.text)];
	va_list ap;

	if (atomic_flag_test_and_set(&in->failing))
		return code;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lambda_fail(&in->fail, code, "%s", text);
	in->fail.offset = offset;
	return code;
}

static struct input *input_of(struct lambda_source *src)
{
	return (struct input *)src;
}

static int read_fail(struct input *in, int code, uint64_t offset)
{
	const char *fix = code == -EIO
				  ? "see the kernel's log, the medium or its connection may fail"
				  : "try another program on it";

	if (in->file->ops->explains)
		return input_fail(in, code, offset, "%s", host_error()->text);
	return input_fail(in, code, offset, "%s: reading at byte %llu: %s; %s", in->file->name,
			  (unsigned long long)offset, strerror(-code), fix);
}

/* ---- random access ---- */

static int64_t random_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct input *in = input_of(src);
	int64_t n = file_pread(in->file, buf, len, off);

	return n < 0 ? read_fail(in, (int)n, off) : n;
}

static int random_map(struct lambda_source *src, struct sbpf_sandbox *sb, uint64_t off,
		      uint64_t len)
{
	struct input *in = input_of(src);
	int rc = sbpf_sandbox_map(sb, in->file->fd, off, len);

	/* A file system that maps nothing is read instead, unless the caller insists. */
	if (rc != -ENODEV && rc != -EACCES && rc != -EINVAL && rc != -EOPNOTSUPP)
		return rc;
	if (!in->io_forced)
		return -EOPNOTSUPP;
	return input_fail(in, -ENODEV, off, "%s: its file system maps no files; use io pread",
			  in->file->name);
}

static int64_t memory_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	if (off >= src->size)
		return 0;
	if (len > src->size - off)
		len = src->size - off;
	memcpy(buf, input_of(src)->mem + off, len);
	return (int64_t)len;
}

static const struct lambda_source_ops mapped_ops = {
	.name = "mmap", .read = random_read, .map = random_map};
static const struct lambda_source_ops pread_ops = {.name = "pread", .read = random_read};
static const struct lambda_source_ops memory_ops = {.name = "memory", .read = memory_read};

/* ---- in order ---- */

/* Until there is something to read, the caller gives up, or the time is over. */
static int stream_wait(const struct stream *s)
{
	struct pollfd fd = {.fd = s->file->fd, .events = POLLIN};

	for (;;) {
		uint64_t now = s->deadline_ns ? host_now() : 0, left;
		int ms = s->cancel ? CANCEL_POLL_MS : -1, n;

		if (s->cancel && __atomic_load_n(s->cancel, __ATOMIC_RELAXED))
			return -ECANCELED;
		if (s->deadline_ns) {
			if (now >= s->deadline_ns)
				return -ETIME;
			left = (s->deadline_ns - now) / 1000000 + 1;
			if (ms < 0 || left < (uint64_t)ms)
				ms = left < INT32_MAX ? (int)left : INT32_MAX;
		}
		n = poll(&fd, 1, ms);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int64_t stream_read(struct stream *s, void *buf, size_t len)
{
	ssize_t n;
	int rc = 0;

	if (s->peek_at < s->peek_len) {
		n = s->peek_len - s->peek_at < len ? s->peek_len - s->peek_at : len;
		memcpy(buf, s->peek + s->peek_at, (size_t)n);
		s->peek_at += (uint32_t)n;
		return n;
	}
	if (s->positional) {
		n = file_pread(s->file, buf, len, s->pos);
		s->pos += n > 0 ? (size_t)n : 0;
		return n;
	}
	do {
		if (s->limited)
			rc = stream_wait(s);
		if (rc)
			return rc;
		n = read(s->file->fd, buf, len);
		if (n < 0 && errno == EAGAIN) /* somebody made it non-blocking */
			rc = stream_wait(s);
	} while (!rc && n < 0 && (errno == EINTR || errno == EAGAIN));
	if (rc)
		return rc;
	s->pos += n > 0 ? (size_t)n : 0;
	return n < 0 ? -errno : n;
}

static int stream_fail(struct input *in, int code)
{
	uint64_t at = in->stream.pos;

	if (code == -ETIME)
		return input_fail(
			in, code, at,
			"%s: no data within the time limit; feed it faster or raise the limit",
			in->file->name);
	if (code == -ECANCELED)
		return input_fail(in, code, at,
				  "%s: cancelled while waiting for data; run it again",
				  in->file->name);
	return read_fail(in, code, at);
}

static int64_t in_order_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct input *in = input_of(src);
	int64_t n = stream_read(&in->stream, buf, len);

	return n < 0 ? stream_fail(in, (int)n) : n;
}

static int64_t decoded_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct input *in = input_of(src);
	int64_t n = decoder_read(in->decoder, buf, len);

	/* Without a text of its own the decoder passes on what its stream said. */
	return n < 0 ? stream_fail(in, (int)n) : n;
}

static const struct lambda_source_ops stream_ops = {
	.name = "stream", .sequential = true, .read = in_order_read};
static const struct lambda_source_ops gzip_ops = {
	.name = "gzip", .sequential = true, .read = decoded_read};
static const struct lambda_source_ops zstd_ops = {
	.name = "zstd", .sequential = true, .read = decoded_read};

/* ---- which one ---- */

static int stream_claim(struct input *in)
{
	struct lio_file *file = in->file;
	int rc = 0;

	pthread_mutex_lock(&file->lock);
	if (file->pos)
		rc = host_fail(-ESPIPE, "%s: this stream was read before; open it again",
			       file->name);
	else
		file->pos = FILE_CLAIMED;
	pthread_mutex_unlock(&file->lock);
	return rc;
}

static enum codec stream_codec(struct input *in, int *rc)
{
	struct stream *s = &in->stream;
	uint8_t magic[sizeof(s->peek)];
	uint32_t have = 0;

	while (have < sizeof(magic)) {
		int64_t n = stream_read(s, magic + have, sizeof(magic) - have);

		if (n < 0) {
			*rc = stream_fail(in, (int)n);
			break;
		}
		if (!n)
			break;
		have += (uint32_t)n;
	}
	memcpy(s->peek, magic, have);
	s->peek_at = 0;
	s->peek_len = have;
	return codec_of(magic, have);
}

/* Look at the start of a regular file, or remember it for one that has not changed since. */
static int file_probe(struct lio_file *file, uint64_t size, const struct timespec *mtime,
		      enum codec *codec, bool *sizeless)
{
	uint8_t magic[4];
	int64_t n = 0;

	/* A server's file has no mtime here; and reading it takes the lock. */
	if (file->kind == FILE_REMOTE) {
		n = file_pread(file, magic, sizeof(magic), 0);
		*codec = n > 0 ? codec_of(magic, (size_t)n) : CODEC_NONE;
		*sizeless = false;
		return n < 0 ? (int)n : 0;
	}
	pthread_mutex_lock(&file->lock);
	if (!file->probed || file->probed_size != size ||
	    file->probed_mtime.tv_sec != mtime->tv_sec ||
	    file->probed_mtime.tv_nsec != mtime->tv_nsec) {
		n = file_pread(file, magic, sizeof(magic), 0);
		file->probed = n >= 0;
		file->codec = n > 0 ? codec_of(magic, (size_t)n) : CODEC_NONE;
		file->sizeless = !size && n > 0;
		file->probed_size = size;
		file->probed_mtime = *mtime;
	}
	*codec = file->codec;
	*sizeless = file->sizeless;
	pthread_mutex_unlock(&file->lock);
	return n < 0 ? (int)n : 0;
}

static struct input *input_of_feed(struct content_feed *feed)
{
	return (struct input *)((char *)feed - offsetof(struct input, feed));
}

static int64_t feed_read(struct content_feed *feed, void *buf, size_t len)
{
	return stream_read(&input_of_feed(feed)->stream, buf, len);
}

static int feed_fail(struct content_feed *feed, int code, uint64_t offset, const char *text)
{
	return input_fail(input_of_feed(feed), code, offset, "%s", text);
}

static int decode(struct input *in, enum codec codec)
{
	in->feed =
		(struct content_feed){.name = in->file->name, .read = feed_read, .fail = feed_fail};
	in->src.ops = codec == CODEC_GZIP ? &gzip_ops : &zstd_ops;
	return decoder_open(&in->feed, codec, &in->decoder);
}

static int open_stream(struct input *in, bool decompress)
{
	enum codec codec = CODEC_NONE;
	int rc = stream_claim(in);

	if (rc)
		return rc;
	in->src.ops = &stream_ops;
	if (decompress)
		codec = stream_codec(in, &rc);
	if (rc || codec == CODEC_NONE)
		return rc;
	return decode(in, codec);
}

static int open_random(struct input *in, bool decompress, enum lio_io io)
{
	struct lio_file *file = in->file;
	enum codec codec = CODEC_NONE;
	bool sizeless = false;
	struct timespec mtime = {0};
	struct stat st;
	int64_t size;
	int rc = 0;

	if (file->kind == FILE_REGULAR && !fstat(file->fd, &st)) {
		size = st.st_size;
		mtime = st.st_mtim;
	} else {
		size = file_size(file);
	}
	if (size < 0)
		return read_fail(in, (int)size, 0);
	if (decompress || !size)
		rc = file_probe(file, (uint64_t)size, &mtime, &codec, &sizeless);
	if (rc)
		return read_fail(in, rc, 0);
	in->stream.positional = true;
	if (decompress && codec != CODEC_NONE)
		return decode(in, codec);
	in->src.size = (uint64_t)size;
	if (sizeless)
		in->src.ops = &stream_ops;
	else if (file->flags & O_DIRECT || file->kind != FILE_REGULAR || io == LIO_IO_PREAD)
		in->src.ops = &pread_ops;
	else
		in->src.ops = &mapped_ops;
	return 0;
}

int input_open(struct input *in, struct lio_file *file, const struct lio_run_opts *opts,
	       uint64_t deadline_ns)
{
	bool decompress = opts->decompress == LIO_DECOMPRESS_AUTO;
	int rc;

	in->file = file;
	in->decoder = NULL;
	in->io_forced = opts->io == LIO_IO_MMAP;
	in->fail.code = 0;
	in->src.size = 0;
	in->src.map_forced = in->io_forced;
	atomic_flag_clear(&in->failing);
	in->stream = (struct stream){.file = file,
				     .cancel = opts->cancel,
				     .deadline_ns = deadline_ns,
				     .limited = opts->cancel || deadline_ns};
	if (!file_readable(file))
		return host_fail(-EBADF,
				 "%s: not open for reading; open it with O_RDONLY or O_RDWR",
				 file->name);
	rc = file->kind == FILE_STREAM ? open_stream(in, decompress)
				       : open_random(in, decompress, opts->io);
	if (!rc && in->io_forced && !in->src.ops->map)
		rc = host_fail(-EOPNOTSUPP,
			       "%s: io mmap needs a plain regular file; leave the choice to auto",
			       file->name);
	if (rc && in->fail.code)
		*host_error() = in->fail;
	if (rc)
		input_close(in);
	return rc;
}

void input_open_mem(struct input *in, const void *mem, size_t len)
{
	*in = (struct input){.src = {.ops = &memory_ops, .size = len}, .mem = mem};
	atomic_flag_clear(&in->failing);
}

int host_open_here(struct host_run *run)
{
	enum sbpf_tier tier = (enum sbpf_tier)run->opts.tier;
	const char *missing = tier ? sbpf_tier_missing(tier) : NULL;

	if (missing)
		return host_fail(-EOPNOTSUPP, "tier %s: %s; use tier auto", sbpf_tier_name(tier),
				 missing);
	if (run->file)
		return input_open(&run->in, run->file, &run->opts, run->req.deadline_ns);
	input_open_mem(&run->in, run->mem, run->mem_len);
	return 0;
}

void input_close(struct input *in)
{
	decoder_close(in->decoder);
	in->decoder = NULL;
}
