#include "worker/projection/knn.h"

#include "common/arena.h"

#include <string.h>

enum {
    ROWS_A_BLOCK = 32,
    MOST_COLUMNS = 256,
    TILE_BYTES = 24 << 10, /* of columns: they stay in the nearest cache while a block of rows is compared with them */
};

/* ---- heaps ---- */

static bool is_farther(const struct knn_heap *h, size_t a, size_t b)
{
    return h->distance[a] > h->distance[b] || (h->distance[a] == h->distance[b] && h->index[a] > h->index[b]);
}

static void swap(struct knn_heap *h, size_t a, size_t b)
{
    float distance = h->distance[a];
    uint32_t index = h->index[a];
    h->distance[a] = h->distance[b];
    h->index[a] = h->index[b];
    h->distance[b] = distance;
    h->index[b] = index;
}

static void sink(struct knn_heap *h, size_t count)
{
    for (size_t at = 0, child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_farther(h, child + 1, child))
            child++;
        if (!is_farther(h, child, at))
            return;
        swap(h, at, child);
    }
}

static void rise(struct knn_heap *h, size_t at)
{
    for (size_t parent; at > 0 && is_farther(h, at, parent = (at - 1) / 2); at = parent)
        swap(h, at, parent);
}

static bool holds(const struct knn_heap *h, uint32_t index)
{
    for (size_t i = 0; i < h->count; i++) {
        if (h->index[i] == index)
            return true;
    }
    return false;
}

bool knn_offer(struct knn_heap *h, uint32_t index, float distance, bool is_checked)
{
    bool is_full = h->count == h->k;
    if (is_full && (distance > h->distance[0] || (distance == h->distance[0] && index >= h->index[0])))
        return false;
    if (is_checked && holds(h, index))
        return false;
    size_t at = is_full ? 0 : h->count++;
    h->index[at] = index;
    h->distance[at] = distance;
    if (is_full)
        sink(h, h->k);
    else
        rise(h, at);
    return true;
}

/* ---- exact ---- */

struct finding {
    struct crew *crew;
    const struct matrix *points;
    const float *squares; /* of each point's length */
    struct knn *out;
};

static void compare_rows(void *context, size_t from, size_t to, int thread)
{
    struct finding *f = context;
    const struct matrix *m = f->points;
    struct knn_heap heaps[ROWS_A_BLOCK];
    float dots[MOST_COLUMNS];
    size_t columns = TILE_BYTES / (m->stride * sizeof(float)) / 4 * 4;
    columns = columns < 4 ? 4 : columns > MOST_COLUMNS ? MOST_COLUMNS : columns;
    for (size_t i = from; i < to; i++)
        heaps[i - from] = (struct knn_heap){f->out->index + i * f->out->k, f->out->distance + i * f->out->k, 0,
                                            f->out->k};
    for (size_t first = 0; first < m->rows && !crew_poll(f->crew, thread); first += columns) {
        size_t count = m->rows - first < columns ? m->rows - first : columns;
        for (size_t i = from; i < to; i++) {
            struct knn_heap *h = &heaps[i - from];
            matrix_dots(matrix_row(m, i), matrix_row(m, first), m->stride, count, m->stride, dots);
            for (size_t j = 0; j < count; j++) {
                float distance = f->squares[i] + f->squares[first + j] - 2 * dots[j];
                if (first + j != i)
                    (void)knn_offer(h, (uint32_t)(first + j), distance, false);
            }
        }
    }
}

/* ---- both ---- */

/* Distances anew, without cancellation, and the nearest first. */
static void sort_rows(void *context, size_t from, size_t to, int thread)
{
    struct finding *f = context;
    const struct matrix *m = f->points;
    (void)thread;
    for (size_t i = from; i < to; i++) {
        struct knn_heap h = {f->out->index + i * f->out->k, f->out->distance + i * f->out->k, 0, f->out->k};
        for (size_t j = 0; j < h.k; j++) {
            uint32_t index = h.index[j];
            (void)knn_offer(&h, index, matrix_distance2(matrix_row(m, i), matrix_row(m, index), m->stride), false);
        }
        for (size_t left = h.k; left > 1; left--) {
            swap(&h, 0, left - 1);
            sink(&h, left - 1);
        }
    }
}

static void square_rows(void *context, size_t from, size_t to, int thread)
{
    struct finding *f = context;
    float *squares = (float *)f->squares;
    (void)thread;
    for (size_t i = from; i < to; i++)
        matrix_dots(matrix_row(f->points, i), matrix_row(f->points, i), 0, 1, f->points->stride, squares + i);
}

bool knn_find(struct crew *crew, const struct matrix *points, size_t k, size_t exact_points, uint64_t seed,
              struct knn *out)
{
    size_t n = points->rows;
    *out = (struct knn){.points = n, .k = k};
    out->index = must_calloc(n * k + 1, sizeof *out->index);
    out->distance = must_calloc(n * k + 1, sizeof *out->distance);
    if (k == 0)
        return true;
    scoped_memory float *squares = must_calloc(n + 1, sizeof *squares);
    struct finding f = {crew, points, squares, out};
    if (!crew_round(crew, n, 1024, square_rows, &f))
        return false;
    bool is_found = n <= exact_points ? crew_run(crew, n, ROWS_A_BLOCK, compare_rows, &f)
                                      : knn_find_approximately(crew, points, squares, seed, out);
    return is_found && crew_round(crew, n, 256, sort_rows, &f);
}

void knn_free(struct knn *knn)
{
    free(knn->index);
    free(knn->distance);
    *knn = (struct knn){0};
}

size_t knn_bytes(size_t points, size_t k, size_t exact_points, int threads)
{
    size_t graph = points * k * (sizeof(uint32_t) + sizeof(float));
    if (points <= exact_points)
        return graph + points * sizeof(float);
    /* A second graph, which links are new, who points to whom; marks of every thread. */
    return 2 * graph + points * k * 2 + points * (k * sizeof(uint32_t) + 40) + (size_t)threads * points * 4;
}
