#include "common/clock.h"
#include "tests/support/store.h"

#include <poll.h>
#include <string.h>

static void kill_connection_of(struct db *db)
{
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, db, "SELECT pg_backend_pid() AS pid", &rows));
    store_sql("SELECT pg_terminate_backend(%lld, 10000)", (long long)db_int(rows, 0, "pid", 0));
}

static int make_table(void **state)
{
    (void)state;
    assert_ok(db_script(&store.sc, store.db,
                        "DROP TABLE IF EXISTS t; CREATE TABLE t (n integer PRIMARY KEY CHECK (n < 100))"));
    return 0;
}

static int64_t rows_in_table(void)
{
    return store_sql_int("SELECT count(*) FROM t");
}

static void cells_are_read_by_name_and_null_has_a_fallback(void **state)
{
    (void)state;
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, store.db,
                     "SELECT $1::text AS t, $2::bigint AS i, 2.5 AS r, true AS b, NULL::text AS none", &rows, "x",
                     "-7"));
    assert_string_equal(db_text(rows, 0, "t"), "x");
    assert_int_equal(db_int(rows, 0, "i", 0), -7);
    assert_true(db_real(rows, 0, "r", 0) == 2.5);
    assert_true(db_bool(rows, 0, "b"));
    assert_null(db_text(rows, 0, "none"));
    assert_int_equal(db_int(rows, 0, "none", 9), 9);
    assert_false(db_bool(rows, 0, "none"));
}

static void a_connection_that_broke_while_idle_is_replaced_unnoticed(void **state)
{
    (void)state;
    struct db *db = store_connect("idle");
    kill_connection_of(db);
    assert_ok(db_run(&store.sc, db, "SELECT 1", NULL));
    db_free(db);
}

static void a_connection_that_broke_in_a_transaction_is_not_replaced_before_its_end(void **state)
{
    (void)state;
    struct db *db = store_connect("transaction");
    assert_ok(db_begin(&store.sc, db));
    assert_ok(db_run(&store.sc, db, "INSERT INTO t VALUES (1)", NULL));
    kill_connection_of(db);
    assert_status(STATUS_UNAVAILABLE, db_run(&store.sc, db, "INSERT INTO t VALUES (2)", NULL));
    assert_status(STATUS_UNAVAILABLE, db_run(&store.sc, db, "INSERT INTO t VALUES (3)", NULL));
    assert_status(STATUS_UNAVAILABLE, db_commit(&store.sc, db));
    assert_ok(db_run(&store.sc, db, "INSERT INTO t VALUES (4)", NULL));
    assert_int_equal(rows_in_table(), 1);
    db_free(db);
}

static void failures_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        enum status status;
    } cases[] = {
        {"SELECT * FROM nowhere", STATUS_NOT_FOUND},
        {"INSERT INTO t VALUES (1), (1)", STATUS_CONFLICT},
        {"INSERT INTO t VALUES (100)", STATUS_INVALID},
        {"INSERT INTO t VALUES (NULL)", STATUS_INVALID},
        {"SELECT 'x'::integer", STATUS_INVALID},
        {"SELECT nonsense", STATUS_INTERNAL},
        {"SELEC 1", STATUS_INTERNAL},
        {"DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = 'OPF01'; END $$", STATUS_LOST},
        {"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'OPT01'; END $$", STATUS_INVALID},
        {"DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$", STATUS_UNAVAILABLE},
        {"DO $$ BEGIN RAISE EXCEPTION 'dead' USING ERRCODE = '40P01'; END $$", STATUS_UNAVAILABLE},
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        if (db_run(&store.sc, store.db, cases[i].sql, NULL) != cases[i].status)
            fail_msg("%s: %s", cases[i].sql, store.sc.problem_text);
        scope_forgive(&store.sc);
    }
    assert_status(STATUS_CONFLICT, db_run(&store.sc, store.db, "INSERT INTO t VALUES (1), (1)", NULL));
    assert_string_equal(db_sqlstate(store.db), "23505");
    assert_string_equal(db_constraint(store.db), "t_pkey");
    assert_ok(db_run(&store.sc, store.db, "SELECT 1", NULL));
    assert_string_equal(db_sqlstate(store.db), "");
}

