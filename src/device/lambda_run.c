/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_run.c - a run's life from its turn on: its job, its output and input, its result, its end.
 *
 * A run is freed when nobody will fetch from it any more and nothing of it is elsewhere: run_settle().
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "device/lambda_private.h"

#define RETRY_MS      8u           /* all workers are busy */
#define STALL_MS      50u          /* without a reader the turn is not counted */
#define FETCH_IDLE_NS 30000000000u /* and without one for so long the run ends */
#define IDLE_LOOK_MS  1000u
#define INPUT_WAIT_MS 1000u
#define INPUT_BUSY_MS 5u

static void advance(struct lambda_run *run);
static void input_feed(struct lambda_run *run);

/* ---- the result ---- */

void run_fail(struct lambda_run *run, int error, const char *fmt, ...)
{
	va_list ap;

	if (run->result.error)
		return;
	run->result.error = error;
	va_start(ap, fmt);
	vsnprintf(run->text, sizeof(run->text), fmt, ap);
	va_end(ap);
}

/* Values of a line: what would end one or look like another key is replaced. */
static void word(char *to, size_t size, const char *from)
{
	size_t i;

	for (i = 0; from[i] && i < size - 1; i++)
		to[i] = (unsigned char)from[i] <= ' ' || from[i] == '=' || from[i] == '"' ||
					from[i] == 0x7f
				? '?'
				: from[i];
	to[i] = 0;
}

static void describe_source(const struct lambda_run *run, char *to, size_t size)
{
	char name[256];

	if (run->from) {
		word(name, sizeof(name), ctrl_object_name(run->from));
		snprintf(to, size, "%s", name);
	} else if (run->from_ns) {
		snprintf(to, size, "namespace-%" PRIu32, run->from_ns->nsid);
	} else {
		snprintf(to, size, "stream");
	}
}

/* One line a run: who, what, on what, how much, how it ended. */
static void audit(const struct lambda_run *run)
{
	static const char *const outcomes[LAMBDA_OUTCOMES] = {
		[LAMBDA_DONE] = "done",         [LAMBDA_FAILED] = "failed",
		[LAMBDA_REFUSED] = "refused",   [LAMBDA_CHANGED] = "changed",
		[LAMBDA_CANCELED] = "canceled",
	};
	const struct nvme_lambda_result *r = &run->result;
	char program[17] = "", name[49] = "", what[256], to[300] = "";

	for (unsigned int i = 0; i < 8; i++)
		snprintf(program + 2 * i, 3, "%02x", run->parsed.head.program[i]);
	if (run->job.program)
		word(name, sizeof(name), run->job.program->name);
	describe_source(run, what, sizeof(what));
	if (run->to) {
		char object[256];

		word(object, sizeof(object), ctrl_object_name(run->to));
		snprintf(to, sizeof(to), " to=%s", object);
	} else if (run->to_ns) {
		snprintf(to, sizeof(to), " to=namespace-%" PRIu32, run->to_ns->nsid);
	}
	ctrl_log(run->lam->server,
		 "event=run host=%s program=%s name=%s what=%s%s bytes_in=%" PRIu64
		 " bytes_out=%" PRIu64 " bytes_written=%" PRIu64 " wall_ms=%" PRIu64
		 " outcome=%s%s%s",
		 run->host->nqn, program, *name ? name : "?", what, to, r->bytes_in, r->bytes_out,
		 r->bytes_written, r->wall_ns / 1000000, outcomes[run->outcome],
		 r->error ? " error=" : "", r->error ? strerrorname_np(-r->error) : "");
}

static void count(const struct lambda_run *run)
{
	struct lambda_counters *c = &run->lam->ls->counters;

	atomic_fetch_add(&c->runs[run->outcome], 1);
	atomic_fetch_add(&c->bytes_in, run->result.bytes_in);
	atomic_fetch_add(&c->bytes_out, run->result.bytes_out);
	atomic_fetch_add(&c->bytes_written, run->result.bytes_written);
	atomic_fetch_add(&c->compute_ns, run->result.run_ns);
	atomic_fetch_add(&run->host->ended, 1);
	if (run->job.program)
		atomic_fetch_add(&run->job.program->runs, 1);
}

