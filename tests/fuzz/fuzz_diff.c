/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is drawn from as a program (tests/differential/random_program.h), which then must end
 * the same on the interpreter and in the template tier.  Without that tier there is nothing to
 * compare.  Any bytes make a program, so the corpus is a few files of random ones.
 */
#include "../differential/random_program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t none;
	struct rp_stream s = {.data = size ? data : &none, .len = size};
	int code;

	if (sbpf_tier_missing(SBPF_TIER_TEMPLATE))
		return 0;
	if (rp_compare(&s, &code) == RP_DIFFERS)
		abort();
	return 0;
}
