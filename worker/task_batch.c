#include "worker/task_batch.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/store/operation_store.h"
#include "worker/attempt.h"

#include <poll.h>
#include <string.h>

enum {
    GROUP_MS = 20,         /* ends wait no longer than this for company */
    COMMIT_PAUSE_MS = 500, /* between tries */
    COMMIT_TRIES = 60,
};

/* Attempts whose ends are committed together. */
struct group {
    struct attempt *items[MOST_IN_BATCH];
    size_t count;
    int64_t since_ms;
};

/* What a batch has come to. */
struct tally {
    const struct task_host *host;
    struct group group;
    void (*say)(const struct report *report);
    struct report total;
};

/* The number of the next item; the supervisor may have taken the rest back. */
static bool begin_next(struct batch_page *page, uint32_t *out_item)
{
    uint64_t cursor = atomic_load(&page->cursor);
    do {
        if (batch_begun(cursor) >= batch_limit(cursor))
            return false;
        *out_item = batch_begun(cursor);
    } while (!atomic_compare_exchange_weak(&page->cursor, &cursor, cursor + 1));
    atomic_store(&page->began_ms, clock_monotonic_ms());
    return true;
}

static void tell(struct tally *t, struct attempt *a)
{
    attempt_log_end(a);
    t->total.batch.seconds += a->end.seconds;
    t->total.batch.cpu_seconds += a->end.cpu_seconds;
    if (a->end.outcome == TASK_COMPLETED) {
        t->total.batch.completed++;
        return;
    }
    t->say(&(struct report){.kind = REPORT_END, .end = a->end});
}

/* After a COMMIT that was not answered a row may be ended already: it looks as if it were lost, and the reconciler
 * announces it. */
static enum status commit(struct scope *sc, const struct task_host *host, struct group *g, PGresult **out)
{
    enum status s = STATUS_OK;
    for (int i = 0; i < COMMIT_TRIES; i++) {
        s = attempts_end(sc, host->db, g->items, g->count, out);
        if (s != STATUS_UNAVAILABLE && s != STATUS_TIMEOUT)
            return s;
        log_warning("batch_end_not_committed", log_int("operations", (int64_t)g->count),
                    log_text("problem", sc->problem_text));
        scope_forgive(sc);
        if (host->is_told && *host->is_told)
            return s;
        poll(NULL, 0, COMMIT_PAUSE_MS);
        task_heartbeat(&g->items[0]->task);
    }
    return s;
}

static void announce(struct scope *sc, const struct task_host *host, struct group *g, const PGresult *rows)
{
    struct event *before = arena_array(&sc->arena, g->count * MOST_HELD_EVENTS + 1, sizeof *before);
    size_t n = 0;
    for (size_t i = 0; i < g->count; i++) {
        const struct task_runtime *rt = &g->items[i]->runtime;
        for (size_t e = 0; g->items[i]->end.outcome != TASK_LOST && e < rt->held_count; e++)
            before[n++] = rt->held[e];
    }
    if (operation_store_announce_rows(sc, host->db, host->events, rows, before, n) != STATUS_OK)
        log_debug("ends_not_announced", log_int("operations", (int64_t)g->count),
                  log_text("problem", sc->problem_text));
}

static void flush(struct tally *t);

/* One that the database refuses does not take the others with it. */
static void flush_each(struct tally *t)
{
    struct group all = t->group;
    for (size_t i = 0; i < all.count; i++) {
        t->group = (struct group){.items = {all.items[i]}, .count = 1};
        flush(t);
    }
    t->group.count = 0;
}

static void flush(struct tally *t)
{
    const struct task_host *host = t->host;
    struct group *g = &t->group;
    if (g->count == 0)
        return;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = FAULT(BEFORE_BATCH_END, g->items[0]->task.operation_id) ? STATUS_UNAVAILABLE
                                                                            : commit(&sc, host, g, &rows);
    (void)FAULT(AFTER_BATCH_END, g->items[0]->task.operation_id);
    if (s != STATUS_OK && s != STATUS_UNAVAILABLE && s != STATUS_TIMEOUT && g->count > 1) {
        scope_done(&sc);
        flush_each(t);
        return;
    }
    if (s == STATUS_OK)
        announce(&sc, host, g, rows);
    for (size_t i = 0; i < g->count; i++) {
        if (s != STATUS_OK)
            attempt_not_recorded(g->items[i], s);
        tell(t, g->items[i]);
        attempt_done(g->items[i]);
    }
    scope_done(&sc);
    g->count = 0;
}

/* One that is to be given back, or is not ours any more, waits for nobody; its history is told first. */
static void put_aside(struct attempt *a, struct tally *t)
{
    if (a->end.outcome != TASK_LOST)
        attempt_release_events(a);
    tell(t, a);
    attempt_done(a);
}

static void on_slow(void *context)
{
    flush(context);
}

static void run_items(struct attempt *attempts, struct batch_page *page, struct tally *t)
{
    struct group *g = &t->group;
    uint32_t item;
    while (begin_next(page, &item)) {
        struct attempt *a = &attempts[item];
        (void)FAULT(BATCH_ITEM_BEGUN, a->task.operation_id);
        a->runtime.holds_events = true;
        a->runtime.on_slow = on_slow;
        a->runtime.slow_context = t;
        attempt_work(a);
        a->end.item = item;
        if (a->end.outcome == TASK_COMPLETED || a->end.outcome == TASK_FAILED)
            g->items[g->count++] = a;
        else
            put_aside(a, t);
        int64_t now = clock_monotonic_ms();
        if (g->count == 1)
            g->since_ms = now;
        if (g->count > 0 && (now - g->since_ms > GROUP_MS || now - a->runtime.started_ms > GROUP_MS))
            flush(t);
        if (t->host->is_told && *t->host->is_told)
            break;
    }
    flush(t);
}

void task_batch(const struct task_host *host, const struct batch_order *order, struct batch_page *page,
                void (*say)(const struct report *report))
{
    struct attempt *attempts = must_calloc(order->count, sizeof *attempts), *list[MOST_IN_BATCH];
    struct tally t = {.host = host, .say = say, .total = {.kind = REPORT_BATCH_END}};
    for (uint32_t i = 0; i < order->count; i++) {
        attempt_init(&attempts[i], host, order->items[i].operation_id, order->items[i].task_id, order->worker_id);
        list[i] = &attempts[i];
    }
    if (attempts_load(list, order->count) != STATUS_OK)
        log_debug("batch_not_loaded", log_int("operations", order->count));
    run_items(attempts, page, &t);
    for (uint32_t i = 0; i < order->count; i++)
        attempt_done(&attempts[i]); /* those that were taken back; the others are done already */
    free(attempts);
    say(&t.total);
}
