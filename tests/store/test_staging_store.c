#include "common/store/staging_store.h"
#include "tests/support/store.h"
#include "worker/schedule.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { DIM = 4, DOCUMENTS = 6 };

static const float axis[DIM] = {1};

struct fixture {
    int64_t collection;
    struct operation_ref operation;
    struct generation live;
    int64_t documents[DOCUMENTS];
};

static int64_t add_chunk(int64_t collection, int64_t document, int version, const char *text)
{
    return store_sql_int(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, "
        "end_byte) VALUES (%lld, %lld, %d, 0, '%s', 1, 0, %zu) RETURNING id",
        (long long)collection, (long long)document, version, text, strlen(text));
}

static void add_vector(const struct generation *g, int64_t chunk, int64_t document, int version)
{
    const struct vector_row row = {chunk, document, version, axis};
    assert_ok(vector_store_write(&store.sc, store.db, g, &row, 1));
}

/* A collection of documents with one chunk each, and a reindex that is at work on it. */
static struct fixture filled(const char *quantization)
{
    struct fixture f = {0};
    int64_t user = store_user();
    f.collection = store_collection(user);
    assert_ok(vector_store_create(&store.sc, store.db, f.collection, "model", DIM, quantization, &f.live));
    assert_ok(vector_store_activate(&store.sc, store.db, &f.live));
    for (int i = 0; i < DOCUMENTS; i++) {
        f.documents[i] = store_sql_int(
            "INSERT INTO documents (collection_id, path, file_name, file_path, status, live_version, next_version, "
            "chunk_count, content_hash) VALUES (%lld, 'p%d', 'n', 'p', 'completed', 1, 2, 1, 'h') RETURNING id",
            (long long)f.collection, i);
        add_vector(&f.live, add_chunk(f.collection, f.documents[i], 1, "old"), f.documents[i], 1);
    }
    f.operation = store_operation(user, f.collection, OPERATION_REINDEX);
    return f;
}

static struct generation staged(const struct fixture *f, const char *settings)
{
    struct generation g;
    assert_ok(staging_store_make(&store.sc, store.db, f->collection, f->operation.uuid, settings, "model", DIM,
                                 "float16", &g));
    return g;
}

/* Every document gets a version of its own with one chunk. */
static void cut_all(const struct fixture *f, const struct generation *g)
{
    for (int i = 0; i < DOCUMENTS; i++) {
        int live = (int)store_sql_int("SELECT live_version FROM documents WHERE id = %lld", (long long)f->documents[i]);
        int version = 0;
        assert_ok(staging_store_begin(&store.sc, store.db, g->id, f->documents[i], live, true, &version));
        assert_true(version > live);
        add_vector(g, add_chunk(f->collection, f->documents[i], version, "new"), f->documents[i], version);
        const struct staged_document d = {.document_id = f->documents[i],
                                          .version = version,
                                          .live_version = live,
                                          .is_cut = true,
                                          .chunks = 1,
                                          .vectors = 1,
                                          .embedded = 1,
                                          .source = "file"};
        assert_ok(staging_store_done(&store.sc, store.db, g->id, &d));
    }
}

static const struct switched_settings switched = {"model", "float16", NULL, NULL, 100, -1};

static void switch_to(struct db *db, const struct generation *g, int64_t old)
{
    assert_ok(db_begin(&store.sc, db));
    assert_ok(staging_store_switch_documents(&store.sc, db, g->id, old, 0));
    assert_ok(staging_store_switch_collection(&store.sc, db, g, &switched));
    assert_ok(db_commit(&store.sc, db));
}

static bool has_table(int64_t generation)
{
    return store_sql_int("SELECT count(*) FROM pg_class WHERE relnamespace = 'vec'::regnamespace AND relname = 'g%lld'",
                         (long long)generation) == 1;
}

static int64_t chunks_of(const struct fixture *f, const char *text)
{
    return store_sql_int("SELECT count(*) FROM chunks WHERE collection_id = %lld AND content = '%s'",
                         (long long)f->collection, text);
}

/* ---- what readers see ---- */

