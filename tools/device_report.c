/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_report.c - what a device says of itself, for people and for programs.
 *
 * Its texts are whatever the device sent: control bytes do not reach the terminal.
 */
#include <inttypes.h>
#include <string.h>

#include "device.h"

#define KELVIN     273
#define SMART_UNIT 512000u /* bytes in a unit of data read or written */
#define TEXT_MAX   256

/* Fixed fields are padded with spaces, or end in a NUL. */
static size_t text_len(const char *p, size_t max)
{
	size_t n = strnlen(p, max);

	while (n && p[n - 1] == ' ')
		n--;
	return n;
}

static char *clean(char out[TEXT_MAX], const char *p, size_t max)
{
	size_t n = text_len(p, max < TEXT_MAX ? max : TEXT_MAX - 1);

	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)p[i] < 0x20 || (unsigned char)p[i] > 0x7e ? '?' : p[i];
	out[n] = 0;
	return out;
}

/* Of a 16-byte counter; what is above 64 bits is as good as the largest number. */
static uint64_t counter(const nvme_le64 c[2])
{
	return nvme_get64(c[1]) ? UINT64_MAX : nvme_get64(c[0]);
}

static uint64_t unit_bytes(const nvme_le64 c[2])
{
	uint64_t n = counter(c);

	return n > UINT64_MAX / SMART_UNIT ? UINT64_MAX : n * SMART_UNIT;
}

static uint64_t ns_bytes(const struct nvme_host_ns *ns)
{
	return ns->blocks * ns->block;
}

static void hex(char out[33], const uint8_t id[16])
{
	for (int i = 0; i < 16; i++)
		sprintf(out + 2 * i, "%02x", id[i]);
}

/* ---- for people ---- */

static const char *const warnings[] = {
	"spare space is low", "temperature is out of range", "reliability is degraded",
	"it is read-only",    "its volatile backup failed",  "its persistent memory is read-only",
};
#define N_WARNINGS (sizeof(warnings) / sizeof(*warnings))

static void health(FILE *to, const struct nvme_log_smart *h)
{
	char read[32], written[32];
	const char *sep = "";

	fputs("  health      ", to);
	if (!h->critical)
		fputs("good", to);
	for (size_t i = 0; i < N_WARNINGS; i++)
		if (h->critical >> i & 1) {
			fprintf(to, "%s%s", sep, warnings[i]);
			sep = ", ";
		}
	if (nvme_get16(h->temperature))
		fprintf(to, "; %d °C", nvme_get16(h->temperature) - KELVIN);
	fprintf(to,
		"; spare %u %%, used %u %%; media errors %" PRIu64 ", error log entries %" PRIu64
		"\n",
		h->spare, h->used, counter(h->media_errors), counter(h->error_entries));
	fprintf(to, "  traffic     %s read in %" PRIu64 " commands, %s written in %" PRIu64 "\n",
		cli_size_text(read, unit_bytes(h->units_read)), counter(h->reads),
		cli_size_text(written, unit_bytes(h->units_written)), counter(h->writes));
}

static void namespaces(FILE *to, const struct device *d)
{
	if (!d->n_ns)
		fputs("  namespaces  none\n", to);
	for (size_t i = 0; i < d->n_ns; i++) {
		const struct nvme_host_ns *ns = &d->ns[i];
		char size[32], id[33];

		hex(id, ns->nguid);
		fprintf(to, "  %s  %u: %s in blocks of %u bytes, %s%s\n",
			i ? "          " : "namespaces", ns->nsid,
			cli_size_text(size, ns_bytes(ns)), ns->block,
			ns->read_only ? "read-only, " : "", id);
	}
}

static void one(FILE *to, const struct device *d)
{
	char a[TEXT_MAX], b[TEXT_MAX], c[TEXT_MAX], transfer[32], capsule[32];
	uint32_t version = nvme_get32(d->id.ver);

	fprintf(to, "%s at ", clean(a, d->nqn, sizeof(d->nqn)));
	fprintf(to, "%s\n", clean(a, d->address, sizeof(d->address)));
	if (d->error) {
		fprintf(to, "  not reached %s\n", d->error);
		return;
	}
	fprintf(to, "  controller  %u: %s, serial %s, firmware %s, NVMe %u.%u\n", d->info.cntlid,
		clean(a, d->id.mn, sizeof(d->id.mn)), clean(b, d->id.sn, sizeof(d->id.sn)),
		clean(c, d->id.fr, sizeof(d->id.fr)), version >> 16, version >> 8 & 0xff);
	fprintf(to, "  limits      %s a transfer, %s in a command, queues of %u\n",
		cli_size_text(transfer, d->info.max_transfer),
		cli_size_text(capsule, d->info.in_capsule), d->info.depth);
	if (d->has_health)
		health(to, &d->health);
	namespaces(to, d);
}

