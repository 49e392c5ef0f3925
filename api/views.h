/* Objects of the API as they go out. views.def lists every object's fields once, named as the columns of the statements that read it, so that one
 * function writes them all. */
#pragma once

#include "api/request.h"

enum view {
#define VIEW_BEGIN(name) VIEW_##name,
#define VIEW(name, field, kind)
#include "api/views.def"
#undef VIEW
#undef VIEW_BEGIN
    VIEWS
};

/* The object's fields out of one row, into an object that is open. */
void view_fields(struct text *t, enum view view, const PGresult *rows, int row);
/* The whole object. `key` NULL inside arrays and as the outermost value. */
void view_write(struct text *t, const char *key, enum view view, const PGresult *rows, int row);
/* `"<key>": [objects]` of a page as the *_list.sql statements return it: rows whose `id` is null are left out (an empty page). */
void view_write_list(struct text *t, const char *key, enum view view, const PGresult *rows);
/* The page's `total`. */
int64_t view_total(const PGresult *rows);
/* {"<key>": [...], "total", "page", "per_page"} with status 200. */
void view_reply_page(struct request *r, const char *key, enum view view, const PGresult *rows, int page, int per_page);
