/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_log.c - log pages, read by offset and length.
 *
 * Owns: the pages but for discovery's entries (discovery.c).
 */
#include <stdlib.h>
#include <string.h>

#include "device/compute.h"

#define PAGE 4096u

static void log_error(struct ctrl_cmd *cmd, uint8_t *page)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	const uint32_t cap = sizeof(c->log) / sizeof(*c->log);
	struct nvme_log_error *out = (struct nvme_log_error *)page;

	pthread_mutex_lock(&c->sub->lock);
	for (uint32_t i = 0; i < cap && i < c->log_at; i++)
		out[i] = c->log[(c->log_at - 1 - i) % cap];
	pthread_mutex_unlock(&c->sub->lock);
}

static void log_smart(struct ctrl_cmd *cmd, uint8_t *page)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	struct nvme_log_smart *log = (struct nvme_log_smart *)page;

	log->temperature = nvme_put16(CTRL_KELVIN);
	log->critical = ctrl_too_hot(c) ? NVME_SMART_TEMPERATURE : 0;
	log->spare = 100;
	/* units are thousands of 512 bytes, rounded up */
	log->units_read[0] = nvme_put64((atomic_load(&c->read_units) + 999) / 1000);
	log->units_written[0] = nvme_put64((atomic_load(&c->write_units) + 999) / 1000);
	log->reads[0] = nvme_put64(atomic_load(&c->reads));
	log->writes[0] = nvme_put64(atomic_load(&c->writes));
	log->error_entries[0] = nvme_put64(atomic_load(&c->errors));
}

static void log_firmware(struct ctrl_cmd *cmd, uint8_t *page)
{
	page[0] = 1; /* slot 1 is active */
	memset(page + 8, ' ', 8);
	memcpy(page + 8, LIO_VERSION, strlen(LIO_VERSION) < 8 ? strlen(LIO_VERSION) : 8);
}

static void log_changed(struct ctrl_cmd *cmd, uint8_t *page)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	bool retain = nvme_get32(cmd->sqe.cdw10) & 1u << 15;
	nvme_le32 *list = (nvme_le32 *)page;
	uint32_t n = 0;

	_Static_assert(CTRL_MAX_NAMESPACES <= PAGE / sizeof(*list), "the page holds all of them");
	pthread_mutex_lock(&c->sub->lock);
	for (uint32_t i = 0; i < CTRL_MAX_NAMESPACES && c->changed_any; i++) {
		if (c->changed[i / 64] >> i % 64 & 1)
			list[n++] = nvme_put32(i + 1);
	}
	if (!retain) {
		memset(c->changed, 0, sizeof(c->changed));
		c->changed_any = false;
	}
	pthread_mutex_unlock(&c->sub->lock);
	if (!retain) {
		c->event_masked = false;
		ctrl_events_flush(c);
	}
}

static uint8_t asked_csi(const struct ctrl_cmd *cmd)
{
	return (uint8_t)(nvme_get32(cmd->sqe.cdw14) >> 24);
}

static void log_effects(struct ctrl_cmd *cmd, uint8_t *page)
{
	struct nvme_log_effects *log = (struct nvme_log_effects *)page;

	for (uint32_t i = 0; i < ctrl_admin_set.n; i++)
		log->admin[ctrl_admin_set.rows[i].opcode] =
			nvme_put32(NVME_EFFECT_SUPPORTED | ctrl_admin_set.rows[i].effects);
	for (uint32_t s = 0; s < CTRL_IO_SETS; s++) {
		const struct ctrl_command_set *set = ctrl_io_sets[s].set;
		int csi = ctrl_io_sets[s].csi;

		if (csi >= 0 && csi != asked_csi(cmd))
			continue;
		for (uint32_t i = 0; i < set->n; i++)
			log->io[set->rows[i].opcode] =
				nvme_put32(NVME_EFFECT_SUPPORTED | set->rows[i].effects);
	}
}

static void log_feature_effects(struct ctrl_cmd *cmd, uint8_t *page)
{
	nvme_le32 *log = (nvme_le32 *)page;

	for (unsigned int fid = 0; fid < 256; fid++) {
		if (ctrl_feature_exists((uint8_t)fid))
			log[fid] =
				nvme_put32(1u << 0 | 1u << 21); /* supported; of the controller */
	}
}

/* None of the commands of the management interface: nothing leads to it over a fabric. */
static void log_mi_effects(struct ctrl_cmd *cmd, uint8_t *page)
{
}

static void log_supported(struct ctrl_cmd *cmd, uint8_t *page);

