/* Operations as clients read them; changing them is operation_store.h's. Rows; caller: scoped(PGresult). */
#pragma once

#include "common/db.h"

/* STATUS_NOT_FOUND with the sentence. Beside the object's fields: user_id, owner_id, is_public. `names_workers`: the
 * attempts say which task and worker they were, which are names of hosts and for superusers only. */
enum status operation_view_find(struct scope *sc, struct db *db, const char *uuid, bool names_workers,
                                PGresult **out_rows) must_check;

/* What it took: totals, `attempts` and `estimate` (JSON). STATUS_NOT_FOUND. */
enum status operation_view_metrics(struct scope *sc, struct db *db, const char *uuid, PGresult **out_rows) must_check;

struct operation_filter {
    int64_t user_id;            /* 0 = any */
    int64_t collection_id;      /* 0 = any */
    const char *states, *types; /* arrays as PostgreSQL writes them ("{pending,processing}"), NULL = all */
};
/* Newest first; always at least one row, for its `total`. */
enum status operation_view_list(struct scope *sc, struct db *db, const struct operation_filter *filter, int limit,
                                int64_t offset, PGresult **out_rows) must_check;
