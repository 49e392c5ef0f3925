/* xoshiro256++ of Blackman and Vigna (2019), seeded by splitmix64: the same numbers for the same seed everywhere. */
#pragma once

#include <math.h>
#include <stdint.h>

struct random {
    uint64_t s[4];
};

static inline struct random random_seeded(uint64_t seed)
{
    struct random r;
    for (int i = 0; i < 4; i++) {
        seed += 0x9E3779B97F4A7C15u;
        uint64_t z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        r.s[i] = z ^ z >> 31;
    }
    return r;
}

static inline uint64_t random_next(struct random *r)
{
    uint64_t x = r->s[0] + r->s[3], t = r->s[1] << 17;
    uint64_t result = (x << 23 | x >> 41) + r->s[0];
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = r->s[3] << 45 | r->s[3] >> 19;
    return result;
}

/* 0 … below - 1, below >= 1; the bias is below 2^-32 for what is counted here. */
static inline uint32_t random_below(struct random *r, uint32_t below)
{
    return (uint32_t)(((random_next(r) >> 32) * below) >> 32);
}

/* 0 <= x < 1. */
static inline double random_unit(struct random *r)
{
    return (double)(random_next(r) >> 11) * 0x1p-53;
}

/* Of the standard normal distribution (Box and Muller). */
static inline double random_normal(struct random *r)
{
    double u = 1 - random_unit(r), v = random_unit(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}
