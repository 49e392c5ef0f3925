#include "worker/projection/projection.h"

#include "common/arena.h"
#include "worker/projection/knn.h"
#include "worker/projection/pca.h"
#include "worker/projection/trustworthiness.h"
#include "worker/projection/tsne.h"
#include "worker/projection/umap.h"

#include <math.h>
#include <string.h>

enum {
    TSNE_DIMENSIONS = 50, /* t-SNE works on that many principal components, as is usual: the rest is mostly noise */
    TRUSTED_NEIGHBORS = 15,
    FEW = 4,
};

static const char *const names[PROJECTION_METHODS] = {"pca", "umap", "tsne"};

bool projection_method_parse(const char *name, enum projection_method *out)
{
    for (int i = 0; i < PROJECTION_METHODS; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum projection_method)i;
            return true;
        }
    }
    return false;
}

const char *projection_method_name(enum projection_method method)
{
    return names[method];
}

static size_t umap_neighbors(size_t points, const struct projection_options *o)
{
    size_t wanted = o->n_neighbors > 2 ? o->n_neighbors : 2;
    return wanted < points ? wanted : points;
}

/* Three times as many neighbours as the perplexity are wanted, and no more than there are. */
static double tsne_perplexity(size_t points, const struct projection_options *o)
{
    double most = ((double)points - 1) / 3;
    double wanted = o->perplexity < most ? o->perplexity : most;
    return wanted > 1 ? wanted : 1;
}

static void take_first_two(const struct matrix *from, float *positions)
{
    for (size_t i = 0; i < from->rows; i++) {
        positions[2 * i] = matrix_row(from, i)[0];
        positions[2 * i + 1] = from->cols > 1 ? matrix_row(from, i)[1] : 0;
    }
}

static bool reduce(struct crew *crew, const struct matrix *points, const struct projection_options *o,
                   size_t components, double to, struct matrix *out, double *ratios)
{
    crew_stage(crew, "reducing dimensions", 0, to);
    return pca_project(crew, points, components, o->seed, out, ratios);
}

static bool run_pca(struct crew *crew, const struct matrix *points, const struct projection_options *o,
                    float *positions, struct projection_figures *out)
{
    scoped_matrix reduced = {0};
    double ratios[2];
    if (!reduce(crew, points, o, 2, 0.8, &reduced, ratios))
        return false;
    take_first_two(&reduced, positions);
    out->variance_shown = ratios[0] + ratios[1];
    return true;
}

static bool run_umap(struct crew *crew, const struct matrix *points, const struct projection_options *o,
                     float *positions, struct projection_figures *out)
{
    scoped_matrix reduced = {0};
    scoped_knn knn = {0};
    out->neighbors = umap_neighbors(points->rows, o);
    if (!reduce(crew, points, o, 2, 0.1, &reduced, NULL))
        return false;
    take_first_two(&reduced, positions);
    crew_stage(crew, "finding neighbours", 0.1, 0.35);
    if (!knn_find(crew, points, out->neighbors - 1, KNN_EXACT_POINTS, o->seed, &knn))
        return false;
    crew_stage(crew, "laying out", 0.35, 0.95);
    struct umap_options umap = {.neighbors = out->neighbors,
                                .min_dist = o->min_dist,
                                .spread = o->spread,
                                .seed = o->seed,
                                .is_cosine = o->is_cosine};
    return umap_lay_out(crew, &knn, &umap, positions);
}

static bool run_tsne(struct crew *crew, const struct matrix *points, const struct projection_options *o,
                     float *positions, struct projection_figures *out)
{
    scoped_matrix reduced = {0};
    scoped_knn knn = {0};
    bool is_wide = points->cols > TSNE_DIMENSIONS;
    out->perplexity = tsne_perplexity(points->rows, o);
    out->neighbors = tsne_neighbors(points->rows, out->perplexity);
    if (!reduce(crew, points, o, is_wide ? TSNE_DIMENSIONS : 2, 0.05, &reduced, NULL))
        return false;
    take_first_two(&reduced, positions);
    crew_stage(crew, "finding neighbours", 0.05, 0.15);
    if (!knn_find(crew, is_wide ? &reduced : points, out->neighbors, KNN_EXACT_POINTS, o->seed, &knn))
        return false;
    crew_stage(crew, "laying out", 0.15, 0.95);
    struct tsne_options tsne = {.perplexity = out->perplexity, .theta = 0.5};
    return tsne_lay_out(crew, &knn, &tsne, positions, &out->divergence);
}

static bool run(struct crew *crew, const struct matrix *points, const struct projection_options *o, float *positions,
                struct projection_figures *out)
{
    if (points->rows < FEW || o->method == PROJECTION_PCA)
        return run_pca(crew, points, o, positions, out);
    return o->method == PROJECTION_UMAP ? run_umap(crew, points, o, positions, out)
                                        : run_tsne(crew, points, o, positions, out);
}

bool projection_compute(struct crew *crew, struct matrix *points, const struct projection_options *options,
                        float *positions, struct projection_figures *out)
{
    *out = (struct projection_figures){
        .trustworthiness = NAN, .divergence = NAN, .variance_shown = NAN, .perplexity = NAN};
    memset(positions, 0, 2 * points->rows * sizeof *positions);
    matrix_clean(points);
    if (!run(crew, points, options, positions, out))
        return false;
    for (size_t i = 0; i < 2 * points->rows; i++)
        positions[i] = isfinite(positions[i]) ? positions[i] : 0;
    crew_stage(crew, "measuring", 0.95, 1);
    return trustworthiness(crew, points, positions, TRUSTED_NEIGHBORS, TRUSTWORTHINESS_SAMPLE, options->seed,
                           &out->trustworthiness);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t projection_bytes(size_t n, size_t dim, const struct projection_options *o, int threads)
{
    size_t base = matrix_bytes(n, dim) + n * 2 * sizeof(float), work = 0;
    size_t measuring = n * sizeof(uint32_t) + (size_t)threads * n * sizeof(float);
    size_t wanted = o->method == PROJECTION_TSNE && dim > TSNE_DIMENSIONS ? TSNE_DIMENSIONS : 2;
    size_t k = o->method == PROJECTION_UMAP ? umap_neighbors(n, o) : tsne_neighbors(n, tsne_perplexity(n, o));
    size_t graph = n * k * (sizeof(uint32_t) + sizeof(float));
    work = pca_bytes(n, dim, wanted);
    if (o->method != PROJECTION_PCA && n >= FEW) {
        size_t layout = o->method == PROJECTION_UMAP ? umap_bytes(n, k) : tsne_bytes(n, k);
        work = larger(work,
                      matrix_bytes(n, wanted) + larger(knn_bytes(n, k, KNN_EXACT_POINTS, threads), graph + layout));
    }
    return base + larger(work, measuring);
}
