/* Points as rows of numbers, and the arithmetic that nearly all of the time is spent in. Sums are made in a fixed
 * order, by sixteen lanes and without fused multiply-add, so that they are the same on every kind of x86-64. */
#pragma once

#include "common/base.h"

#include <stdint.h>

struct matrix {
    float *data;
    size_t rows, cols;
    size_t stride; /* floats from one row to the next: cols, and zeros up to a multiple of 16 */
};

/* Zeroed. */
struct matrix matrix_new(size_t rows, size_t cols);
void matrix_free(struct matrix *m);
#define scoped_matrix __attribute__((cleanup(matrix_free))) struct matrix
static inline float *matrix_row(const struct matrix *m, size_t row)
{
    return m->data + row * m->stride;
}
size_t matrix_bytes(size_t rows, size_t cols);
/* What is not a number, or infinite, becomes 0: a vector that is damaged must not take the others with it. */
void matrix_clean(struct matrix *m);

/* Dot products of a[0..len) with each of b, b + step, …; `len` is a multiple of 16. */
void matrix_dots(const float *a, const float *b, size_t step, size_t count, size_t len, float *out);
/* Squared Euclidean distance, without the cancellation of computing it from dot products. */
float matrix_distance2(const float *a, const float *b, size_t len);
