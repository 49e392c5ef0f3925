/* Objects of the API as they go out: the fields of the object's schema (schemas.def, which the OpenAPI document shows
 * too), each out of the column of the same name. A field without a column is null, or false. */
#pragma once

#include "api/schema.h"

/* The object's fields out of one row, into an object that is open. The field `name`, which has no column, gets this
 * text; NULL: there is no such field. */
void view_fields_with(struct text *t, const struct schema *object, const PGresult *rows, int row, const char *name,
                      const char *value);
/* The whole object. `key` NULL inside arrays and as the outermost value. */
void view_write(struct text *t, const char *key, const struct schema *object, const PGresult *rows, int row);
/* `"<key>": [objects]` of a page as the *_list.sql statements return it: rows whose `id` is null are left out (an empty
 * page). */
void view_write_list(struct text *t, const char *key, const struct schema *object, const PGresult *rows);
/* The page's `total`. */
int64_t view_total(const PGresult *rows);
/* {"items": [...], "total", "offset", "limit"} with status 200. */
void view_reply_slice(struct request *r, const struct schema *object, const PGresult *rows, int64_t offset,
                      int64_t limit);
/* {"<key>": [...], "total", "page", "per_page"} with status 200. */
void view_reply_page(struct request *r, const char *key, const struct schema *object, const PGresult *rows, int page,
                     int per_page);
