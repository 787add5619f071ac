#include "step.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "vectors and saved states are little-endian"
#endif

#define SCHEMA 1
#define API_VERSION 17 /* of ONNX Runtime: any library from 1.17 on */

/* End the program if a call has failed. The message of ONNX Runtime may have several lines: take the first. */
static void check(const OrtApi *api, OrtStatus *status, const char *action)
{
    if (!status)
        return;
    char message[400];
    snprintf(message, sizeof message, "%s", api->GetErrorMessage(status));
    message[strcspn(message, "\n")] = 0;
    api->ReleaseStatus(status);
    fail("%s: %s", action, message);
}

static const OrtApi *get_api(void)
{
    const OrtApiBase *base = OrtGetApiBase();
    const OrtApi *api = base->GetApi(API_VERSION);
    if (!api)
        fail("expected ONNX Runtime 1.%d or later, found %s", API_VERSION, base->GetVersionString());
    return api;
}

static OrtSession *open_graph(Step *step, const char *folder, const char *name, int threads)
{
    OrtSessionOptions *options;
    check(step->api, step->api->CreateSessionOptions(&options), "options of a session");
    check(step->api, step->api->SetIntraOpNumThreads(options, threads), "number of threads");
    OrtSession *session;
    char *path = join_path(folder, name);
    check(step->api, step->api->CreateSession(step->env, path, options, &session), path);
    free(path);
    step->api->ReleaseSessionOptions(options);
    return session;
}

static const cJSON *get_state_entry(const Step *step, size_t index)
{
    return cJSON_GetArrayItem(get_field(step->description, "state"), (int)index);
}

static void read_names(Step *step)
{
    size_t count = step->states;
    step->inputs = allocate(count + 1, sizeof *step->inputs);
    step->outputs = allocate(count + 3, sizeof *step->outputs);
    step->inputs[0] = get_text(get_field(step->description, "images"), "input");
    for (size_t i = 0; i < count; i++) {
        step->inputs[i + 1] = get_text(get_state_entry(step, i), "input");
        step->outputs[i] = get_text(get_state_entry(step, i), "output");
    }
    step->outputs[count] = get_text(step->description, "logits");
    step->outputs[count + 1] = get_text(step->description, "valid");
    step->outputs[count + 2] = get_text(get_field(step->description, "diagnostics"), "entropy");
}

static void read_description(Step *step, const char *folder)
{
    char *path = join_path(folder, "step.json");
    step->description = read_json(path, "a folder that `fozo compile` has written");
    if (get_count(get_field(step->description, "schema")) != SCHEMA)
        fail("expected schema %d in %s, found another one; compile the step again", SCHEMA, path);
    free(path);
    const cJSON *shape = get_field(get_field(step->description, "images"), "shape");
    const cJSON *batch = cJSON_GetArrayItem(shape, 0);
    step->fixed_batch = cJSON_IsString(batch) ? 0 : get_count(batch);
    step->height = get_count(cJSON_GetArrayItem(shape, 1));
    step->width = get_count(cJSON_GetArrayItem(shape, 2));
    step->states = (size_t)cJSON_GetArraySize(get_field(step->description, "state"));
    read_names(step);
}

Step *open_step(const char *folder, int threads)
{
    Step *step = allocate(1, sizeof *step);
    read_description(step, folder);
    step->api = get_api();
    check(step->api, step->api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "step", &step->env), "environment");
    check(step->api,
          step->api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &step->memory), "memory");
    step->init = open_graph(step, folder, "init.onnx", threads);
    step->session = open_graph(step, folder, "step.onnx", threads);
    return step;
}

void close_step(Step *step)
{
    step->api->ReleaseSession(step->session);
    step->api->ReleaseSession(step->init);
    step->api->ReleaseMemoryInfo(step->memory);
    step->api->ReleaseEnv(step->env);
    cJSON_Delete(step->description);
    free(step->inputs);
    free(step->outputs);
    free(step);
}

State create_state(const Step *step)
{
    State state = allocate(step->states, sizeof *state);
    OrtStatus *status =
        step->api->Run(step->init, NULL, NULL, NULL, 0, step->inputs + 1, step->states, state);
    check(step->api, status, "init.onnx");
    return state;
}

void release_state(const Step *step, State state)
{
    for (size_t i = 0; i < step->states; i++)
        step->api->ReleaseValue(state[i]);
    free(state);
}

static void *get_data(const Step *step, OrtValue *value)
{
    void *data;
    check(step->api, step->api->GetTensorMutableData(value, &data), "values of a tensor");
    return data;
}

static size_t get_length(const Step *step, const OrtValue *value)
{
    OrtTensorTypeAndShapeInfo *info;
    size_t length;
    check(step->api, step->api->GetTensorTypeAndShape(value, &info), "shape of a tensor");
    check(step->api, step->api->GetTensorShapeElementCount(info, &length), "shape of a tensor");
    step->api->ReleaseTensorTypeAndShapeInfo(info);
    return length;
}

/* Copy what a program looks at, and release it. `outputs`: logits, valid and entropy. */
static Result take_result(const Step *step, OrtValue **outputs, size_t count)
{
    Result result = {.images = count, .classes = get_length(step, outputs[0]) / count};
    result.logits = allocate(count * result.classes, sizeof *result.logits);
    memcpy(result.logits, get_data(step, outputs[0]), count * result.classes * sizeof *result.logits);
    result.valid = *(bool *)get_data(step, outputs[1]);
    result.entropy = *(float *)get_data(step, outputs[2]);
    for (int i = 0; i < 3; i++)
        step->api->ReleaseValue(outputs[i]);
    return result;
}

