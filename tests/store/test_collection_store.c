#include "common/store/collection_store.h"
#include "common/store/document_view.h"
#include "common/store/operation_view.h"
#include "common/store/search_store.h"
#include "common/store/source_store.h"
#include "tests/support/store.h"

#include <string.h>

static struct collection_new named(const char *name, int64_t user)
{
    return (struct collection_new){.name = name,
                                   .owner_id = user,
                                   .model = "m",
                                   .quantization = "float16",
                                   .chunk_size = -1,
                                   .chunk_overlap = -1,
                                   .sync_interval_minutes = -1};
}

static const char *unique(const char *what)
{
    char uuid[37];
    uuid_make(uuid);
    return arena_printf(&store.sc.arena, "%s %s", what, uuid);
}

static struct collection inserted(const struct collection_new *wanted)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    assert_ok(collection_store_insert(&store.sc, store.db, wanted, &c, &rows));
    return c;
}

static void a_new_collection_is_pending_and_found_by_its_uuid(void **state)
{
    (void)state;
    struct collection_new wanted = named(unique("found"), store_user());
    struct collection made = inserted(&wanted), found;
    assert_ok(collection_store_find(&store.sc, store.db, made.uuid, &found, NULL));
    assert_int_equal(found.id, made.id);
    assert_string_equal(found.status, "pending");
    assert_string_equal(found.name, wanted.name);
    assert_false(found.is_public || found.is_continuous);
}

static void a_taken_name_is_a_conflict_that_says_so_and_a_hidden_one_is_free(void **state)
{
    (void)state;
    struct collection_new wanted = named(unique("taken"), store_user()), again = named(wanted.name, store_user());
    struct collection made = inserted(&wanted), c;
    scoped(PGresult) *rows = NULL;
    assert_int_equal(collection_store_insert(&store.sc, store.db, &again, &c, &rows), STATUS_CONFLICT);
    assert_non_null(strstr(store.sc.problem_text, wanted.name));
    scope_forgive(&store.sc);
    assert_ok(collection_store_hide(&store.sc, store.db, made.id));
    assert_status(STATUS_NOT_FOUND, collection_store_hide(&store.sc, store.db, made.id));
    assert_status(STATUS_NOT_FOUND, collection_store_find(&store.sc, store.db, made.uuid, &c, NULL));
    assert_ok(collection_store_insert(&store.sc, store.db, &again, &c, &rows));
}

static void only_pending_and_ready_collections_are_taken(void **state)
{
    (void)state;
    struct collection_new wanted = named(unique("state"), store_user());
    struct collection c = inserted(&wanted);
    assert_ok(collection_store_take(&store.sc, store.db, c.id));
    assert_status(STATUS_CONFLICT, collection_store_take(&store.sc, store.db, c.id));
    store_sql("UPDATE collections SET status = 'error' WHERE id = %lld", (long long)c.id);
    assert_status(STATUS_CONFLICT, collection_store_take(&store.sc, store.db, c.id));
    store_sql("UPDATE collections SET status = 'ready' WHERE id = %lld", (long long)c.id);
    assert_ok(collection_store_take(&store.sc, store.db, c.id));
}

static void an_update_changes_what_is_given(void **state)
{
    (void)state;
    struct collection_new wanted = named(unique("update"), store_user());
    wanted.description = "old";
    struct collection c = inserted(&wanted);
    scoped(PGresult) *rows = NULL, *next = NULL;
    struct collection_change change = {.name = unique("updated"), .sync_interval_minutes = -1};
    assert_ok(collection_store_update(&store.sc, store.db, c.id, &change, &rows));
    assert_string_equal(db_text(rows, 0, "name"), change.name);
    assert_string_equal(db_text(rows, 0, "description"), "old");
    change = (struct collection_change){.has_description = true, .is_public = "true", .sync_interval_minutes = -1};
    assert_ok(collection_store_update(&store.sc, store.db, c.id, &change, &next));
    assert_null(db_text(next, 0, "description"));
    assert_true(db_bool(next, 0, "is_public"));
}

static void models_go_by_many_names_and_unknown_ones_are_refused_with_a_list(void **state)
{
    (void)state;
    static const char *const same[] = {
        NULL, "", "dense_local", "Dense_Local", "all-MiniLM-L6-v2", "sentence-transformers/ALL-minilm-l6-V2"};
    const char *model = NULL;
    for (size_t i = 0; i < array_len(same); i++) {
        assert_ok(
            collection_store_model(&store.sc, store.db, "sentence-transformers/all-MiniLM-L6-v2", same[i], &model));
        assert_string_equal(model, "all-MiniLM-L6-v2");
    }
    store_sql("INSERT INTO workers (id, host, pid, models, expires_at) VALUES ('a', 'h', 1, '{bge}', now() + interval "
              "'1 hour'), "
              "('b', 'h', 1, '{late}', now() - interval '1 second')");
    assert_ok(collection_store_model(&store.sc, store.db, "m", "BAAI/BGE", &model));
    assert_string_equal(model, "bge");
    assert_int_equal(collection_store_model(&store.sc, store.db, "m", "late", &model), STATUS_INVALID);
    assert_non_null(strstr(store.sc.problem_text, "m, bge"));
    scope_forgive(&store.sc);
}

