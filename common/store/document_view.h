/* Documents as clients read them; ingestion's side is document_store.h. Rows; caller: scoped(PGresult). */
#pragma once

#include "common/db.h"

/* `states`: an array as PostgreSQL writes it, NULL = all but deleted ones. Always at least one row, for its `total`. */
enum status document_view_list(struct scope *sc, struct db *db, int64_t collection_id, const char *states, int limit,
                               int64_t offset, PGresult **out_rows) must_check;
/* STATUS_NOT_FOUND with the sentence. Beside the object's fields: collection_row_id, path_hex. */
enum status document_view_find(struct scope *sc, struct db *db, const char *uuid, PGresult **out_rows) must_check;

struct failed_documents {
    int64_t transient, permanent, unknown, total;
};
enum status document_view_failed(struct scope *sc, struct db *db, int64_t collection_id, bool only_retryable,
                                 struct failed_documents *out) must_check;
