#include "image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PIXELS 178956970.0 /* of a photo */

Image create_image(int width, int height)
{
    if ((double)width * height > MOST_PIXELS)
        fail("expected ordinary sizes and proportions, found an image that would have %dx%d pixels", width, height);
    return (Image){width, height, allocate((size_t)width * (size_t)height, 3)};
}

void release_image(Image *image)
{
    free(image->pixels);
    image->pixels = NULL;
}

/* Read a number of a header behind blanks and comments; return -1 if there is none. */
static int read_number(const Bytes *file, size_t *at)
{
    while (*at < file->length && file->data[*at] && strchr(" \t\r\n#", file->data[*at])) {
        if (file->data[*at] == '#')
            *at += strcspn((const char *)file->data + *at, "\r\n");
        else
            ++*at;
    }
    int number = -1;
    for (; *at < file->length && file->data[*at] >= '0' && file->data[*at] <= '9'; ++*at) {
        number = (number < 0 ? 0 : number) * 10 + file->data[*at] - '0';
        if (number > 1000000)
            return -1;
    }
    return number;
}

Image read_ppm(const char *path)
{
    Bytes file = read_file(path, "a photo");
    size_t at = 2;
    if (file.length < 2 || memcmp(file.data, "P6", 2))
        fail("expected a binary PPM image (P6), found another file: %s; convert or remove it", path);
    int width = read_number(&file, &at), height = read_number(&file, &at), largest = read_number(&file, &at);
    if (width < 1 || height < 1 || largest != 255)
        fail("expected a PPM image of 8 bits, found a damaged header or more bits: %s; convert it again", path);
    Image image = create_image(width, height);
    size_t length = (size_t)width * (size_t)height * 3;
    at++; /* one blank */
    if (file.length < at + length)
        fail("expected %zu bytes of pixels, found fewer: %s; the file is damaged", length, path);
    memcpy(image.pixels, file.data + at, length);
    free(file.data);
    return image;
}

/* Round halves to even, as Python does. */
static int round_to_even(double value)
{
    return (int)nearbyint(value);
}

/* Return where the middle begins; it is negative if there is less than wanted. */
static int find_start(int length, int wanted)
{
    return length < wanted ? -((wanted - length) / 2) : round_to_even((length - wanted) / 2.0);
}

/* Return the middle of an image; where the image is smaller, the rest is black. */
static Image crop_middle(const Image *image, int width, int height)
{
    Image result = create_image(width, height);
    int top = find_start(image->height, height), left = find_start(image->width, width);
    int first = left < 0 ? 0 : left;
    int end = left + width < image->width ? left + width : image->width;
    for (int y = top < 0 ? 0 : top; y < top + height && y < image->height; y++)
        memcpy(result.pixels + 3 * ((size_t)(y - top) * (size_t)width + (size_t)(first - left)),
               image->pixels + 3 * ((size_t)y * (size_t)image->width + (size_t)first), 3 * (size_t)(end - first));
    return result;
}

Image prepare_image(const Image *image, const cJSON *preprocessing)
{
    const cJSON *size = get_field(preprocessing, "size");
    int frame = (int)get_count(get_field(preprocessing, "frame")); /* of black, around the image */
    int whole_height = (int)get_count(cJSON_GetArrayItem(size, 0)), height = whole_height - 2 * frame;
    int whole_width = (int)get_count(cJSON_GetArrayItem(size, 1)), width = whole_width - 2 * frame;
    int length = (int)get_count(get_field(preprocessing, "resize"));
    if (height < 1 || width < 1 || length < 1)
        fail("expected sizes from 1 in preprocessing of step.json; the file is damaged");
    if (frame) {
        int shorter = whole_height < whole_width ? whole_height : whole_width;
        length = round_to_even((double)length * (shorter - 2 * frame) / shorter);
        length = length < 1 ? 1 : length;
    }
    int new_width = length, new_height = length;
    if (strcmp(get_text(preprocessing, "crop_mode"), "center") == 0) {
        /* The shorter side gets this length, the longer one is rounded down. */
        int64_t shorter = image->width < image->height ? image->width : image->height;
        new_width = (int)((int64_t)length * image->width / shorter);
        new_height = (int)((int64_t)length * image->height / shorter);
    }
    Image resized = resize_image(image, new_width, new_height, get_text(preprocessing, "interpolation"));
    Image inside = crop_middle(&resized, width, height);
    Image result = crop_middle(&inside, whole_width, whole_height);
    release_image(&resized);
    release_image(&inside);
    return result;
}
