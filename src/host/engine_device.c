/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_device.c - functions run by the server that has the file; only their output crosses the wire.
 *
 * A run is submitted and fetched in one go.  The thread that called waits for its own commands, without another
 * thread's help; once much output comes, several fetches are under way.  A λ-write's input, where it is not a file of
 * that server, is sent in parts as the run takes them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/remote.h"

#define FETCHES     4u           /* under way at most */
#define FETCH_FIRST (64u << 10)  /* a small answer fits and costs one round trip */
#define FETCH_LARGE (512u << 10) /* once more came */
#define PARTS       4u
#define PART_BYTES  (256u << 10)
#define PROGRESS_MS 200u          /* a fetch waits so long where progress is to be shown */
#define WAIT_MS     5000u         /* else; or less, if the server says so */
#define SLACK_NS    500000000ull  /* behind the time limit, which the server keeps */
#define CANCEL_NS   1000000000ull /* a cancelled run ends within this, or the wait for it does */
#define GRACE_MS    1000u         /* for the server to give up what is not answered */

struct fetch {
	struct nvme_req req;
	uint8_t *buf;
	uint32_t size;
	bool flying;
};

struct part { /* of a stream */
	struct nvme_req req;
	uint8_t *buf;
	uint32_t len;
	uint64_t at;
	bool used, flying, taken, again;
};

struct device_run {
	struct host_run *run;
	struct remote_call c;
	bool stream;
	uint8_t *request;
	uint32_t request_len, handle;
	/* one attempt */
	struct nvme_req submit, cancel;
	bool submitted; /* and answered with success */
	bool cancelling, overdue;
	int rc; /* the first failure, and its text */
	struct lambda_error fail;
	struct nvme_req *bad; /* what ended with a status or an error, of what the attempt needs */
	uint64_t received;
	struct fetch fetches[FETCHES];
	unsigned int oldest, n_flying, n_fetches;
	struct nvme_cqe waiting; /* the server had no room for a fetch */
	bool is_waiting;
	struct remote_fetched answer;
	bool ended;
	/* a stream's */
	struct part parts[PARTS];
	uint64_t sent;
	bool input_end, stop;
	unsigned int n_busy;
};

/* ---- what an engine is asked before ---- */

static const char *device_missing(void)
{
	return NULL;
}

static bool is_remote(const struct lio_file *file)
{
	return file && file->kind == FILE_REMOTE;
}

static bool device_stores(const struct host_run *run)
{
	return is_remote(run->target);
}

/* Is the input a file of the server at which the function will run? */
static bool source_is_there(const struct host_run *run)
{
	return is_remote(run->file) &&
	       (!is_remote(run->target) ||
		!strcmp(run->file->remote->r->where, run->target->remote->r->where));
}

static int device_open(struct host_run *run)
{
	struct lio_run_opts opts = run->opts;

	if (opts.io != LIO_IO_AUTO)
		return host_fail(-EOPNOTSUPP,
				 "io %s: how a server reads is its own choice; leave it to auto",
				 opts.io == LIO_IO_MMAP ? "mmap" : "pread");
	if (opts.tier > LIO_TIER_TEMPLATE)
		return host_fail(-EOPNOTSUPP,
				 "tier %s: servers have none; use tier auto, interp or template",
				 sbpf_tier_name((enum sbpf_tier)opts.tier));
	if (opts.trace)
		run->why = "no trace comes from a server";
	if (!run->file) {
		input_open_mem(&run->in, run->mem, run->mem_len);
		return 0;
	}
	if (!source_is_there(run)) { /* its bytes go there as they are */
		opts.decompress = LIO_DECOMPRESS_NONE;
		opts.io = LIO_IO_PREAD;
		return input_open(&run->in, run->file, &opts, run->req.deadline_ns);
	}
	if (!file_readable(run->file))
		return host_fail(-EBADF,
				 "%s: not open for reading; open it with O_RDONLY or O_RDWR",
				 run->file->name);
	run->in.file = run->file;
	run->in.decoder = NULL;
	run->in.fail.code = 0;
	return 0;
}

