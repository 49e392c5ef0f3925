/* Files that are part of the program: the page (api/web/) and the clients (api/clients/), embedded when it is built. */
#pragma once

#include <stddef.h>

struct web_file {
    const char *name; /* "web/app.js" */
    const unsigned char *bytes;
    size_t len;
    const unsigned char *packed; /* the same by gzip */
    size_t packed_len;
    const char *tag; /* of its content */
};

/* NULL when there is none of that name. */
const struct web_file *web_file_find(const char *name);
/* All of them, in the order of their names. */
const struct web_file *web_file_all(size_t *out_count);
/* By the end of its name; "application/octet-stream" when that says nothing. */
const char *web_content_type(const char *name);
