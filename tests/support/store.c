#include "tests/support/store.h"

#include "build/queries.h"
#include "sql/migrate.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct store_fixture store;

static char database_name[64];
static const char all_types[] =
    "{index,append,reindex,remove_source,delete,retry_documents,sync,noop,benchmark,projection_build}";

static const char *needed(const char *name)
{
    const char *value = getenv(name);
    if (!value || !*value)
        fail_msg("%s is not set: scripts/with-services.sh runs a command with private servers", name);
    return value;
}

/* The URL's parts as key='value' pairs, with another database. */
static const char *url_with_database(const char *url, const char *database)
{
    scoped_text out = {0};
    PQconninfoOption *all = PQconninfoParse(url, NULL);
    for (PQconninfoOption *o = all; o && o->keyword; o++) {
        if (!o->val || !*o->val || strcmp(o->keyword, "dbname") == 0)
            continue;
        text_printf(&out, "%s='", o->keyword);
        for (const char *p = o->val; *p; p++)
            text_printf(&out, "%s%c", *p == '\'' || *p == '\\' ? "\\" : "", *p);
        text_puts(&out, "' ");
    }
    PQconninfoFree(all);
    text_printf(&out, "dbname='%s'", database);
    return arena_strdup(&store.sc.arena, out.data);
}

void store_assert_status(enum status expected, enum status actual, const char *call, const char *file, int line)
{
    const char *why = store.sc.problem_text ? store.sc.problem_text : "";
    if (actual != expected) {
        print_error("%s is %s, not %s: %s\n", call, status_name(actual), status_name(expected), why);
        _fail(file, line);
    }
    scope_forgive(&store.sc);
}

static void on_server(const char *format)
{
    const struct db_options options = {.url = needed("DATABASE_URL"), .application_name = "test setup"};
    struct db *db = db_new(&options);
    assert_ok(db_run(&store.sc, db, arena_printf(&store.sc.arena, "%s %s", format, database_name), NULL));
    db_free(db);
}

struct db *store_connect(const char *application_name)
{
    const struct db_options options = {.url = store.database_url, .application_name = application_name};
    return db_new(&options);
}

struct redis *store_connect_redis(int database)
{
    const struct redis_options options = {
        .url = needed("REDIS_URL"), .database = database, .prefix = "test:", .timeout_ms = 5000};
    return redis_new(&options);
}

int store_setup_empty(void **state)
{
    (void)state;
    scope_init(&store.sc, NULL);
    snprintf(database_name, sizeof database_name, "opstream_test_%d", (int)getpid());
    on_server("CREATE DATABASE");
    store.database_url = url_with_database(needed("DATABASE_URL"), database_name);
    store.db = store_connect("test");
    store.events = store_connect_redis(STORE_EVENTS_DB);
    store.queue = store_connect_redis(STORE_QUEUE_DB);
    assert_ok(redis_run(&store.sc, store.events, NULL, "FLUSHDB"));
    assert_ok(redis_run(&store.sc, store.queue, NULL, "FLUSHDB"));
    return 0;
}

int store_setup(void **state)
{
    store_setup_empty(state);
    assert_ok(migrate_run(&store.sc, store.db, NULL));
    return 0;
}

int store_teardown(void **state)
{
    (void)state;
    db_free(store.db);
    redis_free(store.events);
    redis_free(store.queue);
    scope_forgive(&store.sc);
    on_server("DROP DATABASE");
    scope_done(&store.sc);
    return 0;
}

static printf_like(1, 0) const char *first_cell(const char *format, va_list args)
{
    scoped(PGresult) *rows = NULL;
    const char *sql = arena_vprintf(&store.sc.arena, format, args);
    enum status s = db_run(&store.sc, store.db, sql, &rows);
    if (s != STATUS_OK)
        fail_msg("%s: %s", sql, store.sc.problem_text);
    if (PQntuples(rows) == 0 || PQnfields(rows) == 0 || PQgetisnull(rows, 0, 0))
        return NULL;
    return arena_strdup(&store.sc.arena, PQgetvalue(rows, 0, 0));
}

const char *store_sql(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *cell = first_cell(format, args);
    va_end(args);
    return cell;
}

int64_t store_sql_int(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *cell = first_cell(format, args);
    va_end(args);
    if (!cell)
        fail_msg("%s: no value", format);
    return strtoll(cell, NULL, 10);
}

static int next_number(void)
{
    static int number;
    return ++number;
}

int64_t store_user(void)
{
    int n = next_number();
    return store_sql_int("INSERT INTO users (username, email, password_hash) VALUES ('user%d', 'user%d@example.org', "
                         "'none') RETURNING id",
                         n, n);
}

int64_t store_collection(int64_t user_id)
{
    return store_sql_int(
        "INSERT INTO collections (name, owner_id, embedding_model) VALUES ('collection %d', %lld, 'all-MiniLM-L6-v2') "
        "RETURNING id",
        next_number(), (long long)user_id);
}

struct operation_ref store_operation(int64_t user_id, int64_t collection_id, enum operation_type type)
{
    const struct operation_new wanted = {.collection_id = collection_id,
                                         .user_id = user_id,
                                         .type = type,
                                         .config_json = "{\"test\":true}",
                                         .default_retries = 3};
    struct operation_ref out = {.user_id = 0};
    assert_ok(operation_store_insert(&store.sc, store.db, &wanted, &out));
    return out;
}

const char *store_worker(double lease_seconds)
{
    char id[37];
    uuid_make(id);
    const char *lease = arena_printf(&store.sc.arena, "%f", lease_seconds);
    assert_ok(db_run(&store.sc, store.db, SQL_WORKER_REGISTER, NULL, id, "host", "1", NULL, "{}", "{default}", "1",
                     "{cpu}", "test", lease));
    return arena_strdup(&store.sc.arena, id);
}

const char *store_claim(const char *uuid, const char *worker_id)
{
    char task[37];
    uuid_make(task);
    scoped(PGresult) *rows = NULL;
    assert_ok(db_run(&store.sc, store.db, SQL_OPERATION_CLAIM, &rows, uuid, task, worker_id, all_types));
    return PQntuples(rows) ? arena_strdup(&store.sc.arena, task) : NULL;
}
