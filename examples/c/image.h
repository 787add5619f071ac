/* Photos as binary PPM files, prepared as a step reads them. */

#ifndef IMAGE_H
#define IMAGE_H

#include "files.h"

typedef struct {
    int width, height;
    uint8_t *pixels; /* RGB, [height, width, 3] */
} Image;

Image create_image(int width, int height);
void release_image(Image *image);

/* Read a PPM file of 8 bits (P6). */
Image read_ppm(const char *path);

/* Return an image, resized and cropped as `preprocessing` in step.json says; the same bytes as Pillow's. */
Image prepare_image(const Image *image, const cJSON *preprocessing);

/* Resize an image with one of Pillow's filters: nearest, box, bilinear, hamming, bicubic or lanczos. */
Image resize_image(const Image *image, int width, int height, const char *filter);

#endif
