/* A collection's sources. */
#include "api/accept.h"
#include "api/idempotency.h"
#include "api/resources.h"
#include "api/router.h"
#include "api/source_request.h"
#include "api/views.h"
#include "common/fault.h"
#include "common/store/source_store.h"

#include <string.h>

struct addition {
    struct source_request source;
    struct operation_ref operation;
    bool is_limited; /* the user has limits, which are looked at in the same transaction */
};

static enum status add_source(struct request *r, void *context)
{
    struct addition *n = context;
    scoped(PGresult) *rows = NULL;
    struct source_addition a = {
        .collection_uuid = r->params[0],
        .user_id = r->user.id,
        .type = n->source.type,
        .path = n->source.path,
        .config_json = n->source.config_json,
        .additional_json = n->source.additional_json,
        .default_retries = (int)r->api->settings->default_max_retries,
        .is_admitted = n->is_limited,
    };
    (void)FAULT(BEFORE_SOURCE_ADDED, r->params[0]);
    enum status s = n->is_limited ? resource_admit(r, OPERATION_APPEND, true) : STATUS_OK;
    if (s == STATUS_OK)
        s = operation_store_add_source(r->sc, r->db, &a, &n->operation, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 202), NULL, &schema_OPERATION, rows, 0);
    return s;
}

/* The statement is a transaction by itself; only an Idempotency-Key and limits make it part of a larger one. */
static enum status add_once(struct request *r, struct addition *n, bool *out_is_done)
{
    *out_is_done = false;
    const char *key = request_header(r, "Idempotency-Key");
    return n->is_limited || (key && *key) ? idempotency_run(r, add_source, n, out_is_done) : add_source(r, n);
}

/* The statement passes over users with limits; so most requests do not ask for them. */
static enum status add_within_limits(struct request *r, struct addition *n, bool *out_is_done)
{
    n->is_limited = resource_store_limits_all(r->api->settings);
    enum status s = add_once(r, n, out_is_done);
    if (s != STATUS_CONFLICT || n->is_limited)
        return s;
    scope_forgive(r->sc);
    s = resource_store_is_limited(r->sc, r->db, r->api->settings, r->user.id, &n->is_limited);
    return s == STATUS_OK ? n->is_limited ? add_once(r, n, out_is_done) : STATUS_CONFLICT : s;
}

/* Whether the client may see and change the collection comes before what is wrong with its source. */
static enum status refuse(struct request *r, enum status s)
{
    struct collection c;
    enum status problem = r->sc->problem;
    const char *sentence = r->sc->problem_text;
    scope_forgive(r->sc);
    enum status guard = guard_owned(r, r->params[0], &c, NULL);
    if (guard != STATUS_OK)
        return guard;
    if (s == STATUS_CONFLICT)
        return guard_busy(r, &c, "Cannot add a source");
    r->sc->problem = problem;
    r->sc->problem_text = sentence;
    return s;
}

enum status sources_add(struct request *r)
{
    struct addition n = {0};
    bool is_done = false;
    enum status s = idempotency_replay(r, &is_done);
    if (s != STATUS_OK || is_done)
        return s;
    s = source_request_read(r, &n.source);
    if (s != STATUS_OK)
        return refuse(r, s);
    s = add_within_limits(r, &n, &is_done);
    if (s == STATUS_CONFLICT)
        return refuse(r, s);
    if (s == STATUS_OK && !is_done)
        guard_accepted(r, &n.operation);
    return s;
}

enum status sources_list(struct request *r)
{
    int64_t offset, limit;
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = request_slice(r, &offset, &limit);
    if (s == STATUS_OK)
        s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_list(r->sc, r->db, c.id, (int)limit, offset, &rows);
    if (s == STATUS_OK)
        view_reply_slice(r, &schema_SOURCE, rows, offset, limit);
    return s;
}

enum status sources_show(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_find(r->sc, r->db, c.id, strtoll(r->params[1], NULL, 10), NULL, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_SOURCE, rows, 0);
    return s;
}

/* ---- removing ---- */

static enum status remove_source(struct request *r, const struct collection *c, const PGresult *source)
{
    scoped_text config = {0};
    bool is_replay;
    json_open(&config, NULL, '{');
    json_int(&config, "source_id", db_int(source, 0, "id", 0));
    json_text(&config, "source_type", db_text(source, 0, "source_type"));
    json_text(&config, "source_path", db_text(source, 0, "source_path"));
    json_close(&config, '}');
    return accept_operation(r,
                            &(struct acceptance){.collection = c,
                                                 .type = OPERATION_REMOVE_SOURCE,
                                                 .config_json = text_str(&config),
                                                 .what = "Cannot remove the source"},
                            NULL, &is_replay);
}

enum status sources_remove_one(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    bool is_replay = false;
    enum status s = idempotency_replay(r, &is_replay);
    if (s != STATUS_OK || is_replay)
        return s;
    s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_find(r->sc, r->db, c.id, strtoll(r->params[1], NULL, 10), NULL, &rows);
    return s == STATUS_OK ? remove_source(r, &c, rows) : s;
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
    bool is_replay = false;
    enum status s = idempotency_replay(r, &is_replay);
    if (s != STATUS_OK || is_replay)
        return s;
    s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_find(r->sc, r->db, c.id, 0, path, &rows);
    return s == STATUS_OK ? remove_source(r, &c, rows) : s;
}

/* ---- changing ---- */

/* What was given of source_config takes the place of what was there; the next scan goes by it. */
enum status sources_update(struct request *r)
{
    struct collection c;
    const char *config = NULL;
    scoped(PGresult) *before = NULL;
    scoped(PGresult) *rows = NULL;
    int64_t id = strtoll(r->params[1], NULL, 10);
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = source_store_find(r->sc, r->db, c.id, id, NULL, &before);
    if (s == STATUS_OK)
        s = source_request_change(r, db_text(before, 0, "source_path"), &config);
    if (s == STATUS_OK)
        s = source_store_update(r->sc, r->db, c.id, id, config);
    if (s == STATUS_OK)
        s = source_store_find(r->sc, r->db, c.id, id, NULL, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_SOURCE, rows, 0);
    return s;
}