static void staging_is_seen_by_nobody_but_those_who_ask_for_it(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct generation g = staged(&f, "{}");
    struct vector_hit *hits;
    size_t count;
    cut_all(&f, &g);
    assert_ok(vector_store_search(&store.sc, store.db, f.collection, axis, DIM, 10, -2, &hits, &count));
    assert_int_equal(count, DOCUMENTS);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(store_sql_int("SELECT version FROM chunks WHERE id = %lld", (long long)hits[i].chunk_id), 1);
    assert_ok(vector_store_search_generation(&store.sc, store.db, &g, true, axis, DIM, 10, -2, &hits, &count));
    assert_int_equal(count, DOCUMENTS);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(store_sql_int("SELECT version FROM chunks WHERE id = %lld", (long long)hits[i].chunk_id), 2);
    assert_ok(vector_store_search_generation(&store.sc, store.db, &g, false, axis, DIM, 10, -2, &hits, &count));
    assert_int_equal(count, 0);
}

static void a_query_of_another_model_is_not_compared(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct vector_hit *hits;
    size_t count;
    assert_status(STATUS_CONFLICT, vector_store_search_of_model(&store.sc, store.db, f.collection, "other", axis, DIM,
                                                                10, -2, &hits, &count));
    assert_ok(
        vector_store_search_of_model(&store.sc, store.db, f.collection, "model", axis, DIM, 10, -2, &hits, &count));
    assert_int_equal(count, DOCUMENTS);
}

struct searching {
    pthread_t thread;
    int64_t collection;
    atomic_bool has_to_stop;
    int searches, short_ones, mixed, failed;
};

static bool is_mixed(struct scope *sc, struct db *db, const struct vector_hit *hits, size_t count)
{
    scoped(PGresult) *rows = NULL;
    scoped_text ids = {0};
    for (size_t i = 0; i < count; i++)
        text_printf(&ids, "%c%lld", i ? ',' : '{', (long long)hits[i].chunk_id);
    text_putc(&ids, '}');
    if (db_run(sc, db, "SELECT count(DISTINCT version) AS n FROM chunks WHERE id = ANY ($1::bigint[])", &rows,
               text_str(&ids)) != STATUS_OK)
        return true;
    return db_int(rows, 0, "n", 0) != 1;
}

static void *search_on(void *argument)
{
    struct searching *s = argument;
    struct db *db = store_connect("searcher");
    while (!s->has_to_stop) {
        struct scope sc;
        struct vector_hit *hits;
        size_t count = 0;
        scope_init(&sc, NULL);
        s->failed += vector_store_search(&sc, db, s->collection, axis, DIM, 10, -2, &hits, &count) != STATUS_OK;
        s->short_ones += count != DOCUMENTS;
        s->mixed += count > 0 && is_mixed(&sc, db, hits, count);
        s->searches++;
        scope_done(&sc);
    }
    db_free(db);
    return NULL;
}

static void searches_across_many_switches_are_never_empty_and_never_mixed(void **state)
{
    (void)state;
    enum { SWITCHES = 60, SEARCHERS = 3 };
    struct fixture f = filled("float16");
    struct searching searchers[SEARCHERS] = {0};
    struct generation live = f.live;
    for (int i = 0; i < SEARCHERS; i++) {
        searchers[i].collection = f.collection;
        assert_int_equal(pthread_create(&searchers[i].thread, NULL, search_on, &searchers[i]), 0);
    }
    for (int i = 0; i < SWITCHES; i++) {
        char settings[32];
        snprintf(settings, sizeof settings, "{\"n\": %d}", i);
        struct generation g = staged(&f, settings);
        cut_all(&f, &g);
        switch_to(store.db, &g, live.id);
        if (i % 7 == 0) /* some lose their table under the searches' feet */
            assert_ok(vector_store_drop(&store.sc, store.db, live.id));
        live = g;
    }
    for (int i = 0; i < SEARCHERS; i++) {
        searchers[i].has_to_stop = true;
        pthread_join(searchers[i].thread, NULL);
        assert_true(searchers[i].searches > 0);
        assert_int_equal(searchers[i].failed, 0);
        assert_int_equal(searchers[i].short_ones, 0);
        assert_int_equal(searchers[i].mixed, 0);
    }
}