Result run_step(const Step *step, const uint8_t *pixels, size_t count, State state)
{
    size_t states = step->states;
    const int64_t shape[] = {(int64_t)count, step->height, step->width, 3};
    size_t length = count * (size_t)(step->height * step->width * 3);
    OrtValue **inputs = allocate(states + 1, sizeof *inputs);
    OrtValue **outputs = allocate(states + 3, sizeof *outputs);
    check(step->api,
          step->api->CreateTensorWithDataAsOrtValue(step->memory, (void *)pixels, length, shape, 4,
                                                    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &inputs[0]),
          "images");
    memcpy(inputs + 1, state, states * sizeof *state);
    OrtStatus *status = step->api->Run(step->session, NULL, step->inputs, (const OrtValue *const *)inputs,
                                       states + 1, step->outputs, states + 3, outputs);
    check(step->api, status, "step.onnx");
    for (size_t i = 0; i < states + 1; i++)
        step->api->ReleaseValue(inputs[i]);
    memcpy(state, outputs, states * sizeof *state); /* next_state.NAME goes in as state.NAME */
    Result result = take_result(step, outputs + states, count);
    free(inputs);
    free(outputs);
    return result;
}

void release_result(Result *result)
{
    free(result->logits);
    result->logits = NULL;
}

size_t find_class(const Result *result, size_t image)
{
    const float *logits = result->logits + image * result->classes;
    size_t largest = 0;
    for (size_t i = 1; i < result->classes; i++)
        if (logits[i] > logits[largest])
            largest = i;
    return largest;
}

size_t choose_batch(const Step *step, size_t wanted)
{
    size_t fixed = (size_t)step->fixed_batch;
    if (fixed && wanted && wanted != fixed)
        fail("expected batches of %zu, for which the step is compiled, found %zu", fixed, wanted);
    return fixed ? fixed : wanted ? wanted : 8;
}

size_t fill_batch(const Step *step, uint8_t *pixels, size_t count)
{
    size_t length = (size_t)(step->height * step->width * 3), full = (size_t)step->fixed_batch;
    for (size_t i = count; i < full; i++)
        memcpy(pixels + i * length, pixels + (i - count) * length, length);
    return full > count ? full : count;
}

typedef struct {
    const char *name;
    size_t size; /* bytes of a value */
    ONNXTensorElementDataType type;
} ValueType;

static const ValueType *find_type(const char *name)
{
    static const ValueType types[] = {
        {"bool", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},    {"uint8", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
        {"int32", 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},  {"int64", 8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
        {"float32", 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}, {"float64", 8, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(name, types[i].name) == 0)
            return &types[i];
    fail("expected a type that this program knows, found %s", name);
}

size_t get_value_size(const char *type)
{
    return find_type(type)->size;
}

Bytes view_state(const Step *step, State state, size_t index)
{
    size_t size = get_value_size(get_text(get_state_entry(step, index), "type"));
    return (Bytes){get_data(step, state[index]), get_length(step, state[index]) * size};
}

void save_state(const Step *step, State state, const char *path)
{
    size_t length = strlen(path) + 5;
    char *part = allocate(length, 1);
    snprintf(part, length, "%s.new", path);
    FILE *file = fopen(part, "wb");
    for (size_t i = 0; file && i < step->states; i++) {
        Bytes value = view_state(step, state, i);
        fwrite(value.data, 1, value.length, file);
    }
    if (!file || ferror(file) || fclose(file) || rename(part, path)) /* if interrupted, the old state stays */
        fail("cannot write the state %s: %s", path, strerror(errno));
    free(part);
}

/* Return a tensor with the type and shape of a value of the state, to be filled. */
static OrtValue *create_value(const Step *step, size_t index)
{
    const cJSON *entry = get_state_entry(step, index);
    const cJSON *lengths = get_field(entry, "shape");
    size_t axes = (size_t)cJSON_GetArraySize(lengths);
    int64_t *shape = allocate(axes, sizeof *shape);
    for (size_t i = 0; i < axes; i++)
        shape[i] = get_count(cJSON_GetArrayItem(lengths, (int)i));
    OrtAllocator *allocator; /* the default one, which nobody releases */
    check(step->api, step->api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
    OrtValue *value;
    OrtStatus *status = step->api->CreateTensorAsOrtValue(
        allocator, shape, axes, find_type(get_text(entry, "type"))->type, &value);
    check(step->api, status, "value of a state");
    free(shape);
    return value;
}

State load_state(const Step *step, const char *path)
{
    Bytes saved = read_file(path, "a state");
    State state = allocate(step->states, sizeof *state);
    size_t start = 0;
    for (size_t i = 0; i < step->states; i++) {
        state[i] = create_value(step, i);
        Bytes value = view_state(step, state, i);
        if (value.length > saved.length - start)
            fail("expected a state of this step, found a shorter file: %s: one of another step; start without it", path);
        memcpy(value.data, saved.data + start, value.length);
        start += value.length;
    }
    if (start != saved.length)
        fail("expected a state of this step, found a longer file: %s: one of another step; start without it", path);
    free(saved.data);
    return state;
}
