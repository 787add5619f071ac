/* A compiled step and its state. All that adaptation needs is here. */

#ifndef STEP_H
#define STEP_H

#include "files.h"

#include <onnxruntime_c_api.h>
#include <stdbool.h>

typedef struct {
    const OrtApi *api;
    OrtEnv *env;
    OrtSession *init, *session;
    OrtMemoryInfo *memory;
    cJSON *description;   /* step.json */
    int64_t fixed_batch;  /* images of every step; 0: any number */
    int64_t height, width;
    size_t states;        /* number of values of the state */
    const char **inputs;  /* names: images, then the state */
    const char **outputs; /* names: the next state, then logits, valid and entropy */
} Step;

/* The values of a state, in the order of step.json. */
typedef OrtValue **State;

typedef struct {
    size_t images, classes;
    float *logits; /* images x classes */
    float entropy; /* mean of the batch */
    bool valid;    /* false: nothing was learnt, and the state has stayed as it was */
} Result;

/* Open a folder that `fozo compile` has written. `threads` of a forward; 0: one per core. */
Step *open_step(const char *folder, int threads);
void close_step(Step *step);

/* Return the first state. */
State create_state(const Step *step);
void release_state(const Step *step, State state);

/* Predict `count` images, uint8 [count, H, W, 3], and learn from them: the state becomes the next one. */
Result run_step(const Step *step, const uint8_t *pixels, size_t count, State state);
void release_result(Result *result);

/* Return the class with the largest logit of an image. */
size_t find_class(const Result *result, size_t image);

/* Return the number of images per step: the one that is compiled in, or `wanted`, or 8 if that is 0. */
size_t choose_batch(const Step *step, size_t wanted);

/* Fill up a batch with copies of its images where the step has a fixed one; return the number of images. */
size_t fill_batch(const Step *step, uint8_t *pixels, size_t count);

/* Return the bytes of one value of the state, and how many there are. */
Bytes view_state(const Step *step, State state, size_t index);

/* Save a state as the bytes of all its values in the order of step.json, and load it again. */
void save_state(const Step *step, State state, const char *path);
State load_state(const Step *step, const char *path);

/* Return the size in bytes of a value of a type as step.json names it. */
size_t get_value_size(const char *type);

#endif
