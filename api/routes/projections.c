/* Projections of a collection's vectors to the plane: list, build, one, its arrays, what its points are, remove. Who
 * may read the collection may read them; its owner builds and removes. */
#include "api/accept.h"
#include "api/cancel.h"
#include "api/idempotency.h"
#include "api/router.h"
#include "api/views.h"
#include "build/queries.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_SAMPLE = 50000, MOST_OF_A_COLLECTION = 100, POINT_BYTES = 20 };

/* ---- reading ---- */

enum status projections_list(struct request *r)
{
    int page, per_page;
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_PROJECTION_LIST, &rows, db_number(r->sc, c.id), db_number(r->sc, per_page),
                   db_number(r->sc, (int64_t)(page - 1) * per_page));
    if (s == STATUS_OK)
        view_reply_page(r, "projections", &schema_PROJECTION, rows, page, per_page);
    return s;
}

static enum status find_by_id(struct request *r, const struct collection *c, const char *uuid, PGresult **out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_PROJECTION_FIND, &rows, db_number(r->sc, c->id), uuid);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(r->sc, STATUS_NOT_FOUND, "Projection with ID '%s' not found", uuid);
    *out = rows;
    rows = NULL;
    return STATUS_OK;
}

/* The projection of the path's second parameter, of the collection of the first. */
static enum status find_projection(struct request *r, bool must_own, struct collection *out_collection, PGresult **out)
{
    enum status s = must_own ? guard_owned(r, r->params[0], out_collection, NULL)
                             : guard_readable(r, r->params[0], out_collection, NULL);
    return s == STATUS_OK ? find_by_id(r, out_collection, r->params[1], out) : s;
}

enum status projections_show(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = find_projection(r, false, &c, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_PROJECTION_DETAIL, rows, 0);
    return s;
}

/* ---- arrays ---- */

static enum status put_parts(struct request *r, const char *row_id, int64_t points)
{
    const char *params[] = {row_id};
    scoped(PGresult) *parts = NULL;
    enum status s = db_query_binary(r->sc, r->db, SQL_PROJECTION_PARTS, 1, params, &parts);
    if (s != STATUS_OK)
        return s;
    struct text *body = reply_json(r, 200);
    for (int i = 0; i < PQntuples(parts); i++)
        text_append(body, PQgetvalue(parts, i, 0), (size_t)PQgetlength(parts, i, 0));
    if (body->len == (size_t)points * POINT_BYTES)
        return STATUS_OK;
    return fail(r->sc, STATUS_NOT_FOUND, "Projection with ID '%s' not found", r->params[1]); /* deleted meanwhile */
}

enum status projections_arrays(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = find_projection(r, false, &c, &rows);
    if (s != STATUS_OK)
        return s;
    if (strcmp(db_text(rows, 0, "status"), "completed") != 0)
        return fail(r->sc, STATUS_CONFLICT, "The projection has no points: its status is '%s'",
                    db_text(rows, 0, "status"));
    /* What is built never changes. */
    const char *tag = arena_printf(&r->sc->arena, "\"%s\"", db_text(rows, 0, "id"));
    const char *known = request_header(r, "If-None-Match");
    int64_t points = db_int(rows, 0, "point_count", 0);
    if (known && strstr(known, tag))
        s = reply_empty(r, 304);
    else
        s = put_parts(r, db_text(rows, 0, "row_id"), points);
    if (s != STATUS_OK)
        return s;
    r->reply.content_type = "application/octet-stream";
    reply_header(r, "X-Point-Count", db_number(r->sc, points));
    reply_header(r, "ETag", tag);
    reply_header(r, "Cache-Control", "private, no-cache");
    return STATUS_OK;
}

/* ---- what points are ---- */

static enum status read_ids(struct request *r, const char **out_array)
{
    const cJSON *id;
    scoped_text array = {0};
    cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(r->json, "ids"))
    {
        if (!cJSON_IsNumber(id) || id->valuedouble < 1 || id->valuedouble > 9007199254740991.0 ||
            floor(id->valuedouble) < id->valuedouble)
            return request_invalid(r, "body", "ids", "int_type", "Input should be chunk ids, which are whole numbers");
        text_printf(&array, "%c%.0f", array.len ? ',' : '{', id->valuedouble);
    }
    text_puts(&array, "}");
    *out_array = arena_strdup(&r->sc->arena, text_str(&array));
    return STATUS_OK;
}

