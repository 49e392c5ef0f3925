/* One REST request as its handler sees it. The handler runs on a handler thread that owns `db`, `queue` and `events`;
 * it returns a status: STATUS_OK after it filled the reply, anything else makes server.c write the contract's error
 * body from the scope's sentence. */
#pragma once

#include "api/api.h"
#include "api/auth.h"
#include "common/json.h"

/* STREAM: as USER; a token may stand in the query where the client asks for Server-Sent Events, as browsers let an
 * EventSource send no header of ours.
 * PROBE: anyone, answered at once by the thread that reads the connections: such a handler has no database and no
 * Redis, and never waits. */
enum access { ACCESS_ANYONE, ACCESS_USER, ACCESS_SUPERUSER, ACCESS_PROBE, ACCESS_STREAM };

struct reply {
    int http;                 /* 0 = not filled yet */
    const char *content_type; /* NULL = application/json */
    struct text body;
    int file_fd; /* >= 0: the body is this file from its start, closed by the server */
    int64_t file_bytes;
    struct reply_header {
        const char *name, *value; /* in the arena */
    } headers[16];
    int header_count;
    /* 422: entries of `detail`, each {type, loc, msg, input}; filled by request_invalid(). */
    struct text invalid;
};

struct route;
struct stream;

struct request {
    struct scope *sc;
    struct api *api;
    struct db *db;        /* statement_timeout 5 s */
    struct redis *queue;  /* queue database, time-out 100 ms */
    struct redis *events; /* stream database, time-out 100 ms... of a cancel and the like */
    const struct route *route;
    const char *method, *path;
    const char *query;     /* what followed the `?`, as it came; may be NULL */
    const char *params[4]; /* values of {…} in the path, in their order, percent-decoded; a param whose name ends in
                              "id}" and stands for a UUID or a number is checked before the handler runs (router.c): 404
                              when it cannot be one */
    const char *body;      /* NUL-terminated */
    size_t body_len;
    bool is_admitted;      /* dispatch_admit() let it pass */
    cJSON *parsed;         /* what `json` points to, until the reply is there */
    const cJSON *json;     /* the parsed body, checked against the route's schema; NULL when there was none */
    struct user user;      /* of routes that need one */
    const char *limit_key; /* under which limit_check() counted it; NULL = it did not */
    const char *client_address;
    bool accepts_gzip;
    struct reply reply;
    struct stream *stream; /* set by a handler in place of a reply: the relay answers (api/relay/stream.h) */
    struct server_connection *connection; /* server.c's own */
};

typedef enum status route_handler(struct request *r);

struct route {
    const char *method, *path;
    route_handler *handler;
    enum access access;
    const struct schema
        *request_schema;      /* NULL = the body is not looked at; see schema.h for bodies that may be left out */
    const char *reply_schema; /* name for OpenAPI; NULL = none */
    const char
        *limit; /* "" or "10/hour", "1/300s", "30/minute": per user, else per address; RATE_LIMITS=off turns them off */
    const char *summary;
};
/* api/routes.def:
 *   ROUTE(method, path, handler, access, request schema or NONE, reply schema or NONE, limit, summary)
 *   ROUTE(GET, "/api/v2/operations/{id}", operations_show, USER, NONE, OPERATION, "", "Show one operation")
 * A {path} at the end stands for all that follows, with its slashes. */

/* The n-th {parameter} of the path in lower case, as channels, streams and keys in Redis name what an id stands for. In
 * the arena. */
const char *request_id_param(struct request *r, int n);
/* NULL when absent. Percent-decoded, in the arena. */
const char *request_query(struct request *r, const char *name);
const char *request_header(struct request *r, const char *name);
/* Whether a comma list such as Accept names this very word, and not with q=0. `header` may be NULL. */
bool header_accepts(const char *header, const char *word);
/* page (>= 1) and per_page (1..100) with their defaults; notes 422 entries and returns STATUS_UNPROCESSABLE when out of
 * range. offset = (page - 1) * per_page. */
enum status request_page(struct request *r, int *out_page, int *out_per_page) must_check;
/* An integer query parameter with bounds; absent = fallback. STATUS_UNPROCESSABLE with its 422 entry otherwise. */
enum status request_query_int(struct request *r, const char *name, int64_t least, int64_t most, int64_t fallback,
                              int64_t *out) must_check;
/* offset (>= 0) and limit (1..100, 50) of lists that are paged by them; STATUS_UNPROCESSABLE as above. */
enum status request_slice(struct request *r, int64_t *out_offset, int64_t *out_limit) must_check;
bool request_query_bool(struct request *r, const char *name, bool fallback);
/* Notes one entry of a 422's detail and returns STATUS_UNPROCESSABLE. `where` is "body" or "query", `field` may be
 * NULL. `type` as pydantic names it
 * ("value_error", "string_too_short", "missing", …). */
enum status request_invalid(struct request *r, const char *where, const char *field, const char *type,
                            const char *format, ...) printf_like(5, 6);

/* The JSON body of the answer, to be written by json_open(text, NULL, '{') …; sets the HTTP status. */
struct text *reply_json(struct request *r, int http);
/* Without a body (204). */
enum status reply_empty(struct request *r, int http);
/* A constant JSON text. */
enum status reply_constant(struct request *r, int http, const char *json);
void reply_header(struct request *r, const char *name, const char *value);
/* What the contract sends for an outcome that is not STATUS_OK (section 1, errors); server.c calls it when a handler
 * did not fill the reply itself. A handler that wants a body of its own for an error fills the reply (reply_json(r,
 * 409)) and returns the status of that number, or STATUS_OK. */
void reply_error(struct request *r, enum status s);
