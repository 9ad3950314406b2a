/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compute_admin.c - "compute:": a namespace that executes programs (CSI 4): loading and activating them, memory
 * range sets, and the logs of all that.
 *
 * Owns: the slots and sets of a compute namespace.  Does not own: executing (compute.c), and what a
 * program is: a worker says whether it is one.
 */
#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/compute.h"
#include "device/loop.h"

#define BLOCK 4096u

struct compute *compute_of(const struct ctrl_namespace *ns)
{
	return (struct compute *)ns->store;
}

void compute_identify(struct nvme_id_ns_cp *id)
{
	id->max_active = nvme_put16(COMPUTE_ACTIVE);
	id->max_sets = nvme_put16(COMPUTE_RANGE_SETS);
	id->sets_granularity = nvme_put16(1);
	id->max_ranges = COMPUTE_RANGES;
	id->max_program_mib = nvme_put64(COMPUTE_PROGRAMS * (COMPUTE_PROGRAM_BYTES >> 20));
}

/* ---- the store that stands for it among the namespaces ---- */

static void slot_clear(struct compute_slot *slot)
{
	if (slot->fd >= 0)
		close(slot->fd);
	if (slot->program)
		ctrl_program_put(slot->program);
	*slot = (struct compute_slot){.fd = -1};
}

static int compute_open(const char *spec, bool read_only, struct ctrl_store **out,
			struct ctrl_error *err)
{
	struct compute *cp;

	if (*spec || read_only)
		return ctrl_fail(err, -EINVAL,
				 "compute:%s: takes nothing more; write compute:", spec);
	cp = calloc(1, sizeof(*cp));
	if (!cp)
		return ctrl_fail(err, -ENOMEM, "compute: out of memory");
	cp->store.ops = &ctrl_store_compute;
	cp->store.how = strdup("programs");
	cp->store.geo = (struct ctrl_store_geometry){
		.bytes = BLOCK, .block = BLOCK, .preferred = BLOCK, .csi = NVME_CSI_CP};
	pthread_mutex_init(&cp->lock, NULL);
	for (uint32_t i = 0; i < COMPUTE_PROGRAMS; i++)
		cp->slots[i].fd = -1;
	*out = &cp->store;
	return 0;
}

static void compute_close(struct ctrl_store *store)
{
	struct compute *cp = (struct compute *)store;

	for (uint32_t i = 0; i < COMPUTE_PROGRAMS; i++)
		slot_clear(&cp->slots[i]);
	pthread_mutex_destroy(&cp->lock);
	free(cp->store.how);
	free(cp);
}

static void compute_submit(struct ctrl_store *store, struct ctrl_io *io)
{
	ctrl_loop_finish(io, io->op == CTRL_IO_FLUSH ? 0 : -EOPNOTSUPP);
}

const struct ctrl_store_ops ctrl_store_compute = {
	.name = "compute",
	.help = "compute:: executes programs on local memory (slm:)",
	.open = compute_open,
	.close = compute_close,
	.submit = compute_submit,
};

static uint16_t find_compute(struct ctrl_cmd *cmd)
{
	cmd->ns = ctrl_namespace(cmd->q->ctrl, nvme_get32(cmd->sqe.nsid));
	if (!cmd->ns)
		return NVME_SC_INVALID_NS;
	return cmd->ns->store->geo.csi == NVME_CSI_CP ? NVME_SC_SUCCESS
						      : NVME_SC_CP_INCOMPATIBLE_NS;
}

/* ---- Load Program ---- */

uint16_t compute_load_prepare(struct ctrl_cmd *cmd)
{
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10), part = nvme_get32(cmd->sqe.cdw14);
	uint16_t status = find_compute(cmd);

	if (status)
		return status;
	if (cdw10 >> 28)
		return NVME_SC_INVALID_FIELD;
	if (NVME_LOAD_PIND(cdw10) >= COMPUTE_PROGRAMS)
		return NVME_SC_CP_PROGRAM_INDEX;
	if (NVME_LOAD_UNLOAD(cdw10))
		return NVME_SC_SUCCESS;
	if (NVME_LOAD_PTYPE(cdw10) != NVME_PTYPE_LAMBDA)
		return NVME_SC_CP_PROGRAM_TYPE;
	if (NVME_LOAD_PIT(cdw10) > NVME_PIT_PUID || !part ||
	    part > ctrl_server_limits(cmd->q->server)->max_transfer)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = part;
	return NVME_SC_SUCCESS;
}

