#include "worker/attempt.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"
#include "common/store/operation_store.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
    HEARTBEAT_MS = 500,
    HOLD_MS = 5, /* an attempt that takes longer is not brief */
    LOG_PROGRESS_MS = 10000,
    COMMIT_PAUSE_MS = 500,        /* between tries of the last transaction */
    COMMIT_PATIENCE_MS = 1800000, /* a database that is away longer is another attempt's matter */
};

static task_function *const functions[OPERATION_TYPES] = {
#define TASK(type, function, is_brief) [OPERATION_##type] = function,
#include "worker/tasks/tasks.def"
#undef TASK
};

bool task_is_brief(enum operation_type type)
{
    static const bool brief[OPERATION_TYPES] = {
#define TASK(type, function, is_brief) [OPERATION_##type] = is_brief,
#include "worker/tasks/tasks.def"
#undef TASK
    };
    return brief[type] && !operation_kind(type)->mutates;
}

/* ---- the supervisor ---- */

static void tell(const struct task_runtime *rt, const struct report *report)
{
    if (rt->host->channel < 0)
        return;
    ssize_t n = send(rt->host->channel, report, sizeof *report, MSG_NOSIGNAL);
    (void)n; /* a supervisor that is gone takes us with it */
}

static void release_events(struct task *task)
{
    struct task_runtime *rt = task->runtime;
    struct scope own; /* what goes wrong here is nobody's problem */
    scope_init(&own, task->operation_id);
    enum status each[MOST_HELD_EVENTS];
    rt->holds_events = false;
    if (rt->held_count > 0 && message_publish_many(&own, task->events, rt->held, rt->held_count, each) != STATUS_OK)
        log_debug("events_not_published", log_text("operation", task->operation_id),
                  log_text("problem", own.problem_text));
    rt->held_count = 0;
    scope_done(&own);
}

/* It is not brief after all: nothing is kept waiting for its end any more. */
static void become_slow(struct task *task)
{
    struct task_runtime *rt = task->runtime;
    if (rt->holds_events)
        release_events(task);
    if (rt->on_slow && !db_is_busy(task->db)) {
        void (*on_slow)(void *context) = rt->on_slow;
        rt->on_slow = NULL;
        on_slow(rt->slow_context);
    }
}

void attempt_release_events(struct attempt *a)
{
    release_events(&a->task);
}

void task_heartbeat(struct task *task)
{
    struct task_runtime *rt = task->runtime;
    int64_t now = clock_monotonic_ms();
    if ((rt->holds_events || rt->on_slow) && now - rt->started_ms > HOLD_MS)
        become_slow(task);
    if (now - rt->told_alive_ms < HEARTBEAT_MS)
        return;
    rt->told_alive_ms = now;
    tell(rt, &(struct report){.kind = REPORT_ALIVE});
}

static void read_orders(struct task_runtime *rt)
{
    struct order order;
    while (rt->host->channel >= 0) {
        ssize_t n = recv(rt->host->channel, &order, sizeof order, MSG_DONTWAIT);
        if (n == (ssize_t)sizeof order && order.kind == ORDER_STOP)
            rt->is_stopped = true;
        if (n == 0)
            rt->is_stopped = true; /* the supervisor closed its end */
        if (n <= 0)
            return;
    }
}

enum status task_check(struct scope *sc, struct task *task)
{
    struct task_runtime *rt = task->runtime;
    if (rt->is_lost)
        return fail(sc, STATUS_LOST, "the operation belongs to another attempt now");
    read_orders(rt);
    if (rt->is_stopped || (rt->host->is_told && *rt->host->is_told))
        return fail(sc, STATUS_CANCELLED, "told to stop");
    if (clock_monotonic_ms() - rt->started_ms > task->settings->soft_time_limit * 1000)
        return fail(sc, STATUS_TIMEOUT, "took longer than OPERATION_SOFT_TIME_LIMIT (%lld s)",
                    (long long)task->settings->soft_time_limit);
    return STATUS_OK;
}

bool task_has_to_stop(void *context)
{
    struct task *task = context;
    struct scope sc;
    task_heartbeat(task);
    scope_init(&sc, task->operation_id);
    bool is_told = task_check(&sc, task) == STATUS_CANCELLED;
    scope_done(&sc);
    return is_told;
}

