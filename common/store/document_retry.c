#include "common/store/document_retry.h"

#include "build/queries.h"

enum status document_retry_one(struct scope *sc, struct db *db, int64_t collection_id, const char *uuid)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_DOCUMENT_RESET, &rows, uuid, db_number(sc, collection_id));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_INVALID, "Only failed documents can be retried");
    return s;
}

enum status document_retry_failed(struct scope *sc, struct db *db, int64_t collection_id, int limit,
                                  const char *operation_id, int64_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_DOCUMENTS_RESET_FAILED, &rows, db_number(sc, collection_id),
                           db_number(sc, limit), operation_id);
    if (s == STATUS_OK)
        *out_count = PQntuples(rows);
    return s;
}

enum status document_retry_count(struct scope *sc, struct db *db, int64_t collection_id,
                                 struct retryable_documents *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_DOCUMENTS_RETRYABLE, &rows, db_number(sc, collection_id));
    if (s == STATUS_OK)
        *out = (struct retryable_documents){db_int(rows, 0, "failed", 0), db_int(rows, 0, "pending", 0)};
    return s;
}
