/* For tests against a real PostgreSQL and Redis (scripts/with-services.sh): one fresh, migrated database a test
 * program, dropped at its end, and an emptied Redis. DATABASE_URL and REDIS_URL say where the servers are.
 *
 *     return cmocka_run_group_tests(tests, store_setup, store_teardown); */
#pragma once

#include "common/db.h"
#include "common/message.h"
#include "common/store/operation_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct store_fixture {
    struct scope sc;
    struct db *db;
    struct redis *events, *queue; /* their databases, under the prefix "test:" */
    const char *database_url;     /* of the fresh database */
};
extern struct store_fixture store;

int store_setup(void **state);
int store_teardown(void **state);
/* The database alone, without its schema. */
int store_setup_empty(void **state);

/* More connections; the caller frees them. */
struct db *store_connect(const char *application_name);
struct redis *store_connect_redis(int database);
enum { STORE_EVENTS_DB = 8, STORE_QUEUE_DB = 9 };

/* Fails the test, with the scope's sentence, unless the call ended so. The scope is clean afterwards. */
#define assert_status(expected, call) store_assert_status((expected), (call), #call, __FILE__, __LINE__)
#define assert_ok(call) assert_status(STATUS_OK, call)
void store_assert_status(enum status expected, enum status actual, const char *call, const char *file, int line);

/* Runs a statement (printf) that must work; the first cell of its first row in the fixture's arena, NULL when there is
 * none or it is null. */
const char *store_sql(const char *format, ...) printf_like(1, 2);
int64_t store_sql_int(const char *format, ...) printf_like(1, 2);

/* Rows to work with; names are made unique. */
int64_t store_user(void);
int64_t store_collection(int64_t user_id);
/* Accepted and committed. */
struct operation_ref store_operation(int64_t user_id, int64_t collection_id, enum operation_type type);
/* A worker with a lease of this many seconds (negative: lapsed). The id is in the fixture's arena. */
const char *store_worker(double lease_seconds);
/* Claims by the worker's statement; the new task id, or NULL when the statement claimed nothing. */
const char *store_claim(const char *uuid, const char *worker_id);
