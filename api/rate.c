#include "api/rate.h"

#include "common/base.h"
#include "common/scope.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/random.h>

/* A key may stand in one of these neighbours. */
enum { WAYS = 8 };

struct entry {
    uint64_t key; /* its hash; 0 = free */
    int64_t tat_us;
};

struct rate_table {
    pthread_mutex_t lock;
    uint64_t seed; /* nobody outside can tell which keys share a place */
    size_t sets;
    struct entry entries[];
};

struct rate rate_of(int64_t count, int64_t period_us)
{
    int64_t n = count > 0 ? count : 1, interval = period_us / n;
    return (struct rate){.burst = n, .interval = interval > 0 ? interval : 1};
}

int64_t rate_step(const struct rate *rate, int64_t now_us, int64_t *tat_us)
{
    int64_t tat = *tat_us > now_us ? *tat_us : now_us;
    int64_t wait = tat - (rate->burst - 1) * rate->interval - now_us;
    if (wait > 0)
        return wait;
    *tat_us = tat + rate->interval;
    return 0;
}

struct rate_table *rate_table_new(int keys)
{
    size_t sets = 1;
    while (sets * WAYS < (size_t)keys)
        sets *= 2;
    struct rate_table *t = must_calloc(1, sizeof *t + sets * WAYS * sizeof t->entries[0]);
    pthread_mutex_init(&t->lock, NULL);
    t->sets = sets;
    ssize_t n = getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK);
    (void)n; /* without it the places are guessable, which makes the limit milder for the guesser's own keys */
    return t;
}

void rate_table_free(struct rate_table *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* FNV-1a from a seed, and MurmurHash3's finalizer; never 0. */
static uint64_t hash_of(uint64_t seed, const char *key)
{
    uint64_t h = seed ^ 14695981039346656037u;
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 1099511628211u;
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
    h ^= h >> 33;
    return h ? h : 1;
}

static struct entry *place_of(struct rate_table *t, uint64_t key)
{
    struct entry *set = &t->entries[(key & (t->sets - 1)) * WAYS], *oldest = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
        if (set[i].tat_us < oldest->tat_us)
            oldest = &set[i];
    }
    *oldest = (struct entry){.key = key};
    return oldest;
}

int64_t rate_table_step(struct rate_table *t, const struct rate *rate, const char *key, int64_t now_us,
                        int64_t *out_ahead_us)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = place_of(t, hash_of(t->seed, key));
    int64_t wait = rate_step(rate, now_us, &e->tat_us), ahead = e->tat_us - now_us;
    pthread_mutex_unlock(&t->lock);
    if (out_ahead_us)
        *out_ahead_us = ahead > 0 ? ahead : 0;
    return wait;
}
