#include "common/db.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
    DEFAULT_CONNECT_SECONDS = 2,
    WAIT_STEP_MS = 100,
    ANSWER_GRACE_MS = 2000, /* after statement_timeout: the server itself must have given up by then */
    COPY_PIECE_BYTES = 1 << 16,
    MOST_KEPT = 64, /* prepared statements of a connection */
};

struct db {
    char *url;
    char *application_name;
    int statement_timeout_ms;
    int connect_timeout_seconds;
    bool (*should_stop)(void *context); /* asked while an answer is waited for */
    bool is_waiting;                    /* it is being asked */
    void *context;
    PGconn *conn;
    bool in_transaction;      /* db_begin was called: a broken connection must not be replaced unnoticed */
    bool should_reconnect;    /* the server told us that it is no longer the one to talk to */
    enum status last_failure; /* of the running transaction, for a COMMIT that comes in spite of it */
    char sqlstate[6];
    char constraint[64];
    struct kept {
        const char *sql;
        char name[24];
    } kept[MOST_KEPT]; /* the connection's prepared statements */
    int kept_count;
    bool wants_binary;  /* of the next answer */
    bool keeps_nothing; /* prepared statements get lost on the way to the server */
};

static const struct {
    const char *prefix;
    enum status status;
} sqlstates[] = {
    {"OPF01", STATUS_LOST},        {"OPT01", STATUS_INVALID},
    {"57014", STATUS_TIMEOUT},     /* query_canceled: statement_timeout */
    {"23505", STATUS_CONFLICT},    /* unique_violation */
    {"23P01", STATUS_CONFLICT},    /* exclusion_violation */
    {"42P01", STATUS_NOT_FOUND},   /* undefined_table */
    {"23", STATUS_INVALID},        /* checks, foreign keys, not null */
    {"22", STATUS_INVALID},        /* data exceptions */
    {"08", STATUS_UNAVAILABLE},    /* connection */
    {"57P", STATUS_UNAVAILABLE},   /* shutdown, starting up, terminated */
    {"53", STATUS_UNAVAILABLE},    /* connection limit, disk full, memory */
    {"40", STATUS_UNAVAILABLE},    /* serialization, deadlock */
    {"55P03", STATUS_UNAVAILABLE}, /* lock_not_available */
    {"55006", STATUS_UNAVAILABLE}, /* object_in_use */
    {"25006", STATUS_UNAVAILABLE}, /* read-only: a server that was demoted */
    {"25P03", STATUS_UNAVAILABLE}, /* idle in transaction too long */
    {"58", STATUS_UNAVAILABLE},    /* input and output of the server's system */
};

static enum status status_of_sqlstate(const char *sqlstate)
{
    for (size_t i = 0; i < array_len(sqlstates); i++) {
        if (strncmp(sqlstate, sqlstates[i].prefix, strlen(sqlstates[i].prefix)) == 0)
            return sqlstates[i].status;
    }
    return STATUS_INTERNAL;
}

struct db *db_new(const struct db_options *options)
{
    struct db *db = must_calloc(1, sizeof *db);
    db->url = must_strdup(options->url);
    db->application_name = must_strdup(options->application_name ? options->application_name : "opstream");
    db->statement_timeout_ms = options->statement_timeout_ms;
    db->connect_timeout_seconds = options->connect_timeout_seconds ? options->connect_timeout_seconds
                                                                   : DEFAULT_CONNECT_SECONDS;
    return db;
}

void db_rename(struct db *db, const char *application_name)
{
    free(db->application_name);
    db->application_name = must_strdup(application_name);
}

bool db_is_busy(const struct db *db)
{
    return db->in_transaction || db->is_waiting;
}

static bool has_to_give_up(struct db *db)
{
    if (!db->should_stop)
        return false;
    db->is_waiting = true;
    bool stop = db->should_stop(db->context);
    db->is_waiting = false;
    return stop;
}

