/* What the parts of the API program share: made by main.c, read-only for the rest but for what guards itself. */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "common/redis.h"

struct relay;
struct limiter;
struct server;
struct door;
struct health;
struct rate_table;

struct api {
    const struct settings *settings;
    struct relay *relay;              /* api/relay/relay.h */
    struct limiter *limiter;          /* api/limit.h */
    struct health *health;            /* api/health.h */
    struct rate_table *user_connects; /* api/rate.h: new sockets, by user */
    int web_root; /* api/web_root.h: the folder's descriptor, -1 = the page that is part of the program */
    char instance_id[37];
    _Atomic bool is_draining;
    _Atomic bool is_schema_ok; /* kept by the reconciler thread */
};
