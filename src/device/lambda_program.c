/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_program.c - programs on their way in, and the information pages.
 *
 * A program's parts go to a memory file that is sealed when all of it is there.  We check that the bytes are those that
 * the hash names; a worker checks what they mean.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/lambda_private.h"

#define SEALS    (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define RETRY_MS 8u
#define BUSY_MS  10u

struct lambda_upload {
	struct lambda_upload *next;
	uint8_t hash[32];
	uint32_t total, at;
	int fd;
	EVP_MD_CTX *sha;
	bool busy; /* a part is being added */
};

struct lambda_check {               /* of a command */
	struct program_check check; /* first */
	struct ctrl_lambda *lam;
	struct ctrl_cmd *cmd;
	const struct ctrl_queue *q;
	struct lambda_check *next; /* of the controller, under its lock */
};

/* ---- uploads ---- */

static void upload_free(struct lambda_upload *u)
{
	if (!u)
		return;
	if (u->fd >= 0)
		close(u->fd);
	EVP_MD_CTX_free(u->sha);
	free(u);
}

void uploads_free(struct ctrl_lambda *lam)
{
	while (lam->uploads) {
		struct lambda_upload *u = lam->uploads;

		lam->uploads = u->next;
		upload_free(u);
	}
}

static struct lambda_upload *upload_new(const uint8_t hash[32], uint32_t total)
{
	struct lambda_upload *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	memcpy(u->hash, hash, sizeof(u->hash));
	u->total = total;
	u->fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	u->sha = EVP_MD_CTX_new();
	if (u->fd < 0 || !u->sha || EVP_DigestInit_ex(u->sha, EVP_sha256(), NULL) != 1) {
		upload_free(u);
		return NULL;
	}
	return u;
}

/* Under the lock. */
static struct lambda_upload **upload_find(struct ctrl_lambda *lam, const uint8_t hash[32])
{
	struct lambda_upload **at = &lam->uploads;

	while (*at && memcmp((*at)->hash, hash, sizeof((*at)->hash)))
		at = &(*at)->next;
	return at;
}

/* Under the lock: a new one in front; what was begun long ago and left makes room. */
static uint16_t upload_begin(struct ctrl_lambda *lam, const uint8_t hash[32], uint32_t total,
			     struct lambda_upload **out)
{
	struct lambda_upload **at = upload_find(lam, hash), *u = *at;
	uint32_t n = 0;

	if (u && u->busy)
		return NVME_SC_LAMBDA_ORDER;
	if (u) {
		*at = u->next;
		upload_free(u);
	}
	for (at = &lam->uploads; *at; n++) {
		if (n + 1 < LAMBDA_UPLOADS || (*at)->busy) {
			at = &(*at)->next;
			continue;
		}
		u = *at;
		*at = u->next;
		upload_free(u);
	}
	*out = upload_new(hash, total);
	if (!*out)
		return NVME_SC_INTERNAL;
	(*out)->next = lam->uploads;
	lam->uploads = *out;
	return NVME_SC_SUCCESS;
}

static uint16_t upload_part(struct ctrl_lambda *lam, const uint8_t hash[32], uint32_t total,
			    uint32_t at, struct lambda_upload **out)
{
	uint16_t status = NVME_SC_SUCCESS;

	pthread_mutex_lock(&lam->lock);
	if (!at) {
		status = upload_begin(lam, hash, total, out);
	} else {
		*out = *upload_find(lam, hash);
		if (!*out || (*out)->busy || (*out)->total != total || (*out)->at != at)
			status = NVME_SC_LAMBDA_ORDER;
	}
	if (!status)
		(*out)->busy = true;
	pthread_mutex_unlock(&lam->lock);
	return status;
}

static int upload_add(struct lambda_upload *u, const uint8_t *p, uint32_t len)
{
	if (EVP_DigestUpdate(u->sha, p, len) != 1)
		return -ENOMEM;
	/* A memory file takes all, or there is no memory. */
	return pwrite(u->fd, p, len, u->at) == (ssize_t)len ? 0 : -ENOMEM;
}

