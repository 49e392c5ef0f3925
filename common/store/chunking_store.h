/* Figures about a collection's chunks, kept in collection_statistics. */
#pragma once

#include "common/db.h"

struct chunking_stats {
    const char *json;        /* an object; NULL = never counted */
    const char *computed_at; /* ISO 8601; NULL likewise */
    bool is_fresh;           /* the collection has not changed since */
    int64_t vector_count;    /* as of now */
    const char *strategy;    /* of the collection */
};

/* STATUS_NOT_FOUND: deleted. */
enum status chunking_store_find(struct scope *sc, struct db *db, int64_t collection_id,
                                struct chunking_stats *out) must_check;
/* Counts, keeps, and fills `json`, `computed_at` and `is_fresh`; reads every chunk's row of the collection.
 * STATUS_NOT_FOUND: deleted. */
enum status chunking_store_compute(struct scope *sc, struct db *db, int64_t collection_id,
                                   struct chunking_stats *out) must_check;
/* Collections whose figures are out of date: columns id, uuid; caller: scoped(PGresult). */
enum status chunking_store_due(struct scope *sc, struct db *db, int64_t after_id, int limit,
                               PGresult **out_rows) must_check;
