/* SPDX-License-Identifier: Apache-2.0 */
/* For kernel_helpers.bpf.c: between its own variables and what it has checked already. */
#include <stddef.h>

void *kt_copy(void *to, const void *from, size_t n);
void *kt_fill(void *to, size_t n);

#define memcpy(to, from, n)                                                   \
	(__builtin_constant_p(n) && (n) <= 64 ? __builtin_memcpy(to, from, n) \
					      : kt_copy(to, from, n))
/* Only with zeros. */
#define memset(to, zero, n) kt_fill(to, n)
