/* A collection's sources. */
#include "api/guard.h"
#include "api/idempotency.h"
#include "api/router.h"
#include "api/source_request.h"
#include "api/views.h"
#include "common/store/operation_view.h"
#include "common/store/source_store.h"

#include <string.h>

struct addition {
    struct collection collection;
    struct source_request source;
    struct operation_ref operation;
};

static enum status put_source(struct request *r, struct addition *n, int64_t *out_id)
{
    struct source_new source = {n->collection.id, n->source.type, n->source.path, n->source.config_json};
    enum status s = source_store_put(r->sc, r->db, &source, out_id);
    if (strcmp(db_sqlstate(r->db), "23503") != 0 || s == STATUS_OK)
        return s;
    scope_forgive(r->sc); /* the collection's row went away meanwhile */
    return fail(r->sc, STATUS_NOT_FOUND, "Collection with ID '%s' not found", n->collection.uuid);
}

static enum status add_in_transaction(struct request *r, void *context)
{
    struct addition *n = context;
    int64_t source_id = 0;
    enum status s = put_source(r, n, &source_id);
    if (s != STATUS_OK)
        return s;
    scoped_text config = {0};
    json_open(&config, NULL, '{');
    source_request_config(&config, &n->source, source_id);
    json_close(&config, '}');
    struct operation_new o = {
        .collection_id = n->collection.id,
        .user_id = r->user.id,
        .type = OPERATION_APPEND,
        .config_json = text_str(&config),
        .default_retries = (int)r->api->settings->default_max_retries,
    };
    scoped(PGresult) *rows = NULL;
    s = operation_store_insert(r->sc, r->db, &o, &n->operation);
    if (s == STATUS_OK)
        s = collection_store_take(r->sc, r->db, n->collection.id);
    if (s == STATUS_OK)
        s = operation_view_find(r->sc, r->db, n->operation.uuid, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 202), NULL, &schema_OPERATION, rows, 0);
    return s;
}

enum status sources_add(struct request *r)
{
    struct addition n;
    bool is_done = false;
    enum status s = idempotency_replay(r, &is_done);
    if (s != STATUS_OK || is_done)
        return s;
    s = guard_owned(r, r->params[0], &n.collection, NULL);
    if (s == STATUS_OK)
        s = source_request_read(r, &n.source);
    if (s != STATUS_OK)
        return s;
    s = idempotency_run(r, add_in_transaction, &n, &is_done);
    if (s == STATUS_CONFLICT)
        return guard_busy(r, &n.collection, "Cannot add a source");
    if (s == STATUS_OK && !is_done)
        guard_accepted(r, &n.operation);
    return s;
}

enum status sources_list(struct request *r)
{
    int64_t offset, limit;
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = request_query_int(r, "offset", 0, INT32_MAX, 0, &offset);
    if (s == STATUS_OK)
        s = request_query_int(r, "limit", 1, 100, 50, &limit);
    if (s == STATUS_OK)
        s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_list(r->sc, r->db, c.id, (int)limit, offset, &rows);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    view_write_list(t, "items", &schema_SOURCE, rows);
    json_int(t, "total", view_total(rows));
    json_int(t, "offset", offset);
    json_int(t, "limit", limit);
    json_close(t, '}');
    return STATUS_OK;
}

static enum status find_source(struct request *r, bool must_own, PGresult **out)
{
    struct collection c;
    enum status s = must_own ? guard_owned(r, r->params[0], &c, NULL) : guard_readable(r, r->params[0], &c, NULL);
    return s == STATUS_OK ? source_store_find(r->sc, r->db, c.id, strtoll(r->params[1], NULL, 10), NULL, out) : s;
}

enum status sources_show(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = find_source(r, false, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_SOURCE, rows, 0);
    return s;
}

static enum status not_yet(struct request *r)
{
    return fail(
        r->sc, STATUS_NOT_IMPLEMENTED,
        "Removing a source is not available in this version; delete the collection and index what you want to keep");
}

enum status sources_remove_one(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = find_source(r, true, &rows);
    return s == STATUS_OK ? not_yet(r) : s;
}

/* The path comes as a query parameter or, as the front end sends it, in a body. */
enum status sources_remove(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    const char *path = request_query(r, "source_path");
    if (!path)
        path = json_get_text(r->json, "source_path", NULL);
    if (!path)
        return request_invalid(r, "query", "source_path", "missing", "Field required");
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_find(r->sc, r->db, c.id, 0, path, &rows);
    return s == STATUS_OK ? not_yet(r) : s;
}
