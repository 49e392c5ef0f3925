#define WITH_ALL_QUERIES
#include "build/queries.h"
#include "common/password.h"
#include "sql/migrate.h"
#include "tests/support/store.h"

#include <pthread.h>
#include <string.h>

static const char *const tables[] = {"users",  "operations",  "collections", "documents",
                                     "chunks", "generations", "workers",     "schema_migrations"};

static void empty_the_database(void)
{
    assert_ok(db_script(&store.sc, store.db,
                        "DROP SCHEMA IF EXISTS vec CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public"));
}

static int start_empty(void **state)
{
    (void)state;
    empty_the_database();
    return 0;
}

static void an_empty_database_is_older_than_the_program(void **state)
{
    (void)state;
    assert_int_equal(migrate_check(&store.sc, store.db), STATUS_UNAVAILABLE);
    assert_non_null(strstr(store.sc.problem_text, "opstream-api --migrate"));
    scope_forgive(&store.sc);
}

static void an_empty_database_is_brought_up_to_date(void **state)
{
    (void)state;
    scoped_text report = {0};
    assert_ok(migrate_run(&store.sc, store.db, &report));
    assert_non_null(strstr(report.data, "0001_base: applied\n"));
    assert_ok(migrate_check(&store.sc, store.db));
    for (size_t i = 0; i < array_len(tables); i++)
        assert_non_null(store_sql("SELECT to_regclass('%s')", tables[i]));
    assert_int_equal(store_sql_int("SELECT max(number) FROM schema_migrations"), migrate_newest());
}

static void a_second_run_changes_nothing(void **state)
{
    (void)state;
    scoped_text report = {0};
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    const char *before = store_sql("SELECT string_agg(number || checksum || applied_at, ' ') FROM schema_migrations");
    assert_ok(migrate_run(&store.sc, store.db, &report));
    assert_int_equal(report.len, 0);
    assert_string_equal(store_sql("SELECT string_agg(number || checksum || applied_at, ' ') FROM schema_migrations"),
                        before);
}

static void a_checksum_is_that_of_the_file(void **state)
{
    (void)state;
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    FILE *f = fopen("sql/migrations/0001_base.sql", "re");
    assert_non_null(f);
    scoped_text file = {0};
    char buffer[4096], checksum[65];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
        text_append(&file, buffer, n);
    fclose(f);
    sha256_hex(file.data, file.len, checksum);
    assert_string_equal(store_sql("SELECT checksum FROM schema_migrations WHERE number = 1"), checksum);
}

struct migrator {
    pthread_t thread;
    enum status status;
    struct text report;
};

static void *migrate_in_thread(void *argument)
{
    struct migrator *m = argument;
    struct scope sc;
    scope_init(&sc, NULL);
    struct db *db = store_connect("migrator");
    m->status = migrate_run(&sc, db, &m->report);
    db_free(db);
    scope_done(&sc);
    return NULL;
}

static void several_programs_may_migrate_at_once(void **state)
{
    (void)state;
    struct migrator migrators[4] = {0};
    for (size_t i = 0; i < array_len(migrators); i++)
        assert_int_equal(pthread_create(&migrators[i].thread, NULL, migrate_in_thread, &migrators[i]), 0);
    int applied = 0;
    for (size_t i = 0; i < array_len(migrators); i++) {
        pthread_join(migrators[i].thread, NULL);
        assert_int_equal(migrators[i].status, STATUS_OK);
        applied += strstr(text_str(&migrators[i].report), "0001_base: applied") != NULL;
        text_free(&migrators[i].report);
    }
    assert_int_equal(applied, 1);
    assert_ok(migrate_check(&store.sc, store.db));
}

static void a_migration_that_was_applied_in_another_form_is_refused(void **state)
{
    (void)state;
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    store_sql("UPDATE schema_migrations SET checksum = 'another' WHERE number = 1");
    assert_int_equal(migrate_run(&store.sc, store.db, NULL), STATUS_CONFLICT);
    assert_non_null(strstr(store.sc.problem_text, "0001_base"));
    scope_forgive(&store.sc);
    assert_ok(db_begin(&store.sc, store.db)); /* the connection is out of its transaction */
    db_rollback(store.db);
}

static void a_schema_of_a_newer_program_is_accepted(void **state)
{
    (void)state;
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    store_sql("INSERT INTO schema_migrations (number, name, checksum) VALUES (9999, '9999_future', 'x')");
    assert_ok(migrate_check(&store.sc, store.db));
    assert_ok(migrate_run(&store.sc, store.db, NULL));
}

static void a_schema_that_lacks_the_newest_migration_is_older(void **state)
{
    (void)state;
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    store_sql("DELETE FROM schema_migrations WHERE number = %d", migrate_newest());
    assert_status(STATUS_UNAVAILABLE, migrate_check(&store.sc, store.db));
}

static void a_migration_that_fails_leaves_nothing_and_is_named(void **state)
{
    (void)state;
    store_sql("CREATE TABLE audit_log (id bigint)");
    assert_int_not_equal(migrate_run(&store.sc, store.db, NULL), STATUS_OK);
    assert_non_null(strstr(store.sc.problem_text, "0001_base"));
    scope_forgive(&store.sc);
    assert_null(store_sql("SELECT to_regclass('users')"));
    assert_null(store_sql("SELECT to_regclass('schema_migrations')"));
}

/* A COPY is not looked at before it runs: it is started and broken off. */
static void start_copy(PGconn *conn, const char *name, const char *sql)
{
    scoped(PGresult) *rows = PQexec(conn, sql);
    if (PQresultStatus(rows) != PGRES_COPY_IN)
        fail_msg("%s: %s", name, PQerrorMessage(conn));
    assert_int_equal(PQputCopyEnd(conn, "only a test"), 1);
    for (PGresult *r; (r = PQgetResult(conn));)
        PQclear(r);
}

static void every_query_fits_the_schema(void **state)
{
    (void)state;
    PGconn *conn;
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    assert_ok(db_connection(&store.sc, store.db, &conn));
    for (size_t i = 0; i < array_len(all_queries); i++) {
        if (strncmp(all_queries[i].sql, "COPY", 4) == 0) {
            start_copy(conn, all_queries[i].name, all_queries[i].sql);
            continue;
        }
        scoped(PGresult) *rows = PQprepare(conn, all_queries[i].name, all_queries[i].sql, 0, NULL);
        if (PQresultStatus(rows) != PGRES_COMMAND_OK)
            fail_msg("%s: %s", all_queries[i].name, PQerrorMessage(conn));
    }
    db_disconnect(store.db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_empty_database_is_older_than_the_program, start_empty),
        cmocka_unit_test_setup(an_empty_database_is_brought_up_to_date, start_empty),
        cmocka_unit_test_setup(a_second_run_changes_nothing, start_empty),
        cmocka_unit_test_setup(a_checksum_is_that_of_the_file, start_empty),
        cmocka_unit_test_setup(several_programs_may_migrate_at_once, start_empty),
        cmocka_unit_test_setup(a_migration_that_was_applied_in_another_form_is_refused, start_empty),
        cmocka_unit_test_setup(a_schema_of_a_newer_program_is_accepted, start_empty),
        cmocka_unit_test_setup(a_schema_that_lacks_the_newest_migration_is_older, start_empty),
        cmocka_unit_test_setup(a_migration_that_fails_leaves_nothing_and_is_named, start_empty),
        cmocka_unit_test_setup(every_query_fits_the_schema, start_empty),
    };
    return cmocka_run_group_tests(tests, store_setup_empty, store_teardown);
}
