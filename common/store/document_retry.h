/* Failed documents that are to be read again: they become pending, and their number of retries rises. In the caller's
 * transaction; lock order: documents first. */
#pragma once

#include "common/db.h"

/* STATUS_INVALID, with the sentence: it did not fail. */
enum status document_retry_one(struct scope *sc, struct db *db, int64_t collection_id, const char *uuid) must_check;
/* The next `limit` of a collection whose failure a retry may help (transient and unknown). With an operation, those
 * that failed by it are left out: they were read again already. */
enum status document_retry_failed(struct scope *sc, struct db *db, int64_t collection_id, int limit,
                                  const char *operation_id, int64_t *out_count) must_check;

struct retryable_documents {
    int64_t failed;  /* that a retry may help */
    int64_t pending; /* that wait already */
};
enum status document_retry_count(struct scope *sc, struct db *db, int64_t collection_id,
                                 struct retryable_documents *out) must_check;
