/* Every kind of damage made by hand, found, and repaired where that is safe. */
#include "common/store/vector_store.h"
#include "tests/support/store.h"
#include "worker/integrity.h"
#include "worker/schedule.h"

#include <string.h>

enum { DOCUMENTS = 6, CHUNKS_EACH = 3 };

/* A collection in which everything fits together. */
static struct {
    int64_t user, id, source;
    struct generation generation;
} whole;

static void make_vectors(int64_t collection, int64_t generation)
{
    store_sql("INSERT INTO vec.g%lld (chunk_id, document_id, version, embedding) SELECT id, document_id, version, "
              "'[1,0,0,0]' FROM chunks WHERE collection_id = %lld",
              (long long)generation, (long long)collection);
}

static int make_whole(void **state)
{
    (void)state;
    whole.user = store_user();
    whole.id = store_collection(whole.user);
    long long id = whole.id;
    whole.source = store_sql_int("INSERT INTO sources (collection_id, source_path) VALUES (%lld, '/x') RETURNING id",
                                 id);
    store_sql(
        "INSERT INTO documents (collection_id, source_id, path, file_name, file_path, file_size, content_hash, status, "
        "live_version, next_version, chunk_count) SELECT %lld, %lld, convert_to('/x/' || n, 'UTF8'), n::text, '/x/' || "
        "n, "
        "100, md5(n::text), 'completed', 1, 2, %d FROM generate_series(1, %d) n",
        id, (long long)whole.source, CHUNKS_EACH, DOCUMENTS);
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "SELECT %lld, d.id, 1, n, 'text', 1, 0, 4 FROM documents d, generate_series(0, %d) n WHERE collection_id = "
        "%lld",
        id, CHUNKS_EACH - 1, id);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(vector_store_create(&store.sc, store.db, whole.id, "m", 4, "float16", &whole.generation));
    assert_ok(vector_store_activate(&store.sc, store.db, &whole.generation));
    assert_ok(db_commit(&store.sc, store.db));
    make_vectors(whole.id, whole.generation.id);
    store_sql("UPDATE collections SET status = 'ready', document_count = %d, vector_count = %d, total_size_bytes = %d, "
              "error_count = 0 WHERE id = %lld",
              DOCUMENTS, DOCUMENTS * CHUNKS_EACH, DOCUMENTS * 100, id);
    return 0;
}

static int remove_whole(void **state)
{
    (void)state;
    store_sql("DELETE FROM operations");
    store_sql("DELETE FROM chunks");
    store_sql("DELETE FROM documents");
    store_sql("DELETE FROM generations");
    store_sql("DELETE FROM collections");
    store_sql(
        "DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'vec'::regnamespace "
        "AND relkind = 'r' AND relname <> 'g0' LOOP EXECUTE 'DROP TABLE vec.' || t; END LOOP; END $$");
    assert_ok(redis_run(&store.sc, store.events, NULL, "FLUSHDB"));
    return 0;
}

static struct integrity run(bool has_to_repair)
{
    struct integrity i = {.db = store.db, .events = store.events, .has_to_repair = has_to_repair};
    assert_ok(integrity_run(&store.sc, &i));
    return i;
}

static void is_clean(void)
{
    struct integrity i = run(false);
    for (int k = 0; k < INTEGRITY_KINDS; k++) {
        if (i.findings[k].count)
            fail_msg("%s: %lld: %s", integrity_name((enum integrity_kind)k), (long long)i.findings[k].count,
                     i.findings[k].examples);
    }
    assert_false(i.is_redis_away);
}

/* Found as this kind and no other; with `repaired`, gone afterwards. */
static void is_found(enum integrity_kind kind, int64_t count, const char *example)
{
    struct integrity i = run(false);
    for (int k = 0; k < INTEGRITY_KINDS; k++) {
        int64_t expected = k == (int)kind ? count : 0;
        if (i.findings[k].count != expected)
            fail_msg("%s: %lld, not %lld: %s", integrity_name((enum integrity_kind)k), (long long)i.findings[k].count,
                     (long long)expected, i.findings[k].examples);
        assert_int_equal(i.findings[k].repaired, 0);
    }
    assert_non_null(strstr(i.findings[kind].examples, example));
    assert_int_equal(integrity_total(&i), count);
}

static void is_repaired(enum integrity_kind kind, int64_t count)
{
    struct integrity i = run(true);
    assert_int_equal(i.findings[kind].repaired, count);
    is_clean();
}

/* ---- tests ---- */

