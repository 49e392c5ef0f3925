#include "worker/attempt.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/machine.h"
#include "common/metrics.h"
#include "worker/resources.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

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

enum status task_commit_note(struct scope *sc, struct task *task, enum status s)
{
    bool has_committed = task->has_committed;
    if (s == STATUS_OK)
        s = task_commit(sc, task);
    else
        db_rollback(task->db);
    task->has_committed = has_committed;
    return s;
}

enum status task_progressed(struct scope *sc, struct task *task, int64_t processed, int64_t failed)
{
    enum status s = task_fence(sc, task);
    return s == STATUS_OK ? db_run(sc, task->db, SQL_OPERATION_PROGRESSED, NULL, task->operation_id,
                                   db_number(sc, processed), db_number(sc, failed))
                          : s;
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
    task->runtime->waited_seconds = db_real(rows, row, "waited_seconds", 0);
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
    attempt_measure(task, &a->end);
}

void attempt_work(struct attempt *a)
{
    struct task *task = &a->task;
    a->runtime.started_ms = clock_monotonic_ms();
    if (a->status == STATUS_OK) {
        task_announce_start(&a->sc, task);
        (void)FAULT(START_ANNOUNCED, task->operation_id);
        db_on_wait(task->db, task_has_to_stop, task);
        if (!task_is_brief(task->type))
            a->status = resources_check(&a->sc, task->settings);
        if (a->status == STATUS_OK)
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
    machine_forget_peak();
    a.runtime.has_own_peak = true;
    if (attempts_load(&one, 1) != STATUS_OK)
        log_debug("attempt_not_loaded", log_text("operation", operation_id), log_text("problem", a.sc.problem_text));
    (void)FAULT(TASK_LOADED, operation_id);
    attempt_work(&a);
    if (a.end.outcome == TASK_COMPLETED || a.end.outcome == TASK_FAILED) {
        scoped(PGresult) *rows = NULL;
        enum status ended = attempt_finish(&a, &rows);
        if (ended == STATUS_OK && a.end.outcome == TASK_COMPLETED)
            task_announce_stage(&a.task);
        if (ended == STATUS_OK)
            attempt_announce_end(&a.task, rows);
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
