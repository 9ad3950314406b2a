/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>

#include "nvme/lambda.h"
#include "nvme/compute.h"
#include "nvme/status.h"

#define ROW(code, name, text)     {code, false, false, name, text}
#define RETRY(code, name, text)   {code, false, true, name, text}
#define FABRICS(code, name, text) {code, true, false, name, text}

static const struct nvme_status_info statuses[] = {
	ROW(NVME_SC_SUCCESS, "success", "success"),
	ROW(NVME_SC_INVALID_OPCODE, "invalid-opcode", "the command is not supported"),
	ROW(NVME_SC_INVALID_FIELD, "invalid-field", "a field of the command is invalid"),
	ROW(NVME_SC_CID_CONFLICT, "cid-conflict", "the command identifier is in use"),
	RETRY(NVME_SC_DATA_TRANSFER, "data-transfer", "the data could not be transferred"),
	RETRY(NVME_SC_INTERNAL, "internal", "internal error of the controller"),
	RETRY(NVME_SC_ABORT_REQUESTED, "abort-requested", "aborted as requested"),
	RETRY(NVME_SC_ABORT_SQ_DELETED, "queue-deleted", "aborted, the queue went away"),
	ROW(NVME_SC_INVALID_NS, "invalid-namespace", "no such namespace, or its format is wrong"),
	ROW(NVME_SC_COMMAND_SEQUENCE, "command-sequence", "not allowed at this point"),
	ROW(NVME_SC_SGL_INVALID_LAST, "sgl-segment", "invalid SGL segment descriptor"),
	ROW(NVME_SC_SGL_INVALID_COUNT, "sgl-count", "invalid number of SGL descriptors"),
	ROW(NVME_SC_SGL_INVALID_DATA, "sgl-length", "the SGL's length is not that of the data"),
	ROW(NVME_SC_SGL_INVALID_TYPE, "sgl-type", "SGL descriptor type not supported here"),
	ROW(NVME_SC_SGL_INVALID_OFFSET, "sgl-offset", "the SGL's offset is not in the capsule"),
	ROW(NVME_SC_HOSTID_INCONSISTENT, "host-id", "inconsistent host identifier format"),
	ROW(NVME_SC_KEEP_ALIVE_EXPIRED, "keep-alive-expired", "the keep alive timer expired"),
	ROW(NVME_SC_KEEP_ALIVE_INVALID, "keep-alive-invalid", "invalid keep alive timeout"),
	ROW(NVME_SC_WRITE_PROTECTED, "write-protected", "the namespace is write protected"),
	RETRY(NVME_SC_TRANSIENT_TRANSPORT, "transient-transport", "the data arrived damaged"),
	ROW(NVME_SC_INVALID_COMMAND_SET, "command-set", "the namespace has another command set"),
	ROW(NVME_SC_LBA_RANGE, "lba-range", "beyond the end of the namespace"),
	RETRY(NVME_SC_CAPACITY, "capacity", "the namespace's medium is full"),
	RETRY(NVME_SC_NS_NOT_READY, "not-ready", "the namespace is not ready"),
	ROW(NVME_SC_INVALID_QUEUE_ID, "queue-id", "invalid queue identifier"),
	ROW(NVME_SC_INVALID_QUEUE_SIZE, "queue-size", "invalid queue size"),
	ROW(NVME_SC_ABORT_LIMIT, "abort-limit", "too many abort commands"),
	ROW(NVME_SC_AER_LIMIT, "aer-limit", "too many asynchronous event requests"),
	ROW(NVME_SC_INVALID_LOG_PAGE, "log-page", "no such log page"),
	ROW(NVME_SC_INVALID_FORMAT, "format", "invalid format"),
	ROW(NVME_SC_FEATURE_NOT_SAVEABLE, "not-saveable", "the feature cannot be saved"),
	ROW(NVME_SC_FEATURE_NOT_CHANGEABLE, "not-changeable", "the feature cannot be changed"),
	ROW(NVME_SC_OVERLAPPING_RANGE, "overlapping-range", "ranges overlap"),
	ROW(NVME_SC_IOCS_COMBINATION, "command-sets", "command set combination rejected"),
	FABRICS(NVME_SC_CONNECT_FORMAT, "connect-format", "record format not supported"),
	{NVME_SC_CONNECT_BUSY, true, true, "connect-busy", "no controller is free"},
	FABRICS(NVME_SC_CONNECT_INVALID_PARAM, "connect-param", "a Connect parameter is invalid"),
	FABRICS(NVME_SC_CONNECT_RESTART, "connect-restart", "start discovery again"),
	FABRICS(NVME_SC_CONNECT_INVALID_HOST, "connect-host", "this host is not allowed"),
	FABRICS(NVME_SC_INVALID_QUEUE_TYPE, "queue-type", "not on a queue of this kind"),
	FABRICS(NVME_SC_DISCOVERY_RESTART, "discovery-restart", "discovery information changed"),
	FABRICS(NVME_SC_AUTH_REQUIRED, "auth-required", "authentication required"),
	ROW(NVME_SC_CONFLICTING_ATTRIBUTES, "conflicting-attributes", "attributes conflict"),
	ROW(NVME_SC_READ_ONLY, "read-only-range", "write to a read-only range"),
	ROW(NVME_SC_COMMAND_SIZE_LIMIT, "size-limit", "the command's size limits are exceeded"),
	ROW(NVME_SC_OVERLAPPING_IO, "overlapping-io", "source and destination overlap"),
	RETRY(NVME_SC_LAMBDA_BUSY, "lambda-busy", "too much is asked of the server at once"),
	ROW(NVME_SC_LAMBDA_NO_PROGRAM, "lambda-no-program", "the function is not there; upload it"),
	ROW(NVME_SC_LAMBDA_NO_HANDLE, "lambda-no-handle", "no run has that handle"),
	ROW(NVME_SC_LAMBDA_HANDLE_USED, "lambda-handle-used", "a run has that handle"),
	ROW(NVME_SC_LAMBDA_VERSION, "lambda-version", "that version is not served"),
	ROW(NVME_SC_LAMBDA_TOO_BIG, "lambda-too-big", "the request is over a limit of the server"),
	ROW(NVME_SC_LAMBDA_REFUSED, "lambda-refused", "the function was refused"),
	ROW(NVME_SC_LAMBDA_ORDER, "lambda-order", "parts out of order, or output that is gone"),
	ROW(NVME_SC_LAMBDA_NO_OBJECT, "lambda-no-object", "no open file has that number"),
	ROW(NVME_SC_LAMBDA_ERRNO, "lambda-errno", "the file system refused it"),
	ROW(NVME_SC_CP_INCOMPATIBLE_NS, "incompatible-namespace", "the wrong kind of namespace"),
	RETRY(NVME_SC_CP_RESOURCES, "resources", "no resources to execute it now"),
	RETRY(NVME_SC_CP_PROGRAM_RESOURCES, "program-resources", "no resources to load it now"),
	ROW(NVME_SC_CP_MEMORY_NS, "memory-namespace", "not a memory namespace, or another one"),
	ROW(NVME_SC_CP_RANGE_SET, "range-set", "a memory range is invalid"),
	ROW(NVME_SC_CP_RANGE_SET_ID, "range-set-id", "no such memory range set"),
	ROW(NVME_SC_CP_PROGRAM_DATA, "program-data", "not a program, or parts out of order"),
	ROW(NVME_SC_CP_PROGRAM_INDEX, "program-index", "no such program index"),
	ROW(NVME_SC_CP_PROGRAM_TYPE, "program-type", "program type not supported"),
	ROW(NVME_SC_CP_MAX_RANGES, "max-ranges", "too many memory ranges"),
	ROW(NVME_SC_CP_MAX_RANGE_SETS, "max-range-sets", "too many memory range sets"),
	ROW(NVME_SC_CP_MAX_ACTIVE, "max-active", "too many active programs"),
	ROW(NVME_SC_CP_MAX_PROGRAM_BYTES, "max-program-bytes", "programs fill their memory"),
	ROW(NVME_SC_CP_RANGE_SET_IN_USE, "range-set-in-use", "the memory range set is in use"),
	ROW(NVME_SC_CP_NO_PROGRAM, "no-program", "no program is loaded there"),
	ROW(NVME_SC_CP_OVERLAPPING_RANGES, "overlapping-ranges", "memory ranges overlap"),
	ROW(NVME_SC_CP_NOT_ACTIVE, "not-active", "the program is not activated"),
	ROW(NVME_SC_CP_IN_USE, "program-in-use", "the program is in use"),
	ROW(NVME_SC_CP_NOT_DOWNLOADABLE, "not-downloadable", "this index takes no program"),
	ROW(NVME_SC_CP_TOO_BIG, "program-too-big", "the program is too big"),
	RETRY(NVME_SC_WRITE_FAULT, "write-fault", "the medium could not be written"),
	RETRY(NVME_SC_READ_ERROR, "read-error", "the medium could not be read"),
	ROW(NVME_SC_COMPARE_FAILED, "compare-failed", "the data differ"),
	ROW(NVME_SC_ACCESS_DENIED, "access-denied", "access denied"),
	ROW(NVME_SC_DEALLOCATED, "deallocated", "deallocated or unwritten block"),
};

const struct nvme_status_info *nvme_status_find(uint16_t status, bool fabrics)
{
	const struct nvme_status_info *found = NULL;

	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		if (statuses[i].code != (status & 0x7ff))
			continue;
		if (statuses[i].fabrics == fabrics)
			return &statuses[i];
		found = &statuses[i];
	}
	return found && (!found->fabrics || fabrics) ? found : NULL;
}

const char *nvme_status_name(uint16_t status)
{
	const struct nvme_status_info *s = nvme_status_find(status, false);

	if (!s)
		s = nvme_status_find(status, true);
	return s ? s->name : "unknown";
}
