/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lio.h - what the commands of lio share: the command and option tables, error lines, loading a
 * function, printing output, progress.
 *
 * A new command is one cmd_*.c, one declaration here, one row in lio.c's table; a new option is one
 * row in options.c's table and one field of struct cli.
 */
#ifndef TOOLS_LIO_H
#define TOOLS_LIO_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lambda/lambda.h"
#include "lambdaio/lambdaio.h"

/* Exit statuses; cmd_*() return one. */
enum {
	CLI_DONE = 0,
	CLI_NOTHING = 1, /* done, and the output is empty: grep's habit */
	CLI_FAILED = 2,  /* one line on stderr says why */
	CLI_INTERRUPTED = 130,
};

/* ---- commands (lio.c) ---- */

int cmd_run(int argc, char **argv);
int cmd_write(int argc, char **argv);
int cmd_cc(int argc, char **argv); /* gets argv[0] "cc" and parses the rest itself */
int cmd_test(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_functions(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_features(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_device(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_cat(int argc, char **argv);
int cmd_put(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_mkdir(int argc, char **argv);
int cmd_mv(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_completion(int argc, char **argv);

enum cli_command { /* index into cli_commands[] */
	CLI_RUN,
	CLI_WRITE,
	CLI_CC,
	CLI_TEST,
	CLI_INFO,
	CLI_FUNCTIONS,
	CLI_EXPLAIN,
	CLI_FEATURES,
	CLI_BENCH,
	CLI_LS,
	CLI_STAT,
	CLI_CAT,
	CLI_PUT,
	CLI_RM,
	CLI_MKDIR,
	CLI_MV,
	CLI_MOUNT,
	CLI_DEVICE,
	CLI_COMPLETION,
	CLI_COMMANDS,
};

struct cli_command_row {
	const char *name;
	const char *usage;    /* what follows "lio NAME" */
	const char *summary;  /* one line */
	const char *about;    /* lines of at most 78 columns, each ending in a newline */
	const char *examples; /* lines "COMMAND" or "COMMAND  # what it does" */
	int (*run)(int argc, char **argv);
	bool function; /* its first word is a function */
	bool hidden;
};
extern const struct cli_command_row cli_commands[CLI_COMMANDS];

/* ---- options (options.c) ---- */

enum cli_option_kind {
	CLI_FLAG,   /* bool */
	CLI_SIZE,   /* uint64_t, K M G T are powers of 1024 */
	CLI_COUNT,  /* uint64_t */
	CLI_TIME,   /* uint64_t nanoseconds */
	CLI_STRING, /* const char * */
	CLI_CHOICE, /* int, the index in the value's "a|b|c" */
};

struct cli_option {
	const char *name;  /* without dashes */
	const char *value; /* how help calls the value, or "a|b|c"; NULL for a flag */
	enum cli_option_kind kind;
	bool zero;         /* 0 is a value too */
	size_t field;      /* offset in struct cli */
	unsigned commands; /* bit 1 << enum cli_command */
	const char *help;  /* one line */
};
extern const struct cli_option cli_options[];
extern const size_t cli_n_options;

#define CLI_UNSET UINT64_MAX

/* What a command line says; zero is "not said" but where CLI_UNSET or LIO_TO_END is. */
struct cli {
	char **words; /* what is not an option, in order */
	size_t n_words;
	bool json, raw, explain, quiet, trace;
	int engine, tier, io, decompress;
	uint64_t offset, length, chunk, threads, fuel, memory, max_output, timeout_ns;
	uint64_t rounds, repeat, seed;
	const char *tiers, *thread_list; /* bench: comma lists */
	const char *nqn;                 /* device */
	uint64_t nsid;
	bool digest;
	bool details;               /* ls */
	bool foreground, read_only; /* mount */
};

/* Parse argv[1..] by the option table; 0, or CLI_FAILED after an error line.  Words are moved to the front of argv. */
int cli_parse(enum cli_command command, int argc, char **argv, struct cli *cli);
/* At least @min and at most @max words, or CLI_FAILED after an error line. */
int cli_words(enum cli_command command, const struct cli *cli, size_t min, size_t max);
/* Is argv asking for help (an option --help or -h before "--")? */
bool cli_wants_help(int argc, char **argv);
/* Of @n names, the one most like @word, or NULL if none is near. */
const char *cli_nearest(const char *word, const char *const *names, size_t n);
int cli_parse_count(const char *text, uint64_t *out); /* 0 or -EINVAL, -ERANGE */

/* ---- help and completion (help.c, completion.c) ---- */

void cli_help(FILE *to);
void cli_help_command(enum cli_command command, FILE *to);

/* ---- errors (report.c) ---- */

/*
 * Print "lio: WHAT: WHY (ERRNO-NAME); FIX" and return CLI_FAILED.  @fmt makes "WHAT: WHY"; @fix may be
 * NULL; @err is an errno of either sign.
 */
#define CLI_FIX_MEMORY "free some memory"
int cli_fail(int err, const char *fix, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same of the library's last failure. */
int cli_fail_lib(int err);
/* The same of a struct lambda_error's text, or any other "WHAT: WHY; FIX". */
int cli_fail_text(int err, const char *text);

/* ---- paths of a server (cmd_remote.c) ---- */

bool cli_is_url(const char *path);
/* What follows the last slash of its path, encoded; NULL without a path. */
const char *cli_url_name(const char *url);
/* @url and below it @name, which is encoded.  malloc'd; NULL: no memory. */
char *cli_url_join(const char *url, const char *name);
/* @url, or what @name (encoded) is called in the directory that it names. */
char *cli_url_target(const char *url, const char *name);

/* ---- running (request.c) ---- */

/* Set by SIGINT; a second one kills. */
extern int cli_cancelled;
void cli_catch_interrupt(void);

/* Load a shipped function or an object; 0, or CLI_FAILED after an error line. */
int cli_load(const char *name, struct lio_function **out);
/* The same, as src/lambda sees it. */
int cli_load_lambda(const char *name, struct lambda_function **out);
/* Names of the shipped functions, sorted; *out and each name are the caller's to free. */
int cli_shipped(char ***out, size_t *n);
void cli_free_names(char **names, size_t n);
/* Open the FILE to read; 0, or CLI_FAILED after an error line. */
int cli_open(const char *path, struct lio_file **out);

struct cli_request { /* one FUNCTION over one FILE, ready to run */
	struct lio_function *fn;
	struct lio_function_info info;
	struct lambda_schema output;
	struct lio_file *file;
	const char *path;
	void *arg;
	struct lio_run_opts opts;
	struct lio_result result;
};
/* FUNCTION, FILE and arguments from words[0], words[1] and words[@args]…. */
int cli_request(const struct cli *cli, size_t args, struct cli_request *req);
void cli_request_free(struct cli_request *req);
/* --trace of a run elsewhere: say that there is nothing to be seen. */
void cli_trace_note(const struct cli *cli, const struct cli_request *req);
/* The error line of a run that returned @err, or the quiet end of an interrupted one. */
int cli_fail_run(int err);
/* λ-read over the range that @cli names, the output dropped; 0, or a status after an error line. */
int cli_run_dropped(const struct cli *cli, struct cli_request *req);

/* ---- what a run did, for people and for programs (explain.c) ---- */

struct cli_facts {             /* of the file, before the run */
	int64_t size;          /* bytes; -1: not a file with a size */
	double cached;         /* share in the page cache, 0…1; -1: unknown */
	const char *cached_by; /* "cachestat", "mincore", or why it is unknown */
};
void cli_facts(const char *path, uint64_t offset, uint64_t length, struct cli_facts *facts);
void cli_explain(FILE *to, const struct cli *cli, const struct cli_request *req,
		 const struct cli_facts *facts);
json_object *cli_explain_json(const struct cli *cli, const struct cli_request *req,
			      const struct cli_facts *facts);
json_object *cli_result_json(const struct lio_result *result);
const char *cli_engine_name(enum lio_engine engine);
/* "1.5 GiB", "3.2 ms" in a buffer of 32 bytes. */
char *cli_size_text(char buf[32], uint64_t bytes);
char *cli_time_text(char buf[32], uint64_t ns);

/* ---- output (print.c) ---- */

enum print_mode {
	PRINT_RAW,   /* the bytes as they are */
	PRINT_TABLE, /* aligned, with a header: rows on a terminal */
	PRINT_TSV,   /* tab-separated, no header: rows elsewhere */
	PRINT_HEX,   /* bytes on a terminal */
	PRINT_JSON,
};

struct printer;
/* @head (JSON only) holds the document's first members; it is printed with the first output. */
int printer_new(enum print_mode mode, const struct lambda_schema *schema, json_object *head,
		FILE *to, struct printer **out);
/* A lio_sink's write: any cut of the output. */
int printer_write(void *printer, const void *p, size_t len);
/* The end of the output; @tail (JSON only, may be NULL) holds the last members.  0 or -errno. */
int printer_end(struct printer *p, json_object *tail);
/* Bytes came. */
bool printer_any(const struct printer *p);
/* 0, or the -errno of the first write that failed; -EBADMSG: the output is not whole rows. */
int printer_error(const struct printer *p);
void printer_free(struct printer *p);

enum print_mode cli_print_mode(const struct cli *cli, enum lambda_shape shape);
/* A document and a newline to stdout; flushes: 0, or CLI_FAILED after an error line. */
int cli_print_json(json_object *doc);
/* Flush stdout: 0, or CLI_FAILED after an error line. */
int cli_flush(void);
/* The error line of a failed write to standard output. */
int cli_fail_stdout(int err);
/* @len bytes as a JSON string, or {"bytes_base64": …} where they are not UTF-8; NULL: too long, no memory. */
json_object *cli_json_text(const void *p, size_t len);
/* The packed value of a field, all of which is at @p. */
json_object *cli_json_value(const struct lambda_field *field, const uint8_t *p);
/* strdup() that ends the process with an error line where there is no memory. */
char *cli_strdup(const char *text);
/* Base64 of @n (1 to 3) bytes. */
void cli_base64_group(const uint8_t *p, size_t n, char out[4]);
/* The shortest text that reads back as @value. */
char *cli_double_text(char buf[32], double value);

/* Lines of @columns cells, aligned; @rows × @columns texts in @cells. */
void print_aligned(FILE *to, char *const *cells, const bool *right, size_t rows, size_t columns);

/* ---- progress (progress.c) ---- */

/* Shows bytes, share, speed and time left on a terminal's stderr after half a second. */
void progress_begin(const struct cli *cli);
void progress_update(void *arg, uint64_t done, uint64_t total);
/* Wipes the line; more than once is fine. */
void progress_end(void);

#endif /* TOOLS_LIO_H */
