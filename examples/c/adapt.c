/* adapt: the class of every photo of a folder. prepare: a photo as the network sees it. */

#include "commands.h"
#include "image.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void read_photo(const Step *step, const char *path, uint8_t *pixels)
{
    Image photo = read_ppm(path);
    Image prepared = prepare_image(&photo, get_field(step->description, "preprocessing"));
    if (prepared.height != step->height || prepared.width != step->width)
        fail("expected equal sizes in preprocessing and images of step.json; the file is damaged");
    memcpy(pixels, prepared.pixels, (size_t)(step->height * step->width * 3));
    release_image(&photo);
    release_image(&prepared);
}

static void print_class(const Step *step, const char *name, size_t class, double entropy)
{
    const cJSON *classes = get_field(step->description, "classes"); /* null if they have no names */
    const char *label = cJSON_GetStringValue(cJSON_GetArrayItem(classes, (int)class));
    if (label)
        printf("%s\t%s\t%.4f\n", name, label, entropy);
    else
        printf("%s\t%zu\t%.4f\n", name, class, entropy);
}

void adapt(const Options *options)
{
    const char *folder = options->arguments[1], *file = options->state;
    Step *step = open_step(options->arguments[0], options->threads);
    size_t batch = choose_batch(step, parse_count(options->arguments[2], "BATCH"));
    size_t length = (size_t)(step->height * step->width * 3);
    struct dirent **photos;
    int found = scandir(folder, &photos, is_visible, alphasort);
    if (found < 0)
        fail("expected a folder of photos, cannot open %s: %s", folder, strerror(errno));
    if (found == 0)
        fail("expected photos, found none in %s", folder);
    size_t count = (size_t)found, unlearnt = 0;
    double entropy = 0; /* mean of the images so far */
    uint8_t *pixels = allocate(batch, length);
    State state = file && access(file, F_OK) == 0 ? load_state(step, file) : create_state(step);
    if (file)
        save_state(step, state, file); /* what cannot be stored fails now, not after the stream */
    for (size_t start = 0; start < count; start += batch) {
        size_t images = count - start < batch ? count - start : batch;
        for (size_t i = 0; i < images; i++) {
            char *path = join_path(folder, photos[start + i]->d_name);
            read_photo(step, path, pixels + i * length);
            free(path);
        }
        Result result = run_step(step, pixels, fill_batch(step, pixels, images), state);
        entropy += (result.entropy - entropy) * (double)images / (double)(start + images);
        unlearnt += result.valid ? 0 : images;
        for (size_t i = 0; i < images; i++)
            print_class(step, photos[start + i]->d_name, find_class(&result, i), entropy);
        release_result(&result);
    }
    if (unlearnt)
        fail("nothing was learnt from %zu of %zu photos: the state is of another step, or not finite; "
             "start again from the first one", unlearnt, count);
    if (file)
        save_state(step, state, file);
    for (size_t i = 0; i < count; i++)
        free(photos[i]);
    free(photos);
    free(pixels);
    release_state(step, state);
    close_step(step);
}

void prepare(const Options *options)
{
    Step *step = open_step(options->arguments[0], 1);
    size_t length = (size_t)(step->height * step->width * 3);
    uint8_t *pixels = allocate(length, 1);
    read_photo(step, options->arguments[1], pixels);
    printf("P6\n%d %d\n255\n", (int)step->width, (int)step->height);
    fwrite(pixels, 1, length, stdout);
    free(pixels);
    close_step(step);
}
