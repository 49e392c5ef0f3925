/* What --status shows: read by status.c, written by status_text.c for a terminal and by status_json.c for programs. */
#pragma once

#include "common/db.h"
#include "common/redis.h"
#include "common/text.h"

/* What Redis says beside it; only a display, whatever it says. */
struct status_redis {
    bool answers;
    const char *problem;            /* why not */
    double milliseconds;            /* of a PING */
    int64_t used_bytes, most_bytes; /* most: 0 = no limit */
    bool is_full;                   /* writes are refused */
    int64_t *lengths;               /* of each row's queue; -1 = unknown */
    const char **doing;             /* of each worker's row, JSON; NULL = not shown */
};

struct status_report {
    struct arena *arena;
    const char *time;
    PGresult *workers, *running, *queues, *waiting, *unannounced;
    struct status_redis redis;
};

void status_write_text(struct text *out, const struct status_report *report);
void status_write_json(struct text *out, const struct status_report *report);
