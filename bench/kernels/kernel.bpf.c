/* SPDX-License-Identifier: Apache-2.0 */
/* One kernel as a plain BPF program: -DKERNEL=kernel_sum or -DKERNEL=kernel_grep. */
#include "kernels.h"

u64 entry(const u8 *p, u64 len)
{
	return KERNEL(p, len);
}
