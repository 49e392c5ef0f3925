#include "build/queries.h"
#include "common/json.h"
#include "tests/support/store.h"

#include <string.h>

static int64_t outstanding(const char *queue)
{
    scoped(redisReply) *reply = NULL;
    assert_ok(
        redis_run(&store.sc, store.queue, &reply, "LLEN %s", redis_key(&store.sc, store.queue, "queue:%s", queue)));
    return reply->integer;
}

static const char *status_of(const char *uuid)
{
    return store_sql("SELECT status FROM operations WHERE uuid = '%s'", uuid);
}

/* ---- the table of transitions ---- */

static bool is_allowed(enum operation_state from, enum operation_state to)
{
    size_t count;
    const struct operation_transition *all = operation_transitions(&count);
    for (size_t i = 0; i < count; i++) {
        if (all[i].from == from && all[i].to == to)
            return true;
    }
    return false;
}

static void the_trigger_allows_exactly_the_transitions_of_the_code(void **state)
{
    (void)state;
    int64_t user = store_user();
    for (int from = 0; from < OPERATION_STATES; from++) {
        for (int to = 0; to < OPERATION_STATES; to++) {
            const char *from_name = operation_state_name((enum operation_state)from);
            const char *to_name = operation_state_name((enum operation_state)to);
            const char *uuid = store_sql("INSERT INTO operations (user_id, type, status, mutates, queue, config) "
                                         "VALUES (%lld, 'noop', '%s', false, 'default', '{\"a\":1}') RETURNING uuid",
                                         (long long)user, from_name);
            const char *sql = arena_printf(&store.sc.arena, "UPDATE operations SET status = '%s' WHERE uuid = '%s'",
                                           to_name, uuid);
            enum status s = db_run(&store.sc, store.db, sql, NULL);
            bool may = from == to || is_allowed((enum operation_state)from, (enum operation_state)to);
            if (s != (may ? STATUS_OK : STATUS_INVALID))
                fail_msg("%s -> %s: %s", from_name, to_name, status_name(s));
            scope_forgive(&store.sc);
        }
    }
}

static void an_attempt_never_counts_backwards(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    assert_non_null(store_claim(o.uuid, store_worker(60)));
    const char *sql = arena_printf(&store.sc.arena, "UPDATE operations SET attempt = 0 WHERE uuid = '%s'", o.uuid);
    assert_status(STATUS_INVALID, db_run(&store.sc, store.db, sql, NULL));
}

/* ---- accept ---- */

static void an_accepted_operation_is_pending_in_its_kinds_queue(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct operation_ref o = store_operation(user, collection, OPERATION_INDEX);
    assert_true(uuid_is_valid(o.uuid));
    assert_string_equal(o.queue, "fast");
    assert_string_equal(o.status, "pending");
    assert_string_equal(o.type, "index");
    assert_int_equal(o.attempt, 0);
    assert_int_equal(o.user_id, user);
    assert_string_equal(o.collection_uuid,
                        store_sql("SELECT uuid FROM collections WHERE id = %lld", (long long)collection));
    assert_int_equal(store_sql_int("SELECT max_attempts FROM operations WHERE uuid = '%s'", o.uuid), 4);
}

static void a_collection_may_name_its_own_queue(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    store_sql("UPDATE collections SET queue = 'night' WHERE id = %lld", (long long)collection);
    assert_string_equal(store_operation(user, collection, OPERATION_APPEND).queue, "night");
}

static void an_empty_config_is_refused(void **state)
{
    (void)state;
    const struct operation_new wanted = {.user_id = store_user(), .type = OPERATION_NOOP, .config_json = "{}"};
    struct operation_ref o;
    assert_status(STATUS_INVALID, operation_store_insert(&store.sc, store.db, &wanted, &o));
}

static void a_second_mutating_operation_meets_the_first_one(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    const char *holder;
    assert_status(STATUS_NOT_FOUND, operation_store_active(&store.sc, store.db, collection, &holder));
    struct operation_ref first = store_operation(user, collection, OPERATION_APPEND), second;
    const struct operation_new wanted = {
        .collection_id = collection, .user_id = user, .type = OPERATION_REINDEX, .config_json = "{\"a\":1}"};
    assert_status(STATUS_CONFLICT, operation_store_insert(&store.sc, store.db, &wanted, &second));
    assert_string_equal(db_constraint(store.db), "operations_one_at_a_time");
    assert_ok(operation_store_active(&store.sc, store.db, collection, &holder));
    assert_string_equal(holder, first.uuid);
}

