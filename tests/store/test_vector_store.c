#include "common/clock.h"
#include "common/store/vector_store.h"
#include "tests/support/store.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { DIM = 16 };

/* The same numbers in every run. */
static uint64_t random_state;

static float random_float(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) / 2147483648.0f;
}

static void normalise(float *v, int dim)
{
    float sum = 0;
    for (int i = 0; i < dim; i++)
        sum += v[i] * v[i];
    for (int i = 0; i < dim; i++)
        v[i] /= sqrtf(sum);
}

static void random_vector(float *v)
{
    for (int i = 0; i < DIM; i++)
        v[i] = random_float();
    normalise(v, DIM);
}

/* A unit vector whose cosine with the first axis is this. */
static void at_cosine(float *v, float cosine)
{
    memset(v, 0, DIM * sizeof *v);
    v[0] = cosine;
    v[1] = sqrtf(1 - cosine * cosine);
}

static const float *first_axis(void)
{
    static const float axis[DIM] = {1};
    return axis;
}

static struct generation new_generation(const char *quantization)
{
    struct generation g;
    int64_t collection = store_collection(store_user());
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(vector_store_create(&store.sc, store.db, collection, "model", DIM, quantization, &g));
    assert_ok(vector_store_activate(&store.sc, store.db, &g));
    assert_ok(db_commit(&store.sc, store.db));
    return g;
}

static int64_t new_document(const struct generation *g, int live_version)
{
    static int number;
    return store_sql_int("INSERT INTO documents (collection_id, path, file_name, file_path, live_version) "
                         "VALUES (%lld, 'p%d', 'n', 'p', %d) RETURNING id",
                         (long long)g->collection_id, ++number, live_version);
}

static int64_t next_chunk = 1;

static int64_t write_at_cosine(const struct generation *g, int64_t document, int version, float cosine)
{
    float v[DIM];
    at_cosine(v, cosine);
    const struct vector_row row = {next_chunk++, document, version, v};
    assert_ok(vector_store_write(&store.sc, store.db, g, &row, 1));
    return row.chunk_id;
}

static struct vector_hit *hits;
static size_t hit_count;

static void search(const struct generation *g, const float *query, int limit, double threshold)
{
    assert_ok(
        vector_store_search(&store.sc, store.db, g->collection_id, query, DIM, limit, threshold, &hits, &hit_count));
}

static void a_collection_without_vectors_has_no_hits(void **state)
{
    (void)state;
    struct generation g = {.collection_id = store_collection(store_user())};
    assert_status(STATUS_NOT_FOUND, vector_store_active(&store.sc, store.db, g.collection_id, &g));
    search(&g, first_axis(), 10, 0);
    assert_int_equal(hit_count, 0);
}

static void the_first_generation_is_active(void **state)
{
    (void)state;
    struct generation made = new_generation("float16"), found;
    assert_ok(vector_store_active(&store.sc, store.db, made.collection_id, &found));
    assert_int_equal(found.id, made.id);
    assert_int_equal(found.dim, DIM);
    assert_true(found.is_half);
    assert_false(found.has_graph);
    assert_string_equal(found.model, "model");
    search(&made, first_axis(), 10, 0);
    assert_int_equal(hit_count, 0);
}

static void the_nearest_come_first_with_their_cosine(void **state)
{
    (void)state;
    static const char *const quantizations[] = {"float32", "float16", "int8"};
    for (size_t q = 0; q < array_len(quantizations); q++) {
        struct generation g = new_generation(quantizations[q]);
        int64_t document = new_document(&g, 1);
        static const float cosines[] = {0.1f, 0.9f, -0.5f, 0.7f, 0.3f};
        for (size_t i = 0; i < array_len(cosines); i++)
            write_at_cosine(&g, document, 1, cosines[i]);
        search(&g, first_axis(), 3, 0);
        static const double expected[] = {0.9, 0.7, 0.3};
        assert_int_equal(hit_count, 3);
        for (size_t i = 0; i < 3; i++) {
            assert_true(fabs(hits[i].score - expected[i]) < 0.001);
            assert_int_equal(hits[i].document_id, document);
        }
    }
}

static void hits_below_the_threshold_are_left_out(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    int64_t document = new_document(&g, 1);
    for (int i = 0; i < 10; i++)
        write_at_cosine(&g, document, 1, (float)i / 10);
    search(&g, first_axis(), 10, 0.65);
    assert_int_equal(hit_count, 3);
    search(&g, first_axis(), 10, 0.95);
    assert_int_equal(hit_count, 0);
}

