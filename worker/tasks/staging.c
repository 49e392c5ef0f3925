#include "worker/tasks/staging.h"

#include "common/fault.h"
#include "worker/embed/client.h"
#include "worker/embed/model.h"
#include "worker/tasks/graph.h"
#include "worker/tasks/staging_document.h"

#include <string.h>

enum {
    DOCUMENTS_AT_A_TIME = 50,
    MOST_PIECES = 512,          /* of the documents of one transaction */
    MOST_COPIED_CHUNKS = 10000, /* the same, where they are copied within the database */
    GROUP_ARENA_BYTES = 32 << 20,
    QUERY_TIMEOUT_MS = 120000,
};

enum status staging_settings_of_collection(struct scope *sc, struct db *db, int64_t collection_id,
                                           struct staging_settings *out)
{
    struct ingest_collection c;
    enum status s = document_store_collection(sc, db, collection_id, &c);
    if (s == STATUS_OK)
        *out = (struct staging_settings){
            .model = c.model,
            .quantization = c.quantization,
            .strategy = c.strategy,
            .chunk_size = c.chunk_size,
            .chunk_overlap = c.chunk_overlap,
            .chunking_json = c.chunking_json,
        };
    return s;
}

/* ---- what changes ---- */

struct sizes {
    size_t size, overlap;
};

/* As reading.c chooses them for a model that reads so many tokens. */
static struct sizes sizes_of(const struct settings *settings, const struct staging_settings *wanted, int max_tokens)
{
    struct sizes z = {
        (size_t)(wanted->chunk_size > 0 ? wanted->chunk_size : settings->default_chunk_size),
        (size_t)(wanted->chunk_overlap >= 0 ? wanted->chunk_overlap : settings->default_chunk_overlap),
    };
    (void)chunk_fit((size_t)max_tokens - 2, &z.size, &z.overlap);
    return z;
}

/* Order of members aside. */
static bool same_json(const char *a, const char *b)
{
    scoped(cJSON) *x = a ? cJSON_Parse(a) : cJSON_CreateObject();
    scoped(cJSON) *y = b ? cJSON_Parse(b) : cJSON_CreateObject();
    return x && y && cJSON_Compare(x, y, true);
}

/* How many tokens the model of the live generation reads; that of the new one where it cannot be used here any more. */
static int max_tokens_before(struct scope *sc, const struct staging *st)
{
    char error[256];
    int max_tokens = st->reading.model->max_tokens;
    if (strcmp(st->before.model, st->wanted.model) == 0)
        return max_tokens;
    struct embed_model *model = embed_model_open(
        arena_printf(&sc->arena, "%s/%s", st->task->settings->model_dir, st->before.model), error, sizeof error);
    if (model)
        max_tokens = model->max_tokens;
    embed_model_close(model);
    return max_tokens;
}

static bool chunks_change(struct scope *sc, const struct staging *st)
{
    const char *before = st->before.strategy ? st->before.strategy : "recursive";
    const char *wanted = st->wanted.strategy ? st->wanted.strategy : "recursive";
    const struct settings *settings = st->task->settings;
    struct sizes a = sizes_of(settings, &st->before, max_tokens_before(sc, st));
    struct sizes b = sizes_of(settings, &st->wanted, st->reading.model->max_tokens);
    return strcmp(before, wanted) != 0 || a.size != b.size || a.overlap != b.overlap ||
           !same_json(st->before.chunking_json, st->wanted.chunking_json);
}

/* A half-precision vector in the dress of a float32 one is none. */
static bool vectors_stay(const struct staging *st)
{
    bool is_half = vector_store_is_half(st->wanted.quantization);
    return st->has_live && strcmp(st->live.model, st->wanted.model) == 0 && st->live.dim == st->reading.model->dim &&
           (is_half || !st->live.is_half);
}

/* ---- opening ---- */