/* ---- filling ---- */

static void vectors_are_copied_between_precisions(void **state)
{
    (void)state;
    struct fixture f = filled("float32");
    struct generation g = staged(&f, "{}");
    int versions[DOCUMENTS] = {1, 1, 1, 1, 1, 1};
    int64_t copied[DOCUMENTS], one = 0;
    assert_ok(staging_store_copy(&store.sc, store.db, &f.live, &g, f.documents, versions, DOCUMENTS, copied));
    for (int i = 0; i < DOCUMENTS; i++)
        assert_int_equal(copied[i], 1);
    int64_t from = store_sql_int("SELECT min(chunk_id) FROM vec.g%lld", (long long)f.live.id), to = 999999;
    assert_ok(staging_store_copy_chunks(&store.sc, store.db, &f.live, &g, f.documents[0], 2, &from, &to, 1, &one));
    assert_int_equal(one, 1);
    assert_int_equal(store_sql_int("SELECT count(*) FROM vec.g%lld", (long long)g.id), DOCUMENTS + 1);
}

static void a_document_that_another_operation_reads_gets_no_version(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct generation g = staged(&f, "{}");
    int version = -1;
    store_sql("UPDATE documents SET status = 'pending' WHERE id = %lld", (long long)f.documents[0]);
    assert_ok(staging_store_begin(&store.sc, store.db, g.id, f.documents[0], 1, false, &version));
    assert_int_equal(version, 0);
    assert_ok(staging_store_begin(&store.sc, store.db, g.id, f.documents[1], 7, false, &version));
    assert_int_equal(version, 0);
    assert_ok(staging_store_begin(&store.sc, store.db, g.id, f.documents[1], 1, false, &version));
    assert_int_equal(version, 2);
}

static void what_is_not_whole_is_removed_before_it_is_tried_again(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct generation g = staged(&f, "{}"), found;
    int version = 0;
    assert_ok(staging_store_begin(&store.sc, store.db, g.id, f.documents[0], 1, true, &version));
    add_vector(&g, add_chunk(f.collection, f.documents[0], version, "half"), f.documents[0], version);
    assert_ok(staging_store_find(&store.sc, store.db, f.operation.uuid, "{}", &found));
    assert_int_equal(found.id, g.id);
    assert_status(STATUS_NOT_FOUND, staging_store_find(&store.sc, store.db, f.operation.uuid, "{\"a\": 1}", &found));
    assert_ok(staging_store_remove_partial(&store.sc, store.db, &g));
    assert_int_equal(chunks_of(&f, "half"), 0);
    assert_int_equal(store_sql_int("SELECT count(*) FROM vec.g%lld", (long long)g.id), 0);
    assert_int_equal(chunks_of(&f, "old"), DOCUMENTS);
}

/* ---- what goes ---- */

static void staging_of_an_operation_that_is_over_goes_and_that_of_others_stays(void **state)
{
    (void)state;
    struct fixture over = filled("float16"), running = filled("float16");
    struct generation a = staged(&over, "{}"), b = staged(&running, "{}");
    cut_all(&over, &a);
    cut_all(&running, &b);
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() WHERE uuid = '%s'",
              over.operation.uuid);
    assert_ok(staging_store_remove_leftovers(&store.sc, store.db, NULL, NULL));
    assert_false(has_table(a.id));
    assert_int_equal(chunks_of(&over, "new"), 0);
    assert_int_equal(chunks_of(&over, "old"), DOCUMENTS);
    assert_int_equal(store_sql_int("SELECT count(*) FROM staged_documents WHERE generation_id = %lld", (long long)a.id),
                     0);
    assert_true(has_table(b.id));
    assert_int_equal(chunks_of(&running, "new"), DOCUMENTS);
}

