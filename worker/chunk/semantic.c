/* Cutting where the meaning changes. The text is taken in units: sentences, short ones joined. Each is embedded once;
 * at each gap between two units, the mean of the `buffer_size` vectors before it is compared with the mean of those
 * after it (the block comparison of Hearst, "TextTiling", Computational Linguistics 23(1), 1997, with vectors of
 * sentences in place of counts of words). Gaps whose cosine distance stands out among those of the text are
 * breakpoints. Between two breakpoints the text is cut only where it does not fit into a chunk, at the largest
 * distances then. */
#include "worker/chunk/strategy.h"

#include <math.h>
#include <string.h>

enum { LEAST_UNIT_TOKENS = 6, LEAST_PART = 5, RANKS = CUT_BEST - 1 - CUT_FOUND };

/* Units of a range of atoms, and how far each is from the next. */
struct units {
    uint32_t *first; /* count + 1: atoms */
    size_t count;
    double *distances; /* count - 1: of the gap behind each but the last */
};

/* ---- units ---- */

static bool is_full(const struct chunker *c, size_t from, size_t next)
{
    return chunker_tokens(c, from, next + 1) > c->size || c->atoms[next].end - c->atoms[from].start > c->most_bytes;
}

static bool begins_block(const struct chunker *c, size_t atom)
{
    return c->blocks && c->blocks[atom] && (atom == 0 || c->blocks[atom - 1] != c->blocks[atom]);
}

static void find_units(const struct chunker *c, size_t from, size_t to, struct units *u)
{
    size_t least = c->size / 4 < LEAST_UNIT_TOKENS ? c->size / 4 : LEAST_UNIT_TOKENS;
    u->first = must_malloc((to - from + 1) * sizeof *u->first);
    u->first[u->count++] = (uint32_t)from;
    for (size_t i = from + 1; i < to; i++) {
        size_t start = u->first[u->count - 1];
        bool is_end = c->levels[i] >= CUT_SENTENCE && chunker_tokens(c, start, i) >= least;
        if (is_end || begins_block(c, i) || is_full(c, start, i))
            u->first[u->count++] = (uint32_t)i;
    }
    u->first[u->count] = (uint32_t)to;
}

/* ---- distances ---- */

/* The vectors at hand: those of units [base, base + count). */
struct window {
    float *vectors;
    size_t base, count;
    int dim;
};

static void mean_of(const struct window *w, size_t from, size_t to, double *out)
{
    memset(out, 0, (size_t)w->dim * sizeof *out);
    for (size_t u = from; u < to; u++) {
        const float *v = w->vectors + (u - w->base) * (size_t)w->dim;
        for (int d = 0; d < w->dim; d++)
            out[d] += (double)v[d];
    }
}

static double cosine_distance(const double *a, const double *b, int dim)
{
    double ab = 0, aa = 0, bb = 0;
    for (int d = 0; d < dim; d++) {
        ab += a[d] * b[d];
        aa += a[d] * a[d];
        bb += b[d] * b[d];
    }
    double distance = 1 - ab / sqrt(aa * bb);
    /* Rounded, so that the last bits of a batch's arithmetic do not move a cut. */
    return isfinite(distance) ? round(distance * 1e4) / 1e4 : 0;
}

/* Embeds units [from, from + count) and puts their vectors behind those at hand. */
static enum status embed_some(const struct chunker *c, const struct units *u, struct window *w, size_t from,
                              size_t count)
{
    struct scope batch;
    scope_init(&batch, c->sc->trace_id);
    struct embed_text *texts = arena_array(&batch.arena, count, sizeof *texts);
    for (size_t i = 0; i < count; i++) {
        size_t start = c->atoms[u->first[from + i]].start, end = c->atoms[u->first[from + i + 1] - 1].end;
        texts[i] = (struct embed_text){c->text + start, end - start};
    }
    const float *vectors = NULL;
    int dim = 0;
    enum status s = c->embedder->embed(c->embedder->context, &batch, texts, count, &vectors, &dim);
    if (s == STATUS_OK && (dim <= 0 || (w->dim != 0 && dim != w->dim)))
        s = fail(&batch, STATUS_INTERNAL, "the embedder's vectors are not of one length");
    if (s == STATUS_OK) {
        w->dim = dim;
        size_t row = (size_t)dim * sizeof *w->vectors;
        w->vectors = must_realloc(w->vectors, (w->count + count) * row);
        memcpy((char *)w->vectors + w->count * row, vectors, count * row);
        w->count += count;
    } else {
        s = fail(c->sc, s, "%s", batch.problem_text ? batch.problem_text : status_text(s));
    }
    scope_done(&batch);
    return s;
}

/* Vectors before unit `first` are not needed any more. */
static void forget_before(struct window *w, size_t first)
{
    size_t gone = first > w->base ? first - w->base : 0;
    if (gone == 0)
        return;
    memmove(w->vectors, w->vectors + gone * (size_t)w->dim, (w->count - gone) * (size_t)w->dim * sizeof *w->vectors);
    w->base += gone;
    w->count -= gone;
}