static void operations_that_only_read_do_not_hold_the_collection(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    store_operation(user, collection, OPERATION_APPEND);
    store_operation(user, collection, OPERATION_BENCHMARK);
    store_operation(user, collection, OPERATION_PROJECTION_BUILD);
}

static void a_finished_operation_lets_the_next_one_in(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user), id;
    struct operation_ref o = store_operation(user, collection, OPERATION_APPEND);
    const char *worker;
    assert_ok(operation_store_cancel(&store.sc, store.db, o.uuid, &o, &worker, &id));
    store_operation(user, collection, OPERATION_APPEND);
}

static void a_push_puts_the_uuid_into_its_queue(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    int64_t before = outstanding("default");
    operation_store_push(&store.sc, store.queue, &o);
    assert_int_equal(outstanding("default"), before + 1);
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.queue, &reply, "LPOP %s", redis_key(&store.sc, store.queue, "queue:default")));
    assert_string_equal(reply->str, o.uuid);
}

static void a_push_that_fails_is_no_problem_of_the_caller(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const struct redis_options nobody = {.url = "redis://127.0.0.1:1", .timeout_ms = 100};
    struct redis *r = redis_new(&nobody);
    operation_store_push(&store.sc, r, &o);
    redis_free(r);
    assert_int_equal(store.sc.problem, STATUS_OK);
}

/* ---- claim ---- */

static void a_claim_names_task_worker_and_attempt(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *worker = store_worker(60), *task = store_claim(o.uuid, worker);
    assert_non_null(task);
    assert_string_equal(
        store_sql("SELECT concat_ws(' ', status, task_id, worker_id, attempt, started_at IS NOT NULL) FROM operations "
                  "WHERE uuid = '%s'",
                  o.uuid),
        arena_printf(&store.sc.arena, "processing %s %s 1 t", task, worker));
    assert_string_equal(store_sql("SELECT meta #>> '{attempts,0,task_id}' FROM operations WHERE uuid = '%s'", o.uuid),
                        task);
}

static void a_uuid_delivered_twice_is_claimed_once(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    assert_non_null(store_claim(o.uuid, store_worker(60)));
    assert_null(store_claim(o.uuid, store_worker(60)));
}

static void what_is_not_due_is_not_claimed(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    store_sql("UPDATE operations SET not_before = now() + interval '1 hour' WHERE uuid = '%s'", o.uuid);
    assert_null(store_claim(o.uuid, store_worker(60)));
}

static void a_type_that_the_worker_does_not_know_is_not_claimed(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    scoped(PGresult) *rows = NULL;
    assert_ok(
        db_run(&store.sc, store.db, SQL_OPERATION_CLAIM, &rows, o.uuid, o.uuid, store_worker(60), "{index,append}"));
    assert_int_equal(PQntuples(rows), 0);
}

static void a_worker_that_drains_or_lapsed_claims_nothing(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *draining = store_worker(60);
    store_sql("UPDATE workers SET draining = true WHERE id = '%s'", draining);
    assert_null(store_claim(o.uuid, draining));
    assert_null(store_claim(o.uuid, store_worker(-1)));
    assert_null(store_claim(o.uuid, "unknown"));
    assert_non_null(store_claim(o.uuid, store_worker(60)));
    store_sql("DELETE FROM workers WHERE expires_at < now()");
}

/* ---- the fence ---- */

static void the_fence_lets_the_holder_commit(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *task = store_claim(o.uuid, store_worker(60));
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(db_run(&store.sc, store.db, SQL_FENCE, NULL, o.uuid, task));
    assert_ok(db_commit(&store.sc, store.db));
}

