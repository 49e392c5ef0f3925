/* Limits under concurrency, reservations that end with their operation, the room for documents. */
#include "common/store/audit_store.h"
#include "common/store/resource_store.h"
#include "tests/support/store.h"
#include "worker/schedule.h"

#include <pthread.h>
#include <string.h>

static struct settings unlimited(void)
{
    return (struct settings){.max_collections_per_user = -1,
                             .max_documents_per_user = -1,
                             .max_bytes_per_user = -1,
                             .max_operations_per_user = -1,
                             .max_database_bytes = -1};
}

static void set(int64_t user, int64_t collections, int64_t documents, int64_t bytes, int64_t operations)
{
    const int64_t limits[RESOURCES] = {[RESOURCE_COLLECTIONS] = collections,
                                       [RESOURCE_DOCUMENTS] = documents,
                                       [RESOURCE_BYTES] = bytes,
                                       [RESOURCE_OPERATIONS] = operations};
    assert_ok(resource_store_set(&store.sc, store.db, user, limits));
}

static void a_users_own_limits_go_before_the_defaults_and_come_back(void **state)
{
    (void)state;
    struct settings s = unlimited();
    struct resource_use use;
    int64_t user = store_user();
    bool is_limited = true;
    assert_ok(resource_store_is_limited(&store.sc, store.db, &s, user, &is_limited));
    assert_false(is_limited);
    s.max_documents_per_user = 7;
    set(user, 3, RESOURCE_DEFAULT, RESOURCE_UNLIMITED, 2);
    assert_ok(resource_store_use(&store.sc, store.db, &s, user, &use));
    assert_int_equal(use.of[RESOURCE_COLLECTIONS].limit, 3);
    assert_int_equal(use.of[RESOURCE_DOCUMENTS].limit, 7);
    assert_false(use.of[RESOURCE_DOCUMENTS].is_own);
    assert_int_equal(use.of[RESOURCE_BYTES].limit, RESOURCE_UNLIMITED);
    assert_int_equal(use.of[RESOURCE_OPERATIONS].limit, 2);
    s = unlimited();
    assert_ok(resource_store_is_limited(&store.sc, store.db, &s, user, &is_limited));
    assert_true(is_limited);
    assert_ok(resource_store_forget(&store.sc, store.db, user));
    assert_ok(resource_store_is_limited(&store.sc, store.db, &s, user, &is_limited));
    assert_false(is_limited);
    set(user, 3, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED);
    assert_ok(resource_store_is_limited(&store.sc, store.db, &s, user, &is_limited));
    assert_false(is_limited); /* of operations: accepting them has nothing to count */
}

static enum status wish(struct db *db, int64_t user, const int64_t amount[RESOURCES], struct resource_refusal *out)
{
    struct settings s = unlimited();
    struct resource_wish w = {.user_id = user};
    memcpy(w.amount, amount, sizeof w.amount);
    return resource_store_admit(&store.sc, db, &s, &w, out);
}

static void what_would_pass_a_limit_is_refused_with_the_numbers(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct resource_refusal r = {0};
    store_sql("UPDATE collections SET document_count = 8, total_size_bytes = 800 WHERE id = %lld",
              (long long)collection);
    set(user, RESOURCE_UNLIMITED, 10, 1000, RESOURCE_UNLIMITED);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(wish(store.db, user, (int64_t[RESOURCES]){[RESOURCE_DOCUMENTS] = 2, [RESOURCE_BYTES] = 200}, &r));
    assert_status(STATUS_RATE_LIMITED, wish(store.db, user, (int64_t[RESOURCES]){[RESOURCE_DOCUMENTS] = 3}, &r));
    assert_string_equal(r.kind, "documents");
    assert_int_equal(r.limit, 10);
    assert_int_equal(r.used, 8);
    assert_int_equal(r.requested, 3);
    assert_status(STATUS_RATE_LIMITED, wish(store.db, user, (int64_t[RESOURCES]){[RESOURCE_BYTES] = INT64_MAX}, &r));
    assert_string_equal(r.kind, "bytes");
    db_rollback(store.db);
    /* A limit that is passed already does not matter to what asks for nothing of it. */
    set(user, RESOURCE_UNLIMITED, 1, 0, RESOURCE_UNLIMITED);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(wish(store.db, user, (int64_t[RESOURCES]){[RESOURCE_OPERATIONS] = 1}, &r));
    db_rollback(store.db);
}

enum { AT_ONCE = 10, MAY = 3 };

struct contender {
    pthread_t thread;
    int64_t user, collection;
    bool is_accepted;
};

