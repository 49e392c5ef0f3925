/* What the walks of a sync met: ids of documents, 8 bytes each and in no table, so that a hundred thousand files that
 * did not change cost no write; and paths that could not be looked into. */
#pragma once

#include "common/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct seen {
    int64_t *ids;
    size_t count, capacity;
    char **unreadable; /* NUL-terminated */
    size_t unreadable_count, unreadable_capacity;
    bool is_sorted;
};

void seen_add(struct seen *s, int64_t id);
/* What lies below that path was not seen, and says nothing. */
void seen_add_unreadable(struct seen *s, const char *path, size_t len);
bool seen_has(struct seen *s, int64_t id);
/* Whether a path lies below one that could not be read. */
bool seen_is_hidden(struct seen *s, const char *path, size_t len);
void seen_done(struct seen *s);
