/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_device.c - lio device: what an NVMe/TCP target has, and raw ranges of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"

#define CHUNK          (4u << 20)
#define MAX_NAMESPACES 16384u
#define ALL_NAMESPACES 0xffffffffu
#define LIODS_PORT     "4420"

/* ---- connecting ---- */

static const char *fix_of(int err)
{
	switch (err) {
	case -ECONNREFUSED:
		return "start a server there, or name its port: HOST:PORT";
	case -EREMOTEIO:
	case -ENODEV:
		return "\"lio device HOST[:PORT]\" lists what is there";
	case -ETIMEDOUT:
		return "see that the server is up, or give a longer --timeout";
	default:
		return NULL;
	}
}

static int fail_device(int err)
{
	const char *text = nvme_host_error();

	return strstr(text, "; ") ? cli_fail_text(err, text)
				  : cli_fail(err, fix_of(err), "%s", text);
}

static int join(const struct cli *cli, const char *where, const char *nqn, struct nvme_host **host)
{
	uint64_t ms = cli->timeout_ns / 1000000;
	struct nvme_host_opts opts = {
		.size = sizeof(opts),
		.subnqn = nqn,
		.header_digest = cli->digest,
		.data_digest = cli->digest,
		.timeout_ms = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX,
	};

	return nvme_host_connect(where, &opts, host);
}

/* HOST with liod's port, in @out; false if it has a port of its own. */
static bool add_port(const char *where, char *out, size_t size)
{
	const char *colon = strchr(where, ':'), *close = strchr(where, ']');

	if (where[0] == '[' ? close && close[1] : colon && colon == strrchr(where, ':'))
		return false;
	snprintf(out, size, where[0] != '[' && colon ? "[%s]:%s" : "%s:%s", where, LIODS_PORT);
	return true;
}

