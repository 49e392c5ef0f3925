#include "common/store/document_store.h"
#include "tests/support/store.h"

#include <string.h>

enum { DIM = 4 };

struct place {
    int64_t user, collection, source;
    struct generation generation;
};

static struct place new_place(void)
{
    struct place p = {.user = store_user()};
    p.collection = store_collection(p.user);
    p.source = store_sql_int("INSERT INTO sources (collection_id, source_path, source_config) VALUES (%lld, '/data', "
                             "'{\"path\":\"/data\"}') RETURNING id",
                             (long long)p.collection);
    assert_ok(vector_store_create(&store.sc, store.db, p.collection, "model", DIM, "float16", &p.generation));
    assert_ok(vector_store_activate(&store.sc, store.db, &p.generation));
    return p;
}

static struct path_bytes path(const char *s)
{
    return (struct path_bytes){s, strlen(s)};
}

static int64_t add_document(const struct place *p, const char *name, const char *hash, const char *status,
                            int64_t duplicate_of)
{
    const struct new_document d = {.path = path(name),
                                   .source_id = p->source,
                                   .size = 100,
                                   .mtime_ns = 5,
                                   .hash = hash,
                                   .status = status,
                                   .duplicate_of = duplicate_of};
    int64_t id;
    int live;
    assert_ok(document_store_register(&store.sc, store.db, p->collection, &d, &id, &live));
    return id;
}

static struct known_document known(const struct place *p, const char *name)
{
    const struct path_bytes one = path(name);
    struct known_document *out;
    assert_ok(document_store_known(&store.sc, store.db, p->collection, NULL, &one, 1, &out));
    return out[0];
}

static void write_rows(const struct place *p, int64_t document, int version, int count)
{
    static const float vector[DIM] = {1};
    int64_t ids[32];
    struct chunk_row chunks[32];
    struct vector_row vectors[32];
    assert_ok(document_store_reserve(&store.sc, store.db, (size_t)count, ids));
    for (int i = 0; i < count; i++) {
        chunks[i] = (struct chunk_row){.id = ids[i],
                                       .document_id = document,
                                       .version = version,
                                       .ordinal = i,
                                       .tokens = 3,
                                       .start = 0,
                                       .end = 11,
                                       .content = "a few words and more",
                                       .content_len = 11,
                                       .metadata_json = i % 2 ? "{\"heading\":\"h\"}" : NULL};
        vectors[i] = (struct vector_row){ids[i], document, version, vector};
    }
    assert_ok(document_store_write_chunks(&store.sc, store.db, p->collection, chunks, (size_t)count));
    assert_ok(vector_store_write(&store.sc, store.db, &p->generation, vectors, (size_t)count));
}

/* "chunks vectors" of a document's version */
static const char *rows_of(const struct place *p, int64_t document, int version)
{
    return store_sql("SELECT (SELECT count(*) FROM chunks WHERE collection_id = %lld AND document_id = %lld AND "
                     "version = %d) || ' ' || "
                     "(SELECT count(*) FROM vec.g%lld WHERE document_id = %lld AND version = %d)",
                     (long long)p->collection, (long long)document, version, (long long)p->generation.id,
                     (long long)document, version);
}

static int64_t finish(const struct place *p, int64_t document, int version, int chunks)
{
    int64_t removed;
    assert_ok(document_store_done(&store.sc, store.db, &p->generation, p->collection, document, version, chunks,
                                  "text/plain", "{\"title\":\"t\"}", &removed));
    return removed;
}

static void a_collection_and_its_source_are_read(void **state)
{
    (void)state;
    struct place p = new_place(), other = new_place();
    struct ingest_collection c;
    struct ingest_source s;
    assert_ok(document_store_collection(&store.sc, store.db, p.collection, &c));
    assert_string_equal(c.quantization, "float16");
    assert_int_equal(c.chunk_size, 0);
    assert_int_equal(c.chunk_overlap, -1);
    assert_null(c.strategy);
    assert_ok(document_store_source(&store.sc, store.db, p.source, p.collection, &s));
    assert_string_equal(s.path, "/data");
    assert_status(STATUS_NOT_FOUND, document_store_source(&store.sc, store.db, p.source, other.collection, &s));
    store_sql("UPDATE collections SET deleted_at = now() WHERE id = %lld", (long long)p.collection);
    assert_status(STATUS_NOT_FOUND, document_store_collection(&store.sc, store.db, p.collection, &c));
}

