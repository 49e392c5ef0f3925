/* Forgets what is older than RETENTION_DAYS: finished operations with their figures and streams, the audit log, tokens,
 * keys, runs. In pieces of their own transactions, which skip what somebody holds, so that nobody waits and vacuum
 * keeps up. */
#include "build/queries.h"
#include "common/fault.h"
#include "common/json.h"
#include "worker/schedule.h"
#include "worker/scheduled/streams.h"

#include <string.h>

enum { AT_A_TIME = 1000 };

static const struct {
    const char *name, *sql;
} kinds[] = {
    {"audit_rows", SQL_RETENTION_AUDIT},      {"refresh_tokens", SQL_RETENTION_TOKENS},
    {"idempotency_keys", SQL_RETENTION_KEYS}, {"system_tasks", SQL_RETENTION_TASKS},
    {"sync_runs", SQL_RETENTION_SYNC_RUNS},
};

static enum status may_go_on(struct scope *sc, const struct scheduled *s)
{
    return s->has_to_stop(s->stop_context) ? fail(sc, STATUS_CANCELLED, "told to stop") : STATUS_OK;
}

/* A piece with memory of its own. */
static enum status remove_piece(struct scope *sc, struct scheduled *s, const char *sql, int64_t *io_removed,
                                bool *out_is_last)
{
    struct scope own;
    scoped(PGresult) *rows = NULL;
    scope_init(&own, NULL);
    enum status status = db_run(&own, s->db, sql, &rows, db_number(&own, s->settings->retention_days),
                                db_number(&own, AT_A_TIME));
    if (status == STATUS_OK) {
        int64_t removed = db_int(rows, 0, "removed", 0);
        *io_removed += removed;
        *out_is_last = removed < AT_A_TIME;
    } else {
        status = fail(sc, status, "%s", own.problem_text);
    }
    scope_done(&own);
    return status;
}

/* Their streams end by themselves a day after the last event; those that do not go with them. */
static enum status remove_operations(struct scope *sc, struct scheduled *s, int64_t *io_after, int64_t *io_removed)
{
    struct scope own;
    scoped(PGresult) *rows = NULL;
    scope_init(&own, NULL);
    enum status status = db_run(&own, s->db, SQL_RETENTION_OPERATIONS, &rows,
                                db_number(&own, s->settings->retention_days), db_number(&own, *io_after),
                                db_number(&own, AT_A_TIME));
    if (status == STATUS_OK) {
        *io_after = db_int(rows, 0, "last_id", 0);
        *io_removed += db_int(rows, 0, "removed", 0);
    } else {
        status = fail(sc, status, "%s", own.problem_text);
    }
    (void)FAULT(OPERATIONS_FORGOTTEN, NULL);
    scope_done(&own);
    return status;
}

enum status retention(struct scope *sc, struct scheduled *s)
{
    scoped_text t = {0};
    int64_t operations = 0, after = 0, streams = 0;
    enum status status = STATUS_OK;
    json_open(&t, NULL, '{');
    do {
        status = may_go_on(sc, s);
        if (status == STATUS_OK)
            status = remove_operations(sc, s, &after, &operations);
    } while (status == STATUS_OK && after > 0);
    json_int(&t, "operations", operations);
    for (size_t i = 0; i < array_len(kinds); i++) {
        int64_t removed = 0;
        for (bool is_last = false; status == STATUS_OK && !is_last;) {
            status = may_go_on(sc, s);
            if (status == STATUS_OK)
                status = remove_piece(sc, s, kinds[i].sql, &removed, &is_last);
        }
        json_int(&t, kinds[i].name, removed);
    }
    if (status == STATUS_OK)
        status = streams_let_end(sc, s, &streams);
    json_int(&t, "streams", streams);
    json_close(&t, '}');
    s->result_json = arena_strdup(&sc->arena, text_str(&t));
    return status;
}
