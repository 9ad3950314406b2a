/* SPDX-License-Identifier: Apache-2.0 */
/* Objects for ../object.c: one that says all it can of itself, and ones that contradict themselves. */
#include <lambdaio/function.h>

struct state {
	uint64_t n[3];
};

#if defined(FULL)
LAMBDA_DOC("a fold with everything");
LAMBDA_RECORD_FIXED(16);
LAMBDA_OUTPUT("n:u64 name:text");
LAMBDA_ARGS("k:u32=10 name:text=\"a b\"");
LAMBDA_HEAP(1 << 20);
LAMBDA_FOLD(full, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
LAMBDA_MERGE(full, struct state)
{
	return (int64_t)(st->n[0] += other->n[0]) * 0;
}
LAMBDA_FINISH(full, struct state)
{
	return (int64_t)(st->n[1] = ctx->out_cap) * 0;
}
#elif defined(PLAIN)
LAMBDA_MAP(plain)
{
	return (int64_t)ctx->in_len * 0;
}
#elif defined(LINES)
LAMBDA_RECORD_DELIM(0xff);
LAMBDA_OUTPUT("text");
LAMBDA_SCAN(lines, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
#elif defined(NO_KIND)
LAMBDA_FINISH(x, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
#elif defined(TWO_KINDS)
LAMBDA_MAP(x)
{
	return (int64_t)ctx->in_len * 0;
}
LAMBDA_SCAN(x, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
#elif defined(TWO_MAPS)
LAMBDA_MAP(x)
{
	return (int64_t)ctx->in_len * 0;
}
LAMBDA_MAP(y)
{
	return (int64_t)ctx->in_len * 0;
}
#elif defined(TWO_NAMES)
LAMBDA_SCAN(x, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
LAMBDA_FINISH(y, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
#elif defined(MAP_WITH_FINISH)
LAMBDA_MAP(x)
{
	return (int64_t)ctx->in_len * 0;
}
LAMBDA_FINISH(x, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
#elif defined(SCAN_WITH_MERGE)
LAMBDA_SCAN(x, struct state)
{
	return (int64_t)(st->n[0] = ctx->in_len) * 0;
}
LAMBDA_MERGE(x, struct state)
{
	return (int64_t)(st->n[0] += other->n[0]) * 0;
}
#elif defined(FOREIGN_SECTION)
LAMBDA_MAP(x)
{
	return (int64_t)ctx->in_len * 0;
}
__attribute__((section("tc"), used)) int64_t other(struct lambda_ctx *ctx)
{
	return (int64_t)ctx->in_len * 0;
}
#elif defined(WRONG_NAME)
__attribute__((section("lambda/map"), used)) int64_t x(struct lambda_ctx *ctx)
{
	return (int64_t)ctx->in_len * 0;
}
#elif defined(NO_STATE)
__attribute__((section("lambda/fold"), used)) int64_t lambda_fold_x(struct lambda_ctx *ctx)
{
	return (int64_t)ctx->in_len * 0;
}
#else
LAMBDA_MAP(x)
{
	return (int64_t)ctx->in_len * 0;
}
#if defined(RECORD_ZERO)
LAMBDA_RECORD_FIXED(0);
#elif defined(RECORD_HUGE)
LAMBDA_RECORD_FIXED((1u << 30) + 1);
#elif defined(RECORD_KIND)
LAMBDA_NOTE_(record, struct lambda_record_note, {7, 1});
#elif defined(RECORD_CUT)
LAMBDA_NOTE_(record, uint32_t, 1);
#elif defined(HEAP_HUGE)
LAMBDA_HEAP(1ull << 40);
#elif defined(HEAP_CUT)
LAMBDA_NOTE_(heap, uint32_t, 4096);
#elif defined(OUTPUT_WRONG)
LAMBDA_OUTPUT("n:u65");
#elif defined(ARGS_WRONG)
LAMBDA_ARGS("k:u8=256");
#elif defined(TEXT_UNENDED)
LAMBDA_NOTE_(doc, char, 'x');
#elif defined(DOC_CONTROL)
LAMBDA_DOC("\x1b[2J");
#elif defined(STATES_DIFFER)
static const uint64_t states[2] __attribute__((section(".lambda.state"), used)) = {8, 16};
#else
#error "which object?"
#endif
#endif
