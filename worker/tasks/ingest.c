#include "worker/tasks/ingest.h"

#include "common/fault.h"
#include "common/source/directory.h"
#include "worker/tasks/graph.h"
#include "worker/tasks/in_hand.h"

#include <string.h>
#include <unistd.h>

static enum status open_reading(struct scope *sc, struct ingest *in)
{
    const struct ingest_collection *c = &in->collection;
    const struct chunk_wishes wishes = {c->strategy, c->chunk_size, c->chunk_overlap, c->chunking_json};
    return reading_open(sc, &in->reading, in->task, c->model, &wishes);
}

enum status ingest_open(struct scope *sc, struct ingest *in, int64_t source_id)
{
    struct task *task = in->task;
    in->root_fd = -1;
    enum status s = document_store_collection(sc, task->db, task->collection_id, &in->collection);
    in->stats = in->collection.stats; /* of what earlier attempts wrote, too */
    if (s == STATUS_OK && source_id != 0)
        s = document_store_source(sc, task->db, source_id, task->collection_id, &in->source);
    if (s == STATUS_OK)
        s = open_reading(sc, in);
    if (s != STATUS_OK)
        return s;
    writing_open(&in->writing, task, in->collection.model, in->collection.quantization);
    s = vector_store_active(sc, task->db, task->collection_id, &in->writing.generation);
    in->writing.has_generation = s == STATUS_OK;
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

void ingest_close(struct ingest *in)
{
    reading_close(&in->reading);
    writing_close(&in->writing);
    if (in->root_fd >= 0)
        close(in->root_fd);
}

enum status ingest_check_source(struct scope *sc, const struct ingest *in)
{
    struct scope own;
    scope_init(&own, sc->trace_id);
    enum status s = source_check(&own, in->task->settings->source_roots, in->source.path);
    if (s == STATUS_NOT_FOUND || s == STATUS_UNAVAILABLE)
        s = fail(sc, STATUS_UNAVAILABLE, "the source went away: %s", own.problem_text);
    else
        s = STATUS_OK;
    scope_done(&own);
    return s;
}

/* The fence comes before the counters (lock order: documents, operations, collections). */
enum status ingest_recount(struct scope *sc, struct ingest *in)
{
    struct task *task = in->task;
    enum status s = task_fence(sc, task);
    return s == STATUS_OK ? document_store_recount(sc, task->db, task->collection_id, &in->stats) : s;
}

/* In a fenced transaction, since a lapsed attempt must not undo what its successor noted. At the end the collection's
 * counters are counted anew: a document that failed before and fails again is one error, not two. */
static enum status note_run(struct scope *sc, struct ingest *in, const char *state, const char *error)
{
    struct task *task = in->task;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = document_store_source_run(sc, task->db, in->source.id, state, error);
    if (s == STATUS_OK && strcmp(state, "running") != 0)
        s = ingest_recount(sc, in);
    (void)FAULT(BEFORE_SOURCE_NOTED, task->operation_id);
    return task_commit_note(sc, task, s);
}

/* ---- the end ---- */

static const char *summary(struct scope *sc, const struct ingest *in)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "documents_processed", in->task->processed);
    json_int(&t, "documents_failed", in->task->failed);
    ingest_scan_counts(&t, in);
    json_int(&t, "files_left_out", in->room.left_out);
    json_text(&t, "left_out_because", room_sentence(sc, &in->room));
    json_int(&t, "chunks_created", in->chunks_written);
    json_int(&t, "tokens_embedded", in->writing.tokens_embedded);
    if (in->reading.note)
        json_text(&t, "note", in->reading.note);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status finish(struct scope *sc, struct ingest *in, const char *last_stage)
{
    struct task *task = in->task;
    enum status s = in->writing.has_generation ? graph_build(sc, task, &in->writing.generation, in->stats.vectors)
                                               : STATUS_OK;
    if (s != STATUS_OK)
        return s;
    (void)FAULT(DOCUMENTS_WRITTEN, task->operation_id);
    const char *left_out = room_sentence(sc, &in->room);
    bool is_nothing_added = left_out && in->registered + in->updated == 0 && task->processed == task->failed;
    bool is_all_failed = task->failed > 0 && task->failed == task->processed && in->unchanged + in->duplicates == 0;
    s = note_run(sc, in,
                 is_all_failed || is_nothing_added ? "failed"
                 : task->failed || left_out        ? "partial"
                                                   : "success",
                 in->first_problem ? in->first_problem : left_out);
    if (s != STATUS_OK)
        return s;
    if (is_nothing_added && task->type != OPERATION_INDEX) /* of which a failure would cost the collection */
        return fail(sc, STATUS_INVALID, "nothing was added: %s", left_out);
    if (is_all_failed)
        return fail(sc, STATUS_INVALID, "none of the %lld documents could be read; the first one: %s",
                    (long long)task->failed, in->first_problem ? in->first_problem : "unknown");
    task->result_json = summary(sc, in);
    task->collection_status = "ready";
    task->collection_message = task->failed > 0 ? "Completed with errors" : left_out;
    task_event(sc, task, last_stage, 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}

static enum status ingest_run(struct scope *sc, struct task *task, int64_t source_id, const char *last_stage)
{
    struct ingest in = {.task = task};
    enum status s = ingest_open(sc, &in, source_id);
    if (s == STATUS_OK)
        s = document_store_remove_leftovers(sc, task->db, task->collection_id, task->task_id);
    if (s == STATUS_OK)
        s = in_hand_suspect(sc, &in);
    if (s == STATUS_OK)
        s = note_run(sc, &in, "running", NULL);
    if (s == STATUS_OK)
        s = ingest_scan(sc, &in);
    if (s == STATUS_OK)
        s = ingest_write(sc, &in);
    if (s == STATUS_OK)
        s = finish(sc, &in, last_stage);
    in_hand_forget(sc, task);
    ingest_close(&in);
    return s;
}

enum status ingest_append(struct scope *sc, struct task *task)
{
    int64_t source_id = json_get_int(task->config, "source_id", 0);
    if (source_id == 0)
        return fail(sc, STATUS_INVALID, "the operation names no source");
    return ingest_run(sc, task, source_id, "append_completed");
}

enum status ingest_index(struct scope *sc, struct task *task)
{
    int64_t source_id = json_get_int(task->config, "source_id", 0);
    if (source_id != 0)
        return ingest_run(sc, task, source_id, "index_completed");
    /* An empty collection: its vectors' table is made at the first vector, so there is only the model to look at. */
    struct ingest in = {.task = task, .root_fd = -1};
    enum status s = document_store_collection(sc, task->db, task->collection_id, &in.collection);
    if (s == STATUS_OK)
        s = open_reading(sc, &in);
    reading_close(&in.reading);
    if (s != STATUS_OK)
        return s;
    task->total = 0;
    task->result_json = "{\"documents_processed\":0}";
    task->collection_status = "ready";
    task_event(sc, task, "index_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}