void db_on_wait(struct db *db, bool (*should_stop)(void *context), void *context)
{
    db->should_stop = should_stop;
    db->context = context;
}

void db_disconnect(struct db *db)
{
    if (db->conn)
        PQfinish(db->conn);
    db->conn = NULL;
    db->kept_count = 0;
    db->should_reconnect = false;
}

void db_free(struct db *db)
{
    if (!db)
        return;
    db_disconnect(db);
    free(db->url);
    free(db->application_name);
    free(db);
}

/* libpq ends its messages with a line feed. */
static const char *trimmed(struct scope *sc, const char *message)
{
    size_t len = strlen(message);
    while (len && (message[len - 1] == '\n' || message[len - 1] == ' '))
        len--;
    return arena_strndup(&sc->arena, message, len);
}

static void note_notice(void *unused, const char *message)
{
    (void)unused;
    log_debug("db_notice", log_text("message", message));
}

/* The `options` that the URL itself holds, so that ours are added to them. NULL when it is no URL. */
static const char *options_of_url(struct scope *sc, const char *url)
{
    PQconninfoOption *all = PQconninfoParse(url, NULL);
    const char *found = all ? "" : NULL;
    for (PQconninfoOption *o = all; o && o->keyword; o++) {
        if (o->val && strcmp(o->keyword, "options") == 0)
            found = arena_printf(&sc->arena, "%s ", o->val);
    }
    PQconninfoFree(all);
    return found;
}

static enum status open_connection(struct scope *sc, struct db *db)
{
    char connect_timeout[16];
    snprintf(connect_timeout, sizeof connect_timeout, "%d", db->connect_timeout_seconds);
    const char *url_options = options_of_url(sc, db->url);
    if (!url_options) /* libpq's own complaint repeats parts of it, passwords among them */
        return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL cannot be reached: DATABASE_URL is malformed");
    /* A client that was frozen, or whose machine is gone, must not keep its row locks: the server ends its session. */
    const char *server_options = arena_printf(
        &sc->arena,
        "%s-c statement_timeout=%d -c client_connection_check_interval=2s -c idle_in_transaction_session_timeout=30s "
        "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c TimeZone=UTC",
        url_options, db->statement_timeout_ms);
    /* What comes before dbname are defaults that the URL may override, what comes after it stands. */
    const char *const settings[][2] = {
        {"connect_timeout", connect_timeout},
        {"keepalives", "1"},
        {"keepalives_idle", "5"},
        {"keepalives_interval", "2"},
        {"keepalives_count", "3"},
        {"tcp_user_timeout", "10000"},
        {"dbname", db->url},
        {"client_encoding", "UTF8"},
        {"application_name", db->application_name},
        {"options", server_options},
    };
    const char *keywords[array_len(settings) + 1] = {NULL};
    const char *values[array_len(settings) + 1] = {NULL};
    for (size_t i = 0; i < array_len(settings); i++) {
        keywords[i] = settings[i][0];
        values[i] = settings[i][1];
    }
    db_disconnect(db);
    db->conn = PQconnectdbParams(keywords, values, 1);
    if (!db->conn)
        return fail(sc, STATUS_NO_SPACE, "PostgreSQL: no memory for a connection");
    if (PQstatus(db->conn) != CONNECTION_OK) {
        const char *reason = trimmed(sc, PQerrorMessage(db->conn));
        db_disconnect(db);
        return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL cannot be reached: %s", reason);
    }
    PQsetNoticeProcessor(db->conn, note_notice, NULL);
    return STATUS_OK;
}

/* An idle connection that the server (or something in between) closed has its end waiting to be read: better seen now
 * than after the statement was sent, when nobody can tell whether it ran. */
