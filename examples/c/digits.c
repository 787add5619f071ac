/* digits: the accuracy on corrupted digits that tools/digit_stream.py has written. */

#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Return the bytes of an array of digits.json. */
static Bytes read_array(const char *folder, const cJSON *index, const char *name)
{
    const cJSON *entry = get_field(index, name);
    char *path = join_path(folder, get_text(entry, "file"));
    Bytes content = read_file(path, "an array of digits");
    size_t length = count_values(get_field(entry, "shape"), 0);
    if (content.length != length)
        fail("expected %zu bytes in %s, found %zu; the file is damaged", length, path, content.length);
    free(path);
    return content;
}

static void check_size(const Step *step, const cJSON *index, const char *folder)
{
    const cJSON *shape = get_field(get_field(index, "images"), "shape");
    int64_t height = get_count(cJSON_GetArrayItem(shape, 1)), width = get_count(cJSON_GetArrayItem(shape, 2));
    if (height != step->height || width != step->width || get_count(cJSON_GetArrayItem(shape, 3)) != 3)
        fail("expected images of %dx%dx3 pixels, found %dx%dx3 in %s; compile a step of the model for them",
             (int)step->height, (int)step->width, (int)height, (int)width, folder);
}

void stream_digits(const Options *options)
{
    const char *folder = options->arguments[1];
    Step *step = open_step(options->arguments[0], options->threads);
    size_t batch = choose_batch(step, parse_count(options->arguments[2], "BATCH"));
    size_t length = (size_t)(step->height * step->width * 3);
    char *path = join_path(folder, "digits.json");
    cJSON *index = read_json(path, "a folder of digit_stream.py");
    check_size(step, index, folder);
    Bytes images = read_array(folder, index, "images"), labels = read_array(folder, index, "labels");
    if (labels.length == 0 || labels.length * length != images.length)
        fail("expected a label for each image in %s", folder);
    uint8_t *pixels = allocate(batch, length);
    State state = create_state(step);
    size_t correct = 0;
    double entropy = 0; /* mean of the images so far */
    for (size_t start = 0; start < labels.length; start += batch) {
        size_t count = labels.length - start < batch ? labels.length - start : batch;
        memcpy(pixels, images.data + start * length, count * length);
        Result result = run_step(step, pixels, fill_batch(step, pixels, count), state);
        if (!result.valid)
            fail("nothing was learnt from the batch at digit %zu: the step is not valid", start);
        for (size_t i = 0; i < count; i++)
            correct += find_class(&result, i) == labels.data[start + i];
        entropy += (result.entropy - entropy) * (double)count / (double)(start + count);
        release_result(&result);
    }
    printf("accuracy %.2f %% of %zu digits, mean entropy %.4f\n", 100.0 * (double)correct / (double)labels.length,
           labels.length, entropy);
    cJSON_Delete(index);
    free(path);
    free(pixels);
    free(images.data);
    free(labels.data);
    release_state(step, state);
    close_step(step);
}