static bool is_among(const PGresult *rows, int64_t id)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        if (db_int(rows, i, "chunk_id", 0) == id)
            return true;
    }
    return false;
}

static void write_selected(struct request *r, const PGresult *rows)
{
    const cJSON *id;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_open(t, "items", '[');
    for (int i = 0; i < PQntuples(rows); i++)
        view_write(t, NULL, &schema_PROJECTION_ITEM, rows, i);
    json_close(t, ']');
    json_open(t, "missing_ids", '[');
    cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(r->json, "ids"))
    {
        if (!is_among(rows, (int64_t)id->valuedouble))
            json_int(t, NULL, (int64_t)id->valuedouble);
    }
    json_close(t, ']');
    json_close(t, '}');
}

enum status projections_select(struct request *r)
{
    struct collection c;
    const char *ids = NULL;
    scoped(PGresult) *projection = NULL;
    scoped(PGresult) *rows = NULL;
    enum status s = find_projection(r, false, &c, &projection);
    if (s == STATUS_OK)
        s = read_ids(r, &ids);
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_PROJECTION_SELECT, &rows, db_number(r->sc, c.id), ids);
    if (s == STATUS_OK)
        write_selected(r, rows);
    return s;
}

/* ---- building ---- */

struct wish {
    const struct collection *collection;
    const char *method, *color_by, *parameters;
    int64_t seed, sample_size;
    char uuid[37];
};

static enum status one_of(struct request *r, const char *field, const char *value, const char *const *valid,
                          const char *sentence)
{
    for (; *valid; valid++) {
        if (strcmp(*valid, value) == 0)
            return STATUS_OK;
    }
    return request_invalid(r, "body", field, "enum", "Input should be %s", sentence);
}

/* Those of the method, with its defaults, so that the same wish is the same text. */
static const char *parameters_of(struct request *r, const char *method)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "metric", "cosine");
    if (strcmp(method, "umap") == 0) {
        json_int(&t, "n_neighbors", json_get_int(r->json, "n_neighbors", 15));
        json_real(&t, "min_dist", json_get_real(r->json, "min_dist", 0.1));
        json_real(&t, "spread", json_get_real(r->json, "spread", 1));
    } else if (strcmp(method, "tsne") == 0) {
        json_real(&t, "perplexity", json_get_real(r->json, "perplexity", 30));
    }
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

static enum status read_wish(struct request *r, struct wish *w)
{
    static const char *const methods[] = {"pca", "umap", "tsne", NULL}, *const metrics[] = {"cosine", NULL};
    static const char *const colors[] = {"document", "source", "type", "none", NULL};
    const char *reducer = json_get_text(r->json, "reducer", "umap");
    w->method = json_get_text(r->json, "method", reducer);
    w->color_by = json_get_text(r->json, "color_by", "document");
    w->seed = json_get_int(r->json, "seed", 0);
    w->sample_size = json_get_int(r->json, "sample_size", DEFAULT_SAMPLE);
    enum status s = one_of(r, "method", w->method, methods, "'pca', 'umap' or 'tsne'");
    if (s == STATUS_OK)
        s = one_of(r, "color_by", w->color_by, colors, "'document', 'source', 'type' or 'none'");
    if (s == STATUS_OK)
        s = one_of(r, "metric", json_get_text(r->json, "metric", "cosine"), metrics, "'cosine'");
    if (s == STATUS_OK && json_get_real(r->json, "min_dist", 0.1) > json_get_real(r->json, "spread", 1))
        s = request_invalid(r, "body", "min_dist", "value_error", "min_dist must not be larger than spread");
    w->parameters = s == STATUS_OK ? parameters_of(r, w->method) : NULL;
    return s;
}

static enum status insert_projection(struct request *r, const struct operation_ref *o, void *context)
{
    const struct wish *w = context;
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_PROJECTION_INSERT, &rows, w->uuid, db_number(r->sc, w->collection->id),
                           o->uuid, db_number(r->sc, r->user.id), w->method, db_number(r->sc, w->seed),
                           db_number(r->sc, w->sample_size), w->color_by, db_number(r->sc, MOST_OF_A_COLLECTION),
                           w->parameters);
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(r->sc, STATUS_INVALID, "The collection has %d projections already; delete some of them first",
                    MOST_OF_A_COLLECTION);
    return s;
}

