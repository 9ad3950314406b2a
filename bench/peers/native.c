/* SPDX-License-Identifier: Apache-2.0 */
/* native FILE: the kernels as native code (linked from kernel_native.o) over FILE's first 1 MiB. */
#include "../kernels/timing.h"

unsigned long long native_sum(const unsigned char *p, unsigned long long len);
unsigned long long native_grep(const unsigned char *p, unsigned long long len);

int main(int argc, char **argv)
{
	size_t len = 1u << 20;
	uint8_t *p;

	if (argc != 2)
		return 2;
	p = bench_slurp(argv[1], len);
	BENCH("sum", len, native_sum(p, len));
	BENCH("grep", len, native_grep(p, len));
	free(p);
	return 0;
}
