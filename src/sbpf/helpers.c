/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helpers.c - what a program can call: the table, and the check of every range before it is used.
 *
 * A helper asks sbpf_exec_range() for each range, charges its fuel (in this order: a length that is
 * far too large is a fault, not a lack of fuel), and only then touches memory.
 * Searches charge afterwards, for what they looked through: a function that walks over lines asks for
 * "the next newline in all the rest" each time, and must not pay for all the rest each time.
 * None takes a lock or allocates, for any of them may be left by a fault.  No library's state lives
 * in sandbox memory: it is put together here from fields that were checked, and taken apart again.
 */
#include <errno.h>
#include <string.h>

#define OPENSSL_SUPPRESS_DEPRECATED /* the EVP interface allocates */
#include <openssl/sha.h>
#define XXH_INLINE_ALL /* the layout of its state is then the one we were compiled with */
#include <xxhash.h>

#include "lambdaio/function.h"
#include "sbpf/helpers.h"
#include "sbpf/sandbox.h"

/* Longer lines are cut: what the embedder sees is a copy that the program cannot touch. */
#define TRACE_MAX 4096u

static void charge_bytes(struct sbpf_exec *x, uint64_t n)
{
	sbpf_exec_charge(x, 1 + n / 8 + !!(n % 8));
}

/* An int as the calling convention returns it. */
static uint64_t int_result(int v)
{
	return (uint64_t)(int64_t)v;
}

/* ---- memory ---- */

static uint64_t help_memmove(struct sbpf_exec *x, uint64_t dst, uint64_t src, uint64_t n,
			     uint64_t a4, uint64_t a5)
{
	void *to;
	const void *from;

	to = sbpf_exec_range(x, dst, n, true);
	from = sbpf_exec_range(x, src, n, false);
	charge_bytes(x, n);
	memmove(to, from, n);
	return dst;
}

static uint64_t help_memset(struct sbpf_exec *x, uint64_t dst, uint64_t byte, uint64_t n,
			    uint64_t a4, uint64_t a5)
{
	void *to;

	to = sbpf_exec_range(x, dst, n, true);
	charge_bytes(x, n);
	memset(to, (uint8_t)byte, n);
	return dst;
}

static uint64_t help_memcmp(struct sbpf_exec *x, uint64_t a, uint64_t b, uint64_t n, uint64_t a4,
			    uint64_t a5)
{
	const void *pa, *pb;
	int order;

	pa = sbpf_exec_range(x, a, n, false);
	pb = sbpf_exec_range(x, b, n, false);
	charge_bytes(x, n);
	order = memcmp(pa, pb, n);
	return int_result((order > 0) - (order < 0));
}

static uint64_t help_memchr(struct sbpf_exec *x, uint64_t p, uint64_t byte, uint64_t n, uint64_t a4,
			    uint64_t a5)
{
	const uint8_t *from, *found;

	from = sbpf_exec_range(x, p, n, false);
	found = n ? memchr(from, (uint8_t)byte, n) : NULL;
	charge_bytes(x, found ? (uint64_t)(found - from) + 1 : n);
	return found ? p + (uint64_t)(found - from) : 0;
}

static uint64_t help_memmem(struct sbpf_exec *x, uint64_t hay, uint64_t n, uint64_t needle,
			    uint64_t m, uint64_t a5)
{
	const uint8_t *from, *found;
	const void *what;

	from = sbpf_exec_range(x, hay, n, false);
	what = sbpf_exec_range(x, needle, m, false);
	charge_bytes(x, m);
	found = sbpf_memmem(from, n, what, m);
	charge_bytes(x, found ? (uint64_t)(found - from) + m : n);
	return found ? hay + (uint64_t)(found - from) : 0;
}

/* ---- sums ---- */

static uint64_t help_crc32c(struct sbpf_exec *x, uint64_t crc, uint64_t p, uint64_t n, uint64_t a4,
			    uint64_t a5)
{
	const void *from = sbpf_exec_range(x, p, n, false);

	charge_bytes(x, n);
	return sbpf_crc32c((uint32_t)crc, from, n);
}

static uint64_t help_sha256_blocks(struct sbpf_exec *x, uint64_t h, uint64_t blocks, uint64_t n,
				   uint64_t a4, uint64_t a5)
{
	SHA256_CTX sha = {.md_len = SHA256_DIGEST_LENGTH};
	/* More than a sandbox holds is as wrong as it gets, but must not wrap around. */
	uint64_t len = n < SBPF_SPACE ? n * SHA256_CBLOCK : UINT64_MAX;
	const void *from;
	void *state;

	_Static_assert(sizeof(sha.h) == 32, "the chaining value as function.h has it");
	state = sbpf_exec_range(x, h, sizeof(sha.h), true);
	from = sbpf_exec_range(x, blocks, len, false);
	charge_bytes(x, len);
	memcpy(sha.h, state, sizeof(sha.h));
	SHA256_Update(&sha, from, len);
	memcpy(state, sha.h, sizeof(sha.h));
	return 0;
}

/* ---- XXH3 ---- */

#define XXH3_STRIPES_PER_BLOCK \
	((XXH_SECRET_DEFAULT_SIZE - XXH_STRIPE_LEN) / XXH_SECRET_CONSUME_RATE)

