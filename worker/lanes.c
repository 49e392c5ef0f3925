#include "worker/supervisor_state.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "worker/attempt.h"
#include "worker/claim.h"

#include <stdio.h>
#include <string.h>

enum {
    POP_SECONDS = 5,        /* of one BRPOP */
    POP_DEADLINE_MS = 7000, /* later, the connection is deaf */
    DUE_AT_A_TIME = 50,
    FIND_AGAIN_MS = 50,
};

static const char CHILD_ENDED[] = "its worker's child had just ended";

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

/* Puts UUIDs that were popped and cannot be used here to where they came from, in their order. */
static void push_back(struct supervisor *w, const struct lane *lane, const bool *is_wanted)
{
    struct scope sc;
    scope_init(&sc, NULL);
    const char *argv[2 + MOST_IN_BATCH] = {"RPUSH"};
    int argc = 2;
    argv[1] = lane->held_queue ? redis_key(&sc, w->stores.queue, "queue:%s", lane->held_queue) : "";
    for (size_t i = lane->held_count; i-- > 0;) {
        if (!is_wanted || is_wanted[i])
            argv[argc++] = lane->held[i];
    }
    bool is_dropped = argc > 2 && FAULT(BEFORE_PUT_BACK, argv[2]);
    if (argc > 2 && !is_dropped && redis_run_argv(&sc, w->stores.queue, NULL, argc, argv, NULL) != STATUS_OK)
        log_debug("jobs_not_put_back", log_int("operations", argc - 2), log_text("problem", sc.problem_text));
    scope_done(&sc);
}

void put_back(struct supervisor *w, struct lane *lane)
{
    push_back(w, lane, NULL);
    lane->held_count = 0;
}

static void hand_over(struct supervisor *w, struct slot *slot, const char *uuid, const struct claim *claim)
{
    if (FAULT(AFTER_CLAIM, uuid))
        return; /* as if the answer to the claim had been lost */
    struct order order = {.kind = ORDER_RUN};
    snprintf(order.operation_id, sizeof order.operation_id, "%s", uuid);
    memcpy(order.task_id, claim->task_id, sizeof order.task_id);
    memcpy(order.worker_id, w->worker_id, sizeof order.worker_id);
    if (slot_run(slot, &order, claim->type, claim->attempt)) {
        (void)FAULT(AFTER_HAND_OVER, uuid);
        return;
    }
    const struct hand_back give = hand_back_free(order.operation_id, order.task_id, CHILD_ENDED);
    give_back(w, &give);
}

/* False: nobody knows yet, try again later. */
static bool take(struct supervisor *w, struct lane *lane, struct slot *slot, const char *uuid)
{
    struct scope sc;
    struct claim claim;
    scope_init(&sc, uuid);
    enum status s = FAULT(BEFORE_CLAIM, uuid) ? STATUS_UNAVAILABLE
                                              : claim_operation(&sc, w->db, w->settings, uuid, w->worker_id, &claim);
    if (s == STATUS_OK) {
        lane->is_brief = task_is_brief(claim.type) && !lane->lacks_many;
        hand_over(w, slot, uuid, &claim);
    } else if (s == STATUS_CONFLICT)
        log_debug("job_dropped", log_text("operation", uuid));
    else
        log_warning("claim_failed", log_text("operation", uuid), log_text("problem", sc.problem_text));
    scope_done(&sc);
    return s != STATUS_UNAVAILABLE && s != STATUS_TIMEOUT;
}

static void hand_over_batch(struct supervisor *w, struct slot *slot, const struct claim *claims, size_t count)
{
    (void)FAULT(BATCH_CLAIMED, claims[0].operation_id);
    struct slot_item *items = must_calloc(count, sizeof *items);
    for (size_t i = 0; i < count; i++) {
        memcpy(items[i].operation_id, claims[i].operation_id, sizeof items[i].operation_id);
        memcpy(items[i].task_id, claims[i].task_id, sizeof items[i].task_id);
        items[i].type = claims[i].type;
        items[i].attempt = claims[i].attempt;
    }
    if (slot_run_batch(slot, items, (uint32_t)count, w->worker_id))
        return;
    for (size_t i = 0; i < count; i++) {
        const struct hand_back give = hand_back_free(claims[i].operation_id, claims[i].task_id, CHILD_ENDED);
        give_back(w, &give);
    }
}

