/* SPDX-License-Identifier: Apache-2.0 */
/* ubpf FILE SUM.o GREP.o: the kernels on uBPF's JIT with its checks off, where a build of it is given. */
#include <inttypes.h>
#include <string.h>

#include <ubpf.h>

#include "../kernels/timing.h"

static ubpf_jit_fn compile(const char *object, uint64_t *ns)
{
	FILE *f = fopen(object, "rb");
	static char image[1u << 20];
	size_t len;
	char *error = NULL;
	struct ubpf_vm *vm = ubpf_create();
	ubpf_jit_fn fn;
	uint64_t start;

	if (!f || !vm)
		exit(2);
	len = fread(image, 1, sizeof(image), f);
	fclose(f);
	ubpf_toggle_bounds_check(vm, false);
	if (ubpf_load_elf_ex(vm, image, len, "entry", &error) < 0) {
		fprintf(stderr, "%s: %s\n", object, error);
		exit(2);
	}
	start = bench_now();
	fn = ubpf_compile(vm, &error);
	*ns = bench_now() - start;
	if (!fn) {
		fprintf(stderr, "%s: %s\n", object, error);
		exit(2);
	}
	return fn;
}

int main(int argc, char **argv)
{
	size_t len = 1u << 20;
	uint64_t ns[2];
	ubpf_jit_fn sum, grep;
	uint8_t *p;

	if (argc != 4)
		return 2;
	p = bench_slurp(argv[1], len);
	sum = compile(argv[2], &ns[0]);
	grep = compile(argv[3], &ns[1]);
	BENCH("sum", len, sum(p, len));
	BENCH("grep", len, grep(p, len));
	printf("{\"kernel\": \"compile\", \"sum_ns\": %" PRIu64 ", \"grep_ns\": %" PRIu64 "}\n",
	       ns[0], ns[1]);
	free(p);
	return 0;
}
