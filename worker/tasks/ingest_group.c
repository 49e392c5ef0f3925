#include "worker/tasks/ingest_group.h"

#include "common/fault.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/embed/client.h"

#include <string.h>

enum {
    MOST_ROWS_A_TRANSACTION = 512, /* whatever VECTOR_UPLOAD_BATCH_SIZE says */
    BATCH_ARENA_BYTES = 32 << 20,
};

/* Rows of one transaction and what they change. */
struct change {
    int64_t documents, vectors, bytes, failed;
};

static enum status ensure_generation(struct scope *sc, struct ingest *in, int dim)
{
    if (in->writing.has_generation)
        return STATUS_OK;
    enum status s = vector_store_create(sc, in->task->db, in->task->collection_id, in->collection.model, dim,
                                        in->collection.quantization, &in->writing.generation);
    if (s == STATUS_OK)
        in->writing.generation.model = in->collection.model;
    (void)FAULT(GENERATION_MADE, in->task->operation_id);
    return s;
}

/* `written` chunks of it were committed unseen. */
static enum status settle_document(struct scope *sc, struct ingest *in, const struct ready_document *d, size_t written,
                                   struct change *change)
{
    struct task *task = in->task;
    const struct pending_document *p = d->from;
    int64_t removed = 0;
    enum status s;
    if (d->problem) {
        const struct document_failure failure = {.reason = d->problem,
                                                 .category = d->category,
                                                 .mime_type = d->mime_type,
                                                 .operation_id = task->operation_id,
                                                 .is_set_aside = d->is_set_aside};
        s = document_store_failed(sc, task->db, in->writing.has_generation ? &in->writing.generation : NULL,
                                  task->collection_id, p->id, p->live_version, &failure, &removed);
        if (s == STATUS_OK && written > 0)
            s = document_store_abandon(sc, task->db, in->writing.has_generation ? &in->writing.generation : NULL,
                                       task->collection_id, p->id, p->next_version);
        change->failed++;
        change->documents -= p->live_version > 0;
        change->bytes -= p->live_version > 0 ? p->size : 0;
    } else {
        s = document_store_done(sc, task->db, &in->writing.generation, task->collection_id, p->id, p->next_version,
                                (int)d->vector_count, d->mime_type, d->metadata_json, &removed);
        if (s == STATUS_OK && d->hash)
            s = document_store_looked_at(sc, task->db, p->id, d->hash, d->size, d->mtime_ns);
        change->documents += p->live_version == 0;
        change->bytes += (d->hash ? d->size : p->size) - (p->live_version > 0 ? p->size : 0);
        change->vectors += (int64_t)d->vector_count;
    }
    change->vectors -= removed;
    return s;
}

/* A generation made in this transaction is activated after the fence (lock order: documents, operations, collections).
 */
static enum status activate(struct scope *sc, struct ingest *in)
{
    enum status s = task_fence(sc, in->task);
    return s == STATUS_OK ? vector_store_activate(sc, in->task->db, &in->writing.generation) : s;
}

/* The fence comes before the counters (lock order: documents, operations, collections); COMMIT follows at once. */
static enum status commit(struct scope *sc, struct ingest *in, const struct change *change, size_t documents,
                          bool has_made_generation)
{
    struct task *task = in->task;
    enum status s = task_progressed(sc, task, task->processed + (int64_t)documents, task->failed + change->failed);
    if (s == STATUS_OK && has_made_generation)
        s = activate(sc, in);
    if (s == STATUS_OK)
        s = document_store_count(sc, task->db, task->collection_id, change->documents, change->vectors, change->bytes,
                                 change->failed, &in->stats);
    if (s == STATUS_OK)
        s = task_commit(sc, task);
    if (s != STATUS_OK)
        return s;
    task->has_progressed = true;
    task->failures = 0;
    return STATUS_OK;
}

static void tell(struct scope *sc, struct ingest *in, const struct ready_document *d)
{
    struct task *task = in->task;
    double percent = task->total > 0 ? 100.0 * (double)task->processed / (double)task->total : 100;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "processed", task->processed);
    json_int(&t, "processed_files", task->processed);
    json_int(&t, "failed", task->failed);
    json_int(&t, "total", task->total);
    json_int(&t, "total_files", task->total);
    json_text(&t, "current_document", d->from->name);
    json_text(&t, "current_file", d->from->name);
    json_real(&t, "progress_percent", percent);
    json_int(&t, "chunks_created", in->chunks_written);
    if (in->progress_event)
        json_text(&t, "message", arena_printf(&sc->arena, "%s: %s", d->problem ? "failed" : "read", d->from->name));
    if (d->problem)
        json_text(&t, "error", d->problem);
    json_open(&t, "stats", '{');
    json_int(&t, "document_count", in->stats.documents);
    json_int(&t, "vector_count", in->stats.vectors);
    json_int(&t, "total_size_bytes", in->stats.bytes);
    json_close(&t, '}');
    json_close(&t, '}');
    bool is_notable = d->problem || task->processed == 1 || task->processed == task->total;
    task_event(sc, task, in->progress_event ? in->progress_event : "document_processed", percent, d->from->name,
               text_str(&t), is_notable ? TASK_EVENT_ALWAYS : 0);
}

static void account(struct scope *sc, struct ingest *in, const struct group *g)
{
    for (size_t i = 0; i < g->count; i++) {
        const struct ready_document *d = &g->documents[i];
        in->task->processed++;
        if (d->problem) {
            in->task->failed++;
            if (!in->first_problem)
                in->first_problem = arena_printf(&sc->arena, "%s: %s", d->from->name, d->problem);
            log_info(d->is_set_aside ? "document_set_aside" : "document_failed",
                     log_text("operation", in->task->operation_id), log_text("document", d->from->name),
                     log_text("reason", d->problem));
        }
        metrics_add(METRIC_DOCUMENTS, d->is_set_aside ? "set_aside" : d->problem ? "failed" : "completed", NULL, 1);
        tell(sc, in, d);
    }
}