/* What was popped beyond the brief kinds waits in its queue, not here behind others. */
static void return_others(struct scope *sc, struct supervisor *w, struct lane *lane, const struct claim *claims,
                          size_t count)
{
    bool is_wanted[MOST_IN_BATCH];
    if (claim_wanted(sc, w->db, w->settings, lane->held, lane->held_count, is_wanted) != STATUS_OK)
        return; /* the reconciler misses them */
    for (size_t i = 0; i < count; i++)
        is_wanted[claims[i].turn - 1] = false;
    push_back(w, lane, is_wanted);
}

/* False: nobody knows yet, try again later. */
static bool take_many(struct supervisor *w, struct lane *lane, struct slot *slot)
{
    struct scope sc;
    struct claim claims[MOST_IN_BATCH];
    size_t count = 0;
    scope_init(&sc, NULL);
    enum status s = claim_many(&sc, w->db, w->settings, lane->held, lane->held_count, w->worker_id, claims, &count);
    if (s != STATUS_OK)
        log_warning("claims_failed", log_int("operations", (int64_t)lane->held_count),
                    log_text("problem", sc.problem_text));
    lane->is_brief = count > 0 && !lane->lacks_many;
    if (count > 0)
        hand_over_batch(w, slot, claims, count);
    if (s == STATUS_OK && count < lane->held_count)
        return_others(&sc, w, lane, claims, count);
    scope_done(&sc);
    return s != STATUS_UNAVAILABLE && s != STATUS_TIMEOUT;
}

static void take_held(struct supervisor *w, struct lane *lane)
{
    struct slot *slot = free_slot(w, lane);
    if (lane->held_count > 0 && !slot && !w->is_draining) {
        put_back(w, lane); /* its child took a due row meanwhile, see find_due() */
        return;
    }
    if (lane->held_count == 0 || clock_monotonic_ms() < lane->try_at_ms || !slot || !may_take(w))
        return;
    if (lane->held_count == 1 ? take(w, lane, slot, lane->held[0]) : take_many(w, lane, slot))
        lane->held_count = 0;
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

static void hold(struct lane *lane, const redisReply *popped, const char *queue)
{
    if (popped->str && uuid_is_valid(popped->str) && lane->held_count < MOST_IN_BATCH)
        memcpy(lane->held[lane->held_count++], popped->str, sizeof lane->held[0]);
    else
        log_warning("job_is_no_uuid", log_text("queue", queue));
}

/* [queue, UUID] or, of many, [queue, [UUID, …]]. */
static void on_popped(struct supervisor *w, struct lane *lane, const redisReply *reply)
{
    lane->is_waiting = false;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        return; /* nothing came in time */
    const redisReply *what = reply->element[1];
    const char *key = reply->element[0]->str;
    if (what->type != REDIS_REPLY_ARRAY)
        hold(lane, what, key);
    for (size_t i = 0; what->type == REDIS_REPLY_ARRAY && i < what->elements; i++)
        hold(lane, what->element[i], key);
    lane->held_queue = queue_of_key(lane, key ? key : "");
    lane->try_at_ms = 0;
    (void)FAULT(AFTER_POP, lane->held[0]);
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
    enum status s = lane->is_waiting ? redis_receive(&sc, lane->redis, &reply) : STATUS_OK;
    if (s != STATUS_OK) {
        log_warning("queue_connection_lost", log_text("problem", sc.problem_text));
        lane->lacks_many = lane->is_brief && s == STATUS_INTERNAL; /* BLMPOP came with Redis 7 */
        lane->is_brief = lane->is_waiting = false;
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
    if (lane->is_waiting || lane->held_count > 0 || now < lane->try_at_ms || !free_slot(w, lane) || !may_take(w))
        return;
    struct scope sc;
    scope_init(&sc, NULL);
    const char *argv[MOST_QUEUES + 6] = {"BRPOP"}, *seconds = arena_printf(&sc.arena, "%d", POP_SECONDS);
    int argc = 1;
    if (lane->is_brief) {
        argv[0] = "BLMPOP";
        argv[argc++] = seconds;
        argv[argc++] = arena_printf(&sc.arena, "%zu", lane->queue_count);
    }
    for (size_t i = 0; i < lane->queue_count; i++)
        argv[argc++] = redis_key(&sc, lane->redis, "queue:%s", lane->queues[i]);
    if (lane->is_brief) {
        argv[argc++] = "RIGHT";
        argv[argc++] = "COUNT";
        argv[argc++] = arena_printf(&sc.arena, "%d", MOST_IN_BATCH);
    } else {
        argv[argc++] = seconds;
    }
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
            return take(w, &w->lanes[l], slot, uuid) && slot->state == SLOT_BUSY;
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