static void run_settle(struct lambda_run *run);

static void inputs_end(struct lambda_run *run)
{
	while (run->n_inputs)
		lambda_answer(run->inputs[--run->n_inputs], NVME_SC_LAMBDA_NO_HANDLE);
}

/* All is known: let the host have it. */
void run_end(struct lambda_run *run)
{
	struct nvme_lambda_result *r = &run->result;

	run->state = RUN_ENDED;
	r->text_len = (uint32_t)strlen(run->text);
	r->wall_ns = ctrl_now_ns() - run->submitted_ns;
	r->queue_ns = run->started_ns ? run->started_ns - run->submitted_ns : r->wall_ns;
	r->cores = run->lam->ls->cores;
	sched_load(&run->lam->ls->sched, &r->queued, &r->running);
	if (run->canceled)
		run->outcome = LAMBDA_CANCELED;
	else if (r->flags & NVME_LAMBDA_CHANGED)
		run->outcome = LAMBDA_CHANGED;
	else if (r->error)
		run->outcome = run->job_started ? LAMBDA_FAILED : LAMBDA_REFUSED;
	if (!run_is_path(run)) {
		count(run);
		audit(run);
	}
	inputs_end(run);
	if (run->forgotten) {
		run_settle(run);
		return;
	}
	run->no_fetch_ns = ctrl_now_ns();
	if (!run->timer.at_ns)
		ctrl_timer_arm(run->loop, &run->timer, IDLE_LOOK_MS);
	fetch_kick(run);
}

/* ---- its end ---- */

static void run_free(struct lambda_run *run)
{
	struct ctrl_lambda_server *ls = run->lam->ls;

	ctrl_timer_cancel(run->loop, &run->timer);
	ctrl_timer_cancel(run->loop, &run->input_timer);
	stage_free(run);
	if (run->from)
		ctrl_object_put(run->from);
	if (run->to)
		ctrl_object_put(run->to);
	ctrl_program_put(run->job.program);
	lambda_parsed_free(&run->parsed);
	atomic_fetch_sub(&run->host->request_bytes, run->request_len);
	free(run->request);
	free(run->path.reply);
	free(run->rest);
	ctrl_lambda_put(run->lam);
	free(run);
	lambda_live(ls, -1); /* the last: the server may end now */
}

static void run_settle(struct lambda_run *run)
{
	if (run->forgotten && !run->pending && run->state == RUN_ENDED)
		run_free(run);
}

static void forget(struct lambda_run *run, uint16_t status, uint32_t dw0)
{
	lambda_forget_handle(run);
	run->forgotten = true;
	fetch_end_all(run, status, dw0);
	inputs_end(run);
}

void run_done(struct lambda_run *run)
{
	lambda_refuse(run->lam, run->handle, NVME_SC_LAMBDA_NO_HANDLE, 0);
	forget(run, NVME_SC_LAMBDA_NO_HANDLE, 0);
	run_settle(run);
}

void run_drop(struct lambda_run *run)
{
	lambda_refuse(run->lam, run->handle, NVME_SC_LAMBDA_NO_HANDLE, 0);
	forget(run, NVME_SC_LAMBDA_NO_HANDLE, 0);
	run->canceled = run->state != RUN_ENDED;
	switch (run->state) {
	case RUN_COLLECTING:
		run->state = RUN_ENDED;
		break;
	case RUN_QUEUED:
		turn_withdraw(run->host, &run->turn);
		break;
	case RUN_RUNNING:
		if (run->job_started)
			ctrl_job_cancel(&run->job);
		break;
	case RUN_PREPARING:
	case RUN_CHECKING:
	case RUN_STORING:
	case RUN_ENDED:
		break; /* what is under way comes back and finds out */
	}
	run_settle(run);
}