/* A document larger than one transaction: all but its last part are committed unseen. */
static enum status write_early_parts(struct scope *sc, struct ingest *in, struct ready_document *d, size_t *io_from)
{
    size_t rows = (size_t)in->task->settings->vector_batch_size;
    rows = rows < 1 ? 1 : rows > MOST_ROWS_A_TRANSACTION ? MOST_ROWS_A_TRANSACTION : rows;
    while (!d->problem && d->count - *io_from > rows) {
        struct scope part;
        scope_init(&part, sc->trace_id);
        struct embed_answer a;
        enum status s = writing_embed(&part, &in->writing, d, *io_from, rows, &a);
        if (d->problem) {
            d->problem = arena_strdup(&sc->arena, d->problem);
            scope_done(&part);
            return STATUS_OK;
        }
        if (s == STATUS_OK)
            s = task_check(&part, in->task);
        if (s == STATUS_OK)
            s = db_begin(&part, in->task->db);
        if (s == STATUS_OK && a.dim > 0) /* a part of nothing but a parent has no vectors */
            s = ensure_generation(&part, in, a.dim);
        if (s == STATUS_OK)
            s = document_store_begin(&part, in->task->db, d->from->id);
        if (s == STATUS_OK)
            s = writing_rows(&part, &in->writing, d, d->from->next_version, *io_from, rows, a.vectors, a.dim);
        if (s == STATUS_OK && a.dim > 0 && !in->writing.has_generation)
            s = activate(&part, in);
        (void)FAULT(BEFORE_PART_COMMIT, d->from->name);
        if (s == STATUS_OK)
            s = task_commit(&part, in->task);
        if (s != STATUS_OK) {
            db_rollback(in->task->db);
            s = fail(sc, s, "%s", part.problem_text ? part.problem_text : status_text(s));
        }
        scope_done(&part);
        if (s != STATUS_OK)
            return s;
        in->writing.has_generation = in->writing.has_generation || a.dim > 0;
        (void)FAULT(AFTER_PART_COMMIT, d->from->name);
        *io_from += rows;
    }
    return STATUS_OK;
}

/* The soft limit waits until what was read is committed, which is what it asks for. */
static enum status may_commit(struct scope *sc, struct task *task)
{
    enum status s = task_check(sc, task);
    if (s != STATUS_TIMEOUT)
        return s;
    scope_forgive(sc);
    return STATUS_OK;
}

enum status group_write(struct scope *sc, struct ingest *in, struct group *g)
{
    struct embed_answer answers[GROUP_DOCUMENTS] = {0};
    size_t from[GROUP_DOCUMENTS] = {0};
    int dim = 0;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < g->count && s == STATUS_OK; i++) {
        struct ready_document *d = &g->documents[i];
        if (d->problem)
            continue;
        s = write_early_parts(&g->sc, in, d, &from[i]);
        if (s == STATUS_OK && !d->problem)
            s = writing_embed(&g->sc, &in->writing, d, from[i], d->count - from[i], &answers[i]);
        if (s == STATUS_OK && !d->problem)
            dim = answers[i].dim;
    }
    if (s == STATUS_OK)
        s = may_commit(&g->sc, in->task);
    if (s == STATUS_OK)
        s = db_begin(&g->sc, in->task->db);
    if (s == STATUS_OK && dim > 0)
        s = ensure_generation(&g->sc, in, dim);
    struct change change = {0};
    for (size_t i = 0; i < g->count && s == STATUS_OK; i++) {
        const struct ready_document *d = &g->documents[i];
        if (!d->problem)
            s = writing_rows(&g->sc, &in->writing, d, d->from->next_version, from[i], d->count - from[i],
                             answers[i].vectors, dim);
        if (s == STATUS_OK)
            s = settle_document(&g->sc, in, d, from[i], &change);
    }
    (void)FAULT(BEFORE_DOCUMENT_COMMIT, in->task->operation_id);
    if (s == STATUS_OK)
        s = commit(&g->sc, in, &change, g->count, dim > 0 && !in->writing.has_generation);
    if (s != STATUS_OK) {
        db_rollback(in->task->db);
        return fail(sc, s, "%s", g->sc.problem_text ? g->sc.problem_text : status_text(s));
    }
    (void)FAULT(AFTER_DOCUMENT_COMMIT, in->task->operation_id);
    if (dim > 0)
        in->writing.has_generation = true;
    for (size_t i = 0; i < g->count; i++)
        in->chunks_written += (int64_t)g->documents[i].vector_count;
    metrics_add(METRIC_CHUNKS, NULL, NULL, (double)g->chunks);
    account(sc, in, g);
    return STATUS_OK;
}

void group_reset(struct group *g, const char *trace_id)
{
    for (size_t i = 0; i < g->count; i++)
        ahead_document_free(g->held[i]);
    memset(g->held, 0, sizeof g->held);
    g->held_bytes = 0;
    scope_done(&g->sc);
    scope_init(&g->sc, trace_id);
    g->count = g->chunks = 0;
}

bool group_is_full(const struct ingest *in, const struct group *g)
{
    return g->count == GROUP_DOCUMENTS || g->chunks >= (size_t)in->task->settings->embedding_batch_size ||
           g->sc.arena.used_bytes + g->held_bytes > BATCH_ARENA_BYTES || g->documents[0].from->is_suspected;
}
