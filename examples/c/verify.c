/* verify: compare the steps of this machine with those that were stored at compilation. */

#include "commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An array of vectors.json, and how far the values of this machine are from it. */
typedef struct {
    const char *name, *type;
    Bytes content;
    size_t rows, row_length; /* steps, and bytes of a step */
    double largest;          /* value of any step, without its sign */
    double difference;       /* the largest, as a share of that; infinite if whole numbers differ */
} Vector;

static double get_value(const char *type, const uint8_t *data, size_t index)
{
    float single;
    double value;
    if (strcmp(type, "float32") == 0) {
        memcpy(&single, data + index * sizeof single, sizeof single);
        return single;
    }
    memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
}

static bool is_floating(const char *type)
{
    return strncmp(type, "float", 5) == 0;
}

static Vector read_vector(const char *folder, const cJSON *index, const char *name)
{
    const cJSON *entry = get_field(index, name), *shape = get_field(entry, "shape");
    Vector vector = {.name = name, .type = get_text(entry, "type")};
    size_t size = get_value_size(vector.type);
    char *path = join_path(folder, get_text(entry, "file"));
    vector.content = read_file(path, "vectors");
    vector.rows = (size_t)get_count(cJSON_GetArrayItem(shape, 0));
    vector.row_length = count_values(shape, 1) * size;
    if (vector.content.length != vector.rows * vector.row_length)
        fail("expected %zu bytes in %s, found %zu; the file is damaged", vector.rows * vector.row_length, path,
             vector.content.length);
    for (size_t i = 0; is_floating(vector.type) && i < vector.content.length / size; i++)
        vector.largest = fmax(vector.largest, fabs(get_value(vector.type, vector.content.data, i)));
    free(path);
    return vector;
}

/* Keep the largest difference of a row to the values of this machine. */
static void compare(Vector *vector, size_t row, const void *values, size_t length)
{
    if (row >= vector->rows || length != vector->row_length)
        fail("expected as many values of %s as in vectors.json; the folder is damaged", vector->name);
    const uint8_t *expected = vector->content.data + row * vector->row_length;
    if (!is_floating(vector->type)) {
        if (memcmp(expected, values, length))
            vector->difference = INFINITY;
        return;
    }
    double scale = vector->largest > 0 ? vector->largest : 1;
    for (size_t i = 0; i < length / get_value_size(vector->type); i++) {
        double difference =
            fabs(get_value(vector->type, expected, i) - get_value(vector->type, values, i)) / scale;
        if (!(difference <= vector->difference)) /* takes what is not a number, too */
            vector->difference = difference;
    }
}

static void compare_state(const Step *step, Vector *vectors, State state, size_t row)
{
    for (size_t i = 0; i < step->states; i++) {
        Bytes value = view_state(step, state, i);
        compare(&vectors[i], row, value.data, value.length);
    }
}

static void report(const Vector *vectors, size_t count, size_t steps, double tolerance)
{
    const Vector *first = NULL; /* that differs */
    double largest = 0;
    int failures = 0;
    for (const Vector *vector = vectors; vector < vectors + count; vector++) {
        printf("%s\t%.1e\n", vector->name, vector->difference);
        largest = fmax(largest, vector->difference);
        if (vector->difference <= tolerance)
            continue;
        failures++;
        first = first ? first : vector;
    }
    if (first)
        fail("expected differences of at most %.0e within %zu steps, found %.1e in %s and in %d more", tolerance,
             steps, first->difference, first->name, failures - 1);
    printf("%zu steps are those of the compilation: the largest difference is %.1e\n", steps, largest);
}

void verify(const Options *options)
{
    const char *folder = options->arguments[0];
    Step *step = open_step(folder, 1); /* as at compilation: more threads add in another order */
    size_t states = step->states;
    char *path = join_path(folder, "vectors.json");
    cJSON *index = read_json(path, "the index of the vectors");
    Vector *vectors = allocate(states + 1, sizeof *vectors), images = read_vector(folder, index, step->inputs[0]);
    for (size_t i = 0; i < states; i++)
        vectors[i] = read_vector(folder, index, step->inputs[i + 1]);
    Vector *logits = &vectors[states];
    *logits = read_vector(folder, index, step->outputs[states]);
    size_t image_length = (size_t)(step->height * step->width * 3);
    State state = create_state(step);
    compare_state(step, vectors, state, 0);
    for (size_t i = 0; i < images.rows; i++) {
        const uint8_t *pixels = images.content.data + i * images.row_length;
        Result result = run_step(step, pixels, images.row_length / image_length, state);
        if (!result.valid)
            fail("step %zu is not valid", i);
        compare(logits, i, result.logits, result.images * result.classes * sizeof *result.logits);
        compare_state(step, vectors, state, i + 1);
        release_result(&result);
    }
    report(vectors, states + 1, images.rows, options->tolerance);
    for (size_t i = 0; i < states + 1; i++)
        free(vectors[i].content.data);
    free(images.content.data);
    free(vectors);
    free(path);
    cJSON_Delete(index);
    release_state(step, state);
    close_step(step);
}