static void two_that_remove_one_generation_leave_nothing(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct generation g = staged(&f, "{}");
    struct db *other = store_connect("other");
    cut_all(&f, &g);
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() WHERE uuid = '%s'", f.operation.uuid);
    assert_ok(db_begin(&store.sc, other)); /* another worker is in the middle of a piece, and dies */
    assert_ok(db_run(&store.sc, other, "SELECT 1 FROM staged_documents FOR UPDATE", NULL));
    assert_ok(staging_store_remove_leftovers(&store.sc, store.db, NULL, NULL));
    assert_int_equal(chunks_of(&f, "new"), DOCUMENTS);
    assert_int_equal(store_sql_int("SELECT count(*) FROM generations WHERE id = %lld", (long long)g.id), 1);
    db_rollback(other);
    db_free(other);
    assert_ok(staging_store_remove_leftovers(&store.sc, store.db, NULL, NULL));
    assert_int_equal(chunks_of(&f, "new"), 0);
    assert_int_equal(store_sql_int("SELECT count(*) FROM generations WHERE id = %lld", (long long)g.id), 0);
}

static bool go_on(void *context)
{
    (void)context;
    return false;
}

static void replaced_vectors_go_once_their_time_has_come(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct generation g = staged(&f, "{}");
    struct scheduled s = {.db = store.db, .has_to_stop = go_on};
    cut_all(&f, &g);
    switch_to(store.db, &g, f.live.id);
    store_sql("UPDATE generations SET drop_after = now() + interval '1 hour' WHERE id = %lld", (long long)f.live.id);
    assert_ok(cleanup_retired(&store.sc, &s));
    assert_true(has_table(f.live.id));
    assert_int_equal(chunks_of(&f, "old"), DOCUMENTS);
    store_sql("UPDATE generations SET drop_after = now() WHERE id = %lld", (long long)f.live.id);
    assert_ok(cleanup_retired(&store.sc, &s));
    assert_non_null(strstr(s.result_json, "\"chunks\":6"));
    assert_false(has_table(f.live.id));
    assert_true(has_table(g.id));
    assert_int_equal(chunks_of(&f, "old"), 0);
    assert_int_equal(chunks_of(&f, "new"), DOCUMENTS);
    assert_int_equal(store_sql_int("SELECT count(*) FROM staged_documents WHERE generation_id IN (%lld, %lld)",
                                   (long long)f.live.id, (long long)g.id),
                     0);
}

static void a_second_switch_before_the_notes_are_forgotten_notes_its_own(void **state)
{
    (void)state;
    struct fixture f = filled("float16");
    struct generation a = staged(&f, "{\"n\": 1}"), b;
    struct scheduled s = {.db = store.db, .has_to_stop = go_on};
    cut_all(&f, &a);
    switch_to(store.db, &a, f.live.id);
    b = staged(&f, "{\"n\": 2}");
    cut_all(&f, &b);
    switch_to(store.db, &b, a.id);
    assert_int_equal(chunks_of(&f, "new"), 2 * DOCUMENTS);
    assert_ok(cleanup_retired(&store.sc, &s));
    assert_int_equal(chunks_of(&f, "old"), 0);
    assert_int_equal(chunks_of(&f, "new"), DOCUMENTS);
    assert_false(has_table(a.id));
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM generations WHERE collection_id = %lld", (long long)f.collection), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(staging_is_seen_by_nobody_but_those_who_ask_for_it),
        cmocka_unit_test(a_query_of_another_model_is_not_compared),
        cmocka_unit_test(searches_across_many_switches_are_never_empty_and_never_mixed),
        cmocka_unit_test(vectors_are_copied_between_precisions),
        cmocka_unit_test(a_document_that_another_operation_reads_gets_no_version),
        cmocka_unit_test(what_is_not_whole_is_removed_before_it_is_tried_again),
        cmocka_unit_test(staging_of_an_operation_that_is_over_goes_and_that_of_others_stays),
        cmocka_unit_test(two_that_remove_one_generation_leave_nothing),
        cmocka_unit_test(replaced_vectors_go_once_their_time_has_come),
        cmocka_unit_test(a_second_switch_before_the_notes_are_forgotten_notes_its_own),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
