#include "common/store/collection_store.h"
#include "common/store/vector_store.h"
#include "tests/support/store.h"
#include "worker/task.h"

#include <string.h>

/* The task's runtime, so that an attempt can be stopped or lose its operation at any point. */
static struct {
    const char *events[64];
    int event_count;
    int checks_left; /* task_check says CANCELLED when it reaches 0; < 0 = never */
} runtime;

void task_event(struct scope *sc, struct task *task, const char *type, double percent, const char *current_file,
                const char *data_json, int flags)
{
    (void)task;
    (void)current_file;
    (void)data_json;
    (void)flags;
    assert_true(percent >= 0 && percent <= 100);
    if (runtime.event_count < (int)array_len(runtime.events))
        runtime.events[runtime.event_count++] = arena_strdup(&sc->arena, type);
}

void task_heartbeat(struct task *task)
{
    (void)task;
}

enum status task_check(struct scope *sc, struct task *task)
{
    (void)sc;
    (void)task;
    if (runtime.checks_left >= 0 && runtime.checks_left-- == 0)
        return STATUS_CANCELLED;
    return STATUS_OK;
}

enum status task_commit(struct scope *sc, struct task *task)
{
    enum status s = db_run(sc, task->db, "SELECT fence($1::uuid, $2::uuid)", NULL, task->operation_id, task->task_id);
    if (s == STATUS_OK)
        return db_commit(sc, task->db);
    db_rollback(task->db);
    return s;
}

/* ---- a collection full of things, deleted, its operation claimed ---- */

static struct settings settings = {.removal_batch_size = 10};
enum { DOCUMENTS = 35, CHUNKS_EACH = 3 };

static int64_t filled_collection(void)
{
    int64_t user = store_user(), collection = store_collection(user);
    struct generation g;
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(vector_store_create(&store.sc, store.db, collection, "m", 4, "float16", &g));
    assert_ok(vector_store_activate(&store.sc, store.db, &g));
    assert_ok(db_commit(&store.sc, store.db));
    store_sql("INSERT INTO sources (collection_id, source_path) VALUES (%lld, '/x')", (long long)collection);
    store_sql("INSERT INTO documents (collection_id, path, file_name, file_path, source_id) SELECT %lld, "
              "convert_to('/x/' || n, 'UTF8'), n::text, '/x/' || n, (SELECT max(id) FROM sources) FROM "
              "generate_series(1, %d) n",
              (long long)collection, DOCUMENTS);
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "SELECT %lld, d.id, 1, n, 'text', 1, 0, 4 FROM documents d, generate_series(1, %d) n WHERE d.collection_id = "
        "%lld",
        (long long)collection, CHUNKS_EACH, (long long)collection);
    /* Chunks that no document names: of a crash in between. */
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "VALUES (%lld, -1, 1, 1, 'text', 1, 0, 4)",
        (long long)collection);
    return collection;
}

static int64_t left_of(int64_t collection)
{
    long long id = collection;
    return store_sql_int("SELECT (SELECT count(*) FROM collections WHERE id = %lld) "
                         "+ (SELECT count(*) FROM documents WHERE collection_id = %lld) "
                         "+ (SELECT count(*) FROM chunks WHERE collection_id = %lld) "
                         "+ (SELECT count(*) FROM sources WHERE collection_id = %lld) "
                         "+ (SELECT count(*) FROM generations WHERE collection_id = %lld)",
                         id, id, id, id, id);
}

static struct task deletion(int64_t collection)
{
    struct task task = {
        .settings = &settings, .db = store.db, .type = OPERATION_DELETE, .collection_id = collection, .total = -1};
    struct operation_ref o = store_operation(
        store_sql_int("SELECT owner_id FROM collections WHERE id = %lld", (long long)collection), collection,
        OPERATION_DELETE);
    assert_ok(collection_store_hide(&store.sc, store.db, collection));
    memcpy(task.operation_id, o.uuid, sizeof task.operation_id);
    return task;
}

static void claim(struct task *task)
{
    const char *id = store_claim(task->operation_id, store_worker(600));
    assert_non_null(id);
    memcpy(task->task_id, id, sizeof task->task_id);
    runtime.event_count = 0;
    runtime.checks_left = -1;
}

