#include "worker/settle.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/store/operation_store.h"
#include "worker/task_run.h"

#include <stdio.h>
#include <string.h>

enum { WORKERS_A_SWEEP = 20 };

static const char *const end_names[] = {"handed_back", "failed", "soft_limit", "drained",
                                        "crash",       "silent", "hard_limit"};

/* A row of operation_hand_back.sql or workers_sweep.sql. */
struct given_back {
    struct operation_ref ref;
    int64_t collection_id;
    enum operation_type type;
    const char *task_id, *reason;
    const char *ended; /* how the attempt did */
    bool is_failed;
    double seconds; /* of the attempt */
    int64_t processed;
};

static const char *kept(struct scope *sc, const PGresult *rows, int row, const char *column)
{
    const char *value = db_text(rows, row, column);
    return arena_strdup(&sc->arena, value ? value : "");
}

static struct given_back read_row(struct scope *sc, const PGresult *rows, int row, const char *uuid)
{
    struct given_back g = {.collection_id = db_int(rows, row, "collection_id", 0),
                           .reason = kept(sc, rows, row, "error_message"),
                           .seconds = db_real(rows, row, "seconds", 0),
                           .processed = db_int(rows, row, "processed", 0)};
    g.ref.user_id = db_int(rows, row, "user_id", 0);
    g.ref.type = kept(sc, rows, row, "type");
    g.ref.status = kept(sc, rows, row, "status");
    g.ref.queue = kept(sc, rows, row, "queue");
    g.ref.attempt = (int)db_int(rows, row, "attempt", 0);
    snprintf(g.ref.uuid, sizeof g.ref.uuid, "%s", uuid);
    snprintf(g.ref.collection_uuid, sizeof g.ref.collection_uuid, "%s", kept(sc, rows, row, "collection_uuid"));
    g.is_failed = strcmp(g.ref.status, "failed") == 0;
    if (operation_type_parse(g.ref.type, &g.type) != STATUS_OK)
        g.type = OPERATION_NOOP;
    return g;
}

static const char *kept_or(struct scope *sc, const PGresult *rows, int row, const char *column, const char *fallback)
{
    const char *value = db_text(rows, row, column);
    return value ? arena_strdup(&sc->arena, value) : fallback;
}

/* In the transaction that made it fail. */
static enum status settle_failed(struct scope *sc, struct db *db, const struct given_back *g)
{
    if (!g->is_failed)
        return STATUS_OK;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "attempt", g->ref.attempt);
    json_text(&t, "error", g->reason);
    json_real(&t, "duration", g->seconds);
    json_int(&t, "documents_processed", g->processed);
    json_close(&t, '}');
    enum status s = operation_store_audit(sc, db, &g->ref, "failed", text_str(&t));
    if (s == STATUS_OK && g->collection_id != 0 && operation_kind(g->type)->mutates)
        s = operation_store_settle_collection(sc, db, g->collection_id, task_failed_collection_status(g->type),
                                              task_failed_collection_message(sc, g->type, g->reason));
    return s;
}

/* In the same transaction: figures, and what the log says of an operation that will be tried again. `how`: retried or
 * swept. */
static enum status note_given_back(struct scope *sc, struct db *db, const struct given_back *g, const char *how,
                                   const char *figures)
{
    return db_run(sc, db, SQL_ATTEMPT_GIVEN_BACK, NULL, g->ref.uuid, g->is_failed ? NULL : how, figures);
}

/* NULL: the attempt told none (it died). */
static const char *figures_of(struct scope *sc, const struct hand_back *give)
{
    if (!give->has_figures)
        return NULL;
    return arena_printf(&sc->arena,
                        "{\"duration_seconds\":%.6f,\"cpu_seconds\":%.6f,\"memory_peak_bytes\":%.0f,"
                        "\"documents_processed\":%lld,\"chunks\":%lld,\"tokens\":%lld,\"queue_wait_seconds\":%.6f}",
                        give->seconds, give->cpu_seconds, give->peak_bytes, (long long)give->documents,
                        (long long)give->chunks, (long long)give->tokens, give->waited_seconds);
}

