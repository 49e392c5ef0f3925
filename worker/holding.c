#include "worker/supervisor_state.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>

enum {
    CHECK_MS = 1000,   /* between two looks at the rows of running operations */
    ORPHANS_MS = 5000, /* between two looks for operations that are ours without our knowing */
};

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

void check_rows(struct supervisor *w)
{
    w->check_at_ms = clock_monotonic_ms() + CHECK_MS;
    scoped_text list = {0};
    for (size_t i = 0; i < w->slot_count; i++) {
        uint32_t item;
        (void)slot_look(&w->slots[i], &item);
        if (w->slots[i].state == SLOT_BUSY && w->slots[i].stop == STOP_NONE)
            db_array_put(&list, w->slots[i].task_id);
    }
    if (!list.len)
        return;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, w->db, SQL_OPERATIONS_NOT_HELD, &rows, db_array_end(&list));
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        struct slot *slot = slot_of_task(w, db_text(rows, r, "id"));
        if (!slot)
            continue;
        log_info("task_told_to_stop", log_text("operation", slot->operation_id), log_text("task", slot->task_id),
                 log_text("worker", w->worker_id), log_int("attempt", slot->attempt),
                 log_text("reason", "its operation is not ours any more"));
        (void)FAULT(BEFORE_TASK_TOLD_TO_STOP, slot->operation_id);
        slot_stop(slot, STOP_LOST, cancel_grace_ms(w->settings));
    }
    scope_done(&sc);
}

/* A claim whose answer got lost, or came when nobody waited for it any more, left an operation with us that no child
 * works on, and no lease would ever lapse for it. */
void check_orphans(struct supervisor *w)
{
    w->orphans_at_ms = clock_monotonic_ms() + ORPHANS_MS;
    scoped_text known = {0};
    for (size_t i = 0; i < w->slot_count; i++) {
        for (uint32_t k = 0; k < w->slots[i].item_count; k++)
            db_array_put(&known, w->slots[i].items[k].task_id);
        if (slot_has_task(&w->slots[i]) && !w->slots[i].items)
            db_array_put(&known, w->slots[i].task_id);
    }
    for (size_t i = 0; i < w->owed_count; i++)
        db_array_put(&known, w->owed[i].task_id);
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, w->db, SQL_OPERATIONS_ORPHANED, &rows, w->worker_id, db_array_end(&known));
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        const struct hand_back give = hand_back_free(db_text(rows, r, "uuid"), db_text(rows, r, "task_id"),
                                                     "the answer to its claim was lost");
        log_warning("operation_orphaned", log_text("operation", give.operation_id), log_text("task", give.task_id),
                    log_text("worker", w->worker_id));
        metrics_add(METRIC_ORPHANED_CLAIMS, NULL, NULL, 1);
        (void)FAULT(ORPHAN_FOUND, give.operation_id);
        give_back(w, &give);
    }
    scope_done(&sc);
}