static void a_commit_of_a_failed_transaction_tells_what_failed(void **state)
{
    (void)state;
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(db_run(&store.sc, store.db, "INSERT INTO t VALUES (1)", NULL));
    assert_status(STATUS_CONFLICT, db_run(&store.sc, store.db, "INSERT INTO t VALUES (1)", NULL));
    assert_status(STATUS_CONFLICT, db_run(&store.sc, store.db, "INSERT INTO t VALUES (2)", NULL));
    assert_status(STATUS_CONFLICT, db_commit(&store.sc, store.db));
    assert_int_equal(rows_in_table(), 0);
}

static void a_rollback_is_safe_anywhere(void **state)
{
    (void)state;
    struct db *db = store_connect("never connected");
    db_rollback(db);
    db_free(db);
    db_rollback(store.db);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(db_run(&store.sc, store.db, "INSERT INTO t VALUES (1)", NULL));
    db_rollback(store.db);
    db_rollback(store.db);
    assert_int_equal(rows_in_table(), 0);
    db_free(NULL);
}

static void a_statement_that_takes_too_long_is_stopped_by_the_server(void **state)
{
    (void)state;
    const struct db_options options = {.url = store.database_url, .statement_timeout_ms = 50};
    struct db *db = db_new(&options);
    assert_status(STATUS_TIMEOUT, db_run(&store.sc, db, "SELECT pg_sleep(60)", NULL));
    assert_ok(db_run(&store.sc, db, "SELECT 1", NULL));
    db_free(db);
}

static void a_session_that_sits_in_a_transaction_is_ended_by_the_server(void **state)
{
    (void)state;
    struct db *db = store_connect("idle");
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, db, "SELECT setting::int > 0 AS is_on FROM pg_settings WHERE name = $1", &rows,
                     "idle_in_transaction_session_timeout"));
    assert_true(db_bool(rows, 0, "is_on"));
    assert_ok(db_begin(&store.sc, db));
    assert_ok(db_run(&store.sc, db, "SET LOCAL idle_in_transaction_session_timeout = 1", NULL));
    poll(NULL, 0, 200);
    assert_status(STATUS_UNAVAILABLE, db_run(&store.sc, db, "SELECT 1", NULL));
    db_rollback(db);
    assert_ok(db_run(&store.sc, db, "SELECT 1", NULL));
    db_free(db);
}

static void the_scopes_deadline_ends_the_waiting(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, NULL);
    struct db *db = store_connect("deadline");
    assert_int_equal(db_run(&sc, db, "SELECT 1", NULL), STATUS_OK);
    sc.deadline_ms = clock_monotonic_ms() + 100;
    assert_int_equal(db_run(&sc, db, "SELECT pg_sleep(60)", NULL), STATUS_TIMEOUT);
    assert_int_equal(db_run(&sc, db, "SELECT 1", NULL), STATUS_TIMEOUT); /* no time is left at all */
    scope_forgive(&sc);
    sc.deadline_ms = 0;
    assert_int_equal(db_run(&sc, db, "SELECT 1", NULL), STATUS_OK);
    db_free(db);
    scope_done(&sc);
}

static void a_server_that_is_not_there_is_unavailable(void **state)
{
    (void)state;
    const struct db_options options = {.url = "postgresql://user:secretword@127.0.0.1:1/none"};
    struct db *db = db_new(&options);
    assert_int_equal(db_run(&store.sc, db, "SELECT 1", NULL), STATUS_UNAVAILABLE);
    assert_null(strstr(store.sc.problem_text, "secretword"));
    scope_forgive(&store.sc);
    assert_status(STATUS_UNAVAILABLE, db_begin(&store.sc, db));
    db_rollback(db);
    db_free(db);
}

static void a_copy_is_all_or_nothing(void **state)
{
    (void)state;
    assert_ok(db_copy_in(&store.sc, store.db, "COPY t FROM STDIN", "1\n2\n3\n", 6));
    assert_int_equal(rows_in_table(), 3);
    assert_status(STATUS_INVALID, db_copy_in(&store.sc, store.db, "COPY t FROM STDIN", "4\nx\n", 4));
    assert_status(STATUS_CONFLICT, db_copy_in(&store.sc, store.db, "COPY t FROM STDIN", "5\n1\n", 4));
    assert_status(STATUS_NOT_FOUND, db_copy_in(&store.sc, store.db, "COPY nowhere FROM STDIN", "1\n", 2));
    assert_int_equal(rows_in_table(), 3);
}

