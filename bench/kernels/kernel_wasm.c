/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels as a WebAssembly module with a 1 MiB buffer of its own, to be filled by the host. */
#include "kernels.h"

#define EXPORT(name) __attribute__((export_name(#name)))

static u8 buffer[1u << 20];

EXPORT(address) u8 *address(void)
{
	return buffer;
}

/* The barrier keeps a pass from being hoisted out of the loop. */
static __attribute__((noinline)) u64 pass(int which, const u8 *p)
{
	return which ? kernel_grep(p, sizeof(buffer)) : kernel_sum(p, sizeof(buffer));
}

EXPORT(run) u64 run(int which, int passes)
{
	u64 r = 0;

	for (int i = 0; i < passes; i++) {
		const u8 *p = buffer;

		__asm__ volatile("" : "+r"(p));
		r = pass(which, p);
	}
	return r;
}