/* ---- the request ---- */

static uint64_t time_left(const struct host_run *run)
{
	uint64_t now = host_now();

	if (!run->req.deadline_ns)
		return 0;
	return run->req.deadline_ns > now ? run->req.deadline_ns - now : 1;
}

static int request_make(struct device_run *d)
{
	const struct host_run *run = d->run;
	struct nvme_lambda_request head = {
		.version = NVME_LAMBDA_VERSION,
		.op = NVME_LAMBDA_RUN,
		.offset = run->req.offset,
		.length = run->req.length,
		.chunk = run->req.chunk,
		.fuel = run->req.fuel,
		.memory = run->req.memory,
		.max_output = run->req.max_output,
		.threads = run->req.threads,
		.tier = (uint8_t)run->opts.tier,
		.source = d->stream ? NVME_LAMBDA_FROM_STREAM : NVME_LAMBDA_FROM_OBJECT,
		.sink = device_stores(run) ? NVME_LAMBDA_TO_OBJECT : NVME_LAMBDA_TO_FETCH,
		.source_len = d->stream ? 0 : 8,
		.sink_len = device_stores(run) ? sizeof(struct nvme_lambda_to_object) : 0,
		.arg_len = (uint32_t)run->req.arg_len,
	};
	uint64_t len = sizeof(head) + head.source_len + head.sink_len + run->req.arg_len;

	/* Memory is read as it is here, too. */
	if (run->opts.decompress == LIO_DECOMPRESS_AUTO && run->file)
		head.flags |= NVME_LAMBDA_DECOMPRESS;
	if (run->req.fuel)
		head.flags |= NVME_LAMBDA_FUEL;
	memcpy(head.program, run->fn->hash, sizeof(head.program));
	if (len > d->c.r->abilities.max_request)
		return host_fail(-E2BIG,
				 "%s: its arguments take %zu bytes, and its server takes requests "
				 "of %llu; use fewer, or engine user",
				 run->fn->fn->name, run->req.arg_len,
				 (unsigned long long)d->c.r->abilities.max_request);
	d->request = malloc(len);
	if (!d->request)
		return host_fail(-ENOMEM, "%s: no memory for the request; free some",
				 run->fn->fn->name);
	memcpy(d->request, &head, sizeof(head));
	if (run->req.arg_len)
		memcpy(d->request + len - run->req.arg_len, run->req.arg, run->req.arg_len);
	d->request_len = (uint32_t)len;
	return 0;
}

/* What differs from one attempt to the next. */
static void request_update(struct device_run *d, uint32_t source, uint32_t target)
{
	uint8_t *at = d->request + sizeof(struct nvme_lambda_request);
	uint64_t left = time_left(d->run), object = source;
	struct nvme_lambda_to_object to = {.object = target, .at = d->run->at};

	memcpy(d->request + offsetof(struct nvme_lambda_request, timeout_ns), &left, sizeof(left));
	if (!d->stream) {
		memcpy(at, &object, sizeof(object));
		at += sizeof(object);
	}
	if (device_stores(d->run))
		memcpy(at, &to, sizeof(to));
}

/* ---- ending before the end ---- */

static void cancel_run(struct device_run *d)
{
	if (d->cancelling || d->ended)
		return;
	d->cancelling = true;
	d->cancel = (struct nvme_req){
		.sqe = {.opcode = NVME_LAMBDA_CANCEL, .cdw10 = nvme_put32(d->handle)},
		.queue = -1,
		.connection = d->c.connection,
	};
	nvme_batch_add(&d->c.batch, &d->cancel);
}

/* The first failure counts, whose text is in host_error(); what it leaves behind at the server is cancelled. */
static void fail_run(struct device_run *d, int rc)
{
	if (!d->rc) {
		d->rc = rc;
		d->fail = *host_error();
	}
	cancel_run(d);
}

/* ---- output ---- */

