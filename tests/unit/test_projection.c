#include "tests/support/golden.h"
#include "worker/projection/knn.h"
#include "worker/projection/pca.h"
#include "worker/projection/projection.h"
#include "worker/projection/quadtree.h"
#include "worker/projection/random.h"
#include "worker/projection/trustworthiness.h"
#include "worker/projection/umap.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char GOLDEN[] = "tests/golden/projections.json";

/* ---- points ---- */

static const cJSON *golden_set(const cJSON *golden, const char *name)
{
    const cJSON *set = cJSON_GetObjectItem(cJSON_GetObjectItem(golden, "sets"), name);
    assert_non_null(set);
    return set;
}

static struct matrix golden_points(const cJSON *set)
{
    const cJSON *points = cJSON_GetObjectItem(set, "points"), *row, *value;
    double scale = json_get_real(set, "scale", 1);
    struct matrix m = matrix_new((size_t)cJSON_GetArraySize(points), (size_t)cJSON_GetArraySize(points->child));
    size_t i = 0;
    cJSON_ArrayForEach(row, points)
    {
        size_t j = 0;
        cJSON_ArrayForEach(value, row) matrix_row(&m, i)[j++] = (float)(value->valuedouble / scale);
        i++;
    }
    return m;
}

/* Clouds around `centres` points of chance, of length 1. */
static struct matrix clouds(size_t rows, size_t cols, size_t centres, double width, uint64_t seed)
{
    struct random random = random_seeded(seed);
    struct matrix middle = matrix_new(centres, cols), m = matrix_new(rows, cols);
    for (size_t i = 0; i < centres * cols; i++)
        matrix_row(&middle, i / cols)[i % cols] = (float)random_normal(&random);
    for (size_t i = 0; i < rows; i++) {
        float *row = matrix_row(&m, i);
        double sum = 0;
        for (size_t j = 0; j < cols; j++) {
            row[j] = matrix_row(&middle, i % centres)[j] + (float)(width * random_normal(&random));
            sum += (double)row[j] * (double)row[j];
        }
        for (size_t j = 0; j < cols; j++)
            row[j] /= (float)sqrt(sum);
    }
    matrix_free(&middle);
    return m;
}

static struct projection_options options_of(enum projection_method method)
{
    return (struct projection_options){.method = method,
                                       .seed = 1,
                                       .n_neighbors = 15,
                                       .min_dist = 0.1,
                                       .spread = 1,
                                       .perplexity = 30,
                                       .is_cosine = true};
}

/* The caller frees it. */
static float *projected(struct matrix *points, const struct projection_options *options, int threads,
                        struct projection_figures *figures)
{
    float *positions = calloc(points->rows + 1, 2 * sizeof *positions);
    struct crew *crew = crew_new(threads, NULL, NULL);
    assert_true(projection_compute(crew, points, options, positions, figures));
    crew_free(crew);
    return positions;
}

/* ---- beside the references ---- */

static void principal_components_are_those_of_scikit_learn(void **state)
{
    (void)state;
    scoped(cJSON) *golden = golden_json(GOLDEN);
    const cJSON *set;
    cJSON_ArrayForEach(set, cJSON_GetObjectItem(golden, "sets"))
    {
        scoped_matrix points = golden_points(set);
        struct projection_figures f;
        struct projection_options o = options_of(PROJECTION_PCA);
        scoped_memory float *positions = projected(&points, &o, 2, &f);
        const cJSON *theirs = cJSON_GetObjectItem(set, "pca"), *rows = cJSON_GetObjectItem(theirs, "coordinates");
        for (int axis = 0; axis < 2; axis++) {
            double sign = 0;
            size_t i = 0;
            const cJSON *row;
            cJSON_ArrayForEach(row, rows) /* the sign is free */
                sign += cJSON_GetArrayItem(row, axis)->valuedouble * (double)positions[2 * i++ + (size_t)axis];
            i = 0;
            cJSON_ArrayForEach(row, rows)
            {
                double their = cJSON_GetArrayItem(row, axis)->valuedouble * (sign < 0 ? -1 : 1);
                if (fabs(their - (double)positions[2 * i + (size_t)axis]) > 1e-4)
                    fail_msg("%s: point %zu is at %f, theirs at %f", set->string, i,
                             (double)positions[2 * i + (size_t)axis], their);
                i++;
            }
        }
        assert_true(fabs(f.variance_shown - json_get_real(theirs, "ratio", 0)) < 1e-5);
        assert_true(fabs(f.trustworthiness - json_get_real(theirs, "trustworthiness", 0)) < 1e-4);
    }
}

