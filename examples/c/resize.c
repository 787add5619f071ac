/* Resizing as Pillow does it: filters widen with the reduction, in whole numbers, one axis after the other. */

#include "image.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define BITS 22 /* of a weight behind the point */

static double evaluate_box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

static double evaluate_bilinear(double x)
{
    return fmax(0, 1 - fabs(x));
}

static double evaluate_bicubic(double x)
{
    x = fabs(x);
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static double evaluate_sinc(double x)
{
    return x == 0 ? 1 : sin(x * acos(-1)) / (x * acos(-1));
}

static double evaluate_hamming(double x)
{
    return fabs(x) < 1 ? evaluate_sinc(x) * (0.54 + 0.46 * cos(x * acos(-1))) : 0;
}

static double evaluate_lanczos(double x)
{
    return x >= -3 && x < 3 ? evaluate_sinc(x) * evaluate_sinc(x / 3) : 0;
}

static const struct Filter {
    const char *name;
    double support; /* half of its width, in pixels */
    double (*evaluate)(double distance);
} filters[] = {
    {"box", 0.5, evaluate_box},         {"bilinear", 1, evaluate_bilinear}, {"hamming", 1, evaluate_hamming},
    {"bicubic", 2, evaluate_bicubic},   {"lanczos", 3, evaluate_lanczos},
};

/* What a pixel of the result sees along one axis. */
typedef struct {
    int first, count;
    int32_t *weights; /* 2^BITS is one */
} Window;

static Window weigh(int from, int to, int index, const struct Filter *filter)
{
    double scale = (double)from / to, stretch = fmax(scale, 1);
    double center = (index + 0.5) * scale, reach = filter->support * stretch;
    int first = (int)fmax(0, center - reach + 0.5), end = (int)fmin(from, center + reach + 0.5);
    Window window = {first, end - first, allocate((size_t)(end - first), sizeof *window.weights)};
    double *values = allocate((size_t)(end - first), sizeof *values), sum = 0;
    for (int i = 0; i < window.count; i++)
        sum += values[i] = filter->evaluate((first + i - center + 0.5) / stretch);
    for (int i = 0; i < window.count; i++)
        window.weights[i] = (int32_t)round(values[i] / sum * (1 << BITS));
    free(values);
    return window;
}

static Window pick_nearest(int from, int to, int index)
{
    double scale = (double)from / to, at = scale / 2;
    for (int i = 0; i < index; i++)
        at += scale; /* a sum, as in Pillow: a product would be rounded otherwise */
    Window window = {at < from ? (int)at : from - 1, 1, allocate(1, sizeof *window.weights)};
    window.weights[0] = 1 << BITS;
    return window;
}

static Window find_window(int from, int to, int index, const char *filter)
{
    if (strcmp(filter, "nearest") == 0)
        return pick_nearest(from, to, index);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (strcmp(filter, filters[i].name) == 0)
            return weigh(from, to, index, &filters[i]);
    fail("expected an interpolation of Pillow, found %s", filter);
}

/* Apply a window to the channels of one pixel; neighbours are `stride` bytes apart. */
static void apply_window(const Window *window, const uint8_t *source, size_t stride, uint8_t *target)
{
    for (int channel = 0; channel < 3; channel++) {
        int32_t sum = 1 << (BITS - 1); /* rounds */
        for (int i = 0; i < window->count; i++)
            sum += window->weights[i] * source[(size_t)(window->first + i) * stride + (size_t)channel];
        sum = sum < 0 ? 0 : sum >> BITS;
        target[channel] = (uint8_t)(sum > 255 ? 255 : sum);
    }
}

static Image resize_rows(const Image *image, int width, const char *filter)
{
    size_t row = (size_t)image->width * 3, new_row = (size_t)width * 3;
    Image result = create_image(width, image->height);
    for (int x = 0; x < width; x++) {
        Window window = find_window(image->width, width, x, filter);
        for (size_t y = 0; y < (size_t)image->height; y++)
            apply_window(&window, image->pixels + y * row, 3, result.pixels + y * new_row + (size_t)x * 3);
        free(window.weights);
    }
    return result;
}

static Image resize_columns(const Image *image, int height, const char *filter)
{
    size_t row = (size_t)image->width * 3;
    Image result = create_image(image->width, height);
    for (int y = 0; y < height; y++) {
        Window window = find_window(image->height, height, y, filter);
        for (size_t x = 0; x < row; x += 3)
            apply_window(&window, image->pixels + x, row, result.pixels + (size_t)y * row + x);
        free(window.weights);
    }
    return result;
}

Image resize_image(const Image *image, int width, int height, const char *filter)
{
    int loss = image->height - height;
    bool columns_first = loss > 0 && loss > 2 * (image->width - width); /* the order matters to the last bits */
    Image half = columns_first ? resize_columns(image, height, filter) : resize_rows(image, width, filter);
    Image result = columns_first ? resize_rows(&half, width, filter) : resize_columns(&half, height, filter);
    release_image(&half);
    return result;
}