static void *contend(void *context)
{
    struct contender *c = context;
    struct settings s = unlimited();
    struct resource_refusal refusal;
    const struct resource_wish w = {.user_id = c->user, .amount = {[RESOURCE_OPERATIONS] = 1}};
    const struct operation_new o = {
        .collection_id = c->collection, .user_id = c->user, .type = OPERATION_APPEND, .config_json = "{\"a\":1}"};
    struct operation_ref ref;
    struct scope sc;
    scope_init(&sc, NULL);
    struct db *db = store_connect("contender");
    enum status status = db_begin(&sc, db);
    if (status == STATUS_OK)
        status = resource_store_admit(&sc, db, &s, &w, &refusal);
    if (status == STATUS_OK)
        status = operation_store_insert(&sc, db, &o, &ref);
    if (status == STATUS_OK)
        status = db_commit(&sc, db);
    c->is_accepted = status == STATUS_OK;
    db_free(db);
    scope_done(&sc);
    return NULL;
}

static void of_ten_at_once_exactly_as_many_as_the_limit_get_through(void **state)
{
    (void)state;
    struct contender all[AT_ONCE];
    int64_t user = store_user();
    int accepted = 0;
    set(user, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED, MAY);
    for (int i = 0; i < AT_ONCE; i++) {
        all[i] = (struct contender){.user = user, .collection = store_collection(user)};
        assert_int_equal(pthread_create(&all[i].thread, NULL, contend, &all[i]), 0);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        pthread_join(all[i].thread, NULL);
        accepted += all[i].is_accepted;
    }
    assert_int_equal(accepted, MAY);
    assert_int_equal(store_sql_int("SELECT count(*) FROM operations WHERE user_id = %lld", (long long)user), MAY);
}

static void a_statement_that_accepts_passes_over_users_with_limits_unless_they_were_looked_at(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct source_addition a = {
        .collection_uuid = store_sql("SELECT uuid FROM collections WHERE id = %lld", (long long)collection),
        .user_id = user,
        .type = "directory",
        .path = "/d",
        .config_json = "{}"};
    struct operation_ref ref;
    bool is_settled;
    scoped(PGresult) *one = NULL, *many = NULL;
    store_sql("UPDATE collections SET status = 'ready' WHERE id = %lld", (long long)collection);
    set(user, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED, 5);
    assert_ok(operation_store_add_sources(&store.sc, store.db, &a, 1, &many, &is_settled));
    assert_int_equal(PQntuples(many), 0);
    assert_status(STATUS_CONFLICT, operation_store_add_source(&store.sc, store.db, &a, &ref, &one));
    a.is_admitted = true;
    assert_ok(operation_store_add_source(&store.sc, store.db, &a, &ref, &one));
    assert_string_equal(store_sql("SELECT action FROM audit_log WHERE operation_uuid = '%s'", ref.uuid),
                        "operation_append_pending");
}

static int64_t reserved(void)
{
    struct resource_space space;
    assert_ok(resource_store_space(&store.sc, store.db, &space));
    assert_true(space.database_bytes > 0);
    return space.reserved_bytes;
}

static void a_reservation_counts_as_long_as_its_operation_lives_and_less_as_it_goes_on(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct operation_ref o = store_operation(user, collection, OPERATION_APPEND);
    struct settings s = unlimited();
    struct resource_refusal refusal;
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(resource_store_reserve(&store.sc, store.db, &s, o.uuid, 1000, "{\"seconds\":2}", &refusal));
    assert_ok(db_commit(&store.sc, store.db));
    assert_int_equal(reserved(), 1000);
    assert_string_equal(store_sql("SELECT meta #>> '{estimate,seconds}' FROM operations WHERE uuid = '%s'", o.uuid),
                        "2");
    store_sql("UPDATE operations SET status = 'processing', attempt = 1, percent = 75 WHERE uuid = '%s'", o.uuid);
    assert_int_equal(reserved(), 250);
    store_sql("UPDATE operations SET status = 'completed', completed_at = now() WHERE uuid = '%s'", o.uuid);
    assert_int_equal(reserved(), 0);
    struct scheduled run = {.settings = &s, .db = store.db};
    assert_int_equal(store_sql_int("SELECT count(*) FROM reservations"), 1);
    assert_ok(reservations_expire(&store.sc, &run));
    assert_int_equal(store_sql_int("SELECT count(*) FROM reservations"), 0);
    assert_string_equal(run.result_json, "{\"reservations_removed\":1}");
}

