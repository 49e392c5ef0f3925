#include "worker/supervisor.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/db.h"
#include "common/json.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"
#include "worker/chores.h"
#include "worker/claim.h"
#include "worker/embedder_process.h"
#include "worker/internal_http.h"
#include "worker/lease.h"
#include "worker/settle.h"
#include "worker/slots.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    MOST_SLOTS = 257,
    MOST_QUEUES = 32,
    POP_SECONDS = 5,        /* of one BRPOP */
    POP_DEADLINE_MS = 7000, /* later, the connection is deaf */
    REDIS_TIMEOUT_MS = 500,
    PING_MS = 4000,    /* of the control channels' connection */
    TURN_MS = 1000,    /* longest wait: deadlines have no finer grain than is needed */
    CHECK_MS = 1000,   /* between two looks at the rows of running operations */
    ORPHANS_MS = 5000, /* between two looks for operations that are ours without our knowing */
    RETRY_MS = 500,    /* after the database did not answer */
    DISPLAY_MS = 2000,
    START_LIMIT_MS = 60000, /* of a child that is not ready yet */
    CRASH_PAUSE_MS = 1000,  /* before a child is started that died without a task */
    STOP_GRACE_DRAIN_MS = 3000,
    STATEMENT_MS = 5000,
    DUE_AT_A_TIME = 50,
    FIND_AGAIN_MS = 50,
};

/* One blocking pop at a time, for slots of one kind: the ordinary ones, or the one for `fast` alone. */
struct lane {
    bool is_fast_only;
    struct redis *redis;
    const char *queues[MOST_QUEUES];
    size_t queue_count;
    bool is_waiting; /* a BRPOP is on its way */
    int64_t sent_ms;
    char held[37]; /* popped, not claimed yet */
    const char *held_queue;
    int64_t try_at_ms;
};

struct supervisor {
    const struct settings *settings;
    struct scope life; /* owns what lives as long as the worker */
    int signal_fd, wake_fd;
    _Atomic(struct lease *) lease;
    struct chores *chores;
    struct internal_http *http, *metrics_http;
    struct embedder_process embedder;
    struct db *db;
    struct settle_stores stores;
    struct redis *control;
    bool is_subscribed;
    int64_t control_sent_ms, control_heard_ms;
    struct lane lanes[2];
    struct slot slots[MOST_SLOTS];
    size_t slot_count;
    struct hand_back *owed; /* given back as soon as the database answers */
    size_t owed_count, owed_capacity;
    int64_t owed_at_ms, check_at_ms, orphans_at_ms, find_at_ms, display_at_ms;
    atomic_bool is_draining;
    bool is_hurried;
    int64_t drain_until_ms;
    char worker_id[64];
};

/* ---- giving back ---- */

/* A database that does not answer is asked once a turn: each try may take seconds, in which nothing else happens. */
static void pay(struct supervisor *w)
{
    size_t kept = 0;
    bool is_away = false;
    for (size_t i = 0; i < w->owed_count; i++) {
        if (is_away) {
            w->owed[kept++] = w->owed[i];
            continue;
        }
        struct scope sc;
        scope_init(&sc, w->owed[i].operation_id);
        enum settled settled = SETTLED_LOST;
        static const char *const names[] = {"lost", "pending", "failed"};
        enum status s = settle_hand_back(&sc, &w->stores, &w->owed[i], &settled);
        bool is_passing = is_away = s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT;
        if (s != STATUS_OK)
            log_at(is_passing ? LOG_DEBUG : LOG_ERROR, "hand_back_failed",
                   log_text("operation", w->owed[i].operation_id), log_text("problem", sc.problem_text));
        else if (settled != SETTLED_LOST)
            log_info("operation_handed_back", log_text("operation", w->owed[i].operation_id),
                     log_text("task", w->owed[i].task_id), log_text("status", names[settled]),
                     log_real("delay_seconds", w->owed[i].delay_seconds), log_text("reason", w->owed[i].reason));
        if (is_passing)
            w->owed[kept++] = w->owed[i];
        scope_done(&sc);
    }
    w->owed_count = kept;
    w->owed_at_ms = clock_monotonic_ms() + RETRY_MS;
}

static void give_back(struct supervisor *w, const struct hand_back *give)
{
    if (w->owed_count == w->owed_capacity) {
        w->owed_capacity = w->owed_capacity ? w->owed_capacity * 2 : 8;
        w->owed = must_realloc(w->owed, w->owed_capacity * sizeof *w->owed);
    }
    w->owed[w->owed_count++] = *give;
    pay(w);
}

