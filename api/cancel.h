/* Cancelling an operation on behalf of a request: for its own route, and for those that remove what it makes. Rights
 * were checked by the caller. */
#pragma once

#include "api/request.h"
#include "common/store/operation_store.h"

struct cancelled {
    struct operation_ref operation;
    const char *worker; /* that was at it; NULL = it was pending. In the arena */
};

/* In the caller's transaction: the operation is final, audited with who asked for it, and its collection usable again.
 * STATUS_CONFLICT: it is over already. */
enum status cancel_write(struct request *r, const char *uuid, struct cancelled *out) must_check;
/* After the commit, best effort: counts and logs it, tells the worker (which would find out anyway, as its fence is
 * lost) and publishes the last event (which the reconciler does else). */
void cancel_tell(struct request *r, const struct cancelled *c);
