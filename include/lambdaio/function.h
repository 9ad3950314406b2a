/* SPDX-License-Identifier: Apache-2.0 */
/*
 * function.h - everything a λ-function includes.
 *
 * A λ-function is one C file compiled to BPF bytecode (`lio cc F.c -o F.o`).  The object describes
 * itself: what it is called, the records it eats, its arguments and the type of its output stand in
 * sections of the object, so no tool keeps a table of functions.  The same object runs in the
 * user-space runtime, in a kernel and on a device; docs/functions.md is the guide.
 *
 * This header owns: the context structure, the entry macros, the self-description macros, reading
 * arguments and the declarations of the helpers.  It does not own argument parsing or output formatting (lambdaio.h).
 *
 * There is no C library here.  `lio cc` provides <errno.h>, <string.h>, <ctype.h>, <stdlib.h> and
 * <inttypes.h> as far as they make sense (include/lambdaio/libc); <stdint.h>, <stdbool.h>, <limits.h>
 * and the like are clang's own.
 */
#ifndef LAMBDAIO_FUNCTION_H
#define LAMBDAIO_FUNCTION_H

#include <stddef.h>

/*
 * Clang's own <stdint.h>.  A hosted one goes on to glibc's, which for BPF looks for parts that Debian
 * does not install; so that plain `clang -target bpf -I include` compiles this header as well.
 */
#if defined(__clang__) && defined(__bpf__) && __STDC_HOSTED__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wbuiltin-macro-redefined"
#pragma push_macro("__STDC_HOSTED__")
#undef __STDC_HOSTED__
#define __STDC_HOSTED__ 0
#include <stdint.h>
#pragma pop_macro("__STDC_HOSTED__")
#pragma clang diagnostic pop
#else
#include <stdint.h>
#endif

#ifdef __cplusplus
#error "a λ-function is C"
#endif

/* ctx->flags */
#define LAMBDA_FIRST 1u /* the request's first piece */
#define LAMBDA_LAST  2u /* the request's last piece */

/*
 * The context of one call.  Read-only, as are arguments and constants.  Pointers are 64-bit sandbox
 * offsets; the runtime turns an access outside the windows into an error of this call alone.
 * The layout is ABI: fields are only ever added at the end.
 */
struct lambda_ctx {
	uint8_t *in;        /* whole records; private to the call, may be scribbled on */
	uint64_t in_len;    /* bytes */
	uint8_t *out;       /* where output goes; zero before the call */
	uint64_t out_cap;   /* bytes */
	const uint8_t *arg; /* the arguments, all declared fields packed, little-endian */
	uint64_t arg_len;   /* bytes */
	uint8_t *heap;      /* LAMBDA_HEAP(bytes) of scratch, zero before each call */
	uint64_t heap_len;  /* bytes */
	uint64_t offset;    /* file offset of in[0] */
	uint64_t flags;     /* LAMBDA_FIRST, LAMBDA_LAST */
};

_Static_assert(sizeof(struct lambda_ctx) == 80, "struct lambda_ctx is ABI");

/* ---- self-description: kept in sections named .lambda.*, which the loader reads ---- */

#define LAMBDA_NOTE_(what, type, ...)                                                              \
	static const type lambda_note_##what##_ __attribute__((section(".lambda." #what), used)) = \
		__VA_ARGS__