/* A part is in; the whole is the caller's, and another part's upload stays. */
static bool upload_added(struct ctrl_lambda *lam, struct lambda_upload *u, uint32_t len, int error)
{
	bool whole;

	pthread_mutex_lock(&lam->lock);
	u->at += len;
	u->busy = false;
	whole = u->at == u->total;
	if (whole || error)
		*upload_find(lam, u->hash) = u->next;
	pthread_mutex_unlock(&lam->lock);
	if (error)
		upload_free(u);
	return whole && !error;
}

/* ---- checks ---- */

static void check_end(struct program_check *k, int error, struct ctrl_program *prog)
{
	struct ctrl_lambda_server *ls = k->host->ls;

	ctrl_timer_cancel(k->loop, &k->timer);
	if (k->program.fd >= 0)
		close(k->program.fd);
	k->done(k, k->canceled ? -ECANCELED : error, prog);
	lambda_live(ls, -1);
}

static void accept_program(struct program_check *k)
{
	struct ctrl_host *host = k->host;
	struct ctrl_program *prog;
	int rc = ctrl_program_add(host, k->program.hash, k->program.fd, k->program.size, &prog);

	k->program.fd = -1;
	if (rc) {
		snprintf(k->job.text, sizeof(k->job.text),
			 "program: this host's programs fill the server's memory for them; wait "
			 "until others are no longer used");
		check_end(k, rc, NULL);
		return;
	}
	pthread_mutex_lock(&host->ls->lock);
	memcpy(prog->name, k->job.name, sizeof(prog->name) - 1);
	pthread_mutex_unlock(&host->ls->lock);
	if (k->job.helpers)
		atomic_store(&host->ls->helpers, k->job.helpers);
	check_end(k, 0, prog);
}

static void check_ready(struct ctrl_job *job)
{
	struct program_check *k = (struct program_check *)job;

	if (!job->ended)
		return;
	turn_over(k->host, &k->turn);
	ctrl_job_release(job);
	if (job->result.error || k->canceled)
		check_end(k, job->result.error, NULL);
	else
		accept_program(k);
}

static void check_start(struct program_check *k)
{
	struct ctrl_error err = {0};
	int rc = k->canceled ? -ECANCELED : ctrl_job_start(&k->job, &err);

	if (!rc) {
		k->started = true;
		turn_started(k->host, &k->turn);
		return;
	}
	if (rc == -EAGAIN) {
		ctrl_timer_arm(k->loop, &k->timer, RETRY_MS);
		return;
	}
	turn_over(k->host, &k->turn);
	snprintf(k->job.text, sizeof(k->job.text), "%s", err.text);
	check_end(k, rc, NULL);
}

static void check_again(struct ctrl_timer *t)
{
	check_start((struct program_check *)((char *)t - offsetof(struct program_check, timer)));
}

static void check_turn(struct lambda_turn *t, int error)
{
	struct program_check *k =
		(struct program_check *)((char *)t - offsetof(struct program_check, turn));

	if (error)
		check_end(k, error, NULL);
	else
		check_start(k);
}

void program_check(struct program_check *k, struct ctrl_server *s, const uint8_t hash[32], int fd,
		   uint64_t size)
{
	static const struct nvme_lambda_request nothing;

	k->timer.fire = check_again;
	memcpy(k->program.hash, hash, sizeof(k->program.hash));
	k->program.fd = fd;
	k->program.size = size;
	k->program.host = k->host;
	k->job = (struct ctrl_job){
		.kind = CTRL_JOB_CHECK,
		.loop = k->loop,
		.server = s,
		.host = k->host,
		.program = &k->program,
		.fd = -1,
		.request = &nothing,
		.threads = 1,
		.ready = check_ready,
	};
	k->turn.go = check_turn;
	k->turn.job = &k->job;
	lambda_live(k->host->ls, 1);
	if (turn_ask(k->host, k->loop, &k->turn))
		check_start(k);
}

