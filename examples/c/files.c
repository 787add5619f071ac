#include "files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_VALUES ((size_t)1 << 40) /* of an array; more is a damaged file */

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("Error: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        fail("%zu items of %zu bytes do not fit into memory", count, size);
    return memory;
}

char *join_path(const char *folder, const char *name)
{
    size_t length = strlen(folder) + strlen(name) + 2;
    char *path = allocate(length, 1);
    snprintf(path, length, "%s/%s", folder, name);
    return path;
}

Bytes read_file(const char *path, const char *expected)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail("expected %s, cannot open %s: %s", expected, path, strerror(errno));
    Bytes content = {NULL, 0};
    size_t capacity = 1 << 16;
    for (;;) {
        content.data = realloc(content.data, capacity + 1);
        if (!content.data)
            fail("%s does not fit into memory", path);
        content.length += fread(content.data + content.length, 1, capacity - content.length, file);
        if (content.length < capacity)
            break;
        capacity *= 2;
    }
    if (ferror(file))
        fail("expected %s, cannot read %s: %s", expected, path, strerror(errno));
    fclose(file);
    content.data[content.length] = 0;
    return content;
}

cJSON *read_json(const char *path, const char *expected)
{
    Bytes content = read_file(path, expected);
    cJSON *value = cJSON_ParseWithLength((const char *)content.data, content.length);
    free(content.data);
    if (!value)
        fail("expected %s, found no JSON in %s; it is damaged", expected, path);
    return value;
}

const cJSON *get_field(const cJSON *object, const char *name)
{
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!field)
        fail("expected a field %s in a JSON file of this folder, found none; the file is damaged", name);
    return field;
}

const char *get_text(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(get_field(object, name));
    if (!text)
        fail("expected text in the field %s of a JSON file; the file is damaged", name);
    return text;
}

int64_t get_count(const cJSON *number)
{
    if (!cJSON_IsNumber(number) || number->valuedouble < 0 || number->valuedouble > INT32_MAX ||
        number->valuedouble != (double)(int64_t)number->valuedouble)
        fail("expected a whole number in a JSON file; the file is damaged");
    return (int64_t)number->valuedouble;
}

size_t count_values(const cJSON *shape, int skip)
{
    size_t count = 1;
    const cJSON *length;
    cJSON_ArrayForEach(length, shape)
    {
        if (skip-- > 0)
            continue;
        count *= (size_t)get_count(length);
        if (count > MOST_VALUES)
            fail("expected a smaller shape in a JSON file; the file is damaged");
    }
    return count;
}
