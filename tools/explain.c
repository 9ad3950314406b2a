/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain.c - what a run decided and what it cost, for people and as JSON; and the facts of a file
 * that such a decision stands on.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lio.h"

const char *cli_engine_name(enum lio_engine engine)
{
	static const char *const names[] = {"auto", "user", "kernel", "device"};

	return (unsigned)engine < sizeof(names) / sizeof(names[0]) ? names[engine] : "?";
}

/* ---- the file ---- */

#define SYS_CACHESTAT 451 /* Linux 6.5, the same on every architecture */

struct cachestat_range {
	uint64_t off, len;
};
struct cachestat { /* include/uapi/linux/mman.h; counted in pages */
	uint64_t nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted;
};

static double cached_by_cachestat(int fd, uint64_t offset, uint64_t length)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t pages = (offset + length + page - 1) / page - offset / page;
	struct cachestat_range range = {offset, length};
	struct cachestat cs;

	if (syscall(SYS_CACHESTAT, fd, &range, &cs, 0u) != 0)
		return -1;
	return pages ? (double)cs.nr_cache / (double)pages : -1;
}

static double cached_by_mincore(int fd, uint64_t offset, uint64_t length)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), start = offset - offset % page;
	uint64_t step = 1u << 30, seen = 0, pages = 0, end = offset + length;
	unsigned char *vec = malloc(step / page);

	for (uint64_t at = start; vec && at < end; at += step) {
		uint64_t len = end - at < step ? end - at : step, n = (len + page - 1) / page;
		void *p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)at);
		int err = p == MAP_FAILED ? -1 : mincore(p, len, vec);

		if (p != MAP_FAILED)
			munmap(p, len);
		if (err) {
			free(vec);
			return -1;
		}
		for (uint64_t i = 0; i < n; i++)
			seen += vec[i] & 1;
		pages += n;
	}
	free(vec);
	return pages ? (double)seen / (double)pages : -1;
}

static void remote_facts(const char *url, struct cli_facts *facts)
{
	struct lio_stat st = {.size = sizeof(st)};

	*facts = (struct cli_facts){
		.size = -1, .cached = -1, .cached_by = "only its server can tell"};
	if (lio_stat(url, &st) == 0 && st.type == LIO_TYPE_FILE)
		facts->size = (int64_t)st.bytes;
}

static void local_facts(const char *path, uint64_t offset, uint64_t length, struct cli_facts *facts)
{
	struct stat st;
	int fd = strcmp(path, "-") == 0 ? STDIN_FILENO
					: open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	*facts = (struct cli_facts){
		.size = -1, .cached = -1, .cached_by = "it is not a regular file"};
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		facts->size = st.st_size;
		offset = offset < (uint64_t)st.st_size ? offset : (uint64_t)st.st_size;
		if (length > (uint64_t)st.st_size - offset)
			length = (uint64_t)st.st_size - offset;
		facts->cached_by = "the range is empty";
		if (length) {
			facts->cached_by = "cachestat";
			facts->cached = cached_by_cachestat(fd, offset, length);
			if (facts->cached < 0) {
				facts->cached_by = "mincore";
				facts->cached = cached_by_mincore(fd, offset, length);
			}
			if (facts->cached < 0)
				facts->cached_by = "neither cachestat nor mincore tells";
		}
	}
	if (fd > STDIN_FILENO)
		close(fd);
}

void cli_facts(const char *path, uint64_t offset, uint64_t length, struct cli_facts *facts)
{
	if (cli_is_url(path))
		remote_facts(path, facts);
	else
		local_facts(path, offset, length, facts);
}

/* ---- for people ---- */

static const char *kind_text(const struct lio_function_info *info)
{
	switch (info->kind) {
	case LIO_KIND_MAP:
		return "map: pieces run anywhere, outputs are joined in file order";
	case LIO_KIND_SCAN:
		return "scan: pieces run in file order, one at a time";
	case LIO_KIND_FOLD:
		break;
	}
	return info->parallel ? "fold: pieces run anywhere, states are merged in file order"
			      : "fold without a merge: pieces run in file order, one at a time";
}