void program_check_cancel(struct program_check *k)
{
	k->canceled = true;
	if (k->started)
		ctrl_job_cancel(&k->job);
	else
		turn_withdraw(k->host, &k->turn);
}

/* ---- of a command ---- */

static void refused(struct ctrl_lambda *lam, const char *text)
{
	pthread_mutex_lock(&lam->lock);
	snprintf(lam->refusal, sizeof(lam->refusal), "%s", text);
	pthread_mutex_unlock(&lam->lock);
}

static void checked(struct program_check *check, int error, struct ctrl_program *prog)
{
	struct lambda_check *k = (struct lambda_check *)check, **at;
	struct ctrl_lambda *lam = k->lam;

	pthread_mutex_lock(&lam->lock);
	for (at = &lam->checks; *at != k; at = &(*at)->next)
		;
	*at = k->next;
	pthread_mutex_unlock(&lam->lock);
	ctrl_program_put(prog);
	if (error)
		refused(lam, check->job.text);
	ctrl_complete(k->cmd, check->canceled ? NVME_SC_ABORT_SQ_DELETED
			      : error         ? NVME_SC_LAMBDA_REFUSED
					      : NVME_SC_SUCCESS);
	ctrl_lambda_put(lam);
	free(k);
}

void checks_leave(struct ctrl_lambda *lam, const struct ctrl_queue *q)
{
	struct lambda_check *k;

	for (;;) {
		pthread_mutex_lock(&lam->lock);
		for (k = lam->checks; k && (k->q != q || k->check.canceled); k = k->next)
			;
		pthread_mutex_unlock(&lam->lock);
		if (!k)
			return;
		program_check_cancel(&k->check);
	}
}

static void check(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_upload *u)
{
	struct lambda_check *k = calloc(1, sizeof(*k));
	int fd = u->fd;

	if (!k) {
		ctrl_complete(cmd, NVME_SC_INTERNAL);
		return;
	}
	k->cmd = cmd;
	k->q = cmd->q;
	k->lam = lambda_get(lam);
	k->check.loop = cmd->q->loop;
	k->check.host = lam->host;
	k->check.done = checked;
	u->fd = -1;
	pthread_mutex_lock(&lam->lock);
	k->next = lam->checks;
	lam->checks = k;
	pthread_mutex_unlock(&lam->lock);
	program_check(&k->check, lam->server, u->hash, fd, u->total);
}

static void whole(struct ctrl_cmd *cmd, struct ctrl_lambda *lam, struct lambda_upload *u)
{
	uint8_t hash[32];

	if (EVP_DigestFinal_ex(u->sha, hash, NULL) != 1 || fcntl(u->fd, F_ADD_SEALS, SEALS)) {
		ctrl_complete(cmd, NVME_SC_INTERNAL);
	} else if (memcmp(hash, u->hash, sizeof(hash))) {
		refused(lam,
			"program: its bytes are not those that the hash names; upload it again");
		ctrl_complete(cmd, NVME_SC_LAMBDA_REFUSED);
	} else if (sched_full(&lam->ls->sched, &lam->host->sched)) {
		lambda_busy(cmd, lam->ls, sched_busy_ms(&lam->ls->sched));
	} else {
		check(cmd, lam, u);
	}
	upload_free(u);
}

/* ---- the command ---- */

uint16_t program_prepare(struct ctrl_cmd *cmd)
{
	uint32_t total = nvme_get32(cmd->sqe.cdw10), at = nvme_get32(cmd->sqe.cdw11);
	uint32_t len = nvme_get32(cmd->sqe.cdw13), nsid = nvme_get32(cmd->sqe.nsid);
	uint32_t most = ctrl_server_limits(cmd->q->server)->max_transfer;

	if (nsid && !ctrl_namespace(cmd->q->ctrl, nsid))
		return NVME_SC_INVALID_NS;
	if (nvme_get32(cmd->sqe.cdw2) || nvme_get32(cmd->sqe.cdw3) || nvme_get32(cmd->sqe.cdw12) ||
	    nvme_get32(cmd->sqe.cdw14) || nvme_get32(cmd->sqe.cdw15) || !len ||
	    len > most - sizeof(struct nvme_lambda_program) || at > total || len > total - at)
		return NVME_SC_INVALID_FIELD;
	if (total > ctrl_server_lambda(cmd->q->server)->max_program)
		return NVME_SC_LAMBDA_TOO_BIG;
	cmd->dir = CTRL_TO_CONTROLLER;
	cmd->data_len = len + (uint32_t)sizeof(struct nvme_lambda_program);
	return NVME_SC_SUCCESS;
}