static void what_is_whole_is_found_whole(void **state)
{
    (void)state;
    is_clean();
    struct integrity i = run(false);
    assert_int_equal(i.collections, 1);
    assert_int_equal(i.held, 0);
}

static void chunks_of_no_document_are_found_and_removed(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "SELECT %lld, -1, 1, n, 'text', 1, 0, 4 FROM generate_series(1, 7) n",
        (long long)whole.id);
    is_found(INTEGRITY_ORPHAN_CHUNKS, 7, "chunk ");
    is_repaired(INTEGRITY_ORPHAN_CHUNKS, 7);
}

static void chunks_of_a_collection_that_is_not_there_are_found_and_removed(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "SELECT 1000000 + n, 1, 1, n, 'text', 1, 0, 4 FROM generate_series(1, 40) n");
    is_found(INTEGRITY_ORPHAN_CHUNKS, 40, "chunk ");
    is_repaired(INTEGRITY_ORPHAN_CHUNKS, 40);
}

static void chunks_of_versions_that_nobody_sees_are_found_and_removed(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "SELECT collection_id, id, 9, 0, 'text', 1, 0, 4 FROM documents");
    is_found(INTEGRITY_ORPHAN_CHUNKS, DOCUMENTS, "chunk ");
    is_repaired(INTEGRITY_ORPHAN_CHUNKS, DOCUMENTS);
}

static void versions_that_are_being_written_or_may_be_needed_are_no_findings(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "SELECT collection_id, id, 2, 0, 'text', 1, 0, 4 FROM documents");
    store_sql("UPDATE documents SET status = 'processing'");
    is_clean();
    store_sql("UPDATE documents SET status = 'completed'");
    store_sql(
        "INSERT INTO generations (collection_id, model, dim, quantization, state) VALUES (%lld, 'm', 4, 'float16', "
        "'retired')",
        (long long)whole.id);
    is_clean();
}

static void vectors_of_no_chunk_are_found_and_removed(void **state)
{
    (void)state;
    store_sql("INSERT INTO vec.g%lld (chunk_id, document_id, version, embedding) SELECT -n, 1, 1, '[1,0,0,0]' FROM "
              "generate_series(1, 3) n",
              (long long)whole.generation.id);
    is_found(INTEGRITY_ORPHAN_VECTORS, 3, "vector -");
    is_repaired(INTEGRITY_ORPHAN_VECTORS, 3);
}

static void documents_without_all_their_chunks_or_vectors_are_found_and_read_again(void **state)
{
    (void)state;
    long long first = store_sql_int("SELECT min(id) FROM documents"),
              last = store_sql_int("SELECT max(id) FROM documents");
    store_sql("DELETE FROM vec.g%lld WHERE chunk_id = (SELECT min(id) FROM chunks WHERE document_id = %lld)",
              (long long)whole.generation.id, first);
    store_sql("DELETE FROM vec.g%lld WHERE document_id = %lld", (long long)whole.generation.id, last);
    store_sql("DELETE FROM chunks WHERE document_id = %lld", last);
    is_found(INTEGRITY_INCOMPLETE_DOCUMENTS, 2, "document ");
    is_repaired(INTEGRITY_INCOMPLETE_DOCUMENTS, 2);
    assert_int_equal(store_sql_int("SELECT count(*) FROM documents WHERE status = 'pending' AND live_version = 1"), 2);
}

static void duplicates_of_what_is_gone_are_found_and_read(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO documents (collection_id, source_id, path, file_name, file_path, status, duplicate_of) VALUES "
        "(%lld, %lld, '/x/d', 'd', '/x/d', 'completed', 99999999)",
        (long long)whole.id, (long long)whole.source);
    is_found(INTEGRITY_LOST_DUPLICATES, 1, "document ");
    is_repaired(INTEGRITY_LOST_DUPLICATES, 1);
    assert_int_equal(store_sql_int("SELECT count(*) FROM documents WHERE status = 'pending' AND duplicate_of IS NULL"),
                     1);
}

static void documents_of_no_source_are_found_and_left_to_people(void **state)
{
    (void)state;
    store_sql("DELETE FROM sources");
    is_found(INTEGRITY_SOURCELESS_DOCUMENTS, DOCUMENTS, "document ");
    struct integrity i = run(true);
    assert_int_equal(i.findings[INTEGRITY_SOURCELESS_DOCUMENTS].repaired, 0);
    assert_int_equal(store_sql_int("SELECT count(*) FROM documents"), DOCUMENTS);
}

