/* The end of attempts: what it cost, the last transaction, and who is told. */
#include "worker/attempt.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/machine.h"
#include "common/store/operation_store.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum {
    COMMIT_PAUSE_MS = 500,        /* between tries of the last transaction */
    COMMIT_PATIENCE_MS = 1800000, /* a database that is away longer is another attempt's matter */
};

/* ---- what becomes of the collection ---- */

const char *task_failed_collection_status(enum operation_type type)
{
    return type == OPERATION_INDEX ? "error" : "ready";
}

const char *task_failed_collection_message(struct scope *sc, enum operation_type type, const char *reason)
{
    if (type == OPERATION_INDEX)
        return arena_printf(&sc->arena, "Initial indexing failed: %s", reason);
    return arena_printf(&sc->arena, "%s failed: %s", operation_kind(type)->name, reason);
}

/* ---- the end ---- */

static double cpu_of(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

void attempt_measure(const struct task *task, struct task_end *out)
{
    struct rusage now, helpers;
    getrusage(RUSAGE_SELF, &now);
    getrusage(RUSAGE_CHILDREN, &helpers);
    out->seconds = (double)(clock_monotonic_ms() - task->runtime->started_ms) / 1000;
    out->cpu_seconds = cpu_of(&now) + cpu_of(&helpers) - cpu_of(&task->runtime->usage);
    out->peak_bytes = (double)now.ru_maxrss * 1024;
    int64_t peak = task->runtime->has_own_peak ? machine_peak() : -1;
    if (peak >= 0)
        out->peak_bytes = (double)peak;
    out->documents = task->processed - task->earlier_processed;
    out->chunks = task->chunks;
    out->tokens = task->tokens;
    out->waited_seconds = task->runtime->waited_seconds;
}

static const char *audit_details(struct scope *sc, const struct task *task, const struct task_end *end)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_real(&t, "duration", end->seconds);
    json_int(&t, "documents_processed", task->processed);
    json_int(&t, "documents_failed", task->failed);
    json_int(&t, "attempt", task->attempt);
    if (end->outcome == TASK_FAILED)
        json_text(&t, "error", end->reason);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static const char *figures(struct scope *sc, const struct task *task, const struct task_end *end)
{
    return arena_printf(&sc->arena,
                        "{\"duration_seconds\":%.6f,\"cpu_seconds\":%.6f,\"memory_peak_bytes\":%.0f,"
                        "\"documents_processed\":%lld,\"documents_failed\":%lld,\"chunks\":%lld,\"tokens\":%lld,"
                        "\"retries\":%d,\"queue_wait_seconds\":%.6f}",
                        end->seconds, end->cpu_seconds, end->peak_bytes,
                        (long long)(task->processed - task->earlier_processed),
                        (long long)(task->failed - task->earlier_failed), (long long)task->chunks,
                        (long long)task->tokens, task->attempt > 1 ? task->attempt - 1 : 0, end->waited_seconds);
}

/* The parameters of operation_end.sql. */
enum { END_COLUMNS = 11 };

static void put_end(struct scope *sc, struct text *columns, const struct attempt *a)
{
    const struct task *task = &a->task;
    const struct task_end *end = &a->end;
    bool is_failed = end->outcome == TASK_FAILED;
    const char *const values[END_COLUMNS] = {
        task->operation_id,
        task->task_id,
        is_failed ? "failed" : "completed",
        is_failed ? error_class_name((enum error_class)end->class) : NULL,
        is_failed ? end->reason : NULL,
        is_failed           ? NULL
        : task->result_json ? task->result_json
                            : "{}",
        db_number(sc, task->processed),
        db_number(sc, task->failed),
        task->total >= 0 ? db_number(sc, task->total) : NULL,
        audit_details(sc, task, end),
        figures(sc, task, end),
    };
    for (size_t c = 0; c < END_COLUMNS; c++)
        db_array_put(&columns[c], values[c]);
}

static void mark_lost(struct attempt *const *attempts, size_t count, const PGresult *rows)
{
    if ((size_t)PQntuples(rows) == count)
        return;
    for (size_t i = 0; i < count; i++) {
        bool is_found = false;
        for (int r = 0; r < PQntuples(rows) && !is_found; r++)
            is_found = strcmp(db_text(rows, r, "uuid"), attempts[i]->task.operation_id) == 0;
        if (!is_found)
            attempts[i]->end.outcome = TASK_LOST;
    }
}

enum status attempts_end(struct scope *sc, struct db *db, struct attempt *const *attempts, size_t count, PGresult **out)
{
    struct text columns[END_COLUMNS] = {0};
    const char *params[END_COLUMNS];
    for (size_t i = 0; i < count; i++)
        put_end(sc, columns, attempts[i]);
    for (size_t c = 0; c < END_COLUMNS; c++)
        params[c] = db_array_end(&columns[c]);
    enum status s = db_query_kept(sc, db, SQL_OPERATION_END, END_COLUMNS, params, out);
    for (size_t c = 0; c < END_COLUMNS; c++)
        text_free(&columns[c]);
    if (s == STATUS_OK)
        mark_lost(attempts, count, *out);
    return s;
}

static bool holds_collection(const struct task *task)
{
    return task->collection_id != 0 && operation_kind(task->type)->mutates;
}

static enum status settle_collection(struct scope *sc, struct task *task, const struct task_end *end)
{
    if (end->outcome == TASK_FAILED)
        return operation_store_settle_collection(sc, task->db, task->collection_id,
                                                 task_failed_collection_status(task->type),
                                                 task_failed_collection_message(sc, task->type, end->reason));
    if (!task->collection_status)
        return STATUS_OK;
    return operation_store_settle_collection(sc, task->db, task->collection_id, task->collection_status,
                                             task->collection_message);
}

/* What a task has its whole effect in. */
static enum status do_with_end(struct scope *sc, struct attempt *a)
{
    struct task *task = &a->task;
    if (a->end.outcome != TASK_COMPLETED || !task->in_last_transaction)
        return STATUS_OK;
    return task->in_last_transaction(sc, task);
}

/* End, audit, figures and collection: one durable COMMIT. Lock order: documents (in_last_transaction), operations,
 * collections. Model: end. */
static enum status commit_end(struct scope *sc, struct attempt *a, PGresult **out_rows)
{
    struct task *task = &a->task;
    if (FAULT(BEFORE_ACK, task->operation_id))
        return STATUS_UNAVAILABLE;
    bool is_alone = !holds_collection(task); /* a statement is a transaction */
    enum status s = is_alone ? STATUS_OK : db_begin(sc, task->db);
    if (s == STATUS_OK && !is_alone)
        s = do_with_end(sc, a);
    if (s == STATUS_OK)
        s = attempts_end(sc, task->db, &a, 1, out_rows);
    if (s == STATUS_OK && a->end.outcome == TASK_LOST)
        s = fail(sc, STATUS_LOST, "the operation belongs to another attempt now");
    (void)FAULT(END_WRITTEN, task->operation_id);
    if (is_alone)
        return s;
    if (s == STATUS_OK)
        s = settle_collection(sc, task, &a->end);
    (void)FAULT(BEFORE_END_COMMIT, task->operation_id);
    if (s == STATUS_OK)
        return db_commit(sc, task->db);
    db_rollback(task->db);
    return s;
}

/* After a COMMIT that was not answered, and before another try: what does the row say? STATUS_OK: it is finished as we
 * meant it to be; STATUS_LOST: it is somebody else's; STATUS_CONFLICT: it is ours still. */
static enum status look_at_row(struct scope *sc, struct task *task, const char *wanted)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, task->db, SQL_OPERATION_STATE, &rows, task->operation_id);
    if (s != STATUS_OK)
        return s;
    const char *status = PQntuples(rows) ? db_text(rows, 0, "status") : "";
    const char *task_id = PQntuples(rows) ? db_text(rows, 0, "task_id") : NULL;
    if (!task_id || strcmp(task_id, task->task_id) != 0)
        return STATUS_LOST;
    if (strcmp(status, wanted) == 0)
        return STATUS_OK;
    return strcmp(status, "processing") == 0 ? STATUS_CONFLICT : STATUS_LOST;
}

