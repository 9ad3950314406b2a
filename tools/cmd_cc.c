/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_cc.c - `lio cc`: C to a λ-function's object, with whatever clang the machine has.
 *
 * Two runs of one clang with our rewriting in between (cc_lower.c): C → optimized LLVM IR → IR that
 * BPF's code generator can take → object, which is then loaded as a run would load it.  Text and object
 * pass through anonymous memory, so that no temporary file can be left behind, and a file that fails to
 * compile leaves the old object alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cc_lower.h"
#include "lio.h"

extern char **environ;

#define ARGS 256u /* of one clang */

/*
 * Asked for where clang knows them: nothing done for the kernel verifier's sake, our stack limit, and
 * no memcmp taken apart into loads of single bytes.
 */
static const char *const backend_options[] = {
	"-bpf-disable-serialize-icmp",
	"-bpf-disable-avoid-speculation",
	"-bpf-stack-size=4096",
	"-max-loads-per-memcmp=0",
};
#define BACKEND_OPTIONS (sizeof(backend_options) / sizeof(*backend_options))

static const char *const cpus[] = {"v4", "v3", "v2", "v1"};

struct compiler {
	char path[PATH_MAX];
	const char *cpu;
	const char *backend[BACKEND_OPTIONS];
	size_t n_backend;
};

struct job {
	const char *source, *object, *clang, *cpu;
	const char *passed[ARGS / 2]; /* -I, -D, -W…: for the first run */
	size_t n_passed;
	bool verbose;
	char include[PATH_MAX], libc[PATH_MAX + 16];
};

struct argv {
	const char *v[ARGS];
	size_t n;
};

static void add(struct argv *a, const char *arg)
{
	if (a->n < ARGS - 1)
		a->v[a->n++] = arg;
}

/* Run argv with the given stdin, stdout and stderr (-1: ours).  Its exit status, or -errno. */
static int run(const struct argv *argv, int in, int out, int err, bool verbose)
{
	posix_spawn_file_actions_t actions;
	const int fds[3] = {in, out, err};
	int status, ret;
	pid_t pid;

	if (verbose) {
		for (size_t i = 0; i < argv->n; i++)
			fprintf(stderr, "%s%s", i ? " " : "", argv->v[i]);
		fputc('\n', stderr);
	}
	ret = posix_spawn_file_actions_init(&actions);
	if (ret)
		return -ret;
	for (int i = 0; i < 3 && !ret; i++)
		if (fds[i] >= 0)
			ret = posix_spawn_file_actions_adddup2(&actions, fds[i], i);
	if (!ret)
		ret = posix_spawn(&pid, argv->v[0], &actions, NULL, (char *const *)argv->v,
				  environ);
	posix_spawn_file_actions_destroy(&actions);
	if (ret)
		return -ret;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	return WEXITSTATUS(status);
}

/* Does this clang take the instruction set and options?  It compiles nothing at all to find out. */
static bool accepts(const char *clang, const char *cpu, const char *const *options, size_t n,
		    int null)
{
	struct argv a = {{clang, "-target", "bpf"}, 3};
	char mcpu[16];

	snprintf(mcpu, sizeof(mcpu), "-mcpu=%s", cpu);
	add(&a, mcpu);
	for (size_t i = 0; i < n; i++) {
		add(&a, "-mllvm");
		add(&a, options[i]);
	}
	for (const char *const *rest = (const char *const[]){"-x", "c", "-c", "-", "-o", "-", NULL};
	     *rest; rest++)
		add(&a, *rest);
	return run(&a, null, null, null, false) == 0;
}