static bool fetch_add(struct device_run *d)
{
	struct fetch *f = &d->fetches[(d->oldest + d->n_flying) % FETCHES];
	uint32_t size = d->received ? FETCH_LARGE : FETCH_FIRST, wait = WAIT_MS;

	if (size > d->c.r->max_transfer)
		size = d->c.r->max_transfer;
	if (f->size < size) {
		free(f->buf);
		f->buf = malloc(size);
		f->size = f->buf ? size : 0;
		if (!f->buf) {
			fail_run(d, host_fail(-ENOMEM, "%s: no memory for its output; free some",
					      d->run->fn->fn->name));
			return false;
		}
	}
	if (d->run->opts.progress)
		wait = PROGRESS_MS;
	remote_fetch_init(&d->c, &f->req, d->handle, f->buf, f->size, wait);
	f->flying = true;
	d->n_flying++;
	nvme_batch_add(&d->c.batch, &f->req);
	return true;
}

static void take_answer(struct device_run *d, const struct nvme_req *req)
{
	struct remote_fetched *a = &d->answer;
	struct host_run *run = d->run;
	int rc = remote_fetched(&d->c, req, a);

	if (!rc && a->head.offset != d->received)
		rc = host_fail(-EPROTO,
			       "%s: its server sent output for byte %llu where byte %llu was next; "
			       "see its log",
			       d->c.name, (unsigned long long)a->head.offset,
			       (unsigned long long)d->received);
	if (rc) {
		fail_run(d, rc);
		return;
	}
	d->ended = a->end;
	d->received += a->head.len;
	if (run->opts.progress && !d->rc)
		run->opts.progress(run->opts.hook_arg, a->head.done, a->head.total);
	if (a->head.len && !d->rc && !device_stores(run)) {
		rc = run->sink->write(run->sink, a->output, a->head.len);
		if (rc)
			fail_run(d,
				 host_fail(rc, "the output cannot be written: %s", strerror(-rc)));
	}
	if (a->head.len > req->len / 2)
		d->n_fetches = FETCHES;
}

static void on_fetch(struct device_run *d)
{
	/* They ended in any order, and are taken in that of the output. */
	while (d->n_flying) {
		struct fetch *f = &d->fetches[d->oldest];
		uint16_t status;

		if (f->flying)
			return;
		status = f->req.error ? 0 : remote_status(&f->req);
		d->oldest = (d->oldest + 1) % FETCHES;
		d->n_flying--;
		if (d->ended)
			continue; /* behind the end there is nothing */
		if (!f->req.error && !status) {
			take_answer(d, &f->req);
		} else if (status == NVME_SC_LAMBDA_BUSY && d->submitted) {
			d->waiting = f->req.cqe; /* too many wait there: it is sent again */
			d->is_waiting = true;
		} else if (!d->bad) {
			d->bad = &f->req;
		}
	}
}

/* As many as are of use; a busy server's are sent again after a while. */
static void fetch_more(struct device_run *d)
{
	if (d->ended || d->bad || d->rc)
		return;
	if (d->is_waiting && d->n_flying)
		return;
	if (d->is_waiting) {
		struct nvme_req busy = {.cqe = d->waiting};
		int rc = remote_busy(&d->c, &busy, d->n_busy++);

		if (rc)
			fail_run(d, rc);
		d->is_waiting = false;
	}
	while (d->n_flying < d->n_fetches && fetch_add(d))
		;
}

/* ---- a stream's input ---- */

static void part_send(struct device_run *d, struct part *p)
{
	bool last = !p->len;

	p->req = (struct nvme_req){
		.sqe = {.opcode = NVME_LAMBDA_INPUT,
			.cdw10 = nvme_put32(d->handle),
			.cdw11 = nvme_put32(p->len),
			.cdw12 = nvme_put32((uint32_t)p->at),
			.cdw13 = nvme_put32((uint32_t)(p->at >> 32)),
			.cdw14 = nvme_put32(last ? NVME_LAMBDA_INPUT_LAST : 0)},
		.data = p->buf,
		.len = p->len,
		.to_controller = true,
		.queue = -1,
		.connection = d->c.connection,
	};
	p->flying = true;
	p->again = false;
	nvme_batch_add(&d->c.batch, &p->req);
}

