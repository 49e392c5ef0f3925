#include "common/store/staging_store.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/text.h"

#include <string.h>

enum {
    ORPHANS_AT_A_TIME = 20,
    DOCUMENTS_AT_A_TIME = 50, /* whose chunks are removed in one transaction */
};

static const char *ids_array(struct scope *sc, const int64_t *ids, size_t count)
{
    scoped_text t = {0};
    for (size_t i = 0; i < count; i++)
        text_printf(&t, "%c%lld", i ? ',' : '{', (long long)ids[i]);
    text_puts(&t, count ? "}" : "{}");
    return arena_strdup(&sc->arena, text_str(&t));
}

static const char *versions_array(struct scope *sc, const int *versions, size_t count)
{
    scoped_text t = {0};
    for (size_t i = 0; i < count; i++)
        text_printf(&t, "%c%d", i ? ',' : '{', versions[i]);
    text_puts(&t, count ? "}" : "{}");
    return arena_strdup(&sc->arena, text_str(&t));
}

static const char *yes(bool is_so)
{
    return is_so ? "true" : "false";
}

/* ---- the generation ---- */

enum status staging_store_find(struct scope *sc, struct db *db, const char *operation_id, const char *settings_json,
                               struct generation *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_FIND, &rows, operation_id, settings_json);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return STATUS_NOT_FOUND;
    *out = (struct generation){
        .id = db_int(rows, 0, "id", 0),
        .collection_id = db_int(rows, 0, "collection_id", 0),
        .dim = (int)db_int(rows, 0, "dim", 0),
        .has_graph = db_bool(rows, 0, "has_graph"),
        .is_half = vector_store_is_half(db_text(rows, 0, "quantization")),
        .model = arena_strdup(&sc->arena, db_text(rows, 0, "model")),
    };
    return STATUS_OK;
}

enum status staging_store_make(struct scope *sc, struct db *db, int64_t collection_id, const char *operation_id,
                               const char *settings_json, const char *model, int dim, const char *quantization,
                               struct generation *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_INSERT, &rows, db_number(sc, collection_id), model, db_number(sc, dim),
                           quantization, operation_id, settings_json);
    if (s != STATUS_OK)
        return s;
    return vector_store_make(sc, db, db_int(rows, 0, "id", 0), collection_id, model, dim, quantization, out);
}

enum status staging_store_counts(struct scope *sc, struct db *db, int64_t collection_id, int64_t generation_id,
                                 struct staged_counts *out)
{
    scoped(PGresult) *rows = NULL;
    int64_t vectors_total = out->vectors_total;
    enum status s = db_run(sc, db, SQL_STAGING_COUNTS, &rows, db_number(sc, collection_id),
                           generation_id ? db_number(sc, generation_id) : NULL);
    if (s != STATUS_OK)
        return s;
    *out = (struct staged_counts){
        .documents_total = db_int(rows, 0, "documents_total", 0),
        .vectors_total = vectors_total,
        .staged = db_int(rows, 0, "staged", 0),
        .unchanged = db_int(rows, 0, "unchanged", 0),
        .from_file = db_int(rows, 0, "from_file", 0),
        .from_chunks = db_int(rows, 0, "from_chunks", 0),
        .lost = db_int(rows, 0, "lost", 0),
        .skipped = db_int(rows, 0, "skipped", 0),
        .vectors = db_int(rows, 0, "vectors", 0),
        .reused = db_int(rows, 0, "reused", 0),
        .embedded = db_int(rows, 0, "embedded", 0),
        .problem = arena_strdup(&sc->arena, db_text(rows, 0, "problem")),
    };
    return STATUS_OK;
}

enum status staging_store_live_vectors(struct scope *sc, struct db *db, const struct generation *live, int64_t *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_statement(sc, SQL_STAGING_LIVE_VECTORS, live, live), &rows,
                           db_number(sc, live->collection_id));
    if (s == STATUS_OK)
        *out = db_int(rows, 0, "vectors", 0);
    return s;
}

/* ---- documents ---- */

