/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a λ request, whole: whatever it is, what is accepted is within its own bytes and its numbers add up.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/lambda_private.h"

#define NAMESPACE (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int ctrl_fail(struct ctrl_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_lambda: %s\n", what);
	abort();
}

static void check_extents(const struct lambda_extents *e, bool sink)
{
	bool within = !lambda_extents_check(e, NAMESPACE);
	uint64_t bytes = 0;

	expect(e->n <= CTRL_MAX_SEGMENTS, "not more extents than a job may have");
	for (uint32_t i = 0; i < e->n; i++) {
		const struct ctrl_segment *s = &e->seg[i];
		bool hole = s->at == UINT64_MAX;

		expect(s->length && s->length <= INT64_MAX - bytes, "lengths add up");
		bytes += s->length;
		expect(hole ? !sink : s->at <= INT64_MAX - s->length, "an extent has an end");
		expect(!within || hole || s->at + s->length <= NAMESPACE, "within the namespace");
		for (uint32_t k = 0; sink && k < i && k < 64; k++)
			expect(s->at >= e->seg[k].at + e->seg[k].length ||
				       e->seg[k].at >= s->at + s->length,
			       "nothing is written twice");
	}
	expect(bytes == e->bytes, "the sum is of the parts");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ctrl_lambda_limits limits = {.max_fuel = 1u << 30,
						  .max_memory = 1u << 28,
						  .max_output = 1ull << 40,
						  .max_timeout_ns = 1ull << 36};
	struct nvme_path_request path;
	struct lambda_parsed p;
	struct ctrl_error err;
	uint32_t dw0 = 0;

	if (!lambda_path_check(data, size, &dw0)) {
		memcpy(&path, data, sizeof(path));
		expect(sizeof(path) + path.path_len + path.path2_len == size,
		       "paths are what follows");
	}
	if (lambda_request_parse(data, size, &p, &dw0)) {
		expect(!p.from.seg && !p.to.seg, "what is refused leaves nothing");
		return 0;
	}
	expect(p.arg >= data && p.arg + p.head.arg_len == data + size, "arguments are the rest");
	expect(p.base + p.from.bytes <= INT64_MAX, "the source has an end");
	check_extents(&p.from, false);
	check_extents(&p.to, true);
	if (!lambda_budgets(&p.head, &limits, &err))
		expect(p.head.memory && p.head.memory <= limits.max_memory && p.head.max_output &&
			       p.head.max_output <= limits.max_output && p.head.timeout_ns,
		       "budgets are set and within the limits");
	lambda_parsed_free(&p);
	return 0;
}
