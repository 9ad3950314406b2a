/* SPDX-License-Identifier: Apache-2.0 */
/* C++ includes the host headers, links against the libraries and runs; function.h is for C alone. */
#include <lambdaio/lambdaio.h>
#include <lambdaio/sbpf.h>

#include <cstdio>
#include <cstring>

static int failed;

static void promise(int number, bool kept, const char *what)
{
	std::printf("%sok %d - %s\n", kept ? "" : "not ", number, what);
	failed |= !kept;
}

int main()
{
	lio_run_opts opts = {};
	lio_file *file = nullptr;

	opts.size = sizeof(opts);
	std::puts("1..3");
	promise(1, !std::strcmp(lio_version(), sbpf_version()),
		"both libraries are called from C++ and are of one version");
	promise(2, lio_open("", 0, 0, &file) < 0 && !file && *lio_error(),
		"a failure from C++ has its text");
	promise(3, !std::strcmp(lio_errname(-2), "ENOENT"), "error codes have their names");
	return failed;
}
