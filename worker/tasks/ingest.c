#include "worker/tasks/ingest.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/source/directory.h"
#include "worker/chunk/chunk.h"
#include "worker/embed/client.h"
#include "worker/embed/model.h"
#include "worker/extract/extract.h"
#include "worker/tasks/in_hand.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Chunks never exceed what the model reads: the rest of a longer one would not be found by any search. */
static void choose_sizes(struct ingest *in)
{
    const struct settings *s = in->task->settings;
    const struct ingest_collection *c = &in->collection;
    size_t size = (size_t)(c->chunk_size > 0 ? c->chunk_size : s->default_chunk_size);
    size_t overlap = (size_t)(c->chunk_overlap >= 0 ? c->chunk_overlap : s->default_chunk_overlap);
    if (chunk_fit((size_t)in->model->max_tokens - 2, &size, &overlap))
        in->chunk_note =
            "chunk_size was larger than what the model reads; its limit was used, and the overlap in proportion";
    in->chunk_size = (int)size;
    in->chunk_overlap = (int)overlap;
}

static enum status open_model(struct scope *sc, struct ingest *in)
{
    char error[256];
    const char *folder = arena_printf(&sc->arena, "%s/%s", in->task->settings->model_dir, in->collection.model);
    in->model = embed_model_open(folder, error, sizeof error);
    if (!in->model)
        return fail(sc, STATUS_INVALID, "the model %s cannot be used: %s", in->collection.model, error);
    choose_sizes(in);
    return STATUS_OK;
}

static enum status open_all(struct scope *sc, struct ingest *in, int64_t source_id)
{
    struct task *task = in->task;
    enum status s = document_store_source(sc, task->db, source_id, task->collection_id, &in->source);
    if (s == STATUS_OK)
        s = open_model(sc, in);
    if (s != STATUS_OK)
        return s;
    s = vector_store_active(sc, task->db, task->collection_id, &in->generation);
    in->has_generation = s == STATUS_OK;
    if (s != STATUS_OK && s != STATUS_NOT_FOUND)
        return s;
    struct extract_limits limits = {
        .max_file_bytes = (uint64_t)task->settings->max_file_bytes,
        .max_text_bytes = (uint64_t)task->settings->max_text_bytes,
        .seconds = (int)task->settings->extract_seconds,
        .memory_mb = (int)task->settings->extract_memory_mb,
    };
    in->extractor = extractor_new(&limits, task->executable);
    extractor_on_wait(in->extractor, task_has_to_stop, task);
    in->embedder = embed_client_new(task->embedder_socket);
    embed_client_on_wait(in->embedder, task_has_to_stop, task);
    return STATUS_OK;
}

static void close_all(struct ingest *in)
{
    extractor_free(in->extractor);
    embed_client_free(in->embedder);
    embed_model_close(in->model);
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
static enum status recount(struct scope *sc, struct ingest *in, int64_t vectors)
{
    struct task *task = in->task;
    enum status s = task_fence(sc, task);
    return s == STATUS_OK ? document_store_recount(sc, task->db, task->collection_id, vectors, &in->stats) : s;
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
        s = recount(sc, in, 0);
    (void)FAULT(BEFORE_SOURCE_NOTED, task->operation_id);
    bool has_committed = task->has_committed; /* a note is no work that a next attempt could go on from */
    if (s == STATUS_OK)
        s = task_commit(sc, task);
    else
        db_rollback(task->db);
    task->has_committed = has_committed;
    return s;
}

/* ---- the graph ---- */

/* Runs one long statement, keeping the supervisor informed and stopping when the task is told to. */
static enum status run_long(struct scope *sc, struct task *task, const char *sql)
{
    PGconn *conn;
    enum status s = db_connection(sc, task->db, &conn);
    if (s != STATUS_OK)
        return s;
    if (!PQsendQuery(conn, sql))
        return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL: the connection broke");
    while (PQisBusy(conn)) {
        struct pollfd p = {.fd = PQsocket(conn), .events = POLLIN};
        int n = poll(&p, 1, 500);
        task_heartbeat(task);
        if (n > 0 && !PQconsumeInput(conn))
            return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL: the connection broke");
        s = task_check(sc, task);
        if (s != STATUS_OK) {
            db_disconnect(task->db); /* with client_connection_check_interval the server stops too */
            return s;
        }
    }
    for (PGresult *r; (r = PQgetResult(conn));) {
        ExecStatusType kind = PQresultStatus(r);
        if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK && s == STATUS_OK)
            s = fail(sc, STATUS_UNAVAILABLE, "a long statement failed: %s", PQresultErrorMessage(r));
        PQclear(r);
    }
    return s;
}

