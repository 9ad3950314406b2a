/* SPDX-License-Identifier: Apache-2.0 */
/*
 * discovery.c - what a discovery controller tells: each subsystem, at the address by which the host came.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/ctrl.h"
#include "nvme/tcp.h"

static void put_address(const struct sockaddr_storage *local, struct nvme_discovery_entry *e)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)local;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)local;
	char address[INET6_ADDRSTRLEN];
	uint16_t port;

	e->adrfam = NVME_ADRFAM_IPV4;
	if (local->ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, address, sizeof(address));
		port = ntohs(v4->sin_port);
	} else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, address, sizeof(address));
		port = ntohs(v6->sin6_port);
	} else {
		e->adrfam = NVME_ADRFAM_IPV6;
		inet_ntop(AF_INET6, &v6->sin6_addr, address, sizeof(address));
		port = ntohs(v6->sin6_port);
	}
	memcpy(e->traddr, address, strlen(address));
	snprintf(e->trsvcid, sizeof(e->trsvcid), "%u", port);
}

int ctrl_discovery_log(const struct ctrl_queue *q, uint8_t **out, size_t *len)
{
	struct nvme_discovery_entry *e;
	struct nvme_discovery_log *log;
	uint32_t n = 0;

	for (struct ctrl_subsystem *s = ctrl_server_subsystems(q->server); s; s = s->next)
		n += !s->discovery;
	*len = sizeof(*log) + n * sizeof(*e);
	*out = calloc(1, *len);
	if (!*out)
		return -ENOMEM;
	log = (struct nvme_discovery_log *)*out;
	e = (struct nvme_discovery_entry *)(*out + sizeof(*log));
	for (struct ctrl_subsystem *s = ctrl_server_subsystems(q->server); s; s = s->next) {
		if (s->discovery)
			continue;
		e->trtype = NVME_TRTYPE_TCP;
		e->subtype = NVME_SUBTYPE_NVM;
		e->treq = 0x04; /* SQ flow control may be switched off */
		e->portid = nvme_put16(1);
		e->cntlid = nvme_put16(NVME_CNTLID_DYNAMIC);
		e->asqsz = nvme_put16(32);
		memcpy(e->subnqn, s->nqn, strlen(s->nqn));
		put_address(&q->local, e++);
	}
	log->numrec = nvme_put64(n);
	/* A host that reads in pieces compares it: the same entries, the same number. */
	log->genctr = nvme_put64(nvme_crc32c(0, *out + sizeof(*log), *len - sizeof(*log)));
	return 0;
}
