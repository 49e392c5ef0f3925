/* REMOVE_SOURCE: a source's documents go in fenced batches, with their vectors and chunks, then its row. Wherever it
 * stops, what is left is whole: the rest of the documents with their source. A document elsewhere that was skipped as a
 * duplicate of one that goes stands by itself from the same transaction on, and is read at the end. */
#include "common/fault.h"
#include "common/store/document_removal.h"
#include "worker/tasks/graph.h"
#include "worker/tasks/in_hand.h"
#include "worker/tasks/ingest.h"

enum { DEFAULT_BATCH = 100, REMOVED_PERCENT = 90 };

struct removal {
    struct task *task;
    int64_t source_id;
    bool has_generation;
    struct generation generation;
    int64_t total, removed, vectors, chunks; /* documents of the source: found by this attempt, removed by it */
    int64_t read_again;
};

/* ---- documents ---- */

static void report(struct scope *sc, const struct removal *r, int flags)
{
    struct task *task = r->task;
    double done = r->total > 0 ? (double)r->removed / (double)r->total : 1;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "removed", task->processed);
    json_int(&t, "total", task->total);
    json_real(&t, "progress_percent", REMOVED_PERCENT * done);
    json_close(&t, '}');
    task_event(sc, task, "removing_documents", REMOVED_PERCENT * done, NULL, text_str(&t), flags);
}

/* Lock order: documents, operations, collections. */
static enum status commit_batch(struct scope *sc, struct removal *r, const struct removal_batch *b)
{
    struct task *task = r->task;
    (void)FAULT(SOURCE_DOCUMENTS_REMOVED, task->operation_id);
    enum status s = task_progressed(sc, task, task->processed + b->documents, task->failed);
    if (s == STATUS_OK)
        s = document_store_count(sc, task->db, task->collection_id, -b->visible, -b->vectors, -b->visible_bytes,
                                 -b->failed, NULL);
    return s == STATUS_OK ? task_commit(sc, task) : s;
}

static enum status remove_batch(struct scope *sc, struct removal *r, bool duplicates, struct removal_batch *io)
{
    struct task *task = r->task;
    int64_t batch = task->settings->removal_batch_size > 0 ? task->settings->removal_batch_size : DEFAULT_BATCH;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = document_removal_batch(sc, task->db, r->has_generation ? &r->generation : NULL, task->collection_id,
                                   r->source_id, duplicates, io->last_id, (int)batch, io);
    if (s == STATUS_OK && io->documents > 0)
        s = commit_batch(sc, r, io);
    else
        db_rollback(task->db);
    if (s != STATUS_OK)
        db_rollback(task->db);
    return s;
}

static void account(struct removal *r, const struct removal_batch *b)
{
    struct task *task = r->task;
    task->has_progressed = true;
    task->failures = 0;
    task->processed += b->documents;
    r->removed += b->documents;
    r->vectors += b->vectors;
    r->chunks += b->chunks;
}

static enum status remove_documents(struct scope *sc, struct removal *r, bool duplicates)
{
    struct removal_batch b = {0};
    do {
        struct scope own;
        scope_init(&own, sc->trace_id);
        enum status s = task_check(&own, r->task);
        if (s == STATUS_OK)
            s = remove_batch(&own, r, duplicates, &b);
        if (s == STATUS_OK && b.documents > 0) {
            account(r, &b);
            (void)FAULT(AFTER_SOURCE_DOCUMENTS_REMOVED, r->task->operation_id);
            report(&own, r, r->removed == r->total ? TASK_EVENT_ALWAYS : 0);
        }
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
        scope_done(&own);
        if (s != STATUS_OK)
            return s;
    } while (b.documents > 0);
    return STATUS_OK;
}

static enum status remove_all_documents(struct scope *sc, struct removal *r)
{
    struct task *task = r->task;
    enum status s = document_store_remove_leftovers(sc, task->db, task->collection_id, task->task_id);
    if (s == STATUS_OK)
        s = vector_store_active(sc, task->db, task->collection_id, &r->generation);
    r->has_generation = s == STATUS_OK;
    if (s == STATUS_OK || s == STATUS_NOT_FOUND)
        s = document_removal_count(sc, task->db, r->source_id, &r->total);
    if (s != STATUS_OK)
        return s;
    task->total = task->processed + r->total;
    report(sc, r, TASK_EVENT_ALWAYS);
    s = remove_documents(sc, r, true);
    return s == STATUS_OK ? remove_documents(sc, r, false) : s;
}

/* ---- what was a duplicate ---- */

/* Whatever else waits in the collection is read with them. */
static enum status read_revived(struct scope *sc, struct removal *r)
{
    struct task *task = r->task;
    int64_t pending = 0;
    enum status s = document_store_pending_count(sc, task->db, task->collection_id, &pending);
    if (s != STATUS_OK || pending == 0)
        return s;
    struct ingest in = {.task = task};
    task->total = task->processed + pending;
    s = ingest_open(sc, &in, 0);
    if (s == STATUS_OK)
        s = in_hand_suspect(sc, &in);
    if (s == STATUS_OK)
        s = ingest_write(sc, &in);
    if (s == STATUS_OK && in.writing.has_generation)
        s = graph_build(sc, task, &in.writing.generation, in.stats.vectors);
    in_hand_forget(sc, task);
    ingest_close(&in);
    r->read_again = pending;
    return s;
}

/* ---- the source ---- */

static enum status remove_row(struct scope *sc, struct removal *r)
{
    struct task *task = r->task;
    struct ingest in = {.task = task};
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = document_removal_source(sc, task->db, task->collection_id, r->source_id);
    (void)FAULT(SOURCE_ROW_REMOVED, task->operation_id);
    if (s == STATUS_OK)
        s = ingest_recount(sc, &in);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

static const char *summary(struct scope *sc, const struct removal *r)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "source_path", json_get_text(r->task->config, "source_path", NULL));
    json_int(&t, "documents_removed", r->task->processed - r->read_again);
    json_int(&t, "vectors_removed", r->vectors);
    json_int(&t, "chunks_removed", r->chunks);
    json_int(&t, "documents_read_again", r->read_again);
    json_int(&t, "documents_failed", r->task->failed);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

enum status remove_source(struct scope *sc, struct task *task)
{
    struct removal r = {.task = task, .source_id = json_get_int(task->config, "source_id", 0)};
    if (r.source_id == 0)
        return fail(sc, STATUS_INVALID, "the operation names no source");
    enum status s = remove_all_documents(sc, &r);
    if (s == STATUS_OK)
        s = read_revived(sc, &r);
    if (s == STATUS_OK)
        s = remove_row(sc, &r);
    if (s != STATUS_OK)
        return s;
    (void)FAULT(AFTER_SOURCE_REMOVED, task->operation_id);
    task->result_json = summary(sc, &r);
    task->collection_status = "ready";
    task->collection_message = task->failed > 0 ? "Completed with errors" : NULL;
    task_event(sc, task, "remove_source_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}