static void the_fence_stops_an_attempt_that_lost_its_operation(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *lost = store_claim(o.uuid, store_worker(60));
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_HAND_BACK, NULL, o.uuid, lost, "0", "false", NULL, "test",
                     "handed_back"));
    assert_status(STATUS_LOST, db_run(&store.sc, store.db, SQL_FENCE, NULL, o.uuid, lost)); /* pending */
    const char *task = store_claim(o.uuid, store_worker(60));
    assert_status(STATUS_LOST, db_run(&store.sc, store.db, SQL_FENCE, NULL, o.uuid, lost)); /* another's */
    assert_ok(db_run(&store.sc, store.db, SQL_FENCE, NULL, o.uuid, task));
    store_sql("UPDATE operations SET status = 'cancelled' WHERE uuid = '%s'", o.uuid);
    assert_status(STATUS_LOST, db_run(&store.sc, store.db, SQL_FENCE, NULL, o.uuid, task)); /* final */
}

/* The attempt has passed nothing yet when the operation is swept and claimed by another: its transaction, begun long
 * before, must fail. */
static void a_late_transaction_cannot_commit_after_another_claim(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct operation_ref o = store_operation(user, collection, OPERATION_APPEND);
    const char *late = store_claim(o.uuid, store_worker(60));
    struct db *attempt = store_connect(late);
    assert_ok(db_begin(&store.sc, attempt));
    const char *work = arena_printf(&store.sc.arena,
                                    "INSERT INTO sources (collection_id, source_path) VALUES (%lld, '/late')",
                                    (long long)collection);
    assert_ok(db_run(&store.sc, attempt, work, NULL));
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_HAND_BACK, NULL, o.uuid, late, "0", "false", NULL, "test",
                     "handed_back"));
    assert_non_null(store_claim(o.uuid, store_worker(60)));
    assert_status(STATUS_LOST, db_run(&store.sc, attempt, SQL_FENCE, NULL, o.uuid, late));
    assert_status(STATUS_LOST, db_commit(&store.sc, attempt));
    db_free(attempt);
    assert_int_equal(store_sql_int("SELECT count(*) FROM sources WHERE collection_id = %lld", (long long)collection),
                     0);
}

/* The other way round: once the fence is passed, nobody takes the operation away until the COMMIT. */
static void a_claim_waits_for_a_transaction_that_passed_the_fence(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *task = store_claim(o.uuid, store_worker(60));
    struct db *attempt = store_connect(task);
    assert_ok(db_begin(&store.sc, attempt));
    assert_ok(db_run(&store.sc, attempt, SQL_FENCE, NULL, o.uuid, task));
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(db_run(&store.sc, store.db, "SET LOCAL lock_timeout = '50ms'", NULL));
    assert_status(STATUS_UNAVAILABLE, db_run(&store.sc, store.db, SQL_OPERATION_CANCEL, NULL, o.uuid));
    db_rollback(store.db);
    assert_ok(db_commit(&store.sc, attempt));
    db_free(attempt);
}

/* ---- hand back, finish, sweep ---- */

static void hand_back(const char *uuid, const char *task, bool counts)
{
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_HAND_BACK, &rows, uuid, task, "0", counts ? "true" : "false",
                     "transient", "why", counts ? "failed" : "handed_back"));
    assert_int_equal(PQntuples(rows), 1);
}

static void hand_backs_are_free_and_failures_are_counted_to_the_limit(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP); /* 4 attempts */
    const char *worker = store_worker(60);
    for (int i = 0; i < 6; i++)
        hand_back(o.uuid, store_claim(o.uuid, worker), false);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(status_of(o.uuid), "pending");
        hand_back(o.uuid, store_claim(o.uuid, worker), true);
    }
    assert_string_equal(status_of(o.uuid), "failed");
    assert_string_equal(
        store_sql("SELECT concat_ws(' ', attempt, failures, error_class, error_message, completed_at IS NOT NULL) FROM "
                  "operations WHERE uuid = '%s'",
                  o.uuid),
        "10 4 transient why t");
    assert_int_equal(
        store_sql_int("SELECT jsonb_array_length(meta -> 'attempts') FROM operations WHERE uuid = '%s'", o.uuid), 10);
}

