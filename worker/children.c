#include "worker/supervisor_state.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/metrics.h"

#include <string.h>

enum {
    OUTAGE_ATTEMPTS = 50, /* that an outage of PostgreSQL may cost: about half an hour; then they count like others, as
                             there are documents at which only PostgreSQL fails */
    OUTAGE_DOUBLINGS = 5, /* of the pause between them, from 1 s */
    START_LIMIT_MS = 60000, /* of a child that is not ready yet */
    CRASH_PAUSE_MS = 1000,  /* before a child is started that died without a task */
    PATIENCE_MS = 50,       /* with an operation of a batch, before the others are given to others */
};

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

/* What follows for one operation whose attempt the child has ended; the slot holds its ids. */
static void settle_end(struct supervisor *w, struct slot *slot, const struct task_end *end)
{
    count_end(slot, end);
    struct hand_back give = hand_back_of(slot, end->is_counted, (enum error_class)end->class, end->reason);
    hand_back_figures(&give, end);
    give.delay_seconds = end->delay_seconds;
    give.ended = end->ended <= ATTEMPT_HARD_LIMIT ? (enum attempt_end)end->ended : ATTEMPT_FAILED;
    if (end->is_outage && slot->attempt < OUTAGE_ATTEMPTS) {
        give.is_counted = false;
        give.ended = ATTEMPT_HANDED_BACK;
        give.delay_seconds = 1 << (slot->attempt < OUTAGE_DOUBLINGS ? slot->attempt : OUTAGE_DOUBLINGS);
    }
    if ((slot->stop == STOP_DRAIN || w->is_draining) && (end->class == ERROR_NONE || end->class == ERROR_TRANSIENT)) {
        /* Stopped while something was away: neither is a fault of the operation's. */
        give.is_counted = false;
        give.ended = ATTEMPT_DRAINED;
        give.delay_seconds = 0;
    }
    if (end->outcome != TASK_COMPLETED && end->outcome != TASK_FAILED) {
        /* A statement that it was told to leave may still be at work in the server. (A batch goes on in its session.)
         */
        struct scope sc;
        scope_init(&sc, slot->operation_id);
        if (!slot->items)
            settle_terminate(&sc, w->db, slot->task_id);
        scope_done(&sc);
    }
    if (end->outcome != TASK_COMPLETED) /* a failed one, too, may leave what nobody sees */
        chores_remove_leftovers(w->chores);
    if (end->outcome == TASK_HAND_BACK) {
        give_back(w, &give);
    } else if (end->outcome == TASK_STOPPED && slot->stop != STOP_ABANDON) {
        /* Of a cancelled one nothing is left to give; else it was the worker's end, or a mistake, and costs no attempt.
         */
        give.is_counted = false;
        give.class = ERROR_NONE;
        give.ended = ATTEMPT_DRAINED;
        snprintf(give.reason, sizeof give.reason, "its worker was stopped");
        give_back(w, &give);
    }
}

static void give_back_item(struct supervisor *w, const struct slot *slot, uint32_t item, const char *reason)
{
    const struct slot_item *it = &slot->items[item];
    const struct hand_back give = hand_back_free(it->operation_id, it->task_id, reason);
    give_back(w, &give);
}

/* What has not begun is others' matter. */
static void recall(struct supervisor *w, struct slot *slot, const char *reason)
{
    uint32_t first, end;
    if (!slot_recall(slot, &first, &end))
        return;
    log_info("batch_recalled", log_text("worker", w->worker_id), log_int("operations", end - first),
             log_text("reason", reason));
    for (uint32_t i = first; i < end; i++)
        give_back_item(w, slot, i, reason);
}

static void on_end(struct supervisor *w, struct slot *slot, const struct task_end *end)
{
    if (!slot_has_task(slot) || (slot->items && end->item >= slot->item_count))
        return;
    (void)FAULT(END_REPORTED, slot->operation_id);
    if (slot->items)
        slot_take_item(slot, end->item);
    settle_end(w, slot, end);
    if (!slot->items)
        after_task(w, slot);
}

