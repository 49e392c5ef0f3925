/* DELETE: removes what a deleted collection left. It is out of every reader's sight already, so the order is only about
 * locks and about going on where an earlier attempt stopped: the vectors' tables, then documents with their chunks in
 * fenced batches, then the collection's row with its sources. */
#include "build/queries.h"
#include "common/fault.h"
#include "common/store/vector_store.h"
#include "worker/tasks/reclaim.h"

#include <string.h>

enum { CHUNKS_AT_A_TIME = 5000, DEFAULT_BATCH = 100 };

static void report(struct scope *sc, struct task *task, int flags)
{
    scoped_text data = {0};
    json_open(&data, NULL, '{');
    json_int(&data, "removed", task->processed);
    json_int(&data, "total", task->total);
    json_close(&data, '}');
    double percent = task->total > 0 ? 95.0 * (double)task->processed / (double)task->total : 0;
    task_event(sc, task, "deleting", percent > 95 ? 95 : percent, NULL, text_str(&data), flags);
}

/* DROP TABLE cannot be fenced (it waits for readers in a transaction of its own), and need not be: whoever is the
 * attempt, the table must go. Its row goes afterwards, so that a table is never forgotten. */
static enum status drop_generations(struct scope *sc, struct task *task)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, task->db, SQL_DELETE_GENERATIONS, &rows, db_number(sc, task->collection_id));
    for (int i = 0; s == STATUS_OK && i < PQntuples(rows); i++) {
        s = task_check(sc, task);
        if (s == STATUS_OK)
            s = vector_store_drop(sc, task->db, db_int(rows, i, "id", 0));
        (void)FAULT(GENERATION_DROPPED, task->operation_id);
        if (s == STATUS_OK)
            s = db_begin(sc, task->db);
        if (s != STATUS_OK)
            return s;
        s = db_run(sc, task->db, SQL_DELETE_GENERATION, NULL, db_text(rows, i, "id"));
        if (s == STATUS_OK)
            s = task_commit(sc, task);
        else
            db_rollback(task->db);
    }
    return s;
}

/* One fenced batch; *out_count is how many documents it removed. */
static enum status remove_documents(struct scope *sc, struct task *task, struct reclaim *reclaim, int64_t *io_after,
                                    int64_t *out_count)
{
    int64_t batch = task->settings->removal_batch_size > 0 ? task->settings->removal_batch_size : DEFAULT_BATCH;
    scoped(PGresult) *rows = NULL;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_DELETE_DOCUMENTS, &rows, db_number(sc, task->collection_id), db_number(sc, batch),
                   db_number(sc, *io_after));
    if (s != STATUS_OK) {
        db_rollback(task->db);
        return s;
    }
    *out_count = db_int(rows, 0, "documents", 0);
    *io_after = db_int(rows, 0, "last_id", *io_after);
    reclaim->documents += *out_count;
    reclaim->chunks += db_int(rows, 0, "chunks", 0);
    (void)FAULT(DOCUMENTS_DELETED, task->operation_id);
    return task_commit(sc, task);
}

static enum status remove_chunks(struct scope *sc, struct task *task, int64_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_DELETE_CHUNKS, &rows, db_number(sc, task->collection_id),
                   db_number(sc, CHUNKS_AT_A_TIME));
    if (s != STATUS_OK) {
        db_rollback(task->db);
        return s;
    }
    *out_count = strtoll(PQcmdTuples(rows), NULL, 10);
    (void)FAULT(CHUNKS_DELETED, task->operation_id);
    return task_commit(sc, task);
}

/* Memory stays what it is however many there are. */
static enum status remove_all_documents(struct scope *sc, struct task *task, struct reclaim *reclaim)
{
    int64_t after = 0, count = 0;
    do {
        struct scope own;
        scope_init(&own, sc->trace_id);
        enum status s = task_check(&own, task);
        if (s == STATUS_OK)
            s = remove_documents(&own, task, reclaim, &after, &count);
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
        scope_done(&own);
        if (s != STATUS_OK)
            return s;
        (void)FAULT(AFTER_DOCUMENTS_DELETED, task->operation_id);
        task->processed += count;
        report(sc, task, 0);
    } while (count > 0);
    return STATUS_OK;
}

static enum status remove_all_chunks(struct scope *sc, struct task *task, struct reclaim *reclaim)
{
    int64_t count = 0;
    do {
        struct scope own;
        scope_init(&own, sc->trace_id);
        enum status s = task_check(&own, task);
        if (s == STATUS_OK)
            s = remove_chunks(&own, task, &count);
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
        scope_done(&own);
        if (s != STATUS_OK)
            return s;
        reclaim->chunks += count;
        task_heartbeat(task);
    } while (count > 0);
    return STATUS_OK;
}

/* Lock order: operations before collections; the foreign key would take them the other way round. */
static enum status remove_collection(struct scope *sc, struct task *task)
{
    const char *id = db_number(sc, task->collection_id);
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_DELETE_RELEASE, NULL, id);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_DELETE_COLLECTION, NULL, id);
    (void)FAULT(COLLECTION_DELETED, task->operation_id);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

static enum status count_documents(struct scope *sc, struct task *task)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, task->db, SQL_DELETE_COUNT, &rows, db_number(sc, task->collection_id));
    if (s == STATUS_OK)
        task->total = task->processed + db_int(rows, 0, "documents", 0);
    return s;
}

enum status delete_collection(struct scope *sc, struct task *task)
{
    enum status s = STATUS_OK;
    struct reclaim reclaim = {0};
    if (task->collection_id != 0) { /* else an earlier attempt came as far as the collection's row */
        reclaim_begin(sc, task, &reclaim);
        s = count_documents(sc, task);
        if (s == STATUS_OK)
            report(sc, task, TASK_EVENT_ALWAYS);
        if (s == STATUS_OK)
            s = drop_generations(sc, task);
        if (s == STATUS_OK)
            s = remove_all_documents(sc, task, &reclaim);
        if (s == STATUS_OK)
            s = remove_all_chunks(sc, task, &reclaim);
        if (s == STATUS_OK)
            s = remove_collection(sc, task);
        (void)FAULT(AFTER_COLLECTION_DELETED, task->operation_id);
    }
    if (s != STATUS_OK)
        return s;
    reclaim_end(sc, task, &reclaim);
    if (task->total < task->processed)
        task->total = task->processed;
    task->result_json = arena_printf(&sc->arena, "{\"documents_removed\":%lld}", (long long)task->processed);
    task_event(sc, task, "delete_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}
