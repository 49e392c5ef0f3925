/* Accepts a SYNC operation for each continuous collection whose time has come. One that is busy is tried again at the
 * next run; one that is being followed still is not due before it has ended. */
#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/sync_store.h"
#include "worker/schedule.h"

enum { AT_A_TIME = 100 };

struct dispatched {
    int64_t accepted, busy, limited, failed;
};

static void push(struct scope *sc, struct scheduled *s, const struct operation_ref *o)
{
    (void)FAULT(AFTER_DISPATCH_COMMIT, o->uuid);
    metrics_add(METRIC_OPERATIONS, o->type, "accepted", 1);
    log_info("operation_accepted", log_text("operation", o->uuid), log_text("type", o->type),
             log_text("collection", o->collection_uuid), log_text("by", "schedule"));
    operation_store_push(sc, s->queue, o);
}

/* The status that it has, unless this fails: then nothing would keep it from being the next one again. */
static enum status put_off(struct scope *own, struct scheduled *s, int64_t collection_id, enum status status)
{
    scope_forgive(own);
    enum status put = sync_store_put_off(own, s->db, collection_id);
    return put == STATUS_OK ? status : STATUS_UNAVAILABLE;
}

/* STATUS_OK also when the collection was busy, or its owner runs as many operations as he may; another's trouble does
 * not keep the rest waiting. */
static enum status dispatch(struct scheduled *s, int64_t collection_id, int64_t owner_id, const char *uuid,
                            struct dispatched *d)
{
    struct scope own;
    struct operation_ref o = {0};
    scope_init(&own, NULL);
    enum status status = sync_store_dispatch(&own, s->db, s->settings, collection_id, owner_id, &o);
    d->accepted += status == STATUS_OK;
    d->busy += status == STATUS_CONFLICT;
    d->limited += status == STATUS_RATE_LIMITED;
    if (status == STATUS_OK)
        push(&own, s, &o);
    if (status != STATUS_OK && status != STATUS_CONFLICT && status != STATUS_RATE_LIMITED) {
        d->failed++;
        log_warning("sync_not_dispatched", log_text("collection", uuid), log_text("problem", own.problem_text));
    }
    if (status != STATUS_OK && status != STATUS_UNAVAILABLE && status != STATUS_CANCELLED)
        status = put_off(&own, s, collection_id, status);
    scope_done(&own);
    return status == STATUS_UNAVAILABLE || status == STATUS_CANCELLED ? status : STATUS_OK;
}

/* Those that were accepted are due no more, and the others not before the next minute. */
static enum status dispatch_page(struct scope *sc, struct scheduled *s, struct dispatched *d, bool *out_goes_on)
{
    scoped(PGresult) *rows = NULL;
    enum status status = sync_store_due(sc, s->db, AT_A_TIME, &rows);
    for (int r = 0; status == STATUS_OK && r < PQntuples(rows); r++) {
        if (s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        status = dispatch(s, db_int(rows, r, "id", 0), db_int(rows, r, "owner_id", 0), db_text(rows, r, "uuid"), d);
        if (status != STATUS_OK)
            return fail(sc, status, "a sync cannot be dispatched: %s", status_text(status));
    }
    *out_goes_on = status == STATUS_OK && PQntuples(rows) == AT_A_TIME;
    return status;
}

enum status dispatch_syncs(struct scope *sc, struct scheduled *s)
{
    struct dispatched d = {0};
    enum status status;
    bool goes_on = false;
    do {
        struct scope own;
        scope_init(&own, NULL);
        status = dispatch_page(&own, s, &d, &goes_on);
        if (status != STATUS_OK)
            status = fail(sc, status, "%s", own.problem_text ? own.problem_text : status_text(status));
        scope_done(&own);
    } while (goes_on);
    s->result_json = arena_printf(&sc->arena, "{\"dispatched\":%lld,\"busy\":%lld,\"limited\":%lld,\"failed\":%lld}",
                                  (long long)d.accepted, (long long)d.busy, (long long)d.limited, (long long)d.failed);
    return status;
}
