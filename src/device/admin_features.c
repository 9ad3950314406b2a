/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_features.c - Get and Set Features: a table of what there is and what a value may be.
 *
 * Nothing is saved: after a reset each feature is as it was at first.
 */
#include <string.h>

#include "device/ctrl.h"

#define SAVE       (1u << 31)
#define CHANGEABLE (1u << 2)

enum select {
	CURRENT,
	DEFAULT,
	SAVED,
	SUPPORTED
};

/* ---- what a value may be, and what setting it does ---- */

static uint16_t set_nothing(struct ctrl_cmd *cmd, uint32_t *v)
{
	return NVME_SC_SUCCESS;
}

/* Power state 0 is the only one; the workload hint is a hint. */
static uint16_t set_power(struct ctrl_cmd *cmd, uint32_t *v)
{
	return *v & 0x1f ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
}

/* The over temperature threshold of the composite temperature, which is not measured. */
static uint16_t set_temperature(struct ctrl_cmd *cmd, uint32_t *v)
{
	return *v >> 16 & 0x3f ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
}

/* No errors for reading deallocated blocks (DULBE). */
static uint16_t set_error_recovery(struct ctrl_cmd *cmd, uint32_t *v)
{
	return *v & 1u << 16 ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
}

static uint16_t set_cache(struct ctrl_cmd *cmd, uint32_t *v)
{
	*v &= 1;
	atomic_store(&cmd->q->ctrl->no_cache, !*v);
	return NVME_SC_SUCCESS;
}

static uint16_t set_queues(struct ctrl_cmd *cmd, uint32_t *v)
{
	struct ctrl_controller *c = cmd->q->ctrl;
	uint32_t max = ctrl_server_limits(c->sub->server)->max_io_queues;
	uint32_t sq = (*v & 0xffff) + 1, cq = (*v >> 16) + 1;
	uint16_t status = NVME_SC_SUCCESS;

	if (sq > 0xffff || cq > 0xffff)
		return NVME_SC_INVALID_FIELD;
	sq = sq < max ? sq : max;
	cq = cq < max ? cq : max;
	pthread_mutex_lock(&c->sub->lock);
	if (c->queues->next)
		status = NVME_SC_COMMAND_SEQUENCE; /* I/O queues exist */
	else
		c->n_queues = (uint16_t)(sq < cq ? sq : cq);
	pthread_mutex_unlock(&c->sub->lock);
	*v = (sq - 1) | (cq - 1) << 16;
	cmd->cqe.dw0 = nvme_put32(*v);
	return status;
}

static uint16_t set_async_events(struct ctrl_cmd *cmd, uint32_t *v)
{
	struct ctrl_controller *c = cmd->q->ctrl;

	pthread_mutex_lock(&c->sub->lock);
	c->async_config = *v;
	pthread_mutex_unlock(&c->sub->lock);
	ctrl_events_flush(c);
	return NVME_SC_SUCCESS;
}

static uint16_t set_kato(struct ctrl_cmd *cmd, uint32_t *v)
{
	ctrl_set_keep_alive(cmd->q->ctrl, *v);
	*v = cmd->q->ctrl->kato_ms;
	return NVME_SC_SUCCESS;
}

static uint16_t set_profile(struct ctrl_cmd *cmd, uint32_t *v)
{
	return *v & 0x1ff ? NVME_SC_IOCS_COMBINATION : NVME_SC_SUCCESS;
}

/* Of all that a host may say of itself, only one thing is heard; and no answer of ours asks for a delay. */
static uint16_t set_host_behavior(struct ctrl_cmd *cmd, uint32_t *v)
{
	const struct nvme_host_behavior none = {0},
					*b = (const struct nvme_host_behavior *)cmd->data;

	if (b->acre > 1 || memcmp(&b->etdas, &none.etdas, sizeof(none) - sizeof(none.acre)) != 0)
		return NVME_SC_INVALID_FIELD;
	*v = b->acre;
	return NVME_SC_SUCCESS;
}

/* Over a fabric it is what Connect said. */
static uint16_t set_host_id(struct ctrl_cmd *cmd, uint32_t *v)
{
	return NVME_SC_COMMAND_SEQUENCE;
}

static const struct feature {
	uint8_t fid;
	bool discovery; /* also of a discovery controller */
	bool fixed;
	uint32_t initial;
	uint16_t data_len; /* of what comes and goes beside the value */
	uint16_t (*set)(struct ctrl_cmd *cmd, uint32_t *v);
} features[] = {
	{NVME_FEAT_ARBITRATION, false, false, 0x7, 0, set_nothing}, /* no limit on bursts */
	{NVME_FEAT_POWER, false, false, 0, 0, set_power},
	{NVME_FEAT_TEMPERATURE, false, false, 0xffff, 0, set_temperature},
	{NVME_FEAT_ERROR_RECOVERY, false, false, 0, 0, set_error_recovery},
	{NVME_FEAT_VWC, false, false, 1, 0, set_cache},
	{NVME_FEAT_QUEUES, false, false, 0, 0, set_queues},
	{NVME_FEAT_ATOMICITY, false, false, 0, 0, set_nothing},
	{NVME_FEAT_ASYNC_EVENTS, true, false, 0, 0, set_async_events},
	{NVME_FEAT_KATO, true, false, 0, 0, set_kato},
	{NVME_FEAT_HOST_BEHAVIOR, false, false, 0, sizeof(struct nvme_host_behavior),
	 set_host_behavior},
	{NVME_FEAT_IOCS_PROFILE, false, false, 0, 0, set_profile},
	{NVME_FEAT_HOST_ID, false, true, 0, 16, set_host_id},
};
#define N_FEATURES (sizeof(features) / sizeof(*features))
_Static_assert(N_FEATURES <= CTRL_N_FEATURES, "each feature has a place for its value");

