#include "worker/claim.h"

#include "build/queries.h"
#include "common/log.h"
#include "common/message.h"
#include "worker/attempt.h"
#include "worker/settle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const enum operation_type known_types[] = {
#define TASK(type, function, is_brief) OPERATION_##type,
#include "worker/tasks/tasks.def"
#undef TASK
};

static const char *known(struct scope *sc, const struct settings *settings, bool only_brief)
{
    scoped_text t = {0};
    for (size_t i = 0; i < array_len(known_types); i++) {
        bool is_allowed = known_types[i] != OPERATION_NOOP || settings->test_operations;
        if (is_allowed && (!only_brief || task_is_brief(known_types[i])))
            db_array_put(&t, operation_kind(known_types[i])->name);
    }
    return arena_strdup(&sc->arena, db_array_end(&t));
}

static const char *previous_end(const PGresult *rows, int row)
{
    const char *end = db_text(rows, row, "previous_end");
    return end ? end : "handed_back";
}

static void note_claim(struct scope *sc, struct db *db, const PGresult *rows, int row, const char *worker_id,
                       struct claim *c)
{
    const char *uuid = db_text(rows, row, "uuid"), *type = operation_kind(c->type)->name;
    memcpy(c->operation_id, uuid, sizeof c->operation_id);
    c->attempt = (int)db_int(rows, row, "attempt", 0);
    double waited = db_real(rows, row, "waited_seconds", 0);
    log_info("operation_claimed", log_text("operation", uuid), log_text("task", c->task_id),
             log_text("worker", worker_id), log_int("attempt", c->attempt), log_text("type", type),
             log_real("waited_seconds", waited));
    if (c->attempt == 1) {
        metrics_observe(METRIC_QUEUE_WAIT, type, NULL, waited);
        return;
    }
    metrics_observe(METRIC_REQUEUE_SECONDS, previous_end(rows, row), NULL, db_real(rows, row, "due_seconds", 0));
    settle_terminate(sc, db, db_text(rows, row, "previous_task_id"));
}

enum status claim_operation(struct scope *sc, struct db *db, const struct settings *settings, const char *uuid,
                            const char *worker_id, struct claim *out)
{
    struct claim c = {.type = OPERATION_NOOP};
    scoped(PGresult) *rows = NULL;
    uuid_make(c.task_id);
    /* Model: claim. */
    enum status s = db_run_kept(sc, db, SQL_OPERATION_CLAIM, &rows, uuid, c.task_id, worker_id,
                                known(sc, settings, false));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_CONFLICT, "operation %s is not to be had", uuid);
    if (operation_type_parse(db_text(rows, 0, "type"), &c.type) != STATUS_OK)
        return fail(sc, STATUS_INTERNAL, "operation %s was claimed with an unknown type", uuid);
    note_claim(sc, db, rows, 0, worker_id, &c);
    *out = c;
    return STATUS_OK;
}

/* ---- many at a time ---- */

static int by_turn(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    return x->turn < y->turn ? -1 : x->turn > y->turn;
}

enum status claim_many(struct scope *sc, struct db *db, const struct settings *settings, char (*uuids)[37],
                       size_t count, const char *worker_id, struct claim *out, size_t *out_count)
{
    scoped_text operations = {0};
    scoped_text tasks = {0};
    scoped(PGresult) *rows = NULL;
    for (size_t i = 0; i < count; i++) {
        char task_id[37];
        uuid_make(task_id);
        db_array_put(&operations, uuids[i]);
        db_array_put(&tasks, task_id);
    }
    enum status s = db_run_kept(sc, db, SQL_OPERATIONS_CLAIM, &rows, db_array_end(&operations), db_array_end(&tasks),
                                worker_id, known(sc, settings, true));
    size_t n = 0;
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows) && n < count; r++) {
        struct claim c = {.turn = (size_t)db_int(rows, r, "turn", 0)};
        if (operation_type_parse(db_text(rows, r, "type"), &c.type) != STATUS_OK)
            continue;
        memcpy(c.task_id, db_text(rows, r, "task_id"), sizeof c.task_id);
        note_claim(sc, db, rows, r, worker_id, &c);
        out[n++] = c;
    }
    qsort(out, n, sizeof *out, by_turn);
    *out_count = n;
    return s;
}

enum status claim_wanted(struct scope *sc, struct db *db, const struct settings *settings, char (*uuids)[37],
                         size_t count, bool *out_is_wanted)
{
    scoped_text operations = {0};
    scoped(PGresult) *rows = NULL;
    for (size_t i = 0; i < count; i++)
        db_array_put(&operations, uuids[i]);
    enum status s = db_run_kept(sc, db, SQL_OPERATIONS_WANTED, &rows, db_array_end(&operations),
                                known(sc, settings, false));
    for (size_t i = 0; i < count; i++) {
        out_is_wanted[i] = false;
        for (int r = 0; s == STATUS_OK && r < PQntuples(rows) && !out_is_wanted[i]; r++)
            out_is_wanted[i] = strcasecmp(db_text(rows, r, "uuid"), uuids[i]) == 0;
    }
    return s;
}