static void only_the_live_version_is_seen(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    int64_t document = new_document(&g, 1), unfinished = new_document(&g, 0);
    int64_t old = write_at_cosine(&g, document, 1, 0.5f), new = write_at_cosine(&g, document, 2, 0.8f);
    write_at_cosine(&g, unfinished, 1, 0.9f);
    search(&g, first_axis(), 10, 0);
    assert_int_equal(hit_count, 1);
    assert_int_equal(hits[0].chunk_id, old);
    store_sql("UPDATE documents SET live_version = 2 WHERE id = %lld", (long long)document);
    search(&g, first_axis(), 10, 0);
    assert_int_equal(hit_count, 1);
    assert_int_equal(hits[0].chunk_id, new);
}

static void many_unseen_neighbours_hide_no_visible_one(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    int64_t document = new_document(&g, 1), unfinished = new_document(&g, 0),
            visible = write_at_cosine(&g, document, 1, 0.4f);
    float near[DIM];
    struct vector_row rows[300];
    at_cosine(near, 0.9f);
    for (int i = 0; i < 300; i++)
        rows[i] = (struct vector_row){next_chunk++, unfinished, 1, near};
    assert_ok(vector_store_write(&store.sc, store.db, &g, rows, array_len(rows)));
    search(&g, first_axis(), 5, 0);
    assert_int_equal(hit_count, 1);
    assert_int_equal(hits[0].chunk_id, visible);
    search(&g, first_axis(), 5, 0.3);
    assert_int_equal(hit_count, 1);
}

static void a_query_of_another_dimension_is_refused(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    assert_status(STATUS_INVALID, vector_store_search(&store.sc, store.db, g.collection_id, first_axis(), DIM - 1, 10,
                                                      0, &hits, &hit_count));
}

static void removing_takes_one_version_or_all_older_ones_too(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    int64_t document = new_document(&g, 3), removed = 0;
    for (int version = 1; version <= 4; version++)
        write_at_cosine(&g, document, version, 0.5f);
    assert_ok(vector_store_remove(&store.sc, store.db, &g, document, 4, false, &removed));
    assert_int_equal(removed, 1);
    assert_ok(vector_store_remove(&store.sc, store.db, &g, document, 2, true, &removed));
    assert_int_equal(removed, 2);
    assert_int_equal(store_sql_int("SELECT version FROM vec.g%lld", (long long)g.id), 3);
}

/* ---- a generation that is dropped while somebody searches ---- */

struct searcher {
    pthread_t thread;
    int64_t collection;
    enum status status;
    size_t count;
};

static void *search_in_thread(void *argument)
{
    struct searcher *s = argument;
    struct scope sc;
    struct vector_hit *found;
    scope_init(&sc, NULL);
    struct db *db = store_connect("searcher");
    s->status = vector_store_search(&sc, db, s->collection, first_axis(), DIM, 10, 0, &found, &s->count);
    db_free(db);
    scope_done(&sc);
    return NULL;
}

static void wait_until_it_waits(void)
{
    for (int64_t until = clock_monotonic_ms() + 20000; clock_monotonic_ms() < until; usleep(2000)) {
        if (store_sql_int("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'searcher' AND "
                          "wait_event_type = 'Lock'") > 0)
            return;
    }
    fail_msg("the search never came to the locked table");
}

static void a_generation_dropped_meanwhile_is_looked_up_again(void **state)
{
    (void)state;
    struct generation old = new_generation("float16"), new = new_generation("float16");
    write_at_cosine(&old, new_document(&old, 1), 1, 0.5f);
    int64_t document = new_document(&old, 1);
    write_at_cosine(&new, document, 1, 0.6f);
    write_at_cosine(&new, document, 1, 0.7f);
    struct searcher s = {.collection = old.collection_id};
    struct db *switcher = store_connect("switcher");
    assert_ok(db_begin(&store.sc, switcher));
    assert_ok(
        db_script(&store.sc, switcher,
                  arena_printf(&store.sc.arena,
                               "DROP TABLE vec.g%lld; UPDATE collections SET active_generation = %lld WHERE id = %lld",
                               (long long)old.id, (long long)new.id, (long long)old.collection_id)));
    assert_int_equal(pthread_create(&s.thread, NULL, search_in_thread, &s), 0);
    wait_until_it_waits();
    assert_ok(db_commit(&store.sc, switcher));
    pthread_join(s.thread, NULL);
    db_free(switcher);
    assert_int_equal(s.status, STATUS_OK);
    assert_int_equal(s.count, 2);
}

