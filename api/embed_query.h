/* Queries become vectors on a worker, by POST /internal/embed (worker_call.h). Two tries within two seconds. */
#pragma once

#include "common/config.h"
#include "common/db.h"

/* *out: [*out_dim] finite numbers of length 1, in the arena. STATUS_UNAVAILABLE: no worker has the model or none
 * answered in time. */
enum status embed_query(struct scope *sc, struct db *db, const struct settings *settings, const char *model,
                        const char *query, float **out, int *out_dim) must_check;
/* The answer of /internal/embed for one text; exposed for tests. STATUS_UNAVAILABLE when it is not what was asked for.
 */
enum status embed_query_parse(struct scope *sc, const char *bytes, size_t len, float **out, int *out_dim) must_check;
