#include "common/store/chunking_store.h"

#include "build/queries.h"

enum status chunking_store_find(struct scope *sc, struct db *db, int64_t collection_id, struct chunking_stats *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_CHUNKING_STATS_FIND, &rows, db_number(sc, collection_id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection was deleted");
    *out = (struct chunking_stats){
        .json = arena_strdup(&sc->arena, db_text(rows, 0, "chunking")),
        .computed_at = arena_strdup(&sc->arena, db_text(rows, 0, "computed_at")),
        .is_fresh = db_bool(rows, 0, "is_fresh"),
        .vector_count = db_int(rows, 0, "vector_count", 0),
        .strategy = arena_strdup(&sc->arena, db_text(rows, 0, "strategy")),
    };
    return STATUS_OK;
}

enum status chunking_store_compute(struct scope *sc, struct db *db, int64_t collection_id, struct chunking_stats *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_CHUNKING_STATS_COMPUTE, &rows, db_number(sc, collection_id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection was deleted");
    out->json = arena_strdup(&sc->arena, db_text(rows, 0, "chunking"));
    out->computed_at = arena_strdup(&sc->arena, db_text(rows, 0, "computed_at"));
    out->is_fresh = true;
    return STATUS_OK;
}

enum status chunking_store_due(struct scope *sc, struct db *db, int64_t after_id, int limit, PGresult **out_rows)
{
    return db_run(sc, db, SQL_CHUNKING_STATS_DUE, out_rows, db_number(sc, after_id), db_number(sc, limit));
}