static struct hand_back hand_back_of(const struct slot *slot, bool is_counted, enum error_class class,
                                     const char *reason)
{
    struct hand_back give = {.is_counted = is_counted, .class = class};
    memcpy(give.operation_id, slot->operation_id, sizeof give.operation_id);
    memcpy(give.task_id, slot->task_id, sizeof give.task_id);
    snprintf(give.reason, sizeof give.reason, "%s", reason);
    return give;
}

/* ---- children ---- */

static void count_end(const struct slot *slot, const struct task_end *end)
{
    const char *type = operation_kind(slot->type)->name;
    if (end->outcome == TASK_COMPLETED || end->outcome == TASK_FAILED) {
        metrics_add(METRIC_OPERATIONS, type, end->outcome == TASK_COMPLETED ? "completed" : "failed", 1);
        metrics_observe(METRIC_OPERATION_SECONDS, type, NULL, end->seconds);
    }
    metrics_add(METRIC_COLLECTION_CPU, type, NULL, end->cpu_seconds > 0 ? end->cpu_seconds : 0);
    metrics_set(METRIC_COLLECTION_MEMORY, type, NULL, end->peak_bytes);
}

static void after_task(struct supervisor *w, struct slot *slot)
{
    slot_forget_task(slot);
    if (w->is_draining || slot->tasks_done >= w->settings->worker_max_tasks ||
        slot_memory_mb(slot) > w->settings->worker_child_max_mb)
        slot_retire(slot);
}

static void on_end(struct supervisor *w, struct slot *slot, const struct task_end *end)
{
    if (!slot_has_task(slot))
        return;
    count_end(slot, end);
    struct hand_back give = hand_back_of(slot, end->is_counted, (enum error_class)end->class, end->reason);
    give.delay_seconds = end->delay_seconds;
    enum stop_reason stop = slot->stop;
    if (end->outcome != TASK_COMPLETED && end->outcome != TASK_FAILED)
        chores_remove_leftovers(w->chores);
    after_task(w, slot);
    if (end->outcome == TASK_HAND_BACK) {
        give_back(w, &give);
    } else if (end->outcome == TASK_STOPPED && stop != STOP_ABANDON) {
        /* Of a cancelled one nothing is left to give; else it was the worker's end, or a mistake, and costs no attempt.
         */
        give.is_counted = false;
        give.class = ERROR_NONE;
        snprintf(give.reason, sizeof give.reason, "its worker was stopped");
        give_back(w, &give);
    }
}

static void on_metric(const struct report *r)
{
    const char *label1 = r->metric.has_label1 ? r->metric.label1 : NULL,
               *label2 = r->metric.has_label2 ? r->metric.label2 : NULL;
    if (r->metric.metric >= METRICS)
        return;
    enum metric m = (enum metric)r->metric.metric;
    if (r->metric.action == METRIC_ACTION_ADD)
        metrics_add(m, label1, label2, r->metric.amount);
    else if (r->metric.action == METRIC_ACTION_SET)
        metrics_set(m, label1, label2, r->metric.amount);
    else
        metrics_observe(m, label1, label2, r->metric.amount);
}

static void read_reports(struct supervisor *w, struct slot *slot)
{
    struct report r;
    while (slot_read(slot, &r)) {
        if (r.kind == REPORT_METRIC)
            on_metric(&r);
        else if (r.kind == REPORT_END)
            on_end(w, slot, &r.end);
    }
}

static const char *death_text(struct scope *sc, const struct slot *slot, const struct slot_death *death)
{
    if (slot->stop == STOP_HARD)
        return "its attempts took longer than OPERATION_HARD_TIME_LIMIT {n} times and were killed";
    if (slot->stop == STOP_SILENT)
        return "its worker gave no sign of life {n} times and was killed";
    if (death->signal)
        return arena_printf(&sc->arena, "its worker died {n} times, last by signal %d", death->signal);
    return arena_printf(&sc->arena, "its worker died {n} times, last with exit status %d", death->exit_status);
}

static void after_death(struct supervisor *w, struct slot *slot, const struct slot_death *death)
{
    static const char *const reasons[] = {"crash", "cancel", "drain", "hard_limit", "silent", "lease_lost"};
    enum log_level level = slot_has_task(slot) || death->signal || death->exit_status ? LOG_WARNING : LOG_DEBUG;
    log_at(level, "child_ended", log_int("signal", death->signal), log_int("exit_status", death->exit_status),
           log_text("operation", slot->operation_id), log_text("task", slot->task_id),
           log_text("why", reasons[slot->stop]));
    if (!slot_has_task(slot))
        return;
    metrics_add(METRIC_TASKS_KILLED, reasons[slot->stop], NULL, 1);
    chores_remove_leftovers(w->chores);
    struct scope sc;
    scope_init(&sc, slot->operation_id);
    settle_terminate(&sc, w->db, slot->task_id);
    bool is_free = slot->stop == STOP_DRAIN || slot->stop == STOP_LOST;
    struct hand_back give = hand_back_of(slot, !is_free, is_free ? ERROR_NONE : ERROR_INTERNAL,
                                         is_free ? "its worker was stopped" : death_text(&sc, slot, death));
    if (slot->stop != STOP_ABANDON)
        give_back(w, &give);
    scope_done(&sc);
    slot->operation_id[0] = slot->task_id[0] = '\0';
    slot->stop = STOP_NONE;
}

