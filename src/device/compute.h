/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compute.h - what the two standard command sets share: slm.c (local memory), compute.c (executing programs),
 * compute_admin.c (loading them, memory range sets, logs).
 *
 * A memory namespace is a store named "slm:", a compute namespace one named "compute:": so each is a row
 * among the namespaces of a subsystem, and its CSI tells which table its commands are in.
 */
#ifndef DEVICE_COMPUTE_H
#define DEVICE_COMPUTE_H

#include "device/lambda.h"
#include "nvme/compute.h"

#define COMPUTE_PROGRAMS      16u /* slots of a compute namespace */
#define COMPUTE_ACTIVE        16u
#define COMPUTE_RANGE_SETS    64u
#define COMPUTE_RANGES        8u /* of a set, and in a command */
#define COMPUTE_PROGRAM_BYTES (8u << 20)
#define COMPUTE_BUSY_MS       10u

/* ---- local memory (slm.c) ---- */

/* Where @ns keeps its bytes: they are shared by all hosts of the subsystem, as its blocks would be. */
uint8_t *slm_base(const struct ctrl_namespace *ns);
/* A descriptor of them that can only read: what a worker gets. */
int slm_descriptor(const struct ctrl_namespace *ns);
uint64_t slm_bytes(const struct ctrl_namespace *ns);

void slm_identify(const struct ctrl_namespace *ns, struct nvme_id_ns_slm *id);

/* ---- programs and range sets ---- */

struct compute_slot {
	enum {
		SLOT_EMPTY,
		SLOT_LOADING, /* parts arrive, in order; @owner's */
		SLOT_CHECKING,
		SLOT_LOADED,
	} state;
	bool active;
	uint32_t users; /* commands that execute it now */
	uint8_t pit;
	uint64_t id;
	int fd; /* LOADING, CHECKING: what has come so far */
	uint32_t size, have;
	const struct ctrl_controller *owner;
	struct ctrl_program *program; /* LOADED; a reference */
};

struct compute_set {
	uint32_t n; /* 0: free */
	uint32_t users;
	struct nvme_memory_range ranges[COMPUTE_RANGES];
};

struct compute { /* a compute namespace */
	struct ctrl_store store;
	pthread_mutex_t lock; /* what follows */
	struct compute_slot slots[COMPUTE_PROGRAMS];
	struct compute_set sets[COMPUTE_RANGE_SETS]; /* identifiers are 1 up: 0 means none */
	struct execution *executing;
};
struct compute *compute_of(const struct ctrl_namespace *ns);
void compute_identify(struct nvme_id_ns_cp *id);

/* Each range inside its memory namespace, in dwords, none over another: an NVMe status. */
uint16_t compute_check_ranges(struct ctrl_controller *c, const struct nvme_memory_range *ranges,
			      uint32_t n);

extern const struct ctrl_command_set ctrl_slm_set, ctrl_cp_set;
extern const struct ctrl_store_ops ctrl_store_slm, ctrl_store_compute;

/* Rows of the admin table. */
uint16_t compute_load_prepare(struct ctrl_cmd *cmd);
void compute_load_run(struct ctrl_cmd *cmd);
uint16_t compute_activate_prepare(struct ctrl_cmd *cmd);
void compute_activate_run(struct ctrl_cmd *cmd);
uint16_t compute_sets_prepare(struct ctrl_cmd *cmd);
void compute_sets_run(struct ctrl_cmd *cmd);
/* compute.c: all of the program in @slot has come; have a worker look at it, then end @cmd. */
void compute_check(struct ctrl_cmd *cmd, struct compute_slot *slot);
/* compute_admin.c: it is one (takes the reference), or it is not (NULL). */
void compute_checked(struct compute *cp, struct compute_slot *slot, struct ctrl_program *program);
/* Log pages 82h to 84h: malloc'd; @ns is a compute namespace. */
int compute_log(const struct ctrl_namespace *ns, uint8_t lid, uint8_t **log, size_t *len);
/* A controller goes: what it was loading is dropped. */
void compute_leave(struct compute *cp, const struct ctrl_controller *c);
/* A queue goes, on its loop: what it executes is cancelled. */
void ctrl_compute_leave(struct ctrl_queue *q);

#endif /* DEVICE_COMPUTE_H */