/* The share of the 15 nearest neighbours that still are among the 15 nearest in the plane. */
static double kept_neighbors(const struct matrix *points, const float *positions)
{
    enum { K = 15 };
    struct crew *crew = crew_new(1, NULL, NULL);
    scoped_matrix shown = matrix_new(points->rows, 2);
    scoped_knn truth = {0}, seen = {0};
    size_t kept = 0;
    for (size_t i = 0; i < points->rows; i++)
        memcpy(matrix_row(&shown, i), positions + 2 * i, 2 * sizeof *positions);
    assert_true(knn_find(crew, points, K, points->rows, 0, &truth));
    assert_true(knn_find(crew, &shown, K, points->rows, 0, &seen));
    crew_free(crew);
    for (size_t i = 0; i < points->rows * K; i++) {
        for (size_t j = 0; j < K; j++)
            kept += truth.index[i] == seen.index[i / K * K + j];
    }
    return (double)kept / (double)(points->rows * K);
}

static void compare_with_reference(const char *name, const char *method)
{
    scoped(cJSON) *golden = golden_json(GOLDEN);
    const cJSON *set = golden_set(golden, name), *theirs = cJSON_GetObjectItem(set, method);
    scoped_matrix points = golden_points(set);
    struct projection_options o = {0};
    struct projection_figures f;
    o = options_of(PROJECTION_UMAP);
    assert_true(projection_method_parse(method, &o.method));
    o.is_cosine = json_get_bool(set, "is_cosine", false);
    scoped_memory float *positions = projected(&points, &o, 2, &f);
    double trust = json_get_real(theirs, "trustworthiness", 0), kept = json_get_real(theirs, "kept", 0);
    if (f.trustworthiness < trust - 0.01)
        fail_msg("%s of %s: trustworthiness %f, theirs %f", method, name, f.trustworthiness, trust);
    if (kept_neighbors(&points, positions) < kept - 0.03)
        fail_msg("%s of %s: %f of the neighbours are kept, of theirs %f", method, name,
                 kept_neighbors(&points, positions), kept);
    if (o.method == PROJECTION_TSNE && f.divergence > json_get_real(theirs, "divergence", 0) * 1.03)
        fail_msg("t-SNE of %s: divergence %f, theirs %f", name, f.divergence, json_get_real(theirs, "divergence", 0));
}

static void umap_is_as_trustworthy_as_umap_learn(void **state)
{
    (void)state;
    compare_with_reference("mixture", "umap");
    compare_with_reference("roll", "umap");
}

static void tsne_is_as_trustworthy_as_scikit_learn(void **state)
{
    (void)state;
    compare_with_reference("mixture", "tsne");
    compare_with_reference("roll", "tsne");
}

static void the_curve_of_umap_is_that_of_umap_learn(void **state)
{
    (void)state;
    scoped(cJSON) *golden = golden_json(GOLDEN);
    const cJSON *row;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(golden, "curves"))
    {
        double value[4], a, b;
        for (int i = 0; i < 4; i++)
            value[i] = cJSON_GetArrayItem(row, i)->valuedouble;
        umap_fit_curve(value[0], value[1], &a, &b);
        if (fabs(a - value[2]) > 1e-3 * value[2] || fabs(b - value[3]) > 1e-3 * value[3])
            fail_msg("min_dist %g, spread %g: %f %f, theirs %f %f", value[0], value[1], a, b, value[2], value[3]);
    }
}

/* ---- the same every time ---- */

static void results_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    scoped_matrix points = clouds(280, 60, 7, 0.6, 3);
    for (int method = 0; method < PROJECTION_METHODS; method++) {
        struct projection_options o = options_of((enum projection_method)method);
        struct projection_figures f, g;
        scoped_memory float *one = projected(&points, &o, 1, &f);
        scoped_memory float *many = projected(&points, &o, 3, &g);
        assert_memory_equal(one, many, points.rows * 2 * sizeof *one);
        assert_memory_equal(&f.trustworthiness, &g.trustworthiness, sizeof f.trustworthiness);
    }
}

