/* Who may see and change what (visible to its creator, its collection's owner, and everyone if the collection is
 * public; changed by creator or owner), and small things that handlers share. */
#pragma once

#include "api/request.h"
#include "common/store/collection_store.h"
#include "common/store/operation_store.h"

/* STATUS_NOT_FOUND when there is none, STATUS_FORBIDDEN when it is neither the user's nor public. `out_rows` (may be
 * NULL): as clients see it. */
enum status guard_readable(struct request *r, const char *uuid, struct collection *out, PGresult **out_rows) must_check;
/* The same, but the user must own it. */
enum status guard_owned(struct request *r, const char *uuid, struct collection *out, PGresult **out_rows) must_check;
/* After the rollback of a transaction that met a busy collection: STATUS_CONFLICT, naming the operation that holds it.
 * `what` begins the sentence: "Cannot add a source". */
enum status guard_busy(struct request *r, const struct collection *c, const char *what);

/* Counts and logs what is committed. */
void guard_note_accepted(const struct request *r, const struct operation_ref *o);
/* After the commit that accepted an operation: counts it and pushes it to its queue. */
void guard_accepted(struct request *r, const struct operation_ref *o);

/* A comma list of a query parameter, as the array that statements take ("{a,b}"); NULL when absent or empty.
 * STATUS_INVALID naming the valid values when one of them is none of `valid` (NULL-terminated). `what` is how the
 * sentence calls it: "status". */
enum status guard_filter(struct request *r, const char *value, const char *what, const char *const *valid,
                         const char **out_array) must_check;

/* A value as JSON text in the arena; NULL when it is absent or null. */
const char *json_printed(struct request *r, const cJSON *item);
/* A member of the body as JSON text in the arena; NULL when it is absent or null. */
const char *body_json(struct request *r, const char *field);
