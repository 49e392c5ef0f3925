/* What an operation on a collection would take, before it begins: from the collection as it is, from what the source
 * holds, and from what past operations took. */
#pragma once

#include "api/guard.h"
#include "common/estimate.h"

/* A rebuild with what `asked` changes: embedding_model, quantization, chunk_size, chunk_overlap, chunking_strategy. May
 * run in a transaction. */
enum status estimate_reindex(struct request *r, const struct collection *c, const cJSON *asked,
                             struct estimate *out) must_check;
/* Reading the source that the request names (source_path or source_config); looks into the directory for two seconds at
 * most. */
enum status estimate_append(struct request *r, const struct collection *c, struct estimate *out) must_check;
/* Following all of the collection's sources: what they hold now more than the collection has. */
enum status estimate_sync(struct request *r, const struct collection *c, struct estimate *out) must_check;