/* Read the next part; 0, or -errno with text. */
static int part_read(struct device_run *d, struct part *p)
{
	struct input *in = &d->run->in;
	uint32_t size = PART_BYTES < d->c.r->max_transfer ? PART_BYTES : d->c.r->max_transfer;
	int64_t n;

	if (!p->buf)
		p->buf = malloc(size);
	if (!p->buf)
		return host_fail(-ENOMEM, "%s: no memory to send its input; free some",
				 d->run->fn->fn->name);
	n = in->src.ops->read(&in->src, p->buf, size, d->sent);
	if (n < 0) {
		if (in->fail.code)
			*host_error() = in->fail;
		return (int)n;
	}
	p->len = (uint32_t)n;
	p->at = d->sent;
	p->used = true;
	p->taken = false;
	d->sent += (uint64_t)n;
	d->input_end = !n;
	return 0;
}

static void on_part(struct device_run *d, struct part *p)
{
	uint16_t status = remote_status(&p->req);

	if (p->req.error) {
		if (!d->bad)
			d->bad = &p->req;
	} else if (status == NVME_SC_LAMBDA_BUSY || status == NVME_SC_LAMBDA_ORDER) {
		p->again = true;
	} else if (status == NVME_SC_LAMBDA_NO_HANDLE) {
		d->stop = true; /* the run needs no more, or ended: its result says which */
	} else if (status) {
		if (!d->rc)
			fail_run(d, remote_failed(&d->c, &p->req, "sending the input"));
	} else {
		p->used = false;
		d->n_busy = 0;
	}
}

/* What was refused goes again, in order, once nothing of it flies. */
static void parts_again(struct device_run *d)
{
	struct part *first = NULL;
	int rc;

	for (unsigned int i = 0; i < PARTS; i++) {
		if (d->parts[i].flying)
			return;
		if (d->parts[i].again && (!first || d->parts[i].at < first->at))
			first = &d->parts[i];
	}
	if (!first)
		return;
	rc = remote_busy(&d->c, &first->req, d->n_busy++);
	if (rc) {
		fail_run(d, rc);
		return;
	}
	for (uint64_t at = first->at;;) {
		struct part *next = NULL;

		for (unsigned int i = 0; i < PARTS; i++)
			if (d->parts[i].again && d->parts[i].at >= at &&
			    (!next || d->parts[i].at < next->at))
				next = &d->parts[i];
		if (!next)
			return;
		part_send(d, next);
		at = next->at;
	}
}

static void input_more(struct device_run *d)
{
	if (!d->stream || !d->submitted || d->stop || d->ended || d->bad || d->rc || d->overdue)
		return;
	parts_again(d);
	for (unsigned int i = 0; i < PARTS && !d->input_end && !d->rc; i++) {
		struct part *p = &d->parts[i];
		int rc;

		if (p->used)
			continue;
		rc = part_read(d, p);
		if (rc)
			fail_run(d, rc);
		else
			part_send(d, p);
	}
}

/* ---- one attempt ---- */

static void on_end_of(struct device_run *d, struct nvme_req *req)
{
	if (req == &d->cancel)
		return;
	if (req == &d->submit) {
		d->submitted = !req->error && !remote_status(req);
		if (!d->submitted)
			d->bad = req; /* it says why, its fetch does not */
		return;
	}
	for (unsigned int i = 0; i < FETCHES; i++)
		if (req == &d->fetches[i].req)
			d->fetches[i].flying = false;
	for (unsigned int i = 0; i < PARTS; i++)
		if (req == &d->parts[i].req) {
			d->parts[i].flying = false;
			on_part(d, &d->parts[i]);
		}
	on_fetch(d);
}

/* Nobody wants to wait any longer: the run is cancelled, and given a moment to say so. */
static bool hurry(struct device_run *d)
{
	if (d->overdue)
		return false;
	d->overdue = true;
	fail_run(d, remote_overdue(&d->c));
	d->c.cancel = NULL;
	d->c.deadline_ns = host_now() + CANCEL_NS;
	return true;
}

