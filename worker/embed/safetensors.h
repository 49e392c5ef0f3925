/* Weights in the safetensors format: mapped, not copied. Untrusted: every offset and shape is checked before use. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct safetensors;

enum { TENSOR_MAX_DIMS = 4 };

struct tensor {
    enum { TENSOR_F32, TENSOR_F16, TENSOR_BF16 } type;
    int dims;
    int64_t shape[TENSOR_MAX_DIMS];
    int64_t count;     /* elements */
    const void *bytes; /* in the mapping */
};

/* NULL with a sentence in `error` when the file cannot be read or is damaged. */
struct safetensors *safetensors_open(const char *path, char *error, size_t error_size);
void safetensors_close(struct safetensors *st);
/* 0 when there is a tensor of that name and its type is one of the above; it lives as long as `st`. */
int safetensors_find(const struct safetensors *st, const char *name, struct tensor *out);

float float_from_half(uint16_t half);
