/* PROJECTION_BUILD against a real database: what it reads, what it writes, and that it leaves nothing when it stops. */
#include "common/store/collection_store.h"
#include "common/store/vector_read.h"
#include "tests/support/store.h"
#include "worker/task.h"

#include <string.h>

/* The task's runtime, so that an attempt can be stopped or lose its operation at any point. */
static struct {
    int checks_left; /* task_check says CANCELLED when it reaches 0; < 0 = never */
    char last_event[64];
    double percent;
} runtime;

void task_event(struct scope *sc, struct task *task, const char *type, double percent, const char *current_file,
                const char *data_json, int flags)
{
    (void)sc;
    (void)task;
    (void)current_file;
    (void)flags;
    assert_true(percent >= runtime.percent && percent <= 100 && data_json);
    runtime.percent = percent;
    snprintf(runtime.last_event, sizeof runtime.last_event, "%s", type);
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

enum status task_fence(struct scope *sc, struct task *task)
{
    return db_run(sc, task->db, "SELECT fence($1::uuid, $2::uuid)", NULL, task->operation_id, task->task_id);
}

enum status task_commit(struct scope *sc, struct task *task)
{
    enum status s = task_fence(sc, task);
    if (s == STATUS_OK)
        return db_commit(sc, task->db);
    db_rollback(task->db);
    return s;
}

/* ---- a collection with vectors, a projection to be built, its operation claimed ---- */

enum { DIM = 8, DOCUMENTS = 12, EACH = 25, ALL = DOCUMENTS * EACH };
static struct settings settings = {.projection_max_mb = 64, .projection_threads = 2};

static int64_t filled_collection(const char *quantization, struct generation *g)
{
    int64_t collection = store_collection(store_user());
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(vector_store_create(&store.sc, store.db, collection, "m", DIM, quantization, g));
    assert_ok(vector_store_activate(&store.sc, store.db, g));
    assert_ok(db_commit(&store.sc, store.db));
    store_sql(
        "INSERT INTO documents (collection_id, path, file_name, file_path, status, live_version, mime_type) SELECT "
        "%lld, convert_to('/x/' || n, 'UTF8'), n || '.txt', '/x/' || n, 'completed', 2, CASE WHEN n %% 3 = 0 THEN "
        "'text/html; charset=utf-8' END FROM generate_series(1, %d) n",
        (long long)collection, DOCUMENTS);
    /* Version 2 is seen; of 1 and 3 there are remains. */
    store_sql(
        "INSERT INTO vec.g%lld SELECT d.id * 1000 + v * 100 + n, d.id, v, (SELECT array_agg(sin(d.id * 3 + n + i * v)) "
        "FROM generate_series(1, %d) i)::real[]::vector FROM documents d, generate_series(1, 3) v, "
        "generate_series(1, CASE v WHEN 2 THEN %d ELSE 3 END) n WHERE d.collection_id = %lld",
        (long long)g->id, DIM, EACH, (long long)collection);
    store_sql("UPDATE collections SET document_count = %d, vector_count = %d WHERE id = %lld", DOCUMENTS, ALL,
              (long long)collection);
    return collection;
}

static const char *wanted(int64_t collection, const char *method, int sample, const char *color)
{
    int64_t user = store_sql_int("SELECT owner_id FROM collections WHERE id = %lld", (long long)collection);
    struct operation_ref o = store_operation(user, collection, OPERATION_PROJECTION_BUILD);
    store_sql("INSERT INTO projections (collection_id, operation_uuid, user_id, method, seed, sample_size, color_by, "
              "parameters) VALUES (%lld, '%s', %lld, '%s', 4, %d, '%s', '{}')",
              (long long)collection, o.uuid, (long long)user, method, sample, color);
    return arena_strdup(&store.sc.arena, o.uuid);
}

static struct task attempt(int64_t collection, const char *operation)
{
    struct task task = {.settings = &settings, .db = store.db, .collection_id = collection, .total = -1};
    const char *task_id = store_claim(operation, store_worker(60));
    assert_non_null(task_id);
    snprintf(task.operation_id, sizeof task.operation_id, "%s", operation);
    snprintf(task.task_id, sizeof task.task_id, "%s", task_id);
    runtime.checks_left = -1;
    runtime.percent = 0;
    return task;
}

static void assert_nothing_kept(const char *operation)
{
    assert_int_equal(store_sql_int("SELECT count(*) FROM projection_parts pp JOIN projections p ON p.id = "
                                   "pp.projection_id WHERE p.operation_uuid = '%s'",
                                   operation),
                     0);
    assert_null(store_sql("SELECT completed_at FROM projections WHERE operation_uuid = '%s'", operation));
}

static void what_is_visible_is_projected_whole(void **state)
{
    (void)state;
    static const char *const quantizations[] = {"float16", "float32"};
    for (size_t q = 0; q < array_len(quantizations); q++) {
        struct generation g;
        int64_t collection = filled_collection(quantizations[q], &g);
        const char *operation = wanted(collection, "umap", 1000, "type");
        struct task task = attempt(collection, operation);
        assert_ok(projection_build(&store.sc, &task));
        assert_string_equal(runtime.last_event, "projection_build_completed");
        assert_int_equal(task.processed, ALL);
        assert_int_equal(store_sql_int("SELECT point_count FROM projections WHERE operation_uuid = '%s'", operation),
                         ALL);
        assert_int_equal(store_sql_int("SELECT sum(length(data)) FROM projection_parts pp JOIN projections p ON p.id = "
                                       "pp.projection_id WHERE p.operation_uuid = '%s'",
                                       operation),
                         ALL * 20);
        assert_string_equal(
            store_sql("SELECT string_agg(e ->> 'text' || ' ' || (e ->> 'count'), ', ' ORDER BY e ->> "
                      "'label') FROM projections, jsonb_array_elements(legend) e WHERE operation_uuid = "
                      "'%s'",
                      operation),
            "txt 200, text/html 100");
    }
}

static void a_sample_has_the_size_that_was_asked_for_and_is_the_same_again(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    const char *first = NULL;
    for (int i = 0; i < 2; i++) {
        const char *operation = wanted(collection, "tsne", 70, "document");
        struct task task = attempt(collection, operation);
        assert_ok(projection_build(&store.sc, &task));
        const char *data = store_sql("SELECT encode(data, 'hex') FROM projection_parts pp JOIN projections p ON p.id = "
                                     "pp.projection_id WHERE p.operation_uuid = '%s'",
                                     operation);
        assert_int_equal(strlen(data), 70 * 20 * 2);
        if (first)
            assert_string_equal(first, data);
        first = data;
    }
}

static void a_collection_without_a_generation_has_a_projection_of_nothing(void **state)
{
    (void)state;
    int64_t collection = store_collection(store_user());
    const char *operation = wanted(collection, "umap", 10, "none");
    struct task task = attempt(collection, operation);
    assert_ok(projection_build(&store.sc, &task));
    assert_int_equal(store_sql_int("SELECT point_count FROM projections WHERE operation_uuid = '%s'", operation), 0);
}

static void an_attempt_that_is_stopped_anywhere_leaves_nothing(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    for (int checks = 0; checks < 3; checks++) {
        const char *operation = wanted(collection, "tsne", 1000, "none");
        struct task task = attempt(collection, operation);
        runtime.checks_left = checks;
        enum status s = projection_build(&store.sc, &task);
        if (s == STATUS_OK) /* it was faster than the look */
            break;
        assert_status(STATUS_CANCELLED, s);
        assert_nothing_kept(operation);
    }
}

static void an_attempt_that_lost_its_operation_writes_nothing(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    const char *operation = wanted(collection, "pca", 1000, "none");
    struct task task = attempt(collection, operation);
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() WHERE uuid = '%s'", operation);
    assert_status(STATUS_LOST, projection_build(&store.sc, &task));
    assert_nothing_kept(operation);
}

static void what_an_earlier_attempt_wrote_is_not_computed_again(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    const char *operation = wanted(collection, "pca", 1000, "none");
    struct task task = attempt(collection, operation);
    assert_ok(projection_build(&store.sc, &task));
    store_sql("DROP TABLE vec.g%lld", (long long)g.id);
    struct task again = task;
    runtime.percent = 0;
    assert_ok(projection_build(&store.sc, &again));
    assert_int_equal(again.processed, ALL);
}

static void a_generation_that_is_gone_is_tried_again_later(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    const char *operation = wanted(collection, "pca", 1000, "none");
    store_sql("DROP TABLE vec.g%lld", (long long)g.id);
    struct task task = attempt(collection, operation);
    assert_status(STATUS_UNAVAILABLE, projection_build(&store.sc, &task));
    assert_nothing_kept(operation);
}

static void too_much_memory_is_refused(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    const char *operation = wanted(collection, "pca", 1000, "none");
    struct task task = attempt(collection, operation);
    settings.projection_max_mb = 0;
    assert_status(STATUS_INVALID, projection_build(&store.sc, &task));
    settings.projection_max_mb = 64;
    assert_nothing_kept(operation);
}

static void a_deleted_projection_is_not_built(void **state)
{
    (void)state;
    struct generation g;
    int64_t collection = filled_collection("float16", &g);
    const char *operation = wanted(collection, "pca", 1000, "none");
    struct task task = attempt(collection, operation);
    store_sql("DELETE FROM projections WHERE operation_uuid = '%s'", operation);
    assert_status(STATUS_INVALID, projection_build(&store.sc, &task));
}

static void vectors_are_read_by_their_chunks_and_those_that_went_are_told(void **state)
{
    (void)state;
    struct generation g;
    filled_collection("float32", &g);
    int64_t first = store_sql_int("SELECT min(chunk_id) FROM vec.g%lld", (long long)g.id);
    int64_t second = store_sql_int("SELECT min(chunk_id) FROM vec.g%lld WHERE chunk_id > %lld", (long long)g.id,
                                   (long long)first);
    int64_t ids[] = {first - 1, first, second, INT64_MAX};
    float out[4 * 16];
    bool is_found[4];
    assert_ok(vector_read(&store.sc, store.db, &g, ids, 4, out, 16, is_found));
    assert_true(!is_found[0] && is_found[1] && is_found[2] && !is_found[3]);
    const char *shown = store_sql("SELECT (embedding::real[])[%d]::text FROM vec.g%lld WHERE chunk_id = %lld", DIM,
                                  (long long)g.id, (long long)second);
    assert_true(out[2 * 16 + DIM - 1] == strtof(shown, NULL));
    g.dim = DIM + 1;
    assert_status(STATUS_INTERNAL, vector_read(&store.sc, store.db, &g, ids, 4, out, 16, is_found));
}

#define test(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(what_is_visible_is_projected_whole),
        test(a_sample_has_the_size_that_was_asked_for_and_is_the_same_again),
        test(a_collection_without_a_generation_has_a_projection_of_nothing),
        test(an_attempt_that_is_stopped_anywhere_leaves_nothing),
        test(an_attempt_that_lost_its_operation_writes_nothing),
        test(what_an_earlier_attempt_wrote_is_not_computed_again),
        test(a_generation_that_is_gone_is_tried_again_later),
        test(too_much_memory_is_refused),
        test(a_deleted_projection_is_not_built),
        test(vectors_are_read_by_their_chunks_and_those_that_went_are_told),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
