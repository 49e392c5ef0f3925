/* Random projection trees, then rounds of looking at the neighbours of neighbours. Every step reads what the step
 * before left and writes rows of its own, so threads do not see each other's work. */
#include "common/arena.h"
#include "worker/projection/knn.h"
#include "worker/projection/random.h"

#include <string.h>

enum {
    TREES = 8,
    LEAF = 128, /* points that are compared with each other */
    MOST_ROUNDS = 6,
    MOST_DEPTH = 60,
    MOST_LINKS = 32, /* of one point that a round follows, in either direction */
};
static const double LITTLE = 0.002; /* share of the links whose change ends the search */

struct search {
    struct crew *crew;
    const struct matrix *points;
    const float *squares;
    struct knn *graph;
    uint64_t seed;

    /* Of the trees: a permutation of the points and where its leaves begin. */
    struct tree {
        uint32_t *order, *leaves;
        size_t leaf_count;
    } trees[TREES];
    size_t tree;

    /* Of a round. */
    uint32_t *counts;      /* [n] how many of the graph's row are filled */
    struct knn next;       /* the graph that the round writes */
    uint8_t *is_new;       /* [n][k] the link is of the last round */
    uint8_t *next_is_new;  /* … of this one */
    uint32_t *back_starts; /* [n + 1] who points to a point */
    uint32_t *back;        /* each with its top bit: the link is new */
    uint32_t *marks;       /* [threads][n] who was looked at for which point */
    size_t *changes;       /* [threads] */
};
static const uint32_t NEW = 1u << 31;

/* ---- trees ---- */

/* Puts those on one side of the plane between two points chosen by chance before the others; returns how many. Equal
 * points are on no side: they are cut in the middle. */
static size_t split(struct search *s, uint32_t *order, size_t count, struct random *random, float *plane, int thread)
{
    const struct matrix *m = s->points;
    const uint32_t p = order[random_below(random, (uint32_t)count)], q = order[random_below(random, (uint32_t)count)];
    const float *a = matrix_row(m, p), *b = matrix_row(m, q);
    for (size_t i = 0; i < m->stride; i++)
        plane[i] = a[i] - b[i];
    float offset = (s->squares[p] - s->squares[q]) / 2;
    size_t before = 0;
    for (size_t i = 0; i < count; i++) {
        float along;
        if (i % 1024 == 0 && crew_poll(s->crew, thread))
            break;
        matrix_dots(plane, matrix_row(m, order[i]), 0, 1, m->stride, &along);
        if (along > offset) {
            uint32_t moved = order[i];
            order[i] = order[before];
            order[before++] = moved;
        }
    }
    /* A sliver would make the tree deep and tell nothing. */
    return before < count / 32 + 1 || count - before < count / 32 + 1 ? count / 2 : before;
}

static void grow_tree(struct search *s, struct tree *tree, uint64_t seed, int thread)
{
    size_t n = s->points->rows, depth = 0;
    struct random random = random_seeded(seed);
    scoped_memory float *plane = must_calloc(s->points->stride + 1, sizeof *plane);
    struct range {
        size_t from, to;
    } stack[MOST_DEPTH * 4];
    for (size_t i = 0; i < n; i++)
        tree->order[i] = (uint32_t)i;
    stack[depth++] = (struct range){0, n};
    while (depth > 0) {
        struct range r = stack[--depth];
        if (r.to - r.from <= LEAF || depth + 2 > array_len(stack)) {
            tree->leaves[tree->leaf_count++] = (uint32_t)r.from;
            continue;
        }
        size_t before = split(s, tree->order + r.from, r.to - r.from, &random, plane, thread);
        if (crew_is_stopped(s->crew))
            return;
        stack[depth++] = (struct range){r.from + before, r.to};
        stack[depth++] = (struct range){r.from, r.from + before};
    }
    tree->leaves[tree->leaf_count] = (uint32_t)n;
}

static void grow_trees(void *context, size_t from, size_t to, int thread)
{
    struct search *s = context;
    for (size_t t = from; t < to; t++)
        grow_tree(s, &s->trees[t], s->seed * TREES + t, thread);
}

static struct knn_heap heap_of(const struct search *s, size_t point)
{
    return (struct knn_heap){s->graph->index + point * s->graph->k, s->graph->distance + point * s->graph->k,
                             s->counts[point], s->graph->k};
}