static void paths_are_bytes_and_shown_escaped(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t id = add_document(&p, "/data/caf\xC3\xA9 \xFF\\\".txt", "h", "pending", 0);
    assert_int_equal(known(&p, "/data/caf\xC3\xA9 \xFF\\\".txt").id, id);
    assert_int_equal(known(&p, "/data/caf\xC3\xA9").id, 0);
    assert_string_equal(store_sql("SELECT file_name FROM documents WHERE id = %lld", (long long)id),
                        "caf\xC3\xA9 \\xFF\\\".txt");
    struct pending_document *page;
    size_t count;
    assert_ok(document_store_pending(&store.sc, store.db, p.collection, false, 0, 10, &page, &count));
    assert_int_equal(count, 1);
    assert_memory_equal(page[0].path.bytes, "/data/caf\xC3\xA9 \xFF\\\".txt", page[0].path.len);
}

static void known_documents_come_in_the_order_of_their_paths(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t a = add_document(&p, "/data/a", "ha", "pending", 0), c = add_document(&p, "/data/c", "hc", "failed", 0);
    const struct path_bytes paths[] = {path("/data/c"), path("/data/b"), path("/data/a")};
    struct known_document *out;
    assert_ok(document_store_known(&store.sc, store.db, p.collection, NULL, paths, 3, &out));
    assert_int_equal(out[0].id, c);
    assert_string_equal(out[0].status, "failed");
    assert_int_equal(out[1].id, 0);
    assert_int_equal(out[2].id, a);
    assert_string_equal(out[2].hash, "ha");
    assert_int_equal(out[2].size, 100);
    assert_int_equal(out[2].mtime_ns, 5);
    assert_true(out[2].is_good);
    assert_ok(document_store_known(&store.sc, store.db, p.collection, NULL, paths, 0, &out));
}

static void a_touched_document_keeps_all_but_its_time(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t a = add_document(&p, "/data/a", "ha", "pending", 0);
    assert_ok(document_store_touch(&store.sc, store.db, a, 77));
    assert_int_equal(known(&p, "/data/a").mtime_ns, 77);
    assert_string_equal(known(&p, "/data/a").hash, "ha");
}

static void pending_documents_come_page_by_page(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t total;
    for (int i = 0; i < 7; i++)
        add_document(&p, arena_printf(&store.sc.arena, "/data/%d", i), "h", i == 3 ? "failed" : "pending", 0);
    assert_ok(document_store_pending_count(&store.sc, store.db, p.collection, &total));
    assert_int_equal(total, 6);
    int64_t after = 0;
    size_t seen = 0, count = 1;
    while (count > 0) {
        struct pending_document *page;
        assert_ok(document_store_pending(&store.sc, store.db, p.collection, false, after, 4, &page, &count));
        for (size_t i = 0; i < count; i++, seen++) {
            assert_true(page[i].id > after);
            after = page[i].id;
        }
    }
    assert_int_equal(seen, 6);
}

