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