static void approximate_neighbours_do_not_depend_on_the_number_of_threads_and_are_nearly_all_right(void **state)
{
    (void)state;
    enum { K = 14 };
    scoped_matrix points = clouds(3000, 32, 40, 0.7, 4);
    scoped_knn exact = {0}, one = {0}, many = {0};
    struct crew *alone = crew_new(1, NULL, NULL), *three = crew_new(3, NULL, NULL);
    assert_true(knn_find(alone, &points, K, points.rows, 1, &exact));
    assert_true(knn_find(alone, &points, K, 0, 1, &one));
    assert_true(knn_find(three, &points, K, 0, 1, &many));
    crew_free(alone);
    crew_free(three);
    assert_memory_equal(one.index, many.index, points.rows * K * sizeof *one.index);
    size_t right = 0;
    for (size_t i = 0; i < points.rows * K; i++) {
        for (size_t j = 0; j < K; j++)
            right += one.index[i] == exact.index[i / K * K + j];
        assert_true(i % K == 0 || one.distance[i] >= one.distance[i - 1]);
    }
    if ((double)right < 0.97 * (double)(points.rows * K))
        fail_msg("%zu of %zu neighbours were found", right, points.rows * K);
}

static void arithmetic_is_the_same_with_every_set_of_instructions(void **state)
{
    (void)state;
    struct random random = random_seeded(5);
    float a[64], b[5 * 64], out[5];
    for (size_t i = 0; i < array_len(a); i++)
        a[i] = (float)random_normal(&random);
    for (size_t i = 0; i < array_len(b); i++)
        b[i] = (float)random_normal(&random);
    matrix_dots(a, b, 64, 5, 64, out);
    for (size_t row = 0; row < 5; row++) {
        float lanes[16] = {0}; /* what matrix.h says: sixteen lanes, then halved */
        for (size_t k = 0; k < 64; k++) {
            volatile float product = a[k] * b[row * 64 + k]; /* not fused */
            lanes[k % 16] += product;
        }
        for (int half = 8; half > 0; half /= 2) {
            for (int i = 0; i < half; i++)
                lanes[i] += lanes[i + half];
        }
        assert_memory_equal(&lanes[0], &out[row], sizeof out[row]);
    }
}

/* ---- odd inputs ---- */

static void assert_finite(const float *positions, size_t points)
{
    for (size_t i = 0; i < 2 * points; i++)
        assert_true(isfinite(positions[i]) && fabsf(positions[i]) < 1e6f);
}

static void every_number_of_points_has_a_projection(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 20; n += n < 8 ? 1 : 4) {
        scoped_matrix points = clouds(n, 8, 3, 0.5, 6);
        for (int method = 0; method < PROJECTION_METHODS; method++) {
            struct projection_options o = options_of((enum projection_method)method);
            struct projection_figures f;
            scoped_memory float *positions = projected(&points, &o, 2, &f);
            assert_finite(positions, n);
            assert_true(n < 4 ? isnan(f.trustworthiness) : f.trustworthiness <= 1);
        }
    }
}

static void equal_points_and_points_of_one_dimension_are_projected(void **state)
{
    (void)state;
    scoped_matrix equal = matrix_new(100, 16), nothing = matrix_new(50, 4), line = matrix_new(60, 1);
    for (size_t i = 0; i < 100; i++)
        matrix_row(&equal, i)[3] = 1;
    for (size_t i = 0; i < 60; i++)
        matrix_row(&line, i)[0] = (float)i;
    struct matrix *all[] = {&equal, &nothing, &line};
    for (size_t a = 0; a < array_len(all); a++) {
        for (int method = 0; method < PROJECTION_METHODS; method++) {
            struct projection_options o = options_of((enum projection_method)method);
            struct projection_figures f;
            scoped_memory float *positions = projected(all[a], &o, 2, &f);
            assert_finite(positions, all[a]->rows);
        }
    }
}