static const struct log_page {
	uint8_t lid;
	bool io, discovery;                                /* of which controllers */
	uint32_t len;                                      /* at most PAGE */
	void (*fill)(struct ctrl_cmd *cmd, uint8_t *page); /* page is zeroed; NULL: discovery.c */
} log_pages[] = {
	{NVME_LOG_SUPPORTED, true, true, 1024, log_supported},
	{NVME_LOG_ERROR, true, true, 16 * sizeof(struct nvme_log_error), log_error},
	{NVME_LOG_SMART, true, false, sizeof(struct nvme_log_smart), log_smart},
	{NVME_LOG_FIRMWARE, true, false, 512, log_firmware},
	{NVME_LOG_CHANGED_NS, true, false, PAGE, log_changed},
	{NVME_LOG_EFFECTS, true, false, sizeof(struct nvme_log_effects), log_effects},
	{NVME_LOG_FEATURE_EFFECTS, true, true, 1024, log_feature_effects},
	{NVME_LOG_MI_EFFECTS, true, false, PAGE, log_mi_effects},
	{NVME_LOG_DISCOVERY, false, true, 0, NULL},
	/* of a compute namespace: compute_admin.c */
	{NVME_LOG_PROGRAMS, true, false, 0, NULL},
	{NVME_LOG_PROGRAM_TYPES, true, false, 0, NULL},
	{NVME_LOG_MEMORY_RANGE_SETS, true, false, 0, NULL},
};
#define N_PAGES (sizeof(log_pages) / sizeof(*log_pages))

static bool has_programs(const struct ctrl_subsystem *sub)
{
	for (uint32_t i = 0; i < ctrl_subsystem_count(sub); i++) {
		if (sub->ns[i].store->geo.csi == NVME_CSI_CP)
			return true;
	}
	return false;
}

static bool offered(const struct ctrl_cmd *cmd, const struct log_page *log)
{
	if (log->io && !log->fill && !has_programs(cmd->q->ctrl->sub))
		return false;
	return cmd->q->ctrl->sub->discovery ? log->discovery : log->io;
}

static void log_supported(struct ctrl_cmd *cmd, uint8_t *page)
{
	nvme_le32 *log = (nvme_le32 *)page;

	for (size_t i = 0; i < N_PAGES; i++) {
		if (offered(cmd, &log_pages[i]))
			log[log_pages[i].lid] = nvme_put32(1);
	}
}

static const struct log_page *log_find(const struct ctrl_cmd *cmd)
{
	uint8_t lid = nvme_get32(cmd->sqe.cdw10) & 0xff;

	for (size_t i = 0; i < N_PAGES; i++) {
		if (log_pages[i].lid == lid && offered(cmd, &log_pages[i]))
			return &log_pages[i];
	}
	return NULL;
}

static uint64_t log_offset(const struct ctrl_cmd *cmd)
{
	return nvme_get32(cmd->sqe.cdw12) | (uint64_t)nvme_get32(cmd->sqe.cdw13) << 32;
}

uint16_t ctrl_log_prepare(struct ctrl_cmd *cmd)
{
	uint64_t dwords = (nvme_get32(cmd->sqe.cdw10) >> 16 |
			   (uint64_t)(nvme_get32(cmd->sqe.cdw11) & 0xffff) << 16) +
			  1;
	uint32_t nsid = nvme_get32(cmd->sqe.nsid);
	const struct log_page *log = log_find(cmd);

	if (!log)
		return NVME_SC_INVALID_LOG_PAGE;
	if (dwords * 4 > ctrl_server_limits(cmd->q->server)->max_transfer)
		return NVME_SC_INVALID_FIELD;
	/* By bytes, not by index; on dwords; within the page. */
	if ((nvme_get32(cmd->sqe.cdw14) & 1u << 23) || log_offset(cmd) % 4 ||
	    (log->fill && log_offset(cmd) > log->len))
		return NVME_SC_INVALID_FIELD;
	if (log->lid == NVME_LOG_EFFECTS && !ctrl_csi_known(asked_csi(cmd)))
		return NVME_SC_INVALID_FIELD;
	if (!log->fill && log->io) {
		cmd->ns = ctrl_namespace(cmd->q->ctrl, nsid);
		if (!cmd->ns || cmd->ns->store->geo.csi != NVME_CSI_CP)
			return NVME_SC_INVALID_NS;
	}
	/* Pages are the controller's; one namespace's SMART data are not offered (LPA bit 0). */
	if (log->lid == NVME_LOG_SMART && nsid && nsid != UINT32_MAX)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = CTRL_TO_HOST;
	cmd->data_len = (uint32_t)dwords * 4;
	return NVME_SC_SUCCESS;
}

void ctrl_log_run(struct ctrl_cmd *cmd)
{
	const struct log_page *log = log_find(cmd);
	uint8_t page[PAGE] = {0}, *from = page, *all = NULL;
	uint64_t offset = log_offset(cmd);
	size_t len = log->len, n;

	if (log->fill) {
		log->fill(cmd, page);
	} else if (log->io ? compute_log(cmd->ns, log->lid, &all, &len)
			   : ctrl_discovery_log(cmd->q, &all, &len)) {
		ctrl_complete(cmd, NVME_SC_INTERNAL);
		return;
	} else {
		from = all;
	}
	if (offset > len) {
		free(all);
		ctrl_complete(cmd, NVME_SC_INVALID_FIELD);
		return;
	}
	n = len - offset < cmd->data_len ? len - offset : cmd->data_len;
	memcpy(cmd->data, from + offset, n);
	memset(cmd->data + n, 0, cmd->data_len - n);
	free(all);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}
