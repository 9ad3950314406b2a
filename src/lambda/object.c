/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object.c - from an object file to a λ-function: its entries and what it says of itself.
 *
 * The runtime has loaded and verified the code; here the entries' sections and the .lambda.* notes
 * are read.  They come from a hostile file: every size is checked, every text is ended and
 * printable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lambda/internal.h"
#include "lambdaio/function.h"

#define NAME_MAX_BYTES  63u
#define DOC_MAX_BYTES   1000u
#define RECORD_SIZE_MAX (1u << 30)

static const struct {
	const char *section, *prefix;
} entries[LAMBDA_ENTRIES] = {
	[LAMBDA_E_MAP] = {"lambda/map", "lambda_map_"},
	[LAMBDA_E_SCAN] = {"lambda/scan", "lambda_scan_"},
	[LAMBDA_E_FOLD] = {"lambda/fold", "lambda_fold_"},
	[LAMBDA_E_MERGE] = {"lambda/merge", "lambda_merge_"},
	[LAMBDA_E_FINISH] = {"lambda/finish", "lambda_finish_"},
};

const char *lambda_kind_name(enum lambda_kind kind)
{
	static const char *const names[] = {
		[LAMBDA_KIND_MAP] = "map",
		[LAMBDA_KIND_SCAN] = "scan",
		[LAMBDA_KIND_FOLD] = "fold",
	};

	return names[kind];
}

static int take_name(struct lambda_function *fn, enum lambda_entry e, const char *symbol,
		     struct lambda_error *err)
{
	size_t prefix = strlen(entries[e].prefix);
	char name[NAME_MAX_BYTES + 1];

	if (strncmp(symbol, entries[e].prefix, prefix) || !symbol[prefix] ||
	    strlen(symbol + prefix) > NAME_MAX_BYTES)
		return lambda_fail(err, -ENOEXEC,
				   "entry '%.80s' in section %s: its name must be %sNAME, NAME of "
				   "at most %u bytes; use the macros of lambdaio/function.h",
				   symbol, entries[e].section, entries[e].prefix, NAME_MAX_BYTES);
	strcpy(name, symbol + prefix);
	for (char *c = name; *c; c++) /* a C identifier has no '-': grep_number is grep-number */
		if (*c == '_')
			*c = '-';
	if (!fn->name) {
		fn->name = strdup(name);
		return fn->name ? 0 : lambda_fail(err, -ENOMEM, "function: out of memory");
	}
	if (strcmp(fn->name, name))
		return lambda_fail(err, -ENOEXEC,
				   "the entries are of two functions, '%s' and '%s'; one object "
				   "holds one function",
				   fn->name, name);
	return 0;
}

static int take_entry(struct lambda_function *fn, unsigned int i, struct lambda_error *err)
{
	const char *section = sbpf_program_entry_section(fn->prog, i);
	const char *symbol = sbpf_program_entry_name(fn->prog, i);
	unsigned int e = 0;

	while (e < LAMBDA_ENTRIES && strcmp(section, entries[e].section) != 0)
		e++;
	if (e == LAMBDA_ENTRIES)
		return lambda_fail(
			err, -ENOEXEC,
			"entry '%.80s' in section '%.80s': not a λ-function's; mark it with "
			"LAMBDA_MAP, LAMBDA_SCAN or LAMBDA_FOLD, and helpers of your own static",
			symbol, section);
	if (fn->entry[e] >= 0)
		return lambda_fail(
			err, -ENOEXEC, "section %s has two entries, '%.80s' and '%.80s'; keep one",
			section, sbpf_program_entry_name(fn->prog, (unsigned int)fn->entry[e]),
			symbol);
	fn->entry[e] = (int)i;
	return take_name(fn, (enum lambda_entry)e, symbol, err);
}

