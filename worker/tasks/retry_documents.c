/* RETRY_DOCUMENTS: reads documents that failed once more. The request made them pending in the transaction that
 * accepted the operation; of very many, the rest is reset here. Whatever else waits in the collection is read with
 * them. One that is cancelled leaves what it did not read pending: the next retry, APPEND or synchronisation reads it.
 */
#include "common/fault.h"
#include "common/store/document_retry.h"
#include "worker/tasks/graph.h"
#include "worker/tasks/in_hand.h"
#include "worker/tasks/ingest.h"

#include <string.h>

enum { RESET_AT_A_TIME = 5000 };

static void report(struct scope *sc, const struct ingest *in, const char *message)
{
    struct task *task = in->task;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "processed", task->processed);
    json_int(&t, "failed", task->failed);
    json_int(&t, "total", task->total);
    json_text(&t, "message", message);
    json_close(&t, '}');
    double percent = task->total > 0 ? 100.0 * (double)task->processed / (double)task->total : 0;
    task_event(sc, task, "processing_progress", percent, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

/* Those that this operation read already are left as they are. Lock order: documents, operations, collections. */
static enum status reset_more(struct scope *sc, struct ingest *in, int64_t *out_count)
{
    struct task *task = in->task;
    *out_count = 0;
    if (strcmp(json_get_text(task->config, "scope", ""), "failed") != 0)
        return STATUS_OK;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = document_retry_failed(sc, task->db, task->collection_id, RESET_AT_A_TIME, task->operation_id, out_count);
    (void)FAULT(DOCUMENTS_RESET, task->operation_id);
    if (s == STATUS_OK)
        s = task_fence(sc, task);
    if (s == STATUS_OK)
        s = document_store_count(sc, task->db, task->collection_id, 0, 0, 0, -*out_count, &in->stats);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

static enum status read_all(struct scope *sc, struct ingest *in)
{
    struct task *task = in->task;
    for (;;) {
        int64_t pending = 0, more = 0;
        enum status s = document_store_pending_count(sc, task->db, task->collection_id, &pending);
        if (s != STATUS_OK)
            return s;
        task->total = task->processed + pending;
        report(sc, in,
               pending == 1 ? "1 document to read"
                            : arena_printf(&sc->arena, "%lld documents to read", (long long)pending));
        s = ingest_write(sc, in);
        if (s == STATUS_OK)
            s = reset_more(sc, in, &more);
        if (s != STATUS_OK || more == 0)
            return s;
    }
}

static enum status recount(struct scope *sc, struct ingest *in)
{
    struct task *task = in->task;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = ingest_recount(sc, in);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

static const char *summary(struct scope *sc, const struct ingest *in)
{
    const struct task *task = in->task;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "documents_processed", task->processed);
    json_int(&t, "documents_completed", task->processed - task->failed);
    json_int(&t, "documents_failed", task->failed);
    json_int(&t, "chunks_created", in->chunks_written);
    json_int(&t, "tokens_embedded", in->writing.tokens_embedded);
    if (in->first_problem)
        json_text(&t, "first_problem", in->first_problem);
    if (in->reading.note)
        json_text(&t, "note", in->reading.note);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

enum status retry_documents(struct scope *sc, struct task *task)
{
    struct ingest in = {.task = task, .progress_event = "processing_progress"};
    enum status s = ingest_open(sc, &in, 0);
    if (s == STATUS_OK)
        s = document_store_remove_leftovers(sc, task->db, task->collection_id, task->task_id);
    if (s == STATUS_OK)
        s = in_hand_suspect(sc, &in);
    if (s == STATUS_OK)
        s = read_all(sc, &in);
    if (s == STATUS_OK && in.writing.has_generation)
        s = graph_build(sc, task, &in.writing.generation, in.stats.vectors);
    if (s == STATUS_OK)
        s = recount(sc, &in);
    if (s == STATUS_OK) {
        task->result_json = summary(sc, &in);
        task->collection_status = "ready";
        task->collection_message = task->failed > 0 ? "Completed with errors" : NULL;
        task_event(sc, task, "retry_documents_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    }
    in_hand_forget(sc, task);
    ingest_close(&in);
    return s;
}
