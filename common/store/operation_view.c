#include "common/store/operation_view.h"

#include "build/queries.h"

static enum status one_row(struct scope *sc, const char *uuid, PGresult **rows, PGresult **out_rows)
{
    if (PQntuples(*rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "Operation with ID '%s' not found", uuid);
    *out_rows = *rows;
    *rows = NULL;
    return STATUS_OK;
}

enum status operation_view_find(struct scope *sc, struct db *db, const char *uuid, bool names_workers,
                                PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, db, SQL_OPERATION_VIEW_ONE, &rows, uuid, names_workers ? "true" : "false");
    return s == STATUS_OK ? one_row(sc, uuid, &rows, out_rows) : s;
}

enum status operation_view_metrics(struct scope *sc, struct db *db, const char *uuid, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_OPERATION_METRICS, &rows, uuid);
    return s == STATUS_OK ? one_row(sc, uuid, &rows, out_rows) : s;
}

enum status operation_view_list(struct scope *sc, struct db *db, const struct operation_filter *f, int limit,
                                int64_t offset, PGresult **out_rows)
{
    return db_run(sc, db, SQL_OPERATION_VIEW_LIST, out_rows, f->user_id ? db_number(sc, f->user_id) : NULL,
                  f->collection_id ? db_number(sc, f->collection_id) : NULL, f->states, f->types, db_number(sc, limit),
                  db_number(sc, offset));
}
