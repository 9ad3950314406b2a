/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liod.h - the daemon's modules: liod.c (options, life), liod_config.c (what is to be served), liod_metrics.c
 * (HTTP), liod_log.c (standard error), liod_systemd.c (sockets given and readiness told).
 */
#ifndef LIOD_H
#define LIOD_H

#include "device/lambda.h"

#define LIOD_NQN     "nqn.2026-01.io.lambda-io:liod"
#define LIOD_ADDRESS "127.0.0.1:4420"

#define LIOD_LISTENS 16u

struct liod_subsystem {
	char *nqn;
	char *serial; /* NULL: made from the NQN */
	char **specs; /* of the namespaces, in order */
	uint32_t n;
	struct liod_subsystem *next;
};

struct liod_config {
	char *listen[LIOD_LISTENS];
	uint32_t n_listen;
	char *metrics; /* an address, or NULL */
	bool insecure_network;
	bool io_uring;
	uint32_t threads;
	uint32_t drain_ms;
	struct ctrl_limits limits;
	struct ctrl_lambda_limits lambda;
	char *worker;   /* the executable, or NULL: where it is installed */
	char **exports; /* NAME=DIR[,OPTIONS], in order */
	uint32_t n_exports;
	uint32_t *allow_uids;
	uint32_t n_allow_uids;
	struct liod_subsystem *subsystems;
};

void config_init(struct liod_config *c);
void config_free(struct liod_config *c);
/* Adds what the file says.  Errors name file and line. */
int config_read(struct liod_config *c, const char *path, struct ctrl_error *err);
int config_listen(struct liod_config *c, const char *where, struct ctrl_error *err);
/* To the subsystem of that name, which is made if there is none. */
int config_namespace(struct liod_config *c, const char *nqn, const char *spec,
		     struct ctrl_error *err);
int config_export(struct liod_config *c, const char *spec, struct ctrl_error *err);
/* A subsystem without namespaces, for the exports. */
int config_subsystem(struct liod_config *c, const char *nqn, struct ctrl_error *err);
/* As in a configuration file; @where is said in errors. */
int config_set(struct liod_config *c, const char *where, const char *key, const char *value,
	       struct ctrl_error *err);

/* The log, key=value lines on standard error; never waits for whoever reads it.  Before log_start() lines are written at once. */
void log_start(void);
void log_line(void *arg, const char *line);
/* Until all is written, two seconds at most. */
void log_flush(void);

/* Serves GET /metrics. */
struct liod_metrics;
int metrics_start(struct ctrl_server *s, const char *where, bool insecure_network,
		  struct liod_metrics **out, struct ctrl_error *err);
const char *metrics_address(const struct liod_metrics *m);
void metrics_stop(struct liod_metrics *m);

/* The number of listening sockets that systemd passed, from descriptor 3 on. */
int systemd_sockets(void);
/* "READY=1"; nothing happens where nobody asked to be told. */
void systemd_notify(const char *state);

#endif /* LIOD_H */
