/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda_request.c - what a request says: hostile bytes to checked numbers.
 *
 * Owns: the form alone.  Whether there is such a program, object or namespace is the run's to find out.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "device/lambda_private.h"
#include "lambda/lambda.h"

#define HOLE       UINT64_MAX
#define KNOWN      (NVME_LAMBDA_DECOMPRESS | NVME_LAMBDA_FUEL)
#define OPEN_FLAGS 0x1fu /* enum nvme_path_flags */
#define TIERS      2u    /* the highest: template */

uint16_t lambda_request_op(const uint8_t *p, uint64_t len, uint32_t *dw0, uint16_t *op)
{
	uint16_t version;

	if (len < sizeof(version) + sizeof(*op))
		return NVME_SC_INVALID_FIELD;
	memcpy(&version, p, sizeof(version));
	memcpy(op, p + sizeof(version), sizeof(*op));
	version = le16toh(version);
	*op = le16toh(*op);
	if (version != NVME_LAMBDA_VERSION) {
		*dw0 = NVME_LAMBDA_VERSION | NVME_LAMBDA_VERSION << 16;
		return NVME_SC_LAMBDA_VERSION;
	}
	return NVME_SC_SUCCESS;
}

/* ---- extents ---- */

static bool neighbours(const struct ctrl_segment *a, const struct ctrl_segment *b)
{
	if (a->at == HOLE || b->at == HOLE)
		return a->at == b->at;
	return b->at == a->at + a->length;
}

static uint16_t add_extent(struct lambda_extents *e, const struct nvme_lambda_extent *x, bool holes)
{
	struct ctrl_segment one = {le64toh(x->offset), le64toh(x->length)};
	struct ctrl_segment *last = e->n ? &e->seg[e->n - 1] : NULL;

	if (!one.length || one.length > (uint64_t)INT64_MAX - e->bytes)
		return NVME_SC_INVALID_FIELD;
	if (one.at == HOLE ? !holes : one.at > INT64_MAX || one.length > INT64_MAX - one.at)
		return one.at == HOLE ? NVME_SC_INVALID_FIELD : NVME_SC_LBA_RANGE;
	e->bytes += one.length;
	if (last && neighbours(last, &one))
		last->length += one.length;
	else if (e->n == CTRL_MAX_SEGMENTS)
		return NVME_SC_LAMBDA_TOO_BIG;
	else
		e->seg[e->n++] = one;
	return NVME_SC_SUCCESS;
}

static uint16_t read_extents(const uint8_t *p, uint32_t len, bool source, struct lambda_extents *e,
			     uint64_t *base)
{
	struct nvme_lambda_extents head;
	struct nvme_lambda_extent one;
	uint16_t status = NVME_SC_SUCCESS;
	uint32_t n;

	if (len < sizeof(head))
		return NVME_SC_INVALID_FIELD;
	memcpy(&head, p, sizeof(head));
	n = le32toh(head.n);
	*base = le64toh(head.base);
	e->nsid = le32toh(head.nsid);
	if (n != (len - sizeof(head)) / sizeof(one) || (len - sizeof(head)) % sizeof(one) ||
	    *base > INT64_MAX || (!source && *base))
		return NVME_SC_INVALID_FIELD;
	e->seg = malloc((n < CTRL_MAX_SEGMENTS ? n : CTRL_MAX_SEGMENTS) * sizeof(*e->seg) + 1);
	if (!e->seg)
		return NVME_SC_INTERNAL;
	for (uint32_t i = 0; i < n && !status; i++) {
		memcpy(&one, p + sizeof(head) + i * sizeof(one), sizeof(one));
		status = add_extent(e, &one, source);
	}
	if (!status && e->bytes > INT64_MAX - *base)
		status = NVME_SC_INVALID_FIELD;
	return status;
}

