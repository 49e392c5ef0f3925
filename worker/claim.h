/* Taking an operation: a worker's first act on a popped UUID. */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "worker/orders.h"

struct claim {
    char operation_id[37], task_id[37];
    enum operation_type type;
    int attempt;
    size_t turn; /* its place among those that were asked for, from 1 */
};

/* One statement. STATUS_CONFLICT: it is not pending, not due, of a kind that this worker does not know, or this worker
 * may not take any: drop the UUID. STATUS_UNAVAILABLE, STATUS_TIMEOUT: nobody knows, ask again. */
enum status claim_operation(struct scope *sc, struct db *db, const struct settings *settings, const char *uuid,
                            const char *worker_id, struct claim *out) must_check;
/* Takes those of some popped operations that are of a brief kind, by one statement. In *out, which has room for
 * `count`, in the order in which they were popped. */
enum status claim_many(struct scope *sc, struct db *db, const struct settings *settings, char (*uuids)[37],
                       size_t count, const char *worker_id, struct claim *out, size_t *out_count) must_check;
/* Which of some operations this worker could take now. */
enum status claim_wanted(struct scope *sc, struct db *db, const struct settings *settings, char (*uuids)[37],
                         size_t count, bool *out_is_wanted) must_check;
