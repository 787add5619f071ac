/* What the program does. */

#ifndef COMMANDS_H
#define COMMANDS_H

#include "step.h"

typedef struct {
    const char *arguments[3]; /* in their order; NULL where there is none */
    const char *state;        /* a file, or NULL */
    int threads;              /* 0: one per core */
    double tolerance;         /* of differences, as a share of the largest value */
} Options;

/* Return a positive whole number of the command line, or 0 where there is no text. */
size_t parse_count(const char *text, const char *name);

void adapt(const Options *options);
void stream_digits(const Options *options);
void verify(const Options *options);
void prepare(const Options *options);

#endif
