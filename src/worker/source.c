/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.c - where a job's bytes come from: a descriptor as a whole or by segments, or a stream that the
 * controller passes on; and the content of either, decompressed.
 *
 * Every read passes the gate first: between pieces a function waits for its turn.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "content/content.h"
#include "worker/worker.h"

static struct worker_source *source_of(struct lambda_source *src)
{
	return (struct worker_source *)src;
}

static int source_fail(struct worker_source *s, int code, uint64_t offset, const char *text)
{
	if (atomic_flag_test_and_set(&s->failing))
		return code;
	lambda_fail(&s->fail, code, "%s", text);
	s->fail.offset = offset;
	return code;
}

static int outside(struct worker_source *s, uint64_t offset)
{
	return source_fail(s, -EIO, offset,
			   "the function's records reach beyond the extents of the request; ask "
			   "for a range of whole records, or send more extents");
}

/* ---- positional ---- */

/* The segment in which @off lies; it lies in one. */
static uint32_t segment_at(const struct worker_source *s, uint64_t off)
{
	uint32_t low = 0, high = s->n_segments;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (s->starts[mid] <= off)
			low = mid;
		else
			high = mid;
	}
	return low;
}

static int64_t fd_read(int fd, void *buf, size_t len, uint64_t off)
{
	ssize_t n;

	do {
		n = pread(fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* From one segment; fewer than its rest only where the file is shorter than its segments say. */
static int64_t segment_read(struct worker_source *s, void *buf, size_t len, uint64_t off)
{
	uint32_t i = segment_at(s, off);
	uint64_t skip = off - s->starts[i], left = s->segments[i].length - skip;

	len = left < len ? left : len;
	if (s->segments[i].at == WORKER_HOLE) {
		memset(buf, 0, len);
		return (int64_t)len;
	}
	return fd_read(s->fd, buf, len, s->segments[i].at + skip);
}

/* As much as there is: cutting records reads little at a time and must not ask twice. */
static int64_t segments_read(struct worker_source *s, uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t have = 0;

	if (off < s->run->job.base)
		return outside(s, off);
	while (have < len && off + have < s->run->job.size) {
		int64_t n = segment_read(s, buf + have, len - have, off + have);

		if (n < 0)
			return n;
		if (!n)
			break;
		have += (uint64_t)n;
	}
	return (int64_t)have;
}

static int64_t positional_read(struct worker_source *s, void *buf, size_t len, uint64_t off)
{
	uint64_t size = s->run->job.size;

	if (off >= size)
		return 0;
	if (s->starts)
		return segments_read(s, buf, len, off);
	if (len > size - off)
		len = size - off;
	return fd_read(s->fd, buf, len, off);
}

static int64_t random_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct worker_source *s = source_of(src);
	int rc = worker_gate(s->run);

	return rc ? rc : positional_read(s, buf, len, off);
}

/* Only what lies in one segment, at the same place in its page, can be mapped. */
static int place_of(const struct worker_source *s, uint64_t off, uint64_t len, uint64_t *at)
{
	const struct worker_segment *seg;
	uint32_t i;

	*at = off;
	if (!s->starts)
		return 0;
	if (off < s->run->job.base)
		return -EOPNOTSUPP;
	i = segment_at(s, off);
	seg = &s->segments[i];
	if (seg->at == WORKER_HOLE || len > s->starts[i + 1] - off)
		return -EOPNOTSUPP;
	*at = seg->at + (off - s->starts[i]);
	return *at % SBPF_PAGE ? -EOPNOTSUPP : 0;
}

static int random_map(struct lambda_source *src, struct sbpf_sandbox *sb, uint64_t off,
		      uint64_t len)
{
	struct worker_source *s = source_of(src);
	uint64_t at;
	int rc = worker_gate(s->run);

	if (!rc)
		rc = place_of(s, off, len, &at);
	if (!rc)
		rc = sbpf_sandbox_map(sb, s->fd, at, len);
	/* What its file system does not map is read. */
	if (rc == -ENODEV || rc == -EACCES || rc == -EINVAL || rc == -EPERM)
		rc = -EOPNOTSUPP;
	return rc;
}

/* ---- in order ---- */

static int64_t next_bytes(struct worker_source *s, void *buf, size_t len)
{
	int64_t n;

	if (s->peek_at < s->peek_len) {
		n = s->peek_len - s->peek_at < len ? s->peek_len - s->peek_at : (int64_t)len;
		memcpy(buf, s->peek + s->peek_at, (size_t)n);
		s->peek_at += (uint32_t)n;
		return n;
	}
	n = s->stream ? worker_input(s->run, buf, len) : positional_read(s, buf, len, s->pos);
	s->pos += n > 0 ? (uint64_t)n : 0;
	return n;
}

static int64_t stream_fail(struct worker_source *s, int64_t code)
{
	if (code == -ETIME)
		source_fail(s, -ETIME, s->pos,
			    "no data within the time limit; feed it faster or raise the limit");
	if (code == -ECANCELED)
		source_fail(s, -ECANCELED, s->pos,
			    "cancelled while waiting for data; run it again");
	return code;
}

static int64_t stream_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct worker_source *s = source_of(src);
	int64_t n = worker_gate(s->run);

	if (!n)
		n = next_bytes(s, buf, len);
	return n < 0 ? stream_fail(s, n) : n;
}

static int64_t decoded_read(struct lambda_source *src, void *buf, size_t len, uint64_t off)
{
	struct worker_source *s = source_of(src);
	int64_t n = worker_gate(s->run);

	if (!n)
		n = decoder_read(s->decoder, buf, len);
	return n < 0 ? stream_fail(s, n) : n;
}

static const struct lambda_source_ops mapped_ops = {
	.name = "mmap", .read = random_read, .map = random_map};
static const struct lambda_source_ops stream_ops = {
	.name = "stream", .sequential = true, .read = stream_read};
static const struct lambda_source_ops gzip_ops = {
	.name = "gzip", .sequential = true, .read = decoded_read};
static const struct lambda_source_ops zstd_ops = {
	.name = "zstd", .sequential = true, .read = decoded_read};

/* ---- compressed content ---- */

static struct worker_source *source_of_feed(struct content_feed *feed)
{
	return (struct worker_source *)((char *)feed - offsetof(struct worker_source, feed));
}

static int64_t feed_read(struct content_feed *feed, void *buf, size_t len)
{
	return next_bytes(source_of_feed(feed), buf, len);
}

static int feed_fail(struct content_feed *feed, int code, uint64_t offset, const char *text)
{
	return source_fail(source_of_feed(feed), code, offset, text);
}

/* Look at the first bytes; of a stream they are kept. */
static int probe(struct worker_source *s, enum codec *codec)
{
	*codec = CODEC_NONE;
	if (s->run->job.base)
		return 0;
	while (s->peek_len < sizeof(s->peek)) {
		uint8_t *at = s->peek + s->peek_len;
		size_t len = sizeof(s->peek) - s->peek_len;
		int64_t n = s->stream ? worker_input(s->run, at, len)
				      : positional_read(s, at, len, s->peek_len);

		if (n < 0)
			return (int)stream_fail(s, n);
		if (!n)
			break;
		s->peek_len += (uint32_t)n;
	}
	*codec = codec_of(s->peek, s->peek_len);
	if (s->stream)
		s->pos = s->peek_len;
	else
		s->peek_len = 0;
	return 0;
}

static int decode(struct worker_source *s, enum codec codec)
{
	s->feed = (struct content_feed){.name = "input", .read = feed_read, .fail = feed_fail};
	s->src.ops = codec == CODEC_GZIP ? &gzip_ops : &zstd_ops;
	s->src.size = 0;
	return decoder_open(&s->feed, codec, &s->decoder);
}

/* ---- life ---- */

/* The controller's numbers were checked there; a sum that does not fit them would be memory outside. */
static int open_segments(struct worker_source *s)
{
	const struct worker_command *job = &s->run->job;
	const struct worker_areas *areas = s->run->areas;
	uint64_t at = ((uint64_t)job->arg_len + 15) & ~15ull, end = job->base;

	s->n_segments = job->n_segments;
	if (at > areas->payload_bytes ||
	    s->n_segments > (areas->payload_bytes - at) / sizeof(*s->segments))
		return -EPROTO;
	s->segments = (const struct worker_segment *)(areas->payload + at);
	s->starts = malloc((s->n_segments + 1ull) * sizeof(*s->starts));
	if (!s->starts)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n_segments; i++) {
		s->starts[i] = end;
		end += s->segments[i].length;
	}
	s->starts[s->n_segments] = end;
	return end == s->src.size ? 0 : -EPROTO;
}