static void a_script_is_all_or_nothing(void **state)
{
    (void)state;
    assert_status(STATUS_CONFLICT,
                  db_script(&store.sc, store.db, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)"));
    assert_int_equal(rows_in_table(), 0);
    assert_ok(db_begin(&store.sc, store.db));
    assert_ok(db_script(&store.sc, store.db, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)"));
    db_rollback(store.db);
    assert_int_equal(rows_in_table(), 0);
}

static void a_plain_statement_takes_no_second_one(void **state)
{
    (void)state;
    assert_status(STATUS_INTERNAL,
                  db_run(&store.sc, store.db, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)", NULL));
    assert_int_equal(rows_in_table(), 0);
}

static const char kept_sql[] = "SELECT n FROM t WHERE n >= $1::integer ORDER BY n";

static int64_t first_kept(const char *least)
{
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run_kept(&store.sc, store.db, kept_sql, &rows, least));
    return PQntuples(rows) ? db_int(rows, 0, "n", -1) : -1;
}

static int64_t prepared_here(void)
{
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, store.db, "SELECT count(*) AS n FROM pg_prepared_statements", &rows));
    return db_int(rows, 0, "n", -1);
}

static void a_kept_statement_is_prepared_once_and_survives_its_loss(void **state)
{
    (void)state;
    store_sql("INSERT INTO t VALUES (3), (5)");
    db_disconnect(store.db);
    assert_int_equal(first_kept("1"), 3);
    assert_int_equal(first_kept("4"), 5);
    assert_int_equal(prepared_here(), 1);
    assert_ok(db_run(&store.sc, store.db, "DEALLOCATE ALL", NULL)); /* as a pooler that gives us another session */
    assert_int_equal(first_kept("4"), 5);
    assert_int_equal(first_kept("6"), -1);
    db_disconnect(store.db);
    assert_int_equal(first_kept("1"), 3);
    assert_ok(db_begin(&store.sc, store.db));
    assert_int_equal(first_kept("1"), 3);
    assert_ok(db_commit(&store.sc, store.db));
}

static enum status run_pair(const char *first, const char *second, PGresult **out)
{
    return db_query_pair(&store.sc, store.db, &(struct db_statement){.sql = first},
                         &(struct db_statement){.sql = second}, out);
}

static void a_pair_is_one_transaction_and_a_failed_one_leaves_nothing(void **state)
{
    (void)state;
    scoped(PGresult) *rows = NULL, *after = NULL;
    assert_ok(run_pair("SELECT set_config('work_mem', '7MB', true)", "SELECT current_setting('work_mem') AS v", &rows));
    assert_string_equal(db_text(rows, 0, "v"), "7MB");
    assert_ok(db_run(&store.sc, store.db, "SELECT current_setting('work_mem') AS v", &after));
    assert_string_not_equal(db_text(after, 0, "v"), "7MB");
    scoped(PGresult) *none = NULL;
    assert_status(STATUS_INVALID, run_pair("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (100)", &none));
    assert_status(STATUS_NOT_FOUND, run_pair("SELECT * FROM nowhere", "INSERT INTO t VALUES (2)", &none));
    assert_null(none);
    assert_int_equal(rows_in_table(), 0);
    scoped(PGresult) *again = NULL;
    assert_ok(db_run(&store.sc, store.db, "SELECT 1 AS n", &again)); /* the connection is as good as before */
}

#define test(name) cmocka_unit_test_setup(name, make_table)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(cells_are_read_by_name_and_null_has_a_fallback),
        test(a_connection_that_broke_while_idle_is_replaced_unnoticed),
        test(a_connection_that_broke_in_a_transaction_is_not_replaced_before_its_end),
        test(failures_are_told_apart),
        test(a_commit_of_a_failed_transaction_tells_what_failed),
        test(a_rollback_is_safe_anywhere),
        test(a_statement_that_takes_too_long_is_stopped_by_the_server),
        test(a_session_that_sits_in_a_transaction_is_ended_by_the_server),
        test(the_scopes_deadline_ends_the_waiting),
        test(a_server_that_is_not_there_is_unavailable),
        test(a_copy_is_all_or_nothing),
        test(a_script_is_all_or_nothing),
        test(a_kept_statement_is_prepared_once_and_survives_its_loss),
        test(a_pair_is_one_transaction_and_a_failed_one_leaves_nothing),
        test(a_plain_statement_takes_no_second_one),
    };
    return cmocka_run_group_tests(tests, store_setup_empty, store_teardown);
}
