/* Accepting an operation on a collection: the one way in for all kinds but the first INDEX and APPEND, whose rows are
 * written by statements of their own. Rights were checked by the caller. */
#pragma once

#include "api/guard.h"

struct acceptance {
    const struct collection *collection;
    enum operation_type type;
    const char *config_json; /* an object, not empty */
    const char *what;        /* begins the sentence of a refusal: "Cannot re-index the collection" */
    /* More rows of the same transaction, after the operation's; lock order: documents, operations, collections, so it
     * locks none of the first two. NULL = none. */
    enum status (*also)(struct request *r, const struct operation_ref *o, void *context);
    /* Rows that come before it (documents). NULL = none. */
    enum status (*before)(struct request *r, void *context);
    /* Fills the reply within the transaction; NULL = 202 with the operation. */
    enum status (*reply)(struct request *r, const struct operation_ref *o, void *context);
    void *context;
};

/* With Idempotency-Key as idempotency.h says. A kind that mutates makes the collection `processing`; STATUS_CONFLICT
 * names the operation that holds it; STATUS_RATE_LIMITED and STATUS_NO_SPACE: a limit would be passed, the reply is
 * filled (resources.h). The operation is durable, counted and pushed when it returns STATUS_OK, unless
 * *out_is_replay (the reply is an earlier one's). `out` may be NULL. */
enum status accept_operation(struct request *r, const struct acceptance *a, struct operation_ref *out,
                             bool *out_is_replay) must_check;