/* Tries until the database has answered: work that is done is not thrown away because it is away for a while. *out_rows
 * is what the last event says, NULL when the answer that told it got lost. */
/* A reindex switches all documents in the last transaction; nobody takes the process for dead meanwhile. */
static bool is_alive(void *context)
{
    task_heartbeat(context);
    return false;
}

static enum status try_to_finish(struct attempt *a, PGresult **out_rows)
{
    struct task *task = &a->task;
    const char *wanted = a->end.outcome == TASK_FAILED ? "failed" : "completed";
    int64_t give_up_ms = clock_monotonic_ms() + COMMIT_PATIENCE_MS;
    for (bool is_sure = true;;) {
        struct scope sc;
        scope_init(&sc, task->operation_id);
        enum status s = is_sure ? STATUS_CONFLICT : look_at_row(&sc, task, wanted);
        if (s == STATUS_CONFLICT) {
            PQclear(*out_rows);
            *out_rows = NULL;
            s = commit_end(&sc, a, out_rows);
            is_sure = s != STATUS_UNAVAILABLE && s != STATUS_TIMEOUT;
        }
        bool is_passing = s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT;
        if (s != STATUS_OK && s != STATUS_LOST)
            log_warning("task_end_not_committed", log_text("operation", task->operation_id),
                        log_text("task", task->task_id), log_text("problem", sc.problem_text));
        bool is_over = !is_passing || clock_monotonic_ms() > give_up_ms;
        if (is_passing && !is_over)
            is_over = task_check(&sc, task) == STATUS_CANCELLED;
        scope_done(&sc);
        if (is_over)
            return s;
        poll(NULL, 0, COMMIT_PAUSE_MS);
        task_heartbeat(task);
    }
}

enum status attempt_finish(struct attempt *a, PGresult **out_rows)
{
    db_on_wait(a->task.db, is_alive, &a->task);
    enum status s = try_to_finish(a, out_rows);
    db_on_wait(a->task.db, NULL, NULL);
    return s;
}

void attempt_announce_end(const struct task *task, const PGresult *rows)
{
    if (FAULT(AFTER_FINAL_BEFORE_ANNOUNCE, task->operation_id))
        return;
    struct scope sc;
    scope_init(&sc, task->operation_id);
    enum status s = rows ? operation_store_announce_rows(&sc, task->db, task->events, rows, NULL, 0)
                         : operation_store_announce(&sc, task->db, task->events, task->operation_id);
    if (s != STATUS_OK)
        log_debug("end_not_announced", log_text("operation", task->operation_id), log_text("problem", sc.problem_text));
    scope_done(&sc);
}
