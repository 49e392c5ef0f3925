#include "worker/projection/tsne.h"

#include "common/arena.h"
#include "worker/projection/quadtree.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { SEARCH_STEPS = 100, EXAGGERATED_ITERATIONS = 250, ITERATIONS = 1000, BLOCK = 256 };
static const float EXAGGERATION = 12, START = 1e-4f, LEAST_GAIN = 0.01f;

struct descent {
    struct crew *crew;
    const struct knn *knn;
    const struct tsne_options *options;
    size_t n, k;
    float *weights; /* [n][k] of one direction: p(j|i) */
    /* The symmetric affinities by rows, which add up to 1. */
    uint32_t *starts, *ends;
    float *affinity;

    struct quadtree *tree;
    float *positions, *update, *gains;
    float *force;        /* [n][2] repulsion, not normalised */
    double *sums;        /* [blocks] of q */
    double *divergences; /* [blocks] */
    double total;        /* of q */
    float exaggeration, momentum, rate;
};

size_t tsne_neighbors(size_t points, double perplexity)
{
    size_t wanted = (size_t)(3 * perplexity + 1);
    return points == 0 ? 0 : wanted < points - 1 ? wanted : points - 1;
}

/* ---- affinities ---- */

/* The width of the Gaussian under which the neighbours' entropy is that of `perplexity` equal ones. */
static void weigh_neighbors(void *context, size_t from, size_t to, int thread)
{
    struct descent *d = context;
    (void)thread;
    double wanted = log(d->options->perplexity);
    for (size_t i = from; i < to; i++) {
        const float *distance = d->knn->distance + i * d->knn->k;
        float *w = d->weights + i * d->k;
        double beta = 1, low = -INFINITY, high = INFINITY, sum = 1;
        for (int step = 0; step < SEARCH_STEPS; step++) {
            double along = 0;
            w[0] = 1; /* of the nearest one, so that the sum never is 0 */
            sum = 1;
            for (size_t j = 1; j < d->k; j++) {
                double beyond = (double)distance[j] - (double)distance[0], p = exp(-beyond * beta);
                w[j] = (float)p;
                sum += p;
                along += beyond * p;
            }
            double entropy = log(sum) + beta * along / sum, off = entropy - wanted;
            if (fabs(off) <= 1e-5)
                break;
            if (off > 0) {
                low = beta;
                beta = isinf(high) ? beta * 2 : (beta + high) / 2;
            } else {
                high = beta;
                beta = isinf(low) ? beta / 2 : (beta + low) / 2;
            }
        }
        for (size_t j = 0; j < d->k; j++)
            w[j] = (float)((double)w[j] / sum);
    }
}

static float *find_link(const struct descent *d, uint32_t from, uint32_t to)
{
    for (size_t j = 0; j < d->k; j++) {
        if (d->knn->index[from * d->knn->k + j] == to)
            return d->weights + from * d->k + j;
    }
    return NULL;
}

/* p(ij) = (p(j|i) + p(i|j)) / 2n. A link of both ends is put in by the one with the smaller number. */
static bool make_symmetric(struct descent *d)
{
    size_t n = d->n, k = d->k;
    assert(d->weights);
    scoped_memory float *united = must_calloc(n * k + 1, sizeof *united); /* -1 = the other end's */
    d->starts = must_calloc(n + 2, sizeof *d->starts);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < k; j++) {
            uint32_t other = d->knn->index[i * d->knn->k + j];
            const float *back = find_link(d, other, i);
            united[i * k + j] = -1;
            if (back && other < i)
                continue;
            united[i * k + j] = (d->weights[i * k + j] + (back ? *back : 0)) / (float)(2 * n);
            d->starts[i + 2]++;
            d->starts[other + 2]++;
        }
        if (i % 1024 == 0 && crew_poll(d->crew, 0))
            return false;
    }
    for (size_t i = 2; i < n + 2; i++)
        d->starts[i] += d->starts[i - 1];
    d->ends = must_calloc(d->starts[n + 1] + 1, sizeof *d->ends);
    d->affinity = must_calloc(d->starts[n + 1] + 1, sizeof *d->affinity);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < k; j++) {
            uint32_t other = d->knn->index[i * d->knn->k + j];
            if (united[i * k + j] < 0)
                continue;
            uint32_t there = d->starts[i + 1]++, back = d->starts[other + 1]++;
            d->ends[there] = other;
            d->ends[back] = i;
            d->affinity[there] = d->affinity[back] = united[i * k + j];
        }
    }
    return true;
}

/* ---- descent ---- */

/* Blocks of places along the curve, so that threads see what is near. */
static void repel_block(void *context, size_t from, size_t to, int thread)
{
    struct descent *d = context;
    const uint32_t *order = quadtree_order(d->tree);
    double sum = 0;
    (void)thread;
    for (size_t place = from; place < to; place++)
        sum += quadtree_repulsion(d->tree, place, (float)d->options->theta, d->force + 2 * (size_t)order[place]);
    d->sums[from / BLOCK] = sum;
}

static void pull_point(const struct descent *d, size_t i, float out[2])
{
    const float *p = d->positions;
    float fx = 0, fy = 0;
    for (uint32_t e = d->starts[i]; e < d->starts[i + 1]; e++) {
        const float *other = p + 2 * (size_t)d->ends[e];
        float dx = p[2 * i] - other[0], dy = p[2 * i + 1] - other[1];
        float weight = d->affinity[e] / (1 + dx * dx + dy * dy);
        fx += weight * dx;
        fy += weight * dy;
    }
    out[0] = fx * d->exaggeration;
    out[1] = fy * d->exaggeration;
}

