/* Giving operations back, and what follows when that made them fail for good: collection, audit, announcement. */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "common/redis.h"
#include "worker/orders.h"

struct hand_back {
    char operation_id[37], task_id[37];
    double delay_seconds;
    bool is_counted;        /* as a failure */
    enum error_class class; /* ERROR_NONE = nothing went wrong */
    enum attempt_end ended;
    char reason[REASON_BYTES]; /* {n} becomes the number of failures */
    /* What the attempt took, if it lived to tell. */
    bool has_figures;
    double seconds, cpu_seconds, peak_bytes, waited_seconds;
    int64_t documents, chunks, tokens;
};

enum settled { SETTLED_LOST, SETTLED_PENDING, SETTLED_FAILED };

/* Where operations are pushed and announced. */
struct settle_stores {
    struct db *db;
    struct redis *queue, *events;
};

void hand_back_figures(struct hand_back *give, const struct task_end *end);

/* Gives one operation back, in a durable transaction of its own; pushes it when it is due at once, announces it when it
 * failed for good. *out: SETTLED_LOST when the task held it no longer. STATUS_UNAVAILABLE: try again. */
enum status settle_hand_back(struct scope *sc, const struct settle_stores *stores, const struct hand_back *give,
                             enum settled *out) must_check;

/* Sweeps lapsed workers: their operations go back or fail. *out_operations: how many. Call it only after a whole lease
 * of unbroken connection. `since_outage`: seconds since an outage of PostgreSQL that the caller saw, less than 0 =
 * none; a worker that was not heard of since then is not taken for crashed. */
enum status settle_sweep(struct scope *sc, const struct settle_stores *stores, double since_outage,
                         int64_t lease_seconds, int *out_operations) must_check;

/* Ends the database sessions that an attempt may have left. */
void settle_terminate(struct scope *sc, struct db *db, const char *task_id);
