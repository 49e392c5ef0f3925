/* The table `collections` as the API reads and changes it. Functions that return rows return them in the shape that
 * clients see (the statements' columns are named as the object's fields, row_id beside them); caller: scoped(PGresult).
 * Deleted collections are not found. */
#pragma once

#include "common/db.h"

/* What decides about access and next steps. Strings in the arena. */
struct collection {
    int64_t id; /* row id */
    const char *uuid, *name, *status, *model, *quantization;
    int64_t owner_id;
    bool is_public;
    bool is_continuous;
    int64_t sync_interval_minutes; /* 0 = none */
};

/* What POST makes; NULL and -1 = not given. */
struct collection_new {
    const char *name, *description;
    int64_t owner_id;
    const char *model, *quantization;
    int64_t chunk_size, chunk_overlap;
    const char *strategy, *chunking_json;
    bool is_public;
    const char *metadata_json;
    bool is_continuous;
    int64_t sync_interval_minutes;
};

/* What PUT changes; NULL and -1 = stays, but for `has_…` fields, which may be set to null. */
struct collection_change {
    const char *name;
    bool has_description, has_metadata;
    const char *description, *metadata_json;
    const char *is_public; /* "true", "false" */
    const char *sync_mode;
    int64_t sync_interval_minutes;
};

/* STATUS_NOT_FOUND: unknown or deleted. `out_rows` may be NULL. */
enum status collection_store_find(struct scope *sc, struct db *db, const char *uuid, struct collection *out,
                                  PGresult **out_rows) must_check;
/* A page of what the user may see, newest first; always at least one row, for its `total`. */
enum status collection_store_list(struct scope *sc, struct db *db, int64_t user_id, bool with_public, int limit,
                                  int64_t offset, PGresult **out_rows) must_check;
/* STATUS_CONFLICT with the sentence: the name is taken (names are unique over all users). */
enum status collection_store_insert(struct scope *sc, struct db *db, const struct collection_new *c,
                                    struct collection *out, PGresult **out_rows) must_check;
/* STATUS_CONFLICT: the name is taken; STATUS_NOT_FOUND: deleted meanwhile. */
enum status collection_store_update(struct scope *sc, struct db *db, int64_t id, const struct collection_change *c,
                                    PGresult **out_rows) must_check;
/* To `processing`, after the operation's row went in (lock order: operations, collections). STATUS_CONFLICT: neither
 * pending nor ready, or deleted. */
enum status collection_store_take(struct scope *sc, struct db *db, int64_t id) must_check;
/* Hides it from every reader and frees its name. STATUS_NOT_FOUND: deleted already. */
enum status collection_store_hide(struct scope *sc, struct db *db, int64_t id) must_check;
/* The name of the model as its folder is called, for a name with or without its organisation, in any case, or
 * `dense_local` or NULL for the default one. STATUS_INVALID naming what live workers have. */
enum status collection_store_model(struct scope *sc, struct db *db, const char *default_model, const char *wanted,
                                   const char **out) must_check;
