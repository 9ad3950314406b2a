/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_jail.h - the sandbox of the compiler's process.
 */
#ifndef SBPF_COMPILE_JAIL_H
#define SBPF_COMPILE_JAIL_H

#include "sbpf/jit_llvm.h"

/* For good.  -errno: this system cannot, and nothing is to be compiled. */
int compile_jail(void);

#endif /* SBPF_COMPILE_JAIL_H */
