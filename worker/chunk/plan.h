/* What a collection's settings come to: the options that its documents are cut with, by ingestion and by previews. */
#pragma once

#include "common/config.h"
#include "worker/chunk/chunk.h"

struct embed_model;

/* As they stand in a collection or a request. */
struct chunk_wishes {
    const char *strategy;    /* NULL = the default */
    int64_t size, overlap;   /* tokens; <= 0 and < 0 = the default */
    const char *config_json; /* keys of the strategy; NULL = none */
};

struct chunk_plan {
    struct chunk_options options;
    const char *note; /* what is done instead of what was asked for, in the scope's arena or constant; NULL = nothing */
    cJSON *config;    /* that options.config points into */
};

/* Chunks never exceed what the model reads: the rest of a longer one would not be found by any search. What cannot be
 * is put right and noted: the API refuses it, but may have been an older one. Strings of `wishes` must outlive the
 * plan. */
void chunk_plan_make(struct scope *sc, const struct chunk_wishes *wishes, const struct settings *settings,
                     const struct embed_model *model, struct chunk_plan *out);
void chunk_plan_done(struct chunk_plan *plan);
/* Counts in the model's tokens; threads may share it. */
struct token_counter chunk_counter(struct embed_model *model);
