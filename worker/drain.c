#include "build/queries.h"
#include "common/clock.h"
#include "common/message.h"
#include "sql/migrate.h"
#include "worker/operator.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STATEMENT_MS = 10000, REDIS_MS = 500, LOOK_MS = 250, PATIENCE_SECONDS = 60 };

struct drain {
    const struct settings *settings;
    const char *worker; /* NULL = all */
    struct db *db;
    PGresult *asked; /* their ids */
};

static enum status name_the_known(struct scope *sc, const struct drain *d)
{
    scoped(PGresult) *rows = NULL;
    scoped_text known = {0};
    enum status s = db_run(sc, d->db, SQL_STATUS_WORKERS, &rows);
    if (s != STATUS_OK)
        return s;
    for (int r = 0; r < PQntuples(rows); r++)
        text_printf(&known, "\n  %s%s", db_text(rows, r, "id"),
                    db_real(rows, r, "lease_seconds", 0) < 0 ? " (its lease lapsed)" : "");
    if (!known.len)
        return fail(sc, STATUS_NOT_FOUND, "no worker is running");
    if (!d->worker)
        return fail(sc, STATUS_NOT_FOUND, "no worker that could end is running; those that are known:%s", known.data);
    return fail(sc, STATUS_NOT_FOUND, "no living worker is called `%s`; those that are known:%s", d->worker,
                known.data);
}

/* In the rows, which each worker reads with its next renewal; over the control channel they hear of it at once. */
static enum status ask(struct scope *sc, struct drain *d)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    enum status s = migrate_check(sc, d->db);
    if (s == STATUS_OK)
        s = db_run(sc, d->db, SQL_WORKER_DRAIN, &d->asked, d->worker, host);
    if (s == STATUS_OK && PQntuples(d->asked) == 0)
        return name_the_known(sc, d);
    if (s != STATUS_OK)
        return s;
    struct scope own;
    scope_init(&own, NULL);
    struct redis *events = redis_new(&(struct redis_options){.url = d->settings->redis_url,
                                                             .prefix = d->settings->redis_prefix,
                                                             .database = (int)d->settings->redis_stream_db,
                                                             .timeout_ms = REDIS_MS});
    if (message_control(&own, events, d->worker, "drain", NULL) != STATUS_OK)
        printf("Redis does not answer; they read it in PostgreSQL within a second or two\n");
    redis_free(events);
    scope_done(&own);
    for (int r = 0; r < PQntuples(d->asked); r++)
        printf("%s was asked to end\n", db_text(d->asked, r, "id"));
    fflush(stdout);
    return STATUS_OK;
}

/* ---- waiting ---- */

static int row_of(const PGresult *rows, const char *id)
{
    for (int r = 0; r < PQntuples(rows); r++) {
        if (strcmp(db_text(rows, r, "id"), id) == 0)
            return r;
    }
    return -1;
}

/* Prints what is news of one worker; true when it is gone. `told`: how many operations it had when that was printed
 * last, -1 = nothing was, -2 = it is gone. */
static bool report(const PGresult *rows, const char *id, int64_t *told)
{
    int r = row_of(rows, id);
    int64_t busy = r >= 0 ? db_int(rows, r, "busy", 0) : 0;
    if (*told == -2)
        return true;
    if (r < 0) {
        printf("%s has ended; nothing is left with it\n", id);
        *told = -2;
    } else if (db_bool(rows, r, "is_lapsed")) {
        printf("%s gives no sign of life any more; the next sweep gives its %lld operation%s back\n", id,
               (long long)busy, busy == 1 ? "" : "s");
        *told = -2;
    } else if (busy != *told) {
        printf("%s works on %lld operation%s\n", id, (long long)busy, busy == 1 ? "" : "s");
        *told = busy;
    }
    fflush(stdout);
    return *told == -2;
}

static const char *ids_of(struct scope *sc, const PGresult *asked)
{
    scoped_text t = {0};
    for (int r = 0; r < PQntuples(asked); r++)
        text_printf(&t, "%c\"%s\"", r ? ',' : '{', db_text(asked, r, "id"));
    text_putc(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status wait_for_end(struct scope *sc, const struct drain *d)
{
    int count = PQntuples(d->asked);
    int64_t *told = arena_array(&sc->arena, (size_t)count, sizeof *told);
    const char *ids = ids_of(sc, d->asked);
    int64_t seconds = d->settings->drain_seconds + PATIENCE_SECONDS;
    int64_t until_ms = clock_monotonic_ms() + seconds * 1000;
    for (int r = 0; r < count; r++)
        told[r] = -1;
    for (int left = count; left > 0;) {
        struct scope own;
        scoped(PGresult) *rows = NULL;
        scope_init(&own, NULL);
        enum status s = db_run(&own, d->db, SQL_WORKERS_LEAVING, &rows, ids);
        left = s == STATUS_OK ? 0 : count;
        for (int r = 0; s == STATUS_OK && r < count; r++)
            left += !report(rows, db_text(d->asked, r, "id"), &told[r]);
        scope_done(&own);
        if (left > 0 && clock_monotonic_ms() > until_ms)
            return fail(sc, STATUS_TIMEOUT, "%d of them still run after %lld s; --status shows what they do", left,
                        (long long)seconds);
        if (left > 0)
            poll(NULL, 0, LOOK_MS);
    }
    return STATUS_OK;
}

int operator_drain(const struct settings *settings, const char *worker, bool is_not_awaited)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct drain d = {.settings = settings, .worker = strcmp(worker, "all") == 0 ? NULL : worker};
    d.db = db_new(&(struct db_options){.url = settings->database_url,
                                       .application_name = "opstream-worker drain",
                                       .statement_timeout_ms = STATEMENT_MS});
    enum status s = ask(&sc, &d);
    if (s == STATUS_OK && !is_not_awaited)
        s = wait_for_end(&sc, &d);
    if (s != STATUS_OK)
        fprintf(stderr, "opstream-worker: %s\n", sc.problem_text);
    PQclear(d.asked);
    db_free(d.db);
    scope_done(&sc);
    return s == STATUS_OK && fflush(stdout) == 0 ? 0 : 1;
}