static void wrong_counters_are_found_and_counted_anew(void **state)
{
    (void)state;
    store_sql("UPDATE collections SET vector_count = 5, error_count = 2");
    is_found(INTEGRITY_WRONG_COUNTERS, 1, "vector_count 5 of 18");
    is_repaired(INTEGRITY_WRONG_COUNTERS, 1);
    assert_int_equal(store_sql_int("SELECT vector_count FROM collections"), DOCUMENTS * CHUNKS_EACH);
}

static void a_collection_that_nobody_works_on_becomes_ready(void **state)
{
    (void)state;
    store_sql("UPDATE collections SET status = 'processing'");
    is_found(INTEGRITY_STUCK_COLLECTIONS, 1, "collection ");
    is_repaired(INTEGRITY_STUCK_COLLECTIONS, 1);
    assert_string_equal(store_sql("SELECT status FROM collections"), "ready");
}

static void a_deleted_collection_that_nobody_removes_gets_its_operation(void **state)
{
    (void)state;
    store_sql("UPDATE collections SET deleted_at = now()");
    is_found(INTEGRITY_DELETED_COLLECTIONS, 1, "collection ");
    is_repaired(INTEGRITY_DELETED_COLLECTIONS, 1);
    assert_int_equal(store_sql_int("SELECT count(*) FROM operations WHERE type = 'delete' AND status = 'pending'"), 1);
}

static void tables_and_generations_of_nobody_are_found_and_dropped(void **state)
{
    (void)state;
    store_sql("CREATE TABLE vec.g900001 (LIKE vec.g0)");
    is_found(INTEGRITY_UNKNOWN_TABLES, 1, "vec.g900001");
    is_repaired(INTEGRITY_UNKNOWN_TABLES, 1);
    assert_null(store_sql("SELECT to_regclass('vec.g900001')"));
    int64_t lost = store_sql_int(
        "INSERT INTO generations (collection_id, model, dim, quantization, state) VALUES (99999999, "
        "'m', 4, 'float16', 'building') RETURNING id");
    store_sql("CREATE TABLE vec.g%lld (LIKE vec.g0)", (long long)lost);
    is_found(INTEGRITY_LOST_GENERATIONS, 1, "vec.g");
    is_repaired(INTEGRITY_LOST_GENERATIONS, 1);
}

static void a_generation_that_nobody_builds_any_more_is_found_and_removed(void **state)
{
    (void)state;
    int64_t lost = store_sql_int(
        "INSERT INTO generations (collection_id, model, dim, quantization, state, operation_uuid) "
        "VALUES (%lld, 'm', 4, 'float16', 'building', gen_random_uuid()) RETURNING id",
        (long long)whole.id);
    store_sql("CREATE TABLE vec.g%lld (LIKE vec.g0)", (long long)lost);
    store_sql("INSERT INTO staged_documents (generation_id, document_id, version, live_version, is_cut) "
              "SELECT %lld, id, 1, 1, false FROM documents WHERE collection_id = %lld",
              (long long)lost, (long long)whole.id);
    is_found(INTEGRITY_LOST_STAGING, 1, "vec.g");
    is_repaired(INTEGRITY_LOST_STAGING, 1);
    assert_int_equal(store_sql_int("SELECT count(*) FROM staged_documents"), 0);
}

static void a_generation_without_its_table_is_found_and_left_to_people(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO generations (collection_id, model, dim, quantization, state) VALUES (%lld, 'm', 4, 'float16', "
        "'building')",
        (long long)whole.id);
    is_found(INTEGRITY_MISSING_TABLES, 1, "vec.g");
    struct integrity i = run(true);
    assert_int_equal(i.findings[INTEGRITY_MISSING_TABLES].repaired, 0);
}

static void last_events_that_nobody_published_are_found_and_published(void **state)
{
    (void)state;
    struct operation_ref o = store_operation(whole.user, 0, OPERATION_NOOP);
    store_sql(
        "UPDATE operations SET status = 'cancelled', completed_at = now() - interval '2 minutes' WHERE uuid = '%s'",
        o.uuid);
    is_found(INTEGRITY_UNANNOUNCED_OPERATIONS, 1, o.uuid);
    is_repaired(INTEGRITY_UNANNOUNCED_OPERATIONS, 1);
    scoped(redisReply) *r = NULL;
    assert_ok(
        redis_run(&store.sc, store.events, &r, "XLEN %s", redis_key(&store.sc, store.events, MESSAGE_STREAM, o.uuid)));
    assert_int_equal(r->integer, 1);
}

