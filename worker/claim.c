#include "worker/claim.h"

#include "build/queries.h"
#include "common/log.h"
#include "common/message.h"
#include "worker/settle.h"

#include <stdio.h>

static const enum operation_type known_types[] = {
#define TASK(type, function) OPERATION_##type,
#include "worker/tasks/tasks.def"
#undef TASK
};

static const char *known(struct scope *sc, const struct settings *settings)
{
    scoped_text t = {0};
    text_putc(&t, '{');
    for (size_t i = 0; i < array_len(known_types); i++) {
        if (known_types[i] != OPERATION_NOOP || settings->test_operations)
            text_printf(&t, "%s%s", t.len > 1 ? "," : "", operation_kind(known_types[i])->name);
    }
    text_putc(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static const char *previous_end(const PGresult *rows)
{
    const char *end = db_text(rows, 0, "previous_end");
    return end ? end : "handed_back";
}

enum status claim_operation(struct scope *sc, struct db *db, const struct settings *settings, const char *uuid,
                            const char *worker_id, struct claim *out)
{
    struct claim c = {.type = OPERATION_NOOP};
    scoped(PGresult) *rows = NULL;
    uuid_make(c.task_id);
    enum status s = db_run(sc, db, SQL_OPERATION_CLAIM, &rows, uuid, c.task_id, worker_id, known(sc, settings));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_CONFLICT, "operation %s is not to be had", uuid);
    if (operation_type_parse(db_text(rows, 0, "type"), &c.type) != STATUS_OK)
        return fail(sc, STATUS_INTERNAL, "operation %s was claimed with an unknown type", uuid);
    c.attempt = (int)db_int(rows, 0, "attempt", 0);
    c.failures = (int)db_int(rows, 0, "failures", 0);
    c.waited_seconds = db_real(rows, 0, "waited_seconds", 0);
    const char *previous = db_text(rows, 0, "previous_task_id");
    log_info("operation_claimed", log_text("operation", uuid), log_text("task", c.task_id),
             log_text("worker", worker_id), log_int("attempt", c.attempt),
             log_text("type", operation_kind(c.type)->name), log_real("waited_seconds", c.waited_seconds));
    if (c.attempt == 1)
        metrics_observe(METRIC_QUEUE_WAIT, operation_kind(c.type)->name, NULL, c.waited_seconds);
    else
        metrics_observe(METRIC_REQUEUE_SECONDS, previous_end(rows), NULL, db_real(rows, 0, "due_seconds", 0));
    if (c.attempt > 1 && previous)
        settle_terminate(sc, db, previous);
    *out = c;
    return STATUS_OK;
}
