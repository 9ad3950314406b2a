/* SPDX-License-Identifier: Apache-2.0 */
/* For kernel_helpers.bpf.c, which has no C library: nothing is checked that was not checked before. */
#define assert(what)  ((void)0)
#define static_assert _Static_assert