static uint16_t unload(struct compute_slot *slot)
{
	switch (slot->state) {
	case SLOT_EMPTY:
		return NVME_SC_CP_NO_PROGRAM;
	case SLOT_CHECKING:
		return NVME_SC_CP_IN_USE;
	case SLOT_LOADING:
	case SLOT_LOADED:
		break;
	}
	if (slot->active || slot->users)
		return NVME_SC_CP_IN_USE;
	slot_clear(slot);
	return NVME_SC_SUCCESS;
}

/* The first part makes the slot the sender's, whatever it had loaded (unless it is in use). */
static uint16_t load_first(struct compute_slot *slot, struct ctrl_cmd *cmd)
{
	uint32_t size = nvme_get32(cmd->sqe.cdw11);
	uint16_t status;

	if (!size)
		return NVME_SC_INVALID_FIELD;
	if (size > COMPUTE_PROGRAM_BYTES)
		return NVME_SC_CP_TOO_BIG;
	if (slot->state == SLOT_LOADING && slot->owner != cmd->q->ctrl)
		return NVME_SC_CP_IN_USE;
	status = slot->state == SLOT_EMPTY ? NVME_SC_SUCCESS : unload(slot);
	if (status)
		return status;
	slot->fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (slot->fd < 0)
		return NVME_SC_CP_PROGRAM_RESOURCES;
	slot->state = SLOT_LOADING;
	slot->size = size;
	slot->owner = cmd->q->ctrl;
	slot->pit = NVME_LOAD_PIT(nvme_get32(cmd->sqe.cdw10));
	slot->id = nvme_get32(cmd->sqe.cdw12) | (uint64_t)nvme_get32(cmd->sqe.cdw13) << 32;
	return NVME_SC_SUCCESS;
}

static uint16_t load_part(struct compute_slot *slot, struct ctrl_cmd *cmd)
{
	uint32_t at = nvme_get32(cmd->sqe.cdw15), done = 0;
	uint16_t status = at ? NVME_SC_SUCCESS : load_first(slot, cmd);

	if (status)
		return status;
	if (slot->state != SLOT_LOADING || slot->owner != cmd->q->ctrl || at != slot->have ||
	    nvme_get32(cmd->sqe.cdw11) != slot->size || cmd->data_len > slot->size - at)
		return NVME_SC_CP_PROGRAM_DATA;
	while (done < cmd->data_len) {
		ssize_t n = pwrite(slot->fd, cmd->data + done, cmd->data_len - done, at + done);

		if (n <= 0) {
			slot_clear(slot);
			return NVME_SC_CP_PROGRAM_RESOURCES;
		}
		done += (uint32_t)n;
	}
	slot->have += done;
	return NVME_SC_SUCCESS;
}

void compute_load_run(struct ctrl_cmd *cmd)
{
	struct compute *cp = compute_of(cmd->ns);
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10);
	struct compute_slot *slot = &cp->slots[NVME_LOAD_PIND(cdw10)];
	bool whole = false;
	uint16_t status;

	pthread_mutex_lock(&cp->lock);
	if (NVME_LOAD_UNLOAD(cdw10)) {
		status = unload(slot);
	} else {
		status = load_part(slot, cmd);
		whole = !status && slot->have == slot->size;
		if (whole)
			slot->state = SLOT_CHECKING;
	}
	pthread_mutex_unlock(&cp->lock);
	if (whole)
		compute_check(cmd, slot);
	else
		ctrl_complete(cmd, status);
}

void compute_checked(struct compute *cp, struct compute_slot *slot, struct ctrl_program *program)
{
	pthread_mutex_lock(&cp->lock);
	if (program) {
		slot->program = program;
		slot->state = SLOT_LOADED;
		slot->owner = NULL;
		if (slot->fd >= 0)
			close(slot->fd);
		slot->fd = -1;
	} else {
		slot_clear(slot);
	}
	pthread_mutex_unlock(&cp->lock);
}

void compute_leave(struct compute *cp, const struct ctrl_controller *c)
{
	pthread_mutex_lock(&cp->lock);
	for (uint32_t k = 0; k < COMPUTE_PROGRAMS; k++) {
		if (cp->slots[k].state == SLOT_LOADING && cp->slots[k].owner == c)
			slot_clear(&cp->slots[k]);
	}
	pthread_mutex_unlock(&cp->lock);
}

/* ---- Program Activation Management ---- */

