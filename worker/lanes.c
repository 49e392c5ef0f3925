#include "worker/supervisor_state.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "worker/claim.h"

#include <stdio.h>
#include <string.h>

enum {
    POP_SECONDS = 5,        /* of one BRPOP */
    POP_DEADLINE_MS = 7000, /* later, the connection is deaf */
    DUE_AT_A_TIME = 50,
    FIND_AGAIN_MS = 50,
};

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
void put_back(struct supervisor *w, struct lane *lane)
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
    (void)FAULT(AFTER_CLAIM, uuid);
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
    if (lane->held[0] && !slot && !w->is_draining) {
        put_back(w, lane); /* its child took a due row meanwhile, see find_due() */
        return;
    }
    if (!lane->held[0] || clock_monotonic_ms() < lane->try_at_ms || !may_take(w))
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

void read_lane(struct supervisor *w, struct lane *lane)
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
void pump(struct supervisor *w, struct lane *lane)
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

/* The due rows themselves are the queue of a worker that has children to spare. That is so without Redis, and when it
 * answers and takes no pushes (out of memory, read-only): nobody sees from here which one, so it is not asked. */
void find_due(struct supervisor *w)
{
    int64_t now = clock_monotonic_ms();
    if (now < w->find_at_ms || (!free_slot(w, &w->lanes[0]) && !free_slot(w, &w->lanes[1])) || !may_take(w))
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
