#include "worker/task_run.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "common/store/operation_store.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
    HEARTBEAT_MS = 500,
    LOG_PROGRESS_MS = 10000,
    COMMIT_PAUSE_MS = 500,        /* between tries of the last transaction */
    COMMIT_PATIENCE_MS = 1800000, /* a database that is away longer is another attempt's matter */
};

struct task_runtime {
    const struct task_host *host;
    int64_t started_ms, told_alive_ms, told_progress_ms;
    bool is_stopped, is_lost;
    char logged_stage[48]; /* the newest stage in the log, and when how far it is was logged */
    int64_t logged_ms;
    struct rusage usage;
};

static task_function *const functions[OPERATION_TYPES] = {
#define TASK(type, function) [OPERATION_##type] = function,
#include "worker/tasks/tasks.def"
#undef TASK
};

/* ---- the supervisor ---- */

static void tell(const struct task_runtime *rt, const struct report *report)
{
    if (rt->host->channel < 0)
        return;
    ssize_t n = send(rt->host->channel, report, sizeof *report, MSG_NOSIGNAL);
    (void)n; /* a supervisor that is gone takes us with it */
}

void task_heartbeat(struct task *task)
{
    struct task_runtime *rt = task->runtime;
    int64_t now = clock_monotonic_ms();
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
    if (!rt->is_lost && message_publish(&own, task->events, &event, NULL) != STATUS_OK)
        log_debug("event_not_published", log_text("operation", task->operation_id), log_text("type", type),
                  log_text("problem", own.problem_text));
    scope_done(&own);
}

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
    if (message_publish(&own, task->events, &event, NULL) != STATUS_OK)
        log_debug("event_not_published", log_text("operation", task->operation_id), log_text("type", event.type),
                  log_text("problem", own.problem_text));
    scope_done(&own);
}

/* ---- the fence ---- */

enum status task_fence(struct scope *sc, struct task *task)
{
    return db_run(sc, task->db, SQL_FENCE, NULL, task->operation_id, task->task_id);
}

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

/* ---- what may be said outside ---- */

static bool is_below_a_root(struct scope *sc, const struct settings *settings, const char *path)
{
    char **roots = settings_list(&sc->arena, settings->source_roots, ':', NULL);
    for (; *roots; roots++) {
        size_t len = strlen(*roots);
        while (len > 1 && (*roots)[len - 1] == '/')
            len--;
        if (strncmp(path, *roots, len) == 0 && strchr("/ \t\n'\"`,;:)", path[len]))
            return true;
    }
    return false;
}

static bool begins_path(const char *text, const char *at)
{
    return *at == '/' && at[1] && !strchr(" /", at[1]) && (at == text || strchr(" \t\n'\"`(=:<[", at[-1]));
}

/* Outside the roots only the name of a file is left; of a URL only its scheme. */
static void hide_paths(struct scope *sc, const struct settings *settings, const char *text, struct text *out)
{
    for (const char *p = text; *p;) {
        if (strncmp(p, "://", 3) == 0) {
            text_puts(out, "://…");
            p += strcspn(p, " \t\n'\"`<>");
            continue;
        }
        if (!begins_path(text, p) || is_below_a_root(sc, settings, p)) {
            text_putc(out, *p++);
            continue;
        }
        size_t len = strcspn(p, " \t\n'\"`,;:)<>");
        const char *name = memrchr(p, '/', len);
        text_puts(out, "…");
        text_append(out, name, len - (size_t)(name - p));
        p += len;
    }
}

static bool is_of_database(const char *problem)
{
    return strncmp(problem, "PostgreSQL", 10) == 0 || strstr(problem, ": PostgreSQL");
}

