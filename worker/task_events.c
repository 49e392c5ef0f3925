/* What an attempt tells while it runs: to its supervisor, that it is alive; to the world, how far it is. */
#include "worker/attempt.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    HEARTBEAT_MS = 500,
    HOLD_MS = 5, /* an attempt that takes longer is not brief */
    LOG_PROGRESS_MS = 10000,
};

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
void task_announce_start(struct scope *sc, struct task *task)
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

void task_announce_stage(const struct task *task)
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