int worker_source_open(struct worker_source *s, struct worker_run *run, int fd)
{
	enum codec codec = CODEC_NONE;
	int rc = 0;

	*s = (struct worker_source){.run = run, .fd = fd};
	atomic_flag_clear(&s->failing);
	s->stream = !(run->job.flags & (WORKER_SOURCE | WORKER_SEGMENTED));
	s->src.ops = s->stream ? &stream_ops : &mapped_ops;
	s->src.size = s->stream ? 0 : run->job.size;
	if (run->job.flags & WORKER_SEGMENTED)
		rc = open_segments(s);
	if (!rc && run->job.flags & WORKER_DECOMPRESS)
		rc = probe(s, &codec);
	if (!rc && codec != CODEC_NONE)
		rc = decode(s, codec);
	if (rc)
		source_fail(s, rc, UINT64_MAX, "the source cannot be read; send the request again");
	return rc;
}

/*
 * The page in which a truncated file now ends reads zeros from there on where it was mapped, silently.  So what was
 * mapped must still be there.  The last byte tells: nothing else may ask for a file's size here.
 */
int worker_source_check(struct worker_source *s, uint64_t offset, uint64_t length)
{
	uint64_t end = s->src.size;
	uint8_t byte;
	int64_t n;

	if (length < end && offset < end - length)
		end = offset + length;
	if (!end || end <= s->run->job.base)
		return 0;
	n = positional_read(s, &byte, 1, end - 1);
	if (n == 1)
		return 0;
	return source_fail(s, n < 0 ? (int)n : -EIO, UINT64_MAX,
			   "truncated while it was read; run it again");
}

void worker_source_close(struct worker_source *s)
{
	decoder_close(s->decoder);
	free(s->starts);
}
