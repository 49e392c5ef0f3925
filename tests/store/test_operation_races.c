/* What several processes do at once. Nothing here depends on who is faster: whatever happens, the sums must be right.
 */
#include "build/queries.h"
#include "tests/support/store.h"

#include <pthread.h>
#include <string.h>

enum { THREADS = 4, OPERATIONS = 60 };

struct racer {
    pthread_t thread;
    struct scope sc;
    struct db *db;
    struct redis *events, *queue;
    int64_t user, collection;
    const char *worker;
    const struct operation_ref *operations;
    int won, lost;
};

static void run_race(struct racer *racers, void *(*run)(void *), const struct racer *from)
{
    for (int i = 0; i < THREADS; i++) {
        racers[i] = *from;
        scope_init(&racers[i].sc, NULL);
        racers[i].db = store_connect("racer");
        racers[i].events = store_connect_redis(STORE_EVENTS_DB);
        racers[i].queue = store_connect_redis(STORE_QUEUE_DB);
        racers[i].worker = store_worker(60);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&racers[i].thread, NULL, run, &racers[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(racers[i].thread, NULL);
        db_free(racers[i].db);
        redis_free(racers[i].events);
        redis_free(racers[i].queue);
        scope_done(&racers[i].sc);
    }
}

static int sum_of_wins(const struct racer *racers)
{
    int sum = 0;
    for (int i = 0; i < THREADS; i++)
        sum += racers[i].won;
    return sum;
}

static void *claim_all(void *argument)
{
    struct racer *r = argument;
    for (int i = 0; i < OPERATIONS; i++) {
        char task[37];
        scoped(PGresult) *rows = NULL;
        uuid_make(task);
        if (db_run(&r->sc, r->db, SQL_OPERATION_CLAIM, &rows, r->operations[i].uuid, task, r->worker, "{noop}") ==
            STATUS_OK)
            r->won += PQntuples(rows);
        else
            r->lost++;
    }
    return NULL;
}

static void make_operations(struct operation_ref *operations)
{
    int64_t user = store_user();
    for (int i = 0; i < OPERATIONS; i++)
        operations[i] = store_operation(user, 0, OPERATION_NOOP);
}

static void an_operation_is_claimed_by_one_worker_only(void **state)
{
    (void)state;
    static struct operation_ref operations[OPERATIONS];
    struct racer racers[THREADS];
    make_operations(operations);
    run_race(racers, claim_all, &(const struct racer){.operations = operations});
    assert_int_equal(sum_of_wins(racers), OPERATIONS);
    assert_int_equal(
        store_sql_int("SELECT max(attempt) FROM operations WHERE user_id = %lld", (long long)operations[0].user_id), 1);
}

static void *insert_some(void *argument)
{
    struct racer *r = argument;
    const struct operation_new wanted = {
        .collection_id = r->collection, .user_id = r->user, .type = OPERATION_APPEND, .config_json = "{\"a\":1}"};
    for (int i = 0; i < 10; i++) {
        struct operation_ref o;
        enum status s = operation_store_insert(&r->sc, r->db, &wanted, &o);
        r->won += s == STATUS_OK;
        r->lost += s == STATUS_CONFLICT;
    }
    return NULL;
}

static void one_of_many_mutating_operations_gets_the_collection(void **state)
{
    (void)state;
    struct racer racers[THREADS];
    int64_t user = store_user();
    run_race(racers, insert_some, &(const struct racer){.user = user, .collection = store_collection(user)});
    assert_int_equal(sum_of_wins(racers), 1);
    int lost = 0;
    for (int i = 0; i < THREADS; i++)
        lost += racers[i].lost;
    assert_int_equal(lost, THREADS * 10 - 1);
}

static void *announce_all(void *argument)
{
    struct racer *r = argument;
    for (int i = 0; i < OPERATIONS; i++)
        r->won += operation_store_announce(&r->sc, r->db, r->events, r->operations[i].uuid) == STATUS_OK;
    return NULL;
}

static void a_last_event_announced_by_many_stands_once(void **state)
{
    (void)state;
    static struct operation_ref operations[OPERATIONS];
    struct racer racers[THREADS];
    make_operations(operations);
    int64_t user = operations[0].user_id;
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() WHERE user_id = %lld", (long long)user);
    run_race(racers, announce_all, &(const struct racer){.operations = operations});
    assert_int_equal(sum_of_wins(racers), THREADS * OPERATIONS);
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.events, &reply, "XLEN %s",
                        redis_key(&store.sc, store.events, MESSAGE_USER_STREAM, (long long)user)));
    assert_int_equal(reply->integer, OPERATIONS);
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM operations WHERE user_id = %lld AND announced_at IS NULL", (long long)user),
        0);
}