/* The step goes into `update`; positions are moved when all have looked at them. */
static void step_block(void *context, size_t from, size_t to, int thread)
{
    struct descent *d = context;
    (void)thread;
    for (size_t i = from; i < to; i++) {
        float pull[2];
        pull_point(d, i, pull);
        for (size_t c = 0; c < 2; c++) {
            size_t at = 2 * i + c;
            float gradient = 4 * (pull[c] - (float)((double)d->force[at] / d->total));
            bool is_onward = d->update[at] * gradient < 0;
            d->gains[at] = is_onward ? d->gains[at] + 0.2f : fmaxf(d->gains[at] * 0.8f, LEAST_GAIN);
            d->update[at] = d->momentum * d->update[at] - d->rate * d->gains[at] * gradient;
        }
    }
}

static bool find_repulsion(struct descent *d)
{
    quadtree_build(d->tree, d->positions, d->n);
    if (!crew_round(d->crew, d->n, BLOCK, repel_block, d))
        return false;
    d->total = 0;
    for (size_t b = 0; b * BLOCK < d->n; b++)
        d->total += d->sums[b];
    d->total = fmax(d->total, 1e-30);
    return true;
}

static bool iterate(struct descent *d)
{
    if (!find_repulsion(d) || !crew_round(d->crew, d->n, BLOCK, step_block, d))
        return false;
    for (size_t i = 0; i < 2 * d->n; i++)
        d->positions[i] += d->update[i];
    return true;
}

static void diverge_block(void *context, size_t from, size_t to, int thread)
{
    struct descent *d = context;
    double sum = 0;
    (void)thread;
    for (size_t i = from; i < to; i++) {
        for (uint32_t e = d->starts[i]; e < d->starts[i + 1]; e++) {
            const float *a = d->positions + 2 * i, *b = d->positions + 2 * (size_t)d->ends[e];
            double dx = (double)a[0] - (double)b[0], dy = (double)a[1] - (double)b[1];
            double q = 1 / (1 + dx * dx + dy * dy) / d->total, p = (double)d->affinity[e];
            sum += p > 0 ? p * log(p / fmax(q, 1e-30)) : 0;
        }
    }
    d->divergences[from / BLOCK] = sum;
}

static bool measure(struct descent *d, double *out)
{
    if (!find_repulsion(d) || !crew_round(d->crew, d->n, BLOCK, diverge_block, d))
        return false;
    *out = 0;
    for (size_t b = 0; b * BLOCK < d->n; b++)
        *out += d->divergences[b];
    return true;
}

/* The first coordinate's standard deviation becomes START. Without any, points are put side by side. */
static void shrink(float *positions, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)positions[2 * i];
    for (size_t i = 0; i < n; i++) {
        double off = (double)positions[2 * i] - sum / (double)n;
        squares += off * off;
    }
    double deviation = sqrt(squares / (double)n);
    for (size_t i = 0; i < 2 * n; i++)
        positions[i] = deviation > 1e-30 ? (float)((double)positions[i] / deviation) * START
                                         : START * (float)((double)(i * 2654435761u % 4096) / 4096 - 0.5);
}

static bool descend(struct descent *d, double *out_divergence)
{
    int iterations = d->options->iterations > 0 ? d->options->iterations : ITERATIONS;
    shrink(d->positions, d->n);
    for (size_t i = 0; i < 2 * d->n; i++)
        d->gains[i] = 1;
    d->rate = fmaxf((float)d->n / EXAGGERATION / 4, 50);
    for (int i = 0; i < iterations; i++) {
        bool is_early = i < EXAGGERATED_ITERATIONS;
        d->exaggeration = is_early ? EXAGGERATION : 1;
        d->momentum = is_early ? 0.5f : 0.8f;
        if (i == EXAGGERATED_ITERATIONS) {
            memset(d->update, 0, 2 * d->n * sizeof *d->update);
            for (size_t at = 0; at < 2 * d->n; at++)
                d->gains[at] = 1;
        }
        if (!iterate(d) || crew_report(d->crew, (double)i / iterations))
            return false;
    }
    return !out_divergence || measure(d, out_divergence);
}

size_t tsne_bytes(size_t points, size_t k)
{
    return points * k * (2 * sizeof(float) + 2 * (sizeof(uint32_t) + sizeof(float))) + points * 8 * sizeof(float) +
           quadtree_bytes(points);
}

bool tsne_lay_out(struct crew *crew, const struct knn *knn, const struct tsne_options *options, float *positions,
                  double *out_divergence)
{
    size_t n = knn->points, blocks = n / BLOCK + 1;
    if (out_divergence)
        *out_divergence = 0;
    if (n < 2 || knn->k == 0)
        return true;
    struct descent d = {.crew = crew, .knn = knn, .options = options, .n = n, .k = knn->k, .positions = positions};
    d.weights = must_calloc(n * d.k, sizeof *d.weights);
    d.update = must_calloc(2 * n, sizeof *d.update);
    d.gains = must_calloc(2 * n, sizeof *d.gains);
    d.force = must_calloc(2 * n, sizeof *d.force);
    d.sums = must_calloc(blocks, sizeof *d.sums);
    d.divergences = must_calloc(blocks, sizeof *d.divergences);
    d.tree = quadtree_new(n);
    bool is_done = crew_round(crew, n, BLOCK, weigh_neighbors, &d) && make_symmetric(&d) && descend(&d, out_divergence);
    quadtree_free(d.tree);
    free(d.weights);
    free(d.starts);
    free(d.ends);
    free(d.affinity);
    free(d.update);
    free(d.gains);
    free(d.force);
    free(d.sums);
    free(d.divergences);
    return is_done;
}
