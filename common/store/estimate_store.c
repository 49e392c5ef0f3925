#include "common/store/estimate_store.h"

#include "build/queries.h"

enum status estimate_store_basis(struct scope *sc, struct db *db, int64_t collection_id, int64_t user_id,
                                 const char *model, int64_t source_id, struct estimate_basis *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_ESTIMATE_BASIS, &rows, db_number(sc, collection_id), db_number(sc, user_id),
                           model, source_id ? db_number(sc, source_id) : NULL);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection is gone");
    *out = (struct estimate_basis){
        .documents = db_int(rows, 0, "document_count", 0),
        .bytes = db_int(rows, 0, "total_size_bytes", 0),
        .chunks = db_int(rows, 0, "vector_count", 0),
        .chunk_size = db_int(rows, 0, "chunk_size", -1),
        .chunk_overlap = db_int(rows, 0, "chunk_overlap", -1),
        .model = arena_strdup(&sc->arena, db_text(rows, 0, "embedding_model")),
        .quantization = arena_strdup(&sc->arena, db_text(rows, 0, "quantization")),
        .dim = db_int(rows, 0, "dim", 0),
        .past_operations = db_int(rows, 0, "operations", 0),
        .past_tokens = db_int(rows, 0, "tokens", 0),
        .past_chunks = db_int(rows, 0, "chunks", 0),
        .past_seconds = db_real(rows, 0, "seconds", 0),
        .source_documents = db_int(rows, 0, "source_documents", 0),
        .source_bytes = db_int(rows, 0, "source_bytes", 0),
        .has_gpu = db_int(rows, 0, "gpus", 0) > 0,
    };
    return STATUS_OK;
}
