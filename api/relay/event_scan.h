/* What the relay needs of an event, read without building a tree: of the hundred events of a history that a client
 * gets, nothing but type, ids and soundness matters, and cJSON's tree was most of what a handshake cost.
 *
 * A strict reader of JSON (RFC 8259) that gives up on all that is unusual: escapes in what it looks for, \u escapes
 * anywhere, deep nesting. What it takes json_parse() takes, with the same answers; what it gives up on is for
 * json_parse() to judge. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct event_field {
    const char *at; /* inside the text; NULL = there is none, or it is no string */
    size_t len;
};

/* Of the object itself, the first of each name. */
struct event_fields {
    struct event_field id, type, operation_id;
};

/* False: not known to be sound. */
bool event_scan(const char *json, size_t len, struct event_fields *out);