enum status staging_store_next(struct scope *sc, struct db *db, int64_t collection_id, int64_t generation_id,
                               int64_t after_id, int limit, struct stageable **out, size_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_NEXT, &rows, db_number(sc, collection_id), db_number(sc, generation_id),
                           db_number(sc, after_id), db_number(sc, limit));
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows);
    struct stageable *list = arena_array(&sc->arena, (size_t)n + 1, sizeof *list);
    for (int r = 0; r < n; r++) {
        list[r].document = (struct pending_document){
            .id = db_int(rows, r, "id", 0),
            .size = db_int(rows, r, "file_size", 0),
            .mtime_ns = db_int(rows, r, "mtime_ns", 0),
            .path = document_store_path(sc, db_text(rows, r, "path")),
            .name = arena_strdup(&sc->arena, db_text(rows, r, "file_name")),
            .hash = arena_strdup(&sc->arena, db_text(rows, r, "content_hash")),
            .next_version = (int)db_int(rows, r, "next_version", 1),
            .live_version = (int)db_int(rows, r, "live_version", 0),
            .chunk_count = (int)db_int(rows, r, "chunk_count", 0),
        };
        list[r].is_settled = db_bool(rows, r, "is_settled");
    }
    *out = list;
    *out_count = (size_t)n;
    return STATUS_OK;
}

enum status staging_store_chunks(struct scope *sc, struct db *db, const struct generation *live, int64_t collection_id,
                                 int64_t document_id, int version, struct stored_chunk **out, size_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    const char *sql = live ? vector_store_statement(sc, SQL_STAGING_CHUNKS, live, live) : SQL_STAGING_CHUNKS;
    enum status s = db_run(sc, db, sql, &rows, db_number(sc, collection_id), db_number(sc, document_id),
                           db_number(sc, version));
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows);
    struct stored_chunk *list = arena_array(&sc->arena, (size_t)n + 1, sizeof *list);
    for (int r = 0; r < n; r++) {
        const char *content = db_text(rows, r, "content");
        size_t len = strlen(content);
        list[r] = (struct stored_chunk){
            .id = db_int(rows, r, "id", 0),
            .start = (uint32_t)db_int(rows, r, "start_byte", 0),
            .end = (uint32_t)db_int(rows, r, "end_byte", 0),
            .content = arena_strndup(&sc->arena, content, len),
            .content_len = len,
            .has_vector = db_bool(rows, r, "has_vector"),
        };
    }
    *out = list;
    *out_count = (size_t)n;
    return STATUS_OK;
}

enum status staging_store_begin(struct scope *sc, struct db *db, int64_t generation_id, int64_t document_id,
                                int live_version, bool is_exclusive, int *out_version)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_BEGIN, &rows, db_number(sc, generation_id), db_number(sc, document_id),
                           db_number(sc, live_version), yes(is_exclusive));
    if (s == STATUS_OK)
        *out_version = PQntuples(rows) ? (int)db_int(rows, 0, "version", 0) : 0;
    return s;
}

enum status staging_store_begin_shared(struct scope *sc, struct db *db, int64_t generation_id, int64_t document_id,
                                       int live_version)
{
    return db_run(sc, db, SQL_STAGING_BEGIN_SHARED, NULL, db_number(sc, generation_id), db_number(sc, document_id),
                  db_number(sc, live_version));
}

enum status staging_store_lock(struct scope *sc, struct db *db, const int64_t *document_ids, size_t count,
                               int *out_live)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_LOCK, &rows, ids_array(sc, document_ids, count));
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < count; i++) {
        out_live[i] = 0;
        for (int r = 0; r < PQntuples(rows); r++) {
            if (db_int(rows, r, "id", 0) == document_ids[i])
                out_live[i] = (int)db_int(rows, r, "live_version", 0);
        }
    }
    return STATUS_OK;
}

enum status staging_store_copy(struct scope *sc, struct db *db, const struct generation *from,
                               const struct generation *to, const int64_t *document_ids, const int *versions,
                               size_t count, int64_t *out_copied)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_statement(sc, SQL_STAGING_COPY, from, to), &rows,
                           ids_array(sc, document_ids, count), versions_array(sc, versions, count));
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < count; i++) {
        out_copied[i] = 0;
        for (int r = 0; r < PQntuples(rows); r++) {
            if (db_int(rows, r, "document_id", 0) == document_ids[i])
                out_copied[i] = db_int(rows, r, "vectors", 0);
        }
    }
    return STATUS_OK;
}