/* The handle is free again; whoever waits for it is told. */
void run_refuse(struct lambda_run *run, uint16_t status, uint32_t dw0)
{
	lambda_refuse(run->lam, run->handle, status, dw0);
	forget(run, status, dw0);
	run->state = RUN_ENDED;
	run_settle(run);
}

/* ---- output ---- */

size_t run_output(struct lambda_run *run, struct iovec out[2])
{
	out[0] = out[1] = (struct iovec){0};
	if (run->rest) {
		out[0] = (struct iovec){run->rest + run->rest_at, run->rest_len - run->rest_at};
		return out[0].iov_len;
	}
	if (run->state != RUN_RUNNING || !run->job_started ||
	    run->parsed.head.sink != NVME_LAMBDA_TO_FETCH)
		return 0;
	return ctrl_job_output(&run->job, out);
}

void run_consume(struct lambda_run *run, size_t len)
{
	if (!len)
		return;
	if (run->rest)
		run->rest_at += len;
	else
		ctrl_job_consume(&run->job, len);
}

/* What the job left, so that its worker is free for others. */
static bool keep_rest(struct lambda_run *run)
{
	struct iovec iov[2];
	size_t n = ctrl_job_output(&run->job, iov);

	if (!n || run->forgotten)
		return true;
	run->rest = malloc(n);
	if (!run->rest)
		return false;
	memcpy(run->rest, iov[0].iov_base, iov[0].iov_len);
	if (iov[1].iov_len)
		memcpy(run->rest + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
	run->rest_len = n;
	ctrl_job_consume(&run->job, n);
	return true;
}

/* ---- the job ---- */

static void check_object(struct lambda_run *run);

static void job_over(struct lambda_run *run)
{
	const struct nvme_lambda_result *r = &run->job.result;
	int error = run->result.error;

	/* What failed here before is the cause of what failed there. */
	run->result = *r;
	if (error)
		run->result.error = error;
	else
		memcpy(run->text, run->job.text, sizeof(run->text));
	turn_over(run->host, &run->turn);
	ctrl_job_release(&run->job);
	if (run->canceled)
		run_fail(run, -ECANCELED, "run: canceled by the host");
	check_object(run);
}

void run_ready(struct lambda_run *run)
{
	bool stores = run->parsed.head.sink != NVME_LAMBDA_TO_FETCH;

	if (run->state != RUN_RUNNING)
		return;
	input_feed(run);
	if (stores && !stage_take(run))
		return;
	if (!run->job.ended) {
		if (!stores)
			fetch_kick(run);
		return;
	}
	if (!stores && !keep_rest(run))
		run_fail(run, -ENOMEM, "output: no memory for what is not fetched yet; try again");
	job_over(run);
}

void run_on_job(struct ctrl_job *job)
{
	run_ready((struct lambda_run *)job);
}

static void give_turn_back(struct lambda_run *run)
{
	turn_over(run->host, &run->turn);
	run_end(run);
}

static void start_job(struct lambda_run *run)
{
	struct ctrl_error err = {0};
	int rc;

	if (run->canceled) {
		run_fail(run, -ECANCELED, "run: canceled by the host");
		give_turn_back(run);
		return;
	}
	rc = ctrl_job_start(&run->job, &err);
	if (rc == -EAGAIN) {
		ctrl_timer_arm(run->loop, &run->timer, RETRY_MS);
		return;
	}
	if (rc) {
		run_fail(run, rc, "%s", err.text);
		give_turn_back(run);
		return;
	}
	run->job_started = true;
	turn_started(run->host, &run->turn);
	run_watched(run, run->fetches);
	input_feed(run);
	/* Who waits for output is to be told of it. */
	if (run->fetches)
		fetch_kick(run);
}

static void got_turn(struct lambda_run *run)
{
	uint32_t share = sched_share(&run->lam->ls->sched), asked = run->parsed.head.threads;

	run->state = RUN_RUNNING;
	run->started_ns = ctrl_now_ns();
	run->job.threads = asked && asked < share ? asked : share;
	start_job(run);
}

static void turn_came(struct lambda_turn *t, int error)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)t - offsetof(struct lambda_run, turn));

	run->pending--;
	if (!error) {
		got_turn(run);
		return;
	}
	run_fail(run, -ECANCELED, "run: canceled by the host");
	run_end(run);
}