static void drain(struct device_run *d)
{
	struct nvme_req *all[2 + FETCHES + PARTS];
	unsigned int n = 0;

	all[n++] = &d->submit;
	all[n++] = &d->cancel;
	for (unsigned int i = 0; i < FETCHES; i++)
		all[n++] = &d->fetches[i].req;
	for (unsigned int i = 0; i < PARTS; i++)
		all[n++] = &d->parts[i].req;
	for (unsigned int i = 0; i < n; i++)
		nvme_batch_cancel(&d->c.batch, all[i], GRACE_MS);
	remote_drain(&d->c, NULL, 0);
}

static void attempt_begin(struct device_run *d)
{
	d->handle = remote_handle(d->c.r);
	d->submit = d->cancel = (struct nvme_req){.state = 0};
	d->submitted = d->cancelling = d->overdue = d->ended = d->is_waiting = false;
	d->bad = NULL;
	d->rc = 0;
	d->received = 0;
	d->oldest = d->n_flying = 0;
	d->n_fetches = 1;
	for (unsigned int i = 0; i < FETCHES; i++) {
		d->fetches[i].req = (struct nvme_req){.state = 0};
		d->fetches[i].flying = false;
	}
	for (unsigned int i = 0; i < PARTS; i++)
		d->parts[i].req = (struct nvme_req){.state = 0};
	d->c.cancel = d->run->opts.cancel;
	d->c.deadline_ns = d->run->req.deadline_ns ? d->run->req.deadline_ns + SLACK_NS : 0;
}

/* 0: the run ended, with d->answer; -errno with text; d->bad: what that status says is to be done. */
static int attempt(struct device_run *d)
{
	struct nvme_req *req;
	int rc;

	attempt_begin(d);
	rc = remote_submit(&d->c, &d->submit, d->handle, d->request, d->request_len);
	if (rc) {
		d->bad = &d->submit;
		return rc;
	}
	fetch_add(d);
	while (d->c.batch.flying) {
		req = remote_next(&d->c);
		if (!req && hurry(d))
			continue;
		if (!req) {
			drain(d);
			break;
		}
		on_end_of(d, req);
		fetch_more(d);
		input_more(d);
	}
	if (d->ended && (!d->rc || d->overdue))
		return 0;
	if (d->rc) {
		*host_error() = d->fail;
		return d->rc;
	}
	return d->bad ? -EREMOTEIO
		      : host_fail(-EPROTO, "%s: its server forgot the run; see its log", d->c.name);
}

/* ---- results ---- */

static const char *io_name(uint8_t io)
{
	static const char *const names[] = {
		[NVME_LAMBDA_IO_MMAP] = "mmap",     [NVME_LAMBDA_IO_PREAD] = "pread",
		[NVME_LAMBDA_IO_GZIP] = "gzip",     [NVME_LAMBDA_IO_ZSTD] = "zstd",
		[NVME_LAMBDA_IO_STREAM] = "stream", [NVME_LAMBDA_IO_RING] = "ring",
	};

	return io < sizeof(names) / sizeof(names[0]) && names[io] ? names[io] : "";
}

static int result_take(struct device_run *d)
{
	const struct nvme_lambda_result *r = &d->answer.result;
	enum sbpf_tier tier =
		r->tier <= SBPF_TIER_TEMPLATE ? (enum sbpf_tier)r->tier : SBPF_TIER_AUTO;
	struct host_run *run = d->run;

	run->report = (struct lambda_report){
		.bytes_in = r->bytes_in,
		.bytes_out = r->bytes_out,
		.trailing = r->trailing,
		.io_ns = r->io_ns,
		.run_ns = r->run_ns,
		.wall_ns = r->wall_ns,
		.fuel = r->fuel,
		.calls = r->calls,
		.reruns = r->reruns,
		.threads = r->threads,
		.tier = tier,
		.tier_first = tier,
		.bytes_first = r->bytes_in,
		.compile_ns = r->compile_ns,
		.source = io_name(r->io),
	};
	run->queue_ns = r->queue_ns;
	run->written = r->bytes_written;
	if (!r->error)
		return 0;
	/* It was us who ended it, and why is known better here, but for a plain cancel. */
	if (d->overdue && r->error == -ECANCELED && d->rc != -ECANCELED) {
		*host_error() = d->fail;
		return d->rc;
	}
	lambda_fail(host_error(), r->error, "%s",
		    d->answer.text[0] ? d->answer.text : strerror(-r->error));
	host_error()->offset = r->error_offset;
	return r->error;
}