enum status staging_store_copy_chunks(struct scope *sc, struct db *db, const struct generation *from,
                                      const struct generation *to, int64_t document_id, int version,
                                      const int64_t *from_ids, const int64_t *to_ids, size_t count, int64_t *out_copied)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_statement(sc, SQL_STAGING_COPY_CHUNKS, from, to), &rows,
                           db_number(sc, document_id), db_number(sc, version), ids_array(sc, from_ids, count),
                           ids_array(sc, to_ids, count));
    if (s == STATUS_OK)
        *out_copied = strtoll(PQcmdTuples(rows), NULL, 10);
    return s;
}

enum status staging_store_done(struct scope *sc, struct db *db, int64_t generation_id, const struct staged_document *d)
{
    return db_run(sc, db, SQL_STAGING_DONE, NULL, db_number(sc, generation_id), db_number(sc, d->document_id),
                  db_number(sc, d->version), db_number(sc, d->live_version), yes(d->is_cut), d->source, d->problem,
                  db_number(sc, d->chunks), db_number(sc, d->vectors), db_number(sc, d->reused),
                  db_number(sc, d->embedded));
}

enum status staging_store_remove_partial(struct scope *sc, struct db *db, const struct generation *g)
{
    return db_run(sc, db, vector_store_statement(sc, SQL_STAGING_PARTIAL, g, g), NULL, db_number(sc, g->id),
                  db_number(sc, g->collection_id));
}

/* ---- looking at it ---- */

enum status staging_store_count_vectors(struct scope *sc, struct db *db, const struct generation *g, int64_t *out_named,
                                        int64_t *out_other)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_statement(sc, SQL_STAGING_COUNT_VECTORS, g, g), &rows,
                           db_number(sc, g->id));
    if (s != STATUS_OK)
        return s;
    *out_named = db_int(rows, 0, "named", 0);
    *out_other = db_int(rows, 0, "other", 0);
    return STATUS_OK;
}

enum status staging_store_sample(struct scope *sc, struct db *db, const struct generation *g, const char *seed,
                                 int count, struct sampled_chunk **out, size_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_statement(sc, SQL_STAGING_SAMPLE, g, g), &rows,
                           db_number(sc, g->collection_id), seed, db_number(sc, count));
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows);
    struct sampled_chunk *list = arena_array(&sc->arena, (size_t)n + 1, sizeof *list);
    for (int r = 0; r < n; r++) {
        const char *content = arena_strdup(&sc->arena, db_text(rows, r, "content"));
        list[r] = (struct sampled_chunk){db_int(rows, r, "chunk_id", 0), db_int(rows, r, "document_id", 0), content,
                                         strlen(content)};
    }
    *out = list;
    *out_count = (size_t)n;
    return STATUS_OK;
}

enum status staging_store_same_text(struct scope *sc, struct db *db, int64_t collection_id, const int64_t *chunk_ids,
                                    size_t count, const char *content, int64_t *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_SAME_TEXT, &rows, db_number(sc, collection_id),
                           ids_array(sc, chunk_ids, count), content);
    if (s == STATUS_OK)
        *out = db_int(rows, 0, "chunks", 0);
    return s;
}

/* ---- the switch ---- */

/* The generation comes first: staging_store_forget() holds on to it while it removes notes. */
enum status staging_store_switch_documents(struct scope *sc, struct db *db, int64_t generation_id, int64_t retired_id,
                                           int64_t delay_seconds)
{
    enum status s = STATUS_OK;
    if (retired_id)
        s = db_run(sc, db, SQL_STAGING_RETIRE, NULL, db_number(sc, retired_id), db_number(sc, delay_seconds));
    return s == STATUS_OK ? db_run(sc, db, SQL_STAGING_SWITCH_DOCUMENTS, NULL, db_number(sc, generation_id),
                                   retired_id ? db_number(sc, retired_id) : NULL)
                          : s;
}

