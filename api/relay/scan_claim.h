/* One scan at a time under an id of a user, and a few of one user, over all instances: `scans:{user id}` in Redis, a
 * sorted set whose members are "<scan id> <connection> <number>" with the time until which they count. What a dead
 * instance left is free after SCAN_CLAIM_SECONDS. On the scan threads. */
#pragma once

#include "common/redis.h"

enum { SCAN_CLAIM_SECONDS = 30, SCANS_OF_USER = 2 };

struct scan_claim {
    int64_t user_id;
    char scan_id[65];
    char connection[64]; /* whose own earlier scan, cancelled and not quite at its end, gives way */
    int64_t number;
};

/* STATUS_CONFLICT: a scan runs under this id; STATUS_RATE_LIMITED: the user has as many as may be; both with a
 * sentence. Another status: Redis is away, and each instance counts for itself. */
enum status scan_claim_take(struct scope *sc, struct redis *events, const struct scan_claim *c) must_check;
enum status scan_claim_renew(struct scope *sc, struct redis *events, const struct scan_claim *c) must_check;
enum status scan_claim_leave(struct scope *sc, struct redis *events, const struct scan_claim *c) must_check;
