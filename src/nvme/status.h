/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.h - names and texts of NVMe status codes, for messages, logs and metrics of both ends.
 *
 * Owns: the table.  Does not own: which status a command ends with.
 */
#ifndef NVME_STATUS_H
#define NVME_STATUS_H

#include <stdbool.h>
#include <stdint.h>

struct nvme_status_info {
	uint16_t code; /* enum nvme_status */
	bool fabrics;  /* means this only where it ends a fabrics command */
	bool retry;    /* the same command may succeed later: without DNR */
	const char *name;
	const char *text;
};

/* @status as in a CQE without the phase; DNR, More and the retry delay are ignored. NULL: not in the table. */
const struct nvme_status_info *nvme_status_find(uint16_t status, bool fabrics);

/* A short constant name ("lba-range"); "unknown" for what is not in the table. */
const char *nvme_status_name(uint16_t status);

#endif /* NVME_STATUS_H */