static void duplicates_lie_together(void **state)
{
    (void)state;
    scoped_matrix points = clouds(200, 16, 200, 0, 7);
    for (size_t i = 100; i < 200; i++)
        memcpy(matrix_row(&points, i), matrix_row(&points, i - 100), 16 * sizeof(float));
    struct projection_options o = options_of(PROJECTION_TSNE);
    struct projection_figures f;
    scoped_memory float *positions = projected(&points, &o, 2, &f);
    assert_finite(positions, 200);
    double twins = 0, others = 0;
    for (size_t i = 0; i < 100; i++) {
        const float *p = positions + 2 * i, *twin = p + 200, *other = positions + 2 * ((i + 50) % 100);
        twins += (double)hypotf(p[0] - twin[0], p[1] - twin[1]);
        others += (double)hypotf(p[0] - other[0], p[1] - other[1]);
    }
    assert_true(twins < others / 5);
}

static void damaged_vectors_do_not_take_the_others_with_them(void **state)
{
    (void)state;
    scoped_matrix points = clouds(120, 16, 4, 0.3, 8);
    matrix_row(&points, 5)[2] = NAN;
    matrix_row(&points, 6)[0] = INFINITY;
    matrix_row(&points, 7)[1] = -INFINITY;
    for (int method = 0; method < PROJECTION_METHODS; method++) {
        struct projection_options o = options_of((enum projection_method)method);
        struct projection_figures f;
        scoped_memory float *positions = projected(&points, &o, 2, &f);
        assert_finite(positions, 120);
        assert_true(method == PROJECTION_PCA || f.trustworthiness > 0.8);
    }
}

static void more_neighbours_than_points_are_made_to_fit(void **state)
{
    (void)state;
    scoped_matrix points = clouds(12, 16, 3, 0.3, 9);
    struct projection_options umap = options_of(PROJECTION_UMAP), tsne = options_of(PROJECTION_TSNE);
    struct projection_figures f;
    umap.n_neighbors = 200;
    tsne.perplexity = 100;
    scoped_memory float *by_umap = projected(&points, &umap, 2, &f);
    assert_int_equal(f.neighbors, 12);
    scoped_memory float *by_tsne = projected(&points, &tsne, 2, &f);
    assert_int_equal(f.neighbors, 11);
    assert_true(fabs(f.perplexity - 11.0 / 3) < 1e-9);
    assert_finite(by_umap, 12);
    assert_finite(by_tsne, 12);
}

/* ---- stopping ---- */

struct watched {
    int calls, stop_at;
    double last;
    bool went_back;
};

static bool count_and_stop(void *context, const char *stage, double fraction)
{
    struct watched *w = context;
    assert_true(*stage && fraction >= 0 && fraction <= 1);
    w->went_back = w->went_back || fraction < w->last - 1e-9;
    w->last = fraction;
    return ++w->calls == w->stop_at;
}

static void a_computation_stops_when_told_to(void **state)
{
    (void)state;
    scoped_matrix points = clouds(3000, 64, 30, 0.6, 10);
    scoped_memory float *positions = calloc(points.rows, 2 * sizeof *positions);
    for (int at = 1; at <= 3; at += 2) {
        struct watched w = {.stop_at = at};
        struct projection_options o = options_of(PROJECTION_TSNE);
        struct projection_figures f;
        struct crew *crew = crew_new(2, count_and_stop, &w);
        assert_false(projection_compute(crew, &points, &o, positions, &f));
        crew_free(crew);
        assert_int_equal(w.calls, at);
        assert_false(w.went_back);
    }
}

/* ---- parts ---- */