static void *cancel_all(void *argument)
{
    struct racer *r = argument;
    for (int i = 0; i < OPERATIONS; i++) {
        struct operation_ref out;
        const char *worker;
        int64_t id;
        enum status s = operation_store_cancel(&r->sc, r->db, r->operations[i].uuid, &out, &worker, &id);
        r->won += s == STATUS_OK;
        r->lost += s != STATUS_OK && s != STATUS_CONFLICT;
        scope_forgive(&r->sc);
    }
    return NULL;
}

static void an_operation_is_cancelled_once(void **state)
{
    (void)state;
    static struct operation_ref operations[OPERATIONS];
    struct racer racers[THREADS];
    make_operations(operations);
    run_race(racers, cancel_all, &(const struct racer){.operations = operations});
    assert_int_equal(sum_of_wins(racers), OPERATIONS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(racers[i].lost, 0);
}

static void *sweep_some(void *argument)
{
    struct racer *r = argument;
    for (int i = 0; i < 20; i++) {
        scoped(PGresult) *rows = NULL;
        if (db_run(&r->sc, r->db, SQL_WORKERS_SWEEP, &rows, "2", NULL, "5") == STATUS_OK)
            r->won += db_text(rows, 0, "uuid") ? PQntuples(rows) : 0;
        else
            r->lost++;
    }
    return NULL;
}

static void an_operation_of_a_lost_worker_is_put_back_once(void **state)
{
    (void)state;
    static struct operation_ref operations[OPERATIONS];
    struct racer racers[THREADS];
    make_operations(operations);
    for (int i = 0; i < OPERATIONS; i++)
        assert_non_null(store_claim(operations[i].uuid, store_worker(60)));
    int64_t user = operations[0].user_id;
    store_sql("UPDATE workers w SET expires_at = now() - interval '1 second' FROM operations o WHERE o.worker_id = "
              "w.id AND o.user_id = %lld",
              (long long)user);
    run_race(racers, sweep_some, &(const struct racer){.operations = operations});
    assert_int_equal(sum_of_wins(racers), OPERATIONS);
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM operations WHERE user_id = %lld AND status = 'pending' AND failures = 1",
                      (long long)user),
        OPERATIONS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(racers[i].lost, 0);
}

static void *reconcile_some(void *argument)
{
    struct racer *r = argument;
    struct operation_reconciler memory = {.missing = NULL};
    for (int i = 0; i < 10; i++)
        r->won += operation_store_reconcile(&r->sc, r->db, r->queue, r->events, &memory, 30) == STATUS_OK;
    operation_reconciler_done(&memory);
    return NULL;
}

static void many_reconcilers_push_a_forgotten_operation_once(void **state)
{
    (void)state;
    static struct operation_ref operations[OPERATIONS];
    struct racer racers[THREADS];
    store_sql("UPDATE operations SET status = 'cancelled', announced_at = now() WHERE status = 'pending'");
    make_operations(operations);
    run_race(racers, reconcile_some, &(const struct racer){.operations = operations});
    assert_int_equal(sum_of_wins(racers), THREADS * 10);
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.queue, &reply, "LLEN %s", redis_key(&store.sc, store.queue, "queue:default")));
    assert_int_equal(reply->integer, OPERATIONS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_operation_is_claimed_by_one_worker_only),
        cmocka_unit_test(one_of_many_mutating_operations_gets_the_collection),
        cmocka_unit_test(a_last_event_announced_by_many_stands_once),
        cmocka_unit_test(an_operation_is_cancelled_once),
        cmocka_unit_test(an_operation_of_a_lost_worker_is_put_back_once),
        cmocka_unit_test(many_reconcilers_push_a_forgotten_operation_once),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