#define LAMBDA_TEXT_(what, text)                  \
	static const char lambda_note_##what##_[] \
		__attribute__((section(".lambda." #what), used)) = text

struct lambda_record_note {
	uint32_t kind;  /* LAMBDA_RECORD_KIND_* */
	uint32_t value; /* the size in bytes, or the delimiter */
};
#define LAMBDA_RECORD_KIND_ANY   0u
#define LAMBDA_RECORD_KIND_FIXED 1u
#define LAMBDA_RECORD_KIND_DELIM 2u

/* One line of what the function does. */
#define LAMBDA_DOC(text) LAMBDA_TEXT_(doc, text)
/* Any cut of the input is fine (the default). */
#define LAMBDA_RECORD_ANY \
	LAMBDA_NOTE_(record, struct lambda_record_note, {LAMBDA_RECORD_KIND_ANY, 0})
/* Records of n bytes, counted from file offset 0. */
#define LAMBDA_RECORD_FIXED(n) \
	LAMBDA_NOTE_(record, struct lambda_record_note, {LAMBDA_RECORD_KIND_FIXED, (n)})
/* Records that end in the byte c; the last may lack it. */
#define LAMBDA_RECORD_DELIM(c) \
	LAMBDA_NOTE_(record, struct lambda_record_note, {LAMBDA_RECORD_KIND_DELIM, (uint8_t)(c)})
/* A row type ("max:i64 min:i64"), "text" or "bytes" (the default). */
#define LAMBDA_OUTPUT(schema) LAMBDA_TEXT_(output, schema)
/* The arguments, in the same little language with defaults ("pattern:text k:u32=10 q:i64[4]=0..3"). */
#define LAMBDA_ARGS(schema) LAMBDA_TEXT_(args, schema)
/* Bytes of zeroed scratch for each call. */
#define LAMBDA_HEAP(bytes) LAMBDA_NOTE_(heap, uint64_t, (bytes))

/* ---- entries; the function's name is the C name with each '_' shown as '-' ---- */

#define LAMBDA_ENTRY_(kind, name) \
	__attribute__((section("lambda/" #kind), used)) int64_t lambda_##kind##_##name
#define LAMBDA_STATE_(name, S)                       \
	static const uint64_t lambda_state_##name##_ \
		__attribute__((section(".lambda.state"), used)) = sizeof(S)

/* Records to output bytes.  In scope: ctx.  Returns bytes written to ctx->out, or -errno. */
#define LAMBDA_MAP(name) LAMBDA_ENTRY_(map, name)(struct lambda_ctx * ctx)
/* A map that carries a state from piece to piece, in file order.  In scope: ctx, st. */
#define LAMBDA_SCAN(name, S)    \
	LAMBDA_STATE_(name, S); \
	LAMBDA_ENTRY_(scan, name)(struct lambda_ctx * ctx, S * st)
/* Absorb ctx->in into *st, which is zero at first.  In scope: ctx, st.  Returns 0 or -errno. */
#define LAMBDA_FOLD(name, S)    \
	LAMBDA_STATE_(name, S); \
	LAMBDA_ENTRY_(fold, name)(struct lambda_ctx * ctx, S * st)
/* Absorb *other, which comes after *st in the file.  In scope: st, other.  Returns 0 or -errno. */
#define LAMBDA_MERGE(name, S) LAMBDA_ENTRY_(merge, name)(S * st, const S *other)
/* Write the result to ctx->out.  In scope: ctx, st.  Returns bytes written, or -errno. */
#define LAMBDA_FINISH(name, S) LAMBDA_ENTRY_(finish, name)(struct lambda_ctx * ctx, S * st)

/*
 * ---- reading: bytes at any address, arguments in their declared order ----
 *	const uint8_t *p = ctx->arg;
 *	uint32_t column = lambda_arg_u32(&p);
 *	struct lambda_text delimiter = lambda_arg_text(&p);
 */

#define LAMBDA_INLINE_ static inline __attribute__((always_inline, unused))
#define LAMBDA_LOAD_(name, T)                           \
	LAMBDA_INLINE_ T name(const void *p)            \
	{                                               \
		T value;                                \
                                                        \
		__builtin_memcpy(&value, p, sizeof(T)); \
		return value;                           \
	}
LAMBDA_LOAD_(lambda_load16, uint16_t)
LAMBDA_LOAD_(lambda_load32, uint32_t)
LAMBDA_LOAD_(lambda_load64, uint64_t)

LAMBDA_INLINE_ void lambda_store64(void *p, uint64_t value)
{
	__builtin_memcpy(p, &value, sizeof(value));
}

struct lambda_text {
	const uint8_t *p;
	uint64_t len;
};

LAMBDA_INLINE_ uint8_t lambda_arg_u8(const uint8_t **p)
{
	return *(*p)++;
}
LAMBDA_INLINE_ uint32_t lambda_arg_u32(const uint8_t **p)
{
	*p += 4;
	return lambda_load32(*p - 4);
}
LAMBDA_INLINE_ uint64_t lambda_arg_u64(const uint8_t **p)
{
	*p += 8;
	return lambda_load64(*p - 8);
}
LAMBDA_INLINE_ struct lambda_text lambda_arg_text(const uint8_t **p)
{
	struct lambda_text text = {*p + 4, lambda_load32(*p)};

	*p = text.p + text.len;
	return text;
}

/*
 * ---- helpers: where a vector unit beats bytecode ----
 * Each checks every range it is given against the sandbox's windows (-EFAULT for the call otherwise)
 * and charges fuel by 8 bytes, searches for what they looked through.  A length of 0 touches nothing.
 */

void *lambda_memcpy(void *dst, const void *src, uint64_t n); /* ranges may overlap here too */
void *lambda_memmove(void *dst, const void *src, uint64_t n);
void *lambda_memset(void *dst, int byte, uint64_t n);
int lambda_memcmp(const void *a, const void *b, uint64_t n); /* -1, 0 or 1 */
void *lambda_memchr(const void *p, int byte, uint64_t n);    /* NULL if absent */
/* The first place of needle in hay; NULL if absent, hay if needle_len is 0. */
void *lambda_memmem(const void *hay, uint64_t hay_len, const void *needle, uint64_t needle_len);
/* CRC-32C (Castagnoli) continued: start with 0; crc of a then b is crc32c(crc32c(0, a), b). */
uint32_t lambda_crc32c(uint32_t crc, const void *p, uint64_t n);
/* Absorb n 64-byte blocks into the SHA-256 chaining value h (host-endian words). */
int lambda_sha256_blocks(uint32_t h[8], const void *blocks, uint64_t n);
/* A line (its first 4,096 bytes) to the caller's trace sink, if any; never part of the output. */
int lambda_trace(const void *text, uint64_t n);

/* XXH3-64 (seed 0), streamed.  All zero is the start.  Every field is checked at each call. */
struct lambda_xxh3 {
	uint64_t acc[8];
	uint8_t buffer[256];
	uint64_t total;
	uint32_t buffered;
	uint32_t stripes;
};
_Static_assert(sizeof(struct lambda_xxh3) == 336, "struct lambda_xxh3 is ABI");
int lambda_xxh3_update(struct lambda_xxh3 *state, const void *p, uint64_t n);
uint64_t lambda_xxh3_digest(const struct lambda_xxh3 *state);

#endif /* LAMBDAIO_FUNCTION_H */