/* All points of a leaf with each other. */
static void compare_leaf(struct search *s, const uint32_t *members, size_t count, float *rows, bool is_first)
{
    const struct matrix *m = s->points;
    float dots[LEAF];
    for (size_t i = 0; i < count; i++)
        memcpy(rows + i * m->stride, matrix_row(m, members[i]), m->stride * sizeof *rows);
    for (size_t i = 0; i < count; i++) {
        struct knn_heap heap = heap_of(s, members[i]);
        matrix_dots(rows + i * m->stride, rows, m->stride, count, m->stride, dots);
        for (size_t j = 0; j < count; j++) {
            float distance = s->squares[members[i]] + s->squares[members[j]] - 2 * dots[j];
            if (j != i)
                (void)knn_offer(&heap, members[j], distance, !is_first);
        }
        s->counts[members[i]] = (uint32_t)heap.count;
    }
}

static void compare_leaves(void *context, size_t from, size_t to, int thread)
{
    struct search *s = context;
    const struct tree *tree = &s->trees[s->tree];
    scoped_memory float *rows = must_malloc(LEAF * s->points->stride * sizeof *rows + 1);
    (void)thread;
    for (size_t leaf = from; leaf < to; leaf++) {
        uint32_t first = tree->leaves[leaf], count = tree->leaves[leaf + 1] - first;
        /* A leaf that could not be split further is compared piece by piece. */
        for (uint32_t at = 0; at < count; at += LEAF)
            compare_leaf(s, tree->order + first + at, count - at < LEAF ? count - at : LEAF, rows, s->tree == 0);
    }
}

/* ---- rounds ---- */

/* Who points to whom: at most MOST_LINKS for each, by the order of those that point. */
static void turn_links_round(struct search *s)
{
    size_t n = s->points->rows, k = s->graph->k;
    memset(s->back_starts, 0, (n + 1) * sizeof *s->back_starts);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < s->counts[i]; j++)
            s->back_starts[s->graph->index[i * k + j] + 1]++;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t count = s->back_starts[i + 1] < MOST_LINKS ? s->back_starts[i + 1] : MOST_LINKS;
        s->back_starts[i + 1] = s->back_starts[i] + count;
    }
    scoped_memory uint32_t *filled = must_calloc(n + 1, sizeof *filled);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < s->counts[i]; j++) {
            uint32_t to = s->graph->index[i * k + j], at = s->back_starts[to] + filled[to];
            if (at < s->back_starts[to + 1]) {
                s->back[at] = (uint32_t)i | (s->is_new[i * k + j] ? NEW : 0);
                filled[to]++;
            }
        }
    }
}

struct looking {
    struct search *s;
    struct knn_heap heap;
    const float *row;
    float square;
    uint32_t point, *marks;
};

static void look_at(struct looking *l, uint32_t candidate)
{
    const struct matrix *m = l->s->points;
    if (candidate == l->point || l->marks[candidate] == l->point + 1)
        return;
    l->marks[candidate] = l->point + 1;
    float dot;
    matrix_dots(l->row, matrix_row(m, candidate), 0, 1, m->stride, &dot);
    (void)knn_offer(&l->heap, candidate, l->square + l->s->squares[candidate] - 2 * dot, false);
}

/* The nearer ones stand at the end of a heap. */
static size_t first_followed(const struct search *s, uint32_t point)
{
    return s->counts[point] > MOST_LINKS ? s->counts[point] - MOST_LINKS : 0;
}

/* The neighbours of `via`, either way, unless both links were there in the round before: that was looked at then. */
static void look_beyond(struct looking *l, uint32_t via, bool is_new)
{
    const struct search *s = l->s;
    size_t k = s->graph->k;
    for (size_t j = first_followed(s, via); j < s->counts[via]; j++) {
        if (is_new || s->is_new[via * k + j])
            look_at(l, s->graph->index[via * k + j]);
    }
    for (uint32_t j = s->back_starts[via]; j < s->back_starts[via + 1]; j++) {
        if (is_new || (s->back[j] & NEW))
            look_at(l, s->back[j] & ~NEW);
    }
}

static void look_from(struct search *s, uint32_t point, int thread)
{
    size_t k = s->graph->k, n = s->points->rows;
    const uint32_t *mine = s->graph->index + point * k;
    struct looking l = {s,
                        {s->next.index + point * k, s->next.distance + point * k, s->counts[point], k},
                        matrix_row(s->points, point),
                        s->squares[point],
                        point,
                        s->marks + (size_t)thread * n};
    memcpy(l.heap.index, mine, k * sizeof *mine);
    memcpy(l.heap.distance, s->graph->distance + point * k, k * sizeof(float));
    for (size_t j = 0; j < s->counts[point]; j++)
        l.marks[mine[j]] = point + 1;
    for (size_t j = first_followed(s, point); j < s->counts[point]; j++)
        look_beyond(&l, mine[j], s->is_new[point * k + j]);
    for (uint32_t j = s->back_starts[point]; j < s->back_starts[point + 1]; j++) {
        if (s->back[j] & NEW)
            look_at(&l, s->back[j] & ~NEW);
        look_beyond(&l, s->back[j] & ~NEW, s->back[j] & NEW);
    }
    /* What was there before is old now. The marks of a link that was there say so: index + 1 is no mark of others. */
    for (size_t j = 0; j < s->counts[point]; j++)
        l.marks[mine[j]] = 0;
    for (size_t j = 0; j < l.heap.count; j++) {
        bool is_new = l.marks[l.heap.index[j]] == point + 1;
        s->next_is_new[point * k + j] = is_new;
        s->changes[thread] += is_new;
    }
}