static void a_path_added_again_is_the_same_source(void **state)
{
    (void)state;
    struct collection_new wanted = named(unique("sources"), store_user());
    struct collection c = inserted(&wanted);
    int64_t first = 0, again = 0, other = 0;
    assert_ok(source_store_put(&store.sc, store.db, &(struct source_new){c.id, "directory", "/a", "{}"}, &first));
    assert_ok(
        source_store_put(&store.sc, store.db, &(struct source_new){c.id, "directory", "/a", "{\"x\":1}"}, &again));
    assert_ok(source_store_put(&store.sc, store.db, &(struct source_new){c.id, "directory", "/b", "{}"}, &other));
    assert_int_equal(first, again);
    assert_int_not_equal(first, other);
    scoped(PGresult) *rows = NULL, *one = NULL;
    assert_ok(source_store_list(&store.sc, store.db, c.id, 1, 5, &rows));
    assert_int_equal(db_int(rows, 0, "total", 0), 2);
    assert_ok(source_store_find(&store.sc, store.db, c.id, 0, "/a", &one));
    assert_string_equal(db_text(one, 0, "source_config"), "{\"x\": 1}");
    assert_status(STATUS_NOT_FOUND, source_store_find(&store.sc, store.db, c.id, first + 1000, NULL, &one));
}

static void a_grant_covers_its_root_and_what_is_below(void **state)
{
    (void)state;
    int64_t user = store_user();
    store_sql("INSERT INTO source_grants VALUES (%lld, '/data/a'), (%lld, '/logs//')", (long long)user,
              (long long)user);
    static const struct {
        const char *path;
        bool is_granted;
    } cases[] = {{"/data/a", true}, {"/data/a/b/c", true}, {"/data/ab", false}, {"/data", false}, {"/", false},
                 {"/logs", true},   {"/logs/x", true},     {"/log", false},     {"", false},      {"/data/a/", true}};
    for (size_t i = 0; i < array_len(cases); i++) {
        bool is_granted = !cases[i].is_granted;
        assert_ok(source_store_is_granted(&store.sc, store.db, user, cases[i].path, &is_granted));
        if (is_granted != cases[i].is_granted)
            fail_msg("%s", cases[i].path);
    }
    store_sql("INSERT INTO source_grants VALUES (%lld, '/')", (long long)user);
    bool is_granted = false;
    assert_ok(source_store_is_granted(&store.sc, store.db, user, "/anything", &is_granted));
    assert_true(is_granted);
}

static void an_empty_page_still_tells_the_total(void **state)
{
    (void)state;
    int64_t user = store_user(), collection = store_collection(user);
    store_operation(user, collection, OPERATION_INDEX);
    scoped(PGresult) *operations = NULL, *documents = NULL, *collections = NULL;
    struct operation_filter filter = {.user_id = user};
    assert_ok(operation_view_list(&store.sc, store.db, &filter, 10, 100, &operations));
    assert_int_equal(db_int(operations, 0, "total", 0), 1);
    assert_null(db_text(operations, 0, "id"));
    assert_ok(document_view_list(&store.sc, store.db, collection, NULL, 10, 0, &documents));
    assert_int_equal(db_int(documents, 0, "total", -1), 0);
    assert_ok(collection_store_list(&store.sc, store.db, user, false, 10, 100, &collections));
    assert_int_equal(db_int(collections, 0, "total", 0), 1);
}

static void texts_of_hits_come_in_their_order_and_without_those_that_went_away(void **state)
{
    (void)state;
    int64_t collection = store_collection(store_user());
    int64_t document = store_sql_int(
        "INSERT INTO documents (collection_id, path, file_name, file_path) VALUES (%lld, '/x', 'x', '/x') RETURNING id",
        (long long)collection);
    int64_t ids[2];
    for (int i = 0; i < 2; i++)
        ids[i] = store_sql_int(
            "INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte) "
            "VALUES (%lld, %lld, 1, %d, 'text %d', 1, 0, 4) RETURNING id",
            (long long)collection, (long long)document, i, i);
    struct search_key keys[] = {{collection, ids[1]}, {collection, 999999}, {collection, ids[0]}};
    scoped(PGresult) *rows = NULL, *none = NULL;
    assert_ok(search_store_chunks(&store.sc, store.db, keys, array_len(keys), true, &rows));
    assert_int_equal(PQntuples(rows), 2);
    assert_string_equal(db_text(rows, 0, "content"), "text 1");
    assert_int_equal(db_int(rows, 1, "place", 0), 3);
    assert_ok(search_store_chunks(&store.sc, store.db, keys, 0, true, &none));
    assert_int_equal(PQntuples(none), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_collection_is_pending_and_found_by_its_uuid),
        cmocka_unit_test(a_taken_name_is_a_conflict_that_says_so_and_a_hidden_one_is_free),
        cmocka_unit_test(only_pending_and_ready_collections_are_taken),
        cmocka_unit_test(an_update_changes_what_is_given),
        cmocka_unit_test(models_go_by_many_names_and_unknown_ones_are_refused_with_a_list),
        cmocka_unit_test(a_path_added_again_is_the_same_source),
        cmocka_unit_test(a_grant_covers_its_root_and_what_is_below),
        cmocka_unit_test(an_empty_page_still_tells_the_total),
        cmocka_unit_test(texts_of_hits_come_in_their_order_and_without_those_that_went_away),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