/* Where a discovery entry says that its subsystem is; a wildcard means the address that was asked. */
static void entry_address(const struct nvme_discovery_entry *e, const char *asked, char *out,
			  size_t size)
{
	char host[sizeof(e->traddr) + 1] = "", port[sizeof(e->trsvcid) + 1] = "";
	size_t n = strnlen(e->traddr, sizeof(e->traddr)),
	       m = strnlen(e->trsvcid, sizeof(e->trsvcid));

	while (n && e->traddr[n - 1] == ' ')
		n--;
	while (m && e->trsvcid[m - 1] == ' ')
		m--;
	memcpy(host, e->traddr, n);
	memcpy(port, e->trsvcid, m);
	if (!host[0] || !port[0] || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
		snprintf(out, size, "%s", asked);
	else
		snprintf(out, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* The subsystems that @where knows of, by name and address; *devices is the caller's. */
static int discover(const struct cli *cli, const char *where, struct device **devices, size_t *n)
{
	struct nvme_discovery_entry *entries;
	char address[320];
	struct nvme_host *host;
	size_t found;
	int err;

	snprintf(address, sizeof(address), "%s", where);
	err = join(cli, where, NULL, &host);
	if (err == -ECONNREFUSED && add_port(where, address, sizeof(address)))
		err = join(cli, address, NULL, &host);
	if (err)
		return err;
	err = nvme_host_discover(host, &entries, &found);
	nvme_host_free(host);
	if (err)
		return err;
	*n = 0;
	*devices = calloc(found + 1, sizeof(**devices));
	for (size_t i = 0; *devices && i < found; i++) {
		struct device *d = &(*devices)[*n];

		if (entries[i].subtype != NVME_SUBTYPE_NVM || entries[i].trtype != NVME_TRTYPE_TCP)
			continue;
		snprintf(d->nqn, sizeof(d->nqn), "%.*s", NVME_NQN_MAX, entries[i].subnqn);
		entry_address(&entries[i], address, d->address, sizeof(d->address));
		++*n;
	}
	free(entries);
	return *devices ? 0 : -ENOMEM;
}

/* ---- the report ---- */

static int list_namespaces(struct nvme_host *host, struct device *d)
{
	nvme_le32 *list = malloc(4096);
	uint32_t after = 0;
	int err = list ? 0 : -ENOMEM;

	while (!err && d->n_ns < MAX_NAMESPACES) {
		struct nvme_host_ns *more = realloc(d->ns, (d->n_ns + 1024) * sizeof(*more));
		unsigned int i;

		err = more ? nvme_host_identify(host, NVME_CNS_ACTIVE_NS, after, 0, list) : -ENOMEM;
		if (more)
			d->ns = more;
		for (i = 0; !err && i < 1024 && nvme_get32(list[i]) > after; i++) {
			after = nvme_get32(list[i]);
			err = nvme_host_namespace(host, after, &d->ns[d->n_ns]);
			d->n_ns += !err;
			if (err == -ENODEV ||
			    err == -EOPNOTSUPP) /* went away, or not ours to show */
				err = 0;
		}
		if (i < 1024 || after >= ALL_NAMESPACES - 1)
			break;
	}
	free(list);
	return err;
}

static int inspect(const struct cli *cli, struct device *d)
{
	struct nvme_host *host;
	int err = join(cli, d->address, d->nqn, &host);

	if (err)
		return err;
	nvme_host_info(host, &d->info);
	err = nvme_host_identify(host, NVME_CNS_CTRL, 0, 0, &d->id);
	if (!err)
		err = list_namespaces(host, d);
	d->has_health = !err && !nvme_host_log(host, NVME_LOG_SMART, ALL_NAMESPACES, 0, &d->health,
					       sizeof(d->health));
	nvme_host_free(host);
	return err;
}

static void free_devices(struct device *devices, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(devices[i].error);
		free(devices[i].ns);
	}
	free(devices);
}

/* The subsystem of --nqn, or all that are discovered. */
static int find(const struct cli *cli, const char *where, struct device **devices, size_t *n)
{
	if (!cli->nqn)
		return discover(cli, where, devices, n);
	*n = 1;
	*devices = calloc(1, sizeof(**devices));
	if (!*devices)
		return -ENOMEM;
	snprintf((*devices)->nqn, sizeof((*devices)->nqn), "%s", cli->nqn);
	snprintf((*devices)->address, sizeof((*devices)->address), "%s", where);
	return 0;
}

static int report(const struct cli *cli, const char *where)
{
	struct device *devices = NULL;
	size_t n = 0, reached = 0;
	int err = find(cli, where, &devices, &n), status = CLI_DONE;

	if (err)
		return fail_device(err);
	for (size_t i = 0; i < n; i++) {
		err = inspect(cli, &devices[i]);
		if (err)
			devices[i].error = cli_strdup(nvme_host_error());
		reached += !err;
	}
	if (n && !reached) {
		status = fail_device(err);
	} else if (cli->json) {
		status = cli_print_json(device_json(where, devices, n));
	} else {
		device_report(stdout, devices, n);
		status = cli_flush();
	}
	free_devices(devices, n);
	return status == CLI_DONE && !n ? CLI_NOTHING : status;
}

/* ---- raw ranges ---- */

struct range {
	struct nvme_host *host;
	struct nvme_host_ns ns;
	uint64_t offset, len; /* CLI_UNSET: to the end */
	uint8_t *buf;         /* CHUNK bytes */
};

static int open_range(const struct cli *cli, const char *where, struct range *r)
{
	struct device *devices = NULL;
	size_t n = 0;
	int err = find(cli, where, &devices, &n);

	if (!err && n != 1) {
		free_devices(devices, n);
		return cli_fail(n ? EINVAL : ENODEV,
				n ? "choose one with --nqn; \"lio device HOST[:PORT]\" lists them"
				  : NULL,
				"%s: it has %zu subsystems", where, n);
	}
	if (!err)
		err = join(cli, devices[0].address, devices[0].nqn, &r->host);
	free_devices(devices, n);
	if (!err)
		err = nvme_host_namespace(r->host, (uint32_t)(cli->nsid ? cli->nsid : 1), &r->ns);
	return err ? fail_device(err) : 0;
}

static int check_range(const struct cli *cli, const char *where, struct range *r)
{
	uint64_t end = r->ns.blocks * r->ns.block;
	char fix[80];

	snprintf(fix, sizeof(fix), "use a multiple of %u", r->ns.block);
	if (cli->offset % r->ns.block)
		return cli_fail(EINVAL, fix, "--offset: %llu is not at a block of namespace %u",
				(unsigned long long)cli->offset, r->ns.nsid);
	if (cli->length != CLI_UNSET && cli->length % r->ns.block)
		return cli_fail(EINVAL, fix,
				"--length: %llu is no whole number of blocks of "
				"namespace %u",
				(unsigned long long)cli->length, r->ns.nsid);
	r->offset = cli->offset;
	r->len = cli->length;
	if (r->offset > end || (r->len != CLI_UNSET && r->len > end - r->offset))
		return cli_fail(ERANGE, "use a smaller --offset or --length",
				"%s: namespace %u ends at %llu", where, r->ns.nsid,
				(unsigned long long)end);
	if (r->len == CLI_UNSET)
		r->len = end - r->offset;
	if (!r->buf)
		return cli_fail(ENOMEM, NULL, "device: %u bytes of memory", CHUNK);
	return 0;
}

static int read_range(const struct cli *cli, struct range *r)
{
	uint64_t at = 0;

	progress_begin(cli);
	for (size_t n; at < r->len; at += n) {
		int err;

		n = r->len - at < CHUNK ? (size_t)(r->len - at) : CHUNK;
		err = nvme_host_read(r->host, r->ns.nsid, r->offset + at, r->buf, n);
		if (err)
			return fail_device(err);
		if (fwrite(r->buf, 1, n, stdout) != n)
			return cli_fail_stdout(errno);
		progress_update(NULL, at + n, r->len);
	}
	progress_end();
	return r->len ? cli_flush() : CLI_NOTHING;
}

static int cmd_device_read(const struct cli *cli, const char *where, struct range *r)
{
	int status;

	if (isatty(STDOUT_FILENO))
		return cli_fail(EINVAL, "redirect it: > FILE",
				"device read: standard output is a terminal");
	status = open_range(cli, where, r);
	if (!status)
		status = check_range(cli, where, r);
	return status ? status : read_range(cli, r);
}

/* What is known of the input before any of it is written. */
static int check_input(const struct cli *cli, struct range *r)
{
	off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);
	struct stat st;
	uint64_t size;

	if (at < 0 || fstat(STDIN_FILENO, &st) || !S_ISREG(st.st_mode))
		return 0;
	size = st.st_size > at ? (uint64_t)(st.st_size - at) : 0;
	if (cli->length != CLI_UNSET)
		return size >= r->len
			       ? 0
			       : cli_fail(EINVAL, "give a smaller --length",
					  "device write: the input has %llu bytes, --length "
					  "is %llu",
					  (unsigned long long)size, (unsigned long long)r->len);
	if (size > r->len)
		return cli_fail(
			ENOSPC, "give a --length",
			"device write: the input has %llu bytes, and there is room for %llu",
			(unsigned long long)size, (unsigned long long)r->len);
	if (size % r->ns.block)
		return cli_fail(
			EINVAL, "pad it, or give a --length",
			"device write: the input's %llu bytes are no whole number of blocks "
			"of %u",
			(unsigned long long)size, r->ns.block);
	return 0;
}

/* As many bytes as there are, at most @len. */
static ssize_t read_input(uint8_t *p, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = read(STDIN_FILENO, p + got, len - got);

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

/* The input ended, or there is no more room for it. */
static int check_end(const struct cli *cli, const struct range *r, uint64_t at, size_t rest)
{
	uint8_t more;

	if (rest)
		return cli_fail(
			EINVAL, "pad the input",
			"device write: the input's last %zu bytes are no whole block of %u, and "
			"were not written; the %llu before them were",
			rest, r->ns.block, (unsigned long long)at);
	if (cli->length != CLI_UNSET && at < r->len)
		return cli_fail(
			EINVAL, NULL,
			"device write: the input ended after %llu of %llu bytes, which were "
			"written",
			(unsigned long long)at, (unsigned long long)r->len);
	if (cli->length == CLI_UNSET && at == r->len && read_input(&more, 1) > 0)
		return cli_fail(
			ENOSPC, NULL,
			"device write: the input is longer than the %llu bytes that there was "
			"room for, which were written",
			(unsigned long long)at);
	return 0;
}

static int write_range(const struct cli *cli, struct range *r)
{
	uint64_t at = 0;
	ssize_t n = 0;
	size_t rest = 0;
	int err = 0;

	progress_begin(cli);
	while (!err && !rest && at < r->len) {
		n = read_input(r->buf, r->len - at < CHUNK ? (size_t)(r->len - at) : CHUNK);
		if (n <= 0)
			break;
		rest = (size_t)n % r->ns.block;
		n -= (ssize_t)rest;
		err = nvme_host_write(r->host, r->ns.nsid, r->offset + at, r->buf, (uint64_t)n,
				      false);
		at += (uint64_t)n;
		progress_update(NULL, at, r->len);
	}
	progress_end();
	if (n < 0)
		return cli_fail((int)n, NULL, "device write: standard input: %s",
				strerror((int)-n));
	if (!err)
		err = nvme_host_flush(r->host, r->ns.nsid);
	return err ? fail_device(err) : check_end(cli, r, at, rest);
}

static int cmd_device_write(const struct cli *cli, const char *where, struct range *r)
{
	int status = open_range(cli, where, r);

	if (!status)
		status = check_range(cli, where, r);
	if (!status && r->ns.read_only)
		status = cli_fail(EROFS, NULL, "%s: namespace %u is read-only", where, r->ns.nsid);
	if (!status)
		status = check_input(cli, r);
	return status ? status : write_range(cli, r);
}

int cmd_device(int argc, char **argv)
{
	struct range r = {0};
	struct cli cli;
	bool writes;
	int status;

	if (cli_parse(CLI_DEVICE, argc, argv, &cli) || cli_words(CLI_DEVICE, &cli, 1, 3))
		return CLI_FAILED;
	if (cli.nsid >= ALL_NAMESPACES)
		return cli_fail(ERANGE, "namespaces are numbered from 1",
				"device: --nsid: the number is too large");
	if (cli.n_words == 1)
		return report(&cli, cli.words[0]);
	if (device_server_command(cli.words[0]))
		return device_server(&cli);
	if (cli_words(CLI_DEVICE, &cli, 1, 2))
		return CLI_FAILED;
	writes = strcmp(cli.words[0], "write") == 0;
	if (!writes && strcmp(cli.words[0], "read") != 0)
		return cli_fail(EINVAL, "usage: lio device [read|write] HOST[:PORT]",
				"device: %s: neither read nor write", cli.words[0]);
	r.buf = malloc(CHUNK);
	status = (writes ? cmd_device_write : cmd_device_read)(&cli, cli.words[1], &r);
	nvme_host_free(r.host);
	free(r.buf);
	return status;
}