const char *task_public_text(struct scope *sc, const struct settings *settings, enum status s, const char *text)
{
    if (!text || !*text)
        return status_text(s);
    if (is_of_database(text))
        return s == STATUS_INTERNAL ? "the database refused a statement" : "the database does not answer";
    if (strncmp(text, "Redis", 5) == 0)
        return "Redis does not answer";
    scoped_text out = {.max_len = REASON_BYTES - 8};
    hide_paths(sc, settings, text, &out);
    size_t len = utf8_floor(text_str(&out), out.len, out.is_cut && out.len ? out.len - 1 : out.len);
    scoped_text repaired = {0};
    text_append_repaired(&repaired, text_str(&out), len);
    return arena_strdup(&sc->arena, text_str(&repaired));
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

static enum status write_end(struct scope *sc, struct task *task, const struct task_end *end)
{
    bool is_failed = end->outcome == TASK_FAILED;
    const char *result = is_failed ? NULL : task->result_json ? task->result_json : "{}";
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(
        sc, task->db, SQL_OPERATION_END, &rows, task->operation_id, task->task_id, is_failed ? "failed" : "completed",
        is_failed ? error_class_name((enum error_class)end->class) : NULL, is_failed ? end->reason : NULL, result,
        db_number(sc, task->processed), db_number(sc, task->failed),
        task->total >= 0 ? db_number(sc, task->total) : NULL, audit_details(sc, task, end),
        "{duration_seconds,cpu_seconds,memory_peak_bytes,documents_processed,documents_failed}",
        arena_printf(&sc->arena, "{%.6f,%.6f,%.0f,%lld,%lld}", end->seconds, end->cpu_seconds, end->peak_bytes,
                     (long long)task->processed, (long long)task->failed));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_LOST, "the operation belongs to another attempt now");
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

/* End, audit, figures and collection: one durable COMMIT. Lock order: operations, collections. */
static enum status commit_end(struct scope *sc, struct task *task, const struct task_end *end)
{
    if (!holds_collection(task))
        return write_end(sc, task, end); /* a statement is a transaction */
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = write_end(sc, task, end);
    if (s == STATUS_OK)
        s = settle_collection(sc, task, end);
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

/* Tries until the database has answered: work that is done is not thrown away because it is away for a while. */
static enum status finish(struct task *task, const struct task_end *end)
{
    const char *wanted = end->outcome == TASK_FAILED ? "failed" : "completed";
    int64_t give_up_ms = clock_monotonic_ms() + COMMIT_PATIENCE_MS;
    for (bool is_sure = true;;) {
        struct scope sc;
        scope_init(&sc, task->operation_id);
        enum status s = is_sure ? STATUS_CONFLICT : look_at_row(&sc, task, wanted);
        if (s == STATUS_CONFLICT) {
            s = commit_end(&sc, task, end);
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

static void announce_end(const struct task *task)
{
    if (FAULT(AFTER_FINAL_BEFORE_ANNOUNCE, task->operation_id))
        return;
    struct scope sc;
    scope_init(&sc, task->operation_id);
    if (operation_store_announce(&sc, task->db, task->events, task->operation_id) != STATUS_OK)
        log_debug("end_not_announced", log_text("operation", task->operation_id), log_text("problem", sc.problem_text));
    scope_done(&sc);
}

/* ---- the beginning ---- */

static enum status load(struct scope *sc, struct task *task, struct task_facts *facts, cJSON **out_config)
{
    scoped(PGresult) *rows = NULL;
    db_rename(task->db, task->task_id);
    enum status s = db_run(sc, task->db, SQL_OPERATION_ATTEMPT, &rows, task->operation_id, task->task_id);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_LOST, "the operation belongs to another attempt now");
    if (operation_type_parse(db_text(rows, 0, "type"), &task->type) != STATUS_OK || !functions[task->type])
        return fail(sc, STATUS_NOT_IMPLEMENTED, "this worker does not know operations of type %s",
                    db_text(rows, 0, "type"));
    const char *collection = db_text(rows, 0, "collection_uuid");
    task->collection_id = db_int(rows, 0, "collection_id", 0);
    snprintf(task->collection_uuid, sizeof task->collection_uuid, "%s", collection ? collection : "");
    task->user_id = db_int(rows, 0, "user_id", 0);
    task->attempt = (int)db_int(rows, 0, "attempt", 0);
    task->failures = (int)db_int(rows, 0, "failures", 0);
    task->max_attempts = (int)db_int(rows, 0, "max_attempts", 1);
    task->processed = task->earlier_processed = db_int(rows, 0, "processed", 0);
    task->failed = task->earlier_failed = db_int(rows, 0, "failed", 0);
    task->last_reason = arena_strdup(&sc->arena, db_text(rows, 0, "last_reason"));
    facts->type = task->type;
    facts->failures = task->failures;
    const char *config = db_text(rows, 0, "config");
    s = json_parse(sc, config, strlen(config), out_config);
    task->config = s == STATUS_OK ? *out_config : NULL;
    return s;
}

static double jitter(void)
{
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    return (double)random / UINT32_MAX;
}

static void log_end(const struct task *task, const struct task_end *end, enum status s, const char *problem)
{
    static const char *const events[] = {"task_completed", "task_failed", "task_handed_back", "task_stopped",
                                         "task_lost"};
    enum log_level level = s == STATUS_OK || end->outcome >= TASK_STOPPED ? LOG_INFO
                           : s == STATUS_INTERNAL                         ? LOG_ERROR
                                                                          : LOG_WARNING;
    if (end->outcome == TASK_LOST)
        metrics_add(METRIC_FENCE_REFUSALS, operation_kind(task->type)->name, NULL, 1);
    log_at(level, events[end->outcome], log_text("operation", task->operation_id), log_text("task", task->task_id),
           log_text("worker", task->worker_id), log_int("attempt", task->attempt),
           log_text("type", operation_kind(task->type)->name), log_int("processed", task->processed),
           log_int("failed", task->failed), log_real("seconds", end->seconds),
           log_real("cpu_seconds", end->cpu_seconds), log_text("problem", problem));
}

static void conclude(struct scope *sc, struct task *task, struct task_facts *facts, enum status s, struct task_end *out)
{
    facts->has_committed = task->has_committed;
    facts->has_progressed = task->has_progressed;
    facts->is_over_limit = clock_monotonic_ms() - task->runtime->started_ms > task->settings->soft_time_limit * 1000;
    struct task_verdict verdict = task_judge(s, facts);
    const char *problem = s == STATUS_OK ? NULL : sc->problem_text ? sc->problem_text : status_text(s);
    *out = (struct task_end){.outcome = verdict.outcome,
                             .class = s == STATUS_OK ? ERROR_NONE : status_class(s),
                             .is_counted = verdict.is_counted,
                             .ended = s == STATUS_TIMEOUT && facts->is_over_limit ? ATTEMPT_SOFT_LIMIT : ATTEMPT_FAILED,
                             .delay_seconds = verdict.delay_seconds};
    snprintf(out->reason, sizeof out->reason, "%s",
             s == STATUS_OK ? "" : task_public_text(sc, task->settings, s, problem));
    out->is_outage = s == STATUS_UNAVAILABLE && is_of_database(problem);
    measure(task, out);
    if (verdict.outcome == TASK_COMPLETED || verdict.outcome == TASK_FAILED) {
        enum status ended = finish(task, out);
        if (ended == STATUS_OK) {
            announce_end(task);
        } else if (ended == STATUS_LOST) {
            out->outcome = TASK_LOST;
        } else {
            /* The end itself could not be written: what was committed stays, the next attempt finds little left to do.
             */
            out->outcome = TASK_HAND_BACK;
            out->ended = ATTEMPT_FAILED;
            out->is_counted = true;
            out->is_outage = ended == STATUS_UNAVAILABLE || ended == STATUS_TIMEOUT;
            out->class = status_class(ended);
            out->delay_seconds = task_judge(ended, facts).delay_seconds;
            snprintf(out->reason, sizeof out->reason, "its end could not be recorded: %s", status_text(ended));
        }
    }
    log_end(task, out, s, problem);
}

void task_execute(const struct task_host *host, const char *operation_id, const char *task_id, const char *worker_id,
                  struct task_end *out)
{
    struct scope sc;
    scope_init(&sc, operation_id);
    struct task_runtime rt = {.host = host, .started_ms = clock_monotonic_ms(), .told_progress_ms = INT64_MIN / 2};
    getrusage(RUSAGE_SELF, &rt.usage);
    struct rusage helpers;
    getrusage(RUSAGE_CHILDREN, &helpers);
    timeradd(&rt.usage.ru_utime, &helpers.ru_utime, &rt.usage.ru_utime);
    timeradd(&rt.usage.ru_stime, &helpers.ru_stime, &rt.usage.ru_stime);
    struct task task = {.settings = host->settings,
                        .db = host->db,
                        .events = host->events,
                        .embedder_socket = host->embedder_socket,
                        .executable = "/proc/self/exe",
                        .total = -1,
                        .runtime = &rt};
    snprintf(task.operation_id, sizeof task.operation_id, "%s", operation_id);
    snprintf(task.task_id, sizeof task.task_id, "%s", task_id);
    snprintf(task.worker_id, sizeof task.worker_id, "%s", worker_id);
    struct task_facts facts = {
        .type = OPERATION_NOOP, .jitter = jitter(), .default_retry_delay = (int)host->settings->default_retry_delay};
    scoped(cJSON) *config = NULL;
    enum status s = load(&sc, &task, &facts, &config);
    if (s == STATUS_OK) {
        announce_start(&sc, &task);
        db_on_wait(task.db, task_has_to_stop, &task);
        s = functions[task.type](&sc, &task);
        db_on_wait(task.db, NULL, NULL);
        db_rollback(task.db); /* nothing may be left open, whatever went wrong */
    }
    conclude(&sc, &task, &facts, s, out);
    scope_done(&sc);
}
