/* UMAP: McInnes, Healy and Melville, "UMAP: Uniform Manifold Approximation and Projection" (2018), with the particulars
 * of its authors' program: smoothed distances, fuzzy union, curve fitted to min_dist and spread, edges sampled by
 * weight, five negative samples each. Starts from the principal components. */
#pragma once

#include "worker/projection/knn.h"

struct umap_options {
    size_t neighbors; /* counts the point itself, as the reference does */
    double min_dist, spread;
    int epochs; /* 0 = 500 up to 10,000 points, else 200 */
    uint64_t seed;
    bool is_cosine; /* the points are of length 1: half the squared distance is meant, else the distance */
};

/* `positions` [points][2] holds the starting positions, of any scale, and the result. `knn` has at least neighbors - 1
 * of each. Computed by one thread from the layout on, so that it is the same every time. False: stopped. */
bool umap_lay_out(struct crew *crew, const struct knn *knn, const struct umap_options *options,
                  float *positions) must_check;
size_t umap_bytes(size_t points, size_t neighbors);
/* The curve 1 / (1 + a x^2b) nearest to what min_dist and spread describe. */
void umap_fit_curve(double min_dist, double spread, double *out_a, double *out_b);
