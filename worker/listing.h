/* Tables for a terminal: columns as wide as they need to be and no wider than the whole may be. */
#pragma once

#include "common/arena.h"
#include "common/text.h"

enum { LISTING_WIDTH = 120, LISTING_MOST_COLUMNS = 12 };

struct listing_column {
    const char *title;
    bool is_right;  /* numbers */
    int least;      /* columns of the terminal to which it may be cut; 0 = never cut */
    bool keeps_end; /* when cut, the end is what tells */
};

struct listing {
    struct arena *arena; /* owns the cells */
    const struct listing_column *columns;
    size_t column_count;
    const char **cells; /* row after row */
    size_t count, capacity;
};

struct listing listing_new(struct arena *arena, const struct listing_column *columns, size_t count);
/* Copies the cells, without what would move the terminal's cursor; NULL = empty. */
void listing_add(struct listing *t, const char *const *cells);
/* The head and the rows; nothing at all when there are no rows. Frees nothing. */
void listing_print(struct text *out, struct listing *t);
void listing_done(struct listing *t);

/* One line, cleaned and cut like a cell. */
void listing_line(struct text *out, struct arena *arena, const char *line);
/* "3 s", "12 min", "5 h", "3 d": of a time that is shown to people. In the arena. */
const char *listing_age(struct arena *arena, double seconds);
