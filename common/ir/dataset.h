/* A dataset of queries and judgments, whatever form it came in, checked as a whole. */
#pragma once

#include "common/ir/topics.h"
#include "common/json.h"

enum { IR_MOST_QUERIES = 10000, IR_MOST_JUDGMENTS = 100000 };

struct ir_dataset_judgment {
    size_t query;         /* index in `queries` */
    const char *kind;     /* what `document` is: "document_id", "path", "file_name", or "any" of them */
    const char *document; /* 1 … IR_LONGEST_NAME bytes */
    int relevance;        /* 0 … IR_HIGHEST_GRADE */
};

/* Strings in the arena, or in the JSON it came from. */
struct ir_dataset {
    struct ir_query *queries;
    size_t query_count;
    struct ir_dataset_judgment *judgments;
    size_t judgment_count;
    char hash[65]; /* of the content in a fixed order: the same queries and judgments have the same in any form */
};

/* [{"id", "text", "relevant": [{"document" | "document_id" | "path" | "file_name", "relevance"}]}]; a `relevance` that
 * is left out is 1. STATUS_UNPROCESSABLE with the place: "query 2 ('q7'): judgment 1: …". */
enum status ir_dataset_from_json(struct scope *sc, const cJSON *queries, struct ir_dataset *out) must_check;
/* Topics (topics.h) and judgments (qrels.h). *out_field is which of the two has the fault: "queries" or "qrels". */
enum status ir_dataset_from_trec(struct scope *sc, const char *topics, const char *qrels, struct ir_dataset *out,
                                 const char **out_field) must_check;