void program_run(struct ctrl_cmd *cmd)
{
	struct ctrl_lambda *lam = lambda_of(cmd->q->ctrl);
	const struct nvme_lambda_program *head = (const struct nvme_lambda_program *)cmd->data;
	uint32_t total = nvme_get32(cmd->sqe.cdw10), at = nvme_get32(cmd->sqe.cdw11);
	uint32_t len = nvme_get32(cmd->sqe.cdw13);
	struct lambda_upload *u = NULL;
	struct ctrl_program *known;
	uint16_t status;
	int rc;

	known = lam ? ctrl_program_find(lam->host, head->hash) : NULL;
	if (!lam || known) {
		ctrl_program_put(known);
		ctrl_complete(cmd, lam ? NVME_SC_SUCCESS : NVME_SC_INTERNAL);
		return;
	}
	status = upload_part(lam, head->hash, total, at, &u);
	if (status) {
		ctrl_complete(cmd, status);
		return;
	}
	rc = upload_add(u, cmd->data + sizeof(*head), len);
	if (upload_added(lam, u, len, rc))
		whole(cmd, lam, u);
	else
		ctrl_complete(cmd, rc ? NVME_SC_INTERNAL : NVME_SC_SUCCESS);
}

/* ---- information ---- */

uint16_t info_prepare(struct ctrl_cmd *cmd)
{
	uint32_t len = nvme_get32(cmd->sqe.cdw11), nsid = nvme_get32(cmd->sqe.nsid);

	if (nsid && !ctrl_namespace(cmd->q->ctrl, nsid))
		return NVME_SC_INVALID_NS;
	if (nvme_get32(cmd->sqe.cdw2) || nvme_get32(cmd->sqe.cdw3) || nvme_get32(cmd->sqe.cdw14) ||
	    nvme_get32(cmd->sqe.cdw15) || nvme_get32(cmd->sqe.cdw10) > NVME_LAMBDA_PAGE_REFUSAL ||
	    !len || len > ctrl_server_limits(cmd->q->server)->max_transfer)
		return NVME_SC_INVALID_FIELD;
	cmd->dir = CTRL_TO_HOST;
	cmd->data_len = len;
	return NVME_SC_SUCCESS;
}

static void put_abilities(struct ctrl_lambda *lam, FILE *out)
{
	const struct ctrl_lambda_limits *l = ctrl_server_lambda(lam->server);
	struct nvme_lambda_abilities a = {
		.version_min = htole16(NVME_LAMBDA_VERSION),
		.version_max = htole16(NVME_LAMBDA_VERSION),
		.flags =
			htole32(ctrl_server_has_exports(lam->server) ? NVME_LAMBDA_CAN_EXPORTS : 0),
		.helpers = htole64(atomic_load(&lam->ls->helpers)),
		.tiers = htole32(1u << 0 | 1u << 1 | 1u << 2),
		.cores = htole32(lam->ls->cores),
		.max_handles = htole32(l->max_handles),
		.max_objects = htole32(l->max_objects),
		.max_fetch_wait_ms = htole32(5000),
		.max_waiting = htole32(l->max_waiting),
		.max_running = htole32(lam->ls->sched.max_running),
		.max_queued = htole32(l->max_queued),
		.max_request = htole64(l->max_request),
		.max_program = htole64(l->max_program),
		.max_fuel = htole64(l->max_fuel),
		.max_memory = htole64(l->max_memory),
		.max_output = htole64(l->max_output),
		.max_timeout_ns = htole64(l->max_timeout_ns),
		.server = "lambda-io " LIO_VERSION,
	};

	fwrite(&a, sizeof(a), 1, out);
}

