/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_library.c - the helpers' own program, loaded once from the object that was compiled with lambda-io.
 */
#include <string.h>

#include "sbpf/kernel_translate.h"

static const uint8_t object[] = {
#include "kernel_helpers.inc"
};

static struct sbpf_program *library;
static struct sbpf_error failure;

static void load(void)
{
	sbpf_program_from_elf(object, sizeof(object), NULL, &library, &failure);
}

const struct sbpf_program *kt_library(struct sbpf_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	if (!library && err)
		*err = failure;
	return library;
}

uint64_t kt_library_address(uint64_t value)
{
	uint64_t rodata = value - sbpf_window_offset(SBPF_WIN_RODATA);
	uint64_t data = value - sbpf_window_offset(SBPF_WIN_DATA);

	if (rodata < library->rodata_len)
		return KT_LIBRARY_RODATA + rodata;
	return data < library->data_total ? KT_LIBRARY_DATA + data : value;
}

void kt_library_fill(uint8_t *arena_base)
{
	if (!library)
		return;
	if (library->rodata_len)
		memcpy(arena_base + KT_LIBRARY_RODATA, library->rodata, library->rodata_len);
	if (library->data_len)
		memcpy(arena_base + KT_LIBRARY_DATA, library->data, library->data_len);
}
