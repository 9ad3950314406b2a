/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decompress.c - gzip and zstd content as a stream of what was compressed.
 *
 * Known by its first bytes.  All members of a gzip file and all frames of a zstd file are read, one after
 * another; cut-short or damaged data is -EBADMSG with the place in the compressed file.  Memory is
 * bounded whatever the data says: 128 KiB, and zstd's window up to 1 << ZSTD_WINDOW_LOG_MAX.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "content/content.h"

#define FEED_BYTES (128u << 10)

struct decoder {
	struct content_feed *from;
	enum codec codec;
	uint64_t base; /* compressed bytes before feed[0] */
	size_t pos, len;
	bool eof;
	bool between; /* members or frames: here the file may end */
	z_stream z;
	ZSTD_DStream *zstd;
	uint8_t feed[FEED_BYTES];
};

/* gzip: RFC 1952, 2.3.1 (deflate is the only method, the flags' upper bits are zero).  zstd: RFC 8878, 3.1. */
enum codec codec_of(const uint8_t *magic, size_t len)
{
	uint32_t word;

	if (len < sizeof(word))
		return CODEC_NONE;
	memcpy(&word, magic, sizeof(word));
	if ((word & 0xe0ffffff) == 0x00088b1f)
		return CODEC_GZIP;
	/* The second is a frame to skip, with which parallel compressors begin. */
	if (word == ZSTD_MAGICNUMBER || (word & 0xfffffff0) == ZSTD_MAGIC_SKIPPABLE_START)
		return CODEC_ZSTD;
	return CODEC_NONE;
}

const char *codec_name(enum codec codec)
{
	static const char *const names[] = {"none", "gzip", "zstd"};

	return names[codec];
}

static __attribute__((format(printf, 4, 5))) int fail(struct content_feed *from, int code,
						      uint64_t at, const char *fmt, ...)
{
	char text[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return from->fail(from, code, at, text);
}

static int bad_data(struct decoder *dec, const char *why)
{
	uint64_t at = dec->base + dec->pos;

	return fail(dec->from, -EBADMSG, at,
		    "%s: %s data at compressed byte %llu: %s; get the file again, or read it as it "
		    "is with decompress none",
		    dec->from->name, codec_name(dec->codec), (unsigned long long)at, why);
}

static int no_memory(struct decoder *dec)
{
	return fail(dec->from, -ENOMEM, UINT64_MAX, "%s: no memory to decompress %s; free some",
		    dec->from->name, codec_name(dec->codec));
}

int decoder_open(struct content_feed *feed, enum codec codec, struct decoder **out)
{
	struct decoder *dec = malloc(sizeof(*dec));
	bool ok = false;

	if (dec) {
		memset(dec, 0, offsetof(struct decoder, feed));
		dec->from = feed;
		dec->codec = codec;
		dec->between = true;
		if (codec == CODEC_GZIP) {
			ok = inflateInit2(&dec->z, MAX_WBITS + 16) == Z_OK; /* + 16: gzip only */
		} else {
			dec->zstd = ZSTD_createDStream();
			ok = dec->zstd &&
			     !ZSTD_isError(ZSTD_DCtx_setParameter(dec->zstd, ZSTD_d_windowLogMax,
								  ZSTD_WINDOW_LOG_MAX));
		}
	}
	if (!ok) {
		decoder_close(dec);
		return fail(feed, -ENOMEM, UINT64_MAX, "%s: no memory to decompress %s; free some",
			    feed->name, codec_name(codec));
	}
	*out = dec;
	return 0;
}

void decoder_close(struct decoder *dec)
{
	if (!dec)
		return;
	if (dec->codec == CODEC_GZIP)
		inflateEnd(&dec->z);
	ZSTD_freeDStream(dec->zstd);
	free(dec);
}

/* More compressed bytes; 0 also at their end. */
static int refill(struct decoder *dec)
{
	int64_t n;

	if (dec->pos < dec->len || dec->eof)
		return 0;
	n = dec->from->read(dec->from, dec->feed, sizeof(dec->feed));
	if (n < 0)
		return (int)n;
	dec->base += dec->len;
	dec->pos = 0;
	dec->len = (size_t)n;
	dec->eof = !n;
	return 0;
}

/* Files on tapes and in images are padded with zeros; gzip(1) accepts that as well. */
static void skip_padding(struct decoder *dec)
{
	if (dec->base + dec->pos == 0)
		return;
	while (dec->pos < dec->len && !dec->feed[dec->pos])
		dec->pos++;
}

/* One step: 0, or -errno.  *got grows by what came out. */
static int gzip_step(struct decoder *dec, uint8_t *buf, size_t len, size_t *got)
{
	size_t room = len - *got < UINT_MAX ? len - *got : UINT_MAX;
	int rc;

	if (dec->between) {
		skip_padding(dec);
		if (dec->pos == dec->len)
			return 0;
		inflateReset(&dec->z);
		dec->between = false;
	}
	dec->z.next_in = dec->feed + dec->pos;
	dec->z.avail_in = (uInt)(dec->len - dec->pos);
	dec->z.next_out = buf + *got;
	dec->z.avail_out = (uInt)room;
	rc = inflate(&dec->z, Z_NO_FLUSH);
	dec->pos = dec->len - dec->z.avail_in;
	*got += room - dec->z.avail_out;
	if (rc == Z_STREAM_END)
		dec->between = true;
	if (rc == Z_OK || rc == Z_STREAM_END)
		return 0;
	if (rc == Z_BUF_ERROR) /* no progress: harmless unless there is nothing more to come */
		return dec->eof ? bad_data(dec, "the file ends too early") : 0;
	if (rc == Z_MEM_ERROR)
		return no_memory(dec);
	return bad_data(dec, dec->z.msg ? dec->z.msg : "not valid");
}

static int zstd_fail(struct decoder *dec, size_t code)
{
	switch ((int)ZSTD_getErrorCode(code)) {
	case ZSTD_error_memory_allocation:
		return no_memory(dec);
	case ZSTD_error_frameParameter_windowTooLarge:
		return fail(dec->from, -E2BIG, dec->base + dec->pos,
			    "%s: its zstd window is larger than %u MiB; compress it again without "
			    "--long or --ultra",
			    dec->from->name, 1u << (ZSTD_WINDOW_LOG_MAX - 20));
	default:
		return bad_data(dec, ZSTD_getErrorName(code));
	}
}

static int zstd_step(struct decoder *dec, uint8_t *buf, size_t len, size_t *got)
{
	ZSTD_inBuffer from = {dec->feed, dec->len, dec->pos};
	ZSTD_outBuffer to = {buf, len, *got};
	size_t rc;

	if (dec->between && dec->pos == dec->len)
		return 0;
	rc = ZSTD_decompressStream(dec->zstd, &to, &from);
	if (ZSTD_isError(rc))
		return zstd_fail(dec, rc);
	dec->between = rc == 0;
	if (rc && dec->eof && to.pos == *got && from.pos == dec->pos)
		return bad_data(dec, "the file ends too early");
	dec->pos = from.pos;
	*got = to.pos;
	return 0;
}

int64_t decoder_read(struct decoder *dec, void *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		int rc = refill(dec);

		if (!rc && dec->eof && dec->between)
			break;
		if (!rc)
			rc = dec->codec == CODEC_GZIP ? gzip_step(dec, buf, len, &got)
						      : zstd_step(dec, buf, len, &got);
		if (rc)
			return rc;
	}
	return (int64_t)got;
}