static void on_batch_end(struct supervisor *w, struct slot *slot, const struct report *r)
{
    if (!slot->items)
        return;
    const char *type = operation_kind(slot->items[0].type)->name;
    uint32_t completed = r->batch.completed < slot->item_count ? r->batch.completed : slot->item_count;
    double seconds = completed > 0 ? r->batch.seconds / completed : 0;
    metrics_add(METRIC_OPERATIONS, type, "completed", completed);
    for (uint32_t i = 0; i < completed; i++)
        metrics_observe(METRIC_OPERATION_SECONDS, type, NULL, seconds);
    metrics_add(METRIC_COLLECTION_CPU, type, NULL, r->batch.cpu_seconds > 0 ? r->batch.cpu_seconds : 0);
    recall(w, slot, "its worker was stopped");
    after_task(w, slot);
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

void read_reports(struct supervisor *w, struct slot *slot)
{
    struct report r;
    while (slot_read(slot, &r)) {
        if (r.kind == REPORT_METRIC)
            on_metric(&r);
        else if (r.kind == REPORT_END)
            on_end(w, slot, &r.end);
        else if (r.kind == REPORT_BATCH_END)
            on_batch_end(w, slot, &r);
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

static void after_death(struct supervisor *w, struct slot *slot, const struct slot_death *death, bool has_begun,
                        uint32_t item)
{
    static const char *const reasons[] = {"crash", "cancel", "drain", "hard_limit", "silent", "lease_lost"};
    enum log_level level = slot_has_task(slot) || death->signal || death->exit_status ? LOG_WARNING : LOG_DEBUG;
    log_at(level, "child_ended", log_int("signal", death->signal), log_int("exit_status", death->exit_status),
           log_text("operation", slot->operation_id), log_text("task", slot->task_id), log_text("worker", w->worker_id),
           log_int("attempt", slot->attempt), log_text("why", reasons[slot->stop]));
    if (!slot_has_task(slot)) {
        slot_forget_dead(slot);
        return;
    }
    metrics_add(METRIC_TASKS_KILLED, reasons[slot->stop], NULL, 1);
    (void)FAULT(CHILD_REAPED, slot->operation_id);
    chores_remove_leftovers(w->chores);
    struct scope sc;
    scope_init(&sc, slot->operation_id);
    settle_terminate(&sc, w->db, slot->task_id);
    bool is_free = slot->stop == STOP_DRAIN || slot->stop == STOP_LOST;
    struct hand_back give = hand_back_of(slot, !is_free, is_free ? ERROR_NONE : ERROR_INTERNAL,
                                         is_free ? "its worker was stopped" : death_text(&sc, slot, death));
    give.ended = is_free                     ? ATTEMPT_DRAINED
                 : slot->stop == STOP_HARD   ? ATTEMPT_HARD_LIMIT
                 : slot->stop == STOP_SILENT ? ATTEMPT_SILENT
                                             : ATTEMPT_CRASH;
    bool is_guilty = !slot->items || has_begun;
    if (slot->stop != STOP_ABANDON && is_guilty)
        give_back(w, &give);
    for (uint32_t i = 0; slot->stop != STOP_ABANDON && i < slot->item_count; i++) {
        /* Those that were committed are found to be so. */
        if (!has_begun || i != item)
            give_back_item(w, slot, i, "its worker died while it was at another operation");
    }
    scope_done(&sc);
    slot_forget_dead(slot);
}

void reap(struct supervisor *w)
{
    for (size_t i = 0; i < w->slot_count; i++) {
        struct slot *slot = &w->slots[i];
        if (!slot_has_died(slot))
            continue;
        read_reports(w, slot); /* its last words may have been that it was done */
        bool is_calm = slot_has_task(slot) || slot->state == SLOT_RETIRING || slot->tasks_done > 0;
        uint32_t item = 0;
        bool has_begun = slot_look(slot, &item);
        struct slot_death death = slot_reap(slot, is_calm ? 0 : CRASH_PAUSE_MS);
        after_death(w, slot, &death, has_begun, item);
    }
    if (embedder_process_reap(&w->embedder))
        chores_embedder_died(w->chores);
}

void watch_slot(struct supervisor *w, struct slot *slot, int64_t now)
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
    if (is_database_away(w))
        slot->heard_ms = now; /* it may wait for the same database, in a statement that nothing else ends */
    uint32_t item;
    if (slot_look(slot, &item) && now - slot->changed_ms > PATIENCE_MS)
        recall(w, slot, "it waited behind an operation that takes long");
    if (now - slot->changed_ms > s->hard_time_limit * 1000)
        slot_stop(slot, STOP_HARD, 0);
    else if (now - slot->heard_ms > s->child_silence_seconds * 1000)
        slot_stop(slot, STOP_SILENT, 0);
}

size_t busy_count(const struct supervisor *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->slot_count; i++)
        n += w->slots[i].state == SLOT_BUSY;
    return n;
}

void stop_all(struct supervisor *w, enum stop_reason reason, int64_t grace_ms)
{
    for (size_t i = 0; i < w->slot_count; i++) {
        slot_stop(&w->slots[i], reason, grace_ms);
        if (grace_ms == 0)
            slot_kill(&w->slots[i]);
    }
}
