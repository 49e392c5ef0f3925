/* What estimates start from, read out of the tables: common/estimate.h does the arithmetic. */
#pragma once

#include "common/db.h"

struct estimate_basis {
    int64_t documents, bytes, chunks;  /* of the collection as it is */
    int64_t chunk_size, chunk_overlap; /* the collection's; -1 = not set */
    const char *model, *quantization;  /* likewise, in the arena */
    int64_t dim;                       /* of the model that was asked for; 0 = no generation knows it */
    int64_t past_operations;           /* of the user, among his newest 200, that embedded something */
    int64_t past_tokens, past_chunks;
    double past_seconds;
    int64_t source_documents, source_bytes; /* of the source, in the collection already */
    bool has_gpu;                           /* a live worker has one */
};

/* `model`: the one that the operation is for; NULL = the collection's. source_id 0 = none. STATUS_NOT_FOUND: no such
 * collection. */
enum status estimate_store_basis(struct scope *sc, struct db *db, int64_t collection_id, int64_t user_id,
                                 const char *model, int64_t source_id, struct estimate_basis *out) must_check;
