#include "worker/projection/trustworthiness.h"

#include "common/arena.h"
#include "worker/projection/knn.h"
#include "worker/projection/random.h"

#include <math.h>

struct trust {
    struct crew *crew;
    const struct matrix *points;
    const float *positions;
    size_t k;
    uint32_t *taken;  /* [sample] points that are looked at */
    double *faults;   /* [sample] */
    float *distances; /* [threads][points] */
};

/* The nearest k of the projection. */
static void find_shown(const struct trust *t, uint32_t point, struct knn_heap *heap)
{
    const float *p = t->positions + 2 * (size_t)point;
    for (size_t j = 0; j < t->points->rows; j++) {
        float dx = t->positions[2 * j] - p[0], dy = t->positions[2 * j + 1] - p[1];
        if (j != point)
            (void)knn_offer(heap, (uint32_t)j, dx * dx + dy * dy, false);
    }
}

/* By how much the truth's ranks of the points that are shown near exceed k. */
static double look(const struct trust *t, uint32_t point, float *distances, struct knn_heap *heap)
{
    const struct matrix *m = t->points;
    double faults = 0;
    for (size_t j = 0; j < m->rows; j++)
        distances[j] = matrix_distance2(matrix_row(m, point), matrix_row(m, j), m->stride);
    heap->count = 0;
    find_shown(t, point, heap);
    for (size_t i = 0; i < heap->count; i++) {
        uint32_t shown = heap->index[i];
        size_t nearer = 0;
        for (size_t j = 0; j < m->rows; j++)
            nearer += distances[j] < distances[shown] || (j < shown && distances[j] <= distances[shown]);
        if (distances[point] > distances[shown] || (point > shown && distances[point] >= distances[shown]))
            nearer++;      /* the point itself, which comes first whatever its number */
        if (nearer > t->k) /* the rank is `nearer`, as the point itself is counted for the shown one */
            faults += (double)(nearer - t->k);
    }
    return faults;
}

static void look_at_some(void *context, size_t from, size_t to, int thread)
{
    struct trust *t = context;
    scoped_memory uint32_t *index = must_calloc(t->k, sizeof *index);
    scoped_memory float *distance = must_calloc(t->k, sizeof *distance);
    struct knn_heap heap = {index, distance, 0, t->k};
    for (size_t i = from; i < to && !crew_poll(t->crew, thread); i++)
        t->faults[i] = look(t, t->taken[i], t->distances + (size_t)thread * t->points->rows, &heap);
}

bool trustworthiness(struct crew *crew, const struct matrix *points, const float *positions, size_t k, size_t sample,
                     uint64_t seed, double *out)
{
    size_t n = points->rows;
    *out = NAN;
    if (n < 4)
        return true;
    if (2 * k >= n)
        k = (n - 1) / 2;
    if (sample > n)
        sample = n;
    scoped_memory uint32_t *taken = must_calloc(n, sizeof *taken);
    scoped_memory double *faults = must_calloc(sample, sizeof *faults);
    scoped_memory float *distances = must_calloc((size_t)crew_threads(crew) * n, sizeof *distances);
    struct random random = random_seeded(seed);
    for (size_t i = 0; i < n; i++)
        taken[i] = (uint32_t)i;
    for (size_t i = 0; i < sample && sample < n; i++) {
        size_t other = i + random_below(&random, (uint32_t)(n - i));
        uint32_t point = taken[i];
        taken[i] = taken[other];
        taken[other] = point;
    }
    struct trust t = {crew, points, positions, k, taken, faults, distances};
    if (!crew_run(crew, sample, 1, look_at_some, &t))
        return false;
    double sum = 0;
    for (size_t i = 0; i < sample; i++)
        sum += faults[i];
    double m = (double)sample, kk = (double)k;
    *out = 1 - 2 / (m * kk * (2 * (double)n - 3 * kk - 1)) * sum;
    return true;
}