static const struct feature *feature_find(const struct ctrl_cmd *cmd)
{
	uint8_t fid = nvme_get32(cmd->sqe.cdw10) & 0xff;

	for (size_t i = 0; i < N_FEATURES; i++) {
		if (features[i].fid == fid)
			return !cmd->q->ctrl->sub->discovery || features[i].discovery ? &features[i]
										      : NULL;
	}
	return NULL;
}

bool ctrl_feature_exists(uint8_t fid)
{
	for (size_t i = 0; i < N_FEATURES; i++) {
		if (features[i].fid == fid)
			return true;
	}
	return false;
}

bool ctrl_too_hot(const struct ctrl_controller *c)
{
	for (size_t i = 0; i < N_FEATURES; i++) {
		if (features[i].fid == NVME_FEAT_TEMPERATURE)
			return CTRL_KELVIN >= (c->features[i] & 0xffff);
	}
	return false;
}

static uint32_t initial_value(const struct ctrl_controller *c, const struct feature *f)
{
	uint32_t max = ctrl_server_limits(c->sub->server)->max_io_queues - 1u;

	return f->fid == NVME_FEAT_QUEUES ? max | max << 16 : f->initial;
}

void ctrl_features_reset(struct ctrl_controller *c)
{
	for (size_t i = 0; i < N_FEATURES; i++)
		c->features[i] = initial_value(c, &features[i]);
	pthread_mutex_lock(&c->sub->lock);
	c->async_config = 0;
	pthread_mutex_unlock(&c->sub->lock);
	c->event_masked = false;
	atomic_store(&c->no_cache, false);
}

/* ---- the commands ---- */

uint16_t ctrl_get_features_prepare(struct ctrl_cmd *cmd)
{
	uint32_t select = nvme_get32(cmd->sqe.cdw10) >> 8 & 0x7;
	const struct feature *f = feature_find(cmd);

	if (select > SUPPORTED || !f)
		return NVME_SC_INVALID_FIELD;
	if (!f->data_len || select == SUPPORTED)
		return NVME_SC_SUCCESS;
	/* The identifier of 128 bits is the only one. */
	if (f->fid == NVME_FEAT_HOST_ID && !(nvme_get32(cmd->sqe.cdw11) & 1))
		return NVME_SC_HOSTID_INCONSISTENT;
	cmd->dir = CTRL_TO_HOST;
	cmd->data_len = f->data_len;
	return NVME_SC_SUCCESS;
}

static void put_data(struct ctrl_cmd *cmd, const struct feature *f, uint32_t v)
{
	memset(cmd->data, 0, cmd->data_len);
	if (f->fid == NVME_FEAT_HOST_ID)
		memcpy(cmd->data, cmd->q->ctrl->hostid, cmd->data_len);
	else
		((struct nvme_host_behavior *)cmd->data)->acre = (uint8_t)v;
}

void ctrl_get_features_run(struct ctrl_cmd *cmd)
{
	const struct ctrl_controller *c = cmd->q->ctrl;
	const struct feature *f = feature_find(cmd);
	uint32_t v = 0;

	switch ((enum select)(nvme_get32(cmd->sqe.cdw10) >> 8 & 0x7)) {
	case CURRENT:
		v = f->fid == NVME_FEAT_KATO ? c->kato_ms : c->features[f - features];
		break;
	case DEFAULT:
	case SAVED:
		v = initial_value(c, f);
		break;
	case SUPPORTED:
		v = f->fixed ? 0 : CHANGEABLE;
		break;
	}
	if (cmd->dir == CTRL_TO_HOST)
		put_data(cmd, f, v);
	else
		cmd->cqe.dw0 = nvme_put32(v);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}

uint16_t ctrl_set_features_prepare(struct ctrl_cmd *cmd)
{
	const struct feature *f = feature_find(cmd);

	if (f && f->data_len && !f->fixed) {
		cmd->dir = CTRL_TO_CONTROLLER;
		cmd->data_len = f->data_len;
	}
	return NVME_SC_SUCCESS;
}

void ctrl_set_features_run(struct ctrl_cmd *cmd)
{
	const struct feature *f = feature_find(cmd);
	uint32_t v = nvme_get32(cmd->sqe.cdw11);
	uint16_t status = NVME_SC_INVALID_FIELD;

	if (nvme_get32(cmd->sqe.cdw10) & SAVE)
		status = NVME_SC_FEATURE_NOT_SAVEABLE;
	else if (f)
		status = f->set(cmd, &v);
	if (!status)
		cmd->q->ctrl->features[f - features] = v;
	ctrl_complete(cmd, status);
}
