/* The table `sync_runs`, and when a continuous collection is followed next. How a run ended is written by a trigger of
 * the database when its operation ends, in whatever way (sql/migrations/0008_sync_and_schedule.sql). */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "common/store/operation_store.h"

/* Collections that are due, the longest overdue first: rows of id, uuid, owner_id. */
enum status sync_store_due(struct scope *sc, struct db *db, int limit, PGresult **out_rows) must_check;
/* Records the run of an operation that was inserted in this transaction and took the collection. `triggered_by`:
 * schedule or user. STATUS_CONFLICT: a scheduled one is not due any more, or the collection is not continuous.
 * *out_rows (may be NULL) is the run as clients see it. */
enum status sync_store_begin(struct scope *sc, struct db *db, int64_t collection_id, const char *operation_id,
                             const char *triggered_by, PGresult **out_rows) must_check;
/* A page of a collection's runs, newest first; always at least one row, for its `total`. */
enum status sync_store_list(struct scope *sc, struct db *db, int64_t collection_id, int limit, int64_t offset,
                            PGresult **out_rows) must_check;
/* Pauses or resumes; the collection as clients see it. STATUS_INVALID: it is not continuous. */
enum status sync_store_pause(struct scope *sc, struct db *db, int64_t collection_id, bool is_paused,
                             PGresult **out_rows) must_check;
/* A due collection that cannot be accepted now is due again in a minute, so that it does not stand before others. */
enum status sync_store_put_off(struct scope *sc, struct db *db, int64_t collection_id) must_check;
/* Accepts a scheduled sync of a collection as the API would accept one of its owner's: operation, collection and run in
 * one transaction. STATUS_CONFLICT: something else holds the collection, or it is not due; STATUS_RATE_LIMITED: its
 * owner runs as many operations as he may; nothing was changed. Push `out` after it. */
enum status sync_store_dispatch(struct scope *sc, struct db *db, const struct settings *settings, int64_t collection_id,
                                int64_t owner_id, struct operation_ref *out) must_check;
/* `config` of a sync operation. */
const char *sync_store_config(struct scope *sc, const char *triggered_by);

struct sync_counts {
    int64_t added, modified, deleted, unchanged;
};
/* Adds to the run of an operation, in a fenced transaction of its attempt. */
enum status sync_store_count(struct scope *sc, struct db *db, const char *operation_id,
                             const struct sync_counts *counts) must_check;
struct sync_outcome {
    int completed_sources, failed_sources, partial_sources;
    int64_t found, failed; /* files that are there; documents that failed */
};
/* How far its sources came, in a fenced transaction; *out_counts is all that was counted by all attempts. */
enum status sync_store_outcome(struct scope *sc, struct db *db, const char *operation_id,
                               const struct sync_outcome *outcome, struct sync_counts *out_counts) must_check;
