/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_library.c - the helpers' own program, loaded once from the object that was compiled with lambda-io.
 */
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