/* ---- attempts ---- */

/* The objects that the run is about, both on one connection. */
static int begin(struct device_run *d, uint32_t *source, uint32_t *target)
{
	struct host_run *run = d->run;
	uint64_t connection;
	int rc = 0;

	d->c.cancel = run->opts.cancel;
	d->c.deadline_ns = run->req.deadline_ns;
	*source = *target = 0;
	if (device_stores(run))
		rc = remote_file_begin(run->target, &d->c, target);
	connection = d->c.connection;
	if (!rc && !d->stream)
		rc = remote_file_begin(run->file, &d->c, source);
	if (!rc && device_stores(run) && connection != d->c.connection)
		return host_fail(-ENOLINK, "%s: the connection was lost; run it again", d->c.name);
	return rc;
}

/* What becomes of an attempt that failed with d->bad; 1: another one. */
static int consider(struct device_run *d, unsigned int *busy)
{
	struct host_run *run = d->run;
	bool writes = device_stores(run);
	int rc;

	if (!d->bad->error && remote_status(d->bad) == NVME_SC_LAMBDA_NO_PROGRAM) {
		rc = remote_upload(&d->c, run->fn);
		return rc ? rc : 1;
	}
	if (!d->bad->error && remote_status(d->bad) == NVME_SC_LAMBDA_BUSY) {
		rc = remote_busy(&d->c, d->bad, (*busy)++);
		return rc ? rc : 1;
	}
	rc = remote_failed(&d->c, d->bad, "running the function");
	/* What was not sent did nothing, and an output that nobody saw is no harm. */
	if ((!writes || (rc == -ENOLINK && !d->sent)) && run->restart(run) &&
	    remote_again(&d->c, rc))
		return 1;
	if (rc == -ECONNRESET && writes) {
		nvme_host_failed(d->c.r->host, rc);
		return host_fail(rc,
				 "%s: %s; some of its output may have been written, so look there "
				 "before it is run again",
				 d->c.name, nvme_host_error());
	}
	return rc;
}

static int attempts(struct device_run *d)
{
	uint32_t source, target;
	unsigned int busy = 0;
	int rc;

	do {
		rc = begin(d, &source, &target);
		if (rc) {
			rc = remote_again(&d->c, rc) ? 1 : rc;
			continue;
		}
		if (!d->request)
			rc = request_make(d);
		if (rc)
			return rc;
		request_update(d, source, target);
		rc = attempt(d);
		if (device_stores(d->run) && d->submitted)
			remote_file_wrote(d->run->target, d->c.connection);
		if (!rc)
			return result_take(d);
		if (d->bad && !d->rc)
			rc = consider(d, &busy);
	} while (rc == 1);
	return rc;
}

static int device_run(struct host_run *run, struct lambda_error *err)
{
	struct device_run *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return host_fail(-ENOMEM, "%s: no memory to run it; free some", run->fn->fn->name);
	d->run = run;
	d->c.patient = true;
	d->stream = !source_is_there(run);
	rc = attempts(d);
	remote_file_end(&d->c);
	for (unsigned int i = 0; i < FETCHES; i++)
		free(d->fetches[i].buf);
	for (unsigned int i = 0; i < PARTS; i++)
		free(d->parts[i].buf);
	free(d->request);
	free(d);
	return rc;
}

const struct host_engine host_engine_device = {
	.id = LIO_ENGINE_DEVICE,
	.name = "device",
	.missing = device_missing,
	.open = device_open,
	.stores = device_stores,
	.run = device_run,
};
