#include "api/accept.h"

#include "api/idempotency.h"
#include "api/resources.h"
#include "api/router.h"
#include "api/views.h"
#include "common/store/operation_view.h"

struct accepting {
    const struct acceptance *a;
    struct operation_ref operation;
};

static enum status reply_with_operation(struct request *r, const struct operation_ref *o)
{
    scoped(PGresult) *rows = NULL;
    enum status s = operation_view_find(r->sc, r->db, o->uuid, false, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 202), NULL, &schema_OPERATION, rows, 0);
    return s;
}

static enum status accept_in_transaction(struct request *r, void *context)
{
    struct accepting *accepting = context;
    const struct acceptance *a = accepting->a;
    struct operation_new o = {
        .collection_id = a->collection->id,
        .user_id = r->user.id,
        .type = a->type,
        .config_json = a->config_json,
        .default_retries = (int)r->api->settings->default_max_retries,
    };
    /* A sync without room for more still follows what went. */
    bool reads_source = a->type == OPERATION_INDEX || a->type == OPERATION_APPEND;
    enum status s = resource_admit(r, a->type, reads_source);
    if (s == STATUS_OK && a->before)
        s = a->before(r, a->context);
    if (s == STATUS_OK)
        s = operation_store_insert(r->sc, r->db, &o, &accepting->operation);
    if (s == STATUS_OK)
        s = resource_reserve(r, a->collection, a->type, a->config_json, &accepting->operation);
    if (s == STATUS_OK && operation_kind(a->type)->mutates)
        s = collection_store_take(r->sc, r->db, a->collection->id);
    if (s == STATUS_OK && a->also)
        s = a->also(r, &accepting->operation, a->context);
    if (s != STATUS_OK)
        return s;
    return a->reply ? a->reply(r, &accepting->operation, a->context) : reply_with_operation(r, &accepting->operation);
}

enum status accept_operation(struct request *r, const struct acceptance *a, struct operation_ref *out,
                             bool *out_is_replay)
{
    struct accepting accepting = {.a = a};
    enum status s = idempotency_run(r, accept_in_transaction, &accepting, out_is_replay);
    if (s == STATUS_CONFLICT)
        return guard_busy(r, a->collection, a->what);
    if (s != STATUS_OK || *out_is_replay)
        return s;
    guard_accepted(r, &accepting.operation);
    if (out)
        *out = accepting.operation;
    return STATUS_OK;
}
