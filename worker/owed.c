#include "worker/supervisor_state.h"

#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>

bool is_database_away(const struct supervisor *w)
{
    return w->lease && lease_is_cut_off(w->lease);
}

/* A database that does not answer is asked once a turn: each try may take seconds, in which nothing else happens. */
void pay(struct supervisor *w)
{
    size_t kept = 0;
    bool is_away = is_database_away(w);
    for (size_t i = 0; i < w->owed_count; i++) {
        if (is_away) {
            w->owed[kept++] = w->owed[i];
            continue;
        }
        struct scope sc;
        scope_init(&sc, w->owed[i].operation_id);
        enum settled settled = SETTLED_LOST;
        enum status s = settle_hand_back(&sc, &w->stores, &w->owed[i], &settled);
        bool is_passing = is_away = s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT;
        if (s != STATUS_OK)
            log_at(is_passing ? LOG_DEBUG : LOG_ERROR, "hand_back_failed",
                   log_text("operation", w->owed[i].operation_id), log_text("problem", sc.problem_text));
        if (is_passing)
            w->owed[kept++] = w->owed[i];
        scope_done(&sc);
    }
    w->owed_count = kept;
    w->owed_at_ms = clock_monotonic_ms() + RETRY_MS;
}

void give_back(struct supervisor *w, const struct hand_back *give)
{
    if (w->owed_count == w->owed_capacity) {
        w->owed_capacity = w->owed_capacity ? w->owed_capacity * 2 : 8;
        w->owed = must_realloc(w->owed, w->owed_capacity * sizeof *w->owed);
    }
    w->owed[w->owed_count++] = *give;
    pay(w);
}

struct hand_back hand_back_free(const char *operation_id, const char *task_id, const char *reason)
{
    struct hand_back give = {.class = ERROR_NONE, .ended = ATTEMPT_HANDED_BACK};
    snprintf(give.operation_id, sizeof give.operation_id, "%s", operation_id);
    snprintf(give.task_id, sizeof give.task_id, "%s", task_id);
    snprintf(give.reason, sizeof give.reason, "%s", reason);
    return give;
}

struct hand_back hand_back_of(const struct slot *slot, bool is_counted, enum error_class class, const char *reason)
{
    struct hand_back give = hand_back_free(slot->operation_id, slot->task_id, reason);
    give.is_counted = is_counted;
    give.class = class;
    return give;
}
