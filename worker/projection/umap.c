#include "worker/projection/umap.h"

#include "common/arena.h"
#include "worker/projection/random.h"

#include <math.h>
#include <string.h>

enum {
    SEARCH_STEPS = 64,
    CURVE_POINTS = 300,
    CURVE_STEPS = 200,
    NEGATIVE_SAMPLES = 5,
    FEW_POINTS = 10000,
    EDGES_A_LOOK = 1 << 15, /* between two looks at whether to stop */
};
static const double SMALLEST_SIGMA = 1e-3; /* in units of the mean distance */
static const float WIDTH = 10;             /* of the area that the layout starts in */
static const float MOST_FORCE = 4;

struct layout {
    struct crew *crew;
    const struct umap_options *options;
    size_t points, k; /* neighbours without the point itself */
    float *weights;   /* [points][k] of the directed graph */
    const struct knn *knn;
    double mean_distance;
    /* The fuzzy union, both directions of each edge, by their first end. */
    size_t edges;
    uint32_t *starts; /* [points + 1] */
    uint32_t *ends;
    float *strength;
};

/* ---- the curve ---- */

static double wanted_at(double x, double min_dist, double spread)
{
    return x < min_dist ? 1 : exp(-(x - min_dist) / spread);
}

static double misfit(double a, double b, double min_dist, double spread)
{
    double sum = 0;
    for (int i = 0; i < CURVE_POINTS; i++) {
        double x = 3 * spread * i / (CURVE_POINTS - 1);
        double r = 1 / (1 + a * pow(x, 2 * b)) - wanted_at(x, min_dist, spread);
        sum += r * r;
    }
    return sum;
}

/* Levenberg and Marquardt's method for two unknowns. */
void umap_fit_curve(double min_dist, double spread, double *out_a, double *out_b)
{
    double a = 1, b = 1, damping = 1e-3, best = misfit(a, b, min_dist, spread);
    for (int step = 0; step < CURVE_STEPS && damping < 1e12; step++) {
        double aa = 0, ab = 0, bb = 0, ra = 0, rb = 0;
        for (int i = 1; i < CURVE_POINTS; i++) {
            double x = 3 * spread * i / (CURVE_POINTS - 1), power = pow(x, 2 * b), f = 1 / (1 + a * power);
            double r = f - wanted_at(x, min_dist, spread);
            double by_a = -power * f * f, by_b = -2 * a * log(x) * power * f * f;
            aa += by_a * by_a;
            ab += by_a * by_b;
            bb += by_b * by_b;
            ra += by_a * r;
            rb += by_b * r;
        }
        double p = aa * (1 + damping), q = bb * (1 + damping), determinant = p * q - ab * ab;
        if (!(determinant > 0))
            break;
        double next_a = a - (q * ra - ab * rb) / determinant, next_b = b - (p * rb - ab * ra) / determinant;
        double next = next_a > 0 && next_b > 0 ? misfit(next_a, next_b, min_dist, spread) : INFINITY;
        if (next < best) {
            bool is_settled = best - next < 1e-14 * best;
            a = next_a;
            b = next_b;
            best = next;
            damping /= 10;
            if (is_settled)
                break;
        } else {
            damping *= 10;
        }
    }
    *out_a = a;
    *out_b = b;
}

/* ---- the graph ---- */

static double distance_of(const struct layout *l, size_t point, size_t j)
{
    double squared = l->knn->distance[point * l->knn->k + j];
    return l->options->is_cosine ? squared / 2 : sqrt(squared);
}

static double sum_of_weights(const struct layout *l, size_t point, double rho, double sigma)
{
    double sum = 0;
    for (size_t j = 0; j < l->k; j++) {
        double beyond = distance_of(l, point, j) - rho;
        sum += beyond > 0 ? exp(-beyond / sigma) : 1;
    }
    return sum;
}

/* The width at which the weights of a point's links add up to log2 of their number. */
static double find_sigma(const struct layout *l, size_t point, double rho)
{
    double low = 0, high = INFINITY, middle = 1, target = log2((double)(l->k + 1)), mean = 0;
    for (int step = 0; step < SEARCH_STEPS; step++) {
        double sum = sum_of_weights(l, point, rho, middle);
        if (fabs(sum - target) < 1e-5)
            break;
        if (sum > target) {
            high = middle;
            middle = (low + high) / 2;
        } else {
            low = middle;
            middle = isinf(high) ? middle * 2 : (low + high) / 2;
        }
    }
    for (size_t j = 0; j < l->k; j++)
        mean += distance_of(l, point, j) / (double)(l->k + 1);
    return fmax(middle, SMALLEST_SIGMA * (rho > 0 ? mean : l->mean_distance));
}

static void weigh_links(void *context, size_t from, size_t to, int thread)
{
    struct layout *l = context;
    (void)thread;
    for (size_t i = from; i < to; i++) {
        double rho = 0;
        for (size_t j = 0; j < l->k && rho <= 0; j++)
            rho = distance_of(l, i, j);
        double sigma = find_sigma(l, i, rho);
        for (size_t j = 0; j < l->k; j++) {
            double beyond = distance_of(l, i, j) - rho;
            l->weights[i * l->k + j] = beyond <= 0 || sigma <= 0 ? 1 : (float)exp(-beyond / sigma);
        }
    }
}

