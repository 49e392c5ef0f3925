/* PostgreSQL: one connection a struct, opened when needed and again after it broke. The one place that reads SQLSTATE.
 * Not for two threads at once. */
#pragma once

#include "common/scope.h"
#include "common/text.h"

#include <libpq-fe.h>

DEFINE_SCOPED(PGresult, PQclear)

struct db;

struct db_options {
    const char *url;
    const char *application_name; /* the task id of a child, else program and worker id */
    int statement_timeout_ms;     /* 0 = none */
    int connect_timeout_seconds;  /* 0 = 2 */
};

/* Copies what it needs; connects at the first query. */
struct db *db_new(const struct db_options *options);
void db_free(struct db *db);
/* The live connection for COPY and the like, connecting if needed. */
enum status db_connection(struct scope *sc, struct db *db, PGconn **out) must_check;
/* The application_name of later connections; a live one is renamed by whoever asks for it in SQL (set_config). */
void db_rename(struct db *db, const char *application_name);
/* Asked every 100 ms while an answer is waited for; true = give up with STATUS_CANCELLED. The connection is closed
 * then, and the server stops what it was doing within two seconds. NULL = nobody is asked. */
void db_on_wait(struct db *db, bool (*should_stop)(void *context), void *context);
/* In a transaction, or waiting for an answer (it is asked by what db_on_wait() set): nothing else may be asked now. */
bool db_is_busy(const struct db *db);
/* Closes the connection; the next query opens a new one. */
void db_disconnect(struct db *db);

/* Runs one statement with text parameters (NULL = SQL null) by the unnamed statement, so it is planned for these
 * values. Outside a transaction a connection found broken before the statement was sent is opened again once.
 *
 * STATUS_UNAVAILABLE: no connection, shutdown, connection limit, disk full, lock or serialization trouble;
 * STATUS_TIMEOUT: statement_timeout; STATUS_CONFLICT: unique violation; STATUS_LOST: the fence (SQLSTATE OPF01);
 * STATUS_INVALID: a check, a wrong parameter or a transition refused (SQLSTATE OPT01);
 * STATUS_NOT_FOUND: no such table (42P01: a generation that was dropped); STATUS_INTERNAL: anything else.
 * *out (may be NULL) is written only on success; caller: scoped(PGresult). */
enum status db_query(struct scope *sc, struct db *db, const char *sql, int count, const char *const *params,
                     PGresult **out) must_check;
/* db_query with its parameters listed: db_run(sc, db, SQL_X, &rows, id, name). All are const char *. */
#define db_run(sc, db, sql, out, ...)                                                                                  \
    db_query((sc), (db), (sql), (int)(sizeof((const char *[]){NULL __VA_OPT__(, ) __VA_ARGS__}) / sizeof(char *)) - 1, \
             &((const char *const[]){NULL __VA_OPT__(, ) __VA_ARGS__})[1], (out))

/* db_query whose cells come as PostgreSQL keeps them, in network order: for vectors and bytes. Read them by
 * PQgetvalue() and PQgetlength(). */
enum status db_query_binary(struct scope *sc, struct db *db, const char *sql, int count, const char *const *params,
                            PGresult **out) must_check;

/* db_query for a statement that runs often: prepared at its first use on a connection, so that it is not parsed (and,
 * once the server has found that the values do not matter, not planned) again. `sql` must be constant text: its address
 * names it. Within a transaction, and where a pooler in between does not keep prepared statements, it is db_query. */
enum status db_query_kept(struct scope *sc, struct db *db, const char *sql, int count, const char *const *params,
                          PGresult **out) must_check;
#define db_run_kept(sc, db, sql, out, ...)                                                                             \
    db_query_kept((sc), (db), (sql),                                                                                   \
                  (int)(sizeof((const char *[]){NULL __VA_OPT__(, ) __VA_ARGS__}) / sizeof(char *)) - 1,               \
                  &((const char *const[]){NULL __VA_OPT__(, ) __VA_ARGS__})[1], (out))

/* An array as a parameter: items are added to an empty text, NULL as SQL null; db_array_end() gives the whole. */
void db_array_put(struct text *array, const char *item);
const char *db_array_end(struct text *array);

/* Two statements in one transaction and one round trip: `first`, whose rows nobody reads (settings of the transaction),
 * then `sql`. Statuses as db_query; not within a transaction. */
struct db_statement {
    const char *sql;
    int count;
    const char *const *params;
};
enum status db_query_pair(struct scope *sc, struct db *db, const struct db_statement *first,
                          const struct db_statement *second, PGresult **out) must_check;

/* Runs statements without parameters, separated by semicolons (a migration). Outside a transaction they are one of
 * their own. Statuses as db_query. */
enum status db_script(struct scope *sc, struct db *db, const char *sql) must_check;

/* `sql` is a COPY … FROM STDIN; sends all of data[0..len). Statuses as db_query. */
enum status db_copy_in(struct scope *sc, struct db *db, const char *sql, const void *data, size_t len) must_check;

/* Transactions. A failed statement leaves the transaction aborted: db_rollback, which also is safe outside one.
 * A COMMIT whose answer got lost is STATUS_UNAVAILABLE: the caller must look at the row to learn what happened. */
enum status db_begin(struct scope *sc, struct db *db) must_check;
enum status db_commit(struct scope *sc, struct db *db) must_check;
void db_rollback(struct db *db);

/* Cells by column name; the column must exist (assert). NULL for SQL null. The pointers live as long as the rows. */
const char *db_text(const PGresult *rows, int row, const char *column);
int64_t db_int(const PGresult *rows, int row, const char *column, int64_t if_null);
double db_real(const PGresult *rows, int row, const char *column, double if_null);
bool db_bool(const PGresult *rows, int row, const char *column);
/* Number as a parameter, in the scope's arena. */
const char *db_number(struct scope *sc, int64_t n);
/* ISO 8601 UTC with microseconds is what all our statements return for times: to_iso() in SQL. */

/* The SQLSTATE of the last failed statement ("" if none), e.g. for the name of a constraint in db_constraint(). */
const char *db_sqlstate(const struct db *db);
const char *db_constraint(const struct db *db);
