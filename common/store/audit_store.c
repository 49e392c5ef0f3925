#include "common/store/audit_store.h"

#include "build/queries.h"

enum status audit_store_add(struct scope *sc, struct db *db, int64_t user_id, const char *action,
                            const char *collection_uuid, const char *operation_uuid, const char *details_json)
{
    return db_run(sc, db, SQL_OPERATION_AUDIT, NULL, user_id ? db_number(sc, user_id) : NULL, collection_uuid,
                  operation_uuid, action, details_json);
}
