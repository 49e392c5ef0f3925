#include "worker/projection/quadtree.h"

#include "common/arena.h"

#include <math.h>
#include <string.h>

enum {
    LEAF = 8,
    LEVELS = 16, /* bits of a coordinate on the curve */
    CROWD = 64,  /* points that the curve cannot tell apart: as many count as one, even to each other */
};

struct cell {
    float x, y; /* centre of its points */
    float count, width2;
    uint32_t next;        /* the cell after all that are within this one */
    uint32_t first, last; /* its points, for leaves; first == last otherwise */
};

struct quadtree {
    struct cell *cells;
    size_t cell_count;
    uint32_t *order, *codes, *other_order, *other_codes;
    float *sorted; /* [points][2] along the curve */
    float width;
};

/* At most a leaf a point, and as every inner cell has two parts at least, as many again. Cells that hold all points of
 * the cell above are passed over. */
static size_t most_cells(size_t points)
{
    return 2 * points + 2;
}

size_t quadtree_bytes(size_t points)
{
    return most_cells(points) * sizeof(struct cell) + points * (4 * sizeof(uint32_t) + 2 * sizeof(float));
}

struct quadtree *quadtree_new(size_t points)
{
    struct quadtree *t = must_calloc(1, sizeof *t);
    t->cells = must_calloc(most_cells(points), sizeof *t->cells);
    t->order = must_calloc(points + 1, sizeof *t->order);
    t->codes = must_calloc(points + 1, sizeof *t->codes);
    t->other_order = must_calloc(points + 1, sizeof *t->other_order);
    t->other_codes = must_calloc(points + 1, sizeof *t->other_codes);
    t->sorted = must_calloc(2 * points + 2, sizeof *t->sorted);
    return t;
}

void quadtree_free(struct quadtree *t)
{
    free(t->cells);
    free(t->order);
    free(t->codes);
    free(t->other_order);
    free(t->other_codes);
    free(t->sorted);
    free(t);
}

const uint32_t *quadtree_order(const struct quadtree *t)
{
    return t->order;
}

/* The bits of a 16-bit number, each before a zero. */
static uint32_t spaced(uint32_t v)
{
    v = (v | v << 8) & 0x00FF00FF;
    v = (v | v << 4) & 0x0F0F0F0F;
    v = (v | v << 2) & 0x33333333;
    return (v | v << 1) & 0x55555555;
}

static void find_codes(struct quadtree *t, const float *positions, size_t n)
{
    float low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (size_t i = 0; i < 2 * n; i++) {
        low[i % 2] = fminf(low[i % 2], positions[i]);
        high[i % 2] = fmaxf(high[i % 2], positions[i]);
    }
    t->width = fmaxf(fmaxf(high[0] - low[0], high[1] - low[1]), 1e-30f);
    float scale = 65535 / t->width;
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)fminf((positions[2 * i] - low[0]) * scale, 65535);
        uint32_t y = (uint32_t)fminf((positions[2 * i + 1] - low[1]) * scale, 65535);
        t->codes[i] = spaced(x) | spaced(y) << 1;
        t->order[i] = (uint32_t)i;
    }
}

static void sort_codes(struct quadtree *t, size_t n)
{
    for (int shift = 0; shift < 32; shift += 8) {
        size_t starts[257] = {0};
        for (size_t i = 0; i < n; i++)
            starts[(t->codes[i] >> shift & 255) + 1]++;
        for (int i = 1; i < 256; i++)
            starts[i] += starts[i - 1];
        for (size_t i = 0; i < n; i++) {
            size_t at = starts[t->codes[i] >> shift & 255]++;
            t->other_codes[at] = t->codes[i];
            t->other_order[at] = t->order[i];
        }
        uint32_t *codes = t->codes, *order = t->order;
        t->codes = t->other_codes;
        t->order = t->other_order;
        t->other_codes = codes;
        t->other_order = order;
    }
}

static size_t lower_bound(const uint32_t *codes, size_t from, size_t to, uint32_t code)
{
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (codes[middle] < code)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* Depth first, at most LEVELS deep. `level` is how many bits of a coordinate are left within the cell. */
static void build_cell(struct quadtree *t, size_t from, size_t to, int level)
{
    uint32_t differing = t->codes[from] ^ t->codes[to - 1];
    int needed = 0;
    while (needed < level && differing >> (2 * needed))
        needed++;
    level = needed;
    struct cell *c = &t->cells[t->cell_count++];
    double x = 0, y = 0;
    float width = t->width / (float)(1 << (LEVELS - level));
    *c = (struct cell){.count = (float)(to - from), .width2 = width * width};
    bool is_leaf = to - from <= LEAF || level == 0;
    if (is_leaf) {
        bool is_crowd = to - from > CROWD;
        c->first = (uint32_t)from;
        c->last = is_crowd ? c->first : (uint32_t)to;
        c->width2 = is_crowd ? -1 : c->width2; /* small enough from everywhere */
        for (size_t i = from; i < to; i++) {
            x += t->sorted[2 * i];
            y += t->sorted[2 * i + 1];
        }
    } else {
        uint32_t mask = level == LEVELS ? 0 : t->codes[from] >> (2 * level) << (2 * level);
        for (uint32_t quarter = 0; quarter < 4; quarter++) {
            uint64_t end = (uint64_t)mask + ((uint64_t)(quarter + 1) << (2 * (level - 1)));
            size_t cut = end > UINT32_MAX ? to : lower_bound(t->codes, from, to, (uint32_t)end);
            if (cut > from) {
                const struct cell *part = &t->cells[t->cell_count];
                build_cell(t, from, cut, level - 1);
                x += (double)part->x * (double)part->count;
                y += (double)part->y * (double)part->count;
            }
            from = cut;
        }
    }
    c->x = (float)(x / (double)c->count);
    c->y = (float)(y / (double)c->count);
    c->next = (uint32_t)t->cell_count;
}

void quadtree_build(struct quadtree *t, const float *positions, size_t n)
{
    t->cell_count = 0;
    if (n == 0)
        return;
    find_codes(t, positions, n);
    sort_codes(t, n);
    for (size_t i = 0; i < n; i++) {
        t->sorted[2 * i] = positions[2 * t->order[i]];
        t->sorted[2 * i + 1] = positions[2 * t->order[i] + 1];
    }
    build_cell(t, 0, n, LEVELS);
}

double quadtree_repulsion(const struct quadtree *t, size_t place, float theta, float out_force[2])
{
    float x = t->sorted[2 * place], y = t->sorted[2 * place + 1], theta2 = theta * theta, fx = 0, fy = 0, sum = 0;
    for (size_t at = 0; at < t->cell_count;) {
        const struct cell *c = &t->cells[at];
        float dx = x - c->x, dy = y - c->y, d2 = dx * dx + dy * dy;
        if (c->width2 < theta2 * d2) {
            float q = 1 / (1 + d2), weight = c->count * q;
            sum += weight;
            fx += weight * q * dx;
            fy += weight * q * dy;
            at = c->next;
            continue;
        }
        for (uint32_t i = c->first; i < c->last; i++) {
            float ex = x - t->sorted[2 * i], ey = y - t->sorted[2 * i + 1], q = 1 / (1 + ex * ex + ey * ey);
            sum += i == place ? 0 : q;
            fx += q * q * ex;
            fy += q * q * ey;
        }
        at++;
    }
    out_force[0] = fx;
    out_force[1] = fy;
    return (double)sum;
}
