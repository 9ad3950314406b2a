/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_copy.c - lio cat and put: a server's file to standard output, a local one to a server.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lio.h"

#define CHUNK \
	(4u << 20) /* bytes between two looks at the interrupt; goes in several pieces at once */

static int no_memory(const char *command)
{
	return cli_fail(ENOMEM, CLI_FIX_MEMORY, "%s: no memory for %u bytes", command, CHUNK);
}

/* ---- cat ---- */

static int copy_out(const struct cli *cli, struct lio_file *file, uint8_t *buf)
{
	uint64_t at = cli->offset, left = cli->length, total = 0;
	int64_t size = lio_size(file), n = 0;

	if (size > 0 && (uint64_t)size > at)
		total = (uint64_t)size - at < left ? (uint64_t)size - at : left;
	progress_begin(cli);
	for (; left && !cli_cancelled; at += (uint64_t)n, left -= (uint64_t)n) {
		n = lio_pread(file, buf, left < CHUNK ? (size_t)left : CHUNK, at);
		if (n < 0)
			return cli_fail_lib((int)n);
		if (!n)
			break;
		if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
			return cli_fail_stdout(errno);
		progress_update(NULL, at + (uint64_t)n - cli->offset, total);
	}
	progress_end();
	if (cli_cancelled)
		return CLI_INTERRUPTED;
	return at == cli->offset ? CLI_NOTHING : cli_flush();
}

int cmd_cat(int argc, char **argv)
{
	struct lio_file *file;
	struct cli cli;
	uint8_t *buf;
	int status;

	if (cli_parse(CLI_CAT, argc, argv, &cli) || cli_words(CLI_CAT, &cli, 1, 1) ||
	    cli_open(cli.words[0], &file))
		return CLI_FAILED;
	cli_catch_interrupt();
	buf = malloc(CHUNK);
	status = buf ? copy_out(&cli, file, buf) : no_memory("cat");
	free(buf);
	lio_close(file);
	return status;
}

/* ---- put ---- */

struct put {
	const struct cli *cli;
	const char *from;
	int fd;
	struct stat st;
	char *to, *temporary;
};

static int open_source(struct put *p)
{
	if (strcmp(p->from, "-") == 0) {
		p->fd = STDIN_FILENO;
		p->from = "standard input";
	} else {
		p->fd = open(p->from, O_RDONLY | O_CLOEXEC);
	}
	if (p->fd < 0 || fstat(p->fd, &p->st))
		return cli_fail(errno, "check the path and its permissions", "put: %s: %s", p->from,
				strerror(errno));
	if (S_ISDIR(p->st.st_mode))
		return cli_fail(EISDIR, "name a file in it", "put: %s: is a directory", p->from);
	return 0;
}

/* Where it goes, and a name beside that for the time before it is complete. */
static int name_target(struct put *p, const char *url)
{
	const char *base = strrchr(p->from, '/'), *name;
	uint64_t random = 0;
	char *encoded;

	if (!cli_is_url(url))
		return cli_fail(EINVAL, "write lio://HOST/EXPORT/PATH",
				"put: %s: is no path of a server", url);
	base = base ? base + 1 : p->from;
	encoded = cli_url_join("", p->fd == STDIN_FILENO ? "stdin" : base);
	if (!encoded)
		return no_memory("put");
	p->to = cli_url_target(url, encoded + 1);
	free(encoded);
	name = p->to ? cli_url_name(p->to) : NULL;
	if (p->to && (!name || !name[0]))
		return cli_fail(EISDIR, "name a file there", "put: %s: names no file", url);
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint64_t)getpid();
	if (!p->to || asprintf(&p->temporary, "%.*s.lio-put-%016llx", (int)(name - p->to), p->to,
			       (unsigned long long)random) < 0)
		return no_memory("put");
	return 0;
}

/* As much as there is, up to a chunk. */
static ssize_t read_chunk(int fd, uint8_t *buf)
{
	size_t got = 0;

	while (got < CHUNK && !cli_cancelled) {
		ssize_t n = read(fd, buf + got, CHUNK - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int copy_in(const struct put *p, struct lio_file *file, uint8_t *buf)
{
	uint64_t at = 0, total = S_ISREG(p->st.st_mode) ? (uint64_t)p->st.st_size : 0;
	int64_t rc = 0;
	ssize_t n;

	progress_begin(p->cli);
	while ((n = read_chunk(p->fd, buf)) > 0 && !cli_cancelled) {
		rc = lio_pwrite(file, buf, (size_t)n, at);
		if (rc < 0)
			return cli_fail_lib((int)rc);
		at += (uint64_t)n;
		progress_update(NULL, at, total);
	}
	progress_end();
	if (cli_cancelled)
		return CLI_INTERRUPTED;
	if (n < 0)
		return cli_fail((int)n, "check what feeds it", "put: %s: %s", p->from,
				strerror((int)-n));
	rc = lio_sync(file);
	return rc ? cli_fail_lib((int)rc) : 0;
}

/* Under the temporary name, then by one rename: nobody sees a part of it. */
static int put_file(struct put *p, uint8_t *buf)
{
	mode_t mode = S_ISREG(p->st.st_mode) ? p->st.st_mode & 0777 : 0666;
	struct lio_file *file;
	int status, err = lio_open(p->temporary, O_WRONLY | O_CREAT | O_EXCL, mode, &file);

	if (err)
		return cli_fail_lib(err);
	status = copy_in(p, file, buf);
	err = lio_close(file);
	if (!status && err)
		status = cli_fail_lib(err);
	if (!status) {
		err = lio_rename(p->temporary, p->to);
		status = err ? cli_fail_lib(err) : CLI_DONE;
	}
	if (status)
		lio_remove(p->temporary);
	return status;
}

int cmd_put(int argc, char **argv)
{
	struct cli cli;
	struct put p = {.cli = &cli, .fd = -1};
	uint8_t *buf = NULL;
	int status;

	if (cli_parse(CLI_PUT, argc, argv, &cli) || cli_words(CLI_PUT, &cli, 2, 2))
		return CLI_FAILED;
	p.from = cli.words[0];
	status = open_source(&p);
	if (!status)
		status = name_target(&p, cli.words[1]);
	if (!status) {
		buf = malloc(CHUNK);
		cli_catch_interrupt();
		status = buf ? put_file(&p, buf) : no_memory("put");
	}
	if (p.fd > STDIN_FILENO)
		close(p.fd);
	free(buf);
	free(p.to);
	free(p.temporary);
	return status;
}