static void only_the_holder_hands_back_or_finishes(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *task = store_claim(o.uuid, store_worker(60)), *another = o.uuid;
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_HAND_BACK, &rows, o.uuid, another, "0", "true", NULL, NULL,
                     "failed"));
    assert_int_equal(PQntuples(rows), 0);
    scoped(PGresult) *more = NULL;
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_FINISH, &more, o.uuid, another, "completed", NULL, NULL, NULL,
                     NULL, NULL, NULL));
    assert_int_equal(PQntuples(more), 0);
    scoped(PGresult) *done = NULL;
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_FINISH, &done, o.uuid, task, "completed", NULL, NULL,
                     "{\"n\":1}", "3", "1", "4"));
    assert_int_equal(PQntuples(done), 1);
    assert_string_equal(
        store_sql("SELECT concat_ws(' ', status, percent, processed, failed, total) FROM operations WHERE uuid = '%s'",
                  o.uuid),
        "completed 100 3 1 4");
}

static void only_lapsed_workers_are_swept(void **state)
{
    (void)state;
    int64_t user = store_user();
    struct operation_ref kept = store_operation(user, 0, OPERATION_NOOP),
                         lost = store_operation(user, 0, OPERATION_NOOP);
    const char *alive = store_worker(60), *dead = store_worker(60);
    assert_non_null(store_claim(kept.uuid, alive));
    assert_non_null(store_claim(lost.uuid, dead));
    store_sql("UPDATE workers SET expires_at = now() - interval '1 second' WHERE id = '%s'", dead);
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, store.db, SQL_WORKERS_SWEEP, &rows, "10", NULL, "5"));
    assert_int_equal(PQntuples(rows), 1);
    assert_string_equal(db_text(rows, 0, "uuid"), lost.uuid);
    assert_string_equal(status_of(lost.uuid), "pending");
    assert_string_equal(status_of(kept.uuid), "processing");
    assert_null(store_sql("SELECT id FROM workers WHERE id = '%s'", dead));
    assert_non_null(store_sql("SELECT id FROM workers WHERE id = '%s'", alive));
    scoped(PGresult) *renewed = NULL; /* what was swept cannot come back under its old name */
    assert_ok(db_run(&store.sc, store.db, SQL_WORKER_RENEW, &renewed, dead, "60", "false"));
    assert_int_equal(PQntuples(renewed), 0);
}

static void a_worker_that_was_stopped_or_fell_silent_in_an_outage_is_no_crash(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    static const char *const lapses[] = {"draining = true, expires_at = now() - interval '1 second'",
                                         "expires_at = now() - interval '4 seconds'"};
    for (size_t i = 0; i < array_len(lapses); i++) {
        const char *worker = store_worker(60);
        assert_non_null(store_claim(o.uuid, worker));
        store_sql("UPDATE workers SET %s WHERE id = '%s'", lapses[i], worker);
        assert_ok(db_run(&store.sc, store.db, SQL_WORKERS_SWEEP, NULL, "10", "8.5", "5"));
        assert_string_equal(store_sql("SELECT status || failures FROM operations WHERE uuid = '%s'", o.uuid),
                            "pending0");
    }
    const char *worker = store_worker(60); /* heard of after the outage: it died */
    assert_non_null(store_claim(o.uuid, worker));
    store_sql("UPDATE workers SET expires_at = now() - interval '1 second' WHERE id = '%s'", worker);
    assert_ok(db_run(&store.sc, store.db, SQL_WORKERS_SWEEP, NULL, "10", "8.5", "5"));
    assert_string_equal(store_sql("SELECT failures::text FROM operations WHERE uuid = '%s'", o.uuid), "1");
}

static void an_operation_whose_workers_keep_dying_fails_with_the_count(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    for (int i = 0; i < 4; i++) {
        const char *worker = store_worker(60);
        assert_non_null(store_claim(o.uuid, worker));
        store_sql("UPDATE workers SET expires_at = now() - interval '1 second' WHERE id = '%s'", worker);
        assert_ok(db_run(&store.sc, store.db, SQL_WORKERS_SWEEP, NULL, "10", NULL, "5"));
    }
    assert_string_equal(status_of(o.uuid), "failed");
    assert_string_equal(store_sql("SELECT error_message FROM operations WHERE uuid = '%s'", o.uuid),
                        "its worker died 4 times, last because its lease lapsed");
}

