/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_metrics.c - what was done, how long it took and what was refused, for Prometheus.
 *
 * Counters are a loop's own and written without a locked instruction; whoever asks adds the loops up.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "device/compute.h"
#include "device/server_private.h"

static const char *const outcome_names[OUTCOMES] = {
	[OUTCOME_SUCCESS] = "success",   [OUTCOME_REFUSED] = "refused",
	[OUTCOME_MEDIA] = "media_error", [OUTCOME_INTERNAL] = "internal_error",
	[OUTCOME_ABORTED] = "aborted",
};

/* ---- rows: those of the command sets one after the other, and one for unknown commands ---- */

static const struct {
	const char *name;
	const struct ctrl_command_set *set;
} sets[] = {
	{"nvm", &ctrl_nvm_set},
	{"lambda", &ctrl_lambda_set},
	{"object", &ctrl_object_set},
	{"slm", &ctrl_slm_set},
	{"cp", &ctrl_cp_set},
	{"admin", &ctrl_admin_set},
	{"discovery", &ctrl_discovery_set},
	{"fabrics", &ctrl_fabrics_set},
};

static uint32_t row_index(const struct ctrl_command *row)
{
	uint32_t base = 0;

	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		const struct ctrl_command_set *set = sets[i].set;

		if (row >= set->rows && row < set->rows + set->n)
			return base + (uint32_t)(row - set->rows);
		base += set->n;
	}
	return base;
}

static uint32_t n_rows(void)
{
	return row_index(NULL) + 1;
}

/* Labels of a row. */
static void row_labels(uint32_t row, char *text, size_t size)
{
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		const struct ctrl_command_set *set = sets[i].set;

		if (row < set->n) {
			snprintf(text, size, "set=\"%s\",command=\"%s\"", sets[i].name,
				 set->rows[row].name);
			return;
		}
		row -= set->n;
	}
	snprintf(text, size, "set=\"none\",command=\"unknown\"");
}

int metrics_init(struct server_loop *l)
{
	l->commands = calloc(n_rows(), sizeof(*l->commands));
	return l->commands ? 0 : -ENOMEM;
}

/* ---- counting ---- */

static enum outcome outcome_of(uint16_t status)
{
	status &= 0x7ff; /* type and code */
	if (status == NVME_SC_SUCCESS)
		return OUTCOME_SUCCESS;
	if (status == NVME_SC_ABORT_REQUESTED || status == NVME_SC_ABORT_SQ_DELETED)
		return OUTCOME_ABORTED;
	if (status == NVME_SC_INTERNAL)
		return OUTCOME_INTERNAL;
	return status >> 8 == 2 ? OUTCOME_MEDIA : OUTCOME_REFUSED;
}

static uint32_t bucket_of(uint64_t ns)
{
	uint64_t n = (ns + LATENCY_FIRST_NS - 1) / LATENCY_FIRST_NS; /* bucket i ends at 2^i */
	uint32_t i = n > 1 ? 64u - (uint32_t)__builtin_clzll(n - 1) : 0;

	return i < LATENCY_BUCKETS ? i : LATENCY_BUCKETS - 1;
}

/* Only the loop's thread writes, so that no locked instruction is needed. */
static void add(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

void ctrl_server_began(const struct ctrl_cmd *cmd)
{
	struct server_loop *l = ctrl_loop_user(cmd->q->loop);

	cmd->q->in_flight++;
	add(&l->in_flight, 1);
}

void ctrl_server_count(const struct ctrl_cmd *cmd, uint16_t status)
{
	struct server_loop *l = ctrl_loop_user(cmd->q->loop);
	struct command_counters *c = &l->commands[row_index(cmd->row)];
	enum outcome outcome = outcome_of(status);
	uint64_t ns = ctrl_now_ns() - cmd->start_ns;

	if (cmd->q->in_flight) {
		cmd->q->in_flight--;
		add(&l->in_flight, UINT64_MAX); /* one less */
	}
	add(&c->outcome[outcome], 1);
	add(&c->ns, ns);
	add(&c->latency[bucket_of(ns)], 1);
	if (outcome == OUTCOME_SUCCESS)
		add(&c->bytes, cmd->data_len);
	if (cmd->q->qid && !cmd->q->carries_io) {
		cmd->q->carries_io = true;
		atomic_fetch_add(&l->io_queues, 1);
	}
}

void ctrl_server_reject(struct ctrl_server *s, const char *why)
{
	uint32_t i = 0;

	pthread_mutex_lock(&s->lock);
	while (i < SERVER_REASONS - 1 && s->reasons[i].why && strcmp(s->reasons[i].why, why) != 0)
		i++;
	if (!s->reasons[i].why)
		s->reasons[i].why = i < SERVER_REASONS - 1 ? why : "other";
	s->reasons[i].n++;
	pthread_mutex_unlock(&s->lock);
}

/* ---- telling ---- */

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static uint64_t sum(const struct ctrl_server *s, uint32_t row, size_t offset)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < s->n_loops; i++)
		n += atomic_load_explicit(
			(atomic_uint_fast64_t *)(void *)((char *)&s->loops[i].commands[row] +
							 offset),
			memory_order_relaxed);
	return n;
}

static uint64_t sum_outcomes(const struct ctrl_server *s, uint32_t row)
{
	uint64_t n = 0;

	for (uint32_t o = 0; o < OUTCOMES; o++)
		n += sum(s, row, offsetof(struct command_counters, outcome[o]));
	return n;
}

