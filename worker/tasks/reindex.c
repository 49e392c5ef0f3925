/* REINDEX, blue-green: a new generation is filled beside the live one, which answers every search until the switch. The
 * six checkpoints are preflight, staging, reprocessing, validation, switch, cleanup. The switch is the operation's last
 * transaction (in_last_transaction), so that COMPLETED and the new vectors are the same fact; cleanup is done by the
 * schedule (worker/scheduled/cleanup_retired.c). Whatever ends before the switch leaves the collection as it was: what
 * is staged goes with the leftovers. */
#include "common/fault.h"
#include "worker/tasks/staging.h"
#include "worker/tasks/validation.h"

#include "worker/embed/model.h"

#include <string.h>

enum {
    PREFLIGHT_PERCENT = 10,
    STAGED_PERCENT = 20,
    REPROCESSED_PERCENT = 70,
    VALIDATED_PERCENT = 90,
    CLEANUP_VECTORS = 10000, /* CLEANUP_DELAY_PER_10K_VECTORS */
    ROW_BYTES = 90,          /* of a vector beside its numbers: the row and its two index entries */
};

struct reindex {
    struct staging staging;
    struct validation validation;
    int64_t estimated_bytes, cleanup_after;
};

/* ---- what is wanted ---- */

static enum status read_wanted(struct scope *sc, const struct task *task, struct staging_settings *out)
{
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(task->config, "new_config");
    const cJSON *chunking = cJSON_GetObjectItemCaseSensitive(c, "chunking_config");
    *out = (struct staging_settings){
        .model = json_get_text(c, "embedding_model", NULL),
        .quantization = json_get_text(c, "quantization", NULL),
        .strategy = json_get_text(c, "chunking_strategy", NULL),
        .chunk_size = (int)json_get_int(c, "chunk_size", 0),
        .chunk_overlap = (int)json_get_int(c, "chunk_overlap", -1),
    };
    if (!out->model || !out->quantization)
        return fail(sc, STATUS_INVALID, "the operation does not say with which model and quantization to re-index");
    if (cJSON_IsObject(chunking)) {
        char *printed = cJSON_PrintUnformatted(chunking);
        out->chunking_json = arena_strdup(&sc->arena, printed);
        cJSON_free(printed);
    }
    return STATUS_OK;
}

/* ---- events ---- */

static void put_counts(struct text *t, const struct staged_counts *n)
{
    json_int(t, "documents_unchanged", n->unchanged);
    json_int(t, "documents_cut_from_files", n->from_file);
    json_int(t, "documents_cut_from_stored_text", n->from_chunks);
    json_int(t, "documents_lost", n->lost);
    json_int(t, "vectors", n->vectors);
    json_int(t, "chunks_reused", n->reused);
    json_int(t, "chunks_embedded", n->embedded);
}

static void tell_preflight(struct scope *sc, const struct reindex *r)
{
    const struct staging *st = &r->staging;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "documents", st->counts.documents_total);
    json_int(&t, "vectors", st->counts.vectors_total);
    json_text(&t, "embedding_model", st->wanted.model);
    json_text(&t, "quantization", st->wanted.quantization);
    json_int(&t, "dimension", st->reading.model->dim);
    json_bool(&t, "chunks_change", st->is_cut_anew);
    json_bool(&t, "vectors_can_be_reused", st->can_copy);
    json_int(&t, "estimated_bytes", r->estimated_bytes);
    if (st->reading.note)
        json_text(&t, "note", st->reading.note);
    json_close(&t, '}');
    task_event(sc, st->task, "reindex_preflight", PREFLIGHT_PERCENT, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

static void tell_staging(struct scope *sc, const struct staging *st)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "generation", st->generation.id);
    json_int(&t, "documents", st->counts.documents_total);
    json_int(&t, "documents_staged", st->counts.staged); /* by earlier attempts */
    json_close(&t, '}');
    task_event(sc, st->task, "staging_created", STAGED_PERCENT, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

static void tell_progress(struct scope *sc, struct staging *st, const char *current, void *context)
{
    (void)context;
    struct task *task = st->task;
    task->processed = st->counts.staged;
    task->failed = st->counts.lost;
    double done = task->total > 0 ? (double)task->processed / (double)task->total : 1;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "processed", task->processed);
    json_int(&t, "failed", task->failed);
    json_int(&t, "total", task->total);
    json_text(&t, "current_document", current);
    put_counts(&t, &st->counts);
    json_close(&t, '}');
    task_event(sc, task, "reprocessing_progress",
               STAGED_PERCENT + (REPROCESSED_PERCENT - STAGED_PERCENT) * (done > 1 ? 1 : done), current, text_str(&t),
               task->processed >= task->total ? TASK_EVENT_ALWAYS : 0);
}

