#include "common/ir/significance.h"

#include <math.h>

enum { MOST_EXACT = 16 };

/* xorshift64*, Vigna 2016. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

/* A sum that differs by its rounding alone is as far away. */
static int is_as_far(double sum, double observed)
{
    return fabs(sum) >= observed - 1e-12 * (1 + observed);
}

/* Queries without a difference change no sum, so of thousands of queries only the few others are gone through. */
static double exact(const double *d, size_t count, double observed)
{
    double differing[MOST_EXACT];
    size_t n = 0, far = 0;
    for (size_t i = 0; i < count; i++) {
        if (d[i] != 0)
            differing[n++] = d[i];
    }
    size_t all = (size_t)1 << n;
    for (size_t signs = 0; signs < all; signs++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += signs >> i & 1 ? differing[i] : -differing[i];
        far += (size_t)is_as_far(sum, observed);
    }
    return (double)far / (double)all;
}

double ir_randomisation_test(const double *d, size_t count, size_t rounds)
{
    double sum = 0;
    size_t nonzero = 0;
    for (size_t i = 0; i < count; i++) {
        sum += d[i];
        nonzero += d[i] != 0;
    }
    if (nonzero <= MOST_EXACT)
        return nonzero == 0 ? 1 : exact(d, count, fabs(sum));
    uint64_t state = 0x9E3779B97F4A7C15u;
    size_t far = 0;
    for (size_t n = 0; n < rounds; n++) {
        double thrown = 0;
        uint64_t bits = 0;
        for (size_t i = 0; i < count; i++) {
            if (i % 64 == 0)
                bits = next_random(&state);
            thrown += bits >> (i % 64) & 1 ? d[i] : -d[i];
        }
        far += (size_t)is_as_far(thrown, fabs(sum));
    }
    /* The observed one counts too, so that the value is never 0. */
    return (double)(far + 1) / (double)(rounds + 1);
}