static void progress_of_a_lost_attempt_is_not_written(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *task = store_claim(o.uuid, store_worker(60));
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_PROGRESS, NULL, o.uuid, task, "50", "1", "0", "2", "a.txt"));
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_PROGRESS, NULL, o.uuid, o.uuid, "99", "9", "9", "9", "b.txt"));
    assert_string_equal(
        store_sql(
            "SELECT concat_ws(' ', percent, processed, failed, total, current_file) FROM operations WHERE uuid = '%s'",
            o.uuid),
        "50 1 0 2 a.txt");
}

/* ---- cancel, settle, audit ---- */

static void a_running_operation_is_cancelled_and_names_its_worker(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user), id = 0;
    struct operation_ref o = store_operation(user, collection, OPERATION_APPEND), out;
    const char *worker = store_worker(60), *named = NULL;
    assert_non_null(store_claim(o.uuid, worker));
    assert_ok(operation_store_cancel(&store.sc, store.db, o.uuid, &out, &named, &id));
    assert_string_equal(named, worker);
    assert_int_equal(id, collection);
    assert_string_equal(out.uuid, o.uuid);
    assert_string_equal(out.status, "cancelled");
    assert_int_equal(out.attempt, 1);
}

static void a_finished_operation_cannot_be_cancelled(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP), out;
    const char *worker;
    int64_t id;
    assert_ok(operation_store_cancel(&store.sc, store.db, o.uuid, &out, &worker, &id));
    assert_null(worker);
    assert_status(STATUS_CONFLICT, operation_store_cancel(&store.sc, store.db, o.uuid, &out, &worker, &id));
    assert_status(STATUS_CONFLICT, operation_store_cancel(&store.sc, store.db, "00000000-0000-4000-8000-000000000000",
                                                          &out, &worker, &id));
}

static void an_operation_that_ended_settles_its_collection_and_is_audited(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct operation_ref o = store_operation(user, collection, OPERATION_APPEND);
    assert_ok(operation_store_settle_collection(&store.sc, store.db, collection, "ready", "Completed with errors"));
    assert_string_equal(
        store_sql("SELECT status || ': ' || status_message FROM collections WHERE id = %lld", (long long)collection),
        "ready: Completed with errors");
    assert_ok(operation_store_audit(&store.sc, store.db, &o, "completed", "{\"documents_processed\":3}"));
    assert_ok(operation_store_audit(&store.sc, store.db, &o, "failed", NULL));
    assert_string_equal(
        store_sql(
            "SELECT string_agg(action || details::text, ' ' ORDER BY id) FROM audit_log WHERE operation_uuid = '%s'",
            o.uuid),
        "operation_append_pending{} operation_append_completed{\"documents_processed\": 3} operation_append_failed{}");
}

/* ---- announce ---- */

static redisReply *events_of(const char *uuid)
{
    redisReply *entries = NULL;
    assert_ok(redis_run(&store.sc, store.events, &entries, "XRANGE %s - +",
                        redis_key(&store.sc, store.events, MESSAGE_STREAM, uuid)));
    return entries;
}

static const char *message_of(const redisReply *entry)
{
    return entry->element[1]->element[1]->str;
}

static void the_last_event_is_announced_exactly_once(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *task = store_claim(o.uuid, store_worker(60));
    assert_ok(operation_store_announce(&store.sc, store.db, store.events, o.uuid)); /* not final: nothing happens */
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_FINISH, NULL, o.uuid, task, "completed", NULL, NULL,
                     "{\"chunks\":7}", NULL, NULL, NULL));
    for (int i = 0; i < 3; i++)
        assert_ok(operation_store_announce(&store.sc, store.db, store.events, o.uuid));
    assert_non_null(store_sql("SELECT announced_at FROM operations WHERE uuid = '%s'", o.uuid));
    scoped(redisReply) *entries = events_of(o.uuid);
    assert_int_equal(entries->elements, 1);
    scoped(cJSON) *event = NULL;
    assert_ok(json_parse(&store.sc, message_of(entries->element[0]), strlen(message_of(entries->element[0])), &event));
    assert_string_equal(json_get_text(event, "type", ""), "operation_completed");
    assert_string_equal(json_get_text(event, "status", ""), "completed");
    assert_int_equal(json_get_int(event, "progress", 0), 100);
    const cJSON *data = cJSON_GetObjectItem(event, "data");
    assert_string_equal(json_get_text(data, "operation_id", ""), o.uuid);
    assert_int_equal(json_get_int(cJSON_GetObjectItem(data, "result"), "chunks", 0), 7);
}

