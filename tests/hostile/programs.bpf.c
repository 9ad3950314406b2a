/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that a hostile or careless author could write in C; programs.c runs each.  The line that
 * must be named in the error ends in a comment with the program's name.
 */
#include <lambdaio/function.h>

#define ENTRY(name) __attribute__((section("hostile"), used)) int64_t name(struct lambda_ctx *ctx)
/* What the compiler must not see through. */
#define HIDE(v) __asm__ volatile("" : "+r"(v))

static const uint64_t constants[4] = {1, 2, 3, 4};
static uint64_t kept[8] = {7};
static uint8_t zeros[70000]; /* .bss of more than one clearing step */

ENTRY(null_store)
{
	struct lambda_ctx *p = NULL;

	HIDE(p);
	p[1].arg_len = 1; /* null_store */
	return 0;
}

ENTRY(constant_store)
{
	*(volatile uint32_t *)0x7fffdeadbeecull = 1; /* constant_store */
	return 0;
}

ENTRY(chase)
{
	uint64_t **p = (uint64_t **)ctx->in;

	p[0] = (uint64_t *)0x4141414141414140ull;
	HIDE(p);
	*p[0] = 1; /* chase */
	return 0;
}

ENTRY(spin)
{
	for (uint64_t i = 0;; i++) /* spin */
		HIDE(i);
	return 0;
}

ENTRY(spin_in_helpers)
{
	for (;;)
		lambda_memset(ctx->heap, 1, 1 << 12); /* spin_in_helpers */
	return 0;
}

ENTRY(past_output)
{
	for (uint64_t i = 0;; i++)
		ctx->out[i] = 1; /* past_output */
	return 0;
}

ENTRY(forged_ctx)
{
	ctx->out = (uint8_t *)0x60000000; /* forged_ctx */
	return 0;
}

ENTRY(changed_constant)
{
	uint64_t *p = (uint64_t *)constants;

	HIDE(p);
	p[1] = 5; /* changed_constant */
	return (int64_t)constants[1];
}

ENTRY(huge_copy)
{
	lambda_memcpy(ctx->out, ctx->in, ~0ull); /* huge_copy */
	return 0;
}

ENTRY(negative_length)
{
	uint64_t n = ctx->in_len;

	n -= 1 << 20;
	lambda_memset(ctx->out, 0, n); /* negative_length */
	return 0;
}

/* These end well, and alike each time. */

ENTRY(globals_do_not_survive)
{
	int64_t seen = (int64_t)(kept[0] + kept[1] + zeros[0] + zeros[69999]);

	kept[0] = kept[1] = 100;
	zeros[0] = zeros[69999] = 100;
	return seen;
}

static __attribute__((noinline)) uint64_t *escaped(uint64_t v)
{
	uint64_t local[4] = {v, v, v, v}, *p = local;

	HIDE(p);
	return p;
}

/* A pointer to a frame that is gone is a pointer into the own stack, no more. */
ENTRY(dangling_frame)
{
	uint64_t *p = escaped(9);

	HIDE(p);
	return (int64_t)*p;
}

ENTRY(any_result)
{
	return INT64_MIN + 5;
}
