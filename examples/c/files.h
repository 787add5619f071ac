/* Files, memory, and errors: a program ends with one line on standard error and status 1. */

#ifndef FILES_H
#define FILES_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *data; /* followed by a zero byte, so that it can be read as text */
    size_t length;
} Bytes;

/* End the program with a message. The system takes back its memory. */
_Noreturn void fail(const char *format, ...);

/* Return memory for `count` items, filled with zeros. */
void *allocate(size_t count, size_t size);

/* Return FOLDER/NAME. */
char *join_path(const char *folder, const char *name);

/* Return the content of a file; `expected` says in the error what it should have been. */
Bytes read_file(const char *path, const char *expected);

/* Return the content of a JSON file. */
cJSON *read_json(const char *path, const char *expected);

/* Return a field of an object, of text, or a whole number from 0; each ends the program where it is missing. */
const cJSON *get_field(const cJSON *object, const char *name);
const char *get_text(const cJSON *object, const char *name);
int64_t get_count(const cJSON *number);

/* Return the number of values of a shape, without its first `skip` axes. */
size_t count_values(const cJSON *shape, int skip);

#endif
