/* The table `sources`, and who may index what. Rows as clients see them; caller: scoped(PGresult). */
#pragma once

#include "common/db.h"

struct source_new {
    int64_t collection_id;
    const char *type, *path, *config_json;
};

/* In the caller's transaction; a path that the collection has already re-uses its source. */
enum status source_store_put(struct scope *sc, struct db *db, const struct source_new *source,
                             int64_t *out_id) must_check;
/* Always at least one row, for its `total`. */
enum status source_store_list(struct scope *sc, struct db *db, int64_t collection_id, int limit, int64_t offset,
                              PGresult **out_rows) must_check;
/* By id (path NULL) or by path (id 0). STATUS_NOT_FOUND with the sentence. */
enum status source_store_find(struct scope *sc, struct db *db, int64_t collection_id, int64_t id, const char *path,
                              PGresult **out_rows) must_check;
/* Members of `config_json` (an object) take the place of those of the same name. STATUS_NOT_FOUND: there is no such
 * source. */
enum status source_store_update(struct scope *sc, struct db *db, int64_t collection_id, int64_t id,
                                const char *config_json) must_check;
/* Whether a grant of the user covers the absolute path (SOURCE_ROOTS_FOR=granted). */
enum status source_store_is_granted(struct scope *sc, struct db *db, int64_t user_id, const char *path,
                                    bool *out) must_check;
