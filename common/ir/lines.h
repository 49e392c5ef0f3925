/* What the parsers of test collections share: a text by lines, fields by white space, and sentences that name the line.
 */
#pragma once

#include "common/scope.h"

#include <stdbool.h>

enum {
    IR_LONGEST_NAME = 1024, /* bytes of a query's id or a document's name */
    IR_LONGEST_QUERY = 8192 /* bytes of a query's text */
};

struct ir_span {
    const char *bytes;
    size_t len;
};

struct ir_lines {
    const char *at, *end;
    size_t number; /* of the line that was read last, from 1 */
};

/* The next line without its end ("\n" or "\r\n"); false at the end of the text. */
bool ir_next_line(struct ir_lines *lines, struct ir_span *out);
/* The next field of a line, which is cut off it; empty when there is none. Fields are parted by spaces and tabs. */
struct ir_span ir_next_field(struct ir_span *line);
/* Without white space at both ends. */
struct ir_span ir_trimmed(struct ir_span s);
/* STATUS_UNPROCESSABLE when the text is longer than that, is not UTF-8 or holds control characters; `what` begins the
 * sentence: "line 3: the document's name". */
enum status ir_check_text(struct scope *sc, const char *what, struct ir_span s, size_t longest) must_check;
