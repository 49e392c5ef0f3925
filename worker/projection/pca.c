#include "worker/projection/pca.h"

#include "common/arena.h"
#include "worker/projection/random.h"

#include <math.h>
#include <string.h>

enum {
    PANEL = 256,     /* points that are added to the covariance at a time; a multiple of 16 */
    OVERSAMPLED = 8, /* directions that are followed beside those wanted: what they take up converges faster */
    MOST_ROUNDS = 300,
    ROUNDS_A_TURN = 3, /* products with the matrix between two looks at how far it is */
    MOST_SWEEPS = 60,
};
static const double GOOD_ENOUGH = 1e-12; /* change of the wanted eigenvalues in a turn, in units of the largest */

typedef double lanes __attribute__((vector_size(64), aligned(8)));

/* In eight lanes, so that it is quick and the same everywhere. */
static double dot(const double *a, const double *b, size_t len)
{
    lanes sums = {0};
    double s = 0;
    size_t i = 0;
    for (; i + 8 <= len; i += 8)
        sums += *(const lanes *)(a + i) * *(const lanes *)(b + i);
    for (; i < len; i++)
        s += a[i] * b[i];
    for (int lane = 0; lane < 8; lane++)
        s += sums[lane];
    return s;
}

struct covariance {
    struct crew *crew;
    const struct matrix *points;
    double *mean;    /* [dim] */
    float *panel;    /* [dim][PANEL], the points less their mean, turned round */
    double *c;       /* [dim][dim] */
    double *basis;   /* [width][dim] */
    double *product; /* [width][dim] */
    size_t dim, width, first;
};

static void add_means(void *context, size_t from, size_t to, int thread)
{
    struct covariance *v = context;
    for (size_t row = 0; row < v->points->rows; row++) {
        if (row % 4096 == 0 && crew_poll(v->crew, thread))
            return;
        const float *p = matrix_row(v->points, row);
        for (size_t i = from; i < to; i++)
            v->mean[i] += p[i];
    }
    for (size_t i = from; i < to; i++)
        v->mean[i] /= (double)v->points->rows;
}

static void turn_panel(struct covariance *v)
{
    for (size_t k = 0; k < PANEL; k++) {
        size_t row = v->first + k;
        const float *p = row < v->points->rows ? matrix_row(v->points, row) : NULL;
        for (size_t i = 0; i < v->dim; i++)
            v->panel[i * PANEL + k] = p ? (float)((double)p[i] - v->mean[i]) : 0;
    }
}

static void add_panel(void *context, size_t from, size_t to, int thread)
{
    struct covariance *v = context;
    float dots[64];
    (void)thread;
    for (size_t i = from; i < to; i++) {
        for (size_t j = 0; j <= i; j += array_len(dots)) {
            size_t count = i + 1 - j < array_len(dots) ? i + 1 - j : array_len(dots);
            matrix_dots(v->panel + i * PANEL, v->panel + j * PANEL, PANEL, count, PANEL, dots);
            for (size_t k = 0; k < count; k++)
                v->c[i * v->dim + j + k] += dots[k];
        }
    }
}

static bool sum_up(struct covariance *v)
{
    if (!crew_round(v->crew, v->dim, 64, add_means, v))
        return false;
    for (v->first = 0; v->first < v->points->rows; v->first += PANEL) {
        turn_panel(v);
        if (!crew_round(v->crew, v->dim, 16, add_panel, v) ||
            crew_report(v->crew, 0.7 * (double)v->first / (double)v->points->rows))
            return false;
    }
    for (size_t i = 0; i < v->dim; i++) {
        for (size_t j = 0; j < i; j++)
            v->c[j * v->dim + i] = v->c[i * v->dim + j];
    }
    return true;
}

/* product = basis · c */
static void multiply(void *context, size_t from, size_t to, int thread)
{
    struct covariance *v = context;
    (void)thread;
    for (size_t i = from; i < to; i++) {
        for (size_t w = 0; w < v->width; w++)
            v->product[w * v->dim + i] = dot(v->c + i * v->dim, v->basis + w * v->dim, v->dim);
    }
}

