#include "common/store/document_removal.h"

#include "build/queries.h"

#include <string.h>

enum status document_removal_count(struct scope *sc, struct db *db, int64_t source_id, int64_t *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_REMOVE_SOURCE_COUNT, &rows, db_number(sc, source_id));
    if (s == STATUS_OK)
        *out = db_int(rows, 0, "documents", 0);
    return s;
}

static const char *take_rows(struct scope *sc, const PGresult *rows, struct removal_batch *out)
{
    scoped_text ids = {0};
    for (int r = 0; r < PQntuples(rows); r++) {
        bool is_visible = db_int(rows, r, "live_version", 0) > 0;
        db_array_put(&ids, db_text(rows, r, "id"));
        out->last_id = db_int(rows, r, "id", 0);
        out->documents++;
        out->visible += is_visible;
        out->visible_bytes += is_visible ? db_int(rows, r, "file_size", 0) : 0;
        out->failed += strcmp(db_text(rows, r, "status"), "failed") == 0;
    }
    return arena_strdup(&sc->arena, db_array_end(&ids));
}

static enum status remove_all(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                              const char *ids, struct removal_batch *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = g ? vector_store_remove_documents(sc, db, g, ids, &out->vectors) : STATUS_OK;
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_DOCUMENTS_REMOVE, &rows, db_number(sc, collection_id), ids);
    if (s == STATUS_OK)
        out->chunks = db_int(rows, 0, "chunks", 0);
    return s;
}

static enum status remove_rows(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                               const PGresult *rows, struct removal_batch *out)
{
    scoped(PGresult) *revived = NULL;
    const char *ids = take_rows(sc, rows, out);
    enum status s = remove_all(sc, db, g, collection_id, ids, out);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_DOCUMENTS_REVIVE_DUPLICATES_OF, &revived, db_number(sc, collection_id), ids);
    if (s == STATUS_OK)
        out->revived = db_int(revived, 0, "revived", 0);
    return s;
}

enum status document_removal_ids(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                                 const int64_t *ids, size_t count, struct removal_batch *out)
{
    scoped(PGresult) *rows = NULL;
    scoped_text list = {0};
    *out = (struct removal_batch){0};
    for (size_t i = 0; i < count; i++)
        db_array_put(&list, db_number(sc, ids[i]));
    enum status s = db_run(sc, db, SQL_SYNC_REMOVAL, &rows, db_number(sc, collection_id), db_array_end(&list));
    return s == STATUS_OK && PQntuples(rows) > 0 ? remove_rows(sc, db, g, collection_id, rows, out) : s;
}

enum status document_removal_batch(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                                   int64_t source_id, bool duplicates, int64_t after_id, int limit,
                                   struct removal_batch *out)
{
    scoped(PGresult) *rows = NULL;
    *out = (struct removal_batch){.last_id = after_id};
    enum status s = db_run(sc, db, SQL_REMOVE_SOURCE_BATCH, &rows, db_number(sc, source_id),
                           duplicates ? "true" : "false", db_number(sc, after_id), db_number(sc, limit));
    return s == STATUS_OK && PQntuples(rows) > 0 ? remove_rows(sc, db, g, collection_id, rows, out) : s;
}

enum status document_removal_source(struct scope *sc, struct db *db, int64_t collection_id, int64_t source_id)
{
    return db_run(sc, db, SQL_SOURCE_REMOVE, NULL, db_number(sc, source_id), db_number(sc, collection_id));
}
