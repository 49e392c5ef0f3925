/* The table audit_log: who changed what. State changes of operations are written by the statements that make them;
 * here is what else is done: administrative acts and changes of collections. */
#pragma once

#include "common/db.h"

/* One row, in the caller's transaction or as one of its own. `collection_uuid`, `operation_uuid` and `details_json` may
 * be NULL; user_id 0 = the system. `action` is a word with underscores: "collection_updated". */
enum status audit_store_add(struct scope *sc, struct db *db, int64_t user_id, const char *action,
                            const char *collection_uuid, const char *operation_uuid,
                            const char *details_json) must_check;