static void reap(struct supervisor *w)
{
    for (size_t i = 0; i < w->slot_count; i++) {
        struct slot *slot = &w->slots[i];
        if (!slot_has_died(slot))
            continue;
        read_reports(w, slot); /* its last words may have been that it was done */
        bool is_calm = slot_has_task(slot) || slot->state == SLOT_RETIRING || slot->tasks_done > 0;
        struct slot_death death = slot_reap(slot, is_calm ? 0 : CRASH_PAUSE_MS);
        after_death(w, slot, &death);
    }
    if (embedder_process_reap(&w->embedder))
        chores_embedder_died(w->chores);
}

static void watch_slot(struct supervisor *w, struct slot *slot, int64_t now)
{
    const struct settings *s = w->settings;
    if (slot->kill_at_ms && now >= slot->kill_at_ms)
        slot_kill(slot);
    if (slot->state == SLOT_EMPTY && !w->is_draining && now >= slot->start_at_ms)
        slot_start(slot, w->embedder.socket);
    if ((slot->state == SLOT_STARTING || slot->state == SLOT_RETIRING) && now - slot->changed_ms > START_LIMIT_MS)
        slot_kill(slot);
    if (slot->state != SLOT_BUSY)
        return;
    if (now - slot->changed_ms > s->hard_time_limit * 1000)
        slot_stop(slot, STOP_HARD, 0);
    else if (now - slot->heard_ms > s->child_silence_seconds * 1000)
        slot_stop(slot, STOP_SILENT, 0);
}

static size_t busy_count(const struct supervisor *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->slot_count; i++)
        n += w->slots[i].state == SLOT_BUSY;
    return n;
}

/* ---- which operations are not ours any more ---- */

static struct slot *slot_of_task(struct supervisor *w, const char *task_id)
{
    for (size_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].state == SLOT_BUSY && strcmp(w->slots[i].task_id, task_id) == 0)
            return &w->slots[i];
    }
    return NULL;
}

static int64_t cancel_grace_ms(const struct settings *s)
{
    int64_t ms = s->cancel_grace_seconds * 1000;
    return ms > 8000 ? 8000 : ms; /* whatever is set, a cancelled child is gone within ten seconds */
}

static void put_task(struct text *list, const char *task_id)
{
    text_printf(list, "%s%s", list->len > 1 ? "," : "", task_id);
}

static void check_rows(struct supervisor *w)
{
    w->check_at_ms = clock_monotonic_ms() + CHECK_MS;
    scoped_text list = {0};
    text_putc(&list, '{');
    for (size_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].state == SLOT_BUSY && w->slots[i].stop == STOP_NONE)
            put_task(&list, w->slots[i].task_id);
    }
    if (list.len == 1)
        return;
    text_putc(&list, '}');
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, w->db, SQL_OPERATIONS_NOT_HELD, &rows, list.data);
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        struct slot *slot = slot_of_task(w, db_text(rows, r, "id"));
        if (!slot)
            continue;
        log_info("task_told_to_stop", log_text("operation", slot->operation_id), log_text("task", slot->task_id));
        slot_stop(slot, STOP_LOST, cancel_grace_ms(w->settings));
    }
    scope_done(&sc);
}

/* A claim whose answer got lost, or came when nobody waited for it any more, left an operation with us that no child
 * works on, and no lease would ever lapse for it. */
static void check_orphans(struct supervisor *w)
{
    w->orphans_at_ms = clock_monotonic_ms() + ORPHANS_MS;
    scoped_text known = {0};
    text_putc(&known, '{');
    for (size_t i = 0; i < w->slot_count; i++) {
        if (slot_has_task(&w->slots[i]))
            put_task(&known, w->slots[i].task_id);
    }
    for (size_t i = 0; i < w->owed_count; i++)
        put_task(&known, w->owed[i].task_id);
    text_putc(&known, '}');
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, w->db, SQL_OPERATIONS_ORPHANED, &rows, w->worker_id, known.data);
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        struct hand_back give = {.class = ERROR_NONE, .reason = "the answer to its claim was lost"};
        snprintf(give.operation_id, sizeof give.operation_id, "%s", db_text(rows, r, "uuid"));
        snprintf(give.task_id, sizeof give.task_id, "%s", db_text(rows, r, "task_id"));
        log_warning("operation_orphaned", log_text("operation", give.operation_id), log_text("task", give.task_id));
        give_back(w, &give);
    }
    scope_done(&sc);
}