enum status staging_store_switch_collection(struct scope *sc, struct db *db, const struct generation *g,
                                            const struct switched_settings *settings)
{
    const char *size = settings->chunk_size > 0 ? db_number(sc, settings->chunk_size) : NULL;
    const char *overlap = settings->chunk_overlap >= 0 ? db_number(sc, settings->chunk_overlap) : NULL;
    enum status s = db_run(sc, db, SQL_STAGING_ACTIVATE, NULL, db_number(sc, g->id));
    return s == STATUS_OK ? db_run(sc, db, SQL_STAGING_SWITCH_COLLECTION, NULL, db_number(sc, g->collection_id),
                                   db_number(sc, g->id), settings->model, settings->quantization, size, overlap,
                                   settings->strategy, settings->chunking_json)
                          : s;
}

/* ---- what goes ---- */

static enum status remove_piece(struct scope *sc, struct db *db, int64_t generation_id, int64_t collection_id,
                                int64_t *out_documents, int64_t *io_chunks)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_REMOVE, &rows, db_number(sc, generation_id),
                           db_number(sc, collection_id), db_number(sc, DOCUMENTS_AT_A_TIME));
    if (s != STATUS_OK)
        return s;
    *out_documents = db_int(rows, 0, "documents", 0);
    *io_chunks += db_int(rows, 0, "chunks", 0);
    return STATUS_OK;
}

enum status staging_store_remove(struct scope *sc, struct db *db, int64_t collection_id, int64_t generation_id,
                                 bool (*should_stop)(void *context), void *context, int64_t *out_chunks)
{
    *out_chunks = 0;
    enum status s = vector_store_drop(sc, db, generation_id);
    (void)FAULT(STAGING_DROPPED, NULL);
    for (int64_t documents = 1; s == STATUS_OK && documents > 0;) {
        if (should_stop && should_stop(context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        s = remove_piece(sc, db, generation_id, collection_id, &documents, out_chunks);
    }
    return s == STATUS_OK ? db_run(sc, db, SQL_STAGING_REMOVE_GENERATION, NULL, db_number(sc, generation_id)) : s;
}

/* One that cannot be removed now (somebody still writes to it) does not keep the others waiting. */
enum status staging_store_remove_leftovers(struct scope *sc, struct db *db, bool (*should_stop)(void *context),
                                           void *context)
{
    enum status worst = STATUS_OK;
    int64_t after = 0;
    for (int n = ORPHANS_AT_A_TIME; n == ORPHANS_AT_A_TIME;) {
        scoped(PGresult) *rows = NULL;
        enum status s = db_run(sc, db, SQL_STAGING_ORPHANS, &rows, db_number(sc, after),
                               db_number(sc, ORPHANS_AT_A_TIME));
        if (s != STATUS_OK)
            return s;
        n = PQntuples(rows);
        for (int r = 0; r < n; r++) {
            int64_t chunks;
            after = db_int(rows, r, "id", 0);
            s = staging_store_remove(sc, db, db_int(rows, r, "collection_id", 0), after, should_stop, context, &chunks);
            if (s == STATUS_CANCELLED)
                return s;
            worst = worst == STATUS_OK ? s : worst;
        }
    }
    return worst;
}

enum status staging_store_next_retired(struct scope *sc, struct db *db, int64_t after_id, int64_t *out_id,
                                       int64_t *out_collection_id)
{
    scoped(PGresult) *rows = NULL;
    *out_id = *out_collection_id = 0;
    enum status s = db_run(sc, db, SQL_STAGING_RETIRED, &rows, db_number(sc, after_id));
    if (s == STATUS_OK && PQntuples(rows) > 0) {
        *out_id = db_int(rows, 0, "id", 0);
        *out_collection_id = db_int(rows, 0, "collection_id", 0);
    }
    return s;
}

enum status staging_store_forget(struct scope *sc, struct db *db, int limit, int64_t *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_STAGING_FORGET, &rows, db_number(sc, limit));
    if (s == STATUS_OK)
        *out = strtoll(PQcmdTuples(rows), NULL, 10);
    return s;
}