static const char *size_limit(char buf[64], uint64_t set, uint64_t standard)
{
	char size[32];

	snprintf(buf, 64, "%s%s", cli_size_text(size, set ? set : standard),
		 set ? "" : " (default)");
	return buf;
}

static void explain_budgets(FILE *to, const struct cli *cli)
{
	char memory[64], output[64], time[32], fuel[96];

	if (cli->fuel)
		snprintf(fuel, sizeof(fuel), "%" PRIu64 " instructions", cli->fuel);
	else
		snprintf(fuel, sizeof(fuel), "%llu + %llu per input byte for each call (default)",
			 LAMBDA_FUEL_CALL, LAMBDA_FUEL_BYTE);
	fprintf(to, "fuel        %s\n", fuel);
	fprintf(to, "memory      %s for each call\n",
		size_limit(memory, cli->memory, LAMBDA_MEMORY_DEFAULT));
	fprintf(to, "max output  %s\n", size_limit(output, cli->max_output, LAMBDA_OUTPUT_DEFAULT));
	fprintf(to, "timeout     %s\n",
		cli->timeout_ns ? cli_time_text(time, cli->timeout_ns) : "none (default)");
}

static void explain_file(FILE *to, const struct cli_request *req, const struct cli_facts *facts)
{
	char size[32];

	fprintf(to, "file        %s", req->path);
	if (facts->size >= 0)
		fprintf(to, ", %s", cli_size_text(size, (uint64_t)facts->size));
	if (facts->cached >= 0)
		fprintf(to, ", %.0f %% of the range in the page cache (%s)\n", 100 * facts->cached,
			facts->cached_by);
	else
		fprintf(to, ", cached share unknown: %s\n", facts->cached_by);
}

static void explain_costs(FILE *to, const struct lio_result *r)
{
	char a[32], b[32], c[32], d[32];

	fprintf(to, "bytes       %" PRIu64 " in, %" PRIu64 " out", r->bytes_in, r->bytes_out);
	if (r->trailing)
		fprintf(to, ", %" PRIu64 " of an incomplete last record left out", r->trailing);
	fprintf(to, "\ntime        %s: input %s and function %s over all threads, compiling %s\n",
		cli_time_text(a, r->wall_ns), cli_time_text(b, r->io_ns),
		cli_time_text(c, r->run_ns), cli_time_text(d, r->compile_ns));
	if (r->queue_ns)
		fprintf(to, "queue       %s until it was its turn at the server\n",
			cli_time_text(a, r->queue_ns));
	if (r->wall_ns)
		fprintf(to, "speed       %.3f GB/s\n", (double)r->bytes_in / (double)r->wall_ns);
	fprintf(to, "calls       %" PRIu64 ", %" PRIu64 " run again; %" PRIu64 " of fuel\n",
		r->calls, r->reruns, r->fuel);
}

static void explain_tier(FILE *to, const struct cli *cli, const struct lio_result *r)
{
	const char *asked = sbpf_tier_name((enum sbpf_tier)cli->tier);
	char bytes[32];

	if (r->tier_first != r->tier)
		fprintf(to, "tier        %s for the first %s of input, then %s (asked for: %s)\n",
			sbpf_tier_name((enum sbpf_tier)r->tier_first),
			cli_size_text(bytes, r->switch_bytes),
			sbpf_tier_name((enum sbpf_tier)r->tier), asked);
	else
		fprintf(to, "tier        %s (asked for: %s)\n",
			sbpf_tier_name((enum sbpf_tier)r->tier), asked);
	if (r->tier_why[0])
		fprintf(to, "            %s\n", r->tier_why);
}