static void the_tree_of_cells_adds_up_to_what_all_pairs_do(void **state)
{
    (void)state;
    enum { N = 500 };
    struct random random = random_seeded(11);
    float p[2 * N];
    for (size_t i = 0; i < 2 * N; i++)
        p[i] = (float)(10 * random_normal(&random));
    struct quadtree *tree = quadtree_new(N);
    quadtree_build(tree, p, N);
    for (size_t place = 0; place < N; place++) {
        size_t i = quadtree_order(tree)[place];
        double fx = 0, fy = 0, sum = 0;
        float exact[2], near[2];
        for (size_t j = 0; j < N; j++) {
            double dx = (double)p[2 * i] - (double)p[2 * j], dy = (double)p[2 * i + 1] - (double)p[2 * j + 1];
            double q = i == j ? 0 : 1 / (1 + dx * dx + dy * dy);
            sum += q;
            fx += q * q * dx;
            fy += q * q * dy;
        }
        assert_true(fabs(quadtree_repulsion(tree, place, 0, exact) - sum) < 1e-4 * sum);
        assert_true(fabs((double)exact[0] - fx) + fabs((double)exact[1] - fy) < 1e-4 * (fabs(fx) + fabs(fy)) + 1e-5);
        assert_true(fabs(quadtree_repulsion(tree, place, 0.5f, near) - sum) < 0.02 * sum);
    }
    quadtree_free(tree);
}

static void points_that_fall_together_do_not_take_the_tree_for_ever(void **state)
{
    (void)state;
    enum { N = 20000 };
    scoped_memory float *p = calloc(2 * N, sizeof *p);
    p[0] = 1e6f;
    struct quadtree *tree = quadtree_new(N);
    quadtree_build(tree, p, N);
    for (size_t place = 0; place < N; place++) {
        float force[2];
        assert_true(isfinite(quadtree_repulsion(tree, place, 0.5f, force)));
    }
    quadtree_free(tree);
}

static void trustworthiness_of_a_true_picture_is_one_and_of_chance_about_a_half(void **state)
{
    (void)state;
    enum { N = 400 };
    struct random random = random_seeded(12);
    struct crew *crew = crew_new(2, NULL, NULL);
    scoped_matrix points = matrix_new(N, 2);
    scoped_memory float *same = calloc(N, 2 * sizeof *same), *other = calloc(N, 2 * sizeof *other);
    for (size_t i = 0; i < 2 * N; i++) {
        same[i] = matrix_row(&points, i / 2)[i % 2] = (float)random_unit(&random);
        other[i] = (float)random_unit(&random);
    }
    double true_one, by_chance, sampled;
    assert_true(trustworthiness(crew, &points, same, 15, N, 1, &true_one));
    assert_true(trustworthiness(crew, &points, other, 15, N, 1, &by_chance));
    assert_true(trustworthiness(crew, &points, other, 15, 200, 1, &sampled));
    crew_free(crew);
    assert_true(true_one > 0.999999);
    assert_true(fabs(by_chance - 0.5) < 0.05 && fabs(sampled - by_chance) < 0.05);
}

static void the_estimate_of_memory_grows_with_what_is_asked_for(void **state)
{
    (void)state;
    struct projection_options o = options_of(PROJECTION_TSNE);
    size_t small = projection_bytes(1000, 384, &o, 2), large = projection_bytes(200000, 384, &o, 2);
    assert_true(small > 1000 * 384 * 4 && large > 200000ul * 384 * 4 && large < 2000000000);
    o.perplexity = 60;
    assert_true(projection_bytes(200000, 384, &o, 2) > large);
    assert_true(projection_bytes(0, 384, &o, 2) > 0);
}

#define test(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(principal_components_are_those_of_scikit_learn),
        test(umap_is_as_trustworthy_as_umap_learn),
        test(tsne_is_as_trustworthy_as_scikit_learn),
        test(the_curve_of_umap_is_that_of_umap_learn),
        test(results_do_not_depend_on_the_number_of_threads),
        test(approximate_neighbours_do_not_depend_on_the_number_of_threads_and_are_nearly_all_right),
        test(arithmetic_is_the_same_with_every_set_of_instructions),
        test(every_number_of_points_has_a_projection),
        test(equal_points_and_points_of_one_dimension_are_projected),
        test(duplicates_lie_together),
        test(damaged_vectors_do_not_take_the_others_with_them),
        test(more_neighbours_than_points_are_made_to_fit),
        test(a_computation_stops_when_told_to),
        test(the_tree_of_cells_adds_up_to_what_all_pairs_do),
        test(points_that_fall_together_do_not_take_the_tree_for_ever),
        test(trustworthiness_of_a_true_picture_is_one_and_of_chance_about_a_half),
        test(the_estimate_of_memory_grows_with_what_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
