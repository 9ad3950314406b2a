/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs end the same on the interpreter and in the template tier: result, error,
 * instruction and address of a fault, fuel, and every byte of every window.  A failure prints its
 * seed; SBPF_SEED=N runs that one alone, SBPF_PROGRAMS=N tries so many from there on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "random_program.h"

#define PROGRAMS 20000u

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void programs_end_the_same_on_both_tiers(void **state)
{
	uint64_t seed = number("SBPF_SEED", 1);
	uint64_t n = number("SBPF_PROGRAMS", getenv("SBPF_SEED") ? 1 : PROGRAMS), left = n;
	uint64_t returned = 0, faulted = 0, timed_out = 0;

	if (sbpf_tier_missing(SBPF_TIER_TEMPLATE))
		skip();
	for (; left--; seed++) {
		struct rp_stream s = {.state = seed * 0x2545f4914f6cdd1du};
		enum rp_verdict verdict;
		int code = 0;

		verdict = rp_compare(&s, &code);
		if (verdict != RP_SAME)
			fail_msg("seed %" PRIu64 ": %s", seed,
				 verdict == RP_DIFFERS   ? "the tiers differ"
				 : verdict == RP_REFUSED ? "the verifier refused it"
							 : "no memory");
		returned += code == 0;
		faulted += code == -EFAULT;
		timed_out += code == -ETIME;
	}
	/* A generator that only makes one kind would prove little. */
	if (n == PROGRAMS) {
		assert_in_range(returned, n / 10, n);
		assert_in_range(faulted, n / 10, n);
		assert_in_range(timed_out, n / 1000, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs_end_the_same_on_both_tiers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