/* What every state that an update left satisfies; all zero does, too. */
static bool xxh3_is_sound(const struct lambda_xxh3 *state)
{
	uint64_t absorbed = state->total - state->buffered;

	if (!state->total)
		return !state->buffered && !state->stripes;
	return state->buffered && state->buffered <= sizeof(state->buffer) &&
	       state->buffered <= state->total && absorbed % XXH_STRIPE_LEN == 0 &&
	       state->stripes == absorbed / XXH_STRIPE_LEN % XXH3_STRIPES_PER_BLOCK;
}

static void xxh3_open(struct sbpf_exec *x, uint64_t at, const void *from, XXH3_state_t *xxh)
{
	struct lambda_xxh3 state;

	_Static_assert(sizeof(state.acc) == sizeof(xxh->acc), "as function.h has it");
	_Static_assert(sizeof(state.buffer) == sizeof(xxh->buffer), "as function.h has it");
	memcpy(&state, from, sizeof(state));
	if (!xxh3_is_sound(&state))
		sbpf_exec_raise(x, -EINVAL, (uint32_t)at);
	XXH3_64bits_reset(xxh);
	if (!state.total)
		return;
	memcpy(xxh->acc, state.acc, sizeof(xxh->acc));
	memcpy(xxh->buffer, state.buffer, sizeof(xxh->buffer));
	xxh->totalLen = state.total;
	xxh->bufferedSize = state.buffered;
	xxh->nbStripesSoFar = state.stripes;
}

static uint64_t help_xxh3_update(struct sbpf_exec *x, uint64_t at, uint64_t p, uint64_t n,
				 uint64_t a4, uint64_t a5)
{
	struct lambda_xxh3 state;
	XXH3_state_t xxh;
	const void *from;
	void *to;

	to = sbpf_exec_range(x, at, sizeof(state), true);
	from = sbpf_exec_range(x, p, n, false);
	charge_bytes(x, n);
	xxh3_open(x, at, to, &xxh);
	if (!n)
		return 0;
	/* Bytes of the buffer beyond what is in use reach the program: never the stack's. */
	if (xxh.totalLen == 0)
		memset(xxh.buffer, 0, sizeof(xxh.buffer));
	XXH3_64bits_update(&xxh, from, n);
	memcpy(state.acc, xxh.acc, sizeof(state.acc));
	memcpy(state.buffer, xxh.buffer, sizeof(state.buffer));
	state.total = xxh.totalLen;
	state.buffered = xxh.bufferedSize;
	state.stripes = (uint32_t)xxh.nbStripesSoFar;
	memcpy(to, &state, sizeof(state));
	return 0;
}

static uint64_t help_xxh3_digest(struct sbpf_exec *x, uint64_t at, uint64_t a2, uint64_t a3,
				 uint64_t a4, uint64_t a5)
{
	const void *from = sbpf_exec_range(x, at, sizeof(struct lambda_xxh3), false);
	XXH3_state_t xxh;

	charge_bytes(x, sizeof(struct lambda_xxh3));
	xxh3_open(x, at, from, &xxh);
	return XXH3_64bits_digest(&xxh);
}

/* ---- trace ---- */

static uint64_t help_trace(struct sbpf_exec *x, uint64_t text, uint64_t n, uint64_t a3, uint64_t a4,
			   uint64_t a5)
{
	const struct sbpf_call *call = x->call;
	char line[TRACE_MAX];
	const void *from;

	from = sbpf_exec_range(x, text, n, false);
	charge_bytes(x, n);
	if (!call->trace)
		return 0;
	if (n > sizeof(line))
		n = sizeof(line);
	memcpy(line, from, n);
	x->paused = true;
	call->trace(call->trace_arg, line, n);
	x->paused = false;
	return 0;
}

/* ---- the table ---- */

/* Rows are feature bits: they never move, new ones go to the end.  memcpy allows overlap, too. */
const struct sbpf_helper sbpf_helpers[] = {
	{"lambda_memcpy", 3, help_memmove},
	{"lambda_memmove", 3, help_memmove},
	{"lambda_memset", 3, help_memset},
	{"lambda_memcmp", 3, help_memcmp},
	{"lambda_memchr", 3, help_memchr},
	{"lambda_memmem", 4, help_memmem},
	{"lambda_crc32c", 3, help_crc32c},
	{"lambda_sha256_blocks", 3, help_sha256_blocks},
	{"lambda_trace", 2, help_trace},
	{"lambda_xxh3_update", 3, help_xxh3_update},
	{"lambda_xxh3_digest", 1, help_xxh3_digest},
};
const uint32_t sbpf_n_helpers = sizeof(sbpf_helpers) / sizeof(sbpf_helpers[0]);

/* libc's names, which compilers emit calls to. */
static const struct {
	const char *symbol, *helper;
} aliases[] = {
	{"memcpy", "lambda_memcpy"}, {"memmove", "lambda_memmove"}, {"memset", "lambda_memset"},
	{"memcmp", "lambda_memcmp"}, {"bcmp", "lambda_memcmp"},     {"memchr", "lambda_memchr"},
};

int sbpf_helper_find(const char *symbol)
{
	for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
		if (!strcmp(symbol, aliases[i].symbol))
			symbol = aliases[i].helper;
	for (uint32_t i = 0; i < sbpf_n_helpers; i++)
		if (!strcmp(symbol, sbpf_helpers[i].name))
			return (int)i;
	return -1;
}

const char *sbpf_helper_name(unsigned int bit)
{
	return bit < sbpf_n_helpers ? sbpf_helpers[bit].name : NULL;
}
