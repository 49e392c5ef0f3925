/* The head of a WebSocket request, read by us and not by libwebsockets: its 4.1.6 can neither take a token of a JWT's
 * length as a subprotocol nor echo it. What libwebsockets gets to see is a small head of our own making. Pure
 * functions. */
#pragma once

#include "common/scope.h"
#include "common/text.h"

enum ws_kind {
    WS_UNKNOWN,        /* no such endpoint */
    WS_OPERATIONS,     /* /ws/operations: all of a user's operations */
    WS_OPERATION,      /* /ws/operations/{uuid} */
    WS_SCAN,           /* /ws/scan/{scan_id} */
    WS_DIRECTORY_SCAN, /* /ws/directory-scan/{scan_id} */
};

enum { WS_KEY_CHARS = 24, WS_ECHO_MAX = 4200 };

struct ws_head {
    enum ws_kind kind;
    const char *target;    /* the operation's UUID (lower case) or the scan's id; "" if the path has none */
    const char *token;     /* NULL = none was given */
    const char *echo;      /* the whole subprotocol to be echoed; NULL = none */
    const char *last_id;   /* NULL = not given; may be "" */
    const char *origin;    /* NULL = none */
    const char *host;      /* "" = none */
    const char *extension; /* what is answered to Sec-WebSocket-Extensions; NULL = nothing */
    bool is_flat;          /* ?format=flat */
    char key[WS_KEY_CHARS + 1];
    size_t head_len; /* with the empty line; what follows are the first frames */
};

/* Strings in the scope's arena. STATUS_UPGRADE: a plain request; STATUS_INVALID: a malformed upgrade (no key, another
 * version, another method …). */
enum status ws_head_parse(struct scope *sc, const char *head, size_t len, struct ws_head *out) must_check;
/* The head that libwebsockets reads in place of the client's. */
void ws_head_rewrite(struct text *out, const struct ws_head *head);
/* No Origin, one of the comma-separated list ("*" = any), or an IP literal (or localhost) equal to the request's host
 * and port. Names are not compared with the host: whoever can point a name at this address would pass. */
bool ws_origin_is_allowed(const char *cors_origins, const char *origin, const char *host);
/* "" in a label of the metrics is of no use: "operations", "operation", "scan", "directory_scan", "unknown". */
const char *ws_kind_name(enum ws_kind kind);
