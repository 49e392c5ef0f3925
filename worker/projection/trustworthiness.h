/* How far the neighbours in a projection are neighbours in truth: Venna and Kaski, "Neighborhood preservation in
 * nonlinear projection methods" (2001). */
#pragma once

#include "worker/projection/crew.h"
#include "worker/projection/matrix.h"

enum { TRUSTWORTHINESS_SAMPLE = 1000 };

/* 1 = all are, about 0.5 = chance. For more than `sample` points, of that many taken by chance. NAN for fewer than four
 * points; `k` is made to fit (k < points / 2). False: stopped. */
bool trustworthiness(struct crew *crew, const struct matrix *points, const float *positions, size_t k, size_t sample,
                     uint64_t seed, double *out) must_check;