static void a_generation_is_dropped_once_nobody_reads_it(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    struct db *reader = store_connect("reader");
    assert_ok(db_begin(&store.sc, reader));
    assert_ok(db_run(&store.sc, reader,
                     arena_printf(&store.sc.arena, "SELECT count(*) FROM vec.g%lld", (long long)g.id), NULL));
    assert_status(STATUS_UNAVAILABLE, vector_store_drop(&store.sc, store.db, g.id));
    db_rollback(reader);
    assert_ok(vector_store_drop(&store.sc, store.db, g.id));
    assert_ok(vector_store_drop(&store.sc, store.db, g.id));
    assert_null(store_sql("SELECT to_regclass('vec.g%lld')", (long long)g.id));
    db_free(reader);
}

/* ---- the graph ---- */

enum { MANY = 2500, QUERIES = 20, K = 10 };

static void write_many(const struct generation *g, int64_t document)
{
    static float vectors[MANY][DIM];
    static struct vector_row rows[MANY];
    random_state = 42;
    for (int i = 0; i < MANY; i++) {
        random_vector(vectors[i]);
        rows[i] = (struct vector_row){next_chunk++, document, 1, vectors[i]};
    }
    assert_ok(vector_store_write(&store.sc, store.db, g, rows, MANY));
}

static bool graph_is_used(const struct generation *g)
{
    scoped(PGresult) *rows = NULL;
    const char *sql = arena_printf(&store.sc.arena,
                                   "EXPLAIN SELECT chunk_id FROM vec.g%lld ORDER BY embedding <#> $1::halfvec LIMIT 52",
                                   (long long)g->id);
    assert_ok(db_run(&store.sc, store.db, sql, &rows, "[1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]"));
    for (int i = 0; i < PQntuples(rows); i++) {
        if (strstr(PQgetvalue(rows, i, 0), "_graph"))
            return true;
    }
    return false;
}

static int common_hits(const struct vector_hit *a, const struct vector_hit *b)
{
    int common = 0;
    for (int i = 0; i < K; i++) {
        for (int j = 0; j < K; j++)
            common += a[i].chunk_id == b[j].chunk_id;
    }
    return common;
}

static void a_graph_is_used_and_agrees_with_the_exact_scan(void **state)
{
    (void)state;
    struct generation g = new_generation("float16");
    static float queries[QUERIES][DIM];
    struct vector_hit *exact[QUERIES];
    const char *sql;
    write_many(&g, new_document(&g, 1));
    for (int q = 0; q < QUERIES; q++) {
        random_vector(queries[q]);
        search(&g, queries[q], K, -1);
        assert_int_equal(hit_count, K);
        exact[q] = hits;
    }
    assert_ok(vector_store_graph_sql(&store.sc, store.db, &g, &sql));
    assert_ok(db_script(&store.sc, store.db, sql));
    assert_ok(vector_store_graph_built(&store.sc, store.db, g.id));
    store_sql("ANALYZE vec.g%lld", (long long)g.id);
    assert_ok(vector_store_active(&store.sc, store.db, g.collection_id, &g));
    assert_true(g.has_graph);
    assert_true(graph_is_used(&g));
    int common = 0;
    for (int q = 0; q < QUERIES; q++) {
        search(&g, queries[q], K, -1);
        assert_int_equal(hit_count, K);
        common += common_hits(hits, exact[q]);
    }
    assert_true(common >= QUERIES * K * 95 / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_collection_without_vectors_has_no_hits),
        cmocka_unit_test(the_first_generation_is_active),
        cmocka_unit_test(the_nearest_come_first_with_their_cosine),
        cmocka_unit_test(hits_below_the_threshold_are_left_out),
        cmocka_unit_test(only_the_live_version_is_seen),
        cmocka_unit_test(many_unseen_neighbours_hide_no_visible_one),
        cmocka_unit_test(a_query_of_another_dimension_is_refused),
        cmocka_unit_test(removing_takes_one_version_or_all_older_ones_too),
        cmocka_unit_test(a_generation_dropped_meanwhile_is_looked_up_again),
        cmocka_unit_test(a_generation_is_dropped_once_nobody_reads_it),
        cmocka_unit_test(a_graph_is_used_and_agrees_with_the_exact_scan),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
