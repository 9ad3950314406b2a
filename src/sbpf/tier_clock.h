/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_clock.h - time for tiers that do not count: their loops are stopped from outside.
 */
#ifndef SBPF_TIER_CLOCK_H
#define SBPF_TIER_CLOCK_H

#include "sbpf/internal.h"

/* Make the thread's clock tick while it computes.  Before each call of such a tier; mostly free. */
int sbpf_clock_start(void);
/* From generated code, behind a helper in which the clock struck: leaves the call. */
_Noreturn void sbpf_exec_due(struct sbpf_exec *x);

#endif /* SBPF_TIER_CLOCK_H */
