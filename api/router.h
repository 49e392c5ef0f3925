/* Method and path -> line of routes.def. */
#pragma once

#include "api/request.h"

#define ROUTE(method, path, handler, access, request_schema, reply_schema, limit, summary) route_handler handler;
#include "api/routes.def"
#undef ROUTE

enum { ROUTE_MAX_PARAMS = 4 };

struct route_match {
    const struct route *route;
    const char *params[ROUTE_MAX_PARAMS]; /* percent-decoded, in the arena */
    const char *allow; /* the methods that the path knows, for `Allow`; NULL when the path is unknown */
};

/* All lines, in the list's order. */
const struct route *router_all(size_t *out_count);
/* `path` is percent-encoded, without the query. HEAD finds GET; a trailing slash makes no difference.
 * STATUS_NOT_FOUND, also for a parameter that cannot be an id (with the contract's sentence); STATUS_METHOD with
 * out->allow. */
enum status router_find(struct scope *sc, const char *method, const char *path, struct route_match *out) must_check;
/* Percent-decodes in the arena; NULL when it is not valid: a broken escape, an encoded NUL, no UTF-8. */
const char *url_decode(struct scope *sc, const char *s, size_t len, bool plus_is_space);