static int take_kind(struct lambda_function *fn, struct lambda_error *err)
{
	bool map = fn->entry[LAMBDA_E_MAP] >= 0, scan = fn->entry[LAMBDA_E_SCAN] >= 0;
	bool fold = fn->entry[LAMBDA_E_FOLD] >= 0;

	if (map + scan + fold != 1)
		return lambda_fail(err, -ENOEXEC,
				   "%s of LAMBDA_MAP, LAMBDA_SCAN and LAMBDA_FOLD; a λ-function "
				   "has exactly one of them",
				   (map || scan || fold) ? "more than one" : "none");
	if (fn->entry[LAMBDA_E_MERGE] >= 0 && !fold)
		return lambda_fail(
			err, -ENOEXEC,
			"LAMBDA_MERGE without LAMBDA_FOLD; only a fold has states to merge");
	if (fn->entry[LAMBDA_E_FINISH] >= 0 && map)
		return lambda_fail(err, -ENOEXEC,
				   "LAMBDA_FINISH with LAMBDA_MAP; only a scan or a fold has a "
				   "state to finish");
	fn->kind = map ? LAMBDA_KIND_MAP : scan ? LAMBDA_KIND_SCAN : LAMBDA_KIND_FOLD;
	return 0;
}

/* ---- notes ---- */

/* A copy of a text note, @fallback where there is none. */
static int take_text(const struct lambda_function *fn, const char *section, const char *fallback,
		     size_t most, char **out, struct lambda_error *err)
{
	size_t len;
	const char *note = sbpf_program_note(fn->prog, section, &len);

	if (!note) {
		note = fallback;
		len = strlen(fallback) + 1;
	}
	if (!len || note[len - 1] || memchr(note, 0, len - 1))
		return lambda_fail(err, -ENOEXEC,
				   "section %s: not one string that ends in a zero byte", section);
	if (len - 1 > most)
		return lambda_fail(err, -ENOEXEC, "section %s: longer than %zu bytes", section,
				   most);
	*out = strdup(note);
	return *out ? 0 : lambda_fail(err, -ENOMEM, "function: out of memory");
}