/* ---- control messages ---- */

static void begin_drain(struct supervisor *w);

/* Hints only: what they say is looked up before anything is stopped. */
static void on_control(struct supervisor *w, const char *json)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *message = NULL;
    if (json_parse(&sc, json, strlen(json), &message) == STATUS_OK) {
        const char *action = json_get_text(message, "action", "");
        if (strcmp(action, "cancel") == 0)
            w->check_at_ms = 0;
        else if (strcmp(action, "drain") == 0)
            begin_drain(w);
    }
    scope_done(&sc);
}

static void subscribe(struct scope *sc, struct supervisor *w)
{
    const char *all = redis_key(sc, w->control, MESSAGE_CONTROL);
    const char *own = redis_key(sc, w->control, MESSAGE_CONTROL_WORKER, w->worker_id);
    const char *argv[] = {"SUBSCRIBE", all, own};
    w->is_subscribed = redis_send(sc, w->control, array_len(argv), argv) == STATUS_OK;
    w->control_heard_ms = w->control_sent_ms = clock_monotonic_ms();
}

static void read_control(struct supervisor *w)
{
    struct scope sc;
    scope_init(&sc, NULL);
    redisReply *reply = NULL;
    while (w->is_subscribed && (w->is_subscribed = redis_receive(&sc, w->control, &reply) == STATUS_OK) && reply) {
        w->control_heard_ms = clock_monotonic_ms();
        if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 && reply->element[0]->str &&
            strcmp(reply->element[0]->str, "message") == 0 && reply->element[2]->str)
            on_control(w, reply->element[2]->str);
        freeReplyObject(reply);
    }
    scope_done(&sc);
}

static void keep_control(struct supervisor *w)
{
    int64_t now = clock_monotonic_ms();
    struct scope sc;
    scope_init(&sc, NULL);
    const char *ping[] = {"PING"};
    if (w->is_subscribed && now - w->control_heard_ms > 2 * (int64_t)PING_MS + REDIS_TIMEOUT_MS) {
        redis_drop(w->control);
        w->is_subscribed = false;
    }
    if (!w->is_subscribed) {
        subscribe(&sc, w);
    } else if (now - w->control_sent_ms >= PING_MS) {
        w->is_subscribed = redis_send(&sc, w->control, 1, ping) == STATUS_OK;
        w->control_sent_ms = now;
    }
    scope_done(&sc);
}

/* ---- popping and claiming ---- */

static struct slot *free_slot(struct supervisor *w, const struct lane *lane)
{
    for (size_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].state == SLOT_READY && w->slots[i].is_fast_only == lane->is_fast_only)
            return &w->slots[i];
    }
    return NULL;
}

static bool may_take(struct supervisor *w)
{
    return !w->is_draining && lease_is_held(w->lease) && chores_embedder_is_ready(w->chores);
}

/* Puts a UUID that was popped and cannot be used here to where it came from. */
static void put_back(struct supervisor *w, struct lane *lane)
{
    struct scope sc;
    scope_init(&sc, lane->held);
    if (lane->held[0] &&
        redis_run(&sc, w->stores.queue, NULL, "RPUSH %s %s",
                  redis_key(&sc, w->stores.queue, "queue:%s", lane->held_queue), lane->held) != STATUS_OK)
        log_debug("job_not_put_back", log_text("operation", lane->held), log_text("problem", sc.problem_text));
    lane->held[0] = '\0';
    scope_done(&sc);
}

static void hand_over(struct supervisor *w, struct slot *slot, const char *uuid, const struct claim *claim)
{
    struct order order = {.kind = ORDER_RUN};
    snprintf(order.operation_id, sizeof order.operation_id, "%s", uuid);
    memcpy(order.task_id, claim->task_id, sizeof order.task_id);
    memcpy(order.worker_id, w->worker_id, sizeof order.worker_id);
    if (slot_run(slot, &order, claim->type, claim->attempt))
        return;
    struct hand_back give = {.class = ERROR_NONE, .reason = "its worker's child had just ended"};
    memcpy(give.operation_id, order.operation_id, sizeof give.operation_id);
    memcpy(give.task_id, order.task_id, sizeof give.task_id);
    give_back(w, &give);
}

