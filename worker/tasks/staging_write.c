/* Bringing documents into a generation that is built: chunks' vectors copied or embedded, in fenced transactions. */
#include "common/fault.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/embed/client.h"
#include "worker/tasks/staging_document.h"

#include <string.h>

enum {
    EMBED_TIMEOUT_MS = 120000,
    MOST_ROWS_A_TRANSACTION = 512, /* whatever VECTOR_UPLOAD_BATCH_SIZE says */
};

static enum status pass_on(struct scope *sc, enum status s, const struct scope *own)
{
    return s == STATUS_OK ? s : fail(sc, s, "%s", own->problem_text ? own->problem_text : status_text(s));
}

static size_t rows_a_transaction(const struct task *task)
{
    size_t rows = task->settings->vector_batch_size > 0 ? (size_t)task->settings->vector_batch_size : 1;
    return rows > MOST_ROWS_A_TRANSACTION ? MOST_ROWS_A_TRANSACTION : rows;
}

/* ---- embedding ---- */

static void give_up(struct scope *own, struct staging_item *item, const char *problem)
{
    item->way = STAGING_LOST;
    item->source = "lost";
    item->problem = arena_strdup(&own->arena, problem);
}

static bool needs_embedding(const struct piece *p)
{
    return p->of->way != STAGING_LOST && p->has_vector && !p->reused_id && !p->vector;
}

/* One request. A text that the embedder refuses loses its document and none else: the others are asked for again. */
static enum status embed_some(struct scope *own, struct staging *st, struct piece **pieces, size_t count)
{
    struct writing *w = &st->writing;
    struct embed_text *texts = arena_array(&own->arena, count, sizeof *texts);
    for (size_t i = 0; i < count; i++)
        texts[i] = (struct embed_text){pieces[i]->text, pieces[i]->len};
    struct embed_answer answer;
    size_t bad = SIZE_MAX;
    (void)FAULT(BEFORE_EMBEDDING, pieces[0]->of->from->document.name);
    enum status s = embed_client_run(own, w->embedder, w->model, EMBED_PASSAGE, st->task->operation_id, texts, count,
                                     EMBED_TIMEOUT_MS, &answer, &bad);
    if (s == STATUS_INVALID && bad < count) {
        give_up(own, pieces[bad]->of, own->problem_text ? own->problem_text : status_text(s));
        scope_forgive(own);
        return STATUS_OK;
    }
    if (s != STATUS_OK)
        return s;
    (void)FAULT(AFTER_EMBEDDING, pieces[0]->of->from->document.name);
    if (answer.dim != st->generation.dim)
        return fail(own, STATUS_INTERNAL, "the embedder answered with %d dimensions, the model has %d", answer.dim,
                    st->generation.dim);
    for (size_t i = 0; i < count; i++)
        pieces[i]->vector = answer.vectors + i * (size_t)answer.dim;
    w->tokens_embedded += answer.tokens;
    w->chunks_embedded += (int64_t)count;
    st->task->tokens += answer.tokens;
    return STATUS_OK;
}

/* Pieces [0 .. count) of a list that belong to no lost document get their vectors. */
static enum status embed_pieces(struct scope *own, struct staging *st, struct piece **pieces, size_t count)
{
    size_t step = st->task->settings->embedding_batch_size > 0 ? (size_t)st->task->settings->embedding_batch_size : 1;
    struct piece **some = arena_array(&own->arena, step, sizeof *some);
    for (;;) {
        size_t n = 0;
        for (size_t i = 0; i < count && n < step; i++) {
            if (needs_embedding(pieces[i]))
                some[n++] = pieces[i];
        }
        if (n == 0)
            return STATUS_OK;
        enum status s = embed_some(own, st, some, n);
        if (s == STATUS_OK)
            s = task_check(own, st->task);
        if (s != STATUS_OK)
            return s;
    }
}

/* ---- rows ---- */

