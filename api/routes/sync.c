/* Following a continuous collection's sources: by hand, paused, resumed, and what came of it. */
#include "api/accept.h"
#include "api/idempotency.h"
#include "api/router.h"
#include "api/views.h"
#include "common/store/source_store.h"
#include "common/store/sync_store.h"

#include <string.h>

static const char WHAT[] = "Cannot synchronise the collection";

static enum status check_continuous(struct request *r, const struct collection *c)
{
    return c->is_continuous ? STATUS_OK
                            : fail(r->sc, STATUS_INVALID,
                                   "The collection is not synchronised: its sync_mode is 'one_time'; PUT sync_mode "
                                   "'continuous' with sync_interval_minutes first");
}

static enum status check_ready(struct request *r, const struct collection *c)
{
    scoped(PGresult) *sources = NULL;
    if (strcmp(c->status, "pending") == 0)
        return fail(r->sc, STATUS_CONFLICT, "%s: it is not indexed yet; add a source first", WHAT);
    if (strcmp(c->status, "ready") != 0)
        return guard_busy(r, c, WHAT);
    enum status s = source_store_list(r->sc, r->db, c->id, 1, 0, &sources);
    if (s == STATUS_OK && view_total(sources) == 0)
        return fail(r->sc, STATUS_CONFLICT, "%s: it has no sources; add one first", WHAT);
    return s;
}

/* ---- now ---- */

struct sync_request {
    const struct collection *collection;
    PGresult *run;
};

static enum status begin_run(struct request *r, const struct operation_ref *o, void *context)
{
    struct sync_request *n = context;
    return sync_store_begin(r->sc, r->db, n->collection->id, o->uuid, "user", &n->run);
}

static enum status reply_with_run(struct request *r, const struct operation_ref *o, void *context)
{
    const struct sync_request *n = context;
    (void)o;
    view_write(reply_json(r, 202), NULL, &schema_SYNC_RUN, n->run, 0);
    return STATUS_OK;
}

enum status sync_run(struct request *r)
{
    struct collection c;
    bool is_replay = false;
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = idempotency_replay(r, &is_replay);
    if (s == STATUS_OK && !is_replay)
        s = check_continuous(r, &c);
    if (s == STATUS_OK && !is_replay)
        s = check_ready(r, &c);
    if (s != STATUS_OK || is_replay)
        return s;
    struct sync_request n = {.collection = &c};
    const struct acceptance a = {.collection = &c,
                                 .type = OPERATION_SYNC,
                                 .config_json = sync_store_config(r->sc, "user"),
                                 .what = WHAT,
                                 .also = begin_run,
                                 .reply = reply_with_run,
                                 .context = &n};
    s = accept_operation(r, &a, NULL, &is_replay);
    PQclear(n.run);
    return s;
}

/* ---- later ---- */

static enum status pause_or_resume(struct request *r, bool is_paused)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = check_continuous(r, &c);
    if (s == STATUS_OK)
        s = sync_store_pause(r->sc, r->db, c.id, is_paused, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_COLLECTION, rows, 0);
    return s;
}

enum status sync_pause(struct request *r)
{
    return pause_or_resume(r, true);
}

enum status sync_resume(struct request *r)
{
    return pause_or_resume(r, false);
}

/* ---- before ---- */

enum status sync_runs(struct request *r)
{
    struct collection c;
    int64_t offset, limit;
    scoped(PGresult) *rows = NULL;
    enum status s = request_slice(r, &offset, &limit);
    if (s == STATUS_OK)
        s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = sync_store_list(r->sc, r->db, c.id, (int)limit, offset, &rows);
    if (s == STATUS_OK)
        view_reply_slice(r, &schema_SYNC_RUN, rows, offset, limit);
    return s;
}