static void look_around(void *context, size_t from, size_t to, int thread)
{
    for (size_t i = from; i < to; i++)
        look_from(context, (uint32_t)i, thread);
}

/* Heaps in which a point has fewer than k after all trees (leaves smaller than k) are filled up by the next points. */
static void fill_up(struct search *s)
{
    size_t n = s->points->rows;
    for (size_t i = 0; i < n; i++) {
        struct knn_heap heap = heap_of(s, i);
        for (size_t step = 1; heap.count < heap.k; step++) {
            size_t other = (i + step) % n;
            (void)knn_offer(&heap, (uint32_t)other,
                            matrix_distance2(matrix_row(s->points, i), matrix_row(s->points, other), s->points->stride),
                            true);
        }
        s->counts[i] = (uint32_t)heap.count;
    }
}

static void take_next(struct search *s)
{
    struct knn graph = *s->graph;
    s->graph->index = s->next.index;
    s->graph->distance = s->next.distance;
    s->next.index = graph.index;
    s->next.distance = graph.distance;
    uint8_t *is_new = s->is_new;
    s->is_new = s->next_is_new;
    s->next_is_new = is_new;
}

static bool look_until_quiet(struct search *s)
{
    size_t n = s->points->rows, k = s->graph->k;
    for (int round = 0; round < MOST_ROUNDS; round++) {
        turn_links_round(s);
        memset(s->marks, 0, (size_t)crew_threads(s->crew) * n * sizeof *s->marks);
        memset(s->changes, 0, (size_t)crew_threads(s->crew) * sizeof *s->changes);
        if (!crew_round(s->crew, n, 64, look_around, s) || crew_report(s->crew, 0.5 + 0.5 * (round + 1) / MOST_ROUNDS))
            return false;
        take_next(s);
        size_t changes = 0;
        for (int t = 0; t < crew_threads(s->crew); t++)
            changes += s->changes[t];
        if ((double)changes < LITTLE * (double)n * (double)k)
            break;
    }
    return true;
}

static bool plant(struct search *s)
{
    size_t n = s->points->rows;
    for (size_t t = 0; t < TREES; t++) {
        s->trees[t].order = must_calloc(n, sizeof(uint32_t));
        s->trees[t].leaves = must_calloc(n + 1, sizeof(uint32_t));
    }
    bool is_done = crew_round(s->crew, TREES, 1, grow_trees, s);
    for (s->tree = 0; is_done && s->tree < TREES; s->tree++) {
        is_done = crew_round(s->crew, s->trees[s->tree].leaf_count, 4, compare_leaves, s) &&
                  !crew_report(s->crew, 0.1 + 0.4 * (double)s->tree / TREES);
    }
    for (size_t t = 0; t < TREES; t++) {
        free(s->trees[t].order);
        free(s->trees[t].leaves);
    }
    return is_done;
}

bool knn_find_approximately(struct crew *crew, const struct matrix *points, const float *squares, uint64_t seed,
                            struct knn *out)
{
    size_t n = points->rows, k = out->k;
    struct search s = {.crew = crew, .points = points, .squares = squares, .graph = out, .seed = seed};
    s.counts = must_calloc(n, sizeof *s.counts);
    bool is_done = plant(&s);
    if (is_done) {
        fill_up(&s);
        s.next = (struct knn){.index = must_calloc(n * k, sizeof *s.next.index),
                              .distance = must_calloc(n * k, sizeof *s.next.distance)};
        s.is_new = must_malloc(n * k);
        s.next_is_new = must_calloc(n, k);
        memset(s.is_new, 1, n * k);
        s.back_starts = must_calloc(n + 1, sizeof *s.back_starts);
        s.back = must_calloc(n * (k < MOST_LINKS ? k : MOST_LINKS) + 1, sizeof *s.back);
        s.marks = must_calloc((size_t)crew_threads(crew) * n, sizeof *s.marks);
        s.changes = must_calloc((size_t)crew_threads(crew), sizeof *s.changes);
        is_done = look_until_quiet(&s);
    }
    knn_free(&s.next);
    free(s.is_new);
    free(s.next_is_new);
    free(s.back_starts);
    free(s.back);
    free(s.marks);
    free(s.changes);
    free(s.counts);
    return is_done;
}