static bool is_alive(struct db *db)
{
    if (!db->conn || PQstatus(db->conn) != CONNECTION_OK || db->should_reconnect)
        return false;
    for (int i = 0; i < 4; i++) {
        struct pollfd p = {.fd = PQsocket(db->conn), .events = POLLIN};
        if (poll(&p, 1, 0) <= 0)
            break;
        if (!PQconsumeInput(db->conn) || PQstatus(db->conn) != CONNECTION_OK)
            return false;
        (void)PQisBusy(db->conn); /* takes notices out of the buffer */
    }
    return true;
}

static enum status prepare_connection(struct scope *sc, struct db *db)
{
    if (!db->in_transaction)
        return is_alive(db) ? STATUS_OK : open_connection(sc, db);
    if (!db->conn || PQstatus(db->conn) != CONNECTION_OK)
        return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL: the connection broke during the transaction");
    return STATUS_OK;
}

enum status db_connection(struct scope *sc, struct db *db, PGconn **out)
{
    enum status s = prepare_connection(sc, db);
    if (s == STATUS_OK)
        *out = db->conn;
    return s;
}

static void note_failure(struct db *db, const PGresult *rows)
{
    const char *state = rows ? PQresultErrorField(rows, PG_DIAG_SQLSTATE) : NULL;
    const char *constraint = rows ? PQresultErrorField(rows, PG_DIAG_CONSTRAINT_NAME) : NULL;
    snprintf(db->sqlstate, sizeof db->sqlstate, "%s", state ? state : "");
    snprintf(db->constraint, sizeof db->constraint, "%s", constraint ? constraint : "");
}