static int by_offset(const void *a, const void *b)
{
	const struct ctrl_segment *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* What is written twice would depend on an order that nobody promised. */
static uint16_t check_overlap(const struct lambda_extents *e)
{
	struct ctrl_segment *sorted;
	uint16_t status = NVME_SC_SUCCESS;

	if (e->n < 2)
		return status;
	sorted = malloc(e->n * sizeof(*sorted));
	if (!sorted)
		return NVME_SC_INTERNAL;
	memcpy(sorted, e->seg, e->n * sizeof(*sorted));
	qsort(sorted, e->n, sizeof(*sorted), by_offset);
	for (uint32_t i = 1; i < e->n && !status; i++) {
		if (sorted[i].at - sorted[i - 1].at < sorted[i - 1].length)
			status = NVME_SC_OVERLAPPING_RANGE;
	}
	free(sorted);
	return status;
}

uint16_t lambda_extents_check(const struct lambda_extents *e, uint64_t bytes)
{
	for (uint32_t i = 0; i < e->n; i++) {
		const struct ctrl_segment *s = &e->seg[i];

		if (s->at != HOLE && (s->at > bytes || s->length > bytes - s->at))
			return NVME_SC_LBA_RANGE;
	}
	return NVME_SC_SUCCESS;
}

/* ---- source, sink ---- */

static uint16_t read_source(const uint8_t *p, struct lambda_parsed *out)
{
	const struct nvme_lambda_request *r = &out->head;
	uint32_t object[2];
	uint16_t status;

	switch ((enum nvme_lambda_source)r->source) {
	case NVME_LAMBDA_FROM_STREAM:
		/* A stream is read from its start, and all of it. */
		return r->source_len ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
	case NVME_LAMBDA_FROM_OBJECT:
		if (r->source_len != sizeof(object))
			return NVME_SC_INVALID_FIELD;
		memcpy(object, p, sizeof(object));
		out->from_object = le32toh(object[0]);
		return object[1] ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
	case NVME_LAMBDA_FROM_EXTENTS:
		status = read_extents(p, r->source_len, true, &out->from, &out->base);
		/* What lies in front is not there; decompressed, offsets are not the extents'. */
		if (!status &&
		    (r->flags & NVME_LAMBDA_DECOMPRESS ? out->base > 0 : r->offset < out->base))
			status = NVME_SC_INVALID_FIELD;
		return status;
	}
	return NVME_SC_INVALID_FIELD;
}

static uint16_t read_sink(const uint8_t *p, struct lambda_parsed *out)
{
	const struct nvme_lambda_request *r = &out->head;
	struct nvme_lambda_to_object to;
	uint64_t base;
	uint16_t status;

	switch ((enum nvme_lambda_sink)r->sink) {
	case NVME_LAMBDA_TO_FETCH:
		return r->sink_len ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
	case NVME_LAMBDA_TO_OBJECT:
		if (r->sink_len != sizeof(to))
			return NVME_SC_INVALID_FIELD;
		memcpy(&to, p, sizeof(to));
		out->to_object = le32toh(to.object);
		out->to_at = le64toh(to.at);
		return to.reserved || out->to_at > INT64_MAX ? NVME_SC_INVALID_FIELD
							     : NVME_SC_SUCCESS;
	case NVME_LAMBDA_TO_EXTENTS:
		status = read_extents(p, r->sink_len, false, &out->to, &base);
		return status ? status : check_overlap(&out->to);
	}
	return NVME_SC_INVALID_FIELD;
}

/* ---- the header ---- */

static void to_host_order(struct nvme_lambda_request *r)
{
	r->version = le16toh(r->version);
	r->op = le16toh(r->op);
	r->flags = le32toh(r->flags);
	r->offset = le64toh(r->offset);
	r->length = le64toh(r->length);
	r->chunk = le64toh(r->chunk);
	r->fuel = le64toh(r->fuel);
	r->memory = le64toh(r->memory);
	r->max_output = le64toh(r->max_output);
	r->timeout_ns = le64toh(r->timeout_ns);
	r->threads = le32toh(r->threads);
	r->source_len = le32toh(r->source_len);
	r->sink_len = le32toh(r->sink_len);
	r->arg_len = le32toh(r->arg_len);
}

static uint16_t check_header(const struct nvme_lambda_request *r, uint64_t len)
{
	if (r->op != NVME_LAMBDA_RUN || (r->flags & ~KNOWN) || r->reserved || r->reserved2 ||
	    r->reserved3 || r->tier > TIERS)
		return NVME_SC_INVALID_FIELD;
	if (!(r->flags & NVME_LAMBDA_FUEL) != !r->fuel)
		return NVME_SC_INVALID_FIELD;
	if (r->offset > INT64_MAX || (r->length != UINT64_MAX && r->length > INT64_MAX - r->offset))
		return NVME_SC_INVALID_FIELD;
	if (r->source_len % 8 || r->sink_len % 8)
		return NVME_SC_INVALID_FIELD;
	/* Each is of 32 bits: the sum does not wrap. */
	return (uint64_t)sizeof(*r) + r->source_len + r->sink_len + r->arg_len == len
		       ? NVME_SC_SUCCESS
		       : NVME_SC_INVALID_FIELD;
}

uint16_t lambda_request_parse(const uint8_t *p, uint64_t len, struct lambda_parsed *out,
			      uint32_t *dw0)
{
	uint16_t status, op;

	*out = (struct lambda_parsed){0};
	status = lambda_request_op(p, len, dw0, &op);
	if (status)
		return status;
	if (len < sizeof(out->head))
		return NVME_SC_INVALID_FIELD;
	memcpy(&out->head, p, sizeof(out->head));
	to_host_order(&out->head);
	status = check_header(&out->head, len);
	p += sizeof(out->head);
	if (!status)
		status = read_source(p, out);
	if (!status)
		status = read_sink(p + out->head.source_len, out);
	if (status) {
		lambda_parsed_free(out);
		return status;
	}
	out->arg = p + out->head.source_len + out->head.sink_len;
	return NVME_SC_SUCCESS;
}

void lambda_parsed_free(struct lambda_parsed *parsed)
{
	free(parsed->from.seg);
	free(parsed->to.seg);
	parsed->from.seg = parsed->to.seg = NULL;
}

/* ---- paths ---- */

uint16_t lambda_path_check(const uint8_t *p, uint64_t len, uint32_t *dw0)
{
	struct nvme_path_request r;
	uint16_t status, op;

	status = lambda_request_op(p, len, dw0, &op);
	if (status)
		return status;
	if (len < sizeof(r) || op < NVME_PATH_OPEN || op > NVME_PATH_MKDIR)
		return NVME_SC_INVALID_FIELD;
	memcpy(&r, p, sizeof(r));
	if (r.reserved || (le32toh(r.flags) & ~(op == NVME_PATH_OPEN ? OPEN_FLAGS : 0)) ||
	    (le32toh(r.mode) & ~07777u) || (op != NVME_PATH_LIST && r.cookie) ||
	    (op != NVME_PATH_RENAME && r.path2_len))
		return NVME_SC_INVALID_FIELD;
	return sizeof(r) + le16toh(r.path_len) + le16toh(r.path2_len) == len
		       ? NVME_SC_SUCCESS
		       : NVME_SC_INVALID_FIELD;
}

/* ---- budgets ---- */

static int budget(uint64_t *asked, uint64_t normal, uint64_t limit, const char *name,
		  const char *unit, struct ctrl_error *err)
{
	if (!*asked)
		*asked = normal && normal < limit ? normal : limit;
	else if (*asked > limit)
		return ctrl_fail(err, -E2BIG,
				 "%s: %" PRIu64 "%s is above this server's limit of %" PRIu64
				 "%s; ask for less, or run it on the host",
				 name, *asked, unit, limit, unit);
	return 0;
}

int lambda_budgets(struct nvme_lambda_request *r, const struct ctrl_lambda_limits *limits,
		   struct ctrl_error *err)
{
	int rc = 0;

	if (r->flags & NVME_LAMBDA_FUEL)
		rc = budget(&r->fuel, 0, limits->max_fuel, "fuel", "", err);
	if (!rc)
		rc = budget(&r->memory, LAMBDA_MEMORY_DEFAULT, limits->max_memory, "memory",
			    " bytes", err);
	if (!rc)
		rc = budget(&r->max_output, LAMBDA_OUTPUT_DEFAULT, limits->max_output, "max-output",
			    " bytes", err);
	if (!rc)
		rc = budget(&r->timeout_ns, 0, limits->max_timeout_ns, "timeout", " ns", err);
	return rc;
}
