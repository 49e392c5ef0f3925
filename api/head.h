/* The first look at a connection: is its request head complete, and who is to serve it? Bytes come from strangers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { HEAD_MAX_BYTES = 16 << 10 };

enum head_kind {
    HEAD_INCOMPLETE,
    HEAD_REST,
    HEAD_WEBSOCKET, /* GET /ws/… with Upgrade: websocket */
    HEAD_BAD,       /* can no longer become a request, or is one that servers may read differently */
    HEAD_TOO_LARGE, /* HEAD_MAX_BYTES and no end */
};

struct head {
    size_t start; /* of the request line, after empty lines */
    size_t len;   /* up to and with the empty line that ends it */
};

/* `out` is written for HEAD_REST and HEAD_WEBSOCKET. */
enum head_kind head_parse(const char *bytes, size_t len, struct head *out);
/* The value of the n-th field of that name (n from 0), blanks trimmed; NULL when there is none. Points into `bytes`. */
const char *head_field(const char *bytes, const struct head *head, const char *name, int n, size_t *out_len);