static void back_to_pending(const struct task *task)
{
    store_sql("UPDATE operations SET status = 'pending', not_before = now() WHERE uuid = '%s'", task->operation_id);
}

/* ---- tests ---- */

static void deletion_leaves_nothing_but_the_operation(void **state)
{
    (void)state;
    int64_t other = filled_collection(), collection = filled_collection();
    int64_t others = left_of(other);
    const char *table = store_sql("SELECT 'vec.g' || id FROM generations WHERE collection_id = %lld",
                                  (long long)collection);
    struct task task = deletion(collection);
    claim(&task);
    assert_ok(delete_collection(&store.sc, &task));
    assert_int_equal(left_of(collection), 0);
    assert_null(store_sql("SELECT to_regclass('%s')", table));
    assert_int_equal(task.processed, DOCUMENTS);
    assert_int_equal(task.total, DOCUMENTS);
    assert_string_equal(runtime.events[0], "deleting");
    assert_string_equal(runtime.events[runtime.event_count - 1], "delete_completed");
    assert_string_equal(store_sql("SELECT status FROM operations WHERE uuid = '%s'", task.operation_id), "processing");
    assert_non_null(store_sql("SELECT collection_uuid FROM operations WHERE uuid = '%s'", task.operation_id));
    assert_int_equal(left_of(other), others);
}

static void a_stopped_deletion_goes_on_where_it_was(void **state)
{
    (void)state;
    int64_t collection = filled_collection();
    struct task task = deletion(collection);
    int attempts = 0;
    for (enum status s = STATUS_CANCELLED; s == STATUS_CANCELLED; attempts++) {
        assert_true(attempts < 40);
        struct task attempt = task;
        /* As the supervisor finds it: the row may be gone already. */
        attempt.collection_id = store_sql_int(
            "SELECT coalesce((SELECT collection_id FROM operations WHERE uuid = '%s'), 0)", task.operation_id);
        claim(&attempt);
        runtime.checks_left = 2;
        s = delete_collection(&store.sc, &attempt);
        assert_true(s == STATUS_OK || s == STATUS_CANCELLED);
        scope_forgive(&store.sc);
        if (s == STATUS_CANCELLED)
            back_to_pending(&task);
    }
    assert_true(attempts > 1);
    assert_int_equal(left_of(collection), 0);
}

static void an_attempt_after_the_collections_row_went_just_completes(void **state)
{
    (void)state;
    int64_t collection = filled_collection();
    struct task task = deletion(collection);
    claim(&task);
    assert_ok(delete_collection(&store.sc, &task));
    back_to_pending(&task);
    claim(&task);
    task.collection_id = 0;
    assert_ok(delete_collection(&store.sc, &task));
    assert_string_equal(runtime.events[runtime.event_count - 1], "delete_completed");
}

static void an_attempt_that_lost_its_operation_removes_nothing_more(void **state)
{
    (void)state;
    int64_t collection = filled_collection();
    struct task task = deletion(collection);
    claim(&task);
    back_to_pending(&task); /* and another one has it */
    assert_non_null(store_claim(task.operation_id, store_worker(600)));
    assert_status(STATUS_LOST, delete_collection(&store.sc, &task));
    assert_int_equal(store_sql_int("SELECT count(*) FROM documents WHERE collection_id = %lld", (long long)collection),
                     DOCUMENTS);
    assert_int_equal(store_sql_int("SELECT count(*) FROM collections WHERE id = %lld", (long long)collection), 1);
}

static void a_collection_that_is_not_deleted_keeps_its_row(void **state)
{
    (void)state;
    int64_t collection = filled_collection();
    struct task task = deletion(collection);
    store_sql("UPDATE collections SET deleted_at = NULL WHERE id = %lld", (long long)collection);
    claim(&task);
    assert_ok(delete_collection(&store.sc, &task));
    assert_int_equal(store_sql_int("SELECT count(*) FROM collections WHERE id = %lld", (long long)collection), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deletion_leaves_nothing_but_the_operation),
        cmocka_unit_test(a_stopped_deletion_goes_on_where_it_was),
        cmocka_unit_test(an_attempt_after_the_collections_row_went_just_completes),
        cmocka_unit_test(an_attempt_that_lost_its_operation_removes_nothing_more),
        cmocka_unit_test(a_collection_that_is_not_deleted_keeps_its_row),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
