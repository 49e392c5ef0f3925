#include "api/views.h"

#include <string.h>

static void write_value(struct text *t, const struct schema_field *f, const PGresult *rows, int row)
{
    const char *value = db_text(rows, row, f->name);
    if (!value)
        json_null(t, f->name);
    else if (f->kind == FIELD_INT)
        json_int(t, f->name, db_int(rows, row, f->name, 0));
    else if (f->kind == FIELD_REAL)
        json_real(t, f->name, db_real(rows, row, f->name, 0));
    else if (f->kind == FIELD_BOOL)
        json_bool(t, f->name, db_bool(rows, row, f->name));
    else if (f->kind == FIELD_TEXT || f->kind == FIELD_UUID)
        json_text(t, f->name, value);
    else
        json_raw(t, f->name, value);
}

void view_fields_with(struct text *t, const struct schema *object, const PGresult *rows, int row, const char *name,
                      const char *value)
{
    for (size_t i = 0; i < object->field_count; i++) {
        const struct schema_field *f = &object->fields[i];
        if (PQfnumber(rows, f->name) >= 0)
            write_value(t, f, rows, row);
        else if (name && strcmp(f->name, name) == 0)
            json_text(t, f->name, value);
        else if (f->kind == FIELD_BOOL)
            json_bool(t, f->name, false);
        else
            json_null(t, f->name);
    }
}

void view_write(struct text *t, const char *key, const struct schema *object, const PGresult *rows, int row)
{
    json_open(t, key, '{');
    view_fields_with(t, object, rows, row, NULL, NULL);
    json_close(t, '}');
}

void view_write_list(struct text *t, const char *key, const struct schema *object, const PGresult *rows)
{
    json_open(t, key, '[');
    for (int i = 0; i < PQntuples(rows); i++) {
        if (db_text(rows, i, "id"))
            view_write(t, NULL, object, rows, i);
    }
    json_close(t, ']');
}

int64_t view_total(const PGresult *rows)
{
    return PQntuples(rows) ? db_int(rows, 0, "total", 0) : 0;
}

void view_reply_slice(struct request *r, const struct schema *object, const PGresult *rows, int64_t offset,
                      int64_t limit)
{
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    view_write_list(t, "items", object, rows);
    json_int(t, "total", view_total(rows));
    json_int(t, "offset", offset);
    json_int(t, "limit", limit);
    json_close(t, '}');
}

void view_reply_page(struct request *r, const char *key, const struct schema *object, const PGresult *rows, int page,
                     int per_page)
{
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    view_write_list(t, key, object, rows);
    json_int(t, "total", view_total(rows));
    json_int(t, "page", page);
    json_int(t, "per_page", per_page);
    json_close(t, '}');
}
