#include "api/views.h"

enum kind { KIND_TEXT, KIND_INT, KIND_REAL, KIND_BOOL, KIND_JSON };

static const struct view_field {
    enum view view;
    const char *name;
    enum kind kind;
} fields[] = {
#define VIEW_BEGIN(name)
#define VIEW(name, field, kind) {VIEW_##name, field, KIND_##kind},
#include "api/views.def"
#undef VIEW
#undef VIEW_BEGIN
};

static void write_field(struct text *t, const struct view_field *f, const PGresult *rows, int row)
{
    const char *value = db_text(rows, row, f->name);
    if (!value)
        json_null(t, f->name);
    else if (f->kind == KIND_TEXT)
        json_text(t, f->name, value);
    else if (f->kind == KIND_INT)
        json_int(t, f->name, db_int(rows, row, f->name, 0));
    else if (f->kind == KIND_REAL)
        json_real(t, f->name, db_real(rows, row, f->name, 0));
    else if (f->kind == KIND_BOOL)
        json_bool(t, f->name, db_bool(rows, row, f->name));
    else
        json_raw(t, f->name, value);
}

/* What the contract has and Opstream does not keep. */
static void write_constants(struct text *t, enum view view)
{
    if (view == VIEW_COLLECTION)
        json_null(t, "default_reranker_id");
    if (view == VIEW_SOURCE) {
        json_bool(t, "has_password", false);
        json_bool(t, "has_token", false);
        json_bool(t, "has_ssh_key", false);
        json_bool(t, "has_ssh_passphrase", false);
    }
}

void view_fields(struct text *t, enum view view, const PGresult *rows, int row)
{
    for (size_t i = 0; i < array_len(fields); i++) {
        if (fields[i].view == view)
            write_field(t, &fields[i], rows, row);
    }
    write_constants(t, view);
}

void view_write(struct text *t, const char *key, enum view view, const PGresult *rows, int row)
{
    json_open(t, key, '{');
    view_fields(t, view, rows, row);
    json_close(t, '}');
}

void view_write_list(struct text *t, const char *key, enum view view, const PGresult *rows)
{
    json_open(t, key, '[');
    for (int i = 0; i < PQntuples(rows); i++) {
        if (!db_text(rows, i, "id"))
            continue;
        json_open(t, NULL, '{');
        view_fields(t, view, rows, i);
        if (view == VIEW_COLLECTION)
            json_null(t, "initial_operation_id");
        json_close(t, '}');
    }
    json_close(t, ']');
}

int64_t view_total(const PGresult *rows)
{
    return PQntuples(rows) ? db_int(rows, 0, "total", 0) : 0;
}

void view_reply_page(struct request *r, const char *key, enum view view, const PGresult *rows, int page, int per_page)
{
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    view_write_list(t, key, view, rows);
    json_int(t, "total", view_total(rows));
    json_int(t, "page", page);
    json_int(t, "per_page", per_page);
    json_close(t, '}');
}
