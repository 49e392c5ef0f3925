/* The table `operations`: accept, claim, finish, hand back, cancel, sweep, announce. The invariants of the protocol are
 * in the statements; both programs go through here. Unless it says otherwise a function is one statement in the
 * caller's transaction or in one of its own. */
#pragma once

#include "common/db.h"
#include "common/message.h"
#include "common/operation.h"
#include "common/redis.h"

/* What follows an operation wherever it goes: enough to publish its events. Strings in the arena. */
struct operation_ref {
    char uuid[37];
    char collection_uuid[37]; /* "" = none */
    int64_t user_id;
    const char *type, *status, *queue;
    int attempt;
};

struct operation_new {
    int64_t collection_id; /* 0 = none */
    int64_t user_id;
    enum operation_type type;
    const char *queue;       /* NULL = the kind's; a collection that names its queue has the last word */
    const char *config_json; /* an object, not empty */
    int max_attempts;        /* 0 = 1 + the kind's retries (or DEFAULT_MAX_RETRIES, given as default_retries) */
    int default_retries;
};

/* In the caller's transaction, whose COMMIT must be durable and come before operation_store_push(). STATUS_CONFLICT
 * when another operation holds the collection (unique index operations_one_at_a_time): operation_store_active() names
 * it after the rollback. */
enum status operation_store_insert(struct scope *sc, struct db *db, const struct operation_new *o,
                                   struct operation_ref *out) must_check;
/* An APPEND that adds a source to a collection: source, operation and the collection's state, durable when it returns
 * (outside a transaction) and all or nothing. *out_rows is the operation as clients see it. STATUS_CONFLICT: no such
 * collection of this user, or it is in no state for it; nothing was changed, and the caller tells the client which. */
struct source_addition {
    const char *collection_uuid;
    int64_t user_id; /* who must own it */
    const char *type, *path, *config_json;
    const char *additional_json; /* may be NULL */
    int default_retries;
    bool is_admitted; /* the user's limits were looked at (resource_store.h); else who has some is in no state for it */
};
enum status operation_store_add_source(struct scope *sc, struct db *db, const struct source_addition *a,
                                       struct operation_ref *out, PGresult **out_rows) must_check;
/* The same for several at once, in one statement (not in a transaction): all[i] without a collection_uuid is left out;
 * no collection may come twice. *out_rows has a row for each that was accepted, with `n` = its index; NULL when there
 * was nothing to ask. Who has none must be asked for alone to learn why. When it fails, *out_is_settled tells that
 * certainly nothing was accepted, so that each may be tried alone; otherwise nobody knows. */
enum status operation_store_add_sources(struct scope *sc, struct db *db, const struct source_addition *all,
                                        size_t count, PGresult **out_rows, bool *out_is_settled) must_check;
/* What a row of operation_store_add_sources() is to a queue. */
struct operation_ref operation_store_ref(struct scope *sc, const PGresult *rows, int row);
/* UUID of the operation that holds a collection; STATUS_NOT_FOUND = none. */
enum status operation_store_active(struct scope *sc, struct db *db, int64_t collection_id,
                                   const char **out_uuid) must_check;
/* After the commit: best effort, at most 100 ms (the time-out that `queue_redis` was made with). Counts a failure; the
 * reconciler repairs it. */
void operation_store_push(struct scope *sc, struct redis *queue_redis, const struct operation_ref *o);
/* The same for several: one command for those of a queue. */
void operation_store_push_all(struct scope *sc, struct redis *queue_redis, const struct operation_ref *all,
                              size_t count);

/* STATUS_CONFLICT when it is already finished. In the caller's transaction, which also settles the collection's status
 * (operation_store_settle_collection). */
enum status operation_store_cancel(struct scope *sc, struct db *db, const char *uuid, struct operation_ref *out,
                                   const char **out_worker_id, int64_t *out_collection_id) must_check;
/* What a collection becomes when an operation on it ended, in that operation's transaction (lock order: documents,
 * operations, collections). `status` one of ready, error; message may be NULL. An INDEX that failed: error; everything
 * else: ready. */
enum status operation_store_settle_collection(struct scope *sc, struct db *db, int64_t collection_id,
                                              const char *status, const char *message) must_check;

/* One row of audit_log, action "operation_{type}_{status}". `details_json` may be NULL. */
enum status operation_store_audit(struct scope *sc, struct db *db, const struct operation_ref *o, const char *status,
                                  const char *details_json) must_check;

/* The entries of a cancellation, in its transaction: operation_cancel_requested by `user_id`, and
 * operation_{type}_cancelled with duration and documents_processed. `was`: pending or processing. */
enum status operation_store_audit_cancel(struct scope *sc, struct db *db, const struct operation_ref *o,
                                         int64_t user_id, const char *was) must_check;

/* The last events of some rows (columns of operation_final.sql), each after those of `before` that belong to its
 * operation, in one write; notes which are out. What could not be published is the reconciler's. */
enum status operation_store_announce_rows(struct scope *sc, struct db *db, struct redis *events, const PGresult *rows,
                                          const struct event *before, size_t before_count) must_check;
/* Publishes the last event of a final operation and notes announced_at; nothing happens when it is not final or was
 * announced. `events` is on the stream database. STATUS_UNAVAILABLE: not published, the reconciler will. Call it after
 * the commit. */
enum status operation_store_announce(struct scope *sc, struct db *db, struct redis *events,
                                     const char *uuid) must_check;

/* One round of the reconciler (invariants 1 and 7), under the table lease "reconciler": pushes due operations that were
 * in no queue this time and the time before, announces final ones. A round looks at a page of the due ones, the next
 * round at the next page, and both at what was missing. `memory` is the caller's, zeroed at first;
 * operation_reconciler_done() frees it. STATUS_OK also when another process holds the lease. */
struct operation_reconciler {
    char holder[64];
    char (*missing)[37]; /* absent from all queues in the last round */
    size_t missing_count;
    char after_time[40]; /* the last one of the page before; "" = start again */
    int64_t after_id;
};
enum status operation_store_reconcile(struct scope *sc, struct db *db, struct redis *queue, struct redis *events,
                                      struct operation_reconciler *memory, double lease_seconds) must_check;
void operation_reconciler_done(struct operation_reconciler *memory);
