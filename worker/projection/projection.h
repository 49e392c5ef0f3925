/* Coordinates in the plane for points of many dimensions: what the projection operation computes, without database or
 * events. The same seed, points and binary give the same coordinates, whatever the number of threads. */
#pragma once

#include "worker/projection/crew.h"
#include "worker/projection/matrix.h"

enum projection_method { PROJECTION_PCA, PROJECTION_UMAP, PROJECTION_TSNE, PROJECTION_METHODS };

struct projection_options {
    enum projection_method method;
    uint64_t seed;
    size_t n_neighbors; /* UMAP; 15 is usual */
    double min_dist;    /* UMAP; 0.1 */
    double spread;      /* UMAP; 1 */
    double perplexity;  /* t-SNE; 30 */
    bool is_cosine;     /* the points are of length 1 */
};

/* What is told about the result; NAN where there is nothing to tell. */
struct projection_figures {
    double trustworthiness; /* of the 15 nearest, see trustworthiness.h */
    double divergence;      /* t-SNE: Kullback-Leibler */
    double variance_shown;  /* PCA: the two coordinates' share */
    size_t neighbors;       /* that were used, after they were made to fit */
    double perplexity;      /* likewise */
};

/* "pca", "umap", "tsne"; false for another name. */
bool projection_method_parse(const char *name, enum projection_method *out);
const char *projection_method_name(enum projection_method method);

/* `positions` [points->rows][2] is filled; every number of it is finite. Points are cleaned of what is no finite
 * number. Fewer than four points get their principal components whatever the method. False: stopped. */
bool projection_compute(struct crew *crew, struct matrix *points, const struct projection_options *options,
                        float *positions, struct projection_figures *out) must_check;
/* The memory that it takes at most, with that of the points. */
size_t projection_bytes(size_t points, size_t dim, const struct projection_options *options, int threads);