uint16_t compute_activate_prepare(struct ctrl_cmd *cmd)
{
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10);
	uint16_t status = find_compute(cmd);

	if (status)
		return status;
	if (NVME_ACTIVATE_PIND(cdw10) >= COMPUTE_PROGRAMS)
		return NVME_SC_CP_PROGRAM_INDEX;
	return cdw10 >> 20 || NVME_ACTIVATE_SEL(cdw10) > NVME_ACTIVATE_ON ? NVME_SC_INVALID_FIELD
									  : NVME_SC_SUCCESS;
}

void compute_activate_run(struct ctrl_cmd *cmd)
{
	struct compute *cp = compute_of(cmd->ns);
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10);
	struct compute_slot *slot = &cp->slots[NVME_ACTIVATE_PIND(cdw10)];
	bool on = NVME_ACTIVATE_SEL(cdw10) == NVME_ACTIVATE_ON;
	uint16_t status = NVME_SC_SUCCESS;

	pthread_mutex_lock(&cp->lock);
	if (slot->state != SLOT_LOADED)
		status = NVME_SC_CP_NO_PROGRAM;
	else if (!on && slot->users)
		status = NVME_SC_CP_IN_USE;
	else
		slot->active = on;
	pthread_mutex_unlock(&cp->lock);
	ctrl_complete(cmd, status);
}

/* ---- Memory Range Set Management ---- */

static uint16_t check_range(struct ctrl_controller *c, const struct nvme_memory_range *r)
{
	const struct ctrl_namespace *ns = ctrl_namespace(c, nvme_get32(r->nsid));
	uint64_t start = nvme_get64(r->start), len = nvme_get32(r->len);

	if (!ns || ns->store->geo.csi != NVME_CSI_SLM)
		return NVME_SC_CP_MEMORY_NS;
	if (start % 4 || len % 4 || !len || start > slm_bytes(ns) || len > slm_bytes(ns) - start)
		return NVME_SC_CP_RANGE_SET;
	return NVME_SC_SUCCESS;
}

uint16_t compute_check_ranges(struct ctrl_controller *c, const struct nvme_memory_range *ranges,
			      uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t start = nvme_get64(ranges[i].start), len = nvme_get32(ranges[i].len);
		uint16_t status = check_range(c, &ranges[i]);

		if (status)
			return status;
		for (uint32_t k = 0; k < i; k++) {
			uint64_t other = nvme_get64(ranges[k].start);

			if (nvme_get32(ranges[k].nsid) == nvme_get32(ranges[i].nsid) &&
			    start < other + nvme_get32(ranges[k].len) && other < start + len)
				return NVME_SC_CP_OVERLAPPING_RANGES;
		}
	}
	return NVME_SC_SUCCESS;
}

uint16_t compute_sets_prepare(struct ctrl_cmd *cmd)
{
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10), n = nvme_get32(cmd->sqe.cdw11);
	uint16_t status = find_compute(cmd);

	if (status)
		return status;
	if (NVME_MRS_SEL(cdw10) > NVME_MRS_DELETE || (cdw10 & 0xfff0) || n > 0xff)
		return NVME_SC_INVALID_FIELD;
	if (NVME_MRS_SEL(cdw10) == NVME_MRS_DELETE)
		return NVME_SC_SUCCESS;
	if (!n)
		return NVME_SC_CP_RANGE_SET;
	if (n > COMPUTE_RANGES)
		return NVME_SC_CP_MAX_RANGES;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = n * sizeof(struct nvme_memory_range);
	return NVME_SC_SUCCESS;
}

static uint16_t delete_set(struct compute *cp, uint32_t id)
{
	struct compute_set *set = id && id <= COMPUTE_RANGE_SETS ? &cp->sets[id - 1] : NULL;

	if (!set || !set->n)
		return NVME_SC_CP_RANGE_SET_ID;
	if (set->users)
		return NVME_SC_CP_RANGE_SET_IN_USE;
	set->n = 0;
	return NVME_SC_SUCCESS;
}

static uint16_t create_set(struct compute *cp, struct ctrl_cmd *cmd)
{
	uint32_t n = nvme_get32(cmd->sqe.cdw11), i;
	uint16_t status =
		compute_check_ranges(cmd->q->ctrl, (const struct nvme_memory_range *)cmd->data, n);

	if (status)
		return status;
	for (i = 0; i < COMPUTE_RANGE_SETS && cp->sets[i].n; i++)
		;
	if (i == COMPUTE_RANGE_SETS)
		return NVME_SC_CP_MAX_RANGE_SETS;
	cp->sets[i] = (struct compute_set){.n = n};
	memcpy(cp->sets[i].ranges, cmd->data, n * sizeof(struct nvme_memory_range));
	cmd->cqe.dw0 = nvme_put32(i + 1);
	return NVME_SC_SUCCESS;
}

