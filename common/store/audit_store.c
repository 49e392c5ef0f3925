#include "common/store/audit_store.h"

#include "build/queries.h"

#include <string.h>

enum status audit_store_add(struct scope *sc, struct db *db, int64_t user_id, const char *action,
                            const char *collection_uuid, const char *operation_uuid, const char *details_json)
{
    return db_run(sc, db, SQL_OPERATION_AUDIT, NULL, user_id ? db_number(sc, user_id) : NULL, collection_uuid,
                  operation_uuid, action, details_json);
}

/* Acts on operations are named so; the others have an index of their own. */
static bool is_of_operations(const char *action)
{
    return strncmp(action, "operation_", strlen("operation_")) == 0;
}

enum status audit_store_list(struct scope *sc, struct db *db, const struct audit_filter *f, int limit, int64_t offset,
                             PGresult **out_rows)
{
    bool is_act = f->action && !is_of_operations(f->action);
    return db_run(sc, db, SQL_AUDIT_LIST, out_rows, f->user_id ? db_number(sc, f->user_id) : NULL, f->action,
                  is_act ? "true" : "false", f->collection_uuid, f->operation_uuid, f->from, f->to,
                  f->before_id ? db_number(sc, f->before_id) : NULL, db_number(sc, limit), db_number(sc, offset));
}