static enum status copy_reused(struct scope *own, struct staging *st, const struct staging_item *item,
                               const int64_t *from_ids, const int64_t *to_ids, size_t count)
{
    int64_t copied = 0;
    enum status s = staging_store_copy_chunks(own, st->task->db, &st->live, &st->generation, item->from->document.id,
                                              item->version, from_ids, to_ids, count, &copied);
    if (s == STATUS_OK && copied != (int64_t)count)
        return fail(own, STATUS_INTERNAL, "%lld of %zu vectors that were to be copied are missing",
                    (long long)((int64_t)count - copied), count);
    return s;
}

/* Pieces [from .. from + count) of one item; the chunks' rows too where it is cut anew. */
static enum status write_pieces(struct scope *own, struct staging *st, struct staging_item *item, size_t from,
                                size_t count)
{
    const struct pending_document *p = &item->from->document;
    bool is_cut = item->way == STAGING_CUT;
    int version = is_cut ? item->version : p->live_version;
    int64_t *ids = arena_array(&own->arena, count + 1, sizeof *ids);
    int64_t *reused_from = arena_array(&own->arena, count + 1, sizeof *ids);
    int64_t *reused_to = arena_array(&own->arena, count + 1, sizeof *ids);
    struct vector_row *rows = arena_array(&own->arena, count + 1, sizeof *rows);
    size_t row_count = 0, reused = 0;
    enum status s = STATUS_OK;
    if (is_cut && count > 0)
        s = writing_chunk_rows(own, &st->writing, &item->ready, version, from, count, ids);
    for (size_t i = 0; i < count; i++) {
        const struct piece *piece = &item->pieces[from + i];
        int64_t id = is_cut ? ids[i] : piece->chunk_id;
        if (piece->reused_id) {
            reused_from[reused] = piece->reused_id;
            reused_to[reused++] = id;
        } else if (piece->has_vector) {
            rows[row_count++] = (struct vector_row){id, p->id, version, piece->vector};
        }
    }
    if (s == STATUS_OK && row_count > 0)
        s = vector_store_write(own, st->task->db, &st->generation, rows, row_count);
    if (s == STATUS_OK && reused > 0)
        s = copy_reused(own, st, item, reused_from, reused_to, reused);
    item->vectors += (int64_t)(row_count + reused);
    item->embedded += (int64_t)row_count;
    item->reused += (int64_t)reused;
    return s;
}

static struct staged_document record_of(const struct staging_item *item)
{
    const struct pending_document *p = &item->from->document;
    bool is_in = item->way == STAGING_COPY || item->way == STAGING_EMBED || item->way == STAGING_CUT;
    bool is_cut = item->way == STAGING_CUT;
    return (struct staged_document){
        .document_id = p->id,
        .version = is_cut ? item->version : p->live_version,
        .live_version = p->live_version,
        .is_cut = is_cut,
        .chunks = is_in ? item->chunks : 0,
        .vectors = is_in ? item->vectors : 0,
        .reused = is_in ? item->reused : 0,
        .embedded = is_in ? item->embedded : 0,
        .source = item->source,
        .problem = item->problem,
    };
}

/* A version of its own, with the first of its rows. Without one it changed meanwhile. */
static enum status begin(struct scope *own, struct staging *st, struct staging_item *item)
{
    const struct pending_document *p = &item->from->document;
    if (item->way != STAGING_CUT || item->version > 0)
        return STATUS_OK;
    enum status s = staging_store_begin(own, st->task->db, st->generation.id, p->id, p->live_version, st->is_exclusive,
                                        &item->version);
    if (s == STATUS_OK && item->version == 0) {
        item->way = STAGING_SKIPPED;
        item->source = "skipped";
    }
    return s;
}