/* Sentences of statuses below 500 may reach a client, so names of constraints and columns stay out of them. */
static enum status failure(struct scope *sc, struct db *db, const PGresult *rows)
{
    note_failure(db, rows);
    const char *primary = rows ? PQresultErrorField(rows, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    if (!primary)
        primary = trimmed(sc, PQerrorMessage(db->conn));
    bool is_broken = PQstatus(db->conn) != CONNECTION_OK;
    enum status s = db->sqlstate[0] ? status_of_sqlstate(db->sqlstate)
                    : is_broken     ? STATUS_UNAVAILABLE
                                    : STATUS_INTERNAL;
    if (strcmp(db->sqlstate, "25P02") == 0 && db->last_failure != STATUS_OK)
        s = db->last_failure; /* "current transaction is aborted" tells nothing; what aborted it does */
    log_debug("db_failure", log_text("sqlstate", db->sqlstate), log_text("constraint", db->constraint),
              log_text("message", primary));
    if (db->in_transaction && db->last_failure == STATUS_OK)
        db->last_failure = s;
    if (strcmp(db->sqlstate, "25006") == 0 || strncmp(db->sqlstate, "57P", 3) == 0)
        db->should_reconnect = true;
    if (s == STATUS_CONFLICT)
        return fail(sc, s, "this exists already");
    if (s == STATUS_INVALID && strcmp(db->sqlstate, "OPT01") != 0)
        return fail(sc, s, "a value is not one of those allowed here");
    if (s == STATUS_NOT_FOUND)
        return fail(sc, s, "Not Found");
    return fail(sc, s, "PostgreSQL%s%s: %s", db->sqlstate[0] ? " " : "", db->sqlstate, primary);
}

/* When the caller stops waiting, on clock_monotonic_ms(); 0 = never. */
static int64_t give_up_at(const struct scope *sc, const struct db *db, int64_t now)
{
    int64_t at = db->statement_timeout_ms ? now + db->statement_timeout_ms + ANSWER_GRACE_MS : 0;
    if (sc->deadline_ms && (!at || sc->deadline_ms < at))
        at = sc->deadline_ms;
    return at;
}

/* Until PQgetResult would not block. A connection that is left in the middle of an answer is of no more use: it is
 * closed, and the server, which looks for us every two seconds, stops what it was doing. */
static enum status await_result(struct scope *sc, struct db *db, int64_t until)
{
    while (PQisBusy(db->conn)) {
        int64_t left = until ? until - clock_monotonic_ms() : -1;
        if (until && left <= 0) {
            db_disconnect(db);
            return fail(sc, STATUS_TIMEOUT, "PostgreSQL took too long to answer");
        }
        if (has_to_give_up(db)) {
            db_disconnect(db);
            return fail(sc, STATUS_CANCELLED, "told to stop while PostgreSQL was at work");
        }
        if (db->should_stop && (!until || left > WAIT_STEP_MS))
            left = WAIT_STEP_MS;
        struct pollfd p = {.fd = PQsocket(db->conn), .events = POLLIN};
        int ready = poll(&p, 1, left > INT32_MAX ? INT32_MAX : (int)left);
        if (ready < 0 && errno != EINTR)
            return fail(sc, STATUS_INTERNAL, "poll: %s", strerror(errno));
        if (ready > 0 && !PQconsumeInput(db->conn))
            return STATUS_OK; /* PQgetResult tells what is wrong */
    }
    return STATUS_OK;
}

/* Reads all results of one statement; the first failed one counts, else the last. */
static enum status read_results(struct scope *sc, struct db *db, int64_t until, PGresult **out)
{
    scoped(PGresult) *kept = NULL;
    bool has_failed = false;
    for (;;) {
        enum status s = await_result(sc, db, until);
        if (s != STATUS_OK)
            return s;
        PGresult *next = PQgetResult(db->conn);
        if (!next)
            break;
        if (has_failed) {
            PQclear(next);
            continue;
        }
        PQclear(kept);
        kept = next;
        ExecStatusType kind = PQresultStatus(next);
        has_failed = kind != PGRES_TUPLES_OK && kind != PGRES_COMMAND_OK;
        if (kind == PGRES_COPY_IN || kind == PGRES_COPY_OUT || kind == PGRES_COPY_BOTH) {
            db_disconnect(db);
            return fail(sc, STATUS_INTERNAL, "PostgreSQL: a COPY where a statement was expected");
        }
    }
    if (!kept || has_failed)
        return failure(sc, db, kept);
    *out = kept;
    kept = NULL;
    return STATUS_OK;
}

/* Without parameters to give (`count` < 0) the text may hold several statements. */
static bool is_sent(struct db *db, const char *sql, int count, const char *const *params)
{
    if (count < 0)
        return PQsendQuery(db->conn, sql);
    return PQsendQueryParams(db->conn, sql, count, NULL, params, NULL, NULL, db->wants_binary);
}

/* Sends; when nothing can have reached the server and no transaction depends on the connection, once more over a new
 * one. */
static enum status send_statement(struct scope *sc, struct db *db, const char *sql, int count,
                                  const char *const *params)
{
    db->sqlstate[0] = '\0';
    db->constraint[0] = '\0';
    if (sc->deadline_ms && clock_monotonic_ms() >= sc->deadline_ms)
        return fail(sc, STATUS_TIMEOUT, "no time left to ask PostgreSQL");
    enum status s = prepare_connection(sc, db);
    if (s != STATUS_OK)
        return s;
    if (is_sent(db, sql, count, params))
        return STATUS_OK;
    if (db->in_transaction || PQstatus(db->conn) == CONNECTION_OK)
        return failure(sc, db, NULL);
    s = open_connection(sc, db);
    if (s != STATUS_OK)
        return s;
    return is_sent(db, sql, count, params) ? STATUS_OK : failure(sc, db, NULL);
}

enum status db_query(struct scope *sc, struct db *db, const char *sql, int count, const char *const *params,
                     PGresult **out)
{
    enum status s = send_statement(sc, db, sql, count, params);
    if (s != STATUS_OK)
        return s;
    scoped(PGresult) *rows = NULL;
    s = read_results(sc, db, give_up_at(sc, db, clock_monotonic_ms()), &rows);
    if (s == STATUS_OK && out) {
        *out = rows;
        rows = NULL;
    }
    return s;
}

enum status db_query_binary(struct scope *sc, struct db *db, const char *sql, int count, const char *const *params,
                            PGresult **out)
{
    db->wants_binary = true;
    enum status s = db_query(sc, db, sql, count, params, out);
    db->wants_binary = false;
    return s;
}

/* The same name means the same text whoever prepared it, so that a pooler which mixes connections up cannot make us run
 * another statement. FNV-1a. */
static void name_kept(struct kept *out, const char *sql)
{
    uint64_t h = 14695981039346656037u;
    for (const char *p = sql; *p; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211u;
    out->sql = sql;
    snprintf(out->name, sizeof out->name, "k%016llx", (unsigned long long)h);
}

/* The name of a statement on this connection, preparing it first if need be; NULL = it cannot be kept. */
static const char *find_kept(struct scope *sc, struct db *db, const char *sql)
{
    for (int i = 0; i < db->kept_count; i++) {
        if (db->kept[i].sql == sql)
            return db->kept[i].name;
    }
    if (db->kept_count == MOST_KEPT)
        return NULL;
    struct kept *k = &db->kept[db->kept_count];
    name_kept(k, sql);
    if (!PQsendPrepare(db->conn, k->name, sql, 0, NULL))
        return NULL;
    scoped(PGresult) *rows = NULL;
    if (read_results(sc, db, give_up_at(sc, db, clock_monotonic_ms()), &rows) != STATUS_OK) {
        scope_forgive(sc); /* whatever is wrong, db_query finds it again */
        db->keeps_nothing = db->keeps_nothing || strcmp(db->sqlstate, "42P05") == 0;
        return NULL;
    }
    db->kept_count++;
    return k->name;
}

/* Refused before it ran: the statement is unknown, since a pooler gave us another connection, or a migration changed
 * its columns. */
static bool is_plan_lost(const struct db *db)
{
    return strcmp(db->sqlstate, "26000") == 0 || strcmp(db->sqlstate, "0A000") == 0;
}

enum status db_query_kept(struct scope *sc, struct db *db, const char *sql, int count, const char *const *params,
                          PGresult **out)
{
    if (db->in_transaction || db->keeps_nothing || (sc->deadline_ms && clock_monotonic_ms() >= sc->deadline_ms))
        return db_query(sc, db, sql, count, params, out);
    enum status s = prepare_connection(sc, db);
    if (s != STATUS_OK)
        return s;
    const char *name = find_kept(sc, db, sql);
    db->sqlstate[0] = '\0';
    db->constraint[0] = '\0';
    if (!name || !PQsendQueryPrepared(db->conn, name, count, params, NULL, NULL, 0))
        return db_query(sc, db, sql, count, params, out);
    scoped(PGresult) *rows = NULL;
    s = read_results(sc, db, give_up_at(sc, db, clock_monotonic_ms()), &rows);
    if (s != STATUS_OK && is_plan_lost(db)) {
        scope_forgive(sc);
        db->keeps_nothing = true;
        return db_query(sc, db, sql, count, params, out);
    }
    if (s == STATUS_OK && out) {
        *out = rows;
        rows = NULL;
    }
    return s;
}

void db_array_put(struct text *array, const char *item)
{
    text_putc(array, array->len ? ',' : '{');
    if (!item) {
        text_puts(array, "NULL");
        return;
    }
    text_putc(array, '"');
    for (const char *p = item; *p; p++) {
        if (*p == '"' || *p == '\\')
            text_putc(array, '\\');
        text_putc(array, *p);
    }
    text_putc(array, '"');
}

const char *db_array_end(struct text *array)
{
    text_puts(array, array->len ? "}" : "{}");
    return array->data;
}

static bool is_pair_sent(struct db *db, const struct db_statement *first, const struct db_statement *second)
{
    return PQenterPipelineMode(db->conn) &&
           PQsendQueryParams(db->conn, first->sql, first->count, NULL, first->params, NULL, NULL, 0) &&
           PQsendQueryParams(db->conn, second->sql, second->count, NULL, second->params, NULL, NULL, 0) &&
           PQpipelineSync(db->conn);
}

/* The results of a pipeline: those of each statement, NULL after each, then that of the sync, of which there is one. */
static enum status read_pair(struct scope *sc, struct db *db, int64_t until, PGresult **out)
{
    scoped(PGresult) *kept = NULL;
    bool has_failed = false;
    for (int ends = 0; ends < 2;) {
        enum status s = await_result(sc, db, until);
        if (s != STATUS_OK)
            return s;
        PGresult *next = PQgetResult(db->conn);
        if (!next && PQstatus(db->conn) != CONNECTION_OK)
            break;
        ends += !next;
        if (!next || has_failed) {
            PQclear(next);
            continue;
        }
        PQclear(kept);
        kept = next;
        ExecStatusType kind = PQresultStatus(next);
        has_failed = kind != PGRES_TUPLES_OK && kind != PGRES_COMMAND_OK;
    }
    if (!kept || has_failed || PQstatus(db->conn) != CONNECTION_OK)
        return failure(sc, db, kept);
    *out = kept;
    kept = NULL;
    return STATUS_OK;
}

static bool is_pipeline_left(struct scope *sc, struct db *db, int64_t until)
{
    if (!db->conn || await_result(sc, db, until) != STATUS_OK || !db->conn)
        return false;
    scoped(PGresult) *sync = PQgetResult(db->conn);
    return PQresultStatus(sync) == PGRES_PIPELINE_SYNC && PQexitPipelineMode(db->conn);
}

enum status db_query_pair(struct scope *sc, struct db *db, const struct db_statement *first,
                          const struct db_statement *second, PGresult **out)
{
    assert(!db->in_transaction);
    db->sqlstate[0] = '\0';
    db->constraint[0] = '\0';
    if (sc->deadline_ms && clock_monotonic_ms() >= sc->deadline_ms)
        return fail(sc, STATUS_TIMEOUT, "no time left to ask PostgreSQL");
    enum status s = prepare_connection(sc, db);
    if (s != STATUS_OK)
        return s;
    int64_t until = give_up_at(sc, db, clock_monotonic_ms());
    scoped(PGresult) *rows = NULL;
    s = is_pair_sent(db, first, second) ? read_pair(sc, db, until, &rows) : failure(sc, db, NULL);
    if (!is_pipeline_left(sc, db, until)) {
        db_disconnect(db);
        return s == STATUS_OK ? fail(sc, STATUS_UNAVAILABLE, "PostgreSQL: the connection broke") : s;
    }
    if (s == STATUS_OK) {
        *out = rows;
        rows = NULL;
    }
    return s;
}

enum status db_script(struct scope *sc, struct db *db, const char *sql)
{
    return db_query(sc, db, sql, -1, NULL, NULL);
}

static bool put_copy_data(PGconn *conn, const char *data, size_t len)
{
    for (size_t at = 0; at < len; at += COPY_PIECE_BYTES) {
        size_t piece = len - at < COPY_PIECE_BYTES ? len - at : COPY_PIECE_BYTES;
        if (PQputCopyData(conn, data + at, (int)piece) != 1)
            return false;
    }
    return PQputCopyEnd(conn, NULL) == 1;
}

enum status db_copy_in(struct scope *sc, struct db *db, const char *sql, const void *data, size_t len)
{
    enum status s = send_statement(sc, db, sql, 0, NULL);
    if (s != STATUS_OK)
        return s;
    s = await_result(sc, db, give_up_at(sc, db, clock_monotonic_ms()));
    if (s != STATUS_OK)
        return s;
    scoped(PGresult) *ready = PQgetResult(db->conn);
    if (PQresultStatus(ready) != PGRES_COPY_IN) {
        s = failure(sc, db, ready);
        for (PGresult *rest; (rest = PQgetResult(db->conn));)
            PQclear(rest);
        return s;
    }
    if (!put_copy_data(db->conn, data, len)) {
        s = failure(sc, db, NULL);
        db_disconnect(db);
        return s;
    }
    scoped(PGresult) *done = NULL;
    return read_results(sc, db, give_up_at(sc, db, clock_monotonic_ms()), &done);
}

enum status db_begin(struct scope *sc, struct db *db)
{
    assert(!db->in_transaction);
    enum status s = db_query(sc, db, "BEGIN", 0, NULL, NULL);
    db->in_transaction = s == STATUS_OK;
    db->last_failure = STATUS_OK;
    return s;
}

enum status db_commit(struct scope *sc, struct db *db)
{
    assert(db->in_transaction);
    scoped(PGresult) *rows = NULL;
    enum status s = db_query(sc, db, "COMMIT", 0, NULL, &rows);
    if (s == STATUS_OK && strcmp(PQcmdStatus(rows), "COMMIT") != 0) {
        /* PostgreSQL answers the COMMIT of an aborted transaction with a friendly ROLLBACK. */
        s = db->last_failure != STATUS_OK ? db->last_failure : STATUS_INTERNAL;
        s = fail(sc, s, "the transaction had failed before its COMMIT");
    } else if (s == STATUS_TIMEOUT && !db->conn) {
        s = STATUS_UNAVAILABLE; /* sent and not answered: it may have happened */
    } else if (s != STATUS_OK) {
        db_rollback(db);
    }
    db->in_transaction = false;
    return s;
}

void db_rollback(struct db *db)
{
    db->in_transaction = false;
    if (!db->conn)
        return;
    if (PQstatus(db->conn) != CONNECTION_OK || PQtransactionStatus(db->conn) == PQTRANS_IDLE)
        return;
    struct scope sc;
    scope_init(&sc, NULL);
    sc.deadline_ms = clock_monotonic_ms() + ANSWER_GRACE_MS;
    char sqlstate[sizeof db->sqlstate];
    char constraint[sizeof db->constraint];
    memcpy(sqlstate, db->sqlstate, sizeof sqlstate);
    memcpy(constraint, db->constraint, sizeof constraint);
    db->in_transaction = true; /* a new connection would have nothing to roll back */
    if (db_query(&sc, db, "ROLLBACK", 0, NULL, NULL) != STATUS_OK)
        db_disconnect(db);
    db->in_transaction = false;
    memcpy(db->sqlstate, sqlstate, sizeof sqlstate);
    memcpy(db->constraint, constraint, sizeof constraint);
    scope_done(&sc);
}

const char *db_text(const PGresult *rows, int row, const char *column)
{
    int at = PQfnumber(rows, column);
    assert(at >= 0 && row >= 0 && row < PQntuples(rows));
    return PQgetisnull(rows, row, at) ? NULL : PQgetvalue(rows, row, at);
}

int64_t db_int(const PGresult *rows, int row, const char *column, int64_t if_null)
{
    const char *value = db_text(rows, row, column);
    return value ? strtoll(value, NULL, 10) : if_null;
}

double db_real(const PGresult *rows, int row, const char *column, double if_null)
{
    const char *value = db_text(rows, row, column);
    return value ? strtod(value, NULL) : if_null;
}

bool db_bool(const PGresult *rows, int row, const char *column)
{
    const char *value = db_text(rows, row, column);
    return value && *value == 't';
}

const char *db_number(struct scope *sc, int64_t n)
{
    return arena_printf(&sc->arena, "%lld", (long long)n);
}

const char *db_sqlstate(const struct db *db)
{
    return db->sqlstate;
}

const char *db_constraint(const struct db *db)
{
    return db->constraint;
}