static void tell_commands(struct ctrl_server *s, FILE *out)
{
	char labels[128];

	family(out, "liod_commands_total", "counter", "Commands by kind and outcome.");
	for (uint32_t row = 0; row < n_rows(); row++) {
		row_labels(row, labels, sizeof(labels));
		for (uint32_t o = 0; o < OUTCOMES; o++) {
			uint64_t n = sum(s, row, offsetof(struct command_counters, outcome[o]));

			/* A success of 0 says that the command exists; the rest comes when it happens. */
			if (n || o == OUTCOME_SUCCESS)
				fprintf(out, "liod_commands_total{%s,outcome=\"%s\"} %" PRIu64 "\n",
					labels, outcome_names[o], n);
		}
	}
	family(out, "liod_command_bytes_total", "counter", "Data that successful commands moved.");
	for (uint32_t row = 0; row < n_rows(); row++) {
		uint64_t n = sum(s, row, offsetof(struct command_counters, bytes));

		row_labels(row, labels, sizeof(labels));
		if (n)
			fprintf(out, "liod_command_bytes_total{%s} %" PRIu64 "\n", labels, n);
	}
}

static void tell_latency(struct ctrl_server *s, FILE *out)
{
	const char *name = "liod_command_duration_seconds";
	char labels[128];

	family(out, name, "histogram",
	       "From a command's arrival to its answer; the rate of the sum is the mean queue "
	       "depth.");
	for (uint32_t row = 0; row < n_rows(); row++) {
		uint64_t total = sum_outcomes(s, row), below = 0;

		if (!total)
			continue;
		row_labels(row, labels, sizeof(labels));
		for (uint32_t b = 0; b < LATENCY_BUCKETS - 1; b++) {
			below += sum(s, row, offsetof(struct command_counters, latency[b]));
			fprintf(out, "%s_bucket{%s,le=\"%.6f\"} %" PRIu64 "\n", name, labels,
				(double)((uint64_t)LATENCY_FIRST_NS << b) / 1e9, below);
		}
		below += sum(s, row,
			     offsetof(struct command_counters, latency[LATENCY_BUCKETS - 1]));
		fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels, below);
		fprintf(out, "%s_sum{%s} %.9f\n", name, labels,
			(double)sum(s, row, offsetof(struct command_counters, ns)) / 1e9);
		fprintf(out, "%s_count{%s} %" PRIu64 "\n", name, labels, below);
	}
}

static void tell_connections(struct ctrl_server *s, FILE *out)
{
	family(out, "liod_connections", "gauge", "Connections now.");
	fprintf(out, "liod_connections %" PRIuFAST32 "\n", atomic_load(&s->connections));
	family(out, "liod_connections_accepted_total", "counter", "Connections accepted.");
	fprintf(out, "liod_connections_accepted_total %" PRIuFAST64 "\n",
		atomic_load(&s->accepted));
	family(out, "liod_rejections_total", "counter",
	       "Connections refused or ended for cause, by cause.");
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < SERVER_REASONS && s->reasons[i].why; i++)
		fprintf(out, "liod_rejections_total{reason=\"%s\"} %" PRIu64 "\n",
			s->reasons[i].why, s->reasons[i].n);
	pthread_mutex_unlock(&s->lock);
	family(out, "liod_io_queues", "gauge", "I/O queues of each event loop.");
	for (uint32_t i = 0; i < s->n_loops; i++)
		fprintf(out, "liod_io_queues{loop=\"%" PRIu32 "\"} %" PRIuFAST32 "\n", i,
			atomic_load(&s->loops[i].io_queues));
	family(out, "liod_commands_in_flight", "gauge",
	       "Queue depth: commands that are not answered yet.");
	for (uint32_t i = 0; i < s->n_loops; i++)
		fprintf(out, "liod_commands_in_flight{loop=\"%" PRIu32 "\"} %" PRIuFAST64 "\n", i,
			atomic_load(&s->loops[i].in_flight));
	family(out, "liod_buffer_bytes", "gauge", "Memory of data buffers, of each event loop.");
	for (uint32_t i = 0; i < s->n_loops; i++)
		fprintf(out, "liod_buffer_bytes{loop=\"%" PRIu32 "\"} %" PRIu64 "\n", i,
			ctrl_loop_buffer_bytes(s->loops[i].loop));
}

static void tell_namespaces(struct ctrl_server *s, FILE *out)
{
	family(out, "liod_namespace_bytes", "gauge", "Size of each namespace.");
	for (struct ctrl_subsystem *sub = s->subsystems; sub; sub = sub->next) {
		for (uint32_t i = 0; i < ctrl_subsystem_count(sub); i++)
			fprintf(out,
				"liod_namespace_bytes{nqn=\"%s\",nsid=\"%" PRIu32
				"\",store=\"%s\",how=\"%s\"} %" PRIu64 "\n",
				sub->nqn, sub->ns[i].nsid, sub->ns[i].store->ops->name,
				sub->ns[i].store->how,
				ctrl_namespace_blocks(&sub->ns[i]) << sub->ns[i].shift);
	}
}

void ctrl_server_metrics(struct ctrl_server *s, FILE *out)
{
	family(out, "liod_info", "gauge", "The server's version.");
	fprintf(out, "liod_info{version=\"%s\"} 1\n", LIO_VERSION);
	tell_commands(s, out);
	tell_latency(s, out);
	tell_connections(s, out);
	tell_namespaces(s, out);
	ctrl_exports_metrics(s, out);
	ctrl_lambda_metrics(s, out);
	ctrl_workers_metrics(s, out);
}