/* Its request is complete and makes sense. */
static void queue(struct lambda_run *run)
{
	run->turn.go = turn_came;
	run->turn.job = &run->job;
	run->state = RUN_QUEUED;
	if (turn_ask(run->host, run->loop, &run->turn))
		got_turn(run);
	else
		run->pending++;
}

void run_on_timer(struct ctrl_timer *t)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)t - offsetof(struct lambda_run, timer));
	struct iovec iov[2];

	run->timer_fetch = false;
	if (run->state == RUN_RUNNING && !run->job_started) {
		start_job(run);
		return;
	}
	if (run->fetches) {
		run->answered_ns = 0;
		fetch_kick(run);
		return;
	}
	if (run->forgotten || (run->state != RUN_RUNNING && run->state != RUN_ENDED))
		return;
	if (ctrl_now_ns() - run->no_fetch_ns >= FETCH_IDLE_NS &&
	    (run->state == RUN_ENDED || run_output(run, iov))) {
		ctrl_log(run->lam->server, "event=run-abandoned host=%s handle=%" PRIu32,
			 run->host->nqn, run->handle);
		run_drop(run);
		return;
	}
	if (run->state == RUN_RUNNING && !run->stalled && run_output(run, iov)) {
		run->stalled = true;
		sched_stall(&run->lam->ls->sched, &run->turn.turn, true);
	}
	ctrl_timer_arm(run->loop, &run->timer,
		       run->stalled || run->state == RUN_ENDED ? IDLE_LOOK_MS : STALL_MS);
}

void run_watched(struct lambda_run *run, bool watched)
{
	if (watched && run->stalled) {
		run->stalled = false;
		sched_stall(&run->lam->ls->sched, &run->turn.turn, false);
	}
	if (watched)
		return;
	run->no_fetch_ns = ctrl_now_ns();
	if (!run->timer.at_ns && run->state == RUN_RUNNING && run->job_started &&
	    run->parsed.head.sink == NVME_LAMBDA_TO_FETCH)
		ctrl_timer_arm(run->loop, &run->timer, STALL_MS);
}

/* ---- the object, before and after ---- */

static int look_before(struct ctrl_io *io)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)io - offsetof(struct lambda_run, io));

	return ctrl_object_version(run->from, &run->before);
}

static int look_after(struct ctrl_io *io)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)io - offsetof(struct lambda_run, io));

	return ctrl_object_version(run->from, &run->after);
}

static void looked(struct ctrl_io *io, int error)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)io - offsetof(struct lambda_run, io));

	run->pending--;
	if (error) {
		run->after = run->before;
		run_fail(run, error, "%s: cannot look at it: %s; is its storage well?",
			 ctrl_object_name(run->from), strerror(-error));
	}
	advance(run);
}

static void look(struct lambda_run *run, int (*work)(struct ctrl_io *io))
{
	run->io = (struct ctrl_io){.loop = run->loop, .done = looked};
	run->pending++;
	ctrl_object_submit(run->from, &run->io, work);
}

static void check_object(struct lambda_run *run)
{
	run->state = RUN_CHECKING;
	if (run->from && !run->canceled)
		look(run, look_after);
	else
		advance(run);
}