/* ---- events ---- */

static void note_progress(struct scope *sc, struct task *task, double percent, const char *current_file)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, task->db, SQL_OPERATION_PROGRESS, &rows, task->operation_id, task->task_id,
                           arena_printf(&sc->arena, "%.3f", percent), db_number(sc, task->processed),
                           db_number(sc, task->failed), task->total >= 0 ? db_number(sc, task->total) : NULL,
                           current_file);
    if (s == STATUS_OK && PQntuples(rows) == 0)
        task->runtime->is_lost = true;
}

static bool may_pass(struct task_runtime *rt, int64_t throttle_ms, int flags)
{
    int64_t now = clock_monotonic_ms();
    if (!(flags & TASK_EVENT_ALWAYS) && now - rt->told_progress_ms < throttle_ms)
        return false;
    rt->told_progress_ms = now;
    return true;
}

static struct event event_of(const struct task *task, const char *type, double percent, const char *data_json)
{
    return (struct event){.type = type,
                          .operation_id = task->operation_id,
                          .collection_id = *task->collection_uuid ? task->collection_uuid : NULL,
                          .user_id = task->user_id,
                          .status = "processing",
                          .progress = percent,
                          .attempt = task->attempt,
                          .data_json = data_json};
}

/* Every stage, and how far it is now and then: enough to see where an attempt was when it ended. */
static void log_stage(const struct task *task, const char *type, double percent)
{
    struct task_runtime *rt = task->runtime;
    int64_t now = clock_monotonic_ms();
    bool is_new = strcmp(type, rt->logged_stage) != 0;
    if (!is_new && now - rt->logged_ms < LOG_PROGRESS_MS)
        return;
    rt->logged_ms = now;
    snprintf(rt->logged_stage, sizeof rt->logged_stage, "%s", type);
    log_info("task_stage", log_text("operation", task->operation_id), log_text("task", task->task_id),
             log_text("worker", task->worker_id), log_int("attempt", task->attempt), log_text("stage", type),
             log_real("percent", percent), log_int("processed", task->processed), log_int("failed", task->failed),
             log_int("total", task->total));
}

/* In the order in which they happened. False: too many, or it is not a time for that. */
static bool hold_event(struct scope *sc, struct task *task, const struct event *e)
{
    struct task_runtime *rt = task->runtime;
    if (!rt->holds_events)
        return false;
    if (rt->held_count == MOST_HELD_EVENTS) {
        release_events(task);
        return false;
    }
    char now[28];
    clock_iso(now);
    struct event *kept = &rt->held[rt->held_count++];
    *kept = *e;
    kept->data_json = arena_strdup(&sc->arena, e->data_json);
    kept->timestamp = arena_strdup(&sc->arena, now);
    return true;
}

void task_event(struct scope *sc, struct task *task, const char *type, double percent, const char *current_file,
                const char *data_json, int flags)
{
    struct task_runtime *rt = task->runtime;
    task_heartbeat(task);
    if (rt->is_lost || !may_pass(rt, task->settings->progress_throttle_ms, flags))
        return;
    struct scope own; /* what goes wrong here is nobody's problem */
    scope_init(&own, sc->trace_id);
    percent = percent < 0 ? 0 : percent > 100 ? 100 : percent;
    log_stage(task, type, percent);
    note_progress(&own, task, percent, current_file);
    struct event event = event_of(task, type, percent, data_json);
    (void)FAULT(BEFORE_PROGRESS_EVENT, task->operation_id);
    if (!rt->is_lost && !hold_event(sc, task, &event) && message_publish(&own, task->events, &event, NULL) != STATUS_OK)
        log_debug("event_not_published", log_text("operation", task->operation_id), log_text("type", type),
                  log_text("problem", own.problem_text));
    scope_done(&own);
}

