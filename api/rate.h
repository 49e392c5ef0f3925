/* How often something may happen, kept in this process and in bounded memory. The rule is GCRA (ITU-T I.371, the leaky
 * bucket as a meter; api/limit.h keeps the same in Redis): `burst` at once, then one every `interval`; what is kept of
 * each is one time. */
#pragma once

#include <stdint.h>

struct rate {
    int64_t burst, interval;
};

/* `count` in `period_us`, all of them at once if need be. A count of 0 or less means one. */
struct rate rate_of(int64_t count, int64_t period_us);
/* One step: `*tat_us` is what is kept (0 = nothing yet). Returns how long to wait, 0 = allowed, and counted. */
int64_t rate_step(const struct rate *rate, int64_t now_us, int64_t *tat_us);

/* One such time for each of many keys. When more keys are at it than there is room for, the one that is nearest to
 * starting anew is forgotten: a flood of keys makes the limit milder, never harder for another key. Any thread. */
struct rate_table;

/* Room for `keys` of them, 16 bytes each. */
struct rate_table *rate_table_new(int keys);
void rate_table_free(struct rate_table *t);
/* As rate_step. `out_ahead_us` (may be NULL): how far what is kept lies in the future afterwards. */
int64_t rate_table_step(struct rate_table *t, const struct rate *rate, const char *key, int64_t now_us,
                        int64_t *out_ahead_us);