/* False: nobody knows yet, try again later. */
static bool take(struct supervisor *w, struct slot *slot, const char *uuid)
{
    struct scope sc;
    struct claim claim;
    scope_init(&sc, uuid);
    enum status s = claim_operation(&sc, w->db, w->settings, uuid, w->worker_id, &claim);
    if (s == STATUS_OK)
        hand_over(w, slot, uuid, &claim);
    else if (s == STATUS_CONFLICT)
        log_debug("job_dropped", log_text("operation", uuid));
    else
        log_warning("claim_failed", log_text("operation", uuid), log_text("problem", sc.problem_text));
    scope_done(&sc);
    return s != STATUS_UNAVAILABLE && s != STATUS_TIMEOUT;
}

static void take_held(struct supervisor *w, struct lane *lane)
{
    struct slot *slot = free_slot(w, lane);
    if (!lane->held[0] || clock_monotonic_ms() < lane->try_at_ms || !slot || !may_take(w))
        return;
    if (take(w, slot, lane->held))
        lane->held[0] = '\0';
    else
        lane->try_at_ms = clock_monotonic_ms() + RETRY_MS;
}

static const char *queue_of_key(const struct lane *lane, const char *key)
{
    size_t key_len = strlen(key);
    for (size_t i = 0; i < lane->queue_count; i++) {
        size_t len = strlen(lane->queues[i]);
        if (key_len > len && strcmp(key + key_len - len, lane->queues[i]) == 0 && key[key_len - len - 1] == ':')
            return lane->queues[i];
    }
    return lane->queues[0];
}

static void on_popped(struct supervisor *w, struct lane *lane, const redisReply *reply)
{
    lane->is_waiting = false;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        return; /* nothing came in time */
    const char *uuid = reply->element[1]->str;
    if (!uuid || !uuid_is_valid(uuid)) {
        log_warning("job_is_no_uuid", log_text("queue", reply->element[0]->str));
        return;
    }
    memcpy(lane->held, uuid, sizeof lane->held);
    lane->held_queue = queue_of_key(lane, reply->element[0]->str);
    lane->try_at_ms = 0;
    if (w->is_draining)
        put_back(w, lane);
    else
        take_held(w, lane);
}

static void read_lane(struct supervisor *w, struct lane *lane)
{
    struct scope sc;
    scope_init(&sc, NULL);
    redisReply *reply = NULL;
    if (lane->is_waiting && redis_receive(&sc, lane->redis, &reply) != STATUS_OK) {
        log_warning("queue_connection_lost", log_text("problem", sc.problem_text));
        lane->is_waiting = false;
        lane->try_at_ms = clock_monotonic_ms() + RETRY_MS;
    }
    if (reply) {
        on_popped(w, lane, reply);
        freeReplyObject(reply);
    }
    scope_done(&sc);
}

/* Asks for a job only when there is a child for it: what is popped is never kept waiting. */
static void pump(struct supervisor *w, struct lane *lane)
{
    int64_t now = clock_monotonic_ms();
    if (lane->is_waiting && now - lane->sent_ms > POP_DEADLINE_MS) {
        log_warning("queue_connection_deaf");
        redis_drop(lane->redis);
        lane->is_waiting = false;
    }
    take_held(w, lane);
    if (lane->is_waiting || lane->held[0] || now < lane->try_at_ms || !free_slot(w, lane) || !may_take(w))
        return;
    struct scope sc;
    scope_init(&sc, NULL);
    const char *argv[MOST_QUEUES + 2] = {"BRPOP"};
    int argc = 1;
    for (size_t i = 0; i < lane->queue_count; i++)
        argv[argc++] = redis_key(&sc, lane->redis, "queue:%s", lane->queues[i]);
    argv[argc++] = arena_printf(&sc.arena, "%d", POP_SECONDS);
    lane->is_waiting = redis_send(&sc, lane->redis, argc, argv) == STATUS_OK;
    lane->sent_ms = now;
    scope_done(&sc);
}

static bool serves(const struct lane *lane, const char *queue)
{
    for (size_t i = 0; i < lane->queue_count; i++) {
        if (strcmp(lane->queues[i], queue) == 0)
            return true;
    }
    return false;
}

static bool take_due(struct supervisor *w, const char *uuid, const char *queue)
{
    for (size_t l = 0; l < array_len(w->lanes); l++) {
        struct slot *slot = serves(&w->lanes[l], queue) ? free_slot(w, &w->lanes[l]) : NULL;
        if (slot)
            return take(w, slot, uuid) && slot->state == SLOT_BUSY;
    }
    return false;
}

