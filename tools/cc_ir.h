/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_CC_IR_H
#define TOOLS_CC_IR_H

/* cc_ir.h - reading and writing LLVM's textual IR a line at a time, and what its rewriters share. */

#include <stdbool.h>
#include <stddef.h>

struct text {
	char *p;
	size_t len, cap;
	bool failed;
};

struct span { /* a piece of the module's text */
	const char *p;
	size_t len;
};

enum {
	OP_COPY,
	OP_MOVE,
	OP_SET,
	OPS
};

struct lowering {
	struct text out;
	unsigned int serial;      /* of names we make */
	const char *pointer[OPS]; /* the pointer type of a helper that must be declared, or NULL */
	bool declared[OPS];       /* by the module itself */
	bool no_sdiv;
	/* counts of ones, by width: used by us, declared by the module */
	bool popcount[65], popcount_declared[65];
};

void put(struct text *t, const char *p, size_t len);
void puts_(struct text *t, const char *s);
void put_span(struct text *t, struct span s);

bool starts(struct span s, const char *prefix);
bool equals(struct span s, const char *text);
struct span skip(struct span s, size_t n);
bool eat(struct span *s, const char *prefix);
struct span trim(struct span s);
size_t find(struct span s, const char *what);
/* Up to the next of @stops outside of brackets and quotes; s.len if there is none. */
size_t until(struct span s, const char *stops);
bool number(struct span s, long *value);
/* "TYPE ATTRIBUTES VALUE" of an argument, without the attributes that only an argument can have. */
void split_argument(struct span arg, struct span *type, struct span *value);
/* ", !dbg !N" of an instruction's tail: all that a replacement keeps of it. */
const char *debug_of(struct span tail, char *buf, size_t cap);

/* cc_arith.c: rewrites @line to lo->out if it is arithmetic that BPF has not. */
bool lower_arithmetic(struct lowering *lo, struct span line);

#endif /* TOOLS_CC_IR_H */
