/* The nearest neighbours of every point by Euclidean distance: exactly for as many points as that is quick for, beyond
 * by random projection trees whose leaves are compared in full, and by looking at the neighbours of neighbours until
 * little changes (LargeVis: Tang, Liu, Zhang and Mei 2016; the looking from both ends is of NN-descent: Dong, Charikar
 * and Li 2011). */
#pragma once

#include "worker/projection/crew.h"
#include "worker/projection/matrix.h"

enum { KNN_EXACT_POINTS = 10000 };

struct knn {
    size_t points, k;
    uint32_t *index; /* [points][k], without the point itself, nearest first */
    float *distance; /* squared */
};

/* k < points. Exact up to `exact_points`. Results do not depend on the number of threads. False: stopped. */
bool knn_find(struct crew *crew, const struct matrix *points, size_t k, size_t exact_points, uint64_t seed,
              struct knn *out) must_check;
void knn_free(struct knn *knn);
#define scoped_knn __attribute__((cleanup(knn_free))) struct knn
size_t knn_bytes(size_t points, size_t k, size_t exact_points, int threads);

/* ---- for the two ways of finding them ---- */

/* A point's candidates are a heap whose root is the farthest. Of two at the same distance the one with the smaller
 * index is the nearer one, so that the order of offering does not matter. */
struct knn_heap {
    uint32_t *index;
    float *distance;
    size_t count, k;
};
/* True when it was taken in. Must not be offered twice unless `is_checked`. */
bool knn_offer(struct knn_heap *heap, uint32_t index, float distance, bool is_checked);
/* Fills out->index and ->distance, not sorted. */
bool knn_find_approximately(struct crew *crew, const struct matrix *points, const float *squares, uint64_t seed,
                            struct knn *out) must_check;
