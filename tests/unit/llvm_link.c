/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler's object is linked as it is meant, and refused or harmless where bytes of it are not. */
#include <dlfcn.h>

#include "insns.h"
#include "sbpf/tier_llvm.h"

#define DAMAGES 20000u

static const struct sbpf_llvm_plugin *plugin;
static struct sbpf_llvm_object object;
static uint32_t entries;

static uintptr_t resolve(const char *name)
{
	return (uintptr_t)name;
}

static void define(void *arg, const char *name, uint32_t at)
{
	entries++;
}

/* A loop, a helper, a local call and a frame: text, constants, the table of outside addresses, lines. */
static struct sbpf_program *sample(void)
{
	return ASSEMBLE(MOVR(6, 1), MOV(7, 100), MOVR(1, 10), ADD(1, -64), MOV(2, 0), MOV(3, 64),
			HELPER(H_MEMSET), MOVR(1, 6), CALL(4), ADD(6, 4), ADD(7, -1), JNE(7, 0, -5),
			EXIT, LOAD(BPF_W, 0, 1, 0), STORE(BPF_W, 1, 4, 0), EXIT);
}

static int set_up(void **state)
{
	uint8_t args[64] = {0};
	struct sbpf_program *prog;
	char why[256];
	void *so;
	int r;

	so = getenv("SBPF_LLVM") ? dlopen(getenv("SBPF_LLVM"), RTLD_NOW) : NULL;
	plugin = so ? dlsym(so, SBPF_LLVM_SYMBOL) : NULL;
	if (!plugin)
		return -1;
	for (uint32_t i = 0; i < sbpf_n_helpers; i++)
		args[i] = sbpf_helpers[i].args;
	prog = sample();
	r = plugin->compile(prog, args, &object, why, sizeof(why));
	sbpf_program_unref(prog);
	return r;
}

static int tear_down(void **state)
{
	plugin->release(&object);
	return 0;
}

static void an_object_has_its_entry_and_its_lines(void **state)
{
	struct llvm_image image;
	const char *why;

	entries = 0;
	assert_int_equal(
		sbpf_llvm_link(object.bytes, object.len, resolve, define, NULL, &image, &why), 0);
	assert_int_equal(entries, 1);
	assert_true(image.used > 0 && image.used <= image.text_len);
	assert_true(image.n_places > 4);
	for (size_t i = 1; i < image.n_places; i++)
		assert_true(image.places[i - 1].at < image.places[i].at);
	sbpf_llvm_unmap(&image);
}

static void an_object_cut_anywhere_is_refused(void **state)
{
	struct llvm_image image;
	const char *why;

	/* The section headers stand at its end. */
	for (size_t len = 0; len < object.len; len++) {
		why = NULL;
		assert_int_not_equal(
			sbpf_llvm_link(object.bytes, len, resolve, define, NULL, &image, &why), 0);
		assert_non_null(why);
		assert_null(image.mem);
	}
}

static void a_damaged_object_is_refused_or_links_inside_its_pages(void **state)
{
	uint8_t *copy = malloc(object.len);
	uint64_t seed = 1;

	assert_non_null(copy);
	for (unsigned int i = 0; i < DAMAGES; i++) {
		struct llvm_image image;
		const char *why;

		memcpy(copy, object.bytes, object.len);
		for (unsigned int n = 1 + i % 3; n--;) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			copy[(seed >> 20) % object.len] = (uint8_t)(seed >> 56);
		}
		if (!sbpf_llvm_link(copy, object.len, resolve, define, NULL, &image, &why))
			sbpf_llvm_unmap(&image);
	}
	free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_object_has_its_entry_and_its_lines),
		cmocka_unit_test(an_object_cut_anywhere_is_refused),
		cmocka_unit_test(a_damaged_object_is_refused_or_links_inside_its_pages),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