static void an_announcement_that_somebody_else_made_counts(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP), out;
    const char *worker;
    int64_t id;
    assert_ok(operation_store_cancel(&store.sc, store.db, o.uuid, &out, &worker, &id));
    assert_ok(operation_store_announce(&store.sc, store.db, store.events, o.uuid));
    store_sql("UPDATE operations SET announced_at = NULL WHERE uuid = '%s'", o.uuid); /* its writer died in between */
    assert_ok(operation_store_announce(&store.sc, store.db, store.events, o.uuid));
    assert_non_null(store_sql("SELECT announced_at FROM operations WHERE uuid = '%s'", o.uuid));
    scoped(redisReply) *entries = events_of(o.uuid);
    assert_int_equal(entries->elements, 1);
}

static void a_cancel_after_a_hand_back_is_announced(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP), out;
    const char *task = store_claim(o.uuid, store_worker(60)), *worker;
    const struct event started = {.type = "operation_started",
                                  .operation_id = o.uuid,
                                  .user_id = o.user_id,
                                  .status = "processing",
                                  .attempt = 1};
    int64_t id;
    assert_ok(message_publish(&store.sc, store.events, &started, NULL));
    hand_back(o.uuid, task, false);
    assert_ok(operation_store_cancel(&store.sc, store.db, o.uuid, &out, &worker, &id));
    assert_ok(operation_store_announce(&store.sc, store.db, store.events, o.uuid));
    scoped(redisReply) *entries = events_of(o.uuid);
    assert_int_equal(entries->elements, 2);
    assert_non_null(strstr(message_of(entries->element[1]), "\"type\":\"operation_cancelled\""));
}

static void a_failure_tells_why_in_the_words_that_clients_know(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    const char *task = store_claim(o.uuid, store_worker(60));
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_FINISH, NULL, o.uuid, task, "failed", "resource",
                     "no \"space\" left", NULL, NULL, NULL, NULL));
    assert_ok(operation_store_announce(&store.sc, store.db, store.events, o.uuid));
    scoped(redisReply) *entries = events_of(o.uuid);
    scoped(cJSON) *event = NULL;
    assert_ok(json_parse(&store.sc, message_of(entries->element[0]), strlen(message_of(entries->element[0])), &event));
    const cJSON *data = cJSON_GetObjectItem(event, "data");
    assert_string_equal(json_get_text(event, "type", ""), "operation_failed");
    assert_string_equal(json_get_text(data, "status", ""), "failed");
    assert_string_equal(json_get_text(data, "error_message", ""), "no \"space\" left");
    assert_string_equal(json_get_text(data, "error_category", ""), "transient");
}

static void without_redis_the_announcement_is_left_to_do(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP), out;
    const struct redis_options nobody = {.url = "redis://127.0.0.1:1", .timeout_ms = 100};
    struct redis *r = redis_new(&nobody);
    const char *worker;
    int64_t id;
    assert_ok(operation_store_cancel(&store.sc, store.db, o.uuid, &out, &worker, &id));
    assert_status(STATUS_UNAVAILABLE, operation_store_announce(&store.sc, store.db, r, o.uuid));
    redis_free(r);
    assert_null(store_sql("SELECT announced_at FROM operations WHERE uuid = '%s'", o.uuid));
}

/* ---- reconcile ---- */

static int forget_all(void **state)
{
    (void)state;
    assert_ok(db_script(&store.sc, store.db, "DELETE FROM operations; DELETE FROM leases"));
    assert_ok(redis_run(&store.sc, store.queue, NULL, "FLUSHDB"));
    return 0;
}

static void reconcile(struct operation_reconciler *memory)
{
    assert_ok(operation_store_reconcile(&store.sc, store.db, store.queue, store.events, memory, 30));
}

static void a_forgotten_operation_is_pushed_after_two_rounds(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    reconcile(&memory);
    assert_int_equal(outstanding("default"), 0);
    reconcile(&memory);
    assert_int_equal(outstanding("default"), 1);
    for (int i = 0; i < 4; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 1);
    assert_non_null(store_claim(o.uuid, store_worker(60)));
    assert_ok(redis_run(&store.sc, store.queue, NULL, "FLUSHDB"));
    for (int i = 0; i < 3; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 0); /* it is processing */
    operation_reconciler_done(&memory);
}

