/* What users may take, what they have, and what running operations have reserved: the tables resource_limits and
 * reservations. Both programs go through here: the API when it accepts, the worker when it registers documents or
 * accepts by the clock. */
#pragma once

#include "common/config.h"
#include "common/db.h"

enum resource { RESOURCE_COLLECTIONS, RESOURCE_DOCUMENTS, RESOURCE_BYTES, RESOURCE_OPERATIONS, RESOURCES };
enum { RESOURCE_UNLIMITED = -1, RESOURCE_DEFAULT = -2 };

/* "collections", "documents", "bytes", "concurrent_operations": in answers and in metrics. */
const char *resource_name(enum resource r);

struct resource_use {
    struct {
        int64_t limit, used; /* limit: RESOURCE_UNLIMITED = none */
        bool is_own;         /* set for this user, not a default */
    } of[RESOURCES];
    const char *updated_at; /* NULL = nothing was ever set for him */
};

/* What an operation or a collection would add. */
struct resource_wish {
    int64_t user_id;
    int64_t amount[RESOURCES]; /* 0 = is not asked for, so a limit that is passed already does not matter */
};

/* Why not, in numbers. `kind`: a resource_name(), or "database_space". */
struct resource_refusal {
    const char *kind;
    int64_t limit, used, reserved, requested;
};

/* Whether operations of this user have to be admitted one by one: he has a limit, of his own or by default. One look at
 * a small table at most. */
enum status resource_store_is_limited(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                                      bool *out) must_check;
/* Whether every user is limited. */
bool resource_store_limits_all(const struct settings *settings);
enum status resource_store_use(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                               struct resource_use *out) must_check;
/* In the transaction that takes what is wished for, before its rows: one at a time for a user, so that of several at
 * once no more than the limit get through. Costs a look when the user has no limits. STATUS_RATE_LIMITED with the
 * sentence and *out when a limit would be passed. */
enum status resource_store_admit(struct scope *sc, struct db *db, const struct settings *settings,
                                 const struct resource_wish *wish, struct resource_refusal *out) must_check;
/* In the transaction that accepts an operation, after its row: reserves space in the database and notes the estimate (a
 * JSON object) with the operation. STATUS_NO_SPACE with the sentence and *out when MAX_DATABASE_BYTES would be passed
 * by what is there, what is reserved and this. A reservation counts as long as its operation is pending or processing.
 */
enum status resource_store_reserve(struct scope *sc, struct db *db, const struct settings *settings,
                                   const char *operation_uuid, int64_t bytes, const char *estimate_json,
                                   struct resource_refusal *out) must_check;
/* The room that a collection's owner has for documents, in the transaction that registers them: locks as
 * resource_store_admit() does. INT64_MAX = no limit. */
struct resource_room {
    int64_t documents, bytes;
    int64_t document_limit, byte_limit;
};
enum status resource_store_room(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                                struct resource_room *out) must_check;

/* Sets all of a user's limits (RESOURCE_DEFAULT, RESOURCE_UNLIMITED, or a number). In the caller's transaction, after
 * resource_store_lock(). */
enum status resource_store_set(struct scope *sc, struct db *db, int64_t user_id,
                               const int64_t limits[RESOURCES]) must_check;
enum status resource_store_forget(struct scope *sc, struct db *db, int64_t user_id) must_check;
enum status resource_store_lock(struct scope *sc, struct db *db, int64_t user_id) must_check;

struct resource_space {
    int64_t database_bytes, reserved_bytes;
};
enum status resource_store_space(struct scope *sc, struct db *db, struct resource_space *out) must_check;