void compute_sets_run(struct ctrl_cmd *cmd)
{
	struct compute *cp = compute_of(cmd->ns);
	uint32_t cdw10 = nvme_get32(cmd->sqe.cdw10);
	uint16_t status;

	pthread_mutex_lock(&cp->lock);
	status = NVME_MRS_SEL(cdw10) == NVME_MRS_CREATE ? create_set(cp, cmd)
							: delete_set(cp, NVME_MRS_RSID(cdw10));
	pthread_mutex_unlock(&cp->lock);
	ctrl_complete(cmd, status);
}

/* ---- logs ---- */

static size_t log_programs(const struct compute *cp, uint8_t *out)
{
	struct nvme_program_descriptor *d =
		(struct nvme_program_descriptor *)(out + sizeof(struct nvme_log_list));

	/* An entry for each index, loaded or not: the place in the list is the index. */
	for (uint32_t i = 0; i < COMPUTE_PROGRAMS; i++) {
		const struct compute_slot *slot = &cp->slots[i];

		if (slot->state != SLOT_LOADED)
			continue;
		d[i].state =
			(uint8_t)(NVME_PROGRAM_LOADED | (slot->active ? NVME_PROGRAM_ACTIVE : 0) |
				  (slot->pit ? NVME_PROGRAM_HAS_PUID : 0));
		d[i].type = NVME_PTYPE_LAMBDA;
		d[i].id = nvme_put64(slot->id);
	}
	((struct nvme_log_list *)out)->count = nvme_put32(COMPUTE_PROGRAMS);
	return sizeof(struct nvme_log_list) + COMPUTE_PROGRAMS * sizeof(*d);
}

static size_t log_types(const struct compute *cp, uint8_t *out)
{
	(void)cp;
	((struct nvme_log_list *)out)->count = nvme_put32(1);
	((struct nvme_program_type *)(out + sizeof(struct nvme_log_list)))->type =
		NVME_PTYPE_LAMBDA;
	return sizeof(struct nvme_log_list) + sizeof(struct nvme_program_type);
}

static size_t log_sets(const struct compute *cp, uint8_t *out)
{
	uint8_t *at = out + sizeof(struct nvme_log_list);
	uint32_t count = 0;

	for (uint32_t i = 0; i < COMPUTE_RANGE_SETS; i++) {
		const struct compute_set *set = &cp->sets[i];
		struct nvme_memory_range_set *head = (struct nvme_memory_range_set *)at;

		if (!set->n)
			continue;
		head->id = nvme_put16((uint16_t)(i + 1));
		head->ranges = nvme_put16((uint16_t)set->n);
		memcpy(at + sizeof(*head), set->ranges, set->n * sizeof(*set->ranges));
		at += sizeof(*head) + set->n * sizeof(*set->ranges);
		count++;
	}
	((struct nvme_log_list *)out)->count = nvme_put32(count);
	return (size_t)(at - out);
}

static const struct {
	uint8_t lid;
	size_t (*fill)(const struct compute *cp, uint8_t *out);
} logs[] = {
	{NVME_LOG_PROGRAMS, log_programs},
	{NVME_LOG_PROGRAM_TYPES, log_types},
	{NVME_LOG_MEMORY_RANGE_SETS, log_sets},
};

#define LOG_MAX                                                       \
	(sizeof(struct nvme_log_list) +                               \
	 COMPUTE_RANGE_SETS * (sizeof(struct nvme_memory_range_set) + \
			       COMPUTE_RANGES * sizeof(struct nvme_memory_range)))

int compute_log(const struct ctrl_namespace *ns, uint8_t lid, uint8_t **log, size_t *len)
{
	struct compute *cp = compute_of(ns);

	*log = calloc(1, LOG_MAX);
	if (!*log)
		return -ENOMEM;
	pthread_mutex_lock(&cp->lock);
	for (size_t i = 0; i < sizeof(logs) / sizeof(*logs); i++) {
		if (logs[i].lid == lid)
			*len = logs[i].fill(cp, *log);
	}
	pthread_mutex_unlock(&cp->lock);
	return 0;
}