void cli_explain(FILE *to, const struct cli *cli, const struct cli_request *req,
		 const struct cli_facts *facts)
{
	const struct lio_result *r = &req->result;
	char chunk[64];

	fprintf(to, "function    %s (%s)\n", req->info.name, kind_text(&req->info));
	explain_file(to, req, facts);
	fprintf(to, "engine      %s (asked for: %s)\n", cli_engine_name(r->engine),
		cli_engine_name((enum lio_engine)cli->engine));
	explain_tier(to, cli, r);
	fprintf(to, "input by    %s\n", r->io ? r->io : "nothing was read");
	fprintf(to, "because     %s\n", r->why[0] ? r->why : "nothing was to be decided");
	fprintf(to, "threads     %u%s\n", r->threads, cli->threads ? "" : " (default)");
	fprintf(to, "chunk       %s\n", size_limit(chunk, cli->chunk, LAMBDA_CHUNK_DEFAULT));
	explain_budgets(to, cli);
	explain_costs(to, r);
}

/* ---- for programs ---- */

static void add_u64(json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_uint64(value));
}

static void add_text(json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, cli_json_text(text, strlen(text)));
}

json_object *cli_result_json(const struct lio_result *r)
{
	json_object *o = json_object_new_object();

	add_u64(o, "bytes_in", r->bytes_in);
	add_u64(o, "bytes_out", r->bytes_out);
	add_u64(o, "bytes_written", r->bytes_written);
	add_u64(o, "trailing_bytes", r->trailing);
	add_u64(o, "wall_ns", r->wall_ns);
	add_u64(o, "io_ns", r->io_ns);
	add_u64(o, "run_ns", r->run_ns);
	add_u64(o, "compile_ns", r->compile_ns);
	add_u64(o, "queue_ns", r->queue_ns);
	add_u64(o, "fuel", r->fuel);
	add_u64(o, "calls", r->calls);
	add_u64(o, "reruns", r->reruns);
	add_u64(o, "threads", r->threads);
	add_text(o, "engine", cli_engine_name(r->engine));
	add_text(o, "tier", sbpf_tier_name((enum sbpf_tier)r->tier));
	add_text(o, "tier_first", sbpf_tier_name((enum sbpf_tier)r->tier_first));
	add_u64(o, "switch_bytes", r->switch_bytes);
	add_text(o, "tier_why", r->tier_why);
	add_text(o, "io", r->io ? r->io : "");
	add_text(o, "why", r->why);
	return o;
}

json_object *cli_explain_json(const struct cli *cli, const struct cli_request *req,
			      const struct cli_facts *facts)
{
	static const char *const kinds[] = {"map", "scan", "fold"};
	json_object *o = json_object_new_object(), *budgets = json_object_new_object();
	char buf[32];

	add_text(o, "kind", kinds[req->info.kind]);
	json_object_object_add(o, "parallel", json_object_new_boolean(req->info.parallel));
	json_object_object_add(o, "file_bytes",
			       facts->size < 0 ? NULL : json_object_new_int64(facts->size));
	json_object_object_add(
		o, "cached_share",
		facts->cached < 0 ? NULL
				  : json_object_new_double_s(facts->cached,
							     cli_double_text(buf, facts->cached)));
	add_text(o, "cached_by", facts->cached_by);
	add_text(o, "engine_asked", cli_engine_name((enum lio_engine)cli->engine));
	add_text(o, "tier_asked", sbpf_tier_name((enum sbpf_tier)cli->tier));
	add_u64(o, "chunk", cli->chunk ? cli->chunk : LAMBDA_CHUNK_DEFAULT);
	if (cli->fuel) {
		add_u64(budgets, "fuel", cli->fuel);
	} else {
		add_u64(budgets, "fuel_per_call", LAMBDA_FUEL_CALL);
		add_u64(budgets, "fuel_per_byte", LAMBDA_FUEL_BYTE);
	}
	add_u64(budgets, "memory", cli->memory ? cli->memory : LAMBDA_MEMORY_DEFAULT);
	add_u64(budgets, "max_output", cli->max_output ? cli->max_output : LAMBDA_OUTPUT_DEFAULT);
	json_object_object_add(budgets, "timeout_ns",
			       cli->timeout_ns ? json_object_new_uint64(cli->timeout_ns) : NULL);
	json_object_object_add(o, "budgets", budgets);
	return o;
}