/* Holds the vectors of one batch and of a gap's neighbours, however long the text is. */
static enum status measure(const struct chunker *c, struct units *u)
{
    size_t at_a_time = c->embedder->at_a_time ? c->embedder->at_a_time : 1, gap = 0;
    size_t around = c->options->config.buffer_size > 0 ? (size_t)c->options->config.buffer_size : 1;
    struct window w = {0};
    double *before = NULL, *after = NULL;
    enum status s = STATUS_OK;
    u->distances = must_calloc(u->count, sizeof *u->distances);
    for (size_t done = 0, n; done < u->count && s == STATUS_OK; done += n) {
        n = u->count - done < at_a_time ? u->count - done : at_a_time;
        s = embed_some(c, u, &w, done, n);
        if (s != STATUS_OK)
            break;
        before = must_realloc(before, (size_t)w.dim * sizeof *before);
        after = must_realloc(after, (size_t)w.dim * sizeof *after);
        for (; gap + 1 < u->count && (gap + 1 + around <= done + n || done + n == u->count); gap++) {
            mean_of(&w, gap + 1 > around ? gap + 1 - around : 0, gap + 1, before);
            mean_of(&w, gap + 1, gap + 1 + around < u->count ? gap + 1 + around : u->count, after);
            u->distances[gap] = cosine_distance(before, after, w.dim);
        }
        forget_before(&w, gap + 1 > around ? gap + 1 - around : 0);
    }
    free(before);
    free(after);
    free(w.vectors);
    return s;
}

/* ---- breakpoints ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between the two nearest, as numpy.percentile does. */
static double percentile(const double *sorted, size_t count, double percent)
{
    double at = percent / 100 * (double)(count - 1);
    size_t low = (size_t)at;
    return low + 1 < count ? sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]) : sorted[count - 1];
}

static double threshold_of(const struct chunking_config *config, const double *sorted, size_t count)
{
    const char *type = config->breakpoint_type ? config->breakpoint_type : "percentile";
    if (strcmp(type, "interquartile") == 0) {
        double third = percentile(sorted, count, 75);
        return third + config->breakpoint_factor * (third - percentile(sorted, count, 25));
    }
    if (strcmp(type, "standard_deviation") != 0)
        return percentile(sorted, count, config->breakpoint_percentile);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++)
        sum += sorted[i];
    double mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += (sorted[i] - mean) * (sorted[i] - mean);
    return mean + config->breakpoint_factor * sqrt(squares / (double)count);
}

/* How many of the sorted distances are smaller. */
static size_t rank_of(const double *sorted, size_t count, double distance)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle] < distance)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Breakpoints that would leave less than that before or behind them are none. */
static size_t least_part(const struct chunker *c)
{
    int64_t asked = c->options->config.min_chunk_size;
    return asked >= 0 ? (size_t)asked : c->size / LEAST_PART;
}

static void cut_at_breakpoints(struct chunker *c, const struct units *u, const char *heading)
{
    size_t gaps = u->count - 1, from = u->first[0], to = u->first[u->count], least = least_part(c);
    double *sorted = must_malloc((gaps + 1) * sizeof *sorted);
    memcpy(sorted, u->distances, gaps * sizeof *sorted);
    qsort(sorted, gaps, sizeof *sorted, ascending);
    double threshold = gaps ? threshold_of(&c->options->config, sorted, gaps) : 0;
    for (size_t g = 0; g < gaps; g++) {
        size_t level = CUT_FOUND + rank_of(sorted, gaps, u->distances[g]) * RANKS / gaps;
        c->levels[u->first[g + 1]] = (unsigned char)level;
    }
    for (size_t g = 0; g < gaps; g++) {
        size_t at = u->first[g + 1];
        if (u->distances[g] <= threshold || chunker_tokens(c, from, at) < least || chunker_tokens(c, at, to) < least)
            continue;
        chunker_cut(c, from, at, heading);
        from = at;
    }
    chunker_cut(c, from, to, heading);
    free(sorted);
}

enum status chunker_cut_by_meaning(struct chunker *c, size_t from, size_t to, const char *heading)
{
    if (from >= to)
        return STATUS_OK;
    struct units u = {0};
    find_units(c, from, to, &u);
    enum status s = measure(c, &u);
    if (s == STATUS_OK)
        cut_at_breakpoints(c, &u, heading);
    free(u.first);
    free(u.distances);
    return s;
}

enum status chunk_semantic(struct chunker *c)
{
    chunker_find_levels(c);
    if (c->embedder)
        return chunker_cut_by_meaning(c, 0, c->count, NULL);
    c->note = "there is no embedder to find changes of meaning; 'recursive' was used";
    chunker_cut(c, 0, c->count, NULL);
    return STATUS_OK;
}