static void a_new_version_replaces_the_old_one_when_it_is_whole(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = add_document(&p, "/data/a", "h1", "pending", 0);
    write_rows(&p, d, 1, 5);
    assert_int_equal(finish(&p, d, 1, 5), 0);
    assert_string_equal(rows_of(&p, d, 1), "5 5");
    const struct new_document changed = {
        .path = path("/data/a"), .source_id = p.source, .size = 200, .hash = "h2", .status = "pending"};
    int64_t id;
    int live;
    assert_ok(document_store_register(&store.sc, store.db, p.collection, &changed, &id, &live));
    assert_int_equal(id, d);
    assert_int_equal(live, 1); /* the old one is seen until then */
    struct pending_document *page;
    size_t count;
    assert_ok(document_store_pending(&store.sc, store.db, p.collection, false, 0, 1, &page, &count));
    assert_int_equal(page[0].next_version, 2);
    assert_ok(document_store_begin(&store.sc, store.db, d));
    write_rows(&p, d, 2, 3);
    assert_string_equal(rows_of(&p, d, 1), "5 5");
    assert_int_equal(finish(&p, d, 2, 3), 5);
    assert_string_equal(rows_of(&p, d, 1), "0 0");
    assert_string_equal(rows_of(&p, d, 2), "3 3");
    assert_string_equal(
        store_sql(
            "SELECT concat_ws(' ', status, live_version, next_version, chunk_count, mime_type, metadata ->> 'title') "
            "FROM documents WHERE id = %lld",
            (long long)d),
        "completed 2 3 3 text/plain t");
}

static void chunks_are_written_as_they_are(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = add_document(&p, "/data/a", "h", "pending", 0);
    write_rows(&p, d, 1, 2);
    assert_string_equal(store_sql("SELECT string_agg(concat_ws(',', ordinal, content, tokens, start_byte, end_byte, "
                                  "metadata), ';' ORDER BY ordinal) "
                                  "FROM chunks WHERE document_id = %lld",
                                  (long long)d),
                        "0,a few words,3,0,11;1,a few words,3,0,11,{\"heading\": \"h\"}");
}

static void a_duplicate_is_good_as_long_as_its_original(void **state)
{
    (void)state;
    struct place p = new_place(), other = new_place();
    int64_t original = add_document(&p, "/data/a", "same", "completed", 0), found;
    assert_ok(document_store_original(&store.sc, store.db, p.collection, "same", path("/data/b"), &found));
    assert_int_equal(found, original);
    assert_ok(document_store_original(&store.sc, store.db, p.collection, "same", path("/data/a"), &found));
    assert_int_equal(found, 0);
    assert_ok(document_store_original(&store.sc, store.db, other.collection, "same", path("/data/b"), &found));
    assert_int_equal(found, 0);
    add_document(&p, "/data/b", "same", "completed", original);
    assert_true(known(&p, "/data/b").is_good);
    assert_ok(document_store_original(&store.sc, store.db, p.collection, "same", path("/data/c"), &found));
    assert_int_equal(found, original); /* never the duplicate of another */
    add_document(&p, "/data/a", "changed", "pending", 0);
    assert_false(known(&p, "/data/b").is_good);
}

static void duplicates_of_a_file_that_changed_are_read_themselves_once(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t original = add_document(&p, "/data/a", "same", "completed", 0), revived;
    int64_t second = add_document(&p, "/data/b", "same", "completed", original);
    int64_t third = add_document(&p, "/data/c", "same", "completed", original);
    assert_ok(document_store_revive_duplicates(&store.sc, store.db, p.collection, &revived));
    assert_int_equal(revived, 0);
    add_document(&p, "/data/a", "changed", "pending", 0);
    assert_ok(document_store_revive_duplicates(&store.sc, store.db, p.collection, &revived));
    assert_int_equal(revived, 1);
    assert_string_equal(known(&p, "/data/b").status, "pending");
    assert_string_equal(known(&p, "/data/c").status, "completed");
    assert_int_equal(store_sql_int("SELECT duplicate_of FROM documents WHERE id = %lld", (long long)third), second);
    assert_ok(document_store_revive_duplicates(&store.sc, store.db, p.collection, &revived));
    assert_int_equal(revived, 0);
}

static void a_file_that_became_a_duplicate_is_no_longer_seen(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = add_document(&p, "/data/a", "h", "pending", 0), removed;
    write_rows(&p, d, 1, 4);
    finish(&p, d, 1, 4);
    assert_ok(document_store_hide(&store.sc, store.db, &p.generation, p.collection, d, 1, &removed));
    assert_int_equal(removed, 4);
    assert_string_equal(rows_of(&p, d, 1), "0 0");
    assert_int_equal(store_sql_int("SELECT live_version FROM documents WHERE id = %lld", (long long)d), 0);
}

