/* The table audit_log: who changed what. State changes of operations are written by the statements that make them;
 * here is what else is done: administrative acts and changes of collections. Nothing changes or removes a row but
 * retention. */
#pragma once

#include "common/db.h"

/* One row, in the caller's transaction or as one of its own. `collection_uuid`, `operation_uuid` and `details_json` may
 * be NULL; user_id 0 = the system. `action` is a word with underscores: "collection_updated"; with an operation_uuid it
 * begins with "operation_". */
enum status audit_store_add(struct scope *sc, struct db *db, int64_t user_id, const char *action,
                            const char *collection_uuid, const char *operation_uuid,
                            const char *details_json) must_check;

enum { AUDIT_COUNTED = 10000 }; /* entries are counted, and paged through, to here */

struct audit_filter {
    int64_t user_id;   /* 0 = everybody's */
    int64_t before_id; /* only older entries than this one; 0 = from the newest */
    const char *action, *collection_uuid, *operation_uuid;
    const char *from, *to; /* ISO 8601; from <= created_at < to */
};
/* Newest first; one row at least, for its `total`, which is AUDIT_COUNTED + 1 when there are more. STATUS_INVALID: no
 * such time. */
enum status audit_store_list(struct scope *sc, struct db *db, const struct audit_filter *filter, int limit,
                             int64_t offset, PGresult **out_rows) must_check;