void device_report(FILE *to, const struct device *devices, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (i)
			fputc('\n', to);
		one(to, &devices[i]);
	}
}

/* ---- for programs ---- */

static void add(json_object *to, const char *name, uint64_t value)
{
	json_object_object_add(to, name, json_object_new_uint64(value));
}

static void add_text(json_object *to, const char *name, const char *p, size_t max)
{
	json_object_object_add(to, name, cli_json_text(p, text_len(p, max)));
}

static json_object *controller_json(const struct device *d)
{
	json_object *o = json_object_new_object();
	uint32_t version = nvme_get32(d->id.ver);
	char text[32];

	add(o, "id", d->info.cntlid);
	add_text(o, "model", d->id.mn, sizeof(d->id.mn));
	add_text(o, "serial", d->id.sn, sizeof(d->id.sn));
	add_text(o, "firmware", d->id.fr, sizeof(d->id.fr));
	snprintf(text, sizeof(text), "%u.%u", version >> 16, version >> 8 & 0xff);
	add_text(o, "version", text, sizeof(text));
	add(o, "max_transfer", d->info.max_transfer);
	add(o, "in_capsule", d->info.in_capsule);
	add(o, "queue_depth", d->info.depth);
	return o;
}

static json_object *health_json(const struct nvme_log_smart *h)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();

	for (size_t i = 0; i < N_WARNINGS; i++)
		if (h->critical >> i & 1)
			json_object_array_add(list, json_object_new_string(warnings[i]));
	json_object_object_add(o, "warnings", list);
	json_object_object_add(o, "temperature_celsius",
			       nvme_get16(h->temperature)
				       ? json_object_new_int(nvme_get16(h->temperature) - KELVIN)
				       : NULL);
	add(o, "spare_percent", h->spare);
	add(o, "used_percent", h->used);
	add(o, "bytes_read", unit_bytes(h->units_read));
	add(o, "bytes_written", unit_bytes(h->units_written));
	add(o, "reads", counter(h->reads));
	add(o, "writes", counter(h->writes));
	add(o, "power_on_hours", counter(h->hours));
	add(o, "power_cycles", counter(h->power_cycles));
	add(o, "unsafe_shutdowns", counter(h->unsafe));
	add(o, "media_errors", counter(h->media_errors));
	add(o, "error_log_entries", counter(h->error_entries));
	return o;
}

static json_object *namespace_json(const struct nvme_host_ns *ns)
{
	json_object *o = json_object_new_object();
	char id[33];

	hex(id, ns->nguid);
	add(o, "nsid", ns->nsid);
	add(o, "bytes", ns_bytes(ns));
	add(o, "block", ns->block);
	json_object_object_add(o, "read_only", json_object_new_boolean(ns->read_only));
	add_text(o, "nguid", id, sizeof(id));
	return o;
}

json_object *device_json(const char *address, const struct device *devices, size_t n)
{
	json_object *doc = json_object_new_object(), *list = json_object_new_array();

	json_object_object_add(doc, "schema", json_object_new_string("lio-device/1"));
	json_object_object_add(doc, "address", cli_json_text(address, strlen(address)));
	json_object_object_add(doc, "subsystems", list);
	for (size_t i = 0; i < n; i++) {
		const struct device *d = &devices[i];
		json_object *o = json_object_new_object(), *ns = json_object_new_array();

		json_object_array_add(list, o);
		add_text(o, "nqn", d->nqn, sizeof(d->nqn));
		add_text(o, "address", d->address, sizeof(d->address));
		json_object_object_add(o, "error",
				       d->error ? cli_json_text(d->error, strlen(d->error)) : NULL);
		json_object_object_add(o, "controller", d->error ? NULL : controller_json(d));
		json_object_object_add(o, "health", d->has_health ? health_json(&d->health) : NULL);
		json_object_object_add(o, "namespaces", ns);
		for (size_t k = 0; k < d->n_ns; k++)
			json_object_array_add(ns, namespace_json(&d->ns[k]));
	}
	return doc;
}
