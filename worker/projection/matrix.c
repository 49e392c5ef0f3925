#include "worker/projection/matrix.h"

#include "common/arena.h"

#include <math.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi"

typedef float v16 __attribute__((vector_size(64), aligned(4)));

#define load(p) (*(const v16 *)(p))

/* Halved again and again, as the lanes of a register would be. */
static inline __attribute__((always_inline)) float sum(const v16 *v)
{
    float s[16];
    memcpy(s, v, sizeof s);
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            s[i] += s[i + half];
    }
    return s[0];
}

#define KERNEL
#define NAME(name) name##_any
#include "worker/projection/matrix_kernel.h"
#if defined(__x86_64__)
#define KERNEL __attribute__((target("avx2")))
#define NAME(name) name##_avx2
#include "worker/projection/matrix_kernel.h"
#define KERNEL __attribute__((target("avx512f")))
#define NAME(name) name##_avx512
#include "worker/projection/matrix_kernel.h"
#endif

void matrix_dots(const float *a, const float *b, size_t step, size_t count, size_t len, float *out)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        dots_avx512(a, b, step, count, len, out);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        dots_avx2(a, b, step, count, len, out);
        return;
    }
#endif
    dots_any(a, b, step, count, len, out);
}

float matrix_distance2(const float *a, const float *b, size_t len)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return distance2_avx512(a, b, len);
    if (__builtin_cpu_supports("avx2"))
        return distance2_avx2(a, b, len);
#endif
    return distance2_any(a, b, len);
}

static size_t stride_of(size_t cols)
{
    return (cols + 15) / 16 * 16;
}

size_t matrix_bytes(size_t rows, size_t cols)
{
    return rows * stride_of(cols) * sizeof(float);
}

struct matrix matrix_new(size_t rows, size_t cols)
{
    struct matrix m = {.rows = rows, .cols = cols, .stride = stride_of(cols)};
    m.data = must_calloc(rows * m.stride + 16, sizeof *m.data);
    return m;
}

void matrix_free(struct matrix *m)
{
    free(m->data);
    *m = (struct matrix){0};
}

void matrix_clean(struct matrix *m)
{
    for (size_t i = 0; i < m->rows * m->stride; i++) {
        if (!isfinite(m->data[i]))
            m->data[i] = 0;
    }
}
