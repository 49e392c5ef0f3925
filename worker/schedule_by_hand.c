#include "build/queries.h"
#include "common/json.h"
#include "common/log.h"
#include "common/store/schedule_store.h"
#include "sql/migrate.h"
#include "worker/listing.h"
#include "worker/operator.h"
#include "worker/scheduled_run.h"
#include "worker/scheduler.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STATEMENT_MS = 10000, LOOK_MS = 100, LOOKS_A_SIGN = 10 };

/* ---- what is scheduled ---- */

static const struct scheduled_row *known_row(const PGresult *rows, int row)
{
    const char *name = db_text(rows, row, "name");
    return name ? schedule_find(name) : NULL;
}

static void put_json(struct text *t, const PGresult *rows)
{
    json_open(t, NULL, '{');
    json_text(t, "holder", PQntuples(rows) ? db_text(rows, 0, "holder") : NULL);
    json_open(t, "tasks", '[');
    for (int r = 0; r < PQntuples(rows); r++) {
        const struct scheduled_row *row = known_row(rows, r);
        json_open(t, NULL, '{');
        json_text(t, "name", db_text(rows, r, "name"));
        json_text(t, "summary", row ? row->summary : NULL);
        json_text(t, "expression", db_text(rows, r, "expression"));
        json_text(t, "next_due_at", db_text(rows, r, "next_due_at"));
        json_text(t, "last_started_at", db_text(rows, r, "started_at"));
        json_text(t, "last_status", db_text(rows, r, "status"));
        json_real(t, "last_seconds", db_real(rows, r, "duration", 0));
        json_text(t, "last_error", db_text(rows, r, "error"));
        json_raw(t, "last_result", db_text(rows, r, "result"));
        json_close(t, '}');
    }
    json_close(t, ']');
    json_close(t, '}');
    text_putc(t, '\n');
}

static const char *last_of(struct scope *sc, const PGresult *rows, int row)
{
    const char *status = db_text(rows, row, "status");
    if (!status)
        return "never";
    const char *age = listing_age(&sc->arena, -db_real(rows, row, "started_seconds", 0));
    const char *error = db_text(rows, row, "error");
    if (error)
        return arena_printf(&sc->arena, "%s %s ago: %s", status, age, error);
    return arena_printf(&sc->arena, "%s %s ago, took %s", status, age,
                        listing_age(&sc->arena, db_real(rows, row, "duration", 0)));
}

static const char *next_of(struct scope *sc, const PGresult *rows, int row)
{
    double seconds = db_real(rows, row, "next_seconds", 0);
    return seconds <= 0 ? "now" : arena_printf(&sc->arena, "in %s", listing_age(&sc->arena, seconds));
}

static void put_table(struct scope *sc, struct text *t, const PGresult *rows)
{
    static const struct listing_column columns[] = {{"TASK", false, 0, false},
                                                    {"EXPRESSION (UTC)", false, 12, false},
                                                    {"LAST RUN", false, 20, false},
                                                    {"NEXT", false, 0, false},
                                                    {"WHAT IT DOES", false, 16, false}};
    struct listing list = listing_new(&sc->arena, columns, array_len(columns));
    for (int r = 0; r < PQntuples(rows); r++) {
        const struct scheduled_row *row = known_row(rows, r);
        const char *cells[] = {db_text(rows, r, "name"), db_text(rows, r, "expression"), last_of(sc, rows, r),
                               next_of(sc, rows, r), row ? row->summary : "not known to this version"};
        listing_add(&list, cells);
    }
    listing_print(t, &list);
    listing_done(&list);
    const char *holder = PQntuples(rows) ? db_text(rows, 0, "holder") : NULL;
    if (PQntuples(rows) == 0)
        text_puts(t, "nothing is scheduled yet: no worker has run since the database was made\n");
    else if (holder)
        listing_line(t, &sc->arena, arena_printf(&sc->arena, "run by worker %s", holder));
    else
        text_puts(t, "no worker runs it at the moment: nothing of it is done until one is started\n");
}

static enum status list(struct scope *sc, struct db *db, bool is_json, struct text *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = migrate_check(sc, db);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_SCHEDULE_LIST, &rows);
    if (s != STATUS_OK)
        return s;
    if (is_json)
        put_json(out, rows);
    else
        put_table(sc, out, rows);
    return STATUS_OK;
}