static void space_that_is_reserved_or_taken_is_refused_to_others_and_nothing_is_noted(void **state)
{
    (void)state;
    int64_t user = store_user();
    struct operation_ref first = store_operation(user, store_collection(user), OPERATION_APPEND);
    struct operation_ref second = store_operation(user, store_collection(user), OPERATION_APPEND);
    struct settings s = unlimited();
    struct resource_space space;
    struct resource_refusal r = {0};
    assert_ok(resource_store_space(&store.sc, store.db, &space));
    s.max_database_bytes = space.database_bytes + space.reserved_bytes + (100 << 20);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(resource_store_reserve(&store.sc, store.db, &s, first.uuid, 60 << 20, "{}", &r));
    assert_ok(db_commit(&store.sc, store.db));
    assert_ok(db_begin(&store.sc, store.db));
    assert_status(STATUS_NO_SPACE, resource_store_reserve(&store.sc, store.db, &s, second.uuid, 60 << 20, "{}", &r));
    db_rollback(store.db);
    assert_string_equal(r.kind, "database_space");
    assert_int_equal(r.limit, s.max_database_bytes);
    assert_int_equal(r.reserved, space.reserved_bytes + (60 << 20));
    assert_int_equal(r.requested, 60 << 20);
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() WHERE uuid = '%s'", first.uuid);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(resource_store_reserve(&store.sc, store.db, &s, second.uuid, 60 << 20, "{}", &r));
    assert_ok(db_commit(&store.sc, store.db));
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() WHERE uuid = '%s'", second.uuid);
}

static void room_is_what_the_limits_leave_beside_documents_that_wait(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    struct settings s = unlimited();
    struct resource_room room;
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(resource_store_room(&store.sc, store.db, &s, user, &room));
    db_rollback(store.db);
    assert_int_equal(room.documents, INT64_MAX);
    assert_int_equal(room.bytes, INT64_MAX);
    set(user, RESOURCE_UNLIMITED, 5, 1000, RESOURCE_UNLIMITED);
    store_sql("UPDATE collections SET document_count = 2, total_size_bytes = 300 WHERE id = %lld",
              (long long)collection);
    store_sql(
        "INSERT INTO documents (collection_id, path, file_name, file_path, file_size, status, live_version) VALUES "
        "(%lld, 'a', 'a', 'a', 100, 'pending', 0), (%lld, 'b', 'b', 'b', 50, 'pending', 1), "
        "(%lld, 'c', 'c', 'c', 70, 'failed', 0)",
        (long long)collection, (long long)collection, (long long)collection);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(resource_store_room(&store.sc, store.db, &s, user, &room));
    db_rollback(store.db);
    assert_int_equal(room.documents, 2); /* 5 - 2 - the one that waits and is seen by nobody yet */
    assert_int_equal(room.bytes, 600);
    set(user, RESOURCE_UNLIMITED, 1, 1, RESOURCE_UNLIMITED);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(resource_store_room(&store.sc, store.db, &s, user, &room));
    db_rollback(store.db);
    assert_int_equal(room.documents, 0);
    assert_int_equal(room.bytes, 0);
}

static void the_log_is_read_newest_first_by_what_is_asked_for(void **state)
{
    (void)state;
    int64_t user = store_user();
    scoped(PGresult) *own = NULL, *some = NULL, *older = NULL, *bad = NULL;
    for (int i = 0; i < 3; i++)
        assert_ok(audit_store_add(&store.sc, store.db, user, i == 1 ? "one_thing" : "other_thing", NULL, NULL, NULL));
    struct audit_filter filter = {.user_id = user};
    assert_ok(audit_store_list(&store.sc, store.db, &filter, 2, 0, &own));
    assert_int_equal(PQntuples(own), 2);
    assert_int_equal(db_int(own, 0, "total", 0), 3);
    assert_true(db_int(own, 0, "id", 0) > db_int(own, 1, "id", 0));
    filter.before_id = db_int(own, 1, "id", 0);
    assert_ok(audit_store_list(&store.sc, store.db, &filter, 2, 0, &older));
    assert_int_equal(db_int(older, 0, "total", 0), 1);
    filter = (struct audit_filter){.user_id = user, .action = "one_thing"};
    assert_ok(audit_store_list(&store.sc, store.db, &filter, 2, 0, &some));
    assert_string_equal(db_text(some, 0, "action"), "one_thing");
    assert_int_equal(PQntuples(some), 1);
    filter = (struct audit_filter){.user_id = user, .from = "2026-02-31"};
    assert_int_equal(audit_store_list(&store.sc, store.db, &filter, 2, 0, &bad), STATUS_INVALID);
    scope_forgive(&store.sc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_users_own_limits_go_before_the_defaults_and_come_back),
        cmocka_unit_test(what_would_pass_a_limit_is_refused_with_the_numbers),
        cmocka_unit_test(of_ten_at_once_exactly_as_many_as_the_limit_get_through),
        cmocka_unit_test(a_statement_that_accepts_passes_over_users_with_limits_unless_they_were_looked_at),
        cmocka_unit_test(a_reservation_counts_as_long_as_its_operation_lives_and_less_as_it_goes_on),
        cmocka_unit_test(space_that_is_reserved_or_taken_is_refused_to_others_and_nothing_is_noted),
        cmocka_unit_test(room_is_what_the_limits_leave_beside_documents_that_wait),
        cmocka_unit_test(the_log_is_read_newest_first_by_what_is_asked_for),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