static void one_that_was_pushed_and_taken_is_missed_anew(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    store_operation(store_user(), 0, OPERATION_NOOP);
    reconcile(&memory);
    reconcile(&memory);
    assert_int_equal(outstanding("default"), 1);
    assert_ok(redis_run(&store.sc, store.queue, NULL, "FLUSHDB")); /* a worker popped it and has not claimed yet */
    reconcile(&memory);
    assert_int_equal(outstanding("default"), 0);
    reconcile(&memory);
    assert_int_equal(outstanding("default"), 1);
    operation_reconciler_done(&memory);
}

static void what_is_not_due_is_not_pushed(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    store_sql("UPDATE operations SET not_before = now() + interval '1 hour' WHERE uuid = '%s'", o.uuid);
    for (int i = 0; i < 3; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 0);
    operation_reconciler_done(&memory);
}

static void a_backlog_is_not_multiplied(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    int64_t user = store_user();
    for (int i = 0; i < 50; i++) {
        struct operation_ref o = store_operation(user, 0, i % 2 ? OPERATION_NOOP : OPERATION_BENCHMARK);
        if (i != 20 && i != 21)
            operation_store_push(&store.sc, store.queue, &o);
    }
    for (int i = 0; i < 5; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 25);
    assert_int_equal(outstanding("maintenance"), 25);
    operation_reconciler_done(&memory);
}

static void an_operation_that_a_worker_took_meanwhile_is_not_pushed(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    reconcile(&memory);
    assert_int_equal(memory.missing_count, 1);
    assert_non_null(store_claim(o.uuid, store_worker(60)));
    reconcile(&memory);
    assert_int_equal(outstanding("default"), 0);
    operation_reconciler_done(&memory);
}

static void many_forgotten_operations_are_all_found_page_by_page(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    store_sql("INSERT INTO operations (user_id, type, mutates, queue, config) SELECT %lld, 'noop', false, 'default', "
              "'{\"a\":1}' FROM "
              "generate_series(1, 4500)",
              (long long)store_user());
    for (int i = 0; i < 5; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 4500);
    scoped(redisReply) *entries = NULL;
    assert_ok(redis_run(&store.sc, store.queue, &entries, "LRANGE %s 0 -1",
                        redis_key(&store.sc, store.queue, "queue:default")));
    for (int i = 0; i < 3; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 4500);
    operation_reconciler_done(&memory);
}

static void a_long_backlog_hides_no_forgotten_operation(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    const char *key = redis_key(&store.sc, store.queue, "queue:default");
    struct operation_ref queued = store_operation(store_user(), 0, OPERATION_NOOP);
    store_operation(queued.user_id, 0, OPERATION_NOOP);
    static const char fill[] = "for i = 1, 25000 do redis.call('LPUSH', KEYS[1], i) if i == 15000 then "
                               "redis.call('LPUSH', KEYS[1], ARGV[1]) end end";
    const char *argv[] = {key, queued.uuid};
    assert_ok(redis_script(&store.sc, store.queue, fill, 1, 2, argv, NULL, NULL));
    for (int i = 0; i < 3; i++)
        reconcile(&memory);
    assert_int_equal(outstanding("default"), 25002);
    operation_reconciler_done(&memory);
}

static void one_process_at_a_time_reconciles(void **state)
{
    (void)state;
    struct operation_reconciler first = {.missing = NULL}, second = {.missing = NULL};
    store_operation(store_user(), 0, OPERATION_NOOP);
    reconcile(&first);
    reconcile(&second);
    reconcile(&second);
    assert_int_equal(second.missing_count, 0);
    assert_int_equal(outstanding("default"), 0);
    store_sql("UPDATE leases SET expires_at = now() - interval '1 second'");
    reconcile(&second);
    assert_int_equal(second.missing_count, 1);
    operation_reconciler_done(&first);
    operation_reconciler_done(&second);
}