/* Modified Gram-Schmidt, each vector twice; one that depends on those before it becomes zero. */
static void make_orthonormal(double *basis, size_t width, size_t dim)
{
    for (size_t w = 0; w < width; w++) {
        double *b = basis + w * dim;
        double before = sqrt(dot(b, b, dim));
        for (int pass = 0; pass < 2; pass++) {
            for (size_t u = 0; u < w; u++) {
                double along = dot(b, basis + u * dim, dim);
                for (size_t i = 0; i < dim; i++)
                    b[i] -= along * basis[u * dim + i];
            }
        }
        double length = sqrt(dot(b, b, dim));
        double factor = length > 1e-12 * before && length > 0 ? 1 / length : 0;
        for (size_t i = 0; i < dim; i++)
            b[i] *= factor;
    }
}

/* One plane rotation that makes a[p][q] zero. */
static void rotate(double *a, double *vectors, size_t n, size_t p, size_t q)
{
    double theta = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
    double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (size_t k = 0; k < n; k++) {
        double x = a[k * n + p], y = a[k * n + q];
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for (size_t k = 0; k < n; k++) {
        double x = a[p * n + k], y = a[q * n + k];
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
        x = vectors[p * n + k];
        y = vectors[q * n + k];
        vectors[p * n + k] = c * x - s * y;
        vectors[q * n + k] = s * x + c * y;
    }
}

/* Eigenvectors (rows of `vectors`) of a small symmetric matrix, largest eigenvalue first, by Jacobi's method. */
static void diagonalise(double *a, double *vectors, double *values, size_t n)
{
    memset(vectors, 0, n * n * sizeof *vectors);
    for (size_t i = 0; i < n; i++)
        vectors[i * n + i] = 1;
    for (int sweep = 0; sweep < MOST_SWEEPS; sweep++) {
        double off = 0, on = 0;
        for (size_t p = 0; p < n; p++) {
            on += a[p * n + p] * a[p * n + p];
            for (size_t q = p + 1; q < n; q++)
                off += a[p * n + q] * a[p * n + q];
        }
        if (off <= 1e-28 * on)
            break;
        for (size_t p = 0; p < n; p++) {
            for (size_t q = p + 1; q < n; q++) {
                if (a[p * n + q] * a[p * n + q] > 1e-32 * on)
                    rotate(a, vectors, n, p, q);
            }
        }
    }
    for (size_t i = 0; i < n; i++)
        values[i] = a[i * n + i];
    for (size_t i = 0; i < n; i++) {
        size_t best = i;
        for (size_t j = i + 1; j < n; j++)
            best = values[j] > values[best] ? j : best;
        double value = values[i];
        values[i] = values[best];
        values[best] = value;
        for (size_t k = 0; best != i && k < n; k++) {
            double x = vectors[i * n + k];
            vectors[i * n + k] = vectors[best * n + k];
            vectors[best * n + k] = x;
        }
    }
}

/* Turns the basis, of which `product` is the image, into approximations of the eigenvectors. */
static void take_ritz_vectors(struct covariance *v, double *small, double *vectors, double *values)
{
    size_t n = v->width, dim = v->dim;
    for (size_t p = 0; p < n; p++) {
        for (size_t q = 0; q <= p; q++)
            small[p * n + q] = small[q * n + p] = dot(v->basis + p * dim, v->product + q * dim, dim);
    }
    diagonalise(small, vectors, values, n);
    scoped_memory double *turned = must_calloc(n * dim, sizeof *turned);
    for (size_t p = 0; p < n; p++) {
        for (size_t q = 0; q < n; q++) {
            double weight = vectors[p * n + q];
            for (size_t i = 0; i < dim; i++)
                turned[p * dim + i] += weight * v->basis[q * dim + i];
        }
    }
    memcpy(v->basis, turned, n * dim * sizeof *turned);
}

/* The eigenvectors of the `wanted` largest eigenvalues in the first rows of v->basis. */
static bool find_directions(struct covariance *v, size_t wanted, uint64_t seed, double *values)
{
    struct random random = random_seeded(seed);
    size_t n = v->width;
    scoped_memory double *small = must_calloc(n * n, sizeof *small);
    scoped_memory double *vectors = must_calloc(n * n, sizeof *vectors);
    for (size_t i = 0; i < n * v->dim; i++)
        v->basis[i] = random_normal(&random);
    make_orthonormal(v->basis, n, v->dim);
    scoped_memory double *before = must_calloc(n, sizeof *before);
    for (int round = 1;; round++) {
        if (!crew_round(v->crew, v->dim, 16, multiply, v) || crew_report(v->crew, 0.7 + 0.25 * round / MOST_ROUNDS))
            return false;
        if (round % ROUNDS_A_TURN == 0) {
            take_ritz_vectors(v, small, vectors, values);
            double change = 0;
            for (size_t i = 0; i < wanted; i++)
                change = fmax(change, fabs(values[i] - before[i]));
            if (change <= GOOD_ENOUGH * fabs(values[0]) || round >= MOST_ROUNDS)
                return true;
            memcpy(before, values, n * sizeof *before);
            if (!crew_round(v->crew, v->dim, 16, multiply, v))
                return false;
        }
        double *swapped = v->basis;
        v->basis = v->product;
        v->product = swapped;
        make_orthonormal(v->basis, n, v->dim);
    }
}

static void fix_signs(double *basis, size_t width, size_t dim)
{
    for (size_t w = 0; w < width; w++) {
        double *b = basis + w * dim, largest = 0;
        for (size_t i = 0; i < dim; i++)
            largest = fabs(b[i]) > fabs(largest) ? b[i] : largest;
        for (size_t i = 0; largest < 0 && i < dim; i++)
            b[i] = -b[i];
    }
}

struct projecting {
    const struct covariance *v;
    struct matrix *out;
    size_t count;
};

static void project_rows(void *context, size_t from, size_t to, int thread)
{
    struct projecting *p = context;
    scoped_memory double *wide = must_malloc(p->v->dim * sizeof *wide + 1);
    (void)thread;
    for (size_t row = from; row < to; row++) {
        const float *x = matrix_row(p->v->points, row);
        float *y = matrix_row(p->out, row);
        for (size_t i = 0; i < p->v->dim; i++)
            wide[i] = (double)x[i] - p->v->mean[i];
        for (size_t w = 0; w < p->count; w++)
            y[w] = (float)dot(wide, p->v->basis + w * p->v->dim, p->v->dim);
    }
}

static bool project(struct covariance *v, size_t count, struct matrix *out)
{
    return crew_round(v->crew, v->points->rows, 512, project_rows, &(struct projecting){v, out, count});
}

size_t pca_bytes(size_t rows, size_t cols, size_t components)
{
    size_t width = components + OVERSAMPLED;
    return cols * cols * sizeof(double) + cols * (PANEL * sizeof(float) + 3 * width * sizeof(double)) +
           matrix_bytes(rows, components);
}

bool pca_project(struct crew *crew, const struct matrix *points, size_t components, uint64_t seed, struct matrix *out,
                 double *ratios)
{
    size_t dim = points->cols;
    *out = matrix_new(points->rows, components);
    for (size_t i = 0; ratios && i < components; i++)
        ratios[i] = 0;
    if (points->rows < 2 || dim == 0)
        return true;
    size_t wanted = components < dim ? components : dim;
    size_t width = wanted + OVERSAMPLED < dim ? wanted + OVERSAMPLED : dim;
    scoped_memory double *mean = must_calloc(dim, sizeof *mean);
    scoped_memory float *panel = must_calloc(dim * PANEL, sizeof *panel);
    scoped_memory double *c = must_calloc(dim * dim, sizeof *c);
    scoped_memory double *room = must_calloc(2 * width * dim, sizeof *room);
    scoped_memory double *values = must_calloc(width, sizeof *values);
    struct covariance v = {.crew = crew,
                           .points = points,
                           .mean = mean,
                           .panel = panel,
                           .c = c,
                           .basis = room,
                           .product = room + width * dim,
                           .dim = dim,
                           .width = width};
    if (!sum_up(&v) || !find_directions(&v, wanted, seed, values))
        return false;
    fix_signs(v.basis, wanted, dim);
    double trace = 0;
    for (size_t i = 0; i < dim; i++)
        trace += c[i * dim + i];
    for (size_t i = 0; ratios && i < wanted; i++)
        ratios[i] = trace > 0 && values[i] > 0 ? values[i] / trace : 0;
    return project(&v, wanted, out);
}
