/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - what "lio device" shares between its command and its report.
 */
#ifndef TOOLS_DEVICE_H
#define TOOLS_DEVICE_H

#include "initiator/initiator.h"
#include "lio.h"

struct device { /* one subsystem */
	char nqn[NVME_NQN_MAX + 1];
	char address[320];
	char *error; /* NULL: what follows is known */
	struct nvme_host_info info;
	struct nvme_id_ctrl id;
	bool has_health;
	struct nvme_log_smart health;
	struct nvme_host_ns *ns;
	size_t n_ns;
};

void device_report(FILE *to, const struct device *devices, size_t n);
json_object *device_json(const char *address, const struct device *devices, size_t n);

/* Functions of a server (device_server.c): is that word one of its commands? */
bool device_server_command(const char *word);
int device_server(const struct cli *cli);

#endif /* TOOLS_DEVICE_H */
