/* t-SNE by Barnes and Hut's approximation: van der Maaten, "Accelerating t-SNE using Tree-Based Algorithms" (2014),
 * with the step sizes of scikit-learn. Starts from the principal components. */
#pragma once

#include "worker/projection/knn.h"

struct tsne_options {
    double perplexity;
    double theta;   /* 0 = exact; 0.5 is usual */
    int iterations; /* 0 = 1000 */
};

/* How many neighbours it wants of each point. */
size_t tsne_neighbors(size_t points, double perplexity);
/* `positions` [points][2] holds the starting positions, of any scale, and the result; *out_divergence (may be NULL) the
 * Kullback-Leibler divergence that is left. False: stopped. */
bool tsne_lay_out(struct crew *crew, const struct knn *knn, const struct tsne_options *options, float *positions,
                  double *out_divergence) must_check;
size_t tsne_bytes(size_t points, size_t neighbors);
