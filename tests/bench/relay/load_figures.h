/* What the load client counts: latencies in a histogram, and which numbers of its channel a connection has had. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 64 * 40 };
/* Logarithmic with 32 steps an octave (3 % wide at most), from a microsecond on. */
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS], total, max_ns;
};
void histogram_add(struct histogram *h, uint64_t ns);
/* In milliseconds; `share` from 0 to 1. */
double histogram_at(const struct histogram *h, double share);

enum { MOST_GAPS = 64 };
struct gap {
    uint32_t first, last;
};
/* Numbers rise by one. What is jumped over is a gap until it comes late; beyond MOST_GAPS gaps it is only counted. */
struct sequence {
    uint32_t last; /* the largest that came; 0 = none */
    uint32_t uncounted_gap, gap_count;
    struct gap *gaps; /* allocated with the first one */
};
enum sequence_verdict { SEQUENCE_NEXT, SEQUENCE_JUMP, SEQUENCE_LATE, SEQUENCE_TWICE };
enum sequence_verdict sequence_take(struct sequence *s, uint32_t number);
/* The next number is the first one that this connection is expected to have. */
void sequence_begin(struct sequence *s, uint32_t number);
/* Of the numbers up to `end`: how many never came. */
uint32_t sequence_missing(const struct sequence *s, uint32_t end);
void sequence_free(struct sequence *s);