static void streams_that_never_expire_are_found_and_expire_from_then_on(void **state)
{
    (void)state;
    for (int n = 0; n < 1200; n++)
        assert_ok(redis_run(&store.sc, store.events, NULL, "SET test:operation-progress:%d x%s", n, ""));
    assert_ok(redis_run(&store.sc, store.events, NULL, "XADD test:user-progress:5 * message {}"));
    assert_ok(redis_run(&store.sc, store.events, NULL, "SET test:operation-progress:good x EX 100"));
    assert_ok(redis_run(&store.sc, store.events, NULL, "SET other:operation-progress:not-ours x"));
    is_found(INTEGRITY_ENDLESS_STREAMS, 1201, "operation-progress:");
    is_repaired(INTEGRITY_ENDLESS_STREAMS, 1201);
    scoped(redisReply) *ours = NULL;
    scoped(redisReply) *others = NULL;
    assert_ok(redis_run(&store.sc, store.events, &ours, "TTL test:user-progress:5"));
    assert_in_range(ours->integer, 86000, 86400);
    assert_ok(redis_run(&store.sc, store.events, &others, "TTL other:operation-progress:not-ours"));
    assert_int_equal(others->integer, -1);
}

static void what_an_operation_works_on_is_left_alone(void **state)
{
    (void)state;
    store_sql(
        "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
        "VALUES (%lld, -1, 1, 1, 'text', 1, 0, 4)",
        (long long)whole.id);
    store_sql("UPDATE collections SET status = 'processing', vector_count = 1");
    struct operation_ref o = store_operation(whole.user, whole.id, OPERATION_APPEND);
    struct integrity i = run(true);
    assert_int_equal(integrity_total(&i), 0);
    assert_int_equal(i.held, 1);
    assert_int_equal(store_sql_int("SELECT vector_count FROM collections"), 1);
    store_sql("DELETE FROM operations WHERE uuid = '%s'", o.uuid);
    assert_int_equal(run(true).findings[INTEGRITY_ORPHAN_CHUNKS].repaired, 1);
    is_clean();
}

static bool at_once(void *context)
{
    (void)context;
    return true;
}

static void it_stops_when_it_is_told_to(void **state)
{
    (void)state;
    struct integrity i = {.db = store.db, .events = store.events, .has_to_stop = at_once};
    assert_status(STATUS_CANCELLED, integrity_run(&store.sc, &i));
}

static void the_scheduled_check_says_what_it_found(void **state)
{
    (void)state;
    store_sql("UPDATE collections SET vector_count = 5");
    struct scheduled s = {.db = store.db, .events = store.events, .queue = store.queue};
    assert_ok(integrity_check(&store.sc, &s));
    assert_non_null(strstr(s.result_json, "\"wrong_counters\":{\"count\":1,\"repaired\":0"));
    assert_int_equal(store_sql_int("SELECT vector_count FROM collections"), 5);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, make_whole, remove_whole)
    const struct CMUnitTest tests[] = {
        EACH(what_is_whole_is_found_whole),
        EACH(chunks_of_no_document_are_found_and_removed),
        EACH(chunks_of_a_collection_that_is_not_there_are_found_and_removed),
        EACH(chunks_of_versions_that_nobody_sees_are_found_and_removed),
        EACH(versions_that_are_being_written_or_may_be_needed_are_no_findings),
        EACH(vectors_of_no_chunk_are_found_and_removed),
        EACH(documents_without_all_their_chunks_or_vectors_are_found_and_read_again),
        EACH(duplicates_of_what_is_gone_are_found_and_read),
        EACH(documents_of_no_source_are_found_and_left_to_people),
        EACH(wrong_counters_are_found_and_counted_anew),
        EACH(a_collection_that_nobody_works_on_becomes_ready),
        EACH(a_deleted_collection_that_nobody_removes_gets_its_operation),
        EACH(tables_and_generations_of_nobody_are_found_and_dropped),
        EACH(a_generation_that_nobody_builds_any_more_is_found_and_removed),
        EACH(a_generation_without_its_table_is_found_and_left_to_people),
        EACH(last_events_that_nobody_published_are_found_and_published),
        EACH(streams_that_never_expire_are_found_and_expire_from_then_on),
        EACH(what_an_operation_works_on_is_left_alone),
        EACH(it_stops_when_it_is_told_to),
        EACH(the_scheduled_check_says_what_it_found),
    };
#undef EACH
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
