/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_CC_LOWER_H
#define TOOLS_CC_LOWER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Rewrite LLVM's textual IR of a BPF module so that its BPF backend can take all of it:
 *  - memcpy, memmove and memset of a variable or large length become calls of the helpers;
 *  - accesses get their natural alignment (the sandbox allows any, while clang would take a misaligned
 *    one apart into bytes);
 *  - atomic loads and stores become plain ones, fences nothing: a sandbox has one thread;
 *  - with @no_sdiv (instruction sets below v4) signed division becomes unsigned division and signs;
 *  - counts of leading and trailing zeros become counts of ones (older clangs crash on the former);
 *  - products of 128 bits, and those that tell of overflow, are put together from 64-bit ones.
 * Returns malloc'd text, or NULL: no memory.
 */
char *cc_lower(const char *ir, size_t len, bool no_sdiv, size_t *out_len);

/*
 * Whether a static function of @ir has a signature that BPF has no call for: more than five arguments, or a
 * structure by value.  Inlined into its callers it needs none.
 */
bool cc_needs_inlining(const char *ir, size_t len);

#endif /* TOOLS_CC_LOWER_H */
