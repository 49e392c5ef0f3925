/* Taking an operation: a worker's first act on a popped UUID. */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "worker/orders.h"

struct claim {
    char task_id[37];
    enum operation_type type;
    int attempt, failures;
    double waited_seconds;
};

/* One statement. STATUS_CONFLICT: it is not pending, not due, of a kind that this worker does not know, or this worker
 * may not take any: drop the UUID. STATUS_UNAVAILABLE, STATUS_TIMEOUT: nobody knows, ask again. */
enum status claim_operation(struct scope *sc, struct db *db, const struct settings *settings, const char *uuid,
                            const char *worker_id, struct claim *out) must_check;