/* After the COMMIT: best effort, the reconciler does what is missed here. */
static void tell(struct scope *sc, const struct settle_stores *stores, const struct given_back *g, bool is_due)
{
    struct scope own;
    scope_init(&own, sc->trace_id);
    if (g->is_failed)
        metrics_add(METRIC_OPERATIONS, g->ref.type, "failed", 1);
    if (g->is_failed && operation_store_announce(&own, stores->db, stores->events, g->ref.uuid) != STATUS_OK)
        log_debug("end_not_announced", log_text("operation", g->ref.uuid), log_text("problem", own.problem_text));
    if (!g->is_failed && is_due)
        operation_store_push(&own, stores->queue, &g->ref);
    scope_done(&own);
}

static void count_hand_back(const struct given_back *g, const struct hand_back *give)
{
    metrics_add(METRIC_HAND_BACKS, g->ref.type, g->ended, 1);
    if (give->is_counted && !g->is_failed)
        metrics_add(METRIC_RETRIES, g->ref.type, error_class_name(give->class), 1);
}

static void log_hand_back(const struct given_back *g, const struct hand_back *give, const char *not_before)
{
    log_info("operation_handed_back", log_text("operation", g->ref.uuid), log_text("task", give->task_id),
             log_int("attempt", g->ref.attempt), log_text("type", g->ref.type), log_text("ended", g->ended),
             log_text("status", g->ref.status), log_text("reason", g->reason),
             log_real("delay_seconds", give->delay_seconds), log_text("not_before", g->is_failed ? NULL : not_before));
}

void hand_back_figures(struct hand_back *give, const struct task_end *end)
{
    give->has_figures = true;
    give->seconds = end->seconds;
    give->cpu_seconds = end->cpu_seconds;
    give->peak_bytes = end->peak_bytes;
    give->waited_seconds = end->waited_seconds;
    give->documents = end->documents;
    give->chunks = end->chunks;
    give->tokens = end->tokens;
}

/* Model: hand back. */
enum status settle_hand_back(struct scope *sc, const struct settle_stores *stores, const struct hand_back *give,
                             enum settled *out)
{
    scoped(PGresult) *rows = NULL;
    struct given_back g = {0};
    enum status s = db_begin(sc, stores->db);
    if (s == STATUS_OK)
        s = db_run(sc, stores->db, SQL_OPERATION_HAND_BACK, &rows, give->operation_id, give->task_id,
                   arena_printf(&sc->arena, "%.3f", give->delay_seconds), give->is_counted ? "true" : "false",
                   give->class == ERROR_NONE ? NULL : error_class_name(give->class), give->reason,
                   end_names[give->ended]);
    bool is_ours = s == STATUS_OK && PQntuples(rows) == 1;
    if (is_ours) {
        g = read_row(sc, rows, 0, give->operation_id);
        g.ended = kept_or(sc, rows, 0, "ended", "handed_back");
        s = settle_failed(sc, stores->db, &g);
        if (s == STATUS_OK)
            s = note_given_back(sc, stores->db, &g, "retried", figures_of(sc, give));
        (void)FAULT(BEFORE_HAND_BACK_COMMIT, give->operation_id);
    }
    if (s == STATUS_OK)
        s = db_commit(sc, stores->db);
    else
        db_rollback(stores->db);
    if (s != STATUS_OK)
        return s;
    *out = !is_ours ? SETTLED_LOST : g.is_failed ? SETTLED_FAILED : SETTLED_PENDING;
    (void)FAULT(AFTER_HAND_BACK_COMMIT, give->operation_id);
    if (is_ours) {
        count_hand_back(&g, give);
        log_hand_back(&g, give, kept_or(sc, rows, 0, "not_before", NULL));
        tell(sc, stores, &g, db_bool(rows, 0, "is_due"));
    }
    return STATUS_OK;
}

