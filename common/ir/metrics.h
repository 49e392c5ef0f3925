/* Quality of one query's ranking against judgments, by the definitions of trec_eval 9
 * (https://github.com/usnistgov/trec_eval): a document is relevant when its grade is 1 or more; one without a judgment
 * is not relevant; documents are ranked by falling score, those of the same score by falling name (bytes), whatever
 * order they came in. */
#pragma once

#include "common/arena.h"

#include <stdint.h>

struct ir_judgment {
    const char *document;
    int relevance; /* >= 0 */
};

struct ir_ranked {
    const char *document;
    float score; /* trec_eval reads scores in single precision, so that is what decides ties */
};

/* Everything at the cut-off k; trec_eval's names beside ours. */
struct ir_metrics {
    double precision;          /* P_k: relevant ones among the first k, divided by k even when fewer were found */
    double recall;             /* recall_k: divided by all relevant ones */
    double reciprocal_rank;    /* recip_rank of the first k: 1 / rank of the first relevant one, 0 = none */
    double ndcg;               /* ndcg_cut_k: gain = grade, discount log2(rank + 1); ideal = the best k of all judged */
    double average_precision;  /* map_cut_k: precision at each relevant rank, summed, divided by all relevant ones */
    int64_t relevant;          /* judged with 1 or more */
    int64_t relevant_returned; /* of those, among the first k */
    int64_t judged_returned;   /* among the first k, with any grade */
    int64_t returned;          /* at most k */
};

/* Brings `ranked` into trec_eval's order. */
void ir_sort(struct ir_ranked *ranked, size_t count);
/* `ranked` in order, each document once; `judged` in any order, each document once. k >= 1. Without a relevant document
 * everything is 0: trec_eval leaves such a query out of its means, and so must the caller. */
struct ir_metrics ir_measure(struct arena *arena, const struct ir_ranked *ranked, size_t ranked_count,
                             const struct ir_judgment *judged, size_t judged_count, size_t k);

/* The value below which that share (0 … 1) of the values lies, by the nearest rank; sorts the values. 0 without any. */
double ir_percentile(double *values, size_t count, double share);
