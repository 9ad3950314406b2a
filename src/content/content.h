/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content.h - gzip and zstd content as a stream of what was compressed; for files here and in a server's worker.
 *
 * Owns: telling compressed content by its first bytes, decoding it, saying what is wrong with it.
 * Does not own: where the compressed bytes come from.
 */
#ifndef CONTENT_CONTENT_H
#define CONTENT_CONTENT_H

#include <stddef.h>
#include <stdint.h>

/* The largest zstd window that is accepted: what one decoder may allocate. */
#define ZSTD_WINDOW_LOG_MAX 27

enum codec {
	CODEC_NONE,
	CODEC_GZIP,
	CODEC_ZSTD
};

/* Where the compressed bytes come from; embed it. */
struct content_feed {
	const char *name; /* for messages */
	/* Up to @len of the next bytes, 0 at their end, -errno (which decoder_read() passes on). */
	int64_t (*read)(struct content_feed *feed, void *buf, size_t len);
	/* Keep the text of a failure at that compressed byte (UINT64_MAX: nowhere); returns @code. */
	int (*fail)(struct content_feed *feed, int code, uint64_t offset, const char *text);
};

struct decoder;

/* By the first bytes of the content. */
enum codec codec_of(const uint8_t *magic, size_t len);
const char *codec_name(enum codec codec);
int decoder_open(struct content_feed *feed, enum codec codec, struct decoder **out);
void decoder_close(struct decoder *dec);
/* The next bytes of the content, 0 at its end, or -errno. */
int64_t decoder_read(struct decoder *dec, void *buf, size_t len);

#endif /* CONTENT_CONTENT_H */
