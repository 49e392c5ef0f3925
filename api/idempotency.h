/* Idempotency-Key: a request that was accepted once is answered the same again, however often it is sent. The key is
 * stored in the transaction that accepts (user, key, hash of method, path and body, status, body), so that an answer is
 * remembered exactly when its work was done. */
#pragma once

#include "api/request.h"

/* Answers a request whose key is known: *out_is_done, the reply is filled. A known key with another request:
 * STATUS_UNPROCESSABLE. A key that is too long or has control characters: STATUS_UNPROCESSABLE. Without the header
 * nothing happens. */
enum status idempotency_replay(struct request *r, bool *out_is_done) must_check;
/* Runs `work` in a transaction that COMMITs when it returns STATUS_OK; it must fill the reply. With the header: a
 * request with the same key that was faster is waited for and its answer is given instead (*out_is_done, `work` not
 * run), or 409 with Retry-After when it takes too long. On failure everything is rolled back. */
enum status idempotency_run(struct request *r, enum status (*work)(struct request *r, void *context), void *context,
                            bool *out_is_done) must_check;