/* Fill in what the clang at @path can do; false: it cannot compile for BPF. */
static bool probe(const char *path, const char *cpu, struct compiler *c, int null)
{
	snprintf(c->path, sizeof(c->path), "%s", path);
	c->n_backend = 0;
	for (size_t i = 0; i < sizeof(cpus) / sizeof(*cpus); i++) {
		c->cpu = cpus[i];
		if (cpu && strcmp(cpu, cpus[i]) != 0)
			continue;
		if (accepts(path, c->cpu, backend_options, BACKEND_OPTIONS, null)) {
			memcpy(c->backend, backend_options, sizeof(backend_options));
			c->n_backend = BACKEND_OPTIONS;
			return true;
		}
		if (!accepts(path, c->cpu, NULL, 0, null))
			continue;
		for (size_t j = 0; j < BACKEND_OPTIONS; j++)
			if (accepts(path, c->cpu, &backend_options[j], 1, null))
				c->backend[c->n_backend++] = backend_options[j];
		return true;
	}
	return false;
}

/* The program's path as execvp(3) would find it. */
static bool on_path(const char *name, char out[PATH_MAX])
{
	const char *path = getenv("PATH");

	if (strchr(name, '/')) {
		snprintf(out, PATH_MAX, "%s", name);
		return access(out, X_OK) == 0;
	}
	for (const char *dir = path ? path : "/usr/bin:/bin"; *dir;) {
		size_t n = strcspn(dir, ":");

		if (n && (size_t)snprintf(out, PATH_MAX, "%.*s/%s", (int)n, dir, name) < PATH_MAX &&
		    access(out, X_OK) == 0)
			return true;
		dir += n + (dir[n] == ':');
	}
	return false;
}

static int find_clang(const struct job *job, struct compiler *c, int null)
{
	static const char *const names[] = {"clang-19", "clang-18", "clang-17", "clang-16",
					    "clang-15", "clang-14", "clang"};
	const char *given = job->clang ? job->clang : getenv("LIO_CLANG");
	char path[PATH_MAX];

	if (given && given[0]) {
		if (!on_path(given, path))
			return cli_fail(ENOENT, "give the path of a clang from 14 up",
					"%s: no such program", given);
		if (!probe(path, job->cpu, c, null))
			return cli_fail(ENOTSUP, "use a clang from 14 up that has the bpf target",
					"%s: it cannot compile for BPF%s%s", given,
					job->cpu ? " instruction set " : "",
					job->cpu ? job->cpu : "");
		return 0;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (on_path(names[i], path) && probe(path, job->cpu, c, null))
			return 0;
	return cli_fail(ENOENT, "install clang (14 to 19), or name one by --clang or in $LIO_CLANG",
			"clang: none on $PATH can compile for BPF%s%s",
			job->cpu ? " instruction set " : "", job->cpu ? job->cpu : "");
}

static bool has_headers(const char *dir)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/lambdaio/function.h", dir);
	return access(path, R_OK) == 0;
}

/* Beside the program, where it was built or installed; else where the build said it would be. */
static int find_headers(struct job *job)
{
	static const char *const fixed[] = {LIO_INCLUDEDIR, LIO_SOURCE_INCLUDE};
	static const char *const beside[] = {"/../../include", "/../include"};
	const char *env = getenv("LIO_INCLUDE");
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	snprintf(job->include, sizeof(job->include), "%s", env ? env : "");
	if (env && has_headers(job->include))
		return 0;
	exe[n > 0 ? n : 0] = '\0';
	slash = strrchr(exe, '/');
	for (size_t i = 0; slash && i < sizeof(beside) / sizeof(*beside); i++) {
		snprintf(job->include, sizeof(job->include), "%.*s%s", (int)(slash - exe), exe,
			 beside[i]);
		if (has_headers(job->include))
			return 0;
	}
	for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++) {
		snprintf(job->include, sizeof(job->include), "%s", fixed[i]);
		if (has_headers(job->include))
			return 0;
	}
	return cli_fail(ENOENT, "name the directory that holds it in $LIO_INCLUDE",
			"lambdaio/function.h: not found beside this program");
}

