/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liod_metrics.c - GET /metrics for Prometheus.
 */
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "liod.h"

/* A scraper or a few; nobody else has business here. */
#define CONNECTIONS       16u
#define CONNECTION_MEMORY 16384u
#define TIMEOUT_SECONDS   10u

struct liod_metrics {
	struct ctrl_server *server;
	struct MHD_Daemon *daemon;
	char address[64];
};

static enum MHD_Result reply(struct MHD_Connection *conn, unsigned int status, const char *type,
			     char *text, size_t len, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, text, mode);
	enum MHD_Result rc = MHD_NO;

	if (r) {
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
		rc = MHD_queue_response(conn, status, r);
		MHD_destroy_response(r);
	} else if (mode == MHD_RESPMEM_MUST_FREE) {
		free(text);
	}
	return rc;
}

static enum MHD_Result refuse(struct MHD_Connection *conn, unsigned int status, const char *text)
{
	return reply(conn, status, "text/plain", (char *)(uintptr_t)text, strlen(text),
		     MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *conn, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **state)
{
	struct liod_metrics *m = arg;
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
	if (strcmp(url, "/metrics") != 0)
		return refuse(conn, MHD_HTTP_NOT_FOUND, "see /metrics\n");
	out = open_memstream(&text, &len);
	if (!out)
		return MHD_NO;
	ctrl_server_metrics(m->server, out);
	if (fclose(out)) {
		free(text);
		return MHD_NO;
	}
	return reply(conn, MHD_HTTP_OK, "text/plain; version=0.0.4", text, len,
		     MHD_RESPMEM_MUST_FREE);
}

int metrics_start(struct ctrl_server *s, const char *where, bool insecure_network,
		  struct liod_metrics **out, struct ctrl_error *err)
{
	struct liod_metrics *m = calloc(1, sizeof(*m));
	int fd;

	if (!m)
		return ctrl_fail(err, -ENOMEM, "metrics: out of memory");
	m->server = s;
	fd = ctrl_listen_socket(where, insecure_network, false, m->address, err);
	if (fd < 0) {
		free(m);
		return fd;
	}
	m->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL, answer, m,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
		MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_SECONDS, MHD_OPTION_END);
	if (!m->daemon) {
		close(fd);
		free(m);
		return ctrl_fail(err, -EIO, "metrics: cannot serve HTTP on %s", where);
	}
	*out = m;
	return 0;
}

const char *metrics_address(const struct liod_metrics *m)
{
	return m->address;
}

void metrics_stop(struct liod_metrics *m)
{
	if (!m)
		return;
	MHD_stop_daemon(m->daemon);
	free(m);
}