static void a_failed_document_is_recorded_and_no_longer_seen(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = add_document(&p, "/data/a", "h", "pending", 0), removed;
    write_rows(&p, d, 1, 4);
    finish(&p, d, 1, 4);
    const struct document_failure broken = {"it is broken", "permanent", "application/pdf", NULL, false};
    assert_ok(document_store_failed(&store.sc, store.db, &p.generation, p.collection, d, 1, &broken, &removed));
    assert_int_equal(removed, 4);
    assert_string_equal(rows_of(&p, d, 1), "0 0");
    assert_string_equal(store_sql("SELECT concat_ws(' ', status, live_version, chunk_count, error_message, "
                                  "error_category) FROM documents WHERE id = %lld",
                                  (long long)d),
                        "failed 0 0 it is broken permanent");
    int64_t never = add_document(&p, "/data/b", "h", "pending", 0);
    const struct document_failure why = {"why", "unknown", NULL, NULL, false};
    assert_ok(document_store_failed(&store.sc, store.db, NULL, p.collection, never, 0, &why, &removed));
    assert_int_equal(removed, 0);
    const struct document_failure nonsense = {"why", "nonsense", NULL, NULL, false};
    assert_status(STATUS_INVALID,
                  document_store_failed(&store.sc, store.db, NULL, p.collection, never, 0, &nonsense, &removed));
}

static void counters_follow_and_never_fall_below_zero(void **state)
{
    (void)state;
    struct place p = new_place();
    struct collection_stats stats;
    assert_ok(document_store_count(&store.sc, store.db, p.collection, 2, 10, 200, 1, &stats));
    assert_int_equal(stats.documents, 2);
    assert_int_equal(stats.vectors, 10);
    assert_int_equal(stats.bytes, 200);
    assert_ok(document_store_count(&store.sc, store.db, p.collection, -5, -3, -500, 0, &stats));
    assert_int_equal(stats.documents, 0);
    assert_int_equal(stats.vectors, 7);
    assert_int_equal(stats.bytes, 0);
    int64_t d = add_document(&p, "/data/a", "h", "pending", 0);
    finish(&p, d, 1, 0);
    add_document(&p, "/data/b", "h", "failed", 0);
    assert_ok(document_store_recount(&store.sc, store.db, p.collection, &stats));
    assert_int_equal(stats.documents, 1);
    assert_int_equal(stats.vectors, store_sql_int("SELECT chunk_count FROM documents WHERE id = %lld", (long long)d));
    assert_int_equal(stats.bytes, 100);
    assert_int_equal(store_sql_int("SELECT error_count FROM collections WHERE id = %lld", (long long)p.collection), 1);
}

static void a_sources_run_is_noted(void **state)
{
    (void)state;
    struct place p = new_place();
    assert_ok(document_store_source_run(&store.sc, store.db, p.source, "running", NULL));
    assert_ok(document_store_source_run(&store.sc, store.db, p.source, "partial", "one failed"));
    assert_string_equal(store_sql("SELECT concat_ws(' ', last_run_status, last_error, last_run_completed_at IS NOT "
                                  "NULL, last_indexed_at IS NOT NULL) FROM "
                                  "sources WHERE id = %lld",
                                  (long long)p.source),
                        "partial one failed t t");
}

/* ---- leftovers ---- */

/* A document of which a first part was committed, unseen. */
static int64_t half_written(const struct place *p, const char *name)
{
    int64_t d = add_document(p, name, "h", "pending", 0);
    assert_ok(document_store_begin(&store.sc, store.db, d));
    write_rows(p, d, 1, 6);
    return d;
}

static void what_a_dead_attempt_left_is_removed(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = half_written(&p, "/data/a");
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, 0, NULL));
    assert_string_equal(rows_of(&p, d, 1), "0 0");
    assert_string_equal(known(&p, "/data/a").status, "pending");
}

static void what_a_living_attempt_writes_is_left_alone(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = half_written(&p, "/data/a");
    struct operation_ref o = store_operation(p.user, p.collection, OPERATION_APPEND);
    const char *task = store_claim(o.uuid, store_worker(60)), *another = o.uuid;
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, 0, NULL));
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, p.collection, another));
    assert_string_equal(rows_of(&p, d, 1), "6 6");
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, p.collection, task)); /* its own predecessor's */
    assert_string_equal(rows_of(&p, d, 1), "0 0");
}