static enum status reply_accepted(struct request *r, const struct wish *w, int http, bool is_reuse)
{
    scoped(PGresult) *rows = NULL;
    enum status s = find_by_id(r, w->collection, w->uuid, &rows);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, http);
    json_open(t, NULL, '{');
    view_fields_with(t, &schema_PROJECTION, rows, 0, NULL, NULL);
    json_bool(t, "idempotent_reuse", is_reuse);
    json_close(t, '}');
    return STATUS_OK;
}

static enum status reply_new(struct request *r, const struct operation_ref *o, void *context)
{
    (void)o;
    return reply_accepted(r, context, 202, false);
}

static const char *config_of(struct request *r, const struct wish *w)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "projection_id", w->uuid);
    json_text(&t, "method", w->method);
    json_int(&t, "seed", w->seed);
    json_int(&t, "sample_size", w->sample_size);
    json_text(&t, "color_by", w->color_by);
    json_raw(&t, "parameters", w->parameters);
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

/* The same wish again, while what it gave still shows what there is, is answered with that. */
static enum status find_same(struct request *r, struct wish *w, bool *out_is_found)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_PROJECTION_SAME, &rows, db_number(r->sc, w->collection->id), w->method,
                           db_number(r->sc, w->seed), db_number(r->sc, w->sample_size), w->color_by, w->parameters);
    *out_is_found = s == STATUS_OK && PQntuples(rows) > 0;
    if (*out_is_found)
        snprintf(w->uuid, sizeof w->uuid, "%s", db_text(rows, 0, "id"));
    return s;
}

enum status projections_create(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    struct wish w = {.collection = &c};
    bool is_there = false;
    enum status s = idempotency_replay(r, &is_there); /* before an equal one is looked for, which it made */
    if (s != STATUS_OK || is_there)
        return s;
    s = guard_owned(r, r->params[0], &c, &rows);
    if (s == STATUS_OK)
        s = read_wish(r, &w);
    if (s == STATUS_OK && db_int(rows, 0, "vector_count", 0) == 0)
        s = fail(r->sc, STATUS_INVALID, "The collection has no vectors yet; add a source first");
    if (s == STATUS_OK)
        s = find_same(r, &w, &is_there);
    if (s != STATUS_OK)
        return s;
    if (is_there)
        return reply_accepted(r, &w, 200, true);
    uuid_make(w.uuid);
    const struct acceptance a = {.collection = &c,
                                 .type = OPERATION_PROJECTION_BUILD,
                                 .config_json = config_of(r, &w),
                                 .what = "Cannot build a projection",
                                 .also = insert_projection,
                                 .reply = reply_new,
                                 .context = &w};
    return accept_operation(r, &a, NULL, &is_there);
}

/* ---- removing ---- */

/* The operation is cancelled first, if it is not over: its attempt locks it before the projection. */
static enum status remove_in_transaction(struct request *r, const PGresult *rows, struct cancelled *out,
                                         bool *out_is_cancelled)
{
    enum status s = db_begin(r->sc, r->db);
    if (s == STATUS_OK)
        s = cancel_write(r, db_text(rows, 0, "operation_id"), out);
    *out_is_cancelled = s == STATUS_OK;
    if (s == STATUS_CONFLICT) { /* it is over */
        scope_forgive(r->sc);
        s = STATUS_OK;
    }
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_PROJECTION_DELETE, NULL, db_text(rows, 0, "row_id"));
    if (s == STATUS_OK)
        return db_commit(r->sc, r->db);
    db_rollback(r->db);
    return s;
}

enum status projections_delete(struct request *r)
{
    struct collection c;
    struct cancelled cancelled;
    bool is_cancelled = false;
    scoped(PGresult) *rows = NULL;
    enum status s = find_projection(r, true, &c, &rows);
    if (s == STATUS_OK)
        s = remove_in_transaction(r, rows, &cancelled, &is_cancelled);
    if (s != STATUS_OK)
        return s;
    if (is_cancelled)
        cancel_tell(r, &cancelled);
    return reply_empty(r, 204);
}