void settle_terminate(struct scope *sc, struct db *db, const char *task_id)
{
    struct scope own;
    scope_init(&own, sc->trace_id);
    if (task_id && *task_id && db_run(&own, db, SQL_SESSIONS_TERMINATE, NULL, task_id) != STATUS_OK)
        log_debug("sessions_not_terminated", log_text("task", task_id), log_text("problem", own.problem_text));
    scope_done(&own);
}

/* Before anything of theirs is tried again: a frozen worker's own sessions may hold locks, too. */
static void terminate_workers(struct scope *sc, struct db *db, const PGresult *swept)
{
    struct scope own;
    scope_init(&own, sc->trace_id);
    if (db_int(swept, 0, "workers", 0) > 0 &&
        db_run(&own, db, SQL_WORKER_SESSIONS_TERMINATE, NULL, db_text(swept, 0, "ids")) != STATUS_OK)
        log_debug("worker_sessions_not_terminated", log_text("problem", own.problem_text));
    scope_done(&own);
}

/* Model: sweep. */
enum status settle_sweep(struct scope *sc, const struct settle_stores *stores, double since_outage,
                         int64_t lease_seconds, int *out_operations)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_begin(sc, stores->db);
    if (s == STATUS_OK)
        s = db_run(sc, stores->db, SQL_WORKERS_SWEEP, &rows, db_number(sc, WORKERS_A_SWEEP),
                   since_outage >= 0 ? arena_printf(&sc->arena, "%.3f", since_outage) : NULL,
                   db_number(sc, lease_seconds));
    int count = s == STATUS_OK && db_text(rows, 0, "uuid") ? PQntuples(rows) : 0;
    struct given_back *all = arena_array(&sc->arena, (size_t)count + 1, sizeof *all);
    for (int r = 0; r < count && s == STATUS_OK; r++) {
        all[r] = read_row(sc, rows, r, db_text(rows, r, "uuid"));
        all[r].task_id = kept(sc, rows, r, "task_id");
        s = settle_failed(sc, stores->db, &all[r]);
        if (s == STATUS_OK)
            s = note_given_back(sc, stores->db, &all[r], "swept", NULL);
    }
    if (count > 0)
        (void)FAULT(BEFORE_SWEEP_COMMIT, all[0].ref.uuid);
    if (s == STATUS_OK)
        s = db_commit(sc, stores->db);
    else
        db_rollback(stores->db);
    if (s != STATUS_OK)
        return s;
    if (count > 0)
        (void)FAULT(AFTER_SWEEP_COMMIT, all[0].ref.uuid);
    terminate_workers(sc, stores->db, rows);
    for (int r = 0; r < count; r++) {
        settle_terminate(sc, stores->db, all[r].task_id);
        log_warning("operation_swept", log_text("operation", all[r].ref.uuid), log_text("task", all[r].task_id),
                    log_text("worker", kept(sc, rows, r, "worker_id")), log_int("attempt", all[r].ref.attempt),
                    log_text("type", all[r].ref.type), log_text("status", all[r].ref.status),
                    log_text("reason", all[r].reason));
        metrics_add(METRIC_OPERATIONS_SWEPT, all[r].ref.type, all[r].ref.status, 1);
        if (!all[r].is_failed)
            metrics_add(METRIC_RETRIES, all[r].ref.type, error_class_name(ERROR_INTERNAL), 1);
        tell(sc, stores, &all[r], true);
    }
    if (db_int(rows, 0, "workers", 0) > 0) {
        log_warning("workers_swept", log_text("workers", db_text(rows, 0, "ids")), log_int("operations", count));
        metrics_add(METRIC_WORKERS_SWEPT, NULL, NULL, db_real(rows, 0, "workers", 0));
    }
    *out_operations = count;
    return STATUS_OK;
}