static float link_weight(const struct layout *l, uint32_t from, uint32_t to)
{
    for (size_t j = 0; j < l->k; j++) {
        if (l->knn->index[from * l->knn->k + j] == to)
            return l->weights[from * l->k + j];
    }
    return -1;
}

/* Every link both ways, with the weight a + b - ab; a link that its other end has too is put in once, by the end with
 * the smaller number. Links that would be sampled less than once in all epochs are left out. */
static void unite(struct layout *l, int epochs)
{
    size_t n = l->points;
    scoped_memory float *united = must_calloc(n * l->k + 1, sizeof *united); /* 0 = not put in from here */
    float most = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < l->k; j++) {
            uint32_t other = l->knn->index[i * l->knn->k + j];
            float a = l->weights[i * l->k + j], b = link_weight(l, other, i);
            if (b >= 0 && other < i)
                continue;
            united[i * l->k + j] = b >= 0 ? a + b - a * b : a;
            most = fmaxf(most, united[i * l->k + j]);
        }
    }
    for (size_t at = 0; at < n * l->k; at++) {
        if (united[at] < most / (float)epochs || united[at] <= 0)
            united[at] = 0;
    }
    l->starts = must_calloc(n + 2, sizeof *l->starts);
    for (size_t at = 0; at < n * l->k; at++) {
        if (united[at] > 0) {
            l->starts[at / l->k + 2]++;
            l->starts[l->knn->index[at / l->k * l->knn->k + at % l->k] + 2]++;
            l->edges += 2;
        }
    }
    for (size_t i = 2; i < n + 2; i++)
        l->starts[i] += l->starts[i - 1];
    l->ends = must_calloc(l->edges + 1, sizeof *l->ends);
    l->strength = must_calloc(l->edges + 1, sizeof *l->strength);
    for (size_t at = 0; at < n * l->k; at++) {
        if (united[at] <= 0)
            continue;
        uint32_t i = (uint32_t)(at / l->k), other = l->knn->index[at / l->k * l->knn->k + at % l->k];
        uint32_t there = l->starts[i + 1]++, back = l->starts[other + 1]++;
        l->ends[there] = other;
        l->ends[back] = i;
        l->strength[there] = l->strength[back] = united[at] / most;
    }
}

/* ---- the layout ---- */

/* Into a square of WIDTH, with a little noise: points that lie on each other would stay there. */
static void spread_out(float *positions, size_t n, uint64_t seed)
{
    struct random random = random_seeded(seed);
    float low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (size_t i = 0; i < 2 * n; i++) {
        low[i % 2] = fminf(low[i % 2], positions[i]);
        high[i % 2] = fmaxf(high[i % 2], positions[i]);
    }
    for (size_t i = 0; i < 2 * n; i++) {
        float range = high[i % 2] - low[i % 2];
        float at = range > 0 ? (positions[i] - low[i % 2]) / range * WIDTH : WIDTH / 2;
        positions[i] = at + (float)random_normal(&random) * (range > 0 ? 1e-3f : 1);
    }
}

struct pull {
    float *positions, a, b, alpha;
    struct random *random;
    uint32_t points;
};

/* Forces are computed eight at a time: the pull of an edge's other end and the pushes of its negative samples, all from
 * where the point is. (The reference moves the point between them.) Powers are computed here, since those of the
 * library differ from one kind of CPU to the next. */
enum { LANES = 8 };
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));

static inline lanes all(float f)
{
    return (lanes){f, f, f, f, f, f, f, f};
}

static inline lanes chosen(bits mask, lanes yes, lanes no)
{
    return (lanes)((mask & (bits)yes) | (~mask & (bits)no));
}

/* x^b for 1e-30 <= x <= 1e30, to six digits: 2^(b log2 x), by the series of artanh and of the exponential function. */
static inline lanes power(lanes x, float b)
{
    bits exponent = ((bits)x - 0x3F3504F3) >> 23; /* what is left is between the roots of 1/2 and of 2 */
    lanes m = (lanes)((bits)x - (exponent << 23)), t = (m - 1) / (m + 1), u = t * t;
    lanes y = __builtin_convertvector(exponent, lanes) +
              t * (2.88539008f + u * (0.961796694f + u * (0.577078016f + u * 0.412198583f)));
    y *= b;
    y = chosen(y > 120, all(120), y);
    y = chosen(y < -120, all(-120), y);
    lanes whole = (y + 12582912.0f) - 12582912.0f, f = y - whole; /* rounds to an integer */
    lanes e = 1 + f * (0.693147181f +
                       f * (0.240226507f +
                            f * (0.0555041087f + f * (0.00961812911f + f * (0.00133335581f + f * 0.000154035304f)))));
    return e * (lanes)((__builtin_convertvector(whole, bits) + 127) << 23);
}

/* Moves the point by what pulls it to `other` (if there is one: then other moves as well) and what pushes it from
 * `samples` points taken by chance, together at most LANES. */