/* Model: start. */
static void announce_start(struct scope *sc, struct task *task)
{
    log_info("task_started", log_text("operation", task->operation_id), log_text("task", task->task_id),
             log_text("worker", task->worker_id), log_int("attempt", task->attempt),
             log_text("type", operation_kind(task->type)->name));
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "status", "processing");
    json_text(&t, "type", operation_kind(task->type)->name);
    json_int(&t, "attempt", task->attempt);
    json_close(&t, '}');
    struct event event = event_of(task, "operation_started", 0, text_str(&t));
    struct scope own;
    scope_init(&own, sc->trace_id);
    if (!hold_event(sc, task, &event) && message_publish(&own, task->events, &event, NULL) != STATUS_OK)
        log_debug("event_not_published", log_text("operation", task->operation_id), log_text("type", event.type),
                  log_text("problem", own.problem_text));
    scope_done(&own);
}

/* ---- the fence ---- */

enum status task_fence(struct scope *sc, struct task *task)
{
    return db_run(sc, task->db, SQL_FENCE, NULL, task->operation_id, task->task_id);
}

/* Model: fence, commit. */
enum status task_commit(struct scope *sc, struct task *task)
{
    enum status s = task_fence(sc, task);
    if (s == STATUS_OK)
        s = db_commit(sc, task->db);
    else
        db_rollback(task->db);
    if (s == STATUS_OK)
        task->has_committed = true;
    if (s == STATUS_LOST)
        task->runtime->is_lost = true;
    return s;
}

enum status task_progressed(struct scope *sc, struct task *task, int64_t processed, int64_t failed)
{
    enum status s = task_fence(sc, task);
    return s == STATUS_OK ? db_run(sc, task->db, SQL_OPERATION_PROGRESSED, NULL, task->operation_id,
                                   db_number(sc, processed), db_number(sc, failed))
                          : s;
}

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

static void measure(const struct task *task, struct task_end *out)
{
    struct rusage now, helpers;
    getrusage(RUSAGE_SELF, &now);
    getrusage(RUSAGE_CHILDREN, &helpers);
    out->seconds = (double)(clock_monotonic_ms() - task->runtime->started_ms) / 1000;
    out->cpu_seconds = cpu_of(&now) + cpu_of(&helpers) - cpu_of(&task->runtime->usage);
    out->peak_bytes = (double)now.ru_maxrss * 1024;
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
                        "\"documents_processed\":%lld,\"documents_failed\":%lld}",
                        end->seconds, end->cpu_seconds, end->peak_bytes, (long long)task->processed,
                        (long long)task->failed);
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
static enum status finish(struct attempt *a, PGresult **out_rows)
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