enum status staging_prepare(struct scope *sc, struct staging *st, struct task *task,
                            const struct staging_settings *wanted)
{
    *st = (struct staging){.task = task, .wanted = *wanted, .is_exclusive = operation_kind(task->type)->mutates};
    enum status s = staging_settings_of_collection(sc, task->db, task->collection_id, &st->before);
    if (s == STATUS_OK)
        s = reading_open(sc, &st->reading, task, wanted->model, wanted->strategy, wanted->chunk_size,
                         wanted->chunk_overlap);
    if (s != STATUS_OK)
        return s;
    writing_open(&st->writing, task, wanted->model, wanted->quantization);
    s = vector_store_active(sc, task->db, task->collection_id, &st->live);
    st->has_live = s == STATUS_OK;
    if (s != STATUS_OK && s != STATUS_NOT_FOUND)
        return s;
    st->is_cut_anew = chunks_change(sc, st);
    st->can_copy = vectors_stay(st);
    if (st->has_live)
        s = staging_store_live_vectors(sc, task->db, &st->live, &st->counts.vectors_total);
    else
        s = STATUS_OK;
    return s == STATUS_OK ? staging_store_counts(sc, task->db, task->collection_id, 0, &st->counts) : s;
}

static const char *settings_json(struct scope *sc, const struct staging_settings *w)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "embedding_model", w->model);
    json_text(&t, "quantization", w->quantization);
    json_text(&t, "chunking_strategy", w->strategy);
    json_int(&t, "chunk_size", w->chunk_size);
    json_int(&t, "chunk_overlap", w->chunk_overlap);
    json_raw(&t, "chunking_config", w->chunking_json);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status make(struct scope *sc, struct staging *st, const char *settings)
{
    struct task *task = st->task;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = staging_store_make(sc, task->db, task->collection_id, task->operation_id, settings, st->wanted.model,
                               st->reading.model->dim, st->wanted.quantization, &st->generation);
    (void)FAULT(BEFORE_STAGING_COMMIT, task->operation_id);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

/* Where the last attempt stopped: of one document at most there is something that is not whole. */
static enum status tidy_up(struct scope *sc, struct staging *st)
{
    enum status s = db_begin(sc, st->task->db);
    if (s == STATUS_OK)
        s = staging_store_remove_partial(sc, st->task->db, &st->generation);
    if (s == STATUS_OK)
        return task_commit(sc, st->task);
    db_rollback(st->task->db);
    return s;
}

enum status staging_make(struct scope *sc, struct staging *st)
{
    struct task *task = st->task;
    const char *settings = settings_json(sc, &st->wanted);
    enum status s = staging_store_find(sc, task->db, task->operation_id, settings, &st->generation);
    if (s == STATUS_OK)
        s = tidy_up(sc, st);
    else if (s == STATUS_NOT_FOUND)
        s = make(sc, st, settings);
    st->writing.generation = st->generation;
    st->writing.has_generation = s == STATUS_OK;
    return s == STATUS_OK ? staging_store_counts(sc, task->db, task->collection_id, st->generation.id, &st->counts) : s;
}

enum status staging_open(struct scope *sc, struct staging *st, struct task *task, const struct staging_settings *wanted)
{
    enum status s = staging_prepare(sc, st, task, wanted);
    return s == STATUS_OK ? staging_make(sc, st) : s;
}

void staging_close(struct staging *st)
{
    reading_close(&st->reading);
    writing_close(&st->writing);
}

/* ---- filling ---- */

/* Documents that are brought in together. */
struct group {
    struct scope sc; /* owns their texts */
    struct staging_item items[DOCUMENTS_AT_A_TIME];
    size_t count, pieces, copied;
};

static void group_reset(struct group *g, const char *trace_id)
{
    scope_done(&g->sc);
    scope_init(&g->sc, trace_id);
    g->count = g->pieces = g->copied = 0;
}

static bool is_full(const struct group *g, const struct task *task)
{
    return g->count == DOCUMENTS_AT_A_TIME || g->pieces >= (size_t)task->settings->embedding_batch_size ||
           g->pieces >= MOST_PIECES || g->copied >= MOST_COPIED_CHUNKS || g->sc.arena.used_bytes > GROUP_ARENA_BYTES;
}

static enum status add(struct scope *sc, struct staging *st, struct group *g, const struct stageable *from)
{
    struct staging_item *item = &g->items[g->count++];
    *item = (struct staging_item){.from = from};
    task_heartbeat(st->task);
    enum status s = task_check(sc, st->task);
    if (s == STATUS_OK)
        s = staging_item_prepare(sc, &g->sc, st, item);
    if (s == STATUS_OK)
        s = staging_item_write_early(&g->sc, st, item);
    if (s != STATUS_OK)
        return fail(sc, s, "%s", g->sc.problem_text ? g->sc.problem_text : status_text(s));
    g->pieces += item->count - item->written;
    g->copied += item->way == STAGING_COPY ? (size_t)item->chunks : 0;
    return STATUS_OK;
}

static enum status fill_page(struct scope *sc, struct staging *st, struct group *g, const struct stageable *page,
                             size_t count, staging_progress *progress, void *context)
{
    enum status s = STATUS_OK;
    group_reset(g, sc->trace_id);
    for (size_t i = 0; s == STATUS_OK && i < count; i++) {
        s = add(sc, st, g, &page[i]);
        if (s != STATUS_OK || !(is_full(g, st->task) || i + 1 == count))
            continue;
        s = staging_items_write(sc, st, g->items, g->count);
        if (s == STATUS_OK && progress)
            progress(sc, st, page[i].document.name, context);
        group_reset(g, sc->trace_id);
    }
    return s;
}

static enum status fill_pages(struct scope *sc, struct staging *st, struct group *g, staging_progress *progress,
                              void *context)
{
    enum status s = STATUS_OK;
    size_t count = 1;
    for (int64_t after = 0; s == STATUS_OK && count > 0;) {
        struct scope page_scope;
        struct stageable *page = NULL;
        scope_init(&page_scope, sc->trace_id);
        count = 0;
        s = staging_store_next(&page_scope, st->task->db, st->task->collection_id, st->generation.id, after,
                               DOCUMENTS_AT_A_TIME, &page, &count);
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", page_scope.problem_text ? page_scope.problem_text : status_text(s));
        else if (count > 0)
            s = fill_page(sc, st, g, page, count, progress, context);
        if (count > 0)
            after = page[count - 1].document.id;
        scope_done(&page_scope);
    }
    return s;
}

enum status staging_fill(struct scope *sc, struct staging *st, staging_progress *progress, void *context)
{
    struct group *g = must_calloc(1, sizeof *g);
    scope_init(&g->sc, sc->trace_id);
    enum status s = fill_pages(sc, st, g, progress, context);
    scope_done(&g->sc);
    free(g);
    return s == STATUS_OK ? graph_build(sc, st->task, &st->generation, st->counts.vectors) : s;
}

/* ---- asking and dropping ---- */

enum status staging_embed_queries(struct scope *sc, struct staging *st, const struct embed_text *texts, size_t count,
                                  const float **out_vectors, int *out_dim)
{
    int dim = st->generation.dim;
    size_t step = st->task->settings->embedding_batch_size > 0 ? (size_t)st->task->settings->embedding_batch_size : 1;
    float *vectors = arena_array(&sc->arena, count * (size_t)dim + 1, sizeof *vectors);
    for (size_t done = 0, n; done < count; done += n) {
        struct embed_answer answer;
        n = count - done < step ? count - done : step;
        enum status s = embed_client_run(sc, st->writing.embedder, st->wanted.model, EMBED_QUERY,
                                         st->task->operation_id, texts + done, n, QUERY_TIMEOUT_MS, &answer, NULL);
        if (s == STATUS_OK)
            s = task_check(sc, st->task);
        if (s == STATUS_OK && answer.dim != dim)
            s = fail(sc, STATUS_INTERNAL, "the embedder answered with %d dimensions, the model has %d", answer.dim,
                     dim);
        if (s != STATUS_OK)
            return s;
        memcpy(vectors + done * (size_t)dim, answer.vectors, n * (size_t)dim * sizeof *vectors);
    }
    *out_vectors = vectors;
    *out_dim = dim;
    return STATUS_OK;
}

enum status staging_drop(struct scope *sc, struct staging *st)
{
    int64_t chunks;
    return staging_store_remove(sc, st->task->db, st->task->collection_id, st->generation.id, task_has_to_stop,
                                st->task, &chunks);
}