static inline void take_batch(const struct pull *p, uint32_t i, float *other, int samples)
{
    float *current = p->positions + 2 * (size_t)i;
    lanes x = all(current[0]), y = all(current[1]);
    int first = other ? 1 : 0;
    bits is_pull = {other ? -1 : 0};
    if (other) {
        x[0] = other[0];
        y[0] = other[1];
    }
    for (int s = first; s < first + samples; s++) {
        const float *from = p->positions + 2 * (size_t)random_below(p->random, p->points);
        x[s] = from[0];
        y[s] = from[1];
    }
    lanes dx = current[0] - x, dy = current[1] - y, squared = dx * dx + dy * dy;
    bits is_apart = squared > 1e-30f; /* a point that met itself, lanes that are not used, and points that coincide */
    squared = chosen(is_apart, squared, all(1));
    lanes d = power(squared, p->b);
    lanes pull = -2 * p->a * p->b * d / squared, push = 2 * p->b / (0.001f + squared);
    lanes factor = chosen(is_apart, chosen(is_pull, pull, push) / (1 + p->a * d), all(0));
    lanes fx = factor * dx, fy = factor * dy, most = all(MOST_FORCE);
    fx = chosen(fx > most, most, chosen(fx < -most, -most, fx)) * p->alpha;
    fy = chosen(fy > most, most, chosen(fy < -most, -most, fy)) * p->alpha;
    for (int s = 0; s < first + samples; s++) {
        current[0] += fx[s];
        current[1] += fy[s];
    }
    if (other) {
        other[0] -= fx[0];
        other[1] -= fy[0];
    }
}

/* An edge of strength s is taken s times the number of epochs, at even distances; its negative samples likewise. */
static bool take_edges(struct layout *l, struct pull *p, int epoch, float *due, float *negative_due)
{
    size_t looked = 0;
    for (uint32_t i = 0; i < l->points; i++) {
        for (uint32_t e = l->starts[i]; e < l->starts[i + 1]; e++) {
            if (due[e] > (float)epoch)
                continue;
            float every = 1 / l->strength[e], negative_every = every / NEGATIVE_SAMPLES;
            int samples = (int)(((float)epoch - negative_due[e]) / negative_every);
            int taken = samples < LANES - 1 ? samples : LANES - 1;
            due[e] += every;
            negative_due[e] += (float)samples * negative_every;
            take_batch(p, i, p->positions + 2 * (size_t)l->ends[e], taken);
            for (; taken < samples; taken += LANES)
                take_batch(p, i, NULL, samples - taken < LANES ? samples - taken : LANES);
        }
        looked += l->starts[i + 1] - l->starts[i];
        if (looked > EDGES_A_LOOK) {
            looked = 0;
            if (crew_poll(l->crew, 0))
                return false;
        }
    }
    return true;
}

static bool move(struct layout *l, float *positions, int epochs)
{
    double a, b;
    umap_fit_curve(l->options->min_dist, l->options->spread, &a, &b);
    struct random random = random_seeded(l->options->seed + 1);
    struct pull p = {positions, (float)a, (float)b, 1, &random, (uint32_t)l->points};
    scoped_memory float *due = must_calloc(l->edges + 1, sizeof *due);
    scoped_memory float *negative_due = must_calloc(l->edges + 1, sizeof *negative_due);
    for (size_t e = 0; e < l->edges; e++) {
        due[e] = 1 / l->strength[e];
        negative_due[e] = due[e] / NEGATIVE_SAMPLES;
    }
    for (int epoch = 0; epoch < epochs; epoch++) {
        p.alpha = 1 - (float)epoch / (float)epochs;
        if (!take_edges(l, &p, epoch, due, negative_due) || crew_report(l->crew, (double)epoch / epochs))
            return false;
    }
    return true;
}

size_t umap_bytes(size_t points, size_t neighbors)
{
    /* Weights and their union; both directions of all links: end, strength, two times of sampling. */
    return points * neighbors * (2 * sizeof(float) + 2 * (sizeof(uint32_t) + 3 * sizeof(float)));
}

bool umap_lay_out(struct crew *crew, const struct knn *knn, const struct umap_options *options, float *positions)
{
    size_t n = knn->points, k = options->neighbors > 1 ? options->neighbors - 1 : 1;
    int epochs = options->epochs > 0 ? options->epochs : n <= FEW_POINTS ? 500 : 200;
    if (n < 2 || knn->k == 0)
        return true;
    if (k > knn->k)
        k = knn->k;
    struct layout l = {.crew = crew, .options = options, .points = n, .k = k, .knn = knn};
    for (size_t i = 0; i < n * k; i++)
        l.mean_distance += distance_of(&l, i / k, i % k) / (double)(n * (k + 1));
    l.weights = must_calloc(n * k, sizeof *l.weights);
    bool is_done = crew_round(crew, n, 256, weigh_links, &l);
    if (is_done) {
        unite(&l, epochs);
        spread_out(positions, n, options->seed);
        is_done = move(&l, positions, epochs);
    }
    free(l.weights);
    free(l.starts);
    free(l.ends);
    free(l.strength);
    return is_done;
}