static struct db *connect(const struct settings *settings, const char *name)
{
    return db_new(&(struct db_options){
        .url = settings->database_url, .application_name = name, .statement_timeout_ms = STATEMENT_MS});
}

int operator_schedule(const struct settings *settings, bool is_json)
{
    struct scope sc;
    scoped_text out = {0};
    scope_init(&sc, NULL);
    struct db *db = connect(settings, "opstream-worker schedule");
    enum status s = list(&sc, db, is_json, &out);
    if (s == STATUS_OK)
        fwrite(out.data, 1, out.len, stdout);
    else
        fprintf(stderr, "opstream-worker: the schedule cannot be read: %s\n", sc.problem_text);
    db_free(db);
    scope_done(&sc);
    return s == STATUS_OK && fflush(stdout) == 0 ? 0 : 1;
}

/* ---- one of it now ---- */

static const char *names(struct scope *sc)
{
    scoped_text t = {0};
    size_t count;
    const struct scheduled_row *rows = schedule_rows(&count);
    for (size_t i = 0; i < count; i++)
        text_printf(&t, "\n  %-20s %s", rows[i].name, rows[i].summary);
    return arena_strdup(&sc->arena, text_str(&t));
}

/* Signals are waited for here and nowhere else. */
static void take_signals(sigset_t *out)
{
    sigemptyset(out);
    sigaddset(out, SIGINT);
    sigaddset(out, SIGTERM);
    pthread_sigmask(SIG_BLOCK, out, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void extend(struct db *db, int64_t task_id, double lease_seconds)
{
    struct scope sc;
    scope_init(&sc, NULL);
    if (schedule_store_extend(&sc, db, &task_id, 1, lease_seconds) != STATUS_OK)
        log_warning("scheduled_run_not_extended", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static enum status wait_for(const struct settings *settings, struct db *db, struct scheduled_run *run,
                            const sigset_t *signals, char **out_result)
{
    const struct timespec a_look = {.tv_nsec = LOOK_MS * 1000000L};
    for (int looks = 1; !scheduled_run_is_over(run); looks++) {
        if (sigtimedwait(signals, NULL, &a_look) > 0)
            scheduled_run_stop(run);
        if (looks % LOOKS_A_SIGN == 0)
            extend(db, scheduled_run_task_id(run), scheduler_lease_seconds(settings));
    }
    return scheduled_run_join(run, out_result);
}

static enum status run_now(struct scope *sc, const struct settings *settings, struct db *db, const char *name)
{
    const struct scheduled_row *row = schedule_find(name);
    char host[48] = "";
    int64_t task_id;
    sigset_t signals;
    if (!row)
        return fail(sc, STATUS_NOT_FOUND, "`%s` is not scheduled; there is:%s", name, names(sc));
    enum status s = migrate_check(sc, db);
    gethostname(host, sizeof host - 1);
    take_signals(&signals);
    if (s == STATUS_OK)
        s = schedule_store_by_hand(sc, db, name, arena_printf(&sc->arena, "by hand, %s %d", host, (int)getpid()),
                                   scheduler_lease_seconds(settings), &task_id);
    if (s != STATUS_OK)
        return s;
    struct scheduled_run *run = scheduled_run_start(settings, row, task_id, "opstream-worker scheduled");
    if (!run)
        return fail(sc, STATUS_NO_SPACE, "no thread can be made");
    scoped_memory char *result = NULL;
    s = wait_for(settings, db, run, &signals, &result);
    if (s != STATUS_OK)
        return fail(sc, s, "%s", result ? result : status_text(s));
    printf("%s\n", result);
    return STATUS_OK;
}

int operator_run_scheduled(const struct settings *settings, const char *name)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct db *db = connect(settings, "opstream-worker scheduled");
    enum status s = run_now(&sc, settings, db, name);
    if (s != STATUS_OK)
        fprintf(stderr, "opstream-worker: %s\n", sc.problem_text);
    db_free(db);
    scope_done(&sc);
    return s == STATUS_OK && fflush(stdout) == 0 ? 0 : 1;
}