static void add_common(struct argv *a, const struct compiler *c, char mcpu[16])
{
	snprintf(mcpu, 16, "-mcpu=%s", c->cpu);
	for (const char *const *p = (const char *const[]){c->path, "-target", "bpf", mcpu, "-O2",
							  "-g", "-fno-crash-diagnostics", NULL};
	     *p; p++)
		add(a, *p);
	for (size_t i = 0; i < c->n_backend; i++) {
		add(a, "-mllvm");
		add(a, c->backend[i]);
	}
}

/* All of an anonymous file; munmap'd by the caller. */
static int map_all(int fd, void **p, size_t *len)
{
	struct stat st;

	*len = 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	*len = (size_t)st.st_size;
	if (!*len)
		return -ENODATA;
	*p = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	return *p == MAP_FAILED ? -errno : 0;
}

static int run_to_ir(const struct job *job, const struct compiler *c, int out, bool inline_all)
{
	struct argv a = {.n = 0};
	char mcpu[16];

	add_common(&a, c, mcpu);
	add(&a, "-nostdlibinc");
	for (size_t i = 0; i < job->n_passed; i++)
		add(&a, job->passed[i]);
	if (inline_all) /* its warnings have been shown */
		for (const char *const *p =
			     (const char *const[]){"-w", "-mllvm", "-inline-threshold=1000000",
						   NULL};
		     *p; p++)
			add(&a, *p);
	add(&a, "-I");
	add(&a, job->include);
	add(&a, "-isystem");
	add(&a, job->libc);
	for (const char *const *p = (const char *const[]){"-S", "-emit-llvm", "-o", "-", "-x", "c",
							  job->source, NULL};
	     *p; p++)
		add(&a, *p);
	return run(&a, -1, out, -1, job->verbose);
}

/* A second time, with everything inlined, where a static function is one that BPF cannot call. */
static int to_ir(const struct job *job, const struct compiler *c, int out)
{
	void *ir;
	size_t len;
	bool again;
	int status = run_to_ir(job, c, out, false);

	if (status || map_all(out, &ir, &len))
		return status;
	again = cc_needs_inlining(ir, len);
	munmap(ir, len);
	if (!again)
		return 0;
	if (ftruncate(out, 0) < 0 || lseek(out, 0, SEEK_SET) < 0)
		return -errno;
	return run_to_ir(job, c, out, true);
}

