/* Documents on their way out, batch after batch, whose caller owns the transaction. Lock order: documents first. */
#pragma once

#include "common/store/vector_store.h"

struct removal_batch {
    int64_t last_id;         /* where the next batch begins */
    int64_t documents;       /* 0 = there are no more */
    int64_t visible, failed; /* of them */
    int64_t visible_bytes;   /* sizes of the visible ones' files */
    int64_t vectors, chunks; /* removed with them */
    int64_t revived;         /* duplicates elsewhere that stand by themselves now, pending */
};

enum status document_removal_count(struct scope *sc, struct db *db, int64_t source_id, int64_t *out) must_check;
/* The next `limit` documents of a source after an id, with their vectors (`generation` may be NULL) and the chunks of
 * all their versions. Ask for `duplicates` first: as long as an original is there its duplicates are whole. What other
 * sources hold as duplicates of these becomes pending. */
enum status document_removal_batch(struct scope *sc, struct db *db, const struct generation *generation,
                                   int64_t collection_id, int64_t source_id, bool duplicates, int64_t after_id,
                                   int limit, struct removal_batch *out) must_check;
/* The same for documents of a collection by their ids; what is not there any more is left out. */
enum status document_removal_ids(struct scope *sc, struct db *db, const struct generation *generation,
                                 int64_t collection_id, const int64_t *ids, size_t count,
                                 struct removal_batch *out) must_check;
/* Removes a source's row, unless it still has documents. */
enum status document_removal_source(struct scope *sc, struct db *db, int64_t collection_id,
                                    int64_t source_id) must_check;
