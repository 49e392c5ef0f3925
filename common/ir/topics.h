/* Queries of a test collection as text. Two forms, told apart by the first character that is not blank:
 *
 *   topics of TREC: <top> <num> Number: 301 <title> International crime <desc> … </top>; the title is the query
 *   lines: the query's id, a tab, the query's text; empty lines are skipped */
#pragma once

#include "common/ir/lines.h"

struct ir_query {
    const char *id, *text; /* in the arena */
};

/* STATUS_UNPROCESSABLE names the line: "line 3: the query has no text". Ids have no white space; that none comes twice
 * is the caller's to see. More than `most`: refused. No query at all: refused. */
enum status ir_parse_topics(struct scope *sc, const char *bytes, size_t len, size_t most, struct ir_query **out,
                            size_t *out_count) must_check;
