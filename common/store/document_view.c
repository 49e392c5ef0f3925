#include "common/store/document_view.h"

#include "build/queries.h"

enum status document_view_list(struct scope *sc, struct db *db, int64_t collection_id, const char *states, int limit,
                               int64_t offset, PGresult **out_rows)
{
    return db_run(sc, db, SQL_DOCUMENT_LIST, out_rows, db_number(sc, collection_id), states, db_number(sc, limit),
                  db_number(sc, offset));
}

enum status document_view_find(struct scope *sc, struct db *db, const char *uuid, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_DOCUMENT_FIND, &rows, uuid);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "Document with ID '%s' not found", uuid);
    *out_rows = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status document_view_failed(struct scope *sc, struct db *db, int64_t collection_id, bool only_retryable,
                                 struct failed_documents *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_DOCUMENTS_FAILED_COUNT, &rows, db_number(sc, collection_id),
                           only_retryable ? "true" : "false");
    if (s == STATUS_OK)
        *out = (struct failed_documents){db_int(rows, 0, "transient", 0), db_int(rows, 0, "permanent", 0),
                                         db_int(rows, 0, "unknown", 0), db_int(rows, 0, "total", 0)};
    return s;
}
