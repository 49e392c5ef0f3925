#include "tests/bench/relay/load_figures.h"

#include "common/arena.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 32, STEP_BITS = 5 };

/* Values below STEPS microseconds have a bucket each; above, the upper bits choose. */
static unsigned bucket_of(uint64_t us)
{
    if (us < STEPS)
        return (unsigned)us;
    unsigned octave = 63 - (unsigned)__builtin_clzll(us) - STEP_BITS;
    unsigned bucket = STEPS * (octave + 1) + (unsigned)((us >> octave) & (STEPS - 1));
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static double middle_us(unsigned bucket)
{
    if (bucket < STEPS)
        return bucket + 0.5;
    unsigned octave = bucket / STEPS - 1;
    return ((double)(STEPS + bucket % STEPS) + 0.5) * (double)(1ULL << octave);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->counts[bucket_of(ns / 1000)]++;
    h->total++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

double histogram_at(const struct histogram *h, double share)
{
    uint64_t wanted = (uint64_t)((double)h->total * share), seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > wanted)
            return middle_us(i) / 1000;
    }
    return (double)h->max_ns / 1e6;
}

void sequence_begin(struct sequence *s, uint32_t number)
{
    s->last = number - 1;
}

static void add_gap(struct sequence *s, uint32_t first, uint32_t last)
{
    if (s->gap_count == MOST_GAPS) {
        s->uncounted_gap += last - first + 1;
        return;
    }
    if (!s->gaps)
        s->gaps = must_malloc(MOST_GAPS * sizeof *s->gaps);
    s->gaps[s->gap_count++] = (struct gap){first, last};
}

/* Takes the number out of a gap; what is left of it may be two. */
static bool fill_gap(struct sequence *s, uint32_t number)
{
    for (uint32_t i = 0; i < s->gap_count; i++) {
        struct gap g = s->gaps[i];
        if (number < g.first || number > g.last)
            continue;
        s->gaps[i] = s->gaps[--s->gap_count];
        if (number > g.first)
            add_gap(s, g.first, number - 1);
        if (number < g.last)
            add_gap(s, number + 1, g.last);
        return true;
    }
    return false;
}

enum sequence_verdict sequence_take(struct sequence *s, uint32_t number)
{
    if (number == s->last + 1) {
        s->last = number;
        return SEQUENCE_NEXT;
    }
    if (number > s->last) {
        add_gap(s, s->last + 1, number - 1);
        s->last = number;
        return SEQUENCE_JUMP;
    }
    return fill_gap(s, number) ? SEQUENCE_LATE : SEQUENCE_TWICE;
}

uint32_t sequence_missing(const struct sequence *s, uint32_t end)
{
    uint32_t missing = s->uncounted_gap + (end > s->last ? end - s->last : 0);
    for (uint32_t i = 0; i < s->gap_count; i++)
        missing += s->gaps[i].last - s->gaps[i].first + 1;
    return missing;
}

void sequence_free(struct sequence *s)
{
    free(s->gaps);
    *s = (struct sequence){0};
}