/* Documents that another operation has changed since they were looked at are left out, with what is in already. */
static enum status leave_out_changed(struct scope *own, struct staging *st, struct staging_item *items, size_t count)
{
    if (st->is_exclusive)
        return STATUS_OK;
    int64_t *ids = arena_array(&own->arena, count, sizeof *ids);
    int *live = arena_array(&own->arena, count, sizeof *live);
    bool is_partial = false;
    for (size_t i = 0; i < count; i++)
        ids[i] = items[i].from->document.id;
    enum status s = staging_store_lock(own, st->task->db, ids, count, live);
    for (size_t i = 0; s == STATUS_OK && i < count; i++) {
        if (live[i] == items[i].from->document.live_version)
            continue;
        is_partial = is_partial || items[i].written > 0;
        items[i].way = STAGING_SKIPPED;
        items[i].source = "skipped";
        items[i].problem = NULL;
    }
    return s == STATUS_OK && is_partial ? staging_store_remove_partial(own, st->task->db, &st->generation) : s;
}

/* ---- transactions ---- */

static struct piece **list_pieces(struct scope *own, struct staging_item *items, size_t count, size_t most,
                                  size_t *out_count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += items[i].count - items[i].written;
    struct piece **list = arena_array(&own->arena, n + 1, sizeof *list);
    n = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = items[i].written; k < items[i].count && n < most; k++)
            list[n++] = &items[i].pieces[k];
    }
    *out_count = n;
    return list;
}

/* What a document has in several transactions is known as not whole until the last one. */
static enum status note_partial(struct scope *own, struct staging *st, const struct staging_item *item)
{
    if (item->way != STAGING_EMBED || item->written > 0)
        return STATUS_OK;
    return staging_store_begin_shared(own, st->task->db, st->generation.id, item->from->document.id,
                                      item->from->document.live_version);
}

static enum status write_part(struct scope *own, struct staging *st, struct staging_item *item, size_t rows)
{
    struct db *db = st->task->db;
    size_t count;
    struct piece **pieces = list_pieces(own, item, 1, rows, &count);
    enum status s = embed_pieces(own, st, pieces, count);
    if (s == STATUS_OK)
        s = task_check(own, st->task);
    if (s != STATUS_OK || item->way == STAGING_LOST)
        return s;
    s = db_begin(own, db);
    if (s == STATUS_OK)
        s = leave_out_changed(own, st, item, 1);
    if (s == STATUS_OK && item->way != STAGING_SKIPPED)
        s = begin(own, st, item);
    if (s == STATUS_OK)
        s = note_partial(own, st, item);
    if (s == STATUS_OK && item->way != STAGING_SKIPPED)
        s = write_pieces(own, st, item, item->written, count);
    (void)FAULT(BEFORE_STAGED_PART_COMMIT, item->from->document.name);
    if (s == STATUS_OK)
        s = task_commit(own, st->task);
    if (s != STATUS_OK)
        db_rollback(db);
    item->written += count;
    return s;
}

enum status staging_item_write_early(struct scope *sc, struct staging *st, struct staging_item *item)
{
    size_t rows = rows_a_transaction(st->task);
    while ((item->way == STAGING_CUT || item->way == STAGING_EMBED) && item->count - item->written > rows) {
        struct scope own;
        scope_init(&own, sc->trace_id);
        enum status s = pass_on(sc, write_part(&own, st, item, rows), &own);
        if (item->problem)
            item->problem = arena_strdup(&sc->arena, item->problem);
        scope_done(&own);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status copy_versions(struct scope *own, struct staging *st, struct staging_item *items, size_t count)
{
    int64_t *ids = arena_array(&own->arena, count, sizeof *ids);
    int64_t *copied = arena_array(&own->arena, count, sizeof *copied);
    int *versions = arena_array(&own->arena, count, sizeof *versions);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i].way != STAGING_COPY)
            continue;
        ids[n] = items[i].from->document.id;
        versions[n++] = items[i].from->document.live_version;
    }
    if (n == 0 || !st->has_live)
        return STATUS_OK;
    enum status s = staging_store_copy(own, st->task->db, &st->live, &st->generation, ids, versions, n, copied);
    for (size_t i = 0, k = 0; s == STATUS_OK && i < count; i++) {
        if (items[i].way == STAGING_COPY)
            items[i].vectors = items[i].reused = copied[k++];
    }
    return s;
}