static void compare_object(struct lambda_run *run)
{
	if (!run->from || run->canceled || !memcmp(&run->before, &run->after, sizeof(run->before)))
		return;
	run->result.flags |= NVME_LAMBDA_CHANGED;
	run->result.error = 0;
	run_fail(run, -EBUSY,
		 "%s: it changed while the function read it (size %" PRIu64 " before, %" PRIu64
		 " after); run it again when nobody writes it",
		 ctrl_object_name(run->from), run->before.size, run->after.size);
}

void run_stored(struct lambda_run *run)
{
	run->pending--;
	run_end(run);
}

void run_begin(struct lambda_run *run)
{
	if (!run->from) {
		queue(run);
		return;
	}
	run->state = RUN_PREPARING;
	look(run, look_before);
}

/* Something that was elsewhere came back. */
static void advance(struct lambda_run *run)
{
	if (run->state == RUN_PREPARING) {
		if (run->canceled)
			run_fail(run, -ECANCELED, "run: canceled by the host");
		run->job.size = run->before.size;
		if (run->result.error)
			run_end(run);
		else
			queue(run);
		return;
	}
	compare_object(run);
	if (run->result.error || run->parsed.head.sink == NVME_LAMBDA_TO_FETCH) {
		run_end(run);
		return;
	}
	run->state = RUN_STORING;
	run->pending++;
	stage_store(run);
}

/* ---- input of a stream ---- */

static struct ctrl_cmd *input_take(struct lambda_run *run)
{
	struct ctrl_cmd *cmd = run->inputs[0];

	run->n_inputs--;
	memmove(run->inputs, run->inputs + 1, run->n_inputs * sizeof(struct ctrl_cmd *));
	return cmd;
}

/* Give waiting parts to the job, for as long as it takes them. */
static void input_feed(struct lambda_run *run)
{
	while (run->n_inputs && run->job_started && run->state == RUN_RUNNING) {
		struct ctrl_cmd *cmd = run->inputs[0];
		uint64_t at = cdw_offset(cmd), skip = run->input_at - at, n;
		bool last = nvme_get32(cmd->sqe.cdw14) & NVME_LAMBDA_INPUT_LAST;

		if (run->input_last || at > run->input_at || skip > cmd->data_len) {
			lambda_answer(input_take(run),
				      run->input_last ? NVME_SC_SUCCESS : NVME_SC_LAMBDA_ORDER);
			continue;
		}
		n = ctrl_job_input(&run->job, cmd->data ? cmd->data + skip : (const uint8_t *)"",
				   cmd->data_len - skip, last);
		run->input_at += n;
		if (n < cmd->data_len - skip)
			break;
		run->input_last = last;
		lambda_answer(input_take(run), NVME_SC_SUCCESS);
	}
	if (!run->n_inputs)
		ctrl_timer_cancel(run->loop, &run->input_timer);
}

static void input_timeout(struct ctrl_timer *t)
{
	struct lambda_run *run =
		(struct lambda_run *)((char *)t - offsetof(struct lambda_run, input_timer));

	while (run->n_inputs)
		lambda_busy(input_take(run), run->lam->ls, INPUT_BUSY_MS);
}

void run_input(struct ctrl_cmd *cmd, struct lambda_run *run)
{
	if (run->state == RUN_COLLECTING || run_is_path(run) ||
	    run->parsed.head.source != NVME_LAMBDA_FROM_STREAM) {
		lambda_answer(cmd, NVME_SC_INVALID_FIELD);
		return;
	}
	/* It wants no more, and its result says why. */
	if (run->state > RUN_RUNNING) {
		lambda_answer(cmd, NVME_SC_SUCCESS);
		return;
	}
	if (run->n_inputs == RUN_INPUTS) {
		lambda_busy(cmd, run->lam->ls, INPUT_BUSY_MS);
		return;
	}
	run->inputs[run->n_inputs++] = cmd;
	input_feed(run);
	if (run->n_inputs && !run->input_timer.at_ns) {
		run->input_timer.fire = input_timeout;
		ctrl_timer_arm(run->loop, &run->input_timer, INPUT_WAIT_MS);
	}
}
