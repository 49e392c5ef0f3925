/* Work that is due by the clock, not by a request: one row of schedule.def and one function each. One worker at a time
 * holds the table lease "scheduler" and runs what is due; every run is logged and kept in system_tasks. */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "common/redis.h"

/* One run of one row. */
struct scheduled {
    const struct settings *settings;
    struct db *db;                      /* a connection of its own, statement_timeout 0 */
    struct redis *queue;                /* queue database */
    struct redis *events;               /* stream database */
    bool (*has_to_stop)(void *context); /* ask in every loop; true = return STATUS_CANCELLED soon */
    void *stop_context;
    const char *result_json; /* filled by the function, an object in the arena: what it did, with counts; NULL = {} */
};

/* Works in short transactions of its own, may be killed anywhere and run again, and may run twice at a time when a
 * lease lapsed: what it does must be harmless then. */
typedef enum status scheduled_function(struct scope *sc, struct scheduled *s);

#define SCHEDULED(name, setting, function, summary) scheduled_function function;
#include "worker/schedule.def"
#undef SCHEDULED

struct scheduled_row {
    const char *name, *summary;
    size_t setting; /* offset in struct settings */
    scheduled_function *function;
};
/* All rows, in the order of schedule.def. */
const struct scheduled_row *schedule_rows(size_t *out_count);
/* NULL = there is none. */
const struct scheduled_row *schedule_find(const char *name);
/* The cron expression, valid since the settings were loaded; "" = switched off. */
const char *schedule_expression(const struct settings *settings, const struct scheduled_row *row);
/* A due time to run for at `now`, when the next one that was noted is `due`: the newest that is not in the future, with
 * the number of those before it for which nothing runs any more. `*out_next` is the first after it. False: not due yet,
 * or never again. Seconds since 1970. */
bool schedule_choose(const char *expression, int64_t due, int64_t now, int64_t *out_due, int64_t *out_next,
                     int *out_missed);