static void what_nobody_announced_is_announced(void **state)
{
    (void)state;
    struct operation_reconciler memory = {.missing = NULL};
    struct operation_ref o = store_operation(store_user(), 0, OPERATION_NOOP);
    store_sql("UPDATE operations SET status = 'failed', completed_at = now() - interval '10 seconds' WHERE uuid = '%s'",
              o.uuid);
    reconcile(&memory);
    reconcile(&memory);
    assert_non_null(store_sql("SELECT announced_at FROM operations WHERE uuid = '%s'", o.uuid));
    scoped(redisReply) *entries = events_of(o.uuid);
    assert_int_equal(entries->elements, 1);
    operation_reconciler_done(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_trigger_allows_exactly_the_transitions_of_the_code),
        cmocka_unit_test(an_attempt_never_counts_backwards),
        cmocka_unit_test(an_accepted_operation_is_pending_in_its_kinds_queue),
        cmocka_unit_test(a_collection_may_name_its_own_queue),
        cmocka_unit_test(an_empty_config_is_refused),
        cmocka_unit_test(a_second_mutating_operation_meets_the_first_one),
        cmocka_unit_test(operations_that_only_read_do_not_hold_the_collection),
        cmocka_unit_test(a_finished_operation_lets_the_next_one_in),
        cmocka_unit_test(a_push_puts_the_uuid_into_its_queue),
        cmocka_unit_test(a_push_that_fails_is_no_problem_of_the_caller),
        cmocka_unit_test(a_claim_names_task_worker_and_attempt),
        cmocka_unit_test(a_uuid_delivered_twice_is_claimed_once),
        cmocka_unit_test(what_is_not_due_is_not_claimed),
        cmocka_unit_test(a_type_that_the_worker_does_not_know_is_not_claimed),
        cmocka_unit_test(a_worker_that_drains_or_lapsed_claims_nothing),
        cmocka_unit_test(the_fence_lets_the_holder_commit),
        cmocka_unit_test(the_fence_stops_an_attempt_that_lost_its_operation),
        cmocka_unit_test(a_late_transaction_cannot_commit_after_another_claim),
        cmocka_unit_test(a_claim_waits_for_a_transaction_that_passed_the_fence),
        cmocka_unit_test(hand_backs_are_free_and_failures_are_counted_to_the_limit),
        cmocka_unit_test(only_the_holder_hands_back_or_finishes),
        cmocka_unit_test(only_lapsed_workers_are_swept),
        cmocka_unit_test(a_worker_that_was_stopped_or_fell_silent_in_an_outage_is_no_crash),
        cmocka_unit_test(an_operation_whose_workers_keep_dying_fails_with_the_count),
        cmocka_unit_test(progress_of_a_lost_attempt_is_not_written),
        cmocka_unit_test(a_running_operation_is_cancelled_and_names_its_worker),
        cmocka_unit_test(a_finished_operation_cannot_be_cancelled),
        cmocka_unit_test(an_operation_that_ended_settles_its_collection_and_is_audited),
        cmocka_unit_test(the_last_event_is_announced_exactly_once),
        cmocka_unit_test(an_announcement_that_somebody_else_made_counts),
        cmocka_unit_test(a_cancel_after_a_hand_back_is_announced),
        cmocka_unit_test(a_failure_tells_why_in_the_words_that_clients_know),
        cmocka_unit_test(without_redis_the_announcement_is_left_to_do),
        cmocka_unit_test_setup(a_forgotten_operation_is_pushed_after_two_rounds, forget_all),
        cmocka_unit_test_setup(one_that_was_pushed_and_taken_is_missed_anew, forget_all),
        cmocka_unit_test_setup(what_is_not_due_is_not_pushed, forget_all),
        cmocka_unit_test_setup(a_backlog_is_not_multiplied, forget_all),
        cmocka_unit_test_setup(an_operation_that_a_worker_took_meanwhile_is_not_pushed, forget_all),
        cmocka_unit_test_setup(many_forgotten_operations_are_all_found_page_by_page, forget_all),
        cmocka_unit_test_setup(a_long_backlog_hides_no_forgotten_operation, forget_all),
        cmocka_unit_test_setup(one_process_at_a_time_reconciles, forget_all),
        cmocka_unit_test_setup(what_nobody_announced_is_announced, forget_all),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
