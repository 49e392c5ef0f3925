/* Measuring the quality of searches: a dataset's queries are embedded once a model and asked of every configuration of
 * the grid, by the store functions that the API's search uses. A configuration is measured as a whole and committed
 * with its figures, so a later attempt goes on with those that have none. */
#pragma once

#include "common/ir/metrics.h"
#include "common/store/vector_store.h"
#include "worker/task.h"

struct embed_client;
struct staging;

struct bench_query {
    int ordinal;
    const char *id, *text;
    const struct ir_judgment *judged; /* documents by UUID */
    size_t judged_count;
};

/* The queries as one model embeds them. */
struct bench_vectors {
    const char *model; /* NULL = nothing embedded yet */
    int dim;
    float *vectors; /* [query_count][dim] */
    double *ms;     /* what each took */
};

struct bench {
    struct task *task;
    int64_t id, dataset_id;
    int repeats;
    struct bench_query *queries;
    size_t query_count;
    struct embed_client *embedder;
    struct bench_vectors embedded;
    int64_t done, total;         /* queries times configurations */
    struct staging *staging;     /* of another chunking than the live vectors'; NULL = none is open */
    const char *staged_chunking; /* which one */
};

struct bench_configuration {
    int64_t id;
    int ordinal, k;
    const char *mode, *chunking_json; /* chunking_json: NULL = the live vectors */
};

/* What one query found. */
struct bench_answer {
    struct vector_hit *hits; /* the best chunk of each document, best first */
    size_t hit_count;
    double *search_ms;        /* [repeats] */
    struct ir_ranked *ranked; /* documents by UUID, in trec_eval's order, at most k */
    size_t ranked_count;
    struct ir_metrics metrics;
};

/* What is searched. */
struct bench_target {
    struct generation generation;
    bool is_staged;
    int64_t documents, vectors;
};

/* STATUS_NOT_FOUND: the collection was deleted; STATUS_INVALID: it has no vectors. For another chunking after
 * bench_stage(). */
enum status bench_target_open(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                              struct bench_target *out) must_check;
/* Makes sure that the collection is staged with the configuration's chunking, and that none other is: cuts and embeds
 * it beside the live vectors, or goes on where an earlier attempt stopped. `sc` is the task's. */
enum status bench_stage(struct scope *sc, struct bench *b, const struct bench_configuration *c) must_check;
/* Removes what is staged. */
enum status bench_unstage(struct scope *sc, struct bench *b) must_check;
/* Lets go of it without removing it: the next attempt needs it, or the leftovers chore removes it. */
void bench_leave_staging(struct bench *b);
/* Embeds the queries with the target's model unless they are already. */
enum status bench_embed(struct scope *sc, struct bench *b, const char *model) must_check;
/* Asks every query; `answers` [query_count] in the arena. */
enum status bench_ask(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                      const struct bench_target *target, struct bench_answer **out) must_check;
/* Measures the answers. */
enum status bench_judge(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                        struct bench_answer *answers) must_check;
/* Results and figures, in one fenced transaction. */
enum status bench_write(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                        const struct bench_target *before, const struct bench_target *after,
                        const struct bench_answer *answers) must_check;
