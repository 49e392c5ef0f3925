/* Principal components: the directions of largest variance, by subspace iteration with Rayleigh-Ritz on the covariance
 * matrix (Golub and Van Loan, Matrix Computations, 8.2). */
#pragma once

#include "worker/projection/crew.h"
#include "worker/projection/matrix.h"

/* The first `components` coordinates of all points, in order of falling variance, into a new matrix: columns beyond the
 * number of dimensions or of variance stay 0. Of the two directions of an axis the one is taken whose weight of largest
 * size is positive. `ratios` (may be NULL) [components]: each one's share of the variance. False: stopped. */
bool pca_project(struct crew *crew, const struct matrix *points, size_t components, uint64_t seed, struct matrix *out,
                 double *ratios) must_check;
size_t pca_bytes(size_t rows, size_t cols, size_t components);