/* A document that was given up after parts of it went in keeps none of them. */
static enum status remove_given_up(struct scope *own, struct staging *st, const struct staging_item *items,
                                   size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (items[i].way == STAGING_LOST && items[i].written > 0)
            return staging_store_remove_partial(own, st->task->db, &st->generation);
    }
    return STATUS_OK;
}

static enum status write_all(struct scope *own, struct staging *st, struct staging_item *items, size_t count)
{
    enum status s = leave_out_changed(own, st, items, count);
    if (s == STATUS_OK)
        s = remove_given_up(own, st, items, count);
    if (s == STATUS_OK)
        s = copy_versions(own, st, items, count);
    for (size_t i = 0; s == STATUS_OK && i < count; i++) {
        struct staging_item *item = &items[i];
        s = begin(own, st, item);
        if (s == STATUS_OK && (item->way == STAGING_CUT || item->way == STAGING_EMBED))
            s = write_pieces(own, st, item, item->written, item->count - item->written);
        const struct staged_document record = record_of(item);
        if (s == STATUS_OK)
            s = staging_store_done(own, st->task->db, st->generation.id, &record);
    }
    return s;
}

static void count_items(struct scope *sc, struct staging *st, const struct staging_item *items, size_t count)
{
    struct staged_counts *n = &st->counts;
    for (size_t i = 0; i < count; i++) {
        const struct staged_document d = record_of(&items[i]);
        n->staged++;
        n->unchanged += strcmp(d.source, "unchanged") == 0;
        n->from_file += strcmp(d.source, "file") == 0;
        n->from_chunks += strcmp(d.source, "chunks") == 0;
        n->skipped += strcmp(d.source, "skipped") == 0;
        n->vectors += d.vectors;
        n->reused += d.reused;
        n->embedded += d.embedded;
        st->task->chunks += d.embedded;
        if (strcmp(d.source, "lost") != 0)
            continue;
        n->lost++;
        if (!n->problem)
            n->problem = arena_strdup(&sc->arena, d.problem);
        log_info("document_not_staged", log_text("operation", st->task->operation_id),
                 log_text("document", items[i].from->document.name), log_text("reason", d.problem));
    }
}

enum status staging_items_write(struct scope *sc, struct staging *st, struct staging_item *items, size_t count)
{
    struct task *task = st->task;
    struct scope own;
    scope_init(&own, sc->trace_id);
    size_t pieces_count;
    struct piece **pieces = list_pieces(&own, items, count, SIZE_MAX, &pieces_count);
    enum status s = embed_pieces(&own, st, pieces, pieces_count);
    if (s == STATUS_OK)
        s = task_check(&own, task);
    if (s == STATUS_OK)
        s = db_begin(&own, task->db);
    if (s == STATUS_OK)
        s = write_all(&own, st, items, count);
    (void)FAULT(BEFORE_STAGED_COMMIT, task->operation_id);
    if (s == STATUS_OK && st->is_exclusive)
        s = task_progressed(&own, task, st->counts.staged + (int64_t)count, st->counts.lost);
    if (s == STATUS_OK)
        s = task_commit(&own, task);
    if (s != STATUS_OK)
        db_rollback(task->db);
    else
        count_items(sc, st, items, count);
    s = pass_on(sc, s, &own);
    scope_done(&own);
    if (s != STATUS_OK)
        return s;
    (void)FAULT(AFTER_STAGED_COMMIT, task->operation_id);
    task->has_progressed = true;
    task->failures = 0;
    return STATUS_OK;
}
