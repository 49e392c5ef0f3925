/* Relevance judgments as TREC writes them, one a line: query id, iteration (not used), document, grade. */
#pragma once

#include "common/ir/lines.h"

struct ir_qrel {
    const char *query, *document; /* in the arena */
    int relevance;                /* 0 … IR_HIGHEST_GRADE */
    size_t line;
};

enum { IR_HIGHEST_GRADE = 1000 };

/* STATUS_UNPROCESSABLE names the line: "line 3: …". A document's name has no white space. Empty lines are skipped; more
 * than `most` judgments, or none, are refused. */
enum status ir_parse_qrels(struct scope *sc, const char *bytes, size_t len, size_t most, struct ir_qrel **out,
                           size_t *out_count) must_check;
