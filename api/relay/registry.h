/* Who is connected, over all instances: websocket:connections and a set for each user and operation, in Redis. A
 * member's score is the time until which it counts; its instance renews it, so what a dead instance left is gone within
 * REGISTRY_LIFE_SECONDS. Runs on the look-up threads. */
#pragma once

#include "common/redis.h"

enum { REGISTRY_LIFE_SECONDS = 45, REGISTRY_RENEW_SECONDS = 15, REGISTRY_BATCH = 200 };

struct registration {
    char member[112]; /* registry_name() */
    int64_t user_id;
    char operation_id[37]; /* "" = none */
};

enum registry_answer { REGISTRY_ENTERED, REGISTRY_USER_FULL, REGISTRY_OPERATION_FULL };

/* Names it once its user is known: "<instance>:<number>:<user>:<seconds since 1970>". */
void registry_name(struct registration *r, const char *instance_id, int64_t number, int64_t now_ms);
/* Up to REGISTRY_BATCH in one call, each by itself: entered, it counts from now on; else its user or its operation has
 * as many as may be. When it is the user who has, the instances that hold the others are asked (REGISTRY_ASK) whether
 * these are still alive. STATUS_UNAVAILABLE: Redis is away (the caller goes by its own numbers). */
enum status registry_enter(struct scope *sc, struct redis *events, const struct registration *const *list, int count,
                           int64_t max_per_user, int64_t max_per_operation, enum registry_answer *out) must_check;
enum status registry_leave(struct scope *sc, struct redis *events, const struct registration *r) must_check;
/* Renews up to REGISTRY_BATCH of them. */
enum status registry_renew(struct scope *sc, struct redis *events, const struct registration *list,
                           int count) must_check;

/* What is published on an instance's own channel: the user follows. */
#define REGISTRY_ASK "ask:"
#define REGISTRY_INSTANCE_CHANNEL "relay:%s"

/* Who watches an operation, on all instances. */
struct watcher {
    int64_t user_id;
    int connections;
    int64_t since; /* seconds since 1970: the first of those connections */
};
/* The first `most` connections in the registry's order, put together by users, the longest there first; `out` has room
 * for `most`. `out_total` counts all connections. */
enum status registry_watchers(struct scope *sc, struct redis *events, const char *operation_id, int most,
                              struct watcher *out, int *out_count, int64_t *out_total) must_check;