static int take_doc(struct lambda_function *fn, struct lambda_error *err)
{
	int rc = take_text(fn, ".lambda.doc", "", DOC_MAX_BYTES, &fn->doc, err);

	if (rc)
		return rc;
	for (const char *p = fn->doc; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return lambda_fail(err, -ENOEXEC,
					   "section .lambda.doc: control character 0x%02x; "
					   "LAMBDA_DOC is one line",
					   (unsigned char)*p);
	return 0;
}

static int take_schema(const struct lambda_function *fn, const char *section, const char *fallback,
		       char **text, struct lambda_schema *schema, struct lambda_error *err)
{
	int rc = take_text(fn, section, fallback, LAMBDA_SCHEMA_TEXT_MAX, text, err);

	return rc ? rc
		  : lambda_schema_parse(*text, strlen(*text), schema == &fn->output, schema, err);
}

static int take_record(struct lambda_function *fn, struct lambda_error *err)
{
	size_t len = 0;
	const void *note = sbpf_program_note(fn->prog, ".lambda.record", &len);
	struct lambda_record_note record;

	fn->record = LAMBDA_RECORDS_ANY;
	if (!note)
		return 0;
	if (len != sizeof(record))
		return lambda_fail(err, -ENOEXEC,
				   "section .lambda.record: %zu bytes instead of %zu; write one "
				   "LAMBDA_RECORD_…",
				   len, sizeof(record));
	memcpy(&record, note, sizeof(record));
	fn->record_value = record.value;
	if (record.kind == LAMBDA_RECORD_KIND_FIXED && record.value >= 1 &&
	    record.value <= RECORD_SIZE_MAX) {
		fn->record = LAMBDA_RECORDS_FIXED;
		return 0;
	}
	if (record.kind == LAMBDA_RECORD_KIND_DELIM && record.value <= UINT8_MAX) {
		fn->record = LAMBDA_RECORDS_DELIM;
		return 0;
	}
	if (record.kind == LAMBDA_RECORD_KIND_ANY && !record.value)
		return 0;
	return lambda_fail(err, -ENOEXEC,
			   "section .lambda.record: kind %u with value %u; a size is from 1 to %u, "
			   "a delimiter one byte",
			   record.kind, record.value, RECORD_SIZE_MAX);
}

/* One or more 64-bit sizes that agree; 0 where there is no such section. */
static int take_size(const struct lambda_function *fn, const char *section, uint64_t most,
		     uint64_t *out, struct lambda_error *err)
{
	size_t len = 0;
	const uint8_t *note = sbpf_program_note(fn->prog, section, &len);

	*out = 0;
	if (!note)
		return 0;
	if (!len || len % sizeof(*out))
		return lambda_fail(err, -ENOEXEC, "section %s: %zu bytes, not a 64-bit size",
				   section, len);
	memcpy(out, note, sizeof(*out));
	for (size_t at = 0; at < len; at += sizeof(*out))
		if (memcmp(note, note + at, sizeof(*out)) != 0)
			return lambda_fail(err, -ENOEXEC, "section %s: two sizes that differ",
					   section);
	if (*out > most)
		return lambda_fail(err, -ENOEXEC, "section %s: %llu bytes; at most %llu are given",
				   section, (unsigned long long)*out, (unsigned long long)most);
	return 0;
}

static int take_sizes(struct lambda_function *fn, struct lambda_error *err)
{
	uint64_t most = sbpf_window_max(SBPF_WIN_STATE);
	int rc;

	if (most > sbpf_window_max(SBPF_WIN_OTHER))
		most = sbpf_window_max(SBPF_WIN_OTHER);
	rc = take_size(fn, ".lambda.heap", sbpf_window_max(SBPF_WIN_HEAP), &fn->heap_size, err);
	if (!rc)
		rc = take_size(fn, ".lambda.state", most, &fn->state_size, err);
	if (rc)
		return rc;
	if (fn->kind == LAMBDA_KIND_MAP)
		fn->state_size = 0;
	else if (!fn->state_size)
		return lambda_fail(err, -ENOEXEC,
				   "a %s without a state; give LAMBDA_%s a type that is not empty",
				   lambda_kind_name(fn->kind),
				   fn->kind == LAMBDA_KIND_SCAN ? "SCAN" : "FOLD");
	return 0;
}

static int describe(struct lambda_function *fn, struct lambda_error *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < sbpf_program_entries(fn->prog) && !rc; i++)
		rc = take_entry(fn, i, err);
	if (!rc)
		rc = take_kind(fn, err);
	if (!rc)
		rc = take_doc(fn, err);
	if (!rc)
		rc = take_record(fn, err);
	if (!rc)
		rc = take_sizes(fn, err);
	if (!rc)
		rc = take_schema(fn, ".lambda.output", "bytes", &fn->output_text, &fn->output, err);
	if (!rc)
		rc = take_schema(fn, ".lambda.args", "", &fn->args_text, &fn->args, err);
	return rc;
}

int lambda_function_load(const void *image, size_t len, struct lambda_function **out,
			 struct lambda_error *err)
{
	const struct sbpf_load_opts opts = {.size = sizeof(opts), .note_prefix = ".lambda."};
	struct lambda_function *fn;
	struct sbpf_error why;
	int rc;

	*out = NULL;
	fn = calloc(1, sizeof(*fn));
	if (!fn)
		return lambda_fail(err, -ENOMEM, "function: out of memory");
	for (unsigned int e = 0; e < LAMBDA_ENTRIES; e++)
		fn->entry[e] = -1;
	rc = sbpf_program_from_elf(image, len, &opts, &fn->prog, &why);
	if (rc)
		lambda_fail(err, rc, "%s", why.text);
	else
		rc = describe(fn, err);
	if (rc) {
		lambda_function_free(fn);
		return rc;
	}
	*out = fn;
	return 0;
}

void lambda_function_free(struct lambda_function *fn)
{
	if (!fn)
		return;
	lambda_schema_free(&fn->output);
	lambda_schema_free(&fn->args);
	sbpf_program_unref(fn->prog);
	free(fn->output_text);
	free(fn->args_text);
	free(fn->name);
	free(fn->doc);
	free(fn);
}