/* Without Redis the due rows themselves are the queue. */
static void find_due(struct supervisor *w)
{
    int64_t now = clock_monotonic_ms();
    if (now < w->find_at_ms || w->lanes[0].is_waiting || w->lanes[1].is_waiting || !may_take(w))
        return;
    if (redis_is_connected(w->lanes[0].redis) || redis_is_connected(w->lanes[1].redis))
        return;
    w->find_at_ms = now + w->settings->reconcile_seconds * 1000;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, w->db, SQL_OPERATIONS_DUE, &rows, db_number(&sc, DUE_AT_A_TIME));
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        if (take_due(w, db_text(rows, r, "uuid"), db_text(rows, r, "queue")))
            w->find_at_ms = now + FIND_AGAIN_MS; /* there may be more, when a slot is free again */
    }
    scope_done(&sc);
}

/* ---- for display ---- */

static void put_doing(struct text *out, const struct supervisor *w)
{
    json_open(out, NULL, '[');
    for (size_t i = 0; i < w->slot_count; i++) {
        const struct slot *slot = &w->slots[i];
        static const char *const states[] = {"starting", "starting", "idle", "busy", "starting"};
        json_open(out, NULL, '{');
        json_text(out, "state", states[slot->state]);
        json_int(out, "pid", slot->pid);
        if (slot->is_fast_only)
            json_bool(out, "fast_only", true);
        if (slot_has_task(slot)) {
            json_text(out, "operation_id", slot->operation_id);
            json_text(out, "type", operation_kind(slot->type)->name);
            json_int(out, "attempt", slot->attempt);
        }
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void show(struct supervisor *w)
{
    int64_t now = clock_monotonic_ms();
    if (now < w->display_at_ms)
        return;
    w->display_at_ms = now + DISPLAY_MS;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped_text doing = {0};
    put_doing(&doing, w);
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    const char *key = redis_key(&sc, w->stores.events, "worker:%s", w->worker_id);
    enum status s = redis_run(
        &sc, w->stores.events, NULL, "HSET %s host %s pid %d slots %d queues %s draining %s doing %s", key, host,
        (int)getpid(), (int)w->slot_count, w->settings->worker_queues, w->is_draining ? "true" : "false", doing.data);
    if (s == STATUS_OK)
        s = redis_run(&sc, w->stores.events, NULL, "EXPIRE %s %d", key, (int)w->settings->worker_lease_seconds + 10);
    if (s != STATUS_OK)
        log_debug("worker_not_shown", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void hide(struct supervisor *w)
{
    struct scope sc;
    scope_init(&sc, NULL);
    if (redis_run(&sc, w->stores.events, NULL, "DEL %s", redis_key(&sc, w->stores.events, "worker:%s", w->worker_id)) !=
        STATUS_OK)
        log_debug("worker_not_hidden", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

/* ---- the end ---- */

static void begin_drain(struct supervisor *w)
{
    if (w->is_draining)
        return;
    w->is_draining = true;
    w->drain_until_ms = clock_monotonic_ms() + w->settings->drain_seconds * 1000;
    log_info("worker_draining", log_text("worker", w->worker_id), log_int("tasks", (int64_t)busy_count(w)));
    lease_drain(w->lease);
    for (size_t l = 0; l < array_len(w->lanes); l++) {
        read_lane(w, &w->lanes[l]);
        put_back(w, &w->lanes[l]);
        redis_drop(w->lanes[l].redis);
        w->lanes[l].is_waiting = false;
    }
    for (size_t i = 0; i < w->slot_count; i++)
        slot_retire(&w->slots[i]);
}

static void stop_all(struct supervisor *w, enum stop_reason reason, int64_t grace_ms)
{
    for (size_t i = 0; i < w->slot_count; i++) {
        slot_stop(&w->slots[i], reason, grace_ms);
        if (grace_ms == 0)
            slot_kill(&w->slots[i]);
    }
}

static void on_signal(struct supervisor *w)
{
    struct signalfd_siginfo info;
    while (read(w->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue; /* looked at in every turn */
        if (w->is_draining && !w->is_hurried) {
            w->is_hurried = true;
            stop_all(w, STOP_DRAIN, 0);
        }
        begin_drain(w);
    }
}

static bool is_over(const struct supervisor *w)
{
    if (!w->is_draining)
        return false;
    for (size_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].state != SLOT_EMPTY)
            return false;
    }
    int64_t patience_ms = w->is_hurried ? 0 : STOP_GRACE_DRAIN_MS;
    return w->owed_count == 0 || clock_monotonic_ms() > w->drain_until_ms + patience_ms;
}

/* The row was swept: whatever runs here runs somewhere else by now. */
static void start_over(struct supervisor *w)
{
    if (!lease_is_lost(w->lease))
        return;
    stop_all(w, STOP_ABANDON, 0);
    for (size_t i = 0; i < w->slot_count; i++) {
        while (w->slots[i].pid > 0 && !slot_has_died(&w->slots[i]))
            poll(NULL, 0, 5);
    }
    reap(w);
    w->owed_count = 0;
    hide(w);
    lease_start_over(w->lease);
    lease_worker_id(w->lease, w->worker_id);
    if (w->is_subscribed)
        redis_drop(w->control);
    w->is_subscribed = false;
    log_info("worker_started_over", log_text("worker", w->worker_id));
}

/* ---- the loop ---- */

static void wait_for_something(struct supervisor *w)
{
    struct pollfd fds[MOST_SLOTS + 8];
    size_t n = 0;
    fds[n++] = (struct pollfd){.fd = w->signal_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = w->is_subscribed ? redis_fd(w->control) : -1, .events = POLLIN};
    for (size_t l = 0; l < array_len(w->lanes); l++)
        fds[n++] = (struct pollfd){.fd = w->lanes[l].is_waiting ? redis_fd(w->lanes[l].redis) : -1, .events = POLLIN};
    for (size_t i = 0; i < w->slot_count; i++)
        fds[n++] = (struct pollfd){.fd = w->slots[i].pid > 0 ? w->slots[i].fd : -1, .events = POLLIN};
    int64_t now = clock_monotonic_ms(), until = now + TURN_MS;
    const int64_t deadlines[] = {w->check_at_ms,        w->owed_count ? w->owed_at_ms : INT64_MAX,
                                 w->find_at_ms,         w->embedder.start_at_ms,
                                 w->lanes[0].try_at_ms, w->lanes[1].try_at_ms};
    for (size_t i = 0; i < array_len(deadlines); i++) {
        if (deadlines[i] > now && deadlines[i] < until)
            until = deadlines[i];
    }
    for (size_t i = 0; i < w->slot_count; i++) {
        const struct slot *s = &w->slots[i];
        int64_t at = s->kill_at_ms                               ? s->kill_at_ms
                     : s->state == SLOT_EMPTY && !w->is_draining ? s->start_at_ms
                                                                 : INT64_MAX;
        if (at < until)
            until = at;
        /* A dead child's socket is readable for ever: its death is waited for by SIGCHLD. */
        if (s->state == SLOT_RETIRING || s->is_killed)
            fds[5 + i].fd = -1;
    }
    poll(fds, n, until > now ? (int)(until - now) : 0);
    uint64_t count;
    ssize_t got = read(w->wake_fd, &count, sizeof count);
    (void)got;
}

static void one_turn(struct supervisor *w)
{
    on_signal(w);
    start_over(w);
    for (size_t i = 0; i < w->slot_count; i++)
        read_reports(w, &w->slots[i]);
    reap(w);
    for (size_t l = 0; l < array_len(w->lanes); l++)
        read_lane(w, &w->lanes[l]);
    read_control(w);
    int64_t now = clock_monotonic_ms();
    for (size_t i = 0; i < w->slot_count; i++)
        watch_slot(w, &w->slots[i], now);
    for (size_t l = 0; l < array_len(w->lanes) && !w->is_draining; l++)
        pump(w, &w->lanes[l]);
    if (w->owed_count && now >= w->owed_at_ms)
        pay(w);
    if (now >= w->check_at_ms)
        check_rows(w);
    if (now >= w->orphans_at_ms && !lease_problem(w->lease))
        check_orphans(w);
    if (w->is_draining && now > w->drain_until_ms)
        stop_all(w, STOP_DRAIN, STOP_GRACE_DRAIN_MS);
    if (!w->is_draining)
        embedder_process_start(&w->embedder);
    find_due(w);
    keep_control(w);
    show(w);
}

/* ---- set-up ---- */

static const char *is_ready(void *context)
{
    struct supervisor *w = context;
    struct lease *lease = atomic_load(&w->lease);
    if (!lease)
        return "the worker is starting";
    const char *problem = atomic_load(&w->is_draining) ? "the worker is draining" : lease_problem(lease);
    return problem ? problem : chores_problem(w->chores);
}

static struct redis *connect_redis(const struct settings *s, int64_t database, int timeout_ms)
{
    return redis_new(&(struct redis_options){
        .url = s->redis_url, .database = (int)database, .prefix = s->redis_prefix, .timeout_ms = timeout_ms});
}

static void set_up_lanes(struct supervisor *w)
{
    const struct settings *s = w->settings;
    char **queues = settings_list(&w->life.arena, s->worker_queues, ',', NULL);
    for (; *queues && w->lanes[0].queue_count < MOST_QUEUES; queues++)
        w->lanes[0].queues[w->lanes[0].queue_count++] = *queues;
    w->lanes[1].is_fast_only = true;
    w->lanes[1].queues[0] = "fast";
    w->lanes[1].queue_count = 1;
    for (size_t l = 0; l < array_len(w->lanes); l++)
        w->lanes[l].redis = connect_redis(s, s->redis_queue_db, REDIS_TIMEOUT_MS);
    w->slot_count = (size_t)s->worker_concurrency + 1;
    for (size_t i = 0; i < w->slot_count; i++)
        w->slots[i] = (struct slot){.fd = -1, .is_fast_only = i + 1 == w->slot_count};
}

static void take_signals(struct supervisor *w)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    w->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static const char *own_url(struct supervisor *w)
{
    const struct settings *s = w->settings;
    const char *host = s->worker_advertise_host && *s->worker_advertise_host ? s->worker_advertise_host
                                                                             : s->worker_host;
    bool is_v6 = strchr(host, ':') != NULL;
    return arena_printf(&w->life.arena, is_v6 ? "http://[%s]:%d" : "http://%s:%d", host, internal_http_port(w->http));
}

/* The internal HTTP asks for the lease and the chores, and the lease wants to tell where it listens. So both ports are
 * opened first and answer "not ready" until the rest stands. */
static enum status start_http(struct supervisor *w)
{
    enum status s = internal_http_start(&w->life, w->settings, w->embedder.socket, is_ready, w, &w->http);
    if (s != STATUS_OK || w->settings->worker_metrics_port < 0)
        return s;
    struct settings *other = arena_alloc(&w->life.arena, sizeof *other);
    *other = *w->settings;
    other->worker_port = w->settings->worker_metrics_port;
    s = internal_http_start(&w->life, other, w->embedder.socket, is_ready, w, &w->metrics_http);
    return s == STATUS_OK
               ? s
               : fail(&w->life, s, "cannot listen on WORKER_METRICS_PORT %lld", (long long)other->worker_port);
}

static enum status set_up(struct supervisor *w)
{
    const struct settings *s = w->settings;
    enum status status = embedder_process_init(&w->life, &w->embedder);
    if (status != STATUS_OK)
        return status;
    set_up_lanes(w);
    w->db = db_new(&(struct db_options){.url = s->database_url,
                                        .application_name = "opstream-worker supervisor",
                                        .statement_timeout_ms = STATEMENT_MS});
    w->stores = (struct settle_stores){.db = w->db,
                                       .queue = connect_redis(s, s->redis_queue_db, REDIS_TIMEOUT_MS),
                                       .events = connect_redis(s, s->redis_stream_db, REDIS_TIMEOUT_MS)};
    w->control = connect_redis(s, s->redis_stream_db, REDIS_TIMEOUT_MS);
    embedder_process_start(&w->embedder);
    status = start_http(w);
    if (status != STATUS_OK)
        return status;
    struct lease_facts facts = {.url = own_url(w),
                                .queues = settings_list(&w->life.arena, s->worker_queues, ',', NULL),
                                .slots = (int)w->slot_count};
    struct lease *lease = lease_start(s, &facts, w->wake_fd);
    lease_worker_id(lease, w->worker_id);
    w->chores = chores_start(s, lease, w->embedder.socket, w->wake_fd);
    atomic_store(&w->lease, lease); /* last: is_ready() asks both once this is set */
    return STATUS_OK;
}

static void tear_down(struct supervisor *w)
{
    bool is_clean = w->owed_count == 0;
    internal_http_free(w->http);
    internal_http_free(w->metrics_http);
    chores_stop(w->chores);
    hide(w);
    lease_stop(w->lease, is_clean);
    embedder_process_done(&w->embedder);
    redis_free(w->stores.queue);
    redis_free(w->stores.events);
    redis_free(w->control);
    for (size_t l = 0; l < array_len(w->lanes); l++)
        redis_free(w->lanes[l].redis);
    db_free(w->db);
    free(w->owed);
    close_scoped_fd(&w->signal_fd);
    close_scoped_fd(&w->wake_fd);
    scope_done(&w->life);
}

int supervisor_run(const struct settings *settings)
{
    struct supervisor *w = must_calloc(1, sizeof *w);
    w->settings = settings;
    scope_init(&w->life, NULL);
    take_signals(w);
    int exit_status = 0;
    if (set_up(w) != STATUS_OK) {
        log_error("worker_not_started", log_text("problem", w->life.problem_text));
        exit_status = 1;
        w->is_draining = true;
    } else {
        log_info("worker_started", log_text("worker", w->worker_id), log_int("port", internal_http_port(w->http)),
                 log_int("slots", (int64_t)w->slot_count), log_text("queues", settings->worker_queues));
    }
    while (exit_status == 0 && !is_over(w)) {
        one_turn(w);
        if (!is_over(w))
            wait_for_something(w);
    }
    log_info("worker_ended", log_text("worker", w->worker_id));
    tear_down(w);
    free(w);
    return exit_status;
}