/* Told before the last event, but only once it is so: clients look at the collection when they hear of it. */
static void announce_stage(const struct task *task)
{
    struct scope sc;
    if (!task->last_stage)
        return;
    (void)FAULT(AFTER_SWITCH_COMMIT, task->operation_id);
    struct event event = event_of(task, task->last_stage, 100, task->result_json);
    scope_init(&sc, task->operation_id);
    if (message_publish(&sc, task->events, &event, NULL) != STATUS_OK)
        log_debug("event_not_published", log_text("operation", task->operation_id), log_text("type", event.type),
                  log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void announce_end(const struct task *task, const PGresult *rows)
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

/* ---- the beginning ---- */

static enum status read_row(struct attempt *a, const PGresult *rows, int row)
{
    struct scope *sc = &a->sc;
    struct task *task = &a->task;
    if (operation_type_parse(db_text(rows, row, "type"), &task->type) != STATUS_OK || !functions[task->type])
        return fail(sc, STATUS_NOT_IMPLEMENTED, "this worker does not know operations of type %s",
                    db_text(rows, row, "type"));
    const char *collection = db_text(rows, row, "collection_uuid");
    task->collection_id = db_int(rows, row, "collection_id", 0);
    snprintf(task->collection_uuid, sizeof task->collection_uuid, "%s", collection ? collection : "");
    task->user_id = db_int(rows, row, "user_id", 0);
    task->attempt = (int)db_int(rows, row, "attempt", 0);
    task->failures = (int)db_int(rows, row, "failures", 0);
    task->max_attempts = (int)db_int(rows, row, "max_attempts", 1);
    task->processed = task->earlier_processed = db_int(rows, row, "processed", 0);
    task->failed = task->earlier_failed = db_int(rows, row, "failed", 0);
    task->last_reason = arena_strdup(&sc->arena, db_text(rows, row, "last_reason"));
    a->facts.type = task->type;
    a->facts.failures = task->failures;
    const char *config = db_text(rows, row, "config");
    enum status s = json_parse(sc, config, strlen(config), &a->config);
    task->config = s == STATUS_OK ? a->config : NULL;
    return s;
}

enum status attempts_load(struct attempt *const *attempts, size_t count)
{
    struct scope *sc = &attempts[0]->sc;
    struct db *db = attempts[0]->task.db;
    scoped_text uuids = {0};
    scoped_text tasks = {0};
    scoped(PGresult) *rows = NULL;
    for (size_t i = 0; i < count; i++) {
        db_array_put(&uuids, attempts[i]->task.operation_id);
        db_array_put(&tasks, attempts[i]->task.task_id);
        attempts[i]->status = STATUS_LOST;
    }
    db_rename(db, attempts[0]->task.task_id);
    enum status s = db_run_kept(sc, db, SQL_OPERATION_ATTEMPT, &rows, db_array_end(&uuids), db_array_end(&tasks),
                                attempts[0]->task.task_id);
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        size_t turn = (size_t)db_int(rows, r, "turn", 0);
        if (turn >= 1 && turn <= count)
            attempts[turn - 1]->status = read_row(attempts[turn - 1], rows, r);
    }
    for (size_t i = 0; i < count; i++) {
        struct attempt *a = attempts[i];
        if (s != STATUS_OK)
            a->status = fail(&a->sc, s, "%s", sc->problem_text ? sc->problem_text : status_text(s));
        else if (a->status == STATUS_LOST)
            (void)fail(&a->sc, STATUS_LOST, "the operation belongs to another attempt now");
    }
    return s;
}

static double jitter(void)
{
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    return (double)random / UINT32_MAX;
}

void attempt_log_end(const struct attempt *a)
{
    const struct task *task = &a->task;
    static const char *const events[] = {"task_completed", "task_failed", "task_handed_back", "task_stopped",
                                         "task_lost"};
    enum log_level level = a->status == STATUS_OK || a->end.outcome >= TASK_STOPPED ? LOG_INFO
                           : a->status == STATUS_INTERNAL                           ? LOG_ERROR
                                                                                    : LOG_WARNING;
    const char *problem = a->status == STATUS_OK ? NULL
                          : a->sc.problem_text   ? a->sc.problem_text
                                                 : status_text(a->status);
    if (a->end.outcome == TASK_LOST)
        metrics_add(METRIC_FENCE_REFUSALS, operation_kind(task->type)->name, NULL, 1);
    log_at(level, events[a->end.outcome], log_text("operation", task->operation_id), log_text("task", task->task_id),
           log_text("worker", task->worker_id), log_int("attempt", task->attempt),
           log_text("type", operation_kind(task->type)->name), log_int("processed", task->processed),
           log_int("failed", task->failed), log_real("seconds", a->end.seconds),
           log_real("cpu_seconds", a->end.cpu_seconds), log_text("problem", problem));
}

static void judge(struct attempt *a)
{
    struct task *task = &a->task;
    enum status s = a->status;
    a->facts.has_committed = task->has_committed;
    a->facts.has_progressed = task->has_progressed;
    a->facts.is_over_limit = clock_monotonic_ms() - a->runtime.started_ms > task->settings->soft_time_limit * 1000;
    struct task_verdict verdict = task_judge(s, &a->facts);
    const char *problem = a->sc.problem_text ? a->sc.problem_text : status_text(s);
    a->end = (struct task_end){.outcome = verdict.outcome,
                               .class = s == STATUS_OK ? ERROR_NONE : status_class(s),
                               .is_counted = verdict.is_counted,
                               .ended = s == STATUS_TIMEOUT && a->facts.is_over_limit ? ATTEMPT_SOFT_LIMIT
                                                                                      : ATTEMPT_FAILED,
                               .delay_seconds = verdict.delay_seconds};
    snprintf(a->end.reason, sizeof a->end.reason, "%s",
             s == STATUS_OK ? "" : task_public_text(&a->sc, task->settings, s, problem));
    a->end.is_outage = s == STATUS_UNAVAILABLE && task_problem_is_of_database(problem);
    measure(task, &a->end);
}

void attempt_work(struct attempt *a)
{
    struct task *task = &a->task;
    a->runtime.started_ms = clock_monotonic_ms();
    if (a->status == STATUS_OK) {
        announce_start(&a->sc, task);
        (void)FAULT(START_ANNOUNCED, task->operation_id);
        db_on_wait(task->db, task_has_to_stop, task);
        a->status = functions[task->type](&a->sc, task);
        db_on_wait(task->db, NULL, NULL);
        db_rollback(task->db); /* nothing may be left open, whatever went wrong */
    }
    judge(a);
}

void attempt_not_recorded(struct attempt *a, enum status s)
{
    a->end.outcome = TASK_HAND_BACK;
    a->end.ended = ATTEMPT_FAILED;
    a->end.is_counted = true;
    a->end.is_outage = s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT;
    a->end.class = status_class(s);
    a->end.delay_seconds = task_judge(s, &a->facts).delay_seconds;
    snprintf(a->end.reason, sizeof a->end.reason, "its end could not be recorded: %s", status_text(s));
}

void attempt_init(struct attempt *a, const struct task_host *host, const char *operation_id, const char *task_id,
                  const char *worker_id)
{
    scope_init(&a->sc, operation_id);
    a->runtime = (struct task_runtime){
        .host = host, .started_ms = clock_monotonic_ms(), .told_progress_ms = INT64_MIN / 2};
    getrusage(RUSAGE_SELF, &a->runtime.usage);
    struct rusage helpers;
    getrusage(RUSAGE_CHILDREN, &helpers);
    timeradd(&a->runtime.usage.ru_utime, &helpers.ru_utime, &a->runtime.usage.ru_utime);
    timeradd(&a->runtime.usage.ru_stime, &helpers.ru_stime, &a->runtime.usage.ru_stime);
    a->task = (struct task){.settings = host->settings,
                            .db = host->db,
                            .events = host->events,
                            .embedder_socket = host->embedder_socket,
                            .executable = "/proc/self/exe",
                            .total = -1,
                            .runtime = &a->runtime};
    snprintf(a->task.operation_id, sizeof a->task.operation_id, "%s", operation_id);
    snprintf(a->task.task_id, sizeof a->task.task_id, "%s", task_id);
    snprintf(a->task.worker_id, sizeof a->task.worker_id, "%s", worker_id);
    a->facts = (struct task_facts){
        .type = OPERATION_NOOP, .jitter = jitter(), .default_retry_delay = (int)host->settings->default_retry_delay};
}

void attempt_done(struct attempt *a)
{
    cJSON_Delete(a->config);
    a->config = NULL;
    scope_done(&a->sc);
}

void task_execute(const struct task_host *host, const char *operation_id, const char *task_id, const char *worker_id,
                  struct task_end *out)
{
    struct attempt a = {0}, *one = &a;
    (void)FAULT(TASK_RECEIVED, operation_id);
    attempt_init(&a, host, operation_id, task_id, worker_id);
    if (attempts_load(&one, 1) != STATUS_OK)
        log_debug("attempt_not_loaded", log_text("operation", operation_id), log_text("problem", a.sc.problem_text));
    (void)FAULT(TASK_LOADED, operation_id);
    attempt_work(&a);
    if (a.end.outcome == TASK_COMPLETED || a.end.outcome == TASK_FAILED) {
        scoped(PGresult) *rows = NULL;
        enum status ended = finish(&a, &rows);
        if (ended == STATUS_OK && a.end.outcome == TASK_COMPLETED)
            announce_stage(&a.task);
        if (ended == STATUS_OK)
            announce_end(&a.task, rows);
        else if (ended == STATUS_LOST)
            a.end.outcome = TASK_LOST;
        else
            attempt_not_recorded(&a, ended);
    }
    attempt_log_end(&a);
    (void)FAULT(BEFORE_END_REPORTED, operation_id);
    *out = a.end;
    attempt_done(&a);
}