static void put_programs(struct ctrl_lambda *lam, FILE *out)
{
	pthread_mutex_lock(&lam->ls->lock);
	for (struct ctrl_program *p = lam->host->programs; p; p = p->next) {
		struct nvme_lambda_loaded row = {
			.size = htole64(p->size),
			.runs = htole64(atomic_load(&p->runs)),
		};

		memcpy(row.hash, p->hash, sizeof(row.hash));
		memcpy(row.name, p->name, sizeof(row.name));
		fwrite(&row, sizeof(row), 1, out);
	}
	pthread_mutex_unlock(&lam->ls->lock);
}

static void put_stats(struct ctrl_lambda *lam, FILE *out)
{
	struct sched *s = &lam->ls->sched;
	const struct sched_host *h = &lam->host->sched;

	pthread_mutex_lock(&s->lock);
	fprintf(out,
		"cores=%" PRIu32 "\nrunning=%" PRIu32 "\nqueued=%" PRIu32 "\nhost_running=%" PRIu32
		"\nhost_queued=%" PRIu32 "\n",
		s->cores, s->running, s->queued, h->running, h->queued);
	pthread_mutex_unlock(&s->lock);
	fprintf(out, "host_ended=%" PRIuFAST64 "\nhost_request_bytes=%" PRIuFAST64 "\n",
		atomic_load(&lam->host->ended), atomic_load(&lam->host->request_bytes));
	pthread_mutex_lock(&lam->ls->lock);
	fprintf(out, "host_program_bytes=%" PRIu64 "\n", lam->host->program_bytes);
	pthread_mutex_unlock(&lam->ls->lock);
	pthread_mutex_lock(&lam->lock);
	fprintf(out, "handles=%" PRIu32 "\nwaiting=%" PRIu32 "\n", lam->n_runs, lam->n_waiting);
	pthread_mutex_unlock(&lam->lock);
}

static void put_refusal(struct ctrl_lambda *lam, FILE *out)
{
	pthread_mutex_lock(&lam->lock);
	fputs(lam->refusal, out);
	pthread_mutex_unlock(&lam->lock);
}

static void put_page(uint32_t page, struct ctrl_lambda *lam, FILE *out)
{
	switch ((enum nvme_lambda_page)page) {
	case NVME_LAMBDA_PAGE_ABILITIES:
		put_abilities(lam, out);
		break;
	case NVME_LAMBDA_PAGE_PROGRAMS:
		put_programs(lam, out);
		break;
	case NVME_LAMBDA_PAGE_STATS:
		put_stats(lam, out);
		break;
	case NVME_LAMBDA_PAGE_REFUSAL:
		put_refusal(lam, out);
		break;
	}
}

void info_run(struct ctrl_cmd *cmd)
{
	struct ctrl_lambda *lam = lambda_of(cmd->q->ctrl);
	uint64_t offset = cdw_offset(cmd);
	char *text = NULL;
	size_t len = 0;
	FILE *out = lam ? open_memstream(&text, &len) : NULL;

	if (!out) {
		ctrl_complete(cmd, NVME_SC_INTERNAL);
		return;
	}
	put_page(nvme_get32(cmd->sqe.cdw10), lam, out);
	if (fclose(out)) {
		free(text);
		ctrl_complete(cmd, NVME_SC_INTERNAL);
		return;
	}
	if (offset > len) {
		free(text);
		ctrl_complete(cmd, NVME_SC_INVALID_FIELD);
		return;
	}
	len -= offset;
	if (len > cmd->data_len)
		len = cmd->data_len;
	memcpy(cmd->data, text + offset, len);
	free(text);
	cmd->data_len = (uint32_t)len;
	cmd->dir = len ? CTRL_TO_HOST : CTRL_NO_DATA;
	cmd->cqe.dw0 = nvme_put32((uint32_t)len);
	ctrl_complete(cmd, NVME_SC_SUCCESS);
}
