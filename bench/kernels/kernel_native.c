/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels as native code in an object of their own, compiled with the flags under test. */
#include "kernels.h"

u64 native_sum(const u8 *p, u64 len);
u64 native_grep(const u8 *p, u64 len);

u64 native_sum(const u8 *p, u64 len)
{
	return kernel_sum(p, len);
}

u64 native_grep(const u8 *p, u64 len)
{
	return kernel_grep(p, len);
}