static void tell_validation(struct scope *sc, const struct reindex *r)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    validation_json(&t, "validation", &r->validation);
    json_close(&t, '}');
    task_event(sc, r->staging.task, "validation_complete", VALIDATED_PERCENT, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

static const char *summary(struct scope *sc, const struct reindex *r)
{
    const struct staging *st = &r->staging;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "documents_processed", st->counts.staged);
    put_counts(&t, &st->counts);
    json_int(&t, "tokens_embedded", st->writing.tokens_embedded); /* by the last attempt */
    validation_json(&t, "validation", &r->validation);
    json_int(&t, "cleanup_after_seconds", r->cleanup_after);
    if (st->reading.note)
        json_text(&t, "note", st->reading.note);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

/* ---- checkpoints ---- */

/* How much disk PostgreSQL has left cannot be seen from here; what it will take at least can be told. A graph takes
 * about as much as its vectors. */
static int64_t estimate_bytes(const struct staging *st)
{
    int64_t vectors = st->counts.vectors_total;
    int64_t numbers = (int64_t)st->reading.model->dim * (vector_store_is_half(st->wanted.quantization) ? 2 : 4);
    int64_t bytes = vectors * (numbers + ROW_BYTES);
    return vectors > st->task->settings->exact_scan_rows ? bytes * 2 : bytes;
}

static enum status preflight(struct scope *sc, struct reindex *r, struct task *task)
{
    struct staging_settings wanted;
    enum status s = read_wanted(sc, task, &wanted);
    if (s == STATUS_OK)
        s = staging_prepare(sc, &r->staging, task, &wanted);
    if (s != STATUS_OK)
        return s;
    r->estimated_bytes = estimate_bytes(&r->staging);
    task->total = r->staging.counts.documents_total;
    tell_preflight(sc, r);
    (void)FAULT(REINDEX_PREFLIGHT, task->operation_id);
    /* What an append left half written is no document yet. */
    return document_store_remove_leftovers(sc, task->db, task->collection_id, task->task_id);
}

static enum status stage(struct scope *sc, struct reindex *r, struct task *task)
{
    enum status s = staging_make(sc, &r->staging);
    if (s != STATUS_OK)
        return s;
    task->processed = r->staging.counts.staged;
    task->failed = r->staging.counts.lost;
    tell_staging(sc, &r->staging);
    (void)FAULT(STAGING_MADE, task->operation_id);
    return staging_fill(sc, &r->staging, tell_progress, NULL);
}

static enum status validate(struct scope *sc, struct reindex *r, struct task *task)
{
    enum status s = validate_staging(sc, &r->staging, &r->validation);
    if (s != STATUS_OK)
        return s;
    tell_validation(sc, r);
    (void)FAULT(STAGING_VALIDATED, task->operation_id);
    return task_check(sc, task);
}

/* Readers are with the old generation until this transaction commits, and with the new one from then on. */
static enum status switch_over(struct scope *sc, struct task *task)
{
    const struct reindex *r = task->last_context;
    const struct staging *st = &r->staging;
    int64_t old = st->has_live ? st->live.id : 0;
    const struct switched_settings settings = {
        .model = st->wanted.model,
        .quantization = st->wanted.quantization,
        .strategy = st->wanted.strategy,
        .chunking_json = st->wanted.chunking_json,
        .chunk_size = st->wanted.chunk_size,
        .chunk_overlap = st->wanted.chunk_overlap,
    };
    enum status s = staging_store_switch_documents(sc, task->db, st->generation.id, old, r->cleanup_after);
    if (s == STATUS_OK)
        s = task_fence(sc, task);
    if (s == STATUS_OK)
        s = staging_store_switch_collection(sc, task->db, &st->generation, &settings);
    (void)FAULT(BEFORE_SWITCH_COMMIT, task->operation_id);
    return s;
}

static void prepare_end(struct scope *sc, struct reindex *r, struct task *task)
{
    int64_t pieces = (r->staging.counts.vectors_total + CLEANUP_VECTORS - 1) / CLEANUP_VECTORS;
    r->cleanup_after = task->settings->cleanup_delay * (pieces > 1 ? pieces : 1);
    task->processed = r->staging.counts.staged;
    task->failed = r->staging.counts.lost;
    task->result_json = summary(sc, r);
    task->collection_status = "ready";
    task->collection_message = task->failed > 0 ? "Completed with errors" : NULL;
    task->last_stage = "reindex_completed";
    task->in_last_transaction = switch_over;
    task->last_context = r;
}

enum status reindex_run(struct scope *sc, struct task *task)
{
    struct reindex *r = arena_zalloc(&sc->arena, sizeof *r);
    enum status s = preflight(sc, r, task);
    if (s == STATUS_OK)
        s = stage(sc, r, task);
    if (s == STATUS_OK)
        s = validate(sc, r, task);
    if (s == STATUS_OK)
        prepare_end(sc, r, task);
    staging_close(&r->staging);
    return s;
}
