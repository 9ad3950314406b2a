/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helpers.h - the work behind the helpers, on plain memory: nothing here knows of sandboxes.
 * Each may fault on a truncated file, so none takes a lock or allocates.
 */
#ifndef SBPF_HELPERS_H
#define SBPF_HELPERS_H

#include <stddef.h>
#include <stdint.h>

/* As memmem(3). */
const void *sbpf_memmem(const void *hay, size_t n, const void *needle, size_t m);
/* CRC-32C of @p appended to what @crc is of; 0 is of nothing. */
uint32_t sbpf_crc32c(uint32_t crc, const void *p, size_t n);

#endif /* SBPF_HELPERS_H */