/* Builds the generation's graph when it has grown past EXACT_SCAN_ROWS. */
static enum status build_graph(struct scope *sc, struct ingest *in)
{
    if (!in->has_generation || in->generation.has_graph || in->stats.vectors <= in->task->settings->exact_scan_rows)
        return STATUS_OK;
    struct task *task = in->task;
    const char *sql;
    enum status s = vector_store_graph_sql(sc, task->db, &in->generation, &sql);
    if (s == STATUS_OK)
        s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = run_long(sc, task, sql);
    if (s == STATUS_OK)
        s = vector_store_graph_built(sc, task->db, in->generation.id);
    (void)FAULT(GRAPH_BUILT, task->operation_id);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

/* ---- the end ---- */

static const char *summary(struct scope *sc, const struct ingest *in)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "documents_processed", in->task->processed);
    json_int(&t, "documents_failed", in->task->failed);
    json_int(&t, "total_files_found", in->found);
    json_int(&t, "new_documents_registered", in->registered);
    json_int(&t, "documents_updated", in->updated);
    json_int(&t, "unchanged_documents_skipped", in->unchanged);
    json_int(&t, "duplicate_documents_skipped", in->duplicates);
    json_int(&t, "chunks_created", in->chunks_written);
    json_int(&t, "tokens_embedded", in->tokens_embedded);
    if (in->chunk_note)
        json_text(&t, "note", in->chunk_note);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status finish(struct scope *sc, struct ingest *in, const char *last_stage)
{
    struct task *task = in->task;
    enum status s = build_graph(sc, in);
    if (s != STATUS_OK)
        return s;
    (void)FAULT(DOCUMENTS_WRITTEN, task->operation_id);
    bool is_all_failed = task->failed > 0 && task->failed == task->processed && in->unchanged + in->duplicates == 0;
    s = note_run(sc, in, is_all_failed ? "failed" : task->failed ? "partial" : "success", in->first_problem);
    if (s != STATUS_OK)
        return s;
    if (is_all_failed)
        return fail(sc, STATUS_INVALID, "none of the %lld documents could be read; the first one: %s",
                    (long long)task->failed, in->first_problem ? in->first_problem : "unknown");
    task->result_json = summary(sc, in);
    task->collection_status = "ready";
    task->collection_message = task->failed > 0 ? "Completed with errors" : NULL;
    task_event(sc, task, last_stage, 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}

static enum status ingest_run(struct scope *sc, struct task *task, int64_t source_id, const char *last_stage)
{
    struct ingest in = {.task = task, .root_fd = -1};
    enum status s = document_store_collection(sc, task->db, task->collection_id, &in.collection);
    in.stats = in.collection.stats; /* of what earlier attempts wrote, too */
    if (s == STATUS_OK)
        s = open_all(sc, &in, source_id);
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
    close_all(&in);
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
        s = open_model(sc, &in);
    embed_model_close(in.model);
    if (s != STATUS_OK)
        return s;
    task->total = 0;
    task->result_json = "{\"documents_processed\":0}";
    task->collection_status = "ready";
    task_event(sc, task, "index_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}
