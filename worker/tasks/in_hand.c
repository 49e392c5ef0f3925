#include "worker/tasks/in_hand.h"

#include "build/queries.h"
#include "common/log.h"
#include "common/text.h"

enum { DEATHS_ALONE = 2 };

enum status in_hand_suspect(struct scope *sc, struct ingest *in)
{
    struct task *task = in->task;
    scoped(PGresult) *rows = NULL;
    if (task->attempt < 2)
        return STATUS_OK;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_IN_HAND_SUSPECT, &rows, task->operation_id, task->task_id);
    s = task_commit_note(sc, task, s);
    if (s == STATUS_OK && PQntuples(rows) > 0)
        log_warning("documents_suspected", log_text("operation", task->operation_id), log_text("task", task->task_id),
                    log_int("documents", PQntuples(rows)), log_text("reason", task->last_reason));
    return s;
}

enum status in_hand_note(struct scope *sc, struct ingest *in, const struct pending_document *documents, size_t count)
{
    struct task *task = in->task;
    scoped_text list = {0};
    for (size_t i = 0; i < count; i++)
        db_array_put(&list, db_number(sc, documents[i].id));
    return db_run(sc, task->db, SQL_IN_HAND_NOTE, NULL, task->task_id, task->operation_id, db_array_end(&list));
}

void in_hand_forget(struct scope *sc, struct task *task)
{
    struct scope own;
    scope_init(&own, sc->trace_id);
    if (db_run(&own, task->db, SQL_IN_HAND_FORGET, NULL, task->task_id) != STATUS_OK)
        log_debug("in_hand_not_forgotten", log_text("problem", own.problem_text));
    scope_done(&own);
}

bool in_hand_is_last_attempt(const struct task *task)
{
    return task->failures + 1 >= task->max_attempts;
}

const char *in_hand_verdict(struct scope *sc, const struct task *task, const struct pending_document *d)
{
    bool is_last_attempt = in_hand_is_last_attempt(task);
    bool is_likely = d->crashes > 0 && d->crashes + d->losses >= DEATHS_ALONE && is_last_attempt;
    if (d->crashes < DEATHS_ALONE && !is_likely)
        return NULL;
    return arena_printf(&sc->arena, "set aside, since it was the document in hand: %s",
                        task->last_reason ? task->last_reason : "the process that read it died each time");
}
