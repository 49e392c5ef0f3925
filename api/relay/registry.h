/* Who is connected, over all instances: websocket:connections and a set for each user and operation, in Redis. A
 * member's score is the time until which it counts; its instance renews it, so what a dead instance left is gone within
 * REGISTRY_LIFE_SECONDS. Runs on the look-up threads. */
#pragma once

#include "common/redis.h"

enum { REGISTRY_LIFE_SECONDS = 45, REGISTRY_RENEW_SECONDS = 15, REGISTRY_BATCH = 200 };

struct registration {
    char member[64]; /* "<instance>:<number>" */
    int64_t user_id;
    char operation_id[37]; /* "" = none */
};

/* STATUS_RATE_LIMITED with a sentence when the user or the operation has as many as may be; else it counts from now on.
 * STATUS_UNAVAILABLE: Redis is away (the caller goes by its own numbers). */
enum status registry_enter(struct scope *sc, struct redis *events, const struct registration *r, int64_t max_per_user,
                           int64_t max_per_operation) must_check;
enum status registry_leave(struct scope *sc, struct redis *events, const struct registration *r) must_check;
/* Renews up to REGISTRY_BATCH of them. */
enum status registry_renew(struct scope *sc, struct redis *events, const struct registration *list,
                           int count) must_check;