static int to_object(const struct job *job, const struct compiler *c, int in, int out)
{
	struct argv a = {.n = 0};
	char mcpu[16];

	add_common(&a, c, mcpu);
	for (const char *const *p = (const char *const[]){"-Wno-override-module", "-Xclang",
							  "-disable-llvm-passes", "-c", "-o", "-",
							  "-x", "ir", "-", NULL};
	     *p; p++)
		add(&a, *p);
	return run(&a, in, out, -1, job->verbose);
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int lower(int ir_fd, int lowered_fd, bool no_sdiv)
{
	void *ir;
	size_t len, out_len;
	char *out;
	int ret = map_all(ir_fd, &ir, &len);

	if (ret)
		return ret;
	out = cc_lower(ir, len, no_sdiv, &out_len);
	ret = out ? write_all(lowered_fd, out, out_len) : -ENOMEM;
	if (!ret && lseek(lowered_fd, 0, SEEK_SET) < 0)
		ret = -errno;
	free(out);
	munmap(ir, len);
	return ret;
}

/* The loader's message, which has its fix at its end, with the source's name in front. */
static int refuse(const struct job *job, int err, const char *why)
{
	char *text;

	if (asprintf(&text, "%s: %s", job->source, why) < 0)
		return cli_fail_text(err, why);
	cli_fail_text(err, text);
	free(text);
	return CLI_FAILED;
}

/* As a run would load it: a λ-function where it has such entries, else any BPF program. */
static int check(const struct job *job, const void *image, size_t len)
{
	struct sbpf_program *prog;
	struct lambda_function *fn;
	struct sbpf_error error = {0};
	struct lambda_error lerror = {0};
	bool lambda = false;
	int ret = sbpf_program_from_elf(image, len, NULL, &prog, &error);

	if (ret)
		return refuse(job, ret, error.text);
	for (unsigned int i = 0; i < sbpf_program_entries(prog); i++)
		lambda |= strncmp(sbpf_program_entry_section(prog, i), "lambda/", 7) == 0;
	sbpf_program_unref(prog);
	if (!lambda)
		return 0;
	ret = lambda_function_load(image, len, &fn, &lerror);
	if (ret)
		return refuse(job, ret, lerror.text);
	lambda_function_free(fn);
	return 0;
}

static int store(const struct job *job, const void *image, size_t len)
{
	bool out = strcmp(job->object, "-") == 0;
	int fd = out ? STDOUT_FILENO
		     : open(job->object, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	int ret = fd < 0 ? -errno : write_all(fd, image, len);
	struct stat st;
	bool regular = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

	if (fd >= 0 && !out && close(fd) < 0 && !ret)
		ret = -errno;
	if (!ret)
		return 0;
	if (regular && !out) /* half an object is none; a device is not ours to remove */
		unlink(job->object);
	return cli_fail(ret, "choose another -o", "%s: cannot write it: %s", job->object,
			strerror(-ret));
}

/* Clang has said what is wrong with the source; only its own failure to run needs a line of ours. */
static int clang_failed(const struct compiler *c, int status)
{
	if (status < 0)
		return cli_fail(status, "name another by --clang", "%s: cannot run it: %s", c->path,
				strerror(-status));
	if (status > 128)
		return cli_fail(ECHILD, "try another clang (--clang) or simpler code",
				"%s: killed by signal %d", c->path, status - 128);
	return CLI_FAILED;
}

static int compile(const struct job *job)
{
	enum {
		NOWHERE,
		IR,
		LOWERED,
		OBJECT,
		FDS
	};
	static const char *const names[FDS] = {NULL, "ir", "lowered", "object"};
	int fd[FDS] = {-1, -1, -1, -1}, ret = CLI_FAILED, status;
	struct compiler c;
	void *image;
	size_t len;

	fd[NOWHERE] = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = IR; i < FDS; i++)
		fd[i] = memfd_create(names[i], MFD_CLOEXEC);
	for (int i = 0; i < FDS; i++)
		if (fd[i] < 0) {
			cli_fail(errno, CLI_FIX_MEMORY, "cc: no memory file: %s", strerror(errno));
			goto out;
		}
	ret = find_clang(job, &c, fd[NOWHERE]);
	if (ret)
		goto out;
	status = to_ir(job, &c, fd[IR]);
	if (status) {
		ret = clang_failed(&c, status);
		goto out;
	}
	status = lower(fd[IR], fd[LOWERED], strcmp(c.cpu, "v4") != 0);
	if (status == -ENODATA) {
		ret = cli_fail(status, "is it a clang? name one by --clang",
			       "%s: it made nothing of %s", c.path, job->source);
		goto out;
	}
	if (status) {
		ret = cli_fail(status, CLI_FIX_MEMORY, "%s: cannot rewrite its code: %s",
			       job->source, strerror(-status));
		goto out;
	}
	status = to_object(job, &c, fd[LOWERED], fd[OBJECT]);
	if (status) {
		ret = clang_failed(&c, status);
		goto out;
	}
	status = map_all(fd[OBJECT], &image, &len);
	if (status) {
		ret = cli_fail(status, "try another clang (--clang)",
			       "%s: clang made no object: %s", job->source, strerror(-status));
		goto out;
	}
	ret = check(job, image, len);
	if (!ret)
		ret = store(job, image, len);
	munmap(image, len);
out:
	for (int i = 0; i < FDS; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return ret;
}

/* "F.o" for "DIR/F.c", in the current directory, as cc(1) names it. */
static char *default_object(const char *source)
{
	const char *slash = strrchr(source, '/'), *base = slash ? slash + 1 : source;
	const char *dot = strrchr(base, '.');
	char *out;

	if (asprintf(&out, "%.*s.o", (int)(dot && dot > base ? dot - base : (long)strlen(base)),
		     base) < 0)
		return NULL;
	return out;
}

static int usage(const char *what, const char *word)
{
	return cli_fail(EINVAL, "lio cc F.c [-o F.o] [-I DIR] [-D X] [--clang PATH] [--mcpu v1…v4]",
			"cc: %s%s", what, word);
}

/* An option with a value, in the same word or the next; NULL: not this one, or (then *bad) without. */
static const char *value_of(const char *option, int argc, char **argv, int *i, bool *bad)
{
	size_t n = strlen(option);
	const char *rest = argv[*i] + n;

	if (strncmp(argv[*i], option, n) != 0)
		return NULL;
	if (option[1] == '-' && *rest == '=')
		return rest + 1;
	if (*rest)
		return option[1] == '-' ? NULL : rest;
	if (*i + 1 == argc) {
		*bad = true;
		return NULL;
	}
	return argv[++*i];
}

static int parse(struct job *job, int argc, char **argv)
{
	static const char *const passed[] = {"-I",    "-D", "-U", "-W", "-f",
					     "-std=", "-O", "-g", "-c"};
	bool options = true, bad = false;

	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value;

		if (!options || word[0] != '-') {
			if (job->source)
				return usage("more than one source file: ", word);
			job->source = word;
		} else if (strcmp(word, "--") == 0) {
			options = false;
		} else if (strcmp(word, "-v") == 0) {
			job->verbose = true;
		} else if ((value = value_of("-o", argc, argv, &i, &bad))) {
			job->object = value;
		} else if ((value = value_of("--clang", argc, argv, &i, &bad))) {
			job->clang = value;
		} else if ((value = value_of("--mcpu", argc, argv, &i, &bad))) {
			job->cpu = value;
		} else {
			size_t j = 0;

			while (j < sizeof(passed) / sizeof(*passed) &&
			       strncmp(word, passed[j], strlen(passed[j])) != 0)
				j++;
			if (bad)
				return usage("no value after ", word);
			if (j == sizeof(passed) / sizeof(*passed))
				return usage("no such option: ", word);
			if (job->n_passed + 2 > sizeof(job->passed) / sizeof(*job->passed))
				return usage("too many options at ", word);
			job->passed[job->n_passed++] = word;
			if (j < 3 && !word[2]) { /* -I DIR */
				if (i + 1 == argc)
					return usage("no value after ", word);
				job->passed[job->n_passed++] = argv[++i];
			}
		}
	}
	if (!job->source)
		return usage("no source file", "");
	if (job->cpu &&
	    (strlen(job->cpu) != 2 || job->cpu[0] != 'v' || job->cpu[1] < '1' || job->cpu[1] > '4'))
		return usage("no such instruction set: ", job->cpu);
	return 0;
}

int cmd_cc(int argc, char **argv)
{
	struct job job = {0};
	char *object = NULL, *source = NULL;
	int ret;

	if (cli_wants_help(argc, argv)) {
		cli_help_command(CLI_CC, stdout);
		return cli_flush();
	}
	ret = parse(&job, argc, argv);
	if (!ret)
		ret = find_headers(&job);
	if (ret)
		return ret;
	if (access(job.source, R_OK) < 0)
		return cli_fail(errno, "name a C file that can be read", "%s: %s", job.source,
				strerror(errno));
	if (!job.object) {
		object = default_object(job.source);
		if (!object)
			return cli_fail(ENOMEM, CLI_FIX_MEMORY, "cc: out of memory");
		job.object = object;
	}
	if (job.source[0] == '-') { /* clang would take it for an option */
		if (asprintf(&source, "./%s", job.source) < 0) {
			free(object);
			return cli_fail(ENOMEM, CLI_FIX_MEMORY, "cc: out of memory");
		}
		job.source = source;
	}
	snprintf(job.libc, sizeof(job.libc), "%s/lambdaio/libc", job.include);
	ret = compile(&job);
	free(source);
	free(object);
	return ret;
}