static void leftovers_spare_what_is_visible(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = add_document(&p, "/data/a", "h", "pending", 0);
    write_rows(&p, d, 1, 2);
    finish(&p, d, 1, 2);
    assert_ok(document_store_begin(&store.sc, store.db, d));
    write_rows(&p, d, 2, 3);
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, p.collection, NULL));
    assert_string_equal(rows_of(&p, d, 1), "2 2");
    assert_string_equal(rows_of(&p, d, 2), "0 0");
    assert_int_equal(store_sql_int("SELECT live_version FROM documents WHERE id = %lld", (long long)d), 1);
}

static void many_leftovers_go_in_several_transactions(void **state)
{
    (void)state;
    struct place p = new_place();
    for (int i = 0; i < 120; i++)
        assert_ok(document_store_begin(
            &store.sc, store.db, add_document(&p, arena_printf(&store.sc.arena, "/data/%d", i), "h", "pending", 0)));
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, p.collection, NULL));
    assert_int_equal(store_sql_int("SELECT count(*) FROM documents WHERE collection_id = %lld AND status <> 'pending'",
                                   (long long)p.collection),
                     0);
}

static void what_a_deleted_collection_left_keeps_nothing_else_waiting(void **state)
{
    (void)state;
    struct place deleted = new_place(), p = new_place();
    half_written(&deleted, "/data/a");
    int64_t d = half_written(&p, "/data/a");
    store_sql("UPDATE collections SET deleted_at = now() WHERE id = %lld", (long long)deleted.collection);
    assert_ok(vector_store_drop(&store.sc, store.db, deleted.generation.id));
    assert_ok(document_store_remove_leftovers(&store.sc, store.db, 0, NULL));
    assert_string_equal(rows_of(&p, d, 1), "0 0");
}

static void rows_that_nobody_saw_are_abandoned_alone(void **state)
{
    (void)state;
    struct place p = new_place();
    int64_t d = add_document(&p, "/data/a", "h", "pending", 0);
    write_rows(&p, d, 1, 2);
    finish(&p, d, 1, 2);
    write_rows(&p, d, 2, 3);
    assert_ok(document_store_abandon(&store.sc, store.db, &p.generation, p.collection, d, 2));
    assert_string_equal(rows_of(&p, d, 1), "2 2");
    assert_string_equal(rows_of(&p, d, 2), "0 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_collection_and_its_source_are_read),
        cmocka_unit_test(paths_are_bytes_and_shown_escaped),
        cmocka_unit_test(known_documents_come_in_the_order_of_their_paths),
        cmocka_unit_test(a_touched_document_keeps_all_but_its_time),
        cmocka_unit_test(pending_documents_come_page_by_page),
        cmocka_unit_test(a_new_version_replaces_the_old_one_when_it_is_whole),
        cmocka_unit_test(chunks_are_written_as_they_are),
        cmocka_unit_test(a_duplicate_is_good_as_long_as_its_original),
        cmocka_unit_test(duplicates_of_a_file_that_changed_are_read_themselves_once),
        cmocka_unit_test(a_file_that_became_a_duplicate_is_no_longer_seen),
        cmocka_unit_test(a_failed_document_is_recorded_and_no_longer_seen),
        cmocka_unit_test(counters_follow_and_never_fall_below_zero),
        cmocka_unit_test(a_sources_run_is_noted),
        cmocka_unit_test(what_a_dead_attempt_left_is_removed),
        cmocka_unit_test(what_a_living_attempt_writes_is_left_alone),
        cmocka_unit_test(leftovers_spare_what_is_visible),
        cmocka_unit_test(what_a_deleted_collection_left_keeps_nothing_else_waiting),
        cmocka_unit_test(rows_that_nobody_saw_are_abandoned_alone),
        cmocka_unit_test(many_leftovers_go_in_several_transactions),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
