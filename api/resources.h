/* What users may take, at the door: refusals with 429 (a limit of the user's) and 507 (no space), with the numbers. */
#pragma once

#include "api/guard.h"
#include "common/store/resource_store.h"

/* In the transaction that accepts, before any of its rows. What removes things is never refused. STATUS_RATE_LIMITED:
 * the reply is filled. */
enum status resource_admit(struct request *r, enum operation_type type, bool reads_source) must_check;
/* The same for a new collection and the operation that makes it. */
enum status resource_admit_collection(struct request *r, bool reads_source) must_check;
/* In the transaction that accepts, after the operation's row: estimates what it needs, notes that with the operation,
 * and reserves the space of a kind that needs it all before it gives anything back (reindex). STATUS_NO_SPACE: the
 * reply is filled. */
enum status resource_reserve(struct request *r, const struct collection *c, enum operation_type type,
                             const char *config_json, const struct operation_ref *o) must_check;
